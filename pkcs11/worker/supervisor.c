/*
 * The parent of the workers.  It holds the PIN, never the module: a call of it can neither hang
 * nor crash this process.  It does what the pool says (control.h), and by itself only this:
 *
 *   - one start at a time: a worker that has not yet logged in is the only one of its kind, so a
 *     PIN that the token has come to refuse is tried once, not once a worker
 *   - a worker that is not ready after the start time-out is killed
 *   - after a refusal every start asked for is refused until there is another PIN
 *   - when the pool goes away it ends the workers and itself
 *
 * A child:  FREE -> WAITING -> STARTING -> SERVING -> FREE
 * The number of a child's process stays its own until waitpid() here, so kill() hits no other.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"
#include "worker.h"

/* Every slot of the pool may have a worker and its replacement, and some that are ending. */
#define CHILDREN_MAX ((size_t)3 * (HSM_WORKERS_MAX + 2))
/* What workers have to finalise their modules when the pool has gone. */
#define END_MS 2000

enum child_state { CHILD_FREE, CHILD_WAITING, CHILD_STARTING, CHILD_SERVING };

struct child {
    enum child_state state;
    uint32_t id;
    enum protocol_role role;
    int socket; /* of WAITING: the worker's end */
    int report; /* of STARTING: what it has to say */
    pid_t pid;
    int64_t started_us;
    int64_t kill_at; /* INT64_MAX: not to be killed */
    bool wanted;     /* the pool did not ask for its end */
    bool plays_attacks;
    unsigned pin_generation;           /* of the PIN it was given */
    struct control_message last_words; /* FAILED, of one that did not start */
};

struct supervisor {
    struct control_configure configure; /* its strings are in first_message */
    bool configured;
    struct pin *pin;
    uint32_t retry; /* id of the last RETRY */
    bool attacks_known;
    bool prevents_wrap_out;
    int signals;
    struct buf *out;
    struct child child[CHILDREN_MAX];
    uint8_t first_message[CONTROL_MAX];
    uint8_t in[CONTROL_MAX];
};

/* ---------------------------------------------------------------- to the pool ------ */

static void tell(struct supervisor *s, const struct control_message *m)
{
    int r = control_send(CONTROL_FD, s->out, m, -1);

    /* A pool that does not read is a pool that hangs; it pings and would end us. */
    if (r < 0 && r != TEKD_ECLOSED)
        log_event(LOG_WARN, "hsm", "pool-not-listening", LOG_STR("error", tekd_errname(r)));
}

static void tell_pin(struct supervisor *s)
{
    struct control_message m = {.kind = CONTROL_PIN, .id = s->retry};

    m.pin.state = pin_state(s->pin);
    (void)snprintf(m.pin.text, sizeof(m.pin.text), "%s", pin_text(s->pin));
    tell(s, &m);
}

static void tell_exited(struct supervisor *s, uint32_t id, int error, const char *text)
{
    struct control_message m = {.kind = CONTROL_EXITED, .id = id};

    m.ended.error = error;
    (void)snprintf(m.ended.text, sizeof(m.ended.text), "%s", text);
    tell(s, &m);
}

/* ---------------------------------------------------------------- a new worker ----- */

/* The PIN waits in a pipe: what the parent has in locked memory is zero in a child. */
static int pin_to_pipe(const struct pin *pin, int *ret_fd)
{
    const struct secret *secret = pin_peek(pin);
    AUTO_FD int in = -1;
    AUTO_FD int out = -1;
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0)
        return TEKD_EIO;
    in = pair[0];
    out = pair[1];
    if (write(out, secret_peek(secret), secret_len(secret)) != (ssize_t)secret_len(secret))
        return TEKD_EIO;
    *ret_fd = TAKE_FD(in);
    return 0;
}

