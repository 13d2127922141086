/*
 * TLS of the push client: who we are, and who may be at the other end.  Everything is set on the
 * context that curl makes for a connection, so that one connection serves one BSA as it was
 * enrolled when the connection was made, and curl's own notions of CAs and sessions play no part.
 *
 * The server's certificate is looked at inside the handshake: chain, CRL and purpose by OpenSSL,
 * then, at depth 0, whether it is one that is enrolled for this BSA.  If not the handshake ends
 * with an alert, and neither our certificate nor a request has left.  The name is curl's to check;
 * it does so when the handshake is through and before it sends.
 *
 * There is no resumption: a resumed session would skip all of that.
 */
#include "internal.h"

#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/https.h"
#include "tekd/pem.h"

/* ---- targets --------------------------------------------------------------------------------- */

static void hash_enrolled(const struct keys_peer *peer, uint8_t out[static 32])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned len = 32;

    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(ctx, peer->cert, peer->n_certs * sizeof(peer->cert[0])) != 1 ||
        EVP_DigestUpdate(ctx, peer->ca_pem, peer->ca_pem ? strlen(peer->ca_pem) : 0) != 1 ||
        EVP_DigestFinal_ex(ctx, out, &len) != 1)
        abort(); /* SHA-256 of memory we have */
    EVP_MD_CTX_free(ctx);
}

int target_new(struct push *p, struct trust *trust, const struct keys_peer *peer,
               struct target **ret_target)
{
    struct target *t = calloc(1, sizeof(*t));
    int r = 0;

    if (!t)
        return TEKD_ENOMEM;
    t->refs = 1;
    t->push = p;
    t->trust = trust_ref(trust);
    t->own_ca = peer->ca_pem != NULL;
    t->n_certs = peer->n_certs;
    memcpy(t->cert, peer->cert, sizeof(t->cert));
    hash_enrolled(peer, t->enrolled_sha256);
    if (t->own_ca)
        r = trust_store(trust, peer->ca_pem, &t->store);
    else if (X509_STORE_up_ref(trust->ca) == 1)
        t->store = trust->ca;
    if (r < 0) {
        target_unref(t);
        return r;
    }
    *ret_target = t;
    return 0;
}

bool target_is_of(const struct target *t, const struct trust *trust, const struct keys_peer *peer)
{
    uint8_t enrolled[32];

    hash_enrolled(peer, enrolled);
    return t->trust == trust && memcmp(t->enrolled_sha256, enrolled, sizeof(enrolled)) == 0;
}

struct target *target_ref(struct target *t)
{
    t->refs++;
    return t;
}

void target_unref(struct target *t)
{
    if (!t || --t->refs > 0)
        return;
    X509_STORE_free(t->store);
    trust_unref(t->trust);
    free(t);
}

/* ---- connections ----------------------------------------------------------------------------- */

int conn_new(struct target *t, int64_t sign_by_us, struct conn **ret_conn)
{
    struct conn *c = calloc(1, sizeof(*c));

    if (!c)
        return TEKD_ENOMEM;
    c->refs = 1;
    c->target = target_ref(t);
    c->sign_by_us = sign_by_us;
    c->verify_error = X509_V_OK;
    c->checked_us = clock_mono_us();
    *ret_conn = c;
    return 0;
}

struct conn *conn_ref(struct conn *c)
{
    c->refs++;
    return c;
}

void conn_unref(struct conn *c)
{
    if (!c || --c->refs > 0)
        return;
    target_unref(c->target);
    free(c);
}

/* A context has a reference of its connection, and gives it up when it goes. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int conn_index = -1;

/* NOLINTNEXTLINE(readability-function-size): the parameters are OpenSSL's */
static void free_conn(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
    (void)parent;
    (void)ad;
    (void)idx;
    (void)argl;
    (void)argp;
    conn_unref(ptr);
}

static void make_index(void)
{
    conn_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_conn);
}

struct conn *tls_conn(SSL *ssl)
{
    return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), conn_index);
}

/* Nothing is signed any more, so reading and writing need no stack of their own. */
void tls_settle(SSL *ssl)
{
    (void)SSL_clear_mode(ssl, SSL_MODE_ASYNC);
}

