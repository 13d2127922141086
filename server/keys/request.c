/*
 * The first half of a Key Request, straight-line code on a request thread:
 *
 *     who is it -> what does it say -> may it -> was it answered before -> which TEK
 *         -> the TEK wrapped for it (cache, store, HSM) -> the answer -> submitted (settle.c)
 *
 * Every step either goes on or ends the request, by an answer or by beginning anew later.
 */
#include "internal.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* ---- who, and what --------------------------------------------------------------------------- */

static void refuse_stranger(struct keys_work *w, const struct bsa_state *s)
{
    struct keys_asker a;
    struct keys_reply reply;

    memcpy(a.cert_sha256, w->r->cert_sha256, sizeof(a.cert_sha256));
    memcpy(a.addr, w->r->addr, sizeof(a.addr));
    peer_refuse_stranger(w->k, &a, s, &reply);
    work_reply(w, &reply);
}

/* A request that is broken or out of place: recorded like a refusal, answered as a problem. */
static void reject(struct keys_work *w, const struct reply_problem *problem,
                   const struct cp3_error *err)
{
    const char *id = w->bsa->row->id;
    const char *mid = err ? err->message_id : w->request.message_id;
    const struct refusal what = {.event = "request.refused",
                                 .who = id,
                                 .peer = id,
                                 .reason = problem->reason == CP3_REASON_NONE
                                               ? "malformed"
                                               : cp3_reason_name(problem->reason),
                                 .mid = mid[0] ? mid : NULL,
                                 .addr = w->r->addr,
                                 .cert = w->r->cert_sha256};
    struct keys_reply reply;

    atomic_fetch_add(&w->k->refused, 1);
    keys_record_refusal(w->k, &what, LIMIT_REFUSED_PER_MINUTE);
    /* What is no XML or JSON at all is not answered as a message, whatever was read before. */
    if (err && err->code == CP3_EFORMAT && err->tag == CP3_REQUEST && err->message_id[0]) {
        const struct reply_refusal refusal = {.media = w->media,
                                              .form = CP3_EFFICIENT,
                                              .reason = CP3_REASON_MALFORMED,
                                              .message_id = err->message_id,
                                              .status = 400};
        reply_refuse(&refusal, &reply);
    } else {
        reply_problem(problem, &reply);
    }
    work_reply(w, &reply);
}

static void reject_media(struct keys_work *w)
{
    const struct reply_problem problem = {
        .status = 415,
        .title = "unsupported media type",
        .detail = "Content-Type must be application/xml, text/xml or application/json, in UTF-8"};

    reject(w, &problem, NULL);
}

static void reject_broken(struct keys_work *w, const struct cp3_error *err)
{
    const struct reply_problem problem = {.status = err->code == CP3_ETOOBIG ? 413 : 400,
                                          .reason = CP3_REASON_MALFORMED,
                                          .title = "not a CP-3 message",
                                          .where = err};

    reject(w, &problem, err);
}

static void reject_tag(struct keys_work *w)
{
    const struct reply_problem stray = {.status = 400,
                                        .reason = CP3_REASON_MALFORMED,
                                        .title = "this message does not belong here",
                                        .detail = "line 1, Tag: a Key Request (Tag 1) or a "
                                                  "Confirmation (Tag 4) is expected"};

    reject(w, &stray, NULL);
}

/* Returns whether the request goes on. */
static bool identify(struct keys_work *w)
{
    w->bsa = registry_by_cert(w->k->registry, w->r->cert_sha256);
    if (!w->bsa || !w->bsa->row->enabled) {
        refuse_stranger(w, w->bsa);
        return false;
    }
    if (atomic_fetch_add(&w->bsa->bsa->in_flight, 1) >= w->k->per_bsa_concurrency) {
        atomic_fetch_sub(&w->bsa->bsa->in_flight, 1);
        work_busy(w);
        return false;
    }
    w->counted = true;
    return true;
}

static bool decode(struct keys_work *w, struct cp3_reader *reader)
{
    struct keys_request *r = w->r;
    struct cp3_error err = {.code = 0};
    int result = cp3_media_from_content_type(r->content_type, strlen(r->content_type), &w->media);

    if (result < 0) {
        reject_media(w);
        return false;
    }
    result = cp3_read(reader, w->media, r->body, r->body_len, &w->request, &err);
    if (result < 0) {
        w->request.message_id[0] = '\0';
        if (result == CP3_ENOMEM)
            work_busy(w);
        else
            reject_broken(w, &err);
        return false;
    }
    if (w->request.tag != CP3_REQUEST && w->request.tag != CP3_CONFIRMATION) {
        reject_tag(w);
        return false;
    }
    SHA256(r->body, r->body_len, w->req_sha256);
    w->form = w->bsa->row->form == STORE_FORM_EFFICIENT ? CP3_EFFICIENT : CP3_FULL;
    return true;
}

/* ---- which TEK ------------------------------------------------------------------------------- */

