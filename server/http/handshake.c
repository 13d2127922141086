/*
 * From an accepted socket to a known peer.  h2o has no accessor for a socket's SSL; OpenSSL's info
 * callback has it, and finds the socket behind the SSL's read BIO, whose data is our conn until
 * HTTP takes the socket over.
 *
 * During the handshake OpenSSL writes straight to the descriptor: of a handshake that failed h2o
 * 2.2 throws away what it did not send yet, and that is the alert which tells the client why.
 * Flights of a handshake are far smaller than the empty send buffer of a new connection, so a short
 * write is a broken connection, as h2o takes it.
 */
#include "internal.h"

#include <openssl/err.h>

#include "tekd/err.h"
#include "tekd/log.h"

static void write_to_descriptor(struct conn *c)
{
    BIO *bio = BIO_new_socket(h2o_socket_get_fd(c->sock), BIO_NOCLOSE);

    if (bio)
        SSL_set0_wbio(c->ssl, bio);
}

/* From now on as h2o has it, which reads and writes by one BIO. */
static void write_by_h2o(struct conn *c)
{
    BIO *bio = SSL_get_rbio(c->ssl);

    if (BIO_up_ref(bio))
        SSL_set0_wbio(c->ssl, bio);
}

void handshake_info(const SSL *ssl, int where, int ret)
{
    h2o_socket_t *sock;
    struct conn *c;

    (void)ret;
    /* Only the first start: later ones (key updates) find another owner behind the socket. */
    if (!(where & SSL_CB_HANDSHAKE_START) || SSL_get_ex_data(ssl, 0))
        return;
    sock = BIO_get_data(SSL_get_rbio(ssl));
    c = sock->data;
    c->ssl = (SSL *)(uintptr_t)ssl;
    (void)SSL_set_ex_data(c->ssl, 0, c->home);
    write_to_descriptor(c);
}

static void refuse(struct conn *c, const char *cause)
{
    struct http *h = c->home->http;

    atomic_fetch_add(&h->handshakes_failed, 1);
    log_event(LOG_INFO, "tls", "refused", LOG_STR("cause", cause), LOG_STR("addr", c->peer.addr));
    if (h->refused)
        h->refused(h->refused_arg, cause, c->peer.addr);
    ERR_clear_error();
    c->ssl = NULL;
    h2o_socket_close(c->sock); /* frees c */
}

/* To the loop that serves it; the socket of this loop goes without closing the connection. */
static void move(struct conn *c)
{
    struct http_loop *to = http_next_loop(c->home->http);

    c->sock->on_close.cb = NULL;
    conn_unlink(c);
    if (h2o_socket_export(c->sock, &c->exported) < 0) {
        log_event(LOG_ERROR, "tls", "socket-not-exported", LOG_STR("addr", c->peer.addr));
        h2o_socket_close(c->sock);
        conn_free(c);
        return;
    }
    c->sock = NULL;
    loop_give(to, c);
}

static void on_complete(h2o_socket_t *sock, const char *err)
{
    struct conn *c = sock->data;

    h2o_timeout_unlink(&c->timeout);
    if (err) {
        refuse(c, err == h2o_socket_error_closed ? "closed-by-peer" : tls_cause(c->ssl));
        return;
    }
    write_by_h2o(c);
    if (conn_identify(c) < 0) {
        refuse(c, "no-certificate");
    } else if (c->home->serves) {
        conn_serve(c);
    } else {
        move(c);
    }
}

static void on_timeout(h2o_timeout_entry_t *entry)
{
    refuse(H2O_STRUCT_FROM_MEMBER(struct conn, timeout, entry), "handshake-timeout");
}

void handshake_begin(struct conn *c)
{
    c->sock->data = c;
    c->timeout.cb = on_timeout;
    h2o_timeout_link(c->home->evloop, &c->home->handshake_timeout, &c->timeout);
    h2o_socket_ssl_handshake(c->sock, c->tls->ctx, NULL, on_complete);
}
