/*
 * Opening and closing the store, and what other threads may call.
 */
#include <assert.h>
#include <stdio.h>

#include "internal.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* ---- open ------------------------------------------------------------------------------------ */

/* The store's own copies: o came from a caller who may forget it. */
static int copy_strings(struct store *s)
{
    const char **texts[] = {&s->o.path, &s->o.bsm_id, &s->o.instance, &s->o.version,
                            &s->o.anchor_file};

    _Static_assert(sizeof(texts) == sizeof(s->strings), "one copy each");
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (*texts[i] == NULL)
            continue;
        s->strings[i] = strdup(*texts[i]);
        if (s->strings[i] == NULL)
            return TEKD_ENOMEM;
        *texts[i] = s->strings[i];
    }
    s->anchor.path = s->strings[4];
    return 0;
}

static void set_defaults(struct store_options *o)
{
    if (o->checkpoint_max_delay_ms <= 0)
        o->checkpoint_max_delay_ms = CHECKPOINT_DELAY_DEFAULT_MS;
    if (o->heartbeat_s <= 0)
        o->heartbeat_s = HEARTBEAT_DEFAULT_S;
    if (o->epoch_records == 0)
        o->epoch_records = EPOCH_RECORDS_DEFAULT;
    if (o->anchor_interval_s <= 0)
        o->anchor_interval_s = ANCHOR_DEFAULT_S;
    if (o->message_window_us <= 0)
        o->message_window_us = WINDOW_DEFAULT_US;
}

static int new_store(const struct store_options *o, struct store **ret_store)
{
    struct store *s = calloc(1, sizeof(*s));
    int r;

    if (s == NULL)
        return TEKD_ENOMEM;
    s->o = *o;
    set_defaults(&s->o);
    s->checkpoint_delay_us = INT64_C(1000) * s->o.checkpoint_max_delay_ms;
    s->waiting_deadline_us = s->epoch.pending_us = INT64_MAX;
    signer_init(s);
    (void)pthread_mutex_init(&s->public.lock, NULL);
    (void)pthread_mutex_init(&s->anchor.lock, NULL);
    (void)pthread_cond_init(&s->anchor.changed, NULL);
    r = copy_strings(s);
    if (r == 0)
        r = buf_new(RECORD_MAX, &s->scratch);
    if (r == 0) /* besides the items there is at most the store's own wake-up */
        r = queue_new(STORE_QUEUE_MAX + 1, &s->queue);
    *ret_store = s;
    return r;
}

/* Joins the threads in reverse order of their start and frees everything; takes what is half built.
 */
static void free_store(struct store *s)
{
    if (s->started)
        (void)pthread_join(s->thread, NULL);
    anchor_stop(s);
    signer_stop(s);
    db_free(s->db);
    queue_free(s->queue);
    buf_free(s->scratch);
    for (size_t i = 0; i < s->n_own; i++)
        record_free(s->own[i]);
    for (size_t i = 0; i < ARRAY_SIZE(s->strings); i++)
        free(s->strings[i]);
    signer_destroy(s);
    signkey_free(s);
    (void)pthread_cond_destroy(&s->anchor.changed);
    (void)pthread_mutex_destroy(&s->anchor.lock);
    (void)pthread_mutex_destroy(&s->public.lock);
    free(s);
}

static int start_threads(struct store *s)
{
    int error;
    int r = signer_start(s);

    if (r == 0)
        r = anchor_start(s);
    if (r < 0)
        return r;
    s->started = true;
    error = pthread_create(&s->thread, NULL, loop_thread, s);
    if (error == 0)
        return 0;
    s->started = false;
    log_event(LOG_ERROR, "store", "thread", LOG_STR("call", "pthread_create"),
              LOG_STR("errno", strerrorname_np(error)));
    return TEKD_ENOMEM;
}

static int open_store(struct store *s)
{
    struct db_options db = {.path = s->o.path, .cache_mb = s->o.cache_mb};
    int r = db_sqlite.open(&db, &s->db);

    if (r == 0)
        r = start_check(s);
    if (r < 0)
        return r;
    tick_init(s);
    r = batch_run(s);
    if (r < 0)
        return r;
    s->sign_until = s->tree.size;
    loop_publish(s);
    return start_threads(s);
}

