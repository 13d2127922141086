/* Finding keys by their names and saying what they are. */
#include "token/token_impl.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"

const char *token_kind_name(enum token_kind kind)
{
    static const char *const names[] = {
        [TOKEN_STORAGE_KEK] = "storage-kek",
        [TOKEN_BSA_KEK] = "bsa-kek",
        [TOKEN_BSA_RSA] = "bsa-rsa-key",
        [TOKEN_SIGNING_KEY] = "signing-key",
    };

    return (size_t)kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "other";
}

CK_OBJECT_CLASS token_key_class(enum token_kind kind)
{
    static const CK_OBJECT_CLASS classes[] = {
        [TOKEN_STORAGE_KEK] = CKO_SECRET_KEY,
        [TOKEN_BSA_KEK] = CKO_SECRET_KEY,
        [TOKEN_BSA_RSA] = CKO_PUBLIC_KEY,
        [TOKEN_SIGNING_KEY] = CKO_PRIVATE_KEY,
    };

    return classes[kind];
}

int token_key_one(struct token *t, const struct token_query *q, CK_OBJECT_HANDLE *ret_o)
{
    struct token_template tpl = {.n = 0};
    CK_OBJECT_HANDLE found[8];
    size_t n;
    int r;

    token_attr_add_number(&tpl, CKA_CLASS, q->class);
    token_attr_add_bool(&tpl, CKA_TOKEN, true);
    token_attr_add(&tpl, CKA_LABEL, q->label, strlen(q->label));
    if (q->id_len)
        token_attr_add(&tpl, CKA_ID, q->id, q->id_len);
    r = token_attr_find(t, &tpl, found, ARRAY_SIZE(found), &n);
    if (r == TEKD_ETOOBIG || (r == 0 && n > 1))
        return token_say(t, TEKD_EEXIST, "the token has more than one key \"%s\"%s", q->label,
                         q->id_len ? " with this id" : "");
    if (r < 0)
        return r;
    if (n == 0)
        return token_say(t, TEKD_ENOTFOUND, "the token has no key \"%s\"%s", q->label,
                         q->id_len ? " with this id" : "");
    *ret_o = found[0];
    return 0;
}

/* ---------------------------------------------------------------- what it is ------- */

static bool is_true(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type)
{
    bool v;

    return token_attr_bool(t, o, type, &v) == 0 && v;
}

static const char *type_name(CK_KEY_TYPE type)
{
    static const struct {
        CK_KEY_TYPE type;
        const char *name;
    } types[] = {{CKK_AES, "AES"}, {CKK_EC, "EC"}, {CKK_RSA, "RSA"}};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (types[i].type == type)
            return types[i].name;
    }
    return "other";
}

/* Label and id; longer ones than ours can be are cut. */
static int read_names(struct token *t, CK_OBJECT_HANDLE o, struct token_key *k)
{
    char label[256];
    size_t len = 0;
    int r;

    r = token_attr_octets(t, o, CKA_LABEL, (struct token_octets){label, sizeof(label)}, &len);
    if (r == 0)
        snprintf(k->label, sizeof(k->label), "%.*s", (int)len, label);
    else if (r == TEKD_EHSM)
        return r;
    r = token_attr_octets(t, o, CKA_ID, (struct token_octets){k->id, sizeof(k->id)}, &len);
    if (r == 0)
        k->id_len = len;
    return r == TEKD_EHSM ? r : 0;
}

static void read_check_value(struct token *t, CK_OBJECT_HANDLE o, struct token_key *k)
{
    uint8_t cv[3];
    size_t len = 0;

    if (token_attr_octets(t, o, CKA_CHECK_VALUE, (struct token_octets){cv, sizeof(cv)}, &len) ==
            0 &&
        len == sizeof(cv))
        enc_hex(cv, sizeof(cv), k->check_value);
}

/* The wrap whose mechanism on this token is the KEK's one allowed mechanism; 0 if none is. */
static enum hsm_wrap read_wrap(struct token *t, CK_OBJECT_HANDLE o, const enum hsm_wrap of[2])
{
    CK_MECHANISM_TYPE allowed;
    unsigned long code;
    size_t len = 0;

    if (token_attr_octets(t, o, CKA_ALLOWED_MECHANISMS,
                          (struct token_octets){&allowed, sizeof(allowed)}, &len) < 0 ||
        len != sizeof(allowed))
        return 0;
    for (size_t i = 0; i < 2; i++) {
        if (token_profile_mechanism(t, of[i], &code) == 0 && code == allowed)
            return of[i];
    }
    return 0;
}

int token_key_read(struct token *t, CK_OBJECT_HANDLE o, enum token_kind kind,
                   struct token_key *ret_key)
{
    static const enum hsm_wrap aes[2] = {HSM_WRAP_AES_KW, HSM_WRAP_AES_KWP};
    static const enum hsm_wrap rsa[2] = {HSM_WRAP_OAEP_SHA1, HSM_WRAP_OAEP_SHA256};
    struct token_key k = {.kind = kind};
    CK_KEY_TYPE type = CK_UNAVAILABLE_INFORMATION;
    unsigned long mechanism = 0;
    bool local;
    int r;

