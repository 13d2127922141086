#include "cosigner.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "tekd/enc.h"

struct cosigner *cosigner_new(const char *name)
{
    struct cosigner *w = calloc(1, sizeof(*w));
    uint8_t data[33] = {0x04}, digest[32], named[COSIGN_NAME_MAX + 34];
    char hex[9], text[ENC_BASE64_LEN(33) + 1];
    size_t len = 32, n = strlen(name);

    assert_non_null(w);
    w->name = name;
    w->pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    assert_non_null(w->pkey);
    assert_int_equal(EVP_PKEY_get_raw_public_key(w->pkey, data + 1, &len), 1);
    for (size_t i = 0; i < n; i++)
        named[i] = (uint8_t)name[i];
    named[n] = '\n';
    memcpy(named + n + 1, data, sizeof data);
    assert_int_equal(EVP_Digest(named, n + 1 + sizeof data, digest, NULL, EVP_sha256(), NULL), 1);
    memcpy(w->key_id, digest, sizeof w->key_id);
    enc_hex(digest, 4, hex);
    enc_base64(data, sizeof data, text);
    (void)snprintf(w->key, sizeof w->key, "%s+%s+%s", name, hex, text);
    return w;
}

void cosigner_free(struct cosigner *w)
{
    if (!w)
        return;
    EVP_PKEY_free(w->pkey);
    free(w);
}

void cosigner_sign(const struct cosigner *w, const void *octets, size_t len,
                   uint8_t ret_signature[static COSIGN_SIG_LEN])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t n = COSIGN_SIG_LEN;

    assert_non_null(ctx);
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, NULL, NULL, w->pkey), 1);
    assert_int_equal(EVP_DigestSign(ctx, ret_signature, &n, octets, len), 1);
    EVP_MD_CTX_free(ctx);
}

void cosigner_line(const struct cosigner *w, const struct note *n, int64_t time_s,
                   char ret_line[static COSIGN_LINE_MAX])
{
    char root[ENC_BASE64_LEN(MERKLE_HASH_LEN) + 1], text[ENC_BASE64_LEN(76) + 1];
    char message[NOTE_TEXT_MAX + 100];
    uint8_t payload[76];

    enc_base64(n->root.octets, MERKLE_HASH_LEN, root);
    (void)snprintf(message, sizeof message,
                   "cosignature/v1\ntime %" PRId64 "\n%s\n%" PRIu64 "\n%s\n", time_s, n->origin,
                   n->size, root);
    memcpy(payload, w->key_id, 4);
    for (unsigned i = 0; i < 8; i++)
        payload[4 + i] = (uint8_t)((uint64_t)time_s >> (56 - 8 * i));
    cosigner_sign(w, message, strlen(message), payload + 12);
    enc_base64(payload, sizeof payload, text);
    (void)snprintf(ret_line, COSIGN_LINE_MAX, "\xe2\x80\x94 %s %s\n", w->name, text);
}
