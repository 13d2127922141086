/*
 * Checkpoints.  A worker never signs what it is told to: it is shown the last checkpoint and the
 * leaves that came since, and signs only what follows from both.
 *
 *   1. last bears a valid signature of the main key or of the one before it; or it is the empty
 *      log's, which has none.  Lines of our other keys may be missing, for the note may be of
 *      before such a key was set; none may be wrong.
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
    struct token_signing *key[PROTOCOL_KEYS]; /* borrowed; those but the first may be NULL */
    EVP_MD *sha256;
    struct buf *text;
    size_t n;
    struct note last[SIGNER_LOGS_MAX]; /* the newest we signed, one a log */
};

int signer_spki(EVP_PKEY *key, struct hsm_spki *ret_spki)
{
    uint8_t *p = ret_spki->der;
    int len = i2d_PUBKEY(key, NULL);

    if (len <= 0 || len > HSM_SPKI_MAX || i2d_PUBKEY(key, &p) != len)
        return TEKD_ECRYPTO;
    ret_spki->len = (uint16_t)len;
    return 0;
}

int signer_new(struct token_signing *const key[static PROTOCOL_KEYS], struct signer **ret_signer)
{
    AUTO(signer) struct signer *s = calloc(1, sizeof(*s));
    int r;

    if (s == NULL)
        return TEKD_ENOMEM;
    memcpy(s->key, key, sizeof(s->key));
    s->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (s->sha256 == NULL)
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

static bool line_equal(const struct note_signature *a, const struct note_signature *b)
{
    return a->len == b->len && memcmp(a->key_id, b->key_id, sizeof(a->key_id)) == 0 &&
           memcmp(a->octets, b->octets, a->len) == 0;
}

/* The very note that this worker made: its signatures need not be checked again. */
static bool is_ours(const struct note *last, const struct note *mine)
{
    if (mine == NULL || last->size != mine->size || !hash_equal(&last->root, &mine->root) ||
        last->n_signatures != mine->n_signatures)
        return false;
    for (size_t i = 0; i < last->n_signatures; i++) {
        if (!line_equal(&last->signature[i], &mine->signature[i]))
            return false;
    }
    return true;
}

/* Whether a line of this key proves that the log is the one that we sign. */
static bool vouches(size_t key)
{
    return key == PROTOCOL_KEY_MAIN || key == PROTOCOL_KEY_BEFORE;
}

static int check_last(struct signer *s, const struct note *last, const struct note *mine)
{
    bool vouched = false;

    if (last->size == 0 && last->n_signatures == 0)
        return 0; /* the empty log; its root is checked with the range */
    if (is_ours(last, mine))
        return 0;
    for (size_t k = 0; k < PROTOCOL_KEYS; k++) {
        int r =
            s->key[k] == NULL ? TEKD_ENOTFOUND : note_verify(last, token_signing_public(s->key[k]));

        if (r < 0 && r != TEKD_ENOTFOUND)
            return refuse("the last checkpoint has a wrong signature of one of our keys", last);
        vouched = vouched || (r == 0 && vouches(k));
    }
    return vouched ? 0 : refuse("the last checkpoint has no signature of the checkpoint key", last);
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

/* A token that signs wrongly would put a checkpoint into the log that nobody can verify. */
static int check_own(const struct note *n, EVP_PKEY *public)
{
    if (note_verify(n, public) == 0)
        return 0;
    log_event(LOG_ERROR, "hsm", "signature-wrong", LOG_STR("origin", n->origin));
    return TEKD_EHSM;
}

/* Adds the signature of a key over what is signed: a digest of the text, or the text itself. */
static int add_line(struct token_signing *key, const void *data, size_t len, struct note *n)
{
    EVP_PKEY *public = token_signing_public(key);
    struct hsm_signature signature;
    uint8_t id[4];
    int r = note_key_id(n->origin, public, id);

    if (r == 0)
        r = token_signing_sign(key, data, len, &signature);
    if (r == 0)
        r = note_add(n, id, signature.octets, signature.len);
    return r < 0 ? r : check_own(n, public);
}

static bool is_ed25519(size_t key)
{
    return key == PROTOCOL_KEY_ED25519 || key == PROTOCOL_KEY_ED25519_BEFORE;
}

static int sign_note(struct signer *s, struct note *n)
{
    uint8_t digest[SHA256_LEN];
    int r;

    buf_reset(s->text);
    r = note_text(n->origin, n->size, &n->root, s->text);
    if (r < 0)
        return r;
    if (EVP_Digest(buf_data(s->text), buf_len(s->text), digest, NULL, s->sha256, NULL) != 1)
        return TEKD_ECRYPTO;
    for (size_t k = 0; r == 0 && k < PROTOCOL_KEYS; k++) {
        if (s->key[k] == NULL)
            continue;
        r = is_ed25519(k) ? add_line(s->key[k], buf_data(s->text), buf_len(s->text), n)
                          : add_line(s->key[k], digest, sizeof(digest), n);
    }
    return r;
}

int signer_checkpoint(struct signer *s, const struct protocol_checkpoint *in, struct note *ret_note)
{
    struct note *newest = remembered(s, in->last.origin);
    const struct note *mine = newest;
    struct note n = {.n_signatures = 0};
    struct merkle_range range = {.size = 0};
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
