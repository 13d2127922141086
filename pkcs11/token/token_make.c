/* Making tokens and keys: for tek-provision, in a read-write session. */
#include "token/token_impl.h"

#include <assert.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

/* OBJECT IDENTIFIER 1.2.840.10045.3.1.7 (P-256), DER. */
static const uint8_t p256_oid[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};

/* What names Ed25519: OBJECT IDENTIFIER 1.3.101.112 (RFC 8410), or a PrintableString; both DER. */
static const uint8_t ed25519_oid[] = {0x06, 0x03, 0x2b, 0x65, 0x70};
static const uint8_t ed25519_name[] = "\x13\x0c"
                                      "edwards25519";

/* A modulus of 4096 bits; receivers' keys beyond are refused. */
#define RSA_OCTETS_MIN 256
#define RSA_OCTETS_MAX 512

/* ---------------------------------------------------------------- tokens ----------- */

/* The slot of the first blank token; refuses when a token of ours is there, or may be. */
static int find_blank(struct token *t, CK_SLOT_ID *ret_id)
{
    AUTO_MEM struct token_list *l = calloc(1, sizeof(*l));
    bool found = false;
    int r;

    if (!l)
        return TEKD_ENOMEM;
    r = token_slots(t, l);
    if (r < 0)
        return r;
    for (size_t i = 0; i < l->n; i++) {
        if (!(l->info[i].flags & CKF_TOKEN_INITIALIZED)) {
            if (!found)
                *ret_id = l->id[i];
            found = true;
        } else if (p11_kit_uri_match_token_info(t->uri, &l->info[i])) {
            return token_say(t, TEKD_EEXIST, "a token agrees with %s already", t->uri_text);
        }
    }
    if (l->failed > 0)
        return token_say(t, TEKD_EHSM, "%zu tokens did not say who they are: one may be %s",
                         l->failed, t->uri_text);
    return found ? 0 : token_say(t, TEKD_ENOTFOUND, "the module has no token to initialise");
}

int token_may_be_made(struct token *t)
{
    CK_SLOT_ID id = 0;
    int r;

    token_unload(t);
    r = token_load(t);
    if (r == 0)
        r = find_blank(t, &id);
    token_unload(t);
    return r;
}

/* In a session of the SO, who sets the user's first PIN. */
static int set_user_pin(struct token *t, CK_SLOT_ID id, const struct token_pins *pins)
{
    CK_SESSION_HANDLE s;
    CK_RV rv;
    int r = 0;

    rv = t->f->C_OpenSession(id, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &s);
    if (rv != CKR_OK)
        return token_log(t, "C_OpenSession", rv);
    rv = t->f->C_Login(s, CKU_SO, (CK_UTF8CHAR *)(uintptr_t)secret_peek(pins->so),
                       secret_len(pins->so));
    if (rv != CKR_OK)
        r = token_log(t, "C_Login", rv);
    if (r == 0) {
        rv = t->f->C_InitPIN(s, (CK_UTF8CHAR *)(uintptr_t)secret_peek(pins->user),
                             secret_len(pins->user));
        r = rv == CKR_OK ? 0 : token_log(t, "C_InitPIN", rv);
        (void)t->f->C_Logout(s);
    }
    (void)t->f->C_CloseSession(s);
    return r;
}

int token_make_token(struct token *t, const char *label, const struct token_pins *pins)
{
    CK_UTF8CHAR padded[32];
    CK_SLOT_ID id = 0;
    CK_RV rv;
    int r;

    if (strlen(label) == 0 || strlen(label) > sizeof(padded))
        return token_say(t, TEKD_EINVAL, "a token's label has 1 to %zu octets", sizeof(padded));
    memset(padded, ' ', sizeof(padded));
    for (size_t i = 0; label[i]; i++)
        padded[i] = (CK_UTF8CHAR)label[i];
    token_unload(t);
    r = token_load(t);
    if (r == 0)
        r = find_blank(t, &id);
    if (r == 0) {
        rv = t->f->C_InitToken(id, (CK_UTF8CHAR *)(uintptr_t)secret_peek(pins->so),
                               secret_len(pins->so), padded);
        r = rv == CKR_OK ? 0 : token_log(t, "C_InitToken", rv);
    }
    if (r == 0)
        r = set_user_pin(t, id, pins);
    token_unload(t);
    return r;
}

/* ---------------------------------------------------------------- what keys share -- */

