#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tekd/auto.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define SECOND INT64_C(1000000)
#define DAY    (86400 * SECOND)

static void enc_hex__writes_either_case(void **state)
{
    static const uint8_t data[] = {0x00, 0x1f, 0xa9, 0xff};
    char out[ENC_HEX_LEN(sizeof(data)) + 1];

    (void)state;
    enc_hex(data, sizeof(data), out);
    assert_string_equal(out, "001fa9ff");
    enc_hex_upper(data, sizeof(data), out);
    assert_string_equal(out, "001FA9FF");
    enc_hex(data, 0, out);
    assert_string_equal(out, "");
}

static void enc_hex_read__takes_every_octet_in_either_case(void **state)
{
    uint8_t data[256], back[256];
    char text[ENC_HEX_LEN(sizeof(data)) + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)i;
    enc_hex(data, sizeof(data), text);
    assert_int_equal(enc_hex_read(text, strlen(text), back, sizeof(back)), 0);
    assert_memory_equal(back, data, sizeof(data));
    enc_hex_upper(data, sizeof(data), text);
    memset(back, 0, sizeof(back));
    assert_int_equal(enc_hex_read(text, strlen(text), back, sizeof(back)), 0);
    assert_memory_equal(back, data, sizeof(data));
    assert_int_equal(enc_hex_read("", 0, back, 0), 0);
}

static void enc_hex_read__refuses_every_other_character(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        const char high[2] = {(char)c, '0'}, low[2] = {'0', (char)c};
        int want = c != 0 && strchr("0123456789abcdefABCDEF", c) ? 0 : TEKD_EFORMAT;
        uint8_t out[1];

        assert_int_equal(enc_hex_read(high, 2, out, 1), want);
        assert_int_equal(enc_hex_read(low, 2, out, 1), want);
    }
}

static void enc_hex_read__refuses_another_length(void **state)
{
    uint8_t out[2];

    (void)state;
    assert_int_equal(enc_hex_read("abc", 3, out, 1), TEKD_EFORMAT);
    assert_int_equal(enc_hex_read("abc", 3, out, 2), TEKD_EFORMAT);
    assert_int_equal(enc_hex_read("ab", 2, out, 2), TEKD_EFORMAT);
    assert_int_equal(enc_hex_read("abcd", 4, out, 1), TEKD_EFORMAT);
    assert_int_equal(enc_hex_read("", 0, out, 1), TEKD_EFORMAT);
}

/* RFC 4648 section 10. */
static const struct {
    const char *data;
    const char *text;
} base64_vectors[] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
};

static void enc_base64__follows_rfc_4648(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(base64_vectors); i++) {
        const char *data = base64_vectors[i].data, *text = base64_vectors[i].text;
        char out[16];
        uint8_t back[8];
        size_t len = 99;

        enc_base64((const uint8_t *)data, strlen(data), out);
        assert_string_equal(out, text);
        assert_int_equal(ENC_BASE64_LEN(strlen(data)), strlen(text));
        assert_int_equal(enc_base64_read(text, strlen(text), back, sizeof(back), &len), 0);
        assert_int_equal(len, strlen(data));
        assert_memory_equal(back, data, len);
    }
}

static void enc_base64_read__takes_what_was_written_of_any_length(void **state)
{
    uint8_t data[256], back[256];
    char text[ENC_BASE64_LEN(sizeof(data)) + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 167 + 13);
    for (size_t n = 0; n <= sizeof(data); n++) {
        size_t len = 0;
        enc_base64(data, n, text);
        assert_int_equal(strlen(text), ENC_BASE64_LEN(n));
        assert_int_equal(enc_base64_read(text, strlen(text), back, n, &len), 0);
        assert_int_equal(len, n);
        assert_memory_equal(back, data, n);
    }
}

static void enc_base64_read__refuses_other_written_forms(void **state)
{
    static const char *const bad[] = {
        "Z",    "Zg",       "Zg=",     "Zm9vY", "Zg==\n", " Zg==",    "Zh==",
        "Zm9=", "Zm9v====", "====",    "=Zg=",  "Zg=v",   "Zg==Zm9v", "Zm8=Zm9v",
        "Zm9-", "Zm9_",     "Zm\x80v", "Z\ng=", "Z===",
    };
    uint8_t out[16];
    size_t len = 99;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(enc_base64_read(bad[i], strlen(bad[i]), out, sizeof(out), &len),
                         TEKD_EFORMAT);
    assert_int_equal(enc_base64_read("Zm\0v", 4, out, sizeof(out), &len), TEKD_EFORMAT);
    assert_int_equal(len, 99);
}

