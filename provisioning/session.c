/* A token opened by the options, and what commands say about its keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "provision.h"
#include "tekd/enc.h"
#include "tekd/err.h"

static int set_environment(const struct options *o)
{
    for (size_t i = 0; i < o->n_env; i++) {
        const char *eq = strchr(o->env[i], '=');
        AUTO_MEM char *name = eq ? strndup(o->env[i], (size_t)(eq - o->env[i])) : NULL;

        if (!name || !*name)
            return options_fail(TEKD_EINVAL, "--env %s: expected NAME=VALUE", o->env[i]);
        if (setenv(name, eq + 1, 1) != 0)
            return options_fail(TEKD_ENOMEM, "out of memory");
    }
    return 0;
}

static void print_profiles(void)
{
    fputs("tek-provision: profiles are:", stderr);
    for (size_t i = 0; token_profile_name(i); i++)
        fprintf(stderr, " %s", token_profile_name(i));
    fputc('\n', stderr);
}

static int make(const struct options *o, const char *uri, enum token_access access,
                struct token **ret_token)
{
    const struct token_options to = {
        .module = o->value[OPT_MODULE],
        .uri = uri,
        .profile = o->value[OPT_PROFILE],
        .access = access,
    };
    int r;

    if (to.profile && !token_profile_find(to.profile)) {
        print_profiles();
        return options_fail(TEKD_EINVAL, "--profile %s: there is none of this name", to.profile);
    }
    r = set_environment(o);
    if (r == 0)
        r = token_new(&to, ret_token);
    if (r == TEKD_EINVAL)
        (void)options_fail(r, "--token: expected pkcs11:token=LABEL or pkcs11:serial=NUMBER, "
                              "without PIN, slot or module");
    return r;
}

int session_new(const struct options *o, const char *uri, struct token **ret_token)
{
    return make(o, uri, TOKEN_READ_WRITE, ret_token);
}

int session_fail(const struct token *t, int r)
{
    const char *why = token_reason(t);

    return options_fail(r, "%s", *why ? why : tekd_strerror(r));
}

int session_login(const struct options *o, struct token *t)
{
    const char *path = o->value[OPT_PIN_FILE];
    AUTO(secret) struct secret *pin = NULL;
    int r = secret_read_file(path, &pin);

    if (r < 0)
        return options_fail(r, "--pin-file %s: %s (expected one line, mode 0600)", path,
                            tekd_strerror(r));
    r = token_login(t, pin);
    return r < 0 ? session_fail(t, r) : 0;
}

int session_open(const struct options *o, enum token_access access, struct token **ret_token)
{
    AUTO(token) struct token *t = NULL;
    int r = make(o, o->value[OPT_TOKEN], access, &t);

    if (r < 0)
        return r;
    r = token_open(t);
    if (r < 0)
        return session_fail(t, r);
    r = session_login(o, t);
    if (r < 0)
        return r;
    *ret_token = TAKE(t);
    return 0;
}

static int read_id(const struct options *o, struct token_key_name *name)
{
    const char *hex = o->value[OPT_ID];
    size_t len = hex ? strlen(hex) : 0;

    if (!hex)
        return 0;
    if (len == 0 || len > 2 * sizeof(name->id) || len % 2 != 0 ||
        enc_hex_read(hex, len, name->id, len / 2) < 0)
        return options_fail(TEKD_EINVAL, "--id %s: expected 1 to %d octets in hex", hex,
                            HSM_ID_MAX);
    name->id_len = len / 2;
    return 0;
}

int session_names(const struct options *o, enum token_kind kind, struct token_key_name *ret_name)
{
    const char *wrap = o->value[OPT_WRAP];
    struct token_key_name name = {
        .kind = kind,
        .label = o->value[OPT_LABEL],
        .wrap = kind == TOKEN_BSA_RSA ? HSM_WRAP_OAEP_SHA1 : HSM_WRAP_AES_KW,
    };
    int r;

    if (wrap && hsm_wrap_read(wrap, &name.wrap) < 0)
        return options_fail(TEKD_EINVAL, "--wrap %s: there is none of this name", wrap);
    r = read_id(o, &name);
    if (r == 0)
        *ret_name = name;
    return r;
}

static bool is_signing(enum token_kind kind)
{
    return kind == TOKEN_SIGNING_KEY || kind == TOKEN_SIGNING_ED25519;
}

static const char *signing_type(enum token_kind kind)
{
    return kind == TOKEN_SIGNING_ED25519 ? "Edwards" : "EC";
}

int session_has(struct token *t, const struct token_key_name *name)
{
    struct token_key k;
    int r = token_key_find(t, name->kind, name->label, &k);

    if (r == TEKD_ENOTFOUND)
        return 0;
    if (r < 0)
        return session_fail(t, r);
    if (name->id_len && (name->id_len != k.id_len || memcmp(name->id, k.id, k.id_len) != 0))
        return options_fail(TEKD_EEXIST, "key \"%s\" exists with another id", name->label);
    if (is_signing(name->kind) && strcmp(k.type, signing_type(name->kind)) != 0)
        return options_fail(TEKD_EEXIST, "key \"%s\" exists with another type (%s)", name->label,
                            k.type);
    if (!is_signing(name->kind) && k.wrap && k.wrap != name->wrap)
        return options_fail(TEKD_EEXIST, "key \"%s\" exists for %s", name->label,
                            hsm_wrap_name(k.wrap));
    for (size_t i = 0; i < k.findings.n; i++)
        (void)options_fail(TEKD_EWEAK, "key \"%s\" exists, but %s", name->label,
                           k.findings.text[i]);
    return k.findings.n ? TEKD_EWEAK : 1;
}

/* Labels are the token's: one that is no UTF-8 is shown in hex. */
static json_t *label_json(const struct token_key *k)
{
    char hex[ENC_HEX_LEN(HSM_LABEL_MAX) + 1];
    json_t *label = json_string(k->label);

    if (label)
        return label;
    enc_hex((const uint8_t *)k->label, strlen(k->label), hex);
    return json_sprintf("hex:%s", hex);
}

