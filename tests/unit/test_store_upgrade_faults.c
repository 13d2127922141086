/* A database of an older schema on a disk that fails is brought up to date whole or not at all. */
#include <stdio.h>
#include <unistd.h>

#include "store_old.h"
#include "store_vfs.h"

static void restore(struct fixture *f, const char *kept)
{
    char wal[140];

    (void)snprintf(wal, sizeof(wal), "%s-wal", f->path);
    (void)unlink(wal);
    fixture_copy(kept, f->path);
    store_signer_restart(f->signer);
}

/* A fault at every operation of the start in turn, until one comes when all is done. */
static void every_operation(struct fixture *f, enum store_vfs_fault fault)
{
    char kept[140];
    int schema = 1;
    unsigned k;

    old_log_make(f);
    (void)snprintf(kept, sizeof(kept), "%s.kept", f->path);
    fixture_copy(f->path, kept);
    for (k = 1; schema == 1; k++) {
        restore(f, kept);
        store_vfs_arm(fault, k);
        (void)fixture_try_open(f);
        assert_true(store_vfs_disarm());
        schema = old_log_schema(f);
        store_signer_restart(f->signer);
        fixture_open(f);
        old_log_serves(f);
        fixture_close(f);
        assert_int_equal(old_log_schema(f), 2);
    }
    assert_true(k > 5); /* or nothing was tested */
}

static void store_open__upgrades_all_or_nothing(void **state)
{
    static const enum store_vfs_fault faults[] = {VFS_IO_ERROR, VFS_FULL, VFS_POWER_CUT};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        char today[140];

        every_operation(f, faults[i]);
        (void)snprintf(today, sizeof(today), "%s.today", f->path);
        (void)unlink(today);
        (void)unlink(f->path);
        store_signer_restart(f->signer);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_open__upgrades_all_or_nothing),
    };

    store_vfs_register();
    return cmocka_run_group_tests_name("store_upgrade_faults", tests, NULL, NULL);
}
