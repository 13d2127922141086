#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "admin_fixture.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define NOBODY 65534
#define GAMES  60 /* and USERS: groups of base-passwd */
#define USERS  100

/* ---- requests -------------------------------------------------------------------------------- */

static void status__says_what_the_parts_say(void **state)
{
    struct admin_test *t = *state;
    json_t *r = admin_test_result(t, "{\"command\":\"status\"}\n");
    const json_t *at;

    assert_string_equal(admin_test_str(r, "version"), "1.2.3");
    assert_string_equal(admin_test_str(r, "bsm_id"), SERVICE_BSM);
    assert_true(json_is_false(json_object_get(r, "ready")));
    assert_string_equal(admin_test_str(r, "reason"), "no reason at all");
    assert_string_equal(admin_test_str(json_object_get(r, "hsm"), "state"), "ready");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(r, "counts"), "bsas")),
                     SERVICE_PEERS);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(r, "http"), "connections")),
                     3);
    assert_true(json_is_null(json_object_get(json_object_get(r, "store"), "anchor")));
    at = json_array_get(json_object_get(r, "published"), 0);
    assert_string_equal(admin_test_str(at, "by"), "syslog");
    assert_string_equal(admin_test_str(at, "to"), "/dev/log");
    assert_int_equal(json_integer_value(json_object_get(at, "size")), 7);
    assert_true(json_is_true(json_object_get(at, "failing")));
    assert_string_equal(admin_test_str(at, "reason"), "the daemon has not read for 2000 ms");
    json_decref(r);
    fake_hsm_set_state(t->s->hsm, HSM_DOWN, "C_Login: \xff");
    r = admin_test_result(t, "{\"command\":\"hsm status\"}\n");
    assert_string_equal(admin_test_str(r, "state"), "down");
    assert_string_equal(admin_test_str(r, "reason"), "C_Login: ?"); /* what is no UTF-8 */
    assert_int_equal(json_array_size(json_object_get(r, "workers")), 1);
    json_decref(r);
}

static void status__says_a_reason_that_is_no_utf8(void **state)
{
    static const char *const reasons[][2] = {
        {"C_Login: \xff", "C_Login: ?"},
        {"refused: /etc/\xc3\xa9", "refused: /etc/\xc3\xa9"},
        {"refused: /etc/\xc3\xa9/\xc3", "refused: /etc/?\?/?"},
    };
    struct admin_test *t = *state;
    const char *usual = admin_test_reason;

    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
        json_t *r;

        admin_test_reason = reasons[i][0];
        r = admin_test_result(t, "{\"command\":\"status\"}\n");
        assert_string_equal(admin_test_str(r, "reason"), reasons[i][1]);
        json_decref(r);
    }
    admin_test_reason = usual;
}

static void request__that_is_malformed_gets_an_error(void **state)
{
    static const char *const rows[][3] = {
        {"\n", "TEKD_EFORMAT", "JSON"},
        {"nonsense\n", "TEKD_EFORMAT", "JSON"},
        {"[]\n", "TEKD_EFORMAT", "JSON"},
        {"{\"command\":\"status\"} {}\n", "TEKD_EFORMAT", "JSON"},
        {"{\"command\":\"status\",\"command\":\"status\"}\n", "TEKD_EFORMAT", "JSON"},
        {"{\"command\":\"\xff\"}\n", "TEKD_EFORMAT", "JSON"},
        {"{}\n", "TEKD_EINVAL", "unknown command"},
        {"{\"command\":7}\n", "TEKD_EINVAL", "unknown command"},
        {"{\"command\":\"nonsense\"}\n", "TEKD_EINVAL", "unknown command"},
        {"{\"command\":\"status\",\"x\":1}\n", "TEKD_EINVAL", "takes no \"x\""},
        {"{\"command\":\"bsa show\"}\n", "TEKD_EINVAL", "\"id\" is missing"},
        {"{\"command\":\"bsa show\",\"id\":7}\n", "TEKD_EINVAL", "expected a string"},
        {"{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"entitle\":\"x\"}\n", "TEKD_EINVAL",
         "expected an array of strings"},
        {"{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"certs\":[1]}\n", "TEKD_EINVAL",
         "expected an array of strings"},
        {"{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"key_info\":\"no\"}\n", "TEKD_EINVAL",
         "expected true or false"},
        {"{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"form\":\"short\"}\n", "TEKD_EINVAL", "form"},
        {"{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"wrap\":\"rot13\"}\n", "TEKD_EINVAL", "rot13"},
        {"{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"keep_old_kek\":1}\n", "TEKD_EINVAL",
         "expected true or false"},
        {"{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"keep_old_kek\":true}\n", "TEKD_EINVAL",
         "without a new one"},
        {"{\"command\":\"bsa add\",\"id\":\"bsa-5\",\"keep_old_kek\":true}\n", "TEKD_EINVAL",
         "takes no \"keep_old_kek\""},
        {"{\"command\":\"bsa retire-kek\",\"kek\":\"bsa-1/1\"}\n", "TEKD_EINVAL",
         "\"id\" is missing"},
        {"{\"command\":\"bsa retire-kek\",\"id\":\"bsa-1\"}\n", "TEKD_EINVAL",
         "\"kek\" is missing"},
        {"{\"command\":\"bsa retire-kek\",\"id\":\"bsa-1\",\"kek\":[]}\n", "TEKD_EINVAL",
         "expected a string"},
        {"{\"command\":\"bsa retire-kek\",\"id\":\"bsa-1\",\"kek\":\"bsa-1/1\"}\n", "TEKD_EINVAL",
         "bsa set bsa-1 --kek LABEL"},
        {"{\"command\":\"bsa retire-kek\",\"id\":\"bsa-1\",\"kek\":\"bsa-1/2\"}\n",
         "TEKD_ENOTFOUND", "has no KEK"},
        {"{\"command\":\"content add\",\"content\":\"c\",\"bits\":\"128\"}\n", "TEKD_EINVAL",
         "expected an integer"},
        {"{\"command\":\"content add\",\"content\":\"c\",\"bits\":-1}\n", "TEKD_EINVAL",
         "128, 192 or 256"},
        {"{\"command\":\"content add\",\"content\":\"c\",\"period\":9}\n", "TEKD_EINVAL",
         "10 to 31536000 seconds"},
        {"{\"command\":\"content add\",\"content\":\"c\",\"lead\":1}\n", "TEKD_EINVAL",
         "no period is given"},
        {"{\"command\":\"content add\",\"content\":\"c\",\"period\":60,\"epoch\":\"3976214400\"}\n",
         "TEKD_EINVAL", "expected a time"},
        {"{\"command\":\"content add\",\"content\":\"c\",\"period\":60,"
         "\"epoch\":\"9999-01-01T00:00:00Z\"}\n",
         "TEKD_EINVAL", "not in the future"},
        {"{\"command\":\"key destroy\",\"key\":\"x\"}\n", "TEKD_EINVAL", "UUID"},
        {"{\"command\":\"audit records\",\"from\":-1}\n", "TEKD_EINVAL", "0 or more"},
        {"{\"command\":\"bsa show\",\"id\":\"none\"}\n", "TEKD_ENOTFOUND", "no such BSA"},
    };
    struct admin_test *t = *state;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        admin_test_error(t, rows[i][0], rows[i][1], rows[i][2]);
    assert_int_equal(service_count(t->s, "admin.action", "action", "bsa set"), 0);
}

