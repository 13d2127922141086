/*
 * Checkpoints.  A worker never signs what it is told to: it is shown the last checkpoint and the
 * leaves that came since, and signs only what follows from both.
 *
 *   1. last bears a valid signature of our key; or it is the empty log's, which has none.
 *   2. The compact range given for last has last's size and root.
 *   3. The range is extended leaf by leaf.  Where it passes the size that this worker signed last
 *      for the same origin it must have the root that was signed; and it must pass it.
 *   4. An origin is <log>/<epoch>.  Of an epoch before the newest that this worker signed nothing
 * is signed any more; the empty log of an epoch is begun only if that is the one behind it.
 *
 * 3 and 4 are the memory of one process.  Another worker, or the same one started anew, knows what
 * last proves and nothing else: against a rollback over a restart there is the anchor, not the
 * signer.
 */
#include <libp11.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/auto.h"
#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/merkle.h"
#include "worker.h"

#define SHA256_LEN 32
/* JSON's integers are exact below this, and no log comes near it. */
#define SIZE_MAX_SIGNED (UINT64_C(1) << 53)

struct signer {
    EVP_PKEY *key;    /* in the token, borrowed */
    EVP_PKEY *public; /* its public half, outside of it */
    EVP_MD *sha256;
    struct buf *text;
    size_t n;
    struct note last[SIGNER_LOGS_MAX]; /* the newest we signed, one a log */
};

static void context_freep(EVP_PKEY_CTX **p)
{
    EVP_PKEY_CTX_free(*p);
}
#define AUTO_CONTEXT __attribute__((cleanup(context_freep)))

int signer_spki(EVP_PKEY *key, struct hsm_spki *ret_spki)
{
    uint8_t *p = ret_spki->der;
    int len = i2d_PUBKEY(key, NULL);

    if (len <= 0 || len > HSM_SPKI_MAX || i2d_PUBKEY(key, &p) != len)
        return TEKD_ECRYPTO;
    ret_spki->len = (uint16_t)len;
    return 0;
}

/* libp11 leaves Cryptoki's code in OpenSSL's queue, as a reason of a library of its own. */
static void log_failure(void)
{
    unsigned long e = ERR_peek_last_error();
    char name[TOKEN_CKR_MAX] = "";

    if (ERR_GET_LIB(e) == ERR_get_CKR_code())
        token_ckr_text((unsigned long)ERR_GET_REASON(e), name);
    log_event(LOG_WARN, "hsm", "call-failed", LOG_STR("call", "C_Sign"), LOG_STR("rv", name),
              LOG_STR("reason", name[0] == 0 ? ERR_reason_error_string(e) : NULL));
    ERR_clear_error();
}

int signer_digest(EVP_PKEY *key, const uint8_t *digest, size_t len,
                  struct hsm_signature *ret_signature)
{
    AUTO_CONTEXT EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    size_t out_len = sizeof(ret_signature->octets);

    if (ctx == NULL)
        return TEKD_ENOMEM;
    if (EVP_PKEY_sign_init(ctx) != 1 ||
        EVP_PKEY_sign(ctx, ret_signature->octets, &out_len, digest, len) != 1) {
        log_failure();
        return TEKD_EHSM;
    }
    ret_signature->len = (uint16_t)out_len;
    return 0;
}

int signer_new(EVP_PKEY *key, struct signer **ret_signer)
{
    AUTO(signer) struct signer *s = calloc(1, sizeof(*s));
    struct hsm_spki spki;
    const uint8_t *p = spki.der;
    int r;

    if (s == NULL)
        return TEKD_ENOMEM;
    s->key = key;
    r = signer_spki(key, &spki);
    if (r < 0)
        return r;
    s->public = d2i_PUBKEY(NULL, &p, spki.len);
    s->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (s->public == NULL || s->sha256 == NULL)
        return TEKD_ECRYPTO;
    r = buf_new(NOTE_TEXT_MAX, &s->text);
    if (r < 0)
        return r;
    *ret_signer = TAKE(s);
    return 0;
}

void signer_free(struct signer *s)
{
    if (s == NULL)
        return;
    EVP_PKEY_free(s->public);
    EVP_MD_free(s->sha256);
    buf_free(s->text);
    free(s);
}

/* ---------------------------------------------------------------- checks ----------- */

static int refuse(const char *why, const struct note *last)
{
    log_event(LOG_ERROR, "hsm", "checkpoint-refused", LOG_STR("reason", why),
              LOG_STR("origin", last->origin), LOG_INT("size", last->size));
    return TEKD_ETAMPER;
}

/* No character may end the line of the origin in the text that is signed, or part it. */
static bool origin_ok(const char *origin)
{
    for (const char *c = origin; *c != 0; c++) {
        if ((unsigned char)*c <= ' ' || *c == 0x7f || *c == '+')
            return false;
    }
    return origin[0] != 0;
}

/* How long the name of the log is, and the epoch; an origin without a number is a log's own. */
static size_t log_of(const char *origin, uint64_t *ret_epoch)
{
    const char *slash = strrchr(origin, '/');
    char *end = NULL;
    uint64_t epoch = 0;

    if (slash != NULL && slash[1] >= '1' && slash[1] <= '9')
        epoch = strtoull(slash + 1, &end, 10);
    if (end == NULL || *end != 0 || epoch >= SIZE_MAX_SIGNED) {
        *ret_epoch = 0;
        return strlen(origin);
    }
    *ret_epoch = epoch;
    return (size_t)(slash - origin);
}

