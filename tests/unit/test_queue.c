#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <cmocka.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/queue.h"

#define NO_WAIT  0
#define FOR_EVER INT64_MAX

/* Entries are pointers into this array: their distance is their number. */
static char numbers[1 << 16];

static void *entry(size_t n)
{
    return &numbers[n];
}

static size_t number_of(const void *e)
{
    return (size_t)((const char *)e - numbers);
}

static size_t pop_number(struct queue *q)
{
    void *e = NULL;

    assert_int_equal(queue_pop(q, NO_WAIT, &e), 0);
    return number_of(e);
}

static void queue_pop__gives_entries_in_order(void **state)
{
    AUTO(queue) struct queue *q = NULL;

    (void)state;
    assert_int_equal(queue_new(3, &q), 0);
    /* Often enough that the ring turns round at each of its places. */
    for (size_t n = 0; n < 20; n += 2) {
        assert_int_equal(queue_push(q, entry(n)), 0);
        assert_int_equal(queue_push(q, entry(n + 1)), 0);
        assert_int_equal(queue_len(q), 2);
        assert_int_equal(pop_number(q), n);
        assert_int_equal(pop_number(q), n + 1);
    }
    assert_int_equal(queue_len(q), 0);
}

static void queue_push__refuses_when_full(void **state)
{
    AUTO(queue) struct queue *q = NULL;

    (void)state;
    assert_int_equal(queue_new(2, &q), 0);
    assert_int_equal(queue_push(q, entry(1)), 0);
    assert_int_equal(queue_push(q, entry(2)), 0);
    assert_int_equal(queue_push(q, entry(3)), TEKD_EAGAIN);
    assert_int_equal(queue_len(q), 2);
    assert_int_equal(pop_number(q), 1);
    assert_int_equal(queue_push(q, entry(4)), 0);
    assert_int_equal(pop_number(q), 2);
    assert_int_equal(pop_number(q), 4);
}

static void queue_push__carries_null(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    void *e = numbers;

    (void)state;
    assert_int_equal(queue_new(1, &q), 0);
    assert_int_equal(queue_push(q, NULL), 0);
    assert_int_equal(queue_pop(q, NO_WAIT, &e), 0);
    assert_null(e);
}

static void queue_push__refuses_when_closed(void **state)
{
    AUTO(queue) struct queue *q = NULL;

    (void)state;
    assert_int_equal(queue_new(2, &q), 0);
    queue_close(q);
    assert_int_equal(queue_push(q, entry(1)), TEKD_ECLOSED);
    assert_int_equal(queue_len(q), 0);
}

static void queue_pop__does_not_wait_at_deadline_zero(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    void *e = numbers;
    size_t n = 7;

    (void)state;
    assert_int_equal(queue_new(2, &q), 0);
    assert_int_equal(queue_pop(q, NO_WAIT, &e), TEKD_ETIMEDOUT);
    assert_int_equal(queue_pop(q, clock_mono_us() - 1, &e), TEKD_ETIMEDOUT);
    assert_int_equal(queue_pop(q, INT64_MIN, &e), TEKD_ETIMEDOUT);
    assert_int_equal(queue_pop_many(q, NO_WAIT, &e, 1, &n), TEKD_ETIMEDOUT);
    assert_ptr_equal(e, numbers);
    assert_int_equal(n, 7);
}

static void queue_pop__waits_until_the_deadline_and_not_longer(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    int64_t deadline = clock_mono_us() + 20000;
    void *e = NULL;

    (void)state;
    assert_int_equal(queue_new(2, &q), 0);
    assert_int_equal(queue_pop(q, deadline, &e), TEKD_ETIMEDOUT);
    assert_true(clock_mono_us() >= deadline);
    assert_true(clock_mono_us() < deadline + 5000000); /* far off: the machine may be busy */
}

static void queue_pop__gives_an_entry_whatever_the_deadline(void **state)
{
    AUTO(queue) struct queue *q = NULL;

    (void)state;
    assert_int_equal(queue_new(2, &q), 0);
    assert_int_equal(queue_push(q, entry(5)), 0);
    assert_int_equal(pop_number(q), 5);
}

static void queue_pop_many__gives_up_to_max_in_order(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    void *e[4] = {NULL};
    size_t n = 0;

    (void)state;
    assert_int_equal(queue_new(5, &q), 0);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(queue_push(q, entry(i)), 0);
    assert_int_equal(queue_pop_many(q, NO_WAIT, e, 3, &n), 0);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(number_of(e[i]), i);
    assert_null(e[3]);
    assert_int_equal(queue_push(q, entry(5)), 0);
    assert_int_equal(queue_pop_many(q, FOR_EVER, e, 4, &n), 0);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(number_of(e[i]), i + 3);
}

