/* Key deliveries and fan-outs as rows: what goes in comes out, in the order that is promised. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "store_fixture.h"

static struct fixture *fixture; /* of the test that runs */

static int in_tx(int (*apply)(void *arg, struct store_tx *tx), void *arg)
{
    return store_call(fixture->store, STORE_DURABLE, apply, arg);
}

static int setup(void **state)
{
    int r = fixture_setup(state);

    fixture = *state;
    fixture_open(fixture);
    return r;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Deadlines are about here: far off, or the sweep would remove what has ended. */
#define FAR INT64_C(4102444800000000)

/* Number n of a BSA; everything in it follows from n. */
static void fill_delivery(struct store_delivery *d, unsigned n, int64_t bsa)
{
    *d = (struct store_delivery){.bsa = bsa,
                                 .content = 100 + n,
                                 .tek = 200 + n,
                                 .kek = 300 + n,
                                 .media = STORE_MEDIA_JSON,
                                 .created_us = 1000 + n,
                                 .next_us = 2000 + n,
                                 .deadline_us = FAR - n,
                                 .seq = 7 + n,
                                 .epoch = 1};
    (void)snprintf(d->mid, sizeof(d->mid), "01900000-0000-7000-8000-%012u", n);
    memset(d->out_sha256, (int)n, sizeof(d->out_sha256));
}

static void put_delivery(struct store_tx *tx, struct store_delivery *d, unsigned n, int64_t bsa)
{
    char message[16];
    int len = snprintf(message, sizeof(message), "message %u", n);

    fill_delivery(d, n, bsa);
    assert_int_equal(store_tx_delivery_insert(tx, d, message, (size_t)len), 0);
}

/* What is sent for this row; "" when there is nothing any more. */
static const char *message_of(struct store_tx *tx, int64_t row)
{
    static char text[32];
    AUTO(buf) struct buf *b = NULL;
    int r;

    assert_int_equal(buf_new(STORE_DELIVERY_MAX, &b), 0);
    r = store_tx_delivery_message(tx, row, b);
    assert_true(r == 0 || r == TEKD_ENOTFOUND);
    (void)snprintf(text, sizeof(text), "%.*s", (int)buf_len(b), (const char *)buf_data(b));
    return text;
}

static int round_trip(void *arg, struct store_tx *tx)
{
    static const char longest[STORE_DELIVERY_MAX] = {'<'};
    AUTO(buf) struct buf *b = NULL;
    struct store_delivery d, back;

    (void)arg;
    fill_delivery(&d, 1, 5);
    memset(d.why, 'w', STORE_WHY_MAX);
    d.attempts = 3;
    d.confirmed_seq = 12;
    assert_int_equal(store_tx_delivery_find(tx, d.mid, STORE_MID_LEN, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_delivery_insert(tx, &d, longest, sizeof(longest)), 0);
    assert_int_equal(d.row, 1);
    memset(&back, 0xaa, sizeof(back));
    assert_int_equal(store_tx_delivery_find(tx, d.mid, STORE_MID_LEN, &back), 0);
    assert_memory_equal(&back, &d, sizeof(d));
    memset(&back, 0xaa, sizeof(back));
    assert_int_equal(store_tx_delivery_get(tx, 1, &back), 0);
    assert_memory_equal(&back, &d, sizeof(d));
    assert_int_equal(buf_new(STORE_DELIVERY_MAX, &b), 0);
    assert_int_equal(store_tx_delivery_message(tx, 1, b), 0);
    assert_int_equal(buf_len(b), sizeof(longest));
    assert_memory_equal(buf_data(b), longest, sizeof(longest));
    assert_int_equal(store_tx_delivery_get(tx, 2, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_delivery_message(tx, 2, b), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_delivery_find(tx, d.mid, STORE_MID_LEN - 1, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_delivery_insert(tx, &d, "x", 1), TEKD_EEXIST);
    return 0;
}

static void store_tx_delivery__round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_tx(round_trip, NULL), 0);
}

/* ---- changes --------------------------------------------------------------------------------- */

static void change_state(struct store_tx *tx, struct store_delivery *d,
                         enum store_delivery_state state)
{
    d->state = state;
    assert_int_equal(store_tx_delivery_update(tx, d), 0);
}

static int update(void *arg, struct store_tx *tx)
{
    struct store_delivery d, other, back;

    (void)arg;
    put_delivery(tx, &d, 1, 5);
    put_delivery(tx, &other, 2, 5);
    d.state = STORE_DELIVERY_IN_FLIGHT;
    d.attempts = 4;
    d.next_us = 55;
    d.deadline_us = 66;
    d.confirmed_seq = 77;
    (void)snprintf(d.why, sizeof(d.why), "HTTP 500");
    assert_int_equal(store_tx_delivery_update(tx, &d), 0);
    assert_int_equal(store_tx_delivery_get(tx, d.row, &back), 0);
    assert_memory_equal(&back, &d, sizeof(d));
    assert_int_equal(store_tx_delivery_get(tx, other.row, &back), 0);
    assert_memory_equal(&back, &other, sizeof(other));
    /* What was prepared stays so. */
    d.bsa = d.content = d.tek = d.kek = 99;
    d.created_us = 99;
    d.seq = 99;
    assert_int_equal(store_tx_delivery_update(tx, &d), 0);
    assert_int_equal(store_tx_delivery_get(tx, d.row, &back), 0);
    assert_int_equal(back.bsa, 5);
    assert_int_equal(back.content, 101);
    assert_int_equal(back.tek, 201);
    assert_int_equal(back.kek, 301);
    assert_int_equal(back.created_us, 1001);
    assert_int_equal(back.seq, 8);
    d.row = 3;
    assert_int_equal(store_tx_delivery_update(tx, &d), TEKD_ENOTFOUND);
    return 0;
}

static void store_tx_delivery_update__changes_what_an_attempt_changes(void **state)
{
    (void)state;
    assert_int_equal(in_tx(update, NULL), 0);
}

static int keep_message(void *arg, struct store_tx *tx)
{
    struct store_delivery d;

    (void)arg;
    put_delivery(tx, &d, 1, 5);
    for (int i = 0; i < STORE_DELIVERY_ABANDONED; i++) {
        change_state(tx, &d, (enum store_delivery_state)i);
        assert_string_equal(message_of(tx, d.row), "message 1");
    }
    change_state(tx, &d, STORE_DELIVERY_ABANDONED);
    assert_string_equal(message_of(tx, d.row), "");
    return 0;
}

static void store_tx_delivery_message__is_there_while_it_may_be_sent(void **state)
{
    (void)state;
    assert_int_equal(in_tx(keep_message, NULL), 0);
}

/* ---- confirmations and the signature over them ----------------------------------------------- */

static struct record *confirmed_record(const struct store_delivery *d)
{
    struct record *r = NULL;

    assert_int_equal(record_new("delivery.confirmed", &r), 0);
    record_ref(r, "ref", d->epoch, d->seq);
    record_str(r, "mid", d->mid);
    record_str(r, "peer", "bsa-5");
    record_hex(r, "cert", d->out_sha256, 32);
    record_hex(r, "out", d->out_sha256, 32);
    return r;
}

static void confirm_in(struct store_tx *tx, struct store_delivery *d)
{
    assert_int_equal(store_tx_record(tx, confirmed_record(d), &d->confirmed_seq), 0);
    change_state(tx, d, STORE_DELIVERY_CONFIRMED);
}

static int put_three(void *arg, struct store_tx *tx)
{
    struct store_delivery d;

    (void)arg;
    for (unsigned n = 1; n <= 3; n++) {
        put_delivery(tx, &d, n, 5);
        change_state(tx, &d, STORE_DELIVERY_IN_FLIGHT);
    }
    return 0;
}

/* arg: the row. */
static int confirm(void *arg, struct store_tx *tx)
{
    struct store_delivery d;

    assert_int_equal(store_tx_delivery_get(tx, *(int64_t *)arg, &d), 0);
    confirm_in(tx, &d);
    return 0;
}

static int abandon(void *arg, struct store_tx *tx)
{
    struct store_delivery d;

    assert_int_equal(store_tx_delivery_get(tx, *(int64_t *)arg, &d), 0);
    change_state(tx, &d, STORE_DELIVERY_ABANDONED);
    return 0;
}

/* What a read says of a row. */
struct found {
    int64_t row;
    struct store_delivery d;
    char message[32];
};

static int find(void *arg, struct store_tx *tx)
{
    struct found *found = arg;

    (void)snprintf(found->message, sizeof(found->message), "%s", message_of(tx, found->row));
    return store_tx_delivery_get(tx, found->row, &found->d);
}

static void expect(struct fixture *f, int64_t row, enum store_delivery_state state,
                   const char *message)
{
    struct found found = {.row = row};

    assert_int_equal(store_call(f->store, STORE_READ, find, &found), 0);
    assert_int_equal(found.d.state, state);
    assert_string_equal(found.message, message);
    assert_int_equal(found.d.confirmed_seq != 0, state == STORE_DELIVERY_CONFIRMED);
}

static void store_tx_delivery_message__goes_with_the_signature(void **state)
{
    struct fixture *f = *state;
    struct probe before;
    unsigned entered;
    int64_t row = 2;

    assert_int_equal(in_tx(put_three, NULL), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    entered = store_signer_entered(f->signer);
    store_signer_hold(f->signer);
    probe_init(&before, STORE_SIGNED, NULL, 1);
    probe_submit(f, &before);
    store_signer_wait_entered(f->signer, entered + 1);
    assert_int_equal(store_call(f->store, STORE_DURABLE, confirm, &row), 0);
    expect(f, 2, STORE_DELIVERY_CONFIRMED, "message 2");
    /* A checkpoint over what came before it changes nothing. */
    store_signer_pass(f->signer);
    assert_int_equal(probe_wait(&before), 0);
    expect(f, 2, STORE_DELIVERY_CONFIRMED, "message 2");
    store_signer_release(f->signer);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    expect(f, 2, STORE_DELIVERY_CONFIRMED, "");
    expect(f, 1, STORE_DELIVERY_IN_FLIGHT, "message 1");
    expect(f, 3, STORE_DELIVERY_IN_FLIGHT, "message 3");
}

/* Row 1 is confirmed under a signature, 2 and 3 without one; 3 was abandoned before. */
static void leave_confirmed(struct fixture *f)
{
    int64_t row = 1;

    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_three, NULL), 0);
    assert_int_equal(store_call(f->store, STORE_SIGNED, confirm, &row), 0);
    store_signer_hold(f->signer);
    row = 2;
    assert_int_equal(store_call(f->store, STORE_DURABLE, confirm, &row), 0);
    row = 3;
    assert_int_equal(store_call(f->store, STORE_DURABLE, abandon, &row), 0);
    assert_int_equal(store_call(f->store, STORE_DURABLE, confirm, &row), 0);
}

static void expect_reopened(struct fixture *f)
{
    expect(f, 1, STORE_DELIVERY_CONFIRMED, "");
    expect(f, 2, STORE_DELIVERY_IN_FLIGHT, "message 2");
    expect(f, 3, STORE_DELIVERY_ABANDONED, "");
}

static void open_and_die(struct fixture *f)
{
    fixture_open(f);
}

static void store_open__takes_back_what_was_confirmed_unsigned(void **state)
{
    struct fixture *f = *state;
    struct log_check log;
    uint64_t from = 99, to = 99;
    int64_t row = 2;

    store_unattested(f->store, &from, &to);
    assert_int_equal(from, to);
    fixture_close(f);
    fixture_crash(f, leave_confirmed);
    fixture_open(f);
    log = fixture_check_log(f, "log.recovered");
    store_unattested(f->store, &from, &to);
    assert_int_equal(from, log.from);
    assert_int_equal(to, log.to + 1);
    assert_int_equal(to - from, 2);
    expect_reopened(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0); /* a checkpoint over the tail */
    expect_reopened(f);
    fixture_close(f);
    /* Whoever should have noticed died as well: it is as it was. */
    fixture_crash(f, open_and_die);
    fixture_open(f);
    expect_reopened(f);
    assert_int_equal(store_call(f->store, STORE_SIGNED, confirm, &row), 0);
    expect(f, 2, STORE_DELIVERY_CONFIRMED, "");
    fixture_close(f);
    fixture_open(f);
    store_unattested(f->store, &from, &to);
    assert_int_equal(from, to);
    expect(f, 2, STORE_DELIVERY_CONFIRMED, "");
}

/* ---- walks ----------------------------------------------------------------------------------- */

/* Deliveries 1 to 7 are in the states 0 to 6, of BSA 5; 8 and 9 are prepared, of BSA 6. */
static void put_states(struct store_tx *tx)
{
    struct store_delivery d;

    for (unsigned n = 1; n <= 9; n++) {
        put_delivery(tx, &d, n, n < 8 ? 5 : 6);
        if (n > 7)
            continue;
        d.confirmed_seq = n == 5 ? 20 : 0;
        change_state(tx, &d, (enum store_delivery_state)(n - 1));
    }
}

/* Rows as digits, in the order they came. */
struct seen {
    char rows[16];
    size_t stop_at;
};

static int see(void *arg, const struct store_delivery *d)
{
    struct seen *seen = arg;
    size_t n = strlen(seen->rows);

    assert_true(n + 1 < sizeof(seen->rows));
    seen->rows[n] = (char)('0' + d->row);
    return n + 1 == seen->stop_at ? 17 : 0;
}

/* A walk of any kind over at most limit rows behind after. */
struct asked {
    int (*walk)(struct store_tx *tx, const struct asked *a, const struct store_walk *w);
    int64_t bsa, now_us, far_us, after;
    size_t limit, stop_at;
};

static const char *ask(struct store_tx *tx, const struct asked *a)
{
    static struct seen seen;
    struct store_walk w = {
        .after = a->after, .limit = a->limit ? a->limit : SIZE_MAX, .arg = &seen};

    seen = (struct seen){.stop_at = a->stop_at};
    assert_int_equal(a->walk(tx, a, &w), a->stop_at != 0 ? 17 : 0);
    return seen.rows;
}

#define ASK(...) ask(tx, &(struct asked){.walk = __VA_ARGS__})

static int due(struct store_tx *tx, const struct asked *a, const struct store_walk *w)
{
    const struct store_due x = {.now_us = a->now_us, .far_us = a->far_us ? a->far_us : INT64_MAX};

    return store_tx_delivery_due(tx, a->bsa, &x, w, see);
}

static int all(struct store_tx *tx, const struct asked *a, const struct store_walk *w)
{
    (void)a;
    return store_tx_delivery_walk(tx, w, see);
}

static int open_ones(struct store_tx *tx, const struct asked *a, const struct store_walk *w)
{
    (void)a;
    return store_tx_delivery_walk_open(tx, w, see);
}

static int confirmed(struct store_tx *tx, const struct asked *a, const struct store_walk *w)
{
    return store_tx_delivery_walk_confirmed(tx, (uint64_t)a->now_us, w, see);
}

static int expired(struct store_tx *tx, const struct asked *a, const struct store_walk *w)
{
    return store_tx_delivery_expired(tx, a->now_us, w, see);
}

/* Between .after and .now_us; near is 100 us at most. */
static int near(struct store_tx *tx, const struct asked *a, const struct store_walk *w)
{
    const struct store_near n = {.near_us = 100, .since_us = a->after, .now_us = a->now_us};

    return store_tx_delivery_near(tx, &n, w, see);
}

static int ask_due(void *arg, struct store_tx *tx)
{
    struct store_delivery d;

    (void)arg;
    put_states(tx);
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 3000), "1234");
    assert_string_equal(ASK(due, .bsa = 6, .now_us = 3000), "89");
    assert_string_equal(ASK(due, .bsa = 7, .now_us = 3000), "");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 2003), "123");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 2000), "");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 3000, .after = 2), "34");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 3000, .limit = 2), "12");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 3000, .stop_at = 3), "123");
    /* One that waits does not keep those behind it. */
    assert_int_equal(store_tx_delivery_get(tx, 2, &d), 0);
    d.next_us = 4000;
    assert_int_equal(store_tx_delivery_update(tx, &d), 0);
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 3000, .limit = 2), "13");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 4000, .limit = 2), "12");
    /* Nor does one that is too far ahead. */
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 2001, .far_us = 4000), "1");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 2001, .far_us = 3999), "12");
    assert_string_equal(ASK(due, .bsa = 5, .now_us = 2000, .far_us = 3999), "2");
    return 0;
}

