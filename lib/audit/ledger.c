#include "tekd/ledger.h"

#include <stddef.h>
#include <string.h>

/* 9 stands for a digit. */
static const char form[] = "9999-99-99T99:99:99.999999";

/* Without the "Z". */
static size_t time_len(const char *text)
{
    size_t len = strlen(text);

    return len > 0 && text[len - 1] == 'Z' ? len - 1 : len;
}

/* Where a part of a time ends: day, hour, minute, second; of a second any number of decimals. */
static bool is_end(size_t len)
{
    return len == strlen("2026-11-22") || len == strlen("2026-11-22T13") ||
           len == strlen("2026-11-22T13:15") || len == strlen("2026-11-22T13:15:42") ||
           (len > strlen("2026-11-22T13:15:42.") && len < sizeof(form));
}

bool ledger_time_ok(const char *text)
{
    size_t len = time_len(text);

    if (!is_end(len))
        return false;
    for (size_t i = 0; i < len; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';

        if (form[i] == '9' ? !digit : text[i] != form[i])
            return false;
    }
    return true;
}

/* Times of one form are in the order of their octets. */
static bool is_before(const char *time, const char *wanted)
{
    return strncmp(time, wanted, time_len(wanted)) < 0;
}

bool ledger_wants(const struct ledger_wanted *w, const struct ledger_line *line)
{
    return (!w->bsa || strcmp(w->bsa, line->bsa) == 0) &&
           (!w->content || strcmp(w->content, line->content) == 0) &&
           (!w->from || !is_before(line->time, w->from)) &&
           (!w->until || is_before(line->time, w->until)) && (!w->pending || line->pending);
}
