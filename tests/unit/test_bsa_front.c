/* The server of listen, asked by the client of request. */
#include "bsa.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "bsa_output.h"
#include "bsa_server.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define DELAY_MS 300

struct test {
    struct stop *stop;
    struct front *front;
    pthread_t thread;
    char ca[BSA_SERVER_PATH_MAX], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX];
    char peer[BSA_SERVER_PATH_MAX];
    struct front_options options;
    /* What handle() does; of the front's thread once it runs. */
    struct front_answer answer;
    unsigned handled, finish_after;
    sem_t one_handled;
    char seen[64], seen_type[64];
};

static void handle(void *arg, const struct front_request *request, struct front_answer *ret_answer)
{
    struct test *t = arg;

    (void)snprintf(t->seen, sizeof(t->seen), "%.*s", (int)request->body_len,
                   (const char *)request->body);
    (void)snprintf(t->seen_type, sizeof(t->seen_type), "%s", request->content_type);
    *ret_answer = t->answer;
    if (++t->handled == t->finish_after)
        front_finish(t->front);
    (void)sem_post(&t->one_handled);
}

static int set_up(void **state)
{
    struct test *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    assert_int_equal(stop_new(&t->stop), 0);
    assert_int_equal(sem_init(&t->one_handled, 0, 0), 0);
    t->options = (struct front_options){.address = "127.0.0.1",
                                        .files = {bsa_server_path("server", "crt", t->cert),
                                                  bsa_server_path("server", "key", t->key),
                                                  bsa_server_path("ca", "crt", t->ca), NULL},
                                        .timeout_s = 20,
                                        .stop = t->stop,
                                        .handle = handle,
                                        .arg = t};
    t->answer = (struct front_answer){
        .status = 200, .content_type = "application/xml", .body = "<answer/>", .body_len = 9};
    *state = t;
    return 0;
}

static void *run(void *arg)
{
    front_run(arg);
    return NULL;
}

static void start(struct test *t)
{
    assert_int_equal(front_new(&t->options, &t->front), 0);
    assert_int_not_equal(front_port(t->front), 0);
    assert_int_equal(pthread_create(&t->thread, NULL, run, t->front), 0);
}

/* Waits for the front to end by itself. */
static void join(struct test *t)
{
    assert_int_equal(pthread_join(t->thread, NULL), 0);
    front_free(t->front);
    t->front = NULL;
}

static int tear_down(void **state)
{
    struct test *t = *state;

    if (t->front != NULL) {
        assert_int_equal(kill(getpid(), SIGTERM), 0);
        join(t);
    }
    stop_free(t->stop);
    (void)sem_destroy(&t->one_handled);
    free(t);
    bsa_server_forget_signals();
    return 0;
}

/* As this client; body NULL: GET. */
static int ask(struct test *t, const char *client, const char *path, const char *body,
               struct https_answer *answer)
{
    char url[96], cert[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX], why[HTTPS_WHY_MAX];
    struct https_request request = {.url = url,
                                    .ca = t->ca,
                                    .cert = bsa_server_path(client, "crt", cert),
                                    .key = bsa_server_path(client, "key", key),
                                    .timeout_s = 20};

    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u%s", front_port(t->front), path);
    buf_reset(answer->body);
    answer->status = 0;
    if (body == NULL)
        return https_get(&request, answer, why);
    request.content_type = "application/xml; charset=utf-8";
    request.body = (const uint8_t *)body;
    request.body_len = strlen(body);
    return https_post(&request, answer, why);
}

static void front_run__gives_what_handle_answers(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct test *t = *state;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    start(t);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(t, "client", "/cp3", "<request/>", &answer), 0);
        assert_int_equal(answer.status, 200);
        assert_string_equal(answer.content_type, "application/xml");
        assert_string_equal(buf_str(body), "<answer/>");
    }
    assert_int_equal(ask(t, "client", "/cp3?x=y", "", &answer), 0);
    assert_int_equal(answer.status, 200);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    join(t);
    assert_int_equal(t->handled, 4);
    assert_string_equal(t->seen, "");
    assert_string_equal(t->seen_type, "application/xml; charset=utf-8");
}

static void front_run__answers_without_a_body(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct test *t = *state;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    t->answer = (struct front_answer){.status = 202};
    start(t);
    assert_int_equal(ask(t, "client", "/cp3", "<request/>", &answer), 0);
    assert_int_equal(answer.status, 202);
    assert_int_equal(buf_len(body), 0);
    assert_string_equal(answer.content_type, "");
}

