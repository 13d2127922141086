/*
 * The store: one thread that owns the database, writes in groups and keeps the audit log.
 *
 * Work comes as items.  An item has an apply function, which the store thread runs inside a
 * transaction, and a done function, which it calls once the item may be answered:
 *
 *     wait            done is called
 *     STORE_READ      right after apply; apply only reads
 *     STORE_LAZY      right after its batch committed; nobody is kept waiting by it and it starts
 *                     no batch: it rides with the next one, after STORE_LAZY_US at the latest
 *     STORE_DURABLE   when the commit of its batch is on the disk
 *     STORE_SIGNED    when a committed checkpoint, signed by the HSM, covers its records
 *                     (with release "durable": when committed and the newest checkpoint is young)
 *
 * A batch is what queued while the last commit ran.  Each item runs in a savepoint: when apply
 * fails the item alone is rolled back, its records with it, and done gets the error at once.
 * A failed COMMIT is "unknown", not "rolled back": every item of the batch gets TEKD_EIO (or
 * TEKD_EFULL) and the store probes or latches as docs/audit.md says.
 *
 * When the store cannot do its work, items end early:
 *     TEKD_EHSM    STORE_SIGNED only: the signer has hung or failed for longer than one signature
 *                  may take (2 s).  Those that wait are committed, later ones are undone.  A repeat
 *                  of what is signed already is still given.
 *     TEKD_EFULL   no space.  STORE_SIGNED is refused until there is; STORE_DURABLE is tried.
 *     TEKD_EIO     latched: all items, reads too, until tekd starts anew.
 *
 * Every record that apply adds is numbered in the order of the batch, hashed into the tree and
 * committed in the same transaction as what it tells.
 *
 * Thread rule: store_open() and store_close() from one thread; store_submit() and store_call()
 * from any but the store thread's own callbacks for store_call(); store_tx_*() only inside apply.
 */
#ifndef TEKD_STORE_H
#define TEKD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/buf.h"
#include "tekd/hsm.h"
#include "tekd/note.h"
#include "tekd/record.h"

#define STORE_LAZY_US     1000000 /* how long a record that nobody waits for may ride */
#define STORE_BATCH_MAX   256     /* leaves of a batch: one message to the signer holds them */
#define STORE_RECORDS_MAX 64      /* of one item */
#define STORE_QUEUE_MAX   65536   /* items; each belongs to a bounded request or command */
#define STORE_ID_MAX      255     /* octets of a BSA ID or MessageID (WIRE: 1..255) */
#define STORE_CONTENT_MAX 1024    /* octets of a ContentID */
#define STORE_ENTITLE_MAX 64      /* patterns of one BSA */
#define STORE_CERTS_MAX   2       /* certificates of one BSA: current and next */
#define STORE_PEM_MAX     65536   /* the CA of a BSA, as enrolled */
#define STORE_URL_MAX     2048

/*
 * Where a record stands in all epochs of the log; or, with a size for seq, which tree a note signs.
 * In the database, and where records are walked, it is one integer that rises over all epochs; in
 * the first epoch it is seq.  Each size of an epoch has room for a number below 2^STORE_SEQ_BITS,
 * and no integer of a record is as large as 2^53.
 */
#define STORE_SEQ_BITS  40
#define STORE_SEQ_MAX   ((UINT64_C(1) << STORE_SEQ_BITS) - 1)
#define STORE_EPOCH_MAX (UINT64_C(1) << (53 - STORE_SEQ_BITS))
struct store_place {
    uint64_t epoch; /* 1 .. STORE_EPOCH_MAX */
    uint64_t seq;   /* 0 .. STORE_SEQ_MAX */
};
/* What is beyond the limits aborts. */
int64_t store_place_pack(uint64_t epoch, uint64_t seq);
struct store_place store_place_unpack(int64_t packed);

struct store;
struct store_tx;
struct store_item;

enum store_wait { STORE_READ, STORE_LAZY, STORE_DURABLE, STORE_SIGNED };

