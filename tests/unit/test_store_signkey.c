/* Keys of the log that are added and replaced: what is recorded, stored and refused. */
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_fixture.h"
#include "store_vfs.h"
#include "tekd/enc.h"

#define MAIN           STORE_KEY_MAIN
#define ED25519        STORE_KEY_ED25519
#define BEFORE         STORE_KEY_BEFORE
#define ED25519_BEFORE STORE_KEY_ED25519_BEFORE

/* Everything so far is under a committed checkpoint. */
static void sign(struct fixture *f)
{
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    fixture_turn(f);
    fixture_turn(f);
}

static void use_keys(struct fixture *f)
{
    f->o.signer = store_signer_of(f->signer);
    store_signer_restart(f->signer); /* another setting is another worker */
}

static void set(struct fixture *f, enum store_key which, bool on)
{
    store_signer_set(f->signer, which, on);
    use_keys(f);
}

static void replace(struct fixture *f, enum store_key kind)
{
    store_signer_replace(f->signer, kind);
    use_keys(f);
}

static void make_log(struct fixture *f)
{
    fixture_open(f);
    sign(f);
    fixture_close(f);
}

static void refused(struct fixture *f, const char *check, const char *hint)
{
    char field[64];

    (void)snprintf(field, sizeof(field), "check=%s", check);
    assert_int_equal(fixture_try_open(f), TEKD_ETAMPER);
    if (!fixture_logged("event=tamper", field) || !fixture_logged(field, hint))
        fail_msg("no %s with %s in:\n%s", field, hint, fixture_log());
}

static void assert_signers(struct fixture *f, size_t n, const enum store_key *keys)
{
    struct store_status st;

    store_status_get(f->store, &st);
    assert_int_equal(st.n_signers, n);
    for (size_t i = 0; i < n; i++) {
        uint8_t id[4];

        assert_int_equal(st.signer_key[i], keys[i]);
        assert_int_equal(
            note_key_id("bsm.example/tekd/audit/1", store_signer_key(f->signer, keys[i]), id), 0);
        assert_memory_equal(st.signer[i], id, sizeof(id));
    }
}

/* ---- what is recorded ------------------------------------------------------------------------ */

static void signkey__of_a_new_log_is_not_recorded(void **state)
{
    struct fixture *f = *state;

    store_signer_second(f->signer, true);
    use_keys(f);
    fixture_open(f);
    sign(f);
    assert_int_equal(fixture_check_log(f, "log.signkey").count, 0);
    assert_true(fixture_key_is_taken(f, MAIN) && fixture_key_is_taken(f, ED25519));
    assert_int_equal(fixture_retired(f), 0);
}

static void signkey__is_recorded_and_then_the_key_of_the_log(void **state)
{
    static const enum store_key both[] = {MAIN, BEFORE};
    struct fixture *f = *state;
    struct hsm_spki old = {0};
    struct log_check log;

    f->o.anchor_file = f->anchor;
    make_log(f);
    replace(f, MAIN);
    for (int i = 0; i < 3; i++) { /* the overlap goes on over starts */
        fixture_open(f);
        sign(f);
        assert_signers(f, 2, both);
        log = fixture_check_log(f, "log.signkey");
        assert_int_equal(log.count, 1);
        assert_true(fixture_key_is_taken(f, MAIN));
        assert_int_equal(fixture_retired(f), 1);
        assert_int_equal(store_retired_key(f->store, 0, &old), 0);
        assert_true(fixture_spki_is_of(&old, store_signer_key(f->signer, BEFORE)));
        fixture_close(f);
    }
    assert_true(fixture_logged("event=sign-key-changed", "setting=hsm.checkpoint_key"));
    set(f, BEFORE, false);
    for (int i = 0; i < 2; i++) {
        fixture_open(f);
        sign(f);
        assert_signers(f, 1, both);
        assert_int_equal(fixture_check_log(f, "log.signkey").count, 1);
        fixture_close(f);
    }
    assert_int_equal(store_signer_contradictions(f->signer), 0);
}

