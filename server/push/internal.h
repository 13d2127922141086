/*
 * What the files of the push service share.
 *
 * Who runs what: the thread "push" owns lanes, transfers, polls that were taken in, and everything
 * of struct push that is not said to be under the lock.  The store thread runs the apply of our
 * errands, which touches nothing but the errand; what is to be done then comes back to "push".  The
 * threads "jobs" and "push-sign" have structs of their own.
 *
 * The way of a delivery:
 *
 *     lane      something is due, and there is room
 *     claim     marks it as in flight (store) and waits for the signature of the record
 *     transfer  POSTs it (curl); or collect hands it to a poll
 *     answer    what came back: a confirmation, "taken", or nothing of use
 *     result    has the confirmation judged (keys), or puts the delivery back (store)
 *     lane      one less under way
 */
#ifndef TEKD_PUSH_INTERNAL_H
#define TEKD_PUSH_INTERNAL_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tekd/backoff.h"
#include "tekd/push.h"

#define SECOND_US       INT64_C(1000000)
#define PUSH_TICK_US    (SECOND_US / 5)  /* the clocks are read again at least so often */
#define PUSH_LOOK_US    (5 * SECOND_US)  /* a BSA that cannot be sent to is looked at again */
#define PUSH_RECHECK_US (60 * SECOND_US) /* so old may be what a certificate was found to be */
#define PUSH_STORE_US   SECOND_US        /* so is a store that could not claim */
#define PUSH_POKES_MAX  1024             /* BSAs to look at; if there are more, all are looked at */
#define PUSH_ADDR_MAX   (STORE_ID_MAX + 9) /* a host name and a port */

struct lane;
struct target;
struct trust;

/* A BSA that has something to be looked at; hurry: without the pause behind its failures. */
struct poke {
    int64_t bsa;
    bool hurry;
};

/* Both clocks: what stands in rows is UTC, what only waits is monotonic. */
struct moment {
    int64_t mono_us, utc_us;
};
struct moment moment_now(void);

/* ---- push.c: life, and what comes from other threads ----------------------------------------- */

/*
 * Work for the store that comes back: apply on the store thread, then back on "push", with the
 * result of the item.  Stands at the beginning of what it is about, which back frees.
 */
struct errand {
    struct store_item item; /* first */
    struct push *push;
    void (*back)(struct errand *self);
    int result;
    struct errand *next; /* the inbox's */
};
/* From "push".  back is called in any case. */
void errand_go(struct push *p, struct errand *e, enum store_wait wait);
/* The same for what is no item of ours: it is out until errand_return(), from any thread. */
void errand_out(struct push *p, struct errand *e);
void errand_return(struct errand *e, int result);

/* A delivery that was claimed, so it may leave once.  Owned by who does the next step. */
struct attempt {
    int64_t row;
    int64_t bsa;
    char mid[STORE_MID_LEN + 1];
    char peer[STORE_ID_MAX + 1];
    char url[STORE_URL_MAX + 1]; /* that its record names; empty: it is handed to a poll */
    uint32_t number;             /* from 1 */
    enum cp3_media media;
    struct buf *message;
};
void attempt_free(struct attempt *a);
AUTO_DEFINE(attempt)

/* The last error of a delivery that is in flight and that nobody spoke of until its lease, or its
 * time, was over. */
#define PUSH_WHY_SILENT "no confirmation came"

/* Lanes that wait for room, in the order they came. */
struct lane_list {
    struct lane *first, *last;
    unsigned n;
};

struct push {
    struct keys *keys;
    struct store *store;
    struct backoff backoff;
    int64_t attempt_us, deadline_s;
    int64_t reach_us; /* no row waits longer, unless UTC was set back since */
    struct trust_files *files;
    struct transfers *transfers;
    struct signing *signing; /* NULL: the key is in a file */
    struct jobs *jobs;
    int64_t stop_us; /* mono: of push_stop(); written before stop */
    pthread_t thread;
    bool started;
    _Atomic bool stop;
    _Atomic unsigned n_polls; /* accepted and not answered */
    _Atomic uint64_t under_way_now, attempts, failed;

    pthread_mutex_t lock; /* guards these: */
    struct errand *returned, **last_returned;
    struct push_poll *polls, **last_poll;
    struct poke poke[PUSH_POKES_MAX];
    size_t n_pokes;
    bool poke_all;
    bool closed; /* no more polls */
    struct trust *trust;

