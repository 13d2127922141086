/*
 * What the publishers got back, in a folder: an export takes it along (docs/audit.md), and an
 * auditor checks it.  A name is <epoch>-<size>-<day, UTC>.<kind>.  Of each kind the newest of a day
 * and epoch is kept, KEPT_MAX in all; other files are left alone.
 *
 * A folder, and not the database: it belongs on the anchor's volume, where it outlives a database
 * that is restored, and its size is no concern of the store's.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/fds.h"

#define KEPT_NAME_MAX 64 /* two numbers of 20 digits, a day, a kind */
#define READ_BLOCK    4096

struct kept {
    char *dir;
    pthread_mutex_t lock; /* for whoever needs the files of one name together */
};

int kept_new(const char *dir, struct kept **ret_kept)
{
    struct kept *k = calloc(1, sizeof(*k));

    if (k)
        k->dir = strdup(dir);
    if (!k || !k->dir) {
        free(k);
        return TEKD_ENOMEM;
    }
    (void)pthread_mutex_init(&k->lock, NULL);
    *ret_kept = k;
    return 0;
}

void kept_free(struct kept *k)
{
    if (!k)
        return;
    (void)pthread_mutex_destroy(&k->lock);
    free(k->dir);
    free(k);
}

/* ---- names ----------------------------------------------------------------------------------- */

struct name {
    uint64_t epoch, size;
    unsigned day; /* 20261128 */
};

/* What belongs together, in the order in which it is written: a time stamp needs its note. */
static const struct group {
    const char *kind[KEPT_FILES_MAX];
} groups[] = {{{"note", "tsr"}}, {{"cosigned"}}};

static void write_name(const struct name *n, const char *kind, char out[static KEPT_NAME_MAX])
{
    (void)snprintf(out, KEPT_NAME_MAX, "%llu-%llu-%08u.%s", (unsigned long long)n->epoch,
                   (unsigned long long)n->size, n->day, kind);
}

/* Only what write_name() writes. */
static bool read_name(const char *text, const char *kind, struct name *ret_name)
{
    char again[KEPT_NAME_MAX];
    unsigned long long epoch, size;

    /* NOLINTNEXTLINE(cert-err34-c): what is out of range is not written the same again */
    if (sscanf(text, "%llu-%llu-%8u", &epoch, &size, &ret_name->day) != 3)
        return false;
    ret_name->epoch = epoch;
    ret_name->size = size;
    write_name(ret_name, kind, again);
    return strcmp(text, again) == 0;
}

static unsigned day_of(int64_t utc_us)
{
    const time_t t = (time_t)(utc_us / SECOND_US);
    struct tm tm = {.tm_year = 0};

    (void)gmtime_r(&t, &tm);
    return (unsigned)((tm.tm_year + 1900) * 10000 + (tm.tm_mon + 1) * 100 + tm.tm_mday);
}

static int by_age(const void *x, const void *y)
{
    const struct name *a = x, *b = y;

    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    return (a->day > b->day) - (a->day < b->day);
}

struct names {
    struct name *name; /* the oldest first */
    size_t n, room;
};

static int add_name(struct names *list, const struct name *n)
{
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        struct name *more = reallocarray(list->name, room, sizeof(*more));

        if (!more)
            return TEKD_ENOMEM;
        list->name = more;
        list->room = room;
    }
    list->name[list->n++] = *n;
    return 0;
}

/* Those of one kind; none where there is no folder. */
static int list_names(const struct kept *k, const char *kind, struct names *ret_names)
{
    DIR *dir = opendir(k->dir);
    struct dirent *e;
    struct name n;
    int r = 0;

    *ret_names = (struct names){.n = 0};
    if (!dir)
        return errno == ENOENT ? 0 : TEKD_EIO;
    while (r == 0 && (e = readdir(dir)))
        r = read_name(e->d_name, kind, &n) ? add_name(ret_names, &n) : 0;
    (void)closedir(dir);
    if (r < 0)
        free(ret_names->name);
    else if (ret_names->n > 0)
        qsort(ret_names->name, ret_names->n, sizeof(n), by_age);
    return r;
}

