/* TEKs: made, wrapped, unwrapped and destroyed inside the token; the hot path. */
#include "token/token_impl.h"

#include <assert.h>

/* Octets that AES key wrap adds: RFC 3394 and, for lengths that are multiples of 8, RFC 5649. */
#define WRAP_OVERHEAD 8

void token_tek_template(const struct token *t, size_t len, struct token_template *tpl)
{
    token_attr_add_number(tpl, CKA_CLASS, CKO_SECRET_KEY);
    token_attr_add_number(tpl, CKA_KEY_TYPE, CKK_AES);
    if (len)
        token_attr_add_number(tpl, CKA_VALUE_LEN, len);
    token_rules_add(t, TOKEN_RULES_TEK, tpl);
}

int token_tek_generate(struct token *t, unsigned bits, struct token_tek *ret_tek)
{
    CK_MECHANISM gen = {.mechanism = CKM_AES_KEY_GEN};
    struct token_template tpl;
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv;

    assert(bits == 128 || bits == 192 || bits == 256);
    tpl.n = 0;
    token_tek_template(t, bits / 8, &tpl);
    rv = t->f->C_GenerateKey(t->session, &gen, tpl.a, tpl.n, &o);
    if (rv != CKR_OK)
        return token_log(t, "C_GenerateKey", rv);
    ret_tek->object = o;
    return 0;
}

CK_RV token_tek_wrap_raw(struct token *t, const struct token_wrap_mechanism *how,
                         CK_OBJECT_HANDLE kek, CK_OBJECT_HANDLE key, struct hsm_blob *ret_blob)
{
    /* Cryptoki's mechanism is not const; modules do not write to it. */
    CK_MECHANISM *m = (CK_MECHANISM *)(uintptr_t)&how->mechanism;
    CK_ULONG len = sizeof(ret_blob->octets);
    CK_RV rv;

    rv = t->f->C_WrapKey(t->session, m, kek, key, ret_blob->octets, &len);
    if (rv == CKR_OK && (len == 0 || len > sizeof(ret_blob->octets)))
        rv = CKR_GENERAL_ERROR; /* there is no blob */
    if (rv == CKR_OK)
        ret_blob->len = (uint16_t)len;
    return rv;
}

int token_tek_wrap(struct token *t, const struct token_kek *kek, const struct token_tek *tek,
                   struct hsm_blob *ret_blob)
{
    CK_RV rv = token_tek_wrap_raw(t, &kek->how, kek->object, tek->object, ret_blob);

    return rv == CKR_OK ? 0 : token_log(t, "C_WrapKey", rv);
}

/* The token's ways to say that the blob is wrong, and not the token. */
static const CK_RV bad_blob[] = {
    CKR_WRAPPED_KEY_INVALID,
    CKR_WRAPPED_KEY_LEN_RANGE,
    CKR_ENCRYPTED_DATA_INVALID,
    CKR_ENCRYPTED_DATA_LEN_RANGE,
};

static bool is_bad_blob(const struct token *t, CK_RV rv)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad_blob); i++) {
        if (rv == bad_blob[i])
            return true;
    }
    return t->profile->bad_blob && rv == t->profile->bad_blob;
}

int token_tek_unwrap(struct token *t, const struct token_kek *kek, const struct hsm_blob *blob,
                     unsigned bits, struct token_tek *ret_tek)
{
    CK_MECHANISM *m = (CK_MECHANISM *)(uintptr_t)&kek->how.mechanism;
    struct token_template tpl;
    CK_OBJECT_HANDLE o = 0;
    CK_RV rv;
    int r;

    assert(kek->use == HSM_KEK_STORAGE);
    if (blob->len != bits / 8 + WRAP_OVERHEAD)
        return token_say(t, TEKD_EFORMAT, "a wrapped TEK of %u bits cannot have %u octets", bits,
                         (unsigned)blob->len);
    /* Tokens compare this with the KEK's UNWRAP_TEMPLATE or apply theirs: repeat all of it. */
    tpl.n = 0;
    token_tek_template(t, 0, &tpl);
    rv = t->f->C_UnwrapKey(t->session, m, kek->object, (CK_BYTE *)(uintptr_t)blob->octets,
                           blob->len, tpl.a, tpl.n, &o);
    if (rv == CKR_OK) {
        ret_tek->object = o;
        return 0;
    }
    r = token_log(t, "C_UnwrapKey", rv);
    return is_bad_blob(t, rv) ? TEKD_EFORMAT : r;
}

int token_tek_destroy(struct token *t, struct token_tek *tek)
{
    CK_OBJECT_HANDLE o = tek->object;

    tek->object = 0;
    return token_object_destroy(t, o);
}
