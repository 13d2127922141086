/*
 * A secret's memory is a mapping of its own:
 *
 *     | guard page | unused ... octets, one zero octet | guard page |
 *
 * The octets stand at the end, so that the first octet written past them faults.  The pages
 * between the guards are locked, left out of dumps and zero in a forked child; the struct that
 * describes them is ordinary memory.
 */
#include "tekd/secret.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "tekd/err.h"
#include "tekd/log.h"

/* What a file may allow at most: reading and writing by its owner. */
#define PRIVATE_MODE 0600

struct secret {
    uint8_t *map; /* with both guard pages */
    size_t map_len;
    uint8_t *octets;
    size_t len;
};

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static uint8_t *inner(const struct secret *s)
{
    return s->map + page_size();
}

static size_t inner_len(const struct secret *s)
{
    return s->map_len - 2 * page_size();
}

/* Logs the failed call; whatever the kernel's reason, the caller has no secret memory. */
static int refused(const char *call)
{
    log_event(LOG_ERROR, "secret", "no-protected-memory", LOG_STR("call", call),
              LOG_STR("error", strerrorname_np(errno)));
    return TEKD_ENOMEM;
}

static int lock_failed(size_t len)
{
    int errnum = errno;
    struct rlimit limit = {0};

    if (errnum != ENOMEM && errnum != EPERM && errnum != EAGAIN)
        return refused("mlock");
    (void)getrlimit(RLIMIT_MEMLOCK, &limit);
    log_event(LOG_ERROR, "secret", "memory-not-locked", LOG_STR("call", "mlock"),
              LOG_STR("error", strerrorname_np(errnum)), LOG_INT("octets", len),
              LOG_INT("limit", limit.rlim_cur),
              LOG_STR("hint", "raise RLIMIT_MEMLOCK: LimitMEMLOCK= of the unit, or ulimit -l"));
    return TEKD_ENOMEM;
}

static int protect(struct secret *s)
{
    uint8_t *p = inner(s);
    size_t len = inner_len(s);

    if (mprotect(p, len, PROT_READ | PROT_WRITE) < 0)
        return refused("mprotect");
    if (madvise(p, len, MADV_DONTDUMP) < 0)
        return refused("madvise(MADV_DONTDUMP)");
    if (madvise(p, len, MADV_WIPEONFORK) < 0)
        return refused("madvise(MADV_WIPEONFORK)");
    if (mlock(p, len) < 0)
        return lock_failed(len);
    return 0;
}

int secret_new(size_t len, struct secret **ret_secret)
{
    AUTO(secret) struct secret *s = NULL;
    size_t page = page_size();
    void *map;
    int r;

    if (len < 1 || len > SECRET_MAX)
        return TEKD_EINVAL;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return TEKD_ENOMEM;
    s->map_len = (len + 1 + page - 1) / page * page + 2 * page;
    map = mmap(NULL, s->map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return refused("mmap");
    s->map = map;
    r = protect(s);
    if (r < 0)
        return r;
    s->octets = inner(s) + inner_len(s) - (len + 1);
    s->len = len;
    *ret_secret = TAKE(s);
    return 0;
}

void secret_free(struct secret *s)
{
    if (s == NULL)
        return;
    /* Without octets the pages were never handed out, and may not be writable. */
    if (s->octets != NULL)
        OPENSSL_cleanse(inner(s), inner_len(s));
    if (s->map != NULL)
        (void)munmap(s->map, s->map_len); /* unlocks as well */
    free(s);
}

int secret_dup(const struct secret *s, struct secret **ret_secret)
{
    AUTO(secret) struct secret *copy = NULL;
    int r;

    r = secret_new(s->len, &copy);
    if (r < 0)
        return r;
    memcpy(copy->octets, s->octets, s->len);
    *ret_secret = TAKE(copy);
    return 0;
}

uint8_t *secret_get(struct secret *s)
{
    return s->octets;
}

const uint8_t *secret_peek(const struct secret *s)
{
    return s->octets;
}

size_t secret_len(const struct secret *s)
{
    return s->len;
}

void secret_truncate(struct secret *s, size_t len)
{
    assert(len >= 1 && len <= s->len);
    OPENSSL_cleanse(s->octets + len, s->len - len);
    s->len = len;
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
    return a->len == b->len && CRYPTO_memcmp(a->octets, b->octets, a->len) == 0;
}

/* Fills out until the end of the file or of the room. */
static int read_all(int fd, uint8_t *out, size_t room, size_t *ret_len)
{
    size_t len = 0;

    while (len < room) {
        ssize_t n = read(fd, out + len, room - len);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            log_event(LOG_ERROR, "secret", "read-failed", LOG_STR("call", "read"),
                      LOG_STR("error", strerrorname_np(errno)));
            return TEKD_EIO;
        }
        len += (size_t)n;
    }
    *ret_len = len;
    return 0;
}

static size_t without_line_end(const uint8_t *data, size_t len)
{
    if (len > 0 && data[len - 1] == '\n')
        len--;
    else
        return len;
    return len > 0 && data[len - 1] == '\r' ? len - 1 : len;
}

int secret_read_fd(int fd, struct secret **ret_secret)
{
    AUTO(secret) struct secret *whole = NULL;
    AUTO(secret) struct secret *s = NULL;
    size_t len;
    int r;

    r = secret_new(SECRET_MAX, &whole);
    if (r < 0)
        return r;
    /* The place of the closing zero octet shows that there is more than fits. */
    r = read_all(fd, whole->octets, SECRET_MAX + 1, &len);
    if (r < 0)
        return r;
    if (len > SECRET_MAX)
        return TEKD_ETOOBIG;
    len = without_line_end(whole->octets, len);
    if (len == 0)
        return TEKD_EFORMAT;
    /* The largest secret was room for reading; what stays locked is as small as its content. */
    r = secret_new(len, &s);
    if (r < 0)
        return r;
    memcpy(s->octets, whole->octets, len);
    *ret_secret = TAKE(s);
    return 0;
}

static int check_private(int fd, const char *path)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        log_event(LOG_ERROR, "secret", "read-failed", LOG_STR("call", "fstat"),
                  LOG_STR("error", strerrorname_np(errno)), LOG_STR("path", path));
        return TEKD_EIO;
    }
    if (S_ISREG(st.st_mode) && (st.st_mode & 07777 & ~(mode_t)PRIVATE_MODE) == 0 &&
        (st.st_uid == geteuid() || st.st_uid == 0))
        return 0;
    log_event(LOG_ERROR, "secret", "file-not-private", LOG_STR("path", path),
              LOG_INT("owner", st.st_uid),
              LOG_STR("hint", "a regular file of this user or root, mode 0600 or stricter"));
    return TEKD_EDENIED;
}

int secret_read_file(const char *path, struct secret **ret_secret)
{
    /* O_NONBLOCK: a FIFO in the file's place must not hang the start; it is refused below. */
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int r;

    if (fd < 0) {
        r = tekd_err_from_errno(errno);
        log_event(LOG_ERROR, "secret", "read-failed", LOG_STR("call", "open"),
                  LOG_STR("error", strerrorname_np(errno)), LOG_STR("path", path));
        return r == TEKD_ENOTFOUND || r == TEKD_EDENIED ? r : TEKD_EIO;
    }
    r = check_private(fd, path);
    if (r < 0)
        return r;
    return secret_read_fd(fd, ret_secret);
}

int secret_no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}
