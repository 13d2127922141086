/*
 * The background work, in pieces of about a millisecond: hashes the part of the log that the start
 * took as given, removes the exports of retired KEKs, reads the pages of the tables that no hash
 * covers, and forgets messages and ended deliveries that are older than their window.
 *
 * How old something is UTC says.  It may be days ahead at a start, until it is corrected: what it
 * says is not followed before it has been left alone for SWEEP_PAUSE_US.
 */
#include "internal.h"

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define PIECE_LEAVES   512
#define PIECE_ROWS     512
#define SWEEP_PAUSE_US (INT64_C(3600) * 1000000)
#define PURGE_PAUSE_US (INT64_C(60) * 1000000) /* after a piece that could not be written */

static bool rehash_goes_on(const struct idle *i)
{
    return i->range.size < i->target.size || i->epoch > 1;
}

bool idle_has_work(const struct store *s, int64_t now)
{
    const struct idle *i = &s->idle;

    return s->latched == 0 && !s->full &&
           (rehash_goes_on(i) || i->scan || now >= i->sweep_next_us ||
            (i->purge && now >= i->purge_next_us));
}

/* ---- the log --------------------------------------------------------------------------------- */

static int rehash(struct store *s)
{
    struct idle *i = &s->idle;
    struct merkle_hash root;
    struct store_place from = {.epoch = i->epoch, .seq = i->range.size};
    uint64_t n = i->target.size - from.seq;
    int r = rows_leaves(s->db, from, n < PIECE_LEAVES ? n : PIECE_LEAVES, audit_extend, &i->range);

    if (r == 0 && i->range.size == from.seq)
        r = TEKD_ETAMPER;
    if (r == 0 && i->range.size == i->target.size) {
        merkle_range_root(&i->range, &root);
        if (!same_hash(&root, &i->target.root))
            r = TEKD_ETAMPER;
        else
            log_event(LOG_INFO, "store", "log-rehashed", LOG_INT("epoch", i->epoch),
                      LOG_INT("records", i->range.size));
    }
    if (r == TEKD_ETAMPER)
        start_say_tamper(s->db, i->epoch, i->target.size);
    return r;
}

/* Record 0 of the epoch that was hashed names the last note of the one before. */
static int take_target(void *arg, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *rec = NULL;
    const char *what, *note = NULL;
    struct note n;

    (void)seq;
    if (record_parse(octets, len, &rec, &what) == 0)
        note = record_get_str(rec, "note");
    if (!note || note_read(note, strlen(note), &n) < 0)
        return TEKD_ETAMPER;
    *(struct note *)arg = n;
    return 0;
}

static int rehash_epoch_before(struct store *s)
{
    struct idle *i = &s->idle;
    struct note target = {.size = 0};
    int64_t end = 0;
    int r = rows_leaves(s->db, (struct store_place){.epoch = i->epoch}, 1, take_target, &target);

    if (r == 0)
        r = rows_leaf_end(s->db, i->epoch - 1, &end);
    if (r == 0 && (target.size == 0 || target.size > STORE_SEQ_MAX ||
                   end != store_place_pack(i->epoch - 1, target.size)))
        r = TEKD_ETAMPER;
    if (r == TEKD_ETAMPER)
        (void)start_tamper("epoch-records", 0, "all records of the epoch before", "others");
    if (r < 0)
        return r;
    i->rehashed += i->range.size;
    i->epoch--;
    i->target = target;
    merkle_range_init(&i->range);
    return 0;
}

/* ---- exports of retired KEKs ----------------------------------------------------------------- */

void idle_purge(struct store *s)
{
    struct idle *i = &s->idle;

    i->purge = true;
    i->purge_tek = i->purge_kek = 0;
    i->purge_next_us = 0;
}

/* The last export of the piece that begins behind (tek, kek); beyond all of them at the end. */
static int purge_piece(struct store *s, int64_t *ret_tek, int64_t *ret_kek)
{
    const enum db_statement st = DB_EXPORT_PIECE;
    const struct idle *i = &s->idle;
    int r = db_first(s->db, st,
                     DB_VALUES(db_int(i->purge_tek), db_int(i->purge_kek), db_int(PIECE_ROWS - 1)));

    if (r == TEKD_ENOTFOUND) {
        *ret_tek = *ret_kek = INT64_MAX;
        return 0;
    }
    if (r < 0)
        return r;
    *ret_tek = db_column_int(s->db, st, 0);
    *ret_kek = db_column_int(s->db, st, 1);
    db_end(s->db, st);
    return 0;
}

