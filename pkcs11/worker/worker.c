/*
 * A worker: opens the token, logs in, tells the supervisor, then answers one datagram after
 * the other until the pool closes the socket.
 *
 * A call of the module that failed (TEKD_EHSM) may mean a lost link, a stale handle or a session
 * that is no more; which of them, no two modules say alike, and many answer the same for ever
 * until they are loaded anew.  So the worker says so in its reply and ends; a fresh one takes its
 * place.  Errors about the request itself (no such key, a blob that is none) end nothing.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/err.h"
#include "tekd/log.h"
#include "worker.h"

/* A module that hangs while it is finalised is not waited for. */
#define FINALISE_S 3
/* Nor one that hangs in a login while nobody is left to end it. */
#define LOGIN_S 30

struct worker {
    const struct worker_options *o;
    struct token *token;
    struct keks *keks; /* of key workers */
    /* Of the others, by enum protocol_key.  NULL: there is no such key; those but the first are of
     * the audit worker alone. */
    struct token_signing *key[PROTOCOL_KEYS];
    struct signer *signer; /* of the audit worker */
    bool prevents_wrap_out;
    struct token_tek held; /* unwrapped for one export, and what the next one needs too */
    struct buf *out;
    uint8_t in[PROTOCOL_MAX];                      /* a datagram ... */
    struct protocol_request rq[PROTOCOL_MANY_MAX]; /* ... with n_rq of these */
    size_t n_rq;
};

/* ---------------------------------------------------------------- verbs ------------ */

static bool ends_worker(int r)
{
    return r == TEKD_EHSM || r == TEKD_ENOMEM;
}

/* The TEK goes whatever happened to it; one that stays behind ends the worker, and goes with its
 * session. */
static int destroyed(struct worker *w, struct token_tek *tek, int r)
{
    int d = token_tek_destroy(w->token, tek);

    return d < 0 && !ends_worker(r) ? d : r;
}

static int do_issue(struct worker *w, const struct protocol_request *rq,
                    struct protocol_reply *reply)
{
    const struct protocol_issue *in = &rq->issue;
    const struct token_kek *storage = NULL;
    const struct token_kek *bsa = NULL;
    struct token_tek tek = {0};
    int r = keks_get(w->keks, &in->storage, &storage);

    reply->issued.data.len = 0;
    if (r == 0 && in->bsa.use != 0)
        r = keks_get(w->keks, &in->bsa, &bsa);
    if (r == 0)
        r = token_tek_generate(w->token, in->bits, &tek);
    if (r < 0)
        return r;
    r = token_tek_wrap(w->token, storage, &tek, &reply->issued.stored);
    if (r == 0 && bsa != NULL)
        r = token_tek_wrap(w->token, bsa, &tek, &reply->issued.data);
    return destroyed(w, &tek, r);
}

/* Whether the request behind this one exports the same TEK. */
static bool next_is_of_the_same(struct worker *w, const struct protocol_request *rq,
                                const struct token_kek *storage)
{
    const struct protocol_export *in = &rq->export, *next;
    const struct token_kek *kek;

    if (rq + 1 == w->rq + w->n_rq || rq[1].verb != PROTOCOL_EXPORT)
        return false;
    next = &rq[1].export;
    return next->bits == in->bits && next->stored.len == in->stored.len &&
           memcmp(next->stored.octets, in->stored.octets, in->stored.len) == 0 &&
           keks_get(w->keks, &next->storage, &kek) == 0 && kek == storage;
}

/* A TEK that goes to several BSAs is unwrapped once for all that one datagram asks for. */
static int do_export(struct worker *w, const struct protocol_request *rq,
                     struct protocol_reply *reply)
{
    const struct protocol_export *in = &rq->export;
    const struct token_kek *storage = NULL;
    const struct token_kek *bsa = NULL;
    struct token_tek tek = w->held;
    int r = keks_get(w->keks, &in->storage, &storage);

