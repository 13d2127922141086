/* What is put into a table comes out again, and unique is unique. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_fixture.h"

static struct fixture *fixture; /* of the test that runs */

static int in_tx(int (*apply)(void *arg, struct store_tx *tx), void *arg)
{
    return store_call(fixture->store, STORE_DURABLE, apply, arg);
}

static int setup(void **state)
{
    int r = fixture_setup(state);

    fixture = *state;
    fixture_open(fixture);
    return r;
}

/* ---- contents and TEKs ----------------------------------------------------------------------- */

static void fill_content(struct store_content *c, const char *id)
{
    *c = (struct store_content){.bits = 192,
                                .period_s = 3600,
                                .lead_s = 60,
                                .epoch_utc_us = 123456789,
                                .created_us = INT64_C(1767225600000000),
                                .created_by = 5};
    (void)snprintf(c->id, sizeof(c->id), "%s", id);
}

static int contents(void *arg, struct store_tx *tx)
{
    struct store_content c, back;
    char longest[STORE_CONTENT_MAX + 1];

    (void)arg;
    memset(longest, 'x', STORE_CONTENT_MAX);
    longest[STORE_CONTENT_MAX] = '\0';
    fill_content(&c, longest);
    assert_int_equal(store_tx_content_insert(tx, &c), 0);
    assert_int_equal(c.row, 1);
    memset(&back, 0xaa, sizeof(back));
    assert_int_equal(store_tx_content_find(tx, longest, STORE_CONTENT_MAX, &back), 0);
    assert_string_equal(back.id, c.id);
    assert_int_equal(back.row, 1);
    assert_int_equal(back.bits, 192);
    assert_int_equal(back.period_s, 3600);
    assert_int_equal(back.lead_s, 60);
    assert_int_equal(back.epoch_utc_us, 123456789);
    assert_int_equal(back.created_us, INT64_C(1767225600000000));
    assert_int_equal(back.created_by, 5);
    assert_int_equal(store_tx_content_get(tx, 1, &back), 0);
    assert_string_equal(back.id, c.id);
    assert_int_equal(store_tx_content_get(tx, 2, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_content_find(tx, longest, STORE_CONTENT_MAX - 1, &back),
                     TEKD_ENOTFOUND);
    assert_int_equal(store_tx_content_insert(tx, &c), TEKD_EEXIST);
    fill_content(&c, "urn:x:\xc3\xa4");
    assert_int_equal(store_tx_content_insert(tx, &c), 0); /* a loser ends nothing by itself */
    fill_content(&c, "URN:X:\xc3\xa4");
    assert_int_equal(store_tx_content_insert(tx, &c), 0); /* octet by octet */
    return 0;
}

struct seen {
    int64_t rows[8];
    size_t n;
    int stop; /* returned by each at the second row */
};

static int see(struct seen *s, int64_t row)
{
    s->rows[s->n++] = row;
    return s->n == 2 ? s->stop : 0;
}

static int see_content(void *arg, const struct store_content *c)
{
    return see(arg, c->row);
}

static int walk_contents(void *arg, struct store_tx *tx)
{
    struct seen s = {.n = 0};
    struct store_walk w = {.after = 1, .limit = 1, .arg = &s};

    (void)arg;
    assert_int_equal(store_tx_content_walk(tx, &w, see_content), 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.rows[0], 2);
    w = (struct store_walk){.limit = SIZE_MAX, .arg = &s};
    s = (struct seen){.stop = 17};
    assert_int_equal(store_tx_content_walk(tx, &w, see_content), 17);
    assert_int_equal(s.n, 2);
    s = (struct seen){.n = 0};
    assert_int_equal(store_tx_content_walk(tx, &w, see_content), 0);
    assert_int_equal(s.n, 3);
    return 0;
}

static void store_tx_content__round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_tx(contents, NULL), 0);
    assert_int_equal(in_tx(walk_contents, NULL), 0);
}

static void fill_tek(struct store_tek *t, int64_t content, uint32_t version, uint8_t id)
{
    *t = (struct store_tek){.content = content,
                            .period = 3,
                            .version = version,
                            .bits = 256,
                            .storage_kek = 9,
                            .created_us = 77};
    memset(t->key_id, id, sizeof(t->key_id));
    t->stored.len = 40;
    memset(t->stored.octets, id + 1, 40);
}

