/* tek-provision kek: the KEKs, made here or brought in; and the demonstration's clear one. */
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "provision.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define KEK_OCTETS 32

/* ---------------------------------------------------------------- the value -------- */

/* AES key wrap of the published constant in software, for comparing with the token's. */
static int fingerprint(const struct secret *kek, enum hsm_wrap wrap, uint8_t out[static 32])
{
    const char *cipher_name = wrap == HSM_WRAP_AES_KWP ? "AES-256-WRAP-PAD" : "AES-256-WRAP";
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, cipher_name, NULL);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t constant[32], wrapped[64];
    int len = 0;
    bool ok;

    if (ctx)
        EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    ok = cipher && ctx && secret_len(kek) == KEK_OCTETS &&
         EVP_Q_digest(NULL, "SHA256", NULL, TOKEN_FINGERPRINT_TEXT, strlen(TOKEN_FINGERPRINT_TEXT),
                      constant, NULL) &&
         EVP_EncryptInit_ex2(ctx, cipher, secret_peek(kek), NULL, NULL) &&
         EVP_EncryptUpdate(ctx, wrapped, &len, constant, sizeof(constant)) && len > 0 &&
         EVP_Q_digest(NULL, "SHA256", NULL, wrapped, (size_t)len, out, NULL);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    return ok ? 0 : TEKD_ECRYPTO;
}

static int fingerprint_public(EVP_PKEY *key, uint8_t out[static 32])
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    bool ok = len > 0 && EVP_Q_digest(NULL, "SHA256", NULL, der, (size_t)len, out, NULL);

    OPENSSL_free(der);
    return ok ? 0 : TEKD_ECRYPTO;
}

/* The fingerprint of the token's key. */
static int read_fingerprint(struct token *t, const struct token_key_name *name,
                            uint8_t out[static 32])
{
    enum hsm_kek_use use = name->kind == TOKEN_STORAGE_KEK ? HSM_KEK_STORAGE : HSM_KEK_BSA;
    struct hsm_kek_report report;
    int r = token_kek_describe(t, name->label, use, name->wrap, &report);

    if (r < 0)
        return session_fail(t, r);
    memcpy(out, report.kek.fingerprint, 32);
    return 0;
}

/* Whether the token's key has this fingerprint: 0; TEKD_EEXIST and a sentence if it has not. */
static int compare(struct token *t, const struct token_key_name *name, const uint8_t own[static 32])
{
    char hex[ENC_HEX_LEN(32) + 1];
    uint8_t is[32];
    int r = read_fingerprint(t, name, is);

    if (r < 0)
        return r;
    if (memcmp(own, is, sizeof(is)) == 0)
        return 0;
    enc_hex(is, sizeof(is), hex);
    return options_fail(TEKD_EEXIST, "key \"%s\" exists with another value (fingerprint %s)",
                        name->label, hex);
}

/* ---------------------------------------------------------------- storage ---------- */

int cmd_kek_storage(const struct options *o)
{
    AUTO(token) struct token *t = NULL;
    struct token_key_name name = {.kind = 0};
    int r, has;

    r = session_names(o, TOKEN_STORAGE_KEK, &name);
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
    return session_report(o, t, &name, has ? SESSION_WAS_THERE : SESSION_MADE);
}

/* ---------------------------------------------------------------- for a BSA -------- */

/* Opens what token_make_handed_out() wrapped to key.  The KEK is in locked memory only. */
static int open_handed_out(EVP_PKEY *key, const struct hsm_blob *blob, struct secret **ret_kek)
{
    AUTO(secret) struct secret *kek = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    size_t len = HSM_WRAPPED_MAX;
    bool ok;
    int r = secret_new(len, &kek);

    ok = r == 0 && ctx && EVP_PKEY_decrypt_init(ctx) > 0 &&
         EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0 &&
         EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha1()) > 0 &&
         EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha1()) > 0 &&
         EVP_PKEY_decrypt(ctx, secret_get(kek), &len, blob->octets, blob->len) > 0 &&
         len == KEK_OCTETS;
    EVP_PKEY_CTX_free(ctx);
    if (!ok)
        return options_fail(TEKD_ECRYPTO, "what the token wrapped cannot be opened");
    secret_truncate(kek, len);
    *ret_kek = TAKE(kek);
    return 0;
}

