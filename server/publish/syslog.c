/*
 * The note as one message to the host's syslog daemon.
 *
 * syslog(3) is not used: it waits for as long as the daemon does not read, under a lock of its own,
 * and could then not be stopped.  So the datagram is sent by ourselves, in the form that syslog(3)
 * gives it (RFC 3164 section 4.1, without the host), and is given up after PUBLISH_SYSLOG_MS.
 *
 * In the note a line end is \n, a backslash \\, and each octet outside of printable ASCII \0 and
 * three octal digits: daemons cut at line ends and have their own ways with other octets.  That is
 * what %b of printf(1) reads.
 */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tekd/clock.h"
#include "tekd/err.h"

#define SEVERITY_NOTICE 5 /* RFC 5424 section 6.2.1 */
/* A note of nothing but line ends would double, one of other octets be five times as long. */
#define MESSAGE_MAX (NOTE_MAX * 5 + 128)

struct syslog {
    struct publisher base; /* first */
    char *socket;
    unsigned facility;
};

/* ---- the message ----------------------------------------------------------------------------- */

static int put_escaped(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '\n')
            (void)buf_puts(out, "\\n");
        else if (c == '\\')
            (void)buf_puts(out, "\\\\");
        else if (c < ' ' || c > '~')
            (void)buf_printf(out, "\\0%03o", c);
        else
            (void)buf_putc(out, (char)c);
    }
    return buf_error(out);
}

int syslog_message(const struct publication *n, unsigned facility, int64_t utc_us, struct buf *out)
{
    const time_t now = (time_t)(utc_us / SECOND_US);
    char when[32] = "";
    struct tm tm;

    /* The names of months are those of the C locale: no program of ours sets another. */
    if (!localtime_r(&now, &tm) || strftime(when, sizeof(when), "%b %e %H:%M:%S", &tm) == 0)
        return TEKD_EINVAL;
    (void)buf_printf(out, "<%u>%s tekd[%d]: checkpoint ", facility * 8 + SEVERITY_NOTICE, when,
                     (int)getpid());
    return put_escaped(out, n->text, n->len);
}

/* ---- the socket ------------------------------------------------------------------------------ */

static int failed(const char *call, char why[static PUBLISH_WHY_MAX])
{
    if (errno == EAGAIN)
        (void)snprintf(why, PUBLISH_WHY_MAX, "the daemon has not read for %d ms",
                       PUBLISH_SYSLOG_MS);
    else
        (void)snprintf(why, PUBLISH_WHY_MAX, "%s: %s", call, strerrordesc_np(errno));
    return TEKD_EIO;
}

/* A socket a message: a daemon that was started again has another one under the name. */
static int send_message(const char *path, const struct buf *message,
                        char why[static PUBLISH_WHY_MAX])
{
    const struct timeval patience = {.tv_sec = PUBLISH_SYSLOG_MS / 1000,
                                     .tv_usec = PUBLISH_SYSLOG_MS % 1000 * 1000L};
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return failed("socket", why);
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
        return failed("connect", why);
    if (send(fd, buf_data(message), buf_len(message), MSG_NOSIGNAL) < 0)
        return failed("send", why);
    return 0;
}

/* ---- the publisher --------------------------------------------------------------------------- */

static int publish(struct publisher *self, const struct publication *n,
                   char why[static PUBLISH_WHY_MAX])
{
    const struct syslog *s = (const struct syslog *)self;
    AUTO(buf) struct buf *message = NULL;
    int r = buf_new(MESSAGE_MAX, &message);

    if (r == 0)
        r = syslog_message(n, s->facility, clock_utc_us(), message);
    if (r < 0) {
        (void)snprintf(why, PUBLISH_WHY_MAX, "%s", tekd_strerror(r));
        return r;
    }
    return send_message(s->socket, message, why);
}

static void free_syslog(struct publisher *self)
{
    struct syslog *s = (struct syslog *)self;

    free(s->socket);
    free(s);
}

int syslog_new(const struct publish_options *o, struct publisher **ret_publisher)
{
    struct syslog *s;

    if (!o->syslog.socket)
        return 0;
    if (strlen(o->syslog.socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return TEKD_EINVAL;
    s = calloc(1, sizeof(*s));
    if (!s)
        return TEKD_ENOMEM;
    s->base = (struct publisher){.name = "syslog", .publish = publish, .free = free_syslog};
    s->facility = o->syslog.facility;
    s->socket = strdup(o->syslog.socket);
    if (!s->socket) {
        free_syslog(&s->base);
        return TEKD_ENOMEM;
    }
    s->base.status.to = s->socket;
    *ret_publisher = &s->base;
    return 0;
}
