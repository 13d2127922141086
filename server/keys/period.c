#include "internal.h"

#include "tekd/clock.h"
#include "tekd/err.h"

#define SECOND_US INT64_C(1000000)

void period_get(const struct store_content *c, int64_t index, struct period *ret_period)
{
    int64_t length_us = c->period_s * SECOND_US;

    *ret_period = (struct period){.index = index};
    if (length_us == 0)
        return;
    ret_period->from_us = c->epoch_utc_us + index * length_us;
    ret_period->until_us = ret_period->from_us + length_us;
}

void period_at(const struct store_content *c, int64_t utc_us, struct period *ret_period)
{
    int64_t since_us = utc_us - c->epoch_utc_us;
    bool any = c->period_s > 0 && since_us > 0;

    period_get(c, any ? since_us / (c->period_s * SECOND_US) : 0, ret_period);
}

void period_record(struct record *rec, const struct period *p)
{
    if (p->until_us != 0)
        record_int(rec, "period", (uint64_t)p->index);
}

/* ---- before a period begins ------------------------------------------------------------------ */

struct making {
    struct tek_order order;
    int64_t content; /* row */
    int64_t period;
    bool there; /* the period has a TEK */
};

static int look_for_tek(struct making *m, struct store_tx *tx)
{
    struct store_tek t;
    int r = store_tx_tek_current(tx, m->content, m->period, &t);

    m->there = r == 0;
    return r == TEKD_ENOTFOUND ? 0 : r;
}

static int read_making(void *arg, struct store_tx *tx)
{
    struct making *m = arg;
    int r = store_tx_content_get(tx, m->content, &m->order.content);

    if (r < 0)
        return r;
    period_get(&m->order.content, m->period, &m->order.period);
    return look_for_tek(m, tx);
}

/* A request, which wants the current TEK at once, may have been faster. */
static int apply_making(void *arg, struct store_tx *tx)
{
    struct making *m = arg;
    int r = look_for_tek(m, tx);

    if (r < 0 || m->there)
        return r;
    if (period_is_over(&m->order.period, store_tx_utc_us(tx)))
        return TEKD_ESTALE;
    r = tek_insert(&m->order, tx);
    return r < 0 ? r : tek_fan_out(tx, &m->order.period, &m->order.tek);
}

int keys_period_make(struct keys *k, int64_t content, int64_t period, int64_t deadline_us)
{
    struct making m = {.order.k = k, .content = content, .period = period};
    int r = store_call(k->store, STORE_READ, read_making, &m);

    if (r < 0 || m.there)
        return r;
    if (period_is_over(&m.order.period, clock_utc_us()))
        return TEKD_ESTALE;
    r = tek_make(&m.order, deadline_us);
    if (r == 0)
        r = store_call(k->store, STORE_DURABLE, apply_making, &m);
    if (r == 0)
        delivery_changed(k, 0);
    return r;
}
