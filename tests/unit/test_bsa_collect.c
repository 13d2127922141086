/* tek-bsa collect as a whole, against a server that gives what the test says. */
#include "bsa.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bsa_output.h"
#include "bsa_server.h"
#include "tekd/clock.h"

/* RFC 3394 section 4.3. */
#define KEK_HEX "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define TEK_HEX "00112233445566778899aabbccddeeff\n"
#define DATA    "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"
#define ALTERED "65E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"

#define DELIVERY(data)                                                                             \
    "{\"Tag\":3,\"MessageID\":\"m-1\",\"ContentID\":\"urn:x:news\",\"Destination\":\"bsa-1\","     \
    "\"Source\":\"bsm\",\"Data\":\"" data "\"}"
#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
#define NONE "HTTP/1.1 204 No Content\r\n\r\n"

struct run {
    struct bsa_server server;
    char url[64], ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX];
    char kek[BSA_SERVER_PATH_MAX], out[BSA_SERVER_PATH_MAX], tek[2 * BSA_SERVER_PATH_MAX];
    char answer[1024];
    char printed[BSA_OUTPUT_MAX], complained[BSA_OUTPUT_MAX];
};

static int set_up(void **state)
{
    struct run *r = calloc(1, sizeof(*r));
    int fd;

    assert_non_null(r);
    (void)bsa_server_path("ca", "crt", r->ca);
    (void)bsa_server_path("client", "crt", r->cert);
    (void)bsa_server_path("client", "key", r->key);
    (void)bsa_server_path("bsa-1", "kek", r->kek);
    (void)bsa_server_path("keys", "d", r->out);
    (void)snprintf(r->tek, sizeof(r->tek), "%s/%s", r->out, "urn%3Ax%3Anews.tek");
    fd = open(r->kek, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, KEK_HEX, strlen(KEK_HEX)), strlen(KEK_HEX));
    assert_int_equal(close(fd), 0);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct run *r = *state;

    (void)unlink(r->kek);
    (void)unlink(r->tek);
    (void)rmdir(r->out);
    free(r);
    bsa_server_forget_signals();
    return 0;
}

#define ARGS(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static int collect(struct run *r, const char *const *more)
{
    const char *usual[] = {"--url",         r->url, "--ca",  r->ca,  "--cert",   r->cert,
                           "--key",         r->key, "--kek", r->kek, "--source", "bsa-1",
                           "--destination", "bsm",  "--out", r->out, NULL};

    return bsa_output_run(collect_run, usual, more, r->printed, r->complained);
}

/* The first answer is to the question, the second to the confirmation. */
static int collect_from(struct run *r, const char *first, const char *second,
                        const char *const *more)
{
    int e;

    if (second != NULL)
        bsa_server_start_two(&r->server, first, second);
    else
        bsa_server_start(&r->server, "server", first);
    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:%u/cp3", r->server.port);
    e = collect(r, more);
    bsa_server_stop(&r->server);
    return e;
}

static const char *delivery(struct run *r, const char *body)
{
    (void)snprintf(r->answer, sizeof(r->answer), HEAD "%zu\r\n\r\n%s", strlen(body), body);
    return r->answer;
}

