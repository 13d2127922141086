#include "http_pki.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_S 86400L

/* What has to be so for there to be a test at all. */
static void need(int ok)
{
    assert(ok);
    if (!ok)
        abort();
}

static FILE *file_of(const struct pki *p, const char *name)
{
    const char *path = pki_path(p, name);
    FILE *f;
    int fd;

    (void)unlink(path); /* with its mode */
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    f = fdopen(fd, "w");
    need(f != NULL);
    return f;
}

const char *pki_path(const struct pki *p, const char *name)
{
    static char paths[4][2 * PKI_PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", p->dir, name);
    return path;
}

void pki_write(const struct pki *p, const char *name, const char *text)
{
    FILE *f = file_of(p, name);

    need(fputs(text, f) >= 0);
    need(fclose(f) == 0);
}

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    need(e && X509_add_ext(cert, e, -1) == 1);
    X509_EXTENSION_free(e);
}

static X509 *certificate(struct pki *p, EVP_PKEY *key, const char *name, enum pki_kind kind)
{
    X509 *cert = X509_new();
    X509_NAME *subject = X509_get_subject_name(cert);
    long from = kind == PKI_EXPIRED ? -2 * DAY_S : -DAY_S;

    need(X509_set_version(cert, X509_VERSION_3));
    need(ASN1_INTEGER_set(X509_get_serialNumber(cert), ++p->serial));
    need(X509_gmtime_adj(X509_getm_notBefore(cert), from) != NULL);
    need(X509_gmtime_adj(X509_getm_notAfter(cert),
                         from + DAY_S + (kind == PKI_EXPIRED ? 0 : DAY_S)) != NULL);
    need(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                    -1, 0));
    need(X509_set_pubkey(cert, key));
    return cert;
}

static struct pki_identity authority(struct pki *p, const char *name)
{
    struct pki_identity ca = {.key = EVP_EC_gen("P-256")};

    need(ca.key != NULL);
    ca.cert = certificate(p, ca.key, name, PKI_GOOD);
    need(X509_set_issuer_name(ca.cert, X509_get_subject_name(ca.cert)));
    add_extension(ca.cert, ca.cert, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(ca.cert, ca.cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    need(X509_sign(ca.cert, ca.key, EVP_sha256()) > 0);
    return ca;
}

static struct pki_identity issue(struct pki *p, const struct pki_identity *ca, const char *name,
                                 enum pki_kind kind)
{
    struct pki_identity id = {.key = EVP_EC_gen("P-256")};
    unsigned len = sizeof(id.sha256);

    need(id.key != NULL);
    id.cert = certificate(p, id.key, name, kind);
    need(X509_set_issuer_name(id.cert, X509_get_subject_name(ca->cert)));
    add_extension(id.cert, ca->cert, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    add_extension(id.cert, ca->cert, NID_ext_key_usage,
                  kind == PKI_FOR_SERVERS ? "serverAuth" : "clientAuth");
    need(X509_sign(id.cert, ca->key, EVP_sha256()) > 0);
    need(X509_digest(id.cert, EVP_sha256(), id.sha256, &len));
    return id;
}

static void free_identity(struct pki_identity *id)
{
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
}

static void write_cert(const struct pki *p, const char *name, X509 *cert)
{
    FILE *f = file_of(p, name);

    need(PEM_write_X509(f, cert));
    need(fclose(f) == 0);
}

static void write_key(const struct pki *p, const char *name, const EVP_PKEY *key)
{
    FILE *f = file_of(p, name);

    need(PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
    need(fclose(f) == 0);
}

void pki_renew_server(struct pki *p)
{
    free_identity(&p->server);
    p->server = issue(p, &p->ca, "tekd", PKI_FOR_SERVERS);
    write_cert(p, "server.crt", p->server.cert);
    write_key(p, "server.key", p->server.key);
}

struct pki *pki_new(void)
{
    struct pki *p = calloc(1, sizeof(*p));

    need(p != NULL);
    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/tekd-http-XXXXXX");
    need(mkdtemp(p->dir) != NULL);
    p->ca = authority(p, "test CA");
    p->other_ca = authority(p, "another CA");
    write_cert(p, "ca.crt", p->ca.cert);
    pki_renew_server(p);
    pki_write_crl(p, DAY_S);
    return p;
}

void pki_free(struct pki *p)
{
    struct dirent *e;
    DIR *d;

    if (!p)
        return;
    d = opendir(p->dir);
    need(d != NULL);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.')
            need(unlink(pki_path(p, e->d_name)) == 0);
    (void)closedir(d);
    need(rmdir(p->dir) == 0);
    for (size_t i = 0; i < p->n_identities; i++)
        free_identity(&p->identity[i]);
    free_identity(&p->server);
    free_identity(&p->ca);
    free_identity(&p->other_ca);
    free(p);
}

const struct pki_identity *pki_client(struct pki *p, enum pki_kind kind)
{
    struct pki_identity *id = &p->identity[p->n_identities];

    need(p->n_identities < PKI_IDENTITY_MAX);
    *id = issue(p, kind == PKI_STRANGER ? &p->other_ca : &p->ca, "client", kind);
    p->n_identities++;
    return id;
}

void pki_revoke(struct pki *p, const struct pki_identity *who)
{
    need(p->n_revoked < PKI_REVOKED_MAX);
    p->revoked[p->n_revoked++] = ASN1_INTEGER_get(X509_get0_serialNumber(who->cert));
}

static void revoke_in(X509_CRL *crl, long serial, ASN1_TIME *when)
{
    X509_REVOKED *r = X509_REVOKED_new();
    ASN1_INTEGER *n = ASN1_INTEGER_new();

    need(r && n && ASN1_INTEGER_set(n, serial));
    need(X509_REVOKED_set_serialNumber(r, n));
    need(X509_REVOKED_set_revocationDate(r, when));
    need(X509_CRL_add0_revoked(crl, r));
    ASN1_INTEGER_free(n);
}

static void write_crl(struct pki *p, FILE *f, const struct pki_identity *ca, long good_for_s)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -2 * DAY_S), *to = X509_gmtime_adj(NULL, good_for_s);

    need(f && crl && from && to);
    need(X509_CRL_set_version(crl, X509_CRL_VERSION_2));
    need(X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert)));
    need(X509_CRL_set1_lastUpdate(crl, from));
    need(good_for_s == PKI_NO_END || X509_CRL_set1_nextUpdate(crl, to));
    for (size_t i = 0; i < p->n_revoked; i++)
        revoke_in(crl, p->revoked[i], from);
    need(X509_CRL_sort(crl) && X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0);
    need(PEM_write_X509_CRL(f, crl));
    need(fclose(f) == 0);
    X509_CRL_free(crl);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
}

void pki_write_crl(struct pki *p, long good_for_s)
{
    write_crl(p, file_of(p, "ca.crl"), &p->ca, good_for_s);
}

void pki_add_crl(struct pki *p, const struct pki_identity *ca, long good_for_s)
{
    write_crl(p, fopen(pki_path(p, "ca.crl"), "ae"), ca, good_for_s);
}
