/*
 * KEKs by their binding.  The place of a binding follows from its fingerprint; at most PROBES
 * places from there are looked at, and if all are taken the first gives way.  Handles in it are
 * good for the life of the session, which is that of the process.
 */
#include <stdlib.h>
#include <string.h>

#include "tekd/auto.h"
#include "tekd/err.h"
#include "worker.h"

#define PROBES 8

struct place {
    struct hsm_kek want;
    struct token_kek *kek; /* NULL: empty */
};

struct keks {
    struct token *token;
    size_t last; /* given out last: not to give way to the next */
    struct place place[KEKS_MAX];
};

_Static_assert((KEKS_MAX & (KEKS_MAX - 1)) == 0, "the hash is masked");

int keks_new(struct token *t, struct keks **ret_keks)
{
    struct keks *k = calloc(1, sizeof(*k));

    if (k == NULL)
        return TEKD_ENOMEM;
    k->token = t;
    k->last = KEKS_MAX;
    *ret_keks = k;
    return 0;
}

void keks_free(struct keks *k)
{
    if (k == NULL)
        return;
    for (size_t i = 0; i < KEKS_MAX; i++)
        token_kek_free(k->place[i].kek);
    free(k);
}

static bool same(const struct hsm_kek *a, const struct hsm_kek *b)
{
    return a->use == b->use && a->wrap == b->wrap && a->id_len == b->id_len &&
           memcmp(a->fingerprint, b->fingerprint, sizeof(a->fingerprint)) == 0 &&
           memcmp(a->id, b->id, a->id_len) == 0 && strcmp(a->label, b->label) == 0;
}

/* The fingerprint is a hash already. */
static size_t home_of(const struct hsm_kek *want)
{
    size_t home;

    memcpy(&home, want->fingerprint, sizeof(home));
    return home & (KEKS_MAX - 1);
}

/* An empty place, or the one that gives way. */
static size_t place_for(const struct keks *k, size_t home)
{
    for (size_t i = 0; i < PROBES; i++) {
        size_t at = (home + i) & (KEKS_MAX - 1);

        if (k->place[at].kek == NULL)
            return at;
    }
    return home == k->last ? (home + 1) & (KEKS_MAX - 1) : home;
}

static int find(struct keks *k, size_t at, const struct hsm_kek *want)
{
    struct token_kek *kek = NULL;
    int r = token_kek_find(k->token, want, &kek);

    if (r < 0)
        return r;
    token_kek_free(k->place[at].kek);
    k->place[at] = (struct place){.want = *want, .kek = kek};
    return 0;
}

int keks_get(struct keks *k, const struct hsm_kek *want, const struct token_kek **ret_kek)
{
    size_t home = home_of(want);
    size_t at;
    int r;

    for (size_t i = 0; i < PROBES; i++) {
        at = (home + i) & (KEKS_MAX - 1);
        if (k->place[at].kek != NULL && same(&k->place[at].want, want)) {
            k->last = at;
            *ret_kek = k->place[at].kek;
            return 0;
        }
    }
    at = place_for(k, home);
    r = find(k, at, want);
    if (r < 0)
        return r;
    k->last = at;
    *ret_kek = k->place[at].kek;
    return 0;
}
