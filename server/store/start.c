/*
 * What is checked before the store serves:
 *
 *     schema, bsm_id      are ours
 *     structure           the whole file, unless the log ended clean
 *     key                 the token's, when it answers, is the one in the database
 *     newest checkpoint   signature, range against its root, not beyond the leaves
 *     anchor file         not beyond the newest checkpoint, the same root at its size
 *     leaves              hashed from before the anchor up to the newest checkpoint; the rest later
 *                         (idle.c)
 *     tail                leaves beyond the newest checkpoint: whole records, nothing after
 *                         log.stopped but a start, none at all if the log ended clean
 *
 * A tail is adopted: log.recovered says which records were under no signature.
 */
#include "internal.h"

#include <inttypes.h>
#include <stdio.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define SCHEMA 1

struct start {
    struct store *s;
    bool fresh; /* no tables were there */
    bool clean; /* as the database says */
    uint64_t leaves;
    struct rows_checkpoint newest;
    bool have_anchor;
    struct note anchor;
    bool stopped; /* the record read last was log.stopped */
};

static int tamper(const char *check, uint64_t record, const char *expected, const char *found)
{
    log_event(LOG_ERROR, "store", "tamper", LOG_STR("check", check), LOG_INT("record", record),
              LOG_STR("expected", expected), LOG_STR("found", found));
    return TEKD_ETAMPER;
}

static int tamper_size(const char *check, uint64_t record, uint64_t expected, uint64_t found)
{
    char text[2][24];

    (void)snprintf(text[0], sizeof(text[0]), "%" PRIu64, expected);
    (void)snprintf(text[1], sizeof(text[1]), "%" PRIu64, found);
    return tamper(check, record, text[0], text[1]);
}

static int tamper_root(const char *check, uint64_t record, const struct merkle_hash *expected,
                       const struct merkle_hash *found)
{
    char text[2][ENC_HEX_LEN(MERKLE_HASH_LEN) + 1];

    enc_hex(expected->octets, sizeof(expected->octets), text[0]);
    enc_hex(found->octets, sizeof(found->octets), text[1]);
    return tamper(check, record, text[0], text[1]);
}

