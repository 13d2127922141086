#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/rand.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/record.h"

#define T_US 1795353342123456 /* 2026-11-22T13:15:42.123456Z */

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static struct record *fresh(const char *event)
{
    struct record *r = NULL;

    assert_int_equal(record_new(event, &r), 0);
    return r;
}

/* The octets of r, of which the caller gets a string in static memory. */
static const char *encoded(const struct record *r)
{
    static char text[RECORD_MAX + 1];
    AUTO(buf) struct buf *b = NULL;

    assert_int_equal(buf_new(RECORD_MAX, &b), 0);
    assert_int_equal(record_encode(r, 7, T_US, "tekd-a", b), 0);
    memcpy(text, buf_data(b), buf_len(b) + 1);
    return text;
}

static void record_encode__writes_sorted_canonical_octets(void **state)
{
    AUTO(record) struct record *r = fresh("request.answered");
    const uint8_t octets[] = {0x00, 0x9f, 0xff};

    (void)state;
    record_str(r, "peer", "bsa-1");
    record_hex(r, "cert", octets, sizeof octets);
    record_int(r, "period", 9007199254740991);
    record_bool(r, "yes", true);
    record_bool(r, "no", false);
    record_ref(r, "ref", 12, 345);
    record_str(r, "a", "");
    record_int(r, "zz", 0);
    record_strn(r, "mid", "m-1 and more", 3);
    assert_int_equal(record_error(r), 0);
    assert_string_equal(encoded(r),
                        "{\"a\":\"\",\"cert\":\"009fff\",\"ev\":\"request.answered\","
                        "\"inst\":\"tekd-a\",\"mid\":\"m-1\",\"no\":false,\"peer\":\"bsa-1\","
                        "\"period\":9007199254740991,\"ref\":\"12/345\",\"seq\":7,"
                        "\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":1,\"yes\":true,\"zz\":0}");
}

static void record_encode__of_an_empty_record(void **state)
{
    AUTO(record) struct record *r = fresh("log.heartbeat");

    (void)state;
    assert_string_equal(encoded(r), "{\"ev\":\"log.heartbeat\",\"inst\":\"tekd-a\",\"seq\":7,"
                                    "\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":1}");
}

/* RFC 8785 section 3.2.2.2. */
static void record_encode__escapes_as_rfc_8785(void **state)
{
    AUTO(record) struct record *r = fresh("log.heartbeat");

    (void)state;
    record_str(r, "s", "\x01\b\t\n\v\f\r\x0e\x1f \"\\/\x7f\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91");
    assert_non_null(strstr(encoded(r), "\"s\":\"\\u0001\\b\\t\\n\\u000b\\f\\r\\u000e\\u001f "
                                       "\\\"\\\\/\x7f\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91\""));
}

static void record_encode__keeps_what_is_in_the_buffer(void **state)
{
    AUTO(record) struct record *r = fresh("log.heartbeat");
    AUTO(buf) struct buf *b = NULL;
    size_t one;

    (void)state;
    assert_int_equal(buf_new((size_t)2 * RECORD_MAX, &b), 0);
    assert_int_equal(record_encode(r, 0, T_US, "i", b), 0);
    one = buf_len(b);
    assert_int_equal(record_encode(r, 0, T_US, "i", b), 0);
    assert_int_equal(buf_len(b), 2 * one);
    assert_memory_equal(buf_data(b), buf_data(b) + one, one);
}

static void record_encode__takes_exactly_the_limit_and_no_more(void **state)
{
    static char text[RECORD_MAX];
    const size_t rest = strlen("{\"ev\":\"log.heartbeat\",\"inst\":\"i\",\"s\":\"\",\"seq\":0,"
                               "\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":1}");
    AUTO(record) struct record *fits = fresh("log.heartbeat");
    AUTO(record) struct record *over = fresh("log.heartbeat");
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new((size_t)2 * RECORD_MAX, &b), 0);
    memset(text, 'x', sizeof text);
    record_strn(fits, "s", text, RECORD_MAX - rest);
    record_strn(over, "s", text, RECORD_MAX - rest + 1);
    assert_int_equal(record_encode(over, 0, T_US, "i", b), TEKD_ETOOBIG);
    assert_int_equal(buf_len(b), 0);
    assert_int_equal(record_encode(fits, 0, T_US, "i", b), 0);
    assert_int_equal(buf_len(b), RECORD_MAX);
}

