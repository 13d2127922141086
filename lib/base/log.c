/*
 * A line is built in a local array and written with one write(2).  Whatever is cut, is cut between
 * whole characters and whole escapes, and what was opened is closed: a field that does not fit
 * with its closing octets is left out, and so are those behind it.
 *
 *   logfmt  TIME LEVEL AREA event=EVENT [suppressed=N] key=value ...
 *           a value with a space, '=', '"', '\' or anything escaped, and the empty one, stands in
 *           quotes; escapes: \" \\ \n \r \t, and \xHH for each octet that is no printable text
 *   JSON    {"time":...,"level":...,"area":...,"event":...,["suppressed":N,]"key":value,...}
 *           escapes of RFC 8259; an octet that is not UTF-8 is written as \u00HH
 */
#include "tekd/log.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tekd/clock.h"
#include "tekd/enc.h"

/*
 * Events are words of the program's text, well under this many; those that find the table full
 * share its last row, so that they stay limited too.
 */
#define EVENTS_MAX 256
#define SECOND_US  INT64_C(1000000)

_Static_assert(LOG_LINE_MAX <= PIPE_BUF, "a line must be written in one piece");

struct rate {
    uint64_t id; /* of (area, event); 0: free */
    int64_t since_us;
    uint32_t written;
    uint64_t suppressed;
};

static int log_fd = STDERR_FILENO;
static enum log_format log_format = LOG_LOGFMT;
static enum log_level log_level = LOG_INFO;

static pthread_mutex_t rates_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rate rates[EVENTS_MAX]; /* rates_lock */

static const char *const level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

void log_open(int fd, enum log_format format, enum log_level level)
{
    log_fd = fd;
    log_format = format;
    log_level = level;
}

/* FNV-1a, 64 bits: two of some hundred words of ours do not collide. */
static uint64_t hash(uint64_t h, const char *s)
{
    do
        h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
    while (*s++ != '\0');
    return h;
}

static struct rate *rate_locked(uint64_t id)
{
    size_t at = (size_t)(id % EVENTS_MAX);

    for (size_t i = 0; i < EVENTS_MAX; i++, at = (at + 1) % EVENTS_MAX) {
        if (rates[at].id == 0)
            rates[at].id = id;
        if (rates[at].id == id)
            return &rates[at];
    }
    return &rates[EVENTS_MAX - 1];
}

/* Whether the line may be written now; then how many of its kind were held back before it. */
static bool admitted(const char *area, const char *event, uint64_t *ret_suppressed)
{
    uint64_t id = hash(hash(UINT64_C(0xcbf29ce484222325), area), event) | 1;
    int64_t now = clock_mono_us();
    struct rate *rate;
    bool yes;

    pthread_mutex_lock(&rates_lock);
    rate = rate_locked(id);
    if (now - rate->since_us >= SECOND_US) {
        rate->since_us = now;
        rate->written = 0;
    }
    yes = rate->written < LOG_BURST;
    if (yes) {
        rate->written++;
        *ret_suppressed = rate->suppressed;
        rate->suppressed = 0;
    } else {
        rate->suppressed++;
    }
    pthread_mutex_unlock(&rates_lock);
    return yes;
}

struct line {
    char text[LOG_LINE_MAX];
    size_t len;
    size_t end; /* text is written up to here; what closes the line goes behind */
};

/* All of the octets or none. */
static bool add(struct line *l, const char *s, size_t len)
{
    if (len > l->end - l->len)
        return false;
    memcpy(l->text + l->len, s, len);
    l->len += len;
    return true;
}

/* Beyond ASCII: C1 controls, line and paragraph separators, and what reverses the text shown. */
static bool is_plain(uint32_t c)
{
    static const struct {
        uint32_t from, to;
    } unsafe[] = {{0, 0x1f}, {0x7f, 0x9f}, {0x2028, 0x202e}, {0x2066, 0x2069}};

    for (size_t i = 0; i < ARRAY_SIZE(unsafe); i++) {
        if (c >= unsafe[i].from && c <= unsafe[i].to)
            return false;
    }
    return true;
}

/*
 * One character of UTF-8 (RFC 3629: shortest form, no surrogates) at s, which a NUL ends.
 * Returns its octets, or 0 if there is none.
 */
