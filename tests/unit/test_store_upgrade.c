/* A database of the schema before this one is brought up to it, all of it or not at all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_fixture.h"
#include "store_vfs.h"

/* ---- an old database ------------------------------------------------------------------------- */

static int put_kek(struct store_tx *tx, int64_t bsa, const char *name, uint8_t fingerprint)
{
    struct store_kek k = {.bsa = bsa, .version = 1};

    (void)snprintf(k.name, sizeof(k.name), "%s", name);
    memset(k.kek.fingerprint, fingerprint, sizeof(k.kek.fingerprint));
    return store_tx_kek_insert(tx, &k);
}

static int put_tek(struct store_tx *tx, int64_t content, uint32_t version, uint8_t id)
{
    struct store_tek t = {.content = content, .version = version, .bits = 128, .stored.len = 24};

    memset(t.key_id, id, sizeof(t.key_id));
    return store_tx_tek_insert(tx, &t);
}

/* BSA 7 got TEK 1 and 2 of content 1, BSA 8 TEK 2, and TEK 3 of content 2. */
static int put_rows(void *arg, struct store_tx *tx)
{
    static const int64_t exports[][2] = {{1, 2}, {2, 2}, {2, 3}, {3, 3}};
    struct store_content c[2] = {{.id = "urn:x:plain", .bits = 128},
                                 {.id = "urn:x:periodic", .bits = 128, .period_s = 3600}};
    struct store_message m = {.bsa = 7, .id = "m-1", .epoch = 1, .time_us = store_tx_utc_us(tx)};
    struct hsm_blob data = {.len = 24};

    (void)arg;
    assert_int_equal(store_tx_content_insert(tx, &c[0]), 0);
    assert_int_equal(store_tx_content_insert(tx, &c[1]), 0);
    assert_int_equal(put_kek(tx, 0, "storage/1", 1), 0);
    assert_int_equal(put_kek(tx, 7, "bsa-7/1", 2), 0);
    assert_int_equal(put_kek(tx, 8, "bsa-8/1", 3), 0);
    assert_int_equal(put_tek(tx, 1, 1, 1), 0);
    assert_int_equal(put_tek(tx, 1, 2, 2), 0);
    assert_int_equal(put_tek(tx, 2, 1, 3), 0);
    for (size_t i = 0; i < ARRAY_SIZE(exports); i++)
        assert_int_equal(
            store_tx_export_insert(tx, exports[i][0], exports[i][1], &data, &(bool){false}), 0);
    return store_tx_message_insert(tx, &m);
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = calloc(1, 1 << 16);

    assert_non_null(file);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    assert_int_equal(fclose(file), 0);
    return text;
}

/* Puts the rows of a database of today into the tables of schema 1. */
static void make_old(struct fixture *f)
{
    static const char *const tables[] = {"meta",   "leaf",    "checkpoint", "content",
                                         "tek",    "kek",     "bsa",        "bsa_cert",
                                         "export", "message", "bsa_entitle"};
    AUTO_MEM char *schema = read_text(TEST_DATA_DIR "/store/schema_1.sql");
    char today[140], sql[400];

    (void)snprintf(today, sizeof(today), "%s.today", f->path);
    assert_int_equal(rename(f->path, today), 0);
    fixture_sql(f, schema);
    (void)snprintf(sql, sizeof(sql),
                   "ATTACH '%s' AS today; ALTER TABLE today.kek DROP COLUMN"
                   " added_us",
                   today);
    fixture_sql(f, sql);
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        (void)snprintf(sql, sizeof(sql),
                       "ATTACH '%s' AS today; INSERT INTO %s SELECT * FROM"
                       " today.%s",
                       today, tables[i], tables[i]);
        fixture_sql(f, sql);
    }
    fixture_sql(f, "UPDATE meta SET value = CAST('1' AS BLOB) WHERE name = 'schema'");
}

static void make_rows(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_rows, NULL), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:signed", 2), 0);
}

static void make_old_log(struct fixture *f)
{
    make_rows(f);
    fixture_close(f);
    make_old(f);
}

