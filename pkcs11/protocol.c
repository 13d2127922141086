/*
 * The datagrams between the pool and a worker: requests one behind the other, or replies; each
 * ends where its parts do.  Integers are big-endian, nothing is padded or aligned, a list is a
 * count and its entries.
 *
 * Request
 *   0  u8    PROTOCOL_VERSION
 *   1  u8    verb
 *   2  u64   id
 *  10  ...   body of the verb
 *
 *   issue            u16 bits (128, 192, 256), kek storage, kek bsa or none
 *   export           u16 bits, kek storage, kek bsa, blob stored
 *   sign_checkpoint  note last, range, u16 n (0..HSM_LEAVES_MAX), n * 32 octets of leaf hashes
 *   sign_tls         u8 length (1..HSM_DIGEST_MAX), digest
 *   health           kek or none
 *   describe         u8 use, u8 wrap, string label (1..HSM_LABEL_MAX)
 *   public_key       u8 key: 0 what the worker's role signs with; of the audit worker also 1 the
 *                    Ed25519 key, 2 the key before that of 0, 3 the one before that of 1
 *
 * Reply
 *   0  u8    PROTOCOL_VERSION
 *   1  u8    verb + 0x80
 *   2  u64   id of the request
 *  10  u8    error: 0, or the code of err.h without its sign
 *  11  u8    leaving: 1 when the worker ends after this reply, else 0
 *  12  ...   body of the verb; with an error nothing, but for describe
 *
 *   issue            blob stored, blob data (length 0 when no BSA was named)
 *   export           blob data
 *   sign_checkpoint  note
 *   sign_tls         u16 length (1..HSM_SIGNATURE_MAX), DER
 *   health           nothing
 *   describe         kek, u8 imported, string check value (0..6), string text (0..HSM_TEXT_MAX-1)
 *   public_key       u16 length (1..HSM_SPKI_MAX), DER
 *
 * Parts
 *   string   u8 length, octets without NUL
 *   blob     u16 length (1..HSM_WRAPPED_MAX if not said otherwise), octets
 *   kek      u8 use, and if that is not 0 (none): u8 wrap, u8 length of id (0..HSM_ID_MAX), id,
 *            string label (0..HSM_LABEL_MAX), 32 octets of fingerprint
 *   note     u16 length of origin (1..NOTE_ORIGIN_MAX), origin, u64 size, 32 octets of root,
 *            u8 number of signatures (0..NOTE_SIGS_MAX), each: 4 octets of key id, u8 length
 *            (1..NOTE_SIG_MAX), octets.  (Not the written note: one without signatures, of the
 *            empty log, has no written form.)
 *   range    as merkle_range_put(): u64 size, 32 octets for each bit set in it
 */
#include "protocol.h"

#include <string.h>

#include "tekd/err.h"

#define PROTOCOL_VERSION 1
#define REPLY_BIT        0x80U

/* ---------------------------------------------------------------- parts ------------ */

static bool bits_ok(unsigned bits)
{
    return bits == 128 || bits == 192 || bits == 256;
}

static void put_string(struct buf *b, const char *s, size_t max)
{
    size_t len = strnlen(s, max);

    (void)buf_put_u8(b, (uint8_t)len);
    (void)buf_append(b, s, len);
}

/* out has max + 1 characters. */
static int get_string(struct view *v, char *out, size_t min, size_t max)
{
    size_t len = view_u8(v);
    const uint8_t *p = len > max ? NULL : view_octets(v, len);

    if (v->error < 0 || len < min || len > max || memchr(p, 0, len) != NULL)
        return TEKD_EFORMAT;
    memcpy(out, p, len);
    out[len] = 0;
    return 0;
}

/* Octets with a u16 length in min..max, into a field that has room for max. */
static int get_octets(struct view *v, uint8_t *out, size_t min, size_t max, uint16_t *ret_len)
{
    uint16_t len = view_u16(v);
    const uint8_t *p = len > max ? NULL : view_octets(v, len);

    if (v->error < 0 || len < min || len > max)
        return TEKD_EFORMAT;
    memcpy(out, p, len);
    *ret_len = len;
    return 0;
}

