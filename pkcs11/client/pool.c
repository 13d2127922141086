/*
 * Callers and workers: a line for each role, in which callers wait in order; one exchange of a
 * caller with the worker it got; what becomes of the worker afterwards.
 *
 *     ANSWERED  the worker goes to the next in line
 *     LATE      the caller's deadline came before the worker's: OWING (pool.h)
 *     LEAVING   answered that it cannot go on: ends by itself
 *     LOST      died, or answered nonsense: killed
 *     HUNG      no answer within the time-out of its role: killed
 * After LEAVING, LOST and HUNG the call is made once more, which may land on any worker of the
 * role; the one that failed it is gone by then.  Of several calls in one datagram those that got
 * no reply go on alone, so that none fails for what another one does to the workers.
 *
 * Several share the time-out of one, so there are only as many as are done in a small part of it;
 * a slow token gets them one by one.
 *
 * A call costs two uncontended lock pairs, one send() and one recv(): the socket has a receive
 * time-out of its own, and only a caller with less time than that polls first.
 */
#include "pool.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* What one datagram may ask for, by the time that requests took lately. */
#define MANY_US 20000

enum outcome { ANSWERED, LATE, LEAVING, LOST, HUNG };

/* What is asked of one worker in one datagram; on the caller's stack. */
struct attempt {
    enum protocol_role role;
    struct pool_call *call; /* n of them */
    size_t n;
    int64_t deadline_us;
    bool counted;    /* in n_calls of the pool */
    bool last;       /* not to be made again */
    size_t answered; /* so many from the first have their reply ... */
    size_t tried;    /* ... and so many may have reached the token */
};

/* ---------------------------------------------------------------- lines ------------ */

static struct waiter *line_enter_locked(struct line *l)
{
    struct waiter *w = l->unused;

    l->unused = w->next;
    w->next = NULL;
    w->done = false;
    w->slot = NULL;
    *l->last = w;
    l->last = &w->next;
    l->n_waiting++;
    return w;
}

static void line_leave_locked(struct line *l, struct waiter *w)
{
    struct waiter **at = &l->first;

    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    if (l->last == &w->next)
        l->last = at;
    l->n_waiting--;
}

/* The first in line, taken out of it, or NULL.  Its struct is unused again once it has woken. */
static struct waiter *line_next_locked(struct line *l)
{
    struct waiter *w = l->first;

    if (w != NULL)
        line_leave_locked(l, w);
    return w;
}

void pool_turn_away_locked(struct line *l, int error)
{
    struct waiter *w;

    while ((w = line_next_locked(l)) != NULL) {
        w->done = true;
        w->error = error;
        (void)pthread_cond_signal(&w->cond);
    }
}

int pool_wait_locked(struct hsm *h, pthread_cond_t *cond, int64_t deadline_us)
{
    const int64_t day = INT64_C(86400) * 1000000;
    int64_t left = deadline_us - clock_mono_us();
    struct timespec until;

    if (left <= 0)
        return TEKD_ETIMEDOUT;
    if (left > day)
        left = day; /* who waits looks again after that */
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += left / 1000000;
    until.tv_nsec += left % 1000000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(cond, &h->lock, &until);
    return 0;
}

/* ---------------------------------------------------------------- slots ------------ */

/* The replacement takes over; the supervision closes the old worker's socket. */
static void replace_locked(struct hsm *h, struct slot *s)
{
    struct conn old = s->live;

    s->live = s->next;
    s->next = old;
    if (s->next.state == CONN_READY)
        s->next.state = CONN_RETIRED;
    pool_wake(h);
}

/* Makes the slot free, or gives it to the first in line, who is to be signalled. */
static struct waiter *offer_locked(struct hsm *h, struct slot *s)
{
    struct waiter *w;

    assert(s->use == SLOT_FREE);
    if (s->next.state == CONN_READY)
        replace_locked(h, s);
    if (s->live.state != CONN_READY) {
        pool_wake(h);
        return NULL;
    }
    s->idle_since = clock_mono_us();
    w = line_next_locked(&h->line[s->role]);
    if (w == NULL)
        return NULL;
    s->use = SLOT_BUSY;
    w->slot = s;
    w->done = true;
    w->error = 0;
    return w;
}

