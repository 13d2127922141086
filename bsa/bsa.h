/*
 * What the files of tek-bsa share.  check.c is the protocol, and the file to read for how a BSA
 * treats what a BSM sends; unwrap.c is the cryptography; the rest is a command-line program.
 *
 * Thread rule: one thread, but for late Confirmations (late.c).
 */
#ifndef BSA_H
#define BSA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

#include "cp3.h"
#include "tekd/buf.h"
#include "tekd/secret.h"

AUTO_DEFINE(cp3_reader)

/* Exit codes. */
enum bsa_exit {
    BSA_DONE = 0,
    BSA_REFUSED = 1, /* the server refused, or what it sent was not accepted, or a local fault */
    BSA_USAGE = 2,   /* the command line */
    BSA_UNREACHABLE = 3, /* no server there, or it has no HSM at the moment: try again */
};

/* ---- main.c, options.c ----------------------------------------------------------------------- */

struct option_row {
    const char *name;     /* without the dashes */
    const char *argument; /* what the usage calls it; NULL: a switch */
    bool required;
    const char *standard; /* default, may be NULL */
    const char *meaning;
    size_t offset; /* of a const char * in the command's struct; of a bool for a switch */
};

struct option_table {
    const char *command; /* "request" */
    const char *summary;
    const struct option_row *rows;
    size_t n;
};

/*
 * Reads the arguments behind the command's name into *values, which is all zero before; texts are
 * borrowed from argv.  --help prints the usage.  Returns 0, or TEKD_EINVAL (said on stderr), or
 * TEKD_ECLOSED (help was asked for and given).
 */
#define OPTIONS_MAX 32
int options_parse(const struct option_table *table, int argc, char **argv, void *values);

/* A number without sign; TEKD_EINVAL (said on stderr) if it is none or out of range. */
int options_number(const char *name, const char *text, unsigned min, unsigned max,
                   unsigned *ret_number);

/* "tek-bsa: ..." on stderr, in one piece.  From any thread. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- stop.c ---------------------------------------------------------------------------------- */

/* Whether the program was told to end, by SIGTERM or SIGINT. */
struct stop;

/*
 * From here on the two signals do nothing by themselves, in this thread and in those it starts.
 * Errors: TEKD_ENOMEM, TEKD_EIO (said on stderr).
 */
int stop_new(struct stop **ret_stop);
void stop_free(struct stop *s); /* NULL is fine */
AUTO_DEFINE(stop)

/* Readable once it was told; not to be read.  Borrowed. */
int stop_fd(const struct stop *s);
/* Waits for it, at most so long; 0 only looks.  From any thread. */
bool stop_wait(const struct stop *s, int ms);

/* ---- https.c --------------------------------------------------------------------------------- */

/* A CP-3 message is smaller; what is longer is not one. */
#define HTTPS_BODY_MAX CP3_BODY_MAX
#define HTTPS_TEXT_MAX 256

struct https_request {
    const char *url;          /* https://... */
    const char *ca;           /* PEM: who may have signed the server's certificate; nobody else */
    const char *cert;         /* PEM: the BSA's certificate and chain */
    const char *key;          /* PEM: its key */
    unsigned timeout_s;       /* for everything together */
    const struct stop *stop;  /* gives up when told so, within a second; NULL: never */
    const char *content_type; /* these three of a POST only */
    const uint8_t *body;
    size_t body_len;
};

struct https_answer {
    long status;
    char content_type[HTTPS_TEXT_MAX];
    char reason[HTTPS_TEXT_MAX]; /* CP3-Reason; "" without */
    struct buf *body;            /* made by the caller, with HTTPS_BODY_MAX */
};

/*
 * One POST or GET over TLS 1.2 or newer: certificate, chain and name of the server are checked,
 * redirects are not followed, proxy settings of the environment are ignored.  ret_why says what
 * failed.
 * Errors: TEKD_EIO (not reachable, or not in time), TEKD_EDENIED (one side's certificate was
 * refused by the other), TEKD_ETOOBIG, TEKD_EINVAL (a file of ours cannot be used), TEKD_ENOMEM,
 * TEKD_ECLOSED (told to stop).
 */
