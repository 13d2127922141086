/*
 * Deadlines.  A delivery that comes near its own is a warning in the log, once; one that has passed
 * it is unconfirmed and not sent any more, though a confirmation that comes later still counts.
 *
 * Near means: within the last quarter of the delivery's own time, but not more than five minutes.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/log.h"

#define NEAR_MAX_US  (300 * SECOND_US)
#define WARNINGS_MAX 16 /* of one look; the rest is counted */
#define GROUP        32 /* rows of one transaction, each with a record */

/* What is said of one of them. */
struct late {
    int64_t bsa;
    int64_t created_us, deadline_us;
    uint32_t attempts;
    char mid[STORE_MID_LEN + 1];
    char peer[STORE_ID_MAX + 1];
    char why[STORE_WHY_MAX + 1];
};

static void note_late(struct late *l, const struct store_delivery *d)
{
    l->bsa = d->bsa;
    l->created_us = d->created_us;
    l->deadline_us = d->deadline_us;
    l->attempts = d->attempts;
    memcpy(l->mid, d->mid, sizeof(l->mid));
    memcpy(l->why, d->why, sizeof(l->why));
}

static void say_late(const char *event, const struct late *l, int64_t now_us)
{
    log_event(LOG_WARN, "push", event, LOG_STR("bsa", l->peer), LOG_STR("mid", l->mid),
              LOG_INT("seconds_left", (l->deadline_us - now_us) / SECOND_US),
              LOG_INT("attempts", l->attempts), LOG_STR("why", l->why));
}

/* ---- past it --------------------------------------------------------------------------------- */

struct expiry {
    struct errand e; /* first */
    size_t n;
    struct store_delivery d[GROUP];
    struct late late[GROUP];
};

static int collect_expired(void *arg, const struct store_delivery *d)
{
    struct expiry *x = arg;

    x->d[x->n++] = *d;
    return 0;
}

static int expire_one(struct expiry *x, struct store_tx *tx, size_t i)
{
    struct store_delivery *d = &x->d[i];
    int r;

    if (d->state == STORE_DELIVERY_IN_FLIGHT)
        memcpy(d->why, PUSH_WHY_SILENT, sizeof(PUSH_WHY_SILENT));
    d->state = STORE_DELIVERY_UNCONFIRMED;
    r = store_tx_delivery_update(tx, d);
    if (r == 0)
        r = recover_record(tx, "delivery.unconfirmed", d);
    if (r == 0)
        r = recover_peer(tx, d->bsa, x->late[i].peer);
    note_late(&x->late[i], d);
    return r;
}

static int apply_expiry(struct store_item *self, struct store_tx *tx)
{
    struct expiry *x = (struct expiry *)self;
    const struct store_walk w = {.limit = GROUP, .arg = x};
    int r = store_tx_delivery_expired(tx, store_tx_utc_us(tx), &w, collect_expired);

    for (size_t i = 0; i < x->n && r == 0; i++)
        r = expire_one(x, tx, i);
    return r;
}

static void expiry_back(struct errand *e)
{
    struct expiry *x = (struct expiry *)e;
    struct push *p = e->push;
    struct moment now = moment_now();

    p->watching = false;
    /* A full group: there may be more. */
    p->watch_again_us = now.mono_us + (e->result == 0 && x->n == GROUP ? 0 : SECOND_US);
    for (size_t i = 0; i < x->n && e->result == 0; i++) {
        struct lane *l = lane_get(p, x->late[i].bsa);

        say_late("unconfirmed", &x->late[i], now.utc_us);
        if (l)
            l->look = true;
        if (l)
            lane_work(p, l, &now);
    }
    free(x);
}

static void expire(struct push *p)
{
    struct expiry *x = calloc(1, sizeof(*x));

    if (!x)
        return;
    x->e.item.apply = apply_expiry;
    x->e.back = expiry_back;
    p->watching = true;
    errand_go(p, &x->e, STORE_DURABLE);
}

/* ---- near it --------------------------------------------------------------------------------- */

struct watch {
    struct errand e; /* first */
    struct store_near near;
    bool expired; /* and somebody is past it */
    size_t n, more;
    struct late late[WARNINGS_MAX];
};

static int take_late(void *arg, const struct store_delivery *d)
{
    struct watch *w = arg;

    if (w->n < WARNINGS_MAX)
        note_late(&w->late[w->n++], d);
    else
        w->more++;
    return 0;
}

static int take_expired(void *arg, const struct store_delivery *d)
{
    struct watch *w = arg;

    (void)d;
    w->expired = true;
    return 0;
}

static int apply_watch(struct store_item *self, struct store_tx *tx)
{
    struct watch *w = (struct watch *)self;
    const struct store_walk all = {.limit = SIZE_MAX, .arg = w}, one = {.limit = 1, .arg = w};
    int r = store_tx_delivery_near(tx, &w->near, &all, take_late);

    if (r == 0)
        r = store_tx_delivery_expired(tx, w->near.now_us, &one, take_expired);
    for (size_t i = 0; i < w->n && r == 0; i++)
        r = recover_peer(tx, w->late[i].bsa, w->late[i].peer);
    return r;
}

static void watch_back(struct errand *e)
{
    struct watch *w = (struct watch *)e;
    struct push *p = e->push;

    p->watching = false;
    p->watch_again_us = moment_now().mono_us + SECOND_US;
    if (e->result == 0) {
        p->watched_us = w->near.now_us;
        for (size_t i = 0; i < w->n; i++)
            say_late("deadline-near", &w->late[i], w->near.now_us);
        if (w->more > 0)
            log_event(LOG_WARN, "push", "more-deadlines-near", LOG_INT("deliveries", w->more));
        if (w->expired && p->cut_us == 0)
            expire(p);
    }
    free(w);
}

int64_t watch_turn(struct push *p, const struct moment *now)
{
    struct watch *w;

    if (p->watching || p->cut_us != 0 || p->earliest_deadline_us - NEAR_MAX_US > now->utc_us)
        return INT64_MAX; /* until the lanes are looked over again */
    if (p->watch_again_us > now->mono_us)
        return p->watch_again_us - now->mono_us;
    w = calloc(1, sizeof(*w));
    if (!w)
        return SECOND_US;
    w->near = (struct store_near){
        .near_us = NEAR_MAX_US, .since_us = p->watched_us, .now_us = now->utc_us};
    w->e.item.apply = apply_watch;
    w->e.back = watch_back;
    p->watching = true;
    errand_go(p, &w->e, STORE_READ);
    return INT64_MAX;
}