static void queue_close__leaves_what_is_inside(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    void *e = NULL;
    size_t n = 0;

    (void)state;
    assert_int_equal(queue_new(3, &q), 0);
    assert_int_equal(queue_push(q, entry(1)), 0);
    assert_int_equal(queue_push(q, entry(2)), 0);
    queue_close(q);
    queue_close(q);
    assert_int_equal(pop_number(q), 1);
    assert_int_equal(queue_pop(q, FOR_EVER, &e), 0);
    assert_int_equal(number_of(e), 2);
    assert_int_equal(queue_pop(q, FOR_EVER, &e), TEKD_ECLOSED);
    assert_int_equal(queue_pop(q, NO_WAIT, &e), TEKD_ECLOSED);
    assert_int_equal(queue_pop_many(q, FOR_EVER, &e, 1, &n), TEKD_ECLOSED);
}

static void queue_free__takes_null(void **state)
{
    (void)state;
    queue_free(NULL);
}

struct waiter {
    struct queue *q;
    int64_t deadline;
    atomic_bool started;
    int r;
    void *e;
};

static void *wait_for_one(void *arg)
{
    struct waiter *w = arg;

    atomic_store(&w->started, true);
    w->r = queue_pop(w->q, w->deadline, &w->e);
    return NULL;
}

/*
 * The thread has begun; whether it waits already or comes a moment later, what follows must wake
 * it or be seen by it, so both orders are part of the test.
 */
static void start_waiter(struct waiter *w, pthread_t *ret_thread)
{
    assert_int_equal(pthread_create(ret_thread, NULL, wait_for_one, w), 0);
    while (!atomic_load(&w->started))
        (void)sched_yield();
}

static void queue_push__wakes_a_consumer(void **state)
{
    const int64_t deadlines[] = {FOR_EVER, FOR_EVER - 1, clock_mono_us() + 60000000};

    (void)state;
    for (size_t round = 0; round < 300; round++) {
        AUTO(queue) struct queue *q = NULL;
        struct waiter w = {.deadline = deadlines[round % 3]};
        pthread_t thread;

        assert_int_equal(queue_new(1, &q), 0);
        w.q = q;
        start_waiter(&w, &thread);
        assert_int_equal(queue_push(q, entry(9)), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.r, 0);
        assert_int_equal(number_of(w.e), 9);
    }
}

/* ---- patience -------------------------------------------------------------------------------- */

