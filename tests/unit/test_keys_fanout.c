/* Fan-outs: a new TEK for every BSA that holds the content, once each, whatever happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "keys_delivery.h"
#include "store_vfs.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])
#define NEWS      "urn:x:news"
#define SECOND    INT64_C(1000000)
#define EPOCH     INT64_C(1767225600000000)
#define GROUP     ((size_t)KEYS_FANOUT_GROUP)
#define MANY      (2 * GROUP + 3)

static int set_up(void **state)
{
    fake_clock_set_utc(EPOCH);
    *state = service_started();
    return 0;
}

#define FANOUT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, service_tear_down)

static void pull(struct service *s, const struct peer *p, const char *content)
{
    static _Atomic unsigned n;
    char mid[32];

    (void)snprintf(mid, sizeof(mid), "pull-%u", atomic_fetch_add(&n, 1));
    (void)ask_key(s, p, mid, content, NULL);
}

/* bsa-1 and so many of the others have asked for the content, and it was rotated. */
static void rotate_with(struct service *s, size_t holders)
{
    service_add_peers(s, holders - 1);
    pull(s, BSA(s, 1), NEWS);
    for (size_t i = 0; i < holders - 1; i++)
        pull(s, &s->more[i], NEWS);
    service_rotate(s, NEWS);
}

static int step(struct service *s, bool *ret_done)
{
    struct store_fanout f = fanout_first(s);

    return keys_fanout_step(s->keys, &f, DELIVERY_DEADLINE_S, ret_done);
}

/* Each of these BSAs has exactly one delivery. */
static void assert_one_each(struct service *s, size_t holders)
{
    assert_int_equal(delivery_count(s, BSA(s, 1)), 1);
    for (size_t i = 0; i < holders - 1; i++)
        assert_int_equal(delivery_count(s, &s->more[i]), 1);
    assert_int_equal(delivery_count(s, NULL), holders);
    assert_int_equal(service_count(s, "delivery.prepared", NULL, NULL), holders);
}

/* ---- to whom --------------------------------------------------------------------------------- */

static int find_first(void *arg, const struct store_delivery *d)
{
    *(struct store_delivery *)arg = *d;
    return 1;
}

static int first_delivery(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.limit = 1, .arg = arg};

    (void)store_tx_delivery_walk(tx, &w, find_first);
    return 0;
}

static void rotate__reaches_those_that_hold_the_content(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX], now[FAKE_TEK_MAX];
    struct store_delivery d;

    pull(s, BSA(s, 1), NEWS);
    pull(s, BSA(s, 2), "urn:x:other");
    service_rotate(s, NEWS);
    assert_int_equal(fanout_count(s), 1);
    assert_int_equal(delivery_count(s, NULL), 0);
    fanout_run(s);
    assert_int_equal(delivery_count(s, NULL), 1);
    assert_int_equal(store_call(s->store, STORE_READ, first_delivery, &d), 0);
    assert_int_equal(d.deadline_us, EPOCH + DELIVERY_DEADLINE_S * SECOND);
    assert_int_equal(delivery_tek(s, d.mid, BSA(s, 1), tek), 16);
    (void)ask_key(s, BSA(s, 1), "m-now", NEWS, now);
    assert_memory_equal(tek, now, 16);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_EXPORT), 1); /* the request finds its wrap */
}

static void rotate__of_a_content_that_nobody_holds_reaches_nobody(void **state)
{
    struct service *s = *state;
    bool done = false;

    assert_int_equal(service_add_content(s, NEWS, 128), 0);
    service_rotate(s, NEWS);
    assert_int_equal(fanout_count(s), 0); /* it had none before */
    service_rotate(s, NEWS);
    pull(s, BSA(s, 1), NEWS); /* has the new one already */
    assert_int_equal(step(s, &done), 0);
    assert_true(done);
    assert_int_equal(fanout_count(s), 0);
    assert_int_equal(delivery_count(s, NULL), 0);
}

