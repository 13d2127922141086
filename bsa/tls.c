/* The server's side of TLS for listen: who may connect, and why not. */
#include "bsa.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "tekd/err.h"

#define CHAIN_MAX 6 /* certificates of a peer's chain */

struct tls {
    SSL_CTX *ctx;
    X509_STORE *peers; /* the certificates that may push; NULL: all of the CA */
    bool asked;        /* for a passphrase */
};

/* OpenSSL's words for what is no such file say little: they come behind what is expected. */
static int fail(const char *option, const char *path, const char *expected)
{
    unsigned long e = ERR_peek_error();
    const char *why = ERR_reason_error_string(e);

    if (ERR_SYSTEM_ERROR(e))
        complain("--%s %s: %s", option, path, strerror(ERR_GET_REASON(e)));
    else
        complain("--%s %s: expected %s (%s)", option, path, expected,
                 why != NULL ? why : "cannot be used");
    ERR_clear_error();
    return TEKD_EINVAL;
}

/* Nobody is there to be asked. */
static int no_passphrase(char *buf, int size, int rwflag, void *asked)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    *(bool *)asked = true;
    return -1;
}

/* OpenSSL takes a key of another type than the certificate's, and would fail in each handshake. */
static int read_key(struct tls *t, const char *path)
{
    int r = SSL_CTX_use_PrivateKey_file(t->ctx, path, SSL_FILETYPE_PEM);
    bool other = ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_X509; /* it does not match */

    if (t->asked)
        return fail("key", path, "a key without a passphrase");
    if (r != 1 && !other)
        return fail("key", path, "a private key in PEM");
    return r == 1 && SSL_CTX_check_private_key(t->ctx) == 1
               ? 0
               : fail("key", path, "the key of --cert");
}

/* Whether this very certificate is among them. */
static bool is_among(X509_STORE *peers, X509 *cert)
{
    X509_OBJECT *wanted = X509_OBJECT_new();
    bool found = wanted != NULL && X509_OBJECT_set1_X509(wanted, cert) == 1 &&
                 X509_OBJECT_retrieve_match(X509_STORE_get0_objects(peers), wanted) != NULL;

    X509_OBJECT_free(wanted);
    return found;
}

/* Behind OpenSSL's own verdict on each certificate of the chain, of which the peer's is depth 0. */
static int verify(int ok, X509_STORE_CTX *chain)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx());
    const struct tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

    if (!ok || t->peers == NULL || X509_STORE_CTX_get_error_depth(chain) > 0 ||
        is_among(t->peers, X509_STORE_CTX_get_current_cert(chain)))
        return ok;
    X509_STORE_CTX_set_error(chain, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

/* No resumption: a resumed session would skip the check of the certificate. */
static void set_rules(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20");
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(ctx, 0);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
    SSL_CTX_set_verify_depth(ctx, CHAIN_MAX);
}

/* The names of the CAs are what a client is asked for. */
static int read_files(struct tls *t, const struct tls_files *files)
{
    STACK_OF(X509_NAME) * names;
    int r;

    if (SSL_CTX_use_certificate_chain_file(t->ctx, files->cert) != 1)
        return fail("cert", files->cert, "our certificate in PEM, then its chain");
    r = read_key(t, files->key);
    if (r < 0)
        return r;
    names = SSL_load_client_CA_file(files->ca);
    if (names == NULL || SSL_CTX_load_verify_file(t->ctx, files->ca) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return fail("ca", files->ca, "certificates in PEM");
    }
    SSL_CTX_set_client_CA_list(t->ctx, names);
    if (t->peers != NULL && X509_STORE_load_file(t->peers, files->bsm_cert) != 1)
        return fail("bsm-cert", files->bsm_cert, "certificates in PEM");
    return 0;
}

int tls_new(const struct tls_files *files, struct tls **ret_tls)
{
    AUTO(tls) struct tls *t = calloc(1, sizeof(*t));
    int r;

    if (t == NULL)
        return TEKD_ENOMEM;
    ERR_clear_error();
    t->ctx = SSL_CTX_new(TLS_server_method());
    t->peers = files->bsm_cert != NULL ? X509_STORE_new() : NULL;
    if (t->ctx == NULL || (files->bsm_cert != NULL && t->peers == NULL))
        return TEKD_ENOMEM;
    (void)SSL_CTX_set_app_data(t->ctx, t);
    set_rules(t->ctx);
    SSL_CTX_set_default_passwd_cb(t->ctx, no_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(t->ctx, &t->asked);
    r = read_files(t, files);
    if (r < 0)
        return r;
    *ret_tls = TAKE(t);
    return 0;
}

void tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    SSL_CTX_free(t->ctx);
    X509_STORE_free(t->peers);
    free(t);
}

SSL_CTX *tls_ctx(struct tls *t)
{
    return t->ctx;
}

void tls_tell_alert(const SSL *ssl, int where, int alert, const char *address)
{
    bool ours = where & SSL_CB_WRITE;
    long code = SSL_get_verify_result(ssl);
    const char *found = SSL_alert_desc_string_long(alert);

    if (alert >> 8 != SSL3_AL_FATAL)
        return;
    if (ours && code == X509_V_ERR_APPLICATION_VERIFICATION)
        found = "another certificate than that of --bsm-cert";
    else if (ours && code != X509_V_OK)
        found = X509_verify_cert_error_string(code);
    complain("TLS with %s: expected a client %s, found %s%s", address,
             ours ? "with a certificate of --ca" : "that takes our certificate",
             ours ? "" : "its alert: ", found);
}
