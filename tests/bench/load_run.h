/*
 * A run of the load generator: all connections, who asks on them, and what came of it.  Requests
 * are only counted as wrong, never repeated; lost connections are opened again.
 *
 * Thread rule: one thread.
 */
#ifndef BENCH_LOAD_RUN_H
#define BENCH_LOAD_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <netinet/in.h>

#include "answer.h"
#include "conn.h"
#include "measure.h"
#include "opts.h"
#include "request.h"

/* Sockets a loop asks for at once, and connections in all: what one thread can still fill. */
#define LOAD_CONNECTIONS_MAX 1024
/* Losing more than this means that the server is gone, and the numbers are worth nothing. */
#define LOAD_RECONNECTS_MAX 1000
/* Distinct HTTP status codes and refusal reasons counted by name; the rest are "other". */
#define LOAD_TALLY_MAX  24
#define LOAD_TALLY_TEXT 48
/* An answer that takes longer is not waited for. */
#define LOAD_DRAIN_NS INT64_C(5000000000)
/* Data of so many (identity, content) pairs are remembered (8 octets each). */
#define LOAD_SEEN_MAX (UINT64_C(1) << 24)

/* A BSA: its Source, its certificate, and the number of its next request. */
struct load_identity {
    char *source, *cert, *key;
    SSL_CTX *ctx;
    uint64_t next;
};

/* How often a text came. */
struct load_tally {
    char name[LOAD_TALLY_MAX][LOAD_TALLY_TEXT];
    uint64_t n[LOAD_TALLY_MAX];
    size_t used;
};

/* What is asked for on the command line. */
struct load_settings {
    const char *connect, *path, *ca, *destination;
    struct opts_list identities;
    uint64_t connections, count, seconds, first, strict, timeout_ms;
    struct request_plan plan;
};

struct load {
    const struct load_settings *set;
    struct sockaddr_in address;
    int epoll_fd;
    struct load_identity identity[OPTS_LIST_MAX];
    struct conn *conn;        /* set->connections of them */
    struct request **request; /* one for each */
    uint64_t issued, answered, ok, strict_checked, reconnects;
    uint64_t verdicts[ANSWER_VERDICTS]; /* answers by enum answer_verdict */
    uint64_t whys[CONN_WHYS];           /* lost connections by enum conn_why */
    uint64_t timeouts, unfinished;
    uint64_t changed;                     /* another key than before; also in verdicts */
    struct load_tally http, reason, lost; /* status codes, CP3-Reason, words of lost connections */
    uint64_t *seen;                       /* hash of the Data by (identity, content); 0: none yet */
    int64_t start_ns, stop_ns, last_ns, next_check_ns;
    bool stopping;
    struct measure_hist latency;
};

/*
 * Reads the identities and makes the requests.  set is borrowed until load_close(), which is also
 * for a load that could not be opened; l is zeroed before.  -1 with a message on stderr.
 */
int load_open(struct load *l, const struct load_settings *set);
void load_close(struct load *l);

/* All handshakes, outside of the measured time.  -1 with a message: none succeeded. */
int load_connect(struct load *l);

/* Sends until count or time are used up, then waits LOAD_DRAIN_NS at most.  -1 with a message. */
int load_run(struct load *l);

#endif
