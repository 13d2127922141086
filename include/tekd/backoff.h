/*
 * The pause behind failures: it doubles, and chance shortens it, so that what failed together does
 * not come back together.
 *
 * Thread rule: from any thread.
 */
#ifndef TEKD_BACKOFF_H
#define TEKD_BACKOFF_H

#include <stdint.h>

struct backoff {
    unsigned initial_s, max_s;
};

/*
 * Microseconds behind the n-th failure, from 1: initial_s doubling to max_s, less up to a quarter
 * by random (any 32 bits).
 */
int64_t backoff_us(const struct backoff *b, uint32_t n, uint32_t random);

/* 32 bits that need not be secret. */
uint32_t backoff_random(void);

#endif
