/*
 * The server's private key in the HSM, behind an EC_KEY whose method asks a callback to sign.
 * EC_KEY_METHOD is deprecated in OpenSSL 3 in favour of providers, which need ten times the code
 * for the one operation wanted here.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "internal.h"

#include <openssl/ec.h>

#include "tekd/err.h"
#include "tekd/log.h"

#define SIGNATURE_MAX 144 /* DER of ECDSA P-384, with room */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EC_KEY_METHOD *method;
static int signer_index = -1;

/* NOLINTNEXTLINE(readability-function-size): the parameters are OpenSSL's */
static int remote_sign(int type, const unsigned char *digest, int len, unsigned char *sig,
                       unsigned int *sig_len, const BIGNUM *kinv, const BIGNUM *rp, EC_KEY *key)
{
    const struct http_signer *signer = EC_KEY_get_ex_data(key, signer_index);
    uint8_t out[SIGNATURE_MAX];
    size_t out_len = sizeof(out);

    (void)type;
    (void)kinv;
    (void)rp;
    if (signer->sign(signer->arg, digest, (size_t)len, out, &out_len) < 0 ||
        out_len > (size_t)ECDSA_size(key))
        return 0;
    memcpy(sig, out, out_len);
    *sig_len = (unsigned)out_len;
    return 1;
}

static void make_method(void)
{
    method = EC_KEY_METHOD_new(EC_KEY_OpenSSL());
    signer_index = EC_KEY_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (method)
        EC_KEY_METHOD_set_sign(method, remote_sign, NULL, NULL);
}

int tls_key_remote(const struct http_signer *signer, EVP_PKEY **ret_key)
{
    const unsigned char *der = signer->spki;
    EC_KEY *ec = d2i_EC_PUBKEY(NULL, &der, (long)signer->spki_len);
    EVP_PKEY *key = EVP_PKEY_new();
    int ok;

    (void)pthread_once(&once, make_method);
    ok = ec && key && method && signer_index >= 0 && EC_KEY_set_method(ec, method) == 1 &&
         EC_KEY_set_ex_data(ec, signer_index, (void *)(uintptr_t)signer) == 1 &&
         EVP_PKEY_set1_EC_KEY(key, ec) == 1;
    EC_KEY_free(ec);
    if (!ok) {
        EVP_PKEY_free(key);
        log_event(LOG_ERROR, "tls", "key-in-hsm-unusable",
                  LOG_STR("expected", "an EC P-256 or P-384 key"));
        return TEKD_EINVAL;
    }
    *ret_key = key;
    return 0;
}
