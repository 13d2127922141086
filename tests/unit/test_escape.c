/* Text that a peer chose, on a terminal and in CSV. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tekd/auto.h"
#include "tekd/escape.h"

static void assert_plain(const char *text, const char *expected)
{
    AUTO_MEM char *shown = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&shown, &len);

    assert_non_null(f);
    assert_int_equal(escape_plain(f, text), strlen(expected));
    assert_int_equal(fclose(f), 0);
    assert_string_equal(shown, expected);
}

static void assert_csv(const char *text, const char *expected)
{
    AUTO_MEM char *shown = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&shown, &len);

    assert_non_null(f);
    escape_csv(f, text);
    assert_int_equal(fclose(f), 0);
    assert_string_equal(shown, expected);
}

static void escape_plain__leaves_printable_ascii(void **state)
{
    char text[0x7f - ' ' + 1] = "", expected[sizeof text + 3] = "";
    size_t n = 0;

    (void)state;
    for (char c = ' '; c < 0x7f; c++) {
        text[c - ' '] = c;
        n += (size_t)snprintf(expected + n, sizeof expected - n, c == '\\' ? "\\x5c" : "%c", c);
    }
    assert_plain(text, expected);
    assert_plain("", "");
}

static void escape_plain__writes_every_other_octet_in_hexadecimal(void **state)
{
    (void)state;
    for (unsigned c = 1; c < 256; c++) {
        const char text[] = {(char)c, '\0'};
        char expected[8];

        if (c >= ' ' && c < 0x7f && c != '\\')
            continue;
        (void)snprintf(expected, sizeof expected, "\\x%02x", c);
        assert_plain(text, expected);
    }
    assert_plain("m\xc2\x9b"
                 "2J",
                 "m\\xc2\\x9b2J");
}

static void escape_csv__quotes_every_cell(void **state)
{
    (void)state;
    assert_csv("", "\"\"");
    assert_csv("m-1", "\"m-1\"");
    assert_csv("a,b", "\"a,b\"");
    assert_csv("\"", "\"\"\"\"");
    assert_csv("a\"\"b", "\"a\"\"\"\"b\"");
}

static void escape_csv__has_no_control_character(void **state)
{
    (void)state;
    for (unsigned c = 1; c < 256; c++) {
        const char text[] = {'a', (char)c, '\0'};
        char expected[16];

        if (c >= ' ' && c < 0x7f && c != '\\')
            continue;
        (void)snprintf(expected, sizeof expected, "\"a\\x%02x\"", c);
        assert_csv(text, expected);
    }
    assert_csv("a\r\n=b", "\"a\\x0d\\x0a=b\"");
}

static void escape_csv__has_no_formula(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"=1+1", "\"\\x3d1+1\""},
        {"+1", "\"\\x2b1\""},
        {"-1", "\"\\x2d1\""},
        {"@SUM(A1)", "\"\\x40SUM(A1)\""},
        {"\t=1", "\"\\x09=1\""},
        {"\r=1", "\"\\x0d=1\""},
        {"\xef\xbc\x9d"
         "1",
         "\"\\xef\\xbc\\x9d1\""}, /* a full-width = */
        {"==1", "\"\\x3d=1\""},
        {"  =1", "\"  \\x3d1\""},
        {"a,=1", "\"a,\\x3d1\""},
        {"a;+1", "\"a;\\x2b1\""},
        {"a\",\"@b", "\"a\"\",\"\"\\x40b\""},
        {"'=1", "\"'=1\""},
        {"a=b+c-d@e", "\"a=b+c-d@e\""},
        {"=", "\"\\x3d\""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_csv(cases[i].text, cases[i].expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escape_plain__leaves_printable_ascii),
        cmocka_unit_test(escape_plain__writes_every_other_octet_in_hexadecimal),
        cmocka_unit_test(escape_csv__quotes_every_cell),
        cmocka_unit_test(escape_csv__has_no_control_character),
        cmocka_unit_test(escape_csv__has_no_formula),
    };

    return cmocka_run_group_tests_name("escape", tests, NULL, NULL);
}
