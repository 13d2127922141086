/*
 * What the benchmark's programs measure with: a clock, their own CPU time, a histogram of
 * durations, and JSON on stdout.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

/* Nanoseconds of a clock that never steps. */
int64_t measure_now_ns(void);

/* User and system CPU time of this process (RUSAGE_SELF) or its reaped children, microseconds. */
int64_t measure_cpu_us(int who);

/*
 * A histogram of nanoseconds with 64 steps to each power of two: a quantile is at most 1.6 % too
 * high.  Durations over MEASURE_HIST_MAX_NS are counted as that.
 */
#define MEASURE_HIST_SUB    64
#define MEASURE_HIST_POWERS 36
#define MEASURE_HIST_MAX_NS ((INT64_C(1) << 41) - 1) /* 36 minutes: longer than any run */

struct measure_hist {
    uint64_t count[MEASURE_HIST_POWERS * MEASURE_HIST_SUB];
    uint64_t n;
    int64_t min, max;
    double sum;
};

void measure_hist_add(struct measure_hist *h, int64_t ns);

/* The smallest duration that at least the share q (0..1) of all is not above; 0 if empty. */
int64_t measure_hist_quantile(const struct measure_hist *h, double q);

/* {"n","min_us","mean_us","p50_us","p90_us","p99_us","max_us"}; a new reference, never NULL. */
json_t *measure_hist_json(const struct measure_hist *h);

/* Prints one line of JSON to stdout and drops the reference.  Returns 0, or -1 with a message. */
int measure_print(json_t *result);

#endif