/* Behind log.started, and the notes before it have the old line alone. */
static void signkey__stands_behind_the_start(void **state)
{
    struct fixture *f = *state;
    struct log_check started, signkey;

    make_log(f);
    replace(f, MAIN);
    fixture_open(f);
    fixture_wait_signed(f);
    started = fixture_check_log(f, "log.started");
    signkey = fixture_check_log(f, "log.signkey");
    assert_int_equal(signkey.seq, started.seq + 1);
}

static void signkey__replaces_both_kinds_at_once(void **state)
{
    static const enum store_key all[] = {MAIN, ED25519, BEFORE, ED25519_BEFORE};
    struct fixture *f = *state;

    store_signer_second(f->signer, true);
    use_keys(f);
    make_log(f);
    store_signer_replace(f->signer, ED25519);
    replace(f, MAIN);
    for (int i = 0; i < 2; i++) {
        fixture_open(f);
        sign(f);
        assert_signers(f, 4, all);
        assert_int_equal(fixture_check_log(f, "log.signkey").count, 2);
        assert_true(fixture_key_is_taken(f, MAIN) && fixture_key_is_taken(f, ED25519));
        assert_int_equal(fixture_retired(f), 2);
        fixture_close(f);
    }
    set(f, BEFORE, false);
    set(f, ED25519_BEFORE, false);
    fixture_open(f);
    sign(f);
    assert_signers(f, 2, all);
    fixture_close(f);
}

static void signkey__of_an_added_kind_is_recorded_once(void **state)
{
    static const enum store_key both[] = {MAIN, ED25519};
    struct fixture *f = *state;

    make_log(f);
    for (int i = 0; i < 3; i++) {
        store_signer_second(f->signer, i != 1); /* taken out, and set again */
        use_keys(f);
        fixture_open(f);
        sign(f);
        assert_signers(f, i != 1 ? 2 : 1, both);
        assert_int_equal(fixture_check_log(f, "log.signkey").count, 1);
        assert_true(fixture_key_is_taken(f, ED25519));
        assert_int_equal(fixture_retired(f), 0);
        fixture_close(f);
    }
    assert_true(fixture_logged("event=sign-key-changed", "before=none"));
}

static void signkey__goes_back_to_a_key_that_was_replaced(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *first, *second;

    make_log(f);
    replace(f, MAIN);
    first = store_signer_key(f->signer, BEFORE);
    second = store_signer_key(f->signer, MAIN);
    assert_true(EVP_PKEY_up_ref(first) == 1 && EVP_PKEY_up_ref(second) == 1);
    make_log(f);
    for (unsigned i = 0; i < 2; i++) {
        store_signer_give(f->signer, MAIN, i == 0 ? first : second);
        store_signer_give(f->signer, BEFORE, i == 0 ? second : first);
        use_keys(f);
        fixture_open(f);
        sign(f);
        assert_true(fixture_key_is_taken(f, MAIN));
        assert_int_equal(fixture_retired(f), 2);
        fixture_close(f);
    }
    fixture_open(f);
    fixture_wait_signed(f);
    fixture_close(f);
    EVP_PKEY_free(first);
    EVP_PKEY_free(second);
}

/* ---- when the token comes later ---------------------------------------------------------------
 */

/* The signer thread has asked once, and does not again before its back-off has passed. */
static void open_without_token(struct fixture *f)
{
    store_signer_hide_key(f->signer, TEKD_EHSM);
    fixture_open(f);
    while (!fixture_logged("event=checkpoint-failed", "error="))
        ;
    fixture_turn(f);
}

static void token_comes(struct fixture *f)
{
    store_signer_hide_key(f->signer, 0);
    fake_clock_advance(60000);
    fixture_turn(f);
}

