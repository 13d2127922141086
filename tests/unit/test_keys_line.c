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
    /* Who comes out takes the next one, in order; the place stays taken. */
    assert_ptr_equal(line_leave(l), &w[2]);
    assert_int_equal(line_enter(l, &w[5]), LINE_WAITS);
    assert_ptr_equal(line_leave(l), &w[3]);
    assert_ptr_equal(line_leave(l), &w[4]);
    assert_ptr_equal(line_leave(l), &w[5]);
    assert_null(line_leave(l));
    assert_int_equal(line_enter(l, &w[0]), LINE_INSIDE);
    assert_null(line_leave(l));
    assert_null(line_leave(l));
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
    assert_null(line_leave(l));
    line_free(l);
    line_free(NULL);
}

/* Each request is done once, by whoever is inside. */
enum { THREADS = 4, WORKS = 400, INSIDE = 2 };
static struct keys_work works[THREADS][WORKS];
static _Atomic unsigned done, inside;
static struct line *shared;

static void *work(void *arg)
{
    struct keys_work *mine = arg;

    for (size_t i = 0; i < WORKS; i++) {
        struct keys_work *w = &mine[i];

        if (line_enter(shared, w) != LINE_INSIDE)
            continue;
        for (; w; w = line_leave(shared)) {
            if (atomic_fetch_add(&inside, 1) >= INSIDE || w->attempts++ != 0)
                abort();
            atomic_fetch_add(&done, 1);
            atomic_fetch_sub(&inside, 1);
        }
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
        cmocka_unit_test(line_enter__without_waiting_is_full),
        cmocka_unit_test(line__loses_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
