/* Crypto-periods: which TEK a request gets, at which time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "internal.h"
#include "keys_fixture.h"
#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])
#define SECOND    INT64_C(1000000)
#define EPOCH     INT64_C(1767225600000000) /* 2026-01-01T00:00:00Z: where each test begins */
#define LENGTH_S  600
#define LEAD_S    60
#define LENGTH    (LENGTH_S * SECOND)
#define NEWS      "urn:x:news"

static int set_up(void **state)
{
    struct service *s;

    fake_clock_set_utc(EPOCH);
    s = service_started();
    service_add_periods(s, NEWS, LENGTH_S, LEAD_S);
    *state = s;
    return 0;
}

#define PERIOD_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, service_tear_down)

/* So far into period n. */
static void go(int64_t n, int64_t us)
{
    fake_clock_set_utc(EPOCH + n * LENGTH + us);
}

static struct ask *send(struct service *s, const struct peer *p, const char *mid, int64_t period)
{
    struct cp3_message m = ask_message(p, mid, NEWS);

    if (period >= 0) {
        m.has |= CP3_HAS_PERIOD;
        m.period_index = (uint64_t)period;
    }
    return ask_send(s, p, &m, CP3_XML);
}

/* Asks for a period (-1: says none), wants a key of that period, and gives it. */
static struct cp3_message key_of(struct service *s, const struct peer *p, const char *mid,
                                 int64_t asked, uint8_t tek[static FAKE_TEK_MAX])
{
    struct ask *a = send(s, p, mid, asked);
    struct cp3_message m;

    assert_int_equal(ask_tek(a, tek), 16);
    m = ask_answer(a);
    ask_end(a);
    return m;
}

static void refused(struct service *s, const struct peer *p, const char *mid, int64_t asked,
                    const char *reason)
{
    struct ask *a = send(s, p, mid, asked);

    ask_refused(a, 200, reason);
    ask_end(a);
}

static int64_t row_of(struct service *s)
{
    (void)s;
    return 1; /* the first content of the test */
}

static int make(struct service *s, int64_t period)
{
    return keys_period_make(s->keys, row_of(s), period, clock_mono_us() + SERVICE_US);
}

static void assert_key_info(const struct cp3_message *m, uint64_t period)
{
    const struct cp3_key_info *i = &m->key_info;
    int64_t from_s = EPOCH / SECOND + (int64_t)period * LENGTH_S;

    assert_true(m->has & CP3_HAS_KEY_INFO);
    assert_int_equal(i->has, CP3_KEY_HAS_PERIOD | CP3_KEY_HAS_NOT_BEFORE | CP3_KEY_HAS_NOT_AFTER);
    assert_int_equal(i->period, period);
    assert_int_equal(i->not_before.seconds, from_s);
    assert_int_equal(i->not_after.seconds, from_s + LENGTH_S);
    assert_int_equal(i->not_before.nanoseconds + i->not_after.nanoseconds, 0);
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void period_at__counts_from_the_epoch(void **state)
{
    static const struct {
        int64_t utc_us, index;
    } cases[] = {{EPOCH, 0},
                 {EPOCH + 1, 0},
                 {EPOCH + LENGTH - 1, 0},
                 {EPOCH + LENGTH, 1},
                 {EPOCH + 1000 * LENGTH - 1, 999},
                 {EPOCH + 1000 * LENGTH, 1000},
                 {EPOCH - 1, 0},
                 {EPOCH - 5 * LENGTH, 0},
                 {0, 0}};
    const struct store_content c = {.period_s = LENGTH_S, .epoch_utc_us = EPOCH};
    struct period p;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        period_at(&c, cases[i].utc_us, &p);
        assert_int_equal(p.index, cases[i].index);
        assert_int_equal(p.from_us, EPOCH + p.index * LENGTH);
        assert_int_equal(p.until_us, p.from_us + LENGTH);
        assert_int_equal(period_is_current(&p, cases[i].utc_us), cases[i].utc_us >= EPOCH);
        assert_false(period_is_over(&p, cases[i].utc_us));
        assert_true(period_is_over(&p, p.until_us));
    }
}

