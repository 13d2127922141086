#include "tekd/backoff.h"

#include <sys/random.h>

#define SECOND_US     INT64_C(1000000)
#define DOUBLINGS_MAX 20 /* of a second: twelve days */

int64_t backoff_us(const struct backoff *b, uint32_t n, uint32_t random)
{
    uint32_t doublings = n > 0 ? n - 1 : 0;
    int64_t pause_s = b->initial_s;

    if (doublings > DOUBLINGS_MAX)
        doublings = DOUBLINGS_MAX;
    pause_s <<= doublings;
    if (pause_s > b->max_s)
        pause_s = b->max_s;
    return pause_s * SECOND_US - pause_s * (SECOND_US / 4) * (random >> 16) / 65536;
}

uint32_t backoff_random(void)
{
    uint32_t random = 0;

    return getrandom(&random, sizeof(random), GRND_NONBLOCK) == sizeof(random) ? random : 0;
}