static void store_tx_delivery_due__gives_the_oldest_of_a_bsa(void **state)
{
    (void)state;
    assert_int_equal(in_tx(ask_due, NULL), 0);
}

static int ask_others(void *arg, struct store_tx *tx)
{
    struct store_delivery d;

    (void)arg;
    put_states(tx);
    assert_string_equal(ASK(all), "123456789");
    assert_string_equal(ASK(all, .after = 4, .limit = 3), "567");
    assert_string_equal(ASK(all, .stop_at = 2), "12");
    assert_string_equal(ASK(open_ones), "123489");
    assert_string_equal(ASK(open_ones, .after = 2, .limit = 3), "348");
    assert_string_equal(ASK(confirmed, .now_us = 20), "5");
    assert_string_equal(ASK(confirmed, .now_us = 21), "");
    assert_int_equal(store_tx_delivery_get(tx, 1, &d), 0);
    d.confirmed_seq = 30;
    change_state(tx, &d, STORE_DELIVERY_CONFIRMED);
    assert_string_equal(ASK(confirmed, .now_us = 20), "15"); /* by row */
    assert_string_equal(ASK(confirmed, .now_us = 20, .after = 1), "5");
    assert_string_equal(ASK(confirmed, .now_us = 21), "1");
    return 0;
}

