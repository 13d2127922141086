/*
 * tekctl [--socket PATH] [--json] COMMAND …
 */
#include "tekctl.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>

#include "tekd/err.h"
#include "tekd/fds.h"

static void print_usage(FILE *to)
{
    const struct command *c;

    (void)fputs("usage: tekctl [--socket PATH] [--json] COMMAND\n"
                "\n"
                "  --socket PATH   tekd's admin.socket (default " TEKCTL_SOCKET ")\n"
                "  --json          print the answer as one JSON document\n"
                "  --help          this text; after a command, what that command takes\n"
                "  --version       the version\n"
                "\n"
                "Commands:\n",
                to);
    for (size_t i = 0; (c = command_at(i)); i++)
        (void)fprintf(to, "  %s%s%s\n      %s\n", c->words, *c->synopsis ? " " : "", c->synopsis,
                      c->help);
    (void)fputs("\nExit status: 0 done, 1 refused or failed, 2 usage, 3 tekd cannot be reached.\n",
                to);
}

static void print_synopsis(FILE *to, const struct command *c)
{
    (void)fprintf(to, "usage: tekctl [--socket PATH] [--json] %s%s%s\n", c->words,
                  *c->synopsis ? " " : "", c->synopsis);
}

static int usage_of(const struct command *c)
{
    print_synopsis(stderr, c);
    return TEKCTL_USAGE;
}

/* What was asked for with --help. */
static void print_help(const struct command *c)
{
    print_synopsis(stdout, c);
    (void)printf("      %s\n", c->help);
}

/* ---- options to JSON ------------------------------------------------------------------------- */

/* The contents of a file as a JSON string; NULL with a complaint. */
static json_t *file_json(const char *path)
{
    FILE *f = fopen(path, "re");
    AUTO_MEM char *text = malloc(TEKCTL_FILE_MAX + 1);
    json_t *json;
    size_t n;

    if (!f || !text) {
        complain("%s: %s", path, strerror(errno));
        if (f)
            (void)fclose(f);
        return NULL;
    }
    n = fread(text, 1, TEKCTL_FILE_MAX + 1, f);
    if (ferror(f)) { /* of a folder, or halfway */
        complain("%s: %s", path, strerror(errno));
        (void)fclose(f);
        return NULL;
    }
    (void)fclose(f);
    if (n > TEKCTL_FILE_MAX) {
        complain("%s: larger than %d octets", path, TEKCTL_FILE_MAX);
        return NULL;
    }
    json = json_stringn(text, n);
    if (!json || memchr(text, '\0', n)) {
        complain("%s: no text; certificates are wanted in PEM form", path);
        json_decref(json);
        return NULL;
    }
    return json;
}

static json_t *int_json(const char *name, const char *text)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (errno || *end || end == text) {
        complain("--%s: expected a number, found \"%s\"", name, text);
        return NULL;
    }
    return json_integer(n);
}

static json_t *value_of(const struct option_rule *rule, const char *text)
{
    json_t *v;

    switch (rule->kind) {
    case OPTION_INT:
        return int_json(rule->name, text);
    case OPTION_FILE:
    case OPTION_FILE_LIST:
        return file_json(text);
    case OPTION_NO:
        return json_false();
    case OPTION_YES:
        return json_true();
    default:
        v = json_string(text);
        if (!v)
            complain("--%s: not UTF-8", rule->name);
        return v;
    }
}

static int set_option(json_t *request, const struct option_rule *rule, const char *text)
{
    json_t *v = value_of(rule, text), *list;

    if (!v)
        return TEKCTL_USAGE;
    if (rule->kind != OPTION_STR_LIST && rule->kind != OPTION_FILE_LIST)
        return json_object_set_new(request, rule->key, v) < 0 ? TEKCTL_FAILED : TEKCTL_DONE;
    list = json_object_get(request, rule->key);
    if (!list) {
        (void)json_object_set_new(request, rule->key, json_array());
        list = json_object_get(request, rule->key);
    }
    return json_array_append_new(list, v) < 0 ? TEKCTL_FAILED : TEKCTL_DONE;
}

static bool takes_argument(enum option_kind kind)
{
    return kind != OPTION_NO && kind != OPTION_YES;
}

static void long_options(const struct command *c, struct option *to)
{
    size_t n = 0;

    for (; n < COMMAND_OPTIONS_MAX && c->option[n].kind != OPTION_END; n++)
        to[n] = (struct option){.name = c->option[n].name,
                                .has_arg = takes_argument(c->option[n].kind) ? required_argument
                                                                             : no_argument,
                                .val = (int)n + 256};
    to[n++] = (struct option){.name = "help", .val = 'h'};
    to[n++] = (struct option){.name = "json", .val = 'j'};
    to[n] = (struct option){.name = NULL};
}

static bool has_required(const struct session *s)
{
    for (const struct option_rule *o = s->command->option; o->kind != OPTION_END; o++) {
        if (!o->required || json_object_get(s->request, o->key))
            continue;
        complain("--%s is missing", o->name);
        return false;
    }
    return true;
}

