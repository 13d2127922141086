#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys_fixture.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])

static struct ask *send(struct service *s, const struct peer *p, const char *mid,
                        const char *content)
{
    struct cp3_message m = ask_message(p, mid, content);

    return ask_send(s, p, &m, CP3_XML);
}

/* The same with another patience than the usual. */
static struct ask *send_for(struct service *s, const struct peer *p, const char *mid,
                            const char *content, int64_t patience_us)
{
    struct cp3_message m = ask_message(p, mid, content);

    return ask_send_for(s, p, &m, patience_us);
}

static void wants_busy(struct ask *a)
{
    ask_refused(a, 503, "busy");
    assert_string_equal(ask_answer(a).message_id, a->known);
    ask_end(a);
}

/* ---- the HSM --------------------------------------------------------------------------------- */

struct error_case {
    int error;
    int status;
};

static const struct error_case errors[] = {
    {TEKD_EAGAIN, 503},  {TEKD_ETIMEDOUT, 503}, {TEKD_EHSM, 503},   {TEKD_EPIN, 503},
    {TEKD_ECLOSED, 503}, {TEKD_ENOMEM, 503},    {TEKD_EWEAK, 500},  {TEKD_ENOTFOUND, 500},
    {TEKD_EFORMAT, 500}, {TEKD_ECRYPTO, 500},   {TEKD_EINVAL, 500}, {TEKD_EINTERNAL, 500},
};

static void fails_as(struct service *s, const struct peer *p, const struct error_case *c)
{
    struct ask *a = send(s, p, "m-1", "urn:x");

    ask_refused(a, c->status, c->status == 503 ? "busy" : "internal");
    assert_int_equal(ask_answer(a).form, CP3_EFFICIENT);
    assert_int_equal(ask_answer(a).status, CP3_STATUS_REFUSED);
    assert_int_equal(a->reply.correlation[0] != '\0', c->status == 500);
    ask_end(a);
}

static void hsm__that_fails_to_issue_changes_nothing(void **state)
{
    struct service *s = *state;
    struct keys_status st;

    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        fake_hsm_fail(s->hsm, FAKE_ISSUE, errors[i].error);
        fails_as(s, BSA(s, 1), &errors[i]);
    }
    keys_status_get(s->keys, &st);
    assert_int_equal(st.busy, 6);
    assert_int_equal(st.failed, 6);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 0);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 0);
    assert_int_equal(service_count(s, "request.refused", NULL, NULL), 0);
    fake_hsm_fail(s->hsm, FAKE_ISSUE, 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

static void hsm__that_fails_to_export_changes_nothing(void **state)
{
    struct service *s = *state;
    uint8_t tek[FAKE_TEK_MAX], other[FAKE_TEK_MAX];

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", tek);
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        fake_hsm_fail(s->hsm, FAKE_EXPORT, errors[i].error);
        fails_as(s, BSA(s, 2), &errors[i]);
    }
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", NULL); /* needs no HSM */
    fake_hsm_fail(s->hsm, FAKE_EXPORT, 0);
    (void)ask_key(s, BSA(s, 2), "m-1", "urn:x", other);
    assert_memory_equal(tek, other, 16);
}

static void hsm__that_hangs_costs_no_more_than_the_deadline(void **state)
{
    struct service *s = *state;
    int64_t begun = clock_mono_us();
    struct ask *a;

    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    a = send_for(s, BSA(s, 1), "m-1", "urn:x", 200000);
    wants_busy(a);
    assert_true(clock_mono_us() - begun < 10000000);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

static void deadline__that_has_passed_is_busy_at_once(void **state)
{
    struct service *s = *state;

    wants_busy(send_for(s, BSA(s, 1), "m-1", "urn:x", -1));
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_ISSUE), 0);
}

/* One request that is inside, two that wait in the line, and one for which there is no room. */
struct line_up {
    struct ask *inside, *waits, *late, *over;
    char mid[4][32], content[4][32];
};

static bool is_refused_soon(struct ask *a)
{
    int64_t until_us = clock_mono_us() + 100000;

    while (!ask_is_answered(a) && clock_mono_us() < until_us)
        (void)sched_yield();
    return ask_is_answered(a) && a->reply.status == 503;
}

