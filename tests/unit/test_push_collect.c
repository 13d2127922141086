/* Polls of BSAs that collect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bsa_server.h"
#include "push_fixture.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define ADDR "192.0.2.7:4711"

struct poll {
    struct push_poll p; /* first */
    _Atomic bool answered;
    struct buf *message;
};

static void on_reply(struct push_poll *self, enum cp3_media media, struct buf *take_message)
{
    struct poll *poll = (struct poll *)self;

    (void)media;
    poll->message = take_message;
    atomic_store(&poll->answered, true);
}

static void prepare(struct poll *poll, const struct store_delivery *of, const struct peer *p,
                    int64_t wait_us)
{
    *poll = (struct poll){.p = {.bsa = of->bsa, .wait_us = wait_us, .reply = on_reply}};
    (void)snprintf(poll->p.peer, sizeof(poll->p.peer), "%s", p->id);
    (void)snprintf(poll->p.addr, sizeof(poll->p.addr), "%s", ADDR);
}

/* Of bsa-1, which has no URL in these tests. */
struct fixture {
    struct courier *c;
    struct bsa_side *b;
    char mid[MID_SIZE]; /* its first delivery */
    struct store_delivery d;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(courier_set_up((void **)&f->c), 0);
    f->b = &f->c->bsa[0];
    bsa_set_url(f->c, f->b, "");
    send_to(f->c, f->b, f->mid);
    f->d = delivery_row(f->c->s, f->mid);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    int r = courier_tear_down((void **)&f->c);

    free(f);
    return r;
}
#define COLLECT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void ask(struct fixture *f, struct poll *poll, int64_t wait_us)
{
    prepare(poll, &f->d, f->b->peer, wait_us);
    assert_int_equal(push_collect(f->c->push, &poll->p), 0);
}

static void until_answered(struct poll *poll)
{
    UNTIL(atomic_load(&poll->answered));
}

/* Waits for a message, which has to be of this delivery. */
static void gets(struct poll *poll, const char *mid)
{
    until_answered(poll);
    assert_non_null(poll->message);
    assert_non_null(strstr(buf_str(poll->message), mid));
    buf_free(poll->message);
}

static void gets_nothing(struct poll *poll)
{
    until_answered(poll);
    assert_null(poll->message);
}