static void queue_push_patient__is_seen_when_enough_are_there(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    void *e[8];
    size_t n = 0;

    (void)state;
    assert_int_equal(queue_new(8, &q), 0);
    queue_patience(q, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(queue_push_patient(q, entry(i)), 0);
    assert_int_equal(queue_pop_many(q, FOR_EVER, e, 8, &n), 0);
    assert_int_equal(n, 3);
}

static void queue_push__ends_the_patience(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    void *e[8];
    size_t n = 0;

    (void)state;
    assert_int_equal(queue_new(8, &q), 0);
    queue_patience(q, 8);
    assert_int_equal(queue_push_patient(q, entry(1)), 0);
    assert_int_equal(queue_push(q, entry(2)), 0);
    assert_int_equal(queue_pop_many(q, FOR_EVER, e, 1, &n), 0);
    /* What is left of that call is still worth one; what comes after it is not. */
    assert_int_equal(queue_pop_many(q, FOR_EVER, e, 8, &n), 0);
    assert_int_equal(number_of(e[0]), 2);
    assert_int_equal(queue_push_patient(q, entry(3)), 0);
    assert_int_equal(queue_pop_many(q, clock_mono_us() + 1000, e, 8, &n), 0);
    assert_int_equal(number_of(e[0]), 3);
    assert_int_equal(queue_pop_many(q, clock_mono_us() + 1000, e, 8, &n), TEKD_ETIMEDOUT);
}

static void queue_close__gives_what_was_pushed_patiently(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    void *e = NULL;

    (void)state;
    assert_int_equal(queue_new(8, &q), 0);
    queue_patience(q, 8);
    assert_int_equal(queue_push_patient(q, entry(1)), 0);
    queue_close(q);
    assert_int_equal(queue_pop(q, FOR_EVER, &e), 0);
    assert_int_equal(number_of(e), 1);
    assert_int_equal(queue_pop(q, FOR_EVER, &e), TEKD_ECLOSED);
}

struct patient {
    struct queue *q;
    size_t n;
    int r;
};

static void *pop_patiently(void *arg)
{
    struct patient *p = arg;
    void *e[8];

    queue_patience(p->q, 3);
    p->r = queue_pop_many(p->q, FOR_EVER, e, 8, &p->n);
    return NULL;
}

/* Wherever the consumer is when they come: it gets all three at once. */
static void queue_push_patient__does_not_wake_too_early(void **state)
{
    (void)state;
    for (size_t round = 0; round < 300; round++) {
        AUTO(queue) struct queue *q = NULL;
        struct patient p = {.n = 0};
        pthread_t thread;

        assert_int_equal(queue_new(8, &q), 0);
        p.q = q;
        queue_patience(q, 3);
        assert_int_equal(pthread_create(&thread, NULL, pop_patiently, &p), 0);
        for (size_t i = 0; i < 3; i++) {
            sched_yield();
            assert_int_equal(queue_push_patient(q, entry(i)), 0);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(p.r, 0);
        assert_int_equal(p.n, 3);
    }
}

static void queue_close__wakes_every_consumer(void **state)
{
    AUTO(queue) struct queue *q = NULL;
    struct waiter w[4];
    pthread_t threads[4];

    (void)state;
    assert_int_equal(queue_new(1, &q), 0);
    for (size_t i = 0; i < 4; i++) {
        w[i] = (struct waiter){.q = q, .deadline = FOR_EVER};
        start_waiter(&w[i], &threads[i]);
    }
    queue_close(q);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(w[i].r, TEKD_ECLOSED);
    }
}

/* ---- a limit --------------------------------------------------------------------------------- */

static void assert_held_back(struct queue *q)
{
    void *e = NULL;

    assert_int_equal(queue_pop(q, NO_WAIT, &e), TEKD_ETIMEDOUT);
    assert_null(e);
}

static void queue_limit__holds_back_who_is_too_many(void **state)
{
    AUTO(queue) struct queue *q = NULL;

    (void)state;
    assert_int_equal(queue_new(4, &q), 0);
    queue_limit(q, 2);
    for (size_t n = 0; n < 4; n++)
        assert_int_equal(queue_push(q, entry(n)), 0);
    assert_int_equal(pop_number(q), 0);
    assert_int_equal(pop_number(q), 1);
    assert_held_back(q);
    queue_leave(q);
    assert_int_equal(pop_number(q), 2);
    assert_held_back(q);
    queue_leave(q);
    queue_leave(q);
    assert_int_equal(pop_number(q), 3);
    queue_leave(q);
}

static void queue_block__lets_one_more_run(void **state)
{
    AUTO(queue) struct queue *q = NULL;

    (void)state;
    assert_int_equal(queue_new(4, &q), 0);
    queue_limit(q, 1);
    for (size_t n = 0; n < 3; n++)
        assert_int_equal(queue_push(q, entry(n)), 0);
    assert_int_equal(pop_number(q), 0);
    queue_block(q);
    assert_int_equal(pop_number(q), 1);
    queue_unblock(q); /* two are at work now, one more than the limit */
    queue_leave(q);
    assert_held_back(q);
    queue_leave(q);
    assert_int_equal(pop_number(q), 2);
    queue_leave(q);
}

/* Pushed while nobody may take it, it is given to who waits as soon as somebody blocks. */
static void queue_block__wakes_who_was_held_back(void **state)
{
    (void)state;
    for (size_t round = 0; round < 300; round++) {
        AUTO(queue) struct queue *q = NULL;
        struct waiter w = {.deadline = FOR_EVER};
        pthread_t thread;

        assert_int_equal(queue_new(2, &q), 0);
        w.q = q;
        queue_limit(q, 1);
        assert_int_equal(queue_push(q, entry(1)), 0);
        assert_int_equal(pop_number(q), 1);
        start_waiter(&w, &thread);
        assert_int_equal(queue_push(q, entry(2)), 0);
        queue_block(q);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.r, 0);
        assert_int_equal(number_of(w.e), 2);
        queue_unblock(q);
        queue_leave(q);
        queue_leave(q);
    }
}

