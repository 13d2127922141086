/* tekd-hsm: started by tekd, with the socket it is told what to do on. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "worker.h"

static const char help[] =
    "tekd-hsm, the HSM side of tekd: holds the PIN, and runs one process for each session with\n"
    "the PKCS#11 module.  tekd starts it and tells it what to do over a socket; it has no use\n"
    "alone.\n"
    "\n"
    "  --help     this text\n"
    "  --version  the version\n"
    "\n"
    "To try a token: tek-provision list.  To see the workers: tekctl hsm status.\n";

static int usage(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)puts("tekd-hsm " TEKD_VERSION);
        return 0;
    }
    (void)fprintf(stderr,
                  "tekd-hsm: unknown argument \"%s\": only tekd starts this program, without "
                  "arguments; see tekd-hsm --help\n",
                  argv[1]);
    return 2;
}

static bool has_control_socket(void)
{
    int type = 0;
    int domain = 0;
    socklen_t len = sizeof(type);

    if (getsockopt(CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
        return false;
    len = sizeof(domain);
    return getsockopt(CONTROL_FD, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

/*
 * A terminal's ^C and a service manager's SIGTERM go to every process at once: tekd decides when
 * the workers are not needed any more, and they end when it closes their sockets.
 */
static void ignore_signals(void)
{
    static const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT};

    for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
        (void)signal(ignored[i], SIG_IGN);
}

/* Dies with the thread that started it; what it holds goes into no core file and no debugger. */
static int protect(void)
{
    const struct rlimit none = {0, 0};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 ||
        setrlimit(RLIMIT_CORE, &none) < 0) {
        perror("tekd-hsm: prctl");
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return usage(argc, argv);
    if (!has_control_socket()) {
        (void)fputs("tekd-hsm: only tekd starts this program; see tekd-hsm --help\n", stderr);
        return 2;
    }
    ignore_signals();
    if (protect() < 0)
        return 1;
    /* What it had is wiped, and nothing is to be written at the end. */
    _exit(supervisor_run());
}
