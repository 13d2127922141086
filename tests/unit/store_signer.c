#include "store_signer.h"

#include <assert.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tekd/err.h"

#define OLD_MAX 8

struct store_test_signer {
    EVP_PKEY *key[STORE_KEYS];
    unsigned on;            /* bits of those that sign */
    EVP_PKEY *old[OLD_MAX]; /* P-256 keys that were replaced */
    size_t n_old;
    unsigned delay_us;    /* set before the store opens */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool held;
    int error, key_error;
    enum store_signer_damage damage;
    unsigned entered, contradictions;
    unsigned passed; /* calls up to this one are not held */
    size_t most;
    /* The newest note it made, of this origin. */
    char origin[NOTE_ORIGIN_MAX + 1];
    uint64_t size;
    struct merkle_hash root;
};

static void fill_spki(EVP_PKEY *key, struct hsm_spki *spki)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);

    assert(len > 0 && (size_t)len <= sizeof(spki->der));
    memcpy(spki->der, der, (size_t)len);
    spki->len = (uint16_t)len;
    OPENSSL_free(der);
}

static struct store_test_signer *new_signer(EVP_PKEY *take_key)
{
    struct store_test_signer *t = calloc(1, sizeof(*t));

    assert(t != NULL && take_key != NULL);
    t->key[STORE_KEY_MAIN] = take_key;
    t->on = 1U << STORE_KEY_MAIN;
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->changed, NULL);
    return t;
}

struct store_test_signer *store_signer_new(void)
{
    return new_signer(EVP_EC_gen("P-256"));
}

struct store_test_signer *store_signer_load(const char *path)
{
    FILE *file = fopen(path, "re");
    EVP_PKEY *key;

    if (file != NULL) {
        key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    } else {
        key = EVP_EC_gen("P-256");
        file = fopen(path, "we");
        assert(file != NULL);
        (void)PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    }
    (void)fclose(file);
    return new_signer(key);
}

