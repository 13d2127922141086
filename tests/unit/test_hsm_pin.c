/* PIN sources and the latch; the prompt on a terminal of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_clock.h"
#include "worker/worker.h"

struct place {
    char dir[64];
    char file[96];
    char latch[96];
    struct pin_source source;
};

static int make(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/tekd-pin-test-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    (void)snprintf(p->file, sizeof(p->file), "%s/pin", p->dir);
    (void)snprintf(p->latch, sizeof(p->latch), "%s/latch", p->dir);
    p->source = (struct pin_source){.kind = HSM_PIN_FILE,
                                    .name = p->file,
                                    .latch_file = p->latch,
                                    .token = "pkcs11:token=t",
                                    .module = "/m.so"};
    *state = p;
    return 0;
}

static int unmake(void **state)
{
    struct place *p = *state;

    (void)unlink(p->file);
    (void)unlink(p->latch);
    assert_int_equal(rmdir(p->dir), 0);
    free(p);
    return 0;
}

static void put_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
}

static enum control_pin loaded(const struct place *p, struct pin **ret_pin)
{
    assert_int_equal(pin_new(&p->source, ret_pin), 0);
    pin_load(*ret_pin, -1);
    return pin_state(*ret_pin);
}

static void assert_pin(const struct pin *p, const char *text)
{
    const struct secret *s = pin_peek(p);

    assert_non_null(s);
    assert_int_equal(secret_len(s), strlen(text));
    assert_memory_equal(secret_peek(s), text, strlen(text));
}

/* ---------------------------------------------------------------- the latch -------- */

static void pin_refused__latches_over_restarts_until_the_file_changes(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *first = NULL;
    AUTO(pin) struct pin *second = NULL;
    AUTO(pin) struct pin *third = NULL;
    AUTO(pin) struct pin *fourth = NULL;

    put_file(p->file, "1234\n");
    assert_int_equal(loaded(p, &first), CONTROL_PIN_HAVE);
    assert_pin(first, "1234");
    pin_refused(first, "C_Login: CKR_PIN_INCORRECT");
    assert_int_equal(pin_state(first), CONTROL_PIN_REFUSED);
    assert_null(pin_peek(first));
    assert_int_equal(loaded(p, &second), CONTROL_PIN_REFUSED);
    put_file(p->file, "12345\n");
    assert_int_equal(loaded(p, &third), CONTROL_PIN_HAVE);
    assert_pin(third, "12345");
    pin_accepted(third);
    assert_int_equal(access(p->latch, F_OK), -1);
    assert_int_equal(loaded(p, &fourth), CONTROL_PIN_HAVE);
}

static void pin_refused__is_about_one_token_and_module(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *first = NULL;
    AUTO(pin) struct pin *second = NULL;

    put_file(p->file, "1234");
    assert_int_equal(loaded(p, &first), CONTROL_PIN_HAVE);
    pin_refused(first, "refused");
    p->source.token = "pkcs11:token=other";
    assert_int_equal(loaded(p, &second), CONTROL_PIN_HAVE);
}

/* A latch that cannot be understood is one: a try that should not have been cannot be undone. */
static void pin_load__takes_a_torn_latch_for_one(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *first = NULL;
    AUTO(pin) struct pin *second = NULL;

    put_file(p->file, "1234");
    put_file(p->latch, "");
    assert_int_equal(loaded(p, &first), CONTROL_PIN_REFUSED);
    pin_retry(first, -1);
    assert_int_equal(pin_state(first), CONTROL_PIN_HAVE);
    assert_int_equal(access(p->latch, F_OK), -1);
    assert_int_equal(loaded(p, &second), CONTROL_PIN_HAVE);
}

