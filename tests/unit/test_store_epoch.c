/* Epochs of the log: when one ends, how the next one begins, and what is found out at the start. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_fixture.h"
#include "store_vfs.h"

#define NEW_YEAR_2027 INT64_C(1798761600000000)
#define FAR           INT64_C(4102444800000000)
#define MID           "01900000-0000-7000-8000-000000000001"

/* The record at this place, parsed. */
static int parse_one(void *arg, uint64_t place, const void *octets, size_t len)
{
    const char *what;

    (void)place;
    return record_parse(octets, len, arg, &what);
}

struct wanted {
    struct store_place at;
    struct record *found;
};

static int read_one(void *arg, struct store_tx *tx)
{
    struct wanted *w = arg;
    const struct store_walk walk = {
        .after = store_place_pack(w->at.epoch, w->at.seq) - 1, .limit = 1, .arg = &w->found};

    return store_tx_leaf_walk(tx, &walk, parse_one);
}

static struct record *record_at(struct fixture *f, uint64_t epoch, uint64_t seq)
{
    struct wanted w = {.at = {.epoch = epoch, .seq = seq}};

    assert_int_equal(store_call(f->store, STORE_READ, read_one, &w), 0);
    assert_non_null(w.found);
    return w.found;
}

static int do_nothing(void *arg, struct store_tx *tx)
{
    (void)arg;
    (void)tx;
    return 0;
}

/* ---- when ------------------------------------------------------------------------------------ */

static void epoch__ends_with_the_year(void **state)
{
    struct fixture *f = *state;

    fake_clock_set_utc(NEW_YEAR_2027 - 5000000);
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    fake_clock_advance(2000000);
    fixture_turn(f);
    assert_int_equal(fixture_epoch(f), 1);
    fake_clock_advance(4000000);
    fixture_wait_epoch(f, 2);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), 0);
    fake_clock_advance(2000000);
    fixture_turn(f);
    assert_int_equal(fixture_epoch(f), 2);
    assert_true(fixture_logged("event=epoch-closed", "epoch=1"));
    assert_true(fixture_logged("event=epoch-opened", "epoch=2"));
    fixture_close(f);
    /* The year that it began in is known after a start, too. */
    fixture_open(f);
    fake_clock_advance(2000000);
    fixture_turn(f);
    assert_int_equal(fixture_epoch(f), 2);
    assert_true(fixture_has(f, "urn:x:1"));
    (void)fixture_check_log(f, NULL);
}

/* A verifier has to find the reason for the time of log.closed in the same epoch. */
static void epoch__tells_of_a_step_of_the_clock_before_its_end(void **state)
{
    struct fixture *f = *state;

    fixture_open(f);
    fixture_wait_signed(f);
    fake_clock_set_utc(NEW_YEAR_2027 + INT64_C(86400000000));
    fake_clock_advance(2000000);
    fixture_wait_epoch(f, 2);
    assert_int_equal(fixture_check_epoch(f, 1, "clock.step").count, 1);
    assert_int_equal(fixture_check_log(f, "clock.step").count, 0);
}

static void epoch__ends_with_its_records(void **state)
{
    struct fixture *f = *state;

    f->o.epoch_records = 40;
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 30), 0);
    fake_clock_advance(2000000);
    fixture_turn(f);
    assert_int_equal(fixture_epoch(f), 1);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 10), 0);
    fake_clock_advance(2000000);
    fixture_wait_epoch(f, 2);
    (void)fixture_check_log(f, NULL);
}

static void epoch__is_closed_by_an_operator_once(void **state)
{
    struct fixture *f = *state;
    AUTO(record) struct record *r = NULL;
    const char *note;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 2), 0);
    fixture_close_epoch(f);
    store_close_epoch(f->store, 1); /* that one is over */
    fixture_turn(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 2), 0);
    assert_int_equal(fixture_epoch(f), 2);
    r = record_at(f, 2, 0);
    assert_string_equal(record_event(r), "log.opened");
    assert_string_equal(record_get_str(r, "origin"), "bsm.example/tekd/audit/2");
    assert_string_equal(record_get_str(r, "release"), "signed");
    assert_true(record_has(r, "heartbeat"));
    note = record_get_str(r, "note");
    assert_non_null(note);
    assert_non_null(strstr(note, "bsm.example/tekd/audit/1\n"));
    (void)fixture_check_log(f, NULL);
    assert_int_equal(store_signer_contradictions(f->signer), 0);
}