void pool_offer_locked(struct hsm *h, struct slot *s)
{
    struct waiter *w = offer_locked(h, s);

    if (w != NULL)
        (void)pthread_cond_signal(&w->cond);
}

static struct slot *find_free_locked(struct hsm *h, enum protocol_role role)
{
    for (size_t i = 0; i < h->n_slots; i++) {
        struct slot *s = &h->slot[i];

        if (s->role == role && s->use == SLOT_FREE && s->live.state == CONN_READY)
            return s;
    }
    return NULL;
}

/* In line until a worker is there, the deadline passes, or nobody expects one any more. */
static int queue_up_locked(struct hsm *h, struct line *l, int64_t deadline_us,
                           struct slot **ret_slot)
{
    struct waiter *w;
    int r;

    if (l->n_waiting >= l->max_waiting || l->unused == NULL)
        return TEKD_EAGAIN;
    w = line_enter_locked(l);
    while (!w->done && pool_wait_locked(h, &w->cond, deadline_us) == 0)
        ;
    if (!w->done) {
        line_leave_locked(l, w);
        w->error = TEKD_ETIMEDOUT;
    }
    *ret_slot = w->slot;
    r = w->error;
    w->next = l->unused;
    l->unused = w;
    return r;
}

static int take_locked(struct hsm *h, const struct attempt *a, struct slot **ret_slot)
{
    struct line *l = &h->line[a->role];
    struct slot *s;

    if (pool_is_closed_locked(h, a->role))
        return TEKD_ECLOSED;
    if (clock_mono_us() >= a->deadline_us)
        return TEKD_ETIMEDOUT;
    if (l->slots == 0 || l->down)
        return TEKD_EHSM;
    s = l->first == NULL ? find_free_locked(h, a->role) : NULL;
    if (s == NULL)
        return queue_up_locked(h, l, a->deadline_us, ret_slot);
    s->use = SLOT_BUSY;
    *ret_slot = s;
    return 0;
}

/* A call is counted from its first acquire() until it is over: hsm_free() waits for it. */
static void over_locked(struct hsm *h)
{
    if (--h->n_calls == 0 && h->closing)
        (void)pthread_cond_broadcast(&h->changed);
}

static void number_locked(struct hsm *h, struct attempt *a, struct slot *s)
{
    s->request_id = h->last_request + 1;
    s->n_requests = a->n;
    for (size_t i = 0; i < a->n; i++)
        a->call[i].request.id = ++h->last_request;
}

static int acquire(struct hsm *h, struct attempt *a, struct slot **ret_slot)
{
    int r;

    (void)pthread_mutex_lock(&h->lock);
    if (!a->counted)
        h->n_calls++;
    a->counted = true;
    r = take_locked(h, a, ret_slot);
    if (r == 0)
        number_locked(h, a, *ret_slot);
    else
        over_locked(h);
    (void)pthread_mutex_unlock(&h->lock);
    return r;
}

static void measure_locked(struct line *l, const struct slot *s)
{
    int64_t each_us = s->took_us / (int64_t)s->n_requests + 1;

    l->mean_us = l->mean_us == 0 ? each_us : (7 * l->mean_us + each_us) / 8;
}

size_t pool_many(struct hsm *h, enum protocol_role role)
{
    const struct line *l = &h->line[role];
    int64_t n = 1;

    (void)pthread_mutex_lock(&h->lock);
    if (l->mean_us > 0)
        n = MANY_US / l->mean_us;
    (void)pthread_mutex_unlock(&h->lock);
    if (n < 1)
        return 1;
    return n < PROTOCOL_MANY_MAX ? (size_t)n : PROTOCOL_MANY_MAX;
}

/* The worker answered: what counts as a good start. */
static void good_locked(struct hsm *h, struct slot *s)
{
    unsigned before = s->live.served;

    s->calls += s->n_requests;
    s->first.tries = 0;
    s->failing = false;
    s->live.served += (unsigned)s->n_requests;
    if (before < h->set.recycle_after && s->live.served >= h->set.recycle_after)
        pool_wake(h);
}