/* As they are when it is their turn. */
static void rotate__passes_over_who_may_not_have_it(void **state)
{
    struct service *s = *state;

    for (unsigned i = 1; i <= SERVICE_PEERS; i++)
        pull(s, BSA(s, i), NEWS);
    service_rotate(s, NEWS);
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    assert_int_equal(service_set_entitle(s, BSA(s, 2), "urn:y:*"), 0);
    fanout_run(s);
    assert_int_equal(delivery_count(s, BSA(s, 3)), 1);
    assert_int_equal(delivery_count(s, BSA(s, 4)), 1);
    assert_int_equal(delivery_count(s, NULL), 2);
}

/* A delivery makes a holder as a request does. */
static void rotate__reaches_who_was_delivered_to(void **state)
{
    struct service *s = *state;
    char mid[STORE_MID_LEN + 1];

    assert_int_equal(service_add_content(s, NEWS, 128), 0);
    deliver_one(s, NEWS, BSA(s, 3), mid);
    service_rotate(s, NEWS);
    fanout_run(s);
    assert_int_equal(delivery_count(s, BSA(s, 3)), 2);
}

/* ---- in groups ------------------------------------------------------------------------------- */

static void step__prepares_a_group_at_a_time(void **state)
{
    static const size_t after[] = {GROUP, 2 * GROUP, MANY};
    struct service *s = *state;
    bool done = false;

    rotate_with(s, MANY);
    for (size_t i = 0; i < ARRAY_SIZE(after); i++) {
        assert_false(done);
        assert_int_equal(step(s, &done), 0);
        assert_int_equal(delivery_count(s, NULL), after[i]);
    }
    assert_true(done);
    assert_int_equal(fanout_count(s), 0);
    assert_one_each(s, MANY);
    assert_int_equal(fake_hsm_worked(s->hsm, FAKE_EXPORT), 2 * MANY - 1);
}

/* The row says where to go on, whatever the caller believes. */
static void step__of_an_old_row_goes_on_where_it_stands(void **state)
{
    struct service *s = *state;
    struct store_fanout old;
    bool done;

    rotate_with(s, MANY);
    old = fanout_first(s);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(keys_fanout_step(s->keys, &old, DELIVERY_DEADLINE_S, &done), 0);
    assert_true(done);
    assert_one_each(s, MANY);
    done = false;
    assert_int_equal(keys_fanout_step(s->keys, &old, DELIVERY_DEADLINE_S, &done), 0);
    assert_true(done); /* there is none any more */
    assert_one_each(s, MANY);
}

static void step__goes_on_after_a_restart(void **state)
{
    struct service *s = *state;
    bool done = false;

    rotate_with(s, MANY);
    while (!done) {
        assert_int_equal(step(s, &done), 0);
        service_stop(s);
        assert_int_equal(service_start(s), 0);
    }
    assert_one_each(s, MANY);
}

/* The commit of the second group fails: it is as if it had never been. */
static void step__whose_commit_fails_changes_nothing(void **state)
{
    struct service *s = *state;
    bool done = false;

    rotate_with(s, MANY);
    assert_int_equal(step(s, &done), 0);
    store_vfs_arm(VFS_FULL, 1);
    assert_int_equal(step(s, &done), TEKD_EFULL);
    assert_true(store_vfs_disarm());
    assert_int_equal(
        store_call(s->store, STORE_DURABLE, first_delivery, &(struct store_delivery){.row = 0}),
        0); /* it writes again */
    assert_int_equal(delivery_count(s, NULL), KEYS_FANOUT_GROUP);
    fanout_run(s);
    assert_one_each(s, MANY);
}

/*
 * The power is cut at each operation on the disk in turn, while two groups are prepared: whatever
 * was synced, each holder has one delivery of each rotation in the end.
 */
