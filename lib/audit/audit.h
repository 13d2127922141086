/*
 * What the files of lib/audit and tek-audit share: the table of events, what signature lines are
 * made of, and strict UTF-8.
 */
#ifndef TEKD_AUDIT_PRIVATE_H
#define TEKD_AUDIT_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* EVENT_LOG_OPENED and so on, in the order of events.def. */
enum event_id {
#define EVENT(symbol, name, ...) EVENT_##symbol,
#include "events.def"
#undef EVENT
    EVENT_COUNT
};

enum field_kind {
    FIELD_STR,
    FIELD_INT,
    FIELD_BOOL,
    FIELD_HASH,
    FIELD_HASHES, /* one or more, with commas between them */
    FIELD_REF,
    FIELD_TIME, /* as t */
    FIELD_DELTA /* decimal digits, "-" in front when negative */
};

struct field_rule {
    const char *key;
    enum field_kind kind;
    bool optional;
};

struct event {
    const char *name;
    size_t name_len;
    enum event_id id;
    const struct field_rule *fields;
    size_t n_fields;
};

/* The event of this name, static; NULL if the table has none. */
const struct event *event_find(const char *name, size_t len);

/*
 * What the event asks of its fields and r does not have, in words: "field keyid, a string"; NULL
 * when nothing is wrong.  A static string.
 */
struct record;
const struct field_rule *event_violated(const struct event *e, const struct record *r);
/* "a string", "a SHA-256 in hexadecimal" … */
const char *field_kind_text(enum field_kind kind);

#define NOTE_DASH "\xe2\x80\x94 " /* what a signature line begins with */
/* Whether a key may have this name: 1 to NOTE_ORIGIN_MAX octets, as C2SP signed-note has it. */
bool note_name_ok(const char *s, size_t len);

/* Reads "epoch/seq".  Errors: TEKD_EFORMAT. */
int ref_read(const char *s, uint64_t *ret_epoch, uint64_t *ret_seq);

/* Reads a decimal without sign or leading zeros, at most UINT64_MAX.  Errors: TEKD_EFORMAT. */
int decimal_read(const char *s, size_t len, uint64_t *ret_value);

/*
 * The octets of the character at s, of which len (at least 1) may be read, and its code point
 * (RFC 3629); 0 if it is none: cut off, overlong, a surrogate, beyond U+10FFFF.
 */
size_t utf8_read(const char *s, size_t len, uint32_t *ret_code);

#endif
