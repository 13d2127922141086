/*
 * The vendors, a row each, and finding out by a known answer under which code a token does a wrap.
 * No vendor's code stands anywhere else.
 */
#include "token/token_impl.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "tekd/log.h"

/* AES key wrap got its standard codes late; before that each vendor took one of his own. */
#define KW           CKM_AES_KEY_WRAP     /* 0x2109 */
#define KWP_PAD      CKM_AES_KEY_WRAP_PAD /* 0x210a: RFC 5649 with some, PKCS padding with others */
#define KWP          0x210bUL             /* CKM_AES_KEY_WRAP_KWP of PKCS#11 3.0 */
#define LUNA_KW      0x80000170UL
#define LUNA_KWP     0x80000171UL
#define CLOUDHSM_KW  0x80002109UL
#define CLOUDHSM_KWP 0x8000216fUL

/*
 * Only softhsm was run against; the others are from their makers' documents.
 * That is why every code is tried with a known answer, and what is played at the start decides.
 */
static const struct token_profile profiles[] = {
    {.name = "softhsm",
     .aes_kw = {KW},
     .aes_kwp = {KWP_PAD},
     .unwrap_template = true,
     .bad_blob = CKR_GENERAL_ERROR},
    {.name = "luna", .aes_kw = {LUNA_KW}, .aes_kwp = {LUNA_KWP, KWP}, .unwrap_template = true},
    {.name = "nshield",
     .aes_kw = {KW},
     .aes_kwp = {KWP_PAD, KWP},
     .unwrap_template = true,
     .trusted = true},
    {.name = "cloudhsm", .aes_kw = {CLOUDHSM_KW}, .aes_kwp = {CLOUDHSM_KWP}},
    {.name = "opencryptoki"},
    {.name = "generic",
     .aes_kw = {KW, LUNA_KW, CLOUDHSM_KW},
     .aes_kwp = {KWP, KWP_PAD, LUNA_KWP, CLOUDHSM_KWP},
     .unwrap_template = true},
};

const struct token_profile *token_profile_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(profiles); i++) {
        if (strcmp(profiles[i].name, name) == 0)
            return &profiles[i];
    }
    return NULL;
}

const char *token_profile_name(size_t i)
{
    return i < ARRAY_SIZE(profiles) ? profiles[i].name : NULL;
}

void token_profile_wrap(enum hsm_wrap wrap, CK_MECHANISM_TYPE code,
                        struct token_wrap_mechanism *ret_mechanism)
{
    bool sha256 = wrap == HSM_WRAP_OAEP_SHA256;

    *ret_mechanism = (struct token_wrap_mechanism){
        .mechanism = {.mechanism = code},
        .oaep = {.hashAlg = sha256 ? CKM_SHA256 : CKM_SHA_1,
                 .mgf = sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1,
                 .source = CKZ_DATA_SPECIFIED},
    };
    if (wrap == HSM_WRAP_AES_KW || wrap == HSM_WRAP_AES_KWP)
        return;
    ret_mechanism->mechanism.pParameter = &ret_mechanism->oaep;
    ret_mechanism->mechanism.ulParameterLen = sizeof(ret_mechanism->oaep);
}

/* ---------------------------------------------------------------- known answers ---- */

