/* What the store finds when it starts, and what it refuses. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_fixture.h"

static void wait_signed(struct fixture *f)
{
    struct store_status st;

    do
        store_status_get(f->store, &st);
    while (st.signed_size < st.records);
}

/* A log with checkpoints of 2, 4, 7, 8 and 9 records, closed. */
static void make_log(struct fixture *f)
{
    fixture_open(f);
    wait_signed(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 2), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:2", 3), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:3", 1), 0);
    fixture_close(f);
}

static void refused(struct fixture *f, int error, const char *check)
{
    char field[64];

    (void)snprintf(field, sizeof(field), "check=%s", check);
    assert_int_equal(fixture_try_open(f), error);
    if (!fixture_logged("event=tamper", field))
        fail_msg("no %s in:\n%s", field, fixture_log());
}

/* ---- stopping and crashing ------------------------------------------------------------------- */

static void store_close__ends_the_log_under_a_checkpoint(void **state)
{
    struct fixture *f = *state;
    struct log_check log;

    make_log(f);
    fixture_open(f);
    log = fixture_check_log(f, "log.stopped");
    assert_int_equal(log.count, 1);
    assert_true(log.signed_size > log.seq);
    assert_int_equal(fixture_check_log(f, "log.opened").count, 1);
    assert_int_equal(fixture_check_log(f, "log.started").count, 2);
    assert_int_equal(fixture_check_log(f, "log.recovered").count, 0);
    assert_true(fixture_has(f, "urn:x:3"));
}

static void store_open__says_when_its_configuration_is_another_one(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 6; i++) {
        f->o.config_sha256[0] = (uint8_t)(i / 3); /* three starts with each */
        fixture_open(f);
        assert_int_equal(fixture_check_log(f, "config.changed").count, i / 3);
        if (i == 3)
            assert_int_equal(fixture_check_log(f, "config.changed").seq,
                             fixture_check_log(f, "log.started").seq + 1);
        fixture_close(f);
    }
}

static void store_open__says_when_keys_leave(void **state)
{
    struct fixture *f = *state;

    fixture_open(f);
    assert_string_equal(fixture_check_log(f, "log.started").release, "signed");
    fixture_close(f);
    f->o.release = STORE_RELEASE_DURABLE;
    fixture_open(f);
    assert_string_equal(fixture_check_log(f, "log.started").release, "durable");
}

static void leave_tail(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    store_signer_hold(f->signer);
    assert_int_equal(probe_run(f, STORE_DURABLE, "urn:x:2", 5), 0);
}

static void store_open__adopts_an_unsigned_tail(void **state)
{
    struct fixture *f = *state;
    struct log_check log;

    fixture_crash(f, leave_tail);
    fixture_open(f);
    log = fixture_check_log(f, "log.recovered");
    assert_int_equal(log.count, 1);
    assert_int_equal(log.from, 3); /* log.opened, log.started and a record were signed */
    assert_int_equal(log.to, 7);
    assert_int_equal(log.seq, 8);
    assert_true(fixture_has(f, "urn:x:2"));
    wait_signed(f);
    log = fixture_check_log(f, NULL);
    assert_int_equal(log.signed_size, log.leaves);
    assert_int_equal(store_signer_contradictions(f->signer), 0);
}

static void leave_nothing(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
}

static void store_open__says_of_a_crash_without_tail_too(void **state)
{
    struct fixture *f = *state;
    struct log_check log;

    fixture_crash(f, leave_nothing);
    fixture_open(f);
    log = fixture_check_log(f, "log.recovered");
    assert_int_equal(log.count, 1);
    assert_int_equal(log.from, log.to + 1);
    assert_int_equal(log.to + 1, log.seq);
}

static void leave_long_tail(struct fixture *f)
{
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, NULL, 1), 0);
    store_signer_hold(f->signer);
    for (int i = 0; i < 90; i++) /* more than is kept in memory */
        assert_int_equal(probe_run(f, STORE_DURABLE, NULL, STORE_RECORDS_MAX), 0);
}

