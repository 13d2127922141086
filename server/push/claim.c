/*
 * A claim is what lets a message out: one transaction that marks deliveries as in flight until the
 * end of their lease and records delivery.attempt for each.  When the record is signed, and only
 * then, they leave.  A delivery that was not claimed has not left, whatever happens to tekd.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/log.h"

void attempt_free(struct attempt *a)
{
    if (!a)
        return;
    buf_free(a->message);
    free(a);
}

/* ---- on the store thread --------------------------------------------------------------------- */

struct claim {
    struct errand e; /* first */
    struct lane *lane;
    int64_t bsa;
    struct push_poll *poll; /* NULL: for a push */
    int64_t lease_us;       /* beyond the back-off */
    struct keys_peer peer;
    char addr[PUSH_ADDR_MAX];
    unsigned wanted, n;
    struct store_delivery due[PUSH_LANE_MAX];
    struct attempt *attempt[PUSH_LANE_MAX];
    struct store_lane rows;
};

/* One whose deadline has passed is watch.c's, not ours. */
static int collect_due(void *arg, const struct store_delivery *d)
{
    struct claim *c = arg;

    c->due[c->n++] = *d;
    return 0;
}

static int find_due(struct claim *c, struct store_tx *tx)
{
    const struct store_walk w = {.limit = c->wanted, .arg = c};
    int64_t now_us = store_tx_utc_us(tx);
    const struct store_due due = {.now_us = now_us, .far_us = now_us + c->e.push->reach_us};

    return store_tx_delivery_due(tx, c->bsa, &due, &w, collect_due);
}

static int record_attempt(const struct claim *c, struct store_tx *tx,
                          const struct store_delivery *d)
{
    struct record *rec = NULL;
    int r = record_new("delivery.attempt", &rec);

    if (r < 0)
        return r;
    record_ref(rec, "ref", d->epoch, d->seq);
    record_str(rec, "mid", d->mid);
    record_str(rec, "peer", c->peer.id);
    record_str(rec, "addr", c->poll ? c->poll->addr : c->addr);
    return store_tx_record(tx, rec, NULL);
}

static int make_attempt(struct claim *c, struct store_tx *tx, const struct store_delivery *d)
{
    AUTO(attempt) struct attempt *a = calloc(1, sizeof(*a));
    int r = a ? buf_new(STORE_DELIVERY_MAX, &a->message) : TEKD_ENOMEM;

    if (r == 0)
        r = store_tx_delivery_message(tx, d->row, a->message);
    if (r < 0)
        return r;
    a->row = d->row;
    a->bsa = d->bsa;
    a->number = d->attempts;
    a->media = d->media == STORE_MEDIA_JSON ? CP3_JSON : CP3_XML;
    (void)snprintf(a->mid, sizeof(a->mid), "%s", d->mid);
    (void)snprintf(a->peer, sizeof(a->peer), "%s", c->peer.id);
    (void)snprintf(a->url, sizeof(a->url), "%s", c->poll ? "" : c->peer.url);
    c->attempt[c->n++] = TAKE(a);
    return 0;
}

static int claim_one(struct claim *c, struct store_tx *tx, struct store_delivery *d)
{
    int r;

    if (d->state == STORE_DELIVERY_IN_FLIGHT)
        memcpy(d->why, PUSH_WHY_SILENT, sizeof(PUSH_WHY_SILENT));
    d->state = STORE_DELIVERY_IN_FLIGHT;
    d->attempts++;
    d->next_us = store_tx_utc_us(tx) + c->lease_us +
                 backoff_us(&c->e.push->backoff, d->attempts, backoff_random());
    r = store_tx_delivery_update(tx, d);
    if (r == 0)
        r = store_tx_delivery_carry(tx, d);
    if (r == 0)
        r = record_attempt(c, tx, d);
    return r < 0 ? r : make_attempt(c, tx, d);
}

/* Enrolment as it is at this place of the log: a BSA that was disabled before gets nothing. */
static int look_at_peer(struct claim *c)
{
    int r = keys_peer_by_row(c->e.push->keys, c->bsa, &c->peer);

    if (r == TEKD_ENOTFOUND || (r == 0 && !c->poll && !c->peer.url[0]))
        r = TEKD_EDENIED;
    if (r == 0)
        request_addr(c->peer.url, c->addr);
    return r;
}

static int apply_claim(struct store_item *self, struct store_tx *tx)
{
    struct claim *c = (struct claim *)self;
    int64_t now_us = store_tx_utc_us(tx);
    bool is_gone = c->poll && atomic_load(&c->poll->gone);
    unsigned found;
    int r = look_at_peer(c);

    if (r == 0 && !is_gone)
        r = find_due(c, tx);
    found = c->n;
    c->n = 0;
    for (unsigned i = 0; i < found && r == 0; i++) {
        if (c->due[i].deadline_us > now_us)
            r = claim_one(c, tx, &c->due[i]);
    }
    return r < 0 ? r : store_tx_delivery_lane(tx, c->bsa, &c->rows);
}

/* ---- back ------------------------------------------------------------------------------------ */

