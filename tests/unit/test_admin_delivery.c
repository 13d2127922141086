/* The commands about deliveries, over the admin socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "admin_fixture.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define CONTENT "urn:example:news"

/* ---- helpers --------------------------------------------------------------------------------- */

/* A request about one delivery, and its result. */
static json_t *about(struct admin_test *t, const char *command, const char *mid)
{
    char request[256];

    (void)snprintf(request, sizeof(request), "{\"command\":\"%s\",\"message\":\"%s\"}\n", command,
                   mid);
    return admin_test_result(t, request);
}

static void about_fails(struct admin_test *t, const char *command, const char *mid,
                        const char *code)
{
    char request[256];

    (void)snprintf(request, sizeof(request), "{\"command\":\"%s\",\"message\":\"%s\"}\n", command,
                   mid);
    admin_test_error(t, request, code, "");
}

/* Has one made for each of these (a JSON array); the Message ID of the first. */
static void deliver(struct admin_test *t, const char *bsas, char ret_mid[static STORE_MID_LEN + 1])
{
    char request[512];
    json_t *r;

    (void)snprintf(request, sizeof(request),
                   "{\"command\":\"deliver\",\"content\":\"" CONTENT "\",\"bsas\":%s}\n", bsas);
    r = admin_test_result(t, request);
    assert_true(json_array_size(r) > 0);
    (void)snprintf(ret_mid, STORE_MID_LEN + 1, "%s", json_string_value(json_array_get(r, 0)));
    assert_int_equal(strlen(ret_mid), STORE_MID_LEN);
    json_decref(r);
}

static void add_content(struct admin_test *t)
{
    json_decref(
        admin_test_result(t, "{\"command\":\"content add\",\"content\":\"" CONTENT "\"}\n"));
}

/* What the push service does to a row. */
struct step {
    const char *mid;
    const char *event;
    enum store_delivery_state state;
    const char *why;
};

static int apply_step(void *arg, struct store_tx *tx)
{
    const struct step *x = arg;
    struct store_delivery d;
    struct record *rec = NULL;

    assert_int_equal(store_tx_delivery_find(tx, x->mid, strlen(x->mid), &d), 0);
    d.state = x->state;
    d.attempts++;
    (void)snprintf(d.why, sizeof(d.why), "%s", x->why);
    assert_int_equal(record_new(x->event, &rec), 0);
    record_ref(rec, "ref", d.epoch, d.seq);
    record_str(rec, "mid", d.mid);
    record_str(rec, "peer", "bsa-1");
    record_str(rec, "addr", "192.0.2.9:443");
    assert_int_equal(store_tx_record(tx, rec, NULL), 0);
    return store_tx_delivery_update(tx, &d);
}

static void step(struct admin_test *t, const char *mid, const char *event,
                 enum store_delivery_state state, const char *why)
{
    struct step x = {.mid = mid, .event = event, .state = state, .why = why};

    assert_int_equal(store_call(t->s->store, STORE_DURABLE, apply_step, &x), 0);
}

static int apply_record(void *arg, struct store_tx *tx)
{
    return store_tx_record(tx, arg, NULL);
}

static void put_record(struct admin_test *t, struct record *take_r)
{
    assert_int_equal(store_call(t->s->store, STORE_DURABLE, apply_record, take_r), 0);
}

/* ---- deliver --------------------------------------------------------------------------------- */

static void deliver__gives_a_message_id_each(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1];
    uint8_t id[16];
    json_t *r;

    add_content(t);
    r = admin_test_result(t, "{\"command\":\"deliver\",\"content\":\"" CONTENT
                             "\",\"bsas\":[\"bsa-2\",\"bsa-1\"]}\n");
    assert_int_equal(json_array_size(r), 2);
    for (size_t i = 0; i < 2; i++) {
        const char *s = json_string_value(json_array_get(r, i));

        assert_int_equal(enc_uuid_read(s, strlen(s), id), 0);
        assert_int_equal(id[6] >> 4, 7);
    }
    assert_int_equal(service_count(t->s, "delivery.prepared", NULL, NULL), 2);
    json_decref(r);
    /* Without names: to all that are entitled. */
    r = admin_test_result(t, "{\"command\":\"deliver\",\"content\":\"" CONTENT "\"}\n");
    assert_int_equal(json_array_size(r), SERVICE_PEERS);
    json_decref(r);
    deliver(t, "[\"bsa-3\"]", mid);
    r = about(t, "delivery show", mid);
    assert_string_equal(admin_test_str(r, "bsa"), "bsa-3");
    json_decref(r);
}

