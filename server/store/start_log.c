/*
 * The start, as far as it reads leaves: hashes the part of the log that was not hashed since the
 * anchor, adopts the tail of a crash, and queues the first records of this run.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* ---- leaves ---------------------------------------------------------------------------------- */

/* 1: the leaves up to this note are those that it signs. */
static int note_agrees(struct db *db, uint64_t epoch, struct merkle_range *range,
                       const struct note *n, struct merkle_hash *ret_root)
{
    const struct store_place from = {.epoch = epoch, .seq = range->size};
    int r = rows_leaves(db, from, n->size - range->size, audit_extend, range);

    merkle_range_root(range, ret_root);
    if (r < 0 && r != TEKD_ETAMPER)
        return r;
    return r == 0 && range->size == n->size && same_hash(ret_root, &n->root);
}

/* Goes through all checkpoints for the first one that differs: the record is under that. */
void start_say_tamper(struct db *db, uint64_t epoch, uint64_t size)
{
    const enum db_statement st = DB_CHECKPOINT_WALK;
    struct merkle_range range;
    struct merkle_hash root;
    struct note n;
    uint64_t from = 0;
    int r = db_query(db, st, DB_VALUES(db_int(store_place_pack(epoch, 0)), db_int(INT64_MAX)));

    merkle_range_init(&range);
    while (r >= 0 && (r = db_step(db, st)) == 1 && from < size) {
        size_t len;
        const char *p = db_column_octets(db, st, 1, &len);

        if (note_read(p, len, &n) < 0 || n.size < from ||
            store_place_unpack(db_column_int(db, st, 0)).epoch != epoch)
            break;
        if (note_agrees(db, epoch, &range, &n, &root) != 1) {
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

/* The leaves from some checkpoint of at most this place up to this note; *ret_base is that one. */
static int check_from(struct start *st, struct store_place from, const struct note *newest,
                      struct note *ret_base)
{
    struct store *s = st->s;
    struct rows_checkpoint base = {.note.size = 0};
    struct merkle_range range;
    struct merkle_hash root;
    int r;

    merkle_range_init(&base.range);
    merkle_range_root(&base.range, &base.note.root);
    if (from.seq > 0) {
        r = rows_checkpoint_under(s->db, from, &base);
        if (r == 0)
            r = start_check_checkpoint(st, from.epoch, &base);
        if (r < 0 && r != TEKD_ENOTFOUND)
            return r;
    }
    range = base.range;
    r = note_agrees(s->db, from.epoch, &range, newest, &root);
    if (r < 0)
        return r;
    if (r == 0) {
        start_say_tamper(s->db, from.epoch, newest->size);
        return TEKD_ETAMPER;
    }
    *ret_base = base.note;
    return 0;
}

/* What was written since an anchor of an epoch that is closed. */
static int check_closed(struct start *st)
{
    struct store *s = st->s;
    struct store_place from = {.epoch = st->anchor_epoch, .seq = st->anchor.size};
    struct rows_checkpoint last;
    struct note base;
    int r = 0;

    for (; r == 0 && from.epoch < s->tree.epoch; from.epoch++, from.seq = 0) {
        r = rows_checkpoint_under(
            s->db, (struct store_place){.epoch = from.epoch, .seq = STORE_SEQ_MAX}, &last);
        if (r == TEKD_ENOTFOUND)
            return start_tamper("epoch-before", 0, "checkpoints of every epoch", "none");
        if (r == 0)
            r = start_check_checkpoint(st, from.epoch, &last);
        if (r == 0)
            r = check_from(st, from, &last.note, &base);
    }
    return r;
}

int start_check_leaves(struct start *st)
{
    struct store *s = st->s;
    uint64_t size = st->newest.note.size;
    uint64_t from = size > START_REHASH ? size - START_REHASH : 0;
    int r = 0;

    if (st->have_anchor && st->anchor_epoch < s->tree.epoch)
        r = check_closed(st);
    if (st->have_anchor && (st->anchor_epoch < s->tree.epoch || st->anchor.size < from))
        from = st->anchor_epoch < s->tree.epoch ? 0 : st->anchor.size;
    if (r < 0)
        return r;
    return check_from(st, audit_place(&s->tree, from), &st->newest.note, &s->idle.target);
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
    if (st->closed)
        return start_tamper("record-after-close", seq, "none behind log.closed", ev);
    if (st->stopped && strcmp(ev, "log.started") != 0 && strcmp(ev, "log.recovered") != 0)
        return start_tamper("record-after-stop", seq, "log.started or log.recovered", ev);
    st->stopped = strcmp(ev, "log.stopped") == 0;
    st->closed = strcmp(ev, "log.closed") == 0;
    return 0;
}

/* Whether an unsigned log.closed is as the store writes it: it is signed as it is. */
static int check_plain_close(struct start *st, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *found = NULL;
    AUTO(record) struct record *plain = NULL;
    struct buf *own = st->s->scratch;
    const char *what = NULL, *t;
    int64_t utc_us = 0;
    int r = record_parse(octets, len, &found, &what);

    if (r == 0)
        r = record_new("log.closed", &plain);
    if (r < 0)
        return r;
    t = record_get_str(found, "t");
    (void)enc_time_read(t, strlen(t), &utc_us);
    buf_reset(own);
    r = record_encode(plain, seq, utc_us, record_get_str(found, "inst"), own);
    if (r == 0 && (buf_len(own) != len || memcmp(buf_data(own), octets, len) != 0))
        r = start_tamper("record-form", seq, "log.closed without further fields", "some");
    return r;
}

/* One that was not signed is of a crash while a key was being replaced, or of somebody else. */
static int take_signkey(struct start *st, const void *octets, size_t len)
{
    AUTO(record) struct record *rec = NULL;
    uint8_t key[SIGNKEY_LEN];
    const char *what = NULL, *hex;
    int r = record_parse(octets, len, &rec, &what);

    if (r < 0 || strcmp(record_event(rec), "log.signkey") != 0)
        return r;
    hex = record_get_str(rec, "key");
    if (hex == NULL || enc_hex_read(hex, strlen(hex), key, sizeof(key)) < 0)
        return start_tamper("record-form", st->s->tree.next - 1, "a fingerprint", "something else");
    signkey_tail(st->s, key);
    return 0;
}

static int adopt(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct start *st = arg;
    struct tree *t = &st->s->tree;
    struct merkle_hash leaf;
    int r;

    if (seq != t->next)
        return start_tamper_size("record-missing", t->next, t->next, seq);
    merkle_leaf(octets, len, &leaf);
    audit_adopt(t, &leaf);
    r = look_at_event(st, seq, octets, len);
    if (r == 0)
        r = take_signkey(st, octets, len);
    return r == 0 && st->closed ? check_plain_close(st, seq, octets, len) : r;
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
        r = rows_leaves(s->db, audit_place(t, size - 1), 1, last_signed, st);
    if (r == 0)
        r = rows_leaves(s->db, audit_place(t, size), st->leaves - size, adopt, st);
    if (r < 0)
        return r;
    if (st->closed && t->size > size + 1)
        return start_tamper("record-before-close", t->size - 1, "log.closed alone unsigned",
                            "others before it");
    if (st->clean && t->size > size)
        return start_tamper_size("record-after-stop", size, size, t->size);
    if (st->clean && !st->stopped)
        return start_tamper("clean-stop", size, "log.stopped", "another record");
    if (t->size > size)
        t->unsigned_since_us = clock_mono_us();
    return signkey_check_tail(s);
}

/* ---- record 0 -------------------------------------------------------------------------------- */

/* That of a later epoch is bound to the one before. */
static int check_bond(const struct start *st, const struct record *rec)
{
    const char *note = record_get_str(rec, "note");
    AUTO(buf) struct buf *expected = NULL;
    int r = buf_new(NOTE_MAX, &expected);

    if (r == 0)
        r = note_write(&st->before.note, expected);
    if (r == 0)
        r = buf_putc(expected, '\0');
    if (r < 0)
        return r;
    if (note == NULL || strcmp(note, (const char *)buf_data(expected)) != 0)
        return start_tamper("epoch-link", 0, "the last checkpoint of the epoch before",
                            note != NULL ? "another" : "none");
    return 0;
}

static int look_at_first(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct start *st = arg;
    AUTO(record) struct record *rec = NULL;
    const char *what = NULL, *t;
    int r = record_parse(octets, len, &rec, &what);

    if (r == TEKD_EFORMAT)
        return start_tamper("record-form", seq, "a record", what);
    if (r < 0)
        return r;
    if (seq != 0 || strcmp(record_event(rec), "log.opened") != 0)
        return start_tamper("record-first", seq, "log.opened as record 0", record_event(rec));
    t = record_get_str(rec, "t");
    (void)enc_time_read(t, strlen(t), &st->s->tree.opened_utc_us); /* record_parse() has read it */
    st->first = true;
    return st->s->tree.epoch > 1 ? check_bond(st, rec) : 0;
}

int start_check_first(struct start *st)
{
    struct store *s = st->s;
    int r = rows_leaves(s->db, audit_place(&s->tree, 0), 1, look_at_first, st);

    if (r < 0 || st->leaves == 0) {
        s->tree.opened_utc_us = clock_utc_us(); /* it is about to begin */
        return r;
    }
    return st->first ? 0 : start_tamper("record-missing", 0, "log.opened", "none");
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

/* Of a log that begins, and of an older tekd's, there is no start to compare with. */
static int own_config_changed(struct store *s)
{
    AUTO(record) struct record *rec = NULL;
    uint8_t before[sizeof(s->o.config_sha256)];
    char detail[sizeof("start: the one before was ") + ENC_HEX_LEN(sizeof(before))];
    size_t len = 0;
    int r = rows_meta_get(s->db, "config", before, sizeof(before), &len);

    if (r == TEKD_ENOTFOUND ||
        (r == 0 && len == sizeof(before) && memcmp(before, s->o.config_sha256, len) == 0))
        return 0;
    if (r == 0)
        r = record_new("config.changed", &rec);
    if (r < 0)
        return r;
    (void)snprintf(detail, sizeof(detail), "start: the one before was ");
    enc_hex(before, sizeof(before), detail + strlen(detail));
    record_str(rec, "actor", "tekd");
    record_hex(rec, "config", s->o.config_sha256, sizeof(s->o.config_sha256));
    record_str(rec, "detail", detail);
    return audit_own(s, TAKE(rec), true);
}

int start_records(struct start *st)
{
    struct store *s = st->s;
    bool crashed = s->tree.size > s->tree.note.size || !st->stopped;
    int r;

    if (st->closed) { /* the first record of this run is the next epoch's */
        s->epoch.state = EPOCH_CLOSED;
        s->unattested_from = s->unattested_to = s->tree.size;
        r = own_started(s);
        return r < 0 ? r : own_config_changed(s);
    }
    if (st->leaves == 0)
        r = own_opened(s);
    else
        r = crashed ? own_recovered(s, s->tree.note.size, st->leaves - 1) : 0;
    if (r == 0)
        r = own_started(s);
    return r < 0 ? r : own_config_changed(s);
}
