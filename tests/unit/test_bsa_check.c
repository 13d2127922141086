/*
 * What tek-bsa takes for an answer and for a delivery: all that is right, and nothing that is wrong
 * in one place.
 */
#include "bsa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tekd/enc.h"
#include "tekd/err.h"

/* KEK 00 01 .. 1f, TEK 00 11 .. ff: RFC 3394 section 4.3; the rest by python3-cryptography 38. */
#define TEK_128  "00112233445566778899aabbccddeeff"
#define DATA_128 "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"
#define DATA_192 "A8F9BC1612C68B3FF6E6F4FBE30E71E4769C8B80A32CB8958CD5D17D6B254DA1"
#define DATA_256 "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"
#define DATA_320                                                                                   \
    "43E83DDF943B74B1BF2996F55DDE8B787138686BE683DBF1938F891AF1703266F1DDC642DEC5FB9AB344EF6ADD7A" \
    "300E"
#define PADDED_128 "AFC860015FFE2D75BEDF43C444FE58F4AD9D89C4EC71E23B"
#define PADDED_160 "1BE4B35D505B813DEC161EB734DA6D6441E353F904AC260CCDA99E094489EC7F"
/* One bit of it is not DATA_128's. */
#define ALTERED_128 "65E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"

#define KEY_ID "01890a5d-ac96-774b-bcce-b302099a8057"

static const char json_full[] =
    "{\"Tag\":2,\"Version\":1,\"MessageID\":\"m-1\",\"ContentID\":\"urn:x:news\","
    "\"Destination\":\"bsa-1\",\"Source\":\"bsm.example.net\",\"Status\":0,\"Data\":\"" DATA_128
    "\",\"Time\":\"2026-11-22T13:15:42Z\",\"KeyInfo\":{\"keyID\":\"" KEY_ID
    "\",\"kekID\":\"bsa-1/2\",\"wrap\":\"aes-kw\",\"bits\":128}}";
static const char json_efficient[] =
    "{\"Tag\":2,\"MessageID\":\"m-1\",\"Status\":0,\"Data\":\"" DATA_128 "\"}";
static const char xml_full[] =
    "<KeyRequestResponse xmlns=\"urn:x-bcast:spcp:cp3:1.0\"><Tag>2</Tag><MessageID>m-1</MessageID>"
    "<ContentID>urn:x:news</ContentID><Destination>bsa-1</Destination>"
    "<Source>bsm.example.net</Source><Status>0</Status><Data>" DATA_128
    "</Data></KeyRequestResponse>";

#define JSON "application/json"
#define XML  "application/xml; charset=utf-8"

static struct secret *make_kek(void)
{
    struct secret *kek = NULL;

    assert_int_equal(secret_new(32, &kek), 0);
    for (uint8_t i = 0; i < 32; i++)
        secret_get(kek)[i] = i;
    return kek;
}

/* base with the one place of find replaced; the caller frees it. */
static char *edit(const char *base, const char *find, const char *replacement)
{
    const char *at = strstr(base, find);
    char *text;

    assert_non_null(at);
    assert_null(strstr(at + 1, find));
    assert_true(
        asprintf(&text, "%.*s%s%s", (int)(at - base), base, replacement, at + strlen(find)) >= 0);
    return text;
}

/* What came over HTTP. */
struct came {
    long status;
    const char *type;
    const char *reason;
    const char *body;
};

static int check(enum cp3_media media, enum cp3_wrap wrap, const struct came *came,
                 struct check_result *ret_answer, struct check_refusal *ret_refusal)
{
    AUTO(secret) struct secret *kek = make_kek();
    const struct check_terms terms = {"bsa-1", "bsm.example.net", true, media, wrap, kek};
    const struct check_subject subject = {.kind = CHECK_ANSWER,
                                          .terms = &terms,
                                          .message_id = "m-1",
                                          .content_id = "urn:x:news",
                                          .status = came->status,
                                          .content_type = came->type,
                                          .reason = came->reason != NULL ? came->reason : "",
                                          .body = (const uint8_t *)came->body,
                                          .body_len = strlen(came->body)};

    return check_message(&subject, ret_answer, ret_refusal);
}

