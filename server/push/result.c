/*
 * What an attempt came to, and what the row says of it then.  A confirmation is judged by the key
 * service.  "Taken" changes nothing: the delivery stays in flight until the end of its lease.
 * Everything else puts it back, with the reason, to be tried behind its back-off; unless it was
 * confirmed by another way, or claimed anew, meanwhile.
 */
#include "internal.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/log.h"

/* ---- putting back ---------------------------------------------------------------------------- */

struct put_back {
    struct errand e; /* first */
    struct lane *lane;
    struct attempt *attempt;
    bool at_once; /* it did not leave */
    char why[STORE_WHY_MAX + 1];
    struct store_lane rows;
};

static int apply_put_back(struct store_item *self, struct store_tx *tx)
{
    struct put_back *b = (struct put_back *)self;
    const struct attempt *a = b->attempt;
    struct store_delivery d;
    int r = store_tx_delivery_get(tx, a->row, &d);

    if (r == 0 && d.state == STORE_DELIVERY_IN_FLIGHT && d.attempts == a->number) {
        d.state = STORE_DELIVERY_PREPARED;
        d.next_us = store_tx_utc_us(tx);
        if (!b->at_once)
            d.next_us += backoff_us(&b->e.push->backoff, a->number, backoff_random());
        memcpy(d.why, b->why, sizeof(d.why));
        r = store_tx_delivery_update(tx, &d);
    }
    return r < 0 ? r : store_tx_delivery_lane(tx, a->bsa, &b->rows);
}

static void back_again(struct errand *e)
{
    struct put_back *b = (struct put_back *)e;
    struct moment now = moment_now();

    lane_leave(e->push, b->lane, 1);
    if (e->result == 0 && !b->lane->busy)
        lane_take_rows(e->push, b->lane, &b->rows);
    else
        b->lane->look = true;
    lane_work(e->push, b->lane, &now);
    attempt_free(b->attempt);
    free(b);
}

static void put_back(struct push *p, struct lane *l, struct attempt *take_attempt, const char *why,
                     bool at_once)
{
    AUTO(attempt) struct attempt *a = take_attempt;
    struct put_back *b = calloc(1, sizeof(*b));

    if (!b) { /* it stays in flight until its lease ends */
        lane_leave(p, l, 1);
        return;
    }
    b->lane = l;
    b->attempt = TAKE(a);
    b->at_once = at_once;
    (void)snprintf(b->why, sizeof(b->why), "%s", why);
    b->e.item.apply = apply_put_back;
    b->e.back = back_again;
    errand_go(p, &b->e, STORE_DURABLE);
}

void result_not_sent(struct push *p, struct lane *l, struct attempt *take_attempt, const char *why)
{
    log_event(LOG_INFO, "push", "not-sent", LOG_STR("bsa", take_attempt->peer),
              LOG_STR("mid", take_attempt->mid), LOG_STR("why", why));
    put_back(p, l, take_attempt, why, true);
}

/* The first failure of a BSA is a warning; that it still fails is said too, but not as loudly. */
static void failed(struct push *p, struct lane *l, struct attempt *take_attempt, const char *why)
{
    log_event(l->failures > 1 ? LOG_INFO : LOG_WARN, "push", "attempt-failed",
              LOG_STR("bsa", take_attempt->peer), LOG_STR("mid", take_attempt->mid),
              LOG_INT("attempt", take_attempt->number), LOG_STR("why", why));
    atomic_fetch_add(&p->failed, 1);
    put_back(p, l, take_attempt, why, false);
}

void result_cannot_send(struct push *p, struct lane *l, struct attempt *take_attempt,
                        const char *why)
{
    struct moment now = moment_now();

    lane_outcome(p, l, false, &now);
    failed(p, l, take_attempt, why);
}

/* ---- confirmations --------------------------------------------------------------------------- */

