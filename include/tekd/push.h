/*
 * The push service: Key Deliveries on their way to BSAs, until each is confirmed, given up or past
 * its deadline; and the work that comes with time: crypto-periods, fan-outs.
 *
 * Every delivery is a row of the store, so nothing is lost with the process.  An attempt begins
 * with a claim: a transaction that marks the delivery as in flight until a time (its lease), with
 * the record delivery.attempt.  When that record is signed the message is sent: POSTed to the BSA's
 * URL, or handed to the BSA that asks for it.  What comes back is judged by keys_confirm(); what
 * does not is tried again after a pause that doubles from retry_initial_s to retry_max_s, with
 * jitter.
 *
 * One lane a BSA: at most PUSH_LANE_MAX of its deliveries are under way, and one while the last
 * attempt failed, so that a BSA that hangs holds its own lane and nobody else's.
 *
 * A BSA's server is who its certificate says: signed by the BSA's own CA or, if it has none, by the
 * server's client CA, for the name in the URL, and enrolled for this very BSA.  All of that is
 * settled with the handshake, before a request is written, and again whenever the files or the
 * enrolment have changed.
 *
 * Threads: "push" (curl's multi interface, timers, lanes), "jobs" (what waits for the HSM: fan-outs
 * and the TEKs of crypto-periods), and "push-sign" (signatures of handshakes, when the TLS key is
 * in the HSM: it waits for them, so that "push" need not).  Thread rule: push_start(),
 * push_*_files(), push_stop() and push_free() from one thread; the rest from any.
 */
#ifndef TEKD_PUSH_H
#define TEKD_PUSH_H

#include "tekd/keys.h"

#define PUSH_LANE_MAX   8     /* deliveries of one BSA under way at a time */
#define PUSH_TOTAL_MAX  256   /* and of all BSAs */
#define PUSH_ANSWER_MAX 65536 /* octets of an HTTP answer that are read */
#define PUSH_WAIT_MAX_S 60    /* of one poll of a collecting BSA */
#define PUSH_POLLS_MAX  1024  /* open polls */
#define PUSH_IDLE_MAX   1024  /* connections kept open: a rotation finds those of the last one */

struct push;

/* Strings are copied. */
struct push_options {
    struct keys *keys;
    struct store *store;
    const char *certificate; /* PEM chain: tekd's, as the HTTPS server uses it */
    const char *key_file;    /* PEM; NULL: the key is in the HSM, and signer signs */
    struct {
        int (*sign)(void *arg, const uint8_t *digest, size_t len, uint8_t *out, size_t *inout_len);
        void *arg;
    } signer;
    const char *ca;  /* PEM: who signs the certificates of BSAs that have no CA of their own */
    const char *crl; /* PEM; NULL: none is checked */
    unsigned retry_initial_s, retry_max_s, attempt_timeout_s, deadline_s;
};

/*
 * Turns deliveries that were in flight, and confirmations that no checkpoint covered, into unknown
 * ones (delivery.unknown), then starts.  Errors: TEKD_EINVAL (a file cannot be used; said in the
 * log), TEKD_EDENIED (others may read the key file; also said), TEKD_ENOMEM, those of store_call().
 */
int push_start(const struct push_options *o, struct push **ret_push);
/*
 * A reload in two steps, so that all who read these files take the new ones or none does: reads
 * certificate, key, CA and CRL again; then what was read is used from now on, or dropped (takes
 * NULL).  Errors of reading, said in the log: TEKD_EINVAL (one does not parse), TEKD_EDENIED,
 * TEKD_ENOMEM.
 */
struct trust;
int push_read_files(struct push *p, struct trust **ret_files);
void push_use_files(struct push *p, struct trust *take_files);
void push_drop_files(struct trust *files);
/*
 * Claims nothing more, answers open polls, gives attempts under way until cut_us (of
 * clock_mono_us()), joins.  From then on push_collect() gives TEKD_ECLOSED and nothing else
 * happens: whoever answers HTTP may stop after the push service, and need not wait for polls.
 */
void push_stop(struct push *p, int64_t cut_us);
/* When nobody can call any more: HTTP, admin socket, key service and store have ended.  Takes NULL.
 */
void push_free(struct push *p);
AUTO_DEFINE(push)

/* An operator wants this BSA's deliveries tried now: the pause behind its failures ends. */
void push_hurry(struct push *p, int64_t bsa);

/*
 * A BSA asks for its deliveries.  reply() is called once, from any thread: with the message of one
 * delivery, claimed and signed; or without (204) after wait_us, or at once when a newer poll of the
 * same BSA came, or when tekd stops.  One that is gone gets none either, by then or before.
 * Errors: TEKD_EAGAIN (too many polls), TEKD_ECLOSED; reply() is not called then.
 */
struct push_poll {
    int64_t bsa;
    char peer[STORE_ID_MAX + 1];
    char addr[KEYS_ADDR_MAX];
    int64_t wait_us;
    void (*reply)(struct push_poll *self, enum cp3_media media, struct buf *take_message);
    void *arg;
    _Atomic bool gone;      /* set by who asked when nobody waits any more: nothing is claimed */
    struct push_poll *next; /* the service's own until reply */
    int64_t until_us;
};
int push_collect(struct push *p, struct push_poll *poll);

struct push_status {
    uint64_t count[STORE_DELIVERY_STATES];
    uint64_t under_way; /* attempts at this moment */
    /* Since the start: claims, what BSAs said however it came, and pushes that failed. */
    uint64_t attempts, confirmed, rejected, failed;
    uint64_t fanouts;       /* that are not through */
    int64_t oldest_open_us; /* UTC; 0: none */
    int64_t late_periods;   /* TEKs that could not be made in time */
};
int push_status_get(struct push *p, struct push_status *ret_status);

#endif
