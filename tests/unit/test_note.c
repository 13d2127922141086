#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/note.h"

#define ORIGIN "bsm.example.net/tekd/audit/1"
#define DASH   "\xe2\x80\x94 "

struct keys {
    EVP_PKEY *p256;
    EVP_PKEY *other;
    EVP_PKEY *ed25519;
};

static int make_keys(void **state)
{
    static struct keys k;

    k.p256 = EVP_EC_gen("P-256");
    k.other = EVP_EC_gen("P-256");
    k.ed25519 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    *state = &k;
    return k.p256 && k.other && k.ed25519 ? 0 : -1;
}

static int free_keys(void **state)
{
    struct keys *k = *state;

    EVP_PKEY_free(k->p256);
    EVP_PKEY_free(k->other);
    EVP_PKEY_free(k->ed25519);
    return 0;
}

static struct note plain(void)
{
    struct note n = {.origin = ORIGIN, .size = 1234};

    memset(n.root.octets, 0xa5, sizeof n.root.octets);
    return n;
}

static void sign(struct note *n, EVP_PKEY *key)
{
    AUTO(buf) struct buf *text = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t sig[NOTE_SIG_MAX], id[4];
    size_t len = sizeof sig;
    const EVP_MD *md = EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();

    assert_int_equal(buf_new(NOTE_TEXT_MAX, &text), 0);
    assert_int_equal(note_text(n->origin, n->size, &n->root, text), 0);
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, md, NULL, key), 1);
    assert_int_equal(EVP_DigestSign(ctx, sig, &len, buf_data(text), buf_len(text)), 1);
    EVP_MD_CTX_free(ctx);
    assert_int_equal(note_key_id(n->origin, key, id), 0);
    assert_int_equal(note_add(n, id, sig, len), 0);
}

static void note_origin__names_a_log(void **state)
{
    char out[NOTE_ORIGIN_MAX + 1];

    (void)state;
    assert_int_equal(note_origin("bsm.example.net", 1, out), 0);
    assert_string_equal(out, ORIGIN);
    assert_int_equal(note_origin("b", UINT64_MAX, out), 0);
    assert_string_equal(out, "b/tekd/audit/18446744073709551615");
}

static void note_origin__refuses_what_no_key_name_may_hold(void **state)
{
    static const char *const bad[] = {
        "",     "a b",       "a+b",          "a\nb",         "a\tb",      "a\x7f",
        "\xff", "a\xc2\xa0", "\xe2\x80\x83", "\xe3\x80\x80", "a\xc2\x85", "\xe2\x80\xa8"};
    static char longest[NOTE_ORIGIN_MAX + 1];
    char out[NOTE_ORIGIN_MAX + 1] = "untouched";

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(note_origin(bad[i], 1, out), TEKD_EINVAL);
    assert_int_equal(note_origin("b", 0, out), TEKD_EINVAL);
    memset(longest, 'x', NOTE_ORIGIN_MAX);
    assert_int_equal(note_origin(longest, 1, out), TEKD_EINVAL);
    assert_string_equal(out, "untouched");
    longest[NOTE_ORIGIN_MAX - strlen("/tekd/audit/1")] = '\0';
    assert_int_equal(note_origin(longest, 1, out), 0);
}

static void note_write__gives_the_text_and_its_lines(void **state)
{
    struct note n = plain();
    const uint8_t id[4] = {1, 2, 3, 4};
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(NOTE_MAX, &b), 0);
    assert_int_equal(note_add(&n, id, (const uint8_t *)"sig", 3), 0);
    assert_int_equal(note_write(&n, b), 0);
    assert_string_equal(buf_str(b), ORIGIN "\n1234\n"
                                           "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU=\n"
                                           "\n" DASH ORIGIN " AQIDBHNpZw==\n");
}

