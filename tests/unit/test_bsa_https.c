/* The POST and the GET of tek-bsa against a TLS server that answers, or does not, as the test says.
 */
#include "bsa.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bsa_server.h"
#include "passphrase.h"
#include "tekd/err.h"

/* ---- the client ------------------------------------------------------------------------------ */

static int post_as(const char *client, const char *url, struct https_answer *answer,
                   char why[static HTTPS_WHY_MAX])
{
    char ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX];
    struct https_request request = {.url = url,
                                    .ca = bsa_server_path("ca", "crt", ca),
                                    .cert = bsa_server_path(client, "crt", cert),
                                    .key = bsa_server_path(client, "key", key),
                                    .timeout_s = 20,
                                    .content_type = "application/xml",
                                    .body = (const uint8_t *)"<request/>",
                                    .body_len = 10};

    if (answer->status == -1) /* a test's wish: not to wait long */
        request.timeout_s = 1;
    return https_post(&request, answer, why);
}

static int post(struct bsa_server *s, const char *client, struct https_answer *answer)
{
    char url[64], why[HTTPS_WHY_MAX] = "";
    int r;

    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/cp3", s->port);
    r = post_as(client, url, answer, why);
    bsa_server_stop(s);
    if (r < 0)
        assert_true(strlen(why) > 0);
    return r;
}

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n"

static void https_post__sends_and_takes_a_message(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    bsa_server_start(&s, "server",
                     OK_HEAD "cp3-reason:  busy \r\nContent-Length: 9\r\n\r\n<answer/>");
    assert_int_equal(post(&s, "client", &answer), 0);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.content_type, "application/xml");
    assert_string_equal(answer.reason, "busy");
    assert_string_equal(buf_str(body), "<answer/>");
    assert_memory_equal(s.seen, "POST /cp3 HTTP/1.1\r\n", 20);
    assert_non_null(strstr(s.seen, "\r\nContent-Type: application/xml\r\n"));
    assert_non_null(strstr(s.seen, "\r\nContent-Length: 10\r\n"));
    assert_non_null(strstr(s.seen, "\r\n\r\n<request/>"));
    assert_null(strstr(s.seen, "Expect"));
}

static void https_post__does_not_follow(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    bsa_server_start(
        &s, "server",
        "HTTP/1.1 307 Other\r\nLocation: https://127.0.0.1:1/cp3\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(post(&s, "client", &answer), 0);
    assert_int_equal(answer.status, 307);
    assert_string_equal(answer.reason, "");
}

static void https_post__ignores_proxies(void **state)
{
    static const char *const names[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(setenv(names[i], "http://127.0.0.1:1", 1), 0);
    bsa_server_start(&s, "server", OK_HEAD "Content-Length: 0\r\n\r\n");
    assert_int_equal(post(&s, "client", &answer), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(unsetenv(names[i]), 0);
}

/* As much as a message may have, and one octet more. */
static void https_post__has_a_limit(void **state)
{
    (void)state;
    for (int extra = 0; extra < 2; extra++) {
        AUTO(buf) struct buf *body = NULL;
        AUTO_MEM char *text = NULL;
        struct https_answer answer = {.status = 0};
        struct bsa_server s;

        assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
        answer.body = body;
        assert_true(asprintf(&text, OK_HEAD "Content-Length: %d\r\n\r\n%0*d",
                             HTTPS_BODY_MAX + extra, HTTPS_BODY_MAX + extra, 0) > 0);
        bsa_server_start(&s, "server", text);
        assert_int_equal(post(&s, "client", &answer), extra ? TEKD_ETOOBIG : 0);
        assert_true(buf_len(body) <= HTTPS_BODY_MAX);
    }
}

static void https_post__checks_who_answers(void **state)
{
    static const struct {
        const char *server, *client;
    } cases[] = {
        {"imitation", "client"}, /* another CA */
        {"elsewhere", "client"}, /* our CA, another name */
        {"server", "stranger"},  /* the server does not take us */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(buf) struct buf *body = NULL;
        struct https_answer answer = {.status = 0};
        struct bsa_server s;

        assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
        answer.body = body;
        bsa_server_start(&s, cases[i].server, OK_HEAD "Content-Length: 9\r\n\r\n<answer/>");
        assert_int_equal(post(&s, cases[i].client, &answer), TEKD_EDENIED);
        assert_int_equal(buf_len(body), 0);
        assert_string_equal(s.seen, ""); /* nothing of the request was said */
    }
}

static void https_post__gives_up_in_time(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = -1};
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    bsa_server_start(&s, "server", NULL);
    assert_int_equal(post(&s, "client", &answer), TEKD_EIO);
}

/* An answer cut short is none. */
static void https_post__refuses_half_an_answer(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    bsa_server_start(&s, "server", OK_HEAD "Content-Length: 10\r\n\r\n<answer/>");
    assert_int_equal(post(&s, "client", &answer), TEKD_EIO);
}

static void https_post__tells_what_is_ours(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    char why[HTTPS_WHY_MAX];

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    /* port 1: nobody listens */
    assert_int_equal(post_as("client", "https://127.0.0.1:1/cp3", &answer, why), TEKD_EIO);
    assert_int_equal(post_as("client", "http://127.0.0.1:1/cp3", &answer, why), TEKD_EINVAL);
    assert_int_equal(post_as("client", "file:///etc/hostname", &answer, why), TEKD_EINVAL);
    assert_int_equal(buf_len(body), 0);
}

static void https_post__needs_our_certificate(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    bsa_server_start(&s, "server", OK_HEAD "Content-Length: 0\r\n\r\n");
    assert_int_equal(post(&s, "nobody", &answer), TEKD_EINVAL); /* there is no such file */
}

/* Nobody is asked for a passphrase: without a terminal OpenSSL would read it from stdin. */
static void https_post__asks_for_no_passphrase(void **state)
{
    char ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX], url[64];
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct https_request request = {.url = url,
                                    .ca = bsa_server_path("ca", "crt", ca),
                                    .cert = bsa_server_path("client", "crt", cert),
                                    .key = bsa_server_path("locked", "key", key),
                                    .timeout_s = 20};
    char why[HTTPS_WHY_MAX];
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    passphrase_offer();
    bsa_server_start(&s, "server", OK_HEAD "Content-Length: 0\r\n\r\n");
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/cp3", s.port);
    assert_int_equal(https_get(&request, &answer, why), TEKD_EINVAL);
    bsa_server_stop(&s);
    assert_non_null(strstr(why, "; --cert and --key are PEM, of one key, without a passphrase"));
}

/* A host may be called what it likes: it is not there all the same. */
static void https_post__takes_no_name_for_an_alert(void **state)
{
    static const char *const urls[] = {"https://alert.localhost:1/cp3",
                                       "https://an.alert.localhost:1/cp3"};
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    char why[HTTPS_WHY_MAX];

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        assert_int_equal(post_as("client", urls[i], &answer, why), TEKD_EIO);
        assert_non_null(strstr(why, "alert"));
    }
}

