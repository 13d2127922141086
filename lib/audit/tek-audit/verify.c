#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"

/* What the table of events says of this record; NULL when it breaks it. */
static const struct event *check_event(struct audit *a, const struct record *r)
{
    const char *name = record_event(r);
    const struct event *e = event_find(name, strlen(name));
    const struct field_rule *f;

    if (!e) {
        audit_fail(a, "event", "expected an event of the table, found %s", name);
        return NULL;
    }
    f = event_violated(e, r);
    if (!f)
        return e;
    audit_fail(a, "field", "expected %s with field %s, %s, found %s", name, f->key,
               field_kind_text(f->kind), record_has(r, f->key) ? "another value" : "none");
    return NULL;
}

static void take_record(struct audit *a, const struct record *r)
{
    const char *t = record_get_str(r, "t");
    const struct event *e;
    uint64_t seq = 0;

    (void)record_get_int(r, "seq", &seq);
    (void)enc_time_read(t, strlen(t), &a->t_us); /* record_parse() has read it */
    if (seq != a->expected_seq)
        audit_fail(a, "seq", "expected seq %" PRIu64 ", found %" PRIu64, a->expected_seq, seq);
    a->expected_seq = seq + 1; /* one hole is one failure */
    e = check_event(a, r);
    if (!e)
        return;
    life_apply(a, r, e->id);
    rules_apply(a, r, e->id);
}

static void take_line(struct audit *a, const char *line, size_t len)
{
    AUTO(record) struct record *r = NULL;
    struct merkle_hash leaf;
    const char *what = NULL;
    int error;

    a->seq = a->range.size;
    merkle_leaf(line, len, &leaf);
    merkle_range_append(&a->range, &leaf);
    error = record_parse(line, len, &r, &what);
    if (error == TEKD_ENOMEM) {
        a->error = error;
    } else if (error < 0) {
        audit_fail(a, "canonical", "expected a record in canonical form, found: %s", what);
        a->expected_seq++;
    } else {
        take_record(a, r);
    }
}

/* One line more; false when reading has to end. */
static bool step(struct audit *a, struct lines *l)
{
    const char *line;
    size_t len;
    int r = lines_next(l, &line, &len);

    a->seq = a->range.size;
    switch (r) {
    case 0:
        break;
    case TEKD_ECLOSED:
        return false;
    case TEKD_ETOOBIG:
        audit_fail(a, "length", "expected at most %d octets, found a longer line", RECORD_MAX);
        return false;
    case TEKD_EFORMAT:
        audit_fail(a, "canonical", "expected a line end behind the last record, found none");
        break;
    default:
        audit_unreadable(a, "audit.jsonl", r, NULL);
        return false;
    }
    if (a->range.size == a->checkpoint.size) {
        audit_fail(a, "size", "expected %" PRIu64 " records, as the checkpoint says, found more",
                   a->checkpoint.size);
        return false;
    }
    take_line(a, line, len);
    return r == 0 && a->error == 0;
}

/* Marks beyond the last record: what they attest is not here. */
static void check_missing(struct audit *a)
{
    for (; a->next_mark < a->n_marks; a->next_mark++) {
        const struct mark *m = &a->mark[a->next_mark];

        audit_fail_at(a, m->where, strcmp(m->check, "root") == 0 ? "size" : m->check,
                      "expected %" PRIu64 " records, found %" PRIu64, m->note.size, a->range.size);
    }
}

static void check_file(struct audit *a, const char *name, struct lines *l)
{
    struct merkle_hash sum;
    int r = lines_digest(l, &sum);

    if (r < 0)
        audit_unreadable(a, name, r, NULL);
    else
        export_check_sum(a, name, &sum);
}

/* What is pending follows from the records; the file is for readers, and only has to be whole. */
static void check_pending(struct audit *a)
{
    AUTO(lines) struct lines *l = NULL;
    const char *why = NULL;
    int r = lines_open(a->dirfd, "pending.jsonl", &l, &why);

    if (r == TEKD_ENOTFOUND)
        audit_fail_at(a, "pending.jsonl", "missing", "expected a file of the export, found none");
    else if (r < 0)
        audit_unreadable(a, "pending.jsonl", r, why);
    else
        check_file(a, "pending.jsonl", l);
}

static void read_log(struct audit *a, struct notes *notes, struct lines *l)
{
    do {
        notes_pass(a, notes);
        marks_pass(a);
    } while (a->error == 0 && step(a, l));
    if (a->error < 0)
        return;
    /* A record that had no line end was taken nevertheless. */
    notes_pass(a, notes);
    marks_pass(a);
    check_missing(a);
    life_finish(a);
    rules_finish(a);
    notes_finish(a, notes);
}

int audit_run(struct audit *a)
{
    AUTO(notes) struct notes *notes = NULL;
    AUTO(lines) struct lines *l = NULL;
    const char *why = NULL;
    int r;

    if (!export_read(a))
        return a->error;
    r = lines_open(a->dirfd, "audit.jsonl", &l, &why);
    if (r == TEKD_ENOTFOUND) {
        audit_fail_at(a, "audit.jsonl", "missing", "expected a file of the export, found none");
        return 0;
    }
    if (r < 0)
        audit_unreadable(a, "audit.jsonl", r, why);
    if (r < 0 || notes_open(a, &notes) < 0)
        return a->error;
    read_log(a, notes, l);
    if (a->error == 0)
        check_file(a, "audit.jsonl", l);
    if (a->error == 0)
        check_pending(a);
    return a->error;
}
