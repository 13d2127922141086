/*
 * A ring of pointers under one mutex.  A push signals only when a consumer waits, so that a busy
 * queue costs two uncontended lock operations and no system call.
 */
#include "tekd/queue.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "tekd/clock.h"
#include "tekd/err.h"

#define CAP_MAX ((size_t)1 << 20)

/* The longest single wait; a deadline further away is waited for in pieces, without overflow. */
#define WAIT_MAX_US (INT64_C(3600) * 1000000)

struct queue {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t filled;
    size_t waiting;  /* consumers in a wait that nobody has called */
    size_t called;   /* consumers that were called and have not woken yet */
    size_t running;  /* consumers at work, of a queue with a limit */
    size_t limit;    /* of running + called; SIZE_MAX: none */
    size_t patience; /* so many entries are worth a call ... */
    bool urgent;     /* ... and so is one of these, which was pushed since the last pop */
    size_t first;
    size_t count;
    size_t cap;
    bool closed;
    void *ring[];
};

static void init_locks(struct queue *q)
{
    pthread_condattr_t attr;
    int r = pthread_mutex_init(&q->lock, NULL);

    assert(r == 0);
    r = pthread_condattr_init(&attr);
    assert(r == 0);
    r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    assert(r == 0);
    r = pthread_cond_init(&q->filled, &attr);
    assert(r == 0);
    (void)pthread_condattr_destroy(&attr);
}

int queue_new(size_t cap, struct queue **ret_queue)
{
    struct queue *q;

    assert(cap >= 1 && cap <= CAP_MAX);
    q = calloc(1, sizeof(*q) + cap * sizeof(q->ring[0]));
    if (q == NULL)
        return TEKD_ENOMEM;
    init_locks(q);
    q->cap = cap;
    q->limit = SIZE_MAX;
    q->patience = 1;
    *ret_queue = q;
    return 0;
}

void queue_free(struct queue *q)
{
    if (q == NULL)
        return;
    assert(q->waiting == 0 && q->called == 0 && q->count == 0);
    (void)pthread_cond_destroy(&q->filled);
    (void)pthread_mutex_destroy(&q->lock);
    free(q);
}

static void put_locked(struct queue *q, void *entry)
{
    size_t at = q->first + q->count;

    q->ring[at < q->cap ? at : at - q->cap] = entry;
    q->count++;
}

static void *take_locked(struct queue *q)
{
    void *entry = q->ring[q->first];

    q->first = q->first + 1 < q->cap ? q->first + 1 : 0;
    q->count--;
    return entry;
}

/* Each entry calls one consumer, if there is one and it may run; more calls would wake it no
 * faster. */
static void call_locked(struct queue *q)
{
    if (q->waiting == 0 || q->running + q->called >= q->limit)
        return;
    q->waiting--;
    q->called++;
    pthread_cond_signal(&q->filled);
}

static bool worth_a_call_locked(const struct queue *q)
{
    return q->count > 0 && (q->urgent || q->count >= q->patience);
}

static int push(struct queue *q, void *entry, bool urgent)
{
    int r = 0;

    pthread_mutex_lock(&q->lock);
    if (q->closed)
        r = TEKD_ECLOSED;
    else if (q->count == q->cap)
        r = TEKD_EAGAIN;
    else
        put_locked(q, entry);
    q->urgent = q->urgent || (r == 0 && urgent);
    /* Under the lock: who pops the last entry may then free the queue. */
    if (r == 0 && worth_a_call_locked(q))
        call_locked(q);
    pthread_mutex_unlock(&q->lock);
    return r;
}

int queue_push(struct queue *q, void *entry)
{
    return push(q, entry, true);
}

int queue_push_patient(struct queue *q, void *entry)
{
    return push(q, entry, false);
}

void queue_patience(struct queue *q, size_t n)
{
    pthread_mutex_lock(&q->lock);
    q->patience = n > 0 ? n : 1;
    pthread_mutex_unlock(&q->lock);
}

