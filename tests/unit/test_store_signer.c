/* A signer that hangs, fails, lies or is not there yet; and what happens with time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_fixture.h"

static void wait_signed(struct fixture *f)
{
    struct store_status st;

    do
        store_status_get(f->store, &st);
    while (st.signed_size < st.records);
}

/* After the first failure: the back-off passes, and the next try is made. */
static void pass_back_off(struct fixture *f)
{
    while (!fixture_logged("event=checkpoint-failed", "error="))
        ;
    fake_clock_advance(60000);
    fixture_turn(f);
}

/* ---- failing --------------------------------------------------------------------------------- */

static void signer__hanging_refuses_keys_and_nothing_else(void **state)
{
    struct fixture *f = *state;
    struct probe waiting;
    char reason[HSM_TEXT_MAX];
    unsigned entered;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_signer_hold(f->signer);
    entered = store_signer_entered(f->signer);
    probe_init(&waiting, STORE_SIGNED, "urn:x:2", 1);
    probe_submit(f, &waiting);
    store_signer_wait_entered(f->signer, entered + 1);
    fixture_turn(f);
    assert_int_equal(store_ready(f->store, reason), 0);
    fake_clock_advance(2100000); /* longer than a signature may take */
    fixture_turn(f);
    assert_int_equal(probe_wait(&waiting), TEKD_EHSM);
    assert_int_equal(store_ready(f->store, reason), TEKD_EHSM);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), TEKD_EHSM);
    assert_false(fixture_has(f, "urn:x:3"));
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:4", 1), 0);
    assert_true(fixture_has(f, "urn:x:4"));
    store_signer_release(f->signer);
    wait_signed(f);
    fixture_turn(f);
    assert_int_equal(store_ready(f->store, reason), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), 0);
    assert_int_equal(store_signer_contradictions(f->signer), 0);
    assert_true(fixture_logged("event=signer-down", "unsigned"));
    fixture_check_log(f, NULL);
}

/* A repeat of what is signed needs no signature, so it is given even then. */
static void signer__down_still_lets_repeats_through(void **state)
{
    struct fixture *f = *state;
    struct probe repeat;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_signer_hold(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 1), 0);
    store_checkpoint_soon(f->store);
    fixture_turn(f);
    fake_clock_advance(2100000);
    fixture_turn(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), TEKD_EHSM);
    probe_init(&repeat, STORE_SIGNED, NULL, 0);
    repeat.wait_for = 2;
    probe_submit(f, &repeat);
    assert_int_equal(probe_wait(&repeat), 0);
    store_signer_release(f->signer);
}

static void signer__failing_is_tried_again_with_the_same_leaves(void **state)
{
    struct fixture *f = *state;
    struct probe first, second;
    unsigned entered;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_signer_fail(f->signer, TEKD_EHSM);
    entered = store_signer_entered(f->signer);
    probe_init(&first, STORE_SIGNED, "urn:x:2", 2);
    probe_submit(f, &first);
    store_signer_wait_entered(f->signer, entered + 1);
    fixture_turn(f);
    probe_init(&second, STORE_SIGNED, "urn:x:3", 2);
    probe_submit(f, &second);
    fixture_turn(f);
    assert_false(probe_done(&first));
    store_signer_fail(f->signer, 0);
    pass_back_off(f);
    assert_int_equal(probe_wait(&first), 0);
    assert_int_equal(probe_wait(&second), 0);
    assert_int_equal(store_signer_contradictions(f->signer), 0);
    assert_true(fixture_logged("event=checkpoint-again", "size="));
    fixture_check_log(f, NULL);
}

/* An outage during which confirmations go on leaves more leaves than one message holds. */
static void signer__back_after_an_outage_signs_in_steps(void **state)
{
    struct fixture *f = *state;
    struct log_check log;
    unsigned entered;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_signer_hold(f->signer);
    entered = store_signer_entered(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 1), 0);
    store_checkpoint_soon(f->store);
    store_signer_wait_entered(f->signer, entered + 1);
    for (int i = 0; i < 80; i++) /* more than are kept in memory */
        assert_int_equal(probe_run(f, STORE_DURABLE, NULL, STORE_RECORDS_MAX), 0);
    store_signer_release(f->signer);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), 0);
    log = fixture_check_log(f, NULL);
    assert_int_equal(log.signed_size, log.leaves);
    assert_true(log.notes >= 80 * STORE_RECORDS_MAX / HSM_LEAVES_MAX);
    assert_int_equal(store_signer_most_leaves(f->signer), HSM_LEAVES_MAX);
    assert_int_equal(store_signer_contradictions(f->signer), 0);
}

