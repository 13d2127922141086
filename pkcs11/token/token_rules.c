/*
 * What each kind of key may and may not do: the one table that makes the templates and that keys
 * are checked against when they are read back.
 */
#include "token/token_impl.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "tekd/buf.h"

/* One character a column of enum token_rule_set: 1 true, 0 false, - neither written nor asked. */
struct rule {
    CK_ATTRIBUTE_TYPE type;
    const char *name;
    char cell[TOKEN_RULES_N + 1];
};

#define RULE(type, cells)                                                                          \
    {                                                                                              \
        type, #type, cells                                                                         \
    }

/*
 * Columns: TEK, storage KEK, BSA KEK, BSA RSA key, private half, public half of a signing key.
 * CKA_MODIFIABLE stands last: tokens apply a template in order, and after "not modifiable" refuse
 * the rest of it.
 */
static const struct rule rules[] = {
    RULE(CKA_TOKEN, "011111"),        RULE(CKA_PRIVATE, "111110"),
    RULE(CKA_SENSITIVE, "111-1-"),    RULE(CKA_EXTRACTABLE, "100-0-"),
    RULE(CKA_ENCRYPT, "0000-0"),      RULE(CKA_DECRYPT, "000-0-"),
    RULE(CKA_SIGN, "000-1-"),         RULE(CKA_VERIFY, "0000-1"),
    RULE(CKA_SIGN_RECOVER, "----0-"), RULE(CKA_VERIFY_RECOVER, "---0-0"),
    RULE(CKA_WRAP, "0111-0"),         RULE(CKA_UNWRAP, "010-0-"),
    RULE(CKA_DERIVE, "000000"),       RULE(CKA_COPYABLE, "000000"),
    RULE(CKA_MODIFIABLE, "000000"),
};

enum token_rule_set token_rules_of(enum token_kind kind)
{
    static const enum token_rule_set sets[] = {
        [TOKEN_STORAGE_KEK] = TOKEN_RULES_STORAGE_KEK, [TOKEN_BSA_KEK] = TOKEN_RULES_BSA_KEK,
        [TOKEN_BSA_RSA] = TOKEN_RULES_BSA_RSA,         [TOKEN_SIGNING_KEY] = TOKEN_RULES_PRIVATE,
        [TOKEN_SIGNING_ED25519] = TOKEN_RULES_PRIVATE,
    };

    return sets[kind];
}

void token_rules_add(const struct token *t, enum token_rule_set set, struct token_template *tpl)
{
    if (set == TOKEN_RULES_TEK && t->profile->trusted)
        token_attr_add_bool(tpl, CKA_WRAP_WITH_TRUSTED, true);
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (rules[i].cell[set] != '-')
            token_attr_add_bool(tpl, rules[i].type, rules[i].cell[set] == '1');
    }
}

void token_rules_unwrap_template(const struct token *t, struct token_template *tpl)
{
    token_attr_add_number(tpl, CKA_KEY_TYPE, CKK_AES);
    token_rules_add(t, TOKEN_RULES_TEK, tpl);
}

void token_rules_kek(const struct token *t, enum token_rule_set set, struct token_kek_parts *parts,
                     struct token_template *tpl)
{
    token_attr_add_number(tpl, CKA_CLASS, CKO_SECRET_KEY);
    token_attr_add_number(tpl, CKA_KEY_TYPE, CKK_AES);
    token_attr_add(tpl, CKA_ALLOWED_MECHANISMS, &parts->mechanism, sizeof(parts->mechanism));
    if (set == TOKEN_RULES_STORAGE_KEK && t->profile->unwrap_template) {
        parts->inner.n = 0;
        token_rules_unwrap_template(t, &parts->inner);
        token_attr_add(tpl, CKA_UNWRAP_TEMPLATE, parts->inner.a,
                       parts->inner.n * sizeof(CK_ATTRIBUTE));
    }
    token_rules_add(t, set, tpl);
}

/* ---------------------------------------------------------------- reading back ----- */

