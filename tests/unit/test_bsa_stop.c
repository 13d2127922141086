/* SIGTERM and SIGINT as something to look at. */
#include "bsa.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>

#include <cmocka.h>

#include "bsa_server.h"

static void stop_wait__sees_either_signal(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        AUTO(stop) struct stop *s = NULL;

        assert_int_equal(stop_new(&s), 0);
        assert_false(stop_wait(s, 0));
        assert_int_equal(raise(signals[i]), 0);
        assert_true(stop_wait(s, 0));
        assert_true(stop_wait(s, 300000)); /* and at once */
        bsa_server_forget_signals();
    }
}

/* Whoever polls it is woken too, and nobody takes it from the others. */
static void stop_fd__stays_readable(void **state)
{
    AUTO(stop) struct stop *s = NULL;
    struct pollfd p = {.events = POLLIN};

    (void)state;
    assert_int_equal(stop_new(&s), 0);
    p.fd = stop_fd(s);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_int_equal(raise(SIGTERM), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(poll(&p, 1, 0), 1);
    bsa_server_forget_signals();
}

static void *wait_long(void *arg)
{
    return stop_wait(arg, 300000) ? arg : NULL;
}

static void stop_wait__wakes_other_threads(void **state)
{
    AUTO(stop) struct stop *s = NULL;
    void *woken = NULL;
    pthread_t thread;

    (void)state;
    assert_int_equal(stop_new(&s), 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_long, s), 0);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    assert_int_equal(pthread_join(thread, &woken), 0);
    assert_ptr_equal(woken, s);
    bsa_server_forget_signals();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_wait__sees_either_signal),
        cmocka_unit_test(stop_fd__stays_readable),
        cmocka_unit_test(stop_wait__wakes_other_threads),
    };

    return cmocka_run_group_tests_name("bsa_stop", tests, NULL, NULL);
}
