/* Deliveries that are there: retried, abandoned, without their key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "internal.h"
#include "keys_delivery.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])
#define NEWS      "urn:x:news"
#define SECOND    INT64_C(1000000)
#define EPOCH     INT64_C(1767225600000000)
#define LATER_S   7200 /* the deadline that a retry gives */

/* With a delivery for bsa-1. */
struct fixture {
    struct service *s;
    char mid[STORE_MID_LEN + 1];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    fake_clock_set_utc(EPOCH);
    f->s = service_started();
    assert_int_equal(service_add_content(f->s, NEWS, 128), 0);
    deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    service_free(f->s);
    free(f);
    return 0;
}

#define DELIVERY_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static int retry(struct fixture *f)
{
    return keys_delivery_retry(f->s->keys, &f->s->actor, f->mid, LATER_S, &f->s->error);
}

static int abandon(struct fixture *f, const char *reason)
{
    return keys_delivery_abandon(f->s->keys, &f->s->actor, f->mid, reason, &f->s->error);
}

static enum store_delivery_state state_of(struct fixture *f)
{
    return delivery_row(f->s, f->mid).state;
}

static int find_tek(void *arg, struct store_tx *tx)
{
    return store_tx_tek_current(tx, 1, 0, arg);
}

static void destroy_current(struct fixture *f)
{
    struct store_tek t;

    assert_int_equal(store_call(f->s->store, STORE_READ, find_tek, &t), 0);
    service_destroy(f->s, t.key_id);
}

/* ---- retry ----------------------------------------------------------------------------------- */

static void retry__is_at_once_with_a_new_deadline(void **state)
{
    static const enum store_delivery_state before[] = {
        STORE_DELIVERY_PREPARED, STORE_DELIVERY_IN_FLIGHT, STORE_DELIVERY_REJECTED,
        STORE_DELIVERY_UNKNOWN, STORE_DELIVERY_UNCONFIRMED};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(before); i++) {
        struct store_delivery d;

        fake_clock_advance(10 * SECOND);
        delivery_force(f->s, f->mid, before[i]);
        assert_int_equal(retry(f), 0);
        d = delivery_row(f->s, f->mid);
        assert_int_equal(d.state, before[i] == STORE_DELIVERY_UNCONFIRMED ? STORE_DELIVERY_PREPARED
                                                                          : before[i]);
        assert_int_equal(d.next_us, clock_utc_us());
        assert_int_equal(d.deadline_us, clock_utc_us() + LATER_S * SECOND);
        assert_int_equal(d.attempts, 1);
    }
    assert_int_equal(service_count(f->s, "admin.action", "action", "delivery retry"), 5);
    assert_int_equal(service_count(f->s, "admin.action", "detail", f->mid), 5);
}

