/*
 * tek-audit: what its files share.  It reads one exported epoch of an audit log (docs/audit.md
 * describes the folder) with nothing but the operating system, libcrypto and the formats of
 * lib/audit: no database, no HSM, no network.
 *
 * All text in an export may have been written by an attacker: nothing of it is printed unescaped,
 * and every size has a limit.
 *
 * Thread rule: one thread.
 */
#ifndef TEK_AUDIT_H
#define TEK_AUDIT_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../audit.h"
#include "tekd/auto.h"
#include "tekd/buf.h"
#include "tekd/cosign.h"
#include "tekd/ledger.h"
#include "tekd/merkle.h"
#include "tekd/note.h"
#include "tekd/record.h"

/* ---- limits ---- */
#define FAILURES_MAX   50 /* more are counted: the first ones tell where to look */
#define FAILURE_TEXT   640
#define BROUGHT_MAX    4    /* --key */
#define TRUSTED_MAX    8    /* --key, and what log.signkey adds in one epoch */
#define KEYS_MAX       16   /* files in keys/ */
#define ANCHORS_MAX    4096 /* files in anchors/ */
#define WITNESSES_MAX  4    /* --witness */
#define INSTANCES_MAX  64   /* servers that write one log */
#define JUMPS_MAX      64   /* of t, of an instance, that wait for their reason */
#define FILE_NAME_MAX  80   /* of an export, its folder's included */
#define MANIFEST_MAX   ((size_t)1024 * 1024)
#define KEY_FILE_MAX   4096
#define MARKS_MAX      (ANCHORS_MAX + 2) /* --since and the checkpoint */
#define WINDOW_DEFAULT 604800  /* seconds a Message ID stands for one key, when no record tells */
#define CLOCK_SLACK_US 1000000 /* t may fall back by so much without a clock.step */

/* ---- lines.c: a file, line by line, in constant memory ---- */

struct lines;
/*
 * Errors: TEKD_ENOTFOUND, TEKD_EIO, TEKD_ENOMEM.  With TEKD_EIO *why, unless why is NULL, is the
 * reason in words, static; else it is left as it was.
 */
int lines_open(int dirfd, const char *name, struct lines **ret_lines, const char **why);
void lines_free(struct lines *l);
AUTO_DEFINE(lines)
/*
 * The next line without its line end, borrowed until the next call.
 * Errors: TEKD_ECLOSED (no more), TEKD_ETOOBIG (longer than RECORD_MAX; nothing can be read
 * after it), TEKD_EFORMAT (the last line has no line end; it is returned), TEKD_EIO.
 */
int lines_next(struct lines *l, const char **ret_line, size_t *ret_len);
/* SHA-256 of the whole file; reads what is left of it.  Errors: TEKD_EIO. */
int lines_digest(struct lines *l, struct merkle_hash *ret_digest);

/* A whole small file.  Errors: TEKD_ENOTFOUND, TEKD_EIO (why as above), TEKD_ETOOBIG,
 * TEKD_ENOMEM. */
int file_read(int dirfd, const char *name, size_t max, struct buf **ret_buf, const char **why);

/* ---- pool.c: strings, each kept once, numbered from 0 ---- */

struct pool;
int pool_new(struct pool **ret_pool);
void pool_free(struct pool *p);
AUTO_DEFINE(pool)
/* *ret_new: it was not there before.  Errors: TEKD_ENOMEM, TEKD_ETOOBIG. */
int pool_add(struct pool *p, const char *s, size_t len, uint32_t *ret_id, bool *ret_new);
/* Errors: TEKD_ENOTFOUND. */
int pool_find(const struct pool *p, const char *s, size_t len, uint32_t *ret_id);
/* NUL-terminated; borrowed until the next pool_add(). */
const char *pool_text(const struct pool *p, uint32_t id);
uint32_t pool_count(const struct pool *p);

/* ---- manifest.c: SHA256SUMS ---- */

struct manifest_entry {
    struct merkle_hash sum;
    char name[64]; /* an anchor's name is the longest */
};
struct manifest {
    struct manifest_entry *entry; /* sorted by name */
    size_t n;
};
/*
 * Reads the text of SHA256SUMS.  ret_line is the line that is wrong.  Errors: TEKD_EFORMAT (not
 * one line a file as sha256sum writes it, a name that an export does not have, one twice),
 * TEKD_ENOMEM.
 */