int token_make_constant(struct token *t, const struct token_constant *c, CK_OBJECT_HANDLE *ret_o)
{
    struct token_template tpl = {.n = 0};
    CK_RV rv;

    token_attr_add_number(&tpl, CKA_CLASS, CKO_SECRET_KEY);
    token_attr_add_number(&tpl, CKA_KEY_TYPE, CKK_AES);
    token_attr_add(&tpl, CKA_VALUE, c->value, c->len);
    token_attr_add_bool(&tpl, CKA_TOKEN, false);
    token_attr_add_bool(&tpl, CKA_SENSITIVE, false);
    token_attr_add_bool(&tpl, CKA_EXTRACTABLE, true);
    token_attr_add_bool(&tpl, CKA_WRAP, true);
    rv = t->f->C_CreateObject(t->session, tpl.a, tpl.n, ret_o);
    return rv == CKR_OK ? 0 : token_log(t, "C_CreateObject", rv);
}

/* What every way to make a key needs; the parts are borrowed by the template. */
struct plan {
    enum token_rule_set set;
    unsigned long mechanism; /* of a KEK or an Ed25519 key; 0 else */
    uint8_t id[HSM_ID_MAX];
    size_t id_len;
    struct token_kek_parts parts;
    struct token_template tpl;
};

static int refuse_taken(struct token *t, const char *label)
{
    struct token_template tpl = {.n = 0};
    CK_OBJECT_HANDLE found;
    size_t n = 0;
    int r;

    token_attr_add_bool(&tpl, CKA_TOKEN, true);
    token_attr_add(&tpl, CKA_LABEL, label, strlen(label));
    r = token_attr_find(t, &tpl, &found, 1, &n);
    if (r == TEKD_ETOOBIG || (r == 0 && n > 0))
        return token_say(t, TEKD_EEXIST, "the label \"%s\" is taken", label);
    return r;
}

/* Checks the names, finds the mechanism, chooses an id where none is given. */
static int make_plan(struct token *t, const struct token_key_name *name, struct plan *p)
{
    size_t len = strlen(name->label);
    int r;

    if (len == 0 || len > HSM_LABEL_MAX || name->id_len > HSM_ID_MAX)
        return token_say(t, TEKD_EINVAL, "a key's label has 1 to %d octets, its id at most %d",
                         HSM_LABEL_MAX, HSM_ID_MAX);
    r = refuse_taken(t, name->label);
    if (r < 0)
        return r;
    p->set = token_rules_of(name->kind);
    p->mechanism = 0;
    if (name->kind == TOKEN_SIGNING_ED25519) {
        p->mechanism = CKM_EDDSA;
    } else if (name->kind != TOKEN_SIGNING_KEY) {
        r = token_profile_mechanism(t, name->wrap, &p->mechanism);
        if (r < 0)
            return r;
    }
    p->id_len = name->id_len ? name->id_len : 16;
    if (name->id_len)
        memcpy(p->id, name->id, name->id_len);
    else if (RAND_bytes(p->id, (int)p->id_len) != 1)
        return TEKD_ECRYPTO;
    p->tpl.n = 0;
    token_attr_add(&p->tpl, CKA_LABEL, name->label, len);
    token_attr_add(&p->tpl, CKA_ID, p->id, p->id_len);
    return 0;
}

static int plan_kek(struct token *t, const struct token_key_name *name, struct plan *p)
{
    if (name->kind != TOKEN_STORAGE_KEK && name->kind != TOKEN_BSA_KEK)
        return token_say(t, TEKD_EINVAL, "this kind of key is no AES KEK");
    if (name->wrap != HSM_WRAP_AES_KW && name->wrap != HSM_WRAP_AES_KWP)
        return token_say(t, TEKD_EINVAL, "an AES KEK wraps by aes-kw or aes-kwp");
    return make_plan(t, name, p);
}

/* The flags come last: CKA_MODIFIABLE ends the template. */
static void plan_flags(struct token *t, struct plan *p)
{
    p->parts.mechanism = p->mechanism;
    token_rules_kek(t, p->set, &p->parts, &p->tpl);
}

/* What was made is read back; a key that is weaker than told does not stay. */
static int keep_if_good(struct token *t, const struct plan *p, CK_OBJECT_HANDLE o)
{
    struct token_findings f;
    char text[TOKEN_REASON_MAX];
    int r = token_rules_check(t, o, p->set, p->mechanism, &f);

    if (r == 0 && f.n == 0)
        return 0;
    (void)token_object_destroy(t, o);
    if (r < 0)
        return r;
    token_rules_text(&f, text);
    return token_say(t, TEKD_EWEAK, "the token made the key other than told: %s", text);
}

