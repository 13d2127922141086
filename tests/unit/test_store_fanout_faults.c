/*
 * A rotation, its fan-out and its deliveries on a disk that fails at every possible moment: no BSA
 * is lost, none is prepared twice, and what was released is there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_fixture.h"
#include "store_vfs.h"

#define BSAS  12
#define GROUP 4
#define FAR   INT64_C(4102444800000000) /* the sweep leaves what has ended */

/* ---- a scripted run -------------------------------------------------------------------------- */

struct op {
    struct probe p; /* first */
    unsigned bsa;   /* whose delivery; of a group: the last one prepared */
};

/* The last BSA's delivery is abandoned, all others are confirmed. */
struct script {
    struct op rotate;
    struct op group[BSAS / GROUP];
    struct op attempt[BSAS];
    struct op end[BSAS];
    struct op loser;
};

static void name_of(unsigned bsa, char mid[static STORE_MID_LEN + 1])
{
    (void)snprintf(mid, STORE_MID_LEN + 1, "01900000-0000-7000-8000-%012u", bsa);
}

static int add_record(struct store_tx *tx, const char *event, const char *mid, uint64_t *ret_seq)
{
    static const char *const texts[] = {"peer",  "dir",  "content", "keyid",
                                        "kekid", "addr", "reason",  "actor"};
    static const uint8_t hash[32];
    struct record *r = NULL;

    assert_int_equal(record_new(event, &r), 0);
    record_str(r, "mid", mid);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        record_str(r, texts[i], "x");
    record_ref(r, "ref", 1, 0);
    record_hex(r, "out", hash, sizeof(hash));
    record_hex(r, "cert", hash, sizeof(hash));
    return store_tx_record(tx, r, ret_seq);
}

static int rotate(struct store_item *item, struct store_tx *tx)
{
    struct store_tek t = {.content = 1, .version = 2, .bits = 128};
    struct store_fanout f = {.content = 1};
    int r = store_tx_tek_insert(tx, &t);

    (void)item;
    f.tek = t.row;
    return r < 0 ? r : store_tx_fanout_insert(tx, &f);
}

static int keep_fanout(void *arg, const struct store_fanout *f)
{
    *(struct store_fanout *)arg = *f;
    return 0;
}

static int the_fanout(struct store_tx *tx, struct store_fanout *ret_fanout)
{
    struct store_walk w = {.limit = 1, .arg = ret_fanout};

    *ret_fanout = (struct store_fanout){.row = 0};
    return store_tx_fanout_walk(tx, &w, keep_fanout);
}

static int prepare(struct store_tx *tx, unsigned bsa)
{
    struct store_delivery d = {.bsa = bsa, .tek = 1, .epoch = 1, .deadline_us = FAR};
    int r;

    name_of(bsa, d.mid);
    r = add_record(tx, "delivery.prepared", d.mid, &d.seq);
    return r < 0 ? r : store_tx_delivery_insert(tx, &d, d.mid, STORE_MID_LEN);
}

/* The next BSAs of the fan-out, wherever it stands. */
static int group(struct store_item *item, struct store_tx *tx)
{
    struct op *op = (struct op *)item;
    struct store_fanout f;
    int r = the_fanout(tx, &f);

    if (r < 0 || f.row == 0)
        return r < 0 ? r : TEKD_ENOTFOUND;
    op->bsa = (unsigned)f.after_bsa;
    for (unsigned i = 0; r == 0 && i < GROUP; i++)
        r = prepare(tx, ++op->bsa);
    if (r < 0)
        return r;
    return op->bsa < BSAS ? store_tx_fanout_advance(tx, f.row, op->bsa)
                          : store_tx_fanout_delete(tx, f.row);
}

/* Finds the delivery, records the event, and sets the state. */
static int change(struct store_tx *tx, struct op *op, const char *event,
                  enum store_delivery_state state)
{
    struct store_delivery d;
    int r;

    name_of(op->bsa, d.mid);
    r = store_tx_delivery_find(tx, d.mid, STORE_MID_LEN, &d);
    if (r < 0)
        return r;
    r = add_record(tx, event, d.mid, &op->p.seq);
    d.attempts += state == STORE_DELIVERY_IN_FLIGHT;
    if (state == STORE_DELIVERY_CONFIRMED)
        d.confirmed_seq = op->p.seq;
    d.state = state;
    return r < 0 ? r : store_tx_delivery_update(tx, &d);
}

static int attempt(struct store_item *item, struct store_tx *tx)
{
    return change(tx, (struct op *)item, "delivery.attempt", STORE_DELIVERY_IN_FLIGHT);
}

static int confirm(struct store_item *item, struct store_tx *tx)
{
    return change(tx, (struct op *)item, "delivery.confirmed", STORE_DELIVERY_CONFIRMED);
}

static int give_up(struct store_item *item, struct store_tx *tx)
{
    return change(tx, (struct op *)item, "delivery.abandoned", STORE_DELIVERY_ABANDONED);
}

