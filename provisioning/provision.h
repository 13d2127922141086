/*
 * tek-provision: what its files share.  A command is a row of the table in main.c; it takes the
 * parsed options and returns 0 or an error of err.h, having said on stderr what failed.
 *
 * Thread rule: one thread.
 */
#ifndef TEKD_PROVISIONING_PROVISION_H
#define TEKD_PROVISIONING_PROVISION_H

#include <jansson.h>
#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "tekd/enc.h"
#include "tekd/secret.h"
#include "token/token.h"

/* ---------------------------------------------------------------- options ---------- */

enum provision_option {
    OPT_MODULE,
    OPT_TOKEN,
    OPT_PIN_FILE,
    OPT_PROFILE,
    OPT_ENV,
    OPT_LABEL,
    OPT_SO_PIN_FILE,
    OPT_GENERATE_PINS,
    OPT_ID,
    OPT_WRAP,
    OPT_TYPE,
    OPT_USE,
    OPT_EXPORT_DEMO,
    OPT_RECEIVER,
    OPT_OUT,
    OPT_FROM,
    OPT_DIR,
    OPT_NAME,
    OPT_HOST,
    OPT_TOKEN_KEY,
    OPT_CSR,
    OPT_JSON,
    OPT_HELP,
    OPT_N,
};
#define OPT(o) (1U << (o))

/* Variables for a module, names for a certificate: more is a mistake. */
#define OPTIONS_REPEAT_MAX 16

struct options {
    const char *value[OPT_N]; /* NULL: not given; "" for one without argument */
    const char *env[OPTIONS_REPEAT_MAX];
    size_t n_env;
    const char *host[OPTIONS_REPEAT_MAX];
    size_t n_host;
};

struct command {
    const char *words[2]; /* {"kek", "storage"}; the second may be NULL */
    const char *summary;
    unsigned required; /* OPT() bits; OPT_JSON and OPT_HELP are for all */
    unsigned allowed;  /* besides those */
    int (*run)(const struct options *o);
};

/*
 * Reads argv behind the command's words.  0, or TEKD_EINVAL after a line on stderr.  With
 * value[OPT_HELP] nothing else was checked.
 */
int options_read(const struct command *c, int argc, char **argv, struct options *ret_options);

/* Prints the command's options and their meaning. */
void options_help(const struct command *c, FILE *out);

/*
 * Says that it is done: the document with --json, else the sentence.  Takes doc, and fails if it
 * is NULL (TEKD_ENOMEM).
 */
