/*
 * What the two files of the SQLite driver share; they alone know sqlite3.
 */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include <sqlite3.h>
#include <sys/types.h>

#include "driver.h"

struct sqlite {
    struct db_base base;
    sqlite3 *handle;
    int wal_pages; /* in the WAL after the last commit */
    char *path;
    char *wal_path;
    ino_t wal_inode; /* of the file that is open; 0: not looked at yet */
    sqlite3_stmt *begin, *commit, *savepoint, *release, *to_savepoint;
    sqlite3_stmt *statement[DB_STATEMENT_COUNT]; /* prepared when first used */
};

static inline struct sqlite *sqlite_of(struct db *db)
{
    return (struct sqlite *)(void *)db;
}

/* Logs what SQLite says of a failed call and translates it.  handle may be NULL. */
int sqlite_failed(sqlite3 *handle, const char *call, int code);
int sqlite_prepare(struct sqlite *d, const char *text, sqlite3_stmt **ret_stmt);

/* sqlite_open.c: of struct db_driver. */
int sqlite_open(const struct db_options *o, struct db **ret_db);
void sqlite_close(struct db *db);
int sqlite_is_empty(struct db *db, bool *ret_empty);
int sqlite_upgrade(struct db *db, unsigned from);
int sqlite_check(struct db *db);
int sqlite_tidy(struct db *db, enum db_moment moment);
uint64_t sqlite_octets(struct db *db);

#endif