static void deliver__that_cannot_be_prepares_nothing(void **state)
{
    static const char *const rows[][2] = {
        {"{\"command\":\"deliver\"}\n", "TEKD_EINVAL"},
        {"{\"command\":\"deliver\",\"content\":\"urn:no\",\"bsas\":[\"bsa-1\"]}\n",
         "TEKD_ENOTFOUND"},
        {"{\"command\":\"deliver\",\"content\":\"" CONTENT "\",\"bsas\":[\"bsa-1\",\"none\"]}\n",
         "TEKD_ENOTFOUND"},
        {"{\"command\":\"deliver\",\"content\":\"" CONTENT "\",\"bsas\":[\"bsa-1\",\"bsa-2\"]}\n",
         "TEKD_EDENIED"},
        {"{\"command\":\"deliver\",\"content\":\"" CONTENT "\",\"bsas\":\"bsa-1\"}\n",
         "TEKD_EINVAL"},
    };
    struct admin_test *t = *state;
    json_t *r;

    add_content(t);
    assert_int_equal(service_enable(t->s, &t->s->peer[1], false), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        admin_test_error(t, rows[i][0], rows[i][1], "");
    assert_int_equal(service_count(t->s, "delivery.prepared", NULL, NULL), 0);
    r = admin_test_result(t, "{\"command\":\"delivery list\"}\n");
    assert_int_equal(json_array_size(json_object_get(r, "list")), 0);
    json_decref(r);
}

/* ---- lists ----------------------------------------------------------------------------------- */

static void deliver__that_is_done_in_part_gives_those_message_ids(void **state)
{
    struct admin_test *t = *state;
    json_t *o;

    add_content(t);
    fake_hsm_remove(t->s->hsm, "bsa-2-kek");
    o = admin_test_ask(t, "{\"command\":\"deliver\",\"content\":\"" CONTENT "\"}\n");
    assert_true(json_is_false(json_object_get(o, "ok")));
    assert_non_null(strstr(admin_test_str(o, "error"), "bsa-2"));
    assert_int_equal(json_array_size(json_object_get(o, "result")), SERVICE_PEERS - 1);
    json_decref(o);
}

static void list__has_what_an_operator_asks_for(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1], other[STORE_MID_LEN + 1];
    const json_t *d;
    json_t *r;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    step(t, mid, "delivery.attempt", STORE_DELIVERY_PREPARED, "HTTP 500");
    /* Of one that is disabled too. */
    assert_int_equal(service_enable(t->s, &t->s->peer[0], false), 0);
    deliver(t, "[\"bsa-2\"]", other);
    r = admin_test_result(t, "{\"command\":\"delivery list\"}\n");
    assert_int_equal(json_array_size(json_object_get(r, "list")), 2);
    assert_null(json_object_get(r, "next"));
    d = json_array_get(json_object_get(r, "list"), 0);
    assert_string_equal(admin_test_str(d, "message_id"), mid);
    assert_string_equal(admin_test_str(d, "bsa"), "bsa-1");
    assert_string_equal(admin_test_str(d, "content_id"), CONTENT);
    assert_string_equal(admin_test_str(d, "state"), "prepared");
    assert_int_equal(admin_test_int(d, "attempts"), 1);
    assert_string_equal(admin_test_str(d, "last_error"), "HTTP 500");
    assert_true(admin_test_int(d, "age_s") >= 0 && admin_test_int(d, "age_s") < 60);
    assert_int_equal(strlen(admin_test_str(d, "next")), ENC_TIME_LEN);
    assert_int_equal(strlen(admin_test_str(d, "key_id")), ENC_UUID_LEN);
    d = json_array_get(json_object_get(r, "list"), 1);
    assert_string_equal(admin_test_str(d, "message_id"), other);
    assert_true(json_is_null(json_object_get(d, "last_error")));
    json_decref(r);
}