static void retry__is_refused_of_what_has_ended(void **state)
{
    struct fixture *f = *state;

    delivery_force(f->s, f->mid, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(retry(f), TEKD_EEXIST);
    delivery_force(f->s, f->mid, STORE_DELIVERY_ABANDONED);
    assert_int_equal(retry(f), TEKD_EEXIST);
    assert_int_equal(state_of(f), STORE_DELIVERY_ABANDONED);
    f->mid[0] = f->mid[0] == '0' ? '1' : '0';
    assert_int_equal(retry(f), TEKD_ENOTFOUND);
    assert_int_equal(service_count(f->s, "admin.action", "action", "delivery retry"), 0);
}

static int retire_kek(void *arg, struct store_tx *tx)
{
    return store_tx_kek_retire(tx, *(int64_t *)arg);
}

static void retry__is_refused_without_its_key(void **state)
{
    struct fixture *f = *state;
    int64_t kek = delivery_row(f->s, f->mid).kek;

    delivery_force(f->s, f->mid, STORE_DELIVERY_UNCONFIRMED); /* which stays as it is */
    assert_int_equal(store_call(f->s->store, STORE_DURABLE, retire_kek, &kek), 0);
    assert_int_equal(retry(f), TEKD_EDENIED);
    deliver_one(f->s, NEWS, BSA(f->s, 2), f->mid);
    delivery_force(f->s, f->mid, STORE_DELIVERY_UNCONFIRMED);
    destroy_current(f);
    assert_int_equal(retry(f), TEKD_EDENIED);
    assert_int_equal(state_of(f), STORE_DELIVERY_UNCONFIRMED);
}

static void retry__ends_with_the_period(void **state)
{
    struct fixture *f = *state;

    service_add_periods(f->s, "urn:x:hours", 600, 60);
    deliver_one(f->s, "urn:x:hours", BSA(f->s, 1), f->mid);
    fake_clock_advance(599 * SECOND);
    assert_int_equal(retry(f), 0);
    assert_int_equal(delivery_row(f->s, f->mid).deadline_us, EPOCH + 600 * SECOND);
    fake_clock_advance(SECOND);
    assert_int_equal(retry(f), TEKD_EDENIED);
}

/* ---- abandon --------------------------------------------------------------------------------- */

static void abandon__ends_it_with_its_reason(void **state)
{
    static const enum store_delivery_state before[] = {
        STORE_DELIVERY_PREPARED, STORE_DELIVERY_IN_FLIGHT, STORE_DELIVERY_REJECTED,
        STORE_DELIVERY_UNKNOWN, STORE_DELIVERY_UNCONFIRMED};
    struct fixture *f = *state;
    struct cp3_message m;

    for (size_t i = 0; i < ARRAY_SIZE(before); i++) {
        char found[256];

        deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
        delivery_force(f->s, f->mid, before[i]);
        assert_int_equal(abandon(f, "sold"), 0);
        assert_int_equal(state_of(f), STORE_DELIVERY_ABANDONED);
        assert_int_equal(delivery_message(f->s, f->mid, &m), TEKD_ENOTFOUND);
        assert_string_equal(service_last(f->s, "delivery.abandoned", "mid", found), f->mid);
        assert_string_equal(service_last(f->s, "delivery.abandoned", "peer", found), "bsa-1");
        assert_string_equal(service_last(f->s, "delivery.abandoned", "reason", found), "sold");
        assert_string_equal(service_last(f->s, "delivery.abandoned", "actor", found), "operator");
        assert_int_equal(abandon(f, "sold"), TEKD_EEXIST);
    }
    assert_int_equal(service_count(f->s, "delivery.abandoned", NULL, NULL), ARRAY_SIZE(before));
}

static void abandon__is_refused(void **state)
{
    static const char *const reasons[] = {"", " x", "x ", "a\nb"};
    struct fixture *f = *state;
    char longest[STORE_WHY_MAX + 2];

    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        assert_int_equal(abandon(f, reasons[i]), TEKD_EINVAL);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(abandon(f, longest), TEKD_EINVAL);
    delivery_force(f->s, f->mid, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(abandon(f, "x"), TEKD_EEXIST);
    assert_int_equal(state_of(f), STORE_DELIVERY_CONFIRMED);
    assert_int_equal(keys_delivery_abandon(f->s->keys, &f->s->actor, "none", "x", &f->s->error),
                     TEKD_ENOTFOUND);
    assert_int_equal(service_count(f->s, "delivery.abandoned", NULL, NULL), 0);
}

/* ---- without its key ------------------------------------------------------------------------- */

static int count_open(void *arg, const struct store_delivery *d)
{
    (void)d;
    (*(size_t *)arg)++;
    return 0;
}

static int walk_open(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.limit = SIZE_MAX, .arg = arg};

    return store_tx_delivery_walk_open(tx, &w, count_open);
}

static size_t open_count(struct service *s)
{
    size_t n = 0;

    assert_int_equal(store_call(s->store, STORE_READ, walk_open, &n), 0);
    return n;
}

static void deliver_many(struct fixture *f, const struct peer *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        deliver_one(f->s, NEWS, p, f->mid);
}

static void destroy__abandons_what_is_open_of_the_tek(void **state)
{
    struct fixture *f = *state;
    char other[STORE_MID_LEN + 1], confirmed[STORE_MID_LEN + 1], found[256];

    deliver_one(f->s, NEWS, BSA(f->s, 2), confirmed);
    delivery_force(f->s, confirmed, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(service_add_content(f->s, "urn:x:other", 128), 0);
    deliver_one(f->s, "urn:x:other", BSA(f->s, 1), other);
    destroy_current(f);
    assert_int_equal(state_of(f), STORE_DELIVERY_ABANDONED);
    assert_int_equal(delivery_row(f->s, confirmed).state, STORE_DELIVERY_CONFIRMED);
    assert_int_equal(delivery_row(f->s, other).state, STORE_DELIVERY_PREPARED);
    assert_int_equal(service_count(f->s, "delivery.abandoned", NULL, NULL), 1);
    assert_string_equal(service_last(f->s, "delivery.abandoned", "reason", found), "key-gone");
    assert_string_equal(service_last(f->s, "delivery.abandoned", "actor", found), "operator");
}

/* More than one transaction has room for. */
static void destroy__abandons_many(void **state)
{
    enum { MANY = 2 * DELIVERY_GONE_MAX + 20 };
    struct fixture *f = *state;
    struct store_delivery d;

    deliver_many(f, BSA(f->s, 2), MANY);
    destroy_current(f);
    assert_int_equal(open_count(f->s), 0);
    assert_int_equal(service_count(f->s, "delivery.abandoned", "reason", "key-gone"), MANY + 1);
    d = delivery_row(f->s, f->mid);
    assert_int_equal(d.state, STORE_DELIVERY_ABANDONED);
    assert_int_equal(service_count(f->s, "tek.destroyed", NULL, NULL), 1);
}

static void destroy__of_nothing_abandons_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_tek t;
    uint8_t unknown[16] = {1};

    assert_int_equal(keys_destroy(f->s->keys, &f->s->actor, unknown, &f->s->error), TEKD_ENOTFOUND);
    assert_int_equal(store_call(f->s->store, STORE_READ, find_tek, &t), 0);
    service_destroy(f->s, t.key_id);
    assert_int_equal(keys_destroy(f->s->keys, &f->s->actor, t.key_id, &f->s->error), TEKD_EEXIST);
    assert_int_equal(service_count(f->s, "delivery.abandoned", NULL, NULL), 1);
}

static int apply_gone(void *arg, struct store_tx *tx)
{
    return delivery_gone(arg, tx);
}

static int gone_now(struct fixture *f, struct key_gone *g)
{
    return store_call(f->s->store, STORE_DURABLE, apply_gone, g);
}

static struct key_gone gone_of_kek(struct fixture *f)
{
    return (struct key_gone){
        .k = f->s->keys, .actor = &f->s->actor, .kek = delivery_row(f->s, f->mid).kek};
}

static void gone__of_a_kek_abandons_what_is_wrapped_under_it(void **state)
{
    struct fixture *f = *state;
    struct key_gone g = gone_of_kek(f);
    char other[STORE_MID_LEN + 1];

    deliver_one(f->s, NEWS, BSA(f->s, 2), other);
    assert_int_equal(gone_now(f, &g), 0);
    assert_int_equal(state_of(f), STORE_DELIVERY_ABANDONED);
    assert_int_equal(delivery_row(f->s, other).state, STORE_DELIVERY_PREPARED);
    assert_int_equal(service_count(f->s, "delivery.abandoned", "reason", "key-gone"), 1);
}

static void gone__of_too_many_says_so_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct key_gone g = gone_of_kek(f);

    deliver_many(f, BSA(f->s, 1), DELIVERY_GONE_MAX);
    assert_int_equal(gone_now(f, &g), TEKD_EAGAIN);
    assert_int_equal(open_count(f->s), DELIVERY_GONE_MAX + 1);
    assert_int_equal(delivery_gone_ahead(&g), 0);
    assert_int_equal(open_count(f->s), 0);
    deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid); /* came meanwhile */
    assert_int_equal(gone_now(f, &g), 0);
    assert_int_equal(open_count(f->s), 0);
}