/* Its MessageID is the first BSA's. */
static int lose(struct store_item *item, struct store_tx *tx)
{
    struct store_delivery d = {.bsa = 99, .epoch = 1, .deadline_us = FAR};
    int r = add_record(tx, "delivery.prepared", "the loser's", &d.seq);

    (void)item;
    name_of(1, d.mid);
    if (r == 0)
        r = store_tx_delivery_insert(tx, &d, "octets", 6);
    return r == 0 ? TEKD_ENOTFOUND : r; /* the first one was never prepared */
}

static void submit(struct fixture *f, struct op *op, enum store_wait wait,
                   int (*apply)(struct store_item *item, struct store_tx *tx))
{
    probe_init(&op->p, wait, NULL, 0);
    op->p.item.apply = apply;
    probe_submit(f, &op->p);
}

static int run(struct fixture *f, struct op *op, enum store_wait wait,
               int (*apply)(struct store_item *item, struct store_tx *tx))
{
    submit(f, op, wait, apply);
    return probe_wait(&op->p);
}

/* What is submitted together shares batches, the loser in the middle of them. */
static void run_bursts(struct fixture *f, struct script *s)
{
    for (unsigned i = 0; i < BSAS; i++) {
        s->attempt[i].bsa = s->end[i].bsa = i + 1;
        submit(f, &s->attempt[i], STORE_SIGNED, attempt);
        if (i == BSAS / 2)
            submit(f, &s->loser, STORE_SIGNED, lose);
    }
    for (unsigned i = 0; i < BSAS; i++)
        submit(f, &s->end[i], STORE_DURABLE, i + 1 < BSAS ? confirm : give_up);
}

static bool run_script(struct fixture *f, struct script *s)
{
    memset(s, 0, sizeof(*s));
    if (store_open(&f->o, &f->store) < 0) {
        f->store = NULL;
        return false;
    }
    (void)run(f, &s->rotate, STORE_SIGNED, rotate);
    for (size_t i = 0; i < ARRAY_SIZE(s->group); i++)
        (void)run(f, &s->group[i], STORE_SIGNED, group);
    run_bursts(f, s);
    fixture_close(f);
    return true;
}

/* ---- what is left ---------------------------------------------------------------------------- */

struct left {
    const struct script *s;
    struct store_tx *tx;
    uint64_t signed_before; /* what follows was under no signature */
    unsigned k;             /* the operation that failed */
    struct store_fanout fanout;
    struct store_delivery of[BSAS + 1]; /* by BSA; row 0: none */
    unsigned n;
    uint64_t count[STORE_DELIVERY_STATES];
};

static int keep_delivery(void *arg, const struct store_delivery *d)
{
    struct left *l = arg;

    assert_in_range(d->bsa, 1, BSAS);
    assert_int_equal(l->of[d->bsa].row, 0); /* not twice */
    l->of[d->bsa] = *d;
    l->count[d->state]++;
    l->n++;
    return 0;
}

/* A record with both. */
struct wanted {
    const char *event, *mid;
    bool found;
};

static int look(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct wanted *w = arg;

    (void)seq;
    w->found = w->found || (memmem(octets, len, w->event, strlen(w->event)) != NULL &&
                            memmem(octets, len, w->mid, strlen(w->mid)) != NULL);
    return 0;
}

static bool told(struct store_tx *tx, int64_t after, size_t limit, struct wanted want)
{
    struct store_walk w = {.after = after, .limit = limit, .arg = &want};

    assert_int_equal(store_tx_leaf_walk(tx, &w, look), 0);
    return want.found;
}

static void check_delivery(struct left *l, const struct store_delivery *d)
{
    AUTO(buf) struct buf *b = NULL;
    bool ended = d->state == STORE_DELIVERY_CONFIRMED || d->state == STORE_DELIVERY_ABANDONED;

    assert_int_equal(buf_new(STORE_DELIVERY_MAX, &b), 0);
    assert_int_equal(store_tx_delivery_message(l->tx, d->row, b), ended ? TEKD_ENOTFOUND : 0);
    if (!ended)
        assert_memory_equal(buf_data(b), d->mid, STORE_MID_LEN);
    assert_true(told(l->tx, (int64_t)d->seq - 1, 1,
                     (struct wanted){.event = "delivery.prepared", .mid = d->mid}));
    if (d->state != STORE_DELIVERY_CONFIRMED)
        return;
    assert_true(d->confirmed_seq < l->signed_before);
    assert_true(told(l->tx, (int64_t)d->confirmed_seq - 1, 1,
                     (struct wanted){.event = "delivery.confirmed", .mid = d->mid}));
}