static void request__of_a_change_of_nothing_is_refused(void **state)
{
    struct admin_test *t = *state;

    admin_test_error(t, "{\"command\":\"bsa set\",\"id\":\"bsa-1\"}\n", "TEKD_EINVAL",
                     "nothing to change");
    admin_test_error(t, "{\"command\":\"bsa set\"}\n", "TEKD_EINVAL", "\"id\" is missing");
    admin_test_error(t, "{\"command\":\"hsm retry\",\"ask_pin\":\"yes\"}\n", "TEKD_EINVAL",
                     "expected true or false");
    assert_int_equal(service_count(t->s, "admin.action", "action", "bsa set"), 0);
}

/* What is cut at a limit of ours may end in the middle of a character. */
static void error__is_json_whatever_was_asked_for(void **state)
{
    struct admin_test *t = *state;

    for (size_t shift = 0; shift < 2; shift++) {
        char request[2048], id[900] = "x";

        for (size_t i = shift; i + 3 < sizeof(id); i += 2)
            memcpy(id + i, "\xc3\xa4", 3);
        (void)snprintf(request, sizeof(request),
                       "{\"command\":\"content show\",\"content\":\"%s\"}\n", id);
        admin_test_error(t, request, "TEKD_ENOTFOUND", "");
    }
}

static void request__may_come_in_pieces(void **state)
{
    struct admin_test *t = *state;
    static const char request[] = "{\"command\":\"status\"}\n";
    AUTO_FD int fd = admin_test_dial(t->path);

    for (const char *p = request; *p; p++)
        assert_int_equal(send(fd, p, 1, 0), 1);
    assert_non_null(strstr(admin_test_read_all(t, fd), "\"ok\":true"));
}

static void request__without_an_end_is_dropped(void **state)
{
    struct admin_test *t = *state;
    AUTO_FD int fd = admin_test_dial(t->path);

    assert_int_equal(send(fd, "{\"command\":", 11, 0), 11);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_string_equal(admin_test_read_all(t, fd), "");
}

