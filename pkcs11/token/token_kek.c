/* KEKs: found, checked and bound once; then only their handles are used. */
#include "token/token_impl.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

void token_kek_free(struct token_kek *k)
{
    free(k);
}

static int fingerprint_aes(struct token *t, const struct token_kek *kek, uint8_t out[static 32])
{
    uint8_t constant[32];
    struct token_constant c = {constant, sizeof(constant)};
    struct hsm_blob blob;
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv;
    int r;

    if (!EVP_Q_digest(NULL, "SHA256", NULL, TOKEN_FINGERPRINT_TEXT, strlen(TOKEN_FINGERPRINT_TEXT),
                      constant, NULL))
        return TEKD_ECRYPTO;
    r = token_make_constant(t, &c, &o);
    if (r < 0)
        return r;
    rv = token_tek_wrap_raw(t, &kek->how, kek->object, o, &blob);
    if (rv != CKR_OK)
        r = token_log(t, "C_WrapKey", rv);
    else if (!EVP_Q_digest(NULL, "SHA256", NULL, blob.octets, blob.len, out, NULL))
        r = TEKD_ECRYPTO;
    (void)token_object_destroy(t, o);
    return r;
}

static int fingerprint_rsa(struct token *t, const struct token_kek *kek, uint8_t out[static 32])
{
    EVP_PKEY *key = NULL;
    unsigned char *der = NULL;
    int r, len;

    r = token_key_public(t, kek->label, &key);
    if (r < 0)
        return r;
    len = i2d_PUBKEY(key, &der);
    if (len <= 0 || !EVP_Q_digest(NULL, "SHA256", NULL, der, (size_t)len, out, NULL))
        r = TEKD_ECRYPTO;
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    return r;
}

static bool is_rsa(enum hsm_wrap wrap)
{
    return wrap == HSM_WRAP_OAEP_SHA1 || wrap == HSM_WRAP_OAEP_SHA256;
}

static int fingerprint(struct token *t, const struct token_kek *kek, uint8_t out[static 32])
{
    return is_rsa(kek->wrap) ? fingerprint_rsa(t, kek, out) : fingerprint_aes(t, kek, out);
}

static enum token_kind kind_of(enum hsm_wrap wrap, enum hsm_kek_use use)
{
    if (is_rsa(wrap))
        return TOKEN_BSA_RSA;
    return use == HSM_KEK_STORAGE ? TOKEN_STORAGE_KEK : TOKEN_BSA_KEK;
}

/* Where the token can tell trusted KEKs from others, ours must be one: TEKs ask for it. */
static int check_trusted(struct token *t, const struct token_kek *k)
{
    bool trusted = false;
    int r = 0;

    if (t->profile->trusted)
        r = token_attr_bool(t, k->object, CKA_TRUSTED, &trusted);
    if (r == TEKD_ENOTFOUND || (r == 0 && t->profile->trusted && !trusted))
        return token_say(t, TEKD_EWEAK, "key \"%s\": CKA_TRUSTED is false, must be set by the SO",
                         k->label);
    return r;
}

static int check(struct token *t, const struct token_kek *k)
{
    struct token_findings f;
    char text[TOKEN_REASON_MAX];
    int r = token_rules_check(t, k->object, token_rules_of(kind_of(k->wrap, k->use)),
                              k->how.mechanism.mechanism, &f);

    if (r < 0)
        return r;
    if (f.n == 0)
        return check_trusted(t, k);
    token_rules_text(&f, text);
    return token_say(t, TEKD_EWEAK, "key \"%s\": %s", k->label, text);
}

/* How the one key of these names is found. */
typedef int find_one(struct token *t, const struct token_query *q, CK_OBJECT_HANDLE *ret_o);

/* Found by its names, not yet checked: for find and describe. */
static int locate(struct token *t, const struct hsm_kek *want, find_one *one,
                  struct token_kek **ret_kek)
{
    AUTO(token_kek) struct token_kek *k = calloc(1, sizeof(*k));
    struct token_query q = {.label = want->label, .id = want->id, .id_len = want->id_len};
    unsigned long code;
    int r;

