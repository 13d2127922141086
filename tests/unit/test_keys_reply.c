#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "internal.h"

/* 2026-11-22T13:15:42.123456Z */
#define NOW_US 1795353342123456

static int set_up(void **state)
{
    (void)state;
    fake_clock_set_utc(NOW_US);
    return 0;
}

struct mapped {
    enum cp3_reason reason;
    int status;
};

static void reply_refusal_status__is_200_or_mapped(void **state)
{
    static const struct mapped rows[] = {
        {CP3_REASON_UNKNOWN_CONTENT, 404},
        {CP3_REASON_NOT_ENTITLED, 403},
        {CP3_REASON_WRONG_SOURCE, 403},
        {CP3_REASON_WRONG_DESTINATION, 421},
        {CP3_REASON_DUPLICATE_MESSAGE_ID, 409},
        {CP3_REASON_KEY_GONE, 410},
        {CP3_REASON_UNSUPPORTED_VERSION, 422},
        {CP3_REASON_NO_PERIOD, 422},
        {CP3_REASON_MALFORMED, 422},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(reply_refusal_status(KEYS_REFUSAL_MAPPED, rows[i].reason), rows[i].status);
        assert_int_equal(reply_refusal_status(KEYS_REFUSAL_200, rows[i].reason), 200);
    }
}

static struct cp3_message request(void)
{
    struct cp3_message m;

    cp3_message_init(&m, CP3_REQUEST);
    (void)snprintf(m.message_id, sizeof(m.message_id), "m <&> 1");
    (void)snprintf(m.content_id, sizeof(m.content_id), "urn:x");
    (void)snprintf(m.source, sizeof(m.source), "bsa-1");
    (void)snprintf(m.destination, sizeof(m.destination), "bsm");
    return m;
}

/* What a BSA reads. */
static struct cp3_message read_body(const struct keys_reply *reply, enum cp3_media media)
{
    struct cp3_reader *reader = NULL;
    struct cp3_error err = {.code = 0};
    struct cp3_message m;

    assert_non_null(reply->body);
    assert_string_equal(reply->media, cp3_media_content_type(media));
    assert_int_equal(cp3_reader_new(&reader), 0);
    if (cp3_read(reader, media, buf_data(reply->body), buf_len(reply->body), &m, &err) < 0)
        fail_msg("%s: %s", err.element, err.reason);
    cp3_reader_free(reader);
    assert_int_equal(m.tag, CP3_RESPONSE);
    assert_int_equal(m.status, CP3_STATUS_REFUSED);
    assert_int_equal(m.data_len, 0);
    assert_string_equal(m.message_id, "m <&> 1");
    return m;
}

static void reply_refuse__full_turns_source_and_destination_round(void **state)
{
    static const enum cp3_media media[] = {CP3_XML, CP3_JSON};
    struct cp3_message req = request();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(media); i++) {
        const struct reply_refusal what = {.media = media[i],
                                           .form = CP3_FULL,
                                           .reason = CP3_REASON_NOT_ENTITLED,
                                           .message_id = req.message_id,
                                           .request = &req,
                                           .status = 403};
        struct keys_reply reply;
        struct cp3_message m;

        reply_refuse(&what, &reply);
        assert_int_equal(reply.status, 403);
        assert_string_equal(reply.reason, "not-entitled");
        assert_int_equal(reply.retry_after_s, 0);
        assert_false(reply.close);
        assert_int_equal(reply.correlation[0], '\0');
        m = read_body(&reply, media[i]);
        assert_int_equal(m.form, CP3_FULL);
        assert_string_equal(m.content_id, "urn:x");
        assert_string_equal(m.source, "bsm");
        assert_string_equal(m.destination, "bsa-1");
        assert_string_equal(m.time.text, "2026-11-22T13:15:42.123456Z");
        assert_int_equal(m.version, 1);
        buf_free(reply.body);
    }
}

static void reply_refuse__efficient_needs_the_message_id_only(void **state)
{
    const struct reply_refusal what = {.media = CP3_JSON,
                                       .form = CP3_EFFICIENT,
                                       .reason = CP3_REASON_MALFORMED,
                                       .message_id = "m <&> 1",
                                       .status = 400};
    struct keys_reply reply;
    struct cp3_message m;

    (void)state;
    reply_refuse(&what, &reply);
    assert_int_equal(reply.status, 400);
    m = read_body(&reply, CP3_JSON);
    assert_int_equal(m.form, CP3_EFFICIENT);
    assert_string_equal(m.content_id, "");
    buf_free(reply.body);
}

