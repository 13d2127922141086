#include "lab.h"

#include <dlfcn.h>
#include <ftw.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int lab_setup_empty(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    char path[128];
    FILE *f;

    assert_non_null(l);
    snprintf(l->dir, sizeof(l->dir), "/tmp/tekd-lab.XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    snprintf(path, sizeof(path), "%s/tokens", l->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/softhsm2.conf", l->dir);
    f = fopen(path, "we");
    assert_non_null(f);
    fprintf(f, "directories.tokendir = %s/tokens\nlog.level = ERROR\n", l->dir);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(setenv("SOFTHSM2_CONF", path, 1), 0);
    *state = l;
    return 0;
}

int lab_setup(void **state)
{
    struct lab *l;

    lab_setup_empty(state);
    l = *state;
    lab_make_token(LAB_TOKEN);
    lab_open(l, NULL, NULL, TOKEN_READ_WRITE);
    return 0;
}

int lab_teardown(void **state)
{
    struct lab *l = *state;

    lab_close(l);
    assert_int_equal(nftw(l->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(l);
    return 0;
}

struct secret *lab_secret(const char *text)
{
    struct secret *s = NULL;

    assert_int_equal(secret_new(strlen(text), &s), 0);
    memcpy(secret_get(s), text, strlen(text));
    return s;
}

struct token *lab_new(const char *module, const char *uri, const char *profile)
{
    const struct token_options o = {
        .module = module ? module : TEST_SOFTHSM,
        .uri = uri,
        .profile = profile ? profile : "softhsm",
        .access = TOKEN_READ_WRITE,
    };
    struct token *t = NULL;

    assert_int_equal(token_new(&o, &t), 0);
    return t;
}

void lab_make_token(const char *label)
{
    /* One that no token agrees with: several of one label are what some tests need. */
    AUTO(token) struct token *t = lab_new(NULL, "pkcs11:token=none-has-this-name", NULL);
    AUTO(secret) struct secret *so = lab_secret(LAB_SO_PIN);
    AUTO(secret) struct secret *user = lab_secret(LAB_PIN);
    const struct token_pins pins = {.so = so, .user = user};

    assert_int_equal(token_make_token(t, label, &pins), 0);
}

void lab_open(struct lab *l, const char *module, const char *profile, enum token_access access)
{
    AUTO(secret) struct secret *pin = lab_secret(LAB_PIN);
    CK_C_GetFunctionList get;
    CK_SLOT_ID slots[8];
    CK_ULONG n = 8;
    const struct token_options o = {.module = module ? module : TEST_SOFTHSM,
                                    .uri = LAB_URI,
                                    .profile = profile ? profile : "softhsm",
                                    .access = access};

    assert_int_equal(token_new(&o, &l->token), 0);
    assert_int_equal(token_open(l->token), 0);
    assert_int_equal(token_login(l->token, pin), 0);
    l->dl = dlopen(TEST_SOFTHSM, RTLD_NOW);
    assert_non_null(l->dl);
    *(void **)&get = dlsym(l->dl, "C_GetFunctionList");
    assert_non_null(get);
    assert_int_equal(get(&l->f), CKR_OK);
    /* The lab's token is the only initialised one, and SoftHSM lists it first. */
    assert_int_equal(l->f->C_GetSlotList(CK_TRUE, slots, &n), CKR_OK);
    assert_int_equal(
        l->f->C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &l->raw),
        CKR_OK);
}

void lab_close(struct lab *l)
{
    if (l->raw)
        l->f->C_CloseSession(l->raw);
    l->raw = 0;
    token_free(l->token);
    l->token = NULL;
    if (l->dl)
        dlclose(l->dl);
    l->dl = NULL;
}

/* ---------------------------------------------------------------- keys ------------- */

static const struct lab_flag kek_flags[] = {
    {CKA_TOKEN, true},    {CKA_PRIVATE, true},  {CKA_SENSITIVE, true}, {CKA_EXTRACTABLE, false},
    {CKA_ENCRYPT, false}, {CKA_DECRYPT, false}, {CKA_SIGN, false},     {CKA_VERIFY, false},
    {CKA_WRAP, true},     {CKA_DERIVE, false},  {CKA_COPYABLE, false}, {CKA_MODIFIABLE, false},
};

static const struct lab_flag tek_flags[] = {
    {CKA_TOKEN, false},      {CKA_PRIVATE, true},  {CKA_SENSITIVE, true}, {CKA_EXTRACTABLE, true},
    {CKA_ENCRYPT, false},    {CKA_DECRYPT, false}, {CKA_SIGN, false},     {CKA_VERIFY, false},
    {CKA_WRAP, false},       {CKA_UNWRAP, false},  {CKA_DERIVE, false},   {CKA_COPYABLE, false},
    {CKA_MODIFIABLE, false},
};

struct attributes {
    CK_ATTRIBUTE a[32];
    CK_BBOOL flag[32];
    CK_ULONG n;
};

static void add(struct attributes *t, CK_ATTRIBUTE_TYPE type, void *value, CK_ULONG len)
{
    t->a[t->n++] = (CK_ATTRIBUTE){type, value, len};
}

static void add_flag(struct attributes *t, CK_ATTRIBUTE_TYPE type, bool value)
{
    t->flag[t->n] = value;
    add(t, type, &t->flag[t->n], 1);
}

static bool flag_of(const struct lab_kek *spec, CK_ATTRIBUTE_TYPE type, bool good)
{
    for (size_t i = 0; i < ARRAY_SIZE(spec->flags) && spec->flags[i].type; i++) {
        if (spec->flags[i].type == type)
            return spec->flags[i].value;
    }
    return good;
}

CK_OBJECT_HANDLE lab_make_kek(struct lab *l, const struct lab_kek *spec)
{
    CK_MECHANISM gen = {.mechanism = CKM_AES_KEY_GEN};
    CK_MECHANISM_TYPE allowed[2] = {CKM_AES_KEY_WRAP, 0};
    CK_KEY_TYPE aes = CKK_AES;
    CK_ULONG octets = spec->octets ? spec->octets : 32, n_allowed = 1;
    struct attributes t = {.n = 0}, inner = {.n = 0};
    CK_OBJECT_HANDLE o = 0;

    if (spec->mechanisms[0]) {
        memcpy(allowed, spec->mechanisms, sizeof(allowed));
        n_allowed = allowed[1] ? 2 : 1;
    }
    add(&t, CKA_VALUE_LEN, &octets, sizeof(octets));
    add(&t, CKA_LABEL, (void *)(uintptr_t)spec->label, strlen(spec->label));
    add(&t, CKA_ID, (void *)(uintptr_t) "id", 2);
    if (spec->left_out != CKA_ALLOWED_MECHANISMS)
        add(&t, CKA_ALLOWED_MECHANISMS, allowed, n_allowed * sizeof(allowed[0]));
    add(&inner, CKA_KEY_TYPE, &aes, sizeof(aes));
    for (size_t i = 0; i < ARRAY_SIZE(tek_flags); i++) {
        if (tek_flags[i].type != spec->inner_out)
            add_flag(&inner, tek_flags[i].type, tek_flags[i].value);
    }
    if (spec->storage && spec->left_out != CKA_UNWRAP_TEMPLATE)
        add(&t, CKA_UNWRAP_TEMPLATE, inner.a, inner.n * sizeof(inner.a[0]));
    add_flag(&t, CKA_UNWRAP, flag_of(spec, CKA_UNWRAP, spec->storage));
    for (size_t i = 0; i < ARRAY_SIZE(kek_flags); i++) {
        if (kek_flags[i].type == spec->left_out)
            continue;
        add_flag(&t, kek_flags[i].type, flag_of(spec, kek_flags[i].type, kek_flags[i].value));
    }
    assert_int_equal(l->f->C_GenerateKey(l->raw, &gen, t.a, t.n, &o), CKR_OK);
    return o;
}

static size_t search(struct lab *l, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *first)
{
    CK_OBJECT_HANDLE found[16] = {0};
    CK_ULONG count = 0;

    assert_int_equal(l->f->C_FindObjectsInit(l->raw, t, n), CKR_OK);
    assert_int_equal(l->f->C_FindObjects(l->raw, found, 16, &count), CKR_OK);
    assert_int_equal(l->f->C_FindObjectsFinal(l->raw), CKR_OK);
    *first = found[0];
    return count;
}

EVP_PKEY *lab_rsa_of_exponent(EVP_PKEY *key, unsigned long exponent)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    BIGNUM *n = NULL, *e = BN_new();
    OSSL_PARAM *params;
    EVP_PKEY *made = NULL;

    assert_true(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n));
    assert_true(BN_set_word(e, exponent));
    assert_true(OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n));
    assert_true(OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e));
    params = OSSL_PARAM_BLD_to_param(bld);
    assert_true(EVP_PKEY_fromdata_init(ctx) > 0);
    assert_true(EVP_PKEY_fromdata(ctx, &made, EVP_PKEY_PUBLIC_KEY, params) > 0);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    EVP_PKEY_CTX_free(ctx);
    BN_free(n);
    BN_free(e);
    return made;
}