    /* What follows is the thread's own. */
    struct cp3_reader *reader;
    struct lane **lane; /* by BSA, rising */
    size_t n_lanes, max_lanes;
    struct lane_list ready, suspects;
    unsigned under_way, suspects_under_way;
    unsigned errands;             /* that are out */
    int64_t sweep_us;             /* mono: when all lanes are looked over again */
    int64_t store_again_us;       /* mono: nothing is looked at or claimed before */
    bool look_all;                /* BSAs changed that are not known by name */
    int64_t earliest_deadline_us; /* UTC: of all lanes since the last sweep; INT64_MAX: none */
    bool watching;                /* an errand of watch.c is out */
    int64_t watch_again_us;       /* mono */
    int64_t watched_us;           /* UTC: what was near its deadline before this was said */
    int64_t cut_us;               /* mono: at a stop, when attempts end; 0: it does not stop */
};

/* Has "push" look at this BSA again.  From any thread. */
void push_poke(struct push *p, int64_t bsa);
/* Ends a wait of "push".  From any thread. */
void push_wake(struct push *p);

/* ---- lane.c: which BSA may be sent something, and when --------------------------------------- */

/* One BSA; lives as long as the service.  Owned by "push". */
struct lane {
    int64_t bsa;
    int64_t reach_us;        /* of struct push */
    unsigned under_way;      /* wanted by a claim, or claimed and the outcome not in the store */
    unsigned failures;       /* attempts in a row that got no answer */
    bool answers;            /* the last attempt got one */
    bool busy;               /* an errand that tells its rows is out */
    bool look;               /* its rows may have changed */
    struct lane_list *list;  /* in which it waits; NULL: in none */
    int64_t paused_until_us; /* mono: behind failures */
    int64_t again_us;        /* mono: it cannot be sent to before, by URL */
    int64_t empty_until_us;  /* mono: a claim found nothing, whatever rows says */
    struct store_lane rows;  /* as last seen */
    struct target *target;   /* as last used */
    struct push_poll *poll;
    struct lane *next; /* in its list */
};

/* How many more of its deliveries may be under way: one until the BSA answers. */
unsigned lane_room(const struct lane *l);
/*
 * How much of the room of all a lane takes when so many others wait for it: an equal part, one at
 * least.  One that takes more makes connections for it, and each costs more than a delivery does.
 */
unsigned lane_part(unsigned room, unsigned waiting);
/* How long until something is to be done for it; 0: now; INT64_MAX: time alone brings nothing. */
int64_t lane_wait_us(const struct lane *l, const struct moment *now);
/* An attempt ended without an answer (connection, TLS, time-out); or with one. */
void lane_failed(struct lane *l, const struct moment *now, int64_t pause_us);
void lane_answered(struct lane *l);

/* The lane of this BSA, made if need be; NULL without memory. */
struct lane *lane_get(struct push *p, int64_t bsa);
void lanes_free(struct push *p);
/* What was read of it: its deadline counts from now on. */
void lane_take_rows(struct push *p, struct lane *l, const struct store_lane *rows);
/* Reads all lanes that have open deliveries.  Before the thread starts; errors of store_call(). */
int lanes_load(struct push *p);
/* Does for a lane what is to be done now, or puts it where it waits. */
void lane_work(struct push *p, struct lane *l, const struct moment *now);
/* What time has brought, and room.  Returns for how long that is all. */
int64_t lanes_turn(struct push *p, const struct moment *now);
/* So many of its deliveries are not under way any more. */
void lane_leave(struct push *p, struct lane *l, unsigned n);
/* lane_answered() or lane_failed(), with the room that this gives and takes. */
void lane_outcome(struct push *p, struct lane *l, bool answered, const struct moment *now);

/* ---- look.c: what the rows of lanes say ------------------------------------------------------ */

/* Reads a lane's rows; it is busy meanwhile. */
void look_at(struct push *p, struct lane *l);
/* Reads those of all lanes, and finds lanes that there were not. */
void look_at_all(struct push *p);
/* The store could not do what it was asked: for a moment it is asked nothing more. */
void look_pause(struct push *p);

/* ---- claim.c --------------------------------------------------------------------------------- */

/* Claims the oldest n that are due for a push, and starts their transfers. */
void claim_for_push(struct push *p, struct lane *l, unsigned n);
/* Claims one for the lane's poll, and answers it. */
void claim_for_poll(struct push *p, struct lane *l);

/* ---- collect.c ------------------------------------------------------------------------------- */

/* Takes in what push_collect() left. */
void collect_take(struct push *p, struct push_poll *list);
/* Answers, with a message or (NULL) without. */
void collect_reply(struct push *p, struct push_poll *poll, struct attempt *take_attempt);
/* A poll that a claim got nothing for goes back to its lane, or was replaced meanwhile. */
void collect_put_back(struct push *p, struct lane *l, struct push_poll *poll);
/* Answers all: tekd stops. */
void collect_end(struct push *p);

