/* What the file leaves out and what it says of several settings together. */
#include "config_internal.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "tekd/err.h"

static uint32_t *number_at(void *base, size_t offset)
{
    return (uint32_t *)(void *)((char *)base + offset);
}

static char **text_at(void *base, size_t offset)
{
    return (char **)(void *)((char *)base + offset);
}

static int out_of_memory(struct reader *r)
{
    return tree_fail(r, TEKD_ENOMEM, "out of memory");
}

/* The table's own text, so it has a value. */
static uint32_t choice_value(const struct setting *s)
{
    for (unsigned i = 0; i < s->choice_count; i++)
        if (strcmp(s->choices[i].str, s->def) == 0)
            return (uint32_t)s->choices[i].val;
    abort();
}

static int set_default(struct reader *r, const struct setting *s, void *base)
{
    switch (s->kind) {
    case SETTING_NUMBER:
        *number_at(base, s->offset) = (uint32_t)strtoul(s->def, NULL, 10);
        return 0;
    case SETTING_CHOICE:
        *number_at(base, s->offset) = choice_value(s);
        return 0;
    case SETTING_BOOL:
        *((bool *)base + s->offset) = strcmp(s->def, "true") == 0;
        return 0;
    case SETTING_TEXT:
        *text_at(base, s->offset) = strdup(s->def);
        return *text_at(base, s->offset) == NULL ? out_of_memory(r) : 0;
    case SETTING_SECTION:
    case SETTING_LIST:
    case SETTING_ENV:
        break;
    }
    abort(); /* these have no default of their own */
}

/* Prefixes the folder of the file, unless the path has a root. */
static int make_absolute(struct reader *r, const struct config *c, char **path)
{
    char *joined;

    if (**path == '/')
        return 0;
    if (asprintf(&joined, "%s/%s", strcmp(c->dir, "/") == 0 ? "" : c->dir, *path) < 0)
        return out_of_memory(r);
    free(*path);
    *path = joined;
    return 0;
}

static int finish_text(struct reader *r, const struct config *c, const struct setting *s,
                       char **text, const struct where *where)
{
    size_t max =
        s->form == FORM_SOCKET ? sizeof(((struct sockaddr_un *)0)->sun_path) - 1 : PATH_MAX - 1;
    int e;

    if (*text == NULL || !form_is_path(s->form, *text))
        return 0;
    e = make_absolute(r, c, text);
    if (e == 0 && strlen(*text) > max)
        e = tree_refuse_at(r, where,
                           "expected a path of at most %zu octets with the folder of this file, "
                           "found %zu",
                           max, strlen(*text));
    return e;
}

static int finish_table(struct reader *r, const struct config *c, const struct setting *table,
                        void *base, const struct where *where);

static int finish_list(struct reader *r, const struct config *c, const struct setting *s,
                       void *base, const struct where *where)
{
    size_t n = *(size_t *)(void *)((char *)base + s->count_offset);
    char *entries = *text_at(base, s->offset);
    int e = 0;

    for (size_t i = 0; i < n && e == 0; i++)
        e = finish_table(r, c, s->fields, entries + i * s->size,
                         &(struct where){.up = where, .index = i});
    return e;
}

/* Defaults and paths of one setting. */
static int finish_setting(struct reader *r, const struct config *c, const struct setting *s,
                          void *base, const struct where *where)
{
    int e;

    if (s->kind == SETTING_SECTION)
        return finish_table(r, c, s->fields, (char *)base + s->offset, where);
    if (s->kind == SETTING_LIST)
        return finish_list(r, c, s, base, where);
    if (s->def != NULL && tree_at(r, where) == NULL) {
        e = set_default(r, s, base);
        if (e < 0)
            return e;
    }
    return s->kind == SETTING_TEXT ? finish_text(r, c, s, text_at(base, s->offset), where) : 0;
}

static int finish_table(struct reader *r, const struct config *c, const struct setting *table,
                        void *base, const struct where *where)
{
    int e = 0;

    for (const struct setting *s = table; s->key != NULL && e == 0; s++)
        e = finish_setting(r, c, s, base, &(struct where){.up = where, .key = s->key});
    return e;
}

/* Where the file is, and the folder that relative paths are relative to. */
static int finish_place(struct reader *r, struct config *c)
{
    const char *slash = strrchr(r->file, '/');
    AUTO_MEM char *folder =
        slash == NULL ? strdup(".") : strndup(r->file, (size_t)(slash - r->file) + 1);

    if (folder == NULL)
        return out_of_memory(r);
    c->dir = realpath(folder, NULL);
    if (c->dir == NULL)
        return tree_fail(r, TEKD_EIO, "realpath %s: %m", folder);
    if (asprintf(&c->file, "%s/%s", strcmp(c->dir, "/") == 0 ? "" : c->dir,
                 slash == NULL ? r->file : slash + 1) < 0) {
        c->file = NULL;
        return out_of_memory(r);
    }
    return 0;
}