static void put_octets(struct buf *b, const uint8_t *octets, uint16_t len)
{
    (void)buf_put_u16(b, len);
    (void)buf_append(b, octets, len);
}

static void put_kek(struct buf *b, const struct hsm_kek *k)
{
    (void)buf_put_u8(b, (uint8_t)k->use);
    if (k->use == 0)
        return;
    (void)buf_put_u8(b, (uint8_t)k->wrap);
    (void)buf_put_u8(b, k->id_len);
    (void)buf_append(b, k->id, k->id_len);
    put_string(b, k->label, HSM_LABEL_MAX);
    (void)buf_append(b, k->fingerprint, sizeof(k->fingerprint));
}

static int get_use(struct view *v, enum hsm_kek_use *ret_use)
{
    uint8_t use = view_u8(v);

    if (use != HSM_KEK_STORAGE && use != HSM_KEK_BSA)
        return TEKD_EFORMAT;
    *ret_use = (enum hsm_kek_use)use;
    return 0;
}

static int get_wrap(struct view *v, enum hsm_wrap *ret_wrap)
{
    uint8_t wrap = view_u8(v);

    if (wrap < HSM_WRAP_AES_KW || wrap > HSM_WRAP_OAEP_SHA1)
        return TEKD_EFORMAT;
    *ret_wrap = (enum hsm_wrap)wrap;
    return 0;
}

/* What is behind the use; label has at least min characters. */
static int get_kek_rest(struct view *v, size_t min, struct hsm_kek *k)
{
    const uint8_t *p;

    if (get_wrap(v, &k->wrap) < 0)
        return TEKD_EFORMAT;
    k->id_len = view_u8(v);
    p = k->id_len > sizeof(k->id) ? NULL : view_octets(v, k->id_len);
    if (v->error < 0 || k->id_len > sizeof(k->id))
        return TEKD_EFORMAT;
    memcpy(k->id, p, k->id_len);
    if (get_string(v, k->label, min, HSM_LABEL_MAX) < 0)
        return TEKD_EFORMAT;
    p = view_octets(v, sizeof(k->fingerprint));
    if (v->error < 0)
        return TEKD_EFORMAT;
    memcpy(k->fingerprint, p, sizeof(k->fingerprint));
    return 0;
}

static int get_kek(struct view *v, enum hsm_kek_use use, struct hsm_kek *k)
{
    if (get_use(v, &k->use) < 0 || k->use != use)
        return TEKD_EFORMAT;
    return get_kek_rest(v, 1, k);
}

static int get_kek_or_none(struct view *v, enum hsm_kek_use use, struct hsm_kek *k)
{
    if (v->left > 0 && v->p[0] == 0) {
        (void)view_u8(v);
        k->use = (enum hsm_kek_use)0;
        return 0;
    }
    return get_kek(v, use, k);
}

static int get_blob(struct view *v, size_t min, struct hsm_blob *blob)
{
    return get_octets(v, blob->octets, min, HSM_WRAPPED_MAX, &blob->len);
}

static void put_note(struct buf *b, const struct note *n)
{
    size_t len = strnlen(n->origin, NOTE_ORIGIN_MAX);

    put_octets(b, (const uint8_t *)n->origin, (uint16_t)len);
    (void)buf_put_u64(b, n->size);
    (void)buf_append(b, n->root.octets, sizeof(n->root.octets));
    (void)buf_put_u8(b, (uint8_t)n->n_signatures);
    for (size_t i = 0; i < n->n_signatures; i++) {
        const struct note_signature *s = &n->signature[i];

        (void)buf_append(b, s->key_id, sizeof(s->key_id));
        (void)buf_put_u8(b, (uint8_t)s->len);
        (void)buf_append(b, s->octets, s->len);
    }
}

