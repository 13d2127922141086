/* A certificate request (PKCS #10, RFC 2986) for a key that stays in the token and signs it. */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "provision.h"
#include "tekd/err.h"

#define NAMES_MAX 8192

/* OpenSSL's typedefs: no AUTO(), but the same. */
static void request_freep(X509_REQ **p)
{
    X509_REQ_free(*p);
}

static void bio_freep(BIO **p)
{
    (void)BIO_free(*p);
}

static int fail_openssl(void)
{
    unsigned long e = ERR_get_error();

    ERR_clear_error();
    return options_fail(TEKD_ECRYPTO, "certificate request: %s",
                        e ? ERR_reason_error_string(e) : "OpenSSL gave no reason");
}

static int write_names(const struct csr_subject *s, struct buf **ret_names)
{
    AUTO(buf) struct buf *names = NULL;
    int r = buf_new(NAMES_MAX, &names);

    for (size_t i = 0; r == 0 && i < s->n_hosts; i++)
        r = pki_put_host(names, s->hosts[i]);
    if (r == 0)
        *ret_names = TAKE(names);
    return r;
}

int csr_check(const struct csr_subject *s)
{
    AUTO(buf) struct buf *names = NULL;

    return write_names(s, &names);
}

static int add_names(X509_REQ *req, const struct csr_subject *s)
{
    AUTO(buf) struct buf *names = NULL;
    STACK_OF(X509_EXTENSION) *list = NULL;
    X509V3_CTX ctx;
    X509_EXTENSION *x;
    bool ok;
    int r = write_names(s, &names);

    if (r < 0 || s->n_hosts == 0)
        return r;
    X509V3_set_ctx(&ctx, NULL, NULL, req, NULL, 0);
    x = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, buf_str(names));
    ok = x && X509v3_add_ext(&list, x, -1) && X509_REQ_add_extensions(req, list) > 0;
    X509_EXTENSION_free(x);
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    return ok ? 0 : fail_openssl();
}

static int fill(X509_REQ *req, const struct csr_subject *s, EVP_PKEY *public)
{
    X509_NAME *name = X509_REQ_get_subject_name(req);
    X509_ALGOR *algorithm = X509_ALGOR_new();
    bool ok =
        algorithm && X509_REQ_set_version(req, X509_REQ_VERSION_1) > 0 &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)s->name, -1,
                                   -1, 0) > 0 &&
        X509_REQ_set_pubkey(req, public) > 0 &&
        X509_ALGOR_set0(algorithm, OBJ_nid2obj(NID_ecdsa_with_SHA256), V_ASN1_UNDEF, NULL) > 0 &&
        X509_REQ_set1_signature_algo(req, algorithm) > 0;

    X509_ALGOR_free(algorithm);
    return ok ? add_names(req, s) : fail_openssl();
}

static int put_signature(X509_REQ *req, const struct hsm_signature *signature)
{
    ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();

    if (!bits ||
        ASN1_BIT_STRING_set(bits, (unsigned char *)signature->octets, signature->len) <= 0) {
        ASN1_BIT_STRING_free(bits);
        return fail_openssl();
    }
    /* All bits of the last octet count, zeros too. */
    bits->flags &= ~(ASN1_STRING_FLAG_BITS_LEFT | 7);
    bits->flags |= ASN1_STRING_FLAG_BITS_LEFT;
    X509_REQ_set0_signature(req, bits);
    return 0;
}

static int sign(X509_REQ *req, struct token *t, struct token_signing *key)
{
    struct hsm_signature signature;
    unsigned char *text = NULL, digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    int text_len = i2d_re_X509_REQ_tbs(req, &text);
    bool ok =
        text_len > 0 && EVP_Digest(text, (size_t)text_len, digest, &len, EVP_sha256(), NULL) > 0;
    int r;

    OPENSSL_free(text);
    if (!ok)
        return fail_openssl();
    r = token_signing_sign(key, digest, len, &signature);
    if (r < 0)
        return session_fail(t, r);
    r = put_signature(req, &signature);
    if (r == 0 && X509_REQ_verify(req, token_signing_public(key)) <= 0)
        r = fail_openssl();
    return r;
}

static int write_request(const char *path, X509_REQ *req)
{
    __attribute__((cleanup(bio_freep))) BIO *mem = BIO_new(BIO_s_mem());
    char *text = NULL;
    long len = 0;

    if (mem && PEM_write_bio_X509_REQ(mem, req) > 0)
        len = BIO_get_mem_data(mem, &text);
    return len > 0 ? files_write(path, (struct file_rule){0644, true}, text, (size_t)len)
                   : fail_openssl();
}

int csr_write(struct token *t, const char *label, const struct csr_subject *s, const char *path)
{
    __attribute__((cleanup(request_freep))) X509_REQ *req = X509_REQ_new();
    AUTO(token_signing) struct token_signing *key = NULL;
    int r = req ? token_sign_key(t, TOKEN_SIGN_TLS, label, &key) : TEKD_ENOMEM;

    if (r < 0)
        return session_fail(t, r);
    r = fill(req, s, token_signing_public(key));
    if (r == 0)
        r = sign(req, t, key);
    return r < 0 ? r : write_request(path, req);
}