/*
 * The clear or the wrapped value leaves the token once: the file that it goes to is there before
 * the key is made.
 */
static int draft_new(const char *path, unsigned mode, struct files_draft **ret_draft)
{
    if (files_exist(path))
        return options_fail(TEKD_EEXIST, "%s: there is such a file, but no key of this label",
                            path);
    return files_draft_new(path, (struct file_rule){.mode = mode}, ret_draft);
}

/* What became of the key whose value could not be written. */
static int handed_out(const struct token_key_name *name, int r)
{
    return r < 0 ? options_fail(r, "key \"%s\" was made, but its value is lost: take another label",
                                name->label)
                 : 0;
}

/* The demonstration plays the BSA as well: a one-time RSA key, gone with this process. */
static int hand_out_demo(const struct options *o, struct token *t,
                         const struct token_key_name *name)
{
    AUTO(files_draft) struct files_draft *draft = NULL;
    AUTO(secret) struct secret *kek = NULL;
    struct hsm_blob blob = {.len = 0};
    EVP_PKEY *receiver;
    int r = draft_new(o->value[OPT_EXPORT_DEMO], 0600, &draft);

    if (r < 0)
        return r;
    receiver = EVP_RSA_gen(3072);
    if (!receiver)
        return options_fail(TEKD_ECRYPTO, "no RSA key could be made");
    r = token_make_handed_out(t, name, receiver, &blob);
    if (r < 0) {
        EVP_PKEY_free(receiver);
        return session_fail(t, r);
    }
    r = open_handed_out(receiver, &blob, &kek);
    EVP_PKEY_free(receiver);
    return handed_out(name, r < 0 ? r : files_draft_write_hex(draft, kek));
}

/* For a real BSA: its public key in, the wrapped KEK out, in hex. */
static int hand_out(const struct options *o, struct token *t, const struct token_key_name *name)
{
    AUTO(files_draft) struct files_draft *draft = NULL;
    char line[ENC_HEX_LEN(HSM_WRAPPED_MAX) + 1];
    size_t len;
    struct hsm_blob blob = {.len = 0};
    EVP_PKEY *receiver = NULL;
    int r = draft_new(o->value[OPT_OUT], 0644, &draft);

    if (r == 0)
        r = files_read_public(o->value[OPT_RECEIVER], &receiver);
    if (r < 0)
        return r;
    r = token_make_handed_out(t, name, receiver, &blob);
    EVP_PKEY_free(receiver);
    if (r < 0)
        return session_fail(t, r);
    enc_hex(blob.octets, blob.len, line);
    len = ENC_HEX_LEN((size_t)blob.len);
    line[len++] = '\n';
    return handed_out(name, files_draft_write(draft, line, len));
}

/* The wrapped KEK that hand_out() wrote. */
static int read_wrapped(const char *path, struct hsm_blob *ret_blob)
{
    char line[ENC_HEX_LEN(HSM_WRAPPED_MAX) + 2]; /* a line end, and one more than there may be */
    FILE *f = fopen(path, "re");
    size_t len;

    if (!f)
        return options_fail(TEKD_EIO, "%s: %s", path, strerror(errno));
    len = fread(line, 1, sizeof(line), f);
    (void)fclose(f);
    if (len > 0 && line[len - 1] == '\n')
        len--;
    if (len == 0 || len % 2 != 0 || len > ENC_HEX_LEN(HSM_WRAPPED_MAX) ||
        enc_hex_read(line, len, ret_blob->octets, len / 2) < 0)
        return options_fail(TEKD_EFORMAT, "%s holds no wrapped KEK: expected one line of hex",
                            path);
    ret_blob->len = (uint16_t)(len / 2);
    return 0;
}