bool session_fingerprint(struct token *t, const struct token_key *k,
                         char ret_hex[static ENC_HEX_LEN(32) + 1])
{
    enum hsm_kek_use use = k->kind == TOKEN_STORAGE_KEK ? HSM_KEK_STORAGE : HSM_KEK_BSA;
    struct hsm_kek_report report;

    if (!k->wrap || k->findings.n || token_kek_describe(t, k->label, use, k->wrap, &report) < 0)
        return false;
    enc_hex(report.kek.fingerprint, sizeof(report.kek.fingerprint), ret_hex);
    return true;
}

json_t *session_key_json(struct token *t, const struct token_key *k)
{
    char id[ENC_HEX_LEN(HSM_ID_MAX) + 1];
    char fingerprint[ENC_HEX_LEN(32) + 1];
    json_t *findings = json_array();
    const char *wrap = k->wrap ? hsm_wrap_name(k->wrap) : NULL;

    enc_hex(k->id, k->id_len, id);
    for (size_t i = 0; i < k->findings.n; i++)
        json_array_append_new(findings, json_string(k->findings.text[i]));
    return json_pack("{s:s, s:s, s:o, s:s, s:s*, s:b, s:s, s:s*, s:o}", "kind",
                     token_key_kind_name(k->kind), "type", k->type, "label", label_json(k), "id",
                     id, "wrap", wrap, "imported", k->imported, "check_value", k->check_value,
                     "fingerprint", session_fingerprint(t, k, fingerprint) ? fingerprint : NULL,
                     "findings", findings);
}

int session_report(const struct options *o, struct token *t, const struct token_key_name *name,
                   enum session_outcome outcome)
{
    struct token_key k;
    int r = token_key_find(t, name->kind, name->label, &k);
    json_t *doc;

    if (r < 0)
        return session_fail(t, r);
    doc = session_key_json(t, &k);
    json_object_set_new(doc, "created", json_boolean(outcome == SESSION_MADE));
    return options_done(o, doc, "key \"%s\" (%s): %s", k.label, token_key_kind_name(k.kind),
                        outcome == SESSION_MADE ? "made" : "exists and agrees");
}
