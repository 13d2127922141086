#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"

/*
 * 2 MiB: at a million contents one look-up in 400 is a false "may be", which costs a read; at ten
 * million most are, and the filter costs more than it saves but is still right.
 */
#define BLOOM_BITS   (1u << 24)
#define BLOOM_HASHES 4

struct bloom {
    _Atomic uint64_t word[BLOOM_BITS / 64];
};

int bloom_new(struct bloom **ret_bloom)
{
    struct bloom *b = calloc(1, sizeof(*b));

    if (!b)
        return TEKD_ENOMEM;
    *ret_bloom = b;
    return 0;
}

void bloom_free(struct bloom *b)
{
    free(b);
}

/* FNV-1a, then a finaliser so that the halves are independent (Kirsch and Mitzenmacher). */
static uint64_t hash(const char *s)
{
    uint64_t h = 14695981039346656037u;

    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 1099511628211u;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    return h;
}

static uint32_t bit(uint64_t h, unsigned i)
{
    return ((uint32_t)h + i * ((uint32_t)(h >> 32) | 1)) % BLOOM_BITS;
}

void bloom_add(struct bloom *b, const char *s)
{
    uint64_t h = hash(s);

    for (unsigned i = 0; i < BLOOM_HASHES; i++) {
        uint32_t n = bit(h, i);
        atomic_fetch_or(&b->word[n / 64], (uint64_t)1 << (n % 64));
    }
}

bool bloom_may_have(const struct bloom *b, const char *s)
{
    uint64_t h = hash(s);

    for (unsigned i = 0; i < BLOOM_HASHES; i++) {
        uint32_t n = bit(h, i);
        if (!(atomic_load(&b->word[n / 64]) >> (n % 64) & 1))
            return false;
    }
    return true;
}