    w->held = (struct token_tek){0};
    if (r == 0)
        r = keks_get(w->keks, &in->bsa, &bsa);
    if (r == 0 && tek.object == 0)
        r = token_tek_unwrap(w->token, storage, &in->stored, in->bits, &tek);
    if (r == 0)
        r = token_tek_wrap(w->token, bsa, &tek, &reply->data);
    if (ends_worker(r) || !next_is_of_the_same(w, rq, storage))
        return destroyed(w, &tek, r);
    w->held = tek;
    return r;
}

/* Without a KEK it is what keeps a link alive: real work for the token that leaves nothing. */
static int do_health(struct worker *w, const struct protocol_request *rq,
                     struct protocol_reply *reply)
{
    const struct token_kek *storage = NULL;
    struct hsm_blob blob;
    struct token_tek tek = {0};
    int r = 0;

    (void)reply;
    if (rq->health.use != 0)
        r = w->keks == NULL ? TEKD_EDENIED : keks_get(w->keks, &rq->health, &storage);
    if (r == 0)
        r = token_tek_generate(w->token, 128, &tek);
    if (r < 0)
        return r;
    if (storage != NULL)
        r = token_tek_wrap(w->token, storage, &tek, &blob);
    return destroyed(w, &tek, r);
}

/* Reads the attributes back, then tries to write to the key: no token may allow that. */
static int do_describe(struct worker *w, const struct protocol_request *rq,
                       struct protocol_reply *reply)
{
    const struct protocol_describe *in = &rq->describe;
    struct hsm_kek_report *report = &reply->report;
    AUTO(token_kek) struct token_kek *kek = NULL;
    int r;

    *report = (struct hsm_kek_report){.kek = {.use = in->use, .wrap = in->wrap}};
    r = token_kek_describe(w->token, in->label, in->use, in->wrap, report);
    report->kek.use = in->use;
    report->kek.wrap = in->wrap;
    if (r < 0)
        return r;
    r = token_kek_find(w->token, &report->kek, &kek);
    if (r == 0)
        r = token_attack_rewrite(w->token, kek);
    if (r < 0)
        (void)snprintf(report->text, sizeof(report->text), "%s", token_reason(w->token));
    return r;
}

static int do_checkpoint(struct worker *w, const struct protocol_request *rq,
                         struct protocol_reply *reply)
{
    return signer_checkpoint(w->signer, &rq->checkpoint, &reply->note);
}

static int do_sign_tls(struct worker *w, const struct protocol_request *rq,
                       struct protocol_reply *reply)
{
    return token_signing_sign(w->key[PROTOCOL_KEY_MAIN], rq->digest.octets, rq->digest.len,
                              &reply->signature);
}

static int do_public_key(struct worker *w, const struct protocol_request *rq,
                         struct protocol_reply *reply)
{
    struct token_signing *key = w->key[rq->key];

    return key == NULL ? TEKD_EINVAL : signer_spki(token_signing_public(key), &reply->spki);
}

typedef int serve_fn(struct worker *w, const struct protocol_request *rq,
                     struct protocol_reply *reply);

static serve_fn *const verbs[] = {
    [PROTOCOL_ISSUE] = do_issue,           [PROTOCOL_EXPORT] = do_export,
    [PROTOCOL_HEALTH] = do_health,         [PROTOCOL_SIGN_CHECKPOINT] = do_checkpoint,
    [PROTOCOL_SIGN_TLS] = do_sign_tls,     [PROTOCOL_DESCRIBE] = do_describe,
    [PROTOCOL_PUBLIC_KEY] = do_public_key,
};

/* ---------------------------------------------------------------- serving ---------- */

/* Reads the whole datagram into w->rq.  Errors: TEKD_EFORMAT; rq[0] then has what could be read of
 * the verb and the id of the first, else 0. */
