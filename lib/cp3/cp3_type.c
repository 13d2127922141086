/*
 * The types of values: how each is read from text or from JSON, and how it is written.  A format
 * function refuses what its read function would.
 */
#include "cp3_codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define UUID_LEN   36
#define DATE_FIRST (-62135596800LL) /* 0001-01-01T00:00:00Z: xs:dateTime has no year 0000 */

static_assert(CP3_VALUE_MAX >= CP3_CONTENT_ID_MAX && CP3_VALUE_MAX >= CP3_DATA_MAX * 2,
              "every value fits");

static void *value_in(const struct cp3_field *field, struct cp3_message *m)
{
    return (char *)m + field->offset;
}

static const void *value_of(const struct cp3_field *field, const struct cp3_message *m)
{
    return (const char *)m + field->offset;
}

__attribute__((format(printf, 2, 3))) static bool fault(char *why, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(why, CP3_ERROR_REASON_MAX + 1, format, ap);
    va_end(ap);
    return false;
}

static bool is_string(const struct cp3_value *v, char *why)
{
    return v->kind == CP3_TEXT || v->kind == CP3_STRING || fault(why, "not a string");
}

/* White space around what XML Schema collapses: integers, hexBinary and dateTime. */
static struct cp3_value collapsed(const struct cp3_value *v)
{
    struct cp3_value c = *v;

    while (v->kind == CP3_TEXT && c.len > 0 && cp3_text_is_space(c.text[0])) {
        c.text++;
        c.len--;
    }
    while (v->kind == CP3_TEXT && c.len > 0 && cp3_text_is_space(c.text[c.len - 1]))
        c.len--;
    return c;
}

/* ---- integers: an enum of 4 octets or a uint64_t ---- */

static void integer_set(const struct cp3_field *field, struct cp3_message *m, uint64_t n)
{
    uint32_t small = (uint32_t)n;

    if (field->size == sizeof(small))
        memcpy(value_in(field, m), &small, sizeof(small));
    else
        memcpy(value_in(field, m), &n, sizeof(n));
}

static uint64_t integer_get(const struct cp3_field *field, const struct cp3_message *m)
{
    uint32_t small;
    uint64_t n;

    if (field->size == sizeof(small)) {
        memcpy(&small, value_of(field, m), sizeof(small));
        return small;
    }
    memcpy(&n, value_of(field, m), sizeof(n));
    return n;
}

static bool integer_read(const struct cp3_field *field, const struct cp3_value *v,
                         struct cp3_message *m, char *why)
{
    struct cp3_value c = collapsed(v);
    uint64_t max = v->kind == CP3_TEXT && field->xml_max ? field->xml_max : field->max;
    uint64_t n = 0;
    bool ok = false;

    if (v->kind == CP3_TEXT)
        ok = cp3_text_number(c.text, c.len, &n);
    else if (v->kind == CP3_INTEGER) {
        n = (uint64_t)v->number; /* a negative one is beyond any maximum */
        ok = true;
    }
    if (!ok || n < field->min || n > max)
        return fault(why, "not an integer from %" PRIu64 " to %" PRIu64, field->min, max);
    integer_set(field, m, n);
    return true;
}

static int integer_format(const struct cp3_field *field, const struct cp3_message *m, char *out)
{
    uint64_t n = integer_get(field, m);

    if (n < field->min || n > field->max)
        return -1;
    return snprintf(out, CP3_VALUE_MAX + 1, "%" PRIu64, n);
}

const struct cp3_type cp3_type_integer = {true, integer_read, integer_format};

/* ---- strings ---- */

static bool string_read(const struct cp3_field *field, const struct cp3_value *v,
                        struct cp3_message *m, char *why)
{
    const char *wrong;
    char *out = value_in(field, m);

    if (!is_string(v, why))
        return false;
    if (v->len < field->min)
        return fault(why, "empty");
    if (v->len > field->max)
        return fault(why, "longer than %" PRIu64 " octets", field->max);
    wrong = cp3_text_fault(v->text, v->len);
    if (wrong != NULL)
        return fault(why, "%s", wrong);
    memcpy(out, v->text, v->len);
    out[v->len] = '\0';
    return true;
}

static int string_format(const struct cp3_field *field, const struct cp3_message *m, char *out)
{
    const char *text = value_of(field, m);
    size_t len = strnlen(text, field->size);

    if (len < field->min || len > field->max || cp3_text_utf8(text, len) != len ||
        cp3_text_fault(text, len) != NULL)
        return -1;
    memcpy(out, text, len);
    return (int)len;
}

const struct cp3_type cp3_type_string = {false, string_read, string_format};

