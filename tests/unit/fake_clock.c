#include <stdatomic.h>

#include "fake_clock.h"
#include "tekd/clock.h"

static _Atomic int64_t utc = 1767225600000000; /* 2026-01-01T00:00:00Z */
static _Atomic int64_t mono = 1000000;

void fake_clock_set_utc(int64_t utc_us)
{
    atomic_store(&utc, utc_us);
}

void fake_clock_set_mono(int64_t mono_us)
{
    atomic_store(&mono, mono_us);
}

void fake_clock_advance(int64_t us)
{
    atomic_fetch_add(&utc, us);
    atomic_fetch_add(&mono, us);
}

int64_t clock_utc_us(void)
{
    return atomic_load(&utc);
}

int64_t clock_mono_us(void)
{
    return atomic_load(&mono);
}
