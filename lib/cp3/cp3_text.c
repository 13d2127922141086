/*
 * Octets and text: UTF-8, the rule for strings, what may be shown of a peer's text.
 */
#include "cp3_codec.h"

#include <stdio.h>
#include <string.h>

/*
 * The length of the sequence that begins with octet c, and the range of its second octet, which
 * is what keeps out overlong forms, surrogates and what lies beyond U+10FFFF (RFC 3629 section 4).
 */
static size_t sequence(unsigned char c, unsigned char *ret_low, unsigned char *ret_high)
{
    *ret_low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    *ret_high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (c >= 0xC2 && c <= 0xDF)
        return 2;
    if (c >= 0xE0 && c <= 0xEF)
        return 3;
    return c >= 0xF0 && c <= 0xF4 ? 4 : 0;
}

size_t cp3_text_utf8(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned char low, high;
    size_t i = 0, n;

    while (i < len) {
        if (p[i] >= 0x01 && p[i] <= 0x7F) {
            i++;
            continue;
        }
        n = sequence(p[i], &low, &high);
        if (n == 0 || len - i < n || p[i + 1] < low || p[i + 1] > high)
            return i;
        for (size_t k = 2; k < n; k++) {
            if ((p[i + k] & 0xC0) != 0x80)
                return i;
        }
        i += n;
    }
    return len;
}

struct cp3_place cp3_text_place(const char *text, size_t offset)
{
    struct cp3_place at = {1, 1};

    for (size_t i = 0; i < offset; i++) {
        at.column++;
        if (text[i] == '\n')
            at = (struct cp3_place){at.line + 1, 1};
    }
    return at;
}

bool cp3_text_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

const char *cp3_text_fault(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        /* JSON brings U+0000; lone surrogates have been made one before, see cp3_scan.c. */
        if (c == 0)
            return "holds a NUL or a lone surrogate";
        if (c < 0x20 || c == 0x7F)
            return "holds a control character";
        if (c == 0xEF && len - i >= 3 && (unsigned char)text[i + 1] == 0xBF &&
            (unsigned char)text[i + 2] >= 0xBE)
            return "holds U+FFFE or U+FFFF";
    }
    if (len > 0 && (text[0] == ' ' || text[len - 1] == ' '))
        return "white space at its beginning or end";
    return NULL;
}

void cp3_text_escape(const char *text, size_t len, char *out, size_t cap)
{
    size_t n = 0, before = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool plain = c >= 0x20 && c < 0x7F && c != '\\';

        if (n + 4 <= cap)
            before = n; /* the dots still fit here */
        if (n + (plain ? 1 : 4) >= cap) {
            memcpy(out + before, "...", 4);
            return;
        }
        if (plain)
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, cap - n, "\\x%02X", c);
    }
    out[n] = '\0';
}

bool cp3_text_number(const char *text, size_t len, uint64_t *ret_number)
{
    uint64_t n = 0;

    if (len == 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(text[i] - '0'), &n))
            return false;
    }
    *ret_number = n;
    return true;
}
