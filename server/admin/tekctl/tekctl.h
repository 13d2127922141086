/*
 * tekctl: the operator's commands.  A table of commands says which arguments each takes; they
 * become one JSON request to tekd's admin socket, and the answer is printed as text or, with
 * --json, as the document it is.  Files are read and written here, as the caller; tekd gets
 * contents, never paths.
 */
#ifndef TEKCTL_H
#define TEKCTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "tekd/auto.h"
#include "tekd/record.h"
#include "tekd/secret.h"

#define TEKCTL_SOCKET   "/run/tekd/tekd.sock"
#define TEKCTL_FILE_MAX 65536 /* a certificate or a CA */

/* Exit statuses. */
enum { TEKCTL_DONE = 0, TEKCTL_FAILED = 1, TEKCTL_USAGE = 2, TEKCTL_UNREACHABLE = 3 };

static inline void tekctl_json_decref(json_t **j)
{
    json_decref(*j);
}
#define AUTO_JSON __attribute__((cleanup(tekctl_json_decref)))

/* ---- commands.c ------------------------------------------------------------------------------ */

/* How an option's argument becomes a value of the request. */
enum option_kind {
    OPTION_END = 0,
    OPTION_STR,
    OPTION_INT,
    OPTION_STR_LIST,  /* may be repeated */
    OPTION_FILE,      /* the file's contents */
    OPTION_FILE_LIST, /* may be repeated */
    OPTION_NO,        /* no argument: false */
    OPTION_YES,       /* no argument: true */
};

struct option_rule {
    const char *name; /* of --name */
    enum option_kind kind;
    const char *key; /* in the request */
    bool required;
};

#define COMMAND_OPTIONS_MAX 12

struct session;
struct command {
    const char *words;      /* "bsa add" */
    const char *positional; /* key of the positional argument, NULL if there is none */
    const char *second;     /* of the one behind it, likewise */
    const char *synopsis;   /* what follows the words, for people */
    const char *help;
    struct option_rule option[COMMAND_OPTIONS_MAX];
    void (*print)(const json_t *result); /* NULL: prints nothing; of a list: one element */
    const char *header;                  /* of a list: the line above */
    const char *member;                  /* of an object with a list: the name of that */
    bool indented;                       /* of a list: each element is on several lines of JSON */
    int (*run)(struct session *s);       /* NULL: one request, one answer */
};

/* The command that argv starts with; *ret_words is how many words it has.  NULL if there is none.
 */
const struct command *command_find(int argc, char **argv, int *ret_words);
const struct command *command_at(size_t i);

/* ---- client.c -------------------------------------------------------------------------------- */

struct session {
    const char *socket;
    bool json;
    const struct command *command;
    json_t *request;
    struct secret *pin; /* goes along as a descriptor; NULL: none */
    FILE *answer;       /* what the server sends, behind the answer line too */
};

/*
 * Sends the request and reads the answer line.  If it is not success it says on stderr why.
 * *ret_result is the caller's; when the command failed, what it did all the same, or NULL.  Returns
 * an exit status.
 */
int session_call(struct session *s, json_t **ret_result);
/* Says that the result of a success is not what such a command has; TEKCTL_FAILED. */
int session_no_result(void);
/* A message for people on stderr: "tekctl: …". */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Ends the connection, so that the session can make another request. */
void session_end(struct session *s);

/* ---- commands that do more than ask once ----------------------------------------------------- */

int list_run(struct session *s);    /* list.c: a list, page by page */
int content_run(struct session *s); /* a content with the list of its TEKs, likewise */
int export_run(struct session *s);  /* export.c, ledger.c: a stream */
int ledger_run(struct session *s);
int retry_run(struct session *s);

/* A line of the stream without its end, owned by the caller: free(); NULL at the end or on error.
 */
char *stream_line(FILE *f, size_t *ret_len);

/* ---- deliveries.c ---------------------------------------------------------------------------- */

#define DELIVERY_NONE UINT64_MAX /* a record that there is not */

/* A Key Delivery as far as the log was read. */
struct delivery {
    uint64_t seq;       /* of its delivery.prepared or .carried */
    uint64_t confirmed; /* of its delivery.confirmed; DELIVERY_NONE */
    const char *state;  /* static */
    uint32_t attempts;
    bool open;             /* it may still be sent */
    bool doubtful;         /* the confirmation that there was is unattested */
    bool forgotten;        /* its place is not used any more */
    uint64_t at;           /* the caller's own */
    struct record *record; /* the caller's to set; freed with it */
};
struct deliveries {
    uint64_t epoch;        /* of the records; set before the first */
    struct delivery *list; /* by seq */
    size_t n, room, n_forgotten;
};

/* Whether a record may say something of deliveries, by its octets; the others need not be given. */
bool deliveries_concern(const char *line, size_t len);
/*
 * Takes the next record.  *ret_delivery is the delivery that it is about, NULL if it is about none;
 * borrowed until the next call.  Returns an exit status.
 */
int deliveries_take(struct deliveries *d, const struct record *r, struct delivery **ret_delivery);
/* Nothing of this one is of interest any more.  Others move. */
void deliveries_forget(struct deliveries *d, struct delivery *take_delivery);
void deliveries_clear(struct deliveries *d);

/* ---- row.c: a line of the ledger ------------------------------------------------------------- */

enum row_form { ROW_TABLE, ROW_CSV, ROW_JSON };

struct row {
    const char *message_id, *bsa, *direction, *state, *content_id, *key_id, *kek_id;
    const char *time; /* of the answer, or of the preparation */
    const char *done; /* of the confirmation; empty: there is none */
    bool attested, is_delivery;
    uint32_t attempts;  /* of a delivery */
    uint64_t confirmed; /* by which record; DELIVERY_NONE */
};

void row_heading(enum row_form form);
void row_print(const struct row *r, enum row_form form, bool first);
void row_end(enum row_form form, bool any);

/* ---- text.c: what may go to a terminal ------------------------------------------------------- */

/* The string with each control character as \u00HH in its place, for people; borrowed from it.
 * NULL: it is none. */
const char *text_shown(json_t *string);
/* The document on stdout, with the same: for JSON that is another way to write the same string.
 * The flags are those of json_dumps(). */
void text_dump(const json_t *doc, size_t flags);
/* The same as JSON_INDENT(2) writes it at that depth of another document. */
void text_dump_at(const json_t *doc, int depth);
/* After the last that is printed: the status, but never TEKCTL_DONE when not all of it could be
 * written. */
int text_flush(int status);

/* ---- print.c --------------------------------------------------------------------------------- */

void print_status(const json_t *result);
void print_hsm(const json_t *result);
void print_bsa(const json_t *bsa);
void print_object(const json_t *result);
void print_content(const json_t *content);
#define PRINT_KEY_HEADER                                                                           \
    "KEY-ID                                PERIOD   VERSION  BITS  CREATED                      "  \
    "STATE"
void print_key(const json_t *key);
void print_key_id(const json_t *result);
void print_lines(const json_t *strings);
#define PRINT_DELIVERY_HEADER                                                                      \
    "MESSAGE-ID                           BSA              STATE       AGE     ATTEMPTS NEXT     " \
    " LAST ERROR                               CONTENT-ID"
void print_delivery(const json_t *delivery);
void print_checkpoint(const json_t *result);

#endif
