#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "http_fixture.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"

/* ---- starting and stopping ------------------------------------------------------------------- */

static int start_with(struct fixture *f, void (*change)(struct fixture *f, struct fixture_setup *s))
{
    struct fixture_setup s;

    fixture_setup(f, &s);
    change(f, &s);
    return fixture_start(f, &s);
}

static void no_certificate(struct fixture *f, struct fixture_setup *s)
{
    s->o.files.certificate = pki_path(f->pki, "none.crt");
}

static void other_key(struct fixture *f, struct fixture_setup *s)
{
    (void)s;
    assert_int_equal(rename(pki_path(f->pki, "server.key"), pki_path(f->pki, "old.key")), 0);
    assert_int_equal(rename(pki_path(f->pki, "server.crt"), pki_path(f->pki, "old.crt")), 0);
    pki_renew_server(f->pki);
    assert_int_equal(rename(pki_path(f->pki, "old.crt"), pki_path(f->pki, "server.crt")), 0);
}

static void open_key(struct fixture *f, struct fixture_setup *s)
{
    (void)s;
    pki_renew_server(f->pki);
    assert_int_equal(chmod(pki_path(f->pki, "server.key"), 0640), 0);
}

static void locked_key(struct fixture *f, struct fixture_setup *s)
{
    (void)s;
    pki_renew_server(f->pki);
    pki_write(
        f->pki, "server.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMA==\n-----END ENCRYPTED PRIVATE KEY-----\n");
}

static void no_ca(struct fixture *f, struct fixture_setup *s)
{
    pki_renew_server(f->pki);
    s->o.files.client_ca = pki_path(f->pki, "none.crt");
}

static void no_crl(struct fixture *f, struct fixture_setup *s)
{
    s->o.files.crl = pki_path(f->pki, "none.crl");
}

static void bad_address(struct fixture *f, struct fixture_setup *s)
{
    (void)f;
    s->listen.address = "localhost"; /* names would need a resolver */
}

static void no_loops(struct fixture *f, struct fixture_setup *s)
{
    (void)f;
    s->o.loops = 0;
}

static void http_start__refuses_what_cannot_serve(void **state)
{
    struct fixture *f = fixture_new();

    (void)state;
    assert_int_equal(start_with(f, no_certificate), TEKD_EINVAL);
    assert_int_equal(start_with(f, other_key), TEKD_EINVAL);
    assert_int_equal(start_with(f, open_key), TEKD_EDENIED);
    assert_int_equal(start_with(f, locked_key), TEKD_EINVAL);
    assert_int_equal(start_with(f, no_ca), TEKD_EINVAL);
    assert_int_equal(start_with(f, no_crl), TEKD_EINVAL);
    assert_int_equal(start_with(f, bad_address), TEKD_EINVAL);
    assert_int_equal(start_with(f, no_loops), TEKD_EINVAL);
    fixture_free(f);
}

static void http_check__reads_what_the_start_would(void **state)
{
    struct fixture *f = fixture_new();
    struct fixture_setup s;
    struct http_ends e;

    (void)state;
    fixture_setup(f, &s);
    assert_int_equal(http_check(&s.o.files, &e), 0);
    assert_true(e.certificate_not_after_s > time(NULL));
    assert_true(e.crl_next_update_s > time(NULL));
    s.o.files.crl = NULL;
    assert_int_equal(http_check(&s.o.files, &e), 0);
    assert_int_equal(e.crl_next_update_s, 0);
    open_key(f, &s);
    fixture_setup(f, &s);
    assert_int_equal(http_check(&s.o.files, &e), TEKD_EDENIED);
    other_key(f, &s);
    fixture_setup(f, &s);
    assert_int_equal(http_check(&s.o.files, &e), TEKD_EINVAL);
    fixture_free(f);
}

static void http_start__refuses_a_port_in_use(void **state)
{
    struct fixture *f = *state;
    struct fixture *g = fixture_new();
    struct fixture_setup s;

    fixture_setup(g, &s);
    s.listen.port = f->port;
    assert_int_equal(fixture_start(g, &s), TEKD_EIO);
    fixture_free(g);
}