static int teks(void *arg, struct store_tx *tx)
{
    struct store_tek t, back;
    uint32_t version = 99;
    uint8_t id[16];

    (void)arg;
    assert_int_equal(store_tx_tek_current(tx, 1, 3, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_tek_newest(tx, 1, 3, &version), 0);
    assert_int_equal(version, 0);
    fill_tek(&t, 1, 1, 10);
    assert_int_equal(store_tx_tek_insert(tx, &t), 0);
    fill_tek(&t, 1, 2, 10);
    assert_int_equal(store_tx_tek_insert(tx, &t), TEKD_EEXIST); /* its key id */
    fill_tek(&t, 1, 1, 20);
    assert_int_equal(store_tx_tek_insert(tx, &t), TEKD_EEXIST); /* its version */
    fill_tek(&t, 1, 2, 20);
    assert_int_equal(store_tx_tek_insert(tx, &t), 0);
    assert_int_equal(store_tx_tek_current(tx, 1, 3, &back), 0);
    assert_int_equal(back.version, 2);
    assert_int_equal(back.row, t.row);
    assert_int_equal(back.stored.len, 40);
    assert_memory_equal(back.stored.octets, t.stored.octets, 40);
    assert_memory_equal(back.key_id, t.key_id, 16);
    assert_int_equal(back.bits, 256);
    assert_int_equal(back.storage_kek, 9);
    assert_int_equal(back.created_us, 77);
    assert_false(back.destroyed);
    memset(id, 10, sizeof(id));
    assert_int_equal(store_tx_tek_by_id(tx, id, &back), 0);
    assert_int_equal(back.version, 1);
    memset(id, 11, sizeof(id));
    assert_int_equal(store_tx_tek_by_id(tx, id, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_tek_newest(tx, 1, 3, &version), 0);
    assert_int_equal(version, 2);
    return 0;
}

static int destroy(void *arg, struct store_tx *tx)
{
    struct hsm_blob data = {.len = 24, .octets = {1, 2, 3}}, back;
    struct store_tek t;
    uint32_t version = 0;

    (void)arg;
    assert_int_equal(store_tx_export_insert(tx, 2, 4, &data, &(bool){false}), 0);
    assert_int_equal(store_tx_export_insert(tx, 2, 4, &data, &(bool){false}), TEKD_EEXIST);
    assert_int_equal(store_tx_export_insert(tx, 2, 5, &data, &(bool){false}), 0);
    assert_int_equal(store_tx_export_insert(tx, 1, 4, &data, &(bool){false}), 0);
    assert_int_equal(store_tx_export_find(tx, 2, 5, &back), 0);
    assert_int_equal(back.len, 24);
    assert_memory_equal(back.octets, data.octets, 24);
    assert_int_equal(store_tx_tek_destroy(tx, 2), 0);
    assert_int_equal(store_tx_export_find(tx, 2, 4, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_export_find(tx, 2, 5, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_export_find(tx, 1, 4, &back), 0); /* another TEK's */
    assert_int_equal(store_tx_tek_get(tx, 2, &t), 0);
    assert_true(t.destroyed);
    assert_int_equal(t.stored.len, 0);
    /* The one before does not become current again. */
    assert_int_equal(store_tx_tek_current(tx, 1, 3, &t), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_tek_newest(tx, 1, 3, &version), 0);
    assert_int_equal(version, 2);
    assert_int_equal(store_tx_tek_destroy(tx, 99), TEKD_ENOTFOUND);
    return 0;
}

static int see_tek(void *arg, const struct store_tek *t)
{
    return see(arg, t->row);
}

/* The last of this content is made last, but of the period before. */
static int walk_teks(void *arg, struct store_tx *tx)
{
    static const int64_t rows[] = {4, 1, 2};
    struct store_tek t;
    struct seen s = {.n = 0};
    struct store_walk w = {.limit = SIZE_MAX, .arg = &s};

    (void)arg;
    fill_tek(&t, 2, 1, 30);
    assert_int_equal(store_tx_tek_insert(tx, &t), 0);
    fill_tek(&t, 1, 1, 40);
    t.period = 2;
    assert_int_equal(store_tx_tek_insert(tx, &t), 0);
    assert_int_equal(t.row, 4);
    assert_int_equal(store_tx_tek_walk(tx, 2, &w, see_tek), 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.rows[0], 3);
    s.n = 0;
    assert_int_equal(store_tx_tek_walk(tx, 1, &w, see_tek), 0);
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.rows, rows, sizeof(rows));
    w.limit = 1;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        s.n = 0;
        assert_int_equal(store_tx_tek_walk(tx, 1, &w, see_tek), 0);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.rows[0], rows[i]);
        w.after = rows[i];
    }
    s.n = 0;
    assert_int_equal(store_tx_tek_walk(tx, 1, &w, see_tek), 0);
    w.after = 3; /* of the other content */
    assert_int_equal(store_tx_tek_walk(tx, 1, &w, see_tek), TEKD_ENOTFOUND);
    w.after = 99;
    assert_int_equal(store_tx_tek_walk(tx, 1, &w, see_tek), TEKD_ENOTFOUND);
    assert_int_equal(s.n, 0);
    return 0;
}

static void store_tx_tek__round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_tx(teks, NULL), 0);
    assert_int_equal(in_tx(destroy, NULL), 0);
    assert_int_equal(in_tx(walk_teks, NULL), 0);
}

