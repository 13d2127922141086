/*
 * Polls of BSAs that collect: one is open for each, and waits in its lane without a thread.
 */
#include "internal.h"

#include <stdlib.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

int push_collect(struct push *p, struct push_poll *poll)
{
    int64_t wait_us = poll->wait_us;
    int r = 0;

    if (wait_us > PUSH_WAIT_MAX_S * SECOND_US)
        wait_us = PUSH_WAIT_MAX_S * SECOND_US;
    poll->until_us = clock_mono_us() + wait_us;
    poll->next = NULL;
    (void)pthread_mutex_lock(&p->lock);
    if (p->closed)
        r = TEKD_ECLOSED;
    else if (atomic_load(&p->n_polls) >= PUSH_POLLS_MAX)
        r = TEKD_EAGAIN;
    if (r == 0) {
        atomic_fetch_add(&p->n_polls, 1);
        *p->last_poll = poll;
        p->last_poll = &poll->next;
    }
    (void)pthread_mutex_unlock(&p->lock);
    if (r == 0)
        push_wake(p);
    return r;
}

void collect_reply(struct push *p, struct push_poll *poll, struct attempt *take_attempt)
{
    AUTO(attempt) struct attempt *a = take_attempt;

    atomic_fetch_sub(&p->n_polls, 1);
    if (a)
        log_event(LOG_DEBUG, "push", "collected", LOG_STR("bsa", a->peer), LOG_STR("mid", a->mid),
                  LOG_INT("attempt", a->number));
    poll->reply(poll, a ? a->media : CP3_XML, a ? TAKE(a->message) : NULL);
}

/* A newer poll ends the one before: of two, the BSA's side of the older is likely dead. */
static void take_one(struct push *p, struct push_poll *poll, const struct moment *now)
{
    struct lane *l = lane_get(p, poll->bsa);

    if (!l || p->cut_us != 0) {
        collect_reply(p, poll, NULL);
        return;
    }
    if (l->poll)
        collect_reply(p, l->poll, NULL);
    l->poll = poll;
    l->look = true;
    lane_work(p, l, now);
}

void collect_take(struct push *p, struct push_poll *list)
{
    struct moment now = moment_now();

    while (list) {
        struct push_poll *next = list->next;
        take_one(p, list, &now);
        list = next;
    }
}

void collect_put_back(struct push *p, struct lane *l, struct push_poll *poll)
{
    if (l->poll || p->cut_us != 0)
        collect_reply(p, poll, NULL);
    else
        l->poll = poll;
}

void collect_end(struct push *p)
{
    for (size_t i = 0; i < p->n_lanes; i++) {
        struct lane *l = p->lane[i];
        if (l->poll)
            collect_reply(p, l->poll, NULL);
        l->poll = NULL;
    }
}
