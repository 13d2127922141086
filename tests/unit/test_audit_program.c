/* The program tek-audit: its exit status, what it prints, what it remembers and proves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit_export.h"
#include "tekd/enc.h"
#include "tekd/merkle.h"
#include "tekd/record.h"

#define ANSWERED                                                                                   \
    "|peer=bsa-1|cert=" HASH_1 "|addr=192.0.2.1|dir=pull|kekid=bsa-1/1|out=" HASH_1 "|req=" HASH_2
/* ---- the program ---- */

/* What the program wrote and its exit status, of `tek-audit ARGS`; stderr goes along. */
static int run_program(char *out, size_t max, const char *fmt, ...)
{
    char args[512], command[1024];
    va_list ap;
    size_t n;
    FILE *f;
    int status;

    va_start(ap, fmt);
    (void)vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    (void)snprintf(command, sizeof command, "%s %s 2>&1", TEK_AUDIT_PROGRAM, args);
    f = popen(command, "r"); /* NOLINT: the command is the test's own */
    assert_non_null(f);
    n = fread(out, 1, max - 1, f);
    out[n] = '\0';
    status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* What cannot be read is named, and why. */
static void program__says_which_file_it_cannot_read(void **state)
{
    static const char *const names[] = {"SHA256SUMS", "checkpoint", "checkpoints.txt",
                                        "audit.jsonl", "pending.jsonl"};
    struct fixture *x = export_new();
    char path[128], moved[128], expected[256], out[16384];

    (void)state;
    export_make(x);
    export_set_file(x, "key.pem", x->file[4].octets, x->file[4].len);
    export_write(x);
    (void)snprintf(moved, sizeof moved, "%s/moved", x->dir);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", x->dir, names[i]);
        assert_int_equal(rename(path, moved), 0);
        assert_int_equal(i % 2 == 0 ? mkfifo(path, 0600) : symlink("moved", path), 0);
        (void)snprintf(expected, sizeof expected, "tek-audit: %s: no regular file\n", path);
        assert_int_equal(
            run_program(out, sizeof out, "verify %s --key %s/key.pem --first", x->dir, x->dir), 3);
        assert_string_equal(out, expected);
        assert_int_equal(rename(moved, path), 0);
    }
    (void)snprintf(expected, sizeof expected, "tek-audit: %s: Is a directory\n", x->dir);
    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s --first", x->dir, x->dir), 3);
    assert_string_equal(out, expected);
    (void)snprintf(path, sizeof path, "%s/audit.jsonl", x->dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("audit.jsonl", path), 0);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-1", x->dir), 3);
    assert_string_equal(out, "tek-audit: audit.jsonl: no regular file\n");
    export_free(x);
}

/* Nor does a link in the place of a folder lead it elsewhere, or one in the place of a file of it.
 */
static void program__follows_no_link_of_an_export(void **state)
{
    struct fixture *x = export_new();
    char path[128], key[192], moved[128], expected[256], out[16384];
    const char *first;

    (void)state;
    export_make(x);
    export_set_file(x, "key.pem", x->file[4].octets, x->file[4].len);
    export_write(x);
    /* Of the two in keys/. */
    first = x->file[strcmp(x->file[4].name, x->file[5].name) < 0 ? 4 : 5].name;
    (void)snprintf(path, sizeof path, "%s/keys", x->dir);
    (void)snprintf(key, sizeof key, "%s/%s", x->dir, first);
    (void)snprintf(moved, sizeof moved, "%s/moved", x->dir);

    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink("moved", path), 0);
    (void)snprintf(expected, sizeof expected, "tek-audit: %s: its folder is a link, or no folder\n",
                   key);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s/key.pem --first", x->dir, x->dir), 3);
    assert_string_equal(out, expected);
    assert_int_equal(run_program(out, sizeof out, "ledger %s", x->dir), 3);
    assert_string_equal(out, expected);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rename(moved, path), 0);

    assert_int_equal(rename(key, moved), 0);
    assert_int_equal(symlink("../moved", key), 0);
    (void)snprintf(expected, sizeof expected, "tek-audit: %s: no regular file\n", key);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s/key.pem --first", x->dir, x->dir), 3);
    assert_string_equal(out, expected);
    export_free(x);
}

