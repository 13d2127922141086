#include "tekd/enc.h"

#include <assert.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/rand.h>

#include "tekd/err.h"
#include "tekd/log.h"

/* Marks the digits in the reading tables: a digit's value may be 0, its entry is not. */
#define V 0x80

static const char hex_lower[] = "0123456789abcdef";
static const char hex_upper[] = "0123456789ABCDEF";

static const uint8_t hex_value[256] = {
    ['0'] = V | 0,  ['1'] = V | 1,  ['2'] = V | 2,  ['3'] = V | 3,  ['4'] = V | 4,  ['5'] = V | 5,
    ['6'] = V | 6,  ['7'] = V | 7,  ['8'] = V | 8,  ['9'] = V | 9,  ['A'] = V | 10, ['B'] = V | 11,
    ['C'] = V | 12, ['D'] = V | 13, ['E'] = V | 14, ['F'] = V | 15, ['a'] = V | 10, ['b'] = V | 11,
    ['c'] = V | 12, ['d'] = V | 13, ['e'] = V | 14, ['f'] = V | 15,
};

static const char base64_digit[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static const uint8_t base64_value[256] = {
    ['A'] = V | 0,  ['B'] = V | 1,  ['C'] = V | 2,  ['D'] = V | 3,  ['E'] = V | 4,  ['F'] = V | 5,
    ['G'] = V | 6,  ['H'] = V | 7,  ['I'] = V | 8,  ['J'] = V | 9,  ['K'] = V | 10, ['L'] = V | 11,
    ['M'] = V | 12, ['N'] = V | 13, ['O'] = V | 14, ['P'] = V | 15, ['Q'] = V | 16, ['R'] = V | 17,
    ['S'] = V | 18, ['T'] = V | 19, ['U'] = V | 20, ['V'] = V | 21, ['W'] = V | 22, ['X'] = V | 23,
    ['Y'] = V | 24, ['Z'] = V | 25, ['a'] = V | 26, ['b'] = V | 27, ['c'] = V | 28, ['d'] = V | 29,
    ['e'] = V | 30, ['f'] = V | 31, ['g'] = V | 32, ['h'] = V | 33, ['i'] = V | 34, ['j'] = V | 35,
    ['k'] = V | 36, ['l'] = V | 37, ['m'] = V | 38, ['n'] = V | 39, ['o'] = V | 40, ['p'] = V | 41,
    ['q'] = V | 42, ['r'] = V | 43, ['s'] = V | 44, ['t'] = V | 45, ['u'] = V | 46, ['v'] = V | 47,
    ['w'] = V | 48, ['x'] = V | 49, ['y'] = V | 50, ['z'] = V | 51, ['0'] = V | 52, ['1'] = V | 53,
    ['2'] = V | 54, ['3'] = V | 55, ['4'] = V | 56, ['5'] = V | 57, ['6'] = V | 58, ['7'] = V | 59,
    ['8'] = V | 60, ['9'] = V | 61, ['+'] = V | 62, ['/'] = V | 63,
};

static void write_hex(const uint8_t *data, size_t len, const char *digits, char *out)
{
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[data[i] >> 4];
        *out++ = digits[data[i] & 15];
    }
    *out = '\0';
}

void enc_hex(const uint8_t *data, size_t len, char *out)
{
    write_hex(data, len, hex_lower, out);
}

void enc_hex_upper(const uint8_t *data, size_t len, char *out)
{
    write_hex(data, len, hex_upper, out);
}

int enc_hex_read(const char *s, size_t s_len, uint8_t *out, size_t len)
{
    unsigned int all = V;

    if (s_len % 2 != 0 || s_len / 2 != len)
        return TEKD_EFORMAT;
    for (size_t i = 0; i < len; i++) {
        unsigned int high = hex_value[(uint8_t)s[2 * i]];
        unsigned int low = hex_value[(uint8_t)s[2 * i + 1]];

        all &= high & low;
        out[i] = (uint8_t)((high << 4) | (low & 15));
    }
    return all & V ? 0 : TEKD_EFORMAT;
}

/* One group of 1 to 3 octets as 4 characters. */
static void write_group(const uint8_t *data, size_t len, char *out)
{
    uint32_t bits =
        (uint32_t)data[0] << 16 | (len > 1 ? (uint32_t)data[1] << 8 : 0) | (len > 2 ? data[2] : 0);

    out[0] = base64_digit[bits >> 18];
    out[1] = base64_digit[bits >> 12 & 63];
    out[2] = len > 1 ? base64_digit[bits >> 6 & 63] : '=';
    out[3] = len > 2 ? base64_digit[bits & 63] : '=';
}

