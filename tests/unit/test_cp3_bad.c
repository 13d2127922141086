/*
 * Bad input: every field of every message missing, repeated, empty, too long and of the wrong
 * type, in both media, and a table of what else a peer can get wrong.  Each ends in an error that
 * names line, element and reason, and leaves the reader as good as it was.
 */
#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

/* The reader reads on after whatever it met. */
static void check_reader(void)
{
    static const char good[] = "<KeyDeliveryConfirmation xmlns=\"" CP3_NAMESPACE "\"><Tag>4</Tag>"
                               "<MessageID>d</MessageID><Status>0</Status>"
                               "</KeyDeliveryConfirmation>";
    struct cp3_message m;

    assert_int_equal(cp3_read(reader, CP3_XML, good, strlen(good), &m, NULL), 0);
    assert_string_equal(m.message_id, "d");
}

struct expected {
    int code;
    unsigned line; /* 0: the fault has no place */
    const char *element;
    const char *reason; /* a pattern of fnmatch(3) */
};

/* Whatever is expected: an error says all three; only a body that is not looked at has no line. */
static bool says_what_and_where(const struct cp3_error *err)
{
    return (err->line >= 1 || err->code == CP3_ETOOBIG) && err->element[0] != '\0' &&
           err->reason[0] != '\0';
}

static void check(enum cp3_media media, const void *body, size_t len, const struct expected *want,
                  struct cp3_error *ret_err)
{
    struct cp3_message m;
    char *exact = malloc(len > 0 ? len : 1); /* no octet behind: sanitizers see a read too far */
    int r;

    assert_non_null(exact);
    memcpy(exact, body, len);
    memset(ret_err, 0x7F, sizeof(*ret_err));
    r = cp3_read(reader, media, exact, len, &m, ret_err);
    free(exact);
    if (r == 0)
        fail_msg("was read: %.*s", (int)len, (const char *)body);
    if (r != want->code || ret_err->code != want->code || !says_what_and_where(ret_err) ||
        ret_err->line != want->line || strcmp(ret_err->element, want->element) != 0 ||
        fnmatch(want->reason, ret_err->reason, 0) != 0)
        fail_msg("%.*s\n%s %u:%u %s: %s\nwanted %s %u %s: %s", (int)len, (const char *)body,
                 cp3_errname(r), ret_err->line, ret_err->column, ret_err->element, ret_err->reason,
                 cp3_errname(want->code), want->line, want->element, want->reason);
    check_reader();
}

/* ---- every field of every message ---- */

static const char *const fields[] = {"Tag",    "Version", "MessageID", "ContentID",
                                     "Source", "Status",  "Data",      "Destination",
                                     "Time",   "KeyInfo", "Period"};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/*
 * One changed body of each message that has the field, in both media; want->line counts from that
 * of the field.
 */
static void for_each_body(const char *field, enum fixture_change change, const char *xml,
                          const char *json, const struct expected *want)
{
    char body[FIXTURE_BODY_MAX];
    struct cp3_error err;

    for (int i = 0; i < 8; i++) {
        struct fixture_body b = {i < 4 ? CP3_XML : CP3_JSON, i % 4 + 1, change, field, NULL};
        struct expected at = *want;

        at.line += fixture_line(b.tag, field);
        b.text = b.media == CP3_XML ? xml : json;
        if (fixture_has(b.tag, field) && (change != FIXTURE_VALUE || b.text != NULL))
            check(b.media, body, fixture_build(&b, body), &at, &err);
    }
}

static void cp3_read__takes_the_bodies_that_are_changed_here(void **state)
{
    char body[FIXTURE_BODY_MAX];
    struct cp3_message m;

    (void)state;
    for (int i = 0; i < 8; i++) {
        struct fixture_body b = {i < 4 ? CP3_XML : CP3_JSON, i % 4 + 1, FIXTURE_WHOLE, NULL, NULL};
        size_t len = fixture_build(&b, body);

        assert_int_equal(cp3_read(reader, b.media, body, len, &m, NULL), 0);
        assert_int_equal(m.tag, b.tag);
    }
}

/* Where a message ends is where something is missing. */
static unsigned last_line(const char *body, size_t len)
{
    unsigned line = 1;

    for (size_t i = 0; i < len; i++)
        line += body[i] == '\n';
    return line;
}

static void cp3_read__refuses_a_missing_field(void **state)
{
    char body[FIXTURE_BODY_MAX];
    struct cp3_error err;
    struct cp3_message m;

    (void)state;
    for (size_t k = 0; k < FIELDS * 8; k++) {
        struct fixture_body b = {k % 2 ? CP3_XML : CP3_JSON, (int)(k / 2 % 4 + 1), FIXTURE_WITHOUT,
                                 fields[k / 8], NULL};
        struct expected want = {CP3_EFORMAT, 0, b.field, "missing*"};
        size_t len;

        if (!fixture_has(b.tag, b.field))
            continue;
        len = fixture_build(&b, body);
        want.line = last_line(body, len);
        if (fixture_must_have(b.tag, b.field))
            check(b.media, body, len, &want, &err);
        else
            assert_int_equal(cp3_read(reader, b.media, body, len, &m, NULL), 0);
    }
}

static void cp3_read__refuses_a_repeated_field(void **state)
{
    (void)state;
    for (size_t k = 0; k < FIELDS; k++) {
        for_each_body(fields[k], FIXTURE_TWICE, NULL, NULL,
                      &(struct expected){CP3_EFORMAT, 1, fields[k], "repeated"});
    }
}

#define INTEGER  "not an integer from *"
#define HEX_SIZE "not 24 to 512 octets"
#define NO_TIME  "neither RFC 3339 nor NTP seconds"

