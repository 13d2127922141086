/*
 * The folder of an exported audit log (docs/audit.md), written as it comes: records, checkpoints by
 * a P-256 key that is made for it, and at the end the files about them.  For measurements: what
 * cannot be written ends the program with a message.
 */
#ifndef BENCH_LOG_OUT_H
#define BENCH_LOG_OUT_H

#include <stdint.h>

#include "tekd/record.h"

struct log_out;

/* Makes the folder, which must not be there. */
struct log_out *log_out_new(const char *dir);
/* The whole of it is there afterwards; the last checkpoint has to cover all records. */
void log_out_finish(struct log_out *take_o);

/* Returns its seq. */
uint64_t log_out_record(struct log_out *o, struct record *take_r, int64_t t_us);
void log_out_checkpoint(struct log_out *o);

const char *log_out_origin(const struct log_out *o);
/* SHA-256 of the SubjectPublicKeyInfo. */
const uint8_t *log_out_key(const struct log_out *o);
uint64_t log_out_records(const struct log_out *o);
uint64_t log_out_notes(const struct log_out *o);
uint64_t log_out_octets(const struct log_out *o);

#endif