static int read_requests(struct worker *w, size_t len)
{
    struct view v = view_of(w->in, len);
    int r = len > PROTOCOL_MAX ? TEKD_EFORMAT : 0;

    w->n_rq = 0;
    w->rq[0].verb = 0;
    w->rq[0].id = 0;
    do {
        if (r == 0 && w->n_rq == PROTOCOL_MANY_MAX)
            r = TEKD_EFORMAT;
        if (r == 0)
            r = protocol_next_request(&v, &w->rq[w->n_rq++]);
    } while (r == 0 && v.left > 0);
    return r;
}

/* r: 0, or why it is refused. */
static void answer(struct worker *w, const struct protocol_request *rq, int r,
                   struct protocol_reply *reply)
{
    /* A verb that there is not has no reply either: the pool takes that for a lost worker. */
    reply->verb = rq->verb;
    reply->id = rq->id;
    if (r == 0 && !protocol_role_serves(w->o->role, rq->verb))
        r = TEKD_EDENIED;
    if (r < 0)
        log_event(LOG_ERROR, "hsm", "request-refused", LOG_STR("error", tekd_errname(r)),
                  LOG_STR("role", protocol_role_name(w->o->role)),
                  LOG_STR("call", protocol_verb_name(reply->verb)));
    else
        r = verbs[rq->verb](w, rq, reply);
    reply->error = r;
    reply->leaving = ends_worker(r);
}

/* One datagram.  What stands behind a request that ends the worker gets no reply.  Returns whether
 * the worker goes on. */
static bool serve(struct worker *w)
{
    struct protocol_reply reply = {.leaving = false};
    ssize_t n;
    int r;

    do
        n = recv(WORKER_SOCKET_FD, w->in, sizeof(w->in), MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return false;
    buf_reset(w->out);
    r = read_requests(w, (size_t)n);
    if (r < 0)
        w->n_rq = 1; /* refused as one */
    for (size_t i = 0; i < w->n_rq && !reply.leaving; i++) {
        answer(w, &w->rq[i], r, &reply);
        if (protocol_add_reply(w->out, &reply) < 0)
            return false;
    }
    if (send(WORKER_SOCKET_FD, buf_data(w->out), buf_len(w->out), MSG_NOSIGNAL) < 0)
        return false;
    return !reply.leaving;
}

/* ---------------------------------------------------------------- start ------------ */

/*
 * SoftHSM writes the token's file anew at every login, in place: whoever dies in the middle of it
 * leaves an empty file and no token.  So the death of our parent ends us a little later, and the
 * alarm ends us should the module hang meanwhile.
 */
static int shielded_login(struct worker *w, const struct secret *pin)
{
    int r;

    (void)alarm(LOGIN_S);
    (void)prctl(PR_SET_PDEATHSIG, 0);
    r = token_login(w->token, pin);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)alarm(0);
    if (getppid() != w->o->parent)
        _exit(1);
    return r;
}

static int log_in(struct worker *w)
{
    AUTO(secret) struct secret *pin = NULL;
    int r = secret_read_fd(WORKER_PIN_FD, &pin);

    (void)close(WORKER_PIN_FD);
    return r < 0 ? r : shielded_login(w, pin);
}

static int open_token(struct worker *w)
{
    const struct control_configure *c = w->o->configure;
    const struct token_options o = {.module = c->module,
                                    .uri = c->token,
                                    .profile = c->profile[0] == 0 ? NULL : c->profile,
                                    .access = TOKEN_READ_ONLY};
    int r = token_new(&o, &w->token);

    if (r == 0)
        r = token_open(w->token);
    if (r == 0)
        r = log_in(w);
    return r;
}

static int play_attacks(struct worker *w)
{
    struct token_attacks a = {.tek_wrapped_out = true};
    int r;

    w->prevents_wrap_out = w->o->prevents_wrap_out;
    if (!w->o->play_attacks)
        return 0;
    r = token_attack_play(w->token, &a);
    w->prevents_wrap_out = !a.tek_wrapped_out;
    return r;
}

