/*
 * audit ledger: every Message ID with the answer, or the delivery and its confirmation, that the
 * log has for it.  The records come as a stream, twice.  First those that say which other records
 * were under no checkpoint when tekd died: a confirmation among them does not count.  Then all, and
 * an answer is printed where it stands, a delivery where it was confirmed, and what was not
 * confirmed at the end.  So memory is held only for deliveries that have not been confirmed,
 * however long the log is.
 */
#include "tekctl.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"

struct span {
    uint64_t from, to; /* both included */
};

struct ledger {
    const struct session *session;
    const json_t *bsa, *content; /* what was asked for; NULL: all */
    struct span *recovered;
    size_t n_recovered;
    struct deliveries deliveries;
    size_t n; /* printed */
};

static const char *text(const struct record *r, const char *key)
{
    const char *s = record_get_str(r, key);

    return s ? s : "";
}

static uint64_t number(const struct record *r, const char *key)
{
    uint64_t n = 0;

    (void)record_get_int(r, key, &n);
    return n;
}

static bool is_or_any(const json_t *wanted, const char *found)
{
    return !wanted || strcmp(json_string_value(wanted), found) == 0;
}

static bool is_wanted(const struct ledger *l, const struct record *r)
{
    return is_or_any(l->bsa, text(r, "peer")) && is_or_any(l->content, text(r, "content"));
}

static bool is_attested(const struct ledger *l, uint64_t seq)
{
    for (size_t i = 0; i < l->n_recovered; i++) {
        if (seq >= l->recovered[i].from && seq <= l->recovered[i].to)
            return false;
    }
    return true;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static json_t *entry(const struct record *r, const char *state, bool attested)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:b}", "message_id", text(r, "mid"), "bsa",
                     text(r, "peer"), "direction", text(r, "dir"), "content_id", text(r, "content"),
                     "key_id", text(r, "keyid"), "kek_id", text(r, "kekid"), "time", text(r, "t"),
                     "state", state, "attested", attested);
}

static int print_json(struct ledger *l, json_t *take_entry)
{
    AUTO_JSON json_t *e = take_entry;

    if (!e)
        return TEKCTL_FAILED;
    (void)fputs(l->n == 0 ? "[\n  " : ",\n  ", stdout);
    (void)json_dumpf(e, stdout, JSON_COMPACT);
    return TEKCTL_DONE;
}

/* What is not attested has a mark behind its state. */
static void print_row(const struct record *r, const char *state, bool attested)
{
    char marked[24];

    (void)snprintf(marked, sizeof(marked), "%s%s", state, attested ? "" : "?");
    (void)printf("%-28s %-24s %-36s %-12s %-37s %s\n", text(r, "t"), text(r, "peer"),
                 text(r, "mid"), marked, text(r, "keyid"), text(r, "content"));
}

static int print_answer(struct ledger *l, const struct record *r)
{
    bool attested = is_attested(l, number(r, "seq"));
    int result = TEKCTL_DONE;

    if (l->session->json)
        result = print_json(l, entry(r, "answered", attested));
    else
        print_row(r, "answered", attested);
    l->n++;
    return result;
}