static void request__that_is_too_long_is_dropped(void **state)
{
    struct admin_test *t = *state;
    const size_t len = (size_t)2 * ADMIN_REQUEST_MAX;
    AUTO_MEM char *long_one = malloc(len);
    AUTO_FD int fd = admin_test_dial(t->path);
    size_t at = 0;
    json_t *r;

    assert_non_null(long_one);
    memset(long_one, 'x', len);
    while (at < len) {
        ssize_t n = send(fd, long_one + at, len - at, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    assert_string_equal(admin_test_read_all(t, fd), "");
    r = admin_test_result(t, "{\"command\":\"status\"}\n");
    json_decref(r);
}

/* An export that has begun and cannot end: the log is longer than what the socket holds. */
static int begin_unread(struct admin_test *t)
{
    static const char export[] = "{\"command\":\"audit export\"}\n";
    int fd = admin_test_dial(t->path);
    char octet;

    for (unsigned i = 0; i < 2000; i++) {
        struct record *r = NULL;

        assert_int_equal(record_new("hsm.lost", &r), 0);
        record_str(r, "reason", "a reason of some length, so that the log gets long enough");
        keys_note(t->s->keys, r);
    }
    assert_true(service_count(t->s, "hsm.lost", NULL, NULL) > 0);
    assert_int_equal(send(fd, export, strlen(export), 0), strlen(export));
    assert_int_equal(recv(fd, &octet, 1, 0), 1);
    return fd;
}

/*
 * All at once, since it takes ADMIN_TIMEOUT_MS: one that says nothing, one that says it slowly, one
 * that does not read.
 */
static void peer__that_takes_too_long_is_cut_off(void **state)
{
    struct admin_test *t = *state;
    AUTO_FD int unread = begin_unread(t);
    int64_t begun = clock_mono_us();
    AUTO_FD int silent = admin_test_dial(t->path);
    AUTO_FD int slow = admin_test_dial(t->path);
    struct timeval pause = {.tv_usec = 200000};
    struct pollfd gone = {.fd = unread, .events = POLLRDHUP};

    assert_int_equal(setsockopt(slow, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof(pause)), 0);
    for (;;) {
        char octet;

        if (send(slow, "x", 1, MSG_NOSIGNAL) != 1 || recv(slow, &octet, 1, 0) == 0)
            break;
    }
    assert_string_equal(admin_test_read_all(t, silent), "");
    assert_true(clock_mono_us() - begun >= (ADMIN_TIMEOUT_MS - 1000) * INT64_C(1000));
    assert_int_equal(poll(&gone, 1, ADMIN_TIMEOUT_MS), 1);
    assert_true(clock_mono_us() - begun < INT64_C(2000) * ADMIN_TIMEOUT_MS);
    assert_null(strstr(admin_test_read_all(t, unread), "\nE\n"));
}

/* ---- commands -------------------------------------------------------------------------------- */

static void bsa__is_shown_changed_and_listed(void **state)
{
    struct admin_test *t = *state;
    json_t *r = admin_test_result(t, "{\"command\":\"bsa show\",\"id\":\"bsa-3\"}\n");

    assert_string_equal(admin_test_str(r, "id"), "bsa-3");
    assert_string_equal(admin_test_str(json_object_get(r, "kek"), "wrap"), "aes-kwp");
    assert_true(json_is_true(json_object_get(r, "enabled")));
    json_decref(r);
    r = admin_test_result(t, "{\"command\":\"bsa set\",\"id\":\"bsa-3\",\"form\":\"efficient\","
                             "\"key_info\":false,\"entitle\":[\"a\",\"b\"]}\n");
    json_decref(r);
    r = admin_test_result(t, "{\"command\":\"bsa disable\",\"id\":\"bsa-3\"}\n");
    json_decref(r);
    r = admin_test_result(t, "{\"command\":\"bsa show\",\"id\":\"bsa-3\"}\n");
    assert_string_equal(admin_test_str(r, "form"), "efficient");
    assert_true(json_is_false(json_object_get(r, "enabled")));
    assert_true(json_is_false(json_object_get(r, "key_info")));
    assert_int_equal(json_array_size(json_object_get(r, "entitle")), 2);
    json_decref(r);
    r = admin_test_result(t, "{\"command\":\"bsa list\"}\n");
    assert_int_equal(json_array_size(json_object_get(r, "list")), SERVICE_PEERS);
    assert_null(json_object_get(r, "next"));
    json_decref(r);
    admin_test_error(t, "{\"command\":\"bsa enable\",\"id\":\"none\"}\n", "TEKD_ENOTFOUND", "none");
}

/* What "bsa show" says of a BSA's n-th KEK. */
static void kek_is(struct admin_test *t, size_t n, const char *id, const char *kek_state)
{
    json_t *r = admin_test_result(t, "{\"command\":\"bsa show\",\"id\":\"bsa-1\"}\n");
    const json_t *kek = json_array_get(json_object_get(r, "keks"), n);

    assert_string_equal(admin_test_str(kek, "kek_id"), id);
    assert_string_equal(admin_test_str(kek, "state"), kek_state);
    assert_int_equal(strlen(admin_test_str(kek, "fingerprint")), 64);
    assert_string_not_equal(admin_test_str(kek, "label"), "");
    assert_int_equal(strncmp(admin_test_str(kek, "added"), "20", 2), 0);
    json_decref(r);
}

static void keks__are_replaced_kept_and_retired(void **state)
{
    struct admin_test *t = *state;
    json_t *r;

    fake_hsm_add(t->s->hsm, "second", HSM_WRAP_AES_KW);
    fake_hsm_add(t->s->hsm, "third", HSM_WRAP_AES_KW);
    kek_is(t, 0, "bsa-1/1", "current");
    json_decref(admin_test_result(t, "{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"kek\":\"second\","
                                     "\"keep_old_kek\":true}\n"));
    kek_is(t, 0, "bsa-1/1", "kept");
    kek_is(t, 1, "bsa-1/2", "current");
    json_decref(admin_test_result(t, "{\"command\":\"bsa set\",\"id\":\"bsa-1\",\"kek\":\"third\","
                                     "\"keep_old_kek\":false}\n"));
    kek_is(t, 0, "bsa-1/1", "kept");
    kek_is(t, 1, "bsa-1/2", "retired");
    kek_is(t, 2, "bsa-1/3", "current");
    json_decref(admin_test_result(t, "{\"command\":\"bsa retire-kek\",\"id\":\"bsa-1\","
                                     "\"kek\":\"bsa-1/1\"}\n"));
    kek_is(t, 0, "bsa-1/1", "retired");
    json_decref(admin_test_result(t, "{\"command\":\"bsa disable\",\"id\":\"bsa-1\"}\n"));
    json_decref(admin_test_result(t, "{\"command\":\"bsa retire-kek\",\"id\":\"bsa-1\","
                                     "\"kek\":\"bsa-1/3\"}\n"));
    kek_is(t, 2, "bsa-1/3", "retired");
    r = admin_test_result(t, "{\"command\":\"bsa show\",\"id\":\"bsa-1\"}\n");
    assert_true(json_is_null(json_object_get(r, "kek"))); /* it has none */
    assert_int_equal(json_array_size(json_object_get(r, "keks")), 3);
    json_decref(r);
    admin_test_error(t, "{\"command\":\"bsa enable\",\"id\":\"bsa-1\"}\n", "TEKD_EINVAL",
                     "its KEK is retired");
    assert_int_equal(service_count(t->s, "kek.retired", NULL, NULL), 3);
}

static void contents__come_by_the_page(void **state)
{
    enum { CONTENTS = 501 };
    struct admin_test *t = *state;
    char request[128];
    long long next;
    json_t *r;

    for (unsigned i = 0; i < CONTENTS; i++) {
        char id[16];

        (void)snprintf(id, sizeof(id), "urn:%u", i);
        assert_int_equal(service_add_content(t->s, id, 128), 0);
    }
    r = admin_test_result(t, "{\"command\":\"content list\"}\n");
    assert_int_equal(json_array_size(json_object_get(r, "list")), 500);
    next = json_integer_value(json_object_get(r, "next"));
    assert_true(next > 0);
    json_decref(r);
    (void)snprintf(request, sizeof(request), "{\"command\":\"content list\",\"after\":%lld}\n",
                   next);
    r = admin_test_result(t, request);
    assert_int_equal(json_array_size(json_object_get(r, "list")), 1);
    assert_null(json_object_get(r, "next"));
    assert_string_equal(admin_test_str(json_array_get(json_object_get(r, "list"), 0), "content_id"),
                        "urn:500");
    json_decref(r);
}

static void content__is_shown_with_its_crypto_periods(void **state)
{
    static const struct {
        const char *add, *shown;
    } cases[] = {
        {"\"content\":\"urn:1\"", "{\"period_s\":0,\"lead_s\":0,\"epoch\":null}"},
        {"\"content\":\"urn:2\",\"period\":600,\"lead\":5,\"epoch\":\"2026-01-01T01:00:00+01:00\"",
         "{\"period_s\":600,\"lead_s\":5,\"epoch\":\"2026-01-01T00:00:00.000000Z\"}"},
        {"\"content\":\"urn:3\",\"period\":600,\"epoch\":\"1970-01-01T00:00:00Z\"",
         "{\"period_s\":600,\"lead_s\":60,\"epoch\":\"1970-01-01T00:00:00.000000Z\"}"},
        {"\"content\":\"urn:4\",\"period\":86400,\"epoch\":\"1970-01-01T00:00:00.5Z\"",
         "{\"period_s\":86400,\"lead_s\":600,\"epoch\":\"1970-01-01T00:00:00.500000Z\"}"},
    };
    struct admin_test *t = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char request[256];
        json_t *shown, *wanted = json_loads(cases[i].shown, 0, NULL), *v;
        const char *key;

        (void)snprintf(request, sizeof(request), "{\"command\":\"content add\",%s}\n",
                       cases[i].add);
        json_decref(admin_test_result(t, request));
        (void)snprintf(request, sizeof(request),
                       "{\"command\":\"content show\",\"content\":\"urn:%zu\"}\n", i + 1);
        shown = admin_test_result(t, request);
        json_object_foreach (wanted, key, v)
            assert_true(json_equal(v, json_object_get(shown, key)));
        json_decref(wanted);
        json_decref(shown);
    }
}

static void keys__are_rotated_listed_and_destroyed(void **state)
{
    struct admin_test *t = *state;
    const json_t *list;
    char request[128];
    json_t *r;

    json_decref(admin_test_result(t, "{\"command\":\"content add\",\"content\":\"urn:x\"}\n"));
    r = admin_test_result(t, "{\"command\":\"key rotate\",\"content\":\"urn:x\"}\n");
    (void)snprintf(request, sizeof(request), "{\"command\":\"key destroy\",\"key\":\"%s\"}\n",
                   admin_test_str(r, "key_id"));
    json_decref(r);
    json_decref(admin_test_result(t, "{\"command\":\"key rotate\",\"content\":\"urn:x\"}\n"));
    json_decref(admin_test_result(t, request));
    admin_test_error(t, request, "TEKD_EEXIST", "destroyed already");
    r = admin_test_result(t, "{\"command\":\"key list\",\"content\":\"urn:x\"}\n");
    list = json_object_get(r, "list");
    assert_int_equal(json_array_size(list), 2);
    assert_true(json_is_true(json_object_get(json_array_get(list, 0), "destroyed")));
    assert_true(json_is_false(json_object_get(json_array_get(list, 1), "destroyed")));
    assert_int_equal(admin_test_int(json_array_get(list, 1), "bits"), 192);
    json_decref(r);
    assert_int_equal(service_count(t->s, "admin.action", "action", "key rotate"), 2);
}

/* The page of the TEKs of urn:x behind this one: how many, of which versions; what is behind it, 0:
 * nothing. */
static json_int_t page_of_keys(struct admin_test *t, json_int_t after, size_t n, json_int_t first)
{
    char request[128];
    const json_t *list;
    json_int_t next;
    json_t *r;

    (void)snprintf(request, sizeof(request),
                   "{\"command\":\"key list\",\"content\":\"urn:x\",\"after\":%lld}\n",
                   (long long)after);
    r = admin_test_result(t, request);
    list = json_object_get(r, "list");
    assert_int_equal(json_array_size(list), n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(admin_test_int(json_array_get(list, i), "version"), first + (json_int_t)i);
    next = admin_test_int(r, "next");
    json_decref(r);
    return next;
}

static void keys__come_by_the_page(void **state)
{
    enum { PAGE = 500 };
    struct admin_test *t = *state;
    json_int_t next;
    json_t *r;

    assert_int_equal(service_add_content(t->s, "urn:other", 128), 0);
    service_rotate(t->s, "urn:other"); /* row 1 */
    assert_int_equal(service_add_content(t->s, "urn:x", 128), 0);
    assert_int_equal(page_of_keys(t, 0, 0, 0), 0);
    for (unsigned i = 0; i < PAGE; i++)
        service_rotate(t->s, "urn:x");
    next = page_of_keys(t, 0, PAGE, 1);
    assert_true(next > 0);
    assert_int_equal(page_of_keys(t, next, 0, 0), 0);
    service_rotate(t->s, "urn:x");
    assert_int_equal(page_of_keys(t, 0, PAGE, 1), next);
    assert_int_equal(page_of_keys(t, next, 1, PAGE + 1), 0);
    admin_test_error(t, "{\"command\":\"key list\",\"content\":\"urn:x\",\"after\":1}\n",
                     "TEKD_EINVAL", "\"after\"");
    admin_test_error(t, "{\"command\":\"key list\",\"content\":\"urn:x\",\"after\":-1}\n",
                     "TEKD_EINVAL", "\"after\"");
    /* What does not grow with them. */
    r = admin_test_result(t, "{\"command\":\"content show\",\"content\":\"urn:x\"}\n");
    assert_null(json_object_get(r, "keys"));
    json_decref(r);
}

/* ---- the stream ------------------------------------------------------------------------------ */

static void export__is_the_log_under_its_checkpoint(void **state)
{
    struct admin_test *t = *state;
    const char *stream = admin_test_talk(t, "{\"command\":\"audit export\"}\n");
    json_t *header = json_loads(stream, JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *result = json_object_get(header, "result");
    long long records = json_integer_value(json_object_get(result, "records")), n = 0;
    const char *line;

    assert_true(records > 0);
    assert_non_null(strstr(admin_test_str(result, "checkpoint"), SERVICE_BSM "/tekd/audit/1\n"));
    for (line = strchr(stream, '\n'); line && line[1] == 'R'; line = strchr(line + 1, '\n'))
        n++;
    assert_int_equal(n, records);
    assert_true(line && line[1] == 'N');
    assert_non_null(strstr(stream, "\nA 5 1-7-20260101.note\nnote\n\n"
                                   "A 3 1-7-20260101.tsr\n0\n\xff\n"));
    assert_string_equal(stream + strlen(stream) - 3, "\nE\n");
    json_decref(header);
    assert_int_equal(service_count(t->s, "admin.action", "action", "audit export"), 1);
}

static void records__begin_where_one_says(void **state)
{
    struct admin_test *t = *state;
    const char *stream, *last;

    json_decref(admin_test_result(t, "{\"command\":\"audit checkpoint\"}\n"));
    stream = admin_test_talk(t, "{\"command\":\"audit records\",\"from\":3}\n");
    last = strstr(stream, "\nR ");
    assert_non_null(last);
    assert_non_null(strstr(last, "\"seq\":3,"));
    assert_null(strstr(stream, "\"seq\":2,"));
    stream = admin_test_talk(t, "{\"command\":\"audit records\",\"from\":9007199254740991}\n");
    assert_null(strstr(stream, "\nR "));
    assert_string_equal(stream + strlen(stream) - 3, "\nE\n");
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static size_t descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

static const char *talk_passing(struct admin_test *t, const char *request, const int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char octets[CMSG_SPACE(8 * sizeof(int))];
    } control = {.octets = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)request, .iov_len = strlen(request)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.octets,
                       .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    AUTO_FD int fd = admin_test_dial(t->path);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    assert_int_equal(sendmsg(fd, &m, 0), strlen(request));
    return admin_test_read_all(t, fd);
}

static void hsm_retry__takes_a_pin_by_a_pipe(void **state)
{
    static const char request[] = "{\"command\":\"hsm retry\"}\n";
    struct admin_test *t = *state;
    int fds[2];

    assert_non_null(strstr(admin_test_talk(t, request), "\"ok\":true"));
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "123456", 6), 6);
    (void)close(fds[1]);
    assert_non_null(strstr(talk_passing(t, request, fds, 1), "\"ok\":true"));
    (void)close(fds[0]);
    assert_int_equal(fake_hsm_retries(t->s->hsm), 2);
    assert_int_equal(service_count(t->s, "admin.action", "action", "hsm retry"), 2);
    /* A pipe that nobody writes to or closes is not waited for. */
    assert_int_equal(pipe(fds), 0);
    assert_non_null(strstr(talk_passing(t, request, fds, 1), "the PIN could not be read"));
    (void)close(fds[0]);
    (void)close(fds[1]);
    assert_int_equal(fake_hsm_retries(t->s->hsm), 2);
}

static void descriptors__that_nobody_asked_for_are_closed(void **state)
{
    static const char *const requests[] = {"{\"command\":\"hsm retry\"}\n",
                                           "{\"command\":\"status\"}\n", "nonsense\n"};
    struct admin_test *t = *state;
    int fds[5];
    size_t before;

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)admin_test_talk(t, "{\"command\":\"status\"}\n");
    before = descriptors();
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
        for (size_t n = 1; n <= ARRAY_SIZE(fds); n++)
            (void)talk_passing(t, requests[i], fds, n);
    while (descriptors() > before) /* the thread of the last one may be closing its own */
        (void)usleep(1000);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        (void)close(fds[i]);
}

