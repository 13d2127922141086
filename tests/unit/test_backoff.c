#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tekd/auto.h"
#include "tekd/backoff.h"

#define SECOND_US INT64_C(1000000)

static const struct backoff usual = {.initial_s = 1, .max_s = 60};

static void backoff_us__doubles_to_the_most(void **state)
{
    static const int64_t seconds[] = {1, 2, 4, 8, 16, 32, 60, 60};

    (void)state;
    for (uint32_t n = 0; n < ARRAY_SIZE(seconds); n++)
        assert_int_equal(backoff_us(&usual, n + 1, 0), seconds[n] * SECOND_US);
}

static void backoff_us__never_ends_growing_over(void **state)
{
    const struct backoff large = {.initial_s = 86400, .max_s = 86400};

    (void)state;
    assert_int_equal(backoff_us(&usual, UINT32_MAX, 0), 60 * SECOND_US);
    assert_int_equal(backoff_us(&large, UINT32_MAX, 0), 86400 * SECOND_US);
    assert_true(backoff_us(&large, UINT32_MAX, UINT32_MAX) > 64000 * SECOND_US);
}

static void backoff_us__counts_from_one(void **state)
{
    (void)state;
    assert_int_equal(backoff_us(&usual, 0, 0), backoff_us(&usual, 1, 0));
}

static void backoff_us__loses_a_quarter_to_chance_at_most(void **state)
{
    int64_t least = backoff_us(&usual, 7, UINT32_MAX);
    int64_t half = backoff_us(&usual, 7, UINT32_MAX / 2);

    (void)state;
    assert_true(least >= 45 * SECOND_US && least < 46 * SECOND_US);
    assert_true(half > 52 * SECOND_US && half < 53 * SECOND_US);
}

static void backoff_us__is_never_more_than_the_most(void **state)
{
    const struct backoff odd = {.initial_s = 30, .max_s = 10};

    (void)state;
    assert_int_equal(backoff_us(&odd, 1, 0), 10 * SECOND_US);
}

static void backoff_random__differs(void **state)
{
    uint32_t first = backoff_random();
    unsigned same = 0;

    (void)state;
    for (unsigned i = 0; i < 16; i++)
        same += backoff_random() == first;
    assert_true(same < 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backoff_us__doubles_to_the_most),
        cmocka_unit_test(backoff_us__never_ends_growing_over),
        cmocka_unit_test(backoff_us__counts_from_one),
        cmocka_unit_test(backoff_us__loses_a_quarter_to_chance_at_most),
        cmocka_unit_test(backoff_us__is_never_more_than_the_most),
        cmocka_unit_test(backoff_random__differs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
