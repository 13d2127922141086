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
#define KEYS_CONTENT_MAX  32768 /* current TEKs held in memory: some 10 MB with their exports */
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
 * Checks the bound KEKs on the token, of BSAs the first 64 or as many as there is time for: at
 * start, and when an HSM that was away is back.  Each has the time from now to deadline_us, and all
 * together about twice that.
 * While it does not answer what was bound before stays so.  Errors: as keys_new().
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

/* ---- what operators do; each change is a record with its actor ------------------------------- */

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

/* A new version becomes current. */
int keys_rotate(struct keys *k, const struct keys_actor *a, const char *content_id,
                uint8_t ret_key_id[static 16], struct keys_error *err);
int keys_destroy(struct keys *k, const struct keys_actor *a, const uint8_t key_id[static 16],
                 struct keys_error *err);

/* ---- crypto-periods -------------------------------------------------------------------------- */

/*
 * Period n of a content runs from epoch + n * period_s to epoch + (n + 1) * period_s, the end
 * excluded.  Its TEK is made lead_s before it starts ("announced" from then on), or by the first
 * request in it.  A request gets the TEK of the current period or, if it asks for it, an announced
 * one.
 */
#define KEYS_PERIOD_MIN_S 10
#define KEYS_PERIOD_MAX_S 31536000
struct keys_content_add {
    const char *id;
    int64_t period_s;     /* 0: no crypto-periods */
    int64_t lead_s;       /* less than period_s */
    int64_t epoch_utc_us; /* if set_epoch, and not in the future; else the whole second of now */
    unsigned bits;
    bool set_epoch;
};

/*
 * Makes the TEK of a period, unless it has one already, and with it, in the same transaction, the
 * fan-out to the BSAs that hold the content.  May wait for the HSM.  Returns 0 also when it was
 * there.  Errors: those of the HSM and of store_call(); TEKD_ENOTFOUND (no such content);
 * TEKD_ESTALE (the period is over: nobody may ask for it any more).
 */
int keys_period_make(struct keys *k, int64_t content, int64_t period, int64_t deadline_us);

int keys_content_add(struct keys *k, const struct keys_actor *a, const struct keys_content_add *c,
                     struct keys_error *err);

/* ---- key deliveries ----------------------------------------------------------------------------
 * What a delivery says, and what becomes of it when a confirmation comes.  When and how it is sent
 * is the push service's (push.h).
 */

/*
 * Called when deliveries of this BSA were prepared and are signed, or changed by a confirmation or
 * an operator, or when its enrolment changed (it may have a URL now, or be enabled); bsa 0: a
 * fan-out was begun, or a content with crypto-periods was added.  From any thread; must not block.
 * Set before the first request.
 */
void keys_on_delivery(struct keys *k, void (*changed)(void *arg, int64_t bsa), void *arg);

/*
 * One new Key Delivery of the content's TEK, made if there is none (of the current period, for
 * contents with crypto-periods), to each of these BSAs; n 0: to every enabled BSA that is entitled
 * to it.  each() gets MessageID and BSA ID of each, in order; who is named twice is meant once.
 * Nothing is prepared if one of the named BSAs is unknown, disabled or not entitled.  One for which
 * the TEK cannot be wrapped ends the command: the groups of KEYS_FANOUT_GROUP before its own are
 * prepared then.  With n 0 it is left out, and is the error in the end.  Errors: TEKD_ENOTFOUND,
 * TEKD_EDENIED, TEKD_EHSM and the like; err says which BSA, and how many are prepared all the same:
 * those that each() got.
 */
struct keys_delivery_order {
    const char *content_id;
    const char *const *bsa_ids;
    size_t n;
    int64_t deadline_s; /* of each delivery; the end of the TEK's period may come first */
    void *arg;
    int (*each)(void *arg, const char *mid, const char *bsa_id);
};
int keys_deliver(struct keys *k, const struct keys_actor *a, const struct keys_delivery_order *o,
                 struct keys_error *err);
/*
 * The next group of a fan-out: at most KEYS_FANOUT_GROUP BSAs that are enabled, entitled and have a
 * KEK.  A BSA whose own KEK is what fails is passed over, and said in the log.  Of f only the row
 * counts: where it stands is read anew.  *ret_done: that was the last, or its TEK is destroyed or
 * its crypto-period over.  Errors: as keys_deliver(); nothing is changed then, or all, when the
 * store gave up waiting for the signature.
 */
#define KEYS_FANOUT_GROUP 16 /* two records each fit one item of the store */
int keys_fanout_step(struct keys *k, const struct store_fanout *f, int64_t deadline_s,
                     bool *ret_done);

/* retry: at once, with a new deadline, also one that is unconfirmed; not one that is confirmed or
 * abandoned.  Errors: TEKD_ENOTFOUND, TEKD_EEXIST (confirmed, abandoned), TEKD_EDENIED (its key is
 * gone). */