static void cp3_read__refuses_an_empty_field(void **state)
{
    static const char *const reasons[FIELDS] = {INTEGER, INTEGER, "empty",  "empty",
                                                "empty", INTEGER, HEX_SIZE, "empty",
                                                NO_TIME, NULL,    NULL};

    (void)state;
    for (size_t k = 0; k < FIELDS; k++) {
        if (reasons[k] != NULL)
            for_each_body(fields[k], FIXTURE_VALUE, "", "\"\"",
                          &(struct expected){CP3_EFORMAT, 0, fields[k], reasons[k]});
    }
}

/* In JSON: each field as each type that it is not. */
static void cp3_read__refuses_a_wrong_type(void **state)
{
    static const char *const values[] = {"\"1\"", "1", "1.0", "1e0", "true", "null", "[1]", "{}"};
    static const struct {
        const char *right, *reason;
    } by_field[FIELDS] = {
        {"1", INTEGER},
        {"1", INTEGER},
        {"\"1\"", "not a string"},
        {"\"1\"", "not a string"},
        {"\"1\"", "not a string"},
        {"1", INTEGER},
        {"\"1\"", "not a string"},
        {"\"1\"", "not a string"},
        {"\"1\"", "not a string"},
        {"{}", "not an object"},
        {"{}", "not an object"},
    };

    (void)state;
    for (size_t k = 0; k < FIELDS * 8; k++) {
        const char *value = values[k % 8];

        if (strcmp(value, by_field[k / 8].right) != 0)
            for_each_body(
                fields[k / 8], FIXTURE_VALUE, NULL, value,
                &(struct expected){CP3_EFORMAT, 0, fields[k / 8], by_field[k / 8].reason});
    }
}

/* count times the text, in quotes if quoted. */
static char *many(const char *text, size_t count, bool quoted)
{
    size_t cap = strlen(text) * count + 3, n;
    char *s = malloc(cap);

    assert_non_null(s);
    n = (size_t)snprintf(s, cap, "%s", quoted ? "\"" : "");
    for (size_t i = 0; i < count; i++)
        n += (size_t)snprintf(s + n, cap - n, "%s", text);
    (void)snprintf(s + n, cap - n, "%s", quoted ? "\"" : "");
    return s;
}

/* As many characters as the limit allows, of more octets than it allows. */
static void check_too_long(const char *field, const char *text, size_t count, const char *reason)
{
    char *xml = many(text, count, false), *json = many(text, count, true);

    for_each_body(field, FIXTURE_VALUE, xml, json,
                  &(struct expected){CP3_EFORMAT, 0, field, reason});
    free(xml);
    free(json);
}

static void cp3_read__refuses_a_field_of_too_many_octets(void **state)
{
    (void)state;
    check_too_long("MessageID", "a", 256, "longer than 255 octets");
    check_too_long("MessageID", "\xE2\x82\xAC", 86, "longer than 255 octets");
    check_too_long("Destination", "\xC3\xA4", 128, "longer than 255 octets");
    check_too_long("Source", "a", 256, "longer than 255 octets");
    check_too_long("ContentID", "a", 1025, "longer than 1024 octets");
    check_too_long("ContentID", "\xF0\x9F\x94\x91", 257, "longer than 1024 octets");
    check_too_long("Data", "00", 513, HEX_SIZE);
    check_too_long("Data", "00", 23, HEX_SIZE);
    check_too_long("Time", "1", 11, NO_TIME);
    check_too_long("Tag", "0", 30, INTEGER);
}

/* ---- what else can be wrong with a value ---- */

static const struct {
    const char *field, *xml, *json, *reason;
} bad_values[] = {
    {"MessageID", " m", "\" m\"", "white space at its beginning or end"},
    {"ContentID", "u ", "\"u \"", "white space at its beginning or end"},
    {"Source", "\n", NULL, "holds a control character"},
    {"Source", " ", "\" \"", "white space at its beginning or end"},
    {"Destination", "a\tb", "\"a\\tb\"", "holds a control character"},
    {"Destination", "a&#13;b", "\"a\\rb\"", "holds a control character"},
    {"Destination", "a\nb", "\"a\\u000ab\"", "holds a control character"},
    {"Source", "a&#127;", "\"a\\u007f\"", "holds a control character"},
    {"Source", NULL, "\"a\\u001F\"", "holds a control character"},
    {"Source", NULL, "\"a\\u0000b\"", "holds a NUL or a lone surrogate"},
    {"Source", NULL, "\"a\\ud800b\"", "holds a NUL or a lone surrogate"},
    {"Source", NULL, "\"\\uDC00\\uD800\"", "holds a NUL or a lone surrogate"},
    {"Source", NULL, "\"\\ud800\\ud800\\udc00\"", "holds a NUL or a lone surrogate"},
    {"Source", NULL, "\"\\udc00\\udc00\"", "holds a NUL or a lone surrogate"},
    {"Source", NULL, "\"\\uFFFE\"", "holds U+FFFE or U+FFFF"},
    {"Source", NULL, "\"a\xEF\xBF\xBF\"", "holds U+FFFE or U+FFFF"},
    {"MessageID", "m<!-- -->\n", NULL, "holds a control character"},
    {"Tag", "0", "0", INTEGER},
    {"Tag", "5", "5", INTEGER},
    {"Tag", "-1", "-1", INTEGER},
    {"Tag", "1x", NULL, INTEGER},
    {"Tag", "0x1", NULL, INTEGER},
    {"Tag", "+1", NULL, INTEGER},
    {"Tag", "257", "257", INTEGER},
    {"Tag", "4294967297", "4294967297", INTEGER},
    {"Tag", "18446744073709551617", "18446744073709551617", INTEGER},
    {"Version", "1.0", "1.0", INTEGER},
    {"Version", "-0", NULL, INTEGER},
    {"Version", "-1", "-1", INTEGER},
    {"Version", "4294967296", NULL, "not an integer from 0 to 4294967295"},
    {"Version", NULL, "9007199254740992", "not an integer from 0 to 9007199254740991"},
    {"Version", "99999999999999999999", "99999999999999999999", INTEGER},
    {"Version", NULL, "-99999999999999999999", INTEGER},
    {"Version", NULL, "1e400", INTEGER},
    {"Version", NULL, "1E+1", INTEGER},
    {"Version", NULL, "1E999", INTEGER},
    {"Version", NULL, "9999999999999999999", INTEGER},
    {"Version", NULL, "-999999999999999999", INTEGER},
    {"Version", NULL, "0.9999999999999999999999", INTEGER},
    {"Version", NULL, "1000000000000000000000000.5", INTEGER},
    {"Version", "&#x661;", NULL, INTEGER}, /* a digit elsewhere */
    {"Status", "2", "2", "not an integer from 0 to 1"},
    {"Status", "true", "true", "not an integer from 0 to 1"},
    {"Data", "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5A",
     "\"1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5A\"", "odd number of hexadecimal digits"},
    {"Data", "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFEG",
     "\"1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFEG\"", "not hexadecimal"},
    {"Data", "1FA68B0A8112B447 AEF34BD8FB5A7B829D3E862371D2CFE",
     "\"1FA68B0A8112B447 AEF34BD8FB5A7B829D3E862371D2CFE\"", "not hexadecimal"},
    {"Data", NULL, "\" 1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE\"", "not hexadecimal"},
    {"Time", "2026-01-01", "\"2026-01-01\"", NO_TIME},
    {"Time", "2026-01-01T00:00:00", "\"2026-01-01T00:00:00\"", NO_TIME},
    {"Time", "2026-02-29T00:00:00Z", "\"2026-02-29T00:00:00Z\"", NO_TIME},
    {"Time", "2026-01-01T24:00:00Z", "\"2026-01-01T24:00:00Z\"", NO_TIME},
    {"Time", "2026-01-01 00:00:00Z", "\"2026-01-01 00:00:00Z\"", NO_TIME},
    {"Time", " 3976214400", "\" 3976214400\"", NO_TIME},
    {"Time", "-1", "\"-1\"", NO_TIME},
    {"Time", NULL, "3976214400", "not a string"},
};

