/* Starts, stops and reloads of the push service, with things under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bsa_server.h"
#include "push_fixture.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "wall_clock.h"

/* ---- stops and starts ------------------------------------------------------------------------ */

static void push_start__sends_again_what_was_in_flight(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_HANGS);
    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    courier_stop(c);
    assert_true(is_state(c, mid, STORE_DELIVERY_IN_FLIGHT));
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    courier_restart(c);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(service_count(c->s, "delivery.unknown", "mid", mid), 1);
    assert_int_equal(delivery_row(c->s, mid).attempts, 2);
    assert_true(bsa_saw_same(&c->bsa[0], 0, 1));
    assert_true(courier_logged("event=were-in-flight", "deliveries=1"));
}

static void push_start__knows_that_what_is_prepared_has_not_left(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_FAILS);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "HTTP 500");
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    courier_restart(c);
    assert_int_equal(service_count(c->s, "delivery.unknown", NULL, NULL), 0);
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

static void push_start__goes_through_many_in_flight(void **state)
{
    struct courier *c = *state;
    char mid[70][MID_SIZE];

    courier_stop(c);
    for (unsigned i = 0; i < 70; i++) {
        send_to(c, &c->bsa[i % 3], mid[i]);
        delivery_claim(c->s, mid[i]);
    }
    assert_int_equal(service_enable(c->s, c->bsa[2].peer, false), 0); /* that is no matter */
    courier_restart(c);
    assert_int_equal(service_count(c->s, "delivery.unknown", NULL, NULL), 70);
    for (unsigned i = 0; i < 70; i++)
        if (i % 3 != 2)
            until_state(c, mid[i], STORE_DELIVERY_CONFIRMED);
    assert_true(is_state(c, mid[2], STORE_DELIVERY_UNKNOWN));
}

static void push_stop__lets_an_attempt_end(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    push_stop(c->push, clock_mono_us() + 5 * S);
    assert_true(is_state(c, mid, STORE_DELIVERY_CONFIRMED));
}

static void push_stop__leaves_what_is_not_claimed(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    courier_stop(c);
    send_to(c, &c->bsa[0], mid);
    assert_true(is_state(c, mid, STORE_DELIVERY_PREPARED));
    assert_int_equal(delivery_row(c->s, mid).attempts, 0);
}

/* A claim that is signed when tekd stops does not leave, and is known not to have. */
static void push_stop__puts_back_what_was_claimed_too_late(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];
    unsigned entered;

    bsa_set_mode(&c->bsa[0], BSA_FAILS);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "HTTP 500");
    entered = store_signer_entered(c->s->signer);
    store_signer_hold(c->s->signer);
    fake_clock_advance(S);
    store_signer_wait_entered(c->s->signer, entered + 1);
    until_state(c, mid, STORE_DELIVERY_IN_FLIGHT);
    courier_stop(c); /* time goes on, so the store gives up on the signer */
    store_signer_release(c->s->signer);
    assert_true(is_state(c, mid, STORE_DELIVERY_PREPARED));
    assert_int_equal(bsa_seen(&c->bsa[0]), 1);
}

