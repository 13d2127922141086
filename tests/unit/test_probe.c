/* Alive and ready, and what is said when not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "server_parts.h"
#include "tekd/err.h"

static int setup(void **state)
{
    (void)state;
    parts_reset();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    parts_end();
    return 0;
}

static void assert_answer(const char *path, int status, const char *body)
{
    static struct tekd t;
    AUTO(buf) struct buf *b = NULL;

    assert_int_equal(buf_new(1024, &b), 0);
    assert_int_equal(probe_get(&t, path, b), status);
    assert_string_equal(buf_str(b), body);
}

static void hsm_says(enum hsm_state state, const char *reason)
{
    parts.hsm.state = state;
    (void)snprintf(parts.hsm.reason, sizeof(parts.hsm.reason), "%s", reason);
}

static void probe_get__all_is_well(void **state)
{
    (void)state;
    assert_answer("/healthz", 200, "alive\n");
    assert_answer("/readyz", 200, "ready\n");
}

static void probe_get__is_alive_whatever_else(void **state)
{
    (void)state;
    hsm_says(HSM_DOWN, "no worker answers");
    parts.store_ready = TEKD_EIO;
    parts.keys.bound = false;
    assert_answer("/healthz", 200, "alive\n");
}

static void probe_get__says_what_the_hsm_lacks(void **state)
{
    (void)state;
    hsm_says(HSM_STARTING, "");
    assert_answer("/readyz", 503, "not ready: the HSM workers are starting\n");
    hsm_says(HSM_DOWN, "no worker answers");
    assert_answer("/readyz", 503, "not ready: the HSM does not answer: no worker answers\n");
    hsm_says(HSM_PIN_REFUSED, "C_Login: CKR_PIN_INCORRECT");
    assert_answer("/readyz", 503,
                  "not ready: the HSM refused the PIN: C_Login: CKR_PIN_INCORRECT\n");
}

static void probe_get__says_what_the_store_lacks(void **state)
{
    (void)state;
    parts.store_ready = TEKD_EFULL;
    parts.store_reason = "too little free space on the database's volume";
    assert_answer("/readyz", 503, "not ready: too little free space on the database's volume\n");
}

static void probe_get__says_that_keks_are_not_bound(void **state)
{
    (void)state;
    parts.keys.bound = false;
    (void)snprintf(parts.keys.reason, sizeof(parts.keys.reason), "KEK \"tekd-storage\": busy");
    assert_answer("/readyz", 503,
                  "not ready: the KEKs are not bound: KEK \"tekd-storage\": busy\n");
}

static void probe_ready__cuts_long_reasons(void **state)
{
    char reason[HSM_TEXT_MAX + 1];
    struct tekd t = {.config = NULL};

    (void)state;
    reason[HSM_TEXT_MAX] = 'y'; /* not its to write to */
    parts.hsm.state = HSM_DOWN;
    memset(parts.hsm.reason, 'x', sizeof(parts.hsm.reason) - 1);
    assert_int_equal(probe_ready(&t, reason), TEKD_EHSM);
    assert_memory_equal(reason, "the HSM does not answer: xxxxx", 30);
    parts.hsm.state = HSM_READY;
    parts.keys.bound = false;
    memset(parts.keys.reason, 'x', sizeof(parts.keys.reason) - 1);
    assert_int_equal(probe_ready(&t, reason), TEKD_EHSM);
    assert_memory_equal(reason, "the KEKs are not bound: xxxxxx", 30);
    assert_int_equal(reason[HSM_TEXT_MAX], 'y');
}

static void probe_get__knows_two_paths(void **state)
{
    (void)state;
    assert_answer("/", 404, "paths: /healthz /readyz\n");
    assert_answer("/readyz/", 404, "paths: /healthz /readyz\n");
    assert_answer("/metrics", 404, "paths: /healthz /readyz\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(probe_get__all_is_well),
        TEST(probe_get__is_alive_whatever_else),
        TEST(probe_get__says_what_the_hsm_lacks),
        TEST(probe_get__says_what_the_store_lacks),
        TEST(probe_get__says_that_keks_are_not_bound),
        TEST(probe_ready__cuts_long_reasons),
        TEST(probe_get__knows_two_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
