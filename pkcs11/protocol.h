/*
 * What the server's pool (pkcs11/client) and a worker (pkcs11/worker) say to each other: a
 * SOCK_SEQPACKET datagram with one or more requests, and one with their replies in the same order.
 * protocol.c describes both octet by octet.
 *
 * The verbs are those of the domain: a worker makes, wraps and signs what a verb means, there is
 * none that runs a mechanism of the caller's choice.  Every request may be repeated.
 *
 * A reader takes exactly what the writer makes: a datagram that is too short, too long, of another
 * verb or with a value out of range is TEKD_EFORMAT, whole.
 *
 * Thread rule: plain values.
 */
#ifndef TEKD_PKCS11_PROTOCOL_H
#define TEKD_PKCS11_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/buf.h"
#include "tekd/hsm.h"
#include "tekd/merkle.h"
#include "tekd/note.h"

/* The largest message, a checkpoint with all its leaves, has 11.2 KiB; no socket buffer is near. */
#define PROTOCOL_MAX 16384
/* Requests in a datagram: their replies, each a TEK wrapped under two RSA keys, fit into one too.
 */
#define PROTOCOL_MANY_MAX HSM_MANY_MAX

enum protocol_verb {
    PROTOCOL_ISSUE = 1,           /* make a TEK, wrap it for storage and for one BSA, destroy it */
    PROTOCOL_EXPORT = 2,          /* unwrap a stored TEK, wrap it for one BSA, destroy it */
    PROTOCOL_SIGN_CHECKPOINT = 3, /* extend the log by leaves and sign its head */
    PROTOCOL_SIGN_TLS = 4,        /* sign a handshake's digest */
    PROTOCOL_HEALTH = 5,          /* make a TEK, wrap it if there is a KEK, destroy it */
    PROTOCOL_DESCRIBE = 6,        /* find and check the KEK of a label */
    PROTOCOL_PUBLIC_KEY = 7,      /* the public half of a signing key of the worker */
};
/* "issue" …; "?" for no verb. */
const char *protocol_verb_name(uint8_t verb);

enum protocol_role { PROTOCOL_ROLE_KEY, PROTOCOL_ROLE_AUDIT, PROTOCOL_ROLE_TLS, PROTOCOL_ROLES };
/* "key", "audit", "tls". */
const char *protocol_role_name(enum protocol_role role);
/* Whether a worker of this role serves the verb; it refuses all others (TEKD_EDENIED). */
bool protocol_role_serves(enum protocol_role role, uint8_t verb);

/* A KEK that may be left out has use 0. */
struct protocol_issue {
    uint16_t bits;
    struct hsm_kek storage;
    struct hsm_kek bsa; /* may be left out */
};

struct protocol_export {
    uint16_t bits;
    struct hsm_kek storage;
    struct hsm_kek bsa;
    struct hsm_blob stored;
};

struct protocol_checkpoint {
    struct note last;
    struct merkle_range range;
    size_t n;
    const struct merkle_hash *leaves; /* borrowed: of the writer, or inside the datagram read */
};

struct protocol_digest {
    uint8_t len;
    uint8_t octets[HSM_DIGEST_MAX];
};

struct protocol_describe {
    char label[HSM_LABEL_MAX + 1];
    enum hsm_kek_use use;
    enum hsm_wrap wrap;
};

/* Which of a worker's signing keys: MAIN of any role, the others of the audit worker.  This is the
 * order of their lines in a note. */
enum protocol_key {
    PROTOCOL_KEY_MAIN,
    PROTOCOL_KEY_ED25519,
    PROTOCOL_KEY_BEFORE, /* that MAIN has replaced */
    PROTOCOL_KEY_ED25519_BEFORE,
    PROTOCOL_KEYS
};
_Static_assert(PROTOCOL_KEYS <= NOTE_SIGS_MAX, "each of them signs a note");

struct protocol_request {
    uint8_t verb;
    uint64_t id; /* chosen by the caller, repeated in the reply */
    union {
        struct protocol_issue issue;
        struct protocol_export export;
        struct protocol_checkpoint checkpoint;
        struct protocol_digest digest;
        struct hsm_kek health; /* may be left out */
        struct protocol_describe describe;
        enum protocol_key key;
    };
};

struct protocol_reply {
    uint64_t id;
    int error; /* 0 or a code of err.h; with one there is no body, but for PROTOCOL_DESCRIBE */
    uint8_t verb;
    bool leaving; /* the worker ends after this reply: its module is not to be trusted any more */
    union {
        struct hsm_issued issued;
        struct hsm_blob data;
        struct note note;
        struct hsm_signature signature;
        struct hsm_kek_report report;
        struct hsm_spki spki;
    };
};

/*
 * Adds one to the datagram in b, or empties b first.  Errors: of buf_append(), TEKD_EINVAL; then b
 * is no datagram.
 */
int protocol_add_request(struct buf *b, const struct protocol_request *r);
int protocol_add_reply(struct buf *b, const struct protocol_reply *r);
int protocol_put_request(struct buf *b, const struct protocol_request *r);
int protocol_put_reply(struct buf *b, const struct protocol_reply *r);

/*
 * Reads the next one of a datagram, or the only one.  Errors: TEKD_EFORMAT.  *ret_request is not
 * to be used on failure, except for verb and id, which are what could be read of them, else 0.
 */
int protocol_next_request(struct view *v, struct protocol_request *ret_request);
int protocol_next_reply(struct view *v, struct protocol_reply *ret_reply);
int protocol_get_request(const void *octets, size_t len, struct protocol_request *ret_request);
int protocol_get_reply(const void *octets, size_t len, struct protocol_reply *ret_reply);

#endif
