#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* BSA KEKs that the start checks at once; the workers check every one at its first use. */
#define BIND_AT_START_MAX 64

/* ---- loading --------------------------------------------------------------------------------- */

static int load_bsa(void *arg, const struct store_bsa *b)
{
    struct registry *registry = arg;
    AUTO(store_bsa) struct store_bsa *copy = NULL;
    int r = store_bsa_dup(b, &copy);

    return r < 0 ? r : registry_put(registry, TAKE(copy));
}

static int load_content(void *arg, const struct store_content *c)
{
    struct keys *k = arg;

    bloom_add(k->bloom, c->id);
    if (c->created_by)
        registry_count_content(k->registry, c->created_by);
    return 0;
}

static int load(void *arg, struct store_tx *tx)
{
    struct keys *k = arg;
    const struct store_walk bsas = {.limit = SIZE_MAX, .arg = k->registry};
    const struct store_walk contents = {.limit = SIZE_MAX, .arg = k};
    int r = store_tx_bsa_walk(tx, &bsas, load_bsa);

    if (r == 0)
        r = store_tx_content_walk(tx, &contents, load_content);
    if (r == 0)
        r = store_tx_kek_storage(tx, &k->storage);
    return r == TEKD_ENOTFOUND ? 0 : r;
}

/* ---- the storage KEK ------------------------------------------------------------------------- */

static int add_storage(void *arg, struct store_tx *tx)
{
    struct store_kek *kek = arg;
    int r;

    kek->version = 1;
    kek->added_us = store_tx_utc_us(tx);
    (void)snprintf(kek->name, sizeof(kek->name), KEK_STORAGE_NAME "/%u", (unsigned)kek->version);
    r = store_tx_kek_insert(tx, kek);
    return r < 0 ? r : kek_record(tx, kek, NULL);
}

static int bind_storage(struct keys *k, int64_t deadline_us, struct keys_error *err)
{
    const struct kek_wanted what = {.label = k->storage_label,
                                    .use = HSM_KEK_STORAGE,
                                    .wrap = HSM_WRAP_AES_KW,
                                    .deadline_us = deadline_us};
    struct store_kek bound;
    int r;

    (void)pthread_mutex_lock(&k->lock);
    bound = k->storage;
    (void)pthread_mutex_unlock(&k->lock);
    if (bound.row && strcmp(bound.kek.label, k->storage_label) != 0)
        return admin_fail(err, TEKD_EINVAL,
                          "hsm.storage_kek is \"%s\", but the TEKs are stored under \"%s\"",
                          k->storage_label, bound.kek.label);
    if (bound.row)
        return kek_check(k, &bound, deadline_us, err);

    r = kek_describe(k, &what, &bound, err);
    if (r < 0)
        return r;
    r = store_call(k->store, STORE_DURABLE, add_storage, &bound);
    if (r < 0)
        return admin_fail(err, r, "recording the storage KEK: %s", tekd_strerror(r));
    (void)pthread_mutex_lock(&k->lock);
    k->storage = bound;
    (void)pthread_mutex_unlock(&k->lock);
    return 0;
}

/* The KEKs of the first BSAs. */
struct bind_list {
    struct store_kek kek[BIND_AT_START_MAX];
    size_t n;
};

static int collect_kek(void *arg, const struct store_bsa *b)
{
    struct bind_list *list = arg;

    if (b->enabled && list->n < BIND_AT_START_MAX)
        list->kek[list->n++] = b->kek;
    return 0;
}

static int collect(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.limit = BIND_AT_START_MAX, .arg = arg};

    return store_tx_bsa_walk(tx, &w, collect_kek);
}

/* As many as are checked in about the time that one may take: a token that takes long for each
 * still is an HSM that answers, and the rest is checked when it is used. */
static int bind_bsas(struct keys *k, int64_t patience_us, struct keys_error *err)
{
    AUTO_MEM struct bind_list *list = calloc(1, sizeof(*list));
    int64_t until_us = clock_mono_us() + patience_us;
    int r;

    if (!list)
        return TEKD_ENOMEM;
    r = store_call(k->store, STORE_READ, collect, list);
    for (size_t i = 0; i < list->n && r == 0 && clock_mono_us() < until_us; i++)
        r = kek_check(k, &list->kek[i], clock_mono_us() + patience_us, err);
    return r;
}

/* An HSM that does not answer is a state; a wrong key is not. */
static bool is_state(int r)
{
    return r == TEKD_EHSM || r == TEKD_EAGAIN || r == TEKD_ETIMEDOUT || r == TEKD_EPIN;
}