static void signkey__waits_for_the_token(void **state)
{
    struct fixture *f = *state;
    struct log_check started;

    make_log(f);
    replace(f, MAIN);
    open_without_token(f);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:1", 3), 0);
    assert_int_equal(fixture_check_log(f, "log.signkey").count, 0);
    token_comes(f);
    while (fixture_check_log(f, "log.signkey").count == 0)
        fixture_turn(f);
    sign(f);
    while (!fixture_key_is_taken(f, MAIN))
        sign(f);
    assert_int_equal(fixture_check_log(f, "log.signkey").count, 1);
    started = fixture_check_log(f, "log.started");
    assert_true(fixture_check_log(f, "log.signkey").seq > started.seq + 3);
    fixture_close(f);
    assert_int_equal(fixture_try_open(f), 0);
}

/* It has said its keys and does not sign: the record is there for when it does. */
static void signkey__is_recorded_before_the_token_signs(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    open_without_token(f);
    store_signer_fail(f->signer, TEKD_EHSM);
    token_comes(f);
    while (fixture_check_log(f, "log.signkey").count == 0)
        fixture_turn(f);
    assert_false(fixture_key_is_taken(f, MAIN));
    store_signer_fail(f->signer, 0);
    fake_clock_advance(200000); /* it failed twice */
    while (!fixture_key_is_taken(f, MAIN))
        fixture_turn(f);
    assert_int_equal(fixture_check_log(f, "log.signkey").count, 1);
}

/* A stop just when it has come: log.stopped is the last record. */
static void signkey__is_no_record_behind_the_stop(void **state)
{
    struct fixture *f = *state;
    struct log_check stopped, signkey;

    make_log(f);
    replace(f, MAIN);
    open_without_token(f);
    store_signer_hide_key(f->signer, 0);
    fixture_close(f);
    for (int i = 0; i < 2; i++) {
        fixture_open(f);
        fixture_wait_signed(f);
        stopped = fixture_check_log(f, "log.stopped");
        signkey = fixture_check_log(f, "log.signkey");
        assert_int_equal(stopped.count, (unsigned)i + 2);
        assert_int_equal(signkey.count, 1);
        fixture_close(f);
    }
}

static void signkey__latches_when_the_token_has_another_key(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    set(f, BEFORE, false);
    open_without_token(f);
    store_signer_hide_key(f->signer, 0);
    do
        fake_clock_advance(60000000);
    while (probe_run(f, STORE_READ, NULL, 0) == 0);
    assert_int_equal(fixture_wait_fatal(f), TEKD_ETAMPER);
    assert_true(fixture_logged("check=checkpoint-key", "hsm.checkpoint_key_before: not set"));
    fixture_close(f);
}

/* ---- epochs ---------------------------------------------------------------------------------- */

static void signkey__is_of_one_epoch(void **state)
{
    struct fixture *f = *state;
    struct store_status st;

    f->o.anchor_file = f->anchor;
    fixture_open(f);
    sign(f);
    fixture_close_epoch(f);
    sign(f);
    fixture_close(f);
    replace(f, MAIN);
    fixture_open(f);
    sign(f);
    fixture_close_epoch(f);
    sign(f);
    assert_int_equal(fixture_check_epoch(f, 2, "log.signkey").count, 1);
    assert_int_equal(fixture_check_epoch(f, 3, "log.signkey").count, 0);
    store_status_get(f->store, &st);
    assert_int_equal(st.n_signers, 2);
    fixture_close(f);
    set(f, BEFORE, false);
    for (int i = 0; i < 2; i++) { /* what is read at the start is of either key */
        fixture_open(f);
        sign(f);
        (void)fixture_check_log(f, NULL);
        fixture_close_epoch(f);
        fixture_close(f);
    }
}

/* When the token comes the epoch is about to be closed: the record stands before its end. */
static void signkey__is_of_the_epoch_that_is_being_closed(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    open_without_token(f);
    store_close_epoch(f->store, 1);
    fixture_turn(f);
    token_comes(f);
    while (fixture_epoch(f) == 1)
        fixture_turn(f);
    assert_int_equal(fixture_check_epoch(f, 1, "log.signkey").count, 1);
    assert_int_equal(fixture_check_epoch(f, 2, "log.signkey").count, 0);
    assert_true(fixture_key_is_taken(f, MAIN));
}

