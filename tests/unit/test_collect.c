/* GET /cp3/deliveries between HTTP, which asks, and the services, which say what a test wants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "collect.h"
#include "tekd/err.h"

/* ---- the parts ------------------------------------------------------------------------------- */

struct http_exchange {
    struct http_peer peer;
    const char *query;
    void *note;
    unsigned replies;
    struct http_reply reply;
};

static struct {
    int collector; /* what keys_collector() returns */
    int64_t row;
    unsigned malformed;
    char detail[128];
    int collected; /* what push_collect() returns */
    struct push_poll *poll;
} parts;

const struct http_peer *http_exchange_peer(const struct http_exchange *x)
{
    return &x->peer;
}

const char *http_exchange_query(const struct http_exchange *x)
{
    return x->query;
}

void http_exchange_set_note(struct http_exchange *x, void *note, void (*free_note)(void *))
{
    assert_null(free_note);
    x->note = note;
}

void *http_exchange_note(struct http_exchange *x)
{
    return x->note;
}

void http_reply(struct http_exchange *take_x, const struct http_reply *reply)
{
    take_x->replies++;
    take_x->reply = *reply;
}

int keys_collector(struct keys *k, const struct keys_asker *a, struct keys_collector *ret_collector,
                   struct keys_reply *ret_reply)
{
    assert_ptr_equal(k, &parts);
    assert_int_equal(a->cert_sha256[31], 7);
    assert_string_equal(a->addr, "192.0.2.1:5");
    if (parts.collector < 0) {
        *ret_reply = (struct keys_reply){.status = 403, .close = true};
        return parts.collector;
    }
    *ret_collector = (struct keys_collector){.row = parts.row, .id = "bsa-1"};
    return 0;
}

void keys_collect_malformed(struct keys *k, const struct keys_asker *a,
                            const struct keys_collector *c, const char *detail,
                            struct keys_reply *ret_reply)
{
    (void)k;
    assert_string_equal(a->addr, "192.0.2.1:5");
    assert_string_equal(c->id, "bsa-1");
    (void)snprintf(parts.detail, sizeof(parts.detail), "%s", detail);
    parts.malformed++;
    *ret_reply = (struct keys_reply){.status = 400};
}

void keys_busy_reply(enum cp3_media media, const char *message_id, struct keys_reply *ret_reply)
{
    (void)media;
    assert_null(message_id);
    *ret_reply = (struct keys_reply){.status = 503, .retry_after_s = 1};
}

int push_collect(struct push *p, struct push_poll *poll)
{
    assert_ptr_equal(p, &parts.collected);
    if (parts.collected == 0)
        parts.poll = poll;
    return parts.collected;
}

/* ---- asking ---------------------------------------------------------------------------------- */

struct asked {
    struct collect c;
    struct http_route route;
    struct http_exchange x;
};

static int set_up(void **state)
{
    static struct asked a;

    memset(&parts, 0, sizeof(parts));
    parts.row = 41;
    a = (struct asked){
        .c = {.keys = (struct keys *)&parts, .push = (struct push *)&parts.collected}};
    a.route = collect_route(&a.c);
    *state = &a;
    return 0;
}

static void ask(struct asked *a, const char *query)
{
    a->x = (struct http_exchange){.peer = {.cert_sha256 = {[31] = 7}, .addr = "192.0.2.1:5"},
                                  .query = query};
    a->route.handle(a->route.arg, &a->x);
}

/* The end of the exchange: nothing of it may be left. */
static void end(struct asked *a)
{
    a->route.sent(a->route.arg, &a->x, true);
    assert_int_equal(atomic_load(&a->c.under_way), 0);
    buf_free(a->x.reply.body);
}

static struct buf *message(void)
{
    struct buf *b = NULL;

    assert_int_equal(buf_new(100, &b), 0);
    assert_int_equal(buf_puts(b, "<KeyDelivery/>"), 0);
    return b;
}

/* ---- the question ---------------------------------------------------------------------------- */

static void collect_route__is_one_that_may_wait(void **state)
{
    struct asked *a = *state;

    assert_string_equal(a->route.path, "/cp3/deliveries");
    assert_string_equal(a->route.method, "GET");
    assert_true(a->route.deadline_ms > PUSH_WAIT_MAX_S * 1000);
    assert_non_null(a->route.gone);
}

static void collect__says_who_asks_and_how_long(void **state)
{
    static const struct {
        const char *query;
        int64_t wait_us;
    } rows[] = {{"", 0}, {"wait=0", 0}, {"wait=1", 1000000}, {"wait=60", 60000000}};
    struct asked *a = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ask(a, rows[i].query);
        assert_int_equal(a->x.replies, 0); /* it waits */
        assert_int_equal(parts.poll->bsa, 41);
        assert_string_equal(parts.poll->peer, "bsa-1");
        assert_string_equal(parts.poll->addr, "192.0.2.1:5");
        assert_int_equal(parts.poll->wait_us, rows[i].wait_us);
        assert_int_equal(atomic_load(&a->c.under_way), 1);
        parts.poll->reply(parts.poll, CP3_XML, NULL);
        end(a);
    }
}

