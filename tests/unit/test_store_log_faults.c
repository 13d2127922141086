/*
 * What changes the log as a whole, on a disk that fails: the end of an epoch, and other keys that
 * sign.  Each write and each sync fails once; the next start goes on where the log was.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store_fixture.h"
#include "store_vfs.h"

/* Each in a database of its own, again and again. */
struct change {
    void (*prepare)(struct fixture *f); /* the database before it, and what makes it happen */
    void (*ask)(struct fixture *f);     /* while the store runs; the store may fail meanwhile */
    void (*check)(struct fixture *f);   /* after another start: it has happened */
    const char *content;                /* of an item that waits meanwhile; NULL: of none */
    unsigned least;                     /* operations, or nothing was tested */
};

/* Time passes, or what found no space would wait for ever. */
static void run(struct fixture *f, const struct change *c)
{
    struct probe p;

    if (store_open(&f->o, &f->store) < 0) {
        f->store = NULL;
        return;
    }
    c->ask(f);
    probe_init(&p, STORE_SIGNED, c->content, 1);
    probe_submit(f, &p);
    while (!probe_done(&p)) {
        fake_clock_advance(20000);
        (void)probe_run(f, STORE_READ, NULL, 0);
    }
    fixture_close(f);
}

static void every_operation(struct fixture *f, enum store_vfs_fault fault, const struct change *c)
{
    char copy[160], wal[160];
    bool happened = true;
    unsigned k;

    c->prepare(f);
    (void)snprintf(copy, sizeof(copy), "%s.copy", f->path);
    (void)snprintf(wal, sizeof(wal), "%s-wal", f->path);
    (void)rename(f->path, copy); /* if there is one */
    for (k = 1; happened; k += store_vfs_step()) {
        (void)unlink(wal);
        (void)unlink(f->path);
        if (access(copy, F_OK) == 0)
            fixture_copy(copy, f->path);
        store_signer_restart(f->signer);
        store_vfs_arm(fault, k);
        run(f, c);
        happened = store_vfs_disarm();
        fixture_open(f);
        c->check(f);
        fixture_close(f);
        assert_int_equal(store_signer_contradictions(f->signer), 0);
    }
    assert_true(k > c->least);
    (void)unlink(copy);
}

/* ---- the end of an epoch --------------------------------------------------------------------- */

static void from_nothing(struct fixture *f)
{
    (void)f;
}

static void close_first(struct fixture *f)
{
    (void)probe_run(f, STORE_SIGNED, "urn:x:1", 1);
    store_close_epoch(f->store, 1);
}

static void is_closed(struct fixture *f)
{
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), 0);
    if (fixture_epoch(f) == 1)
        fixture_close_epoch(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:4", 1), 0);
    (void)fixture_check_log(f, NULL);
}

static const struct change end_of_epoch = {from_nothing, close_first, is_closed, "urn:x:2", 20};

static void epoch__is_closed_after_any_io_error(void **state)
{
    every_operation(*state, VFS_IO_ERROR, &end_of_epoch);
}

static void epoch__is_closed_after_any_power_cut(void **state)
{
    every_operation(*state, VFS_POWER_CUT, &end_of_epoch);
}

static void epoch__is_closed_when_there_is_space_again(void **state)
{
    every_operation(*state, VFS_FULL, &end_of_epoch);
}

/* ---- other keys ------------------------------------------------------------------------------ */

static void sign(struct fixture *f)
{
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    fixture_turn(f);
    fixture_turn(f);
}

/* Both kinds. */
static void with_other_keys(struct fixture *f)
{
    store_signer_second(f->signer, true);
    f->o.signer = store_signer_of(f->signer);
    fixture_open(f);
    sign(f);
    fixture_close(f);
    store_signer_replace(f->signer, STORE_KEY_ED25519);
    store_signer_replace(f->signer, STORE_KEY_MAIN);
    f->o.signer = store_signer_of(f->signer);
}

/* The start does it. */
static void nothing_more(struct fixture *f)
{
    (void)f;
}

static void are_replaced(struct fixture *f)
{
    sign(f);
    assert_true(fixture_key_is_taken(f, STORE_KEY_MAIN));
    assert_true(fixture_key_is_taken(f, STORE_KEY_ED25519));
    assert_int_equal(fixture_retired(f), 2);
    assert_true(fixture_check_log(f, "log.signkey").count >= 2);
}

static const struct change other_keys = {with_other_keys, nothing_more, are_replaced, NULL, 10};

static void signkey__is_completed_after_any_io_error(void **state)
{
    every_operation(*state, VFS_IO_ERROR, &other_keys);
}

static void signkey__is_completed_after_any_power_cut(void **state)
{
    every_operation(*state, VFS_POWER_CUT, &other_keys);
}

static void signkey__is_completed_when_there_is_space_again(void **state)
{
    every_operation(*state, VFS_FULL, &other_keys);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(epoch__is_closed_after_any_io_error),
        TEST(epoch__is_closed_after_any_power_cut),
        TEST(epoch__is_closed_when_there_is_space_again),
        TEST(signkey__is_completed_after_any_io_error),
        TEST(signkey__is_completed_after_any_power_cut),
        TEST(signkey__is_completed_when_there_is_space_again),
    };

    store_vfs_register();
    return cmocka_run_group_tests_name("store_log_faults", tests, NULL, NULL);
}