static void period_at__of_a_content_without_is_always_current(void **state)
{
    const struct store_content c = {.period_s = 0};
    struct period p;

    (void)state;
    period_at(&c, EPOCH, &p);
    assert_int_equal(p.index, 0);
    assert_int_equal(p.until_us, 0);
    assert_true(period_is_current(&p, 0) && period_is_current(&p, INT64_MAX));
    assert_false(period_is_over(&p, INT64_MAX));
}

/* ---- content add ----------------------------------------------------------------------------- */

static void content_add__refuses_periods_that_are_none(void **state)
{
    static const struct {
        const char *what;
        struct keys_content_add c;
    } cases[] = {
        {"lead and epoch", {.lead_s = 1}},
        {"lead and epoch", {.set_epoch = true, .epoch_utc_us = 1}},
        {"period: expected 10 to", {.period_s = KEYS_PERIOD_MIN_S - 1}},
        {"period: expected 10 to", {.period_s = -600}},
        {"period: expected 10 to", {.period_s = INT64_MAX}},
        {"period: expected 10 to", {.period_s = KEYS_PERIOD_MAX_S + 1}},
        {"lead: expected 0 to 599", {.period_s = 600, .lead_s = 600}},
        {"lead: expected 0 to 599", {.period_s = 600, .lead_s = -1}},
        {"epoch: expected", {.period_s = 600, .set_epoch = true, .epoch_utc_us = EPOCH + 1}},
        {"epoch: expected", {.period_s = 600, .set_epoch = true, .epoch_utc_us = -1}},
    };
    struct service *s = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct keys_content_add c = cases[i].c;

        c.id = "urn:x:other";
        c.bits = 128;
        assert_int_equal(keys_content_add(s->keys, &s->actor, &c, &s->error), TEKD_EINVAL);
        assert_ptr_equal(strstr(s->error.what, cases[i].what), s->error.what);
    }
    assert_int_equal(service_count(s, "content.added", "content", "urn:x:other"), 0);
}

static void content_add__takes_the_limits_and_an_epoch(void **state)
{
    static const struct keys_content_add cases[] = {
        {.id = "urn:1",
         .bits = 128,
         .period_s = KEYS_PERIOD_MIN_S,
         .lead_s = KEYS_PERIOD_MIN_S - 1},
        {.id = "urn:2", .bits = 128, .period_s = KEYS_PERIOD_MAX_S},
        {.id = "urn:3", .bits = 128, .period_s = 600, .set_epoch = true, .epoch_utc_us = 0},
        {.id = "urn:4", .bits = 128, .period_s = 600, .set_epoch = true, .epoch_utc_us = EPOCH},
    };
    struct service *s = *state;
    struct cp3_message m;
    char epoch[256];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(keys_content_add(s->keys, &s->actor, &cases[i], &s->error), 0);
    assert_string_equal(service_last(s, "content.added", "epoch", epoch),
                        "2026-01-01T00:00:00.000000Z");
    m = ask_key(s, BSA(s, 1), "m-3", "urn:3", NULL);
    assert_int_equal(m.key_info.period, EPOCH / SECOND / 600);
    assert_int_equal(m.key_info.not_before.seconds, EPOCH / SECOND);
}

/* Of our own choosing, it is the second that is now. */
static void content_add__begins_with_a_whole_second(void **state)
{
    struct service *s = *state;
    struct cp3_message m;

    fake_clock_set_utc(EPOCH + 7 * SECOND + 654321);
    service_add_periods(s, "urn:x:other", 10, 1);
    m = ask_key(s, BSA(s, 1), "m-1", "urn:x:other", NULL);
    assert_int_equal(m.key_info.not_before.seconds, EPOCH / SECOND + 7);
    assert_int_equal(m.key_info.not_before.nanoseconds, 0);
}

/* ---- the current period ---------------------------------------------------------------------- */

