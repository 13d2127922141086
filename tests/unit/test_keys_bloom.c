#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "internal.h"

static const char *name(const char *kind, unsigned n)
{
    static _Thread_local char text[64];

    (void)snprintf(text, sizeof(text), "urn:x-content:%s:%u", kind, n);
    return text;
}

static int set_up(void **state)
{
    struct bloom *b = NULL;

    assert_int_equal(bloom_new(&b), 0);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    bloom_free(*state);
    return 0;
}

static void bloom_may_have__knows_nothing_at_first(void **state)
{
    assert_false(bloom_may_have(*state, ""));
    for (unsigned i = 0; i < 1000; i++)
        assert_false(bloom_may_have(*state, name("none", i)));
}

/* The one thing that must never happen: a content that exists and is said to be new. */
static void bloom_may_have__forgets_nothing(void **state)
{
    for (unsigned i = 0; i < 100000; i++)
        bloom_add(*state, name("there", i));
    for (unsigned i = 0; i < 100000; i++)
        assert_true(bloom_may_have(*state, name("there", i)));
}

static void bloom_may_have__is_seldom_wrong(void **state)
{
    unsigned wrong = 0;

    for (unsigned i = 0; i < 1000000; i++)
        bloom_add(*state, name("there", i));
    for (unsigned i = 0; i < 20000; i++)
        wrong += bloom_may_have(*state, name("none", i));
    assert_true(wrong < 20000 / 100);
}

static void *add_many(void *arg)
{
    for (unsigned i = 0; i < 5000; i++) {
        bloom_add(arg, name("shared", i));
        if (!bloom_may_have(arg, name("shared", i)))
            abort();
    }
    return NULL;
}

static void bloom__is_for_any_threads(void **state)
{
    pthread_t thread[4];

    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, add_many, *state), 0);
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        (void)pthread_join(thread[i], NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bloom_may_have__knows_nothing_at_first),
        TEST(bloom_may_have__forgets_nothing),
        TEST(bloom_may_have__is_seldom_wrong),
        TEST(bloom__is_for_any_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