static void note_read__gives_back_what_was_written(void **state)
{
    const struct keys *k = *state;
    struct note n = plain(), again;
    AUTO(buf) struct buf *b = NULL;

    sign(&n, k->p256);
    sign(&n, k->ed25519);
    assert_int_equal(buf_new(NOTE_MAX, &b), 0);
    assert_int_equal(note_write(&n, b), 0);
    assert_int_equal(note_read(buf_data(b), buf_len(b), &again), 0);
    assert_string_equal(again.origin, n.origin);
    assert_int_equal(again.size, n.size);
    assert_memory_equal(&again.root, &n.root, sizeof n.root);
    assert_int_equal(again.n_signatures, 2);
    assert_int_equal(note_verify(&again, k->p256), 0);
    assert_int_equal(note_verify(&again, k->ed25519), 0);
}

static void note_write__fits_the_largest_note(void **state)
{
    struct note n = plain(), again;
    uint8_t sig[NOTE_SIG_MAX] = {1}, id[4] = {0};
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    memset(n.origin, 'x', NOTE_ORIGIN_MAX);
    n.origin[NOTE_ORIGIN_MAX] = '\0';
    n.size = UINT64_MAX;
    for (int i = 0; i < NOTE_SIGS_MAX; i++)
        assert_int_equal(note_add(&n, id, sig, sizeof sig), 0);
    assert_int_equal(note_add(&n, id, sig, sizeof sig), TEKD_ETOOBIG);
    assert_int_equal(buf_new(NOTE_MAX, &b), 0);
    assert_int_equal(note_write(&n, b), 0);
    assert_int_equal(note_read(buf_data(b), buf_len(b), &again), 0);
    assert_int_equal(again.size, UINT64_MAX);
}

static void note_add__refuses_what_is_no_signature(void **state)
{
    struct note n = plain();
    uint8_t sig[NOTE_SIG_MAX + 1] = {1}, id[4] = {0};

    (void)state;
    assert_int_equal(note_add(&n, id, sig, 0), TEKD_ETOOBIG);
    assert_int_equal(note_add(&n, id, sig, sizeof sig), TEKD_ETOOBIG);
    assert_int_equal(n.n_signatures, 0);
}

#define ROOT "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU="
#define SIG  DASH ORIGIN " AQIDBHNpZw==\n"

static void note_read__refuses_all_but_one_form(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        ORIGIN "\n1234\n" ROOT "\n",
        ORIGIN "\n1234\n" ROOT "\n\n",
        ORIGIN "\n1234\n" ROOT "\n" SIG,
        ORIGIN "\n1234\n" ROOT "\nextension\n\n" SIG,
        "\n" ORIGIN "\n1234\n" ROOT "\n\n" SIG,
        ORIGIN "\n1234\n" ROOT "\n\n" SIG "\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN " AQIDBHNpZw==",
        ORIGIN "\r\n1234\r\n" ROOT "\r\n\r\n" SIG,
        /* size */
        ORIGIN "\n01234\n" ROOT "\n\n" SIG,
        ORIGIN "\n+1234\n" ROOT "\n\n" SIG,
        ORIGIN "\n-1\n" ROOT "\n\n" SIG,
        ORIGIN "\n 1234\n" ROOT "\n\n" SIG,
        ORIGIN "\n\n" ROOT "\n\n" SIG,
        ORIGIN "\n18446744073709551616\n" ROOT "\n\n" SIG,
        ORIGIN "\n0x10\n" ROOT "\n\n" SIG,
        /* root */
        ORIGIN "\n1234\npaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaV=\n\n" SIG,
        ORIGIN "\n1234\npaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU\n\n" SIG,
        ORIGIN "\n1234\npaWlpaWl\n\n" SIG,
        ORIGIN "\n1234\n" ROOT " \n\n" SIG,
        /* signature lines */
        ORIGIN "\n1234\n" ROOT "\n\n- " ORIGIN " AQIDBHNpZw==\n",
        ORIGIN "\n1234\n" ROOT "\n\n\xe2\x80\x93 " ORIGIN " AQIDBHNpZw==\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH "other AQIDBHNpZw==\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN "  AQIDBHNpZw==\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN " AQIDBHNpZw\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN " AQIDBHNpZx==\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN " AQIDBHNpZw== \n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN " AQIDBA==\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN " AQID\n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN " \n",
        ORIGIN "\n1234\n" ROOT "\n\n" DASH ORIGIN "\n",
        ORIGIN "\n1234\n" ROOT "\n\n" SIG "x\n",
        ORIGIN "\n1234\n" ROOT "\n\n" SIG SIG SIG SIG SIG,
        /* origin */
        "a b\n1234\n" ROOT "\n\n" DASH "a b AQIDBHNpZw==\n",
        "a+b\n1234\n" ROOT "\n\n" DASH "a+b AQIDBHNpZw==\n",
        "\xff\n1234\n" ROOT "\n\n" DASH "\xff AQIDBHNpZw==\n",
    };
    static const char good[] = ORIGIN "\n1234\n" ROOT "\n\n" SIG;
    struct note n;

    (void)state;
    assert_int_equal(note_read(good, sizeof good - 1, &n), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (note_read(bad[i], strlen(bad[i]), &n) != TEKD_EFORMAT)
            fail_msg("taken: %s", bad[i]);
    for (size_t len = 0; len < sizeof good - 1; len++)
        assert_int_equal(note_read(good, len, &n), TEKD_EFORMAT);
    assert_int_equal(note_read(good, sizeof good, &n), TEKD_EFORMAT);
}

