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

int audit_bring(struct audit *a, EVP_PKEY *take_key)
{
    struct known_key k = {.key = take_key};
    int r = key_fingerprint(take_key, &k.fingerprint);

    if (r == 0 && a->n_brought == BROUGHT_MAX)
        r = TEKD_ETOOBIG;
    for (size_t i = 0; r == 0 && i < a->n_brought; i++)
        if (memcmp(&a->trusted[i].fingerprint, &k.fingerprint, sizeof k.fingerprint) == 0)
            r = TEKD_EEXIST;
    if (r < 0) {
        EVP_PKEY_free(take_key);
        return r;
    }
    k.stands_for = 1U << a->n_brought++;
    a->trusted[a->n_trusted++] = k;
    return 0;
}

/*
 * A new key takes the place of those of its kind.  One of another kind signs beside them: who has
 * stolen it must not be able to leave out the one that the auditor brought.
 */
static unsigned place_of(const struct audit *a, EVP_PKEY *key)
{
    unsigned same = 0;

    for (size_t i = 0; i < a->n_brought; i++) {
        if (EVP_PKEY_get_base_id(a->trusted[i].key) == EVP_PKEY_get_base_id(key))
            same |= a->trusted[i].stands_for;
    }
    return same;
}

/* A key that was announced before this note, and has signed it beside a trusted one, is trusted. */
static void promote(struct audit *a, const struct note *n)
{
    for (size_t i = 0; i < a->n_candidates; i++) {
        struct known_key *k = &a->candidate[i];

        if (!k->announced || n->size <= k->announced_seq || note_verify(n, k->key) < 0 ||
            a->n_trusted == TRUSTED_MAX || EVP_PKEY_up_ref(k->key) != 1)
            continue;
        k->stands_for = place_of(a, k->key);
        a->trusted[a->n_trusted++] = *k;
        k->announced = false;
    }
}

/* Key ids, for people. */
static void put_id(char *out, size_t room, const uint8_t id[static 4])
{
    size_t used = strlen(out);
    char hex[ENC_HEX_LEN(4) + 1];

    enc_hex(id, 4, hex);
    (void)snprintf(out + used, room - used, "%s%s", used > 0 ? " " : "", hex);
}

/* Says whose signature is missing, and whose are there. */
static void fail_unsigned(struct audit *a, const struct note *n, const char *where,
                          unsigned missing)
{
    char wanted[BROUGHT_MAX * 9 + 1] = "", found[NOTE_SIGS_MAX * 9 + 1] = "";
    uint8_t id[4];

    for (size_t i = 0; i < a->n_brought; i++)
        if ((missing & a->trusted[i].stands_for) != 0 &&
            note_key_id(n->origin, a->trusted[i].key, id) == 0)
            put_id(wanted, sizeof wanted, id);
    for (size_t i = 0; i < n->n_signatures; i++)
        put_id(found, sizeof found, n->signature[i].key_id);
    audit_fail_at(a, where, "signature",
                  "expected a signature of a trusted key, found none of %s (size %" PRIu64
                  "; it is signed by %s)",
                  wanted, n->size, found);
}

bool note_trusted(struct audit *a, const struct note *n, const char *where)
{
    unsigned missing = (1U << a->n_brought) - 1;

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
        if (r == 0)
            missing &= ~a->trusted[i].stands_for;
    }
    if (missing != 0) {
        fail_unsigned(a, n, where, missing);
        return false;
    }
    promote(a, n);
    return true;
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
    const char *why = NULL;
    int r;

    if (!n || buf_new(NOTE_MAX, &n->text) < 0) {
        a->error = TEKD_ENOMEM;
        return a->error;
    }
    r = lines_open(a->dirfd, "checkpoints.txt", &n->lines, &why);
    if (r == TEKD_ENOTFOUND)
        audit_fail_at(a, "checkpoints.txt", "missing", "expected a file of the export, found none");
    else if (r < 0)
        audit_unreadable(a, "checkpoints.txt", r, why);
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
