/*
 * tek-audit against exports whose octets or files were changed: each case must be refused by the
 * check it names, with that text, as the first failure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit_export.h"
#include "cosigner.h"
#include "tek-audit.h"
#include "tekd/err.h"
#include "tekd/timestamp.h"
#include "tsa.h"

struct file_case {
    const char *name;
    const char *check;
    const char *text;
    void (*lines)(struct fixture *x); /* before the notes are signed */
    void (*files)(struct fixture *x); /* before SHA256SUMS is made */
    void (*sums)(struct fixture *x);
};

/* Takes the n-th line (from 0) of a file out; its octets, with the line end, are the caller's. */
static char *cut_line(struct file *f, size_t n)
{
    char *start = f->octets, *end, *line;

    while (n-- > 0)
        start = strchr(start, '\n') + 1;
    end = strchr(start, '\n') + 1;
    line = strndup(start, (size_t)(end - start));
    memmove(start, end, strlen(end) + 1);
    f->len = strlen(f->octets);
    return line;
}

static void put_line(struct file *f, size_t n, const char *line)
{
    char *at = f->octets, *changed = NULL;

    while (n-- > 0)
        at = strchr(at, '\n') + 1;
    assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - f->octets), f->octets, line, at) >= 0);
    free(f->octets);
    f->octets = changed;
    f->len = strlen(changed);
}

static struct file *records(struct fixture *x)
{
    return export_file(x, "audit.jsonl");
}

static void edit_record(struct fixture *x)
{
    file_replace(records(x), "192.0.2.1", "192.0.2.2");
}
static void edit_time(struct fixture *x)
{
    file_replace(records(x), ".000000Z", ".000001Z");
}
static void delete_record(struct fixture *x)
{
    free(cut_line(records(x), 7));
}
static void delete_last(struct fixture *x)
{
    free(cut_line(records(x), x->n_lines - 1));
}
static void swap_records(struct fixture *x)
{
    char *line = cut_line(records(x), 7);

    put_line(records(x), 8, line);
    free(line);
}
static void double_record(struct fixture *x)
{
    char *line = cut_line(records(x), 7);

    put_line(records(x), 7, line);
    put_line(records(x), 7, line);
    free(line);
}
static void append_record(struct fixture *x)
{
    char *line = cut_line(records(x), x->n_lines - 1);

    put_line(records(x), x->n_lines - 1, line);
    put_line(records(x), x->n_lines, line);
    free(line);
}
static void empty_log(struct fixture *x)
{
    export_set_file(x, "audit.jsonl", "", 0);
}
static void signed_hole(struct fixture *x)
{
    line_replace(&x->line[7], "\"seq\":7", "\"seq\":8");
}
static void signed_space(struct fixture *x)
{
    line_replace(&x->line[7], "\"ev\":", "\"ev\": ");
}
static void signed_order(struct fixture *x)
{
    line_replace(&x->line[7], "{", "{\"z\":1,");
}
static void signed_not_json(struct fixture *x)
{
    export_set_line(x, 7, "seven");
}
static void signed_empty(struct fixture *x)
{
    export_set_line(x, 7, "");
}
static void signed_unknown_event(struct fixture *x)
{
    line_replace(&x->line[7], "\"ev\":\"answer.sent\"", "\"ev\":\"answer.lost\"");
}
static void signed_long(struct fixture *x)
{
    char fill[RECORD_MAX + 1], to[RECORD_MAX + 64];

    memset(fill, 'x', RECORD_MAX);
    fill[RECORD_MAX] = '\0';
    (void)snprintf(to, sizeof to, "\"mid\":\"%s", fill);
    line_replace(&x->line[7], "\"mid\":\"", to);
}
static void no_line_end(struct fixture *x)
{
    struct file *f = records(x);

    f->octets[--f->len] = '\0';
}

