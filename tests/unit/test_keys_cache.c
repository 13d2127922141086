#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "internal.h"

#define CONTENTS 4
#define EXPORTS  3

static int set_up(void **state)
{
    struct cache *c = NULL;

    assert_int_equal(cache_new(CONTENTS, EXPORTS, &c), 0);
    *state = c;
    return 0;
}

static int tear_down(void **state)
{
    cache_free(*state);
    return 0;
}

static struct key_entry entry(int64_t tek)
{
    struct key_entry e = {.content = 10 + tek, .bits = 128, .tek = tek, .storage_kek = 1};

    e.stored.len = 24;
    memset(e.stored.octets, (int)tek, 24);
    memset(e.key_id, (int)tek + 1, sizeof(e.key_id));
    return e;
}

static void put(struct cache *c, const char *content, int64_t tek)
{
    struct key_entry e = entry(tek);

    cache_put(c, content, &e);
}

static int64_t tek_of(struct cache *c, const char *content)
{
    struct key_entry e;

    return cache_get(c, content, &e) ? e.tek : -1;
}

static void cache_get__gives_what_was_put(void **state)
{
    struct key_entry put = entry(7), got;

    memset(&got, 0xff, sizeof(got));
    cache_put(*state, "urn:a", &put);
    assert_true(cache_get(*state, "urn:a", &got));
    assert_int_equal(got.content, put.content);
    assert_int_equal(got.bits, put.bits);
    assert_int_equal(got.tek, put.tek);
    assert_int_equal(got.storage_kek, put.storage_kek);
    assert_memory_equal(got.key_id, put.key_id, sizeof(got.key_id));
    assert_int_equal(got.stored.len, 24);
    assert_memory_equal(got.stored.octets, put.stored.octets, 24);
    assert_false(cache_get(*state, "urn:A", &got));
    assert_false(cache_get(*state, "urn:", &got));
    assert_false(cache_get(*state, "urn:aa", &got));
}

static void cache_put__replaces(void **state)
{
    put(*state, "urn:a", 1);
    put(*state, "urn:a", 2);
    assert_int_equal(tek_of(*state, "urn:a"), 2);
}

static void cache_put__takes_the_longest_wrap_and_content(void **state)
{
    char content[STORE_CONTENT_MAX + 1];
    struct key_entry e = entry(1), got;

    memset(content, 'c', STORE_CONTENT_MAX);
    content[STORE_CONTENT_MAX] = '\0';
    e.stored.len = HSM_WRAPPED_MAX;
    memset(e.stored.octets, 0xa5, HSM_WRAPPED_MAX);
    cache_put(*state, content, &e);
    assert_true(cache_get(*state, content, &got));
    assert_int_equal(got.stored.len, HSM_WRAPPED_MAX);
    assert_memory_equal(got.stored.octets, e.stored.octets, HSM_WRAPPED_MAX);
}

static void cache_put__forgets_what_was_longest_not_asked_for(void **state)
{
    put(*state, "a", 1);
    put(*state, "b", 2);
    put(*state, "c", 3);
    put(*state, "d", 4);
    assert_int_equal(tek_of(*state, "a"), 1); /* so b is the oldest */
    put(*state, "e", 5);
    assert_int_equal(tek_of(*state, "b"), -1);
    assert_int_equal(tek_of(*state, "a"), 1);
    assert_int_equal(tek_of(*state, "c"), 3);
    assert_int_equal(tek_of(*state, "d"), 4);
    assert_int_equal(tek_of(*state, "e"), 5);
    put(*state, "a", 6); /* in place of its own, not of another one */
    assert_int_equal(tek_of(*state, "c"), 3);
}

static void cache_drop__forgets_one(void **state)
{
    put(*state, "a", 1);
    put(*state, "b", 2);
    cache_drop(*state, "a");
    cache_drop(*state, "none");
    assert_int_equal(tek_of(*state, "a"), -1);
    assert_int_equal(tek_of(*state, "b"), 2);
}

static void put_export(struct cache *c, int64_t tek, int64_t kek, uint8_t octet)
{
    struct hsm_blob b = {.len = 40};

    memset(b.octets, octet, b.len);
    cache_put_export(c, tek, kek, &b);
}

static int export_of(struct cache *c, int64_t tek, int64_t kek)
{
    struct hsm_blob b = {.len = 0};

    if (!cache_get_export(c, tek, kek, &b))
        return -1;
    assert_int_equal(b.len, 40);
    assert_int_equal(b.octets[39], b.octets[0]);
    return b.octets[0];
}

static void cache_get_export__goes_by_tek_and_kek(void **state)
{
    put_export(*state, 1, 2, 12);
    put_export(*state, 2, 1, 21);
    assert_int_equal(export_of(*state, 1, 2), 12);
    assert_int_equal(export_of(*state, 2, 1), 21);
    assert_int_equal(export_of(*state, 1, 1), -1);
    put_export(*state, 1, 2, 13);
    assert_int_equal(export_of(*state, 1, 2), 13);
}

static void cache_put_export__forgets_what_was_longest_not_asked_for(void **state)
{
    put_export(*state, 1, 1, 1);
    put_export(*state, 2, 1, 2);
    put_export(*state, 3, 1, 3);
    assert_int_equal(export_of(*state, 1, 1), 1);
    put_export(*state, 4, 1, 4);
    assert_int_equal(export_of(*state, 2, 1), -1);
    assert_int_equal(export_of(*state, 1, 1), 1);
    assert_int_equal(export_of(*state, 3, 1), 3);
    assert_int_equal(export_of(*state, 4, 1), 4);
}

static void cache_drop_kek__forgets_what_was_wrapped_under_it(void **state)
{
    cache_drop_kek(*state, 1); /* there is nothing */
    put_export(*state, 1, 1, 11);
    put_export(*state, 1, 2, 12);
    put_export(*state, 2, 1, 21);
    cache_drop_kek(*state, 3);
    assert_int_equal(export_of(*state, 1, 1), 11);
    cache_drop_kek(*state, 1);
    assert_int_equal(export_of(*state, 1, 1), -1);
    assert_int_equal(export_of(*state, 2, 1), -1);
    assert_int_equal(export_of(*state, 1, 2), 12);
    cache_drop_kek(*state, 2);
    assert_int_equal(export_of(*state, 1, 2), -1);
}

static void *hammer(void *arg)
{
    char content[16];

    for (int i = 0; i < 2000; i++) {
        (void)snprintf(content, sizeof(content), "%d", i % 7);
        put(arg, content, i % 7);
        if (tek_of(arg, content) > 7 || export_of(arg, i % 5, 1) > 5)
            abort();
        put_export(arg, i % 5, 1, (uint8_t)(i % 5));
        cache_drop(arg, content);
        cache_drop_kek(arg, i % 2);
    }
    return NULL;
}

static void cache__is_for_any_threads(void **state)
{
    pthread_t thread[4];

    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hammer, *state), 0);
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        (void)pthread_join(thread[i], NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cache_get__gives_what_was_put),
        TEST(cache_put__replaces),
        TEST(cache_put__takes_the_longest_wrap_and_content),
        TEST(cache_put__forgets_what_was_longest_not_asked_for),
        TEST(cache_drop__forgets_one),
        TEST(cache_get_export__goes_by_tek_and_kek),
        TEST(cache_put_export__forgets_what_was_longest_not_asked_for),
        TEST(cache_drop_kek__forgets_what_was_wrapped_under_it),
        TEST(cache__is_for_any_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
