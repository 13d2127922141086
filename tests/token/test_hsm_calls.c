/* The calls, over a real SoftHSM token. */
#include "hsm_fixture.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/merkle.h"
#include "tekd/note.h"

/* ---------------------------------------------------------------- TEKs ------------- */

static void issue(struct fixture *f, unsigned bits, struct hsm_issued *ret_issued)
{
    assert_int_equal(hsm_issue(f->hsm, bits, &f->storage, &f->bsa, fixture_in(10), ret_issued), 0);
}

static void hsm_issue__wraps_one_key_for_both(void **state)
{
    static const unsigned sizes[] = {128, 192, 256};
    struct fixture *f = *state;

    fixture_start(f);
    for (size_t i = 0; i < 3; i++) {
        struct hsm_export ex = {.bits = sizes[i], .storage = &f->storage, .bsa = &f->bsa};
        struct hsm_issued first, second;
        struct hsm_blob data;
        uint8_t tek[64], other[64];

        issue(f, sizes[i], &first);
        issue(f, sizes[i], &second);
        assert_int_equal(fixture_unwrap(fixture_bsa_kek, &first.data, tek), sizes[i] / 8);
        assert_int_equal(fixture_unwrap(fixture_bsa_kek, &second.data, other), sizes[i] / 8);
        assert_memory_not_equal(tek, other, sizes[i] / 8);

        /* The wrap has no nonce: the same key under the same KEK is the same octets. */
        ex.stored = &first.stored;
        assert_int_equal(hsm_export(f->hsm, &ex, fixture_in(10), &data), 0);
        assert_int_equal(data.len, first.data.len);
        assert_memory_equal(data.octets, first.data.octets, data.len);
        assert_memory_not_equal(first.stored.octets, first.data.octets, data.len);
    }
}

static void hsm_issue__without_a_bsa_stores_only(void **state)
{
    struct fixture *f = *state;
    struct hsm_export ex = {.bits = 128, .storage = &f->storage, .bsa = &f->bsa};
    struct hsm_issued got;
    struct hsm_blob data;
    uint8_t tek[64];

    fixture_start(f);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, NULL, fixture_in(10), &got), 0);
    assert_int_equal(got.data.len, 0);
    ex.stored = &got.stored;
    assert_int_equal(hsm_export(f->hsm, &ex, fixture_in(10), &data), 0);
    assert_int_equal(fixture_unwrap(fixture_bsa_kek, &data, tek), 16);
}

static void hsm_issue__refuses_bad_arguments(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;

    fixture_start(f);
    assert_int_equal(hsm_issue(f->hsm, 100, &f->storage, &f->bsa, fixture_in(10), &got),
                     TEKD_EINVAL);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->bsa, &f->storage, fixture_in(10), &got),
                     TEKD_EINVAL);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &f->bsa, fixture_in(-1), &got),
                     TEKD_ETIMEDOUT);
}

static void hsm_issue__takes_a_kek_by_all_three_names(void **state)
{
    struct fixture *f = *state;
    struct hsm_kek kek;
    struct hsm_issued got;

    fixture_start(f);
    kek = f->bsa;
    kek.fingerprint[31] ^= 1;
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &kek, fixture_in(10), &got),
                     TEKD_ENOTFOUND);
    kek = f->bsa;
    kek.id[0] ^= 1;
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &kek, fixture_in(10), &got),
                     TEKD_ENOTFOUND);
    kek = f->bsa;
    memcpy(kek.label, "bsa-2", 6);
    assert_int_equal(hsm_issue(f->hsm, 128, &f->storage, &kek, fixture_in(10), &got),
                     TEKD_ENOTFOUND);
    /* None of that was the worker's fault. */
    issue(f, 128, &got);
}

static void hsm_export__refuses_what_is_no_stored_tek(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    struct hsm_blob data;
    struct hsm_export ex = {.bits = 128, .storage = &f->storage, .bsa = &f->bsa};
    struct hsm_status before, after;

    fixture_start(f);
    issue(f, 128, &got);
    hsm_status_get(f->hsm, &before);
    got.stored.octets[3] ^= 1;
    ex.stored = &got.stored;
    assert_int_equal(hsm_export(f->hsm, &ex, fixture_in(10), &data), TEKD_EFORMAT);
    got.stored.octets[3] ^= 1;
    got.stored.len = 16;
    assert_int_equal(hsm_export(f->hsm, &ex, fixture_in(10), &data), TEKD_EFORMAT);
    got.stored.len = 0;
    assert_int_equal(hsm_export(f->hsm, &ex, fixture_in(10), &data), TEKD_EINVAL);
    hsm_status_get(f->hsm, &after);
    for (size_t i = 0; i < before.n_workers; i++)
        assert_int_equal(before.worker[i].pid, after.worker[i].pid);
}

