#include "audit_export.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/merkle.h"
#include "tekd/record.h"

#define START_US INT64_C(1795353342000000)

const char checkpoint_step[] = "CHECKPOINT";

#define STARTED "version=0.1.0|heartbeat#300|release=signed|config=" HASH_1
#define ANSWERED                                                                                   \
    "|peer=bsa-1|cert=" HASH_1 "|addr=192.0.2.1|dir=pull|kekid=bsa-1/1|out=" HASH_1 "|req=" HASH_2

/* A log of one epoch: two answers, a repeat, a refusal, a clean stop, a crash. */
static const struct step valid[] = {
    {"log.opened", "origin=" ORIGIN, 0, NULL},
    {"log.started", STARTED, 1, NULL},
    {"kek.added", "kekid=storage/1|label=storage|wrap=aes-kw|fp=" HASH_1 "|imported?false", 1,
     NULL},
    {"kek.added", "kekid=bsa-1/1|label=bsa-1|wrap=aes-kw|fp=" HASH_2 "|imported?true", 1, NULL},
    {"bsa.enrolled", "bsa=bsa-1|cert=" HASH_1 "|kekid=bsa-1/1|entitle=*|actor=root", 1, NULL},
    {CHECKPOINT, NULL, 0, NULL},
    {"tek.generated", "keyid=" KEY_1 "|content=urn:x:news|bits#128|kekid=storage/1", 1, NULL},
    {"request.answered", "mid=m-1|content=urn:x:news|keyid=" KEY_1 ANSWERED, 0, NULL},
    {CHECKPOINT, NULL, 0, NULL},
    {"answer.sent", "ref=@m-1|mid=m-1|peer=bsa-1|out=" HASH_1, 1, NULL},
    {"request.repeated",
     "ref=@m-1|mid=m-1|peer=bsa-1|out=" HASH_2 "|addr=192.0.2.1|cert=" HASH_1 "|keyid=" KEY_1
     "|after=@m-1",
     5, NULL},
    {"tek.generated", "keyid=" KEY_2 "|content=urn:x:sport|bits#128|kekid=storage/1", 1, NULL},
    {"request.answered", "mid=m-2|content=urn:x:sport|keyid=" KEY_2 ANSWERED, 0, NULL},
    {CHECKPOINT, NULL, 0, NULL},
    {"answer.sent", "ref=@m-2|mid=m-2|peer=bsa-1|out=" HASH_1, 1, NULL},
    {"request.refused",
     "peer=bsa-1|reason=not-entitled|mid=m-3|addr=192.0.2.1|content=urn:x:no|cert=" HASH_1, 1,
     NULL},
    {"log.heartbeat", "", 290, NULL},
    {"tek.destroyed", "keyid=" KEY_2 "|actor=root", 1, NULL},
    {"log.stopped", "", 1, NULL},
    {CHECKPOINT, NULL, 0, NULL},
    {"log.started", STARTED, 5000, NULL},
    {"log.heartbeat", "", 300, NULL},
    {CHECKPOINT, NULL, 0, NULL},
    {"tls.refused", "cause=unknown-ca|addr=192.0.2.9|count#3", 1, NULL},
    {"log.recovered", "from#@covered|to#@before", 7000, NULL},
    {"log.started", STARTED, 0, NULL},
    {"log.heartbeat", "", 300, NULL},
    {"log.stopped", "", 1, NULL},
    {CHECKPOINT, NULL, 0, NULL},
};

struct fixture *export_new(void)
{
    struct fixture *x = calloc(1, sizeof *x);

