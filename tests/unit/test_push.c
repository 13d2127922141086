/* The whole push service: what becomes of a delivery by what its BSA does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsa_server.h"
#include "push_fixture.h"
#include "tekd/clock.h"
#include "tekd/err.h"

/* ---- confirmed ------------------------------------------------------------------------------- */

static void push__delivers_and_has_it_confirmed(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE], out[256], addr[64];
    struct store_delivery d;

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    d = delivery_row(c->s, mid);
    assert_int_equal(d.attempts, 1);
    assert_string_equal(d.why, "");
    assert_string_equal(c->bsa[0].mid[0], mid);
    assert_memory_equal(c->bsa[0].sha256[0], d.out_sha256, 32);
    (void)snprintf(addr, sizeof(addr), "127.0.0.1:%u", c->bsa[0].server.port);
    assert_int_equal(service_count(c->s, "delivery.prepared", "mid", mid), 1);
    assert_int_equal(service_count(c->s, "delivery.attempt", "mid", mid), 1);
    assert_string_equal(service_last(c->s, "delivery.attempt", "addr", out), addr);
    assert_string_equal(service_last(c->s, "delivery.attempt", "peer", out), "bsa-1");
    assert_int_equal(service_count(c->s, "delivery.confirmed", "mid", mid), 1);
    assert_string_equal(service_last(c->s, "delivery.confirmed", "addr", out), addr);
}

/* The record names the certificate that was at the other end, on connections old and new. */
static void push__records_the_servers_certificate(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE], out[256], hex[65];
    uint8_t cert[32];

    push_server_sha256("server", cert);
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", cert[i]);
    for (unsigned i = 0; i < 2; i++) {
        send_to(c, &c->bsa[0], mid);
        until_state(c, mid, STORE_DELIVERY_CONFIRMED);
        assert_string_equal(service_last(c->s, "delivery.confirmed", "cert", out), hex);
    }
    assert_int_equal(push_server_connections(&c->bsa[0].server), 1);
}

static void push__takes_an_efficient_confirmation(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS_EFFICIENT);
    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

static void push__waits_for_a_confirmation_by_post(void **state)
{
    struct courier *c = *state;
    struct cp3_message m;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_TAKES);
    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    assert_true(is_state(c, mid, STORE_DELIVERY_IN_FLIGHT));
    m = confirm_message(c->bsa[0].peer, mid, NEWS, CP3_STATUS_OK);
    assert_int_equal(confirm(c->s, c->bsa[0].peer, &m, NULL), 204);
    assert_true(is_state(c, mid, STORE_DELIVERY_CONFIRMED));
    until_quiet(c);
    fake_clock_advance(600 * S);
    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 2);
}

/* A lease is as long as an attempt may take and the pause behind it. */
static void push__sends_again_what_was_taken_and_not_confirmed(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];
    int64_t lease;

    bsa_set_mode(&c->bsa[0], BSA_TAKES);
    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    until_quiet(c);
    lease = delivery_row(c->s, mid).next_us - clock_utc_us();
    assert_true(lease > ATTEMPT_S * S && lease <= (ATTEMPT_S + 1) * S);
    assert_string_equal(delivery_row(c->s, mid).why, "");
    fake_clock_advance(lease);
    UNTIL(bsa_seen(&c->bsa[0]) == 2);
    assert_string_equal(delivery_row(c->s, mid).why, "no confirmation came");
    until_quiet(c);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(delivery_row(c->s, mid).next_us - clock_utc_us());
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    assert_string_equal(delivery_row(c->s, mid).why, "");
    assert_int_equal(delivery_row(c->s, mid).attempts, 3);
    assert_int_equal(bsa_seen(&c->bsa[0]), 3);
    assert_true(bsa_saw_same(&c->bsa[0], 0, 1) && bsa_saw_same(&c->bsa[0], 1, 2));
}

/* ---- not confirmed --------------------------------------------------------------------------- */

