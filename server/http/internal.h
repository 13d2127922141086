/*
 * What the files of the front share.
 *
 * Threads: one per loop.  A loop owns its connections and their exchanges; only it touches h2o's
 * objects of them.  With the server key in the HSM one more loop accepts and does the handshakes,
 * where a signature may block, and hands each finished connection to a serving loop.
 *
 *   accept -> handshake (conn) -> [export, message, import] -> h2o_http1_accept -> requests
 *   request -> exchange -> handler … http_reply() -> message -> loop: send -> sent()
 *
 * A loop's h2o objects are made and disposed of on its thread: h2o keeps buffers for reuse with the
 * thread that made them.
 */
#ifndef TEKD_HTTP_INTERNAL_H
#define TEKD_HTTP_INTERNAL_H

#include <h2o.h>
#include <h2o/http1.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "tekd/http.h"

#define HTTP_ROUTES_MAX 16
#define HTTP_METHOD_MAX 16 /* letters of a method */
#define HTTP_LOOPS_MAX  16

/* ---- tls.c: what certificates, keys, CA and CRL say at one moment ---------------------------- */

struct tls {
    _Atomic uint32_t refs;
    uint64_t generation;
    SSL_CTX *ctx;
    X509_STORE *store; /* borrowed from ctx: CA and CRL */
    struct http_ends ends;
};

/* Reads all files.  Errors: TEKD_EINVAL, TEKD_EDENIED, TEKD_ENOMEM; said in the log. */
int tls_new(const struct http_files *f, uint64_t generation, struct tls **ret_tls);
struct tls *tls_ref(struct tls *t);
void tls_unref(struct tls *t);
/* Whether this client would be accepted now; else a static token says why not. */
const char *tls_recheck(const struct tls *t, X509 *leaf, STACK_OF(X509) * chain);
/* Why a handshake failed: a static token for logs and records. */
const char *tls_cause(const SSL *ssl);

/* ---- tls_key.c: the server key in the HSM ---------------------------------------------------- */

/* A public key whose signatures the signer makes; signer outlives the key. */
int tls_key_remote(const struct http_signer *signer, EVP_PKEY **ret_key);

/* ---- stall.c: peers that do not read --------------------------------------------------------- */

#define STALL_LOOK_US 1000000 /* between two looks */

/* What was last seen of a socket; zeros before that. */
struct stall {
    size_t written;   /* octets that h2o was given so far */
    int64_t since_us; /* mono: since then it is the same write */
    bool cut;
};
/* Whether the socket has been at the same write for limit_us: once, then it is to be cut. */
bool stall_is_over(struct stall *s, h2o_socket_t *sock, int64_t limit_us);
/* Ends the connection; its owner learns that from h2o in the next turn of the loop. */
void stall_cut(h2o_socket_t *sock);

/* ---- conn.c: one connection ------------------------------------------------------------------ */

struct http_loop;

struct conn {
    struct http_loop *home;   /* whose thread owns it now */
    struct conn *prev, *next; /* of home */
    h2o_socket_t *sock;
    h2o_timeout_entry_t timeout; /* of the handshake */
    struct tls *tls;             /* of the handshake, then what it was last checked against */
    SSL *ssl;                    /* during the handshake only */
    struct stall stall;
    X509 *leaf;
    STACK_OF(X509) * chain;
    int64_t checked_us; /* mono: when both were found good */
    struct http_peer peer;
    h2o_socket_export_t exported;
    h2o_multithread_message_t message; /* to the serving loop */
};

/* Begins with an accepted socket on loop; closes it if there is no memory or no room. */
void conn_accept(struct http_loop *loop, h2o_socket_t *sock);
void conn_link(struct conn *c, struct http_loop *home);
void conn_unlink(struct conn *c);
/* Takes who the peer is from its finished handshake.  Errors: TEKD_ECRYPTO. */
int conn_identify(struct conn *c);
/* Gives the connection to h2o's HTTP/1 on its home loop. */
void conn_serve(struct conn *c);
/* The connection that a request came on. */
struct conn *conn_of(h2o_req_t *req);
/* Cuts the loop's connections whose peers do not take their answers. */
void conns_cut_stalled(struct http_loop *loop);
/* Whether the peer may go on, after a reload or HTTP_RECHECK_US; NULL, or why not. */
const char *conn_recheck(struct conn *c);
void conn_free(struct conn *c);

/* ---- handshake.c ----------------------------------------------------------------------------- */

void handshake_begin(struct conn *c);
/* SSL_CTX_set_info_callback(): how a conn learns its SSL. */
void handshake_info(const SSL *ssl, int where, int ret);

/* ---- loop.c ---------------------------------------------------------------------------------- */

enum { RECEIVE_REPLY, RECEIVE_CONN, RECEIVE_WAKE, RECEIVE_N };

/* Exchanges without an answer that have equally long, so the last one to come ends last. */
struct deadlines {
    struct http_exchange *oldest, *newest;
};