/* Wherever a kill or a full disk cut the writing short. */
static void pin_load__takes_a_latch_cut_anywhere_for_one(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *first = NULL;
    struct stat st;

    put_file(p->file, "1234");
    assert_int_equal(loaded(p, &first), CONTROL_PIN_HAVE);
    pin_refused(first, "refused");
    assert_int_equal(stat(p->latch, &st), 0);
    for (off_t len = st.st_size; len >= 0; len--) {
        AUTO(pin) struct pin *later = NULL;

        assert_int_equal(truncate(p->latch, len), 0);
        if (loaded(p, &later) != CONTROL_PIN_REFUSED)
            fail_msg("cut to %jd octets it is open", (intmax_t)len);
    }
}

/* All pipes are alike: a PIN that comes through one is asked of the operator. */
static void pin_load__takes_a_torn_latch_for_one_on_a_pipe(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *pin = NULL;
    int fd[2];

    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    assert_int_equal(write(fd[1], "1234", 4), 4);
    assert_int_equal(close(fd[1]), 0);
    p->source.kind = HSM_PIN_FD;
    p->source.name = "";
    put_file(p->latch, "");
    assert_int_equal(pin_new(&p->source, &pin), 0);
    pin_load(pin, fd[0]);
    assert_int_equal(pin_state(pin), CONTROL_PIN_REFUSED);
    pin_retry(pin, fd[0]);
    assert_pin(pin, "1234");
    assert_int_equal(close(fd[0]), 0);
}

/* As the supervisor looks: now, and when the time has passed. */
static bool poll_later(struct pin *pin)
{
    fake_clock_advance(INT64_C(1000) * PIN_POLL_MS);
    return pin_poll(pin);
}

static void pin_poll__waits_until_a_changed_file_has_settled(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *pin = NULL;

    assert_int_equal(loaded(p, &pin), CONTROL_PIN_MISSING);
    assert_false(pin_poll(pin));
    put_file(p->file, "12");
    assert_false(poll_later(pin)); /* seen for the first time */
    put_file(p->file, "1234");
    assert_false(poll_later(pin)); /* changed meanwhile */
    assert_true(poll_later(pin));
    assert_pin(pin, "1234");
    pin_refused(pin, "refused");
    assert_false(poll_later(pin));
    assert_false(poll_later(pin));
    put_file(p->file, "56789");
    assert_false(poll_later(pin));
    assert_true(poll_later(pin));
    assert_pin(pin, "56789");
}

/* It is called whenever something happens, and two of these may come at once. */
static void pin_poll__two_looks_at_once_are_one(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *pin = NULL;

    assert_int_equal(loaded(p, &pin), CONTROL_PIN_MISSING);
    put_file(p->file, "12");
    assert_false(pin_poll(pin));
    fake_clock_advance(INT64_C(1000) * PIN_POLL_MS - 1);
    assert_false(pin_poll(pin));
    fake_clock_advance(1);
    assert_true(pin_poll(pin));
}

static void pin_refresh__reads_a_file_that_changed(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *pin = NULL;
    unsigned before;

    put_file(p->file, "1234");
    assert_int_equal(loaded(p, &pin), CONTROL_PIN_HAVE);
    before = pin_generation(pin);
    assert_true(pin_refresh(pin));
    assert_int_equal(pin_generation(pin), before);
    put_file(p->file, "5");
    assert_pin(pin, "1234");
    assert_false(pin_refresh(pin)); /* it may be half of it */
    put_file(p->file, "567");
    fake_clock_advance(INT64_C(1000) * PIN_POLL_MS);
    assert_false(pin_refresh(pin));
    assert_pin(pin, "1234");
    fake_clock_advance(INT64_C(1000) * PIN_POLL_MS);
    assert_true(pin_refresh(pin));
    assert_pin(pin, "567");
    assert_int_not_equal(pin_generation(pin), before);
    assert_int_equal(unlink(p->file), 0);
    assert_true(pin_refresh(pin)); /* gone: what was read stays */
    assert_pin(pin, "567");
}

static void pin_load__without_a_latch_file_latches_in_memory(void **state)
{
    struct place *p = *state;
    AUTO(pin) struct pin *pin = NULL;

    p->source.latch_file = "";
    put_file(p->file, "1234");
    assert_int_equal(loaded(p, &pin), CONTROL_PIN_HAVE);
    pin_refused(pin, "refused");
    pin_load(pin, -1);
    assert_int_equal(pin_state(pin), CONTROL_PIN_REFUSED);
}

