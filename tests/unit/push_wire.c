#include "push_wire.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsa_server.h"

/* ---- what the service would do with the outcome ---------------------------------------------- */

static struct wire *wire; /* of the test under way */

void result_take(struct push *p, struct lane *l, struct attempt *take_attempt,
                 const struct outcome *o)
{
    (void)p;
    (void)l;
    wire->outcomes++;
    wire->last = *o;
    wire->last.body = NULL;
    wire->last_len = o->body ? buf_len(o->body) : 0;
    (void)snprintf(wire->last_body, sizeof(wire->last_body), "%s", o->body ? buf_str(o->body) : "");
    attempt_free(take_attempt);
}

void result_not_sent(struct push *p, struct lane *l, struct attempt *take_attempt, const char *why)
{
    (void)p;
    (void)l;
    attempt_free(take_attempt);
    fail_msg("not sent: %s", why);
}

void result_cannot_send(struct push *p, struct lane *l, struct attempt *take_attempt,
                        const char *why)
{
    result_not_sent(p, l, take_attempt, why);
}

/* ---- life ------------------------------------------------------------------------------------ */

void wire_say(void *arg, struct push_exchange *x)
{
    struct wire *w = arg;

    x->way = w->way;
    push_server_say(x, w->status, w->type, w->body);
}

void wire_serve(struct wire *w, const char *identity)
{
    push_server_start(&w->server, identity, wire_say, w);
    w->serving = true;
}

struct trust *wire_trust(const char *identity, const char *ca, const char *crl)
{
    char paths[4][BSA_SERVER_PATH_MAX];
    struct trust_files files = {
        .certificate = (char *)(uintptr_t)bsa_server_path(identity, "crt", paths[0]),
        .key = (char *)(uintptr_t)bsa_server_path(identity, "key", paths[1]),
        .ca = (char *)(uintptr_t)bsa_server_path(ca, "crt", paths[2]),
        .crl = crl ? (char *)(uintptr_t)bsa_server_path(crl, "crl", paths[3]) : NULL};
    struct trust *t = NULL;

    assert_int_equal(trust_new(&files, &t), 0);
    return t;
}

struct target *wire_enrol(struct wire *w, const char *identity, const char *ca_pem)
{
    struct keys_peer peer = {.row = 1, .n_certs = 1, .ca_pem = (char *)(uintptr_t)ca_pem};
    struct target *t = NULL;

    push_server_sha256(identity, peer.cert[0]);
    assert_int_equal(target_new(w->p, w->p->trust, &peer, &t), 0);
    return t;
}

void wire_use(struct wire *w, struct target *take_t)
{
    target_unref(w->target);
    w->target = take_t;
}

int wire_set_up(void **state)
{
    struct wire *w = calloc(1, sizeof(*w));

    w->status = 200;
    w->type = "application/xml";
    w->body = "<answer/>";
    w->p = calloc(1, sizeof(*w->p));
    w->p->attempt_us = WIRE_ATTEMPT_US;
    (void)pthread_mutex_init(&w->p->lock, NULL);
    w->p->trust = wire_trust("client", "ca", NULL);
    w->target = wire_enrol(w, "server", NULL);
    wire = w;
    *state = w;
    return transfers_new(w->p, &w->p->transfers);
}

int wire_tear_down(void **state)
{
    struct wire *w = *state;

    transfers_free(w->p->transfers);
    signing_free(w->p->signing);
    target_unref(w->target);
    trust_unref(w->p->trust);
    if (w->serving)
        push_server_stop(&w->server);
    (void)pthread_mutex_destroy(&w->p->lock);
    free(w->p);
    free(w);
    return 0;
}

/* ---- transfers ------------------------------------------------------------------------------- */

static struct attempt *attempt_to(const char *url)
{
    struct attempt *a = calloc(1, sizeof(*a));

    (void)snprintf(a->url, sizeof(a->url), "%s", url);
    assert_int_equal(buf_new(STORE_DELIVERY_MAX, &a->message), 0);
    assert_int_equal(buf_puts(a->message, WIRE_MESSAGE), 0);
    return a;
}

void wire_start_to(struct wire *w, struct target *t, const char *url)
{
    transfer_start(w->p, NULL, attempt_to(url), t);
}

void wire_start(struct wire *w)
{
    char url[64];

    wire_start_to(w, w->target, push_server_url(&w->server, url));
}

void wire_until(struct wire *w, unsigned outcomes)
{
    for (unsigned i = 0; i < WIRE_TURNS_MAX && w->outcomes < outcomes; i++)
        transfers_turn(w->p, WIRE_TURN_US);
    assert_int_equal(w->outcomes, outcomes);
}

void wire_run(struct wire *w)
{
    unsigned outcomes = w->outcomes + 1;

    wire_start(w);
    wire_until(w, outcomes);
}
