#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "http_fixture.h"
#include "tekd/auto.h"
#include "tekd/err.h"
#include "wall_clock.h"

/* ---- TLS ------------------------------------------------------------------------------------- */

/* In TLS 1.3 a client may believe in its handshake until it reads. */
static int alert_of(struct client *c)
{
    int alert;

    if (c->alert < 0)
        assert_true(client_ended(c));
    alert = c->alert;
    client_close(c);
    return alert;
}

struct refusal_case {
    enum pki_kind kind;
    int alert;
    const char *cause;
};

static void http_tls__refuses_with_an_alert_and_a_cause(void **state)
{
    static const struct refusal_case cases[] = {
        {PKI_STRANGER, SSL_AD_UNKNOWN_CA, "unknown-ca"},
        {PKI_EXPIRED, SSL_AD_CERTIFICATE_EXPIRED, "expired"},
        {PKI_FOR_SERVERS, SSL_AD_UNSUPPORTED_CERTIFICATE, "wrong-purpose"},
    };
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct fixture *f = *state;
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct pki_identity *who = pki_client(f->pki, cases[i].kind);
        for (size_t v = 0; v < ARRAY_SIZE(versions); v++) {
            struct client *c = client_connect(f->port, f->pki, who, versions[v]);
            assert_int_equal(alert_of(c), cases[i].alert);
            assert_string_equal(fixture_wait_cause(f, ++n), cases[i].cause);
        }
    }
}

static void http_tls__refuses_a_client_without_certificate(void **state)
{
    struct fixture *f = *state;
    struct http_status s;

    assert_int_equal(alert_of(client_connect(f->port, f->pki, NULL, TLS1_3_VERSION)),
                     SSL_AD_CERTIFICATE_REQUIRED);
    assert_string_equal(fixture_wait_cause(f, 1), "no-certificate");
    assert_int_equal(alert_of(client_connect(f->port, f->pki, NULL, TLS1_2_VERSION)),
                     SSL_AD_HANDSHAKE_FAILURE);
    assert_string_equal(fixture_wait_cause(f, 2), "no-certificate");
    http_status_get(f->http, &s);
    assert_int_equal(s.handshakes_failed, 2);
    assert_int_equal(s.requests, 0);
}

static void http_tls__refuses_old_versions(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(alert_of(client_connect(f->port, f->pki, f->me, TLS1_1_VERSION)),
                     SSL_AD_PROTOCOL_VERSION);
    assert_string_equal(fixture_wait_cause(f, 1), "protocol");
}

