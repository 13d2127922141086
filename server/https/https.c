/*
 * One request at a time, by libcurl's multi interface: it can be woken, so a stop does not wait for
 * somebody who hangs.  The time-out is ours, by the clock that everything goes by.  A connection
 * serves one request: the next one is a minute away, and sees certificates and files anew.
 */
#include "tekd/https.h"

#include <curl/curl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/pem.h"

#define URL_OCTETS    2048
#define POLL_MS       200    /* the clock is read again at least so often */
#define CURL_AFTER_MS 600000 /* curl's own time-outs, behind ours */

struct https {
    char *url, *ca, *certificate, *key;
    bool allow_http;
    bool global; /* libcurl was told that it is used */
    CURLM *multi;
    struct buf *body;
    _Atomic bool stopped;
};

/* One request under way. */
struct post {
    struct https *h;
    CURL *easy;
    struct curl_slist *headers;
    size_t header_octets;
    bool bad_files; /* ours, said in the log */
    char text[CURL_ERROR_SIZE];
};

/* ---- life ------------------------------------------------------------------------------------ */

static int dup_if(const char *s, char **ret)
{
    if (s)
        *ret = strdup(s);
    return s && !*ret ? TEKD_ENOMEM : 0;
}

static int copy_options(struct https *h, const struct https_options *o)
{
    int r = dup_if(o->url, &h->url);

    if (r == 0)
        r = dup_if(o->ca, &h->ca);
    if (r == 0)
        r = dup_if(o->certificate, &h->certificate);
    if (r == 0)
        r = dup_if(o->key, &h->key);
    h->allow_http = o->allow_http;
    return r;
}

static bool is_url(const char *url, bool allow_http)
{
    return strlen(url) < URL_OCTETS - 256 &&
           (strncmp(url, "https://", 8) == 0 || (allow_http && strncmp(url, "http://", 7) == 0));
}

int https_new(const struct https_options *o, struct https **ret_https)
{
    AUTO(https) struct https *h = calloc(1, sizeof(*h));
    int r;

    if (!h)
        return TEKD_ENOMEM;
    if (!is_url(o->url, o->allow_http))
        return TEKD_EINVAL;
    r = copy_options(h, o);
    if (r == 0)
        r = buf_new(HTTPS_ANSWER_MAX, &h->body);
    if (r < 0)
        return r;
    h->global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    h->multi = h->global ? curl_multi_init() : NULL;
    if (!h->multi)
        return TEKD_ENOMEM;
    *ret_https = TAKE(h);
    return 0;
}

void https_free(struct https *h)
{
    if (!h)
        return;
    (void)curl_multi_cleanup(h->multi);
    if (h->global)
        curl_global_cleanup();
    buf_free(h->body);
    free(h->url);
    free(h->ca);
    free(h->certificate);
    free(h->key);
    free(h);
}

void https_stop(struct https *h)
{
    atomic_store(&h->stopped, true);
    (void)curl_multi_wakeup(h->multi);
}

/* ---- what curl calls ------------------------------------------------------------------------- */

/* Fewer octets taken than given makes curl stop with CURLE_WRITE_ERROR. */
static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    const struct post *p = arg;

    return buf_append(p->h->body, data, size * n) < 0 ? 0 : size * n;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct post *p = arg;

    (void)line;
    p->header_octets += size * n;
    return p->header_octets > HTTPS_HEADERS_MAX ? 0 : size * n;
}

static int use_certificate(SSL_CTX *ctx, const struct https *h)
{
    EVP_PKEY *key = NULL;
    int r;

    if (SSL_CTX_use_certificate_chain_file(ctx, h->certificate) != 1)
        return pem_fail("certificate-not-read", h->certificate);
    r = pem_read_key(h->key, &key);
    if (r == 0 && SSL_CTX_use_PrivateKey(ctx, key) != 1)
        r = pem_fail("key-does-not-fit-certificate", h->key);
    EVP_PKEY_free(key);
    return r;
}

static CURLcode on_ssl_ctx(CURL *easy, void *ssl_ctx, void *arg)
{
    struct post *p = arg;
    X509_STORE *store = NULL;
    int r = pem_read_store(p->h->ca, &store);

    (void)easy;
    pem_set_rules(ssl_ctx);
    if (r == 0)
        SSL_CTX_set_cert_store(ssl_ctx, store); /* takes it */
    if (r == 0 && p->h->certificate)
        r = use_certificate(ssl_ctx, p->h);
    p->bad_files = r < 0;
    return r == 0 ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

/* ---- setting up ------------------------------------------------------------------------------ */

#define SET(option, value) (e = e == CURLE_OK ? curl_easy_setopt(p->easy, option, value) : e)

static int set_request(struct post *p, const struct https_request *r)
{
    CURLcode e = CURLE_OK;

    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDS, r->body);
    SET(CURLOPT_POSTFIELDSIZE, (long)r->len);
    SET(CURLOPT_HTTPHEADER, p->headers);
    SET(CURLOPT_USERAGENT, "tekd");
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(HTTPS_ATTEMPT_US / 1000) + CURL_AFTER_MS);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_MAXFILESIZE, (long)HTTPS_ANSWER_MAX);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, p);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, p);
    SET(CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
    SET(CURLOPT_SSL_CTX_DATA, p);
    SET(CURLOPT_ERRORBUFFER, p->text);
    return e == CURLE_OK ? 0 : TEKD_EINVAL;
}

