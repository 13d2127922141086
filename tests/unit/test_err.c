#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tekd/err.h"

static void tekd_strerror__differs_for_every_code(void **state)
{
    (void)state;
    for (int a = 0; a >= TEKD_EINTERNAL; a--) {
        assert_true(strlen(tekd_strerror(a)) > 0);
        assert_string_not_equal(tekd_strerror(a), "unknown error");
        for (int b = a - 1; b >= TEKD_EINTERNAL; b--)
            assert_string_not_equal(tekd_strerror(a), tekd_strerror(b));
    }
}

static void tekd_strerror__takes_codes_that_are_none(void **state)
{
    const int none[] = {1, TEKD_EINTERNAL - 1, INT_MAX, INT_MIN};

    (void)state;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_string_equal(tekd_strerror(none[i]), "unknown error");
        assert_string_equal(tekd_errname(none[i]), "unknown");
    }
}

static void tekd_errname__is_the_name_in_the_header(void **state)
{
    (void)state;
    assert_string_equal(tekd_errname(TEKD_EAGAIN), "TEKD_EAGAIN");
    assert_string_equal(tekd_errname(TEKD_EFULL), "TEKD_EFULL");
    assert_string_equal(tekd_errname(TEKD_EINTERNAL), "TEKD_EINTERNAL");
    for (int r = -1; r >= TEKD_EINTERNAL; r--)
        assert_memory_equal(tekd_errname(r), "TEKD_E", 6);
}

static void tekd_err_from_errno__says_what_the_caller_can_do(void **state)
{
    static const struct {
        int errnum, code;
    } rows[] = {
        {EAGAIN, TEKD_EAGAIN},      {ETIMEDOUT, TEKD_ETIMEDOUT}, {ENOSPC, TEKD_EFULL},
        {EDQUOT, TEKD_EFULL},       {ENOENT, TEKD_ENOTFOUND},    {EEXIST, TEKD_EEXIST},
        {EACCES, TEKD_EDENIED},     {EPERM, TEKD_EDENIED},       {ENOMEM, TEKD_ENOMEM},
        {EMSGSIZE, TEKD_ETOOBIG},   {EPIPE, TEKD_ECLOSED},       {EINVAL, TEKD_EINVAL},
        {ECONNRESET, TEKD_ECLOSED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(tekd_err_from_errno(rows[i].errnum), rows[i].code);
}

static void tekd_err_from_errno__takes_the_rest_for_a_failed_disk(void **state)
{
    (void)state;
    assert_int_equal(tekd_err_from_errno(EIO), TEKD_EIO);
    assert_int_equal(tekd_err_from_errno(INT_MAX), TEKD_EIO);
    assert_int_equal(tekd_err_from_errno(-1), TEKD_EIO);
}

static void tekd_err_from_errno__never_says_success(void **state)
{
    (void)state;
    for (int errnum = -1; errnum < 4096; errnum++)
        assert_true(tekd_err_from_errno(errnum) < 0);
    assert_int_equal(tekd_err_from_errno(0), TEKD_EINTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tekd_strerror__differs_for_every_code),
        cmocka_unit_test(tekd_strerror__takes_codes_that_are_none),
        cmocka_unit_test(tekd_errname__is_the_name_in_the_header),
        cmocka_unit_test(tekd_err_from_errno__says_what_the_caller_can_do),
        cmocka_unit_test(tekd_err_from_errno__takes_the_rest_for_a_failed_disk),
        cmocka_unit_test(tekd_err_from_errno__never_says_success),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
