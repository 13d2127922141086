/* Fan-outs, who holds a content, and crypto-periods: rows and walks. */
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

/* Rows as digits, in the order they came. */
struct seen {
    char rows[16];
    size_t stop_at;
};

static int see(struct seen *seen, int64_t row)
{
    size_t n = strlen(seen->rows);

    assert_true(n + 1 < sizeof(seen->rows));
    seen->rows[n] = (char)('0' + row);
    return n + 1 == seen->stop_at ? 17 : 0;
}

/* ---- fan-outs -------------------------------------------------------------------------------- */

struct fanouts {
    struct store_fanout f[4];
    size_t n;
};

static int see_fanout(void *arg, const struct store_fanout *f)
{
    struct fanouts *seen = arg;

    assert_true(seen->n < ARRAY_SIZE(seen->f));
    seen->f[seen->n++] = *f;
    return 0;
}

static int fanouts(void *arg, struct store_tx *tx)
{
    struct store_fanout f = {.tek = 7, .content = 8, .after_bsa = 9};
    struct store_fanout second = {.tek = 10, .content = 8};
    struct fanouts seen = {.n = 0};
    struct store_walk w = {.limit = SIZE_MAX, .arg = &seen};

    (void)arg;
    assert_int_equal(store_tx_fanout_insert(tx, &f), 0);
    assert_int_equal(store_tx_fanout_insert(tx, &f), TEKD_EEXIST); /* its TEK */
    assert_int_equal(store_tx_fanout_insert(tx, &second), 0);
    assert_int_equal(store_tx_fanout_walk(tx, &w, see_fanout), 0);
    assert_int_equal(seen.n, 2);
    assert_memory_equal(&seen.f[0], &f, sizeof(f));
    assert_memory_equal(&seen.f[1], &second, sizeof(second));
    assert_int_equal(store_tx_fanout_advance(tx, second.row, 33), 0);
    seen.n = 0;
    w = (struct store_walk){.after = f.row, .limit = 1, .arg = &seen};
    assert_int_equal(store_tx_fanout_walk(tx, &w, see_fanout), 0);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.f[0].row, second.row);
    assert_int_equal(seen.f[0].after_bsa, 33);
    assert_int_equal(store_tx_fanout_delete(tx, second.row), 0);
    assert_int_equal(store_tx_fanout_delete(tx, second.row), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_fanout_advance(tx, second.row, 1), TEKD_ENOTFOUND);
    seen.n = 0;
    assert_int_equal(store_tx_fanout_walk(tx, &w, see_fanout), 0);
    assert_int_equal(seen.n, 0);
    return 0;
}

static void store_tx_fanout__round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_tx(fanouts, NULL), 0);
}

/* KEK n is of BSA n; 1 is the storage KEK. */
static void put_keks(struct store_tx *tx, int64_t n)
{
    for (int64_t row = 1; row <= n; row++) {
        struct store_kek k = {.bsa = row == 1 ? 0 : row, .version = 1};

        (void)snprintf(k.name, sizeof(k.name), "kek/%d", (int)row);
        memset(k.kek.fingerprint, (int)row, sizeof(k.kek.fingerprint));
        assert_int_equal(store_tx_kek_insert(tx, &k), 0);
        assert_int_equal(k.row, row);
    }
}

/* Content 1 has TEK 1, 2, 3; content 2 has TEK 4. */
static void put_teks(struct store_tx *tx)
{
    for (int64_t row = 1; row <= 4; row++) {
        struct store_tek t = {.content = row < 4 ? 1 : 2, .version = (uint32_t)row, .bits = 128};

        memset(t.key_id, (int)row, sizeof(t.key_id));
        assert_int_equal(store_tx_tek_insert(tx, &t), 0);
        assert_int_equal(t.row, row);
    }
}

static int see_bsa(void *arg, int64_t bsa)
{
    return see(arg, bsa);
}

/* The holders that TEK tek of this content goes to, at most limit behind after. */
struct asked {
    int64_t content, tek, after;
    size_t limit, stop_at;
};

static const char *ask(struct store_tx *tx, const struct asked *a)
{
    static struct seen seen;
    struct store_walk w = {
        .after = a->after, .limit = a->limit ? a->limit : SIZE_MAX, .arg = &seen};
    int r;

    seen = (struct seen){.stop_at = a->stop_at};
    r = store_tx_holders_walk(tx, a->content, a->tek, &w, see_bsa);
    assert_int_equal(r, a->stop_at != 0 ? 17 : 0);
    return seen.rows;
}

