/*
 * Transfers without the rest of the push service: a struct push with what they need, a BSA's
 * server, and what the service would be told.  Every failure ends the test.
 */
#ifndef TEST_PUSH_WIRE_H
#define TEST_PUSH_WIRE_H

#include "internal.h"
#include "push_server.h"

#define WIRE_MESSAGE    "<KeyDelivery>the message</KeyDelivery>"
#define WIRE_ATTEMPT_US (10 * SECOND_US)
#define WIRE_TURNS_MAX  3000 /* of 10 ms: longer than anything here takes */
#define WIRE_TURN_US    (SECOND_US / 100)

struct wire {
    struct push *p;
    struct target *target;
    struct push_server server;
    bool serving;
    int status; /* what the server answers */
    enum push_server_way way;
    const char *type, *body;
    /* What the service was told. */
    unsigned outcomes;
    struct outcome last; /* without its body */
    char last_body[256];
    size_t last_len;
};

/* Of cmocka, between bsa_server_make_pki() and bsa_server_remove_pki(): *state is a struct wire
 * whose target is enrolled with the certificate "server". */
int wire_set_up(void **state);
int wire_tear_down(void **state);
#define WIRE_TEST(name) cmocka_unit_test_setup_teardown(name, wire_set_up, wire_tear_down)

/* A handler that answers as arg, a struct wire, says. */
void wire_say(void *arg, struct push_exchange *x);
void wire_serve(struct wire *w, const char *identity);
/* Our certificate and key by this identity, a CA, and a CRL or NULL. */
struct trust *wire_trust(const char *identity, const char *ca, const char *crl);
/* What is enrolled: the certificate of this identity, and a CA as PEM or NULL. */
struct target *wire_enrol(struct wire *w, const char *identity, const char *ca_pem);
void wire_use(struct wire *w, struct target *take_t);

void wire_start_to(struct wire *w, struct target *t, const char *url);
void wire_start(struct wire *w);
/* Turns until so many outcomes are there. */
void wire_until(struct wire *w, unsigned outcomes);
/* One transfer from beginning to end. */
void wire_run(struct wire *w);

#endif
