/*
 * Listening sockets.
 *
 * Thread rule: from any thread.
 */
#ifndef TEKD_NET_H
#define TEKD_NET_H

#include <stdint.h>

/*
 * An open, bound, listening TCP socket, non-blocking and closed on exec, at a numeric IPv4 or IPv6
 * address (an IPv6 one takes no IPv4).  Port 0 is any free one; *ret_port is what it became.  The
 * caller owns the descriptor.
 * Errors: TEKD_EINVAL (no numeric address), TEKD_EIO (errno says why: in use, not ours, ...).
 */
int net_listen(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port);

#endif
