/* One POST or GET by libcurl, with everything off that a BSA does not want. */
#include "bsa.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "tekd/err.h"

static void curl_freep(CURL **curl)
{
    curl_easy_cleanup(*curl);
}

static void slist_freep(struct curl_slist **list)
{
    curl_slist_free_all(*list);
}

/* Fewer octets taken than given makes libcurl stop with CURLE_WRITE_ERROR. */
static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    return buf_append(arg, data, size * n) < 0 ? 0 : size * n;
}

/* libcurl comes here once a second at least; other than 0 makes it stop. */
static int look_for_stop(void *stop, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                         curl_off_t ul)
{
    (void)dl_total;
    (void)dl;
    (void)ul_total;
    (void)ul;
    return stop_wait(stop, 0) ? 1 : 0;
}

static size_t take_header(char *line, size_t size, size_t n, void *arg)
{
    static const char name[] = "CP3-Reason:";
    struct https_answer *answer = arg;
    size_t len = size * n, skip = sizeof(name) - 1;

    if (len > skip && strncasecmp(line, name, skip) == 0) {
        while (skip < len && line[skip] == ' ')
            skip++;
        while (len > skip && strchr("\r\n ", line[len - 1]) != NULL)
            len--;
        (void)snprintf(answer->reason, sizeof(answer->reason), "%.*s", (int)(len - skip),
                       line + skip);
    }
    return size * n;
}

/* By what the caller can do; all others are TEKD_EIO: not reachable. */
static const struct {
    CURLcode code;
    int error;
} codes[] = {
    {CURLE_OK, 0},
    {CURLE_OUT_OF_MEMORY, TEKD_ENOMEM},
    {CURLE_WRITE_ERROR, TEKD_ETOOBIG}, /* take_body() had no room */
    {CURLE_PEER_FAILED_VERIFICATION, TEKD_EDENIED},
    {CURLE_SSL_ISSUER_ERROR, TEKD_EDENIED},
    {CURLE_SSL_CERTPROBLEM, TEKD_EINVAL},
    {CURLE_SSL_CACERT_BADFILE, TEKD_EINVAL},
    {CURLE_URL_MALFORMAT, TEKD_EINVAL},
    {CURLE_UNSUPPORTED_PROTOCOL, TEKD_EINVAL},
    {CURLE_ABORTED_BY_CALLBACK, TEKD_ECLOSED},
};

/*
 * A TLS alert is the server's no to our certificate; with TLS 1.3 it comes after the handshake, and
 * libcurl has no code of its own for it.  Texts of other codes name the host, and what that is
 * called says nothing.
 */
static bool is_alert(CURLcode code, const char *text)
{
    return (code == CURLE_SSL_CONNECT_ERROR || code == CURLE_SEND_ERROR ||
            code == CURLE_RECV_ERROR) &&
           strstr(text, " alert ") != NULL;
}

static int error_of(CURLcode code, const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
        if (codes[i].code == code)
            return codes[i].error;
    return is_alert(code, text) ? TEKD_EDENIED : TEKD_EIO;
}

/*
 * A server may also reset the connection before its alert is read.  It looks like any other cut
 * then, but one right behind the handshake has mostly that reason.
 */
static bool cut_behind_handshake(CURL *curl, CURLcode code, const char *text)
{
    curl_off_t handshake_us = 0;
    long status = 0;

    if (code != CURLE_SEND_ERROR && code != CURLE_RECV_ERROR)
        return false;
    (void)curl_easy_getinfo(curl, CURLINFO_APPCONNECT_TIME_T, &handshake_us);
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return handshake_us > 0 && status == 0 && !is_alert(code, text);
}

static void explain(CURL *curl, CURLcode code, const char *text, char ret_why[static HTTPS_WHY_MAX])
{
    if (code == CURLE_WRITE_ERROR)
        (void)snprintf(ret_why, HTTPS_WHY_MAX, "an answer longer than %d octets", HTTPS_BODY_MAX);
    else if (cut_behind_handshake(curl, code, text))
        (void)snprintf(ret_why, HTTPS_WHY_MAX,
                       "%s, behind the TLS handshake: the server may not take our certificate",
                       curl_easy_strerror(code));
    else
        (void)snprintf(ret_why, HTTPS_WHY_MAX, "%s%s",
                       *text != '\0' ? text : curl_easy_strerror(code),
                       code == CURLE_SSL_CERTPROBLEM
                           ? "; --cert and --key are PEM, of one key, without a passphrase"
                           : "");
}