static void push__is_rejected_and_tries_again(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_REJECTS);
    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_REJECTED);
    assert_string_equal(delivery_row(c->s, mid).why, "Status 1");
    UNTIL(courier_logged("event=rejected", mid));
    assert_int_equal(service_count(c->s, "delivery.rejected", "mid", mid), 1);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(S); /* the rest of its lease is not waited for */
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    assert_true(bsa_saw_same(&c->bsa[0], 0, 1));
}

/* A Status 1 that is POSTed behind a 202 is as loud, and counts as much. */
static void push__is_rejected_by_post(void **state)
{
    struct courier *c = *state;
    struct push_status status;
    struct cp3_message m;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_TAKES);
    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    m = confirm_message(c->bsa[0].peer, mid, NEWS, CP3_STATUS_REFUSED);
    assert_int_equal(confirm(c->s, c->bsa[0].peer, &m, NULL), 204);
    assert_true(courier_logged("warn push event=rejected", mid));
    assert_int_equal(push_status_get(c->push, &status), 0);
    assert_int_equal(status.rejected, 1);
    m.status = CP3_STATUS_OK;
    assert_int_equal(confirm(c->s, c->bsa[0].peer, &m, NULL), 204);
    assert_int_equal(push_status_get(c->push, &status), 0);
    assert_int_equal(status.confirmed, 1);
}

/* What is in the row and the log for each of these; and the next attempt, of the same octets, is
 * confirmed. */
static void fails_by(struct courier *c, enum bsa_mode mode, const char *why)
{
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], mode);
    send_to(c, &c->bsa[0], mid);
    UNTIL(delivery_row(c->s, mid).why[0] != '\0');
    assert_memory_equal(delivery_row(c->s, mid).why, why, strlen(why));
    assert_true(is_state(c, mid, STORE_DELIVERY_PREPARED));
    assert_true(courier_logged("event=attempt-failed", mid));
    assert_int_equal(service_count(c->s, "delivery.confirmed", "mid", mid), 0);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(2 * S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(delivery_row(c->s, mid).attempts, 2);
    assert_true(bsa_saw_same(&c->bsa[0], 0, 1));
}

static void push__fails_by_an_http_error(void **state)
{
    fails_by(*state, BSA_FAILS, "HTTP 500");
}

static void push__fails_by_html(void **state)
{
    fails_by(*state, BSA_TALKS, "not a confirmation: its media type is \"text/html\"");
}

static void push__fails_by_a_redirect(void **state)
{
    fails_by(*state, BSA_REDIRECTS, "HTTP 307: redirects are not followed");
}

static void push__fails_by_too_long_an_answer(void **state)
{
    fails_by(*state, BSA_FLOODS, "answer longer than 65536 octets");
}

static void push__fails_by_a_reset(void **state)
{
    fails_by(*state, BSA_RESETS, "connection cut before an answer");
}

static void push__fails_by_a_time_out(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_HANGS);
    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(ATTEMPT_S * S);
    until_failed(c, mid, "time-out waiting for the answer");
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    assert_true(bsa_saw_same(&c->bsa[0], 0, 1));
    UNTIL(courier_logged("event=bsa-answers-again", "bsa=bsa-1"));
}

static void push__fails_by_no_server(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];
    uint16_t port = c->bsa[0].server.port;

    push_server_stop(&c->bsa[0].server);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "refused");
    push_server_start_at(&c->bsa[0].server, port);
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

static void push__fails_by_a_certificate_that_is_not_enrolled(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_identity(c, &c->bsa[0], "elsewhere");
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "certificate not enrolled");
    assert_int_equal(bsa_seen(&c->bsa[0]), 0);
    bsa_set_identity(c, &c->bsa[0], "server");
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