/* ---- Data: hexBinary ---- */

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool hex_read(const char *text, size_t len, uint8_t *out)
{
    for (size_t i = 0; i < len; i += 2) {
        int high = digit(text[i]), low = digit(text[i + 1]);

        if (high < 0 || low < 0)
            return false;
        out[i / 2] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static void hex_write(const uint8_t *data, size_t len, const char *digits, char *out)
{
    for (size_t i = 0; i < len; i++) {
        out[i * 2] = digits[data[i] >> 4];
        out[i * 2 + 1] = digits[data[i] & 0x0F];
    }
}

static bool data_read(const struct cp3_field *field, const struct cp3_value *v,
                      struct cp3_message *m, char *why)
{
    struct cp3_value c = collapsed(v);

    if (!is_string(v, why))
        return false;
    if (c.len < field->min * 2 || c.len > field->max * 2)
        return fault(why, "not %" PRIu64 " to %" PRIu64 " octets", field->min, field->max);
    if (c.len % 2 != 0)
        return fault(why, "odd number of hexadecimal digits");
    if (!hex_read(c.text, c.len, value_in(field, m)))
        return fault(why, "not hexadecimal");
    m->data_len = c.len / 2;
    return true;
}

static int data_format(const struct cp3_field *field, const struct cp3_message *m, char *out)
{
    if (m->data_len < field->min || m->data_len > field->max)
        return -1;
    hex_write(value_of(field, m), m->data_len, "0123456789ABCDEF", out);
    return (int)m->data_len * 2;
}

const struct cp3_type cp3_type_data = {false, data_read, data_format};

/* ---- times ---- */

static bool time_read(const struct cp3_field *field, const struct cp3_value *v,
                      struct cp3_message *m, char *why)
{
    if (!is_string(v, why))
        return false;
    return cp3_time_read(v->text, v->len, value_in(field, m)) == 0 ||
           fault(why, "neither RFC 3339 nor NTP seconds");
}

static bool date_read(const struct cp3_field *field, const struct cp3_value *v,
                      struct cp3_message *m, char *why)
{
    struct cp3_value c = collapsed(v);
    struct cp3_time *t = value_in(field, m);

    if (!is_string(v, why))
        return false;
    if (cp3_time_read_date(c.text, c.len, t) < 0)
        return fault(why, "not RFC 3339");
    return t->seconds >= DATE_FIRST || fault(why, "before the year 0001");
}

static int time_format(const struct cp3_field *field, const struct cp3_message *m, char *out)
{
    const struct cp3_time *t = value_of(field, m);
    struct cp3_time utc;
    size_t len;

    if (cp3_time_set(&utc, t->seconds, t->nanoseconds) < 0)
        return -1;
    len = strlen(utc.text);
    memcpy(out, utc.text, len);
    return (int)len;
}

static int date_format(const struct cp3_field *field, const struct cp3_message *m, char *out)
{
    const struct cp3_time *t = value_of(field, m);

    return t->seconds < DATE_FIRST ? -1 : time_format(field, m, out);
}

const struct cp3_type cp3_type_time = {false, time_read, time_format};
const struct cp3_type cp3_type_date = {false, date_read, date_format};

/* ---- UUID, RFC 9562 section 4, lower case ---- */

static const char uuid_pattern[UUID_LEN + 1] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

static bool uuid_read(const struct cp3_field *field, const struct cp3_value *v,
                      struct cp3_message *m, char *why)
{
    char digits[CP3_KEY_ID_SIZE * 2];
    size_t n = 0;

    if (!is_string(v, why))
        return false;
    if (v->len != UUID_LEN)
        return fault(why, "not a UUID in lower case");
    for (size_t i = 0; i < UUID_LEN; i++) {
        char c = v->text[i];

        if (uuid_pattern[i] == '-' ? c != '-' : digit(c) < 0 || (c >= 'A' && c <= 'F'))
            return fault(why, "not a UUID in lower case");
        if (c != '-')
            digits[n++] = c;
    }
    return hex_read(digits, sizeof(digits), value_in(field, m));
}

static int uuid_format(const struct cp3_field *field, const struct cp3_message *m, char *out)
{
    char digits[CP3_KEY_ID_SIZE * 2];
    size_t n = 0;

    hex_write(value_of(field, m), CP3_KEY_ID_SIZE, "0123456789abcdef", digits);
    for (size_t i = 0; i < UUID_LEN; i++)
        out[i] = uuid_pattern[i] == '-' ? '-' : digits[n++];
    return UUID_LEN;
}

const struct cp3_type cp3_type_uuid = {false, uuid_read, uuid_format};

/* ---- the wrap ---- */

static bool wrap_read(const struct cp3_field *field, const struct cp3_value *v,
                      struct cp3_message *m, char *why)
{
    char name[32];

    if (!is_string(v, why))
        return false;
    if (v->len >= sizeof(name))
        return fault(why, "not a wrap that is known");
    memcpy(name, v->text, v->len);
    name[v->len] = '\0';
    return cp3_wrap_from_name(name, value_in(field, m)) == 0 ||
           fault(why, "not a wrap that is known");
}

static int wrap_format(const struct cp3_field *field, const struct cp3_message *m, char *out)
{
    const char *name = cp3_wrap_name(*(const enum cp3_wrap *)value_of(field, m));
    size_t len;

    if (name == NULL)
        return -1;
    len = strlen(name);
    memcpy(out, name, len);
    return (int)len;
}

const struct cp3_type cp3_type_wrap = {false, wrap_read, wrap_format};

/* ---- presence ---- */

bool cp3_type_present(const struct cp3_field *field, const struct cp3_message *m)
{
    uint32_t has;

    if (field->has != 0) {
        memcpy(&has, (const char *)m + field->has_offset, sizeof(has));
        return (has & field->has) != 0;
    }
    if (field->type == &cp3_type_data)
        return m->data_len > 0;
    if (field->type == &cp3_type_string)
        return *(const char *)value_of(field, m) != '\0';
    return true;
}
