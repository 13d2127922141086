/*
 * The edges of what is legal: read, written, and one step beyond refused; what the writer refuses;
 * times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cp3_equal.h"
#include "cp3_fixture.h"

static struct cp3_reader *reader;

static int setup(void **state)
{
    (void)state;
    return cp3_reader_new(&reader);
}

static int teardown(void **state)
{
    (void)state;
    cp3_reader_free(reader);
    return 0;
}

static void read_body(enum cp3_media media, const char *body, size_t len, struct cp3_message *m)
{
    struct cp3_error err;

    if (cp3_read(reader, media, body, len, m, &err) < 0)
        fail_msg("%.*s: %u:%u %s: %s", (int)len, body, err.line, err.column, err.element,
                 err.reason);
}

static void read_changed(enum cp3_media media, int tag, const char *field, const char *text,
                         struct cp3_message *m)
{
    char body[FIXTURE_BODY_MAX];
    struct fixture_body b = {media, tag, FIXTURE_VALUE, field, text};

    read_body(media, body, fixture_build(&b, body), m);
}

/* Written in both media and read again. */
static void check_written(const struct cp3_message *m, enum cp3_form form)
{
    char out[CP3_WRITTEN_MAX];
    struct cp3_message again;
    size_t len;

    for (int media = CP3_XML; media <= CP3_JSON; media++) {
        assert_int_equal(cp3_write((enum cp3_media)media, form, m, out, sizeof(out), &len), 0);
        if (media == CP3_XML)
            assert_true(fixture_is_valid(out, len));
        read_body((enum cp3_media)media, out, len, &again);
        assert_true(cp3_equal(m, &again, form));
    }
}

static void fill(char *out, const char *text, size_t count)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < count; i++)
        memcpy(out + i * len, text, len);
    out[count * len] = '\0';
}

static void cp3_write__takes_strings_up_to_their_limits(void **state)
{
    struct cp3_message m;

    (void)state;
    fixture_message(CP3_REQUEST, &m);
    fill(m.message_id, "a", CP3_ID_MAX);
    fill(m.destination, "\xE2\x82\xAC", CP3_ID_MAX / 3);
    fill(m.source, "\xC2\x80", 127); /* C1 is no C0 */
    fill(m.content_id, "\xF0\x9F\x94\x91", CP3_CONTENT_ID_MAX / 4);
    check_written(&m, CP3_FULL);
    fill(m.message_id, "a", 1);
    fill(m.content_id, "\xEF\xBF\xBD", 1);
    check_written(&m, CP3_FULL);
}

/* The longest message of each medium, and a buffer one octet too short for it. */
static void check_longest(enum cp3_media media, const char *text, size_t least)
{
    char out[CP3_WRITTEN_MAX];
    struct cp3_message m;
    size_t len, again;

    fixture_message(CP3_RESPONSE, &m);
    fill(m.message_id, text, CP3_ID_MAX);
    fill(m.destination, text, CP3_ID_MAX);
    fill(m.source, text, CP3_ID_MAX);
    fill(m.content_id, text, CP3_CONTENT_ID_MAX);
    fill(m.key_info.kek_id, text, CP3_KEK_ID_MAX);
    m.data_len = CP3_DATA_MAX;
    memset(m.data, 0xFF, sizeof(m.data));
    assert_int_equal(cp3_write(media, CP3_FULL, &m, out, sizeof(out), &len), 0);
    assert_true(len >= least);
    for (size_t cap = 0; cap < len; cap++)
        assert_int_equal(cp3_write(media, CP3_FULL, &m, out, cap, &again), CP3_ENOSPC);
    assert_int_equal(cp3_write(media, CP3_FULL, &m, out, len, &again), 0);
    assert_int_equal(again, len);
    check_written(&m, CP3_FULL);
}

static void cp3_write__never_needs_more_than_its_maximum(void **state)
{
    (void)state;
    check_longest(CP3_XML, "\"", 2000 + 6 * (3 * CP3_ID_MAX + CP3_CONTENT_ID_MAX));
    check_longest(CP3_XML, "&", 2000 + 5 * (3 * CP3_ID_MAX + CP3_CONTENT_ID_MAX));
    check_longest(CP3_JSON, "\\", 1000 + 2 * (3 * CP3_ID_MAX + CP3_CONTENT_ID_MAX));
}

