/*
 * What a lane's rows say: how many of its deliveries are open, when the next one is due, when the
 * first one ends.
 */
#include "internal.h"

#include <stdlib.h>

#include "tekd/err.h"

#define LANES_MIN 64

void look_pause(struct push *p)
{
    p->store_again_us = moment_now().mono_us + PUSH_STORE_US;
}

/* ---- one lane -------------------------------------------------------------------------------- */

struct look {
    struct errand e; /* first */
    struct lane *lane;
    int64_t bsa;
    struct store_lane rows;
};

static int apply_look(struct store_item *self, struct store_tx *tx)
{
    struct look *k = (struct look *)self;

    return store_tx_delivery_lane(tx, k->bsa, &k->rows);
}

static void look_back(struct errand *e)
{
    struct look *k = (struct look *)e;
    struct moment now = moment_now();
    struct lane *l = k->lane;

    l->busy = false;
    if (e->result == 0) {
        lane_take_rows(e->push, l, &k->rows);
        l->empty_until_us = 0;
        l->again_us = 0; /* its enrolment may be what has changed */
    } else {
        l->look = true;
        look_pause(e->push);
    }
    lane_work(e->push, l, &now);
    free(k);
}

void look_at(struct push *p, struct lane *l)
{
    struct look *k = calloc(1, sizeof(*k));

    if (!k) {
        look_pause(p);
        return;
    }
    k->lane = l;
    k->bsa = l->bsa;
    k->e.item.apply = apply_look;
    k->e.back = look_back;
    l->busy = true;
    l->look = false;
    errand_go(p, &k->e, STORE_READ);
}

/* ---- all of them ----------------------------------------------------------------------------- */

struct look_all {
    struct errand e; /* first */
    struct store_lane *rows;
    size_t n, room;
};

static int collect(void *arg, const struct store_lane *rows)
{
    struct look_all *k = arg;

    if (k->n == k->room) {
        size_t room = k->room > 0 ? k->room * 2 : LANES_MIN;
        struct store_lane *more = reallocarray(k->rows, room, sizeof(*more));
        if (!more)
            return TEKD_ENOMEM;
        k->rows = more;
        k->room = room;
    }
    k->rows[k->n++] = *rows;
    return 0;
}

static int apply_all(struct store_item *self, struct store_tx *tx)
{
    return store_tx_delivery_lanes(tx, self, collect);
}

/* Lanes that there are, are looked at one by one: they may be busy, or have nothing open any more,
 * or have changed since. */
static void all_back(struct errand *e)
{
    struct look_all *k = (struct look_all *)e;
    struct push *p = e->push;

    for (size_t i = 0; i < p->n_lanes; i++)
        p->lane[i]->look = true;
    for (size_t i = 0; i < k->n && e->result == 0; i++) {
        struct lane *l = lane_get(p, k->rows[i].bsa);
        if (!l)
            p->look_all = true; /* without memory: again */
        else if (!l->look)
            lane_take_rows(p, l, &k->rows[i]);
    }
    if (p->look_all)
        look_pause(p);
    p->sweep_us = 0;
    if (e->result < 0) { /* again, when the store can */
        p->look_all = true;
        look_pause(p);
    }
    free(k->rows);
    free(k);
}

void look_at_all(struct push *p)
{
    struct look_all *k = calloc(1, sizeof(*k));

    p->look_all = !k;
    if (!k) {
        look_pause(p);
        return;
    }
    k->e.item.apply = apply_all;
    k->e.back = all_back;
    errand_go(p, &k->e, STORE_READ);
}
