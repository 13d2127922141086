/* The development PKI, on OpenSSL's X509 calls. */
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "provision.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define DAYS_CA   3650
#define DAYS_CERT 730
#define DAYS_CRL  30

#define NAME_LEN_MAX 64 /* ub-common-name of RFC 5280 */
#define PATH_LEN_MAX 4096

struct pki {
    char *dir;
    X509 *ca;
    EVP_PKEY *key;
};

void pki_free(struct pki *p)
{
    if (!p)
        return;
    X509_free(p->ca);
    EVP_PKEY_free(p->key);
    free(p->dir);
    free(p);
}

static int fail_openssl(const char *what)
{
    unsigned long e = ERR_get_error();

    ERR_clear_error();
    return options_fail(TEKD_ECRYPTO, "%s: %s", what,
                        e ? ERR_reason_error_string(e) : "OpenSSL gave no reason");
}

/* ---------------------------------------------------------------- files ------------ */

/* A name becomes part of a path. */
static int path_of(const char *dir, const char *name, const char *suffix,
                   char out[static PATH_LEN_MAX])
{
    size_t len = strlen(name);
    int n;

    if (len == 0 || len > NAME_LEN_MAX || name[0] == '.' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len)
        return options_fail(TEKD_EINVAL,
                            "name \"%s\": expected 1 to %d of a-z A-Z 0-9 . _ -, no dot first",
                            name, NAME_LEN_MAX);
    n = snprintf(out, PATH_LEN_MAX, "%s/%s.%s", dir, name, suffix);
    if (n < 0 || n >= PATH_LEN_MAX)
        return options_fail(TEKD_EINVAL, "%s: the path is too long", dir);
    return 0;
}

enum pem { PEM_CERT, PEM_KEY, PEM_CRL };

static const struct {
    const char *suffix;
    unsigned mode;
} pems[] = {
    [PEM_CERT] = {"crt", 0644},
    [PEM_KEY] = {"key", 0600},
    [PEM_CRL] = {"crl", 0644},
};

static void *read_pem(FILE *f, enum pem kind)
{
    if (kind == PEM_CERT)
        return PEM_read_X509(f, NULL, NULL, NULL);
    if (kind == PEM_KEY)
        return PEM_read_PrivateKey(f, NULL, NULL, NULL);
    return PEM_read_X509_CRL(f, NULL, NULL, NULL);
}

static int load(const char *dir, const char *name, enum pem kind, void *ret_object)
{
    char path[PATH_LEN_MAX];
    void *object;
    FILE *f;
    int r = path_of(dir, name, pems[kind].suffix, path);

    if (r < 0)
        return r;
    f = fopen(path, "re");
    if (!f)
        return errno == ENOENT ? TEKD_ENOTFOUND
                               : options_fail(TEKD_EIO, "%s: %s", path, strerror(errno));
    object = read_pem(f, kind);
    (void)fclose(f);
    if (!object) {
        ERR_clear_error();
        return options_fail(TEKD_EFORMAT, "%s: no PEM of this kind", path);
    }
    *(void **)ret_object = object;
    return 0;
}

static int write_pem(BIO *mem, enum pem kind, void *object)
{
    if (kind == PEM_CERT)
        return PEM_write_bio_X509(mem, object);
    if (kind == PEM_KEY)
        return PEM_write_bio_PKCS8PrivateKey(mem, object, NULL, NULL, 0, NULL, NULL);
    return PEM_write_bio_X509_CRL(mem, object);
}

/* Certificates and keys never replace others; the CRL is what changes. */
static int save(const char *dir, const char *name, enum pem kind, void *object)
{
    struct file_rule rule = {.mode = pems[kind].mode, .replace = kind == PEM_CRL};
    char path[PATH_LEN_MAX];
    BIO *mem = BIO_new(kind == PEM_KEY ? BIO_s_secmem() : BIO_s_mem());
    char *text = NULL;
    long len = 0;
    int r = path_of(dir, name, pems[kind].suffix, path);

    if (r == 0 && mem && write_pem(mem, kind, object) > 0)
        len = BIO_get_mem_data(mem, &text);
    if (r == 0)
        r = len > 0 ? files_write(path, rule, text, (size_t)len) : fail_openssl(path);
    BIO_free(mem);
    return r;
}

