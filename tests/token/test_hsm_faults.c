/* Workers that die or hang, under load: every call ends in time, and the pool recovers. */
#include "hsm_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"

#define THREADS 8
/* Of one call; and what a scheduler on a busy machine may add to it. */
#define DEADLINE_S 4.0
#define SLACK_US   INT64_C(2000000)

/* ---------------------------------------------------------------- load ------------- */

struct load {
    struct fixture *f;
    bool many; /* each asks for several at once */
    pthread_t thread[THREADS];
    atomic_bool stop;
    atomic_uint answered;
    atomic_uint refused;
    atomic_uint wrong; /* an outcome that no caller may see */
    atomic_uint late;  /* over the deadline */
};

static void note_outcome(struct load *l, int r, const struct hsm_blob *data)
{
    uint8_t tek[64];

    if (r == 0 && fixture_unwrap(fixture_bsa_kek, data, tek) == 16)
        atomic_fetch_add(&l->answered, 1);
    else if (r == TEKD_EAGAIN || r == TEKD_EHSM || r == TEKD_ETIMEDOUT)
        atomic_fetch_add(&l->refused, 1);
    else
        atomic_fetch_add(&l->wrong, 1);
}

static void *ask(void *arg)
{
    struct load *l = arg;
    size_t n = l->many ? HSM_MANY_MAX : 1;

    while (!atomic_load(&l->stop)) {
        int64_t deadline = fixture_in(DEADLINE_S);
        struct hsm_order o[HSM_MANY_MAX];

        for (size_t i = 0; i < n; i++)
            o[i] = (struct hsm_order){.bits = 128, .storage = &l->f->storage, .bsa = &l->f->bsa};
        hsm_make_many(l->f->hsm, o, n, deadline);
        for (size_t i = 0; i < n; i++)
            note_outcome(l, o[i].error, &o[i].issued.data);
        if (clock_mono_us() > deadline + SLACK_US)
            atomic_fetch_add(&l->late, 1);
    }
    return NULL;
}

static void load_start(struct load *l, struct fixture *f, bool many)
{
    memset(l, 0, sizeof(*l));
    l->f = f;
    l->many = many;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&l->thread[i], NULL, ask, l), 0);
}

static void load_stop(struct load *l)
{
    atomic_store(&l->stop, true);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(l->thread[i], NULL), 0);
    assert_int_equal(atomic_load(&l->wrong), 0);
    assert_int_equal(atomic_load(&l->late), 0);
}

/* Until n more calls were answered. */
static void load_progress(struct load *l, unsigned n)
{
    unsigned from = atomic_load(&l->answered);
    int64_t until = fixture_in(60);

    while (atomic_load(&l->answered) - from < n) {
        assert_true(clock_mono_us() < until);
        fixture_pause();
    }
}

/* ---------------------------------------------------------------- one worker ------- */

static void survive_killed_workers(struct fixture *f, bool many)
{
    /* So many that none is under way any more that the death before has struck. */
    unsigned some = many ? 50 * HSM_MANY_MAX : 50;
    struct load l;
    struct hsm_status st;

    fixture_start(f);
    load_start(&l, f, many);
    for (size_t i = 0; i < 10; i++) {
        int pid = fixture_worker(f, i % 2);

        load_progress(&l, some);
        assert_int_equal(kill(pid, SIGKILL), 0);
        fixture_await_gone(pid);
        load_progress(&l, some);
        assert_int_not_equal(fixture_worker(f, i % 2), pid);
    }
    load_stop(&l);
    hsm_status_get(f->hsm, &st);
    assert_true(st.worker[0].restarts >= 5);
    assert_true(st.worker[1].restarts >= 5);
    /* The repeat on the other worker hides single deaths. */
    assert_int_equal(atomic_load(&l.refused), 0);
}

static void pool__survives_killed_workers_under_load(void **state)
{
    survive_killed_workers(*state, false);
}

static void pool__survives_killed_workers_that_do_many_things(void **state)
{
    survive_killed_workers(*state, true);
}

/* Eight orders of which one is deadly: the others get their answers, and it costs two workers. */
static void make_with_a_deadly_one(struct fixture *f, const char *mode, int error)
{
    struct hsm_order o[HSM_MANY_MAX];
    struct hsm_status st;

    fixture_shim(f, mode);
    f->options.timeout_ms = 500;
    fixture_start(f);
    for (size_t i = 0; i < HSM_MANY_MAX; i++)
        o[i] = (struct hsm_order){
            .bits = i == 3 ? 192 : 128, .storage = &f->storage, .bsa = &f->bsa, .error = 1};
    hsm_make_many(f->hsm, o, HSM_MANY_MAX, fixture_in(30));
    for (size_t i = 0; i < HSM_MANY_MAX; i++)
        assert_int_equal(o[i].error, i == 3 ? error : 0);
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.worker[0].failures + st.worker[1].failures, 2);
}

static void pool__makes_alone_what_stands_with_a_deadly_one(void **state)
{
    make_with_a_deadly_one(*state, "fails-at-192-bits", TEKD_EHSM);
}

