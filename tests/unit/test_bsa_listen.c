/* tek-bsa listen as a whole: the command in a thread, pushed to by the client of request. */
#include "bsa.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bsa_output.h"
#include "bsa_server.h"
#include "tekd/err.h"
#include "tekd/net.h"

/* RFC 3394 section 4.3. */
#define KEK_HEX  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define DATA     "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"
#define DATA_192 "A8F9BC1612C68B3FF6E6F4FBE30E71E4769C8B80A32CB8958CD5D17D6B254DA1"

#define DELIVERY(id, data)                                                                         \
    "{\"Tag\":3,\"MessageID\":\"" id "\",\"ContentID\":\"urn:x:news\",\"Destination\":\"bsa-1\","  \
    "\"Source\":\"bsm\",\"Data\":\"" data "\"}"
#define EFFICIENT(id, status) "{\"Tag\":4,\"MessageID\":\"" id "\",\"Status\":" status "}"

struct run {
    pthread_t thread;
    const char *const *more;
    char port[8], ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX];
    char client_cert[BSA_SERVER_PATH_MAX], client_key[BSA_SERVER_PATH_MAX];
    char kek[BSA_SERVER_PATH_MAX], journal[BSA_SERVER_PATH_MAX];
    int exit;
    _Atomic bool ended;
    char printed[BSA_OUTPUT_MAX], complained[BSA_OUTPUT_MAX];
    /* What the last push was answered. */
    struct https_answer answer;
};

static int set_up(void **state)
{
    struct run *r = calloc(1, sizeof(*r));
    int fd;

    assert_non_null(r);
    (void)bsa_server_path("ca", "crt", r->ca);
    (void)bsa_server_path("server", "crt", r->cert);
    (void)bsa_server_path("server", "key", r->key);
    (void)bsa_server_path("client", "crt", r->client_cert);
    (void)bsa_server_path("client", "key", r->client_key);
    (void)bsa_server_path("bsa-1", "kek", r->kek);
    (void)bsa_server_path("bsa-1", "journal", r->journal);
    fd = open(r->kek, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, KEK_HEX, strlen(KEK_HEX)), strlen(KEK_HEX));
    assert_int_equal(close(fd), 0);
    assert_int_equal(buf_new(HTTPS_BODY_MAX, &r->answer.body), 0);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct run *r = *state;

    (void)unlink(r->kek);
    (void)unlink(r->journal);
    buf_free(r->answer.body);
    free(r);
    bsa_server_forget_signals();
    return 0;
}

static void *listen_apart(void *arg)
{
    struct run *r = arg;
    const char *usual[] = {"--address", "127.0.0.1", "--port", r->port, "--ca",  r->ca,
                           "--cert",    r->cert,     "--key",  r->key,  "--kek", r->kek,
                           "--id",      "bsa-1",     "--bsm",  "bsm",   NULL};

    r->exit = bsa_output_run(listen_run, usual, r->more, r->printed, r->complained);
    r->ended = true;
    return NULL;
}

/* At a port that is free; what is printed is caught, so it cannot be asked for it. */
static void begin(struct run *r, const char *const *more)
{
    AUTO_FD int fd = -1;
    uint16_t port;

    assert_int_equal(net_listen("127.0.0.1", 0, &fd, &port), 0);
    (void)snprintf(r->port, sizeof(r->port), "%u", port);
    r->more = more;
    r->ended = false;
    assert_int_equal(close(TAKE_FD(fd)), 0);
    assert_int_equal(pthread_create(&r->thread, NULL, listen_apart, r), 0);
}

static int end(struct run *r)
{
    assert_int_equal(pthread_join(r->thread, NULL), 0);
    return r->exit;
}

