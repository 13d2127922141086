/*
 * The note, octet by octet (LF is 0x0a, the dash is U+2014: e2 80 94):
 *     <origin> LF <size> LF <root> LF LF
 *     e2 80 94 20 <origin> 20 <base64 of 4 octets key id and the signature>
 * LF      1..NOTE_SIGS_MAX Extension lines and signatures under other names are refused: our logs
 * have none, and a reader that skips what it does not know accepts more than one form of the same
 * statement.
 */
#include <assert.h>
#include <inttypes.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/note.h"

#define KEY_ID_LEN     4
#define ED25519_LEN    32
#define ED25519_TYPE   0x01
#define P256_POINT_LEN 65 /* 0x04, x, y */
#define PAYLOAD_MAX    (KEY_ID_LEN + NOTE_SIG_MAX)
#define SIZE_DIGITS    20
#define ROOT_TEXT_LEN  ((size_t)ENC_BASE64_LEN(MERKLE_HASH_LEN))

static const char dash[] = NOTE_DASH;

/* What a key name must not hold (C2SP signed-note): white space of Unicode, '+', controls. */
static bool name_char_ok(uint32_t c)
{
    static const uint32_t spaces[] = {0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000};

    if (c <= ' ' || c == 0x7f || c == '+' || (c >= 0x2000 && c <= 0x200a))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(spaces); i++)
        if (c == spaces[i])
            return false;
    return true;
}

bool note_name_ok(const char *s, size_t len)
{
    uint32_t c;

    if (len == 0 || len > NOTE_ORIGIN_MAX)
        return false;
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_read(s + i, len - i, &c);
        if (n == 0 || !name_char_ok(c))
            return false;
    }
    return true;
}

int note_origin(const char *bsm_id, uint64_t epoch, char *out)
{
    char text[NOTE_ORIGIN_MAX + 1];
    int n;

    if (bsm_id[0] == '\0' || epoch == 0)
        return TEKD_EINVAL;
    n = snprintf(text, sizeof text, "%s/tekd/audit/%" PRIu64, bsm_id, epoch);
    if (n < 0 || (size_t)n >= sizeof text || !note_name_ok(text, (size_t)n))
        return TEKD_EINVAL;
    memcpy(out, text, (size_t)n + 1);
    return 0;
}

int note_text(const char *origin, uint64_t size, const struct merkle_hash *root, struct buf *out)
{
    char root_text[ROOT_TEXT_LEN + 1];

    enc_base64(root->octets, sizeof root->octets, root_text);
    return buf_printf(out, "%s\n%" PRIu64 "\n%s\n", origin, size, root_text);
}

static int write_signature(const char *origin, const struct note_signature *s, struct buf *out)
{
    uint8_t payload[PAYLOAD_MAX];
    char text[ENC_BASE64_LEN(PAYLOAD_MAX) + 1];

    assert(s->len <= NOTE_SIG_MAX);
    memcpy(payload, s->key_id, KEY_ID_LEN);
    memcpy(payload + KEY_ID_LEN, s->octets, s->len);
    enc_base64(payload, KEY_ID_LEN + s->len, text);
    return buf_printf(out, "%s%s %s\n", dash, origin, text);
}

int note_write(const struct note *n, struct buf *out)
{
    int r;

    assert(n->n_signatures <= NOTE_SIGS_MAX);
    r = note_text(n->origin, n->size, &n->root, out);
    if (r < 0)
        return r;
    r = buf_putc(out, '\n');
    for (size_t i = 0; r == 0 && i < n->n_signatures; i++)
        r = write_signature(n->origin, &n->signature[i], out);
    return r;
}

struct line {
    const char *s;
    size_t len;
};

/* Takes one line off what is left; false when there is no line end. */
static bool line_take(struct line *left, struct line *ret_line)
{
    const char *end = memchr(left->s, '\n', left->len);

    if (!end)
        return false;
    ret_line->s = left->s;
    ret_line->len = (size_t)(end - left->s);
    left->len -= ret_line->len + 1;
    left->s = end + 1;
    return true;
}

static bool read_text(struct line *left, struct note *n)
{
    struct line origin, size, root, empty;
    size_t root_len = 0;

    if (!line_take(left, &origin) || !line_take(left, &size) || !line_take(left, &root) ||
        !line_take(left, &empty))
        return false;
    if (!note_name_ok(origin.s, origin.len) || decimal_read(size.s, size.len, &n->size) < 0 ||
        empty.len != 0 || root.len != ROOT_TEXT_LEN)
        return false;
    if (enc_base64_read(root.s, root.len, n->root.octets, MERKLE_HASH_LEN, &root_len) < 0 ||
        root_len != MERKLE_HASH_LEN)
        return false;
    memcpy(n->origin, origin.s, origin.len);
    n->origin[origin.len] = '\0';
    return true;
}

