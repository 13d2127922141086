/* What somebody with the user's PIN can try: on the real keys by hand, and as tekd's start does. */
#include "lab.h"

#include <stdlib.h>
#include <string.h>

static CK_OBJECT_CLASS class_secret = CKO_SECRET_KEY;
static CK_KEY_TYPE type_aes = CKK_AES;
static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;

/* A key of the attacker's own, good for everything. */
static CK_OBJECT_HANDLE own_key(struct lab *l)
{
    static uint8_t value[32] = {7};
    CK_ATTRIBUTE t[] = {
        {CKA_CLASS, &class_secret, sizeof(class_secret)},
        {CKA_KEY_TYPE, &type_aes, sizeof(type_aes)},
        {CKA_VALUE, value, sizeof(value)},
        {CKA_TOKEN, &no, 1},
        {CKA_WRAP, &yes, 1},
        {CKA_UNWRAP, &yes, 1},
        {CKA_DECRYPT, &yes, 1},
    };
    CK_OBJECT_HANDLE o = 0;

    assert_int_equal(l->f->C_CreateObject(l->raw, t, ARRAY_SIZE(t), &o), CKR_OK);
    return o;
}

static void refuses_writing(struct lab *l, CK_OBJECT_HANDLE o)
{
    static const CK_ATTRIBUTE_TYPE flags[] = {CKA_DECRYPT,     CKA_ENCRYPT,    CKA_UNWRAP,
                                              CKA_EXTRACTABLE, CKA_MODIFIABLE, CKA_COPYABLE};
    CK_ATTRIBUTE label = {CKA_LABEL, (void *)(uintptr_t) "mine", 4};

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        CK_ATTRIBUTE a = {flags[i], &yes, 1};

        assert_int_not_equal(l->f->C_SetAttributeValue(l->raw, o, &a, 1), CKR_OK);
    }
    assert_int_not_equal(l->f->C_SetAttributeValue(l->raw, o, &label, 1), CKR_OK);
}

static void refuses_use(struct lab *l, CK_OBJECT_HANDLE o)
{
    uint8_t iv[16] = {0}, value[64];
    CK_MECHANISM modes[] = {
        {CKM_AES_ECB, NULL, 0}, {CKM_AES_CBC, iv, 16}, {CKM_AES_CBC_PAD, iv, 16}};
    CK_ATTRIBUTE copy[] = {{CKA_TOKEN, &no, 1}, {CKA_DECRYPT, &yes, 1}};
    CK_ATTRIBUTE read = {CKA_VALUE, value, sizeof(value)};
    CK_OBJECT_HANDLE other;

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        assert_int_not_equal(l->f->C_DecryptInit(l->raw, &modes[i], o), CKR_OK);
        assert_int_not_equal(l->f->C_EncryptInit(l->raw, &modes[i], o), CKR_OK);
    }
    assert_int_not_equal(l->f->C_CopyObject(l->raw, o, copy, 2, &other), CKR_OK);
    assert_int_not_equal(l->f->C_CopyObject(l->raw, o, copy, 1, &other), CKR_OK);
    assert_int_equal(l->f->C_GetAttributeValue(l->raw, o, &read, 1), CKR_ATTRIBUTE_SENSITIVE);
}

/* Wrapping by another mode than the KEK's own, and taking the KEK itself out. */
static void refuses_other_wraps(struct lab *l, CK_OBJECT_HANDLE kek)
{
    uint8_t iv[16] = {0}, out[256];
    CK_MECHANISM kw = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_MECHANISM others[] = {{CKM_AES_CBC, iv, 16},
                             {CKM_AES_CBC_PAD, iv, 16},
                             {CKM_AES_ECB, NULL, 0},
                             {CKM_AES_KEY_WRAP_PAD, NULL, 0}};
    CK_ULONG len = sizeof(out);
    struct token_tek tek;

    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        len = sizeof(out);
        assert_int_not_equal(l->f->C_WrapKey(l->raw, &others[i], kek, tek.object, out, &len),
                             CKR_OK);
    }
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
    len = sizeof(out);
    assert_int_not_equal(l->f->C_WrapKey(l->raw, &kw, own_key(l), kek, out, &len), CKR_OK);
}

