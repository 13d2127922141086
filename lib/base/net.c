#include "tekd/net.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tekd/auto.h"
#include "tekd/err.h"

#define BACKLOG 1024

static int port_of(int fd, uint16_t *ret_port)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } sa = {.in6 = {.sin6_family = AF_UNSPEC}};
    socklen_t len = sizeof(sa);

    if (getsockname(fd, &sa.any, &len) < 0)
        return TEKD_EIO;
    *ret_port = ntohs(sa.any.sa_family == AF_INET6 ? sa.in6.sin6_port : sa.in.sin_port);
    return 0;
}

static int bind_to(const struct addrinfo *ai, int *ret_fd)
{
    AUTO_FD int fd =
        socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
    const int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return TEKD_EIO;
    if (ai->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
        return TEKD_EIO;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int net_listen(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *ai = NULL;
    AUTO_FD int fd = -1;
    char service[8];
    int r, errnum;

    (void)snprintf(service, sizeof(service), "%u", (unsigned)port);
    if (getaddrinfo(address, service, &hints, &ai) != 0)
        return TEKD_EINVAL;
    r = bind_to(ai, &fd);
    errnum = errno;
    freeaddrinfo(ai);
    errno = errnum;
    if (r == 0)
        r = port_of(fd, ret_port);
    if (r == 0)
        *ret_fd = TAKE_FD(fd);
    return r;
}