int manifest_read(const char *text, size_t len, struct manifest **ret_manifest, size_t *ret_line);
void manifest_free(struct manifest *m);
AUTO_DEFINE(manifest)
const struct manifest_entry *manifest_find(const struct manifest *m, const char *name);

/* ---- keys.c: who is trusted ---- */

/* A SubjectPublicKeyInfo, PEM or DER.  Errors: TEKD_EFORMAT (none, or a key that signs no notes).
 */
int key_parse(const uint8_t *octets, size_t len, EVP_PKEY **ret_key);
/* SHA-256 of its SubjectPublicKeyInfo. */
int key_fingerprint(EVP_PKEY *key, struct merkle_hash *ret_fingerprint);

struct known_key {
    EVP_PKEY *key;
    struct merkle_hash fingerprint;
    bool announced; /* by a log.signkey that was read already */
    uint64_t announced_seq;
    unsigned stands_for; /* bits: the keys of --key whose place its signature takes; of a kind that
                          * was not brought: none */
};

/* ---- what the records say ---- */

#define NONE   UINT64_MAX       /* a record that there is not */
#define BEFORE (UINT64_MAX - 1) /* one in an epoch before this one */

/* Of a Message ID of one peer; its number in the pool of messages is its place in the array. */
struct message {
    uint64_t seq;
    int64_t t_us;
    uint64_t out; /* the first 8 octets of the SHA-256 of what was sent */
    uint32_t tek;
    uint32_t kek;
    uint64_t attempted; /* seq of the first attempt, NONE before it; in an earlier epoch: BEFORE */
    uint64_t confirmed; /* seq of the confirmation; NONE */
    int64_t done_us;    /* when it was sent (last), or confirmed; 0: not yet */
    uint32_t repeats;   /* of an answer; of a delivery its attempts */
    uint8_t dir;        /* enum direction */
    uint8_t state;      /* enum delivery_state */
    bool held; /* a delivery: whoever prepared or attempted it had promised release: signed */
};
enum direction { DIR_NONE, DIR_PULL, DIR_PUSH };
enum delivery_state {
    STATE_NONE,
    STATE_ANSWERED, /* pull */
    STATE_SENT,
    STATE_PREPARED, /* push, from here */
    STATE_IN_FLIGHT,
    STATE_CONFIRMED,
    STATE_REJECTED,
    STATE_UNCONFIRMED,
    STATE_ABANDONED,
    STATE_UNKNOWN,
};

/* Besides the index of a crypto-period: there is none; it was not said. */
#define PERIOD_NONE   (-1)
#define PERIOD_UNSAID (-2)

struct tek {
    uint64_t generated; /* seq; or BEFORE */
    uint32_t content;
    int64_t period; /* PERIOD_NONE, PERIOD_UNSAID */
    bool destroyed;
    uint64_t destroyed_seq;
};

/* A BSA or a KEK; its number in the pool is its place in the array. */
enum standing { STANDING_NONE, STANDING_GOOD, STANDING_GONE }; /* never seen, in force, withdrawn */
struct party {
    enum standing standing;
    uint64_t gone_seq; /* of the record that withdrew it */
};

/* A stretch of records: an outage before record to, or a tail that was recovered. */
struct span {
    uint64_t from;
    uint64_t to;
    const char *why;
    int64_t seconds;
};
/* As many as the log tells of: each is of a record of its own. */
struct spans {
    struct span *span;
    size_t n, room;
};

enum instance_state { INSTANCE_NEW, INSTANCE_RUNNING, INSTANCE_STOPPED, INSTANCE_CRASHED };

/* What an instance promised at its start: when a key leaves. */
enum release {
    RELEASE_UNKNOWN, /* it did not say */
    RELEASE_SIGNED,  /* when a checkpoint covers its record */
    RELEASE_DURABLE, /* when its record is on the disk */
    RELEASE_COUNT
};
/* As log.started has it, and "unknown". */
extern const char *const release_name[RELEASE_COUNT];

