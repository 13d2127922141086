#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys_fixture.h"
#include "store_check.h"
#include "tekd/auto.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])

static struct ask *send(struct service *s, const struct peer *p, const char *mid,
                        const char *content)
{
    struct cp3_message m = ask_message(p, mid, content);

    return ask_send(s, p, &m, CP3_XML);
}

/* ---- at the same time ------------------------------------------------------------------------ */

static void repeats__under_way_join_the_first(void **state)
{
    enum { MANY = 30 };
    struct service *s = *state;
    struct ask *a[MANY];
    uint8_t tek[FAKE_TEK_MAX];

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    for (size_t i = 0; i < MANY; i++)
        a[i] = send(s, BSA(s, 1), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    for (size_t i = 0; i < MANY; i++) {
        (void)ask_tek(a[i], tek);
        assert_string_equal(buf_str(a[i]->reply.body), buf_str(a[0]->reply.body));
    }
    for (size_t i = 0; i < MANY; i++)
        ask_end(a[i]);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_ISSUE), 1);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 1);
    assert_int_equal(service_count(s, "request.repeated", NULL, NULL), MANY - 1);
}

/* The first fails: those that waited do not fail with it. */
static void repeats__of_one_that_fails_go_on(void **state)
{
    enum { MANY = 10 };
    struct service *s = *state;
    struct ask *a[MANY];
    unsigned given = 0;

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    for (size_t i = 0; i < MANY; i++)
        a[i] = send(s, BSA(s, 1), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    fake_hsm_fail(s->hsm, FAKE_ISSUE, TEKD_EHSM);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    while (!given) { /* the one that was held has failed; who came after may have, too */
        for (size_t i = 0; i < MANY; i++)
            given += ask_is_answered(a[i]);
    }
    fake_hsm_fail(s->hsm, FAKE_ISSUE, 0);
    given = 0;
    for (size_t i = 0; i < MANY; i++) {
        ask_wait(a[i]);
        given += a[i]->reply.status == 200;
        if (a[i]->reply.status != 200)
            ask_refused(a[i], 503, "busy");
        ask_end(a[i]);
    }
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), given > 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

static void requests__for_one_new_content_make_one_tek(void **state)
{
    enum { EACH = 12 };
    struct service *s = *state;
    struct ask *a[SERVICE_PEERS][EACH];
    uint8_t first[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    for (size_t i = 0; i < EACH; i++) {
        for (size_t p = 0; p < SERVICE_PEERS; p++) {
            char mid[16];
            (void)snprintf(mid, sizeof(mid), "m-%zu", i);
            a[p][i] = send(s, &s->peer[p], mid, "urn:x");
        }
    }
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_tek(a[0][0], first);
    for (size_t i = 0; i < EACH; i++) {
        for (size_t p = 0; p < SERVICE_PEERS; p++) {
            assert_int_equal(ask_tek(a[p][i], tek), 16);
            assert_memory_equal(tek, first, 16);
        }
    }
    for (size_t i = 0; i < EACH; i++)
        for (size_t p = 0; p < SERVICE_PEERS; p++)
            ask_end(a[p][i]);
    assert_int_equal(fake_hsm_worked(s->hsm, FAKE_ISSUE), 1);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 1);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), SERVICE_PEERS * EACH);
}

/* RSA gives another wrap each time: what is answered first is what everybody gets. */
static void requests__of_an_rsa_kek_agree_on_one_wrap(void **state)
{
    enum { MANY = 4 };
    struct service *s = *state;
    struct cp3_message m[MANY], again;
    struct ask *a[MANY];

    (void)ask_key(s, BSA(s, 1), "first", "urn:x", NULL);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    for (size_t i = 0; i < MANY; i++) {
        char mid[16];
        (void)snprintf(mid, sizeof(mid), "m-%zu", i);
        a[i] = send(s, BSA(s, 4), mid, "urn:x");
    }
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, MANY); /* each has asked for a wrap of its own */
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    for (size_t i = 0; i < MANY; i++) {
        uint8_t tek[FAKE_TEK_MAX];

        (void)ask_tek(a[i], tek);
        m[i] = ask_answer(a[i]);
        assert_memory_equal(m[i].data, m[0].data, m[0].data_len);
        again = ask_key(s, BSA(s, 4), a[i]->known, "urn:x", NULL);
        assert_memory_equal(again.data, m[i].data, m[i].data_len);
        assert_string_equal(again.time.text, m[i].time.text);
        ask_end(a[i]);
    }
}

