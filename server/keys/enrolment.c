/*
 * A change of what is enrolled for a BSA: its rows and records on the store thread, and what is in
 * force with them.
 */
#include "internal.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

int enrolment_begin(struct keys *k, const char *id, struct bsa_state **ret_seen,
                    struct store_bsa **ret_row, struct keys_error *err)
{
    AUTO_BSA struct bsa_state *s = registry_by_id(k->registry, id);
    int r;

    if (!s || s->row->row == 0)
        return admin_fail(err, TEKD_ENOTFOUND, "\"%s\": no such BSA", id);
    r = store_bsa_dup(s->row, ret_row);
    if (r == 0)
        *ret_seen = TAKE(s);
    return r;
}

static void record_certs(struct record *rec, const struct store_bsa *b)
{
    char text[STORE_CERTS_MAX * (ENC_HEX_LEN(32) + 1)] = "";
    size_t at = 0;

    for (size_t i = 0; i < b->n_certs; i++) {
        if (i > 0)
            text[at++] = ',';
        enc_hex(b->cert[i], 32, text + at);
        at += ENC_HEX_LEN(32);
    }
    record_str(rec, "cert", text);
}

static int record_entitle(struct record *rec, const struct store_bsa *b)
{
    AUTO(buf) struct buf *text = NULL;
    int r = buf_new(ENTITLE_TOTAL_MAX, &text);

    for (size_t i = 0; i < b->n_entitle && r == 0; i++)
        r = buf_printf(text, "%s%s", i > 0 ? " " : "", b->entitle[i]);
    if (r == 0)
        record_str(rec, "entitle", buf_str(text));
    return r;
}

/* Where and in which form it gets its keys, for that is not in bsa.enrolled. */
static int record_way(struct record *rec, const struct store_bsa *b)
{
    uint8_t sha256[32];

    record_str(rec, "media", b->media == STORE_MEDIA_JSON ? "json" : "xml");
    record_str(rec, "form", b->form == STORE_FORM_EFFICIENT ? "efficient" : "full");
    record_bool(rec, "key_info", b->key_info);
    if (b->url[0])
        record_str(rec, "url", b->url);
    if (!b->ca_pem)
        return 0;
    if (!SHA256((const uint8_t *)b->ca_pem, strlen(b->ca_pem), sha256))
        return TEKD_ECRYPTO;
    record_hex(rec, "ca", sha256, sizeof(sha256));
    return 0;
}

static int record_act(struct enrolment *e, struct store_tx *tx)
{
    AUTO(record) struct record *rec = NULL;
    int r = record_new("admin.action", &rec);

    if (r < 0)
        return r;
    admin_actor(rec, e->actor);
    record_str(rec, "action", e->action);
    record_str(rec, "detail", e->row->id);
    if (e->row->enabled)
        r = record_way(rec, e->row);
    return r < 0 ? r : store_tx_record(tx, TAKE(rec), NULL);
}

static int record_enrolled(struct enrolment *e, struct store_tx *tx)
{
    AUTO(record) struct record *rec = NULL;
    int r = record_new(e->row->enabled ? "bsa.enrolled" : "bsa.disabled", &rec);

    if (r < 0)
        return r;
    record_str(rec, "bsa", e->row->id);
    admin_actor(rec, e->actor);
    if (e->row->enabled) {
        record_certs(rec, e->row);
        record_str(rec, "kekid", e->row->kek.name);
        r = record_entitle(rec, e->row);
    }
    if (r < 0)
        return r;
    r = store_tx_record(tx, TAKE(rec), NULL);
    return r < 0 ? r : record_act(e, tx);
}

static int add_kek(struct enrolment *e, struct store_tx *tx)
{
    struct store_bsa *b = e->row;
    struct store_kek *kek = &b->kek;
    uint32_t newest = 0;
    int r = store_tx_kek_newest(tx, b->row, &newest);

    if (r < 0)
        return r;
    kek->bsa = b->row;
    kek->version = newest + 1;
    kek->added_us = store_tx_utc_us(tx);
    (void)snprintf(kek->name, sizeof(kek->name), "%s/%u", b->id, (unsigned)kek->version);
    r = store_tx_kek_insert(tx, kek);
    return r < 0 ? r : kek_record(tx, kek, e->actor);
}

/*
 * No request finds what is dropped here again: who was decided under the old state does not get
 * beyond check_fresh(), and only behind that is something put into the cache, on this thread.
 */