/* Embedded in the caller's own struct, which stays alive until done was called. */
struct store_item {
    int (*apply)(struct store_item *self, struct store_tx *tx); /* 0 or an error: rolled back */
    void (*done)(struct store_item *self, int result);          /* may be NULL */
    enum store_wait wait;
    /* STORE_SIGNED: when clock_mono_us() passes this, done gets TEKD_ETIMEDOUT; 0: never.  The item
     * is or is not committed then; what it would have released is not released. */
    int64_t deadline_us;
    /* The store's own from store_submit() to done. */
    uint64_t release_size; /* the signed size it waits for */
    uint64_t first_seq;    /* of its records, valid in done when it has any */
    struct store_item *next;
};

/* How checkpoints get signed; called on the signer thread (public_key() in store_open() as well),
 * one call at a time, may block until the deadline. */
enum store_key {
    STORE_KEY_MAIN,           /* EC P-256: signs every checkpoint */
    STORE_KEY_ED25519,        /* signs them too, if it is set ... */
    STORE_KEY_BEFORE,         /* ... as does the key that MAIN has replaced or is to replace ... */
    STORE_KEY_ED25519_BEFORE, /* ... and the one that ED25519 has */
    STORE_KEYS
};
struct store_signer {
    void *arg;
    unsigned keys; /* bits, 1 << STORE_KEY_...: those that are set besides MAIN.  Every note that is
                    * made has a line of each, in this order. */
    int (*public_key)(void *arg, enum store_key which, int64_t deadline_us,
                      struct hsm_spki *ret_spki);
    int (*sign)(void *arg, const struct hsm_checkpoint *in, int64_t deadline_us,
                struct note *ret_note);
};

enum store_release { STORE_RELEASE_SIGNED, STORE_RELEASE_DURABLE };

/* Strings are copied. */
struct store_options {
    const char *path;     /* of the SQLite file; made with mode 0600 if it is not there */
    const char *bsm_id;   /* of the origin; another one than the log was opened with: refused */
    const char *instance; /* "inst" of the records */
    const char *version;  /* of the program, for log.started */
    uint8_t config_sha256[32];
    enum store_release release;
    int checkpoint_max_delay_ms; /* records that no key waits for are signed then; 0: 1000 */
    int heartbeat_s;             /* 0: 300 */
    const char *anchor_file;     /* the newest note, written every anchor_interval_s; NULL: none */
    int anchor_interval_s;       /* 0: 60 */
    /* An epoch is closed when it has so many records (what it began with not counted), or another
     * calendar year (UTC) has begun; 0: 10,000,000. */
    uint64_t epoch_records;
    uint64_t free_warn;         /* octets of free disk space: below, an alarm ... */
    unsigned free_warn_percent; /* ... or below this part of the volume, if that is more; 0: no */
    uint64_t free_stop;         /* below, keys are refused; confirmations and admin go on */
    /* Messages older than this may be forgotten, and deliveries that have ended and whose deadline
     * is further back; 0: 7 days. */
    int64_t message_window_us;
    unsigned cache_mb; /* pages of the database in memory; 0: 16 */
    struct store_signer signer;
    /* Called once, from the store thread, when the store latches (I/O error, corruption, a root
     * that differs): the program ends with status 74. */
    void (*fatal)(void *arg, int error);
    void *fatal_arg;
};

/*
 * Opens, checks and recovers (docs/audit.md, "Start"), then starts the thread.  A new database gets
 * its schema and log.opened.  The public keys are taken from the token when it answers, else those
 * in the database serve until it does.  They must be the same, or replace one that is set as
 * STORE_KEY_BEFORE or STORE_KEY_ED25519_BEFORE: then log.signkey is recorded, and when a checkpoint
 * covers it the new one is the key of the log.
 * Errors: TEKD_EIO, TEKD_EFULL, TEKD_ETAMPER (said in the log: record, check, expected, found),
 * TEKD_EEXIST (another process has it open), TEKD_EINVAL (another bsm_id, newer schema).
 */
int store_open(const struct store_options *o, struct store **ret_store);

/* Writes log.stopped under a last checkpoint (waits up to 2.5 s for the signer), joins, closes. */
void store_close(struct store *s);

/* Errors: TEKD_EAGAIN (queue full), TEKD_ECLOSED; done is not called then. */
int store_submit(struct store *s, struct store_item *item);

/*
 * Says that so many more STORE_SIGNED items are being prepared (fewer, if negative: each is taken
 * back right before its store_submit(), or when it comes to nothing).  While more of them are on
 * their way than wait for a signature, the next commit and the next signature are held back for
 * them: no longer than twice what the last of both took together, and STORE_GATHER_US at most.  So
 * many requests share the cost of a sync and a signature, and a lone one waits for nobody.
 */