/* ---- who may --------------------------------------------------------------------------------- */

/* The answer as somebody of this user and group gets it; root only. */
static const char *talk_as(struct admin_test *t, uid_t uid, gid_t gid, const char *request)
{
    char text[256];
    int fds[2], status;
    ssize_t n;
    pid_t child;

    assert_int_equal(pipe(fds), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", t->path);
        if (setgid(gid) < 0 || setuid(uid) < 0 ||
            connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
            _exit(1);
        (void)send(fd, request, strlen(request), MSG_NOSIGNAL);
        n = recv(fd, text, sizeof(text), 0);
        _exit(n > 0 && write(fds[1], text, (size_t)n) == n ? 0 : 1);
    }
    (void)close(fds[1]);
    n = read(fds[0], t->answer, sizeof(t->answer) - 1);
    (void)close(fds[0]);
    t->answer[n > 0 ? n : 0] = '\0';
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return t->answer;
}

static void rights__are_those_of_the_credentials(void **state)
{
    static const char look[] = "{\"command\":\"bsa list\"}\n";
    static const char change[] = "{\"command\":\"content add\",\"content\":\"urn:x\"}\n";
    struct admin_test *t = *state;

    if (getuid() != 0)
        skip();
    assert_non_null(strstr(talk_as(t, NOBODY, NOBODY, look), "TEKD_EDENIED"));
    assert_non_null(strstr(talk_as(t, NOBODY, NOBODY, change), "may not use this socket"));
    assert_non_null(strstr(talk_as(t, NOBODY, NOBODY, "nonsense\n"), "TEKD_EDENIED"));
    assert_non_null(strstr(talk_as(t, 0, 0, look), "\"ok\":true"));
    assert_int_equal(service_count(t->s, "content.added", NULL, NULL), 0);
}

/* The groups of the system are named, so those of Debian that nobody uses serve. */
static void rights__of_groups(void **state)
{
    static const char look[] = "{\"command\":\"bsa list\"}\n";
    static const char change[] = "{\"command\":\"content add\",\"content\":\"urn:x\"}\n";
    struct admin_test *t = *state;
    struct admin_options o = admin_test_options(t);

    if (getuid() != 0)
        skip();
    admin_stop(t->admin);
    o.group = "users";
    o.readonly_group = "games";
    assert_int_equal(admin_start(&o, &t->admin), 0);
    assert_non_null(strstr(talk_as(t, NOBODY, GAMES, look), "\"ok\":true"));
    assert_non_null(strstr(talk_as(t, NOBODY, GAMES, change), "may look, but not"));
    assert_non_null(strstr(talk_as(t, NOBODY, NOBODY, look), "may not use this socket"));
    assert_non_null(strstr(talk_as(t, NOBODY, USERS, change), "\"ok\":true"));
    assert_int_equal(service_count(t->s, "content.added", "actor", "nobody"), 1);
}

static void rights__of_a_group_that_there_is_not(void **state)
{
    struct admin_test *t = *state;
    struct admin_options o = admin_test_options(t);

    admin_stop(t->admin);
    o.group = o.readonly_group = "no-such-group";
    assert_int_equal(admin_start(&o, &t->admin), 0);
    json_decref(admin_test_result(t, "{\"command\":\"bsa list\"}\n"));
    if (getuid() == 0)
        assert_non_null(
            strstr(talk_as(t, NOBODY, NOBODY, "{\"command\":\"status\"}\n"), "TEKD_EDENIED"));
}

/* ---- many at once ---------------------------------------------------------------------------- */

static void connections__over_the_limit_wait_their_turn(void **state)
{
    struct admin_test *t = *state;
    int idle[ADMIN_CONNECTIONS_MAX], late;
    struct timeval pause = {.tv_usec = 100000};
    static const char request[] = "{\"command\":\"status\"}\n";
    char octet;

    for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
        idle[i] = admin_test_dial(t->path);
    late = admin_test_dial(t->path);
    assert_int_equal(send(late, request, strlen(request), 0), strlen(request));
    assert_int_equal(setsockopt(late, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof(pause)), 0);
    assert_int_equal(recv(late, &octet, 1, 0), -1);
    pause = (struct timeval){.tv_sec = 0};
    assert_int_equal(setsockopt(late, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof(pause)), 0);
    (void)close(idle[0]);
    assert_non_null(strstr(admin_test_read_all(t, late), "\"ok\":true"));
    (void)close(late);
    for (size_t i = 1; i < ARRAY_SIZE(idle); i++)
        (void)close(idle[i]);
}

static void *status_often(void *arg)
{
    struct admin_test *t = arg;

    for (int i = 0; i < 50; i++) {
        static const char request[] = "{\"command\":\"status\"}\n";
        char octets[4096];
        size_t at = 0;
        ssize_t n;
        int fd = admin_test_dial(t->path);

        if (fd < 0 || send(fd, request, strlen(request), 0) < 0)
            abort();
        while ((n = recv(fd, octets + at, sizeof(octets) - 1 - at, 0)) > 0)
            at += (size_t)n;
        octets[at] = '\0';
        if (!strstr(octets, "\"ok\":true"))
            abort();
        (void)close(fd);
    }
    return NULL;
}

static void connections__are_served_at_once(void **state)
{
    pthread_t thread[12];

    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, status_often, *state), 0);
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        (void)pthread_join(thread[i], NULL);
}