/* Which of them comes to the line first is the threads' matter: whether it is as it should be. */
static bool line_up(struct service *s, struct line_up *l, int turn)
{
    for (int i = 0; i < 4; i++) {
        (void)snprintf(l->mid[i], sizeof(l->mid[i]), "m-%d-%d", turn, i);
        (void)snprintf(l->content[i], sizeof(l->content[i]), "urn:%d-%d", turn, i);
    }
    l->inside = send(s, BSA(s, 1), l->mid[0], l->content[0]);
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    l->waits = send(s, BSA(s, 1), l->mid[1], l->content[1]);
    l->late = send_for(s, BSA(s, 1), l->mid[2], l->content[2], 1000000);
    l->over = send(s, BSA(s, 2), l->mid[3], l->content[3]);
    return is_refused_soon(l->over) && !ask_is_answered(l->waits) && !ask_is_answered(l->late);
}

static void line_end(struct service *s, struct line_up *l)
{
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    ask_end(l->inside);
    ask_end(l->waits);
    ask_end(l->late);
    ask_end(l->over);
}

static void hsm__has_so_many_inside_and_so_many_waiting(void **state)
{
    struct service *s = *state;
    struct line_up l;
    uint8_t tek[FAKE_TEK_MAX];
    unsigned made;
    int turn = 0;

    service_stop(s);
    s->options.hsm_inside = 1;
    s->options.hsm_waiting = 2;
    assert_int_equal(service_start(s), 0);
    for (;;) {
        fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
        made = fake_hsm_made(s->hsm, FAKE_ISSUE);
        if (line_up(s, &l, turn))
            break;
        line_end(s, &l);
        assert_int_not_equal(++turn, 100);
    }
    while (clock_mono_us() < l.late->r.deadline_us)
        (void)sched_yield();
    assert_false(ask_is_answered(l.inside));
    assert_false(ask_is_answered(l.waits));
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_tek(l.inside, tek);
    (void)ask_tek(l.waits, tek);
    ask_refused(l.late, 503, "busy"); /* its time passed in the line: the HSM is not asked for it */
    line_end(s, &l);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_ISSUE), made + 2);
}

/* What is stored needs no HSM. */
static void hsm__that_is_down_stops_no_repeat(void **state)
{
    struct service *s = *state;
    struct cp3_message first, again;

    first = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    service_stop(s);
    fake_hsm_fail(s->hsm, FAKE_DESCRIBE, TEKD_EHSM);
    fake_hsm_fail(s->hsm, FAKE_EXPORT, TEKD_EHSM);
    assert_int_equal(service_start(s), 0);
    again = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    assert_memory_equal(first.data, again.data, first.data_len);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", NULL);
    wants_busy(send(s, BSA(s, 2), "m-1", "urn:x"));
}

static void kek__that_was_replaced_gives_nothing(void **state)
{
    struct service *s = *state;
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    fake_hsm_replace(s->hsm, "bsa-2-kek");
    a = send(s, BSA(s, 2), "m-1", "urn:x");
    ask_refused(a, 500, "internal");
    ask_end(a);
    assert_int_equal(service_count(s, "request.answered", "peer", "bsa-2"), 0);
}

/* ---- limits of a BSA ------------------------------------------------------------------------- */

static void concurrency__of_a_bsa_is_limited(void **state)
{
    struct service *s = *state;
    struct ask *a[2], *over;
    uint8_t tek[FAKE_TEK_MAX];

    service_stop(s);
    s->options.per_bsa_concurrency = 2;
    assert_int_equal(service_start(s), 0);
    (void)ask_key(s, BSA(s, 2), "m-0", "urn:known", NULL);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    a[0] = send(s, BSA(s, 1), "m-1", "urn:1");
    a[1] = send(s, BSA(s, 1), "m-2", "urn:2");
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 2);
    for (int i = 0; i < 3; i++) {
        over = send(s, BSA(s, 1), "m-3", "urn:known");
        ask_refused(over, 503, "busy");
        ask_end(over);
    }
    (void)ask_key(s, BSA(s, 2), "m-1", "urn:known", NULL); /* others are not concerned */
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_tek(a[0], tek);
    (void)ask_tek(a[1], tek);
    ask_end(a[0]);
    ask_end(a[1]);
    for (int i = 0; i < 5; i++) /* one after the other they are as many as one likes */
        (void)ask_key(s, BSA(s, 1), "m-3", "urn:known", NULL);
}

