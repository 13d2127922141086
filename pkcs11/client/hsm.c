/* The calls of include/tekd/hsm.h: what the caller has becomes a request, the reply what it gets.
 */
#include "tekd/hsm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pool.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/secret.h"

#define DEFAULT_TLS_WAITING    16
#define DEFAULT_RESTART_MIN_MS 100
#define DEFAULT_RESTART_MAX_MS 30000
/* The audit worker has one caller, and a start has others. */
#define AUDIT_WAITING 16
/* Loading a module and logging in over a network takes longer than a call, a hung one for ever. */
#define START_TIMEOUT_CALLS  10
#define START_TIMEOUT_MIN_MS 10000

/* ---------------------------------------------------------------- calls ------------ */

static bool kek_ok(const struct hsm_kek *k, enum hsm_kek_use use)
{
    return k->use == use && k->id_len <= HSM_ID_MAX && memchr(k->label, 0, sizeof(k->label));
}

static int issue_request(const struct hsm_order *o, struct protocol_request *ret)
{
    if (!kek_ok(o->storage, HSM_KEK_STORAGE) || (o->bsa != NULL && !kek_ok(o->bsa, HSM_KEK_BSA)))
        return TEKD_EINVAL;
    ret->verb = PROTOCOL_ISSUE;
    ret->issue.bits = (uint16_t)o->bits;
    ret->issue.storage = *o->storage;
    ret->issue.bsa.use = (enum hsm_kek_use)0;
    if (o->bsa != NULL)
        ret->issue.bsa = *o->bsa;
    return 0;
}

static int export_request(const struct hsm_order *o, struct protocol_request *ret)
{
    if (!kek_ok(o->storage, HSM_KEK_STORAGE) || o->bsa == NULL || !kek_ok(o->bsa, HSM_KEK_BSA))
        return TEKD_EINVAL;
    ret->verb = PROTOCOL_EXPORT;
    ret->export.bits = (uint16_t)o->bits;
    ret->export.storage = *o->storage;
    ret->export.bsa = *o->bsa;
    ret->export.stored = *o->stored;
    return 0;
}

static int outcome_of(const struct pool_call *c, struct hsm_order *o)
{
    if (c->error < 0)
        return c->error;
    if (o->stored != NULL) {
        o->issued.data = c->reply.data;
        return 0;
    }
    /* A key that is there but cannot be sent, or the other way round, is no answer. */
    if ((o->bsa != NULL) != (c->reply.issued.data.len > 0))
        return TEKD_EINTERNAL;
    o->issued = c->reply.issued;
    return 0;
}

static void finish(struct hsm_order *o, int error)
{
    o->error = error;
    if (o->done != NULL)
        o->done(o);
}

static void call_done(struct pool_call *c)
{
    struct hsm_order *o = c->arg;

    finish(o, outcome_of(c, o));
}

void hsm_make_many(struct hsm *h, struct hsm_order *orders, size_t n, int64_t deadline_us)
{
    struct pool_call call[HSM_MANY_MAX];
    size_t n_calls = 0;

    assert(n <= HSM_MANY_MAX);
    for (size_t i = 0; i < n; i++) {
        struct pool_call *c = &call[n_calls];
        struct hsm_order *o = &orders[i];
        int r = o->stored == NULL ? issue_request(o, &c->request) : export_request(o, &c->request);

        if (r < 0) {
            finish(o, r);
            continue;
        }
        c->done = call_done;
        c->arg = o;
        n_calls++;
    }
    if (n_calls > 0)
        pool_call_many(h, PROTOCOL_ROLE_KEY, call, n_calls, deadline_us);
}

size_t hsm_many(struct hsm *h)
{
    return pool_many(h, PROTOCOL_ROLE_KEY);
}

int hsm_issue(struct hsm *h, unsigned bits, const struct hsm_kek *storage,
              const struct hsm_kek *bsa, int64_t deadline_us, struct hsm_issued *ret_issued)
{
    struct hsm_order o = {.bits = bits, .storage = storage, .bsa = bsa};

    hsm_make_many(h, &o, 1, deadline_us);
    if (o.error == 0)
        *ret_issued = o.issued;
    return o.error;
}

int hsm_export(struct hsm *h, const struct hsm_export *in, int64_t deadline_us,
               struct hsm_blob *ret_data)
{
    struct hsm_order o = {
        .bits = in->bits, .storage = in->storage, .bsa = in->bsa, .stored = in->stored};

