/*
 * Peers that do not read.  h2o stops its timer before it calls a handler and has none for writing:
 * a peer that sends requests and takes no answer would hold its place for ever.  So a loop looks
 * once in a while which of its sockets are writing, and whether it is still the same write.
 *
 * Each write gets the whole time: h2o tells what it was given to write, not what of it has left.
 */
#include "internal.h"

#include <sys/socket.h>

#include "tekd/clock.h"

bool stall_is_over(struct stall *s, h2o_socket_t *sock, int64_t limit_us)
{
    int64_t now = clock_mono_us();

    if (s->cut)
        return false;
    if (!h2o_socket_is_writing(sock) || sock->bytes_written != s->written) {
        s->written = sock->bytes_written;
        s->since_us = now;
    }
    s->cut = now - s->since_us >= limit_us && h2o_socket_is_writing(sock);
    return s->cut;
}

/* Without lingering the kernel does not keep for the peer what it did not take. */
void stall_cut(h2o_socket_t *sock)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    int fd = h2o_socket_get_fd(sock);

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    (void)shutdown(fd, SHUT_RDWR); /* the write fails, and h2o closes */
}
