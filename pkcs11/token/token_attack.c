/*
 * The three ways by which somebody with the user's PIN gets a clear TEK out of a token with
 * default attributes, tried on keys that live for this test only.
 */
#include "token/token_impl.h"

#include <string.h>

/* The throw-away keys; 0 is none. */
struct stage {
    CK_OBJECT_HANDLE kek;  /* with the template of a storage KEK */
    CK_OBJECT_HANDLE tek;  /* with the template of a TEK */
    CK_OBJECT_HANDLE bait; /* the same, but wrappable by any KEK: so that there is a blob */
    CK_OBJECT_HANDLE own;  /* the attacker's, its value known */
    struct token_wrap_mechanism how;
    struct hsm_blob blob; /* bait under kek */
};

static int generate(struct token *t, struct token_template *tpl, CK_OBJECT_HANDLE *ret_o)
{
    CK_MECHANISM gen = {.mechanism = CKM_AES_KEY_GEN};
    CK_RV rv = t->f->C_GenerateKey(t->session, &gen, tpl->a, tpl->n, ret_o);

    return rv == CKR_OK ? 0 : token_log(t, "C_GenerateKey", rv);
}

static int make_kek(struct token *t, CK_MECHANISM_TYPE mechanism, CK_OBJECT_HANDLE *ret_o)
{
    struct token_kek_parts parts = {.mechanism = mechanism};
    struct token_template tpl = {.n = 0};

    token_attr_add_number(&tpl, CKA_VALUE_LEN, TOKEN_AES_MAX);
    token_rules_kek(t, TOKEN_RULES_STORAGE_KEK, &parts, &tpl);
    token_attr_set_bool(&tpl, CKA_TOKEN, false);
    return generate(t, &tpl, ret_o);
}

static int make_tek(struct token *t, CK_OBJECT_HANDLE *ret_o)
{
    struct token_template tpl = {.n = 0};

    token_tek_template(t, 16, &tpl);
    return generate(t, &tpl, ret_o);
}

static int make_bait(struct token *t, CK_OBJECT_HANDLE *ret_o)
{
    struct token_template tpl = {.n = 0};

    token_tek_template(t, 16, &tpl);
    if (t->profile->trusted)
        token_attr_set_bool(&tpl, CKA_WRAP_WITH_TRUSTED, false);
    return generate(t, &tpl, ret_o);
}

static int set_stage(struct token *t, struct stage *s)
{
    static const uint8_t known[TOKEN_AES_MAX] = {1};
    struct token_constant c = {known, sizeof(known)};
    enum hsm_wrap wrap = HSM_WRAP_AES_KW;
    unsigned long code;
    CK_RV rv;
    int r;

    r = token_profile_mechanism(t, wrap, &code);
    if (r == TEKD_ENOTFOUND) {
        wrap = HSM_WRAP_AES_KWP;
        r = token_profile_mechanism(t, wrap, &code);
    }
    if (r < 0)
        return r;
    token_profile_wrap(wrap, code, &s->how);
    r = make_kek(t, code, &s->kek);
    if (r == 0)
        r = make_tek(t, &s->tek);
    if (r == 0)
        r = make_bait(t, &s->bait);
    if (r == 0)
        r = token_make_constant(t, &c, &s->own);
    if (r < 0)
        return r;
    rv = token_tek_wrap_raw(t, &s->how, s->kek, s->bait, &s->blob);
    return rv == CKR_OK ? 0 : token_log(t, "C_WrapKey", rv);
}

static void clear_stage(struct token *t, struct stage *s)
{
    (void)token_object_destroy(t, s->kek);
    (void)token_object_destroy(t, s->tek);
    (void)token_object_destroy(t, s->bait);
    (void)token_object_destroy(t, s->own);
}

/* What became of an attack.  A token that failed has refused nothing. */
static int judge(struct token *t, const char *call, CK_RV rv, bool *ret_worked)
{
    *ret_worked = rv == CKR_OK;
    return token_has_failed(rv) ? token_log(t, call, rv) : 0;
}

/* (1) Give the KEK the right to decrypt; a token that says yes must also mean it. */
static int make_decrypt(struct token *t, const struct stage *s, bool *ret_worked)
{
    struct token_template tpl = {.n = 0};
    bool is = false;
    CK_RV rv;
    int r;

    token_attr_add_bool(&tpl, CKA_DECRYPT, true);
    rv = t->f->C_SetAttributeValue(t->session, s->kek, tpl.a, tpl.n);
    r = judge(t, "C_SetAttributeValue", rv, ret_worked);
    if (*ret_worked)
        *ret_worked = token_attr_bool(t, s->kek, CKA_DECRYPT, &is) < 0 || is;
    return r;
}