/* ---- readers and operators ------------------------------------------------------------------- */

#define READERS (ADMIN_READERS_MAX + ADMIN_WAITING_MAX + 1) /* one more than are let in or wait */

/* A process with that many connections of a reader, and pipes to and from it. */
struct crowd {
    pid_t pid;
    int to, from;
};

static bool says(int fd, const char *what)
{
    char text[8192];
    size_t at = 0;
    ssize_t n;

    while ((n = recv(fd, text + at, sizeof(text) - 1 - at, 0)) > 0)
        at += (size_t)n;
    text[at] = '\0';
    return strstr(text, what) != NULL;
}

/* The one of them that has been told something, by its number. */
static int told(const struct pollfd p[static READERS])
{
    for (int i = 0; i < READERS; i++) {
        if (p[i].revents)
            return i;
    }
    return -1;
}

/*
 * The other process: it connects until one is told that there are too many, says so, waits for a
 * word, and asks for something on all others; none of which may have been cut off.  Returns the
 * exit status, which is 0 or says what was wrong.
 */
static int crowd_run(const char *path)
{
    static const char request[] = "{\"command\":\"status\"}\n";
    struct pollfd p[READERS];
    int i, last;
    char octet = 0;

    for (i = 0; i < READERS; i++)
        p[i] = (struct pollfd){.fd = admin_test_dial(path), .events = POLLIN};
    if (poll(p, READERS, -1) != 1)
        return 2;
    last = told(p);
    if (!says(p[last].fd, "TEKD_EAGAIN"))
        return 3;
    p[last].fd = -1;
    if (write(STDOUT_FILENO, &octet, 1) != 1 || read(STDIN_FILENO, &octet, 1) != 1)
        return 4;
    if (poll(p, READERS, 0) != 0)
        return 5;
    for (i = 0; i < READERS; i++) {
        if (i != last && send(p[i].fd, request, strlen(request), MSG_NOSIGNAL) < 0)
            return 6;
    }
    for (i = 0; i < READERS; i++) {
        if (i != last && !says(p[i].fd, "\"ok\":true"))
            return 7;
    }
    return 0;
}

