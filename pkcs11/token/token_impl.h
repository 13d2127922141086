/*
 * What the files of this folder share: the open token, attribute templates, the rules of the key
 * kinds.  Cryptoki's types end here.
 */
#ifndef TEKD_PKCS11_TOKEN_IMPL_H
#define TEKD_PKCS11_TOKEN_IMPL_H

#include <libp11.h>
#include <p11-kit/pkcs11.h>
#include <p11-kit/uri.h>

#include "tekd/err.h"
#include "token/token.h"

#define TOKEN_AES_MAX 32 /* octets of an AES-256 key */

/* What a wrap turned out to be called on this token. */
struct token_mechanism {
    bool asked;
    bool found;
    CK_MECHANISM_TYPE code;
};

struct token {
    /* As given to token_new(). */
    char *module;
    char *uri_text;
    P11KitUri *uri;
    const struct token_profile *profile;
    enum token_access access;

    /* Since token_open(). */
    void *dl;
    CK_FUNCTION_LIST *f;
    PKCS11_CTX *ctx;
    CK_SLOT_ID slot_id;
    CK_TOKEN_INFO raw;
    CK_SESSION_HANDLE session; /* 0 is no session (CK_INVALID_HANDLE) */
    bool logged_in;

    struct token_index *index; /* NULL: none was read, or it was forgotten */
    struct token_mechanism mechanism[HSM_WRAP_OAEP_SHA1 + 1];
    EVP_PKEY *probe_key; /* what OAEP is tried with; NULL: it was not tried */
    char reason[TOKEN_REASON_MAX];
};

