#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "fake_clock.h"
#include "tekd/log.h"

#define SECOND  INT64_C(1000000)
#define UTC     INT64_C(1795353342123456)
#define UTC_TXT "2026-11-22T13:15:42.123456Z"

static int fd = -1;
static char text[1 << 20];

/* Each test starts in a second of its own, with an empty file for the lines. */
static int setup(void **state)
{
    (void)state;
    fd = memfd_create("log", MFD_CLOEXEC);
    fake_clock_advance(10 * SECOND);
    fake_clock_set_utc(UTC);
    /* A memfd's offset, unlike a regular file's, is not locked between writers. */
    return fd < 0 ? -1 : fcntl(fd, F_SETFL, O_APPEND);
}

static int teardown(void **state)
{
    (void)state;
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_INFO);
    return close(fd);
}

/* All that was written so far. */
static const char *lines(void)
{
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    assert_true(n >= 0);
    text[n] = '\0';
    return text;
}

static size_t count_lines(void)
{
    size_t n = 0;

    for (const char *p = lines(); (p = strchr(p, '\n')) != NULL; p++)
        n++;
    return n;
}

static void forget_lines(void)
{
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
}

static void log_write__goes_to_stderr_before_log_open(void **state)
{
    int saved = dup(STDERR_FILENO);

    (void)state;
    assert_true(saved >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    log_event(LOG_INFO, "test", "start");
    log_event(LOG_DEBUG, "test", "detail");
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    assert_int_equal(close(saved), 0);
    assert_string_equal(lines(), UTC_TXT " info test event=start\n");
}

static void log_write__is_one_logfmt_line(void **state)
{
    (void)state;
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    log_event(LOG_WARN, "hsm", "worker-restarted", LOG_INT("worker", 2),
              LOG_STR("call", "C_WrapKey"), LOG_STR("none", NULL), LOG_INT("least", INT64_MIN));
    assert_string_equal(lines(), UTC_TXT " warn hsm event=worker-restarted worker=2 call=C_WrapKey "
                                         "none=\"\" least=-9223372036854775808\n");
}

static void log_write__is_one_json_object(void **state)
{
    (void)state;
    log_open(fd, LOG_JSON, LOG_INFO);
    log_event(LOG_ERROR, "hsm", "lost", LOG_INT("worker", 2), LOG_STR("call", "C_WrapKey"),
              LOG_STR("none", NULL), LOG_INT("most", INT64_MAX));
    assert_string_equal(lines(), "{\"time\":\"" UTC_TXT "\",\"level\":\"error\",\"area\":\"hsm\","
                                 "\"event\":\"lost\",\"worker\":2,\"call\":\"C_WrapKey\","
                                 "\"none\":\"\",\"most\":9223372036854775807}\n");
}

static void log_write__holds_back_what_is_below_the_level(void **state)
{
    (void)state;
    log_open(fd, LOG_LOGFMT, LOG_WARN);
    log_event(LOG_INFO, "test", "below");
    log_event(LOG_DEBUG, "test", "below");
    assert_string_equal(lines(), "");
    log_event(LOG_WARN, "test", "at");
    log_event(LOG_ERROR, "test", "above");
    assert_int_equal(count_lines(), 2);
}

static void log_write__keeps_errno(void **state)
{
    (void)state;
    log_open(-1, LOG_LOGFMT, LOG_INFO);
    errno = ENOSPC;
    log_event(LOG_INFO, "test", "errno");
    assert_int_equal(errno, ENOSPC);
}

/* What a value becomes; the two columns are written by hand. */
static const struct {
    const char *value, *logfmt, *json;
} escapes[] = {
    {"plain-1.2:/x", "plain-1.2:/x", "\"plain-1.2:/x\""},
    {"", "\"\"", "\"\""},
    {"a b", "\"a b\"", "\"a b\""},
    {"x=y", "\"x=y\"", "\"x=y\""},
    {"say \"hi\"", "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\""},
    {"a\\b", "\"a\\\\b\"", "\"a\\\\b\""},
    {"a\nb\rc\td", "\"a\\nb\\rc\\td\"", "\"a\\nb\\rc\\td\""},
    {"\x01\x1b[31m\x7f", "\"\\x01\\x1b[31m\\x7f\"", "\"\\u0001\\u001b[31m\\u007f\""},
    {"\xc3\xa9\xf0\x9f\x94\x91", "\xc3\xa9\xf0\x9f\x94\x91", "\"\xc3\xa9\xf0\x9f\x94\x91\""},
    {"\xc2\x85", "\"\\xc2\\x85\"", "\"\\u0085\""},          /* C1: next line */
    {"\xe2\x80\xa8", "\"\\xe2\\x80\\xa8\"", "\"\\u2028\""}, /* line separator */
    {"\xe2\x80\xae", "\"\\xe2\\x80\\xae\"", "\"\\u202e\""}, /* right-to-left override */
    {"\xff", "\"\\xff\"", "\"\\u00ff\""},                   /* never in UTF-8 */
    {"\x80z", "\"\\x80z\"", "\"\\u0080z\""},                /* a tail without head */
    {"\xc3", "\"\\xc3\"", "\"\\u00c3\""},                   /* a head without tail */
    {"\xe2\x82", "\"\\xe2\\x82\"", "\"\\u00e2\\u0082\""},   /* cut off */
    {"\xc0\xaf", "\"\\xc0\\xaf\"", "\"\\u00c0\\u00af\""},   /* not the shortest form */
    {"\xe0\x80\xaf", "\"\\xe0\\x80\\xaf\"", "\"\\u00e0\\u0080\\u00af\""},
    {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\"", "\"\\u00ed\\u00a0\\u0080\""}, /* surrogate */
    {"\xf4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\"", "\"\\u00f4\\u0090\\u0080\\u0080\""},
    {"\xc3\n", "\"\\xc3\\n\"", "\"\\u00c3\\n\""}, /* a bad head hides nothing behind it */
};

static void log_write__escapes_what_peers_send(void **state)
{
    char want[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(escapes); i++) {
        fake_clock_advance(2 * SECOND);
        fake_clock_set_utc(UTC);
        forget_lines();
        log_open(fd, LOG_LOGFMT, LOG_INFO);
        log_event(LOG_INFO, "test", "escape", LOG_STR("v", escapes[i].value));
        (void)snprintf(want, sizeof(want), UTC_TXT " info test event=escape v=%s\n",
                       escapes[i].logfmt);
        assert_string_equal(lines(), want);

        forget_lines();
        log_open(fd, LOG_JSON, LOG_INFO);
        log_event(LOG_INFO, "test", "escape", LOG_STR("v", escapes[i].value));
        (void)snprintf(want, sizeof(want), ",\"event\":\"escape\",\"v\":%s}\n", escapes[i].json);
        assert_non_null(strstr(lines(), want));
    }
}

/* Octets of the escape at p, which must be a whole one. */
static size_t escape_len(const char *p)
{
    assert_int_equal(*p, '\\');
    assert_int_not_equal(p[1], '\0');
    assert_non_null(strchr("\"\\nrtx", p[1]));
    if (p[1] != 'x')
        return 2;
    assert_true(strspn(p + 2, "0123456789abcdef") >= 2);
    return 4;
}

/* As a strict reader of logfmt sees a line: every quote closed, every escape whole. */
static void check_logfmt(const char *p)
{
    bool quoted = false;

    while (*p != '\n') {
        assert_int_not_equal(*p, '\0');
        assert_true(quoted || *p != '\\');
        if (*p == '"') {
            assert_true(quoted ? p[1] == ' ' || p[1] == '\n' : p[-1] == '=');
            quoted = !quoted;
        }
        p += *p == '\\' ? escape_len(p) : 1;
    }
    assert_false(quoted);
    assert_string_equal(p, "\n");
}

static void check_json(const char *line)
{
    json_error_t error;
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, &error);

    if (object == NULL)
        fail_msg("%s: %s", error.text, line);
    assert_true(json_is_object(object));
    json_decref(object);
}

