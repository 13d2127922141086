/* Confirmations: what each is worth, and when the peer is told so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/sha.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "keys_delivery.h"
#include "store_vfs.h"
#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])
#define NEWS      "urn:x:news"
#define OK        CP3_STATUS_OK
#define REFUSED   CP3_STATUS_REFUSED

/* With a delivery for bsa-1 that is in flight. */
struct fixture {
    struct service *s;
    char mid[STORE_MID_LEN + 1];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->s = service_started();
    assert_int_equal(service_add_content(f->s, NEWS, 128), 0);
    deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
    delivery_claim(f->s, f->mid);
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

#define CONFIRM_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static int say(struct fixture *f, enum cp3_status status, const char *reason)
{
    const struct cp3_message m = confirm_message(BSA(f->s, 1), f->mid, NEWS, status);

    return confirm(f->s, BSA(f->s, 1), &m, reason);
}

static enum store_delivery_state state_of(struct fixture *f)
{
    return delivery_row(f->s, f->mid).state;
}

/* ---- the table ------------------------------------------------------------------------------- */

struct judged {
    enum store_delivery_state before;
    enum cp3_status status;
    int http;
    enum store_delivery_state after;
    const char *reason;
    const char *event;
};

/* All states, each with both. */
static const struct judged table[] = {
    {STORE_DELIVERY_PREPARED, OK, 204, STORE_DELIVERY_CONFIRMED, NULL, "delivery.confirmed"},
    {STORE_DELIVERY_IN_FLIGHT, OK, 204, STORE_DELIVERY_CONFIRMED, NULL, "delivery.confirmed"},
    {STORE_DELIVERY_REJECTED, OK, 204, STORE_DELIVERY_CONFIRMED, NULL, "delivery.confirmed"},
    {STORE_DELIVERY_UNKNOWN, OK, 204, STORE_DELIVERY_CONFIRMED, NULL, "delivery.confirmed"},
    {STORE_DELIVERY_CONFIRMED, OK, 204, STORE_DELIVERY_CONFIRMED, NULL, "confirm.duplicate"},
    {STORE_DELIVERY_UNCONFIRMED, OK, 204, STORE_DELIVERY_CONFIRMED, NULL, "delivery.confirmed"},
    {STORE_DELIVERY_ABANDONED, OK, 204, STORE_DELIVERY_CONFIRMED, NULL, "delivery.confirmed"},
    {STORE_DELIVERY_PREPARED, REFUSED, 204, STORE_DELIVERY_REJECTED, NULL, "delivery.rejected"},
    {STORE_DELIVERY_IN_FLIGHT, REFUSED, 204, STORE_DELIVERY_REJECTED, NULL, "delivery.rejected"},
    {STORE_DELIVERY_REJECTED, REFUSED, 204, STORE_DELIVERY_REJECTED, NULL, "delivery.rejected"},
    {STORE_DELIVERY_UNKNOWN, REFUSED, 204, STORE_DELIVERY_REJECTED, NULL, "delivery.rejected"},
    {STORE_DELIVERY_CONFIRMED, REFUSED, 409, STORE_DELIVERY_CONFIRMED, "already-confirmed",
     "confirm.unmatched"},
    {STORE_DELIVERY_UNCONFIRMED, REFUSED, 204, STORE_DELIVERY_UNCONFIRMED, NULL,
     "delivery.rejected"},
    {STORE_DELIVERY_ABANDONED, REFUSED, 204, STORE_DELIVERY_ABANDONED, NULL, "delivery.rejected"},
};

static void confirm__is_judged_by_the_table(void **state)
{
    static const char *const events[] = {"delivery.confirmed", "delivery.rejected",
                                         "confirm.duplicate", "confirm.unmatched"};
    struct fixture *f = *state;

    assert_int_equal(ARRAY_SIZE(table), 2 * STORE_DELIVERY_STATES);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        const struct judged *j = &table[i];
        struct store_delivery d;

        deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
        delivery_force(f->s, f->mid, j->before);
        assert_int_equal(say(f, j->status, j->reason), j->http);
        d = delivery_row(f->s, f->mid);
        assert_int_equal(d.state, j->after);
        assert_int_equal(d.confirmed_seq > 0, j->event == table[0].event);
        for (size_t e = 0; e < ARRAY_SIZE(events); e++)
            assert_int_equal(service_count(f->s, events[e], "mid", f->mid),
                             strcmp(events[e], j->event) == 0);
    }
}