/* RFC 3394 section 4.6: 256 bits of key data under a 256-bit KEK. */
static const uint8_t kw_kek[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                   16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static const uint8_t kw_data[32] = {
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15};
static const uint8_t kw_wrapped[40] = {0x28, 0xc9, 0xf4, 0x04, 0xc4, 0xb8, 0x10, 0xf4, 0xcb, 0xcc,
                                       0xb3, 0x5c, 0xfb, 0x87, 0xf8, 0x26, 0x3f, 0x57, 0x86, 0xe2,
                                       0xd8, 0x0e, 0xd3, 0x26, 0xcb, 0xc7, 0xf0, 0xe7, 0x1a, 0x99,
                                       0xf4, 0x3b, 0xfb, 0x98, 0x8b, 0x9b, 0x7a, 0x02, 0xdd, 0x21};
/*
 * NIST CAVP, KWP-AE with a 256-bit KEK and 128 bits of data: RFC 5649.  The examples of the RFC
 * wrap 20 and 7 octets, which SoftHSM pads with zeros to a multiple of 8 before it wraps: right
 * for AES keys only, and those are what is wrapped here.
 */
static const uint8_t kwp_kek[32] = {
    0x31, 0x4a, 0x54, 0x99, 0x13, 0x25, 0x6a, 0x71, 0xc6, 0x34, 0x8e, 0xaa, 0xb9, 0xb8, 0x5e, 0xfc,
    0x75, 0x5f, 0xe7, 0x36, 0x56, 0x8f, 0x0d, 0xbc, 0x9f, 0x6f, 0x8b, 0xc3, 0xca, 0x3d, 0x12, 0xee};
static const uint8_t kwp_data[16] = {0x3b, 0x70, 0x0e, 0x96, 0x82, 0x27, 0x5d, 0x8d,
                                     0xbe, 0x61, 0xca, 0x7c, 0x1e, 0xc9, 0x00, 0xe8};
static const uint8_t kwp_wrapped[24] = {0x70, 0xc6, 0x84, 0xc4, 0x91, 0x12, 0xad, 0x8b,
                                        0x8c, 0x3e, 0x13, 0xb9, 0x99, 0x92, 0x12, 0x7b,
                                        0x58, 0xdc, 0xb9, 0xb5, 0x9c, 0xe5, 0xc3, 0xfd};

struct answer {
    struct token_constant kek;
    struct token_constant data;
    const uint8_t *wrapped;
    size_t wrapped_len;
};
static const struct answer kw_answer = {
    {kw_kek, sizeof(kw_kek)},
    {kw_data, sizeof(kw_data)},
    kw_wrapped,
    sizeof(kw_wrapped),
};
static const struct answer kwp_answer = {
    {kwp_kek, sizeof(kwp_kek)},
    {kwp_data, sizeof(kwp_data)},
    kwp_wrapped,
    sizeof(kwp_wrapped),
};

/* Whether code, on this token, is the wrap whose answer is known; returns what C_WrapKey said. */
static CK_RV try_code(struct token *t, CK_MECHANISM_TYPE code, const struct answer *a,
                      const CK_OBJECT_HANDLE keys[static 2], bool *ret_same)
{
    struct token_wrap_mechanism how = {.mechanism = {.mechanism = code}};
    struct hsm_blob blob;
    CK_RV rv = token_tek_wrap_raw(t, &how, keys[0], keys[1], &blob);
    char name[TOKEN_CKR_MAX];

    token_ckr_text(rv, name);
    *ret_same = rv == CKR_OK && blob.len == a->wrapped_len &&
                CRYPTO_memcmp(blob.octets, a->wrapped, a->wrapped_len) == 0;
    log_event(LOG_DEBUG, "hsm", "probe", LOG_INT("mechanism", code), LOG_STR("rv", name),
              LOG_STR("agrees", *ret_same ? "yes" : "no"));
    return rv;
}

/* The first code that answers as it must; 0: none does, and none that said why not had failed. */
static int try_codes(struct token *t, const CK_MECHANISM_TYPE *codes, const struct answer *a,
                     const CK_OBJECT_HANDLE keys[static 2], CK_MECHANISM_TYPE *ret_code)
{
    CK_RV failed = CKR_OK;

    *ret_code = 0;
    for (size_t i = 0; i < TOKEN_CODES_MAX && codes[i]; i++) {
        bool same = false;
        CK_RV rv = try_code(t, codes[i], a, keys, &same);

        if (same) {
            *ret_code = codes[i];
            return 0;
        }
        if (token_has_failed(rv))
            failed = rv;
    }
    return failed == CKR_OK ? 0 : token_log(t, "C_WrapKey", failed);
}

static int probe_aes(struct token *t, enum hsm_wrap wrap, CK_MECHANISM_TYPE *ret_code)
{
    const struct answer *a = wrap == HSM_WRAP_AES_KW ? &kw_answer : &kwp_answer;
    const CK_MECHANISM_TYPE *codes =
        wrap == HSM_WRAP_AES_KW ? t->profile->aes_kw : t->profile->aes_kwp;
    CK_OBJECT_HANDLE keys[2] = {0, 0};
    CK_MECHANISM_TYPE found = 0;
    int r;

    r = token_make_constant(t, &a->kek, &keys[0]);
    if (r == 0)
        r = token_make_constant(t, &a->data, &keys[1]);
    if (r == 0)
        r = try_codes(t, codes, a, keys, &found);
    (void)token_object_destroy(t, keys[0]);
    (void)token_object_destroy(t, keys[1]);
    if (r == 0)
        *ret_code = found;
    return r;
}

/* OAEP has no fixed answer: OpenSSL opens what the token wrapped of the published key. */
static bool opens(EVP_PKEY *key, enum hsm_wrap wrap, const struct hsm_blob *blob)
{
    const EVP_MD *md = wrap == HSM_WRAP_OAEP_SHA256 ? EVP_sha256() : EVP_sha1();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    uint8_t out[HSM_WRAPPED_MAX];
    size_t len = sizeof(out);
    bool same;

    same = ctx && EVP_PKEY_decrypt_init(ctx) > 0 &&
           EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0 &&
           EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) > 0 && EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) > 0 &&
           EVP_PKEY_decrypt(ctx, out, &len, blob->octets, blob->len) > 0 &&
           len == sizeof(kw_data) && CRYPTO_memcmp(out, kw_data, len) == 0;
    EVP_PKEY_CTX_free(ctx);
    return same;
}