static void store_open__signs_a_long_tail_in_steps(void **state)
{
    struct fixture *f = *state;
    struct log_check log;

    fixture_crash(f, leave_long_tail);
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:1", 1), 0);
    log = fixture_check_log(f, NULL);
    assert_int_equal(log.signed_size, log.leaves);
    assert_int_equal(log.leaves, 3 + 90 * STORE_RECORDS_MAX + 3);
    assert_true(log.notes >= 90 * STORE_RECORDS_MAX / HSM_LEAVES_MAX);
    assert_int_equal(store_signer_most_leaves(f->signer), HSM_LEAVES_MAX);
    assert_int_equal(store_signer_contradictions(f->signer), 0);
}

static void die_unsigned(struct fixture *f)
{
    store_signer_fail(f->signer, TEKD_EHSM);
    fixture_open(f);
    fixture_close(f); /* log.stopped is there, but no signature over it */
}

static void store_open__adopts_a_stop_that_was_not_signed(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    store_signer_restart(f->signer);
    fixture_crash(f, die_unsigned);
    fixture_open(f);
    assert_int_equal(fixture_check_log(f, "log.stopped").count, 2);
    assert_int_equal(fixture_check_log(f, "log.recovered").count, 1);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:9", 1), 0);
    fixture_close(f);
    assert_int_equal(fixture_try_open(f), 0);
}

/* Eight items under way at any time; what is answered goes through a pipe. */
struct answered {
    struct probe p[8];
    char name[8][32];
    int fd;
    uint32_t next;
};

static struct fixture *load_fixture;
static struct answered load;

static void submit_next(struct probe *p);

static void answer(struct store_item *item, int result)
{
    struct probe *p = (struct probe *)item;
    uint64_t line[2] = {strtoull(p->name + 6, NULL, 10), p->seq};

    if (result == 0)
        (void)!write(load.fd, line, sizeof(line));
    submit_next(p);
}

static void submit_next(struct probe *p)
{
    size_t i = (size_t)(p - load.p);

    (void)snprintf(load.name[i], sizeof(load.name[i]), "urn:x:%u", load.next++);
    probe_init(p, STORE_SIGNED, load.name[i], 2);
    p->item.done = answer;
    (void)store_submit(load_fixture->store, &p->item);
}

static void run_load(struct fixture *f)
{
    load_fixture = f;
    fixture_open(f);
    for (size_t i = 0; i < ARRAY_SIZE(load.p); i++)
        submit_next(&load.p[i]);
    for (;;)
        (void)pause();
}

static void kill_under_load(struct fixture *f, unsigned answers, uint64_t last[2])
{
    int fds[2], status;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(fds[0]);
        load.fd = fds[1];
        run_load(f);
        _exit(1);
    }
    (void)close(fds[1]);
    for (unsigned i = 0; i < answers; i++)
        assert_int_equal(read(fds[0], last, 2 * sizeof(last[0])), 2 * sizeof(last[0]));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    /* What had been answered before the kill and was not read yet counts as well. */
    while (read(fds[0], last, 2 * sizeof(last[0])) == (ssize_t)(2 * sizeof(last[0])))
        ;
    (void)close(fds[0]);
}

static void store_open__has_all_that_was_answered_before_a_kill(void **state)
{
    struct fixture *f = *state;
    uint64_t last[2] = {0, 0};
    char name[32];

    for (unsigned round = 1; round <= 5; round++) {
        struct log_check log;

        load.next = round * 1000000;
        kill_under_load(f, 13 * round, last);
        store_signer_restart(f->signer);
        fixture_open(f);
        log = fixture_check_log(f, "log.recovered");
        assert_int_equal(log.count, round);
        assert_true(last[1] < log.from); /* of what was answered nothing was unsigned */
        (void)snprintf(name, sizeof(name), "urn:x:%lu", (unsigned long)last[0]);
        assert_true(fixture_has(f, name));
        fixture_close(f);
    }
}

/* ---- whose it is ----------------------------------------------------------------------------- */