/* Of the socket's parts the process keeps nothing: while it did, they would not seem closed. */
static struct crowd crowd_start(const char *path, gid_t gid)
{
    int to[2], from[2];
    struct crowd c;

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    c = (struct crowd){.pid = fork(), .to = to[1], .from = from[0]};
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        if (dup2(to[0], STDIN_FILENO) < 0 || dup2(from[1], STDOUT_FILENO) < 0)
            _exit(1);
        closefrom(STDERR_FILENO + 1);
        _exit(setgid(gid) < 0 || setuid(NOBODY) < 0 ? 1 : crowd_run(path));
    }
    (void)close(to[0]);
    (void)close(from[1]);
    return c;
}

/* Sends the word; the exit status. */
static int crowd_end(const struct crowd *c)
{
    int status;

    assert_int_equal(write(c->to, "", 1), 1);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    (void)close(c->to);
    (void)close(c->from);
    return status;
}

/* As many readers, of the group games, as there may be at all; "users" may do everything. */
static struct crowd crowd_in(struct admin_test *t)
{
    struct admin_options o = admin_test_options(t);
    struct crowd c;
    char octet;

    admin_stop(t->admin);
    o.group = "users";
    o.readonly_group = "games";
    assert_int_equal(admin_start(&o, &t->admin), 0);
    c = crowd_start(t->path, GAMES);
    assert_int_equal(read(c.from, &octet, 1), 1);
    return c;
}

