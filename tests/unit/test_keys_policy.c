#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "internal.h"

/* A service for "bsm", a BSA "bsa-1" that is entitled to these patterns. */
static enum cp3_reason check(const struct cp3_message *m, const char *const *patterns, size_t n)
{
    static struct keys k = {.bsm_id = "bsm"};
    static struct store_bsa row = {.id = "bsa-1"};
    const struct bsa_state s = {.row = &row};

    row.n_entitle = n;
    for (size_t i = 0; i < n; i++)
        row.entitle[i] = (char *)(uintptr_t)patterns[i];
    return policy_check(&k, &s, m);
}

static struct cp3_message request(const char *content)
{
    struct cp3_message m = {.version = 1};

    cp3_message_init(&m, CP3_REQUEST);
    (void)snprintf(m.message_id, sizeof(m.message_id), "%s", "m-1");
    (void)snprintf(m.source, sizeof(m.source), "%s", "bsa-1");
    (void)snprintf(m.destination, sizeof(m.destination), "%s", "bsm");
    (void)snprintf(m.content_id, sizeof(m.content_id), "%s", content);
    return m;
}

static bool is_entitled(const char *pattern, const char *content)
{
    const char *const patterns[] = {pattern};
    struct cp3_message m = request(content);
    enum cp3_reason reason = check(&m, patterns, 1);

    assert_true(reason == CP3_REASON_NONE || reason == CP3_REASON_NOT_ENTITLED);
    return reason == CP3_REASON_NONE;
}

static void policy_check__gives_who_is_entitled(void **state)
{
    static const char *const patterns[] = {"urn:a", "urn:x:*"};
    struct cp3_message m = request("urn:x:y");

    (void)state;
    assert_int_equal(check(&m, patterns, 2), CP3_REASON_NONE);
    m = request("urn:a");
    assert_int_equal(check(&m, patterns, 2), CP3_REASON_NONE);
    m = request("urn:b");
    assert_int_equal(check(&m, patterns, 2), CP3_REASON_NOT_ENTITLED);
}

static void policy_check__no_pattern_entitles_to_nothing(void **state)
{
    struct cp3_message m = request("urn:a");

    (void)state;
    assert_int_equal(check(&m, NULL, 0), CP3_REASON_NOT_ENTITLED);
}

static void policy_check__patterns_are_those_of_fnmatch(void **state)
{
    (void)state;
    assert_true(is_entitled("*", "urn:a/b/c"));
    assert_true(is_entitled("*", ".hidden"));
    assert_true(is_entitled("urn:?", "urn:a"));
    assert_false(is_entitled("urn:?", "urn:ab"));
    assert_true(is_entitled("urn:[ab]", "urn:b"));
    assert_false(is_entitled("urn:[!ab]", "urn:b"));
    assert_true(is_entitled("urn:\\*", "urn:*"));
    assert_false(is_entitled("urn:\\*", "urn:x"));
    assert_false(is_entitled("urn:a", "urn:A"));
    assert_false(is_entitled("urn:a", "urn:a "));
    assert_false(is_entitled("urn:a", "urn:aa"));
    assert_false(is_entitled("urn", "urn:a"));
}

static void policy_check__compares_octet_by_octet(void **state)
{
    static const char *const all[] = {"*"};
    static const char *const others[] = {"bsa-11", "bsa-", "BSA-1", "bsa-2"};
    struct cp3_message m;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        m = request("urn:a");
        (void)snprintf(m.source, sizeof(m.source), "%s", others[i]);
        assert_int_equal(check(&m, all, 1), CP3_REASON_WRONG_SOURCE);
    }
    m = request("urn:a");
    (void)snprintf(m.destination, sizeof(m.destination), "%s", "bsm2");
    assert_int_equal(check(&m, all, 1), CP3_REASON_WRONG_DESTINATION);
    (void)snprintf(m.destination, sizeof(m.destination), "%s", "BSM");
    assert_int_equal(check(&m, all, 1), CP3_REASON_WRONG_DESTINATION);
}

static void policy_check__takes_version_1_only(void **state)
{
    static const char *const all[] = {"*"};
    struct cp3_message m = request("urn:a");

    (void)state;
    m.version = 2;
    assert_int_equal(check(&m, all, 1), CP3_REASON_UNSUPPORTED_VERSION);
    m.version = CP3_INTEGER_MAX;
    assert_int_equal(check(&m, all, 1), CP3_REASON_UNSUPPORTED_VERSION);
}

/* Source, Destination, Version, entitlement: what comes first is said. */
static void policy_check__goes_in_order(void **state)
{
    struct cp3_message m = request("urn:a");

    (void)state;
    m.version = 2;
    (void)snprintf(m.source, sizeof(m.source), "%s", "x");
    (void)snprintf(m.destination, sizeof(m.destination), "%s", "x");
    assert_int_equal(check(&m, NULL, 0), CP3_REASON_WRONG_SOURCE);
    (void)snprintf(m.source, sizeof(m.source), "%s", "bsa-1");
    assert_int_equal(check(&m, NULL, 0), CP3_REASON_WRONG_DESTINATION);
    (void)snprintf(m.destination, sizeof(m.destination), "%s", "bsm");
    assert_int_equal(check(&m, NULL, 0), CP3_REASON_UNSUPPORTED_VERSION);
    m.version = 1;
    assert_int_equal(check(&m, NULL, 0), CP3_REASON_NOT_ENTITLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_check__gives_who_is_entitled),
        cmocka_unit_test(policy_check__no_pattern_entitles_to_nothing),
        cmocka_unit_test(policy_check__patterns_are_those_of_fnmatch),
        cmocka_unit_test(policy_check__compares_octet_by_octet),
        cmocka_unit_test(policy_check__takes_version_1_only),
        cmocka_unit_test(policy_check__goes_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
