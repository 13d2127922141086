/*
 * Content types, names and codes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <cp3.h>

static void cp3_media_from_content_type__takes_ours(void **state)
{
    static const struct {
        const char *value;
        enum cp3_media media;
    } values[] = {
        {"application/xml", CP3_XML},
        {"text/xml", CP3_XML},
        {"application/json", CP3_JSON},
        {"APPLICATION/Json", CP3_JSON},
        {"text/xml; charset=utf-8", CP3_XML},
        {"text/xml;charset=UTF-8", CP3_XML},
        {"text/xml ;\tCharset=\"utf-8\" ", CP3_XML},
        {"application/json; a=b; charset=\"u\\tf-8\"; c=\"d;e\\\"\"", CP3_JSON},
        {"application/json;", CP3_JSON},
        {"application/json;;a=b", CP3_JSON},
        {" application/xml", CP3_XML},
        {"application/xml; charset-of-another-name=latin1", CP3_XML},
    };
    enum cp3_media media;

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        const char *v = values[i].value;

        assert_int_equal(cp3_media_from_content_type(v, strlen(v), &media), 0);
        assert_int_equal(media, values[i].media);
        assert_int_equal(cp3_media_from_content_type(cp3_media_content_type(media),
                                                     strlen(cp3_media_content_type(media)), &media),
                         0);
        assert_int_equal(media, values[i].media);
    }
}

static void cp3_media_from_content_type__refuses_others(void **state)
{
    static const char *const values[] = {
        "",
        "application",
        "application/",
        "application/xm",
        "application/xmll",
        "application/xml+x",
        "application/soap+xml",
        "text/plain",
        "text/json",
        "application/json charset=utf-8",
        "application/json, text/xml",
        "application/json; charset=latin1",
        "application/json; charset=utf-16",
        "application/json; charset=utf-80",
        "application/json; charset=\"utf-8",
        "application/json; charset=\"utf-8\\",
        "application/json; charset=",
        "application/json; charset",
        "application/json; charset utf-8",
        "application/json; =utf-8",
        "application/json; a=b charset=latin1",
        "application/json; charset=utf-8; charset=latin1",
        "application/xml\r\nx: y",
    };
    enum cp3_media media;

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        if (cp3_media_from_content_type(values[i], strlen(values[i]), &media) != CP3_EMEDIA)
            fail_msg("%s was taken", values[i]);
    }
    assert_int_equal(cp3_media_from_content_type("text/xml\0", 9, &media), CP3_EMEDIA);
    assert_int_equal(cp3_media_from_content_type("text/xmlx", 8, &media), 0);
    assert_null(cp3_media_content_type((enum cp3_media)2));
}

static void cp3_reason_name__goes_both_ways(void **state)
{
    static const char *const names[] = {
        "malformed",
        "unsupported-version",
        "wrong-destination",
        "wrong-source",
        "unknown-content",
        "not-entitled",
        "duplicate-message-id",
        "unknown-message",
        "wrong-content",
        "already-confirmed",
        "no-period",
        "key-gone",
        "busy",
        "internal",
    };
    enum cp3_reason reason;

    (void)state;
    for (int i = CP3_REASON_MALFORMED; i <= CP3_REASON_INTERNAL; i++) {
        assert_string_equal(cp3_reason_name((enum cp3_reason)i), names[i - 1]);
        assert_int_equal(cp3_reason_from_name(names[i - 1], &reason), 0);
        assert_int_equal(reason, i);
    }
    assert_int_equal(CP3_REASON_INTERNAL, sizeof(names) / sizeof(names[0]));
    assert_string_equal(cp3_reason_name(CP3_REASON_NONE), "");
    assert_null(cp3_reason_name((enum cp3_reason)(CP3_REASON_INTERNAL + 1)));
    assert_int_equal(cp3_reason_from_name("", &reason), CP3_EINVAL);
    assert_int_equal(cp3_reason_from_name("Malformed", &reason), CP3_EINVAL);
}

static void cp3_wrap_name__goes_both_ways(void **state)
{
    static const char *const names[] = {"aes-kw", "aes-kwp", "rsa-oaep-sha256", "rsa-oaep-sha1"};
    enum cp3_wrap wrap;

    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_string_equal(cp3_wrap_name((enum cp3_wrap)i), names[i]);
        assert_int_equal(cp3_wrap_from_name(names[i], &wrap), 0);
        assert_int_equal(wrap, i);
    }
    assert_null(cp3_wrap_name((enum cp3_wrap)4));
    assert_int_equal(cp3_wrap_from_name("aes", &wrap), CP3_EINVAL);
    assert_int_equal(cp3_wrap_from_name("", &wrap), CP3_EINVAL);
}

static void cp3_media_name__and_form_go_both_ways(void **state)
{
    enum cp3_media media;
    enum cp3_form form;

    (void)state;
    assert_int_equal(cp3_media_from_name("xml", &media), 0);
    assert_int_equal(media, CP3_XML);
    assert_int_equal(cp3_media_from_name(cp3_media_name(CP3_JSON), &media), 0);
    assert_int_equal(media, CP3_JSON);
    assert_int_equal(cp3_media_from_name("XML", &media), CP3_EINVAL);
    assert_null(cp3_media_name((enum cp3_media)2));
    assert_int_equal(cp3_form_from_name("full", &form), 0);
    assert_int_equal(form, CP3_FULL);
    assert_int_equal(cp3_form_from_name(cp3_form_name(CP3_EFFICIENT), &form), 0);
    assert_int_equal(form, CP3_EFFICIENT);
    assert_int_equal(cp3_form_from_name("half", &form), CP3_EINVAL);
    assert_null(cp3_form_name((enum cp3_form)2));
}

static void cp3_tag_name__is_the_root_element(void **state)
{
    (void)state;
    assert_null(cp3_tag_name((enum cp3_tag)0));
    assert_string_equal(cp3_tag_name(CP3_REQUEST), "KeyRequest");
    assert_string_equal(cp3_tag_name(CP3_RESPONSE), "KeyRequestResponse");
    assert_string_equal(cp3_tag_name(CP3_DELIVERY), "KeyDelivery");
    assert_string_equal(cp3_tag_name(CP3_CONFIRMATION), "KeyDeliveryConfirmation");
    assert_null(cp3_tag_name((enum cp3_tag)5));
}

static void cp3_errname__knows_every_code(void **state)
{
    (void)state;
    for (int code = CP3_ENOMEM; code < 0; code++) {
        assert_int_equal(strncmp(cp3_errname(code), "CP3_E", 5), 0);
        assert_string_not_equal(cp3_strerror(code), "unknown error");
        assert_string_not_equal(cp3_strerror(code), cp3_strerror(code + 1));
    }
    assert_string_equal(cp3_errname(CP3_EFORMAT), "CP3_EFORMAT");
    assert_string_equal(cp3_strerror(CP3_ENOMEM - 1), "unknown error");
    assert_string_equal(cp3_errname(1), "unknown code");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cp3_media_from_content_type__takes_ours),
        cmocka_unit_test(cp3_media_from_content_type__refuses_others),
        cmocka_unit_test(cp3_reason_name__goes_both_ways),
        cmocka_unit_test(cp3_wrap_name__goes_both_ways),
        cmocka_unit_test(cp3_media_name__and_form_go_both_ways),
        cmocka_unit_test(cp3_tag_name__is_the_root_element),
        cmocka_unit_test(cp3_errname__knows_every_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
