/* Signing keys, through libp11. */
#include "token/token_impl.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

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

/* libp11's object of the key whose label and id were found to be unique. */
static PKCS11_KEY *pick(const struct token_key *want, PKCS11_KEY *keys, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (keys[i].label && strcmp(keys[i].label, want->label) == 0 &&
            keys[i].id_len == want->id_len &&
            (want->id_len == 0 || memcmp(keys[i].id, want->id, want->id_len) == 0))
            return &keys[i];
    }
    return NULL;
}

/* The public half is an object of its own: a signature shows that it belongs to the private one. */
static bool halves_agree(EVP_PKEY *key)
{
    static const unsigned char digest[32] = {1};
    EVP_PKEY_CTX *sign = EVP_PKEY_CTX_new(key, NULL), *verify = EVP_PKEY_CTX_new(key, NULL);
    unsigned char sig[HSM_SIGNATURE_MAX];
    size_t len = sizeof(sig);
    bool ok;

    ok = sign && verify && EVP_PKEY_sign_init(sign) > 0 &&
         EVP_PKEY_sign(sign, sig, &len, digest, sizeof(digest)) > 0 &&
         EVP_PKEY_verify_init(verify) > 0 &&
         EVP_PKEY_verify(verify, sig, len, digest, sizeof(digest)) > 0;
    EVP_PKEY_CTX_free(sign);
    EVP_PKEY_CTX_free(verify);
    return ok;
}

static const char *key_fault(EVP_PKEY *key, enum token_signer which)
{
    char group[32] = "";

    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC)
        return "it is no EC key";
    (void)EVP_PKEY_get_group_name(key, group, sizeof(group), NULL);
    if (strcmp(group, "prime256v1") != 0 && strcmp(group, "P-256") != 0 &&
        (which == TOKEN_SIGN_CHECKPOINT || strcmp(group, "secp384r1") != 0))
        return which == TOKEN_SIGN_CHECKPOINT ? "it is not on curve P-256"
                                              : "it is on neither P-256 nor P-384";
    if (!halves_agree(key))
        return "what it signs does not verify with its public half: is that in the token?";
    return NULL;
}

static int check_key(struct token *t, const struct wanted *w, struct token_key *ret_key)
{
    struct token_query q = {CKO_PRIVATE_KEY, w->label, w->id, w->id_len};
    char text[TOKEN_REASON_MAX];
    CK_OBJECT_HANDLE o = 0;
    int r;

    r = token_key_one(t, &q, &o);
    if (r == 0)
        r = token_key_read(t, o, TOKEN_SIGNING_KEY, ret_key);
    if (r < 0 || ret_key->findings.n == 0)
        return r;
    token_rules_text(&ret_key->findings, text);
    return token_say(t, TEKD_EWEAK, "key \"%s\": %s", w->label, text);
}

int token_sign_key(struct token *t, enum token_signer which, const char *name, EVP_PKEY **ret_key)
{
    struct wanted w = {.id_len = 0};
    struct token_key found = {.kind = 0};
    PKCS11_KEY *keys = NULL, *p11 = NULL;
    EVP_PKEY *key = NULL;
    const char *fault;
    unsigned n = 0;
    int r;

    r = read_name(t, name, &w);
    if (r == 0)
        r = check_key(t, &w, &found);
    if (r < 0)
        return r;
    if (PKCS11_enumerate_keys(t->slot->token, &keys, &n) == 0)
        p11 = pick(&found, keys, n);
    if (p11)
        key = PKCS11_get_private_key(p11);
    if (!key) {
        ERR_clear_error();
        return token_say(t, TEKD_EHSM, "key \"%s\": libp11 cannot use it", w.label);
    }
    fault = key_fault(key, which);
    ERR_clear_error();
    if (fault) {
        EVP_PKEY_free(key);
        return token_say(t, TEKD_EWEAK, "key \"%s\": %s", w.label, fault);
    }
    *ret_key = key;
    return 0;
}