static void step__survives_a_crash_at_any_point(void **state)
{
    enum { HOLDERS = KEYS_FANOUT_GROUP + 2, CUTS_MAX = 200 };
    struct service *s = *state;
    unsigned rotations = 1, cuts = 0;
    bool cut = true;

    rotate_with(s, HOLDERS);
    fanout_run(s);
    for (unsigned k = 1; k < CUTS_MAX && cut; k += 2) {
        bool done = false;
        int r = 0;

        service_rotate(s, NEWS);
        rotations++;
        store_vfs_arm(VFS_POWER_CUT, k);
        while (r == 0 && !done)
            r = step(s, &done);
        cut = r < 0;
        cuts += cut;
        service_stop(s);
        (void)store_vfs_disarm();
        assert_int_equal(service_start(s), 0);
        fanout_run(s);
        assert_int_equal(delivery_count(s, BSA(s, 1)), rotations);
        for (size_t i = 0; i < HOLDERS - 1; i++)
            assert_int_equal(delivery_count(s, &s->more[i]), rotations);
        assert_int_equal(delivery_count(s, NULL), HOLDERS * rotations);
    }
    assert_false(cut); /* the last one was through before its turn came */
    assert_true(cuts > 20);
}

/* ---- one bad KEK ----------------------------------------------------------------------------- */

/* What the token says of its KEK: it is not there, is weak, or whoever uses it dies. */
static void step__passes_over_who_has_a_bad_kek(void **state)
{
    static const int errors[] = {TEKD_ENOTFOUND, TEKD_EWEAK, TEKD_EHSM, TEKD_ETIMEDOUT};
    struct service *s = *state;
    size_t holders = KEYS_FANOUT_GROUP + 2;

    rotate_with(s, holders);
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
        fake_hsm_break(s->hsm, s->more[3 * i].kek, errors[i]);
    fanout_run(s);
    for (size_t i = 0; i < holders - 1; i++)
        assert_int_equal(delivery_count(s, &s->more[i]),
                         i % 3 == 0 && i / 3 < ARRAY_SIZE(errors) ? 0 : 1);
    assert_int_equal(delivery_count(s, NULL), holders - ARRAY_SIZE(errors));
}

/* Nobody has any: that the HSM is sure of does not hold up those behind. */
static void step__passes_over_a_whole_group_without_keks(void **state)
{
    struct service *s = *state;
    bool done;

    rotate_with(s, KEYS_FANOUT_GROUP + 2);
    fake_hsm_remove(s->hsm, BSA(s, 1)->kek);
    for (size_t i = 0; i < KEYS_FANOUT_GROUP - 1; i++)
        fake_hsm_remove(s->hsm, s->more[i].kek);
    assert_int_equal(step(s, &done), 0);
    assert_false(done);
    assert_int_equal(delivery_count(s, NULL), 0);
    fanout_run(s);
    assert_int_equal(delivery_count(s, NULL), 2);
}

/* An error that may be the HSM's: nobody is passed over for it. */
static void step__without_the_hsm_changes_nothing(void **state)
{
    static const struct {
        enum fake_call call;
        int error;
    } faults[] = {{FAKE_EXPORT, TEKD_EHSM},
                  {FAKE_EXPORT, TEKD_ETIMEDOUT},
                  {FAKE_EXPORT, TEKD_EAGAIN},
                  {FAKE_EXPORT, TEKD_EFORMAT}};
    struct service *s = *state;
    bool done = false;

    rotate_with(s, 3);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        fake_hsm_fail(s->hsm, faults[i].call, faults[i].error);
        assert_int_equal(step(s, &done), faults[i].error);
        fake_hsm_fail(s->hsm, FAKE_DESCRIBE, TEKD_EHSM); /* it does not answer at all */
        assert_true(step(s, &done) < 0);
        fake_hsm_fail(s->hsm, FAKE_DESCRIBE, 0);
        fake_hsm_fail(s->hsm, faults[i].call, 0);
        assert_false(done);
        assert_int_equal(fanout_first(s).after_bsa, 0);
        assert_int_equal(delivery_count(s, NULL), 0);
    }
    fanout_run(s);
    assert_one_each(s, 3);
}

