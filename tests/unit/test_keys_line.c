#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#include "internal.h"

/* Wants exactly these from the line, in order. */
static void leave(struct line *l, struct keys_work *const expected[], size_t n)
{
    struct keys_work *got[LINE_MANY_MAX];

    assert_int_equal(line_leave(l, LINE_MANY_MAX, got), n);
    for (size_t i = 0; i < n; i++)
        assert_ptr_equal(got[i], expected[i]);
}

static void line_enter__lets_so_many_in_and_so_many_wait(void **state)
{
    static struct keys_work w[6];
    struct line *l = NULL;

    (void)state;
    assert_int_equal(line_new(2, 3, &l), 0);
    assert_int_equal(line_enter(l, &w[0]), LINE_INSIDE);
    assert_int_equal(line_enter(l, &w[1]), LINE_INSIDE);
    assert_int_equal(line_enter(l, &w[2]), LINE_WAITS);
    assert_int_equal(line_enter(l, &w[3]), LINE_WAITS);
    assert_int_equal(line_enter(l, &w[4]), LINE_WAITS);
    assert_int_equal(line_enter(l, &w[5]), LINE_FULL);
    /* Who comes out takes his share of them, in order; the place stays taken. */
    leave(l, (struct keys_work *const[]){&w[2], &w[3]}, 2);
    assert_int_equal(line_enter(l, &w[5]), LINE_WAITS);
    leave(l, (struct keys_work *const[]){&w[4]}, 1);
    leave(l, (struct keys_work *const[]){&w[5]}, 1);
    leave(l, NULL, 0);
    assert_int_equal(line_enter(l, &w[0]), LINE_INSIDE);
    leave(l, NULL, 0);
    leave(l, NULL, 0);
    line_free(l);
}

static void line_leave__takes_so_many_at_most(void **state)
{
    static struct keys_work w[LINE_MANY_MAX + 4];
    struct keys_work *got[LINE_MANY_MAX];
    struct line *l = NULL;

    (void)state;
    assert_int_equal(line_new(1, ARRAY_SIZE(w), &l), 0);
    for (size_t i = 0; i < ARRAY_SIZE(w); i++)
        assert_int_equal(line_enter(l, &w[i]), i == 0 ? LINE_INSIDE : LINE_WAITS);
    assert_int_equal(line_leave(l, LINE_MANY_MAX, got), LINE_MANY_MAX);
    assert_ptr_equal(got[LINE_MANY_MAX - 1], &w[LINE_MANY_MAX]);
    assert_int_equal(line_leave(l, 1, got), 1);
    assert_int_equal(line_leave(l, LINE_MANY_MAX, got), 2);
    assert_int_equal(line_leave(l, LINE_MANY_MAX, got), 0);
    line_free(l);
}

static void line_enter__without_waiting_is_full(void **state)
{
    static struct keys_work w[2];
    struct line *l = NULL;

    (void)state;
    assert_int_equal(line_new(1, 0, &l), 0);
    assert_int_equal(line_enter(l, &w[0]), LINE_INSIDE);
    assert_int_equal(line_enter(l, &w[1]), LINE_FULL);
    leave(l, NULL, 0);
    line_free(l);
    line_free(NULL);
}

/* Each request is done once, by whoever is inside. */
enum { THREADS = 4, WORKS = 400, INSIDE = 2 };
static struct keys_work works[THREADS][WORKS];
static _Atomic unsigned done, inside;
static struct line *shared;

static void do_works(struct keys_work *const w[], size_t n)
{
    if (atomic_fetch_add(&inside, 1) >= INSIDE)
        abort();
    for (size_t i = 0; i < n; i++) {
        if (w[i]->attempts++ != 0)
            abort();
        atomic_fetch_add(&done, 1);
    }
    atomic_fetch_sub(&inside, 1);
}

static void *work(void *arg)
{
    struct keys_work *mine = arg;

    for (size_t i = 0; i < WORKS; i++) {
        struct keys_work *w[LINE_MANY_MAX] = {&mine[i]};

        if (line_enter(shared, w[0]) != LINE_INSIDE)
            continue;
        for (size_t n = 1; n > 0; n = line_leave(shared, LINE_MANY_MAX, w))
            do_works(w, n);
    }
    return NULL;
}

static void line__loses_nobody(void **state)
{
    pthread_t thread[THREADS];

    (void)state;
    assert_int_equal(line_new(INSIDE, THREADS * WORKS, &shared), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, work, works[i]), 0);
    for (size_t i = 0; i < THREADS; i++)
        (void)pthread_join(thread[i], NULL);
    assert_int_equal(done, THREADS * WORKS);
    line_free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_enter__lets_so_many_in_and_so_many_wait),
        cmocka_unit_test(line_leave__takes_so_many_at_most),
        cmocka_unit_test(line_enter__without_waiting_is_full),
        cmocka_unit_test(line__loses_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
