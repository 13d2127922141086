/*
 * A new TEK on its way to the BSAs that hold the content.  The row of the fan-out says up to which
 * BSA all is done; a step prepares the deliveries of the next few and moves it on in the same
 * transaction, so that a crash neither loses a BSA nor prepares one twice.
 */
#include "internal.h"

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* Holders that one step looks at: the store's thread is not held by those that get nothing. */
#define LOOK_MAX 256

struct step {
    struct group *g;
    int64_t row;
    struct store_fanout fanout; /* as it was read; row 0: it is through */
    bool pointless;             /* nobody needs this TEK any more */
    bool last;
    size_t looked;
    int64_t cursor; /* the BSA up to which all is done after this step */
};

static int copy_fanout(void *arg, const struct store_fanout *f)
{
    struct step *x = arg;

    if (f->row == x->row)
        x->fanout = *f;
    return 0;
}

static int read_fanout(struct step *x, struct store_tx *tx)
{
    const struct store_walk w = {.after = x->row - 1, .limit = 1, .arg = x};

    x->fanout = (struct store_fanout){.row = 0};
    return store_tx_fanout_walk(tx, &w, copy_fanout);
}

/* 1 ends the walk: the group is full. */
static int take_holder(void *arg, int64_t bsa)
{
    struct step *x = arg;
    struct group *g = x->g;
    AUTO_BSA struct bsa_state *s = registry_by_row(g->k->registry, bsa);

    x->looked++;
    x->cursor = bsa;
    if (!policy_undeliverable(s, g->content.id))
        group_add(g, TAKE(s));
    return g->n == KEYS_FANOUT_GROUP;
}

static int read_holders(struct step *x, struct store_tx *tx)
{
    const struct store_walk w = {.after = x->fanout.after_bsa, .limit = LOOK_MAX, .arg = x};
    int r;

    x->looked = 0;
    x->cursor = x->fanout.after_bsa;
    r = store_tx_holders_walk(tx, x->fanout.content, x->fanout.tek, &w, take_holder);
    x->last = r == 0 && x->looked < LOOK_MAX;
    return r < 0 ? r : group_read(x->g, tx);
}

static int read_step(void *arg, struct store_tx *tx)
{
    struct step *x = arg;
    struct group *g = x->g;
    int r = read_fanout(x, tx);

    if (r < 0 || x->fanout.row == 0)
        return r;
    r = store_tx_tek_get(tx, x->fanout.tek, &g->tek);
    if (r == 0)
        r = store_tx_content_get(tx, x->fanout.content, &g->content);
    if (r < 0)
        return r;
    period_get(&g->content, g->tek.period, &g->period);
    x->pointless = g->tek.destroyed || period_is_over(&g->period, clock_utc_us());
    return x->pointless ? 0 : read_holders(x, tx);
}

/* Another step of the same fan-out may have been faster. */
static int apply_step(void *arg, struct store_tx *tx)
{
    struct step *x = arg;
    int64_t after = x->fanout.after_bsa;
    int r = read_fanout(x, tx);

    if (r == 0 && (x->fanout.row == 0 || x->fanout.after_bsa != after))
        r = TEKD_ESTALE;
    if (r == 0 && x->g->n > 0)
        r = group_apply(x->g, tx);
    if (r < 0)
        return r;
    return x->last || x->pointless ? store_tx_fanout_delete(tx, x->row)
                                   : store_tx_fanout_advance(tx, x->row, x->cursor);
}

static int step_once(struct step *x)
{
    struct group *g = x->g;
    int r;

    group_clear(g);
    r = store_call(g->k->store, STORE_READ, read_step, x);
    if (r < 0 || x->fanout.row == 0)
        return r;
    if (!x->pointless)
        r = group_prepare(g);
    if (r < 0)
        return r;
    r = store_call(g->k->store, g->n > 0 ? STORE_SIGNED : STORE_DURABLE, apply_step, x);
    group_done(g, r);
    return r;
}

int keys_fanout_step(struct keys *k, const struct store_fanout *f, int64_t deadline_s,
                     bool *ret_done)
{
    AUTO(group) struct group *g = NULL;
    struct step x = {.row = f->row};
    int r = group_new(k, deadline_s, &g);

    if (r < 0)
        return r;
    g->new_only = true;
    x.g = g;
    r = TEKD_ESTALE;
    for (int i = 0; i < KEYS_ATTEMPTS_MAX && r == TEKD_ESTALE; i++)
        r = step_once(&x);
    if (r < 0)
        return r;
    if (x.pointless)
        log_event(LOG_INFO, "keys", "fanout-given-up", LOG_STR("content", g->content.id),
                  LOG_STR("what", "its TEK is destroyed, or its crypto-period over"));
    *ret_done = x.fanout.row == 0 || x.last || x.pointless;
    return 0;
}
