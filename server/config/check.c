/* The nodes of a file against the table of settings; the first fault in the file's order. */
#include "config_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tekd/buf.h"
#include "tekd/err.h"

/* The names of all keys of one section. */
#define KEYS_TEXT_MAX 640
/* The longest text of a setting is a path. */
#define VALUE_MAX 4096

static int check_mapping(struct reader *r, const struct setting *table, const yaml_node_t *node,
                         const struct where *where);

/* Keys that people try for secrets, wherever they try it. */
static const char *const secret_keys[] = {"pin",    "user_pin", "so_pin",    "pin_value",
                                          "secret", "password", "passphrase"};

/* ": expected WHAT, found X", the last part only where it cannot be a secret. */
static int refuse_value(struct reader *r, const struct setting *s, const yaml_node_t *node,
                        const struct where *where, const char *expected)
{
    char shown[TREE_SHOWN_MAX];

    if (s->flags & SETTING_QUIET)
        return tree_refuse(r, &node->start_mark, where, "expected %s", expected);
    tree_show(node, shown);
    return tree_refuse(r, &node->start_mark, where, "expected %s, found %s", expected, shown);
}

/* Only a plain scalar: a number in quotes is a text. */
static int check_number(struct reader *r, const struct setting *s, const yaml_node_t *node,
                        const struct where *where)
{
    const yaml_char_t *p;
    uint64_t n = 0;
    char expected[64];
    bool digits;

    (void)snprintf(expected, sizeof(expected), "%" PRIu32 "..%" PRIu32, s->min, s->max);
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return refuse_value(r, s, node, where, expected);
    p = node->data.scalar.value;
    /* 010 is eight to one reader and ten to another. */
    digits = node->data.scalar.length > 0 && (node->data.scalar.length == 1 || *p != '0');
    for (size_t i = 0; i < node->data.scalar.length && digits; i++) {
        digits = p[i] >= '0' && p[i] <= '9' && n <= UINT32_MAX;
        n = n * 10 + (uint64_t)(p[i] - '0');
    }
    if (!digits || n < s->min || n > s->max)
        return refuse_value(r, s, node, where, expected);
    return 0;
}

static int check_choice(struct reader *r, const struct setting *s, const yaml_node_t *node,
                        const struct where *where)
{
    bool is_bool = s->kind == SETTING_BOOL;
    const cyaml_strval_t *choices = is_bool ? schema_bools : s->choices;
    unsigned count = is_bool ? SCHEMA_BOOL_COUNT : s->choice_count;
    AUTO(buf) struct buf *expected = NULL;

    for (unsigned i = 0; i < count && node->type == YAML_SCALAR_NODE; i++) {
        bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

        if ((plain || !is_bool) && node->data.scalar.length == strlen(choices[i].str) &&
            memcmp(node->data.scalar.value, choices[i].str, node->data.scalar.length) == 0)
            return 0;
    }
    if (buf_new(KEYS_TEXT_MAX, &expected) < 0)
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    for (unsigned i = 0; i < count; i++)
        buf_printf(expected, "%s%s", i > 0 ? " or " : "", choices[i].str);
    return refuse_value(r, s, node, where, buf_str(expected));
}

static bool is_null(const yaml_node_t *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};

    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(nulls); i++)
        if (strcmp((const char *)node->data.scalar.value, nulls[i]) == 0)
            return true;
    return false;
}

static bool has_control(const yaml_node_t *node)
{
    for (size_t i = 0; i < node->data.scalar.length; i++)
        if (node->data.scalar.value[i] < ' ' || node->data.scalar.value[i] == 0x7F)
            return true;
    return false;
}

