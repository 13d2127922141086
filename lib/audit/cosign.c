#include <inttypes.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>

#include "audit.h"
#include "tekd/cosign.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define KEY_ID_LEN   4
#define TYPE         0x04
#define TIME_LEN     8
#define KEY_DATA_LEN (1 + COSIGN_KEY_LEN)
#define PAYLOAD_LEN  (KEY_ID_LEN + TIME_LEN + COSIGN_SIG_LEN)
/* "cosignature/v1", "time " and 20 digits, line ends. */
#define MESSAGE_MAX (NOTE_TEXT_MAX + 64)

static void context_freep(EVP_MD_CTX **p)
{
    EVP_MD_CTX_free(*p);
}

static void key_freep(EVP_PKEY **p)
{
    EVP_PKEY_free(*p);
}

/* ---- keys ---- */

static int make_key_id(const struct cosign_key *k, uint8_t ret_id[static KEY_ID_LEN])
{
    static const uint8_t type[] = {'\n', TYPE};
    __attribute__((cleanup(context_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t digest[EVP_MAX_MD_SIZE];

    if (!ctx || EVP_DigestInit_ex2(ctx, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(ctx, k->name, strlen(k->name)) != 1 ||
        EVP_DigestUpdate(ctx, type, sizeof type) != 1 ||
        EVP_DigestUpdate(ctx, k->octets, sizeof k->octets) != 1 ||
        EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        return TEKD_ECRYPTO;
    memcpy(ret_id, digest, KEY_ID_LEN);
    return 0;
}

static bool take_name(const char *s, size_t len, char *out)
{
    if (!note_name_ok(s, len))
        return false;
    memcpy(out, s, len);
    out[len] = '\0';
    return true;
}

/* What is behind the name: "+", the key id, "+", the key. */
static bool read_key_data(const char *s, size_t len, struct cosign_key *k)
{
    const size_t before = 1 + ENC_HEX_LEN(KEY_ID_LEN) + 1;
    uint8_t data[KEY_DATA_LEN];
    size_t n = 0;

    if (len <= before || s[before - 1] != '+' ||
        enc_hex_read(s + 1, before - 2, k->key_id, KEY_ID_LEN) < 0)
        return false;
    if (enc_base64_read(s + before, len - before, data, sizeof data, &n) < 0 || n != sizeof data ||
        data[0] != TYPE)
        return false;
    memcpy(k->octets, data + 1, COSIGN_KEY_LEN);
    return true;
}

int cosign_key_read(const char *text, size_t len, struct cosign_key *ret_key)
{
    const char *plus = memchr(text, '+', len);
    struct cosign_key k = {.key_id = {0}};
    uint8_t id[KEY_ID_LEN];
    int r;

    if (!plus || !take_name(text, (size_t)(plus - text), k.name) ||
        !read_key_data(plus, len - (size_t)(plus - text), &k))
        return TEKD_EFORMAT;
    r = make_key_id(&k, id);
    if (r < 0)
        return r;
    if (memcmp(id, k.key_id, sizeof id) != 0)
        return TEKD_EFORMAT;
    *ret_key = k;
    return 0;
}

/* ---- cosignatures ---- */

static bool read_payload(const char *s, size_t len, struct cosignature *c)
{
    uint8_t payload[PAYLOAD_LEN];
    size_t n = 0;
    struct view v;
    uint64_t time_s;

    if (enc_base64_read(s, len, payload, sizeof payload, &n) < 0 || n != sizeof payload)
        return false;
    v = view_of(payload, n);
    memcpy(c->key_id, view_octets(&v, KEY_ID_LEN), KEY_ID_LEN);
    time_s = view_u64(&v);
    memcpy(c->octets, view_octets(&v, COSIGN_SIG_LEN), COSIGN_SIG_LEN);
    c->time_s = (int64_t)time_s;
    return time_s <= COSIGN_TIME_MAX;
}

int cosign_line_read(const char *line, size_t len, struct cosignature *ret_cosignature)
{
    const size_t dash_len = sizeof NOTE_DASH - 1;
    const char *name, *space;
    struct cosignature c = {.time_s = 0};

    if (len <= dash_len || len >= COSIGN_LINE_MAX || memcmp(line, NOTE_DASH, dash_len) != 0)
        return TEKD_EFORMAT;
    name = line + dash_len;
    space = memchr(name, ' ', len - dash_len);
    if (!space || !take_name(name, (size_t)(space - name), c.name) ||
        !read_payload(space + 1, len - (size_t)(space + 1 - line), &c))
        return TEKD_EFORMAT;
    *ret_cosignature = c;
    return 0;
}

static int verify_octets(const struct cosignature *c, const struct cosign_key *key,
                         const struct buf *message)
{
    __attribute__((cleanup(context_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    __attribute__((cleanup(key_freep))) EVP_PKEY *pkey =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key->octets, sizeof key->octets);

    if (!ctx)
        return TEKD_ENOMEM;
    if (!pkey || EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) != 1 ||
        EVP_DigestVerify(ctx, c->octets, sizeof c->octets, buf_data(message), buf_len(message)) !=
            1)
        return TEKD_ECRYPTO;
    return 0;
}

int cosign_verify(const struct cosignature *c, const struct cosign_key *key, const struct note *n)
{
    AUTO(buf) struct buf *message = NULL;
    int r;

    if (strcmp(c->name, key->name) != 0 || memcmp(c->key_id, key->key_id, KEY_ID_LEN) != 0)
        return TEKD_ENOTFOUND;
    r = buf_new(MESSAGE_MAX, &message);
    if (r == 0)
        r = buf_printf(message, "cosignature/v1\ntime %" PRId64 "\n", c->time_s);
    if (r == 0)
        r = note_text(n->origin, n->size, &n->root, message);
    return r < 0 ? r : verify_octets(c, key, message);
}

int cosign_note_read(const void *octets, size_t len, struct note *ret_note,
                     struct cosignature *ret_cosignature)
{
    const char *text = octets;
    const char *end = NULL; /* of the note */

    if (len == 0 || text[len - 1] != '\n')
        return TEKD_EFORMAT;
    end = memrchr(text, '\n', len - 1);
    if (!end || note_read(text, (size_t)(end + 1 - text), ret_note) < 0)
        return TEKD_EFORMAT;
    return cosign_line_read(end + 1, len - (size_t)(end + 1 - text) - 1, ret_cosignature);
}
