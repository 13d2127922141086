/*
 * GET /cp3/deliveries?wait=SECONDS: a BSA that cannot be reached asks for its deliveries.  A poll
 * is an exchange that waits in the push service; it holds no thread.
 */
#ifndef TEKD_COLLECT_H
#define TEKD_COLLECT_H

#include <stdatomic.h>
#include <stddef.h>

#include "tekd/http.h"
#include "tekd/push.h"

#define COLLECT_PATH "/cp3/deliveries"
/* From the question to the answer: the longest wait, and what a claim and its signature take. */
#define COLLECT_DEADLINE_MS ((PUSH_WAIT_MAX_S + 10) * 1000)

struct collect {
    struct keys *keys;
    struct push *push;
    _Atomic size_t under_way; /* exchanges; the struct stays until there are none */
};

/* The route; c outlives HTTP. */
struct http_route collect_route(struct collect *c);

#endif
