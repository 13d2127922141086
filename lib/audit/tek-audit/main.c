#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tek-audit.h"
#include "tekd/err.h"
#include "tekd/fds.h"

enum { STATUS_DONE = 0, STATUS_REFUSED = 1, STATUS_USAGE = 2, STATUS_UNREADABLE = 3 };

struct options {
    const char *key[BROUGHT_MAX];
    size_t n_keys;
    bool too_many;
    const char *since;
    const char *remember;
    const char *origin;
    const char *peer;
    const char *tsa;
    struct ledger_wanted wanted;
    const char *witness[WITNESSES_MAX];
    size_t n_witnesses;
    bool first;
    bool ledger;
    bool json;
    bool csv;
};

/* Letters of the long options; those of a subcommand are a string of them. */
static const struct option long_options[] = {
    {"key", required_argument, NULL, 'k'},
    {"since", required_argument, NULL, 's'},
    {"first", no_argument, NULL, 'f'},
    {"remember", required_argument, NULL, 'r'},
    {"origin", required_argument, NULL, 'o'},
    {"ledger", no_argument, NULL, 'l'},
    {"tsa", required_argument, NULL, 't'},
    {"witness", required_argument, NULL, 'w'},
    {"peer", required_argument, NULL, 'p'},
    {"json", no_argument, NULL, 'j'},
    {"csv", no_argument, NULL, 'c'},
    {"bsa", required_argument, NULL, 'B'},
    {"content", required_argument, NULL, 'C'},
    {"from", required_argument, NULL, 'F'},
    {"until", required_argument, NULL, 'U'},
    {"pending", no_argument, NULL, 'P'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

static const char usage[] =
    "usage: tek-audit verify DIR --key PUB [--key PUB]... (--first | --since NOTE)\n"
    "                        [--origin ORIGIN] [--tsa CA] [--witness KEY]...\n"
    "                        [--remember FILE] [--ledger] [--json]\n"
    "       tek-audit ledger DIR [--bsa ID] [--content CONTENT-ID] [--from TIME] [--until TIME]\n"
    "                        [--pending] [--json | --csv]\n"
    "       tek-audit prove DIR MESSAGE-ID [--peer BSA]\n"
    "       tek-audit --help | --version\n"
    "exit status: 0 done, 1 verification failed or no such message, 2 usage, 3 cannot read\n";

static int complain(int status, const char *what, const char *why)
{
    (void)fprintf(stderr, "tek-audit: %s: %s\n", what, why);
    return status;
}

/* Why a file could not be read; NULL: as the error says. */
static int complain_read(const char *path, int error, const char *why)
{
    return complain(STATUS_UNREADABLE, path, why ? why : tekd_strerror(error));
}

static int open_dir(const char *dir, int *ret_fd)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return complain(STATUS_UNREADABLE, dir, strerror(errno));
    *ret_fd = fd;
    return STATUS_DONE;
}

static int load_key(struct audit *a, const char *path)
{
    AUTO(buf) struct buf *b = NULL;
    EVP_PKEY *key = NULL;
    const char *why = NULL;
    int r = file_read(AT_FDCWD, path, KEY_FILE_MAX, &b, &why);

    if (r < 0)
        return complain_read(path, r, why);
    if (key_parse(buf_data(b), buf_len(b), &key) < 0)
        return complain(STATUS_UNREADABLE, path,
                        "not a public key (SubjectPublicKeyInfo, PEM or DER) of P-256 or Ed25519");
    r = audit_bring(a, key);
    if (r == TEKD_EEXIST)
        return complain(STATUS_USAGE, path, "this key was given already");
    return r < 0 ? complain(STATUS_UNREADABLE, path, tekd_strerror(r)) : STATUS_DONE;
}

static int load_since(struct audit *a, const char *path)
{
    AUTO(buf) struct buf *b = NULL;
    const char *why = NULL;
    int r = file_read(AT_FDCWD, path, NOTE_MAX, &b, &why);

    if (r < 0)
        return complain_read(path, r, why);
    a->since = malloc(sizeof *a->since);
    if (!a->since || note_read(buf_data(b), buf_len(b), a->since) < 0)
        return complain(STATUS_UNREADABLE, path, "not a note");
    return STATUS_DONE;
}

/* Octet for octet, whole or not at all: the next run trusts it. */
static int remember(const struct audit *a, const char *path)
{
    AUTO(buf) struct buf *b = NULL;
    AUTO(buf) struct buf *temporary = NULL;
    AUTO_FD int fd = -1;
    int r = buf_new(NOTE_MAX, &b);

    if (r == 0)
        r = buf_new(strlen(path) + 8, &temporary);
    if (r == 0)
        r = note_write(&a->checkpoint, b);
    if (r == 0)
        r = buf_printf(temporary, "%s.new", path);
    if (r < 0)
        return complain(STATUS_UNREADABLE, path, tekd_strerror(r));
    fd = open(buf_str(temporary), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0 || write(fd, buf_data(b), buf_len(b)) != (ssize_t)buf_len(b) || fsync(fd) < 0 ||
        rename(buf_str(temporary), path) < 0)
        return complain(STATUS_UNREADABLE, path, strerror(errno));
    return STATUS_DONE;
}

static enum report_form form_of(const struct options *o)
{
    if (o->json)
        return REPORT_JSON;
    return o->csv ? REPORT_CSV : REPORT_TEXT;
}

static int run(struct audit *a, const char *dir)
{
    int r = audit_run(a);

    if (r < 0 && a->unreadable[0]) {
        char path[PATH_MAX];

        (void)snprintf(path, sizeof path, "%s/%s", dir, a->unreadable);
        return complain_read(path, r, a->why);
    }
    if (r < 0)
        return complain_read(dir, r, NULL);
    return a->n_failures > 0 ? STATUS_REFUSED : STATUS_DONE;
}

static int load_tsa(struct audit *a, const char *path)
{
    int r = stamps_read_ca(path, &a->tsa);

    if (r == TEKD_EFORMAT)
        return complain(STATUS_UNREADABLE, path, "no certificates in PEM");
    return r < 0 ? complain(STATUS_UNREADABLE, path, tekd_strerror(r)) : STATUS_DONE;
}

static int load_witnesses(struct audit *a, const struct options *o)
{
    for (size_t i = 0; i < o->n_witnesses; i++) {
        int r = witness_read_key(o->witness[i], &a->witness[i]);

        if (r == TEKD_EFORMAT)
            return complain(STATUS_UNREADABLE, o->witness[i],
                            "not a verifier key for cosignatures (NAME+HASH+BASE64)");
        if (r < 0)
            return complain(STATUS_UNREADABLE, o->witness[i], tekd_strerror(r));
    }
    a->n_witnesses = o->n_witnesses;
    return STATUS_DONE;
}

static int prepare_verify(struct audit *a, const char *dir, const struct options *o)
{
    int status = STATUS_DONE;

    for (size_t i = 0; status == STATUS_DONE && i < o->n_keys; i++)
        status = load_key(a, o->key[i]);
    if (status == STATUS_DONE && o->since)
        status = load_since(a, o->since);
    if (status == STATUS_DONE && o->tsa)
        status = load_tsa(a, o->tsa);
    if (status == STATUS_DONE)
        status = load_witnesses(a, o);
    if (status == STATUS_DONE)
        status = open_dir(dir, &a->dirfd);
    a->origin_wanted = o->origin;
    return status;
}

static int do_verify(char **args, const struct options *o)
{
    AUTO(audit) struct audit *a = NULL;
    int status;

    if (o->n_keys == 0 || o->too_many || o->first == (o->since != NULL)) {
        (void)fputs(usage, stderr);
        return STATUS_USAGE;
    }
    if (audit_new(&a) < 0)
        return complain(STATUS_UNREADABLE, args[0], tekd_strerror(TEKD_ENOMEM));
    status = prepare_verify(a, args[0], o);
    if (status == STATUS_DONE)
        status = run(a, args[0]);
    if (status > STATUS_REFUSED)
        return status;
    if (!o->json)
        report_failures(a, stderr);
    if (status == STATUS_DONE || o->json)
        report_verify(a, form_of(o), stdout);
    if (status == STATUS_DONE && o->ledger && !o->json)
        report_ledger(a, NULL, REPORT_TEXT, stdout);
    if (status == STATUS_DONE && o->remember)
        status = remember(a, o->remember);
    return status;
}

static int do_ledger(char **args, const struct options *o)
{
    AUTO(audit) struct audit *a = NULL;
    int status;

    if (audit_new(&a) < 0)
        return complain(STATUS_UNREADABLE, args[0], tekd_strerror(TEKD_ENOMEM));
    a->unsigned_ok = true;
    status = open_dir(args[0], &a->dirfd);
    if (status == STATUS_DONE)
        status = run(a, args[0]);
    if (status > STATUS_REFUSED)
        return status;
    report_failures(a, stderr);
    report_ledger(a, &o->wanted, form_of(o), stdout);
    (void)fputs("tek-audit: no signature was checked: tek-audit verify does\n", stderr);
    return status;
}

static int do_prove(char **args, const struct options *o)
{
    struct prove p = {.message_id = args[1], .peer = o->peer};
    AUTO_FD int fd = -1;
    int status = open_dir(args[0], &fd);

    if (status != STATUS_DONE)
        return status;
    p.dirfd = fd;
    return prove_run(&p, stdout);
}

static const struct command {
    const char *name;
    const char *options; /* letters of long_options */
    int n_args;
    int (*run)(char **args, const struct options *o);
} commands[] = {
    {"verify", "ksfrotwljh", 1, do_verify},
    {"ledger", "jchBCFUP", 1, do_ledger},
    {"prove", "ph", 2, do_prove},
};

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Where the argument of an option goes; NULL: it takes none. */
static const char **text_of(struct options *o, int letter)
{
    const struct {
        int letter;
        const char **text;
    } texts[] = {{'s', &o->since},          {'r', &o->remember},    {'o', &o->origin},
                 {'p', &o->peer},           {'t', &o->tsa},         {'B', &o->wanted.bsa},
                 {'C', &o->wanted.content}, {'F', &o->wanted.from}, {'U', &o->wanted.until}};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i].letter == letter)
            return texts[i].text;
    return NULL;
}