static void list__of_the_pending_has_no_others(void **state)
{
    static const enum store_delivery_state states[] = {
        STORE_DELIVERY_CONFIRMED, STORE_DELIVERY_IN_FLIGHT, STORE_DELIVERY_UNCONFIRMED,
        STORE_DELIVERY_REJECTED,  STORE_DELIVERY_ABANDONED, STORE_DELIVERY_UNKNOWN};
    struct admin_test *t = *state;
    char mid[ARRAY_SIZE(states)][STORE_MID_LEN + 1];
    json_t *r, *list;

    add_content(t);
    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        deliver(t, "[\"bsa-1\"]", mid[i]);
        step(t, mid[i], "delivery.attempt", states[i], "");
    }
    r = admin_test_result(t, "{\"command\":\"delivery list\",\"pending\":true}\n");
    list = json_object_get(r, "list");
    assert_int_equal(json_array_size(list), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(admin_test_str(json_array_get(list, i), "message_id"), mid[2 * i + 1]);
    json_decref(r);
    r = admin_test_result(t, "{\"command\":\"delivery list\",\"pending\":false}\n");
    list = json_object_get(r, "list");
    assert_int_equal(json_array_size(list), ARRAY_SIZE(states));
    assert_string_equal(admin_test_str(json_array_get(list, 0), "state"), "confirmed");
    assert_true(json_is_null(json_object_get(json_array_get(list, 0), "next")));
    json_decref(r);
}

static void list__comes_by_the_page(void **state)
{
    enum { ROUNDS = 126 }; /* of four */
    struct admin_test *t = *state;
    char request[128];
    json_t *r;

    add_content(t);
    for (int i = 0; i < ROUNDS; i++)
        json_decref(
            admin_test_result(t, "{\"command\":\"deliver\",\"content\":\"" CONTENT "\"}\n"));
    r = admin_test_result(t, "{\"command\":\"delivery list\",\"pending\":true}\n");
    assert_int_equal(json_array_size(json_object_get(r, "list")), 500);
    (void)snprintf(request, sizeof(request),
                   "{\"command\":\"delivery list\",\"pending\":true,\"after\":%lld}\n",
                   (long long)admin_test_int(r, "next"));
    json_decref(r);
    r = admin_test_result(t, request);
    assert_int_equal(json_array_size(json_object_get(r, "list")), ROUNDS * SERVICE_PEERS - 500);
    assert_null(json_object_get(r, "next"));
    json_decref(r);
}

/* ---- one ------------------------------------------------------------------------------------- */

static void show__has_all_that_the_log_says_of_it(void **state)
{
    static const char *const told[] = {"delivery.prepared", "delivery.attempt",
                                       "delivery.unknown",  "delivery.attempt",
                                       "admin.action",      "delivery.abandoned"};
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1], other[STORE_MID_LEN + 1], request[256];
    json_int_t last = -1;
    json_t *r, *history;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    deliver(t, "[\"bsa-1\"]", other);
    step(t, mid, "delivery.attempt", STORE_DELIVERY_IN_FLIGHT, "");
    step(t, other, "delivery.attempt", STORE_DELIVERY_IN_FLIGHT, "");
    step(t, mid, "delivery.unknown", STORE_DELIVERY_UNKNOWN, "");
    step(t, mid, "delivery.attempt", STORE_DELIVERY_IN_FLIGHT, "");
    json_decref(about(t, "delivery retry", mid));
    (void)snprintf(request, sizeof(request),
                   "{\"command\":\"delivery abandon\",\"message\":\"%s\",\"reason\":\"a "
                   "\\\"reason\\\"\"}\n",
                   mid);
    json_decref(admin_test_result(t, request));
    r = about(t, "delivery show", mid);
    assert_string_equal(admin_test_str(r, "message_id"), mid);
    assert_string_equal(admin_test_str(r, "state"), "abandoned");
    assert_string_equal(admin_test_str(r, "kek_id"), "bsa-1/1");
    assert_int_equal(admin_test_int(r, "attempts"), 3);
    assert_true(json_is_true(json_object_get(r, "history_whole")));
    history = json_object_get(r, "history");
    assert_int_equal(json_array_size(history), ARRAY_SIZE(told));
    for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
        const json_t *e = json_array_get(history, i);

        assert_string_equal(admin_test_str(e, "event"), told[i]);
        assert_true(admin_test_int(e, "seq") > last);
        last = admin_test_int(e, "seq");
        assert_int_equal(strlen(admin_test_str(e, "time")), ENC_TIME_LEN);
        assert_null(json_object_get(e, "attested"));
    }
    /* With their fields. */
    assert_string_equal(admin_test_str(json_array_get(history, 0), "keyid"),
                        admin_test_str(r, "key_id"));
    assert_string_equal(admin_test_str(json_array_get(history, 1), "addr"), "192.0.2.9:443");
    assert_string_equal(admin_test_str(json_array_get(history, 5), "reason"), "a \"reason\"");
    json_decref(r);
}