void enc_base64(const uint8_t *data, size_t len, char *out)
{
    for (; len > 3; len -= 3, data += 3, out += 4)
        write_group(data, 3, out);
    if (len > 0) {
        write_group(data, len, out);
        out += 4;
    }
    *out = '\0';
}

/* Four characters, the last pad of which are '=', as 3 - pad octets. */
static int read_group(const char *s, size_t pad, uint8_t *out)
{
    unsigned int a = base64_value[(uint8_t)s[0]];
    unsigned int b = base64_value[(uint8_t)s[1]];
    unsigned int c = pad > 1 ? V : base64_value[(uint8_t)s[2]];
    unsigned int d = pad > 0 ? V : base64_value[(uint8_t)s[3]];
    uint32_t bits = (a & 63) << 18 | (b & 63) << 12 | (c & 63) << 6 | (d & 63);

    if (!(a & b & c & d & V) || (bits & ((1u << (8 * pad)) - 1)) != 0)
        return TEKD_EFORMAT;
    for (size_t i = 0; i < 3 - pad; i++)
        out[i] = (uint8_t)(bits >> (16 - 8 * i));
    return 0;
}

int enc_base64_read(const char *s, size_t s_len, uint8_t *out, size_t max, size_t *ret_len)
{
    size_t pad = 0;
    size_t len;

    if (s_len % 4 != 0)
        return TEKD_EFORMAT;
    if (s_len > 0 && s[s_len - 1] == '=')
        pad = s[s_len - 2] == '=' ? 2 : 1;
    len = s_len / 4 * 3 - pad;
    if (len > max)
        return TEKD_ETOOBIG;
    for (size_t i = 0; i < s_len; i += 4, out += 3) {
        int r = read_group(s + i, i + 4 == s_len ? pad : 0, out);
        if (r < 0)
            return r;
    }
    *ret_len = len;
    return 0;
}

int enc_uuidv7(int64_t utc_us, uint8_t out[static 16])
{
    uint64_t ms = (uint64_t)utc_us / 1000;

    assert(utc_us >= 0);
    if (RAND_bytes(out + 6, 10) != 1) {
        const char *reason = ERR_reason_error_string(ERR_get_error());
        log_event(LOG_ERROR, "enc", "no-random", LOG_STR("call", "RAND_bytes"),
                  LOG_STR("error", reason == NULL ? "unknown" : reason));
        return TEKD_ECRYPTO;
    }
    for (size_t i = 0; i < 6; i++)
        out[i] = (uint8_t)(ms >> (40 - 8 * i));
    out[6] = (uint8_t)(0x70 | (out[6] & 0x0f)); /* version 7 */
    out[8] = (uint8_t)(0x80 | (out[8] & 0x3f)); /* variant 10 */
    return 0;
}

/* How many octets of a UUID stand between its hyphens. */
static const size_t uuid_groups[] = {4, 2, 2, 2, 6};

void enc_uuid(const uint8_t id[static 16], char *out)
{
    for (size_t g = 0; g < sizeof(uuid_groups) / sizeof(uuid_groups[0]); g++) {
        if (g > 0)
            *out++ = '-';
        enc_hex(id, uuid_groups[g], out);
        id += uuid_groups[g];
        out += ENC_HEX_LEN(uuid_groups[g]);
    }
}

int enc_uuid_read(const char *s, size_t s_len, uint8_t out[static 16])
{
    const char *end = s + s_len;
    uint8_t id[16];
    uint8_t *p = id;

    if (s_len != ENC_UUID_LEN)
        return TEKD_EFORMAT;
    for (size_t g = 0; g < sizeof(uuid_groups) / sizeof(uuid_groups[0]); g++) {
        size_t n = uuid_groups[g];
        if (enc_hex_read(s, ENC_HEX_LEN(n), p, n) < 0)
            return TEKD_EFORMAT;
        s += ENC_HEX_LEN(n);
        p += n;
        if (s != end && *s++ != '-')
            return TEKD_EFORMAT;
    }
    memcpy(out, id, sizeof(id));
    return 0;
}