static void record_encode__refuses_a_seq_that_json_cannot_hold(void **state)
{
    AUTO(record) struct record *r = fresh("log.heartbeat");
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(RECORD_MAX, &b), 0);
    assert_int_equal(record_encode(r, UINT64_C(1) << 53, T_US, "i", b), TEKD_ETOOBIG);
    assert_int_equal(record_encode(r, 0, T_US, "\xff", b), TEKD_EINVAL);
    assert_int_equal(buf_len(b), 0);
}

/* A ContentID of 1024 octets that are all escaped at their worst, and the rest of a record. */
static void record_encode__takes_the_longest_content_id(void **state)
{
    AUTO(record) struct record *r = fresh("request.answered");
    AUTO(buf) struct buf *b = NULL;
    char text[1024];

    (void)state;
    assert_int_equal(buf_new(RECORD_MAX, &b), 0);
    memset(text, 0x01, sizeof text);
    record_strn(r, "content", text, sizeof text);
    record_strn(r, "mid", text, 255);
    assert_int_equal(record_encode(r, 0, T_US, "i", b), 0);
    assert_true(buf_len(b) > (size_t)6 * (1024 + 255));
}

static void record_strn__marks_text_that_cannot_be_a_value(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {"\xff", 1},
        {"\xc3", 1},
        {"a\xc0\xaf", 3},
        {"\xed\xa0\x80", 3},
        {"\xe0\x9f\xbf", 3},
        {"\xf0\x8f\xbf\xbf", 4},
        {"\xf4\x90\x80\x80", 4},
        {"\x80", 1},
        {"\xe2\x82", 2},
        {"a\0b", 3},
        {"\xe2\x28\xa1", 3},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        AUTO(record) struct record *r = fresh("log.heartbeat");
        AUTO(buf) struct buf *b = NULL;

        assert_int_equal(buf_new(RECORD_MAX, &b), 0);
        record_strn(r, "s", bad[i].text, bad[i].len);
        record_str(r, "t_two", "good");
        assert_int_equal(record_error(r), TEKD_EINVAL);
        assert_int_equal(record_encode(r, 0, T_US, "i", b), TEKD_EINVAL);
        assert_int_equal(buf_len(b), 0);
    }
}

static void record_int__marks_what_json_cannot_hold(void **state)
{
    AUTO(record) struct record *r = fresh("log.heartbeat");

    (void)state;
    record_int(r, "n", UINT64_C(1) << 53);
    assert_int_equal(record_error(r), TEKD_EINVAL);
}

static void record_strn__marks_values_that_are_too_long(void **state)
{
    static char text[RECORD_MAX + 1];
    AUTO(record) struct record *plain = fresh("log.heartbeat");
    AUTO(record) struct record *escaped = fresh("log.heartbeat");
    AUTO(record) struct record *several = fresh("log.heartbeat");

    (void)state;
    memset(text, 0x01, sizeof text);
    record_strn(plain, "s", text, sizeof text);
    assert_int_equal(record_error(plain), TEKD_ETOOBIG);
    record_strn(escaped, "s", text, (size_t)RECORD_MAX / 5);
    assert_int_equal(record_error(escaped), TEKD_ETOOBIG);
    memset(text, 'x', sizeof text);
    record_strn(several, "a", text, RECORD_MAX);
    record_strn(several, "b", text, RECORD_MAX);
    assert_int_equal(record_error(several), TEKD_ETOOBIG);
}

