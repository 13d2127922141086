/*
 * A time-stamping authority for tests, by OpenSSL's side of RFC 3161 that answers: its clock, its
 * certificate and its mood are the test's.  Every failure ends the test.
 */
#ifndef TEST_TSA_H
#define TEST_TSA_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdint.h>

#include "tekd/buf.h"

struct tsa {
    EVP_PKEY *ca_key, *key;
    X509 *ca, *cert;
    X509_STORE *store; /* of the CA */
    int64_t utc_s;     /* what its clock says */
    bool refuses;
    const char *other_usage; /* what the certificate in the answer is for; NULL: as made */
};

/* When its certificate is good, in seconds since 1970. */
struct tsa *tsa_new(int64_t from_s, int64_t to_s);
void tsa_free(struct tsa *t);
/* Appends the answer (DER) to a question (DER). */
void tsa_answer(const struct tsa *t, const struct buf *question, struct buf *out);

#endif
