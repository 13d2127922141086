/*
 * What the HTTPS clients of the server have in common: how libcurl is set up, what a connection may
 * be, certificates and keys from PEM, reasons in words; and a client for who has a thread to wait
 * with and asks once in a while.
 *
 * Thread rule: from any thread; a handle or context by one thread at a time.
 */
#ifndef TEKD_HTTPS_H
#define TEKD_HTTPS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/buf.h"

/* ---- transport.c: libcurl -------------------------------------------------------------------- */

/*
 * The options that every transfer has.  Off are: redirects, proxies and the variables that name
 * them, cookies, .netrc, names and passwords in URLs, every protocol but HTTPS, HTTP/2,
 * compression, curl's own CAs, sessions and signals.  The handle is a CURL.  Errors: TEKD_EINVAL.
 */
int transport_set(void *easy, const char *url);
/* Has a handle take http:// as well. */
int transport_allow_http(void *easy);

/*
 * Why a transfer ended with this CURLcode, in words.  text: what CURLOPT_ERRORBUFFER holds.  Cut
 * where out ends.
 */
void transport_explain(void *easy, int curl_code, const char *text, char *out, size_t size);

/* Why a certificate was not accepted (X509_V_*), in words; static. */
const char *transport_why_not(long verify_error);

/* ---- pem.c: contexts, and what they are made of ---------------------------------------------- */

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
/* A store of the certificates in a file, or (NULL) those that the system trusts.  Errors, said in
 * the log: TEKD_EINVAL, TEKD_ENOMEM. */
int pem_read_store(const char *file, X509_STORE **ret_store);

/* ---- https.c: a client that waits ------------------------------------------------------------ */

#define HTTPS_ATTEMPT_US  INT64_C(20000000) /* one request, connection and answer included */
#define HTTPS_ANSWER_MAX  65536             /* octets of an answer that are read ... */
#define HTTPS_HEADERS_MAX 16384             /* ... and of its header */
#define HTTPS_WHY_MAX     256

struct https;

/* Strings are copied.  The files are read for each request: who replaces them need not say so. */
struct https_options {
    const char *url;
    bool allow_http;         /* the answer is signed, so http:// will do as well */
    const char *ca;          /* PEM: who may have signed the server's certificate; NULL: system's */
    const char *certificate; /* PEM chain: ours, where the server wants to know; NULL: none */
    const char *key;         /* PEM, of it */
};
/* Errors: TEKD_EINVAL (no such URL), TEKD_ENOMEM. */
int https_new(const struct https_options *o, struct https **ret_https);
void https_free(struct https *h);
AUTO_DEFINE(https)

struct https_answer {
    int status;
    char type[64];           /* Content-Type; printable */
    struct buf *body;        /* borrowed until the next request */
    char why[HTTPS_WHY_MAX]; /* without an answer: why, in words */
};
/*
 * POSTs to the URL with this path behind it ("" for none) and waits for the answer.
 * Errors: TEKD_EIO (no answer, or not a whole one: why), TEKD_ECLOSED (https_stop()).
 */
struct https_request {
    const char *path;
    const char *type; /* Content-Type */
    const void *body;
    size_t len;
};
int https_post(struct https *h, const struct https_request *r, struct https_answer *ret_answer);
/* From any thread: what is under way ends, and nothing more begins. */
void https_stop(struct https *h);

#endif
