/* What became of deliveries, from the records of a log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tekctl.h"

void complain(const char *fmt, ...)
{
    fail_msg("%s", fmt);
}

/* ---- a log ----------------------------------------------------------------------------------- */

struct log {
    struct deliveries d;
    uint64_t seq;
    struct delivery *last; /* that the last record was about */
};

static int set_up(void **state)
{
    static struct log l;

    l = (struct log){.d.epoch = 1};
    *state = &l;
    return 0;
}

static int tear_down(void **state)
{
    deliveries_clear(&((struct log *)*state)->d);
    return 0;
}

/* As it comes from the server: written, and read again. */
static struct record *parsed(const struct record *r, uint64_t seq)
{
    AUTO(buf) struct buf *octets = NULL;
    struct record *again = NULL;
    const char *what;

    assert_int_equal(buf_new(RECORD_MAX, &octets), 0);
    assert_int_equal(record_encode(r, seq, 0, "test", octets), 0);
    assert_int_equal(record_parse(buf_data(octets), buf_len(octets), &again, &what), 0);
    return again;
}

/* The next record; ref: of the preparation, -1 for none.  Returns its number. */
static uint64_t tell(struct log *l, const char *event, int64_t ref)
{
    AUTO(record) struct record *r = NULL;
    AUTO(record) struct record *again = NULL;
    uint64_t seq = l->seq++;

    assert_int_equal(record_new(event, &r), 0);
    if (ref >= 0)
        record_ref(r, "ref", 1, (uint64_t)ref);
    again = parsed(r, seq);
    assert_int_equal(deliveries_take(&l->d, again, &l->last), TEKCTL_DONE);
    return seq;
}

static void tell_recovered(struct log *l, uint64_t from, uint64_t to)
{
    AUTO(record) struct record *r = NULL;
    AUTO(record) struct record *again = NULL;

    assert_int_equal(record_new("log.recovered", &r), 0);
    record_int(r, "from", from);
    record_int(r, "to", to);
    again = parsed(r, l->seq++);
    assert_int_equal(deliveries_take(&l->d, again, &l->last), TEKCTL_DONE);
    assert_null(l->last);
}

static void assert_is(const struct log *l, const char *state, bool open)
{
    assert_non_null(l->last);
    assert_string_equal(l->last->state, state);
    assert_int_equal(l->last->open, open);
}

/* ---- one delivery ---------------------------------------------------------------------------- */

static void deliveries_take__follows_a_delivery_to_its_end(void **state)
{
    struct log *l = *state;
    int64_t ref = (int64_t)tell(l, "delivery.prepared", -1);
    uint64_t seq;

    assert_is(l, "prepared", true);
    assert_int_equal(l->last->seq, ref);
    (void)tell(l, "delivery.attempt", ref);
    assert_is(l, "in-flight", true);
    (void)tell(l, "delivery.rejected", ref);
    assert_is(l, "rejected", true);
    (void)tell(l, "delivery.attempt", ref);
    (void)tell(l, "delivery.unknown", ref);
    assert_is(l, "unknown", true);
    (void)tell(l, "delivery.unconfirmed", ref);
    assert_is(l, "unconfirmed", false);
    assert_int_equal(l->last->confirmed, DELIVERY_NONE);
    seq = tell(l, "delivery.confirmed", ref);
    assert_is(l, "confirmed", false);
    assert_int_equal(l->last->confirmed, seq);
    assert_int_equal(l->last->attempts, 2);
}

static void deliveries_take__keeps_what_was_given_up(void **state)
{
    struct log *l = *state;
    int64_t ref = (int64_t)tell(l, "delivery.prepared", -1);

    (void)tell(l, "delivery.attempt", ref);
    (void)tell(l, "delivery.abandoned", ref);
    (void)tell(l, "delivery.rejected", ref);
    assert_is(l, "abandoned", false);
    /* One past its deadline an operator may have sent again. */
    ref = (int64_t)tell(l, "delivery.prepared", -1);
    (void)tell(l, "delivery.unconfirmed", ref);
    (void)tell(l, "delivery.attempt", ref);
    assert_is(l, "in-flight", true);
}