    assert(in->stored != NULL);
    hsm_make_many(h, &o, 1, deadline_us);
    if (o.error == 0)
        *ret_data = o.issued.data;
    return o.error;
}

/* A report for a call that never reached a worker. */
static void report_nothing(const struct protocol_describe *d, int r, struct hsm_kek_report *report)
{
    *report = (struct hsm_kek_report){.kek = {.use = d->use, .wrap = d->wrap}};
    memcpy(report->kek.label, d->label, sizeof(report->kek.label));
    strncat(report->text, tekd_strerror(r), sizeof(report->text) - 1);
}

int hsm_describe_kek(struct hsm *h, const char *label, enum hsm_kek_use use, enum hsm_wrap wrap,
                     int64_t deadline_us, struct hsm_kek_report *ret_report)
{
    struct pool_call c = {
        .request = {.verb = PROTOCOL_DESCRIBE, .describe = {.use = use, .wrap = wrap}},
        .reply = {.report = {.text = ""}}};
    size_t len = strlen(label);
    int r;

    if (len == 0 || len > HSM_LABEL_MAX) {
        report_nothing(&c.request.describe, TEKD_EINVAL, ret_report);
        return TEKD_EINVAL;
    }
    memcpy(c.request.describe.label, label, len + 1);
    r = pool_call(h, PROTOCOL_ROLE_KEY, &c, deadline_us);
    if (r < 0 && (c.reply.verb != PROTOCOL_DESCRIBE || c.reply.report.text[0] == 0))
        report_nothing(&c.request.describe, r, ret_report);
    else
        *ret_report = c.reply.report;
    return r;
}

int hsm_public_key(struct hsm *h, enum hsm_public which, int64_t deadline_us,
                   struct hsm_spki *ret_spki)
{
    const struct {
        enum protocol_role role;
        enum protocol_key key;
        const char *label; /* NULL: there is none */
    } keys[] = {
        [HSM_PUBLIC_CHECKPOINT] = {PROTOCOL_ROLE_AUDIT, PROTOCOL_KEY_MAIN, h->set.checkpoint_key},
        [HSM_PUBLIC_TLS] = {PROTOCOL_ROLE_TLS, PROTOCOL_KEY_MAIN, h->set.tls_key},
        [HSM_PUBLIC_ED25519] = {PROTOCOL_ROLE_AUDIT, PROTOCOL_KEY_ED25519, h->set.ed25519_key},
        [HSM_PUBLIC_CHECKPOINT_BEFORE] = {PROTOCOL_ROLE_AUDIT, PROTOCOL_KEY_BEFORE,
                                          h->set.checkpoint_key_before},
        [HSM_PUBLIC_ED25519_BEFORE] = {PROTOCOL_ROLE_AUDIT, PROTOCOL_KEY_ED25519_BEFORE,
                                       h->set.ed25519_key_before},
    };
    struct pool_call c = {.request = {.verb = PROTOCOL_PUBLIC_KEY}};
    int r;

    if (which < HSM_PUBLIC_CHECKPOINT || which >= ARRAY_SIZE(keys) || keys[which].label == NULL)
        return TEKD_EINVAL;
    c.request.key = keys[which].key;
    r = pool_call(h, keys[which].role, &c, deadline_us);
    if (r < 0)
        return r;
    *ret_spki = c.reply.spki;
    return 0;
}

int hsm_sign_checkpoint(struct hsm *h, const struct hsm_checkpoint *in, int64_t deadline_us,
                        struct note *ret_note)
{
    struct pool_call c;
    int r;

    if (in->n > HSM_LEAVES_MAX || h->line[PROTOCOL_ROLE_AUDIT].slots == 0)
        return TEKD_EINVAL;
    c.request.verb = PROTOCOL_SIGN_CHECKPOINT;
    c.request.checkpoint = (struct protocol_checkpoint){
        .last = *in->last, .range = *in->range, .n = in->n, .leaves = in->leaves};
    r = pool_call(h, PROTOCOL_ROLE_AUDIT, &c, deadline_us);
    if (r < 0)
        return r;
    *ret_note = c.reply.note;
    return 0;
}

int hsm_sign_tls(struct hsm *h, const uint8_t *digest, size_t len, int64_t deadline_us,
                 struct hsm_signature *ret_signature)
{
    struct pool_call c;
    int r;

