/* A database of the schema before this one is brought up to it, and only one that may be served. */
#include <stdio.h>

#include "store_old.h"

/* Whether the tables are those of a new database, word for word. */
static void same_tables(struct fixture *f)
{
    char path[140], sql[700];
    const char *own = f->path;

    (void)snprintf(path, sizeof(path), "%s.new", f->path);
    f->o.path = path;
    assert_int_equal(fixture_try_open(f), 0);
    f->o.path = own;
    (void)snprintf(
        sql, sizeof(sql),
        "ATTACH '%s' AS o; CREATE TABLE temp.differs AS SELECT * FROM"
        " (SELECT type, name, tbl_name, sql FROM main.sqlite_schema EXCEPT"
        "  SELECT type, name, tbl_name, sql FROM o.sqlite_schema) UNION ALL SELECT * FROM"
        " (SELECT type, name, tbl_name, sql FROM o.sqlite_schema EXCEPT"
        "  SELECT type, name, tbl_name, sql FROM main.sqlite_schema);"
        " CREATE TEMP TABLE none (n INTEGER CHECK (n = 0));"
        " INSERT INTO none SELECT count(*) FROM differs",
        path);
    fixture_sql(f, sql);
}

static void store_open__upgrades_an_older_schema(void **state)
{
    struct fixture *f = *state;

    old_log_make(f);
    assert_int_equal(old_log_schema(f), 1);
    fixture_open(f);
    assert_true(fixture_logged("event=tables-upgraded", "from=1 to=2"));
    old_log_serves(f);
    assert_int_equal(fixture_check_log(f, "log.recovered").count, 0);
    fixture_close(f);
    assert_int_equal(old_log_schema(f), 2);
    same_tables(f);
    assert_int_equal(fixture_try_open(f), 0); /* and from then on it is as any other */
}

static void leave_tail(struct fixture *f)
{
    old_log_rows(f);
    store_signer_hold(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:unsigned", 3), 0);
}

static void store_open__upgrades_what_a_crash_left(void **state)
{
    struct fixture *f = *state;
    uint64_t from = 0, to = 0;
    struct log_check log;

    fixture_crash(f, leave_tail);
    fixture_sql(f, "PRAGMA journal_mode = DELETE"); /* no WAL is left behind */
    old_log_convert(f);
    fixture_open(f);
    log = fixture_check_log(f, "log.recovered");
    assert_int_equal(log.count, 1);
    store_unattested(f->store, &from, &to);
    assert_int_equal(from, log.from);
    assert_int_equal(to, log.to + 1);
    assert_int_equal(to - from, 3);
    assert_true(fixture_has(f, "urn:x:unsigned"));
    old_log_serves(f);
}

/* ---- what must not be touched ---------------------------------------------------------------- */

static void store_open__refuses_a_schema_it_does_not_know(void **state)
{
    static const char *const schemas[] = {"3", "0", "-1", "999999999999"};
    struct fixture *f = *state;

    old_log_make(f);
    for (size_t i = 0; i < ARRAY_SIZE(schemas); i++) {
        char sql[100], found[40];

        (void)snprintf(sql, sizeof(sql),
                       "UPDATE meta SET value = CAST('%s' AS BLOB) WHERE name = 'schema'",
                       schemas[i]);
        (void)snprintf(found, sizeof(found), "found=%s", schemas[i]);
        fixture_sql(f, sql);
        assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
        assert_true(fixture_logged("what=schema", found));
        assert_int_equal(
            old_log_number(f, "SELECT count(*) FROM sqlite_schema WHERE name = 'delivery'"), 0);
    }
}

static void store_open__upgrades_only_what_it_may_serve(void **state)
{
    struct fixture *f = *state;

    old_log_make(f);
    f->o.bsm_id = "other.example";
    assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
    f->o.bsm_id = "bsm.example";
    assert_int_equal(old_log_schema(f), 1);
    fixture_sql(f, "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'signed', 'sIgned')"
                   " AS BLOB)");
    assert_int_equal(fixture_try_open(f), TEKD_ETAMPER);
    assert_int_equal(old_log_schema(f), 1);
    assert_int_equal(
        old_log_number(f, "SELECT count(*) FROM sqlite_schema WHERE name = 'delivery'"), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_open__upgrades_an_older_schema),
        TEST(store_open__upgrades_what_a_crash_left),
        TEST(store_open__refuses_a_schema_it_does_not_know),
        TEST(store_open__upgrades_only_what_it_may_serve),
    };

    return cmocka_run_group_tests_name("store_upgrade", tests, NULL, NULL);
}
