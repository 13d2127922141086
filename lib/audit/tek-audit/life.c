/*
 * The life of the instances that write the log, from their records alone.
 *
 *     state      log.started   log.stopped   log.recovered          any other record
 *     NEW        RUNNING       refused       CRASHED (see below)    refused, but log.signkey
 *     RUNNING    refused       STOPPED       CRASHED                taken
 *     STOPPED    RUNNING       refused       CRASHED                refused
 *     CRASHED    RUNNING       refused       CRASHED                refused, but log.signkey
 *
 * log.recovered by an instance that does not run ends the one that does, if it is the only one:
 * the server was given another name after the crash.  log.opened is record 0 and no other; one
 * that carries a heartbeat makes its writer RUNNING.  Nothing follows log.closed.
 *
 * Time: between two records of an instance that runs, t does not fall back by more than
 * CLOCK_SLACK_US and does not rise by more than two heartbeats.  A jump is explained by clock.step,
 * a rise also by hsm.lost, hsm.back or audit.gap (the store could not write): as the record it
 * leads to, or soon after it, with a t within two heartbeats of it, before the next
 * heartbeat.  Until then it waits, and others with it; JUMPS_MAX that wait are not explained any
 * more when there is another.  A rise while the HSM is lost is explained.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/err.h"

#define SECOND_US INT64_C(1000000)

const char *const release_name[RELEASE_COUNT] = {
    [RELEASE_UNKNOWN] = "unknown",
    [RELEASE_SIGNED] = "signed",
    [RELEASE_DURABLE] = "durable",
};

static struct instance *instance_of(struct audit *a, const char *name)
{
    uint32_t id;
    bool is_new;
    int r = pool_add(a->instances, name, strlen(name), &id, &is_new);

    if (r < 0) {
        a->error = r;
        return NULL;
    }
    if (id >= INSTANCES_MAX) {
        audit_fail(a, "life", "expected at most %d instances, found %s besides", INSTANCES_MAX,
                   name);
        return NULL;
    }
    return &a->instance[id];
}

static void outage(struct audit *a, const struct instance *i, const char *why)
{
    spans_add(a, &a->outages,
              (struct span){.from = i->last_seq,
                            .to = a->seq,
                            .why = why,
                            .seconds = (a->t_us - i->last_us) / SECOND_US});
}

/* What this event says about a jump by so many seconds; NULL when nothing. */
static const char *explanation(enum event_id ev, int64_t seconds)
{
    if (ev == EVENT_CLOCK_STEP)
        return "clock step";
    if (seconds < 0)
        return NULL;
    if (ev == EVENT_HSM_LOST || ev == EVENT_HSM_BACK)
        return "HSM";
    return ev == EVENT_AUDIT_GAP ? "store" : NULL;
}

static void jump_unexplained(struct audit *a, const struct instance *i, const struct jump *j)
{
    const uint64_t seq = a->seq;

    a->seq = j->seq;
    if (j->seconds < 0)
        audit_fail(a, "time",
                   "expected t not before that of the instance's record before it, or clock.step; "
                   "found it %" PRId64 " s back",
                   -j->seconds);
    else
        audit_fail(a, "heartbeat",
                   "expected a record at least every %" PRId64
                   " s, or what explains the gap; found "
                   "%" PRId64 " s without one",
                   2 * i->heartbeat_us / SECOND_US, j->seconds);
    a->seq = seq;
}

static void refuse_jumps(struct audit *a, struct instance *i)
{
    for (size_t n = 0; n < i->n_jumps; n++)
        jump_unexplained(a, i, &i->jump[n]);
    i->n_jumps = 0;
}

/* Why the earlier jump is none any more; NULL: this event does not say, or too late. */
static const char *explains(const struct audit *a, const struct instance *i, enum event_id ev,
                            const struct jump *j)
{
    int64_t later = a->t_us - j->t_us;

    return llabs(later) <= 2 * i->heartbeat_us ? explanation(ev, j->seconds) : NULL;
}