static void deliveries_take__knows_one_from_another(void **state)
{
    struct log *l = *state;
    uint64_t ref[600];

    for (size_t i = 0; i < ARRAY_SIZE(ref); i++) {
        ref[i] = tell(l, "delivery.prepared", -1);
        (void)tell(l, "log.heartbeat", -1);
        assert_null(l->last);
    }
    for (size_t i = 0; i < ARRAY_SIZE(ref); i += 7) {
        (void)tell(l, "delivery.confirmed", (int64_t)ref[i]);
        assert_int_equal(l->last->seq, ref[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(ref); i++)
        assert_int_equal(l->d.list[i].open, i % 7 != 0);
    (void)tell(l, "delivery.confirmed", 99999);
    assert_null(l->last);
}

/* ---- confirmations that do not count --------------------------------------------------------- */

static void deliveries_take__takes_back_what_is_unattested(void **state)
{
    struct log *l = *state;
    int64_t first = (int64_t)tell(l, "delivery.prepared", -1);
    int64_t second = (int64_t)tell(l, "delivery.prepared", -1);
    uint64_t from;

    (void)tell(l, "delivery.confirmed", first);
    from = tell(l, "delivery.confirmed", second);
    tell_recovered(l, from, from);
    assert_false(l->d.list[0].open);
    assert_false(l->d.list[0].doubtful);
    assert_true(l->d.list[1].open && l->d.list[1].doubtful);
    assert_string_equal(l->d.list[1].state, "unknown");
    assert_int_equal(l->d.list[1].confirmed, DELIVERY_NONE);
    (void)tell(l, "delivery.unknown", second);
    (void)tell(l, "delivery.confirmed", second);
    assert_is(l, "confirmed", false);
    assert_false(l->last->doubtful);
    tell_recovered(l, from + 1, from); /* nothing was adopted */
    assert_false(l->d.list[1].open);
}

/* ---- room ------------------------------------------------------------------------------------ */

static void deliveries_forget__leaves_the_others(void **state)
{
    struct log *l = *state;

    for (size_t i = 0; i < 5000; i++) {
        int64_t kept = (int64_t)tell(l, "delivery.prepared", -1);

        (void)tell(l, "delivery.prepared", -1);
        deliveries_forget(&l->d, l->last);
        (void)tell(l, "delivery.attempt", kept + 1);
        assert_null(l->last);
        if (i % 100 == 0) {
            (void)tell(l, "delivery.rejected", kept);
            assert_int_equal(l->last->seq, kept);
            continue;
        }
        (void)tell(l, "delivery.confirmed", kept);
        deliveries_forget(&l->d, l->last);
    }
    assert_true(l->d.n <= 102);
    for (size_t i = 0; i < l->d.n; i++)
        assert_true(l->d.list[i].forgotten || strcmp(l->d.list[i].state, "rejected") == 0);
}

static void deliveries_concern__tells_by_the_octets(void **state)
{
    static const char *const rows[] = {
        "{\"ev\":\"delivery.attempt\",\"inst\":\"a\"}", "{\"ev\":\"log.recovered\",\"from\":1}",
        "{\"ev\":\"log.heartbeat\"}", "{\"detail\":\"\\\"ev\\\":\\\"delivery.attempt\\\"\"}"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(deliveries_concern(rows[i], strlen(rows[i])), i < 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(deliveries_take__follows_a_delivery_to_its_end),
        TEST(deliveries_take__keeps_what_was_given_up),
        TEST(deliveries_take__knows_one_from_another),
        TEST(deliveries_take__takes_back_what_is_unattested),
        TEST(deliveries_forget__leaves_the_others),
        TEST(deliveries_concern__tells_by_the_octets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