static void check_state(struct left *l)
{
    struct store_walk w = {.limit = SIZE_MAX, .arg = l};
    uint64_t count[STORE_DELIVERY_STATES];
    unsigned last;

    memset(l->of, 0, sizeof(l->of));
    memset(l->count, 0, sizeof(l->count));
    l->n = 0;
    assert_int_equal(the_fanout(l->tx, &l->fanout), 0);
    assert_int_equal(store_tx_delivery_walk(l->tx, &w, keep_delivery), 0);
    last = l->fanout.row != 0 ? (unsigned)l->fanout.after_bsa : l->n == 0 ? 0 : BSAS;
    if (l->n != last)
        fail_msg("operation %u: %u deliveries, the fan-out is at %u", l->k, l->n, last);
    for (unsigned bsa = 1; bsa <= last; bsa++)
        check_delivery(l, &l->of[bsa]);
    assert_int_equal(store_tx_delivery_counts(l->tx, count), 0);
    assert_memory_equal(count, l->count, sizeof(count));
    assert_false(told(l->tx, -1, SIZE_MAX,
                      (struct wanted){.event = "delivery.prepared", .mid = "the loser's"}));
}

/* Whether the confirmation was released and counts, or is one that the crash took back. */
static bool as_confirmed(const struct left *l, const struct op *op)
{
    enum store_delivery_state state = l->of[op->bsa].state;

    return state == STORE_DELIVERY_CONFIRMED ||
           (state == STORE_DELIVERY_IN_FLIGHT && op->p.seq >= l->signed_before);
}

static void check_released(const struct left *l)
{
    const struct script *s = l->s;

    if (s->rotate.p.result == 0)
        assert_true(l->fanout.row != 0 || l->n == BSAS);
    for (size_t i = 0; i < ARRAY_SIZE(s->group); i++) {
        if (s->group[i].p.result == 0)
            assert_true(l->n >= s->group[i].bsa);
    }
    for (unsigned i = 0; i < BSAS; i++) {
        const struct store_delivery *d = &l->of[i + 1];

        if (s->attempt[i].p.result == 0)
            assert_true(d->attempts == 1 && s->attempt[i].p.seq < l->signed_before);
        if (s->end[i].p.result == 0 && i + 1 < BSAS)
            assert_true(as_confirmed(l, &s->end[i]));
        if (s->end[i].p.result == 0 && i + 1 == BSAS)
            assert_int_equal(d->state, STORE_DELIVERY_ABANDONED);
    }
    assert_int_not_equal(s->loser.p.result, 0);
}

static int check(void *arg, struct store_tx *tx)
{
    struct left *l = arg;

    l->tx = tx;
    check_state(l);
    return 0;
}

/* On a sound disk again; then the rest of the fan-out is done. */
static void check_left(struct fixture *f, const struct script *s, bool ran, unsigned k)
{
    struct left l = {.s = s, .k = k};
    struct log_check log;
    struct op op = {.bsa = 0};

    store_signer_restart(f->signer);
    fixture_open(f);
    log = fixture_check_log(f, "log.recovered");
    l.signed_before = log.count > 0 ? log.from : log.leaves;
    assert_int_equal(store_call(f->store, STORE_READ, check, &l), 0);
    if (ran)
        check_released(&l);
    while (l.fanout.row != 0) {
        assert_int_equal(run(f, &op, STORE_SIGNED, group), 0);
        assert_int_equal(store_call(f->store, STORE_READ, check, &l), 0);
    }
    assert_true(l.n == 0 || l.n == BSAS);
    fixture_close(f);
}

static void start_over(struct fixture *f)
{
    char wal[140];

    (void)snprintf(wal, sizeof(wal), "%s-wal", f->path);
    (void)unlink(f->path);
    (void)unlink(wal);
    store_signer_restart(f->signer);
}

static void every_operation(struct fixture *f, enum store_vfs_fault fault)
{
    struct script *s = calloc(1, sizeof(*s));
    unsigned hit = 0;
    bool happened = true, ran = false;

    assert_non_null(s);
    for (unsigned k = 1; happened; k += store_vfs_step()) {
        start_over(f);
        store_vfs_arm(fault, k);
        ran = run_script(f, s);
        happened = store_vfs_disarm();
        hit += happened;
        check_left(f, s, ran, k);
    }
    assert_true(hit * store_vfs_step() > 40); /* or nothing was tested */
    /* Of the last round, without a fault. */
    assert_int_equal(s->end[0].p.result, 0);
    assert_int_equal(s->end[BSAS - 1].p.result, 0);
    assert_int_equal(s->loser.p.result, TEKD_EEXIST);
    free(s);
}

static void store__keeps_its_deliveries_over_an_io_error(void **state)
{
    every_operation(*state, VFS_IO_ERROR);
}

static void store__keeps_its_deliveries_over_a_full_disk(void **state)
{
    every_operation(*state, VFS_FULL);
}

static void store__keeps_its_deliveries_over_a_power_cut(void **state)
{
    every_operation(*state, VFS_POWER_CUT);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store__keeps_its_deliveries_over_an_io_error),
        TEST(store__keeps_its_deliveries_over_a_full_disk),
        TEST(store__keeps_its_deliveries_over_a_power_cut),
    };

    store_vfs_register();
    return cmocka_run_group_tests_name("store_fanout_faults", tests, NULL, NULL);
}
