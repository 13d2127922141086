/*
 * What became of Key Deliveries, as the records of the log tell it in their order:
 *
 *     delivery.prepared, .carried   a new one, open
 *     delivery.attempt              open, also one that was past its deadline
 *     delivery.rejected             says nothing of one that was given up
 *     delivery.unknown              open: tekd died while it was under way
 *     delivery.unconfirmed, .abandoned   not open; a confirmation still counts
 *     delivery.confirmed            the end
 *     log.recovered                 a confirmation among these records was none
 */
#include "tekctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum change { CHANGE_NEW, CHANGE_ATTEMPT, CHANGE_REJECTED, CHANGE_STATE, CHANGE_CONFIRMED };

static const struct change_rule {
    const char *event;
    const char *state;
    enum change change;
    bool open;
} rules[] = {
    {"delivery.prepared", "prepared", CHANGE_NEW, true},
    {"delivery.carried", "prepared", CHANGE_NEW, true},
    {"delivery.attempt", "in-flight", CHANGE_ATTEMPT, true},
    {"delivery.rejected", "rejected", CHANGE_REJECTED, true},
    {"delivery.unknown", "unknown", CHANGE_STATE, true},
    {"delivery.unconfirmed", "unconfirmed", CHANGE_STATE, false},
    {"delivery.abandoned", "abandoned", CHANGE_STATE, false},
    {"delivery.confirmed", "confirmed", CHANGE_CONFIRMED, false},
};

bool deliveries_concern(const char *line, size_t len)
{
    static const char delivery[] = "\"ev\":\"delivery.", recovered[] = "\"ev\":\"log.recovered\"";

    return memmem(line, len, delivery, sizeof(delivery) - 1) ||
           memmem(line, len, recovered, sizeof(recovered) - 1);
}

static uint64_t number(const struct record *r, const char *key)
{
    uint64_t n = DELIVERY_NONE;

    return record_get_int(r, key, &n) ? n : DELIVERY_NONE;
}

static struct delivery *add(struct deliveries *d, const struct record *r)
{
    size_t room = d->room + d->room / 2 + 256;
    struct delivery *more;

    if (d->n == d->room) {
        more = reallocarray(d->list, room, sizeof(*more));
        if (!more)
            return NULL;
        d->list = more;
        d->room = room;
    }
    d->list[d->n] = (struct delivery){.seq = number(r, "seq"), .confirmed = DELIVERY_NONE};
    return &d->list[d->n++];
}

static int by_seq(const void *key, const void *element)
{
    uint64_t seq = *(const uint64_t *)key, other = ((const struct delivery *)element)->seq;

    return (seq > other) - (seq < other);
}

/* The one whose preparation a record refers to: epoch/seq. */
static struct delivery *referred(const struct deliveries *d, const struct record *r)
{
    const char *ref = record_get_str(r, "ref");
    const char *slash = ref ? strchr(ref, '/') : NULL;
    uint64_t seq = slash ? strtoull(slash + 1, NULL, 10) : DELIVERY_NONE;
    struct delivery *x = NULL;

    /* One that had ended in an epoch before is of that one. */
    if (d->n > 0 && slash && strtoull(ref, NULL, 10) == d->epoch)
        x = bsearch(&seq, d->list, d->n, sizeof(*d->list), by_seq);
    return x && !x->forgotten ? x : NULL;
}

static void follow(struct delivery *x, const struct change_rule *rule, const struct record *r)
{
    bool was_given_up = !x->open;

    x->attempts += rule->change == CHANGE_ATTEMPT;
    if (rule->change == CHANGE_CONFIRMED) {
        x->confirmed = number(r, "seq");
        x->doubtful = false;
    }
    if (rule->change == CHANGE_REJECTED && was_given_up)
        return;
    x->state = rule->state;
    x->open = rule->open;
}

static void recovered(const struct deliveries *d, const struct record *r)
{
    uint64_t from = number(r, "from"), to = number(r, "to");

    for (size_t i = 0; i < d->n; i++) {
        struct delivery *x = &d->list[i];
        if (x->confirmed == DELIVERY_NONE || x->confirmed < from || x->confirmed > to)
            continue;
        x->state = "unknown";
        x->open = true;
        x->confirmed = DELIVERY_NONE;
        x->doubtful = true;
    }
}

int deliveries_take(struct deliveries *d, const struct record *r, struct delivery **ret_delivery)
{
    const char *event = record_event(r);
    const struct change_rule *rule = NULL;
    struct delivery *x = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (strcmp(rules[i].event, event) == 0)
            rule = &rules[i];
    }
    if (rule && rule->change == CHANGE_NEW) {
        x = add(d, r);
        if (!x) {
            complain("%s", strerror(ENOMEM));
            return TEKCTL_FAILED;
        }
    } else if (rule) {
        x = referred(d, r);
    } else if (strcmp(event, "log.recovered") == 0) {
        recovered(d, r);
    }
    if (x)
        follow(x, rule, r);
    *ret_delivery = x;
    return TEKCTL_DONE;
}

void deliveries_forget(struct deliveries *d, struct delivery *take_delivery)
{
    size_t n = 0;

    record_free(take_delivery->record);
    take_delivery->record = NULL;
    take_delivery->forgotten = true;
    if (++d->n_forgotten <= d->n / 2)
        return;
    for (size_t i = 0; i < d->n; i++) {
        if (!d->list[i].forgotten)
            d->list[n++] = d->list[i];
    }
    d->n = n;
    d->n_forgotten = 0;
}

void deliveries_clear(struct deliveries *d)
{
    for (size_t i = 0; i < d->n; i++)
        record_free(d->list[i].record);
    free(d->list);
    *d = (struct deliveries){.list = NULL};
}
