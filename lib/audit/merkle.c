#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/merkle.h"

enum { LEAF_PREFIX = 0x00, NODE_PREFIX = 0x01 };

/*
 * EVP_sha256() makes OpenSSL search its providers at every use; a fetched digest does not, and a
 * context that is kept saves the allocation.  The digest is the process's, the context the
 * thread's: it goes with the thread.
 */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;
static pthread_key_t context_key;

static void context_free(void *ctx)
{
    EVP_MD_CTX_free(ctx);
}

/* Nothing can be said about a log without SHA-256: no error, the end. */
static void require(bool ok)
{
    if (!ok)
        abort();
}

static void prepare(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    require(sha256 != NULL);
    require(pthread_key_create(&context_key, context_free) == 0);
}

/* This thread's context, which always has the digest set. */
static EVP_MD_CTX *context(void)
{
    EVP_MD_CTX *ctx;

    require(pthread_once(&once, prepare) == 0);
    ctx = pthread_getspecific(context_key);
    if (ctx)
        return ctx;

    ctx = EVP_MD_CTX_new();
    require(ctx && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1);
    require(pthread_setspecific(context_key, ctx) == 0);
    return ctx;
}

struct part {
    const void *octets;
    size_t len;
};

static void hash_parts(const struct part *parts, size_t n, struct merkle_hash *ret_hash)
{
    EVP_MD_CTX *ctx = context();
    unsigned len = 0;

    require(EVP_DigestInit_ex2(ctx, NULL, NULL) == 1);
    for (size_t i = 0; i < n; i++)
        require(EVP_DigestUpdate(ctx, parts[i].octets, parts[i].len) == 1);
    require(EVP_DigestFinal_ex(ctx, ret_hash->octets, &len) == 1 && len == MERKLE_HASH_LEN);
}

void merkle_leaf(const void *octets, size_t len, struct merkle_hash *ret_leaf)
{
    const uint8_t prefix = LEAF_PREFIX;

    hash_parts((const struct part[]){{&prefix, 1}, {octets, len}}, 2, ret_leaf);
}

/* ret_node may be one of the two. */
static void node(const struct merkle_hash *left, const struct merkle_hash *right,
                 struct merkle_hash *ret_node)
{
    uint8_t octets[1 + 2 * MERKLE_HASH_LEN];

    octets[0] = NODE_PREFIX;
    memcpy(octets + 1, left->octets, MERKLE_HASH_LEN);
    memcpy(octets + 1 + MERKLE_HASH_LEN, right->octets, MERKLE_HASH_LEN);
    hash_parts(&(const struct part){octets, sizeof octets}, 1, ret_node);
}

void merkle_range_init(struct merkle_range *r)
{
    *r = (struct merkle_range){.size = 0};
}

size_t merkle_range_count(uint64_t size)
{
    return (size_t)__builtin_popcountll(size);
}

/* As a binary counter: each subtree that the new leaf completes is joined to its left brother. */
void merkle_range_append(struct merkle_range *r, const struct merkle_hash *leaf)
{
    size_t count = merkle_range_count(r->size);
    struct merkle_hash h = *leaf;

    assert(r->size < UINT64_MAX);
    for (uint64_t bits = r->size; bits & 1; bits >>= 1)
        node(&r->node[--count], &h, &h);
    r->node[count] = h;
    r->size++;
}

void merkle_range_root(const struct merkle_range *r, struct merkle_hash *ret_root)
{
    size_t count = merkle_range_count(r->size);
    struct merkle_hash h;

    if (count == 0) {
        hash_parts(NULL, 0, ret_root);
        return;
    }
    h = r->node[--count];
    while (count > 0)
        node(&r->node[--count], &h, &h);
    *ret_root = h;
}

int merkle_range_put(struct buf *b, const struct merkle_range *r)
{
    int result = buf_put_u64(b, r->size);

    if (result < 0)
        return result;
    return buf_append(b, r->node, merkle_range_count(r->size) * MERKLE_HASH_LEN);
}

int merkle_range_get(struct view *v, struct merkle_range *ret_range)
{
    uint64_t size = view_u64(v);
    size_t len = merkle_range_count(size) * MERKLE_HASH_LEN;
    const uint8_t *octets = view_octets(v, len);

    if (v->error || !octets)
        return TEKD_EFORMAT;
    merkle_range_init(ret_range);
    ret_range->size = size;
    memcpy(ret_range->node, octets, len);
    return 0;
}