static void option_key(struct options *o, const char *path)
{
    o->too_many = o->n_keys == BROUGHT_MAX;
    if (!o->too_many)
        o->key[o->n_keys++] = path;
}

static void option_set(struct options *o, int letter, const char *value)
{
    const char **text = text_of(o, letter);

    if (text)
        *text = value;
    else if (letter == 'k')
        option_key(o, value);
    else if (letter == 'f')
        o->first = true;
    else if (letter == 'l')
        o->ledger = true;
    else if (letter == 'w')
        o->witness[o->n_witnesses++] = value;
    else if (letter == 'j')
        o->json = true;
    else if (letter == 'P')
        o->wanted.pending = true;
    else
        o->csv = true;
}

/* Of the ledger's times; says which is none. */
static bool times_ok(const struct options *o)
{
    const char *const times[] = {o->wanted.from, o->wanted.until};

    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        if (!times[i] || ledger_time_ok(times[i]))
            continue;
        (void)complain(STATUS_USAGE, times[i],
                       "no time in UTC as 2026-11-22, 2026-11-22T13:15 or 2026-11-22T13:15:42Z");
        return false;
    }
    return true;
}

static int wrong_usage(void)
{
    (void)fputs(usage, stderr);
    return STATUS_USAGE;
}

/* What could not be written was not said. */
static int printed(int status)
{
    if (fds_stdout_written() || status != STATUS_DONE)
        return status;
    return complain(STATUS_UNREADABLE, "standard output", "cannot be written");
}

static int say(const char *text)
{
    (void)fputs(text, stdout);
    return printed(STATUS_DONE);
}

int main(int argc, char **argv)
{
    const struct command *c = argc > 1 ? command_find(argv[1]) : NULL;
    struct options o = {.n_keys = 0};
    int letter;

    if (fds_hold_standard() < 0)
        return STATUS_UNREADABLE;
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return say("tek-audit " TEKD_VERSION "\n");
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return say(usage);
    if (!c)
        return wrong_usage();
    while ((letter = getopt_long(argc - 1, argv + 1, "", long_options, NULL)) != -1) {
        if (letter == '?' || !strchr(c->options, letter) ||
            (letter == 'w' && o.n_witnesses == WITNESSES_MAX))
            return wrong_usage();
        if (letter == 'h')
            return say(usage);
        option_set(&o, letter, optarg);
    }
    if (argc - 1 - optind != c->n_args || !times_ok(&o))
        return wrong_usage();
    return printed(c->run(argv + 1 + optind, &o));
}
