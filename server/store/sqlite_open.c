/*
 * The SQLite driver: opening and care.
 *
 * One connection, one thread.  locking_mode=EXCLUSIVE is set before journal_mode=WAL: no other
 * program gets in, the WAL's index stays in memory of ours, and the corruption that SQLite up to
 * 3.51.2 can cause when two connections write and checkpoint one WAL cannot happen.
 * synchronous=FULL: a commit is on the disk when it returns.
 *
 * The WAL is copied into the database by tidy(), not inside a commit: then its errors are seen, and
 * it runs while the signer works.
 */
#include "sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tekd/err.h"
#include "tekd/log.h"

/*
 * Pages in the WAL before it is copied back: 16 MiB.  Counted with tests/bench/store_bench, 60,000
 * new contents: with rising identifiers the writes are the same from 1,000 pages to 16,000; with
 * random ones 4,096 pages save 12 % of the writes that 1,000 need, and 16,384 only 5 % more, while
 * each copying keeps the batches waiting longer.
 */
#define WAL_PAGES      4096
#define WAL_PAGES_IDLE 256

#define CACHE_MB_DEFAULT 10

#define PIECE (1 << 20) /* of the file, read at once */

/* SQLite's own counters cost a lock for each allocation; it has to be said before its first use. */
static void configure_once(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

/* SQLite would make it with the umask's mode; its WAL gets the mode of the database. */
static int make_file(const char *path)
{
    AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    AUTO_MEM char *copy = NULL;
    AUTO_FD int dir = -1;

    if (fd < 0) {
        if (errno == EEXIST)
            return 0;
        log_event(LOG_ERROR, "store", "create-failed", LOG_STR("path", path),
                  LOG_STR("errno", strerrorname_np(errno)));
        return tekd_err_from_errno(errno) == TEKD_EFULL ? TEKD_EFULL : TEKD_EIO;
    }
    copy = strdup(path);
    if (copy == NULL)
        return TEKD_ENOMEM;
    dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) < 0) {
        log_event(LOG_ERROR, "store", "create-failed", LOG_STR("path", path),
                  LOG_STR("errno", strerrorname_np(errno)));
        return TEKD_EIO;
    }
    return 0;
}

/* Runs a PRAGMA and compares the first column of its last row; expect NULL: whatever it says. */
static int pragma(struct sqlite *d, const char *text, const char *expect)
{
    sqlite3_stmt *stmt = NULL;
    bool as_expected = expect == NULL;
    char found[200] = "";
    int code = sqlite3_prepare_v2(d->handle, text, -1, &stmt, NULL);

    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW && expect != NULL) {
            const unsigned char *is = sqlite3_column_text(stmt, 0);

            (void)snprintf(found, sizeof(found), "%s", is != NULL ? (const char *)is : "");
            as_expected = strcmp(found, expect) == 0;
        }
    }
    (void)sqlite3_finalize(stmt);
    if ((code & 0xff) == SQLITE_BUSY)
        return TEKD_EEXIST;
    if (code != SQLITE_DONE)
        return sqlite_failed(d->handle, text, code);
    if (!as_expected) {
        log_event(LOG_ERROR, "store", "pragma-refused", LOG_STR("pragma", text),
                  LOG_STR("expected", expect), LOG_STR("found", found));
        return TEKD_EIO;
    }
    return 0;
}

/* What has to be so, in this order, and what it must read back as. */
static int set_pragmas(struct sqlite *d, unsigned cache_mb)
{
    static const struct {
        const char *text, *expect;
    } rules[] = {
        {"PRAGMA locking_mode = EXCLUSIVE", "exclusive"},
        {"PRAGMA journal_mode = WAL", "wal"}, /* reads the file: takes the lock */
        {"PRAGMA synchronous = FULL", NULL},
        {"PRAGMA synchronous", "2"},
        {"PRAGMA locking_mode", "exclusive"},
        {"PRAGMA journal_mode", "wal"},
        {"PRAGMA wal_autocheckpoint = 0", "0"},
        {"PRAGMA temp_store = MEMORY", NULL}, /* savepoints keep what they undo in memory */
        {"PRAGMA secure_delete = ON", "1"},   /* a destroyed TEK's octets are overwritten */
        {"PRAGMA trusted_schema = OFF", NULL},
        {"PRAGMA cell_size_check = ON", NULL},
        {"PRAGMA mmap_size = 0", NULL},
    };
    char cache[40];
    int r;

    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        r = pragma(d, rules[i].text, rules[i].expect);
        if (r < 0)
            return r;
    }
    (void)snprintf(cache, sizeof(cache), "PRAGMA cache_size = -%u",
                   (cache_mb > 0 ? cache_mb : CACHE_MB_DEFAULT) * 1024);
    return pragma(d, cache, NULL);
}

static int on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
    struct sqlite *d = arg;

    (void)handle;
    (void)name;
    d->wal_pages = pages;
    return SQLITE_OK;
}

static int prepare_transactions(struct sqlite *d)
{
    int r = sqlite_prepare(d, "BEGIN IMMEDIATE", &d->begin);

    if (r == 0)
        r = sqlite_prepare(d, "COMMIT", &d->commit);
    if (r == 0)
        r = sqlite_prepare(d, "SAVEPOINT item", &d->savepoint);
    if (r == 0)
        r = sqlite_prepare(d, "RELEASE item", &d->release);
    if (r == 0)
        r = sqlite_prepare(d, "ROLLBACK TO item", &d->to_savepoint);
    return r;
}