#define STORE_GATHER_US 10000
void store_expect(struct store *s, int change);

/*
 * Submits and waits for done; for admin commands and misses of caches.  apply gets arg.
 * Returns what apply returned, or the error of the commit.
 */
int store_call(struct store *s, enum store_wait wait, int (*apply)(void *arg, struct store_tx *tx),
               void *arg);

/* Whether keys may be given at this moment; TEKD_EFULL, TEKD_EIO, TEKD_EHSM (signer) if not. */
int store_ready(struct store *s, char reason[static HSM_TEXT_MAX]);

struct store_status {
    uint64_t epoch;
    int64_t epoch_utc_us;    /* when it began */
    uint64_t records;        /* leaves committed, of this epoch */
    uint64_t closed_records; /* of the epoch before; 0: there is none */
    uint64_t signed_size;    /* of the newest committed checkpoint */
    int64_t checkpoint_utc_us;
    size_t n_signers; /* lines of the newest checkpoint, and whose they are */
    uint8_t signer[NOTE_SIGS_MAX][4];
    enum store_key signer_key[NOTE_SIGS_MAX]; /* STORE_KEYS: an earlier run's, it is not known */
    uint64_t batches, items, losers;          /* since the start */
    uint64_t db_octets, free_octets;
    uint64_t rehashed; /* leaves of the background check so far, of all epochs */
    bool latched, full;
    const char *anchor_file; /* lives as long as the store; NULL: none is written */
    uint64_t anchor_epoch;   /* of the note in it; 0: no note yet */
    uint64_t anchor_size;
    uint64_t anchor_beyond;    /* committed leaves that the note does not cover */
    int64_t anchor_utc_us;     /* when it was written, perhaps by an earlier run; 0: never */
    bool anchor_failing;       /* the last attempt to write it failed */
    char reason[HSM_TEXT_MAX]; /* why not ready; empty if it is */
};
void store_status_get(struct store *s, struct store_status *ret_status);

/* The key, MAIN or ED25519, that the log's checkpoints verify with, also one that is not set any
 * more.  Errors: TEKD_ENOTFOUND (none was seen yet). */
int store_public_key(struct store *s, enum store_key which, struct hsm_spki *ret_spki);
/* Those that they verified with before, from n = 0 on.  Errors: TEKD_ENOTFOUND (no more). */
int store_retired_key(struct store *s, size_t n, struct hsm_spki *ret_spki);

/* ---- inside apply ---------------------------------------------------------------------------- */

/* Adds a record, numbered now; the store takes it, also on failure.  ret_seq may be NULL. */
int store_tx_record(struct store_tx *tx, struct record *take_r, uint64_t *ret_seq);

/* What records refer to others by. */
uint64_t store_tx_epoch(struct store_tx *tx);

/* The newest record there is as this item is applied; its own do not count. */
struct store_place store_tx_newest(struct store_tx *tx);

/*
 * A STORE_SIGNED item that only repeats (apply wrote nothing and added no record) waits for an
 * older record.  It costs no sync and no signature of its own.
 */
void store_tx_wait_for(struct store_tx *tx, struct store_place record);

/* The time of this batch; the records of it carry the same. */
int64_t store_tx_utc_us(struct store_tx *tx);

/* Rows.  row is the integer key; 0 is none.  All text is NUL-terminated UTF-8. */
struct store_content {
    int64_t row;
    char id[STORE_CONTENT_MAX + 1];
    unsigned bits;    /* of its TEKs */
    int64_t period_s; /* 0: no crypto-periods */
    int64_t lead_s;
    int64_t epoch_utc_us; /* start of period 0 */
    int64_t created_us;
    int64_t created_by; /* row of the BSA whose request made it; 0: an operator */
};

struct store_kek {
    int64_t row;
    char name[STORE_ID_MAX + 16]; /* kekID in messages and records: <bsa>/<version>, storage/<n> */
    struct hsm_kek kek;
    bool imported;
    bool retired;
    int64_t bsa;      /* row of its BSA; 0: storage */
    uint32_t version; /* rising; the newest not retired is current */
    int64_t added_us; /* 0: not known, it was added before that was kept */
};

