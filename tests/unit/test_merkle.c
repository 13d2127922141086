/*
 * The known roots are those of the eight-leaf tree that the Certificate Transparency
 * implementations test with; the rest is compared with RFC 6962's definitions written down
 * recursively, over OpenSSL's one-shot digest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/merkle.h"

#define KNOWN_MAX  8
#define PROOF_MAX  40
#define RANDOM_MAX 300

static const char *const known_leaf[KNOWN_MAX] = {
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
};

static const char *const known_root[KNOWN_MAX + 1] = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
};

static void assert_hash(const struct merkle_hash *h, const char *hex)
{
    char text[ENC_HEX_LEN(MERKLE_HASH_LEN) + 1];

    enc_hex(h->octets, MERKLE_HASH_LEN, text);
    assert_string_equal(text, hex);
}

static void known_leaf_hash(size_t i, struct merkle_hash *ret_leaf)
{
    uint8_t octets[16];
    size_t len = strlen(known_leaf[i]) / 2;

    assert_int_equal(enc_hex_read(known_leaf[i], 2 * len, octets, len), 0);
    merkle_leaf(octets, len, ret_leaf);
}

/* MTH() of RFC 6962 section 2.1, word for word. */
static void naive_root(const struct merkle_hash *leaves, uint64_t n, struct merkle_hash *ret_root)
{
    uint8_t octets[1 + 2 * MERKLE_HASH_LEN] = {0x01};
    struct merkle_hash side;
    uint64_t k = 1;

    if (n == 1) {
        *ret_root = leaves[0];
        return;
    }
    while (2 * k < n)
        k *= 2;
    naive_root(leaves, k, &side);
    memcpy(octets + 1, &side, MERKLE_HASH_LEN);
    naive_root(leaves + k, n - k, &side);
    memcpy(octets + 1 + MERKLE_HASH_LEN, &side, MERKLE_HASH_LEN);
    assert_int_equal(EVP_Digest(octets, sizeof octets, ret_root->octets, NULL, EVP_sha256(), NULL),
                     1);
}

static void random_leaves(struct merkle_hash *leaves, size_t n)
{
    assert_int_equal(RAND_bytes((uint8_t *)leaves, (int)(n * sizeof *leaves)), 1);
}

static void merkle_range_root__of_the_known_trees(void **state)
{
    struct merkle_range r;
    struct merkle_hash h;

    (void)state;
    merkle_range_init(&r);
    for (size_t n = 0; n <= KNOWN_MAX; n++) {
        assert_int_equal(r.size, n);
        merkle_range_root(&r, &h);
        assert_hash(&h, known_root[n]);
        if (n < KNOWN_MAX) {
            known_leaf_hash(n, &h);
            merkle_range_append(&r, &h);
        }
    }
}

