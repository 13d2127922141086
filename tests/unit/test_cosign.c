/* Verifier keys of witnesses and cosignatures: good ones, and each that is not one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "cosigner.h"
#include "tekd/buf.h"
#include "tekd/cosign.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define ORIGIN "bsm.example/tekd/audit/1"
#define DASH   "\xe2\x80\x94 "
#define TIME_S INT64_C(1764000000)

static struct cosigner *witness, *stranger; /* of the group */

static int make_witnesses(void **state)
{
    (void)state;
    witness = cosigner_new("witness.example/w1");
    stranger = cosigner_new("witness.example/w2");
    return 0;
}

static int free_witnesses(void **state)
{
    (void)state;
    cosigner_free(witness);
    cosigner_free(stranger);
    return 0;
}

static struct note plain(uint64_t size)
{
    struct note n = {.origin = ORIGIN, .size = size};

    memset(n.root.octets, 0xa5, sizeof n.root.octets);
    assert_int_equal(note_add(&n, (const uint8_t *)"\1\2\3\4", (const uint8_t *)"signature", 9), 0);
    return n;
}

static struct cosign_key key_of(const struct cosigner *w)
{
    struct cosign_key k;

    assert_int_equal(cosign_key_read(w->key, strlen(w->key), &k), 0);
    return k;
}

/* ---- keys ---- */

/* Of C2SP's own description of verifier keys the form; the values from a computation of its own:
 * hashlib and base64 of Python over "w.example", LF, 0x04 and 32 octets 0x00 to 0x1f. */
#define KNOWN_KEY "w.example+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

static void cosign_key_read__takes_a_verifier_key(void **state)
{
    struct cosign_key k;

    (void)state;
    assert_int_equal(cosign_key_read(KNOWN_KEY, strlen(KNOWN_KEY), &k), 0);
    assert_string_equal(k.name, "w.example");
    assert_int_equal(k.key_id[0], 0xe5);
    for (uint8_t i = 0; i < COSIGN_KEY_LEN; i++)
        assert_int_equal(k.octets[i], i);
}

static void cosign_key_read__refuses_any_other_text(void **state)
{
    static const char *const bad[] = {
        "",
        "w.example",
        "+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "w example+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "w.example+e533421e+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "x.example+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "w.example+e533421dBAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "w.example+e533421+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "w.example+e533421d+",
        "w.example+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g",
        "w.example+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHQ==",
        "w.example+e533421d+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f", /* type of a log's key */
        "w.example+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n",
    };
    struct cosign_key k;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(cosign_key_read(bad[i], strlen(bad[i]), &k), TEKD_EFORMAT);
}

/* ---- lines ---- */

static void cosign_verify__takes_what_the_witness_signed(void **state)
{
    const struct note n = plain(1234);
    const struct cosign_key key = key_of(witness);
    struct cosignature c;
    char line[COSIGN_LINE_MAX];

    (void)state;
    cosigner_line(witness, &n, TIME_S, line);
    assert_int_equal(cosign_line_read(line, strlen(line) - 1, &c), 0);
    assert_string_equal(c.name, "witness.example/w1");
    assert_int_equal(c.time_s, TIME_S);
    assert_int_equal(cosign_verify(&c, &key, &n), 0);
}

static void cosign_verify__refuses_any_other_statement(void **state)
{
    const struct note n = plain(1234), larger = plain(1235);
    const struct cosign_key key = key_of(witness), other = key_of(stranger);
    struct note elsewhere = n;
    struct cosignature c, changed;
    char line[COSIGN_LINE_MAX];

    (void)state;
    cosigner_line(witness, &n, TIME_S, line);
    assert_int_equal(cosign_line_read(line, strlen(line) - 1, &c), 0);
    assert_int_equal(cosign_verify(&c, &other, &n), TEKD_ENOTFOUND);
    assert_int_equal(cosign_verify(&c, &key, &larger), TEKD_ECRYPTO);
    elsewhere.origin[0] = 'x';
    assert_int_equal(cosign_verify(&c, &key, &elsewhere), TEKD_ECRYPTO);
    elsewhere = n;
    elsewhere.root.octets[31] ^= 1;
    assert_int_equal(cosign_verify(&c, &key, &elsewhere), TEKD_ECRYPTO);
    changed = c;
    changed.time_s++;
    assert_int_equal(cosign_verify(&changed, &key, &n), TEKD_ECRYPTO);
    changed = c;
    changed.key_id[3] ^= 1;
    assert_int_equal(cosign_verify(&changed, &key, &n), TEKD_ENOTFOUND);
    for (size_t i = 0; i < COSIGN_SIG_LEN; i++) {
        changed = c;
        changed.octets[i] ^= 1;
        assert_int_equal(cosign_verify(&changed, &key, &n), TEKD_ECRYPTO);
    }
}

