/*
 * A BSA's HTTPS server for the tests of the push service: any number of connections, each kept open
 * for any number of requests, each answered by the test's own function, or in a way that no HTTP
 * server should.  Its certificates are those of bsa_server.h's PKI, so that starts the test group.
 * Every failure ends the test.
 */
#ifndef TEST_PUSH_SERVER_H
#define TEST_PUSH_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUSH_SERVER_SEEN_MAX   16384
#define PUSH_SERVER_ANSWER_MAX 66560 /* more than an answer may have, and a header */
#define PUSH_SERVER_CONNS_MAX  64

/* What becomes of a request. */
enum push_server_way {
    WAY_ANSWER,  /* the octets, then the next request */
    WAY_CLOSE,   /* the octets, then the end of the connection */
    WAY_HANG,    /* nothing, until the server is released or stopped */
    WAY_RESET,   /* nothing, and a reset */
    WAY_TEN_MB,  /* a header that does not say so, and ten megabytes */
    WAY_TRICKLE, /* a header that says so, and one octet */
    WAY_HEADERS, /* a header without an end */
};

struct push_server;
/* One request, and what to do with it; on the thread of its connection. */
struct push_exchange {
    struct push_server *server;
    const char *head; /* the request's, with the empty line */
    const char *body;
    size_t body_len;
    enum push_server_way way;
    char answer[PUSH_SERVER_ANSWER_MAX];
};
typedef void push_server_handler(void *arg, struct push_exchange *x);

struct push_server {
    const char *identity; /* of the PKI */
    push_server_handler *handler;
    void *arg;
    bool hang_in_handshake;
    int fd;
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned connections, handshakes, requests; /* so far */
    bool released, stopping;
    int conn[PUSH_SERVER_CONNS_MAX]; /* descriptors of open connections */
    unsigned n_threads;
    char seen[PUSH_SERVER_SEEN_MAX]; /* the last request, whole */
};

void push_server_start(struct push_server *s, const char *identity, push_server_handler *handler,
                       void *arg);
/* At a port that was free a moment ago. */
void push_server_start_at(struct push_server *s, uint16_t port);
void push_server_stop(struct push_server *s);
/* Closes every open connection. */
void push_server_cut(struct push_server *s);
/* Lets those that hang go on: their connections are closed. */
void push_server_release(struct push_server *s);
/* Waits until so many requests were read, in all. */
void push_server_wait(struct push_server *s, unsigned requests);
unsigned push_server_requests(struct push_server *s);
unsigned push_server_connections(struct push_server *s);
/* Connections whose handshake was through on the server's side. */
unsigned push_server_handshakes(struct push_server *s);
/* https://127.0.0.1:PORT/cp3 */
const char *push_server_url(const struct push_server *s, char out[static 64]);
/* SHA-256 of the DER of a certificate of the PKI. */
void push_server_sha256(const char *identity, uint8_t out[static 32]);

/* Writes an answer: status line, type and body. */
void push_server_say(struct push_exchange *x, int status, const char *type, const char *body);

#endif