static void front_run__has_one_route(void **state)
{
    static const struct {
        const char *path, *body;
        long status;
    } cases[] = {
        {"/", "x", 404},     {"/cp3/", "x", 404}, {"/cp", "x", 404},
        {"/cp33", "x", 404}, {"/cp3", NULL, 405}, {"/other", NULL, 404},
    };
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct test *t = *state;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    start(t);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(ask(t, "client", cases[i].path, cases[i].body, &answer), 0);
        assert_int_equal(answer.status, cases[i].status);
        assert_string_equal(answer.content_type, FRONT_PROBLEM);
    }
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    join(t);
    assert_int_equal(t->handled, 0);
}

/* A body that fits, and one that does not. */
static void front_run__has_a_limit(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    AUTO_MEM char *text = malloc(CP3_BODY_MAX + 2);
    struct https_answer answer = {.status = 0};
    struct test *t = *state;
    int r;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    start(t);
    memset(text, 'x', CP3_BODY_MAX + 1);
    text[CP3_BODY_MAX + 1] = '\0';
    r = ask(t, "client", "/cp3", text, &answer);
    assert_true(r == TEKD_EIO || answer.status == 413); /* it may close before all was sent */
    text[CP3_BODY_MAX] = '\0';
    assert_int_equal(ask(t, "client", "/cp3", text, &answer), 0);
    assert_int_equal(answer.status, 200);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    join(t);
    assert_int_equal(t->handled, 1);
}

static void front_run__refuses_strangers(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct test *t = *state;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    start(t);
    assert_int_not_equal(ask(t, "stranger", "/cp3", "x", &answer), 0);
    assert_int_equal(answer.status, 0);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    join(t);
    assert_int_equal(t->handled, 0);
}

/* With --bsm-cert another certificate of the same CA is a stranger too. */
static void front_run__takes_one_peer_if_told(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct test *t = *state;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    t->options.files.bsm_cert = bsa_server_path("client", "crt", t->peer);
    start(t);
    assert_int_not_equal(ask(t, "elsewhere", "/cp3", "x", &answer), 0);
    assert_int_equal(ask(t, "client", "/cp3", "x", &answer), 0);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    join(t);
    assert_int_equal(t->handled, 1);
}

static void front_run__cuts_the_connection(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct test *t = *state;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    t->answer.cut = true;
    start(t);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ask(t, "client", "/cp3", "x", &answer), TEKD_EIO);
        assert_int_equal(answer.status, 0);
    }
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    join(t);
    assert_int_equal(t->handled, 2);
}

struct asking {
    struct test *t;
    pthread_t thread;
    int r;
    long status;
};

static void *ask_apart(void *arg)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct asking *a = arg;

    if (buf_new(HTTPS_BODY_MAX, &body) < 0)
        abort();
    answer.body = body;
    a->r = ask(a->t, "client", "/cp3", "x", &answer);
    a->status = answer.status;
    return NULL;
}

