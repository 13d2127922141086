/* Keys as tek-provision makes them: every attribute as promised, read without the library. */
#include "lab.h"

#include <string.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

struct promise {
    CK_ATTRIBUTE_TYPE type;
    bool value;
};

/* docs/provisioning.md, "Keys". */
static const struct promise kek_promises[] = {
    {CKA_TOKEN, true},    {CKA_PRIVATE, true},  {CKA_SENSITIVE, true}, {CKA_EXTRACTABLE, false},
    {CKA_ENCRYPT, false}, {CKA_DECRYPT, false}, {CKA_SIGN, false},     {CKA_VERIFY, false},
    {CKA_WRAP, true},     {CKA_DERIVE, false},  {CKA_COPYABLE, false}, {CKA_MODIFIABLE, false},
};
static const struct promise tek_promises[] = {
    {CKA_TOKEN, false},      {CKA_PRIVATE, true},  {CKA_SENSITIVE, true}, {CKA_EXTRACTABLE, true},
    {CKA_ENCRYPT, false},    {CKA_DECRYPT, false}, {CKA_SIGN, false},     {CKA_VERIFY, false},
    {CKA_WRAP, false},       {CKA_UNWRAP, false},  {CKA_DERIVE, false},   {CKA_COPYABLE, false},
    {CKA_MODIFIABLE, false},
};
static const struct promise made_here[] = {
    {CKA_LOCAL, true}, {CKA_ALWAYS_SENSITIVE, true}, {CKA_NEVER_EXTRACTABLE, true}};
static const struct promise brought_in[] = {
    {CKA_LOCAL, false}, {CKA_ALWAYS_SENSITIVE, false}, {CKA_NEVER_EXTRACTABLE, false}};
static const struct promise private_promises[] = {
    {CKA_TOKEN, true},   {CKA_PRIVATE, true},   {CKA_SENSITIVE, true},     {CKA_EXTRACTABLE, false},
    {CKA_SIGN, true},    {CKA_DECRYPT, false},  {CKA_SIGN_RECOVER, false}, {CKA_UNWRAP, false},
    {CKA_DERIVE, false}, {CKA_COPYABLE, false}, {CKA_MODIFIABLE, false},
};

static void check(struct lab *l, CK_OBJECT_HANDLE o, const struct promise *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        CK_BBOOL v = 2;
        CK_ATTRIBUTE a = {p[i].type, &v, sizeof(v)};

        assert_int_equal(l->f->C_GetAttributeValue(l->raw, o, &a, 1), CKR_OK);
        if ((v != 0) != p[i].value)
            fail_msg("attribute 0x%lx is %d", p[i].type, v);
    }
}

static void check_number(struct lab *l, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type, CK_ULONG want)
{
    CK_ULONG v = ~want;
    CK_ATTRIBUTE a = {type, &v, sizeof(v)};

    assert_int_equal(l->f->C_GetAttributeValue(l->raw, o, &a, 1), CKR_OK);
    assert_int_equal(a.ulValueLen, sizeof(v));
    assert_int_equal(v, want);
}

/* The template has each promise of a TEK, its key type, and nothing else. */
static void check_unwrap_template(struct lab *l, CK_OBJECT_HANDLE o)
{
    CK_ATTRIBUTE inner[32] = {{0}};
    CK_ULONG value[32] = {0}, n;
    CK_ATTRIBUTE a = {CKA_UNWRAP_TEMPLATE, inner, sizeof(inner)};

    assert_int_equal(l->f->C_GetAttributeValue(l->raw, o, &a, 1), CKR_OK);
    n = a.ulValueLen / sizeof(inner[0]);
    assert_int_equal(n, ARRAY_SIZE(tek_promises) + 1);
    for (CK_ULONG i = 0; i < n; i++) {
        inner[i].pValue = &value[i];
        inner[i].ulValueLen = sizeof(value[i]);
    }
    assert_int_equal(l->f->C_GetAttributeValue(l->raw, o, &a, 1), CKR_OK);
    for (CK_ULONG i = 0; i < n; i++) {
        bool known = inner[i].type == CKA_KEY_TYPE && value[i] == CKK_AES;

        for (size_t k = 0; k < ARRAY_SIZE(tek_promises); k++)
            known |= tek_promises[k].type == inner[i].type && tek_promises[k].value == value[i];
        if (!known)
            fail_msg("UNWRAP_TEMPLATE: 0x%lx = %lu", inner[i].type, value[i]);
    }
}

static CK_OBJECT_HANDLE kek(struct lab *l, const char *label, bool unwrap)
{
    const struct promise use = {CKA_UNWRAP, unwrap};
    CK_OBJECT_HANDLE o = lab_object(l, CKO_SECRET_KEY, label);

    check(l, o, kek_promises, ARRAY_SIZE(kek_promises));
    check(l, o, &use, 1);
    check_number(l, o, CKA_KEY_TYPE, CKK_AES);
    check_number(l, o, CKA_ALLOWED_MECHANISMS, CKM_AES_KEY_WRAP);
    return o;
}