static void readers__cannot_keep_out_who_may_change_things(void **state)
{
    static const char change[] = "{\"command\":\"content add\",\"content\":\"urn:x\"}\n";
    struct admin_test *t = *state;
    struct crowd c;

    if (getuid() != 0)
        skip();
    c = crowd_in(t);
    json_decref(admin_test_result(t, "{\"command\":\"status\"}\n"));
    assert_non_null(strstr(talk_as(t, NOBODY, USERS, change), "\"ok\":true"));
    assert_non_null(
        strstr(talk_as(t, NOBODY, GAMES, "{\"command\":\"status\"}\n"), "try again later"));
    assert_int_equal(crowd_end(&c), 0);
    /* Their places are free again. */
    assert_non_null(strstr(talk_as(t, NOBODY, GAMES, "{\"command\":\"status\"}\n"), "\"ok\":true"));
}

/* Those who wait are let go as well. */
static void stop__ends_readers_who_wait(void **state)
{
    struct admin_test *t = *state;
    struct crowd c;

    if (getuid() != 0)
        skip();
    c = crowd_in(t);
    admin_stop(t->admin);
    t->admin = NULL;
    assert_int_equal(WEXITSTATUS(crowd_end(&c)), 5);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void start__replaces_what_a_dead_tekd_left_only(void **state)
{
    struct admin_test *t = *state;
    struct admin_options o = admin_test_options(t);
    struct admin *second;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct stat st;
    int fd;

    assert_int_equal(admin_start(&o, &second), TEKD_EEXIST);
    json_decref(admin_test_result(t, "{\"command\":\"status\"}\n")); /* and did it no harm */
    admin_stop(t->admin);
    assert_int_equal(lstat(t->path, &st), -1);
    /* Left over: bound, and nobody listens. */
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", t->path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
    (void)close(fd);
    admin_test_start(t);
    json_decref(admin_test_result(t, "{\"command\":\"status\"}\n"));
}

static void start__leaves_alone_what_is_no_socket(void **state)
{
    struct admin_test *t = *state;
    struct admin_options o = admin_test_options(t);
    struct admin *other;
    char path[160];
    struct stat st;
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/precious", t->s->dir);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs("octets", f) >= 0);
    assert_int_equal(fclose(f), 0);
    o.socket = path;
    assert_int_equal(admin_start(&o, &other), TEKD_EEXIST);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 6);
}