/*
 * A request that began anew has left the others of its MessageID behind: two of one wrap each, each
 * its own, meet at the store.  The second gets the octets of the first.
 */
static void repeat__of_an_rsa_kek_does_not_leave_with_its_own_wrap(void **state)
{
    struct service *s = *state;
    struct ask *a[2];
    uint8_t tek[FAKE_TEK_MAX];

    assert_int_equal(service_add_content(s, "urn:x", 128), 0);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    a[0] = send(s, BSA(s, 4), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    service_rotate(s, "urn:x");
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false); /* its TEK is not the first: it begins anew */
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    a[1] = send(s, BSA(s, 4), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 2);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    for (size_t i = 0; i < 2; i++)
        (void)ask_tek(a[i], tek);
    assert_string_equal(buf_str(a[1]->reply.body), buf_str(a[0]->reply.body));
    for (size_t i = 0; i < 2; i++)
        ask_end(a[i]);
    assert_int_equal(service_count(s, "request.answered", "mid", "m-1"), 1);
    assert_int_equal(service_count(s, "request.repeated", "mid", "m-1"), 1);
}

/* ---- ten losers of one batch ----------------------------------------------------------------- */

enum { RIVALS = 11 };

/* While it is shut, what goes to the store and waits for a signature stays here. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool shut;
    struct store_item *item[RIVALS];
    size_t n;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int __real_store_submit(struct store *s, struct store_item *item);
int __wrap_store_submit(struct store *s, struct store_item *item);
int __wrap_store_submit(struct store *s, struct store_item *item)
{
    bool stays;

    (void)pthread_mutex_lock(&gate.lock);
    stays = gate.shut && item->wait == STORE_SIGNED;
    if (stays && gate.n == ARRAY_SIZE(gate.item))
        abort();
    if (stays)
        gate.item[gate.n++] = item;
    (void)pthread_cond_broadcast(&gate.changed);
    (void)pthread_mutex_unlock(&gate.lock);
    return stays ? 0 : __real_store_submit(s, item);
}

static void gate_shut(bool shut)
{
    (void)pthread_mutex_lock(&gate.lock);
    gate.shut = shut;
    (void)pthread_mutex_unlock(&gate.lock);
}

static void gate_wait(size_t n)
{
    (void)pthread_mutex_lock(&gate.lock);
    while (gate.n < n)
        (void)pthread_cond_wait(&gate.changed, &gate.lock);
    (void)pthread_mutex_unlock(&gate.lock);
}

/* A read that the store's thread does not leave before it may. */
struct stall {
    struct store_item item; /* first */
    sem_t entered, may_leave, left;
};

static int stall_apply(struct store_item *item, struct store_tx *tx)
{
    struct stall *st = (struct stall *)item;

    (void)tx;
    (void)sem_post(&st->entered);
    return sem_wait(&st->may_leave);
}

static void stall_done(struct store_item *item, int result)
{
    if (result < 0)
        abort();
    (void)sem_post(&((struct stall *)item)->left);
}

/* All that stays at the gate goes to the store while that looks at none of it. */
static void gate_pass_at_once(struct service *s)
{
    struct stall st = {.item = {.apply = stall_apply, .done = stall_done, .wait = STORE_READ}};
    size_t n;

    assert_int_equal(sem_init(&st.entered, 0, 0), 0);
    assert_int_equal(sem_init(&st.may_leave, 0, 0), 0);
    assert_int_equal(sem_init(&st.left, 0, 0), 0);
    assert_int_equal(__real_store_submit(s->store, &st.item), 0);
    assert_int_equal(sem_wait(&st.entered), 0);
    (void)pthread_mutex_lock(&gate.lock);
    n = gate.n;
    gate.n = 0;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(__real_store_submit(s->store, gate.item[i]), 0);
    (void)pthread_mutex_unlock(&gate.lock);
    assert_int_equal(sem_post(&st.may_leave), 0);
    assert_int_equal(sem_wait(&st.left), 0);
}

static int read_nothing(void *arg, struct store_tx *tx)
{
    (void)arg;
    (void)tx;
    return 0;
}

/* Of a store that has published all that it did before. */
static struct store_status status_now(struct service *s)
{
    struct store_status st;

    for (int i = 0; i < 2; i++)
        assert_int_equal(store_call(s->store, STORE_READ, read_nothing, NULL), 0);
    store_status_get(s->store, &st);
    return st;
}

/*
 * Each has a wrap of its own; all are in one batch: one of them is the first, ten lose, and come
 * again with what the first one got.
 */
