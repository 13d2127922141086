/*
 * What the HTTPS clients of the server have in common: how libcurl is set up, reasons in words; and
 * a client for who has a thread to wait with and asks once in a while.
 *
 * Thread rule: from any thread; a handle or context by one thread at a time.
 */
#ifndef TEKD_HTTPS_H
#define TEKD_HTTPS_H

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