static void subtree_root(const struct merkle_hash *leaves, uint64_t n, struct merkle_hash *ret_root)
{
    struct merkle_range r;

    merkle_range_init(&r);
    for (uint64_t i = 0; i < n; i++)
        merkle_range_append(&r, &leaves[i]);
    merkle_range_root(&r, ret_root);
}

/* The largest power of two below n; n is at least 2. */
static uint64_t split(uint64_t n)
{
    return UINT64_C(1) << (63 - __builtin_clzll(n - 1));
}

/*
 * PATH() of RFC 6962 from the root down, one brother a step; then turned round.  Every leaf but
 * ours is hashed into exactly one brother.
 */
size_t merkle_inclusion_path(const struct merkle_hash *leaves, uint64_t n, uint64_t index,
                             struct merkle_hash path[static MERKLE_RANGE_MAX])
{
    size_t count = 0;

    assert(index < n);
    while (n > 1) {
        uint64_t left = split(n);

        if (index < left) {
            subtree_root(leaves + left, n - left, &path[count++]);
            n = left;
        } else {
            subtree_root(leaves, left, &path[count++]);
            leaves += left;
            index -= left;
            n -= left;
        }
    }
    for (size_t i = 0; i < count / 2; i++) {
        struct merkle_hash h = path[i];

        path[i] = path[count - 1 - i];
        path[count - 1 - i] = h;
    }
    return count;
}

/*
 * RFC 9162 section 2.1.3.2, a level a step: fn and sn are the positions of our node and of the
 * last one of its level.
 */
int merkle_inclusion_check(const struct merkle_hash *leaf, uint64_t index, uint64_t size,
                           const struct merkle_hash *path, size_t path_len,
                           const struct merkle_hash *root)
{
    uint64_t fn = index;
    uint64_t sn = size - 1;
    struct merkle_hash h = *leaf;

    if (index >= size)
        return TEKD_ECRYPTO;
    for (size_t i = 0; i < path_len; i++) {
        bool brother_is_left = (fn & 1) || fn == sn;
        /* A last node without a brother goes up unchanged to where it has one. */
        int up = brother_is_left && fn != 0 ? __builtin_ctzll(fn) : 0;

        if (sn == 0)
            return TEKD_ECRYPTO;
        if (brother_is_left)
            node(&path[i], &h, &h);
        else
            node(&h, &path[i], &h);
        fn = fn >> up >> 1;
        sn = sn >> up >> 1;
    }
    return sn == 0 && memcmp(&h, root, sizeof h) == 0 ? 0 : TEKD_ECRYPTO;
}

/* ---- consistency ---- */

/*
 * The proof goes up from the last subtree of the old range, a brother a level.  Brothers on the
 * left are the other subtrees of that range.  Those on the right cover what was appended, one
 * behind the other: each begins where the one before it ended, and is as long as that place is
 * divisible by a power of two, or as there are leaves.
 */
static uint64_t right_end(uint64_t begin, uint64_t size)
{
    uint64_t len = begin & -begin;

    return len < size - begin ? begin + len : size;
}

void merkle_growth_init(struct merkle_growth *g, const struct merkle_range *old, uint64_t size)
{
    assert(old->size > 0 && old->size <= size);
    *g = (struct merkle_growth){.old = *old, .whole = *old, .size = size};
    g->part_end = right_end(old->size, size);
}

void merkle_growth_append(struct merkle_growth *g, const struct merkle_hash *leaf)
{
    assert(g->whole.size < g->size);
    merkle_range_append(&g->whole, leaf);
    merkle_range_append(&g->part, leaf);
    if (g->whole.size < g->part_end)
        return;
    merkle_range_root(&g->part, &g->right[g->n_right++]);
    merkle_range_init(&g->part);
    g->part_end = right_end(g->part_end, g->size);
}

/* The verifier knows the old root: where that is the last subtree itself, it is left out. */
size_t merkle_growth_proof(const struct merkle_growth *g,
                           struct merkle_hash proof[static MERKLE_RANGE_MAX])
{
    size_t left = merkle_range_count(g->old.size), right = 0, n = 0;

    assert(g->whole.size == g->size);
    if (g->old.size == g->size)
        return 0;
    if (left-- > 1)
        proof[n++] = g->old.node[left];
    /* at: of the subtree that is reached, among those of its level. */
    for (uint64_t at = (g->old.size >> __builtin_ctzll(g->old.size)) - 1;
         left > 0 || right < g->n_right; at >>= 1) {
        if (at & 1)
            proof[n++] = g->old.node[--left];
        else if (right < g->n_right)
            proof[n++] = g->right[right++];
    }
    return n;
}
