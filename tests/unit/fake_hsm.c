#include "fake_hsm.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/secret.h"

#define KEKS_MAX 64

struct kek {
    char label[HSM_LABEL_MAX + 1];
    enum hsm_wrap wrap;
    uint8_t aes[32];
    EVP_PKEY *rsa;
    uint8_t id[2];
    int blamed, broken;
};

struct call {
    bool held;
    int error;
    unsigned waiting, made, worked;
};

struct hsm {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct kek kek[KEKS_MAX];
    size_t n_keks;
    uint8_t next_id;
    size_t n_rsa; /* how many RSA keys were made */
    struct call call[FAKE_CALLS];
    enum hsm_state state;
    char reason[HSM_TEXT_MAX];
    unsigned retries;
};

static void need(int ok)
{
    assert(ok);
    if (!ok)
        abort();
}

struct hsm *fake_hsm_new(void)
{
    struct hsm *h = calloc(1, sizeof(*h));

    need(h != NULL);
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->changed, NULL);
    h->state = HSM_READY;
    return h;
}

void fake_hsm_free(struct hsm *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < h->n_keks; i++)
        EVP_PKEY_free(h->kek[i].rsa);
    (void)pthread_cond_destroy(&h->changed);
    (void)pthread_mutex_destroy(&h->lock);
    free(h);
}

/* ---- KEKs ------------------------------------------------------------------------------------ */

static bool is_rsa(enum hsm_wrap wrap)
{
    return wrap == HSM_WRAP_OAEP_SHA1 || wrap == HSM_WRAP_OAEP_SHA256;
}

/* The n-th RSA key of an HSM, the same of each HSM of the process: they take long to make. */
static EVP_PKEY *rsa_key(size_t n)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static EVP_PKEY *made[KEKS_MAX];

    need(n < KEKS_MAX);
    (void)pthread_mutex_lock(&lock);
    if (!made[n])
        made[n] = EVP_RSA_gen(2048);
    need(made[n] && EVP_PKEY_up_ref(made[n]) == 1);
    (void)pthread_mutex_unlock(&lock);
    return made[n];
}

static void make_key_locked(struct hsm *h, struct kek *k)
{
    EVP_PKEY_free(k->rsa);
    k->rsa = NULL;
    need(RAND_bytes(k->aes, sizeof(k->aes)) == 1);
    if (is_rsa(k->wrap))
        k->rsa = rsa_key(h->n_rsa++);
    k->id[0] = 0x10;
    k->id[1] = h->next_id++;
}

static struct kek *find_locked(struct hsm *h, const char *label)
{
    for (size_t i = 0; i < h->n_keks; i++)
        if (strcmp(h->kek[i].label, label) == 0)
            return &h->kek[i];
    return NULL;
}

void fake_hsm_add(struct hsm *h, const char *label, enum hsm_wrap wrap)
{
    struct kek *k;

    (void)pthread_mutex_lock(&h->lock);
    need(h->n_keks < KEKS_MAX && !find_locked(h, label));
    k = &h->kek[h->n_keks++];
    *k = (struct kek){.wrap = wrap};
    (void)snprintf(k->label, sizeof(k->label), "%s", label);
    make_key_locked(h, k);
    (void)pthread_mutex_unlock(&h->lock);
}

void fake_hsm_replace(struct hsm *h, const char *label)
{
    (void)pthread_mutex_lock(&h->lock);
    make_key_locked(h, find_locked(h, label));
    (void)pthread_mutex_unlock(&h->lock);
}

void fake_hsm_remove(struct hsm *h, const char *label)
{
    struct kek *k;

    (void)pthread_mutex_lock(&h->lock);
    k = find_locked(h, label);
    EVP_PKEY_free(k->rsa);
    *k = h->kek[--h->n_keks];
    (void)pthread_mutex_unlock(&h->lock);
}

void fake_hsm_blame(struct hsm *h, const char *label, int error)
{
    (void)pthread_mutex_lock(&h->lock);
    find_locked(h, label)->blamed = error;
    (void)pthread_mutex_unlock(&h->lock);
}

