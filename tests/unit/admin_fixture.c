#include "admin_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/err.h"

/* ---- the parts behind the socket ------------------------------------------------------------- */

/* The front and the push service of this test. */
void http_status_get(struct http *h, struct http_status *ret_status)
{
    assert_null(h);
    *ret_status =
        (struct http_status){.connections = 3, .ends.certificate_not_after_s = 1800000000};
}

int push_status_get(struct push *p, struct push_status *ret_status)
{
    assert_null(p);
    *ret_status = (struct push_status){.count = {[STORE_DELIVERY_PREPARED] = 2,
                                                 [STORE_DELIVERY_UNKNOWN] = 1,
                                                 [STORE_DELIVERY_CONFIRMED] = 40,
                                                 [STORE_DELIVERY_ABANDONED] = 3},
                                       .under_way = 4,
                                       .attempts = 50,
                                       .failed = 9,
                                       .oldest_open_us = 1767225600000000};
    return 0;
}

size_t publish_status_get(struct publish *p, struct publish_status ret_status[static PUBLISH_MAX])
{
    assert_null(p);
    ret_status[0] = (struct publish_status){
        .name = "syslog",
        .to = "/dev/log",
        .epoch = 1,
        .size = 7,
        .published_utc_us = 1767225600000000,
        .failures = 3,
        .failing_utc_us = 1767225660000000,
        .why = "the daemon has not read for 2000 ms",
    };
    return 1;
}

int publish_export(struct publish *p, const struct publish_export *e)
{
    int r;

    assert_null(p);
    assert_int_equal(e->epoch, 1);
    assert_true(e->size > 0);
    r = e->each(e->arg, "1-7-20260101.note", "note\n", 5);
    return r < 0 ? r : e->each(e->arg, "1-7-20260101.tsr", "0\n\xff", 3);
}

static _Atomic int64_t hurried;

void push_hurry(struct push *p, int64_t bsa)
{
    assert_null(p);
    hurried = bsa;
}

int64_t admin_test_hurried(void)
{
    return hurried;
}

const char *admin_test_reason = "no reason at all";

static int ready(void *arg, char reason[static HSM_TEXT_MAX])
{
    assert_string_equal(arg, "mine");
    (void)snprintf(reason, HSM_TEXT_MAX, "%s", admin_test_reason);
    return TEKD_EHSM;
}

struct admin_options admin_test_options(struct admin_test *t)
{
    return (struct admin_options){.socket = t->path,
                                  .version = "1.2.3",
                                  .bsm_id = SERVICE_BSM,
                                  .instance = "test",
                                  .default_bits = 192,
                                  .delivery_deadline_s = ADMIN_TEST_DEADLINE_S,
                                  .keys = t->s->keys,
                                  .store = t->s->store,
                                  .hsm = t->s->hsm,
                                  .ready = ready,
                                  .ready_arg = (void *)(uintptr_t) "mine"};
}

void admin_test_start(struct admin_test *t)
{
    struct admin_options o = admin_test_options(t);

    assert_int_equal(admin_start(&o, &t->admin), 0);
}

int admin_test_set_up(void **state)
{
    struct admin_test *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    (void)signal(SIGPIPE, SIG_IGN);
    t->s = service_started();
    assert_int_equal(chmod(t->s->dir, 0755), 0); /* other users come to the socket */
    (void)snprintf(t->path, sizeof(t->path), "%s/tekd.sock", t->s->dir);
    admin_test_start(t);
    *state = t;
    return 0;
}

int admin_test_tear_down(void **state)
{
    struct admin_test *t = *state;

    admin_stop(t->admin);
    service_free(t->s);
    free(t);
    return 0;
}

/* ---- a client -------------------------------------------------------------------------------- */

int admin_test_dial(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
        return -1;
    return TAKE_FD(fd);
}

/* All that comes until the other side closes. */
const char *admin_test_read_all(struct admin_test *t, int fd)
{
    size_t at = 0;
    ssize_t n;

    while ((n = recv(fd, t->answer + at, sizeof(t->answer) - 1 - at, 0)) > 0)
        at += (size_t)n;
    t->answer[at] = '\0';
    return t->answer;
}

const char *admin_test_talk(struct admin_test *t, const char *octets)
{
    AUTO_FD int fd = admin_test_dial(t->path);

    assert_true(fd >= 0);
    assert_int_equal(send(fd, octets, strlen(octets), MSG_NOSIGNAL), strlen(octets));
    return admin_test_read_all(t, fd);
}

/* The answer, which is one line; owned by the caller. */
json_t *admin_test_ask(struct admin_test *t, const char *request)
{
    const char *line = admin_test_talk(t, request);
    json_t *o = json_loads(line, 0, NULL);

    if (!json_is_object(o))
        fail_msg("no answer: \"%s\"", line);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    return o;
}

void admin_test_error(struct admin_test *t, const char *request, const char *code, const char *says)
{
    json_t *o = admin_test_ask(t, request);

    assert_true(json_is_false(json_object_get(o, "ok")));
    assert_string_equal(json_string_value(json_object_get(o, "code")), code);
    if (!strstr(json_string_value(json_object_get(o, "error")), says))
        fail_msg("\"%s\" does not say \"%s\"", json_string_value(json_object_get(o, "error")),
                 says);
    json_decref(o);
}

json_t *admin_test_result(struct admin_test *t, const char *request)
{
    json_t *o = admin_test_ask(t, request), *result;

    if (!json_is_true(json_object_get(o, "ok")))
        fail_msg("%s", json_string_value(json_object_get(o, "error")));
    result = json_incref(json_object_get(o, "result"));
    json_decref(o);
    return result;
}

const char *admin_test_str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

json_int_t admin_test_int(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}