/*
 * Whether blob can have been wrapped to key: it is a number below the modulus, and as long.  More
 * cannot be seen without the private key: RSA-OAEP hides to whom it was.
 */
static bool may_be_for(EVP_PKEY *key, const struct hsm_blob *blob)
{
    BIGNUM *number = BN_bin2bn(blob->octets, blob->len, NULL);
    BIGNUM *modulus = NULL;
    bool may = number && EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &modulus) > 0 &&
               BN_num_bytes(modulus) == blob->len && BN_cmp(number, modulus) < 0;

    BN_free(number);
    BN_free(modulus);
    return may;
}

/*
 * The key is there: nothing is wrapped.  Where there is no such file its value went elsewhere, or
 * nowhere; where there is one, it is of when the key was made, and not of this receiver if that
 * can be seen.
 */
static int check_handed_out(const struct options *o, const struct token_key_name *name)
{
    const char *path = o->value[OPT_OUT];
    const char *to = o->value[OPT_RECEIVER];
    struct hsm_blob blob = {.len = 0};
    EVP_PKEY *receiver = NULL;
    bool may;
    int r;

    if (!files_exist(path))
        return options_fail(TEKD_EEXIST,
                            "key \"%s\" exists, and its wrapped value left the token only then: "
                            "take another label, or bring %s back",
                            name->label, path);
    r = files_read_public(to, &receiver);
    if (r == 0)
        r = read_wrapped(path, &blob);
    may = r == 0 && may_be_for(receiver, &blob);
    EVP_PKEY_free(receiver);
    if (r < 0)
        return r;
    if (!may)
        return options_fail(TEKD_EEXIST,
                            "key \"%s\" exists, and %s is wrapped to another key than that of %s: "
                            "take another label",
                            name->label, path, to);
    return options_fail(0,
                        "key \"%s\" exists and nothing was wrapped: %s is as it was, and whether "
                        "to the key of %s only its owner can see",
                        name->label, path, to);
}

/* The token's KEK and the demonstration's file were made together, perhaps long ago. */
static int compare_demo(const struct options *o, struct token *t, const struct token_key_name *name)
{
    const char *path = o->value[OPT_EXPORT_DEMO];
    AUTO(secret) struct secret *kek = NULL;
    uint8_t own[32], is[32];
    int r;

    if (!files_exist(path))
        return options_fail(TEKD_EEXIST,
                            "key \"%s\" exists, and its clear value left the token only then: "
                            "take another label, or bring %s back",
                            name->label, path);
    r = files_read_hex(path, &kek);
    if (r < 0)
        return r;
    r = read_fingerprint(t, name, is);
    if (r < 0)
        return r;
    /* What is no AES-256 key has no fingerprint, and is not the value either. */
    if (fingerprint(kek, name->wrap, own) < 0 || memcmp(own, is, sizeof(is)) != 0)
        return options_fail(TEKD_EEXIST, "%s is not the value of key \"%s\"", path, name->label);
    return 0;
}

static int check_bsa_options(const struct options *o)
{
    if (o->value[OPT_EXPORT_DEMO] && (o->value[OPT_RECEIVER] || o->value[OPT_OUT]))
        return options_fail(TEKD_EINVAL, "either --export-demo, or --receiver and --out");
    if (!o->value[OPT_RECEIVER] != !o->value[OPT_OUT])
        return options_fail(TEKD_EINVAL, "--receiver and --out go together");
    return 0;
}

/*
 * Without --export-demo and --receiver the KEK is made in the token and stays there: for BSAs
 * that are given it by the HSM's own means.
 */
static int make_bsa(const struct options *o, struct token *t, const struct token_key_name *name)
{
    int r;

    if (o->value[OPT_EXPORT_DEMO])
        return hand_out_demo(o, t, name);
    if (o->value[OPT_RECEIVER])
        return hand_out(o, t, name);
    r = token_make_key(t, name);
    return r < 0 ? session_fail(t, r) : 0;
}

