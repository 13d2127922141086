#include "measure.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "tekd/auto.h"

/*
 * Bucket layout: durations below 64 ns have a bucket each; above, with p = the position of the
 * highest bit, 64 buckets share [2^p, 2^(p+1)).  Bucket = (p - 5) * 64 + the six bits below p.
 */
#define SUB_BITS 6
_Static_assert(MEASURE_HIST_SUB == 1 << SUB_BITS, "steps to a power of two");
_Static_assert(MEASURE_HIST_MAX_NS >> (MEASURE_HIST_POWERS + SUB_BITS - 1) == 0, "last bucket");

int64_t measure_now_ns(void)
{
    struct timespec ts;
    int r = clock_gettime(CLOCK_MONOTONIC, &ts);

    assert(r == 0);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t measure_cpu_us(int who)
{
    struct rusage ru;
    int r = getrusage(who, &ru);

    assert(r == 0);
    return (int64_t)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 + ru.ru_utime.tv_usec +
           ru.ru_stime.tv_usec;
}

static size_t bucket_of(int64_t ns)
{
    uint64_t v = (uint64_t)ns;
    unsigned p;

    if (v < MEASURE_HIST_SUB)
        return v;
    p = 63U - (unsigned)__builtin_clzll(v);
    return (size_t)(p - SUB_BITS + 1) * MEASURE_HIST_SUB +
           ((v >> (p - SUB_BITS)) & (MEASURE_HIST_SUB - 1));
}

/* The largest duration of a bucket. */
static int64_t bucket_top(size_t bucket)
{
    size_t power = bucket / MEASURE_HIST_SUB;
    uint64_t sub = bucket % MEASURE_HIST_SUB;

    if (power == 0)
        return (int64_t)sub;
    return (int64_t)(((MEASURE_HIST_SUB + sub + 1) << (power - 1)) - 1);
}

void measure_hist_add(struct measure_hist *h, int64_t ns)
{
    if (ns < 0)
        ns = 0;
    if (ns > MEASURE_HIST_MAX_NS)
        ns = MEASURE_HIST_MAX_NS;
    if (h->n == 0 || ns < h->min)
        h->min = ns;
    if (ns > h->max)
        h->max = ns;
    h->sum += (double)ns;
    h->n++;
    h->count[bucket_of(ns)]++;
}

int64_t measure_hist_quantile(const struct measure_hist *h, double q)
{
    uint64_t rank = (uint64_t)ceil(q * (double)h->n);
    uint64_t seen = 0;

    if (h->n == 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(h->count); i++) {
        seen += h->count[i];
        if (seen >= rank && seen > 0)
            return bucket_top(i) < h->max ? bucket_top(i) : h->max;
    }
    return h->max;
}

json_t *measure_hist_json(const struct measure_hist *h)
{
    json_t *j =
        json_pack("{sI, sf, sf, sf, sf, sf, sf}", "n", (json_int_t)h->n, "min_us",
                  (double)h->min / 1e3, "mean_us", h->n == 0 ? 0.0 : h->sum / (double)h->n / 1e3,
                  "p50_us", (double)measure_hist_quantile(h, 0.5) / 1e3, "p90_us",
                  (double)measure_hist_quantile(h, 0.9) / 1e3, "p99_us",
                  (double)measure_hist_quantile(h, 0.99) / 1e3, "max_us", (double)h->max / 1e3);

    assert(j != NULL);
    return j;
}

int measure_print(json_t *result)
{
    int r;

    assert(result != NULL);
    r = json_dumpf(result, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    json_decref(result);
    if (r != 0 || fputc('\n', stdout) == EOF || fflush(stdout) != 0) {
        perror("writing the result to stdout");
        return -1;
    }
    return 0;
}