static bool is_enrolled(struct conn *c, const X509 *cert)
{
    unsigned len = sizeof(c->cert);

    if (!cert || X509_digest(cert, EVP_sha256(), c->cert, &len) != 1)
        return false;
    for (size_t i = 0; i < c->target->n_certs; i++) {
        if (memcmp(c->cert, c->target->cert[i], sizeof(c->cert)) == 0)
            return true;
    }
    return false;
}

static int on_verify(int ok, X509_STORE_CTX *ctx)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct conn *c = tls_conn(ssl);
    int error = X509_STORE_CTX_get_error(ctx);

    /* Our CRLs are of the CAs that we run; a BSA's own CA may have none. */
    if (!ok && error == X509_V_ERR_UNABLE_TO_GET_CRL && c->target->own_ca) {
        X509_STORE_CTX_set_error(ctx, X509_V_OK);
        return 1;
    }
    if (ok && X509_STORE_CTX_get_error_depth(ctx) == 0) {
        c->is_enrolled = is_enrolled(c, X509_STORE_CTX_get_current_cert(ctx));
        ok = c->is_enrolled;
        error = X509_V_ERR_APPLICATION_VERIFICATION;
        if (!ok)
            X509_STORE_CTX_set_error(ctx, error);
    }
    if (!ok && c->verify_error == X509_V_OK)
        c->verify_error = error;
    return ok;
}

/* What the handshake looked at, by the same callback. */
static bool verify_again(SSL *ssl, X509 *cert)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    bool ok = false;

    if (ctx &&
        X509_STORE_CTX_init(ctx, tls_conn(ssl)->target->store, cert,
                            SSL_get_peer_cert_chain(ssl)) == 1 &&
        X509_STORE_CTX_set_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx(), ssl) == 1) {
        (void)X509_STORE_CTX_set_default(ctx, "ssl_server");
        X509_STORE_CTX_set_depth(ctx, PEM_CHAIN_MAX);
        X509_STORE_CTX_set_verify_cb(ctx, on_verify);
        ok = X509_verify_cert(ctx) == 1;
    }
    X509_STORE_CTX_free(ctx);
    return ok;
}

bool tls_is_good(SSL *ssl)
{
    struct conn *c = tls_conn(ssl);
    X509 *cert;

    if (clock_mono_us() - c->checked_us < PUSH_RECHECK_US)
        return true;
    cert = SSL_get1_peer_certificate(ssl);
    if (!cert || !verify_again(ssl, cert)) {
        X509_free(cert);
        return false;
    }
    X509_free(cert);
    c->checked_us = clock_mono_us();
    return true;
}

static int use_key(SSL_CTX *ctx, struct conn *c)
{
    const struct trust *trust = c->target->trust;
    EVP_PKEY *key = NULL;
    int ok;

    if (trust->key)
        return SSL_CTX_use_PrivateKey(ctx, trust->key) == 1 ? 0 : TEKD_ECRYPTO;
    if (signing_key(trust->cert, c, &key) < 0)
        return TEKD_ECRYPTO;
    ok = SSL_CTX_use_PrivateKey(ctx, key);
    EVP_PKEY_free(key);
    if (ok == 1 && signing_is_apart())
        (void)SSL_CTX_set_mode(ctx, SSL_MODE_ASYNC);
    return ok == 1 ? 0 : TEKD_ECRYPTO;
}

int tls_set_up(SSL_CTX *ctx, struct conn *c)
{
    const struct trust *trust = c->target->trust;

    (void)pthread_once(&once, make_index);
    if (SSL_CTX_set_ex_data(ctx, conn_index, c) != 1)
        return TEKD_ENOMEM;
    (void)conn_ref(c);
    pem_set_rules(ctx);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verify);
    if (SSL_CTX_set1_verify_cert_store(ctx, c->target->store) != 1 ||
        SSL_CTX_use_certificate(ctx, trust->cert) != 1 ||
        SSL_CTX_set1_chain(ctx, trust->chain) != 1)
        return TEKD_ECRYPTO;
    return use_key(ctx, c);
}

/* ---- why not --------------------------------------------------------------------------------- */

const char *tls_why(const struct conn *c)
{
    if (c->verify_error == X509_V_OK)
        return NULL;
    if (c->verify_error == X509_V_ERR_APPLICATION_VERIFICATION)
        return "certificate not enrolled";
    return transport_why_not(c->verify_error);
}