/* The first column of the first row, as a number. */
static int number(struct fixture *f, const char *sql)
{
    sqlite3 *db = fixture_sqlite(f);
    sqlite3_stmt *stmt = NULL;
    int n;

    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    n = sqlite3_column_int(stmt, 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return n;
}

static int schema_of(struct fixture *f)
{
    return number(f, "SELECT CAST(CAST(value AS TEXT) AS INTEGER) FROM meta WHERE name = 'schema'");
}

/* ---- what has to work then ------------------------------------------------------------------- */

struct holders {
    int64_t bsa[4];
    size_t n;
};

static int see_bsa(void *arg, int64_t bsa)
{
    struct holders *h = arg;

    assert_true(h->n < ARRAY_SIZE(h->bsa));
    h->bsa[h->n++] = bsa;
    return 0;
}

static int see_content(void *arg, const struct store_content *c)
{
    *(int64_t *)arg += c->row;
    return 0;
}

static int look(void *arg, struct store_tx *tx)
{
    struct holders h = {.n = 0};
    struct store_walk w = {.limit = SIZE_MAX, .arg = &h};
    uint64_t count[STORE_DELIVERY_STATES];
    struct store_message m;
    int64_t rows = 0;

    (void)arg;
    assert_int_equal(store_tx_message_find(tx, 7, "m-1", 3, &m), 0);
    assert_int_equal(store_tx_holders_walk(tx, 1, 9, &w, see_bsa), 0);
    assert_int_equal(h.n, 2);
    assert_int_equal(h.bsa[0], 7);
    assert_int_equal(h.bsa[1], 8);
    h.n = 0;
    assert_int_equal(store_tx_holders_walk(tx, 1, 2, &w, see_bsa), 0);
    assert_int_equal(h.n, 1); /* 8 has only that one */
    assert_int_equal(h.bsa[0], 7);
    w.arg = &rows;
    assert_int_equal(store_tx_content_walk_periodic(tx, &w, see_content), 0);
    assert_int_equal(rows, 2);
    assert_int_equal(store_tx_delivery_counts(tx, count), 0);
    for (size_t i = 0; i < ARRAY_SIZE(count); i++)
        assert_int_equal(count[i], 0);
    return 0;
}

static int deliver(void *arg, struct store_tx *tx)
{
    struct store_fanout f = {.tek = 2, .content = 1};
    struct store_delivery d = {.bsa = 7, .tek = 2, .mid = "01900000-0000-7000-8000-000000000001"};

    (void)arg;
    assert_int_equal(store_tx_fanout_insert(tx, &f), 0);
    assert_int_equal(store_tx_delivery_insert(tx, &d, "octets", 6), 0);
    return 0;
}

static void serves(struct fixture *f)
{
    (void)fixture_check_log(f, NULL);
    assert_true(fixture_has(f, "urn:x:signed"));
    assert_int_equal(store_call(f->store, STORE_READ, look, NULL), 0);
    assert_int_equal(store_call(f->store, STORE_DURABLE, deliver, NULL), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:later", 1), 0);
    (void)fixture_check_log(f, NULL);
}

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

    make_old_log(f);
    assert_int_equal(schema_of(f), 1);
    fixture_open(f);
    assert_true(fixture_logged("event=tables-upgraded", "from=1 to=2"));
    serves(f);
    assert_int_equal(fixture_check_log(f, "log.recovered").count, 0);
    fixture_close(f);
    assert_int_equal(schema_of(f), 2);
    same_tables(f);
    assert_int_equal(fixture_try_open(f), 0); /* and from then on it is as any other */
}

static void leave_tail(struct fixture *f)
{
    make_rows(f);
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
    make_old(f);
    fixture_open(f);
    log = fixture_check_log(f, "log.recovered");
    assert_int_equal(log.count, 1);
    store_unattested(f->store, &from, &to);
    assert_int_equal(from, log.from);
    assert_int_equal(to, log.to + 1);
    assert_int_equal(to - from, 3);
    assert_true(fixture_has(f, "urn:x:unsigned"));
    serves(f);
}

/* ---- what must not be touched ---------------------------------------------------------------- */

static void store_open__refuses_a_schema_it_does_not_know(void **state)
{
    static const char *const schemas[] = {"3", "0", "-1", "999999999999"};
    struct fixture *f = *state;

    make_old_log(f);
    for (size_t i = 0; i < ARRAY_SIZE(schemas); i++) {
        char sql[100], found[40];

        (void)snprintf(sql, sizeof(sql),
                       "UPDATE meta SET value = CAST('%s' AS BLOB) WHERE name = 'schema'",
                       schemas[i]);
        (void)snprintf(found, sizeof(found), "found=%s", schemas[i]);
        fixture_sql(f, sql);
        assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
        assert_true(fixture_logged("what=schema", found));
        assert_int_equal(number(f, "SELECT count(*) FROM sqlite_schema WHERE name = 'delivery'"),
                         0);
    }
}

static void store_open__upgrades_only_what_it_may_serve(void **state)
{
    struct fixture *f = *state;

    make_old_log(f);
    f->o.bsm_id = "other.example";
    assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
    f->o.bsm_id = "bsm.example";
    assert_int_equal(schema_of(f), 1);
    fixture_sql(f, "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'signed', 'sIgned')"
                   " AS BLOB)");
    assert_int_equal(fixture_try_open(f), TEKD_ETAMPER);
    assert_int_equal(schema_of(f), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM sqlite_schema WHERE name = 'delivery'"), 0);
}

/* ---- a disk that fails ----------------------------------------------------------------------- */

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

    make_old_log(f);
    (void)snprintf(kept, sizeof(kept), "%s.kept", f->path);
    fixture_copy(f->path, kept);
    for (k = 1; schema == 1; k++) {
        restore(f, kept);
        store_vfs_arm(fault, k);
        (void)fixture_try_open(f);
        assert_true(store_vfs_disarm());
        schema = schema_of(f);
        store_signer_restart(f->signer);
        fixture_open(f);
        serves(f);
        fixture_close(f);
        assert_int_equal(schema_of(f), 2);
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
        TEST(store_open__upgrades_an_older_schema),
        TEST(store_open__upgrades_what_a_crash_left),
        TEST(store_open__refuses_a_schema_it_does_not_know),
        TEST(store_open__upgrades_only_what_it_may_serve),
        TEST(store_open__upgrades_all_or_nothing),
    };

    store_vfs_register();
    return cmocka_run_group_tests_name("store_upgrade", tests, NULL, NULL);
}