/* ---------------------------------------------------------------- AES KEKs --------- */

static int generate_aes(struct token *t, struct token_template *tpl, CK_OBJECT_HANDLE *ret_o)
{
    CK_MECHANISM gen = {.mechanism = CKM_AES_KEY_GEN};
    CK_RV rv = t->f->C_GenerateKey(t->session, &gen, tpl->a, tpl->n, ret_o);

    return rv == CKR_OK ? 0 : token_log(t, "C_GenerateKey", rv);
}

static int make_kek(struct token *t, const struct token_key_name *name)
{
    struct plan p = {.mechanism = 0};
    CK_OBJECT_HANDLE o = 0;
    int r = plan_kek(t, name, &p);

    if (r < 0)
        return r;
    token_attr_add_number(&p.tpl, CKA_VALUE_LEN, TOKEN_AES_MAX);
    plan_flags(t, &p);
    r = generate_aes(t, &p.tpl, &o);
    return r < 0 ? r : keep_if_good(t, &p, o);
}

int token_make_import(struct token *t, const struct token_key_name *name,
                      const struct secret *value)
{
    struct plan p = {.mechanism = 0};
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv;
    int r = plan_kek(t, name, &p);

    if (r == 0 && secret_len(value) != TOKEN_AES_MAX)
        r = token_say(t, TEKD_EINVAL, "a KEK has %d octets", TOKEN_AES_MAX);
    if (r < 0)
        return r;
    token_attr_add(&p.tpl, CKA_VALUE, secret_peek(value), secret_len(value));
    plan_flags(t, &p);
    rv = t->f->C_CreateObject(t->session, p.tpl.a, p.tpl.n, &o);
    return rv != CKR_OK ? token_log(t, "C_CreateObject", rv) : keep_if_good(t, &p, o);
}

/* ---------------------------------------------------------------- handed out ------- */

/* The session objects of one hand-out; 0 is none. */
struct handout {
    CK_OBJECT_HANDLE kek;      /* extractable, for these two wraps only */
    CK_OBJECT_HANDLE one_time; /* carries it into the token object */
    CK_OBJECT_HANDLE receiver; /* the receiver's RSA public key */
};

static int handout_kek(struct token *t, CK_OBJECT_HANDLE *ret_o)
{
    struct token_template tpl = {.n = 0};

    token_tek_template(t, TOKEN_AES_MAX, &tpl);
    if (t->profile->trusted)
        token_attr_set_bool(&tpl, CKA_WRAP_WITH_TRUSTED, false);
    return generate_aes(t, &tpl, ret_o);
}

static int handout_one_time(struct token *t, CK_OBJECT_HANDLE *ret_o)
{
    struct token_template tpl = {.n = 0};

    token_attr_add_number(&tpl, CKA_VALUE_LEN, TOKEN_AES_MAX);
    token_attr_add_bool(&tpl, CKA_TOKEN, false);
    token_attr_add_bool(&tpl, CKA_PRIVATE, true);
    token_attr_add_bool(&tpl, CKA_SENSITIVE, true);
    token_attr_add_bool(&tpl, CKA_EXTRACTABLE, false);
    token_attr_add_bool(&tpl, CKA_WRAP, true);
    token_attr_add_bool(&tpl, CKA_UNWRAP, true);
    token_attr_add_bool(&tpl, CKA_ENCRYPT, false);
    token_attr_add_bool(&tpl, CKA_DECRYPT, false);
    return generate_aes(t, &tpl, ret_o);
}

static int handout_stage(struct token *t, EVP_PKEY *receiver, struct handout *h)
{
    struct token_template tpl = {.n = 0};
    int r;

    token_attr_add_bool(&tpl, CKA_TOKEN, false);
    token_attr_add_bool(&tpl, CKA_WRAP, true);
    r = token_make_rsa_object(t, receiver, &tpl, &h->receiver);
    if (r == 0)
        r = handout_one_time(t, &h->one_time);
    if (r == 0)
        r = handout_kek(t, &h->kek);
    return r;
}

/* Both wraps, then the token object out of the second one. */
static int handout_move(struct token *t, const struct handout *h, struct plan *p,
                        struct hsm_blob *ret_blob)
{
    struct token_wrap_mechanism oaep, kw;
    struct hsm_blob carried;
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv;
    int r;