/* ---- gathering ------------------------------------------------------------------------------- */

/* A signature of 3 ms: what is gathered afterwards may wait twice as long. */
static void take_3_ms_for_a_signature(struct fixture *f)
{
    struct probe slow;
    unsigned entered;

    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:first", 1), 0);
    wait_signed(f);
    store_signer_hold(f->signer);
    entered = store_signer_entered(f->signer);
    probe_init(&slow, STORE_SIGNED, "urn:x:slow", 1);
    probe_submit(f, &slow);
    store_signer_wait_entered(f->signer, entered + 1);
    fake_clock_advance(3000);
    store_signer_release(f->signer);
    assert_int_equal(probe_wait(&slow), 0);
}

static uint64_t batches(struct fixture *f)
{
    struct store_status st;

    fixture_turn(f);
    store_status_get(f->store, &st);
    return st.batches;
}

/* One that was expected has come. */
static void come(struct fixture *f, struct probe *p, const char *name)
{
    probe_init(p, STORE_SIGNED, name, 1);
    store_expect(f->store, -1);
    probe_submit(f, p);
}

static void gather__waits_until_as_many_wait_as_are_expected(void **state)
{
    struct fixture *f = *state;
    struct probe first, second, third;
    uint64_t before;

    fixture_open(f);
    take_3_ms_for_a_signature(f);
    before = batches(f);
    store_expect(f->store, 5);
    come(f, &first, "urn:x:1");
    assert_int_equal(batches(f), before);
    come(f, &second, "urn:x:2");
    assert_int_equal(batches(f), before);
    assert_false(first.applied);
    come(f, &third, "urn:x:3"); /* three wait, two are on their way */
    assert_int_equal(probe_wait(&first), 0);
    assert_int_equal(probe_wait(&second), 0);
    assert_int_equal(probe_wait(&third), 0);
    store_expect(f->store, -2);
    assert_int_equal(first.seq + 2, third.seq);
    fixture_check_log(f, NULL);
}

static void gather__is_over_after_twice_the_last_cycle(void **state)
{
    struct fixture *f = *state;
    struct probe p;
    uint64_t before;

    fixture_open(f);
    take_3_ms_for_a_signature(f);
    before = batches(f);
    store_expect(f->store, 5);
    come(f, &p, "urn:x:1");
    fixture_turn(f); /* from now on it waits */
    fake_clock_advance(5000);
    assert_int_equal(batches(f), before);
    fake_clock_advance(1001);
    fixture_turn(f);
    assert_int_equal(probe_wait(&p), 0);
    store_expect(f->store, -4);
}

static void gather__lets_a_lone_one_and_what_is_durable_go(void **state)
{
    struct fixture *f = *state;
    struct probe p;

    fixture_open(f);
    take_3_ms_for_a_signature(f);
    store_expect(f->store, 1);
    come(f, &p, "urn:x:1");
    assert_int_equal(probe_wait(&p), 0);
    store_expect(f->store, 9);
    come(f, &p, "urn:x:2");
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:3", 1), 0);
    assert_true(p.applied); /* it shared the batch that something else needed at once */
    store_expect(f->store, -8);
    fake_clock_advance(10000);
    fixture_turn(f);
    assert_int_equal(probe_wait(&p), 0);
}

/* ---- lying ----------------------------------------------------------------------------------- */

static void signer__a_bad_signature_is_not_committed(void **state)
{
    struct fixture *f = *state;
    struct probe key;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_signer_damage(f->signer, DAMAGE_SIGNATURE);
    probe_init(&key, STORE_SIGNED, "urn:x:2", 1);
    probe_submit(f, &key);
    pass_back_off(f);
    assert_int_equal(probe_wait(&key), 0); /* the second try was sound */
    assert_true(fixture_logged("event=checkpoint-refused", "does not verify"));
    fixture_check_log(f, NULL);
}

static void signer__another_root_latches(void **state)
{
    struct fixture *f = *state;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_signer_damage(f->signer, DAMAGE_ROOT);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), TEKD_EIO);
    assert_int_equal(fixture_wait_fatal(f), TEKD_ETAMPER);
    assert_true(fixture_logged("event=checkpoint-refused", "another tree"));
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:3", 1), TEKD_EIO);
}

