/*
 * What is checked before the store serves, in this order; each contradiction ends the start:
 *
 *   1. the file: schema and bsm_id are ours; its whole structure, unless the log ended clean
 *   2. the keys of the token, if it answers: those in the database, or ones that replace them as
 *      the settings say (signkey.c)
 *   3. the epoch: nothing is of a later one
 *   4. the newest checkpoint: its signature; its range against its root; not beyond the leaves
 *   5. the epoch before: it ended with its newest checkpoint, which covers log.closed
 *   6. the anchor file: not beyond the newest checkpoint, and the same root at its size
 *   7. the leaves: hashed from before the anchor to the newest checkpoint; older ones in the
 *      background (idle.c)
 *   8. the tail, the leaves beyond the newest checkpoint: whole records; none at all if the log
 *      ended clean; nothing but a start after log.stopped; log.closed only as all of it;
 *      log.signkey only of keys of the token
 *   9. record 0: log.opened, with the newest checkpoint of the epoch before
 *
 * A tail is adopted: log.recovered says which records were under no signature.  A tail that is
 * log.closed is signed as it is, and this run begins with the next epoch (epoch.c).
 *
 * Tables of an older schema are brought up to ours last, when the log is known to be what was
 * signed.
 */
#include "internal.h"

#include <inttypes.h>
#include <stdio.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

int start_tamper(const char *check, uint64_t record, const char *expected, const char *found)
{
    log_event(LOG_ERROR, "store", "tamper", LOG_STR("check", check), LOG_INT("record", record),
              LOG_STR("expected", expected), LOG_STR("found", found));
    return TEKD_ETAMPER;
}

int start_tamper_size(const char *check, uint64_t record, uint64_t expected, uint64_t found)
{
    char text[2][24];

    (void)snprintf(text[0], sizeof(text[0]), "%" PRIu64, expected);
    (void)snprintf(text[1], sizeof(text[1]), "%" PRIu64, found);
    return start_tamper(check, record, text[0], text[1]);
}

int start_tamper_root(const char *check, uint64_t record, const struct merkle_hash *expected,
                      const struct merkle_hash *found)
{
    char text[2][ENC_HEX_LEN(MERKLE_HASH_LEN) + 1];

    enc_hex(expected->octets, sizeof(expected->octets), text[0]);
    enc_hex(found->octets, sizeof(found->octets), text[1]);
    return start_tamper(check, record, text[0], text[1]);
}

/* ---- whose database it is -------------------------------------------------------------------- */

