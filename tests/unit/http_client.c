#include "http_client.h"

#include <arpa/inet.h>
#include <assert.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void need(int ok)
{
    assert(ok);
    if (!ok)
        abort();
}

static int dial(uint16_t port)
{
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const struct timeval patience = {.tv_sec = CLIENT_PATIENCE_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    need(fd >= 0);
    need(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
    need(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == 0);
    if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static SSL_CTX *context(const struct pki *p, const struct pki_identity *me, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    need(ctx && X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), p->ca.cert));
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (me)
        need(SSL_CTX_use_certificate(ctx, me->cert) && SSL_CTX_use_PrivateKey(ctx, me->key));
    if (version && version < TLS1_2_VERSION)
        SSL_CTX_set_security_level(ctx, 0);
    if (version)
        need(SSL_CTX_set_min_proto_version(ctx, version) &&
             SSL_CTX_set_max_proto_version(ctx, version));
    return ctx;
}

/* The alert of the last error: what the server said before it closed. */
static void note_alert(struct client *c)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_REASON(e);

    if (ERR_GET_LIB(e) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET)
        c->alert = reason - SSL_AD_REASON_OFFSET;
    ERR_clear_error();
}

static struct client *start(uint16_t port, SSL_CTX *ctx, SSL_SESSION *session)
{
    struct client *c = calloc(1, sizeof(*c));

    need(c != NULL);
    *c = (struct client){.fd = dial(port), .ctx = ctx, .alert = -1};
    if (c->fd < 0) {
        SSL_CTX_free(ctx);
        free(c);
        return NULL;
    }
    c->ssl = SSL_new(ctx);
    need(c->ssl && SSL_set_fd(c->ssl, c->fd));
    if (session)
        need(SSL_set_session(c->ssl, session));
    ERR_clear_error();
    if (SSL_connect(c->ssl) != 1)
        note_alert(c);
    return c;
}

struct client *client_connect(uint16_t port, const struct pki *p, const struct pki_identity *me,
                              int version)
{
    return start(port, context(p, me, version), NULL);
}

struct client *client_resume(uint16_t port, const struct pki *p, const struct pki_identity *me,
                             SSL_SESSION *session)
{
    return start(port, context(p, me, 0), session);
}

void client_close(struct client *c)
{
    if (!c)
        return;
    if (SSL_is_init_finished(c->ssl))
        (void)SSL_shutdown(c->ssl);
    ERR_clear_error();
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    (void)close(c->fd);
    free(c);
}

void client_abort(struct client *c)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    need(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0);
    SSL_set_quiet_shutdown(c->ssl, 1);
    client_close(c);
}

bool client_send(struct client *c, const void *octets, size_t len)
{
    ERR_clear_error();
    if (SSL_write(c->ssl, octets, (int)len) == (int)len)
        return true;
    note_alert(c);
    return false;
}

static int read_some(struct client *c, char *to, size_t max)
{
    int n;

    ERR_clear_error();
    n = SSL_read(c->ssl, to, (int)max);
    if (n <= 0)
        note_alert(c);
    return n;
}

bool client_ended(struct client *c)
{
    char octet;

    return read_some(c, &octet, 1) <= 0;
}

/* Octet by octet to the empty line, so that nothing of the next answer is taken. */
static bool read_head(struct client *c, char *head, size_t max)
{
    size_t n = 0;

    while (n + 1 < max && read_some(c, head + n, 1) == 1) {
        n++;
        head[n] = '\0';
        if (n >= 4 && strcmp(head + n - 4, "\r\n\r\n") == 0)
            return true;
    }
    return false;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* LF in front of each, no CR, lower case up to the colon. */
static void tidy_headers(const char *head, char *to)
{
    bool in_name = true;

    for (; *head; head++) {
        in_name = (in_name || *head == '\n') && *head != ':';
        if (*head != '\r')
            *to++ = in_name ? lower(*head) : *head;
    }
    *to = '\0';
}

const char *answer_header(const struct answer *a, const char *name, char out[static 256])
{
    char start[80];
    const char *at;
    size_t len;

    (void)snprintf(start, sizeof(start), "\n%s: ", name);
    at = strstr(a->headers, start);
    if (!at)
        return NULL;
    at += strlen(start);
    len = strcspn(at, "\n");
    need(len < 256);
    memcpy(out, at, len);
    out[len] = '\0';
    return out;
}

bool client_read(struct client *c, struct answer *ret_answer)
{
    char head[CLIENT_HEADERS_MAX], value[256];
    size_t len;

    ret_answer->body_len = 0;
    if (!read_head(c, head, sizeof(head)) || strncmp(head, "HTTP/1.1 ", 9) != 0)
        return false;
    ret_answer->status = (int)strtol(head + 9, NULL, 10);
    tidy_headers(strchr(head, '\n'), ret_answer->headers);
    len = answer_header(ret_answer, "content-length", value) ? strtoul(value, NULL, 10) : 0;
    need(len < CLIENT_BODY_MAX);
    while (ret_answer->body_len < len) {
        int n = read_some(c, ret_answer->body + ret_answer->body_len, len - ret_answer->body_len);
        if (n <= 0)
            return false;
        ret_answer->body_len += (size_t)n;
    }
    ret_answer->body[len] = '\0';
    return true;
}

void client_text(struct client *c, const char *text)
{
    need(client_send(c, text, strlen(text)));
}

void client_request(struct client *c, const char *body)
{
    char text[4096];

    need(snprintf(text, sizeof(text),
                  "POST /cp3 HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\n"
                  "Content-Length: %zu\r\n\r\n%s",
                  strlen(body), body) < (int)sizeof(text));
    client_text(c, text);
}

bool client_post(struct client *c, const char *path, const char *body, struct answer *ret_answer)
{
    static const char form[] = "POST %s HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Type: application/xml\r\nContent-Length: %zu\r\n\r\n%s";
    int len = snprintf(NULL, 0, form, path, strlen(body), body);
    char *text = malloc((size_t)len + 1);
    bool sent;

    need(text != NULL);
    (void)snprintf(text, (size_t)len + 1, form, path, strlen(body), body);
    sent = client_send(c, text, (size_t)len);
    free(text);
    return sent && client_read(c, ret_answer);
}