    assert_non_null(x);
    memcpy(x->step, valid, sizeof valid);
    x->n_steps = sizeof valid / sizeof valid[0];
    (void)snprintf(x->origin, sizeof x->origin, "%s", ORIGIN);
    x->key = EVP_EC_gen("P-256");
    x->other = EVP_EC_gen("P-256");
    assert_true(x->key && x->other);
    x->other_from = x->only_other_from = NOTES_MAX;
    (void)snprintf(x->dir, sizeof x->dir, "/tmp/test-audit-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    return x;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void clear_lines(struct fixture *x)
{
    for (size_t i = 0; i < x->n_lines; i++)
        free(x->line[i].octets);
    x->n_lines = 0;
}

static void clear_files(struct fixture *x)
{
    for (size_t i = 0; i < x->n_files; i++)
        free(x->file[i].octets);
    x->n_files = 0;
}

void export_free(struct fixture *x)
{
    (void)nftw(x->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    clear_lines(x);
    clear_files(x);
    EVP_PKEY_free(x->key);
    EVP_PKEY_free(x->other);
    free(x);
}

/* ---- steps ---- */

size_t export_at(const struct fixture *x, const char *ev, size_t n)
{
    for (size_t i = 0; i < x->n_steps; i++)
        if (strcmp(x->step[i].ev, ev) == 0 && n-- == 0)
            return i;
    fail_msg("no such step: %s", ev);
    return 0;
}

void export_insert(struct fixture *x, size_t at, struct step s)
{
    assert_true(x->n_steps < STEPS_MAX && at <= x->n_steps);
    memmove(&x->step[at + 1], &x->step[at], (x->n_steps - at) * sizeof s);
    x->step[at] = s;
    x->n_steps++;
}

void export_drop(struct fixture *x, size_t at)
{
    assert_true(at < x->n_steps);
    x->n_steps--;
    memmove(&x->step[at], &x->step[at + 1], (x->n_steps - at) * sizeof x->step[0]);
}

void export_append(struct fixture *x, struct step s)
{
    export_insert(x, x->n_steps, s);
}

/* ---- lines ---- */

/* The last record that gave a key under this Message ID. */
static size_t giver(const struct fixture *x, const char *mid)
{
    char text[300];

    (void)snprintf(text, sizeof text, "\"mid\":\"%s\"", mid);
    for (size_t i = x->n_lines; i-- > 0;)
        if (strstr(x->line[i].octets, text) &&
            (strstr(x->line[i].octets, "\"ev\":\"request.answered\"") ||
             strstr(x->line[i].octets, "\"ev\":\"delivery.prepared\"")))
            return i;
    fail_msg("no key was given under %s", mid);
    return 0;
}

static void set_int(const struct fixture *x, struct record *r, const char *key, const char *value)
{
    if (strcmp(value, "@covered") == 0)
        record_int(r, key, x->n_notes > 0 ? x->sign_at[x->n_notes - 1] : 0);
    else if (strcmp(value, "@before") == 0)
        record_int(r, key, x->n_lines - 1);
    else
        record_int(r, key, strtoull(value, NULL, 10));
}

static void set_field(const struct fixture *x, struct record *r, char *field)
{
    char *sign = strpbrk(field, "=#?");
    char kind;

    assert_non_null(sign);
    kind = *sign;
    *sign++ = '\0';
    if (kind == '#')
        set_int(x, r, field, sign);
    else if (kind == '?')
        record_bool(r, field, strcmp(sign, "true") == 0);
    else if (sign[0] == '@')
        record_ref(r, field, 1, giver(x, sign + 1));
    else
        record_str(r, field, sign);
}

static void add_line(struct fixture *x, const struct step *s, int64_t t_us)
{
    AUTO(record) struct record *r = NULL;
    AUTO(buf) struct buf *b = NULL;
    AUTO_MEM char *fields = strdup(s->fields);
    char *rest = fields;

    assert_int_equal(record_new(s->ev, &r), 0);
    assert_int_equal(buf_new(RECORD_MAX, &b), 0);
    for (char *field = strsep(&rest, "|"); field; field = strsep(&rest, "|"))
        if (field[0] != '\0')
            set_field(x, r, field);
    assert_int_equal(record_encode(r, x->n_lines, t_us, s->inst ? s->inst : "tekd-a", b), 0);
    x->line[x->n_lines].octets = strdup(buf_str(b));
    x->line[x->n_lines].len = buf_len(b);
    x->n_lines++;
}

void export_make_lines(struct fixture *x)
{
    int64_t t_us = START_US;

    clear_lines(x);
    x->n_notes = 0;
    for (size_t i = 0; i < x->n_steps; i++) {
        t_us += INT64_C(1000000) * x->step[i].dt;
        if (x->step[i].ev == CHECKPOINT)
            x->sign_at[x->n_notes++] = x->n_lines;
        else
            add_line(x, &x->step[i], t_us);
    }
}

void export_set_line(struct fixture *x, size_t n, const char *octets)
{
    free(x->line[n].octets);
    x->line[n].octets = strdup(octets);
    x->line[n].len = strlen(octets);
}

/* ---- notes ---- */

void export_add_signature(struct note *n, EVP_PKEY *key)
{
    AUTO(buf) struct buf *text = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t sig[NOTE_SIG_MAX], id[4];
    size_t len = sizeof sig;

    assert_int_equal(buf_new(NOTE_TEXT_MAX, &text), 0);
    assert_int_equal(note_text(n->origin, n->size, &n->root, text), 0);
    assert_int_equal(EVP_DigestSignInit(
                         ctx, NULL, EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256(), NULL, key),
                     1);
    assert_int_equal(EVP_DigestSign(ctx, sig, &len, buf_data(text), buf_len(text)), 1);
    EVP_MD_CTX_free(ctx);
    assert_int_equal(note_key_id(n->origin, key, id), 0);
    assert_int_equal(note_add(n, id, sig, len), 0);
}

struct note export_sign(const struct fixture *x, size_t n, EVP_PKEY *key)
{
    struct note note = {.size = n};
    struct merkle_range range;
    struct merkle_hash leaf;

    (void)snprintf(note.origin, sizeof note.origin, "%s", x->origin);
    merkle_range_init(&range);
    for (size_t i = 0; i < n && i < x->n_lines; i++) {
        merkle_leaf(x->line[i].octets, x->line[i].len, &leaf);
        merkle_range_append(&range, &leaf);
    }
    merkle_range_root(&range, &note.root);
    export_add_signature(&note, key);
    return note;
}

void export_make_notes(struct fixture *x)
{
    for (size_t i = 0; i < x->n_notes; i++) {
        x->note[i] = export_sign(x, x->sign_at[i], i < x->only_other_from ? x->key : x->other);
        if (i >= x->other_from && i < x->only_other_from)
            export_add_signature(&x->note[i], x->other);
    }
}

char *export_note_text(const struct note *n)
{
    AUTO(buf) struct buf *b = NULL;

    assert_int_equal(buf_new(NOTE_MAX, &b), 0);
    assert_int_equal(note_write(n, b), 0);
    return strdup(buf_str(b));
}

/* ---- files ---- */

struct file *export_file(struct fixture *x, const char *name)
{
    for (size_t i = 0; i < x->n_files; i++)
        if (strcmp(x->file[i].name, name) == 0)
            return &x->file[i];
    return NULL;
}

void export_set_file(struct fixture *x, const char *name, const char *octets, size_t len)
{
    struct file *f = export_file(x, name);
    char *copy = malloc(len + 1);

    assert_non_null(copy);
    memcpy(copy, octets, len);
    copy[len] = '\0';
    if (!f) {
        assert_true(x->n_files < FILES_MAX);
        f = &x->file[x->n_files++];
        *f = (struct file){.octets = NULL};
        (void)snprintf(f->name, sizeof f->name, "%s", name);
    }
    free(f->octets);
    f->octets = copy;
    f->len = len;
}

void export_add_key(struct fixture *x, EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char name[32], hex[9], *pem = NULL;
    uint8_t id[4];
    long len;

    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    assert_int_equal(note_key_id(x->origin, key, id), 0);
    enc_hex(id, 4, hex);
    (void)snprintf(name, sizeof name, "keys/%s.pem", hex);
    len = BIO_get_mem_data(bio, &pem);
    export_set_file(x, name, pem, (size_t)len);
    BIO_free(bio);
}

void export_make_files(struct fixture *x)
{
    AUTO(buf) struct buf *lines = NULL;
    AUTO(buf) struct buf *notes = NULL;

    clear_files(x);
    assert_int_equal(buf_new((size_t)1 << 20, &lines), 0);
    assert_int_equal(buf_new((size_t)1 << 20, &notes), 0);
    for (size_t i = 0; i < x->n_lines; i++) {
        assert_int_equal(buf_append(lines, x->line[i].octets, x->line[i].len), 0);
        assert_int_equal(buf_putc(lines, '\n'), 0);
    }
    for (size_t i = 0; i < x->n_notes; i++) {
        AUTO_MEM char *text = export_note_text(&x->note[i]);

        assert_int_equal(buf_printf(notes, "%s\n", text), 0);
        export_set_file(x, "checkpoint", text, strlen(text));
    }
    export_set_file(x, "audit.jsonl", buf_str(lines), buf_len(lines));
    export_set_file(x, "checkpoints.txt", buf_str(notes), buf_len(notes));
    export_set_file(x, "pending.jsonl", "", 0);
    export_add_key(x, x->key);
    export_add_key(x, x->other);
}

void export_make_sums(struct fixture *x)
{
    AUTO(buf) struct buf *sums = NULL;

    assert_int_equal(buf_new((size_t)1 << 16, &sums), 0);
    for (size_t i = 0; i < x->n_files; i++) {
        uint8_t digest[32];
        char hex[65];

        if (strcmp(x->file[i].name, "SHA256SUMS") == 0)
            continue;
        assert_int_equal(
            EVP_Digest(x->file[i].octets, x->file[i].len, digest, NULL, EVP_sha256(), NULL), 1);
        enc_hex(digest, 32, hex);
        assert_int_equal(buf_printf(sums, "%s  %s\n", hex, x->file[i].name), 0);
    }
    export_set_file(x, "SHA256SUMS", buf_str(sums), buf_len(sums));
}

void export_write(struct fixture *x)
{
    char path[160];

    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", x->dir, i == 0 ? "keys" : "anchors");
        (void)mkdir(path, 0700);
    }
    for (size_t i = 0; i < x->n_files; i++) {
        FILE *f;

        (void)snprintf(path, sizeof path, "%s/%s", x->dir, x->file[i].name);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(x->file[i].octets, 1, x->file[i].len, f), x->file[i].len);
        assert_int_equal(fclose(f), 0);
    }
}

void export_make(struct fixture *x)
{
    export_make_lines(x);
    export_make_notes(x);
    export_make_files(x);
    export_make_sums(x);
    export_write(x);
}

/* ---- changes ---- */

static void replace(char **octets, size_t *len, const char *from, const char *to)
{
    char *at = strstr(*octets, from);
    size_t before, after = strlen(from);
    char *changed = NULL;

    if (!at)
        fail_msg("not there: %s", from);
    before = (size_t)(at - *octets);
    assert_true(asprintf(&changed, "%.*s%s%s", (int)before, *octets, to, at + after) >= 0);
    free(*octets);
    *octets = changed;
    *len = strlen(changed);
}

void file_replace(struct file *f, const char *from, const char *to)
{
    assert_non_null(f);
    replace(&f->octets, &f->len, from, to);
}

void line_replace(struct line *l, const char *from, const char *to)
{
    replace(&l->octets, &l->len, from, to);
}

/* ---- looking at it ---- */

struct audit *look_trusting(const struct fixture *x, const struct look *l)
{
    struct audit *a = NULL;