static int get_note_signature(struct view *v, struct note_signature *s)
{
    const uint8_t *id = view_octets(v, sizeof(s->key_id));
    const uint8_t *p;

    s->len = view_u8(v);
    p = s->len > sizeof(s->octets) ? NULL : view_octets(v, s->len);
    if (v->error < 0 || s->len == 0 || s->len > sizeof(s->octets))
        return TEKD_EFORMAT;
    memcpy(s->key_id, id, sizeof(s->key_id));
    memcpy(s->octets, p, s->len);
    return 0;
}

static int get_note(struct view *v, struct note *n)
{
    const uint8_t *root;
    uint16_t len;

    if (get_octets(v, (uint8_t *)n->origin, 1, NOTE_ORIGIN_MAX, &len) < 0 ||
        memchr(n->origin, 0, len) != NULL)
        return TEKD_EFORMAT;
    n->origin[len] = 0;
    n->size = view_u64(v);
    root = view_octets(v, sizeof(n->root.octets));
    n->n_signatures = view_u8(v);
    if (v->error < 0 || n->n_signatures > NOTE_SIGS_MAX)
        return TEKD_EFORMAT;
    memcpy(n->root.octets, root, sizeof(n->root.octets));
    for (size_t i = 0; i < n->n_signatures; i++) {
        if (get_note_signature(v, &n->signature[i]) < 0)
            return TEKD_EFORMAT;
    }
    return 0;
}

/* ---------------------------------------------------------------- requests --------- */

static int put_issue(struct buf *b, const struct protocol_request *r)
{
    if (!bits_ok(r->issue.bits))
        return TEKD_EINVAL;
    (void)buf_put_u16(b, r->issue.bits);
    put_kek(b, &r->issue.storage);
    put_kek(b, &r->issue.bsa);
    return 0;
}

static int get_issue(struct view *v, struct protocol_request *r)
{
    r->issue.bits = view_u16(v);
    if (!bits_ok(r->issue.bits) || get_kek(v, HSM_KEK_STORAGE, &r->issue.storage) < 0)
        return TEKD_EFORMAT;
    return get_kek_or_none(v, HSM_KEK_BSA, &r->issue.bsa);
}

static int put_export(struct buf *b, const struct protocol_request *r)
{
    const struct protocol_export *e = &r->export;

    if (!bits_ok(e->bits) || e->stored.len == 0 || e->stored.len > HSM_WRAPPED_MAX)
        return TEKD_EINVAL;
    (void)buf_put_u16(b, e->bits);
    put_kek(b, &e->storage);
    put_kek(b, &e->bsa);
    put_octets(b, e->stored.octets, e->stored.len);
    return 0;
}

static int get_export(struct view *v, struct protocol_request *r)
{
    struct protocol_export *e = &r->export;

    e->bits = view_u16(v);
    if (!bits_ok(e->bits) || get_kek(v, HSM_KEK_STORAGE, &e->storage) < 0 ||
        get_kek(v, HSM_KEK_BSA, &e->bsa) < 0)
        return TEKD_EFORMAT;
    return get_blob(v, 1, &e->stored);
}

static int put_checkpoint(struct buf *b, const struct protocol_request *r)
{
    const struct protocol_checkpoint *c = &r->checkpoint;

    if (c->n > HSM_LEAVES_MAX || c->last.n_signatures > NOTE_SIGS_MAX)
        return TEKD_EINVAL;
    put_note(b, &c->last);
    (void)merkle_range_put(b, &c->range);
    (void)buf_put_u16(b, (uint16_t)c->n);
    (void)buf_append(b, c->leaves, c->n * sizeof(*c->leaves));
    return 0;
}

