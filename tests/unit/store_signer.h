/*
 * A signer for tests of the store: a P-256 key in this process, and others if a test wants them,
 * strict as the real one is (it checks its own signatures on the last note and the range, and never
 * signs what contradicts a note it made), whose reply a test can hold back or turn into an error.
 */
#ifndef TEST_STORE_SIGNER_H
#define TEST_STORE_SIGNER_H

#include <openssl/evp.h>

#include "tekd/store.h"

struct store_test_signer;

struct store_test_signer *store_signer_new(void);
/* With the key of this file, which is made if there is none. */
struct store_test_signer *store_signer_load(const char *path);
void store_signer_free(struct store_test_signer *t);

/* From now on an Ed25519 key, made at the first call, signs too, as after a change of the setting;
 * false: it does no more.  Before store_signer_of(). */
void store_signer_second(struct store_test_signer *t, bool on);

/* A new key of this kind, MAIN or ED25519, is made, and the one that was it signs as the key before
 * it.  Before store_signer_of(), as the two that follow. */
void store_signer_replace(struct store_test_signer *t, enum store_key kind);
/* Whether this key, which is there, signs. */
void store_signer_set(struct store_test_signer *t, enum store_key which, bool on);
/* This is that key from now on; a reference is taken. */
void store_signer_give(struct store_test_signer *t, enum store_key which, EVP_PKEY *key);

/* What store_options want. */
struct store_signer store_signer_of(struct store_test_signer *t);
/* NULL: there was none yet. */
EVP_PKEY *store_signer_key(struct store_test_signer *t, enum store_key which);
/* Whether a note has a line of the main key, or of one that was it. */
int store_signer_verify(const struct store_test_signer *t, const struct note *n);

/* Forgets what it signed, as a worker that was restarted. */
void store_signer_restart(struct store_test_signer *t);

/* From now on sign() blocks before it answers; release lets all go on. */
void store_signer_hold(struct store_test_signer *t);
void store_signer_release(struct store_test_signer *t);
/* Lets those go on that have entered, and holds the next ones. */
void store_signer_pass(struct store_test_signer *t);
/* Before the store opens: sign() takes so long; for measurements. */
void store_signer_delay(struct store_test_signer *t, unsigned us);
/* From now on sign() gives this error; 0: it works. */
void store_signer_fail(struct store_test_signer *t, int error);
/* public_key() gives this error; 0: it works. */
void store_signer_hide_key(struct store_test_signer *t, int error);
/* The next reply is damaged: a flipped bit of the root under a good signature, or of the signature.
 */
enum store_signer_damage {
    DAMAGE_NONE,
    DAMAGE_ROOT,
    DAMAGE_SIGNATURE,
    DAMAGE_SECOND,         /* the second line does not verify ... */
    DAMAGE_SECOND_MISSING, /* ... or is not there ... */
    DAMAGE_SECOND_TWICE,   /* ... or twice ... */
    DAMAGE_IDS_SWAPPED,    /* ... or the two key ids are exchanged */
};
void store_signer_damage(struct store_test_signer *t, enum store_signer_damage damage);

/* Blocks until sign() was entered n times in all. */
void store_signer_wait_entered(struct store_test_signer *t, unsigned n);
unsigned store_signer_entered(struct store_test_signer *t);
/* How often a request contradicted what was signed before. */
unsigned store_signer_contradictions(struct store_test_signer *t);
/* The largest number of leaves of one request. */
size_t store_signer_most_leaves(struct store_test_signer *t);

#endif
