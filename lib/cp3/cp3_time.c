/*
 * Times: RFC 3339 is written; RFC 3339 and NTP seconds are read.
 *
 *     2026-01-01T00:00:00Z    2026-01-01T01:00:00.5+01:00    3976214400
 *
 * Dates are those of the proleptic Gregorian calendar, counted as Howard Hinnant's "chrono-
 * compatible low-level date algorithms" do: years begin in March, so that the leap day is the last.
 */
#include "cp3_codec.h"

#include <stdio.h>
#include <string.h>

#define DAY         86400
#define NANOSECONDS 1000000000u
#define NTP_EPOCH   2208988800       /* seconds from 1900 to 1970, RFC 5905 section 6 */
#define FIRST       (-62167219200LL) /* 0000-01-01T00:00:00Z */
#define LAST        253402300799LL   /* 9999-12-31T23:59:59Z */
#define NTP_DIGITS  10

static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void civil_from_days(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;

    *ret_day = (int)(doy - (153 * mp + 2) / 5 + 1);
    *ret_month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *ret_year = (int)(yoe + era * 400 + (*ret_month <= 2));
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

/* Reads where the pattern has 'd' a digit, elsewhere that very octet; digits go to out in order. */
static bool match(const char *text, size_t len, const char *pattern, int *out)
{
    size_t i;

    for (i = 0; pattern[i] != '\0'; i++) {
        if (i == len)
            return false;
        if (pattern[i] != 'd' && text[i] != pattern[i])
            return false;
        if (pattern[i] == 'd' && (text[i] < '0' || text[i] > '9'))
            return false;
        if (pattern[i] == 'd')
            *out++ = text[i] - '0';
    }
    return true;
}

/* The decimals after the seconds, if any, at *at.  False if there are none after the point. */
static bool read_fraction(const char *text, size_t len, size_t *at, uint32_t *ret_nanoseconds)
{
    uint32_t unit = NANOSECONDS / 10, n = 0;
    size_t i = *at;

    *ret_nanoseconds = 0;
    if (i == len || text[i] != '.')
        return true;
    for (i++; i < len && text[i] >= '0' && text[i] <= '9' && unit > 0; i++, unit /= 10)
        n += (uint32_t)(text[i] - '0') * unit;
    if (i == *at + 1)
        return false;
    *at = i;
    *ret_nanoseconds = n;
    return true;
}

/* The rest of the text is "Z" or an offset, in seconds east of UTC. */
static bool read_offset(const char *text, size_t len, int *ret_offset)
{
    int d[4], hours, minutes;

    if (len == 1 && text[0] == 'Z') {
        *ret_offset = 0;
        return true;
    }
    if (len != 6 || (text[0] != '+' && text[0] != '-') || !match(text + 1, 5, "dd:dd", d))
        return false;
    hours = d[0] * 10 + d[1];
    minutes = d[2] * 10 + d[3];
    if (hours > 23 || minutes > 59)
        return false;
    *ret_offset = (hours * 60 + minutes) * (text[0] == '-' ? -60 : 60);
    return true;
}

static bool keep(const char *text, size_t len, int64_t seconds, uint32_t nanoseconds,
                 struct cp3_time *ret_time)
{
    if (seconds < FIRST || seconds > LAST || len > CP3_TIME_MAX)
        return false;
    ret_time->seconds = seconds;
    ret_time->nanoseconds = nanoseconds;
    memcpy(ret_time->text, text, len);
    ret_time->text[len] = '\0';
    return true;
}

int cp3_time_read_date(const char *text, size_t len, struct cp3_time *ret_time)
{
    int d[14], year, month, day, hour, minute, second, offset, of_day;
    size_t at = strlen("dddd-dd-ddTdd:dd:dd");
    uint32_t nanoseconds;
    int64_t seconds;

    if (!match(text, len, "dddd-dd-ddTdd:dd:dd", d) ||
        !read_fraction(text, len, &at, &nanoseconds) || !read_offset(text + at, len - at, &offset))
        return CP3_EFORMAT;
    year = d[0] * 1000 + d[1] * 100 + d[2] * 10 + d[3];
    month = d[4] * 10 + d[5];
    day = d[6] * 10 + d[7];
    hour = d[8] * 10 + d[9];
    minute = d[10] * 10 + d[11];
    second = d[12] * 10 + d[13];
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 ||
        minute > 59 || second > 60)
        return CP3_EFORMAT;
    of_day = (hour * 60 + minute) * 60 + second;
    seconds = days_from_civil(year, month, day) * DAY + of_day - offset;
    /* A leap second is the last of a day in UTC, whatever the offset it is written in. */
    if (second == 60 && seconds % DAY != 0)
        return CP3_EFORMAT;
    return keep(text, len, seconds, nanoseconds, ret_time) ? 0 : CP3_EFORMAT;
}

int cp3_time_read(const char *text, size_t len, struct cp3_time *ret_time)
{
    uint64_t ntp;

    if (len > NTP_DIGITS)
        return cp3_time_read_date(text, len, ret_time);
    if (!cp3_text_number(text, len, &ntp) ||
        !keep(text, len, (int64_t)ntp - NTP_EPOCH, 0, ret_time))
        return CP3_EFORMAT;
    return 0;
}

int cp3_time_set(struct cp3_time *time, int64_t seconds, uint32_t nanoseconds)
{
    int year, month, day, n, second;
    int64_t days;

    if (seconds < FIRST || seconds > LAST || nanoseconds >= NANOSECONDS)
        return CP3_EINVAL;
    days = (seconds - FIRST) / DAY + FIRST / DAY;
    second = (int)(seconds - days * DAY);
    civil_from_days(days, &year, &month, &day);
    time->seconds = seconds;
    time->nanoseconds = nanoseconds;
    n = snprintf(time->text, sizeof(time->text), "%04d-%02d-%02dT%02d:%02d:%02d.%09u", year, month,
                 day, second / 3600, second / 60 % 60, second % 60, nanoseconds);
    /* No decimals that say nothing: "…:00.500000000" is "…:00.5", "…:00.000000000" is "…:00". */
    while (time->text[n - 1] == '0' && nanoseconds > 0)
        n--;
    if (nanoseconds == 0)
        n -= (int)strlen(".000000000");
    time->text[n++] = 'Z';
    time->text[n] = '\0';
    return 0;
}
