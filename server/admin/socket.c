#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define BACKLOG      16
#define READ_AT_ONCE 4096

/* ---- octets ---------------------------------------------------------------------------------- */

/* Waits for the peer, the end of tekd or the time-out. */
static int wait_for(const struct admin *a, int fd, short events)
{
    struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = a->wake[0], .events = POLLIN}};
    int n = poll(p, 2, ADMIN_TIMEOUT_MS);

    if (n == 0)
        return TEKD_ETIMEDOUT;
    if (n < 0)
        return errno == EINTR ? 0 : TEKD_EIO;
    return p[1].revents ? TEKD_ECLOSED : 0;
}

int admin_still_runs(const struct admin_call *call)
{
    struct pollfd p = {.fd = call->admin->wake[0], .events = POLLIN};

    return poll(&p, 1, 0) > 0 ? TEKD_ECLOSED : 0;
}

int admin_send(struct admin_call *call, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(call->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        int r = 0;

        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            r = wait_for(call->admin, call->fd, POLLOUT);
        } else {
            r = TEKD_ECLOSED;
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* Keeps the first descriptor of a control message; anybody may send more, and those are ours too.
 */
static void keep_descriptor(struct admin_call *call, struct cmsghdr *c)
{
    size_t n = c->cmsg_len >= CMSG_LEN(0) ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
        return;
    for (size_t i = 0; i < n; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
        if (call->passed_fd >= 0)
            (void)close(fd);
        else
            call->passed_fd = fd;
    }
}

/* Receives, and keeps a descriptor that came along: how a PIN travels, by a pipe and never as text.
 */
static ssize_t receive(struct admin_call *call, uint8_t *to, size_t max)
{
    union {
        struct cmsghdr align;
        char octets[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = to, .iov_len = max};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.octets,
                       .msg_controllen = sizeof(control.octets)};
    ssize_t n = recvmsg(call->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c))
        keep_descriptor(call, c);
    return n;
}

/* One line, without its end. */
static int read_line(struct admin_call *call, struct buf *line)
{
    int64_t give_up = clock_mono_us() + (int64_t)ADMIN_TIMEOUT_MS * 1000;

    while (clock_mono_us() < give_up) {
        uint8_t *to = buf_reserve(line, READ_AT_ONCE);
        ssize_t n;
        int r = wait_for(call->admin, call->fd, POLLIN);

        if (!to)
            return TEKD_ETOOBIG;
        if (r < 0)
            return r;
        n = receive(call, to, READ_AT_ONCE);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return TEKD_ECLOSED;
        if (n < 0)
            continue;
        buf_commit(line, (size_t)n);
        if (to[n - 1] == '\n') {
            buf_truncate(line, buf_len(line) - 1);
            return 0;
        }
    }
    return TEKD_ETIMEDOUT;
}

/* ---- one connection -------------------------------------------------------------------------- */

int admin_fail_call(struct admin_call *call, int r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(call->err.what, sizeof(call->err.what), fmt, ap);
    va_end(ap);
    return r;
}

static int send_json(struct admin_call *call, json_t *take_doc)
{
    AUTO_JSON json_t *doc = take_doc;
    AUTO_MEM char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    int r = text ? admin_send(call, text, strlen(text)) : TEKD_ENOMEM;

    return r < 0 ? r : admin_send(call, "\n", 1);
}

/* What was cut at a limit may end in half a character, which JSON does not have. */
static json_t *error_text(const struct admin_call *call, int r)
{
    json_t *text = call->err.what[0] ? json_string(call->err.what) : NULL;

    return text ? text : json_string(tekd_strerror(r));
}

static void answer(struct admin_call *call, int r)
{
    if (call->streamed)
        return;
    if (r == 0)
        r = send_json(call, json_pack("{s:b,s:O?}", "ok", 1, "result", call->result));
    else
        r = send_json(call, json_pack("{s:b,s:o,s:s,s:O*}", "ok", 0, "error", error_text(call, r),
                                      "code", tekd_errname(r), "result", call->result));
    if (r < 0)
        log_event(LOG_INFO, "admin", "answer-not-taken", LOG_STR("actor", call->actor.name),
                  LOG_STR("error", tekd_errname(r)));
}

static int dispatch(struct admin_call *call, enum admin_right right)
{
    const char *name = json_string_value(json_object_get(call->args, "command"));
    const struct admin_command *command = name ? admin_command_find(name) : NULL;
    int r;

    if (!command)
        return admin_fail_call(call, TEKD_EINVAL, "unknown command");
    if (right < command->right)
        return admin_fail_call(call, TEKD_EDENIED, "%s may look, but not \"%s\"", call->actor.name,
                               name);
    r = admin_check_args(call, command);
    if (r < 0)
        return r;
    log_event(LOG_INFO, "admin", "command", LOG_STR("command", name),
              LOG_STR("actor", call->actor.name), LOG_INT("uid", call->actor.uid));
    return command->run(call);
}

static void serve_line(struct admin_call *call, const struct buf *line, enum admin_right right)
{
    AUTO_JSON json_t *args = json_loadb(buf_str(line), buf_len(line), JSON_REJECT_DUPLICATES, NULL);
    int r;

    call->args = args;
    if (json_is_object(args))
        r = dispatch(call, right);
    else
        r = admin_fail_call(call, TEKD_EFORMAT, "the request is not a JSON object");
    answer(call, r);
    json_decref(call->result);
}

struct connection {
    struct admin *admin;
    int fd;         /* -1: given up */
    bool is_reader; /* has one of the readers' places */
};

/* Whether the peer is served now.  Who is not is told so at once, so that he holds no place. */
static bool is_let_in(struct connection *c, struct admin_call *call, enum admin_right right)
{
    enum admin_turn turn;

    if (right == ADMIN_NOBODY) {
        answer(call,
               admin_fail_call(call, TEKD_EDENIED, "%s may not use this socket", call->actor.name));
        return false;
    }
    if (right == ADMIN_OPERATOR || c->is_reader)
        return true;
    turn = admin_places_reader(&c->admin->places, c->fd);
    c->is_reader = turn == ADMIN_STAYS;
    if (turn == ADMIN_WAITS)
        c->fd = -1;
    if (turn == ADMIN_GOES)
        answer(call, admin_fail_call(call, TEKD_EAGAIN,
                                     "busy: %d who may only look wait already; try again later",
                                     ADMIN_WAITING_MAX));
    return c->is_reader;
}

static void serve(struct connection *c)
{
    AUTO(buf) struct buf *line = NULL;
    struct admin_call call = {.admin = c->admin, .fd = c->fd, .passed_fd = -1};
    enum admin_right right = ADMIN_NOBODY;
    int r = buf_new(ADMIN_REQUEST_MAX + READ_AT_ONCE, &line);

    if (r == 0)
        r = admin_identify(c->admin, c->fd, &call.actor, &right);
    if (r == 0 && !is_let_in(c, &call, right))
        return;
    if (r == 0)
        r = read_line(&call, line);
    if (r == 0)
        serve_line(&call, line, right);
    else if (r != TEKD_ECLOSED)
        log_event(LOG_INFO, "admin", "request-dropped", LOG_STR("actor", call.actor.name),
                  LOG_STR("error", tekd_errname(r)));
    if (call.passed_fd >= 0)
        (void)close(call.passed_fd);
}

/* A reader's place is used for those who wait for one as long as there are any. */
static void *run_connection(void *arg)
{
    struct connection *c = arg;
    struct admin *a = c->admin;

    do {
        serve(c);
        if (c->fd >= 0)
            (void)close(c->fd);
        c->fd = c->is_reader ? admin_places_next_reader(&a->places) : -1;
    } while (c->fd >= 0);
    free(c);
    admin_places_leave(&a->places);
    return NULL;
}

/* The threads are detached: admin_stop() waits until they have left their places. */
static int start_connection(struct admin *a, int fd)
{
    struct connection *c = malloc(sizeof(*c));
    pthread_t thread;

    if (!c)
        return TEKD_ENOMEM;
    *c = (struct connection){.admin = a, .fd = fd};
    admin_places_take(&a->places);
    if (pthread_create(&thread, NULL, run_connection, c) == 0) {
        (void)pthread_detach(thread);
        return 0;
    }
    admin_places_leave(&a->places);
    free(c);
    return TEKD_ENOMEM;
}

static void *run(void *arg)
{
    struct admin *a = arg;
    struct pollfd p[2] = {{.fd = a->fd, .events = POLLIN}, {.fd = a->wake[0], .events = POLLIN}};

    (void)pthread_setname_np(pthread_self(), "admin");
    for (;;) {
        int fd;

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (p[1].revents)
            return NULL;
        fd = accept4(a->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0 && start_connection(a, fd) < 0)
            (void)close(fd);
    }
}

/* ---- the socket ------------------------------------------------------------------------------ */

static int group_id(const char *name, int64_t *ret_gid)
{
    const struct group *g;

    *ret_gid = -1;
    if (!name)
        return 0;
    g = getgrnam(name); /* before the threads start */
    if (!g) {
        log_event(LOG_WARN, "admin", "no-such-group", LOG_STR("group", name),
                  LOG_STR("effect", "only root and tekd's user"));
        return 0;
    }
    *ret_gid = g->gr_gid;
    return 0;
}

/* Whether another tekd answers on the path; also one that is too busy to. */
static bool is_alive(const struct sockaddr_un *sa)
{
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 &&
           (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN);
}

/* Makes the path free: only a socket that nobody serves any more is removed. */
static int clear_path(const struct sockaddr_un *sa)
{
    struct stat st;

    if (lstat(sa->sun_path, &st) < 0)
        return 0; /* bind() says what else is wrong with it */
    if (!S_ISSOCK(st.st_mode)) {
        log_event(LOG_ERROR, "admin", "not-a-socket", LOG_STR("path", sa->sun_path));
        return TEKD_EEXIST;
    }
    if (is_alive(sa)) {
        log_event(LOG_ERROR, "admin", "socket-in-use", LOG_STR("path", sa->sun_path));
        return TEKD_EEXIST;
    }
    (void)unlink(sa->sun_path);
    return 0;
}

/*
 * Everybody may connect; what he may is decided by his credentials, so that a refusal can say why.
 */
static int open_socket(struct admin *a)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r;

    if (strlen(a->socket_path) >= sizeof(sa.sun_path)) {
        log_event(LOG_ERROR, "admin", "socket-path-too-long", LOG_STR("path", a->socket_path),
                  LOG_INT("max", sizeof(sa.sun_path) - 1));
        return TEKD_EINVAL;
    }
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", a->socket_path);
    r = clear_path(&sa);
    if (r < 0)
        return r;
    if (fd < 0 || bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        chmod(a->socket_path, 0666) < 0 || listen(fd, BACKLOG) < 0) {
        log_event(LOG_ERROR, "admin", "socket-not-made", LOG_STR("path", a->socket_path),
                  LOG_STR("error", strerror(errno)));
        return TEKD_EIO;
    }
    a->fd = TAKE_FD(fd);
    return 0;
}

