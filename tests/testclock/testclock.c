/*
 * The clock of tekd_testclock: the two functions of tekd/clock.h, reading the kernel's clock
 * through a page that a test writes.  The page is the file named by TEKD_TEST_CLOCK, five fields of
 * eight octets in the machine's order:
 *
 *     turn     odd while the others are being written, one more after each change
 *     real     CLOCK_MONOTONIC in microseconds when they were written
 *     utc      what clock_utc_us() said at that moment
 *     mono     and what clock_mono_us() said
 *     rate     thousandths: 1000 is the kernel's speed, 0 stands still
 *
 * Both go on from there with that speed; what a thread sleeps is real time.
 */
#include "tekd/clock.h"

#include <assert.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum field { TURN, REAL, UTC, MONO, RATE, FIELDS };

static const _Atomic int64_t *page;

/* Before main(): no thread has asked yet. */
__attribute__((constructor)) static void testclock_open(void)
{
    const char *path = getenv("TEKD_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *p =
        fd < 0 ? MAP_FAILED : mmap(NULL, FIELDS * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED) {
        (void)fprintf(stderr, "tekd_testclock: TEKD_TEST_CLOCK names no page of a clock\n");
        _exit(2);
    }
    (void)close(fd);
    page = p;
}

static int64_t real_us(void)
{
    struct timespec ts;
    int r = clock_gettime(CLOCK_MONOTONIC, &ts);

    assert(r == 0);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t now_us(enum field base)
{
    int64_t turn, at, real, rate;

    do {
        turn = atomic_load(&page[TURN]);
        at = atomic_load(&page[base]);
        real = atomic_load(&page[REAL]);
        rate = atomic_load(&page[RATE]);
    } while (turn % 2 != 0 || turn != atomic_load(&page[TURN]));
    return at + (real_us() - real) * rate / 1000;
}

int64_t clock_utc_us(void)
{
    return now_us(UTC);
}

int64_t clock_mono_us(void)
{
    return now_us(MONO);
}
