#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "http_fixture.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/log.h"

/* ---- a request and its answer ---------------------------------------------------------------- */

static void http_exchange__has_peer_address_media_and_body(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct sockaddr_in local = {0};
    socklen_t len = sizeof(local);
    char addr[HTTP_ADDR_MAX];
    struct http_exchange *x;
    struct answer a;

    assert_int_equal(getsockname(c->fd, (struct sockaddr *)&local, &len), 0);
    (void)snprintf(addr, sizeof(addr), "127.0.0.1:%u", (unsigned)ntohs(local.sin_port));
    client_request(c, "<hello/>");
    x = fixture_take(f);
    assert_memory_equal(http_exchange_peer(x)->cert_sha256, f->me->sha256, 32);
    assert_string_equal(http_exchange_peer(x)->addr, addr);
    assert_string_equal(http_exchange_media(x), "a/b");
    assert_int_equal(http_exchange_body_len(x), 8);
    assert_memory_equal(http_exchange_body(x), "<hello/>", 8);
    assert_int_equal(http_exchange_deadline_us(x), clock_mono_us() + 4000000);
    fixture_reply(x, 200, "<answer/>");
    assert_true(client_read(c, &a));
    assert_string_equal(a.body, "<answer/>");
    client_close(c);
}

static void http_exchange__knows_one_peer_from_another(void **state)
{
    struct fixture *f = *state;
    const struct pki_identity *other = pki_client(f->pki, PKI_GOOD);
    struct client *mine = fixture_connect(f);
    struct client *theirs = client_connect(f->port, f->pki, other, 0);
    struct http_exchange *x;

    for (int i = 0; i < 6; i++) {
        struct client *c = i % 2 ? mine : theirs;
        struct answer a;

        client_request(c, "");
        x = fixture_take(f);
        assert_memory_equal(http_exchange_peer(x)->cert_sha256,
                            i % 2 ? f->me->sha256 : other->sha256, 32);
        fixture_reply(x, 200, NULL);
        assert_true(client_read(c, &a));
    }
    client_close(mine);
    client_close(theirs);
}

static void http_exchange__has_no_media_when_none_was_said(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct http_exchange *x;

    client_text(c, "POST " FIXTURE_PATH " HTTP/1.1\r\nHost: x\r\n\r\n");
    x = fixture_take(f);
    assert_string_equal(http_exchange_media(x), "");
    assert_int_equal(http_exchange_body_len(x), 0);
    fixture_reply(x, 200, NULL);
    client_close(c);
}

static void http_exchange__has_the_query_as_it_was_sent(void **state)
{
    static const char *const rows[][2] = {
        {"", ""}, {"?", ""}, {"?wait=60", "wait=60"}, {"?a=%20?b&c", "a=%20?b&c"}, {"??", "?"}};
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char text[128];
        struct http_exchange *x;
        struct answer a;

        (void)snprintf(text, sizeof(text),
                       "GET " FIXTURE_WAIT_PATH "%s HTTP/1.1\r\nHost: x\r\n\r\n", rows[i][0]);
        client_text(c, text);
        x = fixture_take(f);
        assert_string_equal(http_exchange_query(x), rows[i][1]);
        fixture_reply(x, 204, NULL);
        assert_true(client_read(c, &a));
    }
    client_close(c);
}