struct store_tek {
    int64_t row;
    uint8_t key_id[16]; /* UUIDv7 */
    int64_t content;    /* row */
    int64_t period;     /* index; 0 for contents without */
    uint32_t version;   /* rising within (content, period); the newest not destroyed is current */
    unsigned bits;
    int64_t storage_kek;    /* row */
    struct hsm_blob stored; /* empty once destroyed */
    int64_t created_us;
    bool destroyed;
};

struct store_message {
    int64_t bsa; /* row */
    char id[STORE_ID_MAX + 1];
    int64_t content;
    int64_t period_asked; /* -1: none */
    int64_t tek;
    int64_t kek;
    int64_t time_us;     /* what Time of the answer says */
    uint64_t epoch, seq; /* of its request.answered */
};

enum store_media { STORE_MEDIA_XML = 0, STORE_MEDIA_JSON = 1 };
enum store_form { STORE_FORM_FULL = 0, STORE_FORM_EFFICIENT = 1 };

/* A BSA as enrolled; large, so it lives on the heap. */
struct store_bsa {
    int64_t row;
    char id[STORE_ID_MAX + 1];
    bool enabled;
    bool key_info;
    enum store_media media;
    enum store_form form;
    char url[STORE_URL_MAX + 1];
    char *ca_pem; /* malloc()ed, NULL if none */
    size_t n_certs;
    uint8_t cert[STORE_CERTS_MAX][32]; /* SHA-256 of the DER */
    size_t n_entitle;
    char *entitle[STORE_ENTITLE_MAX]; /* malloc()ed fnmatch(3) patterns */
    /* Read only: its current KEK, row 0 if there is none.  It changes by store_tx_kek_insert() with
     * this bsa and store_tx_kek_retire(), not by store_tx_bsa_update(). */
    struct store_kek kek;
};
int store_bsa_new(struct store_bsa **ret_bsa);
int store_bsa_dup(const struct store_bsa *b, struct store_bsa **ret_bsa);
void store_bsa_free(struct store_bsa *b);
AUTO_DEFINE(store_bsa)

/*
 * Find: TEKD_ENOTFOUND if there is none.  Insert: sets the row; TEKD_EEXIST when a unique
 * constraint has another already (apply then returns the error and its savepoint is rolled back,
 * or reads the winner and goes on).  Any other error ends the item.
 */
int store_tx_content_find(struct store_tx *tx, const char *id, size_t len,
                          struct store_content *ret_content);
int store_tx_content_get(struct store_tx *tx, int64_t row, struct store_content *ret_content);
int store_tx_content_insert(struct store_tx *tx, struct store_content *c);

/* The current TEK of (content, period): the newest version, unless that one is destroyed. */
int store_tx_tek_current(struct store_tx *tx, int64_t content, int64_t period,
                         struct store_tek *ret_tek);
/* The newest version number of (content, period), 0 if there is none. */
int store_tx_tek_newest(struct store_tx *tx, int64_t content, int64_t period,
                        uint32_t *ret_version);
int store_tx_tek_get(struct store_tx *tx, int64_t row, struct store_tek *ret_tek);
int store_tx_tek_by_id(struct store_tx *tx, const uint8_t key_id[static 16],
                       struct store_tek *ret_tek);
/* Unique: key_id, and (content, period, version). */
int store_tx_tek_insert(struct store_tx *tx, struct store_tek *t);
/* Removes the wrapped octets and every export of it; the row stays. */
int store_tx_tek_destroy(struct store_tx *tx, int64_t row);

/*
 * The TEK as wrapped for a BSA.  Insert: unique (tek, kek); *ret_holder says whether it is the
 * first TEK of its content that this BSA is given.
 */
int store_tx_export_find(struct store_tx *tx, int64_t tek, int64_t kek, struct hsm_blob *ret_data);
int store_tx_export_insert(struct store_tx *tx, int64_t tek, int64_t kek,
                           const struct hsm_blob *data, bool *ret_holder);

/* Unique: (bsa, id). */
int store_tx_message_find(struct store_tx *tx, int64_t bsa, const char *id, size_t len,
                          struct store_message *ret_message);
int store_tx_message_insert(struct store_tx *tx, const struct store_message *m);

