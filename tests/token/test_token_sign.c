/* Signing keys on a curve of NIST. */
#include "lab.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#define P256 "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
#define P384 "\x06\x05\x2b\x81\x04\x00\x22"

/* A pair as somebody else might make it. */
struct pair {
    const char *label;
    const char *curve;
    CK_ULONG curve_len;
    CK_ATTRIBUTE_TYPE wrong; /* a flag of the private half set the other way; 0: none */
    bool wrong_value;
};

static void make_pair(struct lab *l, const struct pair *p)
{
    static const struct lab_flag flags[] = {
        {CKA_TOKEN, true},         {CKA_PRIVATE, true},    {CKA_SENSITIVE, true},
        {CKA_EXTRACTABLE, false},  {CKA_SIGN, true},       {CKA_DECRYPT, false},
        {CKA_SIGN_RECOVER, false}, {CKA_UNWRAP, false},    {CKA_DERIVE, false},
        {CKA_COPYABLE, false},     {CKA_MODIFIABLE, false}};
    CK_MECHANISM gen = {.mechanism = CKM_EC_KEY_PAIR_GEN};
    CK_BBOOL value[ARRAY_SIZE(flags)], yes = CK_TRUE;
    CK_ATTRIBUTE priv[ARRAY_SIZE(flags) + 2] = {
        {CKA_LABEL, (void *)(uintptr_t)p->label, strlen(p->label)},
        {CKA_ID, (void *)(uintptr_t)p->label, strlen(p->label)}};
    CK_ATTRIBUTE pub[] = {{CKA_EC_PARAMS, (void *)(uintptr_t)p->curve, p->curve_len},
                          {CKA_TOKEN, &yes, 1},
                          {CKA_VERIFY, &yes, 1},
                          {CKA_LABEL, (void *)(uintptr_t)p->label, strlen(p->label)},
                          {CKA_ID, (void *)(uintptr_t)p->label, strlen(p->label)}};
    CK_OBJECT_HANDLE o[2];

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        value[i] = flags[i].type == p->wrong ? p->wrong_value : flags[i].value;
        priv[i + 2] = (CK_ATTRIBUTE){flags[i].type, &value[i], 1};
    }
    assert_int_equal(l->f->C_GenerateKeyPair(l->raw, &gen, pub, ARRAY_SIZE(pub), priv,
                                             ARRAY_SIZE(priv), &o[0], &o[1]),
                     CKR_OK);
}

static bool verifies(EVP_PKEY *key, const struct hsm_signature *sig, const uint8_t *digest,
                     size_t len)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    bool ok;

    assert_int_equal(EVP_PKEY_verify_init(ctx), 1);
    ok = EVP_PKEY_verify(ctx, sig->octets, sig->len, digest, len) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

/* Signs inside the token, verifies with what token_key_public() gives. */
static void signs(struct lab *l, enum token_signer which, const char *name, const char *label)
{
    static const uint8_t digest[HSM_DIGEST_MAX + 1] = {1, 2, 3};
    AUTO(token_signing) struct token_signing *key = NULL;
    struct hsm_signature sig;
    EVP_PKEY *pub = NULL;

    assert_int_equal(token_sign_key(l->token, which, name, &key), 0);
    assert_int_equal(token_key_public(l->token, label, &pub), 0);
    assert_int_equal(EVP_PKEY_eq(pub, token_signing_public(key)), 1);
    for (size_t len = 20; len <= HSM_DIGEST_MAX; len++) {
        assert_int_equal(token_signing_sign(key, digest, len, &sig), 0);
        assert_true(verifies(pub, &sig, digest, len));
        sig.octets[sig.len - 1] ^= 1;
        assert_false(verifies(pub, &sig, digest, len));
    }
    assert_int_equal(token_signing_sign(key, digest, 0, &sig), TEKD_EINVAL);
    assert_int_equal(token_signing_sign(key, digest, sizeof(digest), &sig), TEKD_EINVAL);
    EVP_PKEY_free(pub);
}

