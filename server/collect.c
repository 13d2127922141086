#include "collect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"
#include "tekd/err.h"

/* One question; lives until its exchange has ended. */
struct poll {
    struct push_poll p; /* first */
    struct collect *collect;
    struct http_exchange *x;
    struct keys_asker asker;
};

static void busy(struct http_exchange *x)
{
    struct keys_reply reply;

    keys_busy_reply(CP3_XML, NULL, &reply);
    reply_send(x, &reply);
}

/* ---- the question ---------------------------------------------------------------------------- */

/* No query, or wait=SECONDS.  Errors: TEKD_EINVAL. */
static int read_wait(const char *query, int64_t *ret_wait_us)
{
    static const char name[] = "wait=";
    const char *digits = query + sizeof(name) - 1;
    size_t len;
    long wait_s;

    *ret_wait_us = 0;
    if (*query == '\0')
        return 0;
    if (strncmp(query, name, sizeof(name) - 1) != 0)
        return TEKD_EINVAL;
    len = strspn(digits, "0123456789");
    if (len == 0 || len > 3 || digits[len] != '\0')
        return TEKD_EINVAL;
    wait_s = strtol(digits, NULL, 10);
    *ret_wait_us = (int64_t)wait_s * 1000000;
    return wait_s > PUSH_WAIT_MAX_S ? TEKD_EINVAL : 0;
}

/* Whose poll this is, and for how long; else *ret_reply says why not. */
static int read_question(struct poll *poll, struct keys_reply *ret_reply)
{
    struct keys *k = poll->collect->keys;
    const struct http_peer *peer = http_exchange_peer(poll->x);
    struct keys_collector who;
    char detail[80];
    int r;

    memcpy(poll->asker.cert_sha256, peer->cert_sha256, sizeof(poll->asker.cert_sha256));
    (void)snprintf(poll->asker.addr, sizeof(poll->asker.addr), "%s", peer->addr);
    r = keys_collector(k, &poll->asker, &who, ret_reply);
    if (r < 0)
        return r;
    r = read_wait(http_exchange_query(poll->x), &poll->p.wait_us);
    if (r < 0) {
        (void)snprintf(detail, sizeof(detail),
                       "the query may be wait=SECONDS, a number from 0 to %d", PUSH_WAIT_MAX_S);
        keys_collect_malformed(k, &poll->asker, &who, detail, ret_reply);
        return r;
    }
    poll->p.bsa = who.row;
    memcpy(poll->p.peer, who.id, sizeof(poll->p.peer));
    memcpy(poll->p.addr, poll->asker.addr, sizeof(poll->p.addr));
    return 0;
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* Whether who asked is still who he was: a poll may have been open for a minute. */
static bool is_same(struct poll *poll, struct keys_reply *ret_refusal)
{
    struct keys_collector who;

    *ret_refusal = (struct keys_reply){.status = 204};
    return keys_collector(poll->collect->keys, &poll->asker, &who, ret_refusal) == 0 &&
           who.row == poll->p.bsa;
}

static void on_reply(struct push_poll *self, enum cp3_media media, struct buf *take_message)
{
    struct poll *poll = (struct poll *)self;
    AUTO(buf) struct buf *message = take_message;
    struct keys_reply reply = {.status = 204};

    if (message && is_same(poll, &reply))
        reply = (struct keys_reply){
            .status = 200, .media = cp3_media_content_type(media), .body = TAKE(message)};
    reply_send(poll->x, &reply);
}

/* ---- what HTTP calls ------------------------------------------------------------------------- */

static struct poll *poll_new(struct collect *c, struct http_exchange *x)
{
    struct poll *poll = calloc(1, sizeof(*poll));

    if (!poll)
        return NULL;
    poll->collect = c;
    poll->x = x;
    poll->p.reply = on_reply;
    atomic_fetch_add(&c->under_way, 1);
    return poll;
}

static void on_handle(void *arg, struct http_exchange *take_x)
{
    struct collect *c = arg;
    struct poll *poll = poll_new(c, take_x);
    struct keys_reply refusal;

    http_exchange_set_note(take_x, poll, NULL);
    if (poll && read_question(poll, &refusal) < 0) {
        reply_send(take_x, &refusal);
        return;
    }
    if (!poll || push_collect(c->push, &poll->p) < 0)
        busy(take_x);
}

/* The push service has its own time: this is for when it has lost it. */
static void on_timed_out(void *arg, struct http_exchange *x, struct http_reply *ret_reply)
{
    struct keys_reply k;

    (void)arg;
    (void)x;
    keys_busy_reply(CP3_XML, NULL, &k);
    *ret_reply = reply_of(&k);
}

/* Nothing is claimed any more for who does not wait any more. */
static void on_gone(void *arg, struct http_exchange *x)
{
    struct poll *poll = http_exchange_note(x);

    (void)arg;
    if (poll)
        atomic_store(&poll->p.gone, true);
}

static void on_sent(void *arg, struct http_exchange *x, bool whole)
{
    struct collect *c = arg;
    struct poll *poll = http_exchange_note(x);

    (void)whole;
    if (!poll)
        return;
    free(poll);
    atomic_fetch_sub(&c->under_way, 1);
}

struct http_route collect_route(struct collect *c)
{
    return (struct http_route){.path = COLLECT_PATH,
                               .method = "GET",
                               .handle = on_handle,
                               .timed_out = on_timed_out,
                               .gone = on_gone,
                               .sent = on_sent,
                               .deadline_ms = COLLECT_DEADLINE_MS,
                               .arg = c};
}
