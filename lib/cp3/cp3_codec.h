/*
 * What the files of libcp3 share.  The way of a message:
 *
 *     octets -> cp3_read  -> cp3_xml or cp3_json -> cp3_fill (table, types) -> struct cp3_message
 *     struct -> cp3_write (table, types)         -> octets
 *
 * The table (cp3_table.c) says which fields a message has, cp3_type.c how a value of each type is
 * read and written.  Neither knows the media; cp3_xml.c, cp3_json.c and cp3_write.c know no field.
 */
#ifndef CP3_CODEC_H
#define CP3_CODEC_H

#include <cp3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CP3_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The longest text between two tags that is kept: Data in hexadecimal and white space around. */
#define CP3_TEXT_MAX 4096
/* The longest value as it is written: ContentID, and Data in hexadecimal, are of this size. */
#define CP3_VALUE_MAX 1024
/* XML Schema instance: its attributes are ignored. */
#define CP3_XSI_NAMESPACE "http://www.w3.org/2001/XMLSchema-instance"

/* A place in a body, from 1; 0 if there is none. */
struct cp3_place {
    unsigned line, column;
};

/* ---- cp3_table.c ---- */

/* Whether a message has a field: one of these for each tag. */
enum cp3_in {
    CP3_ABSENT,    /* the message does not have it */
    CP3_MANDATORY, /* in both forms */
    CP3_SESSION,   /* mandatory in the full form, absent from the efficient one */
    CP3_GIVEN,     /* there if and only if Status is 0 */
    CP3_OPTIONAL,  /* at most once; not written in the efficient form */
};

struct cp3_field {
    const char *name;
    const struct cp3_type *type;     /* NULL: a group of members */
    size_t offset;                   /* of the value in struct cp3_message */
    size_t size;                     /* of the value, in octets */
    size_t has_offset;               /* of the word of presence bits */
    uint32_t has;                    /* the bit of an optional field, or 0 */
    bool extension;                  /* in CP3_EXT_NAMESPACE */
    uint64_t min, max;               /* octets of a string or of Data, value of an integer */
    uint64_t xml_max;                /* where XML Schema's type ends earlier; else 0 */
    const struct cp3_field *members; /* of a group */
    size_t member_count;
    enum cp3_in in[5]; /* by tag; of a member: in[0] is MANDATORY or OPTIONAL */
};

/* The fields in the order of writing.  A field is known by its index: bits of masks. */
#define CP3_FIELD_COUNT 11
enum { CP3_FIELD_TAG = 0, CP3_FIELD_MESSAGE_ID = 2, CP3_FIELD_DATA = 7 };
extern const struct cp3_field cp3_table[CP3_FIELD_COUNT];

/* The index of a field, or -1. */
int cp3_table_find(const char *name, bool extension);
/* The member of a group, or NULL. */
const struct cp3_field *cp3_table_member(const struct cp3_field *group, const char *name);
/* The tag of a root element, or 0. */
int cp3_table_root(const char *name);
/* Whether a message of that tag has an efficient form. */
bool cp3_table_has_efficient(int tag);

/* ---- cp3_type.c ---- */

enum cp3_kind {
    CP3_TEXT,    /* XML: what it is the field decides */
    CP3_STRING,  /* JSON */
    CP3_INTEGER, /* JSON, in `number` */
    CP3_OTHER,   /* JSON: anything else */
};

struct cp3_value {
    enum cp3_kind kind;
    const char *text; /* valid UTF-8, not ended by a NUL */
    size_t len;
    int64_t number;
};

struct cp3_type {
    bool number; /* written without quotes in JSON */
    /* Puts the value into the message, or says in why (CP3_ERROR_REASON_MAX + 1) what is wrong. */
    bool (*read)(const struct cp3_field *field, const struct cp3_value *v, struct cp3_message *m,
                 char *why);
    /* The value as text: out has CP3_VALUE_MAX + 1 octets.  Its length, or -1: not legal. */
    int (*format)(const struct cp3_field *field, const struct cp3_message *m, char *out);
};

extern const struct cp3_type cp3_type_integer; /* an enum or a uint64_t */
extern const struct cp3_type cp3_type_string;
extern const struct cp3_type cp3_type_data;
extern const struct cp3_type cp3_type_time; /* RFC 3339 or NTP */
extern const struct cp3_type cp3_type_date; /* RFC 3339 only */
extern const struct cp3_type cp3_type_uuid;
extern const struct cp3_type cp3_type_wrap;

/* Whether an optional field is there: its bit, or that it is not empty. */
bool cp3_type_present(const struct cp3_field *field, const struct cp3_message *m);

/* ---- cp3_text.c ---- */