#define HTTPS_WHY_MAX 512
int https_post(const struct https_request *request, struct https_answer *ret_answer,
               char ret_why[static HTTPS_WHY_MAX]);
int https_get(const struct https_request *request, struct https_answer *ret_answer,
              char ret_why[static HTTPS_WHY_MAX]);

/* ---- unwrap.c -------------------------------------------------------------------------------- */

/* The largest wrapped key that is looked at. */
#define UNWRAP_MAX SECRET_MAX

/*
 * Reads a KEK of 16, 24 or 32 octets in hexadecimal from a file that only its owner may read.
 * Errors: those of secret_read_file(); TEKD_EFORMAT.
 */
int unwrap_read_kek(const char *path, struct secret **ret_kek);

/*
 * Unwraps by RFC 3394 (aes-kw) or RFC 5649 (aes-kwp).  The caller owns the key: secret_free().
 * Errors: TEKD_EFORMAT (length), TEKD_EDENIED (it was not wrapped under this KEK, or altered),
 * TEKD_EINVAL (another wrap, or no KEK for AES), TEKD_ECRYPTO, TEKD_ENOMEM.
 */
int unwrap_key(enum cp3_wrap wrap, const struct secret *kek, const uint8_t *data, size_t len,
               struct secret **ret_key);

/* Length of Data for a key of so many octets; 0 where the wrap does not fix it. */
size_t unwrap_data_len(enum cp3_wrap wrap, size_t key_len);

/*
 * The first 3 octets of a zero block encrypted by the key, in hexadecimal: lets two people compare
 * keys over the telephone.  Errors: TEKD_EINVAL (no key for AES), TEKD_ECRYPTO.
 */
#define UNWRAP_CHECK_LEN 6
int unwrap_check_value(const struct secret *key, char ret_hex[static UNWRAP_CHECK_LEN + 1]);

/* ---- journal.c ------------------------------------------------------------------------------- */

/*
 * The MessageIDs of deliveries that were taken, each with what it brought.  What is older than the
 * newest JOURNAL_MAX is forgotten: a BSM repeats a MessageID within seven days, and that is one new
 * delivery every five seconds.  They take 9 MB, of which is used what is needed.
 */
#define JOURNAL_MAX 131072
/* A line is shorter: a MessageID and a ContentID with every octet escaped, and 200 octets. */
#define JOURNAL_LINE_MAX 4096
struct journal;

/*
 * path (borrowed) is made if it is not there, and locked: one program has it.  NULL: the journal
 * lasts as long as the process.  Errors, said on stderr: TEKD_EIO, TEKD_EFORMAT, TEKD_ENOMEM.
 */
int journal_open(const char *path, struct journal **ret_journal);
void journal_free(struct journal *j); /* NULL is fine */
AUTO_DEFINE(journal)

/* Whether this MessageID was taken, and if so with the same ContentID and Data. */
enum journal_known { JOURNAL_NEW, JOURNAL_SAME, JOURNAL_OTHER };
enum journal_known journal_find(struct journal *j, const struct cp3_message *m);

/*
 * Remembers a delivery; with a file it is on the disk when this returns.  Errors, after which it is
 * not remembered: TEKD_EIO, errno says why.  After a sync that failed nothing is added any more:
 * the program has to be started again.
 */
int journal_add(struct journal *j, const struct cp3_message *m);

/* ---- check.c --------------------------------------------------------------------------------- */

/* As what a message came. */
enum check_kind {
    CHECK_ANSWER = 1,    /* the answer to a Key Request of ours */
    CHECK_PUSHED = 2,    /* a Key Delivery in a request to us */
    CHECK_COLLECTED = 4, /* a Key Delivery in the answer to our GET */
};

/* What was agreed at enrolment. */
struct check_terms {
    const char *bsa, *bsm;
    bool one_media; /* else XML and JSON are taken */
    enum cp3_media media;
    enum cp3_wrap wrap;
    const struct secret *kek;
};

