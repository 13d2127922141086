#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"

static const char *const media_names[] = {[STORE_MEDIA_XML] = "xml", [STORE_MEDIA_JSON] = "json"};
static const char *const form_names[] = {
    [STORE_FORM_FULL] = "full", [STORE_FORM_EFFICIENT] = "efficient"};

/* ---- from JSON ------------------------------------------------------------------------------- */

/* The index of a name; -1 when the key is absent, -2 when it says something else. */
static int choice(const struct admin_call *call, const char *key, const char *const names[2])
{
    const char *s = admin_arg_str_or(call, key, NULL);

    if (!s)
        return -1;
    for (int i = 0; i < 2; i++) {
        if (strcmp(s, names[i]) == 0)
            return i;
    }
    return -2;
}

/* The strings of an array, borrowed; of more than max there are none, and the callee refuses. */
static size_t strings(const struct admin_call *call, const char *key, const char **ret, size_t max)
{
    const json_t *list = json_object_get(call->args, key);
    size_t n = json_array_size(list);

    for (size_t i = 0; n <= max && i < n; i++)
        ret[i] = json_string_value(json_array_get(list, i));
    return n;
}

static int wrap_of(struct admin_call *call, enum hsm_wrap *ret_wrap)
{
    const char *name = admin_arg_str_or(call, "wrap", NULL);

    *ret_wrap = 0;
    if (!name || hsm_wrap_read(name, ret_wrap) == 0)
        return 0;
    return admin_fail_call(call, TEKD_EINVAL,
                           "wrap: expected aes-kw, aes-kwp, rsa-oaep-sha256 or "
                           "rsa-oaep-sha1, found \"%s\"",
                           name);
}

typedef int change_fn(struct keys *k, const struct keys_actor *a, const struct keys_bsa_change *c,
                      struct keys_error *err);

static int change(struct admin_call *call, change_fn *fn)
{
    const char *certs[STORE_CERTS_MAX], *entitle[STORE_ENTITLE_MAX];
    const json_t *key_info = json_object_get(call->args, "key_info");
    const json_t *keep = json_object_get(call->args, "keep_old_kek");
    struct keys_bsa_change c = {.certs = certs, .entitle = entitle};
    int r = 0;

    c.id = admin_arg_str(call, "id", &r);
    if (r == 0)
        r = wrap_of(call, &c.wrap);
    if (r < 0)
        return r;
    c.n_certs = strings(call, "certs", certs, STORE_CERTS_MAX);
    c.n_entitle = strings(call, "entitle", entitle, STORE_ENTITLE_MAX);
    c.set_entitle = json_object_get(call->args, "entitle") != NULL;
    c.kek_label = admin_arg_str_or(call, "kek", NULL);
    c.keep_old_kek = json_is_true(keep);
    c.url = admin_arg_str_or(call, "url", NULL);
    c.ca_pem = admin_arg_str_or(call, "ca", NULL);
    c.media = choice(call, "media", media_names);
    c.form = choice(call, "form", form_names);
    c.key_info = json_is_boolean(key_info) ? json_boolean_value(key_info) : -1;
    if (c.media == -2 || c.form == -2)
        return admin_fail_call(call, TEKD_EINVAL,
                               "media is xml or json, form is full or efficient");
    return fn(call->admin->o.keys, &call->actor, &c, &call->err);
}

int admin_bsa_add(struct admin_call *call)
{
    return change(call, keys_bsa_add);
}

int admin_bsa_set(struct admin_call *call)
{
    /* "command" and "id" alone. */
    if (json_object_get(call->args, "id") && json_object_size(call->args) == 2)
        return admin_fail_call(call, TEKD_EINVAL, "nothing to change: no option was given");
    return change(call, keys_bsa_set);
}

static int enable(struct admin_call *call, bool on)
{
    int r = 0;
    const char *id = admin_arg_str(call, "id", &r);

    return r < 0 ? r : keys_bsa_enable(call->admin->o.keys, &call->actor, id, on, &call->err);
}

int admin_bsa_disable(struct admin_call *call)
{
    return enable(call, false);
}

int admin_bsa_enable(struct admin_call *call)
{
    return enable(call, true);
}

int admin_bsa_retire_kek(struct admin_call *call)
{
    int r = 0;
    const char *id = admin_arg_str(call, "id", &r);
    const char *kek = admin_arg_str(call, "kek", &r);

    return r < 0 ? r : keys_bsa_retire_kek(call->admin->o.keys, &call->actor, id, kek, &call->err);
}

