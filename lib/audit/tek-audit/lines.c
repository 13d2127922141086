#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tek-audit.h"
#include "tekd/err.h"

/* Large enough that reading costs nothing, small enough to stay in the processor's cache. */
#define CHUNK ((size_t)256 * 1024)

struct lines {
    int fd;
    EVP_MD_CTX *digest;
    size_t start; /* of the octets not given out yet */
    size_t end;
    bool at_end;
    char octets[CHUNK];
};

static const char no_file[] = "no regular file";
static const char no_folder[] = "its folder is a link, or no folder";

static int unreadable(const char **why, const char *reason)
{
    if (why)
        *why = reason;
    return TEKD_EIO;
}

/* What its user names may be anything. */
static int open_named(const char *path, int *ret_fd, const char **why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? TEKD_ENOTFOUND : unreadable(why, strerrordesc_np(errno));
    *ret_fd = fd;
    return 0;
}

/* Of the last part of a path O_NOFOLLOW says whether it is a link, of those before it nothing: so
 * keys/ and anchors/ are opened by themselves. */
static int open_folder(int dirfd, const char *name, size_t len, int *ret_fd, const char **why)
{
    char folder[FILE_NAME_MAX];
    int fd;

    (void)snprintf(folder, sizeof folder, "%.*s", (int)len, name);
    fd = openat(dirfd, folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return TEKD_ENOTFOUND;
    if (fd < 0)
        return unreadable(why,
                          errno == ENOTDIR || errno == ELOOP ? no_folder : strerrordesc_np(errno));
    *ret_fd = fd;
    return 0;
}

static int open_regular(int dirfd, const char *name, int *ret_fd, const char **why)
{
    AUTO_FD int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;

    if (fd < 0 && errno == ENOENT)
        return TEKD_ENOTFOUND;
    if (fd < 0)
        return unreadable(why, errno == ELOOP ? no_file : strerrordesc_np(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return unreadable(why, no_file);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/*
 * In an export only regular files, in it or in a folder of it, so that no pipe, link or device
 * leads out of it or holds the verifier up.
 */
static int open_file(int dirfd, const char *name, int *ret_fd, const char **why)
{
    const char *slash = strchr(name, '/');
    AUTO_FD int folder = -1;
    int r;

    if (dirfd == AT_FDCWD)
        return open_named(name, ret_fd, why);
    if (!slash)
        return open_regular(dirfd, name, ret_fd, why);
    assert(!strchr(slash + 1, '/')); /* as the manifest lets no other name through */
    r = open_folder(dirfd, name, (size_t)(slash - name), &folder, why);
    return r < 0 ? r : open_regular(folder, slash + 1, ret_fd, why);
}

int lines_open(int dirfd, const char *name, struct lines **ret_lines, const char **why)
{
    AUTO(lines) struct lines *l = malloc(sizeof *l);
    int r;

    if (!l)
        return TEKD_ENOMEM;
    memset(l, 0, offsetof(struct lines, octets));
    l->fd = -1;
    r = open_file(dirfd, name, &l->fd, why);
    if (r < 0)
        return r;
    l->digest = EVP_MD_CTX_new();
    if (!l->digest || EVP_DigestInit_ex2(l->digest, EVP_sha256(), NULL) != 1)
        return TEKD_ENOMEM;
    *ret_lines = TAKE(l);
    return 0;
}

void lines_free(struct lines *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        (void)close(l->fd);
    EVP_MD_CTX_free(l->digest);
    free(l);
}

/* Moves what is left to the front and reads on behind it. */
static int fill(struct lines *l)
{
    ssize_t n;

    memmove(l->octets, l->octets + l->start, l->end - l->start);
    l->end -= l->start;
    l->start = 0;
    do {
        n = read(l->fd, l->octets + l->end, CHUNK - l->end);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return TEKD_EIO;
    if (EVP_DigestUpdate(l->digest, l->octets + l->end, (size_t)n) != 1)
        return TEKD_ENOMEM;
    l->at_end = n == 0;
    l->end += (size_t)n;
    return 0;
}

int lines_next(struct lines *l, const char **ret_line, size_t *ret_len)
{
    size_t looked = 0; /* octets in which there is no line end */
    const char *end;
    int r;

    for (;;) {
        const char *line = l->octets + l->start;

        end = memchr(line + looked, '\n', l->end - l->start - looked);
        if (end)
            break;
        looked = l->end - l->start;
        if (looked > RECORD_MAX)
            return TEKD_ETOOBIG;
        if (l->at_end) {
            *ret_line = line;
            *ret_len = looked;
            l->start = l->end;
            return looked > 0 ? TEKD_EFORMAT : TEKD_ECLOSED;
        }
        r = fill(l);
        if (r < 0)
            return r;
    }
    *ret_line = l->octets + l->start;
    *ret_len = (size_t)(end - *ret_line);
    if (*ret_len > RECORD_MAX)
        return TEKD_ETOOBIG;
    l->start += *ret_len + 1;
    return 0;
}

int lines_digest(struct lines *l, struct merkle_hash *ret_digest)
{
    int r = 0;

    while (!l->at_end && r == 0) {
        l->start = l->end;
        r = fill(l);
    }
    if (r == 0 && EVP_DigestFinal_ex(l->digest, ret_digest->octets, NULL) != 1)
        r = TEKD_ENOMEM;
    return r;
}

int file_read(int dirfd, const char *name, size_t max, struct buf **ret_buf, const char **why)
{
    AUTO(buf) struct buf *b = NULL;
    AUTO_FD int fd = -1;
    char chunk[4096];
    ssize_t n;
    int r = open_file(dirfd, name, &fd, why);

    if (r == 0)
        r = buf_new(max, &b);
    while (r == 0) {
        n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return unreadable(why, strerrordesc_np(errno));
        if (n == 0)
            break;
        r = buf_append(b, chunk, (size_t)n);
    }
    if (r == 0)
        *ret_buf = TAKE(b);
    return r;
}