static void cp3_read__refuses_a_bad_value(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_values) / sizeof(bad_values[0]); i++) {
        for_each_body(
            bad_values[i].field, FIXTURE_VALUE, bad_values[i].xml, bad_values[i].json,
            &(struct expected){CP3_EFORMAT, 0, bad_values[i].field, bad_values[i].reason});
    }
}

#define KEY_ID   "8ef7f1a0-0000-4000-8000-000000000001"
#define NOT_UUID "not a UUID in lower case"

static const struct {
    const char *field, *xml, *json, *element, *reason;
} bad_extensions[] = {
    {"KeyInfo", "", "{}", "KeyInfo.keyID", "missing"},
    {"KeyInfo", "keyID=\"" KEY_ID "\"", "{\"keyID\":\"" KEY_ID "\"}", "KeyInfo.kekID", "missing"},
    {"KeyInfo", "keyID=\"\"", "{\"keyID\":\"\"}", "KeyInfo.keyID", NOT_UUID},
    {"KeyInfo", "keyID=\"8EF7F1A0-0000-4000-8000-000000000001\"",
     "{\"keyID\":\"8EF7F1A0-0000-4000-8000-000000000001\"}", "KeyInfo.keyID", NOT_UUID},
    {"KeyInfo", "keyID=\"8ef7f1a0000000-4000-8000-000000000001\"",
     "{\"keyID\":\"8ef7f1a00000-04000-8000-000000000001\"}", "KeyInfo.keyID", NOT_UUID},
    {"KeyInfo", "keyID=\"8ef7f1a0-0000-4000-8000-0000000000011\"",
     "{\"keyID\":\"8ef7f1a0-0000-4000-8000-0000000000011\"}", "KeyInfo.keyID", NOT_UUID},
    {"KeyInfo", NULL, "{\"keyID\":1}", "KeyInfo.keyID", "not a string"},
    {"KeyInfo", "kekID=\"\"", "{\"kekID\":\"\"}", "KeyInfo.kekID", "empty"},
    {"KeyInfo", "kekID=\"a \"", "{\"kekID\":\"a \"}", "KeyInfo.kekID",
     "white space at its beginning or end"},
    {"KeyInfo", "kekID=\"a&#10;b\"", "{\"kekID\":\"a\\nb\"}", "KeyInfo.kekID",
     "holds a control character"},
    {"KeyInfo", "wrap=\"des\"", "{\"wrap\":\"des\"}", "KeyInfo.wrap", "not a wrap that is known"},
    {"KeyInfo", "wrap=\"AES-KW\"", "{\"wrap\":\"AES-KW\"}", "KeyInfo.wrap",
     "not a wrap that is known"},
    {"KeyInfo", "wrap=\"aes-kw-aes-kw-aes-kw-aes-kw-aes-kw\"",
     "{\"wrap\":\"aes-kw-aes-kw-aes-kw-aes-kw-aes-kw\"}", "KeyInfo.wrap",
     "not a wrap that is known"},
    {"KeyInfo", NULL, "{\"wrap\":null}", "KeyInfo.wrap", "not a string"},
    {"KeyInfo", "bits=\"65536\"", "{\"bits\":65536}", "KeyInfo.bits", INTEGER},
    {"KeyInfo", "bits=\"x\"", "{\"bits\":\"128\"}", "KeyInfo.bits", INTEGER},
    {"KeyInfo", "period=\"9007199254740992\"", "{\"period\":9007199254740992}", "KeyInfo.period",
     INTEGER},
    {"KeyInfo", "notBefore=\"3976214400\"", "{\"notBefore\":\"3976214400\"}", "KeyInfo.notBefore",
     "not RFC 3339"},
    {"KeyInfo", "notBefore=\"0000-12-31T23:59:59Z\"", "{\"notBefore\":\"0000-12-31T23:59:59Z\"}",
     "KeyInfo.notBefore", "before the year 0001"},
    {"KeyInfo", NULL, "{\"notAfter\":\" 2026-01-01T00:00:00Z\"}", "KeyInfo.notAfter",
     "not RFC 3339"},
    {"KeyInfo", NULL, "{\"notAfter\":3976214400}", "KeyInfo.notAfter", "not a string"},
    {"KeyInfo", "other=\"1\"", NULL, "KeyInfo", "unknown attribute other"},
    {"KeyInfo", "x:bits=\"1\"", NULL, "KeyInfo", "unknown attribute bits"},
    {"Period", "", "{}", "Period.index", "missing"},
    {"Period", "index=\"-1\"", "{\"index\":-1}", "Period.index", INTEGER},
    {"Period", "index=\"9007199254740992\"", "{\"index\":9007199254740992}", "Period.index",
     INTEGER},
    {"Period", "index=\"\"", "{\"index\":\"\"}", "Period.index", INTEGER},
    {"Period", NULL, "{\"index\":1,\"index\":1}", "index", "repeated"},
    {"Period", NULL, "7", "Period", "not an object"},
};

