/*
 * Preloaded into a server under test: counts fdatasync() and fsync(), and the time they take, of
 * the program whose name BENCH_SYNCOUNT_PROGRAM has (its children inherit the preload, but not the
 * name).  The counters are three 64-bit integers in the file BENCH_SYNCOUNT_FILE, which another
 * process reads while they rise: calls, nanoseconds, calls that failed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct counters {
    _Atomic uint64_t calls, ns, failed;
};

/* A shared library's constructor has nobody to hand its state to. */
static struct counters nowhere;
static struct counters *counters = &nowhere;

__attribute__((constructor)) static void attach(void)
{
    const char *program = getenv("BENCH_SYNCOUNT_PROGRAM");
    const char *path = getenv("BENCH_SYNCOUNT_FILE");
    void *map;
    int fd;

    if (program == NULL || path == NULL || strcmp(program, program_invocation_short_name) != 0)
        return;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (ftruncate(fd, (off_t)sizeof(struct counters)) == 0) {
        map = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED)
            counters = map;
    }
    (void)close(fd);
}

static uint64_t now_ns(void)
{
    struct timespec ts = {.tv_sec = 0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int counted(int fd, const char *call)
{
    int (*real)(int) = NULL;
    void *symbol = dlsym(RTLD_NEXT, call);
    uint64_t before = now_ns();
    int r;

    /* ISO C has no cast from an object pointer to a function pointer; POSIX wants this to work. */
    memcpy(&real, &symbol, sizeof(real));
    r = real(fd);
    atomic_fetch_add(&counters->calls, 1);
    atomic_fetch_add(&counters->ns, now_ns() - before);
    if (r != 0)
        atomic_fetch_add(&counters->failed, 1);
    return r;
}

int fdatasync(int fd)
{
    return counted(fd, "fdatasync");
}

int fsync(int fd)
{
    return counted(fd, "fsync");
}
