/*
 * The store alone: items that do what a Key Request for a new content does (content, TEK, export,
 * message, two records, one more that nobody waits for), a fixed number outstanding, a signer in
 * this process.  What it prints is the bound that the store sets, without HSM and HTTP.
 *
 *     store_bench DIR [items] [outstanding] [new|known|random|repeat|deliver] [signer's µs]
 *
 * DIR keeps the database, and the signer's key in key.pem: a second run opens what the first left.
 *
 *     new      a new content each time, identifiers rise
 *     known    a new message for one of 100 contents
 *     random   as new, with random MessageIDs and ContentIDs
 *     repeat   waits for a record that is signed already
 *     deliver  a key delivery, in three items: prepared, an attempt that is the oldest one due of
 *              its BSA, and confirmed; 1,000 BSAs in turn
 *
 * store_bench_nolog is the same without the audit log (store_log.h): the difference is what the log
 * costs.
 */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "store_log.h"
#include "store_signer.h"
#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

enum kind { KIND_NEW, KIND_KNOWN, KIND_RANDOM, KIND_REPEAT, KIND_DELIVER };

#define BSAS         1000
#define MESSAGE_LEN  600 /* of a Key Delivery in XML */
#define STEP_PREPARE 0
#define STEP_ATTEMPT 1
#define STEP_CONFIRM 2
#define STEPS        3

struct bench {
    struct store *store;
    enum kind kind;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned long left, running;
    unsigned long errors;
    double wait_us;
};

struct slot {
    struct store_item item;
    struct store_item lazy;
    struct bench *b;
    unsigned long number;
    unsigned step; /* of its delivery, which is the next item's */
    struct store_delivery delivery;
    int64_t since_us;
    bool lazy_free;
};

static void name(const struct slot *slot, const char *prefix, char *out, size_t max)
{
    unsigned long n = slot->number;

    if (slot->b->kind == KIND_RANDOM)
        n = (n + 1) * 0x9E3779B97F4A7C15UL;
    (void)snprintf(out, max, "%s%016lx", prefix, n);
}

static int put_content(struct slot *slot, struct store_tx *tx, struct store_content *c,
                       struct store_tek *t)
{
    struct hsm_blob data = {.len = 24};
    int r;

    *c = (struct store_content){.bits = 128};
    name(slot, "urn:x:", c->id, sizeof(c->id));
    r = store_tx_content_insert(tx, c);
    if (r < 0)
        return r;
    *t = (struct store_tek){.content = c->row, .version = 1, .bits = 128, .storage_kek = 1};
    t->stored.len = 24;
    r = enc_uuidv7(clock_utc_us(), t->key_id);
    if (r == 0)
        r = store_tx_tek_insert(tx, t);
    if (r == 0)
        r = store_tx_export_insert(tx, t->row, 2, &data, &(bool){false});
    if (r == 0)
        r = log_generated(tx, slot->number);
    return r;
}

static int prepare(struct slot *slot, struct store_tx *tx)
{
    static const char message[MESSAGE_LEN] = {'<'};
    struct store_delivery *d = &slot->delivery;
    int64_t now_us = store_tx_utc_us(tx);
    uint8_t id[16];
    int r = enc_uuidv7(now_us, id);

    *d = (struct store_delivery){.bsa = 1 + (int64_t)(slot->number % BSAS),
                                 .content = 1,
                                 .tek = 1,
                                 .kek = 2,
                                 .created_us = now_us,
                                 .next_us = now_us,
                                 .deadline_us = now_us + INT64_C(3600000000),
                                 .epoch = store_tx_epoch(tx)};
    enc_uuid(id, d->mid);
    if (r == 0)
        r = log_given(tx, "delivery.prepared", slot->number, &d->seq);
    return r < 0 ? r : store_tx_delivery_insert(tx, d, message, sizeof(message));
}

static int keep_delivery(void *arg, const struct store_delivery *d)
{
    *(struct store_delivery *)arg = *d;
    return 0;
}

