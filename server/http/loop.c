#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define ACCEPT_MAX 16   /* connections taken at once, so that requests are not starved */
#define TICK_MS    1000 /* the loop looks at its stop flag at least this often */
#define DRAIN_MS   10   /* and at what is left when it stops */

/* ---- accepting ------------------------------------------------------------------------------- */

static void on_accept(h2o_socket_t *listener, const char *err);

/* A connection stays in the backlog, and the poll would return at once for ever. */
static void pause_accepting(struct http_loop *l)
{
    log_event(LOG_WARN, "http", "cannot-accept", LOG_STR("error", strerror(errno)));
    for (size_t i = 0; i < HTTP_LISTEN_MAX; i++) {
        if (l->listener[i])
            h2o_socket_read_stop(l->listener[i]);
    }
    l->accept_again_us = clock_mono_us() + LOOP_NO_ACCEPT_US;
}

static void resume_accepting(struct http_loop *l)
{
    if (l->accept_again_us == 0 || clock_mono_us() < l->accept_again_us)
        return;
    l->accept_again_us = 0;
    for (size_t i = 0; i < HTTP_LISTEN_MAX; i++) {
        if (l->listener[i])
            h2o_socket_read_start(l->listener[i], on_accept);
    }
}

bool loop_is_short(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_accept(h2o_socket_t *listener, const char *err)
{
    struct http_loop *l = listener->data;

    if (err)
        return;
    for (int i = 0; i < ACCEPT_MAX; i++) {
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (!sock && loop_is_short(errno))
            pause_accepting(l);
        if (!sock)
            return;
        conn_accept(l, sock);
    }
}

/* Every accepting loop polls a descriptor of its own of the same socket. */
static void open_listeners(struct http_loop *l)
{
    for (size_t i = 0; i < l->n_fds; i++) {
        int fd = fcntl(l->fds[i], F_DUPFD_CLOEXEC, 3);
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

/* ---- messages from other threads ------------------------------------------------------------- */

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

/* ---- running --------------------------------------------------------------------------------- */

/* Ends the reading side of connections: h2o closes those that are idle, the others after their
 * answer. */
static void shut_conns(struct http_loop *l, int how)
{
    for (struct conn *c = l->conns; c; c = c->next)
        (void)shutdown(h2o_socket_get_fd(c->sock), how);
}

/* One turn of the loop. */
static void turn(struct http_loop *l, int max_ms)
{
    if (l->accept_again_us != 0 && max_ms > LOOP_NO_ACCEPT_US / 1000)
        max_ms = LOOP_NO_ACCEPT_US / 1000;
    (void)h2o_evloop_run(l->evloop, exchange_wait_ms(l, max_ms));
    resume_accepting(l);
    conns_cut_stalled(l);
    if (exchange_expire(l)) /* what that wrote is pending, and no event will say so */
        (void)h2o_evloop_run(l->evloop, 0);
}

/* Lets requests under way end.  Whether nothing is left. */
static bool drain(struct http_loop *l)
{
    int64_t give_up = l->http->cut_us;

    close_listeners(l);
    if (l->serves)
        l->ctx.shutdown_requested = 1;
    turn(l, 0); /* connections that the handshakes' loop gave before it ended */
    /* Idle connections first; a request that was read gets its answer. */
    while (l->exchanges > 0 && clock_mono_us() < give_up)
        turn(l, DRAIN_MS);
    shut_conns(l, SHUT_RD);
    while ((l->conns || !atomic_load(&l->told)) && clock_mono_us() < give_up)
        turn(l, DRAIN_MS);
    if (!l->conns && l->exchanges == 0)
        return true;
    log_event(LOG_WARN, "http", "connections-cut", LOG_INT("exchanges", l->exchanges));
    shut_conns(l, SHUT_RDWR);
    return false;
}

static void init(struct http_loop *l)
{
    static const h2o_multithread_receiver_cb callbacks[RECEIVE_N] = {
        [RECEIVE_REPLY] = on_replies, [RECEIVE_CONN] = on_conns, [RECEIVE_WAKE] = on_wake};

    l->evloop = h2o_evloop_create();
    if (l->serves) {
        h2o_context_init(&l->ctx, l->evloop, &l->http->conf);
        l->accept.ctx = &l->ctx;
        l->accept.hosts = l->http->conf.hosts;
        l->queue = l->ctx.queue;
        gone_open(l);
    } else {
        l->queue = h2o_multithread_create_queue(l->evloop);
    }
    for (size_t i = 0; i < RECEIVE_N; i++)
        h2o_multithread_register_receiver(l->queue, &l->receiver[i], callbacks[i]);
    h2o_timeout_init(l->evloop, &l->handshake_timeout, HTTP_HANDSHAKE_MS);
    open_listeners(l);
}

/* Nobody sends messages any more, no connection is left. */
static void dispose(struct http_loop *l)
{
    for (size_t i = 0; i < RECEIVE_N; i++)
        h2o_multithread_unregister_receiver(l->queue, &l->receiver[i]);
    h2o_timeout_dispose(l->evloop, &l->handshake_timeout);
    gone_close(l);
    if (l->serves)
        h2o_context_dispose(&l->ctx);
    else
        h2o_multithread_destroy_queue(l->queue);
    h2o_evloop_destroy(l->evloop);
    l->evloop = NULL;
}

static void *run(void *arg)
{
    struct http_loop *l = arg;

    (void)pthread_setname_np(pthread_self(), l->serves ? "http" : "handshake");
    init(l);
    (void)sem_post(&l->ready);
    while (!atomic_load(&l->stop))
        turn(l, TICK_MS);
    if (drain(l))
        dispose(l);
    return NULL;
}

int loop_start(struct http_loop *l, struct http *h, bool serves, const int *fds, size_t n_fds)
{
    l->http = h;
    l->serves = serves;
    l->fds = fds;
    l->n_fds = n_fds;
    (void)sem_init(&l->ready, 0, 0);
    if (pthread_create(&l->thread, NULL, run, l) != 0) {
        (void)sem_destroy(&l->ready);
        return TEKD_ENOMEM;
    }
    l->started = true;
    while (sem_wait(&l->ready) < 0)
        ;
    return 0;
}

void loop_stop(struct http_loop *l)
{
    if (!l->started)
        return;
    atomic_store(&l->stop, true);
    h2o_multithread_send_message(&l->receiver[RECEIVE_WAKE], NULL);
    atomic_store(&l->told, true);
}

bool loop_join(struct http_loop *l)
{
    if (!l->started)
        return true;
    (void)pthread_join(l->thread, NULL);
    (void)sem_destroy(&l->ready);
    l->started = false;
    return l->evloop == NULL;
}
