/*
 * Rows of the log: meta, leaf, checkpoint.
 */
#include "internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "tekd/err.h"
#include "tekd/log.h"

#define META_INT_MAX 20 /* digits and sign of an int64_t */
#define WALK_ENDS    1  /* what the walk is after does not go on */

int rows_result(struct store_tx *tx, int r)
{
    /* What the caller can act upon, and a statement of ours that is wrong, end nothing but the
     * item; after the rest nobody knows what became of the transaction. */
    if ((r == TEKD_EIO || r == TEKD_EFULL || r == TEKD_EAGAIN || r == TEKD_ENOMEM) &&
        tx->error == 0)
        tx->error = r;
    return r;
}

int64_t rows_limit(const struct store_walk *w)
{
    return w->limit < INT64_MAX ? (int64_t)w->limit : INT64_MAX;
}

int64_t store_place_pack(uint64_t epoch, uint64_t seq)
{
    assert(epoch >= 1 && epoch <= STORE_EPOCH_MAX && seq <= STORE_SEQ_MAX);
    return (int64_t)((epoch - 1) << STORE_SEQ_BITS | seq);
}

struct store_place store_place_unpack(int64_t packed)
{
    return (struct store_place){.epoch = ((uint64_t)packed >> STORE_SEQ_BITS) + 1,
                                .seq = (uint64_t)packed & STORE_SEQ_MAX};
}

int rows_meta_get(struct db *db, const char *name, void *out, size_t max, size_t *ret_len)
{
    const char *value;
    size_t len;
    int r = db_first(db, DB_META_GET, DB_VALUES(db_text(name)));

    if (r < 0)
        return r;
    value = db_column_octets(db, DB_META_GET, 0, &len);
    if (len <= max) {
        memcpy(out, value, len);
        *ret_len = len;
    }
    db_end(db, DB_META_GET);
    return len <= max ? 0 : TEKD_EIO;
}

int rows_meta_int(struct db *db, const char *name, int64_t *ret_value)
{
    char text[META_INT_MAX + 1];
    size_t len = 0;
    char *end = NULL;
    int64_t value;
    int r = rows_meta_get(db, name, text, META_INT_MAX, &len);

    if (r < 0)
        return r;
    text[len] = '\0';
    value = strtoll(text, &end, 10);
    if (len == 0 || *end != '\0')
        return TEKD_EIO;
    *ret_value = value;
    return 0;
}

int rows_meta_put(struct db *db, const char *name, const void *octets, size_t len)
{
    return db_run(db, DB_META_PUT, DB_VALUES(db_text(name), db_blob(octets, len)), NULL);
}

int rows_meta_put_int(struct db *db, const char *name, int64_t value)
{
    char text[META_INT_MAX + 1];
    int len = snprintf(text, sizeof(text), "%" PRId64, value);

    return rows_meta_put(db, name, text, (size_t)len);
}

int rows_leaf_end(struct db *db, uint64_t epoch, int64_t *ret_end)
{
    int64_t last = epoch > STORE_EPOCH_MAX ? INT64_MAX : store_place_pack(epoch, STORE_SEQ_MAX);
    int r = db_first(db, DB_LEAF_END, DB_VALUES(db_int(last)));

    if (r < 0)
        return r;
    *ret_end = db_column_int(db, DB_LEAF_END, 0);
    db_end(db, DB_LEAF_END);
    return 0;
}

int rows_leaf_insert(struct db *db, struct store_place at, const void *octets, size_t len)
{
    int64_t place = store_place_pack(at.epoch, at.seq);
    int r = db_insert(db, DB_LEAF_INSERT, DB_VALUES(db_int(place), db_blob(octets, len)), NULL);

    /* We number them: another one at our number is not ours. */
    return r == TEKD_EEXIST ? TEKD_EIO : r;
}

static int read_checkpoint(struct db *db, struct rows_checkpoint *ret_checkpoint)
{
    const enum db_statement id = DB_CHECKPOINT_UNDER;
    struct rows_checkpoint c;
    struct view v;
    uint64_t size = store_place_unpack(db_column_int(db, id, 0)).seq;
    size_t len;
    const char *p = db_column_octets(db, id, 1, &len);

    if (note_read(p, len, &c.note) < 0 || c.note.size != size)
        return TEKD_ETAMPER;
    p = db_column_octets(db, id, 2, &len);
    v = view_of(p, len);
    if (merkle_range_get(&v, &c.range) < 0 || view_end(&v) < 0 || c.range.size != size)
        return TEKD_ETAMPER;
    *ret_checkpoint = c;
    return 0;
}

int rows_checkpoint_under(struct db *db, struct store_place at,
                          struct rows_checkpoint *ret_checkpoint)
{
    int64_t place = store_place_pack(at.epoch, at.seq);
    int r = db_first(db, DB_CHECKPOINT_UNDER, DB_VALUES(db_int(place)));

    if (r < 0)
        return r;
    if (store_place_unpack(db_column_int(db, DB_CHECKPOINT_UNDER, 0)).epoch != at.epoch) {
        db_end(db, DB_CHECKPOINT_UNDER);
        return TEKD_ENOTFOUND;
    }
    r = read_checkpoint(db, ret_checkpoint);
    if (r == TEKD_ETAMPER)
        log_event(
            LOG_ERROR, "store", "tamper", LOG_STR("check", "checkpoint-form"),
            LOG_INT("record", store_place_unpack(db_column_int(db, DB_CHECKPOINT_UNDER, 0)).seq),
            LOG_STR("expected", "a note of this size and its range"),
            LOG_STR("found", "something else"));
    db_end(db, DB_CHECKPOINT_UNDER);
    return r;
}

