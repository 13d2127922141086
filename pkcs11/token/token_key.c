/* Finding keys by their names and saying what they are. */
#include "token/token_impl.h"

#include <openssl/asn1.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/params.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"

/* Octets of an RSA-4096 modulus. */
#define RSA_MAX 512
/* Octets of an Ed25519 public key. */
#define ED25519_LEN 32

const char *token_key_kind_name(enum token_kind kind)
{
    static const char *const names[] = {
        [TOKEN_STORAGE_KEK] = "storage-kek",     [TOKEN_BSA_KEK] = "bsa-kek",
        [TOKEN_BSA_RSA] = "bsa-rsa-key",         [TOKEN_SIGNING_KEY] = "signing-key",
        [TOKEN_SIGNING_ED25519] = "signing-key",
    };

    return (size_t)kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "other";
}

CK_OBJECT_CLASS token_key_class(enum token_kind kind)
{
    static const CK_OBJECT_CLASS classes[] = {
        [TOKEN_STORAGE_KEK] = CKO_SECRET_KEY,      [TOKEN_BSA_KEK] = CKO_SECRET_KEY,
        [TOKEN_BSA_RSA] = CKO_PUBLIC_KEY,          [TOKEN_SIGNING_KEY] = CKO_PRIVATE_KEY,
        [TOKEN_SIGNING_ED25519] = CKO_PRIVATE_KEY,
    };

    return classes[kind];
}

/* Without a login a search finds no private key and says that all went well. */
static int check_login(struct token *t)
{
    CK_SESSION_INFO info = {.state = CKS_RO_PUBLIC_SESSION};
    CK_RV rv = t->logged_in ? t->f->C_GetSessionInfo(t->session, &info) : CKR_OK;

    if (rv != CKR_OK)
        return token_log(t, "C_GetSessionInfo", rv);
    if (t->logged_in && info.state != CKS_RO_USER_FUNCTIONS && info.state != CKS_RW_USER_FUNCTIONS)
        return token_say(t, TEKD_EHSM, "the token has forgotten that the user is logged in");
    return 0;
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
    if (r == 0 && n == 0)
        r = check_login(t);
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
    } types[] = {{CKK_AES, "AES"}, {CKK_EC, "EC"}, {CKK_EC_EDWARDS, "Edwards"}, {CKK_RSA, "RSA"}};

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
    if (kind == TOKEN_SIGNING_ED25519)
        mechanism = CKM_EDDSA;
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
    if (class == CKO_PRIVATE_KEY && type == CKK_EC_EDWARDS)
        return TOKEN_SIGNING_ED25519;
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

/*
 * Read here and not by libp11, whose PKCS11_get_public_key() (0.4.12) keeps the key, its slot and
 * the whole context for ever.
 */
static EVP_PKEY *from_params(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;

    if (ctx && EVP_PKEY_fromdata_init(ctx) > 0)
        (void)EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params);
    EVP_PKEY_CTX_free(ctx);
    ERR_clear_error();
    return key;
}

/* The curve's name by its OBJECT IDENTIFIER (DER), or NULL. */
static const char *curve_of(const uint8_t *der, size_t len)
{
    const unsigned char *p = der;
    ASN1_OBJECT *oid = d2i_ASN1_OBJECT(NULL, &p, (long)len);
    int nid = oid ? OBJ_obj2nid(oid) : NID_undef;

    ASN1_OBJECT_free(oid);
    ERR_clear_error();
    return nid == NID_undef ? NULL : OBJ_nid2sn(nid);
}

static EVP_PKEY *key_of_point(const char *curve, const uint8_t *point, size_t len)
{
    OSSL_PARAM list[] = {
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)curve, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)point, len),
        OSSL_PARAM_END,
    };

    return from_params("EC", list);
}

