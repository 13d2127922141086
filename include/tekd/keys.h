/*
 * The key service: who may have which TEK, and the answer to a Key Request.  HTTP, threads and
 * sockets are elsewhere: a request comes in as octets with the identity of its peer, an answer
 * leaves as octets with a status.
 *
 * A request has two halves.  keys_handle() runs on a request thread, decodes, decides, and may wait
 * for the HSM; what it made is submitted to the store.  The store's completion calls reply(), when
 * the audit record is durable and signed.  No thread waits for a disk.
 *
 * Thread rule: keys_handle() from any number of threads; the rest as said.
 */
#ifndef TEKD_KEYS_H
#define TEKD_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cp3.h"
#include "tekd/buf.h"
#include "tekd/enc.h"
#include "tekd/hsm.h"
#include "tekd/store.h"

#define KEYS_BITS_DEFAULT 128   /* AES-128, of contents that say nothing else */
#define KEYS_BSAS_MAX     10000 /* enrolled; all are held in memory */
#define KEYS_CONTENT_MAX  65536 /* contents whose current TEK is held in memory */
#define KEYS_ADDR_MAX     64
#define KEYS_HSM_US       4000000 /* an admin command's patience with the HSM */

struct keys;

enum keys_refusal_http { KEYS_REFUSAL_200, KEYS_REFUSAL_MAPPED };

/* Strings are copied. */
struct keys_options {
    const char *bsm_id;
    struct store *store;
    struct hsm *hsm;
    const char *storage_kek; /* label */
    bool auto_content;       /* an entitled BSA's first request makes the content */
    unsigned auto_bits;      /* of its TEKs: 128, 192, 256 */
    enum keys_refusal_http refusal_http;
    unsigned per_bsa_concurrency;
    uint64_t per_bsa_auto_contents;
    unsigned hsm_inside;  /* threads that call the HSM at a time, at least 1 */
    unsigned hsm_waiting; /* requests that wait for that; more are answered busy */
};

/*
 * Has wait(arg, true) and wait(arg, false) called around every wait of keys_handle() for the HSM or
 * a read of the store, so that the thread's pool can let another one run.  Before the first
 * request.
 */
void keys_on_wait(struct keys *k, void (*wait)(void *arg, bool begins), void *arg);

/*
 * Loads BSAs and KEKs from the store and binds the storage KEK: at the first start it is described
 * and recorded (kek.added).  When the HSM does not answer by deadline_us the service starts without
 * and binds with keys_bind().  Errors: TEKD_EWEAK, TEKD_ENOTFOUND (the token has no such key),
 * TEKD_EEXIST (more than one), TEKD_ETAMPER (another key under the bound label),
 * TEKD_EINVAL (storage_kek is not the label that was bound at the first start): all end tekd; and
 * those of store_call().
 */
int keys_new(const struct keys_options *o, int64_t deadline_us, struct keys **ret_keys);
/* Nothing may be under way. */
void keys_free(struct keys *k);
AUTO_DEFINE(keys)

/*
 * Checks every bound KEK on the token: at start, and when an HSM that was away is back.  While it
 * does not answer what was bound before stays so.  Errors: as keys_new().
 */
int keys_bind(struct keys *k, int64_t deadline_us);

/* An answer: what http_reply() takes, without h2o or sockets. */
struct keys_reply {
    int status;
    const char *media;
    const char *reason; /* CP3-Reason or NULL */
    int retry_after_s;
    bool close;
    char correlation[ENC_UUID_LEN + 1]; /* of a fault of ours, as in the log; else empty */
    struct buf *body;                   /* the receiver's */
};

/*
 * One request.  The caller fills the upper part and keeps the struct and what it points to alive
 * until reply, which is called exactly once, from any thread.
 */
struct keys_request {
    uint8_t cert_sha256[32];
    char addr[KEYS_ADDR_MAX];
    const char *content_type;
    const uint8_t *body;
    size_t body_len;
    int64_t deadline_us;
    void (*reply)(struct keys_request *self, struct keys_reply *take_reply);
    /* Called, before anything that takes long, as soon as a legal MessageID is known. */
    void (*known)(struct keys_request *self, enum cp3_media media, const char *message_id);
    /* Puts a request that had to wait for another back to a request thread: keys_handle() again. */
    void (*again)(struct keys_request *self);
    void *arg; /* the caller's own */

    struct keys_work *work; /* the service's own; NULL at first */
};

