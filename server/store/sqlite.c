/*
 * The SQLite driver: errors, transactions, statements.
 */
#include "sqlite.h"

#include <assert.h>
#include <sys/stat.h>

#include "tekd/err.h"
#include "tekd/log.h"

/* ---- errors ---------------------------------------------------------------------------------- */

static const struct {
    int code;
    int error;
    const char *name;
} codes[] = {
    {SQLITE_FULL, TEKD_EFULL, "SQLITE_FULL"},
    {SQLITE_BUSY, TEKD_EAGAIN, "SQLITE_BUSY"},
    {SQLITE_LOCKED, TEKD_EAGAIN, "SQLITE_LOCKED"},
    {SQLITE_NOMEM, TEKD_ENOMEM, "SQLITE_NOMEM"},
    {SQLITE_IOERR, TEKD_EIO, "SQLITE_IOERR"},
    {SQLITE_CORRUPT, TEKD_EIO, "SQLITE_CORRUPT"},
    {SQLITE_NOTADB, TEKD_EIO, "SQLITE_NOTADB"},
    {SQLITE_CANTOPEN, TEKD_EIO, "SQLITE_CANTOPEN"},
    {SQLITE_READONLY, TEKD_EIO, "SQLITE_READONLY"},
    {SQLITE_PERM, TEKD_EIO, "SQLITE_PERM"},
    {SQLITE_AUTH, TEKD_EIO, "SQLITE_AUTH"},
    {SQLITE_PROTOCOL, TEKD_EIO, "SQLITE_PROTOCOL"},
    {SQLITE_TOOBIG, TEKD_EINTERNAL, "SQLITE_TOOBIG"},
    {SQLITE_CONSTRAINT, TEKD_EINTERNAL, "SQLITE_CONSTRAINT"},
    {SQLITE_MISMATCH, TEKD_EINTERNAL, "SQLITE_MISMATCH"},
    {SQLITE_MISUSE, TEKD_EINTERNAL, "SQLITE_MISUSE"},
    {SQLITE_RANGE, TEKD_EINTERNAL, "SQLITE_RANGE"},
    {SQLITE_ERROR, TEKD_EINTERNAL, "SQLITE_ERROR"},
};

int sqlite_failed(sqlite3 *handle, const char *call, int code)
{
    const char *name = "other";
    int r = TEKD_EINTERNAL;

    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        if (codes[i].code == (code & 0xff)) {
            name = codes[i].name;
            r = codes[i].error;
        }
    }
    log_event(LOG_ERROR, "store", "database", LOG_STR("call", call), LOG_STR("code", name),
              LOG_INT("extended", code),
              LOG_STR("what", handle != NULL ? sqlite3_errmsg(handle) : sqlite3_errstr(code)),
              LOG_INT("errno", handle != NULL ? sqlite3_system_errno(handle) : 0));
    return r;
}

int sqlite_prepare(struct sqlite *d, const char *text, sqlite3_stmt **ret_stmt)
{
    int code = sqlite3_prepare_v3(d->handle, text, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt, NULL);

    return code == SQLITE_OK ? 0 : sqlite_failed(d->handle, text, code);
}

/* ---- transactions ---------------------------------------------------------------------------- */

static int run(struct sqlite *d, sqlite3_stmt *stmt)
{
    int code = sqlite3_step(stmt);
    int r = code == SQLITE_DONE ? 0 : sqlite_failed(d->handle, sqlite3_sql(stmt), code);

    (void)sqlite3_reset(stmt);
    return r;
}

static bool in_tx(struct db *db)
{
    return sqlite3_get_autocommit(sqlite_of(db)->handle) == 0;
}

static int begin(struct db *db)
{
    return run(sqlite_of(db), sqlite_of(db)->begin);
}

static void rollback(struct db *db)
{
    /* After some errors SQLite has done it already, and would complain. */
    if (in_tx(db))
        (void)sqlite3_exec(sqlite_of(db)->handle, "ROLLBACK", NULL, NULL, NULL);
}

/* SQLite keeps no eye on this one, which it has from its first read until it closes. */
static bool wal_has_moved(struct sqlite *d)
{
    struct stat st;

    if (stat(d->wal_path, &st) < 0)
        return true;
    if (d->wal_inode == 0)
        d->wal_inode = st.st_ino;
    return st.st_ino != d->wal_inode;
}

static int gone(const char *path)
{
    log_event(LOG_ERROR, "store", "database-gone", LOG_STR("path", path),
              LOG_STR("what", "the file was deleted or moved, or another one stands in its place"));
    return TEKD_EIO;
}

