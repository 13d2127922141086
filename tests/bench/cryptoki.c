#include "cryptoki.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <p11-kit/p11-kit.h>

#include "tekd/err.h"
#include "tekd/secret.h"

/* RFC 3394 of a 16-octet key; room for what a token might add. */
#define WRAPPED_LEN 24
#define WRAPPED_MAX 64

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
static CK_OBJECT_CLASS secret_class = CKO_SECRET_KEY;
static CK_KEY_TYPE aes = CKK_AES;
static CK_MECHANISM_TYPE key_wrap = CKM_AES_KEY_WRAP;

static int check(const char *call, CK_RV rv)
{
    if (rv == CKR_OK)
        return 0;
    fprintf(stderr, "%s: %s\n", call, p11_kit_strerror(rv));
    return -1;
}

static int load(struct cryptoki *c, const char *module)
{
    CK_RV (*get_list)(CK_FUNCTION_LIST **) = NULL;
    void *symbol;

    c->library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (c->library == NULL) {
        fprintf(stderr, "dlopen: %s\n", dlerror());
        return -1;
    }
    symbol = dlsym(c->library, "C_GetFunctionList");
    if (symbol == NULL) {
        fprintf(stderr, "dlsym: %s\n", dlerror());
        return -1;
    }
    /* ISO C has no cast from an object pointer to a function pointer; POSIX wants this to work. */
    memcpy(&get_list, &symbol, sizeof(get_list));
    if (check("C_GetFunctionList", get_list(&c->fn)) < 0)
        return -1;
    return check("C_Initialize", c->fn->C_Initialize(NULL));
}

/* Labels are 32 octets, padded with spaces. */
static bool label_is(const CK_TOKEN_INFO *info, const char *label)
{
    size_t len = strlen(label);

    if (len > sizeof(info->label) || memcmp(info->label, label, len) != 0)
        return false;
    for (size_t i = len; i < sizeof(info->label); i++) {
        if (info->label[i] != ' ')
            return false;
    }
    return true;
}

static int find_slot(struct cryptoki *c, const char *token, CK_SLOT_ID *ret_slot)
{
    CK_SLOT_ID slots[CRYPTOKI_SLOTS_MAX];
    CK_ULONG n = CRYPTOKI_SLOTS_MAX;

    if (check("C_GetSlotList", c->fn->C_GetSlotList(CK_TRUE, slots, &n)) < 0)
        return -1;
    for (CK_ULONG i = 0; i < n; i++) {
        CK_TOKEN_INFO info;

        if (c->fn->C_GetTokenInfo(slots[i], &info) == CKR_OK && label_is(&info, token)) {
            *ret_slot = slots[i];
            return 0;
        }
    }
    fprintf(stderr, "no token with label %s\n", token);
    return -1;
}

static int login(struct cryptoki *c, const char *pin_file)
{
    AUTO(secret) struct secret *pin = NULL;
    int r = secret_read_file(pin_file, &pin);

    if (r < 0) {
        fprintf(stderr, "PIN file %s: %s\n", pin_file, tekd_strerror(r));
        return -1;
    }
    return check("C_Login", c->fn->C_Login(c->session, CKU_USER, secret_get(pin), secret_len(pin)));
}

int cryptoki_open(struct cryptoki *c, const char *module, const char *token, const char *pin_file,
                  bool read_write)
{
    CK_FLAGS flags = CKF_SERIAL_SESSION | (read_write ? CKF_RW_SESSION : 0);
    CK_SLOT_ID slot;

    if (load(c, module) < 0 || find_slot(c, token, &slot) < 0)
        return -1;
    if (check("C_OpenSession", c->fn->C_OpenSession(slot, flags, NULL, NULL, &c->session)) < 0)
        return -1;
    return login(c, pin_file);
}

void cryptoki_close(struct cryptoki *c)
{
    if (c->fn != NULL)
        (void)check("C_Finalize", c->fn->C_Finalize(NULL));
    if (c->library != NULL)
        (void)dlclose(c->library);
    memset(c, 0, sizeof(*c));
}

int cryptoki_find(struct cryptoki *c, const char *label, CK_OBJECT_HANDLE *ret_key, CK_ULONG *ret_n)
{
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &secret_class, sizeof(secret_class)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_LABEL, (void *)label, strlen(label)},
    };
    CK_OBJECT_HANDLE keys[2];
    CK_ULONG n = 0;

    if (check("C_FindObjectsInit",
              c->fn->C_FindObjectsInit(c->session, template, ARRAY_SIZE(template))) < 0)
        return -1;
    if (check("C_FindObjects", c->fn->C_FindObjects(c->session, keys, 2, &n)) < 0)
        return -1;
    if (check("C_FindObjectsFinal", c->fn->C_FindObjectsFinal(c->session)) < 0)
        return -1;
    if (n > 0)
        *ret_key = keys[0];
    *ret_n = n;
    return 0;
}