static void store_open__refuses_the_log_of_another(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    f->o.bsm_id = "other.example";
    assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
    assert_true(fixture_logged("what=bsm_id", "found=bsm.example"));
    f->o.bsm_id = "bsm.example";
    fixture_sql(f, "UPDATE meta SET value = CAST('9' AS BLOB) WHERE name = 'schema'");
    assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
    assert_true(fixture_logged("what=schema", "found=9"));
    fixture_sql(f, "UPDATE meta SET value = CAST('0' AS BLOB) WHERE name = 'schema'");
    assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
}

static int put_kek(void *arg, struct store_tx *tx)
{
    struct store_kek k = {.version = 1, .added_us = 7};

    (void)arg;
    (void)snprintf(k.name, sizeof(k.name), "storage/1");
    (void)snprintf(k.kek.label, sizeof(k.kek.label), "storage");
    return store_tx_kek_insert(tx, &k);
}

static int get_kek(void *arg, struct store_tx *tx)
{
    return store_tx_kek_storage(tx, arg);
}

/* Takes away what came with schema 2. */
#define SCHEMA_1                                                                                   \
    "DROP TABLE holder; DROP INDEX content_periodic; DROP TABLE delivery;"                         \
    "DROP TABLE delivery_message; DROP TABLE delivery_count; DROP TABLE fanout;"                   \
    "ALTER TABLE kek DROP COLUMN added_us;"                                                        \
    "UPDATE meta SET value = CAST('1' AS BLOB) WHERE name = 'schema';"

/* The tables of schema 1 had no time with a KEK, and no deliveries. */
static void store_open__upgrades_the_tables_of_schema_1(void **state)
{
    struct fixture *f = *state;
    struct store_kek k = {.added_us = 99};

    fixture_open(f);
    assert_int_equal(store_call(f->store, STORE_DURABLE, put_kek, NULL), 0);
    fixture_close(f);
    assert_false(fixture_logged("event=tables-upgraded", ""));
    fixture_sql(f, SCHEMA_1);
    fixture_open(f);
    assert_true(fixture_logged("event=tables-upgraded", "from=1 to=2"));
    assert_int_equal(store_call(f->store, STORE_READ, get_kek, &k), 0);
    assert_string_equal(k.kek.label, "storage");
    assert_int_equal(k.added_us, 0);
    fixture_close(f);
    fixture_open(f); /* once is enough */
    fixture_close(f);
}

/* What is refused stays as it was found. */
static void store_open__upgrades_nothing_that_it_refuses(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    fixture_sql(f, SCHEMA_1 "UPDATE leaf SET octets = CAST('{}' AS BLOB) WHERE seq = 2");
    refused(f, TEKD_ETAMPER, "root");
    fixture_sql(f, "ALTER TABLE kek ADD COLUMN added_us INTEGER"); /* fails if there is one */
}