/*
 * KEKs of a BSA, or (bsa 0) of the storage.  The current one is the newest version, unless that one
 * is retired: an older one never becomes current again.
 */
int store_tx_kek_get(struct store_tx *tx, int64_t row, struct store_kek *ret_kek);
int store_tx_kek_find(struct store_tx *tx, const char *name, struct store_kek *ret_kek);
/* The newest version number, of a retired one too; 0 if there is none. */
int store_tx_kek_newest(struct store_tx *tx, int64_t bsa, uint32_t *ret_version);
int store_tx_kek_insert(struct store_tx *tx, struct store_kek *k); /* unique: name, fingerprint */
/* Its exports are removed, in the background.  TEKD_ENOTFOUND: there is none, or it is retired
 * already. */
int store_tx_kek_retire(struct store_tx *tx, int64_t row);
/* The current one of the storage. */
int store_tx_kek_storage(struct store_tx *tx, struct store_kek *ret_kek);

/* Unique: id, and each certificate over all BSAs.  Update replaces everything but row and id. */
int store_tx_bsa_insert(struct store_tx *tx, struct store_bsa *b);
int store_tx_bsa_update(struct store_tx *tx, const struct store_bsa *b);
int store_tx_bsa_find(struct store_tx *tx, const char *id, struct store_bsa **ret_bsa);

/*
 * Walks, in the order of rows beyond `after`, at most `limit`; each() returns 0 to go on, and any
 * other value ends the walk and is returned.  What it gets is borrowed for the call.
 */
struct store_walk {
    int64_t after;
    size_t limit;
    void *arg;
};
int store_tx_bsa_walk(struct store_tx *tx, const struct store_walk *w,
                      int (*each)(void *arg, const struct store_bsa *b));
int store_tx_content_walk(struct store_tx *tx, const struct store_walk *w,
                          int (*each)(void *arg, const struct store_content *c));
/*
 * The TEKs of one content, by period and version, beyond the one whose row is `after` (0: from the
 * first).  There is an index for that order, so that a page of very many takes as long as one of a
 * few.  TEKD_ENOTFOUND: no TEK of this content has that row.
 */
int store_tx_tek_walk(struct store_tx *tx, int64_t content, const struct store_walk *w,
                      int (*each)(void *arg, const struct store_tek *t));
/* The KEKs of one BSA, or of the storage (0). */
int store_tx_kek_walk(struct store_tx *tx, int64_t bsa, const struct store_walk *w,
                      int (*each)(void *arg, const struct store_kek *k));
/*
 * The log of all epochs, in order: leaves by packed place (after = that of the first - 1, so -1
 * from the start), notes by their epoch and size, packed as a place.
 */
int store_tx_leaf_walk(struct store_tx *tx, const struct store_walk *w,
                       int (*each)(void *arg, uint64_t place, const void *octets, size_t len));
int store_tx_note_walk(struct store_tx *tx, const struct store_walk *w,
                       int (*each)(void *arg, uint64_t place, const void *note, size_t len));
/* The newest note of an epoch, NUL-terminated, and its size.  Errors: TEKD_ENOTFOUND. */
int store_tx_note_last(struct store_tx *tx, uint64_t epoch, char ret_note[static NOTE_MAX + 1],
                       uint64_t *ret_size);

/*
 * The compact range of the checkpoint of this size (seq) and epoch.  Errors: TEKD_ENOTFOUND,
 * TEKD_ETAMPER (said in the log).
 */
int store_tx_range(struct store_tx *tx, struct store_place at, struct merkle_range *ret_range);

/* ---- key deliveries -------------------------------------------------------------------------- */

/*
 * PREPARED, IN_FLIGHT, REJECTED and UNKNOWN are open: the delivery is tried (again) at next_us.
 *
 *     PREPARED     waits for its first attempt, or for the next one after an attempt that failed
 *     IN_FLIGHT    handed out: an attempt is under way, or was taken by the BSA, whose confirmation
 *                  is waited for until next_us
 *     REJECTED     the last answer was Status 1
 *     UNKNOWN      an attempt was under way when tekd died
 *     CONFIRMED    final
 *     UNCONFIRMED  its deadline passed; a confirmation that comes later still counts
 *     ABANDONED    given up by an operator, or its key is gone; a later confirmation counts too
 */