static void record_str__marks_more_fields_than_there_may_be(void **state)
{
    AUTO(record) struct record *r = fresh("log.heartbeat");
    char key[3] = "k_";

    (void)state;
    for (size_t i = 0; i < RECORD_FIELDS_MAX - 5; i++) {
        key[1] = (char)('a' + i);
        record_str(r, key, "x");
    }
    assert_int_equal(record_error(r), 0);
    record_str(r, "one_more", "x");
    assert_int_equal(record_error(r), TEKD_ETOOBIG);
}

/* Runs f in a child, which must abort. */
static void assert_aborts(void (*f)(struct record *r))
{
    pid_t pid = fork();
    int status = 0;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct record *r = NULL;

        (void)close(STDERR_FILENO); /* assert() speaks, and is expected to */
        (void)signal(SIGABRT, SIG_DFL);
        if (record_new("log.heartbeat", &r) == 0)
            f(r);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void set_twice(struct record *r)
{
    record_str(r, "k", "x");
    record_int(r, "k", 1);
}
static void set_reserved(struct record *r)
{
    record_int(r, "seq", 1);
}
static void set_upper(struct record *r)
{
    record_str(r, "Key", "x");
}
static void set_empty(struct record *r)
{
    record_str(r, "", "x");
}
static void set_long(struct record *r)
{
    record_str(r, "abcdefghijklmnop", "x");
}
static void set_event(struct record *r)
{
    (void)r;
    (void)record_new("log.unheard", &(struct record *){NULL});
}

static void record_str__aborts_on_keys_that_break_the_contract(void **state)
{
    (void)state;
    assert_aborts(set_twice);
    assert_aborts(set_reserved);
    assert_aborts(set_upper);
    assert_aborts(set_empty);
    assert_aborts(set_long);
    assert_aborts(set_event);
}

#define HEAD "{\"ev\":\"log.heartbeat\",\"inst\":\"i\","
#define TAIL "\"seq\":0,\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":1}"

static void record_parse__gives_back_every_field(void **state)
{
    AUTO(record) struct record *r = fresh("request.answered");
    AUTO(record) struct record *again = NULL;
    const char *octets, *what = NULL;
    uint64_t n = 0;
    bool flag = false;

    (void)state;
    record_str(r, "mid", "line\nend \"quoted\" \\ \x02 \xc3\xa9");
    record_int(r, "period", 42);
    record_bool(r, "late", true);
    octets = encoded(r);
    assert_int_equal(record_parse(octets, strlen(octets), &again, &what), 0);
    assert_string_equal(record_event(again), "request.answered");
    assert_string_equal(record_get_str(again, "mid"), "line\nend \"quoted\" \\ \x02 \xc3\xa9");
    assert_true(record_get_int(again, "period", &n) && n == 42);
    assert_true(record_get_int(again, "seq", &n) && n == 7);
    assert_true(record_get_bool(again, "late", &flag) && flag);
    assert_string_equal(record_get_str(again, "inst"), "tekd-a");

    assert_null(record_get_str(again, "period"));
    assert_null(record_get_str(again, "peer"));
    assert_false(record_get_int(again, "mid", &n));
    assert_false(record_get_bool(again, "period", &flag));
    assert_true(record_has(again, "late"));
    assert_false(record_has(again, "lat"));
}

/* And takes the record that all of them are variations of. */
static void assert_refuses(const char *const *bad, size_t n)
{
    struct record *r = NULL;
    const char *what = NULL;

    assert_int_equal(record_parse(HEAD TAIL, strlen(HEAD TAIL), &r, &what), 0);
    record_free(r);
    r = NULL;
    for (size_t i = 0; i < n; i++) {
        what = NULL;
        if (record_parse(bad[i], strlen(bad[i]), &r, &what) != TEKD_EFORMAT)
            fail_msg("taken: %s", bad[i]);
        assert_non_null(what);
        assert_null(r);
    }
}

static void record_parse__refuses_all_but_the_canonical_octets(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "{}",
        "[]",
        "null",
        HEAD TAIL " ",
        HEAD TAIL "\n",
        " " HEAD TAIL,
        HEAD TAIL HEAD TAIL,
        /* white space */
        HEAD "\"k\": \"x\"," TAIL,
        HEAD " \"k\":\"x\"," TAIL,
        HEAD "\"k\":\"x\" ," TAIL,
        /* order, repetition, punctuation */
        HEAD "\"a\":\"x\"," TAIL,
        HEAD "\"k\":\"x\",\"k\":\"x\"," TAIL,
        HEAD "\"m\":\"x\",\"l\":\"x\"," TAIL,
        HEAD "," TAIL,
        HEAD "\"k\"," TAIL,
        HEAD "\"k\":," TAIL,
        HEAD "\"k\":\"x\"" TAIL,
        /* keys */
        HEAD "\"\":\"x\"," TAIL,
        HEAD "\"Kk\":\"x\"," TAIL,
        HEAD "\"k1\":\"x\"," TAIL,
        HEAD "\"k.\":\"x\"," TAIL,
        HEAD "\"kkkkkkkkkkkkkkkk\":\"x\"," TAIL,
        HEAD "k:\"x\"," TAIL,
    };

    (void)state;
    assert_refuses(bad, ARRAY_SIZE(bad));
}