static void request__gets_the_tek_of_its_period(void **state)
{
    struct service *s = *state;
    uint8_t first[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct cp3_message m;

    m = key_of(s, BSA(s, 1), "m-1", -1, first);
    assert_key_info(&m, 0);
    go(0, LENGTH - 1);
    m = key_of(s, BSA(s, 2), "m-1", -1, tek);
    assert_key_info(&m, 0);
    assert_memory_equal(tek, first, 16);
    go(1, 0);
    for (size_t i = 1; i <= 2; i++) { /* made, then found */
        m = key_of(s, BSA(s, i), "m-2", -1, tek);
        assert_key_info(&m, 1);
        assert_memory_not_equal(tek, first, 16);
    }
    go(7, 0); /* those between are never made */
    m = key_of(s, BSA(s, 1), "m-3", -1, tek);
    assert_key_info(&m, 7);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 3);
}

static int find_period(void *arg, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *r = NULL;
    uint64_t *n = arg, period;
    const char *what;

    (void)seq;
    assert_int_equal(record_parse(octets, len, &r, &what), 0);
    if (record_get_int(r, "period", &period) && period == 3)
        (*n)++;
    return 0;
}

static int find_periods(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.after = -1, .limit = SIZE_MAX, .arg = arg};

    return store_tx_leaf_walk(tx, &w, find_period);
}

/* Both records say it; those of contents without do not. */
static void request__records_its_period(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX];
    uint64_t n = 0;

    go(3, 0);
    (void)key_of(s, BSA(s, 1), "m-1", -1, tek);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x:without", NULL);
    assert_int_equal(store_call(s->store, STORE_READ, find_periods, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 2);
}

static void request__of_a_content_without_has_no_period_in_its_key_info(void **state)
{
    struct cp3_message m = ask_key(*state, BSA((struct service *)*state, 1), "m-1", "urn:y", NULL);

    assert_true(m.has & CP3_HAS_KEY_INFO);
    assert_int_equal(m.key_info.has, 0);
}

/* What the clock says counts, also when it was set back. */
static void request__after_the_clock_was_set_back_gets_the_old_one(void **state)
{
    struct service *s = *state;
    uint8_t first[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];

    (void)key_of(s, BSA(s, 1), "m-1", -1, first);
    go(1, 0);
    (void)key_of(s, BSA(s, 1), "m-2", -1, tek);
    go(0, 5);
    (void)key_of(s, BSA(s, 1), "m-3", -1, tek);
    assert_memory_equal(tek, first, 16);
    go(-3, 0);
    (void)key_of(s, BSA(s, 1), "m-4", -1, tek);
    assert_memory_equal(tek, first, 16);
}

static void request__after_a_restart_gets_the_same(void **state)
{
    struct service *s = *state;
    uint8_t first[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];

    go(2, 0);
    (void)key_of(s, BSA(s, 1), "m-1", -1, first);
    service_stop(s);
    assert_int_equal(service_start(s), 0);
    (void)key_of(s, BSA(s, 2), "m-1", -1, tek);
    assert_memory_equal(tek, first, 16);
}

/* ---- asking for one -------------------------------------------------------------------------- */

static uint64_t tek_hits(struct service *s)
{
    struct keys_status status;

    keys_status_get(s->keys, &status);
    return status.tek_hits;
}

static void asked__current_or_announced_only(void **state)
{
    struct service *s = *state;
    uint64_t hits;
    uint8_t now[FAKE_TEK_MAX], next[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct cp3_message m;

    go(5, 0);
    m = key_of(s, BSA(s, 1), "m-1", 5, now); /* makes it */
    assert_key_info(&m, 5);
    refused(s, BSA(s, 1), "m-2", 4, "no-period");
    refused(s, BSA(s, 1), "m-3", 6, "no-period");
    refused(s, BSA(s, 1), "m-4", CP3_INTEGER_MAX, "no-period");
    assert_int_equal(make(s, 6), 0);
    m = key_of(s, BSA(s, 1), "m-5", 6, next);
    assert_key_info(&m, 6);
    assert_memory_not_equal(next, now, 16);
    refused(s, BSA(s, 1), "m-6", 7, "no-period");
    /* It is not taken for the current one, nor does it put that out of the cache. */
    hits = tek_hits(s);
    m = key_of(s, BSA(s, 1), "m-7", -1, tek);
    assert_key_info(&m, 5);
    assert_memory_equal(tek, now, 16);
    assert_int_equal(tek_hits(s), hits + 1);
    go(6, 0);
    m = key_of(s, BSA(s, 2), "m-8", -1, tek);
    assert_key_info(&m, 6);
    assert_memory_equal(tek, next, 16);
    refused(s, BSA(s, 2), "m-9", 5, "no-period");
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 2);
}