int keys_delivery_retry(struct keys *k, const struct keys_actor *a, const char *mid,
                        int64_t deadline_s, struct keys_error *err);
int keys_delivery_abandon(struct keys *k, const struct keys_actor *a, const char *mid,
                          const char *reason, struct keys_error *err);

/*
 * A confirmation, however it came: the body of the HTTP answer to a push, or a POST of the BSA.
 * Judged on the store thread by the row; records delivery.confirmed, delivery.rejected,
 * confirm.duplicate or confirm.unmatched.  What the caller fills stays alive until done, which runs
 * on the store thread when the outcome is durable, or at once on the caller's when the store takes
 * nothing.  A rejection is a warning in the log, unless it repeats one.  After it the delivery is
 * due when the claim said, or retry_us from now if that is sooner.
 */
enum keys_confirmation {
    KEYS_CONFIRMED,  /* now, or (duplicate) before */
    KEYS_REJECTED,   /* Status 1 of a delivery that is not confirmed */
    KEYS_UNMATCHED,  /* no confirmation; reason says why */
    KEYS_NOT_JUDGED, /* error says why: the store failed */
};
struct keys_confirm {
    int64_t bsa; /* row of the peer */
    char peer[STORE_ID_MAX + 1];
    uint8_t cert_sha256[32];
    char addr[KEYS_ADDR_MAX];
    uint8_t out_sha256[32]; /* of the confirmation's octets: "out" of its record is of the delivery,
                               "req" is this */
    const struct cp3_message *message; /* Tag 4 */
    int64_t retry_us;                  /* 0: its claim says when */
    void (*done)(struct keys_confirm *self);
    void *arg;
    /* The outcome. */
    enum keys_confirmation outcome;
    enum cp3_reason reason;
    int error;
    /* The service's own. */
    struct store_item item;
    struct keys *keys;
    struct record *note;
    uint32_t attempt;
    bool changed, news;
};
void keys_confirm(struct keys *k, struct keys_confirm *c);

/*
 * Who a certificate is, for the push service and the collecting BSA: an enabled BSA's row, ID and
 * whatever a delivery to it needs.  Errors: TEKD_ENOTFOUND (not enrolled), TEKD_EDENIED (disabled).
 */
struct keys_peer {
    int64_t row;
    char id[STORE_ID_MAX + 1];
    char url[STORE_URL_MAX + 1]; /* empty: it collects */
    char *ca_pem;                /* the caller's, NULL: the server's CA */
    size_t n_certs;
    uint8_t cert[STORE_CERTS_MAX][32];
};
void keys_peer_clear(struct keys_peer *p);
int keys_peer_by_cert(struct keys *k, const uint8_t sha256[static 32], struct keys_peer *ret_peer);
/* By row: also TEKD_EDENIED for a disabled one. */
int keys_peer_by_row(struct keys *k, int64_t row, struct keys_peer *ret_peer);

/* The ID of the BSA with this row, enabled or not, by what is in memory.  Errors: TEKD_ENOTFOUND.
 */
int keys_bsa_id(struct keys *k, int64_t row, char ret_id[static STORE_ID_MAX + 1]);

/* One who asks for deliveries, as HTTP knows him, and the enabled BSA that he is. */
struct keys_asker {
    uint8_t cert_sha256[32];
    char addr[KEYS_ADDR_MAX];
};
struct keys_collector {
    int64_t row;
    char id[STORE_ID_MAX + 1];
};
/*
 * Who it is, by what is in memory.  A stranger's, or a disabled BSA's, refusal is recorded as that
 * of a request is, and *ret_reply is what he gets: 403, and the connection ends.
 * Errors: TEKD_EDENIED.
 */
int keys_collector(struct keys *k, const struct keys_asker *a, struct keys_collector *ret_collector,
                   struct keys_reply *ret_reply);
/* His question is none; detail says why.  Recorded, and answered with 400. */
void keys_collect_malformed(struct keys *k, const struct keys_asker *a,
                            const struct keys_collector *c, const char *detail,
                            struct keys_reply *ret_reply);

/* Records something that nobody waits for, e.g. hsm.lost; takes it. */
void keys_note(struct keys *k, struct record *take_r);

/* Call about once a second: writes the summaries of what the limits on records held back. */
void keys_tick(struct keys *k);
/* At the stop: writes all of them. */
void keys_flush(struct keys *k);

struct keys_status {
    uint64_t answered, refused, repeated, busy, failed;
    uint64_t tek_hits, tek_misses;
    uint64_t confirmed, rejected; /* outcomes of deliveries, however they came; no duplicates */
    size_t bsas;
    bool bound; /* the storage KEK was found and agrees */
    char reason[HSM_TEXT_MAX];
};
void keys_status_get(struct keys *k, struct keys_status *ret_status);

#endif
