/*
 * One PKCS#11 session for the raw loop: the module, the login, the KEKs by their labels, and the
 * operation that is measured: generate a TEK, wrap it twice, destroy it.  Nothing of the product's
 * HSM code is used, so that a fault in that would show as a difference.
 *
 * Thread rule: one process, one thread; open after fork().
 */
#ifndef BENCH_CRYPTOKI_H
#define BENCH_CRYPTOKI_H

#include <stdbool.h>

#include <p11-kit/pkcs11.h>

#include "tekd/auto.h"

/* More slots or keys of one label than this are not looked at. */
#define CRYPTOKI_SLOTS_MAX 64

struct cryptoki {
    void *library;
    CK_FUNCTION_LIST *fn;
    CK_SESSION_HANDLE session;
};

/*
 * Loads the module, finds the token by its label, and logs the user in with the PIN of the file.
 * A zeroed struct may be closed.  All functions: 0, or -1 with the call and its code on stderr.
 */
int cryptoki_open(struct cryptoki *c, const char *module, const char *token, const char *pin_file,
                  bool read_write);
void cryptoki_close(struct cryptoki *c);

/* The secret key with this label; *ret_n is how many there are, *ret_key the first. */
int cryptoki_find(struct cryptoki *c, const char *label, CK_OBJECT_HANDLE *ret_key,
                  CK_ULONG *ret_n);

/*
 * Makes a KEK as token object, AES-256, for RFC 3394 alone; a storage KEK also unwraps, under a
 * template that lets nothing but a TEK come out.
 */
int cryptoki_make_kek(struct cryptoki *c, const char *label, bool storage);

/* Generates an AES-128 TEK as session object, wraps it under both KEKs, destroys it. */
int cryptoki_tek_cycle(struct cryptoki *c, CK_OBJECT_HANDLE storage_kek, CK_OBJECT_HANDLE bsa_kek);

#endif