void fake_hsm_break(struct hsm *h, const char *label, int error)
{
    (void)pthread_mutex_lock(&h->lock);
    find_locked(h, label)->broken = error;
    (void)pthread_mutex_unlock(&h->lock);
}

/* ---- wrapping -------------------------------------------------------------------------------- */

static int wrap_aes(const struct kek *k, bool encrypt, const uint8_t *in, size_t len, uint8_t *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    const EVP_CIPHER *cipher =
        k->wrap == HSM_WRAP_AES_KWP ? EVP_aes_256_wrap_pad() : EVP_aes_256_wrap();
    int n = 0, last = 0;

    need(ctx != NULL);
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    need(EVP_CipherInit_ex(ctx, cipher, NULL, k->aes, NULL, encrypt) == 1);
    if (EVP_CipherUpdate(ctx, out, &n, in, (int)len) != 1 ||
        EVP_CipherFinal_ex(ctx, out + n, &last) != 1)
        n = last = 0;
    EVP_CIPHER_CTX_free(ctx);
    return n + last;
}

static int wrap_rsa(const struct kek *k, bool encrypt, const uint8_t *in, size_t len, uint8_t *out)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(k->rsa, NULL);
    const EVP_MD *md = k->wrap == HSM_WRAP_OAEP_SHA1 ? EVP_sha1() : EVP_sha256();
    size_t n = HSM_WRAPPED_MAX;
    int ok;

    need(ctx && (encrypt ? EVP_PKEY_encrypt_init(ctx) : EVP_PKEY_decrypt_init(ctx)) == 1);
    need(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1);
    need(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) == 1 && EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) == 1);
    ok =
        encrypt ? EVP_PKEY_encrypt(ctx, out, &n, in, len) : EVP_PKEY_decrypt(ctx, out, &n, in, len);
    EVP_PKEY_CTX_free(ctx);
    return ok == 1 ? (int)n : 0;
}

static int wrap(const struct kek *k, bool encrypt, const uint8_t *in, size_t len, uint8_t *out)
{
    return k->rsa ? wrap_rsa(k, encrypt, in, len, out) : wrap_aes(k, encrypt, in, len, out);
}

static void fingerprint(const struct kek *k, uint8_t out[static 32])
{
    static const uint8_t constant[16] = "published const";
    uint8_t wrapped[HSM_WRAPPED_MAX];
    unsigned char *der = NULL;
    int n;

    if (k->rsa) {
        n = i2d_PUBKEY(k->rsa, &der);
        need(n > 0);
        SHA256(der, (size_t)n, out);
        OPENSSL_free(der);
        return;
    }
    n = wrap(k, true, constant, sizeof(constant), wrapped);
    SHA256(wrapped, (size_t)n, out);
}

/* The key that this binding means, or the error. */
static int bound_locked(struct hsm *h, const struct hsm_kek *binding, const struct kek **ret_kek)
{
    const struct kek *k = find_locked(h, binding->label);
    uint8_t fp[32];

    if (!k)
        return TEKD_ENOTFOUND;
    fingerprint(k, fp);
    if (memcmp(fp, binding->fingerprint, sizeof(fp)) != 0 || binding->wrap != k->wrap ||
        binding->id_len != sizeof(k->id) || memcmp(binding->id, k->id, sizeof(k->id)) != 0)
        return TEKD_ENOTFOUND;
    *ret_kek = k;
    return 0;
}

size_t fake_hsm_unwrap(struct hsm *h, const char *label, const uint8_t *data, size_t len,
                       uint8_t ret_tek[static FAKE_TEK_MAX])
{
    uint8_t clear[HSM_WRAPPED_MAX];
    int n;

    (void)pthread_mutex_lock(&h->lock);
    n = wrap(find_locked(h, label), false, data, len, clear);
    (void)pthread_mutex_unlock(&h->lock);
    need(n <= FAKE_TEK_MAX);
    memcpy(ret_tek, clear, (size_t)n);
    return (size_t)n;
}

/* ---- the calls ------------------------------------------------------------------------------- */

