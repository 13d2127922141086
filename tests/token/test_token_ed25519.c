/* Ed25519 keys that sign in the token. */
#include "lab.h"

#include <dlfcn.h>
#include <openssl/evp.h>
#include <string.h>

#define OID "\x06\x03\x2b\x65\x70"

/* A pair as somebody else might make it. */
struct pair {
    const char *label;
    CK_ATTRIBUTE_TYPE wrong; /* a flag of the private half set the other way; 0: none */
    bool wrong_value;
    CK_MECHANISM_TYPE allowed; /* 0: none is said */
};

static void make_pair(struct lab *l, const struct pair *p)
{
    static const struct lab_flag flags[] = {
        {CKA_TOKEN, true},         {CKA_PRIVATE, true},    {CKA_SENSITIVE, true},
        {CKA_EXTRACTABLE, false},  {CKA_SIGN, true},       {CKA_DECRYPT, false},
        {CKA_SIGN_RECOVER, false}, {CKA_UNWRAP, false},    {CKA_DERIVE, false},
        {CKA_COPYABLE, false},     {CKA_MODIFIABLE, false}};
    CK_MECHANISM gen = {.mechanism = CKM_EC_EDWARDS_KEY_PAIR_GEN};
    CK_BBOOL value[ARRAY_SIZE(flags)], yes = CK_TRUE;
    CK_MECHANISM_TYPE allowed = p->allowed;
    CK_ATTRIBUTE priv[ARRAY_SIZE(flags) + 3] = {
        {CKA_LABEL, (void *)(uintptr_t)p->label, strlen(p->label)},
        {CKA_ID, (void *)(uintptr_t)p->label, strlen(p->label)}};
    CK_ATTRIBUTE pub[] = {{CKA_EC_PARAMS, (void *)(uintptr_t)OID, 5},
                          {CKA_TOKEN, &yes, 1},
                          {CKA_VERIFY, &yes, 1},
                          {CKA_LABEL, (void *)(uintptr_t)p->label, strlen(p->label)},
                          {CKA_ID, (void *)(uintptr_t)p->label, strlen(p->label)}};
    CK_OBJECT_HANDLE o[2];
    CK_ULONG n = 2;

    if (allowed != 0)
        priv[n++] = (CK_ATTRIBUTE){CKA_ALLOWED_MECHANISMS, &allowed, sizeof(allowed)};
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        value[i] = flags[i].type == p->wrong ? p->wrong_value : flags[i].value;
        priv[n++] = (CK_ATTRIBUTE){flags[i].type, &value[i], 1};
    }
    assert_int_equal(
        l->f->C_GenerateKeyPair(l->raw, &gen, pub, ARRAY_SIZE(pub), priv, n, &o[0], &o[1]), CKR_OK);
}

static bool verifies(EVP_PKEY *key, const struct hsm_signature *sig, const void *text, size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestVerify(ctx, sig->octets, sig->len, text, len) == 1;

    EVP_MD_CTX_free(ctx);
    return ok;
}

static void token_signing_sign__signs_the_text_itself(void **state)
{
    static const uint8_t text[TOKEN_TEXT_MAX + 1] = "bsm.example.net/tekd/audit/1\n5\n";
    static const size_t lens[] = {0, 1, 32, TOKEN_TEXT_MAX};
    struct lab *l = *state;
    AUTO(token_signing) struct token_signing *k = NULL;
    struct hsm_signature sig, again;
    EVP_PKEY *pub = NULL;

    lab_make_key(l, TOKEN_SIGNING_ED25519, "ed");
    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_ED25519, "ed", &k), 0);
    assert_int_equal(token_key_public(l->token, "ed", &pub), 0);
    assert_int_equal(EVP_PKEY_eq(pub, token_signing_public(k)), 1);
    for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
        assert_int_equal(token_signing_sign(k, text, lens[i], &sig), 0);
        assert_true(verifies(pub, &sig, text, lens[i]));
        assert_int_equal(token_signing_sign(k, text, lens[i], &again), 0);
        assert_int_equal(sig.len, 64);
        assert_memory_equal(sig.octets, again.octets, 64); /* RFC 8032: no chance in it */
        sig.octets[5] ^= 1;
        assert_false(verifies(pub, &sig, text, lens[i]));
    }
    assert_int_equal(token_signing_sign(k, text, sizeof(text), &sig), TEKD_EINVAL);
    EVP_PKEY_free(pub);
}

static void refuses(struct lab *l, const char *label, int error, const char *reason)
{
    struct token_signing *k = NULL;

    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_ED25519, label, &k), error);
    lab_assert_reason(l->token, reason);
    assert_null(k);
}

static void token_sign_key__takes_a_key_made_elsewhere(void **state)
{
    const struct pair plain = {"plain", 0, false, 0}, bound = {"bound", 0, false, CKM_EDDSA};
    struct lab *l = *state;

    for (size_t i = 0; i < 2; i++) {
        const struct pair *p = i == 0 ? &plain : &bound;
        AUTO(token_signing) struct token_signing *k = NULL;

        make_pair(l, p);
        assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_ED25519, p->label, &k), 0);
    }
}