static const struct file_case record_cases[] = {
    {"a record edited", "checkpoints", "of the records 5 to 6 at least one", NULL, edit_record,
     NULL},
    {"a time edited", "checkpoints", "of the records 0 to 4 at least one", NULL, edit_time, NULL},
    {"a record deleted", "seq", "expected seq 7, found 8", NULL, delete_record, NULL},
    {"the last record deleted", "size", "records, found", NULL, delete_last, NULL},
    {"two records swapped", "seq", "expected seq 7, found 8", NULL, swap_records, NULL},
    {"a record doubled", "seq", "expected seq 8, found 7", NULL, double_record, NULL},
    {"a record appended", "size", "as the checkpoint says, found more", NULL, append_record, NULL},
    {"no records", "size", "records, found 0", NULL, empty_log, NULL},
    {"a hole that was signed", "seq", "expected seq 7, found 8", signed_hole, NULL, NULL},
    {"white space that was signed", "canonical", "a value is neither", signed_space, NULL, NULL},
    {"order that was signed", "canonical", "the keys are not sorted", signed_order, NULL, NULL},
    {"no JSON", "canonical", "not an object", signed_not_json, NULL, NULL},
    {"an empty line", "canonical", "not an object", signed_empty, NULL, NULL},
    {"an unknown event", "event", "found answer.lost", signed_unknown_event, NULL, NULL},
    {"a line that is too long", "length", "expected at most 8192 octets", signed_long, NULL, NULL},
    {"a last line without end", "canonical", "expected a line end", NULL, no_line_end, NULL},
};

static void set_checkpoint(struct fixture *x, const struct note *n)
{
    AUTO_MEM char *text = export_note_text(n);

    export_set_file(x, "checkpoint", text, strlen(text));
}
static void flip_signature(struct fixture *x)
{
    struct note n = x->note[x->n_notes - 1];

    n.signature[0].octets[12] ^= 1;
    set_checkpoint(x, &n);
}
static void foreign_checkpoint(struct fixture *x)
{
    struct note n = export_sign(x, x->n_lines, x->other);

    set_checkpoint(x, &n);
}
static void other_origin(struct fixture *x)
{
    struct note n;

    (void)snprintf(x->origin, sizeof x->origin, "bsm.example.org/tekd/audit/1");
    n = export_sign(x, x->n_lines, x->key);
    set_checkpoint(x, &n);
}
static void strange_origin(struct fixture *x)
{
    struct note n;

    (void)snprintf(x->origin, sizeof x->origin, "bsm.example.net/audit");
    n = export_sign(x, x->n_lines, x->key);
    set_checkpoint(x, &n);
}
static void other_root(struct fixture *x)
{
    struct note n;

    line_replace(&x->line[x->n_lines - 1], "tekd-a", "tekd-b");
    n = export_sign(x, x->n_lines, x->key);
    set_checkpoint(x, &n);
}
static void larger_checkpoint(struct fixture *x)
{
    struct note n = export_sign(x, x->n_lines + 1, x->key);

    set_checkpoint(x, &n);
}
static void smaller_checkpoint(struct fixture *x)
{
    set_checkpoint(x, &x->note[x->n_notes - 2]);
}
static void garbage_checkpoint(struct fixture *x)
{
    export_set_file(x, "checkpoint", "x\n", 2);
}
static void huge_checkpoint(struct fixture *x)
{
    static char octets[NOTE_MAX + 1];

    export_set_file(x, "checkpoint", octets, sizeof octets);
}

static const struct file_case checkpoint_cases[] = {
    {"a signature flipped", "signature", "found one of a trusted key that does not", NULL,
     flip_signature, NULL},
    {"a checkpoint of another key", "signature", "of a trusted key, found none", NULL,
     foreign_checkpoint, NULL},
    {"a checkpoint of another log", "origin", "expected bsm.example.org", NULL, other_origin, NULL},
    {"a checkpoint of no log of ours", "origin", "expected <id>/tekd/audit/<epoch>", NULL,
     strange_origin, NULL},
    {"a checkpoint over another log", "root", "expected root", NULL, other_root, NULL},
    {"a checkpoint over more records", "size", "expected 24 records, found 23", NULL,
     larger_checkpoint, NULL},
    {"a checkpoint over fewer records", "size", "found more", NULL, smaller_checkpoint, NULL},
    {"no checkpoint", "checkpoint", "expected a note", NULL, garbage_checkpoint, NULL},
    {"a checkpoint that is too long", "length", "expected at most 2048 octets", NULL,
     huge_checkpoint, NULL},
};

