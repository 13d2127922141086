#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/err.h"
#include "tekd/secret.h"

#define SPKI_MAX 256 /* P-256: 91, Ed25519: 44 */

static EVP_PKEY *parse_pem(const uint8_t *octets, size_t len)
{
    BIO *bio = BIO_new_mem_buf(octets, (int)len);
    EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, secret_no_passphrase, NULL) : NULL;

    BIO_free(bio);
    return key;
}

/* The whole of the octets, nothing behind the key. */
static EVP_PKEY *parse_der(const uint8_t *octets, size_t len)
{
    const uint8_t *p = octets;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)len);

    if (key && p != octets + len) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

int key_parse(const uint8_t *octets, size_t len, EVP_PKEY **ret_key)
{
    EVP_PKEY *key;
    uint8_t id[4];

    if (len > KEY_FILE_MAX)
        return TEKD_EFORMAT;
    key = parse_pem(octets, len);
    if (!key)
        key = parse_der(octets, len);
    if (!key || note_key_id("any", key, id) < 0) {
        EVP_PKEY_free(key);
        return TEKD_EFORMAT;
    }
    *ret_key = key;
    return 0;
}

int key_fingerprint(EVP_PKEY *key, struct merkle_hash *ret_fingerprint)
{
    uint8_t spki[SPKI_MAX];
    uint8_t *p = spki;
    int len = i2d_PUBKEY(key, NULL);

    if (len <= 0 || len > SPKI_MAX || i2d_PUBKEY(key, &p) != len ||
        EVP_Digest(spki, (size_t)len, ret_fingerprint->octets, NULL, EVP_sha256(), NULL) != 1)
        return TEKD_ECRYPTO;
    return 0;
}
