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
#include "tekd/err.h"

static int set_up(void **state)
{
    struct registry *r = NULL;

    assert_int_equal(registry_new(&r), 0);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    registry_free(*state);
    return 0;
}

static void fill(uint8_t sha256[static 32], unsigned n)
{
    memset(sha256, 0, 32);
    memcpy(sha256, &n, sizeof(n));
}

/* A BSA with certificates first, and first + 1 if there are two; 0: none. */
static struct store_bsa *row(int64_t number, const char *id, unsigned first, size_t n_certs)
{
    struct store_bsa *b = NULL;

    assert_int_equal(store_bsa_new(&b), 0);
    b->row = number;
    (void)snprintf(b->id, sizeof(b->id), "%s", id);
    b->enabled = true;
    b->n_certs = n_certs;
    for (size_t i = 0; i < n_certs; i++)
        fill(b->cert[i], first + (unsigned)i);
    return b;
}

/* The ID of who has this certificate, "" if nobody. */
static const char *owner(struct registry *r, unsigned cert)
{
    static char id[STORE_ID_MAX + 1];
    uint8_t sha256[32];
    struct bsa_state *s;

    fill(sha256, cert);
    s = registry_by_cert(r, sha256);
    (void)snprintf(id, sizeof(id), "%s", s ? s->row->id : "");
    bsa_state_unref(s);
    return id;
}

static void registry_by__finds_by_certificate_and_id(void **state)
{
    struct bsa_state *s;

    assert_int_equal(registry_put(*state, row(1, "bsa-1", 10, 2)), 0);
    assert_int_equal(registry_put(*state, row(2, "bsa-2", 20, 1)), 0);
    assert_int_equal(registry_count(*state), 2);
    assert_string_equal(owner(*state, 10), "bsa-1");
    assert_string_equal(owner(*state, 11), "bsa-1");
    assert_string_equal(owner(*state, 20), "bsa-2");
    assert_string_equal(owner(*state, 21), "");
    s = registry_by_id(*state, "bsa-2");
    assert_non_null(s);
    assert_int_equal(s->row->row, 2);
    bsa_state_unref(s);
    assert_null(registry_by_id(*state, "bsa-3"));
    assert_null(registry_by_id(*state, "BSA-2"));
    assert_null(registry_by_id(*state, ""));
}

static void registry_put__replaces_certificates(void **state)
{
    assert_int_equal(registry_put(*state, row(1, "bsa-1", 10, 2)), 0);
    assert_int_equal(registry_put(*state, row(1, "bsa-1", 11, 2)), 0);
    assert_string_equal(owner(*state, 10), "");
    assert_string_equal(owner(*state, 11), "bsa-1");
    assert_string_equal(owner(*state, 12), "bsa-1");
    assert_int_equal(registry_put(*state, row(1, "bsa-1", 0, 0)), 0);
    assert_string_equal(owner(*state, 11), "");
    assert_int_equal(registry_count(*state), 1);
    /* And another BSA may have them then. */
    assert_int_equal(registry_put(*state, row(2, "bsa-2", 11, 1)), 0);
    assert_string_equal(owner(*state, 11), "bsa-2");
    assert_int_equal(registry_put(*state, row(1, "bsa-1", 30, 1)), 0);
    assert_string_equal(owner(*state, 11), "bsa-2");
}

static void registry_put__makes_older_states_stale(void **state)
{
    struct bsa_state *before, *after, *other;

    assert_int_equal(registry_put(*state, row(1, "bsa-1", 10, 1)), 0);
    assert_int_equal(registry_put(*state, row(2, "bsa-2", 20, 1)), 0);
    before = registry_by_id(*state, "bsa-1");
    other = registry_by_id(*state, "bsa-2");
    assert_true(bsa_state_current(before));
    assert_int_equal(registry_put(*state, row(1, "bsa-1", 10, 1)), 0);
    after = registry_by_id(*state, "bsa-1");
    assert_false(bsa_state_current(before));
    assert_true(bsa_state_current(after));
    assert_true(bsa_state_current(other));
    assert_ptr_equal(before->bsa, after->bsa);
    /* What is held is still there to read. */
    assert_string_equal(before->row->id, "bsa-1");
    bsa_state_unref(before);
    bsa_state_unref(after);
    bsa_state_unref(other);
    bsa_state_unref(NULL);
}