int keys_bind(struct keys *k, int64_t deadline_us)
{
    struct keys_error err = {.what = ""};
    int64_t patience_us = deadline_us - clock_mono_us();
    int r = bind_storage(k, deadline_us, &err);

    if (r == 0)
        r = bind_bsas(k, patience_us, &err);
    (void)pthread_mutex_lock(&k->lock);
    if (r == 0 || !is_state(r))
        k->bound = r == 0;
    (void)snprintf(k->reason, sizeof(k->reason), "%.*s", (int)sizeof(k->reason) - 1, err.what);
    (void)pthread_mutex_unlock(&k->lock);
    if (r < 0)
        log_event(is_state(r) ? LOG_WARN : LOG_ERROR, "keys", "kek-not-bound",
                  LOG_STR("error", tekd_errname(r)), LOG_STR("what", err.what));
    return r;
}

int keys_storage(struct keys *k, struct store_kek *ret_kek)
{
    int r = TEKD_EHSM;

    (void)pthread_mutex_lock(&k->lock);
    if (k->bound) {
        *ret_kek = k->storage;
        r = 0;
    }
    (void)pthread_mutex_unlock(&k->lock);
    return r;
}

/* ---- making and freeing ---------------------------------------------------------------------- */

static int make_parts(struct keys *k, const struct keys_options *o)
{
    int r = registry_new(&k->registry);

    if (r == 0)
        r = cache_new(KEYS_CONTENT_MAX, KEYS_CONTENT_MAX, &k->cache);
    if (r == 0)
        r = bloom_new(&k->bloom);
    if (r == 0)
        r = flights_new(&k->flights);
    if (r == 0)
        r = limiter_new(&k->limiter);
    if (r == 0)
        r = lazies_new(k->store, &k->lazies);
    if (r == 0)
        r = line_new(o->hsm_inside, o->hsm_waiting, &k->line);
    return r;
}

static void copy_options(struct keys *k, const struct keys_options *o)
{
    (void)snprintf(k->bsm_id, sizeof(k->bsm_id), "%s", o->bsm_id);
    (void)snprintf(k->storage_label, sizeof(k->storage_label), "%s", o->storage_kek);
    k->store = o->store;
    k->hsm = o->hsm;
    k->auto_content = o->auto_content;
    k->auto_bits = o->auto_bits;
    k->refusal_http = o->refusal_http;
    k->per_bsa_concurrency = o->per_bsa_concurrency;
    k->per_bsa_auto_contents = o->per_bsa_auto_contents;
}

int keys_new(const struct keys_options *o, int64_t deadline_us, struct keys **ret_keys)
{
    AUTO(keys) struct keys *k = NULL;
    int r;

    if (o->hsm_inside == 0)
        return TEKD_EINVAL;
    k = calloc(1, sizeof(*k));
    if (!k)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&k->lock, NULL);
    copy_options(k, o);
    r = make_parts(k, o);
    if (r == 0)
        r = store_call(k->store, STORE_READ, load, k);
    if (r < 0)
        return r;
    r = keys_bind(k, deadline_us);
    if (r < 0 && !is_state(r))
        return r;
    *ret_keys = TAKE(k);
    return 0;
}

void keys_on_wait(struct keys *k, void (*wait)(void *arg, bool begins), void *arg)
{
    k->wait = wait;
    k->wait_arg = arg;
}

void keys_free(struct keys *k)
{
    if (!k)
        return;
    line_free(k->line);
    lazies_free(k->lazies);
    limiter_free(k->limiter);
    flights_free(k->flights);
    bloom_free(k->bloom);
    cache_free(k->cache);
    registry_free(k->registry);
    (void)pthread_mutex_destroy(&k->lock);
    free(k);
}

void keys_status_get(struct keys *k, struct keys_status *ret_status)
{
    *ret_status = (struct keys_status){.answered = atomic_load(&k->answered),
                                       .refused = atomic_load(&k->refused),
                                       .repeated = atomic_load(&k->repeated),
                                       .busy = atomic_load(&k->busy),
                                       .failed = atomic_load(&k->failed),
                                       .tek_hits = atomic_load(&k->tek_hits),
                                       .tek_misses = atomic_load(&k->tek_misses),
                                       .confirmed = atomic_load(&k->confirmed),
                                       .rejected = atomic_load(&k->rejected),
                                       .bsas = registry_count(k->registry)};
    (void)pthread_mutex_lock(&k->lock);
    ret_status->bound = k->bound;
    memcpy(ret_status->reason, k->reason, sizeof(ret_status->reason));
    (void)pthread_mutex_unlock(&k->lock);
}

