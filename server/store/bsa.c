/*
 * Copies of what the store hands out, and the keys of the log for those who ask.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"

static int dup_texts(struct store_bsa *copy, const struct store_bsa *b)
{
    if (b->ca_pem) {
        copy->ca_pem = strdup(b->ca_pem);
        if (!copy->ca_pem)
            return TEKD_ENOMEM;
    }
    for (size_t i = 0; i < b->n_entitle; i++) {
        copy->entitle[i] = strdup(b->entitle[i]);
        if (!copy->entitle[i])
            return TEKD_ENOMEM;
        copy->n_entitle++;
    }
    return 0;
}

int store_bsa_dup(const struct store_bsa *b, struct store_bsa **ret_bsa)
{
    AUTO(store_bsa) struct store_bsa *copy = NULL;
    int r = store_bsa_new(&copy);

    if (r < 0)
        return r;
    *copy = *b;
    copy->ca_pem = NULL;
    copy->n_entitle = 0;
    memset(copy->entitle, 0, sizeof(copy->entitle));
    r = dup_texts(copy, b);
    if (r < 0)
        return r;
    *ret_bsa = TAKE(copy);
    return 0;
}

struct wanted_key {
    size_t n;
    struct hsm_spki spki;
};

static int read_key(void *arg, struct store_tx *tx)
{
    struct wanted_key *k = arg;

    return signkey_get(tx->db, k->n, &k->spki);
}

static int ask(struct store *s, size_t n, struct hsm_spki *ret_spki)
{
    struct wanted_key k = {.n = n};
    int r = store_call(s, STORE_READ, read_key, &k);

    if (r == 0)
        *ret_spki = k.spki;
    return r;
}

int store_public_key(struct store *s, enum store_key which, struct hsm_spki *ret_spki)
{
    return which < SIGN_KINDS ? ask(s, which, ret_spki) : TEKD_EINVAL;
}

int store_retired_key(struct store *s, size_t n, struct hsm_spki *ret_spki)
{
    return n < RETIRED_MAX ? ask(s, SIGN_KINDS + n, ret_spki) : TEKD_ENOTFOUND;
}
