#include "tekd/pem.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/secret.h"

/* ---- what a context may be ------------------------------------------------------------------- */

/* What curl has set besides goes: its session store, its key log, authentication later on. */
void pem_set_rules(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20");
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_sess_set_new_cb(ctx, NULL);
    SSL_CTX_set_keylog_callback(ctx, NULL);
    SSL_CTX_set_post_handshake_auth(ctx, 0);
    (void)SSL_CTX_set_options(ctx,
                              SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_verify_depth(ctx, PEM_CHAIN_MAX);
}

/* ---- files ----------------------------------------------------------------------------------- */

int pem_fail(const char *event, const char *file)
{
    char text[256];

    ERR_error_string_n(ERR_peek_last_error(), text, sizeof(text));
    ERR_clear_error();
    log_event(LOG_ERROR, "tls", event, LOG_STR("file", file), LOG_STR("error", text));
    return TEKD_EINVAL;
}

/* Whether reading PEM ended because there was no more, and not before something broken. */
static bool is_end(int n)
{
    bool is = n > 0 && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;

    if (is)
        ERR_clear_error();
    return is;
}

STACK_OF(X509) * pem_read_certs(BIO *bio)
{
    STACK_OF(X509) *certs = sk_X509_new_null();
    X509 *x;
    int ok = certs != NULL;

    ERR_clear_error();
    while (ok && bio && (x = PEM_read_bio_X509(bio, NULL, secret_no_passphrase, NULL))) {
        ok = sk_X509_push(certs, x);
        if (!ok)
            X509_free(x);
    }
    if (ok && is_end(sk_X509_num(certs)))
        return certs;
    sk_X509_pop_free(certs, X509_free);
    return NULL;
}

STACK_OF(X509_CRL) * pem_read_crls(BIO *bio)
{
    STACK_OF(X509_CRL) *crls = sk_X509_CRL_new_null();
    X509_CRL *x;
    int ok = crls != NULL;

    ERR_clear_error();
    while (ok && bio && (x = PEM_read_bio_X509_CRL(bio, NULL, secret_no_passphrase, NULL))) {
        ok = sk_X509_CRL_push(crls, x);
        if (!ok)
            X509_CRL_free(x);
    }
    if (ok && is_end(sk_X509_CRL_num(crls)))
        return crls;
    sk_X509_CRL_pop_free(crls, X509_CRL_free);
    return NULL;
}

int pem_read_key(const char *file, EVP_PKEY **ret_key)
{
    AUTO(secret) struct secret *pem = NULL;
    int r = secret_read_file(file, &pem);
    BIO *bio;

    if (r < 0) {
        log_event(LOG_ERROR, "tls", "key-not-read", LOG_STR("file", file),
                  LOG_STR("error", tekd_strerror(r)));
        return r == TEKD_ENOMEM || r == TEKD_EDENIED ? r : TEKD_EINVAL;
    }
    bio = BIO_new_mem_buf(secret_peek(pem), (int)secret_len(pem));
    *ret_key = bio ? PEM_read_bio_PrivateKey(bio, NULL, secret_no_passphrase, NULL) : NULL;
    BIO_free(bio);
    return *ret_key ? 0 : pem_fail("key-not-read", file);
}

static int add_certs(X509_STORE *store, const char *file)
{
    BIO *bio = BIO_new_file(file, "r");
    STACK_OF(X509) *certs = pem_read_certs(bio);
    int ok = certs ? 1 : 0;

    for (int i = 0; i < sk_X509_num(certs) && ok; i++)
        ok = X509_STORE_add_cert(store, sk_X509_value(certs, i));
    BIO_free(bio);
    sk_X509_pop_free(certs, X509_free);
    return ok ? 0 : pem_fail("ca-not-read", file);
}

int pem_read_store(const char *file, X509_STORE **ret_store)
{
    X509_STORE *store = X509_STORE_new();
    int r;

    if (!store)
        return TEKD_ENOMEM;
    if (file)
        r = add_certs(store, file);
    else
        r = X509_STORE_set_default_paths(store) == 1 ? 0 : TEKD_EINVAL;
    if (r < 0) {
        X509_STORE_free(store);
        return r;
    }
    *ret_store = store;
    return 0;
}
