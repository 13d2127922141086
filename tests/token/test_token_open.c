/* Finding the token: by URI, never by slot, exactly one. */
#include "lab.h"

#include <stdio.h>
#include <string.h>

static int make(const char *uri, const char *profile)
{
    AUTO(token) struct token *t = NULL;
    const struct token_options o = {.module = TEST_SOFTHSM, .uri = uri, .profile = profile};

    return token_new(&o, &t);
}

static void token_new__takes_what_rfc_7512_allows(void **state)
{
    (void)state;
    assert_int_equal(make("pkcs11:token=lab", NULL), 0);
    assert_int_equal(make("pkcs11:serial=0123;model=SoftHSM%20v2", "softhsm"), 0);
    assert_int_equal(make("pkcs11:manufacturer=Some%20Vendor", "luna"), 0);
}

static void token_new__refuses_what_has_no_place_in_a_uri(void **state)
{
    static const char *const bad[] = {
        "lab",
        "",
        "pkcs11:",
        "pkcs11:token",
        "pkcs11:token=%zz",
        "pkcs11:slot-id=1",
        "pkcs11:token=lab;slot-id=1",
        "pkcs11:token=lab;object=key",
        "pkcs11:token=lab;no-such-attribute=1",
        "pkcs11:token=lab?pin-value=1234",
        "pkcs11:token=lab?pin-source=/etc/pin",
        "pkcs11:token=lab?module-path=/lib/x.so",
        "pkcs11:token=lab?module-name=x",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (make(bad[i], NULL) != TEKD_EINVAL)
            fail_msg("taken: %s", bad[i]);
    }
}

static void token_new__refuses_unknown_profile(void **state)
{
    (void)state;
    assert_int_equal(make("pkcs11:token=lab", "no-such-vendor"), TEKD_EINVAL);
}

static void token_profile__has_the_vendors(void **state)
{
    static const char *const names[] = {"softhsm",  "luna",         "nshield",
                                        "cloudhsm", "opencryptoki", "generic"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        assert_string_equal(token_profile_name(i), names[i]);
        assert_non_null(token_profile_find(names[i]));
    }
    assert_null(token_profile_name(ARRAY_SIZE(names)));
    assert_null(token_profile_find(""));
}

static int open_uri(const char *uri, struct token_info *ret_info)
{
    AUTO(token) struct token *t = lab_new(NULL, uri, NULL);
    int r = token_open(t);

    if (r == 0)
        token_info_get(t, ret_info);
    return r;
}

static void token_open__finds_by_label_and_by_serial(void **state)
{
    struct token_info by_label = {.label = ""}, by_serial = {.label = ""};
    char uri[64];

    (void)state;
    lab_make_token("one");
    lab_make_token("two with blank; and more");
    assert_int_equal(open_uri("pkcs11:token=two%20with%20blank%3b%20and%20more", &by_label), 0);
    assert_string_equal(by_label.label, "two with blank; and more");
    assert_string_equal(by_label.model, "SoftHSM v2");
    assert_false(by_label.logged_in);
    assert_int_equal(strlen(by_label.serial), 16);
    snprintf(uri, sizeof(uri), "pkcs11:serial=%s", by_label.serial);
    assert_int_equal(open_uri(uri, &by_serial), 0);
    assert_string_equal(by_serial.label, by_label.label);
}

static void token_open__a_part_of_a_label_is_no_match(void **state)
{
    struct token_info info;

    (void)state;
    lab_make_token("lab-2");
    assert_int_equal(open_uri("pkcs11:token=lab", &info), TEKD_EHSM);
    assert_int_equal(open_uri("pkcs11:token=lab-2;model=Other", &info), TEKD_EHSM);
}

static void token_open__missing_token_is_the_hsm_not_there(void **state)
{
    AUTO(token) struct token *t = NULL;

    (void)state;
    t = lab_new(NULL, LAB_URI, NULL);
    assert_int_equal(token_open(t), TEKD_EHSM);
    lab_assert_reason(t, "no token agrees with pkcs11:token=lab");
    /* It may come later: the same struct is tried again. */
    lab_make_token(LAB_TOKEN);
    assert_int_equal(token_open(t), 0);
}

/* As a partition of the same HSM, or a second HSM of the same module, that is away. */
static void token_open__finds_it_beside_a_token_that_fails(void **state)
{
    AUTO(token) struct token *t = NULL;
    struct token_info info;

    (void)state;
    lab_make_token("other");
    lab_make_token(LAB_TOKEN);
    t = lab_shim("other-token-fails", "softhsm");
    token_info_get(t, &info);
    assert_string_equal(info.label, LAB_TOKEN);
}