/* What was signed last of any epoch of this log. */
static struct note *remembered(struct signer *s, const char *origin)
{
    uint64_t epoch;
    size_t len = log_of(origin, &epoch);

    for (size_t i = 0; i < s->n; i++) {
        if (log_of(s->last[i].origin, &epoch) == len && memcmp(s->last[i].origin, origin, len) == 0)
            return &s->last[i];
    }
    return NULL;
}

/* Whether this epoch may be signed after the one of newest. */
static int check_epoch(const struct note *last, const struct note *newest)
{
    uint64_t epoch, before;

    (void)log_of(last->origin, &epoch);
    (void)log_of(newest->origin, &before);
    if (epoch < before)
        return refuse("a later epoch of the log was signed before", last);
    if (epoch > before + 1 && last->size == 0)
        return refuse("the epoch does not follow the one that was signed", last);
    return 0;
}

static bool hash_equal(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a->octets, b->octets, sizeof(a->octets)) == 0;
}

/* The very note that this worker made: its signature need not be checked again. */
static bool is_ours(const struct note *last, const struct note *mine)
{
    return mine != NULL && last->size == mine->size && hash_equal(&last->root, &mine->root) &&
           last->n_signatures == 1 && last->signature[0].len == mine->signature[0].len &&
           memcmp(last->signature[0].key_id, mine->signature[0].key_id,
                  sizeof(last->signature[0].key_id)) == 0 &&
           memcmp(last->signature[0].octets, mine->signature[0].octets, last->signature[0].len) ==
               0;
}

static int check_last(struct signer *s, const struct note *last, const struct note *mine)
{
    if (last->size == 0 && last->n_signatures == 0)
        return 0; /* the empty log; its root is checked with the range */
    if (is_ours(last, mine) || note_verify(last, s->public) == 0)
        return 0;
    return refuse("the last checkpoint has no valid signature of this key", last);
}

static int check_range(const struct note *last, const struct merkle_range *range)
{
    struct merkle_hash root;

    if (range->size != last->size)
        return refuse("the range is not of the last checkpoint's size", last);
    merkle_range_root(range, &root);
    if (!hash_equal(&root, &last->root))
        return refuse("the range has another root than the last checkpoint", last);
    return 0;
}

/* Whether the log, grown to this size, still is the one that was signed. */
static bool agrees(const struct merkle_range *range, const struct note *mine)
{
    struct merkle_hash root;

    if (mine == NULL || range->size != mine->size)
        return true;
    merkle_range_root(range, &root);
    return hash_equal(&root, &mine->root);
}

static int extend(const struct protocol_checkpoint *in, const struct note *mine,
                  struct merkle_range *range)
{
    static const char other_root[] = "the log has another root at a size that was signed";

    *range = in->range;
    if (!agrees(range, mine))
        return refuse(other_root, &in->last);
    for (size_t i = 0; i < in->n; i++) {
        merkle_range_append(range, &in->leaves[i]);
        if (!agrees(range, mine))
            return refuse(other_root, &in->last);
    }
    if (mine != NULL && range->size < mine->size)
        return refuse("the log is shorter than one that was signed", &in->last);
    return 0;
}

/* ---------------------------------------------------------------- signing ---------- */

static int sign_note(struct signer *s, struct note *n)
{
    struct hsm_signature signature;
    uint8_t digest[SHA256_LEN];
    uint8_t id[4];
    int r;

    buf_reset(s->text);
    r = note_text(n->origin, n->size, &n->root, s->text);
    if (r == 0)
        r = note_key_id(n->origin, s->public, id);
    if (r < 0)
        return r;
    if (EVP_Digest(buf_data(s->text), buf_len(s->text), digest, NULL, s->sha256, NULL) != 1)
        return TEKD_ECRYPTO;
    r = signer_digest(s->key, digest, sizeof(digest), &signature);
    if (r == 0)
        r = note_add(n, id, signature.octets, signature.len);
    if (r < 0)
        return r;
    /* A token that signs wrongly would put a checkpoint into the log that nobody can verify. */
    if (note_verify(n, s->public) < 0) {
        log_event(LOG_ERROR, "hsm", "signature-wrong", LOG_STR("origin", n->origin));
        return TEKD_EHSM;
    }
    return 0;
}

int signer_checkpoint(struct signer *s, const struct protocol_checkpoint *in, struct note *ret_note)
{
    struct note *newest = remembered(s, in->last.origin);
    const struct note *mine = newest;
    struct note n = {.n_signatures = 0};
    struct merkle_range range;
    int r = 0;

    if (!origin_ok(in->last.origin) || in->last.size >= SIZE_MAX_SIGNED)
        return TEKD_EFORMAT;
    if (newest == NULL && s->n == SIGNER_LOGS_MAX)
        return TEKD_EINVAL;
    if (newest != NULL && strcmp(newest->origin, in->last.origin) != 0) {
        r = check_epoch(&in->last, newest);
        mine = NULL;
    }
    if (r == 0)
        r = check_last(s, &in->last, mine);
    if (r == 0)
        r = check_range(&in->last, &in->range);
    if (r == 0)
        r = extend(in, mine, &range);
    if (r < 0)
        return r;
    memcpy(n.origin, in->last.origin, sizeof(n.origin));
    n.size = range.size;
    merkle_range_root(&range, &n.root);
    r = sign_note(s, &n);
    if (r < 0)
        return r;
    if (newest == NULL)
        newest = &s->last[s->n++];
    *newest = n;
    *ret_note = n;
    return 0;
}