static int plain_socket(uint16_t port)
{
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void http_tls__refuses_what_is_no_tls(void **state)
{
    struct fixture *f = *state;
    AUTO_FD int http = plain_socket(f->port);
    AUTO_FD int nobody = plain_socket(f->port);
    char octets[64];

    assert_int_equal(send(http, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    while (recv(http, octets, sizeof(octets), 0) > 0)
        ;
    assert_string_equal(fixture_wait_cause(f, 1), "plain-http");
    assert_int_equal(shutdown(nobody, SHUT_WR), 0);
    assert_int_equal(recv(nobody, octets, sizeof(octets), 0), 0);
    assert_string_equal(fixture_wait_cause(f, 2), "closed-by-peer");
}

static void http_tls__hears_that_the_client_refuses_us(void **state)
{
    struct fixture *f = *state;
    struct pki *other = pki_new(); /* whose CA did not make our certificate */
    struct client *c = client_connect(f->port, other, f->me, TLS1_2_VERSION);

    assert_false(SSL_is_init_finished(c->ssl));
    assert_string_equal(fixture_wait_cause(f, 1), "alert-from-peer");
    client_close(c);
    pki_free(other);
}

static void http_tls__resumes_no_session(void **state)
{
    struct fixture *f = *state;
    struct client *first = client_connect(f->port, f->pki, f->me, TLS1_2_VERSION), *second;
    SSL_SESSION *session;
    struct answer a;

    client_request(first, "");
    fixture_answer(f, "<a/>");
    assert_true(client_read(first, &a));
    session = SSL_get1_session(first->ssl);
    assert_false(SSL_SESSION_has_ticket(session));
    client_close(first);
    second = client_resume(f->port, f->pki, f->me, session);
    assert_true(SSL_is_init_finished(second->ssl));
    assert_int_equal(SSL_session_reused(second->ssl), 0);
    SSL_SESSION_free(session);
    client_close(second);
}

static void http_tls__gives_no_tickets(void **state)
{
    struct fixture *f = *state;
    struct client *c = client_connect(f->port, f->pki, f->me, TLS1_3_VERSION);
    struct answer a;

    client_request(c, "");
    fixture_answer(f, "<a/>");
    assert_true(client_read(c, &a));
    assert_false(SSL_SESSION_has_ticket(SSL_get0_session(c->ssl)));
    client_close(c);
}

/* ---- certificates that go -------------------------------------------------------------------- */

static void http_reload__refuses_a_revoked_peer_on_its_open_connection(void **state)
{
    struct fixture *f = *state;
    const struct pki_identity *other = pki_client(f->pki, PKI_GOOD);
    struct client *revoked = fixture_connect(f);
    struct client *good = client_connect(f->port, f->pki, other, 0);
    char value[256];
    struct answer a;

    client_request(revoked, "");
    fixture_answer(f, "<a/>");
    assert_true(client_read(revoked, &a));
    pki_revoke(f->pki, f->me);
    pki_write_crl(f->pki, 3600);
    assert_int_equal(http_reload(f->http), 0);

    client_request(revoked, "");
    assert_true(client_read(revoked, &a));
    assert_int_equal(a.status, 403);
    assert_string_equal(answer_header(&a, "connection", value), "close");
    assert_string_equal(fixture_wait_cause(f, 1), "revoked");
    assert_true(client_ended(revoked));
    client_close(revoked);
    for (int i = 0; i < 2; i++) {
        client_request(good, "");
        fixture_answer(f, "<a/>");
        assert_true(client_read(good, &a));
        assert_int_equal(a.status, 200);
    }
    client_close(good);
    assert_int_equal(alert_of(fixture_connect(f)), SSL_AD_CERTIFICATE_REVOKED);
    assert_string_equal(fixture_wait_cause(f, 2), "revoked");
}

/* As long as a poll may be open, a key would follow the revocation. */
static void http_reload__refuses_a_revoked_peer_that_waits(void **state)
{
    struct fixture *f = *state;
    const struct pki_identity *other = pki_client(f->pki, PKI_GOOD);
    struct client *revoked = fixture_connect(f);
    struct client *good = client_connect(f->port, f->pki, other, 0);
    struct http_exchange *x[2];
    struct answer a;

    client_request(revoked, "");
    client_request(good, "");
    pki_revoke(f->pki, f->me);
    pki_write_crl(f->pki, 3600);
    for (int i = 0; i < 2; i++)
        x[i] = fixture_take(f);
    assert_int_equal(http_reload(f->http), 0);
    for (int i = 0; i < 2; i++)
        fixture_reply(x[i], 200, "<key/>");
    assert_true(client_read(revoked, &a));
    assert_int_equal(a.status, 403);
    assert_null(strstr(a.body, "key"));
    assert_string_equal(fixture_wait_cause(f, 1), "revoked");
    assert_true(client_ended(revoked));
    assert_true(client_read(good, &a));
    assert_string_equal(a.body, "<key/>");
    fixture_wait_sent(f, 1, 1);
    client_close(revoked);
    client_close(good);
}

static void http_reload__an_expired_crl_refuses_everybody(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f);
    struct http_status s;
    struct answer a;

    pki_write_crl(f->pki, -60);
    assert_int_equal(http_reload(f->http), 0);
    client_request(c, "");
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 403);
    assert_string_equal(fixture_wait_cause(f, 1), "crl-expired");
    client_close(c);
    assert_true(alert_of(fixture_connect(f)) >= 0);
    assert_string_equal(fixture_wait_cause(f, 2), "crl-expired");
    http_status_get(f->http, &s);
    assert_true(s.ends.crl_next_update_s < time(NULL));
}

/* Without a reload; looked at again when the check of the handshake is a minute old. */
static void http__an_open_connection_does_not_outlive_the_crl(void **state)
{
    struct fixture *f = *state;
    struct client *c = fixture_connect(f), *waits = fixture_connect(f);
    struct http_exchange *x;
    struct answer a;

    fake_clock_advance(HTTP_RECHECK_US);
    client_request(c, "");
    fixture_answer(f, "<good/>");
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 200);
    wall_clock_ahead(40L * 365 * 86400);
    fake_clock_advance(HTTP_RECHECK_US - 1);
    client_request(c, "");
    fixture_answer(f, "<checked/>");
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 200);
    fake_clock_advance(1);
    client_request(c, "");
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 403);
    assert_non_null(strstr(fixture_wait_cause(f, 1), "expired"));
    assert_true(client_ended(c));
    /* An answer is checked as well. */
    wall_clock_ahead(0);
    client_text(waits, "GET " FIXTURE_WAIT_PATH " HTTP/1.1\r\nHost: x\r\n\r\n");
    x = fixture_take(f);
    wall_clock_ahead(40L * 365 * 86400);
    fake_clock_advance(HTTP_RECHECK_US);
    fixture_reply(x, 200, "<key/>");
    assert_true(client_read(waits, &a));
    wall_clock_ahead(0);
    assert_int_equal(a.status, 403);
    client_close(c);
    client_close(waits);
}