static void token_open__refuses_two_tokens_of_one_label(void **state)
{
    AUTO(token) struct token *t = NULL;
    struct token_info info;

    (void)state;
    lab_make_token(LAB_TOKEN);
    assert_int_equal(open_uri(LAB_URI, &info), 0);
    lab_make_token(LAB_TOKEN);
    t = lab_new(NULL, LAB_URI, NULL);
    assert_int_equal(token_open(t), TEKD_EEXIST);
    lab_assert_reason(t, "2 tokens agree");
    lab_assert_reason(t, "serial=");
}

static void token_open__serial_tells_two_of_one_label_apart(void **state)
{
    struct token_info first, again;
    char uri[64];

    (void)state;
    lab_make_token(LAB_TOKEN);
    assert_int_equal(open_uri(LAB_URI, &first), 0);
    lab_make_token(LAB_TOKEN);
    snprintf(uri, sizeof(uri), "pkcs11:token=lab;serial=%s", first.serial);
    assert_int_equal(open_uri(uri, &again), 0);
    assert_string_equal(again.serial, first.serial);
}

static void open_module(const char *path, const char *reason)
{
    AUTO(token) struct token *t = lab_new(path, LAB_URI, NULL);

    assert_int_equal(token_open(t), TEKD_EINVAL);
    lab_assert_reason(t, reason);
}

static void token_open__refuses_garbage_modules(void **state)
{
    struct lab *l = *state;
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/garbage.so", l->dir);
    open_module(path, "No such file");
    f = fopen(path, "we");
    assert_non_null(f);
    fputs("this is no library\n", f);
    assert_int_equal(fclose(f), 0);
    open_module(path, "garbage.so");
    open_module("libc.so.6", "no C_GetFunctionList in it");
}

static void token_make_token__leaves_a_token_of_the_label_alone(void **state)
{
    struct lab *l = *state;
    AUTO(secret) struct secret *other = lab_secret("another-pin-9");
    const struct token_pins pins = {.so = other, .user = other};
    AUTO(token) struct token *t = NULL;

    lab_make_token(LAB_TOKEN);
    t = lab_new(NULL, LAB_URI, NULL);
    assert_int_equal(token_make_token(t, LAB_TOKEN, &pins), TEKD_EEXIST);
    lab_assert_reason(t, "agrees with pkcs11:token=lab already");
    token_free(TAKE(t));
    /* Its PIN is the old one: lab_open() logs in. */
    lab_open(l, NULL, NULL, TOKEN_READ_ONLY);
}

static void token_make_token__refuses_labels_that_do_not_fit(void **state)
{
    AUTO(secret) struct secret *pin = lab_secret(LAB_PIN);
    const struct token_pins pins = {.so = pin, .user = pin};
    AUTO(token) struct token *t = lab_new(NULL, LAB_URI, NULL);

    (void)state;
    assert_int_equal(token_make_token(t, "", &pins), TEKD_EINVAL);
    assert_int_equal(token_make_token(t, "123456789012345678901234567890123", &pins), TEKD_EINVAL);
}

static void token_ckr_text__has_a_name_for_every_code(void **state)
{
    static const struct {
        unsigned long rv;
        const char *name;
    } known[] = {
        {0, "CKR_OK"},
        {0x30, "CKR_DEVICE_ERROR"},
        {0xa0, "CKR_PIN_INCORRECT"},
        {0xf0, "CKR_UNWRAPPING_KEY_HANDLE_INVALID"},
        {0x1b, "CKR_ACTION_PROHIBITED"},
        {0x202, "CKR_OPERATION_CANCEL_FAILED"},
        {0x80000000UL, "CKR_VENDOR_DEFINED+0x0"},
        {0x8000001dUL, "CKR_VENDOR_DEFINED+0x1d"},
        {0x3e7, "CKR_0x3e7"},
    };
    char text[TOKEN_CKR_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        token_ckr_text(known[i].rv, text);
        assert_string_equal(text, known[i].name);
    }
}

#define LAB_TEST(f) cmocka_unit_test_setup_teardown(f, lab_setup_empty, lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_new__takes_what_rfc_7512_allows),
        cmocka_unit_test(token_new__refuses_what_has_no_place_in_a_uri),
        cmocka_unit_test(token_new__refuses_unknown_profile),
        cmocka_unit_test(token_profile__has_the_vendors),
        LAB_TEST(token_open__finds_by_label_and_by_serial),
        LAB_TEST(token_open__a_part_of_a_label_is_no_match),
        LAB_TEST(token_open__missing_token_is_the_hsm_not_there),
        LAB_TEST(token_open__finds_it_beside_a_token_that_fails),
        LAB_TEST(token_open__refuses_two_tokens_of_one_label),
        LAB_TEST(token_open__serial_tells_two_of_one_label_apart),
        LAB_TEST(token_open__refuses_garbage_modules),
        LAB_TEST(token_make_token__leaves_a_token_of_the_label_alone),
        LAB_TEST(token_make_token__refuses_labels_that_do_not_fit),
        cmocka_unit_test(token_ckr_text__has_a_name_for_every_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