/* In json_full find is replaced; everything else is right. */
static const struct wrong {
    const char *find, *replacement;
    int error;
    const char *check, *expected, *found;
} wrong_messages[] = {
    {"\"Tag\":2", "\"Tag\":4", TEKD_EFORMAT, "message", "a CP-3 message",
     "line 1, Data: not a field of this message"},
    {"\"Version\":1", "\"Version\":2", TEKD_EFORMAT, "Version", "1", "2"},
    {"\"m-1\"", "\"m-2\"", TEKD_EFORMAT, "MessageID", "m-1", "m-2"},
    {"\"m-1\"", "\"M-1\"", TEKD_EFORMAT, "MessageID", "m-1", "M-1"},
    {"\"m-1\"", "\"m-1\\u0080\\u00e9\"", TEKD_EFORMAT, "MessageID", "m-1",
     "m-1\\xc2\\x80\\xc3\\xa9"},
    {"\"MessageID\":\"m-1\",", "", TEKD_EFORMAT, "message", "a CP-3 message",
     "line 1, MessageID: missing"},
    {"urn:x:news", "urn:x:new", TEKD_EFORMAT, "ContentID", "urn:x:news", "urn:x:new"},
    {"\"ContentID\":\"urn:x:news\",", "", TEKD_EFORMAT, "message", "a CP-3 message",
     "line 1, ContentID: missing, though others of ContentID, Destination, Source are there"},
    {"\"Source\":\"bsm.example.net\"", "\"Source\":\"bsm2\"", TEKD_EFORMAT, "Source",
     "bsm.example.net", "bsm2"},
    {"\"Destination\":\"bsa-1\"", "\"Destination\":\"bsa-2\"", TEKD_EFORMAT, "Destination", "bsa-1",
     "bsa-2"},
    /* not swapped: the request sent back */
    {"\"Destination\":\"bsa-1\",\"Source\":\"bsm.example.net\"",
     "\"Destination\":\"bsm.example.net\",\"Source\":\"bsa-1\"", TEKD_EFORMAT, "Source",
     "bsm.example.net", "bsa-1"},
    {"\"Status\":0", "\"Status\":2", TEKD_EFORMAT, "message", "a CP-3 message", NULL},
    {"\"Status\":0", "\"Status\":1", TEKD_EFORMAT, "message", "a CP-3 message",
     "line 1, Data: given, though Status is 1"},
    {",\"Data\":\"" DATA_128 "\"", "", TEKD_EFORMAT, "message", "a CP-3 message",
     "line 1, Data: missing, though Status is 0"},
    {DATA_128, "64E8", TEKD_EFORMAT, "message", "a CP-3 message", NULL},
    {DATA_128, DATA_192, TEKD_EFORMAT, "TEK", "a key of 128 bits, as KeyInfo says", "192"},
    {"\"bits\":128", "\"bits\":256", TEKD_EFORMAT, "TEK", "a key of 256 bits, as KeyInfo says",
     "128"},
    {"\"bits\":128", "\"bits\":127", TEKD_EFORMAT, "KeyInfo.bits", "128, 192 or 256", "127"},
    {"\"bits\":128", "\"bits\":0", TEKD_EFORMAT, "KeyInfo.bits", "128, 192 or 256", "0"},
    {"\"wrap\":\"aes-kw\"", "\"wrap\":\"aes-kwp\"", TEKD_EFORMAT, "KeyInfo.wrap", "aes-kw",
     "aes-kwp"},
    {"\"wrap\":\"aes-kw\"", "\"wrap\":\"rsa-oaep-sha1\"", TEKD_EFORMAT, "KeyInfo.wrap", "aes-kw",
     "rsa-oaep-sha1"},
    {"\"wrap\":\"aes-kw\"", "\"wrap\":\"none\"", TEKD_EFORMAT, "message", "a CP-3 message", NULL},
    {DATA_128, ALTERED_128, TEKD_EFORMAT, "Data", "Data that unwraps (aes-kw) with our KEK",
     "Data wrapped under another key, or altered"},
    {DATA_128, PADDED_128, TEKD_EFORMAT, "Data", "Data that unwraps (aes-kw) with our KEK",
     "Data wrapped under another key, or altered"},
    {"}}", "}", TEKD_EFORMAT, "message", "a CP-3 message", NULL},
};