/* ---------------------------------------------------------------- several at once -- */

static void hsm_make_many__gives_each_what_it_gets_alone(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued earlier;
    struct hsm_blob no_tek;
    struct hsm_kek stranger;
    uint8_t tek[4][64];
    struct hsm_status st;

    fixture_start(f);
    issue(f, 192, &earlier);
    no_tek = earlier.stored;
    no_tek.octets[0] ^= 1;
    stranger = f->bsa;
    stranger.id[0] ^= 1;
    struct hsm_order o[HSM_MANY_MAX] = {
        {.bits = 128, .storage = &f->storage, .bsa = &f->bsa},
        {.bits = 100, .storage = &f->storage, .bsa = &f->bsa, .error = 1},
        {.bits = 256, .storage = &f->storage},
        {.bits = 256, .storage = &f->storage, .bsa = &stranger, .error = 1},
        {.bits = 192, .storage = &f->storage, .bsa = &f->bsa, .stored = &earlier.stored},
        {.bits = 192, .storage = &f->storage, .bsa = &f->bsa, .stored = &no_tek, .error = 1},
        {.bits = 192, .storage = &f->bsa, .bsa = &f->bsa, .error = 1},
        {.bits = 128, .storage = &f->storage, .bsa = &f->bsa},
    };
    const int errors[HSM_MANY_MAX] = {0, TEKD_EINVAL,  0,           TEKD_ENOTFOUND,
                                      0, TEKD_EFORMAT, TEKD_EINVAL, 0};

    hsm_make_many(f->hsm, o, HSM_MANY_MAX, fixture_in(10));
    for (size_t i = 0; i < HSM_MANY_MAX; i++)
        assert_int_equal(o[i].error, errors[i]);
    assert_int_equal(fixture_unwrap(fixture_bsa_kek, &o[0].issued.data, tek[0]), 16);
    assert_int_equal(fixture_unwrap(fixture_bsa_kek, &o[7].issued.data, tek[1]), 16);
    assert_memory_not_equal(tek[0], tek[1], 16);
    assert_int_equal(o[2].issued.data.len, 0);
    assert_int_equal(o[2].issued.stored.len, 40);
    assert_int_equal(o[4].issued.data.len, earlier.data.len);
    assert_memory_equal(o[4].issued.data.octets, earlier.data.octets, earlier.data.len);
    /* All that is the orders' own fault, none of a worker. */
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.worker[0].failures + st.worker[1].failures, 0);
}

static void hsm_make_many__is_too_late_for_all(void **state)
{
    struct fixture *f = *state;
    struct hsm_order o[2] = {{.bits = 128, .storage = &f->storage, .bsa = &f->bsa},
                             {.bits = 128, .storage = &f->storage, .bsa = &f->bsa}};

    fixture_start(f);
    hsm_make_many(f->hsm, o, 2, fixture_in(-1));
    assert_int_equal(o[0].error, TEKD_ETIMEDOUT);
    assert_int_equal(o[1].error, TEKD_ETIMEDOUT);
}

/* The spy counts what each worker does when it starts, too: they are all ready. */
static void start_all(struct fixture *f)
{
    struct hsm_status st;

    fixture_start(f);
    hsm_status_get(f->hsm, &st);
    for (size_t i = 0; i < st.n_workers; i++)
        (void)fixture_worker(f, i);
}

/* One rotation for many BSAs: a TEK is unwrapped once, and gone when the answer is there. */
static void hsm_make_many__unwraps_a_tek_once(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued one, other;
    struct hsm_kek stranger;

    fixture_spy(f);
    f->options.workers = 1;
    start_all(f);
    stranger = f->bsa;
    stranger.id[0] ^= 1;
    issue(f, 128, &one);
    issue(f, 128, &other);
    struct hsm_order o[] = {
        {.bits = 128, .storage = &f->storage, .bsa = &f->bsa, .stored = &one.stored},
        {.bits = 128, .storage = &f->storage, .bsa = &stranger, .stored = &one.stored},
        {.bits = 128, .storage = &f->storage, .bsa = &f->bsa, .stored = &one.stored},
        {.bits = 128, .storage = &f->storage, .bsa = &f->bsa, .stored = &other.stored},
        {.bits = 128, .storage = &f->storage, .bsa = &f->bsa, .stored = &other.stored},
    };
    unsigned unwrapped = fixture_count(f, "C_UnwrapKey");
    unsigned destroyed = fixture_count(f, "C_DestroyObject");

    hsm_make_many(f->hsm, o, 5, fixture_in(10));
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(o[i].error, i == 1 ? TEKD_ENOTFOUND : 0);
    for (size_t i = 0; i < 5; i += 2) {
        const struct hsm_blob *made = i < 3 ? &one.data : &other.data;

        assert_int_equal(o[i].issued.data.len, made->len);
        assert_memory_equal(o[i].issued.data.octets, made->octets, made->len);
    }
    assert_int_equal(fixture_count(f, "C_UnwrapKey") - unwrapped, 2);
    assert_int_equal(fixture_count(f, "C_DestroyObject") - destroyed, 2);
}

