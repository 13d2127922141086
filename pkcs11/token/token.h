/*
 * One PKCS#11 module, one token of it, one session: what tekd-hsm's workers and tek-provision
 * share.  The module is loaded by libp11; Cryptoki calls on the same module do what libp11 does
 * not cover (secret keys, wrapping, attributes).  No CK_ type appears here: object handles are
 * inside the structs, mechanism codes are unsigned long.
 *
 * Private to pkcs11/ and provisioning/.  Link tekd_token (it brings tekd_hsm_wrap, which has
 * hsm_wrap_name() and hsm_wrap_read()).
 *
 * Order: token_new, token_open, token_login, then the rest in any order.  token_open may be called
 * again after it failed; after TEKD_EHSM of anything later the module is not to be trusted any
 * more: a worker ends its process and is started anew.
 *
 * Errors.  Every Cryptoki failure is logged once, here, as "C_WrapKey: CKR_DEVICE_ERROR";
 * token_reason() has the words of the last failure, foreign or ours.  Where nothing else is said:
 * TEKD_EHSM (the call failed), TEKD_ENOMEM.
 *
 * Thread rule: one thread; one struct token in a process at a time (a login belongs to the
 * process).  No call has a deadline: vendors' modules hang, so their process must be killable.
 */
#ifndef TEKD_PKCS11_TOKEN_H
#define TEKD_PKCS11_TOKEN_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"
#include "tekd/buf.h"
#include "tekd/hsm.h"
#include "tekd/secret.h"

#define TOKEN_SLOTS_MAX    128  /* slots looked at; a network HSM with more partitions is unusual */
#define TOKEN_OBJECTS_MAX  4096 /* objects that list looks at: KEKs of as many BSAs */
#define TOKEN_REASON_MAX   HSM_TEXT_MAX
#define TOKEN_CKR_MAX      48 /* the longest standard name, or CKR_VENDOR_DEFINED+0x… */
#define TOKEN_FINDINGS_MAX 16 /* of one key; more than there are rules of a kind that can fail */
#define TOKEN_FINDING_MAX  120

struct token;
struct token_kek;
struct token_profile;

/* ---------------------------------------------------------------- opening ---------- */

enum token_access {
    TOKEN_READ_ONLY,  /* workers: session objects only, no token object can be made or destroyed */
    TOKEN_READ_WRITE, /* tek-provision */
};

/* All strings are copied. */
struct token_options {
    const char *module;  /* path of the PKCS#11 module */
    const char *uri;     /* RFC 7512: token=, serial=, manufacturer=, model=; never a slot */
    const char *profile; /* row of the vendor table; NULL: "generic" */
    enum token_access access;
};

/*
 * Reads the URI and the profile; touches no module.
 * Errors: TEKD_EINVAL (bad URI, no such profile; logged in words), TEKD_ENOMEM.
 */
int token_new(const struct token_options *o, struct token **ret_token);
/* Closes the session, finalises and unloads the module. */
void token_free(struct token *t);
AUTO_DEFINE(token)

/*
 * Loads the module, finds the token and opens the session.
 * Errors: TEKD_EINVAL (the file is no PKCS#11 module), TEKD_EEXIST (more than one token agrees
 * with the URI), TEKD_EHSM (no token agrees, or a call failed: it may be there later).
 */
int token_open(struct token *t);

/*
 * Logs in as the user; once.  Refuses before the PIN is tried when the token says that the PIN is
 * locked, has one try left, must be changed or was never set.  The PIN is not kept: the caller
 * frees it right after.  (The login goes past libp11, which would keep a copy of it.)
 * Errors: TEKD_EPIN (never try this PIN again by itself: refused, or by a code of the vendor's own
 * perhaps refused), TEKD_EHSM.
 */
int token_login(struct token *t, const struct secret *pin);

/* Words of the last failure, for people: "C_Login: CKR_PIN_INCORRECT"; "" before any. */
const char *token_reason(const struct token *t);