static int check_text(struct reader *r, const struct setting *s, const yaml_node_t *node,
                      const struct where *where)
{
    const char *complaint;
    char octets[64];

    if (node->type != YAML_SCALAR_NODE || is_null(node))
        return refuse_value(r, s, node, where, "a text");
    if (has_control(node))
        return refuse_value(r, s, node, where, "a text without control characters");
    if (node->data.scalar.length < s->min || node->data.scalar.length > s->max) {
        (void)snprintf(octets, sizeof(octets), "%" PRIu32 "..%" PRIu32 " octets", s->min, s->max);
        return refuse_value(r, s, node, where, octets);
    }
    complaint = form_complaint(s->form, (const char *)node->data.scalar.value);
    return complaint != NULL ? refuse_value(r, s, node, where, complaint) : 0;
}

static int check_section(struct reader *r, const struct setting *s, const yaml_node_t *node,
                         const struct where *where)
{
    return check_mapping(r, s->fields, node, where);
}

static int check_list(struct reader *r, const struct setting *s, const yaml_node_t *node,
                      const struct where *where)
{
    const yaml_node_item_t *items;
    char expected[64];
    size_t n;
    int e = 0;

    (void)snprintf(expected, sizeof(expected), "a list of %" PRIu32 "..%" PRIu32 " entries", s->min,
                   s->max);
    if (node->type != YAML_SEQUENCE_NODE)
        return refuse_value(r, s, node, where, expected);
    items = node->data.sequence.items.start;
    n = (size_t)(node->data.sequence.items.top - items);
    if (n < s->min || n > s->max)
        return tree_refuse(r, &node->start_mark, where, "expected %s, found %zu", expected, n);
    for (size_t i = 0; i < n && e == 0; i++) {
        struct where entry = {.up = where, .index = i};

        e = check_mapping(r, s->fields, tree_node(r, items[i]), &entry);
    }
    return e;
}

/* A name as the environment takes it, and a text that cannot be two. */
static int check_variable(struct reader *r, const yaml_node_t *key, const yaml_node_t *value,
                          const struct where *where)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const struct setting variable = {.max = VALUE_MAX};
    const char *name = (const char *)key->data.scalar.value;
    size_t len = strspn(name, letters);

    if (len > 0)
        len +=
            strspn(name + len, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_");
    if (len == 0 || len != key->data.scalar.length)
        return tree_refuse(r, &key->start_mark, where,
                           "expected the name of a variable: letters, digits and '_'");
    return check_text(r, &variable, value, &(struct where){.up = where, .key = name});
}

static int check_env(struct reader *r, const struct setting *s, const yaml_node_t *node,
                     const struct where *where)
{
    const yaml_node_t *key, *first = NULL;
    int e = 0;

    if (node->type != YAML_MAPPING_NODE)
        return refuse_value(r, s, node, where, "a mapping NAME: value");
    if (node->data.mapping.pairs.top - node->data.mapping.pairs.start > CONFIG_ENV_MAX)
        return tree_refuse(r, &node->start_mark, where, "expected at most %d variables",
                           CONFIG_ENV_MAX);
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
         p < node->data.mapping.pairs.top && e == 0; p++) {
        key = tree_node(r, p->key);
        if (key->type != YAML_SCALAR_NODE)
            return tree_refuse(r, &key->start_mark, where, "expected the name of a variable");
        e = check_variable(r, key, tree_node(r, p->value), where);
        (void)tree_get(r, node, (const char *)key->data.scalar.value, &first);
        if (e == 0 && first != key)
            e = tree_refuse(r, &key->start_mark, where, "%s is repeated; it stands in line %zu",
                            (const char *)key->data.scalar.value, first->start_mark.line + 1);
    }
    return e;
}

static int (*const checks[])(struct reader *, const struct setting *, const yaml_node_t *,
                             const struct where *) = {
    [SETTING_NUMBER] = check_number,   [SETTING_BOOL] = check_choice,
    [SETTING_CHOICE] = check_choice,   [SETTING_TEXT] = check_text,
    [SETTING_SECTION] = check_section, [SETTING_LIST] = check_list,
    [SETTING_ENV] = check_env,
};

