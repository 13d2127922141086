/*
 * A Key Delivery that is there: what operators do to it, and what becomes of it when its key goes.
 */
#include "internal.h"

#include <assert.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"

/* Open deliveries that are looked at in one read. */
#define LOOK_MAX 512

void keys_on_delivery(struct keys *k, void (*changed)(void *arg, int64_t bsa), void *arg)
{
    k->delivery = changed;
    k->delivery_arg = arg;
}

void delivery_changed(struct keys *k, int64_t bsa)
{
    if (k->delivery)
        k->delivery(k->delivery_arg, bsa);
}

int delivery_record_new(struct keys *k, const char *event, const struct store_delivery *d,
                        struct record **ret_record)
{
    AUTO_BSA struct bsa_state *s = registry_by_row(k->registry, d->bsa);
    AUTO(record) struct record *rec = NULL;
    int r = record_new(event, &rec);

    if (r < 0)
        return r;
    record_ref(rec, "ref", d->epoch, d->seq);
    record_str(rec, "mid", d->mid);
    record_str(rec, "peer", s ? s->bsa->id : "");
    *ret_record = TAKE(rec);
    return 0;
}

/* ---- retry ----------------------------------------------------------------------------------- */

/* A command about one delivery. */
struct change {
    struct keys *k;
    const struct keys_actor *actor;
    const char *mid;
    int64_t deadline_s;
    const char *reason;
    int64_t bsa; /* whose it is */
};

/* Whether its TEK may still be given, and until when (INT64_MAX: for ever). */
static int check_key(struct store_tx *tx, const struct store_delivery *d, int64_t *ret_until_us)
{
    struct store_content content = {.row = 0};
    struct store_tek tek = {.row = 0};
    struct store_kek kek = {.row = 0};
    struct period p;
    int r = store_tx_tek_get(tx, d->tek, &tek);

    if (r == 0)
        r = store_tx_kek_get(tx, d->kek, &kek);
    if (r == 0)
        r = store_tx_content_get(tx, d->content, &content);
    if (r < 0)
        return r;
    period_get(&content, tek.period, &p);
    if (tek.destroyed || kek.retired || period_is_over(&p, store_tx_utc_us(tx)))
        return TEKD_EDENIED;
    *ret_until_us = p.until_us != 0 ? p.until_us : INT64_MAX;
    return 0;
}

/* One that is in flight stays so: what is under way may still come back, and is judged. */
static int apply_retry(void *arg, struct store_tx *tx)
{
    struct change *x = arg;
    int64_t now_us = store_tx_utc_us(tx), until_us;
    struct store_delivery d;
    int r = store_tx_delivery_find(tx, x->mid, strlen(x->mid), &d);

    if (r < 0)
        return r;
    if (d.state == STORE_DELIVERY_CONFIRMED || d.state == STORE_DELIVERY_ABANDONED)
        return TEKD_EEXIST;
    r = check_key(tx, &d, &until_us);
    if (r < 0)
        return r;
    if (d.state == STORE_DELIVERY_UNCONFIRMED) {
        d.state = STORE_DELIVERY_PREPARED;
        atomic_fetch_add(&x->k->reopened, 1);
    }
    d.next_us = now_us;
    d.deadline_us = now_us + x->deadline_s * 1000000;
    if (d.deadline_us > until_us)
        d.deadline_us = until_us;
    x->bsa = d.bsa;
    r = store_tx_delivery_update(tx, &d);
    return r < 0 ? r : admin_record(tx, x->actor, "delivery retry", d.mid);
}

int keys_delivery_retry(struct keys *k, const struct keys_actor *a, const char *mid,
                        int64_t deadline_s, struct keys_error *err)
{
    struct change x = {.k = k, .actor = a, .mid = mid, .deadline_s = deadline_s};
    int r = store_call(k->store, STORE_DURABLE, apply_retry, &x);

    if (r == TEKD_ENOTFOUND)
        return admin_fail(err, r, "\"%.60s\": no delivery has this MessageID", mid);
    if (r == TEKD_EEXIST)
        return admin_fail(err, r, "this delivery is confirmed or abandoned; deliver makes another");
    if (r == TEKD_EDENIED)
        return admin_fail(err, r,
                          "its TEK is destroyed, its KEK retired, or its crypto-period over");
    if (r < 0)
        return admin_fail(err, r, "recording the change: %s", tekd_strerror(r));
    delivery_changed(k, x.bsa);
    return 0;
}

/* ---- abandon --------------------------------------------------------------------------------- */

static int abandon(struct keys *k, struct store_tx *tx, struct store_delivery *d,
                   const struct keys_actor *a, const char *reason)
{
    struct record *rec = NULL;
    int r = delivery_record_new(k, "delivery.abandoned", d, &rec);

    if (r < 0)
        return r;
    record_str(rec, "reason", reason);
    admin_actor(rec, a);
    r = store_tx_record(tx, rec, NULL);
    d->state = STORE_DELIVERY_ABANDONED;
    return r < 0 ? r : store_tx_delivery_update(tx, d);
}