/* ---- what goes on ---------------------------------------------------------------------------- */

static int put_message(void *arg, struct store_tx *tx)
{
    struct store_message m = {.bsa = 7,
                              .id = "m-1",
                              .time_us = store_tx_utc_us(tx),
                              .epoch = store_tx_epoch(tx),
                              .seq = 1};

    (void)arg;
    return store_tx_message_insert(tx, &m);
}

static int repeat_message(struct store_item *item, struct store_tx *tx)
{
    struct store_message m;
    int r = store_tx_message_find(tx, 7, "m-1", 3, &m);

    (void)item;
    assert_int_equal(r, 0);
    assert_int_equal(m.epoch, 1);
    assert_int_equal(m.seq, 1);
    assert_int_equal(store_tx_epoch(tx), 2);
    store_tx_wait_for(tx, (struct store_place){.epoch = m.epoch, .seq = m.seq});
    return 0;
}

static void epoch__a_repeat_knows_where_it_was_answered(void **state)
{
    struct fixture *f = *state;
    struct probe p;

    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_message, NULL), 0);
    fixture_close_epoch(f);
    fixture_wait_signed(f);
    store_signer_hold(f->signer); /* its record is signed already: it waits for nobody */
    probe_init(&p, STORE_SIGNED, NULL, 0);
    p.item.apply = repeat_message;
    probe_submit(f, &p);
    assert_int_equal(probe_wait(&p), 0);
}

static int put_delivery(void *arg, struct store_tx *tx)
{
    struct store_delivery *d = arg;
    struct store_content c = {.id = "urn:x:content", .bits = 128};
    struct store_kek kek = {.bsa = 1, .version = 1, .name = "bsa-1/1"};
    struct store_tek tek = {.version = 1, .bits = 128, .stored.len = 24};
    AUTO(store_bsa) struct store_bsa *b = NULL;

    assert_int_equal(store_bsa_new(&b), 0);
    (void)snprintf(b->id, sizeof(b->id), "bsa-1");
    assert_int_equal(store_tx_bsa_insert(tx, b), 0);
    assert_int_equal(store_tx_content_insert(tx, &c), 0);
    kek.bsa = b->row;
    assert_int_equal(store_tx_kek_insert(tx, &kek), 0);
    tek.content = c.row;
    assert_int_equal(store_tx_tek_insert(tx, &tek), 0);
    *d = (struct store_delivery){.mid = MID,
                                 .bsa = b->row,
                                 .content = c.row,
                                 .tek = tek.row,
                                 .kek = kek.row,
                                 .deadline_us = FAR,
                                 .seq = 1,
                                 .epoch = store_tx_epoch(tx)};
    return store_tx_delivery_insert(tx, d, "message", 7);
}

static int get_delivery(void *arg, struct store_tx *tx)
{
    return store_tx_delivery_find(tx, MID, STORE_MID_LEN, arg);
}

static int confirm(void *arg, struct store_tx *tx)
{
    struct store_delivery *d = arg;
    struct record *r = NULL;
    uint8_t hash[32] = {1};
    uint64_t seq;

    assert_int_equal(record_new("delivery.confirmed", &r), 0);
    record_ref(r, "ref", d->epoch, d->seq);
    record_str(r, "mid", d->mid);
    record_str(r, "peer", "bsa-1");
    record_hex(r, "cert", hash, sizeof(hash));
    record_hex(r, "out", d->out_sha256, sizeof(d->out_sha256));
    assert_int_equal(store_tx_record(tx, r, &seq), 0);
    d->state = STORE_DELIVERY_CONFIRMED;
    d->confirmed_seq = (uint64_t)store_place_pack(store_tx_epoch(tx), seq);
    return store_tx_delivery_update(tx, d);
}

static int has_message(void *arg, struct store_tx *tx)
{
    AUTO(buf) struct buf *b = NULL;

    assert_int_equal(buf_new(STORE_DELIVERY_MAX, &b), 0);
    return store_tx_delivery_message(tx, ((struct store_delivery *)arg)->row, b);
}

