/* The client that waits: what it sends, what it takes, what it does not, and how long it waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsa_server.h"
#include "fake_clock.h"
#include "push_server.h"
#include "tekd/err.h"
#include "tekd/https.h"

struct place {
    struct push_server server;
    bool serving;
    enum push_server_way way;
    int status;
    const char *type, *body;
    struct https *https;
    struct https_answer answer;
    char url[64];
    char paths[3][BSA_SERVER_PATH_MAX];
};

static void say(void *arg, struct push_exchange *x)
{
    const struct place *p = arg;

    x->way = p->way;
    push_server_say(x, p->status, p->type, p->body);
}

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    (void)signal(SIGPIPE, SIG_IGN);
    p->status = 200;
    p->type = "text/plain";
    p->body = "good";
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;

    https_free(p->https);
    if (p->serving)
        push_server_stop(&p->server);
    free(p);
    return 0;
}

static struct https_options usual(struct place *p)
{
    return (struct https_options){.url = p->url,
                                  .ca = bsa_server_path("ca", "crt", p->paths[0]),
                                  .certificate = bsa_server_path("client", "crt", p->paths[1]),
                                  .key = bsa_server_path("client", "key", p->paths[2])};
}

static void serve(struct place *p, const char *identity)
{
    push_server_start(&p->server, identity, say, p);
    p->serving = true;
    (void)push_server_url(&p->server, p->url);
}

static void use(struct place *p, const struct https_options *o)
{
    https_free(p->https);
    p->https = NULL;
    assert_int_equal(https_new(o, &p->https), 0);
}

/* A server of this name, and a client that knows its CA. */
static void begin(struct place *p, const char *identity)
{
    struct https_options o;

    serve(p, identity);
    o = usual(p);
    use(p, &o);
}

static int post(struct place *p)
{
    const struct https_request r = {
        .path = "/add", .type = "text/x-note", .body = "question", .len = strlen("question")};

    return https_post(p->https, &r, &p->answer);
}

static void fails(struct place *p, const char *why)
{
    assert_int_equal(post(p), TEKD_EIO);
    assert_int_equal(p->answer.status, 0);
    assert_string_equal(p->answer.why, why);
}

/* ---- what goes through ----------------------------------------------------------------------- */

static void https_post__sends_and_gets(void **state)
{
    struct place *p = *state;

    begin(p, "server");
    assert_int_equal(post(p), 0);
    assert_int_equal(p->answer.status, 200);
    assert_string_equal(p->answer.type, "text/plain");
    assert_string_equal(buf_str(p->answer.body), "good");
    assert_non_null(strstr(p->server.seen, "POST /cp3/add HTTP/1.1\r\n"));
    assert_non_null(strstr(p->server.seen, "Content-Type: text/x-note\r\n"));
    assert_non_null(strstr(p->server.seen, "\r\n\r\nquestion"));
    assert_null(strstr(p->server.seen, "Expect"));
    assert_int_equal(post(p), 0);
    assert_string_equal(buf_str(p->answer.body), "good");
    assert_int_equal(push_server_connections(&p->server), 2); /* each sees the files anew */
}

static void https_post__gives_any_status(void **state)
{
    struct place *p = *state;

    begin(p, "server");
    p->status = 409;
    p->type = "text/x.tlog.size";
    p->body = "12\n";
    assert_int_equal(post(p), 0);
    assert_int_equal(p->answer.status, 409);
    assert_string_equal(p->answer.type, "text/x.tlog.size");
    assert_string_equal(buf_str(p->answer.body), "12\n");
}

static void https_post__follows_no_redirect(void **state)
{
    struct place *p = *state;

    begin(p, "server");
    p->status = 307;
    p->type = "text/plain\r\nLocation: https://127.0.0.1:1/";
    assert_int_equal(post(p), 0);
    assert_int_equal(p->answer.status, 307);
    assert_int_equal(push_server_requests(&p->server), 1);
}

/* ---- who is there ---------------------------------------------------------------------------- */

static void https_post__refuses_servers_that_are_not_the_one(void **state)
{
    static const struct {
        const char *identity, *why;
    } cases[] = {{"imitation", "unknown CA"}, {"elsewhere", "TLS name mismatch"}};
    struct place *p = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        begin(p, cases[i].identity);
        fails(p, cases[i].why);
        assert_int_equal(push_server_requests(&p->server), 0);
        push_server_stop(&p->server);
        p->serving = false;
    }
    fails(p, "refused");
}

