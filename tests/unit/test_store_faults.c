/* A disk that fails at every possible moment: what was released is there, what is not is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_fixture.h"
#include "store_vfs.h"

#define BURST 12

/* Items of a scripted run, with their names. */
struct script {
    struct probe p[3 + BURST];
    char name[3 + BURST][24];
    unsigned released; /* items of STORE_SIGNED and STORE_DURABLE with result 0 */
};

static enum store_wait wait_of(size_t i)
{
    static const enum store_wait waits[] = {STORE_SIGNED, STORE_SIGNED, STORE_DURABLE, STORE_LAZY};

    return waits[i % ARRAY_SIZE(waits)];
}

static void submit(struct fixture *f, struct script *s, size_t i)
{
    /* Every fourth of the burst asks for what the first one has already. */
    (void)snprintf(s->name[i], sizeof(s->name[i]), "urn:x:%zu", i > 3 && i % 4 == 0 ? 0 : i);
    probe_init(&s->p[i], wait_of(i), s->name[i], 1 + (unsigned)i % 3);
    probe_submit(f, &s->p[i]);
}

/* Opens, works, closes; whatever fails on the way. */
static void run_script(struct fixture *f, struct script *s)
{
    *s = (struct script){0};
    if (store_open(&f->o, &f->store) < 0) {
        f->store = NULL;
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(s->p); i++) {
        submit(f, s, i);
        if (i < 3)
            (void)probe_wait(&s->p[i]);
    }
    fixture_close(f);
    for (size_t i = 0; i < ARRAY_SIZE(s->p); i++) {
        assert_true(probe_done(&s->p[i]));
        s->released += s->p[i].result == 0;
    }
}

/* What of the script is in the log, by what its records say. */
struct told {
    const struct script *s;
    bool found[3 + BURST];
};

static int look(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct told *t = arg;

    for (size_t i = 0; i < ARRAY_SIZE(t->found); i++) {
        char detail[48];

        (void)snprintf(detail, sizeof(detail), "\"detail\":\"%s 0\"", t->s->name[i]);
        if (t->s->p[i].applied && t->s->p[i].seq == seq &&
            memmem(octets, len, detail, strlen(detail)) != NULL)
            t->found[i] = true;
    }
    return 0;
}

static int look_all(void *arg, struct store_tx *tx)
{
    struct store_walk w = {.after = -1, .limit = SIZE_MAX, .arg = arg};

    return store_tx_leaf_walk(tx, &w, look);
}

/* On a sound disk again: everything that was released is there, signed if it was to be. */
static void check_released(struct fixture *f, const struct script *s, unsigned k)
{
    struct told told = {.s = s};
    struct log_check log;
    uint64_t signed_before;

    store_signer_restart(f->signer);
    fixture_open(f);
    log = fixture_check_log(f, "log.recovered");
    signed_before = log.count > 0 ? log.from : log.leaves;
    assert_int_equal(store_call(f->store, STORE_READ, look_all, &told), 0);
    for (size_t i = 0; i < ARRAY_SIZE(s->p); i++) {
        if (s->p[i].item.apply == NULL || s->p[i].result != 0)
            continue;
        if (!told.found[i] || !fixture_has(f, s->name[i]))
            fail_msg("operation %u: %s was released and is not there", k, s->name[i]);
        if (s->p[i].item.wait == STORE_SIGNED && s->p[i].seq >= signed_before)
            fail_msg("operation %u: %s was released unsigned", k, s->name[i]);
    }
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:after", 1), 0);
    fixture_close(f);
}

static void start_over(struct fixture *f)
{
    char wal[140];

    (void)snprintf(wal, sizeof(wal), "%s-wal", f->path);
    (void)unlink(f->path);
    (void)unlink(wal);
    store_signer_restart(f->signer);
}

/* The script with a fault at every operation in turn, until the script ends before it comes. */
static void every_operation(struct fixture *f, enum store_vfs_fault fault)
{
    struct script *s = calloc(1, sizeof(*s));
    unsigned hit = 0;
    bool happened = true;

    assert_non_null(s);
    for (unsigned k = 1; happened; k += store_vfs_step()) {
        start_over(f);
        store_vfs_arm(fault, k);
        run_script(f, s);
        happened = store_vfs_disarm();
        hit += happened;
        check_released(f, s, k);
    }
    assert_true(hit * store_vfs_step() > 40); /* or nothing was tested */
    assert_true(s->released > BURST / 2);     /* of the last round, without a fault */
    free(s);
}