static int read_ec(struct token *t, CK_OBJECT_HANDLE o, EVP_PKEY **ret_key)
{
    uint8_t params[64], point[256];
    size_t params_len = 0, point_len = 0;
    const unsigned char *p = point;
    ASN1_OCTET_STRING *wrapped;
    const char *curve = NULL;
    int r;

    r = token_attr_octets(t, o, CKA_EC_PARAMS, (struct token_octets){params, sizeof(params)},
                          &params_len);
    if (r == 0)
        r = token_attr_octets(t, o, CKA_EC_POINT, (struct token_octets){point, sizeof(point)},
                              &point_len);
    if (r < 0)
        return r;
    /* An OCTET STRING (DER) around the point, as the standard says; in it the point itself. */
    wrapped = d2i_ASN1_OCTET_STRING(NULL, &p, (long)point_len);
    curve = curve_of(params, params_len);
    if (wrapped && curve)
        *ret_key = key_of_point(curve, ASN1_STRING_get0_data(wrapped),
                                (size_t)ASN1_STRING_length(wrapped));
    /* Some modules leave the OCTET STRING away; as a point it is none. */
    if (!*ret_key && curve)
        *ret_key = key_of_point(curve, point, point_len);
    ASN1_OCTET_STRING_free(wrapped);
    return 0;
}

/*
 * The standard says raw octets (3.0, 3.1); tokens older than it, SoftHSM among them, put an OCTET
 * STRING or a BIT STRING (DER) around them.
 */
static int read_ed25519(struct token *t, CK_OBJECT_HANDLE o, EVP_PKEY **ret_key)
{
    static const struct {
        uint8_t head[3];
        size_t len;
    } forms[] = {{{0}, 0}, {{0x04, ED25519_LEN}, 2}, {{0x03, ED25519_LEN + 1, 0}, 3}};
    uint8_t point[ED25519_LEN + sizeof(forms[0].head)];
    size_t len = 0;
    int r =
        token_attr_octets(t, o, CKA_EC_POINT, (struct token_octets){point, sizeof(point)}, &len);

    if (r < 0)
        return r == TEKD_EHSM ? r : 0;
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        if (len == forms[i].len + ED25519_LEN && memcmp(point, forms[i].head, forms[i].len) == 0)
            *ret_key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, point + forms[i].len,
                                                   ED25519_LEN);
    }
    ERR_clear_error();
    return 0;
}

/* OpenSSL wants numbers in the host's order. */
static bool read_number(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type,
                        uint8_t out[static RSA_MAX], size_t *ret_len)
{
    uint8_t raw[RSA_MAX];
    size_t len = 0;

    if (token_attr_octets(t, o, type, (struct token_octets){raw, sizeof(raw)}, &len) < 0)
        return false;
    for (size_t i = 0; i < len; i++)
        out[i] = raw[len - 1 - i];
    *ret_len = len;
    return true;
}

static int read_rsa(struct token *t, CK_OBJECT_HANDLE o, EVP_PKEY **ret_key)
{
    uint8_t n[RSA_MAX], e[RSA_MAX];
    size_t n_len = 0, e_len = 0;

    if (read_number(t, o, CKA_MODULUS, n, &n_len) &&
        read_number(t, o, CKA_PUBLIC_EXPONENT, e, &e_len)) {
        OSSL_PARAM list[] = {
            OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, n, n_len),
            OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, e, e_len),
            OSSL_PARAM_END,
        };

        *ret_key = from_params("RSA", list);
    }
    return 0;
}

int token_key_public_of(struct token *t, CK_OBJECT_HANDLE o, EVP_PKEY **ret_key)
{
    CK_KEY_TYPE type = CK_UNAVAILABLE_INFORMATION;
    int r = token_attr_number(t, o, CKA_KEY_TYPE, &type);

    *ret_key = NULL;
    if (r == 0 && type == CKK_EC)
        r = read_ec(t, o, ret_key);
    if (r == 0 && type == CKK_EC_EDWARDS)
        r = read_ed25519(t, o, ret_key);
    if (r == 0 && type == CKK_RSA)
        r = read_rsa(t, o, ret_key);
    return r;
}

int token_key_public(struct token *t, const char *label, EVP_PKEY **ret_key)
{
    const struct token_query q = {.class = CKO_PUBLIC_KEY, .label = label};
    CK_OBJECT_HANDLE o = 0;
    EVP_PKEY *key = NULL;
    int r;

    r = token_key_one(t, &q, &o);
    if (r == 0)
        r = token_key_public_of(t, o, &key);
    if (r < 0)
        return r;
    if (!key)
        return token_say(t, TEKD_EHSM, "the public key \"%s\" cannot be read", label);
    *ret_key = key;
    return 0;
}
