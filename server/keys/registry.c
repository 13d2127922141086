#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "table.h"
#include "tekd/err.h"

/* A certificate of an enrolled BSA; the index by certificate holds one per certificate. */
struct by_cert {
    uint8_t sha256[32];
    struct bsa *bsa;
    UT_hash_handle hh;
};

struct by_id {
    struct bsa bsa;
    UT_hash_handle hh;
    UT_hash_handle hh_row;
};

struct registry {
    pthread_rwlock_t lock;
    struct by_cert *certs;
    struct by_id *ids;
    struct by_id *rows; /* the same entries, by row */
};

int registry_new(struct registry **ret_registry)
{
    struct registry *r = calloc(1, sizeof(*r));

    if (!r)
        return TEKD_ENOMEM;
    if (pthread_rwlock_init(&r->lock, NULL) != 0) {
        free(r);
        return TEKD_ENOMEM;
    }
    *ret_registry = r;
    return 0;
}

/* NOLINTBEGIN(readability-function-size,clang-analyzer-core.NullDereference): see table.h */
static struct by_cert *find_cert(const struct registry *r, const uint8_t sha256[static 32])
{
    struct by_cert *c;

    HASH_FIND(hh, r->certs, sha256, 32, c);
    return c;
}

static void add_cert(struct registry *r, struct by_cert *c)
{
    HASH_ADD(hh, r->certs, sha256, 32, c);
}

static void take_cert(struct registry *r, struct by_cert *c)
{
    HASH_DEL(r->certs, c);
}

static struct by_id *find_id(const struct registry *r, const char *id)
{
    struct by_id *i;

    HASH_FIND(hh, r->ids, id, strlen(id), i);
    return i;
}

static struct by_id *find_row(const struct registry *r, int64_t row)
{
    struct by_id *i;

    HASH_FIND(hh_row, r->rows, &row, sizeof(row), i);
    return i;
}

static void add_id(struct registry *r, struct by_id *i)
{
    HASH_ADD(hh, r->ids, bsa.id, strlen(i->bsa.id), i);
    HASH_ADD(hh_row, r->rows, bsa.row, sizeof(i->bsa.row), i);
}

static void take_id(struct registry *r, struct by_id *i)
{
    HASH_DELETE(hh_row, r->rows, i);
    HASH_DEL(r->ids, i);
}

static void set_row(struct registry *r, struct by_id *i, int64_t row)
{
    HASH_DELETE(hh_row, r->rows, i);
    i->bsa.row = row;
    HASH_ADD(hh_row, r->rows, bsa.row, sizeof(i->bsa.row), i);
}
/* NOLINTEND(readability-function-size,clang-analyzer-core.NullDereference) */

void registry_free(struct registry *r)
{
    if (!r)
        return;
    while (r->certs) {
        struct by_cert *c = r->certs;
        take_cert(r, c);
        free(c);
    }
    while (r->ids) {
        struct by_id *i = r->ids;
        take_id(r, i);
        bsa_state_unref(i->bsa.state);
        free(i);
    }
    (void)pthread_rwlock_destroy(&r->lock);
    free(r);
}