static void store__releases_nothing_that_an_io_error_took(void **state)
{
    every_operation(*state, VFS_IO_ERROR);
}

static void store__releases_nothing_that_a_full_disk_took(void **state)
{
    every_operation(*state, VFS_FULL);
}

static void store__releases_nothing_that_a_power_cut_took(void **state)
{
    every_operation(*state, VFS_POWER_CUT);
}

static void store__an_io_error_latches(void **state)
{
    struct fixture *f = *state;
    char reason[HSM_TEXT_MAX];

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_vfs_arm(VFS_IO_ERROR, 1);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), TEKD_EIO);
    assert_int_equal(fixture_wait_fatal(f), TEKD_EIO);
    assert_true(store_vfs_disarm());
    /* The disk is well again, but who knows what is on it. */
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:3", 1), TEKD_EIO);
    assert_int_equal(probe_run(f, STORE_READ, NULL, 0), TEKD_EIO);
    assert_int_equal(store_ready(f->store, reason), TEKD_EIO);
    assert_true(fixture_logged("event=database", "SQLITE_IOERR"));
    assert_true(fixture_logged("event=latched", "TEKD_EIO"));
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), 0);
    assert_int_equal(fixture_check_log(f, "log.recovered").count, 1);
}

static void store__a_full_disk_refuses_keys_until_there_is_space(void **state)
{
    struct fixture *f = *state;
    struct store_status st;
    struct log_check log;
    char reason[HSM_TEXT_MAX];

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_vfs_arm(VFS_FULL, 1);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 2), TEKD_EFULL);
    assert_int_equal(store_ready(f->store, reason), TEKD_EFULL);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), TEKD_EFULL);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:4", 1), TEKD_EFULL);
    assert_true(fixture_has(f, "urn:x:1")); /* reads go on */
    assert_false(fixture_has(f, "urn:x:2"));
    fake_clock_advance(2000000);
    fixture_turn(f); /* a probe that fails */
    assert_int_equal(store_ready(f->store, reason), TEKD_EFULL);
    assert_true(store_vfs_disarm());
    fake_clock_advance(2000000);
    fixture_turn(f); /* and one that does not */
    assert_int_equal(store_ready(f->store, reason), 0);
    assert_int_equal(f->fatal, 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), 0);
    log = fixture_check_log(f, "audit.gap");
    assert_int_equal(log.count, 1);
    assert_int_equal(log.number, 2 + 1 + 1);
    assert_true(fixture_logged("cannot-write", "TEKD_EFULL"));
    assert_true(fixture_logged("writes-again", "store"));
    store_status_get(f->store, &st);
    assert_false(st.full || st.latched);
}

/* The log was closed with log.stopped, this is the record before it, and the next start takes it.
 */
static void assert_ended_with(struct fixture *f, const char *event)
{
    struct log_check before, stopped, started;

    before = fixture_check_log(f, event);
    stopped = fixture_check_log(f, "log.stopped");
    started = fixture_check_log(f, "log.started");
    assert_int_equal(stopped.seq, before.seq + 1);
    assert_int_equal(started.seq, stopped.seq + 1);
    assert_int_equal(fixture_check_log(f, "log.recovered").count, 0);
}

static void store_close__tells_of_a_gap_before_it_ends_the_log(void **state)
{
    struct fixture *f = *state;

    fixture_open(f);
    fixture_wait_signed(f);
    store_vfs_arm(VFS_FULL, 1);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:1", 2), TEKD_EFULL);
    assert_true(store_vfs_disarm());
    fixture_close(f); /* before the store has tried again */
    fixture_open(f);
    assert_ended_with(f, "audit.gap");
    assert_int_equal(fixture_check_log(f, "audit.gap").number, 2);
}

/* More than one batch waits at the end, and the k-th operation finds no space; whether it came. */
static bool close_with_full(struct fixture *f, unsigned k, unsigned *lost)
{
    struct probe lazy[6];
    bool happened;

    start_over(f);
    fixture_open(f);
    fixture_wait_signed(f);
    for (size_t i = 0; i < ARRAY_SIZE(lazy); i++) {
        probe_init(&lazy[i], STORE_LAZY, NULL, STORE_RECORDS_MAX);
        probe_submit(f, &lazy[i]);
    }
    store_vfs_arm(VFS_FULL_ONCE, k);
    fixture_close(f);
    happened = store_vfs_disarm();
    *lost = 0;
    for (size_t i = 0; i < ARRAY_SIZE(lazy); i++)
        *lost += probe_wait(&lazy[i]) != 0;
    return happened;
}