/* A jump of t that clock.step, an hsm record or audit.gap has yet to explain. */
struct jump {
    uint64_t seq;
    int64_t t_us;    /* behind it */
    int64_t seconds; /* negative: back */
};

struct instance {
    enum instance_state state;
    bool hsm_lost;
    bool seen; /* last_* are set */
    uint64_t last_seq;
    int64_t last_us;
    int64_t heartbeat_us;
    enum release release;
    struct jump jump[JUMPS_MAX]; /* in the order of seq */
    size_t n_jumps;
};

struct counts {
    uint64_t answered, sent, repeated, refused, strangers;
    uint64_t prepared;
    uint64_t confirmed, pending; /* what deliveries came to; open ones */
    uint64_t doubtful;           /* pending although an unattested record confirms them */
    uint64_t teks, gaps, unattested;
    uint64_t early; /* records of a key that left before a checkpoint covered it */
    uint64_t starts[RELEASE_COUNT];
};

/* A tree head that the log must lead through, from wherever it was kept. */
struct mark {
    struct note note;
    const char *check; /* what it is called when it does not hold */
    char where[80];
};

/* A time stamp or a cosignature over a note of the log. */
struct stamp {
    uint64_t size;
    int64_t utc_us;
    char where[80];
};

struct failure {
    const char *check;
    char where[80];
    char text[FAILURE_TEXT];
};

struct audit {
    /* what was asked */
    int dirfd;
    const char *origin_wanted; /* --origin; NULL: any */
    bool unsigned_ok;          /* no --key: only what the export says of itself */
    struct note *since;        /* NULL: --first */
    X509_STORE *tsa;           /* --tsa; NULL: signatures of time stamps are not looked at */
    struct cosign_key witness[WITNESSES_MAX]; /* --witness; none: of cosignatures neither */
    size_t n_witnesses;

    /* who is trusted: first those of --key, then who came to be; and who may come to be */
    struct known_key trusted[TRUSTED_MAX];
    size_t n_brought, n_trusted;
    struct known_key candidate[KEYS_MAX];
    size_t n_candidates;

    struct manifest *manifest;
    struct note checkpoint;
    uint64_t epoch;
    struct mark *mark; /* sorted by size */
    size_t n_marks, next_mark;
    struct stamp *stamp;
    size_t n_stamps, stamp_room;
    struct stamp *cosigned;
    size_t n_cosigned, cosigned_room;

    /* where reading is */
    struct merkle_range range; /* its size: records read */
    uint64_t seq;              /* of the record being looked at */
    uint64_t expected_seq;
    int64_t t_us;            /* of it */
    struct instance *writer; /* of it */
    uint64_t covered;        /* size of the newest note so far */
    bool root_differs;       /* said once */
    bool closed;             /* log.closed was read */
    bool any_started;
    int64_t window_us;

    struct pool *instances, *messages, *teks, *contents, *bsas, *keks;
    struct instance instance[INSTANCES_MAX];
    struct message *message;
    size_t message_room;
    struct tek *tek;
    size_t tek_room;
    struct party *bsa;
    size_t bsa_room;
    struct party *kek;
    size_t kek_room;
    struct spans outages, recovered;
    struct counts counts;

    struct failure *failure;
    size_t n_failures, more_failures;
    int error;                      /* out of memory, or reading failed: nothing can be said */
    char unreadable[FILE_NAME_MAX]; /* the file that was being read; empty: none */
    const char *why;                /* in words; NULL: as error says */
};

int audit_new(struct audit **ret_audit);
void audit_free(struct audit *a);
AUTO_DEFINE(audit)

