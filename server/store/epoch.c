/*
 * Closing an epoch and opening the next one: enum epoch_state in internal.h says how.
 */
#include "internal.h"

#include <assert.h>
#include <time.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define SECOND_US   1000000
#define CARRY_PIECE 64   /* deliveries that are read before they are written */
#define LAZY_MAX    4096 /* items that nobody waits for, kept while nothing can be written */

/* ---- when ------------------------------------------------------------------------------------ */

static int year_of(int64_t utc_us)
{
    time_t seconds = (time_t)(utc_us / SECOND_US);
    struct tm tm = {.tm_year = 0};

    (void)gmtime_r(&seconds, &tm);
    return tm.tm_year;
}

/*
 * A clock that is set back into the year before ends nothing: around new year it would end an epoch
 * with every correction.
 */
void epoch_tick(struct store *s, int64_t utc_us)
{
    const struct tree *t = &s->tree;

    if (s->epoch.state != EPOCH_OPEN || t->epoch == STORE_EPOCH_MAX)
        return;
    if (year_of(utc_us) > year_of(t->opened_utc_us) ||
        t->size - t->opened_size >= s->o.epoch_records)
        s->epoch.wanted = true;
}

static void drain(struct store *s)
{
    s->epoch.state = EPOCH_DRAINING;
    s->epoch.pending_us = INT64_MAX;
}

void epoch_resume(struct store *s)
{
    if (s->epoch.state == EPOCH_DRAINING)
        s->epoch.state = EPOCH_OPEN;
}

/* Why an item that waits for the next epoch is not to wait any more; 0: it is. */
static int refusal_of(struct store *s, const struct store_item *item)
{
    int r = batch_refusal(s, item);

    if (r < 0 || s->epoch.state != EPOCH_CLOSED || (!s->full && !s->signer_down))
        return r;
    if (item->wait == STORE_LAZY && s->pending.n < LAZY_MAX)
        return 0;
    return s->full ? TEKD_EFULL : TEKD_EHSM;
}

static void sift(struct store *s)
{
    struct item_list taken = s->pending;
    struct store_item *item;

    s->pending = (struct item_list){0};
    s->epoch.pending_us = INT64_MAX;
    while ((item = items_take(&taken)) != NULL) {
        int refusal = refusal_of(s, item);

        if (refusal < 0) {
            batch_count_taken(s, item);
            batch_refuse(s, item, refusal);
            continue;
        }
        items_put(&s->pending, item);
        if (item->wait == STORE_SIGNED && item->deadline_us != 0 &&
            item->deadline_us < s->epoch.pending_us)
            s->epoch.pending_us = item->deadline_us;
    }
}

void epoch_look(struct store *s)
{
    struct epoch *e = &s->epoch;
    bool works = !s->signer_down && s->failing_since_us == 0 && !s->full && !s->low;

    if (atomic_load(&s->close_asked) == s->tree.epoch && s->tree.epoch < STORE_EPOCH_MAX)
        e->wanted = true;
    if (e->state == EPOCH_OPEN && e->wanted && works)
        drain(s);
    if (e->state == EPOCH_DRAINING && (s->signer_down || s->full)) {
        log_event(LOG_WARN, "store", "epoch-not-closed", LOG_INT("epoch", s->tree.epoch),
                  LOG_STR("why", s->full ? "no space" : "the HSM does not sign"));
        epoch_resume(s);
    }
    if (e->state != EPOCH_OPEN)
        sift(s);
}

/* ---- the steps ------------------------------------------------------------------------------- */

bool epoch_step_due(const struct store *s)
{
    const struct tree *t = &s->tree;

    return s->epoch.state != EPOCH_OPEN && t->note_committed && t->note.size == t->size;
}

static int put_closed(struct store *s, int64_t utc_us)
{
    AUTO(record) struct record *rec = NULL;
    int r = record_new("log.closed", &rec);

    return r < 0 ? r : audit_append(s, rec, utc_us);
}

/* The instance goes on running, unless this is its start: then log.started says all that. */
static void add_promises(const struct store *s, struct record *rec)
{
    if (!s->announced)
        return;
    record_int(rec, "heartbeat", (uint64_t)s->o.heartbeat_s);
    record_int(rec, "window", (uint64_t)(s->o.message_window_us / SECOND_US));
    record_str(rec, "release", s->o.release == STORE_RELEASE_DURABLE ? "durable" : "signed");
}

static int put_opened(struct store *s, int64_t utc_us)
{
    AUTO(record) struct record *rec = NULL;
    AUTO(buf) struct buf *note = NULL;
    int r = buf_new(NOTE_MAX, &note);

    if (r == 0)
        r = note_write(&s->epoch.last, note);
    if (r == 0)
        r = record_new("log.opened", &rec);
    if (r < 0)
        return r;
    record_str(rec, "origin", s->tree.origin);
    record_strn(rec, "note", (const char *)buf_data(note), buf_len(note));
    add_promises(s, rec);
    return audit_append(s, rec, utc_us);
}

static int record_carried(const struct rows_carried *c, struct record **ret_record)
{
    char key_id[ENC_UUID_LEN + 1];
    struct record *rec = NULL;
    int r = record_new("delivery.carried", &rec);

    if (r < 0)
        return r;
    enc_uuid(c->key_id, key_id);
    record_ref(rec, "ref", c->epoch, c->seq);
    record_str(rec, "mid", c->mid);
    record_str(rec, "peer", c->peer);
    record_str(rec, "dir", "push");
    record_str(rec, "content", c->content);
    record_str(rec, "keyid", key_id);
    record_str(rec, "kekid", c->kek);
    record_hex(rec, "out", c->out_sha256, sizeof(c->out_sha256));
    if (c->has_period)
        record_int(rec, "period", (uint64_t)c->period);
    *ret_record = rec;
    return 0;
}