static int get_checkpoint(struct view *v, struct protocol_request *r)
{
    struct protocol_checkpoint *c = &r->checkpoint;
    const uint8_t *leaves;

    if (get_note(v, &c->last) < 0 || merkle_range_get(v, &c->range) < 0)
        return TEKD_EFORMAT;
    c->n = view_u16(v);
    if (c->n > HSM_LEAVES_MAX)
        return TEKD_EFORMAT;
    leaves = view_octets(v, c->n * sizeof(*c->leaves));
    _Static_assert(_Alignof(struct merkle_hash) == 1, "a hash may lie anywhere in a datagram");
    c->leaves = (const struct merkle_hash *)leaves;
    return 0;
}

static int put_digest(struct buf *b, const struct protocol_request *r)
{
    if (r->digest.len == 0 || r->digest.len > HSM_DIGEST_MAX)
        return TEKD_EINVAL;
    (void)buf_put_u8(b, r->digest.len);
    (void)buf_append(b, r->digest.octets, r->digest.len);
    return 0;
}

static int get_digest(struct view *v, struct protocol_request *r)
{
    const uint8_t *p;

    r->digest.len = view_u8(v);
    p = r->digest.len > HSM_DIGEST_MAX ? NULL : view_octets(v, r->digest.len);
    if (v->error < 0 || r->digest.len == 0 || r->digest.len > HSM_DIGEST_MAX)
        return TEKD_EFORMAT;
    memcpy(r->digest.octets, p, r->digest.len);
    return 0;
}

static int put_health(struct buf *b, const struct protocol_request *r)
{
    put_kek(b, &r->health);
    return 0;
}

static int get_health(struct view *v, struct protocol_request *r)
{
    return get_kek_or_none(v, HSM_KEK_STORAGE, &r->health);
}

static int put_describe(struct buf *b, const struct protocol_request *r)
{
    (void)buf_put_u8(b, (uint8_t)r->describe.use);
    (void)buf_put_u8(b, (uint8_t)r->describe.wrap);
    put_string(b, r->describe.label, HSM_LABEL_MAX);
    return 0;
}

static int get_describe(struct view *v, struct protocol_request *r)
{
    if (get_use(v, &r->describe.use) < 0 || get_wrap(v, &r->describe.wrap) < 0)
        return TEKD_EFORMAT;
    return get_string(v, r->describe.label, 1, HSM_LABEL_MAX);
}

static int put_key(struct buf *b, const struct protocol_request *r)
{
    (void)buf_put_u8(b, (uint8_t)r->key);
    return 0;
}

static int get_key(struct view *v, struct protocol_request *r)
{
    uint8_t key = view_u8(v);

    if (key >= PROTOCOL_KEYS)
        return TEKD_EFORMAT;
    r->key = (enum protocol_key)key;
    return 0;
}

/* ---------------------------------------------------------------- replies ---------- */

static int put_issued(struct buf *b, const struct protocol_reply *r)
{
    put_octets(b, r->issued.stored.octets, r->issued.stored.len);
    put_octets(b, r->issued.data.octets, r->issued.data.len);
    return 0;
}

static int get_issued(struct view *v, struct protocol_reply *r)
{
    if (get_blob(v, 1, &r->issued.stored) < 0)
        return TEKD_EFORMAT;
    return get_blob(v, 0, &r->issued.data);
}

static int put_exported(struct buf *b, const struct protocol_reply *r)
{
    put_octets(b, r->data.octets, r->data.len);
    return 0;
}

static int get_exported(struct view *v, struct protocol_reply *r)
{
    return get_blob(v, 1, &r->data);
}

static int put_signed_note(struct buf *b, const struct protocol_reply *r)
{
    if (r->note.n_signatures > NOTE_SIGS_MAX)
        return TEKD_EINVAL;
    put_note(b, &r->note);
    return 0;
}

static int get_signed_note(struct view *v, struct protocol_reply *r)
{
    return get_note(v, &r->note);
}

static int put_signature(struct buf *b, const struct protocol_reply *r)
{
    put_octets(b, r->signature.octets, r->signature.len);
    return 0;
}

static int get_signature(struct view *v, struct protocol_reply *r)
{
    return get_octets(v, r->signature.octets, 1, HSM_SIGNATURE_MAX, &r->signature.len);
}