static void epoch__carries_what_is_open(void **state)
{
    struct fixture *f = *state;
    struct store_delivery d;
    AUTO(record) struct record *r = NULL;

    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_delivery, &d), 0);
    fixture_close_epoch(f);
    assert_int_equal(store_call(f->store, STORE_READ, get_delivery, &d), 0);
    assert_int_equal(d.epoch, 2);
    r = record_at(f, 2, d.seq);
    assert_string_equal(record_event(r), "delivery.carried");
    assert_string_equal(record_get_str(r, "ref"), "1/1");
    assert_string_equal(record_get_str(r, "mid"), MID);
    assert_string_equal(record_get_str(r, "peer"), "bsa-1");
    assert_string_equal(record_get_str(r, "content"), "urn:x:content");
    assert_string_equal(record_get_str(r, "kekid"), "bsa-1/1");
    /* Confirmed in the new one: its message goes with the checkpoint over that, and it stays here.
     */
    assert_int_equal(store_call(f->store, STORE_DURABLE, confirm, &d), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    assert_int_equal(store_call(f->store, STORE_READ, has_message, &d), TEKD_ENOTFOUND);
    fixture_close_epoch(f);
    assert_int_equal(fixture_check_log(f, "delivery.carried").count, 0);
    assert_int_equal(store_call(f->store, STORE_READ, get_delivery, &d), 0);
    assert_int_equal(d.epoch, 2);
}

/* ---- a signer that does not ------------------------------------------------------------------ */

static void epoch__confirmations_go_on_while_it_cannot_be_closed(void **state)
{
    struct fixture *f = *state;

    fixture_open(f);
    fixture_wait_signed(f);
    store_signer_hold(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:1", 1), 0);
    store_close_epoch(f->store, 1);
    fixture_turn(f);
    fake_clock_advance(2500000); /* it hangs longer than a signature may take */
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:2", 1), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), TEKD_EHSM);
    assert_int_equal(fixture_epoch(f), 1);
    store_signer_release(f->signer);
    fixture_wait_epoch(f, 2); /* it goes on by itself */
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), 0);
    (void)fixture_check_log(f, NULL);
}

/* Everything is signed, then log.closed waits for its signature. */
static void close_without_signer(struct fixture *f)
{
    unsigned entered;

    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    fixture_wait_signed(f);
    store_signer_hold(f->signer);
    entered = store_signer_entered(f->signer);
    store_close_epoch(f->store, 1);
    store_signer_wait_entered(f->signer, entered + 1);
}

static void epoch__nothing_follows_its_end(void **state)
{
    struct fixture *f = *state;
    struct probe p;

    close_without_signer(f);
    probe_init(&p, STORE_DURABLE, "urn:x:2", 1);
    probe_submit(f, &p);
    fixture_turn(f);
    assert_false(probe_done(&p));
    assert_true(fixture_has(f, "urn:x:1")); /* reads go on */
    fake_clock_advance(2500000);
    fixture_turn(f);
    assert_int_equal(probe_wait(&p), TEKD_EHSM); /* nobody is kept waiting for ever */
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), TEKD_EHSM);
    store_signer_release(f->signer);
    fixture_wait_epoch(f, 2);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:2", 1), 0);
    (void)fixture_check_log(f, NULL);
}

/* What nobody waits for is kept for a while, then counted. */
static void epoch__keeps_no_more_than_it_can(void **state)
{
    enum { MANY = 5000, KEPT = 4096 };
    struct fixture *f = *state;
    struct probe *p = calloc(MANY, sizeof(*p));
    unsigned refused = 0;
    struct log_check log;

    assert_non_null(p);
    close_without_signer(f);
    fake_clock_advance(2500000);
    fixture_turn(f);
    for (unsigned i = 0; i < MANY; i++) {
        probe_init(&p[i], STORE_LAZY, NULL, 1);
        probe_submit(f, &p[i]);
    }
    fixture_turn(f);
    fixture_turn(f);
    for (unsigned i = 0; i < MANY; i++)
        refused += probe_done(&p[i]);
    assert_int_equal(refused, MANY - KEPT);
    assert_true(fixture_has(f, "urn:x:1")); /* reads go on */
    store_signer_release(f->signer);
    fixture_wait_epoch(f, 2);
    assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 1), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(probe_wait(&p[i]), i < KEPT ? 0 : TEKD_EHSM);
    log = fixture_check_log(f, "audit.gap");
    assert_int_equal(log.count, 1);
    assert_int_equal(log.number, MANY - KEPT);
    free(p);
}