static void store_open__refuses_what_is_no_database_of_ours(void **state)
{
    struct fixture *f = *state;
    FILE *file;

    fixture_sql(f, "CREATE TABLE x (y)");
    assert_int_equal(fixture_try_open(f), TEKD_EINVAL);
    assert_int_equal(unlink(f->path), 0);
    file = fopen(f->path, "we");
    assert_non_null(file);
    for (int i = 0; i < 500; i++)
        assert_true(fputs("this is no database\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(fixture_try_open(f), TEKD_EIO);
    assert_true(fixture_logged("event=database", "SQLITE_NOTADB"));
}

static void store_open__checks_the_file_after_a_crash(void **state)
{
    struct fixture *f = *state;

    fixture_crash(f, leave_nothing);
    /* Two tables on one page: nothing that a hash covers. */
    fixture_sql(f, "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = (SELECT"
                   " rootpage FROM sqlite_schema WHERE name = 'tek') WHERE name = 'content'");
    assert_int_equal(fixture_try_open(f), TEKD_EIO);
    assert_true(fixture_logged("quick_check", "event=pragma-refused"));
}

/* ---- tampering ------------------------------------------------------------------------------- */

static void store_open__refuses_an_edited_record(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    fixture_sql(f, "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'urn:x:2',"
                   " 'urn:x:9') AS BLOB) WHERE seq = 5");
    refused(f, TEKD_ETAMPER, "root");
    /* The first two contents are signed one after the other: the second one's note differs. */
    assert_true(fixture_logged("event=tamper", "record=4"));
}

static void store_open__refuses_a_missing_record(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    fixture_sql(f, "DELETE FROM leaf WHERE seq = 5");
    refused(f, TEKD_ETAMPER, "root");
    assert_true(fixture_logged("event=tamper", "record=5"));
}

static void store_open__refuses_fewer_records_than_signed(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    fixture_sql(f, "DELETE FROM leaf WHERE seq >= 7");
    refused(f, TEKD_ETAMPER, "records");
}

static void store_open__refuses_a_log_cut_to_an_older_checkpoint(void **state)
{
    struct fixture *f = *state;

    f->o.anchor_file = f->anchor;
    make_log(f);
    fixture_sql(f, "DELETE FROM checkpoint WHERE size > 4; DELETE FROM leaf WHERE seq >= 4;"
                   "UPDATE meta SET value = CAST('0' AS BLOB) WHERE name = 'clean'");
    refused(f, TEKD_ETAMPER, "anchor-beyond-database");
    /* Without the anchor nobody could know: that is what the anchor is for. */
    f->o.anchor_file = NULL;
    store_signer_restart(f->signer);
    assert_int_equal(fixture_try_open(f), 0);
}

static void store_open__refuses_an_old_backup(void **state)
{
    struct fixture *f = *state;
    char backup[140];

    f->o.anchor_file = f->anchor;
    make_log(f);
    (void)snprintf(backup, sizeof(backup), "%s.backup", f->path);
    fixture_copy(f->path, backup);
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:x:4", 1), 0);
    fixture_close(f);
    fixture_copy(backup, f->path);
    refused(f, TEKD_ETAMPER, "anchor-beyond-database");
}

static void store_open__refuses_another_past_under_the_anchor(void **state)
{
    struct fixture *f = *state;
    char kept[160];

    f->o.anchor_file = f->anchor;
    make_log(f);
    (void)snprintf(kept, sizeof(kept), "%s.kept", f->anchor);
    assert_int_equal(rename(f->anchor, kept), 0);
    /* The same key signs another history, as an attacker with a session in the HSM could. */
    assert_int_equal(unlink(f->path), 0);
    store_signer_restart(f->signer);
    fixture_open(f);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:y:1", 2), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:y:2", 3), 0);
    assert_int_equal(probe_run(f, STORE_SIGNED, "urn:y:3", 1), 0);
    fixture_close(f);
    assert_int_equal(rename(kept, f->anchor), 0);
    refused(f, TEKD_ETAMPER, "anchor-root");
}

static void store_open__refuses_a_changed_range(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    fixture_sql(f, "UPDATE checkpoint SET range = CAST(substr(range, 1, length(range) - 1) ||"
                   " x'00' AS BLOB) WHERE size = (SELECT max(size) FROM checkpoint)");
    refused(f, TEKD_ETAMPER, "checkpoint-range");
    fixture_sql(f, "UPDATE checkpoint SET range = x'00'");
    refused(f, TEKD_ETAMPER, "checkpoint-form");
}

static void store_open__refuses_a_note_of_another_key(void **state)
{
    struct fixture *f = *state;
    struct store_test_signer *other = store_signer_new();
    char path[140], sql[400];
    const char *own = f->path;

    make_log(f);
    (void)snprintf(path, sizeof(path), "%s.other", f->path);
    f->o.path = path;
    f->o.signer = store_signer_of(other);
    make_log(f);
    f->o.path = own;
    f->o.signer = store_signer_of(f->signer);
    (void)snprintf(sql, sizeof(sql),
                   "ATTACH '%s' AS o; UPDATE checkpoint SET note = (SELECT x.note FROM o.checkpoint"
                   " AS x WHERE x.size = checkpoint.size), range = (SELECT x.range FROM"
                   " o.checkpoint AS x WHERE x.size = checkpoint.size)",
                   path);
    fixture_sql(f, sql);
    refused(f, TEKD_ETAMPER, "checkpoint-signature");
    store_signer_free(other);
}

