/*
 * Between HTTP and the key and push services: the routes, and the request threads.  The loop of an
 * exchange queues it; a thread runs keys_handle(), which may wait for the HSM; what comes back goes
 * to the exchange's loop.  Polls of collecting BSAs (collect.h) need no thread.
 *
 * Thread rule: front_start(), front_stop() from one thread.
 */
#ifndef TEKD_FRONT_H
#define TEKD_FRONT_H

#include "collect.h"
#include "tekd/http.h"
#include "tekd/keys.h"

#define FRONT_THREADS_MAX 512
#define FRONT_STACK       262144 /* straight-line code: a message, a record, two writers */
#define FRONT_RUNNING     2      /* threads at work that are not waiting for the HSM */
#define FRONT_ROUTES      2

struct front;

struct front_options {
    struct keys *keys;
    struct push *push;
    unsigned threads; /* of requests */
    unsigned queue;   /* requests that wait for one; more get 503 at once */
};
/* Errors: TEKD_EINVAL (threads), TEKD_ENOMEM. */
int front_start(const struct front_options *o, struct front **ret_front);
/* The routes, for http_options; they live as long as the front. */
const struct http_route *front_routes(struct front *f);
/* For http_options, with the front: a peer that is no enabled BSA is refused, and that recorded. */
bool front_admits(void *front, const struct http_peer *peer, struct http_reply *ret_refusal);
/* No more requests may come; waits for the threads. */
void front_stop(struct front *f);

#endif
