/* KEKs: bound three ways, and refused when anything about them is weak. */
#include "lab.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

static int describe(struct lab *l, const char *label, enum hsm_kek_use use,
                    struct hsm_kek_report *report)
{
    return token_kek_describe(l->token, label, use, HSM_WRAP_AES_KW, report);
}

static void token_kek_describe__reports_the_binding(void **state)
{
    struct lab *l = *state;
    struct hsm_kek_report r, again;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    assert_int_equal(describe(l, "storage", HSM_KEK_STORAGE, &r), 0);
    assert_string_equal(r.kek.label, "storage");
    assert_int_equal(r.kek.id_len, 16);
    assert_int_equal(r.kek.use, HSM_KEK_STORAGE);
    assert_int_equal(r.kek.wrap, HSM_WRAP_AES_KW);
    assert_false(r.imported);
    assert_int_equal(strlen(r.check_value), 6);
    assert_string_equal(r.text, "AES key, made in this HSM, for aes-kw only");
    assert_int_equal(describe(l, "storage", HSM_KEK_STORAGE, &again), 0);
    assert_memory_equal(r.kek.fingerprint, again.kek.fingerprint, 32);
}

/* The SHA-256 of the wrap of SHA-256("tekd KEK fingerprint 1"), by OpenSSL. */
static void expected_fingerprint(const uint8_t kek[static 32], uint8_t out[static 32])
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t constant[32], wrapped[40];
    int len = 0;

    assert_true(EVP_Q_digest(NULL, "SHA256", NULL, "tekd KEK fingerprint 1", 22, constant, NULL));
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    assert_true(EVP_EncryptInit_ex(ctx, EVP_aes_256_wrap(), NULL, kek, NULL));
    assert_true(EVP_EncryptUpdate(ctx, wrapped, &len, constant, sizeof(constant)));
    assert_int_equal(len, 40);
    assert_true(EVP_Q_digest(NULL, "SHA256", NULL, wrapped, 40, out, NULL));
    EVP_CIPHER_CTX_free(ctx);
}

