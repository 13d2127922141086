#include "keys_delivery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"

static void need_at(int ok, const char *what, int line)
{
    if (ok)
        return;
    (void)fprintf(stderr, "keys_delivery.c:%d: %s\n", line, what);
    abort();
}
#define need(ok) need_at((ok) != 0, #ok, __LINE__)

/* ---- making ---------------------------------------------------------------------------------- */

static int add(void *arg, const char *mid, const char *bsa_id)
{
    struct delivered *d = arg;

    need(d->n < DELIVERIES_MAX && strlen(mid) == STORE_MID_LEN);
    (void)snprintf(d->mid[d->n], sizeof(d->mid[0]), "%s", mid);
    (void)snprintf(d->bsa[d->n], sizeof(d->bsa[0]), "%s", bsa_id);
    d->n++;
    return 0;
}

int deliver(struct service *s, const char *content, const char *const *bsas,
            struct delivered *ret_delivered)
{
    struct keys_delivery_order o = {.content_id = content,
                                    .bsa_ids = bsas,
                                    .deadline_s = DELIVERY_DEADLINE_S,
                                    .arg = ret_delivered,
                                    .each = add};

    while (bsas && bsas[o.n])
        o.n++;
    *ret_delivered = (struct delivered){.n = 0};
    return keys_deliver(s->keys, &s->actor, &o, &s->error);
}

void deliver_one(struct service *s, const char *content, const struct peer *p,
                 char ret_mid[static STORE_MID_LEN + 1])
{
    const char *const bsas[] = {p->id, NULL};
    struct delivered d;

    need(p->id[0] != '\0' && deliver(s, content, bsas, &d) == 0);
    need(d.n == 1 && strcmp(d.bsa[0], p->id) == 0);
    memcpy(ret_mid, d.mid[0], sizeof(d.mid[0]));
}

/* ---- rows ------------------------------------------------------------------------------------ */

struct row {
    const char *mid;
    struct store_delivery delivery;
    struct buf *message;
    enum store_delivery_state state;
};

static int find(void *arg, struct store_tx *tx)
{
    struct row *x = arg;

    return store_tx_delivery_find(tx, x->mid, strlen(x->mid), &x->delivery);
}

struct store_delivery delivery_row(struct service *s, const char *mid)
{
    struct row x = {.mid = mid};

    need(store_call(s->store, STORE_READ, find, &x) == 0);
    return x.delivery;
}

static int force(void *arg, struct store_tx *tx)
{
    struct row *x = arg;
    int r = find(x, tx);

    if (r < 0)
        return r;
    x->delivery.state = x->state;
    if (x->delivery.attempts == 0)
        x->delivery.attempts = 1;
    return store_tx_delivery_update(tx, &x->delivery);
}

void delivery_force(struct service *s, const char *mid, enum store_delivery_state state)
{
    struct row x = {.mid = mid, .state = state};

    need(store_call(s->store, STORE_DURABLE, force, &x) == 0);
}

void delivery_claim(struct service *s, const char *mid)
{
    delivery_force(s, mid, STORE_DELIVERY_IN_FLIGHT);
}

static int read_message(void *arg, struct store_tx *tx)
{
    struct row *x = arg;
    int r = find(x, tx);

    return r < 0 ? r : store_tx_delivery_message(tx, x->delivery.row, x->message);
}

int delivery_message(struct service *s, const char *mid, struct cp3_message *ret_message)
{
    AUTO(buf) struct buf *message = NULL;
    struct cp3_reader *reader = NULL;
    struct row x = {.mid = mid};
    int r;

    need(buf_new(STORE_DELIVERY_MAX, &message) == 0);
    x.message = message;
    r = store_call(s->store, STORE_READ, read_message, &x);
    if (r < 0)
        return r;
    need(cp3_reader_new(&reader) == 0);
    need(cp3_read(reader, x.delivery.media == STORE_MEDIA_JSON ? CP3_JSON : CP3_XML,
                  buf_data(message), buf_len(message), ret_message, NULL) == 0);
    cp3_reader_free(reader);
    need(ret_message->tag == CP3_DELIVERY);
    return 0;
}

size_t delivery_tek(struct service *s, const char *mid, const struct peer *p,
                    uint8_t ret_tek[static FAKE_TEK_MAX])
{
    struct cp3_message m;

    need(delivery_message(s, mid, &m) == 0);
    return fake_hsm_unwrap(s->hsm, p->kek, m.data, m.data_len, ret_tek);
}

struct counting {
    int64_t bsa;
    size_t n;
};

static int count_one(void *arg, const struct store_delivery *d)
{
    struct counting *c = arg;

    c->n += c->bsa == 0 || d->bsa == c->bsa;
    return 0;
}

static int count_all(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.limit = SIZE_MAX, .arg = arg};

    return store_tx_delivery_walk(tx, &w, count_one);
}

size_t delivery_count(struct service *s, const struct peer *p)
{
    struct keys_peer peer = {.row = 0};
    struct counting c = {.bsa = 0};

    if (p)
        need(keys_peer_by_cert(s->keys, p->cert, &peer) == 0);
    c.bsa = peer.row;
    keys_peer_clear(&peer);
    need(store_call(s->store, STORE_READ, count_all, &c) == 0);
    return c.n;
}

/* ---- confirming ------------------------------------------------------------------------------ */

struct cp3_message confirm_message(const struct peer *p, const char *mid, const char *content,
                                   enum cp3_status status)
{
    struct cp3_message m = ask_message(p, mid, content);

    m.tag = CP3_CONFIRMATION;
    m.status = status;
    return m;
}

struct ask *confirm_send(struct service *s, const struct peer *p, const struct cp3_message *m,
                         enum cp3_form form)
{
    char body[CP3_WRITTEN_MAX + 1];
    size_t len;

    need(cp3_write(CP3_XML, form, m, body, CP3_WRITTEN_MAX, &len) == 0);
    body[len] = '\0';
    return ask_send_octets(s, p, "application/xml", body, SERVICE_US);
}

int confirm(struct service *s, const struct peer *p, const struct cp3_message *m,
            const char *reason)
{
    struct ask *a = confirm_send(s, p, m, CP3_FULL);
    int status;

    ask_wait(a);
    status = a->reply.status;
    if (!reason || !a->reply.reason)
        need(!reason && !a->reply.reason);
    else
        need(strcmp(reason, a->reply.reason) == 0);
    need((status == 204) == (a->reply.body == NULL));
    ask_end(a);
    return status;
}

/* ---- fan-outs -------------------------------------------------------------------------------- */

struct fanouts {
    size_t n;
    struct store_fanout first;
};

static int take_fanout(void *arg, const struct store_fanout *f)
{
    struct fanouts *x = arg;

    if (x->n++ == 0)
        x->first = *f;
    return 0;
}

static int walk_fanouts(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.limit = SIZE_MAX, .arg = arg};

    return store_tx_fanout_walk(tx, &w, take_fanout);
}

static struct fanouts fanouts(struct service *s)
{
    struct fanouts x = {.n = 0};

    need(store_call(s->store, STORE_READ, walk_fanouts, &x) == 0);
    return x;
}

size_t fanout_count(struct service *s)
{
    return fanouts(s).n;
}

struct store_fanout fanout_first(struct service *s)
{
    struct fanouts x = fanouts(s);

    need(x.n > 0);
    return x.first;
}

void fanout_run(struct service *s)
{
    while (fanout_count(s) > 0) {
        struct store_fanout f = fanout_first(s);
        bool done;

        need(keys_fanout_step(s->keys, &f, DELIVERY_DEADLINE_S, &done) == 0);
    }
}