static void http_reply__carries_its_headers_and_a_length(void **state)
{
    static const int statuses[] = {200, 400, 403, 404, 405, 409, 410, 413, 415, 421, 422, 500, 503};
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    char value[256];

    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        struct http_reply reply = {.status = statuses[i],
                                   .media = "application/json",
                                   .reason = "some-reason",
                                   .allow = "POST",
                                   .retry_after_s = 7,
                                   .correlation = "0192-37",
                                   .body = fixture_buf("{}")};
        struct answer a;

        client_request(c, "");
        http_reply(fixture_take(f), &reply);
        assert_true(client_read(c, &a));
        assert_int_equal(a.status, statuses[i]);
        assert_string_equal(answer_header(&a, "content-length", value), "2");
        assert_string_equal(answer_header(&a, "content-type", value), "application/json");
        assert_string_equal(answer_header(&a, "cp3-reason", value), "some-reason");
        assert_string_equal(answer_header(&a, "cp3-correlation", value), "0192-37");
        assert_string_equal(answer_header(&a, "allow", value), "POST");
        assert_string_equal(answer_header(&a, "retry-after", value), "7");
        assert_string_equal(answer_header(&a, "cache-control", value), "no-store");
        assert_null(answer_header(&a, "transfer-encoding", value));
        assert_string_equal(a.body, "{}");
    }
    client_close(c);
}

static void http_reply__without_a_body_says_so(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    char value[256];
    struct answer a;

    client_request(c, "");
    fixture_reply(fixture_take(f), 204, NULL);
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 204);
    assert_null(answer_header(&a, "content-length", value));
    assert_null(answer_header(&a, "transfer-encoding", value));
    assert_null(answer_header(&a, "content-type", value));
    assert_null(answer_header(&a, "retry-after", value));
    assert_null(answer_header(&a, "cp3-reason", value));
    assert_null(answer_header(&a, "cp3-correlation", value));
    client_request(c, "");
    fixture_reply(fixture_take(f), 200, NULL);
    assert_true(client_read(c, &a));
    assert_string_equal(answer_header(&a, "content-length", value), "0");
    client_close(c);
}

static void http_reply__tells_when_it_left_whole(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct http_status s;
    struct answer a;

    for (unsigned i = 1; i <= 3; i++) {
        client_request(c, "");
        fixture_answer(f, "<a/>");
        assert_true(client_read(c, &a));
        fixture_wait_sent(f, i, 0);
    }
    http_status_get(f->http, &s);
    assert_int_equal(s.requests, 3);
    assert_int_equal(s.replies, 3);
    assert_int_equal(s.dropped, 0);
    assert_int_equal(s.accepted, 1);
    client_close(c);
}

static void http_reply__ends_the_connection_when_told(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    const struct http_reply reply = {.status = 403, .close = true};
    char value[256];
    struct answer a;

    client_request(c, "");
    http_reply(fixture_take(f), &reply);
    assert_true(client_read(c, &a));
    assert_string_equal(answer_header(&a, "connection", value), "close");
    assert_true(client_ended(c));
    client_close(c);
}

/* As large as no answer of ours: many writes, still one answer. */
static void http_reply__carries_a_large_body(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    AUTO_MEM char *large = calloc(1, 100001);
    AUTO_MEM struct answer *a = malloc(sizeof(*a));

    assert_true(large && a);
    memset(large, 'x', 100000);
    client_request(c, "");
    fixture_answer(f, large);
    assert_true(client_read(c, a));
    assert_int_equal(a->body_len, 100000);
    assert_string_equal(a->body, large);
    client_close(c);
}

/* ---- from other threads, and to clients that are gone ---------------------------------------- */

enum { CLIENTS = 6, REQUESTS = 40, REPLIERS = 3 };

struct echo {
    struct fixture *f;
    unsigned n;
};

static void *ask_often(void *arg)
{
    struct echo *e = arg;
    struct client *c = fixture_connect(e->f);
    AUTO_MEM struct answer *a = malloc(sizeof(*a));

    for (unsigned i = 0; i < REQUESTS; i++) {
        char text[32];

        (void)snprintf(text, sizeof(text), "%u/%u", e->n, i);
        if (!client_post(c, FIXTURE_PATH, text, a) || strcmp(a->body, text) != 0)
            abort();
    }
    client_close(c);
    return NULL;
}