static int make_tables(struct store *s)
{
    const struct db_driver *driver = db_driver(s->db);
    int r = driver->begin(s->db);

    if (r == 0)
        r = driver->upgrade(s->db, 0);
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

static int upgrade(struct start *st)
{
    const struct db_driver *driver = db_driver(st->s->db);
    struct db *db = st->s->db;
    int r;

    if (st->schema == SCHEMA)
        return 0;
    r = driver->begin(db);
    if (r == 0)
        r = driver->upgrade(db, st->schema);
    if (r == 0)
        r = rows_meta_put_int(db, "schema", SCHEMA);
    if (r == 0)
        r = driver->commit(db);
    if (r < 0) {
        driver->rollback(db);
        return r;
    }
    log_event(LOG_INFO, "store", "tables-upgraded", LOG_INT("from", st->schema),
              LOG_INT("to", SCHEMA));
    return 0;
}

static int check_schema(struct start *st)
{
    int64_t schema = 0;
    int r = rows_meta_int(st->s->db, "schema", &schema);

    if (r == TEKD_ENOTFOUND || r == TEKD_EINTERNAL) /* tables, but not ours */
        return refuse("tables", "tekd", "other");
    if (r == 0 && (schema < 1 || schema > SCHEMA)) {
        char expected[24], found[24];

        (void)snprintf(expected, sizeof(expected), "at most %d", SCHEMA);
        (void)snprintf(found, sizeof(found), "%" PRId64, schema);
        return refuse("schema", expected, found);
    }
    st->schema = (unsigned)schema;
    return r;
}

static int check_owner(struct store *s)
{
    char bsm_id[STORE_ID_MAX + 1] = "";
    size_t len = 0;
    int64_t epoch = 0;
    int r = rows_meta_get(s->db, "bsm_id", bsm_id, STORE_ID_MAX, &len);

    if (r == 0)
        r = rows_meta_int(s->db, "epoch", &epoch);
    if (r < 0)
        return r == TEKD_ENOTFOUND ? refuse("tables", "bsm_id and epoch", "none") : r;
    if (strcmp(bsm_id, s->o.bsm_id) != 0)
        return refuse("bsm_id", s->o.bsm_id, bsm_id);
    if (epoch < 1 || (uint64_t)epoch > STORE_EPOCH_MAX)
        return refuse("tables", "an epoch", "something else");
    s->tree.epoch = (uint64_t)epoch;
    return note_origin(s->o.bsm_id, s->tree.epoch, s->tree.origin);
}

/* What an earlier run left to be done, or did. */
static int read_marks(struct start *st)
{
    struct store *s = st->s;
    int64_t clean = 0, purge = 0, opened = 0;
    int r = rows_meta_int(s->db, "clean", &clean);

    if (r == 0 || r == TEKD_ENOTFOUND)
        r = rows_meta_int(s->db, "purge", &purge);
    if (r == 0 || r == TEKD_ENOTFOUND)
        r = rows_meta_int(s->db, "opened", &opened);
    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    st->clean = clean == 1;
    s->tree.opened_size = opened > 0 ? (uint64_t)opened : 0;
    s->idle.scan = st->clean;
    if (purge == 1)
        idle_purge(s);
    return 0;
}

static int check_file(struct start *st)
{
    struct store *s = st->s;
    int r = db_driver(s->db)->is_empty(s->db, &st->fresh);

    if (r == 0 && st->fresh)
        r = make_tables(s);
    if (r == 0)
        r = check_schema(st);
    if (r == 0)
        r = check_owner(s);
    if (r == 0)
        r = read_marks(st);
    if (r < 0 || st->fresh || st->clean)
        return r;
    log_event(LOG_INFO, "store", "checking-after-crash");
    return db_driver(s->db)->check(s->db);
}

static int check_keys(struct start *st)
{
    struct store *s = st->s;
    bool learnt = false;
    int r = signkey_read(s);

    if (r < 0)
        return r;
    r = signkey_learn(s, clock_mono_us() + START_KEY_US, &learnt);
    if (r == TEKD_ETAMPER)
        return r;
    if (learnt)
        signkey_learnt(s);
    if (r < 0)
        log_event(LOG_WARN, "store", "token-not-asked", LOG_STR("error", tekd_errname(r)));
    return 0;
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

int start_check_checkpoint(struct start *st, uint64_t epoch, const struct rows_checkpoint *c)
{
    struct store *s = st->s;
    char origin[NOTE_ORIGIN_MAX + 1];
    struct merkle_hash root;
    int r = note_origin(s->o.bsm_id, epoch, origin);

    if (r < 0)
        return r;
    if (strcmp(c->note.origin, origin) != 0)
        return start_tamper("checkpoint-origin", c->note.size, origin, c->note.origin);
    if (s->keys.log[STORE_KEY_MAIN].key == NULL)
        return start_tamper("checkpoint-key", c->note.size, "the key of the checkpoints", "none");
    if (signkey_verify(s, &c->note) < 0)
        return start_tamper("checkpoint-signature", c->note.size, "one of the checkpoint key",
                            "none that verifies");
    merkle_range_root(&c->range, &root);
    if (!same_hash(&root, &c->note.root))
        return start_tamper_root("checkpoint-range", c->note.size, &c->note.root, &root);
    return 0;
}

/* An epoch begins with records, in the transaction that makes it the current one. */
static int check_epoch(struct start *st)
{
    struct store *s = st->s;
    uint64_t epoch = s->tree.epoch;
    int64_t end = 0, newest = 0;
    struct store_place at;
    int r = rows_leaf_end(s->db, STORE_EPOCH_MAX + 1, &end);

    if (r == 0)
        r = rows_checkpoint_newest(s->db, &newest);
    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    at = store_place_unpack(end);
    if (at.epoch != epoch)
        return start_tamper_size("epoch", 0, epoch, at.epoch);
    if (store_place_unpack(newest).epoch > epoch)
        return start_tamper_size("epoch", 0, epoch, store_place_unpack(newest).epoch);
    st->leaves = at.seq;
    return 0;
}

/* The newest note of all: a retired key may have been stolen since. */
static int check_newest_signature(struct store *s, const struct note *n)
{
    return signkey_verify_newest(s, n) == 0
               ? 0
               : start_tamper("checkpoint-signature", n->size, "one of the checkpoint key",
                              "none but of keys that it replaced");
}

static int check_newest(struct start *st)
{
    struct store *s = st->s;
    const struct store_place last = {.epoch = s->tree.epoch, .seq = STORE_SEQ_MAX};
    int r = rows_checkpoint_under(s->db, last, &st->newest);

    if (r == TEKD_ENOTFOUND) {
        st->newest.note = s->tree.note;
        merkle_range_init(&st->newest.range);
        return 0;
    }
    if (r == 0)
        r = start_check_checkpoint(st, last.epoch, &st->newest);
    if (r == 0)
        r = check_newest_signature(s, &st->newest.note);
    if (r < 0)
        return r;
    if (st->newest.note.size > st->leaves)
        return start_tamper_size("records", st->leaves, st->newest.note.size, st->leaves);
    return 0;
}

static int check_before(struct start *st)
{
    struct store *s = st->s;
    const struct store_place last = {.epoch = s->tree.epoch - 1, .seq = STORE_SEQ_MAX};
    const struct note *n = &st->before.note;
    int64_t end = 0;
    int r;

    if (last.epoch == 0)
        return 0;
    r = rows_checkpoint_under(s->db, last, &st->before);
    if (r == TEKD_ENOTFOUND)
        return start_tamper("epoch-before", 0, "the last checkpoint of the epoch before", "none");
    if (r == 0)
        r = start_check_checkpoint(st, last.epoch, &st->before);
    /* No note of the current epoch: then its keys are still those of this one, since a note of the
     * same epoch is what makes another key that of the log. */
    if (r == 0 && st->newest.note.size == 0)
        r = check_newest_signature(s, n);
    if (r == 0)
        r = rows_leaf_end(s->db, last.epoch, &end);
    if (r < 0)
        return r;
    if (end != store_place_pack(last.epoch, n->size))
        return start_tamper_size("epoch-before", n->size, n->size, store_place_unpack(end).seq);
    s->epoch.last = *n;
    return 0;
}

/* Of which epoch of this log a note is; 0: of none. */
static uint64_t epoch_of(const struct store *s, const char *origin)
{
    const char *slash = strrchr(origin, '/');
    char expected[NOTE_ORIGIN_MAX + 1];
    uint64_t epoch = slash != NULL ? strtoull(slash + 1, NULL, 10) : 0;

    if (epoch == 0 || epoch > STORE_EPOCH_MAX || note_origin(s->o.bsm_id, epoch, expected) < 0)
        return 0;
    return strcmp(origin, expected) == 0 ? epoch : 0;
}

static int check_anchor_note(struct start *st)
{
    struct store *s = st->s;
    uint64_t size = st->anchor.size;

    st->anchor_epoch = epoch_of(s, st->anchor.origin);
    if (st->anchor_epoch == 0)
        return start_tamper("anchor-origin", size, s->tree.origin, st->anchor.origin);
    if (signkey_verify(s, &st->anchor) < 0)
        return start_tamper("anchor-signature", size, "one of the checkpoint key",
                            "none that verifies");
    if (st->anchor_epoch > s->tree.epoch)
        return start_tamper("anchor-beyond-database", size, st->anchor.origin, s->tree.origin);
    if (size > (st->anchor_epoch < s->tree.epoch ? STORE_SEQ_MAX : st->newest.note.size))
        return start_tamper_size("anchor-beyond-database", st->newest.note.size, size,
                                 st->newest.note.size);
    return 0;
}

static int compare_anchor(struct start *st)
{
    struct store *s = st->s;
    struct rows_checkpoint at;
    uint64_t size = st->anchor.size;
    int r = check_anchor_note(st);

    if (r < 0)
        return r;
    r = rows_checkpoint_under(s->db, (struct store_place){.epoch = st->anchor_epoch, .seq = size},
                              &at);
    if (r == TEKD_ENOTFOUND || (r == 0 && at.note.size != size))
        return start_tamper("anchor-checkpoint", size, "a checkpoint of its size", "none");
    if (r == 0 && !same_hash(&at.note.root, &st->anchor.root))
        return start_tamper_root("anchor-root", size, &st->anchor.root, &at.note.root);
    return r;
}

static int check_anchor(struct start *st)
{
    struct store *s = st->s;
    int64_t utc_us = 0;
    int r;

    if (s->o.anchor_file == NULL)
        return 0;
    r = anchor_read(s->o.anchor_file, &st->anchor, &utc_us);
    if (r == TEKD_ENOTFOUND) {
        if (st->newest.note.size > 0 || s->tree.epoch > 1)
            log_event(LOG_WARN, "store", "anchor-missing", LOG_STR("path", s->o.anchor_file));
        return 0;
    }
    if (r == TEKD_EFORMAT)
        return start_tamper("anchor-form", 0, "a note", "something else");
    if (r == 0)
        r = compare_anchor(st);
    if (r == 0) {
        st->have_anchor = true;
        s->anchor.written = store_place_pack(st->anchor_epoch, st->anchor.size);
        s->anchor.written_utc_us = utc_us;
    }
    return r;
}

/* ---- all of it ------------------------------------------------------------------------------- */

int start_check(struct store *s)
{
    static int (*const checks[])(struct start *) = {
        check_keys,         check_epoch,      check_newest,      check_before, check_anchor,
        start_check_leaves, start_check_tail, start_check_first, upgrade,      start_records,
    };
    struct start st = {.s = s};
    int r = check_file(&st);

    if (r < 0)
        return r;
    audit_empty(&s->tree);
    merkle_range_init(&s->idle.range);
    s->idle.epoch = s->tree.epoch;
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(checks); i++)
        r = checks[i](&st);
    s->mark_open = true;
    s->idle.old_end = store_place_pack(s->tree.epoch, s->tree.size);
    return r;
}
