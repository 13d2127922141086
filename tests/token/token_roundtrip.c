/*
 * Makes TEKs and wraps them, as a worker does, and prints everything as JSON for
 * check_unwrap.py, which knows the KEKs' clear values.
 *
 *   token_roundtrip MODULE URI PIN-FILE LABEL USE WRAP...   USE: storage or bsa
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "token/token.h"

#define KEKS_MAX 8
#define ROUNDS   8

static int fail(const struct token *t, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, t ? token_reason(t) : "");
    return 1;
}

static json_t *hex(const uint8_t *data, size_t len)
{
    char text[ENC_HEX_LEN(HSM_WRAPPED_MAX) + 1];

    enc_hex(data, len, text);
    return json_string(text);
}

/* One TEK of bits under every KEK, the storage KEKs' blob unwrapped and wrapped once more. */
static json_t *one_tek(struct token *t, struct token_kek *const *keks,
                       const struct hsm_kek_report *reports, size_t n, unsigned bits)
{
    json_t *doc = json_object();
    struct token_tek tek, back;
    struct hsm_blob blob;

    if (token_tek_generate(t, bits, &tek) < 0)
        return NULL;
    json_object_set_new(doc, "bits", json_integer(bits));
    for (size_t i = 0; i < n; i++) {
        if (token_tek_wrap(t, keks[i], &tek, &blob) < 0)
            return NULL;
        json_object_set_new(doc, reports[i].kek.label, hex(blob.octets, blob.len));
        if (reports[i].kek.use != HSM_KEK_STORAGE)
            continue;
        if (token_tek_unwrap(t, keks[i], &blob, bits, &back) < 0 ||
            token_tek_wrap(t, keks[0], &back, &blob) < 0 || token_tek_destroy(t, &back) < 0)
            return NULL;
        json_object_set_new(doc, "again", hex(blob.octets, blob.len));
    }
    return token_tek_destroy(t, &tek) < 0 ? NULL : doc;
}

static int bind(struct token *t, char **words, struct hsm_kek_report *report,
                struct token_kek **kek)
{
    enum hsm_wrap wrap;

    if (hsm_wrap_read(words[2], &wrap) < 0)
        return TEKD_EINVAL;
    if (token_kek_describe(t, words[0],
                           strcmp(words[1], "storage") == 0 ? HSM_KEK_STORAGE : HSM_KEK_BSA, wrap,
                           report) < 0)
        return TEKD_EHSM;
    return token_kek_find(t, &report->kek, kek);
}

int main(int argc, char **argv)
{
    AUTO(token) struct token *t = NULL;
    AUTO(secret) struct secret *pin = NULL;
    struct hsm_kek_report reports[KEKS_MAX];
    struct token_kek *keks[KEKS_MAX] = {NULL};
    json_t *doc = json_object(), *prints = json_object(), *teks = json_array();
    size_t n = 0;

    if (argc < 7 || (argc - 4) % 3 != 0 || (argc - 4) / 3 > KEKS_MAX)
        return 2;
    const struct token_options o = {.module = argv[1], .uri = argv[2], .profile = "softhsm"};
    if (token_new(&o, &t) < 0 || secret_read_file(argv[3], &pin) < 0)
        return fail(t, "setting up");
    if (token_open(t) < 0 || token_login(t, pin) < 0)
        return fail(t, "opening");
    for (int i = 4; i < argc; i += 3, n++) {
        if (bind(t, &argv[i], &reports[n], &keks[n]) < 0)
            return fail(t, argv[i]);
        json_object_set_new(prints, argv[i], hex(reports[n].kek.fingerprint, 32));
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        json_t *tek = one_tek(t, keks, reports, n, 128 + 64 * (round % 3));

        if (!tek)
            return fail(t, "a TEK");
        json_array_append_new(teks, tek);
    }
    for (size_t i = 0; i < n; i++)
        token_kek_free(keks[i]);
    json_object_set_new(doc, "fingerprints", prints);
    json_object_set_new(doc, "teks", teks);
    json_dumpf(doc, stdout, JSON_INDENT(1));
    json_decref(doc);
    return 0;
}
