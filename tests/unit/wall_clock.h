/*
 * The clock that libraries read by themselves, as OpenSSL does to see whether a certificate is
 * valid: time() of the whole program, ahead of the real one by as much as a test says.
 */
#ifndef TEST_WALL_CLOCK_H
#define TEST_WALL_CLOCK_H

#include <stdint.h>

void wall_clock_ahead(int64_t seconds);

#endif
