#include "conn.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "measure.h"

static void ctx_failed(const char *call, const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", call, what, ERR_reason_error_string(ERR_peek_last_error()));
    ERR_clear_error();
}

static int ctx_load(SSL_CTX *ctx, const char *ca, const char *cert, const char *key)
{
    if (SSL_CTX_load_verify_locations(ctx, ca, NULL) != 1) {
        ctx_failed("SSL_CTX_load_verify_locations", ca);
        return -1;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1) {
        ctx_failed("SSL_CTX_use_certificate_chain_file", cert);
        return -1;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
        ctx_failed("SSL_CTX_use_PrivateKey_file", key);
        return -1;
    }
    return 0;
}

SSL_CTX *conn_ctx_new(const char *ca, const char *cert, const char *key)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        ctx_failed("SSL_CTX_new", "TLS client");
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    /* One read(2) for header and payload of a TLS record instead of two. */
    SSL_CTX_set_read_ahead(ctx, 1);
    if (ctx_load(ctx, ca, cert, key) < 0) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

void conn_close(struct conn *c)
{
    /* Closing the socket also takes it out of the epoll set. */
    if (c->state == CONN_LOST)
        return;
    SSL_free(c->ssl);
    c->ssl = NULL;
    (void)close(c->fd);
    c->fd = -1;
    c->state = CONN_LOST;
}

static enum conn_event broken(struct conn *c, enum conn_why why, const char *text)
{
    (void)snprintf(c->text, sizeof(c->text), "%s", text);
    c->why = why;
    conn_close(c);
    return CONN_BROKEN;
}

static enum conn_event broken_errno(struct conn *c, enum conn_why why, const char *call)
{
    char text[sizeof(c->text)];

    (void)snprintf(text, sizeof(text), "%s: %s", call, strerrorname_np(errno));
    return broken(c, why, text);
}

static enum conn_event poll_for(struct conn *c, int epoll_fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = c};

    if (c->polled == events)
        return CONN_NOTHING;
    if (epoll_ctl(epoll_fd, c->polled == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c->fd, &ev) < 0)
        return broken_errno(c, CONN_WHY_CONNECT, "epoll_ctl");
    c->polled = events;
    return CONN_NOTHING;
}

/* What to do about an SSL_* call that did not go through. */
static enum conn_event tls_wait(struct conn *c, int epoll_fd, int r, const char *call)
{
    int error = SSL_get_error(c->ssl, r);
    const char *reason;
    char text[sizeof(c->text)];

    if (error == SSL_ERROR_WANT_READ)
        return poll_for(c, epoll_fd, EPOLLIN);
    if (error == SSL_ERROR_WANT_WRITE)
        return poll_for(c, epoll_fd, EPOLLIN | EPOLLOUT);
    reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    /* An answer that does not come is a closed connection; an alert says more. */
    if (error != SSL_ERROR_SSL || reason == NULL)
        reason = "connection closed";
    (void)snprintf(text, sizeof(text), "%s: %s", call, reason);
    return broken(c, error == SSL_ERROR_SSL ? CONN_WHY_TLS : CONN_WHY_CLOSED, text);
}

static int attach_tls(struct conn *c, SSL_CTX *ctx, const struct sockaddr_in *address)
{
    char ip[INET_ADDRSTRLEN];

    c->ssl = SSL_new(ctx);
    if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1 ||
        inet_ntop(AF_INET, &address->sin_addr, ip, sizeof(ip)) == NULL)
        return -1;
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->ssl), ip) != 1)
        return -1;
    SSL_set_connect_state(c->ssl);
    return 0;
}