static int read_positionals(struct session *s, int argc, char **argv)
{
    const char *const keys[] = {s->command->positional, s->command->second, NULL};
    int n = 0;

    for (; n < argc && keys[n]; n++) {
        if (json_object_set_new(s->request, keys[n], json_string(argv[n])) < 0) {
            complain("%s: not UTF-8", keys[n]);
            return TEKCTL_USAGE;
        }
    }
    return n < argc || keys[n] ? usage_of(s->command) : TEKCTL_DONE;
}

/* argv[0] is the last of the command's words.  *ret_help: its help was asked for, and printed. */
static int read_options(struct session *s, int argc, char **argv, bool *ret_help)
{
    static char program[] = "tekctl"; /* getopt's sentences begin with it */
    const struct command *c = s->command;
    struct option options[COMMAND_OPTIONS_MAX + 3];
    int o = -1, r = TEKCTL_DONE;

    long_options(c, options);
    argv[0] = program;
    optind = 0; /* glibc: a new vector */
    while (r == TEKCTL_DONE && (o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (o >= 256)
            r = set_option(s->request, &c->option[o - 256], optarg);
        else if (o == 'j')
            s->json = true;
        else if (o != 'h')
            r = usage_of(c);
        else
            break;
    }
    if (r != TEKCTL_DONE)
        return r;
    if (o == 'h') {
        print_help(c);
        *ret_help = true;
        return r;
    }
    if (!has_required(s))
        return usage_of(c);
    return read_positionals(s, argc - optind, argv + optind);
}

/* ---- running --------------------------------------------------------------------------------- */

static int run_plain(struct session *s)
{
    AUTO_JSON json_t *result = NULL;
    int r = session_call(s, &result);

    if (r != TEKCTL_DONE && !result)
        return r;
    if (s->command->print && !json_is_object(result) && !json_is_array(result))
        return session_no_result();
    if (s->json) {
        text_dump(result ? result : json_null(), JSON_INDENT(2) | JSON_ENCODE_ANY);
        (void)putchar('\n');
    } else if (s->command->print) {
        s->command->print(result);
    }
    return text_flush(r);
}

/* One line, as a terminal gives it, into locked memory. */
static int read_pin(struct secret **ret_pin)
{
    AUTO(secret) struct secret *line = NULL;
    ssize_t n;

    if (secret_new(SECRET_MAX, &line) < 0)
        return TEKCTL_FAILED;
    n = read(STDIN_FILENO, secret_get(line), SECRET_MAX);
    if (n > 0 && secret_peek(line)[n - 1] == '\n')
        n--;
    if (n <= 0) {
        complain("no PIN was given");
        return TEKCTL_FAILED;
    }
    secret_truncate(line, (size_t)n);
    *ret_pin = TAKE(line);
    return TEKCTL_DONE;
}

/* Without echo. */
static int ask_pin(struct secret **ret_pin)
{
    struct termios old, quiet;
    int r;

    if (tcgetattr(STDIN_FILENO, &old) < 0) {
        complain("--ask-pin: standard input is no terminal");
        return TEKCTL_USAGE;
    }
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    (void)fputs("PIN: ", stderr);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    r = read_pin(ret_pin);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
    (void)fputc('\n', stderr);
    return r;
}

int retry_run(struct session *s)
{
    int r = TEKCTL_DONE;

    if (json_object_get(s->request, "ask_pin"))
        r = ask_pin(&s->pin);
    return r == TEKCTL_DONE ? run_plain(s) : r;
}

static int run_command(struct session *s, int argc, char **argv, int words)
{
    bool help = false;
    int r;

    s->request = json_pack("{s:s}", "command", s->command->words);
    r = read_options(s, argc - words + 1, argv + words - 1, &help);
    if (r == TEKCTL_DONE && !help)
        r = s->command->run ? s->command->run(s) : run_plain(s);
    else
        r = text_flush(r);
    json_decref(s->request);
    secret_free(s->pin);
    session_end(s);
    return r;
}

/* No command: "bsa --help" asks for those that begin with this word, all else is wrong. */
static int run_none(int argc, char **argv)
{
    size_t len = argc > 0 ? strlen(argv[0]) : 0;
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    const struct command *c;
    unsigned n = 0;

    for (size_t i = 0; help && (c = command_at(i)); i++) {
        if (strncmp(c->words, argv[0], len) != 0 || c->words[len] != ' ')
            continue;
        print_help(c);
        n++;
    }
    if (n > 0)
        return text_flush(TEKCTL_DONE);
    print_usage(stderr);
    return TEKCTL_USAGE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    struct session s = {.socket = TEKCTL_SOCKET};
    int o, words;

    if (fds_hold_standard() < 0)
        return TEKCTL_FAILED;
    while ((o = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        switch (o) {
        case 's':
            s.socket = optarg;
            break;
        case 'j':
            s.json = true;
            break;
        case 'v':
            (void)puts("tekctl " TEKD_VERSION);
            return text_flush(TEKCTL_DONE);
        case 'h':
            print_usage(stdout);
            return text_flush(TEKCTL_DONE);
        default:
            print_usage(stderr);
            return TEKCTL_USAGE;
        }
    }
    s.command = command_find(argc - optind, argv + optind, &words);
    if (!s.command)
        return run_none(argc - optind, argv + optind);
    return run_command(&s, argc - optind, argv + optind, words);
}
