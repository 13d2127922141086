/*
 * What every end of TLS in the server has in common, the HTTPS front and its clients: what a
 * connection may be, and certificates, CRLs and keys from PEM.
 *
 * Thread rule: from any thread; a context by one thread at a time.
 */
#ifndef TEKD_PEM_H
#define TEKD_PEM_H

#include <openssl/ssl.h>

#define PEM_CHAIN_MAX 6 /* certificates of a chain, the peer's and the CA's not counted */

/*
 * What a context may be used for: TLS 1.2 and 1.3 with forward secrecy, certificates verified, no
 * resumption (a resumed session would skip the checks), no renegotiation, no keys logged.
 */
void pem_set_rules(SSL_CTX *ctx);

/* All certificates of a PEM text, at least one; NULL if it holds none or something else that is
 * broken.  bio may be NULL. */
STACK_OF(X509) * pem_read_certs(BIO *bio);
/* The same with CRLs. */
STACK_OF(X509_CRL) * pem_read_crls(BIO *bio);
/* A private key from a file that only its owner may read, without a passphrase.  Errors, said in
 * the log: TEKD_EINVAL, TEKD_EDENIED (others may read it, or we may not), TEKD_ENOMEM. */
int pem_read_key(const char *file, EVP_PKEY **ret_key);
/* Says in the log, with OpenSSL's last error, that something is wrong with a file; TEKD_EINVAL. */
int pem_fail(const char *event, const char *file);
/* A store of the certificates in a file, or (NULL) those that the system trusts.  Errors, said in
 * the log: TEKD_EINVAL, TEKD_ENOMEM. */
int pem_read_store(const char *file, X509_STORE **ret_store);

#endif
