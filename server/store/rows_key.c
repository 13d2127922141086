/*
 * Rows of keys: contents, TEKs, exports, messages.  The columns are those of statements.def.
 */
#include "internal.h"

#include <assert.h>

#include "tekd/err.h"

/* Nothing written by an item that only reads would ever be committed. */
static int may_write(struct store_tx *tx)
{
    assert(tx->writes);
    return tx->error;
}

/* ---- contents -------------------------------------------------------------------------------- */

static int read_content(struct db *db, enum db_statement id, struct store_content *ret_content)
{
    struct store_content c = {0};
    int r = db_copy_text(db, id, 1, c.id, STORE_CONTENT_MAX);

    if (r < 0)
        return r;
    c.row = db_column_int(db, id, 0);
    c.bits = (unsigned)db_column_int(db, id, 2);
    c.period_s = db_column_int(db, id, 3);
    c.lead_s = db_column_int(db, id, 4);
    c.epoch_utc_us = db_column_int(db, id, 5);
    c.created_us = db_column_int(db, id, 6);
    c.created_by = db_column_int(db, id, 7);
    *ret_content = c;
    return 0;
}

static int one_content(struct store_tx *tx, enum db_statement id, struct db_value key,
                       struct store_content *ret_content)
{
    int r = db_first(tx->db, id, &key, 1);

    if (r < 0)
        return rows_result(tx, r);
    r = read_content(tx->db, id, ret_content);
    db_end(tx->db, id);
    return rows_result(tx, r);
}

int store_tx_content_find(struct store_tx *tx, const char *id, size_t len,
                          struct store_content *ret_content)
{
    return one_content(tx, DB_CONTENT_FIND, db_textn(id, len), ret_content);
}

int store_tx_content_get(struct store_tx *tx, int64_t row, struct store_content *ret_content)
{
    return one_content(tx, DB_CONTENT_GET, db_int(row), ret_content);
}

int store_tx_content_insert(struct store_tx *tx, struct store_content *c)
{
    int r = may_write(tx);

    if (r < 0)
        return r;
    r = db_insert(tx->db, DB_CONTENT_INSERT,
                  DB_VALUES(db_text(c->id), db_int(c->bits), db_int(c->period_s), db_int(c->lead_s),
                            db_int(c->epoch_utc_us), db_int(c->created_us), db_int(c->created_by)),
                  &c->row);
    return rows_result(tx, r);
}

static int walk_contents(struct store_tx *tx, enum db_statement id, const struct store_walk *w,
                         int (*each)(void *arg, const struct store_content *c))
{
    struct store_content c;
    int stopped = 0;
    int r = db_query(tx->db, id, DB_VALUES(db_int(w->after), db_int(rows_limit(w))));

    if (r < 0)
        return rows_result(tx, r);
    while (r >= 0 && stopped == 0 && (r = db_step(tx->db, id)) == 1) {
        r = read_content(tx->db, id, &c);
        if (r == 0)
            stopped = each(w->arg, &c);
    }
    db_end(tx->db, id);
    return r < 0 ? rows_result(tx, r) : stopped;
}

int store_tx_content_walk(struct store_tx *tx, const struct store_walk *w,
                          int (*each)(void *arg, const struct store_content *c))
{
    return walk_contents(tx, DB_CONTENT_WALK, w, each);
}

int store_tx_content_walk_periodic(struct store_tx *tx, const struct store_walk *w,
                                   int (*each)(void *arg, const struct store_content *c))
{
    return walk_contents(tx, DB_CONTENT_WALK_PERIODIC, w, each);
}

/* ---- TEKs ------------------------------------------------------------------------------------ */

static int read_tek(struct db *db, enum db_statement id, struct store_tek *ret_tek)
{
    struct store_tek t = {.row = db_column_int(db, id, 0)};
    size_t len;
    const char *stored = db_column_octets(db, id, 7, &len);
    int r = db_copy_octets(db, id, 1, t.key_id, sizeof(t.key_id));

    if (r < 0)
        return r;
    if (len > sizeof(t.stored.octets))
        return TEKD_EIO;
    memcpy(t.stored.octets, stored, len);
    t.stored.len = (uint16_t)len;
    t.content = db_column_int(db, id, 2);
    t.period = db_column_int(db, id, 3);
    t.version = (uint32_t)db_column_int(db, id, 4);
    t.bits = (unsigned)db_column_int(db, id, 5);
    t.storage_kek = db_column_int(db, id, 6);
    t.created_us = db_column_int(db, id, 8);
    t.destroyed = db_column_int(db, id, 9) != 0;
    *ret_tek = t;
    return 0;
}