int store_open(const struct store_options *o, struct store **ret_store)
{
    struct store *s = NULL;
    int r = new_store(o, &s);

    if (r == 0)
        r = open_store(s);
    if (r < 0) {
        if (s != NULL)
            free_store(s);
        return r;
    }
    *ret_store = s;
    return 0;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    queue_close(s->queue);
    free_store(s);
}

/* ---- items ----------------------------------------------------------------------------------- */

int store_submit(struct store *s, struct store_item *item)
{
    int r = 0;

    assert(item->apply != NULL);
    item->release_size = 0;
    item->first_seq = 0;
    item->next = NULL;
    /* Those that wait for a signature are in no queue, and count as well. */
    if (atomic_fetch_add(&s->open_items, 1) >= STORE_QUEUE_MAX)
        r = TEKD_EAGAIN;
    if (r == 0)
        r = item->wait == STORE_SIGNED ? queue_push_patient(s->queue, item)
                                       : queue_push(s->queue, item);
    if (r == 0)
        return 0;
    atomic_fetch_sub(&s->open_items, 1);
    if (r == TEKD_EAGAIN && item->wait == STORE_LAZY)
        atomic_fetch_add(&s->queue_gap, 1);
    return r;
}

void store_expect(struct store *s, int change)
{
    atomic_fetch_add(&s->expected, change);
}

struct call {
    struct store_item item; /* first: apply and done get it */
    int (*apply)(void *arg, struct store_tx *tx);
    void *arg;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t finished;
    bool is_finished;
    int result;
};

static int call_apply(struct store_item *item, struct store_tx *tx)
{
    struct call *c = (struct call *)item;

    return c->apply(c->arg, tx);
}

static void call_done(struct store_item *item, int result)
{
    struct call *c = (struct call *)item;

    pthread_mutex_lock(&c->lock);
    c->result = result;
    c->is_finished = true;
    pthread_cond_signal(&c->finished);
    pthread_mutex_unlock(&c->lock);
}

int store_call(struct store *s, enum store_wait wait, int (*apply)(void *arg, struct store_tx *tx),
               void *arg)
{
    struct call c = {.item = {.apply = call_apply, .done = call_done, .wait = wait},
                     .apply = apply,
                     .arg = arg,
                     .lock = PTHREAD_MUTEX_INITIALIZER,
                     .finished = PTHREAD_COND_INITIALIZER};
    int r = store_submit(s, &c.item);

    if (r == 0) {
        pthread_mutex_lock(&c.lock);
        while (!c.is_finished)
            pthread_cond_wait(&c.finished, &c.lock);
        pthread_mutex_unlock(&c.lock);
        r = c.result;
    }
    (void)pthread_cond_destroy(&c.finished);
    (void)pthread_mutex_destroy(&c.lock);
    return r;
}

void store_checkpoint_soon(struct store *s)
{
    atomic_store(&s->checkpoint_asked, true);
    loop_wake(s);
}

void store_close_epoch(struct store *s, uint64_t epoch)
{
    atomic_store(&s->close_asked, epoch);
    loop_wake(s);
}

/* ---- state ----------------------------------------------------------------------------------- */

int store_ready(struct store *s, char reason[static HSM_TEXT_MAX])
{
    int r;

    pthread_mutex_lock(&s->public.lock);
    r = s->public.ready;
    (void)snprintf(reason, HSM_TEXT_MAX, "%s", s->public.status.reason);
    pthread_mutex_unlock(&s->public.lock);
    return r;
}

void store_unattested(struct store *s, uint64_t *ret_from, uint64_t *ret_to)
{
    *ret_from = s->unattested_from;
    *ret_to = s->unattested_to;
}

void store_status_get(struct store *s, struct store_status *ret_status)
{
    pthread_mutex_lock(&s->public.lock);
    *ret_status = s->public.status;
    pthread_mutex_unlock(&s->public.lock);
    anchor_state(s, ret_status);
}