/* Without the storage KEK every wrap fails as if the BSA's were not there. */
static void step__without_the_storage_kek_changes_nothing(void **state)
{
    struct service *s = *state;
    bool done = false;

    rotate_with(s, 3);
    fake_hsm_remove(s->hsm, SERVICE_STORAGE);
    assert_int_equal(step(s, &done), TEKD_ENOTFOUND);
    assert_false(done);
    assert_int_equal(fanout_first(s).after_bsa, 0);
    assert_int_equal(delivery_count(s, NULL), 0);
}

/* The worker dies once: it is asked again. */
static void step__asks_again_once(void **state)
{
    struct service *s = *state;
    unsigned made;

    rotate_with(s, 3);
    made = fake_hsm_made(s->hsm, FAKE_EXPORT);
    fake_hsm_break(s->hsm, s->more[0].kek, TEKD_EHSM);
    fanout_run(s);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_EXPORT), made + 4);
}

/* ---- the TEK goes, or its time --------------------------------------------------------------- */

static int find_current(void *arg, struct store_tx *tx)
{
    return store_tx_tek_current(tx, 1, 0, arg);
}

static void destroy_current(struct service *s)
{
    struct store_tek t;

    assert_int_equal(store_call(s->store, STORE_READ, find_current, &t), 0);
    service_destroy(s, t.key_id);
}

static void destroy__between_two_groups_ends_the_fanout(void **state)
{
    struct service *s = *state;
    struct store_fanout old;
    bool done = false;

    rotate_with(s, MANY);
    assert_int_equal(step(s, &done), 0);
    old = fanout_first(s);
    destroy_current(s);
    assert_int_equal(fanout_count(s), 0);
    assert_int_equal(keys_fanout_step(s->keys, &old, DELIVERY_DEADLINE_S, &done), 0);
    assert_true(done);
    assert_int_equal(delivery_count(s, NULL), KEYS_FANOUT_GROUP);
    assert_int_equal(service_count(s, "delivery.abandoned", "reason", "key-gone"),
                     KEYS_FANOUT_GROUP);
}

struct stepper {
    struct service *s;
    struct store_fanout f;
    bool done;
    int result;
};

static void *run_step(void *arg)
{
    struct stepper *x = arg;

    x->result = keys_fanout_step(x->s->keys, &x->f, DELIVERY_DEADLINE_S, &x->done);
    return NULL;
}

/* A step is held in the HSM while change() happens. */
static void meanwhile(struct stepper *x, struct service *s, void (*change)(struct service *s))
{
    pthread_t thread;

    *x = (struct stepper){.s = s, .f = fanout_first(s)};
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    assert_int_equal(pthread_create(&thread, NULL, run_step, x), 0);
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    change(s);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    (void)pthread_join(thread, NULL);
    assert_int_equal(x->result, 0);
}

static void destroy__while_a_group_is_wrapped_lets_nothing_out(void **state)
{
    struct service *s = *state;
    struct stepper x;

    rotate_with(s, 3);
    meanwhile(&x, s, destroy_current);
    assert_true(x.done);
    assert_int_equal(delivery_count(s, NULL), 0);
    assert_int_equal(service_count(s, "delivery.prepared", NULL, NULL), 0);
}

static void disable_second(struct service *s)
{
    assert_int_equal(service_enable(s, &s->more[0], false), 0);
}

static void disable__while_a_group_is_wrapped_takes_one_out(void **state)
{
    struct service *s = *state;
    struct stepper x;

    rotate_with(s, 3);
    meanwhile(&x, s, disable_second);
    assert_true(x.done);
    assert_int_equal(delivery_count(s, BSA(s, 1)), 1);
    assert_int_equal(delivery_count(s, &s->more[1]), 1);
    assert_int_equal(delivery_count(s, NULL), 2);
}

