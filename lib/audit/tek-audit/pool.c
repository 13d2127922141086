/*
 * All strings stand in one block of memory, each behind its length (2 octets) and with a NUL; an
 * open hash table of numbers finds them.  Half a million Message IDs take 40 MB.
 */
#include <assert.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/err.h"

#define EMPTY        UINT32_MAX
#define SLOTS_FIRST  1024
#define OCTETS_MAX   (UINT64_C(1) << 32) /* offsets have 32 bits: 40 million strings and more */
#define STRING_FRAME (sizeof(uint16_t) + 1)

struct pool {
    char *octets;
    size_t used, room;
    uint32_t *offset; /* of each string */
    size_t offset_room;
    uint32_t *slot; /* numbers of strings, or EMPTY */
    size_t n_slots; /* a power of two */
    uint32_t n;
    uint64_t seed; /* so that nobody can choose strings that collide */
};

int pool_new(struct pool **ret_pool)
{
    AUTO(pool) struct pool *p = calloc(1, sizeof *p);

    if (!p)
        return TEKD_ENOMEM;
    p->n_slots = SLOTS_FIRST;
    p->slot = malloc(p->n_slots * sizeof *p->slot);
    if (!p->slot || RAND_bytes((uint8_t *)&p->seed, sizeof p->seed) != 1)
        return TEKD_ENOMEM;
    memset(p->slot, 0xff, p->n_slots * sizeof *p->slot);
    *ret_pool = TAKE(p);
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    free(p->octets);
    free(p->offset);
    free(p->slot);
    free(p);
}

uint32_t pool_count(const struct pool *p)
{
    return p->n;
}

static const char *string_at(const struct pool *p, uint32_t id, uint16_t *ret_len)
{
    const char *s = p->octets + p->offset[id];

    memcpy(ret_len, s, sizeof *ret_len);
    return s + sizeof *ret_len;
}

const char *pool_text(const struct pool *p, uint32_t id)
{
    uint16_t len;

    assert(id < p->n);
    return string_at(p, id, &len);
}

/* Multiplies and folds eight octets at a time, from a secret start. */
static uint64_t hash(const struct pool *p, const char *s, size_t len)
{
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t h = p->seed ^ len * odd;

    while (len > 0) {
        size_t n = len < sizeof(uint64_t) ? len : sizeof(uint64_t);
        uint64_t word = 0;

        memcpy(&word, s, n);
        h = (h ^ word) * odd;
        h ^= h >> 32;
        s += n;
        len -= n;
    }
    return h;
}

/* The slot that has this string, or the empty one where it belongs. */
static size_t slot_of(const struct pool *p, const char *s, size_t len)
{
    size_t i = hash(p, s, len) & (p->n_slots - 1);
    uint16_t have;

    for (; p->slot[i] != EMPTY; i = (i + 1) & (p->n_slots - 1)) {
        const char *t = string_at(p, p->slot[i], &have);

        if (have == len && memcmp(t, s, len) == 0)
            return i;
    }
    return i;
}

int pool_find(const struct pool *p, const char *s, size_t len, uint32_t *ret_id)
{
    size_t i = slot_of(p, s, len);

    if (p->slot[i] == EMPTY)
        return TEKD_ENOTFOUND;
    *ret_id = p->slot[i];
    return 0;
}

static int grow_slots(struct pool *p)
{
    uint32_t *old = p->slot;
    size_t n = 2 * p->n_slots;
    uint32_t *slot = malloc(n * sizeof *slot);
    uint16_t len;

    if (!slot)
        return TEKD_ENOMEM;
    memset(slot, 0xff, n * sizeof *slot);
    p->slot = slot;
    p->n_slots = n;
    for (uint32_t id = 0; id < p->n; id++) {
        const char *s = string_at(p, id, &len);

        p->slot[slot_of(p, s, len)] = id;
    }
    free(old);
    return 0;
}

static int reserve(struct pool *p, size_t len)
{
    if (p->used + len + STRING_FRAME > p->room) {
        size_t room = 2 * p->room + len + 4096;
        char *octets = realloc(p->octets, room);

        if (!octets)
            return TEKD_ENOMEM;
        p->octets = octets;
        p->room = room;
    }
    if (p->n == p->offset_room) {
        size_t room = 2 * p->offset_room + 256;
        uint32_t *offset = realloc(p->offset, room * sizeof *offset);

        if (!offset)
            return TEKD_ENOMEM;
        p->offset = offset;
        p->offset_room = room;
    }
    return 2 * (size_t)p->n < p->n_slots ? 0 : grow_slots(p);
}

int pool_add(struct pool *p, const char *s, size_t len, uint32_t *ret_id, bool *ret_new)
{
    const uint16_t frame = (uint16_t)len;
    int r;

    *ret_new = false;
    if (pool_find(p, s, len, ret_id) == 0)
        return 0;
    if (len > UINT16_MAX || p->used + len + STRING_FRAME > OCTETS_MAX)
        return TEKD_ETOOBIG;
    r = reserve(p, len);
    if (r < 0)
        return r;
    p->slot[slot_of(p, s, len)] = p->n;
    p->offset[p->n] = (uint32_t)p->used;
    memcpy(p->octets + p->used, &frame, sizeof frame);
    memcpy(p->octets + p->used + sizeof frame, s, len);
    p->octets[p->used + sizeof frame + len] = '\0';
    p->used += len + STRING_FRAME;
    *ret_id = p->n++;
    *ret_new = true;
    return 0;
}