static void hsm_issue__destroys_each_tek(void **state)
{
    struct fixture *f = *state;
    unsigned generated, destroyed;
    struct hsm_issued got;

    fixture_spy(f);
    f->options.workers = 1;
    start_all(f);
    issue(f, 128, &got); /* with which the worker looks at the KEKs */
    generated = fixture_count(f, "C_GenerateKey");
    destroyed = fixture_count(f, "C_DestroyObject");
    for (size_t i = 0; i < 20; i++)
        issue(f, 128, &got);
    assert_int_equal(fixture_count(f, "C_GenerateKey") - generated, 20);
    assert_int_equal(fixture_count(f, "C_DestroyObject") - destroyed, 20);
}

/* Calls of the spy's log that wrapped in vain; of them those whose next one destroyed an object.
 * A process numbers its own calls. */
struct vain {
    unsigned wraps, destroyed;
};

static void read_vain(const struct fixture *f, struct vain *ret)
{
    FILE *file = fopen(f->spy_file, "re");
    unsigned n, number = 0, behind = 0;
    char line[512], name[64], call[64] = "";

    assert_non_null(file);
    *ret = (struct vain){0};
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%u: C_%63s", &n, name) == 2) {
            number = n;
            memcpy(call, name, sizeof(call));
        }
        if (strncmp(line, "Returned:", 9) != 0)
            continue;
        if (strcmp(call, "WrapKey") == 0 && strstr(line, "CKR_DEVICE_ERROR") != NULL) {
            ret->wraps++;
            behind = number + 1;
        } else if (number == behind && strcmp(call, "DestroyObject") == 0 &&
                   strstr(line, "CKR_OK") != NULL) {
            ret->destroyed++;
        }
    }
    (void)fclose(file);
}

/* Each worker that tried it, and ends for that: the TEK goes before it does. */
static void hsm_issue__destroys_a_tek_that_is_not_wrapped_for_the_bsa(void **state)
{
    struct fixture *f = *state;
    struct hsm_issued got;
    struct vain vain;

    fixture_spy_on_shim(f, "wraps-192-bits-once");
    f->options.workers = 1;
    start_all(f);
    assert_int_equal(hsm_issue(f->hsm, 192, &f->storage, NULL, fixture_in(10), &got), 0);
    read_vain(f, &vain);
    assert_int_equal(vain.wraps, 0);
    assert_int_equal(hsm_issue(f->hsm, 192, &f->storage, &f->bsa, fixture_in(30), &got), TEKD_EHSM);
    read_vain(f, &vain);
    assert_in_range(vain.wraps, 1, 2);
    assert_int_equal(vain.destroyed, vain.wraps);
}

static void hsm_health__works_and_needs_the_kek(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    assert_int_equal(hsm_health(f->hsm, &f->storage, fixture_in(10)), 0);
    f->storage.fingerprint[0] ^= 1;
    assert_int_equal(hsm_health(f->hsm, &f->storage, fixture_in(10)), TEKD_ENOTFOUND);
}

/* ---------------------------------------------------------------- KEKs ------------- */

static void hsm_describe_kek__reports_the_binding(void **state)
{
    struct fixture *f = *state;
    struct hsm_kek_report report;

    fixture_start(f);
    assert_int_equal(hsm_describe_kek(f->hsm, FIXTURE_BSA, HSM_KEK_BSA, HSM_WRAP_AES_KW,
                                      fixture_in(10), &report),
                     0);
    assert_string_equal(report.kek.label, FIXTURE_BSA);
    assert_true(report.kek.id_len > 0);
    assert_true(report.imported);
    assert_int_equal(strlen(report.check_value), 6);
    assert_int_equal(
        hsm_describe_kek(f->hsm, "bsa-2", HSM_KEK_BSA, HSM_WRAP_AES_KW, fixture_in(10), &report),
        0);
    assert_false(report.imported);
}