/* Its key signs the text alone, as a log's would: that is no cosignature. */
static void cosign_verify__refuses_a_signature_without_a_time(void **state)
{
    const struct note n = plain(7);
    const struct cosign_key key = key_of(witness);
    struct cosignature c;
    char line[COSIGN_LINE_MAX];
    AUTO(buf) struct buf *text = NULL;

    (void)state;
    assert_int_equal(buf_new(NOTE_TEXT_MAX, &text), 0);
    assert_int_equal(note_text(n.origin, n.size, &n.root, text), 0);
    cosigner_line(witness, &n, TIME_S, line);
    assert_int_equal(cosign_line_read(line, strlen(line) - 1, &c), 0);
    cosigner_sign(witness, buf_data(text), buf_len(text), c.octets);
    assert_int_equal(cosign_verify(&c, &key, &n), TEKD_ECRYPTO);
}

/* A line with this payload. */
static int read_with(const void *payload, size_t len)
{
    struct cosignature c;
    char text[ENC_BASE64_LEN(100) + 1], line[COSIGN_LINE_MAX];

    enc_base64(payload, len, text);
    (void)snprintf(line, sizeof line, DASH "w %s", text);
    return cosign_line_read(line, strlen(line), &c);
}

static void cosign_line_read__refuses_any_other_line(void **state)
{
    static const char *const bad[] = {
        "", DASH, DASH "w", DASH "w ", DASH " AAAA", "- w AAAA", DASH "w AAAA", DASH "w+ AAAA",
    };
    static const uint8_t last_second[] = {0, 0, 0, 0x3a, 0xff, 0xf4, 0x41, 0x7f}; /* of 9999 */
    uint8_t payload[100] = {0};
    struct cosignature c;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(cosign_line_read(bad[i], strlen(bad[i]), &c), TEKD_EFORMAT);
    assert_int_equal(read_with(payload, 76), 0);
    assert_int_equal(read_with(payload, 75), TEKD_EFORMAT);
    assert_int_equal(read_with(payload, 77), TEKD_EFORMAT);
    memcpy(payload + 4, last_second, sizeof last_second);
    assert_int_equal(read_with(payload, 76), 0);
    payload[11]++;
    assert_int_equal(read_with(payload, 76), TEKD_EFORMAT);
    memset(payload + 4, 0xff, 8);
    assert_int_equal(read_with(payload, 76), TEKD_EFORMAT);
}

/* ---- notes ---- */

static void cosign_note_read__takes_a_note_and_one_line(void **state)
{
    const struct note n = plain(1234);
    AUTO(buf) struct buf *text = NULL;
    struct note found;
    struct cosignature c;
    char line[COSIGN_LINE_MAX];
    size_t note_len;

    (void)state;
    assert_int_equal(buf_new(COSIGN_NOTE_MAX, &text), 0);
    assert_int_equal(note_write(&n, text), 0);
    note_len = buf_len(text);
    assert_int_equal(cosign_note_read(buf_data(text), note_len, &found, &c), TEKD_EFORMAT);
    cosigner_line(witness, &n, TIME_S, line);
    assert_int_equal(buf_puts(text, line), 0);
    assert_int_equal(cosign_note_read(buf_data(text), buf_len(text), &found, &c), 0);
    assert_int_equal(found.size, 1234);
    assert_int_equal(c.time_s, TIME_S);
    for (size_t len = 0; len < buf_len(text); len++)
        assert_int_equal(cosign_note_read(buf_data(text), len, &found, &c), TEKD_EFORMAT);
    assert_int_equal(buf_puts(text, line), 0);
    assert_int_equal(cosign_note_read(buf_data(text), buf_len(text), &found, &c), TEKD_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cosign_key_read__takes_a_verifier_key),
        cmocka_unit_test(cosign_key_read__refuses_any_other_text),
        cmocka_unit_test(cosign_verify__takes_what_the_witness_signed),
        cmocka_unit_test(cosign_verify__refuses_any_other_statement),
        cmocka_unit_test(cosign_verify__refuses_a_signature_without_a_time),
        cmocka_unit_test(cosign_line_read__refuses_any_other_line),
        cmocka_unit_test(cosign_note_read__takes_a_note_and_one_line),
    };

    return cmocka_run_group_tests(tests, make_witnesses, free_witnesses);
}
