/* Which lines of a ledger are wanted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tekd/auto.h"
#include "tekd/ledger.h"

static const struct ledger_line line = {
    .bsa = "bsa-1", .content = "urn:a", .time = "2026-11-22T13:15:42.123456Z", .pending = false};

static bool wants(struct ledger_wanted w)
{
    return ledger_wants(&w, &line);
}

static void ledger_wants__takes_all_when_nothing_is_said(void **state)
{
    (void)state;
    assert_true(wants((struct ledger_wanted){.bsa = NULL}));
}

static void ledger_wants__compares_whole_names(void **state)
{
    (void)state;
    assert_true(wants((struct ledger_wanted){.bsa = "bsa-1"}));
    assert_false(wants((struct ledger_wanted){.bsa = "bsa-10"}));
    assert_false(wants((struct ledger_wanted){.bsa = "bsa-"}));
    assert_true(wants((struct ledger_wanted){.content = "urn:a"}));
    assert_false(wants((struct ledger_wanted){.content = "urn:A"}));
    assert_false(wants((struct ledger_wanted){.bsa = "bsa-1", .content = "urn:b"}));
}

static void ledger_wants__takes_from_included_until_not(void **state)
{
    static const struct {
        const char *time;
        bool from, until;
    } cases[] = {
        {"2026-11-22", true, false},
        {"2026-11-23", false, true},
        {"2026-11-22Z", true, false},
        {"2026-11-22T13", true, false},
        {"2026-11-22T14", false, true},
        {"2026-11-22T13:15:42Z", true, false},
        {"2026-11-22T13:15:43Z", false, true},
        {"2026-11-22T13:15:42.123456Z", true, false},
        {"2026-11-22T13:15:42.123457Z", false, true},
        {"2026-11-22T13:15:42.2", false, true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(wants((struct ledger_wanted){.from = cases[i].time}), cases[i].from);
        assert_int_equal(wants((struct ledger_wanted){.until = cases[i].time}), cases[i].until);
    }
}

static void ledger_wants__tells_what_is_pending(void **state)
{
    struct ledger_line open = line;
    struct ledger_wanted w = {.pending = true};

    (void)state;
    open.pending = true;
    assert_true(ledger_wants(&w, &open));
    assert_false(ledger_wants(&w, &line));
}

static void ledger_time_ok__takes_a_time_or_its_beginning(void **state)
{
    static const char *const good[] = {"2026-11-22",
                                       "2026-11-22Z",
                                       "2026-11-22T13",
                                       "2026-11-22T13:15",
                                       "2026-11-22T13:15:42",
                                       "2026-11-22T13:15:42Z",
                                       "2026-11-22T13:15:42.1",
                                       "2026-11-22T13:15:42.123456Z"};
    static const char *const bad[] = {"",
                                      "Z",
                                      "2026",
                                      "2026-11",
                                      "2026-11-2",
                                      "2026-11-22T",
                                      "2026-11-22T1",
                                      "2026-11-22 13",
                                      "2026-11-22T13:15:42.",
                                      "2026-11-22T13:15:42.1234567",
                                      "2026-11-22T13:15:42+01:00",
                                      "2026/11/22",
                                      "2026-11-22z",
                                      "2026-11-22ZZ",
                                      "yesterday"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(ledger_time_ok(good[i]));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(ledger_time_ok(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ledger_wants__takes_all_when_nothing_is_said),
        cmocka_unit_test(ledger_wants__compares_whole_names),
        cmocka_unit_test(ledger_wants__takes_from_included_until_not),
        cmocka_unit_test(ledger_wants__tells_what_is_pending),
        cmocka_unit_test(ledger_time_ok__takes_a_time_or_its_beginning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