    assert_int_equal(audit_new(&a), 0);
    a->dirfd = open(x->dir, O_RDONLY | O_DIRECTORY);
    assert_true(a->dirfd >= 0);
    assert_int_equal(EVP_PKEY_up_ref(l->key), 1);
    assert_int_equal(audit_bring(a, l->key), 0);
    if (x->bring_both) {
        assert_int_equal(EVP_PKEY_up_ref(x->other), 1);
        assert_int_equal(audit_bring(a, x->other), 0);
    }
    if (l->since) {
        a->since = malloc(sizeof *l->since);
        assert_non_null(a->since);
        *a->since = *l->since;
    }
    a->tsa = l->tsa;
    if (l->tsa)
        assert_int_equal(X509_STORE_up_ref(l->tsa), 1);
    a->n_witnesses = l->n_witnesses;
    if (l->n_witnesses > 0)
        memcpy(a->witness, l->witness, l->n_witnesses * sizeof *l->witness);
    (void)audit_run(a);
    return a;
}

struct audit *look_with(const struct fixture *x, EVP_PKEY *key, const struct note *since)
{
    return look_trusting(x, &(struct look){.key = key, .since = since});
}

struct audit *look(const struct fixture *x)
{
    return look_with(x, x->key, NULL);
}

static void show(const struct audit *a)
{
    for (size_t i = 0; i < a->n_failures; i++)
        print_message("%s: %s: %s\n", a->failure[i].where, a->failure[i].check, a->failure[i].text);
}

void assert_verified(const struct audit *a)
{
    if (a->n_failures > 0)
        show(a);
    assert_int_equal(a->error, 0);
    assert_int_equal(a->n_failures, 0);
}

void assert_refused(const struct audit *a, const char *name, const char *check, const char *text)
{
    assert_int_equal(a->error, 0);
    if (a->n_failures == 0)
        fail_msg("%s: verified", name);
    if (strcmp(a->failure[0].check, check) == 0 && strstr(a->failure[0].text, text))
        return;
    show(a);
    fail_msg("%s: expected a failure %s with %s", name, check, text);
}
