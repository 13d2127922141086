/* Signing keys. */
#include "token/token_impl.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

#define ED25519_SIGNATURE_LEN 64
#define HALF_MAX              48 /* octets of r, and of s, of P-384 */

struct token_signing {
    struct token *t;
    CK_OBJECT_HANDLE object;
    EVP_PKEY *public;
    CK_MECHANISM_TYPE mechanism;
    size_t half; /* octets of r and of s; 0: Ed25519 */
};

/* A label may be given plainly or in a URI; the URI may name the token once more. */
struct wanted {
    char label[HSM_LABEL_MAX + 1];
    uint8_t id[HSM_ID_MAX];
    size_t id_len;
};

static int take_attribute(struct token *t, P11KitUri *uri, CK_ATTRIBUTE_TYPE type,
                          struct token_octets to, size_t *ret_len)
{
    const CK_ATTRIBUTE *a = p11_kit_uri_get_attribute(uri, type);

    *ret_len = 0;
    if (!a)
        return 0;
    if (a->ulValueLen > to.max)
        return token_say(t, TEKD_EINVAL, "key URI: a name in it is too long");
    memcpy(to.data, a->pValue, a->ulValueLen);
    *ret_len = a->ulValueLen;
    return 0;
}

static int read_parsed(struct token *t, P11KitUri *uri, struct wanted *w)
{
    struct token_octets label = {w->label, HSM_LABEL_MAX}, id = {w->id, sizeof(w->id)};
    size_t len = 0;
    int r;

    if (p11_kit_uri_get_pin_value(uri) || p11_kit_uri_get_pin_source(uri) ||
        p11_kit_uri_any_unrecognized(uri))
        return token_say(t, TEKD_EINVAL, "key URI: only token, object, id and type have a place");
    if (!p11_kit_uri_match_token_info(uri, &t->raw))
        return token_say(t, TEKD_EINVAL, "key URI: it names another token");
    r = take_attribute(t, uri, CKA_LABEL, label, &len);
    if (r < 0)
        return r;
    w->label[len] = '\0';
    if (len == 0)
        return token_say(t, TEKD_EINVAL, "key URI: no object= in it");
    return take_attribute(t, uri, CKA_ID, id, &w->id_len);
}

static int read_name(struct token *t, const char *name, struct wanted *ret_w)
{
    struct wanted w = {.id_len = 0};
    P11KitUri *uri;
    int r;

    if (strncmp(name, "pkcs11:", 7) != 0) {
        if (strlen(name) > HSM_LABEL_MAX)
            return token_say(t, TEKD_EINVAL, "a key's label has at most %d octets", HSM_LABEL_MAX);
        memcpy(w.label, name, strlen(name) + 1);
        *ret_w = w;
        return 0;
    }
    uri = p11_kit_uri_new();
    if (!uri)
        return TEKD_ENOMEM;
    r = p11_kit_uri_parse(name, P11_KIT_URI_FOR_OBJECT_ON_TOKEN, uri);
    r = r == P11_KIT_URI_OK ? read_parsed(t, uri, &w)
                            : token_say(t, TEKD_EINVAL, "key URI: %s", p11_kit_uri_message(r));
    p11_kit_uri_free(uri);
    if (r == 0)
        *ret_w = w;
    return r;
}

/* ---------------------------------------------------------------- signing ---------- */

int token_signing_sign(struct token_signing *k, const void *data, size_t len,
                       struct hsm_signature *ret_signature)
{
    CK_MECHANISM mechanism = {.mechanism = k->mechanism};
    CK_ULONG expected = k->half ? 2 * k->half : ED25519_SIGNATURE_LEN;
    struct token *t = k->t;
    CK_BYTE out[2 * HALF_MAX];
    CK_ULONG out_len = sizeof(out);
    CK_RV rv;

    if (k->half ? len == 0 || len > HSM_DIGEST_MAX : len > TOKEN_TEXT_MAX)
        return TEKD_EINVAL;
    if (k->half && len > k->half)
        len = k->half; /* FIPS 186-4, 6.4: the leftmost bits of a digest */
    rv = t->f->C_SignInit(t->session, &mechanism, k->object);
    if (rv != CKR_OK)
        return token_log(t, "C_SignInit", rv);
    rv = t->f->C_Sign(t->session, (CK_BYTE *)(uintptr_t)data, len, out, &out_len);
    if (rv != CKR_OK)
        return token_log(t, "C_Sign", rv);
    if (out_len != expected)
        return token_say(t, TEKD_EHSM, "C_Sign: a signature of %lu octets, not %lu", out_len,
                         expected);
    if (k->half)
        return token_ecdsa_der(out, k->half, ret_signature);
    memcpy(ret_signature->octets, out, out_len);
    ret_signature->len = (uint16_t)out_len;
    return 0;
}

/* ---------------------------------------------------------------- finding ---------- */

int token_sign_has_eddsa(struct token *t, const char *label)
{
    CK_MECHANISM_INFO info = {.flags = 0};
    CK_RV rv = t->f->C_GetMechanismInfo(t->slot_id, CKM_EDDSA, &info);

    if (rv == CKR_OK && (info.flags & CKF_SIGN) != 0)
        return 0;
    if (rv != CKR_OK && rv != CKR_MECHANISM_INVALID)
        return token_log(t, "C_GetMechanismInfo", rv);
    return token_say(t, TEKD_ENOTFOUND, "key \"%s\": the token has no CKM_EDDSA (Ed25519)", label);
}