static void *echo_often(void *arg)
{
    struct fixture *f = arg;

    for (unsigned i = 0; i < CLIENTS * REQUESTS / REPLIERS; i++) {
        struct http_exchange *x = fixture_take(f);
        char text[32];

        (void)snprintf(text, sizeof(text), "%.*s", (int)http_exchange_body_len(x),
                       (const char *)http_exchange_body(x));
        fixture_reply(x, 200, text);
    }
    return NULL;
}

static void http_reply__from_any_thread_reaches_its_client(void **state)
{
    struct fixture *f = *state;
    pthread_t client[CLIENTS], replier[REPLIERS];
    struct echo e[CLIENTS];

    for (unsigned i = 0; i < CLIENTS; i++) {
        e[i] = (struct echo){.f = f, .n = i};
        assert_int_equal(pthread_create(&client[i], NULL, ask_often, &e[i]), 0);
    }
    for (unsigned i = 0; i < REPLIERS; i++)
        assert_int_equal(pthread_create(&replier[i], NULL, echo_often, f), 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        (void)pthread_join(client[i], NULL);
    for (unsigned i = 0; i < REPLIERS; i++)
        (void)pthread_join(replier[i], NULL);
    fixture_wait_sent(f, CLIENTS * REQUESTS, 0);
}

static void http_reply__after_the_client_went_is_dropped(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x[8];
    AUTO_MEM char *large = calloc(1, 100001);

    assert_non_null(large);
    memset(large, 'x', 100000);
    for (size_t i = 0; i < ARRAY_SIZE(x); i++) {
        struct client *c = fixture_connect(f);

        client_request(c, "");
        x[i] = fixture_take(f);
        if (i % 2)
            client_abort(c);
        else
            client_close(c);
    }
    for (size_t i = 0; i < ARRAY_SIZE(x); i++)
        fixture_reply(x[i], 200, large);
    /* What was reset cannot take it; what was closed may seem to. */
    fixture_wait_sent(f, 0, ARRAY_SIZE(x) / 2);
    fixture_wait_all(f, ARRAY_SIZE(x));
}

static void client_ask(struct client *c, const char *method, const char *path)
{
    char text[128];

    (void)snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path);
    client_text(c, text);
}

/* Two that close and two that break off; the connections end although nobody has answered yet. */
static void http_gone__is_told_while_the_client_waits(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x[4];
    struct http_status s;

    for (size_t i = 0; i < ARRAY_SIZE(x); i++) {
        struct client *c = fixture_connect(f);

        client_ask(c, "GET", FIXTURE_WAIT_PATH);
        x[i] = fixture_take(f);
        if (i % 2)
            client_abort(c);
        else
            client_close(c);
    }
    fixture_wait_gone(f, ARRAY_SIZE(x));
    do {
        http_status_get(f->http, &s);
    } while (s.connections > 0);
    assert_int_equal(f->whole + f->not_whole, 0);
    for (size_t i = 0; i < ARRAY_SIZE(x); i++)
        fixture_reply(x[i], 200, "<too late/>");
    fixture_wait_sent(f, 0, ARRAY_SIZE(x));
    http_status_get(f->http, &s);
    assert_int_equal(s.dropped, ARRAY_SIZE(x));
    fixture_stop(f);
    assert_int_equal(f->gone, ARRAY_SIZE(x));
}

/* The first octets of the next request are no farewell, nor is what comes after the answer. */
static void http_gone__is_not_said_of_who_is_there(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct answer a;

    client_ask(c, "GET", FIXTURE_WAIT_PATH);
    client_ask(c, "GET", FIXTURE_WAIT_PATH "?second");
    fixture_answer(f, "<first/>");
    assert_true(client_read(c, &a));
    assert_string_equal(a.body, "<first/>");
    fixture_answer(f, "<second/>");
    assert_true(client_read(c, &a));
    assert_string_equal(a.body, "<second/>");
    fixture_wait_sent(f, 2, 0);
    client_close(c);
    fixture_stop(f);
    assert_int_equal(f->gone, 0);
}