static void requests__that_lose_in_one_batch_get_the_winners_data(void **state)
{
    struct service *s = *state;
    struct store_check log = {.signer = s->signer, .bsm_id = SERVICE_BSM, .store = s->store};
    struct cp3_message first = {.data_len = 0}, m;
    struct store_status before, after;
    struct ask *a[RIVALS];
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_key(s, BSA(s, 1), "first", "urn:x", NULL);
    service_wait_record(s, "answer.sent", NULL, NULL); /* nothing is left to be written */
    gate_shut(true);
    for (size_t i = 0; i < RIVALS; i++) {
        char mid[16];
        (void)snprintf(mid, sizeof(mid), "m-%zu", i);
        a[i] = send(s, BSA(s, 4), mid, "urn:x");
    }
    gate_wait(RIVALS);
    before = status_now(s);
    gate_pass_at_once(s);
    gate_wait(RIVALS - 1);
    after = status_now(s);
    assert_int_equal(after.losers - before.losers, 10);
    assert_in_range(after.batches - before.batches, 1, 3); /* with checkpoints */
    gate_shut(false);
    gate_pass_at_once(s);
    for (size_t i = 0; i < RIVALS; i++) {
        assert_int_equal(ask_tek(a[i], tek), 16);
        m = ask_answer(a[i]);
        if (i == 0)
            first = m;
        assert_int_equal(m.data_len, first.data_len);
        assert_memory_equal(m.data, first.data, first.data_len);
    }
    for (size_t i = 0; i < RIVALS; i++)
        ask_end(a[i]);
    assert_int_equal(service_count(s, "request.answered", "peer", "bsa-4"), RIVALS);
    assert_int_equal(store_check_log(&log, "request.answered").count, RIVALS + 1);
}

/* ---- losers ---------------------------------------------------------------------------------- */

static void loser__of_a_content_takes_the_winners(void **state)
{
    struct service *s = *state;
    struct cp3_message m;
    struct ask *a;
    uint8_t tek[FAKE_TEK_MAX];

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    assert_int_equal(service_add_content(s, "urn:x", 256), 0);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    assert_int_equal(ask_tek(a, tek), 32); /* as the operator's content wants it */
    m = ask_answer(a);
    assert_int_equal(m.key_info.bits, 256);
    ask_end(a);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 1);
    assert_int_equal(service_count(s, "content.added", NULL, NULL), 1);
}

/* A rotation has made the first version meanwhile: the request's own TEK is dropped. */
static void loser__of_a_tek_exports_the_winners(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX], other[FAKE_TEK_MAX];
    struct ask *a;

    assert_int_equal(service_add_content(s, "urn:x", 128), 0);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    service_rotate(s, "urn:x");
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_tek(a, tek);
    ask_end(a);
    (void)ask_key(s, BSA(s, 2), "m-1", "urn:x", other);
    assert_memory_equal(tek, other, 16);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 1);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 2);
}

/* ---- between the halves ---------------------------------------------------------------------- */

static void rotation__between_the_halves_wins(void **state)
{
    struct service *s = *state;
    uint8_t old[FAKE_TEK_MAX], tek[FAKE_TEK_MAX], now[FAKE_TEK_MAX];
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", old);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    a = send(s, BSA(s, 2), "m-1", "urn:x"); /* wraps the old TEK ... */
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    service_rotate(s, "urn:x"); /* ... which is not current when it comes back */
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    (void)ask_tek(a, tek);
    ask_end(a);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", now);
    assert_memory_equal(tek, now, 16);
    assert_memory_not_equal(tek, old, 16);
    assert_int_equal(service_count(s, "request.answered", "peer", "bsa-2"), 1);
}

static void rotation__of_another_content_sends_nobody_round(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX];
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:y", NULL);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    a = send(s, BSA(s, 2), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    service_rotate(s, "urn:y");
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    (void)ask_tek(a, tek);
    ask_end(a);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_EXPORT), 1);
}

static void destruction__between_the_halves_wins(void **state)
{
    struct service *s = *state;
    uint8_t old[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct cp3_message first;
    struct ask *a;

    first = ask_key(s, BSA(s, 1), "m-1", "urn:x", old);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    a = send(s, BSA(s, 2), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    service_destroy(s, first.key_info.key_id);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    (void)ask_tek(a, tek);
    assert_memory_not_equal(tek, old, 16);
    ask_end(a);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
}

static void disable__while_the_hsm_works_wins(void **state)
{
    struct service *s = *state;
    struct ask *a;

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    ask_wait(a);
    assert_int_equal(a->reply.status, 403);
    assert_true(a->reply.close);
    ask_end(a);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 0);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 0);
}