/* Earlier jumps: explained now, or too late for it. */
static void settle_jumps(struct audit *a, struct instance *i, enum event_id ev)
{
    size_t left = 0;

    if (ev == EVENT_LOG_HEARTBEAT || ev == EVENT_LOG_STOPPED || ev == EVENT_LOG_STARTED ||
        ev == EVENT_LOG_RECOVERED)
        refuse_jumps(a, i);
    for (size_t n = 0; n < i->n_jumps; n++) {
        const struct jump *j = &i->jump[n];
        const char *why = explains(a, i, ev, j);

        if (why)
            spans_add(a, &a->outages,
                      (struct span){.from = j->seq > 0 ? j->seq - 1 : 0,
                                    .to = j->seq,
                                    .why = why,
                                    .seconds = j->seconds});
        else
            i->jump[left++] = *j;
    }
    i->n_jumps = left;
}

static void look_for_jump(struct audit *a, struct instance *i, enum event_id ev)
{
    int64_t passed = a->t_us - i->last_us;
    const char *why = explanation(ev, passed / SECOND_US);

    if (!i->seen || i->state != INSTANCE_RUNNING)
        return;
    if (passed >= -CLOCK_SLACK_US && passed <= 2 * i->heartbeat_us)
        return;
    if (ev == EVENT_LOG_STARTED || ev == EVENT_LOG_RECOVERED)
        return; /* these list what they end themselves */
    if (why || (passed > 0 && i->hsm_lost)) {
        outage(a, i, why ? why : "HSM");
        return;
    }
    if (i->n_jumps == JUMPS_MAX)
        refuse_jumps(a, i);
    i->jump[i->n_jumps++] =
        (struct jump){.seq = a->seq, .t_us = a->t_us, .seconds = passed / SECOND_US};
}

/* What the instance promises from this record on.  Logs of before it was said do not say it. */
static void take_release(struct audit *a, const struct record *r, struct instance *i)
{
    const char *said = record_get_str(r, "release");

    i->release = RELEASE_UNKNOWN;
    for (enum release k = RELEASE_SIGNED; said && k < RELEASE_COUNT; k++)
        if (strcmp(said, release_name[k]) == 0)
            i->release = k;
    if (said && i->release == RELEASE_UNKNOWN)
        audit_fail(a, "field", "expected release signed or durable, found %s", said);
    a->counts.starts[i->release]++;
}

/* What an instance says when it begins to write into an epoch. */
static void take_promises(struct audit *a, const struct record *r, struct instance *i)
{
    uint64_t heartbeat = 0, window = 0;

    (void)record_get_int(r, "heartbeat", &heartbeat);
    /* A day bounds what an attacker could hide behind a long interval. */
    if (heartbeat == 0 || heartbeat > 86400)
        audit_fail(a, "heartbeat", "expected an interval of 1 to 86400 s, found %" PRIu64,
                   heartbeat);
    else
        i->heartbeat_us = (int64_t)heartbeat * SECOND_US;
    if (!record_get_int(r, "window", &window) || window >= INT64_MAX / SECOND_US)
        window = WINDOW_DEFAULT;
    a->window_us = (int64_t)window * SECOND_US;
    take_release(a, r, i);
    i->state = INSTANCE_RUNNING;
    a->any_started = true;
}

static void on_opened(struct audit *a, const struct record *r, struct instance *i)
{
    if (a->seq != 0)
        audit_fail(a, "life", "expected log.opened as record 0 only, found it here");
    else if (a->epoch > 1 && record_has(r, "heartbeat"))
        take_promises(a, r, i);
}

static void on_started(struct audit *a, const struct record *r, struct instance *i)
{
    if (i->state == INSTANCE_RUNNING)
        audit_fail(a, "life",
                   "expected log.stopped or log.recovered before another log.started of %s, found "
                   "neither since record %" PRIu64,
                   record_get_str(r, "inst"), i->last_seq);
    else if (i->state == INSTANCE_STOPPED)
        outage(a, i, "stopped");
    take_promises(a, r, i);
    i->hsm_lost = false;
}

static void on_stopped(struct audit *a, struct instance *i)
{
    if (i->state != INSTANCE_RUNNING)
        audit_fail(a, "life", "expected log.started before log.stopped, found none");
    i->state = INSTANCE_STOPPED;
}

/* The only instance that runs, if there is exactly one. */
static struct instance *only_running(struct audit *a)
{
    struct instance *only = NULL;

    for (uint32_t n = 0; n < pool_count(a->instances) && n < INSTANCES_MAX; n++) {
        if (a->instance[n].state != INSTANCE_RUNNING)
            continue;
        if (only)
            return NULL;
        only = &a->instance[n];
    }
    return only;
}

