/* Starts, ends and replacements; what a worker refuses; tekd-hsm by hand. */
#include "hsm_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/pool.h"
#include "control.h"
#include "protocol.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"

extern char **environ;

/* ---------------------------------------------------------------- recycling -------- */

#define RECYCLE 40

static void pool__replaces_workers_without_a_gap(void **state)
{
    struct fixture *f = *state;
    int first[3];
    struct hsm_issued got;
    struct hsm_status st;
    unsigned calls = 0;

    f->options.recycle_after = RECYCLE;
    fixture_start(f);
    for (size_t i = 0; i < 2; i++)
        first[i] = fixture_worker(f, i);
    /* One caller is served by the first worker that is free, so both get their share when one of
     * them is away; the point is that no call fails meanwhile. */
    do {
        assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(10), &got), 0);
        hsm_status_get(f->hsm, &st);
        calls++;
        assert_true(calls < 100 * RECYCLE);
    } while (st.worker[0].restarts < 3);
    assert_true(calls >= RECYCLE);
    fixture_await_gone(first[0]); /* the old one logs out and ends */
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.worker[0].failures, 0);
    assert_int_equal(st.state, HSM_READY);
    assert_true(fixture_alive(first[1]));
}

static void pool__replaces_signers_too(void **state)
{
    const uint8_t digest[32] = {7};
    struct fixture *f = *state;
    struct hsm_signature sig;
    struct hsm_status st;
    int first;

    f->options.recycle_after = RECYCLE;
    fixture_start(f);
    first = fixture_worker(f, 3);
    do {
        assert_int_equal(hsm_sign_tls(f->hsm, digest, sizeof(digest), fixture_in(10), &sig), 0);
        hsm_status_get(f->hsm, &st);
    } while (st.worker[3].pid == first);
    fixture_await_gone(first);
}

static void pool__keeps_idle_links_alive(void **state)
{
    struct fixture *f = *state;
    int64_t until = fixture_in(20);
    struct hsm_status st;

    f->options.keepalive_s = 1;
    fixture_start(f);
    do {
        fixture_pause();
        hsm_status_get(f->hsm, &st);
        assert_true(clock_mono_us() < until);
    } while (st.worker[1].calls < 2 || st.worker[2].calls < 2 || st.worker[3].calls < 2);
    for (size_t i = 0; i < st.n_workers; i++)
        assert_int_equal(st.worker[i].failures, 0);
}

/* An idle worker that hangs is found by its keep-alive, not by a caller. */
static void pool__finds_hung_idle_workers(void **state)
{
    struct fixture *f = *state;
    int pid;

    f->options.keepalive_s = 1;
    f->options.timeout_ms = 300;
    fixture_start(f);
    pid = fixture_worker(f, 3);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    fixture_await_gone(pid);
    assert_int_not_equal(fixture_worker(f, 3), pid);
}

/* ---------------------------------------------------------------- the end ---------- */

static void hsm_free__ends_every_process(void **state)
{
    struct fixture *f = *state;
    int pid[5];

    fixture_start(f);
    for (size_t i = 0; i < 4; i++)
        pid[i] = fixture_worker(f, i);
    pid[4] = fixture_parent(f);
    assert_int_equal(kill(pid[1], SIGSTOP), 0); /* cannot log out: killed */
    fixture_stop(f);
    for (size_t i = 0; i < 5; i++)
        assert_false(fixture_alive(pid[i]));
}

struct caller {
    struct fixture *f;
    atomic_int result;
};

static void *call_once(void *arg)
{
    struct caller *c = arg;
    struct hsm_issued got;

    atomic_store(&c->result,
                 hsm_issue(c->f->hsm, 128, &c->f->storage, &c->f->bsa, fixture_in(30), &got));
    return NULL;
}

/* Until so many calls are inside the pool; there is no public way to see that. */
static void await_calls(struct fixture *f, unsigned n)
{
    unsigned inside;

    do {
        fixture_pause();
        (void)pthread_mutex_lock(&f->hsm->lock);
        inside = f->hsm->n_calls;
        (void)pthread_mutex_unlock(&f->hsm->lock);
    } while (inside < n);
}

