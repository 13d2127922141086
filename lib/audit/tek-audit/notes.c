/*
 * Notes: whose signature counts, and whether the tree went through them.
 *
 * checkpoints.txt is the notes of the epoch, oldest first, each followed by an empty line.  A note
 * itself has one empty line, between its text and its signatures, so a note ends at its second.
 */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"

struct notes {
    struct lines *lines; /* NULL: nothing to read */
    struct note next;
    bool have;       /* next is set */
    uint64_t number; /* of next, from 1 */
    struct note last;
    struct buf *text;
};

/* A key that was announced before this note, and has signed it beside a trusted one, is trusted. */
static void promote(struct audit *a, const struct note *n)
{
    for (size_t i = 0; i < a->n_candidates; i++) {
        struct known_key *k = &a->candidate[i];

        if (!k->announced || n->size <= k->announced_seq || note_verify(n, k->key) < 0 ||
            a->n_trusted == TRUSTED_MAX || EVP_PKEY_up_ref(k->key) != 1)
            continue;
        a->trusted[a->n_trusted++] = *k;
        k->announced = false;
    }
}

bool note_trusted(struct audit *a, const struct note *n, const char *where)
{
    bool good = false;

    if (a->unsigned_ok)
        return true;
    for (size_t i = 0; i < a->n_trusted; i++) {
        int r = note_verify(n, a->trusted[i].key);

        if (r == TEKD_ECRYPTO) {
            audit_fail_at(a, where, "signature",
                          "expected a signature that verifies, found one of a trusted key that "
                          "does not (size %" PRIu64 ")",
                          n->size);
            return false;
        }
        good = good || r == 0;
    }
    if (!good)
        audit_fail_at(a, where, "signature",
                      "expected a signature of a trusted key, found none (size %" PRIu64 ")",
                      n->size);
    else
        promote(a, n);
    return good;
}

void note_compare(struct audit *a, const struct note *n, const char *where, const char *check)
{
    char expected[ENC_BASE64_LEN(MERKLE_HASH_LEN) + 1];
    char found[ENC_BASE64_LEN(MERKLE_HASH_LEN) + 1];
    struct merkle_hash root;

    if (a->root_differs)
        return;
    merkle_range_root(&a->range, &root);
    if (memcmp(&root, &n->root, sizeof root) == 0) {
        a->covered = n->size;
        return;
    }
    a->root_differs = true;
    enc_base64(n->root.octets, MERKLE_HASH_LEN, expected);
    enc_base64(root.octets, MERKLE_HASH_LEN, found);
    audit_fail_at(a, where, check,
                  "expected root %s at size %" PRIu64 ", found %s: of the records %" PRIu64
                  " to %" PRIu64 " at least one is not what was signed",
                  expected, n->size, found, a->covered, n->size > 0 ? n->size - 1 : 0);
}

static bool origin_same(struct audit *a, const struct note *n, const char *where)
{
    if (strcmp(n->origin, a->checkpoint.origin) == 0)
        return true;
    audit_fail_at(a, where, "origin", "expected %s, found %s", a->checkpoint.origin, n->origin);
    return false;
}

void marks_pass(struct audit *a)
{
    for (; a->next_mark < a->n_marks; a->next_mark++) {
        const struct mark *m = &a->mark[a->next_mark];

        if (m->note.size > a->range.size)
            return;
        if (origin_same(a, &m->note, m->where) && note_trusted(a, &m->note, m->where))
            note_compare(a, &m->note, m->where, m->check);
    }
}

/* Lines up to the second empty one.  TEKD_ECLOSED at the end of the file. */
static int read_text(struct notes *n)
{
    const char *line;
    size_t len;
    int empty = 0;
    int r;

    buf_reset(n->text);
    while (empty < 2) {
        r = lines_next(n->lines, &line, &len);
        if (r == TEKD_ECLOSED && buf_len(n->text) > 0)
            r = TEKD_EFORMAT;
        if (r < 0)
            return r;
        empty += len == 0;
        if (empty == 2)
            return 0;
        if (buf_append(n->text, line, len) < 0 || buf_putc(n->text, '\n') < 0)
            return TEKD_EFORMAT;
    }
    return 0;
}

static void load(struct audit *a, struct notes *n)
{
    char where[64];
    int r = read_text(n);

    n->have = false;
    if (r == TEKD_ECLOSED)
        return;
    n->number++;
    if (r == TEKD_EIO || r == TEKD_ENOMEM) {
        a->error = r;
        return;
    }
    if (r == 0)
        r = note_read(buf_data(n->text), buf_len(n->text), &n->next);
    if (r == 0) {
        n->have = true;
        return;
    }
    (void)snprintf(where, sizeof where, "checkpoints.txt, note %" PRIu64, n->number);
    audit_fail_at(a, where, "checkpoints",
                  "expected a note and an empty line, found something else");
}

int notes_open(struct audit *a, struct notes **ret_notes)
{
    AUTO(notes) struct notes *n = calloc(1, sizeof *n);
    int r;

    if (!n || buf_new(NOTE_MAX, &n->text) < 0) {
        a->error = TEKD_ENOMEM;
        return a->error;
    }
    r = lines_open(a->dirfd, "checkpoints.txt", &n->lines);
    if (r == TEKD_ENOTFOUND)
        audit_fail_at(a, "checkpoints.txt", "missing", "expected a file of the export, found none");
    else if (r < 0)
        a->error = r;
    else
        load(a, n);
    if (a->error < 0)
        return a->error;
    if (n->lines && n->number == 0)
        audit_fail_at(a, "checkpoints.txt", "checkpoints",
                      "expected at least one note, found none");
    *ret_notes = TAKE(n);
    return 0;
}

void notes_free(struct notes *n)
{
    if (!n)
        return;
    lines_free(n->lines);
    buf_free(n->text);
    free(n);
}

void notes_pass(struct audit *a, struct notes *n)
{
    char where[64];

    while (n->have && n->next.size <= a->range.size) {
        (void)snprintf(where, sizeof where, "checkpoints.txt, note %" PRIu64, n->number);
        if (n->next.size < a->range.size)
            audit_fail_at(a, where, "checkpoints",
                          "expected a size not below the one of the note before, found %" PRIu64,
                          n->next.size);
        else if (origin_same(a, &n->next, where) && note_trusted(a, &n->next, where))
            note_compare(a, &n->next, where, "checkpoints");
        n->last = n->next;
        load(a, n);
    }
}

void notes_finish(struct audit *a, struct notes *n)
{
    struct merkle_hash sum;
    char where[64];

    if (!n->lines)
        return;
    if (n->have) {
        (void)snprintf(where, sizeof where, "checkpoints.txt, note %" PRIu64, n->number);
        audit_fail_at(a, where, "checkpoints",
                      "expected a size of at most %" PRIu64 " records, found %" PRIu64,
                      a->range.size, n->next.size);
    } else if (n->last.size != a->checkpoint.size ||
               memcmp(&n->last.root, &a->checkpoint.root, sizeof n->last.root) != 0) {
        audit_fail_at(a, "checkpoints.txt", "checkpoints",
                      "expected the checkpoint (size %" PRIu64
                      ") as last note, found size %" PRIu64,
                      a->checkpoint.size, n->last.size);
    }
    if (lines_digest(n->lines, &sum) < 0)
        a->error = TEKD_EIO;
    else
        export_check_sum(a, "checkpoints.txt", &sum);
}
