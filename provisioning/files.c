/* The few kinds of files that tek-provision reads and writes. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "provision.h"
#include "tekd/auto.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/fds.h"

#define PATH_LEN_MAX 4096

bool files_exist(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* The new name in the folder must survive a crash too. */
static int sync_dir(const char *path)
{
    char dir[PATH_LEN_MAX];
    const char *slash = strrchr(path, '/');
    AUTO_FD int fd = -1;

    if (!slash)
        snprintf(dir, sizeof(dir), ".");
    else
        snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path + 1), path);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

struct files_draft {
    const char *path;
    char temp[PATH_LEN_MAX]; /* "": it has its name */
    int fd;                  /* locked (flock) as long as it is written */
    bool replace;
};

/* What a run that was cut short has left goes; what another one is writing stays. */
static bool clear_temp(const char *temp)
{
    AUTO_FD int fd = open(temp, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return false;
    (void)unlink(temp);
    return true;
}

/* Whether the name still is that of what was written. */
static bool is_named(const struct files_draft *d)
{
    struct stat is, named;

    if (fstat(d->fd, &is) == 0 && lstat(d->temp, &named) == 0 && is.st_dev == named.st_dev &&
        is.st_ino == named.st_ino)
        return true;
    errno = EBUSY;
    return false;
}

void files_draft_free(struct files_draft *d)
{
    if (!d)
        return;
    if (*d->temp && is_named(d))
        (void)unlink(d->temp);
    if (d->fd >= 0)
        (void)close(d->fd);
    free(d);
}

int files_draft_new(const char *path, struct file_rule rule, struct files_draft **ret_draft)
{
    AUTO(files_draft) struct files_draft *d = calloc(1, sizeof(*d));
    int n;

    if (!d)
        return options_fail(TEKD_ENOMEM, "out of memory");
    *d = (struct files_draft){.path = path, .fd = -1, .replace = rule.replace};
    n = snprintf(d->temp, sizeof(d->temp), "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof(d->temp)) {
        *d->temp = '\0';
        return options_fail(TEKD_EINVAL, "%s: the path is too long", path);
    }
    if (clear_temp(d->temp))
        d->fd = open(d->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, rule.mode);
    /* A file system without locks has no other run either, as far as can be known. */
    if (d->fd < 0 || (flock(d->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)) {
        *d->temp = '\0'; /* not ours */
        return options_fail(TEKD_EIO, "%s: %s", path,
                            errno == EWOULDBLOCK ? "another run is writing it" : strerror(errno));
    }
    *ret_draft = TAKE(d);
    return 0;
}

int files_draft_write(struct files_draft *d, const void *data, size_t len)
{
    /* link() never replaces, rename() does. */
    bool done = fds_write(d->fd, data, len) == 0 && fsync(d->fd) == 0 && is_named(d) &&
                (d->replace ? rename(d->temp, d->path) : link(d->temp, d->path)) == 0;

    if (!done)
        return options_fail(errno == EEXIST ? TEKD_EEXIST : TEKD_EIO, "%s: %s", d->path,
                            strerror(errno));
    if (!d->replace)
        (void)unlink(d->temp);
    *d->temp = '\0';
    if (sync_dir(d->path) < 0)
        return options_fail(TEKD_EIO, "%s: its folder cannot be synced: %s", d->path,
                            strerror(errno));
    return 0;
}

int files_draft_write_hex(struct files_draft *d, const struct secret *octets)
{
    AUTO(secret) struct secret *text = NULL;
    size_t len = ENC_HEX_LEN(secret_len(octets));
    int r;

    r = secret_new(len + 1, &text);
    if (r < 0)
        return r;
    enc_hex(secret_peek(octets), secret_len(octets), (char *)secret_get(text));
    secret_get(text)[len] = '\n';
    return files_draft_write(d, secret_peek(text), len + 1);
}

int files_write(const char *path, struct file_rule rule, const void *data, size_t len)
{
    AUTO(files_draft) struct files_draft *d = NULL;
    int r = files_draft_new(path, rule, &d);

    if (r < 0)
        return r;
    assert(d);
    return files_draft_write(d, data, len);
}

int files_read_hex(const char *path, struct secret **ret_octets)
{
    AUTO(secret) struct secret *text = NULL;
    AUTO(secret) struct secret *octets = NULL;
    int r;

    r = secret_read_file(path, &text);
    if (r == 0 && secret_len(text) % 2 != 0)
        r = TEKD_EFORMAT;
    if (r == 0)
        r = secret_new(secret_len(text) / 2, &octets);
    if (r == 0)
        r = enc_hex_read((const char *)secret_peek(text), secret_len(text), secret_get(octets),
                         secret_len(octets));
    if (r < 0)
        return options_fail(r, "%s: %s (expected one line of hex, mode 0600)", path,
                            tekd_strerror(r));
    *ret_octets = TAKE(octets);
    return 0;
}

int files_read_public(const char *path, EVP_PKEY **ret_key)
{
    FILE *f = fopen(path, "re");
    EVP_PKEY *key;

    if (!f)
        return options_fail(TEKD_ENOTFOUND, "%s: %s", path, strerror(errno));
    key = PEM_read_PUBKEY(f, NULL, NULL, NULL);
    (void)fclose(f);
    if (!key)
        return options_fail(TEKD_EFORMAT, "%s: no public key in PEM", path);
    *ret_key = key;
    return 0;
}