static bool same_hash(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* ---- whose database it is ---------------------------------------------------------------------
 */

static int make_tables(struct store *s)
{
    const struct db_driver *driver = db_driver(s->db);
    int r = driver->begin(s->db);

    if (r == 0)
        r = driver->create(s->db);
    if (r == 0)
        r = rows_meta_put_int(s->db, "schema", SCHEMA);
    if (r == 0)
        r = rows_meta_put(s->db, "bsm_id", s->o.bsm_id, strlen(s->o.bsm_id));
    if (r == 0)
        r = rows_meta_put_int(s->db, "epoch", 1);
    if (r == 0)
        return driver->commit(s->db);
    driver->rollback(s->db);
    return r;
}

static int refuse(const char *what, const char *expected, const char *found)
{
    log_event(LOG_ERROR, "store", "database-of-another", LOG_STR("what", what),
              LOG_STR("expected", expected), LOG_STR("found", found));
    return TEKD_EINVAL;
}

static int check_owner(struct store *s)
{
    char bsm_id[STORE_ID_MAX + 1] = "";
    size_t len = 0;
    int64_t schema = 0, epoch = 0;
    int r = rows_meta_int(s->db, "schema", &schema);

    if (r == TEKD_ENOTFOUND || r == TEKD_EINTERNAL) /* tables, but not ours */
        return refuse("tables", "tekd", "other");
    if (r == 0 && schema != SCHEMA)
        return refuse("schema", "1", "a newer one");
    if (r == 0)
        r = rows_meta_get(s->db, "bsm_id", bsm_id, STORE_ID_MAX, &len);
    if (r == 0)
        r = rows_meta_int(s->db, "epoch", &epoch);
    if (r < 0)
        return r == TEKD_ENOTFOUND ? refuse("tables", "bsm_id and epoch", "none") : r;
    if (strcmp(bsm_id, s->o.bsm_id) != 0)
        return refuse("bsm_id", s->o.bsm_id, bsm_id);
    s->tree.epoch = (uint64_t)epoch;
    return note_origin(s->o.bsm_id, s->tree.epoch, s->tree.origin);
}

static int check_file(struct start *st)
{
    struct store *s = st->s;
    int64_t clean = 0;
    int r = db_driver(s->db)->is_empty(s->db, &st->fresh);

    if (r == 0 && st->fresh)
        r = make_tables(s);
    if (r == 0)
        r = check_owner(s);
    if (r < 0)
        return r;
    r = rows_meta_int(s->db, "clean", &clean);
    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    st->clean = clean == 1;
    s->idle.scan = st->clean;
    if (st->fresh || st->clean)
        return 0;
    log_event(LOG_INFO, "store", "checking-after-crash");
    return db_driver(s->db)->check(s->db);
}

static int check_key(struct start *st)
{
    struct store *s = st->s;
    uint8_t der[HSM_SPKI_MAX];
    size_t len = 0;
    int r = rows_meta_get(s->db, "key", der, sizeof(der), &len);

    if (r == 0) {
        r = signer_set_key(s, der, len);
        if (r < 0)
            return tamper("checkpoint-key", 0, "a public key", "something else");
    } else if (r != TEKD_ENOTFOUND) {
        return r;
    }
    r = signer_learn_key(s, clock_mono_us() + START_KEY_US, &s->store_key);
    if (r == TEKD_ETAMPER)
        return r;
    if (r < 0)
        log_event(LOG_WARN, "store", "token-not-asked", LOG_STR("error", tekd_errname(r)));
    return 0;
}

/* ---- checkpoints ------------------------------------------------------------------------------
 */

static int check_checkpoint(struct start *st, const struct rows_checkpoint *c)
{
    struct store *s = st->s;
    struct merkle_hash root;

    if (strcmp(c->note.origin, s->tree.origin) != 0)
        return tamper("checkpoint-origin", c->note.size, s->tree.origin, c->note.origin);
    if (s->signer.key == NULL)
        return tamper("checkpoint-key", c->note.size, "the key of the checkpoints", "none");
    if (note_verify(&c->note, s->signer.key) < 0)
        return tamper("checkpoint-signature", c->note.size, "one of the checkpoint key",
                      "none that verifies");
    merkle_range_root(&c->range, &root);
    if (!same_hash(&root, &c->note.root))
        return tamper_root("checkpoint-range", c->note.size, &c->note.root, &root);
    return 0;
}

static int check_newest(struct start *st)
{
    struct store *s = st->s;
    int r = rows_leaf_count(s->db, &st->leaves);

    if (r == 0)
        r = rows_checkpoint_under(s->db, INT64_MAX, &st->newest);
    if (r == TEKD_ENOTFOUND) {
        st->newest.note = s->tree.note;
        merkle_range_init(&st->newest.range);
        return 0;
    }
    if (r == 0)
        r = check_checkpoint(st, &st->newest);
    if (r < 0)
        return r;
    if (st->newest.note.size > st->leaves)
        return tamper_size("records", st->leaves, st->newest.note.size, st->leaves);
    return 0;
}

static int compare_anchor(struct start *st)
{
    struct store *s = st->s;
    struct rows_checkpoint at;
    uint64_t size = st->anchor.size;
    int r;

    if (strcmp(st->anchor.origin, s->tree.origin) != 0)
        return tamper("anchor-origin", size, s->tree.origin, st->anchor.origin);
    if (s->signer.key == NULL || note_verify(&st->anchor, s->signer.key) < 0)
        return tamper("anchor-signature", size, "one of the checkpoint key", "none that verifies");
    if (size > st->newest.note.size)
        return tamper_size("anchor-beyond-database", st->newest.note.size, size,
                           st->newest.note.size);
    r = rows_checkpoint_under(s->db, size, &at);
    if (r == TEKD_ENOTFOUND || (r == 0 && at.note.size != size))
        return tamper("anchor-checkpoint", size, "a checkpoint of its size", "none");
    if (r == 0 && !same_hash(&at.note.root, &st->anchor.root))
        return tamper_root("anchor-root", size, &st->anchor.root, &at.note.root);
    return r;
}

static int check_anchor(struct start *st)
{
    struct store *s = st->s;
    int r;

    if (s->o.anchor_file == NULL)
        return 0;
    r = anchor_read(s->o.anchor_file, &st->anchor);
    if (r == TEKD_ENOTFOUND) {
        if (st->newest.note.size > 0)
            log_event(LOG_WARN, "store", "anchor-missing", LOG_STR("path", s->o.anchor_file));
        return 0;
    }
    if (r == TEKD_EFORMAT)
        return tamper("anchor-form", 0, "a note", "something else");
    if (r == 0)
        r = compare_anchor(st);
    if (r == 0) {
        st->have_anchor = true;
        s->anchor.written = st->anchor.size;
    }
    return r;
}

/* ---- leaves -----------------------------------------------------------------------------------
 */

static int hash_leaf(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct merkle_range *range = arg;
    struct merkle_hash leaf;

    if (seq != range->size)
        return TEKD_ETAMPER;
    merkle_leaf(octets, len, &leaf);
    merkle_range_append(range, &leaf);
    return 0;
}

/* 1: the leaves up to this note are those that it signs. */
static int note_agrees(struct db *db, struct merkle_range *range, const struct note *n,
                       struct merkle_hash *ret_root)
{
    int r = rows_leaves(db, range->size, n->size - range->size, hash_leaf, range);

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
            (void)tamper_root("root", range.size < n.size ? range.size : from, &n.root, &root);
            db_end(db, st);
            return;
        }
        from = n.size;
    }
    db_end(db, st);
    (void)tamper("root", from, "that of the signed checkpoint", "another");
}