    if (len == 0 || len > HSM_DIGEST_MAX || h->line[PROTOCOL_ROLE_TLS].slots == 0)
        return TEKD_EINVAL;
    c.request.verb = PROTOCOL_SIGN_TLS;
    c.request.digest.len = (uint8_t)len;
    memcpy(c.request.digest.octets, digest, len);
    r = pool_call(h, PROTOCOL_ROLE_TLS, &c, deadline_us);
    if (r < 0)
        return r;
    *ret_signature = c.reply.signature;
    return 0;
}

int hsm_health(struct hsm *h, const struct hsm_kek *storage, int64_t deadline_us)
{
    struct pool_call c;

    if (!kek_ok(storage, HSM_KEK_STORAGE))
        return TEKD_EINVAL;
    c.request.verb = PROTOCOL_HEALTH;
    c.request.health = *storage;
    return pool_call(h, PROTOCOL_ROLE_KEY, &c, deadline_us);
}

/* ---------------------------------------------------------------- state ------------ */

void hsm_status_get(struct hsm *h, struct hsm_status *ret_status)
{
    struct hsm_status *st = ret_status;

    *st = (struct hsm_status){0};
    (void)pthread_mutex_lock(&h->lock);
    st->state = h->state;
    memcpy(st->token_label, h->token.label, sizeof(st->token_label));
    memcpy(st->token_model, h->token.model, sizeof(st->token_model));
    memcpy(st->token_serial, h->token.serial, sizeof(st->token_serial));
    memcpy(st->reason, h->reason, sizeof(st->reason));
    st->error = h->error;
    st->prevents_wrap_out = h->token.prevents_wrap_out;
    st->n_workers = h->n_slots;
    for (size_t i = 0; i < h->n_slots; i++) {
        const struct slot *s = &h->slot[i];

        st->worker[i] = (struct hsm_worker_status){.role = protocol_role_name(s->role),
                                                   .pid = s->live.pid,
                                                   .ready = s->live.state == CONN_READY,
                                                   .calls = s->calls,
                                                   .failures = s->failures,
                                                   .restarts = s->starts > 0 ? s->starts - 1 : 0};
    }
    (void)pthread_mutex_unlock(&h->lock);
}

int hsm_wait(struct hsm *h, int64_t deadline_us)
{
    int r = 0;

    (void)pthread_mutex_lock(&h->lock);
    h->n_calls++;
    while (r == 0 && h->state == HSM_STARTING && !h->closing)
        r = pool_wait_locked(h, &h->changed, deadline_us);
    if (h->closing)
        r = TEKD_ECLOSED;
    if (--h->n_calls == 0)
        (void)pthread_cond_broadcast(&h->changed);
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

/* A pipe that holds the PIN and nothing else; a PIN is far smaller than what a pipe takes. */
static int pin_pipe(const struct secret *pin, int *ret_fd)
{
    AUTO_FD int in = -1;
    AUTO_FD int out = -1;
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0)
        return TEKD_EIO;
    in = pair[0];
    out = pair[1];
    if (write(out, secret_peek(pin), secret_len(pin)) != (ssize_t)secret_len(pin))
        return TEKD_EIO;
    *ret_fd = TAKE_FD(in);
    return 0;
}

int hsm_retry(struct hsm *h, const struct secret *pin)
{
    bool wanted = h->set.pin_source == HSM_PIN_FD || h->set.pin_source == HSM_PIN_PROMPT;
    int fd = -1;
    int r = 0;

    if (wanted != (pin != NULL))
        return TEKD_EINVAL;
    if (pin != NULL)
        r = pin_pipe(pin, &fd);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&h->lock);
    if (h->retry_fd >= 0)
        (void)close(h->retry_fd);
    h->retry_fd = fd;
    h->retry_pending = true;
    h->retry++;
    h->retry_open = true;
    h->pin_known = false;
    pool_forgive_locked(h);
    if (h->state != HSM_READY)
        h->state = HSM_STARTING;
    (void)pthread_mutex_unlock(&h->lock);
    pool_wake(h);
    return 0;
}

void hsm_on_state(struct hsm *h, void (*changed)(void *arg, enum hsm_state state), void *arg)
{
    (void)pthread_mutex_lock(&h->lock);
    h->on_state = changed;
    h->on_state_arg = arg;
    (void)pthread_mutex_unlock(&h->lock);
}

/* ---------------------------------------------------------------- life ------------- */

static int copy(const char *s, char **ret_copy)
{
    if (s == NULL)
        return 0;
    *ret_copy = strdup(s);
    return *ret_copy == NULL ? TEKD_ENOMEM : 0;
}

