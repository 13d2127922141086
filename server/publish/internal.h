/*
 * What the files of the publication share.
 *
 * A publisher is a struct that begins with struct publisher: its own part is of its own thread
 * alone, what the status tells is under the lock of all.
 */
#ifndef TEKD_PUBLISH_INTERNAL_H
#define TEKD_PUBLISH_INTERNAL_H

#include <pthread.h>

#include "tekd/cosign.h"
#include "tekd/https.h"
#include "tekd/note.h"
#include "tekd/publish.h"
#include "tekd/timestamp.h"

#define SECOND_US       INT64_C(1000000)
#define PUBLISH_TICK_US SECOND_US /* the clock is read again at least so often */

/* A note on its way. */
struct publication {
    uint64_t epoch;
    struct note note;
    char text[NOTE_MAX + 1];
    size_t len;
};

struct publisher {
    const char *name;
    /*
     * Publishes; on the publisher's thread, and may wait within a limit of its own.  why: in words
     * what failed; text of somebody else in it is made printable.
     */
    int (*publish)(struct publisher *self, const struct publication *n,
                   char why[static PUBLISH_WHY_MAX]);
    void (*stop)(struct publisher *self); /* from another thread: nothing waits any more; or NULL */
    void (*free)(struct publisher *self);

    struct publish *all;
    pthread_t thread;
    bool started;
    int64_t due_us;    /* mono: the next turn; of its thread, as this: */
    int64_t warned_us; /* mono: of the last warning of failures that go on */

    struct publish_status status; /* under the lock of all */
};

struct publish {
    struct store *store;
    struct kept *kept;
    unsigned interval_s;
    struct publisher *publisher[PUBLISH_MAX];
    size_t n;
    pthread_mutex_t lock; /* guards stopping and each status */
    pthread_cond_t changed;
    bool stopping;
};

/* ---- publish.c ------------------------------------------------------------------------------- */

/* One turn: publishes what is new, says what came of it, and sets when the next one is due. */
void publisher_turn(struct publisher *x);
/* Whether whatever takes long has to end. */
bool publisher_stops(const struct publisher *x);

/* ---- newest.c -------------------------------------------------------------------------------- */

/* The newest committed note.  Errors: TEKD_ENOTFOUND (none yet), those of store_call(). */
int newest_read(struct store *s, struct publication *ret_publication);

/* ---- kept.c: what was got back --------------------------------------------------------------- */

#define KEPT_MAX       1024 /* of a kind; tek-audit takes 4096 files */
#define KEPT_FILE_MAX  TIMESTAMP_MAX
#define KEPT_FILES_MAX 2 /* of one name */

struct kept;
/* The folder is made with the first file.  Errors: TEKD_ENOMEM. */
int kept_new(const char *dir, struct kept **ret_kept);
void kept_free(struct kept *k);

struct kept_file {
    const char *kind; /* "note", "tsr", "cosigned" */
    const void *octets;
    size_t len;
};
/*
 * Keeps the files of a note, all of them whole or none, named in this order, and removes older ones
 * of their kinds.  What could not be kept leaves nothing behind.  From any thread.  Errors:
 * TEKD_EIO (why).
 */
int kept_put(struct kept *k, const struct publication *p, const struct kept_file *files, size_t n,
             char why[static PUBLISH_WHY_MAX]);

/* What an export over so many records takes along, a note before its time stamp.  each() returns 0
 * to go on; any other value ends the walk and is returned.  From any thread. */
struct kept_walk {
    uint64_t epoch, size;
    void *arg;
    int (*each)(void *arg, const char *name, const void *octets, size_t len);
};
int kept_walk(struct kept *k, const struct kept_walk *w);

/* ---- proof.c --------------------------------------------------------------------------------- */

/* Not more than 63: a size of the store's has 40 bits, and a hash each on both sides. */
struct proof {
    size_t n;
    struct merkle_hash hash[MERKLE_RANGE_MAX];
};
/*
 * From the checkpoint of this epoch with so many records, at most as many as n has, to n; empty
 * where that is 0 or n's own.  Ends early when the publisher is stopped (TEKD_ECLOSED).  Errors:
 * TEKD_ENOTFOUND (no such checkpoint), TEKD_ETAMPER (the records have another root), those of
 * store_call().
 */
int proof_read(struct publisher *x, const struct publication *n, uint64_t from,
               struct proof *ret_proof, char why[static PUBLISH_WHY_MAX]);

/* ---- the publishers; each of them NULL if it is not configured ------------------------------- */

int syslog_new(const struct publish_options *o, struct publisher **ret_publisher);
int stamp_new(const struct publish_options *o, struct publisher **ret_publisher);
int witness_new(const struct publish_options *o, struct publisher **ret_publisher);
/*
 * Appends the message as it is sent, for a facility: "<PRI>Mmm dd hh:mm:ss tekd[PID]: checkpoint "
 * and the note, escaped as for printf(1)'s %b.  Errors: of buf_append().
 */
int syslog_message(const struct publication *n, unsigned facility, int64_t utc_us, struct buf *out);

/* Appends what a witness is sent.  Errors: of buf_append(). */
int witness_question(uint64_t old, const struct proof *proof, const struct publication *n,
                     struct buf *out);
/* After its 409: *old becomes the size that it has.  Errors: TEKD_EFORMAT (it says none),
 * TEKD_ECRYPTO (it has what we have not). */
int witness_conflict(const struct https_answer *a, const struct publication *n, uint64_t *old,
                     char why[static PUBLISH_WHY_MAX]);
/* Appends the note and the cosignature of this key that is in an answer and verifies.  Errors:
 * TEKD_ENOTFOUND (none of this key), TEKD_ECRYPTO (it does not verify), of buf_append(). */
int witness_cosigned(const struct buf *body, const struct cosign_key *key,
                     const struct publication *n, struct buf *out,
                     char why[static PUBLISH_WHY_MAX]);

#endif