static void check_message__refuses_messages_wrong_in_one_place(void **state)
{
    struct check_refusal why;
    struct check_result answer = {.tek = NULL};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong_messages); i++) {
        const struct wrong *w = &wrong_messages[i];
        AUTO_MEM char *body = edit(json_full, w->find, w->replacement);
        struct came came = {200, JSON, NULL, body};

        assert_int_equal(check(CP3_JSON, CP3_WRAP_AES_KW, &came, &answer, &why), w->error);
        assert_string_equal(why.check, w->check);
        assert_string_equal(why.expected, w->expected);
        if (w->found != NULL)
            assert_string_equal(why.found, w->found);
        assert_true(strlen(why.found) > 0);
        assert_string_equal(why.reason, "");
        assert_null(answer.tek);
    }
}

/* Without KeyInfo only the unwrapped key shows its length. */
static const struct {
    const char *find, *replacement;
    enum cp3_wrap wrap;
    const char *check, *expected, *found;
} wrong_keys[] = {
    {DATA_128, DATA_320, CP3_WRAP_AES_KW, "TEK", "a key of 128, 192 or 256 bits", "320"},
    {DATA_128, PADDED_160, CP3_WRAP_AES_KWP, "TEK", "a key of 128, 192 or 256 bits", "160"},
    {DATA_128, DATA_128 "00", CP3_WRAP_AES_KW, "Data", "Data of a length that aes-kw has",
     "25 octets"},
    {DATA_128, DATA_128, CP3_WRAP_AES_KWP, "Data", "Data that unwraps (aes-kwp) with our KEK",
     "Data wrapped under another key, or altered"},
    {"m-1", "m-2", CP3_WRAP_AES_KW, "MessageID", "m-1", "m-2"},
};

static void check_message__refuses_keys_wrong_in_themselves(void **state)
{
    struct check_refusal why;
    struct check_result answer = {.tek = NULL};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong_keys); i++) {
        AUTO_MEM char *body = edit(json_efficient, wrong_keys[i].find, wrong_keys[i].replacement);
        struct came came = {200, JSON, NULL, body};

        assert_int_equal(check(CP3_JSON, wrong_keys[i].wrap, &came, &answer, &why), TEKD_EFORMAT);
        assert_string_equal(why.check, wrong_keys[i].check);
        assert_string_equal(why.expected, wrong_keys[i].expected);
        assert_string_equal(why.found, wrong_keys[i].found);
        assert_null(answer.tek);
    }
}

/* KeyInfo of 128 bits, and 192 under padding to the same length of Data. */
static void check_message__refuses_bits_that_padding_hides(void **state)
{
    AUTO_MEM char *wrap = edit(json_full, "\"wrap\":\"aes-kw\"", "\"wrap\":\"aes-kwp\"");
    AUTO_MEM char *bits = edit(wrap, "\"bits\":128", "\"bits\":192");
    AUTO_MEM char *body = edit(bits, DATA_128, PADDED_160);
    struct came came = {200, JSON, NULL, body};
    struct check_refusal why;
    struct check_result answer = {.tek = NULL};

    (void)state;
    assert_int_equal(check(CP3_JSON, CP3_WRAP_AES_KWP, &came, &answer, &why), TEKD_EFORMAT);
    assert_string_equal(why.check, "TEK");
    assert_string_equal(why.found, "160");
    assert_null(answer.tek);
}

