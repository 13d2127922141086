/* Key deliveries and fan-outs as rows: what goes in comes out, in the order that is promised. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
                                 .deadline_us = 9000 - n,
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

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_tx_delivery__round_trip),
    };

    (void)put_delivery;
    (void)message_of;
    return cmocka_run_group_tests_name("store_delivery", tests, NULL, NULL);
}
