#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"
#include "tekd/clock.h"
#include "tekd/err.h"

#define WINDOW_US 60000000
/* Names counted at once; those beyond share one count, so that names cost no memory. */
#define NAMES_MAX  1024
#define NAME_MAX_  320 /* event, space, who */
#define REASON_MAX 40  /* a CP3-Reason or a cause of a refused handshake */

struct window {
    UT_hash_handle hh;
    struct window *ended; /* the next of those taken out */
    int64_t began_us;
    unsigned passed;
    uint64_t held_back;
    const char *event; /* static */
    char who[STORE_ID_MAX + 1];
    char peer[STORE_ID_MAX + 1];
    char mid[STORE_ID_MAX + 1];
    char reason[REASON_MAX];
    char addr[KEYS_ADDR_MAX];
    size_t name_len;
    char name[NAME_MAX_];
};

struct limiter {
    pthread_mutex_t lock;
    struct window *windows;
};

int limiter_new(struct limiter **ret_limiter)
{
    struct limiter *l = calloc(1, sizeof(*l));

    if (!l)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&l->lock, NULL);
    *ret_limiter = l;
    return 0;
}

/* NOLINTBEGIN(readability-function-size): see table.h */
static struct window *find(struct window *windows, const char *name, size_t len)
{
    struct window *w;

    HASH_FIND(hh, windows, name, len, w);
    return w;
}

static void add(struct window **windows, struct window *w)
{
    HASH_ADD_KEYPTR(hh, *windows, w->name, w->name_len, w);
}

static void take(struct window **windows, struct window *w)
{
    HASH_DEL(*windows, w);
}
/* NOLINTEND(readability-function-size) */

static struct window *after(const struct window *w)
{
    return w->hh.next;
}

void limiter_free(struct limiter *l)
{
    if (!l)
        return;
    while (l->windows) {
        struct window *w = l->windows;
        take(&l->windows, w);
        free(w);
    }
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

static void copy(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from ? from : "");
}

static struct window *window_locked(struct limiter *l, const char *event, const char *who)
{
    char name[NAME_MAX_];
    int n = snprintf(name, sizeof(name), "%s %s", event, who);
    size_t len = n < (int)sizeof(name) ? (size_t)n : sizeof(name) - 1;
    struct window *w;

    w = find(l->windows, name, len);
    if (w)
        return w;
    if (HASH_COUNT(l->windows) >= NAMES_MAX && strcmp(who, "others") != 0)
        return window_locked(l, event, "others");
    w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->began_us = clock_mono_us();
    w->event = event;
    w->name_len = len;
    memcpy(w->name, name, len);
    copy(w->who, sizeof(w->who), who);
    add(&l->windows, w);
    return w;
}

bool limiter_pass(struct limiter *l, const struct refusal *what, unsigned per_minute)
{
    bool pass = false;
    struct window *w;

    (void)pthread_mutex_lock(&l->lock);
    w = window_locked(l, what->event, what->who);
    if (w && w->passed < per_minute) {
        w->passed++;
        pass = true;
    } else if (w) {
        w->held_back++;
        copy(w->peer, sizeof(w->peer), what->peer);
        copy(w->mid, sizeof(w->mid), what->mid);
        copy(w->reason, sizeof(w->reason), what->reason);
        copy(w->addr, sizeof(w->addr), what->addr);
    }
    (void)pthread_mutex_unlock(&l->lock);
    return pass;
}

/* Takes the ended windows out; they come back with the next refusal. */
static struct window *ended_locked(struct limiter *l, bool all)
{
    int64_t now = clock_mono_us();
    struct window *w, *next, *ended = NULL;

    for (w = l->windows; w; w = next) {
        next = after(w);
        if (!all && now - w->began_us < WINDOW_US)
            continue;
        take(&l->windows, w);
        w->ended = ended;
        ended = w;
    }
    return ended;
}

void limiter_flush(struct limiter *l, bool all,
                   void (*each)(void *arg, const struct refusal_summary *s), void *arg)
{
    struct window *ended, *w, *next;

    (void)pthread_mutex_lock(&l->lock);
    ended = ended_locked(l, all);
    (void)pthread_mutex_unlock(&l->lock);

    for (w = ended; w; w = next) {
        const struct refusal_summary s = {.event = w->event,
                                          .who = w->who,
                                          .peer = w->peer,
                                          .mid = w->mid,
                                          .reason = w->reason,
                                          .addr = w->addr,
                                          .count = w->held_back};
        if (w->held_back > 0)
            each(arg, &s);
        next = w->ended;
        free(w);
    }
}
