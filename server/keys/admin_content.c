/*
 * Contents and their TEKs, as operators change them.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

/* ---- content add ----------------------------------------------------------------------------- */

struct addition {
    struct keys *k;
    const struct keys_actor *actor;
    const struct keys_content_add *wanted;
    struct store_content content;
};

static int record_content(struct store_tx *tx, const struct addition *x)
{
    const struct store_content *c = &x->content;
    char epoch[ENC_TIME_LEN + 1];
    struct record *rec = NULL;
    int r = record_new("content.added", &rec);

    if (r < 0)
        return r;
    record_str(rec, "content", c->id);
    record_int(rec, "bits", c->bits);
    if (c->period_s != 0) {
        enc_time(c->epoch_utc_us, epoch);
        record_int(rec, "period_s", (uint64_t)c->period_s);
        record_int(rec, "lead_s", (uint64_t)c->lead_s);
        record_str(rec, "epoch", epoch);
    }
    admin_actor(rec, x->actor);
    return store_tx_record(tx, rec, NULL);
}

/* An epoch of our own choosing is a whole second: the times of its periods are read by people. */
static int apply_add(void *arg, struct store_tx *tx)
{
    struct addition *x = arg;
    int64_t now_us = store_tx_utc_us(tx);
    int r;

    x->content.created_us = now_us;
    if (x->content.period_s != 0)
        x->content.epoch_utc_us =
            x->wanted->set_epoch ? x->wanted->epoch_utc_us : now_us - now_us % 1000000;
    r = store_tx_content_insert(tx, &x->content);
    if (r < 0)
        return r;
    bloom_add(x->k->bloom, x->content.id);
    return record_content(tx, x);
}

static int check_periods(const struct keys_content_add *c, struct keys_error *err)
{
    if (c->period_s == 0 && (c->lead_s != 0 || c->set_epoch))
        return admin_fail(err, TEKD_EINVAL,
                          "lead and epoch are of crypto-periods, and no period is given");
    if (c->period_s == 0)
        return 0;
    if (c->period_s < KEYS_PERIOD_MIN_S || c->period_s > KEYS_PERIOD_MAX_S)
        return admin_fail(err, TEKD_EINVAL, "period: expected %d to %d seconds, found %lld",
                          KEYS_PERIOD_MIN_S, KEYS_PERIOD_MAX_S, (long long)c->period_s);
    if (c->lead_s < 0 || c->lead_s >= c->period_s)
        return admin_fail(err, TEKD_EINVAL,
                          "lead: expected 0 to %lld seconds, less than the period, found %lld",
                          (long long)c->period_s - 1, (long long)c->lead_s);
    if (c->set_epoch && (c->epoch_utc_us < 0 || c->epoch_utc_us > clock_utc_us()))
        return admin_fail(err, TEKD_EINVAL,
                          "epoch: expected a time from 1970 on that is not in the future");
    return 0;
}

static int check_content(const struct keys_content_add *c, struct keys_error *err)
{
    if (!admin_is_text(c->id, STORE_CONTENT_MAX))
        return admin_fail(
            err, TEKD_EINVAL,
            "the ContentID has to be 1..%d octets without control characters or white "
            "space at its ends",
            STORE_CONTENT_MAX);
    if (c->bits != 128 && c->bits != 192 && c->bits != 256)
        return admin_fail(err, TEKD_EINVAL, "bits: expected 128, 192 or 256, found %u", c->bits);
    return check_periods(c, err);
}

int keys_content_add(struct keys *k, const struct keys_actor *a, const struct keys_content_add *c,
                     struct keys_error *err)
{
    struct addition x = {
        .k = k,
        .actor = a,
        .wanted = c,
        .content = {.bits = c->bits, .period_s = c->period_s, .lead_s = c->lead_s}};
    int r = check_content(c, err);

    if (r < 0)
        return r;
    (void)snprintf(x.content.id, sizeof(x.content.id), "%s", c->id);
    r = store_call(k->store, STORE_DURABLE, apply_add, &x);
    if (r == TEKD_EEXIST)
        return admin_fail(err, r, "\"%s\": there is such a content already", c->id);
    if (r < 0)
        return admin_fail(err, r, "recording the content: %s", tekd_strerror(r));
    if (c->period_s != 0)
        delivery_changed(k, 0);
    return 0;
}

/* ---- key rotate ------------------------------------------------------------------------------ */

struct rotation {
    struct tek_order order;
    const struct keys_actor *actor;
    const char *content_id;
};

