#include "internal.h"

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

void admin_places_wait_empty(struct admin_places *p)
{
    (void)pthread_mutex_lock(&p->lock);
    while (p->n_taken > 0)
        (void)pthread_cond_wait(&p->left, &p->lock);
    (void)pthread_mutex_unlock(&p->lock);
}