static void epoch__an_item_that_waits_has_its_deadline(void **state)
{
    struct fixture *f = *state;
    struct probe p;

    close_without_signer(f);
    probe_init(&p, STORE_SIGNED, "urn:x:2", 1);
    p.item.deadline_us = clock_mono_us() + 500000;
    probe_submit(f, &p);
    fixture_turn(f);
    assert_false(probe_done(&p));
    fake_clock_advance(600000);
    fixture_turn(f);
    assert_int_equal(probe_wait(&p), TEKD_ETIMEDOUT);
    store_signer_release(f->signer);
    fixture_wait_epoch(f, 2);
}

/* ---- a crash --------------------------------------------------------------------------------- */

static void epoch__is_signed_and_ended_by_the_next_start(void **state)
{
    struct fixture *f = *state;
    AUTO(record) struct record *opened = NULL;
    AUTO(record) struct record *started = NULL;

    fixture_crash(f, close_without_signer);
    fixture_open(f);
    fixture_wait_epoch(f, 2);
    opened = record_at(f, 2, 0);
    started = record_at(f, 2, 1);
    assert_false(record_has(opened, "heartbeat")); /* nobody ran on */
    assert_string_equal(record_event(started), "log.started");
    assert_int_equal(fixture_check_log(f, "log.recovered").count, 0);
    assert_int_equal(fixture_check_epoch(f, 1, "log.recovered").count, 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 1), 0);
}

/* A start that dies before log.closed is signed ... */
static void start_without_signer(struct fixture *f)
{
    store_signer_hold(f->signer);
    fixture_open(f);
}

/* ... and one that signs it, and dies before it has opened the next epoch. */
static void start_and_die(struct fixture *f)
{
    struct store_status st;

    fixture_sql(f, "CREATE TRIGGER dies BEFORE INSERT ON leaf WHEN NEW.seq >= 1 << 40"
                   " BEGIN SELECT RAISE(ABORT, 'here'); END");
    fixture_open(f);
    (void)fixture_wait_fatal(f);
    store_status_get(f->store, &st);
    assert_int_equal(st.epoch, 1);
    assert_int_equal(st.signed_size, st.records);
    fixture_close(f);
    fixture_sql(f, "DROP TRIGGER dies");
}

static void epoch__its_start_says_whose_configuration_is_another_one(void **state)
{
    struct fixture *f = *state;
    AUTO(record) struct record *started = NULL;
    AUTO(record) struct record *changed = NULL;

    fixture_crash(f, close_without_signer);
    f->o.config_sha256[0] = 0xab;
    fixture_crash(f, start_without_signer);
    start_and_die(f);
    fixture_open(f);
    fixture_wait_epoch(f, 2);
    started = record_at(f, 2, 1);
    assert_string_equal(record_event(started), "log.started");
    assert_memory_equal(record_get_str(started, "config"), "ab00", 4);
    assert_int_equal(fixture_check_log(f, "config.changed").count, 1);
    changed = record_at(f, 2, 2);
    assert_string_equal(record_event(changed), "config.changed");
    assert_string_equal(record_get_str(changed, "config"), record_get_str(started, "config"));
    assert_non_null(strstr(record_get_str(changed, "detail"), "the one before was 0000"));
    fixture_close(f);
    fixture_open(f); /* it is said once */
    assert_int_equal(fixture_epoch(f), 2);
    assert_int_equal(fixture_check_log(f, "config.changed").count, 1);
}

/* What no start has said is none that another one could differ from. */
static void epoch__a_configuration_that_never_started_is_forgotten(void **state)
{
    struct fixture *f = *state;

    fixture_crash(f, close_without_signer);
    f->o.config_sha256[0] = 0xab;
    fixture_crash(f, start_without_signer);
    start_and_die(f);
    f->o.config_sha256[0] = 0;
    fixture_open(f);
    fixture_wait_epoch(f, 2);
    assert_int_equal(fixture_check_log(f, "log.started").count, 1);
    assert_int_equal(fixture_check_log(f, "config.changed").count, 0);
}