int rows_checkpoint_newest(struct db *db, int64_t *ret_place)
{
    int r = db_first(db, DB_CHECKPOINT_UNDER, DB_VALUES(db_int(INT64_MAX)));

    if (r < 0)
        return r;
    *ret_place = db_column_int(db, DB_CHECKPOINT_UNDER, 0);
    db_end(db, DB_CHECKPOINT_UNDER);
    return 0;
}

/* What a walk over (integer, octets) needs. */
struct octets_walk {
    enum db_statement id;
    struct store_walk w;
    struct store_tx *tx; /* NULL: the store's own walk */
};

static int walk_octets(struct db *db, const struct octets_walk *o,
                       int (*each)(void *arg, uint64_t key, const void *octets, size_t len))
{
    int stopped = 0;
    int r = db_query(db, o->id, DB_VALUES(db_int(o->w.after), db_int(rows_limit(&o->w))));

    if (r == 0) {
        while (stopped == 0 && (r = db_step(db, o->id)) == 1) {
            size_t len;
            const char *p = db_column_octets(db, o->id, 1, &len);

            stopped = each(o->w.arg, (uint64_t)db_column_int(db, o->id, 0), p, len);
        }
        db_end(db, o->id);
    }
    if (r < 0)
        return o->tx != NULL ? rows_result(o->tx, r) : r;
    return stopped;
}

/* Leaves of one epoch. */
struct epoch_walk {
    uint64_t epoch;
    int (*each)(void *arg, uint64_t seq, const void *octets, size_t len);
    void *arg;
};

static int in_epoch(void *arg, uint64_t place, const void *octets, size_t len)
{
    const struct epoch_walk *w = arg;
    struct store_place at = store_place_unpack((int64_t)place);

    return at.epoch == w->epoch ? w->each(w->arg, at.seq, octets, len) : WALK_ENDS;
}

int rows_leaves(struct db *db, struct store_place from, uint64_t n,
                int (*each)(void *arg, uint64_t seq, const void *octets, size_t len), void *arg)
{
    struct epoch_walk e = {.epoch = from.epoch, .each = each, .arg = arg};
    const struct octets_walk o = {
        .id = DB_LEAF_WALK,
        .w = {.after = store_place_pack(from.epoch, from.seq) - 1, .limit = n, .arg = &e}};
    int r = walk_octets(db, &o, in_epoch);

    return r == WALK_ENDS ? 0 : r;
}

int store_tx_leaf_walk(struct store_tx *tx, const struct store_walk *w,
                       int (*each)(void *arg, uint64_t place, const void *octets, size_t len))
{
    return walk_octets(tx->db, &(struct octets_walk){.id = DB_LEAF_WALK, .w = *w, .tx = tx}, each);
}

int store_tx_note_walk(struct store_tx *tx, const struct store_walk *w,
                       int (*each)(void *arg, uint64_t place, const void *note, size_t len))
{
    return walk_octets(tx->db, &(struct octets_walk){.id = DB_CHECKPOINT_WALK, .w = *w, .tx = tx},
                       each);
}

int store_tx_note_last(struct store_tx *tx, uint64_t epoch, char ret_note[static NOTE_MAX + 1],
                       uint64_t *ret_size)
{
    const enum db_statement st = DB_CHECKPOINT_UNDER;
    struct store_place at;
    int r = db_first(tx->db, st, DB_VALUES(db_int(store_place_pack(epoch, STORE_SEQ_MAX))));

    if (r < 0)
        return rows_result(tx, r);
    at = store_place_unpack(db_column_int(tx->db, st, 0));
    r = at.epoch == epoch ? db_copy_text(tx->db, st, 1, ret_note, NOTE_MAX) : TEKD_ENOTFOUND;
    db_end(tx->db, st);
    if (r == 0)
        *ret_size = at.seq;
    return rows_result(tx, r);
}

int store_tx_range(struct store_tx *tx, struct store_place at, struct merkle_range *ret_range)
{
    struct rows_checkpoint c;
    int r = rows_checkpoint_under(tx->db, at, &c);

    if (r < 0)
        return rows_result(tx, r);
    if (c.range.size != at.seq)
        return TEKD_ENOTFOUND;
    *ret_range = c.range;
    return 0;
}

int store_tx_counts(struct store_tx *tx, struct store_counts *ret_counts)
{
    struct store_counts c = {.messages = tx->s->messages};
    int r = db_first(tx->db, DB_COUNTS, DB_NO_VALUES);

    if (r < 0)
        return rows_result(tx, r);
    c.bsas = (uint64_t)db_column_int(tx->db, DB_COUNTS, 0);
    c.contents = (uint64_t)db_column_int(tx->db, DB_COUNTS, 1);
    c.teks = (uint64_t)db_column_int(tx->db, DB_COUNTS, 2);
    db_end(tx->db, DB_COUNTS);
    *ret_counts = c;
    return 0;
}
