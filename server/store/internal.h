/*
 * What the files of the store share.
 *
 * Threads: the store thread runs loop.c and everything below it and owns struct store but for what
 * says otherwise; before it starts and after it was joined the opening thread does.  The signer
 * thread (signer.c) owns the job it was given; the anchor thread (anchor.c) the note.
 *
 * An item's way:  queue -> (READ: applied and done) or pending -> batch -> committed
 *                 -> done, or for STORE_SIGNED waiting -> done
 */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "driver.h"
#include "tekd/merkle.h"
#include "tekd/queue.h"
#include "tekd/store.h"

/* Items without records cost a batch nothing but time; more of them wait for the next one. */
#define BATCH_ITEMS_MAX 512
/* Leaf hashes kept in memory beyond the newest signature; older ones are hashed anew. */
#define RECENT_MAX 4096
/* One signature: the same as a call of the HSM pool may take, its repeat included. */
#define SIGN_US 2000000
/*
 * How long a batch that only holds STORE_SIGNED items waits for the signature under way: they
 * could not be released before the next one anyway, and the checkpoint then shares their sync.
 * A signature that takes longer than this is one of a slow token: then they are written meanwhile.
 */
#define SIGN_PATIENCE_US 10000
/* Between attempts after the signer failed: doubling. */
#define SIGN_RETRY_MIN_US 50000
#define SIGN_RETRY_MAX_US 5000000
/* store_close() waits this long for the last signatures, and gives the signer no longer. */
#define STOP_SIGN_US 2500000
/* With STORE_RELEASE_DURABLE: records may be this many delays old without a signature. */
#define DURABLE_DELAYS 10
/* Options left 0. */
#define CHECKPOINT_DELAY_DEFAULT_MS 1000
#define HEARTBEAT_DEFAULT_S         300
#define ANCHOR_DEFAULT_S            60
#define EPOCH_RECORDS_DEFAULT       10000000
#define WINDOW_DEFAULT_US           (INT64_C(604800) * 1000000)
/* After a commit that found no space: the next attempt of our own. */
#define PROBE_US      1000000
#define TICK_US       1000000
#define FREE_SPACE_US 5000000
/* UTC against the monotonic clock: more than this is a step and recorded. */
#define CLOCK_STEP_US 1000000
/* Without anything to do for so long the store does a piece of its background work ... */
#define IDLE_US 5000
/* ... and under load at least this often. */
#define IDLE_FORCED_US 250000
/* At the start this much of the log is hashed before serving, even if the anchor is younger. */
#define START_REHASH 100000
/* The public key is asked of the token at the start; later the signer thread goes on asking. */
#define START_KEY_US 2000000
#define OWN_MAX      32 /* records of the store's own that wait for a batch */

/* ---- items.c: lists of items ----------------------------------------------------------------- */

struct item_list {
    struct store_item *first;
    struct store_item *last;
    size_t n;
};
void items_put(struct item_list *l, struct store_item *item);
struct store_item *items_take(struct item_list *l);

/* Ends an item: done. */
void items_settle(struct store *s, struct store_item *item, int result);
void items_settle_all(struct store *s, struct item_list *l, int result);

/* Committed items that wait for a signature: s->waiting. */
void items_wait(struct store *s, struct store_item *item);
void items_release(struct store *s);             /* those that the committed checkpoint covers */
void items_expire(struct store *s, int64_t now); /* those whose deadline has passed */

/* ---- signer.c -------------------------------------------------------------------------------- */

/* What the signer thread is given and gives back. */
struct sign_job {
    struct note last;
    struct merkle_range range; /* of last */
    struct merkle_hash leaves[HSM_LEAVES_MAX];
    size_t n;
    int64_t deadline_us;
    /* The result: 0, TEKD_EHSM and the like, or TEKD_ETAMPER. */
    int result;
    struct note note; /* checked: its signature verifies, its root is that of new_range */
    struct merkle_range new_range;
    bool learnt; /* the token has said the last of its keys: signkey_learnt() */
};