/* ---- keeping --------------------------------------------------------------------------------- */

static int failed(const char *call, const char *what, char why[static PUBLISH_WHY_MAX])
{
    (void)snprintf(why, PUBLISH_WHY_MAX, "what was got could not be kept: %s %.100s: %s", call,
                   what, strerrordesc_np(errno));
    return TEKD_EIO;
}

static int open_dir(const struct kept *k, int *ret_fd, char why[static PUBLISH_WHY_MAX])
{
    if (mkdir(k->dir, 0750) < 0 && errno != EEXIST)
        return failed("mkdir", k->dir, why);
    *ret_fd = open(k->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0 ? failed("open", k->dir, why) : 0;
}

#define TEMPORARY_MAX (KEPT_NAME_MAX + 8)

static void write_temporary(const struct name *n, const char *kind, char out[static TEMPORARY_MAX])
{
    char name[KEPT_NAME_MAX];

    write_name(n, kind, name);
    (void)snprintf(out, TEMPORARY_MAX, ".%s.new", name);
}

/* Whole and durable under its temporary name. */
static int write_file(int dir, const struct name *id, const struct kept_file *f,
                      char why[static PUBLISH_WHY_MAX])
{
    AUTO_FD int fd = -1;
    char temporary[TEMPORARY_MAX];

    write_temporary(id, f->kind, temporary);
    fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return failed("open", temporary, why);
    if (fds_write(fd, f->octets, f->len) < 0)
        return failed("write", temporary, why);
    return fsync(fd) < 0 ? failed("fsync", temporary, why) : 0;
}

static int rename_file(int dir, const struct name *id, const char *kind,
                       char why[static PUBLISH_WHY_MAX])
{
    char temporary[TEMPORARY_MAX], name[KEPT_NAME_MAX];

    write_temporary(id, kind, temporary);
    write_name(id, kind, name);
    return renameat(dir, temporary, dir, name) < 0 ? failed("rename", name, why) : 0;
}

/*
 * All are written before the first gets its name.  On a full volume a note has room where its time
 * stamp has none, and would then take the place of the day's note that has one.  What was written
 * in vain goes: each time it would be under another name.
 */
static int write_files(int dir, const struct name *id, const struct kept_file *files, size_t n,
                       char why[static PUBLISH_WHY_MAX])
{
    char temporary[TEMPORARY_MAX];
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++)
        r = write_file(dir, id, &files[i], why);
    for (size_t i = 0; i < n && r == 0; i++)
        r = rename_file(dir, id, files[i].kind, why);
    if (r == 0 && fsync(dir) < 0)
        r = failed("fsync", "the folder", why);
    for (size_t i = 0; i < n && r < 0; i++) {
        write_temporary(id, files[i].kind, temporary);
        (void)unlinkat(dir, temporary, 0);
    }
    return r;
}

/* Whether the place of this one is another's: newer, of the same day and epoch; or all are taken.
 */
static bool is_past(const struct names *all, size_t i)
{
    const struct name *n = &all->name[i];
    const struct name *next = i + 1 < all->n ? &all->name[i + 1] : NULL;

    return all->n - i > KEPT_MAX || (next && next->epoch == n->epoch && next->day == n->day);
}

/* What cannot be removed is tried again next time. */
static void prune(const struct kept *k, int dir, const char *kind)
{
    struct names all;
    char name[KEPT_NAME_MAX];

    if (list_names(k, kind, &all) < 0)
        return;
    for (size_t i = 0; i < all.n; i++) {
        write_name(&all.name[i], kind, name);
        if (is_past(&all, i))
            (void)unlinkat(dir, name, 0);
    }
    free(all.name);
}