/* ---- the key --------------------------------------------------------------------------------- */

static void signer__not_there_at_the_first_start_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct hsm_spki spki = {0};
    struct probe key;

    store_signer_hide_key(f->signer, TEKD_EHSM);
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:1", 1), 0);
    assert_int_equal(store_public_key(f->store, STORE_KEY_MAIN, &spki), TEKD_ENOTFOUND);
    probe_init(&key, STORE_SIGNED, "urn:x:2", 1);
    probe_submit(f, &key);
    fixture_turn(f);
    assert_false(probe_done(&key));
    while (!fixture_logged("event=checkpoint-failed", "error="))
        ;
    store_signer_hide_key(f->signer, 0);
    pass_back_off(f);
    assert_int_equal(probe_wait(&key), 0);
    assert_int_equal(store_public_key(f->store, STORE_KEY_MAIN, &spki), 0);
    fixture_close(f);
    assert_int_equal(fixture_try_open(f), 0);
}

static void signer__another_key_later_latches(void **state)
{
    struct fixture *f = *state;
    struct store_test_signer *other = store_signer_new();

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    fixture_close(f);
    /* The token does not answer at the start, and is another one when it does. */
    store_signer_hide_key(other, TEKD_EHSM);
    f->o.signer = store_signer_of(other);
    fixture_open(f);
    store_signer_hide_key(other, 0);
    do
        fake_clock_advance(60000);
    while (probe_run(f, STORE_READ, NULL, 0) == 0);
    assert_int_equal(fixture_wait_fatal(f), TEKD_ETAMPER);
    assert_true(fixture_logged("event=tamper", "check=checkpoint-key"));
    fixture_close(f);
    store_signer_free(other);
}

/* ---- the second key -------------------------------------------------------------------------- */

static void set_second(struct fixture *f, bool on)
{
    store_signer_second(f->signer, on);
    f->o.signer = store_signer_of(f->signer);
}

static size_t lines_of_the_newest(struct fixture *f)
{
    struct store_status st;

    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    /* The status is told at the end of a turn: that of the signature is over when a second begins.
     */
    fixture_turn(f);
    fixture_turn(f);
    store_status_get(f->store, &st);
    return st.n_signers;
}

static void signer__second_key_comes_and_goes(void **state)
{
    struct fixture *f = *state;
    struct hsm_spki spki = {0};
    struct store_status st;
    uint8_t id[4];

    f->o.anchor_file = f->anchor;
    fixture_open(f);
    assert_int_equal(lines_of_the_newest(f), 1);
    assert_int_equal(store_public_key(f->store, STORE_KEY_ED25519, &spki), TEKD_ENOTFOUND);
    fixture_close(f);
    for (int i = 0; i < 2; i++) {
        set_second(f, true);
        store_signer_restart(f->signer);
        fixture_open(f);
        assert_int_equal(lines_of_the_newest(f), 2);
        store_status_get(f->store, &st);
        assert_int_equal(note_key_id("bsm.example/tekd/audit/1",
                                     store_signer_key(f->signer, STORE_KEY_ED25519), id),
                         0);
        assert_memory_equal(st.signer[1], id, sizeof(id));
        fixture_close(f);
        set_second(f, false);
        store_signer_restart(f->signer);
        fixture_open(f);
        assert_int_equal(lines_of_the_newest(f), 1);
        /* What was signed by it is still exported with its key. */
        assert_int_equal(store_public_key(f->store, STORE_KEY_ED25519, &spki), 0);
        fixture_close(f);
    }
    assert_int_equal(store_signer_contradictions(f->signer), 0);
}

static void check_damage(struct fixture *f, enum store_signer_damage damage)
{
    struct probe key;

    set_second(f, true);
    fixture_open(f);
    assert_int_equal(lines_of_the_newest(f), 2);
    store_signer_damage(f->signer, damage);
    probe_init(&key, STORE_SIGNED, NULL, 1);
    probe_submit(f, &key);
    pass_back_off(f);
    assert_int_equal(probe_wait(&key), 0); /* the second try was sound */
    assert_true(fixture_logged("event=checkpoint-refused", "does not verify"));
    fixture_check_log(f, NULL);
}

static void signer__a_wrong_second_line_is_not_committed(void **state)
{
    check_damage(*state, DAMAGE_SECOND);
}