static int import_rsa(struct token *t, EVP_PKEY *key, CK_OBJECT_HANDLE *ret_o)
{
    struct token_template tpl = {.n = 0};

    token_attr_add_bool(&tpl, CKA_TOKEN, false);
    token_attr_add_bool(&tpl, CKA_WRAP, true);
    return token_make_rsa_object(t, key, &tpl, ret_o);
}

/*
 * One key pair for both hashes.  Three primes: they are found in half the time of two, and the
 * token sees the product only.
 */
static EVP_PKEY *probe_key(struct token *t)
{
    EVP_PKEY_CTX *ctx;

    if (t->probe_key)
        return t->probe_key;
    ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    if (ctx && EVP_PKEY_keygen_init(ctx) > 0 && EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, 2048) > 0 &&
        EVP_PKEY_CTX_set_rsa_keygen_primes(ctx, 3) > 0)
        (void)EVP_PKEY_generate(ctx, &t->probe_key);
    EVP_PKEY_CTX_free(ctx);
    return t->probe_key;
}

static int probe_oaep(struct token *t, enum hsm_wrap wrap, CK_MECHANISM_TYPE *ret_code)
{
    EVP_PKEY *key = probe_key(t);
    struct token_wrap_mechanism how;
    CK_OBJECT_HANDLE keys[2] = {0, 0};
    struct hsm_blob blob = {.len = 0};
    CK_RV rv = CKR_OK;
    int r = TEKD_ECRYPTO;

    token_profile_wrap(wrap, CKM_RSA_PKCS_OAEP, &how);
    if (key)
        r = import_rsa(t, key, &keys[0]);
    if (r == 0)
        r = token_make_constant(t, &kw_answer.data, &keys[1]);
    if (r == 0)
        rv = token_tek_wrap_raw(t, &how, keys[0], keys[1], &blob);
    if (token_has_failed(rv))
        r = token_log(t, "C_WrapKey", rv);
    if (r == 0)
        *ret_code = rv == CKR_OK && opens(key, wrap, &blob) ? CKM_RSA_PKCS_OAEP : 0;
    (void)token_object_destroy(t, keys[0]);
    (void)token_object_destroy(t, keys[1]);
    return r;
}

int token_profile_mechanism(struct token *t, enum hsm_wrap wrap, unsigned long *ret_mechanism)
{
    struct token_mechanism *m = &t->mechanism[wrap];
    CK_MECHANISM_TYPE code = 0;
    int r;

    if (!m->asked) {
        r = wrap == HSM_WRAP_AES_KW || wrap == HSM_WRAP_AES_KWP ? probe_aes(t, wrap, &code)
                                                                : probe_oaep(t, wrap, &code);
        if (r < 0)
            return r;
        *m = (struct token_mechanism){.asked = true, .found = code != 0, .code = code};
    }
    if (!m->found)
        return token_say(t, TEKD_ENOTFOUND, "no mechanism of profile %s is %s on this token",
                         t->profile->name, hsm_wrap_name(wrap));
    *ret_mechanism = m->code;
    return 0;
}