static size_t utf8(const char *s, uint32_t *ret_char)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = (uint8_t)*s;
    size_t len = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t c = len == 1 ? first : first & (0x7fu >> len);

    if (len == 0 || first > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if (((uint8_t)s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | ((uint8_t)s[i] & 0x3f);
    }
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret_char = c;
    return len;
}

/* The letter of the short escapes, which both formats share, or NUL. */
static char short_escape(uint32_t c)
{
    static const char letters[128] = {
        ['"'] = '"', ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't',
    };

    return c < sizeof(letters) ? letters[c] : '\0';
}

/* What stands in the line for one character, or for one octet that is none. */
struct unit {
    size_t taken; /* octets of the value */
    bool plain;   /* as it is, in logfmt even without quotes */
    size_t len;
    char text[16];
};

static struct unit unit_at(const char *s)
{
    struct unit u = {.taken = 0};
    uint32_t c = 0;
    size_t n = utf8(s, &c);
    int len = 0;

    u.taken = n > 0 ? n : 1;
    if (n > 0 && short_escape(c) != '\0') {
        len = snprintf(u.text, sizeof(u.text), "\\%c", short_escape(c));
    } else if (n > 0 && is_plain(c)) {
        u.plain = c != ' ' && c != '=';
        memcpy(u.text, s, n);
        len = (int)n;
    } else if (log_format == LOG_JSON) {
        len = snprintf(u.text, sizeof(u.text), "\\u%04x", n > 0 ? (unsigned int)c : (uint8_t)*s);
    } else {
        for (size_t i = 0; i < u.taken; i++)
            len += snprintf(u.text + len, sizeof(u.text) - (size_t)len, "\\x%02x", (uint8_t)s[i]);
    }
    u.len = (size_t)len;
    return u;
}

static bool needs_quotes(const char *s)
{
    const char *end = s + LOG_VALUE_MAX;

    if (log_format == LOG_JSON || *s == '\0')
        return true;
    while (*s != '\0' && s < end) {
        struct unit u = unit_at(s);
        if (!u.plain)
            return true;
        s += u.taken;
    }
    return false;
}

/* False if not even an empty value fits; a value that does not fit whole is cut. */
static bool add_text(struct line *l, const char *s)
{
    bool quotes = needs_quotes(s);
    size_t end = l->end;
    size_t most;

    if (l->end - l->len < 2)
        return false;
    if (quotes)
        (void)add(l, "\"", 1);
    most = l->len + LOG_VALUE_MAX;
    l->end = most < end - 1 ? most : end - 1; /* the closing quote's place */
    while (*s != '\0') {
        struct unit u = unit_at(s);
        if (!add(l, u.text, u.len))
            break;
        s += u.taken;
    }
    l->end = end;
    return !quotes || add(l, "\"", 1);
}

static bool add_number(struct line *l, int64_t num)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "%lld", (long long)num);

    return add(l, text, (size_t)n);
}

/* A field as a whole, or nothing of it. */
static bool add_field(struct line *l, const struct log_field *f)
{
    const char *text = f->str == NULL ? "" : f->str;
    bool json = log_format == LOG_JSON;
    size_t start = l->len;
    bool fits;

    if (json)
        fits = (l->len == 1 || add(l, ",", 1)) && add(l, "\"", 1);
    else
        fits = add(l, " ", 1);
    fits = fits && add(l, f->key, strlen(f->key)) && add(l, json ? "\":" : "=", json ? 2 : 1);
    if (f->type == LOG_FIELD_INT)
        fits = fits && add_number(l, f->num);
    else
        fits = fits && add_text(l, text);
    if (!fits)
        l->len = start;
    return fits;
}

static void add_fields(struct line *l, const struct log_field *fields, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!add_field(l, &fields[i]))
            return;
    }
}

static void begin(struct line *l, enum log_level level, const char *area)
{
    const char *name = level_names[level];
    char now[ENC_TIME_LEN + 1];

    enc_time(clock_utc_us(), now);
    if (log_format == LOG_JSON) {
        struct log_field head[] = {LOG_STR("time", now), LOG_STR("level", name),
                                   LOG_STR("area", area)};
        (void)add(l, "{", 1);
        add_fields(l, head, ARRAY_SIZE(head));
        return;
    }
    (void)add(l, now, ENC_TIME_LEN);
    (void)add(l, " ", 1);
    (void)add(l, name, strlen(name));
    (void)add(l, " ", 1);
    (void)add(l, area, strlen(area));
}

static void write_line(const struct line *l)
{
    size_t done = 0;

    while (done < l->len) {
        ssize_t n = write(log_fd, l->text + done, l->len - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            return; /* there is no other place to tell it */
    }
}

void log_write(enum log_level level, const char *area, const char *event,
               const struct log_field *fields, size_t n)
{
    const struct log_field event_field = LOG_STR("event", event);
    const char *closing = log_format == LOG_JSON ? "}\n" : "\n";
    struct line l = {.end = LOG_LINE_MAX - strlen(closing)};
    uint64_t suppressed = 0;
    int saved = errno; /* a caller may log first and look at errno then */

    if (level > log_level || !admitted(area, event, &suppressed))
        return;
    begin(&l, level, area);
    (void)add_field(&l, &event_field);
    if (suppressed > 0)
        (void)add_field(&l, &LOG_INT("suppressed", suppressed));
    add_fields(&l, fields, n);
    l.end = LOG_LINE_MAX;
    (void)add(&l, closing, strlen(closing));
    write_line(&l);
    errno = saved;
}