static void collect_run__takes_a_delivery_and_confirms_it(void **state)
{
    struct run *r = *state;
    char text[64] = "";
    int fd;

    assert_int_equal(
        collect_from(r, delivery(r, DELIVERY(DATA)), NONE, ARGS("--once", "--wait", "7")),
        BSA_DONE);
    assert_string_equal(r->complained, "");
    assert_memory_equal(r->server.earlier, "GET /cp3/deliveries?wait=7 HTTP/1.1\r\n", 37);
    assert_memory_equal(r->server.seen, "POST /cp3 HTTP/1.1\r\n", 20);
    assert_non_null(strstr(r->server.seen, "{\"Tag\":4,\"Version\":1,\"MessageID\":\"m-1\","));
    assert_non_null(strstr(r->server.seen, "\"Status\":0"));
    assert_memory_equal(r->printed, "delivery message_id=m-1 content_id=urn:x:news status=0 ", 55);
    assert_non_null(strstr(r->printed, " accepted=204\n"));
    fd = open(r->tek, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_int_equal(close(fd), 0);
    assert_string_equal(text, TEK_HEX);
}

static void collect_run__refuses_what_is_wrong(void **state)
{
    struct run *r = *state;

    assert_int_equal(collect_from(r, delivery(r, DELIVERY(ALTERED)), NONE,
                                  ARGS("--once", "--form", "efficient")),
                     BSA_REFUSED);
    assert_non_null(
        strstr(r->server.seen, "\r\n\r\n{\"Tag\":4,\"MessageID\":\"m-1\",\"Status\":1}"));
    assert_string_equal(r->complained,
                        "tek-bsa: Data: expected Data that unwraps (aes-kw) with our KEK, found "
                        "Data wrapped under another key, or altered\n");
    assert_int_equal(access(r->tek, F_OK), -1);
}

static void collect_run__says_that_a_confirmation_was_not_taken(void **state)
{
    struct run *r = *state;

    assert_int_equal(collect_from(r, delivery(r, DELIVERY(DATA)),
                                  "HTTP/1.1 409 Conflict\r\nCP3-Reason: already-confirmed\r\n"
                                  "Content-Length: 2\r\n\r\n{}",
                                  ARGS("--once")),
                     BSA_REFUSED);
    assert_string_equal(r->complained, "tek-bsa: Confirmation: expected 204, found 409 {}; "
                                       "CP3-Reason: already-confirmed\n");
}

static void collect_run__ends_with_nothing_if_told(void **state)
{
    struct run *r = *state;

    assert_int_equal(collect_from(r, NONE, NULL, ARGS("--wait", "0")), BSA_DONE);
    assert_string_equal(r->printed, "");
    assert_string_equal(r->complained, "");
}

static const struct {
    const char *first, *second;
    int exit;
    const char *line;
} endings[] = {
    {"HTTP/1.1 503 Busy\r\nCP3-Reason: busy\r\nContent-Length: 0\r\n\r\n", NULL, BSA_UNREACHABLE,
     "tek-bsa: HTTP status: expected 200, found 503; CP3-Reason: busy\n"},
    {"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", NULL, BSA_REFUSED,
     "tek-bsa: HTTP status: expected 200, found 403\n"},
    {NULL, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", BSA_UNREACHABLE,
     "tek-bsa: Confirmation: expected 204, found 503\n"},
};

static void collect_run__ends_when_the_server_cannot(void **state)
{
    struct run *r = *state;

    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        const char *first = endings[i].first;

        assert_int_equal(collect_from(r, first != NULL ? first : delivery(r, DELIVERY(DATA)),
                                      endings[i].second, ARGS("--wait", "1")),
                         endings[i].exit);
        assert_string_equal(r->complained, endings[i].line);
    }
}

#define PAGE "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"

/* What cannot be confirmed may be all that the server ever says. */
static void collect_run__does_not_ask_all_the_time(void **state)
{
    static const struct {
        const char *first, *second; /* NULL: a delivery, and what its Confirmation is answered */
        int64_t least_us;
    } cases[] = {
        {PAGE, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 1000000},
        /* Behind the pause nobody takes its third connection for a second. */
        {NULL, "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n", 2000000},
    };
    struct run *r = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *first = cases[i].first;
        int64_t begin_us = clock_mono_us();

        assert_int_equal(collect_from(r, first != NULL ? first : delivery(r, DELIVERY(DATA)),
                                      cases[i].second, ARGS("--wait", "0", "--timeout", "1")),
                         BSA_UNREACHABLE);
        assert_true(clock_mono_us() - begin_us >= cases[i].least_us);
    }
}

static void collect_run__tells_that_nobody_is_there(void **state)
{
    struct run *r = *state;

    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:1/cp3");
    assert_int_equal(collect(r, ARGS("--once")), BSA_UNREACHABLE);
    assert_memory_equal(r->complained,
                        "tek-bsa: HTTPS: expected an answer from https://127.0.0.1:1/", 60);
}

static void collect_run__refuses_what_it_should_not_do(void **state)
{
    static char url[2100] = "https://127.0.0.1:1/";
    struct run *r = *state;
    const struct {
        const char *option, *value, *line;
    } cases[] = {
        {"--url", "ftp://127.0.0.1/cp3",
         "tek-bsa: --url: expected https://..., found ftp://127.0.0.1/cp3\n"},
        {"--url", url, "tek-bsa: --url: expected at most 2016 octets, found 2099\n"},
        {"--wait", "61", "tek-bsa: --wait: expected 0..60, found 61\n"},
        {"--form", "long", "tek-bsa: --form: expected full or efficient, found long\n"},
        {"--content", "urn:x",
         "tek-bsa: collect: --content is no option; see tek-bsa collect --help\n"},
    };

    memset(url + strlen(url), 'x', sizeof(url) - 1 - strlen(url));
    (void)snprintf(r->url, sizeof(r->url), "https://127.0.0.1:1/cp3");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(collect(r, ARGS(cases[i].option, cases[i].value)), BSA_USAGE);
        assert_string_equal(r->complained, cases[i].line);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(collect_run__takes_a_delivery_and_confirms_it),
        TEST(collect_run__refuses_what_is_wrong),
        TEST(collect_run__says_that_a_confirmation_was_not_taken),
        TEST(collect_run__ends_with_nothing_if_told),
        TEST(collect_run__ends_when_the_server_cannot),
        TEST(collect_run__does_not_ask_all_the_time),
        TEST(collect_run__tells_that_nobody_is_there),
        TEST(collect_run__refuses_what_it_should_not_do),
    };

    return cmocka_run_group_tests_name("bsa_collect", tests, bsa_server_make_pki,
                                       bsa_server_remove_pki);
}