static void program__ends_with_the_status_it_promises(void **state)
{
    struct fixture *x = export_new();
    char key[128], out[16384];

    (void)state;
    export_make(x);
    export_set_file(x, "key.pem", x->file[4].octets, x->file[4].len);
    export_write(x);
    (void)snprintf(key, sizeof key, "%s/key.pem", x->dir);

    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s --first", x->dir, key), 0);
    assert_ptr_equal(strstr(out, "verified 23 records under checkpoint size 23, key "), out);
    assert_non_null(strstr(out, ", 2 messages answered, 1 unattested\n"));
    assert_non_null(strstr(out, "\npull: 2 answered, 2 sent, 1 repeated, 1 refused\n"));
    assert_non_null(strstr(out, "\nrelease: signed (3 starts); keys that left before a checkpoint "
                                "covered their record: 0\n"));
    assert_non_null(strstr(out, "unattested: records 18 to 18\n"));
    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s --first --json", x->dir, key),
                     0);
    assert_ptr_equal(strstr(out, "{\"verified\":true,"), out);

    assert_int_equal(run_program(out, sizeof out,
                                 "verify %s --key %s --first --origin x/tekd/audit/1", x->dir, key),
                     1);
    assert_non_null(strstr(out, "FAILED checkpoint: origin: expected x/tekd/audit/1"));
    assert_int_equal(run_program(out, sizeof out,
                                 "verify %s --key %s --first --json --origin x/tekd/audit/1",
                                 x->dir, key),
                     1);
    assert_ptr_equal(strstr(out, "{\"verified\":false,"), out);
    assert_non_null(strstr(out, "{\"where\":\"checkpoint\",\"check\":\"origin\","));

    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s --key %s --first", x->dir, key, key), 2);
    assert_non_null(strstr(out, "given already"));

    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s", x->dir, key), 2);
    assert_int_equal(run_program(out, sizeof out, "verify %s --first", x->dir), 2);
    assert_int_equal(run_program(out, sizeof out, "verify --key %s --first", key), 2);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s --first --since %s", x->dir, key, key), 2);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --first --key %s --peer x", x->dir, key), 2);
    assert_int_equal(run_program(out, sizeof out, "prove %s", x->dir), 2);
    assert_int_equal(run_program(out, sizeof out, "nonsense"), 2);
    assert_int_equal(run_program(out, sizeof out, "verify %s/no --key %s --first", x->dir, key), 3);
    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s/no --first", x->dir, x->dir),
                     3);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s/checkpoint --first", x->dir, x->dir), 3);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s --since %s", x->dir, key, key), 3);
    export_free(x);
}

static void program__says_what_was_promised(void **state)
{
    static const char started[] = "version=0.1.0|heartbeat#300|config=" HASH_1;
    struct fixture *x = export_new();
    char key[128], out[16384];

    (void)state;
    x->step[export_at(x, "log.started", 0)].fields =
        "version=0.1.0|heartbeat#300|release=durable|config=" HASH_1;
    x->step[export_at(x, "log.started", 2)].fields = started;
    export_drop(x, export_at(x, CHECKPOINT, 1));
    export_make(x);
    export_set_file(x, "key.pem", x->file[4].octets, x->file[4].len);
    export_write(x);
    (void)snprintf(key, sizeof key, "%s/key.pem", x->dir);
    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s --first", x->dir, key), 0);
    assert_non_null(strstr(out,
                           "\nrelease: unknown (1 start), signed (1 start), durable (1 start); "
                           "keys that left before a checkpoint covered their record: 2\n"));
    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s --first --json", x->dir, key),
                     0);
    assert_non_null(strstr(out, "\"sent_early\":2,"));
    assert_non_null(strstr(out, "\"release\":{\"unknown\":1,\"signed\":1,\"durable\":1}"));
    export_free(x);
}

static void assert_holds(const char *path, const char *text)
{
    char octets[NOTE_MAX + 1];
    FILE *f = fopen(path, "r");
    size_t len;

    assert_non_null(f);
    len = fread(octets, 1, NOTE_MAX, f);
    octets[len] = '\0';
    (void)fclose(f);
    assert_string_equal(octets, text);
}

