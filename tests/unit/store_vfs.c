#include "store_vfs.h"

#include <assert.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What a write overwrote since the last sync of its file, newest first. */
struct undo {
    struct undo *next;
    sqlite3_int64 offset, size; /* of the file before */
    int len;
    unsigned char octets[];
};

struct file {
    sqlite3_file base;
    struct undo *undo;
    sqlite3_file *real; /* behind this struct */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static enum store_vfs_fault armed;
static unsigned at, count;
static bool happened;

static sqlite3_vfs *unix_vfs;

static struct file *of(sqlite3_file *f)
{
    return (struct file *)(void *)f;
}

/* Counts an operation and says what it is to return. */
static int fate(bool is_write)
{
    int code = SQLITE_OK;

    pthread_mutex_lock(&lock);
    count++;
    if (armed == VFS_IO_ERROR && count == at)
        code = is_write ? SQLITE_IOERR_WRITE : SQLITE_IOERR_FSYNC;
    else if (is_write &&
             ((armed == VFS_FULL && count >= at) || (armed == VFS_FULL_ONCE && count == at)))
        code = SQLITE_FULL;
    else if (armed == VFS_POWER_CUT && count >= at)
        code = SQLITE_IOERR;
    happened = happened || code != SQLITE_OK;
    pthread_mutex_unlock(&lock);
    return code;
}

static bool is_cut(void)
{
    bool cut;

    pthread_mutex_lock(&lock);
    cut = armed == VFS_POWER_CUT && happened;
    pthread_mutex_unlock(&lock);
    return cut;
}

static void forget(struct file *f)
{
    while (f->undo != NULL) {
        struct undo *u = f->undo;

        f->undo = u->next;
        free(u);
    }
}

static void undo_all(struct file *f)
{
    for (struct undo *u = f->undo; u != NULL; u = u->next) {
        if (u->len > 0)
            (void)f->real->pMethods->xWrite(f->real, u->octets, u->len, u->offset);
        (void)f->real->pMethods->xTruncate(f->real, u->size);
    }
}

/* Remembers what is there before it is overwritten. */
static void remember(struct file *f, sqlite3_int64 offset, int len)
{
    struct undo *u = calloc(1, sizeof(*u) + (size_t)len);

    assert(u != NULL);
    (void)f->real->pMethods->xFileSize(f->real, &u->size);
    u->offset = offset;
    if (offset < u->size) {
        u->len = offset + len <= u->size ? len : (int)(u->size - offset);
        (void)f->real->pMethods->xRead(f->real, u->octets, u->len, offset);
    }
    u->next = f->undo;
    f->undo = u;
}

/* ---- file ------------------------------------------------------------------------------------ */

static int file_close(sqlite3_file *file)
{
    struct file *f = of(file);

    if (is_cut())
        undo_all(f);
    forget(f);
    return f->real->pMethods->xClose(f->real);
}

static int file_read(sqlite3_file *f, void *out, int len, sqlite3_int64 offset)
{
    return of(f)->real->pMethods->xRead(of(f)->real, out, len, offset);
}

static int file_write(sqlite3_file *f, const void *octets, int len, sqlite3_int64 offset)
{
    int code = fate(true);

    if (code != SQLITE_OK)
        return code;
    remember(of(f), offset, len);
    return of(f)->real->pMethods->xWrite(of(f)->real, octets, len, offset);
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    sqlite3_int64 before = 0;
    int code = fate(true);

    if (code != SQLITE_OK)
        return code;
    (void)of(f)->real->pMethods->xFileSize(of(f)->real, &before);
    if (size < before)
        remember(of(f), size, (int)(before - size));
    return of(f)->real->pMethods->xTruncate(of(f)->real, size);
}

static int file_sync(sqlite3_file *f, int flags)
{
    int code = fate(false);

    /* The real disk need not be kept waiting: what a sync means is what the undo leaves alone. */
    (void)flags;
    if (code == SQLITE_OK)
        forget(of(f));
    return code;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
    return of(f)->real->pMethods->xFileSize(of(f)->real, ret_size);
}

static int file_lock(sqlite3_file *f, int level)
{
    return of(f)->real->pMethods->xLock(of(f)->real, level);
}

static int file_unlock(sqlite3_file *f, int level)
{
    return of(f)->real->pMethods->xUnlock(of(f)->real, level);
}

static int file_reserved(sqlite3_file *f, int *ret_reserved)
{
    return of(f)->real->pMethods->xCheckReservedLock(of(f)->real, ret_reserved);
}

static int file_control(sqlite3_file *f, int op, void *arg)
{
    return of(f)->real->pMethods->xFileControl(of(f)->real, op, arg);
}

static int file_sector(sqlite3_file *f)
{
    return of(f)->real->pMethods->xSectorSize(of(f)->real);
}

static int file_traits(sqlite3_file *f)
{
    return of(f)->real->pMethods->xDeviceCharacteristics(of(f)->real);
}

/* Version 1 has no shared memory: a WAL opens only because its lock is exclusive. */
static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
};

/* ---- file system ----------------------------------------------------------------------------- */

static int vfs_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags,
                    int *ret_flags)
{
    struct file *f = of(file);
    int code;

    (void)vfs;
    *f = (struct file){.real = (sqlite3_file *)(void *)(f + 1)};
    code = unix_vfs->xOpen(unix_vfs, name, f->real, flags, ret_flags);
    if (code == SQLITE_OK)
        f->base.pMethods = &methods;
    return code;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    int code = fate(false);

    (void)vfs;
    if (code != SQLITE_OK)
        return SQLITE_IOERR_DELETE;
    return unix_vfs->xDelete(unix_vfs, name, sync_dir);
}

void store_vfs_register(void)
{
    static sqlite3_vfs vfs;

    unix_vfs = sqlite3_vfs_find("unix");
    assert(unix_vfs != NULL);
    vfs = *unix_vfs;
    vfs.pNext = NULL;
    vfs.zName = "pull";
    vfs.szOsFile = (int)sizeof(struct file) + unix_vfs->szOsFile;
    vfs.xOpen = vfs_open;
    vfs.xDelete = vfs_delete;
    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
        abort();
}

void store_vfs_arm(enum store_vfs_fault fault, unsigned k)
{
    pthread_mutex_lock(&lock);
    armed = fault;
    at = k;
    count = 0;
    happened = false;
    pthread_mutex_unlock(&lock);
}

bool store_vfs_disarm(void)
{
    bool had;

    pthread_mutex_lock(&lock);
    armed = VFS_NONE;
    had = happened;
    pthread_mutex_unlock(&lock);
    return had;
}

unsigned store_vfs_count(void)
{
    unsigned n;

    pthread_mutex_lock(&lock);
    n = count;
    pthread_mutex_unlock(&lock);
    return n;
}

unsigned store_vfs_step(void)
{
    const char *text = getenv("TEKD_FAULT_STEP");
    unsigned long step = text ? strtoul(text, NULL, 10) : 1;

    assert(step >= 1 && step <= 100);
    return (unsigned)step;
}
