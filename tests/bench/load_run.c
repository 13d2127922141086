#include "load_run.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <sys/epoll.h>

static void tally_add(struct load_tally *t, const char *name, size_t len)
{
    size_t i;

    if (len >= LOAD_TALLY_TEXT)
        len = LOAD_TALLY_TEXT - 1;
    for (i = 0; i < t->used; i++) {
        if (strncmp(t->name[i], name, len) == 0 && t->name[i][len] == '\0')
            break;
    }
    if (i == t->used && t->used < LOAD_TALLY_MAX - 1) {
        memcpy(t->name[i], name, len);
        t->used++;
    } else if (i == t->used) {
        i = LOAD_TALLY_MAX - 1;
        memcpy(t->name[i], "other", sizeof("other"));
        t->used = LOAD_TALLY_MAX;
    }
    t->n[i]++;
}

static size_t index_of(const struct load *l, const struct conn *c)
{
    return (size_t)(c - l->conn);
}

static unsigned identity_of(const struct load *l, size_t i)
{
    return (unsigned)(i % l->set->identities.n);
}

/* Whether the key for this identity and content is the one it got before. */
static bool same_data_as_before(struct load *l, size_t i, uint64_t data)
{
    uint64_t content = request_content(l->request[i]);
    uint64_t *seen;

    if (l->seen == NULL || content >= LOAD_SEEN_MAX / l->set->identities.n)
        return true;
    seen = &l->seen[content * l->set->identities.n + identity_of(l, i)];
    if (*seen == 0)
        *seen = data;
    return *seen == data;
}

static enum answer_verdict check(struct load *l, size_t i)
{
    const struct load_settings *set = l->set;
    const struct answer *a = &l->conn[i].answer;
    enum answer_verdict verdict;
    uint64_t data = 0;

    if (set->plan.mode == REQUEST_GET)
        return answer_check_static(a);
    if (set->strict == 0 || l->answered % set->strict != 0)
        return answer_check(a, set->plan.media);
    l->strict_checked++;
    verdict = answer_check_strictly(a, set->plan.media, request_message_id(l->request[i]), &data);
    if (verdict == ANSWER_OK && !same_data_as_before(l, i, data)) {
        l->changed++;
        return ANSWER_NOT_AS_ASKED;
    }
    return verdict;
}

static void take_answer(struct load *l, size_t i)
{
    const struct answer *a = &l->conn[i].answer;
    enum answer_verdict verdict;
    char code[8];

    l->last_ns = measure_now_ns();
    measure_hist_add(&l->latency, l->last_ns - l->conn[i].sent_ns);
    verdict = check(l, i);
    l->answered++;
    l->verdicts[verdict]++;
    if (verdict == ANSWER_OK)
        l->ok++;
    if (verdict == ANSWER_HTTP_STATUS) {
        (void)snprintf(code, sizeof(code), "%d", a->http);
        tally_add(&l->http, code, strlen(code));
    }
    if (verdict != ANSWER_OK && a->reason != NULL)
        tally_add(&l->reason, a->reason, a->reason_len);
    if (l->last_ns >= l->stop_ns)
        l->stopping = true;
}

/* The next request of the connection's identity, unless the run is over. */
static enum conn_event issue(struct load *l, size_t i)
{
    struct load_identity *id = &l->identity[identity_of(l, i)];
    const char *octets;
    size_t len;

    if (l->issued == l->set->count)
        l->stopping = true;
    if (l->stopping)
        return CONN_NOTHING;
    request_set(l->request[i], id->next++);
    l->issued++;
    octets = request_octets(l->request[i], &len);
    return conn_send(&l->conn[i], l->epoll_fd, octets, len);
}

static void count_lost(struct load *l, const struct conn *c)
{
    l->whys[c->why]++;
    tally_add(&l->lost, c->text, strlen(c->text));
}

static enum conn_event reopen(struct load *l, size_t i)
{
    struct conn *c = &l->conn[i];