/* ---- records that nobody waits for ----------------------------------------------------------- */

struct lazy_record {
    struct store_item item;
    struct record *record;
};

static int apply_lazy(struct store_item *item, struct store_tx *tx)
{
    struct lazy_record *l = (struct lazy_record *)item;

    return store_tx_record(tx, TAKE(l->record), NULL);
}

static void done_lazy(struct store_item *item, int result)
{
    struct lazy_record *l = (struct lazy_record *)item;

    (void)result; /* the store counts what it could not record (audit.gap) */
    record_free(l->record);
    free(l);
}

void keys_note(struct keys *k, struct record *take_r)
{
    AUTO(record) struct record *rec = take_r;
    struct lazy_record *l;

    if (!rec)
        return;
    l = calloc(1, sizeof(*l));
    if (!l)
        return;
    l->item = (struct store_item){.apply = apply_lazy, .done = done_lazy, .wait = STORE_LAZY};
    l->record = TAKE(rec);
    if (store_submit(k->store, &l->item) < 0)
        done_lazy(&l->item, TEKD_EAGAIN);
}

static void str_if(struct record *rec, const char *key, const char *value)
{
    if (value && *value)
        record_str(rec, key, value);
}

/* A field that the event must have, also when the address of a peer that went is not known. */
static void str_or_empty(struct record *rec, const char *key, const char *value)
{
    record_str(rec, key, value ? value : "");
}

void keys_record_refusal(struct keys *k, const struct refusal *what, unsigned per_minute)
{
    AUTO(record) struct record *rec = NULL;

    if (!limiter_pass(k->limiter, what, per_minute) || record_new(what->event, &rec) < 0)
        return;
    str_if(rec, "peer", what->peer);
    str_or_empty(rec, "reason", what->reason);
    str_if(rec, "mid", what->mid);
    str_if(rec, "content", what->content);
    str_or_empty(rec, "addr", what->addr);
    if (what->cert)
        record_hex(rec, "cert", what->cert, 32);
    keys_note(k, TAKE(rec));
}

void keys_tls_refused(struct keys *k, const char *cause, const char *addr)
{
    const struct refusal what = {
        .event = "tls.refused", .who = cause, .reason = cause, .addr = addr};
    AUTO(record) struct record *rec = NULL;

    if (!limiter_pass(k->limiter, &what, LIMIT_TLS_PER_MINUTE) || record_new(what.event, &rec) < 0)
        return;
    record_str(rec, "cause", cause);
    str_or_empty(rec, "addr", addr);
    record_int(rec, "count", 1);
    keys_note(k, TAKE(rec));
}

static void record_summary(void *arg, const struct refusal_summary *s)
{
    AUTO(record) struct record *rec = NULL;

    if (record_new(s->event, &rec) < 0)
        return;
    str_if(rec, "peer", s->peer);
    str_if(rec, "mid", s->mid);
    str_or_empty(rec, strcmp(s->event, "tls.refused") == 0 ? "cause" : "reason", s->reason);
    str_or_empty(rec, "addr", s->addr);
    record_int(rec, "count", s->count);
    keys_note(arg, TAKE(rec));
}

void keys_tick(struct keys *k)
{
    limiter_flush(k->limiter, false, record_summary, k);
}

void keys_flush(struct keys *k)
{
    limiter_flush(k->limiter, true, record_summary, k);
}

/* ---- for the admin functions ----------------------------------------------------------------- */

int admin_fail(struct keys_error *err, int r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(err->what, sizeof(err->what), fmt, ap);
    va_end(ap);
    return r;
}

bool admin_is_text(const char *s, size_t max)
{
    size_t n = strlen(s);

    if (n == 0 || n > max || s[0] == ' ' || s[n - 1] == ' ')
        return false;
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    }
    return true;
}

void admin_actor(struct record *rec, const struct keys_actor *a)
{
    record_str(rec, "actor", a->name);
    record_int(rec, "uid", a->uid);
}

int admin_record(struct store_tx *tx, const struct keys_actor *a, const char *action,
                 const char *detail)
{
    struct record *rec = NULL;
    int r = record_new("admin.action", &rec);

    if (r < 0)
        return r;
    admin_actor(rec, a);
    record_str(rec, "action", action);
    record_str(rec, "detail", detail);
    return store_tx_record(tx, rec, NULL);
}
