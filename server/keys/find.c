/*
 * Which TEK a request is for: what the cache and the store know of it.  It is that of the current
 * period, or of one that is announced: one to come that has its TEK already.
 */
#include "internal.h"

#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"

/* A read of the store for one content, on a miss of the cache. */
struct lookup {
    const char *content_id;
    int64_t kek;
    int64_t asked; /* period; -1: the current one */
    struct key_material *ret;
};

/* Of a known TEK, whether it was wrapped for this KEK before. */
static int read_export(void *arg, struct store_tx *tx)
{
    struct lookup *l = arg;
    struct key_material *m = l->ret;
    int r = store_tx_export_find(tx, m->key.tek, l->kek, &m->data);

    m->new_export = r == TEKD_ENOTFOUND;
    return m->new_export ? 0 : r;
}

static int read_tek(struct store_tx *tx, struct lookup *l)
{
    struct key_material *m = l->ret;
    int64_t period = m->key.period.index;
    struct store_tek t;
    int r = store_tx_tek_current(tx, m->key.content, period, &t);

    if (r == TEKD_ENOTFOUND && !period_is_current(&m->key.period, clock_utc_us()))
        return TEKD_EDENIED;
    if (r == TEKD_ENOTFOUND) {
        r = store_tx_tek_newest(tx, m->key.content, period, &m->version);
        m->version++;
        m->new_tek = true;
        return r;
    }
    if (r < 0)
        return r;
    m->key.tek = t.row;
    m->key.bits = t.bits;
    m->key.storage_kek = t.storage_kek;
    m->key.stored = t.stored;
    memcpy(m->key.key_id, t.key_id, sizeof(t.key_id));
    return read_export(l, tx);
}

/* One to come has no times yet: a peer may have asked for any number. */
static int pick_period(const struct lookup *l, const struct store_content *c, struct period *p)
{
    period_at(c, clock_utc_us(), p);
    if (l->asked < 0)
        return 0;
    if (p->until_us == 0 || l->asked < p->index)
        return TEKD_EDENIED;
    if (l->asked > p->index)
        *p = (struct period){.index = l->asked, .from_us = INT64_MAX, .until_us = INT64_MAX};
    return 0;
}

static int read_content(void *arg, struct store_tx *tx)
{
    struct lookup *l = arg;
    struct period *p = &l->ret->key.period;
    struct store_content c;
    int r = store_tx_content_find(tx, l->content_id, strlen(l->content_id), &c);

    if (r < 0)
        return r;
    l->ret->key.content = c.row;
    l->ret->key.bits = c.bits;
    r = pick_period(l, &c, p);
    if (r == 0)
        r = read_tek(tx, l);
    if (r == 0)
        period_get(&c, p->index, p);
    return r;
}

static int read_store(struct keys_work *w, int (*read)(void *arg, struct store_tx *tx),
                      struct lookup *l)
{
    int r;

    keys_waits(w->k, true);
    r = store_call(w->k->store, STORE_READ, read, l);
    keys_waits(w->k, false);
    return r;
}

/* Whether the cache has the TEK that is wanted; it has no announced ones. */
static bool is_cached(struct keys_work *w, const struct lookup *l)
{
    struct key_entry *e = &l->ret->key;

    if (!cache_get(w->k->cache, l->content_id, e))
        return false;
    if (l->asked < 0 || (e->period.until_us != 0 && l->asked == e->period.index))
        return true;
    *e = (struct key_entry){.tek = 0};
    return false;
}

int work_find(struct keys_work *w)
{
    struct key_material *m = &w->made;
    struct lookup l = {
        .content_id = w->request.content_id, .kek = m->kek, .asked = work_asked(w), .ret = m};

    if (is_cached(w, &l)) {
        atomic_fetch_add(&w->k->tek_hits, 1);
        return cache_get_export(w->k->cache, m->key.tek, m->kek, &m->data)
                   ? 0
                   : read_store(w, read_export, &l);
    }
    atomic_fetch_add(&w->k->tek_misses, 1);
    if (!bloom_may_have(w->k->bloom, l.content_id))
        return TEKD_ENOTFOUND;
    return read_store(w, read_content, &l);
}
