/* PINs: tried once, latched over restarts, taken up again when the source changes. */
#include "hsm_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/err.h"
#include "tekd/secret.h"

#define WRONG "0815-not-it"

static void pin_of(const char *s, struct secret **ret_pin)
{
    assert_int_equal(secret_new(strlen(s), ret_pin), 0);
    memcpy(secret_get(*ret_pin), s, strlen(s));
}

static void assert_refused(struct fixture *f, const char *what)
{
    struct hsm_status st;

    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.state, HSM_PIN_REFUSED);
    assert_int_equal(st.error, TEKD_EPIN);
    if (strstr(st.reason, what) == NULL)
        fail_msg("the reason is \"%s\"", st.reason);
}

/* ---------------------------------------------------------------- the latch -------- */

static void login__tries_a_refused_pin_once_over_three_restarts(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    struct stat st;

    fixture_spy(f);
    fixture_write_pin(f, WRONG);
    assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
    assert_refused(f, "CKR_PIN_INCORRECT");
    f->storage.use = HSM_KEK_STORAGE;
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, NULL, fixture_in(10), &got), TEKD_EHSM);
    assert_int_equal(fixture_count(f, ": C_Login"), 1);
    assert_int_equal(stat(f->latch_file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_false(fixture_file_has(f->latch_file, WRONG));
    for (size_t i = 0; i < 3; i++) {
        fixture_stop(f);
        assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
        assert_refused(f, "refused before");
    }
    assert_int_equal(fixture_count(f, ": C_Login"), 1);
    /* Not even the module is loaded for a PIN that must not be tried. */
    assert_int_equal(fixture_count(f, ": C_Initialize"), 1);
}

static void login__tries_a_changed_file_by_itself(void **state)
{
    struct fixture *f = *state;

    fixture_write_pin(f, WRONG);
    assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
    fixture_write_pin(f, FIXTURE_PIN "\n");
    fixture_await(f, HSM_READY);
    assert_int_equal(access(f->latch_file, F_OK), -1);
}

static void login__tries_a_changed_file_after_a_restart(void **state)
{
    struct fixture *f = *state;

    fixture_write_pin(f, WRONG);
    assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
    fixture_stop(f);
    fixture_write_pin(f, FIXTURE_PIN);
    assert_int_equal(fixture_start_any(f), HSM_READY);
    fixture_stop(f);
    assert_int_equal(fixture_start_any(f), HSM_READY);
}

static void login__latches_on_a_second_wrong_pin(void **state)
{
    struct fixture *f = *state;

    fixture_spy(f);
    fixture_write_pin(f, WRONG);
    assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
    fixture_stop(f);
    fixture_write_pin(f, WRONG "2");
    assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
    fixture_stop(f);
    assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
    assert_int_equal(fixture_count(f, ": C_Login"), 2);
}

static void hsm_retry__tries_the_source_once_more(void **state)
{
    struct fixture *f = *state;
    AUTO(secret) struct secret *pin = NULL;

    fixture_spy(f);
    fixture_write_pin(f, WRONG);
    assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
    pin_of(FIXTURE_PIN, &pin);
    assert_int_equal(hsm_retry(f->hsm, pin), TEKD_EINVAL); /* the file is the source */
    assert_int_equal(hsm_retry(f->hsm, NULL), 0);
    assert_int_equal(hsm_wait(f->hsm, fixture_in(20)), 0);
    assert_refused(f, "CKR_PIN_INCORRECT");
    assert_int_equal(fixture_count(f, ": C_Login"), 2);
}

/* The PIN was changed in the HSM while workers are logged in: one try, and the rest serve on. */
static void login__refusal_leaves_the_others_serving(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    struct hsm_status st;

    fixture_spy(f);
    fixture_start(f);
    (void)fixture_worker(f, 1);
    assert_int_equal(fixture_count(f, ": C_Login"), 4);
    fixture_write_pin(f, WRONG);
    assert_int_equal(kill(fixture_worker(f, 0), SIGKILL), 0);
    do {
        fixture_pause();
        hsm_status_get(f->hsm, &st);
    } while (st.error != TEKD_EPIN);
    assert_int_equal(st.state, HSM_READY);
    assert_false(st.worker[0].ready);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(10), &got), 0);
    assert_int_equal(fixture_count(f, ": C_Login"), 5);
    fixture_write_pin(f, FIXTURE_PIN);
    (void)fixture_worker(f, 0);
}