static void finding(struct token_findings *f, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void finding(struct token_findings *f, const char *fmt, ...)
{
    va_list ap;

    if (f->n == TOKEN_FINDINGS_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(f->text[f->n++], TOKEN_FINDING_MAX, fmt, ap);
    va_end(ap);
}

static const char *truth(bool v)
{
    return v ? "true" : "false";
}

static int check_bool(struct token *t, CK_OBJECT_HANDLE o, const struct rule *rule, bool want,
                      struct token_findings *f)
{
    bool is;
    int r = token_attr_bool(t, o, rule->type, &is);

    if (r == TEKD_ENOTFOUND) {
        finding(f, "%s is not known to the token, must be %s", rule->name, truth(want));
        return 0;
    }
    if (r < 0)
        return r;
    if (is != want)
        finding(f, "%s is %s, must be %s", rule->name, truth(is), truth(want));
    return 0;
}

static int check_flags(struct token *t, CK_OBJECT_HANDLE o, enum token_rule_set set,
                       struct token_findings *f)
{
    int r;

    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (rules[i].cell[set] == '-')
            continue;
        r = check_bool(t, o, &rules[i], rules[i].cell[set] == '1', f);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A key that says it was made here must never have been anywhere else. */
static int check_origin(struct token *t, CK_OBJECT_HANDLE o, struct token_findings *f)
{
    static const struct rule made_here[] = {
        RULE(CKA_ALWAYS_SENSITIVE, ""),
        RULE(CKA_NEVER_EXTRACTABLE, ""),
    };
    bool local;
    int r = token_attr_bool(t, o, CKA_LOCAL, &local);

    if (r == TEKD_ENOTFOUND) {
        finding(f, "CKA_LOCAL is not known to the token");
        return 0;
    }
    for (size_t i = 0; r == 0 && local && i < ARRAY_SIZE(made_here); i++)
        r = check_bool(t, o, &made_here[i], true, f);
    return r;
}

/*
 * Some tokens (SoftHSM) do not know the length of a key that came in by unwrapping: then, and only
 * for an imported key, no length is no finding.
 */
static int check_aes(struct token *t, CK_OBJECT_HANDLE o, struct token_findings *f)
{
    CK_ULONG type = 0, len = 0;
    bool local = true;
    int r = token_attr_number(t, o, CKA_KEY_TYPE, &type);

    if (r == 0 && type == CKK_AES)
        r = token_attr_number(t, o, CKA_VALUE_LEN, &len);
    if (r == 0 && len == 0)
        r = token_attr_bool(t, o, CKA_LOCAL, &local);
    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    if (r == 0 && type == CKK_AES && (len == TOKEN_AES_MAX || (len == 0 && !local)))
        return 0;
    finding(f, "it is no AES-256 key");
    return 0;
}

/* A token takes any public key, and wraps to it. */
static int check_rsa(struct token *t, CK_OBJECT_HANDLE o, struct token_findings *f)
{
    EVP_PKEY *key = NULL;
    const char *fault;
    int r = token_key_public_of(t, o, &key);

    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    fault = key ? token_rsa_fault(key) : "it cannot be read as a public key";
    EVP_PKEY_free(key);
    if (fault)
        finding(f, "%s", fault);
    return 0;
}

/* unset_ok: a token that does not know the attribute, or left it empty, is no finding. */
static int check_mechanism(struct token *t, CK_OBJECT_HANDLE o, CK_MECHANISM_TYPE want,
                           bool unset_ok, struct token_findings *f)
{
    CK_MECHANISM_TYPE list[16];
    size_t len = 0;
    int r = token_attr_octets(t, o, CKA_ALLOWED_MECHANISMS,
                              (struct token_octets){list, sizeof(list)}, &len);

    if (r == TEKD_ENOTFOUND || (r == 0 && len == 0)) {
        if (!unset_ok)
            finding(f, "CKA_ALLOWED_MECHANISMS is not set, must be 0x%lx", want);
        return 0;
    }
    if (r == TEKD_ETOOBIG || (r == 0 && len != sizeof(list[0]))) {
        finding(f, "CKA_ALLOWED_MECHANISMS has several mechanisms, must be 0x%lx", want);
        return 0;
    }
    if (r == 0 && list[0] != want)
        finding(f, "CKA_ALLOWED_MECHANISMS is 0x%lx, must be 0x%lx", list[0], want);
    return r;
}

/* What a token gives back of an attribute that is a template: values of at most a number's size. */
struct inner {
    CK_ATTRIBUTE a[TOKEN_TEMPLATE_MAX];
    CK_ULONG value[TOKEN_TEMPLATE_MAX];
    size_t n;
};

static int read_inner(struct token *t, CK_OBJECT_HANDLE o, struct inner *in)
{
    struct token_octets to = {in->a, sizeof(in->a)};
    size_t len = 0;
    int r;

    /* With no room given a token writes types and lengths only; then there is room. */
    memset(in, 0, sizeof(*in));
    r = token_attr_octets(t, o, CKA_UNWRAP_TEMPLATE, to, &len);
    if (r < 0)
        return r;
    in->n = len / sizeof(CK_ATTRIBUTE);
    for (size_t i = 0; i < in->n; i++) {
        in->a[i].pValue = &in->value[i];
        in->a[i].ulValueLen = sizeof(in->value[i]);
    }
    to.max = len;
    return token_attr_octets(t, o, CKA_UNWRAP_TEMPLATE, to, &len);
}

static bool inner_has(const struct inner *in, const CK_ATTRIBUTE *want)
{
    for (size_t i = 0; i < in->n; i++) {
        if (in->a[i].type == want->type)
            return in->a[i].ulValueLen == want->ulValueLen &&
                   memcmp(in->a[i].pValue, want->pValue, want->ulValueLen) == 0;
    }
    return false;
}

static const char *name_of(CK_ATTRIBUTE_TYPE type)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (rules[i].type == type)
            return rules[i].name;
    }
    return type == CKA_KEY_TYPE ? "CKA_KEY_TYPE" : "CKA_WRAP_WITH_TRUSTED";
}

static int check_unwrap_template(struct token *t, CK_OBJECT_HANDLE o, struct token_findings *f)
{
    struct token_template want = {.n = 0};
    struct inner in;
    int r = read_inner(t, o, &in);

    if (r < 0 && r != TEKD_ENOTFOUND && r != TEKD_ETOOBIG)
        return r;
    if (r < 0 || in.n == 0) {
        finding(f, "CKA_UNWRAP_TEMPLATE is not set: it could unwrap a TEK as a readable key");
        return 0;
    }
    token_rules_unwrap_template(t, &want);
    for (CK_ULONG i = 0; i < want.n; i++) {
        if (!inner_has(&in, &want.a[i]))
            finding(f, "CKA_UNWRAP_TEMPLATE does not enforce %s", name_of(want.a[i].type));
    }
    return 0;
}

static int check_kek(struct token *t, CK_OBJECT_HANDLE o, enum token_rule_set set,
                     CK_MECHANISM_TYPE mechanism, struct token_findings *f)
{
    int r = check_mechanism(t, o, mechanism, false, f);

    if (r == 0)
        r = set == TOKEN_RULES_BSA_RSA ? check_rsa(t, o, f) : check_aes(t, o, f);
    if (r == 0 && set == TOKEN_RULES_STORAGE_KEK)
        r = check_unwrap_template(t, o, f);
    return r;
}

int token_rules_check(struct token *t, CK_OBJECT_HANDLE o, enum token_rule_set set,
                      CK_MECHANISM_TYPE mechanism, struct token_findings *ret_findings)
{
    struct token_findings f = {.n = 0};
    int r = check_flags(t, o, set, &f);

    if (r == 0 && set != TOKEN_RULES_BSA_RSA && set != TOKEN_RULES_PUBLIC)
        r = check_origin(t, o, &f);
    if (r == 0 && mechanism && set == TOKEN_RULES_PRIVATE)
        r = check_mechanism(t, o, mechanism, true, &f);
    else if (r == 0 && mechanism)
        r = check_kek(t, o, set, mechanism, &f);
    if (r < 0)
        return r;
    *ret_findings = f;
    return 0;
}

void token_rules_text(const struct token_findings *f, char out[static TOKEN_REASON_MAX])
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < f->n && used < TOKEN_REASON_MAX; i++) {
        int n = snprintf(out + used, TOKEN_REASON_MAX - used, "%s%s", i ? "; " : "", f->text[i]);

        used += n > 0 ? (size_t)n : 0;
    }
}