static void token_sign_key__signs_by_label_and_by_uri(void **state)
{
    struct lab *l = *state;

    lab_make_key(l, TOKEN_SIGNING_KEY, "tekd-tls");
    lab_make_key(l, TOKEN_SIGNING_KEY, "with blank");
    lab_make_key(l, TOKEN_SIGNING_ED25519, "beside");
    signs(l, TOKEN_SIGN_CHECKPOINT, "tekd-tls", "tekd-tls");
    signs(l, TOKEN_SIGN_TLS, "pkcs11:object=tekd-tls", "tekd-tls");
    signs(l, TOKEN_SIGN_TLS, "pkcs11:token=lab;object=with%20blank;type=private", "with blank");
}

/* As from modules that put no OCTET STRING around it. */
static void token_sign_key__reads_a_bare_point_too(void **state)
{
    struct lab *l = *state;

    make_pair(l, &(struct pair){"p-384", P384, sizeof(P384) - 1, 0, false});
    make_pair(l, &(struct pair){"p-256", P256, sizeof(P256) - 1, 0, false});
    lab_reopen_shimmed(l, "bare-points", NULL, TOKEN_READ_ONLY);
    signs(l, TOKEN_SIGN_TLS, "p-384", "p-384");
    signs(l, TOKEN_SIGN_CHECKPOINT, "p-256", "p-256");
}

static void token_sign_key__refuses_bad_names(void **state)
{
    static const struct {
        const char *name;
        int r;
    } bad[] = {
        {"none", TEKD_ENOTFOUND},
        {"pkcs11:object=none", TEKD_ENOTFOUND},
        {"pkcs11:object=k;id=%00%01", TEKD_ENOTFOUND},
        {"pkcs11:", TEKD_EINVAL},
        {"pkcs11:id=%01", TEKD_EINVAL},
        {"pkcs11:object=%zz", TEKD_EINVAL},
        {"pkcs11:token=other;object=k", TEKD_EINVAL},
        {"pkcs11:object=k?pin-value=1234", TEKD_EINVAL},
        {"pkcs11:object=k;slot-id=0", TEKD_EINVAL},
    };
    struct lab *l = *state;
    struct token_signing *key = NULL;

    lab_make_key(l, TOKEN_SIGNING_KEY, "k");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int r = token_sign_key(l->token, TOKEN_SIGN_TLS, bad[i].name, &key);

        if (r != bad[i].r)
            fail_msg("%s: %d", bad[i].name, r);
    }
    assert_null(key);
}

static void refuses(struct lab *l, enum token_signer which, const char *label, const char *reason)
{
    struct token_signing *key = NULL;

    assert_int_equal(token_sign_key(l->token, which, label, &key), TEKD_EWEAK);
    lab_assert_reason(l->token, reason);
    assert_null(key);
}

static void token_sign_key__refuses_weak_keys(void **state)
{
    static const struct pair weak[] = {
        {"derives", P256, 10, CKA_DERIVE, true},
        {"extractable", P256, 10, CKA_EXTRACTABLE, true},
        {"readable", P256, 10, CKA_SENSITIVE, false},
        {"decrypts", P256, 10, CKA_DECRYPT, true},
        {"modifiable", P256, 10, CKA_MODIFIABLE, true},
    };
    static const char *const reasons[] = {"CKA_DERIVE is true", "CKA_EXTRACTABLE is true",
                                          "CKA_SENSITIVE is false", "CKA_DECRYPT is true",
                                          "CKA_MODIFIABLE is true"};
    struct lab *l = *state;

    for (size_t i = 0; i < ARRAY_SIZE(weak); i++) {
        make_pair(l, &weak[i]);
        refuses(l, TOKEN_SIGN_CHECKPOINT, weak[i].label, reasons[i]);
    }
}

