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

#define INDEX_US       INT64_C(10000000)  /* how old it may be */
#define INDEX_READ_US  INT64_C(250000)    /* how long reading it may take: a part of one call */
#define INDEX_AGAIN_US INT64_C(600000000) /* when that is tried again after it failed */
#define INDEX_MAX      32768              /* objects: 5 MB; of more than these none is kept */

struct entry {
    CK_OBJECT_HANDLE object;
    CK_OBJECT_CLASS class;
    uint8_t label_len, id_len;
    char label[HSM_LABEL_MAX];
    uint8_t id[HSM_ID_MAX];
};

struct token_index {
    int64_t good_until_us;
    bool complete; /* false: the token is too big or too slow for one; it is empty */
    size_t n;
    struct entry entry[];
};

void token_index_forget(struct token *t)
{
    free(t->index);
    t->index = NULL;
}

void token_index_is_old(struct token *t)
{
    if (t->index && t->index->complete)
        token_index_forget(t);
}

/* Whether a single attribute may be what is missing, and not the answer. */
static bool is_answer(CK_RV rv)
{
    return rv == CKR_OK || rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE ||
           rv == CKR_BUFFER_TOO_SMALL;
}

/* One whose names cannot be ours is passed over.  One whose id is too long to be ours has none
 * here: it still counts as another of its label. */
static int read_entry(struct token *t, CK_OBJECT_HANDLE o, struct token_index *x)
{
    struct entry *e = &x->entry[x->n];
    CK_ATTRIBUTE a[] = {{CKA_CLASS, &e->class, sizeof(e->class)},
                        {CKA_LABEL, e->label, sizeof(e->label)},
                        {CKA_ID, e->id, sizeof(e->id)}};
    CK_RV rv = t->f->C_GetAttributeValue(t->session, o, a, ARRAY_SIZE(a));

    if (!is_answer(rv))
        return token_log(t, "C_GetAttributeValue", rv);
    if (a[0].ulValueLen != sizeof(e->class) || a[1].ulValueLen > sizeof(e->label))
        return 0;
    e->object = o;
    e->label_len = (uint8_t)a[1].ulValueLen;
    e->id_len = a[2].ulValueLen <= sizeof(e->id) ? (uint8_t)a[2].ulValueLen : 0;
    x->n++;
    return 0;
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

/* Errors: of the token; TEKD_ETOOBIG; TEKD_ETIMEDOUT. */
static int read_all(struct token *t, int64_t until_us, struct token_index **ret_index)
{
    AUTO_MEM CK_OBJECT_HANDLE *objects = NULL;
    AUTO_MEM struct token_index *x = NULL;
    size_t n = 0;
    int r = list_objects(t, &objects, &n);

    if (r < 0)
        return r;
    x = calloc(1, sizeof(*x) + n * sizeof(x->entry[0]));
    if (!x)
        return TEKD_ENOMEM;
    for (size_t i = 0; i < n && r == 0; i++)
        r = clock_mono_us() < until_us ? read_entry(t, objects[i], x) : TEKD_ETIMEDOUT;
    x->complete = true;
    if (r == 0)
        *ret_index = TAKE(x);
    return r;
}

/* What cannot be read is remembered as an empty one, so that not each key costs the attempt. */
static int read_index(struct token *t)
{
    int64_t now = clock_mono_us();
    struct token_index *x = NULL;
    int r = read_all(t, now + INDEX_READ_US, &x);

    if (r < 0)
        x = calloc(1, sizeof(*x));
    if (!x)
        return TEKD_ENOMEM;
    x->good_until_us = now + (x->complete ? INDEX_US : INDEX_AGAIN_US);
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

    if (!t->index || clock_mono_us() > t->index->good_until_us)
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
