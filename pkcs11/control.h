/*
 * What the server's pool (pkcs11/client) and the parent of the workers (the supervisor, in
 * pkcs11/worker) say to each other: SOCK_SEQPACKET datagrams, some with one descriptor.
 * control.c describes them octet by octet.
 *
 * The pool starts tekd-hsm with the socket as descriptor CONTROL_FD, sends CONTROL_CONFIGURE once,
 * then CONTROL_SPAWN for each worker it wants.  The supervisor says what happens to them:
 *     spawn -> forked -> ready -> exited
 *     spawn -> forked -> failed -> exited      (the module, the token or the login failed)
 *     spawn -> exited                          (there is no PIN that may be tried)
 * and what it knows of the PIN, at the start and whenever that changes.  Neither a PIN nor a key
 * is in any of the messages: a PIN that the operator gives comes through a pipe, whose reading end
 * is passed.
 *
 * Thread rule: plain values.
 */
#ifndef TEKD_PKCS11_CONTROL_H
#define TEKD_PKCS11_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"
#include "tekd/buf.h"
#include "tekd/hsm.h"

#define CONTROL_FD 3
/* Paths, URIs and the module's environment: what does not fit is refused at the start. */
#define CONTROL_MAX 16384
/* Variables for the module: vendors need one to five. */
#define CONTROL_ENV_MAX 64

enum control_kind {
    CONTROL_CONFIGURE = 1, /* to the supervisor */
    CONTROL_SPAWN,
    CONTROL_KILL,
    CONTROL_RETRY,
    CONTROL_PING,
    CONTROL_PIN = 0x81, /* from it */
    CONTROL_FORKED,
    CONTROL_READY,
    CONTROL_FAILED,
    CONTROL_EXITED,
    CONTROL_PONG,
};

enum control_pin {
    CONTROL_PIN_HAVE = 1, /* there is one, and nothing speaks against trying it */
    CONTROL_PIN_MISSING,  /* its source could not be read, or the operator has to give one */
    CONTROL_PIN_REFUSED,  /* the token refused it: nothing is tried until the source changes */
};

/* Strings are borrowed: of the writer, or inside the datagram read.  Empty: not set. */
struct control_configure {
    const char *module;
    const char *token;
    const char *profile;
    const char *checkpoint_key;
    const char *ed25519_key;           /* signs checkpoints beside it; empty: none does */
    const char *checkpoint_key_before; /* signed until now, and still does; empty: none ... */
    const char *ed25519_key_before;    /* ... likewise */
    const char *tls_key;
    enum hsm_pin_source pin_source;
    bool pin_given; /* HSM_PIN_FD: the datagram carries the descriptor */
    const char *pin;
    const char *latch_file;
    uint8_t log_format;
    uint8_t log_level;
    uint32_t start_timeout_ms; /* of a worker, from the fork until it is ready */
    size_t n_env;
    const char *env[CONTROL_ENV_MAX]; /* NAME=value */
};

/* Of a worker that serves from now on. */
struct control_ready {
    char label[HSM_TEXT_MAX];
    char model[HSM_TEXT_MAX];
    char serial[HSM_TEXT_MAX];
    bool prevents_wrap_out;
};

struct control_message {
    enum control_kind kind;
    /* Of the worker, chosen by the pool and never used again while tekd-hsm runs; of RETRY any
     * number, and of PIN that of the last RETRY or 0. */
    uint32_t id;
    union {
        struct control_configure configure;
        enum protocol_role role; /* SPAWN */
        uint32_t grace_ms;       /* KILL: what the worker has to end by itself */
        bool pin_given;          /* RETRY */
        struct {
            enum control_pin state;
            char text[HSM_TEXT_MAX];
        } pin;
        int pid; /* FORKED */
        struct control_ready ready;
        struct {
            int error;
            char text[HSM_TEXT_MAX];
        } ended; /* FAILED, EXITED */
    };
};

/* Writes the datagram into b, emptying it first.  Errors: of buf_append(), TEKD_EINVAL. */
int control_put(struct buf *b, const struct control_message *m);

/* Reads a datagram, which the strings are borrowed from.  Errors: TEKD_EFORMAT. */
int control_get(const void *octets, size_t len, struct control_message *ret_message);

/*
 * Sends a message, with fd unless that is -1; never blocks.  b is room to write in.
 * Errors: TEKD_EAGAIN (the other side does not read), TEKD_ECLOSED, TEKD_EINVAL, TEKD_ENOMEM.
 */
int control_send(int socket, struct buf *b, const struct control_message *m, int fd);

/*
 * Receives one into the CONTROL_MAX octets of in; never blocks.  *ret_fd is the descriptor it
 * carried or -1, and is the caller's, close-on-exec.
 * Errors: TEKD_EAGAIN (nothing there), TEKD_ECLOSED, TEKD_EFORMAT.
 */
int control_receive(int socket, uint8_t in[static CONTROL_MAX], struct control_message *ret_message,
                    int *ret_fd);

#endif