static void hsm_describe_kek__refuses_unknown_and_weak_keys(void **state)
{
    struct fixture *f = *state;
    struct hsm_kek_report report;

    fixture_pkcs11_tool(f, "--keygen", "--key-type", "aes:32", "--label", "weak", "--id", "77",
                        NULL);
    fixture_start(f);
    assert_int_equal(
        hsm_describe_kek(f->hsm, "nobody", HSM_KEK_BSA, HSM_WRAP_AES_KW, fixture_in(10), &report),
        TEKD_ENOTFOUND);
    assert_true(report.text[0] != 0);
    assert_int_equal(
        hsm_describe_kek(f->hsm, "weak", HSM_KEK_BSA, HSM_WRAP_AES_KW, fixture_in(10), &report),
        TEKD_EWEAK);
    assert_non_null(strstr(report.text, "CKA_"));
    /* A storage KEK may unwrap; one for a BSA must not. */
    assert_int_equal(hsm_describe_kek(f->hsm, FIXTURE_STORAGE, HSM_KEK_BSA, HSM_WRAP_AES_KW,
                                      fixture_in(10), &report),
                     TEKD_EWEAK);
    assert_int_equal(
        hsm_describe_kek(f->hsm, "", HSM_KEK_BSA, HSM_WRAP_AES_KW, fixture_in(10), &report),
        TEKD_EINVAL);
}

static void hsm_describe_kek__refuses_two_of_one_label(void **state)
{
    struct fixture *f = *state;
    struct hsm_kek_report report;

    fixture_pkcs11_tool(f, "--keygen", "--key-type", "aes:32", "--label", FIXTURE_BSA, "--id", "78",
                        NULL);
    assert_int_equal(fixture_start_any(f), HSM_READY);
    assert_int_equal(hsm_describe_kek(f->hsm, FIXTURE_BSA, HSM_KEK_BSA, HSM_WRAP_AES_KW,
                                      fixture_in(10), &report),
                     TEKD_EEXIST);
}

/* ---------------------------------------------------------------- signing ---------- */

static EVP_PKEY *public_key(struct fixture *f, enum hsm_public which)
{
    struct hsm_spki spki;
    const uint8_t *p = spki.der;
    EVP_PKEY *key;

    assert_int_equal(hsm_public_key(f->hsm, which, fixture_in(10), &spki), 0);
    key = d2i_PUBKEY(NULL, &p, spki.len);
    assert_non_null(key);
    return key;
}

static void hsm_sign_tls__verifies_with_the_public_key(void **state)
{
    struct fixture *f = *state;
    struct hsm_signature sig;
    uint8_t digest[48];
    EVP_PKEY_CTX *ctx;
    EVP_PKEY *key;

    fixture_start(f);
    key = public_key(f, HSM_PUBLIC_TLS);
    ctx = EVP_PKEY_CTX_new(key, NULL);
    memset(digest, 0x5a, sizeof(digest));
    for (size_t len = 32; len <= 48; len += 16) {
        assert_int_equal(hsm_sign_tls(f->hsm, digest, len, fixture_in(10), &sig), 0);
        assert_int_equal(EVP_PKEY_verify_init(ctx), 1);
        assert_int_equal(EVP_PKEY_verify(ctx, sig.octets, sig.len, digest, len), 1);
    }
    assert_int_equal(hsm_sign_tls(f->hsm, digest, 0, fixture_in(10), &sig), TEKD_EINVAL);
    assert_int_equal(hsm_sign_tls(f->hsm, digest, HSM_DIGEST_MAX + 1, fixture_in(10), &sig),
                     TEKD_EINVAL);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
}

struct chain {
    struct note last;
    struct merkle_range range;
    struct merkle_hash leaf[HSM_LEAVES_MAX];
};

static void chain_init(struct chain *c)
{
    memset(c, 0, sizeof(*c));
    memcpy(c->last.origin, "bsm.example.net/tekd/audit/1", 29);
    merkle_range_init(&c->range);
    merkle_range_root(&c->range, &c->last.root);
    for (size_t i = 0; i < HSM_LEAVES_MAX; i++)
        merkle_leaf(&i, sizeof(i), &c->leaf[i]);
}