static void hsm_free__ends_calls_under_way(void **state)
{
    struct fixture *f = *state;
    struct caller c[3] = {{f, 1}, {f, 1}, {f, 1}};
    pthread_t thread[3];

    f->options.workers = 1;
    f->options.timeout_ms = 30000;
    fixture_start(f);
    assert_int_equal(kill(fixture_worker(f, 0), SIGSTOP), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, call_once, &c[i]), 0);
    await_calls(f, 3);
    fixture_stop(f);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_int_equal(atomic_load(&c[i].result), TEKD_ECLOSED);
    }
}

static void workers__die_with_the_server(void **state)
{
    struct fixture *f = *state;
    int pids[5];
    int pair[2];
    pid_t child;

    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fixture_start(f);
        for (size_t i = 0; i < 4; i++)
            pids[i] = fixture_worker(f, i);
        pids[4] = fixture_parent(f);
        if (write(pair[1], pids, sizeof(pids)) != sizeof(pids))
            _exit(1);
        (void)pause();
        _exit(1);
    }
    (void)close(pair[1]);
    assert_int_equal(read(pair[0], pids, sizeof(pids)), sizeof(pids));
    (void)close(pair[0]);
    for (size_t i = 0; i < 5; i++)
        assert_true(fixture_alive(pids[i]));
    assert_int_equal(kill(pids[2], SIGSTOP), 0);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    for (size_t i = 0; i < 5; i++)
        fixture_await_gone(pids[i]);
}

/* A terminal's ^C and a service manager's SIGTERM reach all processes: they wait for the pool. */
static void workers__outlive_signals_that_end_the_server(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
    struct fixture *f = *state;
    struct hsm_issued got;
    int pid[2];

    f->options.workers = 1;
    fixture_start(f);
    pid[0] = fixture_worker(f, 0);
    pid[1] = fixture_parent(f);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        (void)kill(pid[0], signals[i]);
        (void)kill(pid[1], signals[i]);
    }
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(10), &got), 0);
    assert_int_equal(fixture_worker(f, 0), pid[0]);
    assert_int_equal(fixture_parent(f), pid[1]);
}

/* ---------------------------------------------------------------- the start -------- */

static void hsm_new__refuses_bad_options(void **state)
{
    struct fixture *f = *state;
    const struct hsm_options good = f->options;

    f->options.workers = 0;
    assert_int_equal(hsm_new(&f->options, &f->hsm), TEKD_EINVAL);
    f->options.workers = HSM_WORKERS_MAX + 1;
    assert_int_equal(hsm_new(&f->options, &f->hsm), TEKD_EINVAL);
    f->options = good;
    f->options.timeout_ms = 49;
    assert_int_equal(hsm_new(&f->options, &f->hsm), TEKD_EINVAL);
    f->options = good;
    f->options.pin = NULL;
    assert_int_equal(hsm_new(&f->options, &f->hsm), TEKD_EINVAL);
    f->options = good;
    f->options.tls_key = NULL;
    assert_int_equal(hsm_new(&f->options, &f->hsm), TEKD_EINVAL);
    f->options = good;
    f->options.program = "/nonexistent/tekd-hsm";
    assert_int_equal(hsm_new(&f->options, &f->hsm), TEKD_EIO);
    f->options = good;
    f->env[0] = "NO_VALUE";
    assert_int_equal(hsm_new(&f->options, &f->hsm), TEKD_EINVAL);
    assert_null(f->hsm);
}

static void hsm_new__reports_what_is_no_module(void **state)
{
    struct fixture *f = *state;
    struct hsm_status st;

    f->options.module = "/lib/x86_64-linux-gnu/libc.so.6";
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.error, TEKD_EINVAL);
    assert_non_null(strstr(st.reason, "C_GetFunctionList"));
}

static void hsm_new__reports_a_missing_signing_key(void **state)
{
    struct fixture *f = *state;
    struct hsm_status st;

    f->options.checkpoint_key = "nothing";
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.error, TEKD_ENOTFOUND);
    assert_non_null(strstr(st.reason, "nothing"));
}