static void disable__before_the_answer_left_wins(void **state)
{
    struct service *s = *state;
    struct cp3_message m;
    struct ask *a;

    (void)ask_key(s, BSA(s, 2), "m-1", "urn:x", NULL);
    store_signer_hold(s->signer);
    a = send(s, BSA(s, 1), "m-1", "urn:x"); /* committed, and waits for its signature */
    service_wait_record(s, "request.answered", "peer", "bsa-1");
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    assert_false(ask_is_answered(a));
    store_signer_release(s->signer);
    ask_wait(a);
    assert_int_equal(a->reply.status, 403);
    ask_end(a);
    /* What was recorded stands, and is what it gets when it may again. */
    assert_int_equal(service_count(s, "request.answered", "peer", "bsa-1"), 1);
    assert_int_equal(service_count(s, "answer.sent", "peer", "bsa-1"), 0);
    assert_int_equal(service_enable(s, BSA(s, 1), true), 0);
    m = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    assert_int_equal(m.status, CP3_STATUS_OK);
    assert_int_equal(service_count(s, "request.answered", "peer", "bsa-1"), 1);
    assert_int_equal(service_count(s, "request.repeated", "peer", "bsa-1"), 1);
}

static void answer__waits_for_the_signature_repeats_too(void **state)
{
    struct service *s = *state;
    struct ask *first, *repeat;
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_key(s, BSA(s, 1), "m-0", "urn:x", NULL);
    store_signer_hold(s->signer);
    first = send(s, BSA(s, 1), "m-1", "urn:x");
    service_wait_record(s, "request.answered", "mid", "m-1");
    repeat = send(s, BSA(s, 1), "m-1", "urn:x");
    /* A request whose record is signed already is not kept by this. */
    (void)ask_key(s, BSA(s, 1), "m-0", "urn:x", NULL);
    assert_false(ask_is_answered(first));
    assert_false(ask_is_answered(repeat));
    store_signer_release(s->signer);
    (void)ask_tek(first, tek);
    (void)ask_tek(repeat, tek);
    assert_string_equal(buf_str(first->reply.body), buf_str(repeat->reply.body));
    ask_end(first);
    ask_end(repeat);
}

/* The first gave up before its record was signed: who comes then has to wait for it as well. */
static void repeat__of_an_unsigned_answer_waits_too(void **state)
{
    struct service *s = *state;
    struct cp3_message m = ask_message(BSA(s, 1), "m-1", "urn:x");
    struct ask *first, *repeat;
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_key(s, BSA(s, 1), "m-0", "urn:x", NULL);
    store_signer_hold(s->signer);
    first = ask_send_for(s, BSA(s, 1), &m, 100000);
    ask_refused(first, 503, "busy");
    ask_end(first);
    repeat = send(s, BSA(s, 1), "m-1", "urn:x");
    ask_wait_known(repeat);
    for (int i = 0; i < 20; i++) /* the store has been round often enough */
        (void)ask_key(s, BSA(s, 1), "m-0", "urn:x", NULL);
    assert_false(ask_is_answered(repeat));
    store_signer_release(s->signer);
    (void)ask_tek(repeat, tek);
    ask_end(repeat);
    assert_int_equal(service_count(s, "request.answered", "mid", "m-1"), 1);
    assert_int_equal(service_count(s, "request.repeated", "mid", "m-1"), 1);
}

/* ---- many threads ---------------------------------------------------------------------------- */

enum { ASKERS = 16, ROUNDS = 60, CONTENTS = 8 };

/* What each (peer, content) was told, by Message ID: the first answer is the one. */
struct hammer {
    struct service *s;
    unsigned n;
};

static void expect_same(const struct cp3_message *a, const struct cp3_message *b)
{
    if (a->data_len != b->data_len || memcmp(a->data, b->data, a->data_len) != 0 ||
        strcmp(a->time.text, b->time.text) != 0 ||
        memcmp(a->key_info.key_id, b->key_info.key_id, CP3_KEY_ID_SIZE) != 0)
        abort();
}

static void *ask_a_lot(void *arg)
{
    struct hammer *h = arg;
    const struct peer *p = &h->s->peer[h->n % SERVICE_PEERS];

    for (unsigned i = 0; i < ROUNDS; i++) {
        char mid[32], content[32];
        struct cp3_message first, again;

        (void)snprintf(mid, sizeof(mid), "%u/%u", h->n, i);
        (void)snprintf(content, sizeof(content), "urn:%u", i % CONTENTS);
        first = ask_key(h->s, p, mid, content, NULL);
        again = ask_key(h->s, p, mid, content, NULL);
        expect_same(&first, &again);
    }
    return NULL;
}