/* Writes checkpoints.txt anew from x->note. */
static void rewrite_notes(struct fixture *x)
{
    AUTO(buf) struct buf *b = NULL;

    assert_int_equal(buf_new((size_t)1 << 20, &b), 0);
    for (size_t i = 0; i < x->n_notes; i++) {
        AUTO_MEM char *text = export_note_text(&x->note[i]);

        assert_int_equal(buf_printf(b, "%s\n", text), 0);
    }
    export_set_file(x, "checkpoints.txt", buf_str(b), buf_len(b));
}
static void forked_note(struct fixture *x)
{
    line_replace(&x->line[3], "bsa-1/1", "bsa-1/9");
    x->note[1] = export_sign(x, x->note[1].size, x->key);
    rewrite_notes(x);
}
static void note_flipped(struct fixture *x)
{
    x->note[1].signature[0].octets[12] ^= 1;
    rewrite_notes(x);
}
static void note_of_another_key(struct fixture *x)
{
    x->note[1] = export_sign(x, x->note[1].size, x->other);
    rewrite_notes(x);
}
static void note_of_another_log(struct fixture *x)
{
    char origin[sizeof x->origin];

    memcpy(origin, x->origin, sizeof origin);
    (void)snprintf(x->origin, sizeof x->origin, "x/tekd/audit/1");
    x->note[1] = export_sign(x, x->note[1].size, x->key);
    memcpy(x->origin, origin, sizeof origin);
    rewrite_notes(x);
}
static void notes_swapped(struct fixture *x)
{
    struct note n = x->note[3];

    x->note[3] = x->note[4];
    x->note[4] = n;
    rewrite_notes(x);
}
static void note_missing(struct fixture *x)
{
    x->n_notes--;
    rewrite_notes(x);
}
static void note_beyond(struct fixture *x)
{
    x->note[x->n_notes] = export_sign(x, x->n_lines + 5, x->key);
    x->n_notes++;
    rewrite_notes(x);
}
static void notes_garbage(struct fixture *x)
{
    file_replace(export_file(x, "checkpoints.txt"), "\n\n", "\nextension\n\n");
}
static void notes_cut(struct fixture *x)
{
    struct file *f = export_file(x, "checkpoints.txt");

    f->len -= 30;
    f->octets[f->len] = '\0';
}
static void no_notes(struct fixture *x)
{
    export_set_file(x, "checkpoints.txt", "", 0);
}

static const struct file_case note_cases[] = {
    {"a note that is no prefix", "checkpoints", "expected root", NULL, forked_note, NULL},
    {"a note with a bad signature", "signature", "that does not", NULL, note_flipped, NULL},
    {"a note of another key", "signature", "found none", NULL, note_of_another_key, NULL},
    {"a note of another log", "origin", "found x/tekd/audit/1", NULL, note_of_another_log, NULL},
    {"notes out of order", "checkpoints", "expected a size not below", NULL, notes_swapped, NULL},
    {"the last note missing", "checkpoints", "as last note", NULL, note_missing, NULL},
    {"a note beyond the log", "checkpoints", "expected a size of at most", NULL, note_beyond, NULL},
    {"a note with an extension", "checkpoints", "expected a note and an empty line", NULL,
     notes_garbage, NULL},
    {"notes cut off", "checkpoints", "expected a note and an empty line", NULL, notes_cut, NULL},
    {"no notes", "checkpoints", "expected at least one note", NULL, no_notes, NULL},
};

static void sum_changed(struct fixture *x)
{
    struct file *f = export_file(x, "SHA256SUMS");

    f->octets[3] = f->octets[3] == '0' ? '1' : '0';
}
static void sum_upper(struct fixture *x)
{
    struct file *f = export_file(x, "SHA256SUMS");

    f->octets[3] = 'A';
}
static void sum_missing(struct fixture *x)
{
    free(cut_line(export_file(x, "SHA256SUMS"), 1));
}
static void sum_twice(struct fixture *x)
{
    char *line = cut_line(export_file(x, "SHA256SUMS"), 1);

    put_line(export_file(x, "SHA256SUMS"), 0, line);
    put_line(export_file(x, "SHA256SUMS"), 0, line);
    free(line);
}
static void sum_outside(struct fixture *x)
{
    put_line(export_file(x, "SHA256SUMS"), 0, HASH_1 "  ../secret\n");
}
static void sum_hidden(struct fixture *x)
{
    put_line(export_file(x, "SHA256SUMS"), 0, HASH_1 "  anchors/../../secret\n");
}
static void sum_of_nothing(struct fixture *x)
{
    put_line(export_file(x, "SHA256SUMS"), 0, HASH_1 "  keys/00000000.pem\n");
}
static void remove_file(struct fixture *x, const char *name)
{
    struct file *f = export_file(x, name);

    free(f->octets);
    *f = x->file[--x->n_files];
}
static void no_pending(struct fixture *x)
{
    remove_file(x, "pending.jsonl");
}
static void no_log(struct fixture *x)
{
    remove_file(x, "audit.jsonl");
}
static void no_checkpoints(struct fixture *x)
{
    remove_file(x, "checkpoints.txt");
}
static void no_checkpoint(struct fixture *x)
{
    remove_file(x, "checkpoint");
}
static void no_sums(struct fixture *x)
{
    remove_file(x, "SHA256SUMS");
}
static void bad_key_file(struct fixture *x)
{
    export_set_file(x, "keys/01234567.pem", "no key\n", 7);
}

