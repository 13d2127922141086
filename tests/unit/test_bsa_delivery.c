/* What a BSA does with a Key Delivery: check, write, remember, confirm, in this order. */
#include "bsa.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

/* RFC 3394 section 4.3, KEK 00 01 .. 1f. */
#define TEK_HEX  "00112233445566778899aabbccddeeff\n"
#define DATA     "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"
#define DATA_192 "A8F9BC1612C68B3FF6E6F4FBE30E71E4769C8B80A32CB8958CD5D17D6B254DA1"
#define JSON     "application/json"

#define DELIVERY(id, data)                                                                         \
    "{\"Tag\":3,\"MessageID\":\"" id "\",\"ContentID\":\"urn:x:news\",\"Destination\":\"bsa-1\","  \
    "\"Source\":\"bsm\",\"Data\":\"" data "\"}"
#define KEY_FILE "urn%3Ax%3Anews.tek"

/*
 * What reaches the disk, in order: K the key, F its folder, J the journal; each may fail.
 */
static char order[32];
static char fails;
static const struct delivery_rules *watched;

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

static int sync_as(char what, int fd, int (*real)(int fd))
{
    size_t n = strlen(order);

    if (watched == NULL)
        return real(fd);
    assert_true(n + 1 < sizeof(order));
    order[n] = what;
    order[n + 1] = '\0';
    if (what != fails)
        return real(fd);
    errno = EIO;
    return -1;
}

int __wrap_fsync(int fd)
{
    char path[64], target[256] = "";

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    assert_true(readlink(path, target, sizeof(target) - 1) > 0);
    return sync_as(strstr(target, ".tek.") != NULL ? 'K' : 'F', fd, __real_fsync);
}

int __wrap_fdatasync(int fd)
{
    return sync_as('J', fd, __real_fdatasync);
}

/* ---- one BSA with a folder and a journal ----------------------------------------------------- */

struct bsa {
    char dir[32], keys[64], journal_path[64];
    struct secret *kek;
    struct delivery_rules rules;
    struct delivery d;
};

static int set_up(void **state)
{
    struct bsa *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    (void)snprintf(b->dir, sizeof(b->dir), "/tmp/tek-bsa-take-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    (void)snprintf(b->keys, sizeof(b->keys), "%s/keys", b->dir);
    (void)snprintf(b->journal_path, sizeof(b->journal_path), "%s/journal", b->dir);
    assert_int_equal(mkdir(b->keys, 0700), 0);
    assert_int_equal(secret_new(32, &b->kek), 0);
    for (uint8_t i = 0; i < 32; i++)
        secret_get(b->kek)[i] = i;
    b->rules = (struct delivery_rules){.terms = {.bsa = "bsa-1", .bsm = "bsm", .kek = b->kek},
                                       .out = b->keys};
    assert_int_equal(journal_open(b->journal_path, &b->rules.journal), 0);
    order[0] = fails = '\0';
    watched = &b->rules;
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bsa *b = *state;
    char path[128];

    watched = NULL;
    delivery_clear(&b->d);
    journal_free(b->rules.journal);
    secret_free(b->kek);
    (void)snprintf(path, sizeof(path), "%s/%s", b->keys, KEY_FILE);
    (void)unlink(path);
    (void)unlink(b->journal_path);
    assert_int_equal(rmdir(b->keys), 0); /* nothing else was left there */
    assert_int_equal(rmdir(b->dir), 0);
    free(b);
    return 0;
}

static void take(struct bsa *b, enum check_kind kind, const char *body)
{
    const struct check_subject subject = {.kind = kind,
                                          .terms = &b->rules.terms,
                                          .journal = b->rules.journal,
                                          .status = 200,
                                          .content_type = JSON,
                                          .reason = "",
                                          .body = (const uint8_t *)body,
                                          .body_len = strlen(body)};

    delivery_clear(&b->d);
    order[0] = '\0';
    delivery_take(&b->rules, &subject, &b->d);
}

/* What the key's file has; "" if there is none. */
static const char *key_file(const struct bsa *b, char text[static 128])
{
    char path[128];
    ssize_t n = 0;
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", b->keys, KEY_FILE);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, 127);
        assert_true(n >= 0);
        assert_int_equal(close(fd), 0);
    }
    text[n] = '\0';
    return text;
}