static void free_claim(struct claim *c)
{
    for (unsigned i = 0; i < PUSH_LANE_MAX; i++)
        attempt_free(c->attempt[i]);
    keys_peer_clear(&c->peer);
    free(c);
}

/*
 * Nothing leaves.  When it is the signature that did not come the claim may be committed: what it
 * got is known not to have left, and goes back.
 */
static void claim_failed(struct claim *c, const struct moment *now)
{
    struct push *p = c->e.push;
    int r = c->e.result;

    if (r != TEKD_EHSM || c->poll)
        c->n = 0;
    if (r == TEKD_EDENIED) {
        c->lane->again_us = now->mono_us + PUSH_LOOK_US;
        c->lane->empty_until_us = now->mono_us + PUSH_STORE_US;
        return;
    }
    log_event(LOG_WARN, "push", "cannot-claim", LOG_INT("bsa", c->bsa),
              LOG_STR("error", tekd_strerror(r)));
    c->lane->look = true;
    look_pause(p);
}

/* Rows that say "due" and a claim that got nothing of it: nobody goes round in circles. */
static void claim_worked(struct claim *c, const struct moment *now)
{
    lane_take_rows(c->e.push, c->lane, &c->rows);
    if (c->n == 0)
        c->lane->empty_until_us = now->mono_us + PUSH_STORE_US;
    atomic_fetch_add(&c->e.push->attempts, c->n);
}

/* The target of a lane as the peer is enrolled now, and as the files are. */
static int renew_target(struct push *p, struct lane *l, const struct keys_peer *peer)
{
    struct trust *trust;
    int r = 0;

    (void)pthread_mutex_lock(&p->lock);
    trust = trust_ref(p->trust);
    (void)pthread_mutex_unlock(&p->lock);
    if (!l->target || !target_is_of(l->target, trust, peer)) {
        target_unref(l->target);
        l->target = NULL;
        r = target_new(p, trust, peer, &l->target);
    }
    trust_unref(trust);
    return r;
}

/* The enrolment is looked at once more, as the last thing before an octet leaves. */
static void send_to(struct push *p, struct lane *l, struct attempt *take_attempt)
{
    struct keys_peer peer = {.row = 0};

    if (keys_peer_by_row(p->keys, l->bsa, &peer) < 0)
        result_not_sent(p, l, take_attempt, "the BSA is disabled");
    else if (strcmp(peer.url, take_attempt->url) != 0)
        result_not_sent(p, l, take_attempt, "the URL has changed");
    else if (renew_target(p, l, &peer) < 0)
        result_cannot_send(p, l, take_attempt, "the CA of the BSA cannot be read");
    else
        transfer_start(p, l, take_attempt, l->target);
    keys_peer_clear(&peer);
}

/* What stands in the way of all makes the claims pause, too: they do not go round in circles. */
static void send_one(struct claim *c, struct attempt *take_attempt)
{
    struct push *p = c->e.push;

    if (c->e.result < 0)
        result_not_sent(p, c->lane, take_attempt, "the HSM did not sign the record of the attempt");
    else if (p->cut_us != 0)
        result_not_sent(p, c->lane, take_attempt, "tekd stopped before it was sent");
    else
        send_to(p, c->lane, take_attempt);
}

static void end_push(struct claim *c)
{
    lane_leave(c->e.push, c->lane, c->wanted - c->n);
    for (unsigned i = 0; i < c->n; i++)
        send_one(c, TAKE(c->attempt[i]));
}

static void end_poll(struct claim *c)
{
    if (c->n > 0)
        collect_reply(c->e.push, c->poll, TAKE(c->attempt[0]));
    else
        collect_put_back(c->e.push, c->lane, c->poll);
}

static void claim_back(struct errand *e)
{
    struct claim *c = (struct claim *)e;
    struct moment now = moment_now();

    c->lane->busy = false;
    if (e->result == 0)
        claim_worked(c, &now);
    else
        claim_failed(c, &now);
    if (c->poll)
        end_poll(c);
    else
        end_push(c);
    lane_work(e->push, c->lane, &now);
    free_claim(c);
}

/* ---- beginning ------------------------------------------------------------------------------- */

static struct claim *claim_new(struct push *p, struct lane *l, unsigned n)
{
    struct claim *c = calloc(1, sizeof(*c));

    if (!c) {
        look_pause(p);
        return NULL;
    }
    c->lane = l;
    c->bsa = l->bsa;
    c->wanted = n;
    c->e.item.apply = apply_claim;
    c->e.back = claim_back;
    l->busy = true;
    return c;
}

/* The lease of a push ends when an answer cannot come any more and the pause behind it is over. */
void claim_for_push(struct push *p, struct lane *l, unsigned n)
{
    struct claim *c = claim_new(p, l, n);

    if (!c) {
        lane_leave(p, l, n);
        return;
    }
    c->lease_us = p->attempt_us;
    errand_go(p, &c->e, STORE_SIGNED);
}

void claim_for_poll(struct push *p, struct lane *l)
{
    struct claim *c = claim_new(p, l, 1);

    if (!c)
        return;
    c->poll = TAKE(l->poll);
    errand_go(p, &c->e, STORE_SIGNED);
}
