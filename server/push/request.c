/*
 * One request as libcurl takes it, and what libcurl asks of us on the way.
 *
 * A connection that is kept open is used again by whatever transfer has the same host and port.
 * So, before each request, its target is compared: a connection that was made for another BSA, or
 * before files or enrolment changed, or whose certificate has expired since, is shut and the
 * transfer begins again with a new one.
 */
#include "internal.h"

#include <curl/curl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/https.h"

_Static_assert(sizeof(((struct transfer *)0)->text) >= CURL_ERROR_SIZE, "its text fits");

#define CURL_AFTER_MS 600000 /* curl's own time-outs, behind ours */

/* ---- what curl calls ------------------------------------------------------------------------- */

/* Fewer octets taken than given makes curl stop with CURLE_WRITE_ERROR. */
static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;

    return buf_append(t->body, data, size * n) < 0 ? 0 : size * n;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;

    (void)line;
    t->header_octets += size * n;
    return t->header_octets > TRANSFER_HEADERS_MAX ? 0 : size * n;
}

static CURLcode on_ssl_ctx(CURL *easy, void *ssl_ctx, void *arg)
{
    struct transfer *t = arg;
    struct conn *c = NULL;

    (void)easy;
    if (conn_new(t->target, t->until_us, &c) < 0)
        return CURLE_OUT_OF_MEMORY;
    conn_unref(t->conn);
    t->conn = c;
    return tls_set_up(ssl_ctx, c) == 0 ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

/* The connection under a transfer, or NULL. */
static struct conn *conn_of(CURL *easy, SSL **ret_ssl)
{
    struct curl_tlssessioninfo *info = NULL;

    if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &info) != CURLE_OK || !info ||
        info->backend != CURLSSLBACKEND_OPENSSL || !info->internals)
        return NULL;
    *ret_ssl = info->internals;
    return tls_conn(*ret_ssl);
}

/* Curl would keep it for others; so it finds it dead. */
static void shut(CURL *easy)
{
    curl_socket_t fd = CURL_SOCKET_BAD;

    if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK && fd != CURL_SOCKET_BAD)
        (void)shutdown(fd, SHUT_RDWR);
}

/* The last gate before a request is written, on connections new and old. */
static int on_request(void *arg, char *there, char *here, int port_there, int port_here)
{
    struct transfer *t = arg;
    SSL *ssl = NULL;
    struct conn *c = conn_of(t->easy, &ssl);

    (void)there;
    (void)here;
    (void)port_there;
    (void)port_here;
    if (!c || !c->is_enrolled || c->target != t->target || !tls_is_good(ssl)) {
        t->stale = true;
        shut(t->easy);
        return CURL_PREREQFUNC_ABORT;
    }
    tls_settle(ssl);
    (void)conn_ref(c);
    conn_unref(t->conn);
    t->conn = c;
    t->requested = true;
    return CURL_PREREQFUNC_OK;
}

/* ---- setting up ------------------------------------------------------------------------------ */

#define SET(option, value) (e = e == CURLE_OK ? curl_easy_setopt(t->easy, option, value) : e)

static CURLcode set_connection(struct transfer *t)
{
    const long connect_ms = (long)(t->push->attempt_us / 1000) + CURL_AFTER_MS;
    CURLcode e = CURLE_OK;

    SET(CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    SET(CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
    SET(CURLOPT_SSL_CTX_DATA, t);
    SET(CURLOPT_PREREQFUNCTION, on_request);
    SET(CURLOPT_PREREQDATA, t);
    return e;
}

static CURLcode set_message(struct transfer *t)
{
    CURLcode e = CURLE_OK;

    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDS, buf_str(t->attempt->message));
    SET(CURLOPT_POSTFIELDSIZE, (long)buf_len(t->attempt->message));
    SET(CURLOPT_HTTPHEADER, t->headers);
    SET(CURLOPT_USERAGENT, "tekd");
    SET(CURLOPT_MAXFILESIZE, (long)PUSH_ANSWER_MAX);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_ERRORBUFFER, t->text);
    SET(CURLOPT_PRIVATE, t);
    return e;
}

#undef SET

/* No "Expect: 100-continue": the message is smaller than the question. */
static struct curl_slist *make_headers(enum cp3_media media)
{
    char line[128];
    struct curl_slist *list, *longer;

    (void)snprintf(line, sizeof(line), "Content-Type: %s", cp3_media_content_type(media));
    list = curl_slist_append(NULL, line);
    longer = list ? curl_slist_append(list, "Expect:") : NULL;
    if (!longer)
        curl_slist_free_all(list);
    return longer;
}

int request_set_up(struct transfer *t)
{
    int r = buf_new(PUSH_ANSWER_MAX, &t->body);

    t->headers = make_headers(t->attempt->media);
    t->easy = curl_easy_init();
    if (r < 0 || !t->headers || !t->easy)
        return TEKD_ENOMEM;
    return transport_set(t->easy, t->attempt->url) == 0 && set_connection(t) == CURLE_OK &&
                   set_message(t) == CURLE_OK
               ? 0
               : TEKD_EINVAL;
}

/* ---- addresses ------------------------------------------------------------------------------- */

static void write_addr(CURLU *u, char out[static PUSH_ADDR_MAX])
{
    char *host = NULL, *port = NULL;

    if (curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
        char clean[STORE_ID_MAX + 1];
        enc_printable(host, clean, sizeof(clean));
        (void)snprintf(out, PUSH_ADDR_MAX, "%s:%.5s", clean, port);
    }
    curl_free(host);
    curl_free(port);
}

void request_addr(const char *url, char out[static PUSH_ADDR_MAX])
{
    CURLU *u = curl_url();

    out[0] = '\0';
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
        write_addr(u, out);
    curl_url_cleanup(u);
}
