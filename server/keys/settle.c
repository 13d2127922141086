/*
 * The second half of a request: what it made goes to the store, and comes back committed and
 * signed, or as the loser against another one; then the answer.
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

/* ---- how a request ends ---------------------------------------------------------------------- */

static void leave_flights(struct keys_work *w)
{
    flights_leave(w->k->flights, TAKE(w->content_flight));
    flights_leave(w->k->flights, TAKE(w->message_flight));
}

void work_expect(struct keys_work *w)
{
    if (!w->expected)
        store_expect(w->k->store, 1);
    w->expected = true;
}

void work_unexpect(struct keys_work *w)
{
    if (w->expected)
        store_expect(w->k->store, -1);
    w->expected = false;
}

void work_let_go(struct keys_work *w)
{
    leave_flights(w);
    work_unexpect(w);
    if (w->counted)
        atomic_fetch_sub(&w->bsa->bsa->in_flight, 1);
    w->counted = false;
    bsa_state_unref(w->bsa);
    w->bsa = NULL;
}

void work_reply(struct keys_work *w, struct keys_reply *take_reply)
{
    struct keys_request *r = w->r;
    struct keys *k = w->k;
    struct flight *message = TAKE(w->message_flight), *content = TAKE(w->content_flight);

    work_unexpect(w);
    if (w->counted)
        atomic_fetch_sub(&w->bsa->bsa->in_flight, 1);
    w->counted = false;
    /* w may be freed by another thread from here on: keys_sent() follows a reply at once. */
    r->reply(r, take_reply);
    /* Last, so that who was parked sees all that this request brought about. */
    flights_leave(k->flights, content);
    flights_leave(k->flights, message);
}

void work_again(struct keys_work *w)
{
    struct keys_request *r = w->r;

    w->attempts++;
    leave_flights(w);
    r->again(r);
}

void work_refuse(struct keys_work *w, enum cp3_reason reason)
{
    const struct refusal what = {.event = "request.refused",
                                 .who = w->bsa->row->id,
                                 .peer = w->bsa->row->id,
                                 .reason = cp3_reason_name(reason),
                                 .mid = w->request.message_id,
                                 .content = w->request.content_id,
                                 .addr = w->r->addr,
                                 .cert = w->r->cert_sha256};
    const struct reply_refusal refusal = {.media = w->media,
                                          .form = w->form,
                                          .reason = reason,
                                          .message_id = w->request.message_id,
                                          .request = &w->request,
                                          .status =
                                              reply_refusal_status(w->k->refusal_http, reason)};
    struct keys_reply reply;

    atomic_fetch_add(&w->k->refused, 1);
    keys_record_refusal(w->k, &what, LIMIT_REFUSED_PER_MINUTE);
    reply_refuse(&refusal, &reply);
    work_reply(w, &reply);
}

/* The MessageID, if it is that of a Key Request, which a Response can answer; else "". */
static const char *answerable(const struct keys_work *w)
{
    return w->request.tag == CP3_REQUEST ? w->request.message_id : "";
}

void work_busy(struct keys_work *w)
{
    struct keys_reply reply;

    atomic_fetch_add(&w->k->busy, 1);
    keys_busy_reply(w->media, answerable(w), &reply);
    work_reply(w, &reply);
}

void work_internal(struct keys_work *w, const char *what, int r)
{
    uint8_t id[16] = {0};
    char correlation[ENC_UUID_LEN + 1];
    const struct reply_refusal refusal = {.media = w->media,
                                          .form = CP3_EFFICIENT,
                                          .reason = CP3_REASON_INTERNAL,
                                          .message_id = answerable(w),
                                          .status = 500};
    const struct reply_problem problem = {.status = 500,
                                          .reason = CP3_REASON_INTERNAL,
                                          .title = "a fault of the key manager",
                                          .correlation = correlation};
    struct keys_reply reply;

    (void)enc_uuidv7(clock_utc_us(), id);
    enc_uuid(id, correlation);
    log_event(LOG_ERROR, "keys", "request-failed", LOG_STR("what", what),
              LOG_STR("error", tekd_errname(r)), LOG_STR("correlation", correlation),
              LOG_STR("mid", w->request.message_id));
    atomic_fetch_add(&w->k->failed, 1);
    if (answerable(w)[0])
        reply_refuse(&refusal, &reply);
    else
        reply_problem(&problem, &reply);
    memcpy(reply.correlation, correlation, sizeof(reply.correlation));
    work_reply(w, &reply);
}

