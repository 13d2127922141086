/*
 * answer.sent and request.repeated: one or two for each request, and nobody waits for them.  They
 * are collected, and one item takes as many to the store as it may have records, so that a burst of
 * answers costs the store a few savepoints and wake-ups.  An item is submitted with its first
 * record and filled until it is applied or full: nothing is ever held back here.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"

struct lazy_item {
    struct store_item item; /* first: the store gives it back */
    struct lazies *lazies;
    struct lazy *first, **last; /* guarded by the lock while it is filled, then the store's */
    size_t n;
};

struct lazies {
    struct store *store;
    pthread_mutex_t lock;      /* guards what follows */
    struct lazy_item *filling; /* submitted, not applied and not full; NULL: none */
};

int lazies_new(struct store *store, struct lazies **ret_lazies)
{
    struct lazies *l = calloc(1, sizeof(*l));

    if (!l)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&l->lock, NULL);
    l->store = store;
    *ret_lazies = l;
    return 0;
}

void lazies_free(struct lazies *l)
{
    if (!l)
        return;
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

/* From here on nobody adds to it. */
static void close_item(struct lazy_item *i)
{
    struct lazies *l = i->lazies;

    (void)pthread_mutex_lock(&l->lock);
    if (l->filling == i)
        l->filling = NULL;
    (void)pthread_mutex_unlock(&l->lock);
}

static void free_item(struct lazy_item *i)
{
    while (i->first) {
        struct lazy *z = i->first;
        i->first = z->next;
        free(z);
    }
    free(i);
}

/* ---- on the store thread --------------------------------------------------------------------- */

static int add_record(struct store_tx *tx, const struct lazy *z)
{
    char key_id[ENC_UUID_LEN + 1];
    struct record *rec = NULL;
    int r = record_new(z->repeated ? "request.repeated" : "answer.sent", &rec);

    if (r < 0)
        return r;
    record_ref(rec, "ref", z->epoch, z->seq);
    record_str(rec, "mid", z->message_id);
    record_str(rec, "peer", z->bsa->id);
    record_hex(rec, "out", z->out_sha256, 32);
    if (z->repeated) {
        enc_uuid(z->key_id, key_id);
        record_str(rec, "keyid", key_id);
        record_hex(rec, "cert", z->cert_sha256, 32);
        record_str(rec, "addr", z->addr);
        record_ref(rec, "after", z->after.epoch, z->after.seq);
    }
    return store_tx_record(tx, rec, NULL);
}

static int apply(struct store_item *item, struct store_tx *tx)
{
    struct lazy_item *i = (struct lazy_item *)item;
    int r = 0;

    close_item(i);
    for (const struct lazy *z = i->first; z && r == 0; z = z->next)
        r = add_record(tx, z);
    return r;
}

static void done(struct store_item *item, int result)
{
    struct lazy_item *i = (struct lazy_item *)item;

    (void)result; /* the store counts what it could not record (audit.gap) */
    close_item(i);
    free_item(i);
}

/* ---- from any thread ------------------------------------------------------------------------- */

static struct lazy *lazy_new(const struct keys_work *w, bool repeated)
{
    size_t len = strlen(w->request.message_id) + 1;
    struct lazy *z = calloc(1, sizeof(*z) + len);

    if (!z)
        return NULL;
    z->repeated = repeated;
    z->epoch = w->epoch;
    z->seq = w->answered_seq;
    z->after = w->after;
    z->bsa = w->bsa->bsa;
    memcpy(z->out_sha256, w->out_sha256, 32);
    memcpy(z->cert_sha256, w->r->cert_sha256, 32);
    memcpy(z->key_id, w->made.key.key_id, 16);
    memcpy(z->addr, w->r->addr, sizeof(z->addr));
    memcpy(z->message_id, w->request.message_id, len);
    return z;
}

static struct lazy_item *item_new(struct lazies *l)
{
    struct lazy_item *i = calloc(1, sizeof(*i));

    if (!i)
        return NULL;
    i->item = (struct store_item){.apply = apply, .done = done, .wait = STORE_LAZY};
    i->lazies = l;
    i->last = &i->first;
    return i;
}

/* Adds to the item that is being filled.  Returns one that is to be submitted, or NULL. */
static struct lazy_item *put_locked(struct lazies *l, struct lazy *z)
{
    struct lazy_item *fresh = NULL;
    struct lazy_item *i = l->filling;

    if (!i) {
        i = fresh = item_new(l);
        if (!i) {
            free(z);
            return NULL;
        }
    }
    *i->last = z;
    i->last = &z->next;
    i->n++;
    l->filling = i->n < STORE_RECORDS_MAX ? i : NULL;
    return fresh;
}

void lazies_add(struct lazies *l, const struct keys_work *w, bool repeated)
{
    struct lazy *z = lazy_new(w, repeated);
    struct lazy_item *fresh;

    if (!z)
        return;
    (void)pthread_mutex_lock(&l->lock);
    fresh = put_locked(l, z);
    (void)pthread_mutex_unlock(&l->lock);
    if (fresh && store_submit(l->store, &fresh->item) < 0)
        done(&fresh->item, TEKD_EAGAIN);
}
