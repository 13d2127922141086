/*
 * Which lines of a ledger are wanted, as tekctl audit ledger and tek-audit ledger are asked for
 * them: by BSA, ContentID, time of the answer or preparation, and whether something is to come.
 *
 * Thread rule: plain values.
 */
#ifndef TEKD_LEDGER_H
#define TEKD_LEDGER_H

#include <stdbool.h>

struct ledger_wanted {
    const char *bsa, *content; /* NULL: any */
    const char *from, *until;  /* ledger_time_ok(); NULL: any; until is not included */
    bool pending;              /* only what may still be confirmed */
};

/* What they are compared with. */
struct ledger_line {
    const char *bsa, *content;
    const char *time; /* as t of a record */
    bool pending;
};

/*
 * A time in UTC as t of a record, or its beginning: 2026-11-22, 2026-11-22T13, 2026-11-22T13:15 and
 * so on, with or without "Z" at its end.  It stands for the first moment that begins so.
 */
bool ledger_time_ok(const char *text);

bool ledger_wants(const struct ledger_wanted *w, const struct ledger_line *line);

#endif