/* Moves the three to where worker.h says, and closes everything else. */
static int arrange_descriptors(int socket, int report, int pin)
{
    const int from[] = {socket, report, pin};
    const int to[] = {WORKER_SOCKET_FD, WORKER_REPORT_FD, WORKER_PIN_FD};
    int high[3];

    for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
        high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, WORKER_PIN_FD + 1);
        if (high[i] < 0)
            return -1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
        if (dup3(high[i], to[i], O_CLOEXEC) < 0)
            return -1;
    }
    return close_range(WORKER_PIN_FD + 1, ~0U, 0);
}

static int set_environment(const struct control_configure *c)
{
    for (size_t i = 0; i < c->n_env; i++) {
        /* The string lives in the datagram, which the worker keeps. */
        if (putenv((char *)(uintptr_t)c->env[i]) != 0)
            return -1;
    }
    return 0;
}

/* In the child. */
static _Noreturn void become_worker(const struct supervisor *s, const struct child *c,
                                    const int fds[static 3], pid_t parent)
{
    const struct worker_options o = {.role = c->role,
                                     .configure = &s->configure,
                                     .play_attacks = c->plays_attacks,
                                     .prevents_wrap_out = s->prevents_wrap_out,
                                     .id = c->id,
                                     .parent = parent};
    sigset_t none;

    (void)sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
        _exit(1);
    if (getppid() != parent) /* it ended before we asked to die with it */
        _exit(1);
    if (arrange_descriptors(fds[0], fds[1], fds[2]) < 0 || set_environment(&s->configure) < 0)
        _exit(1);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    _exit(worker_run(&o));
}

static int fork_worker(struct supervisor *s, struct child *c)
{
    AUTO_FD int pin = -1;
    AUTO_FD int ours = -1;
    AUTO_FD int theirs = -1;
    pid_t parent = getpid();
    int pair[2];
    int r = pin_to_pipe(s->pin, &pin);

    if (r < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return TEKD_EIO;
    ours = pair[0];
    theirs = pair[1];
    c->pin_generation = pin_generation(s->pin);
    c->plays_attacks = c->role == PROTOCOL_ROLE_KEY && !s->attacks_known;
    c->pid = fork();
    if (c->pid < 0)
        return TEKD_EIO;
    if (c->pid == 0)
        become_worker(s, c, (const int[]){c->socket, theirs, pin}, parent);
    c->report = TAKE_FD(ours);
    return 0;
}

static void child_clear(struct child *c)
{
    if (c->socket >= 0)
        (void)close(c->socket);
    if (c->report >= 0)
        (void)close(c->report);
    *c = (struct child){.socket = -1, .report = -1};
}

static void start_child(struct supervisor *s, struct child *c)
{
    struct control_message m = {.kind = CONTROL_FORKED, .id = c->id};
    int r;

    if (pin_state(s->pin) != CONTROL_PIN_HAVE) {
        tell_exited(s, c->id, TEKD_EPIN, pin_text(s->pin));
        child_clear(c);
        return;
    }
    r = fork_worker(s, c);
    if (r < 0) {
        log_event(LOG_ERROR, "hsm", "worker-not-started", LOG_STR("call", "fork"),
                  LOG_STR("error", strerrorname_np(errno)));
        tell_exited(s, c->id, TEKD_EHSM, "a worker could not be forked");
        child_clear(c);
        return;
    }
    (void)close(c->socket); /* else the pool would not see the worker's end */
    c->socket = -1;
    c->state = CHILD_STARTING;
    c->started_us = clock_mono_us();
    m.pid = c->pid;
    tell(s, &m);
}

static struct child *find_state(struct supervisor *s, enum child_state state)
{
    struct child *found = NULL;

    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        struct child *c = &s->child[i];

        /* The one asked for first. */
        if (c->state == state && (found == NULL || (int32_t)(c->id - found->id) < 0))
            found = c;
    }
    return found;
}

static void start_next(struct supervisor *s)
{
    struct child *c;

    while (find_state(s, CHILD_STARTING) == NULL && (c = find_state(s, CHILD_WAITING)) != NULL &&
           pin_refresh(s->pin))
        start_child(s, c);
}

