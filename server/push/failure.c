/*
 * What a transfer came to: the HTTP answer, or in words for people why there is none.
 */
#include "internal.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/https.h"

/* ---- why not --------------------------------------------------------------------------------- */

/* An alert is the server's no to what we are; with TLS 1.3 it comes behind the handshake. */
static bool is_alert(const struct transfer *t)
{
    return strstr(t->text, "alert") != NULL;
}

/*
 * The connection was there, and then it was not.  A server that does not take our certificate may
 * reset the connection before its alert is read; it looks like any other cut then, but one right
 * behind the handshake has mostly that reason.
 */
static void cut(const struct transfer *t, CURLcode code, char *out, size_t size)
{
    long connections = 0;
    char text[120];

    (void)curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connections);
    enc_printable(t->text, text, sizeof(text));
    if (is_alert(t))
        (void)snprintf(out, size, "our certificate was refused: %s", text);
    else
        (void)snprintf(
            out, size, "connection cut %s%s: %s",
            code == CURLE_SSL_CONNECT_ERROR ? "in the TLS handshake" : "before an answer",
            t->requested && connections > 0 ? " (our certificate may be refused)" : "", text);
}

static void too_long(const struct transfer *t, char *out, size_t size)
{
    bool is_header = t->header_octets > TRANSFER_HEADERS_MAX;

    (void)snprintf(out, size, "%s longer than %d octets",
                   is_header ? "header of the answer" : "answer",
                   is_header ? TRANSFER_HEADERS_MAX : PUSH_ANSWER_MAX);
}

/* How far it got by its time-out. */
static void timed_out(const struct transfer *t, char *out, size_t size)
{
    (void)snprintf(out, size, "time-out %s",
                   t->requested ? "waiting for the answer"
                   : t->conn    ? "in the TLS handshake"
                                : "connecting");
}

static void explain(const struct transfer *t, CURLcode code, char *out, size_t size)
{
    const char *why = t->conn ? tls_why(t->conn) : NULL;

    if (t->conn && t->conn->sign_failed)
        why = "the HSM did not sign the TLS handshake";
    if (code == CURLE_OPERATION_TIMEDOUT)
        timed_out(t, out, size);
    else if (code == CURLE_WRITE_ERROR || code == CURLE_FILESIZE_EXCEEDED)
        too_long(t, out, size);
    else if (why && code != CURLE_COULDNT_CONNECT)
        (void)snprintf(out, size, "%s", why);
    else if (code == CURLE_SSL_CONNECT_ERROR || code == CURLE_RECV_ERROR ||
             code == CURLE_SEND_ERROR)
        cut(t, code, out, size);
    else
        transport_explain(t->easy, (int)code, t->text, out, size);
}

/* ---- the outcome ----------------------------------------------------------------------------- */

static void note_peer(const struct transfer *t, struct outcome *o)
{
    const char *ip = NULL;
    long port = 0;

    (void)curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_IP, &ip);
    (void)curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_PORT, &port);
    if (ip)
        (void)snprintf(o->addr, sizeof(o->addr), strchr(ip, ':') ? "[%s]:%ld" : "%s:%ld", ip, port);
    if (t->conn)
        memcpy(o->cert, t->conn->cert, sizeof(o->cert));
}

void failure_outcome(const struct transfer *t, int curl_code, struct outcome *o)
{
    CURLcode code = (CURLcode)curl_code;
    const char *type = NULL;
    long status = 0;

    (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
    note_peer(t, o);
    if (code != CURLE_OK)
        explain(t, code, o->why, sizeof(o->why));
    o->answered = status >= 200 && code != CURLE_OPERATION_TIMEDOUT;
    o->status = code == CURLE_OK ? (int)status : 0;
    (void)snprintf(o->media, sizeof(o->media), "%s", type ? type : "");
    o->body = t->body;
}
