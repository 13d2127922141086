/*
 * The thread for what waits for the HSM: TEKs of crypto-periods, and fan-outs.  It takes them in
 * turns, one TEK and one group of each fan-out, so that neither has to wait for the end of the
 * other.  All of it stands in the store; what fails is tried again behind a pause that doubles, and
 * each of the two has its own: a fan-out that goes on failing does not delay a TEK.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "tekd/err.h"
#include "tekd/log.h"

struct pause {
    uint32_t failures; /* in a row */
    int64_t until_us;  /* mono; 0: there is none */
};

struct jobs {
    struct push *push;
    struct periods *periods;
    pthread_t thread;
    bool started;
    _Atomic bool stop;
    _Atomic int64_t late;
    struct pause periods_pause, fanouts_pause; /* the thread's own, as is this: */
    bool read;                                 /* there may be contents to be read */
    pthread_mutex_t lock;                      /* guards what follows */
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

/* Behind what came to r: how long it is, 0 if that is no error. */
static int64_t pause_after(struct jobs *j, struct pause *p, int r, int64_t now_us)
{
    int64_t us;

    if (r == 0) {
        *p = (struct pause){.failures = 0};
        return 0;
    }
    us = backoff_us(&j->push->backoff, ++p->failures, backoff_random());
    p->until_us = now_us + us;
    return us;
}

/* One TEK, if one is due.  Returns how long until there is more. */
static int64_t work_on_periods(struct jobs *j, int64_t now_us)
{
    int64_t wait_us = 0, pause_us;
    int r = 0;

    if (j->periods_pause.until_us > now_us)
        return j->periods_pause.until_us - now_us;
    if (j->read)
        r = periods_read(j->periods);
    if (r == 0) {
        j->read = false;
        r = periods_step(j->periods, &wait_us);
    }
    atomic_store(&j->late, periods_late(j->periods));
    pause_us = pause_after(j, &j->periods_pause, r, now_us);
    return r < 0 ? pause_us : wait_us;
}

/* The same of fan-outs. */
static int64_t work_on_fanouts(struct jobs *j, int64_t now_us)
{
    bool any = false;
    int64_t pause_us;

    if (j->fanouts_pause.until_us > now_us)
        return j->fanouts_pause.until_us - now_us;
    pause_us = pause_after(j, &j->fanouts_pause, fanouts_pass(j, &any), now_us);
    return pause_us > 0 || any ? pause_us : INT64_MAX;
}

static void *run(void *arg)
{
    struct jobs *j = arg;
    int64_t wait_us = 0;

    (void)pthread_setname_np(pthread_self(), "jobs");
    j->read = true;
    while (!atomic_load(&j->stop)) {
        int64_t now_us, other_us;

        j->read = wait_for_work(j, wait_us) || j->read;
        now_us = moment_now().mono_us;
        wait_us = work_on_periods(j, now_us);
        other_us = work_on_fanouts(j, now_us);
        wait_us = other_us < wait_us ? other_us : wait_us;
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