static void record_parse__refuses_other_values(void **state)
{
    static const char *const bad[] = {
        HEAD "\"k\":null," TAIL,
        HEAD "\"k\":{}," TAIL,
        HEAD "\"k\":[]," TAIL,
        HEAD "\"k\":-1," TAIL,
        HEAD "\"k\":1.0," TAIL,
        HEAD "\"k\":1e3," TAIL,
        HEAD "\"k\":01," TAIL,
        HEAD "\"k\":+1," TAIL,
        HEAD "\"k\":9007199254740992," TAIL,
        HEAD "\"k\":99999999999999999999999," TAIL,
        HEAD "\"k\":True," TAIL,
        HEAD "\"k\":tru," TAIL,
        HEAD "\"k\":'x'," TAIL,
        /* strings */
        HEAD "\"k\":\"\\u0041\"," TAIL,
        HEAD "\"k\":\"\\u001F\"," TAIL,
        HEAD "\"k\":\"\\u000a\"," TAIL,
        HEAD "\"k\":\"\\u0000\"," TAIL,
        HEAD "\"k\":\"\\u00e9\"," TAIL,
        HEAD "\"k\":\"\\u20ac\"," TAIL,
        HEAD "\"k\":\"\\u00\"," TAIL,
        HEAD "\"k\":\"\\/\"," TAIL,
        HEAD "\"k\":\"\\x\"," TAIL,
        HEAD "\"k\":\"\\\"," TAIL,
        HEAD "\"k\":\"a\tb\"," TAIL,
        HEAD "\"k\":\"a\x01\"," TAIL,
        HEAD "\"k\":\"\xff\"," TAIL,
        HEAD "\"k\":\"\xed\xa0\x80\"," TAIL,
        HEAD "\"k\":\"x",
    };

    (void)state;
    assert_refuses(bad, ARRAY_SIZE(bad));
}

static void record_parse__refuses_what_lacks_a_field_of_every_record(void **state)
{
    static const char *const bad[] = {
        "{\"ev\":\"log.heartbeat\"," TAIL,
        "{\"inst\":\"i\"," TAIL,
        "{\"ev\":\"\",\"inst\":\"i\"," TAIL,
        "{\"ev\":1,\"inst\":\"i\"," TAIL,
        "{\"ev\":\"log.heartbeat\",\"inst\":\"\"," TAIL,
        HEAD "\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":1}",
        HEAD "\"seq\":\"0\",\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":1}",
        HEAD "\"seq\":0,\"v\":1}",
        HEAD "\"seq\":0,\"t\":\"2026-11-22T13:15:42Z\",\"v\":1}",
        HEAD "\"seq\":0,\"t\":\"2026-13-22T13:15:42.123456Z\",\"v\":1}",
        HEAD "\"seq\":0,\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":2}",
        HEAD "\"seq\":0,\"t\":\"2026-11-22T13:15:42.123456Z\",\"v\":\"1\"}",
        HEAD "\"seq\":0,\"t\":\"2026-11-22T13:15:42.123456Z\"}",
    };

    (void)state;
    assert_refuses(bad, ARRAY_SIZE(bad));
}

