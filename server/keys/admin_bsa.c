/*
 * What operators say of a BSA: which certificate it has, what it may have, and the KEK that is its
 * own.
 */
#include "internal.h"

#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/pem.h"
#include "tekd/secret.h"

/* A change that another one overtook is made anew; more than so many mean that scripts fight. */
#define CHANGE_ATTEMPTS 100

/* ---- checking what was given ----------------------------------------------------------------- */

static int cert_fingerprint(const char *pem, uint8_t ret_sha256[static 32])
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, secret_no_passphrase, NULL) : NULL;
    unsigned len = 32;
    int ok = x && X509_digest(x, EVP_sha256(), ret_sha256, &len) == 1;

    X509_free(x);
    BIO_free(bio);
    return ok ? 0 : TEKD_EFORMAT;
}

static int set_certs(struct store_bsa *b, const struct keys_bsa_change *c, struct keys_error *err)
{
    if (c->n_certs > STORE_CERTS_MAX)
        return admin_fail(err, TEKD_EINVAL, "at most %d certificates: the current and the next one",
                          STORE_CERTS_MAX);
    for (size_t i = 0; i < c->n_certs; i++) {
        if (cert_fingerprint(c->certs[i], b->cert[i]) < 0)
            return admin_fail(err, TEKD_EINVAL, "certificate %zu is not a PEM certificate", i + 1);
    }
    b->n_certs = c->n_certs;
    return 0;
}

static int set_entitle(struct store_bsa *b, const struct keys_bsa_change *c, struct keys_error *err)
{
    size_t total = 0;

    if (c->n_entitle > STORE_ENTITLE_MAX)
        return admin_fail(err, TEKD_EINVAL, "at most %d patterns", STORE_ENTITLE_MAX);
    for (size_t i = 0; i < c->n_entitle; i++) {
        if (!admin_is_text(c->entitle[i], STORE_CONTENT_MAX))
            return admin_fail(err, TEKD_EINVAL,
                              "pattern %zu: expected 1..%d octets without control characters",
                              i + 1, STORE_CONTENT_MAX);
        total += strlen(c->entitle[i]) + 1;
    }
    if (total > ENTITLE_TOTAL_MAX)
        return admin_fail(err, TEKD_EINVAL, "the patterns are longer than %d octets together",
                          ENTITLE_TOTAL_MAX);
    for (size_t i = 0; i < b->n_entitle; i++)
        free(b->entitle[i]);
    b->n_entitle = 0;
    for (size_t i = 0; i < c->n_entitle; i++) {
        b->entitle[i] = strdup(c->entitle[i]);
        if (!b->entitle[i])
            return TEKD_ENOMEM;
        b->n_entitle++;
    }
    return 0;
}

static int set_url(struct store_bsa *b, const char *url, struct keys_error *err)
{
    if (*url && (strncmp(url, "https://", 8) != 0 || !admin_is_text(url, STORE_URL_MAX) ||
                 strchr(url, ' ')))
        return admin_fail(err, TEKD_EINVAL, "the URL has to be https:// and at most %d octets",
                          STORE_URL_MAX);
    (void)snprintf(b->url, sizeof(b->url), "%s", url);
    return 0;
}

/* All of it, as a connection will read it. */
static bool is_certificates(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    STACK_OF(X509) *certs = pem_read_certs(bio);

    ERR_clear_error();
    BIO_free(bio);
    sk_X509_pop_free(certs, X509_free);
    return certs != NULL;
}

static int set_ca(struct store_bsa *b, const char *pem, struct keys_error *err)
{
    if (strlen(pem) > STORE_PEM_MAX || !is_certificates(pem))
        return admin_fail(err, TEKD_EINVAL,
                          "the CA is not one or more PEM certificates of at most %d octets",
                          STORE_PEM_MAX);
    free(b->ca_pem);
    b->ca_pem = strdup(pem);
    return b->ca_pem ? 0 : TEKD_ENOMEM;
}