static void token_sign_key__p_384_is_for_tls_only(void **state)
{
    const struct pair pair = {"p384", P384, 7, 0, false};
    struct lab *l = *state;

    make_pair(l, &pair);
    signs(l, TOKEN_SIGN_TLS, "p384", "p384");
    refuses(l, TOKEN_SIGN_CHECKPOINT, "p384", "not on curve P-256");
}

static void token_sign_key__refuses_two_of_one_label(void **state)
{
    const struct pair pair = {"twin", P256, 10, 0, false};
    struct lab *l = *state;
    struct token_signing *key = NULL;
    EVP_PKEY *pub = NULL;

    make_pair(l, &pair);
    make_pair(l, &pair);
    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_TLS, "twin", &key), TEKD_EEXIST);
    assert_int_equal(token_key_public(l->token, "twin", &pub), TEKD_EEXIST);
    assert_int_equal(token_key_public(l->token, "none", &pub), TEKD_ENOTFOUND);
    assert_null(key);
    assert_null(pub);
}

/* The public half of another pair under the id of this one. */
static void token_sign_key__refuses_a_foreign_public_half(void **state)
{
    const struct pair mine = {"mine", P256, 10, 0, false}, other = {"other", P256, 10, 0, false};
    struct lab *l = *state;
    CK_OBJECT_HANDLE copy;
    CK_ATTRIBUTE id[] = {{CKA_ID, (void *)(uintptr_t) "mine", 4},
                         {CKA_LABEL, (void *)(uintptr_t) "mine", 4}};

    make_pair(l, &mine);
    make_pair(l, &other);
    assert_int_equal(l->f->C_DestroyObject(l->raw, lab_object(l, CKO_PUBLIC_KEY, "mine")), CKR_OK);
    assert_int_equal(
        l->f->C_CopyObject(l->raw, lab_object(l, CKO_PUBLIC_KEY, "other"), id, 2, &copy), CKR_OK);
    refuses(l, TOKEN_SIGN_CHECKPOINT, "mine", "does not verify with its public half");
}

static void token_sign_key__needs_the_public_half(void **state)
{
    const struct pair pair = {"alone", P256, 10, 0, false};
    struct lab *l = *state;

    make_pair(l, &pair);
    assert_int_equal(l->f->C_DestroyObject(l->raw, lab_object(l, CKO_PUBLIC_KEY, "alone")), CKR_OK);
    refuses(l, TOKEN_SIGN_TLS, "alone", "is that in the token");
}

/* A token in trouble says nothing of the key: whoever took it for a weak one would end tekd. */
static void token_sign_key__does_not_take_a_fault_for_a_weak_key(void **state)
{
    struct lab *l = *state;
    struct token_signing *key = NULL;

    lab_make_key(l, TOKEN_SIGNING_KEY, "ec");
    lab_make_key(l, TOKEN_SIGNING_ED25519, "ed");
    lab_reopen_shimmed(l, "fails-at-signing", NULL, TOKEN_READ_WRITE);
    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_CHECKPOINT, "ec", &key), TEKD_EHSM);
    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_TLS, "ec", &key), TEKD_EHSM);
    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_ED25519, "ed", &key), TEKD_EHSM);
    assert_null(key);
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(token_sign_key__signs_by_label_and_by_uri),
        LAB_TEST(token_sign_key__reads_a_bare_point_too),
        LAB_TEST(token_sign_key__refuses_bad_names),
        LAB_TEST(token_sign_key__refuses_weak_keys),
        LAB_TEST(token_sign_key__p_384_is_for_tls_only),
        LAB_TEST(token_sign_key__refuses_two_of_one_label),
        LAB_TEST(token_sign_key__refuses_a_foreign_public_half),
        LAB_TEST(token_sign_key__needs_the_public_half),
        LAB_TEST(token_sign_key__does_not_take_a_fault_for_a_weak_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
