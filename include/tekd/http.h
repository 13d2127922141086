/*
 * The HTTPS front: TLS, client certificates, HTTP/1.1, limits; knows nothing of keys.  A request
 * that passed all of that is given to the handler of its route as an exchange, on the thread of
 * its loop; the handler must not block.  Whoever holds the exchange answers it, once, from any
 * thread; the front sends, or drops the answer if the peer has gone or the deadline passed.
 *
 * Only server/http includes h2o's headers.
 *
 * Thread rule: http_start(), http_reload(), http_drain() and http_stop() from one thread;
 * http_exchange_*() by the exchange's holder; http_reply() from any thread.
 */
#ifndef TEKD_HTTP_H
#define TEKD_HTTP_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/buf.h"

#define HTTP_BODY_MAX        65536 /* as the codec reads at most */
#define HTTP_ADDR_MAX        64    /* [IPv6]:port */
#define HTTP_LISTEN_MAX      16
#define HTTP_CORRELATION_MAX 36       /* a UUID */
#define HTTP_HANDSHAKE_MS    10000    /* a client that does not finish its handshake is closed */
#define HTTP_RECHECK_US      60000000 /* so old may be what a certificate was found to be */
#define HTTP_STOP_US         10000000 /* how long http_stop() waits for requests under way */

struct http;
struct http_exchange;

/* Who asks: the verified client certificate and the address. */
struct http_peer {
    uint8_t cert_sha256[32]; /* of the DER */
    char addr[HTTP_ADDR_MAX];
};

struct http_reply {
    int status;
    const char *media;                          /* static string; NULL without a body */
    const char *reason;                         /* CP3-Reason; static string or NULL */
    const char *allow;                          /* Allow of a 405; static string or NULL */
    int retry_after_s;                          /* 0: no such header */
    bool close;                                 /* the connection ends after this answer */
    char correlation[HTTP_CORRELATION_MAX + 1]; /* CP3-Correlation, as in the log; or empty */
    struct buf *body;                           /* NULL: none */
};

/*
 * What the owner of a route does.  handle takes the exchange.  timed_out runs on the loop when the
 * exchange's deadline passes before an answer: it fills the answer that is sent instead (the real
 * one is dropped when it comes); it may use what exchange_set_note() left.
 */
struct http_route {
    const char *path; /* exact; a query is not part of it */
    const char *method;
    void (*handle)(void *arg, struct http_exchange *take_x);
    void (*timed_out)(void *arg, struct http_exchange *x, struct http_reply *ret_reply);
    /*
     * The client went away before there was an answer: on the loop, at most once.  The connection
     * ends; the holder still answers, which is dropped.  NULL: that is only noticed when the answer
     * cannot be sent.  A client that ends its sending side counts as gone.
     */
    void (*gone)(void *arg, struct http_exchange *x);
    /* After the answer left, or not whole; may be NULL. */
    void (*sent)(void *arg, struct http_exchange *x, bool whole);
    int deadline_ms; /* of its exchanges; 0: request_deadline_ms */
    void *arg;
};

struct http_listen {
    const char *address;
    uint16_t port; /* 0: any free one, see http_port() */
};

/* Signs for the server key when that lives in the HSM; blocks; runs on the handshake thread. */
struct http_signer {
    int (*sign)(void *arg, const uint8_t *digest, size_t len, uint8_t *out, size_t *inout_len);
    void *arg;
    const uint8_t *spki; /* DER of the public key */
    size_t spki_len;
};

/* What TLS is made of. */
struct http_files {
    const char *certificate;          /* PEM chain */
    const char *key_file;             /* PEM, mode 0600; NULL with a signer */
    const struct http_signer *signer; /* NULL: the key is in key_file */
    const char *client_ca;            /* PEM, one or more */
    const char *crl;                  /* PEM; NULL: none is checked */
};