/* reader is the thread's own.  r may be answered, or gone, when this returns. */
void keys_handle(struct keys *k, struct cp3_reader *reader, struct keys_request *r);

/* Answers "busy" for a request that again() could not put back. */
void keys_abandon(struct keys *k, struct keys_request *r);

/* The answer "busy" (503), efficient, when a deadline passed or a queue was full; message_id may be
 * NULL or empty: problem+json then. */
void keys_busy_reply(enum cp3_media media, const char *message_id, struct keys_reply *ret_reply);

/*
 * After reply, exactly once and from any thread: the answer left whole (answer.sent is recorded),
 * or it did not, or was dropped.  Ends the request: the service has nothing of it any more.
 */
void keys_sent(struct keys *k, struct keys_request *r, bool whole);

/* A TLS handshake was refused: tls.refused, at most one a minute and cause, then with counts. */
void keys_tls_refused(struct keys *k, const char *cause, const char *addr);

/* ---- what operators do; each change is a record with its actor --------------------------------
 */

/* Who did it, as the admin socket knows: uid and user name. */
struct keys_actor {
    uint32_t uid;
    char name[64];
};

/* What went wrong in words for the operator. */
struct keys_error {
    char what[HSM_TEXT_MAX * 2];
};

/*
 * Everything "bsa add" and "bsa set" can say; NULL or unset: as it is (add: the default).
 *
 * Another KEK than the current one becomes current, and the one that was is retired in the same
 * transaction: no answer leaves under it from then on, also none that was recorded and still waits
 * for its signature.  With keep_old_kek it is kept: what was answered under it is repeated, all
 * else comes under the new one.  A KEK is enrolled once: never again after it was replaced.
 */
struct keys_bsa_change {
    const char *id;
    const char *const *certs; /* PEM; replaces all: current, or current and next */
    size_t n_certs;
    const char *kek_label;
    bool keep_old_kek;  /* with kek_label or wrap only */
    enum hsm_wrap wrap; /* 0: unset */
    const char *url;
    const char *ca_pem;
    int media, form, key_info;  /* -1: unset */
    const char *const *entitle; /* replaces all when set_entitle */
    size_t n_entitle;
    bool set_entitle;
};
int keys_bsa_add(struct keys *k, const struct keys_actor *a, const struct keys_bsa_change *c,
                 struct keys_error *err);
int keys_bsa_set(struct keys *k, const struct keys_actor *a, const struct keys_bsa_change *c,
                 struct keys_error *err);
/* Wins over requests under way: what is not released yet is decided anew.  A BSA whose KEK is
 * retired cannot be enabled (TEKD_EINVAL). */
int keys_bsa_enable(struct keys *k, const struct keys_actor *a, const char *id, bool enable,
                    struct keys_error *err);
/*
 * Retires a KEK of this name ("bsa-1/1") that was kept, or the current one of a disabled BSA, which
 * then has none.  Wins over requests under way.  Errors: TEKD_ENOTFOUND (no such BSA, or no KEK of
 * its own), TEKD_EEXIST (retired already), TEKD_EINVAL (the current KEK of an enabled BSA).
 */
int keys_bsa_retire_kek(struct keys *k, const struct keys_actor *a, const char *id,
                        const char *kek_name, struct keys_error *err);

int keys_content_add(struct keys *k, const struct keys_actor *a, const char *id, unsigned bits,
                     struct keys_error *err);
/* A new version becomes current. */
int keys_rotate(struct keys *k, const struct keys_actor *a, const char *content_id,
                uint8_t ret_key_id[static 16], struct keys_error *err);
int keys_destroy(struct keys *k, const struct keys_actor *a, const uint8_t key_id[static 16],
                 struct keys_error *err);

/* Records something that nobody waits for, e.g. hsm.lost; takes it. */
void keys_note(struct keys *k, struct record *take_r);

/* Call about once a second: writes the summaries of what the limits on records held back. */
void keys_tick(struct keys *k);
/* At the stop: writes all of them. */
void keys_flush(struct keys *k);

struct keys_status {
    uint64_t answered, refused, repeated, busy, failed;
    uint64_t tek_hits, tek_misses;
    size_t bsas;
    bool bound; /* the storage KEK was found and agrees */
    char reason[HSM_TEXT_MAX];
};
void keys_status_get(struct keys *k, struct keys_status *ret_status);

#endif