static void store_tx_delivery_walk__gives_all_open_or_confirmed(void **state)
{
    (void)state;
    assert_int_equal(in_tx(ask_others, NULL), 0);
}

static int ask_expired(void *arg, struct store_tx *tx)
{
    (void)arg;
    put_states(tx); /* deadlines fall */
    assert_string_equal(ASK(expired, .now_us = FAR - 10), "");
    assert_string_equal(ASK(expired, .now_us = FAR - 8), "98");
    assert_string_equal(ASK(expired, .now_us = FAR - 4), "984");
    assert_string_equal(ASK(expired, .now_us = FAR), "984321");
    assert_string_equal(ASK(expired, .now_us = FAR, .limit = 2), "98");
    assert_string_equal(ASK(expired, .now_us = FAR, .after = 8, .limit = 2), "98");
    return 0;
}

static void store_tx_delivery_expired__is_in_the_order_of_deadlines(void **state)
{
    (void)state;
    assert_int_equal(in_tx(ask_expired, NULL), 0);
}

static int ask_near(void *arg, struct store_tx *tx)
{
    static const int64_t lives[] = {1000, 400, 80}; /* near for 100, 100 and 20 of it */
    struct store_delivery d;
    int64_t t = 0;

    (void)arg;
    for (unsigned n = 1; n <= 3; n++) {
        put_delivery(tx, &d, n, 5);
        t = d.created_us - n; /* rows differ by that */
        d.deadline_us = d.created_us + lives[n - 1];
        assert_int_equal(store_tx_delivery_update(tx, &d), 0);
    }
    assert_string_equal(ASK(near, .after = 0, .now_us = t + 62), "");
    assert_string_equal(ASK(near, .after = 0, .now_us = t + 63), "3");
    assert_string_equal(ASK(near, .after = t + 62, .now_us = t + 82), "3");
    assert_string_equal(ASK(near, .after = t + 63, .now_us = t + 82), "");
    assert_string_equal(ASK(near, .after = 0, .now_us = t + 83), ""); /* past it */
    assert_string_equal(ASK(near, .after = 0, .now_us = t + 301), "");
    assert_string_equal(ASK(near, .after = t + 301, .now_us = t + 302), "2");
    assert_string_equal(ASK(near, .after = t + 302, .now_us = t + 401), "");
    assert_string_equal(ASK(near, .after = t + 300, .now_us = t + 900), "");
    assert_string_equal(ASK(near, .after = t + 900, .now_us = t + 901), "1");
    d.state = STORE_DELIVERY_UNCONFIRMED;
    assert_int_equal(store_tx_delivery_update(tx, &d), 0);
    assert_string_equal(ASK(near, .after = 0, .now_us = t + 63), "");
    return 0;
}