/* The HTTP status, 0 if the connection was cut; nobody there yet: again. */
static long push(struct run *r, const char *body)
{
    char url[64], why[HTTPS_WHY_MAX];
    const struct https_request request = {.url = url,
                                          .ca = r->ca,
                                          .cert = r->client_cert,
                                          .key = r->client_key,
                                          .timeout_s = 20,
                                          .content_type = "application/json",
                                          .body = (const uint8_t *)body,
                                          .body_len = strlen(body)};
    int e;

    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%s/cp3", r->port);
    do {
        buf_reset(r->answer.body);
        r->answer.status = 0;
        e = https_post(&request, &r->answer, why);
    } while (e == TEKD_EIO && strstr(why, "connect") != NULL && !r->ended);
    return e == 0 ? r->answer.status : 0;
}

#define ARGS(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static void listen_run__confirms_repeats_and_refuses(void **state)
{
    struct run *r = *state;

    begin(r, ARGS("--count", "3", "--form", "efficient", "--journal", r->journal));
    assert_int_equal(push(r, DELIVERY("m-1", DATA)), 200);
    assert_string_equal(buf_str(r->answer.body), EFFICIENT("m-1", "0"));
    assert_string_equal(r->answer.content_type, "application/json");
    assert_int_equal(push(r, "no message"), 400);
    assert_string_equal(r->answer.content_type, FRONT_PROBLEM);
    assert_non_null(strstr(buf_str(r->answer.body), "\"check\":\"message\""));
    assert_int_equal(push(r, DELIVERY("m-1", DATA)), 200);
    assert_string_equal(buf_str(r->answer.body), EFFICIENT("m-1", "0"));
    assert_int_equal(push(r, DELIVERY("m-1", DATA_192)), 200);
    assert_string_equal(buf_str(r->answer.body), EFFICIENT("m-1", "1"));
    assert_int_equal(end(r), BSA_REFUSED);
    assert_non_null(strstr(r->printed, "listening address=127.0.0.1 port="));
    assert_non_null(strstr(r->printed, " repeated=yes "));
    assert_non_null(strstr(r->complained, "tek-bsa: repetition: expected the ContentID and Data "
                                          "that this MessageID had before, found another one\n"));
}

static void listen_run__drops_then_answers(void **state)
{
    struct run *r = *state;

    begin(r, ARGS("--once", "--drop", "1", "--status", "1", "--delay", "1"));
    assert_int_equal(push(r, DELIVERY("m-1", DATA)), 0);
    assert_int_equal(push(r, DELIVERY("m-1", DATA)), 200);
    assert_non_null(strstr(buf_str(r->answer.body), "\"Status\":1"));
    assert_int_equal(end(r), BSA_DONE);
    assert_string_equal(r->complained, "");
    assert_non_null(strstr(r->printed, " dropped=yes\n"));
}

static void listen_run__confirms_late(void **state)
{
    static const struct {
        const char *answer;
        int exit;
        const char *printed;
    } cases[] = {
        {"HTTP/1.1 204 No Content\r\n\r\n", BSA_DONE, "confirmation message_id=m-1 accepted=204\n"},
        {"HTTP/1.1 409 Conflict\r\nCP3-Reason: wrong-content\r\nContent-Length: 0\r\n\r\n",
         BSA_REFUSED, "reason=wrong-content\n"},
    };
    struct run *r = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct bsa_server bsm;
        char url[64];

        bsa_server_start(&bsm, "server", cases[i].answer);
        (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/cp3", bsm.port);
        begin(r, ARGS("--once", "--late", url, "--delay", "1"));
        assert_int_equal(push(r, DELIVERY("m-1", DATA)), 202);
        assert_int_equal(buf_len(r->answer.body), 0);
        assert_int_equal(end(r), cases[i].exit);
        bsa_server_stop(&bsm);
        assert_memory_equal(bsm.seen, "POST /cp3 HTTP/1.1\r\n", 20);
        assert_non_null(strstr(bsm.seen, "{\"Tag\":4,"));
        assert_non_null(strstr(r->printed, cases[i].printed));
        assert_non_null(strstr(r->printed, " answer=202\n"));
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(listen_run__confirms_repeats_and_refuses),
        TEST(listen_run__drops_then_answers),
        TEST(listen_run__confirms_late),
    };

    return cmocka_run_group_tests_name("bsa_listen", tests, bsa_server_make_pki,
                                       bsa_server_remove_pki);
}