static void confirm__after_a_rejection_is_final(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(say(f, REFUSED, NULL), 204);
    assert_string_equal(delivery_row(f->s, f->mid).why, "Status 1");
    assert_int_equal(say(f, OK, NULL), 204);
    assert_string_equal(delivery_row(f->s, f->mid).why, "");
    assert_int_equal(say(f, REFUSED, "already-confirmed"), 409);
    assert_int_equal(say(f, OK, NULL), 204);
    assert_int_equal(state_of(f), STORE_DELIVERY_CONFIRMED);
    assert_int_equal(service_count(f->s, "delivery.confirmed", NULL, NULL), 1);
}

static struct keys_status counts(struct fixture *f)
{
    struct keys_status st;

    keys_status_get(f->s->keys, &st);
    return st;
}

/* Once for each outcome; what only repeats one is recorded and not counted. */
static void confirm__is_counted_once(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(say(f, REFUSED, NULL), 204);
    assert_int_equal(counts(f).rejected, 1);
    assert_int_equal(service_count(f->s, "delivery.rejected", NULL, NULL), 3);
    delivery_force(f->s, f->mid, STORE_DELIVERY_IN_FLIGHT); /* the next attempt */
    assert_int_equal(say(f, REFUSED, NULL), 204);
    assert_int_equal(counts(f).rejected, 2);
    assert_int_equal(counts(f).confirmed, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(say(f, OK, NULL), 204);
    assert_int_equal(say(f, REFUSED, "already-confirmed"), 409);
    assert_int_equal(counts(f).confirmed, 1);
    assert_int_equal(counts(f).rejected, 2);
}

static void reject__that_comes_late_is_counted_once(void **state)
{
    struct fixture *f = *state;

    delivery_force(f->s, f->mid, STORE_DELIVERY_UNCONFIRMED);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(say(f, REFUSED, NULL), 204);
    assert_int_equal(counts(f).rejected, 1);
    assert_string_equal(delivery_row(f->s, f->mid).why, "Status 1");
    assert_int_equal(state_of(f), STORE_DELIVERY_UNCONFIRMED);
}

/* When it is tried again is the push service's. */
static void reject__leaves_the_time_of_the_next_attempt(void **state)
{
    struct fixture *f = *state;
    struct store_delivery before = delivery_row(f->s, f->mid), after;

    fake_clock_advance(5000000);
    assert_int_equal(say(f, REFUSED, NULL), 204);
    after = delivery_row(f->s, f->mid);
    assert_int_equal(after.next_us, before.next_us);
    assert_int_equal(after.deadline_us, before.deadline_us);
    assert_int_equal(after.attempts, before.attempts);
}

/* ---- what does not match --------------------------------------------------------------------- */

static void confirm__that_matches_nothing_changes_nothing(void **state)
{
    struct fixture *f = *state;
    const struct cp3_message good = confirm_message(BSA(f->s, 1), f->mid, NEWS, OK);
    struct cp3_message m[9];
    static const char *const reasons[ARRAY_SIZE(m)] = {
        "unknown-message",   "unknown-message",    "unknown-message", "wrong-content",
        "wrong-destination", "wrong-source",       "wrong-content", /* the first that is wrong */
        "wrong-source",      "unsupported-version"};

    for (size_t i = 0; i < ARRAY_SIZE(m); i++)
        m[i] = good;
    m[0].message_id[35] = m[0].message_id[35] == '0' ? '1' : '0';
    m[1].message_id[35] = '\0';
    memcpy(m[2].message_id + STORE_MID_LEN, "0", 2);
    (void)snprintf(m[3].content_id, sizeof(m[3].content_id), "urn:x:new");
    (void)snprintf(m[4].destination, sizeof(m[4].destination), "bsm.example.org");
    (void)snprintf(m[5].source, sizeof(m[5].source), "bsa-2");
    (void)snprintf(m[6].source, sizeof(m[6].source), "bsa-2");
    (void)snprintf(m[6].content_id, sizeof(m[6].content_id), "urn:x:News");
    (void)snprintf(m[7].source, sizeof(m[7].source), "bsa-2");
    (void)snprintf(m[7].destination, sizeof(m[7].destination), "bsm");
    m[8].has |= CP3_HAS_VERSION;
    m[8].version = 2;
    for (size_t i = 0; i < ARRAY_SIZE(m); i++) {
        char reason[256];

        assert_int_equal(confirm(f->s, BSA(f->s, 1), &m[i], reasons[i]), 409);
        assert_string_equal(service_last(f->s, "confirm.unmatched", "reason", reason), reasons[i]);
        assert_string_equal(service_last(f->s, "confirm.unmatched", "mid", reason),
                            m[i].message_id);
        assert_string_equal(service_last(f->s, "confirm.unmatched", "peer", reason), "bsa-1");
        assert_int_equal(state_of(f), STORE_DELIVERY_IN_FLIGHT);
    }
    assert_int_equal(service_count(f->s, "delivery.confirmed", NULL, NULL), 0);
    assert_int_equal(confirm(f->s, BSA(f->s, 1), &good, NULL), 204);
}

/* Nobody learns which MessageIDs others have. */
static void confirm__of_anothers_is_unknown(void **state)
{
    struct fixture *f = *state;
    struct cp3_message m = confirm_message(BSA(f->s, 2), f->mid, NEWS, OK);
    struct ask *a;

    assert_int_equal(confirm(f->s, BSA(f->s, 2), &m, "unknown-message"), 409);
    m = confirm_message(BSA(f->s, 1), f->mid, NEWS, OK);
    assert_int_equal(confirm(f->s, BSA(f->s, 2), &m, "unknown-message"), 409);
    a = confirm_send(f->s, BSA(f->s, 2), &m, CP3_EFFICIENT);
    ask_refused(a, 409, "unknown-message");
    ask_end(a);
    assert_int_equal(state_of(f), STORE_DELIVERY_IN_FLIGHT);
}

/* Who confirms what never left has guessed, or it came from a backup of another database. */
static void confirm__before_the_first_attempt_is_unknown(void **state)
{
    struct fixture *f = *state;

    deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
    assert_int_equal(say(f, OK, "unknown-message"), 409);
    assert_int_equal(say(f, REFUSED, "unknown-message"), 409);
    assert_int_equal(state_of(f), STORE_DELIVERY_PREPARED);
}

static void confirm__in_the_efficient_form_goes_by_peer_and_message_id(void **state)
{
    struct fixture *f = *state;
    struct cp3_message m = confirm_message(BSA(f->s, 1), f->mid, "", OK);
    struct ask *a = confirm_send(f->s, BSA(f->s, 1), &m, CP3_EFFICIENT);

    ask_wait(a);
    assert_int_equal(a->reply.status, 204);
    assert_null(a->reply.body);
    ask_end(a);
    assert_int_equal(state_of(f), STORE_DELIVERY_CONFIRMED);
}

static void confirm__that_is_broken_is_malformed(void **state)
{
    struct fixture *f = *state;
    char body[512];
    struct ask *a;

    (void)snprintf(body, sizeof(body), "{\"Tag\":4,\"MessageID\":\"%s\",\"Status\":2}", f->mid);
    a = ask_send_octets(f->s, BSA(f->s, 1), "application/json", body, SERVICE_US);
    ask_refused(a, 400, "malformed");
    assert_string_equal(a->reply.media, "application/problem+json");
    ask_end(a);
    assert_int_equal(state_of(f), STORE_DELIVERY_IN_FLIGHT);
}

static void confirm__of_a_stranger_is_refused(void **state)
{
    struct fixture *f = *state;
    const struct cp3_message m = confirm_message(BSA(f->s, 1), f->mid, NEWS, OK);

    assert_int_equal(confirm(f->s, &f->s->spare, &m, NULL), 403);
    assert_int_equal(service_enable(f->s, BSA(f->s, 1), false), 0);
    assert_int_equal(confirm(f->s, BSA(f->s, 1), &m, NULL), 403);
    assert_int_equal(state_of(f), STORE_DELIVERY_IN_FLIGHT);
    assert_int_equal(service_enable(f->s, BSA(f->s, 1), true), 0);
    assert_int_equal(confirm(f->s, BSA(f->s, 1), &m, NULL), 204);
}

/* ---- records --------------------------------------------------------------------------------- */

static void confirm__records_who_and_what(void **state)
{
    struct fixture *f = *state;
    struct cp3_message m = confirm_message(BSA(f->s, 1), f->mid, NEWS, OK);
    struct store_delivery d = delivery_row(f->s, f->mid);
    struct ask *a = confirm_send(f->s, BSA(f->s, 1), &m, CP3_FULL);
    char found[256], wanted[256];

    ask_wait(a);
    assert_string_equal(service_last(f->s, "delivery.confirmed", "mid", found), f->mid);
    assert_string_equal(service_last(f->s, "delivery.confirmed", "peer", found), "bsa-1");
    assert_string_equal(service_last(f->s, "delivery.confirmed", "addr", found), "192.0.2.1:1234");
    enc_hex(BSA(f->s, 1)->cert, 32, wanted);
    assert_string_equal(service_last(f->s, "delivery.confirmed", "cert", found), wanted);
    enc_hex(a->req, 32, wanted);
    assert_string_equal(service_last(f->s, "delivery.confirmed", "req", found), wanted);
    enc_hex(d.out_sha256, 32, wanted);
    assert_string_equal(service_last(f->s, "delivery.confirmed", "out", found), wanted);
    (void)snprintf(wanted, sizeof(wanted), "%llu/%llu", (unsigned long long)d.epoch,
                   (unsigned long long)d.seq);
    assert_string_equal(service_last(f->s, "delivery.confirmed", "ref", found), wanted);
    ask_end(a);
    assert_int_equal(say(f, OK, NULL), 204);
    assert_string_equal(service_last(f->s, "confirm.duplicate", "ref", found), wanted);
}

static int find_late(void *arg, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *r = NULL;
    const char *what;
    bool late;

    (void)seq;
    assert_int_equal(record_parse(octets, len, &r, &what), 0);
    if (strcmp(record_event(r), "delivery.confirmed") == 0) {
        assert_true(record_get_bool(r, "late", &late));
        *(bool *)arg = late;
    }
    return 0;
}

static int walk_late(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.after = -1, .limit = SIZE_MAX, .arg = arg};

    return store_tx_leaf_walk(tx, &w, find_late);
}