static void confirm_it(struct fixture *f, const char *mid)
{
    struct cp3_message m = confirm_message(f->b->peer, mid, NEWS, CP3_STATUS_OK);

    assert_int_equal(confirm(f->c->s, f->b->peer, &m, NULL), 204);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void push_collect__gives_what_is_due_and_records_it(void **state)
{
    struct fixture *f = *state;
    struct poll poll;
    char out[256];

    ask(f, &poll, 60 * S);
    gets(&poll, f->mid);
    assert_true(is_state(f->c, f->mid, STORE_DELIVERY_IN_FLIGHT));
    assert_int_equal(service_count(f->c->s, "delivery.attempt", "mid", f->mid), 1);
    assert_string_equal(service_last(f->c->s, "delivery.attempt", "addr", out), ADDR);
    confirm_it(f, f->mid);
    assert_true(is_state(f->c, f->mid, STORE_DELIVERY_CONFIRMED));
}

static void push_collect__waits_for_a_delivery(void **state)
{
    struct fixture *f = *state;
    struct poll first, second;
    char mid[MID_SIZE];

    ask(f, &first, 60 * S);
    gets(&first, f->mid);
    confirm_it(f, f->mid);
    ask(f, &second, 60 * S);
    send_to(f->c, f->b, mid);
    gets(&second, mid);
}

static void push_collect__ends_with_its_time(void **state)
{
    struct fixture *f = *state;
    struct poll first, second, none;

    ask(f, &first, 0);
    gets(&first, f->mid); /* what is due is given without a wait, too */
    confirm_it(f, f->mid);
    ask(f, &none, 0);
    gets_nothing(&none);
    ask(f, &second, 20 * S);
    fake_clock_advance(19 * S);
    assert_false(atomic_load(&second.answered));
    fake_clock_advance(S);
    gets_nothing(&second);
}

/* The next one, though the first is neither confirmed nor rejected; and that again after its lease.
 */
static void push_collect__leases_what_it_gave(void **state)
{
    struct fixture *f = *state;
    struct poll first, second, third, fourth;
    char mid[MID_SIZE];

    send_to(f->c, f->b, mid);
    ask(f, &first, 60 * S);
    gets(&first, f->mid);
    ask(f, &second, 60 * S);
    gets(&second, mid);
    ask(f, &third, 0);
    gets_nothing(&third);
    assert_true(delivery_row(f->c->s, f->mid).next_us <= clock_utc_us() + S);
    ask(f, &fourth, 60 * S);
    fake_clock_advance(S);
    gets(&fourth, f->mid);
    assert_int_equal(delivery_row(f->c->s, f->mid).attempts, 2);
}

static void push_collect__is_ended_by_a_newer_poll(void **state)
{
    struct fixture *f = *state;
    struct poll first, second, third;
    char mid[MID_SIZE];

    ask(f, &first, 0);
    gets(&first, f->mid);
    confirm_it(f, f->mid);
    ask(f, &second, 60 * S);
    ask(f, &third, 60 * S);
    gets_nothing(&second);
    assert_false(atomic_load(&third.answered));
    send_to(f->c, f->b, mid);
    gets(&third, mid);
}

static void push_collect__gives_nothing_to_another_bsa(void **state)
{
    struct fixture *f = *state;
    struct poll poll;
    char mid[MID_SIZE];
    struct store_delivery other;

    send_to(f->c, &f->c->bsa[1], mid);
    until_state(f->c, mid, STORE_DELIVERY_CONFIRMED);
    other = delivery_row(f->c->s, mid);
    prepare(&poll, &other, f->c->bsa[1].peer, 0);
    assert_int_equal(push_collect(f->c->push, &poll.p), 0);
    gets_nothing(&poll);
    assert_true(is_state(f->c, f->mid, STORE_DELIVERY_PREPARED));
}

static void push_collect__gives_nothing_to_a_bsa_that_is_disabled(void **state)
{
    struct fixture *f = *state;
    struct poll poll;

    assert_int_equal(service_enable(f->c->s, f->b->peer, false), 0);
    ask(f, &poll, 0);
    gets_nothing(&poll);
    assert_int_equal(service_count(f->c->s, "delivery.attempt", NULL, NULL), 0);
}

static void push_collect__claims_nothing_for_who_is_gone(void **state)
{
    struct fixture *f = *state;
    struct poll poll;

    prepare(&poll, &f->d, f->b->peer, 60 * S);
    atomic_store(&poll.p.gone, true);
    assert_int_equal(push_collect(f->c->push, &poll.p), 0);
    gets_nothing(&poll);
    assert_true(is_state(f->c, f->mid, STORE_DELIVERY_PREPARED));
    assert_int_equal(delivery_row(f->c->s, f->mid).attempts, 0);
}

/* Its address is in the record, so it is the one that is answered. */
static void push_collect__keeps_the_poll_that_a_claim_is_for(void **state)
{
    struct fixture *f = *state;
    struct poll first, second;
    unsigned entered = store_signer_entered(f->c->s->signer);

    store_signer_hold(f->c->s->signer);
    ask(f, &first, 60 * S);
    store_signer_wait_entered(f->c->s->signer, entered + 1);
    until_state(f->c, f->mid, STORE_DELIVERY_IN_FLIGHT);
    assert_false(atomic_load(&first.answered)); /* not before it is signed */
    ask(f, &second, 60 * S);
    store_signer_release(f->c->s->signer);
    gets(&first, f->mid);
    assert_false(atomic_load(&second.answered));
    fake_clock_advance(S);
    gets(&second, f->mid);
}

static void push_collect__serves_one_that_has_a_url_as_well(void **state)
{
    struct fixture *f = *state;
    struct poll poll;

    bsa_set_url(f->c, f->b, "https://127.0.0.1:9/"); /* where nobody is */
    fake_clock_advance(10 * S);
    until_failed(f->c, f->mid, "refused");
    ask(f, &poll, 60 * S);
    fake_clock_advance(60 * S);
    until_answered(&poll);
    buf_free(poll.message);
}

static void push_collect__has_room_for_so_many(void **state)
{
    struct fixture *f = *state;
    struct poll *polls = calloc(PUSH_POLLS_MAX + 1, sizeof(*polls));
    unsigned refused = 0;

    /* Of BSAs that there are not: each has a lane of its own. */
    for (unsigned i = 0; i < PUSH_POLLS_MAX + 1; i++) {
        int r;

        prepare(&polls[i], &f->d, f->b->peer, 60 * S);
        polls[i].p.bsa = 1000 + i;
        r = push_collect(f->c->push, &polls[i].p);
        refused += r == TEKD_EAGAIN;
        assert_true(r == 0 || (r == TEKD_EAGAIN && i == PUSH_POLLS_MAX));
    }
    assert_int_equal(refused, 1);
    fake_clock_advance(60 * S);
    for (unsigned i = 0; i < PUSH_POLLS_MAX; i++)
        gets_nothing(&polls[i]);
    free(polls);
}

static void push_stop__ends_polls(void **state)
{
    struct fixture *f = *state;
    struct poll first, second, third;

    ask(f, &first, 0);
    gets(&first, f->mid);
    ask(f, &second, 60 * S);
    push_stop(f->c->push, clock_mono_us() + 5 * S);
    gets_nothing(&second);
    prepare(&third, &f->d, f->b->peer, 60 * S);
    assert_int_equal(push_collect(f->c->push, &third.p), TEKD_ECLOSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        COLLECT_TEST(push_collect__gives_what_is_due_and_records_it),
        COLLECT_TEST(push_collect__waits_for_a_delivery),
        COLLECT_TEST(push_collect__ends_with_its_time),
        COLLECT_TEST(push_collect__leases_what_it_gave),
        COLLECT_TEST(push_collect__is_ended_by_a_newer_poll),
        COLLECT_TEST(push_collect__gives_nothing_to_another_bsa),
        COLLECT_TEST(push_collect__gives_nothing_to_a_bsa_that_is_disabled),
        COLLECT_TEST(push_collect__claims_nothing_for_who_is_gone),
        COLLECT_TEST(push_collect__keeps_the_poll_that_a_claim_is_for),
        COLLECT_TEST(push_collect__serves_one_that_has_a_url_as_well),
        COLLECT_TEST(push_collect__has_room_for_so_many),
        COLLECT_TEST(push_stop__ends_polls),
    };

    return cmocka_run_group_tests(tests, courier_make_pki, bsa_server_remove_pki);
}