static void http_reload__keeps_the_old_files_when_one_is_broken(void **state)
{
    static const char *const files[] = {"ca.crl", "ca.crt", "server.crt", "server.key"};
    struct fixture *f = *state;
    struct answer a;

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        struct client *c;

        pki_write(f->pki, files[i], "-----BEGIN NOTHING-----\n");
        assert_int_equal(http_reload(f->http), TEKD_EINVAL);
        c = fixture_connect(f);
        client_request(c, "");
        fixture_answer(f, "<a/>");
        assert_true(client_read(c, &a));
        client_close(c);
    }
}

static void http_reload__serves_the_new_certificate(void **state)
{
    struct fixture *f = *state;
    struct client *old = fixture_connect(f), *fresh;
    X509 *seen;
    struct answer a;

    pki_renew_server(f->pki);
    assert_int_equal(http_reload(f->http), 0);
    fresh = fixture_connect(f);
    seen = SSL_get0_peer_certificate(fresh->ssl);
    assert_int_equal(X509_cmp(seen, f->pki->server.cert), 0);
    assert_int_not_equal(X509_cmp(SSL_get0_peer_certificate(old->ssl), f->pki->server.cert), 0);
    client_request(old, "");
    fixture_answer(f, "<a/>");
    assert_true(client_read(old, &a));
    client_close(old);
    client_close(fresh);
}

static void http_status__says_when_files_end(void **state)
{
    struct fixture *f = *state;
    struct http_status s;

    http_status_get(f->http, &s);
    assert_true(s.ends.crl_next_update_s > time(NULL) &&
                s.ends.crl_next_update_s <= time(NULL) + 86400);
    assert_true(s.ends.crl_this_update_s > 0 && s.ends.crl_this_update_s <= time(NULL));
    assert_true(s.ends.certificate_not_after_s > time(NULL));
    assert_true(s.ends.certificate_not_before_s > 0 &&
                s.ends.certificate_not_before_s <= time(NULL));
}

/* What the status says of the CRLs in the file, and whether a client is served. */
static void assert_crl(struct fixture *f, bool is_served, int64_t least, int64_t most)
{
    struct http_status s;
    struct answer a;
    struct client *c;

    assert_int_equal(http_reload(f->http), 0);
    http_status_get(f->http, &s);
    assert_in_range(s.ends.crl_next_update_s, least, most);
    c = fixture_connect(f);
    if (!is_served) {
        assert_true(alert_of(c) >= 0);
        return;
    }
    client_request(c, "");
    fixture_answer(f, "<a/>");
    assert_true(client_read(c, &a));
    assert_int_equal(a.status, 200);
    client_close(c);
}

static void http_status__knows_which_crl_counts(void **state)
{
    struct fixture *f = *state;
    const struct pki *p = f->pki;
    int64_t now = time(NULL);

    /* One issuer's: the older one of the file does no harm. */
    pki_write_crl(f->pki, -60);
    assert_crl(f, false, now - 61, now);
    pki_add_crl(f->pki, &p->ca, 3600);
    assert_crl(f, true, now + 3600, now + 3700);
    pki_add_crl(f->pki, &p->ca, -30);
    assert_crl(f, true, now + 3600, now + 3700);
    /* Another CA's: its clients are refused. */
    pki_add_crl(f->pki, &p->other_ca, -90);
    assert_crl(f, true, now - 91, now);
    pki_add_crl(f->pki, &p->other_ca, 1800);
    assert_crl(f, true, now + 1800, now + 1900);
    pki_write_crl(f->pki, -60);
    pki_add_crl(f->pki, &p->other_ca, 1800);
    assert_crl(f, false, now - 61, now);
    /* Without end. */
    pki_write_crl(f->pki, PKI_NO_END);
    assert_crl(f, true, 0, 0);
    pki_add_crl(f->pki, &p->other_ca, 1800);
    assert_crl(f, true, now + 1800, now + 1900);
}