static void asked__of_a_content_without_is_refused(void **state)
{
    struct service *s = *state;
    struct cp3_message m = ask_message(BSA(s, 1), "m-2", "urn:x:without");
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x:without", NULL);
    m.has = CP3_HAS_PERIOD;
    m.period_index = 0;
    for (size_t i = 0; i < 2; i++) { /* from the cache, and from the store */
        a = ask_send(s, BSA(s, 1), &m, CP3_JSON);
        ask_refused(a, 200, "no-period");
        ask_end(a);
        service_stop(s);
        assert_int_equal(service_start(s), 0);
    }
}

/* ---- MessageIDs ------------------------------------------------------------------------------ */

static void repeat__gets_the_stored_answer_after_its_period(void **state)
{
    struct service *s = *state;
    uint8_t first[FAKE_TEK_MAX], asked[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct cp3_message m;

    (void)key_of(s, BSA(s, 1), "m-1", -1, first);
    (void)key_of(s, BSA(s, 1), "m-2", 0, asked);
    go(1, 0);
    for (size_t i = 0; i < 2; i++) {
        m = key_of(s, BSA(s, 1), "m-1", -1, tek);
        assert_key_info(&m, 0);
        assert_memory_equal(tek, first, 16);
        m = key_of(s, BSA(s, 1), "m-2", 0, tek);
        assert_key_info(&m, 0);
        assert_memory_equal(tek, asked, 16);
        service_stop(s);
        assert_int_equal(service_start(s), 0);
    }
    assert_int_equal(service_count(s, "request.repeated", NULL, NULL), 4);
}

/* None is not the same as the number of the current one. */
static void repeat__with_another_period_is_a_duplicate(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX];

    (void)key_of(s, BSA(s, 1), "m-1", -1, tek);
    (void)key_of(s, BSA(s, 1), "m-2", 0, tek);
    assert_int_equal(make(s, 1), 0);
    refused(s, BSA(s, 1), "m-1", 0, "duplicate-message-id");
    refused(s, BSA(s, 1), "m-1", 1, "duplicate-message-id");
    refused(s, BSA(s, 1), "m-1", 2, "duplicate-message-id"); /* said before the period is */
    refused(s, BSA(s, 1), "m-2", -1, "duplicate-message-id");
    refused(s, BSA(s, 1), "m-2", 1, "duplicate-message-id");
    (void)key_of(s, BSA(s, 1), "m-1", -1, tek);
    (void)key_of(s, BSA(s, 1), "m-2", 0, tek);
}

/* ---- a period ends under way ----------------------------------------------------------------- */

static void boundary__between_the_halves_gives_the_new_period(void **state)
{
    struct service *s = *state;
    uint8_t old[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct cp3_message m;
    struct ask *a;

    (void)key_of(s, BSA(s, 1), "m-1", -1, old);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    a = send(s, BSA(s, 2), "m-1", -1);
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    go(1, 0);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    (void)ask_tek(a, tek);
    m = ask_answer(a);
    assert_key_info(&m, 1);
    assert_memory_not_equal(tek, old, 16);
    ask_end(a);
}

/* The TEK that was made for a period that is over is dropped: nobody may ask for it. */
static void boundary__while_the_tek_is_made_drops_it(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX];
    struct cp3_message m;
    struct ask *a;

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    a = send(s, BSA(s, 1), "m-1", -1);
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    go(1, 0);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_tek(a, tek);
    m = ask_answer(a);
    assert_key_info(&m, 1);
    ask_end(a);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 1);
}

