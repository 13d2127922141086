#include "tekd/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "tekd/auto.h"
#include "tekd/err.h"

static void net_listen__takes_any_free_port(void **state)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    AUTO_FD int fd = -1;
    AUTO_FD int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint16_t port = 0;

    (void)state;
    assert_int_equal(net_listen("127.0.0.1", 0, &fd, &port), 0);
    assert_int_not_equal(port, 0);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    to.sin_port = htons(port);
    assert_int_equal(connect(client, (struct sockaddr *)&to, sizeof(to)), 0);
}

static void net_listen__says_that_a_port_is_in_use(void **state)
{
    AUTO_FD int first = -1;
    int second = -7;
    uint16_t port = 0, same = 7;

    (void)state;
    assert_int_equal(net_listen("127.0.0.1", 0, &first, &port), 0);
    errno = 0;
    assert_int_equal(net_listen("127.0.0.1", port, &second, &same), TEKD_EIO);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(second, -7);
    assert_int_equal(same, 7);
}

static void net_listen__takes_numbers_only(void **state)
{
    static const char *const addresses[] = {"localhost", "127.0.0.1 ", "1.2.3.256", "no such"};
    uint16_t port;
    int fd = -7;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
        assert_int_equal(net_listen(addresses[i], 0, &fd, &port), TEKD_EINVAL);
    assert_int_equal(fd, -7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(net_listen__takes_any_free_port),
        cmocka_unit_test(net_listen__says_that_a_port_is_in_use),
        cmocka_unit_test(net_listen__takes_numbers_only),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