/* n leaves more, from `from` of the leaves on; the chain moves only when it is signed. */
static int chain_sign(struct fixture *f, struct chain *c, size_t from, size_t n)
{
    const struct hsm_checkpoint in = {
        .last = &c->last, .range = &c->range, .leaves = c->leaf + from, .n = n};
    struct note note;
    int r = hsm_sign_checkpoint(f->hsm, &in, fixture_in(10), &note);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        merkle_range_append(&c->range, &c->leaf[from + i]);
    c->last = note;
    return 0;
}

static void hsm_sign_checkpoint__extends_a_chain(void **state)
{
    static const size_t steps[] = {1, 0, 2, 256, 100, 3};
    struct fixture *f = *state;
    struct merkle_hash root;
    struct chain c;
    EVP_PKEY *key;

    fixture_start(f);
    key = public_key(f, HSM_PUBLIC_CHECKPOINT);
    chain_init(&c);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(chain_sign(f, &c, 0, steps[i]), 0);
        assert_int_equal(c.last.size, c.range.size);
        merkle_range_root(&c.range, &root);
        assert_memory_equal(root.octets, c.last.root.octets, 32);
        assert_int_equal(note_verify(&c.last, key), 0);
    }
    EVP_PKEY_free(key);
}

static void hsm_sign_checkpoint__signs_the_empty_log(void **state)
{
    struct fixture *f = *state;
    struct chain c;

    fixture_start(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 0), 0);
    assert_int_equal(c.last.size, 0);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
}

static void hsm_sign_checkpoint__repeats_what_it_signed(void **state)
{
    struct fixture *f = *state;
    struct chain c, before;

    fixture_start(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    before = c;
    assert_int_equal(chain_sign(f, &c, 5, 5), 0);
    /* The answer was lost: the same again, and the same with more that came meanwhile. */
    c = before;
    assert_int_equal(chain_sign(f, &c, 5, 5), 0);
    c = before;
    assert_int_equal(chain_sign(f, &c, 5, 9), 0);
    assert_int_equal(c.last.size, 14);
}

static void hsm_sign_checkpoint__refuses_a_rollback(void **state)
{
    struct fixture *f = *state;
    struct chain c, before;

    fixture_start(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    before = c;
    assert_int_equal(chain_sign(f, &c, 5, 5), 0);
    c = before;
    assert_int_equal(chain_sign(f, &c, 5, 0), TEKD_ETAMPER); /* shorter */
    assert_int_equal(chain_sign(f, &c, 5, 4), TEKD_ETAMPER);
    assert_int_equal(chain_sign(f, &c, 20, 5), TEKD_ETAMPER);   /* as long, other leaves */
    assert_int_equal(chain_sign(f, &c, 20, 200), TEKD_ETAMPER); /* longer, other leaves */
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 20, 200), TEKD_ETAMPER); /* from the start anew */
    /* Another log of the same key is its own. */
    c.last.origin[0] = 'B';
    assert_int_equal(chain_sign(f, &c, 20, 3), 0);
}

static void hsm_sign_checkpoint__begins_the_next_epoch_and_no_other(void **state)
{
    struct fixture *f = *state;
    struct chain first, second;

    fixture_start(f);
    chain_init(&first);
    assert_int_equal(chain_sign(f, &first, 0, 5), 0);
    chain_init(&second);
    second.last.origin[27] = '3'; /* one is left out */
    assert_int_equal(chain_sign(f, &second, 20, 3), TEKD_ETAMPER);
    second.last.origin[27] = '2';
    assert_int_equal(chain_sign(f, &second, 20, 3), 0);
    assert_int_equal(chain_sign(f, &second, 23, 1), 0);
    /* The one before is over, and the new one is as safe as it was. */
    assert_int_equal(chain_sign(f, &first, 5, 1), TEKD_ETAMPER);
    assert_int_equal(chain_sign(f, &first, 5, 0), TEKD_ETAMPER);
    chain_init(&first);
    first.last.origin[27] = '2';
    assert_int_equal(chain_sign(f, &first, 20, 3), TEKD_ETAMPER);
    assert_int_equal(chain_sign(f, &second, 24, 1), 0);
}

