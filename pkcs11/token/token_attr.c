/* Attribute templates, reading attributes back, searching. */
#include "token/token_impl.h"

#include <assert.h>
#include <string.h>

void token_attr_add(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, const void *value,
                    size_t len)
{
    assert(tpl->n < TOKEN_TEMPLATE_MAX);
    /* Cryptoki's templates are not const; what goes in is not written to. */
    tpl->a[tpl->n++] = (CK_ATTRIBUTE){type, (void *)(uintptr_t)value, len};
}

void token_attr_add_bool(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, bool value)
{
    assert(tpl->n < TOKEN_TEMPLATE_MAX);
    tpl->flag[tpl->n] = value ? CK_TRUE : CK_FALSE;
    token_attr_add(tpl, type, &tpl->flag[tpl->n], sizeof(CK_BBOOL));
}

void token_attr_add_number(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, CK_ULONG value)
{
    assert(tpl->n < TOKEN_TEMPLATE_MAX);
    tpl->number[tpl->n] = value;
    token_attr_add(tpl, type, &tpl->number[tpl->n], sizeof(CK_ULONG));
}

void token_attr_set_bool(struct token_template *tpl, CK_ATTRIBUTE_TYPE type, bool value)
{
    for (CK_ULONG i = 0; i < tpl->n; i++) {
        if (tpl->a[i].type == type) {
            tpl->flag[i] = value ? CK_TRUE : CK_FALSE;
            return;
        }
    }
    abort(); /* a template of ours lacks what it is asked to change */
}

int token_attr_octets(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type,
                      struct token_octets to, size_t *ret_len)
{
    CK_ATTRIBUTE a = {type, to.data, to.max};
    CK_RV rv = t->f->C_GetAttributeValue(t->session, o, &a, 1);

    if (rv == CKR_ATTRIBUTE_TYPE_INVALID)
        return TEKD_ENOTFOUND;
    if (rv == CKR_BUFFER_TOO_SMALL)
        return TEKD_ETOOBIG;
    if (rv != CKR_OK)
        return token_log(t, "C_GetAttributeValue", rv);
    if (a.ulValueLen == CK_UNAVAILABLE_INFORMATION)
        return TEKD_ENOTFOUND;
    /* Some modules say CKR_OK and how long it is when it does not fit. */
    if (a.ulValueLen > to.max)
        return TEKD_ETOOBIG;
    *ret_len = a.ulValueLen;
    return 0;
}

int token_attr_bool(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type, bool *ret_value)
{
    CK_BBOOL v = CK_FALSE;
    size_t len = 0;
    int r = token_attr_octets(t, o, type, (struct token_octets){&v, sizeof(v)}, &len);

    if (r < 0)
        return r;
    if (len != sizeof(v))
        return TEKD_ENOTFOUND;
    *ret_value = v != CK_FALSE;
    return 0;
}

int token_attr_number(struct token *t, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type,
                      CK_ULONG *ret_value)
{
    CK_ULONG v = 0;
    size_t len = 0;
    int r = token_attr_octets(t, o, type, (struct token_octets){&v, sizeof(v)}, &len);

    if (r < 0)
        return r;
    if (len != sizeof(v))
        return TEKD_ENOTFOUND;
    *ret_value = v;
    return 0;
}

#define FIND_SOME 64 /* handles a call: over a network each call is a round trip */

/* Between C_FindObjectsInit and C_FindObjectsFinal. */
static int collect(struct token *t, CK_OBJECT_HANDLE *objects, size_t max, size_t *ret_n)
{
    size_t n = 0;

    for (;;) {
        CK_OBJECT_HANDLE some[FIND_SOME];
        CK_ULONG got = 0;
        CK_RV rv = t->f->C_FindObjects(t->session, some, FIND_SOME, &got);

        if (rv != CKR_OK)
            return token_log(t, "C_FindObjects", rv);
        if (got == 0)
            break;
        if (got > FIND_SOME)
            return token_say(t, TEKD_EHSM, "C_FindObjects: %lu objects, more than asked for", got);
        if (got > max - n)
            return token_say(t, TEKD_ETOOBIG, "more than %zu objects agree", max);
        memcpy(objects + n, some, got * sizeof(some[0]));
        n += got;
    }
    *ret_n = n;
    return 0;
}

int token_attr_find(struct token *t, const struct token_template *tpl, CK_OBJECT_HANDLE *objects,
                    size_t max, size_t *ret_n)
{
    CK_RV rv;
    int r;

    rv = t->f->C_FindObjectsInit(t->session, (CK_ATTRIBUTE *)(uintptr_t)tpl->a, tpl->n);
    if (rv != CKR_OK)
        return token_log(t, "C_FindObjectsInit", rv);
    r = collect(t, objects, max, ret_n);
    rv = t->f->C_FindObjectsFinal(t->session);
    if (r == 0 && rv != CKR_OK)
        r = token_log(t, "C_FindObjectsFinal", rv);
    return r;
}
