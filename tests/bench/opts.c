#include "opts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE 2

static void print_option(const struct opts_option *o)
{
    switch (o->type) {
    case OPTS_U64:
        fprintf(stderr, "  --%s %llu..%llu", o->name, (unsigned long long)o->min,
                (unsigned long long)o->max);
        break;
    case OPTS_CHOICE:
        fprintf(stderr, "  --%s ", o->name);
        for (size_t i = 0; o->choices[i] != NULL; i++)
            fprintf(stderr, "%s%s", i == 0 ? "" : "|", o->choices[i]);
        break;
    case OPTS_FLAG:
        fprintf(stderr, "  --%s", o->name);
        break;
    case OPTS_STR:
    case OPTS_LIST:
        fprintf(stderr, "  --%s VALUE%s", o->name, o->type == OPTS_LIST ? " ..." : "");
        break;
    }
    fprintf(stderr, "%s: %s\n", o->required ? " (required)" : "", o->help);
}

static _Noreturn void usage(const struct opts_option *table, size_t n, const char *what,
                            const char *arg)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, arg);
    for (size_t i = 0; i < n; i++)
        print_option(&table[i]);
    exit(EXIT_USAGE);
}

static bool read_u64(const struct opts_option *o, const char *value)
{
    unsigned long long v;
    char *end;

    if (value[0] < '0' || value[0] > '9')
        return false;
    errno = 0;
    v = strtoull(value, &end, 10);
    if (errno != 0 || *end != '\0' || v < o->min || v > o->max)
        return false;
    *(uint64_t *)o->ret = v;
    return true;
}

static bool read_choice(const struct opts_option *o, const char *value)
{
    for (int i = 0; o->choices[i] != NULL; i++) {
        if (strcmp(o->choices[i], value) == 0) {
            *(int *)o->ret = i;
            return true;
        }
    }
    return false;
}

static bool read_list(const struct opts_option *o, const char *value)
{
    struct opts_list *list = o->ret;

    if (list->n == OPTS_LIST_MAX)
        return false;
    list->values[list->n++] = value;
    return true;
}

static bool read_value(const struct opts_option *o, const char *value)
{
    switch (o->type) {
    case OPTS_U64:
        return read_u64(o, value);
    case OPTS_CHOICE:
        return read_choice(o, value);
    case OPTS_LIST:
        return read_list(o, value);
    case OPTS_STR:
        *(const char **)o->ret = value;
        return true;
    case OPTS_FLAG:
        break;
    }
    return false;
}

static const struct opts_option *find(const struct opts_option *table, size_t n, const char *arg)
{
    if (strncmp(arg, "--", 2) != 0)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(table[i].name, arg + 2) == 0)
            return &table[i];
    }
    return NULL;
}

static bool is_missing(const struct opts_option *o)
{
    if (!o->required)
        return false;
    if (o->type == OPTS_LIST)
        return ((struct opts_list *)o->ret)->n == 0;
    return *(const char **)o->ret == NULL;
}

void opts_parse(const struct opts_option *table, size_t n, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const struct opts_option *o = find(table, n, argv[i]);

        if (o == NULL)
            usage(table, n, "unknown option", argv[i]);
        if (o->type == OPTS_FLAG) {
            *(bool *)o->ret = true;
            continue;
        }
        if (i + 1 == argc)
            usage(table, n, "value missing", argv[i]);
        if (!read_value(o, argv[++i]))
            usage(table, n, "value not acceptable", argv[i]);
    }
    for (size_t i = 0; i < n; i++) {
        if (is_missing(&table[i]))
            usage(table, n, "option missing", table[i].name);
    }
}
