/* docs/audit.md: it names every event and field, and its commands do what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <sys/wait.h>

#include "audit.h"
#include "audit_export.h"

#define DOCS_MAX 65536

static const char *docs(void)
{
    static char text[DOCS_MAX];
    FILE *f = fopen(TEST_DATA_DIR "/../../docs/audit.md", "r");
    size_t len;

    assert_non_null(f);
    len = fread(text, 1, sizeof text - 1, f);
    (void)fclose(f);
    assert_true(len > 0 && len < sizeof text - 1);
    text[len] = '\0';
    return text;
}

/* The line of the table of events that begins with this one, or lists it among others. */
static bool row_of(const char *event, char *out, size_t max)
{
    char quoted[64];
    const char *at = strstr(docs(), "### Events");

    (void)snprintf(quoted, sizeof quoted, "`%s`", event);
    for (at = strstr(at, "\n| `"); at; at = strstr(at + 1, "\n| `")) {
        const char *end = strchr(at + 1, '\n');
        const char *name = strstr(at, quoted);
        const char *second = strstr(at + 3, " |");

        if (!name || name > second)
            continue;
        (void)snprintf(out, max, "%.*s", (int)(end - at), at);
        return true;
    }
    return false;
}

/* The first field of the event that its row lacks; NULL if there is none. */
static const char *lacking(const struct event *e, const char *row)
{
    char field[64];

    for (size_t i = 0; i < e->n_fields; i++) {
        (void)snprintf(field, sizeof field, e->fields[i].optional ? "[%s]" : " %s",
                       e->fields[i].key);
        if (!strstr(row, field))
            return e->fields[i].key;
    }
    return NULL;
}

static void docs__name_every_event_with_its_fields(void **state)
{
#define EVENT(symbol, name, ...) name,
    static const char *const names[] = {
#include "events.def"
    };
#undef EVENT
    char row[1024];

    (void)state;
    for (size_t i = 0; i < EVENT_COUNT; i++) {
        if (!row_of(names[i], row, sizeof row))
            fail_msg("%s is not in docs/audit.md", names[i]);
        if (lacking(event_find(names[i], strlen(names[i])), row))
            fail_msg("%s lacks a field in docs/audit.md: %s", names[i], row);
    }
}

/* Runs the block of commands that begins with this comment, in the export's folder. */
static int run_block(const struct fixture *x, const char *comment, char *out, size_t max)
{
    const char *start = strstr(docs(), comment);
    char path[128], command[512];
    FILE *f;
    size_t n;
    int status;

    assert_non_null(start);
    (void)snprintf(path, sizeof path, "%s/commands", x->dir);
    f = fopen(path, "w");
    assert_non_null(f);
    (void)fprintf(f, "set -e\n%.*s", (int)(strstr(start, "```") - start), start);
    assert_int_equal(fclose(f), 0);
    (void)snprintf(command, sizeof command,
                   "cd %s && mkdir -p tmp && TMP=tmp KEY=key.pem PROOF=proof bash commands 2>&1",
                   x->dir);
    f = popen(command, "r"); /* NOLINT: the command is the test's own */
    assert_non_null(f);
    n = fread(out, 1, max - 1, f);
    out[n] = '\0';
    status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void write_key(const struct fixture *x)
{
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/key.pem", x->dir);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_PUBKEY(f, x->key), 1);
    assert_int_equal(fclose(f), 0);
}

static void docs__check_an_export_by_hand(void **state)
{
    struct fixture *x = export_new();
    char out[4096];

    (void)state;
    /* What a shell might trip over. */
    x->step[export_at(x, "request.refused", 0)].fields =
        "reason=x|addr=a\\b\n  %s $(false) `false`|cert=" HASH_1;
    export_make(x);
    write_key(x);
    assert_int_equal(run_block(x, "# check-export", out, sizeof out), 0);
    assert_non_null(strstr(out, "Verified OK\nsize 23, root "));
    assert_non_null(strstr(out, "the checkpoint is over these records\n"));

    file_replace(export_file(x, "audit.jsonl"), "192.0.2.1", "192.0.2.2");
    export_make_sums(x);
    export_write(x);
    assert_int_not_equal(run_block(x, "# check-export", out, sizeof out), 0);
    assert_non_null(strstr(out, "Verified OK\nsize 23, root "));
    assert_null(strstr(out, "the checkpoint is over"));
    export_free(x);
}

static void docs__check_a_proof_by_hand(void **state)
{
    struct fixture *x = export_new();
    char out[4096], command[256];

    (void)state;
    export_make(x);
    write_key(x);
    (void)snprintf(command, sizeof command, "%s prove %s m-2 > %s/proof", TEK_AUDIT_PROGRAM, x->dir,
                   x->dir);
    assert_int_equal(system(command), 0); /* NOLINT: the command is the test's own */
    assert_int_equal(run_block(x, "# check-proof", out, sizeof out), 0);
    assert_non_null(strstr(out, "Verified OK\nthe record is in the log:\n{\"addr\":"));
    assert_non_null(strstr(out, "\"mid\":\"m-2\""));

    (void)snprintf(command, sizeof command, "sed -i 's/^index 10$/index 9/' %s/proof", x->dir);
    assert_int_equal(system(command), 0); /* NOLINT: the command is the test's own */
    assert_int_not_equal(run_block(x, "# check-proof", out, sizeof out), 0);
    assert_null(strstr(out, "the record is in the log"));
    export_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(docs__name_every_event_with_its_fields),
        cmocka_unit_test(docs__check_an_export_by_hand),
        cmocka_unit_test(docs__check_a_proof_by_hand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
