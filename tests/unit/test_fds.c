/* Programs that were started without standard descriptors; each case in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fds_hold_standard__leaves_no_number_for_a_file),
        cmocka_unit_test(fds_hold_standard__leaves_what_is_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
