/* A witness' key for the tests, and what it signs.  Every failure ends the test. */
#ifndef TEST_COSIGNER_H
#define TEST_COSIGNER_H

#include <openssl/types.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/cosign.h"

struct cosigner {
    const char *name; /* borrowed */
    EVP_PKEY *pkey;
    uint8_t key_id[4];
    char key[COSIGN_KEY_MAX]; /* its verifier key */
};

struct cosigner *cosigner_new(const char *name);
void cosigner_free(struct cosigner *w);
void cosigner_sign(const struct cosigner *w, const void *octets, size_t len,
                   uint8_t ret_signature[static COSIGN_SIG_LEN]);
/* Its line over a note, with the line end. */
void cosigner_line(const struct cosigner *w, const struct note *n, int64_t time_s,
                   char ret_line[static COSIGN_LINE_MAX]);

#endif
