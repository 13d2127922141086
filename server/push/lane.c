/*
 * A lane is looked at (its rows are read) when they may have changed, and claims when something is
 * due and there is room.  One errand of a lane is out at a time; when it is back the lane is worked
 * on again, so nothing that happens meanwhile is missed.
 *
 * There is room for PUSH_TOTAL_MAX deliveries in all.  Lanes wait for it in the order they came,
 * and those that got no answer last time may have half of it: BSAs that hang, however many, never
 * stand in the way of those that do not.
 */
#include "internal.h"

#include <stdlib.h>

#include "tekd/err.h"
#include "tekd/log.h"

#define SUSPECTS_MAX (PUSH_TOTAL_MAX / 2)
/* Between two looks over all lanes: they may be ten thousand. */
#define SWEEP_MIN_US (SECOND_US / 50)

/* ---- one lane alone -------------------------------------------------------------------------- */

unsigned lane_room(const struct lane *l)
{
    unsigned most = l->failures == 0 && l->answers ? PUSH_LANE_MAX : 1;

    return l->under_way < most ? most - l->under_way : 0;
}

unsigned lane_part(unsigned room, unsigned waiting)
{
    unsigned part = room / (waiting + 1);

    return part > 0 ? part : 1;
}

static int64_t min_us(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max_us(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Until the first of its rows is due; what is further ahead than any wait is due as well, or it
 * would wait for as long as UTC was set back. */
static int64_t rows_wait_us(const struct lane *l, const struct moment *now)
{
    int64_t wait = l->rows.next_us - now->utc_us;

    return wait > l->reach_us ? 0 : wait;
}

/* Until a push may be claimed. */
static int64_t push_wait_us(const struct lane *l, const struct moment *now)
{
    int64_t wait = rows_wait_us(l, now);

    if (l->rows.open == 0 || lane_room(l) == 0)
        return INT64_MAX; /* until there is one, or one of them leaves */
    wait = max_us(wait, l->paused_until_us - now->mono_us);
    wait = max_us(wait, l->empty_until_us - now->mono_us);
    return max_us(wait, l->again_us - now->mono_us);
}

static bool push_is_due(const struct lane *l, const struct moment *now)
{
    return push_wait_us(l, now) <= 0;
}

static int64_t poll_wait_us(const struct lane *l, const struct moment *now)
{
    int64_t wait = atomic_load(&l->poll->gone) ? 0 : l->poll->until_us - now->mono_us;
    int64_t due = max_us(rows_wait_us(l, now), l->empty_until_us - now->mono_us);

    return l->rows.open > 0 ? min_us(wait, due) : wait;
}

int64_t lane_wait_us(const struct lane *l, const struct moment *now)
{
    int64_t wait = INT64_MAX;

    if (l->busy)
        return INT64_MAX; /* it is worked on when its errand is back */
    if (l->look)
        return 0;
    if (l->poll)
        wait = poll_wait_us(l, now);
    if (!l->list)
        wait = min_us(wait, push_wait_us(l, now));
    return max_us(wait, 0);
}

void lane_failed(struct lane *l, const struct moment *now, int64_t pause_us)
{
    l->failures++;
    l->answers = false;
    l->paused_until_us = now->mono_us + pause_us;
}

void lane_answered(struct lane *l)
{
    l->failures = 0;
    l->answers = true;
    l->paused_until_us = 0;
}

/* ---- the table ------------------------------------------------------------------------------- */

/* Where the lane of this BSA is, or belongs. */
static size_t place_of(const struct push *p, int64_t bsa)
{
    size_t from = 0, to = p->n_lanes;

    while (from < to) {
        size_t middle = (from + to) / 2;
        if (p->lane[middle]->bsa < bsa)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static int make_room(struct push *p)
{
    size_t more = p->max_lanes > 0 ? p->max_lanes * 2 : 64;
    struct lane **lane;

    if (p->n_lanes < p->max_lanes)
        return 0;
    lane = reallocarray(p->lane, more, sizeof(void *));
    if (!lane)
        return TEKD_ENOMEM;
    p->lane = lane;
    p->max_lanes = more;
    return 0;
}

struct lane *lane_get(struct push *p, int64_t bsa)
{
    size_t at = place_of(p, bsa);
    struct lane *l;

    if (at < p->n_lanes && p->lane[at]->bsa == bsa)
        return p->lane[at];
    l = make_room(p) == 0 ? calloc(1, sizeof(*l)) : NULL;
    if (!l)
        return NULL;
    l->bsa = bsa;
    l->reach_us = p->reach_us;
    for (size_t i = p->n_lanes++; i > at; i--)
        p->lane[i] = p->lane[i - 1];
    p->lane[at] = l;
    return l;
}

void lanes_free(struct push *p)
{
    for (size_t i = 0; i < p->n_lanes; i++) {
        target_unref(p->lane[i]->target);
        free(p->lane[i]);
    }
    free(p->lane);
    p->lane = NULL;
    p->n_lanes = 0;
}

void lane_take_rows(struct push *p, struct lane *l, const struct store_lane *rows)
{
    l->rows = *rows;
    if (rows->open > 0)
        p->earliest_deadline_us = min_us(p->earliest_deadline_us, rows->deadline_us);
}

static int load_lane(void *arg, const struct store_lane *rows)
{
    struct lane *l = lane_get(arg, rows->bsa);

    if (!l)
        return TEKD_ENOMEM;
    lane_take_rows(arg, l, rows);
    return 0;
}

static int load(void *arg, struct store_tx *tx)
{
    return store_tx_delivery_lanes(tx, arg, load_lane);
}

int lanes_load(struct push *p)
{
    return store_call(p->store, STORE_READ, load, p);
}

/* ---- waiting for room ------------------------------------------------------------------------ */

static void list_put(struct lane_list *list, struct lane *l)
{
    l->list = list;
    l->next = NULL;
    if (list->last)
        list->last->next = l;
    else
        list->first = l;
    list->last = l;
    list->n++;
}

static struct lane *list_take(struct lane_list *list)
{
    struct lane *l = list->first;

    list->first = l->next;
    if (!list->first)
        list->last = NULL;
    list->n--;
    l->list = NULL;
    return l;
}

static unsigned total_room(const struct push *p, const struct lane *l)
{
    unsigned room = PUSH_TOTAL_MAX - p->under_way;
    unsigned suspects =
        p->suspects_under_way < SUSPECTS_MAX ? SUSPECTS_MAX - p->suspects_under_way : 0;

    return l->failures > 0 && suspects < room ? suspects : room;
}

static void enter(struct push *p, struct lane *l, unsigned n)
{
    l->under_way += n;
    p->under_way += n;
    if (l->failures > 0)
        p->suspects_under_way += n;
}

void lane_leave(struct push *p, struct lane *l, unsigned n)
{
    l->under_way -= n;
    p->under_way -= n;
    if (l->failures > 0)
        p->suspects_under_way -= n;
}

void lane_outcome(struct push *p, struct lane *l, bool answered, const struct moment *now)
{
    bool was_suspect = l->failures > 0;

    if (answered)
        lane_answered(l);
    else
        lane_failed(l, now, backoff_us(&p->backoff, l->failures + 1, backoff_random()));
    if (was_suspect && answered)
        p->suspects_under_way -= l->under_way;
    if (!was_suspect && !answered)
        p->suspects_under_way += l->under_way;
}

/*
 * Whether the BSA can be sent to at all.  One that is disabled, or has no URL, is looked at again
 * later; the claim looks too, on the store thread, where it cannot be outrun.
 */
static bool has_a_way(struct push *p, struct lane *l, const struct moment *now)
{
    struct keys_peer peer = {.row = 0};
    bool has = keys_peer_by_row(p->keys, l->bsa, &peer) == 0 && peer.url[0];

    keys_peer_clear(&peer);
    if (!has)
        l->again_us = now->mono_us + PUSH_LOOK_US;
    return has;
}

/* A lane whose turn it is: things may have changed since it was put into the list. */
static void serve(struct push *p, struct lane *l, unsigned waiting, const struct moment *now)
{
    unsigned n = lane_room(l);
    unsigned total = lane_part(total_room(p, l), waiting);

    if (l->busy || l->look || !push_is_due(l, now) || !has_a_way(p, l, now)) {
        lane_work(p, l, now);
        return;
    }
    n = n < total ? n : total;
    enter(p, l, n);
    claim_for_push(p, l, n);
}

static void serve_list(struct push *p, struct lane_list *list, const struct moment *now)
{
    const struct lane *last = list->last;
    bool more = list->first != NULL;

    while (more) {
        struct lane *l = list->first;
        bool has_room = total_room(p, l) > 0;

        if (!has_room && (l->failures == 0 || list == &p->suspects))
            return;
        more = l != last;
        (void)list_take(list);
        if (has_room)
            serve(p, l, list->n, now);
        else
            list_put(&p->suspects, l); /* it failed while it waited */
    }
}

/* ---- work ------------------------------------------------------------------------------------ */

/* Whether the poll keeps the lane busy. */
static bool work_poll(struct push *p, struct lane *l, const struct moment *now)
{
    bool is_gone = atomic_load(&l->poll->gone);

    if (!is_gone && l->rows.open > 0 && rows_wait_us(l, now) <= 0 &&
        l->empty_until_us <= now->mono_us && p->store_again_us <= now->mono_us) {
        claim_for_poll(p, l);
        return true;
    }
    if (is_gone || l->poll->until_us <= now->mono_us) {
        collect_reply(p, l->poll, NULL);
        l->poll = NULL;
    }
    return false;
}

void lane_work(struct push *p, struct lane *l, const struct moment *now)
{
    int64_t wait;

    if (l->busy || p->cut_us != 0)
        return;
    if (l->look && p->store_again_us <= now->mono_us) {
        look_at(p, l);
        return;
    }
    if (l->poll && work_poll(p, l, now))
        return;
    if (!l->list && push_is_due(l, now))
        list_put(l->failures > 0 ? &p->suspects : &p->ready, l);
    wait = lane_wait_us(l, now);
    if (wait < p->sweep_us - now->mono_us)
        p->sweep_us = now->mono_us + wait;
}

static int64_t sweep(struct push *p, const struct moment *now)
{
    int64_t wait = SECOND_US; /* UTC may step */

    p->earliest_deadline_us = INT64_MAX;
    for (size_t i = 0; i < p->n_lanes; i++) {
        struct lane *l = p->lane[i];

        if (lane_wait_us(l, now) == 0)
            lane_work(p, l, now);
        wait = min_us(wait, lane_wait_us(l, now));
        if (l->rows.open > 0)
            p->earliest_deadline_us = min_us(p->earliest_deadline_us, l->rows.deadline_us);
    }
    return max_us(wait, SWEEP_MIN_US);
}

int64_t lanes_turn(struct push *p, const struct moment *now)
{
    if (p->sweep_us <= now->mono_us) {
        p->sweep_us = INT64_MAX;
        p->sweep_us = now->mono_us + sweep(p, now);
    }
    if (p->store_again_us <= now->mono_us) {
        if (p->look_all && p->cut_us == 0)
            look_at_all(p);
        serve_list(p, &p->ready, now);
        serve_list(p, &p->suspects, now);
    }
    return max_us(p->sweep_us - now->mono_us, 0);
}
