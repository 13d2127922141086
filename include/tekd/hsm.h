/*
 * The HSM as the server sees it: a pool of worker processes (tekd-hsm), each with one PKCS#11
 * module and one session.  A call, or several at once, goes to a free worker of its role as one
 * datagram and waits for one datagram; a worker that does not answer in time is killed and started
 * anew with back-off; a call that lost its worker is tried once more on another.  Every call is
 * safe to repeat.
 *
 * No function gives or takes a clear key: keys are made, wrapped and unwrapped inside the HSM.
 *
 * Thread rule: all functions from any thread; calls block until their deadline at most.
 */
#ifndef TEKD_HSM_H
#define TEKD_HSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"
#include "tekd/log.h"
#include "tekd/merkle.h"
#include "tekd/note.h"

#define HSM_WRAPPED_MAX   512 /* an RSA-4096 block; 24..40 octets with AES key wrap */
#define HSM_LABEL_MAX     64  /* CKA_LABEL, octets of UTF-8 */
#define HSM_ID_MAX        32  /* CKA_ID */
#define HSM_WORKERS_MAX   32
#define HSM_MANY_MAX      8   /* orders of hsm_make_many() */
#define HSM_LEAVES_MAX    256 /* of one checkpoint: the message limit of the workers is 16 KiB */
#define HSM_DIGEST_MAX    64
#define HSM_SIGNATURE_MAX 144 /* DER of an ECDSA P-384 signature is at most 104 */
#define HSM_SPKI_MAX      600 /* RSA-4096 */
#define HSM_TEXT_MAX      200 /* names and reasons for people */

/* How a key is wrapped, named after the RFC (the values are in the store: never renumber). */
enum hsm_wrap {
    HSM_WRAP_AES_KW = 1,      /* RFC 3394 */
    HSM_WRAP_AES_KWP = 2,     /* RFC 5649 */
    HSM_WRAP_OAEP_SHA256 = 3, /* RFC 8017, empty label */
    HSM_WRAP_OAEP_SHA1 = 4,   /* RFC 8017, empty label */
};
/* "aes-kw" …; NULL when there is no such value.  Reading: TEKD_ENOTFOUND. */
const char *hsm_wrap_name(enum hsm_wrap w);
int hsm_wrap_read(const char *name, enum hsm_wrap *ret_wrap);

enum hsm_kek_use {
    HSM_KEK_STORAGE = 1, /* wraps and unwraps the TEKs at rest */
    HSM_KEK_BSA = 2,     /* wraps for one BSA, never unwraps */
};

/*
 * A KEK, bound three ways: label, CKA_ID and the SHA-256 of the wrap of a published constant key
 * (of the SubjectPublicKeyInfo for an RSA key).  A worker uses it only if exactly one key of the
 * token agrees with all three.
 */
struct hsm_kek {
    char label[HSM_LABEL_MAX + 1];
    uint8_t id[HSM_ID_MAX];
    uint8_t id_len;
    uint8_t fingerprint[32];
    enum hsm_wrap wrap;
    enum hsm_kek_use use;
};

struct hsm_blob {
    uint16_t len;
    uint8_t octets[HSM_WRAPPED_MAX];
};

struct hsm;

enum hsm_pin_source { HSM_PIN_FILE, HSM_PIN_CREDENTIAL, HSM_PIN_FD, HSM_PIN_PROMPT };

/* All strings are copied by hsm_new(). */
struct hsm_options {
    const char *program; /* path of tekd-hsm; NULL: beside the running program */
    const char *module;
    const char *const *env; /* NAME=value for the workers, NULL-terminated; may be NULL */
    const char *token;      /* RFC 7512 URI: token= and serial=, never a slot */
    const char *profile;    /* row of the vendor table */
    enum hsm_pin_source pin_source;
    const char *pin;        /* path or credential name */
    int pin_fd;             /* of HSM_PIN_FD, read to its end once */
    const char *latch_file; /* remembers over restarts that a PIN was refused; never holds a PIN */
    unsigned workers;       /* key workers, 1..HSM_WORKERS_MAX */
    bool tls_worker;        /* whether the TLS key is in the token */
    const char *checkpoint_key; /* label; of the audit worker; NULL: there is none */
    const char *ed25519_key; /* label; signs checkpoints too, a second line; NULL: there is none */
    const char *checkpoint_key_before; /* labels of those that signed until now, ... */
    const char *ed25519_key_before;    /* ... and go on to beside their successors; NULL: none */
    const char *tls_key;               /* RFC 7512 URI or label; NULL without tls_worker */
    int timeout_ms;                    /* of one call, 50..60000 */
    unsigned recycle_after;            /* calls of a worker before it is replaced; 0: never */
    unsigned max_waiting; /* calls that may wait for a free key worker; more get TEKD_EAGAIN */

