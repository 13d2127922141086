/* The command line: the table's options, each at most once, all required ones there. */
#include "bsa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bsa_output.h"
#include "tekd/err.h"

struct values {
    const char *first, *second;
    bool on;
};

static const struct option_row rows[] = {
    {.name = "first",
     .argument = "ID",
     .required = true,
     .meaning = "the first",
     .offset = offsetof(struct values, first)},
    {.name = "second",
     .argument = "ID",
     .standard = "two",
     .meaning = "the second",
     .offset = offsetof(struct values, second)},
    {.name = "on", .meaning = "a switch", .offset = offsetof(struct values, on)},
};
static const struct option_table table = {"try", "Tries.", rows, ARRAY_SIZE(rows)};

/* Runs with what is printed to a stream caught in text. */
static int catching(FILE *stream, char **argv, struct values *values,
                    char text[static BSA_OUTPUT_MAX])
{
    struct bsa_output output;
    int argc = 0, r;

    while (argv[argc] != NULL)
        argc++;
    bsa_output_catch(&output, stream);
    r = options_parse(&table, argc, argv, values);
    bsa_output_end(&output, text);
    return r;
}

static void options_parse__fills_the_struct(void **state)
{
    char *argv[] = {"try", "--on", "--first", "1", NULL};
    struct values v = {.on = false};

    (void)state;
    assert_int_equal(options_parse(&table, 4, argv, &v), 0);
    assert_string_equal(v.first, "1");
    assert_string_equal(v.second, "two");
    assert_true(v.on);
}

static void options_parse__takes_values_behind_an_equals_sign(void **state)
{
    char *argv[] = {"try", "--first=--x", "--second=", NULL};
    struct values v = {.on = false};

    (void)state;
    assert_int_equal(options_parse(&table, 3, argv, &v), 0);
    assert_string_equal(v.first, "--x");
    assert_string_equal(v.second, "");
    assert_false(v.on);
}

static void options_parse__says_what_is_wrong(void **state)
{
    static const struct {
        char *argv[6];
        const char *text;
    } cases[] = {
        {{"try", NULL}, "tek-bsa: try: --first ID is missing; see tek-bsa try --help\n"},
        {{"try", "--first", NULL}, "tek-bsa: try: --first needs a value; see tek-bsa try --help\n"},
        {{"try", "--first", "1", "--first", "2", NULL}, "tek-bsa: try: --first is given twice\n"},
        {{"try", "--third", "3", NULL},
         "tek-bsa: try: --third is no option; see tek-bsa try --help\n"},
        {{"try", "--on=yes", NULL},
         "tek-bsa: try: --on=yes is no option; see tek-bsa try --help\n"},
        {{"try", "-f", NULL}, "tek-bsa: try: -f is no option; see tek-bsa try --help\n"},
        {{"try", "-first", "1", NULL},
         "tek-bsa: try: -first is no option; see tek-bsa try --help\n"},
        {{"try", "--on", "-fx", NULL}, "tek-bsa: try: -fx is no option; see tek-bsa try --help\n"},
        {{"try", "2", "-f", NULL}, "tek-bsa: try: 2 is not an option; see tek-bsa try --help\n"},
        {{"try", "--first", "1", "2", NULL},
         "tek-bsa: try: 2 is not an option; see tek-bsa try --help\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *argv[6], text[BSA_OUTPUT_MAX];
        struct values v = {.on = false};

        memcpy(argv, cases[i].argv, sizeof(argv)); /* getopt takes it without const */
        assert_int_equal(catching(stderr, argv, &v, text), TEKD_EINVAL);
        assert_string_equal(text, cases[i].text);
    }
}

static void options_parse__prints_its_usage(void **state)
{
    char *argv[] = {"try", "--help", NULL};
    char text[BSA_OUTPUT_MAX];
    struct values v = {.on = false};

    (void)state;
    assert_int_equal(catching(stdout, argv, &v, text), TEKD_ECLOSED);
    assert_string_equal(text, "usage: tek-bsa try OPTION...\nTries.\n\n"
                              "  --first ID             the first (required)\n"
                              "  --second ID            the second (default two)\n"
                              "  --on                   a switch\n"
                              "  --help                 this text\n");
}

static void options_number__refuses_what_is_none(void **state)
{
    static const char *const texts[] = {"",   "0",  "11", "-1",  "+1",
                                        "1x", " 1", "x",  "1.0", "99999999999999999999"};
    unsigned n = 7;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        assert_int_equal(options_number("n", texts[i], 1, 10, &n), TEKD_EINVAL);
    assert_int_equal(n, 7);
    assert_int_equal(options_number("n", "10", 1, 10, &n), 0);
    assert_int_equal(n, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_parse__fills_the_struct),
        cmocka_unit_test(options_parse__takes_values_behind_an_equals_sign),
        cmocka_unit_test(options_parse__says_what_is_wrong),
        cmocka_unit_test(options_parse__prints_its_usage),
        cmocka_unit_test(options_number__refuses_what_is_none),
    };

    return cmocka_run_group_tests_name("bsa_options", tests, NULL, NULL);
}