static void signer__a_missing_second_line_is_not_committed(void **state)
{
    check_damage(*state, DAMAGE_SECOND_MISSING);
}

static void signer__a_doubled_second_line_is_not_committed(void **state)
{
    check_damage(*state, DAMAGE_SECOND_TWICE);
}

static void signer__exchanged_key_ids_are_not_committed(void **state)
{
    check_damage(*state, DAMAGE_IDS_SWAPPED);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void tick__writes_heartbeats_and_signs_them(void **state)
{
    struct fixture *f = *state;
    struct log_check log;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    for (int i = 0; i < 3; i++) {
        fake_clock_advance(INT64_C(300) * 1000000);
        fixture_turn(f);
        wait_signed(f);
    }
    log = fixture_check_log(f, "log.heartbeat");
    assert_int_equal(log.count, 3);
    assert_int_equal(log.signed_size, log.leaves);
}

static void tick__records_a_step_of_the_clock(void **state)
{
    struct fixture *f = *state;
    struct log_check log;

    fixture_open(f);
    fake_clock_advance(1500000);
    fixture_turn(f);
    assert_int_equal(fixture_check_log(f, "clock.step").count, 0);
    fake_clock_set_utc(clock_utc_us() - 3600 * INT64_C(1000000));
    fake_clock_advance(1500000);
    fixture_turn(f);
    log = fixture_check_log(f, "clock.step");
    assert_int_equal(log.count, 1);
    assert_true(fixture_logged("event=clock-step", "delta_us=-3600000000"));
    fake_clock_set_utc(clock_utc_us() + 3600 * INT64_C(1000000));
    fake_clock_advance(1500000);
    fixture_turn(f);
    assert_int_equal(fixture_check_log(f, "clock.step").count, 2);
}

/* The clock is set in the last second: log.stopped has its time all the same. */
static void store_close__records_a_step_of_the_clock_first(void **state)
{
    struct fixture *f = *state;
    struct log_check step;

    fixture_open(f);
    fixture_wait_signed(f);
    fake_clock_set_utc(clock_utc_us() - 3600 * INT64_C(1000000));
    fixture_close(f);
    fixture_open(f);
    step = fixture_check_log(f, "clock.step");
    assert_int_equal(step.count, 1);
    assert_int_equal(fixture_check_log(f, "log.stopped").seq, step.seq + 1);
}

static void tick__signs_what_nobody_waits_for_after_the_delay(void **state)
{
    struct fixture *f = *state;
    unsigned entered;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    entered = store_signer_entered(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 1), 0);
    fake_clock_advance(500000);
    fixture_turn(f);
    assert_int_equal(store_signer_entered(f->signer), entered);
    fake_clock_advance(600000);
    fixture_turn(f);
    store_signer_wait_entered(f->signer, entered + 1);
}

static void wait_anchor(struct fixture *f, uint64_t size)
{
    struct store_status st;

    do
        store_status_get(f->store, &st);
    while (st.anchor_size != size && !st.anchor_failing);
}

static void tick__writes_the_anchor_at_its_interval(void **state)
{
    struct fixture *f = *state;
    struct store_status st;

    f->o.anchor_file = f->anchor;
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    fake_clock_advance(INT64_C(61) * 1000000);
    fixture_turn(f);
    wait_anchor(f, 3);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    fixture_turn(f);
    store_status_get(f->store, &st);
    assert_int_equal(st.anchor_size, 3); /* not before its time */
    fake_clock_advance(INT64_C(61) * 1000000);
    fixture_turn(f);
    wait_anchor(f, 4);
    fixture_close(f);
    assert_int_equal(access(f->anchor, R_OK), 0);
}

static void store_status_get__says_how_far_the_anchor_is(void **state)
{
    struct fixture *f = *state;
    struct store_status st;
    int64_t written_us;

    f->o.anchor_file = f->anchor;
    fixture_open(f);
    store_status_get(f->store, &st);
    assert_string_equal(st.anchor_file, f->anchor);
    assert_int_equal(st.anchor_size, 0);
    assert_int_equal(st.anchor_utc_us, 0);
    assert_int_equal(st.anchor_beyond, 2); /* log.opened, log.started */
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    fake_clock_advance(INT64_C(61) * 1000000);
    written_us = clock_utc_us();
    fixture_turn(f);
    wait_anchor(f, 3);
    fake_clock_advance(500000);
    assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 5), 0);
    fixture_turn(f);
    store_status_get(f->store, &st);
    assert_int_equal(st.anchor_size, 3);
    assert_int_equal(st.anchor_utc_us, written_us);
    assert_int_equal(st.anchor_beyond, 5);
    assert_false(st.anchor_failing);
}