static void registry_put__an_enrolment_taken_back_is_nobody(void **state)
{
    struct bsa_state *s;

    assert_int_equal(registry_put(*state, row(7, "bsa-1", 10, 1)), 0);
    assert_int_equal(registry_put(*state, row(0, "bsa-1", 0, 0)), 0);
    assert_string_equal(owner(*state, 10), "");
    registry_count_content(*state, 7);
    assert_int_equal(registry_put(*state, row(8, "bsa-1", 10, 1)), 0);
    assert_string_equal(owner(*state, 10), "bsa-1");
    registry_count_content(*state, 8);
    s = registry_by_id(*state, "bsa-1");
    assert_int_equal(s->bsa->auto_contents, 1);
    bsa_state_unref(s);
}

static void registry_count_content__goes_by_row(void **state)
{
    struct bsa_state *s;

    assert_int_equal(registry_put(*state, row(1, "bsa-1", 10, 1)), 0);
    assert_int_equal(registry_put(*state, row(2, "bsa-2", 20, 1)), 0);
    registry_count_content(*state, 2);
    registry_count_content(*state, 2);
    registry_count_content(*state, 3);
    s = registry_by_id(*state, "bsa-2");
    assert_int_equal(s->bsa->auto_contents, 2);
    bsa_state_unref(s);
    s = registry_by_id(*state, "bsa-1");
    assert_int_equal(s->bsa->auto_contents, 0);
    bsa_state_unref(s);
}

/* At the limit no BSA can be added, and every one can still be changed: disabled, above all. */
static void registry_put__changes_go_on_at_the_limit(void **state)
{
    struct store_bsa *changed;
    struct bsa_state *s;
    char id[32];

    for (unsigned i = 0; i < KEYS_BSAS_MAX; i++) {
        (void)snprintf(id, sizeof(id), "bsa-%u", i);
        assert_int_equal(registry_put(*state, row(i + 1, id, 2 * i + 2, 1)), 0);
    }
    assert_int_equal(registry_put(*state, row(99999, "one more", 1, 1)), TEKD_ETOOBIG);
    assert_string_equal(owner(*state, 1), "");
    assert_null(registry_by_id(*state, "one more"));
    changed = row(1, "bsa-0", 2, 1);
    changed->enabled = false;
    assert_int_equal(registry_put(*state, changed), 0);
    s = registry_by_id(*state, "bsa-0");
    assert_false(s->row->enabled);
    bsa_state_unref(s);
    assert_int_equal(registry_count(*state), KEYS_BSAS_MAX);
}

static void *look_often(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        uint8_t sha256[32];
        struct bsa_state *s;

        fill(sha256, 10);
        s = registry_by_cert(arg, sha256);
        if (!s || strcmp(s->row->id, "bsa-1") != 0 || !s->row->enabled)
            abort();
        (void)bsa_state_current(s);
        bsa_state_unref(s);
    }
    return NULL;
}

static void registry_put__while_others_look(void **state)
{
    pthread_t thread[3];

    assert_int_equal(registry_put(*state, row(1, "bsa-1", 10, 1)), 0);
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, look_often, *state), 0);
    for (int i = 0; i < 500; i++)
        assert_int_equal(registry_put(*state, row(1, "bsa-1", 10, 2)), 0);
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        (void)pthread_join(thread[i], NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registry_by__finds_by_certificate_and_id),
        TEST(registry_put__replaces_certificates),
        TEST(registry_put__makes_older_states_stale),
        TEST(registry_put__an_enrolment_taken_back_is_nobody),
        TEST(registry_count_content__goes_by_row),
        TEST(registry_put__changes_go_on_at_the_limit),
        TEST(registry_put__while_others_look),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