/* ---------------------------------------------------------------- a worker's word -- */

static void on_ready(struct supervisor *s, struct child *c, struct control_message *m)
{
    c->state = CHILD_SERVING;
    (void)close(c->report);
    c->report = -1;
    if (c->pin_generation == pin_generation(s->pin))
        pin_accepted(s->pin);
    if (c->plays_attacks) {
        s->attacks_known = true;
        s->prevents_wrap_out = m->ready.prevents_wrap_out;
    }
    m->ready.prevents_wrap_out = s->prevents_wrap_out;
    log_event(LOG_INFO, "hsm", "worker-ready", LOG_STR("role", protocol_role_name(c->role)),
              LOG_INT("pid", c->pid), LOG_STR("token", m->ready.label),
              LOG_INT("ms", (clock_mono_us() - c->started_us) / 1000));
    tell(s, m);
}

static void on_failed(struct supervisor *s, struct child *c, const struct control_message *m)
{
    c->last_words = *m;
    /* Of a PIN that was replaced meanwhile nothing is to be remembered. */
    if (m->ended.error == TEKD_EPIN && c->pin_generation == pin_generation(s->pin)) {
        pin_refused(s->pin, m->ended.text);
        tell_pin(s);
    }
    tell(s, m);
}

static void hear_child(struct supervisor *s, struct child *c)
{
    struct control_message m;
    int fd = -1;
    int r = control_receive(c->report, s->in, &m, &fd);

    if (fd >= 0)
        (void)close(fd);
    if (r == TEKD_EAGAIN)
        return;
    m.id = c->id;
    if (r == 0 && m.kind == CONTROL_READY) {
        on_ready(s, c, &m);
    } else if (r == 0 && m.kind == CONTROL_FAILED) {
        on_failed(s, c, &m);
    } else if (c->report >= 0) {
        (void)close(c->report); /* its end; what it was is for waitpid() to say */
        c->report = -1;
    }
}

/* ---------------------------------------------------------------- its end ---------- */

static void describe_end(const struct child *c, int status, char text[static HSM_TEXT_MAX])
{
    if (c->last_words.kind == CONTROL_FAILED)
        (void)snprintf(text, HSM_TEXT_MAX, "%.*s", HSM_TEXT_MAX - 1, c->last_words.ended.text);
    else if (WIFSIGNALED(status))
        (void)snprintf(text, HSM_TEXT_MAX, "worker %d killed by SIG%s", (int)c->pid,
                       sigabbrev_np(WTERMSIG(status)));
    else
        (void)snprintf(text, HSM_TEXT_MAX, "worker %d ended with status %d", (int)c->pid,
                       WEXITSTATUS(status));
}

static int error_of_end(const struct child *c, int status)
{
    if (c->last_words.kind == CONTROL_FAILED)
        return c->last_words.ended.error;
    return c->wanted || !WIFEXITED(status) || WEXITSTATUS(status) != 0 ? TEKD_EHSM : 0;
}

static void child_ended(struct supervisor *s, struct child *c, int status)
{
    char text[HSM_TEXT_MAX];
    bool started = c->state == CHILD_SERVING;

    describe_end(c, status, text);
    log_event(c->wanted ? LOG_WARN : LOG_INFO, "hsm", "worker-ended",
              LOG_STR("role", protocol_role_name(c->role)), LOG_INT("pid", c->pid),
              LOG_STR("how", text), LOG_STR("when", started ? "serving" : "starting"));
    tell_exited(s, c->id, c->wanted ? error_of_end(c, status) : 0, text);
    child_clear(c);
}

static void reap(struct supervisor *s)
{
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        struct child *c = &s->child[i];
        int status;

        if (c->pid == 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
            continue;
        /* What it said before it ended comes first. */
        if (c->report >= 0)
            hear_child(s, c);
        child_ended(s, c, status);
    }
}