static void store_status_get__has_the_anchor_of_the_run_before(void **state)
{
    struct fixture *f = *state;
    struct store_status st;
    struct stat file;

    f->o.anchor_file = f->anchor;
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    fixture_close(f);
    assert_int_equal(stat(f->anchor, &file), 0);
    fixture_open(f);
    store_status_get(f->store, &st);
    assert_int_equal(st.anchor_size, 4); /* with log.stopped */
    assert_int_equal(st.anchor_utc_us,
                     (int64_t)file.st_mtim.tv_sec * 1000000 + file.st_mtim.tv_nsec / 1000);
    assert_int_equal(st.anchor_beyond, 1);
    fixture_close(f);
    f->o.anchor_file = NULL;
    fixture_open(f);
    store_status_get(f->store, &st);
    assert_null(st.anchor_file);
    assert_false(st.anchor_failing);
}

static void tick__a_failing_anchor_alarms_only(void **state)
{
    struct fixture *f = *state;
    struct store_status st;
    char folder[140], path[160];

    (void)snprintf(folder, sizeof(folder), "%s/none", f->dir);
    (void)snprintf(path, sizeof(path), "%s/anchor", folder);
    f->o.anchor_file = path;
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    fake_clock_advance(INT64_C(61) * 1000000);
    fixture_turn(f);
    wait_anchor(f, UINT64_MAX);
    store_status_get(f->store, &st);
    assert_true(st.anchor_failing);
    assert_string_equal(st.anchor_file, path);
    assert_int_equal(st.anchor_size, 0);
    assert_int_equal(st.anchor_utc_us, 0);
    assert_int_equal(st.anchor_beyond, st.records);
    assert_true(fixture_logged("event=anchor-failed", "ENOENT"));
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    /* It is tried again. */
    assert_int_equal(mkdir(folder, 0700), 0);
    fake_clock_advance(INT64_C(61) * 1000000);
    fixture_turn(f);
    do
        store_status_get(f->store, &st);
    while (st.anchor_failing);
    assert_int_equal(st.anchor_size, 4);
    fixture_close(f);
}

/* ---- in the background ----------------------------------------------------------------------- */

#define MANY 108000 /* more than the start hashes before serving */

static void idle__finds_an_edit_in_the_old_log(void **state)
{
    struct fixture *f = *state;
    struct store_status st;
    struct stat file;

    fixture_open(f);
    for (int i = 0; i < MANY / STORE_RECORDS_MAX; i += 4) {
        struct probe p[4];

        for (size_t n = 0; n < ARRAY_SIZE(p); n++) {
            probe_init(&p[n], STORE_DURABLE, NULL, STORE_RECORDS_MAX);
            probe_submit(f, &p[n]);
        }
        for (size_t n = 0; n < ARRAY_SIZE(p); n++)
            assert_int_equal(probe_wait(&p[n]), 0);
        if (i % 100 == 0)
            assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    }
    /* SQLite's log was copied back on the way, not only at the end. */
    assert_int_equal(stat(f->path, &file), 0);
    assert_true(file.st_size > 4L * 1024 * 1024);
    fixture_close(f);
    fixture_open(f); /* sound: everything is hashed in the end */
    do {
        fake_clock_advance(300000);
        store_status_get(f->store, &st);
        fixture_turn(f);
    } while (!fixture_logged("event=log-rehashed", "records="));
    assert_true(st.records > 105000);
    fixture_close(f);
    fixture_sql(f, "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'test', 'tset')"
                   " AS BLOB) WHERE seq = 1000");
    fixture_open(f);
    assert_int_equal(fixture_wait_fatal(f), TEKD_ETAMPER);
    assert_true(fixture_logged("event=tamper", "check=root"));
}

struct sent {
    const char *id;
    int64_t time_us;
};

static int put_message(void *arg, struct store_tx *tx)
{
    const struct sent *sent = arg;
    struct store_message m = {.bsa = 7, .epoch = 1, .time_us = sent->time_us};

    (void)snprintf(m.id, sizeof(m.id), "%s", sent->id);
    return store_tx_message_insert(tx, &m);
}