static int messages(void *arg, struct store_tx *tx)
{
    struct store_message m = {.bsa = 3,
                              .content = 4,
                              .period_asked = -1,
                              .tek = 5,
                              .kek = 6,
                              .time_us = 7,
                              .epoch = 3,
                              .seq = 8};
    struct store_message back;

    (void)arg;
    memset(m.id, 'm', STORE_ID_MAX);
    assert_int_equal(store_tx_message_insert(tx, &m), 0);
    assert_int_equal(store_tx_message_insert(tx, &m), TEKD_EEXIST);
    assert_int_equal(store_tx_message_find(tx, 3, m.id, STORE_ID_MAX, &back), 0);
    assert_memory_equal(&back, &m, sizeof(m));
    m.bsa = 4;
    assert_int_equal(store_tx_message_insert(tx, &m), 0); /* another BSA's */
    assert_int_equal(store_tx_message_find(tx, 5, m.id, STORE_ID_MAX, &back), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_message_find(tx, 3, m.id, STORE_ID_MAX + 1, &back), TEKD_ENOTFOUND);
    return 0;
}

static void store_tx_message__round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_tx(messages, NULL), 0);
}

/* ---- BSAs and KEKs --------------------------------------------------------------------------- */

static void fill_kek(struct store_kek *k, const char *name, uint8_t fingerprint, int64_t bsa)
{
    *k = (struct store_kek){.bsa = bsa, .version = 1, .imported = true, .added_us = 123456789};
    (void)snprintf(k->name, sizeof(k->name), "%s", name);
    (void)snprintf(k->kek.label, sizeof(k->kek.label), "label of %s", name);
    memset(k->kek.id, 0x5a, HSM_ID_MAX);
    k->kek.id_len = HSM_ID_MAX;
    memset(k->kek.fingerprint, fingerprint, sizeof(k->kek.fingerprint));
    k->kek.wrap = HSM_WRAP_AES_KWP;
    k->kek.use = bsa != 0 ? HSM_KEK_BSA : HSM_KEK_STORAGE;
}

static int see_kek(void *arg, const struct store_kek *k)
{
    return see(arg, k->row);
}

static int keks(void *arg, struct store_tx *tx)
{
    struct store_kek k, back;
    uint32_t version = 9;

    (void)arg;
    assert_int_equal(store_tx_kek_newest(tx, 0, &version), 0);
    assert_int_equal(version, 0);
    assert_int_equal(store_tx_kek_storage(tx, &back), TEKD_ENOTFOUND);
    fill_kek(&k, "storage/1", 1, 0);
    assert_int_equal(store_tx_kek_insert(tx, &k), 0);
    assert_int_equal(store_tx_kek_storage(tx, &back), 0);
    assert_memory_equal(&back, &k, sizeof(k));
    fill_kek(&k, "storage/1", 2, 0);
    assert_int_equal(store_tx_kek_insert(tx, &k), TEKD_EEXIST); /* its name */
    fill_kek(&k, "bsa-1/1", 1, 1);
    assert_int_equal(store_tx_kek_insert(tx, &k), TEKD_EEXIST); /* the same key for two uses */
    fill_kek(&k, "storage/2", 2, 0);
    k.version = 2;
    assert_int_equal(store_tx_kek_insert(tx, &k), 0);
    assert_int_equal(store_tx_kek_find(tx, "storage/2", &back), 0);
    assert_memory_equal(&back, &k, sizeof(k));
    assert_int_equal(store_tx_kek_find(tx, "storage/3", &back), TEKD_ENOTFOUND);
    return 0;
}

static int retire(void *arg, struct store_tx *tx)
{
    struct store_kek back;
    uint32_t version = 0;

    (void)arg;
    assert_int_equal(store_tx_kek_retire(tx, 1), 0);
    assert_int_equal(store_tx_kek_retire(tx, 1), TEKD_ENOTFOUND); /* once */
    assert_int_equal(store_tx_kek_retire(tx, 7), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_kek_storage(tx, &back), 0);
    assert_int_equal(back.version, 2);
    assert_false(back.retired);
    assert_int_equal(store_tx_kek_get(tx, 1, &back), 0);
    assert_true(back.retired);
    assert_int_equal(store_tx_kek_retire(tx, 2), 0);
    assert_int_equal(store_tx_kek_newest(tx, 0, &version), 0);
    assert_int_equal(version, 2); /* a number is not used again */
    return 0;
}

