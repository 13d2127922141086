/* tek-bsa request as a whole: what it sends, prints, writes and returns. */
#include "bsa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

#include "bsa_output.h"
#include "bsa_server.h"

/* RFC 3394 section 4.3. */
#define KEK_HEX  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define TEK_HEX  "00112233445566778899aabbccddeeff"
#define DATA     "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"
#define KEY_ID   "01890a5d-ac96-774b-bcce-b302099a8057"
#define TEXT_MAX BSA_OUTPUT_MAX

#define MESSAGE(id, rest)                                                                          \
    "{\"Tag\":2,\"MessageID\":\"" id "\",\"ContentID\":\"urn:x:news\",\"Destination\":\"bsa-1\","  \
    "\"Source\":\"bsm\"," rest "}"
#define GIVEN                                                                                      \
    "\"Status\":0,\"Data\":\"" DATA "\",\"KeyInfo\":{\"keyID\":\"" KEY_ID                          \
    "\",\"kekID\":\"bsa-1/2\",\"wrap\":\"aes-kw\",\"bits\":128}"

/* One run of the program. */
struct run {
    struct bsa_server server;
    char url[64], ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX];
    char kek[BSA_SERVER_PATH_MAX], out[BSA_SERVER_PATH_MAX];
    char answer[TEXT_MAX];
    char printed[TEXT_MAX], complained[TEXT_MAX];
};

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static int set_up(void **state)
{
    struct run *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    (void)bsa_server_path("ca", "crt", r->ca);
    (void)bsa_server_path("client", "crt", r->cert);
    (void)bsa_server_path("client", "key", r->key);
    (void)bsa_server_path("bsa-1", "kek", r->kek);
    (void)bsa_server_path("out", "tek", r->out);
    write_file(r->kek, KEK_HEX "\n", 0600);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct run *r = *state;

    (void)unlink(r->kek);
    (void)unlink(r->out);
    free(r);
    return 0;
}

/* request_run() with the usual options; a later one of more stands for the same of these. */
static int run(struct run *r, const char *const *more)
{
    const char *usual[] = {"--url",      r->url,    "--ca",          r->ca,   "--cert",
                           r->cert,      "--key",   r->key,          "--kek", r->kek,
                           "--source",   "bsa-1",   "--destination", "bsm",   "--content",
                           "urn:x:news", "--media", "json",          NULL};

    return bsa_output_run(request_run, usual, more, r->printed, r->complained);
}

/* The same against a server that gives this status line, these headers and this body. */
static int run_against(struct run *r, const char *status, const char *headers, const char *body,
                       const char *const *more)
{
    int e;

    (void)snprintf(
        r->answer, sizeof(r->answer),
        "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s", status,
        headers, strlen(body), body);
    bsa_server_start(&r->server, "server", r->answer);
    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:%u/cp3", r->server.port);
    e = run(r, more);
    bsa_server_stop(&r->server);
    return e;
}

#define ARGS(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
#define ASK "--message-id", "m-1"

static void request_run__prints_what_the_key_is(void **state)
{
    struct run *r = *state;

    assert_int_equal(run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN), ARGS(ASK)), BSA_DONE);
    assert_string_equal(r->printed, "message_id   m-1\n"
                                    "content_id   urn:x:news\n"
                                    "http_status  200\n"
                                    "status       0\n"
                                    "form         full\n"
                                    "key_id       " KEY_ID "\n"
                                    "kek_id       bsa-1/2\n"
                                    "wrap         aes-kw\n"
                                    "bits         128\n"
                                    "check_value  fde4fb\n");
    assert_string_equal(r->complained, "");
}

static void request_run__prints_a_document(void **state)
{
    struct run *r = *state;
    const char *key_id, *check_value;
    json_int_t bits;
    json_t *doc;

    assert_int_equal(run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN), ARGS(ASK, "--json")),
                     BSA_DONE);
    doc = json_loads(r->printed, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(json_unpack(doc, "{s:s, s:s, s:I}", "key_id", &key_id, "check_value",
                                 &check_value, "bits", &bits),
                     0);
    assert_string_equal(key_id, KEY_ID);
    assert_string_equal(check_value, "fde4fb");
    assert_int_equal(bits, 128);
    assert_null(json_object_get(doc, "out"));
    json_decref(doc);
}

/* What it sends, by the server's own eyes. */
static void request_run__sends_a_key_request(void **state)
{
    struct run *r = *state;
    json_t *sent;
    const char *body;
    json_int_t tag, version;

    (void)run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN), ARGS(ASK));
    body = strstr(r->server.seen, "\r\n\r\n");
    assert_non_null(body);
    sent = json_loads(body + 4, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(json_unpack(sent, "{s:I, s:I}", "Tag", &tag, "Version", &version), 0);
    assert_int_equal(tag, 1);
    assert_int_equal(version, 1);
    assert_string_equal(json_string_value(json_object_get(sent, "MessageID")), "m-1");
    assert_string_equal(json_string_value(json_object_get(sent, "ContentID")), "urn:x:news");
    assert_string_equal(json_string_value(json_object_get(sent, "Source")), "bsa-1");
    assert_string_equal(json_string_value(json_object_get(sent, "Destination")), "bsm");
    assert_non_null(json_object_get(sent, "Time"));
    json_decref(sent);
}