static bool was_late(struct fixture *f)
{
    bool late = false;

    assert_int_equal(store_call(f->s->store, STORE_READ, walk_late, &late), 0);
    return late;
}

static void confirm__says_whether_it_is_late(void **state)
{
    struct fixture *f = *state;

    fake_clock_set_utc(delivery_row(f->s, f->mid).deadline_us - 1);
    assert_int_equal(say(f, OK, NULL), 204);
    assert_false(was_late(f));
    deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
    delivery_claim(f->s, f->mid); /* nobody has noticed its deadline yet */
    fake_clock_set_utc(delivery_row(f->s, f->mid).deadline_us);
    assert_int_equal(say(f, OK, NULL), 204);
    assert_true(was_late(f));
    deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
    delivery_claim(f->s, f->mid);
    assert_int_equal(say(f, OK, NULL), 204);
    assert_false(was_late(f));
    deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
    delivery_force(f->s, f->mid, STORE_DELIVERY_ABANDONED);
    assert_int_equal(say(f, OK, NULL), 204);
    assert_true(was_late(f));
}

/* At most ten a minute and peer, then a count. */
static void unmatched__are_limited_in_the_log(void **state)
{
    struct fixture *f = *state;

    for (unsigned peer = 1; peer <= 2; peer++) {
        const struct cp3_message m = confirm_message(BSA(f->s, peer), "none", NEWS, OK);

        for (unsigned i = 0; i < 25; i++)
            assert_int_equal(confirm(f->s, BSA(f->s, peer), &m, "unknown-message"), 409);
    }
    assert_int_equal(service_count(f->s, "confirm.unmatched", "peer", "bsa-1"), 10);
    assert_int_equal(service_count(f->s, "confirm.unmatched", "peer", "bsa-2"), 10);
    keys_flush(f->s->keys);
    assert_int_equal(service_count(f->s, "confirm.unmatched", "peer", "bsa-1"), 11);
}

