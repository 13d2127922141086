/* What the main thread sees once a second: the HSM that goes and comes back, what runs out. */
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

#define SECOND_US INT64_C(1000000)
#define HOUR_US   (3600 * SECOND_US)
#define DAY_S     INT64_C(86400)
#define NOW_S     INT64_C(1795352400)

static int setup(void **state)
{
    static struct tekd t;

    parts_reset();
    fake_clock_set_utc(NOW_S * SECOND_US);
    fake_clock_set_mono(HOUR_US);
    t = (struct tekd){.hsm_state = HSM_READY};
    *state = &t;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    parts_end();
    return 0;
}

static void hsm_says(struct tekd *t, enum hsm_state state, const char *reason)
{
    parts.hsm.state = state;
    (void)snprintf(parts.hsm.reason, sizeof(parts.hsm.reason), "%s", reason);
    atomic_store(&t->hsm_changed, true);
}

static void assert_record(size_t i, const char *event, const char *key, const char *value)
{
    assert_true(i < parts.n_records);
    assert_string_equal(record_event(parts.record[i]), event);
    assert_string_equal(record_get_str(parts.record[i], key), value);
}

static void watch_tick__is_quiet_when_all_is_well(void **state)
{
    struct tekd *t = *state;

    for (int i = 0; i < 10; i++) {
        watch_tick(t);
        fake_clock_advance(SECOND_US);
    }
    assert_int_equal(parts.ticks, 10);
    assert_int_equal(parts.n_records, 0);
    assert_int_equal(parts.binds, 0);
    assert_false(t->unsafe);
    assert_false(parts_logged("event="));
}

static void watch_tick__records_an_hsm_that_went_and_came_back_once_each(void **state)
{
    struct tekd *t = *state;

    hsm_says(t, HSM_DOWN, "no worker answers");
    watch_tick(t);
    watch_tick(t);
    hsm_says(t, HSM_STARTING, "");
    watch_tick(t);
    hsm_says(t, HSM_READY, "");
    watch_tick(t);
    watch_tick(t);
    assert_int_equal(parts.n_records, 2);
    assert_record(0, "hsm.lost", "reason", "no worker answers");
    assert_record(1, "hsm.back", "reason", "the workers are ready");
}

static void watch_tick__checks_keks_whenever_the_token_was_away(void **state)
{
    struct tekd *t = *state;

    hsm_says(t, HSM_DOWN, "");
    watch_tick(t);
    assert_int_equal(parts.binds, 0);
    parts.bind_result = TEKD_EAGAIN; /* busy: later */
    hsm_says(t, HSM_READY, "");
    watch_tick(t);
    watch_tick(t);
    assert_int_equal(parts.binds, 2);
    parts.bind_result = 0;
    watch_tick(t);
    watch_tick(t);
    assert_int_equal(parts.binds, 3);
    /* Also when it went and came back between two looks. */
    atomic_store(&t->hsm_changed, true);
    watch_tick(t);
    assert_int_equal(parts.binds, 4);
    assert_false(t->unsafe);
}

static void watch_tick__ends_tekd_when_a_kek_is_not_what_it_was(void **state)
{
    static const int wrong[] = {TEKD_EWEAK, TEKD_ENOTFOUND, TEKD_EEXIST, TEKD_ETAMPER};
    struct tekd *t = *state;

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        t->unsafe = false;
        parts.bind_result = wrong[i];
        atomic_store(&t->hsm_changed, true);
        watch_tick(t);
        assert_true(t->unsafe);
    }
    assert_int_equal(atomic_load(&t->fatal), 0); /* the store is well: the log is closed */
}

static void watch_tick__ends_tekd_when_teks_can_be_stolen(void **state)
{
    struct tekd *t = *state;

    hsm_says(t, HSM_DOWN, "C_GenerateKey: CKR_DEVICE_ERROR");
    parts.hsm.error = TEKD_EHSM;
    watch_tick(t);
    assert_false(t->unsafe);
    hsm_says(t, HSM_DOWN, "attack: a KEK could be made to decrypt");
    parts.hsm.error = TEKD_EWEAK;
    watch_tick(t);
    assert_true(t->unsafe);
}

