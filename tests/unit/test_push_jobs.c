/* Fan-outs, and the TEKs of crypto-periods ahead of time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsa_server.h"
#include "push_fixture.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define SHOW   "urn:x:show"
#define PERIOD 100 /* seconds */
#define LEAD   20

static unsigned prepared(struct courier *c, const char *content)
{
    return service_count(c->s, "delivery.prepared", "content", content);
}

static unsigned made(struct courier *c, const char *content)
{
    return service_count(c->s, "tek.generated", "content", content);
}

/* All BSAs have something of the content. */
static void all_hold(struct courier *c, const char *content)
{
    struct delivered d;

    assert_int_equal(deliver(c->s, content, NULL, &d), 0);
    for (size_t i = 0; i < d.n; i++)
        if (strcmp(d.bsa[i], "bsa-4") != 0) /* it has no URL */
            until_state(c, d.mid[i], STORE_DELIVERY_CONFIRMED);
}

/* ---- fan-outs -------------------------------------------------------------------------------- */

static void jobs__bring_a_rotation_to_who_holds_the_content(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    send_to(c, &c->bsa[1], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    service_rotate(c->s, NEWS);
    UNTIL(bsa_seen(&c->bsa[0]) == 2 && bsa_seen(&c->bsa[1]) == 2);
    UNTIL(fanout_count(c->s) == 0);
    assert_int_equal(bsa_seen(&c->bsa[2]), 0); /* it holds nothing */
    assert_int_equal(prepared(c, NEWS), 4);
}

static void jobs__go_on_when_the_hsm_is_back(void **state)
{
    struct courier *c = *state;
    struct push_status status;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    fake_hsm_fail(c->s->hsm, FAKE_EXPORT, TEKD_EHSM);
    fake_hsm_fail(c->s->hsm, FAKE_DESCRIBE, TEKD_EHSM); /* it is not this KEK alone */
    service_rotate(c->s, NEWS);
    UNTIL(courier_logged("event=fanout-failed", "fanout="));
    assert_int_equal(push_status_get(c->push, &status), 0);
    assert_int_equal(status.fanouts, 1);
    assert_int_equal(prepared(c, NEWS), 1);
    fake_hsm_fail(c->s->hsm, FAKE_EXPORT, 0);
    fake_hsm_fail(c->s->hsm, FAKE_DESCRIBE, 0);
    fake_clock_advance(60 * S);
    UNTIL(bsa_seen(&c->bsa[0]) == 2);
    UNTIL(fanout_count(c->s) == 0);
}

/* It is a row: another tekd does what is left. */
static void jobs__take_up_what_a_stop_has_left(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    courier_stop(c);
    service_rotate(c->s, NEWS);
    assert_int_equal(fanout_count(c->s), 1);
    courier_restart(c);
    UNTIL(bsa_seen(&c->bsa[0]) == 2);
    UNTIL(fanout_count(c->s) == 0);
}

/* ---- crypto-periods -------------------------------------------------------------------------- */

static void jobs__make_the_tek_of_the_current_period(void **state)
{
    struct courier *c = *state;

    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    fake_clock_advance((PERIOD - LEAD) * S - 2 * S);
    assert_int_equal(made(c, SHOW), 1);
}

static void jobs__make_and_deliver_the_next_one_before_it_begins(void **state)
{
    struct courier *c = *state;
    char out[256];

    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    all_hold(c, SHOW);
    for (size_t i = 0; i < 3; i++) {
        fake_clock_advance((i == 0 ? PERIOD - LEAD : PERIOD) * S);
        UNTIL(made(c, SHOW) == 2 + i);
        UNTIL(confirmed(c) == (2 + i) * PUSH_BSAS);
    }
    for (unsigned b = 0; b < PUSH_BSAS; b++)
        assert_int_equal(bsa_seen(&c->bsa[b]), 4);
    assert_string_equal(service_last(c->s, "delivery.prepared", "peer", out), "bsa-4");
}

/* What is over is not made, however many there are. */
static void jobs__do_not_storm_after_a_stop(void **state)
{
    struct courier *c = *state;
    char content[32];

    for (unsigned i = 0; i < 5; i++) {
        (void)snprintf(content, sizeof(content), SHOW "-%u", i);
        service_add_periods(c->s, content, PERIOD, LEAD);
    }
    for (unsigned i = 0; i < 5; i++) {
        (void)snprintf(content, sizeof(content), SHOW "-%u", i);
        UNTIL(made(c, content) == 1);
    }
    courier_stop(c);
    fake_clock_advance(S * 1000 * PERIOD);
    courier_restart(c);
    for (unsigned i = 0; i < 5; i++) {
        (void)snprintf(content, sizeof(content), SHOW "-%u", i);
        UNTIL(made(c, content) >= 2);
    }
    fake_clock_advance(S);
    assert_int_equal(service_count(c->s, "tek.generated", NULL, NULL),
                     10 + service_count(c->s, "tek.generated", "content", NEWS));
}

static void jobs__make_current_and_next_after_a_stop_that_ends_in_a_lead(void **state)
{
    struct courier *c = *state;
    int64_t epoch_us = clock_utc_us() / S * S; /* the whole second of now */

    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    courier_stop(c);
    fake_clock_set_utc(epoch_us + (10 * PERIOD + PERIOD - LEAD) * S - 1);
    courier_restart(c);
    UNTIL(made(c, SHOW) == 2);
    fake_clock_advance(1);
    UNTIL(made(c, SHOW) == 3);
}

static void jobs__count_what_comes_too_late(void **state)
{
    struct courier *c = *state;
    struct push_status status = {.late_periods = 0};

    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    fake_hsm_fail(c->s->hsm, FAKE_MAKE, TEKD_EHSM);
    fake_clock_advance((PERIOD - LEAD) * S);
    UNTIL(courier_logged("event=period-not-made", SHOW));
    assert_int_equal(push_status_get(c->push, &status), 0);
    assert_int_equal(status.late_periods, 0);
    for (unsigned i = 0; i < 60 && status.late_periods == 0; i++) {
        fake_clock_advance(S);
        UNTIL(push_status_get(c->push, &status) == 0);
    }
    UNTIL(push_status_get(c->push, &status) == 0 && status.late_periods == 1);
    assert_true(courier_logged("event=period-late", SHOW));
    fake_hsm_fail(c->s->hsm, FAKE_MAKE, 0);
    fake_clock_advance(60 * S);
    UNTIL(made(c, SHOW) >= 2);
}

/* UTC that is set back makes nothing twice, and holds up nothing that is to come. */
static void jobs__live_with_a_step_of_utc(void **state)
{
    struct courier *c = *state;

    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    fake_clock_advance((PERIOD - LEAD) * S);
    UNTIL(made(c, SHOW) == 2);
    fake_clock_set_utc(clock_utc_us() - (PERIOD - LEAD) * S);
    fake_clock_advance((PERIOD - LEAD) * S);
    fake_clock_advance(PERIOD * S);
    UNTIL(made(c, SHOW) == 3);
}

/* Time stands still: what has to wait for the end of the fan-out's pause would wait for ever. */
static void jobs__make_teks_in_the_pause_of_a_fanout(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    fake_hsm_fail(c->s->hsm, FAKE_EXPORT, TEKD_EHSM);
    fake_hsm_fail(c->s->hsm, FAKE_DESCRIBE, TEKD_EHSM);
    service_rotate(c->s, NEWS);
    UNTIL(courier_logged("event=fanout-failed", "fanout="));
    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    fake_clock_set_utc(clock_utc_us() + (PERIOD - LEAD) * S);
    UNTIL(made(c, SHOW) == 2);
    assert_true(fanout_count(c->s) >= 1);
    assert_int_equal(bsa_seen(&c->bsa[0]), 1);
}

static int64_t late(struct courier *c)
{
    struct push_status status = {.late_periods = 0};

    UNTIL(push_status_get(c->push, &status) == 0);
    return status.late_periods;
}

/* UTC is far ahead for a moment, and has its TEK made there: what comes meanwhile is made. */
static void jobs__get_over_a_utc_that_was_far_ahead(void **state)
{
    struct courier *c = *state;
    int64_t epoch_us = clock_utc_us() / S * S;

    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    fake_clock_set_utc(epoch_us + 10 * S * PERIOD);
    UNTIL(made(c, SHOW) == 2);
    UNTIL(late(c) == 1); /* as it looks from there */
    fake_clock_set_utc(epoch_us + (PERIOD - LEAD) * S);
    UNTIL(made(c, SHOW) == 3);
    fake_clock_set_utc(epoch_us + (2 * PERIOD - LEAD) * S);
    UNTIL(made(c, SHOW) == 4);
    courier_restart(c); /* it knows the one that is far ahead only */
    fake_clock_set_utc(epoch_us + (3 * PERIOD - LEAD) * S);
    UNTIL(made(c, SHOW) == 5);
    assert_int_equal(late(c), 0);
    fake_hsm_fail(c->s->hsm, FAKE_MAKE, TEKD_EHSM);
    fake_clock_set_utc(epoch_us + 4 * S * PERIOD);
    UNTIL(late(c) == 1); /* and of such a one it is said */
    fake_hsm_fail(c->s->hsm, FAKE_MAKE, 0);
    fake_clock_advance(60 * S);
    UNTIL(made(c, SHOW) == 6);
    for (int64_t i = 5; i <= 9; i++) {
        fake_clock_set_utc(epoch_us + (i * PERIOD - LEAD) * S);
        UNTIL(made(c, SHOW) == 2 + (unsigned)i);
    }
    fake_clock_set_utc(epoch_us + (11 * PERIOD - LEAD) * S);
    UNTIL(made(c, SHOW) == 12); /* of the tenth there was one already */
}

/* It was ahead by two, and comes back into the one that was left out. */
static void jobs__make_a_period_that_was_stepped_over(void **state)
{
    struct courier *c = *state;
    int64_t epoch_us = clock_utc_us() / S * S;

    service_add_periods(c->s, SHOW, PERIOD, LEAD);
    UNTIL(made(c, SHOW) == 1);
    fake_clock_set_utc(epoch_us + 2 * S * PERIOD);
    UNTIL(made(c, SHOW) == 2);
    fake_clock_set_utc(epoch_us + PERIOD * S);
    UNTIL(made(c, SHOW) == 3);
    fake_clock_set_utc(epoch_us + (3 * PERIOD - LEAD) * S);
    UNTIL(made(c, SHOW) == 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        COURIER_TEST(jobs__bring_a_rotation_to_who_holds_the_content),
        COURIER_TEST(jobs__go_on_when_the_hsm_is_back),
        COURIER_TEST(jobs__take_up_what_a_stop_has_left),
        COURIER_TEST(jobs__make_the_tek_of_the_current_period),
        COURIER_TEST(jobs__make_and_deliver_the_next_one_before_it_begins),
        COURIER_TEST(jobs__do_not_storm_after_a_stop),
        COURIER_TEST(jobs__make_current_and_next_after_a_stop_that_ends_in_a_lead),
        COURIER_TEST(jobs__count_what_comes_too_late),
        COURIER_TEST(jobs__live_with_a_step_of_utc),
        COURIER_TEST(jobs__make_teks_in_the_pause_of_a_fanout),
        COURIER_TEST(jobs__get_over_a_utc_that_was_far_ahead),
        COURIER_TEST(jobs__make_a_period_that_was_stepped_over),
    };

    return cmocka_run_group_tests(tests, courier_make_pki, bsa_server_remove_pki);
}
