/*
 * Which keys the log is signed with, and how that changes.  There are two kinds, P-256 and Ed25519;
 * of each the table meta has the one that the log is signed with ("key", "key-ed25519"), and of
 * both those that it was signed with before ("key-retired-1" ...), which older notes verify with.
 *
 * When the token has said all keys that are set, each kind is judged once:
 *
 *     the database has     the token has           so
 *     none, nor a main key any, none before        a new log: stored with the next commit
 *     none                 any, none before        added: recorded, then stored
 *     K                    K; before: none, or one that was retired        as it was
 *     K                    N; before: K            replaced: recorded, then stored, K retired
 *     otherwise                                    refused
 *
 * Recorded is log.signkey, one of the store's own records.  Stored is with the checkpoint that
 * covers it, in one transaction: a crash before that leaves the database as it was, and the next
 * start does the same again.  Notes have lines of all keys from the first one of the run on, so
 * that one has the old key's, the new one's, and is over the record: what a verifier looks for.
 *
 *     WANTED  -- log.signkey is committed -->  RECORDED  -- a checkpoint over it is -->  NONE
 *     FIRST   -- any commit -->  NONE
 */
#include "internal.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* Of a kind: its name in meta, what a check is called, and its settings. */
static const struct {
    const char *meta, *check, *setting, *setting_before;
} kinds[SIGN_KINDS] = {
    [STORE_KEY_MAIN] = {"key", "checkpoint-key", "hsm.checkpoint_key", "hsm.checkpoint_key_before"},
    [STORE_KEY_ED25519] = {"key-ed25519", "checkpoint-ed25519-key", "hsm.checkpoint_ed25519_key",
                           "hsm.checkpoint_ed25519_key_before"},
};

static void evp_pkey_freep(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}
#define AUTO_PKEY __attribute__((cleanup(evp_pkey_freep)))

/* ---- keys ------------------------------------------------------------------------------------ */

static int read_key(const struct hsm_spki *spki, struct sign_key *ret_key)
{
    const uint8_t *p = spki->der;
    AUTO_PKEY EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)spki->len);

    if (key == NULL || p != spki->der + spki->len) {
        log_event(LOG_ERROR, "store", "checkpoint-key-unreadable", LOG_INT("octets", spki->len));
        return TEKD_ECRYPTO;
    }
    ret_key->spki = *spki;
    ret_key->key = TAKE(key);
    return 0;
}

/* Takes a reference. */
static void copy_key(const struct sign_key *from, struct sign_key *to)
{
    EVP_PKEY_free(to->key);
    *to = *from;
    (void)EVP_PKEY_up_ref(to->key);
}

static bool same_key(const struct sign_key *a, const struct sign_key *b)
{
    return a->key != NULL && b->key != NULL && a->spki.len == b->spki.len &&
           memcmp(a->spki.der, b->spki.der, a->spki.len) == 0;
}

static void fingerprint(const struct sign_key *k, uint8_t out[static SIGNKEY_LEN])
{
    (void)EVP_Digest(k->spki.der, k->spki.len, out, NULL, EVP_sha256(), NULL);
}

/* In hex, or "none". */
static void show_key(const struct sign_key *k, char out[static ENC_HEX_LEN(SIGNKEY_LEN) + 1])
{
    uint8_t digest[SIGNKEY_LEN];

    if (k->key == NULL) {
        memcpy(out, "none", sizeof("none"));
        return;
    }
    fingerprint(k, digest);
    enc_hex(digest, sizeof(digest), out);
}

static bool is_retired(const struct sign_keys *g, const struct sign_key *k)
{
    for (size_t i = 0; i < g->n_retired; i++) {
        if (same_key(&g->retired[i], k))
            return true;
    }
    return false;
}

void signkey_free(struct store *s)
{
    struct sign_keys *g = &s->keys;

    for (size_t k = 0; k < STORE_KEYS; k++)
        EVP_PKEY_free(g->token[k].key);
    for (size_t k = 0; k < SIGN_KINDS; k++)
        EVP_PKEY_free(g->log[k].key);
    for (size_t i = 0; i < g->n_retired; i++)
        EVP_PKEY_free(g->retired[i].key);
}

/* ---- the database's -------------------------------------------------------------------------- */