static void bad_locked(struct hsm *h, struct slot *s)
{
    s->failures++;
    s->live.state = CONN_DOOMED;
    pool_wake(h);
}

/* What becomes of the worker, and who is to be signalled: the next in line or NULL. */
static struct waiter *release_locked(struct hsm *h, struct slot *s, enum outcome outcome)
{
    s->use = SLOT_FREE;
    if (outcome == ANSWERED) {
        measure_locked(&h->line[s->role], s);
        good_locked(h, s);
        return offer_locked(h, s);
    }
    if (outcome == LATE) {
        s->use = SLOT_OWING;
        pool_wake(h);
    } else {
        bad_locked(h, s);
    }
    return NULL;
}

/* Returns whether the pool still takes calls of this role. */
static bool release(struct hsm *h, struct slot *s, enum outcome outcome, bool over)
{
    struct waiter *w;
    bool open;

    (void)pthread_mutex_lock(&h->lock);
    w = release_locked(h, s, outcome);
    if (w != NULL) {
        /* Without the lock, which the one who wakes needs at once; this call is not over yet, so
         * the pool stays. */
        (void)pthread_mutex_unlock(&h->lock);
        (void)pthread_cond_signal(&w->cond);
        (void)pthread_mutex_lock(&h->lock);
    }
    open = !pool_is_closed_locked(h, s->role);
    if (over)
        over_locked(h);
    (void)pthread_mutex_unlock(&h->lock);
    return open;
}

/* ---------------------------------------------------------------- exchange --------- */

/* a may be NULL: nobody waits for them. */
static enum outcome take_replies(const struct slot *s, size_t len, struct attempt *a)
{
    struct view v = view_of(s->in, len);
    struct protocol_reply unwanted;
    size_t n = 0;
    bool leaving = false;

    while (n < s->n_requests && !leaving) {
        struct protocol_reply *reply = a == NULL ? &unwanted : &a->call[n].reply;

        if (protocol_next_reply(&v, reply) < 0 || reply->id != s->request_id + n)
            return LOST;
        leaving = reply->leaving;
        n++;
    }
    if (view_end(&v) < 0)
        return LOST;
    if (a != NULL) {
        a->answered = leaving ? n - 1 : n;
        a->tried = n;
    }
    return leaving ? LEAVING : ANSWERED;
}

/* Reads one datagram, if it is the answer to the call under way. */
static enum outcome read_replies(struct slot *s, int flags, struct attempt *a)
{
    enum outcome outcome;
    ssize_t n;

    do
        n = recv(s->live.fd, s->in, PROTOCOL_MAX, flags | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return HUNG;
    if (n <= 0)
        return LOST;
    outcome = n > PROTOCOL_MAX ? LOST : take_replies(s, (size_t)n, a);
    if (outcome == LOST)
        log_event(LOG_ERROR, "hsm", "reply-malformed", LOG_INT("worker", s->live.pid),
                  LOG_INT("octets", n));
    return outcome;
}

/* Whether there is an answer by then. */
static bool answered_by(int fd, int64_t deadline_us)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;

    do {
        int64_t left = deadline_us - clock_mono_us();
        struct timespec t = {.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};

        if (left < 0)
            t = (struct timespec){0};
        n = ppoll(&p, 1, &t, NULL);
    } while (n < 0 && errno == EINTR);
    return n != 0;
}

