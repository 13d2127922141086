/*
 * The command "deliver": new Key Deliveries of a content's current TEK.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"

struct run {
    struct keys *k;
    const struct keys_actor *actor;
    const struct keys_delivery_order *o;
    struct keys_error *err;
    struct group *g;
    int64_t *bsa; /* rows of those it is for, or may be for */
    size_t n;
    size_t at;       /* the group begins with this one ... */
    size_t next;     /* ... and ends before this one */
    size_t prepared; /* in all */
    size_t n_failed;
    char failed[STORE_ID_MAX + 1];
    int error;
};

/* ---- for whom -------------------------------------------------------------------------------- */

static bool is_listed(const struct run *x, int64_t bsa)
{
    for (size_t i = 0; i < x->n; i++) {
        if (x->bsa[i] == bsa)
            return true;
    }
    return false;
}

static int undeliverable(struct run *x, const struct bsa_state *s, const char *id)
{
    const char *why = policy_undeliverable(s, x->o->content_id);

    if (!why)
        return 0;
    return admin_fail(x->err, !s || s->row->row == 0 ? TEKD_ENOTFOUND : TEKD_EDENIED, "\"%s\" %s",
                      id, why);
}

/* Who is named twice is meant once. */
static int list_named(struct run *x)
{
    int r = 0;

    x->bsa = calloc(x->o->n, sizeof(*x->bsa));
    if (!x->bsa)
        return TEKD_ENOMEM;
    for (size_t i = 0; i < x->o->n && r == 0; i++) {
        const char *id = x->o->bsa_ids[i];
        AUTO_BSA struct bsa_state *s = registry_by_id(x->k->registry, id);

        r = undeliverable(x, s, id);
        if (r == 0 && !is_listed(x, s->row->row))
            x->bsa[x->n++] = s->row->row;
    }
    return r;
}

/* ---- one group ------------------------------------------------------------------------------- */

/* Whoever is named and may not have it any more ends the command; of all, it is passed over. */
static int choose(struct run *x)
{
    struct group *g = x->g;
    int r = 0;

    group_clear(g);
    for (x->next = x->at; x->next < x->n && g->n < KEYS_FANOUT_GROUP && r == 0; x->next++) {
        AUTO_BSA struct bsa_state *s = registry_by_row(x->k->registry, x->bsa[x->next]);

        if (!policy_undeliverable(s, x->o->content_id))
            group_add(g, TAKE(s));
        else if (x->o->n > 0)
            r = undeliverable(x, s, s ? s->bsa->id : "");
    }
    return r;
}

static int read_group(void *arg, struct store_tx *tx)
{
    struct group *g = arg;
    int r;

    period_at(&g->content, clock_utc_us(), &g->period);
    r = store_tx_tek_current(tx, g->content.row, g->period.index, &g->tek);
    return r < 0 ? r : group_read(g, tx);
}

/* The current TEK; there is none: it is made, and found then. */
static int find_tek(struct run *x)
{
    struct group *g = x->g;
    int r = store_call(x->k->store, STORE_READ, read_group, g);

    if (r != TEKD_ENOTFOUND)
        return r;
    r = keys_period_make(x->k, g->content.row, g->period.index, clock_mono_us() + KEYS_HSM_US);
    return r < 0 ? r : TEKD_ESTALE;
}

static int apply_group(void *arg, struct store_tx *tx)
{
    struct run *x = arg;
    int r = group_apply(x->g, tx);

    return r == 0 && x->prepared == 0 ? admin_record(tx, x->actor, "deliver", x->o->content_id) : r;
}

static int fail_failed(const struct run *x, const char *id, int error)
{
    return admin_fail(x->err, error, "\"%s\": the TEK cannot be wrapped under its KEK: %s", id,
                      tekd_strerror(error));
}

static int group_commit(struct run *x)
{
    int r = store_call(x->k->store, STORE_SIGNED, apply_group, x);

    group_done(x->g, r);
    return r;
}

static int group_once(struct run *x)
{
    struct group *g = x->g;
    int r = choose(x);

    if (r < 0 || g->n == 0)
        return r;
    r = find_tek(x);
    if (r == 0)
        r = group_prepare(g);
    if (r == 0 && g->n_failed > 0 && x->o->n > 0)
        return fail_failed(x, g->failed, g->error);
    if (r == 0 && g->n > 0)
        r = group_commit(x);
    return r;
}

static int tell(struct run *x)
{
    struct group *g = x->g;
    int r = 0;

    x->prepared += g->n;
    if (g->n_failed > 0) {
        x->n_failed += g->n_failed;
        x->error = g->error;
        memcpy(x->failed, g->failed, sizeof(x->failed));
    }
    for (size_t i = 0; i < g->n && r == 0; i++)
        r = x->o->each(x->o->arg, g->draft[i].row.mid, g->draft[i].bsa->row->id);
    return r;
}

/* The groups before this one are out: how many have to be said. */
static int fail_behind(struct run *x, int r)
{
    char *what = x->err->what;
    size_t at = strlen(what);

    if (at == 0)
        return admin_fail(x->err, r, "preparing the deliveries: %s; %zu are prepared",
                          tekd_strerror(r), x->prepared);
    if (x->prepared > 0)
        (void)snprintf(what + at, sizeof(x->err->what) - at, "; %zu are prepared", x->prepared);
    return r;
}

static int run_group(struct run *x)
{
    int r = TEKD_ESTALE;

    x->err->what[0] = '\0';
    for (int i = 0; i < KEYS_ATTEMPTS_MAX && r == TEKD_ESTALE; i++)
        r = group_once(x);
    if (r < 0)
        return fail_behind(x, r);
    x->at = x->next;
    return tell(x);
}

/* ---- the command ----------------------------------------------------------------------------- */

static int read_content(void *arg, struct store_tx *tx)
{
    struct run *x = arg;
    const char *id = x->o->content_id;

    return store_tx_content_find(tx, id, strlen(id), &x->g->content);
}

static int run(struct run *x)
{
    int r = store_call(x->k->store, STORE_READ, read_content, x);

    if (r == TEKD_ENOTFOUND)
        return admin_fail(x->err, r, "\"%s\": no such content", x->o->content_id);
    if (r < 0)
        return admin_fail(x->err, r, "reading the content: %s", tekd_strerror(r));
    r = x->o->n > 0 ? list_named(x) : registry_rows(x->k->registry, &x->bsa, &x->n);
    while (r == 0 && x->at < x->n)
        r = run_group(x);
    if (r < 0)
        return r;
    if (x->n_failed > 0)
        return admin_fail(x->err, x->error,
                          "%zu are prepared; for \"%s\" (%zu in all) the TEK cannot be wrapped "
                          "under its KEK: %s",
                          x->prepared, x->failed, x->n_failed, tekd_strerror(x->error));
    if (x->prepared == 0)
        return admin_fail(x->err, TEKD_ENOTFOUND, "no enabled BSA is entitled to \"%s\"",
                          x->o->content_id);
    return 0;
}

int keys_deliver(struct keys *k, const struct keys_actor *a, const struct keys_delivery_order *o,
                 struct keys_error *err)
{
    AUTO(group) struct group *g = NULL;
    struct run x = {.k = k, .actor = a, .o = o, .err = err};
    int r = group_new(k, o->deadline_s, &g);

    if (r < 0)
        return r;
    g->current = true;
    x.g = g;
    r = run(&x);
    free(x.bsa);
    return r;
}
