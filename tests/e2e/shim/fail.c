/*
 * Preloaded into tekd or tekd_testclock: makes calls on certain files fail, as a disk does.
 *
 * A page shared with the test (the file named by TEKD_TEST_FAIL) has one struct rule for each kind
 * of call:
 *     0  fdatasync() and fsync() of the database's files
 *     1  pwrite() of the database's files
 *     2  write(), fdatasync() and fsync() of the anchor's files
 * The test sets first and last, numbers of calls of the kind, and error: the calls from first to
 * last fail with it; the shim counts calls, and those that failed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DATABASE_SYNC, DATABASE_WRITE, ANCHOR, RULES };

struct rule {
    _Atomic uint64_t count;
    _Atomic uint64_t first; /* 0: none fails */
    _Atomic uint64_t last;
    _Atomic uint64_t error;
    _Atomic uint64_t failed;
};

static struct rule *rules;
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TEKD_TEST_FAIL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page;

    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
    if (fd < 0 || (strcmp(program_invocation_short_name, "tekd") != 0 &&
                   strcmp(program_invocation_short_name, "tekd_testclock") != 0))
        return;
    page = mmap(NULL, RULES * sizeof(struct rule), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (page != MAP_FAILED)
        rules = page;
}

/* Whether the file's path has this in it. */
static bool is_of(int fd, const char *part)
{
    char link[32], path[PATH_MAX];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strstr(path, part) != NULL;
}

static bool fails(int fd, int which, const char *part)
{
    struct rule *r = rules ? &rules[which] : NULL;
    uint64_t n;

    if (!r || !is_of(fd, part))
        return false;
    n = atomic_fetch_add(&r->count, 1) + 1;
    if (atomic_load(&r->first) == 0 || n < atomic_load(&r->first) || n > atomic_load(&r->last))
        return false;
    atomic_fetch_add(&r->failed, 1);
    errno = (int)atomic_load(&r->error);
    return true;
}

static bool sync_fails(int fd)
{
    return fails(fd, DATABASE_SYNC, "/tekd.db") || fails(fd, ANCHOR, "/anchor");
}

int fdatasync(int fd)
{
    return sync_fails(fd) ? -1 : real_fdatasync(fd);
}

int fsync(int fd)
{
    return sync_fails(fd) ? -1 : real_fsync(fd);
}

ssize_t write(int fd, const void *octets, size_t len)
{
    return fails(fd, ANCHOR, "/anchor") ? -1 : real_write(fd, octets, len);
}

ssize_t pwrite64(int fd, const void *octets, size_t len, off64_t at)
{
    return fails(fd, DATABASE_WRITE, "/tekd.db") ? -1 : real_pwrite64(fd, octets, len, at);
}