static void epoch__is_ended_by_the_stop(void **state)
{
    struct fixture *f = *state;

    close_without_signer(f);
    store_signer_release(f->signer);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(fixture_epoch(f), 2);
    assert_int_equal(fixture_check_log(f, "log.stopped").count, 1);
}

static void crash_after_boundary(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    fixture_close_epoch(f);
    fixture_wait_signed(f);
    store_signer_hold(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:2", 3), 0);
}

static void epoch__a_tail_of_the_second_one_is_adopted(void **state)
{
    struct fixture *f = *state;
    struct log_check log;

    fixture_crash(f, crash_after_boundary);
    fixture_open(f);
    assert_int_equal(fixture_epoch(f), 2);
    log = fixture_check_log(f, "log.recovered");
    assert_int_equal(log.count, 1);
    assert_int_equal(log.from, 1);
    assert_int_equal(log.to, 3);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), 0);
}

/* ---- tampering ------------------------------------------------------------------------------- */

static void make_epochs(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 3), 0);
    fixture_close_epoch(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 3), 0);
    fixture_close(f);
}

static void epoch__what_was_changed_is_found_at_the_start(void **state)
{
    static const struct {
        const char *sql, *check;
    } cases[] = {
        {"DELETE FROM leaf WHERE seq >= 1 << 40", "check=epoch "},
        {"INSERT INTO leaf SELECT seq + (2 << 40), octets FROM leaf", "check=epoch "},
        {"INSERT INTO checkpoint SELECT size + (2 << 40), note, range FROM checkpoint",
         "check=epoch "},
        {"UPDATE meta SET value = CAST('1' AS BLOB) WHERE name = 'epoch'", "check=epoch "},
        {"DELETE FROM checkpoint WHERE size < 1 << 40", "check=epoch-before"},
        {"DELETE FROM checkpoint WHERE size = (SELECT max(size) FROM checkpoint"
         " WHERE size < 1 << 40)",
         "check=epoch-before"},
        {"DELETE FROM leaf WHERE seq = (SELECT max(seq) FROM leaf WHERE seq < 1 << 40)",
         "check=epoch-before"},
        {"INSERT INTO leaf SELECT max(seq) + 1, octets FROM leaf WHERE seq < 1 << 40",
         "check=epoch-before"},
        {"UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'log.opened', 'log.closed')"
         " AS BLOB) WHERE seq = 1 << 40",
         "check=root"},
    };
    struct fixture *f = *state;
    char kept[140];

    make_epochs(f);
    (void)snprintf(kept, sizeof(kept), "%s.kept", f->path);
    fixture_copy(f->path, kept);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        fixture_copy(kept, f->path);
        fixture_sql(f, cases[i].sql);
        if (fixture_try_open(f) != TEKD_ETAMPER || !fixture_logged("event=tamper", cases[i].check))
            fail_msg("%s: no %s in\n%s", cases[i].sql, cases[i].check, fixture_log());
    }
    fixture_copy(kept, f->path);
    assert_int_equal(fixture_try_open(f), 0);
}

/* A log that a crash left with log.closed unsigned, and who had the disk then. */
static void epoch__a_tail_beside_its_end_is_none_of_ours(void **state)
{
    static const struct {
        const char *sql, *check;
    } cases[] = {
        {"INSERT INTO leaf SELECT seq + 1, CAST(replace(CAST(octets AS TEXT), '\"seq\":' || seq,"
         " '\"seq\":' || (seq + 1)) AS BLOB) FROM leaf ORDER BY seq DESC LIMIT 1",
         "check=record-after-close"},
        {"UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), '\"ev\"', '\"a\":1,\"ev\"')"
         " AS BLOB) WHERE seq = (SELECT max(seq) FROM leaf)",
         "check=record-form"},
        {"DELETE FROM checkpoint WHERE size = (SELECT max(size) FROM checkpoint)",
         "check=record-before-close"},
    };
    struct fixture *f = *state;
    char kept[140];

    fixture_crash(f, close_without_signer);
    fixture_sql(f, "PRAGMA journal_mode = DELETE"); /* no WAL is left behind */
    (void)snprintf(kept, sizeof(kept), "%s.kept", f->path);
    fixture_copy(f->path, kept);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        fixture_copy(kept, f->path);
        fixture_sql(f, cases[i].sql);
        if (fixture_try_open(f) != TEKD_ETAMPER || !fixture_logged("event=tamper", cases[i].check))
            fail_msg("%s: no %s in\n%s", cases[i].sql, cases[i].check, fixture_log());
    }
}