static void boundary__between_the_halves_refuses_who_asked_for_the_old(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX];
    struct ask *a;

    (void)key_of(s, BSA(s, 1), "m-1", -1, tek);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    a = send(s, BSA(s, 2), "m-1", 0);
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    go(1, 0);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    ask_refused(a, 200, "no-period");
    ask_end(a);
    assert_int_equal(service_count(s, "request.answered", "peer", "bsa-2"), 0);
}

/* ---- made before anybody asks ---------------------------------------------------------------- */

static void make__makes_one_of_a_period(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX], again[FAKE_TEK_MAX];

    assert_int_equal(make(s, 1), 0);
    assert_int_equal(make(s, 1), 0);
    assert_int_equal(make(s, 0), 0);
    assert_int_equal(fake_hsm_worked(s->hsm, FAKE_MAKE), 2);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 2);
    (void)key_of(s, BSA(s, 1), "m-1", 1, tek);
    go(1, 0);
    (void)key_of(s, BSA(s, 2), "m-1", -1, again);
    assert_memory_equal(tek, again, 16);
}

static void make__says_what_stands_in_the_way(void **state)
{
    struct service *s = *state;
    int64_t until_us = clock_mono_us() + SERVICE_US;

    assert_int_equal(keys_period_make(s->keys, row_of(s) + 1, 0, until_us), TEKD_ENOTFOUND);
    fake_hsm_fail(s->hsm, FAKE_MAKE, TEKD_EHSM);
    assert_int_equal(make(s, 0), TEKD_EHSM);
    fake_hsm_fail(s->hsm, FAKE_MAKE, 0);
    go(1, 0);
    assert_int_equal(make(s, 0), TEKD_ESTALE);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 0);
}

struct maker {
    struct service *s;
    int64_t period;
    int result;
};

static void *run_make(void *arg)
{
    struct maker *m = arg;

    m->result = make(m->s, m->period);
    return NULL;
}

static void make__loses_to_a_request(void **state)
{
    struct service *s = *state;
    struct maker m = {.s = s};
    uint8_t tek[FAKE_TEK_MAX], again[FAKE_TEK_MAX];
    pthread_t thread;

    fake_hsm_hold(s->hsm, FAKE_MAKE, true);
    assert_int_equal(pthread_create(&thread, NULL, run_make, &m), 0);
    fake_hsm_wait_held(s->hsm, FAKE_MAKE, 1);
    (void)key_of(s, BSA(s, 1), "m-1", -1, tek);
    fake_hsm_hold(s->hsm, FAKE_MAKE, false);
    (void)pthread_join(thread, NULL);
    assert_int_equal(m.result, 0);
    (void)key_of(s, BSA(s, 2), "m-1", -1, again);
    assert_memory_equal(tek, again, 16);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 1);
}

static void make__wins_over_a_request(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX], again[FAKE_TEK_MAX];
    struct ask *a;

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    a = send(s, BSA(s, 1), "m-1", -1);
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    assert_int_equal(make(s, 0), 0);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_tek(a, tek);
    ask_end(a);
    (void)key_of(s, BSA(s, 2), "m-1", -1, again);
    assert_memory_equal(tek, again, 16);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 1);
}

static void make__of_a_period_that_ends_meanwhile_is_dropped(void **state)
{
    struct service *s = *state;
    struct maker m = {.s = s};
    pthread_t thread;

    fake_hsm_hold(s->hsm, FAKE_MAKE, true);
    assert_int_equal(pthread_create(&thread, NULL, run_make, &m), 0);
    fake_hsm_wait_held(s->hsm, FAKE_MAKE, 1);
    go(1, 0);
    fake_hsm_hold(s->hsm, FAKE_MAKE, false);
    (void)pthread_join(thread, NULL);
    assert_int_equal(m.result, TEKD_ESTALE);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 0);
}

/* ---- rotated and destroyed ------------------------------------------------------------------- */