/*
 * The condition's own clock may not be the one that clock_mono_us() reads (a test's), so the
 * deadline is turned into a distance and that into a time of the condition's clock.
 */
static struct timespec wake_time(int64_t distance_us)
{
    struct timespec ts;

    if (distance_us > WAIT_MAX_US)
        distance_us = WAIT_MAX_US;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(distance_us / 1000000);
    ts.tv_nsec += (long)(distance_us % 1000000) * 1000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

/* Who wakes takes a call if one is open: whose it was does not matter. */
static void woken_locked(struct queue *q)
{
    if (q->called > 0)
        q->called--;
    else
        q->waiting--;
}

/* One wait: 0 when woken, for whatever reason, or TEKD_ETIMEDOUT. */
static int wait_locked(struct queue *q, int64_t deadline_us)
{
    struct timespec until;
    int64_t left_us;
    int r;

    if (deadline_us == INT64_MAX) {
        q->waiting++;
        pthread_cond_wait(&q->filled, &q->lock);
        woken_locked(q);
        return 0;
    }
    left_us = deadline_us > 0 ? deadline_us - clock_mono_us() : 0;
    if (left_us <= 0)
        return TEKD_ETIMEDOUT;
    until = wake_time(left_us);
    q->waiting++;
    r = pthread_cond_timedwait(&q->filled, &q->lock, &until);
    woken_locked(q);
    return r == ETIMEDOUT && left_us <= WAIT_MAX_US ? TEKD_ETIMEDOUT : 0;
}

static bool may_take_locked(const struct queue *q)
{
    return (worth_a_call_locked(q) || (q->closed && q->count > 0)) && q->running < q->limit;
}

static int wait_filled_locked(struct queue *q, int64_t deadline_us)
{
    int r = 0;

    while (!may_take_locked(q) && !(q->closed && q->count == 0) && r == 0)
        r = wait_locked(q, deadline_us);
    if (may_take_locked(q) || (r == TEKD_ETIMEDOUT && q->count > 0 && q->running < q->limit))
        return 0;
    return q->closed && q->count == 0 ? TEKD_ECLOSED : r;
}

int queue_pop(struct queue *q, int64_t deadline_us, void **ret_entry)
{
    size_t n;

    return queue_pop_many(q, deadline_us, ret_entry, 1, &n);
}

int queue_pop_many(struct queue *q, int64_t deadline_us, void **entries, size_t max, size_t *ret_n)
{
    size_t n = 0;
    int r;

    assert(max >= 1);
    pthread_mutex_lock(&q->lock);
    r = wait_filled_locked(q, deadline_us);
    while (r == 0 && n < max && q->count > 0)
        entries[n++] = take_locked(q);
    /* What is left was pushed before: some of it may be urgent. */
    q->urgent = q->urgent && q->count > 0;
    if (r == 0 && q->limit != SIZE_MAX)
        q->running++;
    pthread_mutex_unlock(&q->lock);
    if (r == 0)
        *ret_n = n;
    return r;
}

void queue_limit(struct queue *q, size_t running)
{
    pthread_mutex_lock(&q->lock);
    q->limit = running > 0 ? running : SIZE_MAX;
    pthread_mutex_unlock(&q->lock);
}

/* The consumer comes back for the next entry itself: nobody is called. */
void queue_leave(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    assert(q->running > 0);
    q->running--;
    /* But at the end the others have to see that nothing is left. */
    if (q->closed)
        pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

void queue_block(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    assert(q->running > 0);
    q->running--;
    if (q->count > 0)
        call_locked(q);
    pthread_mutex_unlock(&q->lock);
}

void queue_unblock(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->running++;
    pthread_mutex_unlock(&q->lock);
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

size_t queue_len(struct queue *q)
{
    size_t n;

    pthread_mutex_lock(&q->lock);
    n = q->count;
    pthread_mutex_unlock(&q->lock);
    return n;
}