static void epoch__an_anchor_of_another_one_is_compared(void **state)
{
    struct fixture *f = *state;
    char anchor[140];

    f->o.anchor_file = f->anchor;
    (void)snprintf(anchor, sizeof(anchor), "%s.kept", f->anchor);
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 3), 0);
    fixture_close(f);
    fixture_copy(f->anchor, anchor);
    make_epochs(f);
    fixture_copy(anchor, f->anchor); /* one of the epoch before: it was not reached for a while */
    assert_int_equal(fixture_try_open(f), 0);
    fixture_copy(anchor, f->anchor);
    fixture_sql(f, "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'tekd-a', 'tekd-b')"
                   " AS BLOB) WHERE seq = (SELECT max(seq) - 1 FROM leaf WHERE seq < 1 << 40)");
    assert_int_equal(fixture_try_open(f), TEKD_ETAMPER); /* behind it all is hashed at once */
    assert_true(fixture_logged("event=tamper", "check=root"));
}

static void epoch__an_older_database_than_its_anchor_is_refused(void **state)
{
    struct fixture *f = *state;
    char kept[140];

    f->o.anchor_file = f->anchor;
    (void)snprintf(kept, sizeof(kept), "%s.kept", f->path);
    fixture_open(f);
    fixture_close(f);
    fixture_copy(f->path, kept);
    make_epochs(f);
    fixture_copy(kept, f->path);
    assert_int_equal(fixture_try_open(f), TEKD_ETAMPER);
    assert_true(fixture_logged("event=tamper", "check=anchor-beyond-database"));
}

static void epoch__the_ones_before_are_hashed_in_the_background(void **state)
{
    struct fixture *f = *state;

    make_epochs(f);
    fixture_sql(f, "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'tekd-a', 'tekd-b')"
                   " AS BLOB) WHERE seq = 2");
    fixture_open(f);
    for (int i = 0; i < 20; i++) { /* pieces of the background work */
        fake_clock_advance(300000);
        (void)store_call(f->store, STORE_READ, do_nothing, NULL);
    }
    assert_int_equal(fixture_wait_fatal(f), TEKD_ETAMPER);
    assert_true(fixture_logged("event=tamper", "check=root"));
}

static int setup(void **state)
{
    fake_clock_set_utc(NEW_YEAR_2027 - INT64_C(86400) * 100 * 1000000);
    return fixture_setup(state);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(epoch__ends_with_the_year),
        TEST(epoch__tells_of_a_step_of_the_clock_before_its_end),
        TEST(epoch__ends_with_its_records),
        TEST(epoch__is_closed_by_an_operator_once),
        TEST(epoch__a_repeat_knows_where_it_was_answered),
        TEST(epoch__carries_what_is_open),
        TEST(epoch__confirmations_go_on_while_it_cannot_be_closed),
        TEST(epoch__nothing_follows_its_end),
        TEST(epoch__keeps_no_more_than_it_can),
        TEST(epoch__an_item_that_waits_has_its_deadline),
        TEST(epoch__is_signed_and_ended_by_the_next_start),
        TEST(epoch__its_start_says_whose_configuration_is_another_one),
        TEST(epoch__a_configuration_that_never_started_is_forgotten),
        TEST(epoch__is_ended_by_the_stop),
        TEST(epoch__a_tail_of_the_second_one_is_adopted),
        TEST(epoch__what_was_changed_is_found_at_the_start),
        TEST(epoch__a_tail_beside_its_end_is_none_of_ours),
        TEST(epoch__an_anchor_of_another_one_is_compared),
        TEST(epoch__an_older_database_than_its_anchor_is_refused),
        TEST(epoch__the_ones_before_are_hashed_in_the_background),
    };

    store_vfs_register();
    return cmocka_run_group_tests_name("store_epoch", tests, NULL, NULL);
}