/* Its own blob, with a template that would make the TEK readable or useful. */
static void refuses_unwrapping(struct lab *l, CK_OBJECT_HANDLE kek)
{
    static const CK_ATTRIBUTE_TYPE wished[] = {CKA_DECRYPT, CKA_ENCRYPT, CKA_WRAP, CKA_MODIFIABLE,
                                               CKA_TOKEN};
    uint8_t out[64], iv[16] = {0};
    CK_MECHANISM kw = {CKM_AES_KEY_WRAP, NULL, 0}, cbc = {CKM_AES_CBC, iv, 16};
    CK_ULONG len = sizeof(out);
    struct token_tek tek;
    CK_OBJECT_HANDLE o;

    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    assert_int_equal(l->f->C_WrapKey(l->raw, &kw, kek, tek.object, out, &len), CKR_OK);
    for (size_t i = 0; i < ARRAY_SIZE(wished); i++) {
        CK_ATTRIBUTE t[] = {{CKA_CLASS, &class_secret, sizeof(class_secret)},
                            {CKA_KEY_TYPE, &type_aes, sizeof(type_aes)},
                            {wished[i], &yes, 1}};

        assert_int_not_equal(l->f->C_UnwrapKey(l->raw, &kw, kek, out, len, t, 3, &o), CKR_OK);
        assert_int_not_equal(l->f->C_UnwrapKey(l->raw, &cbc, kek, out, 16, t, 3, &o), CKR_OK);
    }
    CK_ATTRIBUTE readable[] = {{CKA_CLASS, &class_secret, sizeof(class_secret)},
                               {CKA_KEY_TYPE, &type_aes, sizeof(type_aes)},
                               {CKA_SENSITIVE, &no, 1},
                               {CKA_EXTRACTABLE, &yes, 1}};
    assert_int_not_equal(l->f->C_UnwrapKey(l->raw, &kw, kek, out, len, readable, 4, &o), CKR_OK);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
}

static void storage_kek__refuses_every_attack(void **state)
{
    struct lab *l = *state;
    CK_OBJECT_HANDLE o;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    o = lab_object(l, CKO_SECRET_KEY, "storage");
    refuses_writing(l, o);
    refuses_use(l, o);
    refuses_other_wraps(l, o);
    refuses_unwrapping(l, o);
}

static void bsa_kek__refuses_every_attack(void **state)
{
    struct lab *l = *state;
    CK_OBJECT_HANDLE o;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    o = lab_object(l, CKO_SECRET_KEY, "bsa");
    refuses_writing(l, o);
    refuses_use(l, o);
    refuses_other_wraps(l, o);
    refuses_unwrapping(l, o);
}

static void tek__refuses_all_but_being_wrapped(void **state)
{
    struct lab *l = *state;
    struct token_tek tek;

    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    refuses_writing(l, tek.object);
    refuses_use(l, tek.object);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
}

static void kek__cannot_be_destroyed_in_a_read_only_session(void **state)
{
    struct lab *l = *state;
    struct token_tek kek;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_close(l);
    lab_open(l, NULL, NULL, TOKEN_READ_ONLY);
    kek.object = lab_object(l, CKO_SECRET_KEY, "bsa");
    assert_int_equal(token_tek_destroy(l->token, &kek), TEKD_EHSM);
    assert_string_equal(token_reason(l->token), "C_DestroyObject: CKR_SESSION_READ_ONLY");
    assert_int_equal(lab_count(l, "bsa"), 1);
}

/* ---------------------------------------------------------------- as the start does - */

static void token_attack_play__softhsm_stops_two_of_three(void **state)
{
    struct lab *l = *state;
    struct token_attacks a;

    assert_int_equal(token_attack_play(l->token, &a), 0);
    assert_false(a.kek_made_to_decrypt);
    assert_false(a.tek_unwrapped_plain);
    assert_true(a.tek_wrapped_out);
    assert_false(a.prevention_promised);
}

/* SoftHSM honours CKA_WRAP_WITH_TRUSTED: under a profile that uses it (3) is stopped as well. */
static void token_attack_play__trusted_keks_stop_the_third(void **state)
{
    struct lab *l = *state;
    struct token_attacks a;

    lab_close(l);
    lab_open(l, NULL, "nshield", TOKEN_READ_ONLY);
    assert_int_equal(token_attack_play(l->token, &a), 0);
    assert_false(a.tek_wrapped_out);
    assert_true(a.prevention_promised);
}

static void token_attack_play__leaves_nothing_behind(void **state)
{
    struct lab *l = *state;
    struct token_attacks a;
    CK_OBJECT_HANDLE found[16];
    CK_ULONG n = 0;

    assert_int_equal(token_attack_play(l->token, &a), 0);
    assert_int_equal(l->f->C_FindObjectsInit(l->raw, NULL, 0), CKR_OK);
    assert_int_equal(l->f->C_FindObjects(l->raw, found, 16, &n), CKR_OK);
    assert_int_equal(l->f->C_FindObjectsFinal(l->raw), CKR_OK);
    assert_int_equal(n, 0);
}

