#include "internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"
#include "tekd/err.h"

struct parked {
    struct keys_request *r;
    struct parked *next;
};

struct flight {
    UT_hash_handle hh;
    struct parked *parked; /* newest first */
    size_t len;
    uint8_t name[];
};

struct flights {
    pthread_mutex_t lock;
    struct flight *all;
};

int flights_new(struct flights **ret_flights)
{
    struct flights *f = calloc(1, sizeof(*f));

    if (!f)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&f->lock, NULL);
    *ret_flights = f;
    return 0;
}

void flights_free(struct flights *f)
{
    if (!f)
        return;
    assert(!f->all);
    (void)pthread_mutex_destroy(&f->lock);
    free(f);
}

/* NOLINTBEGIN(readability-function-size): see table.h */
static struct flight *find_locked(struct flights *f, const void *name, size_t len)
{
    struct flight *found;

    HASH_FIND(hh, f->all, name, len, found);
    return found;
}

static void add_locked(struct flights *f, struct flight *mine)
{
    HASH_ADD_KEYPTR(hh, f->all, mine->name, mine->len, mine);
}

static void take_locked(struct flights *f, struct flight *mine)
{
    HASH_DEL(f->all, mine);
}
/* NOLINTEND(readability-function-size) */

static int park_locked(struct flight *f, struct keys_request *r)
{
    struct parked *p = malloc(sizeof(*p));

    if (!p)
        return TEKD_ENOMEM;
    *p = (struct parked){.r = r, .next = f->parked};
    f->parked = p;
    return TEKD_EAGAIN;
}

int flights_enter(struct flights *f, const void *name, size_t len, struct keys_request *r,
                  struct flight **ret_flight)
{
    struct flight *mine = calloc(1, sizeof(*mine) + len);
    struct flight *other;
    int result = 0;

    if (!mine)
        return TEKD_ENOMEM;
    mine->len = len;
    memcpy(mine->name, name, len);

    (void)pthread_mutex_lock(&f->lock);
    other = find_locked(f, name, len);
    if (other)
        result = park_locked(other, r);
    else
        add_locked(f, mine);
    (void)pthread_mutex_unlock(&f->lock);

    if (result < 0)
        free(mine);
    else
        *ret_flight = mine;
    return result;
}

/* They were pushed, so the list is turned round: who waited longest goes first. */
static struct parked *in_order(struct parked *newest)
{
    struct parked *first = NULL;

    while (newest) {
        struct parked *p = newest;
        newest = p->next;
        p->next = first;
        first = p;
    }
    return first;
}

void flights_leave(struct flights *f, struct flight *take_flight)
{
    struct parked *p;

    if (!take_flight)
        return;
    (void)pthread_mutex_lock(&f->lock);
    take_locked(f, take_flight);
    (void)pthread_mutex_unlock(&f->lock);

    p = in_order(take_flight->parked);
    free(take_flight);
    while (p) {
        struct parked *next = p->next;
        p->r->again(p->r);
        free(p);
        p = next;
    }
}
