/*
 * The clock.  lib/base/clock.c, which the programs link, reads the kernel's clocks and has no
 * door: no setting, no symbol, no environment variable moves it.  Tests link another object with
 * the same two functions (tests/unit/fake_clock.c).
 */
#ifndef TEKD_CLOCK_H
#define TEKD_CLOCK_H

#include <stdint.h>

/* Microseconds since 1970-01-01T00:00:00Z; may step. */
int64_t clock_utc_us(void);

/* Microseconds since some point in the past; never steps; for deadlines. */
int64_t clock_mono_us(void);

#endif
