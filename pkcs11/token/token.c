/* Loading the module, finding the token, the session and the login. */
#include "token/token.h"

#include <dlfcn.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tekd/log.h"
#include "token/token_impl.h"

int token_say(struct token *t, int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(t->reason, sizeof(t->reason), fmt, ap);
    va_end(ap);
    log_event(LOG_WARN, "hsm", "refused", LOG_STR("reason", t->reason));
    return code;
}

/* What C_Login may say about a PIN; after any of these nobody tries the same PIN again. */
static const CK_RV pin_codes[] = {
    CKR_PIN_INCORRECT,
    CKR_PIN_INVALID,
    CKR_PIN_LEN_RANGE,
    CKR_PIN_EXPIRED,
    CKR_PIN_LOCKED,
    CKR_PIN_TOO_WEAK,
    CKR_USER_PIN_NOT_INITIALIZED,
};

static int code_of(CK_RV rv)
{
    if (rv == CKR_HOST_MEMORY)
        return TEKD_ENOMEM;
    for (size_t i = 0; i < ARRAY_SIZE(pin_codes); i++) {
        if (pin_codes[i] == rv)
            return TEKD_EPIN;
    }
    return TEKD_EHSM;
}

/*
 * CKR_GENERAL_ERROR and CKR_FUNCTION_FAILED are not among them: modules say these of what they do
 * not know, too.
 */
static const CK_RV failed_codes[] = {
    CKR_HOST_MEMORY,        CKR_SLOT_ID_INVALID,          CKR_DEVICE_ERROR,
    CKR_DEVICE_MEMORY,      CKR_DEVICE_REMOVED,           CKR_FUNCTION_CANCELED,
    CKR_SESSION_CLOSED,     CKR_SESSION_HANDLE_INVALID,   CKR_TOKEN_NOT_PRESENT,
    CKR_USER_NOT_LOGGED_IN, CKR_CRYPTOKI_NOT_INITIALIZED,
};

bool token_has_failed(CK_RV rv)
{
    for (size_t i = 0; i < ARRAY_SIZE(failed_codes); i++) {
        if (failed_codes[i] == rv)
            return true;
    }
    return false;
}

int token_log(struct token *t, const char *call, unsigned long rv)
{
    char name[TOKEN_CKR_MAX];

    token_ckr_text(rv, name);
    snprintf(t->reason, sizeof(t->reason), "%s: %s", call, name);
    log_event(LOG_WARN, "hsm", "call-failed", LOG_STR("call", call), LOG_STR("rv", name));
    return code_of(rv);
}

const char *token_reason(const struct token *t)
{
    return t->reason;
}

/* What a URI must not have: a PIN (it would be in argv), a slot (it changes), a module. */
static const char *uri_fault(P11KitUri *uri)
{
    const CK_TOKEN_INFO *i = p11_kit_uri_get_token_info(uri);

    if (p11_kit_uri_get_pin_value(uri) || p11_kit_uri_get_pin_source(uri))
        return "a PIN has no place in a URI";
    if (p11_kit_uri_get_module_path(uri) || p11_kit_uri_get_module_name(uri))
        return "the module is given by its own setting";
    if (p11_kit_uri_any_unrecognized(uri))
        return "only token, serial, manufacturer and model name a token";
    if (!i->label[0] && !i->serialNumber[0] && !i->manufacturerID[0] && !i->model[0])
        return "it names no token";
    return NULL;
}

static int read_uri(struct token *t)
{
    const char *fault;
    int r;

    t->uri = p11_kit_uri_new();
    if (!t->uri)
        return TEKD_ENOMEM;
    r = p11_kit_uri_parse(t->uri_text, P11_KIT_URI_FOR_TOKEN, t->uri);
    fault = r == P11_KIT_URI_OK ? uri_fault(t->uri) : p11_kit_uri_message(r);
    if (!fault)
        return 0;
    /* The text may hold a PIN that somebody put there: it is not repeated. */
    return token_say(t, TEKD_EINVAL, "token URI: %s", fault);
}

int token_new(const struct token_options *o, struct token **ret_token)
{
    AUTO(token) struct token *t = calloc(1, sizeof(*t));
    const char *profile = o->profile ? o->profile : "generic";
    int r;

    if (!t)
        return TEKD_ENOMEM;
    t->access = o->access;
    t->module = strdup(o->module);
    t->uri_text = strdup(o->uri);
    if (!t->module || !t->uri_text)
        return TEKD_ENOMEM;
    t->profile = token_profile_find(profile);
    if (!t->profile)
        return token_say(t, TEKD_EINVAL, "there is no HSM profile \"%s\"", profile);
    r = read_uri(t);
    if (r < 0)
        return r;
    *ret_token = TAKE(t);
    return 0;
}

