#include <string.h>

#include "audit.h"
#include "tekd/auto.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/merkle.h"
#include "tekd/record.h"

#define HEX "0123456789abcdef"

#define FIELD(kind, k, optional)                                                                   \
    {                                                                                              \
#k, FIELD_##kind, optional                                                                 \
    }
#define STR(k)       FIELD(STR, k, false)
#define INT(k)       FIELD(INT, k, false)
#define BOOL(k)      FIELD(BOOL, k, false)
#define HASH(k)      FIELD(HASH, k, false)
#define HASHES(k)    FIELD(HASHES, k, false)
#define REF(k)       FIELD(REF, k, false)
#define TIME(k)      FIELD(TIME, k, false)
#define DELTA(k)     FIELD(DELTA, k, false)
#define OPT(kind, k) FIELD(kind, k, true)

/* One array of rules an event; the first element stands for the event that has none. */
#define EVENT(symbol, name, ...)                                                                   \
    static const struct field_rule fields_##symbol[] = {{NULL, FIELD_STR, true}, ##__VA_ARGS__};
#include "events.def"
#undef EVENT

static const struct event events[EVENT_COUNT] = {
#define EVENT(symbol, name, ...)                                                                   \
    {name, sizeof(name) - 1, EVENT_##symbol, fields_##symbol + 1, ARRAY_SIZE(fields_##symbol) - 1},
#include "events.def"
#undef EVENT
};

const struct event *event_find(const char *name, size_t len)
{
    for (size_t i = 0; i < EVENT_COUNT; i++)
        if (events[i].name_len == len && memcmp(events[i].name, name, len) == 0)
            return &events[i];
    return NULL;
}

bool record_event_known(const char *event)
{
    return event_find(event, strlen(event)) != NULL;
}

static bool is_hash(const char *s)
{
    return strlen(s) == 2 * (size_t)MERKLE_HASH_LEN && strspn(s, HEX) == strlen(s);
}

int decimal_read(const char *s, size_t len, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (len == 0 || (s[0] == '0' && len > 1))
        return TEKD_EFORMAT;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s[i] - '0'), &value))
            return TEKD_EFORMAT;
    }
    *ret_value = value;
    return 0;
}

int ref_read(const char *s, uint64_t *ret_epoch, uint64_t *ret_seq)
{
    const char *slash = strchr(s, '/');
    uint64_t epoch, seq;

    if (!slash || decimal_read(s, (size_t)(slash - s), &epoch) < 0 || epoch == 0 ||
        decimal_read(slash + 1, strlen(slash + 1), &seq) < 0)
        return TEKD_EFORMAT;
    *ret_epoch = epoch;
    *ret_seq = seq;
    return 0;
}

static bool is_hashes(const char *s)
{
    size_t len = 2 * (size_t)MERKLE_HASH_LEN;

    while (strspn(s, HEX) == len && s[len] == ',')
        s += len + 1;
    return is_hash(s);
}

static bool is_time(const char *s)
{
    int64_t utc_us;

    return enc_time_read(s, strlen(s), &utc_us) == 0;
}

static bool is_delta(const char *s)
{
    uint64_t value;

    s += s[0] == '-';
    return decimal_read(s, strlen(s), &value) == 0;
}

static bool is_of_kind(const struct record *r, const char *key, enum field_kind kind)
{
    const char *str = record_get_str(r, key);
    uint64_t a, b;
    bool flag;

    switch (kind) {
    case FIELD_STR:
        return str != NULL;
    case FIELD_INT:
        return record_get_int(r, key, &a);
    case FIELD_BOOL:
        return record_get_bool(r, key, &flag);
    case FIELD_HASH:
        return str && is_hash(str);
    case FIELD_HASHES:
        return str && is_hashes(str);
    case FIELD_REF:
        return str && ref_read(str, &a, &b) == 0;
    case FIELD_TIME:
        return str && is_time(str);
    case FIELD_DELTA:
        return str && is_delta(str);
    }
    return false;
}

const struct field_rule *event_violated(const struct event *e, const struct record *r)
{
    for (size_t i = 0; i < e->n_fields; i++) {
        const struct field_rule *f = &e->fields[i];

        if (f->optional && !record_has(r, f->key))
            continue;
        if (!is_of_kind(r, f->key, f->kind))
            return f;
    }
    return NULL;
}

const char *field_kind_text(enum field_kind kind)
{
    switch (kind) {
    case FIELD_STR:
        return "a string";
    case FIELD_INT:
        return "an integer";
    case FIELD_BOOL:
        return "true or false";
    case FIELD_HASH:
        return "a SHA-256 of 64 lower-case hexadecimal digits";
    case FIELD_HASHES:
        return "SHA-256 of 64 lower-case hexadecimal digits, with commas between them";
    case FIELD_REF:
        return "a record epoch/seq";
    case FIELD_TIME:
        return "a time like t";
    case FIELD_DELTA:
        return "a decimal number";
    }
    return "";
}

const char *record_violation(const struct record *r)
{
    const char *name = record_event(r);
    const struct event *e = event_find(name, strlen(name));
    const struct field_rule *f = e ? event_violated(e, r) : NULL;

    if (!e)
        return "ev";
    return f ? f->key : NULL;
}