static void cp3_write__takes_data_up_to_its_limits(void **state)
{
    struct cp3_message m;

    (void)state;
    fixture_message(CP3_DELIVERY, &m);
    for (size_t i = 0; i < CP3_DATA_MAX; i++)
        m.data[i] = (uint8_t)i;
    m.data_len = CP3_DATA_MIN;
    check_written(&m, CP3_FULL);
    m.data_len = CP3_DATA_MAX;
    check_written(&m, CP3_FULL);
}

static void cp3_write__takes_integers_up_to_their_limits(void **state)
{
    char out[CP3_WRITTEN_MAX];
    struct cp3_message m;
    size_t len;

    (void)state;
    fixture_message(CP3_DELIVERY, &m);
    m.version = UINT32_MAX;
    m.key_info.bits = UINT16_MAX;
    m.key_info.period = CP3_INTEGER_MAX;
    check_written(&m, CP3_FULL);
    m.version = 0;
    m.key_info.bits = 0;
    m.key_info.period = 0;
    check_written(&m, CP3_FULL);
    m.version = CP3_INTEGER_MAX; /* beyond XML Schema's unsignedInt */
    assert_int_equal(cp3_write(CP3_JSON, CP3_FULL, &m, out, sizeof(out), &len), 0);
    assert_int_equal(cp3_write(CP3_XML, CP3_FULL, &m, out, sizeof(out), &len), CP3_EINVAL);
    read_changed(CP3_JSON, 1, "Version", "9007199254740991", &m);
    assert_true(m.version == CP3_INTEGER_MAX);
    read_changed(CP3_XML, 1, "Version", "4294967295", &m);
    assert_true(m.version == UINT32_MAX);
}

/* What is legal though it looks odd. */
static void cp3_read__takes_what_is_allowed(void **state)
{
    struct cp3_message m;

    (void)state;
    read_changed(CP3_XML, 1, "Version", "\n 01\t", &m);
    assert_int_equal(m.version, 1);
    read_changed(CP3_XML, 3, "Data", "\n  1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5\r\n",
                 &m);
    assert_int_equal(m.data_len, 24);
    assert_int_equal(m.data[23], 0xE5);
    read_changed(CP3_XML, 1, "MessageID", "<!-- a -->m&#x2D;<![CDATA[<1>]]>&amp;", &m);
    assert_string_equal(m.message_id, "m-<1>&");
    read_changed(CP3_JSON, 1, "MessageID", "\"\\u006d\\\\\\/\\\"\\ud834\\udd1e\"", &m);
    assert_string_equal(m.message_id, "m\\/\"\xF0\x9D\x84\x9E");
    read_changed(CP3_XML, 3, "KeyInfo",
                 "xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\" i:nil=\"false\" "
                 "keyID=\"" FIXTURE_KEY_ID "\" kekID=\"a&amp;&quot;&lt;b\" wrap=\"aes-kwp\" "
                 "bits=\"256\"",
                 &m);
    assert_string_equal(m.key_info.kek_id, "a&\"<b");
    assert_int_equal(m.key_info.wrap, CP3_WRAP_AES_KWP);
    assert_int_equal(m.key_info.has, 0);
    assert_int_equal(m.key_info.key_id[0], 0x8E);
    read_changed(CP3_XML, 3, "KeyInfo",
                 "keyID=\"" FIXTURE_KEY_ID "\" kekID=\"a\" wrap=\"aes-kw\" bits=\" 128&#10;\" "
                 "notBefore=\" 0001-01-01T00:00:00Z \" notAfter=\"\n2026-01-01T00:00:00Z&#9;\"",
                 &m);
    assert_int_equal(m.key_info.bits, 128);
    assert_int_equal(m.key_info.not_before.seconds, -62135596800);
    assert_string_equal(m.key_info.not_after.text, "2026-01-01T00:00:00Z");
    read_changed(CP3_XML, 4, "Version", "2", &m);
    assert_int_equal(m.version, 2);
}

#define NS  "xmlns=\"" CP3_NAMESPACE "\""
#define XNS "xmlns:x=\"" CP3_EXT_NAMESPACE "\""