static void program__remembers_the_note_it_verified(void **state)
{
    struct fixture *x = export_new();
    char key[128], note[128], out[8192];
    AUTO_MEM char *verified = NULL;

    (void)state;
    export_make(x);
    export_set_file(x, "key.pem", x->file[4].octets, x->file[4].len);
    export_write(x);
    (void)snprintf(key, sizeof key, "%s/key.pem", x->dir);
    (void)snprintf(note, sizeof note, "%s/remembered", x->dir);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s --first --remember %s", x->dir, key, note),
        0);
    verified = strdup(export_file(x, "checkpoint")->octets);
    assert_holds(note, verified);
    assert_int_equal(
        run_program(out, sizeof out, "verify %s --key %s --since %s", x->dir, key, note), 0);

    /* An older backup of the log is refused, and what was remembered stays. */
    export_drop(x, x->n_steps - 1);
    export_drop(x, x->n_steps - 1);
    export_append(x, (struct step){CHECKPOINT, NULL, 0, NULL});
    export_make(x);
    assert_int_equal(run_program(out, sizeof out, "verify %s --key %s --since %s --remember %s",
                                 x->dir, key, note, note),
                     1);
    assert_non_null(strstr(out, "since: expected 23 records, found 22"));
    assert_holds(note, verified);
    export_free(x);
}

static void program__lists_every_message(void **state)
{
    struct fixture *x = export_new();
    char out[8192];

    (void)state;
    /* A Message ID that wants to write on the terminal and out of its column, and a ContentID that
     * wants to be a formula. */
    x->step[export_at(x, "request.answered", 1)].fields =
        "mid=m\",\033[2J|content==HYPERLINK(1)|keyid=" KEY_2 ANSWERED;
    x->step[export_at(x, "tek.generated", 1)].fields =
        "keyid=" KEY_2 "|content==HYPERLINK(1)|bits#128|kekid=storage/1";
    export_drop(x, export_at(x, "answer.sent", 1));
    export_make(x);
    assert_int_equal(run_program(out, sizeof out, "ledger %s", x->dir), 0);
    assert_non_null(
        strstr(out, "m-1\tbsa-1\tpull\tsent\turn:x:news\t" KEY_1 "\tbsa-1/1\t"
                    "2026-11-22T13:15:47.000000Z\t2026-11-22T13:15:48.000000Z\t6\t1\t0\t\ttrue\n"));
    assert_non_null(strstr(out, "m\",\\x1b[2J\tbsa-1\tpull\tanswered\t=HYPERLINK(1)\t"));
    assert_non_null(strstr(out, "no signature was checked"));
    assert_int_equal(run_program(out, sizeof out, "ledger %s --csv", x->dir), 0);
    assert_non_null(strstr(out, "message_id,peer,direction,state,content_id,"));
    assert_non_null(strstr(out, "\r\n\"m\"\",\\x1b[2J\",\"bsa-1\",\"pull\","));
    assert_non_null(strstr(out, ",\"\\x3dHYPERLINK(1)\",\"" KEY_2 "\","));
    assert_int_equal(run_program(out, sizeof out, "ledger %s --json", x->dir), 0);
    assert_non_null(strstr(out, "{\"message_id\":\"m\\\",\\u001b[2J\",\"peer\":\"bsa-1\","));
    assert_non_null(strstr(out, "\"seq\":6,\"repeats\":1,\"attempts\":0,\"confirmed\":null,"
                                "\"attested\":true}"));
    export_free(x);
}