static int find_message(void *arg, struct store_tx *tx)
{
    struct store_message m;

    return store_tx_message_find(tx, 7, arg, strlen(arg), &m);
}

static int get_counts(void *arg, struct store_tx *tx)
{
    return store_tx_counts(tx, arg);
}

static void idle__forgets_messages_beyond_their_window(void **state)
{
    struct fixture *f = *state;
    struct store_counts counts;
    struct sent old = {"old", clock_utc_us()};
    struct sent young = {"young", clock_utc_us() + INT64_C(86400) * 1000000};

    f->o.message_window_us = INT64_C(7200) * 1000000;
    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_message, &old), 0);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_message, &young), 0);
    fixture_turn(f);
    assert_int_equal(store_call(f->store, STORE_READ, find_message, "old"), 0);
    fake_clock_advance(INT64_C(7300) * 1000000);
    while (store_call(f->store, STORE_READ, find_message, "old") == 0)
        fake_clock_advance(300000); /* while somebody always asks it has its turn by the clock */
    assert_int_equal(store_call(f->store, STORE_READ, find_message, "young"), 0);
    assert_int_equal(store_call(f->store, STORE_READ, get_counts, &counts), 0);
    assert_int_equal(counts.messages, 1);
    fixture_close(f);
    fixture_open(f); /* counted anew */
    do {
        fake_clock_advance(300000);
        assert_int_equal(store_call(f->store, STORE_READ, get_counts, &counts), 0);
    } while (counts.messages == 0);
    assert_int_equal(counts.messages, 1);
}

static int put_many_messages(void *arg, struct store_tx *tx)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < *(unsigned *)arg; i++) {
        char id[16];

        (void)snprintf(id, sizeof(id), "m-%u", i);
        r = put_message(&(struct sent){id, clock_utc_us()}, tx);
    }
    return r;
}

/* A round of the sweep, whose pieces have their turn by the clock, is behind us. */
static void sweep(struct fixture *f)
{
    for (unsigned i = 0; i < 10; i++) {
        fake_clock_advance(300000);
        fixture_turn(f);
    }
}

static uint64_t messages(struct fixture *f)
{
    struct store_counts counts;

    assert_int_equal(store_call(f->store, STORE_READ, get_counts, &counts), 0);
    return counts.messages;
}

enum { TEKS = 1500, KEKS = 3 }; /* exports of more than one piece */

static int put_exports(void *arg, struct store_tx *tx)
{
    const struct hsm_blob data = {.len = 24};
    int r = 0;

    (void)arg;
    for (int kek = 1; kek <= KEKS && r == 0; kek++) {
        struct store_kek k = {.bsa = kek, .version = 1};

        (void)snprintf(k.name, sizeof(k.name), "bsa-%d/1", kek);
        k.kek.fingerprint[0] = (uint8_t)kek;
        r = store_tx_kek_insert(tx, &k);
        for (int tek = 1; tek <= TEKS && r == 0; tek++)
            r = store_tx_export_insert(tx, tek, kek, &data, &(bool){false});
    }
    return r;
}

struct exports {
    int64_t kek;
    unsigned n;
};

static int count_exports(void *arg, struct store_tx *tx)
{
    struct exports *e = arg;
    struct hsm_blob data;

    e->n = 0;
    for (int tek = 1; tek <= TEKS; tek++)
        e->n += store_tx_export_find(tx, tek, e->kek, &data) == 0;
    return 0;
}

static unsigned exports_of(struct fixture *f, int64_t kek)
{
    struct exports e = {.kek = kek};

    assert_int_equal(store_call(f->store, STORE_READ, count_exports, &e), 0);
    return e.n;
}

static int retire(void *arg, struct store_tx *tx)
{
    return store_tx_kek_retire(tx, *(const int64_t *)arg);
}

static void wait_purged(struct fixture *f, int64_t kek)
{
    while (exports_of(f, kek) > 0)
        fake_clock_advance(300000);
}

static void idle__removes_the_exports_of_retired_keks(void **state)
{
    struct fixture *f = *state;
    int64_t first = 1, third = 3;

    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_exports, NULL), 0);
    assert_int_equal(store_call(f->store, STORE_DURABLE, retire, &third), 0);
    wait_purged(f, 3);
    assert_int_equal(exports_of(f, 1), TEKS);
    assert_int_equal(store_call(f->store, STORE_DURABLE, retire, &first), 0);
    wait_purged(f, 1);
    assert_int_equal(exports_of(f, 2), TEKS);
}

