/*
 * The one queue between threads: bounded, many producers, many consumers, closed for shutdown.
 * It carries pointers; who pops owns.  A consumer may take one or a whole batch.
 */
#ifndef TEKD_QUEUE_H
#define TEKD_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"

struct queue;

/* At most cap entries, 1..2^20.  Errors: TEKD_ENOMEM. */
int queue_new(size_t cap, struct queue **ret_queue);
/* Nobody may be waiting and nothing may be left inside. */
void queue_free(struct queue *q);
AUTO_DEFINE(queue)

/* Never blocks.  Errors: TEKD_EAGAIN (full), TEKD_ECLOSED. */
int queue_push(struct queue *q, void *entry);

/*
 * As queue_push(), for an entry that need not be looked at by itself: the consumer is called when
 * as many entries are there as it said last (queue_patience()), or by the next queue_push().
 */
int queue_push_patient(struct queue *q, void *entry);

/*
 * For a queue with one consumer, by that consumer: until n entries are there, or one that was not
 * pushed patiently, its pops wait on; at their deadline they give what there is.  1, as at first:
 * every entry is worth a call.
 */
void queue_patience(struct queue *q, size_t n);

/*
 * Waits until there is an entry, the queue is closed and empty, or clock_mono_us() passes deadline
 * (INT64_MAX: no deadline; 0: do not wait).  Errors: TEKD_ETIMEDOUT, TEKD_ECLOSED.
 */
int queue_pop(struct queue *q, int64_t deadline_us, void **ret_entry);

/* As queue_pop(), for up to max entries in order; *ret_n is at least 1 on success. */
int queue_pop_many(struct queue *q, int64_t deadline_us, void **entries, size_t max, size_t *ret_n);

/* No more pushes; what is inside is still popped, then every pop gives TEKD_ECLOSED. */
void queue_close(struct queue *q);

/*
 * Concurrency: with a limit, at most `running` consumers are at work at a time, however many wait
 * for entries; a consumer that is about to wait for something else lets another one run meanwhile.
 * So many threads can wait for an HSM, and a burst of entries that need no waiting is worked off by
 * one or two without waking the others.  Set before the first pop; 0, as at first: no limit.
 *
 *     while (queue_pop(q, INT64_MAX, &entry) == 0) {
 *         ... queue_block(q); wait for the HSM; queue_unblock(q); ...
 *         queue_leave(q);
 *     }
 */
void queue_limit(struct queue *q, size_t running);
/* The entry popped last is done; every successful pop is followed by one. */
void queue_leave(struct queue *q);
/* Around a wait, by a consumer at work.  After it there may be more at work than the limit. */
void queue_block(struct queue *q);
void queue_unblock(struct queue *q);

/* Entries inside, at some moment of the call. */
size_t queue_len(struct queue *q);

#endif
