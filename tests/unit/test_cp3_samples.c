/*
 * Every sample of tests/data/cp3: ok_* are read, written and read again, bad_* are not read.
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

static void read_sample(const char *path, struct cp3_message *m)
{
    struct cp3_error err;
    size_t len;
    char *body = fixture_file(path, &len);

    if (cp3_read(reader, fixture_media(path), body, len, m, &err) < 0)
        fail_msg("%s: %u:%u %s: %s", path, err.line, err.column, err.element, err.reason);
    free(body);
}

/* Written in that medium and form, read again, equal; valid by the schema if it is XML. */
static void write_and_read(const struct cp3_message *m, enum cp3_media media, enum cp3_form form)
{
    char out[CP3_WRITTEN_MAX];
    struct cp3_message again;
    size_t len;

    assert_int_equal(cp3_write(media, form, m, out, sizeof(out), &len), 0);
    if (media == CP3_XML)
        assert_true(fixture_is_valid(out, len));
    assert_int_equal(cp3_read(reader, media, out, len, &again, NULL), 0);
    assert_int_equal(again.form, form);
    assert_true(cp3_equal(m, &again, form));
}

static void cp3_read__takes_every_ok_sample_and_what_is_written_of_it(void **state)
{
    struct fixture_samples samples;
    struct cp3_message m;

    (void)state;
    fixture_samples_get("ok_*", &samples);
    assert_true(samples.count >= 16);
    for (size_t i = 0; i < samples.count; i++) {
        read_sample(samples.paths[i], &m);
        write_and_read(&m, CP3_XML, m.form);
        write_and_read(&m, CP3_JSON, m.form);
        if (m.tag == CP3_RESPONSE || m.tag == CP3_CONFIRMATION)
            write_and_read(&m, CP3_XML, CP3_EFFICIENT);
    }
    fixture_samples_free(&samples);
}

static void fixture_is_valid__agrees_about_the_samples(void **state)
{
    struct fixture_samples samples;

    (void)state;
    fixture_samples_get("*.xml", &samples);
    for (size_t i = 0; i < samples.count; i++) {
        const char *path = samples.paths[i];
        bool ok = strstr(path, "/ok_") != NULL && strstr(path, "notxsd") == NULL;
        size_t len;
        char *body = fixture_file(path, &len);

        assert_int_equal(fixture_is_valid(body, len), ok || strstr(path, "passes_xsd") != NULL);
        free(body);
    }
    fixture_samples_free(&samples);
}

static const struct {
    const char *sample, *element, *reason;
    unsigned line;
    int tag;
    const char *message_id;
} bad[] = {
    {"bad_control_character.json", "MessageID", "holds a control character", 1, 1, ""},
    {"bad_delivery_no_data.xml", "Data", "missing", 2, 3, "d"},
    {"bad_duplicate_member.json", "MessageID", "repeated", 1, 1, ""},
    {"bad_half_full.json", "Destination",
     "missing, though others of ContentID, Destination, Source are there", 1, 4, "d"},
    {"bad_half_full.xml", "Destination",
     "missing, though others of ContentID, Destination, Source are there", 2, 4, "d"},
    {"bad_messageid_over_255_octets_passes_xsd.xml", "MessageID", "longer than 255 octets", 2, 1,
     ""},
    {"bad_no_contentid.xml", "ContentID", "missing", 2, 1, "m"},
    {"bad_no_messageid.xml", "MessageID", "missing", 2, 1, ""},
    {"bad_no_namespace.xml", "KeyRequest", "not a message of namespace " CP3_NAMESPACE, 2, 0, ""},
    {"bad_short_data.xml", "Data", "not 24 to 512 octets", 2, 3, "d"},
    {"bad_status_0_without_data_passes_xsd.xml", "Data", "missing, though Status is 0", 2, 2, "m"},
    {"bad_status_1_with_data_passes_xsd.xml", "Data", "given, though Status is 1", 2, 2, "m"},
    {"bad_status_2.xml", "Status", "not an integer from 0 to 1", 2, 4, "d"},
    {"bad_tag_mismatch.xml", "Tag", "3, but KeyRequest has 1", 2, 0, "m-0001"},
    {"bad_tag_string.json", "Tag", "not an integer from 1 to 4", 1, 0, "m"},
};

static void check_bad(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    struct cp3_message m;
    struct cp3_error err;
    size_t i, len;
    char *body = fixture_file(path, &len);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]) && strcmp(bad[i].sample, name) != 0;)
        i++;
    if (i == sizeof(bad) / sizeof(bad[0]))
        fail_msg("%s is not expected", name);
    assert_int_equal(cp3_read(reader, fixture_media(path), body, len, &m, &err), CP3_EFORMAT);
    assert_int_equal(err.code, CP3_EFORMAT);
    assert_int_equal(err.line, bad[i].line);
    assert_string_equal(err.element, bad[i].element);
    assert_string_equal(err.reason, bad[i].reason);
    assert_int_equal(err.tag, bad[i].tag);
    assert_string_equal(err.message_id, bad[i].message_id);
    free(body);
}

static void cp3_read__says_what_is_wrong_with_every_bad_sample(void **state)
{
    struct fixture_samples samples;

    (void)state;
    fixture_samples_get("bad_*", &samples);
    assert_int_equal(samples.count, sizeof(bad) / sizeof(bad[0]));
    for (size_t i = 0; i < samples.count; i++)
        check_bad(samples.paths[i]);
    fixture_samples_free(&samples);
}

static bool is_printable(const char *text)
{
    size_t i = 0;

    while (text[i] >= 0x20 && text[i] < 0x7F)
        i++;
    return i > 0 && text[i] == '\0';
}

/* The body up to the last octet that is needed, cut anywhere, is no XML and no JSON. */
static void check_truncated(const char *path)
{
    struct cp3_message m;
    struct cp3_error err;
    size_t len;
    char *body = fixture_file(path, &len);

    while (body[len - 1] == '\n')
        len--;
    for (size_t cut = 0; cut < len; cut++) {
        char *exact = malloc(cut + 1); /* no octet behind: sanitizers see a read too far */

        assert_non_null(exact);
        memcpy(exact, body, cut);
        assert_int_equal(cp3_read(reader, fixture_media(path), exact, cut, &m, &err), CP3_ESYNTAX);
        assert_true(err.line >= 1);
        assert_true(is_printable(err.element));
        assert_true(is_printable(err.reason));
        free(exact);
    }
    free(body);
}

static void cp3_read__refuses_every_ok_sample_cut_at_every_octet(void **state)
{
    struct fixture_samples samples;

    (void)state;
    fixture_samples_get("ok_*", &samples);
    for (size_t i = 0; i < samples.count; i++)
        check_truncated(samples.paths[i]);
    fixture_samples_free(&samples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cp3_read__takes_every_ok_sample_and_what_is_written_of_it),
        cmocka_unit_test(fixture_is_valid__agrees_about_the_samples),
        cmocka_unit_test(cp3_read__says_what_is_wrong_with_every_bad_sample),
        cmocka_unit_test(cp3_read__refuses_every_ok_sample_cut_at_every_octet),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