static void merkle_leaf__has_the_prefix_zero(void **state)
{
    static const uint8_t prefixed[] = {0x00, 'a', 'b', 'c'};
    struct merkle_hash leaf, expected;

    (void)state;
    merkle_leaf("abc", 3, &leaf);
    assert_int_equal(
        EVP_Digest(prefixed, sizeof prefixed, expected.octets, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(&leaf, &expected, sizeof leaf);
}

static void merkle_range_root__agrees_with_the_definition(void **state)
{
    static struct merkle_hash leaves[RANDOM_MAX];
    struct merkle_range r;
    struct merkle_hash root, expected;

    (void)state;
    random_leaves(leaves, RANDOM_MAX);
    merkle_range_init(&r);
    for (size_t n = 1; n <= RANDOM_MAX; n++) {
        merkle_range_append(&r, &leaves[n - 1]);
        merkle_range_root(&r, &root);
        naive_root(leaves, n, &expected);
        assert_memory_equal(&root, &expected, sizeof root);
    }
}

static void merkle_range_count__is_one_node_a_set_bit(void **state)
{
    (void)state;
    assert_int_equal(merkle_range_count(0), 0);
    assert_int_equal(merkle_range_count(1), 1);
    assert_int_equal(merkle_range_count(7), 3);
    assert_int_equal(merkle_range_count(UINT64_C(1) << 40), 1);
    assert_int_equal(merkle_range_count(UINT64_MAX), MERKLE_RANGE_MAX);
}

static void merkle_range_get__gives_back_what_was_put(void **state)
{
    struct merkle_range r, again;
    struct merkle_hash leaf, a, b;
    struct buf *octets = NULL;
    struct view v;

    (void)state;
    assert_int_equal(buf_new(MERKLE_RANGE_OCTETS_MAX, &octets), 0);
    merkle_range_init(&r);
    for (size_t n = 0; n < 70; n++) {
        buf_reset(octets);
        assert_int_equal(merkle_range_put(octets, &r), 0);
        assert_int_equal(buf_len(octets), 8 + merkle_range_count(n) * MERKLE_HASH_LEN);
        v = view_of(buf_data(octets), buf_len(octets));
        assert_int_equal(merkle_range_get(&v, &again), 0);
        assert_int_equal(view_end(&v), 0);
        assert_int_equal(again.size, n);
        merkle_range_root(&r, &a);
        merkle_range_root(&again, &b);
        assert_memory_equal(&a, &b, sizeof a);
        random_leaves(&leaf, 1);
        merkle_range_append(&r, &leaf);
    }
    buf_free(octets);
}

static void merkle_range_get__refuses_every_shorter_input(void **state)
{
    struct merkle_range r, again;
    struct merkle_hash leaf;
    struct buf *octets = NULL;

    (void)state;
    assert_int_equal(buf_new(MERKLE_RANGE_OCTETS_MAX, &octets), 0);
    merkle_range_init(&r);
    random_leaves(&leaf, 1);
    for (size_t n = 0; n < 7; n++)
        merkle_range_append(&r, &leaf);
    assert_int_equal(merkle_range_put(octets, &r), 0);
    for (size_t len = 0; len < buf_len(octets); len++) {
        struct view v = view_of(buf_data(octets), len);

        assert_int_equal(merkle_range_get(&v, &again), TEKD_EFORMAT);
    }
    buf_free(octets);
}

static void merkle_inclusion_path__leads_to_the_root_for_every_leaf(void **state)
{
    struct merkle_hash leaves[PROOF_MAX], path[MERKLE_RANGE_MAX], root;

    (void)state;
    random_leaves(leaves, PROOF_MAX);
    for (uint64_t n = 1; n <= PROOF_MAX; n++) {
        naive_root(leaves, n, &root);
        for (uint64_t i = 0; i < n; i++) {
            size_t len = merkle_inclusion_path(leaves, n, i, path);

            assert_int_equal(merkle_inclusion_check(&leaves[i], i, n, path, len, &root), 0);
        }
    }
}

/* RFC 6962 section 2.1.3: the paths of leaves 0, 3, 4 and 6 in the tree of seven. */
static void merkle_inclusion_path__is_that_of_the_rfc_example(void **state)
{
    struct merkle_hash leaf[7], path[MERKLE_RANGE_MAX], g, h, i, k, l;

    (void)state;
    random_leaves(leaf, 7);
    naive_root(leaf, 2, &g);
    naive_root(leaf + 2, 2, &h);
    naive_root(leaf + 4, 2, &i);
    naive_root(leaf, 4, &k);
    naive_root(leaf + 4, 3, &l);

    assert_int_equal(merkle_inclusion_path(leaf, 7, 0, path), 3);
    assert_memory_equal(&path[0], &leaf[1], sizeof g);
    assert_memory_equal(&path[1], &h, sizeof h);
    assert_memory_equal(&path[2], &l, sizeof l);
    assert_int_equal(merkle_inclusion_path(leaf, 7, 3, path), 3);
    assert_memory_equal(&path[0], &leaf[2], sizeof g);
    assert_memory_equal(&path[1], &g, sizeof g);
    assert_memory_equal(&path[2], &l, sizeof l);
    assert_int_equal(merkle_inclusion_path(leaf, 7, 4, path), 3);
    assert_memory_equal(&path[0], &leaf[5], sizeof g);
    assert_memory_equal(&path[1], &leaf[6], sizeof g);
    assert_memory_equal(&path[2], &k, sizeof k);
    assert_int_equal(merkle_inclusion_path(leaf, 7, 6, path), 2);
    assert_memory_equal(&path[0], &i, sizeof i);
    assert_memory_equal(&path[1], &k, sizeof k);
}

static void merkle_inclusion_check__refuses_any_other_statement(void **state)
{
    struct merkle_hash leaves[PROOF_MAX], path[MERKLE_RANGE_MAX + 1], root, other;
    const uint64_t n = 21, i = 20;
    size_t len;

    (void)state;
    random_leaves(leaves, PROOF_MAX);
    random_leaves(&other, 1);
    naive_root(leaves, n, &root);
    len = merkle_inclusion_path(leaves, n, i, path);
    assert_int_equal(merkle_inclusion_check(&leaves[i], i, n, path, len, &root), 0);

    assert_int_equal(merkle_inclusion_check(&other, i, n, path, len, &root), TEKD_ECRYPTO);
    assert_int_equal(merkle_inclusion_check(&leaves[i], i, n, path, len, &other), TEKD_ECRYPTO);
    assert_int_equal(merkle_inclusion_check(&leaves[i], i, n, path, len - 1, &root), TEKD_ECRYPTO);
    assert_int_equal(merkle_inclusion_check(&leaves[i], n, n, path, len, &root), TEKD_ECRYPTO);
    assert_int_equal(merkle_inclusion_check(&leaves[i], 0, 0, path, len, &root), TEKD_ECRYPTO);
    path[len] = other;
    assert_int_equal(merkle_inclusion_check(&leaves[i], i, n, path, len + 1, &root), TEKD_ECRYPTO);
    for (uint64_t j = 0; j < n; j++)
        if (j != i)
            assert_int_equal(merkle_inclusion_check(&leaves[i], j, n, path, len, &root),
                             TEKD_ECRYPTO);
    for (size_t p = 0; p < len; p++) {
        path[p].octets[31] ^= 1;
        assert_int_equal(merkle_inclusion_check(&leaves[i], i, n, path, len, &root), TEKD_ECRYPTO);
        path[p].octets[31] ^= 1;
    }
}

/* ---- consistency ---- */

#define CONSISTENT_MAX 70

/* SUBPROOF() of RFC 6962 section 2.1.2, word for word. */
static void naive_consistency(uint64_t m, const struct merkle_hash *leaves, uint64_t n, bool whole,
                              struct merkle_hash *proof, size_t *count)
{
    uint64_t k = 1;

    if (m == n) {
        if (!whole)
            naive_root(leaves, n, &proof[(*count)++]);
        return;
    }
    while (2 * k < n)
        k *= 2;
    if (m <= k) {
        naive_consistency(m, leaves, k, whole, proof, count);
        naive_root(leaves + k, n - k, &proof[(*count)++]);
    } else {
        naive_consistency(m - k, leaves + k, n - k, false, proof, count);
        naive_root(leaves, k, &proof[(*count)++]);
    }
}

/* As a log makes it: the old range was stored, the leaves behind it come one after the other. */
static size_t grow(const struct merkle_hash *leaves, uint64_t from, uint64_t to,
                   struct merkle_hash proof[static MERKLE_RANGE_MAX])
{
    struct merkle_range old;
    struct merkle_growth g;
    struct merkle_hash root, expected;

    merkle_range_init(&old);
    for (uint64_t i = 0; i < from; i++)
        merkle_range_append(&old, &leaves[i]);
    merkle_growth_init(&g, &old, to);
    for (uint64_t i = from; i < to; i++)
        merkle_growth_append(&g, &leaves[i]);
    merkle_range_root(&g.whole, &root);
    naive_root(leaves, to, &expected);
    assert_memory_equal(&root, &expected, sizeof root);
    return merkle_growth_proof(&g, proof);
}

static void merkle_growth_proof__agrees_with_the_definition(void **state)
{
    struct merkle_hash leaves[CONSISTENT_MAX], proof[MERKLE_RANGE_MAX], expected[MERKLE_RANGE_MAX];

    (void)state;
    random_leaves(leaves, CONSISTENT_MAX);
    for (uint64_t to = 1; to <= CONSISTENT_MAX; to++) {
        for (uint64_t from = 1; from <= to; from++) {
            size_t n = 0;

            naive_consistency(from, leaves, to, true, expected, &n);
            assert_int_equal(grow(leaves, from, to, proof), n);
            assert_memory_equal(proof, expected, n * sizeof *proof);
        }
    }
}

/* SHA-256 over all proofs for leaves of one octet each, 0 to 69, as tests/e2e/test_tools.py has it
 * from a computation of its own. */
static void merkle_growth_proof__agrees_with_another_computation(void **state)
{
    struct merkle_hash leaves[CONSISTENT_MAX], proof[MERKLE_RANGE_MAX], digest;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    (void)state;
    assert_int_equal(EVP_DigestInit_ex2(ctx, EVP_sha256(), NULL), 1);
    for (uint8_t i = 0; i < CONSISTENT_MAX; i++)
        merkle_leaf(&i, 1, &leaves[i]);
    for (uint64_t to = 1; to <= CONSISTENT_MAX; to++) {
        for (uint64_t from = 1; from <= to; from++) {
            size_t n = grow(leaves, from, to, proof);

            assert_int_equal(EVP_DigestUpdate(ctx, proof, n * sizeof *proof), 1);
        }
    }
    assert_int_equal(EVP_DigestFinal_ex(ctx, digest.octets, NULL), 1);
    EVP_MD_CTX_free(ctx);
    assert_hash(&digest, "7d7f91c46c0471e0890af1e7108b5855bc82229ed3b66e6c07b263b45a5f17ea");
}

static void *hash_in_thread(void *arg)
{
    merkle_leaf("abc", 3, arg);
    return NULL;
}

/* Also what the thread leaves behind: the leak checker sees it in the sanitized run. */
static void merkle_leaf__is_the_same_in_every_thread(void **state)
{
    struct merkle_hash here, there[8];
    pthread_t thread[8];

    (void)state;
    merkle_leaf("abc", 3, &here);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hash_in_thread, &there[i]), 0);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_memory_equal(&here, &there[i], sizeof here);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merkle_range_root__of_the_known_trees),
        cmocka_unit_test(merkle_leaf__has_the_prefix_zero),
        cmocka_unit_test(merkle_range_root__agrees_with_the_definition),
        cmocka_unit_test(merkle_range_count__is_one_node_a_set_bit),
        cmocka_unit_test(merkle_range_get__gives_back_what_was_put),
        cmocka_unit_test(merkle_range_get__refuses_every_shorter_input),
        cmocka_unit_test(merkle_inclusion_path__leads_to_the_root_for_every_leaf),
        cmocka_unit_test(merkle_inclusion_path__is_that_of_the_rfc_example),
        cmocka_unit_test(merkle_inclusion_check__refuses_any_other_statement),
        cmocka_unit_test(merkle_growth_proof__agrees_with_the_definition),
        cmocka_unit_test(merkle_growth_proof__agrees_with_another_computation),
        cmocka_unit_test(merkle_leaf__is_the_same_in_every_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