/* What was committed is in the file that is open still: into the database with it. */
static int save_wal(struct db *db)
{
    struct sqlite *d = sqlite_of(db);
    int code;

    rollback(db);
    code = sqlite3_wal_checkpoint_v2(d->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (code != SQLITE_OK)
        (void)sqlite_failed(d->handle, "sqlite3_wal_checkpoint_v2", code);
    return gone(d->wal_path);
}

/* A file without a name can be written and synced, and is gone with this process. */
static int check_place(struct db *db)
{
    struct sqlite *d = sqlite_of(db);
    int moved = 0;

    (void)sqlite3_file_control(d->handle, NULL, SQLITE_FCNTL_HAS_MOVED, &moved);
    if (moved != 0)
        return gone(d->path);
    return wal_has_moved(d) ? save_wal(db) : 0;
}

static int commit(struct db *db)
{
    int r = check_place(db);

    if (r == 0)
        r = run(sqlite_of(db), sqlite_of(db)->commit);
    if (r < 0)
        rollback(db);
    return r;
}

static int savepoint(struct db *db)
{
    return run(sqlite_of(db), sqlite_of(db)->savepoint);
}

static int savepoint_release(struct db *db)
{
    return run(sqlite_of(db), sqlite_of(db)->release);
}

static int savepoint_rollback(struct db *db)
{
    int r = run(sqlite_of(db), sqlite_of(db)->to_savepoint);

    return r < 0 ? r : savepoint_release(db);
}

/* ---- statements ------------------------------------------------------------------------------ */

static int bind(sqlite3_stmt *stmt, int at, const struct db_value *v)
{
    switch (v->type) {
    case DB_VALUE_INT:
        return sqlite3_bind_int64(stmt, at, v->num);
    case DB_VALUE_TEXT:
        return sqlite3_bind_text64(stmt, at, v->octets, v->len, SQLITE_STATIC, SQLITE_UTF8);
    case DB_VALUE_BLOB:
        /* A NULL pointer would be bound as NULL. */
        if (v->len == 0)
            return sqlite3_bind_zeroblob(stmt, at, 0);
        return sqlite3_bind_blob64(stmt, at, v->octets, v->len, SQLITE_STATIC);
    case DB_VALUE_NULL:
        break;
    }
    return sqlite3_bind_null(stmt, at);
}

static int query(struct db *db, enum db_statement id, const struct db_value *v, size_t n)
{
    struct sqlite *d = sqlite_of(db);
    sqlite3_stmt **stmt = &d->statement[id];
    int r;

    if (*stmt == NULL) {
        r = sqlite_prepare(d, db_statement_text(id), stmt);
        if (r < 0)
            return r;
    }
    /* A walk whose callback starts the same walk would lose its place. */
    assert(!sqlite3_stmt_busy(*stmt));
    assert((size_t)sqlite3_bind_parameter_count(*stmt) == n);
    for (size_t i = 0; i < n; i++) {
        int code = bind(*stmt, (int)i + 1, &v[i]);

        if (code != SQLITE_OK)
            return sqlite_failed(d->handle, "sqlite3_bind", code);
    }
    return 0;
}

static int step(struct db *db, enum db_statement id)
{
    sqlite3_stmt *stmt = sqlite_of(db)->statement[id];
    int code = sqlite3_step(stmt);
    int r;

    if (code == SQLITE_ROW)
        return 1;
    r = code == SQLITE_DONE ? 0 : sqlite_failed(sqlite_of(db)->handle, sqlite3_sql(stmt), code);
    if (r < 0)
        (void)sqlite3_reset(stmt);
    return r;
}

static void end(struct db *db, enum db_statement id)
{
    (void)sqlite3_reset(sqlite_of(db)->statement[id]);
}

static int64_t column_int(struct db *db, enum db_statement id, int column)
{
    return sqlite3_column_int64(sqlite_of(db)->statement[id], column);
}

static const char *column_octets(struct db *db, enum db_statement id, int column, size_t *ret_len)
{
    const void *p = sqlite3_column_blob(sqlite_of(db)->statement[id], column);

    *ret_len = (size_t)sqlite3_column_bytes(sqlite_of(db)->statement[id], column);
    return p != NULL ? p : "";
}

static bool column_is_null(struct db *db, enum db_statement id, int column)
{
    return sqlite3_column_type(sqlite_of(db)->statement[id], column) == SQLITE_NULL;
}

static int64_t changes(struct db *db)
{
    return sqlite3_changes64(sqlite_of(db)->handle);
}

static int64_t last_row(struct db *db)
{
    return sqlite3_last_insert_rowid(sqlite_of(db)->handle);
}

const struct db_driver db_sqlite = {
    .open = sqlite_open,
    .close = sqlite_close,
    .is_empty = sqlite_is_empty,
    .upgrade = sqlite_upgrade,
    .begin = begin,
    .commit = commit,
    .rollback = rollback,
    .in_tx = in_tx,
    .savepoint = savepoint,
    .savepoint_release = savepoint_release,
    .savepoint_rollback = savepoint_rollback,
    .query = query,
    .step = step,
    .end = end,
    .column_int = column_int,
    .column_octets = column_octets,
    .column_is_null = column_is_null,
    .changes = changes,
    .last_row = last_row,
    .check = sqlite_check,
    .tidy = sqlite_tidy,
    .octets = sqlite_octets,
};
