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
    assert_int_equal(store_public_key(f->store, &spki), TEKD_ENOTFOUND);
    probe_init(&key, STORE_SIGNED, "urn:x:2", 1);
    probe_submit(f, &key);
    fixture_turn(f);
    assert_false(probe_done(&key));
    while (!fixture_logged("event=checkpoint-failed", "error="))
        ;
    store_signer_hide_key(f->signer, 0);
    pass_back_off(f);
    assert_int_equal(probe_wait(&key), 0);
    assert_int_equal(store_public_key(f->store, &spki), 0);
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
    struct store_message m = {.bsa = 7, .time_us = sent->time_us};

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
        ;
    assert_int_equal(store_call(f->store, STORE_READ, find_message, "young"), 0);
    assert_int_equal(store_call(f->store, STORE_READ, get_counts, &counts), 0);
    assert_int_equal(counts.messages, 1);
    fixture_close(f);
    fixture_open(f); /* counted anew */
    do {
        assert_int_equal(store_call(f->store, STORE_READ, get_counts, &counts), 0);
    } while (counts.messages == 0);
    assert_int_equal(counts.messages, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(signer__hanging_refuses_keys_and_nothing_else),
        TEST(signer__down_still_lets_repeats_through),
        TEST(signer__failing_is_tried_again_with_the_same_leaves),
        TEST(signer__back_after_an_outage_signs_in_steps),
        TEST(signer__a_bad_signature_is_not_committed),
        TEST(signer__another_root_latches),
        TEST(signer__not_there_at_the_first_start_is_waited_for),
        TEST(signer__another_key_later_latches),
        TEST(tick__writes_heartbeats_and_signs_them),
        TEST(tick__records_a_step_of_the_clock),
        TEST(tick__signs_what_nobody_waits_for_after_the_delay),
        TEST(tick__writes_the_anchor_at_its_interval),
        TEST(store_status_get__says_how_far_the_anchor_is),
        TEST(store_status_get__has_the_anchor_of_the_run_before),
        TEST(tick__a_failing_anchor_alarms_only),
        TEST(idle__finds_an_edit_in_the_old_log),
        TEST(idle__forgets_messages_beyond_their_window),
    };

    return cmocka_run_group_tests_name("store_signer", tests, NULL, NULL);
}
