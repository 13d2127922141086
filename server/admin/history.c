/*
 * What the log says of one delivery.  There is no index by Message ID: it would cost every record
 * of every delivery a page that is written at random, for a question that an operator asks now and
 * then.  All of a delivery's records stand behind its delivery.prepared, whose number its row has;
 * so the log is read from there to its end, a page at a time between the store's batches, and a
 * record is taken apart only when one of its values is the Message ID: the mid, or the detail of
 * what an operator did.  Its octets tell: a record is canonical, so that an ID of ours, a UUID, is
 * written in one way only, and no string in it has a quote without a backslash.  A reader that goes
 * away, and the end of tekd, end the reading.
 */
#include "internal.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "tekd/err.h"

#define PAGE_LEAVES  1024 /* a quarter of a millisecond of the store's thread */
#define HISTORY_MAX  2000 /* records: the attempts of a day and more at the longest back-off */
#define RECOVERED    "\"ev\":\"log.recovered\""
#define VALUE_OCTETS (STORE_MID_LEN + 4) /* colon, quotes, NUL */

struct history {
    json_t *list;
    char value[VALUE_OCTETS];
    size_t value_len;
    int64_t after; /* seq that was looked at last */
    size_t n;      /* of the page */
    bool whole;
};

/* seq, time and event come first, under names for people; then what else the record says. */
static json_t *entry_of(json_t *record)
{
    json_t *e = json_pack("{s:O,s:O,s:O}", "seq", json_object_get(record, "seq"), "time",
                          json_object_get(record, "t"), "event", json_object_get(record, "ev"));
    static const char *const told[] = {"v", "seq", "t", "ev"};

    for (size_t i = 0; i < ARRAY_SIZE(told); i++)
        (void)json_object_del(record, told[i]);
    if (e && json_object_update(e, record) == 0)
        return e;
    json_decref(e);
    return NULL;
}

static int add_entry(struct history *h, const void *octets, size_t len)
{
    AUTO_JSON json_t *record = json_loadb(octets, len, 0, NULL);

    if (json_array_size(h->list) == HISTORY_MAX) {
        h->whole = false;
        return 1; /* ends the walk */
    }
    return json_array_append_new(h->list, record ? entry_of(record) : NULL) < 0 ? TEKD_ENOMEM : 0;
}

/* What was recovered after a crash was under no checkpoint, and a confirmation in it does not
 * count. */
static void mark_recovered(struct history *h, const void *octets, size_t len)
{
    AUTO_JSON json_t *record = json_loadb(octets, len, 0, NULL);
    json_int_t from = json_integer_value(json_object_get(record, "from"));
    json_int_t to = json_integer_value(json_object_get(record, "to"));
    size_t i;
    json_t *e;

    json_array_foreach (h->list, i, e) {
        json_int_t seq = json_integer_value(json_object_get(e, "seq"));
        if (seq >= from && seq <= to)
            (void)json_object_set_new(e, "attested", json_false());
    }
}

static int look_at(void *arg, uint64_t seq, const void *octets, size_t len)
{
    struct history *h = arg;

    h->after = (int64_t)seq;
    h->n++;
    if (memmem(octets, len, h->value, h->value_len))
        return add_entry(h, octets, len);
    if (memmem(octets, len, RECOVERED, sizeof(RECOVERED) - 1))
        mark_recovered(h, octets, len);
    return 0;
}

static int read_page(void *arg, struct store_tx *tx)
{
    struct history *h = arg;
    const struct store_walk w = {.after = h->after, .limit = PAGE_LEAVES, .arg = h};
    int r;

    h->n = 0;
    r = store_tx_leaf_walk(tx, &w, look_at);
    return r > 0 ? 0 : r;
}

/* Whether somebody still waits for the answer.  Errors: TEKD_ECLOSED. */
static int is_waited_for(const struct admin_call *call)
{
    struct pollfd p = {.fd = call->fd}; /* POLLHUP is always told */
    int r = admin_still_runs(call);

    if (r < 0)
        return r;
    return poll(&p, 1, 0) > 0 ? TEKD_ECLOSED : 0;
}

int admin_history(struct admin_call *call, const struct store_delivery *d, json_t *list,
                  bool *ret_whole)
{
    struct history h = {.list = list, .after = (int64_t)d->seq - 1, .whole = true};
    int r;

    h.value_len = (size_t)snprintf(h.value, sizeof(h.value), ":\"%s\"", d->mid);
    do {
        r = is_waited_for(call);
        if (r == 0)
            r = store_call(call->admin->o.store, STORE_READ, read_page, &h);
    } while (r == 0 && h.n == PAGE_LEAVES && h.whole);
    *ret_whole = h.whole;
    return r;
}