/* A number of the key, big-endian; returns its length. */
static size_t rsa_number(EVP_PKEY *key, const char *name, uint8_t out[static 512])
{
    BIGNUM *n = NULL;
    int len;

    assert_true(EVP_PKEY_get_bn_param(key, name, &n));
    assert_true(BN_num_bytes(n) <= 512);
    len = BN_bn2bin(n, out);
    BN_free(n);
    return (size_t)len;
}

CK_OBJECT_HANDLE lab_make_rsa(struct lab *l, const char *label, EVP_PKEY *key)
{
    static const struct lab_flag flags[] = {
        {CKA_TOKEN, true},   {CKA_PRIVATE, true},         {CKA_WRAP, true},
        {CKA_VERIFY, false}, {CKA_VERIFY_RECOVER, false}, {CKA_ENCRYPT, false},
        {CKA_DERIVE, false}, {CKA_COPYABLE, false},       {CKA_MODIFIABLE, false},
    };
    CK_MECHANISM_TYPE oaep = CKM_RSA_PKCS_OAEP;
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_RSA;
    uint8_t modulus[512], exponent[512];
    CK_BBOOL value[ARRAY_SIZE(flags)];
    CK_ATTRIBUTE a[6 + ARRAY_SIZE(flags)] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_LABEL, (void *)(uintptr_t)label, strlen(label)},
        {CKA_ALLOWED_MECHANISMS, &oaep, sizeof(oaep)},
        {CKA_MODULUS, modulus, rsa_number(key, OSSL_PKEY_PARAM_RSA_N, modulus)},
        {CKA_PUBLIC_EXPONENT, exponent, rsa_number(key, OSSL_PKEY_PARAM_RSA_E, exponent)},
    };
    CK_OBJECT_HANDLE o = 0;

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        value[i] = flags[i].value ? CK_TRUE : CK_FALSE;
        a[6 + i] = (CK_ATTRIBUTE){flags[i].type, &value[i], sizeof(value[i])};
    }
    assert_int_equal(l->f->C_CreateObject(l->raw, a, ARRAY_SIZE(a), &o), CKR_OK);
    return o;
}

