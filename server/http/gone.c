/*
 * Clients that go away while they wait.  While a request is handled h2o does not read, and so does
 * not learn that the other side has closed.  Where an answer may take long an epoll instance of the
 * loop's looks for just that, once for each exchange; the instance itself is one of the descriptors
 * that the loop waits for.
 *
 * A client that ends only its sending side counts as gone: over TLS nobody does that who still
 * wants to read.
 */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>

#include "tekd/log.h"

/* One at a time: what is done about it may end other exchanges. */
static void on_event(h2o_socket_t *sock, const char *err)
{
    struct http_loop *l = sock->data;
    struct epoll_event event;

    if (err)
        return;
    while (epoll_wait(l->gone_fd, &event, 1, 0) == 1)
        exchange_gone(event.data.ptr);
}

void gone_open(struct http_loop *l)
{
    l->gone_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->gone_fd < 0) {
        log_event(LOG_WARN, "http", "clients-not-watched", LOG_STR("error", strerror(errno)));
        return;
    }
    l->gone = h2o_evloop_socket_create(l->evloop, l->gone_fd, H2O_SOCKET_FLAG_DONT_READ);
    l->gone->data = l;
    h2o_socket_read_start(l->gone, on_event);
}

void gone_close(struct http_loop *l)
{
    if (l->gone)
        h2o_socket_close(l->gone); /* and the descriptor */
    l->gone = NULL;
}

void gone_watch(struct http_exchange *x, int fd)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data = {.ptr = x}};

    if (x->loop->gone && epoll_ctl(x->loop->gone_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        x->watched_fd = fd;
}

void gone_unwatch(struct http_exchange *x)
{
    if (x->watched_fd >= 0)
        (void)epoll_ctl(x->loop->gone_fd, EPOLL_CTL_DEL, x->watched_fd, NULL);
    x->watched_fd = -1;
}
