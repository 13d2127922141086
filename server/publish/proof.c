/*
 * The consistency proof from a checkpoint that somebody has to the newest one.  It is read from the
 * store a page at a time, as whoever reads many records does: the store serves between two pages.
 */
#include "internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tekd/err.h"

#define PAGE      256 /* records */
#define WALK_ENDS 1   /* there are all that are needed */

struct proof_read {
    uint64_t epoch, from;
    struct merkle_range old;
    struct merkle_growth growth;
};

static int read_old(void *arg, struct store_tx *tx)
{
    struct proof_read *p = arg;

    return store_tx_range(tx, (struct store_place){.epoch = p->epoch, .seq = p->from}, &p->old);
}

static int take_leaf(void *arg, uint64_t place, const void *octets, size_t len)
{
    struct proof_read *p = arg;
    struct store_place at = store_place_unpack((int64_t)place);
    struct merkle_hash leaf;

    if (p->growth.whole.size == p->growth.size)
        return WALK_ENDS;
    if (at.epoch != p->epoch || at.seq != p->growth.whole.size)
        return TEKD_ETAMPER;
    merkle_leaf(octets, len, &leaf);
    merkle_growth_append(&p->growth, &leaf);
    return 0;
}

static int read_page(void *arg, struct store_tx *tx)
{
    struct proof_read *p = arg;
    const uint64_t before = p->growth.whole.size;
    const struct store_walk w = {
        .after = store_place_pack(p->epoch, before) - 1, .limit = PAGE, .arg = p};
    int r = store_tx_leaf_walk(tx, &w, take_leaf);

    if (r < 0)
        return r;
    return p->growth.whole.size > before ? 0 : TEKD_ETAMPER;
}

static int read_all(struct publisher *x, struct proof_read *p, const struct note *to)
{
    int r = store_call(x->all->store, STORE_READ, read_old, p);

    if (r < 0)
        return r;
    merkle_growth_init(&p->growth, &p->old, to->size);
    while (r == 0 && p->growth.whole.size < to->size)
        r = publisher_stops(x) ? TEKD_ECLOSED : store_call(x->all->store, STORE_READ, read_page, p);
    return r;
}

static int fail(const struct proof_read *p, int error, char why[static PUBLISH_WHY_MAX])
{
    if (error == TEKD_ENOTFOUND)
        (void)snprintf(why, PUBLISH_WHY_MAX,
                       "it has this log with %" PRIu64 " records, of which there is no checkpoint "
                       "here: another copy of the database?",
                       p->from);
    else if (error == TEKD_ETAMPER)
        (void)snprintf(why, PUBLISH_WHY_MAX,
                       "the records from %" PRIu64 " on do not lead to the checkpoint", p->from);
    else
        (void)snprintf(why, PUBLISH_WHY_MAX, "the records cannot be read: %s",
                       tekd_strerror(error));
    return error;
}

int proof_read(struct publisher *x, const struct publication *n, uint64_t from,
               struct proof *ret_proof, char why[static PUBLISH_WHY_MAX])
{
    struct proof_read p = {.epoch = n->epoch, .from = from};
    struct merkle_hash root;
    int r;

    ret_proof->n = 0;
    if (from == 0 || from == n->note.size)
        return 0;
    r = read_all(x, &p, &n->note);
    if (r == 0) {
        merkle_range_root(&p.growth.whole, &root);
        r = memcmp(&root, &n->note.root, sizeof(root)) == 0 ? 0 : TEKD_ETAMPER;
    }
    if (r < 0)
        return fail(&p, r, why);
    ret_proof->n = merkle_growth_proof(&p.growth, ret_proof->hash);
    return 0;
}
