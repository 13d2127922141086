#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tekd/buf.h"
#include "tekd/err.h"

static void buf_new__is_empty_text(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(1, &b), 0);
    assert_int_equal(buf_len(b), 0);
    assert_string_equal(buf_str(b), "");
    assert_non_null(buf_data(b));
    assert_int_equal(buf_error(b), 0);
}

static void buf_free__takes_null(void **state)
{
    (void)state;
    buf_free(NULL);
}

static void buf_append__fills_to_the_limit_and_no_further(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(5, &b), 0);
    assert_int_equal(buf_append(b, "abc", 3), 0);
    assert_int_equal(buf_append(b, "de", 2), 0);
    assert_int_equal(buf_append(b, NULL, 0), 0);
    assert_string_equal(buf_str(b), "abcde");
    assert_int_equal(buf_append(b, "f", 1), TEKD_ETOOBIG);
    assert_string_equal(buf_str(b), "abcde");
    assert_int_equal(buf_len(b), 5);
    assert_int_equal(buf_error(b), TEKD_ETOOBIG);
}

static void buf_append__takes_nothing_after_an_error(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(5, &b), 0);
    assert_int_equal(buf_puts(b, "abc"), 0);
    assert_int_equal(buf_puts(b, "too long"), TEKD_ETOOBIG);
    assert_int_equal(buf_putc(b, 'd'), TEKD_ETOOBIG);
    assert_int_equal(buf_printf(b, "%d", 1), TEKD_ETOOBIG);
    assert_int_equal(buf_put_u8(b, 1), TEKD_ETOOBIG);
    assert_null(buf_reserve(b, 1));
    assert_string_equal(buf_str(b), "abc");
}

static void buf_append__refuses_a_length_that_would_wrap(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(100, &b), 0);
    assert_int_equal(buf_puts(b, "abc"), 0);
    assert_int_equal(buf_append(b, "x", SIZE_MAX), TEKD_ETOOBIG);
    assert_int_equal(buf_append(b, "x", SIZE_MAX - 2), TEKD_ETOOBIG);
    assert_string_equal(buf_str(b), "abc");
}

static void buf_append__keeps_the_octets_while_growing(void **state)
{
    const size_t max = 100003; /* no power of two: the last step is the short one */
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(max, &b), 0);
    for (size_t i = 0; i < max; i++)
        assert_int_equal(buf_putc(b, (char)(i % 251)), 0);
    assert_int_equal(buf_len(b), max);
    for (size_t i = 0; i < max; i++)
        assert_int_equal(buf_data(b)[i], (uint8_t)(i % 251));
    assert_int_equal(buf_data(b)[max], 0);
    assert_int_equal(buf_putc(b, 'x'), TEKD_ETOOBIG);
}

static void buf_reset__clears_the_error(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(3, &b), 0);
    assert_int_equal(buf_puts(b, "abcd"), TEKD_ETOOBIG);
    buf_reset(b);
    assert_int_equal(buf_error(b), 0);
    assert_int_equal(buf_puts(b, "abc"), 0);
    buf_reset(b);
    assert_string_equal(buf_str(b), "");
    assert_int_equal(buf_len(b), 0);
}

static void buf_truncate__leaves_text(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(10, &b), 0);
    buf_truncate(b, 0);
    assert_int_equal(buf_puts(b, "abcdef"), 0);
    buf_truncate(b, 2);
    assert_string_equal(buf_str(b), "ab");
    assert_int_equal(buf_putc(b, 'z'), 0);
    assert_string_equal(buf_str(b), "abz");
}

static void buf_printf__writes_all_or_nothing(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(8, &b), 0);
    assert_int_equal(buf_printf(b, "%s=%d", "a", 12), 0);
    assert_int_equal(buf_printf(b, "%04x", 0xbeefu), 0);
    assert_string_equal(buf_str(b), "a=12beef");
    assert_int_equal(buf_printf(b, "%s", ""), 0);
    assert_int_equal(buf_printf(b, "%d", 1), TEKD_ETOOBIG);
    assert_string_equal(buf_str(b), "a=12beef");
}

static void buf_printf__grows_as_far_as_needed(void **state)
{
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(5000, &b), 0);
    assert_int_equal(buf_printf(b, "%4999d", 7), 0);
    assert_int_equal(buf_len(b), 4999);
    assert_int_equal(buf_str(b)[4998], '7');
    assert_int_equal(buf_str(b)[4999], '\0');
}