/* The key of the file; made with it if need be.  One without certificate is of a run cut short. */
static int take_key(const char *dir, const char *name, EVP_PKEY **ret_key)
{
    EVP_PKEY *key = NULL;
    int r = load(dir, name, PEM_KEY, &key);

    if (r == TEKD_ENOTFOUND) {
        key = EVP_EC_gen("P-256");
        r = key ? save(dir, name, PEM_KEY, key) : fail_openssl("key");
    }
    if (r == 0)
        *ret_key = key;
    else
        EVP_PKEY_free(key);
    return r;
}

/* ---------------------------------------------------------------- certificates ----- */

struct extension {
    int nid;
    const char *value;
};

static int add_extension(X509 *cert, X509 *issuer, const struct extension *e)
{
    X509V3_CTX ctx;
    X509_EXTENSION *x;
    int ok;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    x = X509V3_EXT_conf_nid(NULL, &ctx, e->nid, e->value);
    ok = x && X509_add_ext(cert, x, -1) > 0;
    X509_EXTENSION_free(x);
    return ok ? 0 : fail_openssl(e->value);
}

static int add_extensions(X509 *cert, X509 *issuer, const struct extension *list, size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_extension(cert, issuer, &list[i]);
    return r;
}

/* 16 random octets, positive (RFC 5280 section 4.1.2.2). */
static bool set_serial(X509 *cert)
{
    BIGNUM *n = BN_new();
    bool ok = n && BN_rand(n, 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) > 0 &&
              BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));

    BN_free(n);
    return ok;
}

/* All but extensions and signature; valid since five minutes ago, for clocks that are behind. */
static int fill(X509 *cert, const char *common_name, EVP_PKEY *key, int days)
{
    X509_NAME *name = X509_get_subject_name(cert);

    if (X509_set_version(cert, X509_VERSION_3) > 0 && set_serial(cert) &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name,
                                   -1, -1, 0) > 0 &&
        X509_gmtime_adj(X509_getm_notBefore(cert), -300) &&
        X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL) && X509_set_pubkey(cert, key) > 0)
        return 0;
    return fail_openssl(common_name);
}

static int sign(X509 *cert, X509 *issuer, EVP_PKEY *key)
{
    if (X509_set_issuer_name(cert, X509_get_subject_name(issuer)) > 0 &&
        X509_sign(cert, key, EVP_sha256()) > 0)
        return 0;
    return fail_openssl("signing");
}

static int make_ca(const char *common_name, EVP_PKEY *key, X509 **ret_cert)
{
    static const struct extension list[] = {
        {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
        {NID_key_usage, "critical,keyCertSign,cRLSign"},
        {NID_subject_key_identifier, "hash"},
    };
    X509 *cert = X509_new();
    int r = cert ? fill(cert, common_name, key, DAYS_CA) : TEKD_ENOMEM;

    if (r == 0)
        r = add_extensions(cert, cert, list, ARRAY_SIZE(list));
    if (r == 0)
        r = sign(cert, cert, key);
    if (r == 0)
        *ret_cert = cert;
    else
        X509_free(cert);
    return r;
}

/* ---------------------------------------------------------------- CRL -------------- */

/* The next number behind that of the older CRL (RFC 5280 section 5.2.3). */
static bool set_number(X509_CRL *crl, X509_CRL *older)
{
    ASN1_INTEGER *old = older ? X509_CRL_get_ext_d2i(older, NID_crl_number, NULL, NULL) : NULL;
    BIGNUM *n = old ? ASN1_INTEGER_to_BN(old, NULL) : BN_new();
    ASN1_INTEGER *next = NULL;
    bool ok = false;

    if (n && BN_add_word(n, 1))
        next = BN_to_ASN1_INTEGER(n, NULL);
    if (next)
        ok = X509_CRL_add1_ext_i2d(crl, NID_crl_number, next, 0, 0) > 0;
    ASN1_INTEGER_free(old);
    ASN1_INTEGER_free(next);
    BN_free(n);
    return ok;
}

static bool set_authority(X509_CRL *crl, X509 *ca)
{
    X509V3_CTX ctx;
    X509_EXTENSION *x;
    bool ok;

    X509V3_set_ctx(&ctx, ca, NULL, NULL, crl, 0);
    x = X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid:always");
    ok = x && X509_CRL_add_ext(crl, x, -1) > 0;
    X509_EXTENSION_free(x);
    return ok;
}

static bool copy_entries(X509_CRL *crl, X509_CRL *older)
{
    STACK_OF(X509_REVOKED) *list = older ? X509_CRL_get_REVOKED(older) : NULL;

    for (int i = 0; i < sk_X509_REVOKED_num(list); i++) {
        X509_REVOKED *entry = X509_REVOKED_dup(sk_X509_REVOKED_value(list, i));

        if (!entry || !X509_CRL_add0_revoked(crl, entry)) {
            X509_REVOKED_free(entry);
            return false;
        }
    }
    return true;
}

static bool add_entry(X509_CRL *crl, X509 *cert)
{
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
    bool ok = entry && now && X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(cert)) &&
              X509_REVOKED_set_revocationDate(entry, now) && X509_CRL_add0_revoked(crl, entry);

    if (!ok)
        X509_REVOKED_free(entry);
    ASN1_TIME_free(now);
    return ok;
}