static void admin_free(struct admin *a)
{
    for (size_t i = 0; i < 2; i++) {
        if (a->wake[i] >= 0)
            (void)close(a->wake[i]);
    }
    if (a->fd >= 0) {
        (void)close(a->fd);
        (void)unlink(a->socket_path);
    }
    free(a->socket_path);
    free(a->version);
    free(a->bsm_id);
    free(a->instance);
    admin_places_clear(&a->places);
    free(a);
}

static int fill(struct admin *a, const struct admin_options *o)
{
    int r;

    a->o = *o;
    a->socket_path = strdup(o->socket);
    a->version = strdup(o->version);
    a->bsm_id = strdup(o->bsm_id);
    a->instance = strdup(o->instance);
    if (!a->socket_path || !a->version || !a->bsm_id || !a->instance)
        return TEKD_ENOMEM;
    r = group_id(o->group, &a->gid);
    return r < 0 ? r : group_id(o->readonly_group, &a->readonly_gid);
}

int admin_start(const struct admin_options *o, struct admin **ret_admin)
{
    struct admin *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return TEKD_ENOMEM;
    a->fd = a->wake[0] = a->wake[1] = -1;
    a->started_utc_us = clock_utc_us();
    admin_places_init(&a->places);
    r = fill(a, o);
    if (r == 0 && pipe2(a->wake, O_CLOEXEC) < 0)
        r = TEKD_EIO;
    if (r == 0)
        r = open_socket(a);
    if (r == 0 && pthread_create(&a->thread, NULL, run, a) != 0)
        r = TEKD_ENOMEM;
    if (r < 0) {
        admin_free(a);
        return r;
    }
    *ret_admin = a;
    return 0;
}

void admin_stop(struct admin *a)
{
    if (!a)
        return;
    (void)close(a->wake[1]);
    a->wake[1] = -1;
    (void)pthread_join(a->thread, NULL);
    admin_places_wait_empty(&a->places);
    admin_free(a);
}