/* Two deliveries: one pending, one confirmed by a record that is under no checkpoint. */
static void program__lists_deliveries_with_their_confirmation(void **state)
{
#define DELIVERY "|peer=bsa-1|dir=push|content=urn:x:news|keyid=" KEY_1 "|kekid=bsa-1/1|out=" HASH_1
    static const struct step steps[] = {
        {"delivery.prepared", "mid=d-1" DELIVERY, 1, NULL},
        {"delivery.prepared", "mid=d-2" DELIVERY, 1, NULL},
        {"delivery.attempt", "ref=@d-2|mid=d-2|peer=bsa-1|addr=a", 1, NULL},
        {"delivery.attempt", "ref=@d-2|mid=d-2|peer=bsa-1|addr=a", 1, NULL}};
    static const struct step confirmed = {
        "delivery.confirmed", "ref=@d-2|mid=d-2|peer=bsa-1|cert=" HASH_1 "|out=" HASH_1, 1, NULL};
    struct fixture *x = export_new();
    char out[8192];

    (void)state;
    for (size_t i = 0; i < 4; i++)
        export_insert(x, export_at(x, "log.stopped", 0), steps[i]);
    export_insert(x, export_at(x, "log.recovered", 0), confirmed);
    export_make(x);
    assert_int_equal(run_program(out, sizeof out, "ledger %s --json", x->dir), 0);
    assert_non_null(strstr(out, "{\"message_id\":\"d-1\",\"peer\":\"bsa-1\",\"direction\":"
                                "\"push\",\"state\":\"prepared\""));
    assert_non_null(strstr(out, "\"attempts\":0,\"confirmed\":null,\"attested\":true}"));
    assert_non_null(strstr(out, "{\"message_id\":\"d-2\",\"peer\":\"bsa-1\",\"direction\":"
                                "\"push\",\"state\":\"unknown\""));
    assert_non_null(strstr(out, "\"attempts\":2,\"confirmed\":23,\"attested\":false}"));
    /* And when that record is under one. */
    export_insert(x, export_at(x, "log.recovered", 0), (struct step){CHECKPOINT, NULL, 0, NULL});
    export_make(x);
    assert_int_equal(run_program(out, sizeof out, "ledger %s", x->dir), 0);
    assert_non_null(strstr(out, "d-2\tbsa-1\tpush\tconfirmed\t"));
    assert_non_null(strstr(out, "\t2\t23\ttrue\n"));
    export_free(x);
}

/* The Message IDs of the ledger with these options, each with a blank behind it. */
static void assert_listed(const struct fixture *x, const char *options, const char *expected)
{
    char out[8192], found[256] = "";
    char *save = NULL;

    assert_int_equal(run_program(out, sizeof out, "ledger %s %s", x->dir, options), 0);
    for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *tab = strchr(line, '\t');

        if (tab && strncmp(line, "message_id", 10) != 0)
            (void)snprintf(found + strlen(found), sizeof found - strlen(found), "%.*s ",
                           (int)(tab - line), line);
    }
    if (strcmp(found, expected) != 0)
        fail_msg("%s: expected %s, found %s", options, expected, found);
}

static void program__lists_what_is_asked_for(void **state)
{
    static const struct step steps[] = {
        {"delivery.prepared", "mid=d-1" DELIVERY, 1, NULL},
        {"delivery.prepared", "mid=d-2" DELIVERY, 1, NULL},
        {"delivery.attempt", "ref=@d-2|mid=d-2|peer=bsa-1|addr=a", 1, NULL},
        {CHECKPOINT, NULL, 0, NULL},
        {"delivery.confirmed", "ref=@d-2|mid=d-2|peer=bsa-1|cert=" HASH_1 "|out=" HASH_1, 1, NULL}};
    struct fixture *x = export_new();

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        export_insert(x, export_at(x, "tek.destroyed", 0), steps[i]);
    export_make(x);
    assert_listed(x, "", "m-1 m-2 d-1 d-2 ");
    assert_listed(x, "--bsa bsa-1", "m-1 m-2 d-1 d-2 ");
    assert_listed(x, "--bsa bsa-2", "");
    assert_listed(x, "--content urn:x:sport", "m-2 ");
    assert_listed(x, "--pending", "d-1 ");
    assert_listed(x, "--until 2026-11-22T13:15:48Z", "m-1 ");
    assert_listed(x, "--from 2026-11-22T13:15:48 --until 2026-11-22T13:16", "m-2 ");
    assert_listed(x, "--from 2026-11-22T13:16 --content urn:x:news", "d-1 d-2 ");
    assert_listed(x, "--from 2026-11-23", "");
    export_free(x);
}

static void program__refuses_what_is_no_time(void **state)
{
    struct fixture *x = export_new();
    char out[8192];

    (void)state;
    export_make(x);
    assert_int_equal(run_program(out, sizeof out, "ledger %s --from yesterday", x->dir), 2);
    assert_non_null(strstr(out, "yesterday: no time"));
    assert_int_equal(run_program(out, sizeof out, "ledger %s --until 2026-11-22T1", x->dir), 2);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-1 --pending", x->dir), 2);
    export_free(x);
}

