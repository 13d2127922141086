/*
 * What must not be the same: a file that tekd writes and any other one, and the keys of two uses.
 *
 * Files are compared by name, with the links of their folders followed as far as these are there.
 */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

#include "tekd/buf.h"
#include "tekd/err.h"

/* The caller frees it; NULL: out of memory. */
static char *real_path(const char *path)
{
    char *real = realpath(path, NULL);
    const char *name = strrchr(path, '/') + 1;
    AUTO_MEM char *folder = NULL;
    AUTO_MEM char *real_folder = NULL;

    if (real != NULL)
        return real;
    folder = strndup(path, (size_t)(name - path));
    if (folder == NULL)
        return NULL;
    real_folder = realpath(folder, NULL);
    if (real_folder == NULL)
        return strdup(path);
    return asprintf(&real, "%s/%s", strcmp(real_folder, "/") == 0 ? "" : real_folder, name) < 0
               ? NULL
               : real;
}

/* ---- every file that the configuration names ------------------------------------------------- */

struct file {
    const struct setting *setting;
    const char *path; /* absolute */
    const struct where *where;
};

struct walk {
    struct reader *r;
    const struct config *c;
    int (*each)(struct walk *w, const struct file *f);
    const struct file *written; /* the one that others are compared with */
    const char *real;           /* its path */
};

static int walk_table(struct walk *w, const struct setting *table, const char *struct_at,
                      const struct where *up)
{
    int e = 0;

    for (const struct setting *s = table; s->key != NULL && e == 0; s++) {
        const struct where where = {.up = up, .key = s->key};
        const char *at = struct_at + s->offset;

        if (s->kind == SETTING_SECTION) {
            e = walk_table(w, s->fields, at, &where);
        } else if (s->kind == SETTING_TEXT) {
            const char *text = *(char *const *)(const void *)at;

            if (text != NULL && form_is_path(s->form, text))
                e = w->each(w, &(struct file){.setting = s, .path = text, .where = &where});
        }
    }
    return e;
}

static int compare(struct walk *w, const struct file *f)
{
    AUTO_MEM char *real = NULL;
    AUTO(buf) struct buf *keys = NULL;

    if (f->setting == w->written->setting)
        return 0;
    real = real_path(f->path);
    if (real == NULL || buf_new(TREE_PATH_MAX, &keys) < 0)
        return tree_fail(w->r, TEKD_ENOMEM, "out of memory");
    if (strcmp(real, w->real) != 0)
        return 0;
    tree_put_path(keys, f->where);
    return tree_refuse_at(w->r, w->written->where, "expected another file than that of %s",
                          buf_str(keys));
}

/* One that is written, with all others. */
static int compare_all(struct walk *w, const struct file *f)
{
    AUTO_MEM char *real = NULL;
    AUTO_MEM char *own = NULL;
    struct walk inner = {.r = w->r, .c = w->c, .each = compare, .written = f};

    if (!(f->setting->flags & SETTING_WRITTEN))
        return 0;
    real = real_path(f->path);
    own = real_path(w->c->file);
    if (real == NULL || own == NULL)
        return tree_fail(w->r, TEKD_ENOMEM, "out of memory");
    if (strcmp(real, own) == 0)
        return tree_refuse_at(w->r, f->where, "expected another file than this one");
    inner.real = real;
    return walk_table(&inner, schema_settings, (const char *)w->c, NULL);
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Who could have a handshake signed must not get a signature that could be one of the log. */
static int check_tls_key(struct reader *r, const struct config *c)
{
    const struct {
        const char *key, *label;
    } signing[] = {
        {"checkpoint_key", c->hsm.checkpoint_key},
        {"checkpoint_key_before", c->hsm.checkpoint_key_before},
    };
    const struct where tls = {.key = "tls"}, where = {.up = &tls, .key = "key"};

    for (size_t i = 0; i < ARRAY_SIZE(signing) && c->tls.key_in_hsm; i++) {
        if (signing[i].label != NULL && form_uri_names(c->tls.key, signing[i].label))
            return tree_refuse_at(r, &where,
                                  "expected another key than hsm.%s: what signs the audit log "
                                  "signs nothing else",
                                  signing[i].key);
    }
    return 0;
}

int apart_check(struct reader *r, const struct config *c)
{
    struct walk w = {.r = r, .c = c, .each = compare_all};
    int e = walk_table(&w, schema_settings, (const char *)c, NULL);

    return e == 0 ? check_tls_key(r, c) : e;
}