static struct bsa_state *state_ref(struct bsa_state *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void bsa_state_unref(struct bsa_state *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    store_bsa_free(s->row);
    free(s);
}

struct bsa_state *registry_by_cert(struct registry *r, const uint8_t sha256[static 32])
{
    struct bsa_state *s = NULL;
    struct by_cert *c;

    (void)pthread_rwlock_rdlock(&r->lock);
    c = find_cert(r, sha256);
    if (c)
        s = state_ref(c->bsa->state);
    (void)pthread_rwlock_unlock(&r->lock);
    return s;
}

struct bsa_state *registry_by_id(struct registry *r, const char *id)
{
    struct bsa_state *s = NULL;
    struct by_id *i;

    (void)pthread_rwlock_rdlock(&r->lock);
    i = find_id(r, id);
    if (i)
        s = state_ref(i->bsa.state);
    (void)pthread_rwlock_unlock(&r->lock);
    return s;
}

struct bsa_state *registry_by_row(struct registry *r, int64_t row)
{
    struct bsa_state *s = NULL;
    struct by_id *i;

    (void)pthread_rwlock_rdlock(&r->lock);
    i = find_row(r, row);
    if (i)
        s = state_ref(i->bsa.state);
    (void)pthread_rwlock_unlock(&r->lock);
    return s;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static size_t copy_rows_locked(struct registry *r, int64_t *rows)
{
    size_t n = 0;

    for (const struct by_id *i = r->ids; i; i = i->hh.next)
        rows[n++] = i->bsa.row;
    return n;
}

int registry_rows(struct registry *r, int64_t **ret_rows, size_t *ret_n)
{
    int64_t *rows;
    size_t n = 0;

    (void)pthread_rwlock_rdlock(&r->lock);
    rows = calloc(HASH_COUNT(r->ids) + 1, sizeof(*rows));
    if (rows)
        n = copy_rows_locked(r, rows);
    (void)pthread_rwlock_unlock(&r->lock);
    if (!rows)
        return TEKD_ENOMEM;
    qsort(rows, n, sizeof(*rows), by_number);
    *ret_rows = rows;
    *ret_n = n;
    return 0;
}

size_t registry_count(struct registry *r)
{
    size_t n;

    (void)pthread_rwlock_rdlock(&r->lock);
    n = HASH_COUNT(r->ids);
    (void)pthread_rwlock_unlock(&r->lock);
    return n;
}

void registry_count_content(struct registry *r, int64_t row)
{
    struct by_id *i;

    (void)pthread_rwlock_rdlock(&r->lock);
    i = find_row(r, row);
    if (i)
        atomic_fetch_add(&i->bsa.auto_contents, 1);
    (void)pthread_rwlock_unlock(&r->lock);
}

/* The certificates of the state that goes. */
static void drop_certs_locked(struct registry *r, const struct bsa *b)
{
    const struct store_bsa *old = b->state ? b->state->row : NULL;

    for (size_t i = 0; old && i < old->n_certs; i++) {
        struct by_cert *c = find_cert(r, old->cert[i]);
        if (!c || c->bsa != b)
            continue;
        take_cert(r, c);
        free(c);
    }
}

/* The BSA of this row, made if need be. */
static int bsa_of_locked(struct registry *r, const struct store_bsa *row, struct bsa **ret_bsa)
{
    struct by_id *i = find_id(r, row->id);

    if (!i) {
        if (HASH_COUNT(r->ids) >= KEYS_BSAS_MAX)
            return TEKD_ETOOBIG;
        i = calloc(1, sizeof(*i));
        if (!i)
            return TEKD_ENOMEM;
        i->bsa.row = row->row;
        memcpy(i->bsa.id, row->id, sizeof(i->bsa.id));
        add_id(r, i);
    }
    if (i->bsa.row != row->row) /* an enrolment that was taken back, made again */
        set_row(r, i, row->row);
    *ret_bsa = &i->bsa;
    return 0;
}

/* The new index entries are made before the old ones go, so that a failure changes nothing. */
static int put_locked(struct registry *r, struct bsa_state *s, struct by_cert **fresh)
{
    struct bsa *b = NULL;
    int result = bsa_of_locked(r, s->row, &b);

    if (result < 0)
        return result;
    drop_certs_locked(r, b);
    for (size_t i = 0; i < s->row->n_certs; i++) {
        fresh[i]->bsa = b;
        memcpy(fresh[i]->sha256, s->row->cert[i], 32);
        add_cert(r, fresh[i]);
    }
    s->bsa = b;
    s->generation = atomic_fetch_add(&b->generation, 1) + 1;
    bsa_state_unref(b->state);
    b->state = s;
    return 0;
}

int registry_put(struct registry *r, struct store_bsa *take_row)
{
    AUTO(store_bsa) struct store_bsa *row = take_row;
    struct by_cert *fresh[STORE_CERTS_MAX] = {NULL};
    struct bsa_state *s = calloc(1, sizeof(*s));
    int result = s ? 0 : TEKD_ENOMEM;

    for (size_t i = 0; i < row->n_certs && result == 0; i++) {
        fresh[i] = calloc(1, sizeof(*fresh[i]));
        if (!fresh[i])
            result = TEKD_ENOMEM;
    }
    if (result == 0) {
        s->refs = 1;
        s->row = row;
        (void)pthread_rwlock_wrlock(&r->lock);
        result = put_locked(r, s, fresh);
        (void)pthread_rwlock_unlock(&r->lock);
    }
    if (result < 0) {
        for (size_t i = 0; i < STORE_CERTS_MAX; i++)
            free(fresh[i]);
        free(s);
        return result;
    }
    (void)TAKE(row);
    return 0;
}