static const struct file_case sum_cases[] = {
    {"a sum changed", "sums", "expected SHA-256", NULL, NULL, sum_changed},
    {"a sum in capitals", "sums", "line 1:", NULL, NULL, sum_upper},
    {"a sum missing", "sums", "expected a line in SHA256SUMS", NULL, NULL, sum_missing},
    {"a sum twice", "sums", "once", NULL, NULL, sum_twice},
    {"a sum of a file outside", "sums", "line 1: expected", NULL, NULL, sum_outside},
    {"a sum of a file outside, hidden", "sums", "line 1: expected", NULL, NULL, sum_hidden},
    {"a sum of no file", "missing", "found none", NULL, NULL, sum_of_nothing},
    {"no pending.jsonl", "missing", "found none", NULL, no_pending, NULL},
    {"no audit.jsonl", "missing", "found none", NULL, no_log, NULL},
    {"no checkpoints.txt", "missing", "found none", NULL, no_checkpoints, NULL},
    {"no checkpoint", "missing", "found none", NULL, no_checkpoint, NULL},
    {"no SHA256SUMS", "missing", "found none", NULL, NULL, no_sums},
    {"a key that is none", "keys", "expected a public key", NULL, bad_key_file, NULL},
};

static void set_anchor(struct fixture *x, const struct note *n)
{
    AUTO_MEM char *text = export_note_text(n);

    export_set_file(x, "anchors/2026-11-22", text, strlen(text));
}
static void anchor_good(struct fixture *x)
{
    set_anchor(x, &x->note[1]);
}
static void anchor_forked(struct fixture *x)
{
    struct note n;

    line_replace(&x->line[3], "bsa-1/1", "bsa-1/9");
    n = export_sign(x, x->note[1].size + 1, x->key);
    set_anchor(x, &n);
}
static void anchor_beyond(struct fixture *x)
{
    struct note n = export_sign(x, x->n_lines + 3, x->key);

    set_anchor(x, &n);
}
static void anchor_foreign(struct fixture *x)
{
    struct note n = export_sign(x, 9, x->other);

    set_anchor(x, &n);
}
static void anchor_garbage(struct fixture *x)
{
    export_set_file(x, "anchors/a", "garbage", 7);
}

/* ---- time stamps ---- */

static struct tsa *tsa; /* of the group, as the witnesses */
static struct cosigner *witness, *stranger;

static int make_signers(void **state)
{
    int64_t now_s = (int64_t)time(NULL);

    (void)state;
    tsa = tsa_new(now_s - 86400, now_s + 86400);
    tsa->utc_s = now_s;
    witness = cosigner_new("witness.example/w1");
    stranger = cosigner_new("witness.example/w2");
    return 0;
}

static int free_signers(void **state)
{
    (void)state;
    tsa_free(tsa);
    cosigner_free(witness);
    cosigner_free(stranger);
    return 0;
}