struct signer {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards state, quit; who has job follows from state */
    pthread_cond_t changed;
    enum { SIGNER_IDLE, SIGNER_BUSY, SIGNER_DONE } state;
    bool quit;
    struct sign_job job;
};
void signer_init(struct store *s);
void signer_destroy(struct store *s);
int signer_start(struct store *s);
void signer_stop(struct store *s);
/* Gives the signer the leaves behind the newest note; it must be idle.  Errors: of the database. */
int signer_begin(struct store *s, int64_t now);
/* Whether there is a result: it stands in the job then and the signer is idle again.  until, of
 * CLOCK_MONOTONIC: waits for it; NULL: does not. */
bool signer_collect(struct store *s, const struct timespec *until);

/* ---- signkey.c: which keys the log is signed with ----------------------------------------------
 */

#define SIGN_KINDS       2 /* STORE_KEY_MAIN, STORE_KEY_ED25519; the key before is this much behind */
#define RETIRED_MAX      64 /* keys that signed the log once: one a year */
#define SIGNKEY_LEN      32 /* of a fingerprint, SHA-256 of the SubjectPublicKeyInfo */
#define SIGNKEY_NAME_MAX 40
#define SIGNKEY_HINT_MAX 200

struct sign_key {
    EVP_PKEY *key; /* NULL: there is none */
    struct hsm_spki spki;
};

enum key_change_state { CHANGE_NONE, CHANGE_FIRST, CHANGE_WANTED, CHANGE_RECORDED };

/* Of who asks the token, the opening thread and then the signer thread, until it is learnt; from
 * then on the store thread's, but for token, which is constant and read by both. */
struct sign_keys {
    struct sign_key token[STORE_KEYS];
    bool learnt;                              /* all that are set, and judged */
    enum key_change_state judged[SIGN_KINDS]; /* what came of that */
    struct sign_key log[SIGN_KINDS];          /* of the database */
    struct sign_key retired[RETIRED_MAX];
    size_t n_retired;
    /* What the log.signkey of an unsigned tail name. */
    uint8_t tail[SIGN_KINDS + 1][SIGNKEY_LEN];
    size_t n_tail;
};
/* Of a kind, on its way into the database. */
struct key_change {
    enum key_change_state state;
    struct store_place at; /* RECORDED: of log.signkey */
    bool moved;            /* the open transaction makes the next step */
};
void signkey_free(struct store *s);
/* The keys of the database.  Errors: TEKD_ETAMPER. */
int signkey_read(struct store *s);
/* The n-th key of the database, those of the kinds first, then those retired. */
int signkey_get(struct db *db, size_t n, struct hsm_spki *ret_spki);
/*
 * Asks the token for the keys that it has not said yet, and when it has said all, judges them;
 * *ret_learnt becomes true in the call that did.  Errors: TEKD_ETAMPER, those of public_key().
 */
int signkey_learn(struct store *s, int64_t deadline_us, bool *ret_learnt);
/* What was judged is to be done. */
void signkey_learnt(struct store *s);
/* Whether the keys that are set include this one. */
bool signkey_is_set(const struct store *s, enum store_key which);
/*
 * Whether a note of ours is well signed: by the main key or one that was it once, and by each other
 * key of the log that it has a line of.  The newest one, by the main key: a retired key may have
 * been stolen since.  Errors: of note_verify().
 */
int signkey_verify(const struct store *s, const struct note *n);
int signkey_verify_newest(const struct store *s, const struct note *n);
/*
 * An unsigned tail names this key.  Whoever can write to the database could name his own, and once
 * that is signed introduce it: such a tail is not signed unless the key is one of the token.
 * The check does nothing before the token has said its keys.  Errors: TEKD_ETAMPER.
 */
void signkey_tail(struct store *s, const uint8_t key[static SIGNKEY_LEN]);
int signkey_check_tail(const struct store *s);
/* Whether log.signkey waits for a batch; into the open transaction. */
bool signkey_due(const struct store *s);
int signkey_put_records(struct store *s, int64_t utc_us);
/* Keys of a new log; those that the newest note, which is about to be committed, completes. */
int signkey_put_first(struct store *s);
int signkey_put_covered(struct store *s);
/* After the commit, and when there was none. */
void signkey_committed(struct store *s);
void signkey_failed(struct store *s);