    r = read_names(t, o, &k);
    if (r < 0)
        return r;
    (void)token_attr_number(t, o, CKA_KEY_TYPE, &type);
    k.type = type_name(type);
    k.imported = token_attr_bool(t, o, CKA_LOCAL, &local) == 0 && !local;
    if (type == CKK_AES)
        read_check_value(t, o, &k);
    if (kind == TOKEN_STORAGE_KEK || kind == TOKEN_BSA_KEK || kind == TOKEN_BSA_RSA) {
        k.wrap = read_wrap(t, o, kind == TOKEN_BSA_RSA ? rsa : aes);
        /* With another mechanism than ours the check against one of ours says so. */
        r = token_profile_mechanism(t, k.wrap ? k.wrap : (kind == TOKEN_BSA_RSA ? rsa[0] : aes[0]),
                                    &mechanism);
        if (r < 0 && r != TEKD_ENOTFOUND)
            return r;
    }
    if (kind) {
        r = token_rules_check(t, o, token_rules_of(kind), mechanism, &k.findings);
        if (r < 0)
            return r;
    }
    *ret_key = k;
    return 0;
}

int token_key_find(struct token *t, enum token_kind kind, const char *label,
                   struct token_key *ret_key)
{
    struct token_query q = {.class = token_key_class(kind), .label = label};
    CK_OBJECT_HANDLE o = 0;
    int r;

    r = token_key_one(t, &q, &o);
    if (r < 0)
        return r;
    return token_key_read(t, o, kind, ret_key);
}

/* ---------------------------------------------------------------- all of them ------ */

/* A public key stands for itself only when it wraps: else it is the half of a pair. */
static enum token_kind kind_of(struct token *t, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE o)
{
    CK_KEY_TYPE type = CK_UNAVAILABLE_INFORMATION;

    (void)token_attr_number(t, o, CKA_KEY_TYPE, &type);
    if (class == CKO_SECRET_KEY && type == CKK_AES && is_true(t, o, CKA_UNWRAP))
        return TOKEN_STORAGE_KEK;
    if (class == CKO_SECRET_KEY && type == CKK_AES && is_true(t, o, CKA_WRAP))
        return TOKEN_BSA_KEK;
    if (class == CKO_PUBLIC_KEY && type == CKK_RSA && is_true(t, o, CKA_WRAP))
        return TOKEN_BSA_RSA;
    if (class == CKO_PRIVATE_KEY && type == CKK_EC)
        return TOKEN_SIGNING_KEY;
    return 0;
}

static int each_of_class(struct token *t, CK_OBJECT_CLASS class,
                         int (*visit)(void *arg, const struct token_key *key), void *arg)
{
    AUTO_MEM CK_OBJECT_HANDLE *found = calloc(TOKEN_OBJECTS_MAX, sizeof(*found));
    struct token_template tpl = {.n = 0};
    size_t n;
    int r;

    if (!found)
        return TEKD_ENOMEM;
    token_attr_add_number(&tpl, CKA_CLASS, class);
    token_attr_add_bool(&tpl, CKA_TOKEN, true);
    r = token_attr_find(t, &tpl, found, TOKEN_OBJECTS_MAX, &n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        enum token_kind kind = kind_of(t, class, found[i]);
        struct token_key key;

        if (class == CKO_PUBLIC_KEY && kind == 0)
            continue;
        r = token_key_read(t, found[i], kind, &key);
        if (r == 0)
            r = visit(arg, &key);
    }
    return r;
}

int token_key_each(struct token *t, int (*visit)(void *arg, const struct token_key *key), void *arg)
{
    static const CK_OBJECT_CLASS classes[] = {CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY};
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(classes); i++)
        r = each_of_class(t, classes[i], visit, arg);
    return r;
}

/* ---------------------------------------------------------------- public keys ------ */

/* libp11's key still points into the token; its encoding does not. */
static int detach(struct token *t, EVP_PKEY *key, EVP_PKEY **ret_key)
{
    unsigned char *der = NULL;
    const unsigned char *p;
    EVP_PKEY *own;
    int len = i2d_PUBKEY(key, &der);

    if (len <= 0)
        return token_say(t, TEKD_ECRYPTO, "a public key of the token has no encoding");
    p = der;
    own = d2i_PUBKEY(NULL, &p, len);
    OPENSSL_free(der);
    if (!own)
        return token_say(t, TEKD_ECRYPTO, "a public key of the token cannot be read");
    *ret_key = own;
    return 0;
}

int token_key_public(struct token *t, const char *label, EVP_PKEY **ret_key)
{
    PKCS11_KEY *keys, *found = NULL;
    EVP_PKEY *key;
    unsigned n;
    int r;

    if (PKCS11_enumerate_public_keys(t->slot->token, &keys, &n) != 0) {
        ERR_clear_error();
        return token_say(t, TEKD_EHSM, "the public keys of the token cannot be listed");
    }
    for (unsigned i = 0; i < n; i++) {
        if (!keys[i].label || strcmp(keys[i].label, label) != 0)
            continue;
        if (found)
            return token_say(t, TEKD_EEXIST, "the token has more than one public key \"%s\"",
                             label);
        found = &keys[i];
    }
    if (!found)
        return token_say(t, TEKD_ENOTFOUND, "the token has no public key \"%s\"", label);
    key = PKCS11_get_public_key(found);
    if (!key) {
        ERR_clear_error();
        return token_say(t, TEKD_EHSM, "the public key \"%s\" cannot be read", label);
    }
    r = detach(t, key, ret_key);
    EVP_PKEY_free(key);
    return r;
}
