#include <curl/curl.h>
#include <errno.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>

#include "tekd/auto.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/https.h"

/* ---- setting up ------------------------------------------------------------------------------ */

#define SET(option, value) (e = e == CURLE_OK ? curl_easy_setopt(easy, option, value) : e)

int transport_set(void *easy, const char *url)
{
    CURLcode e = CURLE_OK;

    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_NOSIGNAL, 1L);
    /* Connections are kept, not addresses: curl goes through all of those after each transfer. */
    SET(CURLOPT_DNS_CACHE_TIMEOUT, 0L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* a name server that hangs is not waited for */
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2); /* at least */
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CAINFO, NULL); /* the context gets the CAs that count */
    SET(CURLOPT_CAPATH, NULL);
    SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
    SET(CURLOPT_SSL_ENABLE_ALPN, 0L);
    return e == CURLE_OK ? 0 : TEKD_EINVAL;
}

int transport_allow_http(void *easy)
{
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK ? 0
                                                                                   : TEKD_EINVAL;
}

#undef SET

/* ---- why not --------------------------------------------------------------------------------- */

/* In words; NULL: curl's own. */
static const struct {
    CURLcode code;
    const char *why;
} failures[] = {
    {CURLE_COULDNT_RESOLVE_HOST, "host name not found"},
    {CURLE_URL_MALFORMAT, "the URL cannot be used"},
    {CURLE_UNSUPPORTED_PROTOCOL, "not an HTTPS URL, or not an HTTP answer"},
    {CURLE_LOGIN_DENIED, "a user name in the URL"},
    {CURLE_PEER_FAILED_VERIFICATION, "TLS name mismatch"}, /* the rest is in the connection */
    {CURLE_OPERATION_TIMEDOUT, "time-out"},
    {CURLE_GOT_NOTHING, "connection closed without an answer"},
    {CURLE_PARTIAL_FILE, "answer cut short"},
    {CURLE_WEIRD_SERVER_REPLY, "not an HTTP answer"},
    {CURLE_SSL_CERTPROBLEM, "our certificate or key cannot be used"},
    {CURLE_SSL_CLIENTCERT, "our certificate was refused"},
    /* Its code for a line that passes curl's own limit, too. */
    {CURLE_OUT_OF_MEMORY, "a header line without end, or out of memory"},
};

static void not_connected(CURL *easy, char *out, size_t size)
{
    long error = 0;

    (void)curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &error);
    if (error == ECONNREFUSED)
        (void)snprintf(out, size, "refused");
    else
        (void)snprintf(out, size, "not reachable: %s",
                       error ? strerrordesc_np((int)error) : "no connection");
}

void transport_explain(void *easy, int curl_code, const char *text, char *out, size_t size)
{
    const char *why = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(failures) && !why; i++)
        why = (int)failures[i].code == curl_code ? failures[i].why : NULL;
    if (curl_code == CURLE_COULDNT_CONNECT)
        not_connected(easy, out, size);
    else if (why)
        (void)snprintf(out, size, "%s", why);
    else
        enc_printable(text[0] ? text : curl_easy_strerror((CURLcode)curl_code), out, size);
}

const char *transport_why_not(long verify_error)
{
    static const struct {
        int error;
        const char *why;
    } table[] = {
        {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, "unknown CA"},
        {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, "unknown CA"},
        {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, "unknown CA"},
        {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, "unknown CA"},
        {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, "unknown CA"},
        {X509_V_ERR_CERT_SIGNATURE_FAILURE, "unknown CA"},
        {X509_V_ERR_CERT_REVOKED, "certificate revoked"},
        {X509_V_ERR_CRL_HAS_EXPIRED, "CRL expired"},
        {X509_V_ERR_CRL_NOT_YET_VALID, "CRL not yet valid"},
        {X509_V_ERR_UNABLE_TO_GET_CRL, "no CRL of its CA"},
        {X509_V_ERR_CERT_HAS_EXPIRED, "certificate expired"},
        {X509_V_ERR_CERT_NOT_YET_VALID, "certificate not yet valid"},
        {X509_V_ERR_INVALID_PURPOSE, "certificate is not one of a server"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (table[i].error == verify_error)
            return table[i].why;
    }
    return "certificate refused";
}
