/* The login: once, not at all when it could lock the PIN, and nothing of the PIN stays. */
#include "lab.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int setup(void **state)
{
    lab_setup_empty(state);
    lab_make_token(LAB_TOKEN);
    return 0;
}

static int login(struct token *t, const char *text)
{
    AUTO(secret) struct secret *pin = lab_secret(text);

    return token_login(t, pin);
}

static void token_login__takes_the_pin(void **state)
{
    AUTO(token) struct token *t = lab_new(NULL, LAB_URI, NULL);
    struct token_info info;

    (void)state;
    assert_int_equal(token_open(t), 0);
    assert_int_equal(login(t, LAB_PIN), 0);
    token_info_get(t, &info);
    assert_true(info.logged_in);
    assert_string_equal(token_reason(t), "");
}

static void token_login__wrong_pin_is_tried_once(void **state)
{
    AUTO(token) struct token *t = lab_shim("", "softhsm");
    struct token_info info;

    (void)state;
    assert_int_equal(login(t, "wrong-pin-0"), TEKD_EPIN);
    assert_string_equal(token_reason(t), "C_Login: CKR_PIN_INCORRECT");
    assert_int_equal(lab_shim_logins(), 1);
    token_info_get(t, &info);
    assert_false(info.logged_in);
}

static void token_login__hsm_fault_is_no_refused_pin(void **state)
{
    AUTO(token) struct token *t = lab_shim("device-error-at-login", "softhsm");

    (void)state;
    assert_int_equal(login(t, LAB_PIN), TEKD_EHSM);
    assert_string_equal(token_reason(t), "C_Login: CKR_DEVICE_ERROR");
}

static void token_login__is_not_tried_when_the_token_warns(void **state)
{
    static const struct {
        const char *mode;
        const char *reason;
    } warnings[] = {
        {"final-try", "one try is left"},
        {"locked", "the user PIN is locked"},
        {"to-be-changed", "must be changed"},
        {"no-user-pin", "has no user PIN"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(warnings); i++) {
        AUTO(token) struct token *t = lab_shim(warnings[i].mode, "softhsm");

        assert_int_equal(login(t, LAB_PIN), TEKD_EPIN);
        lab_assert_reason(t, "C_Login not tried");
        lab_assert_reason(t, warnings[i].reason);
        assert_int_equal(lab_shim_logins(), 0);
    }
}

/*
 * How often the octets stand in memory that can be written to; needle itself is not counted.  What
 * is looked for is kept inverted, and compared octet by octet, so that the search makes no copy.
 */
static unsigned scan(const uint8_t *inverted, size_t len)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    char line[512];
    unsigned hits = 0;

    assert_non_null(maps);
    assert_true(mem >= 0);
    while (fgets(line, sizeof(line), maps)) {
        char *end;
        unsigned long from = strtoul(line, &end, 16), to = strtoul(end + 1, &end, 16);
        static uint8_t page[4096];

        if (strncmp(end, " rw", 3) != 0)
            continue;
        /* Pages may be unreadable (guards); a PIN across two pages is too rare to wait for. */
        for (unsigned long at = from; at < to; at += sizeof(page)) {
            if (at == (unsigned long)(uintptr_t)page ||
                pread(mem, page, sizeof(page), (off_t)at) != (ssize_t)sizeof(page))
                continue;
            for (size_t i = 0; i + len <= sizeof(page); i++) {
                size_t k = 0;

                while (k < len && (page[i + k] ^ inverted[k]) == 0xff)
                    k++;
                hits += k == len;
            }
            memset(page, 0, sizeof(page));
        }
    }
    fclose(maps);
    close(mem);
    return hits;
}

static void token_login__leaves_nothing_of_the_pin(void **state)
{
    /* ~ of LAB_PIN, which itself stands in read-only memory. */
    uint8_t inverted[sizeof(LAB_PIN) - 1];
    AUTO(token) struct token *t = lab_new(NULL, LAB_URI, NULL);
    struct secret *pin = lab_secret(LAB_PIN);

    (void)state;
    for (size_t i = 0; i < sizeof(inverted); i++)
        inverted[i] = (uint8_t)~LAB_PIN[i];
    assert_int_equal(token_open(t), 0);
    assert_int_equal(token_login(t, pin), 0);
    /* The scan finds it while it is there, so that not finding it means something. */
    assert_true(scan(inverted, sizeof(inverted)) >= 1);
    secret_free(pin);
    assert_int_equal(scan(inverted, sizeof(inverted)), 0);
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(token_login__takes_the_pin),
        LAB_TEST(token_login__wrong_pin_is_tried_once),
        LAB_TEST(token_login__hsm_fault_is_no_refused_pin),
        LAB_TEST(token_login__is_not_tried_when_the_token_warns),
        LAB_TEST(token_login__leaves_nothing_of_the_pin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
