/* Alive and ready, and what is said when not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "fake_clock.h"
#include "server_parts.h"
#include "tekd/err.h"

#define NOW_S INT64_C(1795353341) /* 2026-11-22T13:15:41Z */

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
    static char crl[] = "/etc/tekd/ca.crl";
    static struct config c = {.tls = {.crl = crl}};
    static struct tekd t = {.config = &c};
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

static void probe_get__says_that_the_crl_has_expired(void **state)
{
    (void)state;
    fake_clock_set_utc(NOW_S * 1000000);
    parts.http.ends.crl_next_update_s = NOW_S + 1;
    assert_answer("/readyz", 200, "ready\n");
    fake_clock_advance(999999);
    assert_answer("/readyz", 200, "ready\n");
    fake_clock_advance(1);
    assert_answer("/readyz", 503,
                  "not ready: the CRL expired at 2026-11-22T13:15:42.000000Z and BSAs are refused: "
                  "/etc/tekd/ca.crl\n");
    assert_answer("/healthz", 200, "alive\n");
    parts.http.ends.crl_next_update_s = NOW_S + 3600; /* after a reload */
    assert_answer("/readyz", 200, "ready\n");
}

static void probe_get__says_that_the_crl_is_not_valid_yet(void **state)
{
    (void)state;
    fake_clock_set_utc(NOW_S * 1000000);
    parts.http.ends.crl_this_update_s = NOW_S + 1;
    parts.http.ends.crl_next_update_s = NOW_S + 3600;
    assert_answer("/readyz", 503,
                  "not ready: the CRL is not valid before 2026-11-22T13:15:42.000000Z and BSAs are "
                  "refused: /etc/tekd/ca.crl\n");
    fake_clock_advance(1000000);
    assert_answer("/readyz", 200, "ready\n");
}

static void probe_get__without_a_crl_needs_none(void **state)
{
    (void)state;
    parts.http.ends.crl_next_update_s = 0;
    assert_answer("/readyz", 200, "ready\n");
}

static void probe_get__says_first_what_is_worse(void **state)
{
    (void)state;
    parts.http.ends.crl_next_update_s = 1;
    parts.keys.bound = false;
    parts.store_ready = TEKD_EFULL;
    parts.store_reason = "no space";
    assert_answer("/readyz", 503, "not ready: no space\n");
}

static void probe_ready__cuts_long_reasons(void **state)
{
    char reason[HSM_TEXT_MAX + 1], path[2 * HSM_TEXT_MAX];
    struct config c = {.tls = {.crl = path}};
    struct tekd t = {.config = &c};

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
    parts.keys.bound = true;
    parts.http.ends.crl_next_update_s = 1;
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(probe_ready(&t, reason), TEKD_EINVAL);
    assert_non_null(strstr(reason, "BSAs are refused: xxxxxx"));
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
        TEST(probe_get__says_that_the_crl_has_expired),
        TEST(probe_get__says_that_the_crl_is_not_valid_yet),
        TEST(probe_get__without_a_crl_needs_none),
        TEST(probe_get__says_first_what_is_worse),
        TEST(probe_ready__cuts_long_reasons),
        TEST(probe_get__knows_two_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
