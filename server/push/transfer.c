/*
 * Transfers by libcurl: one multi handle, driven by "push".  Time-outs are ours, by the clock that
 * everything here goes by; curl's are set so that they never come first.
 */
#include "internal.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"

struct transfers {
    struct push *push;
    bool global; /* libcurl was told that it is used */
    CURLM *multi;
    struct transfer *first, *last; /* in the order of their time-outs */
    size_t n;
};

/* ---- life ------------------------------------------------------------------------------------ */

int transfers_new(struct push *p, struct transfers **ret_transfers)
{
    struct transfers *t = calloc(1, sizeof(*t));

    if (!t)
        return TEKD_ENOMEM;
    t->push = p;
    t->global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    t->multi = t->global ? curl_multi_init() : NULL;
    if (!t->multi ||
        curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)PUSH_IDLE_MAX) != CURLM_OK) {
        transfers_free(t);
        return TEKD_ENOMEM;
    }
    *ret_transfers = t;
    return 0;
}

size_t transfers_count(const struct transfers *t)
{
    return t->n;
}

static void link_transfer(struct transfers *all, struct transfer *t)
{
    t->prev = all->last;
    if (all->last)
        all->last->next = t;
    else
        all->first = t;
    all->last = t;
    all->n++;
}

static void unlink_transfer(struct transfers *all, struct transfer *t)
{
    if (t->prev)
        t->prev->next = t->next;
    else
        all->first = t->next;
    if (t->next)
        t->next->prev = t->prev;
    else
        all->last = t->prev;
    all->n--;
}

/* Not of one that was linked: that goes by drop(). */
void transfer_free(struct transfer *t)
{
    if (!t)
        return;
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    attempt_free(t->attempt);
    target_unref(t->target);
    conn_unref(t->conn);
    buf_free(t->body);
    free(t);
}
static void drop(struct transfers *all, struct transfer *t)
{
    (void)curl_multi_remove_handle(all->multi, t->easy);
    unlink_transfer(all, t);
    transfer_free(t);
}

void transfers_free(struct transfers *t)
{
    if (!t)
        return;
    while (t->first)
        drop(t, t->first);
    (void)curl_multi_cleanup(t->multi);
    if (t->global)
        curl_global_cleanup();
    free(t);
}

void transfers_wake(struct transfers *t)
{
    (void)curl_multi_wakeup(t->multi);
}

/* ---- starting -------------------------------------------------------------------------------- */

void transfer_start(struct push *p, struct lane *l, struct attempt *take_attempt,
                    struct target *target)
{
    AUTO(transfer) struct transfer *t = calloc(1, sizeof(*t));
    struct transfers *all = p->transfers;

    if (!t) {
        result_cannot_send(p, l, take_attempt, "out of memory");
        return;
    }
    t->push = p;
    t->lane = l;
    t->attempt = take_attempt;
    t->target = target_ref(target);
    t->until_us = clock_mono_us() + p->attempt_us;
    if (request_set_up(t) < 0 || curl_multi_add_handle(all->multi, t->easy) != CURLM_OK) {
        result_cannot_send(p, l, TAKE(t->attempt), "libcurl takes no transfer");
        return;
    }
    link_transfer(all, t);
    atomic_store(&p->under_way_now, all->n);
    (void)TAKE(t);
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void finish(struct transfers *all, struct transfer *t, CURLcode code)
{
    struct outcome o = {.status = 0};
    struct attempt *a = TAKE(t->attempt);
    struct push *p = t->push;

    failure_outcome(t, (int)code, &o);
    (void)curl_multi_remove_handle(all->multi, t->easy);
    unlink_transfer(all, t);
    atomic_store(&p->under_way_now, all->n);
    result_take(p, t->lane, a, &o);
    transfer_free(t);
}

/* The connection was of another target: once more, with a new one.  Nothing has left. */
static bool begin_again(struct transfers *all, struct transfer *t)
{
    if (!t->stale || t->fresh)
        return false;
    t->stale = false;
    t->fresh = true;
    buf_reset(t->body);
    t->header_octets = 0;
    (void)curl_multi_remove_handle(all->multi, t->easy);
    return curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK &&
           curl_multi_add_handle(all->multi, t->easy) == CURLM_OK;
}

static void take_ended(struct transfers *all)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(all->multi, &left))) {
        CURLcode code = msg->data.result;
        CURL *easy = msg->easy_handle;
        struct transfer *t = NULL;

        if (msg->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t);
        if (!begin_again(all, t))
            finish(all, t, code);
    }
}

/* A handshake that waits for a signature cannot be taken back; the signature comes in time. */
static void expire(struct transfers *all)
{
    int64_t now = clock_mono_us();
    struct transfer *next;

    for (struct transfer *t = all->first; t && t->until_us <= now; t = next) {
        next = t->next;
        if (!t->conn || !t->conn->is_signing)
            finish(all, t, CURLE_OPERATION_TIMEDOUT);
    }
}

void transfers_cut(struct transfers *all)
{
    struct transfer *next;

    for (struct transfer *t = all->first; t; t = next) {
        next = t->next;
        if (!t->conn || !t->conn->is_signing)
            drop(all, t);
    }
    atomic_store(&all->push->under_way_now, all->n);
}

static void pump(struct transfers *all)
{
    int running;

    (void)curl_multi_perform(all->multi, &running);
    take_ended(all);
    expire(all);
}

void transfers_turn(struct push *p, int64_t wait_us)
{
    struct transfers *all = p->transfers;
    int64_t until_us = all->first ? all->first->until_us - clock_mono_us() : wait_us;

    /* One that is past it and waits for its signature is ended by the wake that this brings. */
    if (until_us > 0 && until_us < wait_us)
        wait_us = until_us;
    if (wait_us > 0)
        (void)curl_multi_poll(all->multi, NULL, 0, (int)((wait_us + 999) / 1000), NULL);
    pump(all);
}
