/*
 * HTTPS load generator: keep-alive connections with client certificates, each with one request
 * outstanding, all in one thread; always bounded by count and by time.  Prints one JSON object.
 */
#include <assert.h>
#include <signal.h>
#include <stdlib.h>

#include <sys/resource.h>
#include <time.h>

#include "load_run.h"
#include "measure.h"
#include "opts.h"
#include "request.h"
#include "tekd/auto.h"

static json_t *tally_json(const struct load_tally *t)
{
    json_t *j = json_object();

    for (size_t i = 0; i < t->used; i++)
        (void)json_object_set_new(j, t->name[i], json_integer((json_int_t)t->n[i]));
    return j;
}

static json_t *errors_json(const struct load *l)
{
    uint64_t total = l->answered - l->ok + l->timeouts + l->unfinished;

    for (size_t i = 0; i < CONN_WHYS; i++)
        total += l->whys[i];
    return json_pack(
        "{sI, sI, sI, sI, sI, sI, sI, sI, sI, sI, sI, so, so, so}", "total", (json_int_t)total,
        "http_status", (json_int_t)l->verdicts[ANSWER_HTTP_STATUS], "refused",
        (json_int_t)l->verdicts[ANSWER_REFUSED], "not_as_asked",
        (json_int_t)l->verdicts[ANSWER_NOT_AS_ASKED], "data_changed", (json_int_t)l->changed,
        "connect", (json_int_t)l->whys[CONN_WHY_CONNECT], "tls", (json_int_t)l->whys[CONN_WHY_TLS],
        "closed", (json_int_t)l->whys[CONN_WHY_CLOSED], "framing",
        (json_int_t)l->whys[CONN_WHY_FRAMING], "timeout", (json_int_t)l->timeouts, "unfinished",
        (json_int_t)l->unfinished, "by_http_status", tally_json(&l->http), "by_reason",
        tally_json(&l->reason), "by_text", tally_json(&l->lost));
}

static int report(const struct load *l, double handshake_s, int64_t cpu_us)
{
    double elapsed = (double)(l->last_ns - l->start_ns) / 1e9;
    double answered = l->answered == 0 ? 1.0 : (double)l->answered;
    uint64_t last = 0;
    json_t *j;

    for (size_t k = 0; k < l->set->identities.n; k++) {
        if (l->identity[k].next > last)
            last = l->identity[k].next;
    }
    j = json_pack("{sI, sI, sI, sI, sf, sf, sf, sf, sf, sI, so, so}", "requests",
                  (json_int_t)l->issued, "answered", (json_int_t)l->answered, "ok",
                  (json_int_t)l->ok, "strictly_checked", (json_int_t)l->strict_checked, "seconds",
                  elapsed, "rate", elapsed > 0 ? (double)l->ok / elapsed : 0.0,
                  "handshakes_seconds", handshake_s, "cpu_seconds", (double)cpu_us / 1e6,
                  "cpu_us_per_request", (double)cpu_us / answered, "next", (json_int_t)last,
                  "latency", measure_hist_json(&l->latency), "errors", errors_json(l));
    return measure_print(j);
}

static int load_measure(struct load *l, const struct load_settings *set)
{
    int64_t before = measure_now_ns();
    double handshake_s;
    int64_t cpu_us;

    if (load_open(l, set) < 0 || load_connect(l) < 0)
        return -1;
    handshake_s = (double)(measure_now_ns() - before) / 1e9;
    cpu_us = measure_cpu_us(RUSAGE_SELF);
    if (load_run(l) < 0)
        return -1;
    return report(l, handshake_s, measure_cpu_us(RUSAGE_SELF) - cpu_us);
}

static void parse(struct load_settings *s, int argc, char **argv)
{
    static const char *const modes[] = {"new", "known", "get", NULL};
    static const char *const media[] = {"xml", "json", NULL};
    static const char *const orders[] = {"rising", "random", NULL};
    const struct opts_option table[] = {
        OPTS_TEXT_REQ("connect", &s->connect, "ADDRESS:PORT (IPv4)"),
        OPTS_TEXT_REQ("ca", &s->ca, "PEM file that the server is checked against"),
        OPTS_MANY_REQ("identity", &s->identities,
                      "SOURCE,CERT,KEY of a BSA; connections take turns"),
        OPTS_TEXT("path", &s->path, "default /cp3"),
        OPTS_TEXT("destination", &s->destination, "the BSM's id"),
        OPTS_ONE_OF("mode", &s->plan.mode, modes, "contents asked for; get: a plain GET"),
        OPTS_ONE_OF("media", &s->plan.media, media, "of request and answer"),
        OPTS_ONE_OF("ids", &s->plan.ids, orders, "order of MessageIDs"),
        OPTS_ONE_OF("content-ids", &s->plan.content_ids, orders, "order of ContentIDs"),
        OPTS_ONE_OF("pick", &s->plan.pick, orders, "order in which known contents are asked for"),
        OPTS_NUMBER("seed", &s->plan.seed, 0, UINT64_MAX, "of MessageIDs; default: the time"),
        OPTS_NUMBER("content-seed", &s->plan.content_seed, 0, UINT64_MAX,
                    "of ContentIDs; default: the seed"),
        OPTS_NUMBER("contents", &s->plan.contents, 1, LOAD_SEEN_MAX, "how many are known"),
        OPTS_NUMBER("repeat", &s->plan.repeat, 0, LOAD_SEEN_MAX,
                    "each identity starts over after so many messages; 0: never"),
        OPTS_NUMBER("first", &s->first, 0, UINT64_C(1) << 40,
                    "number of each identity's first request"),
        OPTS_NUMBER("connections", &s->connections, 1, LOAD_CONNECTIONS_MAX,
                    "one request outstanding on each"),
        OPTS_NUMBER("count", &s->count, 1, UINT64_C(1) << 32, "requests at most"),
        OPTS_NUMBER("seconds", &s->seconds, 1, 3600, "time at most"),
        OPTS_NUMBER("timeout-ms", &s->timeout_ms, 1, 600000,
                    "for the handshakes, and for each answer"),
        OPTS_NUMBER("strict", &s->strict, 0, UINT64_C(1) << 32,
                    "check every so many-th answer strictly; 0: none"),
    };

    opts_parse(table, ARRAY_SIZE(table), argc, argv);
}

int main(int argc, char **argv)
{
    struct timespec ts = {.tv_sec = 0};
    struct load_settings set = {
        .path = "/cp3",
        .destination = "bsm.example.net",
        .connections = 64,
        .count = 1000000,
        .seconds = 10,
        .timeout_ms = 15000,
        .strict = 64,
        .plan = {.contents = 10000},
    };
    struct load *l = calloc(1, sizeof(*l));
    int r;

    assert(l != NULL);
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    set.plan.seed = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
    parse(&set, argc, argv);
    if (set.plan.content_seed == 0)
        set.plan.content_seed = set.plan.seed;
    set.plan.identities = (unsigned)set.identities.n;
    set.plan.host = set.connect;
    set.plan.path = set.path;
    set.plan.destination = set.destination;
    (void)signal(SIGPIPE, SIG_IGN);

    r = load_measure(l, &set);
    load_close(l);
    free(l);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
