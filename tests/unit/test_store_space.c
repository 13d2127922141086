/*
 * Free space, on a volume that says what the test wants: this file's statvfs() takes the place of
 * the C library's.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "store_fixture.h"

#define GIB   (UINT64_C(1) << 30)
#define BLOCK UINT64_C(4096)

/* The store's thread asks. */
static _Atomic uint64_t volume_size, volume_free;
static _Atomic int volume_error;
static char volume_asked[128];

int statvfs(const char *path, struct statvfs *ret)
{
    (void)snprintf(volume_asked, sizeof(volume_asked), "%s", path);
    if (volume_error != 0) {
        errno = volume_error;
        return -1;
    }
    /* What is kept for root is free, and not for us. */
    *ret = (struct statvfs){.f_bsize = 16 * BLOCK,
                            .f_frsize = BLOCK,
                            .f_blocks = volume_size / BLOCK,
                            .f_bfree = volume_free / BLOCK + 1000000,
                            .f_bavail = volume_free / BLOCK};
    return 0;
}

static void open_on(struct fixture *f, uint64_t size, uint64_t is_free)
{
    volume_error = 0;
    volume_size = size;
    volume_free = is_free;
    fixture_open(f);
}

/* The store looks again, with no signature under way: it would be five seconds late. */
static void now_free(struct fixture *f, uint64_t is_free)
{
    struct store_status st;

    store_checkpoint_soon(f->store);
    do
        store_status_get(f->store, &st);
    while (st.signed_size < st.records);
    volume_free = is_free;
    fake_clock_advance(INT64_C(5) * 1000000);
    fixture_turn(f);
}

static unsigned warnings(const char *text)
{
    unsigned n = 0;

    for (const char *at = fixture_log(); (at = strstr(at, text)) != NULL; at++)
        n++;
    return n;
}

/* Warns below this much of this volume, not at it, and once. */
static void assert_warns_below(struct fixture *f, uint64_t size, uint64_t below)
{
    char text[96];

    (void)snprintf(text, sizeof(text), "warn store event=free-space-low octets=%lu warn=%lu",
                   (unsigned long)(below - BLOCK), (unsigned long)below);
    open_on(f, size, below);
    assert_int_equal(warnings("free-space-low"), 0);
    now_free(f, below - BLOCK);
    assert_int_equal(warnings(text), 1);
    now_free(f, below - 2 * BLOCK);
    assert_int_equal(warnings("free-space-low"), 1);
    now_free(f, below);
    now_free(f, below - BLOCK);
    assert_int_equal(warnings(text), 2);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    fixture_close(f);
}

static void look_at_space__warns_below_what_is_set(void **state)
{
    struct fixture *f = *state;

    f->o.free_warn = 3 * GIB;
    assert_warns_below(f, 1000 * GIB, 3 * GIB);
}

static void look_at_space__warns_below_a_part_of_a_large_volume(void **state)
{
    struct fixture *f = *state;

    f->o.free_warn = 2 * GIB;
    f->o.free_warn_percent = 10;
    assert_warns_below(f, 1000 * GIB, 100 * GIB);
}

static void look_at_space__warns_below_the_fixed_amount_of_a_small_volume(void **state)
{
    struct fixture *f = *state;

    f->o.free_warn = 2 * GIB;
    f->o.free_warn_percent = 10;
    assert_warns_below(f, 8 * GIB, 2 * GIB);
}

static void look_at_space__takes_the_more_of_two_that_are_equal(void **state)
{
    struct fixture *f = *state;

    f->o.free_warn = 2 * GIB;
    f->o.free_warn_percent = 10;
    assert_warns_below(f, 20 * GIB, 2 * GIB);
}

static void look_at_space__takes_notice_of_a_volume_that_grew(void **state)
{
    struct fixture *f = *state;

    f->o.free_warn = 2 * GIB;
    f->o.free_warn_percent = 10;
    open_on(f, 8 * GIB, 3 * GIB);
    assert_int_equal(warnings("free-space-low"), 0);
    volume_size = 100 * GIB;
    now_free(f, 3 * GIB);
    assert_int_equal(warnings("warn store event=free-space-low octets=3221225472 warn=10737418"),
                     1);
}

static void look_at_space__refuses_keys_below_stop_until_there_is_space(void **state)
{
    struct fixture *f = *state;
    struct store_status st;
    char reason[HSM_TEXT_MAX];

    f->o.free_warn = 2 * GIB;
    f->o.free_stop = GIB / 2;
    open_on(f, 8 * GIB, GIB / 2);
    assert_string_equal(volume_asked, f->dir);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    now_free(f, GIB / 2 - BLOCK);
    assert_int_equal(warnings("error store event=free-space-low octets=536866816 stop=536870912"),
                     1);
    assert_int_equal(store_ready(f->store, reason), TEKD_EFULL);
    assert_non_null(strstr(reason, "too little free space"));
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), TEKD_EFULL);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:3", 1), 0);
    store_status_get(f->store, &st);
    assert_int_equal(st.free_octets, GIB / 2 - BLOCK);
    now_free(f, GIB / 2);
    assert_int_equal(store_ready(f->store, reason), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:4", 1), 0);
}

static void look_at_space__keeps_what_it_knew_when_it_cannot_see(void **state)
{
    struct fixture *f = *state;
    char reason[HSM_TEXT_MAX];

    f->o.free_stop = GIB;
    open_on(f, 8 * GIB, GIB / 2);
    assert_int_equal(store_ready(f->store, reason), TEKD_EFULL);
    volume_error = EIO;
    now_free(f, 8 * GIB);
    assert_true(fixture_logged("event=free-space-unknown", "errno=EIO"));
    assert_int_equal(store_ready(f->store, reason), TEKD_EFULL);
    volume_error = 0;
    now_free(f, 8 * GIB);
    assert_int_equal(store_ready(f->store, reason), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(look_at_space__warns_below_what_is_set),
        TEST(look_at_space__warns_below_a_part_of_a_large_volume),
        TEST(look_at_space__warns_below_the_fixed_amount_of_a_small_volume),
        TEST(look_at_space__takes_the_more_of_two_that_are_equal),
        TEST(look_at_space__takes_notice_of_a_volume_that_grew),
        TEST(look_at_space__refuses_keys_below_stop_until_there_is_space),
        TEST(look_at_space__keeps_what_it_knew_when_it_cannot_see),
    };

    return cmocka_run_group_tests_name("store_space", tests, NULL, NULL);
}