static void collect__refuses_a_query_that_is_none(void **state)
{
    static const char *const queries[] = {"wait",
                                          "wait=",
                                          "wait=61",
                                          "wait=-1",
                                          "wait=1s",
                                          "wait=+1",
                                          "wait=1&x",
                                          "wait=1&wait=1",
                                          "wait=%31",
                                          "wait= 1",
                                          "WAIT=1",
                                          "x=1",
                                          "wait=18446744073709551617"};
    struct asked *a = *state;

    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        ask(a, queries[i]);
        assert_int_equal(a->x.replies, 1);
        assert_int_equal(a->x.reply.status, 400);
        assert_int_equal(parts.malformed, i + 1);
        assert_non_null(strstr(parts.detail, "0 to 60"));
        end(a);
    }
    assert_null(parts.poll);
}

/* Who asks comes before what he asks. */
static void collect__refuses_a_stranger(void **state)
{
    struct asked *a = *state;

    parts.collector = TEKD_EDENIED;
    ask(a, "nonsense");
    assert_int_equal(a->x.reply.status, 403);
    assert_true(a->x.reply.close);
    assert_int_equal(parts.malformed, 0);
    assert_null(parts.poll);
    end(a);
}

static void collect__is_busy_when_push_is(void **state)
{
    static const int errors[] = {TEKD_EAGAIN, TEKD_ECLOSED};
    struct asked *a = *state;

    for (size_t i = 0; i < 2; i++) {
        parts.collected = errors[i];
        ask(a, "wait=60");
        assert_int_equal(a->x.replies, 1);
        assert_int_equal(a->x.reply.status, 503);
        assert_int_equal(a->x.reply.retry_after_s, 1);
        end(a);
    }
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void collect__gives_the_message_or_nothing(void **state)
{
    static const char *const media[] = {
        [CP3_XML] = "application/xml", [CP3_JSON] = "application/json"};
    struct asked *a = *state;

    for (int m = CP3_XML; m <= CP3_JSON; m++) {
        ask(a, "");
        parts.poll->reply(parts.poll, (enum cp3_media)m, message());
        assert_int_equal(a->x.replies, 1);
        assert_int_equal(a->x.reply.status, 200);
        assert_string_equal(a->x.reply.media, media[m]);
        assert_string_equal(buf_str(a->x.reply.body), "<KeyDelivery/>");
        end(a);
    }
    ask(a, "");
    parts.poll->reply(parts.poll, CP3_XML, NULL);
    assert_int_equal(a->x.reply.status, 204);
    assert_null(a->x.reply.body);
    end(a);
}

/* Disabled, not enrolled any more, or another BSA's by now. */
static void collect__gives_nothing_to_who_is_not_the_bsa_any_more(void **state)
{
    struct asked *a = *state;

    ask(a, "wait=60");
    parts.collector = TEKD_EDENIED;
    parts.poll->reply(parts.poll, CP3_XML, message());
    assert_int_equal(a->x.reply.status, 403);
    assert_null(a->x.reply.body);
    end(a);
    parts.collector = 0;
    ask(a, "wait=60");
    parts.row++;
    parts.poll->reply(parts.poll, CP3_XML, message());
    assert_int_equal(a->x.reply.status, 204);
    assert_null(a->x.reply.body);
    end(a);
}

static void collect__tells_push_who_has_gone(void **state)
{
    struct asked *a = *state;

    ask(a, "wait=60");
    assert_false(atomic_load(&parts.poll->gone));
    a->route.gone(a->route.arg, &a->x);
    assert_true(atomic_load(&parts.poll->gone));
    parts.poll->reply(parts.poll, CP3_XML, NULL);
    end(a);
}

static void collect__that_takes_too_long_is_busy(void **state)
{
    struct asked *a = *state;
    struct http_reply late;

    ask(a, "wait=60");
    a->route.timed_out(a->route.arg, &a->x, &late);
    assert_int_equal(late.status, 503);
    assert_int_equal(late.retry_after_s, 1);
    parts.poll->reply(parts.poll, CP3_XML, message());
    end(a);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(collect_route__is_one_that_may_wait),
        TEST(collect__says_who_asks_and_how_long),
        TEST(collect__refuses_a_query_that_is_none),
        TEST(collect__refuses_a_stranger),
        TEST(collect__is_busy_when_push_is),
        TEST(collect__gives_the_message_or_nothing),
        TEST(collect__gives_nothing_to_who_is_not_the_bsa_any_more),
        TEST(collect__tells_push_who_has_gone),
        TEST(collect__that_takes_too_long_is_busy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
