/*
 * A batch: one transaction with
 *     the store's own records, then each item in a savepoint with its rows and records,
 *     then the newest checkpoint if it is not committed yet.
 * After the commit everything is released whose condition is met.
 */
#include "internal.h"

#include <assert.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* ---- what apply calls ------------------------------------------------------------------------ */

int store_tx_record(struct store_tx *tx, struct record *take_r, uint64_t *ret_seq)
{
    int r = record_error(take_r);

    assert(tx->writes);
    if (r == 0 && tx->n_records == STORE_RECORDS_MAX)
        r = TEKD_ETOOBIG;
    if (r < 0) {
        record_free(take_r);
        return r;
    }
    if (ret_seq != NULL)
        *ret_seq = tx->s->tree.next + tx->n_records;
    tx->record[tx->n_records++] = take_r;
    return 0;
}

uint64_t store_tx_epoch(struct store_tx *tx)
{
    return tx->s->tree.epoch;
}

struct store_place store_tx_newest(struct store_tx *tx)
{
    const struct tree *t = &tx->s->tree;

    assert(t->next > 0); /* log.opened comes before all items */
    return (struct store_place){.epoch = t->epoch, .seq = t->next - 1};
}

void store_tx_wait_for(struct store_tx *tx, struct store_place record)
{
    const struct tree *t = &tx->s->tree;

    assert(record.epoch <= t->epoch);
    if (record.epoch < t->epoch) /* all of it was signed before it was closed */
        return;
    assert(record.seq < t->next + tx->n_records);
    if (tx->wait_size < record.seq + 1)
        tx->wait_size = record.seq + 1;
}

int64_t store_tx_utc_us(struct store_tx *tx)
{
    return tx->utc_us;
}

/* ---- one item -------------------------------------------------------------------------------- */

int batch_refusal(struct store *s, const struct store_item *item)
{
    if (s->latched < 0)
        return TEKD_EIO;
    if (item->wait == STORE_SIGNED && (s->full || s->low))
        return TEKD_EFULL;
    if (item->wait == STORE_SIGNED && item->deadline_us != 0 &&
        item->deadline_us <= clock_mono_us())
        return TEKD_ETIMEDOUT;
    return 0;
}

void batch_refuse(struct store *s, struct store_item *item, int refusal)
{
    /* While nothing can be written its refusal cannot be recorded either, nor what it would have
     * recorded. */
    if ((refusal == TEKD_EFULL && s->full) || item->wait == STORE_LAZY)
        audit_gap(s, 1);
    items_settle(s, item, refusal);
}

bool batch_signer_late(const struct store *s)
{
    int64_t since_us = s->tree.unsigned_since_us;

    if (s->o.release == STORE_RELEASE_SIGNED)
        return s->signer_down;
    return since_us != 0 && clock_mono_us() - since_us > DURABLE_DELAYS * s->checkpoint_delay_us;
}

/* Whether the signature that the item waits for is to be expected; item->release_size is known. */
static int signature_refusal(const struct store *s, const struct store_item *item)
{
    bool waits = item->wait == STORE_SIGNED && item->release_size > s->tree.signed_size;

    return waits && batch_signer_late(s) ? TEKD_EHSM : 0;
}

static void drop_records(struct store_tx *tx)
{
    for (size_t i = 0; i < tx->n_records; i++)
        record_free(tx->record[i]);
    tx->n_records = 0;
}

static int apply(struct store *s, struct store_item *item, struct store_tx *tx)
{
    int r = item->apply(item, tx);

    if (r == 0)
        r = tx->error;
    item->first_seq = s->tree.next;
    for (size_t i = 0; i < tx->n_records && r == 0; i++)
        r = rows_result(tx, audit_append(s, tx->record[i], tx->utc_us));
    item->release_size = tx->wait_size;
    if (tx->n_records > 0 && s->tree.next > item->release_size)
        item->release_size = s->tree.next;
    return r < 0 ? r : signature_refusal(s, item);
}

/*
 * Applies an item in its savepoint.  What is returned ends the whole batch, this item with it; a
 * loser only loses its own rows and records.
 */
static int run_item(struct store *s, struct store_item *item, int64_t utc_us)
{
    const struct db_driver *driver = db_driver(s->db);
    struct store_tx tx = {.s = s, .db = s->db, .writes = true, .utc_us = utc_us};
    uint64_t next = s->tree.next;
    int lost = 0;
    int r = driver->savepoint(s->db);

    if (r == 0) {
        lost = apply(s, item, &tx);
        drop_records(&tx);
        r = tx.error;
    }
    if (r == 0)
        r = lost == 0 ? driver->savepoint_release(s->db) : driver->savepoint_rollback(s->db);
    if (r < 0 || lost == 0) {
        s->batch_messages += tx.messages;
        items_put(&s->batch, item);
        return r;
    }
    s->tree.next = next;
    s->losers++;
    items_settle(s, item, lost);
    return 0;
}

