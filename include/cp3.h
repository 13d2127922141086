/*
 * libcp3: the messages of OMA BCAST interface CP-3 (TS change request, clause 12.4.4), read from
 * and written to XML and JSON.
 *
 * One call reads one body into a plain struct, one call writes a struct into the caller's buffer.
 * Nothing here opens a file or a socket, logs, or keeps what it was given; the library needs only
 * libxml2 and jansson, and this header nothing but C.
 *
 * Threads: a cp3_reader belongs to one thread at a time; everything else is free of shared state.
 * Limits: what a peer chooses is bounded by the CP3_*_MAX below, in octets of UTF-8.
 * Errors: 0 or one of enum cp3_code, always negative.  Out-parameters named ret_* hold
 * something on success only.
 *
 *     struct cp3_reader *reader;                       one a thread, reused for every message
 *     struct cp3_message m;
 *     struct cp3_error err;
 *     cp3_reader_new(&reader);
 *     if (cp3_read(reader, CP3_XML, body, len, &m, &err) < 0)
 *         printf("line %u, %s: %s\n", err.line, err.element, err.reason);
 */
#ifndef CP3_H
#define CP3_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CP3_API __attribute__((visibility("default")))
#else
#define CP3_API
#endif

/* XML namespaces of the messages and of the extensions. */
#define CP3_NAMESPACE     "urn:x-bcast:spcp:cp3:1.0"
#define CP3_EXT_NAMESPACE "urn:x-bcast:spcp:cp3:ext:1.0"

/*
 * Limits, in octets, closing NULs not counted.
 */
#define CP3_ID_MAX         255   /* MessageID, Destination, Source */
#define CP3_CONTENT_ID_MAX 1024  /* ContentID: a URI */
#define CP3_DATA_MIN       24    /* AES-128 under RFC 3394 */
#define CP3_DATA_MAX       512   /* a block of RSA-4096 */
#define CP3_KEY_ID_SIZE    16    /* a UUID */
#define CP3_KEK_ID_MAX     300   /* a BSA's ID, a slash and a version */
#define CP3_TIME_MAX       35    /* RFC 3339 with nanoseconds and an offset */
#define CP3_BODY_MAX       65536 /* a body to read: bounds the work one message can ask for */
#define CP3_DEPTH_MAX      8     /* open elements, or objects and arrays: bounds the stack */
#define CP3_FOREIGN_MAX    8     /* elements of other namespaces, the extensions included */
#define CP3_WRITTEN_MAX    16384 /* no message is written longer: each octet at its longest escape */
#define CP3_INTEGER_MAX    9007199254740991 /* 2^53 - 1: what every JSON reader keeps exact */

/* The codes, by what the caller can do. */
enum cp3_code {
    CP3_ESYNTAX = -1,  /* not XML or JSON in UTF-8: nothing of it can be trusted */
    CP3_EREFUSED = -2, /* DOCTYPE, processing instruction or too deep nesting: not read further */
    CP3_EFORMAT = -3,  /* XML or JSON, but no CP-3 message: it breaks a rule of the table */
    CP3_ETOOBIG = -4,  /* a body of more than CP3_BODY_MAX octets */
    CP3_EMEDIA = -5,   /* a Content-Type that is none of ours, or a charset other than UTF-8 */
    CP3_EINVAL = -6,   /* the struct given is no message of that form, or the name is unknown */
    CP3_ENOSPC = -7,   /* the buffer is too small: CP3_WRITTEN_MAX never is */
    CP3_ENOMEM = -8,   /* out of memory: try again later */
};

/* The code's name, e.g. "CP3_EFORMAT", and a sentence fragment; never NULL; static strings. */
CP3_API const char *cp3_errname(int code);
CP3_API const char *cp3_strerror(int code);

enum cp3_media { CP3_XML, CP3_JSON };

/* Clause 12.4.4.1: the efficient form exists of Tags 2 and 4 only. */
enum cp3_form { CP3_FULL, CP3_EFFICIENT };

enum cp3_tag {
    CP3_REQUEST = 1,      /* Key Request, BSA to BSM */
    CP3_RESPONSE = 2,     /* Response to Key Request, BSM to BSA */
    CP3_DELIVERY = 3,     /* Key Delivery, BSM to BSA */
    CP3_CONFIRMATION = 4, /* Confirmation to Key Delivery, BSA to BSM */
};

enum cp3_status { CP3_STATUS_OK = 0, CP3_STATUS_REFUSED = 1 };

/* How Data was wrapped for the BSA. */
enum cp3_wrap {
    CP3_WRAP_AES_KW,          /* "aes-kw": RFC 3394 */
    CP3_WRAP_AES_KWP,         /* "aes-kwp": RFC 5649 */
    CP3_WRAP_RSA_OAEP_SHA256, /* "rsa-oaep-sha256": RFC 8017, empty label */
    CP3_WRAP_RSA_OAEP_SHA1,   /* "rsa-oaep-sha1": RFC 8017, empty label */
};