static void hsm_sign_checkpoint__refuses_a_range_of_another_log(void **state)
{
    struct fixture *f = *state;
    struct chain c, bad;

    fixture_start(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    bad = c;
    bad.range.node[0].octets[0] ^= 1;
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    bad = c;
    merkle_range_append(&bad.range, &c.leaf[7]);
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    chain_init(&bad);
    bad.last.origin[27] = '3';
    bad.last.root.octets[0] ^= 1; /* a log that claims to be empty with another root */
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    assert_int_equal(chain_sign(f, &c, 5, 1), 0);
}

static void hsm_sign_checkpoint__refuses_a_note_not_its_own(void **state)
{
    struct fixture *f = *state;
    struct chain c, bad;

    fixture_start(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    bad = c;
    bad.last.signature[0].octets[20] ^= 1;
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    bad = c;
    bad.last.n_signatures = 0;
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    bad = c;
    bad.last.origin[27] = '4'; /* the signature is for another origin */
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    bad = c;
    bad.last.size = 6; /* a size that was not signed */
    merkle_range_append(&bad.range, &c.leaf[5]);
    merkle_range_root(&bad.range, &bad.last.root);
    assert_int_equal(chain_sign(f, &bad, 6, 1), TEKD_ETAMPER);
    bad = c;
    bad.last.origin[5] = '\n';
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_EFORMAT);
}

/* ---------------------------------------------------------------- two signatures --- */

static void start_with_second(struct fixture *f)
{
    fixture_stop(f);
    f->options.ed25519_key = FIXTURE_ED25519;
    fixture_start(f);
}

static void start_without_second(struct fixture *f)
{
    fixture_stop(f);
    f->options.ed25519_key = NULL;
    fixture_start(f);
}

static void hsm_sign_checkpoint__signs_with_both_keys(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *keys[2];
    struct chain c;

    start_with_second(f);
    keys[0] = public_key(f, HSM_PUBLIC_CHECKPOINT);
    keys[1] = public_key(f, HSM_PUBLIC_ED25519);
    assert_int_equal(EVP_PKEY_get_base_id(keys[1]), EVP_PKEY_ED25519);
    chain_init(&c);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(chain_sign(f, &c, 5 * i, 5), 0);
        assert_int_equal(c.last.n_signatures, 2);
        for (size_t k = 0; k < 2; k++) {
            uint8_t id[4];

            assert_int_equal(note_key_id(c.last.origin, keys[k], id), 0);
            assert_memory_equal(c.last.signature[k].key_id, id, sizeof(id));
            assert_int_equal(note_verify(&c.last, keys[k]), 0);
        }
    }
    EVP_PKEY_free(keys[0]);
    EVP_PKEY_free(keys[1]);
}

/* Each start is another worker, which knows of the last note what it is shown. */
static void hsm_sign_checkpoint__goes_on_when_the_second_key_comes_and_goes(void **state)
{
    struct fixture *f = *state;
    struct hsm_spki spki;
    struct chain c;

    fixture_start(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    assert_int_equal(c.last.n_signatures, 1);
    assert_int_equal(hsm_public_key(f->hsm, HSM_PUBLIC_ED25519, fixture_in(10), &spki),
                     TEKD_EINVAL);
    start_with_second(f);
    assert_int_equal(chain_sign(f, &c, 5, 0), 0); /* the same size again, now with both */
    assert_int_equal(c.last.n_signatures, 2);
    assert_int_equal(chain_sign(f, &c, 5, 5), 0);
    start_without_second(f);
    assert_int_equal(chain_sign(f, &c, 10, 5), 0);
    assert_int_equal(c.last.n_signatures, 1);
}

static void hsm_sign_checkpoint__checks_its_second_signature(void **state)
{
    struct fixture *f = *state;
    struct chain c, bad;

    start_with_second(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    bad = c;
    bad.last.signature[1].octets[20] ^= 1;
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    bad = c; /* the key ids exchanged */
    memcpy(bad.last.signature[0].key_id, c.last.signature[1].key_id, 4);
    memcpy(bad.last.signature[1].key_id, c.last.signature[0].key_id, 4);
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    bad = c; /* twice, and wrong the second time */
    bad.last.signature[2] = bad.last.signature[1];
    bad.last.signature[2].octets[0] ^= 1;
    bad.last.n_signatures = 3;
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    bad = c; /* only the second */
    bad.last.signature[0] = bad.last.signature[1];
    bad.last.n_signatures = 1;
    assert_int_equal(chain_sign(f, &bad, 5, 1), TEKD_ETAMPER);
    start_without_second(f); /* then it is not looked at */
    bad = c;
    bad.last.signature[1].octets[20] ^= 1;
    assert_int_equal(chain_sign(f, &bad, 5, 1), 0);
}

/* A token that signs texts wrongly gets no checkpoint out. */
static void hsm_sign_checkpoint__refuses_a_wrong_second_signature(void **state)
{
    struct fixture *f = *state;
    struct chain c;

    fixture_shim(f, "signs-texts-wrongly");
    start_with_second(f);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), TEKD_EHSM);
}