/* Writes one line of n long values made of unit, shifted by some plain characters, and reads it. */
static void try_cut(enum log_format format, const char *unit, size_t shift, size_t n)
{
    static const char *const keys[] = {"a", "b", "c", "d", "e", "f"};
    struct log_field fields[ARRAY_SIZE(keys)];
    char value[2 * LOG_VALUE_MAX];
    size_t len = shift;

    memset(value, 'x', shift);
    for (; len + strlen(unit) < sizeof(value); len += strlen(unit))
        memcpy(value + len, unit, strlen(unit));
    value[len] = '\0';
    for (size_t i = 0; i < n; i++)
        fields[i] = LOG_STR(keys[i], value);
    forget_lines();
    fake_clock_advance(2 * SECOND);
    log_open(fd, format, LOG_INFO);
    log_write(LOG_INFO, "test", "cut", fields, n);
    assert_int_equal(count_lines(), 1);
    assert_true(strlen(text) <= LOG_LINE_MAX);
    if (format == LOG_JSON)
        check_json(text);
    else
        check_logfmt(text);
}

static void try_cuts(const char *unit)
{
    for (size_t shift = 0; shift < 16; shift++) {
        for (size_t n = 1; n <= 6; n++) {
            try_cut(LOG_LOGFMT, unit, shift, n);
            try_cut(LOG_JSON, unit, shift, n);
        }
    }
}

static void log_write__cuts_between_characters_and_escapes(void **state)
{
    static const char *const units[] = {
        "x", " ", "\"", "\\", "\n", "\x01", "\xff", "\xc3\xa9", "\xe2\x80\xa8", "\xf0\x9f\x94\x91"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(units); i++)
        try_cuts(units[i]);
}