    if (l->stopping || l->reconnects == LOAD_RECONNECTS_MAX)
        return CONN_NOTHING;
    l->reconnects++;
    return conn_open(c, l->epoll_fd, l->identity[identity_of(l, i)].ctx, &l->address);
}

/* Follows one event until the connection has to wait. */
static void follow(struct load *l, size_t i, enum conn_event event)
{
    while (event != CONN_NOTHING) {
        switch (event) {
        case CONN_ANSWERED:
            take_answer(l, i);
            event = issue(l, i);
            break;
        case CONN_READY:
            event = issue(l, i);
            break;
        case CONN_BROKEN:
            count_lost(l, &l->conn[i]);
            event = reopen(l, i);
            break;
        case CONN_NOTHING:
            break;
        }
    }
}

/* Once a second: connections that wait too long are given up. */
static void check_timeouts(struct load *l, int64_t now)
{
    const int64_t limit = (int64_t)l->set->timeout_ms * 1000000;

    if (now < l->next_check_ns)
        return;
    l->next_check_ns = now + INT64_C(1000000000);
    for (size_t i = 0; i < l->set->connections; i++) {
        struct conn *c = &l->conn[i];

        if (c->state != CONN_WAITING || now - c->sent_ns < limit)
            continue;
        l->timeouts++;
        conn_close(c);
        follow(l, i, reopen(l, i));
    }
}

/* Connections that a running load still has to wait for. */
static size_t waiting(const struct load *l)
{
    size_t n = 0;

    for (size_t i = 0; i < l->set->connections; i++) {
        enum conn_state state = l->conn[i].state;

        if (l->stopping)
            n += state == CONN_SENDING || state == CONN_WAITING;
        else
            n += state != CONN_LOST;
    }
    return n;
}

static int poll_once(struct load *l, bool handshakes)
{
    struct epoll_event events[LOAD_CONNECTIONS_MAX];
    int n = epoll_wait(l->epoll_fd, events, LOAD_CONNECTIONS_MAX, 100);

    if (n < 0 && errno != EINTR) {
        perror("epoll_wait");
        return -1;
    }
    for (int e = 0; e < n; e++) {
        struct conn *c = events[e].data.ptr;
        enum conn_event event = conn_step(c, l->epoll_fd);

        /* While the others still shake hands nobody starts. */
        if (handshakes && event == CONN_BROKEN)
            count_lost(l, c);
        else if (!handshakes)
            follow(l, index_of(l, c), event);
    }
    return 0;
}

static size_t count_state(const struct load *l, enum conn_state state)
{
    size_t n = 0;

    for (size_t i = 0; i < l->set->connections; i++)
        n += l->conn[i].state == state;
    return n;
}

int load_connect(struct load *l)
{
    const int64_t limit = measure_now_ns() + (int64_t)l->set->timeout_ms * 1000000;

    for (size_t i = 0; i < l->set->connections; i++) {
        SSL_CTX *ctx = l->identity[identity_of(l, i)].ctx;

        if (conn_open(&l->conn[i], l->epoll_fd, ctx, &l->address) == CONN_BROKEN)
            count_lost(l, &l->conn[i]);
    }
    while (count_state(l, CONN_CONNECTING) + count_state(l, CONN_HANDSHAKE) > 0 &&
           measure_now_ns() < limit) {
        if (poll_once(l, true) < 0)
            return -1;
    }
    if (count_state(l, CONN_IDLE) == 0) {
        fprintf(stderr, "no connection to %s: %s\n", l->set->connect,
                l->lost.used > 0 ? l->lost.name[0] : "time-out");
        return -1;
    }
    return 0;
}

