#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "internal.h"
#include "tekd/err.h"

/* The requests that were started again, in order. */
static struct keys_request *again[16];
static size_t n_again;

static void on_again(struct keys_request *self)
{
    again[n_again++] = self;
}

static int set_up(void **state)
{
    struct flights *f = NULL;

    assert_int_equal(flights_new(&f), 0);
    *state = f;
    n_again = 0;
    return 0;
}

static int tear_down(void **state)
{
    flights_free(*state); /* aborts if one is left */
    return 0;
}

static int enter(struct flights *f, const char *name, struct keys_request *r,
                 struct flight **ret_flight)
{
    return flights_enter(f, name, strlen(name), r, ret_flight);
}

static void flights_enter__gives_the_flight_to_the_first(void **state)
{
    struct keys_request r[2] = {{.again = on_again}, {.again = on_again}};
    struct flight *mine = NULL, *other = NULL;

    assert_int_equal(enter(*state, "a", &r[0], &mine), 0);
    assert_non_null(mine);
    assert_int_equal(enter(*state, "a", &r[1], &other), TEKD_EAGAIN);
    assert_null(other);
    assert_int_equal(n_again, 0);
    flights_leave(*state, mine);
    assert_int_equal(n_again, 1);
    assert_ptr_equal(again[0], &r[1]);
}

static void flights_leave__starts_those_that_waited_in_order(void **state)
{
    struct keys_request r[6];
    struct flight *mine = NULL, *other = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
        r[i] = (struct keys_request){.again = on_again};
        (void)enter(*state, "a", &r[i], i == 0 ? &mine : &other);
    }
    flights_leave(*state, mine);
    assert_int_equal(n_again, ARRAY_SIZE(r) - 1);
    for (size_t i = 1; i < ARRAY_SIZE(r); i++)
        assert_ptr_equal(again[i - 1], &r[i]);
}

static void flights_enter__names_are_told_apart(void **state)
{
    static const char *const names[] = {"a", "b", "aa", "", "c/d", "c"};
    struct keys_request r = {.again = on_again};
    struct flight *mine[ARRAY_SIZE(names)];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(enter(*state, names[i], &r, &mine[i]), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        flights_leave(*state, mine[i]);
    assert_int_equal(n_again, 0);
}

static void flights_enter__is_free_again_after_the_end(void **state)
{
    struct keys_request r = {.again = on_again};
    struct flight *mine = NULL;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(enter(*state, "a", &r, &mine), 0);
        flights_leave(*state, mine);
    }
    flights_leave(*state, NULL);
    assert_int_equal(n_again, 0);
}

/* What was parked may enter at once, from within again(). */
static struct flights *reentered;
static struct flight *taken;

static void enter_again(struct keys_request *self)
{
    assert_int_equal(enter(reentered, "a", self, &taken), 0);
}

static void flights_leave__lets_who_is_started_enter(void **state)
{
    struct keys_request r[2] = {{.again = on_again}, {.again = enter_again}};
    struct flight *mine = NULL, *other = NULL;

    reentered = *state;
    assert_int_equal(enter(*state, "a", &r[0], &mine), 0);
    assert_int_equal(enter(*state, "a", &r[1], &other), TEKD_EAGAIN);
    flights_leave(*state, mine);
    assert_non_null(taken);
    flights_leave(*state, taken);
}

/* Threads that all want one name: one is inside at a time, and nobody is forgotten. */
enum { THREADS = 6, ROUNDS = 500 };
struct turn {
    struct keys_request r; /* first */
    struct flights *f;
    _Atomic bool go;
    unsigned rounds;
};
static _Atomic int inside;
static unsigned entered; /* by who is inside */

static void go_on(struct keys_request *self)
{
    atomic_store(&((struct turn *)self)->go, true);
}

static void *take_turns(void *arg)
{
    struct turn *t = arg;

    while (t->rounds < ROUNDS) {
        struct flight *mine = NULL;

        atomic_store(&t->go, false);
        if (enter(t->f, "one", &t->r, &mine) == TEKD_EAGAIN) {
            while (!atomic_load(&t->go))
                (void)sched_yield();
            continue;
        }
        if (atomic_fetch_add(&inside, 1) != 0)
            abort();
        entered++;
        t->rounds++;
        atomic_fetch_sub(&inside, 1);
        flights_leave(t->f, mine);
    }
    return NULL;
}

static void flights__let_one_in_at_a_time(void **state)
{
    struct turn turn[THREADS];
    pthread_t thread[THREADS];

    for (size_t i = 0; i < THREADS; i++) {
        turn[i] = (struct turn){.r = {.again = go_on}, .f = *state};
        assert_int_equal(pthread_create(&thread[i], NULL, take_turns, &turn[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        (void)pthread_join(thread[i], NULL);
    assert_int_equal(entered, THREADS * ROUNDS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(flights_enter__gives_the_flight_to_the_first),
        TEST(flights_leave__starts_those_that_waited_in_order),
        TEST(flights_enter__names_are_told_apart),
        TEST(flights_enter__is_free_again_after_the_end),
        TEST(flights_leave__lets_who_is_started_enter),
        TEST(flights__let_one_in_at_a_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
