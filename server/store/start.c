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
            return start_tamper("checkpoint-key", 0, "a public key", "something else");
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

/* ---- checkpoints ----------------------------------------------------------------------------- */

int start_check_checkpoint(struct start *st, const struct rows_checkpoint *c)
{
    struct store *s = st->s;
    struct merkle_hash root;

    if (strcmp(c->note.origin, s->tree.origin) != 0)
        return start_tamper("checkpoint-origin", c->note.size, s->tree.origin, c->note.origin);
    if (s->signer.key == NULL)
        return start_tamper("checkpoint-key", c->note.size, "the key of the checkpoints", "none");
    if (note_verify(&c->note, s->signer.key) < 0)
        return start_tamper("checkpoint-signature", c->note.size, "one of the checkpoint key",
                            "none that verifies");
    merkle_range_root(&c->range, &root);
    if (!same_hash(&root, &c->note.root))
        return start_tamper_root("checkpoint-range", c->note.size, &c->note.root, &root);
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
        r = start_check_checkpoint(st, &st->newest);
    if (r < 0)
        return r;
    if (st->newest.note.size > st->leaves)
        return start_tamper_size("records", st->leaves, st->newest.note.size, st->leaves);
    return 0;
}

static int compare_anchor(struct start *st)
{
    struct store *s = st->s;
    struct rows_checkpoint at;
    uint64_t size = st->anchor.size;
    int r;

    if (strcmp(st->anchor.origin, s->tree.origin) != 0)
        return start_tamper("anchor-origin", size, s->tree.origin, st->anchor.origin);
    if (s->signer.key == NULL || note_verify(&st->anchor, s->signer.key) < 0)
        return start_tamper("anchor-signature", size, "one of the checkpoint key",
                            "none that verifies");
    if (size > st->newest.note.size)
        return start_tamper_size("anchor-beyond-database", st->newest.note.size, size,
                                 st->newest.note.size);
    r = rows_checkpoint_under(s->db, size, &at);
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
        if (st->newest.note.size > 0)
            log_event(LOG_WARN, "store", "anchor-missing", LOG_STR("path", s->o.anchor_file));
        return 0;
    }
    if (r == TEKD_EFORMAT)
        return start_tamper("anchor-form", 0, "a note", "something else");
    if (r == 0)
        r = compare_anchor(st);
    if (r == 0) {
        st->have_anchor = true;
        s->anchor.written = st->anchor.size;
        s->anchor.written_utc_us = utc_us;
    }
    return r;
}

/* ---- all of it ------------------------------------------------------------------------------- */

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
    static int (*const checks[])(struct start *) = {
        check_key, check_newest, check_anchor, start_check_leaves, start_check_tail, start_records};
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
