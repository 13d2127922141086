/*
 * tekd --config FILE [--check]
 */
#include "tekd.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/fds.h"
#include "tekd/log.h"

static const char usage[] =
    "usage: tekd --config FILE [--check]\n"
    "       tekd --sample-config | --version | --help\n"
    "\n"
    "The key manager of a broadcast service manager: makes traffic encryption keys in an HSM and\n"
    "gives them, wrapped, to enrolled encryptors over OMA BCAST CP-3.  Stays in the foreground;\n"
    "SIGHUP reads certificate, key, CA and CRL again, SIGTERM stops after the requests under way.\n"
    "\n"
    "  --config FILE     the configuration (YAML)\n"
    "  --check           a start that does not serve: read the TLS files, open the token and the\n"
    "                    store, verify keys and log, say what was found, stop.  Both are\n"
    "                    records of the log, and it cannot run beside the tekd that serves\n"
    "  --sample-config   print a commented configuration with every setting and its default\n"
    "\n"
    "Exit status: 0 stopped or nothing found, 1 failed, 2 usage, 3 the HSM does not answer or\n"
    "refused the PIN (--check), 74 the store failed.\n";

/* What is asked for and cannot be written is no success. */
static int printed(int status)
{
    if (fds_stdout_written())
        return status;
    (void)fputs("tekd: standard output cannot be written\n", stderr);
    return status == EXIT_OK ? EXIT_FAILED : status;
}

struct arguments {
    const char *config;
    bool check;
};

/* Returns whether to go on; else *ret_status is the exit status. */
static bool read_arguments(int argc, char **argv, struct arguments *ret_args, int *ret_status)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},  {"check", no_argument, NULL, 'k'},
        {"sample-config", no_argument, NULL, 's'}, {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    int o;

    *ret_status = EXIT_OK;
    while ((o = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (o) {
        case 'c':
            ret_args->config = optarg;
            break;
        case 'k':
            ret_args->check = true;
            break;
        case 's':
            *ret_status = config_print_sample(stdout) < 0 ? EXIT_FAILED : EXIT_OK;
            return false;
        case 'v':
            (void)puts("tekd " TEKD_VERSION);
            *ret_status = printed(EXIT_OK);
            return false;
        case 'h':
            (void)fputs(usage, stdout);
            *ret_status = printed(EXIT_OK);
            return false;
        default:
            (void)fputs(usage, stderr);
            *ret_status = EXIT_USAGE;
            return false;
        }
    }
    if (ret_args->config && optind == argc)
        return true;
    (void)fputs(usage, stderr);
    *ret_status = EXIT_USAGE;
    return false;
}

/* ---- starting -------------------------------------------------------------------------------- */

static int load_config(struct tekd *t, const char *path)
{
    struct config_error err = {.line = 0};
    int r = config_load(path, &t->config, &err);

    if (r < 0) {
        (void)fprintf(stderr, "tekd: %s\n", err.message);
        return r;
    }
    log_open(STDERR_FILENO, t->config->log.format, t->config->log.level);
    return 0;
}

/* Before anything is opened that would get its number. */
static int check_pin_fd(const struct config_hsm *c)
{
    if (c->pin != CONFIG_PIN_FD || fcntl((int)c->pin_fd, F_GETFD) >= 0)
        return 0;
    (void)fprintf(stderr,
                  "tekd: hsm.pin_fd: descriptor %d is not open: whoever starts tekd has to give it "
                  "the PIN there (%d<FILE in a shell)\n",
                  (int)c->pin_fd, (int)c->pin_fd);
    return TEKD_EINVAL;
}

/* Signals are for the main thread, which waits for them; threads inherit the mask. */
static void block_signals(sigset_t *ret_set)
{
    (void)sigemptyset(ret_set);
    (void)sigaddset(ret_set, SIGTERM);
    (void)sigaddset(ret_set, SIGINT);
    (void)sigaddset(ret_set, SIGHUP);
    (void)sigaddset(ret_set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, ret_set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* a dead HSM link must not end the process */
}

/* ---- serving --------------------------------------------------------------------------------- */

/* The exit status when the store has failed under us; else the one that is given. */
static int final_status(struct tekd *t, int status)
{
    int error = atomic_load(&t->fatal);

    if (error == 0)
        return status;
    status = status_of(error);
    log_event(LOG_ERROR, "tekd", "ended", LOG_STR("error", tekd_errname(error)),
              LOG_INT("status", status));
    return status;
}

static int serve(struct tekd *t, const sigset_t *set)
{
    const struct timespec second = {.tv_sec = 1};

    for (;;) {
        siginfo_t info;
        int sig;

        watch_tick(t);
        if (t->unsafe)
            return EXIT_FAILED;
        sig = sigtimedwait(set, &info, &second);
        if (sig == SIGTERM || sig == SIGINT)
            return EXIT_OK;
        if (sig == SIGHUP)
            reload_run(t, info.si_uid);
        /* Nothing more can be recorded, so nothing is finished either. */
        if (atomic_load(&t->fatal))
            _exit(final_status(t, EXIT_IO));
    }
}

/* One that is away, or refused the PIN, is waited for while tekd serves 503s. */
static int start_hsm(struct tekd *t)
{
    struct hsm_status s;

    if (setup_hsm(t) < 0)
        return EXIT_FAILED;
    hsm_status_get(t->hsm, &s);
    if (!status_hsm_refused(&s))
        return EXIT_OK;
    log_event(LOG_ERROR, "start", "hsm-refused", LOG_STR("error", tekd_errname(s.error)),
              LOG_STR("reason", s.reason));
    return EXIT_FAILED;
}

/* Part after part; a SIGTERM that comes meanwhile ends it between two. */
static int start(struct tekd *t)
{
    static int (*const steps[])(struct tekd *) = {
        setup_keys, setup_publish, setup_push, setup_front, setup_http, setup_probe, setup_admin};
    int r;

    if (start_hsm(t) != EXIT_OK)
        return EXIT_FAILED;
    r = setup_store(t);
    if (r < 0)
        return status_of(r);
    for (size_t i = 0; i < ARRAY_SIZE(steps) && !setup_stop_asked(); i++) {
        if (steps[i](t) < 0)
            return atomic_load(&t->fatal) ? status_of(atomic_load(&t->fatal)) : EXIT_FAILED;
    }
    return EXIT_OK;
}

/* One a connection, in and out, and those of loops, database, workers, files. */
#define DESCRIPTORS_PUSH    (PUSH_TOTAL_MAX + PUSH_IDLE_MAX)
#define DESCRIPTORS_BESIDES 128

/* The usual soft limit is what limits.connections is by default, and nothing would be left. */
static void raise_descriptors(const struct config *c)
{
    rlim_t wanted = (rlim_t)c->limits.connections + DESCRIPTORS_PUSH + DESCRIPTORS_BESIDES;
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur >= wanted)
        return;
    l.rlim_cur = wanted < l.rlim_max ? wanted : l.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur < wanted)
        log_event(LOG_WARN, "start", "few-descriptors", LOG_INT("limit", l.rlim_cur),
                  LOG_INT("wanted", wanted));
}

