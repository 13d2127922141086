/*
 * tek-audit against logs that were signed as they are: each case is the valid log of
 * audit_export.c with a few steps changed, and must be refused by the check it names, with that
 * text, as the first failure; or be verified.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "audit_export.h"
#include "passphrase.h"
#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define ANSWERED                                                                                   \
    "|peer=bsa-1|cert=" HASH_1 "|addr=192.0.2.1|dir=pull|kekid=bsa-1/1|out=" HASH_1 "|req=" HASH_2
#define STARTED "version=0.1.0|heartbeat#300|config=" HASH_1

/* ---- what is right ---- */

static void verify__takes_the_export_that_nobody_touched(void **state)
{
    struct fixture *x = export_new();
    struct audit *a;

    (void)state;
    export_make(x);
    a = look(x);
    assert_verified(a);
    assert_int_equal(a->range.size, x->n_lines);
    assert_int_equal(a->counts.answered, 2);
    assert_int_equal(a->counts.sent, 2);
    assert_int_equal(a->counts.early, 0);
    assert_int_equal(a->counts.repeated, 1);
    assert_int_equal(a->counts.refused, 1);
    assert_int_equal(a->counts.strangers, 3);
    assert_int_equal(a->counts.teks, 2);
    assert_int_equal(a->counts.unattested, 1);
    assert_int_equal(a->counts.starts[RELEASE_SIGNED], 3);
    assert_int_equal(a->counts.starts[RELEASE_DURABLE], 0);
    assert_int_equal(a->counts.starts[RELEASE_UNKNOWN], 0);
    assert_int_equal(a->recovered.n, 1);
    assert_int_equal(a->recovered.span[0].from, export_at(x, "log.recovered", 0) - 6);
    assert_int_equal(a->outages.n, 2);
    assert_string_equal(a->outages.span[0].why, "stopped");
    assert_int_equal(a->outages.span[0].seconds, 5000);
    assert_string_equal(a->outages.span[1].why, "crash");
    audit_free(a);
    export_free(x);
}

/* A record in one that was left out would count as attested. */
static void spans_add__takes_any_number(void **state)
{
    enum { MANY = 10000 };
    struct audit *a;

    (void)state;
    assert_int_equal(audit_new(&a), 0);
    for (uint64_t i = 0; i < MANY; i++)
        spans_add(a, &a->recovered, (struct span){.from = 3 * i + 1, .to = 3 * i + 2});
    assert_int_equal(a->error, 0);
    assert_int_equal(a->recovered.n, MANY);
    for (uint64_t seq = 0; seq < (uint64_t)3 * MANY; seq++)
        assert_int_equal(is_attested(a, seq), seq % 3 == 0);
    audit_free(a);
}

/* ---- steps: signed as they are, and wrong ---- */

enum change { INSERT, REPLACE, DROP, APPEND, FASTER };

struct edit {
    enum change change;
    const char *ev; /* where: the n-th step of this event; INSERT: before it */
    size_t n;
    struct step step; /* FASTER: dt is what the step takes */
};

struct step_case {
    const char *name;
    const char *check; /* NULL: it is verified */
    const char *text;
    struct edit edit[6];
};

#define EDIT(change, at, n, ev, fields, dt, inst)                                                  \
    {                                                                                              \
        change, at, n,                                                                             \
        {                                                                                          \
            ev, fields, dt, inst                                                                   \
        }                                                                                          \
    }
#define EDIT_DROP(at, n)                                                                           \
    {                                                                                              \
        DROP, at, n,                                                                               \
        {                                                                                          \
            NULL, NULL, 0, NULL                                                                    \
        }                                                                                          \
    }
#define EDIT_DT(at, n, dt)                                                                         \
    {                                                                                              \
        FASTER, at, n,                                                                             \
        {                                                                                          \
            NULL, NULL, dt, NULL                                                                   \
        }                                                                                          \
    }
#define CASE(name, check, text, ...)                                                               \
    {                                                                                              \
        name, check, text,                                                                         \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static void apply_edit(struct fixture *x, const struct edit *e)
{
    size_t at = e->ev ? export_at(x, e->ev, e->n) : x->n_steps;
    int dt = at < x->n_steps ? x->step[at].dt : 0;

    switch (e->change) {
    case INSERT:
        export_insert(x, at, e->step);
        break;
    case REPLACE:
        x->step[at] = e->step;
        x->step[at].dt = dt;
        break;
    case DROP:
        export_drop(x, at);
        break;
    case APPEND:
        export_append(x, e->step);
        break;
    case FASTER:
        x->step[at].dt = e->step.dt;
        break;
    }
}

/* Edits are done in their order; the n-th step is that of the moment. */
static void run_step_case(const struct step_case *c)
{
    struct fixture *x = export_new();
    struct audit *a;

    for (size_t i = 0; i < ARRAY_SIZE(c->edit); i++)
        if (c->edit[i].ev || c->edit[i].step.ev)
            apply_edit(x, &c->edit[i]);
    export_make(x);
    a = look(x);
    if (c->check)
        assert_refused(a, c->name, c->check, c->text);
    else
        assert_verified(a);
    audit_free(a);
    export_free(x);
}

static void run_step_cases(const struct step_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        run_step_case(&cases[i]);
}

#define OTHER_KEY "0199aaaa-0000-7000-8000-00000000ffff"

static const struct step_case message_cases[] = {
    CASE("answered twice with another key", "message",
         "expected Message ID m-1 of bsa-1 with key " KEY_1,
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-1|content=urn:x:sport|keyid=" KEY_2 ANSWERED, 1, NULL)),
    CASE("answered again with the same key", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-1|content=urn:x:news|keyid=" KEY_1 ANSWERED, 1, NULL)),
    CASE("answered with another key after the window", NULL, NULL,
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED "|window#60", 0, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-1|content=urn:x:sport|keyid=" KEY_2 ANSWERED, 61, NULL)),
    CASE("answered with another key within the window", "message", "as in record 6",
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED "|window#60", 0, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-1|content=urn:x:sport|keyid=" KEY_2 ANSWERED, 40, NULL)),
    CASE("another peer may use the Message ID", NULL, NULL,
         EDIT(INSERT, "tek.generated", 0, "bsa.enrolled",
              "bsa=bsa-2|cert=" HASH_2 "|kekid=bsa-1/1|entitle=*|actor=root", 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-1|peer=bsa-2|content=urn:x:sport|keyid=" KEY_2 "|cert=" HASH_1
              "|addr=192.0.2.1|dir=pull|kekid=bsa-1/1|out=" HASH_1 "|req=" HASH_2,
              1, NULL)),
    CASE("sent without answered", "sent", "found none",
         EDIT(INSERT, "log.heartbeat", 0, "answer.sent", "ref=@m-1|mid=m-9|peer=bsa-1|out=" HASH_1,
              1, NULL)),
    CASE("sent for another message's answer", "sent", "found it elsewhere",
         EDIT(REPLACE, "answer.sent", 1, "answer.sent", "ref=@m-1|mid=m-2|peer=bsa-1|out=" HASH_1,
              0, NULL)),
    CASE("sent to another peer", "sent", "of bsa-2",
         EDIT(REPLACE, "answer.sent", 0, "answer.sent", "ref=@m-1|mid=m-1|peer=bsa-2|out=" HASH_1,
              0, NULL)),
    CASE("sent with other octets", "sent", "expected out as in record 6",
         EDIT(REPLACE, "answer.sent", 0, "answer.sent", "ref=@m-1|mid=m-1|peer=bsa-1|out=" HASH_2,
              0, NULL)),
    CASE("sent refers to a later record", "sent", "at 1/4000",
         EDIT(REPLACE, "answer.sent", 0, "answer.sent", "ref=1/4000|mid=m-1|peer=bsa-1|out=" HASH_1,
              0, NULL)),
    CASE("repeated with another key", "repeated",
         "expected key " KEY_1 " as in record 6, found " KEY_2,
         EDIT(REPLACE, "request.repeated", 0, "request.repeated",
              "ref=@m-1|mid=m-1|peer=bsa-1|out=" HASH_2 "|addr=a|cert=" HASH_1 "|keyid=" KEY_2, 0,
              NULL)),
    CASE("repeated without answered", "repeated", "expected request.answered of Message ID m-7",
         EDIT(REPLACE, "request.repeated", 0, "request.repeated",
              "ref=@m-1|mid=m-7|peer=bsa-1|out=" HASH_2 "|addr=a|cert=" HASH_1, 0, NULL)),
    CASE("refused by nobody", "field", "expected cert or count",
         EDIT(REPLACE, "request.refused", 0, "request.refused", "reason=x|addr=a", 0, NULL)),
    CASE("a pushed answer", "field", "expected dir pull, found push",
         EDIT(REPLACE, "request.answered", 0, "request.answered",
              "mid=m-1|content=urn:x:news|keyid=" KEY_1 "|peer=bsa-1|cert=" HASH_1
              "|addr=a|dir=push|kekid=bsa-1/1|out=" HASH_1 "|req=" HASH_2,
              0, NULL)),
};

static const struct step_case release_cases[] = {
    CASE("sent before a checkpoint", "release",
         "expected a checkpoint over record 6 before its answer was sent, found the newest one of "
         "size 5",
         EDIT_DROP("CHECKPOINT", 1)),
    CASE("sent under a checkpoint that ends before the answer", "release",
         "before its answer was sent, found the newest one of size 6",
         EDIT(INSERT, "request.answered", 0, checkpoint_step, NULL, 0, NULL),
         EDIT_DROP("CHECKPOINT", 2)),
    CASE("sent before a checkpoint, as it was said", NULL, NULL,
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED "|release=durable", 0, NULL),
         EDIT_DROP("CHECKPOINT", 1)),
    CASE("sent before a checkpoint, and nothing was said", NULL, NULL,
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED, 0, NULL),
         EDIT_DROP("CHECKPOINT", 1)),
    CASE("repeated before a checkpoint", "release",
         "expected a checkpoint over record 6 before its answer was repeated, found the newest one "
         "of size 5",
         EDIT_DROP("answer.sent", 0), EDIT_DROP("CHECKPOINT", 1)),
    CASE("sent before a checkpoint when signed is in force again", "release",
         "expected a checkpoint over record 17 before its answer was sent, found the newest one of "
         "size 16",
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED "|release=durable", 0, NULL),
         EDIT(INSERT, "log.heartbeat", 1, "request.answered",
              "mid=m-5|content=urn:x:news|keyid=" KEY_1 ANSWERED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 1, "log.heartbeat", "", 1, NULL),
         EDIT(INSERT, "log.heartbeat", 2, "answer.sent", "ref=@m-5|mid=m-5|peer=bsa-1|out=" HASH_1,
              1, NULL)),
    CASE("sent before a checkpoint when signed is in force no more", NULL, NULL,
         EDIT(REPLACE, "log.started", 1, "log.started", STARTED "|release=durable", 0, NULL),
         EDIT(INSERT, "log.heartbeat", 1, "request.answered",
              "mid=m-5|content=urn:x:news|keyid=" KEY_1 ANSWERED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 1, "answer.sent", "ref=@m-5|mid=m-5|peer=bsa-1|out=" HASH_1,
              1, NULL)),
    CASE("a promise that is none", "field", "expected release signed or durable, found unknown",
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED "|release=unknown", 0, NULL)),
    CASE("a promise of another kind", "field",
         "expected log.started with field release, a string, found another value",
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED "|release#1", 0, NULL)),
};

