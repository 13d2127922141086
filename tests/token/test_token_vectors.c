/*
 * The published vectors of RFC 3394, RFC 5649 and NIST CAVP through the token, by the mechanism
 * that the profile found: what it calls aes-kw and aes-kwp is what the RFCs say.
 */
#include "lab.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/enc.h"

#define OCTETS_MAX 600 /* the longest vector wraps 512 octets */

struct octets {
    uint8_t data[OCTETS_MAX];
    size_t len;
};

static void read_hex(const json_t *v, const char *key, struct octets *o)
{
    const char *hex = json_string_value(json_object_get(v, key));

    o->len = hex ? strlen(hex) / 2 : 0;
    assert_true(o->len <= sizeof(o->data));
    if (hex)
        assert_int_equal(enc_hex_read(hex, strlen(hex), o->data, o->len), 0);
}

static bool is_aes_length(size_t len)
{
    return len == 16 || len == 24 || len == 32;
}

/* As an AES key where that is one, else as octets. */
static CK_OBJECT_HANDLE import(struct lab *l, const struct octets *o)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = is_aes_length(o->len) ? CKK_AES : CKK_GENERIC_SECRET;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ATTRIBUTE t[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_VALUE, (void *)(uintptr_t)o->data, o->len},
        {CKA_TOKEN, &no, 1},
        {CKA_SENSITIVE, &no, 1},
        {CKA_EXTRACTABLE, &yes, 1},
        {CKA_WRAP, &yes, 1},
        {CKA_UNWRAP, &yes, 1},
    };
    CK_OBJECT_HANDLE h = 0;

    assert_int_equal(l->f->C_CreateObject(l->raw, t, ARRAY_SIZE(t), &h), CKR_OK);
    return h;
}

static bool wraps_to(struct lab *l, CK_MECHANISM *m, const CK_OBJECT_HANDLE keys[2],
                     const struct octets *ct)
{
    struct octets out;
    CK_ULONG len = sizeof(out.data);
    CK_RV rv = l->f->C_WrapKey(l->raw, m, keys[0], keys[1], out.data, &len);

    return rv == CKR_OK && len == ct->len && memcmp(out.data, ct->data, len) == 0;
}

static bool unwraps(struct lab *l, CK_MECHANISM *m, CK_OBJECT_HANDLE kek, struct octets *ct,
                    struct octets *ret_pt)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ATTRIBUTE t[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_TOKEN, &no, 1},
        {CKA_SENSITIVE, &no, 1},
        {CKA_EXTRACTABLE, &yes, 1},
    };
    CK_ATTRIBUTE value = {CKA_VALUE, ret_pt->data, sizeof(ret_pt->data)};
    CK_OBJECT_HANDLE o = 0;

    if (l->f->C_UnwrapKey(l->raw, m, kek, ct->data, ct->len, t, ARRAY_SIZE(t), &o) != CKR_OK)
        return false;
    assert_int_equal(l->f->C_GetAttributeValue(l->raw, o, &value, 1), CKR_OK);
    ret_pt->len = value.ulValueLen;
    l->f->C_DestroyObject(l->raw, o);
    return true;
}

struct counts {
    unsigned wrapped;
    unsigned unwrapped;
    unsigned refused;
    unsigned left_out;
};

/* What is wrapped here are AES keys; SoftHSM pads other lengths before it wraps by RFC 5649. */
static void try_vector(struct lab *l, const json_t *v, CK_MECHANISM *m, struct counts *n)
{
    const char *name = json_string_value(json_object_get(v, "name"));
    bool valid = strcmp(json_string_value(json_object_get(v, "result")), "valid") == 0;
    struct octets kek, pt, ct, got;
    CK_OBJECT_HANDLE keys[2];

    read_hex(v, "kek", &kek);
    read_hex(v, "pt", &pt);
    read_hex(v, "ct", &ct);
    if (valid && !is_aes_length(pt.len)) {
        n->left_out++;
        return;
    }
    keys[0] = import(l, &kek);
    if (!valid) {
        if (unwraps(l, m, keys[0], &ct, &got))
            fail_msg("%s: unwrapped, must be refused", name);
        n->refused++;
    } else {
        keys[1] = import(l, &pt);
        if (!wraps_to(l, m, keys, &ct))
            fail_msg("%s: wrapped otherwise", name);
        n->wrapped++;
        if (!unwraps(l, m, keys[0], &ct, &got) || got.len != pt.len ||
            memcmp(got.data, pt.data, pt.len) != 0)
            fail_msg("%s: unwrapped otherwise", name);
        n->unwrapped++;
        l->f->C_DestroyObject(l->raw, keys[1]);
    }
    l->f->C_DestroyObject(l->raw, keys[0]);
}

static struct counts try_all(struct lab *l, const char *mode, enum hsm_wrap wrap)
{
    CK_MECHANISM m = {.mechanism = 0};
    struct counts n = {0};
    json_t *all = json_load_file(TEST_DATA_DIR "/vectors/kw_vectors.json", 0, NULL), *v;
    size_t i;