static void http_stop__lets_requests_under_way_end(void **state)
{
    struct fixture *f = *state;
    struct client *busy = fixture_connect(f), *idle = fixture_connect(f);
    uint16_t port = f->port;
    pthread_t thread;
    struct http_exchange *x;
    char value[256];
    struct answer a;

    client_request(busy, "");
    x = fixture_take(f);
    assert_int_equal(pthread_create(&thread, NULL, fixture_stop_thread, f), 0);
    /* It has stopped accepting when a new connection is refused. */
    for (;;) {
        struct client *c = client_connect(port, f->pki, f->me, 0);
        if (!c)
            break;
        client_close(c);
    }
    fixture_reply(x, 200, "<last/>");
    assert_true(client_read(busy, &a));
    assert_string_equal(a.body, "<last/>");
    assert_string_equal(answer_header(&a, "connection", value), "close");
    assert_true(client_ended(idle));
    (void)pthread_join(thread, NULL);
    assert_int_equal(f->whole, 1);
    client_close(busy);
    client_close(idle);
}

/* The holder of a poll is told after http_drain(); until then it is not cut, and no longer. */
static void http_drain__leaves_polls_to_their_holder(void **state)
{
    struct fixture *f = *state;
    struct client *c[2];
    struct http_exchange *x[2];
    char value[256];
    struct answer a;

    for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
        c[i] = fixture_connect(f);
        client_text(c[i], "GET " FIXTURE_WAIT_PATH " HTTP/1.1\r\nHost: x\r\n\r\n");
        x[i] = fixture_take(f);
    }
    http_drain(f->http, clock_mono_us() + HTTP_STOP_US);
    http_drain(f->http, 0); /* once is enough */
    for (;;) {
        struct client *late = client_connect(f->port, f->pki, f->me, 0);
        if (!late)
            break;
        client_close(late);
    }
    for (size_t i = 0; i < ARRAY_SIZE(c); i++)
        fixture_reply(x[i], 204, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
        assert_true(client_read(c[i], &a));
        assert_int_equal(a.status, 204);
        assert_string_equal(answer_header(&a, "connection", value), "close");
        client_close(c[i]);
    }
    fixture_stop(f);
    assert_int_equal(f->whole, 2);
    assert_int_equal(f->gone, 0);
}

static void http_stop__with_a_signer_lets_requests_end(void **state)
{
    struct fixture *f = fixture_with_signer();
    struct client *c = fixture_connect(f);
    struct http_exchange *x;
    pthread_t thread;
    struct answer a;

    (void)state;
    client_request(c, "");
    x = fixture_take(f);
    assert_int_equal(pthread_create(&thread, NULL, fixture_stop_thread, f), 0);
    fixture_reply(x, 200, "<last/>");
    assert_true(client_read(c, &a));
    assert_string_equal(a.body, "<last/>");
    (void)pthread_join(thread, NULL);
    client_close(c);
    fixture_free(f);
}

static struct http_exchange *left; /* and what it refers to, for the leak checker */

static void http_stop__waits_no_longer_than_it_says(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    pthread_t thread;
    struct answer a;

    client_request(c, "");
    left = fixture_take(f);
    fake_clock_advance(4000000); /* its deadline: the client is not kept waiting */
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 503);
    assert_int_equal(pthread_create(&thread, NULL, fixture_stop_thread, f), 0);
    for (;;) {
        struct client *other = client_connect(f->port, f->pki, f->me, 0);
        if (!other)
            break;
        client_close(other);
    }
    fake_clock_advance(HTTP_STOP_US);
    (void)pthread_join(thread, NULL);
    /* Far too late, and still nothing breaks. */
    fixture_reply(left, 200, NULL);
    assert_int_equal(f->whole + f->not_whole, 0);
    client_close(c);
}

/* The clock stands still behind that: with any other patience this would not end. */
static void http_drain__cuts_when_its_caller_says(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct answer a;

    client_request(c, "");
    left = fixture_take(f);
    http_drain(f->http, clock_mono_us() + 1000000);
    fake_clock_advance(1000000);
    fixture_stop(f);
    assert_false(client_read(c, &a));
    fixture_reply(left, 200, NULL);
    client_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http_start__refuses_what_cannot_serve),
        cmocka_unit_test(http_check__reads_what_the_start_would),
        FIXTURE_TEST(http_start__refuses_a_port_in_use),
        FIXTURE_TEST(http_stop__lets_requests_under_way_end),
        FIXTURE_TEST(http_drain__leaves_polls_to_their_holder),
        cmocka_unit_test(http_stop__with_a_signer_lets_requests_end),
        FIXTURE_TEST(http_stop__waits_no_longer_than_it_says),
        FIXTURE_TEST(http_drain__cuts_when_its_caller_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
