#include "internal.h"

#include <netdb.h>
#include <openssl/x509.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

void conn_link(struct conn *c, struct http_loop *home)
{
    c->home = home;
    c->prev = NULL;
    c->next = home->conns;
    if (c->next)
        c->next->prev = c;
    home->conns = c;
}

void conn_unlink(struct conn *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        c->home->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->prev = c->next = NULL;
}

void conn_free(struct conn *c)
{
    atomic_fetch_sub(&c->home->http->connections, 1);
    tls_unref(c->tls);
    X509_free(c->leaf);
    sk_X509_pop_free(c->chain, X509_free);
    free(c);
}

static void on_close(void *arg)
{
    struct conn *c = arg;

    h2o_timeout_unlink(&c->timeout);
    conn_unlink(c);
    conn_free(c);
}

/* [IPv6]:port or IPv4:port, as it stands in records and in the log. */
static void set_addr(struct conn *c)
{
    struct sockaddr_storage sa;
    socklen_t len = h2o_socket_getpeername(c->sock, (struct sockaddr *)&sa);
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (len == 0 || getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
                                NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    (void)snprintf(c->peer.addr, sizeof(c->peer.addr),
                   sa.ss_family == AF_INET6 ? "[%.45s]:%.5s" : "%.45s:%.5s", host, port);
}

void conn_accept(struct http_loop *loop, h2o_socket_t *sock)
{
    struct http *h = loop->http;
    struct conn *c;

    if (atomic_fetch_add(&h->connections, 1) >= h->connections_max) {
        atomic_fetch_sub(&h->connections, 1);
        h2o_socket_close(sock);
        return;
    }
    c = calloc(1, sizeof(*c));
    if (!c) {
        atomic_fetch_sub(&h->connections, 1);
        h2o_socket_close(sock);
        return;
    }
    atomic_fetch_add(&h->accepted, 1);
    c->sock = sock;
    c->tls = http_tls(h);
    conn_link(c, loop);
    set_addr(c);
    sock->on_close.cb = on_close;
    sock->on_close.data = c;
    handshake_begin(c);
}

int conn_identify(struct conn *c)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(c->ssl);
    unsigned len = sizeof(c->peer.cert_sha256);

    c->leaf = SSL_get1_peer_certificate(c->ssl);
    if (chain)
        c->chain = X509_chain_up_ref(chain);
    c->ssl = NULL; /* h2o's from here on */
    c->checked_us = clock_mono_us();
    if (!c->leaf || X509_digest(c->leaf, EVP_sha256(), c->peer.cert_sha256, &len) != 1)
        return TEKD_ECRYPTO;
    return 0;
}

void conn_serve(struct conn *c)
{
    struct timeval now = *h2o_get_timestamp(&c->home->ctx, NULL, NULL);

    c->sock->on_close.cb = on_close;
    c->sock->on_close.data = c;
    h2o_http1_accept(&c->home->accept, c->sock, now);
}

struct conn *conn_of(h2o_req_t *req)
{
    h2o_socket_t *sock = req->conn->callbacks->get_socket(req->conn);

    return sock->on_close.data;
}

/* A handshake has its own time-out, and its writes are small. */
static void cut_if_stalled(struct conn *c)
{
    struct http *h = c->home->http;

    if (!c->leaf || !stall_is_over(&c->stall, c->sock, (int64_t)h->request_timeout_ms * 1000))
        return;
    atomic_fetch_add(&h->timed_out, 1);
    log_event(LOG_INFO, "http", "answer-not-taken", LOG_STR("addr", c->peer.addr));
    stall_cut(c->sock);
}

void conns_cut_stalled(struct http_loop *loop)
{
    int64_t now = clock_mono_us();

    if (now < loop->look_again_us)
        return;
    loop->look_again_us = now + STALL_LOOK_US;
    for (struct conn *c = loop->conns; c; c = c->next)
        cut_if_stalled(c);
}

const char *conn_recheck(struct conn *c)
{
    struct http *h = c->home->http;
    struct tls *now;
    const char *why;

    if (c->tls->generation == atomic_load(&h->generation) &&
        clock_mono_us() - c->checked_us < HTTP_RECHECK_US)
        return NULL;
    now = http_tls(h);
    why = tls_recheck(now, c->leaf, c->chain);
    if (why) {
        tls_unref(now);
    } else {
        tls_unref(c->tls);
        c->tls = now;
        c->checked_us = clock_mono_us();
    }
    return why;
}
