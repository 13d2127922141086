/*
 * The listener for probes: no TLS, answers made on its own loop's thread by a callback that only
 * reads what is in memory.
 */
#include "internal.h"

#include <errno.h>
#include <sys/socket.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define PLAIN_BODY_MAX   1048576 /* metrics of every BSA */
#define PLAIN_REQUEST_MS 5000
#define PLAIN_CONNS_MAX  64      /* a probe, a scraper, a person */
#define PLAIN_STOP_US    1000000 /* connections get to end */
#define TICK_MS          1000
#define DRAIN_MS         10

struct plain_handler {
    h2o_handler_t super;
    struct http_plain *plain;
};

struct plain_conn {
    struct http_plain *plain;
    h2o_socket_t *sock;
    struct stall stall;
    struct plain_conn *prev, *next;
};

/* Its thread owns everything but stop and told, once ready was posted. */
struct http_plain {
    struct http_plain_options o;
    uint16_t port;
    int fd; /* to listen on; while it starts */
    sem_t ready;
    h2o_globalconf_t conf;
    h2o_evloop_t *evloop;
    h2o_context_t ctx;
    h2o_accept_ctx_t accept;
    h2o_multithread_receiver_t wake;
    h2o_socket_t *listener;
    int64_t accept_again_us; /* no descriptor was free: not before; 0: accepting */
    int64_t look_again_us;   /* at stalled connections: not before */
    struct plain_conn *conns;
    size_t n_conns;
    pthread_t thread;
    _Atomic bool stop, told;
};

static void reply(h2o_req_t *req, int status, struct buf *body)
{
    const struct http_reply r = {
        .status = status, .media = "text/plain; charset=utf-8", .body = body};

    exchange_refuse(req, &r);
}

static int on_req(h2o_handler_t *self, h2o_req_t *req)
{
    struct http_plain *p = ((struct plain_handler *)self)->plain;
    AUTO(buf) struct buf *body = NULL;
    size_t len = req->query_at == SIZE_MAX ? req->path.len : req->query_at;
    h2o_iovec_t path = h2o_strdup(&req->pool, req->path.base, len);

    if (buf_new(PLAIN_BODY_MAX, &body) < 0)
        return -1;
    if (!h2o_memis(req->method.base, req->method.len, H2O_STRLIT("GET"))) {
        const struct http_reply r = {.status = 405, .allow = "GET"};
        exchange_refuse(req, &r);
        return 0;
    }
    reply(req, p->o.get(p->o.arg, path.base, body), body);
    return 0;
}

static void on_close(void *arg)
{
    struct plain_conn *c = arg;

    if (c->prev)
        c->prev->next = c->next;
    else
        c->plain->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->plain->n_conns--;
    free(c);
}

/* The connection stays in the backlog, and the poll would return at once for ever. */
static void pause_accepting(struct http_plain *p)
{
    log_event(LOG_WARN, "http", "cannot-accept", LOG_STR("error", strerror(errno)));
    h2o_socket_read_stop(p->listener);
    p->accept_again_us = clock_mono_us() + LOOP_NO_ACCEPT_US;
}

static void on_accept(h2o_socket_t *listener, const char *err)
{
    struct http_plain *p = listener->data;
    h2o_socket_t *sock = err ? NULL : h2o_evloop_socket_accept(listener);
    struct plain_conn *c = sock && p->n_conns < PLAIN_CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (!sock && !err && loop_is_short(errno))
        pause_accepting(p);
    if (!sock)
        return;
    if (!c) {
        h2o_socket_close(sock);
        return;
    }
    *c = (struct plain_conn){.plain = p, .sock = sock, .next = p->conns};
    if (c->next)
        c->next->prev = c;
    p->conns = c;
    p->n_conns++;
    sock->on_close.cb = on_close;
    sock->on_close.data = c;
    h2o_http1_accept(&p->accept, sock, *h2o_get_timestamp(&p->ctx, NULL, NULL));
}