/* A right message in an answer that is wrong as HTTP. */
static const struct {
    struct came came;
    int error;
    const char *check, *expected, *found, *reason;
} wrong_answers[] = {
    {{201, JSON, NULL, json_full}, TEKD_EDENIED, "HTTP status", "200", NULL, ""},
    {{302, JSON, NULL, ""}, TEKD_EDENIED, "HTTP status", "200", "302", ""},
    {{403, "application/problem+json", NULL, "{\"title\":\"not enrolled\"}"},
     TEKD_EDENIED,
     "HTTP status",
     "200",
     "403 {\"title\":\"not enrolled\"}",
     ""},
    {{404, JSON, "unknown-content", "{\"Tag\":2,\"MessageID\":\"m-1\",\"Status\":1}"},
     TEKD_EDENIED,
     "HTTP status",
     "200",
     "404 {\"Tag\":2,\"MessageID\":\"m-1\",\"Status\":1}",
     "unknown-content"},
    {{500, JSON, "internal", json_efficient}, TEKD_EDENIED, "HTTP status", "200", NULL, "internal"},
    {{503, JSON, "busy", "{\"Tag\":2,\"MessageID\":\"m-1\",\"Status\":1}"},
     TEKD_EAGAIN,
     "HTTP status",
     "200",
     NULL,
     "busy"},
    {{400, "text/plain", "\x1b[2J", "a\r\nb\x1b"},
     TEKD_EDENIED,
     "HTTP status",
     "200",
     "400 a\\x0d\\x0ab\\x1b",
     "\\x1b[2J"},
    {{200, XML, NULL, json_full}, TEKD_EFORMAT, "media type", "application/json", XML, ""},
    {{200, "", NULL, json_full}, TEKD_EFORMAT, "media type", "application/json", "", ""},
    {{200, "text/html", NULL, json_full},
     TEKD_EFORMAT,
     "media type",
     "application/json",
     "text/html",
     ""},
    {{200, "application/json; charset=latin1", NULL, json_full},
     TEKD_EFORMAT,
     "media type",
     "application/json",
     "application/json; charset=latin1",
     ""},
    {{200, JSON, NULL, ""}, TEKD_EFORMAT, "message", "a CP-3 message", NULL, ""},
    {{200, JSON, NULL, xml_full}, TEKD_EFORMAT, "message", "a CP-3 message", NULL, ""},
    {{200, JSON, "not-entitled",
      "{\"Tag\":2,\"MessageID\":\"m-1\",\"ContentID\":\"urn:x:news\",\"Destination\":\"bsa-1\","
      "\"Source\":\"bsm.example.net\",\"Status\":1}"},
     TEKD_EDENIED,
     "Status",
     "0",
     "1",
     "not-entitled"},
    {{200, JSON, NULL, "{\"Tag\":2,\"MessageID\":\"m-1\",\"Status\":1}"},
     TEKD_EDENIED,
     "Status",
     "0",
     "1",
     ""},
    /* a refusal of something else is not the refusal of this */
    {{200, JSON, "not-entitled", "{\"Tag\":2,\"MessageID\":\"m-9\",\"Status\":1}"},
     TEKD_EFORMAT,
     "MessageID",
     "m-1",
     "m-9",
     "not-entitled"},
    {{200, JSON, NULL, "{\"Tag\":4,\"MessageID\":\"m-1\",\"Status\":0}"},
     TEKD_EFORMAT,
     "Tag",
     "2 (Response to Key Request)",
     "4",
     ""},
    {{200, JSON, NULL,
      "{\"Tag\":1,\"MessageID\":\"m-1\",\"ContentID\":\"urn:x:news\",\"Destination\":\"bsa-1\","
      "\"Source\":\"bsm.example.net\"}"},
     TEKD_EFORMAT,
     "Tag",
     "2 (Response to Key Request)",
     "1",
     ""},
    {{200, JSON, NULL,
      "{\"Tag\":3,\"MessageID\":\"m-1\",\"ContentID\":\"urn:x:news\",\"Destination\":\"bsa-1\","
      "\"Source\":\"bsm.example.net\",\"Data\":\"" DATA_128 "\"}"},
     TEKD_EFORMAT,
     "Tag",
     "2 (Response to Key Request)",
     "3",
     ""},
};

static void check_message__refuses_answers_wrong_around_the_message(void **state)
{
    struct check_refusal why;
    struct check_result answer = {.tek = NULL};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong_answers); i++) {
        assert_int_equal(check(CP3_JSON, CP3_WRAP_AES_KW, &wrong_answers[i].came, &answer, &why),
                         wrong_answers[i].error);
        assert_string_equal(why.check, wrong_answers[i].check);
        assert_string_equal(why.expected, wrong_answers[i].expected);
        if (wrong_answers[i].found != NULL)
            assert_string_equal(why.found, wrong_answers[i].found);
        assert_string_equal(why.reason, wrong_answers[i].reason);
        assert_null(answer.tek);
    }
}

static void assert_tek(const struct check_result *answer, const char *hex)
{
    char text[2 * 32 + 1];

    enc_hex(secret_peek(answer->tek), secret_len(answer->tek), text);
    assert_string_equal(text, hex);
}