static int purge_rows(struct store *s, int64_t tek, int64_t kek)
{
    const struct db_driver *driver = db_driver(s->db);
    const struct idle *i = &s->idle;
    int r = driver->begin(s->db);

    if (r == 0)
        r = db_run(s->db, DB_EXPORT_PURGE,
                   DB_VALUES(db_int(i->purge_tek), db_int(i->purge_kek), db_int(tek), db_int(kek)),
                   NULL);
    if (r == 0 && tek == INT64_MAX)
        r = rows_meta_put_int(s->db, "purge", 0);
    if (r == 0)
        r = driver->commit(s->db);
    if (r < 0)
        driver->rollback(s->db);
    return r;
}

/* Nothing is given of them any more; so that the KEK, should it get out, opens nothing here. */
static int purge(struct store *s, int64_t now)
{
    struct idle *i = &s->idle;
    int64_t tek = 0, kek = 0;
    int r = purge_piece(s, &tek, &kek);

    if (r == 0)
        r = purge_rows(s, tek, kek);
    if (r < 0) {
        i->purge_next_us = now + PURGE_PAUSE_US;
        return r;
    }
    i->purge_tek = tek;
    i->purge_kek = kek;
    i->purge = tek < INT64_MAX;
    return 0;
}

/* ---- the tables ------------------------------------------------------------------------------ */

/* Goes on behind the last row of the piece before.  Each step reads what the statement selects. */
static int scan_piece(struct store *s, enum db_statement st, size_t keys, size_t *ret_rows)
{
    struct idle *i = &s->idle;
    struct db_value values[SCAN_KEYS_MAX + 1];
    size_t n = 0;
    int r;

    for (size_t k = 0; k < keys; k++)
        values[k] = db_int(i->scan_after[k]);
    values[keys] = db_int(PIECE_ROWS);
    r = db_query(s->db, st, values, keys + 1);
    if (r < 0)
        return r;
    for (; (r = db_step(s->db, st)) == 1; n++)
        for (size_t k = 0; k < keys; k++)
            i->scan_after[k] = db_column_int(s->db, st, (int)k);
    db_end(s->db, st);
    if (r == 0)
        *ret_rows = n;
    return r;
}

static int scan(struct store *s)
{
    static const struct {
        enum db_statement st;
        size_t keys; /* the columns that order its rows, each of them once */
    } tables[] = {
        {DB_SCAN_CONTENT, 1}, {DB_SCAN_TEK, 1},      {DB_SCAN_EXPORT, 2},
        {DB_SCAN_HOLDER, 2},  {DB_SCAN_DELIVERY, 1}, {DB_SCAN_DELIVERY_MESSAGE, 1},
    };
    struct idle *i = &s->idle;
    size_t rows = 0;
    int r = scan_piece(s, tables[i->scan_table].st, tables[i->scan_table].keys, &rows);

    if (r < 0 || rows == PIECE_ROWS)
        return r;
    memset(i->scan_after, 0, sizeof(i->scan_after));
    i->scan_table++;
    i->scan = i->scan_table < ARRAY_SIZE(tables);
    return 0;
}

/* ---- what is old ----------------------------------------------------------------------------- */

void idle_clock_was_set(struct store *s, int64_t now)
{
    s->idle.sweep_trust_us = now + SWEEP_PAUSE_US;
}

/* Before this is what may be forgotten: nothing, while UTC is not to be followed. */
static int64_t oldest_us(const struct store *s, int64_t now, int64_t utc_us)
{
    return now < s->idle.sweep_trust_us ? INT64_MIN : utc_us - s->o.message_window_us;
}

/* ---- messages -------------------------------------------------------------------------------- */

/* The messages of a piece that are to be forgotten. */
struct piece {
    size_t n; /* rows seen */
    size_t n_old;
    struct {
        int64_t bsa;
        char id[STORE_ID_MAX + 1];
    } old[PIECE_ROWS];
};

static int read_piece(struct store *s, int64_t before_us, struct piece *p)
{
    const enum db_statement st = DB_MESSAGE_SWEEP;
    struct idle *i = &s->idle;
    int r = db_query(s->db, st,
                     DB_VALUES(db_int(i->sweep_bsa), db_text(i->sweep_id), db_int(PIECE_ROWS)));

    if (r < 0)
        return r;
    while ((r = db_step(s->db, st)) == 1) {
        i->sweep_bsa = db_column_int(s->db, st, 0);
        r = db_copy_text(s->db, st, 1, i->sweep_id, STORE_ID_MAX);
        if (r < 0)
            break;
        p->n++;
        if (!i->counted && db_column_int(s->db, st, 3) < i->old_end)
            s->messages++;
        if (db_column_int(s->db, st, 2) >= before_us)
            continue;
        p->old[p->n_old].bsa = i->sweep_bsa;
        memcpy(p->old[p->n_old++].id, i->sweep_id, sizeof(i->sweep_id));
    }
    db_end(s->db, st);
    return r;
}

