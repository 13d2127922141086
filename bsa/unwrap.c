/* AES key unwrapping by OpenSSL; clear keys stand in struct secret only. */
#include "bsa.h"

#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "tekd/enc.h"
#include "tekd/err.h"

#define SEMIBLOCK   8 /* RFC 3394's unit: Data is a multiple of it */
#define BLOCK       16
#define CHECK_BYTES (UNWRAP_CHECK_LEN / 2)

static void cipher_ctx_freep(EVP_CIPHER_CTX **ctx)
{
    EVP_CIPHER_CTX_free(*ctx); /* wipes the key schedule */
}

/* The least Data of a wrap: two semiblocks of key, or one padded. */
static const struct {
    size_t least;
    const EVP_CIPHER *(*cipher[3])(void); /* by length of the KEK: 128, 192, 256 */
} wraps[] = {
    [CP3_WRAP_AES_KW] = {24, {EVP_aes_128_wrap, EVP_aes_192_wrap, EVP_aes_256_wrap}},
    [CP3_WRAP_AES_KWP] = {16, {EVP_aes_128_wrap_pad, EVP_aes_192_wrap_pad, EVP_aes_256_wrap_pad}},
};

/* 16, 24, 32 octets: 0, 1, 2; else -1. */
static int aes_size(size_t len)
{
    return len == 16 || len == 24 || len == 32 ? (int)(len / 8) - 2 : -1;
}

int unwrap_read_kek(const char *path, struct secret **ret_kek)
{
    AUTO(secret) struct secret *hex = NULL;
    AUTO(secret) struct secret *kek = NULL;
    int r;

    r = secret_read_file(path, &hex);
    if (r < 0)
        return r;
    if (secret_len(hex) % 2 != 0 || aes_size(secret_len(hex) / 2) < 0)
        return TEKD_EFORMAT;
    r = secret_new(secret_len(hex) / 2, &kek);
    if (r < 0)
        return r;
    r = enc_hex_read((const char *)secret_peek(hex), secret_len(hex), secret_get(kek),
                     secret_len(kek));
    if (r < 0)
        return r;
    *ret_kek = TAKE(kek);
    return 0;
}

size_t unwrap_data_len(enum cp3_wrap wrap, size_t key_len)
{
    if (wrap == CP3_WRAP_AES_KW)
        return key_len + SEMIBLOCK;
    if (wrap == CP3_WRAP_AES_KWP)
        return (key_len + SEMIBLOCK - 1) / SEMIBLOCK * SEMIBLOCK + SEMIBLOCK;
    return 0;
}

/* OpenSSL's failure by call and name; the queue is emptied. */
static int crypto_failed(const char *call)
{
    unsigned long e = ERR_get_error();

    complain("%s: %s", call, e != 0 ? ERR_reason_error_string(e) : "failed");
    ERR_clear_error();
    return TEKD_ECRYPTO;
}

/*
 * Whether out_len octets can have been in len octets of Data.  OpenSSL "unwraps" an empty input to
 * nothing and succeeds, so its word is not taken for the length.
 */
static bool right_length(enum cp3_wrap wrap, size_t len, int out_len)
{
    return out_len > 0 && unwrap_data_len(wrap, (size_t)out_len) == len;
}

int unwrap_key(enum cp3_wrap wrap, const struct secret *kek, const uint8_t *data, size_t len,
               struct secret **ret_key)
{
    __attribute__((cleanup(cipher_ctx_freep))) EVP_CIPHER_CTX *ctx = NULL;
    AUTO(secret) struct secret *key = NULL;
    int size = aes_size(secret_len(kek)), out_len = 0, r;

    if ((size_t)wrap >= ARRAY_SIZE(wraps) || size < 0)
        return TEKD_EINVAL;
    if (len < wraps[wrap].least || len > UNWRAP_MAX || len % SEMIBLOCK != 0)
        return TEKD_EFORMAT;
    r = secret_new(len, &key); /* OpenSSL may use as much as the input on the way */
    if (r < 0)
        return r;
    ctx = EVP_CIPHER_CTX_new();
    if (ctx == NULL)
        return TEKD_ENOMEM;
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    if (EVP_DecryptInit_ex(ctx, wraps[wrap].cipher[size](), NULL, secret_peek(kek), NULL) != 1)
        return crypto_failed("EVP_DecryptInit_ex");
    if (EVP_DecryptUpdate(ctx, secret_get(key), &out_len, data, (int)len) != 1 ||
        !right_length(wrap, len, out_len)) {
        ERR_clear_error();
        return TEKD_EDENIED;
    }
    secret_truncate(key, (size_t)out_len);
    *ret_key = TAKE(key);
    return 0;
}

int unwrap_check_value(const struct secret *key, char ret_hex[static UNWRAP_CHECK_LEN + 1])
{
    static const EVP_CIPHER *(*const ciphers[])(void) = {EVP_aes_128_ecb, EVP_aes_192_ecb,
                                                         EVP_aes_256_ecb};
    static const uint8_t zeros[BLOCK];
    __attribute__((cleanup(cipher_ctx_freep))) EVP_CIPHER_CTX *ctx = NULL;
    uint8_t block[2 * BLOCK];
    int size = aes_size(secret_len(key)), len = 0;

    if (size < 0)
        return TEKD_EINVAL;
    ctx = EVP_CIPHER_CTX_new();
    if (ctx == NULL)
        return TEKD_ENOMEM;
    if (EVP_EncryptInit_ex(ctx, ciphers[size](), NULL, secret_peek(key), NULL) != 1 ||
        EVP_EncryptUpdate(ctx, block, &len, zeros, sizeof(zeros)) != 1 || len != BLOCK)
        return crypto_failed("EVP_EncryptUpdate");
    enc_hex(block, CHECK_BYTES, ret_hex);
    return 0;
}
