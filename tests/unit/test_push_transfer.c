/* Transfers over loopback TLS: what leaves, what does not, and what is said of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bsa_server.h"
#include "fake_clock.h"
#include "push_wire.h"

static void fails(struct wire *w, const char *why)
{
    wire_run(w);
    assert_int_equal(w->last.status, 0);
    assert_string_equal(w->last.why, why);
}

/* ... and nothing of a request was seen by the other end. */
static void refuses(struct wire *w, const char *why)
{
    fails(w, why);
    assert_false(w->last.answered);
    assert_int_equal(push_server_requests(&w->server), 0);
}

/* ---- what goes through ----------------------------------------------------------------------- */

static void transfer_start__posts_the_message_and_gives_the_answer(void **state)
{
    struct wire *w = *state;
    uint8_t cert[32];

    wire_serve(w, "server");
    wire_run(w);
    assert_true(w->last.answered);
    assert_int_equal(w->last.status, 200);
    assert_string_equal(w->last.media, "application/xml");
    assert_string_equal(w->last_body, "<answer/>");
    push_server_sha256("server", cert);
    assert_memory_equal(w->last.cert, cert, 32);
    assert_true(strncmp(w->last.addr, "127.0.0.1:", 10) == 0);
    assert_int_equal(atoi(w->last.addr + 10), w->server.port);
    assert_non_null(strstr(w->server.seen, "POST /cp3 HTTP/1.1\r\n"));
    assert_non_null(strstr(w->server.seen, "Content-Type: application/xml\r\n"));
    assert_non_null(strstr(w->server.seen, "\r\n\r\n" WIRE_MESSAGE));
    assert_null(strstr(w->server.seen, "Expect"));
    assert_null(strstr(w->server.seen, "Cookie"));
}

static void transfer_start__uses_an_open_connection_again(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    wire_run(w);
    wire_run(w);
    wire_run(w);
    assert_int_equal(push_server_requests(&w->server), 3);
    assert_int_equal(push_server_connections(&w->server), 1);
}

static void transfer_start__gets_over_a_connection_that_was_closed(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    wire_run(w);
    push_server_cut(&w->server);
    wire_run(w);
    assert_int_equal(w->last.status, 200);
    assert_int_equal(push_server_connections(&w->server), 2);
}

static void transfer_start__follows_no_redirect(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    w->status = 307;
    w->type = "text/plain\r\nLocation: https://127.0.0.1:1/";
    w->body = "";
    wire_run(w);
    assert_int_equal(w->last.status, 307);
    assert_int_equal(push_server_requests(&w->server), 1);
}

static void transfer_start__keeps_no_cookie(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    w->type = "application/xml\r\nSet-Cookie: a=b";
    wire_run(w);
    wire_run(w);
    assert_null(strstr(w->server.seen, "Cookie"));
}

static void transfer_start__knows_no_proxy(void **state)
{
    static const char *const names[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
    struct wire *w = *state;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(setenv(names[i], "http://127.0.0.1:1", 1), 0);
    wire_serve(w, "server");
    wire_run(w);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        (void)unsetenv(names[i]);
    assert_int_equal(w->last.status, 200);
}

/* ---- who is there ---------------------------------------------------------------------------- */

static void transfer_start__says_refused(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    push_server_stop(&w->server);
    w->serving = false;
    fails(w, "refused");
    assert_false(w->last.answered);
}

static void transfer_start__refuses_an_unknown_ca(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "imitation");
    wire_use(w, wire_enrol(w, "imitation", NULL)); /* even if it were enrolled */
    refuses(w, "unknown CA");
}

static void transfer_start__refuses_another_name(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "elsewhere");
    wire_use(w, wire_enrol(w, "elsewhere", NULL));
    refuses(w, "TLS name mismatch");
}

static void transfer_start__refuses_a_certificate_that_is_not_enrolled(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    wire_use(w, wire_enrol(w, "client", NULL));
    refuses(w, "certificate not enrolled");
    assert_int_equal(push_server_handshakes(&w->server), 0);
}