static void play_shimmed(struct lab *l, const char *mode, const char *profile,
                         struct token_attacks *a)
{
    lab_reopen_shimmed(l, mode, profile, TOKEN_READ_ONLY);
    assert_int_equal(token_attack_play(l->token, a), TEKD_EWEAK);
}

static void token_attack_play__finds_keks_that_can_be_changed(void **state)
{
    struct lab *l = *state;
    struct token_attacks a;

    play_shimmed(l, "ignores-modifiable", NULL, &a);
    assert_true(a.kek_made_to_decrypt);
    lab_assert_reason(l->token, "made to decrypt");
}

static void token_attack_play__finds_templates_that_bind_nothing(void **state)
{
    struct lab *l = *state;
    struct token_attacks a;

    play_shimmed(l, "ignores-unwrap-template", NULL, &a);
    assert_true(a.tek_unwrapped_plain);
    lab_assert_reason(l->token, "unwrapped as a readable key");
}

static void token_attack_play__finds_promises_not_kept(void **state)
{
    struct lab *l = *state;
    struct token_attacks a;

    play_shimmed(l, "ignores-wrap-with-trusted", "nshield", &a);
    assert_true(a.tek_wrapped_out);
    lab_assert_reason(l->token, "not trusted");
}

/* A link that goes down in the middle must not pass for a token that keeps its keys. */
static void token_attack_play__a_failing_token_refuses_nothing(void **state)
{
    static const struct {
        const char *mode;
        const char *reason;
    } failures[] = {
        {"device-removed-at-unwrapping", "C_UnwrapKey: CKR_DEVICE_REMOVED"},
        {"session-lost-at-writing", "C_SetAttributeValue: CKR_SESSION_HANDLE_INVALID"},
    };
    struct lab *l = *state;
    struct token_attacks a;

    for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
        lab_reopen_shimmed(l, failures[i].mode, NULL, TOKEN_READ_ONLY);
        assert_int_equal(token_attack_play(l->token, &a), TEKD_EHSM);
        assert_string_equal(token_reason(l->token), failures[i].reason);
    }
}

static void token_attack_rewrite__real_keks_refuse_it(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *storage = NULL;
    AUTO(token_kek) struct token_kek *bsa = NULL;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_close(l);
    /* As a worker: the read-write session is the attack's own. */
    lab_open(l, NULL, NULL, TOKEN_READ_ONLY);
    storage = lab_kek(l, "storage", HSM_KEK_STORAGE);
    bsa = lab_kek(l, "bsa", HSM_KEK_BSA);
    assert_int_equal(token_attack_rewrite(l->token, storage), 0);
    assert_int_equal(token_attack_rewrite(l->token, bsa), 0);
}

/* The attributes say one thing and the token does another: that is what the attack is for. */
static void token_attack_rewrite__finds_a_token_that_takes_it(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_reopen_shimmed(l, "takes-all-writes", NULL, TOKEN_READ_ONLY);
    k = lab_kek(l, "bsa", HSM_KEK_BSA);
    assert_int_equal(token_attack_rewrite(l->token, k), TEKD_EWEAK);
    lab_assert_reason(l->token, "could be written to");
}

static void token_attack_rewrite__a_read_only_session_proves_nothing(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_reopen_shimmed(l, "session-read-only", NULL, TOKEN_READ_ONLY);
    k = lab_kek(l, "bsa", HSM_KEK_BSA);
    assert_int_equal(token_attack_rewrite(l->token, k), TEKD_EHSM);
    assert_string_equal(token_reason(l->token), "C_SetAttributeValue: CKR_SESSION_READ_ONLY");
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(storage_kek__refuses_every_attack),
        LAB_TEST(bsa_kek__refuses_every_attack),
        LAB_TEST(tek__refuses_all_but_being_wrapped),
        LAB_TEST(kek__cannot_be_destroyed_in_a_read_only_session),
        LAB_TEST(token_attack_play__softhsm_stops_two_of_three),
        LAB_TEST(token_attack_play__trusted_keks_stop_the_third),
        LAB_TEST(token_attack_play__leaves_nothing_behind),
        LAB_TEST(token_attack_play__finds_keks_that_can_be_changed),
        LAB_TEST(token_attack_play__finds_templates_that_bind_nothing),
        LAB_TEST(token_attack_play__finds_promises_not_kept),
        LAB_TEST(token_attack_play__a_failing_token_refuses_nothing),
        LAB_TEST(token_attack_rewrite__real_keks_refuse_it),
        LAB_TEST(token_attack_rewrite__finds_a_token_that_takes_it),
        LAB_TEST(token_attack_rewrite__a_read_only_session_proves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
