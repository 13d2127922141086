/*
 * The Merkle tree of RFC 6962 section 2.1 over audit records:
 *     leaf = SHA-256(0x00 || octets)      node = SHA-256(0x01 || left || right)
 * kept as a compact range: the roots of the perfect subtrees that a tree of this size is made of,
 * largest first, one per bit that is set in the size.  Appending and the root need nothing else.
 *
 * Thread rule: plain values; one thread at a time per value.
 */
#ifndef TEKD_MERKLE_H
#define TEKD_MERKLE_H

#include <stddef.h>
#include <stdint.h>

#include "tekd/buf.h"

#define MERKLE_HASH_LEN  32
#define MERKLE_RANGE_MAX 64 /* bits of a size */
/* A range on the wire and in the store: u64 size, then its hashes. */
#define MERKLE_RANGE_OCTETS_MAX (8 + MERKLE_RANGE_MAX * MERKLE_HASH_LEN)

struct merkle_hash {
    uint8_t octets[MERKLE_HASH_LEN];
};

struct merkle_range {
    uint64_t size;
    struct merkle_hash node[MERKLE_RANGE_MAX]; /* popcount(size) of them are in use */
};

/* Digests are fetched once per thread; a failure of OpenSSL's SHA-256 aborts. */
void merkle_leaf(const void *octets, size_t len, struct merkle_hash *ret_leaf);

/* The empty tree. */
void merkle_range_init(struct merkle_range *r);
void merkle_range_append(struct merkle_range *r, const struct merkle_hash *leaf);
/* The root; that of the empty tree is SHA-256 of nothing. */
void merkle_range_root(const struct merkle_range *r, struct merkle_hash *ret_root);

/* How many nodes a range of this size has. */
size_t merkle_range_count(uint64_t size);

/* u64 size (big-endian) and the nodes.  Errors: of buf_append(). */
int merkle_range_put(struct buf *b, const struct merkle_range *r);
/* Errors: TEKD_EFORMAT. */
int merkle_range_get(struct view *v, struct merkle_range *ret_range);

/*
 * Proofs over all leaves of a tree, for tools that hold them: n leaves, the index of one.
 * The path is from the leaf up, at most MERKLE_RANGE_MAX hashes (RFC 6962 section 2.1.1).
 */
size_t merkle_inclusion_path(const struct merkle_hash *leaves, uint64_t n, uint64_t index,
                             struct merkle_hash path[static MERKLE_RANGE_MAX]);
/* Errors: TEKD_ECRYPTO when the path does not lead from the leaf to the root. */
int merkle_inclusion_check(const struct merkle_hash *leaf, uint64_t index, uint64_t size,
                           const struct merkle_hash *path, size_t path_len,
                           const struct merkle_hash *root);

/*
 * A consistency proof (RFC 6962 section 2.1.2) from a tree of a size to a larger one, made from the
 * compact range of the first and the leaves that were appended since, one after the other: a log
 * need not be held, nor read from its beginning.
 */
struct merkle_growth {
    struct merkle_range old;   /* of the first size */
    struct merkle_range whole; /* grows to the second one */
    uint64_t size;             /* the second one */
    struct merkle_range part;  /* the brother on the right that grows at the moment ... */
    uint64_t part_end;         /* ... and what it ends before */
    size_t n_right;
    struct merkle_hash right[MERKLE_RANGE_MAX]; /* those that are whole, lowest first */
};
/* old is not empty and not larger than size. */
void merkle_growth_init(struct merkle_growth *g, const struct merkle_range *old, uint64_t size);
/* The next leaf; not more than size. */
void merkle_growth_append(struct merkle_growth *g, const struct merkle_hash *leaf);
/* When all leaves are there: how many hashes the proof has.  None when the sizes are equal. */
size_t merkle_growth_proof(const struct merkle_growth *g,
                           struct merkle_hash proof[static MERKLE_RANGE_MAX]);

#endif