static int attempt(struct slot *slot, struct store_tx *tx)
{
    struct store_delivery *d = &slot->delivery;
    struct store_walk w = {.limit = 1, .arg = d};
    int64_t now_us = store_tx_utc_us(tx);
    const struct store_due due = {.now_us = now_us, .far_us = INT64_MAX};
    int r = store_tx_delivery_due(tx, d->bsa, &due, &w, keep_delivery);

    d->state = STORE_DELIVERY_IN_FLIGHT;
    d->attempts++;
    d->next_us = now_us + 10000000;
    if (r == 0)
        r = log_followed(tx, "delivery.attempt", slot->number, NULL);
    return r < 0 ? r : store_tx_delivery_update(tx, d);
}

static int confirm(struct slot *slot, struct store_tx *tx)
{
    struct store_delivery d;
    int r = store_tx_delivery_find(tx, slot->delivery.mid, STORE_MID_LEN, &d);

    d.state = STORE_DELIVERY_CONFIRMED;
    if (r == 0)
        r = log_followed(tx, "delivery.confirmed", slot->number, &d.confirmed_seq);
    return r < 0 ? r : store_tx_delivery_update(tx, &d);
}

static int apply_delivery(struct store_item *item, struct store_tx *tx)
{
    static int (*const steps[STEPS])(struct slot *, struct store_tx *) = {
        [STEP_PREPARE] = prepare, [STEP_ATTEMPT] = attempt, [STEP_CONFIRM] = confirm};
    struct slot *slot = (struct slot *)item;

    return steps[slot->step](slot, tx);
}

static int apply(struct store_item *item, struct store_tx *tx)
{
    struct slot *slot = (struct slot *)item;
    struct store_message m = {.bsa = 1, .period_asked = -1, .kek = 2, .epoch = 1};
    struct store_content c = {.row = 0};
    struct store_tek t = {.row = 0};
    uint64_t seq;
    int r = 0;

    if (slot->b->kind == KIND_REPEAT) {
        r = store_tx_message_find(tx, 1, "none", 4, &m);
        store_tx_wait_for(tx, (struct store_place){.epoch = 1});
        return r == TEKD_ENOTFOUND ? 0 : r;
    }
    if (slot->b->kind != KIND_KNOWN) {
        r = put_content(slot, tx, &c, &t);
        m.content = c.row;
        m.tek = t.row;
    }
    name(slot, "m-", m.id, sizeof(m.id));
    if (r == 0)
        r = log_given(tx, "request.answered", slot->number, &seq);
    if (r == 0) {
        m.seq = seq;
        m.time_us = store_tx_utc_us(tx);
        r = store_tx_message_insert(tx, &m);
    }
    return r;
}

static int apply_lazy(struct store_item *item, struct store_tx *tx)
{
    struct slot *slot = (struct slot *)((char *)item - offsetof(struct slot, lazy));

    return log_followed(tx, "answer.sent", slot->number, NULL);
}

static void start(struct slot *slot)
{
    slot->since_us = clock_mono_us();
    slot->item.wait = slot->step == STEP_CONFIRM ? STORE_DURABLE : STORE_SIGNED;
    if (store_submit(slot->b->store, &slot->item) < 0)
        abort();
}

static void lazy_done(struct store_item *item, int result)
{
    struct slot *slot = (struct slot *)((char *)item - offsetof(struct slot, lazy));

    (void)result;
    slot->lazy_free = true;
}

/* On the store thread: the next one starts at once, as a busy client would. */
static void done(struct store_item *item, int result)
{
    struct slot *slot = (struct slot *)item;
    struct bench *b = slot->b;
    bool go_on;

    if (b->kind == KIND_DELIVER) {
        slot->step = (slot->step + 1) % STEPS;
    } else if (log_is_kept && slot->lazy_free) {
        slot->lazy_free = false;
        if (store_submit(b->store, &slot->lazy) < 0)
            slot->lazy_free = true;
    }
    pthread_mutex_lock(&b->lock);
    b->errors += result < 0;
    b->wait_us += (double)(clock_mono_us() - slot->since_us);
    go_on = b->left > 0 || slot->step > 0;
    if (go_on && slot->step == 0)
        slot->number = b->left--;
    else if (!go_on && --b->running == 0)
        pthread_cond_signal(&b->changed);
    pthread_mutex_unlock(&b->lock);
    if (go_on)
        start(slot);
}

static double cpu_us(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec * 1e6 + (double)u.ru_utime.tv_usec +
           (double)u.ru_stime.tv_sec * 1e6 + (double)u.ru_stime.tv_usec;
}

