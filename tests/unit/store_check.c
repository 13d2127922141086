#include "store_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct checker {
    const struct store_check *of;
    uint64_t epoch;
    struct log_check result;
    const char *event;
    struct merkle_range range;
    struct merkle_hash *leaf; /* all of them */
    const char *broken;       /* what is wrong; NULL: nothing */
};

static int check_leaf(void *arg, uint64_t place, const void *octets, size_t len)
{
    struct checker *c = arg;
    uint64_t seq = store_place_unpack((int64_t)place).seq;
    AUTO(record) struct record *r = NULL;
    const char *what = NULL;
    uint64_t number = 0;

    if (store_place_unpack((int64_t)place).epoch != c->epoch)
        return 1;
    if (seq != c->result.leaves)
        c->broken = "a hole in seq";
    else if (record_parse(octets, len, &r, &what) < 0)
        c->broken = what;
    else if (!record_get_int(r, "seq", &number) || number != seq)
        c->broken = "a record with another number";
    else if (record_violation(r) != NULL)
        c->broken = record_violation(r);
    if (c->broken != NULL)
        return 1;
    c->leaf = realloc(c->leaf, (seq + 1) * sizeof(c->leaf[0]));
    merkle_leaf(octets, len, &c->leaf[seq]);
    c->result.leaves++;
    if (c->event != NULL && strcmp(record_event(r), c->event) == 0) {
        c->result.count++;
        c->result.seq = seq;
        (void)record_get_int(r, "from", &c->result.from);
        (void)record_get_int(r, "to", &c->result.to);
        (void)record_get_int(r, "count", &c->result.number);
        if (record_get_str(r, "release") != NULL)
            (void)snprintf(c->result.release, sizeof(c->result.release), "%s",
                           record_get_str(r, "release"));
    }
    return 0;
}

static int check_note(void *arg, uint64_t place, const void *octets, size_t len)
{
    struct checker *c = arg;
    uint64_t size = store_place_unpack((int64_t)place).seq;
    char origin[NOTE_ORIGIN_MAX + 1];
    struct merkle_hash root;
    struct note n;

    if (store_place_unpack((int64_t)place).epoch != c->epoch)
        return 1;
    assert_int_equal(note_origin(c->of->bsm_id, c->epoch, origin), 0);
    if (note_read(octets, len, &n) < 0 || n.size != size || size > c->result.leaves)
        c->broken = "a note that is none of these leaves";
    else if (strcmp(n.origin, origin) != 0)
        c->broken = "another origin";
    else if (store_signer_verify(c->of->signer, &n) < 0)
        c->broken = "a note whose signature does not verify";
    if (c->broken != NULL)
        return 1;
    while (c->range.size < size)
        merkle_range_append(&c->range, &c->leaf[c->range.size]);
    merkle_range_root(&c->range, &root);
    if (memcmp(&root, &n.root, sizeof(root)) != 0) {
        c->broken = "a note with another root";
        return 1;
    }
    c->result.notes++;
    c->result.signed_size = size;
    return 0;
}

static int check_all(void *arg, struct store_tx *tx)
{
    struct checker *c = arg;
    int64_t first = store_place_pack(c->epoch, 0);
    struct store_walk leaves = {.after = first - 1, .limit = SIZE_MAX, .arg = c};
    struct store_walk notes = {.after = first, .limit = SIZE_MAX, .arg = c};
    int r = store_tx_leaf_walk(tx, &leaves, check_leaf);

    if (r >= 0 && c->broken == NULL)
        r = store_tx_note_walk(tx, &notes, check_note);
    return r > 0 ? 0 : r;
}

struct log_check store_check_epoch(const struct store_check *of, uint64_t epoch, const char *event)
{
    struct checker c = {.of = of, .epoch = epoch, .event = event};
    int r;

    merkle_range_init(&c.range);
    r = store_call(of->store, STORE_READ, check_all, &c);
    free(c.leaf);
    if (c.broken != NULL)
        fail_msg("record %lu: %s", (unsigned long)c.result.leaves, c.broken);
    assert_int_equal(r, 0);
    return c.result;
}

struct log_check store_check_log(const struct store_check *of, const char *event)
{
    struct store_status st;

    store_status_get(of->store, &st);
    for (uint64_t epoch = 1; epoch < st.epoch; epoch++) {
        struct log_check closed = store_check_epoch(of, epoch, "log.closed");

        assert_int_equal(closed.count, 1);
        assert_int_equal(closed.seq + 1, closed.leaves);
        assert_int_equal(closed.signed_size, closed.leaves);
    }
    return store_check_epoch(of, st.epoch, event);
}