static void http_gone__is_not_said_of_a_late_one(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct http_exchange *x;
    struct answer a;

    client_ask(c, "GET", FIXTURE_WAIT_PATH);
    x = fixture_take(f);
    fake_clock_advance(65000000);
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 503);
    client_close(c);
    fixture_reply(x, 200, NULL);
    fixture_wait_sent(f, 0, 1);
    fixture_stop(f);
    assert_int_equal(f->gone, 0);
}

/* ---- the deadline ---------------------------------------------------------------------------- */

static void http_deadline__is_answered_by_the_route(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct http_exchange *x;
    struct http_status s;
    char value[256];
    struct answer a;

    client_request(c, "");
    x = fixture_take(f);
    http_exchange_set_note(x, (void *)(uintptr_t) "what is known", NULL);
    fake_clock_advance(4000000);
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 503);
    assert_string_equal(answer_header(&a, "retry-after", value), "1");
    assert_string_equal(a.body, "what is known");
    fixture_reply(x, 200, "<too late/>");
    fixture_wait_sent(f, 0, 1);
    /* The connection goes on, and the late answer is not on it. */
    client_request(c, "");
    fixture_answer(f, "<next/>");
    assert_true(client_read(c, &a));
    assert_string_equal(a.body, "<next/>");
    http_status_get(f->http, &s);
    assert_int_equal(s.timed_out, 1);
    assert_int_equal(s.dropped, 1);
    client_close(c);
}

static void http_deadline__is_each_exchanges_own(void **state)
{
    struct fixture *f = *state;
    struct client *first = fixture_connect(f), *second = fixture_connect(f);
    struct http_exchange *x[2];
    struct answer a;

    client_request(first, "");
    x[0] = fixture_take(f);
    fake_clock_advance(3000000);
    client_request(second, "");
    x[1] = fixture_take(f);
    fake_clock_advance(1000000);
    assert_true(client_read(first, &a));
    assert_int_equal(a.status, 503);
    fixture_reply(x[1], 200, "<in time/>");
    assert_true(client_read(second, &a));
    assert_string_equal(a.body, "<in time/>");
    fixture_reply(x[0], 200, NULL);
    fixture_wait_sent(f, 1, 1);
    assert_int_equal(f->timed_out, 1);
    client_close(first);
    client_close(second);
}

/* One turn of the only loop at this time, and what it had to send has been sent. */
static void turn(struct fixture *f, struct client *other)
{
    struct answer a;

    client_request(other, "");
    fixture_answer(f, "");
    assert_true(client_read(other, &a));
}

struct waiting {
    struct client *c;
    struct http_exchange *x;
};

static struct waiting wait_on(struct fixture *f, const char *method, const char *path, int64_t us)
{
    struct waiting w = {.c = fixture_connect(f)};

    client_ask(w.c, method, path);
    w.x = fixture_take(f);
    assert_int_equal(http_exchange_deadline_us(w.x), clock_mono_us() + us);
    return w;
}

static void wants_503_at(struct fixture *f, struct waiting *w, struct client *other, int64_t at_us)
{
    struct answer a;
    char octet;

    fake_clock_advance(at_us - 1 - clock_mono_us());
    turn(f, other);
    assert_int_equal(recv(w->c->fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT), -1);
    fake_clock_advance(1);
    assert_true(client_read(w->c, &a));
    assert_int_equal(a.status, 503);
    fixture_reply(w->x, 200, NULL);
    client_close(w->c);
}

