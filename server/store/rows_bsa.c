/*
 * Rows of what is enrolled: BSAs with their certificates and entitlements, and KEKs.
 */
#include "internal.h"

#include <assert.h>

#include "tekd/err.h"

/* ---- KEKs ------------------------------------------------------------------------------------ */

static int read_kek(struct db *db, enum db_statement st, struct store_kek *ret_kek)
{
    struct store_kek k = {.row = db_column_int(db, st, 0)};
    size_t len;
    const char *id = db_column_octets(db, st, 4, &len);
    int r = db_copy_text(db, st, 1, k.name, sizeof(k.name) - 1);

    if (r == 0)
        r = db_copy_octets(db, st, 2, k.kek.fingerprint, sizeof(k.kek.fingerprint));
    if (r == 0)
        r = db_copy_text(db, st, 3, k.kek.label, HSM_LABEL_MAX);
    if (r < 0)
        return r;
    if (len > HSM_ID_MAX)
        return TEKD_EIO;
    memcpy(k.kek.id, id, len);
    k.kek.id_len = (uint8_t)len;
    k.kek.wrap = (enum hsm_wrap)db_column_int(db, st, 5);
    k.kek.use = (enum hsm_kek_use)db_column_int(db, st, 6);
    k.imported = db_column_int(db, st, 7) != 0;
    k.retired = db_column_int(db, st, 8) != 0;
    k.bsa = db_column_int(db, st, 9);
    k.version = (uint32_t)db_column_int(db, st, 10);
    k.added_us = db_column_int(db, st, 11);
    *ret_kek = k;
    return 0;
}

static int one_kek(struct store_tx *tx, enum db_statement st, struct db_value key,
                   struct store_kek *ret_kek)
{
    int r = db_first(tx->db, st, &key, 1);

    if (r < 0)
        return rows_result(tx, r);
    r = read_kek(tx->db, st, ret_kek);
    db_end(tx->db, st);
    return rows_result(tx, r);
}

int store_tx_kek_get(struct store_tx *tx, int64_t row, struct store_kek *ret_kek)
{
    return one_kek(tx, DB_KEK_GET, db_int(row), ret_kek);
}

int store_tx_kek_find(struct store_tx *tx, const char *name, struct store_kek *ret_kek)
{
    return one_kek(tx, DB_KEK_FIND, db_text(name), ret_kek);
}

int store_tx_kek_newest(struct store_tx *tx, int64_t bsa, uint32_t *ret_version)
{
    struct store_kek k = {.version = 0};
    int r = one_kek(tx, DB_KEK_NEWEST, db_int(bsa), &k);

    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    *ret_version = k.version;
    return 0;
}

static int current_kek(struct store_tx *tx, int64_t bsa, struct store_kek *ret_kek)
{
    struct store_kek k = {.row = 0};
    int r = one_kek(tx, DB_KEK_NEWEST, db_int(bsa), &k);

    if (r < 0)
        return r;
    if (k.retired)
        return TEKD_ENOTFOUND;
    *ret_kek = k;
    return 0;
}

int store_tx_kek_storage(struct store_tx *tx, struct store_kek *ret_kek)
{
    return current_kek(tx, 0, ret_kek);
}

int store_tx_kek_insert(struct store_tx *tx, struct store_kek *k)
{
    int r;

    assert(tx->writes && k->kek.id_len <= HSM_ID_MAX);
    r = db_insert(
        tx->db, DB_KEK_INSERT,
        DB_VALUES(db_text(k->name), db_blob(k->kek.fingerprint, sizeof(k->kek.fingerprint)),
                  db_text(k->kek.label), db_blob(k->kek.id, k->kek.id_len), db_int(k->kek.wrap),
                  db_int(k->kek.use), db_int(k->imported), db_int(k->retired), db_int(k->bsa),
                  db_int(k->version), db_int(k->added_us)),
        &k->row);
    return rows_result(tx, r);
}