static void store_open__refuses_another_key_in_the_token(void **state)
{
    struct fixture *f = *state;
    struct store_test_signer *other = store_signer_new();

    make_log(f);
    f->o.signer = store_signer_of(other);
    refused(f, TEKD_ETAMPER, "checkpoint-key");
    f->o.signer = store_signer_of(f->signer);
    assert_int_equal(fixture_try_open(f), 0);
    store_signer_free(other);
}

/* The end of a note is the end of its last signature: whether the setting is still on or not. */
static void store_open__refuses_a_wrong_second_line(void **state)
{
    struct fixture *f = *state;

    store_signer_second(f->signer, true);
    f->o.signer = store_signer_of(f->signer);
    make_log(f);
    assert_int_equal(fixture_try_open(f), 0);
    fixture_sql(f, "UPDATE checkpoint SET note = CAST(substr(note, 1, length(note) - 20) || 'AAAA'"
                   " || substr(note, length(note) - 15) AS BLOB)"
                   " WHERE size = (SELECT max(size) FROM checkpoint)");
    refused(f, TEKD_ETAMPER, "checkpoint-signature");
    store_signer_second(f->signer, false);
    f->o.signer = store_signer_of(f->signer);
    refused(f, TEKD_ETAMPER, "checkpoint-signature");
}

static void store_open__refuses_a_wrong_second_line_in_the_anchor(void **state)
{
    struct fixture *f = *state;
    FILE *file;

    store_signer_second(f->signer, true);
    f->o.signer = store_signer_of(f->signer);
    f->o.anchor_file = f->anchor;
    make_log(f);
    assert_int_equal(fixture_try_open(f), 0);
    file = fopen(f->anchor, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, -20, SEEK_END), 0);
    assert_true(fputs("AAAA", file) >= 0);
    assert_int_equal(fclose(file), 0);
    refused(f, TEKD_ETAMPER, "anchor-signature");
}

static void store_open__refuses_another_second_key_in_the_token(void **state)
{
    struct fixture *f = *state;

    store_signer_second(f->signer, true);
    f->o.signer = store_signer_of(f->signer);
    make_log(f);
    fixture_sql(f, "UPDATE meta SET value = CAST(substr(value, 1, 40) || x'01020304' AS BLOB)"
                   " WHERE name = 'key-ed25519'");
    refused(f, TEKD_ETAMPER, "checkpoint-ed25519-key");
    fixture_sql(f, "UPDATE meta SET value = x'00' WHERE name = 'key-ed25519'");
    refused(f, TEKD_ETAMPER, "checkpoint-key");
}

static void store_open__refuses_a_missing_key(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    fixture_sql(f, "DELETE FROM meta WHERE name = 'key'");
    store_signer_hide_key(f->signer, TEKD_EHSM);
    refused(f, TEKD_ETAMPER, "checkpoint-key");
}

