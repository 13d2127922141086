/*
 * A TLS server for the tests of tek-bsa: requires a client certificate, takes a connection an
 * answer, reads one request of each, answers what the test says.  Its PKI stands in a folder of its
 * own.
 */
#ifndef TEST_BSA_SERVER_H
#define TEST_BSA_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Group set-up and tear-down.  Made are NAME.crt and NAME.key of: ca, other-ca; by ca: server,
 * server-2, server-3 (127.0.0.1), elsewhere (another name), client; by other-ca: imitation
 * (127.0.0.1), stranger.  Keys alone: rsa, of no certificate; locked and locked-server, those of
 * client and server with a passphrase.
 */
int bsa_server_make_pki(void **state);
int bsa_server_remove_pki(void **state);
/* The path of a file in the folder, of the PKI or of the test's own. */
#define BSA_SERVER_PATH_MAX 128
const char *bsa_server_path(const char *name, const char *suffix,
                            char out[static BSA_SERVER_PATH_MAX]);

/* Takes a SIGTERM or SIGINT that is pending away, and lets the two through again. */
void bsa_server_forget_signals(void);

#define BSA_SERVER_SEEN_MAX    4096
#define BSA_SERVER_ANSWERS_MAX 2
struct bsa_server {
    /* Set before the thread starts. */
    const char *identity;
    const char *answer[BSA_SERVER_ANSWERS_MAX]; /* NULL: keeps silent until the client goes */
    size_t n_answers;
    bool rude; /* reads the request and resets the connection */
    int fd;
    uint16_t port;
    pthread_t thread;
    /* Written by the thread, read after bsa_server_stop(). */
    char seen[BSA_SERVER_SEEN_MAX];    /* the last request */
    char earlier[BSA_SERVER_SEEN_MAX]; /* the one before it */
};
void bsa_server_start(struct bsa_server *s, const char *identity, const char *answer);
/* One connection after the other, and two answers. */
void bsa_server_start_two(struct bsa_server *s, const char *first, const char *second);
void bsa_server_start_rude(struct bsa_server *s, const char *identity);
void bsa_server_stop(struct bsa_server *s);

#endif