int load_run(struct load *l)
{
    l->start_ns = measure_now_ns();
    l->last_ns = l->start_ns;
    l->stop_ns = l->start_ns + (int64_t)l->set->seconds * 1000000000;
    for (size_t i = 0; i < l->set->connections; i++) {
        if (l->conn[i].state == CONN_IDLE)
            follow(l, i, issue(l, i));
    }
    while (waiting(l) > 0) {
        int64_t now;

        if (poll_once(l, false) < 0)
            return -1;
        now = measure_now_ns();
        if (now >= l->stop_ns)
            l->stopping = true;
        if (now >= l->stop_ns + LOAD_DRAIN_NS)
            break;
        check_timeouts(l, now);
    }
    l->unfinished = count_state(l, CONN_WAITING) + count_state(l, CONN_SENDING);
    return 0;
}

/* "SOURCE,CERT,KEY", cut in place of a copy. */
static int identity_open(struct load *l, size_t k)
{
    struct load_identity *id = &l->identity[k];
    char *text = strdup(l->set->identities.values[k]);
    char *rest = text;

    assert(text != NULL);
    id->source = strsep(&rest, ",");
    id->cert = rest == NULL ? NULL : strsep(&rest, ",");
    id->key = rest;
    if (id->key == NULL) {
        fprintf(stderr, "identity is not SOURCE,CERT,KEY: %s\n", l->set->identities.values[k]);
        return -1;
    }
    id->next = l->set->first;
    id->ctx = conn_ctx_new(l->set->ca, id->cert, id->key);
    return id->ctx == NULL ? -1 : 0;
}

static int read_address(const char *text, struct sockaddr_in *ret_address)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    const char *colon = strchr(text, ':');
    char ip[INET_ADDRSTRLEN];
    char *end;
    unsigned long port;

    if (colon == NULL || (size_t)(colon - text) >= sizeof(ip))
        return -1;
    memcpy(ip, text, (size_t)(colon - text));
    ip[colon - text] = '\0';
    port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port == 0 || port > 65535 || inet_pton(AF_INET, ip, &address.sin_addr) != 1)
        return -1;
    address.sin_port = htons((uint16_t)port);
    *ret_address = address;
    return 0;
}

static int open_identities(struct load *l)
{
    const struct load_settings *set = l->set;

    if (read_address(set->connect, &l->address) < 0) {
        fprintf(stderr, "not ADDRESS:PORT: %s\n", set->connect);
        return -1;
    }
    for (size_t k = 0; k < set->identities.n; k++) {
        if (identity_open(l, k) < 0)
            return -1;
    }
    return 0;
}

int load_open(struct load *l, const struct load_settings *set)
{
    l->set = set;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->conn = calloc(set->connections, sizeof(*l->conn));
    l->request = calloc(set->connections, sizeof(struct request *));
    /* Pages that no answer touches take no memory. */
    if (set->strict != 0 && (set->plan.mode == REQUEST_KNOWN || set->plan.repeat != 0))
        l->seen = calloc(LOAD_SEEN_MAX, sizeof(*l->seen));
    if (l->epoll_fd < 0 || l->conn == NULL || l->request == NULL) {
        perror("epoll_create1, calloc");
        return -1;
    }
    if (open_identities(l) < 0)
        return -1;
    for (size_t i = 0; i < set->connections; i++) {
        unsigned k = identity_of(l, i);

        l->request[i] = request_new(&set->plan, l->identity[k].source, k);
        if (l->request[i] == NULL) {
            fprintf(stderr, "request_new: too long, or no memory\n");
            return -1;
        }
    }
    return 0;
}

void load_close(struct load *l)
{
    for (size_t i = 0; l->conn != NULL && i < l->set->connections; i++)
        conn_close(&l->conn[i]);
    for (size_t i = 0; l->request != NULL && i < l->set->connections; i++)
        request_free(l->request[i]);
    for (size_t k = 0; k < l->set->identities.n; k++) {
        SSL_CTX_free(l->identity[k].ctx);
        free(l->identity[k].source);
    }
    free(l->conn);
    free(l->request);
    free(l->seen);
    if (l->epoll_fd >= 0)
        (void)close(l->epoll_fd);
}