/* ---- audit.c: the log ------------------------------------------------------------------------ */

static inline bool same_hash(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

struct tree {
    uint64_t epoch;
    int64_t opened_utc_us; /* t of its record 0 */
    uint64_t opened_size;  /* records that the epoch began with: what was carried into it */
    char origin[NOTE_ORIGIN_MAX + 1];
    uint64_t size;             /* committed leaves */
    uint64_t next;             /* and those of the open transaction */
    struct note note;          /* the newest signature */
    struct merkle_range range; /* of note */
    bool note_committed;
    bool note_made;       /* by this run: its lines are those of the keys that are set */
    uint64_t signed_size; /* of the newest committed checkpoint */
    int64_t checkpoint_utc_us;
    int64_t unsigned_since_us; /* about when the oldest leaf beyond note was committed; 0: none */
    struct merkle_hash recent[RECENT_MAX]; /* of leaf seq at seq % RECENT_MAX */
    uint64_t recent_from;                  /* the first that is there */
};

static inline struct store_place audit_place(const struct tree *t, uint64_t seq)
{
    return (struct store_place){.epoch = t->epoch, .seq = seq};
}

/* Numbers, encodes, hashes and inserts a record.  Errors: of record_encode(), the database. */
int audit_append(struct store *s, const struct record *r, int64_t utc_us);
/* Note and range of a tree without leaves; its origin is set. */
void audit_empty(struct tree *t);
/* A leaf that is in the database already, at the start. */
void audit_adopt(struct tree *t, const struct merkle_hash *leaf);
/* Hashes of up to max leaves from seq on, from memory or the database. */
int audit_leaves(struct store *s, uint64_t from, struct merkle_hash *ret_leaves, size_t n);
/* For rows_leaves(): appends the leaf to the struct merkle_range arg; TEKD_ETAMPER: a hole. */
int audit_extend(void *arg, uint64_t seq, const void *octets, size_t len);
/* Inserts the newest note as a checkpoint row. */
int audit_insert_checkpoint(struct store *s);

/* The store's own records: they wait in s->own for the next batch; urgent ones start it. */
int audit_own(struct store *s, struct record *take_r, bool urgent);
int audit_own_event(struct store *s, const char *event, bool urgent);
/* Counts records that could not be written; audit.gap goes with the next batch, as what is lazy. */
void audit_gap(struct store *s, uint64_t count);

/* ---- anchor.c: the newest note on another volume --------------------------------------------- */

struct anchor {
    char *path; /* NULL: none */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool quit;
    bool wanted;
    struct note note;       /* to be written when wanted */
    int64_t place;          /* of it: epoch and size, packed */
    int64_t written;        /* of the one in the file; 0: none */
    int64_t written_utc_us; /* when; 0: never */
    bool failing;           /* the last attempt failed */
};
int anchor_start(struct store *s);
/* Has the newest note of the log written, if there is one and it is newer than the file's. */
void anchor_write(struct store *s);
/* What the status says of it; records and the rest are filled already. */
void anchor_state(struct store *s, struct store_status *status);
/* Writes what is left, ends the thread. */
void anchor_stop(struct store *s);
/* The note, and when it was written.  TEKD_ENOTFOUND when there is none. */
int anchor_read(const char *path, struct note *ret_note, int64_t *ret_utc_us);

/* ---- epoch.c --------------------------------------------------------------------------------- */

/*
 * An epoch that is over is closed in steps, each a transaction; items that write wait meanwhile,
 * reads go on:
 *
 *     OPEN      items are taken
 *     DRAINING  none is, until all that was committed is under a committed checkpoint, and what the
 *               store itself has to say; given up (OPEN) when there is no signature or no space,
 *               and begun again when there is
 *     CLOSED    log.closed is committed, alone, and nothing may follow it.  When the checkpoint
 *               over it is committed, one transaction opens the next epoch.
 *
 * In CLOSED without a signer, or without space, there is no way back: items are refused.
 */
enum epoch_state { EPOCH_OPEN, EPOCH_DRAINING, EPOCH_CLOSED };

struct epoch {
    enum epoch_state state;
    bool wanted;        /* it is over: see epoch_tick() */
    bool moved;         /* the open transaction makes the next step */
    int64_t pending_us; /* the earliest deadline of what waits; INT64_MAX: none */
    /* The tree of the epoch before this one, as far as it is needed: for the record that begins
     * this one, and when that transaction fails. */
    struct note last;
    struct merkle_range range;
    int64_t opened_utc_us;
    uint64_t opened_size;
};
/* Whether a year or the records of an epoch are over. */
void epoch_tick(struct store *s, int64_t utc_us);
/* Begins to close, or gives it up; ends the items that need not wait any more. */
void epoch_look(struct store *s);
/* The end of the store: what is drained only goes on. */
void epoch_resume(struct store *s);
/* Whether a transaction can make the next step. */
bool epoch_step_due(const struct store *s);
/* Makes it, in the open transaction: in DRAINING and CLOSED, when it is due. */
int epoch_put(struct store *s, int64_t utc_us);
/* After the commit, and when there was none. */
void epoch_committed(struct store *s);
void epoch_failed(struct store *s);

/* ---- the store ------------------------------------------------------------------------------- */

/* What other threads may ask: under its lock. */
struct public_state {
    pthread_mutex_t lock;
    struct store_status status;
    int ready; /* of store_ready() */
};

#define SCAN_KEYS_MAX 2 /* columns of the key by which a table is read */

/* Where the background work is. */
struct idle {
    int64_t last_us;
    uint64_t epoch;            /* whose leaves are hashed; from the one of the start down to 1 */
    struct merkle_range range; /* of the leaves hashed so far */
    struct note target;        /* what the start took as given; of an earlier epoch: its last */
    uint64_t rehashed;         /* leaves of the epochs that are done */
    size_t scan_table;         /* which table is read, and behind which row */
    int64_t scan_after[SCAN_KEYS_MAX];
    bool scan;
    int64_t sweep_bsa; /* behind which message the sweep is */
    char sweep_id[STORE_ID_MAX + 1];
    int64_t sweep_next_us;  /* when the next round begins */
    int64_t sweep_trust_us; /* UTC does not say before that what is old */
    int64_t old_end;        /* place behind the last leaf at the start: messages before it are
                             * counted by the first round */
    bool counted;
    bool purge;                   /* exports of retired KEKs are looked for ... */
    int64_t purge_tek, purge_kek; /* ... behind this one */
    int64_t purge_next_us;        /* not before */
    bool sweep_deliveries;        /* the round is through with messages */
    int64_t sweep_delivery;       /* behind which delivery it is */
};

struct store_tx {
    struct store *s;
    struct db *db;
    bool writes;
    int error; /* the first that ends more than the item: of the database */
    int64_t utc_us;
    uint64_t wait_size;
    uint64_t messages; /* rows inserted */
    struct record *record[STORE_RECORDS_MAX];
    size_t n_records;
};

struct store {
    /* As opened; constant. */
    struct store_options o;
    char *strings[5]; /* what o points to */
    int64_t checkpoint_delay_us;

    struct db *db;
    struct queue *queue;
    pthread_t thread;
    bool started;
    _Atomic size_t open_items;  /* submitted and not done */
    _Atomic uint64_t queue_gap; /* lazy items that found the queue full */
    _Atomic int64_t expected;   /* store_expect() */
    atomic_bool wake_queued;
    atomic_bool checkpoint_asked;
    _Atomic uint64_t close_asked; /* the epoch that an operator closes; 0: none */
    struct store_item wake;       /* in the queue: only wakes */

    struct tree tree;
    struct epoch epoch;
    struct signer signer;
    struct sign_keys keys;
    struct key_change key_change[SIGN_KINDS];
    struct anchor anchor;
    struct idle idle;
    struct public_state public;
    struct buf *scratch;                     /* a record or a note being written */
    uint64_t unattested_from, unattested_to; /* as found at the start; constant */

    struct item_list pending;               /* for the next batch */
    size_t pending_durable, pending_signed; /* of pending */
    int64_t lazy_since_us;                  /* since when something lazy waits; 0: nothing does */
    struct item_list batch;                 /* applied, not committed */
    struct item_list waiting;               /* committed, not signed */
    int64_t waiting_deadline_us;            /* the earliest; INT64_MAX: none */

    struct record *own[OWN_MAX];
    size_t n_own, own_written;
    bool own_urgent;
    bool announced;            /* log.started of this run is written */
    uint64_t gap, gap_written; /* records that could not be written; those a record tells of */
    uint64_t items_from;       /* seq of the open batch's first record of an item; 0: none yet */

    /* Gathering: how long the last commit and signature took, and since when something waits that
     * is in neither; 0: nothing does. */
    int64_t commit_us, sign_us;
    int64_t gather_since_us;

    /* Signing. */
    int64_t job_since_us;     /* when the job under way began; 0: none */
    int64_t failing_since_us; /* when the first of the failed jobs began; 0: the last one worked */
    int64_t retry_us;         /* not before */
    int64_t retry_delay_us;
    uint64_t sign_until; /* somebody wants everything below signed soon */
    bool signer_down;
    int signer_error;

    /* State. */
    int latched; /* the error, or 0 */
    bool full;   /* the last commit found no space */
    int64_t probe_us;
    bool low;       /* free space below free_stop */
    bool warned;    /* below free_warn */
    bool mark_open; /* so is that the log is open */
    bool stopping;  /* the checkpoint that covers everything marks the log as clean */

    int64_t stop_us; /* mono: no signature is waited for after that; 0: it does not stop */

    /* Timers: when they are due. */
    int64_t tick_us, free_us, heartbeat_us, anchor_us;
    int64_t clock_base_us; /* UTC minus monotonic */
    uint64_t free_octets, db_octets;

    uint64_t batches, items, losers;
    uint64_t messages, batch_messages; /* rows, as far as known; of the open transaction */
};

/* ---- batch.c --------------------------------------------------------------------------------- */
/* Runs what is pending, with the store's own records and the newest checkpoint.  The error of the
 * batch as a whole; the state is changed by it already. */
int batch_run(struct store *s);
/* A STORE_READ item. */
void batch_read(struct store *s, struct store_item *item);
/* Why an item cannot be taken now; 0: it can. */
int batch_refusal(struct store *s, const struct store_item *item);
void batch_refuse(struct store *s, struct store_item *item, int refusal);
/* The item has left pending. */
void batch_count_taken(struct store *s, const struct store_item *item);
/* The records that the store itself has to write, into the open transaction. */
int batch_put_own(struct store *s, int64_t utc_us);
/* Whether keys are refused because checkpoints are not signed. */
bool batch_signer_late(const struct store *s);

/* ---- loop.c ---------------------------------------------------------------------------------- */
void *loop_thread(void *arg);
/* After an I/O error, corruption, a root that differs: refuses everything from now on. */
void loop_latch(struct store *s, int error, const char *why);
/* Takes what the signer gave back into account. */
void loop_signed(struct store *s, int64_t now);
bool loop_sign_wanted(const struct store *s, int64_t now);
void loop_publish(struct store *s);
void loop_wake(struct store *s);

/* ---- tick.c ---------------------------------------------------------------------------------- */
void tick_init(struct store *s);
void tick_run(struct store *s, int64_t now);
int64_t tick_next(const struct store *s);
/* Has a step of UTC recorded, if there was one since this was asked last. */
void tick_clock(struct store *s, int64_t now);

/* ---- idle.c ---------------------------------------------------------------------------------- */
bool idle_has_work(const struct store *s, int64_t now);
/* One piece.  Errors latch. */
void idle_run(struct store *s, int64_t now);
/* At the start, and after a step: nothing is old for a while. */
void idle_clock_was_set(struct store *s, int64_t now);
/* Looks through all exports from now on. */
void idle_purge(struct store *s);

/* ---- rows_log.c: what of the tables is not in the public header ------------------------------ */
int rows_meta_int(struct db *db, const char *name, int64_t *ret_value); /* TEKD_ENOTFOUND */
int rows_meta_put_int(struct db *db, const char *name, int64_t value);
int rows_meta_put(struct db *db, const char *name, const void *octets, size_t len);
/* At most max octets; TEKD_ENOTFOUND. */
int rows_meta_get(struct db *db, const char *name, void *out, size_t max, size_t *ret_len);
/* The place behind the last leaf of this epoch and those before; with STORE_EPOCH_MAX + 1, of all.
 */
int rows_leaf_end(struct db *db, uint64_t epoch, int64_t *ret_end);
int rows_leaf_insert(struct db *db, struct store_place at, const void *octets, size_t len);
struct rows_checkpoint {
    struct note note;
    struct merkle_range range;
};
/* The newest checkpoint of this epoch of at most this size.  Errors: TEKD_ENOTFOUND, TEKD_ETAMPER
 * (not as written: said in the log). */
int rows_checkpoint_under(struct db *db, struct store_place at,
                          struct rows_checkpoint *ret_checkpoint);
/* Leaves of one epoch from this one on, at most n; each() gets their seq. */
int rows_leaves(struct db *db, struct store_place from, uint64_t n,
                int (*each)(void *arg, uint64_t seq, const void *octets, size_t len), void *arg);

/* The place of the newest checkpoint of all epochs; TEKD_ENOTFOUND. */
int rows_checkpoint_newest(struct db *db, int64_t *ret_place);

/* ---- rows_delivery.c ------------------------------------------------------------------------- */
/* Both take packed places.  Removes the messages of what was confirmed by records from..to, which a
 * checkpoint covers now. */
int rows_delivery_forget(struct db *db, int64_t from, int64_t to);
/* Takes back the confirmations by record `from` and later ones. */
int rows_delivery_reopen(struct db *db, int64_t from);

/* An open delivery, with all that its delivery.carried says; peer, content and kek are names. */
struct rows_carried {
    int64_t row;
    uint64_t epoch, seq; /* of what it is carried from */
    char mid[STORE_MID_LEN + 1];
    char peer[STORE_ID_MAX + 1];
    char content[STORE_CONTENT_MAX + 1];
    char kek[STORE_ID_MAX + 16];
    uint8_t key_id[16];
    uint8_t out_sha256[32];
    bool has_period;
    int64_t period;
};
/* The open ones behind this row, at most max, by row. */
int rows_delivery_carried(struct db *db, int64_t after, size_t max,
                          struct rows_carried *ret_carried, size_t *ret_n);
/* From now on its records refer to this one. */
int rows_delivery_move(struct db *db, int64_t row, struct store_place to);

/* Notes in tx what ends the transaction, and passes r on. */
int rows_result(struct store_tx *tx, int r);
int64_t rows_limit(const struct store_walk *w);

/* ---- start.c, start_log.c -------------------------------------------------------------------- */
/* What the checks know of each other. */
struct start {
    struct store *s;
    bool fresh;                    /* no tables were there */
    bool clean;                    /* as the database says */
    unsigned schema;               /* of the database as found */
    uint64_t leaves;               /* of the current epoch */
    struct rows_checkpoint newest; /* of it; size 0: none */
    struct rows_checkpoint before; /* the last one of the epoch before, if there is one */
    bool have_anchor;
    uint64_t anchor_epoch;
    struct note anchor;
    bool stopped; /* the record read last was log.stopped */
    bool closed;  /* ... log.closed */
    bool first;   /* record 0 was read */
};
/* Everything of "Start": checks, adopts, queues the first records. */
int start_check(struct store *s);
/* Its steps that read leaves, in this order. */
int start_check_leaves(struct start *st);
int start_check_tail(struct start *st);
int start_check_first(struct start *st);
int start_records(struct start *st);
/* Origin, signature and range of a checkpoint of this epoch. */
int start_check_checkpoint(struct start *st, uint64_t epoch, const struct rows_checkpoint *c);
/* Logs what differs; TEKD_ETAMPER. */
int start_tamper(const char *check, uint64_t record, const char *expected, const char *found);
int start_tamper_size(const char *check, uint64_t record, uint64_t expected, uint64_t found);
int start_tamper_root(const char *check, uint64_t record, const struct merkle_hash *expected,
                      const struct merkle_hash *found);
/* Looks for the first checkpoint under this size that the leaves contradict, and says which. */
void start_say_tamper(struct db *db, uint64_t epoch, uint64_t size);

#endif