/* ---- the batch ------------------------------------------------------------------------------- */

void batch_count_taken(struct store *s, const struct store_item *item)
{
    s->items++;
    if (item->wait == STORE_DURABLE)
        s->pending_durable--;
    if (item->wait == STORE_SIGNED)
        s->pending_signed--;
}

/* Until the leaves fill one message to the signer; what is left is the next batch. */
static int run_items(struct store *s, int64_t utc_us)
{
    struct tree *t = &s->tree;
    int r = 0;

    for (size_t n = 0; r == 0 && n < BATCH_ITEMS_MAX && t->next - t->size < STORE_BATCH_MAX; n++) {
        struct store_item *item = items_take(&s->pending);
        int refusal;

        if (item == NULL)
            break;
        batch_count_taken(s, item);
        refusal = batch_refusal(s, item);
        if (refusal < 0)
            batch_refuse(s, item, refusal);
        else
            r = run_item(s, item, utc_us);
    }
    return r;
}

static int put_gap(struct store *s, int64_t utc_us)
{
    AUTO(record) struct record *rec = NULL;
    int r;

    if (s->gap == 0)
        return 0;
    r = record_new("audit.gap", &rec);
    if (r < 0)
        return r;
    record_int(rec, "count", s->gap);
    record_str(rec, "kind", "store-unavailable");
    r = audit_append(s, rec, utc_us);
    if (r == 0)
        s->gap_written = s->gap;
    return r;
}

/* What does not wait in s->own. */
static int put_due(struct store *s, int64_t utc_us)
{
    int r = signkey_put_records(s, utc_us);

    return r < 0 ? r : put_gap(s, utc_us);
}

int batch_put_own(struct store *s, int64_t utc_us)
{
    /* log.stopped, if it is among them, is the last; and log.started the first.  A gap explains why
     * there was no record for so long: it comes before one that needs the explanation. */
    int r = s->announced ? put_due(s, utc_us) : 0;

    for (s->own_written = 0; r == 0 && s->own_written < s->n_own; s->own_written++)
        r = audit_append(s, s->own[s->own_written], utc_us);
    if (r < 0 || s->announced)
        return r;
    r = put_due(s, utc_us);
    /* What the next start compares with is what log.started says: so it goes with that.  A start
     * that finds log.closed unsigned commits before, and may die without having said anything. */
    return r < 0 ? r
                 : rows_meta_put(s->db, "config", s->o.config_sha256, sizeof(s->o.config_sha256));
}

/* What the store has to remember beside the log. */
static int put_marks(struct store *s, int64_t utc_us)
{
    int r = 0;

    if (s->mark_open)
        r = rows_meta_put_int(s->db, "clean", 0);
    if (r == 0 && s->mark_open && s->unattested_from < s->unattested_to)
        r = rows_delivery_reopen(s->db, store_place_pack(s->tree.epoch, s->unattested_from));
    if (r == 0)
        r = signkey_put_first(s);
    /* A probe has to write something to find out. */
    if (r == 0 && s->full)
        r = rows_meta_put_int(s->db, "probe", utc_us);
    return r;
}

/* Into the log: while an epoch is being closed only what closes it. */
static int put_log(struct store *s, int64_t utc_us)
{
    int r;

    if (s->epoch.state != EPOCH_OPEN)
        return epoch_step_due(s) ? epoch_put(s, utc_us) : 0;
    r = batch_put_own(s, utc_us);
    if (r < 0)
        return r;
    s->items_from = s->tree.next;
    return run_items(s, utc_us);
}

static int put_checkpoint(struct store *s)
{
    const struct tree *t = &s->tree;
    int r = 0;

    if (!t->note_committed)
        r = audit_insert_checkpoint(s);
    if (r == 0 && !t->note_committed)
        r = rows_delivery_forget(s->db, store_place_pack(t->epoch, t->signed_size),
                                 store_place_pack(t->epoch, t->note.size));
    if (r == 0 && !t->note_committed)
        r = signkey_put_covered(s);
    if (r == 0 && s->stopping && t->note.size == t->next)
        r = rows_meta_put_int(s->db, "clean", 1);
    return r;
}

/* Those that were written: all of them, or, while an epoch is being closed, none. */
static void forget_own(struct store *s)
{
    assert(s->own_written == s->n_own || s->own_written == 0);
    for (size_t i = 0; i < s->own_written; i++)
        record_free(s->own[i]);
    if (s->own_written > 0)
        s->announced = true;
    s->n_own -= s->own_written;
    s->own_urgent = s->own_urgent && s->n_own > 0;
    s->gap -= s->gap_written;
}

