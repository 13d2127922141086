/*
 * Time stamps of RFC 3161: what a time-stamping authority (TSA) is asked, and whether its answer is
 * one for these octets.  The hash is SHA-256.
 *
 * Thread rule: from any thread.
 */
#ifndef TEKD_TIMESTAMP_H
#define TEKD_TIMESTAMP_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/buf.h"

#define TIMESTAMP_MAX       65536 /* octets of an answer: a token with the TSA's chain is some 6000 */
#define TIMESTAMP_NONCE_LEN 16
#define TIMESTAMP_WHY_MAX   200
#define TIMESTAMP_CHAIN_MAX 6 /* certificates between the TSA's and the CA's */

struct timestamp_nonce {
    uint8_t octets[TIMESTAMP_NONCE_LEN];
};

/* Appends a TimeStampReq (DER) with a new nonce that wants the TSA's certificate.  Errors:
 * TEKD_ECRYPTO, those of buf_append(). */
int timestamp_ask(const void *octets, size_t len, struct timestamp_nonce *ret_nonce,
                  struct buf *out);

/* An answer that is to be looked at. */
struct timestamp_check {
    const void *octets; /* what was stamped */
    size_t len;
    const struct timestamp_nonce *nonce; /* of the question; NULL: any */
    X509_STORE
    *ca; /* who may have signed the TSA's certificate; NULL: signatures are not looked at */
    bool at_its_time; /* certificates are judged by the time of the stamp, not by ours */
};
/*
 * Whether a TimeStampResp (DER) grants a stamp over the octets: status, version, hash, nonce,
 * signature, and chain of a certificate whose only purpose is time stamping.  *ret_utc_us is the
 * time it says.  why: in words what is wrong; text of the answer may be in it.
 * Errors: TEKD_EFORMAT (no TimeStampResp), TEKD_EDENIED (the TSA refused), TEKD_ECRYPTO (all
 * other), TEKD_ETOOBIG, TEKD_ENOMEM.
 */
int timestamp_verify(const struct timestamp_check *c, const void *answer, size_t answer_len,
                     int64_t *ret_utc_us, char why[static TIMESTAMP_WHY_MAX]);

#endif