static void https_post__says_that_our_files_cannot_be_read(void **state)
{
    struct place *p = *state;
    struct https_options o;

    serve(p, "server");
    o = usual(p);
    o.ca = "/nowhere/ca.crt";
    use(p, &o);
    fails(p, "our CA, certificate or key cannot be read: see the log");
    o = usual(p);
    o.key = bsa_server_path("server", "key", p->paths[2]);
    use(p, &o);
    fails(p, "our CA, certificate or key cannot be read: see the log");
    assert_int_equal(push_server_requests(&p->server), 0);
}

/* With the CAs of the system, none of which signed for the tests. */
static void https_post__trusts_the_systems_cas_without_one(void **state)
{
    struct place *p = *state;
    struct https_options o;

    serve(p, "server");
    o = usual(p);
    o.ca = NULL;
    use(p, &o);
    fails(p, "unknown CA");
}

static void https_post__shows_no_certificate_without_one(void **state)
{
    struct place *p = *state;
    struct https_options o;

    serve(p, "server");
    o = usual(p);
    o.certificate = o.key = NULL;
    use(p, &o);
    assert_int_equal(post(p), TEKD_EIO); /* the server wants one */
    assert_int_equal(push_server_requests(&p->server), 0);
}

static void https_new__takes_no_other_urls(void **state)
{
    static const char *const urls[] = {"ftp://127.0.0.1/", "127.0.0.1", "file:///etc/passwd", ""};
    struct place *p = *state;
    struct https *h = NULL;
    struct https_options o = usual(p);

    o.allow_http = true;
    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        o.url = urls[i];
        assert_int_equal(https_new(&o, &h), TEKD_EINVAL);
    }
    o.allow_http = false;
    o.url = "http://127.0.0.1/";
    assert_int_equal(https_new(&o, &h), TEKD_EINVAL);
    https_free(NULL);
}

/* ---- answers that are none ------------------------------------------------------------------- */

static void https_post__reads_no_more_than_an_answer_may_have(void **state)
{
    struct place *p = *state;

    begin(p, "server");
    p->way = WAY_TEN_MB;
    fails(p, "answer longer than 65536 octets");
    p->way = WAY_HEADERS;
    fails(p, "header of the answer longer than 16384 octets");
}

static void https_post__says_that_an_answer_was_cut(void **state)
{
    struct place *p = *state;

    begin(p, "server");
    p->way = WAY_RESET;
    assert_int_equal(post(p), TEKD_EIO);
    assert_true(p->answer.why[0] != '\0');
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void *post_apart(void *arg)
{
    return (void *)(intptr_t)post(arg);
}

/* One that hangs from this moment on; ends the post and gives its result. */
static int hang(struct place *p, enum push_server_way way, void (*end)(struct place *p))
{
    void *result = NULL;
    pthread_t thread;

    begin(p, "server");
    p->way = way;
    assert_int_equal(pthread_create(&thread, NULL, post_apart, p), 0);
    push_server_wait(&p->server, 1);
    end(p);
    assert_int_equal(pthread_join(thread, &result), 0);
    return (int)(intptr_t)result;
}

static void let_time_pass(struct place *p)
{
    (void)p;
    fake_clock_advance(HTTPS_ATTEMPT_US);
}

static void stop(struct place *p)
{
    https_stop(p->https);
}

static void https_post__gives_up_who_hangs(void **state)
{
    struct place *p = *state;

    assert_int_equal(hang(p, WAY_HANG, let_time_pass), TEKD_EIO);
    assert_string_equal(p->answer.why, "no answer within 20 s");
}

static void https_post__gives_up_who_stops_in_the_middle(void **state)
{
    assert_int_equal(hang(*state, WAY_TRICKLE, let_time_pass), TEKD_EIO);
}

static void https_stop__ends_what_is_under_way_and_all_that_comes(void **state)
{
    struct place *p = *state;

    assert_int_equal(hang(p, WAY_HANG, stop), TEKD_ECLOSED);
    p->way = WAY_ANSWER;
    assert_int_equal(post(p), TEKD_ECLOSED);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(https_post__sends_and_gets),
        TEST(https_post__gives_any_status),
        TEST(https_post__follows_no_redirect),
        TEST(https_post__refuses_servers_that_are_not_the_one),
        TEST(https_post__says_that_our_files_cannot_be_read),
        TEST(https_post__trusts_the_systems_cas_without_one),
        TEST(https_post__shows_no_certificate_without_one),
        TEST(https_new__takes_no_other_urls),
        TEST(https_post__reads_no_more_than_an_answer_may_have),
        TEST(https_post__says_that_an_answer_was_cut),
        TEST(https_post__gives_up_who_hangs),
        TEST(https_post__gives_up_who_stops_in_the_middle),
        TEST(https_stop__ends_what_is_under_way_and_all_that_comes),
    };

    return cmocka_run_group_tests(tests, bsa_server_make_pki, bsa_server_remove_pki);
}