/* Text in which a Message ID stands is no record of it. */
static void show__takes_no_record_of_something_else(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1], text[128];
    struct record *rec = NULL;
    json_t *r;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    (void)snprintf(text, sizeof(text), "\"mid\":\"%s\"", mid);
    assert_int_equal(record_new("hsm.lost", &rec), 0);
    record_str(rec, "reason", text);
    put_record(t, rec);
    r = about(t, "delivery show", mid);
    assert_int_equal(json_array_size(json_object_get(r, "history")), 1);
    json_decref(r);
}

/* Pages of the log lie between the records of the delivery. */
static void show__reads_a_long_log(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1];
    json_t *r;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    for (unsigned i = 0; i < 3000; i++) {
        struct record *rec = NULL;

        assert_int_equal(record_new("hsm.lost", &rec), 0);
        record_str(rec, "reason", "a reason");
        keys_note(t->s->keys, rec);
    }
    step(t, mid, "delivery.attempt", STORE_DELIVERY_IN_FLIGHT, "");
    assert_true(service_count(t->s, "hsm.lost", NULL, NULL) == 3000);
    step(t, mid, "delivery.unknown", STORE_DELIVERY_UNKNOWN, "");
    r = about(t, "delivery show", mid);
    assert_int_equal(json_array_size(json_object_get(r, "history")), 3);
    json_decref(r);
}

static void show__says_what_is_unattested(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1];
    struct record *rec = NULL;
    json_int_t seq;
    const json_t *history;
    json_t *r;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    step(t, mid, "delivery.attempt", STORE_DELIVERY_IN_FLIGHT, "");
    step(t, mid, "delivery.unknown", STORE_DELIVERY_UNKNOWN, "");
    r = about(t, "delivery show", mid);
    seq = admin_test_int(json_array_get(json_object_get(r, "history"), 1), "seq");
    json_decref(r);
    assert_int_equal(record_new("log.recovered", &rec), 0);
    record_int(rec, "from", (uint64_t)seq);
    record_int(rec, "to", (uint64_t)seq);
    put_record(t, rec);
    r = about(t, "delivery show", mid);
    history = json_object_get(r, "history");
    assert_int_equal(json_array_size(history), 3);
    assert_null(json_object_get(json_array_get(history, 0), "attested"));
    assert_true(json_is_false(json_object_get(json_array_get(history, 1), "attested")));
    assert_null(json_object_get(json_array_get(history, 2), "attested"));
    json_decref(r);
}

/* A history that no operator reads whole has an end, and says so. */
static void show__has_a_bounded_history(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1];
    json_t *r;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    for (unsigned i = 0; i < 2500; i++) {
        struct record *rec = NULL;

        assert_int_equal(record_new("confirm.unmatched", &rec), 0);
        record_str(rec, "mid", mid);
        record_str(rec, "peer", "bsa-1");
        record_str(rec, "reason", "already-confirmed");
        record_str(rec, "addr", "192.0.2.9:443");
        keys_note(t->s->keys, rec);
    }
    assert_int_equal(service_count(t->s, "confirm.unmatched", NULL, NULL), 2500);
    r = about(t, "delivery show", mid);
    assert_true(json_is_false(json_object_get(r, "history_whole")));
    assert_int_equal(json_array_size(json_object_get(r, "history")), 2000);
    json_decref(r);
}

static void show__of_none_is_an_error(void **state)
{
    struct admin_test *t = *state;

    about_fails(t, "delivery show", "nonsense", "TEKD_ENOTFOUND");
    about_fails(t, "delivery retry", "nonsense", "TEKD_ENOTFOUND");
    about_fails(t, "delivery abandon", "nonsense", "TEKD_EINVAL"); /* no reason */
    admin_test_error(t, "{\"command\":\"delivery show\"}\n", "TEKD_EINVAL", "\"message\"");
    admin_test_error(t, "{\"command\":\"delivery abandon\",\"message\":\"x\",\"reason\":\"\"}\n",
                     "TEKD_EINVAL", "reason");
}

/* ---- what an operator does to one ------------------------------------------------------------ */