/* Three classes of deadlines, two exchanges each; the classes do not end as they began. */
static void http_deadline__is_that_of_the_route(void **state)
{
    struct fixture *f = fixture_new();
    struct fixture_setup s;
    struct waiting w[2][3];
    struct client *other;
    int64_t began = clock_mono_us();

    (void)state;
    fixture_setup(f, &s);
    s.o.loops = 1;
    assert_int_equal(fixture_start(f, &s), 0);
    other = fixture_connect(f);
    for (size_t i = 0; i < 2; i++) {
        w[i][2] = wait_on(f, "GET", FIXTURE_WAIT_PATH, 65000000);
        w[i][1] = wait_on(f, "POST", FIXTURE_PATH, 4000000);
        w[i][0] = wait_on(f, "PUT", FIXTURE_WAIT_PATH, 1000000);
        fake_clock_advance(500000);
    }
    wants_503_at(f, &w[0][0], other, began + 1000000);
    wants_503_at(f, &w[1][0], other, began + 1500000);
    wants_503_at(f, &w[0][1], other, began + 4000000);
    wants_503_at(f, &w[1][1], other, began + 4500000);
    wants_503_at(f, &w[0][2], other, began + 65000000);
    wants_503_at(f, &w[1][2], other, began + 65500000);
    fixture_wait_sent(f, 0, 6);
    client_close(other);
    fixture_free(f);
}

static void free_and_count(void *note)
{
    (*(unsigned *)note)++;
}

static void http_exchange_note__is_freed_with_the_exchange(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    unsigned freed = 0;
    struct http_exchange *x;
    struct answer a;

    client_request(c, "");
    x = fixture_take(f);
    assert_null(http_exchange_note(x));
    http_exchange_set_note(x, &freed, free_and_count);
    assert_ptr_equal(http_exchange_note(x), &freed);
    fixture_reply(x, 200, NULL);
    assert_true(client_read(c, &a));
    client_close(c);
    fixture_stop(f);
    assert_int_equal(freed, 1);
}

/* ---- what has no route, and what is too big -------------------------------------------------- */

static int ask(struct client *c, const char *text, struct answer *a)
{
    assert_true(client_send(c, text, strlen(text)));
    assert_true(client_read(c, a));
    return a->status;
}

static bool admit_nobody(void *arg, const struct http_peer *peer, struct http_reply *ret_refusal)
{
    (void)peer;
    atomic_fetch_add((_Atomic unsigned *)arg, 1);
    *ret_refusal = (struct http_reply){.status = 403, .close = true};
    return false;
}

static void http__who_is_not_admitted_learns_of_no_path(void **state)
{
    static const char *const asked[] = {"GET /nothing", ("GET " FIXTURE_PATH), "OPTIONS *"};
    struct fixture *f = fixture_new();
    _Atomic unsigned times = 0;
    struct fixture_setup s;
    char text[80];
    struct answer a;

    (void)state;
    fixture_setup(f, &s);
    s.o.admits = admit_nobody;
    s.o.admits_arg = &times;
    assert_int_equal(fixture_start(f, &s), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(asked); i++) {
        struct client *c = fixture_connect(f);
        (void)snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\n\r\n", asked[i]);
        assert_int_equal(ask(c, text, &a), 403);
        assert_true(client_ended(c));
        assert_int_equal(times, i + 1);
        client_close(c);
    }
    fixture_free(f);
}