static int retire_kek(struct enrolment *e, struct store_tx *tx)
{
    int r = delivery_gone(&e->gone, tx);

    if (r == 0)
        r = store_tx_kek_retire(tx, e->retire.row);
    if (r == 0)
        r = kek_record_retired(tx, &e->retire, e->actor);
    if (r == 0)
        cache_drop_kek(e->k->cache, e->retire.row);
    return r;
}

/* The BSA's row comes first: its KEK refers to it. */
static int write_rows(struct enrolment *e, struct store_tx *tx)
{
    struct store_bsa *b = e->row;
    int r = 0;

    if (b->row == 0)
        r = store_tx_bsa_insert(tx, b);
    if (r == 0 && e->new_kek)
        r = add_kek(e, tx);
    if (r == 0 && e->retire.row)
        r = retire_kek(e, tx);
    return r < 0 ? r : store_tx_bsa_update(tx, b);
}

/*
 * The new state is in force from here on, before the commit: what is decided after this item in the
 * same batch is decided by it.  If the commit fails nothing is released anyway.  A row is replaced
 * as a whole, so one that was made of an older state would undo what was changed meanwhile.
 */
static int apply_enrolment(void *arg, struct store_tx *tx)
{
    struct enrolment *e = arg;
    AUTO(store_bsa) struct store_bsa *copy = NULL;
    int r = e->seen && !bsa_state_current(e->seen) ? TEKD_ESTALE : 0;

    if (r == 0)
        r = write_rows(e, tx);
    if (r == 0 && e->action)
        r = record_enrolled(e, tx);
    if (r == 0)
        r = store_bsa_dup(e->row, &copy);
    if (r == 0)
        r = registry_put(e->k->registry, TAKE(copy));
    e->in_force = r == 0;
    return r;
}

/* On the store thread, so that no later change comes in between.  A BSA that is not stored is
 * nobody: row 0, no certificate, nothing allowed. */
static int put_stored(void *arg, struct store_tx *tx)
{
    const struct enrolment *e = arg;
    AUTO(store_bsa) struct store_bsa *row = NULL;
    int r = store_tx_bsa_find(tx, e->row->id, &row);

    if (r == TEKD_ENOTFOUND) {
        r = store_bsa_new(&row);
        if (r == 0)
            memcpy(row->id, e->row->id, sizeof(row->id));
    }
    return r < 0 ? r : registry_put(e->k->registry, TAKE(row));
}

/* The commit failed: what is stored is in force again. */
static void take_back(struct enrolment *e)
{
    int r = store_call(e->k->store, STORE_READ, put_stored, e);

    if (r < 0)
        log_event(LOG_ERROR, "keys", "enrolment-not-taken-back", LOG_STR("bsa", e->row->id),
                  LOG_STR("error", tekd_errname(r)));
}

static int commit_once(struct enrolment *e)
{
    int r;

    e->in_force = false;
    r = store_call(e->k->store, STORE_DURABLE, apply_enrolment, e);
    if (r < 0 && e->in_force)
        take_back(e);
    return r;
}

/* Open deliveries under a KEK that goes are abandoned first, as much as is not left to the
 * transaction itself. */
static int commit_retiring(struct enrolment *e)
{
    int r = TEKD_EAGAIN;

    e->gone = (struct key_gone){.k = e->k, .actor = e->actor, .kek = e->retire.row};
    for (int i = 0; i < KEYS_ATTEMPTS_MAX && r == TEKD_EAGAIN; i++) {
        r = delivery_gone_ahead(&e->gone);
        if (r == 0)
            r = commit_once(e);
    }
    return r;
}

int enrolment_commit(struct enrolment *e, struct keys_error *err)
{
    int r = e->retire.row ? commit_retiring(e) : commit_once(e);

    if (r == TEKD_ESTALE)
        return admin_fail(err, r, "\"%s\": somebody else is changing this BSA; try again",
                          e->row->id);
    if (r == TEKD_EEXIST)
        return admin_fail(err, r,
                          "\"%s\": this BSA, its certificate or its KEK is enrolled already; a KEK "
                          "that was replaced is never taken again",
                          e->row->id);
    if (r < 0)
        return admin_fail(err, r, "recording the change: %s", tekd_strerror(r));
    if (e->row->row != 0)
        delivery_changed(e->k, e->row->row);
    return 0;
}