int cmd_kek_bsa(const struct options *o)
{
    AUTO(token) struct token *t = NULL;
    struct token_key_name name = {.kind = 0};
    int r, has;

    r = check_bsa_options(o);
    if (r == 0)
        r = session_names(o, TOKEN_BSA_KEK, &name);
    if (r == 0)
        r = session_open(o, TOKEN_READ_WRITE, &t);
    if (r < 0)
        return r;
    has = session_has(t, &name);
    if (has < 0)
        return has;
    if (has == 0)
        r = make_bsa(o, t, &name);
    else if (o->value[OPT_EXPORT_DEMO])
        r = compare_demo(o, t, &name);
    else if (o->value[OPT_OUT])
        r = check_handed_out(o, &name);
    if (r < 0)
        return r;
    if (o->value[OPT_EXPORT_DEMO])
        (void)options_fail(0, "%s holds the KEK in clear: for demonstrations only",
                           o->value[OPT_EXPORT_DEMO]);
    return session_report(o, t, &name, has ? SESSION_WAS_THERE : SESSION_MADE);
}

/* ---------------------------------------------------------------- brought in ------- */

/* Makes the key of this value, or compares the one that is there (has). */
static int import(struct token *t, const struct token_key_name *name, const struct secret *value,
                  bool has)
{
    uint8_t own[32];
    int r;

    if (secret_len(value) != KEK_OCTETS)
        return options_fail(TEKD_EINVAL, "a KEK has %d octets", KEK_OCTETS);
    if (!has) {
        r = token_make_import(t, name, value);
        return r < 0 ? session_fail(t, r) : 0;
    }
    r = fingerprint(value, name->wrap, own);
    return r < 0 ? options_fail(r, "no fingerprint could be made") : compare(t, name, own);
}

int cmd_kek_import(const struct options *o)
{
    bool storage = strcmp(o->value[OPT_USE], "storage") == 0;
    AUTO(secret) struct secret *value = NULL;
    AUTO(token) struct token *t = NULL;
    struct token_key_name name = {.kind = 0};
    int r, has;

    if (!storage && strcmp(o->value[OPT_USE], "bsa") != 0)
        return options_fail(TEKD_EINVAL, "--use %s: expected storage or bsa", o->value[OPT_USE]);
    r = session_names(o, storage ? TOKEN_STORAGE_KEK : TOKEN_BSA_KEK, &name);
    if (r == 0)
        r = files_read_hex(o->value[OPT_FROM], &value);
    if (r == 0)
        r = session_open(o, TOKEN_READ_WRITE, &t);
    if (r < 0)
        return r;
    has = session_has(t, &name);
    if (has < 0)
        return has;
    r = import(t, &name, value, has == 1);
    if (r < 0)
        return r;
    return session_report(o, t, &name, has ? SESSION_WAS_THERE : SESSION_MADE);
}

static int bring_in(struct token *t, const struct token_key_name *name, EVP_PKEY *key, bool has)
{
    uint8_t own[32];
    int r;

    if (!has) {
        r = token_make_public(t, name, key);
        return r < 0 ? session_fail(t, r) : 0;
    }
    r = fingerprint_public(key, own);
    return r < 0 ? options_fail(r, "no fingerprint could be made") : compare(t, name, own);
}

int cmd_kek_public(const struct options *o)
{
    AUTO(token) struct token *t = NULL;
    struct token_key_name name = {.kind = 0};
    EVP_PKEY *key = NULL;
    int r, has = 0;

    r = session_names(o, TOKEN_BSA_RSA, &name);
    if (r == 0)
        r = files_read_public(o->value[OPT_FROM], &key);
    if (r == 0)
        r = session_open(o, TOKEN_READ_WRITE, &t);
    if (r == 0)
        has = session_has(t, &name);
    if (r == 0 && has >= 0)
        r = bring_in(t, &name, key, has == 1);
    EVP_PKEY_free(key);
    if (r < 0 || has < 0)
        return r < 0 ? r : has;
    return session_report(o, t, &name, has ? SESSION_WAS_THERE : SESSION_MADE);
}
