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
#include "tekd/ledger.h"

struct span {
    uint64_t from, to; /* both included */
};

struct ledger {
    const struct session *session;
    struct ledger_wanted wanted;
    enum row_form form;
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

static bool is_wanted(const struct ledger *l, const struct record *r, bool pending)
{
    const struct ledger_line line = {.bsa = text(r, "peer"),
                                     .content = text(r, "content"),
                                     .time = text(r, "t"),
                                     .pending = pending};

    return ledger_wants(&l->wanted, &line);
}

static bool is_attested(const struct ledger *l, uint64_t seq)
{
    for (size_t i = 0; i < l->n_recovered; i++) {
        if (seq >= l->recovered[i].from && seq <= l->recovered[i].to)
            return false;
    }
    return true;
}

/* ---- printing -------------------------------------------------------------------------------- */

static void print(struct ledger *l, struct row *row, const struct record *r)
{
    row->message_id = text(r, "mid");
    row->bsa = text(r, "peer");
    row->direction = text(r, "dir");
    row->content_id = text(r, "content");
    row->key_id = text(r, "keyid");
    row->kek_id = text(r, "kekid");
    row->time = text(r, "t");
    row_print(row, l->form, l->n == 0);
    l->n++;
}

static void print_answer(struct ledger *l, const struct record *r)
{
    struct row row = {.state = "answered",
                      .attested = is_attested(l, number(r, "seq")),
                      .confirmed = DELIVERY_NONE,
                      .done = ""};

    if (is_wanted(l, r, false))
        print(l, &row, r);
}

/* done: when it was confirmed; empty: it is not. */
static void print_one(struct ledger *l, const struct delivery *d, const char *done)
{
    struct row row = {.state = d->state,
                      .attested = is_attested(l, d->seq) && !d->doubtful,
                      .is_delivery = true,
                      .attempts = d->attempts,
                      .confirmed = d->confirmed,
                      .done = done};

    if (is_wanted(l, d->record, d->open))
        print(l, &row, d->record);
}

/* ---- reading --------------------------------------------------------------------------------- */

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
        if (!is_wanted(l, d->record, true)) /* it may be pending */
            deliveries_forget(&l->deliveries, d);
    } else if (d->confirmed != DELIVERY_NONE && is_attested(l, d->confirmed)) {
        print_one(l, d, text(r, "t"));
        deliveries_forget(&l->deliveries, d);
    }
    return result;
}

static int take_record(struct ledger *l, struct record *take_r)
{
    if (strcmp(record_event(take_r), "request.answered") != 0)
        return take_delivery(l, take_r);
    print_answer(l, take_r);
    record_free(take_r);
    return TEKCTL_DONE;
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

    if (!json_is_integer(epoch)) {
        complain("tekd's answer names no epoch");
        return TEKCTL_FAILED;
    }
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
    row_heading(l->form);
    r = read_records(l, s, NULL, take_record);
    for (size_t i = 0; i < l->deliveries.n && r == TEKCTL_DONE; i++) {
        if (!l->deliveries.list[i].forgotten)
            print_one(l, &l->deliveries.list[i], "");
    }
    return r;
}

static json_t *take_argument(struct session *s, const char *key)
{
    json_t *value = json_incref(json_object_get(s->request, key));

    (void)json_object_del(s->request, key);
    return value;
}

/* What the options ask for; they are ours, and not the server's. */
struct asked {
    json_t *bsa, *content, *from, *until, *pending, *csv;
};

static void asked_take(struct session *s, struct asked *a)
{
    *a = (struct asked){.bsa = take_argument(s, "bsa"),
                        .content = take_argument(s, "content"),
                        .from = take_argument(s, "from"),
                        .until = take_argument(s, "until"),
                        .pending = take_argument(s, "pending"),
                        .csv = take_argument(s, "csv")};
}

static void asked_clear(struct asked *a)
{
    json_t *const all[] = {a->bsa, a->content, a->from, a->until, a->pending, a->csv};

    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        json_decref(all[i]);
}

static bool time_ok(const char *option, const char *time)
{
    if (!time || ledger_time_ok(time))
        return true;
    complain("--%s: expected a time in UTC as 2026-11-22, 2026-11-22T13:15 or "
             "2026-11-22T13:15:42Z, found \"%s\"",
             option, time);
    return false;
}

static int list(struct ledger *l, struct session *s)
{
    int r;

    if (!time_ok("from", l->wanted.from) || !time_ok("until", l->wanted.until))
        return TEKCTL_USAGE;
    (void)json_object_set_new(s->request, "command", json_string("audit records"));
    r = read_log(l, s);
    if (r != TEKCTL_DONE)
        return r;
    row_end(l->form, l->n > 0);
    return text_flush(TEKCTL_DONE);
}

int ledger_run(struct session *s)
{
    struct ledger l = {.session = s};
    struct asked a;
    int r;

    asked_take(s, &a);
    l.wanted = (struct ledger_wanted){.bsa = json_string_value(a.bsa),
                                      .content = json_string_value(a.content),
                                      .from = json_string_value(a.from),
                                      .until = json_string_value(a.until),
                                      .pending = a.pending != NULL};
    l.form = s->json ? ROW_JSON : a.csv ? ROW_CSV : ROW_TABLE;
    r = list(&l, s);
    deliveries_clear(&l.deliveries);
    free(l.recovered);
    asked_clear(&a);
    return r;
}