static int check_leaves(struct start *st)
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
            r = check_checkpoint(st, &base);
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

/* ---- the tail ---------------------------------------------------------------------------------
 */

static int look_at_event(struct start *st, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *rec = NULL;
    const char *what = NULL, *ev;
    uint64_t written = 0;
    int r = record_parse(octets, len, &rec, &what);

    if (r == TEKD_EFORMAT)
        return tamper("record-form", seq, "a record", what);
    if (r < 0)
        return r;
    if (!record_get_int(rec, "seq", &written) || written != seq)
        return tamper_size("record-number", seq, seq, written);
    ev = record_event(rec);
    if (st->stopped && strcmp(ev, "log.started") != 0 && strcmp(ev, "log.recovered") != 0)
        return tamper("record-after-stop", seq, "log.started or log.recovered", ev);
    st->stopped = strcmp(ev, "log.stopped") == 0;
    return 0;
}

static int adopt(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct start *st = arg;
    struct tree *t = &st->s->tree;
    struct merkle_hash leaf;

    if (seq != t->next)
        return tamper_size("record-missing", t->next, t->next, seq);
    merkle_leaf(octets, len, &leaf);
    audit_adopt(t, &leaf);
    return look_at_event(st, seq, octets, len);
}

static int last_signed(void *arg, uint64_t seq, const void *octets, size_t len)
{
    return look_at_event(arg, seq, octets, len);
}

static int check_tail(struct start *st)
{
    struct store *s = st->s;
    struct tree *t = &s->tree;
    uint64_t size = st->newest.note.size;
    int r = 0;

    t->note = st->newest.note;
    t->range = st->newest.range;
    t->signed_size = t->size = t->next = t->recent_from = size;
    if (size > 0)
        r = rows_leaves(s->db, size - 1, 1, last_signed, st);
    if (r == 0)
        r = rows_leaves(s->db, size, st->leaves - size, adopt, st);
    if (r < 0)
        return r;
    if (st->clean && t->size > size)
        return tamper_size("record-after-stop", size, size, t->size);
    if (st->clean && !st->stopped)
        return tamper("clean-stop", size, "log.stopped", "another record");
    if (t->size > size)
        t->unsigned_since_us = clock_mono_us();
    return 0;
}

/* ---- the first records ------------------------------------------------------------------------
 */

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
    return audit_own(s, TAKE(rec), true);
}

static int own_records(struct start *st)
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

static void empty_tree(struct tree *t)
{
    merkle_range_init(&t->range);
    t->note = (struct note){.size = 0};
    merkle_range_root(&t->range, &t->note.root);
    (void)snprintf(t->note.origin, sizeof(t->note.origin), "%s", t->origin);
    t->note_committed = true;
}

int start_check(struct store *s)
{
    static int (*const checks[])(struct start *) = {check_key,    check_newest, check_anchor,
                                                    check_leaves, check_tail,   own_records};
    struct start st = {.s = s};
    int r = check_file(&st);

    if (r < 0)
        return r;
    empty_tree(&s->tree);
    merkle_range_init(&s->idle.range);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(checks); i++)
        r = checks[i](&st);
    s->mark_open = true;
    s->idle.old_size = s->tree.size;
    return r;
}