static bool fill_crl(struct pki *p, X509_CRL *crl, X509_CRL *older, X509 *revoked)
{
    ASN1_TIME *now = X509_gmtime_adj(NULL, -300);
    ASN1_TIME *next = X509_time_adj_ex(NULL, DAYS_CRL, 0, NULL);
    X509_REVOKED *there = NULL;
    bool ok = now && next && X509_CRL_set_version(crl, X509_CRL_VERSION_2) > 0 &&
              X509_CRL_set_issuer_name(crl, X509_get_subject_name(p->ca)) > 0 &&
              X509_CRL_set1_lastUpdate(crl, now) > 0 && X509_CRL_set1_nextUpdate(crl, next) > 0 &&
              set_authority(crl, p->ca) && set_number(crl, older) && copy_entries(crl, older);

    if (ok && revoked && X509_CRL_get0_by_serial(crl, &there, X509_get_serialNumber(revoked)) <= 0)
        ok = add_entry(crl, revoked);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    return ok && X509_CRL_sort(crl) > 0 && X509_CRL_sign(crl, p->key, EVP_sha256()) > 0;
}

static int make_crl(struct pki *p, X509_CRL *older, X509 *revoked)
{
    X509_CRL *crl = X509_CRL_new();
    int r;

    if (crl && fill_crl(p, crl, older, revoked))
        r = save(p->dir, "ca", PEM_CRL, crl);
    else
        r = fail_openssl("CRL");
    X509_CRL_free(crl);
    return r;
}

/* What an older one revoked, under a CA whose certificate was lost, stays revoked. */
static int first_crl(struct pki *p)
{
    X509_CRL *older = NULL;
    int r = load(p->dir, "ca", PEM_CRL, &older);

    if (r == 0 || r == TEKD_ENOTFOUND)
        r = make_crl(p, older, NULL);
    X509_CRL_free(older);
    return r;
}

int pki_revoke(struct pki *p, const char *name)
{
    X509_CRL *older = NULL;
    X509 *cert = NULL;
    int r = load(p->dir, "ca", PEM_CRL, &older);

    /* A CA whose CRL was lost must not quietly forget what was revoked. */
    if (r == TEKD_ENOTFOUND)
        r = options_fail(r, "%s/ca.crl is missing", p->dir);
    if (r == 0 && name) {
        r = load(p->dir, name, PEM_CERT, &cert);
        if (r == TEKD_ENOTFOUND)
            r = options_fail(r, "%s has no certificate %s", p->dir, name);
    }
    if (r == 0)
        r = make_crl(p, older, cert);
    X509_CRL_free(older);
    X509_free(cert);
    return r;
}

/* ---------------------------------------------------------------- the CA ----------- */

int pki_open(const char *dir, struct pki **ret_pki)
{
    AUTO(pki) struct pki *p = calloc(1, sizeof(*p));
    int r;

    if (!p || !(p->dir = strdup(dir)))
        return TEKD_ENOMEM;
    r = load(dir, "ca", PEM_CERT, &p->ca);
    if (r == 0)
        r = load(dir, "ca", PEM_KEY, &p->key);
    if (r < 0)
        return r;
    if (X509_check_private_key(p->ca, p->key) <= 0)
        return options_fail(TEKD_EFORMAT, "%s: ca.key is not the key of ca.crt", dir);
    *ret_pki = TAKE(p);
    return 0;
}

int pki_new(const char *dir, const char *common_name, struct pki **ret_pki)
{
    AUTO(pki) struct pki *p = calloc(1, sizeof(*p));
    int r;

    if (!p || !(p->dir = strdup(dir)))
        return TEKD_ENOMEM;
    if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        return options_fail(TEKD_EIO, "%s: %s", dir, strerror(errno));
    r = take_key(dir, "ca", &p->key);
    if (r == 0)
        r = make_ca(common_name, p->key, &p->ca);
    /* ca.crt last: with it the folder counts as having a CA. */
    if (r == 0)
        r = first_crl(p);
    if (r == 0)
        r = save(dir, "ca", PEM_CERT, p->ca);
    if (r < 0)
        return r;
    *ret_pki = TAKE(p);
    return 0;
}