static void token_sign_key__refuses_weak_keys(void **state)
{
    static const struct pair weak[] = {
        {"derives", CKA_DERIVE, true, 0},        {"extractable", CKA_EXTRACTABLE, true, 0},
        {"readable", CKA_SENSITIVE, false, 0},   {"decrypts", CKA_DECRYPT, true, 0},
        {"modifiable", CKA_MODIFIABLE, true, 0}, {"other", 0, false, CKM_ECDSA},
    };
    static const char *const reasons[] = {
        "CKA_DERIVE is true",  "CKA_EXTRACTABLE is true", "CKA_SENSITIVE is false",
        "CKA_DECRYPT is true", "CKA_MODIFIABLE is true",  "CKA_ALLOWED_MECHANISMS is 0x1041"};
    struct lab *l = *state;

    for (size_t i = 0; i < ARRAY_SIZE(weak); i++) {
        make_pair(l, &weak[i]);
        refuses(l, weak[i].label, TEKD_EWEAK, reasons[i]);
    }
}

static void token_sign_key__refuses_what_it_is_not(void **state)
{
    const struct pair twin = {"twin", 0, false, 0}, alone = {"alone", 0, false, 0};
    struct lab *l = *state;
    struct token_signing *key = NULL;

    refuses(l, "none", TEKD_ENOTFOUND, "no key \"none\"");
    lab_make_key(l, TOKEN_SIGNING_KEY, "ec");
    refuses(l, "ec", TEKD_EWEAK, "no Ed25519 key");
    make_pair(l, &twin);
    make_pair(l, &twin);
    refuses(l, "twin", TEKD_EEXIST, "more than one key \"twin\"");
    make_pair(l, &alone);
    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_CHECKPOINT, "alone", &key), TEKD_EWEAK);
    assert_int_equal(l->f->C_DestroyObject(l->raw, lab_object(l, CKO_PUBLIC_KEY, "alone")), CKR_OK);
    refuses(l, "alone", TEKD_EWEAK, "is that in the token");
}

/* The public half of another pair under the names of this one. */
static void token_sign_key__refuses_a_foreign_public_half(void **state)
{
    const struct pair mine = {"mine", 0, false, 0}, other = {"other", 0, false, 0};
    struct lab *l = *state;
    CK_ATTRIBUTE names[] = {{CKA_ID, (void *)(uintptr_t) "mine", 4},
                            {CKA_LABEL, (void *)(uintptr_t) "mine", 4}};
    CK_OBJECT_HANDLE copy;

    make_pair(l, &mine);
    make_pair(l, &other);
    assert_int_equal(l->f->C_DestroyObject(l->raw, lab_object(l, CKO_PUBLIC_KEY, "mine")), CKR_OK);
    assert_int_equal(
        l->f->C_CopyObject(l->raw, lab_object(l, CKO_PUBLIC_KEY, "other"), names, 2, &copy),
        CKR_OK);
    refuses(l, "mine", TEKD_EWEAK, "does not verify with its public half");
}

/* ---------------------------------------------------------------- other tokens ----- */

static void token_sign_key__says_what_the_token_does_not_have(void **state)
{
    const struct token_key_name name = {.kind = TOKEN_SIGNING_ED25519, .label = "late"};
    struct lab *l = *state;

    lab_make_key(l, TOKEN_SIGNING_ED25519, "ed");
    lab_reopen_shimmed(l, "no-eddsa", NULL, TOKEN_READ_WRITE);
    refuses(l, "ed", TEKD_ENOTFOUND, "key \"ed\": the token has no CKM_EDDSA (Ed25519)");
    assert_int_equal(token_make_key(l->token, &name), TEKD_ENOTFOUND);
    lab_assert_reason(l->token, "CKM_EDDSA");
    assert_int_equal(lab_count(l, "late"), 0);
}

static size_t allowed_octets(struct lab *l, const char *label)
{
    CK_MECHANISM_TYPE list[4];
    CK_ATTRIBUTE a = {CKA_ALLOWED_MECHANISMS, list, sizeof(list)};

    assert_int_equal(
        l->f->C_GetAttributeValue(l->raw, lab_object(l, CKO_PRIVATE_KEY, label), &a, 1), CKR_OK);
    if (a.ulValueLen == sizeof(list[0]))
        assert_int_equal(list[0], CKM_EDDSA);
    return a.ulValueLen;
}

static void token_make_key__binds_the_key_where_the_token_can(void **state)
{
    struct lab *l = *state;
    AUTO(token_signing) struct token_signing *k = NULL;

    lab_make_key(l, TOKEN_SIGNING_ED25519, "bound");
    assert_int_equal(allowed_octets(l, "bound"), sizeof(CK_MECHANISM_TYPE));
    lab_reopen_shimmed(l, "no-allowed-mechanisms", NULL, TOKEN_READ_WRITE);
    lab_make_key(l, TOKEN_SIGNING_ED25519, "free");
    assert_int_equal(allowed_octets(l, "free"), 0);
    assert_int_equal(token_sign_key(l->token, TOKEN_SIGN_ED25519, "free", &k), 0);
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(token_signing_sign__signs_the_text_itself),
        LAB_TEST(token_sign_key__takes_a_key_made_elsewhere),
        LAB_TEST(token_sign_key__refuses_weak_keys),
        LAB_TEST(token_sign_key__refuses_what_it_is_not),
        LAB_TEST(token_sign_key__refuses_a_foreign_public_half),
        LAB_TEST(token_sign_key__says_what_the_token_does_not_have),
        LAB_TEST(token_make_key__binds_the_key_where_the_token_can),
    };

    /* softhsm_leaks.c names it: what is unloaded has no name. */
    assert_non_null(dlopen(TEST_SOFTHSM, RTLD_NOW | RTLD_NODELETE));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