static int copy_env(const char *const *env, struct settings *s)
{
    size_t n = 0;

    while (env != NULL && env[n] != NULL)
        n++;
    if (n > CONTROL_ENV_MAX)
        return TEKD_ETOOBIG;
    s->env = calloc(n + 1, sizeof(*s->env));
    if (s->env == NULL)
        return TEKD_ENOMEM;
    for (; s->n_env < n; s->n_env++) {
        if (strchr(env[s->n_env], '=') == NULL)
            return TEKD_EINVAL;
        if (copy(env[s->n_env], &s->env[s->n_env]) < 0)
            return TEKD_ENOMEM;
    }
    return 0;
}

static int copy_strings(const struct hsm_options *o, struct settings *s)
{
    const struct {
        const char *from;
        char **to;
    } strings[] = {{o->module, &s->module},
                   {o->token, &s->token},
                   {o->profile, &s->profile},
                   {o->checkpoint_key, &s->checkpoint_key},
                   {o->ed25519_key, &s->ed25519_key},
                   {o->checkpoint_key_before, &s->checkpoint_key_before},
                   {o->ed25519_key_before, &s->ed25519_key_before},
                   {o->tls_worker ? o->tls_key : NULL, &s->tls_key},
                   {o->pin, &s->pin},
                   {o->latch_file, &s->latch_file}};

    for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
        if (copy(strings[i].from, strings[i].to) < 0)
            return TEKD_ENOMEM;
    }
    return copy_env(o->env, s);
}

static unsigned or_default(unsigned value, unsigned fallback)
{
    return value == 0 ? fallback : value;
}

static void copy_numbers(const struct hsm_options *o, struct settings *s)
{
    unsigned start_ms = (unsigned)o->timeout_ms * START_TIMEOUT_CALLS;

    s->pin_source = o->pin_source;
    s->recycle_after = o->recycle_after;
    s->restart_min_ms = or_default(o->restart_min_ms, DEFAULT_RESTART_MIN_MS);
    s->restart_max_ms = or_default(o->restart_max_ms, DEFAULT_RESTART_MAX_MS);
    s->keepalive_s = o->keepalive_s;
    s->start_timeout_ms = start_ms < START_TIMEOUT_MIN_MS ? START_TIMEOUT_MIN_MS : start_ms;
    s->log_format = o->log_format;
    s->log_level = o->log_level;
}

static void add_slots(struct hsm *h, enum protocol_role role, unsigned n, struct line line)
{
    h->line[role] = line;
    h->line[role].slots = n;
    for (unsigned i = 0; i < n; i++)
        h->slot[h->n_slots++].role = role;
}

/* The order is that of the first starts: one key worker proves the PIN. */
static void lay_out(struct hsm *h, const struct hsm_options *o)
{
    unsigned call_ms = (unsigned)o->timeout_ms;

    add_slots(h, PROTOCOL_ROLE_KEY, o->workers,
              (struct line){.timeout_ms = call_ms, .max_waiting = o->max_waiting});
    if (o->checkpoint_key != NULL)
        add_slots(h, PROTOCOL_ROLE_AUDIT, 1,
                  (struct line){.timeout_ms = or_default((unsigned)o->audit_timeout_ms, call_ms),
                                .max_waiting = AUDIT_WAITING});
    if (o->tls_worker)
        add_slots(h, PROTOCOL_ROLE_TLS, 1,
                  (struct line){.timeout_ms = or_default((unsigned)o->tls_timeout_ms, call_ms),
                                .max_waiting = or_default(o->tls_waiting, DEFAULT_TLS_WAITING)});
}

static bool timeout_ok(int ms, int min)
{
    return ms >= min && ms <= 60000;
}

static int check(const struct hsm_options *o)
{
    bool pin_named = o->pin_source == HSM_PIN_FILE || o->pin_source == HSM_PIN_CREDENTIAL;

    if (o->module == NULL || o->token == NULL || (pin_named && o->pin == NULL) ||
        (o->pin_source == HSM_PIN_FD && o->pin_fd < 0) || (o->tls_worker && o->tls_key == NULL) ||
        (o->ed25519_key != NULL && o->checkpoint_key == NULL) ||
        (o->checkpoint_key_before != NULL && o->checkpoint_key == NULL) ||
        (o->ed25519_key_before != NULL && o->ed25519_key == NULL))
        return TEKD_EINVAL;
    if (o->workers < 1 || o->workers > HSM_WORKERS_MAX || o->max_waiting > POOL_WAITING_MAX ||
        o->tls_waiting > POOL_WAITING_MAX)
        return TEKD_EINVAL;
    if (!timeout_ok(o->timeout_ms, 50) ||
        (o->audit_timeout_ms != 0 && !timeout_ok(o->audit_timeout_ms, 50)) ||
        (o->tls_timeout_ms != 0 && !timeout_ok(o->tls_timeout_ms, 50)))
        return TEKD_EINVAL;
    return 0;
}

