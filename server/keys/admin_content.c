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
    struct store_content content;
};

static int record_content(struct store_tx *tx, const struct addition *x)
{
    struct record *rec = NULL;
    int r = record_new("content.added", &rec);

    if (r < 0)
        return r;
    record_str(rec, "content", x->content.id);
    record_int(rec, "bits", x->content.bits);
    admin_actor(rec, x->actor);
    return store_tx_record(tx, rec, NULL);
}

static int apply_add(void *arg, struct store_tx *tx)
{
    struct addition *x = arg;
    int r;

    x->content.created_us = store_tx_utc_us(tx);
    r = store_tx_content_insert(tx, &x->content);
    if (r < 0)
        return r;
    bloom_add(x->k->bloom, x->content.id);
    return record_content(tx, x);
}

int keys_content_add(struct keys *k, const struct keys_actor *a, const char *id, unsigned bits,
                     struct keys_error *err)
{
    struct addition x = {.k = k, .actor = a, .content.bits = bits};
    int r;

    if (!admin_is_text(id, STORE_CONTENT_MAX))
        return admin_fail(
            err, TEKD_EINVAL,
            "the ContentID has to be 1..%d octets without control characters or white "
            "space at its ends",
            STORE_CONTENT_MAX);
    if (bits != 128 && bits != 192 && bits != 256)
        return admin_fail(err, TEKD_EINVAL, "bits: expected 128, 192 or 256, found %u", bits);
    (void)snprintf(x.content.id, sizeof(x.content.id), "%s", id);
    r = store_call(k->store, STORE_DURABLE, apply_add, &x);
    if (r == TEKD_EEXIST)
        return admin_fail(err, r, "\"%s\": there is such a content already", id);
    if (r < 0)
        return admin_fail(err, r, "recording the content: %s", tekd_strerror(r));
    return 0;
}

/* ---- key rotate ------------------------------------------------------------------------------ */

struct rotation {
    struct keys *k;
    const struct keys_actor *actor;
    const char *content_id;
    struct store_kek storage;
    struct store_content content;
    struct store_tek tek;
};

static int read_content(void *arg, struct store_tx *tx)
{
    struct rotation *x = arg;

    return store_tx_content_find(tx, x->content_id, strlen(x->content_id), &x->content);
}

static int record_rotated(struct store_tx *tx, const struct rotation *x)
{
    char key_id[ENC_UUID_LEN + 1];
    struct record *rec = NULL;
    int r = record_new("tek.generated", &rec);

    if (r < 0)
        return r;
    enc_uuid(x->tek.key_id, key_id);
    record_str(rec, "keyid", key_id);
    record_str(rec, "content", x->content.id);
    record_int(rec, "bits", x->tek.bits);
    record_str(rec, "kekid", x->storage.name);
    r = store_tx_record(tx, rec, NULL);
    return r < 0 ? r : admin_record(tx, x->actor, "key rotate", x->content.id);
}

/*
 * From here on the old TEK is not current: requests that were decided on it are decided again.  In
 * this order: who takes the new generation before it asks the cache cannot find the old TEK there.
 */
static void tek_changed(struct keys *k, const char *content_id)
{
    cache_drop(k->cache, content_id);
    atomic_fetch_add(&k->tek_generation, 1);
}

static int apply_rotate(void *arg, struct store_tx *tx)
{
    struct rotation *x = arg;
    uint32_t newest;
    int r = store_tx_tek_newest(tx, x->content.row, 0, &newest);

    if (r < 0)
        return r;
    x->tek.version = newest + 1;
    x->tek.created_us = store_tx_utc_us(tx);
    r = store_tx_tek_insert(tx, &x->tek);
    if (r == 0)
        r = record_rotated(tx, x);
    if (r == 0)
        tek_changed(x->k, x->content.id);
    return r;
}

static int make_tek(struct rotation *x, struct keys_error *err)
{
    struct hsm_issued issued;
    int r = keys_storage(x->k, &x->storage);

    if (r == 0)
        r = hsm_issue(x->k->hsm, x->content.bits, &x->storage.kek, NULL,
                      clock_mono_us() + KEYS_HSM_US, &issued);
    if (r == 0)
        r = enc_uuidv7(clock_utc_us(), x->tek.key_id);
    if (r < 0)
        return admin_fail(err, r, "making the TEK: %s", tekd_strerror(r));
    x->tek.content = x->content.row;
    x->tek.bits = x->content.bits;
    x->tek.storage_kek = x->storage.row;
    x->tek.stored = issued.stored;
    return 0;
}

int keys_rotate(struct keys *k, const struct keys_actor *a, const char *content_id,
                uint8_t ret_key_id[static 16], struct keys_error *err)
{
    struct rotation x = {.k = k, .actor = a, .content_id = content_id};
    int r = store_call(k->store, STORE_READ, read_content, &x);

    if (r == TEKD_ENOTFOUND)
        return admin_fail(err, r, "\"%s\": no such content", content_id);
    if (r < 0)
        return admin_fail(err, r, "reading the content: %s", tekd_strerror(r));
    r = make_tek(&x, err);
    if (r < 0)
        return r;
    r = store_call(k->store, STORE_DURABLE, apply_rotate, &x);
    if (r < 0)
        return admin_fail(err, r, "recording the TEK: %s", tekd_strerror(r));
    memcpy(ret_key_id, x.tek.key_id, 16);
    return 0;
}

/* ---- key destroy ----------------------------------------------------------------------------- */

struct destruction {
    struct keys *k;
    const struct keys_actor *actor;
    const uint8_t *key_id;
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
    admin_actor(rec, x->actor);
    return store_tx_record(tx, rec, NULL);
}

static int apply_destroy(void *arg, struct store_tx *tx)
{
    struct destruction *x = arg;
    struct store_tek t;
    int r = store_tx_tek_by_id(tx, x->key_id, &t);

    if (r == 0 && t.destroyed)
        return TEKD_EEXIST;
    if (r == 0)
        r = store_tx_content_get(tx, t.content, &x->content);
    if (r == 0)
        r = store_tx_tek_destroy(tx, t.row);
    if (r == 0)
        r = record_destroyed(tx, x);
    if (r == 0)
        tek_changed(x->k, x->content.id);
    return r;
}

int keys_destroy(struct keys *k, const struct keys_actor *a, const uint8_t key_id[static 16],
                 struct keys_error *err)
{
    struct destruction x = {.k = k, .actor = a, .key_id = key_id};
    int r = store_call(k->store, STORE_DURABLE, apply_destroy, &x);

    if (r == TEKD_ENOTFOUND)
        return admin_fail(err, r, "no TEK has this key ID");
    if (r == TEKD_EEXIST)
        return admin_fail(err, r, "this TEK is destroyed already");
    if (r < 0)
        return admin_fail(err, r, "recording the destruction: %s", tekd_strerror(r));
    return 0;
}