/* Whoever is over its time. */
static void kill_due(struct supervisor *s, int64_t now)
{
    int64_t start_us = (int64_t)s->configure.start_timeout_ms * 1000;

    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        struct child *c = &s->child[i];
        bool late = c->state == CHILD_STARTING && now - c->started_us > start_us;

        if (c->pid == 0 || (now < c->kill_at && !late))
            continue;
        if (late && c->last_words.kind != CONTROL_FAILED) {
            c->last_words.kind = CONTROL_FAILED;
            c->last_words.ended.error = TEKD_EHSM;
            (void)snprintf(c->last_words.ended.text, sizeof(c->last_words.ended.text),
                           "the module hung while a worker started");
        }
        (void)kill(c->pid, SIGKILL);
        c->kill_at = INT64_MAX;
        c->started_us = now; /* killed once; its end is waited for */
    }
}

/* ---------------------------------------------------------------- from the pool ---- */

static void on_configure(struct supervisor *s, const struct control_message *m, int fd)
{
    struct pin_source source;

    s->configure = m->configure;
    log_open(STDERR_FILENO, (enum log_format)s->configure.log_format,
             (enum log_level)s->configure.log_level);
    source = (struct pin_source){.kind = s->configure.pin_source,
                                 .name = s->configure.pin,
                                 .latch_file = s->configure.latch_file,
                                 .token = s->configure.token,
                                 .module = s->configure.module};
    if (pin_new(&source, &s->pin) < 0)
        return;
    s->configured = true;
    pin_load(s->pin, fd);
    tell_pin(s);
}

static void on_spawn(struct supervisor *s, const struct control_message *m, int *fd)
{
    struct child *c = NULL;

    for (size_t i = 0; i < CHILDREN_MAX && c == NULL; i++) {
        if (s->child[i].state == CHILD_FREE)
            c = &s->child[i];
    }
    if (c == NULL || *fd < 0) {
        tell_exited(s, m->id, TEKD_EHSM, "too many workers that do not end");
        return;
    }
    *c = (struct child){.state = CHILD_WAITING,
                        .id = m->id,
                        .role = m->role,
                        .socket = TAKE_FD(*fd),
                        .report = -1,
                        .kill_at = INT64_MAX,
                        .wanted = true};
}

static void on_kill(struct supervisor *s, const struct control_message *m)
{
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        struct child *c = &s->child[i];

        if (c->state == CHILD_FREE || c->id != m->id)
            continue;
        c->wanted = c->wanted && m->grace_ms == 0;
        c->kill_at = clock_mono_us() + (int64_t)m->grace_ms * 1000;
        if (c->state == CHILD_WAITING) /* never was */
            child_clear(c);
    }
}

static void on_retry(struct supervisor *s, const struct control_message *m, int fd)
{
    s->retry = m->id;
    pin_retry(s->pin, fd);
    tell_pin(s);
}

static void obey(struct supervisor *s, const struct control_message *m, int *fd)
{
    const struct control_message pong = {.kind = CONTROL_PONG, .id = m->id};

    if (!s->configured) {
        if (m->kind == CONTROL_CONFIGURE)
            on_configure(s, m, *fd);
        return;
    }
    if (m->kind == CONTROL_SPAWN)
        on_spawn(s, m, fd);
    else if (m->kind == CONTROL_KILL)
        on_kill(s, m);
    else if (m->kind == CONTROL_RETRY)
        on_retry(s, m, *fd);
    else if (m->kind == CONTROL_PING)
        tell(s, &pong);
}

/* Everything the pool has said.  Returns whether it still is there. */
static bool listen_to_pool(struct supervisor *s)
{
    struct control_message m;
    int r = 0;

    while (r == 0) {
        AUTO_FD int fd = -1;

        /* The strings of the first message are used until the end. */
        r = control_receive(CONTROL_FD, s->configured ? s->in : s->first_message, &m, &fd);
        if (r == 0)
            obey(s, &m, &fd);
    }
    return r == TEKD_EAGAIN;
}