static int give_second(void *arg, struct store_tx *tx)
{
    const struct hsm_blob wrapped = {.len = 24, .octets = {0xa5}};
    struct service *s = arg;
    struct store_kek kek;
    struct store_tek t;
    char name[48];
    bool holder;
    int r = store_tx_tek_current(tx, 1, 0, &t);

    (void)snprintf(name, sizeof(name), "%s/1", s->more[0].id);
    if (r == 0)
        r = store_tx_kek_find(tx, name, &kek);
    if (r == 0)
        r = store_tx_export_insert(tx, t.row, kek.row, &wrapped, &holder);
    return r;
}

/* As its own request would, which waits for the HSM, too. */
static void answer_second(struct service *s)
{
    assert_int_equal(store_call(s->store, STORE_DURABLE, give_second, s), 0);
}

static void request__while_a_group_is_wrapped_takes_one_out(void **state)
{
    struct service *s = *state;
    struct stepper x;
    unsigned made;

    rotate_with(s, 3);
    made = fake_hsm_made(s->hsm, FAKE_EXPORT);
    meanwhile(&x, s, answer_second);
    assert_true(x.done);
    assert_int_equal(delivery_count(s, BSA(s, 1)), 1);
    assert_int_equal(delivery_count(s, &s->more[1]), 1);
    assert_int_equal(delivery_count(s, NULL), 2);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_EXPORT), made + 3); /* once, for all of them */
}

/* Both TEKs are on their way, each to everybody once. */
static void rotate_again(struct service *s)
{
    service_rotate(s, NEWS);
}

static void rotate__while_a_group_is_wrapped_is_a_fanout_of_its_own(void **state)
{
    struct service *s = *state;
    struct stepper x;

    rotate_with(s, 3);
    meanwhile(&x, s, rotate_again);
    assert_true(x.done);
    assert_int_equal(delivery_count(s, NULL), 3);
    fanout_run(s);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(delivery_count(s, &s->more[i]), 2);
    assert_int_equal(delivery_count(s, NULL), 6);
}

