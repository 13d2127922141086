/*
 * Crypto-periods ahead of time.  Of each content with periods it is known which one has a TEK; due
 * is the current one if it has none, and the next from its lead on.  What is over is never made: so
 * there is at most one TEK a content to catch up with after a stop, and these are made one after
 * the other like all others.
 *
 * Periods are counted in UTC, which may step; so nothing of it is remembered but which TEKs there
 * are, and not more than is known: of those in a row.  When UTC was ahead and is back, the current
 * period stands before the row, and the store is asked for it and for those that follow.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define READ_MAX 256 /* contents of one read */

struct periodic {
    int64_t content;
    int64_t epoch_us, period_us, lead_us;
    int64_t first;    /* each period from this one ... */
    int64_t made;     /* ... to this one has a TEK, or was over; -1: none */
    int64_t known_us; /* UTC: since when */
    int64_t late;     /* the last period that was said to be late */
    char *id;
};

struct periods {
    struct push *push;
    struct periodic *all;
    size_t n, room;
    size_t first; /* whose turn it is */
    int64_t n_late;
};

int periods_new(struct push *p, struct periods **ret_periods)
{
    struct periods *x = calloc(1, sizeof(*x));

    if (!x)
        return TEKD_ENOMEM;
    x->push = p;
    *ret_periods = x;
    return 0;
}

void periods_free(struct periods *x)
{
    if (!x)
        return;
    for (size_t i = 0; i < x->n; i++)
        free(x->all[i].id);
    free(x->all);
    free(x);
}

int64_t periods_late(const struct periods *x)
{
    return x->n_late;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int add(void *arg, const struct store_content *c)
{
    struct periods *x = arg;
    struct periodic *to;
    char *id;

    if (x->n == x->room) {
        size_t room = x->room > 0 ? x->room * 2 : 64;
        struct periodic *all = reallocarray(x->all, room, sizeof(*all));
        if (!all)
            return TEKD_ENOMEM;
        x->all = all;
        x->room = room;
    }
    id = strdup(c->id);
    if (!id)
        return TEKD_ENOMEM;
    to = &x->all[x->n++];
    *to = (struct periodic){.content = c->row,
                            .epoch_us = c->epoch_utc_us,
                            .period_us = c->period_s * SECOND_US,
                            .lead_us = c->lead_s * SECOND_US,
                            .first = -1,
                            .made = -1,
                            .known_us = clock_utc_us(),
                            .late = -1,
                            .id = id};
    return 0;
}

/* Those behind the last one that is known: rows rise. */
static int read_some(void *arg, struct store_tx *tx)
{
    struct periods *x = arg;
    size_t from = x->n;
    const struct store_walk w = {
        .after = from > 0 ? x->all[from - 1].content : 0, .limit = READ_MAX, .arg = x};
    int r = store_tx_content_walk_periodic(tx, &w, add);

    for (size_t i = from; i < x->n && r == 0; i++) {
        r = store_tx_tek_last_period(tx, x->all[i].content, &x->all[i].made);
        x->all[i].first = x->all[i].made;
        r = r == TEKD_ENOTFOUND ? 0 : r;
    }
    return r;
}

static void forget_from(struct periods *x, size_t n)
{
    while (x->n > n)
        free(x->all[--x->n].id);
}

int periods_read(struct periods *x)
{
    size_t before;

    do {
        int r;

        before = x->n;
        r = store_call(x->push->store, STORE_READ, read_some, x);
        if (r < 0) {
            forget_from(x, before);
            return r;
        }
    } while (x->n - before == READ_MAX);
    return 0;
}

/* ---- making ---------------------------------------------------------------------------------- */

static int64_t start_of(const struct periodic *c, int64_t period)
{
    return c->epoch_us + period * c->period_us;
}

/* -1 before the epoch. */
static int64_t current(const struct periodic *c, int64_t utc_us)
{
    return utc_us < c->epoch_us ? -1 : (utc_us - c->epoch_us) / c->period_us;
}

/* The period whose TEK is due, or -1: then *ret_wait_us is how long until one is. */
static int64_t due(const struct periodic *c, int64_t utc_us, int64_t *ret_wait_us)
{
    int64_t now = current(c, utc_us);
    int64_t made = now < c->first ? now - 1 : c->made;
    int64_t next = made > now ? made + 1 : now + 1;

    if (now >= 0 && made < now)
        return now;
    *ret_wait_us = start_of(c, next) - c->lead_us - utc_us;
    return *ret_wait_us <= 0 ? next : -1;
}

/* A period that began before its TEK was there, at utc_us or later, though it was known in time. */
static void count_late(struct periods *x, struct periodic *c, int64_t period, int64_t utc_us)
{
    int64_t start = start_of(c, period);

    if (utc_us < start || c->known_us >= start || c->late == period)
        return;
    c->late = period;
    x->n_late++;
    log_event(LOG_WARN, "push", "period-late", LOG_STR("content", c->id),
              LOG_INT("period", period));
}

static void note_made(struct periodic *c, int64_t period)
{
    if (c->made < 0 || period != c->made + 1)
        c->first = period;
    c->made = period;
}

static int make(struct periods *x, struct periodic *c, int64_t period)
{
    int r;

    count_late(x, c, period, clock_utc_us());
    r = keys_period_make(x->push->keys, c->content, period, clock_mono_us() + KEYS_HSM_US);
    if (r == TEKD_ESTALE) { /* it is over by now: the next one is due */
        note_made(c, period);
        return 0;
    }
    if (r < 0) {
        log_event(LOG_WARN, "push", "period-not-made", LOG_STR("content", c->id),
                  LOG_INT("period", period), LOG_STR("error", tekd_strerror(r)));
        return r;
    }
    note_made(c, period);
    log_event(LOG_INFO, "push", "period-made", LOG_STR("content", c->id),
              LOG_INT("period", period));
    return 0;
}

/* What is looked for: the TEK of a period. */
struct wanted {
    int64_t content, period;
    struct store_tek tek;
};

static int look_for(void *arg, struct store_tx *tx)
{
    struct wanted *w = arg;

    return store_tx_tek_current(tx, w->content, w->period, &w->tek);
}

/* It may be there: a request was faster, or UTC was here before. */
static int make_unless_there(struct periods *x, struct periodic *c, int64_t period)
{
    struct wanted w = {.content = c->content, .period = period};
    int r = store_call(x->push->store, STORE_READ, look_for, &w);

    if (r == TEKD_ENOTFOUND)
        return make(x, c, period);
    if (r < 0)
        return r;
    if (w.tek.version == 1) /* a later one says nothing of when the first was there */
        count_late(x, c, period, w.tek.created_us);
    note_made(c, period);
    return 0;
}

int periods_step(struct periods *x, int64_t *ret_wait_us)
{
    int64_t utc_us = clock_utc_us();
    int64_t least = INT64_MAX;

    for (size_t i = 0; i < x->n; i++) {
        size_t at = (x->first + i) % x->n;
        int64_t wait_us = 0;
        int64_t period = due(&x->all[at], utc_us, &wait_us);

        if (period >= 0) {
            x->first = at + 1; /* one that cannot be made does not stand before the others */
            *ret_wait_us = 0;
            return make_unless_there(x, &x->all[at], period);
        }
        if (wait_us < least)
            least = wait_us;
    }
    *ret_wait_us = least;
    return 0;
}