/* Leaves t as token_new() made it. */
void token_unload(struct token *t)
{
    token_index_forget(t);
    if (t->session)
        (void)t->f->C_CloseSession(t->session);
    t->session = 0;
    t->logged_in = false;
    if (t->ctx) {
        PKCS11_CTX_unload(t->ctx);
        PKCS11_CTX_free(t->ctx);
    }
    t->ctx = NULL;
    t->f = NULL;
    if (t->dl)
        dlclose(t->dl);
    t->dl = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(t->mechanism); i++)
        t->mechanism[i] = (struct token_mechanism){.asked = false};
    EVP_PKEY_free(t->probe_key);
    t->probe_key = NULL;
}

void token_free(struct token *t)
{
    if (!t)
        return;
    token_unload(t);
    p11_kit_uri_free(t->uri);
    free(t->uri_text);
    free(t->module);
    free(t);
}

/*
 * Our own dlopen comes first, to tell "no PKCS#11 module" from a module that fails; libp11's gives
 * the same instance.
 */
static int load_functions(struct token *t)
{
    CK_C_GetFunctionList get;
    CK_RV rv;

    t->dl = dlopen(t->module, RTLD_NOW | RTLD_LOCAL);
    if (!t->dl)
        return token_say(t, TEKD_EINVAL, "module: %s", dlerror());
    *(void **)&get = dlsym(t->dl, "C_GetFunctionList");
    if (!get)
        return token_say(t, TEKD_EINVAL, "module %s: no C_GetFunctionList in it", t->module);
    rv = get(&t->f);
    if (rv != CKR_OK)
        return token_log(t, "C_GetFunctionList", rv);
    if (!t->f || t->f->version.major < 2)
        return token_say(t, TEKD_EINVAL, "module %s: no Cryptoki 2 in it", t->module);
    return 0;
}

/* libp11 keeps Cryptoki's codes as reasons of an error library of its own. */
static int log_libp11(struct token *t, const char *call)
{
    unsigned long e = ERR_peek_last_error();
    int r;

    if (ERR_GET_LIB(e) == ERR_get_CKR_code())
        r = token_log(t, call, (CK_RV)ERR_GET_REASON(e));
    else
        r = token_say(t, TEKD_EHSM, "%s: libp11: %s", call,
                      e ? ERR_reason_error_string(e) : "no reason given");
    ERR_clear_error();
    return r;
}

int token_load(struct token *t)
{
    int r;

    r = load_functions(t);
    if (r < 0)
        return r;
    t->ctx = PKCS11_CTX_new();
    if (!t->ctx)
        return TEKD_ENOMEM;
    ERR_clear_error();
    if (PKCS11_CTX_load(t->ctx, t->module) != 0) {
        r = log_libp11(t, "C_Initialize");
        PKCS11_CTX_free(t->ctx);
        t->ctx = NULL;
        return r;
    }
    return 0;
}

/* A module looks for slots anew when it is asked how many there are (PKCS#11 2.40, 5.5). */
static int list_slots(struct token *t, CK_SLOT_ID ids[static TOKEN_SLOTS_MAX], CK_ULONG *ret_n)
{
    CK_ULONG n = 0;
    CK_RV rv = t->f->C_GetSlotList(CK_FALSE, NULL, &n);

    if (rv != CKR_OK)
        return token_log(t, "C_GetSlotList", rv);
    if (n > TOKEN_SLOTS_MAX)
        return token_say(t, TEKD_EHSM, "the module has %lu slots, more than %d", n,
                         TOKEN_SLOTS_MAX);
    n = TOKEN_SLOTS_MAX;
    rv = t->f->C_GetSlotList(CK_FALSE, ids, &n);
    if (rv != CKR_OK)
        return token_log(t, "C_GetSlotList", rv);
    *ret_n = n;
    return 0;
}

/*
 * All tokens, initialised or not.  Not by libp11, which gives up when one of them fails: another
 * partition that is away is none of our business.
 */
int token_slots(struct token *t, struct token_list *ret_list)
{
    struct token_list *l = ret_list;
    CK_SLOT_ID all[TOKEN_SLOTS_MAX];
    CK_ULONG n_all = 0;
    int r = list_slots(t, all, &n_all);

    l->n = 0;
    l->failed = 0;
    for (CK_ULONG i = 0; r == 0 && i < n_all; i++) {
        CK_RV rv = t->f->C_GetTokenInfo(all[i], &l->info[l->n]);

        l->id[l->n] = all[i];
        if (rv == CKR_OK) {
            l->n++;
        } else if (rv != CKR_TOKEN_NOT_PRESENT && rv != CKR_TOKEN_NOT_RECOGNIZED) {
            (void)token_log(t, "C_GetTokenInfo", rv);
            l->failed++;
        }
    }
    return r;
}