static void push_stop__takes_a_service_twice(void **state)
{
    struct courier *c = *state;

    push_stop(c->push, clock_mono_us() + 5 * S);
    push_stop(c->push, clock_mono_us() + 5 * S);
    push_stop(NULL, 0);
    push_free(NULL);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void start_fails_with(int error, const struct push_options *o)
{
    struct push *p = NULL;

    assert_int_equal(push_start(o, &p), error);
    assert_null(p);
}

static void start_fails(const struct push_options *o)
{
    start_fails_with(TEKD_EINVAL, o);
}

static void push_start__wants_files_that_can_be_used(void **state)
{
    static char other[BSA_SERVER_PATH_MAX];
    struct courier *c = *state;
    struct push_options o = c->o;

    courier_stop(c);
    o.certificate = "/no/such/file";
    start_fails(&o);
    o = c->o;
    o.certificate = o.key_file; /* PEM, but no certificate */
    start_fails(&o);
    o = c->o;
    o.key_file = "/no/such/file";
    start_fails(&o);
    o = c->o;
    o.key_file = bsa_server_path("server", "key", other); /* of another certificate */
    start_fails(&o);
    o = c->o;
    o.ca = o.key_file;
    start_fails(&o);
    o = c->o;
    o.crl = o.ca; /* no CRL */
    start_fails(&o);
    o = c->o;
    o.key_file = NULL; /* and no signer */
    start_fails(&o);
}

static void push_start__wants_a_key_file_of_nobody_else(void **state)
{
    static char copy[BSA_SERVER_PATH_MAX];
    struct courier *c = *state;
    struct push_options o = c->o;
    char command[2 * BSA_SERVER_PATH_MAX + 32];

    courier_stop(c);
    o.key_file = bsa_server_path("open", "key", copy);
    (void)snprintf(command, sizeof(command), "cp %s %s && chmod 0644 %s", c->o.key_file, copy,
                   copy);
    assert_int_equal(system(command), 0);
    start_fails_with(TEKD_EDENIED, &o);
    assert_int_equal(unlink(copy), 0);
}

static void copy_file(const char *from, const char *to)
{
    char command[512];

    (void)snprintf(command, sizeof(command), "cp -p '%s' '%s'", from, to);
    assert_int_equal(system(command), 0);
}

/* The service with files of its own, which a test may change. */
struct files {
    char certificate[BSA_SERVER_PATH_MAX], key[BSA_SERVER_PATH_MAX], ca[BSA_SERVER_PATH_MAX];
};

static void use_files(struct courier *c, struct files *f)
{
    (void)bsa_server_path("ours", "crt", f->certificate);
    (void)bsa_server_path("ours", "key", f->key);
    (void)bsa_server_path("ours", "ca", f->ca);
    copy_file(c->o.certificate, f->certificate);
    copy_file(c->o.key_file, f->key);
    copy_file(c->o.ca, f->ca);
    c->o.certificate = f->certificate;
    c->o.key_file = f->key;
    c->o.ca = f->ca;
    courier_restart(c);
}

static void remove_files(const struct files *f)
{
    assert_int_equal(unlink(f->certificate) | unlink(f->key) | unlink(f->ca), 0);
}

static void delivers(struct courier *c)
{
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

static void reloads(struct courier *c)
{
    struct trust *files;

    assert_int_equal(push_read_files(c->push, &files), 0);
    push_use_files(c->push, files);
}

static void push_use_files__is_what_the_files_say_now(void **state)
{
    struct courier *c = *state;
    struct files f;
    char path[BSA_SERVER_PATH_MAX], mid[MID_SIZE];

    use_files(c, &f);
    delivers(c);
    /* Another CA: the open connection is not good any more, either. */
    copy_file(bsa_server_path("other-ca", "crt", path), f.ca);
    reloads(c);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "unknown CA");
    copy_file(bsa_server_path("ca", "crt", path), f.ca);
    reloads(c);
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    remove_files(&f);
}

static void push_read_files__keeps_all_when_one_does_not_parse(void **state)
{
    struct courier *c = *state;
    struct trust *read = NULL;
    struct files f;
    char path[BSA_SERVER_PATH_MAX];

    use_files(c, &f);
    delivers(c);
    copy_file(bsa_server_path("other-ca", "crt", path), f.ca);
    copy_file(f.key, f.certificate);
    assert_int_equal(push_read_files(c->push, &read), TEKD_EINVAL);
    delivers(c);
    assert_int_equal(push_server_connections(&c->bsa[0].server), 1);
    remove_files(&f);
}

/* It is looked at again when the check of the handshake is a minute old. */
static void push__an_open_connection_does_not_outlive_its_certificate(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    delivers(c);
    fake_clock_advance(60 * S);
    delivers(c);
    wall_clock_ahead(INT64_C(40) * 365 * 86400);
    delivers(c);
    assert_int_equal(push_server_connections(&c->bsa[0].server), 1);
    fake_clock_advance(60 * S);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "certificate expired");
    wall_clock_ahead(0);
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        COURIER_TEST(push_start__sends_again_what_was_in_flight),
        COURIER_TEST(push_start__knows_that_what_is_prepared_has_not_left),
        COURIER_TEST(push_start__goes_through_many_in_flight),
        COURIER_TEST(push_stop__lets_an_attempt_end),
        COURIER_TEST(push_stop__leaves_what_is_not_claimed),
        COURIER_TEST(push_stop__puts_back_what_was_claimed_too_late),
        COURIER_TEST(push_stop__takes_a_service_twice),
        COURIER_TEST(push_start__wants_files_that_can_be_used),
        COURIER_TEST(push_start__wants_a_key_file_of_nobody_else),
        COURIER_TEST(push__an_open_connection_does_not_outlive_its_certificate),
        COURIER_TEST(push_use_files__is_what_the_files_say_now),
        COURIER_TEST(push_read_files__keeps_all_when_one_does_not_parse),
    };

    return cmocka_run_group_tests(tests, courier_make_pki, bsa_server_remove_pki);
}