static void auto_contents__of_a_bsa_are_limited(void **state)
{
    struct service *s = *state;

    service_stop(s);
    s->options.per_bsa_auto_contents = 2;
    assert_int_equal(service_start(s), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:1", NULL);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:2", NULL);
    ask_no_key(s, BSA(s, 1), "m-3", "urn:3", "unknown-content");
    (void)ask_key(s, BSA(s, 1), "m-3", "urn:2", NULL);
    (void)ask_key(s, BSA(s, 2), "m-3", "urn:3", NULL);
    (void)ask_key(s, BSA(s, 1), "m-4", "urn:3", NULL); /* it is there now */
    assert_int_equal(service_add_content(s, "urn:4", 128), 0);
    (void)ask_key(s, BSA(s, 1), "m-5", "urn:4", NULL);
    /* The count is of what is stored. */
    service_stop(s);
    assert_int_equal(service_start(s), 0);
    ask_no_key(s, BSA(s, 1), "m-6", "urn:5", "unknown-content");
    (void)ask_key(s, BSA(s, 2), "m-6", "urn:5", NULL);
    ask_no_key(s, BSA(s, 2), "m-7", "urn:6", "unknown-content");
}

/* ---- a request that cannot go on ------------------------------------------------------------- */

/* One that waited for another finds the queue full.  Whether it came to waiting is tried. */
static bool was_abandoned(struct service *s, unsigned n)
{
    char name[16];
    struct ask *first, *second;
    uint8_t tek[FAKE_TEK_MAX];
    bool was;

    (void)snprintf(name, sizeof(name), "%u", n);
    atomic_store(&s->queue_is_full, true);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, true);
    first = send(s, BSA(s, 1), name, name);
    fake_hsm_wait_held(s->hsm, FAKE_ISSUE, 1);
    second = send(s, BSA(s, 1), name, name);
    ask_wait_known(second);
    fake_hsm_hold(s->hsm, FAKE_ISSUE, false);
    (void)ask_tek(first, tek);
    ask_wait(second);
    was = second->reply.status != 200;
    if (was)
        ask_refused(second, 503, "busy");
    ask_end(first);
    ask_end(second);
    atomic_store(&s->queue_is_full, false);
    (void)ask_key(s, BSA(s, 1), name, name, NULL);
    return was;
}

static void keys_abandon__answers_busy(void **state)
{
    unsigned n = 0;

    while (!was_abandoned(*state, n))
        n++;
}

/* ---- the store and its signer ---------------------------------------------------------------- */

static void signer__that_fails_is_busy_and_the_answer_stands(void **state)
{
    struct service *s = *state;
    struct cp3_message m;
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-0", "urn:x", NULL);
    store_signer_fail(s->signer, TEKD_EHSM);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    wants_busy(a);
    store_signer_fail(s->signer, 0);
    for (;;) { /* until it signs again */
        a = send(s, BSA(s, 1), "m-1", "urn:x");
        ask_wait(a);
        if (a->reply.status != 503)
            break;
        wants_busy(a);
    }
    m = ask_answer(a);
    assert_int_equal(m.status, CP3_STATUS_OK);
    ask_end(a);
    assert_int_equal(service_count(s, "request.answered", "mid", "m-1"), 1);
}

