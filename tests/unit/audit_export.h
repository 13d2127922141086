/*
 * Makes exports of an audit log for the tests of tek-audit, with throw-away keys: a valid one from
 * a list of steps, and from it any broken one, by changes at four moments:
 *     steps   what the server did; all that follows fits them
 *     lines   the records' octets; the notes are signed over the changed ones
 *     files   the export's files; SHA256SUMS is made over the changed ones
 *     sums    SHA256SUMS itself
 */
#ifndef TEST_AUDIT_EXPORT_H
#define TEST_AUDIT_EXPORT_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/note.h"

#define ORIGIN "bsm.example.net/tekd/audit/1"
#define HASH_1 "1111111111111111111111111111111111111111111111111111111111111111"
#define HASH_2 "2222222222222222222222222222222222222222222222222222222222222222"
#define KEY_1  "0199aaaa-0000-7000-8000-000000000001"
#define KEY_2  "0199aaaa-0000-7000-8000-000000000002"

enum { STEPS_MAX = 64, NOTES_MAX = 32, FILES_MAX = 32, LINE_MAX_TEST = 20000 };

/*
 * One record, dt seconds after the one before; or a checkpoint (ev is CHECKPOINT).
 * fields: "key=text|key#integer|key?true"; the values "@MID" (the record that gave a key under this
 * Message ID, as a reference), "@covered" (size of the last checkpoint) and "@before" (seq of the
 * record before) are worked out.  inst: NULL is tekd-a.
 */
struct step {
    const char *ev;
    const char *fields;
    int dt;
    const char *inst;
};
extern const char checkpoint_step[];
#define CHECKPOINT checkpoint_step

struct line {
    char *octets;
    size_t len;
};

struct file {
    char name[64];
    char *octets;
    size_t len;
};

struct fixture {
    struct step step[STEPS_MAX];
    size_t n_steps;
    struct line line[STEPS_MAX];
    size_t n_lines;
    size_t sign_at[NOTES_MAX]; /* the sizes that are signed */
    size_t n_notes;
    struct note note[NOTES_MAX];
    struct file file[FILES_MAX];
    size_t n_files;
    char origin[NOTE_ORIGIN_MAX + 1];
    EVP_PKEY *key;
    EVP_PKEY *other;        /* signs nothing, unless a test wants it to */
    size_t other_from;      /* notes from this number on are signed by other as well */
    size_t only_other_from; /* ... by other alone */
    bool bring_both;        /* look() is with other as a second --key */
    char dir[64];
};

/* The valid export that all tests start from: its steps, its keys, an empty folder. */
struct fixture *export_new(void);
void export_free(struct fixture *x);

/* Position of the n-th step (from 0) with this event. */
size_t export_at(const struct fixture *x, const char *ev, size_t n);
void export_insert(struct fixture *x, size_t at, struct step s);
void export_drop(struct fixture *x, size_t at);
void export_append(struct fixture *x, struct step s);

/* Lines from steps; notes over lines; files from both; the folder. */
void export_make_lines(struct fixture *x);
void export_make_notes(struct fixture *x);
void export_make_files(struct fixture *x);
void export_write(struct fixture *x);
/* All of it. */
void export_make(struct fixture *x);

/* A note over the first n lines, signed by key. */
struct note export_sign(const struct fixture *x, size_t n, EVP_PKEY *key);
/* A second signature. */
void export_add_signature(struct note *n, EVP_PKEY *key);
/* The note as a string, malloc()ed. */
char *export_note_text(const struct note *n);

struct file *export_file(struct fixture *x, const char *name);
void export_set_file(struct fixture *x, const char *name, const char *octets, size_t len);
void export_set_line(struct fixture *x, size_t n, const char *octets);
/* Replaces the first occurrence of one text by another in a file or a line, which must be there. */
void file_replace(struct file *f, const char *from, const char *to);
void line_replace(struct line *l, const char *from, const char *to);
/* A file in keys/. */
void export_add_key(struct fixture *x, EVP_PKEY *key);
/* SHA256SUMS over the files as they are. */
void export_make_sums(struct fixture *x);

/*
 * What tek-audit finds in the export on the disk, with its key or this one, and with this note as
 * --since (NULL: --first).  The caller frees: audit_free().
 */
struct audit;
struct audit *look(const struct fixture *x);
/* The same with all that an auditor may bring. */
struct cosign_key;
struct look {
    EVP_PKEY *key;
    const struct note *since;         /* NULL: none */
    X509_STORE *tsa;                  /* who may sign time stamps; NULL: nobody is looked at */
    const struct cosign_key *witness; /* who may cosign; none: nobody is looked at */
    size_t n_witnesses;
};
struct audit *look_trusting(const struct fixture *x, const struct look *l);
struct audit *look_with(const struct fixture *x, EVP_PKEY *key, const struct note *since);
void assert_verified(const struct audit *a);
/* The first failure is one of this check, with this text in it. */
void assert_refused(const struct audit *a, const char *name, const char *check, const char *text);

#endif