static void retired_name(size_t i, char out[static SIGNKEY_NAME_MAX])
{
    (void)snprintf(out, SIGNKEY_NAME_MAX, "key-retired-%zu", i + 1);
}

static int get_spki(struct db *db, const char *name, struct hsm_spki *ret_spki)
{
    size_t len = 0;
    int r = rows_meta_get(db, name, ret_spki->der, sizeof(ret_spki->der), &len);

    ret_spki->len = (uint16_t)len;
    return r;
}

static int load(struct store *s, const char *name, struct sign_key *ret_key)
{
    struct hsm_spki spki = {0};
    int r = get_spki(s->db, name, &spki);

    if (r < 0)
        return r;
    return read_key(&spki, ret_key) == 0
               ? 0
               : start_tamper("checkpoint-key", 0, "a public key", "something else");
}

int signkey_read(struct store *s)
{
    struct sign_keys *g = &s->keys;
    int r = 0;

    for (size_t k = 0; k < SIGN_KINDS && (r == 0 || r == TEKD_ENOTFOUND); k++)
        r = load(s, kinds[k].meta, &g->log[k]);
    while ((r == 0 || r == TEKD_ENOTFOUND) && g->n_retired < RETIRED_MAX) {
        char name[SIGNKEY_NAME_MAX];

        retired_name(g->n_retired, name);
        r = load(s, name, &g->retired[g->n_retired]);
        if (r == TEKD_ENOTFOUND)
            break;
        if (r == 0)
            g->n_retired++;
    }
    return r == TEKD_ENOTFOUND ? 0 : r;
}

int signkey_get(struct db *db, size_t n, struct hsm_spki *ret_spki)
{
    char name[SIGNKEY_NAME_MAX];

    if (n < SIGN_KINDS)
        return get_spki(db, kinds[n].meta, ret_spki);
    retired_name(n - SIGN_KINDS, name);
    return get_spki(db, name, ret_spki);
}

/* A line of the main key; TEKD_ENOTFOUND without one. */
static int verify_by(const struct sign_key *k, const struct note *n)
{
    return k->key != NULL ? note_verify(n, k->key) : TEKD_ENOTFOUND;
}

int signkey_verify_newest(const struct store *s, const struct note *n)
{
    return verify_by(&s->keys.log[STORE_KEY_MAIN], n);
}

int signkey_verify(const struct store *s, const struct note *n)
{
    const struct sign_keys *g = &s->keys;
    bool vouched = false;
    int r = 0;

    for (size_t i = 0; i < SIGN_KINDS + g->n_retired; i++) {
        const struct sign_key *k = i < SIGN_KINDS ? &g->log[i] : &g->retired[i - SIGN_KINDS];

        r = verify_by(k, n);
        if (r < 0 && r != TEKD_ENOTFOUND)
            return r;
        /* The log is always signed by a P-256 key: one of Ed25519 alone says nothing. */
        vouched = vouched || (r == 0 && EVP_PKEY_is_a(k->key, "EC"));
    }
    return vouched ? 0 : TEKD_ENOTFOUND;
}

/* ---- the token's ----------------------------------------------------------------------------- */

bool signkey_is_set(const struct store *s, enum store_key which)
{
    return which == STORE_KEY_MAIN || (s->o.signer.keys & 1U << which) != 0;
}

static int refuse(size_t kind, const struct sign_key *expected, const struct sign_key *found,
                  const char *text)
{
    char hex[2][ENC_HEX_LEN(SIGNKEY_LEN) + 1];
    char hint[SIGNKEY_HINT_MAX];

    show_key(expected, hex[0]);
    show_key(found, hex[1]);
    (void)snprintf(hint, sizeof(hint), "%s: %s", kinds[kind].setting_before, text);
    log_event(LOG_ERROR, "store", "tamper", LOG_STR("check", kinds[kind].check),
              LOG_STR("record", ""), LOG_STR("expected", hex[0]), LOG_STR("found", hex[1]),
              LOG_STR("hint", hint));
    return TEKD_ETAMPER;
}

/* Whether all that is replaced can be kept, this kind and what was judged before it counted. */
static bool can_retire(const struct sign_keys *g, size_t kind)
{
    size_t n = g->n_retired;

    for (size_t k = 0; k <= kind; k++)
        n += g->log[k].key != NULL && g->judged[k] == CHANGE_WANTED;
    return n <= RETIRED_MAX;
}

