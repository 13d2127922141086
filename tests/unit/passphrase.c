#include "passphrase.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <unistd.h>

void passphrase_offer(void)
{
    int offered[2];

    (void)setsid(); /* without a terminal, if there was one */
    assert_int_equal(pipe2(offered, O_CLOEXEC), 0);
    assert_int_equal(write(offered[1], "secret\n", 7), 7);
    assert_int_equal(close(offered[1]), 0);
    assert_int_equal(dup2(offered[0], STDIN_FILENO), STDIN_FILENO);
    assert_int_equal(close(offered[0]), 0);
}