static void store_tx_delivery_near__gives_who_came_near_meanwhile(void **state)
{
    (void)state;
    assert_int_equal(in_tx(ask_near, NULL), 0);
}

/* ---- sums ------------------------------------------------------------------------------------ */

struct lanes {
    struct store_lane lane[4];
    size_t n, stop_at;
};

static int see_lane(void *arg, const struct store_lane *l)
{
    struct lanes *lanes = arg;

    assert_true(lanes->n < ARRAY_SIZE(lanes->lane));
    lanes->lane[lanes->n++] = *l;
    return lanes->n == lanes->stop_at ? 17 : 0;
}

static int ask_lanes(void *arg, struct store_tx *tx)
{
    struct lanes lanes = {.n = 0};
    struct store_lane l;

    (void)arg;
    assert_int_equal(store_tx_delivery_lanes(tx, &lanes, see_lane), 0);
    assert_int_equal(lanes.n, 0);
    put_states(tx);
    assert_int_equal(store_tx_delivery_lanes(tx, &lanes, see_lane), 0);
    assert_int_equal(lanes.n, 2);
    l = (struct store_lane){.bsa = 5, .open = 4, .next_us = 2001, .deadline_us = FAR - 4};
    assert_memory_equal(&lanes.lane[0], &l, sizeof(l));
    l = (struct store_lane){.bsa = 6, .open = 2, .next_us = 2008, .deadline_us = FAR - 9};
    assert_memory_equal(&lanes.lane[1], &l, sizeof(l));
    memset(&l, 0xaa, sizeof(l));
    assert_int_equal(store_tx_delivery_lane(tx, 6, &l), 0);
    assert_memory_equal(&lanes.lane[1], &l, sizeof(l));
    assert_int_equal(store_tx_delivery_lane(tx, 7, &l), 0);
    assert_int_equal(l.bsa, 7);
    assert_int_equal(l.open, 0);
    assert_int_equal(l.next_us, INT64_MAX);
    assert_int_equal(l.deadline_us, INT64_MAX);
    lanes = (struct lanes){.stop_at = 1};
    assert_int_equal(store_tx_delivery_lanes(tx, &lanes, see_lane), 17);
    assert_int_equal(lanes.n, 1);
    return 0;
}

