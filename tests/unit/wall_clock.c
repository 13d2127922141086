#include "wall_clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t ahead_s;

void wall_clock_ahead(int64_t seconds)
{
    atomic_store(&ahead_s, seconds);
}

time_t time(time_t *ret)
{
    struct timespec now;
    time_t t;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    t = now.tv_sec + (time_t)atomic_load(&ahead_s);
    if (ret)
        *ret = t;
    return t;
}