/* Something is not as it has to be; where: of the record being read. */
void audit_fail(struct audit *a, const char *check, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same about a file. */
void audit_fail_at(struct audit *a, const char *where, const char *check, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A file of the export cannot be read, for this reason (NULL: as the error says). */
void audit_unreadable(struct audit *a, const char *name, int error, const char *why);
/* Sets a->error. */
void spans_add(struct audit *a, struct spans *s, struct span span);
/* Room for element n of an array of elements of this size.  Sets a->error. */
bool audit_room(struct audit *a, void **array, size_t *room, size_t n, size_t size);

/* ---- export.c: the small files of the folder ---- */

/* Reads SHA256SUMS, checkpoint, keys/, anchors/; false when there is no checkpoint to go by. */
bool export_read(struct audit *a);
/* Compares with what SHA256SUMS says of this file. */
void export_check_sum(struct audit *a, const char *name, const struct merkle_hash *found);
/* "<bsm id>/tekd/audit/" and the epoch.  Errors: TEKD_EFORMAT. */
int origin_epoch(const char *origin, size_t *ret_prefix_len, uint64_t *ret_epoch);

/* ---- stamps.c: time stamps ---- */

/* The CAs of a PEM file.  Errors: TEKD_EFORMAT, TEKD_EIO, TEKD_ENOMEM. */
int stamps_read_ca(const char *path, X509_STORE **ret_store);
/* Whether a file in anchors/ is one. */
bool stamp_is_name(const char *name);
/* Compares one with its note; a good one is kept. */
void stamp_check(struct audit *a, const char *name, const struct buf *answer);

/* ---- cosigned.c: cosignatures of witnesses ---- */

/* A verifier key, or (without '+') the file that holds it.  Errors: TEKD_EFORMAT, those of
 * file_read(), TEKD_ECRYPTO. */
int witness_read_key(const char *text, struct cosign_key *ret_key);
/* Whether a file in anchors/ is a cosigned note. */
bool cosigned_is_name(const char *name);
/* Reads the note of one and compares its cosignature; a good one is kept.  False: there is no note,
 * which is said. */
bool cosigned_read(struct audit *a, const char *name, const struct buf *b, struct note *ret_note);

/* ---- notes.c: signatures and tree heads ---- */

/* Another --key, which it takes.  Errors: TEKD_ETOOBIG (too many), TEKD_EEXIST, TEKD_ECRYPTO. */
int audit_bring(struct audit *a, EVP_PKEY *take_key);
/*
 * Whether each key of --key signed it, or one that log.signkey introduced in its place; a failure
 * is noted under this place.
 */
bool note_trusted(struct audit *a, const struct note *n, const char *where);
/* Compares a note with the tree as read so far, which has its size. */
void note_compare(struct audit *a, const struct note *n, const char *where, const char *check);
/* Marks of the size that was reached. */
void marks_pass(struct audit *a);
/* checkpoints.txt, read beside the records. */
struct notes;
/* Errors: a->error. */
int notes_open(struct audit *a, struct notes **ret_notes);
void notes_free(struct notes *n);
AUTO_DEFINE(notes)
/* The notes of the size that was reached. */
void notes_pass(struct audit *a, struct notes *n);
/* Behind the last record: nothing may be left, and the last one is the checkpoint. */
void notes_finish(struct audit *a, struct notes *n);

/* ---- life.c: instances and time; rules.c: everything else of a record ---- */
void life_apply(struct audit *a, const struct record *r, enum event_id ev);
void life_finish(struct audit *a);
void rules_apply(struct audit *a, const struct record *r, enum event_id ev);
/* Behind the last record: counts what became of deliveries. */
void rules_finish(struct audit *a);
/* Whether a checkpoint covered this record before a crash. */
bool is_attested(const struct audit *a, uint64_t seq);
/* What became of a message: a confirmation that is not attested does not count. */
enum delivery_state state_of(const struct audit *a, const struct message *m);
/* It may still come to something by itself. */
bool is_pending(enum delivery_state state);

/* ---- verify.c ---- */

/* Reads the whole export; what it found is in a.  Errors: a->error. */
int audit_run(struct audit *a);

/* ---- report.c ---- */
enum report_form { REPORT_TEXT, REPORT_JSON, REPORT_CSV };
void report_verify(const struct audit *a, enum report_form form, FILE *out);
void report_failures(const struct audit *a, FILE *out);
/* wanted: NULL: all. */
void report_ledger(const struct audit *a, const struct ledger_wanted *wanted, enum report_form form,
                   FILE *out);

/* ---- prove.c ---- */
struct prove {
    int dirfd;
    const char *message_id;
    const char *peer; /* NULL: there must be one */
};
/* Writes the proof.  Errors: what stands on stderr is said; 1 or 3 is the status to end with. */
int prove_run(const struct prove *p, FILE *out);

#endif