/* A confirmation in XML with something in it or around it. */
static void read_around(const char *before, const char *attributes, const char *inside)
{
    char body[2048];
    struct cp3_message m;
    int n =
        snprintf(body, sizeof(body),
                 "%s<c:KeyDeliveryConfirmation xmlns:c=\"" CP3_NAMESPACE "\" %s><c:Tag>4</c:Tag>"
                 "<c:MessageID>d</c:MessageID><c:Status>0</c:Status>%s"
                 "</c:KeyDeliveryConfirmation>\n<!-- end -->\n",
                 before, attributes, inside);

    read_body(CP3_XML, body, (size_t)n, &m);
    assert_int_equal(m.form, CP3_EFFICIENT);
    assert_string_equal(m.message_id, "d");
    assert_int_equal(m.status, CP3_STATUS_OK);
    assert_int_equal(m.version, 1);
}

static void cp3_read__ignores_what_is_not_its_own(void **state)
{
    (void)state;
    read_around("", "", "");
    read_around("\xEF\xBB\xBF", "", "");
    read_around("\xEF\xBB\xBF<?xml version='1.0' encoding='utf-8' standalone='yes'?>\n", "", "");
    read_around("<?xml version=\"1.0\"   encoding =\n\"UTF-8\" ?><!-- encoding=\"x\" -->", "", "");
    read_around("<?xml version='1.0'?>", "", "");
    read_around("<?xml version='1.1'?>", "", ""); /* libxml2 warns, and reads it as 1.0 */
    read_around("<!-- <!DOCTYPE a> -->", "", "");
    read_around("",
                "xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:schemaLocation='a b' "
                "xmlns:y='y' xmlns=''",
                "\n \t<!-- <Tag/> -->");
    read_around("", "xmlns:y='y'",
                "<y:a b='1'>text<y:b/></y:a><y:a/><y:a/><y:a/><y:a/><y:a/><y:a/><y:a/>");
    read_around("", "xmlns:y='y'",
                "<y:a><y:a><y:a><y:a><y:a><y:a><y:a/></y:a></y:a></y:a></y:a>"
                "</y:a></y:a>");
    read_around("", "xmlns:y='y'", "<y:a><c:Tag>5</c:Tag><Other/></y:a>");
    /* extensions that this message does not have, however broken */
    read_around("", XNS, "<x:KeyInfo a='1'/><x:Period/><x:Period>text</x:Period><x:Other/>");
}

static void cp3_read__ignores_unknown_members(void **state)
{
    static const char body[] =
        "\xEF\xBB\xBF { \"a\": {\"Tag\": 1, \"b\": [[[[[[1]]]]]]}, \"Status\":0,\"Tag\":4,"
        "\"c\":1e999,\"d\":-99999999999999999999,\"e\":\"\\ud800\",\"f\":\"\\u0000\",\"\":null,"
        "\"KeyInfo\":7,\"Period\":{},\"MessageID\":\"d\",\"g\":12345678901234567890.5e-3,"
        "\"h\":0e0,\"status\":2}\r\n";
    struct cp3_message m;

    (void)state;
    read_body(CP3_JSON, body, strlen(body), &m);
    assert_int_equal(m.tag, CP3_CONFIRMATION);
    assert_int_equal(m.form, CP3_EFFICIENT);
    assert_int_equal(m.has, 0);
}

/* ---- forms ---- */

static void cp3_write__writes_the_efficient_form_exactly(void **state)
{
    char out[CP3_WRITTEN_MAX];
    struct cp3_message m;
    size_t len;

    (void)state;
    fixture_message(CP3_RESPONSE, &m);
    assert_int_equal(cp3_write(CP3_XML, CP3_EFFICIENT, &m, out, sizeof(out), &len), 0);
    out[len] = '\0';
    assert_string_equal(
        out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<KeyRequestResponse " NS
             "><Tag>2</Tag><MessageID>m-1</MessageID><Status>0</Status><Data>" FIXTURE_DATA
             "</Data></KeyRequestResponse>");
    fixture_message(CP3_CONFIRMATION, &m);
    m.status = CP3_STATUS_REFUSED;
    assert_int_equal(cp3_write(CP3_JSON, CP3_EFFICIENT, &m, out, sizeof(out), &len), 0);
    out[len] = '\0';
    assert_string_equal(out, "{\"Tag\":4,\"MessageID\":\"m-1\",\"Status\":1}");
}

