#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "internal.h"

static const struct moment now = {.mono_us = 1000 * SECOND_US, .utc_us = 5000 * SECOND_US};

/* One with something due, of a BSA that answers. */
static struct lane due_lane(void)
{
    return (struct lane){.bsa = 1,
                         .reach_us = 60 * SECOND_US,
                         .answers = true,
                         .rows = {.bsa = 1, .open = 3, .next_us = now.utc_us - SECOND_US}};
}

static void lane_room__is_one_until_the_bsa_answers(void **state)
{
    struct lane l = {.bsa = 1};

    (void)state;
    assert_int_equal(lane_room(&l), 1);
    l.under_way = 1;
    assert_int_equal(lane_room(&l), 0);
    lane_answered(&l);
    assert_int_equal(lane_room(&l), PUSH_LANE_MAX - 1);
    l.under_way = PUSH_LANE_MAX;
    assert_int_equal(lane_room(&l), 0);
}

static void lane_failed__narrows_to_one_and_pauses(void **state)
{
    struct lane l = due_lane();

    (void)state;
    l.under_way = 3;
    lane_failed(&l, &now, 4 * SECOND_US);
    assert_int_equal(l.failures, 1);
    assert_int_equal(lane_room(&l), 0);
    l.under_way = 0;
    assert_int_equal(lane_room(&l), 1);
    assert_int_equal(lane_wait_us(&l, &now), 4 * SECOND_US);
    lane_failed(&l, &now, 8 * SECOND_US);
    assert_int_equal(l.failures, 2);
    assert_int_equal(lane_wait_us(&l, &now), 8 * SECOND_US);
}

static void lane_answered__ends_the_pause(void **state)
{
    struct lane l = due_lane();

    (void)state;
    lane_failed(&l, &now, 4 * SECOND_US);
    lane_answered(&l);
    assert_int_equal(l.failures, 0);
    assert_int_equal(lane_room(&l), PUSH_LANE_MAX);
    assert_int_equal(lane_wait_us(&l, &now), 0);
}

static void lane_wait_us__is_the_time_until_something_is_due(void **state)
{
    struct lane l = due_lane();

    (void)state;
    assert_int_equal(lane_wait_us(&l, &now), 0);
    l.rows.next_us = now.utc_us + 7 * SECOND_US;
    assert_int_equal(lane_wait_us(&l, &now), 7 * SECOND_US);
    l.again_us = now.mono_us + 9 * SECOND_US;
    assert_int_equal(lane_wait_us(&l, &now), 9 * SECOND_US);
    l.empty_until_us = now.mono_us + 11 * SECOND_US;
    assert_int_equal(lane_wait_us(&l, &now), 11 * SECOND_US);
}

static void lane_wait_us__is_for_ever_when_time_brings_nothing(void **state)
{
    struct lane l = due_lane();
    struct lane_list list = {.first = NULL};

    (void)state;
    l.under_way = PUSH_LANE_MAX; /* one of them has to leave */
    assert_true(lane_wait_us(&l, &now) == INT64_MAX);
    l.under_way = 0;
    l.list = &list; /* it waits for room */
    assert_true(lane_wait_us(&l, &now) == INT64_MAX);
    l.list = NULL;
    l.busy = true; /* an errand has to come back */
    assert_true(lane_wait_us(&l, &now) == INT64_MAX);
    l.busy = false;
    l.rows = (struct store_lane){.open = 0, .next_us = INT64_MAX};
    assert_true(lane_wait_us(&l, &now) == INT64_MAX);
    l.look = true;
    assert_int_equal(lane_wait_us(&l, &now), 0);
}

static void lane_wait_us__of_a_poll_is_its_end_or_what_is_due(void **state)
{
    struct push_poll poll = {.until_us = now.mono_us + 30 * SECOND_US};
    struct lane l = {.bsa = 1, .reach_us = 60 * SECOND_US, .poll = &poll};

    (void)state;
    assert_int_equal(lane_wait_us(&l, &now), 30 * SECOND_US);
    l.rows = (struct store_lane){.open = 1, .next_us = now.utc_us + 5 * SECOND_US};
    assert_int_equal(lane_wait_us(&l, &now), 5 * SECOND_US);
    /* What keeps a push back does not keep a poll. */
    lane_failed(&l, &now, 20 * SECOND_US);
    l.again_us = now.mono_us + 20 * SECOND_US;
    l.under_way = 1;
    assert_int_equal(lane_wait_us(&l, &now), 5 * SECOND_US);
    l.empty_until_us = now.mono_us + 6 * SECOND_US;
    assert_int_equal(lane_wait_us(&l, &now), 6 * SECOND_US);
    atomic_store(&poll.gone, true);
    assert_int_equal(lane_wait_us(&l, &now), 0);
}