/* ---- trust.c: what the files say of us and of those at the other end ------------------------- */

struct trust_files {
    char *certificate, *key, *ca, *crl; /* key and crl may be NULL */
};
int trust_files_new(const struct push_options *o, struct trust_files **ret_files);
void trust_files_free(struct trust_files *f);

/* Never changed, counted; of any thread. */
struct trust {
    _Atomic unsigned refs;
    X509 *cert;
    STACK_OF(X509) * chain; /* without cert */
    EVP_PKEY *key;          /* NULL: it is in the HSM */
    X509_STORE *ca;
    STACK_OF(X509_CRL) * crls; /* NULL: none are checked */
};
/* Errors, said in the log: TEKD_EINVAL, TEKD_ENOMEM. */
int trust_new(const struct trust_files *f, struct trust **ret_trust);
struct trust *trust_ref(struct trust *t);
void trust_unref(struct trust *t);
/* A store of other CAs, with the same CRLs.  Errors: TEKD_EINVAL (no PEM), TEKD_ENOMEM. */
int trust_store(const struct trust *t, const char *ca_pem, X509_STORE **ret_store);

/* ---- tls.c: who has to be at the other end of a connection ----------------------------------- */

/*
 * Where one BSA is and who it has to be, as enrolled and as the files say: immutable, counted, of
 * "push" alone.  A connection belongs to the target it was made for: when either changes there is a
 * new target, and a connection of another one is not used any more.
 */
struct target {
    unsigned refs;
    struct push *push;
    struct trust *trust;
    X509_STORE *store;
    bool own_ca;
    size_t n_certs;
    uint8_t cert[STORE_CERTS_MAX][32];
    uint8_t enrolled_sha256[32]; /* of all that was enrolled, to see a change */
};
/* Errors: TEKD_EINVAL (its CA cannot be read), TEKD_ENOMEM. */
int target_new(struct push *p, struct trust *trust, const struct keys_peer *peer,
               struct target **ret_target);
bool target_is_of(const struct target *t, const struct trust *trust, const struct keys_peer *peer);
struct target *target_ref(struct target *t);
void target_unref(struct target *t);

/* One TLS connection: what is known of it.  Counted, of "push" alone; its SSL_CTX has one. */
struct conn {
    unsigned refs;
    struct target *target;
    int verify_error; /* X509_V_*; X509_V_OK */
    bool is_enrolled; /* the server's certificate is one of the target's */
    bool is_signing;  /* its handshake waits for "push-sign" */
    bool sign_failed;
    int64_t sign_by_us;
    int64_t checked_us; /* mono: when its certificate was looked at */
    uint8_t cert[32];
};
int conn_new(struct target *t, int64_t sign_by_us, struct conn **ret_conn);
struct conn *conn_ref(struct conn *c);
void conn_unref(struct conn *c);
/* Makes a context into one for this connection, before its SSL is made; the context gets a
 * reference.  Errors: TEKD_ECRYPTO, TEKD_ENOMEM. */
int tls_set_up(SSL_CTX *ctx, struct conn *c);
/* Which connection this is, borrowed. */
struct conn *tls_conn(SSL *ssl);
/* The handshake is over. */
void tls_settle(SSL *ssl);
/* Whether its server's certificate is still good, looked at again after PUSH_RECHECK_US. */
bool tls_is_good(SSL *ssl);
/* Why the server's certificate was not accepted; NULL if it was. */
const char *tls_why(const struct conn *c);

/* ---- sign.c: signatures without waiting for them --------------------------------------------- */

int signing_new(struct push *p, const struct push_options *o, struct signing **ret_signing);
/* No handshake may be under way. */
void signing_free(struct signing *s);
/* A private key that is elsewhere, for one connection.  Errors: TEKD_EINVAL (no EC key). */
int signing_key(X509 *certificate, struct conn *c, EVP_PKEY **ret_key);
/* Whether a handshake leaves the thread while its signature is made. */
bool signing_is_apart(void);

/* ---- transfer.c, request.c and failure.c: the only files that know curl ---------------------- */

/* What an attempt came to. */
struct outcome {
    bool answered; /* an HTTP answer came, whole or not: the BSA is there */
    int status;    /* 0: none that can be used; why says more */
    char media[128];
    struct buf *body;
    char why[STORE_WHY_MAX + 1];
    uint8_t cert[32]; /* of the server; and where it is: */
    char addr[KEYS_ADDR_MAX];
};