static void watch_tick__compares_the_tls_key_whenever_the_token_was_away(void **state)
{
    static unsigned char spki[] = {1};
    struct config config = {.tls = {.certificate = "crt", .key = "pkcs11:object=k"}};
    struct tekd *t = *state;

    t->config = &config;
    watch_tick(t); /* the key is in a file */
    assert_int_equal(parts.tls_key_looks, 0);
    t->tls_spki = spki;
    parts.tls_key_result = TEKD_EAGAIN; /* busy: later */
    watch_tick(t);
    parts.tls_key_result = 0;
    watch_tick(t);
    watch_tick(t);
    assert_int_equal(parts.tls_key_looks, 2);
    assert_true(atomic_load(&t->tls_key_wrong));
    assert_true(parts_logged("error tls event=key-in-hsm-of-another-certificate certificate=crt"));
    assert_false(t->unsafe);
    parts.tls_key_fits = true;
    hsm_says(t, HSM_DOWN, "");
    watch_tick(t);
    assert_int_equal(parts.tls_key_looks, 2);
    hsm_says(t, HSM_READY, "");
    watch_tick(t);
    assert_false(atomic_load(&t->tls_key_wrong));
}

static void watch_tick__records_once_what_a_token_cannot_prevent(void **state)
{
    struct tekd *t = *state;

    parts.hsm.prevents_wrap_out = false;
    watch_tick(t);
    watch_tick(t);
    assert_int_equal(parts.n_records, 1);
    assert_record(0, "hsm.weakness", "token", "tekd");
    assert_record(0, "hsm.weakness", "detail", TEKD_WRAP_OUT);
    assert_true(parts_logged("event=weakness"));
}

static void watch_tick__waits_with_that_for_a_token(void **state)
{
    struct tekd *t = *state;

    t->hsm_state = HSM_STARTING;
    parts.hsm.prevents_wrap_out = false;
    hsm_says(t, HSM_STARTING, "");
    watch_tick(t);
    assert_int_equal(parts.n_records, 0);
    hsm_says(t, HSM_READY, "");
    watch_tick(t);
    assert_int_equal(parts.n_records, 1);
    assert_record(0, "hsm.weakness", "token", "tekd");
}

static void watch_tick__warns_a_week_before_crl_and_certificate_end(void **state)
{
    struct tekd *t = *state;

    parts.http.ends.crl_next_update_s = NOW_S + 7 * DAY_S + 60;
    parts.http.ends.certificate_not_after_s = NOW_S + 30 * DAY_S;
    watch_tick(t);
    assert_false(parts_logged("event="));
    fake_clock_advance(HOUR_US);
    watch_tick(t);
    assert_true(parts_logged("warn tls event=crl-expires seconds_left=601260"));
    assert_false(parts_logged("certificate-expires"));
    parts.http.ends.certificate_not_after_s = NOW_S - 1;
    watch_tick(t);
    assert_false(parts_logged("certificate-expires")); /* once an hour */
    fake_clock_advance(HOUR_US);
    watch_tick(t);
    assert_true(parts_logged("error tls event=certificate-expires seconds_left=-7201"));
}

static void watch_tick__says_that_crl_and_certificate_have_not_begun(void **state)
{
    struct tekd *t = *state;

    parts.http.ends.crl_this_update_s = NOW_S + 5;
    parts.http.ends.certificate_not_before_s = NOW_S + 7;
    watch_tick(t);
    assert_true(parts_logged("error tls event=crl-not-yet-valid seconds_left=5"));
    assert_true(parts_logged("error tls event=certificate-not-yet-valid seconds_left=7"));
}

static void watch_tick__without_a_crl_has_none_to_warn_of(void **state)
{
    watch_tick(*state);
    assert_false(parts_logged("crl-expires"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(watch_tick__is_quiet_when_all_is_well),
        TEST(watch_tick__records_an_hsm_that_went_and_came_back_once_each),
        TEST(watch_tick__checks_keks_whenever_the_token_was_away),
        TEST(watch_tick__ends_tekd_when_a_kek_is_not_what_it_was),
        TEST(watch_tick__ends_tekd_when_teks_can_be_stolen),
        TEST(watch_tick__compares_the_tls_key_whenever_the_token_was_away),
        TEST(watch_tick__records_once_what_a_token_cannot_prevent),
        TEST(watch_tick__waits_with_that_for_a_token),
        TEST(watch_tick__warns_a_week_before_crl_and_certificate_end),
        TEST(watch_tick__says_that_crl_and_certificate_have_not_begun),
        TEST(watch_tick__without_a_crl_has_none_to_warn_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
