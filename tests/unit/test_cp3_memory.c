/*
 * Every allocation that reading JSON makes through jansson fails once: the message is refused or
 * is the right one, and the same reader reads on when there is memory again.  (Jansson does not
 * tell all of them from a syntax error, and libxml2 2.9 does not survive all of its own, so that
 * nothing of the kind can be promised of XML.)
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cp3_fixture.h"

#define NEVER SIZE_MAX

static size_t countdown = NEVER; /* allocations until one fails */

static void *counted_malloc(size_t size)
{
    if (countdown == NEVER || countdown-- > 0)
        return malloc(size);
    countdown = NEVER;
    return NULL;
}

static int setup(void **state)
{
    (void)state;
    json_set_alloc_funcs(counted_malloc, free);
    return 0;
}

/* The n-th allocation fails.  True if there were as many. */
static bool read_without(struct cp3_reader *reader, const char *body, size_t n, int want)
{
    struct cp3_message m;
    struct cp3_error err = {.code = 0};
    bool reached;
    int r;

    countdown = n;
    r = cp3_read(reader, CP3_JSON, body, strlen(body), &m, &err);
    reached = countdown == NEVER;
    assert_true(r == 0 || err.reason[0] != '\0');
    countdown = NEVER;
    if (r != want && r != CP3_ENOMEM && r != CP3_ESYNTAX)
        fail_msg("allocation %zu: %s: %s", n, cp3_errname(r), err.reason);
    assert_int_equal(cp3_read(reader, CP3_JSON, body, strlen(body), &m, NULL), want);
    return reached;
}

static void cp3_read__survives_failing_allocations(void **state)
{
    static const struct {
        const char *body;
        int want;
    } cases[] = {
        {"{\"Tag\":4,\"MessageID\":\"d\",\"Status\":0}", 0},
        {"{\"Tag\":4,\"MessageID\":\"d\",\"Status\":0,\"a\":[1e999,\"\\ud800\"]}", 0},
        {"{\"Tag\":4,\"MessageID\":\"d\",\"Status\":0,\"a\":1,\"a\":2}", CP3_EFORMAT},
    };
    struct cp3_reader *reader = NULL;

    (void)state;
    assert_int_equal(cp3_reader_new(&reader), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = 0;

        while (read_without(reader, cases[i].body, n, cases[i].want))
            n++;
        assert_true(n > 5);
    }
    cp3_reader_free(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cp3_read__survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
