/*
 * audit ledger: every Message ID with the answer that the log has for it.  The records come as a
 * stream, so that any length of log is read in constant memory.
 */
#include "tekctl.h"

#include <string.h>

#include "tekd/err.h"
#include "tekd/record.h"

static const char *text(const struct record *r, const char *key)
{
    const char *s = record_get_str(r, key);

    return s ? s : "";
}

/* What the operator asked for; the server sends everything. */
struct filter {
    const json_t *bsa, *content; /* NULL: all */
};

static bool is_or_any(const json_t *wanted, const char *found)
{
    return !wanted || strcmp(json_string_value(wanted), found) == 0;
}

static bool wanted(const struct filter *f, const struct record *r)
{
    return strcmp(record_event(r), "request.answered") == 0 && is_or_any(f->bsa, text(r, "peer")) &&
           is_or_any(f->content, text(r, "content"));
}

static json_t *entry(const struct record *r)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "message_id", text(r, "mid"), "bsa",
                     text(r, "peer"), "content_id", text(r, "content"), "key_id", text(r, "keyid"),
                     "kek_id", text(r, "kekid"), "time", text(r, "t"), "state", "answered");
}

static int emit(const struct session *s, const struct record *r, size_t n)
{
    AUTO_JSON json_t *e = entry(r);

    if (!e)
        return TEKCTL_FAILED;
    if (s->json) {
        (void)fputs(n == 0 ? "[\n  " : ",\n  ", stdout);
        (void)json_dumpf(e, stdout, JSON_COMPACT);
    } else {
        (void)printf("%-28s %-24s %-36s %-37s %s\n", text(r, "t"), text(r, "peer"), text(r, "mid"),
                     text(r, "keyid"), text(r, "content"));
    }
    return TEKCTL_DONE;
}

static int take_line(const struct session *s, const struct filter *f, const char *line, size_t len,
                     size_t *n)
{
    AUTO(record) struct record *r = NULL;
    const char *what;

    if (len < 2 || record_parse(line + 2, len - 2, &r, &what) < 0) {
        complain("a record of the stream does not parse");
        return TEKCTL_FAILED;
    }
    return wanted(f, r) ? emit(s, r, (*n)++) : TEKCTL_DONE;
}

static int take_stream(const struct session *s, const struct filter *f, size_t *n)
{
    size_t len = 0;

    for (;;) {
        AUTO_MEM char *line = stream_line(s->answer, &len);
        int r;

        if (!line) {
            complain("the stream was cut");
            return TEKCTL_UNREACHABLE;
        }
        if (strcmp(line, "E") == 0)
            return TEKCTL_DONE;
        r = take_line(s, f, line, len, n);
        if (r != TEKCTL_DONE)
            return r;
    }
}

static json_t *take_argument(struct session *s, const char *key)
{
    json_t *value = json_incref(json_object_get(s->request, key));

    (void)json_object_del(s->request, key);
    return value;
}

int ledger_run(struct session *s)
{
    AUTO_JSON json_t *bsa = take_argument(s, "bsa"), *content = take_argument(s, "content");
    const struct filter f = {.bsa = bsa, .content = content};
    AUTO_JSON json_t *header = NULL;
    size_t n = 0;
    int r;

    (void)json_object_set_new(s->request, "command", json_string("audit records"));
    r = session_call(s, &header);
    if (r != TEKCTL_DONE)
        return r;
    if (!s->json)
        (void)printf("%-28s %-24s %-36s %-37s %s\n", "TIME", "BSA", "MESSAGE-ID", "KEY-ID",
                     "CONTENT-ID");
    r = take_stream(s, &f, &n);
    if (r != TEKCTL_DONE)
        return r;
    if (s->json)
        (void)puts(n == 0 ? "[]" : "\n]");
    return fflush(stdout) == 0 ? TEKCTL_DONE : TEKCTL_FAILED;
}