#define SET(option, value) (e = e == CURLE_OK ? curl_easy_setopt(curl, option, value) : e)

static CURLcode set_tls(CURL *curl, const struct https_request *q)
{
    CURLcode e = CURLE_OK;

    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2); /* at least */
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CAINFO, q->ca);
    SET(CURLOPT_CAPATH, NULL); /* or the system's CAs would be trusted besides ours */
    SET(CURLOPT_SSLCERT, q->cert);
    SET(CURLOPT_SSLKEY, q->key);
    SET(CURLOPT_KEYPASSWD, ""); /* or OpenSSL would ask for one at the terminal, and wait */
    SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
    SET(CURLOPT_SSL_ENABLE_ALPN, 0L);
    return e;
}

static CURLcode set_transport(CURL *curl, const struct https_request *q)
{
    CURLcode e = CURLE_OK;

    SET(CURLOPT_URL, q->url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, ""); /* http_proxy and its kin are ignored */
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_TIMEOUT, (long)q->timeout_s);
    SET(CURLOPT_NOSIGNAL, 1L);
    return e;
}

static CURLcode set_message(CURL *curl, const struct https_request *q,
                            const struct curl_slist *headers, struct https_answer *answer)
{
    CURLcode e = CURLE_OK;

    if (q->body != NULL) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, q->body);
        SET(CURLOPT_POSTFIELDSIZE, (long)q->body_len);
    }
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, answer->body);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, answer);
    return e;
}

static CURLcode set_stop(CURL *curl, const struct https_request *q)
{
    CURLcode e = CURLE_OK;

    if (q->stop != NULL) {
        SET(CURLOPT_NOPROGRESS, 0L);
        SET(CURLOPT_XFERINFOFUNCTION, look_for_stop);
        SET(CURLOPT_XFERINFODATA, q->stop);
    }
    return e;
}

static CURLcode perform(CURL *curl, struct https_answer *answer)
{
    const char *type = NULL;
    CURLcode e = curl_easy_perform(curl);

    if (e != CURLE_OK)
        return e;
    e = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
    if (e == CURLE_OK)
        e = curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
    (void)snprintf(answer->content_type, sizeof(answer->content_type), "%s",
                   type != NULL ? type : "");
    return e;
}

/* No "Expect: 100-continue": the message is smaller than the question. */
static struct curl_slist *make_headers(const char *content_type)
{
    char line[HTTPS_TEXT_MAX];
    struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *longer;

    if (list == NULL || content_type == NULL)
        return list;
    (void)snprintf(line, sizeof(line), "Content-Type: %s", content_type);
    longer = curl_slist_append(list, line);
    if (longer == NULL)
        curl_slist_free_all(list);
    return longer;
}

static int exchange(const struct https_request *request, struct https_answer *ret_answer,
                    char ret_why[static HTTPS_WHY_MAX])
{
    __attribute__((cleanup(curl_freep))) CURL *curl = curl_easy_init();
    __attribute__((cleanup(slist_freep))) struct curl_slist *headers =
        make_headers(request->content_type);
    char text[CURL_ERROR_SIZE] = "";
    CURLcode e;

    ret_answer->reason[0] = '\0';
    if (curl == NULL || headers == NULL)
        return TEKD_ENOMEM;
    e = curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, text);
    if (e == CURLE_OK)
        e = set_transport(curl, request);
    if (e == CURLE_OK)
        e = set_tls(curl, request);
    if (e == CURLE_OK)
        e = set_message(curl, request, headers, ret_answer);
    if (e == CURLE_OK)
        e = set_stop(curl, request);
    if (e == CURLE_OK)
        e = perform(curl, ret_answer);
    explain(curl, e, text, ret_why);
    /* Before the options' owners go. */
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    return error_of(e, text);
}

int https_post(const struct https_request *request, struct https_answer *ret_answer,
               char ret_why[static HTTPS_WHY_MAX])
{
    assert(request->body != NULL);
    return exchange(request, ret_answer, ret_why);
}

int https_get(const struct https_request *request, struct https_answer *ret_answer,
              char ret_why[static HTTPS_WHY_MAX])
{
    assert(request->body == NULL);
    return exchange(request, ret_answer, ret_why);
}
