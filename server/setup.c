#include "tekd.h"

#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/secret.h"

#define MEGABYTE           1048576u
#define THREADS_PER_WORKER 2      /* one prepares a call while the other's is served */
#define LOOK_US            200000 /* a SIGTERM is noticed so often while the HSM is waited for */

static int failed(const char *part, int r)
{
    log_event(LOG_ERROR, "start", "failed", LOG_STR("part", part),
              LOG_STR("error", tekd_strerror(r)));
    return r;
}

/* ---- HSM ------------------------------------------------------------------------------------- */

/* NAME=value strings of the configuration; freed by env_free(). */
static void env_free(char **env)
{
    for (size_t i = 0; env[i]; i++)
        free(env[i]);
}

static int env_make(const struct config_hsm *c, char *env[static CONFIG_ENV_MAX + 1])
{
    for (size_t i = 0; i < c->env_count; i++) {
        if (asprintf(&env[i], "%s=%s", c->env[i].name, c->env[i].value) < 0) {
            env[i] = NULL;
            return TEKD_ENOMEM;
        }
    }
    return 0;
}

static const enum hsm_pin_source pin_sources[] = {[CONFIG_PIN_FILE] = HSM_PIN_FILE,
                                                  [CONFIG_PIN_CREDENTIAL] = HSM_PIN_CREDENTIAL,
                                                  [CONFIG_PIN_FD] = HSM_PIN_FD,
                                                  [CONFIG_PIN_PROMPT] = HSM_PIN_PROMPT};

static int latch_path(const struct config *c, char **ret_path)
{
    return asprintf(ret_path, "%s.pin-refused", c->store.sqlite) < 0 ? TEKD_ENOMEM : 0;
}

static void on_hsm_state(void *arg, enum hsm_state state)
{
    struct tekd *t = arg;

    (void)state;
    atomic_store(&t->hsm_changed, true);
}