/* After the close nobody comes back for the next entry of his own accord, so all are woken. */
static void queue_leave__wakes_who_was_held_back_at_the_end(void **state)
{
    (void)state;
    for (size_t round = 0; round < 300; round++) {
        AUTO(queue) struct queue *q = NULL;
        struct waiter w = {.deadline = FOR_EVER};
        pthread_t thread;
        void *e;

        assert_int_equal(queue_new(2, &q), 0);
        w.q = q;
        queue_limit(q, 1);
        assert_int_equal(queue_push(q, entry(1)), 0);
        assert_int_equal(pop_number(q), 1);
        assert_int_equal(queue_push(q, entry(2)), 0);
        start_waiter(&w, &thread);
        queue_close(q);
        queue_leave(q);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.r, 0);
        assert_int_equal(number_of(w.e), 2);
        queue_leave(q);
        assert_int_equal(queue_pop(q, FOR_EVER, &e), TEKD_ECLOSED);
    }
}

#define PRODUCERS ((size_t)4)
#define CONSUMERS ((size_t)4)
#define EACH      ((size_t)5000)

static struct queue *shared;
static atomic_uint seen[PRODUCERS * EACH];

static void *produce(void *arg)
{
    size_t first = *(const size_t *)arg;

    for (size_t n = first; n < first + EACH; n++) {
        while (queue_push(shared, entry(n)) == TEKD_EAGAIN)
            (void)sched_yield();
    }
    return NULL;
}

/* Takes one or a batch by turns; NULL when all was well, else what was not. */
static void *consume(void *arg)
{
    size_t last[PRODUCERS] = {0};
    void *e[8];
    size_t n;

    (void)arg;
    for (size_t turn = 0;; turn++) {
        int64_t deadline = turn % 3 == 0 ? clock_mono_us() + 100 : FOR_EVER;
        int r = queue_pop_many(shared, deadline, e, turn % 8 + 1, &n);
        if (r == TEKD_ECLOSED)
            return NULL;
        for (size_t i = 0; r == 0 && i < n; i++) {
            size_t number = number_of(e[i]), producer = number / EACH;
            if (number % EACH + 1 <= last[producer])
                return "out of order";
            last[producer] = number % EACH + 1;
            atomic_fetch_add(&seen[number], 1);
        }
    }
}

static void queue__loses_and_doubles_nothing_between_threads(void **state)
{
    size_t firsts[PRODUCERS];
    pthread_t producers[PRODUCERS], consumers[CONSUMERS];
    void *complaint;

    (void)state;
    assert_int_equal(queue_new(16, &shared), 0);
    for (size_t i = 0; i < CONSUMERS; i++)
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, NULL), 0);
    for (size_t i = 0; i < PRODUCERS; i++) {
        firsts[i] = i * EACH;
        assert_int_equal(pthread_create(&producers[i], NULL, produce, &firsts[i]), 0);
    }
    for (size_t i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_join(producers[i], NULL), 0);
    queue_close(shared);
    for (size_t i = 0; i < CONSUMERS; i++) {
        assert_int_equal(pthread_join(consumers[i], &complaint), 0);
        assert_null(complaint);
    }
    for (size_t n = 0; n < PRODUCERS * EACH; n++)
        assert_int_equal(atomic_load(&seen[n]), 1);
    queue_free(TAKE(shared));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_pop__gives_entries_in_order),
        cmocka_unit_test(queue_push__refuses_when_full),
        cmocka_unit_test(queue_push__carries_null),
        cmocka_unit_test(queue_push__refuses_when_closed),
        cmocka_unit_test(queue_pop__does_not_wait_at_deadline_zero),
        cmocka_unit_test(queue_pop__waits_until_the_deadline_and_not_longer),
        cmocka_unit_test(queue_pop__gives_an_entry_whatever_the_deadline),
        cmocka_unit_test(queue_pop_many__gives_up_to_max_in_order),
        cmocka_unit_test(queue_close__leaves_what_is_inside),
        cmocka_unit_test(queue_free__takes_null),
        cmocka_unit_test(queue_push__wakes_a_consumer),
        cmocka_unit_test(queue_push_patient__is_seen_when_enough_are_there),
        cmocka_unit_test(queue_push__ends_the_patience),
        cmocka_unit_test(queue_close__gives_what_was_pushed_patiently),
        cmocka_unit_test(queue_push_patient__does_not_wake_too_early),
        cmocka_unit_test(queue_close__wakes_every_consumer),
        cmocka_unit_test(queue_limit__holds_back_who_is_too_many),
        cmocka_unit_test(queue_block__lets_one_more_run),
        cmocka_unit_test(queue_block__wakes_who_was_held_back),
        cmocka_unit_test(queue_leave__wakes_who_was_held_back_at_the_end),
        cmocka_unit_test(queue__loses_and_doubles_nothing_between_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