static void store__without_space_is_busy(void **state)
{
    struct service *s = *state;

    (void)ask_key(s, BSA(s, 1), "m-0", "urn:x", NULL);
    service_stop(s);
    s->store_options.free_stop = UINT64_MAX;
    assert_int_equal(service_start(s), 0);
    wants_busy(send(s, BSA(s, 1), "m-1", "urn:x"));
    wants_busy(send(s, BSA(s, 1), "m-0", "urn:x"));
    /* Operators go on. */
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    assert_int_equal(service_enable(s, BSA(s, 1), true), 0);
    service_stop(s);
    s->store_options.free_stop = 0;
    assert_int_equal(service_start(s), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

/* ---- the start ------------------------------------------------------------------------------- */

static void keys_new__binds_the_storage_kek_once(void **state)
{
    struct service *s = *state;
    struct keys_status st;
    char found[256];

    keys_status_get(s->keys, &st);
    assert_true(st.bound);
    assert_int_equal(service_count(s, "kek.added", "kekid", "storage/1"), 1);
    service_stop(s);
    assert_int_equal(service_start(s), 0);
    assert_int_equal(service_count(s, "kek.added", "kekid", "storage/1"), 1);
    assert_string_equal(service_last(s, "kek.added", "kekid", found), "bsa-4/1");
    assert_string_equal(service_last(s, "kek.added", "wrap", found), "rsa-oaep-sha256");
}

static void keys_new__starts_without_the_hsm(void **state)
{
    static const int down[] = {TEKD_EHSM, TEKD_EAGAIN, TEKD_ETIMEDOUT, TEKD_EPIN};
    struct service *s = *state;
    struct keys_status st;

    for (size_t i = 0; i < ARRAY_SIZE(down); i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "%zu", i);
        service_stop(s);
        fake_hsm_fail(s->hsm, FAKE_DESCRIBE, down[i]);
        assert_int_equal(service_start(s), 0);
        keys_status_get(s->keys, &st);
        assert_false(st.bound);
        assert_string_not_equal(st.reason, "");
        wants_busy(send(s, BSA(s, 1), name, name));
        assert_int_equal(keys_bind(s->keys, clock_mono_us() + SERVICE_US), down[i]);
        fake_hsm_fail(s->hsm, FAKE_DESCRIBE, 0);
        assert_int_equal(keys_bind(s->keys, clock_mono_us() + SERVICE_US), 0);
        keys_status_get(s->keys, &st);
        assert_true(st.bound);
        (void)ask_key(s, BSA(s, 1), name, name, NULL);
    }
}

static void keys_new__ends_with_a_wrong_storage_kek(void **state)
{
    struct service *s = *state;
    static const int wrong[] = {TEKD_EWEAK, TEKD_EEXIST};

    service_stop(s);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        fake_hsm_blame(s->hsm, SERVICE_STORAGE, wrong[i]);
        assert_int_equal(service_start(s), wrong[i]);
    }
    fake_hsm_blame(s->hsm, SERVICE_STORAGE, 0);
    s->options.storage_kek = "another";
    fake_hsm_add(s->hsm, "another", HSM_WRAP_AES_KW);
    assert_int_equal(service_start(s), TEKD_EINVAL);
    s->options.storage_kek = SERVICE_STORAGE;
    assert_int_equal(service_start(s), 0);
    service_stop(s);
    fake_hsm_replace(s->hsm, SERVICE_STORAGE);
    assert_int_equal(service_start(s), TEKD_ETAMPER);
    fake_hsm_remove(s->hsm, SERVICE_STORAGE);
    assert_int_equal(service_start(s), TEKD_ENOTFOUND);
}

static void keys_bind__finds_a_bsas_kek_replaced(void **state)
{
    struct service *s = *state;
    struct keys_status st;

    fake_hsm_replace(s->hsm, "bsa-3-kek");
    assert_int_equal(keys_bind(s->keys, clock_mono_us() + SERVICE_US), TEKD_ETAMPER);
    keys_status_get(s->keys, &st);
    assert_false(st.bound);
    assert_non_null(strstr(st.reason, "bsa-3"));
    wants_busy(send(s, BSA(s, 1), "m-1", "urn:x"));
    /* Of a BSA that may have nothing it does not matter. */
    assert_int_equal(service_enable(s, BSA(s, 3), false), 0);
    assert_int_equal(keys_bind(s->keys, clock_mono_us() + SERVICE_US), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

static void keys_bind__of_a_busy_hsm_stays_bound(void **state)
{
    struct service *s = *state;
    struct keys_status st;

    fake_hsm_fail(s->hsm, FAKE_DESCRIBE, TEKD_EAGAIN);
    assert_int_equal(keys_bind(s->keys, clock_mono_us() + SERVICE_US), TEKD_EAGAIN);
    keys_status_get(s->keys, &st);
    assert_true(st.bound);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(hsm__that_fails_to_issue_changes_nothing),
        SERVICE_TEST(hsm__that_fails_to_export_changes_nothing),
        SERVICE_TEST(hsm__that_hangs_costs_no_more_than_the_deadline),
        SERVICE_TEST(deadline__that_has_passed_is_busy_at_once),
        SERVICE_TEST(hsm__has_so_many_inside_and_so_many_waiting),
        SERVICE_TEST(hsm__that_is_down_stops_no_repeat),
        SERVICE_TEST(kek__that_was_replaced_gives_nothing),
        SERVICE_TEST(concurrency__of_a_bsa_is_limited),
        SERVICE_TEST(auto_contents__of_a_bsa_are_limited),
        SERVICE_TEST(keys_abandon__answers_busy),
        SERVICE_TEST(signer__that_fails_is_busy_and_the_answer_stands),
        SERVICE_TEST(store__without_space_is_busy),
        SERVICE_TEST(keys_new__binds_the_storage_kek_once),
        SERVICE_TEST(keys_new__starts_without_the_hsm),
        SERVICE_TEST(keys_new__ends_with_a_wrong_storage_kek),
        SERVICE_TEST(keys_bind__finds_a_bsas_kek_replaced),
        SERVICE_TEST(keys_bind__of_a_busy_hsm_stays_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
