/*
 * A front (server/http) under test: a PKI, routes whose exchanges wait until the test takes them,
 * what was refused, and a signer for the server's key that the test can hold.
 */
#ifndef TEST_HTTP_FIXTURE_H
#define TEST_HTTP_FIXTURE_H

#include <pthread.h>

#include "http_client.h"
#include "http_pki.h"
#include "tekd/http.h"

#define FIXTURE_WAITING_MAX 256
#define FIXTURE_CAUSES_MAX  32
#define FIXTURE_PATH        "/cp3"
#define FIXTURE_WAIT_PATH   "/cp3/wait" /* GET and PUT */

struct fixture {
    struct pki *pki;
    const struct pki_identity *me; /* a good client */
    struct http *http;
    uint16_t port;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct http_exchange *waiting[FIXTURE_WAITING_MAX];
    size_t n_waiting;
    unsigned whole, not_whole, timed_out, gone;
    char cause[FIXTURE_CAUSES_MAX][40];
    size_t n_causes;
    bool held, refuses; /* the signer */
    unsigned signing;   /* calls that were entered */
};

struct fixture *fixture_new(void);
/* Stops the front, if that was not done; everything else goes. */
void fixture_free(struct fixture *f);

/* What http_start() takes, filled with the fixture's own; to be changed before fixture_start(). */
struct fixture_setup {
    struct http_options o;
    struct http_listen listen;
    struct http_route route[3]; /* POST; of the other path GET (65 s, gone), PUT (1 s) */
    unsigned char *spki;
    struct http_signer signer;
};
void fixture_setup(struct fixture *f, struct fixture_setup *ret_setup);
/* The server's key by a signer of the fixture instead of the file. */
void fixture_use_signer(struct fixture *f, struct fixture_setup *s);
int fixture_start(struct fixture *f, struct fixture_setup *s);
/* With nothing changed; every failure ends the test. */
struct fixture *fixture_started(void);
/* The same with the server's key by a signer. */
struct fixture *fixture_with_signer(void);
void fixture_stop(struct fixture *f);
/* For pthread_create(). */
void *fixture_stop_thread(void *fixture);

/* Of cmocka: *state is a fixture_started(). */
int fixture_set_up(void **state);
int fixture_tear_down(void **state);
#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

/* The exchange that arrived first; waits for it. */
struct http_exchange *fixture_take(struct fixture *f);
/* Answers with this status and text. */
void fixture_reply(struct http_exchange *take_x, int status, const char *body);
/* Answers the exchange that arrived first with 200. */
void fixture_answer(struct fixture *f, const char *body);
struct buf *fixture_buf(const char *text);

/* Waits until so many answers left whole, or not. */
void fixture_wait_sent(struct fixture *f, unsigned whole, unsigned not_whole);
/* Waits until so many clients have gone. */
void fixture_wait_gone(struct fixture *f, unsigned n);
/* Waits until so many exchanges have ended, either way. */
void fixture_wait_all(struct fixture *f, unsigned n);
/* Waits until so many handshakes or connections were refused; the cause of that one. */
const char *fixture_wait_cause(struct fixture *f, size_t n);

void fixture_hold_signer(struct fixture *f, bool held);
void fixture_wait_signing(struct fixture *f, unsigned n);

struct client *fixture_connect(struct fixture *f);
/* For pthread_create(): a client that connects, asks once and wants a 200. */
void *fixture_ask_thread(void *fixture);

#endif
