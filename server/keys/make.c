/*
 * TEKs for requests, made or exported inside the HSM.  A thread inside the line (line.c) asks for
 * what one request needs; when many wait, for several at once.
 */
#include "internal.h"

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

/* What one thread makes at a time. */
struct making {
    struct store_kek storage;
    struct one {
        const struct making *m;
        struct keys_work *work;
    } one[LINE_MANY_MAX];
    struct hsm_order order[LINE_MANY_MAX];
    size_t n;
    int64_t deadline_us; /* the last of theirs: HTTP keeps each to its own */
};

static void fail(struct keys_work *w, int r)
{
    work_error(w, w->made.new_tek ? "making the TEK" : "wrapping the TEK", r);
}

static int check(const struct making *m, const struct keys_work *w)
{
    if (clock_mono_us() > w->r->deadline_us)
        return TEKD_ETIMEDOUT;
    /* There is one storage KEK. */
    return w->made.new_tek || w->made.key.storage_kek == m->storage.row ? 0 : TEKD_EINTERNAL;
}

static int take(const struct making *m, struct keys_work *w, const struct hsm_order *o)
{
    struct key_material *made = &w->made;

    if (o->error < 0)
        return o->error;
    made->data = o->issued.data;
    if (!made->new_tek)
        return 0;
    made->key.storage_kek = m->storage.row;
    made->key.stored = o->issued.stored;
    made->new_export = true;
    return enc_uuidv7(clock_utc_us(), made->key.key_id);
}

/* At once: the others of its message may have to wait. */
static void order_done(struct hsm_order *o)
{
    const struct one *one = o->arg;
    int r = take(one->m, one->work, o);

    if (r < 0)
        fail(one->work, r);
    else
        work_answer(one->work);
}

static void add(struct making *m, struct keys_work *w)
{
    m->one[m->n] = (struct one){.m = m, .work = w};
    m->order[m->n] = (struct hsm_order){.bits = w->made.key.bits,
                                        .storage = &m->storage.kek,
                                        .bsa = &w->bsa->row->kek.kek,
                                        .stored = w->made.new_tek ? NULL : &w->made.key.stored,
                                        .done = order_done,
                                        .arg = &m->one[m->n]};
    m->n++;
    if (w->r->deadline_us > m->deadline_us)
        m->deadline_us = w->r->deadline_us;
}

static void make(struct keys *k, struct keys_work *const works[], size_t n)
{
    struct making m = {.n = 0};
    int bound = keys_storage(k, &m.storage);

    for (size_t i = 0; i < n; i++) {
        int r = bound < 0 ? bound : check(&m, works[i]);

        if (r < 0)
            fail(works[i], r);
        else
            add(&m, works[i]);
    }
    if (m.n == 0)
        return;
    keys_waits(k, true);
    hsm_make_many(k->hsm, m.order, m.n, m.deadline_us);
    keys_waits(k, false);
}

void work_make(struct keys_work *w)
{
    struct keys_work *works[LINE_MANY_MAX] = {w};
    struct keys *k = w->k;
    size_t n = 1;

    switch (line_enter(k->line, w)) {
    case LINE_FULL:
        work_busy(w);
        return;
    case LINE_WAITS:
        return;
    case LINE_INSIDE:
        break;
    }
    for (; n > 0; n = line_leave(k->line, hsm_many(k->hsm), works))
        make(k, works, n);
}