static void on_wake(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    (void)receiver;
    (void)messages;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void init(struct http_plain *p)
{
    p->evloop = h2o_evloop_create();
    h2o_context_init(&p->ctx, p->evloop, &p->conf);
    p->accept = (h2o_accept_ctx_t){.ctx = &p->ctx, .hosts = p->conf.hosts};
    h2o_multithread_register_receiver(p->ctx.queue, &p->wake, on_wake);
    p->listener = h2o_evloop_socket_create(p->evloop, p->fd, H2O_SOCKET_FLAG_DONT_READ);
    p->listener->data = p;
    h2o_socket_read_start(p->listener, on_accept);
}

static void cut_stalled(struct http_plain *p)
{
    int64_t now = clock_mono_us();

    if (now < p->look_again_us)
        return;
    p->look_again_us = now + STALL_LOOK_US;
    for (struct plain_conn *c = p->conns; c; c = c->next) {
        if (stall_is_over(&c->stall, c->sock, PLAIN_REQUEST_MS * INT64_C(1000)))
            stall_cut(c->sock);
    }
}

static void resume_accepting(struct http_plain *p)
{
    if (p->accept_again_us == 0 || clock_mono_us() < p->accept_again_us)
        return;
    p->accept_again_us = 0;
    h2o_socket_read_start(p->listener, on_accept);
}

static void turn(struct http_plain *p, int max_ms)
{
    if (p->accept_again_us != 0 && max_ms > LOOP_NO_ACCEPT_US / 1000)
        max_ms = LOOP_NO_ACCEPT_US / 1000;
    (void)h2o_evloop_run(p->evloop, max_ms);
    cut_stalled(p);
}

/* Whether all connections have ended. */
static bool drain(struct http_plain *p)
{
    int64_t give_up = clock_mono_us() + PLAIN_STOP_US;

    h2o_socket_close(p->listener);
    p->ctx.shutdown_requested = 1;
    for (struct plain_conn *c = p->conns; c; c = c->next)
        (void)shutdown(h2o_socket_get_fd(c->sock), SHUT_RD);
    while ((p->conns || !atomic_load(&p->told)) && clock_mono_us() < give_up)
        turn(p, DRAIN_MS);
    return !p->conns;
}

static void dispose(struct http_plain *p)
{
    h2o_multithread_unregister_receiver(p->ctx.queue, &p->wake);
    h2o_context_dispose(&p->ctx);
    h2o_evloop_destroy(p->evloop);
    p->evloop = NULL;
}

static void *run(void *arg)
{
    struct http_plain *p = arg;

    (void)pthread_setname_np(pthread_self(), "probe");
    init(p);
    (void)sem_post(&p->ready);
    while (!atomic_load(&p->stop)) {
        turn(p, TICK_MS);
        resume_accepting(p);
    }
    if (drain(p))
        dispose(p);
    return NULL;
}

/* ---- starting and stopping ------------------------------------------------------------------- */

static void configure(struct http_plain *p)
{
    h2o_hostconf_t *host;
    h2o_pathconf_t *path;
    struct plain_handler *handler;

    h2o_config_init(&p->conf);
    p->conf.server_name = h2o_iovec_init(H2O_STRLIT("tekd"));
    p->conf.http1.req_timeout = PLAIN_REQUEST_MS;
    p->conf.http1.upgrade_to_http2 = 0;
    p->conf.max_request_entity_size = 1;
    host = h2o_config_register_host(&p->conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    path = h2o_config_register_path(host, "/", 0);
    handler = (struct plain_handler *)h2o_create_handler(path, sizeof(*handler));
    handler->super.on_req = on_req;
    handler->plain = p;
    exchange_filter(path);
    exchange_filter(&host->fallback_path);
}

static void free_plain(struct http_plain *p)
{
    h2o_config_dispose(&p->conf);
    (void)sem_destroy(&p->ready);
    free(p);
}

int http_plain_start(const struct http_plain_options *o, struct http_plain **ret_plain)
{
    struct http_plain *p = calloc(1, sizeof(*p));
    AUTO_FD int fd = -1;
    int r;

    if (!p)
        return TEKD_ENOMEM;
    p->o = *o;
    r = http_listen_open(&o->listen, &fd, &p->port);
    if (r < 0) {
        free(p);
        return r;
    }
    configure(p);
    p->fd = fd;
    (void)sem_init(&p->ready, 0, 0);
    if (pthread_create(&p->thread, NULL, run, p) != 0) {
        free_plain(p);
        return TEKD_ENOMEM;
    }
    (void)TAKE_FD(fd);
    while (sem_wait(&p->ready) < 0)
        ;
    *ret_plain = p;
    return 0;
}

uint16_t http_plain_port(const struct http_plain *p)
{
    return p->port;
}

void http_plain_stop(struct http_plain *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    h2o_multithread_send_message(&p->wake, NULL);
    atomic_store(&p->told, true);
    (void)pthread_join(p->thread, NULL);
    if (!p->evloop)
        free_plain(p);
}
