/* What the commands print. */
#include "bsa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "bsa_output.h"

static json_t *example(void)
{
    json_t *doc = json_object();

    report_text(doc, "message_id", "m 1\n");
    report_text(doc, "event", "delivery");
    report_number(doc, "status", 0);
    report_flag(doc, "repeated", true);
    report_flag(doc, "late", false);
    return doc;
}

/* Each value one word, whatever a peer put into it. */
static void report_line__keeps_values_apart(void **state)
{
    struct bsa_output output;
    char text[BSA_OUTPUT_MAX];
    json_t *doc = example();

    (void)state;
    bsa_output_catch(&output, stdout);
    report_line(doc, false);
    bsa_output_end(&output, text);
    json_decref(doc);
    assert_string_equal(text, "delivery message_id=m\\x201\\x0a status=0 repeated=yes late=no\n");
}

static void report_line__prints_a_document_a_line(void **state)
{
    struct bsa_output output;
    char text[BSA_OUTPUT_MAX];
    json_t *doc = example(), *back;

    (void)state;
    bsa_output_catch(&output, stdout);
    report_line(doc, true);
    bsa_output_end(&output, text);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    back = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_equal(doc, back));
    json_decref(back);
    json_decref(doc);
}

static void report_print__writes_a_line_a_member(void **state)
{
    struct bsa_output output;
    char text[BSA_OUTPUT_MAX];
    json_t *doc = example();

    (void)state;
    bsa_output_catch(&output, stdout);
    report_print(doc, false);
    bsa_output_end(&output, text);
    json_decref(doc);
    assert_string_equal(text, "message_id   m 1\\x0a\n"
                              "event        delivery\n"
                              "status       0\n"
                              "repeated     yes\n"
                              "late         no\n");
}

static void report_key__tells_the_period(void **state)
{
    struct check_result result = {.read = true};
    struct cp3_key_info *k = &result.message.key_info;
    json_t *doc = json_object();

    (void)state;
    assert_int_equal(secret_new(16, &result.tek), 0);
    (void)snprintf(result.check_value, sizeof(result.check_value), "fde4fb");
    result.message.has = CP3_HAS_KEY_INFO;
    k->has = CP3_KEY_HAS_PERIOD | CP3_KEY_HAS_NOT_BEFORE | CP3_KEY_HAS_NOT_AFTER;
    k->period = 7;
    assert_int_equal(cp3_time_set(&k->not_before, 0, 0), 0);
    assert_int_equal(cp3_time_set(&k->not_after, 60, 0), 0);
    report_key(doc, &result, CP3_WRAP_AES_KW);
    assert_int_equal(json_integer_value(json_object_get(doc, "period")), 7);
    assert_string_equal(json_string_value(json_object_get(doc, "not_before")),
                        "1970-01-01T00:00:00Z");
    assert_string_equal(json_string_value(json_object_get(doc, "not_after")),
                        "1970-01-01T00:01:00Z");
    json_decref(doc);
    check_clear(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_line__keeps_values_apart),
        cmocka_unit_test(report_line__prints_a_document_a_line),
        cmocka_unit_test(report_print__writes_a_line_a_member),
        cmocka_unit_test(report_key__tells_the_period),
    };

    return cmocka_run_group_tests_name("bsa_report", tests, NULL, NULL);
}