/* A crash left log.closed unsigned. */
static void close_without_signer(struct fixture *f)
{
    unsigned entered;

    fixture_open(f);
    sign(f);
    fixture_wait_signed(f);
    store_signer_hold(f->signer);
    entered = store_signer_entered(f->signer);
    store_close_epoch(f->store, 1);
    store_signer_wait_entered(f->signer, entered + 1);
}

static void signkey__comes_with_the_epoch_that_the_start_opens(void **state)
{
    struct fixture *f = *state;
    struct log_check signkey;

    fixture_crash(f, close_without_signer);
    replace(f, MAIN);
    fixture_open(f);
    while (fixture_epoch(f) == 1)
        fixture_turn(f);
    sign(f);
    assert_int_equal(fixture_check_epoch(f, 1, "log.signkey").count, 0);
    signkey = fixture_check_log(f, "log.signkey");
    assert_int_equal(signkey.count, 1);
    assert_int_equal(signkey.seq, fixture_check_log(f, "log.started").seq + 1);
    assert_true(fixture_key_is_taken(f, MAIN));
    fixture_close(f);
    assert_int_equal(fixture_try_open(f), 0);
}

/* ---- crashes and faults ---------------------------------------------------------------------- */

/* log.signkey is committed, and not signed. */
static void crash_before_the_note(struct fixture *f)
{
    store_signer_hold(f->signer);
    fixture_open(f);
    assert_false(fixture_key_is_taken(f, MAIN));
}

static void signkey__is_repeated_after_a_crash(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    fixture_crash(f, crash_before_the_note);
    fixture_crash(f, crash_before_the_note);
    for (int i = 0; i < 2; i++) {
        fixture_open(f);
        sign(f);
        assert_int_equal(fixture_check_log(f, "log.signkey").count, 3);
        assert_true(fixture_key_is_taken(f, MAIN));
        assert_int_equal(fixture_retired(f), 1);
        fixture_close(f);
    }
}

static void leave_long_tail(struct fixture *f)
{
    fixture_open(f);
    sign(f);
    fixture_wait_signed(f);
    store_signer_hold(f->signer);
    for (int i = 0; i < 6; i++)
        assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 60), 0);
}

/* A tail that takes several notes: the first of them is not over the record. */
static void signkey__is_done_with_the_note_over_it(void **state)
{
    struct fixture *f = *state;

    fixture_crash(f, leave_long_tail);
    replace(f, MAIN);
    store_signer_hold(f->signer);
    fixture_open(f);
    store_signer_wait_entered(f->signer, 1);
    store_signer_pass(f->signer);
    store_signer_wait_entered(f->signer, 2); /* the first note is committed */
    assert_int_equal(fixture_check_log(f, "log.signkey").count, 1);
    assert_false(fixture_key_is_taken(f, MAIN));
    store_signer_release(f->signer);
    sign(f);
    assert_true(fixture_key_is_taken(f, MAIN));
}