    token_profile_wrap(HSM_WRAP_OAEP_SHA1, CKM_RSA_PKCS_OAEP, &oaep);
    token_profile_wrap(HSM_WRAP_AES_KW, p->mechanism, &kw);
    rv = token_tek_wrap_raw(t, &oaep, h->receiver, h->kek, ret_blob);
    if (rv == CKR_OK)
        rv = token_tek_wrap_raw(t, &kw, h->one_time, h->kek, &carried);
    if (rv != CKR_OK)
        return token_log(t, "C_WrapKey", rv);
    plan_flags(t, p);
    rv = t->f->C_UnwrapKey(t->session, &kw.mechanism, h->one_time, carried.octets, carried.len,
                           p->tpl.a, p->tpl.n, &o);
    if (rv != CKR_OK)
        return token_log(t, "C_UnwrapKey", rv);
    r = keep_if_good(t, p, o);
    return r;
}

int token_make_handed_out(struct token *t, const struct token_key_name *name, EVP_PKEY *receiver,
                          struct hsm_blob *ret_blob)
{
    struct plan p = {.mechanism = 0};
    struct handout h = {.kek = 0};
    struct hsm_blob blob;
    unsigned long oaep;
    int r = plan_kek(t, name, &p);

    if (r == 0)
        r = token_profile_mechanism(t, HSM_WRAP_OAEP_SHA1, &oaep);
    if (r == 0)
        r = handout_stage(t, receiver, &h);
    if (r == 0)
        r = handout_move(t, &h, &p, &blob);
    (void)token_object_destroy(t, h.kek);
    (void)token_object_destroy(t, h.one_time);
    (void)token_object_destroy(t, h.receiver);
    if (r == 0)
        *ret_blob = blob;
    return r;
}

/* ---------------------------------------------------------------- RSA keys --------- */

static int rsa_number(EVP_PKEY *key, const char *name, uint8_t out[static RSA_OCTETS_MAX],
                      size_t *ret_len)
{
    BIGNUM *n = NULL;
    int r = TEKD_EINVAL;

    if (EVP_PKEY_get_bn_param(key, name, &n) > 0 && BN_num_bytes(n) <= RSA_OCTETS_MAX) {
        *ret_len = (size_t)BN_bn2bin(n, out);
        r = 0;
    }
    BN_free(n);
    return r;
}

/* RSA with the exponent 1 is no encryption, and with an even one nobody can decrypt. */
static bool exponent_ok(EVP_PKEY *key)
{
    BIGNUM *e = NULL;
    bool ok =
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) > 0 && BN_is_odd(e) && !BN_is_one(e);

    BN_free(e);
    return ok;
}

const char *token_rsa_fault(EVP_PKEY *key)
{
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA || EVP_PKEY_get_size(key) < RSA_OCTETS_MIN ||
        EVP_PKEY_get_size(key) > RSA_OCTETS_MAX)
        return "it is no RSA key of 2048 to 4096 bits";
    return exponent_ok(key) ? NULL : "its RSA exponent is 1 or even";
}

int token_make_rsa_object(struct token *t, EVP_PKEY *key, struct token_template *tpl,
                          CK_OBJECT_HANDLE *ret_o)
{
    uint8_t modulus[RSA_OCTETS_MAX], exponent[RSA_OCTETS_MAX];
    size_t n_len = 0, e_len = 0;
    struct token_template all = {.n = 0};
    const char *fault = token_rsa_fault(key);
    CK_RV rv;

    if (fault)
        return token_say(t, TEKD_EINVAL, "the public key: %s", fault);
    if (rsa_number(key, OSSL_PKEY_PARAM_RSA_N, modulus, &n_len) < 0 ||
        rsa_number(key, OSSL_PKEY_PARAM_RSA_E, exponent, &e_len) < 0)
        return token_say(t, TEKD_EINVAL, "the public key cannot be read");
    token_attr_add_number(&all, CKA_CLASS, CKO_PUBLIC_KEY);
    token_attr_add_number(&all, CKA_KEY_TYPE, CKK_RSA);
    token_attr_add(&all, CKA_MODULUS, modulus, n_len);
    token_attr_add(&all, CKA_PUBLIC_EXPONENT, exponent, e_len);
    for (CK_ULONG i = 0; i < tpl->n; i++)
        token_attr_add(&all, tpl->a[i].type, tpl->a[i].pValue, tpl->a[i].ulValueLen);
    rv = t->f->C_CreateObject(t->session, all.a, all.n, ret_o);
    return rv == CKR_OK ? 0 : token_log(t, "C_CreateObject", rv);
}