bool setup_stop_asked(void)
{
    sigset_t pending;

    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

/* Until the token answers or is known not to; a start with a hung module can be stopped. */
static void wait_for_hsm(struct tekd *t)
{
    int64_t give_up = clock_mono_us() + TEKD_HSM_START_US;
    int64_t now;

    while ((now = clock_mono_us()) < give_up && !setup_stop_asked() &&
           hsm_wait(t->hsm, now + LOOK_US) == TEKD_ETIMEDOUT)
        ;
}

static int start_hsm(struct tekd *t, const char *const *env, const char *latch)
{
    const struct config_hsm *c = &t->config->hsm;
    const struct hsm_options o = {
        .program = c->program,
        .module = c->module,
        .env = env,
        .token = c->token,
        .profile = c->profile,
        .pin_source = pin_sources[c->pin],
        .pin = c->pin == CONFIG_PIN_CREDENTIAL ? c->pin_credential : c->pin_file,
        .pin_fd = (int)c->pin_fd,
        .latch_file = latch,
        .workers = c->workers,
        .tls_worker = t->config->tls.key_in_hsm,
        .checkpoint_key = c->checkpoint_key,
        .ed25519_key = c->checkpoint_ed25519_key,
        .checkpoint_key_before = c->checkpoint_key_before,
        .ed25519_key_before = c->checkpoint_ed25519_key_before,
        .tls_key = t->config->tls.key_in_hsm ? t->config->tls.key : NULL,
        .timeout_ms = (int)c->timeout_ms,
        .recycle_after = c->recycle_after,
        .max_waiting = t->config->limits.request_threads,
        .tls_timeout_ms = (int)c->tls_timeout_ms,
        .keepalive_s = c->keepalive_s,
        .log_format = t->config->log.format,
        .log_level = t->config->log.level,
    };
    int r = hsm_new(&o, &t->hsm);

    if (r < 0)
        return r;
    hsm_on_state(t->hsm, on_hsm_state, t);
    wait_for_hsm(t);
    return 0;
}

int setup_hsm(struct tekd *t)
{
    char *env[CONFIG_ENV_MAX + 1] = {NULL};
    AUTO_MEM char *latch = NULL;
    int r = env_make(&t->config->hsm, env);

    if (r == 0)
        r = latch_path(t->config, &latch);
    if (r == 0)
        r = start_hsm(t, (const char *const *)env, latch);
    env_free(env);
    return r < 0 ? failed("hsm", r) : 0;
}

/* ---- store ----------------------------------------------------------------------------------- */

static int sign_public_key(void *arg, enum store_key which, int64_t deadline_us,
                           struct hsm_spki *ret_spki)
{
    static const enum hsm_public names[STORE_KEYS] = {
        [STORE_KEY_MAIN] = HSM_PUBLIC_CHECKPOINT,
        [STORE_KEY_ED25519] = HSM_PUBLIC_ED25519,
        [STORE_KEY_BEFORE] = HSM_PUBLIC_CHECKPOINT_BEFORE,
        [STORE_KEY_ED25519_BEFORE] = HSM_PUBLIC_ED25519_BEFORE,
    };

    return hsm_public_key(arg, names[which], deadline_us, ret_spki);
}

static int sign_checkpoint(void *arg, const struct hsm_checkpoint *in, int64_t deadline_us,
                           struct note *ret_note)
{
    return hsm_sign_checkpoint(arg, in, deadline_us, ret_note);
}

/* The keys that sign besides the first. */
static unsigned signing_keys(const struct config_hsm *c)
{
    return (c->checkpoint_ed25519_key ? 1U << STORE_KEY_ED25519 : 0) |
           (c->checkpoint_key_before ? 1U << STORE_KEY_BEFORE : 0) |
           (c->checkpoint_ed25519_key_before ? 1U << STORE_KEY_ED25519_BEFORE : 0);
}

static void on_fatal(void *arg, int error)
{
    struct tekd *t = arg;

    atomic_store(&t->fatal, error);
    (void)kill(getpid(), SIGUSR1); /* the main thread waits for signals */
}

int setup_store(struct tekd *t)
{
    const struct config *c = t->config;
    const uint32_t given = c->limits.free_warn_mb;
    struct store_options o = {
        .path = c->store.sqlite,
        .bsm_id = c->bsm_id,
        .instance = c->audit.instance,
        .version = TEKD_VERSION,
        .release = c->audit.release == CONFIG_RELEASE_DURABLE ? STORE_RELEASE_DURABLE
                                                              : STORE_RELEASE_SIGNED,
        .checkpoint_max_delay_ms = (int)c->audit.checkpoint_max_delay_ms,
        .heartbeat_s = (int)c->audit.heartbeat_s,
        .epoch_records = c->audit.epoch_records,
        .anchor_file = c->audit.anchor_file,
        .anchor_interval_s = (int)c->audit.anchor_interval_s,
        .free_warn = (uint64_t)(given ? given : CONFIG_FREE_WARN_MB) * MEGABYTE,
        .free_warn_percent = given ? 0 : CONFIG_FREE_WARN_PERCENT,
        .free_stop = (uint64_t)c->limits.free_stop_mb * MEGABYTE,
        .message_window_us = (int64_t)c->policy.message_window_s * 1000000,
        .signer = {.arg = t->hsm,
                   .keys = signing_keys(&c->hsm),
                   .public_key = sign_public_key,
                   .sign = sign_checkpoint},
        .fatal = on_fatal,
        .fatal_arg = t,
    };
    int r;

    memcpy(o.config_sha256, c->sha256, sizeof(o.config_sha256));
    r = store_open(&o, &t->store);
    return r < 0 ? failed("store", r) : 0;
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* At most half of the threads wait for the HSM: who needs none of it always finds one. */
static unsigned threads_at_hsm(const struct config *c)
{
    unsigned half = c->limits.request_threads / 2;
    unsigned wanted = c->hsm.workers * THREADS_PER_WORKER;

    return wanted < half ? wanted : half;
}

int setup_keys(struct tekd *t)
{
    const struct config *c = t->config;
    const struct keys_options o = {
        .bsm_id = c->bsm_id,
        .store = t->store,
        .hsm = t->hsm,
        .storage_kek = c->hsm.storage_kek,
        .auto_content = c->policy.auto_content,
        .auto_bits = KEYS_BITS_DEFAULT,
        .refusal_http = c->policy.refusal_http == CONFIG_REFUSAL_MAPPED ? KEYS_REFUSAL_MAPPED
                                                                        : KEYS_REFUSAL_200,
        .per_bsa_concurrency = c->limits.per_bsa_concurrency,
        .per_bsa_auto_contents = c->limits.per_bsa_auto_contents,
        .hsm_inside = threads_at_hsm(c),
        .hsm_waiting = c->limits.queue,
    };
    int r = keys_new(&o, clock_mono_us() + KEYS_HSM_US, &t->keys);

    return r < 0 ? failed("keys", r) : 0;
}

/* ---- publication ----------------------------------------------------------------------------- */

int setup_publish(struct tekd *t)
{
    const struct config_audit *c = &t->config->audit;
    const struct publish_options o = {
        .store = t->store,
        .interval_s = c->anchor_interval_s,
        .syslog = {.socket = c->syslog.socket, .facility = c->syslog.facility},
        .dir = c->published_dir,
        .timestamp = {.url = c->timestamp.url,
                      .tsa_ca = c->timestamp.tsa_ca,
                      .tls_ca = c->timestamp.tls_ca},
        .witness = {.url = c->witness.url,
                    .key = c->witness.key,
                    .tls_ca = c->witness.tls_ca,
                    .certificate = c->witness.certificate,
                    .private_key = c->witness.private_key},
    };
    int r = publish_start(&o, &t->publish);

    return r < 0 ? failed("publish", r) : 0;
}

/* ---- push ------------------------------------------------------------------------------------ */

/*
 * A worker has tls_timeout_ms, and if it is lost or hangs there is as much again, for its successor
 * and the repeat.  A handshake has no use for more than its own limit.
 */
static int64_t tls_deadline_us(const struct config_hsm *c)
{
    int64_t ms = 2 * (int64_t)c->tls_timeout_ms;

    return clock_mono_us() + (ms < HTTP_HANDSHAKE_MS ? ms : HTTP_HANDSHAKE_MS) * 1000;
}

static int tls_sign(void *arg, const uint8_t *digest, size_t len, uint8_t *out, size_t *inout_len)
{
    struct tekd *t = arg;
    struct hsm_signature sig;
    int r = hsm_sign_tls(t->hsm, digest, len, tls_deadline_us(&t->config->hsm), &sig);

    if (r < 0)
        return r;
    if (sig.len > *inout_len)
        return TEKD_ETOOBIG;
    memcpy(out, sig.octets, sig.len);
    *inout_len = sig.len;
    return 0;
}

/* Who is pushed to sees the certificate that the server has. */
int setup_push(struct tekd *t)
{
    const struct config *c = t->config;
    const struct push_options o = {
        .keys = t->keys,
        .store = t->store,
        .certificate = c->tls.certificate,
        .key_file = c->tls.key_in_hsm ? NULL : c->tls.key,
        .signer = {.sign = tls_sign, .arg = t},
        .ca = c->tls.client_ca,
        .crl = c->tls.crl,
        .retry_initial_s = c->push.retry_initial_s,
        .retry_max_s = c->push.retry_max_s,
        .attempt_timeout_s = c->push.attempt_timeout_s,
        .deadline_s = c->push.deadline_s,
    };
    int r = push_start(&o, &t->push);

    return r < 0 ? failed("push", r) : 0;
}

/* ---- request threads ------------------------------------------------------------------------- */

int setup_front(struct tekd *t)
{
    const struct config_limits *c = &t->config->limits;
    const struct front_options o = {
        .keys = t->keys, .push = t->push, .threads = c->request_threads, .queue = c->queue};
    int r = front_start(&o, &t->front);

    return r < 0 ? failed("front", r) : 0;
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

/* The public key that the certificate names; the HSM need not answer for that. */
static int certificate_spki(const char *path, unsigned char **ret_der, size_t *ret_len)
{
    FILE *f = fopen(path, "re");
    X509 *x = f ? PEM_read_X509(f, NULL, secret_no_passphrase, NULL) : NULL;
    int len = x ? i2d_PUBKEY(X509_get0_pubkey(x), ret_der) : -1;

    X509_free(x);
    if (f)
        (void)fclose(f);
    if (len <= 0) {
        log_event(LOG_ERROR, "tls", "certificate-not-read", LOG_STR("file", path));
        return TEKD_EINVAL;
    }
    *ret_len = (size_t)len;
    return 0;
}

static void on_tls_refused(void *arg, const char *cause, const char *addr)
{
    keys_tls_refused(((struct tekd *)arg)->keys, cause, addr);
}

/* The signer's key is the one that the certificate names; whether the HSM's is the same is seen
 * once it answers. */
static int tls_files(struct tekd *t, struct http_signer *signer, struct http_files *ret_files)
{
    const struct config_tls *c = &t->config->tls;
    int r = 0;

    *signer = (struct http_signer){.sign = tls_sign, .arg = t};
    *ret_files = (struct http_files){.certificate = c->certificate,
                                     .key_file = c->key_in_hsm ? NULL : c->key,
                                     .signer = c->key_in_hsm ? signer : NULL,
                                     .client_ca = c->client_ca,
                                     .crl = c->crl};
    if (c->key_in_hsm)
        r = certificate_spki(c->certificate, &t->tls_spki, &t->tls_spki_len);
    signer->spki = t->tls_spki;
    signer->spki_len = t->tls_spki_len;
    return r;
}

static int start_http(struct tekd *t, const struct http_files *files)
{
    const struct config *c = t->config;
    struct http_listen listen[CONFIG_LISTEN_MAX];
    const struct http_options o = {
        .listen = listen,
        .n_listen = c->listen_count,
        .files = *files,
        .loops = c->limits.http_threads,
        .connections = c->limits.connections,
        .request_timeout_ms = (int)c->limits.request_timeout_ms,
        .request_deadline_ms = (int)c->limits.request_deadline_ms,
        .routes = front_routes(t->front),
        .n_routes = FRONT_ROUTES,
        .admits = front_admits,
        .admits_arg = t->front,
        .refused = on_tls_refused,
        .refused_arg = t,
    };

    for (size_t i = 0; i < c->listen_count; i++)
        listen[i] = (struct http_listen){.address = c->listen[i].address,
                                         .port = (uint16_t)c->listen[i].port};
    return http_start(&o, &t->http);
}

int setup_http(struct tekd *t)
{
    struct http_signer signer;
    struct http_files files;
    int r = tls_files(t, &signer, &files);

    reload_begin(t);
    if (r == 0)
        r = start_http(t, &files);
    return r < 0 ? failed("http", r) : 0;
}

int setup_check_tls(struct tekd *t, struct http_ends *ret_ends)
{
    struct http_signer signer;
    struct http_files files;
    int r = tls_files(t, &signer, &files);

    return r < 0 ? r : http_check(&files, ret_ends);
}

static EVP_PKEY *read_spki(const uint8_t *der, size_t len)
{
    return d2i_PUBKEY(NULL, &der, (long)len);
}

int setup_tls_key_fits(struct tekd *t, bool *ret_fits)
{
    EVP_PKEY *certificate, *key;
    struct hsm_spki spki;
    int r = hsm_public_key(t->hsm, HSM_PUBLIC_TLS, clock_mono_us() + KEYS_HSM_US, &spki);

    if (r < 0)
        return r;
    certificate = read_spki(t->tls_spki, t->tls_spki_len);
    key = read_spki(spki.der, spki.len);
    *ret_fits = certificate && key && EVP_PKEY_eq(certificate, key) == 1;
    EVP_PKEY_free(certificate);
    EVP_PKEY_free(key);
    return 0;
}

int setup_probe(struct tekd *t)
{
    const struct config_admin *c = &t->config->admin;
    const struct http_plain_options o = {
        .listen = {.address = c->http_address, .port = (uint16_t)c->http_port},
        .get = probe_get,
        .arg = t};
    int r;

    if (!c->http)
        return 0;
    r = http_plain_start(&o, &t->probe);
    return r < 0 ? failed("admin http", r) : 0;
}

int setup_admin(struct tekd *t)
{
    const struct config *c = t->config;
    const struct admin_options o = {
        .socket = c->admin.socket,
        .group = c->admin.group,
        .readonly_group = c->admin.readonly_group,
        .version = TEKD_VERSION,
        .bsm_id = c->bsm_id,
        .instance = c->audit.instance,
        .default_bits = KEYS_BITS_DEFAULT,
        .delivery_deadline_s = c->push.deadline_s,
        .keys = t->keys,
        .store = t->store,
        .hsm = t->hsm,
        .http = t->http,
        .push = t->push,
        .publish = t->publish,
        .ready = probe_ready,
        .ready_arg = t,
    };
    int r = admin_start(&o, &t->admin);

    return r < 0 ? failed("admin socket", r) : 0;
}

/*
 * Reverse order: first nobody may come any more, the log is closed when nothing can add to it.  The
 * push service ends its polls, for which HTTP would wait, and is there as long as anybody may call.
 *
 * All of it takes 10 s at most.  No part waits longer for the HSM than to the end of its calls,
 * nor for a peer than to the cut: what comes behind those two joins threads that have nothing to
 * wait for.  The store and the HSM's processes have their own limits, and the rest of the time.
 */
void setup_undo(struct tekd *t)
{
    const int64_t now = clock_mono_us();

    if (t->hsm)
        hsm_end_calls(t->hsm, now + TEKD_STOP_HSM_US);
    http_drain(t->http, now + TEKD_STOP_CUT_US);
    admin_stop(t->admin);
    http_plain_stop(t->probe);
    if (t->push)
        push_stop(t->push, now + TEKD_STOP_CUT_US);
    http_stop(t->http);
    front_stop(t->front);
    if (t->keys)
        keys_flush(t->keys);
    publish_stop(t->publish);
    if (t->store)
        store_close(t->store);
    push_free(t->push);
    keys_free(t->keys);
    hsm_free(t->hsm);
    OPENSSL_free(t->tls_spki);
    config_free(t->config);
}