/* A time stamp over a note, under a name. */
static void set_stamp(struct fixture *x, const struct note *n, const char *name)
{
    AUTO_MEM char *text = export_note_text(n);
    AUTO(buf) struct buf *question = NULL;
    AUTO(buf) struct buf *answer = NULL;
    struct timestamp_nonce nonce;

    assert_int_equal(buf_new(1024, &question), 0);
    assert_int_equal(buf_new(TIMESTAMP_MAX, &answer), 0);
    assert_int_equal(timestamp_ask(text, strlen(text), &nonce, question), 0);
    tsa_answer(tsa, question, answer);
    export_set_file(x, name, (const char *)buf_data(answer), buf_len(answer));
}
static void set_stamped(struct fixture *x, const struct note *n)
{
    AUTO_MEM char *text = export_note_text(n);

    export_set_file(x, "anchors/1-5-20261122.note", text, strlen(text));
    set_stamp(x, n, "anchors/1-5-20261122.tsr");
}
static void stamp_good(struct fixture *x)
{
    set_stamped(x, &x->note[1]);
}
static void stamp_of_another_note(struct fixture *x)
{
    set_stamped(x, &x->note[1]);
    set_stamp(x, &x->note[0], "anchors/1-5-20261122.tsr");
}
static void stamp_without_note(struct fixture *x)
{
    set_stamp(x, &x->note[1], "anchors/1-5-20261122.tsr");
}
static void stamp_garbage(struct fixture *x)
{
    set_stamped(x, &x->note[1]);
    export_set_file(x, "anchors/1-5-20261122.tsr", "garbage", 7);
}
static void stamp_of_a_forked_note(struct fixture *x)
{
    struct note n;

    line_replace(&x->line[3], "bsa-1/1", "bsa-1/9");
    n = export_sign(x, x->note[1].size + 1, x->key);
    set_stamped(x, &n);
}

static const struct file_case stamp_cases[] = {
    {"a time stamp", NULL, NULL, NULL, stamp_good, NULL},
    {"one over another note", "timestamp", "it stamps other octets", NULL, stamp_of_another_note,
     NULL},
    {"one without its note", "timestamp", "expected the note", NULL, stamp_without_note, NULL},
    {"one that is none", "timestamp", "not a time stamp", NULL, stamp_garbage, NULL},
    {"one over a note of another log", "anchor", "expected root", NULL, stamp_of_a_forked_note,
     NULL},
};

/* ---- cosignatures ---- */

/* The cosignature of one note behind the octets of a note. */
static void set_cosigned(struct fixture *x, const struct note *n, const struct note *of)
{
    AUTO_MEM char *text = export_note_text(n);
    AUTO_MEM char *whole = NULL;
    char line[COSIGN_LINE_MAX];

    cosigner_line(witness, of, 1764000000, line);
    assert_true(asprintf(&whole, "%s%s", text, line) > 0);
    export_set_file(x, "anchors/1-5-20261122.cosigned", whole, strlen(whole));
}
static void cosigned_good(struct fixture *x)
{
    set_cosigned(x, &x->note[1], &x->note[1]);
}
static void cosigned_of_another_note(struct fixture *x)
{
    set_cosigned(x, &x->note[1], &x->note[0]);
}
static void cosigned_by_nobody(struct fixture *x)
{
    AUTO_MEM char *text = export_note_text(&x->note[1]);

    export_set_file(x, "anchors/1-5-20261122.cosigned", text, strlen(text));
}
static void cosigned_garbage(struct fixture *x)
{
    export_set_file(x, "anchors/1-5-20261122.cosigned", "garbage", 7);
}
static void cosigned_note_alone(struct fixture *x)
{
    cosigned_good(x);
    export_set_file(x, "anchors/1-5-20261122.cosigned", "\n", 1);
}
static void cosigned_fork(struct fixture *x)
{
    struct note n;

    line_replace(&x->line[3], "bsa-1/1", "bsa-1/9");
    n = export_sign(x, x->note[1].size + 1, x->key);
    set_cosigned(x, &n, &n);
}

static const struct file_case cosigned_cases[] = {
    {"a cosigned note", NULL, NULL, NULL, cosigned_good, NULL},
    {"one without a cosignature", "cosigned", "expected a note and one", NULL, cosigned_by_nobody,
     NULL},
    {"one that is none", "cosigned", "expected a note and one", NULL, cosigned_garbage, NULL},
    {"a line end", "cosigned", "expected a note and one", NULL, cosigned_note_alone, NULL},
    {"a note of another log", "anchor", "expected root", NULL, cosigned_fork, NULL},
};

static const struct file_case anchor_cases[] = {
    {"an anchor", NULL, NULL, NULL, anchor_good, NULL},
    {"an anchor of another log", "anchor", "expected root", NULL, anchor_forked, NULL},
    {"an anchor beyond the log", "anchor", "records, found", NULL, anchor_beyond, NULL},
    {"an anchor of another key", "signature", "found none", NULL, anchor_foreign, NULL},
    {"an anchor that is none", "anchor", "expected a note", NULL, anchor_garbage, NULL},
};