/* As the token says it, blanks cut off; valid after token_open(). */
struct token_info {
    char label[33];
    char manufacturer[33];
    char model[17];
    char serial[17];
    bool logged_in;
};
void token_info_get(const struct token *t, struct token_info *ret_info);

/* ---------------------------------------------------------------- TEKs ------------- */

/* A TEK inside the token: a session object, alive for the milliseconds of one operation. */
struct token_tek {
    unsigned long object;
};

/* Makes an AES key of bits (128, 192, 256) that can do nothing but be wrapped. */
int token_tek_generate(struct token *t, unsigned bits, struct token_tek *ret_tek);

/* Wraps tek under kek, by the wrap the KEK is bound to. */
int token_tek_wrap(struct token *t, const struct token_kek *kek, const struct token_tek *tek,
                   struct hsm_blob *ret_blob);

/*
 * Unwraps with a storage KEK, with the full template of a TEK.  Errors: TEKD_EFORMAT (the token
 * says that the blob is not what this KEK made, or it has no length of a TEK of bits).
 */
int token_tek_unwrap(struct token *t, const struct token_kek *kek, const struct hsm_blob *blob,
                     unsigned bits, struct token_tek *ret_tek);

/* Destroys it; nothing to do for a zeroed struct.  The struct is zeroed also on failure. */
int token_tek_destroy(struct token *t, struct token_tek *tek);

/* ---------------------------------------------------------------- KEKs ------------- */

/*
 * The fingerprint of an AES KEK is the SHA-256 of the wrap, by the KEK's own mechanism, of this
 * AES-256 key: the SHA-256 of the ASCII text "tekd KEK fingerprint 1" (22 octets, no line end).
 * That of an RSA key is the SHA-256 of its SubjectPublicKeyInfo (DER).
 */
#define TOKEN_FINGERPRINT_TEXT "tekd KEK fingerprint 1"

/*
 * Finds the KEK of label and id, checks its attributes, computes its fingerprint and compares.
 * The handle in it is good for the life of the session: search once, keep it.
 * Errors: TEKD_ENOTFOUND (the token was searched: no such key, or another fingerprint),
 * TEKD_EEXIST (more than one), TEKD_EWEAK (attributes; token_reason() lists them), TEKD_EHSM.
 */
int token_kek_find(struct token *t, const struct hsm_kek *want, struct token_kek **ret_kek);
void token_kek_free(struct token_kek *k);
AUTO_DEFINE(token_kek)

/*
 * The same by label alone, for enrolment: reports the binding.  ret_report is filled as far as it
 * goes on failure as well; its text is one sentence for people.
 */
int token_kek_describe(struct token *t, const char *label, enum hsm_kek_use use, enum hsm_wrap wrap,
                       struct hsm_kek_report *ret_report);

/* ---------------------------------------------------------------- signing ---------- */

enum token_signer { TOKEN_SIGN_CHECKPOINT, TOKEN_SIGN_TLS, TOKEN_SIGN_ED25519 };

#define TOKEN_TEXT_MAX 1024 /* octets of a text that an Ed25519 key signs */

/*
 * The private key of this label, or of an RFC 7512 URI with object= and perhaps id=, which signs
 * inside the token.  The checkpoint key is EC P-256; the TLS key EC P-256 or P-384; an Ed25519 key
 * signs checkpoints beside the first.  The public half must be in the token too.  Signed is by
 * Cryptoki itself: libp11 (0.4.12) does not know Ed25519, and finds no key at all on a token that
 * has such a one.
 * Errors: TEKD_ENOTFOUND (no such key, or no CKM_EDDSA in the token), TEKD_EEXIST, TEKD_EWEAK,
 * TEKD_EHSM.
 */
struct token_signing;
int token_sign_key(struct token *t, enum token_signer which, const char *name,
                   struct token_signing **ret_key);