#undef SET

/* No "Expect: 100-continue": the body is smaller than the question. */
static int make_headers(struct post *p, const char *type)
{
    char line[128];
    struct curl_slist *longer;

    (void)snprintf(line, sizeof(line), "Content-Type: %s", type);
    p->headers = curl_slist_append(NULL, line);
    longer = p->headers ? curl_slist_append(p->headers, "Expect:") : NULL;
    return longer ? 0 : TEKD_ENOMEM;
}

static int set_up(struct post *p, const struct https_request *r)
{
    char url[URL_OCTETS];
    int n = snprintf(url, sizeof(url), "%s%s", p->h->url, r->path);

    p->easy = curl_easy_init();
    if (!p->easy || make_headers(p, r->type) < 0)
        return TEKD_ENOMEM;
    if (n < 0 || (size_t)n >= sizeof(url) || transport_set(p->easy, url) < 0 ||
        (p->h->allow_http && transport_allow_http(p->easy) < 0))
        return TEKD_EINVAL;
    return set_request(p, r);
}

/* ---- the transfer ---------------------------------------------------------------------------- */

/* Whether it has ended, and how. */
static bool has_ended(CURLM *multi, CURLcode *ret_code)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(multi, &left))) {
        if (msg->msg == CURLMSG_DONE) {
            *ret_code = msg->data.result;
            return true;
        }
    }
    return false;
}

static CURLcode transfer(struct post *p)
{
    int64_t until_us = clock_mono_us() + HTTPS_ATTEMPT_US;
    CURLcode code = CURLE_FAILED_INIT;
    int running;

    if (curl_multi_add_handle(p->h->multi, p->easy) != CURLM_OK)
        return code;
    for (;;) {
        (void)curl_multi_perform(p->h->multi, &running);
        if (has_ended(p->h->multi, &code))
            break;
        if (atomic_load(&p->h->stopped) || clock_mono_us() >= until_us) {
            code = CURLE_OPERATION_TIMEDOUT;
            break;
        }
        (void)curl_multi_poll(p->h->multi, NULL, 0, POLL_MS, NULL);
    }
    (void)curl_multi_remove_handle(p->h->multi, p->easy);
    return code;
}

static void explain(const struct post *p, CURLcode code, char *out, size_t size)
{
    long verify = 0;

    (void)curl_easy_getinfo(p->easy, CURLINFO_SSL_VERIFYRESULT, &verify);
    if (code == CURLE_WRITE_ERROR || code == CURLE_FILESIZE_EXCEEDED)
        (void)snprintf(out, size, "%s longer than %d octets",
                       p->header_octets > HTTPS_HEADERS_MAX ? "header of the answer" : "answer",
                       p->header_octets > HTTPS_HEADERS_MAX ? HTTPS_HEADERS_MAX : HTTPS_ANSWER_MAX);
    else if (code == CURLE_OPERATION_TIMEDOUT)
        (void)snprintf(out, size, "no answer within %d s", (int)(HTTPS_ATTEMPT_US / 1000000));
    else if (p->bad_files)
        (void)snprintf(out, size, "our CA, certificate or key cannot be read: see the log");
    else if (verify != X509_V_OK && verify != X509_V_ERR_UNSPECIFIED && /* curl's for "not yet" */
             code == CURLE_PEER_FAILED_VERIFICATION)
        (void)snprintf(out, size, "%s", transport_why_not(verify));
    else
        transport_explain(p->easy, (int)code, p->text, out, size);
}

static void read_answer(const struct post *p, struct https_answer *a)
{
    const char *type = NULL;
    long status = 0;

    (void)curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(p->easy, CURLINFO_CONTENT_TYPE, &type);
    a->status = (int)status;
    enc_printable(type ? type : "", a->type, sizeof(a->type));
    a->body = p->h->body;
}

static void clear(struct post *p)
{
    curl_easy_cleanup(p->easy);
    curl_slist_free_all(p->headers);
}

int https_post(struct https *h, const struct https_request *r, struct https_answer *ret_answer)
{
    struct post p = {.h = h};
    CURLcode code;
    int error = set_up(&p, r);

    *ret_answer = (struct https_answer){.status = 0};
    buf_reset(h->body);
    if (error < 0) {
        (void)snprintf(ret_answer->why, HTTPS_WHY_MAX, "%s", tekd_strerror(error));
        clear(&p);
        return TEKD_EIO;
    }
    code = transfer(&p);
    if (code == CURLE_OK)
        read_answer(&p, ret_answer);
    else
        explain(&p, code, ret_answer->why, HTTPS_WHY_MAX);
    clear(&p);
    if (atomic_load(&h->stopped))
        return TEKD_ECLOSED;
    return code == CURLE_OK ? 0 : TEKD_EIO;
}