static void pool__makes_alone_what_stands_with_one_that_hangs(void **state)
{
    make_with_a_deadly_one(*state, "hangs-at-192-bits", TEKD_ETIMEDOUT);
}

/* Who was answered does not wait for one that needs another worker. */
static void count_done(struct hsm_order *self)
{
    unsigned *n = self->arg;

    if (self->bits == 192)
        assert_int_equal(*n, 3); /* those before it; what stands behind it is made alone */
    (*n)++;
}

static void pool__says_at_once_what_was_answered(void **state)
{
    struct fixture *f = *state;
    struct hsm_order o[HSM_MANY_MAX];
    unsigned n = 0;

    fixture_shim(f, "fails-at-192-bits");
    fixture_start(f);
    for (size_t i = 0; i < HSM_MANY_MAX; i++)
        o[i] = (struct hsm_order){.bits = i == 3 ? 192 : 128,
                                  .storage = &f->storage,
                                  .bsa = &f->bsa,
                                  .done = count_done,
                                  .arg = &n};
    hsm_make_many(f->hsm, o, HSM_MANY_MAX, fixture_in(30));
    assert_int_equal(n, HSM_MANY_MAX);
}

/* A message takes as long as its orders: of a slow token there is one in each. */
static void hsm_many__follows_the_speed_of_the_token(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;

    fixture_shim(f, "is-slow");
    fixture_start(f);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(10), &got), 0);
    assert_int_equal(hsm_many(f->hsm), 1);
}

static void pool__kills_a_stopped_worker_and_repeats_the_call(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    int64_t begin;
    int pid;

    f->options.timeout_ms = 300;
    fixture_start(f);
    pid = fixture_worker(f, 0); /* the first that is free is taken */
    (void)fixture_worker(f, 1);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    begin = clock_mono_us();
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(DEADLINE_S), &got), 0);
    assert_true(clock_mono_us() - begin >= 300000);
    assert_true(clock_mono_us() - begin < 300000 + SLACK_US);
    fixture_await_gone(pid);
    assert_int_not_equal(fixture_worker(f, 0), pid);
}

static void survive_stopped_workers(struct fixture *f, bool many)
{
    struct load l;

    f->options.timeout_ms = 300;
    fixture_start(f);
    load_start(&l, f, many);
    for (size_t i = 0; i < 4; i++) {
        int pid = fixture_worker(f, i % 2);

        load_progress(&l, 50);
        assert_int_equal(kill(pid, SIGSTOP), 0);
        fixture_await_gone(pid);
        load_progress(&l, 50);
    }
    load_stop(&l);
}

static void pool__survives_stopped_workers_under_load(void **state)
{
    survive_stopped_workers(*state, false);
}

static void pool__survives_stopped_workers_that_do_many_things(void **state)
{
    survive_stopped_workers(*state, true);
}

/* A caller with little time leaves; the worker is no worse for that, and its answer nobody's. */
static void pool__keeps_a_worker_whose_caller_left(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    int pid;

    f->options.workers = 1;
    f->options.timeout_ms = 20000;
    fixture_start(f);
    pid = fixture_worker(f, 0);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(0.1), &got),
                     TEKD_ETIMEDOUT);
    /* The worker still owes the answer, so this one waits in line. */
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(0.1), &got),
                     TEKD_ETIMEDOUT);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(hsm_issue(f->hsm, 256, &f->storage, &f->bsa, fixture_in(10), &got), 0);
    assert_int_equal(got.data.len, 40); /* not the 24 octets of the calls before */
    assert_int_equal(fixture_worker(f, 0), pid);
}

static void pool__turns_away_who_finds_the_line_full(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    int64_t begin;
    int pid;

    f->options.workers = 1;
    f->options.max_waiting = 0;
    f->options.timeout_ms = 20000;
    fixture_start(f);
    pid = fixture_worker(f, 0);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(0.1), &got),
                     TEKD_ETIMEDOUT);
    begin = clock_mono_us();
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(10), &got),
                     TEKD_EAGAIN);
    assert_true(clock_mono_us() - begin < SLACK_US);
    assert_int_equal(kill(pid, SIGCONT), 0);
}

/* ---------------------------------------------------------------- other roles ------ */

/* Hung keys never stop the writer, strangers' handshakes never starve keys. */
static void pool__roles_do_not_wait_for_each_other(void **state)
{
    const uint8_t digest[32] = {1};
    struct fixture *f = *state;
    struct hsm_signature sig;
    struct hsm_issued got;
    struct hsm_spki spki;
    int tls;

    f->options.workers = 1;
    f->options.timeout_ms = 20000;
    f->options.tls_timeout_ms = 300;
    fixture_start(f);
    tls = fixture_worker(f, 2);
    assert_int_equal(kill(tls, SIGSTOP), 0);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(10), &got), 0);
    assert_int_equal(kill(fixture_worker(f, 0), SIGSTOP), 0);
    assert_int_equal(hsm_public_key(f->hsm, HSM_PUBLIC_CHECKPOINT, fixture_in(10), &spki), 0);
    /* Its own worker hangs: killed, and the repeat waits for the new one. */
    assert_int_equal(hsm_sign_tls(f->hsm, digest, sizeof(digest), fixture_in(10), &sig), 0);
    fixture_await_gone(tls);
}

