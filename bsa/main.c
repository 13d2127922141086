/* tek-bsa: the reference BSA. */
#include "bsa.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <curl/curl.h>

#include "tekd/fds.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the name; returns an enum bsa_exit */
    const char *summary;
} commands[] = {
    {"request", request_run, "ask for the TEK of a content (Key Request)"},
    {"listen", listen_run, "take the TEKs that the server delivers (Key Delivery)"},
    {"collect", collect_run, "collect the deliveries that wait at the server"},
};

static void print_usage(FILE *out)
{
    (void)fputs("usage: tek-bsa COMMAND OPTION...\n\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        (void)fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    (void)fputs("\ntek-bsa COMMAND --help tells the options of a command, tek-bsa --version the "
                "version.\n",
                out);
}

/* A TEK stands in locked memory, but OpenSSL's key schedules do not. */
static void forbid_dumps(void)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    (void)prctl(PR_SET_DUMPABLE, 0);
}

/* What could not be printed was not said; a key that stands in a file, or was given, stays so. */
static int printed(int status)
{
    if (fds_stdout_written())
        return status;
    complain("standard output cannot be written");
    return status == BSA_DONE ? BSA_REFUSED : status;
}

int main(int argc, char **argv)
{
    int e;

    if (fds_hold_standard() < 0)
        return BSA_REFUSED;
    forbid_dumps();
    /* A peer that goes, and a file that may not grow, are errors of write(). */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    if (argc >= 2 && strcmp(argv[1], "--help") == 0) {
        print_usage(stdout);
        return printed(BSA_DONE);
    }
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        (void)puts("tek-bsa " TEKD_VERSION);
        return printed(BSA_DONE);
    }
    for (size_t i = 0; argc >= 2 && i < ARRAY_SIZE(commands); i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
            complain("curl_global_init failed");
            return BSA_REFUSED;
        }
        e = commands[i].run(argc - 1, argv + 1);
        curl_global_cleanup();
        return printed(e);
    }
    print_usage(stderr);
    return BSA_USAGE;
}