static int one_tek(struct store_tx *tx, enum db_statement id, const struct db_value *key, size_t n,
                   struct store_tek *ret_tek)
{
    int r = db_first(tx->db, id, key, n);

    if (r < 0)
        return rows_result(tx, r);
    r = read_tek(tx->db, id, ret_tek);
    db_end(tx->db, id);
    return rows_result(tx, r);
}

int store_tx_tek_current(struct store_tx *tx, int64_t content, int64_t period,
                         struct store_tek *ret_tek)
{
    struct store_tek t = {.row = 0};
    int r = one_tek(tx, DB_TEK_NEWEST, DB_VALUES(db_int(content), db_int(period)), &t);

    if (r < 0)
        return r;
    if (t.destroyed)
        return TEKD_ENOTFOUND;
    *ret_tek = t;
    return 0;
}

int store_tx_tek_newest(struct store_tx *tx, int64_t content, int64_t period, uint32_t *ret_version)
{
    struct store_tek t = {.row = 0};
    int r = one_tek(tx, DB_TEK_NEWEST, DB_VALUES(db_int(content), db_int(period)), &t);

    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    *ret_version = r == 0 ? t.version : 0;
    return 0;
}

int store_tx_tek_last_period(struct store_tx *tx, int64_t content, int64_t *ret_period)
{
    int r = db_first(tx->db, DB_TEK_LAST_PERIOD, DB_VALUES(db_int(content)));

    if (r < 0)
        return rows_result(tx, r);
    *ret_period = db_column_int(tx->db, DB_TEK_LAST_PERIOD, 0);
    db_end(tx->db, DB_TEK_LAST_PERIOD);
    return 0;
}

int store_tx_tek_get(struct store_tx *tx, int64_t row, struct store_tek *ret_tek)
{
    return one_tek(tx, DB_TEK_GET, DB_VALUES(db_int(row)), ret_tek);
}

int store_tx_tek_by_id(struct store_tx *tx, const uint8_t key_id[static 16],
                       struct store_tek *ret_tek)
{
    return one_tek(tx, DB_TEK_BY_ID, DB_VALUES(db_blob(key_id, 16)), ret_tek);
}

int store_tx_tek_insert(struct store_tx *tx, struct store_tek *t)
{
    int r = may_write(tx);

    if (r < 0)
        return r;
    r = db_insert(tx->db, DB_TEK_INSERT,
                  DB_VALUES(db_blob(t->key_id, sizeof(t->key_id)), db_int(t->content),
                            db_int(t->period), db_int(t->version), db_int(t->bits),
                            db_int(t->storage_kek), db_blob(t->stored.octets, t->stored.len),
                            db_int(t->created_us)),
                  &t->row);
    return rows_result(tx, r);
}

int store_tx_tek_destroy(struct store_tx *tx, int64_t row)
{
    int64_t changes = 0;
    int r = may_write(tx);

    if (r == 0)
        r = db_run(tx->db, DB_TEK_DESTROY, DB_VALUES(db_blob(NULL, 0), db_int(row)), &changes);
    if (r == 0 && changes == 0)
        return TEKD_ENOTFOUND;
    if (r == 0)
        r = db_run(tx->db, DB_EXPORT_DELETE, DB_VALUES(db_int(row)), NULL);
    return rows_result(tx, r);
}

int store_tx_tek_walk(struct store_tx *tx, int64_t content, const struct store_walk *w,
                      int (*each)(void *arg, const struct store_tek *t))
{
    struct store_tek t = {.content = content, .period = -1}; /* before all */
    int stopped = 0;
    int r = w->after != 0 ? store_tx_tek_get(tx, w->after, &t) : 0;

    if (r == 0 && t.content != content)
        r = TEKD_ENOTFOUND;
    if (r < 0)
        return r;
    r = db_query(
        tx->db, DB_TEK_WALK,
        DB_VALUES(db_int(content), db_int(t.period), db_int(t.version), db_int(rows_limit(w))));
    if (r < 0)
        return rows_result(tx, r);
    while (r >= 0 && stopped == 0 && (r = db_step(tx->db, DB_TEK_WALK)) == 1) {
        r = read_tek(tx->db, DB_TEK_WALK, &t);
        if (r == 0)
            stopped = each(w->arg, &t);
    }
    db_end(tx->db, DB_TEK_WALK);
    return r < 0 ? rows_result(tx, r) : stopped;
}