/* ---------------------------------------------------------------- sources ---------- */

static void login__waits_for_a_file_that_is_not_there(void **state)
{
    struct fixture *f = *state;
    struct hsm_status st;

    assert_int_equal(unlink(f->pin_file), 0);
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.error, TEKD_EPIN);
    assert_non_null(strstr(st.reason, "hsm.pin"));
    fixture_write_pin(f, FIXTURE_PIN);
    fixture_await(f, HSM_READY);
}

static void login__refuses_a_file_that_others_may_read(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(chmod(f->pin_file, 0644), 0);
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    assert_int_equal(chmod(f->pin_file, 0600), 0);
    fixture_await(f, HSM_READY);
}

static void login__takes_a_credential(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", f->dir, 1), 0);
    f->options.pin_source = HSM_PIN_CREDENTIAL;
    f->options.pin = "hsm.pin";
    assert_int_equal(fixture_start_any(f), HSM_READY);
    fixture_stop(f);
    f->options.pin = "../hsm.pin";
    assert_int_equal(fixture_start_any(f), HSM_DOWN);
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
}

static void give_by_pipe(struct fixture *f, const char *pin)
{
    int pair[2];

    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    assert_int_equal(write(pair[1], pin, strlen(pin)), (ssize_t)strlen(pin));
    (void)close(pair[1]);
    f->options.pin_source = HSM_PIN_FD;
    f->options.pin = NULL;
    f->options.pin_fd = pair[0];
}

static void login__takes_a_descriptor_once(void **state)
{
    struct fixture *f = *state;
    AUTO(secret) struct secret *pin = NULL;
    struct hsm_status st;
    int parent;

    give_by_pipe(f, FIXTURE_PIN "\n");
    assert_int_equal(fixture_start_any(f), HSM_READY);
    (void)close(f->options.pin_fd);
    parent = fixture_parent(f);
    /* The PIN dies with tekd-hsm; recycling would have needed nobody. */
    assert_int_equal(kill(parent, SIGKILL), 0);
    fixture_await(f, HSM_DOWN);
    hsm_status_get(f->hsm, &st);
    assert_string_equal(st.reason, "PIN needed: tekctl hsm retry");
    assert_int_equal(hsm_retry(f->hsm, NULL), TEKD_EINVAL);
    pin_of(FIXTURE_PIN, &pin);
    assert_int_equal(hsm_retry(f->hsm, pin), 0);
    assert_int_equal(hsm_wait(f->hsm, fixture_in(20)), 0);
    fixture_await(f, HSM_READY);
}

static void login__latches_a_descriptor_until_retry(void **state)
{
    struct fixture *f = *state;
    AUTO(secret) struct secret *pin = NULL;

    fixture_spy(f);
    for (size_t i = 0; i < 3; i++) {
        give_by_pipe(f, WRONG);
        assert_int_equal(fixture_start_any(f), HSM_PIN_REFUSED);
        (void)close(f->options.pin_fd);
        if (i < 2)
            fixture_stop(f);
    }
    assert_int_equal(fixture_count(f, ": C_Login"), 1);
    pin_of(FIXTURE_PIN, &pin);
    assert_int_equal(hsm_retry(f->hsm, pin), 0);
    assert_int_equal(hsm_wait(f->hsm, fixture_in(20)), 0);
    fixture_await(f, HSM_READY);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(login__tries_a_refused_pin_once_over_three_restarts),
        TEST(login__tries_a_changed_file_by_itself),
        TEST(login__tries_a_changed_file_after_a_restart),
        TEST(login__latches_on_a_second_wrong_pin),
        TEST(hsm_retry__tries_the_source_once_more),
        TEST(login__refusal_leaves_the_others_serving),
        TEST(login__waits_for_a_file_that_is_not_there),
        TEST(login__refuses_a_file_that_others_may_read),
        TEST(login__takes_a_credential),
        TEST(login__takes_a_descriptor_once),
        TEST(login__latches_a_descriptor_until_retry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