static void http__other_paths_and_methods_are_refused(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    char value[256];
    struct answer a;

    assert_int_equal(ask(c, "POST /cp33 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", &a),
                     404);
    assert_string_equal(answer_header(&a, "content-type", value), "application/problem+json");
    assert_non_null(strstr(a.body, "\"status\":404"));
    assert_int_equal(ask(c, "POST /cp HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", &a), 404);
    assert_int_equal(ask(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", &a), 404);
    assert_int_equal(ask(c, "GET " FIXTURE_PATH " HTTP/1.1\r\nHost: x\r\n\r\n", &a), 405);
    assert_string_equal(answer_header(&a, "allow", value), "POST");
    assert_string_equal(answer_header(&a, "cache-control", value), "no-store");
    assert_null(answer_header(&a, "transfer-encoding", value));
    assert_int_equal(ask(c, "post " FIXTURE_PATH " HTTP/1.1\r\nHost: x\r\n\r\n", &a), 405);
    assert_int_equal(ask(c, "DELETE " FIXTURE_WAIT_PATH "?a=b HTTP/1.1\r\nHost: x\r\n\r\n", &a),
                     405);
    assert_string_equal(answer_header(&a, "allow", value), "GET, PUT");
    /* And the connection still works; a query is not part of the path. */
    client_text(c, "POST " FIXTURE_PATH "?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
    fixture_answer(f, "<a/>");
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 200);
    client_close(c);
}

static void http__a_path_may_take_several_methods(void **state)
{
    static const char *const methods[] = {"PUT", "GET"};
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct answer a;

    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        client_text(c, methods[i]);
        client_text(c, " " FIXTURE_WAIT_PATH " HTTP/1.1\r\nHost: x\r\n\r\n");
        fixture_answer(f, methods[i]);
        assert_true(client_read(c, &a));
        assert_string_equal(a.body, methods[i]);
    }
    client_close(c);
}

static void http__a_body_over_the_limit_is_413(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    AUTO_MEM struct answer *a = malloc(sizeof(*a));
    AUTO_MEM char *body = calloc(1, HTTP_BODY_MAX + 2);
    struct http_exchange *x;
    char value[256];

    assert_true(a && body);
    memset(body, 'x', HTTP_BODY_MAX);
    assert_int_equal(ask(c,
                         "POST " FIXTURE_PATH " HTTP/1.1\r\nHost: x\r\n"
                         "Content-Length: 65537\r\n\r\n",
                         a),
                     413);
    assert_string_equal(answer_header(a, "cache-control", value), "no-store");
    assert_true(client_ended(c));
    client_close(c);

    c = fixture_connect(f);
    assert_int_equal(ask(c,
                         "POST " FIXTURE_PATH " HTTP/1.1\r\nHost: x\r\n"
                         "Content-Length: 99999999999999999999999\r\n\r\n",
                         a),
                     400);
    client_close(c);

    /* The largest that is allowed. */
    c = fixture_connect(f);
    client_text(c, "POST " FIXTURE_PATH " HTTP/1.1\r\nContent-Length: 65536\r\n\r\n");
    assert_true(client_send(c, body, HTTP_BODY_MAX));
    x = fixture_take(f);
    assert_int_equal(http_exchange_body_len(x), HTTP_BODY_MAX);
    assert_memory_equal(http_exchange_body(x), body, HTTP_BODY_MAX);
    fixture_reply(x, 200, NULL);
    assert_true(client_read(c, a));
    client_close(c);
}

static void http__chunks_are_put_together_and_limited(void **state)
{
    static const char start[] =
        "POST " FIXTURE_PATH " HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    AUTO_MEM char *chunk = calloc(1, 66000);
    struct http_exchange *x;
    struct answer a;

    assert_non_null(chunk);
    client_text(c, start);
    client_text(c, "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    x = fixture_take(f);
    assert_int_equal(http_exchange_body_len(x), 7);
    assert_memory_equal(http_exchange_body(x), "abcdefg", 7);
    fixture_reply(x, 200, NULL);
    assert_true(client_read(c, &a));
    memset(chunk, 'x', 66000);
    client_text(c, start);
    client_text(c, "101D0\r\n");
    assert_true(client_send(c, chunk, 66000));
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 413);
    client_close(c);
}

static void http__a_broken_request_is_400(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct answer a;

    assert_int_equal(ask(c, "\x01\x02 nonsense\r\n\r\n", &a), 400);
    assert_true(client_ended(c));
    client_close(c);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void http__connections_over_the_limit_are_closed(void **state)
{
    struct fixture *f = fixture_new();
    struct fixture_setup s;
    struct client *c[3], *over;
    struct http_status status;

    (void)state;
    fixture_setup(f, &s);
    s.o.connections = 3;
    assert_int_equal(fixture_start(f, &s), 0);
    for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
        c[i] = fixture_connect(f);
        assert_true(SSL_is_init_finished(c[i]->ssl));
    }
    over = fixture_connect(f);
    assert_false(SSL_is_init_finished(over->ssl));
    client_close(over);
    http_status_get(f->http, &status);
    assert_int_equal(status.connections, 3);
    client_close(c[0]);
    do {
        http_status_get(f->http, &status);
    } while (status.connections > 2);
    c[0] = fixture_connect(f);
    assert_true(SSL_is_init_finished(c[0]->ssl));
    for (size_t i = 0; i < ARRAY_SIZE(c); i++)
        client_close(c[i]);
    fixture_free(f);
}

static void http__a_connection_that_says_nothing_is_closed(void **state)
{
    struct fixture *f = fixture_new();
    struct fixture_setup s;
    struct client *c;

    (void)state;
    fixture_setup(f, &s);
    s.o.request_timeout_ms = 50;
    assert_int_equal(fixture_start(f, &s), 0);
    c = fixture_connect(f);
    client_text(c, "POST /cp3 HT");
    assert_true(client_ended(c));
    client_close(c);
    fixture_free(f);
}

/* Every descriptor that is free; the array ends with -1. */
enum { DESCRIPTORS_MAX = 128 };

static void take_descriptors(int fds[static DESCRIPTORS_MAX])
{
    for (size_t n = 0; n < DESCRIPTORS_MAX; n++) {
        fds[n] = dup(STDERR_FILENO);
        if (fds[n] < 0)
            return;
    }
    fail();
}

static void give_back(const int *fds)
{
    for (; *fds >= 0; fds++)
        (void)close(*fds);
}

static void http__waits_when_no_descriptor_is_free(void **state)
{
    int fds[DESCRIPTORS_MAX] = {-1}, said[2];
    struct rlimit before, few;
    char line[LOG_LINE_MAX];
    struct fixture *f;
    pthread_t client;
    ssize_t n;

    (void)state;
    assert_int_equal(pipe(said), 0);
    log_open(said[1], LOG_LOGFMT, LOG_WARN);
    f = fixture_started();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){.rlim_cur = DESCRIPTORS_MAX, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    take_descriptors(fds);
    (void)close(fds[0]); /* for the client's end */
    assert_int_equal(pthread_create(&client, NULL, fixture_ask_thread, f), 0);
    n = read(said[0], line, sizeof(line) - 1);
    assert_true(n > 0);
    line[n] = '\0';
    assert_non_null(strstr(line, "event=cannot-accept"));
    give_back(fds + 1);
    fake_clock_advance(1000000);
    fixture_answer(f, "<a/>");
    (void)pthread_join(client, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    fixture_free(f);
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_INFO);
    (void)close(said[0]);
    (void)close(said[1]);
}

/* ---- peers that do not read ------------------------------------------------------------------ */

#define FULL_MS 300 /* so long nothing more could be sent */

static struct fixture *with_one_loop(void)
{
    struct fixture *f = fixture_new();
    struct fixture_setup s;

    fixture_setup(f, &s);
    s.o.loops = 1;
    assert_int_equal(fixture_start(f, &s), 0);
    return f;
}

/* Requests whose answers nobody reads, until both directions are full. */
static void fill(struct client *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLOUT};
    static char requests[64 * 64];
    size_t len = 0;

    while (len + 64 < sizeof(requests))
        len += (size_t)snprintf(requests + len, sizeof(requests) - len,
                                "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    while (poll(&p, 1, FULL_MS) == 1)
        assert_true(client_send(c, requests, len));
}

/* The loop's turns at a later time: it serves another connection. */
static uint64_t timed_out_after(struct fixture *f, struct client *other, int64_t us)
{
    struct http_status s;
    struct answer a;

    fake_clock_advance(us);
    for (int i = 0; i < 2; i++) {
        client_request(other, "");
        fixture_answer(f, "<other/>");
        assert_true(client_read(other, &a));
        assert_string_equal(a.body, "<other/>");
    }
    http_status_get(f->http, &s);
    return s.timed_out;
}

/* The fixture's request_timeout_ms is a minute. */
static void http__a_peer_that_takes_no_answer_is_cut(void **state)
{
    struct fixture *f = with_one_loop();
    struct client *c = fixture_connect(f), *other = fixture_connect(f);
    struct http_status s;
    struct answer a;

    (void)state;
    fill(c);
    assert_int_equal(timed_out_after(f, other, 1000000), 0);
    assert_int_equal(timed_out_after(f, other, 58000000), 0);
    for (int i = 0; i < 3 && timed_out_after(f, other, 60000000) == 0; i++)
        ;
    while (client_read(c, &a)) /* what had reached it */
        assert_int_equal(a.status, 404);
    assert_int_equal(timed_out_after(f, other, 60000000), 1);
    http_status_get(f->http, &s);
    assert_int_equal(s.connections, 1);
    client_close(c);
    client_close(other);
    fixture_free(f);
}

static void http__a_peer_that_reads_late_is_not_cut(void **state)
{
    struct fixture *f = with_one_loop();
    struct client *c = fixture_connect(f), *other = fixture_connect(f);
    struct answer a;

    (void)state;
    client_text(c, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 3; i++) /* all of it is written: nothing waits for the peer */
        assert_int_equal(timed_out_after(f, other, 60000000), 0);
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 404);
    client_close(c);
    client_close(other);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(http_exchange__has_peer_address_media_and_body),
        FIXTURE_TEST(http_exchange__knows_one_peer_from_another),
        FIXTURE_TEST(http_exchange__has_no_media_when_none_was_said),
        FIXTURE_TEST(http_exchange__has_the_query_as_it_was_sent),
        FIXTURE_TEST(http_reply__carries_its_headers_and_a_length),
        FIXTURE_TEST(http_reply__without_a_body_says_so),
        FIXTURE_TEST(http_reply__tells_when_it_left_whole),
        FIXTURE_TEST(http_reply__ends_the_connection_when_told),
        FIXTURE_TEST(http_reply__carries_a_large_body),
        FIXTURE_TEST(http_reply__from_any_thread_reaches_its_client),
        FIXTURE_TEST(http_reply__after_the_client_went_is_dropped),
        FIXTURE_TEST(http_gone__is_told_while_the_client_waits),
        FIXTURE_TEST(http_gone__is_not_said_of_who_is_there),
        FIXTURE_TEST(http_gone__is_not_said_of_a_late_one),
        FIXTURE_TEST(http_deadline__is_answered_by_the_route),
        FIXTURE_TEST(http_deadline__is_each_exchanges_own),
        cmocka_unit_test(http_deadline__is_that_of_the_route),
        FIXTURE_TEST(http_exchange_note__is_freed_with_the_exchange),
        FIXTURE_TEST(http__other_paths_and_methods_are_refused),
        cmocka_unit_test(http__who_is_not_admitted_learns_of_no_path),
        FIXTURE_TEST(http__a_path_may_take_several_methods),
        FIXTURE_TEST(http__a_body_over_the_limit_is_413),
        FIXTURE_TEST(http__chunks_are_put_together_and_limited),
        FIXTURE_TEST(http__a_broken_request_is_400),
        cmocka_unit_test(http__connections_over_the_limit_are_closed),
        cmocka_unit_test(http__a_connection_that_says_nothing_is_closed),
        cmocka_unit_test(http__a_peer_that_takes_no_answer_is_cut),
        cmocka_unit_test(http__a_peer_that_reads_late_is_not_cut),
        cmocka_unit_test(http__waits_when_no_descriptor_is_free),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
