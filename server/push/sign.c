/*
 * Signatures of the push client's handshakes with a key in the HSM.  The HSM may take long, or hang
 * to its time-out, and curl's thread must not: a BSA whose connection is open is served meanwhile.
 *
 * So the handshake of such a connection runs as an asynchronous job of OpenSSL (SSL_MODE_ASYNC), on
 * a stack of its own.  When OpenSSL asks the key to sign, the digest goes to "push-sign" and the
 * job pauses; SSL_connect() says SSL_ERROR_WANT_ASYNC, with which curl goes on to other transfers.
 * "push-sign" wakes "push" when the signature is there, and curl calls SSL_connect() again.
 *
 * A paused job cannot be taken back: a transfer is not given up while its conn is_signing, and
 * "push-sign" answers every job, at the latest when the HSM's own time-out has passed.
 *
 * Sanitizers do not follow from one stack to another; built with one the signature blocks "push".
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* EC_KEY_METHOD: a provider takes ten times the code */

#include "internal.h"

#include <openssl/async.h>
#include <openssl/ec.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/queue.h"

#define SIGNATURE_MAX 144 /* DER of ECDSA P-384, with room */
#define DIGEST_MAX    64

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAN_PAUSE false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CAN_PAUSE false
#endif
#endif
#ifndef CAN_PAUSE
#define CAN_PAUSE true
#endif

struct signing {
    struct push *push;
    int (*sign)(void *arg, const uint8_t *digest, size_t len, uint8_t *out, size_t *inout_len);
    void *arg;
    struct queue *queue;
    pthread_t thread;
    bool started;
};

/* One signature; on the stack of the job that waits for it. */
struct sign_job {
    int64_t by_us; /* mono: too late after that */
    size_t digest_len, len;
    uint8_t digest[DIGEST_MAX];
    uint8_t out[SIGNATURE_MAX];
    int result;
    _Atomic bool done;
};

bool signing_is_apart(void)
{
    return CAN_PAUSE && ASYNC_is_capable();
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void sign(struct signing *s, struct sign_job *job)
{
    job->len = sizeof(job->out);
    if (clock_mono_us() >= job->by_us)
        job->result = TEKD_ETIMEDOUT;
    else
        job->result = s->sign(s->arg, job->digest, job->digest_len, job->out, &job->len);
}

static void *run(void *arg)
{
    struct signing *s = arg;
    void *entry;

    (void)pthread_setname_np(pthread_self(), "push-sign");
    while (queue_pop(s->queue, INT64_MAX, &entry) == 0) {
        struct sign_job *job = entry;

        sign(s, job);
        atomic_store(&job->done, true); /* it may be gone from here on */
        push_wake(s->push);
    }
    return NULL;
}

int signing_new(struct push *p, const struct push_options *o, struct signing **ret_signing)
{
    struct signing *s = calloc(1, sizeof(*s));
    int r = s ? queue_new(PUSH_TOTAL_MAX, &s->queue) : TEKD_ENOMEM;

    if (r == 0) {
        s->push = p;
        s->sign = o->signer.sign;
        s->arg = o->signer.arg;
        r = pthread_create(&s->thread, NULL, run, s) == 0 ? 0 : TEKD_ENOMEM;
        s->started = r == 0;
    }
    if (r < 0) {
        signing_free(s);
        return r;
    }
    *ret_signing = s;
    return 0;
}

void signing_free(struct signing *s)
{
    if (!s)
        return;
    if (s->queue)
        queue_close(s->queue);
    if (s->started)
        (void)pthread_join(s->thread, NULL);
    queue_free(s->queue);
    free(s);
}

/* ---- the key --------------------------------------------------------------------------------- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EC_KEY_METHOD *method;
static int conn_index = -1;

/* On the stack of the handshake's job. */
static void sign_apart(struct signing *s, struct conn *c, struct sign_job *job)
{
    if (queue_push(s->queue, job) < 0) {
        job->result = TEKD_EAGAIN;
        return;
    }
    c->is_signing = true;
    while (!atomic_load(&job->done))
        (void)ASYNC_pause_job();
    c->is_signing = false;
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are OpenSSL's */
static int remote_sign(int type, const unsigned char *digest, int len, unsigned char *sig,
                       unsigned int *sig_len, const BIGNUM *kinv, const BIGNUM *rp, EC_KEY *key)
{
    struct conn *c = EC_KEY_get_ex_data(key, conn_index);
    struct signing *s = c->target->push->signing;
    struct sign_job job = {.by_us = c->sign_by_us, .digest_len = (size_t)len};

    (void)type;
    (void)kinv;
    (void)rp;
    if (len < 0 || len > DIGEST_MAX)
        return 0;
    memcpy(job.digest, digest, (size_t)len);
    if (ASYNC_get_current_job())
        sign_apart(s, c, &job);
    else
        sign(s, &job);
    c->sign_failed = job.result < 0 || job.len > (size_t)ECDSA_size(key);
    if (c->sign_failed)
        return 0;
    memcpy(sig, job.out, job.len);
    *sig_len = (unsigned)job.len;
    return 1;
}

static void make_method(void)
{
    method = EC_KEY_METHOD_new(EC_KEY_OpenSSL());
    conn_index = EC_KEY_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (method)
        EC_KEY_METHOD_set_sign(method, remote_sign, NULL, NULL);
}

int signing_key(X509 *certificate, struct conn *c, EVP_PKEY **ret_key)
{
    const EC_KEY *public = EVP_PKEY_get0_EC_KEY(X509_get0_pubkey(certificate));
    EC_KEY *ec = public ? EC_KEY_dup(public) : NULL;
    EVP_PKEY *key = EVP_PKEY_new();
    int ok;

    (void)pthread_once(&once, make_method);
    ok = ec && key && method && conn_index >= 0 && EC_KEY_set_method(ec, method) == 1 &&
         EC_KEY_set_ex_data(ec, conn_index, c) == 1 && EVP_PKEY_set1_EC_KEY(key, ec) == 1;
    EC_KEY_free(ec);
    if (!ok) {
        EVP_PKEY_free(key);
        log_event(LOG_ERROR, "tls", "key-in-hsm-unusable",
                  LOG_STR("expected", "an EC P-256 or P-384 key"));
        return TEKD_EINVAL;
    }
    *ret_key = key;
    return 0;
}
