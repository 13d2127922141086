#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "internal.h"

#define MINUTE_US 60000000

/* What limiter_flush() gave, copied. */
struct seen {
    char event[40], who[STORE_ID_MAX + 1], peer[STORE_ID_MAX + 1], mid[STORE_ID_MAX + 1];
    char reason[40], addr[KEYS_ADDR_MAX];
    uint64_t count;
};
static struct seen seen[8];
static size_t n_seen;
static uint64_t total;

static void copy(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from);
}

static void on_summary(void *arg, const struct refusal_summary *s)
{
    struct seen *to = &seen[n_seen % ARRAY_SIZE(seen)];

    assert_ptr_equal(arg, &n_seen);
    n_seen++;
    total += s->count;
    copy(to->event, sizeof(to->event), s->event);
    copy(to->who, sizeof(to->who), s->who);
    copy(to->peer, sizeof(to->peer), s->peer);
    copy(to->mid, sizeof(to->mid), s->mid);
    copy(to->reason, sizeof(to->reason), s->reason);
    copy(to->addr, sizeof(to->addr), s->addr);
    to->count = s->count;
}

static void flush(struct limiter *l, bool all)
{
    n_seen = 0;
    total = 0;
    limiter_flush(l, all, on_summary, &n_seen);
}

static int set_up(void **state)
{
    struct limiter *l = NULL;

    fake_clock_set_mono(1000000);
    assert_int_equal(limiter_new(&l), 0);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    limiter_free(*state);
    return 0;
}

static struct refusal refusal(const char *who)
{
    return (struct refusal){.event = "request.refused",
                            .who = who,
                            .peer = who,
                            .reason = "not-entitled",
                            .mid = "m-1",
                            .addr = "10.0.0.1:1"};
}

static unsigned pass_many(struct limiter *l, const struct refusal *what, unsigned n)
{
    unsigned passed = 0;

    for (unsigned i = 0; i < n; i++)
        passed += limiter_pass(l, what, LIMIT_REFUSED_PER_MINUTE);
    return passed;
}

static void limiter_pass__lets_ten_a_minute_through(void **state)
{
    struct refusal r = refusal("bsa-1");

    assert_int_equal(pass_many(*state, &r, 1000), 10);
    fake_clock_advance(MINUTE_US - 1);
    flush(*state, false);
    assert_int_equal(n_seen, 0);
    assert_int_equal(pass_many(*state, &r, 5), 0);
    fake_clock_advance(1);
    flush(*state, false);
    assert_int_equal(n_seen, 1);
    assert_int_equal(pass_many(*state, &r, 1000), 10);
}

static void limiter_flush__says_what_was_held_back(void **state)
{
    struct refusal r = refusal("bsa-1");

    (void)pass_many(*state, &r, 12);
    r.reason = "wrong-source";
    r.addr = "10.0.0.2:2";
    r.mid = "m-2";
    assert_false(limiter_pass(*state, &r, LIMIT_REFUSED_PER_MINUTE));
    fake_clock_advance(MINUTE_US);
    flush(*state, false);
    assert_int_equal(n_seen, 1);
    assert_string_equal(seen[0].event, "request.refused");
    assert_string_equal(seen[0].who, "bsa-1");
    assert_string_equal(seen[0].peer, "bsa-1");
    assert_string_equal(seen[0].reason, "wrong-source");
    assert_string_equal(seen[0].addr, "10.0.0.2:2");
    assert_string_equal(seen[0].mid, "m-2");
    assert_int_equal(seen[0].count, 3);
    flush(*state, true);
    assert_int_equal(n_seen, 0); /* once */
}

static void limiter_flush__is_silent_when_nothing_was_held_back(void **state)
{
    struct refusal r = refusal("bsa-1");

    (void)pass_many(*state, &r, 10);
    fake_clock_advance(MINUTE_US);
    flush(*state, false);
    assert_int_equal(n_seen, 0);
}

static void limiter_flush__gives_all_at_the_end(void **state)
{
    struct refusal r = refusal("bsa-1");

    (void)pass_many(*state, &r, 11);
    flush(*state, false);
    assert_int_equal(n_seen, 0);
    flush(*state, true);
    assert_int_equal(n_seen, 1);
    assert_int_equal(total, 1);
}

static void limiter_pass__counts_peers_and_events_apart(void **state)
{
    struct refusal a = refusal("bsa-1"), b = refusal("bsa-2"), c = refusal("bsa-1");

    c.event = "confirm.unmatched";
    assert_int_equal(pass_many(*state, &a, 20), 10);
    assert_int_equal(pass_many(*state, &b, 20), 10);
    assert_int_equal(pass_many(*state, &c, 20), 10);
    flush(*state, true);
    assert_int_equal(n_seen, 3);
    assert_int_equal(total, 30);
}

static void limiter_pass__tls_causes_are_one_a_minute(void **state)
{
    const struct refusal r = {
        .event = "tls.refused", .who = "unknown-ca", .reason = "unknown-ca", .addr = "10.0.0.1:1"};

    assert_true(limiter_pass(*state, &r, LIMIT_TLS_PER_MINUTE));
    for (int i = 0; i < 99; i++)
        assert_false(limiter_pass(*state, &r, LIMIT_TLS_PER_MINUTE));
    flush(*state, true);
    assert_int_equal(total, 99);
    assert_string_equal(seen[0].reason, "unknown-ca");
}

/* Nobody can make it remember more than so many names: the others share one count. */
static void limiter_pass__names_cost_no_memory(void **state)
{
    unsigned passed = 0;

    for (unsigned i = 0; i < 20000; i++) {
        char who[65];
        struct refusal r;

        (void)snprintf(who, sizeof(who), "%064u", i);
        r = refusal(who);
        passed += limiter_pass(*state, &r, LIMIT_REFUSED_PER_MINUTE);
    }
    assert_int_equal(passed, 1024 + 10);
    flush(*state, true);
    assert_int_equal(n_seen, 1);
    assert_string_equal(seen[0].who, "others");
    assert_int_equal(total, 20000 - 1024 - 10);
}

static void limiter_pass__takes_the_longest_names(void **state)
{
    char who[STORE_ID_MAX + 1];
    struct refusal r;

    memset(who, 'w', STORE_ID_MAX);
    who[STORE_ID_MAX] = '\0';
    r = refusal(who);
    r.mid = who;
    assert_int_equal(pass_many(*state, &r, 20), 10);
    flush(*state, true);
    assert_string_equal(seen[0].peer, who);
    assert_string_equal(seen[0].mid, who);
}

static void *refuse_many(void *arg)
{
    struct refusal r = refusal("shared");

    for (int i = 0; i < 1000; i++)
        (void)limiter_pass(arg, &r, LIMIT_REFUSED_PER_MINUTE);
    return NULL;
}

static void limiter_pass__is_for_any_threads(void **state)
{
    pthread_t thread[4];

    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, refuse_many, *state), 0);
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        (void)pthread_join(thread[i], NULL);
    flush(*state, true);
    assert_int_equal(total, 4 * 1000 - 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(limiter_pass__lets_ten_a_minute_through),
        TEST(limiter_flush__says_what_was_held_back),
        TEST(limiter_flush__is_silent_when_nothing_was_held_back),
        TEST(limiter_flush__gives_all_at_the_end),
        TEST(limiter_pass__counts_peers_and_events_apart),
        TEST(limiter_pass__tls_causes_are_one_a_minute),
        TEST(limiter_pass__names_cost_no_memory),
        TEST(limiter_pass__takes_the_longest_names),
        TEST(limiter_pass__is_for_any_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