/* Also of the log of the database that is copied back at last, of which SQLite says nothing. */
static void store_close__tells_of_every_io_error(void **state)
{
    struct fixture *f = *state;
    unsigned told = 0, untold = 0;
    bool happened = true;

    for (unsigned k = 1; happened; k++) {
        start_over(f);
        fixture_open(f);
        fixture_wait_signed(f);
        store_vfs_arm(VFS_IO_ERROR, k);
        fixture_close(f);
        happened = store_vfs_disarm();
        assert_true(f->fatal == 0 || (happened && f->fatal == TEKD_EIO));
        told += f->fatal != 0;
        untold += happened && f->fatal == 0;
        fixture_open(f);
        (void)fixture_check_log(f, "log.started");
        fixture_close(f);
    }
    assert_true(told > 3);
    assert_int_equal(untold, 1); /* its file is removed then, and may stay: nothing is lost */
}

static void store_close__writes_nothing_behind_the_end(void **state)
{
    struct fixture *f = *state;
    unsigned told = 0, lost = 0;

    for (unsigned k = 1; close_with_full(f, k, &lost); k++) {
        fixture_open(f);
        if (lost > 0 && fixture_check_log(f, "log.recovered").count == 0) {
            assert_ended_with(f, "audit.gap");
            told++;
        }
        fixture_close(f);
    }
    assert_true(told > 0);
}

static void beat__counts_a_gap_while_nothing_can_be_written(void **state)
{
    struct fixture *f = *state;
    struct log_check gap;
    int64_t late;

    f->o.heartbeat_s = 60;
    fixture_open(f);
    fixture_wait_signed(f);
    store_vfs_arm(VFS_FULL, 1);
    for (unsigned i = 0; i < 3; i++) { /* the first one finds out */
        fake_clock_advance(INT64_C(61) * 1000000);
        fixture_turn(f);
    }
    assert_true(store_vfs_disarm());
    late = clock_utc_us();
    fake_clock_advance(2000000);
    fixture_turn(f);
    gap = fixture_check_log(f, "audit.gap");
    assert_int_equal(gap.count, 1);
    assert_int_equal(gap.number, 3);
    assert_int_equal(fixture_check_log(f, "log.heartbeat").count, 0);
    fake_clock_advance(late + INT64_C(61) * 1000000 - clock_utc_us());
    fixture_turn(f);
    assert_int_equal(fixture_check_log(f, "log.heartbeat").seq, gap.seq + 1);
}

/* A batch that finds no space with a gap of before and a record of the store's own. */
static void batch__tells_of_the_gap_before_the_stores_own_records(void **state)
{
    struct fixture *f = *state;

    fixture_open(f);
    fixture_wait_signed(f);
    store_vfs_arm(VFS_FULL, 1);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:1", 1), TEKD_EFULL);
    fake_clock_set_utc(clock_utc_us() + 5000000);
    fake_clock_advance(2000000);
    fixture_turn(f);
    assert_true(store_vfs_disarm());
    fake_clock_advance(2000000);
    fixture_turn(f);
    assert_int_equal(fixture_check_log(f, "clock.step").seq,
                     fixture_check_log(f, "audit.gap").seq + 1);
}

static int read_all(void *arg, struct store_tx *tx)
{
    struct store_content c;

    (void)arg;
    return store_tx_content_find(tx, "urn:x:1", 7, &c);
}

static void store_open__takes_down_what_it_built(void **state)
{
    struct fixture *f = *state;

    /* Opening fails half-way: everything that was built is taken down again. */
    store_vfs_arm(VFS_IO_ERROR, 2);
    assert_int_equal(fixture_try_open(f), TEKD_EIO);
    (void)store_vfs_disarm();
    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_READ, read_all, NULL), TEKD_ENOTFOUND);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store__releases_nothing_that_an_io_error_took),
        TEST(store__releases_nothing_that_a_full_disk_took),
        TEST(store__releases_nothing_that_a_power_cut_took),
        TEST(store__an_io_error_latches),
        TEST(store__a_full_disk_refuses_keys_until_there_is_space),
        TEST(beat__counts_a_gap_while_nothing_can_be_written),
        TEST(batch__tells_of_the_gap_before_the_stores_own_records),
        TEST(store_close__tells_of_a_gap_before_it_ends_the_log),
        TEST(store_close__tells_of_every_io_error),
        TEST(store_close__writes_nothing_behind_the_end),
        TEST(store_open__takes_down_what_it_built),
    };

    store_vfs_register();
    return cmocka_run_group_tests_name("store_faults", tests, NULL, NULL);
}