/* A connection that was good is not, once its certificate is enrolled no more. */
static int break_ca(void *arg, struct store_tx *tx)
{
    AUTO(store_bsa) struct store_bsa *b = NULL;
    int r = store_tx_bsa_find(tx, arg, &b);

    if (r < 0)
        return r;
    free(b->ca_pem);
    b->ca_pem = strdup("-----BEGIN CERTIFICATE-----\nAAAA\n");
    return store_tx_bsa_update(tx, b);
}

/* As one that was taken when less of it was looked at. */
static void push__fails_by_a_ca_that_cannot_be_read(void **state)
{
    struct courier *c = *state;
    struct store_delivery d;
    char mid[MID_SIZE];

    assert_int_equal(store_call(c->s->store, STORE_DURABLE, break_ca, "bsa-1"), 0);
    courier_restart(c);
    send_to(c, &c->bsa[0], mid);
    do
        d = delivery_row(c->s, mid);
    while (d.attempts == 0 || d.state != STORE_DELIVERY_PREPARED);
    assert_string_equal(d.why, "the CA of the BSA cannot be read");
    assert_int_equal(d.attempts, 1);
    assert_true(d.next_us > clock_utc_us()); /* like any other failure */
    assert_int_equal(bsa_seen(&c->bsa[0]), 0);
    send_to(c, &c->bsa[1], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

static void push__leaves_a_connection_when_the_enrolment_changes(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    bsa_set_identity(c, &c->bsa[0], "elsewhere");
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "certificate not enrolled");
    assert_int_equal(bsa_seen(&c->bsa[0]), 1);
}

static void push__fails_by_another_name(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE], url[64];

    (void)snprintf(url, sizeof(url), "https://localhost:%u/", c->bsa[0].server.port);
    bsa_set_url(c, &c->bsa[0], url);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "TLS name mismatch");
    assert_int_equal(bsa_seen(&c->bsa[0]), 0);
}

static void push__does_not_take_a_confirmation_of_another_delivery(void **state)
{
    struct courier *c = *state;
    char first[MID_SIZE], second[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_TAKES);
    send_to(c, &c->bsa[0], first);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    memcpy(c->bsa[0].another, first, MID_SIZE);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS_ANOTHER);
    send_to(c, &c->bsa[0], second);
    until_failed(c, second, "not a confirmation: another MessageID");
    assert_true(is_state(c, first, STORE_DELIVERY_IN_FLIGHT));
    assert_int_equal(service_count(c->s, "confirm.unmatched", "mid", first), 1);
    assert_int_equal(service_count(c->s, "delivery.confirmed", NULL, NULL), 0);
}

static void push__does_not_take_a_confirmation_of_other_content(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS_OTHER_CONTENT);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "not a confirmation: wrong-content");
    assert_int_equal(service_count(c->s, "confirm.unmatched", "reason", "wrong-content"), 1);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

/* ---- when ------------------------------------------------------------------------------------ */

/* Promise: no key leaves before its record is signed. */
static void push__sends_nothing_before_its_record_is_signed(void **state)
{
    struct courier *c = *state;
    unsigned entered;
    char mid[MID_SIZE];

    push_server_stop(&c->bsa[0].server); /* so that a first attempt fails */
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "refused");
    push_server_start_at(&c->bsa[0].server, c->bsa[0].server.port);
    entered = store_signer_entered(c->s->signer);
    store_signer_hold(c->s->signer);
    fake_clock_advance(S);
    store_signer_wait_entered(c->s->signer, entered + 1);
    until_state(c, mid, STORE_DELIVERY_IN_FLIGHT);
    assert_int_equal(push_server_connections(&c->bsa[0].server), 0);
    store_signer_release(c->s->signer);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

/* A claim that is committed and not signed has not left, and is not unknown. */
static bool all_is_signed(const struct courier *c)
{
    struct store_status st;

    store_status_get(c->s->store, &st);
    return st.signed_size == st.records;
}

/* The store may take some tries until it has its signer back, and each some time. */
static bool is_state_a_little_later(struct courier *c, const char *mid,
                                    enum store_delivery_state state)
{
    const struct timespec pause = {.tv_nsec = 10000000};

