/*
 * The HTTPS server of listen, by h2o 2.2.
 *
 *   accept -> h2o_accept(): handshake, HTTP/1.1 -> on_request() -> handle() -> [delay] -> send
 *
 * What bites in h2o 2.2: res.content_length is set before the response is started, or the answer is
 * chunked besides.  Of a handshake that failed it throws away what was not sent yet, and that is
 * the alert which tells the peer why: so handshakes write straight to the descriptor.  While a
 * request waits for its answer the connection is not read: a peer that has gone shows when the
 * answer is written.
 */
#include <h2o.h>

#include "bsa.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>

#include <openssl/ssl.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/net.h"

#define ACCEPT_MAX 16 /* connections taken at once, so that requests are not starved */
#define TICK_MS    1000
#define DRAIN_MS   10 /* while it ends */

struct front {
    struct front_options o;
    uint16_t port;
    int fd; /* listening, until the loop has it */
    struct tls *tls;
    h2o_globalconf_t conf;
    h2o_evloop_t *loop;
    h2o_context_t ctx;
    h2o_accept_ctx_t accept;
    h2o_socket_t *listener, *stop;
    h2o_linklist_t conns;
    size_t n_conns;
    size_t n_exchanges;     /* requests without their answer */
    h2o_linklist_t delayed; /* exchanges, in the order in which they are due */
    bool finishing;         /* no new requests */
    bool told;              /* and no more delays */
};

struct conn {
    h2o_linklist_t link; /* of front.conns */
    struct front *front;
    h2o_socket_t *sock;
};

/* A request and its answer; lives in the request's pool. */
struct exchange {
    h2o_linklist_t link; /* of front.delayed, while it waits */
    struct front *front;
    h2o_req_t *req;
    h2o_iovec_t body;
    int64_t due_us;
};

/* h2o gives this to on_request(). */
struct handler {
    h2o_handler_t super;
    struct front *front;
};

/* ---- answers --------------------------------------------------------------------------------- */

