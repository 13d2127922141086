#include "request.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Head, path, host, and a body whose identifiers have at most 255 octets each. */
#define REQUEST_MAX 4096
#define ID_HOLE     "00000000-0000-0000-0000-000000000000"
#define CONTENT_URN "urn:x-bench:"

struct request {
    const struct request_plan *plan;
    unsigned k;
    uint64_t content;
    char message_id[REQUEST_ID_LEN + 1];
    char octets[REQUEST_MAX];
    size_t len;
    char *message_hole; /* into octets; NULL for REQUEST_GET */
    char *content_hole;
};

static const struct {
    const char *type;
    const char *body; /* MessageID, ContentID, Destination, Source */
} media_table[] = {
    [REQUEST_XML] = {"application/xml",
                     "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                     "<KeyRequest xmlns=\"urn:x-bcast:spcp:cp3:1.0\"><Tag>1</Tag><Version>1"
                     "</Version><MessageID>%s</MessageID><ContentID>%s</ContentID>"
                     "<Destination>%s</Destination><Source>%s</Source>"
                     "<Time>2026-01-01T00:00:00Z</Time></KeyRequest>"},
    [REQUEST_JSON] = {"application/json",
                      "{\"Tag\":1,\"Version\":1,\"MessageID\":\"%s\",\"ContentID\":\"%s\","
                      "\"Destination\":\"%s\",\"Source\":\"%s\","
                      "\"Time\":\"2026-01-01T00:00:00Z\"}"},
};

/* One step of SplitMix64: a bijection whose outputs look random. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void put_hex(uint64_t v, unsigned digits, char *out)
{
    static const char hex[] = "0123456789abcdef";

    for (unsigned i = 0; i < digits; i++)
        out[i] = hex[(v >> (4 * (digits - 1 - i))) & 15];
}

/* Rising: the octets of the text rise with seed, then number, then k.  Random: they do not. */
static void put_id(int order, uint64_t seed, uint64_t number, unsigned k, char *out)
{
    uint64_t hi = seed;
    uint64_t lo = number << 8 | k;

    if (order == REQUEST_RANDOM) {
        hi = mix(mix(seed) ^ lo);
        lo = mix(hi ^ seed);
    }
    put_hex(hi >> 32, 8, out);
    put_hex(hi >> 16, 4, out + 9);
    put_hex(hi, 4, out + 14);
    put_hex(lo >> 48, 4, out + 19);
    put_hex(lo, 12, out + 24);
}

static int make_get(struct request *r)
{
    int len = snprintf(r->octets, sizeof(r->octets), "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n",
                       r->plan->path, r->plan->host);

    if (len < 0 || (size_t)len >= sizeof(r->octets))
        return -1;
    r->len = (size_t)len;
    return 0;
}

static int make_post(struct request *r, const char *source)
{
    const struct request_plan *plan = r->plan;
    const char *type = media_table[plan->media].type;
    char body[REQUEST_MAX];
    int body_len, len;

/* The text comes from the table above, never from outside. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    body_len = snprintf(body, sizeof(body), media_table[plan->media].body, ID_HOLE,
                        CONTENT_URN ID_HOLE, plan->destination, source);
#pragma GCC diagnostic pop
    if (body_len < 0 || (size_t)body_len >= sizeof(body))
        return -1;
    len = snprintf(r->octets, sizeof(r->octets),
                   "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\n"
                   "Content-Length: %d\r\n\r\n%s",
                   plan->path, plan->host, type, body_len, body);
    if (len < 0 || (size_t)len >= sizeof(r->octets))
        return -1;
    r->len = (size_t)len;
    r->message_hole = strstr(r->octets, ID_HOLE);
    r->content_hole = strstr(r->octets, CONTENT_URN) + strlen(CONTENT_URN);
    return 0;
}

struct request *request_new(const struct request_plan *plan, const char *source, unsigned k)
{
    AUTO(request) struct request *r = calloc(1, sizeof(*r));
    int made;

    assert(k < plan->identities && plan->identities <= 256);
    if (r == NULL)
        return NULL;
    r->plan = plan;
    r->k = k;
    made = plan->mode == REQUEST_GET ? make_get(r) : make_post(r, source);
    if (made < 0)
        return NULL;
    return TAKE(r);
}

void request_free(struct request *r)
{
    free(r);
}

/* Which content the number asks for. */
static uint64_t content_of(const struct request *r, uint64_t n)
{
    const struct request_plan *plan = r->plan;

    if (plan->mode == REQUEST_NEW)
        return n * plan->identities + r->k;
    if (plan->pick == REQUEST_RANDOM)
        n = mix(plan->seed ^ (n << 8 | r->k));
    return n % plan->contents;
}

void request_set(struct request *r, uint64_t n)
{
    const struct request_plan *plan = r->plan;

    assert(n <= REQUEST_NUMBER_MAX / plan->identities);
    if (plan->mode == REQUEST_GET)
        return;
    if (plan->repeat != 0)
        n %= plan->repeat;
    r->content = content_of(r, n);
    put_id(plan->ids, plan->seed, n, r->k, r->message_hole);
    put_id(plan->content_ids, plan->content_seed, r->content, 0, r->content_hole);
    memcpy(r->message_id, r->message_hole, REQUEST_ID_LEN);
}

const char *request_octets(const struct request *r, size_t *ret_len)
{
    *ret_len = r->len;
    return r->octets;
}

const char *request_message_id(const struct request *r)
{
    return r->message_id;
}

uint64_t request_content(const struct request *r)
{
    return r->content;
}
