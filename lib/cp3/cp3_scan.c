/*
 * JSON (RFC 8259) as tokens, without grammar: jansson has the grammar.  This is for what jansson
 * does not tell or does not do: how deep it would nest, where a member stands, and the JSON that
 * is legal but beyond it.
 */
#include "cp3_codec.h"

#include <string.h>

#define NUMBER_SAFE 18 /* so many characters are within 64 bits, with a sign too */

void cp3_scan_init(struct cp3_scan *s, const char *text, size_t len)
{
    *s = (struct cp3_scan){.text = text, .len = len};
}

static void string_end(struct cp3_scan *s)
{
    while (s->at < s->len && s->text[s->at] != '"')
        s->at += s->text[s->at] == '\\' ? 2 : 1;
    s->at = s->at < s->len ? s->at + 1 : s->len;
}

static bool is_number(char c)
{
    return (c >= '0' && c <= '9') || (c != '\0' && strchr("+-.eE", c) != NULL);
}

/* A structural octet: what is open, and which member is next. */
static void structural(struct cp3_scan *s, char c)
{
    if (c == '{' || c == '[') {
        s->depth++;
        if (s->depth < CP3_COUNT(s->index))
            s->index[s->depth] = 0;
    } else if ((c == '}' || c == ']') && s->depth > 0) {
        s->depth--;
    } else if (c == ',' && s->depth < CP3_COUNT(s->index)) {
        s->index[s->depth]++;
    }
}

char cp3_scan_next(struct cp3_scan *s)
{
    while (s->at < s->len) {
        char c = s->text[s->at];

        s->start = s->at++;
        if (c == '"') {
            string_end(s);
            return c;
        }
        if ((c >= '0' && c <= '9') || c == '-') {
            while (s->at < s->len && is_number(s->text[s->at]))
                s->at++;
            return '0';
        }
        if (c != '\0' && strchr("{}[],:", c) != NULL) {
            structural(s, c);
            return c;
        }
    }
    return '\0';
}

static size_t digits(const char *text, size_t len, size_t at)
{
    size_t n = 0;

    while (at + n < len && text[at + n] >= '0' && text[at + n] <= '9')
        n++;
    return n;
}

/* RFC 8259 section 6: [ minus ] int [ frac ] [ exp ] */
static bool number_is_legal(const char *text, size_t len)
{
    size_t at = text[0] == '-';
    size_t n = digits(text, len, at);

    if (n == 0 || (n > 1 && text[at] == '0'))
        return false;
    at += n;
    if (at < len && text[at] == '.') {
        n = digits(text, len, ++at);
        if (n == 0)
            return false;
        at += n;
    }
    if (at < len && (text[at] == 'e' || text[at] == 'E')) {
        at++;
        at += at < len && (text[at] == '+' || text[at] == '-');
        n = digits(text, len, at);
        if (n == 0)
            return false;
        at += n;
    }
    return at == len;
}

static bool defuse_number(const char *text, size_t len, char *fix)
{
    bool plain =
        len <= NUMBER_SAFE && memchr(text, 'e', len) == NULL && memchr(text, 'E', len) == NULL;

    if (plain || !number_is_legal(text, len))
        return false;
    if (fix != NULL) { /* "1e9" is the shortest */
        memset(fix, '0', len);
        fix[1] = '.';
    }
    return true;
}

/* The code unit of "\uXXXX" at that place, or -1. */
static int unit_at(const char *text, size_t len, size_t at)
{
    static const char hex[] = "0123456789abcdef0123456789ABCDEF";
    int unit = 0;

    if (len < at + 6 || text[at] != '\\' || text[at + 1] != 'u')
        return -1;
    for (size_t i = at + 2; i < at + 6; i++) {
        const char *p = text[i] != '\0' ? strchr(hex, text[i]) : NULL;

        if (p == NULL)
            return -1;
        unit = unit * 16 + (int)((p - hex) % 16);
    }
    return unit;
}

/* How many octets at that place are a pair of surrogates (12), a lone one (6) or neither (0). */
static size_t surrogates_at(const char *text, size_t len, size_t at)
{
    int unit = unit_at(text, len, at), next;

    if (unit < 0xD800 || unit > 0xDFFF)
        return 0;
    next = unit_at(text, len, at + 6);
    return unit <= 0xDBFF && next >= 0xDC00 && next <= 0xDFFF ? 12 : 6;
}

static bool defuse_string(const char *text, size_t len, char *fix)
{
    bool found = false;
    size_t n;

    for (size_t i = 0; i < len; i += n) {
        n = surrogates_at(text, len, i);
        if (n == 6) {
            found = true;
            if (fix != NULL)
                memset(fix + i + 2, '0', 4);
        } else if (n == 0) {
            n = text[i] == '\\' ? 2 : 1;
        }
    }
    return found;
}

bool cp3_scan_defuse(const struct cp3_scan *s, char token, char *fix)
{
    const char *text = s->text + s->start;
    size_t len = s->at - s->start;

    if (token == '0')
        return defuse_number(text, len, fix);
    return token == '"' && memchr(text, '\\', len) != NULL && defuse_string(text, len, fix);
}

struct cp3_place cp3_scan_place(const char *text, size_t len, unsigned i, int j)
{
    struct cp3_scan s;
    char token;

    cp3_scan_init(&s, text, len);
    while ((token = cp3_scan_next(&s)) != '\0') {
        if (token != '"' || s.index[1] != i)
            continue;
        if ((s.depth == 1 && j < 0) || (s.depth == 2 && j >= 0 && s.index[2] == (unsigned)j))
            break;
    }
    return cp3_text_place(text, s.start);
}