    assert_non_null(all);
    assert_int_equal(token_profile_mechanism(l->token, wrap, &m.mechanism), 0);
    json_array_foreach (all, i, v) {
        if (strcmp(json_string_value(json_object_get(v, "mode")), mode) == 0)
            try_vector(l, v, &m, &n);
    }
    json_decref(all);
    return n;
}

static void aes_kw__agrees_with_every_vector(void **state)
{
    struct counts n = try_all(*state, "KW", HSM_WRAP_AES_KW);

    assert_int_equal(n.wrapped, 32);
    assert_int_equal(n.unwrapped, 32);
    assert_int_equal(n.refused, 15);
}

static void aes_kwp__agrees_with_every_vector_of_an_aes_key(void **state)
{
    struct counts n = try_all(*state, "KWP", HSM_WRAP_AES_KWP);

    assert_int_equal(n.wrapped, 3);
    assert_int_equal(n.unwrapped, 3);
    assert_int_equal(n.refused, 15);
}

static void token_profile_mechanism__finds_softhsm_s_codes(void **state)
{
    struct lab *l = *state;
    unsigned long code = 0;

    assert_int_equal(token_profile_mechanism(l->token, HSM_WRAP_AES_KW, &code), 0);
    assert_int_equal(code, 0x2109);
    assert_int_equal(token_profile_mechanism(l->token, HSM_WRAP_AES_KWP, &code), 0);
    assert_int_equal(code, 0x210a);
    assert_int_equal(token_profile_mechanism(l->token, HSM_WRAP_OAEP_SHA1, &code), 0);
    assert_int_equal(code, CKM_RSA_PKCS_OAEP);
    assert_int_equal(token_profile_mechanism(l->token, HSM_WRAP_OAEP_SHA256, &code),
                     TEKD_ENOTFOUND);
    lab_assert_reason(l->token, "is rsa-oaep-sha256 on this token");
}

static void profile_finds(struct lab *l, const char *profile, int kw)
{
    unsigned long code = 0;

    lab_close(l);
    lab_open(l, NULL, profile, TOKEN_READ_WRITE);
    assert_int_equal(token_profile_mechanism(l->token, HSM_WRAP_AES_KW, &code), kw);
    /* Asked again it is remembered, not found out to be otherwise. */
    assert_int_equal(token_profile_mechanism(l->token, HSM_WRAP_AES_KW, &code), kw);
}

static void token_profile_mechanism__takes_only_the_profile_s_codes(void **state)
{
    struct lab *l = *state;

    profile_finds(l, "generic", 0);
    profile_finds(l, "nshield", 0);
    profile_finds(l, "luna", TEKD_ENOTFOUND);
    profile_finds(l, "cloudhsm", TEKD_ENOTFOUND);
    profile_finds(l, "opencryptoki", TEKD_ENOTFOUND);
}

static void token_profile_mechanism__believes_answers_not_codes(void **state)
{
    struct lab *l = *state;
    unsigned long code = 0;

    lab_reopen_shimmed(l, "wraps-otherwise", NULL, TOKEN_READ_WRITE);
    for (int wrap = HSM_WRAP_AES_KW; wrap <= HSM_WRAP_OAEP_SHA1; wrap++) {
        assert_int_equal(token_profile_mechanism(l->token, (enum hsm_wrap)wrap, &code),
                         TEKD_ENOTFOUND);
    }
}

/* "HSM not reachable" is never "no such key": it is asked again, and nothing was concluded. */
static void token_profile_mechanism__a_failing_token_is_not_one_without_it(void **state)
{
    static const enum hsm_wrap wraps[] = {HSM_WRAP_AES_KW, HSM_WRAP_OAEP_SHA1};
    struct lab *l = *state;
    unsigned long code = 0;

    for (size_t i = 0; i < ARRAY_SIZE(wraps); i++) {
        lab_reopen_shimmed(l, "device-error-at-wrapping", "generic", TOKEN_READ_ONLY);
        assert_int_equal(token_profile_mechanism(l->token, wraps[i], &code), TEKD_EHSM);
        assert_string_equal(token_reason(l->token), "C_WrapKey: CKR_DEVICE_ERROR");
        assert_int_equal(setenv("SHIM_MODE", "", 1), 0);
        assert_int_equal(token_profile_mechanism(l->token, wraps[i], &code), 0);
    }
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(aes_kw__agrees_with_every_vector),
        LAB_TEST(aes_kwp__agrees_with_every_vector_of_an_aes_key),
        LAB_TEST(token_profile_mechanism__finds_softhsm_s_codes),
        LAB_TEST(token_profile_mechanism__takes_only_the_profile_s_codes),
        LAB_TEST(token_profile_mechanism__believes_answers_not_codes),
        LAB_TEST(token_profile_mechanism__a_failing_token_is_not_one_without_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