static void https_get__asks_without_a_body(void **state)
{
    char ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX], url[64];
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct https_request request = {.url = url,
                                    .ca = bsa_server_path("ca", "crt", ca),
                                    .cert = bsa_server_path("client", "crt", cert),
                                    .key = bsa_server_path("client", "key", key),
                                    .timeout_s = 20};
    char why[HTTPS_WHY_MAX];
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    bsa_server_start(&s, "server", OK_HEAD "Content-Length: 9\r\n\r\n<answer/>");
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/cp3/deliveries?wait=7", s.port);
    assert_int_equal(https_get(&request, &answer, why), 0);
    bsa_server_stop(&s);
    assert_int_equal(answer.status, 200);
    assert_string_equal(buf_str(body), "<answer/>");
    assert_memory_equal(s.seen, "GET /cp3/deliveries?wait=7 HTTP/1.1\r\n", 37);
    assert_null(strstr(s.seen, "Content-"));
}

/* The server says nothing, and the time it has is long. */
static void https_get__ends_when_it_is_told_to(void **state)
{
    char ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX], url[64];
    AUTO(buf) struct buf *body = NULL;
    AUTO(stop) struct stop *stop = NULL;
    struct https_answer answer = {.status = 0};
    struct https_request request = {.url = url,
                                    .ca = bsa_server_path("ca", "crt", ca),
                                    .cert = bsa_server_path("client", "crt", cert),
                                    .key = bsa_server_path("client", "key", key),
                                    .timeout_s = 300};
    char why[HTTPS_WHY_MAX];
    struct bsa_server s;

    (void)state;
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    assert_int_equal(stop_new(&stop), 0);
    answer.body = body;
    request.stop = stop;
    bsa_server_start(&s, "server", NULL);
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/cp3/deliveries", s.port);
    assert_int_equal(raise(SIGTERM), 0);
    assert_int_equal(https_get(&request, &answer, why), TEKD_ECLOSED);
    bsa_server_stop(&s);
    bsa_server_forget_signals();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(https_post__sends_and_takes_a_message),
        cmocka_unit_test(https_post__does_not_follow),
        cmocka_unit_test(https_post__ignores_proxies),
        cmocka_unit_test(https_post__has_a_limit),
        cmocka_unit_test(https_post__checks_who_answers),
        cmocka_unit_test(https_post__gives_up_in_time),
        cmocka_unit_test(https_post__refuses_half_an_answer),
        cmocka_unit_test(https_post__tells_what_is_ours),
        cmocka_unit_test(https_post__needs_our_certificate),
        cmocka_unit_test(https_post__asks_for_no_passphrase),
        cmocka_unit_test(https_post__takes_no_name_for_an_alert),
        cmocka_unit_test(https_get__asks_without_a_body),
        cmocka_unit_test(https_get__ends_when_it_is_told_to),
    };

    return cmocka_run_group_tests_name("bsa_https", tests, bsa_server_make_pki,
                                       bsa_server_remove_pki);
}
