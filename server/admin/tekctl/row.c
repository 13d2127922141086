/*
 * A line of the ledger, as a table, CSV (RFC 4180) or JSON.  A Message ID is what a
 * peer made it: table and CSV have it as tekd/escape.h says.
 */
#include "tekctl.h"

#include "tekd/escape.h"

#define NUMBER_LEN 24

/* In a column of this width, with a blank behind it; 0: the last one. */
static void put_column(const char *s, int width)
{
    int n = escape_plain(stdout, s);

    if (width > 0)
        (void)printf("%*s", n < width ? width - n + 1 : 1, "");
}

/* What is not attested has a mark behind its state. */
static void print_table(const struct row *r)
{
    char marked[24];

    (void)snprintf(marked, sizeof(marked), "%s%s", r->state, r->attested ? "" : "?");
    put_column(r->time, 28);
    put_column(r->bsa, 24);
    put_column(r->message_id, 36);
    put_column(marked, 12);
    put_column(r->key_id, 37);
    put_column(r->content_id, 0);
    (void)putchar('\n');
}

static void put_cell(const char *s, const char *behind)
{
    escape_csv(stdout, s);
    (void)fputs(behind, stdout);
}

/* A number, or an empty cell where there is none. */
static void put_number(uint64_t n, bool there)
{
    char text[NUMBER_LEN] = "";

    if (there)
        (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
    put_cell(text, ",");
}

static void print_csv(const struct row *r)
{
    const char *const texts[] = {r->message_id, r->bsa,    r->direction, r->state, r->content_id,
                                 r->key_id,     r->kek_id, r->time,      r->done};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        put_cell(texts[i], ",");
    put_number(r->attempts, r->is_delivery);
    put_number(r->confirmed, r->confirmed != DELIVERY_NONE);
    put_cell(r->attested ? "true" : "false", "\r\n");
}

static json_t *number_or_null(uint64_t n)
{
    return n == DELIVERY_NONE ? json_null() : json_integer((json_int_t)n);
}

static void print_json(const struct row *r, bool first)
{
    AUTO_JSON json_t *e = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:b}", "message_id", r->message_id, "bsa", r->bsa,
        "direction", r->direction, "content_id", r->content_id, "key_id", r->key_id, "kek_id",
        r->kek_id, "time", r->time, "state", r->state, "attested", r->attested);

    if (r->is_delivery) {
        (void)json_object_set_new(e, "attempts", json_integer(r->attempts));
        (void)json_object_set_new(e, "confirmed", number_or_null(r->confirmed));
        (void)json_object_set_new(e, "done", r->done[0] ? json_string(r->done) : json_null());
    }
    (void)fputs(first ? "[\n  " : ",\n  ", stdout);
    text_dump(e, JSON_COMPACT);
}

void row_heading(enum row_form form)
{
    if (form == ROW_TABLE)
        (void)printf("%-28s %-24s %-36s %-12s %-37s %s\n", "TIME", "BSA", "MESSAGE-ID", "STATE",
                     "KEY-ID", "CONTENT-ID");
    else if (form == ROW_CSV)
        (void)fputs("message_id,bsa,direction,state,content_id,key_id,kek_id,time,done,attempts,"
                    "confirmed,attested\r\n",
                    stdout);
}

void row_print(const struct row *r, enum row_form form, bool first)
{
    if (form == ROW_TABLE)
        print_table(r);
    else if (form == ROW_CSV)
        print_csv(r);
    else
        print_json(r, first);
}

void row_end(enum row_form form, bool any)
{
    if (form == ROW_JSON)
        (void)puts(any ? "\n]" : "[]");
}
