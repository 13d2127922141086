/*
 * After a start: what was in flight may or may not have reached its BSA, so it is unknown, and sent
 * again with the same MessageID and Data.  So is what was confirmed under no checkpoint, which the
 * store has put in flight again.  What is prepared has not left: only a claim lets it.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/log.h"

#define GROUP 32 /* rows of one transaction, each with a record */

static int copy_id(void *arg, const struct store_bsa *b)
{
    struct store_bsa *found = arg;

    found->row = b->row;
    memcpy(found->id, b->id, sizeof(found->id));
    return 0;
}

int recover_peer(struct store_tx *tx, int64_t bsa, char ret_id[static STORE_ID_MAX + 1])
{
    AUTO(store_bsa) struct store_bsa *found = NULL;
    struct store_walk w = {.after = bsa - 1, .limit = 1};
    int r = store_bsa_new(&found);

    if (r < 0)
        return r;
    w.arg = found;
    r = store_tx_bsa_walk(tx, &w, copy_id);
    if (r == 0 && found->row != bsa)
        r = TEKD_ENOTFOUND;
    if (r == 0)
        memcpy(ret_id, found->id, sizeof(found->id));
    return r;
}

int recover_record(struct store_tx *tx, const char *event, const struct store_delivery *d)
{
    char peer[STORE_ID_MAX + 1];
    struct record *rec = NULL;
    int r = recover_peer(tx, d->bsa, peer);

    if (r == 0)
        r = record_new(event, &rec);
    if (r < 0)
        return r;
    record_ref(rec, "ref", d->epoch, d->seq);
    record_str(rec, "mid", d->mid);
    record_str(rec, "peer", peer);
    return store_tx_record(tx, rec, NULL);
}

/* The next of those in flight. */
struct group {
    int64_t after;
    size_t n;
    struct store_delivery d[GROUP];
};

static int collect(void *arg, const struct store_delivery *d)
{
    struct group *g = arg;

    g->after = d->row;
    if (d->state == STORE_DELIVERY_IN_FLIGHT)
        g->d[g->n++] = *d;
    return g->n == GROUP ? TEKD_EAGAIN : 0;
}

static int make_unknown(void *arg, struct store_tx *tx)
{
    struct group *g = arg;
    const struct store_walk w = {.after = g->after, .limit = SIZE_MAX, .arg = g};
    int r;

    g->n = 0;
    r = store_tx_delivery_walk_open(tx, &w, collect);
    if (r == TEKD_EAGAIN)
        r = 0;
    for (size_t i = 0; i < g->n && r == 0; i++) {
        g->d[i].state = STORE_DELIVERY_UNKNOWN;
        g->d[i].next_us = store_tx_utc_us(tx);
        r = store_tx_delivery_update(tx, &g->d[i]);
        if (r == 0)
            r = recover_record(tx, "delivery.unknown", &g->d[i]);
    }
    return r;
}

int recover(struct push *p)
{
    AUTO_MEM struct group *g = calloc(1, sizeof(*g));
    size_t all = 0;
    int r;

    if (!g)
        return TEKD_ENOMEM;
    do {
        r = store_call(p->store, STORE_DURABLE, make_unknown, g);
        all += g->n;
    } while (r == 0 && g->n == GROUP);
    if (all > 0)
        log_event(LOG_WARN, "push", "were-in-flight", LOG_INT("deliveries", all));
    return r;
}