enum store_delivery_state {
    STORE_DELIVERY_PREPARED = 0,
    STORE_DELIVERY_IN_FLIGHT = 1,
    STORE_DELIVERY_REJECTED = 2,
    STORE_DELIVERY_UNKNOWN = 3,
    STORE_DELIVERY_CONFIRMED = 4,
    STORE_DELIVERY_UNCONFIRMED = 5,
    STORE_DELIVERY_ABANDONED = 6,
};
#define STORE_DELIVERY_STATES 7
/* "prepared", "in-flight" …; static; NULL for a value out of range. */
const char *store_delivery_state_name(enum store_delivery_state state);
static inline bool store_delivery_is_open(enum store_delivery_state state)
{
    return state < STORE_DELIVERY_CONFIRMED;
}

#define STORE_MID_LEN      36    /* ours are UUIDs (RFC 9562) */
#define STORE_WHY_MAX      255   /* octets of the last error in words */
#define STORE_DELIVERY_MAX 16384 /* octets of the message: as many as libcp3 ever writes */

struct store_delivery {
    int64_t row;
    char mid[STORE_MID_LEN + 1];
    int64_t bsa, content, tek, kek; /* rows */
    enum store_media media;         /* of the message as it was written */
    enum store_delivery_state state;
    uint32_t attempts;
    int64_t created_us;
    int64_t next_us;     /* of an open one: when it is tried (again) */
    int64_t deadline_us; /* then it is unconfirmed */
    uint64_t seq;        /* of its delivery.prepared, in epoch */
    uint64_t epoch;
    uint64_t confirmed_seq;      /* packed place of its delivery.confirmed; 0: none */
    uint8_t out_sha256[32];      /* of the message */
    char why[STORE_WHY_MAX + 1]; /* what went wrong last; empty: nothing did */
};

/*
 * Unique: mid.  Sets the row.  The message is the exact octets of every attempt.  It is removed
 * with the state ABANDONED, and from a CONFIRMED one with the checkpoint that covers confirmed_seq:
 * until then a crash can make that confirmation one that does not count, and it is sent again.
 */
int store_tx_delivery_insert(struct store_tx *tx, struct store_delivery *d, const void *message,
                             size_t len);
int store_tx_delivery_find(struct store_tx *tx, const char *mid, size_t len,
                           struct store_delivery *ret_delivery);
int store_tx_delivery_get(struct store_tx *tx, int64_t row, struct store_delivery *ret_delivery);
/* The message is appended to out.  Errors: TEKD_ENOTFOUND (none, or removed). */
int store_tx_delivery_message(struct store_tx *tx, int64_t row, struct buf *out);
/* Replaces state, attempts, next_us, deadline_us, confirmed_seq and why. */
int store_tx_delivery_update(struct store_tx *tx, const struct store_delivery *d);

/*
 * An open one whose records are of an epoch before, for it had ended when that was closed:
 * delivery.carried, and later records refer to that.  Nothing for one of this epoch.
 */
int store_tx_delivery_carry(struct store_tx *tx, struct store_delivery *d);

/*
 * What each() of a walk over deliveries gets is borrowed for the call; it must not write: collect,
 * then write.  Open deliveries of one BSA with next_us <= now_us, by row: oldest first; and with
 * those any with next_us > far_us, for nobody waits so long: UTC was ahead when that was set.
 */
struct store_due {
    int64_t now_us, far_us;
};
int store_tx_delivery_due(struct store_tx *tx, int64_t bsa, const struct store_due *due,
                          const struct store_walk *w,
                          int (*each)(void *arg, const struct store_delivery *d));
/* All, by row. */
int store_tx_delivery_walk(struct store_tx *tx, const struct store_walk *w,
                           int (*each)(void *arg, const struct store_delivery *d));
/* The open ones, by row. */
int store_tx_delivery_walk_open(struct store_tx *tx, const struct store_walk *w,
                                int (*each)(void *arg, const struct store_delivery *d));
/* Those whose delivery.confirmed stands at this packed place or a later one; by row. */
int store_tx_delivery_walk_confirmed(struct store_tx *tx, uint64_t from, const struct store_walk *w,
                                     int (*each)(void *arg, const struct store_delivery *d));
/* Open ones whose deadline is not after now_us, in the order of their deadlines; w->after is not
 * looked at: whoever ends them finds the next ones. */
