/*
 * The thread for what waits for the HSM: TEKs of crypto-periods, and fan-outs.  It takes them in
 * turns, one TEK and one group of each fan-out, so that neither has to wait for the end of the
 * other.  All of it stands in the store; what fails is tried again behind a pause that doubles.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "tekd/err.h"
#include "tekd/log.h"

struct jobs {
    struct push *push;
    struct periods *periods;
    pthread_t thread;
    bool started;
    _Atomic bool stop;
    _Atomic int64_t late;
    uint32_t failures;    /* in a row; the thread's own */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t woken;
    bool wake;
};

/* ---- fan-outs -------------------------------------------------------------------------------- */

/* The next one behind a row. */
struct next {
    int64_t after;
    struct store_fanout f;
    bool found;
};

static int take_next(void *arg, const struct store_fanout *f)
{
    struct next *n = arg;

    n->f = *f;
    n->found = true;
    return 0;
}

static int find_next(void *arg, struct store_tx *tx)
{
    struct next *n = arg;
    const struct store_walk w = {.after = n->after, .limit = 1, .arg = n};

    n->found = false;
    return store_tx_fanout_walk(tx, &w, take_next);
}

static int fanout_step(struct jobs *j, const struct store_fanout *f)
{
    bool done = false;
    int r = keys_fanout_step(j->push->keys, f, j->push->deadline_s, &done);

    if (r < 0)
        log_event(LOG_WARN, "push", "fanout-failed", LOG_INT("fanout", f->row),
                  LOG_STR("error", tekd_strerror(r)));
    else if (done)
        log_event(LOG_INFO, "push", "fanout-through", LOG_INT("fanout", f->row));
    return r;
}

/* One group of each.  One that fails does not stand before the others; its error is returned. */
static int fanouts_pass(struct jobs *j, bool *ret_any)
{
    struct next n = {.after = 0};
    int error = 0;
    int r;

    *ret_any = false;
    while ((r = store_call(j->push->store, STORE_READ, find_next, &n)) == 0 && n.found &&
           !atomic_load(&j->stop)) {
        n.after = n.f.row;
        r = fanout_step(j, &n.f);
        if (r < 0)
            error = r;
        else
            *ret_any = true;
    }
    return r < 0 ? r : error;
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* The condition's clock is not the one of clock_mono_us() in tests. */
static struct timespec wake_time(int64_t wait_us)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(wait_us / SECOND_US);
    ts.tv_nsec += (long)(wait_us % SECOND_US) * 1000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

/* Until a wake or for wait_us, but never long: UTC may have stepped.  Returns whether woken. */
static bool wait_for_work(struct jobs *j, int64_t wait_us)
{
    struct timespec until = wake_time(wait_us < PUSH_TICK_US ? wait_us : PUSH_TICK_US);
    bool woken;
    int r = 0;

    (void)pthread_mutex_lock(&j->lock);
    while (!j->wake && wait_us > 0 && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&j->woken, &j->lock, &until);
    woken = j->wake;
    j->wake = false;
    (void)pthread_mutex_unlock(&j->lock);
    return woken;
}

/* All that is due once.  Returns an error, or 0 and how long until there is more. */
static int work(struct jobs *j, int64_t *ret_wait_us)
{
    bool any = false;
    int made = periods_step(j->periods, ret_wait_us);
    int fanned = fanouts_pass(j, &any);

    atomic_store(&j->late, periods_late(j->periods));
    if (any)
        *ret_wait_us = 0;
    return made < 0 ? made : fanned;
}

static void *run(void *arg)
{
    struct jobs *j = arg;
    int64_t again_us = 0; /* mono: the end of a pause */
    int64_t wait_us = 0;
    bool read = true;

    (void)pthread_setname_np(pthread_self(), "jobs");
    while (!atomic_load(&j->stop)) {
        int64_t now_us;
        int r = 0;

        read = wait_for_work(j, wait_us) || read;
        now_us = moment_now().mono_us;
        wait_us = again_us - now_us;
        if (wait_us > 0)
            continue;
        if (read)
            r = periods_read(j->periods);
        if (r == 0) {
            read = false;
            r = work(j, &wait_us);
        }
        j->failures = r < 0 ? j->failures + 1 : 0;
        again_us =
            r < 0 ? now_us + backoff_us(&j->push->backoff, j->failures, backoff_random()) : 0;
        if (r < 0)
            wait_us = again_us - now_us;
    }
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int init(struct jobs *j)
{
    pthread_condattr_t attr;

    if (pthread_condattr_init(&attr) != 0)
        return TEKD_ENOMEM;
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&j->woken, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&j->lock, NULL);
    return periods_new(j->push, &j->periods);
}

int jobs_new(struct push *p, struct jobs **ret_jobs)
{
    struct jobs *j = calloc(1, sizeof(*j));
    int r;

    if (!j)
        return TEKD_ENOMEM;
    j->push = p;
    r = init(j);
    if (r < 0) {
        jobs_free(j);
        return r;
    }
    *ret_jobs = j;
    return 0;
}

int jobs_start(struct jobs *j)
{
    j->started = pthread_create(&j->thread, NULL, run, j) == 0;
    return j->started ? 0 : TEKD_ENOMEM;
}

void jobs_wake(struct jobs *j)
{
    (void)pthread_mutex_lock(&j->lock);
    j->wake = true;
    (void)pthread_cond_signal(&j->woken);
    (void)pthread_mutex_unlock(&j->lock);
}

void jobs_stop(struct jobs *j)
{
    if (!j || !j->started)
        return;
    atomic_store(&j->stop, true);
    jobs_wake(j);
    (void)pthread_join(j->thread, NULL);
    j->started = false;
}

void jobs_free(struct jobs *j)
{
    if (!j)
        return;
    jobs_stop(j);
    periods_free(j->periods);
    (void)pthread_cond_destroy(&j->woken);
    (void)pthread_mutex_destroy(&j->lock);
    free(j);
}

int64_t jobs_late(struct jobs *j)
{
    return atomic_load(&j->late);
}
