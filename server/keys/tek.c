#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

int tek_make(struct tek_order *o, int64_t deadline_us)
{
    struct hsm_issued issued;
    struct store_kek storage;
    int r = keys_storage(o->k, &storage);

    if (r == 0)
        r = hsm_issue(o->k->hsm, o->content.bits, &storage.kek, NULL, deadline_us, &issued);
    if (r == 0)
        r = enc_uuidv7(clock_utc_us(), o->tek.key_id);
    if (r < 0)
        return r;
    o->tek.bits = o->content.bits;
    o->tek.storage_kek = storage.row;
    o->tek.stored = issued.stored;
    return 0;
}

static int record_generated(struct keys *k, struct store_tx *tx, const char *content_id,
                            const struct period *p, const struct store_tek *t)
{
    char key_id[ENC_UUID_LEN + 1];
    AUTO(record) struct record *rec = NULL;
    struct store_kek storage;
    int r = keys_storage(k, &storage);

    if (r == 0)
        r = record_new("tek.generated", &rec);
    if (r < 0)
        return r;
    enc_uuid(t->key_id, key_id);
    record_str(rec, "keyid", key_id);
    record_str(rec, "content", content_id);
    record_int(rec, "bits", t->bits);
    record_str(rec, "kekid", storage.name);
    period_record(rec, p);
    return store_tx_record(tx, TAKE(rec), NULL);
}

int tek_put(struct keys *k, struct store_tx *tx, const char *content_id, const struct period *p,
            struct store_tek *t)
{
    int r = store_tx_tek_insert(tx, t);

    return r < 0 ? r : record_generated(k, tx, content_id, p, t);
}

int tek_insert(struct tek_order *o, struct store_tx *tx)
{
    uint32_t newest;
    int r = store_tx_tek_newest(tx, o->content.row, o->period.index, &newest);

    if (r < 0)
        return r;
    o->tek.content = o->content.row;
    o->tek.period = o->period.index;
    o->tek.version = newest + 1;
    o->tek.created_us = store_tx_utc_us(tx);
    return tek_put(o->k, tx, o->content.id, &o->period, &o->tek);
}

bool tek_is_first(const struct period *p, uint32_t version)
{
    return p->until_us == 0 && version == 1;
}

int tek_fan_out(struct store_tx *tx, const struct period *p, const struct store_tek *t)
{
    struct store_fanout f = {.tek = t->row, .content = t->content};

    return tek_is_first(p, t->version) ? 0 : store_tx_fanout_insert(tx, &f);
}

/* In this order: who takes the new generation before it asks the cache cannot find the old TEK
 * there. */
void tek_changed(struct keys *k, const char *content_id)
{
    cache_drop(k->cache, content_id);
    atomic_fetch_add(&k->tek_generation, 1);
}

/* The fan-out of the next period's TEK may have gone by. */
static int reach_new_holder(struct keys *k, struct store_tx *tx, const struct tek_given *g)
{
    struct store_fanout f = {.content = g->content, .after_bsa = g->bsa - 1};
    struct store_tek next;
    int r;

    if (g->period->until_us == 0)
        return 0;
    r = store_tx_tek_current(tx, g->content, g->period->index + 1, &next);
    if (r < 0)
        return r == TEKD_ENOTFOUND ? 0 : r;
    f.tek = next.row;
    r = store_tx_fanout_reach(tx, &f);
    if (r == 0)
        delivery_changed(k, 0); /* who looks now waits for this transaction */
    return r;
}

static int check_stored(struct keys *k, struct store_tx *tx, const struct tek_given *g)
{
    struct hsm_blob stored = {.len = 0};
    int r = store_tx_export_find(tx, g->tek, g->kek, &stored);

    if (r < 0)
        return r;
    if (stored.len == g->data->len && memcmp(stored.octets, g->data->octets, stored.len) == 0)
        return 0;
    cache_put_export(k->cache, g->tek, g->kek, &stored);
    return TEKD_ESTALE;
}

int tek_put_export(struct keys *k, struct store_tx *tx, const struct tek_given *g)
{
    bool is_holder;
    int r = store_tx_export_insert(tx, g->tek, g->kek, g->data, &is_holder);

    if (r == TEKD_EEXIST)
        return check_stored(k, tx, g);
    return r == 0 && is_holder ? reach_new_holder(k, tx, g) : r;
}

static void set_period(const struct period *p, struct cp3_key_info *info)
{
    info->period = (uint64_t)p->index;
    if (cp3_time_set(&info->not_before, p->from_us / 1000000,
                     (uint32_t)(p->from_us % 1000000) * 1000) == 0 &&
        cp3_time_set(&info->not_after, p->until_us / 1000000,
                     (uint32_t)(p->until_us % 1000000) * 1000) == 0)
        info->has = CP3_KEY_HAS_PERIOD | CP3_KEY_HAS_NOT_BEFORE | CP3_KEY_HAS_NOT_AFTER;
}

void tek_set_key_info(const struct key_material *made, struct cp3_message *m)
{
    struct cp3_key_info *info = &m->key_info;

    info->has = 0;
    memcpy(info->key_id, made->key.key_id, sizeof(info->key_id));
    (void)snprintf(info->kek_id, sizeof(info->kek_id), "%s", made->kek_name);
    if (cp3_wrap_from_name(hsm_wrap_name(made->wrap), &info->wrap) == 0)
        m->has |= CP3_HAS_KEY_INFO;
    info->bits = made->key.bits;
    if (made->key.period.until_us != 0)
        set_period(&made->key.period, info);
}
