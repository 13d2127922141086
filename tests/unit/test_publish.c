/*
 * When what is published, and what is said of it: a publisher of the tests', with its turns taken
 * by the test.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "store_fixture.h"

struct place {
    struct fixture *f;
    struct publish all;
    struct publisher x;
    unsigned calls;
    struct publication last;
    const char *fails; /* NULL: it does not */
};

static struct place *place; /* of the test under way */

static int publish(struct publisher *self, const struct publication *n,
                   char why[static PUBLISH_WHY_MAX])
{
    assert_ptr_equal(self, &place->x);
    place->calls++;
    place->last = *n;
    if (place->fails)
        (void)snprintf(why, PUBLISH_WHY_MAX, "%s", place->fails);
    return place->fails ? TEKD_EIO : 0;
}

static int set_up(void **state)
{
    void *f = NULL;

    assert_int_equal(fixture_setup(&f), 0);
    place = calloc(1, sizeof(*place));
    assert_non_null(place);
    place->f = f;
    fixture_open(place->f);
    place->all = (struct publish){.store = place->f->store,
                                  .interval_s = 60,
                                  .publisher = {&place->x},
                                  .n = 1,
                                  .lock = PTHREAD_MUTEX_INITIALIZER};
    place->x = (struct publisher){.name = "test",
                                  .publish = publish,
                                  .all = &place->all,
                                  .status = {.name = "test", .to = "nowhere"}};
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    void *f = p->f;

    free(p);
    return fixture_teardown(&f);
}

/* Something new under a checkpoint, and the status says so. */
static void sign_more(struct place *p)
{
    assert_int_equal(probe_run(p->f, STORE_SIGNED, NULL, 1), 0);
    fixture_turn(p->f);
}

static struct publish_status status_of(struct place *p)
{
    struct publish_status s[PUBLISH_MAX];

    assert_int_equal(publish_status_get(&p->all, s), 1);
    return s[0];
}

/* For how long the publisher waits behind this turn, in seconds. */
static int64_t turn(struct place *p)
{
    int64_t now_us = clock_mono_us();

    publisher_turn(&p->x);
    return (p->x.due_us - now_us + SECOND_US - 1) / SECOND_US;
}

/* ---- what is published ----------------------------------------------------------------------- */

static void publisher_turn__publishes_the_newest_note_once(void **state)
{
    struct place *p = *state;
    struct store_status s;
    struct publish_status told;

    sign_more(p);
    assert_int_equal(turn(p), 60);
    assert_int_equal(p->calls, 1);
    store_status_get(p->f->store, &s);
    assert_int_equal(p->last.note.size, s.signed_size);
    assert_int_equal(p->last.epoch, 1);
    assert_int_equal(strlen(p->last.text), p->last.len);
    assert_memory_equal(p->last.text, "bsm.example/tekd/audit/1\n", 25);
    assert_int_equal(turn(p), 60);
    assert_int_equal(p->calls, 1);
    sign_more(p);
    (void)turn(p);
    assert_int_equal(p->calls, 2);
    told = status_of(p);
    assert_int_equal(told.size, p->last.note.size);
    assert_int_equal(told.epoch, 1);
    assert_true(told.published_utc_us > 0);
    assert_int_equal(told.failures, 0);
}

static void publisher_turn__publishes_the_next_epoch_from_its_first_size_on(void **state)
{
    struct place *p = *state;

    sign_more(p);
    p->x.status.epoch = 1; /* as if it had been at another size */
    p->x.status.size = 1000000;
    (void)turn(p);
    assert_int_equal(p->calls, 0);
    p->x.status.epoch = 0;
    (void)turn(p);
    assert_int_equal(p->calls, 1);
}

/* ---- failures -------------------------------------------------------------------------------- */

static void publisher_turn__tries_again_with_pauses_that_double(void **state)
{
    static const int64_t most[] = {60, 120, 240, 480, 900, 900};
    struct place *p = *state;

    sign_more(p);
    p->fails = "nobody there";
    for (size_t i = 0; i < ARRAY_SIZE(most); i++) {
        int64_t wait_s = turn(p);
        assert_true(wait_s <= most[i] && wait_s >= most[i] * 3 / 4);
    }
    assert_int_equal(p->calls, ARRAY_SIZE(most));
    assert_int_equal(status_of(p).failures, ARRAY_SIZE(most));
    assert_string_equal(status_of(p).why, "nobody there");
    assert_int_equal(status_of(p).size, 0);
}

static void publisher_turn__is_not_hasty_where_the_interval_is_long(void **state)
{
    struct place *p = *state;
    int64_t wait_s;

    p->all.interval_s = 3600;
    sign_more(p);
    p->fails = "nobody there";
    (void)turn(p);
    wait_s = turn(p);
    assert_true(wait_s <= 3600 && wait_s >= 2700);
}

/* How often the log says that it failed. */
static unsigned warnings(void)
{
    unsigned n = 0;

    for (const char *at = fixture_log(); (at = strstr(at, "warn publish event=failed")); at++)
        n++;
    return n;
}

static void publisher_turn__warns_when_it_begins_changes_and_each_hour(void **state)
{
    struct place *p = *state;

    sign_more(p);
    p->fails = "nobody there";
    (void)turn(p);
    (void)turn(p);
    assert_int_equal(warnings(), 1);
    assert_true(fixture_logged("why=\"nobody there\"", "by=test to=nowhere"));
    p->fails = "somebody there";
    (void)turn(p);
    (void)turn(p);
    assert_int_equal(warnings(), 2);
    fake_clock_advance(PUBLISH_WARN_S * SECOND_US);
    (void)turn(p);
    assert_int_equal(warnings(), 3);
    assert_true(fixture_logged("why=\"somebody there\"", "failures=5"));
}

static void publisher_turn__says_when_it_works_again(void **state)
{
    struct place *p = *state;

    sign_more(p);
    (void)turn(p);
    assert_false(fixture_logged("event=works-again", "by=test"));
    sign_more(p);
    p->fails = "nobody there";
    (void)turn(p);
    assert_true(status_of(p).failing_utc_us > 0);
    p->fails = NULL;
    assert_int_equal(turn(p), 60);
    assert_true(fixture_logged("info publish event=works-again", "by=test"));
    assert_int_equal(status_of(p).failures, 0);
    assert_int_equal(status_of(p).failing_utc_us, 0);
    assert_string_equal(status_of(p).why, "");
}

static void publish_status_get__has_nothing_of_nobody(void **state)
{
    struct publish_status s[PUBLISH_MAX];

    (void)state;
    assert_int_equal(publish_status_get(NULL, s), 0);
    publish_stop(NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(publisher_turn__publishes_the_newest_note_once),
        TEST(publisher_turn__publishes_the_next_epoch_from_its_first_size_on),
        TEST(publisher_turn__tries_again_with_pauses_that_double),
        TEST(publisher_turn__is_not_hasty_where_the_interval_is_long),
        TEST(publisher_turn__warns_when_it_begins_changes_and_each_hour),
        TEST(publisher_turn__says_when_it_works_again),
        cmocka_unit_test(publish_status_get__has_nothing_of_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