static int delete_old(struct store *s, const struct piece *p)
{
    const struct db_driver *driver = db_driver(s->db);
    int r = driver->begin(s->db);

    for (size_t i = 0; r == 0 && i < p->n_old; i++)
        r = db_run(s->db, DB_MESSAGE_DELETE,
                   DB_VALUES(db_int(p->old[i].bsa), db_text(p->old[i].id)), NULL);
    if (r == 0)
        r = driver->commit(s->db);
    if (r < 0)
        driver->rollback(s->db);
    return r;
}

/* ---- deliveries ------------------------------------------------------------------------------ */

struct delivery_piece {
    int64_t oldest_us;
    size_t n_old;
    int64_t old[PIECE_ROWS]; /* rows */
    bool last;               /* of this round */
};

/*
 * Rows rise with the time they were made at: the round is over with the first that is younger than
 * the window.  What says it were made later than now (the clock had been wrong) ends nothing.
 */
static void look_at_delivery(struct store *s, int64_t utc_us, struct delivery_piece *p)
{
    const enum db_statement st = DB_DELIVERY_SWEEP;
    int64_t created_us = db_column_int(s->db, st, 2);
    int64_t state = db_column_int(s->db, st, 1);

    s->idle.sweep_delivery = db_column_int(s->db, st, 0);
    if (created_us >= p->oldest_us && created_us <= utc_us)
        p->last = true;
    if (!store_delivery_is_open((enum store_delivery_state)state) &&
        db_column_int(s->db, st, 3) < p->oldest_us)
        p->old[p->n_old++] = s->idle.sweep_delivery;
}

static int read_deliveries(struct store *s, int64_t now, struct delivery_piece *p)
{
    const enum db_statement st = DB_DELIVERY_SWEEP;
    int64_t utc_us = clock_utc_us();
    size_t n = 0;
    int r;

    p->oldest_us = oldest_us(s, now, utc_us);
    r = db_query(s->db, st, DB_VALUES(db_int(s->idle.sweep_delivery), db_int(PIECE_ROWS)));

    if (r < 0)
        return r;
    for (; !p->last && (r = db_step(s->db, st)) == 1; n++)
        look_at_delivery(s, utc_us, p);
    db_end(s->db, st);
    p->last = p->last || n < PIECE_ROWS;
    return r < 0 ? r : 0;
}

static int delete_deliveries(struct store *s, const struct delivery_piece *p)
{
    const struct db_driver *driver = db_driver(s->db);
    int r = driver->begin(s->db);

    for (size_t i = 0; r == 0 && i < p->n_old; i++) {
        r = db_run(s->db, DB_DELIVERY_MESSAGE_DELETE, DB_VALUES(db_int(p->old[i])), NULL);
        if (r == 0)
            r = db_run(s->db, DB_DELIVERY_DELETE, DB_VALUES(db_int(p->old[i])), NULL);
    }
    if (r == 0)
        r = driver->commit(s->db);
    if (r < 0)
        driver->rollback(s->db);
    return r;
}

static int sweep_deliveries(struct store *s, int64_t now)
{
    struct delivery_piece p = {.n_old = 0};
    struct idle *i = &s->idle;
    int r = read_deliveries(s, now, &p);

    if (r == 0 && p.n_old > 0)
        r = delete_deliveries(s, &p);
    if (r == 0 && !p.last)
        return 0;
    i->sweep_delivery = 0;
    i->sweep_deliveries = false;
    i->sweep_next_us = now + SWEEP_PAUSE_US;
    return r;
}

/* ---- a round: messages, then deliveries ------------------------------------------------------ */

static int sweep_messages(struct store *s, int64_t now)
{
    AUTO_MEM struct piece *p = calloc(1, sizeof(*p));
    struct idle *i = &s->idle;
    int r;

    if (p == NULL)
        return TEKD_ENOMEM;
    r = read_piece(s, oldest_us(s, now, clock_utc_us()), p);
    if (r == 0 && p->n_old > 0)
        r = delete_old(s, p);
    if (r < 0) {
        i->sweep_next_us = now + SWEEP_PAUSE_US;
        return r;
    }
    s->messages -= p->n_old;
    if (p->n == PIECE_ROWS)
        return 0;
    i->counted = true;
    i->sweep_bsa = 0;
    i->sweep_id[0] = '\0';
    i->sweep_deliveries = true;
    return sweep_deliveries(s, now);
}

void idle_run(struct store *s, int64_t now)
{
    struct idle *i = &s->idle;
    int r = 0;

    i->last_us = now;
    if (rehash_goes_on(i))
        r = i->range.size < i->target.size ? rehash(s) : rehash_epoch_before(s);
    else if (i->purge && now >= i->purge_next_us)
        r = purge(s, now);
    else if (i->scan)
        r = scan(s);
    else if (now >= i->sweep_next_us)
        r = i->sweep_deliveries ? sweep_deliveries(s, now) : sweep_messages(s, now);
    if (r == TEKD_EIO || r == TEKD_ETAMPER || r == TEKD_EINTERNAL)
        loop_latch(s, r, "background check");
}