/* Together they take as long as one, and each at least the delay. */
static void front_run__delays_answers_side_by_side(void **state)
{
    struct test *t = *state;
    struct asking asking[8];
    int64_t begin = clock_mono_us(), took;

    t->options.delay_ms = DELAY_MS;
    start(t);
    for (size_t i = 0; i < ARRAY_SIZE(asking); i++) {
        asking[i].t = t;
        assert_int_equal(pthread_create(&asking[i].thread, NULL, ask_apart, &asking[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(asking); i++) {
        assert_int_equal(pthread_join(asking[i].thread, NULL), 0);
        assert_int_equal(asking[i].r, 0);
        assert_int_equal(asking[i].status, 200);
    }
    took = clock_mono_us() - begin;
    assert_true(took >= (int64_t)DELAY_MS * 1000);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    join(t);
    assert_int_equal(t->handled, ARRAY_SIZE(asking));
}

/* An hour's delay ends with the program: the answer is given. */
static void front_run__ends_delays_when_told(void **state)
{
    struct test *t = *state;
    struct asking asking = {.t = t};

    t->options.delay_ms = 3600000;
    t->finish_after = 1; /* finishing waits for the delay; being told does not */
    start(t);
    assert_int_equal(pthread_create(&asking.thread, NULL, ask_apart, &asking), 0);
    assert_int_equal(sem_wait(&t->one_handled), 0);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    assert_int_equal(pthread_join(asking.thread, NULL), 0);
    join(t);
    assert_int_equal(asking.r, 0);
    assert_int_equal(asking.status, 200);
}

static void front_finish__lets_the_answer_out(void **state)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct test *t = *state;

    assert_int_equal(buf_new(HTTPS_BODY_MAX, &body), 0);
    answer.body = body;
    t->finish_after = 2;
    start(t);
    assert_int_equal(ask(t, "client", "/cp3", "x", &answer), 0);
    assert_int_equal(ask(t, "client", "/cp3", "x", &answer), 0);
    assert_string_equal(buf_str(body), "<answer/>");
    join(t);
    assert_int_equal(t->handled, 2);
}

static void front_new__says_what_is_ours(void **state)
{
    struct test *t = *state;
    struct front *f = NULL;
    char other[BSA_SERVER_PATH_MAX];
    const struct front_options good = t->options;

    t->options.files.key = bsa_server_path("client", "key", other);
    assert_int_equal(front_new(&t->options, &f), TEKD_EINVAL);
    t->options = good;
    t->options.files.cert = "/nowhere.crt";
    assert_int_equal(front_new(&t->options, &f), TEKD_EINVAL);
    t->options = good;
    t->options.files.ca = t->key; /* no certificate in it */
    assert_int_equal(front_new(&t->options, &f), TEKD_EINVAL);
    t->options = good;
    t->options.files.bsm_cert = "/nowhere.crt";
    assert_int_equal(front_new(&t->options, &f), TEKD_EINVAL);
    t->options = good;
    t->options.address = "localhost";
    assert_int_equal(front_new(&t->options, &f), TEKD_EINVAL);
    assert_null(f);
    t->options = good;
    start(t);
    t->options.port = front_port(t->front);
    assert_int_equal(front_new(&t->options, &f), TEKD_EIO);
    assert_null(f);
}

/* Keys that OpenSSL takes, or would ask somebody about. */
static void front_new__needs_the_key_of_the_certificate(void **state)
{
    static const struct {
        const char *name, *why;
    } cases[] = {
        {"client", "expected the key of --cert ("},
        {"rsa", "expected the key of --cert ("},
        {"locked-server", "expected a key without a passphrase ("},
        {"nothing", "No such file or directory\n"},
    };
    struct test *t = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char key[BSA_SERVER_PATH_MAX], text[BSA_OUTPUT_MAX], line[BSA_SERVER_PATH_MAX + 64];
        struct bsa_output output;
        struct front *f = NULL;
        int r;

        t->options.files.key = bsa_server_path(cases[i].name, "key", key);
        bsa_output_catch(&output, stderr);
        r = front_new(&t->options, &f);
        bsa_output_end(&output, text);
        assert_int_equal(r, TEKD_EINVAL);
        (void)snprintf(line, sizeof(line), "tek-bsa: --key %s: %s", key, cases[i].why);
        assert_memory_equal(text, line, strlen(line));
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    }
}

/* No descriptor is left: that is said, and no other is closed instead. */
static void front_new__fails_without_descriptors(void **state)
{
    char text[BSA_OUTPUT_MAX];
    struct rlimit before, none;
    struct bsa_output output;
    struct front *f = NULL;
    struct test *t = *state;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), r;

    assert_true(null >= 0);
    assert_int_equal(dup2(null, STDIN_FILENO), STDIN_FILENO);
    assert_int_equal(close(null), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){1, before.rlim_max};
    bsa_output_catch(&output, stderr);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    r = front_new(&t->options, &f);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    bsa_output_end(&output, text);
    assert_int_equal(r, TEKD_ENOMEM);
    assert_string_equal(text, "tek-bsa: Too many open files\n");
    assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(front_run__gives_what_handle_answers),
        TEST(front_run__answers_without_a_body),
        TEST(front_run__has_one_route),
        TEST(front_run__has_a_limit),
        TEST(front_run__refuses_strangers),
        TEST(front_run__takes_one_peer_if_told),
        TEST(front_run__cuts_the_connection),
        TEST(front_run__delays_answers_side_by_side),
        TEST(front_run__ends_delays_when_told),
        TEST(front_finish__lets_the_answer_out),
        TEST(front_new__says_what_is_ours),
        TEST(front_new__needs_the_key_of_the_certificate),
        TEST(front_new__fails_without_descriptors),
    };

    return cmocka_run_group_tests_name("bsa_front", tests, bsa_server_make_pki,
                                       bsa_server_remove_pki);
}