static void run_file_cases(const struct file_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct file_case *c = &cases[i];
        struct fixture *x = export_new();
        struct audit *a;

        export_make_lines(x);
        if (c->lines)
            c->lines(x);
        export_make_notes(x);
        export_make_files(x);
        if (c->files)
            c->files(x);
        export_make_sums(x);
        if (c->sums)
            c->sums(x);
        export_write(x);
        a = look(x);
        if (c->check)
            assert_refused(a, c->name, c->check, c->text);
        else
            assert_verified(a);
        audit_free(a);
        export_free(x);
    }
}

static void verify__checks_records(void **state)
{
    (void)state;
    run_file_cases(record_cases, ARRAY_SIZE(record_cases));
}

static void verify__checks_the_checkpoint(void **state)
{
    (void)state;
    run_file_cases(checkpoint_cases, ARRAY_SIZE(checkpoint_cases));
}

static void verify__checks_all_notes(void **state)
{
    (void)state;
    run_file_cases(note_cases, ARRAY_SIZE(note_cases));
}

static void verify__checks_sums_and_files(void **state)
{
    (void)state;
    run_file_cases(sum_cases, ARRAY_SIZE(sum_cases));
}

static void verify__checks_time_stamps(void **state)
{
    (void)state;
    run_file_cases(stamp_cases, ARRAY_SIZE(stamp_cases));
}

/* By the CA that the auditor brings. */
static void verify__checks_who_signed_a_time_stamp(void **state)
{
    struct tsa *other = tsa_new(0, (int64_t)time(NULL) + 86400);
    struct fixture *x = export_new();

    (void)state;
    export_make_lines(x);
    export_make_notes(x);
    export_make_files(x);
    stamp_good(x);
    export_make_sums(x);
    export_write(x);
    for (unsigned i = 0; i < 2; i++) {
        AUTO(audit) struct audit *a = look_trusting(
            x, &(struct look){.key = x->key, .tsa = i == 0 ? tsa->store : other->store});

        assert_int_equal(a->n_failures, i);
        assert_int_equal(a->n_stamps, 1 - i);
        if (i == 1)
            assert_non_null(strstr(a->failure[0].text, "certificate refused"));
        else
            assert_int_equal(a->stamp[0].utc_us, tsa->utc_s * 1000000);
    }
    tsa_free(other);
    export_free(x);
}

static void verify__checks_cosigned_notes(void **state)
{
    (void)state;
    run_file_cases(cosigned_cases, ARRAY_SIZE(cosigned_cases));
}

/* What is said by an auditor who brings these keys of witnesses; NULL: nothing is wrong. */
static void look_by(void (*make)(struct fixture *x), const struct cosigner *const *by, size_t n,
                    const char *said)
{
    struct cosign_key key[2];
    struct fixture *x = export_new();
    AUTO(audit) struct audit *a = NULL;

    export_make_lines(x);
    export_make_notes(x);
    export_make_files(x);
    make(x);
    export_make_sums(x);
    export_write(x);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(cosign_key_read(by[i]->key, strlen(by[i]->key), &key[i]), 0);
    a = look_trusting(x, &(struct look){.key = x->key, .witness = key, .n_witnesses = n});
    if (said) {
        assert_int_equal(a->n_failures, 1);
        assert_string_equal(a->failure[0].check, "cosigned");
        assert_non_null(strstr(a->failure[0].text, said));
        assert_int_equal(a->n_cosigned, 0);
    } else {
        assert_verified(a);
        assert_int_equal(a->n_cosigned, 1);
        assert_int_equal(a->cosigned[0].utc_us, INT64_C(1764000000) * 1000000);
        assert_int_equal(a->cosigned[0].size, x->note[1].size);
    }
    export_free(x);
}

static void verify__checks_who_cosigned(void **state)
{
    const struct cosigner *const both[] = {stranger, witness};

    (void)state;
    look_by(cosigned_good, both, 2, NULL);
    look_by(cosigned_good, both + 1, 1, NULL);
    look_by(cosigned_good, both, 0, NULL);
    look_by(cosigned_good, both, 1, "found one of witness.example/w1");
    look_by(cosigned_of_another_note, both, 2, "over its note, found another");
}

