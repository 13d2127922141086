/*
 * Text that a peer chose, or whoever forged a log, where people and their programs look at it: a
 * terminal, a CSV file.  In both, what is no printable ASCII and the backslash itself are \xHH, two
 * lower-case digits for each octet: nothing moves the cursor, ends a line or a cell, and who puts
 * the octets back has the text as it was.
 *
 * Thread rule: as of the stream.
 */
#ifndef TEKD_ESCAPE_H
#define TEKD_ESCAPE_H

#include <stdio.h>

/* Returns how many columns it takes. */
int escape_plain(FILE *out, const char *text);

/*
 * A cell of CSV (RFC 4180), in quotes.  Spreadsheets run a cell as a formula that begins with one
 * of = + - @, quoted or not: that character is \xHH as well, at the beginning and behind what a
 * spreadsheet may skip or take for the end of a cell (blank, comma, semicolon, quote).
 */
void escape_csv(FILE *out, const char *text);

#endif