static int apply_abandon(void *arg, struct store_tx *tx)
{
    struct change *x = arg;
    struct store_delivery d;
    int r = store_tx_delivery_find(tx, x->mid, strlen(x->mid), &d);

    if (r < 0)
        return r;
    if (d.state == STORE_DELIVERY_CONFIRMED || d.state == STORE_DELIVERY_ABANDONED)
        return TEKD_EEXIST;
    x->bsa = d.bsa;
    return abandon(x->k, tx, &d, x->actor, x->reason);
}

int keys_delivery_abandon(struct keys *k, const struct keys_actor *a, const char *mid,
                          const char *reason, struct keys_error *err)
{
    struct change x = {.k = k, .actor = a, .mid = mid, .reason = reason};
    int r;

    if (!admin_is_text(reason, STORE_WHY_MAX))
        return admin_fail(err, TEKD_EINVAL,
                          "the reason has to be 1..%d octets without control characters or white "
                          "space at its ends",
                          STORE_WHY_MAX);
    r = store_call(k->store, STORE_DURABLE, apply_abandon, &x);
    if (r == TEKD_ENOTFOUND)
        return admin_fail(err, r, "\"%.60s\": no delivery has this MessageID", mid);
    if (r == TEKD_EEXIST)
        return admin_fail(err, r, "this delivery is confirmed or abandoned already");
    if (r < 0)
        return admin_fail(err, r, "recording the change: %s", tekd_strerror(r));
    delivery_changed(k, x.bsa);
    return 0;
}

/* ---- its key goes ---------------------------------------------------------------------------- */

/* Open deliveries of what goes: the first of them behind a row. */
struct search {
    const struct key_gone *gone;
    int64_t bsa;   /* of a KEK: whose deliveries these are; 0: all are looked at */
    int64_t after; /* behind this row ... */
    size_t looked; /* ... so many were looked at ... */
    int64_t seen;  /* ... up to this one */
    size_t n;
    int64_t row[DELIVERY_GONE_MAX + 1];
};

static int match(void *arg, const struct store_delivery *d)
{
    struct search *x = arg;

    x->looked++;
    x->seen = d->row;
    if (d->tek == x->gone->tek || d->kek == x->gone->kek)
        x->row[x->n++] = d->row;
    return x->n > DELIVERY_GONE_MAX;
}

static int search(struct search *x, struct store_tx *tx, size_t limit)
{
    const struct store_walk w = {.after = x->after, .limit = limit, .arg = x};
    const struct store_due all = {.now_us = INT64_MAX, .far_us = INT64_MAX};
    struct store_kek kek = {.bsa = 0};
    int r = x->gone->kek ? store_tx_kek_get(tx, x->gone->kek, &kek) : 0;

    x->n = x->looked = 0;
    x->seen = x->after;
    if (r < 0)
        return r;
    r = kek.bsa ? store_tx_delivery_due(tx, kek.bsa, &all, &w, match)
                : store_tx_delivery_walk_open(tx, &w, match);
    return r < 0 ? r : 0;
}

static int search_ahead(void *arg, struct store_tx *tx)
{
    return search(arg, tx, LOOK_MAX);
}

/* What was confirmed or given up meanwhile is left alone. */
static int abandon_found(const struct search *x, struct store_tx *tx)
{
    const struct key_gone *g = x->gone;
    int r = 0;

    for (size_t i = 0; i < x->n && r == 0; i++) {
        struct store_delivery d;

        r = store_tx_delivery_get(tx, x->row[i], &d);
        if (r < 0 || !store_delivery_is_open(d.state))
            continue;
        r = abandon(g->k, tx, &d, g->actor, "key-gone");
        delivery_changed(g->k, d.bsa);
    }
    return r;
}

static int apply_ahead(void *arg, struct store_tx *tx)
{
    return abandon_found(arg, tx);
}

int delivery_gone_ahead(struct key_gone *g)
{
    struct search x = {.gone = g};
    int r;

    g->reopened = atomic_load(&g->k->reopened);
    do {
        r = store_call(g->k->store, STORE_READ, search_ahead, &x);
        if (r == 0 && x.n > 0)
            r = store_call(g->k->store, STORE_DURABLE, apply_ahead, &x);
        x.after = x.seen;
    } while (r == 0 && x.looked > 0);
    if (r == 0)
        g->seen = x.seen;
    return r;
}

/* No TEK that goes is on its way to anybody. */
static int find_fanout(void *arg, const struct store_fanout *f)
{
    struct store_fanout *wanted = arg;

    if (f->tek == wanted->tek)
        wanted->row = f->row;
    return 0;
}

static int delete_fanout(struct store_tx *tx, int64_t tek)
{
    struct store_fanout f = {.tek = tek};
    const struct store_walk w = {.limit = SIZE_MAX, .arg = &f};
    int r = store_tx_fanout_walk(tx, &w, find_fanout);

    return r == 0 && f.row != 0 ? store_tx_fanout_delete(tx, f.row) : r;
}

int delivery_gone(struct key_gone *g, struct store_tx *tx)
{
    struct search x = {.gone = g, .after = g->seen};
    int r;

    if (g->reopened != atomic_load(&g->k->reopened))
        x.after = 0;
    r = search(&x, tx, SIZE_MAX);
    if (r == 0 && x.n > DELIVERY_GONE_MAX)
        return TEKD_EAGAIN;
    if (r == 0)
        r = abandon_found(&x, tx);
    return r == 0 && g->tek ? delete_fanout(tx, g->tek) : r;
}