/* ---- exports --------------------------------------------------------------------------------- */

int store_tx_export_find(struct store_tx *tx, int64_t tek, int64_t kek, struct hsm_blob *ret_data)
{
    size_t len;
    const char *data;
    int r = db_first(tx->db, DB_EXPORT_FIND, DB_VALUES(db_int(tek), db_int(kek)));

    if (r < 0)
        return rows_result(tx, r);
    data = db_column_octets(tx->db, DB_EXPORT_FIND, 0, &len);
    if (len <= sizeof(ret_data->octets)) {
        memcpy(ret_data->octets, data, len);
        ret_data->len = (uint16_t)len;
    }
    db_end(tx->db, DB_EXPORT_FIND);
    return len <= sizeof(ret_data->octets) ? 0 : rows_result(tx, TEKD_EIO);
}

int store_tx_export_insert(struct store_tx *tx, int64_t tek, int64_t kek,
                           const struct hsm_blob *data, bool *ret_holder)
{
    int64_t holders = 0;
    int r = may_write(tx);

    if (r == 0)
        r = db_insert(tx->db, DB_EXPORT_INSERT,
                      DB_VALUES(db_int(tek), db_int(kek), db_blob(data->octets, data->len)), NULL);
    if (r == 0)
        r = db_run(tx->db, DB_HOLDER_INSERT, DB_VALUES(db_int(tek), db_int(kek)), &holders);
    *ret_holder = r == 0 && holders > 0;
    return rows_result(tx, r);
}

int store_tx_holders_walk(struct store_tx *tx, int64_t content, int64_t tek,
                          const struct store_walk *w, int (*each)(void *arg, int64_t bsa))
{
    int stopped = 0;
    int r =
        db_query(tx->db, DB_HOLDER_WALK,
                 DB_VALUES(db_int(content), db_int(w->after), db_int(tek), db_int(rows_limit(w))));

    if (r < 0)
        return rows_result(tx, r);
    while (stopped == 0 && (r = db_step(tx->db, DB_HOLDER_WALK)) == 1)
        stopped = each(w->arg, db_column_int(tx->db, DB_HOLDER_WALK, 0));
    db_end(tx->db, DB_HOLDER_WALK);
    return r < 0 ? rows_result(tx, r) : stopped;
}

/* ---- messages -------------------------------------------------------------------------------- */

int store_tx_message_find(struct store_tx *tx, int64_t bsa, const char *id, size_t len,
                          struct store_message *ret_message)
{
    const enum db_statement st = DB_MESSAGE_FIND;
    struct store_message m = {.bsa = bsa};
    struct store_place answered;
    int r;

    if (len > STORE_ID_MAX)
        return TEKD_ENOTFOUND;
    r = db_first(tx->db, st, DB_VALUES(db_int(bsa), db_textn(id, len)));
    if (r < 0)
        return rows_result(tx, r);
    memcpy(m.id, id, len);
    m.content = db_column_int(tx->db, st, 0);
    m.period_asked = db_column_int(tx->db, st, 1);
    m.tek = db_column_int(tx->db, st, 2);
    m.kek = db_column_int(tx->db, st, 3);
    m.time_us = db_column_int(tx->db, st, 4);
    answered = store_place_unpack(db_column_int(tx->db, st, 5));
    m.epoch = answered.epoch;
    m.seq = answered.seq;
    db_end(tx->db, st);
    *ret_message = m;
    return 0;
}

int store_tx_message_insert(struct store_tx *tx, const struct store_message *m)
{
    int r = may_write(tx);

    if (r == 0)
        r = db_insert(tx->db, DB_MESSAGE_INSERT,
                      DB_VALUES(db_int(m->bsa), db_text(m->id), db_int(m->content),
                                db_int(m->period_asked), db_int(m->tek), db_int(m->kek),
                                db_int(m->time_us), db_int(store_place_pack(m->epoch, m->seq))),
                      NULL);
    if (r == 0)
        tx->messages++;
    return rows_result(tx, r);
}