static void transfer_start__takes_the_next_certificate_as_well(void **state)
{
    struct wire *w = *state;
    struct keys_peer peer = {.row = 1, .n_certs = 2};
    struct target *t = NULL;

    push_server_sha256("client", peer.cert[0]);
    push_server_sha256("server", peer.cert[1]);
    assert_int_equal(target_new(w->p, w->p->trust, &peer, &t), 0);
    wire_use(w, t);
    wire_serve(w, "server");
    wire_run(w);
    assert_int_equal(w->last.status, 200);
}

static char *read_pem(const char *identity)
{
    char path[BSA_SERVER_PATH_MAX];
    FILE *file = fopen(bsa_server_path(identity, "crt", path), "re");
    char *text = calloc(1, 8192);

    assert_true(file && fread(text, 1, 8191, file) > 0);
    (void)fclose(file);
    return text;
}

static void transfer_start__takes_a_bsas_own_ca_in_place_of_ours(void **state)
{
    struct wire *w = *state;
    AUTO_MEM char *other = read_pem("other-ca");

    wire_use(w, wire_enrol(w, "imitation", other));
    wire_serve(w, "imitation");
    wire_run(w);
    assert_int_equal(w->last.status, 200);
    /* And ours does not serve besides. */
    push_server_stop(&w->server);
    wire_use(w, wire_enrol(w, "server", other));
    wire_serve(w, "server");
    refuses(w, "unknown CA");
}

/* By an alert, or by a reset that was faster. */
static void transfer_start__says_that_our_certificate_may_be_refused(void **state)
{
    struct wire *w = *state;

    trust_unref(w->p->trust);
    w->p->trust = wire_trust("stranger", "ca", NULL);
    wire_use(w, wire_enrol(w, "server", NULL));
    wire_serve(w, "server");
    wire_run(w);
    assert_false(w->last.answered);
    assert_non_null(strstr(w->last.why, "our certificate "));
    assert_non_null(strstr(w->last.why, "refused"));
    assert_int_equal(push_server_requests(&w->server), 0);
}

/* Of the CA of bsa_server.h, with one serial number, or none, revoked. */
static void write_crl(const char *name, long serial, long good_for_s)
{
    X509_CRL *crl = X509_CRL_new();
    X509_REVOKED *revoked = X509_REVOKED_new();
    ASN1_INTEGER *number = ASN1_INTEGER_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -7200), *to = X509_gmtime_adj(NULL, good_for_s);
    char path[BSA_SERVER_PATH_MAX];
    FILE *file = fopen(bsa_server_path("ca", "crt", path), "re");
    X509 *ca = PEM_read_X509(file, NULL, NULL, NULL);
    EVP_PKEY *key;

    (void)fclose(file);
    file = fopen(bsa_server_path("ca", "key", path), "re");
    key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    (void)fclose(file);
    assert_true(ASN1_INTEGER_set(number, serial) && X509_CRL_set_version(crl, 1) &&
                X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca)) &&
                X509_CRL_set1_lastUpdate(crl, from) && X509_CRL_set1_nextUpdate(crl, to) &&
                X509_REVOKED_set_serialNumber(revoked, number) &&
                X509_REVOKED_set_revocationDate(revoked, from) &&
                X509_CRL_add0_revoked(crl, revoked) && X509_CRL_sign(crl, key, EVP_sha256()) > 0);
    file = fopen(bsa_server_path(name, "crl", path), "we");
    assert_true(PEM_write_X509_CRL(file, crl));
    (void)fclose(file);
    X509_CRL_free(crl);
    ASN1_INTEGER_free(number);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    X509_free(ca);
    EVP_PKEY_free(key);
}

static long serial_of(const char *identity)
{
    AUTO_MEM char *pem = read_pem(identity);
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(x));

    X509_free(x);
    BIO_free(bio);
    return serial;
}

static void use_crl(struct wire *w, long revoked, long good_for_s)
{
    char path[BSA_SERVER_PATH_MAX];

    write_crl("test", revoked, good_for_s);
    trust_unref(w->p->trust);
    w->p->trust = wire_trust("client", "ca", "test");
    (void)unlink(bsa_server_path("test", "crl", path));
    wire_use(w, wire_enrol(w, "server", NULL));
}