static void settle_committed(struct store *s)
{
    struct item_list done = s->batch;
    struct store_item *item;

    s->batch = (struct item_list){0};
    while ((item = items_take(&done)) != NULL) {
        if (item->wait == STORE_SIGNED && s->o.release == STORE_RELEASE_SIGNED &&
            item->release_size > s->tree.signed_size)
            items_wait(s, item);
        else
            items_settle(s, item, 0);
    }
}

static void committed(struct store *s, int64_t utc_us)
{
    struct tree *t = &s->tree;

    t->size = t->next;
    if (!t->note_committed) {
        t->note_committed = true;
        t->signed_size = t->note.size;
        t->checkpoint_utc_us = utc_us;
        if (s->epoch.state == EPOCH_CLOSED)
            anchor_write(s);
    }
    if (t->size > t->note.size && t->unsigned_since_us == 0)
        t->unsigned_since_us = clock_mono_us();
    forget_own(s);
    epoch_committed(s);
    signkey_committed(s);
    s->mark_open = false;
    s->messages += s->batch_messages;
    s->lazy_since_us = s->pending.n > 0 || s->gap > 0 ? clock_mono_us() : 0;
    if (s->full)
        log_event(LOG_INFO, "store", "writes-again");
    s->full = false;
    s->batches++;
    items_release(s);
    settle_committed(s);
}

/* A heartbeat is of its time: one that was not written is part of the gap, as those that follow. */
static void drop_heartbeats(struct store *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n_own; i++) {
        if (strcmp(record_event(s->own[i]), "log.heartbeat") != 0) {
            s->own[n++] = s->own[i];
            continue;
        }
        record_free(s->own[i]);
        audit_gap(s, 1);
    }
    s->n_own = n;
}

/*
 * Nothing of the batch is released.  What was not committed, as far as SQLite knows, is undone: if
 * the database says otherwise nobody knows what is true, and nothing may go on.
 */
static void failed(struct store *s, int r)
{
    struct tree *t = &s->tree;
    int64_t on_disk = 0;

    db_driver(s->db)->rollback(s->db);
    /* The store's own records are tried again; those of items are lost to the log. */
    if (s->items_from > 0)
        audit_gap(s, t->next - s->items_from);
    epoch_failed(s);
    signkey_failed(s);
    t->next = t->size;
    if (r == TEKD_EFULL || r == TEKD_EAGAIN || r == TEKD_ENOMEM) {
        if (!s->full)
            log_event(LOG_ERROR, "store", "cannot-write", LOG_STR("error", tekd_errname(r)));
        s->full = true;
        drop_heartbeats(s);
        loop_publish(s);
        /* Their checkpoint cannot be written: they are answered now rather than kept. */
        items_settle_all(s, &s->waiting, TEKD_EFULL);
        s->waiting_deadline_us = INT64_MAX;
        s->probe_us = clock_mono_us() + PROBE_US;
        if (rows_leaf_end(s->db, STORE_EPOCH_MAX + 1, &on_disk) < 0 ||
            on_disk != store_place_pack(t->epoch, t->size))
            loop_latch(s, TEKD_EIO, "the outcome of a commit is unknown");
    } else {
        loop_latch(s, r, "a batch failed");
    }
    if (r == TEKD_EAGAIN)
        r = TEKD_EFULL;
    items_settle_all(s, &s->batch, r == TEKD_EFULL || r == TEKD_ENOMEM ? r : TEKD_EIO);
}

int batch_run(struct store *s)
{
    const struct db_driver *driver = db_driver(s->db);
    int64_t utc_us = clock_utc_us();
    int r = driver->begin(s->db);

    s->gap_written = 0;
    s->own_written = 0;
    s->batch_messages = 0;
    s->items_from = 0;
    s->epoch.moved = false;
    if (r == 0)
        r = put_marks(s, utc_us);
    if (r == 0)
        r = put_log(s, utc_us);
    if (r == 0)
        r = put_checkpoint(s);
    if (r == 0)
        r = driver->commit(s->db);
    if (r == 0)
        committed(s, utc_us);
    else
        failed(s, r);
    return r;
}

void batch_read(struct store *s, struct store_item *item)
{
    struct store_tx tx = {.s = s, .db = s->db, .utc_us = clock_utc_us()};
    int r = batch_refusal(s, item);

    if (r == 0)
        r = item->apply(item, &tx);
    s->items++;
    if (tx.error == TEKD_EIO) {
        loop_latch(s, tx.error, "reading failed");
        r = TEKD_EIO;
    }
    items_settle(s, item, r);
}
