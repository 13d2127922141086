/*
 * A PKCS#11 module that is the one of SHIM_MODULE but for one thing, named by SHIM_MODE: tokens as
 * one would rather not have them.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

unsigned shim_logins; /* read by the tests */

static CK_FUNCTION_LIST *real;
static CK_FUNCTION_LIST shim;

static int mode_is(const char *name)
{
    const char *mode = getenv("SHIM_MODE");

    return mode != NULL && strcmp(mode, name) == 0;
}

static CK_RV get_token_info(CK_SLOT_ID id, CK_TOKEN_INFO *info)
{
    CK_RV rv = real->C_GetTokenInfo(id, info);

    if (mode_is("tokens-fail") && (info->flags & CKF_TOKEN_INITIALIZED))
        return CKR_DEVICE_ERROR;
    if (mode_is("other-token-fails") && memcmp(info->label, "lab ", 4) != 0)
        return CKR_DEVICE_ERROR;
    if (mode_is("final-try"))
        info->flags |= CKF_USER_PIN_FINAL_TRY;
    if (mode_is("locked"))
        info->flags |= CKF_USER_PIN_LOCKED;
    if (mode_is("to-be-changed"))
        info->flags |= CKF_USER_PIN_TO_BE_CHANGED;
    if (mode_is("no-user-pin"))
        info->flags &= ~(CK_FLAGS)CKF_USER_PIN_INITIALIZED;
    return rv;
}

static CK_RV open_session(CK_SLOT_ID id, CK_FLAGS flags, void *application, CK_NOTIFY notify,
                          CK_SESSION_HANDLE *session)
{
    if (mode_is("no-session-is-left"))
        return CKR_SESSION_COUNT;
    return real->C_OpenSession(id, flags, application, notify, session);
}

static CK_RV login(CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG len)
{
    shim_logins++;
    if (mode_is("device-error-at-login"))
        return CKR_DEVICE_ERROR;
    if (mode_is("vendor-code-at-login"))
        return CKR_VENDOR_DEFINED + 0x13;
    if (mode_is("bad-arguments-at-login"))
        return CKR_ARGUMENTS_BAD;
    return real->C_Login(s, user, pin, len);
}

/* What the template asks for in vain. */
static const struct {
    const char *mode;
    CK_ATTRIBUTE_TYPE dropped;
} ignored[] = {
    {"ignores-modifiable", CKA_MODIFIABLE},
    {"ignores-unwrap-template", CKA_UNWRAP_TEMPLATE},
    {"ignores-wrap-with-trusted", CKA_WRAP_WITH_TRUSTED},
};

static CK_ULONG length_of(const CK_ATTRIBUTE *t, CK_ULONG n)
{
    CK_ULONG len = 0;

    for (CK_ULONG i = 0; i < n; i++) {
        if (t[i].type == CKA_VALUE_LEN)
            memcpy(&len, t[i].pValue, sizeof(len));
    }
    return len;
}