void fake_hsm_fail(struct hsm *h, enum fake_call call, int error)
{
    (void)pthread_mutex_lock(&h->lock);
    h->call[call].error = error;
    (void)pthread_mutex_unlock(&h->lock);
}

void fake_hsm_hold(struct hsm *h, enum fake_call call, bool held)
{
    (void)pthread_mutex_lock(&h->lock);
    h->call[call].held = held;
    (void)pthread_cond_broadcast(&h->changed);
    (void)pthread_mutex_unlock(&h->lock);
}

void fake_hsm_wait_held(struct hsm *h, enum fake_call call, unsigned n)
{
    (void)pthread_mutex_lock(&h->lock);
    while (h->call[call].waiting < n)
        (void)pthread_cond_wait(&h->changed, &h->lock);
    (void)pthread_mutex_unlock(&h->lock);
}

unsigned fake_hsm_made(struct hsm *h, enum fake_call call)
{
    unsigned n;

    (void)pthread_mutex_lock(&h->lock);
    n = h->call[call].made;
    (void)pthread_mutex_unlock(&h->lock);
    return n;
}

unsigned fake_hsm_worked(struct hsm *h, enum fake_call call)
{
    unsigned n;

    (void)pthread_mutex_lock(&h->lock);
    n = h->call[call].worked;
    (void)pthread_mutex_unlock(&h->lock);
    return n;
}

/* Until it is released; the deadline is of the monotonic clock, the wait of any that is near. */
static int wait_locked(struct hsm *h, struct call *c, int64_t deadline_us)
{
    c->waiting++;
    (void)pthread_cond_broadcast(&h->changed);
    while (c->held && clock_mono_us() < deadline_us) {
        struct timespec until;

        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 20000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&h->changed, &h->lock, &until);
    }
    c->waiting--;
    return c->held ? TEKD_ETIMEDOUT : 0;
}

static int begin_locked(struct hsm *h, enum fake_call call, int64_t deadline_us)
{
    struct call *c = &h->call[call];
    int r = 0;

    c->made++;
    if (c->held)
        r = wait_locked(h, c, deadline_us);
    if (r == 0)
        r = c->error;
    if (r == 0)
        c->worked++;
    return r;
}

static int issue_locked(struct hsm *h, unsigned bits, const struct hsm_kek *storage,
                        const struct hsm_kek *bsa, struct hsm_issued *out)
{
    const struct kek *s, *b = NULL;
    uint8_t tek[FAKE_TEK_MAX];
    int r = bound_locked(h, storage, &s);

    if (r == 0 && bsa)
        r = bound_locked(h, bsa, &b);
    if (r < 0)
        return r;
    need(bits == 128 || bits == 192 || bits == 256);
    need(RAND_bytes(tek, (int)bits / 8) == 1);
    out->stored.len = (uint16_t)wrap(s, true, tek, bits / 8, out->stored.octets);
    out->data.len = b ? (uint16_t)wrap(b, true, tek, bits / 8, out->data.octets) : 0;
    return 0;
}