int cryptoki_make_kek(struct cryptoki *c, const char *label, bool storage)
{
    CK_MECHANISM generate = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ULONG len = 32;
    CK_ATTRIBUTE tek[] = {
        {CKA_CLASS, &secret_class, sizeof(secret_class)},
        {CKA_KEY_TYPE, &aes, sizeof(aes)},
        {CKA_TOKEN, &no, sizeof(no)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &yes, sizeof(yes)},
        {CKA_ENCRYPT, &no, sizeof(no)},
        {CKA_DECRYPT, &no, sizeof(no)},
        {CKA_WRAP, &no, sizeof(no)},
        {CKA_UNWRAP, &no, sizeof(no)},
        {CKA_SIGN, &no, sizeof(no)},
        {CKA_VERIFY, &no, sizeof(no)},
        {CKA_DERIVE, &no, sizeof(no)},
        {CKA_COPYABLE, &no, sizeof(no)},
        {CKA_MODIFIABLE, &no, sizeof(no)},
    };
    CK_ATTRIBUTE template[] = {
        {CKA_LABEL, (void *)label, strlen(label)},
        {CKA_ID, (void *)label, strlen(label)},
        {CKA_VALUE_LEN, &len, sizeof(len)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_ENCRYPT, &no, sizeof(no)},
        {CKA_DECRYPT, &no, sizeof(no)},
        {CKA_WRAP, &yes, sizeof(yes)},
        {CKA_UNWRAP, storage ? &yes : &no, sizeof(yes)},
        {CKA_SIGN, &no, sizeof(no)},
        {CKA_VERIFY, &no, sizeof(no)},
        {CKA_DERIVE, &no, sizeof(no)},
        {CKA_ALLOWED_MECHANISMS, &key_wrap, sizeof(key_wrap)},
        {CKA_COPYABLE, &no, sizeof(no)},
        {CKA_MODIFIABLE, &no, sizeof(no)},
        {CKA_UNWRAP_TEMPLATE, tek, sizeof(tek)},
    };
    CK_ULONG n = ARRAY_SIZE(template) - (storage ? 0 : 1);
    CK_OBJECT_HANDLE key;

    return check("C_GenerateKey", c->fn->C_GenerateKey(c->session, &generate, template, n, &key));
}

static int wrap(struct cryptoki *c, CK_OBJECT_HANDLE kek, CK_OBJECT_HANDLE tek)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_BYTE blob[WRAPPED_MAX];
    CK_ULONG len = sizeof(blob);

    if (check("C_WrapKey", c->fn->C_WrapKey(c->session, &mechanism, kek, tek, blob, &len)) < 0)
        return -1;
    if (len == WRAPPED_LEN)
        return 0;
    fprintf(stderr, "C_WrapKey: %lu octets instead of %d\n", len, WRAPPED_LEN);
    return -1;
}

int cryptoki_tek_cycle(struct cryptoki *c, CK_OBJECT_HANDLE storage_kek, CK_OBJECT_HANDLE bsa_kek)
{
    CK_MECHANISM generate = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ULONG len = 16;
    CK_ATTRIBUTE template[] = {
        {CKA_VALUE_LEN, &len, sizeof(len)},   {CKA_TOKEN, &no, sizeof(no)},
        {CKA_PRIVATE, &yes, sizeof(yes)},     {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &yes, sizeof(yes)}, {CKA_ENCRYPT, &no, sizeof(no)},
        {CKA_DECRYPT, &no, sizeof(no)},       {CKA_WRAP, &no, sizeof(no)},
        {CKA_UNWRAP, &no, sizeof(no)},        {CKA_SIGN, &no, sizeof(no)},
        {CKA_VERIFY, &no, sizeof(no)},        {CKA_DERIVE, &no, sizeof(no)},
        {CKA_COPYABLE, &no, sizeof(no)},      {CKA_MODIFIABLE, &no, sizeof(no)},
    };
    CK_OBJECT_HANDLE tek;
    int r;

    if (check("C_GenerateKey", c->fn->C_GenerateKey(c->session, &generate, template,
                                                    ARRAY_SIZE(template), &tek)) < 0)
        return -1;
    r = wrap(c, storage_kek, tek);
    if (r == 0)
        r = wrap(c, bsa_kek, tek);
    if (check("C_DestroyObject", c->fn->C_DestroyObject(c->session, tek)) < 0)
        return -1;
    return r;
}
