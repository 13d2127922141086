#include "tekd/timestamp.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ts.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tekd/err.h"

#define HASH_LEN 32

static int digest(const void *octets, size_t len, uint8_t out[static HASH_LEN])
{
    return EVP_Digest(octets, len, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : TEKD_ECRYPTO;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static bool set_imprint(TS_REQ *req, const uint8_t hash[static HASH_LEN])
{
    TS_MSG_IMPRINT *imprint = TS_MSG_IMPRINT_new();
    X509_ALGOR *algo = X509_ALGOR_new();
    bool ok = imprint && algo;

    /* With parameters NULL, as TSAs have always been asked.  What follows copies. */
    ok = ok && X509_ALGOR_set0(algo, OBJ_nid2obj(NID_sha256), V_ASN1_NULL, NULL) == 1 &&
         TS_MSG_IMPRINT_set_algo(imprint, algo) == 1 &&
         TS_MSG_IMPRINT_set_msg(imprint, (unsigned char *)(uintptr_t)hash, HASH_LEN) == 1 &&
         TS_REQ_set_msg_imprint(req, imprint) == 1;
    X509_ALGOR_free(algo);
    TS_MSG_IMPRINT_free(imprint);
    return ok;
}

static bool set_nonce(TS_REQ *req, const struct timestamp_nonce *nonce)
{
    BIGNUM *n = BN_bin2bn(nonce->octets, sizeof(nonce->octets), NULL);
    ASN1_INTEGER *i = n ? BN_to_ASN1_INTEGER(n, NULL) : NULL;
    bool ok = i && TS_REQ_set_nonce(req, i) == 1;

    ASN1_INTEGER_free(i);
    BN_free(n);
    return ok;
}

/* The question about a hash; NULL when OpenSSL fails. */
static TS_REQ *make_question(const uint8_t hash[static HASH_LEN],
                             const struct timestamp_nonce *nonce)
{
    TS_REQ *req = TS_REQ_new();

    if (req && TS_REQ_set_version(req, 1) == 1 && set_imprint(req, hash) &&
        (!nonce || set_nonce(req, nonce)) && TS_REQ_set_cert_req(req, 1) == 1)
        return req;
    TS_REQ_free(req);
    return NULL;
}

int timestamp_ask(const void *octets, size_t len, struct timestamp_nonce *ret_nonce,
                  struct buf *out)
{
    uint8_t hash[HASH_LEN];
    unsigned char *der = NULL;
    TS_REQ *req;
    int n, r = digest(octets, len, hash);

    if (r < 0 || RAND_bytes(ret_nonce->octets, sizeof(ret_nonce->octets)) != 1)
        return TEKD_ECRYPTO;
    req = make_question(hash, ret_nonce);
    n = req ? i2d_TS_REQ(req, &der) : -1;
    TS_REQ_free(req);
    if (n <= 0)
        return TEKD_ECRYPTO;
    r = buf_append(out, der, (size_t)n);
    OPENSSL_free(der);
    return r;
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* In words for people; what is not here is said as OpenSSL says it. */
static const struct {
    int reason;
    const char *why;
} reasons[] = {
    {TS_R_MESSAGE_IMPRINT_MISMATCH, "it stamps other octets"},
    {TS_R_NONCE_MISMATCH, "it answers another question (nonce)"},
    {TS_R_NONCE_NOT_RETURNED, "it has no nonce"},
    {TS_R_UNSUPPORTED_VERSION, "a version other than 1"},
    {TS_R_SIGNATURE_FAILURE, "its signature does not verify"},
    {TS_R_ESS_SIGNING_CERTIFICATE_ERROR, "it is signed for another certificate"},
    {TS_R_CERTIFICATE_VERIFY_ERROR, "certificate refused"},
};

static const char *reason_of(unsigned long e)
{
    const char *text = NULL;

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]) && !text; i++) {
        if (ERR_GET_LIB(e) == ERR_LIB_TS && ERR_GET_REASON(e) == reasons[i].reason)
            text = reasons[i].why;
    }
    if (!text)
        text = ERR_reason_error_string(e);
    return text ? text : "OpenSSL failed";
}