static _Atomic bool hammering;

static void *rotate_a_lot(void *arg)
{
    struct service *s = arg;

    for (unsigned i = 0; atomic_load(&hammering); i++) {
        struct keys_error err;
        char content[32];
        uint8_t id[16];
        int r;

        (void)snprintf(content, sizeof(content), "urn:%u", i % CONTENTS);
        r = keys_rotate(s->keys, &s->actor, content, id, &err);
        if (r < 0 && r != TEKD_ENOTFOUND)
            abort();
        if (service_set_entitle(s, &s->peer[i % SERVICE_PEERS], "*") < 0)
            abort();
    }
    return NULL;
}

static void hammer(struct service *s)
{
    pthread_t thread[ASKERS];
    struct hammer h[ASKERS];

    for (unsigned i = 0; i < ASKERS; i++) {
        h[i] = (struct hammer){.s = s, .n = i};
        assert_int_equal(pthread_create(&thread[i], NULL, ask_a_lot, &h[i]), 0);
    }
    for (unsigned i = 0; i < ASKERS; i++)
        (void)pthread_join(thread[i], NULL);
}

static void many_threads__agree_on_every_key(void **state)
{
    struct service *s = *state;
    uint8_t first[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct keys_status st;

    hammer(s);
    assert_int_equal(fake_hsm_worked(s->hsm, FAKE_ISSUE), CONTENTS);
    for (unsigned c = 0; c < CONTENTS; c++) {
        char content[32];

        (void)snprintf(content, sizeof(content), "urn:%u", c);
        for (size_t p = 0; p < SERVICE_PEERS; p++) {
            (void)ask_key(s, &s->peer[p], content, content, p == 0 ? first : tek);
            if (p > 0)
                assert_memory_equal(tek, first, 16);
        }
    }
    keys_status_get(s->keys, &st);
    assert_int_equal(st.answered, ASKERS * ROUNDS + CONTENTS * SERVICE_PEERS);
    assert_int_equal(st.repeated, ASKERS * ROUNDS);
    assert_int_equal(st.busy + st.failed + st.refused, 0);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), st.answered);
    assert_int_equal(service_count(s, "request.repeated", NULL, NULL), st.repeated);
    assert_int_equal(service_count(s, "answer.sent", NULL, NULL), st.answered + st.repeated);
}

/* Rotations and changes of enrolments all the time: a Message ID still has one answer. */
static void many_threads__while_everything_changes(void **state)
{
    struct service *s = *state;
    struct keys_status st;
    pthread_t operator;

    atomic_store(&hammering, true);
    assert_int_equal(pthread_create(&operator, NULL, rotate_a_lot, s), 0);
    hammer(s);
    atomic_store(&hammering, false);
    (void)pthread_join(operator, NULL);
    keys_status_get(s->keys, &st);
    assert_int_equal(st.busy + st.failed + st.refused, 0);
    /* An answer that was recorded, and then decided anew, leaves as a repeat. */
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), ASKERS * ROUNDS);
    assert_int_equal(st.answered + st.repeated, 2 * ASKERS * ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(repeats__under_way_join_the_first),
        SERVICE_TEST(repeats__of_one_that_fails_go_on),
        SERVICE_TEST(requests__for_one_new_content_make_one_tek),
        SERVICE_TEST(requests__of_an_rsa_kek_agree_on_one_wrap),
        SERVICE_TEST(requests__that_lose_in_one_batch_get_the_winners_data),
        SERVICE_TEST(repeat__of_an_rsa_kek_does_not_leave_with_its_own_wrap),
        SERVICE_TEST(loser__of_a_content_takes_the_winners),
        SERVICE_TEST(loser__of_a_tek_exports_the_winners),
        SERVICE_TEST(rotation__between_the_halves_wins),
        SERVICE_TEST(rotation__of_another_content_sends_nobody_round),
        SERVICE_TEST(destruction__between_the_halves_wins),
        SERVICE_TEST(disable__while_the_hsm_works_wins),
        SERVICE_TEST(disable__before_the_answer_left_wins),
        SERVICE_TEST(answer__waits_for_the_signature_repeats_too),
        SERVICE_TEST(repeat__of_an_unsigned_answer_waits_too),
        SERVICE_TEST(many_threads__agree_on_every_key),
        SERVICE_TEST(many_threads__while_everything_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
