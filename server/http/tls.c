#include "internal.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "tekd/err.h"
#include "tekd/pem.h"

static int64_t unix_time(const ASN1_TIME *t)
{
    struct tm tm = {.tm_sec = 0};

    return t && ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* ---- the context ----------------------------------------------------------------------------- */

static int use_key(SSL_CTX *ctx, const struct http_files *f)
{
    EVP_PKEY *key = NULL;
    int r = f->signer ? tls_key_remote(f->signer, &key) : pem_read_key(f->key_file, &key);

    if (r < 0)
        return r;
    if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        r = pem_fail("key-does-not-fit-certificate", f->certificate);
    EVP_PKEY_free(key);
    return r;
}

/* The names of these CAs are what a client is asked for. */
static int use_ca(SSL_CTX *ctx, const char *path)
{
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);

    if (!names || SSL_CTX_load_verify_file(ctx, path) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return pem_fail("client-ca-not-read", path);
    }
    SSL_CTX_set_client_CA_list(ctx, names);
    return 0;
}

struct span {
    int64_t from_s, until_s; /* Unix time */
};

/* Of several CRLs of one issuer OpenSSL takes one that is valid; one without end never expires, one
 * whose end cannot be read always has. */
static struct span issuer_span(const STACK_OF(X509_OBJECT) * objects, const X509_NAME *issuer)
{
    struct span span = {.from_s = INT64_MAX, .until_s = 1};

    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        const X509_CRL *crl = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));
        const ASN1_TIME *end;
        int64_t from, until;

        if (!crl || X509_NAME_cmp(X509_CRL_get_issuer(crl), issuer) != 0)
            continue;
        end = X509_CRL_get0_nextUpdate(crl);
        from = unix_time(X509_CRL_get0_lastUpdate(crl));
        until = end ? unix_time(end) : INT64_MAX;
        span.from_s = from < span.from_s ? from : span.from_s;
        span.until_s = until > span.until_s ? until : span.until_s;
    }
    return span;
}

/* When each issuer has a CRL that is valid: from the last that begins until the first that ends. */
static void note_crls(struct http_ends *ends, X509_STORE *store)
{
    const STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
    struct span all = {.from_s = 0, .until_s = INT64_MAX};

    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        const X509_CRL *crl = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));
        struct span s;

        if (!crl)
            continue;
        s = issuer_span(objects, X509_CRL_get_issuer(crl));
        all.from_s = s.from_s > all.from_s ? s.from_s : all.from_s;
        all.until_s = s.until_s < all.until_s ? s.until_s : all.until_s;
    }
    ends->crl_this_update_s = all.from_s;
    ends->crl_next_update_s = all.until_s == INT64_MAX ? 0 : all.until_s;
}

