#include "tekctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

void complain(const char *fmt, ...)
{
    va_list ap;

    (void)fputs("tekctl: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
}

static int connect_to(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(sa.sun_path)) {
        complain("%s: longer than a socket path can be", path);
        return -1;
    }
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
        complain("%s: %s; is tekd running, and is --socket its admin.socket?", path,
                 strerror(errno));
        return -1;
    }
    return TAKE_FD(fd);
}

/* The PIN goes by a pipe of its own, so that it is in nobody's text. */
static int pin_pipe(const struct secret *pin)
{
    int fds[2];
    ssize_t n;

    if (pipe(fds) < 0)
        return -1;
    n = write(fds[1], secret_peek(pin), secret_len(pin)); /* smaller than a pipe holds */
    (void)close(fds[1]);
    if (n == (ssize_t)secret_len(pin))
        return fds[0];
    (void)close(fds[0]);
    return -1;
}

/* The first octets of the request, with the descriptor if there is one. */
static ssize_t send_first(int fd, const char *text, size_t len, int pass)
{
    union {
        struct cmsghdr align;
        char octets[CMSG_SPACE(sizeof(int))];
    } control = {.octets = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *c;

    if (pass >= 0) {
        m.msg_control = control.octets;
        m.msg_controllen = sizeof(control.octets);
        c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass, sizeof(int));
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL);
}

static int send_request(int fd, const struct session *s)
{
    AUTO_MEM char *text = json_dumps(s->request, JSON_COMPACT);
    AUTO_FD int pin = s->pin ? pin_pipe(s->pin) : -1;
    size_t len = text ? strlen(text) : 0, at = 0;

    if (!text || (s->pin && pin < 0))
        return -1;
    text[len] = '\n'; /* in place of the NUL: the length is known */
    while (at < len + 1) {
        ssize_t n = at == 0 ? send_first(fd, text, len + 1, pin)
                            : send(fd, text + at, len + 1 - at, MSG_NOSIGNAL);
        if (n <= 0)
            return -1;
        at += (size_t)n;
    }
    return 0;
}

char *stream_line(FILE *f, size_t *ret_len)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n = getline(&line, &room, f);

    if (n <= 0 || line[n - 1] != '\n') {
        free(line);
        return NULL;
    }
    line[n - 1] = '\0';
    *ret_len = (size_t)n - 1;
    return line;
}

static int read_answer(struct session *s, json_t **ret_result)
{
    size_t len = 0;
    AUTO_MEM char *line = stream_line(s->answer, &len);
    AUTO_JSON json_t *doc = line ? json_loadb(line, len, 0, NULL) : NULL;
    const char *error;

    if (!json_is_object(doc)) {
        complain("tekd ended the connection without an answer");
        return TEKCTL_UNREACHABLE;
    }
    *ret_result = json_incref(json_object_get(doc, "result"));
    if (json_is_true(json_object_get(doc, "ok")))
        return TEKCTL_DONE;
    error = text_shown(json_object_get(doc, "error"));
    complain("%s", error ? error : "refused");
    return TEKCTL_FAILED;
}

int session_no_result(void)
{
    complain("tekd's answer has no result");
    return TEKCTL_FAILED;
}

void session_end(struct session *s)
{
    if (s->answer)
        (void)fclose(s->answer);
    s->answer = NULL;
}

int session_call(struct session *s, json_t **ret_result)
{
    AUTO_FD int fd = connect_to(s->socket);

    if (fd < 0)
        return TEKCTL_UNREACHABLE;
    /* Who may not use the socket is told so before his request is read. */
    if (send_request(fd, s) < 0 && errno != EPIPE) {
        complain("%s: the request could not be sent: %s", s->socket, strerror(errno));
        return TEKCTL_UNREACHABLE;
    }
    s->answer = fdopen(fd, "r");
    if (!s->answer)
        return TEKCTL_FAILED;
    (void)TAKE_FD(fd);
    return read_answer(s, ret_result);
}