int options_done(const struct options *o, json_t *doc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Says on stderr what failed and returns r. */
int options_fail(int r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---------------------------------------------------------------- files ------------ */

/*
 * Writes a new file and makes it durable; under a name of its own first, so that no half file is
 * ever seen.  With replace an older one is replaced.
 * Errors: TEKD_EEXIST, TEKD_EIO, said on stderr.
 */
struct file_rule {
    unsigned mode;
    bool replace;
};
int files_write(const char *path, struct file_rule rule, const void *data, size_t len);

/*
 * The same in two steps, for what exists once only: whether the file can be made is known before
 * there is what goes into it.  path is borrowed.  Free takes away what was not written.
 */
struct files_draft;
int files_draft_new(const char *path, struct file_rule rule, struct files_draft **ret_draft);
int files_draft_write(struct files_draft *d, const void *data, size_t len);
/* Octets as one line of hex. */
int files_draft_write_hex(struct files_draft *d, const struct secret *octets);
void files_draft_free(struct files_draft *d);
AUTO_DEFINE(files_draft)

/* The other way: a 0600 file of one line of hex.  Errors: of secret_read_file(), TEKD_EFORMAT. */
int files_read_hex(const char *path, struct secret **ret_octets);

bool files_exist(const char *path);

/* A PEM public key (SubjectPublicKeyInfo).  Errors: TEKD_ENOTFOUND, TEKD_EFORMAT. */
int files_read_public(const char *path, EVP_PKEY **ret_key);

/* ---------------------------------------------------------------- session ---------- */

/* Opens the token of the options and logs in.  Whatever fails is said on stderr. */
int session_open(const struct options *o, enum token_access access, struct token **ret_token);

/* The same in two steps, for a token that is not there yet; uri is used instead of --token. */
int session_new(const struct options *o, const char *uri, struct token **ret_token);
int session_login(const struct options *o, struct token *t);

/* The names of a new key from --label, --id, --wrap. */
int session_names(const struct options *o, enum token_kind kind, struct token_key_name *ret_name);

/* Says on stderr what the token said, and returns r. */
int session_fail(const struct token *t, int r);

/*
 * Whether a key of this kind and label is there already.  0: no.  1: yes, and it is as it must be.
 * TEKD_EWEAK: yes, with attributes that are refused (said on stderr).
 */
int session_has(struct token *t, const struct token_key_name *name);

/* The key as a JSON object: what list, kek and key print. */
json_t *session_key_json(struct token *t, const struct token_key *k);

/* The fingerprint by which a KEK is bound, in hex; false if it is no KEK, or one we would refuse.
 */
bool session_fingerprint(struct token *t, const struct token_key *k,
                         char ret_hex[static ENC_HEX_LEN(32) + 1]);

/* Reads the key of this name back and says that it is there; made: whether just now. */
enum session_outcome { SESSION_MADE, SESSION_WAS_THERE };
int session_report(const struct options *o, struct token *t, const struct token_key_name *name,
                   enum session_outcome outcome);

/* ---------------------------------------------------------------- PKI -------------- */

/*
 * The development PKI in a folder: ca.crt, ca.key, ca.crl, and NAME.crt, NAME.key.  EC P-256;
 * the CA signs for ten years, certificates hold two years, the CRL 30 days.
 */
struct pki;
/* Reads the CA of the folder.  Errors: TEKD_ENOTFOUND (there is none), TEKD_EFORMAT. */
int pki_open(const char *dir, struct pki **ret_pki);
/* Makes a new one with an empty CRL; the folder is made if need be. */
int pki_new(const char *dir, const char *common_name, struct pki **ret_pki);
void pki_free(struct pki *p);
AUTO_DEFINE(pki)

/*
 * A certificate for clientAuth and serverAuth with the names localhost, 127.0.0.1 and hosts.
 * public_key NULL: a new key is made and written to NAME.key; else the certificate is for it.
 */
struct pki_subject {
    const char *name;
    const char *const *hosts;
    size_t n_hosts;
    EVP_PKEY *public_key;
};
int pki_issue(struct pki *p, const struct pki_subject *s);

/*
 * Whether NAME.crt is there: 0 no; 1 yes, signed by this CA, in its time and for the key of
 * NAME.key (public_key, if that is not NULL).  TEKD_EEXIST: yes, but not so.
 */
int pki_has(struct pki *p, const struct pki_subject *s);

/* Adds a subjectAltName, as OpenSSL reads a list of them, to b: an IP address or a DNS name.
 * Errors: TEKD_EINVAL (neither; said on stderr). */
int pki_put_host(struct buf *b, const char *host);

/* Puts NAME.crt on the CRL (once), or with name NULL only makes the CRL anew. */
int pki_revoke(struct pki *p, const char *name);

/* SHA-256 of the DER of NAME.crt (or of ca.crt), in hex: what a BSA is enrolled with. */
int pki_digest(const char *dir, const char *name, char ret_hex[static 65]);

/* ---------------------------------------------------------------- CSR -------------- */

/* Whom a certificate is asked for: the common name and, for the certificate's subjectAltName,
 * hosts. */
struct csr_subject {
    const char *name;
    const char *const *hosts;
    size_t n_hosts;
};

/* Whether the hosts can be written into one.  Errors: TEKD_EINVAL, said on stderr. */
int csr_check(const struct csr_subject *s);

/*
 * Writes a certificate request (RFC 2986, PEM) for the TLS key of this label, signed by it in the
 * token with SHA-256.  Whatever fails is said on stderr.
 */
int csr_write(struct token *t, const char *label, const struct csr_subject *s, const char *path);

/* ---------------------------------------------------------------- commands --------- */

int cmd_token(const struct options *o);
int cmd_kek_storage(const struct options *o);
int cmd_kek_bsa(const struct options *o);
int cmd_kek_import(const struct options *o);
int cmd_kek_public(const struct options *o);
int cmd_key(const struct options *o);
int cmd_list(const struct options *o);
int cmd_pki_ca(const struct options *o);
int cmd_pki_cert(const struct options *o);
int cmd_pki_revoke(const struct options *o);
int cmd_pki_crl(const struct options *o);

#endif