static bool verifies_ecdsa(EVP_PKEY *key, const struct hsm_signature *s, const uint8_t *data,
                           size_t len)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    bool ok = ctx && EVP_PKEY_verify_init(ctx) > 0 &&
              EVP_PKEY_verify(ctx, s->octets, s->len, data, len) > 0;

    EVP_PKEY_CTX_free(ctx);
    return ok;
}

static bool verifies_ed25519(EVP_PKEY *key, const struct hsm_signature *s, const uint8_t *data,
                             size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestVerify(ctx, s->octets, s->len, data, len) == 1;

    EVP_MD_CTX_free(ctx);
    return ok;
}

/* The public half is an object of its own: a signature shows that it belongs to the private one. */
static int halves_agree(struct token_signing *k, bool *ret_agree)
{
    static const uint8_t data[32] = {1};
    struct hsm_signature s = {.len = 0};
    int r = token_signing_sign(k, data, sizeof(data), &s);

    if (r < 0)
        return r;
    *ret_agree = (k->half ? verifies_ecdsa : verifies_ed25519)(k->public, &s, data, sizeof(data));
    ERR_clear_error();
    return 0;
}

/* Which curve it is on, for what it is wanted; what is wrong with that. */
static const char *take_curve(struct token_signing *k, enum token_signer which)
{
    char group[32] = "";

    if (which == TOKEN_SIGN_ED25519) {
        k->mechanism = CKM_EDDSA;
        return EVP_PKEY_get_base_id(k->public) == EVP_PKEY_ED25519 ? NULL : "it is no Ed25519 key";
    }
    if (EVP_PKEY_get_base_id(k->public) != EVP_PKEY_EC)
        return "it is no EC key";
    k->mechanism = CKM_ECDSA;
    (void)EVP_PKEY_get_group_name(k->public, group, sizeof(group), NULL);
    if (strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0)
        k->half = 32;
    if (which == TOKEN_SIGN_TLS && strcmp(group, "secp384r1") == 0)
        k->half = 48;
    if (k->half)
        return NULL;
    return which == TOKEN_SIGN_CHECKPOINT ? "it is not on curve P-256"
                                          : "it is on neither P-256 nor P-384";
}

/* By its id, or by its label if it has none; NULL if it is not there once. */
static int read_public(struct token_signing *k, const struct token_key *found)
{
    struct token_template tpl = {.n = 0};
    CK_OBJECT_HANDLE o[2];
    size_t n = 0;
    int r;

    token_attr_add_number(&tpl, CKA_CLASS, CKO_PUBLIC_KEY);
    token_attr_add_bool(&tpl, CKA_TOKEN, true);
    if (found->id_len)
        token_attr_add(&tpl, CKA_ID, found->id, found->id_len);
    else
        token_attr_add(&tpl, CKA_LABEL, found->label, strlen(found->label));
    r = token_attr_find(k->t, &tpl, o, ARRAY_SIZE(o), &n);
    if (r == TEKD_ETOOBIG || (r == 0 && n != 1))
        return 0;
    return r < 0 ? r : token_key_public_of(k->t, o[0], &k->public);
}

static int check_key(struct token *t, enum token_signer which, const struct wanted *w,
                     struct token_signing *k)
{
    enum token_kind kind = which == TOKEN_SIGN_ED25519 ? TOKEN_SIGNING_ED25519 : TOKEN_SIGNING_KEY;
    struct token_query q = {CKO_PRIVATE_KEY, w->label, w->id, w->id_len};
    char text[TOKEN_REASON_MAX];
    struct token_key found = {.kind = kind};
    int r;

    r = token_key_one(t, &q, &k->object);
    if (r == 0)
        r = token_key_read(t, k->object, kind, &found);
    if (r == 0 && found.findings.n != 0) {
        token_rules_text(&found.findings, text);
        return token_say(t, TEKD_EWEAK, "key \"%s\": %s", w->label, text);
    }
    return r < 0 ? r : read_public(k, &found);
}

/* What is wrong with the key that was found, or NULL; an error says nothing of the key. */
static int find_fault(struct token_signing *k, enum token_signer which, const char **ret_fault)
{
    bool agree = false;
    int r;

    if (k->public)
        *ret_fault = take_curve(k, which);
    if (*ret_fault)
        return 0;
    r = k->public ? halves_agree(k, &agree) : 0;
    if (r == 0 && !agree)
        *ret_fault = "what it signs does not verify with its public half: is that in the token?";
    return r;
}

int token_sign_key(struct token *t, enum token_signer which, const char *name,
                   struct token_signing **ret_key)
{
    AUTO(token_signing) struct token_signing *k = calloc(1, sizeof(*k));
    struct wanted w = {.id_len = 0};
    const char *fault = NULL;
    int r;

    if (!k)
        return TEKD_ENOMEM;
    k->t = t;
    r = read_name(t, name, &w);
    if (r == 0 && which == TOKEN_SIGN_ED25519)
        r = token_sign_has_eddsa(t, w.label);
    if (r == 0)
        r = check_key(t, which, &w, k);
    if (r == 0)
        r = find_fault(k, which, &fault);
    if (r < 0)
        return r;
    if (fault)
        return token_say(t, TEKD_EWEAK, "key \"%s\": %s", w.label, fault);
    *ret_key = TAKE(k);
    return 0;
}

void token_signing_free(struct token_signing *k)
{
    if (!k)
        return;
    EVP_PKEY_free(k->public);
    free(k);
}

EVP_PKEY *token_signing_public(const struct token_signing *k)
{
    return k->public;
}
