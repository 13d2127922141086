/* Options of a subcommand, from its table. */
#include "bsa.h"

#include <assert.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"

void complain(const char *fmt, ...)
{
    va_list ap;

    flockfile(stderr);
    (void)fputs("tek-bsa: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    funlockfile(stderr);
}

static const char **text_at(void *values, const struct option_row *row)
{
    return (const char **)(void *)((char *)values + row->offset);
}

static void print_usage(const struct option_table *table)
{
    char name[64];

    (void)printf("usage: tek-bsa %s OPTION...\n%s\n\n", table->command, table->summary);
    for (size_t i = 0; i < table->n; i++) {
        const struct option_row *row = &table->rows[i];

        (void)snprintf(name, sizeof(name), "--%s%s%s", row->name, row->argument != NULL ? " " : "",
                       row->argument != NULL ? row->argument : "");
        (void)printf("  %-22s %s%s", name, row->meaning, row->required ? " (required)" : "");
        if (row->standard != NULL)
            (void)printf(" (default %s)", row->standard);
        (void)putchar('\n');
    }
    (void)printf("  %-22s %s\n", "--help", "this text");
}

static int take(const struct option_table *table, int index, void *values)
{
    const struct option_row *row = &table->rows[index];

    if (row->argument == NULL) {
        *((bool *)values + row->offset) = true;
        return 0;
    }
    if (*text_at(values, row) != NULL) {
        complain("%s: --%s is given twice", table->command, row->name);
        return TEKD_EINVAL;
    }
    *text_at(values, row) = optarg;
    return 0;
}

/* Defaults, and what has to be there. */
static int complete(const struct option_table *table, void *values)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct option_row *row = &table->rows[i];

        if (row->argument == NULL || *text_at(values, row) != NULL)
            continue;
        if (row->required) {
            complain("%s: --%s %s is missing; see tek-bsa %s --help", table->command, row->name,
                     row->argument, table->command);
            return TEKD_EINVAL;
        }
        *text_at(values, row) = row->standard;
    }
    return 0;
}

int options_parse(const struct option_table *table, int argc, char **argv, void *values)
{
    struct option list[OPTIONS_MAX + 2] = {0};
    int index = 0, at = 1, c, r;

    assert(table->n <= OPTIONS_MAX);
    for (size_t i = 0; i < table->n; i++)
        list[i] = (struct option){table->rows[i].name,
                                  table->rows[i].argument != NULL ? required_argument : no_argument,
                                  NULL, 1};
    list[table->n] = (struct option){"help", no_argument, NULL, 2};
    opterr = 0;
    optind = 0; /* glibc: a new vector */
    for (; (c = getopt_long(argc, argv, "+:", list, &index)) != -1; at = optind) {
        if (c == 2) {
            print_usage(table);
            return TEKD_ECLOSED;
        }
        if (c != 1) {
            complain("%s: %s %s; see tek-bsa %s --help", table->command, argv[at],
                     c == ':' ? "needs a value" : "is no option", table->command);
            return TEKD_EINVAL;
        }
        r = take(table, index, values);
        if (r < 0)
            return r;
    }
    if (optind < argc) {
        complain("%s: %s is not an option; see tek-bsa %s --help", table->command, argv[optind],
                 table->command);
        return TEKD_EINVAL;
    }
    return complete(table, values);
}

int options_number(const char *name, const char *text, unsigned min, unsigned max,
                   unsigned *ret_number)
{
    char *end = NULL;
    unsigned long n = strtoul(text, &end, 10);

    /* strtoul() alone would take blanks and a sign. */
    if (*text < '0' || *text > '9' || *end != '\0' || n < min || n > max) {
        complain("--%s: expected %u..%u, found %s", name, min, max, text);
        return TEKD_EINVAL;
    }
    *ret_number = (unsigned)n;
    return 0;
}