static void rotate__is_of_the_current_period(void **state)
{
    struct service *s = *state;
    uint8_t old[FAKE_TEK_MAX], next[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct cp3_message m;

    go(2, 0);
    (void)key_of(s, BSA(s, 1), "m-1", -1, old);
    assert_int_equal(make(s, 3), 0);
    (void)key_of(s, BSA(s, 1), "m-2", 3, next);
    service_rotate(s, NEWS);
    m = key_of(s, BSA(s, 1), "m-3", -1, tek);
    assert_key_info(&m, 2);
    assert_memory_not_equal(tek, old, 16);
    (void)key_of(s, BSA(s, 1), "m-4", 3, tek);
    assert_memory_equal(tek, next, 16);
    go(3, 0);
    (void)key_of(s, BSA(s, 1), "m-5", -1, tek);
    assert_memory_equal(tek, next, 16);
}

/* What was decided on the TEK of a later period is asked of that period again. */
static void rotate__of_another_content_sends_nobody_round(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX];
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x:other", NULL);
    go(2, 0);
    (void)key_of(s, BSA(s, 1), "m-2", -1, tek);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    a = send(s, BSA(s, 2), "m-1", -1);
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    service_rotate(s, "urn:x:other");
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    (void)ask_tek(a, tek);
    ask_end(a);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_EXPORT), 1);
}

/* Only "key rotate" says which period, so it is the one when it is stored. */
static void rotate__over_a_boundary_is_of_the_new_period(void **state)
{
    struct service *s = *state;
    struct cp3_message m;
    uint8_t tek[FAKE_TEK_MAX];

    (void)key_of(s, BSA(s, 1), "m-1", -1, tek);
    go(1, 0);
    service_rotate(s, NEWS);
    m = key_of(s, BSA(s, 1), "m-2", -1, tek);
    assert_key_info(&m, 1);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 2);
}

static void destroy__of_an_announced_one_takes_it_back(void **state)
{
    struct service *s = *state;
    struct cp3_message m;
    uint8_t tek[FAKE_TEK_MAX], again[FAKE_TEK_MAX];

    assert_int_equal(make(s, 1), 0);
    m = key_of(s, BSA(s, 1), "m-1", 1, tek);
    service_destroy(s, m.key_info.key_id);
    refused(s, BSA(s, 1), "m-2", 1, "no-period");
    refused(s, BSA(s, 1), "m-1", 1, "key-gone");
    assert_int_equal(make(s, 1), 0);
    (void)key_of(s, BSA(s, 1), "m-2", 1, again);
    assert_memory_not_equal(tek, again, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(period_at__counts_from_the_epoch),
        cmocka_unit_test(period_at__of_a_content_without_is_always_current),
        PERIOD_TEST(content_add__refuses_periods_that_are_none),
        PERIOD_TEST(content_add__takes_the_limits_and_an_epoch),
        PERIOD_TEST(content_add__begins_with_a_whole_second),
        PERIOD_TEST(request__gets_the_tek_of_its_period),
        PERIOD_TEST(request__records_its_period),
        PERIOD_TEST(request__of_a_content_without_has_no_period_in_its_key_info),
        PERIOD_TEST(request__after_the_clock_was_set_back_gets_the_old_one),
        PERIOD_TEST(request__after_a_restart_gets_the_same),
        PERIOD_TEST(asked__current_or_announced_only),
        PERIOD_TEST(asked__of_a_content_without_is_refused),
        PERIOD_TEST(repeat__gets_the_stored_answer_after_its_period),
        PERIOD_TEST(repeat__with_another_period_is_a_duplicate),
        PERIOD_TEST(boundary__between_the_halves_gives_the_new_period),
        PERIOD_TEST(boundary__while_the_tek_is_made_drops_it),
        PERIOD_TEST(boundary__between_the_halves_refuses_who_asked_for_the_old),
        PERIOD_TEST(make__makes_one_of_a_period),
        PERIOD_TEST(make__says_what_stands_in_the_way),
        PERIOD_TEST(make__loses_to_a_request),
        PERIOD_TEST(make__wins_over_a_request),
        PERIOD_TEST(make__of_a_period_that_ends_meanwhile_is_dropped),
        PERIOD_TEST(rotate__is_of_the_current_period),
        PERIOD_TEST(rotate__of_another_content_sends_nobody_round),
        PERIOD_TEST(rotate__over_a_boundary_is_of_the_new_period),
        PERIOD_TEST(destroy__of_an_announced_one_takes_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
