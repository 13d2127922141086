/*
 * Key Deliveries of one TEK that are prepared together: the TEK wrapped for each BSA, each message
 * written, the octets of which every attempt sends, and all of it stored in one transaction.
 */
#include "internal.h"

#include <assert.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* The patience with an HSM that wraps nothing of a group. */
#define GROUP_US (INT64_C(3) * KEYS_HSM_US)

/* ---- members --------------------------------------------------------------------------------- */

int group_new(struct keys *k, int64_t deadline_s, struct group **ret_group)
{
    struct group *g = calloc(1, sizeof(*g));

    if (!g)
        return TEKD_ENOMEM;
    g->k = k;
    g->deadline_s = deadline_s;
    *ret_group = g;
    return 0;
}

static void draft_clear(struct draft *d)
{
    bsa_state_unref(d->bsa);
    buf_free(d->message);
    *d = (struct draft){.bsa = NULL};
}

void group_clear(struct group *g)
{
    while (g->n > 0)
        draft_clear(&g->draft[--g->n]);
    g->n_failed = 0;
}

void group_free(struct group *g)
{
    if (!g)
        return;
    group_clear(g);
    free(g);
}

void group_add(struct group *g, struct bsa_state *take_bsa)
{
    struct draft *d = &g->draft[g->n++];

    assert(g->n <= KEYS_FANOUT_GROUP);
    d->bsa = take_bsa;
}

/* The order of the others stays. */
static void drop(struct group *g, size_t at)
{
    draft_clear(&g->draft[at]);
    g->n--;
    memmove(&g->draft[at], &g->draft[at + 1], (g->n - at) * sizeof(g->draft[0]));
    g->draft[g->n] = (struct draft){.bsa = NULL};
}

/* ---- the TEK for each ------------------------------------------------------------------------ */

static void fill_material(const struct group *g, struct draft *d)
{
    const struct store_kek *kek = &d->bsa->row->kek;
    struct key_material *m = &d->made;

    m->key = (struct key_entry){.content = g->content.row,
                                .bits = g->tek.bits,
                                .tek = g->tek.row,
                                .period = g->period,
                                .storage_kek = g->tek.storage_kek};
    memcpy(m->key.key_id, g->tek.key_id, sizeof(m->key.key_id));
    m->kek = kek->row;
    m->wrap = kek->kek.wrap;
    memcpy(m->kek_name, kek->name, sizeof(m->kek_name));
}

static int read_draft(const struct group *g, struct draft *d, struct store_tx *tx)
{
    int r;

    fill_material(g, d);
    r = store_tx_export_find(tx, d->made.key.tek, d->made.kek, &d->made.data);
    d->made.new_export = r == TEKD_ENOTFOUND;
    return d->made.new_export ? 0 : r;
}

int group_read(struct group *g, struct store_tx *tx)
{
    size_t i = 0;
    int r = 0;

    period_get(&g->content, g->tek.period, &g->period);
    while (i < g->n && r == 0) {
        r = read_draft(g, &g->draft[i], tx);
        if (r == 0 && g->new_only && !g->draft[i].made.new_export)
            drop(g, i);
        else
            i++;
    }
    return r;
}

static int export(const struct group *g, const struct store_kek *storage, struct draft *d)
{
    const struct hsm_export in = {.bits = g->tek.bits,
                                  .storage = &storage->kek,
                                  .stored = &g->tek.stored,
                                  .bsa = &d->bsa->row->kek.kek};

    return hsm_export(g->k->hsm, &in, clock_mono_us() + KEYS_HSM_US, &d->made.data);
}

/* As many as one message to a worker takes, from draft i on.  Returns behind the last of them. */
static size_t collect(struct group *g, const struct store_kek *storage, size_t i,
                      struct draft *ret_of[static HSM_MANY_MAX],
                      struct hsm_order ret_orders[static HSM_MANY_MAX], size_t *ret_n)
{
    size_t n = 0, max = hsm_many(g->k->hsm);

    for (; i < g->n && n < max; i++) {
        struct draft *d = &g->draft[i];

        if (!d->made.new_export)
            continue;
        ret_of[n] = d;
        ret_orders[n++] = (struct hsm_order){.bits = g->tek.bits,
                                             .storage = &storage->kek,
                                             .bsa = &d->bsa->row->kek.kek,
                                             .stored = &g->tek.stored};
    }
    *ret_n = n;
    return i;
}

/* Returns how many are wrapped. */
static size_t take_wrapped(struct draft *const of[], const struct hsm_order o[], size_t n)
{
    size_t wrapped = 0;

    for (size_t i = 0; i < n; i++) {
        struct draft *d = of[i];

        d->asked = true;
        d->error = o[i].error;
        if (d->error == 0) {
            d->made.data = o[i].issued.data;
            wrapped++;
        }
    }
    return wrapped;
}

