/* Unwrapping against published vectors, and the file of the KEK. */
#include "bsa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

#include "tekd/enc.h"
#include "tekd/err.h"

#define OCTETS_MAX 1024

static size_t read_hex(const json_t *vector, const char *member, uint8_t out[static OCTETS_MAX])
{
    const char *hex = json_string_value(json_object_get(vector, member));
    size_t len;

    assert_non_null(hex);
    len = strlen(hex) / 2;
    assert_true(len <= OCTETS_MAX);
    assert_int_equal(enc_hex_read(hex, strlen(hex), out, len), 0);
    return len;
}

static struct secret *make_secret(const uint8_t *octets, size_t len)
{
    struct secret *s = NULL;

    assert_int_equal(secret_new(len, &s), 0);
    memcpy(secret_get(s), octets, len);
    return s;
}

/* Unwraps one vector; also with each length cut off it by 8 octets, which must fail. */
static void try_vector(const json_t *vector)
{
    uint8_t octets[OCTETS_MAX], ct[OCTETS_MAX], pt[OCTETS_MAX];
    size_t kek_len = read_hex(vector, "kek", octets), ct_len = read_hex(vector, "ct", ct), pt_len;
    AUTO(secret) struct secret *kek = make_secret(octets, kek_len);
    AUTO(secret) struct secret *key = NULL;
    AUTO(secret) struct secret *part = NULL;
    const char *mode = json_string_value(json_object_get(vector, "mode"));
    const char *result = json_string_value(json_object_get(vector, "result"));
    enum cp3_wrap wrap = strcmp(mode, "KWP") == 0 ? CP3_WRAP_AES_KWP : CP3_WRAP_AES_KW;
    int r = unwrap_key(wrap, kek, ct, ct_len, &key);

    if (strcmp(result, "valid") != 0) {
        assert_int_equal(r, TEKD_EDENIED);
        assert_null(key);
        return;
    }
    assert_int_equal(r, 0);
    pt_len = read_hex(vector, "pt", pt);
    assert_int_equal(secret_len(key), pt_len);
    assert_memory_equal(secret_peek(key), pt, pt_len);
    for (size_t len = 0; len < ct_len; len++)
        assert_true(unwrap_key(wrap, kek, ct, len, &part) < 0);
    assert_null(part);
}

static void unwrap_key__agrees_with_published_vectors(void **state)
{
    json_t *vectors = json_load_file(TEST_DATA_DIR "/vectors/kw_vectors.json", 0, NULL);
    json_t *vector;
    size_t i, invalid = 0;

    (void)state;
    assert_int_equal(json_array_size(vectors), 124);
    json_array_foreach (vectors, i, vector) {
        try_vector(vector);
        invalid += strcmp(json_string_value(json_object_get(vector, "result")), "invalid") == 0;
    }
    assert_int_equal(invalid, 30);
    json_decref(vectors);
}

/* RFC 3394 section 4.3. */
static const uint8_t wrapped[24] = {0x64, 0xe8, 0xc3, 0xf9, 0xce, 0x0f, 0x5b, 0xa2,
                                    0x63, 0xe9, 0x77, 0x79, 0x05, 0x81, 0x8a, 0x2a,
                                    0x93, 0xc8, 0x19, 0x1e, 0x7d, 0x6e, 0x8a, 0xe7};

static struct secret *count_up(size_t len)
{
    struct secret *s = NULL;

    assert_int_equal(secret_new(len, &s), 0);
    for (size_t i = 0; i < len; i++)
        secret_get(s)[i] = (uint8_t)i;
    return s;
}

static void unwrap_key__refuses_every_flipped_bit(void **state)
{
    AUTO(secret) struct secret *kek = count_up(32);

    (void)state;
    for (size_t bit = 0; bit < sizeof(wrapped) * 8; bit++) {
        struct secret *key = NULL;
        uint8_t data[sizeof(wrapped)];

        memcpy(data, wrapped, sizeof(data));
        data[bit / 8] = (uint8_t)(data[bit / 8] ^ 1U << bit % 8);
        assert_int_equal(unwrap_key(CP3_WRAP_AES_KW, kek, data, sizeof(data), &key), TEKD_EDENIED);
        assert_null(key);
    }
}