/* ---- to JSON --------------------------------------------------------------------------------- */

static json_t *certs_json(const struct store_bsa *b)
{
    json_t *list = json_array();

    for (size_t i = 0; i < b->n_certs; i++) {
        char hex[ENC_HEX_LEN(32) + 1];
        enc_hex(b->cert[i], 32, hex);
        (void)json_array_append_new(list, json_string(hex));
    }
    return list;
}

static json_t *entitle_json(const struct store_bsa *b)
{
    json_t *list = json_array();

    for (size_t i = 0; i < b->n_entitle; i++)
        (void)json_array_append_new(list, json_string(b->entitle[i]));
    return list;
}

static const char *kek_state(const struct store_kek *k, const struct store_bsa *b)
{
    if (k->retired)
        return "retired";
    return k->row == b->kek.row ? "current" : "kept";
}

/* null if there is none. */
static json_t *kek_json(const struct store_kek *k, const struct store_bsa *b)
{
    char id[ENC_HEX_LEN(HSM_ID_MAX) + 1], fingerprint[ENC_HEX_LEN(32) + 1];

    if (k->row == 0)
        return json_null();
    enc_hex(k->kek.id, k->kek.id_len, id);
    enc_hex(k->kek.fingerprint, 32, fingerprint);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:b,s:o}", "kek_id", k->name, "state",
                     kek_state(k, b), "label", k->kek.label, "id", id, "wrap",
                     hsm_wrap_name(k->kek.wrap), "fingerprint", fingerprint, "imported",
                     k->imported, "added", admin_time(k->added_us));
}

static json_t *bsa_json(const struct store_bsa *b)
{
    return json_pack("{s:s,s:b,s:s,s:s,s:b,s:s,s:b,s:o,s:o,s:o}", "id", b->id, "enabled",
                     b->enabled, "media", media_names[b->media], "form", form_names[b->form],
                     "key_info", b->key_info, "url", b->url, "has_ca", b->ca_pem != NULL, "certs",
                     certs_json(b), "entitle", entitle_json(b), "kek", kek_json(&b->kek, b));
}

static int add_bsa(void *arg, const struct store_bsa *b)
{
    struct admin_page *p = arg;

    p->last = b->row;
    p->n++;
    return json_array_append_new(p->list, bsa_json(b)) < 0 ? TEKD_ENOMEM : 0;
}

static int read_page(void *arg, struct store_tx *tx)
{
    struct admin_page *p = arg;
    const struct store_walk w = {.after = p->last, .limit = ADMIN_PAGE_ROWS, .arg = p};

    return store_tx_bsa_walk(tx, &w, add_bsa);
}

int admin_bsa_list(struct admin_call *call)
{
    struct admin_page p = {.list = json_array(), .last = admin_arg_int_or(call, "after", 0)};
    int r = store_call(call->admin->o.store, STORE_READ, read_page, &p);

    if (r == 0)
        r = admin_page_result(call, &p);
    json_decref(p.list);
    return r;
}

struct lookup {
    const char *id;
    const struct store_bsa *bsa;
    json_t *keks;
    json_t *doc;
};

static int add_kek(void *arg, const struct store_kek *k)
{
    const struct lookup *l = arg;

    return json_array_append_new(l->keks, kek_json(k, l->bsa)) < 0 ? TEKD_ENOMEM : 0;
}

static int find(void *arg, struct store_tx *tx)
{
    struct lookup *l = arg;
    const struct store_walk w = {.limit = SIZE_MAX, .arg = l};
    AUTO(store_bsa) struct store_bsa *b = NULL;
    int r = store_tx_bsa_find(tx, l->id, &b);

    if (r < 0)
        return r;
    l->bsa = b;
    r = store_tx_kek_walk(tx, b->row, &w, add_kek);
    if (r < 0)
        return r;
    l->doc = bsa_json(b);
    return l->doc ? 0 : TEKD_ENOMEM;
}

int admin_bsa_show(struct admin_call *call)
{
    AUTO_JSON json_t *keks = json_array();
    struct lookup l = {.keks = keks};
    int r = 0;

    l.id = admin_arg_str(call, "id", &r);
    if (r == 0)
        r = store_call(call->admin->o.store, STORE_READ, find, &l);
    if (r == TEKD_ENOTFOUND)
        return admin_fail_call(call, r, "\"%s\": no such BSA", l.id);
    call->result = l.doc;
    return r == 0 && json_object_set(l.doc, "keks", keks) < 0 ? TEKD_ENOMEM : r;
}
