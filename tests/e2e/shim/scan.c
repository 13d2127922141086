/*
 * Finds any of many octet strings in a piece of memory, in one pass; called from harness/scan.py,
 * because thousands of keys in hundreds of megabytes are too much for bytes.find().
 *
 * A bitmap over the first four octets of the patterns, hashed to 20 bits, tells where to look
 * closer; there the patterns of that hash are compared one by one.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BITS  20
#define SLOTS (1u << BITS)

struct pattern {
    const uint8_t *octets;
    size_t len;
    uint32_t next; /* index + 1; 0 ends the chain */
};

struct scanner {
    uint8_t bitmap[SLOTS / 8];
    uint32_t first[SLOTS]; /* index + 1 */
    size_t n;
    struct pattern pattern[];
};

static uint32_t hash_of(const uint8_t *p)
{
    uint32_t x;

    memcpy(&x, p, sizeof(x));
    return (x * 2654435761u) >> (32 - BITS);
}

/* The patterns' octets stay the caller's and have to stay where they are; each has 4 or more. */
struct scanner *scanner_new(const uint8_t *const *octets, const size_t *len, size_t n)
{
    struct scanner *s = calloc(1, sizeof(*s) + n * sizeof(s->pattern[0]));

    if (!s)
        return NULL;
    s->n = n;
    for (size_t i = 0; i < n; i++) {
        uint32_t h = hash_of(octets[i]);

        s->pattern[i] = (struct pattern){octets[i], len[i], s->first[h]};
        s->first[h] = (uint32_t)i + 1;
        s->bitmap[h / 8] |= (uint8_t)(1u << (h % 8));
    }
    return s;
}

void scanner_free(struct scanner *s)
{
    free(s);
}

/* Sets found[i] for every pattern that is in the octets. */
void scanner_run(const struct scanner *s, const uint8_t *octets, size_t len, uint8_t *found)
{
    for (size_t at = 0; at + 4 <= len; at++) {
        uint32_t h = hash_of(octets + at);

        if (!(s->bitmap[h / 8] & (1u << (h % 8))))
            continue;
        for (uint32_t i = s->first[h]; i; i = s->pattern[i - 1].next) {
            const struct pattern *p = &s->pattern[i - 1];

            if (p->len <= len - at && memcmp(octets + at, p->octets, p->len) == 0)
                found[i - 1] = 1;
        }
    }
}
