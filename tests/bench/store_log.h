/*
 * The records of what store_bench does.  Linked with store_log.c they are written as tekd writes
 * them; with store_nolog.c there are none, and with them no leaves, no checkpoints over them and no
 * signatures, as if a server logged nothing: all else, the store included, is the same program.
 */
#ifndef BENCH_STORE_LOG_H
#define BENCH_STORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "tekd/store.h"

/* Whether anything is recorded: what would only write a record is not done otherwise. */
extern const bool log_is_kept;

/* tek.generated of this TEK. */
int log_generated(struct store_tx *tx, unsigned long number);
/* A key is given: request.answered, delivery.prepared.  ret_seq may be NULL. */
int log_given(struct store_tx *tx, const char *event, unsigned long number, uint64_t *ret_seq);
/* What follows from that: answer.sent, delivery.attempt, delivery.confirmed. */
int log_followed(struct store_tx *tx, const char *event, unsigned long number, uint64_t *ret_seq);

#endif