static int print_one(struct ledger *l, const struct delivery *d)
{
    bool attested = is_attested(l, d->seq) && !d->doubtful;
    int result = TEKCTL_DONE;
    json_t *e;

    if (l->session->json) {
        e = entry(d->record, d->state, attested);
        (void)json_object_set_new(e, "attempts", json_integer(d->attempts));
        (void)json_object_set_new(
            e, "confirmed",
            d->confirmed == DELIVERY_NONE ? json_null() : json_integer((json_int_t)d->confirmed));
        result = print_json(l, e);
    } else {
        print_row(d->record, d->state, attested);
    }
    l->n++;
    return result;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static int add_recovered(struct ledger *l, struct record *take_r)
{
    AUTO(record) struct record *r = take_r;
    struct span *more = reallocarray(l->recovered, l->n_recovered + 1, sizeof(*more));

    if (!more)
        return TEKCTL_FAILED;
    l->recovered = more;
    l->recovered[l->n_recovered++] =
        (struct span){.from = number(r, "from"), .to = number(r, "to")};
    return TEKCTL_DONE;
}

static int take_delivery(struct ledger *l, struct record *take_r)
{
    AUTO(record) struct record *r = take_r;
    struct delivery *d = NULL;
    int result = deliveries_take(&l->deliveries, r, &d);

    if (result != TEKCTL_DONE || !d)
        return result;
    if (d->seq == number(r, "seq")) {
        d->record = TAKE(r);
        if (!is_wanted(l, d->record))
            deliveries_forget(&l->deliveries, d);
    } else if (d->confirmed != DELIVERY_NONE && is_attested(l, d->confirmed)) {
        result = print_one(l, d);
        deliveries_forget(&l->deliveries, d);
    }
    return result;
}

static int take_record(struct ledger *l, struct record *take_r)
{
    int r = TEKCTL_DONE;

    if (strcmp(record_event(take_r), "request.answered") != 0)
        return take_delivery(l, take_r);
    if (is_wanted(l, take_r))
        r = print_answer(l, take_r);
    record_free(take_r);
    return r;
}

typedef int take_fn(struct ledger *l, struct record *take_r);

static bool is_of_interest(const char *line, size_t len)
{
    static const char answered[] = "\"ev\":\"request.answered\"";

    return memmem(line, len, answered, sizeof(answered) - 1) || deliveries_concern(line, len);
}

static int take_line(struct ledger *l, take_fn *take, const char *line, size_t len)
{
    struct record *r = NULL;
    const char *what;

    if (!is_of_interest(line, len))
        return TEKCTL_DONE;
    if (len < 2 || record_parse(line + 2, len - 2, &r, &what) < 0) {
        complain("a record of the stream does not parse");
        return TEKCTL_FAILED;
    }
    return take(l, r);
}

static int take_stream(struct ledger *l, take_fn *take)
{
    size_t len = 0;

    for (;;) {
        AUTO_MEM char *line = stream_line(l->session->answer, &len);
        int r;

        if (!line) {
            complain("the stream was cut");
            return TEKCTL_UNREACHABLE;
        }
        if (strcmp(line, "E") == 0)
            return TEKCTL_DONE;
        r = take_line(l, take, line, len);
        if (r != TEKCTL_DONE)
            return r;
    }
}

/* The second time the records are to be those of the same epoch, if another one has begun. */
static int take_epoch(struct ledger *l, struct session *s, const json_t *header)
{
    json_t *epoch = json_object_get(header, "epoch");

    l->deliveries.epoch = (uint64_t)json_integer_value(epoch);
    return json_object_set(s->request, "epoch", epoch) < 0 ? TEKCTL_FAILED : TEKCTL_DONE;
}

/* The records of this event, or (NULL) all. */
static int read_records(struct ledger *l, struct session *s, const char *event, take_fn *take)
{
    AUTO_JSON json_t *header = NULL;
    int r;

    if (event)
        (void)json_object_set_new(s->request, "event", json_string(event));
    else
        (void)json_object_del(s->request, "event");
    r = session_call(s, &header);
    if (r == TEKCTL_DONE)
        r = take_epoch(l, s, header);
    if (r == TEKCTL_DONE)
        r = take_stream(l, take);
    session_end(s);
    return r;
}

static int read_log(struct ledger *l, struct session *s)
{
    int r = read_records(l, s, "log.recovered", add_recovered);

    if (r != TEKCTL_DONE)
        return r;
    if (!s->json)
        (void)printf("%-28s %-24s %-36s %-12s %-37s %s\n", "TIME", "BSA", "MESSAGE-ID", "STATE",
                     "KEY-ID", "CONTENT-ID");
    r = read_records(l, s, NULL, take_record);
    for (size_t i = 0; i < l->deliveries.n && r == TEKCTL_DONE; i++) {
        if (!l->deliveries.list[i].forgotten)
            r = print_one(l, &l->deliveries.list[i]);
    }
    return r;
}

static json_t *take_argument(struct session *s, const char *key)
{
    json_t *value = json_incref(json_object_get(s->request, key));

    (void)json_object_del(s->request, key);
    return value;
}

int ledger_run(struct session *s)
{
    AUTO_JSON json_t *bsa = take_argument(s, "bsa"), *content = take_argument(s, "content");
    struct ledger l = {.session = s, .bsa = bsa, .content = content};
    int r;

    (void)json_object_set_new(s->request, "command", json_string("audit records"));
    r = read_log(&l, s);
    deliveries_clear(&l.deliveries);
    free(l.recovered);
    if (r != TEKCTL_DONE)
        return r;
    if (s->json)
        (void)puts(l.n == 0 ? "[]" : "\n]");
    return fflush(stdout) == 0 ? TEKCTL_DONE : TEKCTL_FAILED;
}
