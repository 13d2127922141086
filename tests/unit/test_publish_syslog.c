/* The message, and the socket: one that reads, one that does not, none at all. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "store_fixture.h"

#define WAIT_MS 20000

/* ---- the message ----------------------------------------------------------------------------- */

static struct publication publication_of(const char *text)
{
    struct publication n = {.len = strlen(text)};

    (void)snprintf(n.text, sizeof(n.text), "%s", text);
    return n;
}

static void syslog_message__escapes_what_a_line_cannot_hold(void **state)
{
    const struct publication n = publication_of("a\\b/tekd/audit/1\n12\nq83v+/=\n\n"
                                                "\xe2\x80\x94 a\\b/tekd/audit/1 AAAA\n\t\x7f");
    AUTO(buf) struct buf *b = NULL;
    char expected[512];

    (void)state;
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    assert_int_equal(buf_new(1024, &b), 0);
    assert_int_equal(syslog_message(&n, 10, INT64_C(1767225600) * SECOND_US, b), 0);
    (void)snprintf(
        expected, sizeof(expected),
        "<85>Jan  1 00:00:00 tekd[%d]: checkpoint a\\\\b/tekd/audit/1\\n12\\nq83v+/=\\n\\n"
        "\\0342\\0200\\0224 a\\\\b/tekd/audit/1 AAAA\\n\\0011\\0177",
        (int)getpid());
    assert_string_equal(buf_str(b), expected);
}

static void syslog_message__carries_facility_and_local_time(void **state)
{
    const struct publication n = publication_of("x\n");
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(setenv("TZ", "XXX-5", 1), 0);
    tzset();
    assert_int_equal(buf_new(1024, &b), 0);
    assert_int_equal(syslog_message(&n, 23, INT64_C(1767312000) * SECOND_US, b), 0);
    assert_memory_equal(buf_str(b), "<189>Jan  2 05:00:00 tekd[", 26);
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    tzset();
}

static void syslog_message__has_a_limit(void **state)
{
    const struct publication n = publication_of("0123456789");
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(16, &b), 0);
    assert_int_equal(syslog_message(&n, 10, 0, b), TEKD_ETOOBIG);
}

/* ---- the socket ------------------------------------------------------------------------------ */

struct daemon {
    struct fixture *f;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int fd;
    struct publish *publish;
};

static void listen_there(struct daemon *d)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    d->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(d->fd >= 0);
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", d->path);
    assert_int_equal(bind(d->fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
}

/* What it gets; within a bound. */
static void receive(struct daemon *d, char *out, size_t size)
{
    struct pollfd p = {.fd = d->fd, .events = POLLIN};
    ssize_t n;

    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    n = recv(d->fd, out, size - 1, 0);
    assert_true(n > 0);
    out[n] = '\0';
}

/* Fills it until it takes no more. */
static void fill(const struct daemon *d)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", d->path);
    while (sendto(fd, "x", 1, 0, (const struct sockaddr *)&sa, sizeof(sa)) == 1)
        ;
    assert_int_equal(errno, EAGAIN);
}

static int set_up(void **state)
{
    struct daemon *d = calloc(1, sizeof(*d));
    void *f = NULL;

    assert_non_null(d);
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    assert_int_equal(fixture_setup(&f), 0);
    d->f = f;
    d->fd = -1;
    (void)snprintf(d->path, sizeof(d->path), "%s/log", d->f->dir);
    fixture_open(d->f);
    assert_int_equal(probe_run(d->f, STORE_SIGNED, NULL, 1), 0);
    fixture_turn(d->f);
    *state = d;
    return 0;
}

static void start(struct daemon *d)
{
    const struct publish_options o = {.store = d->f->store,
                                      .interval_s = 60,
                                      .dir = d->f->dir,
                                      .syslog = {.socket = d->path, .facility = 10}};

    assert_int_equal(publish_start(&o, &d->publish), 0);
}

static int tear_down(void **state)
{
    struct daemon *d = *state;
    void *f = d->f;

    publish_stop(d->publish);
    if (d->fd >= 0)
        (void)close(d->fd);
    free(d);
    return fixture_teardown(&f);
}

static struct publish_status status_of(struct daemon *d)
{
    struct publish_status s[PUBLISH_MAX];

    assert_int_equal(publish_status_get(d->publish, s), 1);
    return s[0];
}

/* Until it has failed. */
static struct publish_status wait_failure(struct daemon *d)
{
    const struct timespec moment = {.tv_nsec = 1000000};

    for (unsigned i = 0; i < WAIT_MS && status_of(d).failures == 0; i++)
        (void)nanosleep(&moment, NULL);
    return status_of(d);
}

static void publish_start__sends_the_note_at_once_and_each_interval(void **state)
{
    struct daemon *d = *state;
    char got[4096];

    listen_there(d);
    start(d);
    receive(d, got, sizeof(got));
    assert_memory_equal(got, "<85>", 4);
    assert_non_null(strstr(got, "]: checkpoint bsm.example/tekd/audit/1\\n"));
    assert_non_null(strstr(got, "\\n\\n\\0342\\0200\\0224 bsm.example/tekd/audit/1 "));
    assert_int_equal(probe_run(d->f, STORE_SIGNED, NULL, 1), 0);
    fixture_turn(d->f);
    fake_clock_advance(60 * SECOND_US);
    receive(d, got, sizeof(got));
    assert_non_null(strstr(got, "checkpoint bsm.example/tekd/audit/1\\n"));
}

static void publish_start__says_that_nobody_is_there_and_goes_on_when_somebody_is(void **state)
{
    struct daemon *d = *state;
    struct publish_status s;
    char got[4096];

    start(d);
    s = wait_failure(d);
    assert_string_equal(s.name, "syslog");
    assert_string_equal(s.to, d->path);
    assert_string_equal(s.why, "connect: No such file or directory");
    listen_there(d);
    fake_clock_advance(60 * SECOND_US);
    receive(d, got, sizeof(got));
    assert_non_null(strstr(got, "checkpoint bsm.example/tekd/audit/1\\n"));
}

static void publish_start__gives_up_a_daemon_that_does_not_read(void **state)
{
    struct daemon *d = *state;

    listen_there(d);
    fill(d);
    start(d);
    assert_string_equal(wait_failure(d).why, "the daemon has not read for 2000 ms");
    /* The store never waited for it. */
    assert_int_equal(probe_run(d->f, STORE_SIGNED, NULL, 1), 0);
}

static void publish_start__refuses_a_path_that_no_socket_has(void **state)
{
    struct daemon *d = *state;
    char path[200];
    const struct publish_options o = {
        .store = d->f->store, .interval_s = 60, .dir = d->f->dir, .syslog = {.socket = path}};
    struct publish *p = NULL;

    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(publish_start(&o, &p), TEKD_EINVAL);
    assert_null(p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syslog_message__escapes_what_a_line_cannot_hold),
        cmocka_unit_test(syslog_message__carries_facility_and_local_time),
        cmocka_unit_test(syslog_message__has_a_limit),
        TEST(publish_start__sends_the_note_at_once_and_each_interval),
        TEST(publish_start__says_that_nobody_is_there_and_goes_on_when_somebody_is),
        TEST(publish_start__gives_up_a_daemon_that_does_not_read),
        TEST(publish_start__refuses_a_path_that_no_socket_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
