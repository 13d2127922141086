/*
 * What the log says of one delivery.  There is no index by Message ID: it would cost every record
 * of every delivery a page that is written at random, for a question that an operator asks now and
 * then.  All of a delivery's records stand behind its delivery.prepared.  Its row has that one's
 * place, or that of the delivery.carried which repeats it in a later epoch and refers back; so the
 * log is read from there to its end, over all epochs, a page at a time between the store's batches,
 * and a record is taken apart only when one of its values is the Message ID: the mid, or the detail
 * of what an operator did.  Its octets tell: a record is canonical, so that an ID of ours, a UUID,
 * is written in one way only, and no string in it has a quote without a backslash.  A reader that
 * goes away, and the end of tekd, end the reading.
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
    int64_t after;  /* place that was looked at last */
    uint64_t epoch; /* of the record that is looked at */
    size_t n;       /* of the page */
    bool whole;
};

/* Place, time and event come first, under names for people; then what else the record says. */
static json_t *entry_of(uint64_t epoch, json_t *record)
{
    json_t *e = json_pack("{s:I,s:O,s:O,s:O}", "epoch", (json_int_t)epoch, "seq",
                          json_object_get(record, "seq"), "time", json_object_get(record, "t"),
                          "event", json_object_get(record, "ev"));
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
    return json_array_append_new(h->list, record ? entry_of(h->epoch, record) : NULL) < 0
               ? TEKD_ENOMEM
               : 0;
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
        if (seq >= from && seq <= to &&
            (uint64_t)json_integer_value(json_object_get(e, "epoch")) == h->epoch)
            (void)json_object_set_new(e, "attested", json_false());
    }
}

static int look_at(void *arg, uint64_t place, const void *octets, size_t len)
{
    struct history *h = arg;

    h->after = (int64_t)place;
    h->epoch = store_place_unpack((int64_t)place).epoch;
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

/* ---- where it begins ------------------------------------------------------------------------- */

struct origin {
    struct store_place at; /* of a record; then of the one that it repeats, if it does */
    bool carried;
};

static int follow_back(void *arg, uint64_t place, const void *octets, size_t len)
{
    struct origin *o = arg;
    AUTO_JSON json_t *record = json_loadb(octets, len, 0, NULL);
    const char *ev = json_string_value(json_object_get(record, "ev"));
    const char *ref = json_string_value(json_object_get(record, "ref"));
    unsigned long long epoch = 0, seq = 0;

    (void)place;
    o->carried = ev && ref && strcmp(ev, "delivery.carried") == 0 &&
                 sscanf(ref, "%llu/%llu", &epoch, &seq) == 2 && epoch >= 1 && epoch < o->at.epoch &&
                 seq <= STORE_SEQ_MAX;
    if (o->carried)
        o->at = (struct store_place){.epoch = epoch, .seq = seq};
    return 0;
}

static int read_origin(void *arg, struct store_tx *tx)
{
    struct origin *o = arg;
    const struct store_walk w = {
        .after = store_place_pack(o->at.epoch, o->at.seq) - 1, .limit = 1, .arg = o};

    o->carried = false;
    return store_tx_leaf_walk(tx, &w, follow_back);
}

/* Each step leads into an earlier epoch. */
static int find_origin(struct admin_call *call, struct origin *o)
{
    int r;

    do
        r = store_call(call->admin->o.store, STORE_READ, read_origin, o);
    while (r == 0 && o->carried);
    return r;
}

int admin_history(struct admin_call *call, const struct store_delivery *d, json_t *list,
                  bool *ret_whole)
{
    struct origin o = {.at = {.epoch = d->epoch, .seq = d->seq}};
    struct history h = {.list = list, .whole = true};
    int r = find_origin(call, &o);

    if (r < 0)
        return r;
    h.after = store_place_pack(o.at.epoch, o.at.seq) - 1;
    h.value_len = (size_t)snprintf(h.value, sizeof(h.value), ":\"%s\"", d->mid);
    do {
        r = is_waited_for(call);
        if (r == 0)
            r = store_call(call->admin->o.store, STORE_READ, read_page, &h);
    } while (r == 0 && h.n == PAGE_LEAVES && h.whole);
    *ret_whole = h.whole;
    return r;
}