/* ---- the key in the HSM ---------------------------------------------------------------------- */

static void http_signer__serves_as_a_file_does(void **state)
{
    struct fixture *f = fixture_with_signer();
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct answer a;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct client *c = client_connect(f->port, f->pki, f->me, versions[i]);
        struct http_exchange *x;

        client_request(c, "<hello/>");
        x = fixture_take(f);
        assert_memory_equal(http_exchange_peer(x)->cert_sha256, f->me->sha256, 32);
        fixture_reply(x, 200, "<a/>");
        assert_true(client_read(c, &a));
        assert_string_equal(a.body, "<a/>");
        client_close(c);
    }
    assert_int_equal(f->signing, 2);
    fixture_free(f);
}

static void http_signer__that_hangs_delays_no_open_connection(void **state)
{
    struct fixture *f = fixture_with_signer();
    struct client *c = fixture_connect(f);
    pthread_t slow;
    struct answer a;

    (void)state;
    fixture_hold_signer(f, true);
    assert_int_equal(pthread_create(&slow, NULL, fixture_ask_thread, f), 0);
    fixture_wait_signing(f, 2);
    /* While the handshake hangs: */
    for (int i = 0; i < 20; i++) {
        client_request(c, "<quick/>");
        fixture_answer(f, "<a/>");
        assert_true(client_read(c, &a));
    }
    fixture_hold_signer(f, false);
    fixture_answer(f, "<a/>");
    (void)pthread_join(slow, NULL);
    client_close(c);
    fixture_free(f);
}

static void http_signer__that_fails_fails_the_handshake(void **state)
{
    struct fixture *f = fixture_with_signer();
    struct client *c;
    struct answer a;

    (void)state;
    f->refuses = true;
    assert_int_equal(alert_of(fixture_connect(f)), SSL_AD_INTERNAL_ERROR);
    assert_string_equal(fixture_wait_cause(f, 1), "server-key");
    f->refuses = false;
    c = fixture_connect(f);
    client_request(c, "");
    fixture_answer(f, "<a/>");
    assert_true(client_read(c, &a));
    client_close(c);
    fixture_free(f);
}

static void http_signer__peers_are_refused_by_alerts_too(void **state)
{
    struct fixture *f = fixture_with_signer();

    (void)state;
    assert_int_equal(alert_of(client_connect(f->port, f->pki, NULL, 0)),
                     SSL_AD_CERTIFICATE_REQUIRED);
    assert_string_equal(fixture_wait_cause(f, 1), "no-certificate");
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(http_tls__refuses_with_an_alert_and_a_cause),
        FIXTURE_TEST(http_tls__refuses_a_client_without_certificate),
        FIXTURE_TEST(http_tls__refuses_old_versions),
        FIXTURE_TEST(http_tls__refuses_what_is_no_tls),
        FIXTURE_TEST(http_tls__hears_that_the_client_refuses_us),
        FIXTURE_TEST(http_tls__resumes_no_session),
        FIXTURE_TEST(http_tls__gives_no_tickets),
        FIXTURE_TEST(http_reload__refuses_a_revoked_peer_on_its_open_connection),
        FIXTURE_TEST(http_reload__refuses_a_revoked_peer_that_waits),
        FIXTURE_TEST(http_reload__an_expired_crl_refuses_everybody),
        FIXTURE_TEST(http__an_open_connection_does_not_outlive_the_crl),
        FIXTURE_TEST(http_reload__keeps_the_old_files_when_one_is_broken),
        FIXTURE_TEST(http_reload__serves_the_new_certificate),
        FIXTURE_TEST(http_status__says_when_files_end),
        FIXTURE_TEST(http_status__knows_which_crl_counts),
        cmocka_unit_test(http_signer__serves_as_a_file_does),
        cmocka_unit_test(http_signer__that_hangs_delays_no_open_connection),
        cmocka_unit_test(http_signer__that_fails_fails_the_handshake),
        cmocka_unit_test(http_signer__peers_are_refused_by_alerts_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