/* ---------------------------------------------------------------- the prompt ------- */

/* In a child on a terminal of its own: 0 the PIN is right, 1 there is none, 2 another; 3 SIGINT. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static _Noreturn void ask(const struct place *p, const char *expected)
{
    const struct secret *s;
    struct pin *pin = NULL;
    pid_t child;
    int status;

    /* ^C is passed on to the parent of who asked. */
    (void)signal(SIGINT, on_interrupt);
    child = fork();
    if (child != 0) {
        while (waitpid(child, &status, 0) < 0)
            ;
        _exit(interrupted ? 3 : WEXITSTATUS(status));
    }
    (void)signal(SIGINT, SIG_IGN);
    if (pin_new(&p->source, &pin) < 0)
        _exit(1);
    pin_load(pin, -1);
    s = pin_peek(pin);
    if (s == NULL)
        _exit(1);
    _exit(secret_len(s) == strlen(expected) &&
                  memcmp(secret_peek(s), expected, strlen(expected)) == 0
              ? 0
              : 2);
}

/* Types keys when it is asked; *ret_shown is all that the terminal showed. */
static int type(const struct place *p, const char *keys, const char *expected, char ret_shown[256])
{
    size_t len = 0;
    int terminal, status;
    bool typed = false;
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);

    assert_true(pid >= 0);
    if (pid == 0)
        ask(p, expected);
    while (len < 255) {
        ssize_t n = read(terminal, ret_shown + len, 255 - len);

        if (n <= 0)
            break;
        len += (size_t)n;
        ret_shown[len] = 0;
        if (!typed && strstr(ret_shown, "PIN: ") != NULL) {
            assert_int_equal(write(terminal, keys, strlen(keys)), (ssize_t)strlen(keys));
            typed = true;
        }
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)close(terminal);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void pin_load__asks_on_the_terminal_without_echo(void **state)
{
    struct place *p = *state;
    char shown[256] = "";

    p->source.kind = HSM_PIN_PROMPT;
    assert_int_equal(type(p, "123\n", "123", shown), 0);
    assert_null(strstr(shown, "123"));
    assert_int_equal(type(p,
                          "12x\177"
                          "3\r",
                          "123", shown),
                     0);                                         /* one rubbed out */
    assert_int_equal(type(p, "12\0254711\n", "4711", shown), 0); /* the line rubbed out */
    assert_int_equal(type(p,
                          "\177\177"
                          "5\n",
                          "5", shown),
                     0);
    assert_int_equal(type(p, "\n", "", shown), 1);
    assert_int_equal(type(p, "12\003", "12", shown), 3);
}

static void pin_load__without_a_terminal_asks_for_retry(void **state)
{
    struct place *p = *state;
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct pin *pin = NULL;

        p->source.kind = HSM_PIN_PROMPT;
        if (setsid() < 0 || pin_new(&p->source, &pin) < 0)
            _exit(2);
        pin_load(pin, -1);
        _exit(pin_state(pin) == CONTROL_PIN_MISSING && strstr(pin_text(pin), "retry") ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)
    const struct CMUnitTest tests[] = {
        TEST(pin_refused__latches_over_restarts_until_the_file_changes),
        TEST(pin_refused__is_about_one_token_and_module),
        TEST(pin_load__takes_a_torn_latch_for_one),
        TEST(pin_load__takes_a_latch_cut_anywhere_for_one),
        TEST(pin_load__takes_a_torn_latch_for_one_on_a_pipe),
        TEST(pin_poll__waits_until_a_changed_file_has_settled),
        TEST(pin_poll__two_looks_at_once_are_one),
        TEST(pin_refresh__reads_a_file_that_changed),
        TEST(pin_load__without_a_latch_file_latches_in_memory),
        TEST(pin_load__asks_on_the_terminal_without_echo),
        TEST(pin_load__without_a_terminal_asks_for_retry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