enum conn_event conn_open(struct conn *c, int epoll_fd, SSL_CTX *ctx,
                          const struct sockaddr_in *address)
{
    const int on = 1;

    assert(c->state == CONN_LOST);
    c->polled = 0;
    c->in_len = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    c->state = CONN_CONNECTING;
    if (c->fd < 0)
        return broken_errno(c, CONN_WHY_CONNECT, "socket");
    if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        return broken_errno(c, CONN_WHY_CONNECT, "setsockopt");
    if (attach_tls(c, ctx, address) < 0)
        return broken(c, CONN_WHY_CONNECT, "SSL_new: failed");
    if (connect(c->fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
        errno != EINPROGRESS)
        return broken_errno(c, CONN_WHY_CONNECT, "connect");
    return poll_for(c, epoll_fd, EPOLLIN | EPOLLOUT);
}

static enum conn_event step_connect(struct conn *c)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return broken_errno(c, CONN_WHY_CONNECT, "getsockopt");
    if (error != 0) {
        errno = error;
        return broken_errno(c, CONN_WHY_CONNECT, "connect");
    }
    c->state = CONN_HANDSHAKE;
    return CONN_NOTHING;
}

static enum conn_event step_handshake(struct conn *c, int epoll_fd)
{
    int r = SSL_do_handshake(c->ssl);

    if (r != 1)
        return tls_wait(c, epoll_fd, r, "SSL_do_handshake");
    if (poll_for(c, epoll_fd, EPOLLIN) == CONN_BROKEN)
        return CONN_BROKEN;
    c->state = CONN_IDLE;
    return CONN_READY;
}

static enum conn_event step_send(struct conn *c, int epoll_fd)
{
    /* Requests fit one TLS record, which OpenSSL writes whole or not at all. */
    int r = SSL_write(c->ssl, c->out, (int)c->out_len);

    if (r <= 0)
        return tls_wait(c, epoll_fd, r, "SSL_write");
    c->state = CONN_WAITING;
    return poll_for(c, epoll_fd, EPOLLIN);
}

/* Reads until there is an answer or nothing more to read. */
static enum conn_event step_wait(struct conn *c, int epoll_fd)
{
    for (;;) {
        int whole;
        int r = SSL_read(c->ssl, c->in + c->in_len, (int)(sizeof(c->in) - c->in_len));

        if (r <= 0)
            return tls_wait(c, epoll_fd, r, "SSL_read");
        c->in_len += (size_t)r;
        whole = answer_read(c->in, c->in_len, &c->answer);
        /* One request is outstanding: octets behind its answer belong to nothing. */
        if (whole < 0 || (whole == 1 && c->answer.total != c->in_len))
            return broken(c, CONN_WHY_FRAMING, "answer is not framed by Content-Length alone");
        if (whole == 1)
            break;
    }
    c->in_len = 0;
    c->state = CONN_IDLE;
    return CONN_ANSWERED;
}

/* An idle connection that becomes readable was closed by the server, or it speaks out of turn. */
static enum conn_event step_idle(struct conn *c, int epoll_fd)
{
    char octet;
    int r = SSL_read(c->ssl, &octet, 1);

    if (r > 0)
        return broken(c, CONN_WHY_FRAMING, "octets without a request");
    return tls_wait(c, epoll_fd, r, "SSL_read");
}

enum conn_event conn_send(struct conn *c, int epoll_fd, const char *octets, size_t len)
{
    assert(c->state == CONN_IDLE);
    c->out = octets;
    c->out_len = len;
    c->in_len = 0;
    c->state = CONN_SENDING;
    c->sent_ns = measure_now_ns();
    return step_send(c, epoll_fd);
}

enum conn_event conn_step(struct conn *c, int epoll_fd)
{
    switch (c->state) {
    case CONN_CONNECTING:
        if (step_connect(c) == CONN_BROKEN)
            return CONN_BROKEN;
        return step_handshake(c, epoll_fd);
    case CONN_HANDSHAKE:
        return step_handshake(c, epoll_fd);
    case CONN_SENDING:
        return step_send(c, epoll_fd);
    case CONN_WAITING:
        return step_wait(c, epoll_fd);
    case CONN_IDLE:
        return step_idle(c, epoll_fd);
    case CONN_LOST:
        break;
    }
    /* Reported in the same round as it was closed. */
    return CONN_NOTHING;
}