/* Everything is copied. */
struct http_options {
    const struct http_listen *listen;
    size_t n_listen;
    struct http_files files;
    unsigned loops;          /* h2o threads */
    unsigned connections;    /* over all loops; more are closed at accept */
    int request_timeout_ms;  /* to read one request, idle between two, to have an answer taken */
    int request_deadline_ms; /* from its last octet to the answer, unless a route has its own */
    const struct http_route *routes;
    size_t n_routes;
    /*
     * Whether this peer may learn which paths and methods there are; asked on the loop, so it must
     * not block, before a request that belongs to no route is refused.  If not it fills the answer.
     * Handlers of routes ask that themselves.  NULL: everybody may.
     */
    bool (*admits)(void *arg, const struct http_peer *peer, struct http_reply *ret_refusal);
    void *admits_arg;
    /* A handshake that failed: counted and recorded by the caller; on a loop or handshake thread.
     * cause is a static token: no-certificate unknown-ca revoked crl-expired expired protocol … */
    void (*refused)(void *arg, const char *cause, const char *addr);
    void *refused_arg;
};

/* Errors: TEKD_EINVAL (a file does not parse, key and certificate differ; said in the log),
 * TEKD_EIO (address in use…), TEKD_ENOMEM, TEKD_EDENIED (mode of the key file). */
int http_start(const struct http_options *o, struct http **ret_http);

/* Reads the files as http_start() does, and says how long they are good for; nothing else happens.
 * Errors: TEKD_EINVAL, TEKD_ENOMEM, TEKD_EDENIED, as there. */
struct http_ends {
    int64_t certificate_not_before_s, certificate_not_after_s; /* Unix time */
    /* Before the first and from the second on peers are refused, as the CRL of their CA is not
     * valid yet or has expired.  The second 0: it never does; both: no CRL is checked. */
    int64_t crl_this_update_s, crl_next_update_s;
};
int http_check(const struct http_files *f, struct http_ends *ret_ends);
uint16_t http_port(const struct http *h, size_t listen_index);

/*
 * Reads certificate, key, CA and CRL again; new connections use them, and each open connection's
 * next request is checked again, as is the answer to one under way (403 and close when it would be
 * refused now).  That is also done when the last check is older than HTTP_RECHECK_US: certificates
 * and CRLs expire.  When a file does not parse all stay as they were.  Errors: TEKD_EINVAL.
 */
int http_reload(struct http *h);

/*
 * Stops accepting, and returns once no handshake is under way; what was asked is still answered,
 * until cut_us (of clock_mono_us()), when the connections that are left are cut.  Between this and
 * http_stop() those are told whose exchanges would wait longer: they answer now.
 */
void http_drain(struct http *h, int64_t cut_us);
/* http_drain() for HTTP_STOP_US, unless that was done; waits until nothing is under way; joins,
 * frees. */
void http_stop(struct http *h);

/* Numbers for status. */
struct http_status {
    uint64_t connections, accepted, handshakes_failed, requests, replies, dropped, timed_out;
    struct http_ends ends;
};
void http_status_get(struct http *h, struct http_status *ret_status);

/* What an exchange has, borrowed until http_reply(). */
const struct http_peer *http_exchange_peer(const struct http_exchange *x);
const char *http_exchange_media(const struct http_exchange *x); /* Content-Type; "" if none */
const char *http_exchange_query(const struct http_exchange *x); /* behind "?", as sent; or "" */
const uint8_t *http_exchange_body(const struct http_exchange *x);
size_t http_exchange_body_len(const struct http_exchange *x);
int64_t http_exchange_deadline_us(const struct http_exchange *x); /* clock_mono_us() */

/*
 * Leaves something for timed_out and sent: published with release order, freed by free_note when
 * the exchange ends.  Once per exchange.
 */
void http_exchange_set_note(struct http_exchange *x, void *note, void (*free_note)(void *));
void *http_exchange_note(struct http_exchange *x);

/* Answers and gives the exchange up; takes reply->body. */
void http_reply(struct http_exchange *take_x, const struct http_reply *reply);

/* ---- a plain listener for probes and metrics, on 127.0.0.1 by default ------------------------ */

struct http_plain;
/* get() fills the body for a path (Content-Type text/plain) and returns the status, e.g. 404. */
struct http_plain_options {
    struct http_listen listen;
    int (*get)(void *arg, const char *path, struct buf *body);
    void *arg;
};
int http_plain_start(const struct http_plain_options *o, struct http_plain **ret_plain);
uint16_t http_plain_port(const struct http_plain *p);
void http_plain_stop(struct http_plain *p);

#endif
