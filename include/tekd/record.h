/*
 * Audit records: one flat JSON object in the form of RFC 8785 (JCS), keys of [a-z_] sorted by
 * octet, values strings (without U+0000), integers of 0..2^53-1, true or false; no null, no
 * nesting, no space. The octets are what is hashed, stored and exported.
 *
 * Every record has
 *     v     1
 *     seq   index of its leaf in the epoch's tree
 *     t     UTC, RFC 3339 with microseconds; never used for order
 *     inst  which server instance wrote it
 *     ev    the event, of the table in lib/audit/events.def
 * No field ever holds key octets, PINs or clear data.
 *
 * Thread rule: one owner at a time.
 */
#ifndef TEKD_RECORD_H
#define TEKD_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"
#include "tekd/buf.h"

#define RECORD_MAX        8192 /* octets of one record: a ContentID escaped at its worst fits */
#define RECORD_FIELDS_MAX 24   /* the five that every record has included */
#define RECORD_KEY_MAX    15

struct record;

/* An empty record of this event, which must be one of the table.  Errors: TEKD_ENOMEM. */
int record_new(const char *event, struct record **ret_record);
void record_free(struct record *r);
AUTO_DEFINE(record)

/*
 * Sets a field; key and value are copied.  A repeated, malformed or reserved key (v seq t inst ev)
 * is a broken invariant and aborts.  What cannot be a value marks the record, and record_error()
 * and record_encode() tell: TEKD_EINVAL (text that is not UTF-8 or holds U+0000, an integer of 2^53
 * or more: callers pass what a parser let through), TEKD_ETOOBIG, TEKD_ENOMEM; the first stays.
 */
void record_str(struct record *r, const char *key, const char *value);
void record_strn(struct record *r, const char *key, const char *value, size_t len);
void record_int(struct record *r, const char *key, uint64_t value);
void record_bool(struct record *r, const char *key, bool value);
void record_hex(struct record *r, const char *key, const uint8_t *data, size_t len);
/* {epoch}/{seq}: what an earlier record is called in later ones. */
void record_ref(struct record *r, const char *key, uint64_t epoch, uint64_t seq);
int record_error(const struct record *r);

const char *record_event(const struct record *r);

/*
 * Appends the canonical octets, with the fields every record has.  Errors: TEKD_ETOOBIG (over
 * RECORD_MAX, or the buffer's limit), TEKD_EINVAL, TEKD_ENOMEM; the buffer is unchanged then.
 */
int record_encode(const struct record *r, uint64_t seq, int64_t t_us, const char *inst,
                  struct buf *out);

/*
 * Reading, for verifiers and recovery: accepts exactly the canonical octets (the object is written
 * again and compared).  what gets a static sentence on failure.  Errors: TEKD_EFORMAT, TEKD_ENOMEM.
 */
int record_parse(const void *octets, size_t len, struct record **ret_record, const char **what);
/* The value of a field; NULL, or false, if there is none of this type.  Borrowed from r. */
const char *record_get_str(const struct record *r, const char *key);
bool record_get_int(const struct record *r, const char *key, uint64_t *ret_value);
bool record_get_bool(const struct record *r, const char *key, bool *ret_value);

/* Whether there is a field of this name, of whatever type. */
bool record_has(const struct record *r, const char *key);

/*
 * The name of a field that the table of events asks of this record's event and that r lacks or has
 * in another form ("ev" when the table does not have the event); NULL when all is there.  For who
 * writes records, before they are numbered, and for who checks them.
 */
const char *record_violation(const struct record *r);

/* Whether the table of events has this name. */
bool record_event_known(const char *event);

#endif
