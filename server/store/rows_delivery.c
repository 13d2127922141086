/*
 * Rows of key deliveries, their messages, and fan-outs.  The columns are those of statements.def.
 */
#include "internal.h"

#include <assert.h>

#include "tekd/err.h"

const char *store_delivery_state_name(enum store_delivery_state state)
{
    static const char *const names[STORE_DELIVERY_STATES] = {
        [STORE_DELIVERY_PREPARED] = "prepared",   [STORE_DELIVERY_IN_FLIGHT] = "in-flight",
        [STORE_DELIVERY_REJECTED] = "rejected",   [STORE_DELIVERY_UNKNOWN] = "unknown",
        [STORE_DELIVERY_CONFIRMED] = "confirmed", [STORE_DELIVERY_UNCONFIRMED] = "unconfirmed",
        [STORE_DELIVERY_ABANDONED] = "abandoned",
    };

    return (size_t)state < ARRAY_SIZE(names) ? names[state] : NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int read_delivery(struct db *db, enum db_statement st, struct store_delivery *ret_delivery)
{
    struct store_delivery d = {.row = db_column_int(db, st, 0)};
    int r = db_copy_text(db, st, 1, d.mid, STORE_MID_LEN);

    if (r == 0)
        r = db_copy_octets(db, st, 15, d.out_sha256, sizeof(d.out_sha256));
    if (r == 0)
        r = db_copy_text(db, st, 16, d.why, STORE_WHY_MAX);
    if (r < 0)
        return r;
    d.bsa = db_column_int(db, st, 2);
    d.content = db_column_int(db, st, 3);
    d.tek = db_column_int(db, st, 4);
    d.kek = db_column_int(db, st, 5);
    d.media = (enum store_media)db_column_int(db, st, 6);
    d.state = (enum store_delivery_state)db_column_int(db, st, 7);
    d.attempts = (uint32_t)db_column_int(db, st, 8);
    d.created_us = db_column_int(db, st, 9);
    d.next_us = db_column_int(db, st, 10);
    d.deadline_us = db_column_int(db, st, 11);
    d.seq = (uint64_t)db_column_int(db, st, 12);
    d.epoch = (uint64_t)db_column_int(db, st, 13);
    d.confirmed_seq = (uint64_t)db_column_int(db, st, 14);
    *ret_delivery = d;
    return 0;
}

static int one_delivery(struct store_tx *tx, enum db_statement st, struct db_value key,
                        struct store_delivery *ret_delivery)
{
    int r = db_first(tx->db, st, &key, 1);

    if (r < 0)
        return rows_result(tx, r);
    r = read_delivery(tx->db, st, ret_delivery);
    db_end(tx->db, st);
    return rows_result(tx, r);
}

int store_tx_delivery_find(struct store_tx *tx, const char *mid, size_t len,
                           struct store_delivery *ret_delivery)
{
    if (len != STORE_MID_LEN)
        return TEKD_ENOTFOUND;
    return one_delivery(tx, DB_DELIVERY_FIND, db_textn(mid, len), ret_delivery);
}

int store_tx_delivery_get(struct store_tx *tx, int64_t row, struct store_delivery *ret_delivery)
{
    return one_delivery(tx, DB_DELIVERY_GET, db_int(row), ret_delivery);
}

int store_tx_delivery_message(struct store_tx *tx, int64_t row, struct buf *out)
{
    const enum db_statement st = DB_DELIVERY_MESSAGE;
    size_t len;
    const char *octets;
    int r = db_first(tx->db, st, DB_VALUES(db_int(row)));

    if (r < 0)
        return rows_result(tx, r);
    octets = db_column_octets(tx->db, st, 0, &len);
    r = buf_append(out, octets, len);
    db_end(tx->db, st);
    return r;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int insert_row(struct store_tx *tx, struct store_delivery *d)
{
    return db_insert(tx->db, DB_DELIVERY_INSERT,
                     DB_VALUES(db_text(d->mid), db_int(d->bsa), db_int(d->content), db_int(d->tek),
                               db_int(d->kek), db_int(d->media), db_int(d->state),
                               db_int(d->attempts), db_int(d->created_us), db_int(d->next_us),
                               db_int(d->deadline_us), db_int((int64_t)d->seq),
                               db_int((int64_t)d->epoch), db_int((int64_t)d->confirmed_seq),
                               db_blob(d->out_sha256, sizeof(d->out_sha256)), db_text(d->why)),
                     &d->row);
}

int store_tx_delivery_insert(struct store_tx *tx, struct store_delivery *d, const void *message,
                             size_t len)
{
    int r;

    assert(tx->writes && strlen(d->mid) == STORE_MID_LEN && len <= STORE_DELIVERY_MAX);
    r = insert_row(tx, d);
    if (r == 0)
        r = db_insert(tx->db, DB_DELIVERY_MESSAGE_INSERT,
                      DB_VALUES(db_int(d->row), db_blob(message, len)), NULL);
    return rows_result(tx, r);
}

int store_tx_delivery_update(struct store_tx *tx, const struct store_delivery *d)
{
    int64_t changes = 0;
    int r;

    assert(tx->writes && d->state < STORE_DELIVERY_STATES);
    r = db_run(tx->db, DB_DELIVERY_UPDATE,
               DB_VALUES(db_int(d->state), db_int(d->attempts), db_int(d->next_us),
                         db_int(d->deadline_us), db_int((int64_t)d->confirmed_seq), db_text(d->why),
                         db_int(d->row)),
               &changes);
    if (r == 0 && changes == 0)
        return TEKD_ENOTFOUND;
    if (r == 0 && d->state == STORE_DELIVERY_ABANDONED)
        r = db_run(tx->db, DB_DELIVERY_MESSAGE_DELETE, DB_VALUES(db_int(d->row)), NULL);
    return rows_result(tx, r);
}

int rows_delivery_forget(struct db *db, int64_t from, int64_t to)
{
    return db_run(db, DB_DELIVERY_MESSAGE_FORGET, DB_VALUES(db_int(from), db_int(to)), NULL);
}

int rows_delivery_reopen(struct db *db, int64_t from)
{
    return db_run(db, DB_DELIVERY_REOPEN, DB_VALUES(db_int(from)), NULL);
}

/* ---- into the next epoch --------------------------------------------------------------------- */

/* What the joins do not find is nothing that we wrote. */
static int read_carried(struct db *db, enum db_statement st, struct rows_carried *c)
{
    int r = db_copy_text(db, st, 3, c->mid, STORE_MID_LEN);

    if (r == 0)
        r = db_copy_octets(db, st, 4, c->out_sha256, sizeof(c->out_sha256));
    if (r == 0)
        r = db_copy_text(db, st, 5, c->peer, STORE_ID_MAX);
    if (r == 0)
        r = db_copy_text(db, st, 6, c->content, STORE_CONTENT_MAX);
    if (r == 0)
        r = db_copy_text(db, st, 8, c->kek, sizeof(c->kek) - 1);
    if (r == 0)
        r = db_copy_octets(db, st, 9, c->key_id, sizeof(c->key_id));
    if (r == 0 && (c->peer[0] == '\0' || c->content[0] == '\0' || c->kek[0] == '\0'))
        r = TEKD_EIO;
    c->row = db_column_int(db, st, 0);
    c->epoch = (uint64_t)db_column_int(db, st, 1);
    c->seq = (uint64_t)db_column_int(db, st, 2);
    c->has_period = db_column_int(db, st, 7) > 0;
    c->period = db_column_int(db, st, 10);
    return r;
}

int rows_delivery_carried(struct db *db, int64_t after, size_t max,
                          struct rows_carried *ret_carried, size_t *ret_n)
{
    const enum db_statement st = DB_DELIVERY_CARRIED;
    size_t n = 0;
    int r = db_query(db, st, DB_VALUES(db_int(after), db_int((int64_t)max)));

    if (r < 0)
        return r;
    while ((r = db_step(db, st)) == 1 && n < max) {
        r = read_carried(db, st, &ret_carried[n++]);
        if (r < 0)
            break;
    }
    db_end(db, st);
    *ret_n = n;
    return r < 0 ? r : 0;
}

int rows_delivery_move(struct db *db, int64_t row, struct store_place to)
{
    return db_run(db, DB_DELIVERY_MOVE,
                  DB_VALUES(db_int((int64_t)to.epoch), db_int((int64_t)to.seq), db_int(row)), NULL);
}

/* ---- walks ----------------------------------------------------------------------------------- */

/* A statement that gives deliveries, its values, and what to do with each. */
struct delivery_walk {
    enum db_statement st;
    const struct db_value *values;
    size_t n;
    void *arg;
    int (*each)(void *arg, const struct store_delivery *d);
};

static int walk(struct store_tx *tx, const struct delivery_walk *w)
{
    struct store_delivery d;
    int stopped = 0;
    int r = db_query(tx->db, w->st, w->values, w->n);

    if (r < 0)
        return rows_result(tx, r);
    while (r >= 0 && stopped == 0 && (r = db_step(tx->db, w->st)) == 1) {
        r = read_delivery(tx->db, w->st, &d);
        if (r == 0)
            stopped = w->each(w->arg, &d);
    }
    db_end(tx->db, w->st);
    return r < 0 ? rows_result(tx, r) : stopped;
}

int store_tx_delivery_due(struct store_tx *tx, int64_t bsa, const struct store_due *due,
                          const struct store_walk *w,
                          int (*each)(void *arg, const struct store_delivery *d))
{
    const struct db_value values[] = {db_int(bsa), db_int(w->after), db_int(due->now_us),
                                      db_int(due->far_us), db_int(rows_limit(w))};

    return walk(tx, &(struct delivery_walk){DB_DELIVERY_DUE, values, 5, w->arg, each});
}

int store_tx_delivery_walk(struct store_tx *tx, const struct store_walk *w,
                           int (*each)(void *arg, const struct store_delivery *d))
{
    const struct db_value values[] = {db_int(w->after), db_int(rows_limit(w))};

    return walk(tx, &(struct delivery_walk){DB_DELIVERY_WALK, values, 2, w->arg, each});
}

int store_tx_delivery_walk_open(struct store_tx *tx, const struct store_walk *w,
                                int (*each)(void *arg, const struct store_delivery *d))
{
    const struct db_value values[] = {db_int(w->after), db_int(rows_limit(w))};

    return walk(tx, &(struct delivery_walk){DB_DELIVERY_OPEN, values, 2, w->arg, each});
}

int store_tx_delivery_walk_confirmed(struct store_tx *tx, uint64_t from, const struct store_walk *w,
                                     int (*each)(void *arg, const struct store_delivery *d))
{
    const struct db_value values[] = {db_int((int64_t)from), db_int(w->after),
                                      db_int(rows_limit(w))};

    return walk(tx, &(struct delivery_walk){DB_DELIVERY_CONFIRMED, values, 3, w->arg, each});
}

int store_tx_delivery_expired(struct store_tx *tx, int64_t now_us, const struct store_walk *w,
                              int (*each)(void *arg, const struct store_delivery *d))
{
    const struct db_value values[] = {db_int(now_us), db_int(rows_limit(w))};

    return walk(tx, &(struct delivery_walk){DB_DELIVERY_EXPIRED, values, 2, w->arg, each});
}

int store_tx_delivery_near(struct store_tx *tx, const struct store_near *n,
                           const struct store_walk *w,
                           int (*each)(void *arg, const struct store_delivery *d))
{
    const struct db_value values[] = {db_int(n->now_us), db_int(n->now_us + n->near_us),
                                      db_int(n->since_us), db_int(n->since_us + n->near_us),
                                      db_int(rows_limit(w))};

    return walk(tx, &(struct delivery_walk){DB_DELIVERY_NEAR, values, 5, w->arg, each});
}

/* ---- sums ------------------------------------------------------------------------------------ */

static void read_lane(struct db *db, enum db_statement st, struct store_lane *ret_lane)
{
    *ret_lane = (struct store_lane){.bsa = db_column_int(db, st, 0),
                                    .open = (uint64_t)db_column_int(db, st, 1),
                                    .next_us = db_column_int(db, st, 2),
                                    .deadline_us = db_column_int(db, st, 3)};
}

int store_tx_delivery_lanes(struct store_tx *tx, void *arg,
                            int (*each)(void *arg, const struct store_lane *l))
{
    const enum db_statement st = DB_DELIVERY_LANES;
    struct store_lane l;
    int stopped = 0;
    int r = db_query(tx->db, st, DB_NO_VALUES);

    if (r < 0)
        return rows_result(tx, r);
    while (stopped == 0 && (r = db_step(tx->db, st)) == 1) {
        read_lane(tx->db, st, &l);
        stopped = each(arg, &l);
    }
    db_end(tx->db, st);
    return r < 0 ? rows_result(tx, r) : stopped;
}

int store_tx_delivery_lane(struct store_tx *tx, int64_t bsa, struct store_lane *ret_lane)
{
    struct store_lane l;
    int r = db_first(tx->db, DB_DELIVERY_LANE, DB_VALUES(db_int(bsa)));

    if (r < 0)
        return rows_result(tx, r);
    read_lane(tx->db, DB_DELIVERY_LANE, &l);
    db_end(tx->db, DB_DELIVERY_LANE);
    if (l.open == 0)
        l = (struct store_lane){.next_us = INT64_MAX, .deadline_us = INT64_MAX};
    l.bsa = bsa;
    *ret_lane = l;
    return 0;
}

int store_tx_delivery_counts(struct store_tx *tx, uint64_t ret_count[static STORE_DELIVERY_STATES])
{
    const enum db_statement st = DB_DELIVERY_COUNTS;
    uint64_t count[STORE_DELIVERY_STATES] = {0};
    int r = db_query(tx->db, st, DB_NO_VALUES);

    if (r < 0)
        return rows_result(tx, r);
    while ((r = db_step(tx->db, st)) == 1) {
        int64_t state = db_column_int(tx->db, st, 0);

        if (state >= 0 && state < STORE_DELIVERY_STATES)
            count[state] = (uint64_t)db_column_int(tx->db, st, 1);
    }
    db_end(tx->db, st);
    if (r < 0)
        return rows_result(tx, r);
    memcpy(ret_count, count, sizeof(count));
    return 0;
}

/* ---- fan-outs -------------------------------------------------------------------------------- */

int store_tx_fanout_insert(struct store_tx *tx, struct store_fanout *f)
{
    assert(tx->writes);
    return rows_result(
        tx,
        db_insert(tx->db, DB_FANOUT_INSERT,
                  DB_VALUES(db_int(f->tek), db_int(f->content), db_int(f->after_bsa)), &f->row));
}

int store_tx_fanout_reach(struct store_tx *tx, const struct store_fanout *f)
{
    assert(tx->writes);
    return rows_result(
        tx, db_run(tx->db, DB_FANOUT_REACH,
                   DB_VALUES(db_int(f->tek), db_int(f->content), db_int(f->after_bsa)), NULL));
}

static int change_fanout(struct store_tx *tx, enum db_statement st, const struct db_value *v,
                         size_t n)
{
    int64_t changes = 0;
    int r;

    assert(tx->writes);
    r = db_run(tx->db, st, v, n, &changes);
    return r == 0 && changes == 0 ? TEKD_ENOTFOUND : rows_result(tx, r);
}

int store_tx_fanout_advance(struct store_tx *tx, int64_t row, int64_t after_bsa)
{
    return change_fanout(tx, DB_FANOUT_ADVANCE, DB_VALUES(db_int(after_bsa), db_int(row)));
}

int store_tx_fanout_delete(struct store_tx *tx, int64_t row)
{
    return change_fanout(tx, DB_FANOUT_DELETE, DB_VALUES(db_int(row)));
}

int store_tx_fanout_walk(struct store_tx *tx, const struct store_walk *w,
                         int (*each)(void *arg, const struct store_fanout *f))
{
    const enum db_statement st = DB_FANOUT_WALK;
    struct store_fanout f;
    int stopped = 0;
    int r = db_query(tx->db, st, DB_VALUES(db_int(w->after), db_int(rows_limit(w))));

    if (r < 0)
        return rows_result(tx, r);
    while (stopped == 0 && (r = db_step(tx->db, st)) == 1) {
        f = (struct store_fanout){.row = db_column_int(tx->db, st, 0),
                                  .tek = db_column_int(tx->db, st, 1),
                                  .content = db_column_int(tx->db, st, 2),
                                  .after_bsa = db_column_int(tx->db, st, 3)};
        stopped = each(w->arg, &f);
    }
    db_end(tx->db, st);
    return r < 0 ? rows_result(tx, r) : stopped;
}