    /* 0 stands for the default in each of these. */
    int audit_timeout_ms;       /* of a checkpoint signature; default: timeout_ms */
    int tls_timeout_ms;         /* of a handshake signature; default: timeout_ms */
    unsigned tls_waiting;       /* calls that may wait for the TLS worker; default 16 */
    unsigned restart_min_ms;    /* back-off of a worker that keeps dying: from (100) ... */
    unsigned restart_max_ms;    /* ... doubling to (30000); the first restart is at once */
    unsigned keepalive_s;       /* an idle worker makes a key and destroys it so often; 0: never */
    enum log_format log_format; /* of what tekd-hsm and its workers write to stderr ... */
    enum log_level log_level;   /* ... where 0, LOG_ERROR, is errors only */
};

/*
 * Starts tekd-hsm and its workers; returns once the supervisor runs, before the token answers: an
 * HSM that is down or a refused PIN is a state (hsm_status_get()), not an error.  Any thread may
 * call it: tekd-hsm dies with a thread of the pool, which lives until hsm_free() or the end of the
 * process.  pin_fd stays the caller's, who may close it once this has returned.
 * Errors: TEKD_EINVAL, TEKD_ETOOBIG (strings over 16 KiB), TEKD_ENOMEM, TEKD_EIO (the program
 * cannot be started).
 */
int hsm_new(const struct hsm_options *o, struct hsm **ret_hsm);
/*
 * For a stop: from at_us (of clock_mono_us()) on, calls under way and new ones return TEKD_ECLOSED,
 * whatever their own deadlines say.  Not those of the worker that signs checkpoints: they go on
 * until hsm_free().  Returns at once; of several times the earliest counts.
 */
void hsm_end_calls(struct hsm *h, int64_t at_us);
/* Ends and reaps every worker; calls under way return TEKD_ECLOSED. */
void hsm_free(struct hsm *h);
AUTO_DEFINE(hsm)

/*
 * Makes a TEK of bits (128, 192, 256), wraps it under storage and under bsa, destroys it: one
 * unit.  bsa may be NULL: then only stored is made, and data is empty.  deadline_us is of
 * clock_mono_us().  Errors, here and below: TEKD_EAGAIN (too many wait), TEKD_ETIMEDOUT, TEKD_EHSM
 * (failed, down, PIN refused), TEKD_ENOTFOUND (the token was searched and has no key that agrees
 * with the binding), TEKD_EWEAK (it has, but with attributes we refuse), TEKD_ECLOSED, TEKD_EINVAL
 * (the arguments).
 */
struct hsm_issued {
    struct hsm_blob stored;
    struct hsm_blob data;
};
int hsm_issue(struct hsm *h, unsigned bits, const struct hsm_kek *storage,
              const struct hsm_kek *bsa, int64_t deadline_us, struct hsm_issued *ret_issued);

/*
 * Unwraps a stored TEK inside the HSM, wraps it under bsa, destroys it.  Errors: also TEKD_EFORMAT
 * (stored is not what this KEK made).
 */
struct hsm_export {
    unsigned bits;
    const struct hsm_kek *storage;
    const struct hsm_blob *stored;
    const struct hsm_kek *bsa;
};
int hsm_export(struct hsm *h, const struct hsm_export *in, int64_t deadline_us,
               struct hsm_blob *ret_data);

/*
 * Several of hsm_issue() and hsm_export() by one message to one worker: each has what it would
 * have got alone, and a TEK that is exported to several BSAs is unwrapped once when its orders
 * stand one behind the other.  n: 1..HSM_MANY_MAX.  One that the worker did not come to, or that
 * ended it, is made alone, after those that were answered are done.
 */
struct hsm_order {
    unsigned bits;
    const struct hsm_kek *storage;
    const struct hsm_kek *bsa;     /* may be NULL unless stored is given */
    const struct hsm_blob *stored; /* of the TEK to export; NULL: a TEK is made */
    /* Called, on the caller's thread, as soon as this one's outcome is there; may be NULL. */
    void (*done)(struct hsm_order *self);
    void *arg;
    int error;                /* out: 0 or the error of this one */
    struct hsm_issued issued; /* out; stored only of a TEK that was made */
};
void hsm_make_many(struct hsm *h, struct hsm_order *orders, size_t n, int64_t deadline_us);
/* How many of them are worth one message: as many as are made in milliseconds, by the time that
 * they took lately; 1..HSM_MANY_MAX. */
size_t hsm_many(struct hsm *h);

/*
 * Finds the KEK of this label, checks its attributes (DESIGN: Keys), computes its binding.
 * Besides the errors above: TEKD_EEXIST (more than one key of this label).
 * ret_report says in words what was found, also on failure.
 */
struct hsm_kek_report {
    struct hsm_kek kek;
    bool imported;       /* not made in this HSM: LOCAL is false */
    char check_value[7]; /* 3 octets in hex, for the telephone only */
    char text[HSM_TEXT_MAX];
};
int hsm_describe_kek(struct hsm *h, const char *label, enum hsm_kek_use use, enum hsm_wrap wrap,
                     int64_t deadline_us, struct hsm_kek_report *ret_report);