/* What the keys of a kind mean, by the table above. */
static int judge(struct sign_keys *g, size_t kind, bool is_new)
{
    enum key_change_state *change = &g->judged[kind];
    const struct sign_key *log = &g->log[kind], *now = &g->token[kind];
    const struct sign_key *before = &g->token[kind + SIGN_KINDS];

    *change = CHANGE_NONE;
    if (now->key == NULL) /* not set: what was there signs no more */
        return 0;
    if (log->key == NULL) {
        *change = is_new ? CHANGE_FIRST : CHANGE_WANTED;
        return before->key == NULL
                   ? 0
                   : refuse(kind, log, before, "take it out, this log had no key to replace");
    }
    if (same_key(log, now))
        return before->key == NULL || is_retired(g, before)
                   ? 0
                   : refuse(kind, log, before, "take it out, this key never signed the log");
    if (before->key == NULL)
        return refuse(kind, log, now,
                      "not set; if the key found replaces the expected one, the label of that");
    if (!same_key(log, before))
        return refuse(kind, log, before, "not the key that signed the log last");
    *change = CHANGE_WANTED;
    return can_retire(g, kind) ? 0 : refuse(kind, log, now, "too many keys were replaced");
}

void signkey_tail(struct store *s, const uint8_t key[static SIGNKEY_LEN])
{
    struct sign_keys *g = &s->keys;

    for (size_t i = 0; i < g->n_tail; i++) {
        if (memcmp(g->tail[i], key, SIGNKEY_LEN) == 0)
            return;
    }
    /* More than there are kinds cannot all be the token's. */
    if (g->n_tail <= SIGN_KINDS)
        memcpy(g->tail[g->n_tail++], key, SIGNKEY_LEN);
}

static bool is_of_the_token(const struct sign_keys *g, const uint8_t key[static SIGNKEY_LEN])
{
    uint8_t digest[SIGNKEY_LEN];

    for (size_t k = 0; k < SIGN_KINDS; k++) {
        if (g->token[k].key == NULL)
            continue;
        fingerprint(&g->token[k], digest);
        if (memcmp(digest, key, sizeof(digest)) == 0)
            return true;
    }
    return false;
}

int signkey_check_tail(const struct store *s)
{
    const struct sign_keys *g = &s->keys;
    char hex[ENC_HEX_LEN(SIGNKEY_LEN) + 1];

    for (size_t i = 0; g->learnt && i < g->n_tail; i++) {
        if (is_of_the_token(g, g->tail[i]))
            continue;
        enc_hex(g->tail[i], SIGNKEY_LEN, hex);
        return start_tamper("record-signkey", s->unattested_from,
                            "an unsigned log.signkey of a key that is set", hex);
    }
    return 0;
}

static int learn_key(struct store *s, enum store_key which, int64_t deadline_us)
{
    struct sign_key *k = &s->keys.token[which];
    struct hsm_spki spki = {0};
    int r;

    if (k->key != NULL || !signkey_is_set(s, which))
        return 0;
    r = s->o.signer.public_key(s->o.signer.arg, which, deadline_us, &spki);
    return r < 0 ? r : read_key(&spki, k);
}

int signkey_learn(struct store *s, int64_t deadline_us, bool *ret_learnt)
{
    struct sign_keys *g = &s->keys;
    bool is_new = g->log[STORE_KEY_MAIN].key == NULL;
    int r = 0;

    if (g->learnt)
        return 0;
    for (enum store_key k = 0; r == 0 && k < STORE_KEYS; k++)
        r = learn_key(s, k, deadline_us);
    for (size_t k = 0; r == 0 && k < SIGN_KINDS; k++)
        r = judge(g, k, is_new);
    if (r < 0)
        return r;
    g->learnt = true;
    r = signkey_check_tail(s);
    if (r == 0)
        *ret_learnt = true;
    return r;
}

/* ---- the change ------------------------------------------------------------------------------ */

void signkey_learnt(struct store *s)
{
    for (size_t k = 0; k < SIGN_KINDS; k++)
        s->key_change[k] = (struct key_change){.state = s->keys.judged[k]};
}

/* Behind log.stopped there is no record: the next start makes it. */
static bool is_due(const struct store *s, size_t kind)
{
    return s->key_change[kind].state == CHANGE_WANTED && !s->stopping;
}