void sqlite_close(struct db *db)
{
    struct sqlite *d = sqlite_of(db);

    (void)sqlite3_finalize(d->begin);
    (void)sqlite3_finalize(d->commit);
    (void)sqlite3_finalize(d->savepoint);
    (void)sqlite3_finalize(d->release);
    (void)sqlite3_finalize(d->to_savepoint);
    for (size_t i = 0; i < DB_STATEMENT_COUNT; i++)
        (void)sqlite3_finalize(d->statement[i]);
    (void)sqlite3_close(d->handle);
    free(d->path);
    free(d->wal_path);
    free(d);
}

static int name_files(struct sqlite *d, const char *path)
{
    d->path = strdup(path);
    if (d->path != NULL && asprintf(&d->wal_path, "%s-wal", path) >= 0)
        return 0;
    d->wal_path = NULL; /* asprintf() leaves anything there */
    return TEKD_ENOMEM;
}

int sqlite_open(const struct db_options *o, struct db **ret_db)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    AUTO(db) struct db *db = NULL;
    struct sqlite *d = calloc(1, sizeof(*d));
    int code, r;

    if (d == NULL)
        return TEKD_ENOMEM;
    d->base.driver = &db_sqlite;
    db = (struct db *)(void *)d;
    (void)pthread_once(&once, configure_once);
    r = name_files(d, o->path);
    if (r < 0)
        return r;
    r = make_file(o->path);
    if (r < 0)
        return r;
    code =
        sqlite3_open_v2(o->path, &d->handle,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (code != SQLITE_OK)
        return sqlite_failed(d->handle, "sqlite3_open_v2", code);
    r = set_pragmas(d, o->cache_mb);
    (void)sqlite3_wal_hook(d->handle, on_wal, d); /* wal_autocheckpoint took it away */
    if (r == TEKD_EEXIST)
        log_event(LOG_ERROR, "store", "database-in-use", LOG_STR("path", o->path));
    if (r == 0)
        r = prepare_transactions(d);
    if (r == 0)
        *ret_db = TAKE(db);
    return r;
}

int sqlite_is_empty(struct db *db, bool *ret_empty)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(sqlite_of(db)->handle, "SELECT count(*) FROM sqlite_schema", -1,
                                  &stmt, NULL);

    if (code == SQLITE_OK)
        code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        *ret_empty = sqlite3_column_int64(stmt, 0) == 0;
    (void)sqlite3_finalize(stmt);
    return code == SQLITE_ROW ? 0
                              : sqlite_failed(sqlite_of(db)->handle, "SELECT sqlite_schema", code);
}

int sqlite_upgrade(struct db *db, unsigned from)
{
    sqlite3 *handle = sqlite_of(db)->handle;

    for (unsigned i = from; i < SCHEMA; i++) {
        int code = sqlite3_exec(handle, schema_sqlite[i], NULL, NULL, NULL);

        if (code != SQLITE_OK)
            return sqlite_failed(handle, "CREATE TABLE", code);
    }
    return 0;
}

/* ---- care ------------------------------------------------------------------------------------ */

/*
 * Reads the file from end to end, so that the check, which jumps about, finds it in the kernel's
 * cache: measured with 1.3 GB of rows in random order 4 s instead of 19 on a cold cache.  Through
 * SQLite's own handle: closing another descriptor of the file would drop its locks.
 */
static void read_ahead(sqlite3 *handle)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    sqlite3_int64 memory = (sqlite3_int64)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    AUTO_MEM char *piece = malloc(PIECE);

    if (piece == NULL ||
        sqlite3_file_control(handle, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
        file->pMethods->xFileSize(file, &size) != SQLITE_OK || size > memory / 2)
        return;
    for (sqlite3_int64 at = 0; at + PIECE <= size; at += PIECE) {
        if (file->pMethods->xRead(file, piece, PIECE, at) != SQLITE_OK)
            return; /* the check will say what is wrong */
    }
}

int sqlite_check(struct db *db)
{
    read_ahead(sqlite_of(db)->handle);
    return pragma(sqlite_of(db), "PRAGMA quick_check(1)", "ok");
}

int sqlite_tidy(struct db *db, enum db_moment moment)
{
    static const int pages[] = {
        [DB_BUSY] = WAL_PAGES, [DB_IDLE] = WAL_PAGES_IDLE, [DB_CLOSING] = 1};
    struct sqlite *d = sqlite_of(db);
    int code;

    if (d->wal_pages < pages[moment])
        return 0;
    code = sqlite3_wal_checkpoint_v2(d->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (code != SQLITE_OK)
        return sqlite_failed(d->handle, "sqlite3_wal_checkpoint_v2", code);
    d->wal_pages = 0;
    return 0;
}

uint64_t sqlite_octets(struct db *db)
{
    const char *const paths[] = {sqlite_of(db)->path, sqlite_of(db)->wal_path};
    uint64_t sum = 0;

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        struct stat st;

        if (stat(paths[i], &st) == 0)
            sum += (uint64_t)st.st_size;
    }
    return sum;
}