static CK_RV generate_key(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n,
                          CK_OBJECT_HANDLE *o)
{
    CK_ATTRIBUTE kept[64];
    CK_ULONG n_kept = 0;

    if (mode_is("link-is-gone-at-generating")) {
        (void)raise(SIGPIPE); /* as write() to its socket does */
        return CKR_DEVICE_ERROR;
    }
    if (mode_is("refuses-who-can-be-dumped") && prctl(PR_GET_DUMPABLE) != 0)
        return CKR_FUNCTION_REJECTED;
    if (mode_is("fails-at-192-bits") && length_of(t, n) == 24)
        return CKR_DEVICE_ERROR;
    while (mode_is("hangs-at-192-bits") && length_of(t, n) == 24)
        (void)pause();
    if (mode_is("is-slow"))
        (void)nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    for (CK_ULONG i = 0; i < n && i < 64; i++) {
        int drop = 0;

        for (size_t k = 0; k < sizeof(ignored) / sizeof(ignored[0]); k++)
            drop |= t[i].type == ignored[k].dropped && mode_is(ignored[k].mode);
        if (!drop)
            kept[n_kept++] = t[i];
    }
    return real->C_GenerateKey(s, m, kept, n_kept, o);
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are Cryptoki's */
static CK_RV generate_pair(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *pub, CK_ULONG n_pub,
                           CK_ATTRIBUTE *priv, CK_ULONG n_priv, CK_OBJECT_HANDLE *pub_o,
                           CK_OBJECT_HANDLE *priv_o)
{
    for (CK_ULONG i = 0; i < n_priv; i++) {
        if (priv[i].type == CKA_ALLOWED_MECHANISMS && mode_is("no-allowed-mechanisms"))
            return CKR_ATTRIBUTE_TYPE_INVALID;
    }
    return real->C_GenerateKeyPair(s, m, pub, n_pub, priv, n_priv, pub_o, priv_o);
}

static CK_RV get_mechanism_info(CK_SLOT_ID id, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    if (type == CKM_EDDSA && mode_is("no-eddsa"))
        return CKR_MECHANISM_INVALID;
    return real->C_GetMechanismInfo(id, type, info);
}

/* An Ed25519 signature of a text that is longer than a digest: what the probe at the start signs
 * is not. */
static CK_RV sign(CK_SESSION_HANDLE s, CK_BYTE *data, CK_ULONG len, CK_BYTE *out, CK_ULONG *out_len)
{
    CK_RV rv;

    if (mode_is("fails-at-signing"))
        return CKR_DEVICE_ERROR;
    rv = real->C_Sign(s, data, len, out, out_len);
    if (rv == CKR_OK && out != NULL && len > 64 && mode_is("signs-texts-wrongly"))
        out[0] ^= 1;
    return rv;
}

/* Of a key of 192 bits. */
static int is_second_wrap(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    static CK_OBJECT_HANDLE wrapped;
    CK_ULONG len = 0;
    CK_ATTRIBUTE a = {CKA_VALUE_LEN, &len, sizeof(len)};
    int second = wrapped == key;

    if (real->C_GetAttributeValue(s, key, &a, 1) != CKR_OK || len != 24)
        return 0;
    wrapped = key;
    return second;
}

static CK_RV wrap_key(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE kek,
                      CK_OBJECT_HANDLE key, CK_BYTE *out, CK_ULONG *len)
{
    CK_RV rv;

    if (mode_is("device-error-at-wrapping"))
        return CKR_DEVICE_ERROR;
    if (mode_is("wraps-192-bits-once") && is_second_wrap(s, key))
        return CKR_DEVICE_ERROR;
    rv = real->C_WrapKey(s, m, kek, key, out, len);
    if (mode_is("wraps-to-nothing") && rv == CKR_OK)
        *len = 0;
    if (mode_is("wraps-otherwise") && rv == CKR_OK && out != NULL)
        out[0] ^= 1;
    return rv;
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are Cryptoki's */
static CK_RV unwrap_key(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE kek, CK_BYTE *in,
                        CK_ULONG len, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o)
{
    if (mode_is("device-removed-at-unwrapping"))
        return CKR_DEVICE_REMOVED;
    return real->C_UnwrapKey(s, m, kek, in, len, t, n, o);
}

/* Label and id are longer than there is room for, and that is all right with it; or the point of
 * an EC key stands in no OCTET STRING. */
static CK_RV get_attributes(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n)
{
    CK_RV rv;

    if (mode_is("long-names") && n == 1 && (t->type == CKA_LABEL || t->type == CKA_ID)) {
        t->ulValueLen = 1000;
        return CKR_OK;
    }
    rv = real->C_GetAttributeValue(s, o, t, n);
    if (mode_is("bare-points") && rv == CKR_OK && n == 1 && t->type == CKA_EC_POINT &&
        t->pValue != NULL) {
        t->ulValueLen -= 2;
        memmove(t->pValue, (char *)t->pValue + 2, t->ulValueLen);
    }
    return rv;
}

static CK_RV set_attributes(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o, CK_ATTRIBUTE *t, CK_ULONG n)
{
    if (mode_is("session-read-only"))
        return CKR_SESSION_READ_ONLY;
    if (mode_is("session-lost-at-writing"))
        return CKR_SESSION_HANDLE_INVALID;
    if (mode_is("takes-all-writes"))
        return CKR_OK;
    return real->C_SetAttributeValue(s, o, t, n);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    void *dl = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
    CK_C_GetFunctionList get;

    if (dl == NULL)
        return CKR_GENERAL_ERROR;
    *(void **)&get = dlsym(dl, "C_GetFunctionList");
    if (get == NULL || get(&real) != CKR_OK)
        return CKR_GENERAL_ERROR;
    shim = *real;
    shim.C_GetFunctionList = C_GetFunctionList;
    shim.C_GetTokenInfo = get_token_info;
    shim.C_OpenSession = open_session;
    shim.C_Login = login;
    shim.C_GenerateKey = generate_key;
    shim.C_GenerateKeyPair = generate_pair;
    shim.C_GetMechanismInfo = get_mechanism_info;
    shim.C_Sign = sign;
    shim.C_WrapKey = wrap_key;
    shim.C_UnwrapKey = unwrap_key;
    shim.C_GetAttributeValue = get_attributes;
    shim.C_SetAttributeValue = set_attributes;
    *list = &shim;
    return CKR_OK;
}
