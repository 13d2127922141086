/*
 * A blocking HTTPS client for the tests of the front: one connection, requests as the test writes
 * them, answers taken apart strictly.  It gives up after CLIENT_PATIENCE_S, so that a server that
 * hangs fails the test.
 */
#ifndef TEST_HTTP_CLIENT_H
#define TEST_HTTP_CLIENT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http_pki.h"

#define CLIENT_PATIENCE_S  20
#define CLIENT_HEADERS_MAX 4096
#define CLIENT_BODY_MAX    131072

struct client {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    int alert; /* the number of the alert that ended the connection; -1: none */
};

struct answer {
    int status;
    char headers[CLIENT_HEADERS_MAX]; /* lower-cased, with LF in front of each */
    char body[CLIENT_BODY_MAX];
    size_t body_len;
};

/* me NULL: without a certificate.  version: of TLS, 0 for the newest; session may be NULL. */
struct client *client_connect(uint16_t port, const struct pki *p, const struct pki_identity *me,
                              int version);
struct client *client_resume(uint16_t port, const struct pki *p, const struct pki_identity *me,
                             SSL_SESSION *session);
void client_close(struct client *c);
/* Resets the connection. */
void client_abort(struct client *c);

/* False when the connection has ended, with alert set if one said why. */
bool client_send(struct client *c, const void *octets, size_t len);
bool client_read(struct client *c, struct answer *ret_answer);
/* Whether the other side has closed; waits for it. */
bool client_ended(struct client *c);

/* Sends a text that cannot but be taken; a POST to /cp3 with this body. */
void client_text(struct client *c, const char *text);
void client_request(struct client *c, const char *body);

/* POST path with this body as application/xml, and the answer. */
bool client_post(struct client *c, const char *path, const char *body, struct answer *ret_answer);
/* The value of a header, NULL if there is none. */
const char *answer_header(const struct answer *a, const char *name, char out[static 256]);

#endif