static void token_make_key__storage_kek_is_as_promised(void **state)
{
    struct lab *l = *state;
    CK_OBJECT_HANDLE o;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    o = kek(l, "storage", true);
    check(l, o, made_here, ARRAY_SIZE(made_here));
    check_number(l, o, CKA_VALUE_LEN, 32);
    check_unwrap_template(l, o);
}

static void token_make_key__bsa_kek_is_as_promised(void **state)
{
    struct lab *l = *state;
    CK_OBJECT_HANDLE o;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    o = kek(l, "bsa", false);
    check(l, o, made_here, ARRAY_SIZE(made_here));
    check_number(l, o, CKA_VALUE_LEN, 32);
}

static void token_make_key__signing_key_is_as_promised(void **state)
{
    static const struct promise pub[] = {{CKA_TOKEN, true},    {CKA_VERIFY, true},
                                         {CKA_ENCRYPT, false}, {CKA_WRAP, false},
                                         {CKA_DERIVE, false},  {CKA_MODIFIABLE, false}};
    struct lab *l = *state;
    CK_OBJECT_HANDLE o;

    lab_make_key(l, TOKEN_SIGNING_KEY, "sign");
    o = lab_object(l, CKO_PRIVATE_KEY, "sign");
    check(l, o, private_promises, ARRAY_SIZE(private_promises));
    check(l, o, made_here, ARRAY_SIZE(made_here));
    check_number(l, o, CKA_KEY_TYPE, CKK_EC);
    check(l, lab_object(l, CKO_PUBLIC_KEY, "sign"), pub, ARRAY_SIZE(pub));
}

static void token_tek_generate__tek_is_as_promised(void **state)
{
    struct lab *l = *state;

    for (unsigned bits = 128; bits <= 256; bits += 64) {
        struct token_tek tek;

        assert_int_equal(token_tek_generate(l->token, bits, &tek), 0);
        check(l, tek.object, tek_promises, ARRAY_SIZE(tek_promises));
        check_number(l, tek.object, CKA_VALUE_LEN, bits / 8);
        check_number(l, tek.object, CKA_KEY_TYPE, CKK_AES);
        assert_int_equal(token_tek_destroy(l->token, &tek), 0);
    }
}

static void token_make_import__is_marked_as_imported(void **state)
{
    struct lab *l = *state;
    AUTO(secret) struct secret *value = lab_secret("0123456789abcdef0123456789abcdef");
    const struct token_key_name name = {TOKEN_STORAGE_KEK, "in", {1, 2}, 2, HSM_WRAP_AES_KW};
    struct token_key key;
    CK_OBJECT_HANDLE o;

    assert_int_equal(token_make_import(l->token, &name, value), 0);
    o = kek(l, "in", true);
    check(l, o, brought_in, ARRAY_SIZE(brought_in));
    check_unwrap_template(l, o);
    assert_int_equal(token_key_find(l->token, TOKEN_STORAGE_KEK, "in", &key), 0);
    assert_true(key.imported);
    assert_int_equal(key.findings.n, 0);
    assert_int_equal(key.id_len, 2);
}

static void token_make_import__refuses_other_lengths(void **state)
{
    struct lab *l = *state;
    AUTO(secret) struct secret *value = lab_secret("0123456789abcdef");
    const struct token_key_name name = {
        .kind = TOKEN_BSA_KEK, .label = "in", .wrap = HSM_WRAP_AES_KW};

    assert_int_equal(token_make_import(l->token, &name, value), TEKD_EINVAL);
    assert_int_equal(lab_count(l, "in"), 0);
}

static void token_make_handed_out__leaves_one_key_and_one_blob(void **state)
{
    struct lab *l = *state;
    const struct token_key_name name = {
        .kind = TOKEN_BSA_KEK, .label = "out", .wrap = HSM_WRAP_AES_KW};
    EVP_PKEY *receiver = EVP_RSA_gen(2048);
    CK_OBJECT_HANDLE found[16];
    CK_ULONG n = 0;
    struct hsm_blob blob;

    assert_int_equal(token_make_handed_out(l->token, &name, receiver, &blob), 0);
    EVP_PKEY_free(receiver);
    assert_int_equal(blob.len, 256);
    check(l, kek(l, "out", false), brought_in, ARRAY_SIZE(brought_in));
    /* Session and one-time keys are gone. */
    assert_int_equal(l->f->C_FindObjectsInit(l->raw, NULL, 0), CKR_OK);
    assert_int_equal(l->f->C_FindObjects(l->raw, found, 16, &n), CKR_OK);
    assert_int_equal(l->f->C_FindObjectsFinal(l->raw), CKR_OK);
    assert_int_equal(n, 1);
}

