/* Signatures of ECDSA as others read them. */
#include "token/token_impl.h"

#include <openssl/bn.h>
#include <openssl/ecdsa.h>

/* OpenSSL's typedefs: no AUTO(), but the same. */
static void ecdsa_freep(ECDSA_SIG **p)
{
    ECDSA_SIG_free(*p);
}

int token_ecdsa_der(const uint8_t *raw, size_t half, struct hsm_signature *ret_signature)
{
    __attribute__((cleanup(ecdsa_freep))) ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, (int)half, NULL);
    BIGNUM *s = BN_bin2bn(raw + half, (int)half, NULL);
    unsigned char *out = ret_signature->octets;
    int len;

    if (!sig || !r || !s || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        return TEKD_ENOMEM;
    }
    len = i2d_ECDSA_SIG(sig, NULL);
    if (BN_is_zero(r) || BN_is_zero(s) || len <= 0 || len > HSM_SIGNATURE_MAX)
        return TEKD_ECRYPTO;
    ret_signature->len = (uint16_t)i2d_ECDSA_SIG(sig, &out);
    return 0;
}