static void buf_reserve__gives_room_that_commit_takes(void **state)
{
    AUTO(buf) struct buf *b = NULL;
    uint8_t *p;

    (void)state;
    assert_int_equal(buf_new(1000, &b), 0);
    assert_int_equal(buf_puts(b, "ab"), 0);
    p = buf_reserve(b, 998);
    assert_non_null(p);
    memset(p, 'x', 998);
    buf_commit(b, 3);
    assert_string_equal(buf_str(b), "abxxx");
    p = buf_reserve(b, 1);
    assert_non_null(p);
    buf_commit(b, 0);
    assert_string_equal(buf_str(b), "abxxx");
    assert_null(buf_reserve(b, 996));
    assert_int_equal(buf_error(b), TEKD_ETOOBIG);
    assert_string_equal(buf_str(b), "abxxx");
}

static void buf_put__is_big_endian(void **state)
{
    static const uint8_t want[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
                                   0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0xff};
    AUTO(buf) struct buf *b = NULL;

    (void)state;
    assert_int_equal(buf_new(sizeof(want), &b), 0);
    assert_int_equal(buf_put_u16(b, 0x0102), 0);
    assert_int_equal(buf_put_u32(b, 0x03040506), 0);
    assert_int_equal(buf_put_u64(b, 0x0708090a0b0c0d0e), 0);
    assert_int_equal(buf_put_u8(b, 0xff), 0);
    assert_int_equal(buf_len(b), sizeof(want));
    assert_memory_equal(buf_data(b), want, sizeof(want));
    assert_int_equal(buf_put_u16(b, 1), TEKD_ETOOBIG);
}

static void view__reads_what_buf_put_wrote(void **state)
{
    AUTO(buf) struct buf *b = NULL;
    struct view v;

    (void)state;
    assert_int_equal(buf_new(100, &b), 0);
    buf_put_u8(b, 0xfe);
    buf_put_u16(b, 0xfedc);
    buf_put_u32(b, 0xfedcba98);
    buf_put_u64(b, 0xfedcba9876543210);
    buf_puts(b, "abc");
    v = view_of(buf_data(b), buf_len(b));
    assert_int_equal(view_u8(&v), 0xfe);
    assert_int_equal(view_u16(&v), 0xfedc);
    assert_int_equal(view_u32(&v), 0xfedcba98);
    assert_true(view_u64(&v) == 0xfedcba9876543210);
    assert_memory_equal(view_octets(&v, 3), "abc", 3);
    assert_int_equal(view_end(&v), 0);
}

static void view__stays_failed_after_a_read_past_the_end(void **state)
{
    static const uint8_t data[] = {1, 2, 3};
    struct view v = view_of(data, sizeof(data));

    (void)state;
    assert_int_equal(view_u32(&v), 0);
    assert_int_equal(view_u8(&v), 0); /* there would be an octet */
    assert_null(view_octets(&v, 1));
    assert_null(view_octets(&v, 0));
    assert_int_equal(view_end(&v), TEKD_EFORMAT);
}

static void view_octets__refuses_a_length_beyond_the_end(void **state)
{
    static const uint8_t data[] = {1, 2, 3};
    struct view v = view_of(data, sizeof(data));

    (void)state;
    assert_null(view_octets(&v, SIZE_MAX));
    assert_int_equal(view_end(&v), TEKD_EFORMAT);
    v = view_of(data, sizeof(data));
    assert_null(view_octets(&v, 4));
    v = view_of(data, sizeof(data));
    assert_ptr_equal(view_octets(&v, 3), data);
    assert_ptr_equal(view_octets(&v, 0), data + 3);
    assert_int_equal(view_end(&v), 0);
}

static void view_end__refuses_what_is_left_over(void **state)
{
    static const uint8_t data[] = {1, 2};
    struct view v = view_of(data, sizeof(data));

    (void)state;
    assert_int_equal(view_u8(&v), 1);
    assert_int_equal(view_end(&v), TEKD_EFORMAT);
    assert_int_equal(view_u8(&v), 2);
    assert_int_equal(view_end(&v), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_new__is_empty_text),
        cmocka_unit_test(buf_free__takes_null),
        cmocka_unit_test(buf_append__fills_to_the_limit_and_no_further),
        cmocka_unit_test(buf_append__takes_nothing_after_an_error),
        cmocka_unit_test(buf_append__refuses_a_length_that_would_wrap),
        cmocka_unit_test(buf_append__keeps_the_octets_while_growing),
        cmocka_unit_test(buf_reset__clears_the_error),
        cmocka_unit_test(buf_truncate__leaves_text),
        cmocka_unit_test(buf_printf__writes_all_or_nothing),
        cmocka_unit_test(buf_printf__grows_as_far_as_needed),
        cmocka_unit_test(buf_reserve__gives_room_that_commit_takes),
        cmocka_unit_test(buf_put__is_big_endian),
        cmocka_unit_test(view__reads_what_buf_put_wrote),
        cmocka_unit_test(view__stays_failed_after_a_read_past_the_end),
        cmocka_unit_test(view_octets__refuses_a_length_beyond_the_end),
        cmocka_unit_test(view_end__refuses_what_is_left_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