static bool is_passing(int r)
{
    switch (r) {
    case TEKD_EAGAIN:
    case TEKD_ETIMEDOUT:
    case TEKD_EHSM:
    case TEKD_EPIN:
    case TEKD_EFULL:
    case TEKD_EIO:
    case TEKD_ENOMEM:
    case TEKD_ECLOSED:
    case TEKD_ETAMPER:
        return true;
    default:
        return false;
    }
}

void work_error(struct keys_work *w, const char *what, int r)
{
    if (is_passing(r))
        work_busy(w);
    else
        work_internal(w, what, r);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void fill_answer(const struct keys_work *w, struct cp3_message *m)
{
    cp3_message_init(m, CP3_RESPONSE);
    m->status = CP3_STATUS_OK;
    memcpy(m->message_id, w->request.message_id, sizeof(m->message_id));
    memcpy(m->content_id, w->request.content_id, sizeof(m->content_id));
    memcpy(m->destination, w->request.source, sizeof(m->destination));
    memcpy(m->source, w->request.destination, sizeof(m->source));
    m->has = CP3_HAS_VERSION | CP3_HAS_TIME;
    m->version = 1;
    m->data_len = w->made.data.len;
    memcpy(m->data, w->made.data.octets, w->made.data.len);
    (void)cp3_time_set(&m->time, w->time_us / 1000000, (uint32_t)(w->time_us % 1000000) * 1000);
    if (w->bsa->row->key_info && w->form == CP3_FULL)
        tek_set_key_info(&w->made, m);
}

int work_encode(struct keys_work *w)
{
    struct cp3_message m;
    struct buf *body = NULL;
    int r;

    fill_answer(w, &m);
    r = reply_write(w->media, w->form, &m, &body);
    if (r < 0)
        return r;
    buf_free(w->body);
    w->body = body;
    SHA256(buf_data(body), buf_len(body), w->out_sha256);
    return 0;
}

/* ---- records --------------------------------------------------------------------------------- */

static int record_answered(struct keys_work *w, struct store_tx *tx)
{
    char key_id[ENC_UUID_LEN + 1];
    struct record *rec = NULL;
    int r = record_new("request.answered", &rec);

    if (r < 0)
        return r;
    enc_uuid(w->made.key.key_id, key_id);
    record_str(rec, "mid", w->request.message_id);
    record_str(rec, "peer", w->bsa->row->id);
    record_hex(rec, "cert", w->r->cert_sha256, 32);
    record_str(rec, "addr", w->r->addr);
    record_str(rec, "dir", "pull");
    record_str(rec, "content", w->request.content_id);
    record_str(rec, "keyid", key_id);
    record_str(rec, "kekid", w->made.kek_name);
    record_hex(rec, "out", w->out_sha256, 32);
    record_hex(rec, "req", w->req_sha256, 32);
    period_record(rec, &w->made.key.period);
    w->epoch = store_tx_epoch(tx);
    return store_tx_record(tx, rec, &w->answered_seq);
}

/* ---- on the store thread --------------------------------------------------------------------- */

static int insert_content(struct keys_work *w, struct store_tx *tx)
{
    struct store_content c = {.bits = w->made.key.bits,
                              .created_us = store_tx_utc_us(tx),
                              .created_by = w->bsa->row->row};
    int r;

    memcpy(c.id, w->request.content_id, sizeof(c.id));
    r = store_tx_content_insert(tx, &c);
    if (r < 0)
        return r;
    bloom_add(w->k->bloom, c.id);
    w->made.key.content = c.row;
    return 0;
}

static int insert_tek(struct keys_work *w, struct store_tx *tx)
{
    struct store_tek t = {.content = w->made.key.content,
                          .period = w->made.key.period.index,
                          .version = w->made.version,
                          .bits = w->made.key.bits,
                          .storage_kek = w->made.key.storage_kek,
                          .stored = w->made.key.stored,
                          .created_us = store_tx_utc_us(tx)};
    int r;

    memcpy(t.key_id, w->made.key.key_id, sizeof(t.key_id));
    r = tek_put(w->k, tx, w->request.content_id, &w->made.key.period, &t);
    w->made.key.tek = t.row;
    /* Who held the one before gets this one, too, as if it had been made in time. */
    return r < 0 ? r : tek_fan_out(tx, &w->made.key.period, &t);
}

static int insert_message(struct keys_work *w, struct store_tx *tx, uint64_t seq)
{
    struct store_message m = {.bsa = w->bsa->row->row,
                              .content = w->made.key.content,
                              .period_asked = work_asked(w),
                              .tek = w->made.key.tek,
                              .kek = w->made.kek,
                              .time_us = w->time_us,
                              .epoch = store_tx_epoch(tx),
                              .seq = seq};

    memcpy(m.id, w->request.message_id, sizeof(m.id));
    return store_tx_message_insert(tx, &m);
}

/*
 * Whether the stored answer differs from what was prepared now in its Time only: the same key under
 * the same KEK, and the wrap that is stored.  One that was just made is not it: RSA gives another
 * one each time.  (Of another content it cannot be: a TEK belongs to one.)
 */
static bool is_answer_of(const struct keys_work *w, const struct store_message *m)
{
    return m->tek == w->made.key.tek && m->kek == w->made.kek && !w->made.new_export &&
           m->period_asked == work_asked(w);
}

/*
 * This MessageID was answered already.  With what was prepared now: it is given again; else the
 * request looks at what is stored first.  Nothing was written yet when this is asked.
 */
static int apply_repeat(struct keys_work *w, struct store_tx *tx, const struct store_message *m)
{
    if (!is_answer_of(w, m)) {
        w->look_first = true;
        return TEKD_EEXIST;
    }
    w->repeated = true;
    w->time_us = m->time_us;
    w->answered_seq = m->seq;
    w->epoch = m->epoch;
    w->after = store_tx_newest(tx);
    store_tx_wait_for(tx, (struct store_place){.epoch = m->epoch, .seq = m->seq});
    return 0;
}

static int put_export(struct keys_work *w, struct store_tx *tx)
{
    const struct tek_given given = {.bsa = w->bsa->row->row,
                                    .content = w->made.key.content,
                                    .tek = w->made.key.tek,
                                    .kek = w->made.kek,
                                    .period = &w->made.key.period,
                                    .data = &w->made.data};

    return tek_put_export(w->k, tx, &given);
}

static int apply_new_rows(struct keys_work *w, struct store_tx *tx)
{
    int r = 0;

    if (w->made.new_content)
        r = insert_content(w, tx);
    if (r == 0 && w->made.new_tek)
        r = insert_tek(w, tx);
    if (r == 0 && w->made.new_export)
        r = put_export(w, tx);
    return r;
}

/*
 * Whether what the request was decided by has changed.  After a change of any TEK the store is
 * asked whether it was this one, so that rotations of many contents do not send all requests round.
 * (A TEK that was just made needs no question: its version is unique.)
 */
static int check_fresh(struct keys_work *w, struct store_tx *tx)
{
    uint64_t generation = atomic_load(&w->k->tek_generation);
    struct store_tek now;
    int r;

    if (!bsa_state_current(w->bsa))
        return TEKD_ESTALE;
    /* What was given before is given again after its period, too. */
    if (!w->repeated && period_is_over(&w->made.key.period, store_tx_utc_us(tx)))
        return TEKD_ESTALE;
    if (w->tek_generation == generation || w->made.new_tek)
        return 0;
    r = w->repeated ? store_tx_tek_get(tx, w->made.key.tek, &now)
                    : store_tx_tek_current(tx, w->made.key.content, w->made.key.period.index, &now);
    if (r == TEKD_ENOTFOUND)
        return TEKD_ESTALE;
    if (r < 0)
        return r;
    if (now.row != w->made.key.tek || now.destroyed)
        return TEKD_ESTALE;
    w->tek_generation = generation;
    return 0;
}

static int apply_answer(struct store_item *item, struct store_tx *tx)
{
    struct keys_work *w = (struct keys_work *)item;
    const char *id = w->request.message_id;
    struct store_message m;
    int r;

    r = check_fresh(w, tx);
    if (r < 0)
        return r;
    if (!w->made.new_tek) { /* the usual repeat: found before anything is written */
        r = store_tx_message_find(tx, w->bsa->row->row, id, strlen(id), &m);
        if (r != TEKD_ENOTFOUND)
            return r < 0 ? r : apply_repeat(w, tx, &m);
    }
    r = apply_new_rows(w, tx);
    if (r < 0)
        return r;
    r = record_answered(w, tx);
    if (r < 0)
        return r;
    r = insert_message(w, tx, w->answered_seq);
    w->look_first = r == TEKD_EEXIST;
    return r;
}

/* ---- when the store is through with it ------------------------------------------------------- */

/* The TEK of an announced period is not the content's current one. */
static void remember(struct keys_work *w)
{
    cache_put_export(w->k->cache, w->made.key.tek, w->made.kek, &w->made.data);
    if (period_is_current(&w->made.key.period, clock_utc_us()) &&
        w->tek_generation == atomic_load(&w->k->tek_generation))
        cache_put(w->k->cache, w->request.content_id, &w->made.key);
}

static void reply_answer(struct keys_work *w)
{
    struct keys_reply reply = {.status = 200, .media = cp3_media_content_type(w->media)};

    if (w->repeated) {
        int r = work_encode(w);
        if (r < 0) {
            work_internal(w, "writing the repeated answer", r);
            return;
        }
        atomic_fetch_add(&w->k->repeated, 1);
        lazies_add(w->k->lazies, w, true);
    } else {
        atomic_fetch_add(&w->k->answered, 1);
        remember(w);
    }
    reply.body = TAKE(w->body);
    w->gave_key = true;
    work_reply(w, &reply);
}

/* Also of an answer that came too late: it is committed if it was applied. */
static void tell_what_is_new(struct keys_work *w, int result)
{
    if (result != 0 && result != TEKD_ETIMEDOUT)
        return;
    if (w->made.new_content && w->made.key.content != 0)
        atomic_fetch_add(&w->bsa->bsa->auto_contents, 1);
    if (w->made.new_tek && !tek_is_first(&w->made.key.period, w->made.version))
        delivery_changed(w->k, 0); /* its fan-out */
}

/*
 * A BSA that was disabled after its answer was committed and before it left gets nothing: the
 * decision is made anew, and says why.
 */
static void done_answer(struct store_item *item, int result)
{
    struct keys_work *w = (struct keys_work *)item;

    tell_what_is_new(w, result);
    if (result == 0 && bsa_state_current(w->bsa))
        reply_answer(w);
    else if (result == 0 || result == TEKD_ESTALE || result == TEKD_EEXIST)
        work_again(w);
    else
        work_error(w, "committing the answer", result);
}

void work_submit(struct keys_work *w)
{
    int r;

    w->repeated = false;
    w->item = (struct store_item){.apply = apply_answer,
                                  .done = done_answer,
                                  .wait = STORE_SIGNED,
                                  .deadline_us = w->r->deadline_us};
    work_unexpect(w);
    r = store_submit(w->k->store, &w->item);
    if (r < 0)
        work_error(w, "handing the answer to the store", r);
}

static int apply_stored(struct store_item *item, struct store_tx *tx)
{
    struct keys_work *w = (struct keys_work *)item;
    int r = check_fresh(w, tx);

    if (r < 0)
        return r;
    w->after = store_tx_newest(tx);
    store_tx_wait_for(tx, (struct store_place){.epoch = w->epoch, .seq = w->answered_seq});
    return 0;
}

void work_submit_stored(struct keys_work *w)
{
    int r;

    w->repeated = true;
    w->item = (struct store_item){.apply = apply_stored,
                                  .done = done_answer,
                                  .wait = STORE_SIGNED,
                                  .deadline_us = w->r->deadline_us};
    work_unexpect(w);
    r = store_submit(w->k->store, &w->item);
    if (r < 0)
        work_error(w, "handing the stored answer to the store", r);
}

/* ---- after the answer left ------------------------------------------------------------------- */

static void work_free(struct keys_work *w)
{
    assert(!w->message_flight && !w->content_flight && !w->counted);
    bsa_state_unref(w->bsa);
    buf_free(w->body);
    free(w);
}

void keys_sent(struct keys *k, struct keys_request *r, bool whole)
{
    struct keys_work *w = TAKE(r->work);

    if (!w)
        return;
    if (whole && w->gave_key)
        lazies_add(k->lazies, w, false);
    work_free(w);
}