static void record_parse__refuses_every_truncation(void **state)
{
    static const char whole[] = HEAD "\"k\":\"\\u0001\\\"\xe2\x82\xac\",\"n\":12," TAIL;
    struct record *r = NULL;
    const char *what;

    (void)state;
    assert_int_equal(record_parse(whole, sizeof whole - 1, &r, &what), 0);
    record_free(r);
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        char *cut = malloc(len + 1); /* of the exact size, so that a sanitizer sees over-reading */

        assert_non_null(cut);
        memcpy(cut, whole, len);
        assert_int_equal(record_parse(cut, len, &r, &what), TEKD_EFORMAT);
        free(cut);
    }
}

static void record_parse__refuses_what_is_over_the_limit(void **state)
{
    static char longest[RECORD_MAX + 2], text[RECORD_MAX + 2];
    struct record *r = NULL;
    const char *what = NULL;
    const int fill = RECORD_MAX - (int)strlen(HEAD "\"k\":\"\"," TAIL);

    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    (void)snprintf(text, sizeof text, HEAD "\"k\":\"%.*s\"," TAIL, fill, longest);
    assert_int_equal(record_parse(text, RECORD_MAX, &r, &what), 0);
    record_free(r);
    (void)snprintf(text, sizeof text, HEAD "\"k\":\"%.*s\"," TAIL, fill + 1, longest);
    assert_int_equal(record_parse(text, RECORD_MAX + 1, &r, &what), TEKD_EFORMAT);
    assert_string_equal(what, "longer than a record may be");
}

static void record_parse__refuses_too_many_fields(void **state)
{
    char text[RECORD_MAX] = HEAD;
    struct record *r = NULL;
    const char *what;

    (void)state;
    for (int c = 'a'; c < 'a' + RECORD_FIELDS_MAX - 5; c++)
        (void)snprintf(text + strlen(text), 16, "\"k%c\":1,", c);
    (void)snprintf(text + strlen(text), 100, "%s", TAIL);
    assert_int_equal(record_parse(text, strlen(text), &r, &what), 0);
    record_free(r);
    text[strlen(text) - strlen(TAIL)] = '\0';
    (void)snprintf(text + strlen(text), 100, "\"kz\":1,%s", TAIL);
    assert_int_equal(record_parse(text, strlen(text), &r, &what), TEKD_EFORMAT);
    assert_string_equal(what, "too many fields");
}

/* Builds the record anew out of what was read, of the fields whose key is one letter. */
static void write_again(const struct record *r, struct buf *out)
{
    AUTO(record) struct record *again = fresh(record_event(r));
    const char *t = record_get_str(r, "t");
    char key[2] = "a";
    uint64_t seq = 0, num = 0;
    int64_t t_us = 0;
    bool flag = false;

    for (; key[0] <= 'z'; key[0]++) {
        if (strchr("tv", key[0]))
            continue;
        if (record_get_str(r, key))
            record_str(again, key, record_get_str(r, key));
        if (record_get_int(r, key, &num))
            record_int(again, key, num);
        if (record_get_bool(r, key, &flag))
            record_bool(again, key, flag);
    }
    assert_true(record_get_int(r, "seq", &seq));
    assert_int_equal(enc_time_read(t, strlen(t), &t_us), 0);
    assert_int_equal(record_encode(again, seq, t_us, record_get_str(r, "inst"), out), 0);
}

