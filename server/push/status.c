#include "internal.h"

#include "tekd/err.h"

static int note_oldest(void *arg, const struct store_delivery *d)
{
    *(int64_t *)arg = d->created_us;
    return 0;
}

static int count_fanout(void *arg, const struct store_fanout *f)
{
    (void)f;
    ++*(uint64_t *)arg;
    return 0;
}

static int read_rows(void *arg, struct store_tx *tx)
{
    struct push_status *s = arg;
    /* Rows rise with time. */
    const struct store_walk oldest = {.limit = 1, .arg = &s->oldest_open_us};
    const struct store_walk fanouts = {.limit = SIZE_MAX, .arg = &s->fanouts};
    int r = store_tx_delivery_counts(tx, s->count);

    if (r == 0)
        r = store_tx_delivery_walk_open(tx, &oldest, note_oldest);
    return r < 0 ? r : store_tx_fanout_walk(tx, &fanouts, count_fanout);
}

int push_status_get(struct push *p, struct push_status *ret_status)
{
    struct keys_status keys;
    struct push_status s;
    int r;

    keys_status_get(p->keys, &keys);
    s = (struct push_status){.under_way = atomic_load(&p->under_way_now),
                             .attempts = atomic_load(&p->attempts),
                             .confirmed = keys.confirmed,
                             .rejected = keys.rejected,
                             .failed = atomic_load(&p->failed),
                             .late_periods = jobs_late(p->jobs)};
    r = store_call(p->store, STORE_READ, read_rows, &s);
    if (r == 0)
        *ret_status = s;
    return r;
}