/* Why a message was refused: the token of the CP3-Reason header. */
enum cp3_reason {
    CP3_REASON_NONE, /* "" */
    CP3_REASON_MALFORMED,
    CP3_REASON_UNSUPPORTED_VERSION,
    CP3_REASON_WRONG_DESTINATION,
    CP3_REASON_WRONG_SOURCE,
    CP3_REASON_UNKNOWN_CONTENT,
    CP3_REASON_NOT_ENTITLED,
    CP3_REASON_DUPLICATE_MESSAGE_ID,
    CP3_REASON_UNKNOWN_MESSAGE,
    CP3_REASON_WRONG_CONTENT,
    CP3_REASON_ALREADY_CONFIRMED,
    CP3_REASON_NO_PERIOD,
    CP3_REASON_KEY_GONE,
    CP3_REASON_BUSY,
    CP3_REASON_INTERNAL,
};

/*
 * A time: as it was read, and as seconds and nanoseconds since 1970 in UTC.  Only the numbers are
 * written; text is for people and for logs.  Years 0000 to 9999.
 */
struct cp3_time {
    int64_t seconds;
    uint32_t nanoseconds;
    char text[CP3_TIME_MAX + 1];
};

/* Bits of cp3_key_info.has: the optional attributes that are there. */
#define CP3_KEY_HAS_PERIOD     0x01u
#define CP3_KEY_HAS_NOT_BEFORE 0x02u
#define CP3_KEY_HAS_NOT_AFTER  0x04u

/* Extension KeyInfo of Tags 2 and 3: what the TEK in Data is. */
struct cp3_key_info {
    uint32_t has; /* CP3_KEY_HAS_* */
    uint8_t key_id[CP3_KEY_ID_SIZE];
    char kek_id[CP3_KEK_ID_MAX + 1];
    enum cp3_wrap wrap;
    uint64_t bits; /* at most 65535 */
    uint64_t period;
    struct cp3_time not_before; /* both from the year 0001 on: xs:dateTime */
    struct cp3_time not_after;
};

/* Bits of cp3_message.has. */
#define CP3_HAS_VERSION  0x01u
#define CP3_HAS_TIME     0x02u
#define CP3_HAS_KEY_INFO 0x04u
#define CP3_HAS_PERIOD   0x08u

/*
 * A message.  Strings are UTF-8 with a closing NUL and cannot contain one; an empty string is an
 * absent field, so is a data_len of 0.  Where a bit of `has` is not set, the field behind it is
 * not to be looked at (version is 1 then).  A plain struct of some 3 KB: copy it, put it on a
 * stack; cp3_message_init() is the cheap way to empty it.
 */
struct cp3_message {
    enum cp3_tag tag;
    enum cp3_form form; /* set by cp3_read(); cp3_write() takes its form as an argument */
    uint32_t has;       /* CP3_HAS_* */
    uint64_t version;   /* 1 if absent; any other is the caller's to refuse */
    char message_id[CP3_ID_MAX + 1];
    char content_id[CP3_CONTENT_ID_MAX + 1];
    char destination[CP3_ID_MAX + 1];
    char source[CP3_ID_MAX + 1];
    enum cp3_status status; /* Tags 2 and 4 */
    size_t data_len;        /* Tag 2 with status 0, Tag 3: CP3_DATA_MIN..CP3_DATA_MAX */
    uint8_t data[CP3_DATA_MAX];
    struct cp3_time time;
    struct cp3_key_info key_info; /* Tags 2 and 3 */
    uint64_t period_index;        /* extension Period of Tag 1: the period asked for */
};

/* An empty message of that tag: nothing present, version 1, status 0.  Does not touch the rest. */
CP3_API void cp3_message_init(struct cp3_message *m, enum cp3_tag tag);

/*
 * What is wrong, and where.  element and reason are never empty and hold printable ASCII only:
 * what a peer sent stands in them as \xNN where it is not, and cut where it is long, so they may
 * be logged or answered as they are (JSON needs its \ and " escaped).
 *
 * element is a name of the table ("MessageID", "KeyInfo.bits"), the unknown name met, or
 * "document" where the fault is in no element.
 *
 * tag and message_id are what can be read of the message all the same.  After CP3_EFORMAT all of
 * it was looked at, whatever the order of its fields: a tag of CP3_REQUEST with a message_id means
 * that an efficient Response with Status 1 can be answered.  A field that is broken, repeated or
 * contradicts the root element counts as not read.  After any other code they hold what was read
 * before the reader gave up.
 */
#define CP3_ERROR_ELEMENT_MAX 63
#define CP3_ERROR_REASON_MAX  159
struct cp3_error {
    int code;        /* what cp3_read() returned */
    unsigned line;   /* from 1; 0 if the fault has no place, such as too big a body */
    unsigned column; /* from 1, in octets, about where the reader stood; 0 if not known */
    char element[CP3_ERROR_ELEMENT_MAX + 1];
    char reason[CP3_ERROR_REASON_MAX + 1];
    int tag;                         /* 1 to 4, 0 if not to be read */
    char message_id[CP3_ID_MAX + 1]; /* "" if there is no legal one */
};

