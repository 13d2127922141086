/*
 * What the files say of us and of those who may be at the other end: certificate, key, CAs, CRLs.
 * Read as a whole, never changed, replaced as a whole.
 */
#include "internal.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/pem.h"

/* ---- files ----------------------------------------------------------------------------------- */

static int dup_if(const char *s, char **ret)
{
    if (s)
        *ret = strdup(s);
    return s && !*ret ? TEKD_ENOMEM : 0;
}

int trust_files_new(const struct push_options *o, struct trust_files **ret_files)
{
    struct trust_files *f = calloc(1, sizeof(*f));
    int r = f ? dup_if(o->certificate, &f->certificate) : TEKD_ENOMEM;

    if (r == 0)
        r = dup_if(o->key_file, &f->key);
    if (r == 0)
        r = dup_if(o->ca, &f->ca);
    if (r == 0)
        r = dup_if(o->crl, &f->crl);
    if (r < 0) {
        trust_files_free(f);
        return r;
    }
    *ret_files = f;
    return 0;
}

void trust_files_free(struct trust_files *f)
{
    if (!f)
        return;
    free(f->certificate);
    free(f->key);
    free(f->ca);
    free(f->crl);
    free(f);
}

/* A store of these CAs, which checks the CRLs if there are any. */
static int make_store(const STACK_OF(X509) * cas, const STACK_OF(X509_CRL) * crls,
                      X509_STORE **ret_store)
{
    X509_STORE *store = X509_STORE_new();
    int ok = store != NULL;

    for (int i = 0; i < sk_X509_num(cas) && ok; i++)
        ok = X509_STORE_add_cert(store, sk_X509_value(cas, i));
    for (int i = 0; crls && i < sk_X509_CRL_num(crls) && ok; i++)
        ok = X509_STORE_add_crl(store, sk_X509_CRL_value(crls, i));
    if (ok && crls)
        ok = X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    if (!ok) {
        X509_STORE_free(store);
        return TEKD_ENOMEM;
    }
    *ret_store = store;
    return 0;
}

static int read_key(struct trust *t, const char *file)
{
    int r = pem_read_key(file, &t->key);

    if (r < 0)
        return r;
    return X509_check_private_key(t->cert, t->key) == 1
               ? 0
               : pem_fail("key-does-not-fit-certificate", file);
}

static int read_certificate(struct trust *t, const char *file)
{
    BIO *bio = BIO_new_file(file, "r");

    t->chain = pem_read_certs(bio);
    BIO_free(bio);
    if (!t->chain)
        return pem_fail("certificate-not-read", file);
    t->cert = sk_X509_shift(t->chain);
    return 0;
}

/* The HSM side signs with EC keys. */
static int check_key_in_hsm(const struct trust *t, const char *file)
{
    if (EVP_PKEY_is_a(X509_get0_pubkey(t->cert), "EC"))
        return 0;
    log_event(LOG_ERROR, "tls", "key-in-hsm-unusable", LOG_STR("file", file),
              LOG_STR("expected", "an EC P-256 or P-384 key"));
    return TEKD_EINVAL;
}

static int read_crl(struct trust *t, const char *file)
{
    BIO *bio = BIO_new_file(file, "r");

    t->crls = pem_read_crls(bio);
    BIO_free(bio);
    return t->crls ? 0 : pem_fail("crl-not-read", file);
}

static int read_ca(struct trust *t, const char *file)
{
    BIO *bio = BIO_new_file(file, "r");
    STACK_OF(X509) *cas = pem_read_certs(bio);
    int r = cas ? make_store(cas, t->crls, &t->ca) : pem_fail("ca-not-read", file);

    BIO_free(bio);
    sk_X509_pop_free(cas, X509_free);
    return r;
}

int trust_new(const struct trust_files *f, struct trust **ret_trust)
{
    struct trust *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return TEKD_ENOMEM;
    t->refs = 1;
    r = read_certificate(t, f->certificate);
    if (r == 0)
        r = f->key ? read_key(t, f->key) : check_key_in_hsm(t, f->certificate);
    if (r == 0 && f->crl)
        r = read_crl(t, f->crl);
    if (r == 0)
        r = read_ca(t, f->ca);
    if (r < 0) {
        trust_unref(t);
        return r;
    }
    *ret_trust = t;
    return 0;
}

struct trust *trust_ref(struct trust *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void trust_unref(struct trust *t)
{
    if (!t || atomic_fetch_sub(&t->refs, 1) > 1)
        return;
    X509_free(t->cert);
    sk_X509_pop_free(t->chain, X509_free);
    EVP_PKEY_free(t->key);
    X509_STORE_free(t->ca);
    sk_X509_CRL_pop_free(t->crls, X509_CRL_free);
    free(t);
}

int trust_store(const struct trust *t, const char *ca_pem, X509_STORE **ret_store)
{
    BIO *bio = BIO_new_mem_buf(ca_pem, -1);
    STACK_OF(X509) *cas = pem_read_certs(bio);
    int r = cas ? make_store(cas, t->crls, ret_store) : TEKD_EINVAL;

    ERR_clear_error();
    BIO_free(bio);
    sk_X509_pop_free(cas, X509_free);
    return r;
}