void store_signer_free(struct store_test_signer *t)
{
    for (size_t k = 0; k < STORE_KEYS; k++)
        EVP_PKEY_free(t->key[k]);
    for (size_t i = 0; i < t->n_old; i++)
        EVP_PKEY_free(t->old[i]);
    (void)pthread_cond_destroy(&t->changed);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

static int public_key(void *arg, enum store_key which, int64_t deadline_us,
                      struct hsm_spki *ret_spki)
{
    struct store_test_signer *t = arg;
    int r;

    (void)deadline_us;
    pthread_mutex_lock(&t->lock);
    r = t->key_error;
    pthread_mutex_unlock(&t->lock);
    if (r == 0)
        fill_spki(t->key[which], ret_spki);
    return r;
}

/* The next epoch of the log begins with an empty tree, and the one before is over. */
static int check_origin(struct store_test_signer *t, const struct note *last)
{
    unsigned long epoch = strtoul(strrchr(last->origin, '/') + 1, NULL, 10);
    unsigned long before = t->size > 0 ? strtoul(strrchr(t->origin, '/') + 1, NULL, 10) : 0;

    if (epoch < before || (before > 0 && epoch > before + 1))
        return TEKD_ETAMPER;
    if (epoch > before) {
        t->size = 0;
        memset(&t->root, 0, sizeof(t->root));
    }
    return 0;
}

/* As the real one: lines may be missing, but of the main key and the one before not both. */
static bool is_own(struct store_test_signer *t, const struct note *last)
{
    bool vouched = false;

    for (size_t k = 0; k < STORE_KEYS; k++) {
        int r = (t->on & 1U << k) != 0 ? note_verify(last, t->key[k]) : TEKD_ENOTFOUND;

        if (r == TEKD_ECRYPTO)
            return false;
        vouched = vouched || (r == 0 && (k == STORE_KEY_MAIN || k == STORE_KEY_BEFORE));
    }
    return vouched;
}

/* What the real signer refuses. */
static int check_request(struct store_test_signer *t, const struct hsm_checkpoint *in,
                         const struct note *n)
{
    struct merkle_hash root;

    if (check_origin(t, in->last) < 0)
        return TEKD_ETAMPER;
    merkle_range_root(in->range, &root);
    if (in->range->size != in->last->size || memcmp(&root, &in->last->root, sizeof(root)) != 0)
        return TEKD_ETAMPER;
    if (in->last->size > 0 && !is_own(t, in->last))
        return TEKD_ETAMPER;
    if (n->size < t->size ||
        (n->size == t->size && memcmp(&n->root, &t->root, sizeof(root)) != 0) ||
        (in->last->size == t->size && memcmp(&in->last->root, &t->root, sizeof(root)) != 0 &&
         t->size > 0))
        return TEKD_ETAMPER;
    return 0;
}

static void sign_text(EVP_PKEY *key, struct note *n)
{
    const EVP_MD *md = EVP_PKEY_is_a(key, "EC") ? EVP_sha256() : NULL;
    AUTO(buf) struct buf *text = NULL;
    uint8_t sig[NOTE_SIG_MAX], id[4];
    size_t sig_len = sizeof(sig);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int r = buf_new(NOTE_TEXT_MAX, &text);

    assert(r == 0 && ctx != NULL);
    r = note_text(n->origin, n->size, &n->root, text);
    assert(r == 0);
    r = EVP_DigestSignInit(ctx, NULL, md, NULL, key);
    assert(r == 1);
    r = EVP_DigestSign(ctx, sig, &sig_len, buf_data(text), buf_len(text));
    assert(r == 1);
    EVP_MD_CTX_free(ctx);
    r = note_key_id(n->origin, key, id);
    assert(r == 0);
    r = note_add(n, id, sig, sig_len);
    assert(r == 0);
}

static void damage_lines(enum store_signer_damage damage, struct note *n)
{
    uint8_t id[4];

    switch (damage) {
    case DAMAGE_SECOND:
        n->signature[1].octets[0] ^= 1;
        break;
    case DAMAGE_SECOND_MISSING:
        n->n_signatures = 1;
        break;
    case DAMAGE_SECOND_TWICE:
        n->signature[n->n_signatures++] = n->signature[1];
        break;
    case DAMAGE_IDS_SWAPPED:
        memcpy(id, n->signature[0].key_id, sizeof(id));
        memcpy(n->signature[0].key_id, n->signature[1].key_id, sizeof(id));
        memcpy(n->signature[1].key_id, id, sizeof(id));
        break;
    default:
        break;
    }
}

static int wait_for_leave(struct store_test_signer *t, enum store_signer_damage *ret_damage)
{
    unsigned number;
    int r;

    pthread_mutex_lock(&t->lock);
    number = ++t->entered;
    pthread_cond_broadcast(&t->changed);
    while (t->held && number > t->passed)
        pthread_cond_wait(&t->changed, &t->lock);
    r = t->error;
    *ret_damage = t->damage;
    t->damage = DAMAGE_NONE;
    pthread_mutex_unlock(&t->lock);
    return r;
}

static int sign(void *arg, const struct hsm_checkpoint *in, int64_t deadline_us,
                struct note *ret_note)
{
    struct store_test_signer *t = arg;
    struct note n = {.size = in->last->size + in->n};
    struct merkle_range range = *in->range;
    enum store_signer_damage damage;
    int r;

    (void)deadline_us;
    r = wait_for_leave(t, &damage);
    if (t->delay_us > 0)
        (void)usleep(t->delay_us);
    if (r < 0)
        return r;
    memcpy(n.origin, in->last->origin, sizeof(n.origin));
    for (size_t i = 0; i < in->n; i++)
        merkle_range_append(&range, &in->leaves[i]);
    merkle_range_root(&range, &n.root);
    pthread_mutex_lock(&t->lock);
    r = check_request(t, in, &n);
    if (r < 0)
        t->contradictions++;
    if (in->n > t->most)
        t->most = in->n;
    if (r == 0 && damage == DAMAGE_NONE) {
        memcpy(t->origin, n.origin, sizeof(t->origin));
        t->size = n.size;
        t->root = n.root;
    }
    pthread_mutex_unlock(&t->lock);
    if (r < 0)
        return r;
    if (damage == DAMAGE_ROOT)
        n.root.octets[0] ^= 1;
    for (size_t k = 0; k < STORE_KEYS; k++) {
        if ((t->on & 1U << k) != 0)
            sign_text(t->key[k], &n);
    }
    damage_lines(damage, &n);
    if (damage == DAMAGE_SIGNATURE)
        n.root.octets[0] ^= 1; /* what was signed is not what it says */
    *ret_note = n;
    return 0;
}

static EVP_PKEY *make_key(enum store_key kind)
{
    EVP_PKEY *key =
        kind == STORE_KEY_MAIN ? EVP_EC_gen("P-256") : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    assert(key != NULL);
    return key;
}

void store_signer_second(struct store_test_signer *t, bool on)
{
    if (t->key[STORE_KEY_ED25519] == NULL)
        t->key[STORE_KEY_ED25519] = make_key(STORE_KEY_ED25519);
    store_signer_set(t, STORE_KEY_ED25519, on);
}

void store_signer_set(struct store_test_signer *t, enum store_key which, bool on)
{
    t->on = on ? t->on | 1U << which : t->on & ~(1U << which);
}

void store_signer_replace(struct store_test_signer *t, enum store_key kind)
{
    enum store_key before = kind == STORE_KEY_MAIN ? STORE_KEY_BEFORE : STORE_KEY_ED25519_BEFORE;

    store_signer_give(t, before, t->key[kind]);
    store_signer_set(t, before, true);
    if (kind == STORE_KEY_MAIN) {
        assert(t->n_old < OLD_MAX);
        t->old[t->n_old++] = t->key[kind];
    } else {
        EVP_PKEY_free(t->key[kind]);
    }
    t->key[kind] = make_key(kind);
}

void store_signer_give(struct store_test_signer *t, enum store_key which, EVP_PKEY *key)
{
    (void)EVP_PKEY_up_ref(key);
    EVP_PKEY_free(t->key[which]);
    t->key[which] = key;
}

struct store_signer store_signer_of(struct store_test_signer *t)
{
    return (struct store_signer){
        .arg = t, .keys = t->on & ~(1U << STORE_KEY_MAIN), .public_key = public_key, .sign = sign};
}

EVP_PKEY *store_signer_key(struct store_test_signer *t, enum store_key which)
{
    return t->key[which];
}

int store_signer_verify(const struct store_test_signer *t, const struct note *n)
{
    int r = note_verify(n, t->key[STORE_KEY_MAIN]);

    for (size_t i = 0; r == TEKD_ENOTFOUND && i < t->n_old; i++)
        r = note_verify(n, t->old[i]);
    return r;
}

void store_signer_restart(struct store_test_signer *t)
{
    pthread_mutex_lock(&t->lock);
    t->size = 0;
    memset(&t->root, 0, sizeof(t->root));
    pthread_mutex_unlock(&t->lock);
}

void store_signer_hold(struct store_test_signer *t)
{
    pthread_mutex_lock(&t->lock);
    t->held = true;
    pthread_mutex_unlock(&t->lock);
}

void store_signer_release(struct store_test_signer *t)
{
    pthread_mutex_lock(&t->lock);
    t->held = false;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

void store_signer_pass(struct store_test_signer *t)
{
    pthread_mutex_lock(&t->lock);
    t->passed = t->entered;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

void store_signer_delay(struct store_test_signer *t, unsigned us)
{
    t->delay_us = us;
}

void store_signer_fail(struct store_test_signer *t, int error)
{
    pthread_mutex_lock(&t->lock);
    t->error = error;
    pthread_mutex_unlock(&t->lock);
}

void store_signer_hide_key(struct store_test_signer *t, int error)
{
    pthread_mutex_lock(&t->lock);
    t->key_error = error;
    pthread_mutex_unlock(&t->lock);
}

void store_signer_damage(struct store_test_signer *t, enum store_signer_damage damage)
{
    pthread_mutex_lock(&t->lock);
    t->damage = damage;
    pthread_mutex_unlock(&t->lock);
}

void store_signer_wait_entered(struct store_test_signer *t, unsigned n)
{
    pthread_mutex_lock(&t->lock);
    while (t->entered < n)
        pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

unsigned store_signer_entered(struct store_test_signer *t)
{
    unsigned n;

    pthread_mutex_lock(&t->lock);
    n = t->entered;
    pthread_mutex_unlock(&t->lock);
    return n;
}

unsigned store_signer_contradictions(struct store_test_signer *t)
{
    unsigned n;

    pthread_mutex_lock(&t->lock);
    n = t->contradictions;
    pthread_mutex_unlock(&t->lock);
    return n;
}

size_t store_signer_most_leaves(struct store_test_signer *t)
{
    size_t n;

    pthread_mutex_lock(&t->lock);
    n = t->most;
    pthread_mutex_unlock(&t->lock);
    return n;
}
