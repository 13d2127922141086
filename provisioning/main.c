/* tek-provision: the table of its commands. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "provision.h"
#include "tekd/err.h"
#include "tekd/fds.h"
#include "tekd/log.h"

#define OPTS_TOKEN   (OPT(OPT_MODULE) | OPT(OPT_TOKEN) | OPT(OPT_PIN_FILE))
#define OPTS_TOKEN_2 (OPT(OPT_PROFILE) | OPT(OPT_ENV))
#define OPTS_NAMES   (OPT(OPT_ID) | OPT(OPT_WRAP))

static const struct command commands[] = {
    {{"token", NULL},
     "initialise a blank token and set its PINs",
     OPT(OPT_MODULE) | OPT(OPT_LABEL) | OPT(OPT_SO_PIN_FILE) | OPT(OPT_PIN_FILE),
     OPTS_TOKEN_2 | OPT(OPT_GENERATE_PINS),
     cmd_token},
    {{"kek", "storage"},
     "make the KEK under which TEKs are stored",
     OPTS_TOKEN | OPT(OPT_LABEL),
     OPTS_TOKEN_2 | OPTS_NAMES,
     cmd_kek_storage},
    {{"kek", "bsa"},
     "make a KEK for a BSA and hand it out",
     OPTS_TOKEN | OPT(OPT_LABEL),
     OPTS_TOKEN_2 | OPTS_NAMES | OPT(OPT_EXPORT_DEMO) | OPT(OPT_RECEIVER) | OPT(OPT_OUT),
     cmd_kek_bsa},
    {{"kek", "import"},
     "bring in a KEK whose clear value is in a file",
     OPTS_TOKEN | OPT(OPT_LABEL) | OPT(OPT_USE) | OPT(OPT_FROM),
     OPTS_TOKEN_2 | OPTS_NAMES,
     cmd_kek_import},
    {{"kek", "public"},
     "bring in a BSA's RSA public key as its KEK",
     OPTS_TOKEN | OPT(OPT_LABEL) | OPT(OPT_FROM),
     OPTS_TOKEN_2 | OPTS_NAMES,
     cmd_kek_public},
    {{"key", "checkpoint"},
     "make the key that signs the audit log's checkpoints",
     OPTS_TOKEN | OPT(OPT_LABEL),
     OPTS_TOKEN_2 | OPT(OPT_ID) | OPT(OPT_OUT) | OPT(OPT_TYPE),
     cmd_key},
    {{"key", "tls"},
     "make the EC P-256 key of the server's certificate",
     OPTS_TOKEN | OPT(OPT_LABEL),
     OPTS_TOKEN_2 | OPT(OPT_ID) | OPT(OPT_OUT) | OPT(OPT_CSR) | OPT(OPT_NAME) | OPT(OPT_HOST),
     cmd_key},
    {{"pki", "ca"}, "make a development CA", OPT(OPT_DIR), OPT(OPT_NAME), cmd_pki_ca},
    {{"pki", "cert"},
     "issue a certificate of the development CA",
     OPT(OPT_DIR) | OPT(OPT_NAME),
     OPTS_TOKEN | OPTS_TOKEN_2 | OPT(OPT_HOST) | OPT(OPT_TOKEN_KEY),
     cmd_pki_cert},
    {{"pki", "revoke"},
     "put a certificate on the CRL",
     OPT(OPT_DIR) | OPT(OPT_NAME),
     0,
     cmd_pki_revoke},
    {{"pki", "crl"}, "make the CRL anew, for another 30 days", OPT(OPT_DIR), 0, cmd_pki_crl},
    {{"list", NULL},
     "list the token's keys and what is wrong with them",
     OPTS_TOKEN,
     OPTS_TOKEN_2,
     cmd_list},
};

/* Those that begin with this word; NULL: all.  How many that are. */
static size_t print_commands(FILE *out, const char *word)
{
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *c = &commands[i];

        if (word && strcmp(word, c->words[0]) != 0)
            continue;
        fprintf(out, "  %-5s %-12s %s\n", c->words[0], c->words[1] ? c->words[1] : "", c->summary);
        n++;
    }
    return n;
}

static void usage(FILE *out)
{
    fputs("usage: tek-provision COMMAND [OPTION]...\n\n"
          "Tokens, keys and the development PKI of tekd.\n\n",
          out);
    (void)print_commands(out, NULL);
    fputs("\ntek-provision COMMAND --help says what a command takes, tek-provision --version the "
          "version.\n"
          "Exit status: 0 done, 1 refused or failed, 2 usage, 3 HSM not reachable.\n",
          out);
}

/* The command whose words argv begins with; *ret_words says how many. */
static const struct command *find(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *c = &commands[i];

        if (argc < 2 || strcmp(argv[1], c->words[0]) != 0)
            continue;
        if (c->words[1] && (argc < 3 || strcmp(argv[2], c->words[1]) != 0))
            continue;
        *ret_words = c->words[1] ? 2 : 1;
        return c;
    }
    return NULL;
}

static int exit_status(int r)
{
    if (r >= 0)
        return 0;
    if (r == TEKD_EINVAL)
        return 2;
    return r == TEKD_EHSM ? 3 : 1;
}

/* What could not be printed was not said; what was made is there. */
static int printed(int status)
{
    if (fds_stdout_written())
        return status;
    return status == 0 ? exit_status(options_fail(TEKD_EIO, "standard output cannot be written"))
                       : status;
}

/* No command: "kek --help" asks for those that begin with this word, all else is wrong. */
static int run_none(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[2], "--help") == 0 && print_commands(stdout, argv[1]) > 0)
        return printed(0);
    usage(stderr);
    return 2;
}

/*
 * PINs and keys stand in locked memory here, but a module has copies of its own: no core file and
 * no debugger.  And a module writes to a link that may be gone: that is an error of its call, not
 * the end of a ceremony in the middle.
 */
static void protect(void)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    struct options o;
    const struct command *c;
    int words = 0;

    if (fds_hold_standard() < 0)
        return exit_status(TEKD_EIO);
    protect();
    /* What goes wrong is said in a sentence; the calls behind it only to who debugs. */
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_ERROR);
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return printed(0);
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        (void)puts("tek-provision " TEKD_VERSION);
        return printed(0);
    }
    c = find(argc, argv, &words);
    if (!c)
        return run_none(argc, argv);
    if (options_read(c, argc - words, argv + words, &o) < 0)
        return 2;
    if (o.value[OPT_HELP]) {
        options_help(c, stdout);
        return printed(0);
    }
    return printed(exit_status(c->run(&o)));
}
