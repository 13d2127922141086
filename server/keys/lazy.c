/*
 * answer.sent and request.repeated: one or two for each request, and nobody waits for them.  They
 * are collected, and one item at a time takes them to the store, so that a burst of answers costs
 * the store one savepoint and one wake-up.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"

struct lazies {
    struct store_item item; /* first; its turns follow one another */
    struct store *store;
    pthread_mutex_t lock; /* guards what follows */
    struct lazy *first, **last;
    bool out; /* item is the store's */
    /* The item's own while it is out. */
    struct lazy *taken;
};

int lazies_new(struct store *store, struct lazies **ret_lazies)
{
    struct lazies *l = calloc(1, sizeof(*l));

    if (!l)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&l->lock, NULL);
    l->store = store;
    l->last = &l->first;
    *ret_lazies = l;
    return 0;
}

static void free_list(struct lazy *z)
{
    while (z) {
        struct lazy *next = z->next;
        free(z);
        z = next;
    }
}

void lazies_free(struct lazies *l)
{
    if (!l)
        return;
    free_list(l->first);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
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
    }
    return store_tx_record(tx, rec, NULL);
}

/* As many as one item may have. */
static void take_locked(struct lazies *l)
{
    struct lazy **at = &l->first;

    for (size_t n = 0; *at && n < STORE_RECORDS_MAX; n++)
        at = &(*at)->next;
    l->taken = l->first;
    l->first = *at;
    *at = NULL;
    if (!l->first)
        l->last = &l->first;
}

static int apply(struct store_item *item, struct store_tx *tx)
{
    struct lazies *l = (struct lazies *)item;
    int r = 0;

    (void)pthread_mutex_lock(&l->lock);
    take_locked(l);
    (void)pthread_mutex_unlock(&l->lock);
    for (const struct lazy *z = l->taken; z && r == 0; z = z->next)
        r = add_record(tx, z);
    return r;
}

static void submit(struct lazies *l);

static void done(struct store_item *item, int result)
{
    struct lazies *l = (struct lazies *)item;
    bool more;

    (void)result; /* the store counts what it could not record (audit.gap) */
    free_list(TAKE(l->taken));
    (void)pthread_mutex_lock(&l->lock);
    more = l->first != NULL;
    l->out = more;
    (void)pthread_mutex_unlock(&l->lock);
    if (more)
        submit(l);
}

static void submit(struct lazies *l)
{
    l->item = (struct store_item){.apply = apply, .done = done, .wait = STORE_LAZY};
    if (store_submit(l->store, &l->item) == 0)
        return;
    (void)pthread_mutex_lock(&l->lock);
    l->out = false; /* tried again with the next one */
    (void)pthread_mutex_unlock(&l->lock);
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
    z->bsa = w->bsa->bsa;
    memcpy(z->out_sha256, w->out_sha256, 32);
    memcpy(z->cert_sha256, w->r->cert_sha256, 32);
    memcpy(z->key_id, w->made.key.key_id, 16);
    memcpy(z->addr, w->r->addr, sizeof(z->addr));
    memcpy(z->message_id, w->request.message_id, len);
    return z;
}

void lazies_add(struct lazies *l, const struct keys_work *w, bool repeated)
{
    struct lazy *z = lazy_new(w, repeated);
    bool out;

    if (!z)
        return;
    (void)pthread_mutex_lock(&l->lock);
    *l->last = z;
    l->last = &z->next;
    out = l->out;
    l->out = true;
    (void)pthread_mutex_unlock(&l->lock);
    if (!out)
        submit(l);
}