static void signkey__the_key_before_is_needed_until_it_is_done(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *new;

    make_log(f);
    replace(f, MAIN);
    fixture_crash(f, crash_before_the_note);
    set(f, BEFORE, false);
    refused(f, "checkpoint-key", "hsm.checkpoint_key_before: not set");
    /* Nor is there a way back: the log names the new key. */
    new = store_signer_key(f->signer, MAIN);
    assert_int_equal(EVP_PKEY_up_ref(new), 1);
    store_signer_give(f->signer, MAIN, store_signer_key(f->signer, BEFORE));
    use_keys(f);
    refused(f, "record-signkey", "an unsigned log.signkey of a key that is set");
    store_signer_give(f->signer, MAIN, new);
    set(f, BEFORE, true);
    fixture_open(f);
    sign(f);
    fixture_close(f);
    set(f, BEFORE, false);
    assert_int_equal(fixture_try_open(f), 0);
    EVP_PKEY_free(new);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void signkey__refuses_another_key_without_the_one_before(void **state)
{
    struct fixture *f = *state;

    store_signer_second(f->signer, true);
    use_keys(f);
    make_log(f);
    store_signer_replace(f->signer, ED25519);
    set(f, ED25519_BEFORE, false);
    refused(f, "checkpoint-ed25519-key", "hsm.checkpoint_ed25519_key_before: not set");
    set(f, ED25519_BEFORE, true);
    assert_int_equal(fixture_try_open(f), 0);
}

static void signkey__refuses_a_key_before_that_is_not_the_logs(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *other = EVP_EC_gen("P-256");
    EVP_PKEY *main;

    make_log(f);
    main = store_signer_key(f->signer, MAIN);
    assert_int_equal(EVP_PKEY_up_ref(main), 1);
    replace(f, MAIN);
    store_signer_give(f->signer, BEFORE, other);
    use_keys(f);
    refused(f, "checkpoint-key", "not the key that signed the log last");
    /* Beside the key of the log, too. */
    store_signer_give(f->signer, MAIN, main);
    use_keys(f);
    refused(f, "checkpoint-key", "take it out, this key never signed the log");
    /* Nor can it be that key itself. */
    store_signer_give(f->signer, BEFORE, main);
    use_keys(f);
    refused(f, "checkpoint-key", "take it out, this key never signed the log");
    EVP_PKEY_free(main);
    EVP_PKEY_free(other);
}

static void signkey__refuses_a_key_before_in_a_new_log(void **state)
{
    struct fixture *f = *state;

    replace(f, MAIN);
    refused(f, "checkpoint-key", "take it out, this log had no key to replace");
}

static void signkey__refuses_a_key_before_of_a_kind_that_never_signed(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    store_signer_second(f->signer, true);
    replace(f, ED25519);
    refused(f, "checkpoint-ed25519-key", "take it out, this log had no key to replace");
}

static void signkey__refuses_more_keys_than_it_keeps(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64)"
                   " INSERT INTO meta SELECT 'key-retired-' || i, (SELECT value FROM meta WHERE"
                   " name = 'key') FROM n");
    refused(f, "checkpoint-key", "too many keys were replaced");
    fixture_sql(f, "DELETE FROM meta WHERE name = 'key-retired-64'");
    assert_int_equal(fixture_try_open(f), 0);
}

/* The last free place is for one of two that are replaced at once. */
static void signkey__counts_both_kinds_that_are_replaced(void **state)
{
    struct fixture *f = *state;

    store_signer_second(f->signer, true);
    use_keys(f);
    make_log(f);
    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 63)"
                   " INSERT INTO meta SELECT 'key-retired-' || i, (SELECT value FROM meta WHERE"
                   " name = 'key') FROM n");
    store_signer_replace(f->signer, ED25519);
    replace(f, MAIN);
    refused(f, "checkpoint-ed25519-key", "too many keys were replaced");
    fixture_sql(f, "DELETE FROM meta WHERE name = 'key-retired-63'");
    make_log(f);
    assert_int_equal(fixture_try_open(f), 0);
}

static void signkey__refuses_a_retired_key_that_is_none(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    fixture_sql(f, "INSERT INTO meta VALUES('key-retired-1', x'00')");
    refused(f, "checkpoint-key", "a public key");
}