/* The usual case: it ends where something fails.  Returns whether anything was wrapped. */
static bool wrap_many(struct group *g, const struct store_kek *storage)
{
    struct draft *of[HSM_MANY_MAX];
    struct hsm_order o[HSM_MANY_MAX];
    size_t n, wrapped, i = 0, all = 0;

    do {
        i = collect(g, storage, i, of, o, &n);
        if (n == 0)
            break;
        hsm_make_many(g->k->hsm, o, n, clock_mono_us() + KEYS_HSM_US);
        wrapped = take_wrapped(of, o, n);
        all += wrapped;
    } while (wrapped == n);
    return all > 0;
}

/* Errors that no KEK of a BSA is the reason of. */
static bool is_of_all(int r)
{
    return r == TEKD_EAGAIN || r == TEKD_ENOMEM || r == TEKD_ECLOSED || r == TEKD_EFORMAT;
}

/* The token was searched: a KEK is not there, or not as it has to be. */
static bool is_certain(int r)
{
    return r == TEKD_ENOTFOUND || r == TEKD_EWEAK;
}

/*
 * What fails may be the BSA's KEK, which the token has lost, or which hangs or kills every worker;
 * or it is the HSM.  So it is asked for the storage KEK, and then to do the same again: if it finds
 * that one as it should be, d->error is what fails for this BSA.
 */
static int wrap(const struct group *g, const struct store_kek *storage, struct draft *d)
{
    struct keys_error unused;
    int r = d->asked ? d->error : export(g, storage, d);

    d->error = 0;
    if (r == 0 || is_of_all(r))
        return r;
    r = kek_check(g->k, storage, clock_mono_us() + KEYS_HSM_US, &unused);
    if (r < 0)
        return r;
    r = export(g, storage, d);
    if (r == 0 || is_of_all(r))
        return r;
    d->error = r;
    return 0;
}

static void note_failure(struct group *g, const struct draft *d)
{
    const char *id = d->bsa->row->id;

    g->n_failed++;
    g->error = d->error;
    (void)snprintf(g->failed, sizeof(g->failed), "%s", id);
    log_event(LOG_ERROR, "keys", "delivery-not-prepared", LOG_STR("bsa", id),
              LOG_STR("content", g->content.id), LOG_STR("kekid", d->made.kek_name),
              LOG_STR("error", tekd_errname(d->error)),
              LOG_STR("what", "the TEK cannot be wrapped under this KEK, and the HSM works"));
}

static void drop_failed(struct group *g)
{
    size_t i = 0;

    while (i < g->n) {
        if (g->draft[i].error < 0) {
            note_failure(g, &g->draft[i]);
            drop(g, i);
        } else {
            i++;
        }
    }
}

/*
 * An error that is not certain is the BSA's own only when the same was done for another one.  When
 * it was for none the whole group fails, and is tried again later; after GROUP_US at the latest, so
 * that an HSM that hangs is not waited for once for each.
 */
static int wrap_each(struct group *g, const struct store_kek *storage)
{
    int64_t until_us = clock_mono_us() + GROUP_US;
    int doubtful = 0, r = 0;
    bool worked = wrap_many(g, storage);

    for (size_t i = 0; i < g->n && r == 0; i++) {
        struct draft *d = &g->draft[i];

        if (!d->made.new_export || (d->asked && d->error == 0))
            continue;
        r = wrap(g, storage, d);
        worked = worked || (r == 0 && d->error == 0);
        if (d->error < 0 && !is_certain(d->error))
            doubtful = d->error;
        if (r == 0 && doubtful < 0 && !worked && clock_mono_us() > until_us)
            r = doubtful;
    }
    return r == 0 && !worked ? doubtful : r;
}

static int wrap_all(struct group *g)
{
    struct store_kek storage;
    int r = keys_storage(g->k, &storage);

    if (r < 0)
        return r;
    if (g->tek.storage_kek != storage.row)
        return TEKD_EINTERNAL; /* there is one storage KEK */
    r = wrap_each(g, &storage);
    if (r == 0)
        drop_failed(g);
    return r;
}

/* ---- the messages ---------------------------------------------------------------------------- */

static void fill_message(const struct group *g, const struct draft *d, struct cp3_message *m)
{
    int64_t at_us = d->row.created_us;

    cp3_message_init(m, CP3_DELIVERY);
    m->has = CP3_HAS_VERSION | CP3_HAS_TIME;
    m->version = POLICY_VERSION;
    memcpy(m->message_id, d->row.mid, sizeof(d->row.mid));
    memcpy(m->content_id, g->content.id, sizeof(m->content_id));
    memcpy(m->destination, d->bsa->row->id, sizeof(m->destination));
    memcpy(m->source, g->k->bsm_id, sizeof(m->source));
    m->data_len = d->made.data.len;
    memcpy(m->data, d->made.data.octets, d->made.data.len);
    (void)cp3_time_set(&m->time, at_us / 1000000, (uint32_t)(at_us % 1000000) * 1000);
    if (d->bsa->row->key_info)
        tek_set_key_info(&d->made, m);
}