static int merge(struct store_bsa *b, const struct keys_bsa_change *c, struct keys_error *err)
{
    int r = 0;

    if (c->n_certs)
        r = set_certs(b, c, err);
    if (r == 0 && c->set_entitle)
        r = set_entitle(b, c, err);
    if (r == 0 && c->url)
        r = set_url(b, c->url, err);
    if (r == 0 && c->ca_pem)
        r = set_ca(b, c->ca_pem, err);
    if (c->media >= 0)
        b->media = c->media == STORE_MEDIA_JSON ? STORE_MEDIA_JSON : STORE_MEDIA_XML;
    if (c->form >= 0)
        b->form = c->form == STORE_FORM_EFFICIENT ? STORE_FORM_EFFICIENT : STORE_FORM_FULL;
    if (c->key_info >= 0)
        b->key_info = c->key_info != 0;
    return r;
}

/* ---- the commands ---------------------------------------------------------------------------- */

/* Finds the KEK of this label.  One that is not the current one becomes that. */
static int describe(struct keys *k, const char *label, enum hsm_wrap wrap, struct enrolment *e,
                    struct keys_error *err)
{
    const struct kek_wanted what = {.label = label,
                                    .use = HSM_KEK_BSA,
                                    .wrap = wrap ? wrap : HSM_WRAP_AES_KW,
                                    .deadline_us = clock_mono_us() + KEYS_HSM_US};
    struct store_kek found;
    int r = kek_describe(k, &what, &found, err);

    if (r < 0)
        return r;
    e->new_kek = e->row->kek.row == 0 || e->row->kek.kek.wrap != found.kek.wrap ||
                 memcmp(e->row->kek.kek.fingerprint, found.kek.fingerprint,
                        sizeof(found.kek.fingerprint)) != 0;
    if (e->new_kek) {
        e->retire = e->row->kek;
        e->row->kek = found;
    }
    return 0;
}

int keys_bsa_add(struct keys *k, const struct keys_actor *a, const struct keys_bsa_change *c,
                 struct keys_error *err)
{
    AUTO(store_bsa) struct store_bsa *b = NULL;
    struct enrolment e = {.k = k, .actor = a, .action = "bsa add"};
    int r;

    if (!admin_is_text(c->id, STORE_ID_MAX))
        return admin_fail(err, TEKD_EINVAL,
                          "the ID has to be 1..%d octets without control characters or white space "
                          "at its ends",
                          STORE_ID_MAX);
    if (strcmp(c->id, KEK_STORAGE_NAME) == 0)
        return admin_fail(err, TEKD_EINVAL, "\"%s\" names the storage KEK in messages and records",
                          c->id);
    if (c->n_certs == 0 || !c->kek_label)
        return admin_fail(err, TEKD_EINVAL, "a certificate and a KEK label are needed");
    r = store_bsa_new(&b);
    if (r < 0)
        return r;
    (void)snprintf(b->id, sizeof(b->id), "%s", c->id);
    b->enabled = b->key_info = true;
    e.row = b;
    r = merge(b, c, err);
    if (r == 0)
        r = describe(k, c->kek_label, c->wrap, &e, err);
    return r < 0 ? r : enrolment_commit(&e, err);
}

static int change_kek(struct keys *k, const struct keys_bsa_change *c, struct enrolment *e,
                      struct keys_error *err)
{
    const struct hsm_kek *now = &e->row->kek.kek;
    int r;

    if (!c->kek_label && e->row->kek.row == 0)
        return admin_fail(err, TEKD_EINVAL, "\"%s\" has no KEK: a KEK label is needed", c->id);
    r = describe(k, c->kek_label ? c->kek_label : now->label, c->wrap ? c->wrap : now->wrap, e,
                 err);
    if (c->keep_old_kek)
        e->retire.row = 0;
    return r;
}

static int set_once(struct keys *k, const struct keys_actor *a, const struct keys_bsa_change *c,
                    struct keys_error *err)
{
    AUTO(store_bsa) struct store_bsa *row = NULL;
    AUTO_BSA struct bsa_state *seen = NULL;
    struct enrolment e = {.k = k, .actor = a, .action = "bsa set"};
    int r = enrolment_begin(k, c->id, &seen, &row, err);

    if (r < 0)
        return r;
    assert(row);
    e.row = row;
    e.seen = seen;
    r = merge(row, c, err);
    if (r == 0 && (c->kek_label || c->wrap))
        r = change_kek(k, c, &e, err);
    return r < 0 ? r : enrolment_commit(&e, err);
}