/* Logs a failure in our own words, remembers it as the reason, returns code. */
int token_say(struct token *t, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Whether rv says that the token, its link or the session failed: then nothing follows for what was
 * asked, neither that there is no such mechanism nor that it was refused.
 */
bool token_has_failed(CK_RV rv);

/* The steps of token_open(), for who makes a token. */
int token_load(struct token *t);
struct token_list {
    CK_TOKEN_INFO info[TOKEN_SLOTS_MAX];
    CK_SLOT_ID id[TOKEN_SLOTS_MAX];
    size_t n;
    size_t failed; /* tokens that are there and did not say who they are; not among the n */
};
int token_slots(struct token *t, struct token_list *ret_list);
void token_unload(struct token *t);

/* Destroys a session object if there is one; a failure is logged. */
int token_object_destroy(struct token *t, CK_OBJECT_HANDLE object);

/* ---- templates and attributes (token_attr.c) ---- */

/* More than the longest template of ours, which is asserted. */
#define TOKEN_TEMPLATE_MAX 32

/* Values are borrowed, but for booleans and numbers, which are inside. */
struct token_template {
    CK_ATTRIBUTE a[TOKEN_TEMPLATE_MAX];
    CK_ULONG number[TOKEN_TEMPLATE_MAX];
    CK_BBOOL flag[TOKEN_TEMPLATE_MAX];
    CK_ULONG n;
};

void token_attr_add(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, const void *value,
                    size_t len);
void token_attr_add_bool(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, bool value);
void token_attr_add_number(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, CK_ULONG value);
/* Replaces the value of an attribute that the template has. */
void token_attr_set_bool(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, bool value);

/*
 * Reads one attribute of fixed size.  Errors: TEKD_ENOTFOUND (the token does not know it for this
 * object; not logged), TEKD_EHSM.
 */
int token_attr_bool(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type, bool *ret_value);
int token_attr_number(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type,
                      CK_ULONG *ret_value);

/* One of variable size, at most max octets.  Errors: as above, TEKD_ETOOBIG. */
struct token_octets {
    void *data;
    size_t max;
};
int token_attr_octets(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type,
                      struct token_octets to, size_t *ret_len);

/* Every object that agrees with the template; TEKD_ETOOBIG when more than max do. */
int token_attr_find(struct token *t, const struct token_template *tpl, CK_OBJECT_HANDLE *objects,
                    size_t max, size_t *ret_n);

/* ---- rules of the key kinds (token_rules.c) ---- */

/* The columns of the table of rules; a key pair is two of them. */
enum token_rule_set {
    TOKEN_RULES_TEK,
    TOKEN_RULES_STORAGE_KEK,
    TOKEN_RULES_BSA_KEK,
    TOKEN_RULES_BSA_RSA,
    TOKEN_RULES_PRIVATE, /* of a signing key */
    TOKEN_RULES_PUBLIC,  /* its other half */
    TOKEN_RULES_N,
};

enum token_rule_set token_rules_of(enum token_kind kind);

/* Appends the flags of the table, CKA_MODIFIABLE last. */
void token_rules_add(const struct token *t, enum token_rule_set set, struct token_template *tpl);

/* The template that a storage KEK enforces on what it unwraps. */
void token_rules_unwrap_template(const struct token *t, struct token_template *tpl);

/*
 * Class, type, flags, ALLOWED_MECHANISMS (*mechanism, which must outlive the template) and, for
 * a storage KEK, UNWRAP_TEMPLATE (*inner likewise): all of an AES KEK but its names and length.
 */
struct token_kek_parts {
    CK_MECHANISM_TYPE mechanism;
    struct token_template inner;
};
void token_rules_kek(const struct token *t, enum token_rule_set set, struct token_kek_parts *parts,
                     struct token_template *tpl);

/*
 * Reads the object back and lists what is not as the table says.  mechanism: the one a KEK wraps
 * by, or the one a signing key may sign by if the token can say so; 0: any.
 */
int token_rules_check(struct token *t, CK_OBJECT_HANDLE o, enum token_rule_set set,
                      CK_MECHANISM_TYPE mechanism, struct token_findings *ret_findings);

/* The findings in one line, cut at the size of a reason. */
void token_rules_text(const struct token_findings *f, char out[static TOKEN_REASON_MAX]);

/* ---- vendors (token_profile.c) ---- */

#define TOKEN_CODES_MAX 4

struct token_profile {
    const char *name;
    CK_MECHANISM_TYPE aes_kw[TOKEN_CODES_MAX]; /* tried in this order, 0 behind the last */
    CK_MECHANISM_TYPE aes_kwp[TOKEN_CODES_MAX];
    CK_RV bad_blob;       /* what C_UnwrapKey says of a damaged blob, if not a code for that */
    bool unwrap_template; /* a KEK's CKA_UNWRAP_TEMPLATE is honoured */
    bool trusted;         /* CKA_TRUSTED can be on a private KEK: CKA_WRAP_WITH_TRUSTED is used */
};

/* The mechanism with its parameter, for C_WrapKey. */
struct token_wrap_mechanism {
    CK_MECHANISM mechanism;
    CK_RSA_PKCS_OAEP_PARAMS oaep;
};
void token_profile_wrap(enum hsm_wrap wrap, CK_MECHANISM_TYPE code,
                        struct token_wrap_mechanism *ret_mechanism);

/* ---- keys ---- */

struct token_kek {
    CK_OBJECT_HANDLE object;
    enum hsm_wrap wrap;
    enum hsm_kek_use use;
    struct token_wrap_mechanism how;
    char label[HSM_LABEL_MAX + 1];
};

/* C_WrapKey into a blob; rv is not logged: attacks expect it to fail. */
CK_RV token_tek_wrap_raw(struct token *t, const struct token_wrap_mechanism *how,
                         CK_OBJECT_HANDLE kek, CK_OBJECT_HANDLE key, struct hsm_blob *ret_blob);

/* The template of a TEK of len octets (0: without CKA_VALUE_LEN, for unwrapping). */
void token_tek_template(const struct token *t, size_t len, struct token_template *tpl);

/* A readable AES session key of a published value, for known answers only. */
struct token_constant {
    const uint8_t *value;
    size_t len;
};
int token_make_constant(struct token *t, const struct token_constant *c, CK_OBJECT_HANDLE *ret_o);

/* The one object of this class and label (and id, if id_len is not 0). */
struct token_query {
    CK_OBJECT_CLASS class;
    const char *label;
    const uint8_t *id;
    size_t id_len;
};
int token_key_one(struct token *t, const struct token_query *q, CK_OBJECT_HANDLE *ret_o);

/*
 * The same from what was read of all keys some seconds ago at most, and nothing is logged.  Other
 * errors than 0 mean: search.  So does a key that turns out not to be the wanted one.
 */
int token_index_one(struct token *t, const struct token_query *q, CK_OBJECT_HANDLE *ret_o);
void token_index_forget(struct token *t);
/* A search found what it did not have. */
void token_index_is_old(struct token *t);

/* Class of the object that carries a kind's label. */
CK_OBJECT_CLASS token_key_class(enum token_kind kind);

/* The key as token_key_find() reports it; set is what it is checked as. */
int token_key_read(struct token *t, CK_OBJECT_HANDLE o, enum token_kind kind,
                   struct token_key *ret_key);

/* Whether the token has CKM_EDDSA, for this key.  Errors: TEKD_ENOTFOUND (said in words). */
int token_sign_has_eddsa(struct token *t, const char *label);

/*
 * An ECDSA signature as tokens give it (PKCS#11 2.3.1: r || s, half octets each, at most 48) in DER
 * (RFC 3279, 2.2.3).  Errors: TEKD_ECRYPTO (r or s is zero), TEKD_ENOMEM.
 */
int token_ecdsa_der(const uint8_t *raw, size_t half, struct hsm_signature *ret_signature);

/* The public key of this object; NULL: it cannot be read. */
int token_key_public_of(struct token *t, CK_OBJECT_HANDLE o, EVP_PKEY **ret_key);

/* What is wrong with an RSA public key that keys are to be wrapped to, in words; NULL: nothing. */
const char *token_rsa_fault(EVP_PKEY *key);

/* Creates an object of an RSA public key with these names and flags. */
int token_make_rsa_object(struct token *t, EVP_PKEY *key, struct token_template *tpl,
                          CK_OBJECT_HANDLE *ret_o);

#endif