    fake_clock_advance(S / 10);
    (void)nanosleep(&pause, NULL);
    return is_state(c, mid, state);
}

static void push__puts_back_what_the_hsm_did_not_sign(void **state)
{
    struct courier *c = *state;
    unsigned entered;
    char mid[MID_SIZE];

    push_server_stop(&c->bsa[0].server);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "refused");
    push_server_start_at(&c->bsa[0].server, c->bsa[0].server.port);
    /* No signature is under way that the claim would wait for, in a time that stands still. */
    store_checkpoint_soon(c->s->store);
    UNTIL(all_is_signed(c));
    entered = store_signer_entered(c->s->signer);
    store_signer_hold(c->s->signer);
    fake_clock_advance(S);
    until_state(c, mid, STORE_DELIVERY_IN_FLIGHT);
    store_signer_wait_entered(c->s->signer, entered + 1); /* its time has begun */
    fake_clock_advance(3 * S);                            /* longer than a signature may take */
    until_failed(c, mid, "the HSM did not sign the record of the attempt");
    assert_int_equal(bsa_seen(&c->bsa[0]), 0);
    store_signer_release(c->s->signer);
    UNTIL(is_state_a_little_later(c, mid, STORE_DELIVERY_CONFIRMED));
    assert_int_equal(service_count(c->s, "delivery.unknown", NULL, NULL), 0);
}

static void push__pauses_longer_with_each_failure(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_FAILS);
    send_to(c, &c->bsa[0], mid);
    for (unsigned i = 0; i < 8; i++) {
        int64_t most = (i < 6 ? INT64_C(1) << i : 60) * S, pause;

        UNTIL(bsa_seen(&c->bsa[0]) == i + 1);
        until_state(c, mid, STORE_DELIVERY_PREPARED);
        pause = delivery_row(c->s, mid).next_us - clock_utc_us();
        assert_true(pause <= most && pause > most * 3 / 4 - 1);
        fake_clock_advance(pause);
    }
}

/* The row's time is an hour ahead then. */
static void push__tries_again_soon_when_utc_is_set_back(void **state)
{
    struct courier *c = *state;
    char mid[2][MID_SIZE];

    for (unsigned i = 0; i < 2; i++) {
        push_server_stop(&c->bsa[i].server);
        send_to(c, &c->bsa[i], mid[i]);
        until_failed(c, mid[i], "refused");
        push_server_start_at(&c->bsa[i].server, c->bsa[i].server.port);
    }
    fake_clock_set_utc(clock_utc_us() - 3600 * S);
    fake_clock_set_mono(clock_mono_us() + 2 * S); /* the lane's own pause */
    until_state(c, mid[0], STORE_DELIVERY_CONFIRMED);
    until_state(c, mid[1], STORE_DELIVERY_CONFIRMED);
    assert_int_equal(bsa_seen(&c->bsa[0]), 1);
}

static void push__ends_at_the_deadline(void **state)
{
    struct courier *c = *state;
    struct cp3_message m;
    char mid[MID_SIZE];
    bool late = false;

    bsa_set_mode(&c->bsa[0], BSA_TAKES);
    send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    until_quiet(c);
    fake_clock_advance((DELIVERY_DEADLINE_S - 300) * S);
    UNTIL(courier_logged("event=deadline-near", mid));
    UNTIL(bsa_seen(&c->bsa[0]) == 2);
    until_quiet(c);
    assert_true(is_state(c, mid, STORE_DELIVERY_IN_FLIGHT));
    fake_clock_advance(300 * S);
    until_state(c, mid, STORE_DELIVERY_UNCONFIRMED);
    assert_string_equal(delivery_row(c->s, mid).why, "no confirmation came");
    UNTIL(courier_logged("event=unconfirmed", mid));
    assert_int_equal(service_count(c->s, "delivery.unconfirmed", "mid", mid), 1);
    /* A confirmation counts all the same. */
    m = confirm_message(c->bsa[0].peer, mid, NEWS, CP3_STATUS_OK);
    assert_int_equal(confirm(c->s, c->bsa[0].peer, &m, NULL), 204);
    late = is_state(c, mid, STORE_DELIVERY_CONFIRMED);
    assert_true(late);
}

