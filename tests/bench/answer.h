/*
 * The answers the load generator gets: framing by Content-Length, then either a cheap look (HTTP
 * 200, Status 0 somewhere in the body) or a strict one (media type, MessageID, Status, Data).
 * Not a CP-3 reader: it knows the form in which the server writes.
 */
#ifndef BENCH_ANSWER_H
#define BENCH_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A Tag 2 with all extensions has under 2 KiB; heads of h2o under 1 KiB. */
#define ANSWER_MAX 16384

enum answer_verdict {
    ANSWER_OK,
    ANSWER_HTTP_STATUS,  /* not 200 */
    ANSWER_REFUSED,      /* 200 without Status 0 */
    ANSWER_NOT_AS_ASKED, /* strict: media type, MessageID, Status or Data are wrong */
    ANSWER_VERDICTS
};

struct answer {
    int http;
    bool close;                /* the server closes after it */
    const char *type, *reason; /* Content-Type and CP3-Reason, borrowed from the octets; or NULL */
    size_t type_len, reason_len;
    const char *body;
    size_t body_len;
    size_t total; /* octets of head and body */
};

/*
 * 1: octets hold a whole answer; 0: more must come; -1: not an HTTP/1.1 answer with exactly one
 * framing by Content-Length (or none for 204).
 */
int answer_read(const char *octets, size_t len, struct answer *ret_answer);

/* HTTP 200 only, for REQUEST_GET. */
enum answer_verdict answer_check_static(const struct answer *a);

/* media: enum request_media. */
enum answer_verdict answer_check(const struct answer *a, int media);

/*
 * As answer_check(), strictly; message_id is what the answer must repeat.  *ret_data is a hash of
 * the wrapped key, never 0: the same key under the same KEK gives the same one.
 */
enum answer_verdict answer_check_strictly(const struct answer *a, int media, const char *message_id,
                                          uint64_t *ret_data);

#endif