/*
 * The SubjectPublicKeyInfo (DER) of the checkpoint key, of the TLS key, of the Ed25519 key that
 * signs checkpoints too, or of the key before one of these (TEKD_EINVAL without one).
 */
enum hsm_public {
    HSM_PUBLIC_CHECKPOINT = 1,
    HSM_PUBLIC_TLS = 2,
    HSM_PUBLIC_ED25519 = 3,
    HSM_PUBLIC_CHECKPOINT_BEFORE = 4,
    HSM_PUBLIC_ED25519_BEFORE = 5,
};
struct hsm_spki {
    uint16_t len;
    uint8_t der[HSM_SPKI_MAX];
};
int hsm_public_key(struct hsm *h, enum hsm_public which, int64_t deadline_us,
                   struct hsm_spki *ret_spki);

/*
 * Extends the log that last describes by leaves and signs the new tree head, with each of its keys:
 * the checkpoint key first, then the Ed25519 key, the checkpoint key before and the Ed25519 key
 * before, as far as there are such.  The worker checks its own signatures on last and the range
 * against last's root, and refuses a size that it has passed or a root that contradicts one it
 * signed (TEKD_ETAMPER).  There is one of the checkpoint key or of the one before it; others may be
 * missing (the key may be new), none may be wrong.  For the first checkpoint of an origin last has
 * size 0, the empty root and no signature; an origin is <log>/<epoch>, and once an epoch is signed
 * none before it is, and none begins but the one behind it (TEKD_ETAMPER).  n may be 0 (same size
 * signed again).
 */
struct hsm_checkpoint {
    const struct note *last;
    const struct merkle_range *range; /* of last */
    const struct merkle_hash *leaves;
    size_t n; /* 0..HSM_LEAVES_MAX */
};
int hsm_sign_checkpoint(struct hsm *h, const struct hsm_checkpoint *in, int64_t deadline_us,
                        struct note *ret_note);

/* Signs a digest with the TLS key; DER.  For the handshake thread. */
struct hsm_signature {
    uint16_t len;
    uint8_t octets[HSM_SIGNATURE_MAX];
};
int hsm_sign_tls(struct hsm *h, const uint8_t *digest, size_t len, int64_t deadline_us,
                 struct hsm_signature *ret_signature);

/* A real generate, wrap under a KEK, destroy, on a key worker; for the readiness probe. */
int hsm_health(struct hsm *h, const struct hsm_kek *storage, int64_t deadline_us);

/* What an operator sees. */
enum hsm_state { HSM_STARTING, HSM_READY, HSM_DOWN, HSM_PIN_REFUSED };
struct hsm_worker_status {
    const char *role; /* "key", "audit", "tls"; static */
    int pid;          /* 0: none at the moment */
    bool ready;
    uint64_t calls;
    uint64_t failures;
    uint64_t restarts;
};
struct hsm_status {
    enum hsm_state state;
    char token_label[HSM_TEXT_MAX];
    char token_model[HSM_TEXT_MAX];
    char token_serial[HSM_TEXT_MAX];
    char reason[HSM_TEXT_MAX]; /* of DOWN and PIN_REFUSED, e.g. "C_Login: CKR_PIN_INCORRECT" */
    int error;                 /* its code: TEKD_EHSM, TEKD_EPIN, TEKD_EINVAL, TEKD_EWEAK (a token
                                  on which keys can be stolen: do not serve); else 0 */
    bool prevents_wrap_out;    /* a PIN holder cannot wrap a TEK under a key of his own */
    size_t n_workers;
    struct hsm_worker_status worker[HSM_WORKERS_MAX + 2];
};
void hsm_status_get(struct hsm *h, struct hsm_status *ret_status);

/*
 * Waits until the state leaves HSM_STARTING or the deadline passes; for tekd's start and --check.
 * Errors: TEKD_ETIMEDOUT, TEKD_ECLOSED.
 */
int hsm_wait(struct hsm *h, int64_t deadline_us);

/*
 * Forgets that the PIN was refused, reads its source again and starts the workers: the operator's
 * word that the source was mended.  pin is for HSM_PIN_FD and HSM_PIN_PROMPT, else NULL.  Returns
 * at once, in HSM_STARTING unless all is well anyway: hsm_wait() tells what came of it.
 * Errors: TEKD_EINVAL (pin is missing, or too much), TEKD_EIO, TEKD_ECLOSED.
 */
struct secret;
int hsm_retry(struct hsm *h, const struct secret *pin);

/* Called, from a thread of the pool, whenever the state changes; set before other calls. */
void hsm_on_state(struct hsm *h, void (*changed)(void *arg, enum hsm_state state), void *arg);

#endif
