/*
 * Confirmations.  Each is judged on the store thread by the row of its delivery:
 *
 *     state of the delivery               Status 0           Status 1
 *     prepared, in flight, rejected,      confirmed          rejected: tried again
 *       unknown
 *     confirmed                           once more: 204     contradicts: 409
 *     unconfirmed, abandoned              confirmed, late    recorded; the state stays
 *
 * What says something else than its delivery, or was never asked for, is no confirmation.  Only
 * what changes a row is waited for; all else costs the peer's own time, not a sync.
 *
 * What is news is counted, and Status 1 is a warning in the log, however it came.  A confirmation
 * that says once more what the row says already is no news.
 */
#include "internal.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/log.h"

#define REFUSED_BY_BSA "Status 1" /* as last error */

enum verdict { CONFIRMS, REPEATS, REJECTS, REJECTS_LATE, CONTRADICTS };

static const enum verdict verdicts[STORE_DELIVERY_STATES][2] = {
    [STORE_DELIVERY_PREPARED] = {CONFIRMS, REJECTS},
    [STORE_DELIVERY_IN_FLIGHT] = {CONFIRMS, REJECTS},
    [STORE_DELIVERY_REJECTED] = {CONFIRMS, REJECTS},
    [STORE_DELIVERY_UNKNOWN] = {CONFIRMS, REJECTS},
    [STORE_DELIVERY_CONFIRMED] = {REPEATS, CONTRADICTS},
    [STORE_DELIVERY_UNCONFIRMED] = {CONFIRMS, REJECTS_LATE},
    [STORE_DELIVERY_ABANDONED] = {CONFIRMS, REJECTS_LATE},
};

static struct keys_confirm *confirm_of(struct store_item *item)
{
    return (struct keys_confirm *)(void *)((uint8_t *)item - offsetof(struct keys_confirm, item));
}

/* ---- on the store thread --------------------------------------------------------------------- */

/* What the efficient form leaves out is not compared. */
static int compare(const struct keys_confirm *c, struct store_tx *tx,
                   const struct store_delivery *d, enum cp3_reason *ret_reason)
{
    const struct cp3_message *m = c->message;
    struct store_content content;
    int r = store_tx_content_get(tx, d->content, &content);

    if (r < 0)
        return r;
    *ret_reason = CP3_REASON_NONE;
    if (m->form == CP3_FULL && strcmp(m->content_id, content.id) != 0)
        *ret_reason = CP3_REASON_WRONG_CONTENT;
    else if (m->form == CP3_FULL && strcmp(m->source, c->peer) != 0)
        *ret_reason = CP3_REASON_WRONG_SOURCE;
    else if (m->form == CP3_FULL && strcmp(m->destination, c->keys->bsm_id) != 0)
        *ret_reason = CP3_REASON_WRONG_DESTINATION;
    else if (m->version > POLICY_VERSION)
        *ret_reason = CP3_REASON_UNSUPPORTED_VERSION;
    return 0;
}

/* A delivery that was never handed out cannot be confirmed. */
static int find(const struct keys_confirm *c, struct store_tx *tx, struct store_delivery *d)
{
    const char *mid = c->message->message_id;
    int r = store_tx_delivery_find(tx, mid, strlen(mid), d);

    return r == 0 && (d->bsa != c->bsa || d->attempts == 0) ? TEKD_ENOTFOUND : r;
}

static int record_new_of(const struct keys_confirm *c, const char *event,
                         const struct store_delivery *d, struct record **ret_record)
{
    struct record *rec = NULL;
    int r = delivery_record_new(c->keys, event, d, &rec);

    if (r < 0)
        return r;
    record_hex(rec, "cert", c->cert_sha256, 32);
    record_hex(rec, "req", c->out_sha256, 32);
    record_str(rec, "addr", c->addr);
    *ret_record = rec;
    return 0;
}

/* One that had ended in an earlier epoch and is open again has to be of this one. */
static int carry(struct store_tx *tx, struct store_delivery *d)
{
    return store_delivery_is_open(d->state) ? store_tx_delivery_carry(tx, d) : 0;
}