static bool may_make_content(const struct keys_work *w)
{
    return w->k->auto_content &&
           atomic_load(&w->bsa->bsa->auto_contents) < w->k->per_bsa_auto_contents;
}

/* First requests for one content: one asks the HSM, the others wait and find what it made. */
static int enter_content(struct keys_work *w)
{
    char name[STORE_CONTENT_MAX + 2];
    int n = snprintf(name, sizeof(name), "c%s", w->request.content_id);

    return flights_enter(w->k->flights, name, (size_t)n, w->r, &w->content_flight);
}

void work_answer(struct keys_work *w)
{
    int r;

    w->time_us = clock_utc_us();
    r = work_encode(w);
    if (r < 0)
        work_error(w, "writing the answer", r);
    else
        work_submit(w);
}

/* Content or period stand in the way; but a used MessageID is said before those. */
static void refuse_unless_used(struct keys_work *w, enum cp3_reason reason)
{
    int r = work_look(w);

    if (r == TEKD_ENOTFOUND)
        work_refuse(w, reason);
}

static void make_once(struct keys_work *w)
{
    int r;

    /* Who is parked comes after the first has been answered: that one must not wait for it. */
    work_unexpect(w);
    r = w->made.new_tek ? enter_content(w) : 0;
    if (r == TEKD_EAGAIN)
        return; /* parked: not ours any more */
    if (r < 0) {
        work_error(w, "joining the requests under way", r);
        return;
    }
    work_expect(w);
    work_make(w);
}

static void find_and_answer(struct keys_work *w)
{
    int r = work_find(w);

    if (r == TEKD_ENOTFOUND && !may_make_content(w)) {
        refuse_unless_used(w, CP3_REASON_UNKNOWN_CONTENT);
        return;
    }
    if (r == TEKD_ENOTFOUND) {
        w->made.new_content = w->made.new_tek = true;
        w->made.version = 1;
        w->made.key.bits = w->k->auto_bits;
        r = 0;
    }
    if (r == TEKD_EDENIED || (w->made.new_content && work_asked(w) >= 0))
        refuse_unless_used(w, CP3_REASON_NO_PERIOD);
    else if (r < 0)
        work_error(w, "looking for the TEK", r);
    else if (w->made.new_tek || w->made.new_export)
        make_once(w);
    else
        work_answer(w);
}

/* ---- one request ----------------------------------------------------------------------------- */

/* Fresh, or begun anew: what was decided before does not count. */
static struct keys_work *work_begin(struct keys *k, struct keys_request *r)
{
    struct keys_work *w = r->work;

    if (!w) {
        w = calloc(1, sizeof(*w));
        if (!w)
            return NULL;
        w->k = k;
        w->r = r;
        r->work = w;
    }
    work_let_go(w);
    w->tek_generation = atomic_load(&k->tek_generation);
    w->made = (struct key_material){.new_tek = false};
    return w;
}

/*
 * A repeat that comes while the first is under way joins it.  Who has waited once does not again:
 * the first has been answered then, or else they do the same work and the store takes one of them.
 */
static int enter_message(struct keys_work *w)
{
    char name[STORE_ID_MAX + 40];
    int n;

    if (w->joined)
        return 0;
    w->joined = true; /* before it can be another thread's */
    n = snprintf(name, sizeof(name), "m%lld/%s", (long long)w->bsa->row->row,
                 w->request.message_id);

    return flights_enter(w->k->flights, name, (size_t)n, w->r, &w->message_flight);
}

static void decide(struct keys_work *w)
{
    enum cp3_reason reason = policy_check(w->k, w->bsa, &w->request);
    int r;

    if (reason != CP3_REASON_NONE) {
        work_refuse(w, reason);
        return;
    }
    r = enter_message(w);
    if (r == TEKD_EAGAIN)
        return;
    if (r < 0) {
        work_error(w, "joining the requests under way", r);
        return;
    }
    work_expect(w);
    w->made.kek = w->bsa->row->kek.row;
    w->made.wrap = w->bsa->row->kek.kek.wrap;
    memcpy(w->made.kek_name, w->bsa->row->kek.name, sizeof(w->made.kek_name));
    if (w->look_first && work_look(w) != TEKD_ENOTFOUND)
        return;
    find_and_answer(w);
}

void keys_handle(struct keys *k, struct cp3_reader *reader, struct keys_request *r)
{
    struct keys_work *w;

    w = work_begin(k, r);
    if (!w) {
        struct keys_reply reply;
        keys_busy_reply(CP3_XML, NULL, &reply);
        r->reply(r, &reply);
        return;
    }
    if (!identify(w) || !decode(w, reader))
        return;
    if (w->request.tag == CP3_CONFIRMATION) {
        confirm_work(w);
        return;
    }
    if (!w->announced)
        r->known(r, w->media, w->request.message_id);
    w->announced = true;
    if (clock_mono_us() > r->deadline_us || w->attempts > KEYS_ATTEMPTS_MAX)
        work_busy(w);
    else
        decide(w);
}

void keys_abandon(struct keys *k, struct keys_request *r)
{
    (void)k;
    work_busy(r->work);
}
