#include "audit.h"

/*
 * RFC 3629 section 4, a row a range of lead octets.  The range of the second octet excludes
 * overlong forms, surrogates and what is beyond U+10FFFF; further octets are 80..BF.
 */
struct utf8_row {
    uint8_t lead_first, lead_last;
    uint8_t second_first, second_last;
    uint8_t len;
    uint8_t lead_mask;
};

static const struct utf8_row rows[] = {
    {0xc2, 0xdf, 0x80, 0xbf, 2, 0x1f}, {0xe0, 0xe0, 0xa0, 0xbf, 3, 0x0f},
    {0xe1, 0xec, 0x80, 0xbf, 3, 0x0f}, {0xed, 0xed, 0x80, 0x9f, 3, 0x0f},
    {0xee, 0xef, 0x80, 0xbf, 3, 0x0f}, {0xf0, 0xf0, 0x90, 0xbf, 4, 0x07},
    {0xf1, 0xf3, 0x80, 0xbf, 4, 0x07}, {0xf4, 0xf4, 0x80, 0x8f, 4, 0x07},
};

static const struct utf8_row *row_of(uint8_t lead)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (lead >= rows[i].lead_first && lead <= rows[i].lead_last)
            return &rows[i];
    return NULL;
}

size_t utf8_read(const char *s, size_t len, uint32_t *ret_code)
{
    const uint8_t *p = (const uint8_t *)s;
    const struct utf8_row *row;
    uint32_t code;

    if (p[0] < 0x80) {
        *ret_code = p[0];
        return 1;
    }
    row = row_of(p[0]);
    if (!row || len < row->len || p[1] < row->second_first || p[1] > row->second_last)
        return 0;
    code = p[0] & row->lead_mask;
    for (size_t i = 1; i < row->len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    *ret_code = code;
    return row->len;
}