/* ---------------------------------------------------------------- tekd-hsm itself -- */

static void pool__starts_a_killed_tekd_hsm_again(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    struct load l;
    int parent, worker;

    fixture_start(f);
    load_start(&l, f, false);
    load_progress(&l, 50);
    parent = fixture_parent(f);
    worker = fixture_worker(f, 0);
    assert_int_equal(kill(parent, SIGKILL), 0);
    fixture_await_gone(parent);
    fixture_await_gone(worker); /* it dies with its parent */
    load_progress(&l, 50);
    load_stop(&l);
    fixture_await(f, HSM_READY);
    assert_int_not_equal(fixture_parent(f), parent);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(10), &got), 0);
}

static void pool__kills_a_tekd_hsm_that_says_nothing(void **state)
{
    struct fixture *f = *state;
    int parent;

    fixture_start(f);
    parent = fixture_parent(f);
    assert_int_equal(kill(parent, SIGSTOP), 0);
    fixture_await_gone(parent); /* its PING is not answered */
    fixture_await(f, HSM_READY);
}

static void pool__backs_off_when_starts_fail(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    struct hsm_status a, b;
    int64_t begin;

    f->options.workers = 1;
    f->options.token = "pkcs11:token=another";
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    hsm_status_get(f->hsm, &a);
    assert_int_equal(a.error, TEKD_EHSM);
    assert_non_null(strstr(a.reason, "no token"));
    /* Nobody waits for what is not there. */
    begin = clock_mono_us();
    f->storage.use = HSM_KEK_STORAGE;
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, NULL, fixture_in(10), &got), TEKD_EHSM);
    assert_true(clock_mono_us() - begin < SLACK_US);
    /* 0, 100, 200, 400, 800 ms less a quarter: six starts take over a second. */
    do {
        fixture_pause();
        hsm_status_get(f->hsm, &b);
    } while (b.worker[0].restarts < 6 && clock_mono_us() - begin < 30000000);
    assert_true(b.worker[0].restarts >= 6);
    assert_true(clock_mono_us() - begin > 1000000);
}

static void pool__comes_back_with_the_token(void **state)
{
    struct fixture *f = *state;
    char tokens[96], away[96];

    (void)snprintf(tokens, sizeof(tokens), "%s/tokens", f->dir);
    (void)snprintf(away, sizeof(away), "%s/away", f->dir);
    assert_int_equal(rename(tokens, away), 0);
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    assert_int_equal(rename(away, tokens), 0);
    fixture_await(f, HSM_READY);
}

/* ---------------------------------------------------------------- telling ---------- */

struct told {
    atomic_uint ready;
    atomic_uint down;
};

static void on_state(void *arg, enum hsm_state state)
{
    struct told *t = arg;

    if (state == HSM_READY)
        atomic_fetch_add(&t->ready, 1);
    if (state == HSM_DOWN)
        atomic_fetch_add(&t->down, 1);
}

static void hsm_on_state__tells_lost_and_back_once_each(void **state)
{
    struct fixture *f = *state;
    struct told told = {0};
    char tokens[96], away[96];
    int64_t until = fixture_in(20);

    (void)snprintf(tokens, sizeof(tokens), "%s/tokens", f->dir);
    (void)snprintf(away, sizeof(away), "%s/away", f->dir);
    fixture_start(f);
    hsm_on_state(f->hsm, on_state, &told);
    assert_int_equal(rename(tokens, away), 0);
    for (size_t i = 0; i < 4; i++)
        (void)kill(fixture_worker(f, i), SIGKILL);
    fixture_await(f, HSM_DOWN);
    assert_int_equal(rename(away, tokens), 0);
    fixture_await(f, HSM_READY);
    while (atomic_load(&told.ready) == 0 && clock_mono_us() < until)
        fixture_pause();
    assert_int_equal(atomic_load(&told.down), 1);
    assert_int_equal(atomic_load(&told.ready), 1);
    fixture_stop(f); /* told is on this stack */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(pool__survives_killed_workers_under_load),
        TEST(pool__survives_killed_workers_that_do_many_things),
        TEST(pool__makes_alone_what_stands_with_a_deadly_one),
        TEST(pool__makes_alone_what_stands_with_one_that_hangs),
        TEST(pool__says_at_once_what_was_answered),
        TEST(hsm_many__follows_the_speed_of_the_token),
        TEST(pool__kills_a_stopped_worker_and_repeats_the_call),
        TEST(pool__survives_stopped_workers_under_load),
        TEST(pool__survives_stopped_workers_that_do_many_things),
        TEST(pool__keeps_a_worker_whose_caller_left),
        TEST(pool__turns_away_who_finds_the_line_full),
        TEST(pool__roles_do_not_wait_for_each_other),
        TEST(pool__starts_a_killed_tekd_hsm_again),
        TEST(pool__kills_a_tekd_hsm_that_says_nothing),
        TEST(pool__backs_off_when_starts_fail),
        TEST(pool__comes_back_with_the_token),
        TEST(hsm_on_state__tells_lost_and_back_once_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
