/*
 * Names that peers chose, on an operator's terminal.  CP-3 lets them have the controls U+0080 to
 * U+009F, of which some terminals take U+009B for the beginning of a command.
 */
#include "tekctl.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/fds.h"

/* How many octets of UTF-8 the control at s takes; 0: there is none. */
static size_t control_len(const unsigned char *s)
{
    if (s[0] < 0x20 || s[0] == 0x7f)
        return s[0] != '\0';
    return s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0 ? 2 : 0;
}

/* The controls but for a line's end, if that is kept, as \u00HH. */
static void write_shown(FILE *f, const char *text, bool keep_lines)
{
    const unsigned char *s = (const unsigned char *)text;

    while (*s) {
        size_t n = keep_lines && *s == '\n' ? 0 : control_len(s);

        if (n > 0)
            (void)fprintf(f, "\\u00%02x", s[n - 1]);
        else
            (void)fputc(*s, f);
        s += n > 0 ? n : 1;
    }
}

static bool has_control(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    while (*s && control_len(s) == 0)
        s++;
    return *s != '\0';
}

const char *text_shown(json_t *string)
{
    const char *s = json_string_value(string);
    AUTO_MEM char *shown = NULL;
    size_t len = 0;
    FILE *f;

    if (!s || !has_control(s))
        return s;
    f = open_memstream(&shown, &len);
    if (!f)
        return "?";
    write_shown(f, s, false);
    return fclose(f) == 0 && json_string_set(string, shown) == 0 ? json_string_value(string) : "?";
}

void text_dump(const json_t *doc, size_t flags)
{
    AUTO_MEM char *text = json_dumps(doc, flags);

    if (text)
        write_shown(stdout, text, true);
}

/* No string of JSON has a line's end in it. */
void text_dump_at(const json_t *doc, int depth)
{
    AUTO_MEM char *text = json_dumps(doc, JSON_INDENT(2) | JSON_ENCODE_ANY);
    char *next;

    for (char *line = text; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        write_shown(stdout, line, false);
        if (next)
            (void)printf("\n%*s", 2 * depth, "");
    }
}

int text_flush(int status)
{
    if (fds_stdout_written())
        return status;
    complain("standard output cannot be written");
    return status == TEKCTL_DONE ? TEKCTL_FAILED : status;
}