/*
 * The memory a thread reads with; made once, used for any number of messages of either media,
 * also after errors.  It does not grow with what peers send.  Errors: CP3_ENOMEM.
 */
struct cp3_reader;
CP3_API int cp3_reader_new(struct cp3_reader **ret_reader);
CP3_API void cp3_reader_free(struct cp3_reader *reader); /* NULL is fine */

/*
 * Read one message.  octets may be NULL if len is 0: an empty body, which is no message.  ret_err
 * may be NULL; without an error it is left alone.  *ret_message holds the message on success, and
 * nothing to be looked at on failure.
 *
 * Both: UTF-8, with or without a byte order mark; fields in any order.
 * XML: a declared encoding must be UTF-8.  Refused: elements of the CP-3 namespace or of none that
 * the message does not have, repeated ones, attributes that are not known (xsi:* and xmlns* are
 * ignored), DOCTYPE, processing instructions.  Elements of other namespaces are ignored;
 * extensions too where the message has none.  Integers, Data, notBefore and notAfter may stand
 * between white space, as XML Schema has it (some 3000 octets with it); strings may not.
 * JSON: one object; duplicate members, also of unknown names, are malformed; unknown members are
 * ignored, fields of another message are not; integers stand without fraction and exponent.
 * Strings carry no C0 control, DEL, U+FFFE, U+FFFF (XML cannot carry them) or lone surrogate, and
 * no leading or trailing white space.
 * A Version greater than 1 is read: to refuse it by name is the caller's.
 *
 * Errors: CP3_ESYNTAX, CP3_EREFUSED, CP3_EFORMAT, CP3_ETOOBIG, CP3_ENOMEM.
 */
CP3_API int cp3_read(struct cp3_reader *reader, enum cp3_media media, const void *octets,
                     size_t len, struct cp3_message *ret_message, struct cp3_error *ret_err);

/*
 * Write a message: fields in the order of the tables, Data in upper case, times as RFC 3339 in
 * UTC, no closing NUL, no closing line feed.  The same struct gives the same octets.  The
 * efficient form is exactly Tag, MessageID, Status and (Status 0 of Tag 2) Data, whatever else the
 * struct holds.  In the full form Version, Time and the extensions are written if `has` says so.
 *
 * The struct is checked against the same table as what is read; what a reader would refuse is not
 * written: CP3_EINVAL, also for the efficient form of Tags 1 and 3.  A cap of CP3_WRITTEN_MAX is
 * always enough, else CP3_ENOSPC; buf holds nothing to be looked at after an error.
 */
CP3_API int cp3_write(enum cp3_media media, enum cp3_form form, const struct cp3_message *m,
                      char *buf, size_t cap, size_t *ret_len);

/*
 * The media of a Content-Type value (RFC 9110 section 8.3), any case: application/xml, text/xml,
 * application/json, with parameters; a charset must be UTF-8.  Errors: CP3_EMEDIA.
 */
CP3_API int cp3_media_from_content_type(const char *value, size_t len, enum cp3_media *ret_media);
CP3_API const char *cp3_media_content_type(enum cp3_media media); /* "application/xml", … */

/*
 * RFC 3339 (upper case T and Z, at most nine decimals, any offset), or NTP seconds (1 to 10
 * digits, since 1900).  A leap second is read as the second after it.  Errors: CP3_EFORMAT.
 */
CP3_API int cp3_time_read(const char *text, size_t len, struct cp3_time *ret_time);

/* A time from its numbers; text becomes what is written.  Errors: CP3_EINVAL (out of range). */
CP3_API int cp3_time_set(struct cp3_time *time, int64_t seconds, uint32_t nanoseconds);

/*
 * Names as they stand in messages, settings and headers; static strings; NULL for a value out of
 * range.  The *_from_name() functions take them back, exactly.  Errors: CP3_EINVAL.
 */
CP3_API const char *cp3_media_name(enum cp3_media media);    /* "xml", "json" */
CP3_API const char *cp3_form_name(enum cp3_form form);       /* "full", "efficient" */
CP3_API const char *cp3_wrap_name(enum cp3_wrap wrap);       /* "aes-kw", … */
CP3_API const char *cp3_reason_name(enum cp3_reason reason); /* "unknown-content", … */
CP3_API const char *cp3_tag_name(enum cp3_tag tag); /* the root element: "KeyRequest", … */
CP3_API int cp3_media_from_name(const char *name, enum cp3_media *ret_media);
CP3_API int cp3_form_from_name(const char *name, enum cp3_form *ret_form);
CP3_API int cp3_wrap_from_name(const char *name, enum cp3_wrap *ret_wrap);
CP3_API int cp3_reason_from_name(const char *name, enum cp3_reason *ret_reason);

#ifdef __cplusplus
}
#endif

#endif