static void enc_base64_read__writes_at_most_max(void **state)
{
    uint8_t out[4] = {0, 0, 0, 0xee};
    size_t len;

    (void)state;
    assert_int_equal(enc_base64_read("Zm9v", 4, out, 3, &len), 0);
    assert_int_equal(out[3], 0xee);
    assert_int_equal(enc_base64_read("Zm9v", 4, out, 2, &len), TEKD_ETOOBIG);
    assert_int_equal(enc_base64_read("Zm9vYg==", 8, out, 3, &len), TEKD_ETOOBIG);
    assert_int_equal(enc_base64_read("Zm8=", 4, out, 2, &len), 0);
    assert_int_equal(enc_base64_read("Zm8=", 4, out, 1, &len), TEKD_ETOOBIG);
}

static void enc_uuidv7__has_version_variant_and_milliseconds(void **state)
{
    uint8_t id[16];
    char text[ENC_UUID_LEN + 1];

    (void)state;
    /* The example of RFC 9562 appendix A.6: 0x017F22E279B0 is 2022-02-22T19:22:22Z. */
    assert_int_equal(enc_uuidv7(INT64_C(0x017F22E279B0) * 1000 + 999, id), 0);
    enc_uuid(id, text);
    assert_memory_equal(text, "017f22e2-79b0-7", 15);
    assert_non_null(strchr("89ab", text[19]));
}