static int put_report(struct buf *b, const struct protocol_reply *r)
{
    put_kek(b, &r->report.kek);
    (void)buf_put_u8(b, r->report.imported ? 1 : 0);
    put_string(b, r->report.check_value, sizeof(r->report.check_value) - 1);
    put_string(b, r->report.text, sizeof(r->report.text) - 1);
    return 0;
}

static int get_report(struct view *v, struct protocol_reply *r)
{
    struct hsm_kek_report *p = &r->report;
    uint8_t imported;

    /* On failure the worker reports as far as it came: the label may be missing. */
    if (get_use(v, &p->kek.use) < 0 || get_kek_rest(v, 0, &p->kek) < 0)
        return TEKD_EFORMAT;
    imported = view_u8(v);
    if (imported > 1 || get_string(v, p->check_value, 0, sizeof(p->check_value) - 1) < 0)
        return TEKD_EFORMAT;
    p->imported = imported == 1;
    return get_string(v, p->text, 0, sizeof(p->text) - 1);
}

static int put_spki(struct buf *b, const struct protocol_reply *r)
{
    put_octets(b, r->spki.der, r->spki.len);
    return 0;
}

static int get_spki(struct view *v, struct protocol_reply *r)
{
    return get_octets(v, r->spki.der, 1, HSM_SPKI_MAX, &r->spki.len);
}

static int put_empty(struct buf *b, const struct protocol_reply *r)
{
    (void)b;
    (void)r;
    return 0;
}

static int get_empty(struct view *v, struct protocol_reply *r)
{
    (void)v;
    (void)r;
    return 0;
}

/* ---------------------------------------------------------------- verbs ------------ */

#define ROLE(r)  (1U << (r))
#define ANY_ROLE (ROLE(PROTOCOL_ROLE_KEY) | ROLE(PROTOCOL_ROLE_AUDIT) | ROLE(PROTOCOL_ROLE_TLS))

static const struct verb {
    const char *name; /* NULL: no such verb */
    unsigned roles;
    bool body_always; /* the reply has its body with an error too */
    int (*put_request)(struct buf *b, const struct protocol_request *r);
    int (*get_request)(struct view *v, struct protocol_request *r);
    int (*put_reply)(struct buf *b, const struct protocol_reply *r);
    int (*get_reply)(struct view *v, struct protocol_reply *r);
} verbs[] = {
    [PROTOCOL_ISSUE] = {"issue", ROLE(PROTOCOL_ROLE_KEY), false, put_issue, get_issue, put_issued,
                        get_issued},
    [PROTOCOL_EXPORT] = {"export", ROLE(PROTOCOL_ROLE_KEY), false, put_export, get_export,
                         put_exported, get_exported},
    [PROTOCOL_SIGN_CHECKPOINT] = {"sign-checkpoint", ROLE(PROTOCOL_ROLE_AUDIT), false,
                                  put_checkpoint, get_checkpoint, put_signed_note, get_signed_note},
    [PROTOCOL_SIGN_TLS] = {"sign-tls", ROLE(PROTOCOL_ROLE_TLS), false, put_digest, get_digest,
                           put_signature, get_signature},
    [PROTOCOL_HEALTH] = {"health", ANY_ROLE, false, put_health, get_health, put_empty, get_empty},
    [PROTOCOL_DESCRIBE] = {"describe", ROLE(PROTOCOL_ROLE_KEY), true, put_describe, get_describe,
                           put_report, get_report},
    [PROTOCOL_PUBLIC_KEY] = {"public-key", ROLE(PROTOCOL_ROLE_AUDIT) | ROLE(PROTOCOL_ROLE_TLS),
                             false, put_key, get_key, put_spki, get_spki},
};

static const struct verb *verb_find(uint8_t verb)
{
    return verb < ARRAY_SIZE(verbs) && verbs[verb].name != NULL ? &verbs[verb] : NULL;
}