static json_t *problem_of(const struct reply_problem *what, struct keys_reply *reply)
{
    json_t *o;

    reply_problem(what, reply);
    assert_string_equal(reply->media, "application/problem+json");
    assert_non_null(reply->body);
    o = json_loadb(buf_str(reply->body), buf_len(reply->body), 0, NULL);
    assert_true(json_is_object(o));
    buf_free(reply->body);
    return o;
}

static const char *str(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void reply_problem__names_line_element_and_reason(void **state)
{
    const struct cp3_error where = {
        .line = 3, .column = 7, .element = "Message\\xFF\"ID", .reason = "is \"repeated\" \\x00"};
    const struct reply_problem what = {.status = 400,
                                       .reason = CP3_REASON_MALFORMED,
                                       .title = "not a CP-3 message",
                                       .where = &where};
    struct keys_reply reply;
    json_t *o = problem_of(&what, &reply);

    (void)state;
    assert_int_equal(reply.status, 400);
    assert_string_equal(reply.reason, "malformed");
    assert_int_equal(json_integer_value(json_object_get(o, "status")), 400);
    assert_int_equal(json_integer_value(json_object_get(o, "line")), 3);
    assert_int_equal(json_integer_value(json_object_get(o, "column")), 7);
    assert_string_equal(str(o, "title"), "not a CP-3 message");
    assert_string_equal(str(o, "reason"), "malformed");
    assert_string_equal(str(o, "element"), where.element);
    assert_string_equal(str(o, "detail"), "line 3, Message\\xFF\"ID: is \"repeated\" \\x00");
    json_decref(o);
}

static void reply_problem__without_a_reason_has_none(void **state)
{
    const struct reply_problem what = {.status = 403, .title = "not enrolled"};
    struct keys_reply reply;
    json_t *o = problem_of(&what, &reply);

    (void)state;
    assert_null(reply.reason);
    assert_null(json_object_get(o, "reason"));
    assert_null(json_object_get(o, "detail"));
    assert_null(json_object_get(o, "line"));
    assert_int_equal(reply.retry_after_s, 0);
    json_decref(o);
}

static void reply_problem__carries_the_correlation(void **state)
{
    const struct reply_problem what = {
        .status = 500, .reason = CP3_REASON_INTERNAL, .title = "a fault", .correlation = "01-23"};
    struct keys_reply reply;
    json_t *o = problem_of(&what, &reply);

    (void)state;
    assert_string_equal(str(o, "correlation"), "01-23");
    assert_string_equal(reply.reason, "internal");
    json_decref(o);
}

static void keys_busy_reply__is_a_message_when_one_is_known(void **state)
{
    struct keys_reply reply;
    struct cp3_message m;

    (void)state;
    keys_busy_reply(CP3_XML, "m <&> 1", &reply);
    assert_int_equal(reply.status, 503);
    assert_true(reply.retry_after_s > 0);
    assert_string_equal(reply.reason, "busy");
    m = read_body(&reply, CP3_XML);
    assert_int_equal(m.form, CP3_EFFICIENT);
    buf_free(reply.body);
}

static void keys_busy_reply__is_a_problem_when_none_is(void **state)
{
    static const char *const none[] = {NULL, ""};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        struct keys_reply reply;

        keys_busy_reply(CP3_JSON, none[i], &reply);
        assert_int_equal(reply.status, 503);
        assert_true(reply.retry_after_s > 0);
        assert_string_equal(reply.reason, "busy");
        assert_string_equal(reply.media, "application/problem+json");
        buf_free(reply.body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reply_refusal_status__is_200_or_mapped),
        cmocka_unit_test(reply_refuse__full_turns_source_and_destination_round),
        cmocka_unit_test(reply_refuse__efficient_needs_the_message_id_only),
        cmocka_unit_test(reply_problem__names_line_element_and_reason),
        cmocka_unit_test(reply_problem__without_a_reason_has_none),
        cmocka_unit_test(reply_problem__carries_the_correlation),
        cmocka_unit_test(keys_busy_reply__is_a_message_when_one_is_known),
        cmocka_unit_test(keys_busy_reply__is_a_problem_when_none_is),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