/* A well-formed record at the end of the log. */
static void append(struct fixture *f, const char *event)
{
    AUTO(record) struct record *r = NULL;
    AUTO(buf) struct buf *b = NULL;
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t seq;

    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT max(seq) + 1 FROM leaf", -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    seq = sqlite3_column_int64(stmt, 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(record_new(event, &r), 0);
    if (strcmp(event, "config.changed") == 0) {
        record_str(r, "actor", "mallory");
        record_str(r, "detail", "nothing");
    }
    assert_int_equal(buf_new(RECORD_MAX, &b), 0);
    assert_int_equal(record_encode(r, (uint64_t)seq, clock_utc_us(), "tekd-a", b), 0);
    assert_int_equal(sqlite3_prepare_v2(db, "INSERT INTO leaf VALUES(?, ?)", -1, &stmt, NULL),
                     SQLITE_OK);
    (void)sqlite3_bind_int64(stmt, 1, seq);
    (void)sqlite3_bind_blob(stmt, 2, buf_data(b), (int)buf_len(b), SQLITE_STATIC);
    assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void store_open__refuses_a_record_after_the_stop(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    append(f, "config.changed");
    refused(f, TEKD_ETAMPER, "record-after-stop");
    assert_true(fixture_logged("record-after-stop", "config.changed"));
    /* Nor does it help to say that the server had been running. */
    fixture_sql(f, "UPDATE meta SET value = CAST('0' AS BLOB) WHERE name = 'clean'");
    refused(f, TEKD_ETAMPER, "record-after-stop");
}

static void store_open__refuses_a_tail_after_a_clean_stop(void **state)
{
    struct fixture *f = *state;

    make_log(f);
    append(f, "log.heartbeat");
    fixture_sql(f, "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), 'heartbeat',"
                   " 'started') AS BLOB) WHERE seq = (SELECT max(seq) FROM leaf)");
    refused(f, TEKD_ETAMPER, "record-after-stop");
}

static void store_open__refuses_a_tail_that_is_no_record(void **state)
{
    struct fixture *f = *state;

    fixture_crash(f, leave_tail);
    fixture_sql(f, "UPDATE leaf SET octets = CAST('{\"v\":1}' AS BLOB)"
                   " WHERE seq = (SELECT max(seq) FROM leaf)");
    refused(f, TEKD_ETAMPER, "record-form");
}

/* ---- the anchor file ------------------------------------------------------------------------- */

static void store_open__takes_notice_of_the_anchor(void **state)
{
    struct fixture *f = *state;
    FILE *file;

    f->o.anchor_file = f->anchor;
    make_log(f);
    assert_int_equal(fixture_try_open(f), 0);
    file = fopen(f->anchor, "we");
    assert_non_null(file);
    assert_true(fputs("bsm.example/tekd/audit/1\n3\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    refused(f, TEKD_ETAMPER, "anchor-form");
    assert_int_equal(unlink(f->anchor), 0);
    assert_int_equal(fixture_try_open(f), 0); /* it may have been lost with its volume */
    assert_true(fixture_logged("anchor-missing", f->anchor));
}

/* It would be waited for until somebody writes into it. */
static void store_open__refuses_an_anchor_that_is_no_file(void **state)
{
    struct fixture *f = *state;

    f->o.anchor_file = f->anchor;
    make_log(f);
    assert_int_equal(unlink(f->anchor), 0);
    assert_int_equal(mkfifo(f->anchor, 0600), 0);
    assert_int_equal(fixture_try_open(f), TEKD_EIO);
    assert_true(fixture_logged("anchor-failed", f->anchor));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_close__ends_the_log_under_a_checkpoint),
        TEST(store_open__says_when_its_configuration_is_another_one),
        TEST(store_open__says_when_keys_leave),
        TEST(store_open__adopts_an_unsigned_tail),
        TEST(store_open__says_of_a_crash_without_tail_too),
        TEST(store_open__signs_a_long_tail_in_steps),
        TEST(store_open__adopts_a_stop_that_was_not_signed),
        TEST(store_open__has_all_that_was_answered_before_a_kill),
        TEST(store_open__refuses_the_log_of_another),
        TEST(store_open__upgrades_the_tables_of_schema_1),
        TEST(store_open__upgrades_nothing_that_it_refuses),
        TEST(store_open__refuses_what_is_no_database_of_ours),
        TEST(store_open__checks_the_file_after_a_crash),
        TEST(store_open__refuses_an_edited_record),
        TEST(store_open__refuses_a_missing_record),
        TEST(store_open__refuses_fewer_records_than_signed),
        TEST(store_open__refuses_a_log_cut_to_an_older_checkpoint),
        TEST(store_open__refuses_an_old_backup),
        TEST(store_open__refuses_another_past_under_the_anchor),
        TEST(store_open__refuses_a_changed_range),
        TEST(store_open__refuses_a_note_of_another_key),
        TEST(store_open__refuses_another_key_in_the_token),
        TEST(store_open__refuses_a_missing_key),
        TEST(store_open__refuses_a_wrong_second_line),
        TEST(store_open__refuses_a_wrong_second_line_in_the_anchor),
        TEST(store_open__refuses_another_second_key_in_the_token),
        TEST(store_open__refuses_a_record_after_the_stop),
        TEST(store_open__refuses_a_tail_after_a_clean_stop),
        TEST(store_open__refuses_a_tail_that_is_no_record),
        TEST(store_open__takes_notice_of_the_anchor),
        TEST(store_open__refuses_an_anchor_that_is_no_file),
    };

    return cmocka_run_group_tests_name("store_start", tests, NULL, NULL);
}