void token_signing_free(struct token_signing *k);
AUTO_DEFINE(token_signing)

/*
 * An EC key signs a digest, of which the curve's length counts, by CKM_ECDSA: DER.  An Ed25519 key
 * signs the text itself, by CKM_EDDSA: 64 octets.  Errors: TEKD_EINVAL (no digest, or a text over
 * TOKEN_TEXT_MAX), TEKD_EHSM.
 */
int token_signing_sign(struct token_signing *k, const void *data, size_t len,
                       struct hsm_signature *ret_signature);

/* Its public half, borrowed; a key of OpenSSL's own, which needs the token no longer. */
EVP_PKEY *token_signing_public(const struct token_signing *k);

/* ---------------------------------------------------------------- attacks ---------- */

/*
 * What somebody with the user's PIN could do.  Played on throw-away session keys that are made
 * with the very templates of the real ones; nothing stays behind.
 */
struct token_attacks {
    bool kek_made_to_decrypt; /* (1) CKA_DECRYPT set on a KEK */
    bool tek_unwrapped_plain; /* (2) a stored TEK unwrapped as a readable key */
    bool tek_wrapped_out;     /* (3) a TEK wrapped under a key of one's own */
    bool prevention_promised; /* the profile says that the token prevents (3) */
};

/*
 * Plays all three.  Errors: TEKD_EWEAK when (1) or (2) worked, or (3) although its prevention is
 * promised: do not serve.  ret_attacks is filled in that case too.  TEKD_EHSM when the token failed
 * at one of them: that refuses nothing.
 */
int token_attack_play(struct token *t, struct token_attacks *ret_attacks);

/*
 * Tries to write the CKA_LABEL it has anyway to the real KEK, in a read-write session of its own
 * that is closed again.  0: the token refused it (CKR_ACTION_PROHIBITED, CKR_ATTRIBUTE_READ_ONLY).
 * Errors: TEKD_EWEAK (it was written), TEKD_EHSM (any other answer proves nothing).
 */
int token_attack_rewrite(struct token *t, const struct token_kek *kek);

/* ---------------------------------------------------------------- vendors ---------- */

/* The row of this name, or NULL; its name; all names, in order, NULL behind the last. */
const struct token_profile *token_profile_find(const char *name);
const char *token_profile_name(size_t i);

/*
 * The mechanism code by which this token does a wrap: the first code of the profile whose result
 * on a throw-away key agrees with the RFC's own vector (for OAEP: that OpenSSL opens).  Remembered
 * after the first call; called by everything that wraps.  Errors: TEKD_ENOTFOUND (no code works),
 * TEKD_EHSM (the token failed: nothing is remembered).
 */
int token_profile_mechanism(struct token *t, enum hsm_wrap wrap, unsigned long *ret_mechanism);

/* "CKR_PIN_INCORRECT", "CKR_VENDOR_DEFINED+0x1d", "CKR_0x3e7" for what no standard knows. */
void token_ckr_text(unsigned long rv, char out[static TOKEN_CKR_MAX]);

/*
 * Logs that call failed, remembers it as the reason, and returns the code that fits: TEKD_EPIN for
 * what C_Login says about PINs, TEKD_ENOMEM for CKR_HOST_MEMORY, else TEKD_EHSM.
 */
int token_log(struct token *t, const char *call, unsigned long rv);

/* ---------------------------------------------------------------- making keys ------ */

enum token_kind {
    TOKEN_STORAGE_KEK = 1, /* AES-256, WRAP + UNWRAP with an UNWRAP_TEMPLATE */
    TOKEN_BSA_KEK,         /* AES-256, WRAP only */
    TOKEN_BSA_RSA,         /* a BSA's RSA public key, WRAP only */
    TOKEN_SIGNING_KEY,     /* EC P-256 pair, SIGN only: checkpoint key, TLS key */
    TOKEN_SIGNING_ED25519, /* Ed25519 pair, SIGN only: second checkpoint key */
};
/* "storage-kek" … */
const char *token_key_kind_name(enum token_kind kind);