static void start__refuses_a_path_that_does_not_fit(void **state)
{
    struct admin_test *t = *state;
    struct admin_options o = admin_test_options(t);
    struct admin *other;
    char path[200];

    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    memcpy(path, "/tmp/", 5);
    o.socket = path;
    assert_int_equal(admin_start(&o, &other), TEKD_EINVAL);
    o.socket = "/nowhere/tekd.sock";
    assert_int_equal(admin_start(&o, &other), TEKD_EIO);
}

static void stop__ends_what_is_under_way(void **state)
{
    struct admin_test *t = *state;
    AUTO_FD int idle = admin_test_dial(t->path);
    AUTO_FD int half = admin_test_dial(t->path);
    AUTO_FD int unread = begin_unread(t);
    int64_t begun;
    char octet;

    assert_int_equal(send(half, "{", 1, 0), 1);
    begun = clock_mono_us();
    admin_stop(t->admin);
    t->admin = NULL;
    assert_true(clock_mono_us() - begun < 5000000);
    assert_int_equal(recv(idle, &octet, 1, 0), 0);
    assert_string_equal(admin_test_read_all(t, half), "");
    assert_null(strstr(admin_test_read_all(t, unread), "\nE\n"));
    assert_int_equal(admin_test_dial(t->path), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ADMIN_TEST(status__says_what_the_parts_say),
        ADMIN_TEST(status__says_a_reason_that_is_no_utf8),
        ADMIN_TEST(request__that_is_malformed_gets_an_error),
        ADMIN_TEST(request__of_a_change_of_nothing_is_refused),
        ADMIN_TEST(error__is_json_whatever_was_asked_for),
        ADMIN_TEST(request__may_come_in_pieces),
        ADMIN_TEST(request__without_an_end_is_dropped),
        ADMIN_TEST(request__that_is_too_long_is_dropped),
        ADMIN_TEST(peer__that_takes_too_long_is_cut_off),
        ADMIN_TEST(bsa__is_shown_changed_and_listed),
        ADMIN_TEST(keks__are_replaced_kept_and_retired),
        ADMIN_TEST(contents__come_by_the_page),
        ADMIN_TEST(content__is_shown_with_its_crypto_periods),
        ADMIN_TEST(keys__are_rotated_listed_and_destroyed),
        ADMIN_TEST(keys__come_by_the_page),
        ADMIN_TEST(export__is_the_log_under_its_checkpoint),
        ADMIN_TEST(records__begin_where_one_says),
        ADMIN_TEST(hsm_retry__takes_a_pin_by_a_pipe),
        ADMIN_TEST(descriptors__that_nobody_asked_for_are_closed),
        ADMIN_TEST(rights__are_those_of_the_credentials),
        ADMIN_TEST(rights__of_groups),
        ADMIN_TEST(rights__of_a_group_that_there_is_not),
        ADMIN_TEST(connections__over_the_limit_wait_their_turn),
        ADMIN_TEST(connections__are_served_at_once),
        ADMIN_TEST(readers__cannot_keep_out_who_may_change_things),
        ADMIN_TEST(stop__ends_readers_who_wait),
        ADMIN_TEST(start__replaces_what_a_dead_tekd_left_only),
        ADMIN_TEST(start__leaves_alone_what_is_no_socket),
        ADMIN_TEST(start__refuses_a_path_that_does_not_fit),
        ADMIN_TEST(stop__ends_what_is_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