static void gone__as_many_as_fit_need_nothing_ahead(void **state)
{
    struct fixture *f = *state;
    struct key_gone g = gone_of_kek(f);

    deliver_many(f, BSA(f->s, 1), DELIVERY_GONE_MAX - 1);
    assert_int_equal(gone_now(f, &g), 0);
    assert_int_equal(open_count(f->s), 0);
}

/* It was looked at ahead, and left alone: unconfirmed ones are not open. */
static void gone__finds_what_was_retried_meanwhile(void **state)
{
    struct fixture *f = *state;
    struct key_gone g = {.k = f->s->keys, .actor = &f->s->actor};
    char newer[STORE_MID_LEN + 1];

    g.tek = delivery_row(f->s, f->mid).tek;
    delivery_force(f->s, f->mid, STORE_DELIVERY_UNCONFIRMED);
    deliver_one(f->s, NEWS, BSA(f->s, 1), newer);
    assert_int_equal(delivery_gone_ahead(&g), 0);
    assert_int_equal(retry(f), 0);
    assert_int_equal(gone_now(f, &g), 0);
    assert_int_equal(state_of(f), STORE_DELIVERY_ABANDONED);
    assert_int_equal(delivery_row(f->s, newer).state, STORE_DELIVERY_ABANDONED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DELIVERY_TEST(retry__is_at_once_with_a_new_deadline),
        DELIVERY_TEST(retry__is_refused_of_what_has_ended),
        DELIVERY_TEST(retry__is_refused_without_its_key),
        DELIVERY_TEST(retry__ends_with_the_period),
        DELIVERY_TEST(abandon__ends_it_with_its_reason),
        DELIVERY_TEST(abandon__is_refused),
        DELIVERY_TEST(destroy__abandons_what_is_open_of_the_tek),
        DELIVERY_TEST(destroy__abandons_many),
        DELIVERY_TEST(destroy__of_nothing_abandons_nothing),
        DELIVERY_TEST(gone__of_a_kek_abandons_what_is_wrapped_under_it),
        DELIVERY_TEST(gone__of_too_many_says_so_and_changes_nothing),
        DELIVERY_TEST(gone__as_many_as_fit_need_nothing_ahead),
        DELIVERY_TEST(gone__finds_what_was_retried_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