static const struct step_case key_cases[] = {
    CASE("a key before it was generated", "tek",
         "expected tek.generated before the key is given, found none of " KEY_1,
         EDIT_DROP("tek.generated", 0)),
    CASE("a key that was destroyed", "tek", KEY_2 ", destroyed before",
         EDIT(INSERT, "log.stopped", 0, "request.answered",
              "mid=m-5|content=urn:x:sport|keyid=" KEY_2 ANSWERED, 1, NULL)),
    CASE("a key for another content", "content", "expected content urn:x:news",
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-5|content=urn:x:sport|keyid=" KEY_1 ANSWERED, 1, NULL)),
    CASE("a key for another period", "period", "expected period 4",
         EDIT(INSERT, "log.heartbeat", 0, "tek.generated",
              "keyid=" OTHER_KEY "|content=c|bits#128|kekid=storage/1|period#4", 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-5|content=c|period#5|keyid=" OTHER_KEY ANSWERED, 1, NULL)),
    CASE("a key whose period is left out", "period", "found no period",
         EDIT(INSERT, "log.heartbeat", 0, "tek.generated",
              "keyid=" OTHER_KEY "|content=c|bits#128|kekid=storage/1|period#4", 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "request.answered",
              "mid=m-5|content=c|keyid=" OTHER_KEY ANSWERED, 1, NULL)),
    CASE("a key generated twice", "tek", "which was there before",
         EDIT(INSERT, "log.heartbeat", 0, "tek.generated",
              "keyid=" KEY_1 "|content=urn:x:news|bits#128|kekid=storage/1", 1, NULL)),
    CASE("a key destroyed twice", "tek", "destroyed before",
         EDIT(INSERT, "log.stopped", 0, "tek.destroyed", "keyid=" KEY_2 "|actor=root", 1, NULL)),
    CASE(
        "a key destroyed that never was", "tek", "never generated",
        EDIT(INSERT, "log.stopped", 0, "tek.destroyed", "keyid=" OTHER_KEY "|actor=root", 1, NULL)),
    CASE("a KEK that was never added", "kek", "found bsa-1/1, never added",
         EDIT_DROP("kek.added", 1)),
    CASE("a KEK that was retired", "kek", "found bsa-1/1, retired before",
         EDIT(INSERT, "tek.generated", 1, "kek.retired", "kekid=bsa-1/1|actor=root", 1, NULL)),
    CASE("a KEK added twice", "kek", "expected a new KEK",
         EDIT(INSERT, "tek.generated", 1, "kek.added",
              "kekid=bsa-1/1|label=x|wrap=aes-kw|fp=" HASH_2 "|imported?true", 1, NULL)),
    CASE("a BSA that was never enrolled", "bsa", "found bsa-1, never enrolled",
         EDIT_DROP("bsa.enrolled", 0)),
    CASE("a BSA that was disabled", "bsa", "found bsa-1, disabled before",
         EDIT(INSERT, "tek.generated", 1, "bsa.disabled", "bsa=bsa-1|actor=root", 1, NULL)),
    CASE("a BSA that was disabled and enrolled again", NULL, NULL,
         EDIT(INSERT, "tek.generated", 1, "bsa.disabled", "bsa=bsa-1|actor=root", 1, NULL),
         EDIT(INSERT, "tek.generated", 1, "bsa.enrolled",
              "bsa=bsa-1|cert=" HASH_2 "|kekid=bsa-1/1|entitle=*|actor=root", 1, NULL)),
    CASE("a stranger disabled", "bsa", "bsa-9, never enrolled",
         EDIT(INSERT, "tek.generated", 1, "bsa.disabled", "bsa=bsa-9|actor=root", 1, NULL)),
};

#define REPEATED(mid)           "ref=@" mid "|mid=" mid "|peer=bsa-1|out=" HASH_1 "|addr=a|cert=" HASH_1
#define BEFORE_STOP(ev, fields) EDIT(INSERT, "log.stopped", 0, ev, fields, 1, NULL)

/* KEY_2, of m-2, is destroyed in record 14; what is inserted comes behind it. */
static const struct step_case repeat_cases[] = {
    CASE("a repeat recorded after its KEK was retired", NULL, NULL,
         BEFORE_STOP("kek.retired", "kekid=bsa-1/1|actor=root"),
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=1/14")),
    CASE("a repeat decided after its KEK was retired", "kek",
         "expected no repeat with bsa-1/1 since it was withdrawn in record 15, found one decided "
         "after record 15",
         BEFORE_STOP("kek.retired", "kekid=bsa-1/1|actor=root"),
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=1/15")),
    CASE("a repeat under a KEK while another one is retired", NULL, NULL,
         BEFORE_STOP("kek.retired", "kekid=storage/1|actor=root"),
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=1/15")),
    CASE("a repeat recorded after its key was destroyed", NULL, NULL,
         BEFORE_STOP("request.repeated", REPEATED("m-2") "|after=1/13")),
    CASE("a repeat decided after its key was destroyed", "tek",
         "expected no repeat with " KEY_2 " since it was withdrawn in record 14",
         BEFORE_STOP("request.repeated", REPEATED("m-2") "|after=1/14")),
    CASE("a repeat recorded after its BSA was disabled", NULL, NULL,
         BEFORE_STOP("bsa.disabled", "bsa=bsa-1|actor=root"),
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=1/14")),
    CASE("a repeat decided after its BSA was disabled", "bsa",
         "expected no repeat with bsa-1 since it was withdrawn in record 15",
         BEFORE_STOP("bsa.disabled", "bsa=bsa-1|actor=root"),
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=1/15")),
    CASE(
        "a repeat decided after its BSA was enabled again", NULL, NULL,
        BEFORE_STOP("bsa.disabled", "bsa=bsa-1|actor=root"),
        BEFORE_STOP("bsa.enrolled", "bsa=bsa-1|cert=" HASH_2 "|kekid=bsa-1/1|entitle=*|actor=root"),
        BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=1/16")),
    CASE("a repeat decided after itself", "repeated",
         "expected an earlier record in field after, found 1/15",
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=1/15")),
    CASE("a repeat decided in an epoch to come", "repeated", "found 2/0",
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=2/0")),
    CASE("a repeat of which nobody knows when it was decided", NULL, NULL,
         BEFORE_STOP("kek.retired", "kekid=bsa-1/1|actor=root"),
         BEFORE_STOP("request.repeated", REPEATED("m-1"))),
    CASE("a repeat decided after no record", "field",
         "expected request.repeated with field after, a record epoch/seq",
         BEFORE_STOP("request.repeated", REPEATED("m-1") "|after=14")),
};

static const struct step_case life_cases[] = {
    CASE("an unexplained gap of heartbeats", "heartbeat", "expected a record at least every 600 s",
         EDIT_DT("log.heartbeat", 0, 601)),
    CASE("no gap yet", NULL, NULL, EDIT_DT("log.heartbeat", 0, 600)),
    CASE("a gap that ends with clock.step", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=3600000000", 3600, NULL)),
    CASE("a gap that clock.step explains soon after", NULL, NULL,
         EDIT_DT("request.refused", 0, 3600),
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=3600000000", 0, NULL)),
    CASE("a gap that clock.step explains after two heartbeats", "heartbeat",
         "found 3600 s without one", EDIT_DT("request.refused", 0, 3600),
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=3600000000", 601, NULL)),
    CASE("a gap that clock.step explains too late", "heartbeat", "found 3600 s without one",
         EDIT_DT("request.refused", 0, 3600),
         EDIT(INSERT, "tek.destroyed", 0, "clock.step", "delta_us=3600000000", 0, NULL)),
    CASE("a gap and a step back, of which clock.step explains what is near it", "heartbeat",
         "found 3600 s without one", EDIT_DT("request.refused", 0, 3600),
         EDIT(INSERT, "log.heartbeat", 0, "audit.gap", "count#3|kind=store-unavailable", -3600,
              NULL),
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=-3600000000", 0, NULL)),
    CASE("a gap that clock.step does not explain from before it", "heartbeat",
         "found 3600 s without one", EDIT_DT("request.refused", 0, 3600),
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=-3600000000", -3600, NULL)),
    CASE("a gap and a step back that are near enough", NULL, NULL,
         EDIT_DT("request.refused", 0, 700),
         EDIT(INSERT, "log.heartbeat", 0, "content.added", "content=urn:y|bits#128|actor=root",
              -300, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=400000000", 0, NULL),
         EDIT_DT("log.heartbeat", 0, 0)),
    CASE("a gap while the HSM was lost", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "hsm.lost", "reason=no answer", 1, NULL),
         EDIT_DT("log.heartbeat", 0, 4000),
         EDIT(INSERT, "tek.destroyed", 0, "hsm.back", "reason=ready", 1, NULL)),
    CASE("a gap after the HSM was back", "heartbeat", "found 4000 s without one",
         EDIT(INSERT, "log.heartbeat", 0, "hsm.lost", "reason=no answer", 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "hsm.back", "reason=ready", 1, NULL),
         EDIT_DT("log.heartbeat", 0, 4000)),
    CASE("a gap in which nothing could be written", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "audit.gap", "count#3|kind=store-unavailable", 4000,
              NULL)),
    CASE("time that goes back while nothing could be written", "time", "found it 100 s back",
         EDIT(INSERT, "log.heartbeat", 0, "audit.gap", "count#3|kind=store-unavailable", -100,
              NULL)),
    CASE("time that goes back", "time", "found it 100 s back", EDIT_DT("request.refused", 0, -100)),
    CASE("time that goes back at the end of the log", "time", "found it 500 s back",
         EDIT_DROP("log.stopped", 1), EDIT_DT("log.heartbeat", 2, -500)),
    CASE("time that goes back with clock.step", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=-100000000", -100, NULL)),
    CASE("started twice", "life",
         "expected log.stopped or log.recovered before another log.started of tekd-a",
         EDIT(INSERT, "log.heartbeat", 0, "log.started", STARTED, 1, NULL)),
    CASE("started again without stopped", "life", "before another log.started",
         EDIT_DROP("log.stopped", 0)),
    CASE(
        "a record after log.stopped", "life", "log.stopped came before it",
        EDIT(INSERT, "log.started", 1, "admin.action", "actor=x|uid#0|action=x|detail=x", 1, NULL)),
    CASE("a last record after log.stopped", "life",
         "found request.refused: log.stopped came before it",
         EDIT(APPEND, NULL, 0, "request.refused", "reason=x|addr=a|count#1", 1, NULL),
         EDIT(APPEND, NULL, 0, checkpoint_step, NULL, 0, NULL)),
    CASE("stopped twice", "life", "expected log.started before log.stopped",
         EDIT(INSERT, "log.started", 1, "log.stopped", "", 1, NULL)),
    CASE("a record before log.started", "life", "it has not started", EDIT_DROP("log.started", 0)),
    CASE("a record of an instance that never started", "life",
         "expected log.started before a record of tekd-b",
         EDIT(INSERT, "log.heartbeat", 0, "log.heartbeat", "", 1, "tekd-b")),
    CASE("two instances", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "log.started", STARTED, 1, "tekd-b"),
         EDIT(INSERT, "log.heartbeat", 0, "log.heartbeat", "", 1, "tekd-b"),
         EDIT(INSERT, "tek.destroyed", 0, "log.stopped", "", 1, "tekd-b")),
    CASE("opened twice", "life", "expected log.opened as record 0 only",
         EDIT(INSERT, "log.heartbeat", 0, "log.opened", "origin=" ORIGIN, 1, NULL)),
    CASE("never opened", "life", "expected log.opened as record 0, found log.started",
         EDIT_DROP("log.opened", 0)),
    CASE("opened under another origin", "origin", "found bsm.example.net/tekd/audit/7",
         EDIT(REPLACE, "log.opened", 0, "log.opened", "origin=bsm.example.net/tekd/audit/7", 0,
              NULL)),
    CASE("a note in the first epoch", "epoch", "expected no note in the first epoch",
         EDIT(REPLACE, "log.opened", 0, "log.opened", "origin=" ORIGIN "|note=x", 0, NULL)),
    CASE("a record after log.closed", "life", "expected nothing after log.closed",
         EDIT(INSERT, "log.heartbeat", 0, "log.closed", "", 1, NULL)),
    CASE("a heartbeat that never comes", "heartbeat",
         "expected an interval of 1 to 86400 s, found 100000",
         EDIT(REPLACE, "log.started", 0, "log.started",
              "version=0.1.0|heartbeat#100000|config=" HASH_1, 0, NULL)),
    CASE("a recovered tail that is not all of it", "recovered", "found them listed from",
         EDIT(INSERT, "log.recovered", 0, "log.heartbeat", "", 1, NULL),
         EDIT(REPLACE, "log.recovered", 0, "log.recovered", "from#@before|to#@before", 0, NULL)),
    CASE("a recovered tail that takes in what a checkpoint covers", "recovered",
         "found them listed from 3",
         EDIT(REPLACE, "log.recovered", 0, "log.recovered", "from#3|to#@before", 0, NULL)),
    CASE("a recovered tail that does not end before the record", "recovered",
         "expected a range that ends with the record before this one",
         EDIT(REPLACE, "log.recovered", 0, "log.recovered", "from#3|to#3", 0, NULL)),
    CASE("a crash without log.recovered", "life", "before another log.started",
         EDIT_DROP("log.recovered", 0)),
    CASE(
        "a crash recovered under another name", NULL, NULL,
        EDIT(REPLACE, "log.recovered", 0, "log.recovered", "from#@covered|to#@before", 0, "tekd-b"),
        EDIT(REPLACE, "log.started", 2, "log.started", STARTED, 0, "tekd-b"),
        EDIT_DROP("log.heartbeat", 2), EDIT_DROP("log.stopped", 1)),
};

static const struct step_case event_cases[] = {
    CASE("a record without a field it must have", "field",
         "expected tek.generated with field kekid, a string, found none",
         EDIT(REPLACE, "tek.generated", 0, "tek.generated",
              "keyid=" KEY_1 "|content=urn:x:news|bits#128", 0, NULL)),
    CASE("a field of another kind", "field",
         "expected tek.generated with field bits, an integer, found another value",
         EDIT(REPLACE, "tek.generated", 0, "tek.generated",
              "keyid=" KEY_1 "|content=urn:x:news|bits=128|kekid=storage/1", 0, NULL)),
    CASE("a hash that is none", "field", "expected answer.sent with field out, a SHA-256",
         EDIT(REPLACE, "answer.sent", 0, "answer.sent", "ref=@m-1|mid=m-1|peer=bsa-1|out=11", 0,
              NULL)),
    CASE("a reference that is none", "field",
         "expected answer.sent with field ref, a record epoch/seq",
         EDIT(REPLACE, "answer.sent", 0, "answer.sent", "ref=06|mid=m-1|peer=bsa-1|out=" HASH_1, 0,
              NULL)),
    CASE("an optional field of another kind", "field", "with field period, an integer",
         EDIT(REPLACE, "tek.generated", 0, "tek.generated",
              "keyid=" KEY_1 "|content=urn:x:news|bits#128|kekid=storage/1|period=1", 0, NULL)),
    CASE("a step that is no number", "field", "with field delta_us, a decimal number",
         EDIT(INSERT, "log.heartbeat", 0, "clock.step", "delta_us=+1", 0, NULL)),
    CASE("certificates with more than commas between them", "field", "with field cert, SHA-256",
         EDIT(INSERT, "log.heartbeat", 0, "bsa.enrolled",
              "bsa=bsa-1|cert=" HASH_1 ", " HASH_2 "|kekid=bsa-1/1|entitle=*|actor=root", 0, NULL)),
    CASE("two certificates", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "bsa.enrolled",
              "bsa=bsa-1|cert=" HASH_1 "," HASH_2 "|kekid=bsa-1/1|entitle=*|actor=root", 0, NULL)),
    CASE("a content whose periods begin at no time", "field", "with field epoch, a time like t",
         EDIT(INSERT, "log.heartbeat", 0, "content.added",
              "content=c|bits#128|actor=root|epoch=2026-02-30T00:00:00.000000Z", 0, NULL)),
};

#define PREPARED                                                                                   \
    "mid=d-1|peer=bsa-1|dir=push|content=urn:x:news|keyid=" KEY_1 "|kekid=bsa-1/1|out=" HASH_1
#define ATTEMPT     "ref=@d-1|mid=d-1|peer=bsa-1|addr=a"
#define CONFIRMED   "ref=@d-1|mid=d-1|peer=bsa-1|cert=" HASH_2 "|out=" HASH_1
#define OF_DELIVERY "ref=@d-1|mid=d-1|peer=bsa-1"
#define BEAT(ev, f) EDIT(INSERT, "log.heartbeat", 0, ev, f, 1, NULL)
#define BEAT_SIGNED EDIT(INSERT, "log.heartbeat", 0, CHECKPOINT, NULL, 0, NULL)
#define SENT_AND(...)                                                                              \
    BEAT("delivery.prepared", PREPARED), BEAT("delivery.attempt", ATTEMPT), BEAT_SIGNED, __VA_ARGS__

static const struct step_case delivery_cases[] = {
    CASE("a delivery that is confirmed", NULL, NULL,
         SENT_AND(BEAT("delivery.confirmed", CONFIRMED))),
    CASE("a confirmation of nothing", "delivery", "expected delivery.prepared of Message ID d-1",
         EDIT(INSERT, "log.heartbeat", 0, "delivery.confirmed",
              "ref=1/3|mid=d-1|peer=bsa-1|cert=" HASH_1 "|out=" HASH_1, 1, NULL)),
    CASE("a confirmation of an answer", "delivery", "an answer in record 6",
         EDIT(INSERT, "log.heartbeat", 0, "delivery.confirmed",
              "ref=@m-1|mid=m-1|peer=bsa-1|cert=" HASH_1 "|out=" HASH_1, 1, NULL)),
    CASE("abandoned after it was confirmed", "delivery", "expected no delivery.abandoned",
         SENT_AND(BEAT("delivery.confirmed", CONFIRMED),
                  BEAT("delivery.abandoned", OF_DELIVERY "|reason=x|actor=x"))),
    CASE("confirmed twice", "delivery", "expected no delivery.confirmed",
         SENT_AND(BEAT("delivery.confirmed", CONFIRMED), BEAT("delivery.confirmed", CONFIRMED))),
    CASE("a duplicate of a confirmation", NULL, NULL,
         SENT_AND(BEAT("delivery.confirmed", CONFIRMED), BEAT("confirm.duplicate", OF_DELIVERY))),
    CASE("confirmed before it was sent", "delivery", "expected delivery.attempt before",
         BEAT("delivery.prepared", PREPARED), BEAT_SIGNED, BEAT("delivery.confirmed", CONFIRMED)),
    CASE("rejected before it was sent", "delivery", "expected delivery.attempt before",
         BEAT("delivery.prepared", PREPARED), BEAT_SIGNED, BEAT("delivery.rejected", OF_DELIVERY)),
    CASE("a confirmation of other octets", "delivery", "expected out as in record",
         SENT_AND(BEAT("delivery.confirmed",
                       "ref=@d-1|mid=d-1|peer=bsa-1|cert=" HASH_1 "|out=" HASH_2))),
    CASE("sent before a checkpoint covered the attempt", "release", "before it was confirmed",
         BEAT("delivery.prepared", PREPARED), BEAT_SIGNED, BEAT("delivery.attempt", ATTEMPT),
         BEAT("delivery.confirmed", CONFIRMED)),
    CASE("given up, and confirmed late", NULL, NULL,
         SENT_AND(BEAT("delivery.abandoned", OF_DELIVERY "|reason=x|actor=x"),
                  BEAT("delivery.confirmed", CONFIRMED "|late?true"))),
    CASE("past its deadline, tried again, confirmed", NULL, NULL,
         SENT_AND(BEAT("delivery.unconfirmed", OF_DELIVERY), BEAT("delivery.attempt", ATTEMPT),
                  BEAT("delivery.confirmed", CONFIRMED))),
    CASE("an attempt at an answer", "delivery", "an answer in record 6",
         BEAT("delivery.attempt", "ref=@m-1|mid=m-1|peer=bsa-1|addr=a")),
    CASE("confirmed before a checkpoint", "release",
         "expected a checkpoint over record 14 before it was confirmed, found the newest one of "
         "size 11",
         EDIT(INSERT, "log.heartbeat", 0, "delivery.prepared", PREPARED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.attempt", ATTEMPT, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.confirmed", CONFIRMED, 1, NULL)),
    CASE("rejected before a checkpoint", "release",
         "expected a checkpoint over record 14 before it was rejected",
         EDIT(INSERT, "log.heartbeat", 0, "delivery.prepared", PREPARED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.attempt", ATTEMPT, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.rejected", "ref=@d-1|mid=d-1|peer=bsa-1", 1,
              NULL)),
    CASE("attempted before a checkpoint, and given up", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "delivery.prepared", PREPARED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.attempt", ATTEMPT, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.unconfirmed", "ref=@d-1|mid=d-1|peer=bsa-1", 1,
              NULL)),
    CASE("confirmed before a checkpoint, as it was said", NULL, NULL,
         EDIT(REPLACE, "log.started", 0, "log.started", STARTED "|release=durable", 0, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.prepared", PREPARED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.attempt", ATTEMPT, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.confirmed", CONFIRMED, 1, NULL)),
    CASE("confirmed before a checkpoint, sent by one who may", NULL, NULL,
         EDIT(INSERT, "log.heartbeat", 0, "log.started", STARTED "|release=durable", 1, "tekd-b"),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.prepared", PREPARED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.attempt", ATTEMPT, 1, "tekd-b"),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.confirmed", CONFIRMED, 1, NULL)),
    CASE("confirmed before a checkpoint, received by one who may", "release",
         "before it was confirmed",
         EDIT(INSERT, "log.heartbeat", 0, "log.started", STARTED "|release=durable", 1, "tekd-b"),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.prepared", PREPARED, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.attempt", ATTEMPT, 1, NULL),
         EDIT(INSERT, "log.heartbeat", 0, "delivery.confirmed", CONFIRMED, 1, "tekd-b")),
};

/* ---- what became of deliveries ---- */

/* The valid log with a delivery that these events say something of; the last of them are
 * under no checkpoint, stand before the crash. */
static struct audit *look_at_delivery(struct fixture *x, const struct step *steps, size_t n,
                                      size_t unattested)
{
    for (size_t i = 0; i < n; i++) {
        bool tail = i + unattested >= n;

        export_insert(x, export_at(x, tail ? "log.recovered" : "log.heartbeat", 0), steps[i]);
    }
    export_make(x);
    return look(x);
}

#define STEP(ev, fields)                                                                           \
    {                                                                                              \
        ev, fields, 1, NULL                                                                        \
    }
#define STEP_SIGNED                                                                                \
    {                                                                                              \
        CHECKPOINT, NULL, 0, NULL                                                                  \
    }

static void verify__counts_what_became_of_deliveries(void **state)
{
    static const struct {
        const char *ev, *fields;
        unsigned confirmed, pending;
    } last[] = {
        {"delivery.confirmed", CONFIRMED, 1, 0},
        {"delivery.rejected", OF_DELIVERY, 0, 1},
        {"delivery.unknown", OF_DELIVERY, 0, 1},
        {"delivery.unconfirmed", OF_DELIVERY, 0, 0},
        {"delivery.abandoned", OF_DELIVERY "|reason=x|actor=x", 0, 0},
        {"delivery.attempt", ATTEMPT, 0, 1},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(last); i++) {
        struct fixture *x = export_new();
        const struct step steps[] = {STEP("delivery.prepared", PREPARED),
                                     STEP("delivery.attempt", ATTEMPT), STEP_SIGNED,
                                     STEP(last[i].ev, last[i].fields)};
        struct audit *a = look_at_delivery(x, steps, ARRAY_SIZE(steps), 0);

        assert_verified(a);
        assert_int_equal(a->counts.prepared, 1);
        assert_int_equal(a->counts.confirmed, last[i].confirmed);
        assert_int_equal(a->counts.pending, last[i].pending);
        assert_int_equal(a->counts.doubtful, 0);
        audit_free(a);
        export_free(x);
    }
}

/* What was given up stays so, whatever the BSA says against it. */
static void verify__keeps_what_was_given_up(void **state)
{
    static const struct step steps[] = {
        STEP("delivery.prepared", PREPARED), STEP("delivery.attempt", ATTEMPT), STEP_SIGNED,
        STEP("delivery.unconfirmed", OF_DELIVERY), STEP("delivery.rejected", OF_DELIVERY)};
    struct fixture *x = export_new();
    struct audit *a = look_at_delivery(x, steps, ARRAY_SIZE(steps), 0);

    (void)state;
    assert_verified(a);
    assert_int_equal(a->counts.pending, 0);
    audit_free(a);
    export_free(x);
}

static void verify__takes_no_confirmation_that_is_unattested(void **state)
{
    static const struct step steps[] = {STEP("delivery.prepared", PREPARED),
                                        STEP("delivery.attempt", ATTEMPT), STEP_SIGNED,
                                        STEP("delivery.confirmed", CONFIRMED)};
    struct fixture *x = export_new();
    struct audit *a = look_at_delivery(x, steps, ARRAY_SIZE(steps), 1);

    (void)state;
    assert_verified(a);
    assert_int_equal(a->counts.confirmed, 0);
    assert_int_equal(a->counts.pending, 1);
    assert_int_equal(a->counts.doubtful, 1);
    audit_free(a);
    /* Sent again, as it has to be, and confirmed for good. */
    export_insert(x, export_at(x, "log.heartbeat", 2),
                  (struct step)STEP("delivery.unknown", OF_DELIVERY));
    export_insert(x, export_at(x, "log.heartbeat", 2),
                  (struct step)STEP("delivery.attempt", ATTEMPT));
    export_insert(x, export_at(x, "log.heartbeat", 2),
                  (struct step)STEP("delivery.confirmed", CONFIRMED));
    export_make(x);
    a = look(x);
    assert_verified(a);
    assert_int_equal(a->counts.confirmed, 1);
    assert_int_equal(a->counts.doubtful, 0);
    audit_free(a);
    export_free(x);
}

static void verify__checks_messages(void **state)
{
    (void)state;
    run_step_cases(message_cases, ARRAY_SIZE(message_cases));
}

static void verify__holds_a_server_to_its_promise_of_release(void **state)
{
    (void)state;
    run_step_cases(release_cases, ARRAY_SIZE(release_cases));
}

static void verify__counts_keys_that_left_early_whatever_was_said(void **state)
{
    struct fixture *x = export_new();
    struct audit *a;

    (void)state;
    x->step[export_at(x, "log.started", 0)].fields = STARTED "|release=durable";
    x->step[export_at(x, "log.started", 2)].fields = STARTED;
    export_drop(x, export_at(x, CHECKPOINT, 1));
    export_make(x);
    a = look(x);
    assert_verified(a);
    assert_int_equal(a->counts.early, 2); /* sent, and repeated */
    assert_int_equal(a->counts.starts[RELEASE_SIGNED], 1);
    assert_int_equal(a->counts.starts[RELEASE_DURABLE], 1);
    assert_int_equal(a->counts.starts[RELEASE_UNKNOWN], 1);
    audit_free(a);
    export_free(x);
}

/* One that was kept elsewhere is as good as one of checkpoints.txt. */
static void verify__takes_the_note_of_since_for_the_promise(void **state)
{
    struct fixture *x = export_new();
    struct note early, late;
    struct audit *a;

    (void)state;
    export_drop(x, export_at(x, CHECKPOINT, 1));
    export_make(x);
    early = export_sign(x, 7, x->key);
    late = export_sign(x, 8, x->key);
    a = look_with(x, x->key, &early);
    assert_verified(a);
    audit_free(a);
    a = look_with(x, x->key, &late);
    assert_refused(a, "a note behind answer.sent", "release", "before its answer was sent");
    audit_free(a);
    export_free(x);
}

static void verify__checks_keys(void **state)
{
    (void)state;
    run_step_cases(key_cases, ARRAY_SIZE(key_cases));
}

static void verify__checks_when_repeats_were_decided(void **state)
{
    (void)state;
    run_step_cases(repeat_cases, ARRAY_SIZE(repeat_cases));
}

static void verify__checks_lives_and_time(void **state)
{
    (void)state;
    run_step_cases(life_cases, ARRAY_SIZE(life_cases));
}

static void verify__checks_the_fields_of_events(void **state)
{
    (void)state;
    run_step_cases(event_cases, ARRAY_SIZE(event_cases));
}

static void verify__checks_deliveries(void **state)
{
    (void)state;
    run_step_cases(delivery_cases, ARRAY_SIZE(delivery_cases));
}

/* ---- --since ---- */

static void verify__takes_a_note_that_the_log_extends(void **state)
{
    struct fixture *x = export_new();

    (void)state;
    export_make(x);
    for (size_t i = 0; i < x->n_notes; i++) {
        struct audit *a = look_with(x, x->key, &x->note[i]);

        assert_verified(a);
        audit_free(a);
    }
    export_free(x);
}

static void verify__refuses_a_log_that_does_not_extend_the_note(void **state)
{
    struct fixture *x = export_new();
    struct note truncated, forked, foreign, unsigned_by_us;
    struct audit *a;

    (void)state;
    export_make(x);
    truncated = export_sign(x, x->n_lines + 1, x->key);
    unsigned_by_us = export_sign(x, 9, x->other);
    line_replace(&x->line[3], "bsa-1/1", "bsa-1/9");
    forked = export_sign(x, 9, x->key);
    (void)snprintf(x->origin, sizeof x->origin, "other/tekd/audit/1");
    foreign = export_sign(x, 9, x->key);

    a = look_with(x, x->key, &truncated);
    assert_refused(a, "truncated", "since", "records, found");
    audit_free(a);
    a = look_with(x, x->key, &forked);
    assert_refused(a, "forked", "since", "expected root");
    audit_free(a);
    a = look_with(x, x->key, &foreign);
    assert_refused(a, "foreign", "origin", "expected other/tekd/audit/1 (of --since)");
    audit_free(a);
    a = look_with(x, x->key, &unsigned_by_us);
    assert_refused(a, "signed by another key", "signature", "found none");
    audit_free(a);
    export_free(x);
}

/* ---- keys that change ---- */

static char *fingerprint_field(EVP_PKEY *key)
{
    struct merkle_hash f;
    char hex[65], *field = NULL;

    assert_int_equal(key_fingerprint(key, &f), 0);
    enc_hex(f.octets, 32, hex);
    assert_true(asprintf(&field, "key=%s", hex) >= 0);
    return field;
}

/* The new key counts once it was announced and has signed beside the old one. */
static void verify__follows_a_change_of_keys(void **state)
{
    struct fixture *x = export_new();
    AUTO_MEM char *field = fingerprint_field(x->other);
    struct audit *a;

    (void)state;
    export_insert(x, export_at(x, "tek.generated", 0),
                  (struct step){"log.signkey", field, 1, NULL});
    x->other_from = 1;
    x->only_other_from = 2;
    export_make(x);
    a = look(x);
    assert_verified(a);
    assert_int_equal(a->n_trusted, 2);
    audit_free(a);
    export_free(x);
}

static void verify__refuses_a_key_that_was_not_introduced(void **state)
{
    static const struct {
        bool announced;
        size_t other_from, only_other_from;
    } cases[] = {{false, 1, 2}, {true, 2, 2}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture *x = export_new();
        AUTO_MEM char *field = fingerprint_field(x->other);
        struct audit *a;

        if (cases[i].announced)
            export_insert(x, export_at(x, "tek.generated", 0),
                          (struct step){"log.signkey", field, 1, NULL});
        x->other_from = cases[i].other_from;
        x->only_other_from = cases[i].only_other_from;
        export_make(x);
        a = look(x);
        assert_refused(a, "not introduced", "signature", "of a trusted key, found none");
        audit_free(a);
        export_free(x);
    }
}

/* ---- two signatures in each note ---- */

/* The valid export, every note signed by an Ed25519 key as well. */
static struct fixture *signed_twice(void)
{
    struct fixture *x = export_new();

    EVP_PKEY_free(x->other);
    x->other = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    assert_non_null(x->other);
    x->other_from = 0;
    return x;
}

static void verify__takes_either_key_and_both(void **state)
{
    struct fixture *x = signed_twice();
    struct audit *a;

    (void)state;
    export_make(x);
    for (size_t i = 0; i < 3; i++) {
        x->bring_both = i == 2;
        a = look_with(x, i == 1 ? x->other : x->key, NULL);
        assert_verified(a);
        assert_int_equal(a->n_trusted, i == 2 ? 2 : 1); /* who is not brought stays a stranger */
        audit_free(a);
    }
    export_free(x);
}

/* What is done to the lines of one note in the middle, and who finds out. */
struct line_change {
    const char *name;
    void (*change)(struct note *n);
    const char *main, *other, *both; /* text of the failure; NULL: verified */
};

static void flip_second(struct note *n)
{
    n->signature[1].octets[9] ^= 1;
}

static void swap_ids(struct note *n)
{
    uint8_t id[4];

    memcpy(id, n->signature[0].key_id, 4);
    memcpy(n->signature[0].key_id, n->signature[1].key_id, 4);
    memcpy(n->signature[1].key_id, id, 4);
}

static void swap_lines(struct note *n)
{
    struct note_signature s = n->signature[0];

    n->signature[0] = n->signature[1];
    n->signature[1] = s;
}

static void double_second(struct note *n)
{
    n->signature[n->n_signatures++] = n->signature[1];
}

static void double_second_wrongly(struct note *n)
{
    double_second(n);
    n->signature[2].octets[0] ^= 1;
}

static void drop_first(struct note *n)
{
    n->signature[0] = n->signature[1];
    n->n_signatures = 1;
}

static void drop_second(struct note *n)
{
    n->n_signatures = 1;
}

#define MISSING "expected a signature of a trusted key, found none of "
#define WRONG   "found one of a trusted key that does not"

static void verify__finds_a_line_that_a_trusted_key_demands(void **state)
{
    static const struct line_change changes[] = {
        {"second wrong", flip_second, NULL, WRONG, WRONG},
        {"ids exchanged", swap_ids, WRONG, WRONG, WRONG},
        {"lines exchanged", swap_lines, NULL, NULL, NULL},
        {"second twice", double_second, NULL, NULL, NULL},
        {"second twice, once wrong", double_second_wrongly, NULL, WRONG, WRONG},
        {"first missing", drop_first, MISSING, NULL, MISSING},
        {"second missing", drop_second, NULL, MISSING, MISSING},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        struct fixture *x = signed_twice();
        const char *expected[] = {changes[i].main, changes[i].other, changes[i].both};

        export_make_lines(x);
        export_make_notes(x);
        changes[i].change(&x->note[1]);
        export_make_files(x);
        export_make_sums(x);
        export_write(x);
        for (size_t k = 0; k < 3; k++) {
            struct audit *a;

            x->bring_both = k == 2;
            a = look_with(x, k == 1 ? x->other : x->key, NULL);
            if (expected[k])
                assert_refused(a, changes[i].name, "signature", expected[k]);
            else
                assert_verified(a);
            audit_free(a);
        }
        export_free(x);
    }
}

/* Set from some note on: who trusts that key alone is told who signed the others. */
static void verify__says_who_signed_before_the_second_key(void **state)
{
    struct fixture *x = signed_twice();
    char text[128], hex[9];
    struct audit *a;
    uint8_t id[4];

    (void)state;
    x->other_from = 2;
    export_make(x);
    a = look(x);
    assert_verified(a);
    audit_free(a);
    a = look_with(x, x->other, NULL);
    assert_int_equal(note_key_id(x->origin, x->key, id), 0);
    enc_hex(id, sizeof id, hex);
    (void)snprintf(text, sizeof text, "; it is signed by %s)", hex);
    assert_refused(a, "before", "signature", text);
    audit_free(a);
    export_free(x);
}

/* Of two keys one is changed: the new one takes its place, and the other is still demanded. */
static void verify__a_new_key_takes_the_place_of_its_kind(void **state)
{
    struct fixture *x = signed_twice();
    EVP_PKEY *new = EVP_EC_gen("P-256");
    AUTO_MEM char *field = fingerprint_field(new);

    (void)state;
    export_insert(x, export_at(x, "tek.generated", 0),
                  (struct step){"log.signkey", field, 1, NULL});
    x->bring_both = true;
    for (size_t k = 0; k < 2; k++) { /* k 1: by the new key alone at the end */
        struct audit *a;

        export_make_lines(x);
        export_make_notes(x);
        export_add_signature(&x->note[1], new);
        for (size_t i = 2; i < x->n_notes; i++) {
            x->note[i] = export_sign(x, x->sign_at[i], new);
            if (k == 0)
                export_add_signature(&x->note[i], x->other);
        }
        export_make_files(x);
        export_add_key(x, new);
        export_make_sums(x);
        export_write(x);
        a = look(x);
        if (k == 0)
            assert_verified(a);
        else
            assert_refused(a, "the other is missing", "signature", MISSING);
        assert_int_equal(a->n_trusted, 3);
        audit_free(a);
    }
    EVP_PKEY_free(new);
    export_free(x);
}

/* One of another kind is introduced: its lines count for nothing but to be right. */
static void verify__a_new_key_takes_no_place_of_another_kind(void **state)
{
    static const struct {
        const char *name;
        bool main, other, flip; /* the lines of the last note, the second one damaged */
        const char *text;       /* NULL: verified */
    } cases[] = {
        {"both", true, true, false, NULL},
        {"the old one alone", true, false, false, NULL},
        {"the new one alone", false, true, false, MISSING},
        {"the new one wrong", true, true, true, WRONG},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture *x = signed_twice();
        AUTO_MEM char *field = fingerprint_field(x->other);
        struct note *n;
        struct audit *a;

        export_insert(x, export_at(x, "tek.generated", 0),
                      (struct step){"log.signkey", field, 1, NULL});
        x->other_from = 1;
        export_make_lines(x);
        export_make_notes(x);
        n = &x->note[x->n_notes - 1];
        if (!cases[i].main)
            drop_first(n);
        if (!cases[i].other)
            drop_second(n);
        if (cases[i].flip)
            flip_second(n);
        export_make_files(x);
        export_make_sums(x);
        export_write(x);
        a = look(x);
        if (cases[i].text)
            assert_refused(a, cases[i].name, "signature", cases[i].text);
        else
            assert_verified(a);
        assert_int_equal(a->n_trusted, 2);
        audit_free(a);
        export_free(x);
    }
}

/* A crash may leave a log.signkey that no note covers, and the next start adds another. */
static void verify__takes_a_key_that_was_named_twice(void **state)
{
    struct fixture *x = export_new();
    AUTO_MEM char *field = fingerprint_field(x->other);
    struct audit *a;

    (void)state;
    for (int i = 0; i < 2; i++)
        export_insert(x, export_at(x, "tek.generated", 0),
                      (struct step){"log.signkey", field, 1, NULL});
    export_insert(x, export_at(x, "answer.sent", 1), (struct step){"log.signkey", field, 1, NULL});
    x->other_from = 1;
    x->only_other_from = 2;
    export_make(x);
    a = look(x);
    assert_verified(a);
    assert_int_equal(a->n_trusted, 2);
    audit_free(a);
    export_free(x);
}

static void verify__leaves_a_named_key_alone_that_never_signs(void **state)
{
    struct fixture *x = export_new();
    AUTO_MEM char *field = fingerprint_field(x->other);

    (void)state;
    export_insert(x, export_at(x, "tek.generated", 0),
                  (struct step){"log.signkey", field, 1, NULL});
    for (size_t i = 0; i < 2; i++) { /* i 1: it signs the last note, alone */
        struct audit *a;

        export_make_lines(x);
        x->only_other_from = i == 0 ? NOTES_MAX : x->n_notes - 1;
        export_make_notes(x);
        export_make_files(x);
        export_make_sums(x);
        export_write(x);
        a = look(x);
        if (i == 0)
            assert_verified(a);
        else
            assert_refused(a, "alone", "signature", MISSING);
        assert_int_equal(a->n_trusted, 1);
        audit_free(a);
    }
    export_free(x);
}

/* ---- epochs ---- */

#define ORIGIN_2 "bsm.example.net/tekd/audit/2"

/* An export of the second epoch that begins with this note (NULL: none). */
static struct fixture *second_epoch(char *note)
{
    struct fixture *x = export_new();
    static char opened[NOTE_MAX + 128];

    (void)snprintf(opened, sizeof opened, "origin=" ORIGIN_2 "|heartbeat#300%s%s",
                   note ? "|note=" : "", note ? note : "");
    (void)snprintf(x->origin, sizeof x->origin, ORIGIN_2);
    x->n_steps = 0;
    export_append(x, (struct step){"log.opened", opened, 0, NULL});
    /* A key and a BSA of the epoch before. */
    export_append(
        x, (struct step){"request.answered", "mid=m-1|content=c|keyid=" KEY_1 ANSWERED, 1, NULL});
    export_append(x,
                  (struct step){"answer.sent", "ref=1/7|mid=m-0|peer=bsa-1|out=" HASH_1, 1, NULL});
    export_append(x, (struct step){"log.stopped", "", 1, NULL});
    export_append(x, (struct step){CHECKPOINT, NULL, 0, NULL});
    return x;
}

/* The export, signed by this key. */
static void sign_as(struct fixture *x, EVP_PKEY *key)
{
    EVP_PKEY_free(x->key);
    assert_int_equal(EVP_PKEY_up_ref(key), 1);
    x->key = key;
    export_make(x);
}

static struct audit *look_as(struct fixture *x, EVP_PKEY *key)
{
    sign_as(x, key);
    return look(x);
}

static void look_second(struct fixture *x, EVP_PKEY *key, const struct note *since,
                        const char *check, const char *text)
{
    struct audit *a;

    sign_as(x, key);
    a = look_with(x, key, since);
    if (check)
        assert_refused(a, text, check, text);
    else
        assert_verified(a);
    audit_free(a);
    export_free(x);
}

static void verify__links_an_epoch_to_the_one_before(void **state)
{
    struct fixture *first = export_new();
    struct note last, earlier, foreign, unsigned_by_us;

    (void)state;
    export_make(first);
    last = first->note[first->n_notes - 1];
    earlier = first->note[1];
    unsigned_by_us = export_sign(first, 9, first->other);
    (void)snprintf(first->origin, sizeof first->origin, "bsm.example.org/tekd/audit/1");
    foreign = export_sign(first, 9, first->key);

    AUTO_MEM char *text = export_note_text(&last);
    AUTO_MEM char *foreign_text = export_note_text(&foreign);
    AUTO_MEM char *unsigned_text = export_note_text(&unsigned_by_us);
    /* '=' and '|' end nothing behind the first '=' but '|', which no note has. */
    look_second(second_epoch(text), first->key, NULL, NULL, NULL);
    look_second(second_epoch(text), first->key, &last, NULL, NULL);
    look_second(second_epoch(text), first->key, &earlier, "since",
                "as the last one of its epoch, found size");
    look_second(second_epoch(NULL), first->key, NULL, "epoch",
                "expected the last note of the epoch before, found none");
    look_second(second_epoch(foreign_text), first->key, NULL, "epoch",
                "found one of bsm.example.org/tekd/audit/1");
    look_second(second_epoch(unsigned_text), first->key, NULL, "signature",
                "of a trusted key, found none");
    look_second(second_epoch((char[]){"x"}), first->key, NULL, "epoch",
                "expected a note in field note");
    export_free(first);
}

/* What the instance that goes on promised stands in record 0; what is carried may have left before.
 */
static void verify__holds_an_epoch_to_what_its_first_record_says(void **state)
{
    static const struct {
        const char *release, *check, *text;
        enum release counted;
    } cases[] = {
        {"|release=signed", "release", "before its answer was sent", RELEASE_SIGNED},
        {"|release=durable", NULL, NULL, RELEASE_DURABLE},
        {"", NULL, NULL, RELEASE_UNKNOWN},
        {"|release=later", "field", "expected release signed or durable", RELEASE_UNKNOWN}};
    struct fixture *first = export_new();

    (void)state;
    export_make(first);
    AUTO_MEM char *text = export_note_text(&first->note[first->n_notes - 1]);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture *x = second_epoch(text);
        AUTO_MEM char *opened = NULL;
        struct audit *a;

        assert_true(asprintf(&opened, "%s%s", x->step[0].fields, cases[i].release) >= 0);
        x->step[0].fields = opened;
        export_insert(
            x, 2, (struct step){"answer.sent", "ref=2/1|mid=m-1|peer=bsa-1|out=" HASH_1, 1, NULL});
        a = look_as(x, first->key);
        if (cases[i].check)
            assert_refused(a, cases[i].release, cases[i].check, cases[i].text);
        else
            assert_verified(a);
        assert_int_equal(a->counts.starts[cases[i].counted], 1);
        audit_free(a);
        export_free(x);
    }
    export_free(first);
}

static void verify__lets_a_carried_delivery_have_left_before(void **state)
{
    static const char fields[] =
        "ref=1/5|mid=d-1|peer=bsa-1|content=c|keyid=" KEY_1 "|kekid=bsa-1/1|out=" HASH_1;
    struct fixture *first = export_new(), *x;
    AUTO_MEM char *opened = NULL;
    struct audit *a;

    (void)state;
    export_make(first);
    AUTO_MEM char *text = export_note_text(&first->note[first->n_notes - 1]);
    x = second_epoch(text);
    assert_true(asprintf(&opened, "%s|release=signed", x->step[0].fields) >= 0);
    x->step[0].fields = opened;
    export_insert(x, 1, (struct step){"delivery.carried", fields, 0, NULL});
    export_insert(x, 2,
                  (struct step){"delivery.confirmed",
                                "ref=2/1|mid=d-1|peer=bsa-1|cert=" HASH_1 "|out=" HASH_1, 1, NULL});
    a = look_as(x, first->key);
    assert_verified(a);
    assert_int_equal(a->counts.confirmed, 1);
    assert_int_equal(a->counts.early, 0);
    audit_free(a);
    export_free(x);
    export_free(first);
}

/* One that is missing among what was carried cannot be sent, nor be confirmed unless it was late.
 */
static void verify__refuses_an_attempt_of_what_was_not_carried(void **state)
{
#define OF_BEFORE "ref=1/5|mid=d-1|peer=bsa-1|cert=" HASH_1 "|out=" HASH_1
    static const struct {
        const char *event, *fields, *text;
    } cases[] = {
        {"delivery.attempt", "ref=1/5|mid=d-1|peer=bsa-1|addr=x", "expected delivery.attempt of"},
        {"delivery.confirmed", OF_BEFORE, "carried into it, found it of 1/5"},
        {"delivery.confirmed", OF_BEFORE "|late?false", "expected delivery.confirmed of"},
        {"delivery.confirmed", OF_BEFORE "|late?true", NULL},
        {"delivery.rejected", "ref=1/5|mid=d-1|peer=bsa-1", NULL}};
    struct fixture *first = export_new();

    (void)state;
    export_make(first);
    AUTO_MEM char *text = export_note_text(&first->note[first->n_notes - 1]);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture *x = second_epoch(text);
        struct audit *a;

        export_insert(x, 1, (struct step){cases[i].event, cases[i].fields, 1, NULL});
        a = look_as(x, first->key);
        if (cases[i].text)
            assert_refused(a, cases[i].fields, "delivery", cases[i].text);
        else
            assert_verified(a);
        audit_free(a);
        export_free(x);
    }
    export_free(first);
}

/* ---- the parts ---- */

static void pool_add__numbers_each_string_once(void **state)
{
    AUTO(pool) struct pool *p = NULL;
    char text[16];
    uint32_t id;
    bool is_new;

    (void)state;
    assert_int_equal(pool_new(&p), 0);
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < 5000; i++) {
            (void)snprintf(text, sizeof text, "s-%u", i);
            assert_int_equal(pool_add(p, text, strlen(text), &id, &is_new), 0);
            assert_int_equal(id, i);
            assert_int_equal(is_new, round == 0);
        }
    assert_int_equal(pool_count(p), 5000);
    assert_string_equal(pool_text(p, 4321), "s-4321");
    assert_int_equal(pool_find(p, "s-17", 4, &id), 0);
    assert_int_equal(id, 17);
    assert_int_equal(pool_find(p, "s-5000", 6, &id), TEKD_ENOTFOUND);
    assert_int_equal(pool_add(p, "a\0b", 3, &id, &is_new), 0);
    assert_int_equal(pool_find(p, "a\0c", 3, &id), TEKD_ENOTFOUND);
    assert_int_equal(pool_find(p, "a", 1, &id), TEKD_ENOTFOUND);
}

static void key_parse__takes_pem_and_der(void **state)
{
    EVP_PKEY *key = EVP_EC_gen("P-256"), *again = NULL;
    EVP_PKEY *p384 = EVP_EC_gen("P-384");
    uint8_t der[256], *p = der;
    int len = i2d_PUBKEY(key, &p);

    (void)state;
    assert_int_equal(key_parse(der, (size_t)len, &again), 0);
    assert_int_equal(EVP_PKEY_eq(key, again), 1);
    EVP_PKEY_free(again);
    again = NULL;
    assert_int_equal(key_parse(der, (size_t)len + 1, &again), TEKD_EFORMAT);
    assert_int_equal(key_parse(der, (size_t)len - 1, &again), TEKD_EFORMAT);
    p = der;
    len = i2d_PUBKEY(p384, &p);
    assert_int_equal(key_parse(der, (size_t)len, &again), TEKD_EFORMAT);
    assert_null(again);
    EVP_PKEY_free(key);
    EVP_PKEY_free(p384);
}

static void key_parse__asks_nobody_for_a_passphrase(void **state)
{
    EVP_PKEY *key = EVP_EC_gen("P-256"), *again = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    const uint8_t *pem;
    char *text;
    long len;

    (void)state;
    assert_true(PEM_ASN1_write_bio((i2d_of_void *)i2d_PUBKEY, PEM_STRING_PUBLIC, bio, key,
                                   EVP_aes_128_cbc(), (const unsigned char *)"secret", 6, NULL,
                                   NULL) == 1);
    len = BIO_get_mem_data(bio, &text);
    pem = (const uint8_t *)text;
    assert_non_null(memmem(text, (size_t)len, "ENCRYPTED", 9));
    passphrase_offer();
    assert_int_equal(key_parse(pem, (size_t)len, &again), TEKD_EFORMAT);
    assert_null(again);
    BIO_free(bio);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_add__takes_any_number),
        cmocka_unit_test(verify__takes_the_export_that_nobody_touched),
        cmocka_unit_test(verify__checks_messages),
        cmocka_unit_test(verify__holds_a_server_to_its_promise_of_release),
        cmocka_unit_test(verify__counts_keys_that_left_early_whatever_was_said),
        cmocka_unit_test(verify__takes_the_note_of_since_for_the_promise),
        cmocka_unit_test(verify__checks_keys),
        cmocka_unit_test(verify__checks_when_repeats_were_decided),
        cmocka_unit_test(verify__checks_lives_and_time),
        cmocka_unit_test(verify__checks_the_fields_of_events),
        cmocka_unit_test(verify__checks_deliveries),
        cmocka_unit_test(verify__counts_what_became_of_deliveries),
        cmocka_unit_test(verify__keeps_what_was_given_up),
        cmocka_unit_test(verify__takes_no_confirmation_that_is_unattested),
        cmocka_unit_test(verify__takes_a_note_that_the_log_extends),
        cmocka_unit_test(verify__refuses_a_log_that_does_not_extend_the_note),
        cmocka_unit_test(verify__follows_a_change_of_keys),
        cmocka_unit_test(verify__refuses_a_key_that_was_not_introduced),
        cmocka_unit_test(verify__takes_either_key_and_both),
        cmocka_unit_test(verify__finds_a_line_that_a_trusted_key_demands),
        cmocka_unit_test(verify__says_who_signed_before_the_second_key),
        cmocka_unit_test(verify__a_new_key_takes_the_place_of_its_kind),
        cmocka_unit_test(verify__a_new_key_takes_no_place_of_another_kind),
        cmocka_unit_test(verify__takes_a_key_that_was_named_twice),
        cmocka_unit_test(verify__leaves_a_named_key_alone_that_never_signs),
        cmocka_unit_test(verify__links_an_epoch_to_the_one_before),
        cmocka_unit_test(verify__holds_an_epoch_to_what_its_first_record_says),
        cmocka_unit_test(verify__lets_a_carried_delivery_have_left_before),
        cmocka_unit_test(verify__refuses_an_attempt_of_what_was_not_carried),
        cmocka_unit_test(pool_add__numbers_each_string_once),
        cmocka_unit_test(key_parse__takes_pem_and_der),
        cmocka_unit_test(key_parse__asks_nobody_for_a_passphrase),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
