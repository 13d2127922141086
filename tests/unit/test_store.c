/* The store's promises to who submits: what is done when, and what is not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_fixture.h"

/* A store whose next signature is held, with nothing but what the test submits to sign. */
static void open_held(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    store_signer_hold(f->signer);
}

static void store_submit__signed_waits_for_the_signature_others_do_not(void **state)
{
    struct fixture *f = *state;
    struct probe key;
    unsigned entered;

    open_held(f);
    entered = store_signer_entered(f->signer);
    probe_init(&key, STORE_SIGNED, "urn:x:1", 1);
    probe_submit(f, &key);
    store_signer_wait_entered(f->signer, entered + 1);
    assert_true(fixture_has(f, "urn:x:1")); /* committed, reads go on */
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:2", 1), 0);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:3", 1), 0);
    assert_false(probe_done(&key));
    store_signer_release(f->signer);
    assert_int_equal(probe_wait(&key), 0);
}

static void store_submit__nothing_of_a_held_batch_is_done(void **state)
{
    struct fixture *f = *state;
    struct probe keys[40];
    struct log_check log;
    char name[40][24];
    unsigned entered;

    open_held(f);
    entered = store_signer_entered(f->signer);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        (void)snprintf(name[i], sizeof(name[i]), "urn:x:%zu", i);
        probe_init(&keys[i], STORE_SIGNED, name[i], 1 + (unsigned)i % 3);
        probe_submit(f, &keys[i]);
    }
    store_signer_wait_entered(f->signer, entered + 1);
    fixture_turn(f);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_false(probe_done(&keys[i]));
    store_signer_release(f->signer);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_int_equal(probe_wait(&keys[i]), 0);
    log = fixture_check_log(f, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        assert_int_equal(keys[i].item.first_seq, keys[i].seq);
        assert_true(keys[i].seq + keys[i].records <= log.signed_size);
    }
}

static void store_submit__losers_get_their_error_and_leave_no_record(void **state)
{
    struct fixture *f = *state;
    struct probe keys[20];
    struct probe blocker;
    struct store_status before, after;
    struct log_check log;
    char name[24];
    unsigned entered;

    open_held(f);
    fixture_turn(f);
    store_status_get(f->store, &before);
    entered = store_signer_entered(f->signer);
    probe_init(&blocker, STORE_SIGNED, "urn:x:0", 1);
    probe_submit(f, &blocker);
    store_signer_wait_entered(f->signer, entered + 1);
    /* While the signature is held these wait, and become one batch: every second one loses. */
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        static char names[20][24];

        (void)snprintf(names[i], sizeof(names[i]), "urn:x:%zu", i % 2 == 0 ? 0 : i);
        probe_init(&keys[i], STORE_SIGNED, names[i], 2);
        probe_submit(f, &keys[i]);
    }
    fixture_turn(f);
    store_signer_release(f->signer);
    assert_int_equal(probe_wait(&blocker), 0);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_int_equal(probe_wait(&keys[i]), i % 2 == 0 ? TEKD_EEXIST : 0);
    for (size_t i = 1; i < ARRAY_SIZE(keys); i += 2) {
        (void)snprintf(name, sizeof(name), "urn:x:%zu", i);
        assert_true(fixture_has(f, name));
    }
    log = fixture_check_log(f, "config.changed");
    assert_int_equal(log.count, 2 + 10 * 2);
    fixture_turn(f);
    store_status_get(f->store, &after);
    assert_int_equal(after.losers - before.losers, 10);
    assert_int_equal(after.batches - before.batches, 3); /* blocker, all twenty, their checkpoint */
}

static void store_submit__an_item_that_fails_late_is_undone_alone(void **state)
{
    struct fixture *f = *state;
    struct probe p;

    fixture_open(f);
    probe_init(&p, STORE_DURABLE, "urn:x:1", 3);
    p.fail = TEKD_ESTALE;
    probe_submit(f, &p);
    assert_int_equal(probe_wait(&p), TEKD_ESTALE);
    assert_true(p.applied);
    assert_false(fixture_has(f, "urn:x:1"));
    assert_int_equal(fixture_check_log(f, "config.changed").count, 0);
}