bool signkey_due(const struct store *s)
{
    for (size_t k = 0; k < SIGN_KINDS; k++) {
        if (is_due(s, k))
            return true;
    }
    return false;
}

static int put_record(struct store *s, size_t kind, int64_t utc_us)
{
    AUTO(record) struct record *rec = NULL;
    uint8_t digest[SIGNKEY_LEN];
    int r = record_new("log.signkey", &rec);

    if (r < 0)
        return r;
    fingerprint(&s->keys.token[kind], digest);
    record_hex(rec, "key", digest, sizeof(digest));
    return audit_append(s, rec, utc_us);
}

int signkey_put_records(struct store *s, int64_t utc_us)
{
    int r = 0;

    for (size_t k = 0; r == 0 && k < SIGN_KINDS; k++) {
        struct key_change *c = &s->key_change[k];

        if (!is_due(s, k))
            continue;
        c->at = audit_place(&s->tree, s->tree.next);
        c->moved = true;
        r = put_record(s, k, utc_us);
    }
    return r;
}

static int store_key(struct store *s, size_t kind, const struct sign_key *k)
{
    return rows_meta_put(s->db, kinds[kind].meta, k->spki.der, k->spki.len);
}

int signkey_put_first(struct store *s)
{
    int r = 0;

    for (size_t k = 0; r == 0 && k < SIGN_KINDS; k++) {
        struct key_change *c = &s->key_change[k];

        if (c->state != CHANGE_FIRST)
            continue;
        c->moved = true;
        r = store_key(s, k, &s->keys.token[k]);
    }
    return r;
}

/* Two kinds may be replaced with one checkpoint: the first of them has not been counted yet. */
static int put_retired(struct store *s, size_t kind, size_t *n)
{
    const struct sign_keys *g = &s->keys;
    char name[SIGNKEY_NAME_MAX];

    if (g->log[kind].key == NULL || is_retired(g, &g->log[kind]))
        return 0;
    retired_name((*n)++, name);
    return rows_meta_put(s->db, name, g->log[kind].spki.der, g->log[kind].spki.len);
}

/* Whether the newest note, which is about to be committed, is over the record. */
static bool is_covered(const struct store *s, const struct key_change *c)
{
    return c->state == CHANGE_RECORDED &&
           (c->at.epoch < s->tree.epoch ||
            (c->at.epoch == s->tree.epoch && s->tree.note.size > c->at.seq));
}

int signkey_put_covered(struct store *s)
{
    size_t n = s->keys.n_retired;
    int r = 0;

    for (size_t k = 0; r == 0 && k < SIGN_KINDS; k++) {
        struct key_change *c = &s->key_change[k];

        if (!is_covered(s, c))
            continue;
        c->moved = true;
        r = put_retired(s, k, &n);
        if (r == 0)
            r = store_key(s, k, &s->keys.token[k]);
    }
    return r;
}

/* The key of the log is the token's from now on. */
static void take_over(struct store *s, size_t kind)
{
    struct sign_keys *g = &s->keys;
    struct sign_key *log = &g->log[kind];
    char hex[2][ENC_HEX_LEN(SIGNKEY_LEN) + 1];

    show_key(log, hex[0]);
    show_key(&g->token[kind], hex[1]);
    if (log->key != NULL && !is_retired(g, log)) {
        assert(g->n_retired < RETIRED_MAX); /* judge() has counted */
        copy_key(log, &g->retired[g->n_retired++]);
    }
    copy_key(&g->token[kind], log);
    if (s->key_change[kind].state == CHANGE_RECORDED)
        log_event(LOG_INFO, "store", "sign-key-changed", LOG_STR("setting", kinds[kind].setting),
                  LOG_STR("before", hex[0]), LOG_STR("now", hex[1]));
}

void signkey_committed(struct store *s)
{
    for (size_t k = 0; k < SIGN_KINDS; k++) {
        struct key_change *c = &s->key_change[k];

        if (!c->moved)
            continue;
        c->moved = false;
        if (c->state == CHANGE_WANTED) {
            c->state = CHANGE_RECORDED;
            continue;
        }
        take_over(s, k);
        c->state = CHANGE_NONE;
    }
}

void signkey_failed(struct store *s)
{
    for (size_t k = 0; k < SIGN_KINDS; k++)
        s->key_change[k].moved = false;
}