/* Whether the value could be read: its octets are not fetched. */
static int readable(struct token *t, CK_OBJECT_HANDLE o, bool *ret_worked)
{
    CK_ATTRIBUTE value = {CKA_VALUE, NULL, 0};
    CK_RV rv = t->f->C_GetAttributeValue(t->session, o, &value, 1);
    int r = judge(t, "C_GetAttributeValue", rv, ret_worked);

    *ret_worked =
        *ret_worked && value.ulValueLen > 0 && value.ulValueLen != CK_UNAVAILABLE_INFORMATION;
    return r;
}

/* (2) Unwrap the blob with a template of one's own so that its value can be read. */
static int unwrap_plain(struct token *t, const struct stage *s, bool *ret_worked)
{
    CK_MECHANISM *m = (CK_MECHANISM *)(uintptr_t)&s->how.mechanism;
    struct token_template tpl = {.n = 0};
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv;
    int r;

    token_attr_add_number(&tpl, CKA_CLASS, CKO_SECRET_KEY);
    token_attr_add_number(&tpl, CKA_KEY_TYPE, CKK_AES);
    token_attr_add_bool(&tpl, CKA_TOKEN, false);
    token_attr_add_bool(&tpl, CKA_SENSITIVE, false);
    token_attr_add_bool(&tpl, CKA_EXTRACTABLE, true);
    rv = t->f->C_UnwrapKey(t->session, m, s->kek, (CK_BYTE *)(uintptr_t)s->blob.octets, s->blob.len,
                           tpl.a, tpl.n, &o);
    r = judge(t, "C_UnwrapKey", rv, ret_worked);
    if (!*ret_worked)
        return r;
    r = readable(t, o, ret_worked);
    (void)token_object_destroy(t, o);
    return r;
}

/* (3) Wrap a TEK under a key whose value one knows. */
static int wrap_out(struct token *t, const struct stage *s, bool *ret_worked)
{
    struct hsm_blob blob;

    return judge(t, "C_WrapKey", token_tek_wrap_raw(t, &s->how, s->own, s->tek, &blob), ret_worked);
}

int token_attack_play(struct token *t, struct token_attacks *ret_attacks)
{
    struct token_attacks a = {.prevention_promised = t->profile->trusted};
    struct stage s = {.kek = 0};
    int r;

    r = set_stage(t, &s);
    /* The blob is unwrapped before the KEK is written to. */
    if (r == 0)
        r = unwrap_plain(t, &s, &a.tek_unwrapped_plain);
    if (r == 0)
        r = wrap_out(t, &s, &a.tek_wrapped_out);
    if (r == 0)
        r = make_decrypt(t, &s, &a.kek_made_to_decrypt);
    clear_stage(t, &s);
    if (r < 0)
        return r;
    *ret_attacks = a;
    if (a.kek_made_to_decrypt)
        return token_say(t, TEKD_EWEAK, "attack: a KEK could be made to decrypt");
    if (a.tek_unwrapped_plain)
        return token_say(t, TEKD_EWEAK,
                         "attack: a stored TEK could be unwrapped as a readable key");
    if (a.tek_wrapped_out && a.prevention_promised)
        return token_say(t, TEKD_EWEAK,
                         "attack: a TEK could be wrapped under a key that is not trusted");
    return 0;
}

int token_attack_rewrite(struct token *t, const struct token_kek *kek)
{
    struct token_template tpl = {.n = 0};
    CK_SESSION_HANDLE rw;
    CK_RV rv;

    rv = t->f->C_OpenSession(t->slot_id, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &rw);
    if (rv != CKR_OK)
        return token_log(t, "C_OpenSession", rv);
    token_attr_add(&tpl, CKA_LABEL, kek->label, strlen(kek->label));
    rv = t->f->C_SetAttributeValue(rw, kek->object, tpl.a, tpl.n);
    (void)t->f->C_CloseSession(rw);
    if (rv == CKR_ACTION_PROHIBITED || rv == CKR_ATTRIBUTE_READ_ONLY)
        return 0;
    if (rv == CKR_OK)
        return token_say(t, TEKD_EWEAK, "attack: key \"%s\" could be written to", kek->label);
    return token_log(t, "C_SetAttributeValue", rv);
}