int store_tx_kek_retire(struct store_tx *tx, int64_t row)
{
    int64_t changes = 0;
    int r;

    assert(tx->writes);
    r = db_run(tx->db, DB_KEK_RETIRE, DB_VALUES(db_int(row)), &changes);
    if (r == 0 && changes == 0)
        return TEKD_ENOTFOUND;
    if (r == 0)
        r = rows_meta_put_int(tx->db, "purge", 1);
    idle_purge(tx->s); /* finds what is committed: nothing, if this is not */
    return rows_result(tx, r);
}

int store_tx_kek_walk(struct store_tx *tx, int64_t bsa, const struct store_walk *w,
                      int (*each)(void *arg, const struct store_kek *k))
{
    struct store_kek k;
    int stopped = 0;
    int r = db_query(tx->db, DB_KEK_WALK,
                     DB_VALUES(db_int(bsa), db_int(w->after), db_int(rows_limit(w))));

    if (r < 0)
        return rows_result(tx, r);
    while (r >= 0 && stopped == 0 && (r = db_step(tx->db, DB_KEK_WALK)) == 1) {
        r = read_kek(tx->db, DB_KEK_WALK, &k);
        if (r == 0)
            stopped = each(w->arg, &k);
    }
    db_end(tx->db, DB_KEK_WALK);
    return r < 0 ? rows_result(tx, r) : stopped;
}

/* ---- BSAs ------------------------------------------------------------------------------------ */

int store_bsa_new(struct store_bsa **ret_bsa)
{
    struct store_bsa *b = calloc(1, sizeof(*b));

    if (b == NULL)
        return TEKD_ENOMEM;
    *ret_bsa = b;
    return 0;
}

void store_bsa_free(struct store_bsa *b)
{
    if (b == NULL)
        return;
    for (size_t i = 0; i < b->n_entitle; i++)
        free(b->entitle[i]);
    free(b->ca_pem);
    free(b);
}

static int dup_column(struct db *db, enum db_statement st, int column, char **ret_text)
{
    size_t len;
    const char *s = db_column_octets(db, st, column, &len);
    char *copy = strndup(s, len);

    if (copy == NULL)
        return TEKD_ENOMEM;
    *ret_text = copy;
    return 0;
}

static int read_certs(struct store_tx *tx, struct store_bsa *b)
{
    int r = db_query(tx->db, DB_BSA_CERTS, DB_VALUES(db_int(b->row)));

    while (r >= 0 && b->n_certs < STORE_CERTS_MAX && (r = db_step(tx->db, DB_BSA_CERTS)) == 1) {
        r = db_copy_octets(tx->db, DB_BSA_CERTS, 0, b->cert[b->n_certs], sizeof(b->cert[0]));
        b->n_certs++;
    }
    db_end(tx->db, DB_BSA_CERTS);
    return r < 0 ? r : 0;
}

static int read_entitle(struct store_tx *tx, struct store_bsa *b)
{
    int r = db_query(tx->db, DB_BSA_ENTITLE, DB_VALUES(db_int(b->row)));

    while (r >= 0 && b->n_entitle < STORE_ENTITLE_MAX &&
           (r = db_step(tx->db, DB_BSA_ENTITLE)) == 1) {
        r = dup_column(tx->db, DB_BSA_ENTITLE, 0, &b->entitle[b->n_entitle]);
        if (r == 0)
            b->n_entitle++;
    }
    db_end(tx->db, DB_BSA_ENTITLE);
    return r < 0 ? r : 0;
}

/* The row that st stands on, and what hangs on it. */
static int read_bsa(struct store_tx *tx, enum db_statement st, struct store_bsa **ret_bsa)
{
    AUTO(store_bsa) struct store_bsa *b = NULL;
    struct db *db = tx->db;
    int r = store_bsa_new(&b);

    if (r == 0)
        r = db_copy_text(db, st, 1, b->id, STORE_ID_MAX);
    if (r == 0)
        r = db_copy_text(db, st, 6, b->url, STORE_URL_MAX);
    if (r == 0 && !db_driver(db)->column_is_null(db, st, 7))
        r = dup_column(db, st, 7, &b->ca_pem);
    if (r < 0)
        return r;
    b->row = db_column_int(db, st, 0);
    b->enabled = db_column_int(db, st, 2) != 0;
    b->key_info = db_column_int(db, st, 3) != 0;
    b->media = (enum store_media)db_column_int(db, st, 4);
    b->form = (enum store_form)db_column_int(db, st, 5);
    r = read_certs(tx, b);
    if (r == 0)
        r = read_entitle(tx, b);
    if (r == 0)
        r = current_kek(tx, b->row, &b->kek);
    if (r < 0 && r != TEKD_ENOTFOUND) /* without KEK: before kek_insert, or retired */
        return r;
    *ret_bsa = TAKE(b);
    return 0;
}