static void transfer_start__refuses_a_revoked_certificate(void **state)
{
    struct wire *w = *state;

    use_crl(w, serial_of("server"), 3600);
    wire_serve(w, "server");
    refuses(w, "certificate revoked");
}

static void transfer_start__refuses_everybody_by_an_expired_crl(void **state)
{
    struct wire *w = *state;

    use_crl(w, 9999, -60);
    wire_serve(w, "server");
    refuses(w, "CRL expired");
}

static void transfer_start__takes_who_is_not_revoked(void **state)
{
    struct wire *w = *state;

    use_crl(w, 9999, 3600);
    wire_serve(w, "server");
    wire_run(w);
    assert_int_equal(w->last.status, 200);
}

static void transfer_start__asks_no_crl_of_a_bsas_own_ca(void **state)
{
    struct wire *w = *state;
    AUTO_MEM char *other = read_pem("other-ca");

    use_crl(w, 9999, 3600);
    wire_use(w, wire_enrol(w, "imitation", other));
    wire_serve(w, "imitation");
    wire_run(w);
    assert_int_equal(w->last.status, 200);
    push_server_stop(&w->server);
    wire_use(w, wire_enrol(w, "client", other)); /* which makes nobody else welcome */
    wire_serve(w, "imitation");
    refuses(w, "certificate not enrolled");
}

/* ---- connections and their target ------------------------------------------------------------ */

static void transfer_start__uses_no_connection_of_another_target(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    wire_run(w);
    wire_use(w, wire_enrol(w, "server", NULL)); /* as after a reload */
    wire_run(w);
    assert_int_equal(w->last.status, 200);
    assert_int_equal(push_server_connections(&w->server), 2);
    wire_run(w);
    assert_int_equal(push_server_connections(&w->server), 2);
}

static void transfer_start__sends_nothing_on_a_connection_of_before(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    wire_run(w);
    wire_use(w, wire_enrol(w, "client", NULL)); /* the enrolment has changed */
    fails(w, "certificate not enrolled");
    assert_int_equal(push_server_requests(&w->server), 1);
    assert_int_equal(push_server_connections(&w->server), 2);
}

static void transfer_start__takes_no_session_up_again(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    wire_run(w);
    push_server_cut(&w->server);
    wire_use(w, wire_enrol(w, "client", NULL));
    fails(w, "certificate not enrolled");
    assert_int_equal(push_server_handshakes(&w->server), 1);
}

/* ---- answers that are none ------------------------------------------------------------------- */

static void fails_by(struct wire *w, enum push_server_way way, const char *why, bool answered)
{
    w->way = way;
    wire_serve(w, "server");
    fails(w, why);
    assert_int_equal(w->last.answered, answered);
    assert_true(w->last_len <= PUSH_ANSWER_MAX);
}

static void transfer_start__reads_no_more_than_an_answer_may_have(void **state)
{
    fails_by(*state, WAY_TEN_MB, "answer longer than 65536 octets", true);
}

/* To the octet. */
static void transfer_start__reads_all_that_an_answer_may_have(void **state)
{
    static char body[PUSH_ANSWER_MAX + 2];
    struct wire *w = *state;

    memset(body, 'x', PUSH_ANSWER_MAX);
    w->body = body;
    wire_serve(w, "server");
    wire_run(w);
    assert_int_equal(w->last.status, 200);
    assert_string_equal(w->last.why, "");
    assert_int_equal(w->last_len, PUSH_ANSWER_MAX);
    assert_int_equal(PUSH_ANSWER_MAX, 65536);
    body[PUSH_ANSWER_MAX] = 'x';
    fails(w, "answer longer than 65536 octets");
    assert_true(w->last.answered);
    assert_true(w->last_len <= PUSH_ANSWER_MAX);
}