static void retire_and_leave(struct fixture *f)
{
    int64_t second = 2;

    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_exports, NULL), 0);
    assert_int_equal(store_call(f->store, STORE_DURABLE, retire, &second), 0);
}

/* The end comes before the last piece: the next start goes on. */
static void idle__goes_on_removing_after_a_start(void **state)
{
    struct fixture *f = *state;

    fixture_crash(f, retire_and_leave);
    fixture_open(f);
    wait_purged(f, 2);
    assert_int_equal(exports_of(f, 1) + exports_of(f, 3), 2 * TEKS);
    fixture_close(f);
    /* It was done to its end, and is not done again. */
    fixture_sql(f, "UPDATE kek SET retired = 1 WHERE row = 1");
    fixture_open(f);
    for (int i = 0; i < 20; i++) {
        fake_clock_advance(300000);
        fixture_turn(f);
    }
    assert_int_equal(exports_of(f, 1), TEKS);
}

/* ---- ended deliveries ------------------------------------------------------------------------ */

#define OLD_MANY 600 /* more than one piece of the sweep */

/* Times are seconds from now_us. */
struct made {
    enum store_delivery_state state;
    int created_s, deadline_s;
};

static const struct made made[] = {
    {STORE_DELIVERY_CONFIRMED, 0, 10},        {STORE_DELIVERY_UNCONFIRMED, 0, 10},
    {STORE_DELIVERY_ABANDONED, 0, 10},        {STORE_DELIVERY_PREPARED, 0, 10}, /* 3: open */
    {STORE_DELIVERY_CONFIRMED, 0, 3600},                                        /* 4: lately */
    {STORE_DELIVERY_CONFIRMED, 86400, 90000}, /* 5: the clock was wrong */
    {STORE_DELIVERY_UNCONFIRMED, 0, 10},      {STORE_DELIVERY_CONFIRMED, 7000, 7010},
};

struct making {
    int64_t now_us;
    unsigned n; /* of the next one */
};

static int put_one(struct store_tx *tx, struct making *m, const struct made *one)
{
    struct store_delivery d = {.bsa = 1,
                               .state = one->state,
                               .confirmed_seq = UINT32_MAX, /* no checkpoint takes its message */
                               .created_us = m->now_us + one->created_s * INT64_C(1000000),
                               .deadline_us = m->now_us + one->deadline_s * INT64_C(1000000)};

    (void)snprintf(d.mid, sizeof(d.mid), "01900000-0000-7000-8000-%012u", m->n++);
    return store_tx_delivery_insert(tx, &d, "octets", 6);
}

static int put_deliveries(void *arg, struct store_tx *tx)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < OLD_MANY; i++)
        r = put_one(tx, arg, &made[0]);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(made); i++)
        r = put_one(tx, arg, &made[i]);
    return r;
}

static int delivery_counts(void *arg, struct store_tx *tx)
{
    return store_tx_delivery_counts(tx, arg);
}

/* Which of made[] are there, and which of their messages: bits. */
struct left {
    unsigned rows, messages;
};

static int look_for_deliveries(void *arg, struct store_tx *tx)
{
    struct left *left = arg;

    for (unsigned i = 0; i < ARRAY_SIZE(made); i++) {
        AUTO(buf) struct buf *b = NULL;
        struct store_delivery d;

        assert_int_equal(buf_new(STORE_DELIVERY_MAX, &b), 0);
        left->rows |= (unsigned)(store_tx_delivery_get(tx, OLD_MANY + 1 + i, &d) == 0) << i;
        left->messages |= (unsigned)(store_tx_delivery_message(tx, OLD_MANY + 1 + i, b) == 0) << i;
    }
    return 0;
}

