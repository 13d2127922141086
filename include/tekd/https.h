/*
 * What the HTTPS clients of the server have in common: how libcurl is set up, what a connection may
 * be, certificates and keys from PEM, reasons in words.
 *
 * Thread rule: from any thread; a handle or context by one thread at a time.
 */
#ifndef TEKD_HTTPS_H
#define TEKD_HTTPS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

/* ---- transport.c: libcurl ---------------------------------------------------------------------
 */

/*
 * The options that every transfer has.  Off are: redirects, proxies and the variables that name
 * them, cookies, .netrc, names and passwords in URLs, every protocol but HTTPS, HTTP/2,
 * compression, curl's own CAs, sessions and signals.  The handle is a CURL.  Errors: TEKD_EINVAL.
 */
int transport_set(void *easy, const char *url);

/*
 * Why a transfer ended with this CURLcode, in words.  text: what CURLOPT_ERRORBUFFER holds.  Cut
 * where out ends.
 */
void transport_explain(void *easy, int curl_code, const char *text, char *out, size_t size);

/* Why a certificate was not accepted (X509_V_*), in words; static. */
const char *transport_why_not(long verify_error);

/* ---- pem.c: contexts, and what they are made of -----------------------------------------------
 */

#define PEM_CHAIN_MAX 6 /* certificates of a chain, as of the HTTPS server */

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
 * the log: TEKD_EINVAL, TEKD_ENOMEM. */
int pem_read_key(const char *file, EVP_PKEY **ret_key);
/* Says in the log, with OpenSSL's last error, that something is wrong with a file; TEKD_EINVAL. */
int pem_fail(const char *event, const char *file);

#endif
