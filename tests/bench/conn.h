/*
 * One keep-alive HTTPS connection of the load generator: non-blocking TLS over TCP with a client
 * certificate, one request outstanding at a time.
 *
 * States:  CONNECTING -> HANDSHAKE -> IDLE <-> SENDING -> WAITING -> IDLE
 * and from each of them LOST, which conn_open() leaves again.
 *
 * Thread rule: one owner.
 */
#ifndef BENCH_CONN_H
#define BENCH_CONN_H

#include <stddef.h>
#include <stdint.h>

#include <netinet/in.h>
#include <openssl/ssl.h>

#include "answer.h"
#include "tekd/auto.h"

enum conn_state {
    CONN_LOST,
    CONN_CONNECTING,
    CONN_HANDSHAKE,
    CONN_IDLE,
    CONN_SENDING,
    CONN_WAITING
};

enum conn_event {
    CONN_NOTHING,  /* wait for the socket */
    CONN_READY,    /* the handshake is done: idle */
    CONN_ANSWERED, /* an answer is there: idle */
    CONN_BROKEN,   /* lost, see why */
};

/* Why a connection was lost. */
enum conn_why { CONN_WHY_CONNECT, CONN_WHY_TLS, CONN_WHY_CLOSED, CONN_WHY_FRAMING, CONN_WHYS };

struct conn {
    enum conn_state state;
    int fd;
    uint32_t polled; /* what epoll waits for */
    SSL *ssl;
    const char *out; /* borrowed from the request */
    size_t out_len;
    int64_t sent_ns; /* when the request was handed to the socket */
    struct answer answer;
    enum conn_why why;
    char text[160]; /* the library's words for why */
    char in[ANSWER_MAX];
    size_t in_len;
};

/* The TLS settings all connections of one identity share.  NULL with a message on stderr. */
SSL_CTX *conn_ctx_new(const char *ca, const char *cert, const char *key);

/*
 * Starts to connect and registers with the epoll instance, data.ptr = the conn.  The server's
 * certificate must carry the address.  A zeroed struct is a connection that was never open.
 */
enum conn_event conn_open(struct conn *c, int epoll_fd, SSL_CTX *ctx,
                          const struct sockaddr_in *address);

/* Closes at once; CONN_LOST. */
void conn_close(struct conn *c);

/* Sends the octets (borrowed until the answer); state must be CONN_IDLE. */
enum conn_event conn_send(struct conn *c, int epoll_fd, const char *octets, size_t len);

/* Goes on after epoll reported the socket. */
enum conn_event conn_step(struct conn *c, int epoll_fd);

#endif