static bool read_signature(const struct line *line, struct note *n)
{
    const size_t dash_len = sizeof dash - 1;
    const size_t name_len = strlen(n->origin);
    const size_t before = dash_len + name_len + 1;
    uint8_t payload[PAYLOAD_MAX];
    size_t len = 0;

    if (line->len <= before || memcmp(line->s, dash, dash_len) != 0 ||
        memcmp(line->s + dash_len, n->origin, name_len) != 0 || line->s[before - 1] != ' ')
        return false;
    if (enc_base64_read(line->s + before, line->len - before, payload, sizeof payload, &len) < 0 ||
        len <= KEY_ID_LEN)
        return false;
    return note_add(n, payload, payload + KEY_ID_LEN, len - KEY_ID_LEN) == 0;
}

int note_read(const void *octets, size_t len, struct note *ret_note)
{
    struct line left = {octets, len};
    struct note n = {.size = 0};
    struct line line;

    if (len > NOTE_MAX || !read_text(&left, &n))
        return TEKD_EFORMAT;
    while (left.len > 0)
        if (!line_take(&left, &line) || !read_signature(&line, &n))
            return TEKD_EFORMAT;
    if (n.n_signatures == 0)
        return TEKD_EFORMAT;
    *ret_note = n;
    return 0;
}

int note_add(struct note *n, const uint8_t key_id[static 4], const uint8_t *sig, size_t len)
{
    struct note_signature *s = &n->signature[n->n_signatures];

    if (n->n_signatures >= NOTE_SIGS_MAX || len == 0 || len > NOTE_SIG_MAX)
        return TEKD_ETOOBIG;
    memcpy(s->key_id, key_id, KEY_ID_LEN);
    memcpy(s->octets, sig, len);
    s->len = len;
    n->n_signatures++;
    return 0;
}

static bool is_p256(EVP_PKEY *key)
{
    char group[32] = "";

    return EVP_PKEY_is_a(key, "EC") &&
           EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

/* EVP_MD_CTX is OpenSSL's typedef: no AUTO(), but the same. */
static void context_freep(EVP_MD_CTX **p)
{
    EVP_MD_CTX_free(*p);
}

/* SubjectPublicKeyInfo of a P-256 key (RFC 5480) up to its uncompressed point. */
static const uint8_t p256_prefix[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

/*
 * i2d_PUBKEY() looks for an encoder among OpenSSL's providers at each call, which takes longer than
 * a signature; checkpoints are signed and checked hundreds of times a second.
 */
static bool hash_spki(EVP_MD_CTX *ctx, EVP_PKEY *key)
{
    uint8_t point[P256_POINT_LEN];
    size_t len = 0;

    return EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point,
                                           &len) == 1 &&
           len == sizeof point && point[0] == POINT_CONVERSION_UNCOMPRESSED &&
           EVP_DigestUpdate(ctx, p256_prefix, sizeof p256_prefix) == 1 &&
           EVP_DigestUpdate(ctx, point, sizeof point) == 1;
}

static bool hash_ed25519(EVP_MD_CTX *ctx, const char *origin, EVP_PKEY *key)
{
    static const uint8_t type[] = {'\n', ED25519_TYPE};
    uint8_t raw[ED25519_LEN];
    size_t len = sizeof raw;

    return EVP_PKEY_is_a(key, "ED25519") && EVP_PKEY_get_raw_public_key(key, raw, &len) == 1 &&
           EVP_DigestUpdate(ctx, origin, strlen(origin)) == 1 &&
           EVP_DigestUpdate(ctx, type, sizeof type) == 1 && EVP_DigestUpdate(ctx, raw, len) == 1;
}

int note_key_id(const char *origin, EVP_PKEY *key, uint8_t ret_id[static 4])
{
    __attribute__((cleanup(context_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t digest[EVP_MAX_MD_SIZE];

    if (!ctx || EVP_DigestInit_ex2(ctx, EVP_sha256(), NULL) != 1)
        return TEKD_ECRYPTO;
    if (!(is_p256(key) ? hash_spki(ctx, key) : hash_ed25519(ctx, origin, key)))
        return TEKD_ECRYPTO;
    if (EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        return TEKD_ECRYPTO;
    memcpy(ret_id, digest, KEY_ID_LEN);
    return 0;
}

static int verify_one(const struct note_signature *s, EVP_PKEY *key, const struct buf *text)
{
    __attribute__((cleanup(context_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const EVP_MD *md = EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();

    if (!ctx)
        return TEKD_ENOMEM;
    if (EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) != 1 ||
        EVP_DigestVerify(ctx, s->octets, s->len, buf_data(text), buf_len(text)) != 1)
        return TEKD_ECRYPTO;
    return 0;
}

/* A line of a known key that does not verify spoils the note, even beside one that does. */
int note_verify(const struct note *n, EVP_PKEY *key)
{
    AUTO(buf) struct buf *text = NULL;
    uint8_t id[KEY_ID_LEN];
    int found = TEKD_ENOTFOUND;
    int r;

    r = note_key_id(n->origin, key, id);
    if (r < 0)
        return r;
    r = buf_new(NOTE_TEXT_MAX, &text);
    if (r == 0)
        r = note_text(n->origin, n->size, &n->root, text);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n->n_signatures; i++) {
        if (memcmp(n->signature[i].key_id, id, KEY_ID_LEN) != 0)
            continue;
        found = verify_one(&n->signature[i], key, text);
        if (found < 0)
            return found;
    }
    return found;
}