/* Reads a proof as its format says and checks it against the record and the checkpoint. */
static void assert_proof(const char *text, const struct line *record, const struct note *n)
{
    struct merkle_hash path[MERKLE_RANGE_MAX], leaf;
    uint8_t octets[RECORD_MAX];
    char extra[ENC_BASE64_LEN(RECORD_MAX) + 1];
    unsigned long long index = 0;
    size_t len = 0, n_path = 0;
    int used = 0;

    assert_int_equal(
        sscanf(text, "c2sp.org/tlog-proof@v1\nextra %10924s\nindex %llu\n%n", extra, &index, &used),
        2);
    assert_int_equal(enc_base64_read(extra, strlen(extra), octets, sizeof octets, &len), 0);
    assert_int_equal(len, record->len);
    assert_memory_equal(octets, record->octets, len);
    for (text += used; *text != '\n'; text += 45) {
        assert_int_equal(enc_base64_read(text, 44, path[n_path++].octets, 32, &len), 0);
        assert_int_equal(text[44], '\n');
    }
    AUTO_MEM char *checkpoint = export_note_text(n);
    assert_string_equal(text + 1, checkpoint);
    merkle_leaf(record->octets, record->len, &leaf);
    assert_int_equal(merkle_inclusion_check(&leaf, index, n->size, path, n_path, &n->root), 0);
}

static void program__proves_a_message(void **state)
{
    struct fixture *x = export_new();
    char out[16384];

    (void)state;
    export_make(x);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-1", x->dir), 0);
    assert_proof(out, &x->line[6], &x->note[x->n_notes - 1]);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-2 --peer bsa-1", x->dir), 0);
    assert_proof(out, &x->line[10], &x->note[x->n_notes - 1]);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-3", x->dir), 1);
    assert_non_null(strstr(out, "no key was given under this Message ID"));
    assert_int_equal(run_program(out, sizeof out, "prove %s m-2 --peer bsa-2", x->dir), 1);

    export_make_files(x);
    file_replace(export_file(x, "audit.jsonl"), "192.0.2.1", "192.0.2.2");
    export_make_sums(x);
    export_write(x);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-2", x->dir), 1);
    assert_non_null(strstr(out, "the records are not what the checkpoint signs"));
    export_file(x, "audit.jsonl")->len -= x->line[x->n_lines - 1].len + 1;
    export_write(x);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-2", x->dir), 1);
    assert_non_null(strstr(out, "fewer records than the checkpoint says"));
    export_free(x);
}

static void program__asks_which_peer(void **state)
{
    struct fixture *x = export_new();
    char out[16384];

    (void)state;
    export_insert(x, export_at(x, "tek.generated", 0),
                  (struct step){"bsa.enrolled",
                                "bsa=bsa-2|cert=" HASH_2 "|kekid=bsa-1/1|entitle=*|actor=root", 1,
                                NULL});
    export_insert(x, export_at(x, "log.heartbeat", 0),
                  (struct step){"request.answered",
                                "mid=m-1|peer=bsa-2|content=urn:x:news|keyid=" KEY_1 "|cert=" HASH_1
                                "|addr=192.0.2.1|dir=pull|kekid=bsa-1/1|out=" HASH_1 "|req=" HASH_2,
                                1, NULL});
    export_make(x);
    assert_int_equal(run_program(out, sizeof out, "prove %s m-1", x->dir), 1);
    assert_non_null(strstr(out, "several peers used this Message ID"));
    assert_int_equal(run_program(out, sizeof out, "prove %s m-1 --peer bsa-2", x->dir), 0);
    assert_ptr_equal(strstr(out, "c2sp.org/tlog-proof@v1\n"), out);
    export_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(program__says_which_file_it_cannot_read),
        cmocka_unit_test(program__follows_no_link_of_an_export),
        cmocka_unit_test(program__ends_with_the_status_it_promises),
        cmocka_unit_test(program__says_what_was_promised),
        cmocka_unit_test(program__remembers_the_note_it_verified),
        cmocka_unit_test(program__lists_every_message),
        cmocka_unit_test(program__lists_what_is_asked_for),
        cmocka_unit_test(program__refuses_what_is_no_time),
        cmocka_unit_test(program__lists_deliveries_with_their_confirmation),
        cmocka_unit_test(program__proves_a_message),
        cmocka_unit_test(program__asks_which_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