/* The first error that is one of time stamps, else the first; its data says more. */
static void explain(char why[static TIMESTAMP_WHY_MAX])
{
    const char *data;
    unsigned long e;
    int flags;

    why[0] = '\0';
    while ((e = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0) {
        bool is_ours = ERR_GET_LIB(e) == ERR_LIB_TS;
        bool has_data = (flags & ERR_TXT_STRING) && data && *data;

        if (is_ours || !why[0])
            (void)snprintf(why, TIMESTAMP_WHY_MAX, "%s%s%.120s", reason_of(e), has_data ? ": " : "",
                           has_data ? data : "");
        if (is_ours)
            break;
    }
    ERR_clear_error();
}

/* Granted, with modifications or without; else a word for why not. */
static int check_status(TS_RESP *resp, char why[static TIMESTAMP_WHY_MAX])
{
    TS_STATUS_INFO *info = TS_RESP_get_status_info(resp);
    long status = ASN1_INTEGER_get(TS_STATUS_INFO_get0_status(info));
    const STACK_OF(ASN1_UTF8STRING) *text = TS_STATUS_INFO_get0_text(info);
    const ASN1_UTF8STRING *first =
        sk_ASN1_UTF8STRING_num(text) > 0 ? sk_ASN1_UTF8STRING_value(text, 0) : NULL;

    if (status == TS_STATUS_GRANTED || status == TS_STATUS_GRANTED_WITH_MODS)
        return 0;
    (void)snprintf(why, TIMESTAMP_WHY_MAX, "refused with status %ld%s%.*s", status,
                   first ? ": " : "",
                   first ? (ASN1_STRING_length(first) < 100 ? ASN1_STRING_length(first) : 100) : 0,
                   first ? (const char *)ASN1_STRING_get0_data(first) : "");
    return TEKD_EDENIED;
}

static int time_of(TS_RESP *resp, int64_t *ret_utc_us)
{
    const TS_TST_INFO *info = TS_RESP_get_tst_info(resp);
    const ASN1_GENERALIZEDTIME *t = info ? TS_TST_INFO_get_time(info) : NULL;
    struct tm tm;

    if (!t || ASN1_TIME_to_tm(t, &tm) != 1)
        return TEKD_EFORMAT;
    *ret_utc_us = (int64_t)timegm(&tm) * 1000000;
    return 0;
}

/* The store in ctx is the context's own: parameters of it are nobody else's. */
static bool set_store(TS_VERIFY_CTX *ctx, const struct timestamp_check *c, int64_t utc_us)
{
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(c->ca);
    bool ok = store != NULL;

    for (int i = 0; i < sk_X509_OBJECT_num(objects) && ok; i++) {
        X509 *x = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        ok = !x || X509_STORE_add_cert(store, x) == 1;
    }
    if (!ok) {
        X509_STORE_free(store);
        return false;
    }
    (void)X509_STORE_set_depth(store, TIMESTAMP_CHAIN_MAX);
    if (c->at_its_time)
        X509_VERIFY_PARAM_set_time(X509_STORE_get0_param(store), (time_t)(utc_us / 1000000));
    (void)TS_VERIFY_CTX_set_store(ctx, store); /* takes it */
    (void)TS_VERIFY_CTX_add_flags(ctx, TS_VFY_SIGNATURE);
    return true;
}

/* All but the status, which was looked at. */
static int check_token(const struct timestamp_check *c, TS_RESP *resp, int64_t utc_us,
                       char why[static TIMESTAMP_WHY_MAX])
{
    uint8_t hash[HASH_LEN];
    TS_REQ *req = digest(c->octets, c->len, hash) == 0 ? make_question(hash, c->nonce) : NULL;
    TS_VERIFY_CTX *ctx = req ? TS_REQ_to_TS_VERIFY_CTX(req, NULL) : NULL;
    int r = ctx && (!c->ca || set_store(ctx, c, utc_us)) ? 0 : TEKD_ENOMEM;

    ERR_clear_error();
    if (r == 0 && TS_RESP_verify_response(ctx, resp) != 1) {
        explain(why);
        r = TEKD_ECRYPTO;
    }
    TS_VERIFY_CTX_free(ctx);
    TS_REQ_free(req);
    return r;
}

static int verify(const struct timestamp_check *c, TS_RESP *resp, int64_t *ret_utc_us,
                  char why[static TIMESTAMP_WHY_MAX])
{
    int r = check_status(resp, why);

    if (r < 0)
        return r;
    (void)snprintf(why, TIMESTAMP_WHY_MAX, "no time stamp in it");
    r = time_of(resp, ret_utc_us);
    return r < 0 ? r : check_token(c, resp, *ret_utc_us, why);
}

int timestamp_verify(const struct timestamp_check *c, const void *answer, size_t answer_len,
                     int64_t *ret_utc_us, char why[static TIMESTAMP_WHY_MAX])
{
    const unsigned char *p = answer;
    TS_RESP *resp;
    int r = TEKD_EFORMAT;

    (void)snprintf(why, TIMESTAMP_WHY_MAX, "not a time stamp");
    if (answer_len > TIMESTAMP_MAX)
        return TEKD_ETOOBIG;
    resp = d2i_TS_RESP(NULL, &p, (long)answer_len);
    /* Nothing may follow it: there is one form of it. */
    if (resp && p == (const unsigned char *)answer + answer_len)
        r = verify(c, resp, ret_utc_us, why);
    TS_RESP_free(resp);
    ERR_clear_error();
    return r;
}
