/*
 * What a checkpoint costs, with one signature and with two: hsm_sign_checkpoint() over one leaf
 * more each time, in turns, so that a machine whose speed drifts does not decide.
 *
 *   bench_sign [signatures of a round [rounds]]
 */
#include "hsm_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"

#define ROUNDS_MAX 50
#define ORIGIN     "bsm.example.net/tekd/audit/1"

static void must(int r, const char *what)
{
    if (r < 0) {
        (void)fprintf(stderr, "bench_sign: %s fails\n", what);
        exit(1);
    }
}

/* Microseconds for one. */
static double one_round(struct fixture *f, unsigned n, const char *second)
{
    struct note last = {.origin = ORIGIN};
    struct merkle_range range;
    struct merkle_hash leaf;
    int64_t since;

    fixture_stop(f);
    f->options.ed25519_key = second;
    fixture_start(f);
    merkle_range_init(&range);
    merkle_range_root(&range, &last.root);
    since = clock_mono_us();
    for (unsigned i = 0; i < n; i++) {
        const struct hsm_checkpoint in = {.last = &last, .range = &range, .leaves = &leaf, .n = 1};
        struct note note;

        merkle_leaf(&i, sizeof(i), &leaf);
        must(hsm_sign_checkpoint(f->hsm, &in, fixture_in(10), &note), "a checkpoint");
        merkle_range_append(&range, &leaf);
        last = note;
    }
    return (double)(clock_mono_us() - since) / n;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *values, unsigned n)
{
    qsort(values, n, sizeof(*values), by_value);
    return values[n / 2];
}

int main(int argc, char **argv)
{
    unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
    unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 5;
    double us[2][ROUNDS_MAX];
    void *state = NULL;

    if (n == 0 || rounds == 0 || rounds > ROUNDS_MAX)
        return 2;
    (void)fixture_setup(&state);
    for (unsigned i = 0; i < rounds; i++) {
        us[0][i] = one_round(state, n, NULL);
        us[1][i] = one_round(state, n, FIXTURE_ED25519);
    }
    (void)printf("a checkpoint: %.0f us with one signature, %.0f us with two\n",
                 median(us[0], rounds), median(us[1], rounds));
    return fixture_teardown(&state);
}