    if (!k)
        return TEKD_ENOMEM;
    if (is_rsa(want->wrap) && want->use != HSM_KEK_BSA)
        return token_say(t, TEKD_EINVAL, "an RSA key cannot be the storage KEK");
    r = token_profile_mechanism(t, want->wrap, &code);
    if (r < 0)
        return r;
    q.class = token_key_class(kind_of(want->wrap, want->use));
    r = one(t, &q, &k->object);
    if (r < 0)
        return r;
    k->wrap = want->wrap;
    k->use = want->use;
    snprintf(k->label, sizeof(k->label), "%s", want->label);
    token_profile_wrap(k->wrap, code, &k->how);
    *ret_kek = TAKE(k);
    return 0;
}

static int find(struct token *t, const struct hsm_kek *want, find_one *one,
                struct token_kek **ret_kek)
{
    AUTO(token_kek) struct token_kek *k = NULL;
    uint8_t is[32];
    int r;

    r = locate(t, want, one, &k);
    if (r < 0)
        return r;
    assert(k);
    r = check(t, k);
    if (r == 0)
        r = fingerprint(t, k, is);
    if (r < 0)
        return r;
    if (memcmp(is, want->fingerprint, sizeof(is)) != 0)
        return token_say(t, TEKD_ENOTFOUND,
                         "key \"%s\" is another key than the one enrolled: its fingerprint differs",
                         want->label);
    *ret_kek = TAKE(k);
    return 0;
}

/* What is refused was searched for: what was read before may be of a key that has gone.  The
 * fingerprint of an RSA key is that of its label, not of a handle: it is always searched for. */
int token_kek_find(struct token *t, const struct hsm_kek *want, struct token_kek **ret_kek)
{
    int r;

    if (!is_rsa(want->wrap) && find(t, want, token_index_one, ret_kek) == 0)
        return 0;
    r = find(t, want, token_key_one, ret_kek);
    if (r == 0 && !is_rsa(want->wrap))
        token_index_is_old(t);
    return r;
}

/* What is known of a KEK that was found: its names first, so that a weak one is reported too. */
static int describe(struct token *t, const struct token_kek *k, struct hsm_kek_report *report,
                    const char **ret_type)
{
    struct token_key key = {.kind = 0};
    int r;

    assert(k);
    r = token_key_read(t, k->object, kind_of(k->wrap, k->use), &key);
    if (r < 0)
        return r;
    *ret_type = key.type;
    memcpy(report->kek.id, key.id, key.id_len);
    report->kek.id_len = (uint8_t)key.id_len;
    report->imported = key.imported;
    memcpy(report->check_value, key.check_value, sizeof(key.check_value));
    r = check(t, k);
    return r < 0 ? r : fingerprint(t, k, report->kek.fingerprint);
}

int token_kek_describe(struct token *t, const char *label, enum hsm_kek_use use, enum hsm_wrap wrap,
                       struct hsm_kek_report *ret_report)
{
    AUTO(token_kek) struct token_kek *k = NULL;
    const char *type = "";
    int r;

    memset(ret_report, 0, sizeof(*ret_report));
    snprintf(ret_report->kek.label, sizeof(ret_report->kek.label), "%s", label);
    ret_report->kek.use = use;
    ret_report->kek.wrap = wrap;
    r = locate(t, &ret_report->kek, token_key_one, &k);
    if (r == 0)
        r = describe(t, k, ret_report, &type);
    if (r < 0)
        snprintf(ret_report->text, sizeof(ret_report->text), "%s", t->reason);
    else
        snprintf(ret_report->text, sizeof(ret_report->text), "%s key, %s, for %s only", type,
                 ret_report->imported ? "imported" : "made in this HSM", hsm_wrap_name(wrap));
    return r;
}