static void note_read__refuses_what_is_over_the_limit(void **state)
{
    char text[NOTE_MAX + 1];
    struct note n;

    (void)state;
    memset(text, 'x', sizeof text);
    assert_int_equal(note_read(text, sizeof text, &n), TEKD_EFORMAT);
}

static void note_verify__refuses_what_was_not_signed(void **state)
{
    const struct keys *k = *state;
    struct note n = plain();

    assert_int_equal(note_verify(&n, k->p256), TEKD_ENOTFOUND);
    sign(&n, k->p256);
    assert_int_equal(note_verify(&n, k->p256), 0);
    assert_int_equal(note_verify(&n, k->other), TEKD_ENOTFOUND);
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ENOTFOUND);

    n.size++;
    assert_int_equal(note_verify(&n, k->p256), TEKD_ECRYPTO);
    n.size--;
    n.root.octets[0] ^= 1;
    assert_int_equal(note_verify(&n, k->p256), TEKD_ECRYPTO);
    n.root.octets[0] ^= 1;
    n.origin[0] = 'c';
    assert_int_equal(note_verify(&n, k->p256), TEKD_ECRYPTO);
    n.origin[0] = 'b';
    n.signature[0].octets[20] ^= 1;
    assert_int_equal(note_verify(&n, k->p256), TEKD_ECRYPTO);
}

static void note_verify__refuses_a_bad_line_beside_a_good_one(void **state)
{
    const struct keys *k = *state;
    struct note n = plain();

    sign(&n, k->p256);
    sign(&n, k->p256);
    assert_int_equal(note_verify(&n, k->p256), 0);
    n.signature[1].octets[20] ^= 1;
    assert_int_equal(note_verify(&n, k->p256), TEKD_ECRYPTO);
}

/* A line that carries a key's id but another key's signature. */
static void note_verify__refuses_a_line_under_a_stolen_id(void **state)
{
    const struct keys *k = *state;
    struct note n = plain();

    sign(&n, k->other);
    assert_int_equal(note_key_id(n.origin, k->p256, n.signature[0].key_id), 0);
    assert_int_equal(note_verify(&n, k->p256), TEKD_ECRYPTO);
}