static void fatal(void *arg, int error)
{
    (void)arg;
    (void)fprintf(stderr, "store: %s\n", tekd_strerror(error));
    exit(74);
}

static void run(struct bench *b, unsigned long items, unsigned outstanding)
{
    struct slot *slots = calloc(outstanding, sizeof(*slots));
    bool deliver = b->kind == KIND_DELIVER;
    struct store_status before, after;
    struct rusage u;
    double cpu, elapsed;

    if (slots == NULL)
        abort();
    b->left = items;
    b->running = outstanding;
    store_status_get(b->store, &before);
    cpu = cpu_us();
    elapsed = (double)clock_mono_us();
    for (unsigned i = 0; i < outstanding; i++) {
        slots[i].b = b;
        slots[i].number = items + 1 + i;
        slots[i].lazy_free = true;
        slots[i].item =
            (struct store_item){.apply = deliver ? apply_delivery : apply, .done = done};
        slots[i].lazy =
            (struct store_item){.apply = apply_lazy, .done = lazy_done, .wait = STORE_LAZY};
        start(&slots[i]);
    }
    pthread_mutex_lock(&b->lock);
    while (b->running > 0)
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
    elapsed = (double)clock_mono_us() - elapsed;
    cpu = cpu_us() - cpu;
    store_status_get(b->store, &after);
    (void)getrusage(RUSAGE_SELF, &u);
    items += outstanding;
    printf("items=%lu per_s=%.0f cpu_us=%.1f latency_us=%.0f batches=%lu items_per_batch=%.1f"
           " errors=%lu rss_mb=%ld db_mb=%.0f\n",
           items, (double)items / elapsed * 1e6, cpu / (double)items, b->wait_us / (double)items,
           after.batches - before.batches, (double)items / (double)(after.batches - before.batches),
           b->errors, u.ru_maxrss / 1024, (double)after.db_octets / 1e6);
    store_close(b->store);
    free(slots);
}

/* The KEK of row 2 is a BSA's, so that an export makes it a holder; a second run finds it. */
static int enrol(void *arg, struct store_tx *tx)
{
    struct store_kek k;
    int r = store_tx_kek_get(tx, 2, &k);

    (void)arg;
    if (r != TEKD_ENOTFOUND)
        return r;
    r = 0;
    for (int64_t row = 1; row <= 2 && r == 0; row++) {
        k = (struct store_kek){.bsa = row - 1, .version = 1};
        (void)snprintf(k.name, sizeof(k.name), "kek/%d", (int)row);
        memset(k.kek.fingerprint, (int)row, sizeof(k.kek.fingerprint));
        r = store_tx_kek_insert(tx, &k);
    }
    return r;
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"new", "known", "random", "repeat", "deliver"};
    int64_t since_us;
    struct bench b = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct store_test_signer *signer;
    char path[4096], key[4096];
    struct store_options o = {.path = path,
                              .bsm_id = "bench.example",
                              .instance = "bench",
                              .version = "0",
                              .heartbeat_s = 300,
                              .message_window_us = INT64_C(604800) * 1000000,
                              .fatal = fatal};
    unsigned long items = argc > 2 ? strtoul(argv[2], NULL, 10) : 20000;
    unsigned outstanding = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 64;

    if (argc < 2)
        return 2;
    for (size_t i = 0; argc > 4 && i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(argv[4], kinds[i]) == 0)
            b.kind = (enum kind)i;
    }
    (void)snprintf(path, sizeof(path), "%s/store_bench.db", argv[1]);
    (void)snprintf(key, sizeof(key), "%s/key.pem", argv[1]);
    signer = store_signer_load(key);
    o.signer = store_signer_of(signer);
    if (argc > 5)
        store_signer_delay(signer, (unsigned)strtoul(argv[5], NULL, 10));
    since_us = clock_mono_us();
    if (store_open(&o, &b.store) < 0 || store_call(b.store, STORE_DURABLE, enrol, NULL) < 0)
        return 1;
    printf("open_ms=%.0f ", (double)(clock_mono_us() - since_us) / 1000);
    run(&b, items, outstanding);
    store_signer_free(signer);
    return 0;
}