static void check_message__takes_what_is_right(void **state)
{
    AUTO_MEM char *padded_wrap = edit(json_full, "\"wrap\":\"aes-kw\"", "\"wrap\":\"aes-kwp\"");
    AUTO_MEM char *padded = edit(padded_wrap, DATA_128, PADDED_128);
    AUTO_MEM char *bits_192 = edit(json_full, "\"bits\":128", "\"bits\":192");
    AUTO_MEM char *full_192 = edit(bits_192, DATA_128, DATA_192);
    AUTO_MEM char *efficient_256 = edit(json_efficient, DATA_128, DATA_256);
    const struct {
        enum cp3_media media;
        enum cp3_wrap wrap;
        struct came came;
        const char *tek, *check_value;
    } cases[] = {
        {CP3_JSON, CP3_WRAP_AES_KW, {200, JSON, NULL, json_full}, TEK_128, "fde4fb"},
        {CP3_JSON, CP3_WRAP_AES_KW, {200, JSON, NULL, json_efficient}, TEK_128, "fde4fb"},
        {CP3_XML, CP3_WRAP_AES_KW, {200, XML, NULL, xml_full}, TEK_128, "fde4fb"},
        {CP3_JSON, CP3_WRAP_AES_KWP, {200, JSON, NULL, padded}, TEK_128, "fde4fb"},
        {CP3_JSON,
         CP3_WRAP_AES_KW,
         {200, JSON, NULL, full_192},
         TEK_128 "0001020304050607",
         "6cc130"},
        {CP3_JSON,
         CP3_WRAP_AES_KW,
         {200, JSON, NULL, efficient_256},
         TEK_128 "000102030405060708090a0b0c0d0e0f",
         "509f76"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct check_result answer = {.tek = NULL};
        struct check_refusal why;

        assert_int_equal(check(cases[i].media, cases[i].wrap, &cases[i].came, &answer, &why), 0);
        assert_tek(&answer, cases[i].tek);
        assert_string_equal(answer.check_value, cases[i].check_value);
        check_clear(&answer);
        assert_null(answer.tek);
    }
}

static void check_message__keeps_what_key_info_says(void **state)
{
    struct came came = {200, JSON, NULL, json_full};
    struct check_result answer = {.tek = NULL};
    struct check_refusal why;
    char uuid[ENC_UUID_LEN + 1];

    (void)state;
    assert_int_equal(check(CP3_JSON, CP3_WRAP_AES_KW, &came, &answer, &why), 0);
    assert_true(answer.message.has & CP3_HAS_KEY_INFO);
    enc_uuid(answer.message.key_info.key_id, uuid);
    assert_string_equal(uuid, KEY_ID);
    assert_string_equal(answer.message.key_info.kek_id, "bsa-1/2");
    assert_string_equal(answer.message.time.text, "2026-11-22T13:15:42Z");
    check_clear(&answer);
}

/* ---- deliveries ------------------------------------------------------------------------------ */

static const char json_delivery[] =
    "{\"Tag\":3,\"Version\":1,\"MessageID\":\"m-1\",\"ContentID\":\"urn:x:news\","
    "\"Destination\":\"bsa-1\",\"Source\":\"bsm.example.net\",\"Data\":\"" DATA_128
    "\",\"Time\":\"2026-11-22T13:15:42Z\",\"KeyInfo\":{\"keyID\":\"" KEY_ID
    "\",\"kekID\":\"bsa-1/2\",\"wrap\":\"aes-kw\",\"bits\":128}}";
static const char xml_delivery[] =
    "<KeyDelivery xmlns=\"urn:x-bcast:spcp:cp3:1.0\"><Tag>3</Tag><MessageID>m-1</MessageID>"
    "<ContentID>urn:x:news</ContentID><Destination>bsa-1</Destination>"
    "<Source>bsm.example.net</Source><Data>" DATA_128 "</Data></KeyDelivery>";

/* A delivery, pushed unless came has a status. */
static int deliver(struct journal *journal, const struct came *came, struct check_result *result,
                   struct check_refusal *why)
{
    AUTO(secret) struct secret *kek = make_kek();
    const struct check_terms terms = {.bsa = "bsa-1", .bsm = "bsm.example.net", .kek = kek};
    const struct check_subject subject = {.kind = came->status ? CHECK_COLLECTED : CHECK_PUSHED,
                                          .terms = &terms,
                                          .journal = journal,
                                          .status = came->status,
                                          .content_type = came->type,
                                          .reason = came->reason != NULL ? came->reason : "",
                                          .body = (const uint8_t *)came->body,
                                          .body_len = strlen(came->body)};

    return check_message(&subject, result, why);
}

/* In json_delivery find is replaced.  What is answered by HTTP alone is not read. */
static const struct {
    const char *find, *replacement, *check, *expected, *found;
    int http;
} wrong_deliveries[] = {
    {"\"Tag\":3", "\"Tag\":1", "message", "a CP-3 message", NULL, 400},
    {"}}", "}", "message", "a CP-3 message", NULL, 400},
    {"\"ContentID\":\"urn:x:news\",", "", "message", "a CP-3 message", "line 1, ContentID: missing",
     400},
    {",\"Data\":\"" DATA_128 "\"", "", "message", "a CP-3 message", "line 1, Data: missing", 400},
    {"\"MessageID\":\"m-1\",", "", "message", "a CP-3 message", "line 1, MessageID: missing", 400},
    {"\"Version\":1", "\"Version\":2", "Version", "1", "2", 0},
    {"\"bsm.example.net\"", "\"bsm2\"", "Source", "bsm.example.net", "bsm2", 0},
    {"\"bsa-1\"", "\"bsa-2\"", "Destination", "bsa-1", "bsa-2", 0},
    {"\"Destination\":\"bsa-1\",\"Source\":\"bsm.example.net\"",
     "\"Destination\":\"bsm.example.net\",\"Source\":\"bsa-1\"", "Source", "bsm.example.net",
     "bsa-1", 0},
    {"\"wrap\":\"aes-kw\"", "\"wrap\":\"aes-kwp\"", "KeyInfo.wrap", "aes-kw", "aes-kwp", 0},
    {"\"bits\":128", "\"bits\":64", "KeyInfo.bits", "128, 192 or 256", "64", 0},
    {"\"bits\":128", "\"bits\":192", "TEK", "a key of 192 bits, as KeyInfo says", "128", 0},
    {DATA_128, ALTERED_128, "Data", "Data that unwraps (aes-kw) with our KEK",
     "Data wrapped under another key, or altered", 0},
    {DATA_128, DATA_320, "TEK", "a key of 128, 192 or 256 bits", "320", 0},
};

static void check_message__refuses_deliveries_wrong_in_one_place(void **state)
{
    AUTO(journal) struct journal *journal = NULL;
    struct check_result result;
    struct check_refusal why;

    (void)state;
    assert_int_equal(journal_open(NULL, &journal), 0);
    for (size_t i = 0; i < ARRAY_SIZE(wrong_deliveries); i++) {
        AUTO_MEM char *body =
            edit(json_delivery, wrong_deliveries[i].find, wrong_deliveries[i].replacement);
        struct came came = {0, JSON, NULL, body};

        assert_int_equal(deliver(journal, &came, &result, &why), TEKD_EFORMAT);
        assert_string_equal(why.check, wrong_deliveries[i].check);
        assert_string_equal(why.expected, wrong_deliveries[i].expected);
        if (wrong_deliveries[i].found != NULL)
            assert_string_equal(why.found, wrong_deliveries[i].found);
        assert_int_equal(why.http, wrong_deliveries[i].http);
        assert_int_equal(result.read, wrong_deliveries[i].http == 0);
        if (result.read)
            assert_string_equal(result.message.message_id, "m-1");
        assert_null(result.tek);
    }
}

static void check_message__refuses_other_messages_for_deliveries(void **state)
{
    static const struct {
        struct came came;
        const char *check;
        int error, http;
    } cases[] = {
        {{0, JSON, NULL, json_full}, "Tag", TEKD_EFORMAT, 400},
        {{0, JSON, NULL, "{\"Tag\":4,\"MessageID\":\"m-1\",\"Status\":0}"},
         "Tag",
         TEKD_EFORMAT,
         400},
        {{0, "text/plain", NULL, json_delivery}, "media type", TEKD_EFORMAT, 415},
        {{0, "", NULL, json_delivery}, "media type", TEKD_EFORMAT, 415},
        {{0, XML, NULL, json_delivery}, "message", TEKD_EFORMAT, 400},
        {{0, JSON, NULL, xml_delivery}, "message", TEKD_EFORMAT, 400},
        {{0, JSON, NULL, ""}, "message", TEKD_EFORMAT, 400},
        {{403, JSON, NULL, json_delivery}, "HTTP status", TEKD_EDENIED, 0},
        {{503, JSON, "busy", json_delivery}, "HTTP status", TEKD_EAGAIN, 0},
        {{201, JSON, NULL, json_delivery}, "HTTP status", TEKD_EDENIED, 0},
    };
    AUTO(journal) struct journal *journal = NULL;
    struct check_result result;
    struct check_refusal why;

    (void)state;
    assert_int_equal(journal_open(NULL, &journal), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(deliver(journal, &cases[i].came, &result, &why), cases[i].error);
        assert_string_equal(why.check, cases[i].check);
        assert_int_equal(why.http, cases[i].http);
        assert_null(result.tek);
    }
    assert_int_equal(deliver(journal, &cases[2].came, &result, &why), TEKD_EFORMAT);
    assert_string_equal(why.expected, "application/xml or application/json");
}

static void check_message__takes_deliveries_of_either_media(void **state)
{
    static const struct {
        struct came came;
        enum cp3_media media;
    } cases[] = {
        {{0, JSON, NULL, json_delivery}, CP3_JSON},
        {{0, XML, NULL, xml_delivery}, CP3_XML},
        {{200, JSON, NULL, json_delivery}, CP3_JSON},
        {{200, "text/xml", NULL, xml_delivery}, CP3_XML},
    };
    AUTO(journal) struct journal *journal = NULL;

    (void)state;
    assert_int_equal(journal_open(NULL, &journal), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct check_result result;
        struct check_refusal why;

        assert_int_equal(deliver(journal, &cases[i].came, &result, &why), 0);
        assert_int_equal(result.media, cases[i].media);
        assert_false(result.repeated);
        assert_tek(&result, TEK_128);
        check_clear(&result);
    }
}

/* The same again is known, whatever its form; another key or content under its ID is not taken. */
static void check_message__knows_a_repetition(void **state)
{
    AUTO(journal) struct journal *journal = NULL;
    AUTO_MEM char *other_data = edit(json_delivery, DATA_128, DATA_192);
    AUTO_MEM char *other_content = edit(json_delivery, "urn:x:news", "urn:x:olds");
    const char *const others[] = {other_data, other_content};
    const struct came same[] = {{0, JSON, NULL, json_delivery}, {0, XML, NULL, xml_delivery}};
    struct check_result result;
    struct check_refusal why;

    (void)state;
    assert_int_equal(journal_open(NULL, &journal), 0);
    assert_int_equal(deliver(journal, &same[0], &result, &why), 0);
    assert_int_equal(journal_add(journal, &result.message), 0);
    check_clear(&result);
    for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
        assert_int_equal(deliver(journal, &same[i], &result, &why), 0);
        assert_true(result.repeated);
        assert_null(result.tek);
    }
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        const struct came came = {0, JSON, NULL, others[i]};

        assert_int_equal(deliver(journal, &came, &result, &why), TEKD_EFORMAT);
        assert_string_equal(why.check, "repetition");
        assert_string_equal(why.expected, "the ContentID and Data that this MessageID had before");
        assert_false(result.repeated);
        assert_true(result.read);
        assert_int_equal(why.http, 0);
    }
}

