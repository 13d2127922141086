/*
 * Who is served.  Who a peer is, is known only when he has a place, since it may take the system a
 * while to say his groups; a reader beyond the readers' share gives the place back at once and
 * waits as an open connection, without one.  So there is always a place for the next to come, who
 * may be one that may change things.  While a reader waits all of the readers' share is taken:
 * who is done hands his place on, and at the end, when nobody is served any more, nobody waits.
 */
#include "internal.h"

#include <string.h>

void admin_places_init(struct admin_places *p)
{
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->left, NULL);
}

void admin_places_clear(struct admin_places *p)
{
    (void)pthread_cond_destroy(&p->left);
    (void)pthread_mutex_destroy(&p->lock);
}

void admin_places_take(struct admin_places *p)
{
    (void)pthread_mutex_lock(&p->lock);
    while (p->n_taken == ADMIN_CONNECTIONS_MAX)
        (void)pthread_cond_wait(&p->left, &p->lock);
    p->n_taken++;
    (void)pthread_mutex_unlock(&p->lock);
}

void admin_places_leave(struct admin_places *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->n_taken--;
    (void)pthread_cond_signal(&p->left);
    (void)pthread_mutex_unlock(&p->lock);
}

enum admin_turn admin_places_reader(struct admin_places *p, int fd)
{
    enum admin_turn turn = ADMIN_GOES;

    (void)pthread_mutex_lock(&p->lock);
    if (p->n_readers < ADMIN_READERS_MAX) {
        p->n_readers++;
        turn = ADMIN_STAYS;
    } else if (p->n_waiting < ADMIN_WAITING_MAX) {
        p->waiting[p->n_waiting++] = fd;
        turn = ADMIN_WAITS;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return turn;
}

int admin_places_next_reader(struct admin_places *p)
{
    int fd = -1;

    (void)pthread_mutex_lock(&p->lock);
    if (p->n_waiting > 0) {
        fd = p->waiting[0];
        p->n_waiting--;
        memmove(p->waiting, p->waiting + 1, p->n_waiting * sizeof(*p->waiting));
    } else {
        p->n_readers--;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return fd;
}

void admin_places_wait_empty(struct admin_places *p)
{
    (void)pthread_mutex_lock(&p->lock);
    while (p->n_taken > 0)
        (void)pthread_cond_wait(&p->left, &p->lock);
    (void)pthread_mutex_unlock(&p->lock);
}