#define TRANSFER_HEADERS_MAX 16384 /* octets of an answer's header */
struct transfer {
    struct push *push;
    struct lane *lane;
    struct attempt *attempt;
    struct target *target;
    struct conn *conn; /* as last seen */
    void *easy;        /* CURL */
    struct curl_slist *headers;
    struct buf *body;
    size_t header_octets;
    int64_t until_us; /* mono */
    bool requested;   /* the request was begun */
    bool stale;       /* the connection was not one of this target */
    bool fresh;       /* ... so it asks for a new one */
    char text[256];   /* of CURL_ERROR_SIZE */
    struct transfer *prev, *next;
};
/* Of one that is not under way. */
void transfer_free(struct transfer *t);
AUTO_DEFINE(transfer)

/* Makes its handle.  Errors: TEKD_ENOMEM, TEKD_EINVAL. */
int request_set_up(struct transfer *t);
/* Host and port of a URL, for records; printable ASCII.  From any thread. */
void request_addr(const char *url, char out[static PUSH_ADDR_MAX]);
/* What it came to by this CURLcode; the body is borrowed. */
void failure_outcome(const struct transfer *t, int curl_code, struct outcome *ret_outcome);

int transfers_new(struct push *p, struct transfers **ret_transfers);
void transfers_free(struct transfers *t);
/* Ends what is under way, without an outcome; but for handshakes that wait for a signature. */
void transfers_cut(struct transfers *t);
/* Takes the attempt; result_take() gets it back with the outcome. */
void transfer_start(struct push *p, struct lane *l, struct attempt *take_attempt,
                    struct target *target);
size_t transfers_count(const struct transfers *t);
/* Does what can be done, then waits for more, for wait_us at most or until a wake. */
void transfers_turn(struct push *p, int64_t wait_us);
void transfers_wake(struct transfers *t);
/* ---- answer.c: what an HTTP answer says ------------------------------------------------------ */

enum answer_kind {
    ANSWER_CONFIRMATION, /* message */
    ANSWER_OTHER,        /* message is one, but of another delivery */
    ANSWER_TAKEN,        /* the confirmation comes later */
    ANSWER_NONE,         /* why */
};
struct answer {
    enum answer_kind kind;
    struct cp3_message message;
    char why[STORE_WHY_MAX + 1];
};
void answer_read(struct cp3_reader *reader, const struct outcome *o, const char *mid,
                 struct answer *ret_answer);

/* ---- result.c -------------------------------------------------------------------------------- */

/* The outcome of an attempt of this lane: has it judged or put back. */
void result_take(struct push *p, struct lane *l, struct attempt *take_attempt,
                 const struct outcome *o);
/* A claimed delivery that did not leave, for a reason that the next claim will not find; it is due
 * again at once. */
void result_not_sent(struct push *p, struct lane *l, struct attempt *take_attempt, const char *why);
/* One that did not leave for a reason that stays: a failure like one of the BSA. */
void result_cannot_send(struct push *p, struct lane *l, struct attempt *take_attempt,
                        const char *why);

/* ---- watch.c: deadlines ---------------------------------------------------------------------- */

/* Warns of deadlines that are near, and ends what is past its own.  Returns for how long that is
 * all. */
int64_t watch_turn(struct push *p, const struct moment *now);

/* ---- recover.c: what a start finds ----------------------------------------------------------- */

/* Errors: those of store_call(). */
int recover(struct push *p);

/* The ID of a BSA, enabled or not, inside apply.  Errors: TEKD_ENOTFOUND. */
int recover_peer(struct store_tx *tx, int64_t bsa, char ret_id[static STORE_ID_MAX + 1]);
/* A record that only follows from delivery.prepared: event, ref, mid, peer. */
int recover_record(struct store_tx *tx, const char *event, const struct store_delivery *d);

/* ---- jobs.c and periods.c: what waits for the HSM -------------------------------------------- */

int jobs_new(struct push *p, struct jobs **ret_jobs);
/* Starts the thread: from then on the key service tells of deliveries. */
int jobs_start(struct jobs *j);
/* Tells the thread to end, from any thread; it may be in a call to the HSM. */
void jobs_stop(struct jobs *j);
void jobs_free(struct jobs *j);
/* There is a new fan-out, or a content with crypto-periods.  From any thread. */
void jobs_wake(struct jobs *j);
int64_t jobs_late(struct jobs *j);

/* The contents with crypto-periods; of the thread "jobs" alone. */
struct periods;
int periods_new(struct push *p, struct periods **ret_periods);
void periods_free(struct periods *x);
/* Reads those that were added since.  Errors: those of store_call(). */
int periods_read(struct periods *x);
/*
 * Makes one TEK that is due, if there is one.  Returns 0 (*ret_wait_us: until the next one is due,
 * 0 if it made one) or the error of keys_period_make().
 */
int periods_step(struct periods *x, int64_t *ret_wait_us);
/* TEKs whose period began before they were made. */
int64_t periods_late(const struct periods *x);

#endif
