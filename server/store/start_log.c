/*
 * The start, as far as it reads leaves: hashes the part of the log that was not hashed since the
 * anchor, adopts the tail of a crash, and queues the first records of this run.
 */
#include "internal.h"

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* ---- leaves ---------------------------------------------------------------------------------- */

/* 1: the leaves up to this note are those that it signs. */
static int note_agrees(struct db *db, struct merkle_range *range, const struct note *n,
                       struct merkle_hash *ret_root)
{
    int r = rows_leaves(db, range->size, n->size - range->size, audit_extend, range);

    merkle_range_root(range, ret_root);
    if (r < 0 && r != TEKD_ETAMPER)
        return r;
    return r == 0 && range->size == n->size && same_hash(ret_root, &n->root);
}

/* Goes through all checkpoints for the first one that differs: the record is under that. */
void start_say_tamper(struct db *db, uint64_t size)
{
    const enum db_statement st = DB_CHECKPOINT_WALK;
    struct merkle_range range;
    struct merkle_hash root;
    struct note n;
    uint64_t from = 0;
    int r = db_query(db, st, DB_VALUES(db_int(0), db_int(INT64_MAX)));

    merkle_range_init(&range);
    while (r >= 0 && (r = db_step(db, st)) == 1 && from < size) {
        size_t len;
        const char *p = db_column_octets(db, st, 1, &len);

        if (note_read(p, len, &n) < 0 || n.size < from)
            break;
        if (note_agrees(db, &range, &n, &root) != 1) {
            (void)start_tamper_root("root", range.size < n.size ? range.size : from, &n.root,
                                    &root);
            db_end(db, st);
            return;
        }
        from = n.size;
    }
    db_end(db, st);
    (void)start_tamper("root", from, "that of the signed checkpoint", "another");
}

int start_check_leaves(struct start *st)
{
    struct store *s = st->s;
    uint64_t size = st->newest.note.size;
    uint64_t from = size > START_REHASH ? size - START_REHASH : 0;
    struct rows_checkpoint base = {.note = s->tree.note};
    struct merkle_range range;
    struct merkle_hash root;
    int r;

    merkle_range_init(&base.range);
    if (st->have_anchor && st->anchor.size < from)
        from = st->anchor.size;
    if (from > 0) {
        r = rows_checkpoint_under(s->db, from, &base);
        if (r == 0)
            r = start_check_checkpoint(st, &base);
        if (r < 0 && r != TEKD_ENOTFOUND)
            return r;
    }
    range = base.range;
    r = note_agrees(s->db, &range, &st->newest.note, &root);
    if (r < 0)
        return r;
    if (r == 0) {
        start_say_tamper(s->db, size);
        return TEKD_ETAMPER;
    }
    s->idle.target = base.note;
    return 0;
}

/* ---- the tail -------------------------------------------------------------------------------- */

static int look_at_event(struct start *st, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *rec = NULL;
    const char *what = NULL, *ev;
    uint64_t written = 0;
    int r = record_parse(octets, len, &rec, &what);

    if (r == TEKD_EFORMAT)
        return start_tamper("record-form", seq, "a record", what);
    if (r < 0)
        return r;
    if (!record_get_int(rec, "seq", &written) || written != seq)
        return start_tamper_size("record-number", seq, seq, written);
    ev = record_event(rec);
    if (st->stopped && strcmp(ev, "log.started") != 0 && strcmp(ev, "log.recovered") != 0)
        return start_tamper("record-after-stop", seq, "log.started or log.recovered", ev);
    st->stopped = strcmp(ev, "log.stopped") == 0;
    return 0;
}

static int adopt(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct start *st = arg;
    struct tree *t = &st->s->tree;
    struct merkle_hash leaf;

    if (seq != t->next)
        return start_tamper_size("record-missing", t->next, t->next, seq);
    merkle_leaf(octets, len, &leaf);
    audit_adopt(t, &leaf);
    return look_at_event(st, seq, octets, len);
}

static int last_signed(void *arg, uint64_t seq, const void *octets, size_t len)
{
    return look_at_event(arg, seq, octets, len);
}

int start_check_tail(struct start *st)
{
    struct store *s = st->s;
    struct tree *t = &s->tree;
    uint64_t size = st->newest.note.size;
    int r = 0;

    t->note = st->newest.note;
    t->range = st->newest.range;
    t->signed_size = t->size = t->next = t->recent_from = size;
    s->unattested_from = size;
    s->unattested_to = st->leaves;
    if (size > 0)
        r = rows_leaves(s->db, size - 1, 1, last_signed, st);
    if (r == 0)
        r = rows_leaves(s->db, size, st->leaves - size, adopt, st);
    if (r < 0)
        return r;
    if (st->clean && t->size > size)
        return start_tamper_size("record-after-stop", size, size, t->size);
    if (st->clean && !st->stopped)
        return start_tamper("clean-stop", size, "log.stopped", "another record");
    if (t->size > size)
        t->unsigned_since_us = clock_mono_us();
    return 0;
}

/* ---- the first records ----------------------------------------------------------------------- */

static int own_opened(struct store *s)
{
    AUTO(record) struct record *rec = NULL;
    int r = record_new("log.opened", &rec);

    if (r < 0)
        return r;
    record_str(rec, "origin", s->tree.origin);
    return audit_own(s, TAKE(rec), true);
}

static int own_recovered(struct store *s, uint64_t from, uint64_t to)
{
    AUTO(record) struct record *rec = NULL;
    int r = record_new("log.recovered", &rec);

    if (r < 0)
        return r;
    log_event(LOG_WARN, "store", "recovered", LOG_INT("from", from), LOG_INT("to", to));
    record_int(rec, "from", from);
    record_int(rec, "to", to);
    return audit_own(s, TAKE(rec), true);
}

static int own_started(struct store *s)
{
    AUTO(record) struct record *rec = NULL;
    int r = record_new("log.started", &rec);

    if (r < 0)
        return r;
    record_str(rec, "version", s->o.version);
    record_int(rec, "heartbeat", (uint64_t)s->o.heartbeat_s);
    record_hex(rec, "config", s->o.config_sha256, sizeof(s->o.config_sha256));
    record_int(rec, "window", (uint64_t)(s->o.message_window_us / 1000000));
    record_str(rec, "release", s->o.release == STORE_RELEASE_DURABLE ? "durable" : "signed");
    return audit_own(s, TAKE(rec), true);
}

int start_records(struct start *st)
{
    struct store *s = st->s;
    bool crashed = s->tree.size > s->tree.note.size || !st->stopped;
    int r;

    if (st->leaves == 0)
        r = own_opened(s);
    else
        r = crashed ? own_recovered(s, s->tree.note.size, st->leaves - 1) : 0;
    return r < 0 ? r : own_started(s);
}
