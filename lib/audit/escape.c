#include "tekd/escape.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static int put_octet(FILE *out, char octet, bool escaped)
{
    if (escaped) {
        (void)fprintf(out, "\\x%02x", (uint8_t)octet);
        return 4;
    }
    (void)fputc(octet, out);
    return 1;
}

static bool is_plain(char octet)
{
    return octet >= ' ' && octet < 0x7f && octet != '\\';
}

int escape_plain(FILE *out, const char *text)
{
    int columns = 0;

    for (; *text; text++)
        columns += put_octet(out, *text, !is_plain(*text));
    return columns;
}

static bool begins_formula(const char *text, size_t at)
{
    return strchr("=+-@", text[at]) && (at == 0 || strchr(" ,;\"", text[at - 1]));
}

void escape_csv(FILE *out, const char *text)
{
    (void)fputc('"', out);
    for (size_t at = 0; text[at]; at++) {
        if (text[at] == '"')
            (void)fputc('"', out);
        (void)put_octet(out, text[at], !is_plain(text[at]) || begins_formula(text, at));
    }
    (void)fputc('"', out);
}
