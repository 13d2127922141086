/* tek-provision key: the signing keys; --out writes the public half, --csr a certificate request.
 */
#include <openssl/pem.h>
#include <string.h>

#include "provision.h"
#include "tekd/err.h"

static int write_public(const struct options *o, struct token *t)
{
    EVP_PKEY *key = NULL;
    BIO *mem = NULL;
    char *text = NULL;
    long len = 0;
    int r = token_key_public(t, o->value[OPT_LABEL], &key);

    if (r < 0)
        return session_fail(t, r);
    mem = BIO_new(BIO_s_mem());
    if (mem && PEM_write_bio_PUBKEY(mem, key) > 0)
        len = BIO_get_mem_data(mem, &text);
    r = len > 0 ? files_write(o->value[OPT_OUT], (struct file_rule){0644, true}, text, (size_t)len)
                : options_fail(TEKD_ECRYPTO, "the public key cannot be written");
    BIO_free(mem);
    EVP_PKEY_free(key);
    return r;
}

static int read_kind(const struct options *o, enum token_kind *ret_kind)
{
    const char *type = o->value[OPT_TYPE];

    if (type && strcmp(type, "ed25519") != 0 && strcmp(type, "p256") != 0)
        return options_fail(TEKD_EINVAL, "--type %s: expected p256 or ed25519", type);
    *ret_kind = type && type[0] == 'e' ? TOKEN_SIGNING_ED25519 : TOKEN_SIGNING_KEY;
    return 0;
}

/* A name of nothing, or a request for nobody, is a mistake. */
static int check_request(const struct options *o)
{
    if (o->value[OPT_CSR] && !o->value[OPT_NAME])
        return options_fail(TEKD_EINVAL, "--csr needs --name, the common name");
    if (!o->value[OPT_CSR] && (o->value[OPT_NAME] || o->n_host > 0))
        return options_fail(TEKD_EINVAL, "--name and --host are for a request: --csr");
    return csr_check(&(struct csr_subject){.hosts = o->host, .n_hosts = o->n_host});
}

static int write_request(const struct options *o, struct token *t)
{
    const struct csr_subject s = {
        .name = o->value[OPT_NAME], .hosts = o->host, .n_hosts = o->n_host};

    return csr_write(t, o->value[OPT_LABEL], &s, o->value[OPT_CSR]);
}

int cmd_key(const struct options *o)
{
    AUTO(token) struct token *t = NULL;
    enum token_kind kind = TOKEN_SIGNING_KEY;
    struct token_key_name name;
    int r, has;

    r = read_kind(o, &kind);
    if (r == 0)
        r = check_request(o);
    if (r == 0)
        r = session_names(o, kind, &name);
    if (r == 0)
        r = session_open(o, TOKEN_READ_WRITE, &t);
    if (r < 0)
        return r;
    has = session_has(t, &name);
    if (has < 0)
        return has;
    if (has == 0) {
        r = token_make_key(t, &name);
        if (r < 0)
            return session_fail(t, r);
    }
    if (o->value[OPT_OUT])
        r = write_public(o, t);
    if (r == 0 && o->value[OPT_CSR])
        r = write_request(o, t);
    return r < 0 ? r : session_report(o, t, &name, has ? SESSION_WAS_THERE : SESSION_MADE);
}