static void unwrap_key__refuses_what_it_cannot_do(void **state)
{
    AUTO(secret) struct secret *kek = count_up(32);
    AUTO(secret) struct secret *odd = count_up(20);
    AUTO(secret) struct secret *other = count_up(24);
    struct secret *key = NULL;

    (void)state;
    assert_int_equal(unwrap_key(CP3_WRAP_RSA_OAEP_SHA256, kek, wrapped, sizeof(wrapped), &key),
                     TEKD_EINVAL);
    assert_int_equal(unwrap_key(CP3_WRAP_AES_KW, odd, wrapped, sizeof(wrapped), &key), TEKD_EINVAL);
    assert_int_equal(unwrap_key(CP3_WRAP_AES_KW, other, wrapped, sizeof(wrapped), &key),
                     TEKD_EDENIED);
    assert_int_equal(unwrap_key(CP3_WRAP_AES_KWP, kek, wrapped, sizeof(wrapped), &key),
                     TEKD_EDENIED);
    assert_int_equal(unwrap_key(CP3_WRAP_AES_KW, kek, wrapped, 0, &key), TEKD_EFORMAT);
    assert_int_equal(unwrap_key(CP3_WRAP_AES_KW, kek, wrapped, 16, &key), TEKD_EFORMAT);
    assert_int_equal(unwrap_key(CP3_WRAP_AES_KW, kek, wrapped, 23, &key), TEKD_EFORMAT);
    assert_null(key);
}

static void unwrap_data_len__follows_the_rfcs(void **state)
{
    (void)state;
    assert_int_equal(unwrap_data_len(CP3_WRAP_AES_KW, 16), 24);
    assert_int_equal(unwrap_data_len(CP3_WRAP_AES_KW, 32), 40);
    assert_int_equal(unwrap_data_len(CP3_WRAP_AES_KWP, 16), 24);
    assert_int_equal(unwrap_data_len(CP3_WRAP_AES_KWP, 17), 32);
    assert_int_equal(unwrap_data_len(CP3_WRAP_AES_KWP, 1), 16);
    assert_int_equal(unwrap_data_len(CP3_WRAP_RSA_OAEP_SHA1, 16), 0);
}

static void unwrap_check_value__is_of_a_zero_block(void **state)
{
    AUTO(secret) struct secret *key = NULL;
    AUTO(secret) struct secret *odd = count_up(20);
    char hex[UNWRAP_CHECK_LEN + 1];

    (void)state;
    /* FIPS 197's AES-128 with an all-zero key and block: NIST's 66e94bd4ef8a2c3b.... */
    assert_int_equal(secret_new(16, &key), 0);
    assert_int_equal(unwrap_check_value(key, hex), 0);
    assert_string_equal(hex, "66e94b");
    assert_int_equal(unwrap_check_value(odd, hex), TEKD_EINVAL);
}

/* One file in a folder of its own. */
static int read_kek(const char *text, mode_t mode, struct secret **ret_kek)
{
    char dir[] = "/tmp/tek-bsa-XXXXXX", path[64];
    FILE *f;
    int r;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/kek", dir);
    if (text != NULL) {
        f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(chmod(path, mode), 0);
    }
    r = unwrap_read_kek(path, ret_kek);
    (void)unlink(path);
    assert_int_equal(rmdir(dir), 0);
    return r;
}

#define HEX_32 "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"

static void unwrap_read_kek__reads_hexadecimal(void **state)
{
    static const char *const texts[] = {HEX_32, HEX_32 "\n", HEX_32 "\r\n"};
    AUTO(secret) struct secret *expected = count_up(32);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        AUTO(secret) struct secret *kek = NULL;

        assert_int_equal(read_kek(texts[i], 0600, &kek), 0);
        assert_true(secret_equal(kek, expected));
    }
}

static void unwrap_read_kek__refuses_other_files(void **state)
{
    static const struct {
        const char *text;
        mode_t mode;
        int error;
    } cases[] = {
        {HEX_32, 0640, TEKD_EDENIED},
        {HEX_32, 0604, TEKD_EDENIED},
        {NULL, 0, TEKD_ENOTFOUND},
        {"", 0600, TEKD_EFORMAT},
        {"\n", 0600, TEKD_EFORMAT},
        {HEX_32 "0", 0600, TEKD_EFORMAT},
        {HEX_32 "00", 0600, TEKD_EFORMAT},
        {HEX_32 "\n\n", 0600, TEKD_EFORMAT},
        {"0x0102030405060708090a0b0c0d0e0f", 0600, TEKD_EFORMAT},
        {"00010203 4050607 8090a0b c0d0e0f", 0600, TEKD_EFORMAT},
        {"0001020304050607", 0600, TEKD_EFORMAT},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct secret *kek = NULL;

        assert_int_equal(read_kek(cases[i].text, cases[i].mode, &kek), cases[i].error);
        assert_null(kek);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unwrap_key__agrees_with_published_vectors),
        cmocka_unit_test(unwrap_key__refuses_every_flipped_bit),
        cmocka_unit_test(unwrap_key__refuses_what_it_cannot_do),
        cmocka_unit_test(unwrap_data_len__follows_the_rfcs),
        cmocka_unit_test(unwrap_check_value__is_of_a_zero_block),
        cmocka_unit_test(unwrap_read_kek__reads_hexadecimal),
        cmocka_unit_test(unwrap_read_kek__refuses_other_files),
    };

    return cmocka_run_group_tests_name("bsa_unwrap", tests, NULL, NULL);
}