/* Only one line of a note of the database is left. */
static void keep_line(struct fixture *f, const char *which, size_t line)
{
    sqlite3 *db = fixture_sqlite(f);
    AUTO(buf) struct buf *b = NULL;
    char sql[200];
    sqlite3_stmt *stmt = NULL;
    struct note n;

    (void)snprintf(sql, sizeof(sql), "SELECT size, note FROM checkpoint WHERE %s", which);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    (void)snprintf(sql, sizeof(sql), "UPDATE checkpoint SET note = ? WHERE size = %lld",
                   (long long)sqlite3_column_int64(stmt, 0));
    assert_int_equal(
        note_read(sqlite3_column_blob(stmt, 1), (size_t)sqlite3_column_bytes(stmt, 1), &n), 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(n.n_signatures, 2);
    n.signature[0] = n.signature[line];
    n.n_signatures = 1;
    assert_int_equal(buf_new(NOTE_MAX, &b), 0);
    assert_int_equal(note_write(&n, b), 0);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    (void)sqlite3_bind_blob(stmt, 1, buf_data(b), (int)buf_len(b), SQLITE_STATIC);
    assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

#define NEWEST "size = (SELECT max(size) FROM checkpoint)"

/* Who has stolen the old key, and can write to the database, makes no newest checkpoint. */
static void signkey__the_newest_note_needs_the_key_of_the_log(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    make_log(f);
    make_log(f);
    keep_line(f, NEWEST, 1);
    refused(f, "checkpoint-signature", "none but of keys that it replaced");
    set(f, BEFORE, false);
    refused(f, "checkpoint-signature", "none but of keys that it replaced");
}

/* A crash left an epoch without a note of its own. */
static void open_epoch_without_note(struct fixture *f)
{
    close_without_signer(f);
    store_signer_pass(f->signer); /* the note over log.closed, and not the next one */
    fixture_wait_epoch(f, 2);
}

/* Nor the last one of the epoch before, while there is none in this one. */
static void signkey__the_last_note_of_an_epoch_needs_the_key_of_the_log(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    make_log(f);
    fixture_crash(f, open_epoch_without_note);
    keep_line(f, NEWEST, 1);
    refused(f, "checkpoint-signature", "none but of keys that it replaced");
}

/* While its replacement is not recorded, the old one is the key of the log. */
static void signkey__the_newest_note_needs_the_old_key_until_then(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    replace(f, MAIN);
    make_log(f);
    make_log(f);
    keep_line(f, NEWEST, 0);
    assert_int_equal(fixture_try_open(f), 0);
    keep_line(f, NEWEST, 0);
    fixture_sql(f, "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'key-retired-1')"
                   " WHERE name = 'key'; DELETE FROM meta WHERE name = 'key-retired-1'");
    refused(f, "checkpoint-signature", "none that verifies");
}

/* The last checkpoint of the epoch before may be one of a retired key, but not of an Ed25519 one.
 */
static void signkey__an_older_note_needs_a_main_key(void **state)
{
    struct fixture *f = *state;

    store_signer_second(f->signer, true);
    use_keys(f);
    fixture_open(f);
    sign(f);
    fixture_close_epoch(f);
    sign(f);
    fixture_close(f);
    keep_line(f, "size = (SELECT max(size) FROM checkpoint WHERE size < 1000000)", 1);
    refused(f, "checkpoint-signature", "none that verifies");
}

/* A crash left a record behind the last note, with a log.signkey of somebody's own. */
static void leave_tail(struct fixture *f)
{
    fixture_open(f);
    sign(f);
    fixture_wait_signed(f);
    store_signer_hold(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, NULL, 1), 0);
}

static void forge_signkey(struct fixture *f, const uint8_t key[static 32])
{
    AUTO(record) struct record *r = NULL;
    AUTO(buf) struct buf *b = NULL;
    sqlite3 *db = fixture_sqlite(f);
    sqlite3_stmt *stmt = NULL;
    int64_t seq;

    assert_int_equal(sqlite3_prepare_v2(db, "SELECT max(seq) FROM leaf", -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    seq = sqlite3_column_int64(stmt, 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(record_new("log.signkey", &r), 0);
    record_hex(r, "key", key, 32);
    assert_int_equal(buf_new(RECORD_MAX, &b), 0);
    assert_int_equal(record_encode(r, (uint64_t)seq, clock_utc_us(), "tekd-a", b), 0);
    assert_int_equal(
        sqlite3_prepare_v2(db, "UPDATE leaf SET octets = ? WHERE seq = ?", -1, &stmt, NULL),
        SQLITE_OK);
    (void)sqlite3_bind_blob(stmt, 1, buf_data(b), (int)buf_len(b), SQLITE_STATIC);
    (void)sqlite3_bind_int64(stmt, 2, seq);
    assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void signkey__refuses_a_tail_that_names_a_strangers_key(void **state)
{
    static const uint8_t stranger[32] = {1};
    struct fixture *f = *state;

    fixture_crash(f, leave_tail);
    forge_signkey(f, stranger);
    refused(f, "record-signkey", "an unsigned log.signkey of a key that is set");
    /* Nor is it signed when the token comes later. */
    open_without_token(f);
    store_signer_hide_key(f->signer, 0);
    do
        fake_clock_advance(60000000);
    while (probe_run(f, STORE_READ, NULL, 0) == 0);
    assert_int_equal(fixture_wait_fatal(f), TEKD_ETAMPER);
    assert_int_equal(store_signer_entered(f->signer), 0);
    fixture_close(f);
}

/* ---- lines that the token leaves out --------------------------------------------------------- */

static void check_damage(struct fixture *f, enum store_signer_damage damage)
{
    struct probe key;

    make_log(f);
    replace(f, MAIN);
    fixture_open(f);
    sign(f);
    store_signer_damage(f->signer, damage);
    probe_init(&key, STORE_SIGNED, NULL, 1);
    probe_submit(f, &key);
    while (!fixture_logged("event=checkpoint-failed", "error="))
        ;
    fake_clock_advance(60000);
    fixture_turn(f);
    assert_int_equal(probe_wait(&key), 0); /* the second try was sound */
    assert_true(fixture_logged("event=checkpoint-refused", "does not verify"));
}

static void signkey__a_wrong_line_of_the_key_before_is_not_committed(void **state)
{
    check_damage(*state, DAMAGE_SECOND);
}

static void signkey__a_missing_line_of_the_key_before_is_not_committed(void **state)
{
    check_damage(*state, DAMAGE_SECOND_MISSING);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(signkey__of_a_new_log_is_not_recorded),
        TEST(signkey__is_recorded_and_then_the_key_of_the_log),
        TEST(signkey__stands_behind_the_start),
        TEST(signkey__replaces_both_kinds_at_once),
        TEST(signkey__of_an_added_kind_is_recorded_once),
        TEST(signkey__goes_back_to_a_key_that_was_replaced),
        TEST(signkey__waits_for_the_token),
        TEST(signkey__is_recorded_before_the_token_signs),
        TEST(signkey__is_no_record_behind_the_stop),
        TEST(signkey__latches_when_the_token_has_another_key),
        TEST(signkey__is_of_one_epoch),
        TEST(signkey__is_of_the_epoch_that_is_being_closed),
        TEST(signkey__comes_with_the_epoch_that_the_start_opens),
        TEST(signkey__is_repeated_after_a_crash),
        TEST(signkey__is_done_with_the_note_over_it),
        TEST(signkey__the_key_before_is_needed_until_it_is_done),
        TEST(signkey__refuses_another_key_without_the_one_before),
        TEST(signkey__refuses_a_key_before_that_is_not_the_logs),
        TEST(signkey__refuses_a_key_before_in_a_new_log),
        TEST(signkey__refuses_a_key_before_of_a_kind_that_never_signed),
        TEST(signkey__refuses_more_keys_than_it_keeps),
        TEST(signkey__counts_both_kinds_that_are_replaced),
        TEST(signkey__refuses_a_retired_key_that_is_none),
        TEST(signkey__the_newest_note_needs_the_key_of_the_log),
        TEST(signkey__the_last_note_of_an_epoch_needs_the_key_of_the_log),
        TEST(signkey__the_newest_note_needs_the_old_key_until_then),
        TEST(signkey__an_older_note_needs_a_main_key),
        TEST(signkey__refuses_a_tail_that_names_a_strangers_key),
        TEST(signkey__a_wrong_line_of_the_key_before_is_not_committed),
        TEST(signkey__a_missing_line_of_the_key_before_is_not_committed),
    };

    store_vfs_register();
    return cmocka_run_group_tests_name("store_signkey", tests, NULL, NULL);
}