/* ---- durable first --------------------------------------------------------------------------- */

/* Holds the store's thread in a read. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool entered, open;
    struct store_item item;
};

static int wait_in_gate(struct store_item *item, struct store_tx *tx)
{
    struct gate *g = (struct gate *)(void *)((char *)item - offsetof(struct gate, item));

    (void)tx;
    (void)pthread_mutex_lock(&g->lock);
    g->entered = true;
    (void)pthread_cond_broadcast(&g->changed);
    while (!g->open)
        (void)pthread_cond_wait(&g->changed, &g->lock);
    (void)pthread_mutex_unlock(&g->lock);
    return 0;
}

static void gate_shut(struct service *s, struct gate *g)
{
    *g = (struct gate){.item = {.apply = wait_in_gate, .wait = STORE_READ}};
    (void)pthread_mutex_init(&g->lock, NULL);
    (void)pthread_cond_init(&g->changed, NULL);
    assert_int_equal(store_submit(s->store, &g->item), 0);
    (void)pthread_mutex_lock(&g->lock);
    while (!g->entered)
        (void)pthread_cond_wait(&g->changed, &g->lock);
    (void)pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
    (void)pthread_mutex_lock(&g->lock);
    g->open = true;
    (void)pthread_cond_broadcast(&g->changed);
    (void)pthread_mutex_unlock(&g->lock);
}

/* A confirmation as the push service gives it. */
struct judging {
    struct keys_confirm c; /* first */
    struct cp3_message m;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
};