static int64_t deadline_of(const struct group *g, int64_t now_us)
{
    int64_t deadline_us = now_us + g->deadline_s * 1000000;

    return g->period.until_us != 0 && g->period.until_us < deadline_us ? g->period.until_us
                                                                       : deadline_us;
}

static int write_message(const struct group *g, struct draft *d)
{
    enum cp3_media media = d->bsa->row->media == STORE_MEDIA_JSON ? CP3_JSON : CP3_XML;
    int64_t now_us = clock_utc_us();
    struct cp3_message m;
    uint8_t id[16];
    int r = enc_uuidv7(now_us, id);

    if (r < 0)
        return r;
    d->row = (struct store_delivery){.bsa = d->bsa->row->row,
                                     .content = g->content.row,
                                     .tek = g->tek.row,
                                     .kek = d->made.kek,
                                     .media = d->bsa->row->media,
                                     .state = STORE_DELIVERY_PREPARED,
                                     .created_us = now_us,
                                     .next_us = now_us,
                                     .deadline_us = deadline_of(g, now_us)};
    enc_uuid(id, d->row.mid);
    fill_message(g, d, &m);
    r = reply_write(media, CP3_FULL, &m, &d->message);
    if (r == 0)
        SHA256(buf_data(d->message), buf_len(d->message), d->row.out_sha256);
    return r;
}

int group_prepare(struct group *g)
{
    int r = wrap_all(g);

    for (size_t i = 0; i < g->n && r == 0; i++)
        r = write_message(g, &g->draft[i]);
    return r;
}

/* ---- on the store thread --------------------------------------------------------------------- */

static int check_tek(const struct group *g, struct store_tx *tx)
{
    struct store_tek now;
    int r = g->current ? store_tx_tek_current(tx, g->content.row, g->tek.period, &now)
                       : store_tx_tek_get(tx, g->tek.row, &now);

    if (r == TEKD_ENOTFOUND)
        return TEKD_ESTALE;
    if (r < 0)
        return r;
    if (now.row != g->tek.row || now.destroyed || period_is_over(&g->period, store_tx_utc_us(tx)))
        return TEKD_ESTALE;
    return 0;
}

static int record_prepared(const struct group *g, struct draft *d, struct store_tx *tx)
{
    char key_id[ENC_UUID_LEN + 1];
    struct record *rec = NULL;
    int r = record_new("delivery.prepared", &rec);

    if (r < 0)
        return r;
    enc_uuid(g->tek.key_id, key_id);
    record_str(rec, "mid", d->row.mid);
    record_str(rec, "peer", d->bsa->row->id);
    record_str(rec, "dir", "push");
    record_str(rec, "content", g->content.id);
    record_str(rec, "keyid", key_id);
    record_str(rec, "kekid", d->made.kek_name);
    record_hex(rec, "out", d->row.out_sha256, 32);
    period_record(rec, &g->period);
    d->row.epoch = store_tx_epoch(tx);
    return store_tx_record(tx, rec, &d->row.seq);
}

static int put_export(const struct group *g, const struct draft *d, struct store_tx *tx)
{
    const struct tek_given given = {.bsa = d->bsa->row->row,
                                    .content = g->content.row,
                                    .tek = g->tek.row,
                                    .kek = d->made.kek,
                                    .period = &g->period,
                                    .data = &d->made.data};

    return tek_put_export(g->k, tx, &given);
}

static int apply_draft(const struct group *g, struct draft *d, struct store_tx *tx)
{
    int r = bsa_state_current(d->bsa) ? 0 : TEKD_ESTALE;

    if (r == 0 && d->made.new_export)
        r = put_export(g, d, tx);
    if (r == 0)
        r = record_prepared(g, d, tx);
    return r < 0 ? r
                 : store_tx_delivery_insert(tx, &d->row, buf_data(d->message), buf_len(d->message));
}

/* Those that have asked for the TEK since group_read(): a step that began anew for each of them
 * would not end while they ask. */
static int drop_given(struct group *g, struct store_tx *tx)
{
    struct hsm_blob unused;
    size_t i = 0;

    while (i < g->n) {
        const struct key_material *m = &g->draft[i].made;
        int r = store_tx_export_find(tx, m->key.tek, m->kek, &unused);

        if (r < 0 && r != TEKD_ENOTFOUND)
            return r;
        if (r == TEKD_ENOTFOUND)
            i++;
        else
            drop(g, i);
    }
    return 0;
}

int group_apply(struct group *g, struct store_tx *tx)
{
    int r = check_tek(g, tx);

    if (r == 0 && g->new_only)
        r = drop_given(g, tx);
    for (size_t i = 0; i < g->n && r == 0; i++)
        r = apply_draft(g, &g->draft[i], tx);
    return r;
}

void group_done(const struct group *g, int result)
{
    if (result == TEKD_ESTALE)
        return;
    for (size_t i = 0; i < g->n; i++)
        delivery_changed(g->k, g->draft[i].row.bsa);
}
