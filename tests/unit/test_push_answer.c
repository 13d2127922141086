#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "internal.h"
#include "tekd/buf.h"

#define MID "018f2f6e-0000-7000-8000-000000000001"

static struct cp3_reader *reader;

static int set_up(void **state)
{
    (void)state;
    return cp3_reader_new(&reader);
}

static int tear_down(void **state)
{
    (void)state;
    cp3_reader_free(reader);
    return 0;
}

static struct answer read_answer(int status, const char *media, const char *body)
{
    AUTO(buf) struct buf *b = NULL;
    struct outcome o = {.answered = true, .status = status};
    struct answer a;

    assert_int_equal(buf_new(PUSH_ANSWER_MAX, &b), 0);
    assert_int_equal(buf_puts(b, body), 0);
    (void)snprintf(o.media, sizeof(o.media), "%s", media);
    o.body = b;
    answer_read(reader, &o, MID, &a);
    return a;
}

static void is_none(int status, const char *media, const char *body, const char *why)
{
    struct answer a = read_answer(status, media, body);

    assert_int_equal(a.kind, ANSWER_NONE);
    assert_string_equal(a.why, why);
}

#define XML  "application/xml"
#define JSON "application/json"
#define EFFICIENT                                                                                  \
    "<KeyDeliveryConfirmation xmlns=\"" CP3_NAMESPACE "\"><Tag>4</Tag><MessageID>" MID             \
    "</MessageID><Status>0</Status></KeyDeliveryConfirmation>"

static void answer_read__takes_a_confirmation_of_either_media(void **state)
{
    struct answer a = read_answer(200, XML, EFFICIENT);

    (void)state;
    assert_int_equal(a.kind, ANSWER_CONFIRMATION);
    assert_string_equal(a.message.message_id, MID);
    assert_int_equal(a.message.status, CP3_STATUS_OK);
    a = read_answer(200, JSON "; charset=utf-8",
                    "{\"Tag\":4,\"MessageID\":\"" MID "\",\"Status\":1}");
    assert_int_equal(a.kind, ANSWER_CONFIRMATION);
    assert_int_equal(a.message.status, CP3_STATUS_REFUSED);
}

static void answer_read__knows_one_of_another_delivery(void **state)
{
    struct answer a = read_answer(200, JSON, "{\"Tag\":4,\"MessageID\":\"m-2\",\"Status\":0}");

    (void)state;
    assert_int_equal(a.kind, ANSWER_OTHER);
    assert_string_equal(a.message.message_id, "m-2");
    assert_string_equal(a.why, "not a confirmation: another MessageID");
}

static void answer_read__takes_202_and_204_without_a_body(void **state)
{
    (void)state;
    assert_int_equal(read_answer(202, "", "").kind, ANSWER_TAKEN);
    assert_int_equal(read_answer(204, "", "").kind, ANSWER_TAKEN);
}

static void answer_read__says_what_is_no_confirmation(void **state)
{
    (void)state;
    is_none(200, "text/html", "<html></html>",
            "not a confirmation: its media type is \"text/html\"");
    is_none(200, "", EFFICIENT, "not a confirmation: its media type is \"\"");
    is_none(200,
            "a\x01"
            "b\xff",
            EFFICIENT, "not a confirmation: its media type is \"a?b?\"");
    is_none(200, JSON,
            "{\"Tag\":1,\"MessageID\":\"m\",\"ContentID\":\"urn:c\","
            "\"Destination\":\"d\",\"Source\":\"s\"}",
            "not a confirmation: a KeyRequest");
    is_none(200, XML, "", "HTTP 200 without a confirmation");
    is_none(201, XML, EFFICIENT, "HTTP 201 with a body");
    is_none(202, XML, EFFICIENT, "HTTP 202 with a body");
    is_none(302, "", "", "HTTP 302: redirects are not followed");
    is_none(404, "text/html", "<html>", "HTTP 404");
    is_none(500, XML, EFFICIENT, "HTTP 500");
}

static void answer_read__names_place_and_reason_of_what_is_broken(void **state)
{
    struct answer a = read_answer(200, XML, "<html>\n<body>");

    (void)state;
    assert_int_equal(a.kind, ANSWER_NONE);
    assert_true(strncmp(a.why, "not a confirmation: line ", 25) == 0);
}

static void answer_read__passes_on_why_there_was_none(void **state)
{
    struct outcome o = {.status = 0, .why = "refused"};
    struct answer a;

    (void)state;
    answer_read(reader, &o, MID, &a);
    assert_int_equal(a.kind, ANSWER_NONE);
    assert_string_equal(a.why, "refused");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answer_read__takes_a_confirmation_of_either_media),
        cmocka_unit_test(answer_read__knows_one_of_another_delivery),
        cmocka_unit_test(answer_read__takes_202_and_204_without_a_body),
        cmocka_unit_test(answer_read__says_what_is_no_confirmation),
        cmocka_unit_test(answer_read__names_place_and_reason_of_what_is_broken),
        cmocka_unit_test(answer_read__passes_on_why_there_was_none),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
