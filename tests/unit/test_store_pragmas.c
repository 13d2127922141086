/* What SQLite is told at the start is read back: a database that does not do it is not used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_fixture.h"

/* Whoever prepares the one, prepares the other. */
static const char *asked, *becomes;

int __real_sqlite3_prepare_v2(sqlite3 *db, const char *text, int octets, sqlite3_stmt **stmt,
                              const char **tail);
int __wrap_sqlite3_prepare_v2(sqlite3 *db, const char *text, int octets, sqlite3_stmt **stmt,
                              const char **tail);
int __wrap_sqlite3_prepare_v2(sqlite3 *db, const char *text, int octets, sqlite3_stmt **stmt,
                              const char **tail)
{
    bool it_is = asked != NULL && strcmp(text, asked) == 0;

    return __real_sqlite3_prepare_v2(db, it_is ? becomes : text, octets, stmt, tail);
}

/* Those that say something else, and those that say they did it and did not. */
static const struct {
    const char *asked, *becomes;
    const char *refused, *found; /* in the log */
} wrong[] = {
    {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA locking_mode = NORMAL",
     "pragma=\"PRAGMA locking_mode = EXCLUSIVE\"", "expected=exclusive found=normal"},
    {"PRAGMA locking_mode = EXCLUSIVE", "SELECT 'exclusive'", "pragma=\"PRAGMA locking_mode\"",
     "expected=exclusive found=normal"},
    {"PRAGMA journal_mode = WAL", "PRAGMA journal_mode = DELETE",
     "pragma=\"PRAGMA journal_mode = WAL\"", "expected=wal found=delete"},
    {"PRAGMA journal_mode = WAL", "SELECT 'wal'", "pragma=\"PRAGMA journal_mode\"",
     "expected=wal found=delete"},
    {"PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL", "pragma=\"PRAGMA synchronous\"",
     "expected=2 found=1"},
    {"PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF", "pragma=\"PRAGMA synchronous\"",
     "expected=2 found=0"},
    {"PRAGMA wal_autocheckpoint = 0", "PRAGMA wal_autocheckpoint = 1000",
     "pragma=\"PRAGMA wal_autocheckpoint = 0\"", "expected=0 found=1000"},
    {"PRAGMA secure_delete = ON", "PRAGMA secure_delete = OFF",
     "pragma=\"PRAGMA secure_delete = ON\"", "expected=1 found=0"},
};

static void store_open__refuses_a_database_that_does_not_do_as_it_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct fixture *f;
        void *made;
        int r;

        assert_int_equal(fixture_setup(&made), 0);
        f = made;
        asked = wrong[i].asked;
        becomes = wrong[i].becomes;
        r = fixture_try_open(f);
        asked = NULL;
        if (r != TEKD_EIO || !fixture_logged("event=pragma-refused", wrong[i].refused) ||
            !fixture_logged(wrong[i].refused, wrong[i].found))
            fail_msg("%s as %s: %s\n%s", wrong[i].asked, wrong[i].becomes, tekd_errname(r),
                     fixture_log());
        fixture_open(f); /* it does as it is told */
        assert_int_equal(fixture_teardown(&made), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_open__refuses_a_database_that_does_not_do_as_it_is_told),
    };

    return cmocka_run_group_tests_name("store_pragmas", tests, NULL, NULL);
}