/* Whatever is accepted is what record_encode() writes: two octets changed at random, often. */
static void record_parse__accepts_nothing_that_is_written_otherwise(void **state)
{
    static const char whole[] = HEAD "\"k\":\"a\\nb\",\"n\":12,\"o\":true," TAIL;
    uint8_t random[4];
    int accepted = 0;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        char text[sizeof whole];
        AUTO(record) struct record *r = NULL;
        AUTO(buf) struct buf *b = NULL;
        const char *what;

        memcpy(text, whole, sizeof whole);
        assert_int_equal(RAND_bytes(random, sizeof random), 1);
        text[random[0] % (sizeof whole - 1)] = (char)random[1];
        text[random[2] % (sizeof whole - 1)] = (char)random[3];
        if (record_parse(text, sizeof whole - 1, &r, &what) < 0 ||
            !record_event_known(record_event(r)) || record_has(r, "_"))
            continue;
        assert_int_equal(buf_new(RECORD_MAX, &b), 0);
        write_again(r, b);
        assert_int_equal(buf_len(b), sizeof whole - 1);
        assert_memory_equal(buf_data(b), text, sizeof whole - 1);
        accepted++;
    }
    assert_true(accepted > 0);
}

static void record_violation__names_the_field_that_is_missing(void **state)
{
    AUTO(record) struct record *r = fresh("tek.destroyed");
    AUTO(record) struct record *hash = fresh("log.signkey");
    AUTO(record) struct record *ref = fresh("answer.sent");

    (void)state;
    assert_string_equal(record_violation(r), "keyid");
    record_str(r, "keyid", "k");
    assert_string_equal(record_violation(r), "actor");
    record_str(r, "actor", "a");
    assert_null(record_violation(r));

    record_str(hash, "key", "AA");
    assert_string_equal(record_violation(hash), "key");

    record_str(ref, "ref", "1/02");
    assert_string_equal(record_violation(ref), "ref");
}

static void record_violation__takes_optional_fields_of_their_kind_only(void **state)
{
    AUTO(record) struct record *without = fresh("log.started");
    AUTO(record) struct record *wrong = fresh("log.started");

    (void)state;
    record_str(without, "version", "1");
    record_int(without, "heartbeat", 300);
    record_str(without, "config", HASH_A);
    assert_null(record_violation(without));
    record_str(wrong, "version", "1");
    record_int(wrong, "heartbeat", 300);
    record_str(wrong, "config", HASH_A);
    record_str(wrong, "window", "604800");
    assert_string_equal(record_violation(wrong), "window");
}

static void record_event_known__has_the_table(void **state)
{
    (void)state;
    assert_true(record_event_known("request.answered"));
    assert_true(record_event_known("tls.refused"));
    assert_false(record_event_known("request.answer"));
    assert_false(record_event_known(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_encode__writes_sorted_canonical_octets),
        cmocka_unit_test(record_encode__of_an_empty_record),
        cmocka_unit_test(record_encode__escapes_as_rfc_8785),
        cmocka_unit_test(record_encode__keeps_what_is_in_the_buffer),
        cmocka_unit_test(record_encode__takes_exactly_the_limit_and_no_more),
        cmocka_unit_test(record_encode__refuses_a_seq_that_json_cannot_hold),
        cmocka_unit_test(record_encode__takes_the_longest_content_id),
        cmocka_unit_test(record_strn__marks_text_that_cannot_be_a_value),
        cmocka_unit_test(record_int__marks_what_json_cannot_hold),
        cmocka_unit_test(record_strn__marks_values_that_are_too_long),
        cmocka_unit_test(record_str__marks_more_fields_than_there_may_be),
        cmocka_unit_test(record_str__aborts_on_keys_that_break_the_contract),
        cmocka_unit_test(record_parse__gives_back_every_field),
        cmocka_unit_test(record_parse__refuses_all_but_the_canonical_octets),
        cmocka_unit_test(record_parse__refuses_other_values),
        cmocka_unit_test(record_parse__refuses_what_lacks_a_field_of_every_record),
        cmocka_unit_test(record_parse__refuses_every_truncation),
        cmocka_unit_test(record_parse__refuses_what_is_over_the_limit),
        cmocka_unit_test(record_parse__refuses_too_many_fields),
        cmocka_unit_test(record_parse__accepts_nothing_that_is_written_otherwise),
        cmocka_unit_test(record_violation__names_the_field_that_is_missing),
        cmocka_unit_test(record_violation__takes_optional_fields_of_their_kind_only),
        cmocka_unit_test(record_event_known__has_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