struct http_loop {
    struct http *http;
    pthread_t thread;
    bool started;
    bool serves;    /* else: handshakes only */
    const int *fds; /* to listen on; while it starts */
    size_t n_fds;
    sem_t ready; /* posted once messages can be sent */
    h2o_evloop_t *evloop;
    h2o_multithread_queue_t *queue;
    h2o_multithread_receiver_t receiver[RECEIVE_N];
    h2o_context_t ctx; /* of a serving loop */
    h2o_accept_ctx_t accept;
    h2o_timeout_t handshake_timeout;
    h2o_socket_t *listener[HTTP_LISTEN_MAX];
    int gone_fd; /* of gone.c */
    h2o_socket_t *gone;
    int64_t accept_again_us; /* no descriptor was free: not before; 0: accepting */
    int64_t look_again_us;   /* at stalled connections: not before */
    struct conn *conns;
    size_t exchanges;                            /* under way */
    struct deadlines deadlines[HTTP_ROUTES_MAX]; /* of each class of deadlines that http has */
    _Atomic bool stop;
    _Atomic bool told; /* nobody sends a wake-up any more */
};

/* Whether accept() failed with this because something was used up: asking again at once is vain. */
bool loop_is_short(int error);
#define LOOP_NO_ACCEPT_US 100000 /* until the next attempt then */

int loop_start(struct http_loop *l, struct http *h, bool serves, const int *fds, size_t n_fds);
/* Asks it to end; loop_join() waits for it and returns whether nothing of it is in use any more. */
void loop_stop(struct http_loop *l);
bool loop_join(struct http_loop *l);
/* Hands a connection, already exported from its loop, to this one.  From any thread. */
void loop_give(struct http_loop *l, struct conn *c);

/* ---- gone.c ---------------------------------------------------------------------------------- */

struct http_exchange;

/* Of a serving loop; without descriptors nobody is watched, and the log says so. */
void gone_open(struct http_loop *l);
void gone_close(struct http_loop *l);
/* From now on exchange_gone() is called once the client of this connection has gone. */
void gone_watch(struct http_exchange *x, int fd);
void gone_unwatch(struct http_exchange *x);

/* ---- exchange.c ------------------------------------------------------------------------------ */

struct http_exchange {
    h2o_multithread_message_t message; /* first: the reply on its way to the loop */
    h2o_generator_t generator;
    struct http_loop *loop;
    const struct http_route *route;
    h2o_req_t *req;                    /* NULL once h2o has disposed of it */
    struct deadlines *deadlines;       /* where it is, until it is answered; then NULL */
    struct http_exchange *prev, *next; /* there */
    int64_t deadline_us;
    int watched_fd; /* of gone.c; -1: none */
    struct http_peer peer;
    struct http_reply reply;
    _Atomic(void *) note;
    void (*free_note)(void *);
    struct buf *sending; /* the body that h2o reads */
    bool replied;        /* http_reply() was called and its message arrived */
    bool answered;       /* an answer was given to h2o: the real one or that of the deadline */
    bool real;           /* it was the real one */
    bool whole;          /* all of it was written */
    char *media;
    char *query;
    uint8_t *body;
    size_t body_len;
};

int exchange_on_request(h2o_handler_t *self, h2o_req_t *req);
/* Sets what every answer of the path has, h2o's own among them. */
void exchange_filter(h2o_pathconf_t *path);
/* A reply arrived at its loop. */
void exchange_replied(struct http_exchange *x);
/* Its client has gone: ends the connection. */
void exchange_gone(struct http_exchange *x);
/* Answers those whose deadline has passed; whether there were any. */
bool exchange_expire(struct http_loop *l);
/* Until the next deadline, at most max. */
int exchange_wait_ms(const struct http_loop *l, int max);
/* An answer of the front's own. */
void exchange_refuse(h2o_req_t *req, const struct http_reply *reply);

/* ---- http.c ---------------------------------------------------------------------------------- */

struct http {
    h2o_globalconf_t conf;
    bool configured;
    struct http_route route[HTTP_ROUTES_MAX];
    size_t n_routes;
    char *certificate, *key_file, *client_ca, *crl;
    struct http_signer signer;
    uint8_t *spki;
    unsigned connections_max;
    int request_timeout_ms;
    int deadline_ms[HTTP_ROUTES_MAX];      /* of each class of deadlines */
    unsigned route_class[HTTP_ROUTES_MAX]; /* of each route */
    size_t n_classes;
    bool (*admits)(void *arg, const struct http_peer *peer, struct http_reply *ret_refusal);
    void *admits_arg;
    void (*refused)(void *arg, const char *cause, const char *addr);
    void *refused_arg;

    pthread_mutex_t lock; /* guards tls */
    struct tls *tls;
    _Atomic uint64_t generation; /* of tls */

    uint16_t port[HTTP_LISTEN_MAX];
    size_t n_loops;
    struct http_loop loop[HTTP_LOOPS_MAX];
    struct http_loop *handshaker; /* NULL: the serving loops do them */
    struct http_loop handshake_loop;
    bool draining;
    int64_t cut_us; /* mono: then it is over; written before the loops are told to stop */
    bool in_use;    /* by an answer that did not come in time */
    _Atomic unsigned next_loop;

    _Atomic uint64_t connections, accepted, handshakes_failed, requests, replies, dropped,
        timed_out;
};

/* A reference to what is in force. */
struct tls *http_tls(struct http *h);
/* The loop that serves the next connection. */
struct http_loop *http_next_loop(struct http *h);
/* An open, bound, listening, non-blocking socket.  Errors: TEKD_EINVAL, TEKD_EIO. */
int http_listen_open(const struct http_listen *l, int *ret_fd, uint16_t *ret_port);

#endif