static int prepare_signer(struct worker *w)
{
    const struct control_configure *c = w->o->configure;
    const struct {
        enum token_signer kind;
        const char *label; /* empty: there is none */
    } keys[PROTOCOL_KEYS] = {
        [PROTOCOL_KEY_MAIN] = {TOKEN_SIGN_CHECKPOINT, c->checkpoint_key},
        [PROTOCOL_KEY_ED25519] = {TOKEN_SIGN_ED25519, c->ed25519_key},
        [PROTOCOL_KEY_BEFORE] = {TOKEN_SIGN_CHECKPOINT, c->checkpoint_key_before},
        [PROTOCOL_KEY_ED25519_BEFORE] = {TOKEN_SIGN_ED25519, c->ed25519_key_before},
    };
    int r = 0;

    for (size_t k = 0; r == 0 && k < PROTOCOL_KEYS; k++) {
        if (k == PROTOCOL_KEY_MAIN || keys[k].label[0] != 0)
            r = token_sign_key(w->token, keys[k].kind, keys[k].label, &w->key[k]);
    }
    return r < 0 ? r : signer_new(w->key, &w->signer);
}

static int prepare_role(struct worker *w)
{
    const struct control_configure *c = w->o->configure;
    int r;

    switch (w->o->role) {
    case PROTOCOL_ROLE_KEY:
        r = play_attacks(w);
        return r < 0 ? r : keks_new(w->token, &w->keks);
    case PROTOCOL_ROLE_AUDIT:
        return prepare_signer(w);
    case PROTOCOL_ROLE_TLS:
        return token_sign_key(w->token, TOKEN_SIGN_TLS, c->tls_key, &w->key[PROTOCOL_KEY_MAIN]);
    default:
        return TEKD_EINVAL;
    }
}

/* To the supervisor, who passes it on. */
static int report(struct worker *w, const struct control_message *m)
{
    return control_send(WORKER_REPORT_FD, w->out, m, -1);
}

static int report_ready(struct worker *w)
{
    struct control_message m = {.kind = CONTROL_READY, .id = w->o->id};
    struct token_info info;

    token_info_get(w->token, &info);
    m.ready.prevents_wrap_out = w->prevents_wrap_out;
    (void)snprintf(m.ready.label, sizeof(m.ready.label), "%s", info.label);
    (void)snprintf(m.ready.model, sizeof(m.ready.model), "%s", info.model);
    (void)snprintf(m.ready.serial, sizeof(m.ready.serial), "%s", info.serial);
    return report(w, &m);
}

static void report_failed(struct worker *w, int error)
{
    struct control_message m = {.kind = CONTROL_FAILED, .id = w->o->id};
    const char *why = w->token == NULL ? "" : token_reason(w->token);

    m.ended.error = error;
    (void)snprintf(m.ended.text, sizeof(m.ended.text), "%s",
                   why[0] == 0 ? tekd_strerror(error) : why);
    (void)report(w, &m);
}

static int start(struct worker *w)
{
    int r = open_token(w);

    if (r == 0)
        r = prepare_role(w);
    if (r == 0)
        return report_ready(w);
    report_failed(w, r);
    return r;
}

/* In the order that the module needs; a replaced worker must give its session back. */
static void finalise(struct worker *w)
{
    (void)alarm(FINALISE_S);
    keks_free(w->keks);
    signer_free(w->signer);
    for (size_t k = PROTOCOL_KEYS; k > 0; k--)
        token_signing_free(w->key[k - 1]);
    token_free(w->token);
    buf_free(w->out);
}

int worker_run(const struct worker_options *o)
{
    static struct worker w; /* with room for a datagram: too big for a stack of unknown size */
    int r;

    w.o = o;
    r = buf_new(PROTOCOL_MAX, &w.out);
    if (r == 0)
        r = start(&w);
    while (r == 0 && serve(&w))
        ;
    finalise(&w);
    return r == 0 ? 0 : 1;
}
