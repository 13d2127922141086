/*
 * The keys of the token by their names, read in one go.  A search costs the token a look at each
 * object that it has, so that finding each of a thousand keys by a search of its own would cost a
 * million looks: SoftHSM takes a minute of CPU time for it.
 *
 * What stands here may be some seconds old, and is only a proposal: whoever takes a handle from it
 * checks the key behind it, and searches when there is anything wrong with it.
 */
#include "token/token_impl.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"

#define INDEX_US  INT64_C(10000000) /* how old it may be */
#define INDEX_MAX 32768             /* objects: 5 MB; of more than these none is kept */

struct entry {
    CK_OBJECT_HANDLE object;
    CK_OBJECT_CLASS class;
    uint8_t label_len, id_len;
    char label[HSM_LABEL_MAX];
    uint8_t id[HSM_ID_MAX];
};

struct token_index {
    int64_t read_us;
    size_t n;
    struct entry entry[];
};

void token_index_forget(struct token *t)
{
    free(t->index);
    t->index = NULL;
}

/* Whether it has names that can be ours.  One whose id is too long to be ours has none here: it
 * still counts as another of its label. */
static bool read_entry(struct token *t, CK_OBJECT_HANDLE o, struct entry *e)
{
    CK_ATTRIBUTE a[] = {{CKA_CLASS, &e->class, sizeof(e->class)},
                        {CKA_LABEL, e->label, sizeof(e->label)},
                        {CKA_ID, e->id, sizeof(e->id)}};

    (void)t->f->C_GetAttributeValue(t->session, o, a, ARRAY_SIZE(a));
    if (a[0].ulValueLen != sizeof(e->class) || a[1].ulValueLen > sizeof(e->label))
        return false;
    e->object = o;
    e->label_len = (uint8_t)a[1].ulValueLen;
    e->id_len = a[2].ulValueLen <= sizeof(e->id) ? (uint8_t)a[2].ulValueLen : 0;
    return true;
}

static int list_objects(struct token *t, CK_OBJECT_HANDLE **ret_objects, size_t *ret_n)
{
    struct token_template tpl = {.n = 0};
    CK_OBJECT_HANDLE *objects = calloc(INDEX_MAX, sizeof(*objects));
    int r;

    if (!objects)
        return TEKD_ENOMEM;
    token_attr_add_bool(&tpl, CKA_TOKEN, true);
    r = token_attr_find(t, &tpl, objects, INDEX_MAX, ret_n);
    if (r < 0) {
        free(objects);
        return r;
    }
    *ret_objects = objects;
    return 0;
}

static int read_index(struct token *t)
{
    AUTO_MEM CK_OBJECT_HANDLE *objects = NULL;
    struct token_index *x;
    size_t n = 0;
    int r = list_objects(t, &objects, &n);

    if (r < 0 && r != TEKD_ETOOBIG)
        return r;
    if (r == TEKD_ETOOBIG)
        n = 0; /* an empty one, not read again for every key */
    x = calloc(1, sizeof(*x) + n * sizeof(x->entry[0]));
    if (!x)
        return TEKD_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (read_entry(t, objects[i], &x->entry[x->n]))
            x->n++;
    }
    x->read_us = clock_mono_us();
    token_index_forget(t);
    t->index = x;
    return 0;
}

static bool agrees(const struct entry *e, const struct token_query *q)
{
    return e->class == q->class && e->label_len == strlen(q->label) &&
           memcmp(e->label, q->label, e->label_len) == 0 &&
           (q->id_len == 0 || (e->id_len == q->id_len && memcmp(e->id, q->id, q->id_len) == 0));
}

int token_index_one(struct token *t, const struct token_query *q, CK_OBJECT_HANDLE *ret_o)
{
    const struct entry *found = NULL;
    int r = 0;

    if (!t->index || clock_mono_us() - t->index->read_us > INDEX_US)
        r = read_index(t);
    if (r < 0)
        return r;
    for (size_t i = 0; i < t->index->n; i++) {
        const struct entry *e = &t->index->entry[i];

        if (!agrees(e, q))
            continue;
        if (found)
            return TEKD_EEXIST;
        found = e;
    }
    if (!found)
        return TEKD_ENOTFOUND;
    *ret_o = found->object;
    return 0;
}