static void request_run__makes_a_message_id_of_its_own(void **state)
{
    static const char start[] = "tek-bsa: MessageID: expected ";
    struct run *r = *state;
    char first[37];

    for (int i = 0; i < 2; i++) {
        assert_int_equal(run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN), ARGS("--json")),
                         BSA_REFUSED);
        assert_memory_equal(r->complained, start, sizeof(start) - 1);
        /* version 7 */
        assert_int_equal(r->complained[sizeof(start) - 1 + 14], '7');
        if (i == 0)
            memcpy(first, r->complained + sizeof(start) - 1, sizeof(first));
    }
    assert_memory_not_equal(first, r->complained + sizeof(start) - 1, 36);
}

static void request_run__writes_the_tek_where_it_is_told(void **state)
{
    struct run *r = *state;
    char text[TEXT_MAX] = "";
    struct stat st;
    FILE *f;

    write_file(r->out, "what was there before, and longer than a TEK in hexadecimal digits", 0644);
    assert_int_equal(
        run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN), ARGS(ASK, "--out", r->out)), BSA_DONE);
    f = fopen(r->out, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
    assert_int_equal(fclose(f), 0);
    assert_string_equal(text, TEK_HEX "\n");
    assert_int_equal(stat(r->out, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    /* and nowhere else */
    assert_null(strstr(r->printed, TEK_HEX));
    assert_null(strstr(r->complained, TEK_HEX));
}

static void request_run__says_when_it_cannot_write_the_tek(void **state)
{
    struct run *r = *state;

    assert_int_equal(
        run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN), ARGS(ASK, "--out", "/nowhere/tek")),
        BSA_REFUSED);
    assert_string_equal(r->complained, "tek-bsa: --out /nowhere/tek: No such file or directory\n");
    assert_string_equal(r->printed, "");
}

/* A document too; and without the MessageID the answer could not be had again. */
static void request_run__tells_how_to_get_the_answer_again(void **state)
{
    static const char again[] = "tek-bsa: to ask for the same answer again: --message-id ";
    struct run *r = *state;
    const char *check, *found, *id, *line;
    json_t *doc;

    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:1/cp3");
    assert_int_equal(run(r, ARGS("--json")), BSA_UNREACHABLE);
    line = strstr(r->complained, again);
    assert_non_null(line);
    doc = json_loads(r->printed, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(json_unpack(doc, "{s:s}", "message_id", &id), 0);
    assert_int_equal(strlen(id), 36);
    assert_memory_equal(line + sizeof(again) - 1, id, 36);
    json_decref(doc);

    assert_int_equal(run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN),
                                 ARGS(ASK, "--json", "--out", "/nowhere/tek")),
                     BSA_REFUSED);
    assert_null(strstr(r->complained, again)); /* who chose it knows it */
    doc = json_loads(r->printed, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(json_unpack(doc, "{s:s, s:s}", "failed_check", &check, "found", &found), 0);
    assert_string_equal(check, "out");
    assert_string_equal(found, "No such file or directory");
    json_decref(doc);
}

/* Each way to a no: one line that says why, its exit code, and nothing written. */
static const struct {
    const char *status, *headers, *body;
    int exit;
    const char *line;
} refusals[] = {
    {"200 OK", "CP3-Reason: not-entitled\r\n", MESSAGE("m-1", "\"Status\":1"), BSA_REFUSED,
     "tek-bsa: Status: expected 0, found 1; CP3-Reason: not-entitled\n"},
    {"200 OK", "", MESSAGE("m-2", GIVEN), BSA_REFUSED,
     "tek-bsa: MessageID: expected m-1, found m-2\n"},
    {"403 Forbidden", "", "{}", BSA_REFUSED, "tek-bsa: HTTP status: expected 200, found 403 {}\n"},
    {"503 Busy", "CP3-Reason: busy\r\nRetry-After: 1\r\n", "{}", BSA_UNREACHABLE,
     "tek-bsa: HTTP status: expected 200, found 503 {}; CP3-Reason: busy\n"},
};

static void request_run__says_why_it_was_refused(void **state)
{
    struct run *r = *state;

    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        assert_int_equal(run_against(r, refusals[i].status, refusals[i].headers, refusals[i].body,
                                     ARGS(ASK, "--out", r->out)),
                         refusals[i].exit);
        assert_string_equal(r->complained, refusals[i].line);
        assert_string_equal(r->printed, "");
        assert_int_equal(access(r->out, F_OK), -1);
    }
}