static void idle__forgets_deliveries_that_ended_beyond_the_window(void **state)
{
    struct fixture *f = *state;
    struct making m = {.now_us = clock_utc_us()};
    uint64_t count[STORE_DELIVERY_STATES];
    struct left left = {.rows = 0};

    f->o.message_window_us = INT64_C(7200) * 1000000;
    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_deliveries, &m), 0);
    fixture_turn(f);
    assert_int_equal(store_call(f->store, STORE_READ, delivery_counts, count), 0);
    assert_int_equal(count[STORE_DELIVERY_CONFIRMED], OLD_MANY + 4);
    fake_clock_advance(INT64_C(7300) * 1000000);
    do {
        fake_clock_advance(300000); /* the next piece is due */
        assert_int_equal(store_call(f->store, STORE_READ, delivery_counts, count), 0);
    } while (count[STORE_DELIVERY_UNCONFIRMED] > 0);
    assert_int_equal(count[STORE_DELIVERY_CONFIRMED], 3);
    assert_int_equal(count[STORE_DELIVERY_ABANDONED], 0);
    assert_int_equal(count[STORE_DELIVERY_PREPARED], 1);
    assert_int_equal(store_call(f->store, STORE_READ, look_for_deliveries, &left), 0);
    assert_int_equal(left.rows, 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7);
    assert_int_equal(left.messages, left.rows);
}

static uint64_t confirmed(struct fixture *f)
{
    uint64_t count[STORE_DELIVERY_STATES];

    assert_int_equal(store_call(f->store, STORE_READ, delivery_counts, count), 0);
    return count[STORE_DELIVERY_CONFIRMED];
}

/* It boots a month ahead, and is corrected; later it is set ahead once more. */
static void idle__forgets_nothing_before_the_clock_is_settled(void **state)
{
    const int64_t month_us = 30 * INT64_C(86400) * 1000000, hour_us = 3600 * INT64_C(1000000);
    struct fixture *f = *state;
    struct making m = {.now_us = clock_utc_us()};
    unsigned n = OLD_MANY;

    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_many_messages, &n), 0);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_deliveries, &m), 0);
    fixture_close(f);
    fake_clock_set_utc(clock_utc_us() + month_us);
    fixture_open(f);
    sweep(f); /* counts them */
    assert_int_equal(messages(f), n);
    assert_int_equal(confirmed(f), OLD_MANY + 4);
    fake_clock_set_utc(clock_utc_us() - month_us);
    fake_clock_advance(hour_us - 10000000);
    fixture_turn(f);
    fake_clock_set_utc(clock_utc_us() + month_us);
    fake_clock_advance(10000000); /* the next round is due */
    sweep(f);
    assert_int_equal(messages(f), n);
    assert_int_equal(confirmed(f), OLD_MANY + 4);
    fake_clock_advance(hour_us); /* it has stayed so */
    while (messages(f) > 0 || confirmed(f) == OLD_MANY + 4)
        fake_clock_advance(300000);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(signer__hanging_refuses_keys_and_nothing_else),
        TEST(signer__down_still_lets_repeats_through),
        TEST(signer__failing_is_tried_again_with_the_same_leaves),
        TEST(signer__back_after_an_outage_signs_in_steps),
        TEST(gather__waits_until_as_many_wait_as_are_expected),
        TEST(gather__is_over_after_twice_the_last_cycle),
        TEST(gather__lets_a_lone_one_and_what_is_durable_go),
        TEST(signer__a_bad_signature_is_not_committed),
        TEST(signer__another_root_latches),
        TEST(signer__not_there_at_the_first_start_is_waited_for),
        TEST(signer__another_key_later_latches),
        TEST(signer__second_key_comes_and_goes),
        TEST(signer__a_wrong_second_line_is_not_committed),
        TEST(signer__a_missing_second_line_is_not_committed),
        TEST(signer__a_doubled_second_line_is_not_committed),
        TEST(signer__exchanged_key_ids_are_not_committed),
        TEST(tick__writes_heartbeats_and_signs_them),
        TEST(tick__records_a_step_of_the_clock),
        TEST(store_close__records_a_step_of_the_clock_first),
        TEST(tick__signs_what_nobody_waits_for_after_the_delay),
        TEST(tick__writes_the_anchor_at_its_interval),
        TEST(store_status_get__says_how_far_the_anchor_is),
        TEST(store_status_get__has_the_anchor_of_the_run_before),
        TEST(tick__a_failing_anchor_alarms_only),
        TEST(idle__finds_an_edit_in_the_old_log),
        TEST(idle__forgets_messages_beyond_their_window),
        TEST(idle__removes_the_exports_of_retired_keks),
        TEST(idle__goes_on_removing_after_a_start),
        TEST(idle__forgets_deliveries_that_ended_beyond_the_window),
        TEST(idle__forgets_nothing_before_the_clock_is_settled),
    };

    return cmocka_run_group_tests_name("store_signer", tests, NULL, NULL);
}
