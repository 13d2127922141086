/*
 * Preloaded into tekd, tekd-hsm or tek-bsa: stops a thread just before a certain call, until it is
 * let go.
 *
 * A page shared with the test (the file named by TEKD_TEST_HOLD) has one struct slot for each kind
 * of call:
 *     0  fdatasync() and fsync(), of any file, in tekd or tek-bsa
 *     1  send() of a worker's reply to sign_checkpoint (octet 1 of the datagram is 0x83)
 * The test sets hold_at to the number of a call to come; the shim counts the calls, and when that
 * one begins sets held and waits until release is set.  Later calls of the kind pass.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SLOT_SYNC, SLOT_REPLY, SLOTS };
#define REPLY_SIGN_CHECKPOINT 0x83

struct slot {
    _Atomic uint64_t count;
    _Atomic uint64_t hold_at; /* 0: none */
    _Atomic uint64_t held;
    _Atomic uint64_t release;
};

static struct slot *slots;
static int syncs; /* whether calls of slot 0 are those of this program */
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static ssize_t (*real_send)(int, const void *, size_t, int);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TEKD_TEST_HOLD");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page;

    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_send = dlsym(RTLD_NEXT, "send");
    syncs = strcmp(program_invocation_short_name, "tekd") == 0 ||
            strcmp(program_invocation_short_name, "tek-bsa") == 0;
    if (fd < 0)
        return;
    page = mmap(NULL, SLOTS * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (page != MAP_FAILED)
        slots = page;
}

static void pass(int which)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct slot *s;

    if (!slots)
        return;
    s = &slots[which];
    if (atomic_fetch_add(&s->count, 1) + 1 != atomic_load(&s->hold_at))
        return;
    atomic_store(&s->held, 1);
    while (!atomic_load(&s->release))
        (void)nanosleep(&pause, NULL);
}

int fdatasync(int fd)
{
    if (syncs)
        pass(SLOT_SYNC);
    return real_fdatasync(fd);
}

int fsync(int fd)
{
    if (syncs)
        pass(SLOT_SYNC);
    return real_fsync(fd);
}

ssize_t send(int fd, const void *octets, size_t len, int flags)
{
    if (len > 1 && !syncs && ((const uint8_t *)octets)[1] == REPLY_SIGN_CHECKPOINT)
        pass(SLOT_REPLY);
    return real_send(fd, octets, len, flags);
}