/* ---------------------------------------------------------------- replaced keys ---- */

/* Labels; NULL: there is no such key. */
struct labels {
    const char *main, *ed25519, *before, *ed25519_before;
};
static const struct labels old_keys = {"checkpoint-1", FIXTURE_ED25519, NULL, NULL};
static const struct labels overlap = {"tls-1", FIXTURE_ED25519_2, "checkpoint-1", FIXTURE_ED25519};
static const struct labels new_keys = {"tls-1", FIXTURE_ED25519_2, NULL, NULL};

static void start_with(struct fixture *f, const struct labels *l)
{
    fixture_stop(f);
    f->options.checkpoint_key = l->main;
    f->options.ed25519_key = l->ed25519;
    f->options.checkpoint_key_before = l->before;
    f->options.ed25519_key_before = l->ed25519_before;
    fixture_start(f);
}

static void hsm_sign_checkpoint__signs_with_the_keys_before_too(void **state)
{
    static const enum hsm_public order[] = {HSM_PUBLIC_CHECKPOINT, HSM_PUBLIC_ED25519,
                                            HSM_PUBLIC_CHECKPOINT_BEFORE,
                                            HSM_PUBLIC_ED25519_BEFORE};
    struct fixture *f = *state;
    struct hsm_spki spki;
    struct chain c;
    EVP_PKEY *old;

    start_with(f, &old_keys);
    old = public_key(f, HSM_PUBLIC_CHECKPOINT);
    for (size_t i = 2; i < 4; i++)
        assert_int_equal(hsm_public_key(f->hsm, order[i], fixture_in(10), &spki), TEKD_EINVAL);
    start_with(f, &overlap);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    assert_int_equal(c.last.n_signatures, 4);
    for (size_t i = 0; i < 4; i++) {
        EVP_PKEY *key = public_key(f, order[i]);
        uint8_t id[4];

        assert_int_equal(note_key_id(c.last.origin, key, id), 0);
        assert_memory_equal(c.last.signature[i].key_id, id, sizeof(id));
        assert_int_equal(note_verify(&c.last, key), 0);
        EVP_PKEY_free(key);
    }
    assert_int_equal(note_verify(&c.last, old), 0);
    EVP_PKEY_free(old);
}

/* From a note of the old keys to one of the new keys alone; by the new ones alone it is none. */
static void hsm_sign_checkpoint__goes_over_to_the_new_keys(void **state)
{
    struct fixture *f = *state;
    struct chain c;

    start_with(f, &old_keys);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    start_with(f, &new_keys);
    assert_int_equal(chain_sign(f, &c, 5, 1), TEKD_ETAMPER);
    start_with(f, &overlap);
    assert_int_equal(chain_sign(f, &c, 5, 1), 0);
    assert_int_equal(chain_sign(f, &c, 6, 1), 0);
    assert_int_equal(c.last.n_signatures, 4);
    start_with(f, &new_keys);
    assert_int_equal(chain_sign(f, &c, 7, 1), 0);
    assert_int_equal(c.last.n_signatures, 2);
    /* Nor is there a way back without the overlap. */
    start_with(f, &old_keys);
    assert_int_equal(chain_sign(f, &c, 8, 1), TEKD_ETAMPER);
    start_with(f, &(struct labels){"checkpoint-1", NULL, "tls-1", NULL});
    assert_int_equal(chain_sign(f, &c, 8, 1), 0);
    assert_int_equal(c.last.n_signatures, 2);
}

/* Which lines of a note with four make it one of ours. */
static void hsm_sign_checkpoint__checks_the_lines_of_replaced_keys(void **state)
{
    static const struct {
        unsigned lines; /* bits of those that are left */
        int wrong;      /* the damaged one; -1: none */
        int expected;
    } cases[] = {
        {0xf, -1, 0},
        {0x1, -1, 0},
        {0x4, -1, 0},
        {0x2, -1, TEKD_ETAMPER},
        {0x8, -1, TEKD_ETAMPER},
        {0xa, -1, TEKD_ETAMPER},
        {0xf, 0, TEKD_ETAMPER},
        {0xf, 1, TEKD_ETAMPER},
        {0xf, 2, TEKD_ETAMPER},
        {0xf, 3, TEKD_ETAMPER},
        {0x5, 2, TEKD_ETAMPER},
        {0x4, 2, TEKD_ETAMPER},
    };
    struct fixture *f = *state;
    struct chain c;

    start_with(f, &overlap);
    chain_init(&c);
    assert_int_equal(chain_sign(f, &c, 0, 5), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct chain changed = c;

        changed.last.n_signatures = 0;
        for (int k = 0; k < 4; k++) {
            struct note_signature *s = &changed.last.signature[changed.last.n_signatures];

            if ((cases[i].lines & 1U << k) == 0)
                continue;
            *s = c.last.signature[k];
            s->octets[20] ^= k == cases[i].wrong;
            changed.last.n_signatures++;
        }
        assert_int_equal(chain_sign(f, &changed, 5, 0), cases[i].expected);
    }
}

