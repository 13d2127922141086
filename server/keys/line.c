/*
 * The line in front of the HSM: few threads are inside at a time, two for each worker, so that one
 * prepares while the other's call is served; whoever finds it full leaves his request, not his
 * thread, in the line, and a thread that comes out takes the next ones, several when many wait: the
 * HSM is asked for them at once.  That is what keeps threads
 * free for requests that need no HSM, and it costs no wake-up per request.
 */
#include "internal.h"

#include <assert.h>
#include <stdlib.h>

#include "tekd/err.h"

struct line {
    pthread_mutex_t lock; /* guards what follows */
    unsigned inside, inside_max;
    unsigned waiting, waiting_max;
    struct keys_work *first, **last;
};

int line_new(unsigned inside_max, unsigned waiting_max, struct line **ret_line)
{
    struct line *l = calloc(1, sizeof(*l));

    if (!l)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&l->lock, NULL);
    l->inside_max = inside_max;
    l->waiting_max = waiting_max;
    l->last = &l->first;
    *ret_line = l;
    return 0;
}

void line_free(struct line *l)
{
    if (!l)
        return;
    assert(!l->first && l->inside == 0);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

static void wait_locked(struct line *l, struct keys_work *w)
{
    w->line_next = NULL;
    *l->last = w;
    l->last = &w->line_next;
    l->waiting++;
}

enum line_place line_enter(struct line *l, struct keys_work *w)
{
    enum line_place place = LINE_INSIDE;

    (void)pthread_mutex_lock(&l->lock);
    if (l->inside < l->inside_max) {
        l->inside++;
    } else if (l->waiting < l->waiting_max) {
        wait_locked(l, w);
        place = LINE_WAITS;
    } else {
        place = LINE_FULL;
    }
    (void)pthread_mutex_unlock(&l->lock);
    return place;
}

/* As many for each that is inside, as far as one may take. */
static size_t share_locked(const struct line *l, size_t max)
{
    size_t share = (l->waiting + l->inside - 1) / l->inside;

    return share < max ? share : max;
}

static struct keys_work *next_locked(struct line *l)
{
    struct keys_work *w = l->first;

    l->first = w->line_next;
    if (!l->first)
        l->last = &l->first;
    l->waiting--;
    return w;
}

size_t line_leave(struct line *l, size_t max, struct keys_work *ret_works[])
{
    size_t n;

    (void)pthread_mutex_lock(&l->lock);
    n = share_locked(l, max);
    for (size_t i = 0; i < n; i++)
        ret_works[i] = next_locked(l);
    if (n == 0)
        l->inside--;
    (void)pthread_mutex_unlock(&l->lock);
    return n;
}