static void push__warns_of_a_deadline_once(void **state)
{
    struct courier *c = *state;
    char first[MID_SIZE], second[MID_SIZE];

    bsa_set_url(c, &c->bsa[0], "");
    send_to(c, &c->bsa[0], first);
    fake_clock_advance(100 * S);
    send_to(c, &c->bsa[0], second);
    fake_clock_advance((DELIVERY_DEADLINE_S - 400) * S + 1);
    UNTIL(courier_logged("event=deadline-near", first));
    assert_false(courier_logged("event=deadline-near", second));
    assert_true(courier_logged("seconds_left=299", first));
    fake_clock_advance(100 * S);
    UNTIL(courier_logged("event=deadline-near", second));
    assert_false(courier_logged("seconds_left=199", first));
}

/* However many are near already, who comes near next is told of, and all are counted. */
static void push__warns_of_a_deadline_behind_many(void **state)
{
    enum { MANY = 300, SAID = 16 };
    struct courier *c = *state;
    char mid[MID_SIZE], next[MID_SIZE], more[32];

    bsa_set_url(c, &c->bsa[0], "");
    for (unsigned i = 0; i < MANY; i++)
        send_to(c, &c->bsa[0], mid);
    fake_clock_advance(100 * S);
    send_to(c, &c->bsa[0], next);
    fake_clock_advance((DELIVERY_DEADLINE_S - 400) * S + 1);
    (void)snprintf(more, sizeof(more), "deliveries=%d", MANY - SAID);
    UNTIL(courier_logged("event=more-deadlines-near", more));
    fake_clock_advance(100 * S);
    UNTIL(courier_logged("event=deadline-near", next));
}

