/*
 * Preloaded into tekd: PRAGMA synchronous = NORMAL where it asks for FULL.
 *
 * tekd reads its pragmas back and would not start, so that question is answered by what it expects.
 * Nothing else is changed: SQLite itself leaves out the syncs that NORMAL does without.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

struct sqlite3;
struct sqlite3_stmt;

int sqlite3_prepare_v2(struct sqlite3 *db, const char *text, int octets, struct sqlite3_stmt **stmt,
                       const char **tail);

int sqlite3_prepare_v2(struct sqlite3 *db, const char *text, int octets, struct sqlite3_stmt **stmt,
                       const char **tail)
{
    static int (*real)(struct sqlite3 *, const char *, int, struct sqlite3_stmt **, const char **);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sqlite3_prepare_v2");
    if (strcmp(text, "PRAGMA synchronous = FULL") == 0)
        text = "PRAGMA synchronous = NORMAL";
    else if (strcmp(text, "PRAGMA synchronous") == 0)
        text = "SELECT 2";
    return real(db, text, octets, stmt, tail);
}