int store_tx_bsa_find(struct store_tx *tx, const char *id, struct store_bsa **ret_bsa)
{
    int r = db_first(tx->db, DB_BSA_FIND, DB_VALUES(db_text(id)));

    if (r < 0)
        return rows_result(tx, r);
    r = read_bsa(tx, DB_BSA_FIND, ret_bsa);
    db_end(tx->db, DB_BSA_FIND);
    return rows_result(tx, r);
}

int store_tx_bsa_walk(struct store_tx *tx, const struct store_walk *w,
                      int (*each)(void *arg, const struct store_bsa *b))
{
    int stopped = 0;
    int r = db_query(tx->db, DB_BSA_WALK, DB_VALUES(db_int(w->after), db_int(rows_limit(w))));

    if (r < 0)
        return rows_result(tx, r);
    while (r >= 0 && stopped == 0 && (r = db_step(tx->db, DB_BSA_WALK)) == 1) {
        AUTO(store_bsa) struct store_bsa *b = NULL;

        r = read_bsa(tx, DB_BSA_WALK, &b);
        if (r == 0)
            stopped = each(w->arg, b);
    }
    db_end(tx->db, DB_BSA_WALK);
    return r < 0 ? rows_result(tx, r) : stopped;
}

static int insert_lists(struct store_tx *tx, const struct store_bsa *b)
{
    int r = 0;

    assert(b->n_certs <= STORE_CERTS_MAX && b->n_entitle <= STORE_ENTITLE_MAX);
    for (size_t i = 0; i < b->n_certs && r == 0; i++)
        r = db_insert(
            tx->db, DB_BSA_CERT_INSERT,
            DB_VALUES(db_blob(b->cert[i], sizeof(b->cert[i])), db_int(b->row), db_int((int64_t)i)),
            NULL);
    for (size_t i = 0; i < b->n_entitle && r == 0; i++)
        r = db_insert(tx->db, DB_BSA_ENTITLE_INSERT,
                      DB_VALUES(db_int(b->row), db_int((int64_t)i), db_text(b->entitle[i])), NULL);
    return r;
}

int store_tx_bsa_insert(struct store_tx *tx, struct store_bsa *b)
{
    int r;

    assert(tx->writes);
    r = db_insert(tx->db, DB_BSA_INSERT,
                  DB_VALUES(db_text(b->id), db_int(b->enabled), db_int(b->key_info),
                            db_int(b->media), db_int(b->form), db_text(b->url), db_text(b->ca_pem)),
                  &b->row);
    if (r == 0)
        r = insert_lists(tx, b);
    return rows_result(tx, r);
}

int store_tx_bsa_update(struct store_tx *tx, const struct store_bsa *b)
{
    int64_t changes = 0;
    int r;

    assert(tx->writes);
    r = db_run(tx->db, DB_BSA_UPDATE,
               DB_VALUES(db_int(b->enabled), db_int(b->key_info), db_int(b->media), db_int(b->form),
                         db_text(b->url), db_text(b->ca_pem), db_int(b->row)),
               &changes);
    if (r == 0 && changes == 0)
        return TEKD_ENOTFOUND;
    if (r == 0)
        r = db_run(tx->db, DB_BSA_CERT_DELETE, DB_VALUES(db_int(b->row)), NULL);
    if (r == 0)
        r = db_run(tx->db, DB_BSA_ENTITLE_DELETE, DB_VALUES(db_int(b->row)), NULL);
    if (r == 0)
        r = insert_lists(tx, b);
    return rows_result(tx, r);
}