/* Its key id is of the origin too, so under another one there is no line of it at all. */
static void note_verify__refuses_what_ed25519_has_not_signed(void **state)
{
    const struct keys *k = *state;
    struct note n = plain();

    sign(&n, k->ed25519);
    assert_int_equal(n.signature[0].len, 64);
    assert_int_equal(note_verify(&n, k->ed25519), 0);
    assert_int_equal(note_verify(&n, k->p256), TEKD_ENOTFOUND);
    n.size++;
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
    n.size--;
    n.root.octets[31] ^= 1;
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
    n.root.octets[31] ^= 1;
    n.origin[0] = 'c';
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ENOTFOUND);
    assert_int_equal(note_key_id(n.origin, k->ed25519, n.signature[0].key_id), 0);
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
    n.origin[0] = 'b';
    assert_int_equal(note_key_id(n.origin, k->ed25519, n.signature[0].key_id), 0);
    for (size_t i = 0; i < 64; i += 21) {
        n.signature[0].octets[i] ^= 1;
        assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
        n.signature[0].octets[i] ^= 1;
    }
    assert_int_equal(note_verify(&n, k->ed25519), 0);
    n.signature[0].len = 63;
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
    n.signature[0].len = 65;
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
}

/* A line of each kind, with the id of the other; and one twice, wrong the second time. */
static void note_verify__refuses_lines_of_the_other_kind(void **state)
{
    const struct keys *k = *state;
    struct note n = plain();
    uint8_t id[4];

    sign(&n, k->p256);
    sign(&n, k->ed25519);
    memcpy(id, n.signature[0].key_id, sizeof id);
    memcpy(n.signature[0].key_id, n.signature[1].key_id, sizeof id);
    memcpy(n.signature[1].key_id, id, sizeof id);
    assert_int_equal(note_verify(&n, k->p256), TEKD_ECRYPTO);
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
    n = plain();
    sign(&n, k->ed25519);
    sign(&n, k->ed25519);
    assert_int_equal(note_verify(&n, k->ed25519), 0);
    n.signature[1].octets[0] ^= 1;
    assert_int_equal(note_verify(&n, k->ed25519), TEKD_ECRYPTO);
}

/* A line that is wrong spoils the note for its own key, and for no other. */
static void note_verify__looks_at_the_lines_of_one_key(void **state)
{
    const struct keys *k = *state;
    EVP_PKEY *second = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_PKEY *const all[NOTE_SIGS_MAX] = {k->p256, k->ed25519, k->other, second};
    struct note n = plain();

    for (size_t i = 0; i < NOTE_SIGS_MAX; i++)
        sign(&n, all[i]);
    for (size_t i = 0; i < NOTE_SIGS_MAX; i++) {
        n.signature[i].octets[20] ^= 1;
        for (size_t j = 0; j < NOTE_SIGS_MAX; j++)
            assert_int_equal(note_verify(&n, all[j]), i == j ? TEKD_ECRYPTO : 0);
        n.signature[i].octets[20] ^= 1;
    }
    EVP_PKEY_free(second);
}

/* Of the private key 00 01 … 1f, made with Python's cryptography. */
static void note_verify__takes_an_ed25519_line_of_another_program(void **state)
{
    static const char text[] = ORIGIN
        "\n1234\n" ROOT "\n\n" DASH ORIGIN
        " /DWLyH+4LBMIcZrF3dr84/Mvkftj10ZNs4e/cgG3D0rhOrX8MgTRbjC3bFL8geeLK6R0W7rKDzzPs1MeqAr"
        "zukRd1QY=\n";
    static const uint8_t raw[32] = {0x03, 0xa1, 0x07, 0xbf, 0xf3, 0xce, 0x10, 0xbe,
                                    0x1d, 0x70, 0xdd, 0x18, 0xe7, 0x4b, 0xc0, 0x99,
                                    0x67, 0xe4, 0xd6, 0x30, 0x9b, 0xa5, 0x0d, 0x5f,
                                    0x1d, 0xdc, 0x86, 0x64, 0x12, 0x55, 0x31, 0xb8};
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, sizeof raw);
    struct note n;

    (void)state;
    assert_int_equal(note_read(text, sizeof text - 1, &n), 0);
    assert_int_equal(note_verify(&n, key), 0);
    EVP_PKEY_free(key);
}

