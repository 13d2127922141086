/*
 * The requests of the load generator: HTTP/1.1 with a CP-3 Key Request (Tag 1), made once per
 * connection; from one to the next only the MessageID and the ContentID change, which have a
 * fixed width, so that a request costs the generator no formatting.
 *
 * Every id is a function of the plan, the identity and the number of the request: the same plan
 * asked again sends the same octets, which is how messages are repeated.
 *
 * Thread rule: one owner.
 */
#ifndef BENCH_REQUEST_H
#define BENCH_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"

/* Two 64-bit numbers written as a UUID is: what ids of real peers look like in size. */
#define REQUEST_ID_LEN 36

/* Numbers of requests and contents share an id with the identity's number (one octet). */
#define REQUEST_NUMBER_MAX ((UINT64_C(1) << 56) - 1)

enum request_mode {
    REQUEST_NEW,   /* every number asks for a content of its own */
    REQUEST_KNOWN, /* numbers ask for the same contents again and again */
    REQUEST_GET,   /* a plain GET of the path */
};
enum request_media { REQUEST_XML, REQUEST_JSON };
enum request_order { REQUEST_RISING, REQUEST_RANDOM };

struct request_plan {
    int mode;              /* enum request_mode */
    int media;             /* enum request_media */
    int ids;               /* enum request_order: of the MessageIDs */
    int content_ids;       /* enum request_order: of the ContentIDs */
    int pick;              /* enum request_order: of the contents in REQUEST_KNOWN */
    uint64_t seed;         /* rising ids: later runs have larger seeds */
    uint64_t content_seed; /* the same content_seed and content_ids: the same ContentIDs */
    uint64_t contents;     /* REQUEST_KNOWN: how many, at least 1 */
    uint64_t repeat;       /* numbers wrap after this many: the same MessageIDs again; 0: never */
    unsigned identities;   /* how many Sources ask, 1..256 */
    const char *host;      /* of the Host field */
    const char *path;
    const char *destination;
};

struct request;

/*
 * Requests of one Source, the k-th of plan->identities; the plan is borrowed until request_free().
 * Source and destination are written as they are: no markup characters.  NULL: no memory.
 */
struct request *request_new(const struct request_plan *plan, const char *source, unsigned k);
void request_free(struct request *r);
AUTO_DEFINE(request)

/* Turns it into the identity's request number n, 0..REQUEST_NUMBER_MAX, before any wrap. */
void request_set(struct request *r, uint64_t n);

/* The octets to send, borrowed until the next request_set(). */
const char *request_octets(const struct request *r, size_t *ret_len);

/* REQUEST_ID_LEN characters and a NUL; empty for REQUEST_GET. */
const char *request_message_id(const struct request *r);

/* The number of the content that is asked for. */
uint64_t request_content(const struct request *r);

#endif
