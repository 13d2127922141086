/*
 * A SoftHSM token for one test: in a folder of its own, with the token library on it and, beside
 * it, Cryptoki without the library, so that what the library says can be checked.
 */
#ifndef TEST_LAB_H
#define TEST_LAB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <p11-kit/pkcs11.h>

#include "tekd/err.h"
#include "token/token.h"

#define LAB_PIN    "lab-user-pin-1"
#define LAB_SO_PIN "lab-so-pin-1"
#define LAB_TOKEN  "lab"
#define LAB_URI    "pkcs11:token=lab"

struct lab {
    char dir[64];
    struct token *token; /* open, read-write, logged in */
    void *dl;
    CK_FUNCTION_LIST *f; /* the same module, and a session of the test's own */
    CK_SESSION_HANDLE raw;
};

/* cmocka's set-up and tear-down: a token "lab", open; the folder and the token go with the test. */
int lab_setup(void **state);
int lab_teardown(void **state);
/* The folder and SOFTHSM2_CONF only. */
int lab_setup_empty(void **state);

/* One more token in the folder, made and closed again. */
void lab_make_token(const char *label);

/* Opens l->token (module NULL: SoftHSM; profile NULL: softhsm) and logs in. */
void lab_open(struct lab *l, const char *module, const char *profile, enum token_access access);
/* The first half of it: the token of LAB_TOKEN, not opened. */
struct token *lab_new(const char *module, const char *uri, const char *profile);
void lab_close(struct lab *l);

/* From a string; the caller frees it. */
struct secret *lab_secret(const char *text);

/* ---- keys as somebody else might make them ---- */

struct lab_flag {
    CK_ATTRIBUTE_TYPE type;
    bool value;
};

struct lab_kek {
    const char *label;
    bool storage;                    /* UNWRAP, and an UNWRAP_TEMPLATE */
    CK_ULONG octets;                 /* 0: 32 */
    struct lab_flag flags[4];        /* set otherwise than they should be; type 0 ends them */
    CK_ATTRIBUTE_TYPE left_out;      /* not given at all: the token's default */
    CK_ATTRIBUTE_TYPE inner_out;     /* left out of the UNWRAP_TEMPLATE */
    CK_MECHANISM_TYPE mechanisms[2]; /* {0}: CKM_AES_KEY_WRAP alone */
};

/* Generates it as a token object: right but for what spec says. */
CK_OBJECT_HANDLE lab_make_kek(struct lab *l, const struct lab_kek *spec);

/* The modulus of key with another public exponent; the caller frees it. */
EVP_PKEY *lab_rsa_of_exponent(EVP_PKEY *key, unsigned long exponent);
/* An RSA public key as a BSA's KEK, for OAEP with SHA-1: a token object, right but for the key. */
CK_OBJECT_HANDLE lab_make_rsa(struct lab *l, const char *label, EVP_PKEY *key);

/* The only object of this class and label. */
CK_OBJECT_HANDLE lab_object(struct lab *l, CK_OBJECT_CLASS class, const char *label);
/* How many objects of this label there are, of all classes. */
size_t lab_count(struct lab *l, const char *label);

/* Makes a good key by the library. */
void lab_make_key(struct lab *l, enum token_kind kind, const char *label);
/* The KEK of this label, bound: good ones only. */
struct token_kek *lab_kek(struct lab *l, const char *label, enum hsm_kek_use use);

/* Asserts that the last reason of the token has this text in it. */
void lab_assert_reason(const struct token *t, const char *text);

/* ---- the shim: SoftHSM, but for what SHIM_MODE changes (shim.c) ---- */

/* Opens the token of the folder through it, not logged in. */
struct token *lab_shim(const char *mode, const char *profile);
/* Closes what is open and opens it again through the shim, logged in. */
void lab_reopen_shimmed(struct lab *l, const char *mode, const char *profile,
                        enum token_access access);
/* C_Login calls since the shim was loaded; while it is loaded. */
unsigned lab_shim_logins(void);

#endif