/*
 * A value is made absolute when it names something in the folder of the file: most variables of
 * PKCS#11 modules are the path of the vendor's own configuration, but not all are.
 */
static int finish_variable(struct reader *r, const struct config *c, struct config_env *env)
{
    char *path;

    if (*env->value == '\0' || *env->value == '/')
        return 0;
    if (asprintf(&path, "%s/%s", c->dir, env->value) < 0)
        return out_of_memory(r);
    if (access(path, F_OK) < 0) {
        free(path);
        return 0;
    }
    free(env->value);
    env->value = path;
    return 0;
}

static int finish_env(struct reader *r, struct config *c)
{
    const yaml_node_t *hsm = tree_get(r, tree_root(r), "hsm", NULL);
    const yaml_node_t *node = tree_get(r, hsm, "env", NULL);
    struct config_env *env;
    int e = 0;

    if (node == NULL || node->data.mapping.pairs.start == node->data.mapping.pairs.top)
        return 0;
    c->hsm.env = calloc(CONFIG_ENV_MAX, sizeof(*c->hsm.env));
    if (c->hsm.env == NULL)
        return out_of_memory(r);
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
         p < node->data.mapping.pairs.top && e == 0; p++) {
        env = &c->hsm.env[c->hsm.env_count++];
        env->name = strdup((const char *)tree_node(r, p->key)->data.scalar.value);
        env->value = strdup((const char *)tree_node(r, p->value)->data.scalar.value);
        if (env->name == NULL || env->value == NULL)
            return out_of_memory(r);
        e = finish_variable(r, c, env);
    }
    return e;
}

/* Exactly one source of the PIN. */
static int finish_pin(struct reader *r, struct config *c)
{
    const struct {
        const char *key;
        enum config_pin pin;
        bool given;
    } sources[] = {
        {"pin_file", CONFIG_PIN_FILE, c->hsm.pin_file != NULL},
        {"pin_credential", CONFIG_PIN_CREDENTIAL, c->hsm.pin_credential != NULL},
        {"pin_fd", CONFIG_PIN_FD, c->hsm.pin_fd != 0},
        {"pin_prompt", CONFIG_PIN_PROMPT, c->hsm.pin_prompt},
    };
    const struct where hsm = {.key = "hsm"};
    const char *first = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
        if (!sources[i].given)
            continue;
        if (first != NULL)
            return tree_refuse_at(r, &(struct where){.up = &hsm, .key = sources[i].key},
                                  "expected one source of the PIN, found %s as well", first);
        first = sources[i].key;
        c->hsm.pin = sources[i].pin;
    }
    if (first == NULL)
        return tree_refuse_at(r, &hsm,
                              "expected one of pin_file, pin_credential, pin_fd and "
                              "pin_prompt: true, found none");
    return 0;
}

/* In one section: the first must not be greater than the second, both in the same unit. */
static const struct order {
    const char *section, *small_key, *great_key;
    size_t small, great;
    uint32_t small_unit, great_unit;
    uint32_t without; /* a great one without default: what it is at least when it is not given */
} orders[] = {
    {"push", "retry_initial_s", "retry_max_s", offsetof(struct config, push.retry_initial_s),
     offsetof(struct config, push.retry_max_s), 1, 1, 0},
    {"push", "attempt_timeout_s", "deadline_s", offsetof(struct config, push.attempt_timeout_s),
     offsetof(struct config, push.deadline_s), 1, 1, 0},
    {"limits", "free_stop_mb", "free_warn_mb", offsetof(struct config, limits.free_stop_mb),
     offsetof(struct config, limits.free_warn_mb), 1, 1, CONFIG_FREE_WARN_MB},
    {"audit", "checkpoint_max_delay_ms", "heartbeat_s",
     offsetof(struct config, audit.checkpoint_max_delay_ms),
     offsetof(struct config, audit.heartbeat_s), 1, 1000, 0},
};

static int finish_order(struct reader *r, struct config *c, const struct order *o)
{
    const struct where section = {.key = o->section};
    const struct where where = {.up = &section, .key = o->small_key};
    uint32_t small = *number_at(c, o->small), great = *number_at(c, o->great);

    if (great == 0 && small > o->without)
        return tree_refuse_at(r, &where,
                              "expected no more than %" PRIu32 " where %s is not given, found "
                              "%" PRIu32,
                              o->without, o->great_key, small);
    if (great != 0 && (uint64_t)small * o->small_unit > (uint64_t)great * o->great_unit)
        return tree_refuse_at(r, &where,
                              "expected no more than %s, which is %" PRIu32 ", found %" PRIu32,
                              o->great_key, great, small);
    return 0;
}

