/* Handshakes whose signature is made elsewhere, and takes its time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

#include "bsa_server.h"
#include "fake_clock.h"
#include "push_wire.h"
#include "tekd/err.h"

/* ---- a signer that can be held --------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool held;
    int error;
    unsigned entered;
    EVP_PKEY *key;
} signer = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int sign(void *arg, const uint8_t *digest, size_t len, uint8_t *out, size_t *inout_len)
{
    EVP_PKEY_CTX *ctx;
    int ok, error;

    (void)arg;
    (void)pthread_mutex_lock(&signer.lock);
    signer.entered++;
    (void)pthread_cond_broadcast(&signer.changed);
    while (signer.held)
        (void)pthread_cond_wait(&signer.changed, &signer.lock);
    error = signer.error;
    (void)pthread_mutex_unlock(&signer.lock);
    if (error < 0)
        return error;
    ctx = EVP_PKEY_CTX_new(signer.key, NULL);
    ok =
        ctx && EVP_PKEY_sign_init(ctx) == 1 && EVP_PKEY_sign(ctx, out, inout_len, digest, len) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok ? 0 : TEKD_ECRYPTO;
}

static void hold(bool held)
{
    (void)pthread_mutex_lock(&signer.lock);
    signer.held = held;
    (void)pthread_cond_broadcast(&signer.changed);
    (void)pthread_mutex_unlock(&signer.lock);
}

static unsigned entered(void)
{
    unsigned n;

    (void)pthread_mutex_lock(&signer.lock);
    n = signer.entered;
    (void)pthread_mutex_unlock(&signer.lock);
    return n;
}

/* ---- the fixture: our key is not in the files ------------------------------------------------ */

static int set_up(void **state)
{
    const struct push_options o = {.signer = {.sign = sign}};
    struct wire *w;

    if (wire_set_up(state) < 0)
        return -1;
    w = *state;
    EVP_PKEY_free(signer.key);
    signer.key = w->p->trust->key;
    signer.entered = 0;
    signer.error = 0;
    w->p->trust->key = NULL;
    return signing_new(w->p, &o, &w->p->signing);
}

static int tear_down(void **state)
{
    hold(false);
    return wire_tear_down(state);
}
#define SIGN_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void turn_until_signing(struct wire *w, unsigned n)
{
    for (unsigned i = 0; i < WIRE_TURNS_MAX && entered() < n; i++)
        transfers_turn(w->p, WIRE_TURN_US);
    assert_int_equal(entered(), n);
}