int token_make_public(struct token *t, const struct token_key_name *name, EVP_PKEY *key)
{
    struct plan p = {.mechanism = 0};
    CK_MECHANISM_TYPE allowed;
    CK_OBJECT_HANDLE o = 0;
    int r;

    if (name->kind != TOKEN_BSA_RSA ||
        (name->wrap != HSM_WRAP_OAEP_SHA1 && name->wrap != HSM_WRAP_OAEP_SHA256))
        return token_say(t, TEKD_EINVAL, "a BSA's RSA key wraps by rsa-oaep-sha1 or -sha256");
    r = make_plan(t, name, &p);
    if (r < 0)
        return r;
    allowed = p.mechanism;
    token_attr_add(&p.tpl, CKA_ALLOWED_MECHANISMS, &allowed, sizeof(allowed));
    token_rules_add(t, p.set, &p.tpl);
    r = token_make_rsa_object(t, key, &p.tpl, &o);
    return r < 0 ? r : keep_if_good(t, &p, o);
}

/* ---------------------------------------------------------------- signing keys ----- */

/* How a pair is asked for; tokens differ in both for Ed25519. */
struct pair_form {
    CK_MECHANISM_TYPE generate;
    const uint8_t *params; /* CKA_EC_PARAMS */
    size_t params_len;
    bool restrict_to; /* CKA_ALLOWED_MECHANISMS is given */
};

/* The public half, then the private one. */
static CK_RV generate_pair(struct token *t, const struct pair_form *form, const struct plan *p,
                           const char *label, CK_OBJECT_HANDLE ret_o[static 2])
{
    CK_MECHANISM gen = {.mechanism = form->generate};
    CK_MECHANISM_TYPE allowed = p->mechanism;
    struct token_template pub = {.n = 0}, priv = {.n = 0};

    token_attr_add(&pub, CKA_EC_PARAMS, form->params, form->params_len);
    token_attr_add(&pub, CKA_LABEL, label, strlen(label));
    token_attr_add(&pub, CKA_ID, p->id, p->id_len);
    token_rules_add(t, TOKEN_RULES_PUBLIC, &pub);
    token_attr_add(&priv, CKA_LABEL, label, strlen(label));
    token_attr_add(&priv, CKA_ID, p->id, p->id_len);
    if (form->restrict_to)
        token_attr_add(&priv, CKA_ALLOWED_MECHANISMS, &allowed, sizeof(allowed));
    token_rules_add(t, p->set, &priv);
    return t->f->C_GenerateKeyPair(t->session, &gen, pub.a, pub.n, priv.a, priv.n, &ret_o[0],
                                   &ret_o[1]);
}

static int make_pair(struct token *t, const struct token_key_name *name)
{
    static const struct pair_form p256[] = {
        {CKM_EC_KEY_PAIR_GEN, p256_oid, sizeof(p256_oid), false}};
    static const struct pair_form ed25519[] = {
        {CKM_EC_EDWARDS_KEY_PAIR_GEN, ed25519_oid, sizeof(ed25519_oid), true},
        {CKM_EC_EDWARDS_KEY_PAIR_GEN, ed25519_name, sizeof(ed25519_name) - 1, true},
        {CKM_EC_EDWARDS_KEY_PAIR_GEN, ed25519_oid, sizeof(ed25519_oid), false},
        {CKM_EC_EDWARDS_KEY_PAIR_GEN, ed25519_name, sizeof(ed25519_name) - 1, false},
    };
    const bool second = name->kind == TOKEN_SIGNING_ED25519;
    const struct pair_form *form = second ? ed25519 : p256;
    size_t n = second ? ARRAY_SIZE(ed25519) : ARRAY_SIZE(p256);
    struct plan p = {.mechanism = 0};
    CK_OBJECT_HANDLE o[2] = {0};
    CK_RV rv = CKR_GENERAL_ERROR;
    int r = second ? token_sign_has_eddsa(t, name->label) : 0;

    if (r == 0)
        r = make_plan(t, name, &p);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n && rv != CKR_OK; i++)
        rv = generate_pair(t, &form[i], &p, name->label, o);
    if (rv != CKR_OK)
        return token_log(t, "C_GenerateKeyPair", rv);
    r = keep_if_good(t, &p, o[1]);
    if (r < 0)
        (void)token_object_destroy(t, o[0]);
    return r;
}

int token_make_key(struct token *t, const struct token_key_name *name)
{
    if (name->kind == TOKEN_SIGNING_KEY || name->kind == TOKEN_SIGNING_ED25519)
        return make_pair(t, name);
    return make_kek(t, name);
}