static int find(struct token *t)
{
    AUTO_MEM struct token_list *l = calloc(1, sizeof(*l));
    size_t found = 0;
    int r;

    if (!l)
        return TEKD_ENOMEM;
    r = token_slots(t, l);
    if (r < 0)
        return r;
    for (size_t i = 0; i < l->n; i++) {
        if (!(l->info[i].flags & CKF_TOKEN_INITIALIZED) ||
            !p11_kit_uri_match_token_info(t->uri, &l->info[i]))
            continue;
        t->raw = l->info[i];
        t->slot_id = l->id[i];
        found++;
    }
    if (found == 0)
        return token_say(t, TEKD_EHSM, "no token agrees with %s (%zu looked at)", t->uri_text,
                         l->n);
    if (found > 1)
        return token_say(t, TEKD_EEXIST, "%zu tokens agree with %s: add serial=", found,
                         t->uri_text);
    return 0;
}

static int open_session(struct token *t)
{
    CK_FLAGS flags = CKF_SERIAL_SESSION;
    CK_RV rv;

    if (t->access == TOKEN_READ_WRITE)
        flags |= CKF_RW_SESSION;
    rv = t->f->C_OpenSession(t->slot_id, flags, NULL, NULL, &t->session);
    if (rv == CKR_OK)
        return 0;
    t->session = 0;
    return token_log(t, "C_OpenSession", rv);
}

int token_open(struct token *t)
{
    int r;

    token_unload(t);
    r = token_load(t);
    if (r == 0)
        r = find(t);
    if (r == 0)
        r = open_session(t);
    if (r < 0)
        token_unload(t);
    return r;
}

/* Why no PIN is tried, by the token's own flags. */
static const struct {
    CK_FLAGS mask;
    CK_FLAGS value;
    const char *why;
} no_try[] = {
    {CKF_USER_PIN_INITIALIZED, 0, "the token has no user PIN yet"},
    {CKF_USER_PIN_LOCKED, CKF_USER_PIN_LOCKED, "the user PIN is locked"},
    {CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_FINAL_TRY,
     "one try is left before the user PIN locks: log in by hand first"},
    {CKF_USER_PIN_TO_BE_CHANGED, CKF_USER_PIN_TO_BE_CHANGED, "the user PIN must be changed"},
};

/*
 * Codes that no standard ties to the PIN, but that a module may say of one: its own, and those for
 * arguments it will not take (a PIN that is no "user:password").  They are taken for a refused PIN:
 * trying it again by ourselves could lock it, asking the operator costs a command.
 */
static bool may_be_the_pin(CK_RV rv)
{
    return rv >= CKR_VENDOR_DEFINED || rv == CKR_ARGUMENTS_BAD || rv == CKR_FUNCTION_REJECTED;
}

static int login_failed(struct token *t, CK_RV rv)
{
    int r = token_log(t, "C_Login", rv);

    return may_be_the_pin(rv) ? TEKD_EPIN : r;
}

int token_login(struct token *t, const struct secret *pin)
{
    CK_RV rv;

    /* Asked anew: somebody may have tried a PIN since the token was opened. */
    rv = t->f->C_GetTokenInfo(t->slot_id, &t->raw);
    if (rv != CKR_OK)
        return token_log(t, "C_GetTokenInfo", rv);
    for (size_t i = 0; i < ARRAY_SIZE(no_try); i++) {
        if ((t->raw.flags & no_try[i].mask) == no_try[i].value)
            return token_say(t, TEKD_EPIN, "C_Login not tried: %s", no_try[i].why);
    }
    /* Cryptoki takes the PIN as not const; modules do not write to it. */
    rv = t->f->C_Login(t->session, CKU_USER, (CK_UTF8CHAR *)(uintptr_t)secret_peek(pin),
                       secret_len(pin));
    if (rv != CKR_OK && rv != CKR_USER_ALREADY_LOGGED_IN)
        return login_failed(t, rv);
    t->logged_in = true;
    return 0;
}

/* Cryptoki pads with blanks and has no NUL. */
static void copy_padded(const CK_UTF8CHAR *from, size_t len, char *to)
{
    while (len > 0 && (from[len - 1] == ' ' || from[len - 1] == '\0'))
        len--;
    memcpy(to, from, len);
    to[len] = '\0';
}

void token_info_get(const struct token *t, struct token_info *ret_info)
{
    copy_padded(t->raw.label, sizeof(t->raw.label), ret_info->label);
    copy_padded(t->raw.manufacturerID, sizeof(t->raw.manufacturerID), ret_info->manufacturer);
    copy_padded(t->raw.model, sizeof(t->raw.model), ret_info->model);
    copy_padded(t->raw.serialNumber, sizeof(t->raw.serialNumber), ret_info->serial);
    ret_info->logged_in = t->logged_in;
}

int token_object_destroy(struct token *t, CK_OBJECT_HANDLE object)
{
    CK_RV rv;

    if (!object)
        return 0;
    rv = t->f->C_DestroyObject(t->session, object);
    return rv == CKR_OK ? 0 : token_log(t, "C_DestroyObject", rv);
}