static void transfer_start__reads_no_header_without_end(void **state)
{
    fails_by(*state, WAY_HEADERS, "header of the answer longer than 16384 octets", true);
}

static void transfer_start__says_that_the_connection_was_cut(void **state)
{
    static const char text[] = "connection cut before an answer";
    struct wire *w = *state;

    w->way = WAY_RESET;
    wire_serve(w, "server");
    wire_run(w);
    assert_false(w->last.answered);
    assert_memory_equal(w->last.why, text, sizeof(text) - 1);
}

static void transfer_start__says_what_is_no_http(void **state)
{
    struct wire *w = *state;

    w->way = WAY_CLOSE;
    wire_serve(w, "server");
    wire_start(w);
    w->status = 99999; /* no status line */
    wire_until(w, 1);
    assert_int_equal(w->last.status, 0);
    assert_true(w->last.why[0] != '\0');
}

static void times_out(struct wire *w, const char *why)
{
    for (unsigned i = 0; i < 5; i++)
        transfers_turn(w->p, WIRE_TURN_US);
    assert_int_equal(w->outcomes, 0);
    fake_clock_advance(WIRE_ATTEMPT_US - 1);
    transfers_turn(w->p, 0);
    assert_int_equal(w->outcomes, 0);
    fake_clock_advance(1);
    transfers_turn(w->p, 0);
    assert_int_equal(w->outcomes, 1);
    assert_false(w->last.answered);
    assert_string_equal(w->last.why, why);
}

static void transfer_start__times_out_without_an_answer(void **state)
{
    struct wire *w = *state;

    w->way = WAY_HANG;
    wire_serve(w, "server");
    wire_start(w);
    for (unsigned i = 0; i < WIRE_TURNS_MAX && push_server_requests(&w->server) == 0; i++)
        transfers_turn(w->p, WIRE_TURN_US);
    times_out(w, "time-out waiting for the answer");
}

static void transfer_start__times_out_with_a_part_of_an_answer(void **state)
{
    struct wire *w = *state;

    w->way = WAY_TRICKLE;
    wire_serve(w, "server");
    wire_start(w);
    for (unsigned i = 0; i < WIRE_TURNS_MAX && push_server_requests(&w->server) == 0; i++)
        transfers_turn(w->p, WIRE_TURN_US);
    times_out(w, "time-out waiting for the answer");
}

static void transfer_start__times_out_in_the_handshake(void **state)
{
    struct wire *w = *state;

    push_server_start(&w->server, "server", wire_say, w);
    w->serving = true;
    w->server.hang_in_handshake = true;
    wire_start(w);
    for (unsigned i = 0; i < WIRE_TURNS_MAX && push_server_connections(&w->server) == 0; i++)
        transfers_turn(w->p, WIRE_TURN_US);
    times_out(w, "time-out in the TLS handshake");
}

static void transfer_start__hangs_with_nobody_else(void **state)
{
    struct wire *w = *state;
    struct push_server other;
    struct wire fine = {.status = 200, .type = "application/xml", .body = "<fine/>"};
    char url[64];

    w->way = WAY_HANG;
    wire_serve(w, "server");
    push_server_start(&other, "server", wire_say, &fine);
    wire_start(w);
    for (unsigned i = 1; i <= 20; i++) {
        wire_start_to(w, w->target, push_server_url(&other, url));
        wire_until(w, i);
        assert_string_equal(w->last_body, "<fine/>");
    }
    assert_int_equal(transfers_count(w->p->transfers), 1);
    push_server_stop(&other);
}

static void transfers_cut__leaves_nothing(void **state)
{
    struct wire *w = *state;

    w->way = WAY_HANG;
    wire_serve(w, "server");
    wire_start(w);
    wire_start(w);
    transfers_turn(w->p, WIRE_TURN_US);
    transfers_cut(w->p->transfers);
    assert_int_equal(transfers_count(w->p->transfers), 0);
    assert_int_equal(w->outcomes, 0);
}

/* ---- URLs ------------------------------------------------------------------------------------ */

