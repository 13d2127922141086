/*
 * Command lines of the benchmark's programs: a table of "--name value" options.  A wrong command
 * line prints what is wrong and the whole table to stderr and ends the program with 2.
 */
#ifndef BENCH_OPTS_H
#define BENCH_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values of an option that may be repeated: more identities than this measure nothing new. */
#define OPTS_LIST_MAX 64

struct opts_list {
    const char *values[OPTS_LIST_MAX];
    size_t n;
};

enum opts_type {
    OPTS_U64,    /* ret: uint64_t *, min..max, decimal */
    OPTS_STR,    /* ret: const char ** */
    OPTS_LIST,   /* ret: struct opts_list *, may be repeated */
    OPTS_CHOICE, /* ret: int *, the index of the value in choices */
    OPTS_FLAG,   /* ret: bool *, takes no value */
};

struct opts_option {
    const char *name; /* without the hyphens */
    void *ret;
    const char *help;
    uint64_t min, max;          /* OPTS_U64 */
    const char *const *choices; /* OPTS_CHOICE, ends with NULL */
    enum opts_type type;
    bool required; /* OPTS_STR, OPTS_LIST */
};

/* Rows of the table. */
#define OPTS_NUMBER(n, r, lo, hi, h)                                                               \
    {                                                                                              \
        .name = (n), .type = OPTS_U64, .ret = (r), .help = (h), .min = (lo), .max = (hi)           \
    }
#define OPTS_TEXT(n, r, h)                                                                         \
    {                                                                                              \
        .name = (n), .type = OPTS_STR, .ret = (r), .help = (h)                                     \
    }
#define OPTS_TEXT_REQ(n, r, h)                                                                     \
    {                                                                                              \
        .name = (n), .type = OPTS_STR, .ret = (r), .help = (h), .required = true                   \
    }
#define OPTS_MANY_REQ(n, r, h)                                                                     \
    {                                                                                              \
        .name = (n), .type = OPTS_LIST, .ret = (r), .help = (h), .required = true                  \
    }
#define OPTS_ONE_OF(n, r, c, h)                                                                    \
    {                                                                                              \
        .name = (n), .type = OPTS_CHOICE, .ret = (r), .help = (h), .choices = (c)                  \
    }
#define OPTS_SWITCH(n, r, h)                                                                       \
    {                                                                                              \
        .name = (n), .type = OPTS_FLAG, .ret = (r), .help = (h)                                    \
    }

/* Fills the variables of the table; defaults are what they held before.  Strings are borrowed. */
void opts_parse(const struct opts_option *table, size_t n, int argc, char **argv);

#endif