/* A message that came; nothing is owned. */
struct check_subject {
    enum check_kind kind;
    const struct check_terms *terms;
    const char *message_id, *content_id; /* of the request; CHECK_ANSWER only */
    struct journal *journal;             /* not NULL for deliveries */
    long status;                         /* of HTTP, where the message came in an answer */
    const char *content_type;
    const uint8_t *body;
    size_t body_len;
    const char *reason; /* CP3-Reason; "" without */
};

struct check_result {
    bool read; /* message and media hold what came, also after a refusal */
    enum cp3_media media;
    struct cp3_message message;
    bool repeated;      /* taken before: to be confirmed again, and nothing else */
    struct secret *tek; /* NULL if it was repeated */
    char check_value[UNWRAP_CHECK_LEN + 1];
};
void check_clear(struct check_result *result); /* frees what it holds, not itself */

/* Why not: which check, what it expected, what it found; printable ASCII, cut where long. */
#define CHECK_TEXT_MAX 384
struct check_refusal {
    const char *check; /* static */
    char expected[CHECK_TEXT_MAX];
    char found[CHECK_TEXT_MAX];
    char reason[HTTPS_TEXT_MAX]; /* the server's CP3-Reason; "" without */
    int http;                    /* what a push is answered; 0: a Confirmation with Status 1 */
};

/*
 * Checks all of a message and unwraps its TEK.  *ret_result is written in any case; the caller owns
 * the key in it: check_clear().
 * Errors, with *ret_refusal filled: TEKD_EDENIED (the server says no), TEKD_EAGAIN (it cannot at
 * the moment: 503), TEKD_EFORMAT (not acceptable), TEKD_ENOMEM, TEKD_ECRYPTO.
 */
int check_message(const struct check_subject *subject, struct check_result *ret_result,
                  struct check_refusal *ret_refusal);

/*
 * Whether HTTP answered as expected.  Errors, with expected and found filled: TEKD_EAGAIN (503),
 * TEKD_EDENIED (any other).
 */
int check_http(long expected, long status, const void *body, size_t len,
               struct check_refusal *ret_why);
/* Fills in expected and found for an exchange that brought no answer. */
void check_no_answer(struct check_refusal *why, const char *url, const char *text);

/* Text of a peer for people: what is not printable ASCII becomes \xNN; cut where out ends. */
void check_show(const char *text, size_t len, char *out, size_t out_size);

/* ---- settings.c ------------------------------------------------------------------------------ */

/* The options of all commands, each of which has a table of its own. */
struct settings {
    struct {
        const char *url, *late, *ca, *cert, *key, *bsm_cert, *kek;
        const char *bsa, *bsm, *content, *message_id;
        const char *media, *wrap, *form, *out, *journal;
        const char *address, *port, *timeout, *wait, *status, *delay, *drop, *count;
        bool once, json;
    } given;                  /* borrowed from argv; NULL: not given */
    struct check_terms terms; /* of which settings_read_kek() gives the last */
    enum cp3_form form;
    unsigned port, timeout_s, wait_s, status, delay_ms;
    unsigned drop, count; /* deliveries; UINT_MAX: all */
    struct secret *kek;
};

/* A row of a command's table; behind the text .required or .standard by name. */
#define SETTING(option, field, what, text, ...)                                                    \
    {                                                                                              \
        .name = option, .argument = (what), .meaning = (text),                                     \
        .offset = offsetof(struct settings, given.field), ##__VA_ARGS__                            \
    }
#define SWITCH(option, field, text)                                                                \
    {                                                                                              \
        .name = (option), .meaning = (text), .offset = offsetof(struct settings, given.field)      \
    }

/*
 * Reads the arguments behind the command's name into *s, all zero before, and what they mean.
 * Errors: those of options_parse().
 */
int settings_read(const struct option_table *table, int argc, char **argv, struct settings *s);
/* Reads the KEK from its file.  Errors, said on stderr: those of unwrap_read_kek(). */
int settings_read_kek(struct settings *s);
void settings_clear(struct settings *s); /* frees what it holds, not itself */
/* An exchange with that URL, without its message. */
struct https_request settings_link(const struct settings *s, const char *url,
                                   const struct stop *stop);