static void store_tx_delivery_lane__sums_up_what_is_open(void **state)
{
    (void)state;
    assert_int_equal(in_tx(ask_lanes, NULL), 0);
}

/* arg: as many as are expected in each state. */
static int counts(void *arg, struct store_tx *tx)
{
    uint64_t count[STORE_DELIVERY_STATES];

    memset(count, 0xaa, sizeof(count));
    assert_int_equal(store_tx_delivery_counts(tx, count), 0);
    assert_memory_equal(count, arg, sizeof(count));
    return 0;
}

static int count_changes(void *arg, struct store_tx *tx)
{
    struct store_delivery d;

    (void)counts((uint64_t[STORE_DELIVERY_STATES]){0}, tx);
    put_states(tx);
    (void)counts((uint64_t[]){3, 1, 1, 1, 1, 1, 1}, tx);
    assert_int_equal(store_tx_delivery_get(tx, 1, &d), 0);
    change_state(tx, &d, STORE_DELIVERY_PREPARED);
    (void)counts((uint64_t[]){3, 1, 1, 1, 1, 1, 1}, tx);
    change_state(tx, &d, STORE_DELIVERY_IN_FLIGHT);
    (void)counts((uint64_t[]){2, 2, 1, 1, 1, 1, 1}, tx);
    return *(int *)arg;
}

