/*
 * From what the key service answers to what HTTP sends.
 */
#ifndef TEKD_REPLY_H
#define TEKD_REPLY_H

#include <string.h>

#include "tekd/http.h"
#include "tekd/keys.h"

/* The body changes hands. */
static inline struct http_reply reply_of(const struct keys_reply *k)
{
    struct http_reply reply = {.status = k->status,
                               .media = k->media,
                               .reason = k->reason,
                               .retry_after_s = k->retry_after_s,
                               .close = k->close,
                               .body = k->body};

    _Static_assert(sizeof(reply.correlation) == sizeof(k->correlation), "a UUID");
    memcpy(reply.correlation, k->correlation, sizeof(reply.correlation));
    return reply;
}

/* Answers, and gives the exchange up. */
static inline void reply_send(struct http_exchange *take_x, const struct keys_reply *k)
{
    const struct http_reply reply = reply_of(k);

    http_reply(take_x, &reply);
}

#endif