static int put_locked(struct kept *k, const struct name *id, const struct kept_file *files,
                      size_t n, char why[static PUBLISH_WHY_MAX])
{
    AUTO_FD int dir = -1;
    int r = open_dir(k, &dir, why);

    if (r == 0)
        r = write_files(dir, id, files, n, why);
    /* The last one goes first: without those before it it is worth nothing. */
    for (size_t i = n; i > 0 && r == 0; i--)
        prune(k, dir, files[i - 1].kind);
    return r;
}

int kept_put(struct kept *k, const struct publication *p, const struct kept_file *files, size_t n,
             char why[static PUBLISH_WHY_MAX])
{
    const struct name id = {.epoch = p->epoch, .size = p->note.size, .day = day_of(clock_utc_us())};
    int r;

    (void)pthread_mutex_lock(&k->lock);
    r = put_locked(k, &id, files, n, why);
    (void)pthread_mutex_unlock(&k->lock);
    return r;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int read_file(const struct kept *k, const char *name, struct buf *out)
{
    char path[PATH_MAX];
    AUTO_FD int fd = -1;
    uint8_t *room;
    ssize_t n = 1;

    (void)snprintf(path, sizeof(path), "%s/%s", k->dir, name);
    buf_reset(out);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? TEKD_ENOTFOUND : TEKD_EIO;
    while (n > 0) {
        room = buf_reserve(out, READ_BLOCK);
        if (!room)
            return buf_error(out);
        n = read(fd, room, READ_BLOCK);
        if (n > 0)
            buf_commit(out, (size_t)n);
    }
    return n < 0 ? TEKD_EIO : 0;
}

/* The files of a name, together; what is not there, or does not belong there, is left empty. */
static int read_group_locked(const struct kept *k, const struct name *n, const struct group *g,
                             struct buf *octets[static KEPT_FILES_MAX])
{
    char name[KEPT_NAME_MAX];
    int r = 0;

    for (size_t i = 0; i < KEPT_FILES_MAX && g->kind[i] && r == 0; i++) {
        write_name(n, g->kind[i], name);
        r = read_file(k, name, octets[i]);
        if (r == TEKD_ENOTFOUND || r == TEKD_ETOOBIG) {
            buf_reset(octets[i]);
            r = 0;
        }
    }
    return r;
}

static int give(struct kept *k, const struct name *n, const struct group *g,
                struct buf *octets[static KEPT_FILES_MAX], const struct kept_walk *w)
{
    char name[KEPT_NAME_MAX];
    int r;

    (void)pthread_mutex_lock(&k->lock);
    r = read_group_locked(k, n, g, octets);
    (void)pthread_mutex_unlock(&k->lock);
    for (size_t i = 0; i < KEPT_FILES_MAX && g->kind[i] && r == 0; i++) {
        if (buf_len(octets[i]) == 0)
            break; /* what follows needs it */
        write_name(n, g->kind[i], name);
        r = w->each(w->arg, name, buf_data(octets[i]), buf_len(octets[i]));
    }
    return r;
}

static int walk_group(struct kept *k, const struct group *g,
                      struct buf *octets[static KEPT_FILES_MAX], const struct kept_walk *w)
{
    struct names all;
    int r = list_names(k, g->kind[0], &all);

    if (r < 0)
        return r;
    for (size_t i = 0; i < all.n && r == 0; i++) {
        if (all.name[i].epoch == w->epoch && all.name[i].size <= w->size)
            r = give(k, &all.name[i], g, octets, w);
    }
    free(all.name);
    return r;
}

int kept_walk(struct kept *k, const struct kept_walk *w)
{
    struct buf *octets[KEPT_FILES_MAX] = {NULL};
    int r = 0;

    for (size_t i = 0; i < KEPT_FILES_MAX && r == 0; i++)
        r = buf_new(KEPT_FILE_MAX + READ_BLOCK, &octets[i]);
    for (size_t i = 0; i < ARRAY_SIZE(groups) && r == 0; i++)
        r = walk_group(k, &groups[i], octets, w);
    for (size_t i = 0; i < KEPT_FILES_MAX; i++)
        buf_free(octets[i]);
    return r;
}