static void check_show__escapes_and_cuts(void **state)
{
    char out[12];

    (void)state;
    check_show("plain", 5, out, sizeof(out));
    assert_string_equal(out, "plain");
    check_show("a\\\n\x7f", 4, out, sizeof(out));
    assert_string_equal(out, "a\\x5c\\x0a");
    check_show("a\0b", 3, out, sizeof(out));
    assert_string_equal(out, "a\\x00b");
    check_show("0123456789abcdef", 16, out, sizeof(out));
    assert_string_equal(out, "0123456789a");
    check_show("", 0, out, sizeof(out));
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_message__refuses_messages_wrong_in_one_place),
        cmocka_unit_test(check_message__refuses_keys_wrong_in_themselves),
        cmocka_unit_test(check_message__refuses_bits_that_padding_hides),
        cmocka_unit_test(check_message__refuses_answers_wrong_around_the_message),
        cmocka_unit_test(check_message__takes_what_is_right),
        cmocka_unit_test(check_message__keeps_what_key_info_says),
        cmocka_unit_test(check_message__refuses_deliveries_wrong_in_one_place),
        cmocka_unit_test(check_message__refuses_other_messages_for_deliveries),
        cmocka_unit_test(check_message__takes_deliveries_of_either_media),
        cmocka_unit_test(check_message__knows_a_repetition),
        cmocka_unit_test(check_show__escapes_and_cuts),
    };

    return cmocka_run_group_tests_name("bsa_check", tests, NULL, NULL);
}