/* The Confirmation has these values; NULL: the member is not there. */
static void assert_confirmation(const struct bsa *b, const char *message_id, int status,
                                const char *content_id)
{
    json_t *doc = json_loadb(b->d.confirmation.octets, b->d.confirmation.len, 0, NULL);

    assert_non_null(doc);
    assert_int_equal(json_integer_value(json_object_get(doc, "Tag")), 4);
    assert_string_equal(json_string_value(json_object_get(doc, "MessageID")), message_id);
    assert_int_equal(json_integer_value(json_object_get(doc, "Status")), status);
    if (content_id == NULL) {
        assert_int_equal(json_object_size(doc), 3);
    } else {
        assert_string_equal(json_string_value(json_object_get(doc, "ContentID")), content_id);
        assert_string_equal(json_string_value(json_object_get(doc, "Source")), "bsa-1");
        assert_string_equal(json_string_value(json_object_get(doc, "Destination")), "bsm");
    }
    json_decref(doc);
}

static void delivery_take__writes_then_remembers(void **state)
{
    struct bsa *b = *state;
    char text[128];

    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_int_equal(b->d.error, 0);
    assert_int_equal(b->d.http, 200);
    assert_string_equal(order, "KFJ");
    assert_string_equal(key_file(b, text), TEK_HEX);
    assert_int_equal(journal_find(b->rules.journal, &b->d.result.message), JOURNAL_SAME);
    assert_confirmation(b, "m-1", 0, "urn:x:news");
}

static void delivery_take__confirms_a_repetition_and_no_more(void **state)
{
    struct bsa *b = *state;
    char text[128];

    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    take(b, CHECK_PUSHED, DELIVERY("m-2", DATA_192));
    assert_int_equal(b->d.error, 0);
    assert_int_equal(strlen(key_file(b, text)), 49);
    /* the first again: the newer key stays */
    take(b, CHECK_COLLECTED, DELIVERY("m-1", DATA));
    assert_int_equal(b->d.error, 0);
    assert_true(b->d.result.repeated);
    assert_string_equal(order, "");
    assert_null(b->d.path);
    assert_int_equal(strlen(key_file(b, text)), 49);
    assert_confirmation(b, "m-1", 0, "urn:x:news");
}

static void delivery_take__refuses_another_key_under_a_message_id(void **state)
{
    struct bsa *b = *state;
    char text[128];

    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA_192));
    assert_true(b->d.error < 0);
    assert_string_equal(b->d.why.check, "repetition");
    assert_confirmation(b, "m-1", 1, "urn:x:news");
    assert_string_equal(key_file(b, text), TEK_HEX);
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_int_equal(b->d.error, 0);
}

/* A step that fails ends it: nothing behind it is done, Status is 1, and a repetition is new. */
static void delivery_take__confirms_nothing_that_is_not_on_the_disk(void **state)
{
    static const struct {
        char fails;
        const char *order, *step;
    } cases[] = {{'K', "K", "out"}, {'F', "KF", "out"}, {'J', "KFJ", "journal"}};
    struct bsa *b = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        fails = cases[i].fails;
        take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
        assert_true(b->d.error < 0);
        assert_string_equal(order, cases[i].order);
        assert_string_equal(b->d.why.check, cases[i].step);
        assert_string_equal(b->d.why.found, "Input/output error");
        assert_int_equal(b->d.http, 200);
        assert_confirmation(b, "m-1", 1, "urn:x:news");
        assert_int_equal(journal_find(b->rules.journal, &b->d.result.message), JOURNAL_NEW);
    }
}

