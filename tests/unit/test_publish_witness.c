/* What a witness is sent, and what is made of its answers; the way to it is test_https.c's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cosigner.h"
#include "internal.h"
#include "store_fixture.h"
#include "tekd/enc.h"

#define TIME_S INT64_C(1764000000)

struct place {
    struct fixture *f;
    struct publish all;
    struct publisher x;
    struct publication note;
    char why[PUBLISH_WHY_MAX];
};

static struct cosigner *witness, *stranger; /* of the group */

static int make_witnesses(void **state)
{
    (void)state;
    witness = cosigner_new("witness.example/w1");
    stranger = cosigner_new("witness.example/w2");
    return 0;
}

static int free_witnesses(void **state)
{
    (void)state;
    cosigner_free(witness);
    cosigner_free(stranger);
    return 0;
}

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    void *f = NULL;

    assert_int_equal(fixture_setup(&f), 0);
    assert_non_null(p);
    p->f = f;
    fixture_open(p->f);
    p->all = (struct publish){.store = p->f->store, .lock = PTHREAD_MUTEX_INITIALIZER};
    p->x.all = &p->all;
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    void *f = p->f;

    free(p);
    return fixture_teardown(&f);
}

/* So many records more, under a checkpoint that is read. */
static void grow(struct place *p, unsigned records)
{
    for (unsigned left = records; left > 0;) {
        unsigned n = left > STORE_RECORDS_MAX ? STORE_RECORDS_MAX : left;

        assert_int_equal(probe_run(p->f, STORE_SIGNED, NULL, n), 0);
        left -= n;
    }
    fixture_turn(p->f);
    assert_int_equal(newest_read(p->f->store, &p->note), 0);
}

/* ---- proofs ---------------------------------------------------------------------------------- */

struct leaves {
    struct merkle_hash *leaf;
    size_t n;
};

static int take_leaf(void *arg, uint64_t place, const void *octets, size_t len)
{
    struct leaves *l = arg;

    (void)place;
    l->leaf = reallocarray(l->leaf, l->n + 1, sizeof(*l->leaf));
    assert_non_null(l->leaf);
    merkle_leaf(octets, len, &l->leaf[l->n++]);
    return 0;
}

static int read_leaves(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.after = -1, .limit = SIZE_MAX, .arg = arg};

    return store_tx_leaf_walk(tx, &w, take_leaf);
}

/* Made of all leaves at once. */
static size_t expected_proof(struct place *p, uint64_t from, uint64_t to,
                             struct merkle_hash proof[static MERKLE_RANGE_MAX])
{
    struct leaves l = {.n = 0};
    struct merkle_range old;
    struct merkle_growth g;

    assert_int_equal(store_call(p->f->store, STORE_READ, read_leaves, &l), 0);
    assert_true(l.n >= to);
    merkle_range_init(&old);
    for (uint64_t i = 0; i < from; i++)
        merkle_range_append(&old, &l.leaf[i]);
    merkle_growth_init(&g, &old, to);
    for (uint64_t i = from; i < to; i++)
        merkle_growth_append(&g, &l.leaf[i]);
    free(l.leaf);
    return merkle_growth_proof(&g, proof);
}

static void proof_read__leads_from_a_checkpoint_through_many_pages(void **state)
{
    struct place *p = *state;
    struct merkle_hash expected[MERKLE_RANGE_MAX];
    struct proof proof;
    uint64_t from;
    size_t n;

    grow(p, 3);
    from = p->note.note.size;
    grow(p, 1000);
    assert_int_equal(proof_read(&p->x, &p->note, from, &proof, p->why), 0);
    n = expected_proof(p, from, p->note.note.size, expected);
    assert_true(n > 0 && n <= 63);
    assert_int_equal(proof.n, n);
    assert_memory_equal(proof.hash, expected, n * sizeof(*expected));
}

/* What comes meanwhile is no part of it. */
static void proof_read__ends_at_the_note(void **state)
{
    struct place *p = *state;
    struct merkle_hash expected[MERKLE_RANGE_MAX];
    struct publication note;
    struct proof proof;
    uint64_t from;

    grow(p, 1);
    from = p->note.note.size;
    grow(p, 5);
    note = p->note;
    grow(p, 7);
    assert_int_equal(proof_read(&p->x, &note, from, &proof, p->why), 0);
    assert_int_equal(proof.n, expected_proof(p, from, note.note.size, expected));
    assert_memory_equal(proof.hash, expected, proof.n * sizeof(*expected));
}