static int finish_orders(struct reader *r, struct config *c)
{
    int e = 0;

    for (size_t i = 0; i < ARRAY_SIZE(orders) && e == 0; i++)
        e = finish_order(r, c, &orders[i]);
    return e;
}

static int finish_listen(struct reader *r, const struct config *c)
{
    const struct where list = {.key = "listen"};

    for (size_t i = 1; i < c->listen_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (c->listen[i].port == c->listen[k].port &&
                strcmp(c->listen[i].address, c->listen[k].address) == 0)
                return tree_refuse_at(r, &(struct where){.up = &list, .index = i},
                                      "expected another address or port than listen[%zu]", k);
        }
    }
    return 0;
}

/* Beside what it belongs to. */
static int finish_published(struct reader *r, struct config *c)
{
    const char *beside = c->audit.anchor_file ? c->audit.anchor_file : c->store.sqlite;

    if (c->audit.published_dir != NULL)
        return 0;
    if (asprintf(&c->audit.published_dir, "%s.published", beside) < 0) {
        c->audit.published_dir = NULL;
        return out_of_memory(r);
    }
    return 0;
}

/* A certificate is of no use without its key, nor the other way. */
static int finish_witness(struct reader *r, const struct config *c)
{
    const struct where audit = {.key = "audit"}, witness = {.up = &audit, .key = "witness"};

    if ((c->audit.witness.certificate == NULL) == (c->audit.witness.private_key == NULL))
        return 0;
    return tree_refuse_at(r, &witness, "expected certificate and private_key, found only %s",
                          c->audit.witness.certificate != NULL ? "certificate" : "private_key");
}

/* A key that was replaced needs one that replaced it, and another one. */
static int finish_before(struct reader *r, const struct config *c)
{
    const struct {
        const char *key, *successor, *key_label, *successor_label;
    } keys[] = {
        {"checkpoint_key_before", "checkpoint_key", c->hsm.checkpoint_key_before,
         c->hsm.checkpoint_key},
        {"checkpoint_ed25519_key_before", "checkpoint_ed25519_key",
         c->hsm.checkpoint_ed25519_key_before, c->hsm.checkpoint_ed25519_key},
    };
    const struct where hsm = {.key = "hsm"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const struct where where = {.up = &hsm, .key = keys[i].key};

        if (keys[i].key_label == NULL)
            continue;
        if (keys[i].successor_label == NULL)
            return tree_refuse_at(r, &where, "expected %s as well, the key that replaces it",
                                  keys[i].successor);
        if (strcmp(keys[i].key_label, keys[i].successor_label) == 0)
            return tree_refuse_at(r, &where, "expected another label than that of %s",
                                  keys[i].successor);
    }
    return 0;
}

/* The records' "inst" is the host's name unless the file has one. */
static int finish_instance(struct reader *r, struct config *c)
{
    const struct where audit = {.key = "audit"};
    char name[HOST_NAME_MAX + 1] = "";

    if (c->audit.instance != NULL)
        return 0;
    if (gethostname(name, sizeof(name) - 1) < 0 || *name == '\0' ||
        form_complaint(FORM_NAME, name) != NULL)
        return tree_refuse_at(
            r, &(struct where){.up = &audit, .key = "instance"},
            "missing, and the host's name cannot serve: expected letters, digits, "
            "'.', '_' and '-' only");
    c->audit.instance = strdup(name);
    return c->audit.instance == NULL ? out_of_memory(r) : 0;
}

static int finish_endpoint(struct reader *r, struct config *c)
{
    if (c->admin.http == NULL)
        return 0;
    if (form_split_endpoint(c->admin.http, &c->admin.http_address, &c->admin.http_port) < 0)
        return out_of_memory(r);
    return 0;
}

int finish_config(struct reader *r, struct config *c)
{
    int e;

    c->tls.key_in_hsm = form_is_uri(c->tls.key);
    e = finish_place(r, c);
    if (e == 0)
        e = finish_table(r, c, schema_settings, c, NULL);
    if (e == 0)
        e = finish_env(r, c);
    if (e == 0)
        e = finish_pin(r, c);
    if (e == 0)
        e = finish_orders(r, c);
    if (e == 0)
        e = finish_listen(r, c);
    if (e == 0)
        e = finish_instance(r, c);
    if (e == 0)
        e = finish_published(r, c);
    if (e == 0)
        e = finish_witness(r, c);
    if (e == 0)
        e = finish_before(r, c);
    if (e == 0)
        e = finish_endpoint(r, c);
    if (e == 0)
        e = apart_check(r, c);
    return e;
}