/* ---------------------------------------------------------------- the loop --------- */

static void earliest(int64_t *at, int64_t other)
{
    if (other < *at)
        *at = other;
}

/* How long there is nothing to do by the clock, in ms; -1: for ever. */
static int idle_ms(const struct supervisor *s, int64_t now)
{
    int64_t at = INT64_MAX;
    bool waiting = false;

    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        const struct child *c = &s->child[i];

        waiting = waiting || c->state == CHILD_WAITING;
        if (c->pid == 0)
            continue;
        earliest(&at, c->kill_at);
        if (c->state == CHILD_STARTING)
            earliest(&at, c->started_us + (int64_t)s->configure.start_timeout_ms * 1000);
    }
    /* One that waits may do so for a file of the PIN that has not settled. */
    if (s->configured && (waiting || pin_state(s->pin) != CONTROL_PIN_HAVE))
        earliest(&at, now + (int64_t)PIN_POLL_MS * 1000);
    if (at == INT64_MAX)
        return -1;
    return at <= now ? 0 : (int)((at - now) / 1000 + 1);
}

static void wait_for_something(struct supervisor *s)
{
    struct pollfd set[2 + CHILDREN_MAX];
    nfds_t n = 0;
    struct signalfd_siginfo info;

    set[n++] = (struct pollfd){.fd = CONTROL_FD, .events = POLLIN};
    set[n++] = (struct pollfd){.fd = s->signals, .events = POLLIN};
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        if (s->child[i].report >= 0)
            set[n++] = (struct pollfd){.fd = s->child[i].report, .events = POLLIN};
    }
    (void)poll(set, n, idle_ms(s, clock_mono_us()));
    while (read(s->signals, &info, sizeof(info)) > 0)
        ; /* reap() looks at every child anyway */
}

static void tend(struct supervisor *s)
{
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        if (s->child[i].report >= 0)
            hear_child(s, &s->child[i]);
    }
    reap(s);
    kill_due(s, clock_mono_us());
    start_next(s);
}

static bool children_left(const struct supervisor *s)
{
    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        if (s->child[i].pid != 0)
            return true;
    }
    return false;
}

/* The pool closed the workers' sockets before it went: they are ending. */
static void end_children(struct supervisor *s)
{
    int64_t now = clock_mono_us();

    for (size_t i = 0; i < CHILDREN_MAX; i++) {
        struct child *c = &s->child[i];

        c->wanted = false;
        c->kill_at = now + (int64_t)END_MS * 1000;
        if (c->state == CHILD_WAITING)
            child_clear(c);
    }
    /* Before the first wait: the signal of one that has ended may have been read already. */
    reap(s);
    while (children_left(s)) {
        struct pollfd signals = {.fd = s->signals, .events = POLLIN};
        struct signalfd_siginfo info;

        (void)poll(&signals, 1, idle_ms(s, clock_mono_us()));
        while (read(s->signals, &info, sizeof(info)) > 0)
            ; /* reap() looks at every child anyway */
        reap(s);
        kill_due(s, clock_mono_us());
    }
}

static int supervisor_init(struct supervisor *s)
{
    sigset_t chld;

    for (size_t i = 0; i < CHILDREN_MAX; i++)
        s->child[i] = (struct child){.socket = -1, .report = -1};
    (void)sigemptyset(&chld);
    (void)sigaddset(&chld, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &chld, NULL);
    s->signals = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0)
        return TEKD_EIO;
    return buf_new(CONTROL_MAX, &s->out);
}

int supervisor_run(void)
{
    static struct supervisor s;

    if (supervisor_init(&s) < 0)
        return 1;
    while (listen_to_pool(&s)) {
        if (s.configured)
            tend(&s);
        if (s.configured && pin_poll(s.pin))
            tell_pin(&s);
        wait_for_something(&s);
    }
    end_children(&s);
    pin_free(s.pin);
    buf_free(s.out);
    return 0;
}