int hsm_issue(struct hsm *h, unsigned bits, const struct hsm_kek *storage,
              const struct hsm_kek *bsa, int64_t deadline_us, struct hsm_issued *ret_issued)
{
    int r;

    (void)pthread_mutex_lock(&h->lock);
    r = begin_locked(h, bsa ? FAKE_ISSUE : FAKE_MAKE, deadline_us);
    if (r == 0)
        r = issue_locked(h, bits, storage, bsa, ret_issued);
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

static int export_locked(struct hsm *h, const struct hsm_export *in, struct hsm_blob *out)
{
    const struct kek *s, *b;
    uint8_t tek[HSM_WRAPPED_MAX];
    int r = bound_locked(h, in->storage, &s), n;

    if (r == 0)
        r = bound_locked(h, in->bsa, &b);
    if (r == 0)
        r = b->broken;
    if (r < 0)
        return r;
    n = wrap(s, false, in->stored->octets, in->stored->len, tek);
    if (n != (int)in->bits / 8)
        return TEKD_EFORMAT;
    out->len = (uint16_t)wrap(b, true, tek, (size_t)n, out->octets);
    return 0;
}

int hsm_export(struct hsm *h, const struct hsm_export *in, int64_t deadline_us,
               struct hsm_blob *ret_data)
{
    int r;

    (void)pthread_mutex_lock(&h->lock);
    r = begin_locked(h, FAKE_EXPORT, deadline_us);
    if (r == 0)
        r = export_locked(h, in, ret_data);
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

void hsm_make_many(struct hsm *h, struct hsm_order *orders, size_t n, int64_t deadline_us)
{
    for (size_t i = 0; i < n; i++) {
        struct hsm_order *o = &orders[i];
        const struct hsm_export export = {
            .bits = o->bits, .storage = o->storage, .stored = o->stored, .bsa = o->bsa};

        o->error = o->stored ? hsm_export(h, &export, deadline_us, &o->issued.data)
                             : hsm_issue(h, o->bits, o->storage, o->bsa, deadline_us, &o->issued);
        if (o->done)
            o->done(o);
    }
}

size_t hsm_many(struct hsm *h)
{
    (void)h;
    return HSM_MANY_MAX;
}

static int describe_locked(struct hsm *h, const char *label, enum hsm_kek_use use,
                           enum hsm_wrap wrap_, struct hsm_kek_report *out)
{
    const struct kek *k = find_locked(h, label);

    if (!k || k->wrap != wrap_)
        return TEKD_ENOTFOUND;
    if (k->blamed < 0) {
        (void)snprintf(out->text, sizeof(out->text), "what is wrong with it");
        return k->blamed;
    }
    *out = (struct hsm_kek_report){.kek = {.id_len = sizeof(k->id), .wrap = wrap_, .use = use}};
    memcpy(out->kek.label, k->label, sizeof(out->kek.label));
    memcpy(out->kek.id, k->id, sizeof(k->id));
    fingerprint(k, out->kek.fingerprint);
    return 0;
}

int hsm_describe_kek(struct hsm *h, const char *label, enum hsm_kek_use use, enum hsm_wrap wrap_,
                     int64_t deadline_us, struct hsm_kek_report *ret_report)
{
    int r;

    (void)pthread_mutex_lock(&h->lock);
    r = begin_locked(h, FAKE_DESCRIBE, deadline_us);
    if (r == 0)
        r = describe_locked(h, label, use, wrap_, ret_report);
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

/* ---- for the admin socket -------------------------------------------------------------------- */

void fake_hsm_set_state(struct hsm *h, enum hsm_state state, const char *reason)
{
    (void)pthread_mutex_lock(&h->lock);
    h->state = state;
    (void)snprintf(h->reason, sizeof(h->reason), "%s", reason);
    (void)pthread_mutex_unlock(&h->lock);
}

unsigned fake_hsm_retries(struct hsm *h)
{
    unsigned n;

    (void)pthread_mutex_lock(&h->lock);
    n = h->retries;
    (void)pthread_mutex_unlock(&h->lock);
    return n;
}

void hsm_status_get(struct hsm *h, struct hsm_status *ret_status)
{
    *ret_status = (struct hsm_status){.n_workers = 1};
    (void)pthread_mutex_lock(&h->lock);
    ret_status->state = h->state;
    (void)snprintf(ret_status->reason, sizeof(ret_status->reason), "%s", h->reason);
    (void)pthread_mutex_unlock(&h->lock);
    (void)snprintf(ret_status->token_label, sizeof(ret_status->token_label), "fake");
    ret_status->worker[0] = (struct hsm_worker_status){.role = "key", .pid = 1, .ready = true};
}

/* A PIN that comes has to be this one. */
int hsm_retry(struct hsm *h, const struct secret *pin)
{
    if (pin && (secret_len(pin) != 6 || memcmp(secret_peek(pin), "123456", 6) != 0))
        return TEKD_EINVAL;
    (void)pthread_mutex_lock(&h->lock);
    h->retries++;
    (void)pthread_mutex_unlock(&h->lock);
    return 0;
}