static int refuse_unknown(struct reader *r, const struct setting *table, const yaml_node_t *key,
                          const struct where *where)
{
    char shown[TREE_SHOWN_MAX];
    struct where at = {.up = where, .key = shown};
    AUTO(buf) struct buf *keys = NULL;

    tree_show(key, shown);
    for (size_t i = 0; i < ARRAY_SIZE(secret_keys); i++)
        if (strcmp(shown, secret_keys[i]) == 0)
            return tree_refuse(r, &key->start_mark, &at,
                               "a secret never stands in this file; name the source of the PIN "
                               "by hsm.pin_file, hsm.pin_credential, hsm.pin_fd or "
                               "hsm.pin_prompt");
    if (buf_new(KEYS_TEXT_MAX, &keys) < 0)
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    for (const struct setting *s = table; s->key != NULL; s++)
        buf_printf(keys, " %s", s->key);
    return tree_refuse(r, &key->start_mark, &at, "unknown key; expected one of:%s", buf_str(keys));
}

static int check_pair(struct reader *r, const struct setting *table, const yaml_node_t *mapping,
                      const yaml_node_pair_t *pair, const struct where *where)
{
    const yaml_node_t *key = tree_node(r, pair->key), *first = NULL;
    struct where at = {.up = where};
    const struct setting *s;

    if (key->type != YAML_SCALAR_NODE)
        return tree_refuse(r, &key->start_mark, where, "expected a key, found %s",
                           key->type == YAML_MAPPING_NODE ? "a mapping" : "a list");
    s = schema_find(table, (const char *)key->data.scalar.value, key->data.scalar.length);
    if (s == NULL)
        return refuse_unknown(r, table, key, where);
    at.key = s->key;
    (void)tree_get(r, mapping, s->key, &first);
    if (first != key)
        return tree_refuse(r, &key->start_mark, &at,
                           "repeated key; expected once, and it stands in line %zu",
                           first->start_mark.line + 1);
    if (tree_node(r, pair->value)->type == YAML_NO_NODE)
        return tree_refuse(r, &key->start_mark, &at, "expected a value");
    return checks[s->kind](r, s, tree_node(r, pair->value), &at);
}

static int refuse_missing(struct reader *r, const struct setting *s, const yaml_node_t *mapping,
                          const struct where *where)
{
    AUTO(buf) struct buf *keys = NULL;

    if (s->fields == NULL)
        return tree_refuse(r, &mapping->start_mark, where, "missing, e.g. %s: %s", s->key,
                           s->sample);
    if (buf_new(KEYS_TEXT_MAX, &keys) < 0)
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    for (const struct setting *f = s->fields; f->key != NULL; f++)
        if (f->flags & SETTING_REQUIRED)
            buf_printf(keys, " %s", f->key);
    return tree_refuse(r, &mapping->start_mark, where, "missing; expected with at least:%s",
                       buf_str(keys));
}

static int check_mapping(struct reader *r, const struct setting *table, const yaml_node_t *node,
                         const struct where *where)
{
    static const struct setting any = {0};
    int e;

    if (node->type != YAML_MAPPING_NODE)
        return refuse_value(r, &any, node, where, "a mapping of settings");
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
         p < node->data.mapping.pairs.top; p++) {
        e = check_pair(r, table, node, p, where);
        if (e < 0)
            return e;
    }
    for (const struct setting *s = table; s->key != NULL; s++) {
        if ((s->flags & SETTING_REQUIRED) && tree_get(r, node, s->key, NULL) == NULL)
            return refuse_missing(r, s, node, &(struct where){.up = where, .key = s->key});
    }
    return 0;
}

int check_file(struct reader *r)
{
    const yaml_node_t *root = tree_root(r);

    if (root == NULL)
        return tree_fail(r, TEKD_EINVAL, "expected settings, found an empty file");
    return check_mapping(r, schema_settings, root, NULL);
}