static void on_done(struct keys_confirm *self)
{
    struct judging *j = (struct judging *)self;

    (void)pthread_mutex_lock(&j->lock);
    j->done = true;
    (void)pthread_cond_broadcast(&j->changed);
    (void)pthread_mutex_unlock(&j->lock);
}

static void judge(struct fixture *f, struct judging *j, enum cp3_status status)
{
    struct store_delivery d = delivery_row(f->s, f->mid);

    *j = (struct judging){.c = {.bsa = d.bsa, .peer = "bsa-1", .addr = "bsa.example.net:443"},
                          .m = confirm_message(BSA(f->s, 1), f->mid, NEWS, status)};
    (void)pthread_mutex_init(&j->lock, NULL);
    (void)pthread_cond_init(&j->changed, NULL);
    j->m.form = CP3_FULL;
    j->c.message = &j->m;
    j->c.done = on_done;
}

static void wait_judged(struct judging *j)
{
    (void)pthread_mutex_lock(&j->lock);
    while (!j->done)
        (void)pthread_cond_wait(&j->changed, &j->lock);
    (void)pthread_mutex_unlock(&j->lock);
}

/*
 * Two in one batch, the second of which repeats the first.  The batch fails: neither may be told
 * that it was taken.
 */
static void duplicate__waits_for_what_it_repeats(void **state)
{
    struct fixture *f = *state;
    struct judging first, second;
    struct gate gate;

    judge(f, &first, OK);
    judge(f, &second, OK);
    gate_shut(f->s, &gate);
    keys_confirm(f->s->keys, &first.c);
    keys_confirm(f->s->keys, &second.c);
    store_vfs_arm(VFS_FULL, 1);
    gate_open(&gate);
    wait_judged(&first);
    wait_judged(&second);
    assert_true(store_vfs_disarm());
    assert_int_equal(first.c.outcome, KEYS_NOT_JUDGED);
    assert_int_equal(first.c.error, TEKD_EFULL);
    assert_int_equal(second.c.outcome, KEYS_NOT_JUDGED);
    assert_int_equal(state_of(f), STORE_DELIVERY_IN_FLIGHT);
}

static void confirm__that_cannot_be_stored_is_answered_busy(void **state)
{
    struct fixture *f = *state;
    const struct cp3_message m = confirm_message(BSA(f->s, 1), f->mid, NEWS, OK);
    struct ask *a;

    store_vfs_arm(VFS_FULL, 1);
    a = confirm_send(f->s, BSA(f->s, 1), &m, CP3_FULL);
    ask_refused(a, 503, "busy");
    /* No Response: it was no request. */
    assert_string_equal(a->reply.media, "application/problem+json");
    ask_end(a);
    assert_true(store_vfs_disarm());
    assert_int_equal(say(f, OK, NULL), 204);
}

/* Keys wait for the signer, confirmations do not. */
static void confirm__does_not_wait_for_the_signer(void **state)
{
    struct fixture *f = *state;

    store_signer_hold(f->s->signer);
    assert_int_equal(say(f, OK, NULL), 204);
    store_signer_release(f->s->signer);
}

/* ---- at the same time ------------------------------------------------------------------------ */

static void *abandon(void *arg)
{
    struct fixture *f = arg;
    struct keys_error err;

    return keys_delivery_abandon(f->s->keys, &f->s->actor, f->mid, "on its way out", &err) == 0
               ? f
               : NULL;
}

