/*
 * What the pool costs: TEKs asked for by some threads, each for some at a time, against the bare
 * loop generate, wrap, wrap, destroy in as many processes as the pool has key workers.  Both run on
 * the same token, with KEKs as token objects, in turns, so that a machine whose speed drifts does
 * not decide.
 *
 *   bench_hsm [seconds of a round [rounds [threads [workers [at a time]]]]]
 */
#include "hsm_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/secret.h"
#include "token/token.h"

#define ROUNDS_MAX  50
#define THREADS_MAX 256

struct bench {
    double seconds;
    unsigned rounds, threads, workers, many;
    struct fixture *f;
    _Atomic int64_t *until; /* shared with the processes of the bare loop */
    _Atomic uint64_t *count;
    _Atomic unsigned *ready;
};

struct result {
    double per_second;
    double cpu_us; /* of all processors, for one */
};

static void must(int r, const char *what)
{
    if (r < 0) {
        (void)fprintf(stderr, "bench_hsm: %s fails\n", what);
        exit(1);
    }
}

static struct result result_of(const struct bench *b, double cpu_s)
{
    double n = (double)atomic_load(b->count);

    return (struct result){n / b->seconds, cpu_s * 1e6 / (n > 0 ? n : 1)};
}

/* ---------------------------------------------------------------- the bare loop ---- */

static void open_bare(struct bench *b, struct token **ret_token)
{
    const struct token_options o = {.module = TEST_SOFTHSM,
                                    .uri = FIXTURE_TOKEN,
                                    .profile = "softhsm",
                                    .access = TOKEN_READ_ONLY};
    AUTO(secret) struct secret *pin = NULL;

    (void)putenv(b->f->env_conf);
    must(secret_read_file(b->f->pin_file, &pin), "the PIN");
    must(token_new(&o, ret_token), "token_new");
    must(token_open(*ret_token), "token_open");
    must(token_login(*ret_token, pin), "token_login");
}

static _Noreturn void bare_process(struct bench *b)
{
    struct token *t = NULL;
    struct token_kek *storage = NULL;
    struct token_kek *bsa = NULL;
    struct hsm_blob blob;
    uint64_t n = 0;

    open_bare(b, &t);
    must(token_kek_find(t, &b->f->storage, &storage), "the storage KEK");
    must(token_kek_find(t, &b->f->bsa, &bsa), "the BSA's KEK");
    atomic_fetch_add(b->ready, 1);
    while (atomic_load(b->until) == 0)
        fixture_pause();
    while (clock_mono_us() < atomic_load(b->until)) {
        struct token_tek tek = {0};

        must(token_tek_generate(t, 128, &tek), "generate");
        must(token_tek_wrap(t, storage, &tek, &blob), "wrap");
        must(token_tek_wrap(t, bsa, &tek, &blob), "wrap");
        must(token_tek_destroy(t, &tek), "destroy");
        n++;
    }
    atomic_fetch_add(b->count, n);
    _exit(0);
}