static void store_tx_delivery_counts__follow_every_change(void **state)
{
    struct fixture *f = *state;
    int fails = TEKD_EINVAL, works = 0;
    uint64_t expected[] = {2, 2, 1, 1, 1, 1, 1};

    assert_int_equal(in_tx(count_changes, &fails), TEKD_EINVAL);
    assert_int_equal(store_call(f->store, STORE_READ, counts, (uint64_t[STORE_DELIVERY_STATES]){0}),
                     0);
    assert_int_equal(in_tx(count_changes, &works), 0);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_READ, counts, expected), 0);
}

static void store_delivery_state_name__knows_all(void **state)
{
    static const char *const names[] = {"prepared",  "in-flight",   "rejected", "unknown",
                                        "confirmed", "unconfirmed", "abandoned"};

    (void)state;
    assert_int_equal(ARRAY_SIZE(names), STORE_DELIVERY_STATES);
    for (int i = 0; i < STORE_DELIVERY_STATES; i++) {
        assert_string_equal(store_delivery_state_name((enum store_delivery_state)i), names[i]);
        assert_int_equal(store_delivery_is_open((enum store_delivery_state)i), i < 4);
    }
    assert_null(store_delivery_state_name((enum store_delivery_state)STORE_DELIVERY_STATES));
    assert_null(store_delivery_state_name((enum store_delivery_state) - 1));
}