/* ---------------------------------------------------------------- issuing ---------- */

/* A numeric address is an address; everything else has to be a DNS name. */
int pki_put_host(struct buf *b, const char *host)
{
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(host);
    size_t len = strlen(host);

    ASN1_OCTET_STRING_free(ip);
    ERR_clear_error();
    if (!ip &&
        (len == 0 || len > 253 ||
         strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != len))
        return options_fail(TEKD_EINVAL, "--host %s: neither an IP address nor a DNS name", host);
    return buf_printf(b, "%s%s:%s", buf_len(b) > 0 ? "," : "", ip ? "IP" : "DNS", host);
}

static int alternative_names(const struct pki_subject *s, struct buf *b)
{
    int r = buf_puts(b, "DNS:localhost,IP:127.0.0.1");

    for (size_t i = 0; r == 0 && i < s->n_hosts; i++)
        r = pki_put_host(b, s->hosts[i]);
    return r;
}

static int make_cert(struct pki *p, const struct pki_subject *s, EVP_PKEY *key, X509 **ret_cert)
{
    AUTO(buf) struct buf *names = NULL;
    X509 *cert = NULL;
    int r = buf_new(8192, &names);

    if (r == 0)
        r = alternative_names(s, names);
    if (r < 0)
        return r;
    const struct extension list[] = {
        {NID_basic_constraints, "critical,CA:FALSE"},
        {NID_key_usage, "critical,digitalSignature"},
        {NID_ext_key_usage, "clientAuth,serverAuth"},
        {NID_subject_key_identifier, "hash"},
        {NID_authority_key_identifier, "keyid:always"},
        {NID_subject_alt_name, buf_str(names)},
    };
    cert = X509_new();
    r = cert ? fill(cert, s->name, key, DAYS_CERT) : TEKD_ENOMEM;
    if (r == 0)
        r = add_extensions(cert, p->ca, list, ARRAY_SIZE(list));
    if (r == 0)
        r = sign(cert, p->ca, p->key);
    if (r == 0)
        *ret_cert = cert;
    else
        X509_free(cert);
    return r;
}

int pki_issue(struct pki *p, const struct pki_subject *s)
{
    EVP_PKEY *own = NULL;
    X509 *cert = NULL;
    int r = 0;

    if (!s->public_key)
        r = take_key(p->dir, s->name, &own);
    if (r == 0)
        r = make_cert(p, s, own ? own : s->public_key, &cert);
    if (r == 0)
        r = save(p->dir, s->name, PEM_CERT, cert);
    EVP_PKEY_free(own);
    X509_free(cert);
    return r;
}

/* What is wrong with a certificate that is there, or NULL. */
static const char *fault_of(struct pki *p, const struct pki_subject *s, X509 *cert)
{
    EVP_PKEY *key = NULL;
    const char *fault = NULL;

    if (X509_verify(cert, p->key) <= 0)
        fault = "is not of this CA";
    else if (X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0)
        fault = "has expired";
    else if (s->public_key && EVP_PKEY_eq(X509_get0_pubkey(cert), s->public_key) <= 0)
        fault = "is for another key than the token's";
    else if (!s->public_key &&
             (load(p->dir, s->name, PEM_KEY, &key) < 0 || X509_check_private_key(cert, key) <= 0))
        fault = "has no key file, or another key in it";
    EVP_PKEY_free(key);
    ERR_clear_error();
    return fault;
}

int pki_has(struct pki *p, const struct pki_subject *s)
{
    const char *fault;
    X509 *cert = NULL;
    int r = load(p->dir, s->name, PEM_CERT, &cert);

    if (r == TEKD_ENOTFOUND)
        return 0;
    if (r < 0)
        return r;
    fault = fault_of(p, s, cert);
    X509_free(cert);
    return fault ? options_fail(TEKD_EEXIST, "%s/%s.crt exists, but %s", p->dir, s->name, fault)
                 : 1;
}

int pki_digest(const char *dir, const char *name, char ret_hex[static 65])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    X509 *cert = NULL;
    int r = load(dir, name, PEM_CERT, &cert);

    if (r < 0)
        return r;
    if (X509_digest(cert, EVP_sha256(), digest, &len) <= 0 || len != 32)
        r = fail_openssl("digest");
    X509_free(cert);
    if (r == 0)
        enc_hex(digest, 32, ret_hex);
    return r;
}
