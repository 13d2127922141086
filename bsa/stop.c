/* SIGTERM and SIGINT, kept in a descriptor: no handler, nothing to be interrupted. */
#include "bsa.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "tekd/err.h"

struct stop {
    int fd;
};

int stop_new(struct stop **ret_stop)
{
    AUTO(stop) struct stop *s = calloc(1, sizeof(*s));
    sigset_t signals;

    if (s == NULL)
        return TEKD_ENOMEM;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    s->fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->fd < 0) {
        complain("signalfd: %s", strerror(errno));
        return TEKD_EIO;
    }
    *ret_stop = TAKE(s);
    return 0;
}

void stop_free(struct stop *s)
{
    if (s == NULL)
        return;
    if (s->fd >= 0)
        (void)close(s->fd);
    free(s);
}

int stop_fd(const struct stop *s)
{
    return s->fd;
}

/* It is never read, so it stays asked. */
bool stop_wait(const struct stop *s, int ms)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};

    return poll(&p, 1, ms) == 1;
}