static void steps__at_the_same_time_prepare_nobody_twice(void **state)
{
    struct service *s = *state;
    struct stepper x[4];
    pthread_t thread[ARRAY_SIZE(x)];

    rotate_with(s, MANY);
    for (size_t i = 0; i < ARRAY_SIZE(x); i++) {
        x[i] = (struct stepper){.s = s, .f = fanout_first(s)};
        assert_int_equal(pthread_create(&thread[i], NULL, run_step, &x[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(x); i++) {
        (void)pthread_join(thread[i], NULL);
        assert_int_equal(x[i].result, 0);
    }
    assert_int_equal(fanout_count(s), 0);
    assert_one_each(s, MANY);
}

/* Requests ask all the while, and get the TEK that is current: then that was its delivery. */
static void *run_requests(void *arg)
{
    struct service *s = arg;

    for (size_t i = 0; i < MANY - 1; i++)
        pull(s, &s->more[i], NEWS);
    return NULL;
}

static void rotate__while_requests_are_under_way(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX], now[FAKE_TEK_MAX];
    struct store_delivery d;
    pthread_t thread;

    rotate_with(s, MANY);
    assert_int_equal(pthread_create(&thread, NULL, run_requests, s), 0);
    fanout_run(s);
    (void)pthread_join(thread, NULL);
    assert_int_equal(delivery_count(s, BSA(s, 1)), 1);
    for (size_t i = 0; i < MANY - 1; i++)
        assert_in_range(delivery_count(s, &s->more[i]), 0, 1);
    assert_int_equal(service_count(s, "delivery.prepared", NULL, NULL), delivery_count(s, NULL));
    (void)ask_key(s, BSA(s, 2), "m-now", NEWS, now);
    assert_int_equal(store_call(s->store, STORE_READ, first_delivery, &d), 0);
    (void)delivery_tek(s, d.mid, BSA(s, 1), tek);
    assert_memory_equal(tek, now, 16);
}

/* ---- crypto-periods -------------------------------------------------------------------------- */

static int make(struct service *s, int64_t period)
{
    return keys_period_make(s->keys, 1, period, clock_mono_us() + SERVICE_US);
}

static void period__to_come_is_fanned_out_when_it_is_made(void **state)
{
    struct service *s = *state;
    struct store_delivery d;
    struct cp3_message m;

    service_add_periods(s, NEWS, 600, 60);
    pull(s, BSA(s, 1), NEWS);
    fanout_run(s);
    assert_int_equal(delivery_count(s, NULL), 0); /* it holds the one that it asked for */
    fake_clock_set_utc(EPOCH + 540 * SECOND);
    assert_int_equal(make(s, 1), 0);
    assert_int_equal(make(s, 1), 0);
    assert_int_equal(fanout_count(s), 1);
    fanout_run(s);
    assert_int_equal(delivery_count(s, NULL), 1);
    assert_int_equal(store_call(s->store, STORE_READ, first_delivery, &d), 0);
    assert_int_equal(d.deadline_us, EPOCH + 1200 * SECOND);
    assert_int_equal(delivery_message(s, d.mid, &m), 0);
    assert_int_equal(m.key_info.period, 1);
    assert_int_equal(m.key_info.not_before.seconds, EPOCH / SECOND + 600);
}

/* Nobody made it in time: the others get it as if somebody had. */
static void period__made_by_a_request_is_fanned_out_too(void **state)
{
    struct service *s = *state;

    service_add_periods(s, NEWS, 600, 60);
    pull(s, BSA(s, 1), NEWS);
    pull(s, BSA(s, 2), NEWS);
    fanout_run(s);
    fake_clock_set_utc(EPOCH + 600 * SECOND);
    pull(s, BSA(s, 2), NEWS);
    assert_int_equal(fanout_count(s), 1);
    fanout_run(s);
    assert_int_equal(delivery_count(s, BSA(s, 1)), 1);
}

static void period__that_is_over_is_not_fanned_out_any_more(void **state)
{
    struct service *s = *state;
    bool done = false;

    service_add_periods(s, NEWS, 600, 60);
    service_add_peers(s, MANY - 1);
    pull(s, BSA(s, 1), NEWS);
    for (size_t i = 0; i < MANY - 1; i++)
        pull(s, &s->more[i], NEWS);
    fanout_run(s);
    fake_clock_set_utc(EPOCH + 540 * SECOND);
    assert_int_equal(make(s, 1), 0);
    assert_int_equal(step(s, &done), 0);
    assert_false(done);
    fake_clock_set_utc(EPOCH + 1200 * SECOND);
    assert_int_equal(step(s, &done), 0);
    assert_true(done);
    assert_int_equal(fanout_count(s), 0);
    assert_int_equal(delivery_count(s, NULL), KEYS_FANOUT_GROUP);
}

/* Who was given a TEK that is destroyed needs the next one all the more. */
static void destroy__then_a_new_tek_reaches_those_that_held_it(void **state)
{
    struct service *s = *state;

    pull(s, BSA(s, 1), NEWS);
    pull(s, BSA(s, 2), NEWS);
    destroy_current(s);
    assert_int_equal(fanout_count(s), 0);
    pull(s, BSA(s, 2), NEWS); /* makes it, and has it */
    assert_int_equal(fanout_count(s), 1);
    fanout_run(s);
    assert_int_equal(delivery_count(s, BSA(s, 1)), 1);
    assert_int_equal(delivery_count(s, NULL), 1);
}

/* Whoever comes to hold the content when the next TEK has gone to the others gets it too, once. */
static void period__reaches_who_comes_late(void **state)
{
    struct service *s = *state;

    service_add_periods(s, NEWS, 600, 60);
    pull(s, BSA(s, 1), NEWS);
    fanout_run(s); /* of the first period, which a request made */
    fake_clock_set_utc(EPOCH + 550 * SECOND);
    assert_int_equal(make(s, 1), 0);
    fanout_run(s);
    assert_int_equal(delivery_count(s, NULL), 1);
    assert_int_equal(fanout_count(s), 0);
    pull(s, BSA(s, 2), NEWS);
    assert_int_equal(fanout_count(s), 1);
    fanout_run(s);
    assert_int_equal(delivery_count(s, BSA(s, 1)), 1);
    assert_int_equal(delivery_count(s, BSA(s, 2)), 1);
    /* One that was passed over because of its place in the order, and one that holds it already. */
    pull(s, BSA(s, 3), NEWS);
    pull(s, BSA(s, 2), "urn:x:other");
    fanout_run(s);
    assert_int_equal(delivery_count(s, NULL), 3);
}

static _Atomic unsigned begun, changed;

static void on_change(void *arg, int64_t bsa)
{
    (void)arg;
    atomic_fetch_add(bsa == 0 ? &begun : &changed, 1);
}

static void fanout__is_said_to_the_push_service(void **state)
{
    struct service *s = *state;

    atomic_store(&begun, 0);
    atomic_store(&changed, 0);
    keys_on_delivery(s->keys, on_change, NULL);
    service_add_periods(s, NEWS, 600, 60);
    assert_int_equal(atomic_load(&begun), 1);
    pull(s, BSA(s, 1), NEWS);
    assert_int_equal(atomic_load(&begun), 2);
    assert_int_equal(make(s, 1), 0);
    assert_int_equal(atomic_load(&begun), 3);
    service_rotate(s, NEWS);
    assert_int_equal(atomic_load(&begun), 4);
    assert_int_equal(atomic_load(&changed), 0);
    fanout_run(s);
    assert_int_equal(atomic_load(&begun), 4);
    assert_int_equal(atomic_load(&changed), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FANOUT_TEST(rotate__reaches_those_that_hold_the_content),
        FANOUT_TEST(rotate__of_a_content_that_nobody_holds_reaches_nobody),
        FANOUT_TEST(rotate__passes_over_who_may_not_have_it),
        FANOUT_TEST(rotate__reaches_who_was_delivered_to),
        FANOUT_TEST(step__prepares_a_group_at_a_time),
        FANOUT_TEST(step__of_an_old_row_goes_on_where_it_stands),
        FANOUT_TEST(step__goes_on_after_a_restart),
        FANOUT_TEST(step__whose_commit_fails_changes_nothing),
        FANOUT_TEST(step__survives_a_crash_at_any_point),
        FANOUT_TEST(step__passes_over_who_has_a_bad_kek),
        FANOUT_TEST(step__passes_over_a_whole_group_without_keks),
        FANOUT_TEST(step__without_the_hsm_changes_nothing),
        FANOUT_TEST(step__without_the_storage_kek_changes_nothing),
        FANOUT_TEST(step__asks_again_once),
        FANOUT_TEST(destroy__between_two_groups_ends_the_fanout),
        FANOUT_TEST(destroy__while_a_group_is_wrapped_lets_nothing_out),
        FANOUT_TEST(disable__while_a_group_is_wrapped_takes_one_out),
        FANOUT_TEST(request__while_a_group_is_wrapped_takes_one_out),
        FANOUT_TEST(rotate__while_a_group_is_wrapped_is_a_fanout_of_its_own),
        FANOUT_TEST(steps__at_the_same_time_prepare_nobody_twice),
        FANOUT_TEST(rotate__while_requests_are_under_way),
        FANOUT_TEST(period__to_come_is_fanned_out_when_it_is_made),
        FANOUT_TEST(period__made_by_a_request_is_fanned_out_too),
        FANOUT_TEST(period__that_is_over_is_not_fanned_out_any_more),
        FANOUT_TEST(destroy__then_a_new_tek_reaches_those_that_held_it),
        FANOUT_TEST(period__reaches_who_comes_late),
        FANOUT_TEST(fanout__is_said_to_the_push_service),
    };

    store_vfs_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
