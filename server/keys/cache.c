#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "table.h"
#include "tekd/err.h"

/*
 * Two maps in order of use: uthash keeps its entries in the order they were added, and one that is
 * asked for is taken out and added again, so the first is the one longest not asked for.  Entries
 * are cut to the octets they hold: 65,536 of them are a few megabytes.
 */
struct content_entry {
    UT_hash_handle hh;
    int64_t content, tek, storage_kek;
    unsigned bits;
    uint16_t stored_len;
    uint8_t key_id[16];
    char *id;         /* behind stored */
    uint8_t stored[]; /* stored_len octets, then the ContentID and its NUL */
};

struct export_key {
    int64_t tek, kek;
};

struct export_entry {
    UT_hash_handle hh;
    struct export_key key;
    uint16_t len;
    uint8_t octets[];
};

struct cache {
    pthread_mutex_t lock;
    size_t contents_max, exports_max;
    struct content_entry *contents;
    struct export_entry *exports;
};

int cache_new(size_t contents, size_t exports, struct cache **ret_cache)
{
    struct cache *c = calloc(1, sizeof(*c));

    if (!c)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&c->lock, NULL);
    c->contents_max = contents;
    c->exports_max = exports;
    *ret_cache = c;
    return 0;
}

/* NOLINTBEGIN(readability-function-size): see table.h */
static struct content_entry *find_content_locked(struct cache *c, const char *id)
{
    struct content_entry *e;

    HASH_FIND(hh, c->contents, id, strlen(id), e);
    return e;
}

static void add_content_locked(struct cache *c, struct content_entry *e)
{
    HASH_ADD_KEYPTR(hh, c->contents, e->id, strlen(e->id), e);
}

static void take_content_locked(struct cache *c, struct content_entry *e)
{
    HASH_DEL(c->contents, e);
}

static struct export_entry *find_export_locked(struct cache *c, const struct export_key *key)
{
    struct export_entry *e;

    HASH_FIND(hh, c->exports, key, sizeof(*key), e);
    return e;
}

static void add_export_locked(struct cache *c, struct export_entry *e)
{
    HASH_ADD(hh, c->exports, key, sizeof(e->key), e);
}

static void take_export_locked(struct cache *c, struct export_entry *e)
{
    HASH_DEL(c->exports, e);
}
/* NOLINTEND(readability-function-size) */

static void drop_content_locked(struct cache *c, struct content_entry *e)
{
    take_content_locked(c, e);
    free(e);
}

static void drop_export_locked(struct cache *c, struct export_entry *e)
{
    take_export_locked(c, e);
    free(e);
}

void cache_free(struct cache *c)
{
    if (!c)
        return;
    while (c->contents)
        drop_content_locked(c, c->contents);
    while (c->exports)
        drop_export_locked(c, c->exports);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

bool cache_get(struct cache *c, const char *content_id, struct key_entry *ret_entry)
{
    struct content_entry *e;

    (void)pthread_mutex_lock(&c->lock);
    e = find_content_locked(c, content_id);
    if (e) {
        take_content_locked(c, e);
        add_content_locked(c, e);
        *ret_entry = (struct key_entry){.content = e->content,
                                        .bits = e->bits,
                                        .tek = e->tek,
                                        .storage_kek = e->storage_kek,
                                        .stored.len = e->stored_len};
        memcpy(ret_entry->key_id, e->key_id, sizeof(e->key_id));
        memcpy(ret_entry->stored.octets, e->stored, e->stored_len);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return e != NULL;
}

void cache_put(struct cache *c, const char *content_id, const struct key_entry *e)
{
    size_t id_len = strlen(content_id);
    struct content_entry *fresh = malloc(sizeof(*fresh) + e->stored.len + id_len + 1);
    struct content_entry *old;

    if (!fresh)
        return;
    *fresh = (struct content_entry){.content = e->content,
                                    .tek = e->tek,
                                    .storage_kek = e->storage_kek,
                                    .bits = e->bits,
                                    .stored_len = e->stored.len};
    memcpy(fresh->key_id, e->key_id, sizeof(e->key_id));
    memcpy(fresh->stored, e->stored.octets, e->stored.len);
    fresh->id = (char *)fresh->stored + e->stored.len;
    memcpy(fresh->id, content_id, id_len + 1);

    (void)pthread_mutex_lock(&c->lock);
    old = find_content_locked(c, content_id);
    if (!old && HASH_COUNT(c->contents) >= c->contents_max)
        old = c->contents;
    if (old)
        drop_content_locked(c, old);
    add_content_locked(c, fresh);
    (void)pthread_mutex_unlock(&c->lock);
}

void cache_drop(struct cache *c, const char *content_id)
{
    struct content_entry *e;

    (void)pthread_mutex_lock(&c->lock);
    e = find_content_locked(c, content_id);
    if (e)
        drop_content_locked(c, e);
    (void)pthread_mutex_unlock(&c->lock);
}

bool cache_get_export(struct cache *c, int64_t tek, int64_t kek, struct hsm_blob *ret_data)
{
    const struct export_key key = {.tek = tek, .kek = kek};
    struct export_entry *e;

    (void)pthread_mutex_lock(&c->lock);
    e = find_export_locked(c, &key);
    if (e) {
        take_export_locked(c, e);
        add_export_locked(c, e);
        ret_data->len = e->len;
        memcpy(ret_data->octets, e->octets, e->len);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return e != NULL;
}

void cache_put_export(struct cache *c, int64_t tek, int64_t kek, const struct hsm_blob *data)
{
    struct export_entry *fresh = malloc(sizeof(*fresh) + data->len);
    struct export_entry *old;

    if (!fresh)
        return;
    *fresh = (struct export_entry){.key = {.tek = tek, .kek = kek}, .len = data->len};
    memcpy(fresh->octets, data->octets, data->len);

    (void)pthread_mutex_lock(&c->lock);
    old = find_export_locked(c, &fresh->key);
    if (!old && HASH_COUNT(c->exports) >= c->exports_max)
        old = c->exports;
    if (old)
        drop_export_locked(c, old);
    add_export_locked(c, fresh);
    (void)pthread_mutex_unlock(&c->lock);
}

/* Of all that is there: a KEK is retired now and then, and its exports are not found by it. */
void cache_drop_kek(struct cache *c, int64_t kek)
{
    struct export_entry *next;

    (void)pthread_mutex_lock(&c->lock);
    for (struct export_entry *e = c->exports; e; e = next) {
        next = e->hh.next;
        if (e->key.kek == kek)
            drop_export_locked(c, e);
    }
    (void)pthread_mutex_unlock(&c->lock);
}