/* ---- file.c ---------------------------------------------------------------------------------- */

/* Makes a new name in the folder of path last.  Returns 0, or -1 with errno. */
int file_sync_folder(const char *path);

/*
 * The clear TEK in hexadecimal and a line feed, in a file of mode 0600 that is there whole or not
 * at all, and stays after a power cut once this has returned 0.  Else -1 with errno.
 */
int file_save_tek(const char *path, const struct secret *tek);

/*
 * The name of a key's file in a folder of keys: the ContentID, all but letters, digits, "-" and "_"
 * as %XX; a dot and the key id, where KeyInfo has one; ".tek".  A long ContentID is cut, and "~"
 * and its SHA-256 stand for the rest.
 */
#define FILE_NAME_SIZE 256
void file_tek_name(const struct cp3_message *m, char out[static FILE_NAME_SIZE]);

/*
 * A folder of keys, made with mode 0700 if it is not there: locked for one program, as long as the
 * descriptor is open, and rid of what a killed one left half written.  Errors, said on stderr:
 * TEKD_EIO.
 */
int file_open_folder(const char *path, int *ret_fd);

/* ---- report.c -------------------------------------------------------------------------------- */

struct json_t; /* jansson's */

/* Members of a document.  Without memory they are left out. */
void report_text(struct json_t *doc, const char *member, const char *text);
void report_number(struct json_t *doc, const char *member, int64_t number);
void report_flag(struct json_t *doc, const char *member, bool flag);
/* What is known of a key that was unwrapped, and of its period. */
void report_key(struct json_t *doc, const struct check_result *result, enum cp3_wrap wrap);
void report_refusal(struct json_t *doc, const struct check_refusal *why);
/* One line for people on stderr. */
void report_complain(const struct check_refusal *why);
/* On stdout: a line a member, or the document. */
void report_print(const struct json_t *doc, bool json);
/* On stdout, in one piece and at once: the document on one line, or its members as name=value. */
void report_line(const struct json_t *doc, bool json);

/* ---- delivery.c ------------------------------------------------------------------------------ */

/* How deliveries are treated. */
struct delivery_rules {
    struct check_terms terms; /* borrowed */
    const char *out;          /* a folder; NULL: keys are checked and forgotten */
    int folder;               /* keeps it locked */
    struct journal *journal;
    enum cp3_form form;     /* of confirmations */
    enum cp3_status status; /* of what passes the checks; 1: it is not taken */
};

/* A Confirmation, written. */
struct confirmation {
    char message_id[CP3_ID_MAX + 1];
    enum cp3_media media; /* that of the delivery */
    size_t len;           /* 0: there is none, it was no Key Delivery */
    char octets[CP3_WRITTEN_MAX];
};

struct delivery {
    int error; /* 0, or why it was not taken, with why filled */
    struct check_refusal why;
    struct check_result result;
    enum cp3_form form;
    enum cp3_status status;
    char *path; /* of the key; NULL: it was not written */
    int http;   /* the answer to a push; 200: the confirmation */
    struct confirmation confirmation;
};

/*
 * Opens folder and journal.  Errors, said on stderr: those of file_open_folder() and
 * journal_open().  delivery_close() in any case, also of rules that are all zero.
 */
int delivery_open(const struct settings *s, struct delivery_rules *rules);
void delivery_close(struct delivery_rules *rules);

/*
 * Checks a delivery; writes its key, if it is not a repetition; remembers it; and makes its
 * Confirmation.  When this returns what a Status 0 promises is on the disk.  delivery_clear() frees
 * what *ret_delivery holds.
 */
void delivery_take(const struct delivery_rules *rules, const struct check_subject *subject,
                   struct delivery *ret_delivery);
void delivery_clear(struct delivery *d);
/* What is printed of it; the caller owns the document. */
struct json_t *delivery_describe(const struct delivery *d, const struct check_terms *terms);

/* ---- confirm.c ------------------------------------------------------------------------------- */