/* ---- how SQLite finds them ------------------------------------------------------------------- */

static void explain(sqlite3 *db, const char *text, char *out, size_t max)
{
    char sql[2000];
    sqlite3_stmt *stmt = NULL;

    out[0] = '\0';
    (void)snprintf(sql, sizeof(sql), "EXPLAIN QUERY PLAN %s", text);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        size_t len = strlen(out);

        (void)snprintf(out + len, max - len, "%s; ", (const char *)sqlite3_column_text(stmt, 3));
    }
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
}

/* None of them may go through a table, or through an index of more than what is open. */
static void statements__use_the_indexes_made_for_them(void **state)
{
    static const struct {
        enum db_statement id;
        const char *plan;
    } expected[] = {
        {DB_DELIVERY_FIND, "INDEX sqlite_autoindex_delivery_1 (mid=?); "},
        {DB_DELIVERY_DUE, "INDEX delivery_of_bsa (bsa=? AND row>?); "},
        {DB_DELIVERY_OPEN, "INDEX delivery_open (row>?); "},
        {DB_DELIVERY_CONFIRMED, "INDEX delivery_confirmed (confirmed_seq>?); "},
        {DB_DELIVERY_REOPEN, "INDEX delivery_confirmed (confirmed_seq>?); "},
        {DB_DELIVERY_EXPIRED, "INDEX delivery_deadline (deadline_us<?); "},
        {DB_DELIVERY_NEAR, "INDEX delivery_deadline (deadline_us>? AND deadline_us<?); "},
        {DB_DELIVERY_LANES, "SCAN delivery USING INDEX delivery_of_bsa; "},
        {DB_DELIVERY_LANE, "INDEX delivery_of_bsa (bsa=?); "},
        {DB_DELIVERY_MESSAGE_FORGET, "INDEX delivery_confirmed (confirmed_seq>? AND"},
        {DB_HOLDER_WALK, "PRIMARY KEY (content=? AND bsa>?); "},
        {DB_SCAN_EXPORT, "SEARCH export USING PRIMARY KEY ((tek,kek)>(?,?)); "},
        {DB_SCAN_HOLDER, "SEARCH holder USING PRIMARY KEY ((content,bsa)>(?,?)); "},
        {DB_CONTENT_WALK_PERIODIC, "INDEX content_periodic (row>?); "},
        {DB_TEK_LAST_PERIOD, "INDEX sqlite_autoindex_tek_2 (content=?); "},
        {DB_TEK_WALK, "INDEX sqlite_autoindex_tek_2 (content=? AND (period,version)>(?,?)); "},
    };
    struct fixture *f = *state;
    sqlite3 *db;
    char plan[600];

    fixture_close(f);
    db = fixture_sqlite(f);
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        const char *text = db_statement_text(expected[i].id);

        explain(db, text, plan, sizeof(plan));
        if (strstr(plan, expected[i].plan) == NULL)
            fail_msg("%s\nis done by: %s", text, plan);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_tx_delivery__round_trip),
        TEST(store_tx_delivery_update__changes_what_an_attempt_changes),
        TEST(store_tx_delivery_message__is_there_while_it_may_be_sent),
        TEST(store_tx_delivery_message__goes_with_the_signature),
        TEST(store_open__takes_back_what_was_confirmed_unsigned),
        TEST(store_tx_delivery_due__gives_the_oldest_of_a_bsa),
        TEST(store_tx_delivery_walk__gives_all_open_or_confirmed),
        TEST(store_tx_delivery_expired__is_in_the_order_of_deadlines),
        TEST(store_tx_delivery_near__gives_who_came_near_meanwhile),
        TEST(store_tx_delivery_lane__sums_up_what_is_open),
        TEST(store_tx_delivery_counts__follow_every_change),
        TEST(store_delivery_state_name__knows_all),
        TEST(statements__use_the_indexes_made_for_them),
    };

    return cmocka_run_group_tests_name("store_delivery", tests, NULL, NULL);
}
