/*
 * The log: numbers records, hashes them, keeps the state of the tree.
 */
#include "internal.h"

#include <assert.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

static void remember(struct tree *t, const struct merkle_hash *leaf)
{
    t->recent[t->next % RECENT_MAX] = *leaf;
    t->next++;
    if (t->next > RECENT_MAX && t->recent_from < t->next - RECENT_MAX)
        t->recent_from = t->next - RECENT_MAX;
}

/* A record that the verifier would refuse must not get into the log. */
static int encode(struct store *s, const struct record *r, int64_t utc_us)
{
    const char *violated = record_violation(r);

    if (violated != NULL && record_error(r) == 0) {
        log_event(LOG_ERROR, "store", "record-incomplete", LOG_STR("ev", record_event(r)),
                  LOG_STR("field", violated));
        return TEKD_EINTERNAL;
    }
    buf_reset(s->scratch);
    return record_encode(r, s->tree.next, utc_us, s->o.instance, s->scratch);
}

int audit_append(struct store *s, const struct record *r, int64_t utc_us)
{
    struct merkle_hash leaf;
    int error = encode(s, r, utc_us);

    if (error < 0)
        return error;
    error = rows_leaf_insert(s->db, audit_place(&s->tree, s->tree.next), buf_data(s->scratch),
                             buf_len(s->scratch));
    if (error < 0)
        return error;
    merkle_leaf(buf_data(s->scratch), buf_len(s->scratch), &leaf);
    remember(&s->tree, &leaf);
    return 0;
}

void audit_empty(struct tree *t)
{
    merkle_range_init(&t->range);
    t->note = (struct note){.size = 0};
    merkle_range_root(&t->range, &t->note.root);
    memcpy(t->note.origin, t->origin, sizeof(t->note.origin));
    t->note_committed = true;
}

void audit_adopt(struct tree *t, const struct merkle_hash *leaf)
{
    remember(t, leaf);
    t->size = t->next;
}

int audit_extend(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct merkle_range *range = arg;
    struct merkle_hash leaf;

    if (seq != range->size)
        return TEKD_ETAMPER;
    merkle_leaf(octets, len, &leaf);
    merkle_range_append(range, &leaf);
    return 0;
}

struct collect {
    struct merkle_hash *leaves;
    size_t n;
    uint64_t from;
};

static int collect_leaf(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct collect *c = arg;

    if (seq != c->from + c->n)
        return TEKD_ETAMPER;
    merkle_leaf(octets, len, &c->leaves[c->n++]);
    return 0;
}

int audit_leaves(struct store *s, uint64_t from, struct merkle_hash *ret_leaves, size_t n)
{
    struct tree *t = &s->tree;
    struct collect c = {.leaves = ret_leaves, .from = from};
    int r;

    assert(from + n <= t->size);
    if (from >= t->recent_from) {
        for (size_t i = 0; i < n; i++)
            ret_leaves[i] = t->recent[(from + i) % RECENT_MAX];
        return 0;
    }
    r = rows_leaves(s->db, audit_place(t, from), n, collect_leaf, &c);
    return r == 0 && c.n != n ? TEKD_ETAMPER : r;
}

int audit_insert_checkpoint(struct store *s)
{
    AUTO(buf) struct buf *note = NULL;
    AUTO(buf) struct buf *range = NULL;
    int r = buf_new(NOTE_MAX, &note);

    if (r == 0)
        r = buf_new(MERKLE_RANGE_OCTETS_MAX, &range);
    if (r == 0)
        r = note_write(&s->tree.note, note);
    if (r == 0)
        r = merkle_range_put(range, &s->tree.range);
    if (r < 0)
        return r;
    return db_insert(s->db, DB_CHECKPOINT_INSERT,
                     DB_VALUES(db_int(store_place_pack(s->tree.epoch, s->tree.note.size)),
                               db_blob(buf_data(note), buf_len(note)),
                               db_blob(buf_data(range), buf_len(range))),
                     NULL);
}

/* Something waits for a batch, and has one made in the end. */
static void ride(struct store *s)
{
    if (s->lazy_since_us == 0)
        s->lazy_since_us = clock_mono_us();
}

int audit_own(struct store *s, struct record *take_r, bool urgent)
{
    if (s->n_own == OWN_MAX) {
        record_free(take_r);
        audit_gap(s, 1);
        return TEKD_EFULL;
    }
    s->own[s->n_own++] = take_r;
    s->own_urgent = s->own_urgent || urgent;
    ride(s);
    return 0;
}

int audit_own_event(struct store *s, const char *event, bool urgent)
{
    struct record *rec = NULL;
    int r = record_new(event, &rec);

    return r < 0 ? r : audit_own(s, rec, urgent);
}

void audit_gap(struct store *s, uint64_t count)
{
    s->gap += count;
    if (s->gap > 0)
        ride(s);
}