static const struct {
    int status;
    const char *text;
} reasons[] = {
    {200, "OK"},
    {202, "Accepted"},
    {400, "Bad Request"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {415, "Unsupported Media Type"},
    {503, "Service Unavailable"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Unknown";
}

static void on_dispose(void *p)
{
    struct exchange *x = p;

    if (h2o_linklist_is_linked(&x->link))
        h2o_linklist_unlink(&x->link);
    x->front->n_exchanges--;
}

static struct exchange *exchange_new(struct front *f, h2o_req_t *req)
{
    struct exchange *x = h2o_mem_alloc_shared(&req->pool, sizeof(*x), on_dispose);

    *x = (struct exchange){.front = f, .req = req};
    f->n_exchanges++;
    return x;
}

static void add_header(h2o_req_t *req, const char *name, const char *value)
{
    (void)h2o_add_header_by_str(&req->pool, &req->res.headers, name, strlen(name), 1, NULL, value,
                                strlen(value));
}

/* The octets of the answer are copied: it may have to wait. */
static void fill(struct exchange *x, const struct front_answer *a)
{
    h2o_req_t *req = x->req;

    x->body = h2o_strdup(&req->pool, a->body_len > 0 ? a->body : "", a->body_len);
    req->res.status = a->status;
    req->res.reason = reason_of(a->status);
    req->res.content_length = a->body_len;
    add_header(req, "cache-control", "no-store");
    if (a->content_type != NULL)
        add_header(req, "content-type", a->content_type);
    if (a->allow != NULL)
        add_header(req, "allow", a->allow);
}

static void send_answer(struct exchange *x)
{
    static h2o_generator_t nothing_more;
    h2o_req_t *req = x->req;

    if (x->front->finishing)
        req->http1_is_persistent = 0;
    h2o_start_response(req, &nothing_more);
    h2o_send(req, &x->body, x->body.len > 0, H2O_SEND_STATE_FINAL);
}

/* Ends the connection under the answer: h2o tries to send it, fails, and cleans up. */
static void cut(struct exchange *x)
{
    h2o_socket_t *sock = x->req->conn->callbacks->get_socket(x->req->conn);

    (void)shutdown(h2o_socket_get_fd(sock), SHUT_RDWR);
    x->req->http1_is_persistent = 0;
}

/* The answer that is due next; NULL: none waits. */
static struct exchange *next_delayed(struct front *f)
{
    return h2o_linklist_is_empty(&f->delayed)
               ? NULL
               : H2O_STRUCT_FROM_MEMBER(struct exchange, link, f->delayed.next);
}

/* All that are due by then; whether there were any. */
static bool send_delayed(struct front *f, int64_t until_us)
{
    struct exchange *x;
    bool any = false;

    for (; (x = next_delayed(f)) != NULL && x->due_us <= until_us; any = true) {
        h2o_linklist_unlink(&x->link);
        send_answer(x);
    }
    return any;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* An answer of the front's own. */
static void refuse(struct exchange *x, int status, const char *allow, const char *title)
{
    char body[128];
    struct front_answer a = {
        .status = status, .content_type = FRONT_PROBLEM, .allow = allow, .body = body};

    a.body_len =
        (size_t)snprintf(body, sizeof(body), "{\"title\":\"%s\",\"status\":%d}", title, status);
    fill(x, &a);
    send_answer(x);
}

static const char *content_type_of(h2o_req_t *req)
{
    ssize_t i = h2o_find_header(&req->headers, H2O_TOKEN_CONTENT_TYPE, -1);

    return i < 0 ? ""
                 : h2o_strdup(&req->pool, req->headers.entries[i].value.base,
                              req->headers.entries[i].value.len)
                       .base;
}

static void handle(struct exchange *x)
{
    struct front *f = x->front;
    const struct front_request q = {.content_type = content_type_of(x->req),
                                    .body = (const uint8_t *)x->req->entity.base,
                                    .body_len = x->req->entity.base ? x->req->entity.len : 0};
    struct front_answer a = {.status = 0};

    f->o.handle(f->o.arg, &q, &a);
    fill(x, &a);
    if (a.cut)
        cut(x);
    if (a.cut || f->o.delay_ms == 0) {
        send_answer(x);
        return;
    }
    x->due_us = clock_mono_us() + (int64_t)f->o.delay_ms * 1000;
    h2o_linklist_insert(&f->delayed, &x->link);
}

static int on_request(h2o_handler_t *self, h2o_req_t *req)
{
    struct front *f = ((struct handler *)self)->front;
    struct exchange *x = exchange_new(f, req);
    size_t path_len = req->query_at == SIZE_MAX ? req->path.len : req->query_at;

    if (f->finishing)
        refuse(x, 503, NULL, "it is ending");
    else if (!h2o_memis(req->path.base, path_len, H2O_STRLIT("/cp3")))
        refuse(x, 404, NULL, "no such path");
    else if (!h2o_memis(req->method.base, req->method.len, H2O_STRLIT("POST")))
        refuse(x, 405, "POST", "this path takes POST");
    else
        handle(x);
    return 0;
}

/* ---- connections ----------------------------------------------------------------------------- */

static const char *address_of(h2o_socket_t *sock, char out[static NI_MAXHOST])
{
    struct sockaddr_storage sa;
    socklen_t len = h2o_socket_getpeername(sock, (struct sockaddr *)&sa);

    if (len == 0 ||
        getnameinfo((struct sockaddr *)&sa, len, out, NI_MAXHOST, NULL, 0, NI_NUMERICHOST) != 0)
        return "?";
    return out;
}

/* The socket is the data of the BIO by which h2o reads and writes. */
static void on_tls(const SSL *ssl, int where, int ret)
{
    h2o_socket_t *sock = BIO_get_data(SSL_get_rbio(ssl));
    SSL *s = (SSL *)(uintptr_t)ssl;
    char address[NI_MAXHOST];
    BIO *bio;

    if (where & SSL_CB_HANDSHAKE_START) {
        bio = BIO_new_socket(h2o_socket_get_fd(sock), BIO_NOCLOSE);
        if (bio != NULL)
            SSL_set0_wbio(s, bio);
    } else if (where & SSL_CB_HANDSHAKE_DONE) {
        bio = SSL_get_rbio(ssl);
        if (BIO_up_ref(bio))
            SSL_set0_wbio(s, bio);
    } else if ((where & SSL_CB_ALERT) && !SSL_is_init_finished(ssl)) {
        tls_tell_alert(ssl, where, ret, address_of(sock, address));
    }
}

static void on_close(void *arg)
{
    struct conn *c = arg;

    h2o_linklist_unlink(&c->link);
    c->front->n_conns--;
    free(c);
}

static void take_connection(struct front *f, h2o_socket_t *sock)
{
    struct conn *c = f->n_conns < FRONT_CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (c == NULL) {
        h2o_socket_close(sock);
        return;
    }
    c->front = f;
    c->sock = sock;
    h2o_linklist_insert(&f->conns, &c->link);
    f->n_conns++;
    sock->on_close.cb = on_close;
    sock->on_close.data = c;
    h2o_accept(&f->accept, sock);
}

static void on_accept(h2o_socket_t *listener, const char *err)
{
    h2o_socket_t *sock;

    for (int i = 0; err == NULL && i < ACCEPT_MAX; i++) {
        sock = h2o_evloop_socket_accept(listener);
        if (sock == NULL)
            return;
        take_connection(listener->data, sock);
    }
}

static void on_stop(h2o_socket_t *stop, const char *err)
{
    struct front *f = stop->data;

    (void)err;
    h2o_socket_read_stop(stop); /* it stays readable */
    f->finishing = f->told = true;
}

/* ---- its life -------------------------------------------------------------------------------- */

static void configure(struct front *f)
{
    h2o_hostconf_t *host;
    struct handler *handler;

    h2o_config_init(&f->conf);
    f->conf.server_name = h2o_iovec_init(H2O_STRLIT("tek-bsa"));
    f->conf.handshake_timeout = f->conf.http1.req_timeout = (uint64_t)f->o.timeout_s * 1000;
    f->conf.http1.upgrade_to_http2 = 0; /* CVE-2023-44487 is open in 2.2 */
    f->conf.max_request_entity_size = CP3_BODY_MAX;
    host = h2o_config_register_host(&f->conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    handler = (struct handler *)h2o_create_handler(h2o_config_register_path(host, "/", 0),
                                                   sizeof(*handler));
    handler->super.on_req = on_request;
    handler->front = f;
    f->loop = h2o_evloop_create();
    h2o_context_init(&f->ctx, f->loop, &f->conf);
    f->accept =
        (h2o_accept_ctx_t){.ctx = &f->ctx, .hosts = f->conf.hosts, .ssl_ctx = tls_ctx(f->tls)};
}

/* A descriptor that is only looked at; h2o closes it. */
static h2o_socket_t *watch(struct front *f, int fd, h2o_socket_cb cb)
{
    h2o_socket_t *sock = h2o_evloop_socket_create(f->loop, fd, H2O_SOCKET_FLAG_DONT_READ);

    sock->data = f;
    h2o_socket_read_start(sock, cb);
    return sock;
}

static int open_port(struct front *f)
{
    int r = net_listen(f->o.address, f->o.port, &f->fd, &f->port);

    if (r == TEKD_EINVAL)
        complain("--address: expected an IPv4 or IPv6 address in numbers, found %s", f->o.address);
    else if (r < 0)
        complain("--address %s --port %u: %s", f->o.address, (unsigned)f->o.port, strerror(errno));
    return r;
}

int front_new(const struct front_options *o, struct front **ret_front)
{
    AUTO(front) struct front *f = calloc(1, sizeof(*f));
    AUTO_FD int stop = fcntl(stop_fd(o->stop), F_DUPFD_CLOEXEC, 0);
    int r;

    if (f != NULL)
        f->fd = -1;
    if (f == NULL || stop < 0) {
        complain("%s", strerror(errno));
        return TEKD_ENOMEM;
    }
    f->o = *o;
    h2o_linklist_init_anchor(&f->conns);
    h2o_linklist_init_anchor(&f->delayed);
    r = tls_new(&o->files, &f->tls);
    if (r == 0)
        r = open_port(f);
    if (r < 0)
        return r;
    SSL_CTX_set_info_callback(tls_ctx(f->tls), on_tls);
    configure(f);
    f->listener = watch(f, TAKE_FD(f->fd), on_accept);
    f->stop = watch(f, TAKE_FD(stop), on_stop);
    *ret_front = TAKE(f);
    return 0;
}

void front_free(struct front *f)
{
    if (f == NULL || f->n_conns > 0)
        return; /* what a connection still uses is left to the end of the process */
    if (f->loop != NULL) {
        if (f->listener != NULL)
            h2o_socket_close(f->listener);
        h2o_socket_close(f->stop);
        (void)h2o_evloop_run(f->loop, 0); /* frees what is closed */
        h2o_context_dispose(&f->ctx);
        h2o_evloop_destroy(f->loop);
        h2o_config_dispose(&f->conf);
    }
    if (f->fd >= 0)
        (void)close(f->fd);
    tls_free(f->tls);
    free(f);
}

uint16_t front_port(const struct front *f)
{
    return f->port;
}

/* What send_delayed() wrote is pending, and no event says so. */
static void turn(struct front *f, int max_ms)
{
    const struct exchange *next = next_delayed(f);
    int64_t left_us = next != NULL ? next->due_us - clock_mono_us() : INT64_MAX;

    if (left_us < (int64_t)max_ms * 1000)
        max_ms = left_us > 0 ? (int)(left_us / 1000) + 1 : 0;
    (void)h2o_evloop_run(f->loop, max_ms);
    if (send_delayed(f, clock_mono_us()))
        (void)h2o_evloop_run(f->loop, 0);
}

/* Ends the reading side of connections: h2o closes those that are idle. */
static void shut_connections(struct front *f)
{
    for (h2o_linklist_t *link = f->conns.next; link != &f->conns; link = link->next)
        (void)shutdown(h2o_socket_get_fd(H2O_STRUCT_FROM_MEMBER(struct conn, link, link)->sock),
                       SHUT_RD);
}

void front_run(struct front *f)
{
    int64_t end_us;

    while (!f->finishing)
        turn(f, TICK_MS);
    h2o_socket_close(f->listener);
    f->listener = NULL;
    f->ctx.shutdown_requested = 1;
    while (next_delayed(f) != NULL && !f->told)
        turn(f, TICK_MS);
    (void)send_delayed(f, INT64_MAX);
    end_us = clock_mono_us() + FRONT_END_US;
    while (f->n_exchanges > 0 && clock_mono_us() < end_us)
        turn(f, DRAIN_MS);
    shut_connections(f);
    while (f->n_conns > 0 && clock_mono_us() < end_us)
        turn(f, DRAIN_MS);
}

void front_finish(struct front *f)
{
    f->finishing = true;
}