int store_tx_delivery_expired(struct store_tx *tx, int64_t now_us, const struct store_walk *w,
                              int (*each)(void *arg, const struct store_delivery *d));
/*
 * Open ones that came near their deadline after since_us and until now_us, and are not past it, in
 * the order of their deadlines; w->after is not looked at.  Near is the last near_us before it, or
 * the last quarter of the time between its making and it if that is less.  Who was near before is
 * gone over in the database but costs little.
 */
struct store_near {
    int64_t near_us, since_us, now_us;
};
int store_tx_delivery_near(struct store_tx *tx, const struct store_near *n,
                           const struct store_walk *w,
                           int (*each)(void *arg, const struct store_delivery *d));
/*
 * Of each BSA with open deliveries: how many, the earliest next_us and the earliest deadline.  It
 * reads an entry of an index for each open one.
 */
struct store_lane {
    int64_t bsa;
    uint64_t open;
    int64_t next_us;
    int64_t deadline_us;
};
int store_tx_delivery_lanes(struct store_tx *tx, void *arg,
                            int (*each)(void *arg, const struct store_lane *l));
/* Without open ones the times are INT64_MAX. */
int store_tx_delivery_lane(struct store_tx *tx, int64_t bsa, struct store_lane *ret_lane);
/* How many are in each state. */
int store_tx_delivery_counts(struct store_tx *tx, uint64_t ret_count[static STORE_DELIVERY_STATES]);

/*
 * A fan-out: a new TEK on its way to every BSA that holds the content.  Its row is inserted with
 * the TEK, advanced with each group of deliveries, and deleted with the last: a crash neither loses
 * a BSA nor prepares one twice.
 */
struct store_fanout {
    int64_t row;
    int64_t tek; /* the new one */
    int64_t content;
    int64_t after_bsa; /* up to this row all is done */
};
int store_tx_fanout_insert(struct store_tx *tx, struct store_fanout *f); /* unique: tek */
/* Begun again, or set back, so that it goes on behind after_bsa at the latest; row is not used. */
int store_tx_fanout_reach(struct store_tx *tx, const struct store_fanout *f);
int store_tx_fanout_advance(struct store_tx *tx, int64_t row, int64_t after_bsa);
int store_tx_fanout_delete(struct store_tx *tx, int64_t row);
int store_tx_fanout_walk(struct store_tx *tx, const struct store_walk *w,
                         int (*each)(void *arg, const struct store_fanout *f));
/*
 * BSAs (rows, rising, beyond w->after) that were given some TEK of this content before tek, or
 * without it: also one that is destroyed since.
 */
int store_tx_holders_walk(struct store_tx *tx, int64_t content, int64_t tek,
                          const struct store_walk *w, int (*each)(void *arg, int64_t bsa));

/* Contents with crypto-periods, by row. */
int store_tx_content_walk_periodic(struct store_tx *tx, const struct store_walk *w,
                                   int (*each)(void *arg, const struct store_content *c));
/* The newest period of the content that has a TEK, if a destroyed one.  Errors: TEKD_ENOTFOUND. */
int store_tx_tek_last_period(struct store_tx *tx, int64_t content, int64_t *ret_period);

/*
 * The records that were in the database at the start but under no checkpoint: from is the first,
 * to the one behind the last; equal when there were none.  A confirmation among them does not
 * count: with log.recovered, in one transaction, its delivery has become IN_FLIGHT again, as the
 * crash found it, or ABANDONED when it has no message any more.
 */
void store_unattested(struct store *s, uint64_t *ret_from, uint64_t *ret_to);

/* How many rows there are, for status. */
struct store_counts {
    uint64_t bsas, contents, teks;
    uint64_t messages; /* after a start: as far as they were counted in the background */
};
int store_tx_counts(struct store_tx *tx, struct store_counts *ret_counts);

/*
 * Has a checkpoint over everything committed made soon; for audit checkpoint and export an item of
 * wait STORE_SIGNED that adds an admin.action record does the same and tells when.
 */
void store_checkpoint_soon(struct store *s);

/*
 * Has this epoch closed and the next one opened, soon; if it is not the current one any more:
 * nothing.  store_status_get() tells when.
 */
void store_close_epoch(struct store *s, uint64_t epoch);

#endif