CK_OBJECT_HANDLE lab_object(struct lab *l, CK_OBJECT_CLASS class, const char *label)
{
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)},
                        {CKA_LABEL, (void *)(uintptr_t)label, strlen(label)}};
    CK_OBJECT_HANDLE o;

    assert_int_equal(search(l, t, 2, &o), 1);
    return o;
}

size_t lab_count(struct lab *l, const char *label)
{
    CK_ATTRIBUTE t[] = {{CKA_LABEL, (void *)(uintptr_t)label, strlen(label)}};
    CK_OBJECT_HANDLE o;

    return search(l, t, 1, &o);
}

void lab_make_key(struct lab *l, enum token_kind kind, const char *label)
{
    const struct token_key_name name = {.kind = kind, .label = label, .wrap = HSM_WRAP_AES_KW};

    assert_int_equal(token_make_key(l->token, &name), 0);
}

struct token_kek *lab_kek(struct lab *l, const char *label, enum hsm_kek_use use)
{
    struct hsm_kek_report report;
    struct token_kek *k = NULL;

    assert_int_equal(token_kek_describe(l->token, label, use, HSM_WRAP_AES_KW, &report), 0);
    assert_int_equal(token_kek_find(l->token, &report.kek, &k), 0);
    return k;
}

void lab_assert_reason(const struct token *t, const char *text)
{
    if (!strstr(token_reason(t), text))
        fail_msg("expected \"%s\" in \"%s\"", text, token_reason(t));
}

/* ---------------------------------------------------------------- the shim --------- */

struct token *lab_shim(const char *mode, const char *profile)
{
    struct token *t;

    assert_int_equal(setenv("SHIM_MODULE", TEST_SOFTHSM, 1), 0);
    assert_int_equal(setenv("SHIM_MODE", mode, 1), 0);
    t = lab_new(TEST_SHIM, LAB_URI, profile);
    assert_int_equal(token_open(t), 0);
    return t;
}

void lab_reopen_shimmed(struct lab *l, const char *mode, const char *profile,
                        enum token_access access)
{
    lab_close(l);
    assert_int_equal(setenv("SHIM_MODULE", TEST_SOFTHSM, 1), 0);
    assert_int_equal(setenv("SHIM_MODE", mode, 1), 0);
    lab_open(l, TEST_SHIM, profile, access);
}

unsigned lab_shim_logins(void)
{
    void *dl = dlopen(TEST_SHIM, RTLD_NOW | RTLD_NOLOAD);
    unsigned *count;

    assert_non_null(dl);
    count = dlsym(dl, "shim_logins");
    assert_non_null(count);
    dlclose(dl);
    return *count;
}