/* The newest is retired: the one before does not become current again. */
static int keep_the_older(void *arg, struct store_tx *tx)
{
    struct store_kek k, back;

    (void)arg;
    for (uint32_t v = 3; v <= 4; v++) {
        fill_kek(&k, v == 3 ? "storage/3" : "storage/4", (uint8_t)v, 0);
        k.version = v;
        assert_int_equal(store_tx_kek_insert(tx, &k), 0);
    }
    assert_int_equal(store_tx_kek_retire(tx, k.row), 0);
    assert_int_equal(store_tx_kek_storage(tx, &back), TEKD_ENOTFOUND);
    return 0;
}

static int walk_keks(void *arg, struct store_tx *tx)
{
    struct store_kek k;
    struct seen s = {.n = 0};
    struct store_walk w = {.limit = SIZE_MAX, .arg = &s};

    (void)arg;
    fill_kek(&k, "bsa-1/1", 9, 1);
    assert_int_equal(store_tx_kek_insert(tx, &k), 0);
    assert_int_equal(store_tx_kek_walk(tx, 0, &w, see_kek), 0);
    assert_int_equal(s.n, 4); /* the retired ones as well */
    s.n = 0;
    assert_int_equal(store_tx_kek_walk(tx, 1, &w, see_kek), 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.rows[0], k.row);
    s.n = 0;
    w.after = 2;
    w.limit = 1;
    assert_int_equal(store_tx_kek_walk(tx, 0, &w, see_kek), 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.rows[0], 3);
    return 0;
}

static void store_tx_kek__round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_tx(keks, NULL), 0);
    assert_int_equal(in_tx(retire, NULL), 0);
    assert_int_equal(in_tx(keep_the_older, NULL), 0);
    assert_int_equal(in_tx(walk_keks, NULL), 0);
}

static struct store_bsa *new_bsa(const char *id, uint8_t cert)
{
    struct store_bsa *b = NULL;

    assert_int_equal(store_bsa_new(&b), 0);
    (void)snprintf(b->id, sizeof(b->id), "%s", id);
    (void)snprintf(b->url, sizeof(b->url), "https://%s.example/cp3", id);
    b->enabled = true;
    b->media = STORE_MEDIA_JSON;
    b->form = STORE_FORM_EFFICIENT;
    memset(b->cert[b->n_certs++], cert, 32);
    b->entitle[b->n_entitle++] = strdup("urn:x:*");
    b->entitle[b->n_entitle++] = strdup("urn:y:[0-9]");
    return b;
}

static int bsas(void *arg, struct store_tx *tx)
{
    AUTO(store_bsa) struct store_bsa *b = new_bsa("bsa-1", 1);
    AUTO(store_bsa) struct store_bsa *same_cert = new_bsa("bsa-2", 1);
    AUTO(store_bsa) struct store_bsa *same_id = new_bsa("bsa-1", 2);
    AUTO(store_bsa) struct store_bsa *back = NULL;
    struct store_kek k;

    (void)arg;
    b->ca_pem = strdup("-----BEGIN CERTIFICATE-----");
    assert_int_equal(store_tx_bsa_insert(tx, b), 0);
    assert_int_equal(store_tx_bsa_insert(tx, same_id), TEKD_EEXIST);
    fill_kek(&k, "bsa-1/1", 1, b->row);
    assert_int_equal(store_tx_kek_insert(tx, &k), 0);
    assert_int_equal(store_tx_bsa_find(tx, "bsa-1", &back), 0);
    assert_int_equal(back->row, b->row);
    assert_string_equal(back->url, b->url);
    assert_string_equal(back->ca_pem, b->ca_pem);
    assert_true(back->enabled);
    assert_false(back->key_info);
    assert_int_equal(back->media, STORE_MEDIA_JSON);
    assert_int_equal(back->form, STORE_FORM_EFFICIENT);
    assert_int_equal(back->n_certs, 1);
    assert_memory_equal(back->cert[0], b->cert[0], 32);
    assert_int_equal(back->n_entitle, 2);
    assert_string_equal(back->entitle[1], "urn:y:[0-9]");
    assert_memory_equal(&back->kek, &k, sizeof(k));
    return store_tx_bsa_insert(tx, same_cert); /* TEKD_EEXIST: this item is undone */
}

