#include "internal.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define ACCEPT_MAX 16   /* connections taken at once, so that requests are not starved */
#define TICK_MS    1000 /* the loop looks at its stop flag at least this often */

/* ---- accepting ---------------------------------------------------------------------------------
 */

static void on_accept(h2o_socket_t *listener, const char *err)
{
    struct http_loop *l = listener->data;

    if (err)
        return;
    for (int i = 0; i < ACCEPT_MAX; i++) {
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (!sock)
            return;
        conn_accept(l, sock);
    }
}

/* Every accepting loop polls a descriptor of its own of the same socket. */
static void open_listeners(struct http_loop *l, const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            continue;
        l->listener[i] = h2o_evloop_socket_create(l->evloop, fd, H2O_SOCKET_FLAG_DONT_READ);
        l->listener[i]->data = l;
        h2o_socket_read_start(l->listener[i], on_accept);
    }
}

static void close_listeners(struct http_loop *l)
{
    for (size_t i = 0; i < HTTP_LISTEN_MAX; i++) {
        if (l->listener[i])
            h2o_socket_close(l->listener[i]);
        l->listener[i] = NULL;
    }
}

/* ---- messages from other threads ---------------------------------------------------------------
 */

static void *take_message(h2o_linklist_t *messages)
{
    h2o_linklist_t *first = messages->next;

    h2o_linklist_unlink(first);
    return first;
}

static void on_replies(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    (void)receiver;
    while (!h2o_linklist_is_empty(messages))
        exchange_replied(take_message(messages));
}

static void on_conns(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    struct http_loop *l =
        H2O_STRUCT_FROM_MEMBER(struct http_loop, receiver, receiver - RECEIVE_CONN);

    while (!h2o_linklist_is_empty(messages)) {
        h2o_linklist_t *link = take_message(messages);
        struct conn *c = H2O_STRUCT_FROM_MEMBER(struct conn, message, link);

        c->sock = h2o_socket_import(l->evloop, &c->exported);
        conn_link(c, l);
        conn_serve(c);
    }
}

static void on_wake(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    (void)receiver;
    (void)messages;
}

void loop_give(struct http_loop *l, struct conn *c)
{
    h2o_multithread_send_message(&l->receiver[RECEIVE_CONN], &c->message);
}

/* ---- running -----------------------------------------------------------------------------------
 */

/* Ends the reading side of connections: h2o closes those that are idle, the others after their
 * answer. */
static void shut_conns(struct http_loop *l, int how)
{
    for (struct conn *c = l->conns; c; c = c->next)
        (void)shutdown(h2o_socket_get_fd(c->sock), how);
}

static void drain(struct http_loop *l)
{
    int64_t give_up = clock_mono_us() + HTTP_STOP_US;

    close_listeners(l);
    if (l->serves)
        l->ctx.shutdown_requested = 1;
    /* Idle connections first; a request that was read gets its answer. */
    while (l->exchanges > 0 && clock_mono_us() < give_up)
        (void)h2o_evloop_run(l->evloop, 10);
    shut_conns(l, SHUT_RD);
    while (l->conns && clock_mono_us() < give_up)
        (void)h2o_evloop_run(l->evloop, 10);
    if (l->conns)
        log_event(LOG_WARN, "http", "connections-cut", LOG_INT("exchanges", l->exchanges));
    shut_conns(l, SHUT_RDWR);
}

static void *run(void *arg)
{
    struct http_loop *l = arg;

    while (!atomic_load(&l->stop))
        (void)h2o_evloop_run(l->evloop, TICK_MS);
    drain(l);
    return NULL;
}

static void init_receivers(struct http_loop *l)
{
    static const h2o_multithread_receiver_cb callbacks[RECEIVE_N] = {
        [RECEIVE_REPLY] = on_replies, [RECEIVE_CONN] = on_conns, [RECEIVE_WAKE] = on_wake};

    for (size_t i = 0; i < RECEIVE_N; i++)
        h2o_multithread_register_receiver(l->queue, &l->receiver[i], callbacks[i]);
}

int loop_start(struct http_loop *l, struct http *h, bool serves, const int *fds, size_t n_fds)
{
    l->http = h;
    l->serves = serves;
    l->evloop = h2o_evloop_create();
    if (serves) {
        h2o_context_init(&l->ctx, l->evloop, &h->conf);
        l->accept.ctx = &l->ctx;
        l->accept.hosts = h->conf.hosts;
        l->queue = l->ctx.queue;
    } else {
        l->queue = h2o_multithread_create_queue(l->evloop);
    }
    init_receivers(l);
    h2o_timeout_init(l->evloop, &l->handshake_timeout, HTTP_HANDSHAKE_MS);
    h2o_timeout_init(l->evloop, &l->deadline, (uint64_t)h->request_deadline_ms);
    open_listeners(l, fds, n_fds);
    if (pthread_create(&l->thread, NULL, run, l) != 0)
        return TEKD_ENOMEM;
    l->started = true;
    return 0;
}

void loop_stop(struct http_loop *l)
{
    if (!l->started)
        return;
    atomic_store(&l->stop, true);
    h2o_multithread_send_message(&l->receiver[RECEIVE_WAKE], NULL);
}

/* h2o's context and loop are left to the end of the process: h2o 2.2 cannot free a loop that ever
 * had a connection without a race with its own deferred closing. */
void loop_join(struct http_loop *l)
{
    if (l->started)
        (void)pthread_join(l->thread, NULL);
    l->started = false;
}