/* A sanitizer's build signs on the thread, so what depends on that it does not is left out. */
static bool blocks(void)
{
    if (!signing_is_apart())
        print_message("the signature blocks in this build\n");
    return !signing_is_apart();
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void signing_key__signs_handshakes(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    wire_run(w);
    assert_int_equal(w->last.status, 200);
    assert_int_equal(entered(), 1);
    wire_run(w);
    assert_int_equal(entered(), 1); /* the connection was open */
}

static void signing_key__holds_nobody_whose_connection_is_open(void **state)
{
    struct wire *w = *state;
    struct push_server other;
    struct wire fine = {.status = 200, .type = "application/xml", .body = "<fine/>"};
    char url[64];

    if (blocks())
        return;
    wire_serve(w, "server");
    push_server_start(&other, "server", wire_say, &fine);
    wire_start_to(w, w->target, push_server_url(&other, url));
    wire_until(w, 1);
    hold(true);
    wire_start(w);
    turn_until_signing(w, 2);
    for (unsigned i = 2; i < 12; i++) {
        wire_start_to(w, w->target, url);
        wire_until(w, i);
        assert_string_equal(w->last_body, "<fine/>");
    }
    hold(false);
    wire_until(w, 12);
    assert_string_equal(w->last_body, "<answer/>");
    push_server_stop(&other);
}

static void signing_key__signs_for_many_at_a_time(void **state)
{
    struct wire *w = *state;

    if (blocks())
        return;
    wire_serve(w, "server");
    hold(true);
    for (unsigned i = 0; i < 20; i++)
        wire_start(w);
    turn_until_signing(w, 1);
    hold(false);
    wire_until(w, 20);
    assert_int_equal(w->last.status, 200);
    assert_int_equal(push_server_requests(&w->server), 20);
}

static void signing_key__fails_with_its_reason(void **state)
{
    struct wire *w = *state;

    wire_serve(w, "server");
    signer.error = TEKD_EHSM;
    wire_run(w);
    assert_int_equal(w->last.status, 0);
    assert_false(w->last.answered);
    assert_string_equal(w->last.why, "the HSM did not sign the TLS handshake");
    assert_int_equal(push_server_requests(&w->server), 0);
    signer.error = 0;
    wire_run(w);
    assert_int_equal(w->last.status, 200);
}

/* A handshake is not taken back while it waits for its signature. */
static void signing_key__ends_a_time_out_when_the_signature_is_there(void **state)
{
    struct wire *w = *state;

    if (blocks())
        return;
    wire_serve(w, "server");
    hold(true);
    wire_start(w);
    turn_until_signing(w, 1);
    fake_clock_advance(WIRE_ATTEMPT_US);
    transfers_turn(w->p, 0);
    transfers_cut(w->p->transfers);
    assert_int_equal(transfers_count(w->p->transfers), 1);
    assert_int_equal(w->outcomes, 0);
    hold(false);
    wire_until(w, 1);
    assert_memory_equal(w->last.why, "time-out", 8);
}

/* Of two, the second waits for the first; by then its time is over and the HSM is not asked. */
static void signing_key__does_not_sign_what_is_too_late(void **state)
{
    struct wire *w = *state;

    if (blocks())
        return;
    wire_serve(w, "server");
    hold(true);
    wire_start(w);
    wire_start(w);
    turn_until_signing(w, 1);
    for (unsigned i = 0; i < WIRE_TURNS_MAX && push_server_connections(&w->server) < 2; i++)
        transfers_turn(w->p, WIRE_TURN_US);
    for (unsigned i = 0; i < 20; i++) /* it has asked for its signature by now */
        transfers_turn(w->p, WIRE_TURN_US);
    fake_clock_advance(WIRE_ATTEMPT_US);
    hold(false);
    wire_until(w, 2);
    assert_int_equal(entered(), 1);
}

/* With no private key in the file the certificate has to be one that the HSM can sign for. */
static void trust_new__wants_an_ec_certificate_for_the_hsm(void **state)
{
    char path[BSA_SERVER_PATH_MAX], crt[BSA_SERVER_PATH_MAX], ca[BSA_SERVER_PATH_MAX];
    struct trust_files files = {.certificate = crt,
                                .ca = (char *)(uintptr_t)bsa_server_path("ca", "crt", ca)};
    EVP_PKEY *rsa = EVP_RSA_gen(2048);
    X509 *x = X509_new();
    struct trust *t = NULL;
    FILE *f;

    (void)state;
    assert_true(rsa && X509_set_pubkey(x, rsa) == 1 && X509_gmtime_adj(X509_getm_notBefore(x), 0) &&
                X509_gmtime_adj(X509_getm_notAfter(x), 60) && X509_sign(x, rsa, EVP_sha256()) > 0);
    (void)snprintf(crt, sizeof(crt), "%s", bsa_server_path("rsa", "crt", path));
    f = fopen(crt, "we");
    assert_true(f && PEM_write_X509(f, x) == 1 && fclose(f) == 0);
    assert_int_equal(trust_new(&files, &t), TEKD_EINVAL);
    assert_int_equal(remove(crt), 0);
    (void)snprintf(crt, sizeof(crt), "%s", bsa_server_path("client", "crt", path));
    assert_int_equal(trust_new(&files, &t), 0);
    trust_unref(t);
    X509_free(x);
    EVP_PKEY_free(rsa);
}

static int remove_pki(void **state)
{
    EVP_PKEY_free(signer.key);
    return bsa_server_remove_pki(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SIGN_TEST(signing_key__signs_handshakes),
        SIGN_TEST(signing_key__holds_nobody_whose_connection_is_open),
        SIGN_TEST(signing_key__signs_for_many_at_a_time),
        SIGN_TEST(signing_key__fails_with_its_reason),
        SIGN_TEST(signing_key__ends_a_time_out_when_the_signature_is_there),
        SIGN_TEST(signing_key__does_not_sign_what_is_too_late),
        cmocka_unit_test(trust_new__wants_an_ec_certificate_for_the_hsm),
    };

    return cmocka_run_group_tests(tests, bsa_server_make_pki, remove_pki);
}