static double cpu_of(int who)
{
    struct rusage u;

    must(getrusage(who, &u), "getrusage");
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Of the processes of the bare loop: from the moment that all are ready. */
static double cpu_of_processes(const pid_t *pid, unsigned n)
{
    double sum = 0;

    for (unsigned i = 0; i < n; i++) {
        struct timespec t;
        clockid_t clock;

        must(-clock_getcpuclockid(pid[i], &clock), "clock_getcpuclockid");
        must(clock_gettime(clock, &t), "clock_gettime");
        sum += (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    }
    return sum;
}

static struct result bare_round(struct bench *b)
{
    double before, children = cpu_of(RUSAGE_CHILDREN);
    pid_t pid[HSM_WORKERS_MAX] = {0};
    int status;

    atomic_store(b->until, 0);
    atomic_store(b->count, 0);
    atomic_store(b->ready, 0);
    for (unsigned i = 0; i < b->workers; i++) {
        pid[i] = fork();
        if (pid[i] == 0)
            bare_process(b);
        /* One after the other: SoftHSM fails at times when two processes open a token at once. */
        while (atomic_load(b->ready) == i && waitpid(pid[i], &status, WNOHANG) == 0)
            fixture_pause();
        must(atomic_load(b->ready) > i ? 0 : -1, "a process of the bare loop");
    }
    before = cpu_of_processes(pid, b->workers);
    atomic_store(b->until, fixture_in(b->seconds));
    for (unsigned i = 0; i < b->workers; i++)
        must(waitpid(pid[i], &status, 0) == pid[i] && status == 0 ? 0 : -1, "the bare loop");
    return result_of(b, cpu_of(RUSAGE_CHILDREN) - children - before);
}

/* ---------------------------------------------------------------- the pool --------- */

static void *caller(void *arg)
{
    struct bench *b = arg;
    struct hsm_order o[HSM_MANY_MAX];
    uint64_t n = 0;

    for (unsigned i = 0; i < b->many; i++)
        o[i] = (struct hsm_order){.bits = 128, .storage = &b->f->storage, .bsa = &b->f->bsa};
    while (clock_mono_us() < atomic_load(b->until)) {
        hsm_make_many(b->f->hsm, o, b->many, fixture_in(10));
        for (unsigned i = 0; i < b->many; i++)
            must(o[i].error, "hsm_make_many");
        n += b->many;
    }
    atomic_fetch_add(b->count, n);
    return NULL;
}

static struct result pool_round(struct bench *b)
{
    pthread_t thread[THREADS_MAX];
    pid_t pid[HSM_WORKERS_MAX] = {0};
    double before;

    for (unsigned i = 0; i < b->workers; i++)
        pid[i] = fixture_worker(b->f, i);
    before = cpu_of(RUSAGE_SELF) + cpu_of_processes(pid, b->workers);

    atomic_store(b->count, 0);
    atomic_store(b->until, fixture_in(b->seconds));
    for (unsigned i = 0; i < b->threads; i++)
        must(pthread_create(&thread[i], NULL, caller, b) == 0 ? 0 : -1, "pthread_create");
    for (unsigned i = 0; i < b->threads; i++)
        (void)pthread_join(thread[i], NULL);
    return result_of(b, cpu_of(RUSAGE_SELF) + cpu_of_processes(pid, b->workers) - before);
}

/* ---------------------------------------------------------------- results ---------- */

static int compare(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;

    return (*x > *y) - (*x < *y);
}

static void print(const char *name, double *v, unsigned n)
{
    qsort(v, n, sizeof(*v), compare);
    (void)printf("%-28s min %9.2f  median %9.2f  max %9.2f\n", name, v[0], v[n / 2], v[n - 1]);
}

static unsigned long long steal(void)
{
    unsigned long long v[8] = {0};
    FILE *f = fopen("/proc/stat", "re");

    if (f != NULL) {
        if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
                   &v[4], &v[5], &v[6], &v[7]) != 8)
            v[7] = 0;
        (void)fclose(f);
    }
    return v[7];
}

static unsigned number(int argc, char **argv, int i, unsigned fallback, unsigned max)
{
    unsigned long v = i < argc ? strtoul(argv[i], NULL, 10) : fallback;

    return v < 1 || v > max ? fallback : (unsigned)v;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"bare loop, per second",    "the pool, per second",
                                        "ratio of these",           "bare loop, us of CPU each",
                                        "the pool, us of CPU each", "ratio of CPU"};
    static double v[6][ROUNDS_MAX];
    unsigned long long stolen = steal();
    struct bench b = {.seconds = number(argc, argv, 1, 3, 600),
                      .rounds = number(argc, argv, 2, 5, ROUNDS_MAX),
                      .threads = number(argc, argv, 3, 16, THREADS_MAX),
                      .workers = number(argc, argv, 4, 2, HSM_WORKERS_MAX),
                      .many = number(argc, argv, 5, 1, HSM_MANY_MAX)};
    uint64_t *shared = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *state = NULL;

    must(shared == MAP_FAILED ? -1 : 0, "mmap");
    b.until = (_Atomic int64_t *)&shared[0];
    b.count = (_Atomic uint64_t *)&shared[1];
    b.ready = (_Atomic unsigned *)&shared[2];
    must(fixture_setup(&state), "set-up");
    b.f = state;
    b.f->options.workers = b.workers;
    b.f->options.max_waiting = b.threads;
    fixture_start(b.f);
    (void)fixture_worker(b.f, b.workers - 1);
    for (unsigned i = 0; i < b.rounds; i++) {
        struct result bare = bare_round(&b);
        struct result pool = pool_round(&b);

        v[0][i] = bare.per_second;
        v[1][i] = pool.per_second;
        v[2][i] = pool.per_second / bare.per_second;
        v[3][i] = bare.cpu_us;
        v[4][i] = pool.cpu_us;
        v[5][i] = bare.cpu_us / pool.cpu_us;
    }
    (void)printf("%u workers, %u threads, %u at a time, %u rounds of %.0f s, stolen ticks %llu\n",
                 b.workers, b.threads, b.many, b.rounds, b.seconds, steal() - stolen);
    for (size_t i = 0; i < ARRAY_SIZE(v); i++)
        print(names[i], v[i], b.rounds);
    return fixture_teardown(&state);
}