static void cp3_write__writes_the_full_form_in_table_order(void **state)
{
    char out[CP3_WRITTEN_MAX];
    struct cp3_message m;
    size_t len;

    (void)state;
    fixture_message(CP3_DELIVERY, &m);
    assert_int_equal(cp3_write(CP3_XML, CP3_FULL, &m, out, sizeof(out), &len), 0);
    out[len] = '\0';
    assert_string_equal(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<KeyDelivery " NS " " XNS
        "><Tag>3</Tag><Version>1</Version><MessageID>m-1</MessageID>"
        "<ContentID>urn:x:content</ContentID><Destination>to.example</Destination>"
        "<Source>from.example</Source><Data>" FIXTURE_DATA "</Data>"
        "<Time>2026-01-01T00:00:00Z</Time><x:KeyInfo keyID=\"" FIXTURE_KEY_ID
        "\" kekID=\"bsa-1/2\" wrap=\"aes-kw\" bits=\"128\" period=\"7\" "
        "notBefore=\"2026-01-01T00:00:00Z\" notAfter=\"2026-01-01T00:10:00Z\"/></KeyDelivery>");
    fixture_message(CP3_REQUEST, &m);
    assert_int_equal(cp3_write(CP3_JSON, CP3_FULL, &m, out, sizeof(out), &len), 0);
    out[len] = '\0';
    assert_string_equal(out, "{\"Tag\":1,\"Version\":1,\"MessageID\":\"m-1\","
                             "\"ContentID\":\"urn:x:content\",\"Destination\":\"to.example\","
                             "\"Source\":\"from.example\",\"Time\":\"2026-01-01T00:00:00Z\","
                             "\"Period\":{\"index\":7}}");
}

static void cp3_read__tolerates_more_in_the_efficient_form(void **state)
{
    static const char body[] = "{\"Tag\":2,\"Version\":1,\"MessageID\":\"m\",\"Status\":0,"
                               "\"Data\":\"" FIXTURE_DATA "\",\"Time\":\"1\",\"KeyInfo\":{"
                               "\"keyID\":\"" FIXTURE_KEY_ID "\",\"kekID\":\"k\","
                               "\"wrap\":\"rsa-oaep-sha1\",\"bits\":128}}";
    struct cp3_message m;

    (void)state;
    read_body(CP3_JSON, body, strlen(body), &m);
    assert_int_equal(m.form, CP3_EFFICIENT);
    assert_int_equal(m.has, CP3_HAS_VERSION | CP3_HAS_TIME | CP3_HAS_KEY_INFO);
    assert_int_equal(m.key_info.wrap, CP3_WRAP_RSA_OAEP_SHA1);
}

static void cp3_read__forgets_the_message_before(void **state)
{
    static const char body[] = "{\"Tag\":4,\"MessageID\":\"d\",\"Status\":0}";
    struct cp3_message m;

    (void)state;
    fixture_message(CP3_DELIVERY, &m);
    read_body(CP3_JSON, body, strlen(body), &m);
    assert_int_equal(m.has, 0);
    assert_int_equal(m.version, 1);
    assert_int_equal(m.data_len, 0);
    assert_string_equal(m.content_id, "");
    assert_string_equal(m.destination, "");
    assert_string_equal(m.source, "");
}

/* ---- what the writer refuses ---- */

static void break_nothing(struct cp3_message *m)
{
    (void)m;
}

static void break_tag(struct cp3_message *m)
{
    m->tag = (enum cp3_tag)5;
}

static void break_no_message_id(struct cp3_message *m)
{
    m->message_id[0] = '\0';
}

static void break_no_content_id(struct cp3_message *m)
{
    m->content_id[0] = '\0';
}

static void break_utf8(struct cp3_message *m)
{
    memcpy(m->source, "\xC3", 2);
}

static void break_control(struct cp3_message *m)
{
    memcpy(m->source, "a\x01", 3);
}

static void break_space(struct cp3_message *m)
{
    memcpy(m->source, "a ", 3);
}

static void break_end(struct cp3_message *m)
{
    memset(m->source, 'a', sizeof(m->source)); /* no NUL */
}

static void break_status(struct cp3_message *m)
{
    m->status = (enum cp3_status)2;
}

static void break_refused_with_data(struct cp3_message *m)
{
    m->status = CP3_STATUS_REFUSED;
}

static void break_no_data(struct cp3_message *m)
{
    m->data_len = 0;
}

static void break_short_data(struct cp3_message *m)
{
    m->data_len = CP3_DATA_MIN - 1;
}