static void proof_read__is_empty_at_the_beginning_and_at_the_end(void **state)
{
    struct place *p = *state;
    struct proof proof = {.n = 9};

    grow(p, 2);
    assert_int_equal(proof_read(&p->x, &p->note, 0, &proof, p->why), 0);
    assert_int_equal(proof.n, 0);
    proof.n = 9;
    assert_int_equal(proof_read(&p->x, &p->note, p->note.note.size, &proof, p->why), 0);
    assert_int_equal(proof.n, 0);
}

static void proof_read__knows_sizes_of_checkpoints_only(void **state)
{
    struct place *p = *state;
    struct proof proof;

    grow(p, 2);
    grow(p, 20); /* committed at once: none lies between */
    assert_int_equal(proof_read(&p->x, &p->note, p->note.note.size - 1, &proof, p->why),
                     TEKD_ENOTFOUND);
    assert_non_null(strstr(p->why, "of which there is no checkpoint here"));
}

static void proof_read__finds_records_that_were_changed(void **state)
{
    struct place *p = *state;
    struct proof proof;
    uint64_t from;

    grow(p, 2);
    from = p->note.note.size;
    grow(p, 20);
    p->note.note.root.octets[0] ^= 1;
    assert_int_equal(proof_read(&p->x, &p->note, from, &proof, p->why), TEKD_ETAMPER);
    assert_non_null(strstr(p->why, "do not lead to the checkpoint"));
    p->note.note.root.octets[0] ^= 1;
    p->note.note.size += 1000; /* as if records were missing */
    assert_int_equal(proof_read(&p->x, &p->note, from, &proof, p->why), TEKD_ETAMPER);
}

static void proof_read__ends_with_a_stop(void **state)
{
    struct place *p = *state;
    struct proof proof;
    uint64_t from;

    grow(p, 2);
    from = p->note.note.size;
    grow(p, 20);
    p->all.stopping = true;
    assert_int_equal(proof_read(&p->x, &p->note, from, &proof, p->why), TEKD_ECLOSED);
}

/* ---- questions and answers ------------------------------------------------------------------- */

static void witness_question__has_size_proof_and_note(void **state)
{
    const struct publication n = {.text = "a note\n", .len = 7};
    struct proof proof = {.n = 2};
    AUTO(buf) struct buf *out = NULL;

    (void)state;
    memset(&proof.hash[1], 0xff, sizeof(proof.hash[1]));
    assert_int_equal(buf_new(4096, &out), 0);
    assert_int_equal(witness_question(12, &proof, &n, out), 0);
    assert_string_equal(buf_str(out), "old 12\n"
                                      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
                                      "//////////////////////////////////////////8=\n"
                                      "\n"
                                      "a note\n");
    buf_reset(out);
    proof.n = 0;
    assert_int_equal(witness_question(0, &proof, &n, out), 0);
    assert_string_equal(buf_str(out), "old 0\n\na note\n");
}

/* What becomes of 50 of 100 records. */
static int conflict(const char *type, const char *body, uint64_t *old)
{
    const struct publication n = {.note.size = 100};
    struct https_answer a = {.status = 409};
    AUTO(buf) struct buf *b = NULL;
    char why[PUBLISH_WHY_MAX] = "";
    int r;

    assert_int_equal(buf_new(4096, &b), 0);
    assert_int_equal(buf_puts(b, body), 0);
    (void)snprintf(a.type, sizeof(a.type), "%s", type);
    a.body = b;
    *old = 50;
    r = witness_conflict(&a, &n, old, why);
    assert_int_equal(r == 0, why[0] == '\0');
    return r;
}

static void witness_conflict__takes_the_size_that_it_has(void **state)
{
    uint64_t old;

    (void)state;
    assert_int_equal(conflict("text/x.tlog.size", "70\n", &old), 0);
    assert_int_equal(old, 70);
    assert_int_equal(conflict("text/x.tlog.size", "0\n", &old), 0);
    assert_int_equal(old, 0);
    assert_int_equal(conflict("text/x.tlog.size", "100\n", &old), 0);
    assert_int_equal(old, 100);
}

static void witness_conflict__refuses_what_cannot_be(void **state)
{
    static const char *const bad[] = {
        "",      "70",    "70\n\n", "070\n", "+70\n",
        "-70\n", " 70\n", "70 \n",  "x\n",   "18446744073709551616\n"};
    uint64_t old;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(conflict("text/x.tlog.size", bad[i], &old), TEKD_EFORMAT);
    assert_int_equal(conflict("text/plain", "70\n", &old), TEKD_EFORMAT);
    assert_int_equal(conflict("text/x.tlog.size", "50\n", &old), TEKD_ECRYPTO);
    assert_int_equal(conflict("text/x.tlog.size", "101\n", &old), TEKD_ECRYPTO);
    assert_int_equal(old, 50);
}