#define ASK(...) ask(tx, &(struct asked){__VA_ARGS__})

static int ask_holders(void *arg, struct store_tx *tx)
{
    static const int64_t exports[][2] = {{1, 4}, {1, 2}, {2, 2}, {2, 3}, {4, 5}, {1, 1}, {3, 6}};
    struct hsm_blob data = {.len = 24};

    (void)arg;
    put_keks(tx, 6);
    put_teks(tx);
    assert_string_equal(ASK(.content = 1, .tek = 3), "");
    for (size_t i = 0; i < ARRAY_SIZE(exports); i++)
        assert_int_equal(
            store_tx_export_insert(tx, exports[i][0], exports[i][1], &data, &(bool){false}), 0);
    assert_string_equal(ASK(.content = 1, .tek = 3), "234"); /* 6 has only that one */
    assert_string_equal(ASK(.content = 2, .tek = 3), "5");
    assert_string_equal(ASK(.content = 3, .tek = 3), "");
    assert_string_equal(ASK(.content = 1, .tek = 3, .after = 2), "34");
    assert_string_equal(ASK(.content = 1, .tek = 3, .limit = 2), "23");
    assert_string_equal(ASK(.content = 1, .tek = 3, .stop_at = 1), "2");
    /* The new one of it was fetched already: it is a holder all the same. */
    assert_int_equal(store_tx_export_insert(tx, 3, 2, &data, &(bool){false}), 0);
    assert_string_equal(ASK(.content = 1, .tek = 3), "234");
    /* What was given stays given, though it is destroyed. */
    assert_int_equal(store_tx_tek_destroy(tx, 1), 0);
    assert_string_equal(ASK(.content = 1, .tek = 3), "234");
    return 0;
}

static void store_tx_holders_walk__gives_who_has_a_key_of_the_content(void **state)
{
    (void)state;
    assert_int_equal(in_tx(ask_holders, NULL), 0);
}

/* ---- crypto-periods -------------------------------------------------------------------------- */

static int see_content(void *arg, const struct store_content *c)
{
    return see(arg, c->row);
}

static const char *periodic(struct store_tx *tx, int64_t after, size_t limit)
{
    static struct seen seen;
    struct store_walk w = {.after = after, .limit = limit, .arg = &seen};

    seen = (struct seen){.stop_at = 0};
    assert_int_equal(store_tx_content_walk_periodic(tx, &w, see_content), 0);
    return seen.rows;
}

static int ask_periods(void *arg, struct store_tx *tx)
{
    int64_t last = 77;

    (void)arg;
    for (int64_t row = 1; row <= 6; row++) {
        struct store_content c = {.bits = 128, .period_s = row % 2 == 0 ? 3600 : 0};

        (void)snprintf(c.id, sizeof(c.id), "urn:x:%d", (int)row);
        assert_int_equal(store_tx_content_insert(tx, &c), 0);
    }
    assert_string_equal(periodic(tx, 0, SIZE_MAX), "246");
    assert_string_equal(periodic(tx, 2, SIZE_MAX), "46");
    assert_string_equal(periodic(tx, 0, 1), "2");
    assert_int_equal(store_tx_tek_last_period(tx, 2, &last), TEKD_ENOTFOUND);
    for (int64_t period = 0; period < 3; period++) {
        struct store_tek t = {.content = 2, .period = 10 - 4 * period, .version = 1, .bits = 128};

        memset(t.key_id, (int)period, sizeof(t.key_id));
        assert_int_equal(store_tx_tek_insert(tx, &t), 0);
    }
    assert_int_equal(store_tx_tek_last_period(tx, 2, &last), 0);
    assert_int_equal(last, 10);
    assert_int_equal(store_tx_tek_destroy(tx, 1), 0);
    assert_int_equal(store_tx_tek_last_period(tx, 2, &last), 0);
    assert_int_equal(last, 10);
    assert_int_equal(store_tx_tek_last_period(tx, 4, &last), TEKD_ENOTFOUND);
    return 0;
}

static void store_tx_content_walk_periodic__passes_over_the_others(void **state)
{
    (void)state;
    assert_int_equal(in_tx(ask_periods, NULL), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_tx_fanout__round_trip),
        TEST(store_tx_holders_walk__gives_who_has_a_key_of_the_content),
        TEST(store_tx_content_walk_periodic__passes_over_the_others),
    };

    return cmocka_run_group_tests_name("store_fanout", tests, NULL, NULL);
}
