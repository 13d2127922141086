#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_old.h"

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

void old_log_convert(struct fixture *f)
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

void old_log_rows(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_rows, NULL), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:signed", 2), 0);
}

void old_log_make(struct fixture *f)
{
    old_log_rows(f);
    fixture_close(f);
    old_log_convert(f);
}

int old_log_number(struct fixture *f, const char *sql)
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

int old_log_schema(struct fixture *f)
{
    return old_log_number(
        f, "SELECT CAST(CAST(value AS TEXT) AS INTEGER) FROM meta WHERE name = 'schema'");
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

void old_log_serves(struct fixture *f)
{
    (void)fixture_check_log(f, NULL);
    assert_true(fixture_has(f, "urn:x:signed"));
    assert_int_equal(store_call(f->store, STORE_READ, look, NULL), 0);
    assert_int_equal(store_call(f->store, STORE_DURABLE, deliver, NULL), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:later", 1), 0);
    (void)fixture_check_log(f, NULL);
}
