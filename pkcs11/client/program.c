/*
 * tekd-hsm as a process.  It gets its control socket as descriptor CONTROL_FD, /dev/null as
 * standard input, our standard error as standard output and error (modules print to both), and no
 * other descriptor.  It asks the kernel itself to be killed when the thread that made it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

extern char **environ;

/* A module may take its time to finalise; a server that stops may not. */
#define STOP_MS 3000

int program_path(const char *wanted, char **ret_path)
{
    static const char name[] = "tekd-hsm";
    AUTO_MEM char *path = malloc(PATH_MAX + sizeof(name));
    ssize_t n;
    char *slash;

    if (path == NULL)
        return TEKD_ENOMEM;
    if (wanted != NULL) {
        if (strlen(wanted) >= PATH_MAX)
            return TEKD_EIO;
        memcpy(path, wanted, strlen(wanted) + 1);
        *ret_path = TAKE(path);
        return 0;
    }
    n = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (n <= 0)
        return TEKD_EIO;
    path[n] = 0;
    slash = strrchr(path, '/');
    if (slash == NULL)
        return TEKD_EIO;
    memcpy(slash + 1, name, sizeof(name));
    *ret_path = TAKE(path);
    return 0;
}

static int set_actions(posix_spawn_file_actions_t *a, int control)
{
    int e = posix_spawn_file_actions_addopen(a, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

    if (e == 0)
        e = posix_spawn_file_actions_adddup2(a, STDERR_FILENO, STDOUT_FILENO);
    if (e == 0)
        e = posix_spawn_file_actions_adddup2(a, control, CONTROL_FD);
    if (e == 0)
        e = posix_spawn_file_actions_addclosefrom_np(a, CONTROL_FD + 1);
    return e;
}

/* Signals as a fresh program has them, whatever this thread blocks. */
static int set_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    int e;

    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    e = posix_spawnattr_setsigmask(attr, &none);
    if (e == 0)
        e = posix_spawnattr_setsigdefault(attr, &all);
    if (e == 0)
        e = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return e;
}

static int spawn(const char *path, int control, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    char *argv[] = {(char *)(uintptr_t)path, NULL};
    int e = posix_spawn_file_actions_init(&actions);

    if (e != 0)
        return e;
    e = posix_spawnattr_init(&attr);
    if (e == 0) {
        e = set_actions(&actions, control);
        if (e == 0)
            e = set_attributes(&attr);
        if (e == 0)
            e = posix_spawn(ret_pid, path, &actions, &attr, argv, environ);
        (void)posix_spawnattr_destroy(&attr);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return e;
}

static int configure(struct hsm *h)
{
    const struct settings *s = &h->set;
    struct control_message m = {.kind = CONTROL_CONFIGURE};
    struct control_configure *c = &m.configure;
    int r;

    *c = (struct control_configure){.module = s->module,
                                    .token = s->token,
                                    .profile = s->profile,
                                    .checkpoint_key = s->checkpoint_key,
                                    .ed25519_key = s->ed25519_key,
                                    .checkpoint_key_before = s->checkpoint_key_before,
                                    .ed25519_key_before = s->ed25519_key_before,
                                    .tls_key = s->tls_key,
                                    .pin_source = s->pin_source,
                                    .pin_given = h->pin_fd >= 0,
                                    .pin = s->pin,
                                    .latch_file = s->latch_file,
                                    .log_format = (uint8_t)s->log_format,
                                    .log_level = (uint8_t)s->log_level,
                                    .start_timeout_ms = s->start_timeout_ms,
                                    .n_env = s->n_env};
    for (size_t i = 0; i < s->n_env; i++)
        c->env[i] = s->env[i];
    r = control_send(h->program.control, h->control_out, &m, h->pin_fd);
    if (h->pin_fd >= 0)
        (void)close(h->pin_fd); /* read once: a second tekd-hsm must be given the PIN anew */
    h->pin_fd = -1;
    return r;
}

int program_start(struct hsm *h)
{
    AUTO_FD int ours = -1;
    AUTO_FD int theirs = -1;
    int pair[2];
    int e, r;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        log_event(LOG_ERROR, "hsm", "program-not-started", LOG_STR("call", "socketpair"),
                  LOG_STR("error", strerrorname_np(errno)));
        return TEKD_EIO;
    }
    ours = pair[0];
    theirs = pair[1];
    /* dup2() onto itself would keep close-on-exec. */
    if (theirs == CONTROL_FD) {
        theirs = fcntl(CONTROL_FD, F_DUPFD_CLOEXEC, CONTROL_FD + 1);
        (void)close(CONTROL_FD);
        if (theirs < 0)
            return TEKD_EIO;
    }
    e = spawn(h->set.program, theirs, &h->program.pid);
    if (e != 0) {
        h->program.pid = 0;
        log_event(LOG_ERROR, "hsm", "program-not-started", LOG_STR("program", h->set.program),
                  LOG_STR("call", "posix_spawn"), LOG_STR("error", strerrorname_np(e)));
        return TEKD_EIO;
    }
    h->program.control = TAKE_FD(ours);
    h->program.started_us = clock_mono_us();
    h->program.pinged = false;
    h->program.greeted = false;
    h->program.ping_us = h->program.started_us;
    r = configure(h);
    if (r < 0)
        program_kill(&h->program);
    return r == TEKD_ETOOBIG ? r : r < 0 ? TEKD_EIO : 0;
}

static void reap(struct program *p)
{
    pid_t pid;

    do
        pid = waitpid(p->pid, NULL, 0);
    while (pid < 0 && errno == EINTR);
    (void)close(p->control);
    p->control = -1;
    p->pid = 0;
}

void program_kill(struct program *p)
{
    if (p->pid == 0)
        return;
    (void)kill(p->pid, SIGKILL); /* not reaped yet, so the number is still its own */
    reap(p);
}

void program_stop(struct program *p)
{
    struct pollfd gone = {.fd = p->control, .events = POLLIN};
    int64_t until = clock_mono_us() + (int64_t)STOP_MS * 1000;
    uint8_t octet;

    if (p->pid == 0)
        return;
    (void)shutdown(p->control, SHUT_WR);
    for (;;) {
        int64_t left_ms = (until - clock_mono_us()) / 1000;

        gone.revents = 0;
        if (left_ms <= 0 || (poll(&gone, 1, (int)left_ms) < 0 && errno != EINTR))
            break;
        /* What it still has to say is not of interest; its end is. */
        if ((gone.revents & (POLLIN | POLLHUP)) != 0 &&
            recv(p->control, &octet, 1, MSG_DONTWAIT | MSG_TRUNC) <= 0)
            break;
    }
    program_kill(p);
}