static void enc_uuidv7__rises_with_time_and_does_not_repeat(void **state)
{
    uint8_t a[16], b[16], c[16];

    (void)state;
    assert_int_equal(enc_uuidv7(1795353342123456, a), 0);
    assert_int_equal(enc_uuidv7(1795353342123456, b), 0);
    assert_int_equal(enc_uuidv7(1795353342124456, c), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_true(memcmp(a, c, sizeof(a)) < 0);
    assert_true(memcmp(b, c, sizeof(b)) < 0);
}

/* Over enough ids each of the 74 bits is seen both ways (all alike once: 2^-63 each). */
static void enc_uuidv7__has_74_random_bits(void **state)
{
    uint8_t ones[16] = {0}, zeros[16] = {0};
    int both = 0;

    (void)state;
    for (int i = 0; i < 64; i++) {
        uint8_t id[16];
        assert_int_equal(enc_uuidv7(1795353342123456, id), 0);
        for (size_t j = 0; j < 16; j++) {
            ones[j] |= id[j];
            zeros[j] |= (uint8_t)~id[j];
        }
    }
    for (size_t j = 0; j < 16; j++)
        both += __builtin_popcount(ones[j] & zeros[j]);
    assert_int_equal(both, 74);
}

static void enc_uuid_read__reads_what_enc_uuid_writes(void **state)
{
    static const uint8_t id[16] = {0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x7c, 0xc3,
                                   0x98, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
    const char *upper = "017F22E2-79B0-7CC3-98C4-DC0C0C07398F";
    char text[ENC_UUID_LEN + 1];
    uint8_t back[16] = {0};

    (void)state;
    enc_uuid(id, text);
    assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    assert_int_equal(enc_uuid_read(text, ENC_UUID_LEN, back), 0);
    assert_memory_equal(back, id, sizeof(id));
    memset(back, 0, sizeof(back));
    assert_int_equal(enc_uuid_read(upper, ENC_UUID_LEN, back), 0);
    assert_memory_equal(back, id, sizeof(id));
}

static void enc_uuid_read__refuses_other_forms(void **state)
{
    static const char *const bad[] = {
        "",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
        "017f22e279b07cc398c4dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "017f22e2-79b0-7cc3-98c4_dc0c0c07398f",
        "017f22e27-9b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4--c0c0c07398f",
        "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
    };
    uint8_t out[16] = {0xee};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(enc_uuid_read(bad[i], strlen(bad[i]), out), TEKD_EFORMAT);
    assert_int_equal(out[0], 0xee);
}

static void enc_time__writes_utc_with_microseconds(void **state)
{
    static const struct {
        int64_t us;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {-1, "1969-12-31T23:59:59.999999Z"},
        {1795353342123456, "2026-11-22T13:15:42.123456Z"},
        {951782400 * SECOND, "2000-02-29T00:00:00.000000Z"},
        {ENC_TIME_MIN, "0000-01-01T00:00:00.000000Z"},
        {ENC_TIME_MAX, "9999-12-31T23:59:59.999999Z"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char out[ENC_TIME_LEN + 1];
        int64_t back = 0;

        enc_time(rows[i].us, out);
        assert_string_equal(out, rows[i].text);
        assert_int_equal(enc_time_read(out, ENC_TIME_LEN, &back), 0);
        assert_true(back == rows[i].us);
    }
}

/* Every day of the ten thousand years against the C library's calendar. */
static void enc_time__agrees_with_gmtime(void **state)
{
    (void)state;
    for (int64_t us = ENC_TIME_MIN + 12345; us <= ENC_TIME_MAX; us += DAY) {
        int64_t back = 0;
        char out[ENC_TIME_LEN + 1], want[ENC_TIME_LEN + 1];
        time_t s = (time_t)((us - 12345) / SECOND);
        struct tm tm;

        assert_non_null(gmtime_r(&s, &tm));
        (void)snprintf(want, sizeof(want), "%04u-%02u-%02uT00:00:00.012345Z",
                       (unsigned int)(tm.tm_year + 1900) % 10000,
                       (unsigned int)(tm.tm_mon + 1) % 100, (unsigned int)tm.tm_mday % 100);
        enc_time(us, out);
        if (strcmp(out, want) != 0 || enc_time_read(out, ENC_TIME_LEN, &back) < 0 || back != us)
            fail_msg("%s is written as %s", want, out);
    }
}

static void enc_time_read__refuses_what_is_not_written(void **state)
{
    static const char *const bad[] = {
        "",
        "2026-11-22T13:15:42Z",
        "2026-11-22T13:15:42.12345Z",
        "2026-11-22T13:15:42.1234567Z",
        "2026-11-22T13:15:42.123456z",
        "2026-11-22t13:15:42.123456Z",
        "2026-11-22 13:15:42.123456Z",
        "2026-11-22T13:15:42,123456Z",
        "2026/11-22T13:15:42.123456Z",
        "2026-00-22T13:15:42.123456Z",
        "2026-13-22T13:15:42.123456Z",
        "2026-99-22T13:15:42.123456Z",
        "2026-11-00T13:15:42.123456Z",
        "2026-11-31T13:15:42.123456Z",
        "2026-02-29T13:15:42.123456Z",
        "1900-02-29T13:15:42.123456Z",
        "2026-11-22T24:15:42.123456Z",
        "2026-11-22T13:60:42.123456Z",
        "2026-11-22T13:15:60.123456Z",
        "2026-11-22T13:15:4x.123456Z",
        "-026-11-22T13:15:42.123456Z",
        "+026-11-22T13:15:42.123456Z",
        "2026-11-22T13:15:42.12345\xffZ",
        "9999-12-31T99:59:59.999999Z",
        "\x7f\x7f\x7f\x7f-12-31T23:59:59.999999Z",
        "\x80\x80\x80\x80-12-31T23:59:59.999999Z",
    };
    int64_t us = 99;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (enc_time_read(bad[i], strlen(bad[i]), &us) != TEKD_EFORMAT)
            fail_msg("taken: %s", bad[i]);
    }
    assert_int_equal(us, 99);
}

static void enc_printable__leaves_printable_ascii(void **state)
{
    char out[8];

    (void)state;
    enc_printable("a\nb\x7f\xc3\xa4~ and more", out, sizeof(out));
    assert_string_equal(out, "a?b???~");
    enc_printable("", out, sizeof(out));
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enc_hex__writes_either_case),
        cmocka_unit_test(enc_hex_read__takes_every_octet_in_either_case),
        cmocka_unit_test(enc_hex_read__refuses_every_other_character),
        cmocka_unit_test(enc_hex_read__refuses_another_length),
        cmocka_unit_test(enc_base64__follows_rfc_4648),
        cmocka_unit_test(enc_base64_read__takes_what_was_written_of_any_length),
        cmocka_unit_test(enc_base64_read__refuses_other_written_forms),
        cmocka_unit_test(enc_base64_read__writes_at_most_max),
        cmocka_unit_test(enc_uuidv7__has_version_variant_and_milliseconds),
        cmocka_unit_test(enc_uuidv7__rises_with_time_and_does_not_repeat),
        cmocka_unit_test(enc_uuidv7__has_74_random_bits),
        cmocka_unit_test(enc_uuid_read__reads_what_enc_uuid_writes),
        cmocka_unit_test(enc_uuid_read__refuses_other_forms),
        cmocka_unit_test(enc_time__writes_utc_with_microseconds),
        cmocka_unit_test(enc_time__agrees_with_gmtime),
        cmocka_unit_test(enc_time_read__refuses_what_is_not_written),
        cmocka_unit_test(enc_printable__leaves_printable_ascii),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