/* A note with these lines as an answer. */
static int cosigned(struct place *p, const char *lines, struct buf *out)
{
    struct cosign_key key;
    AUTO(buf) struct buf *body = NULL;

    assert_int_equal(cosign_key_read(witness->key, strlen(witness->key), &key), 0);
    assert_int_equal(buf_new(4096, &body), 0);
    assert_int_equal(buf_puts(body, lines), 0);
    p->why[0] = '\0';
    return witness_cosigned(body, &key, &p->note, out, p->why);
}

static void witness_cosigned__keeps_the_line_of_the_key_alone(void **state)
{
    struct place *p = *state;
    char mine[COSIGN_LINE_MAX], other[COSIGN_LINE_MAX], lines[2048];
    AUTO(buf) struct buf *out = NULL;
    struct note n;
    struct cosignature c;

    grow(p, 2);
    cosigner_line(witness, &p->note.note, TIME_S, mine);
    cosigner_line(stranger, &p->note.note, TIME_S, other);
    (void)snprintf(lines, sizeof(lines), "%s\xe2\x80\x94 %s AAAA\nwhat?\n%s", other, witness->name,
                   mine);
    assert_int_equal(buf_new(COSIGN_NOTE_MAX, &out), 0);
    assert_int_equal(cosigned(p, lines, out), 0);
    assert_memory_equal(buf_data(out), p->note.text, p->note.len);
    assert_string_equal(buf_str(out) + p->note.len, mine);
    assert_int_equal(cosign_note_read(buf_data(out), buf_len(out), &n, &c), 0);
}

static void witness_cosigned__refuses_every_other_answer(void **state)
{
    struct place *p = *state;
    char mine[COSIGN_LINE_MAX], other[COSIGN_LINE_MAX], old[COSIGN_LINE_MAX], lines[2048];
    AUTO(buf) struct buf *out = NULL;

    grow(p, 2);
    cosigner_line(witness, &p->note.note, TIME_S, old);
    grow(p, 2);
    cosigner_line(witness, &p->note.note, TIME_S, mine);
    cosigner_line(stranger, &p->note.note, TIME_S, other);
    assert_int_equal(buf_new(16384, &out), 0);
    assert_int_equal(cosigned(p, "", out), TEKD_ENOTFOUND);
    assert_int_equal(cosigned(p, other, out), TEKD_ENOTFOUND);
    assert_non_null(strstr(p->why, "no cosignature of witness.example/w1"));
    assert_int_equal(cosigned(p, old, out), TEKD_ECRYPTO);
    /* One that does not verify spoils the answer. */
    (void)snprintf(lines, sizeof(lines), "%s%s", old, mine);
    assert_int_equal(cosigned(p, lines, out), TEKD_ECRYPTO);
    mine[strlen(mine) - 1] = '\0'; /* a line without its end */
    assert_int_equal(cosigned(p, mine, out), TEKD_ENOTFOUND);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* The folder of the configuration is in front of the name, and may have what makes a key. */
static void witness_new__takes_a_key_file_in_a_folder_with_a_plus(void **state)
{
    struct place *p = *state;
    char folder[] = "/tmp/tekd+w-XXXXXX", path[64];
    const struct publish_options o = {
        .witness = {.url = "http://127.0.0.1:1/", .key = path}}; /* nobody is there */
    struct publisher *x = NULL;
    FILE *f;

    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/w.vkey", folder);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fprintf(f, "%s\n", witness->key) > 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(witness_new(&o, &x), 0);
    x->all = &p->all;
    assert_true(x->publish(x, &p->note, p->why) < 0);
    assert_string_equal(p->why, "refused");
    x->free(x);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(proof_read__leads_from_a_checkpoint_through_many_pages),
        TEST(proof_read__ends_at_the_note),
        TEST(proof_read__is_empty_at_the_beginning_and_at_the_end),
        TEST(proof_read__knows_sizes_of_checkpoints_only),
        TEST(proof_read__finds_records_that_were_changed),
        TEST(proof_read__ends_with_a_stop),
        cmocka_unit_test(witness_question__has_size_proof_and_note),
        cmocka_unit_test(witness_conflict__takes_the_size_that_it_has),
        cmocka_unit_test(witness_conflict__refuses_what_cannot_be),
        TEST(witness_new__takes_a_key_file_in_a_folder_with_a_plus),
        TEST(witness_cosigned__keeps_the_line_of_the_key_alone),
        TEST(witness_cosigned__refuses_every_other_answer),
    };

    return cmocka_run_group_tests(tests, make_witnesses, free_witnesses);
}
