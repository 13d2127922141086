#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "tekd/auto.h"
#include "tekd/err.h"
#include "tekd/http.h"
#include "tekd/log.h"

#define ANSWER_MAX 8192

static int get(void *arg, const char *path, struct buf *body)
{
    assert_string_equal(arg, "mine");
    if (strcmp(path, "/healthz") == 0)
        return buf_puts(body, "alive\n") == 0 ? 200 : 500;
    if (strcmp(path, "/readyz") == 0)
        return buf_puts(body, "not ready: no reason\n") == 0 ? 503 : 500;
    return buf_puts(body, "no such path\n") == 0 ? 404 : 500;
}

static const struct http_plain_options *options(uint16_t port)
{
    static struct http_plain_options o;

    o = (struct http_plain_options){.listen = {.address = "127.0.0.1", .port = port},
                                    .get = get,
                                    .arg = (void *)(uintptr_t) "mine"};
    return &o;
}

static int set_up(void **state)
{
    struct http_plain *p;

    (void)signal(SIGPIPE, SIG_IGN);
    assert_int_equal(http_plain_start(options(0), &p), 0);
    assert_int_not_equal(http_plain_port(p), 0);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    http_plain_stop(*state);
    return 0;
}

static int dial(uint16_t port)
{
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* One request on a connection of its own, which the answer ends. */
static const char *ask(const struct http_plain *p, const char *request)
{
    static char answer[ANSWER_MAX];
    AUTO_FD int fd = dial(http_plain_port(p));
    size_t at = 0;
    ssize_t n;

    assert_true(fd >= 0);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    while ((n = recv(fd, answer + at, sizeof(answer) - 1 - at, 0)) > 0)
        at += (size_t)n;
    answer[at] = '\0';
    return answer;
}

static void http_plain__answers_what_the_callback_says(void **state)
{
    const char *a = ask(*state, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

    assert_non_null(strstr(a, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(a, "\r\nContent-Length: 6\r\n"));
    assert_non_null(strstr(a, "content-type: text/plain; charset=utf-8\r\n"));
    assert_non_null(strstr(a, "cache-control: no-store\r\n"));
    assert_null(strstr(a, "chunked"));
    assert_non_null(strstr(a, "\r\n\r\nalive\n"));
    a = ask(*state, "GET /readyz?verbose HTTP/1.0\r\n\r\n");
    assert_non_null(strstr(a, " 503 Service Unavailable\r\n"));
    assert_non_null(strstr(a, "\r\n\r\nnot ready: no reason\n"));
    assert_non_null(strstr(ask(*state, "GET / HTTP/1.0\r\n\r\n"), " 404 Not Found\r\n"));
}

static void http_plain__takes_no_other_method_and_no_body(void **state)
{
    const char *a = ask(*state, "POST /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

    assert_non_null(strstr(a, " 405 Method Not Allowed\r\n"));
    assert_non_null(strstr(a, "\r\nallow: GET\r\n"));
    a = ask(*state, "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_non_null(strstr(a, " 413 "));
    assert_non_null(strstr(a, "cache-control: no-store\r\n"));
    a = ask(*state, "\x16\x03\x01 nonsense\r\n\r\n");
    assert_non_null(strstr(a, " 400 "));
}

static void http_plain__serves_many_at_once(void **state)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    uint16_t port = http_plain_port(*state);
    char octets[1024];
    int fd[20];

    for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
        fd[i] = dial(port);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
            assert_int_equal(send(fd[i], request, strlen(request), 0), strlen(request));
        for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
            assert_true(recv(fd[i], octets, sizeof(octets), 0) > 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
        (void)close(fd[i]);
}

static void http_plain__closes_what_is_over_its_limit(void **state)
{
    enum { LIMIT = 64 };
    uint16_t port = http_plain_port(*state);
    int fd[LIMIT + 1];
    char octet;

    for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
        fd[i] = dial(port);
    assert_true(recv(fd[LIMIT], &octet, 1, 0) <= 0);
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
        (void)close(fd[i]);
}

/* Time passes until its requests are not taken any more, which is within some looks. */
static void http_plain__cuts_who_reads_no_answer(void **state)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    AUTO_FD int fd = dial(http_plain_port(*state));
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int turns = 0;

    while (send(fd, request, strlen(request), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 ||
           errno == EAGAIN) {
        if (poll(&p, 1, 100) != 0)
            continue;
        fake_clock_advance(2000000);
        assert_in_range(++turns, 1, 300);
    }
    assert_non_null(strstr(ask(*state, "GET /healthz HTTP/1.0\r\n\r\n"), "200"));
}

/* Nothing is logged again and again, and it goes on once there are descriptors. */
static void http_plain__waits_when_no_descriptor_is_free(void **state)
{
    static const char request[] = "GET /healthz HTTP/1.0\r\n\r\n";
    AUTO_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    struct rlimit before, none;
    char line[LOG_LINE_MAX];
    struct pollfd more;
    int said[2];
    ssize_t n;

    assert_int_equal(pipe(said), 0);
    log_open(said[1], LOG_LOGFMT, LOG_WARN); /* before there is another thread */
    assert_int_equal(set_up(state), 0);
    to.sin_port = htons(http_plain_port(*state));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    n = read(said[0], line, sizeof(line) - 1);
    assert_true(n > 0);
    line[n] = '\0';
    assert_non_null(strstr(line, "event=cannot-accept"));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    more = (struct pollfd){.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&more, 1, 500), 0); /* its pause is not over: the clock stands */
    fake_clock_advance(100000);
    assert_true(recv(fd, line, sizeof(line), 0) > 0);
    assert_int_equal(tear_down(state), 0);
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_INFO);
    (void)close(said[0]);
    (void)close(said[1]);
}

static void http_plain_stop__ends_idle_connections(void **state)
{
    struct http_plain *p;
    uint16_t port;
    char octet;
    int fd;

    (void)state;
    assert_int_equal(http_plain_start(options(0), &p), 0);
    port = http_plain_port(p);
    fd = dial(port);
    assert_true(fd >= 0);
    /* Taken from the backlog, so that it is the listener's to end. */
    assert_non_null(strstr(ask(p, "GET /healthz HTTP/1.0\r\n\r\n"), "200"));
    http_plain_stop(p);
    assert_int_equal(recv(fd, &octet, 1, 0), 0);
    (void)close(fd);
    assert_int_equal(dial(port), -1);
}

static void http_plain_start__refuses_a_port_in_use(void **state)
{
    struct http_plain *p;

    assert_int_equal(http_plain_start(options(http_plain_port(*state)), &p), TEKD_EIO);
}

static void http_plain_start__refuses_a_bad_address(void **state)
{
    struct http_plain_options o = *options(0);
    struct http_plain *p;

    (void)state;
    o.listen.address = "here";
    assert_int_equal(http_plain_start(&o, &p), TEKD_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(http_plain__answers_what_the_callback_says, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(http_plain__takes_no_other_method_and_no_body, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(http_plain__serves_many_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(http_plain__closes_what_is_over_its_limit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(http_plain__cuts_who_reads_no_answer, set_up, tear_down),
        cmocka_unit_test(http_plain__waits_when_no_descriptor_is_free),
        cmocka_unit_test(http_plain_stop__ends_idle_connections),
        cmocka_unit_test_setup_teardown(http_plain_start__refuses_a_port_in_use, set_up, tear_down),
        cmocka_unit_test(http_plain_start__refuses_a_bad_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