static void retry__has_time_anew(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1], id[STORE_ID_MAX + 1];
    int64_t deadline_us = 0;
    const char *text;
    json_t *r;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    step(t, mid, "delivery.attempt", STORE_DELIVERY_UNCONFIRMED, "");
    json_decref(about(t, "delivery retry", mid));
    assert_int_equal(keys_bsa_id(t->s->keys, admin_test_hurried(), id), 0);
    assert_string_equal(id, "bsa-1");
    r = about(t, "delivery show", mid);
    assert_string_equal(admin_test_str(r, "state"), "prepared");
    text = admin_test_str(r, "deadline");
    assert_int_equal(enc_time_read(text, strlen(text), &deadline_us), 0);
    assert_true(deadline_us - clock_utc_us() <= ADMIN_TEST_DEADLINE_S * INT64_C(1000000));
    assert_true(deadline_us - clock_utc_us() > (ADMIN_TEST_DEADLINE_S - 60) * INT64_C(1000000));
    json_decref(r);
    step(t, mid, "delivery.attempt", STORE_DELIVERY_CONFIRMED, "");
    about_fails(t, "delivery retry", mid, "TEKD_EEXIST");
}

/* ---- the stream of one event ----------------------------------------------------------------- */

static void records__may_be_those_of_one_event(void **state)
{
    struct admin_test *t = *state;
    char mid[STORE_MID_LEN + 1];
    const char *stream;

    add_content(t);
    deliver(t, "[\"bsa-1\"]", mid);
    json_decref(admin_test_result(t, "{\"command\":\"audit checkpoint\"}\n"));
    stream =
        admin_test_talk(t, "{\"command\":\"audit records\",\"event\":\"delivery.prepared\"}\n");
    assert_non_null(strstr(stream, "\nR "));
    assert_null(strstr(strstr(stream, "\nR ") + 1, "\nR "));
    assert_non_null(strstr(stream, mid));
    assert_string_equal(stream + strlen(stream) - 3, "\nE\n");
    stream = admin_test_talk(t, "{\"command\":\"audit records\",\"event\":\"log.recovered\"}\n");
    assert_null(strstr(stream, "\nR "));
    assert_string_equal(stream + strlen(stream) - 3, "\nE\n");
    admin_test_error(t, "{\"command\":\"audit records\",\"event\":\"nonsense\"}\n", "TEKD_EINVAL",
                     "nonsense");
}

static void status__counts_deliveries(void **state)
{
    struct admin_test *t = *state;
    json_t *r = admin_test_result(t, "{\"command\":\"status\"}\n");
    const json_t *d = json_object_get(r, "deliveries"), *states = json_object_get(d, "states");

    assert_int_equal(admin_test_int(d, "open"), 3);
    assert_string_equal(admin_test_str(d, "oldest_open"), "2026-01-01T00:00:00.000000Z");
    assert_int_equal(admin_test_int(d, "attempts"), 50);
    assert_int_equal(admin_test_int(d, "under_way"), 4);
    assert_int_equal(admin_test_int(d, "failed"), 9);
    assert_int_equal(json_object_size(states), STORE_DELIVERY_STATES);
    assert_int_equal(admin_test_int(states, "prepared"), 2);
    assert_int_equal(admin_test_int(states, "in-flight"), 0);
    assert_int_equal(admin_test_int(states, "confirmed"), 40);
    assert_int_equal(admin_test_int(states, "abandoned"), 3);
    json_decref(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ADMIN_TEST(deliver__gives_a_message_id_each),
        ADMIN_TEST(deliver__that_cannot_be_prepares_nothing),
        ADMIN_TEST(deliver__that_is_done_in_part_gives_those_message_ids),
        ADMIN_TEST(list__has_what_an_operator_asks_for),
        ADMIN_TEST(list__of_the_pending_has_no_others),
        ADMIN_TEST(list__comes_by_the_page),
        ADMIN_TEST(show__has_all_that_the_log_says_of_it),
        ADMIN_TEST(show__takes_no_record_of_something_else),
        ADMIN_TEST(show__reads_a_long_log),
        ADMIN_TEST(show__says_what_is_unattested),
        ADMIN_TEST(show__has_a_bounded_history),
        ADMIN_TEST(show__of_none_is_an_error),
        ADMIN_TEST(retry__has_time_anew),
        ADMIN_TEST(records__may_be_those_of_one_event),
        ADMIN_TEST(status__counts_deliveries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
