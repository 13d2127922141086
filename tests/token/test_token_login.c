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

/* What may be about the PIN is never tried again by itself. */
static void token_login__an_answer_that_may_be_about_the_pin_is(void **state)
{
    static const struct {
        const char *mode;
        const char *reason;
    } answers[] = {
        {"vendor-code-at-login", "C_Login: CKR_VENDOR_DEFINED+0x13"},
        {"bad-arguments-at-login", "C_Login: CKR_ARGUMENTS_BAD"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
        AUTO(token) struct token *t = lab_shim(answers[i].mode, "softhsm");

        assert_int_equal(login(t, LAB_PIN), TEKD_EPIN);
        assert_string_equal(token_reason(t), answers[i].reason);
        assert_int_equal(lab_shim_logins(), 1);
    }
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

/* What is looked for is kept inverted, so that looking for it makes no copy of it. */
struct needle {
    uint8_t inverted[sizeof(LAB_PIN) - 1];
};

static unsigned count_in(const uint8_t *data, size_t len, const struct needle *n)
{
    unsigned hits = 0;

    for (size_t i = 0; i + sizeof(n->inverted) <= len; i++) {
        size_t k = 0;

        while (k < sizeof(n->inverted) && (data[i + k] ^ n->inverted[k]) == 0xff)
            k++;
        hits += k == sizeof(n->inverted);
    }
    return hits;
}

/* One mapping, page by page; a page may be unreadable (guards). */
static unsigned scan_range(int mem, unsigned long from, unsigned long to, const struct needle *n)
{
    static uint8_t page[4096];
    unsigned hits = 0;

    for (unsigned long at = from; at < to; at += sizeof(page)) {
        if (pread(mem, page, sizeof(page), (off_t)at) == (ssize_t)sizeof(page))
            hits += count_in(page, sizeof(page), n);
        memset(page, 0, sizeof(page));
    }
    return hits;
}

/* How often it stands in memory that can be written to. */
static unsigned scan(const struct needle *n)
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

        /* Larger ones are a sanitizer's shadow. */
        if (strncmp(end, " rw", 3) == 0 && to - from <= 256UL << 20)
            hits += scan_range(mem, from, to, n);
    }
    fclose(maps);
    close(mem);
    return hits;
}

static void token_login__leaves_nothing_of_the_pin(void **state)
{
    struct needle n;
    AUTO(token) struct token *t = lab_new(NULL, LAB_URI, NULL);
    struct secret *pin = lab_secret(LAB_PIN);

    (void)state;
    for (size_t i = 0; i < sizeof(n.inverted); i++)
        n.inverted[i] = (uint8_t)~LAB_PIN[i];
    assert_int_equal(token_open(t), 0);
    assert_int_equal(token_login(t, pin), 0);
    /* The scan finds it while it is there, so that not finding it means something. */
    assert_true(scan(&n) >= 1);
    secret_free(pin);
    assert_int_equal(scan(&n), 0);
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, setup, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(token_login__takes_the_pin),
        LAB_TEST(token_login__wrong_pin_is_tried_once),
        LAB_TEST(token_login__hsm_fault_is_no_refused_pin),
        LAB_TEST(token_login__an_answer_that_may_be_about_the_pin_is),
        LAB_TEST(token_login__is_not_tried_when_the_token_warns),
        LAB_TEST(token_login__leaves_nothing_of_the_pin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