static int read_content(void *arg, struct store_tx *tx)
{
    struct rotation *x = arg;

    return store_tx_content_find(tx, x->content_id, strlen(x->content_id), &x->order.content);
}

/* Of the period that is current now, not when the TEK was made. */
static int apply_rotate(void *arg, struct store_tx *tx)
{
    struct rotation *x = arg;
    int r;

    period_at(&x->order.content, store_tx_utc_us(tx), &x->order.period);
    r = tek_insert(&x->order, tx);
    if (r == 0)
        r = tek_fan_out(tx, &x->order.period, &x->order.tek);
    if (r == 0)
        r = admin_record(tx, x->actor, "key rotate", x->content_id);
    if (r == 0)
        tek_changed(x->order.k, x->content_id);
    return r;
}

int keys_rotate(struct keys *k, const struct keys_actor *a, const char *content_id,
                uint8_t ret_key_id[static 16], struct keys_error *err)
{
    struct rotation x = {.order.k = k, .actor = a, .content_id = content_id};
    int r = store_call(k->store, STORE_READ, read_content, &x);

    if (r == TEKD_ENOTFOUND)
        return admin_fail(err, r, "\"%s\": no such content", content_id);
    if (r < 0)
        return admin_fail(err, r, "reading the content: %s", tekd_strerror(r));
    r = tek_make(&x.order, clock_mono_us() + KEYS_HSM_US);
    if (r < 0)
        return admin_fail(err, r, "making the TEK: %s", tekd_strerror(r));
    r = store_call(k->store, STORE_DURABLE, apply_rotate, &x);
    if (r < 0)
        return admin_fail(err, r, "recording the TEK: %s", tekd_strerror(r));
    memcpy(ret_key_id, x.order.tek.key_id, 16);
    delivery_changed(k, 0);
    return 0;
}

/* ---- key destroy ----------------------------------------------------------------------------- */

struct destruction {
    const uint8_t *key_id;
    struct key_gone gone;
    struct store_content content;
};

static int record_destroyed(struct store_tx *tx, const struct destruction *x)
{
    char key_id[ENC_UUID_LEN + 1];
    struct record *rec = NULL;
    int r = record_new("tek.destroyed", &rec);

    if (r < 0)
        return r;
    enc_uuid(x->key_id, key_id);
    record_str(rec, "keyid", key_id);
    record_str(rec, "content", x->content.id);
    admin_actor(rec, x->gone.actor);
    return store_tx_record(tx, rec, NULL);
}

static int read_destroyed(void *arg, struct store_tx *tx)
{
    struct destruction *x = arg;
    struct store_tek t;
    int r = store_tx_tek_by_id(tx, x->key_id, &t);

    if (r == 0 && t.destroyed)
        return TEKD_EEXIST;
    if (r == 0)
        r = store_tx_content_get(tx, t.content, &x->content);
    if (r == 0)
        x->gone.tek = t.row;
    return r;
}

static int apply_destroy(void *arg, struct store_tx *tx)
{
    struct destruction *x = arg;
    int r = read_destroyed(x, tx);

    if (r == 0)
        r = delivery_gone(&x->gone, tx);
    if (r == 0)
        r = store_tx_tek_destroy(tx, x->gone.tek);
    if (r == 0)
        r = record_destroyed(tx, x);
    if (r == 0)
        tek_changed(x->gone.k, x->content.id);
    return r;
}

/* What is open of it is abandoned first, as much as is not left to the transaction itself. */
static int destroy_once(struct destruction *x)
{
    int r = delivery_gone_ahead(&x->gone);

    return r < 0 ? r : store_call(x->gone.k->store, STORE_DURABLE, apply_destroy, x);
}

int keys_destroy(struct keys *k, const struct keys_actor *a, const uint8_t key_id[static 16],
                 struct keys_error *err)
{
    struct destruction x = {.key_id = key_id, .gone = {.k = k, .actor = a}};
    int r = store_call(k->store, STORE_READ, read_destroyed, &x);

    if (r == 0)
        r = TEKD_EAGAIN;
    for (int i = 0; i < KEYS_ATTEMPTS_MAX && r == TEKD_EAGAIN; i++)
        r = destroy_once(&x);
    if (r == TEKD_ENOTFOUND)
        return admin_fail(err, r, "no TEK has this key ID");
    if (r == TEKD_EEXIST)
        return admin_fail(err, r, "this TEK is destroyed already");
    if (r < 0)
        return admin_fail(err, r, "recording the destruction: %s", tekd_strerror(r));
    return 0;
}