static int confirm(struct keys_confirm *c, struct store_tx *tx, struct store_delivery *d)
{
    struct record *rec = NULL;
    uint64_t seq;
    int r = carry(tx, d);

    if (r == 0)
        r = record_new_of(c, "delivery.confirmed", d, &rec);
    if (r < 0)
        return r;
    record_hex(rec, "out", d->out_sha256, 32);
    record_bool(rec, "late",
                !store_delivery_is_open(d->state) || store_tx_utc_us(tx) >= d->deadline_us);
    r = store_tx_record(tx, rec, &seq);
    if (r < 0)
        return r;
    d->confirmed_seq = (uint64_t)store_place_pack(store_tx_epoch(tx), seq);
    d->state = STORE_DELIVERY_CONFIRMED;
    d->why[0] = '\0';
    c->outcome = KEYS_CONFIRMED;
    c->changed = true;
    c->news = true;
    return store_tx_delivery_update(tx, d);
}

/* The answer is here: nobody waits for the rest of the lease. */
static void retry_sooner(const struct keys_confirm *c, struct store_tx *tx,
                         struct store_delivery *d)
{
    int64_t at_us = store_tx_utc_us(tx) + c->retry_us;

    if (c->retry_us > 0 && at_us < d->next_us)
        d->next_us = at_us;
}

static int reject(struct keys_confirm *c, struct store_tx *tx, struct store_delivery *d)
{
    bool is_open = store_delivery_is_open(d->state);
    struct record *rec = NULL;
    int r = carry(tx, d);

    if (r == 0)
        r = record_new_of(c, "delivery.rejected", d, &rec);
    if (r == 0)
        r = store_tx_record(tx, rec, NULL);
    if (r < 0)
        return r;
    c->outcome = KEYS_REJECTED;
    c->attempt = d->attempts;
    c->news = is_open ? d->state != STORE_DELIVERY_REJECTED : strcmp(d->why, REFUSED_BY_BSA) != 0;
    memcpy(d->why, REFUSED_BY_BSA, sizeof(REFUSED_BY_BSA));
    if (is_open) {
        d->state = STORE_DELIVERY_REJECTED;
        retry_sooner(c, tx, d);
        c->changed = true;
    }
    return is_open || c->news ? store_tx_delivery_update(tx, d) : 0;
}

static int judge(struct keys_confirm *c, struct store_tx *tx, struct store_delivery *d)
{
    assert(d->state < STORE_DELIVERY_STATES);
    switch (verdicts[d->state][c->message->status == CP3_STATUS_OK ? 0 : 1]) {
    case CONFIRMS:
        return confirm(c, tx, d);
    case REJECTS:
    case REJECTS_LATE:
        return reject(c, tx, d);
    case CONTRADICTS:
        c->reason = CP3_REASON_ALREADY_CONFIRMED;
        return 0;
    case REPEATS:
        break;
    }
    c->outcome = KEYS_CONFIRMED;
    return record_new_of(c, "confirm.duplicate", d, &c->note);
}

/* What is judged without a row or a record waits for the commit of its batch all the same: that it
 * repeats may be because of what is in that batch. */
static int apply_confirm(struct store_item *item, struct store_tx *tx)
{
    struct keys_confirm *c = confirm_of(item);
    struct store_delivery d;
    int r = find(c, tx, &d);

    c->outcome = KEYS_UNMATCHED;
    c->reason = CP3_REASON_UNKNOWN_MESSAGE;
    if (r == TEKD_ENOTFOUND)
        return 0;
    if (r == 0)
        r = compare(c, tx, &d, &c->reason);
    if (r < 0 || c->reason != CP3_REASON_NONE)
        return r;
    return judge(c, tx, &d);
}

static void record_unmatched(const struct keys_confirm *c)
{
    const struct refusal what = {.event = "confirm.unmatched",
                                 .who = c->peer,
                                 .peer = c->peer,
                                 .reason = cp3_reason_name(c->reason),
                                 .mid = c->message->message_id,
                                 .content = c->message->content_id,
                                 .addr = c->addr,
                                 .cert = c->cert_sha256};

    keys_record_refusal(c->keys, &what, LIMIT_REFUSED_PER_MINUTE);
}