static int update_bsa(void *arg, struct store_tx *tx)
{
    AUTO(store_bsa) struct store_bsa *b = new_bsa("bsa-1", 1);
    AUTO(store_bsa) struct store_bsa *back = NULL;
    struct store_kek k;

    (void)arg;
    assert_int_equal(store_tx_bsa_find(tx, "bsa-1", &back), TEKD_ENOTFOUND); /* it was undone */
    assert_int_equal(store_tx_bsa_update(tx, b), TEKD_ENOTFOUND);
    assert_int_equal(store_tx_bsa_insert(tx, b), 0);
    assert_int_equal(store_tx_bsa_find(tx, "bsa-1", &back), 0);
    assert_null(back->ca_pem);
    assert_int_equal(back->kek.row, 0);
    for (uint32_t v = 1; v <= 2; v++) {
        fill_kek(&k, v == 1 ? "bsa-1/1" : "bsa-1/2", (uint8_t)v, b->row);
        k.version = v;
        assert_int_equal(store_tx_kek_insert(tx, &k), 0);
    }
    b->enabled = false;
    memset(b->cert[b->n_certs++], 9, 32); /* the next certificate */
    free(b->entitle[--b->n_entitle]);
    assert_int_equal(store_tx_bsa_update(tx, b), 0);
    store_bsa_free(TAKE(back));
    assert_int_equal(store_tx_bsa_find(tx, "bsa-1", &back), 0);
    assert_false(back->enabled);
    assert_int_equal(back->n_certs, 2);
    assert_memory_equal(back->cert[1], b->cert[1], 32);
    assert_int_equal(back->n_entitle, 1);
    assert_int_equal(back->kek.version, 2); /* the newest */
    return 0;
}

static int see_bsa(void *arg, const struct store_bsa *b)
{
    assert_int_equal(b->kek.version, 2);
    return see(arg, b->row);
}

static int walk_bsas(void *arg, struct store_tx *tx)
{
    struct seen s = {.n = 0};
    struct store_walk w = {.limit = SIZE_MAX, .arg = &s};
    struct store_counts counts;

    (void)arg;
    assert_int_equal(store_tx_bsa_walk(tx, &w, see_bsa), 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(store_tx_counts(tx, &counts), 0);
    assert_int_equal(counts.bsas, 1);
    return 0;
}

static void store_tx_bsa__round_trip(void **state)
{
    (void)state;
    assert_int_equal(in_tx(bsas, NULL), TEKD_EEXIST);
    assert_int_equal(in_tx(update_bsa, NULL), 0);
    assert_int_equal(store_call(fixture->store, STORE_READ, walk_bsas, NULL), 0);
}

/* ---- records --------------------------------------------------------------------------------- */

static int too_many(void *arg, struct store_tx *tx)
{
    int r = 0;

    (void)arg;
    for (int i = 0; i <= STORE_RECORDS_MAX && r == 0; i++) {
        struct record *rec = NULL;

        assert_int_equal(record_new("log.heartbeat", &rec), 0);
        r = store_tx_record(tx, rec, NULL);
    }
    return r;
}

static int incomplete(void *arg, struct store_tx *tx)
{
    struct record *rec = NULL;

    (void)arg;
    assert_int_equal(record_new("config.changed", &rec), 0);
    record_str(rec, "actor", "test"); /* and no detail */
    return store_tx_record(tx, rec, NULL);
}

static int malformed(void *arg, struct store_tx *tx)
{
    struct record *rec = NULL;

    (void)arg;
    assert_int_equal(record_new("config.changed", &rec), 0);
    record_str(rec, "actor", "\xff");
    record_str(rec, "detail", "x");
    return store_tx_record(tx, rec, NULL);
}

static void store_tx_record__refuses_what_cannot_be_verified(void **state)
{
    struct fixture *f = *state;
    struct log_check before = fixture_check_log(f, NULL);

    assert_int_equal(in_tx(too_many, NULL), TEKD_ETOOBIG);
    assert_int_equal(in_tx(incomplete, NULL), TEKD_EINTERNAL);
    assert_true(fixture_logged("event=record-incomplete", "field=detail"));
    assert_int_equal(in_tx(malformed, NULL), TEKD_EINVAL);
    assert_int_equal(fixture_check_log(f, NULL).leaves, before.leaves);
    assert_int_equal(f->fatal, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(store_tx_content__round_trip), TEST(store_tx_tek__round_trip),
        TEST(store_tx_message__round_trip), TEST(store_tx_kek__round_trip),
        TEST(store_tx_bsa__round_trip),     TEST(store_tx_record__refuses_what_cannot_be_verified),
    };

    return cmocka_run_group_tests_name("store_rows", tests, NULL, NULL);
}