static void log_write__cuts_a_value_so_that_others_have_room(void **state)
{
    char value[3 * LOG_LINE_MAX];
    const char *end;

    (void)state;
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    log_event(LOG_INFO, "test", "room", LOG_STR("v", value), LOG_STR("after", "seen"));
    assert_int_equal(strspn(strstr(lines(), " v=") + 3, "x"), LOG_VALUE_MAX);
    end = strstr(text, " after=seen\n");
    assert_non_null(end);
}

static void log_write__leaves_out_whole_fields_behind_the_line_s_end(void **state)
{
    struct log_field fields[600];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        fields[i] = LOG_INT("number", 1234567890);
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    log_write(LOG_INFO, "test", "many", fields, ARRAY_SIZE(fields));
    assert_int_equal(count_lines(), 1);
    assert_true(strlen(text) <= LOG_LINE_MAX);
    assert_true(strlen(text) > LOG_LINE_MAX - 20);
    assert_string_equal(text + strlen(text) - 19, " number=1234567890\n");
}

static void log_write__limits_one_event_and_counts_the_rest(void **state)
{
    (void)state;
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    for (int i = 0; i < LOG_BURST + 5; i++)
        log_event(LOG_INFO, "test", "flood", LOG_INT("i", i));
    assert_int_equal(count_lines(), LOG_BURST);
    fake_clock_advance(SECOND - 1);
    log_event(LOG_INFO, "test", "flood");
    assert_int_equal(count_lines(), LOG_BURST);
    forget_lines();
    fake_clock_advance(1);
    fake_clock_set_utc(UTC);
    log_event(LOG_INFO, "test", "flood", LOG_INT("i", 99));
    assert_string_equal(lines(), UTC_TXT " info test event=flood suppressed=6 i=99\n");
    forget_lines();
    log_event(LOG_INFO, "test", "flood");
    assert_string_equal(lines(), UTC_TXT " info test event=flood\n");
}

static void log_write__limits_each_event_of_each_area_alone(void **state)
{
    (void)state;
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    for (int i = 0; i < LOG_BURST + 1; i++)
        log_event(LOG_INFO, "test", "alone");
    forget_lines();
    log_event(LOG_INFO, "test", "alone");
    assert_string_equal(lines(), "");
    log_event(LOG_INFO, "test", "alone-too");
    log_event(LOG_INFO, "other", "alone");
    log_event(LOG_INFO, "testal", "one");
    assert_int_equal(count_lines(), 3);
}

#define THREADS 4
#define EACH    100

static void *flood(void *arg)
{
    (void)arg;
    for (int i = 0; i < EACH; i++)
        log_event(LOG_INFO, "test", "threads", LOG_STR("text", "two words"));
    return NULL;
}

static void log_write__counts_exactly_and_keeps_lines_whole_across_threads(void **state)
{
    pthread_t threads[THREADS];
    char want[128];

    (void)state;
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, flood, NULL), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(count_lines(), LOG_BURST);
    for (char *p = text, *end; *p != '\0'; p = end + 1) {
        end = strchr(p, '\n');
        *end = '\0';
        assert_string_equal(p, UTC_TXT " info test event=threads text=\"two words\"");
    }
    forget_lines();
    fake_clock_advance(SECOND);
    log_event(LOG_INFO, "test", "threads");
    (void)snprintf(want, sizeof(want), " event=threads suppressed=%d\n",
                   THREADS * EACH - LOG_BURST);
    assert_non_null(strstr(lines(), want));
}

/* The last test: it fills the table, which is never emptied. */
static void log_write__limits_more_events_than_the_table_holds(void **state)
{
    (void)state;
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    for (int i = 0; i < 100 * LOG_BURST; i++) {
        char event[32];
        (void)snprintf(event, sizeof(event), "made-up-%d", i);
        log_event(LOG_INFO, "test", event);
    }
    assert_true(count_lines() >= 200); /* up to the table's size each is an event of its own */
    assert_true(count_lines() <= 256 + LOG_BURST);
    forget_lines();
    log_event(LOG_INFO, "test", "start");
    assert_int_equal(count_lines(), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(log_write__goes_to_stderr_before_log_open),
        TEST(log_write__is_one_logfmt_line),
        TEST(log_write__is_one_json_object),
        TEST(log_write__holds_back_what_is_below_the_level),
        TEST(log_write__keeps_errno),
        TEST(log_write__escapes_what_peers_send),
        TEST(log_write__cuts_between_characters_and_escapes),
        TEST(log_write__cuts_a_value_so_that_others_have_room),
        TEST(log_write__leaves_out_whole_fields_behind_the_line_s_end),
        TEST(log_write__limits_one_event_and_counts_the_rest),
        TEST(log_write__limits_each_event_of_each_area_alone),
        TEST(log_write__counts_exactly_and_keeps_lines_whole_across_threads),
        TEST(log_write__limits_more_events_than_the_table_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