static void verify__checks_anchors(void **state)
{
    (void)state;
    run_file_cases(anchor_cases, ARRAY_SIZE(anchor_cases));
}

/* Whatever octet of the log, the notes or the checkpoint is another: new sums do not help. */
static void verify__refuses_any_changed_octet(void **state)
{
    static const char *const names[] = {"audit.jsonl", "checkpoints.txt", "checkpoint"};
    struct fixture *x = export_new();
    uint32_t random[2];

    (void)state;
    export_make(x);
    for (size_t i = 0; i < 300; i++) {
        struct file *f = export_file(x, names[i % ARRAY_SIZE(names)]);
        struct audit *a;
        char *octet, before;

        assert_int_equal(RAND_bytes((uint8_t *)random, sizeof random), 1);
        octet = &f->octets[random[0] % f->len];
        before = *octet;
        *octet = (char)(before ^ (char)(1 + random[1] % 255));
        export_make_sums(x);
        export_write(x);
        a = look(x);
        if (a->n_failures == 0)
            fail_msg("verified: octet %u of %s as %02x", random[0] % (unsigned)f->len, f->name,
                     (uint8_t)*octet);
        audit_free(a);
        *octet = before;
    }
    export_free(x);
}

/* A pipe must not hold the verifier up, a link not lead it elsewhere. */
static void verify__reads_regular_files_only(void **state)
{
    struct fixture *x = export_new();
    char path[128], moved[128];

    (void)state;
    export_make(x);
    (void)snprintf(path, sizeof path, "%s/audit.jsonl", x->dir);
    (void)snprintf(moved, sizeof moved, "%s/moved", x->dir);
    assert_int_equal(rename(path, moved), 0);
    for (int i = 0; i < 2; i++) {
        struct audit *a;

        assert_int_equal(i == 0 ? mkfifo(path, 0600) : symlink("moved", path), 0);
        a = look(x);
        assert_int_equal(a->error, TEKD_EIO);
        audit_free(a);
        assert_int_equal(unlink(path), 0);
    }
    export_free(x);
}

/* Whatever stood in the export, and wherever it was cut: the document is UTF-8. */
static void report_verify__is_utf8(void **state)
{
    char long_text[4 * FAILURE_TEXT + 1] = "";
    char *json = NULL;
    size_t len = 0;
    struct audit *a;
    FILE *f = open_memstream(&json, &len);

    (void)state;
    assert_non_null(f);
    assert_int_equal(audit_new(&a), 0);
    for (size_t i = 0; i < FAILURE_TEXT; i++)
        (void)snprintf(long_text + 4 * i, 5, "\xf0\x9f\x94\x91");
    for (size_t skip = 0; skip < 4; skip++)
        audit_fail_at(a, "x", "field", "%.*s%s", (int)skip, "abc", long_text);
    audit_fail_at(a, "x", "timestamp", "found: \xff \xc3\xa9 \xe2\x82");
    report_verify(a, REPORT_JSON, f);
    (void)fclose(f);
    assert_non_null(strstr(json, "\"found: \\\\xff \xc3\xa9 \\\\xe2\\\\x82\""));
    for (size_t at = 0, n; at < len; at += n) {
        uint32_t code;

        n = utf8_read(json + at, len - at, &code);
        assert_true(n > 0);
    }
    assert_null(strstr(json, "\\\\xf0")); /* nothing was cut in the middle */
    free(json);
    audit_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verify__checks_records),
        cmocka_unit_test(verify__checks_the_checkpoint),
        cmocka_unit_test(verify__checks_all_notes),
        cmocka_unit_test(verify__checks_sums_and_files),
        cmocka_unit_test(verify__checks_anchors),
        cmocka_unit_test(verify__checks_time_stamps),
        cmocka_unit_test(verify__checks_who_signed_a_time_stamp),
        cmocka_unit_test(verify__checks_cosigned_notes),
        cmocka_unit_test(verify__checks_who_cosigned),
        cmocka_unit_test(verify__refuses_any_changed_octet),
        cmocka_unit_test(report_verify__is_utf8),
        cmocka_unit_test(verify__reads_regular_files_only),
    };

    return cmocka_run_group_tests(tests, make_signers, free_signers);
}