static void cp3_read__refuses_a_bad_extension(void **state)
{
    char *long_kek = many("k", CP3_KEK_ID_MAX + 1, false);
    char xml[400], json[400];

    (void)state;
    for (size_t i = 0; i < sizeof(bad_extensions) / sizeof(bad_extensions[0]); i++) {
        for_each_body(bad_extensions[i].field, FIXTURE_VALUE, bad_extensions[i].xml,
                      bad_extensions[i].json,
                      &(struct expected){CP3_EFORMAT, 0, bad_extensions[i].element,
                                         bad_extensions[i].reason});
    }
    (void)snprintf(xml, sizeof(xml), "kekID=\"%s\"", long_kek);
    (void)snprintf(json, sizeof(json), "{\"kekID\":\"%s\"}", long_kek);
    for_each_body("KeyInfo", FIXTURE_VALUE, xml, json,
                  &(struct expected){CP3_EFORMAT, 0, "KeyInfo.kekID", "longer than 300 octets"});
    free(long_kek);
}

/* ---- whole bodies ---- */

#define NS    "xmlns=\"" CP3_NAMESPACE "\""
#define OPEN  "<KeyRequest " NS ">"
#define CLOSE "</KeyRequest>"
#define BODY                                                                                       \
    "<Tag>1</Tag><MessageID>m</MessageID><ContentID>c</ContentID>"                                 \
    "<Destination>d</Destination><Source>s</Source>"
#define JBODY       "\"Tag\":1,\"MessageID\":\"m\",\"ContentID\":\"c\",\"Destination\":\"d\""
#define JWHOLE      JBODY ",\"Source\":\"s\""
#define SIZED(text) (text), sizeof(text) - 1

struct whole {
    const char *body;
    size_t len;
    struct expected want;
    int tag; /* what can be read all the same */
    const char *message_id;
};

static void check_wholes(enum cp3_media media, const struct whole *wholes, size_t count)
{
    struct cp3_error err;

    for (size_t i = 0; i < count; i++) {
        check(media, wholes[i].body, wholes[i].len, &wholes[i].want, &err);
        if (err.tag != wholes[i].tag || strcmp(err.message_id, wholes[i].message_id) != 0)
            fail_msg("%s: salvaged %d \"%s\", wanted %d \"%s\"", wholes[i].body, err.tag,
                     err.message_id, wholes[i].tag, wholes[i].message_id);
    }
}

