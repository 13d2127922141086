/* Programs that were started without standard descriptors; each case in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tekd/err.h"
#include "tekd/fds.h"

/* Exit status 0: what is asked for was seen. */
static void assert_in_child(int (*child)(void))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int without_any(void)
{
    char octet = 0;

    for (int fd = 0; fd < 3; fd++)
        (void)close(fd);
    if (fds_hold_standard() != 0)
        return 1;
    if (read(0, &octet, 1) != -1 || errno != EBADF)
        return 2;
    for (int fd = 1; fd < 3; fd++) {
        if (write(fd, &octet, 1) != -1 || errno != EBADF)
            return 3;
    }
    return open("/dev/null", O_RDONLY | O_CLOEXEC) > 2 ? 0 : 4;
}

static void fds_hold_standard__leaves_no_number_for_a_file(void **state)
{
    (void)state;
    assert_in_child(without_any);
}

static int with_a_pipe(void)
{
    int fds[2];
    char octet = 0;

    (void)close(0);
    if (pipe(fds) < 0 || fds[0] != 0 || dup2(fds[1], 1) != 1 || close(2) < 0)
        return 1;
    if (fds_hold_standard() != 0)
        return 2;
    return write(1, "x", 1) == 1 && read(0, &octet, 1) == 1 && octet == 'x' ? 0 : 3;
}

static void fds_hold_standard__leaves_what_is_open(void **state)
{
    (void)state;
    assert_in_child(with_a_pipe);
}

/* More than a pipe takes at once, while signals come that no call is made anew after. */
static int into_a_pipe(void)
{
    static char sent[300000];
    char octets[4096];
    size_t seen = 0;
    int fds[2];
    pid_t reader;
    ssize_t n;
    int status;

    memset(sent, 'x', sizeof(sent));
    if (pipe(fds) < 0 || (reader = fork()) < 0)
        return 1;
    if (reader == 0) {
        (void)close(fds[1]);
        while ((n = read(fds[0], octets, sizeof(octets))) > 0) {
            seen += (size_t)n;
            (void)kill(getppid(), SIGUSR1);
        }
        _exit(n == 0 && seen == sizeof(sent) ? 0 : 1);
    }
    (void)close(fds[0]);
    status = fds_write(fds[1], sent, sizeof(sent));
    (void)close(fds[1]);
    if (status != 0)
        return 2;
    while (waitpid(reader, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static void nothing(int sig)
{
    (void)sig;
}

static int into_a_pipe_with_signals(void)
{
    const struct sigaction a = {.sa_handler = nothing};

    return sigaction(SIGUSR1, &a, NULL) < 0 ? 4 : into_a_pipe();
}

static void fds_write__writes_all_of_it(void **state)
{
    (void)state;
    assert_in_child(into_a_pipe_with_signals);
}

static void fds_write__says_why_not(void **state)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(fds_write(fd, "x", 1), TEKD_EIO);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(fds_write(fd, "", 0), 0);
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fds_write__writes_all_of_it),
        cmocka_unit_test(fds_write__says_why_not),
        cmocka_unit_test(fds_hold_standard__leaves_no_number_for_a_file),
        cmocka_unit_test(fds_hold_standard__leaves_what_is_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
