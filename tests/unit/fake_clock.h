/* The tests' clock: stands where a test puts it. */
#ifndef TEST_FAKE_CLOCK_H
#define TEST_FAKE_CLOCK_H

#include <stdint.h>

void fake_clock_set_utc(int64_t utc_us);
void fake_clock_set_mono(int64_t mono_us);
void fake_clock_advance(int64_t us);

#endif
