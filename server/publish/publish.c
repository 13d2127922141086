/*
 * The life of the publishers, and what all of them do alike: when it is time, what is new, what is
 * said of the outcome.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tekd/backoff.h"
#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* ---- one turn -------------------------------------------------------------------------------- */

/* An epoch follows the last one from size 1 on. */
static bool is_newer(const struct publication *n, const struct publish_status *s)
{
    return n->epoch > s->epoch || (n->epoch == s->epoch && n->note.size > s->size);
}

static void worked(struct publisher *x, const struct publication *n)
{
    struct publish_status *s = &x->status;
    uint64_t failures;

    (void)pthread_mutex_lock(&x->all->lock);
    failures = s->failures;
    s->epoch = n->epoch;
    s->size = n->note.size;
    s->published_utc_us = clock_utc_us();
    s->failures = 0;
    s->failing_utc_us = 0;
    s->why[0] = '\0';
    (void)pthread_mutex_unlock(&x->all->lock);
    if (failures > 0)
        log_event(LOG_INFO, "publish", "works-again", LOG_STR("by", x->name),
                  LOG_INT("size", n->note.size), LOG_INT("failures", failures));
}

/* Whether this failure is one to be told of. */
static bool is_news(const struct publisher *x, const char *why, int64_t now_us)
{
    return x->status.failures == 0 || strcmp(x->status.why, why) != 0 ||
           now_us - x->warned_us >= PUBLISH_WARN_S * SECOND_US;
}

static void failed(struct publisher *x, const char *why)
{
    const unsigned interval_s = x->all->interval_s;
    const struct backoff b = {.initial_s = interval_s,
                              .max_s = interval_s > PUBLISH_PAUSE_MAX_S ? interval_s
                                                                        : PUBLISH_PAUSE_MAX_S};
    struct publish_status *s = &x->status;
    int64_t now_us = clock_mono_us(), pause_us;
    bool news = is_news(x, why, now_us);

    (void)pthread_mutex_lock(&x->all->lock);
    if (s->failures++ == 0)
        s->failing_utc_us = clock_utc_us();
    (void)snprintf(s->why, sizeof(s->why), "%s", why);
    (void)pthread_mutex_unlock(&x->all->lock);
    pause_us = backoff_us(&b, (uint32_t)(s->failures < UINT32_MAX ? s->failures : UINT32_MAX),
                          backoff_random());
    x->due_us = now_us + pause_us;
    if (!news)
        return;
    x->warned_us = now_us;
    log_event(LOG_WARN, "publish", "failed", LOG_STR("by", x->name), LOG_STR("to", s->to),
              LOG_STR("why", why), LOG_INT("failures", s->failures),
              LOG_INT("again_s", pause_us / SECOND_US));
}

bool publisher_stops(const struct publisher *x)
{
    struct publish *p = x->all;
    bool is;

    (void)pthread_mutex_lock(&p->lock);
    is = p->stopping;
    (void)pthread_mutex_unlock(&p->lock);
    return is;
}

/* A store that cannot be read says so itself, and nobody else has failed. */
void publisher_turn(struct publisher *x)
{
    struct publication n;
    char why[PUBLISH_WHY_MAX] = "", clean[PUBLISH_WHY_MAX];
    int r;

    x->due_us = clock_mono_us() + x->all->interval_s * SECOND_US;
    if (newest_read(x->all->store, &n) < 0 || !is_newer(&n, &x->status))
        return;
    r = x->publish(x, &n, why);
    enc_printable(why, clean, sizeof(clean));
    if (r == 0)
        worked(x, &n);
    else if (!publisher_stops(x))
        failed(x, clean);
}

/* ---- threads --------------------------------------------------------------------------------- */

/* For a tick at most; the lock is held before and after. */
static void wait_locked(struct publish *p, int64_t wait_us)
{
    struct timespec until;

    if (wait_us > PUBLISH_TICK_US)
        wait_us = PUBLISH_TICK_US;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_us / SECOND_US;
    until.tv_nsec += wait_us % SECOND_US * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(&p->changed, &p->lock, &until);
}

/* Until the next turn is due; false: there is none. */
static bool wait_due(struct publisher *x)
{
    struct publish *p = x->all;
    bool goes_on;

    (void)pthread_mutex_lock(&p->lock);
    while (!p->stopping && clock_mono_us() < x->due_us)
        wait_locked(p, x->due_us - clock_mono_us());
    goes_on = !p->stopping;
    (void)pthread_mutex_unlock(&p->lock);
    return goes_on;
}

static void *run(void *arg)
{
    struct publisher *x = arg;

    (void)pthread_setname_np(pthread_self(), x->name);
    while (wait_due(x))
        publisher_turn(x);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int (*const makers[])(const struct publish_options *,
                             struct publisher **) = {syslog_new, stamp_new, witness_new};
_Static_assert(ARRAY_SIZE(makers) <= PUBLISH_MAX, "each has a place");

static int make_publishers(struct publish *p, const struct publish_options *o)
{
    for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
        struct publisher *x = NULL;
        int r = makers[i](o, &x);

        if (r < 0)
            return r;
        if (!x)
            continue;
        x->all = p;
        x->due_us = clock_mono_us();
        x->status.name = x->name;
        p->publisher[p->n++] = x;
    }
    return 0;
}

static int start_threads(struct publish *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct publisher *x = p->publisher[i];
        int error = pthread_create(&x->thread, NULL, run, x);

        if (error != 0) {
            log_event(LOG_ERROR, "publish", "thread", LOG_STR("call", "pthread_create"),
                      LOG_STR("errno", strerrorname_np(error)));
            return TEKD_ENOMEM;
        }
        x->started = true;
    }
    return 0;
}

static void init(struct publish *p)
{
    pthread_condattr_t attr;

    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
}

int publish_start(const struct publish_options *o, struct publish **ret_publish)
{
    struct publish *p = calloc(1, sizeof(*p));
    int r;

    if (!p)
        return TEKD_ENOMEM;
    init(p);
    p->store = o->store;
    p->interval_s = o->interval_s;
    r = kept_new(o->dir, &p->kept);
    if (r == 0)
        r = make_publishers(p, o);
    if (r == 0)
        r = start_threads(p);
    if (r < 0) {
        publish_stop(p);
        return r;
    }
    *ret_publish = p;
    return 0;
}

void publish_stop(struct publish *p)
{
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->stopping = true;
    (void)pthread_cond_broadcast(&p->changed);
    (void)pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->n; i++) {
        if (p->publisher[i]->stop)
            p->publisher[i]->stop(p->publisher[i]);
    }
    for (size_t i = 0; i < p->n; i++) {
        if (p->publisher[i]->started)
            (void)pthread_join(p->publisher[i]->thread, NULL);
        p->publisher[i]->free(p->publisher[i]);
    }
    kept_free(p->kept);
    (void)pthread_cond_destroy(&p->changed);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

size_t publish_status_get(struct publish *p, struct publish_status ret_status[static PUBLISH_MAX])
{
    size_t n = p ? p->n : 0;

    if (!p)
        return 0;
    (void)pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < n; i++)
        ret_status[i] = p->publisher[i]->status;
    (void)pthread_mutex_unlock(&p->lock);
    return n;
}

int publish_export(struct publish *p, const struct publish_export *e)
{
    const struct kept_walk w = {.epoch = e->epoch, .size = e->size, .arg = e->arg, .each = e->each};

    return p ? kept_walk(p->kept, &w) : 0;
}