static int carry(struct store *s, const struct rows_carried *c, int64_t utc_us)
{
    AUTO(record) struct record *rec = NULL;
    uint64_t seq = s->tree.next;
    int r = record_carried(c, &rec);

    if (r == 0)
        r = audit_append(s, rec, utc_us);
    return r < 0 ? r : rows_delivery_move(s->db, c->row, audit_place(&s->tree, seq));
}

int store_tx_delivery_carry(struct store_tx *tx, struct store_delivery *d)
{
    AUTO_MEM struct rows_carried *c = NULL;
    struct record *rec = NULL;
    struct store_place to = {.epoch = tx->s->tree.epoch};
    size_t n = 0;
    int r;

    assert(tx->writes);
    if (d->epoch == to.epoch)
        return 0;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return TEKD_ENOMEM;
    r = rows_delivery_carried(tx->db, d->row - 1, 1, c, &n);
    if (r == 0 && (n == 0 || c->row != d->row))
        r = TEKD_ENOTFOUND;
    if (r == 0)
        r = record_carried(c, &rec);
    if (r == 0)
        r = store_tx_record(tx, rec, &to.seq);
    if (r == 0)
        r = rows_delivery_move(tx->db, d->row, to);
    if (r < 0)
        return rows_result(tx, r);
    d->epoch = to.epoch;
    d->seq = to.seq;
    return 0;
}

/* What is read is written afterwards: a walk does not see its own writes. */
static int carry_all(struct store *s, int64_t utc_us)
{
    AUTO_MEM struct rows_carried *piece = calloc(CARRY_PIECE, sizeof(*piece));
    int64_t after = 0;
    size_t n = CARRY_PIECE;
    int r = piece != NULL ? 0 : TEKD_ENOMEM;

    while (r == 0 && n == CARRY_PIECE) {
        r = rows_delivery_carried(s->db, after, CARRY_PIECE, piece, &n);
        for (size_t i = 0; r == 0 && i < n; i++) {
            r = carry(s, &piece[i], utc_us);
            after = piece[i].row;
        }
    }
    return r;
}

/* The tree of an epoch that holds nothing yet. */
static int begin_tree(struct tree *t, const char *bsm_id, uint64_t epoch, int64_t utc_us)
{
    char origin[NOTE_ORIGIN_MAX + 1];
    int r = note_origin(bsm_id, epoch, origin);

    if (r < 0)
        return r;
    t->epoch = epoch;
    t->opened_utc_us = utc_us;
    t->size = t->next = t->recent_from = t->signed_size = 0;
    memcpy(t->origin, origin, sizeof(t->origin));
    audit_empty(t);
    return 0;
}

static int open_next(struct store *s, int64_t utc_us)
{
    struct tree *t = &s->tree;
    int r;

    s->epoch.last = t->note;
    s->epoch.range = t->range;
    s->epoch.opened_utc_us = t->opened_utc_us;
    s->epoch.opened_size = t->opened_size;
    r = begin_tree(t, s->o.bsm_id, t->epoch + 1, utc_us);
    if (r < 0)
        return r;
    s->epoch.moved = true; /* from here on there is something to undo */
    r = rows_meta_put_int(s->db, "epoch", (int64_t)t->epoch);
    if (r == 0)
        r = put_opened(s, utc_us);
    if (r == 0)
        r = batch_put_own(s, utc_us);
    if (r == 0)
        r = carry_all(s, utc_us);
    t->opened_size = t->next;
    return r < 0 ? r : rows_meta_put_int(s->db, "opened", (int64_t)t->opened_size);
}

/* What explains the time of log.closed, a step of the clock, has to stand before it; and what
 * introduces a key, so that this epoch's notes with lines of it are understood. */
int epoch_put(struct store *s, int64_t utc_us)
{
    if (s->epoch.state == EPOCH_CLOSED)
        return open_next(s, utc_us);
    tick_clock(s, clock_mono_us());
    if (s->n_own > 0 || signkey_due(s))
        return batch_put_own(s, utc_us);
    s->epoch.moved = true;
    return put_closed(s, utc_us);
}

void epoch_committed(struct store *s)
{
    struct tree *t = &s->tree;

    if (!s->epoch.moved)
        return;
    s->epoch.moved = false;
    if (s->epoch.state == EPOCH_DRAINING) {
        s->epoch.state = EPOCH_CLOSED;
        log_event(LOG_INFO, "store", "epoch-closed", LOG_INT("epoch", t->epoch),
                  LOG_INT("records", t->size));
        return;
    }
    assert(s->waiting.n == 0); /* all that waited for a signature has it */
    s->epoch.state = EPOCH_OPEN;
    s->epoch.wanted = false;
    s->sign_until = t->size;
    log_event(LOG_INFO, "store", "epoch-opened", LOG_INT("epoch", t->epoch),
              LOG_INT("records", t->size));
}

void epoch_failed(struct store *s)
{
    struct tree *t = &s->tree;
    int r;

    if (!s->epoch.moved || s->epoch.state != EPOCH_CLOSED) {
        s->epoch.moved = false;
        return;
    }
    s->epoch.moved = false;
    r = begin_tree(t, s->o.bsm_id, t->epoch - 1, s->epoch.opened_utc_us);
    assert(r == 0); /* it was one before */
    t->opened_size = s->epoch.opened_size;
    t->note = s->epoch.last;
    t->range = s->epoch.range;
    t->size = t->next = t->signed_size = t->recent_from = t->note.size;
    memset(&s->epoch.last, 0, sizeof(s->epoch.last));
}