/* A CRL that is not valid refuses every peer: that is OpenSSL's check at each handshake. */
static int use_crl(struct tls *t, const char *path)
{
    BIO *bio = BIO_new_file(path, "r");
    STACK_OF(X509_CRL) *crls = pem_read_crls(bio);
    int ok = crls ? 1 : 0;

    for (int i = 0; i < sk_X509_CRL_num(crls) && ok; i++)
        ok = X509_STORE_add_crl(t->store, sk_X509_CRL_value(crls, i));
    BIO_free(bio);
    sk_X509_CRL_pop_free(crls, X509_CRL_free);
    if (!ok)
        return pem_fail("crl-not-read", path);
    note_crls(&t->ends, t->store);
    X509_STORE_set_flags(t->store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return 0;
}

/* Only clients with a certificate; no tickets either, which TLS 1.3 would send on its own. */
static void set_rules(SSL_CTX *ctx)
{
    pem_set_rules(ctx);
    (void)SSL_CTX_set_num_tickets(ctx, 0);
    (void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_info_callback(ctx, handshake_info);
}

static void note_certificate(struct http_ends *ends, const X509 *certificate)
{
    ends->certificate_not_before_s = unix_time(X509_get0_notBefore(certificate));
    ends->certificate_not_after_s = unix_time(X509_get0_notAfter(certificate));
}

static int fill(struct tls *t, const struct http_files *f)
{
    int r;

    set_rules(t->ctx);
    if (SSL_CTX_use_certificate_chain_file(t->ctx, f->certificate) != 1)
        return pem_fail("certificate-not-read", f->certificate);
    note_certificate(&t->ends, SSL_CTX_get0_certificate(t->ctx));
    r = use_key(t->ctx, f);
    if (r == 0)
        r = use_ca(t->ctx, f->client_ca);
    t->store = SSL_CTX_get_cert_store(t->ctx);
    if (r == 0 && f->crl)
        r = use_crl(t, f->crl);
    return r;
}

int tls_new(const struct http_files *f, uint64_t generation, struct tls **ret_tls)
{
    struct tls *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return TEKD_ENOMEM;
    t->refs = 1;
    t->generation = generation;
    t->ctx = SSL_CTX_new(TLS_server_method());
    r = t->ctx ? fill(t, f) : TEKD_ENOMEM;
    if (r < 0) {
        tls_unref(t);
        return r;
    }
    *ret_tls = t;
    return 0;
}

struct tls *tls_ref(struct tls *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void tls_unref(struct tls *t)
{
    if (!t || atomic_fetch_sub(&t->refs, 1) > 1)
        return;
    SSL_CTX_free(t->ctx);
    free(t);
}

/* ---- why not --------------------------------------------------------------------------------- */

struct cause {
    long code;
    const char *token;
};

static const struct cause verify_causes[] = {
    {X509_V_ERR_CERT_REVOKED, "revoked"},
    {X509_V_ERR_CRL_HAS_EXPIRED, "crl-expired"},
    {X509_V_ERR_CRL_NOT_YET_VALID, "crl-not-yet-valid"},
    {X509_V_ERR_UNABLE_TO_GET_CRL, "no-crl-of-its-ca"},
    {X509_V_ERR_CERT_HAS_EXPIRED, "expired"},
    {X509_V_ERR_CERT_NOT_YET_VALID, "not-yet-valid"},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, "unknown-ca"},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, "unknown-ca"},
    {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, "unknown-ca"},
    {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, "unknown-ca"},
    {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, "unknown-ca"},
    {X509_V_ERR_CERT_SIGNATURE_FAILURE, "unknown-ca"},
    {X509_V_ERR_INVALID_PURPOSE, "wrong-purpose"},
};

static const struct cause handshake_causes[] = {
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, "no-certificate"},
    {SSL_R_UNSUPPORTED_PROTOCOL, "protocol"},
    {SSL_R_VERSION_TOO_LOW, "protocol"},
    {SSL_R_NO_SHARED_CIPHER, "cipher"},
    {SSL_R_HTTP_REQUEST, "plain-http"},
    {SSL_R_WRONG_VERSION_NUMBER, "not-tls"},
    {ERR_R_EVP_LIB, "server-key"}, /* it did not sign */
};

static const char *find(const struct cause *table, size_t n, long code)
{
    for (size_t i = 0; i < n; i++) {
        if (table[i].code == code)
            return table[i].token;
    }
    return NULL;
}

static const char *verify_token(long code)
{
    const char *token = find(verify_causes, ARRAY_SIZE(verify_causes), code);

    return token ? token : "certificate-refused";
}

const char *tls_cause(const SSL *ssl)
{
    long code = ssl ? SSL_get_verify_result(ssl) : X509_V_OK;
    long reason = ERR_GET_REASON(ERR_peek_last_error());
    const char *token;

    if (code != X509_V_OK)
        return verify_token(code);
    if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + UINT8_MAX)
        return "alert-from-peer"; /* it refused us */
    token = find(handshake_causes, ARRAY_SIZE(handshake_causes), reason);
    return token ? token : "handshake";
}

const char *tls_recheck(const struct tls *t, X509 *leaf, STACK_OF(X509) * chain)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    const char *why = "memory";

    if (ctx && X509_STORE_CTX_init(ctx, t->store, leaf, chain) == 1) {
        (void)X509_STORE_CTX_set_default(ctx, "ssl_client");
        X509_STORE_CTX_set_depth(ctx, PEM_CHAIN_MAX);
        why = X509_verify_cert(ctx) == 1 ? NULL : verify_token(X509_STORE_CTX_get_error(ctx));
    }
    X509_STORE_CTX_free(ctx);
    return why;
}