static void token_make_handed_out__refuses_weak_receivers(void **state)
{
    struct lab *l = *state;
    const struct token_key_name name = {
        .kind = TOKEN_BSA_KEK, .label = "out", .wrap = HSM_WRAP_AES_KW};
    EVP_PKEY *small = EVP_RSA_gen(1024), *ec = EVP_EC_gen("P-256"), *good = EVP_RSA_gen(2048);
    EVP_PKEY *clear = lab_rsa_of_exponent(good, 1), *even = lab_rsa_of_exponent(good, 65536);
    struct hsm_blob blob;

    assert_int_equal(token_make_handed_out(l->token, &name, small, &blob), TEKD_EINVAL);
    assert_int_equal(token_make_handed_out(l->token, &name, ec, &blob), TEKD_EINVAL);
    /* What is wrapped to it is there to read. */
    assert_int_equal(token_make_handed_out(l->token, &name, clear, &blob), TEKD_EINVAL);
    lab_assert_reason(l->token, "exponent");
    assert_int_equal(token_make_handed_out(l->token, &name, even, &blob), TEKD_EINVAL);
    assert_int_equal(lab_count(l, "out"), 0);
    EVP_PKEY_free(small);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(good);
    EVP_PKEY_free(clear);
    EVP_PKEY_free(even);
}

static void token_make_key__never_takes_a_label_twice(void **state)
{
    static const enum token_kind kinds[] = {TOKEN_STORAGE_KEK, TOKEN_BSA_KEK, TOKEN_SIGNING_KEY,
                                            TOKEN_SIGNING_ED25519};
    struct lab *l = *state;

    lab_make_key(l, TOKEN_BSA_KEK, "taken");
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        const struct token_key_name name = {
            .kind = kinds[i], .label = "taken", .wrap = HSM_WRAP_AES_KW};

        assert_int_equal(token_make_key(l->token, &name), TEKD_EEXIST);
    }
    assert_int_equal(lab_count(l, "taken"), 1);
}

static void token_make_key__refuses_bad_names_and_wraps(void **state)
{
    struct lab *l = *state;
    char label[HSM_LABEL_MAX + 2];
    struct token_key_name name = {.kind = TOKEN_BSA_KEK, .label = "", .wrap = HSM_WRAP_AES_KW};

    assert_int_equal(token_make_key(l->token, &name), TEKD_EINVAL);
    memset(label, 'x', sizeof(label) - 1);
    label[sizeof(label) - 1] = 0;
    name.label = label;
    assert_int_equal(token_make_key(l->token, &name), TEKD_EINVAL);
    name.label = "k";
    name.wrap = HSM_WRAP_OAEP_SHA1;
    assert_int_equal(token_make_key(l->token, &name), TEKD_EINVAL);
    name.kind = TOKEN_BSA_RSA;
    assert_int_equal(token_make_key(l->token, &name), TEKD_EINVAL);
}

/* A token that does not do as told, and says so only when it is read back. */
static void made_weak(struct lab *l, const char *mode, enum token_kind kind, const char *reason)
{
    const struct token_key_name name = {.kind = kind, .label = "weak", .wrap = HSM_WRAP_AES_KW};

    lab_reopen_shimmed(l, mode, NULL, TOKEN_READ_WRITE);
    assert_int_equal(token_make_key(l->token, &name), TEKD_EWEAK);
    lab_assert_reason(l->token, reason);
    assert_int_equal(lab_count(l, "weak"), 0);
}

static void token_make_key__destroys_what_the_token_made_weaker(void **state)
{
    struct lab *l = *state;

    made_weak(l, "ignores-modifiable", TOKEN_BSA_KEK, "CKA_MODIFIABLE is true, must be false");
    made_weak(l, "ignores-unwrap-template", TOKEN_STORAGE_KEK, "CKA_UNWRAP_TEMPLATE is not set");
}

static void token_make_key__needs_a_read_write_session(void **state)
{
    struct lab *l = *state;
    const struct token_key_name name = {
        .kind = TOKEN_BSA_KEK, .label = "k", .wrap = HSM_WRAP_AES_KW};

    lab_close(l);
    lab_open(l, NULL, NULL, TOKEN_READ_ONLY);
    assert_int_equal(token_make_key(l->token, &name), TEKD_EHSM);
    assert_string_equal(token_reason(l->token), "C_GenerateKey: CKR_SESSION_READ_ONLY");
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(token_make_key__storage_kek_is_as_promised),
        LAB_TEST(token_make_key__bsa_kek_is_as_promised),
        LAB_TEST(token_make_key__signing_key_is_as_promised),
        LAB_TEST(token_tek_generate__tek_is_as_promised),
        LAB_TEST(token_make_import__is_marked_as_imported),
        LAB_TEST(token_make_import__refuses_other_lengths),
        LAB_TEST(token_make_handed_out__leaves_one_key_and_one_blob),
        LAB_TEST(token_make_handed_out__refuses_weak_receivers),
        LAB_TEST(token_make_key__never_takes_a_label_twice),
        LAB_TEST(token_make_key__refuses_bad_names_and_wraps),
        LAB_TEST(token_make_key__destroys_what_the_token_made_weaker),
        LAB_TEST(token_make_key__needs_a_read_write_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