static bool send_request(const struct slot *s)
{
    ssize_t n;

    do
        n = send(s->live.fd, buf_data(s->out), buf_len(s->out), MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n >= 0 && (size_t)n == buf_len(s->out);
}

static int put_requests(struct buf *b, const struct attempt *a)
{
    int r = 0;

    buf_reset(b);
    for (size_t i = 0; i < a->n && r == 0; i++)
        r = protocol_add_request(b, &a->call[i].request);
    return r;
}

static enum outcome exchange(const struct hsm *h, struct slot *s, struct attempt *a)
{
    int64_t timeout_us = (int64_t)h->line[s->role].timeout_ms * 1000;
    int64_t sent_us;
    enum outcome outcome;

    a->tried = a->n;
    if (!send_request(s))
        return LOST;
    sent_us = clock_mono_us();
    if (a->deadline_us - sent_us < timeout_us && !answered_by(s->live.fd, a->deadline_us)) {
        s->owing_until = sent_us + timeout_us;
        return LATE;
    }
    outcome = read_replies(s, 0, a);
    s->took_us = clock_mono_us() - sent_us;
    return outcome;
}

static void log_failure(const struct slot *s, int pid, uint8_t verb, enum outcome outcome)
{
    static const char *const events[] = {[LATE] = "call-late",
                                         [LEAVING] = "worker-leaving",
                                         [LOST] = "worker-lost",
                                         [HUNG] = "worker-hung"};

    log_event(outcome == LATE ? LOG_INFO : LOG_WARN, "hsm", events[outcome],
              LOG_STR("role", protocol_role_name(s->role)), LOG_INT("pid", pid),
              LOG_STR("call", protocol_verb_name(verb)));
}

/* Errors: as pool_call(), and 1: it may be made again, on another worker or one by one. */
static int attempt(struct hsm *h, struct attempt *a)
{
    struct slot *s = NULL;
    enum outcome outcome;
    bool over;
    int r = acquire(h, a, &s);

    if (r < 0)
        return r;
    s->took_us = 0;
    r = put_requests(s->out, a);
    if (r < 0) {
        over = a->n == 1;
        (void)release(h, s, ANSWERED, over);
        return over ? r : 1;
    }
    outcome = exchange(h, s, a);
    if (outcome != ANSWERED)
        log_failure(s, s->live.pid, a->call->request.verb, outcome);
    over = outcome == ANSWERED || outcome == LATE || a->last;
    if (!release(h, s, outcome, over) && outcome != ANSWERED)
        r = TEKD_ECLOSED;
    else if (outcome != ANSWERED)
        r = outcome == LATE || outcome == HUNG ? TEKD_ETIMEDOUT : TEKD_EHSM;
    return over ? r : 1;
}

static void set_error(struct pool_call *c, int r)
{
    if (r == 0)
        r = c->reply.verb == c->request.verb ? c->reply.error : TEKD_EINTERNAL;
    c->error = r;
    if (c->done != NULL)
        c->done(c);
}

/* tried: it has cost a worker already. */
static void call_alone(struct hsm *h, const struct attempt *with, size_t i, bool tried)
{
    struct attempt a = {.role = with->role,
                        .call = &with->call[i],
                        .n = 1,
                        .deadline_us = with->deadline_us,
                        .last = tried};
    int r = attempt(h, &a);

    if (r == 1) {
        a.last = true;
        r = attempt(h, &a);
    }
    set_error(a.call, r);
}

int pool_call(struct hsm *h, enum protocol_role role, struct pool_call *c, int64_t deadline_us)
{
    const struct attempt a = {.role = role, .call = c, .deadline_us = deadline_us};

    c->done = NULL;
    call_alone(h, &a, 0, false);
    return c->error;
}

static void call_the_rest_alone(struct hsm *h, const struct attempt *a)
{
    for (size_t i = a->answered; i < a->n; i++)
        call_alone(h, a, i, i < a->tried);
    (void)pthread_mutex_lock(&h->lock);
    over_locked(h);
    (void)pthread_mutex_unlock(&h->lock);
}

void pool_call_many(struct hsm *h, enum protocol_role role, struct pool_call *calls, size_t n,
                    int64_t deadline_us)
{
    struct attempt a = {.role = role, .call = calls, .n = n, .deadline_us = deadline_us};
    int r = attempt(h, &a);

    for (size_t i = 0; i < n && (i < a.answered || r != 1); i++)
        set_error(&calls[i], i < a.answered ? 0 : r);
    if (r == 1)
        call_the_rest_alone(h, &a);
}

/* ---------------------------------------------------------------- supervision's ---- */

int pool_collect_locked(struct hsm *h, struct slot *s)
{
    enum outcome outcome = read_replies(s, MSG_DONTWAIT, NULL);

    if (outcome == HUNG && clock_mono_us() < s->owing_until)
        return TEKD_EAGAIN;
    s->use = SLOT_FREE;
    if (outcome == ANSWERED) {
        good_locked(h, s);
        pool_offer_locked(h, s);
        return 0;
    }
    log_failure(s, s->live.pid, 0, outcome);
    bad_locked(h, s);
    return 0;
}

void pool_keepalive_locked(struct hsm *h, struct slot *s, int64_t now)
{
    const struct protocol_request rq = {.verb = PROTOCOL_HEALTH, .id = ++h->last_request};

    s->request_id = rq.id;
    s->n_requests = 1;
    s->use = SLOT_OWING;
    s->owing_until = now + (int64_t)h->line[s->role].timeout_ms * 1000;
    if (protocol_put_request(s->out, &rq) < 0 || !send_request(s)) {
        s->use = SLOT_FREE;
        bad_locked(h, s);
    }
}

bool pool_is_closed_locked(const struct hsm *h, enum protocol_role role)
{
    return h->closing || (h->ended && role != PROTOCOL_ROLE_AUDIT);
}

void pool_close_calls_locked(struct hsm *h)
{
    for (size_t i = 0; i < PROTOCOL_ROLES; i++) {
        if (pool_is_closed_locked(h, (enum protocol_role)i))
            pool_turn_away_locked(&h->line[i], TEKD_ECLOSED);
    }
    for (size_t i = 0; i < h->n_slots; i++) {
        struct slot *s = &h->slot[i];

        if (s->use == SLOT_BUSY && pool_is_closed_locked(h, s->role))
            (void)shutdown(s->live.fd, SHUT_RDWR);
    }
}

void pool_forgive_locked(struct hsm *h)
{
    for (size_t i = 0; i < h->n_slots; i++) {
        struct slot *s = &h->slot[i];

        if (s->live.state != CONN_READY) {
            s->first = (struct attempts){0};
            s->failing = false;
        }
        s->second = (struct attempts){0};
    }
}

void pool_wake(struct hsm *h)
{
    const uint64_t one = 1;

    /* Fails only when the counter is full: the supervision has been woken often enough then. */
    if (write(h->wake, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN || errno == EINTR);
}

/* ---------------------------------------------------------------- life ------------- */

static int line_init(struct line *l, const pthread_condattr_t *attr)
{
    l->last = &l->first;
    if (l->max_waiting == 0)
        return 0;
    l->room = calloc(l->max_waiting, sizeof(*l->room));
    if (l->room == NULL)
        return TEKD_ENOMEM;
    for (unsigned i = 0; i < l->max_waiting; i++) {
        struct waiter *w = &l->room[i];

        if (pthread_cond_init(&w->cond, attr) != 0)
            return TEKD_ENOMEM;
        w->next = l->unused;
        l->unused = w;
    }
    return 0;
}

int pool_init(struct hsm *h)
{
    pthread_condattr_t attr;
    int r = 0;

    if (pthread_condattr_init(&attr) != 0)
        return TEKD_ENOMEM;
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    for (size_t i = 0; i < PROTOCOL_ROLES && r == 0; i++)
        r = line_init(&h->line[i], &attr);
    (void)pthread_condattr_destroy(&attr);
    for (size_t i = 0; i < h->n_slots && r == 0; i++) {
        struct slot *s = &h->slot[i];

        s->live.fd = -1;
        s->next.fd = -1;
        s->in = malloc(PROTOCOL_MAX);
        r = s->in == NULL ? TEKD_ENOMEM : buf_new(PROTOCOL_MAX, &s->out);
    }
    return r;
}

void pool_destroy(struct hsm *h)
{
    for (size_t i = 0; i < PROTOCOL_ROLES; i++) {
        for (unsigned k = 0; h->line[i].room != NULL && k < h->line[i].max_waiting; k++)
            (void)pthread_cond_destroy(&h->line[i].room[k].cond);
        free(h->line[i].room);
    }
    for (size_t i = 0; i < h->n_slots; i++) {
        buf_free(h->slot[i].out);
        free(h->slot[i].in);
    }
}