/*
 * Initialises the first token of the module that was never initialised, with this label, and sets
 * the user PIN; never touches another one.  For t: token_new() with a URI that names the label.
 * Errors: TEKD_EEXIST (a token of this label is there), TEKD_ENOTFOUND (none to initialise),
 * TEKD_EHSM (also when a slot cannot be read: the token may be in it).
 */
struct token_pins {
    const struct secret *so;
    const struct secret *user;
};
int token_make_token(struct token *t, const char *label, const struct token_pins *pins);
/* Whether it could be made, by the same errors; nothing is changed. */
int token_may_be_made(struct token *t);

/* What a new key is called; id_len 0: 16 random octets. */
struct token_key_name {
    enum token_kind kind;
    const char *label;
    uint8_t id[HSM_ID_MAX];
    size_t id_len;
    enum hsm_wrap wrap; /* of a KEK: its only mechanism */
};

/*
 * Makes the key inside the token as a token object (TOKEN_READ_WRITE) and reads it back against
 * the rules.  Errors: TEKD_EEXIST (the label is taken), TEKD_EWEAK (the token did not do as told;
 * the key was destroyed again), TEKD_ENOTFOUND (no mechanism).  Not for TOKEN_BSA_RSA.
 */
int token_make_key(struct token *t, const struct token_key_name *name);

/* The KEK from its clear value (32 octets); reads as imported for ever. */
int token_make_import(struct token *t, const struct token_key_name *name,
                      const struct secret *value);

/*
 * A KEK handed out: made in the token as an extractable session key, wrapped to the receiver's RSA
 * key (OAEP with SHA-1, the one all tokens do) and to a one-time key, unwrapped as the token
 * object; both session keys destroyed.  Its clear value never leaves the token but in ret_blob.
 */
int token_make_handed_out(struct token *t, const struct token_key_name *name, EVP_PKEY *receiver,
                          struct hsm_blob *ret_blob);

/* A BSA's RSA public key (2048..4096 bits) as the KEK. */
int token_make_public(struct token *t, const struct token_key_name *name, EVP_PKEY *key);

/* ---------------------------------------------------------------- looking ---------- */

struct token_findings {
    size_t n;
    char text[TOKEN_FINDINGS_MAX][TOKEN_FINDING_MAX]; /* "CKA_DECRYPT is true, must be false" */
};

struct token_key {
    enum token_kind kind; /* as its class and use flags say; 0: none of ours */
    const char *type;     /* "AES", "EC", "Edwards", "RSA", "other"; static */
    char label[HSM_LABEL_MAX + 1];
    uint8_t id[HSM_ID_MAX];
    size_t id_len;
    enum hsm_wrap wrap; /* of a KEK: its one mechanism; 0: none of ours */
    bool imported;
    char check_value[7];            /* of AES keys; "" else */
    struct token_findings findings; /* against the rules of kind */
};

/*
 * The one key of this kind's class and label.  Weak attributes are findings here, no error.
 * Errors: TEKD_ENOTFOUND, TEKD_EEXIST (more than one), TEKD_EHSM.
 */
int token_key_find(struct token *t, enum token_kind kind, const char *label,
                   struct token_key *ret_key);

/*
 * Every key of the token that ours could be (a pair once), secret keys first; stops when visit
 * returns other than 0 and returns that.  Errors: TEKD_ETOOBIG (more than TOKEN_OBJECTS_MAX).
 */
int token_key_each(struct token *t, int (*visit)(void *arg, const struct token_key *key),
                   void *arg);

/*
 * The public key of this label as a key of OpenSSL's own, which needs the token no longer.
 * Errors: TEKD_ENOTFOUND, TEKD_EEXIST.
 */
int token_key_public(struct token *t, const char *label, EVP_PKEY **ret_key);

#endif