static void tell(const struct keys_confirm *c)
{
    if (c->outcome == KEYS_CONFIRMED) {
        atomic_fetch_add(&c->keys->confirmed, 1);
        return;
    }
    atomic_fetch_add(&c->keys->rejected, 1);
    log_event(LOG_WARN, "push", "rejected", LOG_STR("bsa", c->peer),
              LOG_STR("mid", c->message->message_id), LOG_INT("attempt", c->attempt),
              LOG_STR("addr", c->addr));
}

static void done_confirm(struct store_item *item, int result)
{
    struct keys_confirm *c = confirm_of(item);

    if (result < 0) {
        record_free(c->note);
        c->note = NULL;
        c->outcome = KEYS_NOT_JUDGED;
        c->error = result;
    } else if (c->outcome == KEYS_UNMATCHED) {
        record_unmatched(c);
    }
    if (c->note)
        keys_note(c->keys, TAKE(c->note));
    if (result == 0 && c->news)
        tell(c);
    if (result == 0 && c->changed)
        delivery_changed(c->keys, c->bsa);
    c->done(c);
}

void keys_confirm(struct keys *k, struct keys_confirm *c)
{
    int r;

    c->keys = k;
    c->item =
        (struct store_item){.apply = apply_confirm, .done = done_confirm, .wait = STORE_DURABLE};
    c->reason = CP3_REASON_NONE;
    c->error = 0;
    c->note = NULL;
    c->changed = false;
    c->news = false;
    r = store_submit(k->store, &c->item);
    if (r < 0)
        done_confirm(&c->item, r);
}

/* ---- one that a BSA POSTs -------------------------------------------------------------------- */

struct posted {
    struct keys_confirm c; /* first */
    struct keys_work *w;
};

struct unmatched_row {
    enum cp3_reason reason;
    const char *detail;
};

static const struct unmatched_row unmatched_rows[] = {
    {CP3_REASON_UNKNOWN_MESSAGE, "no Key Delivery with this MessageID was sent to you"},
    {CP3_REASON_WRONG_CONTENT, "ContentID is not that of the Key Delivery"},
    {CP3_REASON_WRONG_SOURCE, "Source is not the BSA that this certificate is enrolled for"},
    {CP3_REASON_WRONG_DESTINATION, "Destination is not this BSM"},
    {CP3_REASON_UNSUPPORTED_VERSION, "Version is greater than 1"},
    {CP3_REASON_ALREADY_CONFIRMED, "it was confirmed with Status 0 before"},
};

static void refuse_unmatched(struct keys_work *w, enum cp3_reason reason)
{
    struct reply_problem problem = {
        .status = 409, .reason = reason, .title = "no confirmation of a Key Delivery"};
    struct keys_reply reply;

    for (size_t i = 0; i < ARRAY_SIZE(unmatched_rows); i++) {
        if (unmatched_rows[i].reason == reason)
            problem.detail = unmatched_rows[i].detail;
    }
    atomic_fetch_add(&w->k->refused, 1);
    reply_problem(&problem, &reply);
    work_reply(w, &reply);
}

static void on_judged(struct keys_confirm *self)
{
    struct posted *p = (struct posted *)self;
    struct keys_work *w = p->w;
    enum keys_confirmation outcome = self->outcome;
    enum cp3_reason reason = self->reason;
    struct keys_reply taken = {.status = 204};
    int error = self->error;

    free(p);
    if (outcome == KEYS_NOT_JUDGED)
        work_error(w, "recording the confirmation", error);
    else if (outcome == KEYS_UNMATCHED)
        refuse_unmatched(w, reason);
    else
        work_reply(w, &taken);
}

void confirm_work(struct keys_work *w)
{
    struct posted *p = calloc(1, sizeof(*p));

    if (!p) {
        work_busy(w);
        return;
    }
    p->w = w;
    p->c.bsa = w->bsa->row->row;
    memcpy(p->c.peer, w->bsa->row->id, sizeof(p->c.peer));
    memcpy(p->c.cert_sha256, w->r->cert_sha256, sizeof(p->c.cert_sha256));
    memcpy(p->c.addr, w->r->addr, sizeof(p->c.addr));
    memcpy(p->c.out_sha256, w->req_sha256, sizeof(p->c.out_sha256));
    p->c.message = &w->request;
    p->c.done = on_judged;
    keys_confirm(w->k, &p->c);
}