/*
 * POSTs a Confirmation; 204 takes it.  *ret_status is what HTTP said, 0 without an answer.
 * Errors, with *ret_why filled: those of https_post(); TEKD_EDENIED (409 among others), TEKD_EAGAIN
 * (503).
 */
int confirm_post(const struct https_request *link, const struct confirmation *c, long *ret_status,
                 struct check_refusal *ret_why);

/* ---- late.c ---------------------------------------------------------------------------------- */

/* Late Confirmations, by a thread of their own, one after the other, each with its line printed. */
#define LATE_MAX 256 /* that wait; 17 KB each */
struct late_options {
    struct https_request link;
    unsigned delay_ms; /* before each */
    bool json;
};
struct late;
int late_start(const struct late_options *o, struct late **ret_late); /* TEKD_ENOMEM */
/* Copies it.  Errors: TEKD_EAGAIN (too many wait), TEKD_ENOMEM. */
int late_push(struct late *l, const struct confirmation *c);
/* Waits for those that wait, frees; whether all were taken. */
bool late_end(struct late *l);

/* ---- tls.c ----------------------------------------------------------------------------------- */

struct tls_files {
    const char *cert, *key; /* PEM: ours, with its chain */
    const char *ca;         /* PEM: who may have signed the peer's certificate */
    const char *bsm_cert;   /* PEM: one or more certificates, and no others, may connect; or NULL */
};

/*
 * TLS 1.2 or newer as a server: a client certificate is required, nothing is resumed.
 * Errors: TEKD_EINVAL (a file cannot be used; said on stderr), TEKD_ENOMEM.
 */
struct tls;
int tls_new(const struct tls_files *files, struct tls **ret_tls);
void tls_free(struct tls *t); /* NULL is fine */
AUTO_DEFINE(tls)
SSL_CTX *tls_ctx(struct tls *t); /* borrowed */

/* On stderr: why a handshake failed, from an alert as SSL_CTX_set_info_callback() gives it. */
void tls_tell_alert(const SSL *ssl, int where, int alert, const char *address);

/* ---- front.c --------------------------------------------------------------------------------- */

/* One BSM has a few; more are closed at once. */
#define FRONT_CONNECTIONS_MAX 64
#define FRONT_END_US          2000000 /* for what is still being sent when it ends */
#define FRONT_PROBLEM         "application/problem+json"

/* A POST to /cp3. */
struct front_request {
    const char *content_type; /* "" without */
    const uint8_t *body;      /* at most CP3_BODY_MAX */
    size_t body_len;
};

/* Octets are borrowed until handle() returns. */
struct front_answer {
    int status;
    const char *content_type; /* NULL without a body */
    const char *allow;        /* NULL: no such header */
    const void *body;
    size_t body_len;
    bool cut; /* the connection is closed without an answer */
};

struct front_options {
    const char *address;
    uint16_t port; /* 0: any free one */
    struct tls_files files;
    unsigned timeout_s; /* to read one request, and idle between two */
    unsigned delay_ms;  /* before each answer of handle() */
    const struct stop *stop;
    void (*handle)(void *arg, const struct front_request *request, struct front_answer *ret_answer);
    void *arg;
};

/*
 * The HTTPS server: HTTP/1.1, one route.  All on the thread of front_run(), handle() too; what
 * handle() waits for, everybody waits for.  Errors, said on stderr: TEKD_EINVAL, TEKD_EIO,
 * TEKD_ENOMEM.
 */
struct front;
int front_new(const struct front_options *o, struct front **ret_front);
void front_free(struct front *f); /* NULL is fine */
AUTO_DEFINE(front)
uint16_t front_port(const struct front *f);

/* Serves until stop is told, which ends delays too, or until front_finish(). */
void front_run(struct front *f);
/* From handle(): its answer, and those under way, are the last. */
void front_finish(struct front *f);

/* ---- request.c, listen.c, collect.c ---------------------------------------------------------- */

/* The commands; argv[0] is the name.  Each returns an enum bsa_exit. */
int request_run(int argc, char **argv);
int listen_run(int argc, char **argv);
int collect_run(int argc, char **argv);

#endif