static void store_tx_wait_for__a_repeat_waits_for_the_older_record(void **state)
{
    struct fixture *f = *state;
    struct probe key, repeat, old;
    unsigned entered;

    open_held(f);
    entered = store_signer_entered(f->signer);
    probe_init(&key, STORE_SIGNED, "urn:x:1", 1);
    probe_submit(f, &key);
    store_signer_wait_entered(f->signer, entered + 1);
    probe_init(&repeat, STORE_SIGNED, NULL, 0);
    repeat.wait_for = (int64_t)key.seq;
    probe_submit(f, &repeat);
    fixture_turn(f);
    /* The batch of a repeat alone waits a moment for the signature; past that it is applied. */
    fake_clock_advance(10000);
    fixture_turn(f);
    assert_true(repeat.applied);
    assert_false(probe_done(&repeat));
    probe_init(&old, STORE_SIGNED, NULL, 0);
    old.wait_for = 0;
    probe_submit(f, &old);
    assert_int_equal(probe_wait(&old), 0); /* signed long ago: no need to wait */
    assert_false(probe_done(&repeat));
    store_signer_release(f->signer);
    assert_int_equal(probe_wait(&repeat), 0);
    assert_int_equal(probe_wait(&key), 0);
}

static void store_tx_wait_for__a_signed_record_costs_no_signature(void **state)
{
    struct fixture *f = *state;
    struct probe repeat;
    unsigned entered;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    entered = store_signer_entered(f->signer);
    probe_init(&repeat, STORE_SIGNED, NULL, 0);
    repeat.wait_for = 2;
    probe_submit(f, &repeat);
    assert_int_equal(probe_wait(&repeat), 0);
    assert_int_equal(store_signer_entered(f->signer), entered);
}

static void store_submit__a_deadline_ends_the_wait(void **state)
{
    struct fixture *f = *state;
    struct probe key, late;
    unsigned entered;

    open_held(f);
    entered = store_signer_entered(f->signer);
    probe_init(&key, STORE_SIGNED, "urn:x:1", 1);
    key.item.deadline_us = clock_mono_us() + 500000;
    probe_submit(f, &key);
    store_signer_wait_entered(f->signer, entered + 1);
    fixture_turn(f);
    assert_false(probe_done(&key));
    fake_clock_advance(600000);
    fixture_turn(f);
    assert_int_equal(probe_wait(&key), TEKD_ETIMEDOUT);
    assert_true(fixture_has(f, "urn:x:1")); /* it is committed all the same */
    /* One whose time is over before its turn is not even applied. */
    probe_init(&late, STORE_SIGNED, "urn:x:2", 1);
    late.item.deadline_us = clock_mono_us();
    probe_submit(f, &late);
    assert_int_equal(probe_wait(&late), TEKD_ETIMEDOUT);
    assert_false(late.applied);
    store_signer_release(f->signer);
}

static void store_submit__lazy_rides_and_goes_alone_after_a_second(void **state)
{
    struct fixture *f = *state;
    struct probe lazy;
    struct store_status before, after;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    probe_init(&lazy, STORE_LAZY, "urn:x:1", 1);
    probe_submit(f, &lazy);
    fixture_turn(f);
    assert_false(lazy.applied);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:2", 1), 0);
    assert_true(probe_done(&lazy)); /* it rode with the other */
    fixture_turn(f);
    store_status_get(f->store, &before);
    probe_init(&lazy, STORE_LAZY, "urn:x:3", 1);
    probe_submit(f, &lazy);
    fixture_turn(f);
    assert_false(lazy.applied);
    fake_clock_advance(STORE_LAZY_US);
    fixture_turn(f);
    assert_int_equal(probe_wait(&lazy), 0);
    fixture_turn(f);
    store_status_get(f->store, &after);
    assert_true(after.batches > before.batches);
}

static void store_submit__release_durable_waits_for_the_commit_only(void **state)
{
    struct fixture *f = *state;
    char reason[HSM_TEXT_MAX];

    f->o.release = STORE_RELEASE_DURABLE;
    open_held(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    fake_clock_advance(3000000);
    fixture_turn(f);
    assert_int_equal(store_ready(f->store, reason), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:4", 1), 0);
    /* Ten delays later nothing is signed yet: keys are refused, the rest goes on. */
    fake_clock_advance(11000000);
    fixture_turn(f);
    assert_int_equal(store_ready(f->store, reason), TEKD_EHSM);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), TEKD_EHSM);
    assert_false(fixture_has(f, "urn:x:2"));
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:3", 1), 0);
    store_signer_release(f->signer);
}