int keys_bsa_set(struct keys *k, const struct keys_actor *a, const struct keys_bsa_change *c,
                 struct keys_error *err)
{
    int r = TEKD_ESTALE;

    if (c->keep_old_kek && !c->kek_label && !c->wrap)
        return admin_fail(err, TEKD_EINVAL, "there is no old KEK to keep without a new one");
    for (int i = 0; i < CHANGE_ATTEMPTS && r == TEKD_ESTALE; i++)
        r = set_once(k, a, c, err);
    return r;
}

static int enable_once(struct keys *k, const struct keys_actor *a, const char *id, bool enable,
                       struct keys_error *err)
{
    AUTO(store_bsa) struct store_bsa *row = NULL;
    AUTO_BSA struct bsa_state *seen = NULL;
    struct enrolment e = {.k = k, .actor = a, .action = enable ? "bsa enable" : "bsa disable"};
    int r = enrolment_begin(k, id, &seen, &row, err);

    if (r < 0)
        return r;
    assert(row);
    if (enable && row->kek.row == 0)
        return admin_fail(err, TEKD_EINVAL,
                          "\"%s\": its KEK is retired; give it another one first (bsa set %s --kek "
                          "LABEL)",
                          id, id);
    row->enabled = enable;
    e.row = row;
    e.seen = seen;
    return enrolment_commit(&e, err);
}

int keys_bsa_enable(struct keys *k, const struct keys_actor *a, const char *id, bool enable,
                    struct keys_error *err)
{
    int r = TEKD_ESTALE;

    for (int i = 0; i < CHANGE_ATTEMPTS && r == TEKD_ESTALE; i++)
        r = enable_once(k, a, id, enable, err);
    return r;
}

/* ---- bsa retire-kek -------------------------------------------------------------------------- */

struct kek_lookup {
    const char *name;
    struct store_kek kek;
};

static int find_kek(void *arg, struct store_tx *tx)
{
    struct kek_lookup *l = arg;

    return store_tx_kek_find(tx, l->name, &l->kek);
}

/* The KEK that may be retired.  It is still as it was found if the BSA's state is. */
static int look_up_kek(struct keys *k, const struct store_bsa *row, const char *name,
                       struct store_kek *ret_kek, struct keys_error *err)
{
    struct kek_lookup l = {.name = name};
    int r = store_call(k->store, STORE_READ, find_kek, &l);

    if (r == TEKD_ENOTFOUND || (r == 0 && l.kek.bsa != row->row))
        return admin_fail(err, TEKD_ENOTFOUND, "\"%s\" has no KEK \"%s\"; bsa show lists them",
                          row->id, name);
    if (r < 0)
        return admin_fail(err, r, "reading the KEK: %s", tekd_strerror(r));
    if (l.kek.retired)
        return admin_fail(err, TEKD_EEXIST, "\"%s\" is retired already", name);
    if (l.kek.row == row->kek.row && row->enabled)
        return admin_fail(
            err, TEKD_EINVAL,
            "\"%s\" is the current KEK of an enabled BSA; give it another one (bsa set "
            "%s --kek LABEL), which retires this one, or disable the BSA first",
            name, row->id);
    *ret_kek = l.kek;
    return 0;
}

static int retire_once(struct keys *k, const struct keys_actor *a, const char *id,
                       const char *kek_name, struct keys_error *err)
{
    AUTO(store_bsa) struct store_bsa *row = NULL;
    AUTO_BSA struct bsa_state *seen = NULL;
    struct enrolment e = {.k = k, .actor = a};
    int r = enrolment_begin(k, id, &seen, &row, err);

    if (r < 0)
        return r;
    assert(row);
    r = look_up_kek(k, row, kek_name, &e.retire, err);
    if (r < 0)
        return r;
    if (e.retire.row == row->kek.row)
        row->kek = (struct store_kek){.row = 0};
    e.row = row;
    e.seen = seen;
    return enrolment_commit(&e, err);
}

int keys_bsa_retire_kek(struct keys *k, const struct keys_actor *a, const char *id,
                        const char *kek_name, struct keys_error *err)
{
    int r = TEKD_ESTALE;

    for (int i = 0; i < CHANGE_ATTEMPTS && r == TEKD_ESTALE; i++)
        r = retire_once(k, a, id, kek_name, err);
    return r;
}
