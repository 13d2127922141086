/*
 * A PKI for the tests of the front: a CA, the server's certificate for 127.0.0.1, clients, a CRL;
 * made by OpenSSL calls in a folder of its own.  Every failure ends the test.
 */
#ifndef TEST_HTTP_PKI_H
#define TEST_HTTP_PKI_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stddef.h>
#include <stdint.h>

#define PKI_PATH_MAX     128
#define PKI_REVOKED_MAX  8
#define PKI_IDENTITY_MAX 32

/* A certificate and its key; the PKI's. */
struct pki_identity {
    EVP_PKEY *key;
    X509 *cert;
    uint8_t sha256[32]; /* of the DER */
};

struct pki {
    char dir[PKI_PATH_MAX];
    struct pki_identity ca, other_ca;
    struct pki_identity server;
    long serial;
    size_t n_identities;
    struct pki_identity identity[PKI_IDENTITY_MAX];
    size_t n_revoked;
    long revoked[PKI_REVOKED_MAX];
};

enum pki_kind { PKI_GOOD, PKI_STRANGER, PKI_EXPIRED, PKI_FOR_SERVERS };

/* Writes ca.crt, server.crt, server.key (mode 0600) and ca.crl. */
struct pki *pki_new(void);
/* Removes the folder. */
void pki_free(struct pki *p);
/* dir/name, in a buffer that the next call but three uses again. */
const char *pki_path(const struct pki *p, const char *name);
const struct pki_identity *pki_client(struct pki *p, enum pki_kind kind);
/* A new certificate and key of the server, in place of the old. */
void pki_renew_server(struct pki *p);
void pki_revoke(struct pki *p, const struct pki_identity *who);
/* The CRL anew, good for so many seconds; negative: it has expired. */
void pki_write_crl(struct pki *p, long good_for_s);
/* One more in the same file, by this CA; PKI_NO_END: it says no end. */
#define PKI_NO_END 0L
void pki_add_crl(struct pki *p, const struct pki_identity *ca, long good_for_s);
/* Any text as a file of the folder. */
void pki_write(const struct pki *p, const char *name, const char *text);

#endif
