#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>

#include "tekd/err.h"
#include "token/token_impl.h"

#define HALF_MAX 48

static void token_ecdsa_der__is_the_signature_in_der(void **state)
{
    static const uint8_t raw[64] = {[31] = 0x7f, [32] = 0x80, [63] = 0x01};
    static const uint8_t der[] = {0x30, 0x26, 0x02, 0x01, 0x7f, 0x02, 0x21, 0x00, 0x80};
    struct hsm_signature s;

    (void)state;
    assert_int_equal(token_ecdsa_der(raw, 32, &s), 0);
    assert_int_equal(s.len, 40);
    assert_memory_equal(s.octets, der, sizeof(der));
    assert_int_equal(s.octets[39], 0x01);
}

/* What OpenSSL signed, in the token's form and back. */
static void there_and_back(EVP_PKEY *key, size_t half)
{
    static const uint8_t digest[HALF_MAX] = {1, 2, 3};
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    uint8_t signature[HSM_SIGNATURE_MAX], raw[2 * HALF_MAX];
    const uint8_t *p = signature;
    size_t len = sizeof(signature);
    struct hsm_signature s;
    ECDSA_SIG *sig;

    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, signature, &len, digest, half), 1);
    EVP_PKEY_CTX_free(ctx);
    sig = d2i_ECDSA_SIG(NULL, &p, (long)len);
    assert_non_null(sig);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, (int)half), half);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + half, (int)half), half);
    ECDSA_SIG_free(sig);
    assert_int_equal(token_ecdsa_der(raw, half, &s), 0);
    assert_int_equal(s.len, len);
    assert_memory_equal(s.octets, signature, len);
}

static void token_ecdsa_der__gives_back_what_was_signed(void **state)
{
    static const struct {
        const char *group;
        size_t half;
    } curves[] = {{"P-256", 32}, {"P-384", 48}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(curves); i++) {
        EVP_PKEY *key = EVP_EC_gen(curves[i].group);

        assert_non_null(key);
        for (int n = 0; n < 50; n++)
            there_and_back(key, curves[i].half);
        EVP_PKEY_free(key);
    }
}

/* The largest there is: both halves have their highest bit set, and need an octet more. */
static void token_ecdsa_der__has_room_for_the_largest(void **state)
{
    struct hsm_signature s;
    uint8_t raw[2 * HALF_MAX];

    (void)state;
    memset(raw, 0xff, sizeof(raw));
    assert_int_equal(token_ecdsa_der(raw, HALF_MAX, &s), 0);
    assert_int_equal(s.len, 2 + 2 * (2 + 1 + HALF_MAX));
}

static void token_ecdsa_der__refuses_zero(void **state)
{
    static const uint8_t no_r[64] = {[63] = 1};
    static const uint8_t no_s[64] = {[31] = 1};
    struct hsm_signature s;

    (void)state;
    assert_int_equal(token_ecdsa_der(no_r, 32, &s), TEKD_ECRYPTO);
    assert_int_equal(token_ecdsa_der(no_s, 32, &s), TEKD_ECRYPTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_ecdsa_der__is_the_signature_in_der),
        cmocka_unit_test(token_ecdsa_der__gives_back_what_was_signed),
        cmocka_unit_test(token_ecdsa_der__has_room_for_the_largest),
        cmocka_unit_test(token_ecdsa_der__refuses_zero),
    };

    return cmocka_run_group_tests_name("token_ecdsa", tests, NULL, NULL);
}
