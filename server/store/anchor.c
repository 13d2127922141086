/*
 * The anchor file: the newest committed note, kept on another volume so that whoever can put an old
 * copy of the database back cannot put this back as well.  Written by a thread of its own: that
 * volume may hang, and keys do not wait for it.
 *
 * A new file beside it is written, synced and renamed over it, then the folder is synced: at any
 * moment there is a whole note under the name.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/fds.h"
#include "tekd/log.h"

static int failed(const char *call, const char *path)
{
    log_event(LOG_WARN, "store", "anchor-failed", LOG_STR("call", call), LOG_STR("path", path),
              LOG_STR("errno", strerrorname_np(errno)));
    return TEKD_EIO;
}

static int sync_folder(const char *path)
{
    AUTO_MEM char *copy = strdup(path);
    AUTO_FD int fd = -1;

    if (copy == NULL)
        return TEKD_ENOMEM;
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? failed("fsync", path) : 0;
}

static int write_file(const char *path, const struct buf *b)
{
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof(temporary), "%s.new", path);
    AUTO_FD int fd = -1;

    if (n < 0 || (size_t)n >= sizeof(temporary))
        return TEKD_ETOOBIG;
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return failed("open", temporary);
    if (fds_write(fd, buf_data(b), buf_len(b)) < 0)
        return failed("write", temporary);
    if (fsync(fd) < 0)
        return failed("fsync", temporary);
    if (rename(temporary, path) < 0)
        return failed("rename", path);
    return sync_folder(path);
}

static int write_note(const char *path, const struct note *n)
{
    AUTO(buf) struct buf *b = NULL;
    int r = buf_new(NOTE_MAX, &b);

    if (r == 0)
        r = note_write(n, b);
    return r < 0 ? r : write_file(path, b);
}

int anchor_read(const char *path, struct note *ret_note, int64_t *ret_utc_us)
{
    char text[NOTE_MAX + 1];
    struct stat st;
    /* O_NONBLOCK: a FIFO of that name must not hang the start. */
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    size_t len = 0;
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? TEKD_ENOTFOUND : failed("open", path);
    if (fstat(fd, &st) < 0)
        return failed("fstat", path);
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return failed("open", path);
    }
    *ret_utc_us = (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
    while (len < sizeof(text) && (n = read(fd, text + len, sizeof(text) - len)) != 0) {
        if (n < 0 && errno != EINTR)
            return failed("read", path);
        len += n > 0 ? (size_t)n : 0;
    }
    return note_read(text, len, ret_note);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void *anchor_thread(void *arg)
{
    struct anchor *a = &((struct store *)arg)->anchor;

    (void)pthread_setname_np(pthread_self(), "anchor");
    pthread_mutex_lock(&a->lock);
    for (;;) {
        struct note n;
        int64_t place;
        int r;

        while (!a->quit && !a->wanted)
            pthread_cond_wait(&a->changed, &a->lock);
        if (!a->wanted)
            break;
        n = a->note;
        place = a->place;
        a->wanted = false;
        pthread_mutex_unlock(&a->lock);
        r = write_note(a->path, &n);
        pthread_mutex_lock(&a->lock);
        if (r == 0) {
            a->written = place;
            a->written_utc_us = clock_utc_us();
        }
        a->failing = r < 0;
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

int anchor_start(struct store *s)
{
    struct anchor *a = &s->anchor;
    int error;

    if (a->path == NULL)
        return 0;
    error = pthread_create(&a->thread, NULL, anchor_thread, s);
    if (error != 0) {
        log_event(LOG_ERROR, "store", "thread", LOG_STR("call", "pthread_create"),
                  LOG_STR("errno", strerrorname_np(error)));
        return TEKD_ENOMEM;
    }
    a->started = true;
    return 0;
}

void anchor_write(struct store *s)
{
    struct anchor *a = &s->anchor;
    const struct note *n = &s->tree.note;
    int64_t place = store_place_pack(s->tree.epoch, n->size);

    /* An epoch that has just begun has no note yet. */
    if (!a->started || !s->tree.note_committed || n->size == 0)
        return;
    pthread_mutex_lock(&a->lock);
    if (place > a->written) {
        a->note = *n;
        a->place = place;
        a->wanted = true;
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
}

/* Of epochs that were closed since, the last one is counted. */
static uint64_t beyond(const struct store_status *status)
{
    uint64_t all = status->records;
    uint64_t covered = status->anchor_size;

    if (status->anchor_epoch < status->epoch)
        all += status->closed_records;
    if (status->anchor_epoch + 1 < status->epoch)
        covered = 0;
    return all > covered ? all - covered : 0;
}

void anchor_state(struct store *s, struct store_status *status)
{
    struct anchor *a = &s->anchor;
    struct store_place at;

    pthread_mutex_lock(&a->lock);
    at = store_place_unpack(a->written);
    status->anchor_file = a->path;
    status->anchor_epoch = a->written != 0 ? at.epoch : 0;
    status->anchor_size = at.seq;
    status->anchor_utc_us = a->written_utc_us;
    status->anchor_failing = a->failing;
    pthread_mutex_unlock(&a->lock);
    /* It may have been written since the rest of the status was published. */
    status->anchor_beyond = beyond(status);
}

void anchor_stop(struct store *s)
{
    struct anchor *a = &s->anchor;

    if (!a->started)
        return;
    pthread_mutex_lock(&a->lock);
    a->quit = true;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    (void)pthread_join(a->thread, NULL);
    a->started = false;
}