/* The number of octets before the first that is not UTF-8 (RFC 3629) or is NUL; len if all are. */
size_t cp3_text_utf8(const char *text, size_t len);
/* The place of the octet at that offset. */
struct cp3_place cp3_text_place(const char *text, size_t offset);
/* The rule for strings: NULL, or what is wrong with it, a static string. */
const char *cp3_text_fault(const char *text, size_t len);
/* Printable ASCII of anything, at most cap - 1 octets; what is cut ends in "...". */
void cp3_text_escape(const char *text, size_t len, char *out, size_t cap);
/* White space as XML has it. */
bool cp3_text_is_space(char c);
/* Decimal digits to a number.  False if there is anything else, nothing, or an overflow. */
bool cp3_text_number(const char *text, size_t len, uint64_t *ret_number);

/* ---- cp3_time.c ---- */

/* Only RFC 3339.  Errors: CP3_EFORMAT. */
int cp3_time_read_date(const char *text, size_t len, struct cp3_time *ret_time);

/* ---- cp3_fill.c ---- */

/*
 * Fills a message, field by field, and keeps the first error.  An error does not end it: Tag and
 * MessageID are looked for until the end.  A code other than CP3_EFORMAT replaces CP3_EFORMAT:
 * that the octets are no XML outweighs that a field is missing.
 */
struct cp3_fill {
    struct cp3_message *m;
    struct cp3_error *err;
    int code;                      /* of the first error, or 0 */
    int tag;                       /* of the message being read; 0 as long as not known */
    uint32_t seen;                 /* fields met, by index */
    uint32_t read;                 /* fields whose value was read */
    uint32_t broken;               /* fields whose value is not to be used */
    uint32_t members;              /* members of the open group that were met */
    const struct cp3_field *group; /* the open group, or NULL */
};

void cp3_fill_begin(struct cp3_fill *f, struct cp3_message *m, struct cp3_error *err);
/* The message is of that tag: from the root element, or from Tag in JSON. */
void cp3_fill_set_tag(struct cp3_fill *f, int tag);

/* Records an error; element and what the arguments hold may come from the peer. */
void cp3_fill_fail(struct cp3_fill *f, int code, struct cp3_place at, const char *element,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The place of the error recorded, where it is looked up afterwards. */
void cp3_fill_set_place(struct cp3_fill *f, struct cp3_place at);

/*
 * A field by its index is there.  True if its value or its members are wanted; false, with an
 * error recorded if need be, if the message does not have it or had it already.
 */
bool cp3_fill_open(struct cp3_fill *f, int index, struct cp3_place at);
/* The value of a field that was opened. */
void cp3_fill_value(struct cp3_fill *f, int index, const struct cp3_value *v, struct cp3_place at);
/* The value of a field that was opened can not even be given. */
void cp3_fill_broken(struct cp3_fill *f, int index, struct cp3_place at, const char *why);
/* A member of the group that was opened, and the end of the group. */
void cp3_fill_member(struct cp3_fill *f, const struct cp3_field *member, const struct cp3_value *v,
                     struct cp3_place at);
void cp3_fill_group_end(struct cp3_fill *f, struct cp3_place at);

/* All was read: what is missing?  The code of the first error, or 0. */
int cp3_fill_end(struct cp3_fill *f, struct cp3_place at);
/* What can be used in spite of errors goes into the error. */
void cp3_fill_salvage(struct cp3_fill *f);

/* ---- cp3_xml.c, cp3_json.c: one body into f, all errors recorded there ---- */

struct cp3_xml;
int cp3_xml_new(struct cp3_xml **ret_xml);
void cp3_xml_free(struct cp3_xml *xml);
void cp3_xml_read(struct cp3_xml *xml, const char *text, size_t len, struct cp3_fill *f);

void cp3_json_read(const char *text, size_t len, struct cp3_fill *f);

/* ---- cp3_scan.c: JSON as tokens, for what jansson does not tell ---- */

/*
 * Walks octets that may or may not be JSON.  The state after a token: how many objects and arrays
 * are open, and how many commas stood in the two outermost so far: the member's number.
 */
struct cp3_scan {
    const char *text;
    size_t len, at;    /* at: after the token */
    size_t start;      /* of the token */
    unsigned depth;    /* after the token */
    unsigned index[3]; /* by depth, 1 and 2 */
};

void cp3_scan_init(struct cp3_scan *s, const char *text, size_t len);
/* The next token: its first octet ('"' a string, '0' a number, structural as is), 0 at the end. */
char cp3_scan_next(struct cp3_scan *s);
/*
 * Whether jansson would refuse JSON that is legal: a number beyond its range, or a lone surrogate
 * in a string.  With `fix` not NULL (a copy of the token) it is overwritten with what is of the
 * same length, that jansson reads, and that no field accepts: a fraction, a NUL.
 */
bool cp3_scan_defuse(const struct cp3_scan *s, char token, char *fix);
/* The place of a member's name: the i-th of the root, or the j-th in that one if j >= 0. */
struct cp3_place cp3_scan_place(const char *text, size_t len, unsigned i, int j);

#endif
