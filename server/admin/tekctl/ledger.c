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

static bool wanted(const struct session *s, const struct record *r)
{
    const char *bsa = json_string_value(json_object_get(s->request, "bsa"));
    const char *content = json_string_value(json_object_get(s->request, "content"));

    return strcmp(record_event(r), "request.answered") == 0 &&
           (!bsa || strcmp(bsa, text(r, "peer")) == 0) &&
           (!content || strcmp(content, text(r, "content")) == 0);
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

static int take_line(const struct session *s, const char *line, size_t len, size_t *n)
{
    AUTO(record) struct record *r = NULL;
    const char *what;

    if (len < 2 || record_parse(line + 2, len - 2, &r, &what) < 0) {
        complain("a record of the stream does not parse");
        return TEKCTL_FAILED;
    }
    return wanted(s, r) ? emit(s, r, (*n)++) : TEKCTL_DONE;
}

int ledger_run(struct session *s)
{
    AUTO_JSON json_t *header = NULL;
    size_t n = 0, len = 0;
    int r;

    (void)json_object_set_new(s->request, "command", json_string("audit records"));
    r = session_call(s, &header);
    if (r != TEKCTL_DONE)
        return r;
    if (!s->json)
        (void)printf("%-28s %-24s %-36s %-37s %s\n", "TIME", "BSA", "MESSAGE-ID", "KEY-ID",
                     "CONTENT-ID");
    for (;;) {
        AUTO_MEM char *line = stream_line(s->answer, &len);
        if (!line) {
            complain("the stream was cut");
            return TEKCTL_UNREACHABLE;
        }
        if (strcmp(line, "E") == 0)
            break;
        r = take_line(s, line, len, &n);
        if (r != TEKCTL_DONE)
            return r;
    }
    if (s->json)
        (void)puts(n == 0 ? "[]" : "\n]");
    return fflush(stdout) == 0 ? TEKCTL_DONE : TEKCTL_FAILED;
}