/*
 * The ids of two fixed keys, made and hashed with other programs:
 *     openssl pkey -pubin -in KEY -outform DER | sha256sum
 *     (printf 'NAME\n\001'; openssl pkey -pubin -in KEY -outform DER | tail -c 32) | sha256sum
 */
static const char p256_pem[] = "-----BEGIN PUBLIC KEY-----\n"
                               "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmDvBnpyZsO17Cpd+RPBqWwkpVH8q\n"
                               "qARLWcAensUzQnO3vrIjiuxoUgiXmU4qqfQ4hbhCcQVtGUcOFVqYFploIA==\n"
                               "-----END PUBLIC KEY-----\n";
static const char ed25519_pem[] = "-----BEGIN PUBLIC KEY-----\n"
                                  "MCowBQYDK2VwAyEAxZ+GX387VuAP7BAB3BGIq/i2xM10SW3mSFp7ld1PkZ8=\n"
                                  "-----END PUBLIC KEY-----\n";

static EVP_PKEY *read_pem(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);

    BIO_free(bio);
    assert_non_null(key);
    return key;
}

static void note_key_id__of_known_keys(void **state)
{
    static const uint8_t p256_id[4] = {0xc0, 0xc5, 0x1d, 0xb1};
    static const uint8_t ed25519_id[4] = {0xb3, 0xb8, 0x7b, 0x74};
    EVP_PKEY *p256 = read_pem(p256_pem);
    EVP_PKEY *ed25519 = read_pem(ed25519_pem);
    uint8_t id[4];

    (void)state;
    assert_int_equal(note_key_id(ORIGIN, p256, id), 0);
    assert_memory_equal(id, p256_id, 4);
    assert_int_equal(note_key_id("other.example", p256, id), 0);
    assert_memory_equal(id, p256_id, 4);
    assert_int_equal(note_key_id(ORIGIN, ed25519, id), 0);
    assert_memory_equal(id, ed25519_id, 4);
    assert_int_equal(note_key_id("other.example", ed25519, id), 0);
    assert_memory_not_equal(id, ed25519_id, 4);
    EVP_PKEY_free(p256);
    EVP_PKEY_free(ed25519);
}

static void note_key_id__refuses_other_keys(void **state)
{
    EVP_PKEY *p384 = EVP_EC_gen("P-384");
    EVP_PKEY *rsa = EVP_RSA_gen(2048);
    struct note n = plain();
    uint8_t id[4];

    (void)state;
    assert_int_equal(note_key_id(ORIGIN, p384, id), TEKD_ECRYPTO);
    assert_int_equal(note_key_id(ORIGIN, rsa, id), TEKD_ECRYPTO);
    assert_int_equal(note_verify(&n, p384), TEKD_ECRYPTO);
    EVP_PKEY_free(p384);
    EVP_PKEY_free(rsa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(note_origin__names_a_log),
        cmocka_unit_test(note_origin__refuses_what_no_key_name_may_hold),
        cmocka_unit_test(note_write__gives_the_text_and_its_lines),
        cmocka_unit_test(note_read__gives_back_what_was_written),
        cmocka_unit_test(note_write__fits_the_largest_note),
        cmocka_unit_test(note_add__refuses_what_is_no_signature),
        cmocka_unit_test(note_read__refuses_all_but_one_form),
        cmocka_unit_test(note_read__refuses_what_is_over_the_limit),
        cmocka_unit_test(note_verify__refuses_what_was_not_signed),
        cmocka_unit_test(note_verify__refuses_a_bad_line_beside_a_good_one),
        cmocka_unit_test(note_verify__refuses_a_line_under_a_stolen_id),
        cmocka_unit_test(note_verify__refuses_what_ed25519_has_not_signed),
        cmocka_unit_test(note_verify__refuses_lines_of_the_other_kind),
        cmocka_unit_test(note_verify__looks_at_the_lines_of_one_key),
        cmocka_unit_test(note_verify__takes_an_ed25519_line_of_another_program),
        cmocka_unit_test(note_key_id__of_known_keys),
        cmocka_unit_test(note_key_id__refuses_other_keys),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
