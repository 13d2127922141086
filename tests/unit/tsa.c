#include "tsa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <openssl/ts.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

static EVP_PKEY *new_key(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");

    assert_non_null(key);
    return key;
}

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(e);
    assert_int_equal(X509_add_ext(cert, e, -1), 1);
    X509_EXTENSION_free(e);
}

static X509 *begin_cert(EVP_PKEY *key, const char *name, int64_t from_s, int64_t to_s)
{
    X509 *x = X509_new();

    assert_non_null(x);
    assert_int_equal(X509_set_version(x, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(x), 7), 1);
    assert_non_null(ASN1_TIME_set(X509_getm_notBefore(x), (time_t)from_s));
    assert_non_null(ASN1_TIME_set(X509_getm_notAfter(x), (time_t)to_s));
    assert_int_equal(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                                (const unsigned char *)name, -1, -1, 0),
                     1);
    assert_int_equal(X509_set_pubkey(x, key), 1);
    return x;
}

#define ALWAYS_FROM 0
#define ALWAYS_TO   INT64_C(4102444800) /* 2100 */

struct tsa *tsa_new(int64_t from_s, int64_t to_s)
{
    struct tsa *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    t->ca_key = new_key();
    t->key = new_key();
    t->ca = begin_cert(t->ca_key, "TSA CA", ALWAYS_FROM, ALWAYS_TO);
    assert_int_equal(X509_set_issuer_name(t->ca, X509_get_subject_name(t->ca)), 1);
    add_extension(t->ca, t->ca, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(t->ca, t->ca_key, EVP_sha256()) > 0);
    t->cert = begin_cert(t->key, "TSA", from_s, to_s);
    assert_int_equal(X509_set_issuer_name(t->cert, X509_get_subject_name(t->ca)), 1);
    add_extension(t->cert, t->ca, NID_ext_key_usage, "critical,timeStamping");
    assert_true(X509_sign(t->cert, t->ca_key, EVP_sha256()) > 0);
    t->store = X509_STORE_new();
    assert_non_null(t->store);
    assert_int_equal(X509_STORE_add_cert(t->store, t->ca), 1);
    return t;
}

void tsa_free(struct tsa *t)
{
    EVP_PKEY_free(t->ca_key);
    EVP_PKEY_free(t->key);
    X509_free(t->ca);
    X509_free(t->cert);
    X509_STORE_free(t->store);
    free(t);
}

static ASN1_INTEGER *on_serial(TS_RESP_CTX *ctx, void *arg)
{
    ASN1_INTEGER *i = ASN1_INTEGER_new();

    (void)ctx;
    (void)arg;
    assert_int_equal(ASN1_INTEGER_set(i, 42), 1);
    return i;
}

static int on_time(TS_RESP_CTX *ctx, void *arg, long *sec, long *usec)
{
    (void)ctx;
    *sec = (long)((const struct tsa *)arg)->utc_s;
    *usec = 0;
    return 1;
}

/* OpenSSL takes no signer that may not stamp; so he changes when he is taken. */
static void change_usage(const struct tsa *t)
{
    int at = X509_get_ext_by_NID(t->cert, NID_ext_key_usage, -1);

    X509_EXTENSION_free(X509_delete_ext(t->cert, at));
    add_extension(t->cert, t->ca, NID_ext_key_usage, t->other_usage);
    assert_true(X509_sign(t->cert, t->ca_key, EVP_sha256()) > 0);
}

/* For a TSA that refuses, no hash is good enough. */
static TS_RESP_CTX *make_ctx(const struct tsa *t)
{
    TS_RESP_CTX *ctx = TS_RESP_CTX_new();
    ASN1_OBJECT *policy = OBJ_txt2obj("1.2.3.4.1", 1);

    assert_non_null(ctx);
    assert_non_null(policy);
    TS_RESP_CTX_set_serial_cb(ctx, on_serial, NULL);
    TS_RESP_CTX_set_time_cb(ctx, on_time, (void *)(uintptr_t)t);
    assert_int_equal(TS_RESP_CTX_set_signer_cert(ctx, t->cert), 1);
    assert_int_equal(TS_RESP_CTX_set_ess_cert_id_digest(ctx, EVP_sha256()), 1);
    if (t->other_usage)
        change_usage(t);
    assert_int_equal(TS_RESP_CTX_set_signer_key(ctx, t->key), 1);
    assert_int_equal(TS_RESP_CTX_set_signer_digest(ctx, EVP_sha256()), 1);
    assert_int_equal(TS_RESP_CTX_set_def_policy(ctx, policy), 1);
    assert_int_equal(TS_RESP_CTX_add_md(ctx, t->refuses ? EVP_sha512() : EVP_sha256()), 1);
    ASN1_OBJECT_free(policy);
    return ctx;
}

void tsa_answer(const struct tsa *t, const struct buf *question, struct buf *out)
{
    BIO *bio = BIO_new_mem_buf(buf_data(question), (int)buf_len(question));
    TS_RESP_CTX *ctx = make_ctx(t);
    TS_RESP *resp = TS_RESP_create_response(ctx, bio);
    unsigned char *der = NULL;
    int n;

    assert_non_null(resp);
    n = i2d_TS_RESP(resp, &der);
    assert_true(n > 0);
    assert_int_equal(buf_append(out, der, (size_t)n), 0);
    OPENSSL_free(der);
    TS_RESP_free(resp);
    TS_RESP_CTX_free(ctx);
    BIO_free(bio);
}