static const struct whole bad_xml[] = {
    {SIZED(""), {CP3_ESYNTAX, 1, "document", "not well-formed: *"}, 0, ""},
    {SIZED(" \n"), {CP3_ESYNTAX, 2, "document", "not well-formed: *"}, 0, ""},
    {SIZED("Tag=1"), {CP3_ESYNTAX, 1, "document", "not well-formed: *"}, 0, ""},
    {SIZED("{\"Tag\":1}"), {CP3_ESYNTAX, 1, "document", "not well-formed: *"}, 0, ""},
    {SIZED("\xEF\xBB\xBF"), {CP3_ESYNTAX, 1, "document", "not well-formed: *"}, 0, ""},
    {SIZED(OPEN BODY CLOSE "x"), {CP3_ESYNTAX, 1, "document", "not well-formed: *"}, 1, "m"},
    {SIZED(OPEN BODY CLOSE OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "not well-formed: *"},
     1,
     "m"},
    {SIZED(OPEN BODY "</KeyRespond>"),
     {CP3_ESYNTAX, 1, "KeyRequest", "not well-formed: *"},
     1,
     "m"},
    {SIZED(OPEN "\n<Tag>1</MessageID>"), {CP3_ESYNTAX, 2, "Tag", "not well-formed: *"}, 0, ""},
    {SIZED(OPEN "<Tag a=1>1</Tag>" CLOSE),
     {CP3_ESYNTAX, 1, "KeyRequest", "not well-formed: *"},
     0,
     ""},
    {SIZED(OPEN "<Tag>&#0;</Tag>" CLOSE), {CP3_ESYNTAX, 1, "Tag", "not well-formed: *"}, 0, ""},
    {SIZED(OPEN "<Tag>&#1;</Tag>" CLOSE), {CP3_ESYNTAX, 1, "Tag", "not well-formed: *"}, 0, ""},
    {SIZED(OPEN "<Tag>&#xD800;</Tag>" CLOSE), {CP3_ESYNTAX, 1, "Tag", "not well-formed: *"}, 0, ""},
    {SIZED(OPEN "<Tag>&#x110000;</Tag>" CLOSE),
     {CP3_ESYNTAX, 1, "Tag", "not well-formed: *"},
     0,
     ""},
    {SIZED(OPEN "<Tag>\x01</Tag>" CLOSE), {CP3_ESYNTAX, 1, "Tag", "not well-formed: *"}, 0, ""},
    {SIZED(OPEN "<Tag>\xEF\xBF\xBF</Tag>" CLOSE),
     {CP3_ESYNTAX, 1, "Tag", "not well-formed: *"},
     0,
     ""},
    {SIZED(OPEN "<Tag>&one;</Tag>" CLOSE),
     {CP3_ESYNTAX, 1, "Tag", "not well-formed: *one*"},
     0,
     ""},
    {SIZED(OPEN "<Tag>1</Tag><y:Tag/>" CLOSE),
     {CP3_ESYNTAX, 1, "KeyRequest", "not well-formed: *Namespace*"},
     1,
     ""},
    {SIZED("<y:KeyRequest " NS "/>"),
     {CP3_ESYNTAX, 1, "document", "not well-formed: *Namespace*"},
     0,
     ""},
    /* encodings */
    {SIZED("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>" OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "declares an encoding that is not UTF-8"},
     0,
     ""},
    {SIZED("<?xml version='1.0' encoding='UTF-16'?>" OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "declares an encoding that is not UTF-8"},
     0,
     ""},
    {SIZED("<?xml version='1.0' encoding='US-ASCII'?>" OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "declares an encoding that is not UTF-8"},
     0,
     ""},
    {SIZED("<?xml version='1.0' encoding='UTF-8-x'?>" OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "declares an encoding that is not UTF-8"},
     0,
     ""},
    {SIZED("<?xml version='1.0' encoding=UTF-8?>" OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "declares an encoding that is not UTF-8"},
     0,
     ""},
    {SIZED("<?xml version='2.0' encoding='utf-8'?>" OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "not well-formed: *"},
     0,
     ""},
    {SIZED(" <?xml version='1.0'?>" OPEN BODY CLOSE),
     {CP3_ESYNTAX, 1, "document", "not well-formed: *"},
     0,
     ""},
    {SIZED("\xFF\xFE<\0K\0/\0>\0"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED("\xFE\xFF\0<\0K\0/\0>"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED("<\0K\0/\0>\0"), {CP3_ESYNTAX, 1, "document", "NUL octet"}, 0, ""},
    {SIZED("\0<\0K\0/\0>"), {CP3_ESYNTAX, 1, "document", "NUL octet"}, 0, ""},
    {SIZED("<\0\0\0K\0\0\0"), {CP3_ESYNTAX, 1, "document", "NUL octet"}, 0, ""},
    {SIZED("\x4C\x6F\xA7\x94"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN BODY "\n\0" CLOSE), {CP3_ESYNTAX, 2, "document", "NUL octet"}, 0, ""},
    {SIZED(OPEN "\n\n<Tag>\xC3\x28</Tag>"), {CP3_ESYNTAX, 3, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN "<Tag>\xC0\xB1</Tag>"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN "<Tag>\xE0\x9F\xBF</Tag>"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN "<Tag>\xED\xA0\x80</Tag>"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN "<Tag>\xF0\x8F\xBF\xBF</Tag>"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN "<Tag>\xF4\x90\x80\x80</Tag>"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN BODY CLOSE "\xE2\x82"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED(OPEN "<Tag>\xE4</Tag>" CLOSE), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    /* what is refused */
    {SIZED("<!DOCTYPE KeyRequest>" OPEN BODY CLOSE),
     {CP3_EREFUSED, 1, "document", "DOCTYPE is not read"},
     0,
     ""},
    {SIZED("<!DOCTYPE K SYSTEM \"file:///etc/passwd\">" OPEN BODY CLOSE),
     {CP3_EREFUSED, 1, "document", "DOCTYPE is not read"},
     0,
     ""},
    {SIZED("<?xml version='1.0'?>\n<!DOCTYPE K [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]>" OPEN
           "<Tag>&b;</Tag>" CLOSE),
     {CP3_EREFUSED, 2, "document", "DOCTYPE is not read"},
     0,
     ""},
    {SIZED("<!DOCTYPE K [<!ENTITY % e SYSTEM \"http://127.0.0.1:9/\">%e;]>" OPEN BODY CLOSE),
     {CP3_EREFUSED, 1, "document", "DOCTYPE is not read"},
     0,
     ""},
    {SIZED("<?xml-stylesheet href='x'?>" OPEN BODY CLOSE),
     {CP3_EREFUSED, 1, "document", "processing instructions are not read"},
     0,
     ""},
    {SIZED(OPEN "<Tag>1</Tag>\n<?php?>" BODY CLOSE),
     {CP3_EREFUSED, 2, "KeyRequest", "processing instructions are not read"},
     1,
     ""},
    {SIZED(OPEN BODY CLOSE "<?php?>"),
     {CP3_EREFUSED, 1, "document", "processing instructions are not read"},
     1,
     "m"},
    {SIZED(OPEN BODY "<y:a xmlns:y='y'><a><a><a><a><a><a><a/>"),
     {CP3_EREFUSED, 1, "KeyRequest", "nested too deep"},
     1,
     "m"},
    {SIZED("<a><a><a><a><a><a><a><a><a>"), {CP3_EREFUSED, 1, "document", "nested too deep"}, 0, ""},
    /* XML that is no CP-3 */
    {SIZED("<a/>"), {CP3_EFORMAT, 1, "a", "not a message of namespace *"}, 0, ""},
    {SIZED("<Request " NS ">" BODY "</Request>"),
     {CP3_EFORMAT, 1, "Request", "not a message of namespace *"},
     0,
     ""},
    {SIZED("<keyRequest " NS ">" BODY "</keyRequest>"),
     {CP3_EFORMAT, 1, "keyRequest", "not a message of namespace *"},
     0,
     ""},
    {SIZED("<KeyRequest xmlns='urn:x-bcast:spcp:cp3:2.0'>" BODY CLOSE),
     {CP3_EFORMAT, 1, "KeyRequest", "not a message of namespace *"},
     0,
     ""},
    {SIZED("<Tag " NS ">1</Tag>"), {CP3_EFORMAT, 1, "Tag", "not a message of namespace *"}, 0, ""},
    {SIZED(OPEN CLOSE), {CP3_EFORMAT, 1, "Tag", "missing"}, 0, ""},
    {SIZED(OPEN "\n<Other>1</Other>" BODY CLOSE),
     {CP3_EFORMAT, 2, "Other", "unknown element of the CP-3 namespace"},
     1,
     "m"},
    {SIZED(OPEN "<KeyInfo/>" BODY CLOSE),
     {CP3_EFORMAT, 1, "KeyInfo", "unknown element of the CP-3 namespace"},
     1,
     "m"},
    {SIZED(OPEN "<Other xmlns=''/>" BODY CLOSE),
     {CP3_EFORMAT, 1, "Other", "unknown element of no namespace"},
     1,
     "m"},
    {SIZED(OPEN "<Tag xmlns=''>1</Tag>" BODY CLOSE),
     {CP3_EFORMAT, 1, "Tag", "unknown element of no namespace"},
     1,
     "m"},
    {SIZED(OPEN "<a\xC3\xA4>1</a\xC3\xA4>" BODY CLOSE),
     {CP3_EFORMAT, 1, "a\\xC3\\xA4", "unknown element of *"},
     1,
     "m"},
    {SIZED(OPEN "<Status>0</Status>" BODY CLOSE),
     {CP3_EFORMAT, 1, "Status", "not a field of this message"},
     1,
     "m"},
    {SIZED(OPEN "<Data/>" BODY CLOSE),
     {CP3_EFORMAT, 1, "Data", "not a field of this message"},
     1,
     "m"},
    {SIZED("<KeyRequest " NS " a='1'>" BODY CLOSE),
     {CP3_EFORMAT, 1, "KeyRequest", "unknown attribute a"},
     1,
     "m"},
    {SIZED("<KeyRequest " NS " xml:lang='de'>" BODY CLOSE),
     {CP3_EFORMAT, 1, "KeyRequest", "unknown attribute lang"},
     1,
     "m"},
    {SIZED(OPEN BODY "<Version a='1'>1</Version>" CLOSE),
     {CP3_EFORMAT, 1, "Version", "unknown attribute a"},
     1,
     "m"},
    {SIZED(OPEN BODY "<Version><b/>1</Version>" CLOSE),
     {CP3_EFORMAT, 1, "Version", "holds an element"},
     1,
     "m"},
    {SIZED(OPEN BODY "<Version>1<y:b xmlns:y='y'>1</y:b></Version>" CLOSE),
     {CP3_EFORMAT, 1, "Version", "holds an element"},
     1,
     "m"},
    {SIZED(OPEN BODY "text" CLOSE), {CP3_EFORMAT, 1, "KeyRequest", "holds text"}, 1, "m"},
    {SIZED(OPEN BODY "<![CDATA[x]]>" CLOSE), {CP3_EFORMAT, 1, "KeyRequest", "holds text"}, 1, "m"},
    {SIZED(OPEN BODY "&lt;" CLOSE), {CP3_EFORMAT, 1, "KeyRequest", "holds text"}, 1, "m"},
    {SIZED(OPEN BODY "<x:Period xmlns:x='" CP3_EXT_NAMESPACE "' index='1'>x</x:Period>" CLOSE),
     {CP3_EFORMAT, 1, "Period", "holds text"},
     1,
     "m"},
    {SIZED(OPEN BODY "<x:Period xmlns:x='" CP3_EXT_NAMESPACE "' index='1'><a/></x:Period>" CLOSE),
     {CP3_EFORMAT, 1, "Period", "holds an element"},
     1,
     "m"},
    {SIZED("<KeyRequest " NS " xmlns:y='y'>" BODY
           "<y:a/><y:a/><y:a/><y:a/><y:a/><y:a/><y:a/><y:a/><y:a/>" CLOSE),
     {CP3_EFORMAT, 1, "a", "more than 8 elements of other namespaces"},
     1,
     "m"},
    /* Tag and MessageID in spite of errors, in any order */
    {SIZED(OPEN "<Source/><MessageID>m</MessageID><Tag>1</Tag>" CLOSE),
     {CP3_EFORMAT, 1, "Source", "empty"},
     1,
     "m"},
    {SIZED(OPEN BODY "<Tag>1</Tag>" CLOSE), {CP3_EFORMAT, 1, "Tag", "repeated"}, 0, "m"},
    {SIZED(OPEN BODY "<MessageID>n</MessageID>" CLOSE),
     {CP3_EFORMAT, 1, "MessageID", "repeated"},
     1,
     ""},
    {SIZED(OPEN "<MessageID><b/>m</MessageID><Tag>1</Tag>" CLOSE),
     {CP3_EFORMAT, 1, "MessageID", "holds an element"},
     1,
     ""},
    {SIZED(OPEN "<MessageID>m</MessageID><Tag>2</Tag>" CLOSE),
     {CP3_EFORMAT, 1, "Tag", "2, but KeyRequest has 1"},
     0,
     "m"},
    {SIZED(OPEN "<MessageID>m</MessageID><Tag>7</Tag>" CLOSE),
     {CP3_EFORMAT, 1, "Tag", INTEGER},
     0,
     "m"},
    {SIZED(OPEN "<Source/>" BODY "\n<"),
     {CP3_ESYNTAX, 2, "KeyRequest", "not well-formed: *"},
     1,
     "m"},
};

static void cp3_read__refuses_bad_xml(void **state)
{
    (void)state;
    check_wholes(CP3_XML, bad_xml, sizeof(bad_xml) / sizeof(bad_xml[0]));
}

/* Who has no body may have no pointer either. */
static void cp3_read__takes_null_for_an_empty_body(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct cp3_error none, empty;
        struct cp3_message m;

        assert_int_equal(cp3_read(reader, i ? CP3_XML : CP3_JSON, NULL, 0, &m, &none), CP3_ESYNTAX);
        assert_int_equal(cp3_read(reader, i ? CP3_XML : CP3_JSON, "", 0, &m, &empty), CP3_ESYNTAX);
        assert_string_equal(none.reason, empty.reason);
        assert_string_equal(none.element, "document");
        assert_int_equal(none.line, empty.line);
    }
}

static const struct whole bad_json[] = {
    {SIZED(""), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("\n\n "), {CP3_ESYNTAX, 3, "document", "*"}, 0, ""},
    {SIZED(OPEN BODY CLOSE), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{" JWHOLE), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{" JWHOLE "}}"), {CP3_ESYNTAX, 1, "document", "end of file expected*"}, 0, ""},
    {SIZED("{" JWHOLE "}\n{}"), {CP3_ESYNTAX, 2, "document", "end of file expected*"}, 0, ""},
    {SIZED("{" JWHOLE ",}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\n" JWHOLE ",\n\"a\" 1}"), {CP3_ESYNTAX, 3, "document", "*"}, 0, ""},
    {SIZED("{'Tag':1}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{Tag:1}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{/**/}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":01}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":+1}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":1.}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":.1}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":1e}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":0099999999999999999999}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":99999999999999999999.}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":99999999999999999999e}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":-}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":-e0}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":0x1}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":NaN}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"Tag\":True}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"a\":\"\\x\"}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"a\":\"\\u12\"}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"a\":\"\\ud80\"}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"a\":\"\\"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"a\":\"\t\"}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"a\":\"\n\"}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{\"\\u0000\":1}"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{" JBODY "\n\0}"), {CP3_ESYNTAX, 2, "document", "NUL octet"}, 0, ""},
    {SIZED("\xFF\xFE{\0}\0"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED("{\0}\0"), {CP3_ESYNTAX, 1, "document", "NUL octet"}, 0, ""},
    {SIZED("\0{\0}"), {CP3_ESYNTAX, 1, "document", "NUL octet"}, 0, ""},
    {SIZED("{\"a\":\"\xC3\"}"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED("{\"a\":\"\xED\xA0\x80\"}"), {CP3_ESYNTAX, 1, "document", "not UTF-8"}, 0, ""},
    {SIZED("{" JWHOLE ",\n\"a\":[[[[[[[[1]]]]]]]]}"),
     {CP3_EREFUSED, 2, "document", "nested too deep"},
     0,
     ""},
    {SIZED("[[[[[[[[["), {CP3_EREFUSED, 1, "document", "nested too deep"}, 0, ""},
    /* JSON that is no CP-3 */
    {SIZED("[]"), {CP3_EFORMAT, 1, "document", "not an object"}, 0, ""},
    {SIZED("1"), {CP3_ESYNTAX, 1, "document", "*"}, 0, ""},
    {SIZED("{}"), {CP3_EFORMAT, 1, "Tag", "missing"}, 0, ""},
    {SIZED("{\n\"MessageID\":\"m\"\n}\n"), {CP3_EFORMAT, 3, "Tag", "missing"}, 0, "m"},
    {SIZED("{\"tag\":1,\"MessageID\":\"m\"}"), {CP3_EFORMAT, 1, "Tag", "missing"}, 0, "m"},
    {SIZED("{\"Tag\":1}"), {CP3_EFORMAT, 1, "MessageID", "missing"}, 1, ""},
    {SIZED("{" JBODY ",\n\"Source\":\"s\",\n\"Status\":0}"),
     {CP3_EFORMAT, 3, "Status", "not a field of this message"},
     1,
     "m"},
    {SIZED("{" JWHOLE ",\n\"Data\":\"\"}"),
     {CP3_EFORMAT, 2, "Data", "not a field of this message"},
     1,
     "m"},
    {SIZED("{" JWHOLE ",\n\"Period\":{\n\"a\":[0,{\"index\":1}],\n\"index\":-1}}"),
     {CP3_EFORMAT, 4, "Period.index", INTEGER},
     1,
     "m"},
    {SIZED("{" JWHOLE ",\n\"a\":1,\n\"a\":1}"), {CP3_EFORMAT, 3, "a", "repeated"}, 1, "m"},
    {SIZED("{" JWHOLE ",\n\"a\":{\n\"b\":1,\n\"b\":1}}"),
     {CP3_EFORMAT, 4, "b", "repeated"},
     1,
     "m"},
    {SIZED("{" JWHOLE ",\"\":1,\"\":1}"), {CP3_EFORMAT, 1, "document", "repeated"}, 1, "m"},
    {SIZED("{" JWHOLE ",\"a\\ud834\\udd1e\":1,\"a\xF0\x9D\x84\x9E\":1}"),
     {CP3_EFORMAT, 1, "a\\xF0\\x9D\\x84\\x9E", "repeated"},
     1,
     "m"},
    {SIZED("{" JWHOLE ",\"Tag\":1}"), {CP3_EFORMAT, 1, "Tag", "repeated"}, 0, "m"},
    {SIZED("{" JWHOLE ",\"Message\\u0049D\":\"n\"}"),
     {CP3_EFORMAT, 1, "Message\\x5Cu0049D", "repeated"},
     1,
     ""},
    {SIZED("{" JWHOLE ",\"a\":{\"Tag\":1},\"a\":\"MessageID\"}"),
     {CP3_EFORMAT, 1, "a", "repeated"},
     1,
     "m"},
    {SIZED("{\"Source\":1,\n\"MessageID\":\"m\",\"Tag\":1}"),
     {CP3_EFORMAT, 1, "Source", "not a string"},
     1,
     "m"},
    {SIZED("{\"MessageID\":\"m\",\"Version\":1e999,\"Tag\":1}"),
     {CP3_EFORMAT, 1, "Version", INTEGER},
     1,
     "m"},
    {SIZED("{\"MessageID\":\"m\",\n\"Source\":\"\\udead\",\"Tag\":1}"),
     {CP3_EFORMAT, 2, "Source", "holds a NUL or a lone surrogate"},
     1,
     "m"},
    {SIZED("{\"MessageID\":\"\\u0000\",\"Tag\":1}"),
     {CP3_EFORMAT, 1, "MessageID", "holds a NUL or a lone surrogate"},
     1,
     ""},
    {SIZED("{\"MessageID\":\"m\",\"Tag\":1.0}"), {CP3_EFORMAT, 1, "Tag", INTEGER}, 0, "m"},
    {SIZED("{\"MessageID\":\"m\",\"Tag\":9007199254740993}"),
     {CP3_EFORMAT, 1, "Tag", INTEGER},
     0,
     "m"},
    {SIZED("{\"MessageID\":\"m\",\"Tag\":null}"), {CP3_EFORMAT, 1, "Tag", INTEGER}, 0, "m"},
};

static void cp3_read__refuses_bad_json(void **state)
{
    (void)state;
    check_wholes(CP3_JSON, bad_json, sizeof(bad_json) / sizeof(bad_json[0]));
}

/* ---- size, and what is shown of a peer's text ---- */

static void cp3_read__refuses_a_body_that_is_too_long(void **state)
{
    char *body = many("<", CP3_BODY_MAX + 1, false);
    struct cp3_error err;

    (void)state;
    check(CP3_XML, body, CP3_BODY_MAX + 1,
          &(struct expected){CP3_ETOOBIG, 0, "document", "longer than 65536 octets"}, &err);
    check(CP3_JSON, body, CP3_BODY_MAX + 1,
          &(struct expected){CP3_ETOOBIG, 0, "document", "longer than 65536 octets"}, &err);
    check(CP3_XML, body, CP3_BODY_MAX,
          &(struct expected){CP3_ESYNTAX, 1, "document", "not well-formed: *"}, &err);
    free(body);
}

/* Nesting is refused before it costs stack; far too long text is not collected. */
static void cp3_read__bounds_what_a_peer_repeats(void **state)
{
    char *opened = many("[", 60000, false), *elements = many("<a>", 20000, false);
    char *spaces = many(" ", 5000, false);
    struct cp3_error err;

    (void)state;
    check(CP3_JSON, opened, 60000,
          &(struct expected){CP3_EREFUSED, 1, "document", "nested too deep"}, &err);
    check(CP3_XML, elements, 60000,
          &(struct expected){CP3_EREFUSED, 1, "document", "nested too deep"}, &err);
    for_each_body("Data", FIXTURE_VALUE, spaces, NULL,
                  &(struct expected){CP3_EFORMAT, 0, "Data", "far too long"});
    free(opened), free(elements), free(spaces);
}

/* The name of an element or a member is shown cut, as printable ASCII. */
static void cp3_read__cuts_and_escapes_a_name(void **state)
{
    char *a = many("n", 5000, false), *b = many("\xC3\xA4", 5000, false);
    char *body = calloc(1, 4 * 5000 + 32), cut[CP3_ERROR_ELEMENT_MAX + 1] = "";
    struct cp3_error err;
    int n;

    (void)state;
    assert_non_null(body);
    n = snprintf(body, 4 * 5000 + 32, "<%s/>", a);
    memset(cut, 'n', CP3_ERROR_ELEMENT_MAX - 3);
    memcpy(cut + CP3_ERROR_ELEMENT_MAX - 3, "...", 4);
    check(CP3_XML, body, (size_t)n, &(struct expected){CP3_EFORMAT, 1, cut, "not a message*"},
          &err);
    n = snprintf(body, 4 * 5000 + 32, "{\"%s\":1,\"%s\":1}", b, b);
    for (size_t i = 0; i < 15; i++) /* so many of \xNN fit, and the dots */
        (void)snprintf(cut + i * 4, 8, "%s", i % 2 ? "\\xA4..." : "\\xC3...");
    check(CP3_JSON, body, (size_t)n, &(struct expected){CP3_EFORMAT, 1, cut, "repeated"}, &err);
    free(a), free(b), free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cp3_read__takes_the_bodies_that_are_changed_here),
        cmocka_unit_test(cp3_read__refuses_a_missing_field),
        cmocka_unit_test(cp3_read__refuses_a_repeated_field),
        cmocka_unit_test(cp3_read__refuses_an_empty_field),
        cmocka_unit_test(cp3_read__refuses_a_wrong_type),
        cmocka_unit_test(cp3_read__refuses_a_field_of_too_many_octets),
        cmocka_unit_test(cp3_read__refuses_a_bad_value),
        cmocka_unit_test(cp3_read__refuses_a_bad_extension),
        cmocka_unit_test(cp3_read__refuses_bad_xml),
        cmocka_unit_test(cp3_read__takes_null_for_an_empty_body),
        cmocka_unit_test(cp3_read__refuses_bad_json),
        cmocka_unit_test(cp3_read__refuses_a_body_that_is_too_long),
        cmocka_unit_test(cp3_read__bounds_what_a_peer_repeats),
        cmocka_unit_test(cp3_read__cuts_and_escapes_a_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
