/*
 * A database, as the store sees it: transactions with savepoints, and the prepared statements of
 * statements.def.  SQLite is behind it (sqlite.c, the only file that knows sqlite3); what a driver
 * for PostgreSQL needs besides its own libpq calls is another text of the schema: the statements
 * are written in what both understand ($1, ON CONFLICT DO NOTHING, row values).
 *
 * A driver translates its library's errors and logs them once, by call and name:
 *     TEKD_EFULL    no space: the transaction may be gone (db_in_tx()), the database is sound
 *     TEKD_EAGAIN   locked by somebody else: as TEKD_EFULL
 *     TEKD_EIO      reading or writing failed, or the file is corrupt: never go on
 *     TEKD_ENOMEM, TEKD_EINTERNAL (a statement of ours is wrong)
 *
 * Thread rule: one thread at a time.
 */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tekd/auto.h"

enum db_statement {
#define STATEMENT(name, text) DB_##name,
#include "statements.def"
#undef STATEMENT
    DB_STATEMENT_COUNT
};

/* The text of a statement; static. */
const char *db_statement_text(enum db_statement id);

#define SCHEMA 2 /* that we read and write */
/* What makes SQLite's database of schema n + 1 out of schema n, 0 being an empty one: statements,
 * separated by ';'. */
extern const char *const schema_sqlite[SCHEMA];

/* A value to bind; text and octets are borrowed until the statement has ended. */
struct db_value {
    enum { DB_VALUE_INT, DB_VALUE_TEXT, DB_VALUE_BLOB, DB_VALUE_NULL } type;
    int64_t num;
    const void *octets;
    size_t len;
};

static inline struct db_value db_int(int64_t v)
{
    return (struct db_value){.type = DB_VALUE_INT, .num = v};
}
static inline struct db_value db_textn(const char *s, size_t len)
{
    return (struct db_value){.type = DB_VALUE_TEXT, .octets = s, .len = len};
}
static inline struct db_value db_text(const char *s)
{
    if (s == NULL)
        return (struct db_value){.type = DB_VALUE_NULL};
    return db_textn(s, strlen(s));
}
static inline struct db_value db_blob(const void *octets, size_t len)
{
    return (struct db_value){.type = DB_VALUE_BLOB, .octets = octets, .len = len};
}

/* The values of a statement, in the order of $1, $2 …: pointer and count. */
#define DB_VALUES(...)                                                                             \
    (const struct db_value[]){__VA_ARGS__}, ARRAY_SIZE(((const struct db_value[]){__VA_ARGS__}))
#define DB_NO_VALUES NULL, 0

struct db_options {
    const char *path;
    unsigned cache_mb; /* of pages in memory */
};

struct db; /* begins with its driver: struct db_base */

enum db_moment { DB_BUSY, DB_IDLE, DB_CLOSING };

struct db_driver {
    /* Errors besides those above: TEKD_EEXIST (another program has it open). */
    int (*open)(const struct db_options *o, struct db **ret_db);
    void (*close)(struct db *db); /* takes NULL */

    /* Whether somebody made tables in it already. */
    int (*is_empty)(struct db *db, bool *ret_empty);
    /* Makes the tables of SCHEMA, out of schema `from`; inside a transaction. */
    int (*upgrade)(struct db *db, unsigned from);

    int (*begin)(struct db *db);
    int (*commit)(struct db *db); /* when it fails: unknown, and no transaction is open any more */
    void (*rollback)(struct db *db);
    bool (*in_tx)(struct db *db);
    int (*savepoint)(struct db *db);
    int (*savepoint_release)(struct db *db);
    int (*savepoint_rollback)(struct db *db); /* and releases it */

    /* Binds; db_step() then gives 1 for each row, 0 at the end, or an error. */
    int (*query)(struct db *db, enum db_statement id, const struct db_value *v, size_t n);
    int (*step)(struct db *db, enum db_statement id);
    void (*end)(struct db *db, enum db_statement id);
    int64_t (*column_int)(struct db *db, enum db_statement id, int column);
    /* Borrowed until the next step; never NULL; no NUL behind it. */
    const char *(*column_octets)(struct db *db, enum db_statement id, int column, size_t *ret_len);
    bool (*column_is_null)(struct db *db, enum db_statement id, int column);
    /* After a statement that writes: rows it changed, the integer key of the last one inserted. */
    int64_t (*changes)(struct db *db);
    int64_t (*last_row)(struct db *db);

    /* Reads the whole structure.  Errors: TEKD_EIO (what is wrong is in the log). */
    int (*check)(struct db *db);
    /* Housekeeping between transactions; before close() all of it, as that says nothing of what it
     * could not do. */
    int (*tidy)(struct db *db, enum db_moment moment);
    uint64_t (*octets)(struct db *db);
};

extern const struct db_driver db_sqlite;

struct db_base {
    const struct db_driver *driver;
};

static inline const struct db_driver *db_driver(struct db *db)
{
    return ((struct db_base *)(void *)db)->driver;
}
static inline void db_free(struct db *db)
{
    if (db != NULL)
        db_driver(db)->close(db);
}
AUTO_DEFINE(db)

/* ---- the same as functions ------------------------------------------------------------------- */

static inline int db_query(struct db *db, enum db_statement id, const struct db_value *v, size_t n)
{
    return db_driver(db)->query(db, id, v, n);
}
static inline int db_step(struct db *db, enum db_statement id)
{
    return db_driver(db)->step(db, id);
}
static inline void db_end(struct db *db, enum db_statement id)
{
    db_driver(db)->end(db, id);
}
static inline int64_t db_column_int(struct db *db, enum db_statement id, int column)
{
    return db_driver(db)->column_int(db, id, column);
}
static inline const char *db_column_octets(struct db *db, enum db_statement id, int column,
                                           size_t *ret_len)
{
    return db_driver(db)->column_octets(db, id, column, ret_len);
}

/*
 * Binds and steps to the first row, which can be read until db_end().  Errors: those of the driver;
 * TEKD_ENOTFOUND when there is none, the statement has ended then, as with every error.
 */
int db_first(struct db *db, enum db_statement id, const struct db_value *v, size_t n);
/* Runs a statement without rows to its end; ret_changes may be NULL. */
int db_run(struct db *db, enum db_statement id, const struct db_value *v, size_t n,
           int64_t *ret_changes);
/* INSERT … ON CONFLICT DO NOTHING: TEKD_EEXIST when there was a conflict.  ret_row may be NULL. */
int db_insert(struct db *db, enum db_statement id, const struct db_value *v, size_t n,
              int64_t *ret_row);

/* Copies text or octets of a column; longer than max: TEKD_EIO, for we never wrote that. */
int db_copy_text(struct db *db, enum db_statement id, int column, char *out, size_t max);
int db_copy_octets(struct db *db, enum db_statement id, int column, void *out, size_t len);

#endif