static void push__lets_a_disabled_bsa_stand(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE], other[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_FAILS);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "HTTP 500");
    assert_int_equal(service_enable(c->s, c->bsa[0].peer, false), 0);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(30 * S);
    send_to(c, &c->bsa[1], other);
    until_state(c, other, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(bsa_seen(&c->bsa[0]), 1);
    assert_int_equal(service_enable(c->s, c->bsa[0].peer, true), 0);
    fake_clock_advance(10 * S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

static void push__makes_no_attempt_without_a_url(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE], other[MID_SIZE], url[64];

    bsa_set_url(c, &c->bsa[0], "");
    send_to(c, &c->bsa[0], mid);
    send_to(c, &c->bsa[1], other);
    until_state(c, other, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(delivery_row(c->s, mid).attempts, 0);
    bsa_set_url(c, &c->bsa[0], push_server_url(&c->bsa[0].server, url));
    fake_clock_advance(10 * S);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

static void push__sends_to_nobody_what_was_abandoned(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE], other[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_FAILS);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "HTTP 500");
    assert_int_equal(keys_delivery_abandon(c->s->keys, &c->s->actor, mid, "broken", &c->s->error),
                     0);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(60 * S);
    send_to(c, &c->bsa[0], other);
    until_state(c, other, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(bsa_seen(&c->bsa[0]), 2);
    assert_true(is_state(c, mid, STORE_DELIVERY_ABANDONED));
}

static void push__tries_at_once_when_told_to(void **state)
{
    struct courier *c = *state;
    char mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_FAILS);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "HTTP 500");
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    assert_int_equal(keys_delivery_retry(c->s->keys, &c->s->actor, mid, 60, &c->s->error), 0);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

/* ... though its BSA was away, and is not tried for a while. */
static void push_hurry__ends_the_pause_of_a_bsa(void **state)
{
    struct courier *c = *state;
    struct store_delivery d;
    char mid[MID_SIZE];
    uint16_t port = c->bsa[0].server.port;

    push_server_stop(&c->bsa[0].server);
    send_to(c, &c->bsa[0], mid);
    until_failed(c, mid, "refused");
    for (unsigned i = 2; i < 8; i++) {
        fake_clock_advance(60 * S);
        UNTIL(delivery_row(c->s, mid).attempts == i && is_state(c, mid, STORE_DELIVERY_PREPARED));
    }
    push_server_start_at(&c->bsa[0].server, port);
    assert_int_equal(keys_delivery_retry(c->s->keys, &c->s->actor, mid, 3600, &c->s->error), 0);
    d = delivery_row(c->s, mid);
    push_hurry(c->push, d.bsa);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
}

/* More is told than there is room for: nobody is forgotten. */
static void push__looks_at_all_when_it_was_told_too_much(void **state)
{
    struct courier *c = *state;
    char mid[3][MID_SIZE];

    for (unsigned i = 0; i < 3; i++) {
        for (unsigned n = 0; n < 2000; n++)
            push_hurry(c->push, 100000);
        send_to(c, &c->bsa[i], mid[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        until_state(c, mid[i], STORE_DELIVERY_CONFIRMED);
}

/* ---- lanes ----------------------------------------------------------------------------------- */

static void push__is_not_held_by_a_bsa_that_hangs(void **state)
{
    struct courier *c = *state;
    char hanging[12][MID_SIZE], mid[MID_SIZE];

    bsa_set_mode(&c->bsa[0], BSA_HANGS);
    for (unsigned i = 0; i < 12; i++)
        send_to(c, &c->bsa[0], hanging[i]);
    UNTIL(bsa_seen(&c->bsa[0]) == 1);
    for (unsigned i = 0; i < 20; i++) {
        send_to(c, &c->bsa[1], mid);
        until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    }
    /* One at a time, until it answers. */
    assert_int_equal(bsa_seen(&c->bsa[0]), 1);
    bsa_set_mode(&c->bsa[0], BSA_CONFIRMS);
    fake_clock_advance(ATTEMPT_S * S);
    until_failed(c, hanging[0], "time-out waiting for the answer");
    fake_clock_advance(2 * S);
    for (unsigned i = 0; i < 12; i++)
        until_state(c, hanging[i], STORE_DELIVERY_CONFIRMED);
}

static void push__has_eight_under_way_to_a_bsa_that_answers(void **state)
{
    struct courier *c = *state;
    struct push_status status;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    bsa_set_mode(&c->bsa[0], BSA_HANGS);
    for (unsigned i = 0; i < 20; i++)
        send_to(c, &c->bsa[0], mid);
    UNTIL(bsa_seen(&c->bsa[0]) == 1 + PUSH_LANE_MAX);
    assert_int_equal(push_status_get(c->push, &status), 0);
    assert_int_equal(status.under_way, PUSH_LANE_MAX);
    send_to(c, &c->bsa[1], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(bsa_seen(&c->bsa[0]), 1 + PUSH_LANE_MAX);
}

static void push__sends_the_oldest_first(void **state)
{
    struct courier *c = *state;
    char mid[10][MID_SIZE];

    bsa_set_url(c, &c->bsa[0], "");
    for (unsigned i = 0; i < 10; i++)
        send_to(c, &c->bsa[0], mid[i]);
    bsa_set_url(c, &c->bsa[0], push_server_url(&c->bsa[0].server, (char[64]){0}));
    for (unsigned i = 0; i < 10; i++)
        until_state(c, mid[i], STORE_DELIVERY_CONFIRMED);
    assert_string_equal(c->bsa[0].mid[0], mid[0]);
}

/* ---- counts ---------------------------------------------------------------------------------- */

static void push_status_get__counts(void **state)
{
    struct courier *c = *state;
    struct push_status status;
    char mid[MID_SIZE];

    send_to(c, &c->bsa[0], mid);
    until_state(c, mid, STORE_DELIVERY_CONFIRMED);
    bsa_set_mode(&c->bsa[1], BSA_REJECTS);
    send_to(c, &c->bsa[1], mid);
    until_state(c, mid, STORE_DELIVERY_REJECTED);
    bsa_set_mode(&c->bsa[2], BSA_FAILS);
    send_to(c, &c->bsa[2], mid);
    until_failed(c, mid, "HTTP 500");
    UNTIL(push_status_get(c->push, &status) == 0 && status.confirmed == 1 && status.rejected == 1);
    assert_int_equal(status.attempts, 3);
    assert_int_equal(status.failed, 1);
    assert_int_equal(status.under_way, 0);
    assert_int_equal(status.fanouts, 0);
    assert_int_equal(status.oldest_open_us, clock_utc_us());
    assert_int_equal(status.count[STORE_DELIVERY_CONFIRMED], 1);
    assert_int_equal(status.count[STORE_DELIVERY_REJECTED], 1);
    assert_int_equal(status.count[STORE_DELIVERY_PREPARED], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        COURIER_TEST(push__delivers_and_has_it_confirmed),
        COURIER_TEST(push__records_the_servers_certificate),
        COURIER_TEST(push__takes_an_efficient_confirmation),
        COURIER_TEST(push__waits_for_a_confirmation_by_post),
        COURIER_TEST(push__sends_again_what_was_taken_and_not_confirmed),
        COURIER_TEST(push__is_rejected_and_tries_again),
        COURIER_TEST(push__is_rejected_by_post),
        COURIER_TEST(push__fails_by_an_http_error),
        COURIER_TEST(push__fails_by_html),
        COURIER_TEST(push__fails_by_a_redirect),
        COURIER_TEST(push__fails_by_too_long_an_answer),
        COURIER_TEST(push__fails_by_a_reset),
        COURIER_TEST(push__fails_by_a_time_out),
        COURIER_TEST(push__fails_by_no_server),
        COURIER_TEST(push__fails_by_a_certificate_that_is_not_enrolled),
        COURIER_TEST(push__fails_by_a_ca_that_cannot_be_read),
        COURIER_TEST(push__leaves_a_connection_when_the_enrolment_changes),
        COURIER_TEST(push__fails_by_another_name),
        COURIER_TEST(push__does_not_take_a_confirmation_of_another_delivery),
        COURIER_TEST(push__does_not_take_a_confirmation_of_other_content),
        COURIER_TEST(push__sends_nothing_before_its_record_is_signed),
        COURIER_TEST(push__puts_back_what_the_hsm_did_not_sign),
        COURIER_TEST(push__pauses_longer_with_each_failure),
        COURIER_TEST(push__tries_again_soon_when_utc_is_set_back),
        COURIER_TEST(push__ends_at_the_deadline),
        COURIER_TEST(push__warns_of_a_deadline_once),
        COURIER_TEST(push__warns_of_a_deadline_behind_many),
        COURIER_TEST(push__lets_a_disabled_bsa_stand),
        COURIER_TEST(push__makes_no_attempt_without_a_url),
        COURIER_TEST(push__sends_to_nobody_what_was_abandoned),
        COURIER_TEST(push__tries_at_once_when_told_to),
        COURIER_TEST(push_hurry__ends_the_pause_of_a_bsa),
        COURIER_TEST(push__looks_at_all_when_it_was_told_too_much),
        COURIER_TEST(push__is_not_held_by_a_bsa_that_hangs),
        COURIER_TEST(push__has_eight_under_way_to_a_bsa_that_answers),
        COURIER_TEST(push__sends_the_oldest_first),
        COURIER_TEST(push_status_get__counts),
    };

    return cmocka_run_group_tests(tests, courier_make_pki, bsa_server_remove_pki);
}