struct judging {
    struct errand e; /* first */
    struct keys_confirm c;
    struct cp3_message message;
    struct lane *lane;
    struct attempt *attempt;
};

static void judged(struct keys_confirm *self)
{
    struct judging *j = self->arg;

    errand_return(&j->e, self->outcome == KEYS_NOT_JUDGED ? self->error : 0);
}

static void judging_back(struct errand *e)
{
    struct judging *j = (struct judging *)e;
    struct moment now = moment_now();
    char why[STORE_WHY_MAX + 1];

    if (e->result == 0 && j->c.outcome == KEYS_UNMATCHED) {
        (void)snprintf(why, sizeof(why), "not a confirmation: %s", cp3_reason_name(j->c.reason));
        failed(e->push, j->lane, TAKE(j->attempt), why);
    } else {
        lane_leave(e->push, j->lane, 1);
        j->lane->look = true;
    }
    lane_work(e->push, j->lane, &now);
    attempt_free(j->attempt);
    free(j);
}

static void judge(struct push *p, struct lane *l, struct attempt *take_attempt,
                  const struct answer *answer, const struct outcome *o)
{
    AUTO(attempt) struct attempt *a = take_attempt;
    struct judging *j = calloc(1, sizeof(*j));

    if (!j) {
        lane_leave(p, l, 1);
        return;
    }
    j->message = answer->message;
    j->c.bsa = a->bsa;
    (void)snprintf(j->c.peer, sizeof(j->c.peer), "%s", a->peer);
    memcpy(j->c.cert_sha256, o->cert, sizeof(j->c.cert_sha256));
    (void)snprintf(j->c.addr, sizeof(j->c.addr), "%s", o->addr);
    (void)SHA256(buf_data(o->body), buf_len(o->body), j->c.out_sha256);
    j->c.message = &j->message;
    j->c.retry_us = backoff_us(&p->backoff, a->number, backoff_random());
    j->c.done = judged;
    j->c.arg = j;
    j->lane = l;
    j->attempt = TAKE(a);
    j->e.back = judging_back;
    errand_out(p, &j->e);
    keys_confirm(p->keys, &j->c);
}

/*
 * A confirmation of another delivery in place of the one that was sent: it confirms nothing, for
 * the BSA has mixed something up, and is recorded.  An attempt was recorded before each of these,
 * so they are as rare as attempts.
 */
static void record_other(struct push *p, const struct attempt *a, const struct answer *answer,
                         const struct outcome *o)
{
    struct record *rec = NULL;

    if (record_new("confirm.unmatched", &rec) < 0)
        return;
    record_str(rec, "mid", answer->message.message_id);
    record_str(rec, "peer", a->peer);
    record_str(rec, "reason", cp3_reason_name(CP3_REASON_UNKNOWN_MESSAGE));
    record_str(rec, "addr", o->addr);
    keys_note(p->keys, rec);
}

/* ---- all of them ----------------------------------------------------------------------------- */

void result_take(struct push *p, struct lane *l, struct attempt *take_attempt,
                 const struct outcome *o)
{
    struct moment now = moment_now();
    bool was_away = l->failures > 0;
    struct answer answer;

    lane_outcome(p, l, o->answered, &now);
    if (was_away && o->answered)
        log_event(LOG_INFO, "push", "bsa-answers-again", LOG_STR("bsa", take_attempt->peer));
    answer_read(p->reader, o, take_attempt->mid, &answer);
    switch (answer.kind) {
    case ANSWER_CONFIRMATION:
        judge(p, l, take_attempt, &answer, o);
        break;
    case ANSWER_TAKEN:
        lane_leave(p, l, 1);
        attempt_free(take_attempt);
        break;
    case ANSWER_OTHER:
        record_other(p, take_attempt, &answer, o);
        failed(p, l, take_attempt, answer.why);
        break;
    case ANSWER_NONE:
        failed(p, l, take_attempt, answer.why);
        break;
    }
    lane_work(p, l, &now);
}