static void break_long_data(struct cp3_message *m)
{
    m->data_len = CP3_DATA_MAX + 1;
}

static void break_time(struct cp3_message *m)
{
    m->time.nanoseconds = 1000000000;
}

static void break_kek_id(struct cp3_message *m)
{
    m->key_info.kek_id[0] = '\0';
}

static void break_wrap(struct cp3_message *m)
{
    m->key_info.wrap = (enum cp3_wrap)4;
}

static void break_bits(struct cp3_message *m)
{
    m->key_info.bits = UINT16_MAX + 1;
}

static void break_not_after(struct cp3_message *m)
{
    m->key_info.not_after.seconds = INT64_MAX;
}

static void break_not_before(struct cp3_message *m)
{
    m->key_info.not_before.seconds = -62135596801; /* of the year 0000 */
}

static void cp3_write__refuses_what_a_reader_would(void **state)
{
    static void (*const breakers[])(struct cp3_message *) = {
        break_tag,     break_no_message_id, break_no_content_id,
        break_utf8,    break_control,       break_space,
        break_end,     break_status,        break_refused_with_data,
        break_no_data, break_short_data,    break_long_data,
        break_time,    break_kek_id,        break_wrap,
        break_bits,    break_not_after,     break_not_before,
        break_nothing,
    };
    size_t last = sizeof(breakers) / sizeof(breakers[0]) - 1, len;
    char out[CP3_WRITTEN_MAX];
    struct cp3_message m;

    (void)state;
    for (size_t i = 0; i <= last * 2 + 1; i++) {
        fixture_message(CP3_RESPONSE, &m);
        breakers[i / 2](&m);
        assert_int_equal(
            cp3_write(i % 2 ? CP3_JSON : CP3_XML, CP3_FULL, &m, out, sizeof(out), &len),
            i / 2 == last ? 0 : CP3_EINVAL);
    }
}

static void cp3_write__refuses_an_efficient_form_that_is_not_there(void **state)
{
    char out[CP3_WRITTEN_MAX];
    struct cp3_message m;
    size_t len = 77;

    (void)state;
    fixture_message(CP3_REQUEST, &m);
    assert_int_equal(cp3_write(CP3_XML, CP3_EFFICIENT, &m, out, sizeof(out), &len), CP3_EINVAL);
    fixture_message(CP3_DELIVERY, &m);
    assert_int_equal(cp3_write(CP3_JSON, CP3_EFFICIENT, &m, out, sizeof(out), &len), CP3_EINVAL);
    fixture_message(CP3_CONFIRMATION, &m);
    assert_int_equal(cp3_write((enum cp3_media)2, CP3_FULL, &m, out, sizeof(out), &len),
                     CP3_EINVAL);
    assert_int_equal(cp3_write(CP3_XML, (enum cp3_form)2, &m, out, sizeof(out), &len), CP3_EINVAL);
    assert_int_equal(len, 77);
}

/* ---- times ---- */

static void cp3_time_read__reads_both_kinds(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
        uint32_t nanoseconds;
        const char *written;
    } times[] = {
        {"1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"},
        {"2026-01-01T00:00:00Z", 1767225600, 0, "2026-01-01T00:00:00Z"},
        {"2026-01-01T01:30:00+01:30", 1767225600, 0, "2026-01-01T00:00:00Z"},
        {"2025-12-31T19:00:00-05:00", 1767225600, 0, "2026-01-01T00:00:00Z"},
        {"2026-01-01T00:00:00-00:00", 1767225600, 0, "2026-01-01T00:00:00Z"},
        {"2026-01-01T00:00:00.5Z", 1767225600, 500000000, "2026-01-01T00:00:00.5Z"},
        {"2026-01-01T00:00:00.000000001+00:00", 1767225600, 1, "2026-01-01T00:00:00.000000001Z"},
        {"2026-01-01T00:00:00.100Z", 1767225600, 100000000, "2026-01-01T00:00:00.1Z"},
        {"2024-02-29T12:00:00Z", 1709208000, 0, "2024-02-29T12:00:00Z"},
        {"2000-02-29T00:00:00Z", 951782400, 0, "2000-02-29T00:00:00Z"},
        {"1969-12-31T23:59:59.9Z", -1, 900000000, "1969-12-31T23:59:59.9Z"},
        {"0000-01-01T00:00:00Z", -62167219200, 0, "0000-01-01T00:00:00Z"},
        {"9999-12-31T23:59:59.999999999Z", 253402300799, 999999999,
         "9999-12-31T23:59:59.999999999Z"},
        {"2016-12-31T23:59:60Z", 1483228800, 0, "2017-01-01T00:00:00Z"},
        {"2017-01-01T00:59:60+01:00", 1483228800, 0, "2017-01-01T00:00:00Z"},
        {"3976214400", 1767225600, 0, "2026-01-01T00:00:00Z"},
        {"0", -2208988800, 0, "1900-01-01T00:00:00Z"},
        {"9999999999", 7791011199, 0, "2216-11-20T17:46:39Z"},
    };
    struct cp3_time t;

    (void)state;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        assert_int_equal(cp3_time_read(times[i].text, strlen(times[i].text), &t), 0);
        assert_string_equal(t.text, times[i].text);
        assert_true(t.seconds == times[i].seconds);
        assert_int_equal(t.nanoseconds, times[i].nanoseconds);
        assert_int_equal(cp3_time_set(&t, t.seconds, t.nanoseconds), 0);
        assert_string_equal(t.text, times[i].written);
    }
}