static void hsm_new__reports_a_token_without_ed25519(void **state)
{
    struct fixture *f = *state;
    struct hsm_status st;

    fixture_shim(f, "no-eddsa");
    f->options.ed25519_key = FIXTURE_ED25519;
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.error, TEKD_ENOTFOUND);
    assert_non_null(strstr(st.reason, FIXTURE_ED25519));
    assert_non_null(strstr(st.reason, "CKM_EDDSA"));
}

static void hsm_new__reports_a_key_before_that_is_not_there(void **state)
{
    struct fixture *f = *state;
    struct hsm_status st;
    struct hsm *none = NULL;

    f->options.checkpoint_key_before = "of-last-year";
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.error, TEKD_ENOTFOUND);
    assert_non_null(strstr(st.reason, "of-last-year"));
    fixture_stop(f);
    f->options.checkpoint_key_before = NULL;
    f->options.ed25519_key_before = FIXTURE_ED25519; /* of nothing */
    assert_int_equal(hsm_new(&f->options, &none), TEKD_EINVAL);
    f->options.ed25519_key_before = NULL;
}

/* ---------------------------------------------------------------- by hand ---------- */

static int run_by_hand(const char *argument)
{
    char *argv[] = {TEST_TEKD_HSM, (char *)(uintptr_t)argument, NULL};
    posix_spawn_file_actions_t a;
    pid_t pid;
    int status;

    assert_int_equal(posix_spawn_file_actions_init(&a), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&a, 1, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&a, 2, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawn_file_actions_addclosefrom_np(&a, 3), 0);
    assert_int_equal(posix_spawn(&pid, TEST_TEKD_HSM, &a, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&a);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void tekd_hsm__refuses_to_be_started_by_hand(void **state)
{
    (void)state;
    assert_int_equal(run_by_hand(NULL), 2);
    assert_int_equal(run_by_hand("--nonsense"), 2);
    assert_int_equal(run_by_hand("--help"), 0);
    assert_int_equal(run_by_hand("--version"), 0);
}

/* ---------------------------------------------------------------- roles ------------ */

/* A pool of the test's own, to say what the real one does not. */
struct bare {
    pid_t pid;
    int control;
    int worker;
    struct buf *out;
    uint8_t in[CONTROL_MAX];
};

static void bare_start_on(struct bare *b, const struct fixture *f, const char *module)
{
    char *argv[] = {TEST_TEKD_HSM, NULL};
    struct control_message m = {.kind = CONTROL_CONFIGURE};
    posix_spawn_file_actions_t a;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(posix_spawn_file_actions_init(&a), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&a, pair[1], 100), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&a, 100, CONTROL_FD), 0);
    assert_int_equal(posix_spawn_file_actions_addclosefrom_np(&a, CONTROL_FD + 1), 0);
    assert_int_equal(posix_spawn(&b->pid, TEST_TEKD_HSM, &a, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&a);
    (void)close(pair[1]);
    b->control = pair[0];
    assert_int_equal(buf_new(CONTROL_MAX, &b->out), 0);
    m.configure = (struct control_configure){.module = module,
                                             .token = FIXTURE_TOKEN,
                                             .checkpoint_key = "checkpoint-1",
                                             .tls_key = "tls-1",
                                             .pin_source = HSM_PIN_FILE,
                                             .pin = f->pin_file,
                                             .start_timeout_ms =
                                                 strcmp(module, TEST_SOFTHSM) == 0 ? 10000 : 300,
                                             .n_env = 1,
                                             .env = {f->env_conf}};
    assert_int_equal(control_send(b->control, b->out, &m, -1), 0);
}

static void bare_start(struct bare *b, const struct fixture *f)
{
    bare_start_on(b, f, TEST_SOFTHSM);
}

/* Waits for this kind of message; others are passed over. */
static void bare_await(struct bare *b, enum control_kind kind, struct control_message *m)
{
    int64_t until = fixture_in(20);
    int fd = -1;

    do {
        int r = control_receive(b->control, b->in, m, &fd);

        assert_true(r == 0 || r == TEKD_EAGAIN);
        assert_true(clock_mono_us() < until);
        if (r == TEKD_EAGAIN)
            fixture_pause();
        if (r == 0 && m->kind == kind)
            return;
    } while (true);
}

static void bare_spawn(struct bare *b, uint32_t id, enum protocol_role role)
{
    struct control_message m = {.kind = CONTROL_SPAWN, .id = id};
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    m.role = role;
    assert_int_equal(control_send(b->control, b->out, &m, pair[1]), 0);
    (void)close(pair[1]);
    if (b->worker >= 0)
        (void)close(b->worker);
    b->worker = pair[0];
}

static void bare_worker(struct bare *b, enum protocol_role role)
{
    struct control_message m;

    bare_spawn(b, 7, role);
    bare_await(b, CONTROL_READY, &m);
    assert_int_equal(m.id, 7);
}

/* The error of the worker's reply to these octets. */
static int bare_ask(struct bare *b, const void *octets, size_t len, struct protocol_reply *reply)
{
    uint8_t in[PROTOCOL_MAX];
    ssize_t n;

    assert_int_equal(send(b->worker, octets, len, MSG_NOSIGNAL), (ssize_t)len);
    n = recv(b->worker, in, sizeof(in), 0);
    assert_true(n > 0);
    assert_int_equal(protocol_get_reply(in, (size_t)n, reply), 0);
    return reply->error;
}

static int bare_verb(struct bare *b, struct protocol_request *rq)
{
    struct protocol_reply reply;
    int r;

    rq->id = 99;
    assert_int_equal(protocol_put_request(b->out, rq), 0);
    r = bare_ask(b, buf_data(b->out), buf_len(b->out), &reply);
    assert_int_equal(reply.id, 99);
    assert_int_equal(reply.verb, rq->verb);
    return r;
}

static void bare_stop(struct bare *b)
{
    int status;

    (void)close(b->worker);
    (void)close(b->control);
    b->worker = -1;
    assert_int_equal(waitpid(b->pid, &status, 0), b->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    buf_free(b->out);
}

static void worker__serves_the_verbs_of_its_role_only(void **state)
{
    struct fixture *f = *state;
    struct protocol_request issue = {
        .verb = PROTOCOL_ISSUE,
        .issue = {.bits = 128, .storage = {.label = "x", .use = 1, .wrap = 1}}};
    struct protocol_request tls = {.verb = PROTOCOL_SIGN_TLS, .digest = {.len = 32}};
    struct protocol_request key = {.verb = PROTOCOL_PUBLIC_KEY};
    struct protocol_request health = {.verb = PROTOCOL_HEALTH};
    struct protocol_request with_kek = health;
    struct bare b = {.worker = -1};

    with_kek.health = issue.issue.storage;
    bare_start(&b, f);
    bare_worker(&b, PROTOCOL_ROLE_TLS);
    assert_int_equal(bare_verb(&b, &issue), TEKD_EDENIED);
    assert_int_equal(bare_verb(&b, &with_kek), TEKD_EDENIED);
    assert_int_equal(bare_verb(&b, &tls), 0);
    assert_int_equal(bare_verb(&b, &key), 0);
    assert_int_equal(bare_verb(&b, &health), 0);
    bare_stop(&b);

    bare_start(&b, f);
    bare_worker(&b, PROTOCOL_ROLE_AUDIT);
    assert_int_equal(bare_verb(&b, &issue), TEKD_EDENIED);
    assert_int_equal(bare_verb(&b, &tls), TEKD_EDENIED); /* no digest of the caller's choice */
    assert_int_equal(bare_verb(&b, &key), 0);
    bare_stop(&b);

    bare_start(&b, f);
    bare_worker(&b, PROTOCOL_ROLE_KEY);
    assert_int_equal(bare_verb(&b, &tls), TEKD_EDENIED);
    assert_int_equal(bare_verb(&b, &issue), TEKD_ENOTFOUND);
    bare_stop(&b);
}

static void worker__refuses_malformed_requests_and_goes_on(void **state)
{
    struct fixture *f = *state;
    struct protocol_request health = {.verb = PROTOCOL_HEALTH, .id = 5};
    struct protocol_reply reply;
    uint8_t octets[64];
    struct bare b = {.worker = -1};
    size_t len;

    bare_start(&b, f);
    bare_worker(&b, PROTOCOL_ROLE_KEY);
    assert_int_equal(protocol_put_request(b.out, &health), 0);
    len = buf_len(b.out);
    memcpy(octets, buf_data(b.out), len);
    octets[len] = 0;
    assert_int_equal(bare_ask(&b, octets, len + 1, &reply), TEKD_EFORMAT);
    assert_int_equal(reply.id, 5);
    assert_int_equal(bare_ask(&b, octets, len - 1, &reply), TEKD_EFORMAT);
    assert_int_equal(bare_ask(&b, octets, len, &reply), 0);
    for (size_t i = 0; i < PROTOCOL_MANY_MAX; i++)
        assert_int_equal(protocol_add_request(b.out, &health), 0); /* and the one that is there */
    assert_int_equal(bare_ask(&b, buf_data(b.out), buf_len(b.out), &reply), TEKD_EFORMAT);
    assert_int_equal(reply.id, 5);
    assert_int_equal(bare_ask(&b, octets, len, &reply), 0);
    bare_stop(&b);
}

/* The end of a worker and that of the pool seen in the same moment: there is nobody to wait for. */
static void supervisor__waits_for_no_worker_that_has_ended(void **state)
{
    struct fixture *f = *state;
    struct control_message m;
    struct bare b = {.worker = -1};
    int64_t begin;
    int pid, status;

    bare_start(&b, f);
    bare_spawn(&b, 1, PROTOCOL_ROLE_KEY);
    bare_await(&b, CONTROL_FORKED, &m);
    pid = m.pid;
    bare_await(&b, CONTROL_READY, &m);
    assert_int_equal(kill(b.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(b.pid, &status, WUNTRACED), b.pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(kill(pid, SIGKILL), 0);
    fixture_await_gone(pid);
    (void)shutdown(b.control, SHUT_WR);
    begin = clock_mono_us();
    assert_int_equal(kill(b.pid, SIGCONT), 0);
    bare_stop(&b);
    assert_true(clock_mono_us() - begin <
                1900000); /* what workers that do not end are given: 2 s */
}

/* One after the other: a PIN that the token has come to refuse would be tried once only. */
static void supervisor__kills_a_start_that_hangs_and_then_starts_the_next(void **state)
{
    struct fixture *f = *state;
    struct control_message m;
    struct bare b = {.worker = -1};
    int pid;

    bare_start_on(&b, f, TEST_HANG_MODULE);
    bare_spawn(&b, 1, PROTOCOL_ROLE_KEY);
    bare_spawn(&b, 2, PROTOCOL_ROLE_KEY);
    bare_await(&b, CONTROL_FORKED, &m);
    assert_int_equal(m.id, 1);
    pid = m.pid;
    do
        bare_await(&b, CONTROL_EXITED, &m);
    while (m.id != 1);
    assert_int_equal(m.ended.error, TEKD_EHSM);
    assert_non_null(strstr(m.ended.text, "hung"));
    assert_false(fixture_alive(pid));
    bare_await(&b, CONTROL_FORKED, &m);
    assert_int_equal(m.id, 2);
    bare_stop(&b); /* the second one too */
    assert_false(fixture_alive(m.pid));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(pool__replaces_workers_without_a_gap),
        TEST(pool__replaces_signers_too),
        TEST(pool__keeps_idle_links_alive),
        TEST(pool__finds_hung_idle_workers),
        TEST(hsm_free__ends_every_process),
        TEST(hsm_free__ends_calls_under_way),
        TEST(workers__die_with_the_server),
        TEST(workers__outlive_signals_that_end_the_server),
        TEST(hsm_new__refuses_bad_options),
        TEST(hsm_new__reports_what_is_no_module),
        TEST(hsm_new__reports_a_missing_signing_key),
        TEST(hsm_new__reports_a_token_without_ed25519),
        TEST(hsm_new__reports_a_key_before_that_is_not_there),
        cmocka_unit_test(tekd_hsm__refuses_to_be_started_by_hand),
        TEST(supervisor__waits_for_no_worker_that_has_ended),
        TEST(supervisor__kills_a_start_that_hangs_and_then_starts_the_next),
        TEST(worker__serves_the_verbs_of_its_role_only),
        TEST(worker__refuses_malformed_requests_and_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