/* The list stays sorted and without overlap: a range takes in those that it reaches back over. */
static void list_recovered(struct audit *a, uint64_t from, uint64_t to)
{
    struct spans *s = &a->recovered;

    for (; s->n > 0 && s->span[s->n - 1].to >= from; s->n--) {
        const struct span *last = &s->span[s->n - 1];

        a->counts.unattested -= last->to - last->from + 1;
        if (last->from < from)
            from = last->from;
    }
    a->counts.unattested += to - from + 1;
    spans_add(a, s, (struct span){.from = from, .to = to, .why = "recovered"});
}

static void check_recovered_range(struct audit *a, const struct record *r)
{
    uint64_t from = 0, to = 0;

    (void)record_get_int(r, "from", &from);
    (void)record_get_int(r, "to", &to);
    if (to + 1 != a->seq || from > to + 1) {
        audit_fail(a, "recovered",
                   "expected a range that ends with the record before this one, found %" PRIu64
                   " to %" PRIu64,
                   from, to);
        return;
    }
    /* One that is under a checkpoint stays attested, whatever an operator would like. */
    if (from != a->covered && !a->root_differs)
        audit_fail(a, "recovered",
                   "expected the records that were under no checkpoint, from %" PRIu64
                   ", found them listed from %" PRIu64,
                   a->covered, from);
    if (from <= to)
        list_recovered(a, from, to);
}

static void on_recovered(struct audit *a, const struct record *r, struct instance *i)
{
    struct instance *running = i->state == INSTANCE_RUNNING ? i : only_running(a);

    check_recovered_range(a, r);
    if (running) {
        outage(a, running, "crash");
        running->state = INSTANCE_CRASHED;
    } else if (i->state == INSTANCE_STOPPED) {
        outage(a, i, "stopped");
    } else if (a->any_started && i->state == INSTANCE_NEW) {
        audit_fail(a, "life", "expected an instance that crashed, found none that was running");
    }
    i->state = INSTANCE_CRASHED;
}

static void on_other(struct audit *a, const struct record *r, struct instance *i, enum event_id ev)
{
    static const char *const why[] = {
        [INSTANCE_NEW] = "it has not started",
        [INSTANCE_RUNNING] = "",
        [INSTANCE_STOPPED] = "log.stopped came before it",
        [INSTANCE_CRASHED] = "log.recovered came before it",
    };

    if (ev == EVENT_HSM_LOST)
        i->hsm_lost = true;
    else if (ev == EVENT_HSM_BACK)
        i->hsm_lost = false;
    if (i->state == INSTANCE_RUNNING || (ev == EVENT_LOG_SIGNKEY && i->state != INSTANCE_STOPPED))
        return;
    audit_fail(a, "life", "expected log.started before a record of %s, found %s: %s",
               record_get_str(r, "inst"), record_event(r), why[i->state]);
}

static void apply_event(struct audit *a, const struct record *r, struct instance *i,
                        enum event_id ev)
{
    switch (ev) {
    case EVENT_LOG_OPENED:
        on_opened(a, r, i);
        return;
    case EVENT_LOG_STARTED:
        on_started(a, r, i);
        return;
    case EVENT_LOG_STOPPED:
        on_stopped(a, i);
        return;
    case EVENT_LOG_RECOVERED:
        on_recovered(a, r, i);
        return;
    default:
        on_other(a, r, i, ev);
    }
}

void life_apply(struct audit *a, const struct record *r, enum event_id ev)
{
    struct instance *i = instance_of(a, record_get_str(r, "inst"));

    a->writer = i;
    if (!i)
        return;
    if (a->closed)
        audit_fail(a, "life", "expected nothing after log.closed, found %s", record_event(r));
    if (ev == EVENT_LOG_CLOSED)
        a->closed = true;
    if (a->seq == 0 && ev != EVENT_LOG_OPENED)
        audit_fail(a, "life", "expected log.opened as record 0, found %s", record_event(r));
    settle_jumps(a, i, ev);
    look_for_jump(a, i, ev);
    apply_event(a, r, i, ev);
    i->seen = true;
    i->last_seq = a->seq;
    i->last_us = a->t_us;
}

void life_finish(struct audit *a)
{
    if (a->range.size == 0)
        audit_fail_at(a, "audit.jsonl", "life", "expected log.opened as record 0, found no record");
    for (uint32_t n = 0; n < pool_count(a->instances) && n < INSTANCES_MAX; n++)
        refuse_jumps(a, &a->instance[n]);
}