/* ---------------------------------------------------------------- status ----------- */

static void hsm_status_get__shows_token_and_workers(void **state)
{
    struct fixture *f = *state;
    struct hsm_status st;

    fixture_start(f);
    (void)fixture_worker(f, 1);
    hsm_status_get(f->hsm, &st);
    assert_int_equal(st.state, HSM_READY);
    assert_string_equal(st.token_label, "tekd-test");
    assert_true(st.token_serial[0] != 0);
    assert_true(st.token_model[0] != 0);
    assert_string_equal(st.reason, "");
    assert_int_equal(st.error, 0);
    assert_false(st.prevents_wrap_out); /* SoftHSM cannot */
    assert_int_equal(st.n_workers, 4);
    assert_string_equal(st.worker[0].role, "key");
    assert_string_equal(st.worker[2].role, "audit");
    assert_string_equal(st.worker[3].role, "tls");
}

/* With a profile that makes TEKs wrappable by trusted KEKs only, and KEKs that are not. */
static void hsm_status_get__shows_a_token_that_keeps_teks_in(void **state)
{
    struct fixture *f = *state;
    struct hsm_kek_report report;
    struct hsm_status st;

    f->options.profile = "nshield";
    assert_int_equal(fixture_start_any(f), HSM_READY);
    hsm_status_get(f->hsm, &st);
    assert_true(st.prevents_wrap_out);
    assert_int_equal(hsm_describe_kek(f->hsm, FIXTURE_BSA, HSM_KEK_BSA, HSM_WRAP_AES_KW,
                                      fixture_in(10), &report),
                     TEKD_EWEAK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(hsm_issue__wraps_one_key_for_both),
        TEST(hsm_issue__without_a_bsa_stores_only),
        TEST(hsm_issue__refuses_bad_arguments),
        TEST(hsm_issue__takes_a_kek_by_all_three_names),
        TEST(hsm_export__refuses_what_is_no_stored_tek),
        TEST(hsm_make_many__gives_each_what_it_gets_alone),
        TEST(hsm_make_many__is_too_late_for_all),
        TEST(hsm_make_many__unwraps_a_tek_once),
        TEST(hsm_issue__destroys_each_tek),
        TEST(hsm_issue__destroys_a_tek_that_is_not_wrapped_for_the_bsa),
        TEST(hsm_health__works_and_needs_the_kek),
        TEST(hsm_describe_kek__reports_the_binding),
        TEST(hsm_describe_kek__refuses_unknown_and_weak_keys),
        TEST(hsm_describe_kek__refuses_two_of_one_label),
        TEST(hsm_sign_tls__verifies_with_the_public_key),
        TEST(hsm_sign_checkpoint__extends_a_chain),
        TEST(hsm_sign_checkpoint__signs_the_empty_log),
        TEST(hsm_sign_checkpoint__repeats_what_it_signed),
        TEST(hsm_sign_checkpoint__refuses_a_rollback),
        TEST(hsm_sign_checkpoint__begins_the_next_epoch_and_no_other),
        TEST(hsm_sign_checkpoint__refuses_a_range_of_another_log),
        TEST(hsm_sign_checkpoint__refuses_a_note_not_its_own),
        TEST(hsm_sign_checkpoint__signs_with_both_keys),
        TEST(hsm_sign_checkpoint__goes_on_when_the_second_key_comes_and_goes),
        TEST(hsm_sign_checkpoint__checks_its_second_signature),
        TEST(hsm_sign_checkpoint__refuses_a_wrong_second_signature),
        TEST(hsm_sign_checkpoint__signs_with_the_keys_before_too),
        TEST(hsm_sign_checkpoint__goes_over_to_the_new_keys),
        TEST(hsm_sign_checkpoint__checks_the_lines_of_replaced_keys),
        TEST(hsm_status_get__shows_token_and_workers),
        TEST(hsm_status_get__shows_a_token_that_keeps_teks_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