static void request_run__documents_a_refusal_too(void **state)
{
    struct run *r = *state;
    const char *check, *reason;
    json_int_t http_status;
    json_t *doc;

    assert_int_equal(run_against(r, "200 OK", "CP3-Reason: key-gone\r\n",
                                 MESSAGE("m-1", "\"Status\":1"), ARGS(ASK, "--json")),
                     BSA_REFUSED);
    doc = json_loads(r->printed, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(json_unpack(doc, "{s:s, s:s, s:I}", "failed_check", &check, "reason", &reason,
                                 "http_status", &http_status),
                     0);
    assert_string_equal(check, "Status");
    assert_string_equal(reason, "key-gone");
    assert_int_equal(http_status, 200);
    json_decref(doc);
}

static void request_run__refuses_a_key_for_somebody_else(void **state)
{
    struct run *r = *state;

    write_file(r->kek,
               "ff"
               "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
               0600);
    assert_int_equal(run_against(r, "200 OK", "", MESSAGE("m-1", GIVEN), ARGS(ASK)), BSA_REFUSED);
    assert_string_equal(
        r->complained,
        "tek-bsa: Data: expected Data that unwraps (aes-kw) with our KEK, found Data "
        "wrapped under another key, or altered\n");
}

static void request_run__tells_that_nobody_is_there(void **state)
{
    struct run *r = *state;

    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:1/cp3");
    assert_int_equal(run(r, ARGS(ASK)), BSA_UNREACHABLE);
    assert_non_null(strstr(
        r->complained, "tek-bsa: HTTPS: expected an answer from https://127.0.0.1:1/cp3, found "));
    assert_ptr_equal(strchr(r->complained, '\n'), r->complained + strlen(r->complained) - 1);
}

static void request_run__tells_that_it_was_cut_off(void **state)
{
    struct run *r = *state;
    int e;

    bsa_server_start_rude(&r->server, "server");
    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:%u/cp3", r->server.port);
    e = run(r, ARGS(ASK));
    bsa_server_stop(&r->server);
    assert_int_equal(e, BSA_UNREACHABLE);
    assert_non_null(strstr(r->complained, "behind the TLS handshake: the server may not take our "
                                          "certificate\n"));
}

/* Nothing is sent: there is no server behind these. */
static void request_run__refuses_what_it_should_not_ask(void **state)
{
    struct run *r = *state;
    char long_id[300];
    const struct {
        const char *option, *value, *line;
    } cases[] = {
        {"--url", "http://127.0.0.1/cp3",
         "tek-bsa: --url: expected https://..., found http://127.0.0.1/cp3\n"},
        {"--media", "yaml", "tek-bsa: --media: expected xml or json, found yaml\n"},
        {"--wrap", "rsa-oaep-sha256",
         "tek-bsa: --wrap: expected aes-kw or aes-kwp, found rsa-oaep-sha256\n"},
        {"--timeout", "0", "tek-bsa: --timeout: expected 1..300, found 0\n"},
        {"--source", long_id, "tek-bsa: --source: expected at most 255 octets, found 299\n"},
        {"--content", "",
         "tek-bsa: an ID is empty, is not UTF-8, or has control characters or blanks at an end\n"},
        {"--message-id", "m\n1",
         "tek-bsa: an ID is empty, is not UTF-8, or has control characters or blanks at an end\n"},
        {"--frobnicate", "1",
         "tek-bsa: request: --frobnicate is no option; see tek-bsa request --help\n"},
    };

    memset(long_id, 'a', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = '\0';
    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:1/cp3");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(run(r, ARGS(cases[i].option, cases[i].value)), BSA_USAGE);
        assert_string_equal(r->complained, cases[i].line);
    }
}

static void request_run__refuses_a_kek_that_others_can_read(void **state)
{
    struct run *r = *state;

    write_file(r->kek, KEK_HEX "\n", 0644);
    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:1/cp3");
    assert_int_equal(run(r, ARGS(ASK)), BSA_REFUSED);
    assert_non_null(strstr(r->complained, "expected a regular file of this user or root with mode "
                                          "0600 or stricter\n"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(request_run__prints_what_the_key_is),
        TEST(request_run__prints_a_document),
        TEST(request_run__sends_a_key_request),
        TEST(request_run__makes_a_message_id_of_its_own),
        TEST(request_run__writes_the_tek_where_it_is_told),
        TEST(request_run__says_when_it_cannot_write_the_tek),
        TEST(request_run__tells_how_to_get_the_answer_again),
        TEST(request_run__says_why_it_was_refused),
        TEST(request_run__documents_a_refusal_too),
        TEST(request_run__refuses_a_key_for_somebody_else),
        TEST(request_run__tells_that_nobody_is_there),
        TEST(request_run__tells_that_it_was_cut_off),
        TEST(request_run__refuses_what_it_should_not_ask),
        TEST(request_run__refuses_a_kek_that_others_can_read),
    };

    return cmocka_run_group_tests_name("bsa_request", tests, bsa_server_make_pki,
                                       bsa_server_remove_pki);
}