/* UTC was set back: the row's time is of the one before. */
static void lane_wait_us__is_nothing_for_what_is_too_far_ahead(void **state)
{
    struct push_poll poll = {.until_us = now.mono_us + 30 * SECOND_US};
    struct lane l = due_lane();

    (void)state;
    l.rows.next_us = now.utc_us + l.reach_us;
    assert_int_equal(lane_wait_us(&l, &now), l.reach_us);
    l.rows.next_us++;
    assert_int_equal(lane_wait_us(&l, &now), 0);
    l.empty_until_us = now.mono_us + SECOND_US; /* the claim sees it otherwise */
    assert_int_equal(lane_wait_us(&l, &now), SECOND_US);
    l.empty_until_us = 0;
    l.under_way = PUSH_LANE_MAX;
    l.poll = &poll;
    assert_int_equal(lane_wait_us(&l, &now), 0);
}

static void lane_get__makes_each_once_and_keeps_them_in_order(void **state)
{
    static const int64_t bsas[] = {50, 3, 70, 3, 1, 50, 9};
    struct push *p = calloc(1, sizeof(*p));

    (void)state;
    for (int64_t more = 1000; more < 1200; more++)
        assert_non_null(lane_get(p, more));
    for (size_t i = 0; i < ARRAY_SIZE(bsas); i++) {
        struct lane *l = lane_get(p, bsas[i]);
        assert_non_null(l);
        assert_int_equal(l->bsa, bsas[i]);
        assert_ptr_equal(lane_get(p, bsas[i]), l);
    }
    assert_int_equal(p->n_lanes, 205);
    for (size_t i = 1; i < p->n_lanes; i++)
        assert_true(p->lane[i - 1]->bsa < p->lane[i]->bsa);
    lanes_free(p);
    free(p);
}

/* The room that BSAs without answers may take. */
static void lane_outcome__counts_what_suspects_have(void **state)
{
    struct push *p = calloc(1, sizeof(*p));
    struct lane *l = lane_get(p, 1);

    (void)state;
    p->backoff = (struct backoff){.initial_s = 1, .max_s = 60};
    l->answers = true;
    l->under_way = p->under_way = 3;
    lane_outcome(p, l, false, &now);
    assert_int_equal(p->suspects_under_way, 3);
    assert_true(l->paused_until_us > now.mono_us);
    lane_leave(p, l, 1);
    assert_int_equal(p->suspects_under_way, 2);
    lane_outcome(p, l, false, &now);
    assert_int_equal(p->suspects_under_way, 2);
    lane_outcome(p, l, true, &now);
    assert_int_equal(p->suspects_under_way, 0);
    lane_leave(p, l, 2);
    assert_int_equal(p->under_way, 0);
    lanes_free(p);
    free(p);
}

static void lane_part__is_equal_and_never_none(void **state)
{
    (void)state;
    assert_int_equal(lane_part(PUSH_TOTAL_MAX, 0), PUSH_TOTAL_MAX);
    assert_int_equal(lane_part(PUSH_TOTAL_MAX, 1), PUSH_TOTAL_MAX / 2);
    assert_int_equal(lane_part(PUSH_TOTAL_MAX, PUSH_TOTAL_MAX - 1), 1);
    assert_int_equal(lane_part(1, 1000), 1);
}

/* Not only when all lanes are looked over again. */
static void lane_take_rows__counts_a_deadline_at_once(void **state)
{
    const struct store_lane later = {.bsa = 1, .open = 2, .deadline_us = 900},
                            sooner = {.bsa = 1, .open = 1, .deadline_us = 700},
                            none = {.bsa = 1, .open = 0, .deadline_us = 0};
    struct push p = {.earliest_deadline_us = INT64_MAX};
    struct lane l = {.bsa = 1};

    (void)state;
    lane_take_rows(&p, &l, &none);
    assert_true(p.earliest_deadline_us == INT64_MAX);
    lane_take_rows(&p, &l, &later);
    assert_int_equal(p.earliest_deadline_us, 900);
    lane_take_rows(&p, &l, &sooner);
    assert_int_equal(p.earliest_deadline_us, 700);
    lane_take_rows(&p, &l, &later);
    assert_int_equal(p.earliest_deadline_us, 700);
    assert_int_equal(l.rows.open, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lane_room__is_one_until_the_bsa_answers),
        cmocka_unit_test(lane_part__is_equal_and_never_none),
        cmocka_unit_test(lane_failed__narrows_to_one_and_pauses),
        cmocka_unit_test(lane_answered__ends_the_pause),
        cmocka_unit_test(lane_wait_us__is_the_time_until_something_is_due),
        cmocka_unit_test(lane_wait_us__is_for_ever_when_time_brings_nothing),
        cmocka_unit_test(lane_wait_us__of_a_poll_is_its_end_or_what_is_due),
        cmocka_unit_test(lane_wait_us__is_nothing_for_what_is_too_far_ahead),
        cmocka_unit_test(lane_get__makes_each_once_and_keeps_them_in_order),
        cmocka_unit_test(lane_take_rows__counts_a_deadline_at_once),
        cmocka_unit_test(lane_outcome__counts_what_suspects_have),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