#define DAY_US INT64_C(86400000000)
/* From 0000-03-01, where the computed calendar begins, to 1970-01-01. */
#define DAYS_TO_EPOCH 719468
#define DAYS_PER_ERA  146097 /* 400 years */

struct parts {
    int64_t year, month, day, hour, minute, second, us;
};

/* What stands where in 2026-11-22T13:15:42.123456Z; the rest is punctuation. */
static const struct {
    size_t at;
    size_t digits;
    size_t offset;
} time_fields[] = {
    {0, 4, offsetof(struct parts, year)},    {5, 2, offsetof(struct parts, month)},
    {8, 2, offsetof(struct parts, day)},     {11, 2, offsetof(struct parts, hour)},
    {14, 2, offsetof(struct parts, minute)}, {17, 2, offsetof(struct parts, second)},
    {20, 6, offsetof(struct parts, us)},
};

/*
 * The Gregorian calendar by arithmetic: gmtime_r() takes the time zone's lock, and each audit
 * record has a time.  Years are counted from March, so that the leap day is a year's last.
 */
static struct parts split(int64_t utc_us)
{
    int64_t days = (utc_us - ENC_TIME_MIN) / DAY_US - 60 + DAYS_PER_ERA;
    int64_t us = (utc_us - ENC_TIME_MIN) % DAY_US;
    int64_t era = days / DAYS_PER_ERA;
    int64_t doe = days % DAYS_PER_ERA; /* day of the era, year of the era, day of the year */
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t m = (5 * doy + 2) / 153; /* 0 is March */

    return (struct parts){
        .year = yoe + (era - 1) * 400 + (m >= 10),
        .month = m < 10 ? m + 3 : m - 9,
        .day = doy - (153 * m + 2) / 5 + 1,
        .hour = us / INT64_C(3600000000),
        .minute = us / 60000000 % 60,
        .second = us / 1000000 % 60,
        .us = us % 1000000,
    };
}

static int64_t join(const struct parts *t)
{
    int64_t y = t->year + 400 - (t->month <= 2); /* one era later: never negative */
    int64_t yoe = y % 400;
    int64_t doy = (153 * (t->month > 2 ? t->month - 3 : t->month + 9) + 2) / 5 + t->day - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    int64_t days = (y / 400 - 1) * DAYS_PER_ERA + doe - DAYS_TO_EPOCH;

    return days * DAY_US + ((t->hour * 60 + t->minute) * 60 + t->second) * 1000000 + t->us;
}

void enc_time(int64_t utc_us, char *out)
{
    struct parts t;

    assert(utc_us >= ENC_TIME_MIN && utc_us <= ENC_TIME_MAX);
    t = split(utc_us);
    memcpy(out, "0000-00-00T00:00:00.000000Z", ENC_TIME_LEN + 1);
    for (size_t i = 0; i < sizeof(time_fields) / sizeof(time_fields[0]); i++) {
        int64_t value = *(const int64_t *)((const char *)&t + time_fields[i].offset);
        for (size_t d = time_fields[i].digits; d > 0; d--, value /= 10)
            out[time_fields[i].at + d - 1] = (char)('0' + value % 10);
    }
}

int enc_time_read(const char *s, size_t s_len, int64_t *ret_utc_us)
{
    char written[ENC_TIME_LEN + 1];
    struct parts t;
    int64_t utc_us;

    if (s_len != ENC_TIME_LEN)
        return TEKD_EFORMAT;
    for (size_t i = 0; i < sizeof(time_fields) / sizeof(time_fields[0]); i++) {
        int64_t *value = (int64_t *)((char *)&t + time_fields[i].offset);
        *value = 0;
        for (size_t d = 0; d < time_fields[i].digits; d++)
            *value = *value * 10 + (s[time_fields[i].at + d] - '0');
    }
    /* Whatever was read, only what would be written again the same is a time. */
    utc_us = join(&t);
    if (utc_us < ENC_TIME_MIN || utc_us > ENC_TIME_MAX)
        return TEKD_EFORMAT;
    enc_time(utc_us, written);
    if (memcmp(written, s, ENC_TIME_LEN) != 0)
        return TEKD_EFORMAT;
    *ret_utc_us = utc_us;
    return 0;
}

void enc_printable(const char *text, char *out, size_t out_size)
{
    size_t n = 0;

    for (; text[n] && n + 1 < out_size; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = '\0';
}