static void settings_free(struct settings *s)
{
    free(s->program);
    free(s->module);
    free(s->token);
    free(s->profile);
    free(s->checkpoint_key);
    free(s->ed25519_key);
    free(s->checkpoint_key_before);
    free(s->ed25519_key_before);
    free(s->tls_key);
    free(s->pin);
    free(s->latch_file);
    for (size_t i = 0; i < s->n_env; i++)
        free(s->env[i]);
    free(s->env);
}

/* Everything but the thread. */
static int build(const struct hsm_options *o, struct hsm *h)
{
    int r = program_path(o->program, &h->set.program);

    if (r == 0)
        r = copy_strings(o, &h->set);
    if (r < 0)
        return r;
    copy_numbers(o, &h->set);
    lay_out(h, o);
    r = pool_init(h);
    if (r == 0)
        r = buf_new(CONTROL_MAX, &h->control_out);
    if (r < 0)
        return r;
    h->control_in = malloc(CONTROL_MAX);
    if (h->control_in == NULL)
        return TEKD_ENOMEM;
    h->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->wake < 0)
        return TEKD_EIO;
    if (o->pin_source == HSM_PIN_FD) {
        h->pin_fd = fcntl(o->pin_fd, F_DUPFD_CLOEXEC, CONTROL_FD + 1);
        if (h->pin_fd < 0)
            return TEKD_EINVAL;
    }
    return 0;
}

static int start_thread(struct hsm *h)
{
    int r;

    if (pthread_create(&h->thread, NULL, supervise_run, h) != 0)
        return TEKD_ENOMEM;
    h->threaded = true;
    (void)pthread_mutex_lock(&h->lock);
    while (!h->begun)
        (void)pthread_cond_wait(&h->changed, &h->lock);
    r = h->begin_error;
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

static struct hsm *hsm_alloc(void)
{
    pthread_condattr_t attr;
    struct hsm *h = calloc(1, sizeof(*h));

    if (h == NULL || pthread_condattr_init(&attr) != 0) {
        free(h);
        return NULL;
    }
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    h->wake = -1;
    h->pin_fd = -1;
    h->retry_fd = -1;
    h->program.control = -1;
    h->end_us = INT64_MAX;
    h->random = (uint64_t)clock_utc_us() | 1;
    return h;
}

int hsm_new(const struct hsm_options *o, struct hsm **ret_hsm)
{
    AUTO(hsm) struct hsm *h = NULL;
    int r = check(o);

    if (r < 0)
        return r;
    h = hsm_alloc();
    if (h == NULL)
        return TEKD_ENOMEM;
    r = build(o, h);
    if (r == 0)
        r = start_thread(h);
    if (r < 0)
        return r;
    *ret_hsm = TAKE(h);
    return 0;
}

void hsm_end_calls(struct hsm *h, int64_t at_us)
{
    (void)pthread_mutex_lock(&h->lock);
    if (at_us < h->end_us)
        h->end_us = at_us;
    (void)pthread_mutex_unlock(&h->lock);
    pool_wake(h);
}

static void close_calls(struct hsm *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->closing = true;
    pool_close_calls_locked(h);
    (void)pthread_cond_broadcast(&h->changed);
    while (h->n_calls > 0)
        (void)pthread_cond_wait(&h->changed, &h->lock);
    (void)pthread_mutex_unlock(&h->lock);
}

void hsm_free(struct hsm *h)
{
    if (h == NULL)
        return;
    if (h->threaded) {
        close_calls(h);
        pool_wake(h);
        (void)pthread_join(h->thread, NULL);
    }
    pool_destroy(h);
    settings_free(&h->set);
    buf_free(h->control_out);
    free(h->control_in);
    if (h->wake >= 0)
        (void)close(h->wake);
    if (h->pin_fd >= 0)
        (void)close(h->pin_fd);
    if (h->retry_fd >= 0)
        (void)close(h->retry_fd);
    (void)pthread_cond_destroy(&h->changed);
    (void)pthread_mutex_destroy(&h->lock);
    free(h);
}