/* Whoever is first: it is confirmed in the end, and late if it had been abandoned. */
static void confirm__while_it_is_abandoned(void **state)
{
    struct fixture *f = *state;
    unsigned abandoned = 0;

    for (unsigned i = 0; i < 40; i++) {
        pthread_t thread;
        void *won;

        deliver_one(f->s, NEWS, BSA(f->s, 1), f->mid);
        delivery_claim(f->s, f->mid);
        assert_int_equal(pthread_create(&thread, NULL, abandon, f), 0);
        assert_int_equal(say(f, OK, NULL), 204);
        (void)pthread_join(thread, &won);
        assert_int_equal(state_of(f), STORE_DELIVERY_CONFIRMED);
        assert_int_equal(was_late(f), won != NULL);
        abandoned += won != NULL;
        assert_int_equal(service_count(f->s, "delivery.abandoned", "mid", f->mid), won != NULL);
    }
    assert_int_equal(service_count(f->s, "delivery.abandoned", NULL, NULL), abandoned);
}

static _Atomic unsigned changes;

static void on_change(void *arg, int64_t bsa)
{
    if (bsa == *(int64_t *)arg)
        atomic_fetch_add(&changes, 1);
}

/* Many at once for one delivery: one of them is the confirmation. */
static void confirm__many_at_once_confirm_once(void **state)
{
    enum { MANY = 20 };
    struct fixture *f = *state;
    const struct cp3_message m = confirm_message(BSA(f->s, 1), f->mid, NEWS, OK);
    int64_t bsa = delivery_row(f->s, f->mid).bsa;
    struct ask *a[MANY];

    atomic_store(&changes, 0);
    keys_on_delivery(f->s->keys, on_change, &bsa);
    for (size_t i = 0; i < MANY; i++)
        a[i] = confirm_send(f->s, BSA(f->s, 1), &m, CP3_FULL);
    for (size_t i = 0; i < MANY; i++) {
        ask_wait(a[i]);
        assert_int_equal(a[i]->reply.status, 204);
        ask_end(a[i]);
    }
    assert_int_equal(service_count(f->s, "delivery.confirmed", NULL, NULL), 1);
    assert_int_equal(service_count(f->s, "confirm.duplicate", NULL, NULL), MANY - 1);
    assert_int_equal(atomic_load(&changes), 1);
}

static void confirm__survives_a_restart(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(say(f, OK, NULL), 204);
    service_stop(f->s);
    assert_int_equal(service_start(f->s), 0);
    assert_int_equal(state_of(f), STORE_DELIVERY_CONFIRMED);
    assert_int_equal(say(f, REFUSED, "already-confirmed"), 409);
    assert_int_equal(say(f, OK, NULL), 204);
    assert_int_equal(service_count(f->s, "delivery.confirmed", NULL, NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONFIRM_TEST(confirm__is_judged_by_the_table),
        CONFIRM_TEST(confirm__after_a_rejection_is_final),
        CONFIRM_TEST(confirm__is_counted_once),
        CONFIRM_TEST(reject__that_comes_late_is_counted_once),
        CONFIRM_TEST(reject__leaves_the_time_of_the_next_attempt),
        CONFIRM_TEST(confirm__that_matches_nothing_changes_nothing),
        CONFIRM_TEST(confirm__of_anothers_is_unknown),
        CONFIRM_TEST(confirm__before_the_first_attempt_is_unknown),
        CONFIRM_TEST(confirm__in_the_efficient_form_goes_by_peer_and_message_id),
        CONFIRM_TEST(confirm__that_is_broken_is_malformed),
        CONFIRM_TEST(confirm__of_a_stranger_is_refused),
        CONFIRM_TEST(confirm__records_who_and_what),
        CONFIRM_TEST(confirm__says_whether_it_is_late),
        CONFIRM_TEST(unmatched__are_limited_in_the_log),
        CONFIRM_TEST(duplicate__waits_for_what_it_repeats),
        CONFIRM_TEST(confirm__that_cannot_be_stored_is_answered_busy),
        CONFIRM_TEST(confirm__does_not_wait_for_the_signer),
        CONFIRM_TEST(confirm__while_it_is_abandoned),
        CONFIRM_TEST(confirm__many_at_once_confirm_once),
        CONFIRM_TEST(confirm__survives_a_restart),
    };

    store_vfs_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