static void token_kek_describe__fingerprint_is_that_of_openssl(void **state)
{
    static const char value[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
    static const enum token_kind kinds[] = {TOKEN_BSA_KEK, TOKEN_STORAGE_KEK};
    static const enum hsm_kek_use uses[] = {HSM_KEK_BSA, HSM_KEK_STORAGE};
    struct lab *l = *state;
    AUTO(secret) struct secret *s = lab_secret(value);
    uint8_t want[32];

    expected_fingerprint((const uint8_t *)value, want);
    for (size_t i = 0; i < 2; i++) {
        const struct token_key_name name = {
            .kind = kinds[i], .label = token_key_kind_name(kinds[i]), .wrap = HSM_WRAP_AES_KW};
        struct hsm_kek_report r;

        assert_int_equal(token_make_import(l->token, &name, s), 0);
        assert_int_equal(describe(l, name.label, uses[i], &r), 0);
        assert_memory_equal(r.kek.fingerprint, want, 32);
        assert_true(r.imported);
        assert_non_null(strstr(r.text, "imported"));
    }
}

static void token_kek_describe__rsa_fingerprint_is_of_the_spki(void **state)
{
    struct lab *l = *state;
    const struct token_key_name name = {
        .kind = TOKEN_BSA_RSA, .label = "rsa", .wrap = HSM_WRAP_OAEP_SHA1};
    EVP_PKEY *key = EVP_RSA_gen(2048);
    unsigned char *der = NULL;
    uint8_t want[32];
    struct hsm_kek_report r;
    int len;

    assert_int_equal(token_make_public(l->token, &name, key), 0);
    len = i2d_PUBKEY(key, &der);
    assert_true(EVP_Q_digest(NULL, "SHA256", NULL, der, (size_t)len, want, NULL));
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    assert_int_equal(token_kek_describe(l->token, "rsa", HSM_KEK_BSA, HSM_WRAP_OAEP_SHA1, &r), 0);
    assert_memory_equal(r.kek.fingerprint, want, 32);
    assert_int_equal(token_kek_describe(l->token, "rsa", HSM_KEK_STORAGE, HSM_WRAP_OAEP_SHA1, &r),
                     TEKD_EINVAL);
}

/* Tokens take any public key: what is wrapped to a short one, or by the exponent 1, is as good as
 * clear. */
static void token_kek_describe__refuses_a_weak_rsa_key(void **state)
{
    struct lab *l = *state;
    EVP_PKEY *good = EVP_RSA_gen(2048), *small = EVP_RSA_gen(1024);
    EVP_PKEY *clear = lab_rsa_of_exponent(good, 1);
    struct hsm_kek_report r;

    (void)lab_make_rsa(l, "good", good);
    (void)lab_make_rsa(l, "small", small);
    (void)lab_make_rsa(l, "clear", clear);
    EVP_PKEY_free(good);
    EVP_PKEY_free(small);
    EVP_PKEY_free(clear);
    assert_int_equal(token_kek_describe(l->token, "good", HSM_KEK_BSA, HSM_WRAP_OAEP_SHA1, &r), 0);
    assert_int_equal(token_kek_describe(l->token, "small", HSM_KEK_BSA, HSM_WRAP_OAEP_SHA1, &r),
                     TEKD_EWEAK);
    lab_assert_reason(l->token, "it is no RSA key of 2048 to 4096 bits");
    assert_int_equal(token_kek_describe(l->token, "clear", HSM_KEK_BSA, HSM_WRAP_OAEP_SHA1, &r),
                     TEKD_EWEAK);
    lab_assert_reason(l->token, "its RSA exponent is 1 or even");
}

static void token_kek_find__wants_label_id_and_fingerprint(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;
    struct hsm_kek_report r;
    struct hsm_kek other;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    assert_int_equal(describe(l, "bsa", HSM_KEK_BSA, &r), 0);
    other = r.kek;
    other.fingerprint[31] ^= 1;
    assert_int_equal(token_kek_find(l->token, &other, &k), TEKD_ENOTFOUND);
    lab_assert_reason(l->token, "its fingerprint differs");
    other = r.kek;
    other.id[0] ^= 1;
    assert_int_equal(token_kek_find(l->token, &other, &k), TEKD_ENOTFOUND);
    other = r.kek;
    other.label[0] = 'B';
    assert_int_equal(token_kek_find(l->token, &other, &k), TEKD_ENOTFOUND);
    lab_assert_reason(l->token, "has no key \"Bsa\"");
    assert_null(k);
    assert_int_equal(token_kek_find(l->token, &r.kek, &k), 0);
}

static void token_kek_describe__refuses_two_keys_of_one_label(void **state)
{
    struct lab *l = *state;
    const struct lab_kek twin = {.label = "twin"};
    struct hsm_kek_report r;

    lab_make_kek(l, &twin);
    assert_int_equal(describe(l, "twin", HSM_KEK_BSA, &r), 0);
    lab_make_kek(l, &twin);
    assert_int_equal(describe(l, "twin", HSM_KEK_BSA, &r), TEKD_EEXIST);
    assert_non_null(strstr(r.text, "more than one key \"twin\""));
}

static void token_kek_find__refuses_two_keys_of_label_and_id(void **state)
{
    struct lab *l = *state;
    const struct lab_kek twin = {.label = "twin"};
    AUTO(token_kek) struct token_kek *k = NULL;
    struct hsm_kek_report r;

    lab_make_kek(l, &twin);
    assert_int_equal(describe(l, "twin", HSM_KEK_BSA, &r), 0);
    lab_make_kek(l, &twin);
    assert_int_equal(token_kek_find(l->token, &r.kek, &k), TEKD_EEXIST);
    assert_null(k);
}

/* What was read of the token when the first was looked for does not hide the second. */
static void token_kek_find__finds_a_key_made_since_the_last_one(void **state)
{
    struct lab *l = *state;

    lab_make_key(l, TOKEN_BSA_KEK, "first");
    token_kek_free(lab_kek(l, "first", HSM_KEK_BSA));
    lab_make_key(l, TOKEN_BSA_KEK, "second");
    token_kek_free(lab_kek(l, "second", HSM_KEK_BSA));
}

/* The recipe itself is good, so that what a row changes is what is refused. */
static void lab_make_kek__makes_good_ones(void **state)
{
    struct lab *l = *state;
    const struct lab_kek storage = {.label = "s", .storage = true}, bsa = {.label = "b"};
    struct hsm_kek_report r;

    lab_make_kek(l, &storage);
    lab_make_kek(l, &bsa);
    assert_int_equal(describe(l, "s", HSM_KEK_STORAGE, &r), 0);
    assert_int_equal(describe(l, "b", HSM_KEK_BSA, &r), 0);
}

static const struct {
    struct lab_kek kek;
    const char *text;
} weak[] = {
    {{.flags = {{CKA_DECRYPT, true}}}, "CKA_DECRYPT is true, must be false"},
    {{.flags = {{CKA_ENCRYPT, true}}}, "CKA_ENCRYPT is true, must be false"},
    {{.flags = {{CKA_SIGN, true}}}, "CKA_SIGN is true, must be false"},
    {{.flags = {{CKA_VERIFY, true}}}, "CKA_VERIFY is true, must be false"},
    {{.flags = {{CKA_DERIVE, true}}}, "CKA_DERIVE is true, must be false"},
    {{.flags = {{CKA_EXTRACTABLE, true}}}, "CKA_EXTRACTABLE is true, must be false"},
    {{.flags = {{CKA_SENSITIVE, false}}}, "CKA_SENSITIVE is false, must be true"},
    {{.flags = {{CKA_PRIVATE, false}}}, "CKA_PRIVATE is false, must be true"},
    {{.flags = {{CKA_MODIFIABLE, true}}}, "CKA_MODIFIABLE is true, must be false"},
    {{.left_out = CKA_MODIFIABLE}, "CKA_MODIFIABLE is true, must be false"},
    {{.flags = {{CKA_COPYABLE, true}}}, "CKA_COPYABLE is true, must be false"},
    {{.flags = {{CKA_UNWRAP, true}}}, "CKA_UNWRAP is true, must be false"},
    {{.flags = {{CKA_WRAP, false}}}, "CKA_WRAP is false, must be true"},
    {{.octets = 16}, "it is no AES-256 key"},
    {{.left_out = CKA_ALLOWED_MECHANISMS}, "CKA_ALLOWED_MECHANISMS is not set"},
    {{.mechanisms = {CKM_AES_CBC_PAD}}, "CKA_ALLOWED_MECHANISMS is 0x1085, must be 0x2109"},
    {{.mechanisms = {CKM_AES_KEY_WRAP, CKM_AES_CBC}}, "CKA_ALLOWED_MECHANISMS has several"},
    {{.storage = true, .left_out = CKA_UNWRAP_TEMPLATE}, "CKA_UNWRAP_TEMPLATE is not set"},
    {{.storage = true, .inner_out = CKA_SENSITIVE}, "TEMPLATE does not enforce CKA_SENSITIVE"},
    {{.storage = true, .inner_out = CKA_DECRYPT}, "TEMPLATE does not enforce CKA_DECRYPT"},
    {{.storage = true, .inner_out = CKA_MODIFIABLE}, "TEMPLATE does not enforce CKA_MODIFIABLE"},
    {{.storage = true, .flags = {{CKA_UNWRAP, false}}}, "CKA_UNWRAP is false, must be true"},
};

static void token_kek_describe__refuses_every_weak_kek(void **state)
{
    struct lab *l = *state;

    for (size_t i = 0; i < ARRAY_SIZE(weak); i++) {
        struct lab_kek spec = weak[i].kek;
        char label[16];
        struct hsm_kek_report r;

        snprintf(label, sizeof(label), "weak-%zu", i);
        spec.label = label;
        lab_make_kek(l, &spec);
        if (describe(l, label, spec.storage ? HSM_KEK_STORAGE : HSM_KEK_BSA, &r) != TEKD_EWEAK)
            fail_msg("taken: %s", weak[i].text);
        if (!strstr(r.text, weak[i].text))
            fail_msg("expected \"%s\" in \"%s\"", weak[i].text, r.text);
        assert_string_equal(r.kek.label, label);
    }
}

/* Readable when it was made, then put right as far as SoftHSM lets one: its past stays. */
static void token_kek_describe__refuses_a_kek_that_was_readable_once(void **state)
{
    struct lab *l = *state;
    const struct lab_kek spec = {.label = "reformed",
                                 .flags = {{CKA_SENSITIVE, false},
                                           {CKA_EXTRACTABLE, true},
                                           {CKA_MODIFIABLE, true},
                                           {CKA_COPYABLE, true}}};
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ATTRIBUTE better[] = {{CKA_SENSITIVE, &yes, 1}, {CKA_EXTRACTABLE, &no, 1}};
    CK_ATTRIBUTE best[] = {{CKA_MODIFIABLE, &no, 1}};
    CK_OBJECT_HANDLE o = lab_make_kek(l, &spec), copy;
    struct hsm_kek_report r;

    assert_int_equal(l->f->C_SetAttributeValue(l->raw, o, better, 2), CKR_OK);
    assert_int_equal(l->f->C_CopyObject(l->raw, o, best, 1, &copy), CKR_OK);
    assert_int_equal(l->f->C_DestroyObject(l->raw, o), CKR_OK);
    assert_int_equal(describe(l, "reformed", HSM_KEK_BSA, &r), TEKD_EWEAK);
    assert_null(strstr(r.text, "CKA_SENSITIVE"));
    assert_null(strstr(r.text, "CKA_EXTRACTABLE"));
    assert_non_null(strstr(r.text, "CKA_ALWAYS_SENSITIVE is false, must be true"));
    assert_non_null(strstr(r.text, "CKA_NEVER_EXTRACTABLE is false, must be true"));
}

static void token_kek_find__refuses_a_weak_kek_although_bound(void **state)
{
    struct lab *l = *state;
    const struct lab_kek spec = {.label = "weak", .flags = {{CKA_DECRYPT, true}}};
    AUTO(token_kek) struct token_kek *k = NULL;
    struct hsm_kek want = {.label = "weak", .wrap = HSM_WRAP_AES_KW, .use = HSM_KEK_BSA};

    lab_make_kek(l, &spec);
    assert_int_equal(token_kek_find(l->token, &want, &k), TEKD_EWEAK);
    assert_null(k);
}

static void token_kek_describe__a_bsa_kek_is_no_storage_kek(void **state)
{
    struct lab *l = *state;
    struct hsm_kek_report r;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    assert_int_equal(describe(l, "bsa", HSM_KEK_STORAGE, &r), TEKD_EWEAK);
    assert_int_equal(describe(l, "storage", HSM_KEK_BSA, &r), TEKD_EWEAK);
    assert_int_equal(describe(l, "none", HSM_KEK_BSA, &r), TEKD_ENOTFOUND);
}

/* Where TEKs ask for trusted KEKs, a KEK that is not would fail later, under load. */
static void token_kek_describe__wants_trusted_where_the_profile_does(void **state)
{
    struct lab *l = *state;
    struct hsm_kek_report r;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_close(l);
    lab_open(l, NULL, "nshield", TOKEN_READ_WRITE);
    assert_int_equal(describe(l, "bsa", HSM_KEK_BSA, &r), TEKD_EWEAK);
    assert_non_null(strstr(r.text, "CKA_TRUSTED is false"));
}

static int collect(void *arg, const struct token_key *key)
{
    char *out = arg;
    size_t used = strlen(out);

    snprintf(out + used, 512 - used, "%s:%s:%zu ", token_key_kind_name(key->kind), key->label,
             key->findings.n);
    return 0;
}

/* As after a partition was deactivated: "HSM not reachable" is never "no such key". */
static void token_kek_describe__a_lost_login_is_no_missing_key(void **state)
{
    struct lab *l = *state;
    struct hsm_kek_report r;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    assert_int_equal(describe(l, "bsa", HSM_KEK_BSA, &r), 0);
    assert_int_equal(l->f->C_Logout(l->raw), CKR_OK);
    assert_int_equal(describe(l, "bsa", HSM_KEK_BSA, &r), TEKD_EHSM);
    lab_assert_reason(l->token, "forgotten that the user is logged in");
}

/* Not read from where nothing was written. */
static void token_key_find__takes_no_name_that_did_not_fit(void **state)
{
    struct lab *l = *state;
    struct token_key k;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_reopen_shimmed(l, "long-names", NULL, TOKEN_READ_ONLY);
    assert_int_equal(token_key_find(l->token, TOKEN_BSA_KEK, "bsa", &k), 0);
    assert_string_equal(k.label, "");
    assert_int_equal(k.id_len, 0);
}

static void token_key_each__shows_every_key_once(void **state)
{
    struct lab *l = *state;
    const struct lab_kek spec = {.label = "w", .flags = {{CKA_DECRYPT, true}}};
    char seen[512] = "";

    lab_make_key(l, TOKEN_SIGNING_KEY, "sign");
    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_make_kek(l, &spec);
    assert_int_equal(token_key_each(l->token, collect, seen), 0);
    assert_non_null(strstr(seen, "signing-key:sign:0 "));
    assert_non_null(strstr(seen, "storage-kek:storage:0 "));
    assert_non_null(strstr(seen, "bsa-kek:bsa:0 "));
    assert_non_null(strstr(seen, "bsa-kek:w:1 "));
    assert_null(strstr(strstr(seen, "signing-key") + 1, "signing-key"));
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(token_kek_describe__reports_the_binding),
        LAB_TEST(token_kek_describe__fingerprint_is_that_of_openssl),
        LAB_TEST(token_kek_describe__rsa_fingerprint_is_of_the_spki),
        LAB_TEST(token_kek_describe__refuses_a_weak_rsa_key),
        LAB_TEST(token_kek_find__wants_label_id_and_fingerprint),
        LAB_TEST(token_kek_describe__refuses_two_keys_of_one_label),
        LAB_TEST(token_kek_find__refuses_two_keys_of_label_and_id),
        LAB_TEST(token_kek_find__finds_a_key_made_since_the_last_one),
        LAB_TEST(lab_make_kek__makes_good_ones),
        LAB_TEST(token_kek_describe__refuses_every_weak_kek),
        LAB_TEST(token_kek_describe__refuses_a_kek_that_was_readable_once),
        LAB_TEST(token_kek_find__refuses_a_weak_kek_although_bound),
        LAB_TEST(token_kek_describe__a_bsa_kek_is_no_storage_kek),
        LAB_TEST(token_kek_describe__wants_trusted_where_the_profile_does),
        LAB_TEST(token_kek_describe__a_lost_login_is_no_missing_key),
        LAB_TEST(token_key_find__takes_no_name_that_did_not_fit),
        LAB_TEST(token_key_each__shows_every_key_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