static void store_submit__refuses_when_the_queue_is_full(void **state)
{
    struct fixture *f = *state;
    struct probe *keys = calloc(STORE_QUEUE_MAX, sizeof(*keys));
    struct log_check log;
    struct probe one;
    unsigned entered;

    assert_non_null(keys);
    open_held(f);
    entered = store_signer_entered(f->signer);
    probe_init(&one, STORE_SIGNED, NULL, 1);
    probe_submit(f, &one);
    store_signer_wait_entered(f->signer, entered + 1);
    for (size_t i = 0; i < STORE_QUEUE_MAX - 1; i++) {
        probe_init(&keys[i], STORE_SIGNED, NULL, 0);
        keys[i].wait_for = 2;
        probe_submit(f, &keys[i]);
    }
    probe_init(&keys[STORE_QUEUE_MAX - 1], STORE_SIGNED, NULL, 0);
    assert_int_equal(store_submit(f->store, &keys[STORE_QUEUE_MAX - 1].item), TEKD_EAGAIN);
    keys[STORE_QUEUE_MAX - 1].item.wait = STORE_LAZY; /* what is lost to the log is counted */
    assert_int_equal(store_submit(f->store, &keys[STORE_QUEUE_MAX - 1].item), TEKD_EAGAIN);
    store_signer_release(f->signer);
    for (size_t i = 0; i < STORE_QUEUE_MAX - 1; i++)
        assert_int_equal(probe_wait(&keys[i]), 0);
    assert_int_equal(probe_wait(&one), 0);
    fake_clock_advance(1100000);
    fixture_turn(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    log = fixture_check_log(f, "audit.gap");
    assert_int_equal(log.count, 1);
    assert_int_equal(log.number, 1);
    free(keys);
}

/* In a child, once the store is open elsewhere: whether it is refused. */
static int second_process(struct fixture *f, const int go[2])
{
    char octet;

    (void)close(go[1]);
    return read(go[0], &octet, 1) == 1 && fixture_try_open(f) == TEKD_EEXIST ? 0 : 1;
}

/* The child is made before there are threads: one of them could be inside of SQLite. */
static void store_open__refuses_a_second_process(void **state)
{
    struct fixture *f = *state;
    int go[2], status = 0;
    pid_t pid;

    assert_int_equal(pipe(go), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(second_process(f, go));
    assert_int_equal(close(go[0]), 0);
    fixture_open(f);
    assert_int_equal(fixture_try_open(f), TEKD_EEXIST);
    assert_int_equal(write(go[1], "", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(close(go[1]), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
}

static void store_open__makes_a_private_file(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char wal[140];

    fixture_open(f);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)snprintf(wal, sizeof(wal), "%s-wal", f->path);
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void store_ready__says_when_space_is_low(void **state)
{
    struct fixture *f = *state;
    char reason[HSM_TEXT_MAX];

    f->o.free_stop = UINT64_MAX;
    fixture_open(f);
    assert_int_equal(store_ready(f->store, reason), TEKD_EFULL);
    assert_non_null(strstr(reason, "space"));
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), TEKD_EFULL);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:2", 1), 0);
    assert_true(fixture_logged("free-space-low", "stop="));
    fixture_close(f);
    f->o.free_stop = 0;
    fixture_open(f);
    assert_int_equal(store_ready(f->store, reason), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
}

static void store_checkpoint_soon__signs_what_nobody_waits_for(void **state)
{
    struct fixture *f = *state;
    struct store_status st;
    unsigned entered;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    entered = store_signer_entered(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 3), 0);
    fixture_turn(f);
    assert_int_equal(store_signer_entered(f->signer), entered);
    store_checkpoint_soon(f->store);
    store_signer_wait_entered(f->signer, entered + 1);
    do
        store_status_get(f->store, &st);
    while (st.signed_size < st.records);
    assert_int_equal(fixture_check_log(f, NULL).signed_size, st.records);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_submit__signed_waits_for_the_signature_others_do_not),
        TEST(store_submit__nothing_of_a_held_batch_is_done),
        TEST(store_submit__losers_get_their_error_and_leave_no_record),
        TEST(store_submit__an_item_that_fails_late_is_undone_alone),
        TEST(store_tx_wait_for__a_repeat_waits_for_the_older_record),
        TEST(store_tx_wait_for__a_signed_record_costs_no_signature),
        TEST(store_submit__a_deadline_ends_the_wait),
        TEST(store_submit__lazy_rides_and_goes_alone_after_a_second),
        TEST(store_submit__release_durable_waits_for_the_commit_only),
        TEST(store_submit__refuses_when_the_queue_is_full),
        TEST(store_open__refuses_a_second_process),
        TEST(store_open__makes_a_private_file),
        TEST(store_ready__says_when_space_is_low),
        TEST(store_checkpoint_soon__signs_what_nobody_waits_for),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
