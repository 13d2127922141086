/*
 * tekd-hsm from the inside; private to pkcs11/worker.
 *
 * Thread rule: every process here has one thread.
 */
#ifndef TEKD_PKCS11_WORKER_H
#define TEKD_PKCS11_WORKER_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control.h"
#include "protocol.h"
#include "tekd/hsm.h"
#include "tekd/note.h"
#include "tekd/secret.h"
#include "token/token.h"

/* ---------------------------------------------------------------- supervisor.c ----- */

/* Serves the pool at the other end of CONTROL_FD until it goes away.  Returns the exit status. */
int supervisor_run(void);

/* ---------------------------------------------------------------- pin.c ------------ */

/* What names a PIN source (see pin.c): two strings of CONFIGURE and a few numbers. */
#define PIN_IDENTITY_MAX (CONTROL_MAX + 512)
/* Two looks at a changed file so far apart must agree before it is tried. */
#define PIN_POLL_MS 1000

/* The strings are borrowed until pin_free(). */
struct pin_source {
    enum hsm_pin_source kind;
    const char *name;       /* path or credential name */
    const char *latch_file; /* empty: none */
    const char *token;      /* a PIN is refused by a token ... */
    const char *module;     /* ... through a module */
};

struct pin;

/* Reads the latch; the PIN is read by pin_load().  Errors: TEKD_ENOMEM. */
int pin_new(const struct pin_source *source, struct pin **ret_pin);
/* Wipes. */
void pin_free(struct pin *p);
AUTO_DEFINE(pin)

/*
 * Reads the PIN from its source, unless the latch says that what is there was refused.  fd is of
 * HSM_PIN_FD; it is not closed.  pin_state() tells the outcome.
 */
void pin_load(struct pin *p, int fd);

/* The operator's word: the latch is taken away, then as pin_load(), from fd if that is not -1. */
void pin_retry(struct pin *p, int fd);

/* Looks whether a file has changed, and reads it once it has stood so for PIN_POLL_MS; to be called
 * so often at least while there is no PIN.  Returns whether the state changed. */
bool pin_poll(struct pin *p);

/* Before a login: what is in the file now counts, not what was there at the start.  Returns false
 * while that has not stood so for PIN_POLL_MS: to be asked again after that time. */
bool pin_refresh(struct pin *p);

enum control_pin pin_state(const struct pin *p);
/* Why there is none, for people. */
const char *pin_text(const struct pin *p);
/* The PIN, borrowed; NULL unless the state is CONTROL_PIN_HAVE. */
const struct secret *pin_peek(const struct pin *p);

/* Another number for every PIN that was read: a login under way may have had the one before. */
unsigned pin_generation(const struct pin *p);

/* What the token said.  Refused: the PIN is wiped and the latch written. */
void pin_accepted(struct pin *p);
void pin_refused(struct pin *p, const char *reason);

/* ---------------------------------------------------------------- worker.c --------- */

/* The descriptors of a new worker; it has no others but 0 to 2. */
#define WORKER_SOCKET_FD 3 /* requests and replies */
#define WORKER_REPORT_FD 4 /* READY or FAILED to the supervisor */
#define WORKER_PIN_FD    5 /* a pipe with the PIN */

struct worker_options {
    enum protocol_role role;
    const struct control_configure *configure;
    bool play_attacks;      /* find out what a PIN holder can do to this token */
    bool prevents_wrap_out; /* else: what was found out before */
    uint32_t id;
    pid_t parent; /* dies with it */
};

/* Opens the token, logs in, serves until the pool closes the socket.  Returns the exit status. */
int worker_run(const struct worker_options *o);

/* ---------------------------------------------------------------- keks.c ----------- */

/* KEKs of so many BSAs are kept; with more the oldest of a place is looked up again. */
#define KEKS_MAX 4096

struct keks;
int keks_new(struct token *t, struct keks **ret_keks);
/* Before the token. */
void keks_free(struct keks *k);
AUTO_DEFINE(keks)

/*
 * The KEK of this binding, searched in the token once; borrowed until the next call but one.
 * Errors: those of token_kek_find().
 */
int keks_get(struct keks *k, const struct hsm_kek *want, const struct token_kek **ret_kek);

/* ---------------------------------------------------------------- signer.c --------- */

/* Logs that one worker signs for: a log is all of its epochs, <log>/<epoch>. */
#define SIGNER_LOGS_MAX 16

struct signer;
/* By enum protocol_key: all of them sign in the token and are borrowed; those but the first may be
 * NULL.  Errors: TEKD_ECRYPTO, TEKD_ENOMEM. */
int signer_new(struct token_signing *const key[static PROTOCOL_KEYS], struct signer **ret_signer);
void signer_free(struct signer *s);
AUTO_DEFINE(signer)

/*
 * Extends the log and signs its head, with each key.  Errors: TEKD_ETAMPER (last has no line of the
 * main key nor of the one before it, or one of any of ours that does not verify, the range is not
 * that of last, the new head contradicts one signed before, the epoch is one before the newest that
 * was signed, or begins anew and does not follow it), TEKD_EFORMAT (the origin), TEKD_EINVAL (too
 * many logs), TEKD_EHSM.
 */
int signer_checkpoint(struct signer *s, const struct protocol_checkpoint *in,
                      struct note *ret_note);

/* The public half in DER.  Errors: TEKD_ECRYPTO. */
int signer_spki(EVP_PKEY *key, struct hsm_spki *ret_spki);

#endif