static void fails_with_url(struct wire *w, const char *url, const char *why)
{
    unsigned n = w->outcomes + 1;

    wire_start_to(w, w->target, url);
    wire_until(w, n);
    assert_int_equal(w->last.status, 0);
    assert_string_equal(w->last.why, why);
}

static void transfer_start__knows_https_only(void **state)
{
    struct wire *w = *state;
    char url[64];

    fails_with_url(w, "http://127.0.0.1:1/", "not an HTTPS URL, or not an HTTP answer");
    fails_with_url(w, "file:///etc/passwd", "not an HTTPS URL, or not an HTTP answer");
    fails_with_url(w, "https://", "the URL cannot be used");
    fails_with_url(w, "https://user:word@127.0.0.1:1/", "a user name in the URL");
    wire_serve(w, "server");
    (void)snprintf(url, sizeof(url), "https://no-such-host.invalid:%u/", w->server.port);
    fails_with_url(w, url, "host name not found");
}

static void request_addr__is_host_and_port(void **state)
{
    static const struct {
        const char *url, *addr;
    } table[] = {
        {"https://bsa-1.example.net/cp3", "bsa-1.example.net:443"},
        {"https://127.0.0.1:8443/a?b", "127.0.0.1:8443"},
        {"https://[::1]:9/", "[::1]:9"},
        {"https://\xc3\xa4.example/", "??.example:443"},
        {"nonsense://", ""},
        {"", ""},
    };
    char addr[PUSH_ADDR_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        request_addr(table[i].url, addr);
        assert_string_equal(addr, table[i].addr);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(transfer_start__posts_the_message_and_gives_the_answer),
        WIRE_TEST(transfer_start__uses_an_open_connection_again),
        WIRE_TEST(transfer_start__gets_over_a_connection_that_was_closed),
        WIRE_TEST(transfer_start__follows_no_redirect),
        WIRE_TEST(transfer_start__keeps_no_cookie),
        WIRE_TEST(transfer_start__knows_no_proxy),
        WIRE_TEST(transfer_start__says_refused),
        WIRE_TEST(transfer_start__refuses_an_unknown_ca),
        WIRE_TEST(transfer_start__refuses_another_name),
        WIRE_TEST(transfer_start__refuses_a_certificate_that_is_not_enrolled),
        WIRE_TEST(transfer_start__takes_the_next_certificate_as_well),
        WIRE_TEST(transfer_start__takes_a_bsas_own_ca_in_place_of_ours),
        WIRE_TEST(transfer_start__says_that_our_certificate_may_be_refused),
        WIRE_TEST(transfer_start__refuses_a_revoked_certificate),
        WIRE_TEST(transfer_start__refuses_everybody_by_an_expired_crl),
        WIRE_TEST(transfer_start__takes_who_is_not_revoked),
        WIRE_TEST(transfer_start__asks_no_crl_of_a_bsas_own_ca),
        WIRE_TEST(transfer_start__uses_no_connection_of_another_target),
        WIRE_TEST(transfer_start__sends_nothing_on_a_connection_of_before),
        WIRE_TEST(transfer_start__takes_no_session_up_again),
        WIRE_TEST(transfer_start__reads_no_more_than_an_answer_may_have),
        WIRE_TEST(transfer_start__reads_all_that_an_answer_may_have),
        WIRE_TEST(transfer_start__reads_no_header_without_end),
        WIRE_TEST(transfer_start__says_that_the_connection_was_cut),
        WIRE_TEST(transfer_start__says_what_is_no_http),
        WIRE_TEST(transfer_start__times_out_without_an_answer),
        WIRE_TEST(transfer_start__times_out_with_a_part_of_an_answer),
        WIRE_TEST(transfer_start__times_out_in_the_handshake),
        WIRE_TEST(transfer_start__hangs_with_nobody_else),
        WIRE_TEST(transfers_cut__leaves_nothing),
        WIRE_TEST(transfer_start__knows_https_only),
        cmocka_unit_test(request_addr__is_host_and_port),
    };

    return cmocka_run_group_tests(tests, bsa_server_make_pki, bsa_server_remove_pki);
}
