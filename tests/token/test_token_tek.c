/* TEKs: made, wrapped, unwrapped and gone. */
#include "lab.h"

#include <stdlib.h>
#include <string.h>

static void wrap(struct lab *l, const struct token_kek *k, const struct token_tek *tek,
                 struct hsm_blob *blob)
{
    assert_int_equal(token_tek_wrap(l->token, k, tek, blob), 0);
}

static void token_tek__comes_back_from_storage(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *storage = NULL;
    AUTO(token_kek) struct token_kek *bsa = NULL;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    storage = lab_kek(l, "storage", HSM_KEK_STORAGE);
    bsa = lab_kek(l, "bsa", HSM_KEK_BSA);
    for (unsigned bits = 128; bits <= 256; bits += 64) {
        struct hsm_blob stored, data, stored_2, data_2;
        struct token_tek tek;

        assert_int_equal(token_tek_generate(l->token, bits, &tek), 0);
        wrap(l, storage, &tek, &stored);
        wrap(l, bsa, &tek, &data);
        assert_int_equal(stored.len, bits / 8 + 8);
        assert_int_equal(token_tek_destroy(l->token, &tek), 0);
        assert_int_equal(tek.object, 0);
        assert_int_equal(token_tek_unwrap(l->token, storage, &stored, bits, &tek), 0);
        wrap(l, storage, &tek, &stored_2);
        wrap(l, bsa, &tek, &data_2);
        assert_int_equal(token_tek_destroy(l->token, &tek), 0);
        assert_memory_equal(stored.octets, stored_2.octets, stored.len);
        assert_memory_equal(data.octets, data_2.octets, data.len);
        assert_memory_not_equal(stored.octets, data.octets, data.len);
    }
}

static void token_tek_generate__makes_another_each_time(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;
    struct hsm_blob blob[64];

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    k = lab_kek(l, "bsa", HSM_KEK_BSA);
    for (size_t i = 0; i < ARRAY_SIZE(blob); i++) {
        struct token_tek tek;

        assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
        wrap(l, k, &tek, &blob[i]);
        assert_int_equal(token_tek_destroy(l->token, &tek), 0);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(blob[i].octets, blob[j].octets, 24);
    }
}

static void token_tek__works_in_a_read_only_session(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;
    struct token_tek tek;
    struct hsm_blob blob;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    lab_close(l);
    lab_open(l, NULL, NULL, TOKEN_READ_ONLY);
    k = lab_kek(l, "storage", HSM_KEK_STORAGE);
    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    wrap(l, k, &tek, &blob);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
    assert_int_equal(token_tek_unwrap(l->token, k, &blob, 128, &tek), 0);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
}

static void token_tek_unwrap__refuses_damaged_blobs(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;
    struct token_tek tek = {0};
    struct hsm_blob blob;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    k = lab_kek(l, "storage", HSM_KEK_STORAGE);
    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    wrap(l, k, &tek, &blob);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
    for (size_t i = 0; i < blob.len; i++) {
        blob.octets[i] ^= 0x10;
        assert_int_equal(token_tek_unwrap(l->token, k, &blob, 128, &tek), TEKD_EFORMAT);
        blob.octets[i] ^= 0x10;
    }
    assert_int_equal(tek.object, 0);
    assert_int_equal(token_tek_unwrap(l->token, k, &blob, 128, &tek), 0);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
}

static void token_tek_unwrap__refuses_other_lengths(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;
    struct token_tek tek = {0};
    struct hsm_blob blob;

    lab_make_key(l, TOKEN_STORAGE_KEK, "storage");
    k = lab_kek(l, "storage", HSM_KEK_STORAGE);
    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    wrap(l, k, &tek, &blob);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
    assert_int_equal(token_tek_unwrap(l->token, k, &blob, 256, &tek), TEKD_EFORMAT);
    lab_assert_reason(l->token, "256 bits cannot have 24 octets");
    blob.len = 0;
    assert_int_equal(token_tek_unwrap(l->token, k, &blob, 128, &tek), TEKD_EFORMAT);
}

static void token_tek_destroy__leaves_nothing(void **state)
{
    struct lab *l = *state;
    struct token_tek tek, none = {0};
    CK_ATTRIBUTE a = {CKA_LABEL, NULL, 0};
    CK_OBJECT_HANDLE o;

    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    o = tek.object;
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
    assert_int_equal(l->f->C_GetAttributeValue(l->raw, o, &a, 1), CKR_OBJECT_HANDLE_INVALID);
    assert_int_equal(token_tek_destroy(l->token, &none), 0);
    tek.object = o;
    assert_int_equal(token_tek_destroy(l->token, &tek), TEKD_EHSM);
    assert_int_equal(tek.object, 0);
}

static void token_tek_wrap__says_what_the_module_said(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;
    struct token_tek gone = {12345};
    struct hsm_blob blob;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    k = lab_kek(l, "bsa", HSM_KEK_BSA);
    assert_int_equal(token_tek_wrap(l->token, k, &gone, &blob), TEKD_EHSM);
    assert_string_equal(token_reason(l->token), "C_WrapKey: CKR_KEY_HANDLE_INVALID");
}

static void token_tek_wrap__takes_no_empty_blob(void **state)
{
    struct lab *l = *state;
    AUTO(token_kek) struct token_kek *k = NULL;
    struct token_tek tek = {0};
    struct hsm_blob blob;

    lab_make_key(l, TOKEN_BSA_KEK, "bsa");
    lab_reopen_shimmed(l, "", NULL, TOKEN_READ_ONLY);
    k = lab_kek(l, "bsa", HSM_KEK_BSA);
    assert_int_equal(token_tek_generate(l->token, 128, &tek), 0);
    assert_int_equal(setenv("SHIM_MODE", "wraps-to-nothing", 1), 0);
    assert_int_equal(token_tek_wrap(l->token, k, &tek, &blob), TEKD_EHSM);
    assert_int_equal(token_tek_destroy(l->token, &tek), 0);
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(token_tek__comes_back_from_storage),
        LAB_TEST(token_tek_generate__makes_another_each_time),
        LAB_TEST(token_tek__works_in_a_read_only_session),
        LAB_TEST(token_tek_unwrap__refuses_damaged_blobs),
        LAB_TEST(token_tek_unwrap__refuses_other_lengths),
        LAB_TEST(token_tek_destroy__leaves_nothing),
        LAB_TEST(token_tek_wrap__says_what_the_module_said),
        LAB_TEST(token_tek_wrap__takes_no_empty_blob),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
