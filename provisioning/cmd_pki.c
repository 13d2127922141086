/* tek-provision pki: the development PKI. */
#include <openssl/evp.h>

#include "provision.h"
#include "tekd/err.h"

static int done(const struct options *o, const char *name, bool made)
{
    char hex[65];
    int r = pki_digest(o->value[OPT_DIR], name, hex);

    if (r < 0)
        return r;
    return options_done(
        o, json_pack("{s:s, s:s, s:b}", "name", name, "sha256", hex, "created", made),
        "certificate %s (SHA-256 %s): %s", name, hex, made ? "made" : "exists and agrees");
}

int cmd_pki_ca(const struct options *o)
{
    AUTO(pki) struct pki *p = NULL;
    const char *name = o->value[OPT_NAME] ? o->value[OPT_NAME] : "tekd development CA";
    int r = pki_open(o->value[OPT_DIR], &p);
    bool made = r == TEKD_ENOTFOUND;

    if (made)
        r = pki_new(o->value[OPT_DIR], name, &p);
    return r < 0 ? r : done(o, "ca", made);
}

/* The CA must be there: a mistyped folder is not a wish for a new one. */
static int open_ca(const struct options *o, struct pki **ret_pki)
{
    int r = pki_open(o->value[OPT_DIR], ret_pki);

    return r == TEKD_ENOTFOUND
               ? options_fail(r, "%s has no CA: make one with pki ca", o->value[OPT_DIR])
               : r;
}

static int read_token_key(const struct options *o, EVP_PKEY **ret_key)
{
    AUTO(token) struct token *t = NULL;
    int r;

    if (!o->value[OPT_TOKEN_KEY])
        return 0;
    if (!o->value[OPT_MODULE] || !o->value[OPT_TOKEN] || !o->value[OPT_PIN_FILE])
        return options_fail(TEKD_EINVAL, "--token-key needs --module, --token and --pin-file");
    r = session_open(o, TOKEN_READ_ONLY, &t);
    if (r < 0)
        return r;
    r = token_key_public(t, o->value[OPT_TOKEN_KEY], ret_key);
    return r < 0 ? session_fail(t, r) : 0;
}

int cmd_pki_cert(const struct options *o)
{
    AUTO(pki) struct pki *p = NULL;
    struct pki_subject s = {.name = o->value[OPT_NAME], .hosts = o->host, .n_hosts = o->n_host};
    int has = 0, r = open_ca(o, &p);

    if (r == 0)
        r = read_token_key(o, &s.public_key);
    if (r == 0)
        has = pki_has(p, &s);
    if (r == 0 && has == 0)
        r = pki_issue(p, &s);
    EVP_PKEY_free(s.public_key);
    if (r < 0 || has < 0)
        return r < 0 ? r : has;
    return done(o, s.name, has == 0);
}

int cmd_pki_revoke(const struct options *o)
{
    AUTO(pki) struct pki *p = NULL;
    int r = open_ca(o, &p);

    if (r == 0)
        r = pki_revoke(p, o->value[OPT_NAME]);
    if (r < 0)
        return r;
    return options_done(o, json_pack("{s:s, s:b}", "name", o->value[OPT_NAME], "revoked", true),
                        "certificate %s: on the CRL", o->value[OPT_NAME]);
}

int cmd_pki_crl(const struct options *o)
{
    AUTO(pki) struct pki *p = NULL;
    int r = open_ca(o, &p);

    if (r == 0)
        r = pki_revoke(p, NULL);
    if (r < 0)
        return r;
    return options_done(o, json_pack("{s:s}", "dir", o->value[OPT_DIR]), "CRL made anew");
}