static void delivery_take__answers_what_is_none_by_http(void **state)
{
    struct bsa *b = *state;
    char text[128];

    take(b, CHECK_PUSHED, "{\"Tag\":3}");
    assert_true(b->d.error < 0);
    assert_int_equal(b->d.http, 400);
    assert_int_equal(b->d.confirmation.len, 0);
    take(b, CHECK_PUSHED, "{\"Tag\":4,\"MessageID\":\"m-1\",\"Status\":0}");
    assert_int_equal(b->d.http, 400);
    assert_int_equal(b->d.confirmation.len, 0);
    assert_string_equal(order, "");
    assert_string_equal(key_file(b, text), "");
}

static void delivery_take__plays_a_bsa_that_refuses(void **state)
{
    struct bsa *b = *state;
    char text[128];

    b->rules.status = CP3_STATUS_REFUSED;
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_int_equal(b->d.error, 0);
    assert_confirmation(b, "m-1", 1, "urn:x:news");
    assert_string_equal(order, "");
    assert_string_equal(key_file(b, text), "");
    /* and thinks better of it */
    b->rules.status = CP3_STATUS_OK;
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_false(b->d.result.repeated);
    assert_confirmation(b, "m-1", 0, "urn:x:news");
    assert_string_equal(key_file(b, text), TEK_HEX);
}

static void delivery_take__confirms_in_the_efficient_form(void **state)
{
    struct bsa *b = *state;

    b->rules.form = CP3_EFFICIENT;
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_confirmation(b, "m-1", 0, NULL);
}

/* It answers what was said, so the names are those of the delivery. */
static void delivery_take__answers_who_is_not_us(void **state)
{
    struct bsa *b = *state;
    json_t *doc;

    b->rules.terms.bsa = "bsa-2";
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_string_equal(b->d.why.check, "Destination");
    assert_confirmation(b, "m-1", 1, "urn:x:news");
    b->rules.terms.bsa = "bsa-1";
    b->rules.terms.bsm = "another";
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_string_equal(b->d.why.check, "Source");
    doc = json_loadb(b->d.confirmation.octets, b->d.confirmation.len, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(doc, "Destination")), "bsm");
    json_decref(doc);
}

static void delivery_take__works_without_a_folder(void **state)
{
    struct bsa *b = *state;

    b->rules.out = NULL;
    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    assert_int_equal(b->d.error, 0);
    assert_string_equal(order, "J");
    assert_null(b->d.path);
}

static void delivery_describe__tells_all_but_the_key(void **state)
{
    static const char *const members[] = {"event",    "message_id", "content_id",  "status", "form",
                                          "repeated", "wrap",       "check_value", "bits",   "out"};
    struct bsa *b = *state;
    json_t *doc;
    char *text;

    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA));
    doc = delivery_describe(&b->d, &b->rules.terms);
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        assert_non_null(json_object_get(doc, members[i]));
    assert_int_equal(json_object_size(doc), ARRAY_SIZE(members));
    assert_string_equal(json_string_value(json_object_get(doc, "check_value")), "fde4fb");
    text = json_dumps(doc, 0);
    assert_null(strstr(text, "00112233"));
    free(text);
    json_decref(doc);

    take(b, CHECK_PUSHED, DELIVERY("m-1", DATA_192));
    doc = delivery_describe(&b->d, &b->rules.terms);
    assert_string_equal(json_string_value(json_object_get(doc, "failed_check")), "repetition");
    assert_int_equal(json_integer_value(json_object_get(doc, "status")), 1);
    assert_null(json_object_get(doc, "check_value"));
    json_decref(doc);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(delivery_take__writes_then_remembers),
        TEST(delivery_take__confirms_a_repetition_and_no_more),
        TEST(delivery_take__refuses_another_key_under_a_message_id),
        TEST(delivery_take__confirms_nothing_that_is_not_on_the_disk),
        TEST(delivery_take__answers_what_is_none_by_http),
        TEST(delivery_take__plays_a_bsa_that_refuses),
        TEST(delivery_take__confirms_in_the_efficient_form),
        TEST(delivery_take__answers_who_is_not_us),
        TEST(delivery_take__works_without_a_folder),
        TEST(delivery_describe__tells_all_but_the_key),
    };

    return cmocka_run_group_tests_name("bsa_delivery", tests, NULL, NULL);
}