static void cp3_time_read__refuses_what_is_no_time(void **state)
{
    static const char *const times[] = {
        "",
        "-",
        "12345678901",
        "1.5",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00z",
        "2026-01-01t00:00:00Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00Z",
        "26-01-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T12:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.1234567890Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "2026-01-01T00:00:00+0000",
        "2026-01-01T00:00:00+00:00Z",
        "2026-01-01T00:00:00 00:00",
        "2026-01-01T00:00:00ZZ",
        "0000-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:60Z",
    };
    struct cp3_time t;

    (void)state;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (cp3_time_read(times[i], strlen(times[i]), &t) != CP3_EFORMAT)
            fail_msg("%s was read", times[i]);
    }
}

static void cp3_time_set__refuses_what_cannot_be_written(void **state)
{
    struct cp3_time t;

    (void)state;
    assert_int_equal(cp3_time_set(&t, -62167219201, 0), CP3_EINVAL);
    assert_int_equal(cp3_time_set(&t, 253402300800, 0), CP3_EINVAL);
    assert_int_equal(cp3_time_set(&t, 0, 1000000000), CP3_EINVAL);
}

/* Each day of 400 years, the length of the calendar's cycle, is written and read as itself. */
static void cp3_time_set__is_the_inverse_of_reading(void **state)
{
    struct cp3_time t, again;
    char before[CP3_TIME_MAX + 1] = "";

    (void)state;
    for (int64_t day = 0; day < 146097; day++) {
        assert_int_equal(cp3_time_set(&t, day * 86400 + day % 86400, 0), 0);
        assert_true(strcmp(before, t.text) < 0);
        assert_int_equal(cp3_time_read(t.text, strlen(t.text), &again), 0);
        assert_true(again.seconds == t.seconds);
        memcpy(before, t.text, sizeof(before));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cp3_write__takes_strings_up_to_their_limits),
        cmocka_unit_test(cp3_write__never_needs_more_than_its_maximum),
        cmocka_unit_test(cp3_write__takes_data_up_to_its_limits),
        cmocka_unit_test(cp3_write__takes_integers_up_to_their_limits),
        cmocka_unit_test(cp3_read__takes_what_is_allowed),
        cmocka_unit_test(cp3_read__ignores_what_is_not_its_own),
        cmocka_unit_test(cp3_read__ignores_unknown_members),
        cmocka_unit_test(cp3_write__writes_the_efficient_form_exactly),
        cmocka_unit_test(cp3_write__writes_the_full_form_in_table_order),
        cmocka_unit_test(cp3_read__tolerates_more_in_the_efficient_form),
        cmocka_unit_test(cp3_read__forgets_the_message_before),
        cmocka_unit_test(cp3_write__refuses_what_a_reader_would),
        cmocka_unit_test(cp3_write__refuses_an_efficient_form_that_is_not_there),
        cmocka_unit_test(cp3_time_read__reads_both_kinds),
        cmocka_unit_test(cp3_time_read__refuses_what_is_no_time),
        cmocka_unit_test(cp3_time_set__refuses_what_cannot_be_written),
        cmocka_unit_test(cp3_time_set__is_the_inverse_of_reading),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
