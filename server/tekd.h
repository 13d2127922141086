/*
 * tekd as a whole: its parts, in the order they start.  They stop in reverse order.
 */
#ifndef TEKD_TEKD_H
#define TEKD_TEKD_H

#include <stdatomic.h>
#include <sys/types.h>

#include "front.h"
#include "tekd/admin.h"
#include "tekd/config.h"
#include "tekd/hsm.h"
#include "tekd/http.h"
#include "tekd/keys.h"
#include "tekd/publish.h"
#include "tekd/push.h"
#include "tekd/store.h"

#ifndef TEKD_VERSION
#error "the build sets TEKD_VERSION"
#endif

#define TEKD_TLS_KEY_WRONG "tls.key in the HSM is not the key of tls.certificate"

/* How long the start waits for the token before it serves 503s, and tekd --check before it fails.
 */
#define TEKD_HSM_START_US 15000000

/*
 * A stop, from its signal on: when the HSM's calls end (who waits for one gets his 503), and when
 * connections and pushes are cut.  Then the store signs the end of its log (2.5 s at most), and the
 * HSM's processes end (3 s at most): all within 10 s.
 */
#define TEKD_STOP_HSM_US 3000000
#define TEKD_STOP_CUT_US 4000000

/* What is said of a token without CKA_WRAP_WITH_TRUSTED for private keys. */
#define TEKD_WRAP_OUT "whoever has the PIN can wrap a TEK under a key of his own"

/* Files that SIGHUP reads again and the log names: certificate, client_ca, crl. */
#define TEKD_TLS_FILES 3

/* Exit statuses: see the usage in main.c. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_HSM = 3, EXIT_IO = 74 };

struct tekd {
    struct config *config;
    uint8_t tls_sha256[TEKD_TLS_FILES][32]; /* as they were read last; see reload.c */
    struct hsm *hsm;
    struct store *store;
    struct keys *keys;
    struct push *push;
    struct publish *publish;
    struct front *front;
    struct http *http;
    struct http_plain *probe;
    struct admin *admin;
    _Atomic int fatal;          /* an error of the store that ends tekd */
    _Atomic bool hsm_changed;   /* hsm_on_state() said so; the main thread looks */
    bool unsafe;                /* a KEK is not what was bound, or weak; or the token: ends tekd */
    bool weakness_said;         /* hsm.weakness is in the log, or there is nothing to say */
    bool check_keks;            /* the token was away: its keys are to be looked at again */
    bool tls_key_seen;          /* so was the TLS key in it, and compared */
    _Atomic bool tls_key_wrong; /* it is not the certificate's: no handshake succeeds */
    unsigned char *tls_spki;    /* DER of the certificate's key, if tls.key is in the HSM */
    size_t tls_spki_len;
    int64_t certificates_next_us; /* when the main thread looks at their ends again */
    enum hsm_state hsm_state;     /* as the main thread last saw it */
};

/* ---- setup.c: from the configuration to the parts -------------------------------------------- */

/* Each says in the log what is wrong. */
int setup_hsm(struct tekd *t);
int setup_store(struct tekd *t);
int setup_keys(struct tekd *t);
int setup_push(struct tekd *t);
int setup_publish(struct tekd *t);
int setup_front(struct tekd *t);
int setup_http(struct tekd *t);
/* Whether the TLS key in the HSM is the certificate's, after setup_http() or setup_check_tls().
 * Errors: those of hsm_public_key(). */
int setup_tls_key_fits(struct tekd *t, bool *ret_fits);
/* The files that setup_http() reads, and how long they are good for. */
int setup_check_tls(struct tekd *t, struct http_ends *ret_ends);
int setup_probe(struct tekd *t);
int setup_admin(struct tekd *t);
/* Whether a SIGTERM or SIGINT waits for the main thread, which blocks both. */
bool setup_stop_asked(void);
void setup_undo(struct tekd *t);

/* ---- check.c: --check ------------------------------------------------------------------------ */

/* Prints what it finds; the exit status. */
int check_all(struct tekd *t);

/* ---- status.c: exit statuses ----------------------------------------------------------------- */

/* Of an error of the store. */
int status_of(int error);
/*
 * Whether the HSM's workers failed by something that waiting does not mend: a token on which TEKs
 * can be stolen, a signing key that is missing, double or weak, a setting that cannot be right.
 */
bool status_hsm_refused(const struct hsm_status *s);

/* ---- probe.c: alive, and ready --------------------------------------------------------------- */

/* 0, or an error and in words why no keys can be given. */
int probe_ready(void *tekd, char reason[static HSM_TEXT_MAX]);
/* The admin listener's /healthz and /readyz. */
int probe_get(void *tekd, const char *path, struct buf *body);

/* ---- reload.c: SIGHUP ------------------------------------------------------------------------ */

/* Errors: TEKD_EIO (not there, not readable), TEKD_ENOMEM, TEKD_ECRYPTO. */
int reload_hash_file(const char *path, uint8_t ret_sha256[static 32]);
/* Before the files are read for the first time: the ones to compare with. */
void reload_begin(struct tekd *t);
/* Reads them again, as this user wants, and records it. */
void reload_run(struct tekd *t, uid_t uid);

/* ---- watch.c: what the main thread does once a second ---------------------------------------- */

void watch_tick(struct tekd *t);

#endif