static int run(struct tekd *t, const sigset_t *set)
{
    struct hsm_status s;
    int status;

    raise_descriptors(t->config);
    status = start(t);
    if (status != EXIT_OK || setup_stop_asked())
        return status;
    hsm_status_get(t->hsm, &s);
    t->hsm_state = s.state;
    log_event(LOG_INFO, "tekd", "serving", LOG_STR("version", TEKD_VERSION),
              LOG_STR("bsm", t->config->bsm_id), LOG_INT("port", http_port(t->http, 0)),
              LOG_STR("token", s.token_label));
    status = serve(t, set);
    log_event(LOG_INFO, "tekd", "stopping");
    return status;
}

/* A dozen threads, of which some two work at a time, would keep half a megabyte each. */
#define MALLOC_ARENAS 2

int main(int argc, char **argv)
{
    struct arguments args = {.config = NULL};
    struct tekd t = {.config = NULL};
    sigset_t set;
    int status;

    if (fds_hold_standard() < 0)
        return EXIT_IO;
    if (!read_arguments(argc, argv, &args, &status))
        return status;
    (void)mallopt(M_ARENA_MAX, MALLOC_ARENAS);
    block_signals(&set);
    if (load_config(&t, args.config) < 0 || check_pin_fd(&t.config->hsm) < 0)
        return EXIT_FAILED;
    status = args.check ? printed(check_all(&t)) : run(&t, &set);
    setup_undo(&t);
    /* A stop writes to the store, too: one that could not is no clean one. */
    return final_status(&t, status);
}