const char *protocol_verb_name(uint8_t verb)
{
    const struct verb *d = verb_find(verb);

    return d == NULL ? "?" : d->name;
}

const char *protocol_role_name(enum protocol_role role)
{
    static const char *const names[PROTOCOL_ROLES] = {"key", "audit", "tls"};

    return names[role];
}

bool protocol_role_serves(enum protocol_role role, uint8_t verb)
{
    const struct verb *d = verb_find(verb);

    return d != NULL && (d->roles & ROLE(role)) != 0;
}

/* ---------------------------------------------------------------- datagrams -------- */

int protocol_add_request(struct buf *b, const struct protocol_request *r)
{
    const struct verb *d = verb_find(r->verb);
    int e;

    if (d == NULL)
        return TEKD_EINVAL;
    (void)buf_put_u8(b, PROTOCOL_VERSION);
    (void)buf_put_u8(b, r->verb);
    (void)buf_put_u64(b, r->id);
    e = d->put_request(b, r);
    return e < 0 ? e : buf_error(b);
}

int protocol_put_request(struct buf *b, const struct protocol_request *r)
{
    buf_reset(b);
    return protocol_add_request(b, r);
}

int protocol_next_request(struct view *v, struct protocol_request *ret_request)
{
    uint8_t version = view_u8(v);
    const struct verb *d;

    ret_request->verb = view_u8(v);
    ret_request->id = view_u64(v);
    d = verb_find(ret_request->verb);
    if (v->error < 0 || version != PROTOCOL_VERSION || d == NULL ||
        d->get_request(v, ret_request) < 0 || v->error < 0)
        return TEKD_EFORMAT;
    return 0;
}

int protocol_get_request(const void *octets, size_t len, struct protocol_request *ret_request)
{
    struct view v = view_of(octets, len);

    return protocol_next_request(&v, ret_request) < 0 ? TEKD_EFORMAT : view_end(&v);
}

int protocol_add_reply(struct buf *b, const struct protocol_reply *r)
{
    const struct verb *d = verb_find(r->verb);
    int e = 0;

    if (d == NULL || r->error > 0 || r->error < TEKD_EINTERNAL)
        return TEKD_EINVAL;
    (void)buf_put_u8(b, PROTOCOL_VERSION);
    (void)buf_put_u8(b, (uint8_t)(r->verb | REPLY_BIT));
    (void)buf_put_u64(b, r->id);
    (void)buf_put_u8(b, (uint8_t)-r->error);
    (void)buf_put_u8(b, r->leaving ? 1 : 0);
    if (r->error == 0 || d->body_always)
        e = d->put_reply(b, r);
    return e < 0 ? e : buf_error(b);
}

int protocol_put_reply(struct buf *b, const struct protocol_reply *r)
{
    buf_reset(b);
    return protocol_add_reply(b, r);
}

int protocol_next_reply(struct view *v, struct protocol_reply *ret_reply)
{
    uint8_t version = view_u8(v);
    uint8_t verb = view_u8(v);
    const struct verb *d;
    uint8_t leaving;

    ret_reply->verb = (uint8_t)(verb & ~REPLY_BIT);
    ret_reply->id = view_u64(v);
    ret_reply->error = -(int)view_u8(v);
    leaving = view_u8(v);
    d = verb_find(ret_reply->verb);
    if (v->error < 0 || version != PROTOCOL_VERSION || (verb & REPLY_BIT) == 0 || d == NULL ||
        leaving > 1 || ret_reply->error < TEKD_EINTERNAL)
        return TEKD_EFORMAT;
    ret_reply->leaving = leaving == 1;
    if ((ret_reply->error == 0 || d->body_always) && d->get_reply(v, ret_reply) < 0)
        return TEKD_EFORMAT;
    return v->error;
}

int protocol_get_reply(const void *octets, size_t len, struct protocol_reply *ret_reply)
{
    struct view v = view_of(octets, len);

    return protocol_next_reply(&v, ret_reply) < 0 ? TEKD_EFORMAT : view_end(&v);
}
