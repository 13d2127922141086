/*
 * Publication: the newest committed checkpoint is handed to places that are not this host's.  Who
 * has all of the host can then take back nothing that was signed before: somebody else has the
 * checkpoint (docs/audit.md).  The anchor file is the store's own and goes on without this.
 *
 *     syslog      one message, in which the note is escaped; the daemon may pass it on
 *     timestamp   a time-stamping authority (RFC 3161) says when there was this note; its answer is
 *                 verified and kept in a folder, from where exports take it
 *     witness     a witness (C2SP tlog-witness) cosigns the note when it extends every one that it
 *                 has seen before; its answer is verified and kept as well
 *
 * Each publisher that is configured has a thread of its own: one that fails or hangs delays neither
 * another one nor the store, and keys never wait for any.  At once at the start and then every
 * interval the newest note is read from the store; if it is newer than what this place has it is
 * published.  What fails is tried again after a pause that doubles, with the note that is newest
 * then.  Failures are a warning in the log when they begin, when their reason changes and once an
 * hour; they are in the status; and a line says when it works again.
 *
 * Thread rule: publish_start() and publish_stop() from one thread; the rest from any.
 */
#ifndef TEKD_PUBLISH_H
#define TEKD_PUBLISH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"
#include "tekd/store.h"

#define PUBLISH_MAX         4    /* publishers */
#define PUBLISH_WHY_MAX     256  /* octets of a reason in words */
#define PUBLISH_PAUSE_MAX_S 900  /* the longest pause behind failures, or the interval if longer */
#define PUBLISH_WARN_S      3600 /* what goes on failing is said again this often */
#define PUBLISH_SYSLOG_MS   2000 /* a syslog daemon that does not read is waited for so long */

struct publish;

/* Strings are copied. */
struct publish_options {
    struct store *store;
    unsigned interval_s;
    struct {
        const char *socket; /* of the daemon, e.g. /dev/log; NULL: not published there */
        unsigned facility;  /* code of RFC 5424 section 6.2.1 */
    } syslog;
    const char *dir; /* where answers are kept; made when there is one */
    struct {
        const char *url;    /* http:// or https://; NULL: not published there */
        const char *tsa_ca; /* PEM: who signs the TSA's certificate */
        const char *tls_ca; /* PEM: who signs the server's, for https://; NULL: system's */
    } timestamp;
    struct {
        const char *url;         /* http:// or https://; NULL: not published there */
        const char *key;         /* its verifier key; a text without '+': the file that holds it */
        const char *tls_ca;      /* PEM: who signs the server's, for https://; NULL: system's */
        const char *certificate; /* PEM chain: ours, where the server wants to know; or NULL */
        const char *private_key; /* PEM, of it */
    } witness;
};

/* Errors: TEKD_ENOMEM, TEKD_EINVAL (said in the log).  Where nobody answers yet is no error. */
int publish_start(const struct publish_options *o, struct publish **ret_publish);
/* Ends what is under way, joins, frees; before the store is closed.  Takes NULL. */
void publish_stop(struct publish *p);

struct publish_status {
    const char *name;     /* "syslog"; lives as long as the service, as `to` does */
    const char *to;       /* where that is */
    uint64_t epoch, size; /* of the note that was published last; 0: none since the start */
    int64_t published_utc_us;
    uint64_t failures;         /* in a row; 0: the last attempt was good, or there was none */
    int64_t failing_utc_us;    /* since when */
    char why[PUBLISH_WHY_MAX]; /* of the last failure, in words; empty if it is over */
};
/* How many there are; NULL has none. */
size_t publish_status_get(struct publish *p, struct publish_status ret_status[static PUBLISH_MAX]);

/*
 * What was got back for notes of this epoch of at most this size: each() is called with the name in
 * anchors/ and the octets (borrowed), a note before its time stamp; it returns 0 to go on, and any
 * other value ends it and is returned.  Errors: TEKD_EIO, TEKD_ENOMEM.
 */
struct publish_export {
    uint64_t epoch, size;
    void *arg;
    int (*each)(void *arg, const char *name, const void *octets, size_t len);
};
int publish_export(struct publish *p, const struct publish_export *e);

#endif
