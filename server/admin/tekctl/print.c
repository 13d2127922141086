#include "tekctl.h"

#include <string.h>

static const char *str(const json_t *o, const char *key)
{
    const char *s = text_shown(json_object_get(o, key));

    return s ? s : "-";
}

static long long num(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static bool yes(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

static void row(const char *name, const char *value)
{
    (void)printf("%-14s %s\n", name, value);
}

static void print_anchor(const json_t *a)
{
    const char *state = yes(a, "failing") ? "FAILING: cannot be written, " : "";

    if (!json_is_object(a)) {
        row("anchor", "none: audit.anchor_file is not set");
        return;
    }
    if (json_is_string(json_object_get(a, "written")))
        (void)printf("%-14s %sepoch %lld, size %lld, written %s (%lld s ago), %lld records beyond "
                     "it\n",
                     "anchor", state, num(a, "epoch"), num(a, "size"), str(a, "written"),
                     num(a, "age_s"), num(a, "beyond"));
    else
        (void)printf("%-14s %snever written, %lld records beyond it\n", "anchor", state,
                     num(a, "beyond"));
    row("", str(a, "file"));
}

static void print_publisher(const json_t *p)
{
    (void)printf("%-14s %s to %s: ", "published", str(p, "by"), str(p, "to"));
    if (num(p, "size") > 0)
        (void)printf("size %lld, %s\n", num(p, "size"), str(p, "published"));
    else
        (void)puts("nothing since the start");
    if (yes(p, "failing"))
        (void)printf("%-14s FAILING since %s, %lld times: %s\n", "", str(p, "failing_since"),
                     num(p, "failures"), str(p, "reason"));
}

static void print_published(const json_t *list)
{
    size_t i;
    json_t *p;

    json_array_foreach (list, i, p)
        print_publisher(p);
}

static void print_deliveries(const json_t *d)
{
    const json_t *states = json_object_get(d, "states");

    (void)printf("%-14s %lld open, the oldest since %s; %lld confirmed, %lld unconfirmed, "
                 "%lld abandoned\n",
                 "deliveries", num(d, "open"), str(d, "oldest_open"), num(states, "confirmed"),
                 num(states, "unconfirmed"), num(states, "abandoned"));
    (void)printf("%-14s %lld attempts, %lld of them under way, %lld failed, %lld rejected\n", "",
                 num(d, "attempts"), num(d, "under_way"), num(d, "failed"), num(d, "rejected"));
}

/* The setting that a key signs until it is taken out; NULL: it is none before another. */
static const char *setting_of(const json_t *before, const char *id)
{
    const json_t *key;
    size_t i;

    json_array_foreach (before, i, key) {
        if (strcmp(str(key, "key"), id) == 0)
            return str(key, "setting");
    }
    return NULL;
}

static void print_signers(const json_t *ids, const json_t *before)
{
    const json_t *element;
    size_t i;

    if (json_array_size(ids) == 0)
        return;
    (void)printf("%-14s signed by", "");
    json_array_foreach (ids, i, element) {
        const char *id = json_is_string(element) ? json_string_value(element) : "-";
        const char *setting = setting_of(before, id);

        (void)printf(" %s", id);
        if (setting)
            (void)printf(" (until %s is taken out)", setting);
    }
    (void)putchar('\n');
}

void print_status(const json_t *r)
{
    const json_t *hsm = json_object_get(r, "hsm"), *store = json_object_get(r, "store");
    const json_t *counts = json_object_get(r, "counts"), *keys = json_object_get(r, "keys");
    const json_t *http = json_object_get(r, "http");
    const json_t *deliveries = json_object_get(r, "deliveries");

    (void)printf("tekd %s for %s, instance %s, since %s\n", str(r, "version"), str(r, "bsm_id"),
                 str(r, "instance"), str(r, "started"));
    (void)printf("%-14s %s\n", yes(r, "ready") ? "ready" : "NOT READY",
                 yes(r, "ready") ? "keys can be given" : str(r, "reason"));
    (void)printf("%-14s %s, token %s (%s)\n", "HSM", str(hsm, "state"), str(hsm, "token"),
                 str(hsm, "model"));
    if (!yes(hsm, "prevents_wrap_out"))
        row("", "note: whoever has the PIN can wrap a TEK under a key of his own");
    (void)printf("%-14s epoch %lld, %lld records, %lld signed, last checkpoint %s\n", "audit log",
                 num(store, "epoch"), num(store, "records"), num(store, "signed"),
                 str(store, "checkpoint_time"));
    print_signers(json_object_get(store, "signers"), json_object_get(store, "signers_before"));
    print_anchor(json_object_get(store, "anchor"));
    print_published(json_object_get(r, "published"));
    (void)printf("%-14s %lld BSAs, %lld contents, %lld TEKs, %lld messages\n", "store",
                 num(counts, "bsas"), num(counts, "contents"), num(counts, "teks"),
                 num(counts, "messages"));
    (void)printf("%-14s %lld answered, %lld repeated, %lld refused, %lld busy, %lld failed\n",
                 "requests", num(keys, "answered"), num(keys, "repeated"), num(keys, "refused"),
                 num(keys, "busy"), num(keys, "failed"));
    print_deliveries(deliveries);
    (void)printf("%-14s %lld open, %lld handshakes refused, certificate until %s, CRL until %s\n",
                 "connections", num(http, "connections"), num(http, "handshakes_failed"),
                 str(http, "certificate_not_after"), str(http, "crl_next_update"));
}

void print_hsm(const json_t *r)
{
    size_t i;
    json_t *w;

    (void)printf("%s, token %s (%s, serial %s)\n", str(r, "state"), str(r, "token"),
                 str(r, "model"), str(r, "serial"));
    if (*str(r, "reason") && strcmp(str(r, "reason"), "-") != 0)
        row("reason", str(r, "reason"));
    (void)printf("%-8s %-8s %-6s %12s %10s %10s\n", "ROLE", "PID", "READY", "CALLS", "FAILURES",
                 "RESTARTS");
    json_array_foreach (json_object_get(r, "workers"), i, w)
        (void)printf("%-8s %-8lld %-6s %12lld %10lld %10lld\n", str(w, "role"), num(w, "pid"),
                     yes(w, "ready") ? "yes" : "no", num(w, "calls"), num(w, "failures"),
                     num(w, "restarts"));
}

void print_bsa(const json_t *b)
{
    const json_t *cert = json_array_get(json_object_get(b, "certs"), 0);

    (void)printf("%-32s %-9s %-6s %-10s %-28s %.16s…\n", str(b, "id"),
                 yes(b, "enabled") ? "yes" : "no", str(b, "media"), str(b, "form"),
                 str(json_object_get(b, "kek"), "kek_id"),
                 json_string_value(cert) ? json_string_value(cert) : "");
}

void print_object(const json_t *r)
{
    text_dump(r, JSON_INDENT(2));
    (void)putchar('\n');
}

/* Seconds, or a dash for a content without crypto-periods. */
static void print_seconds(const json_t *c, const char *key)
{
    if (num(c, "period_s") > 0)
        (void)printf("%-9lld ", num(c, key));
    else
        (void)printf("%-9s ", "-");
}

void print_content(const json_t *c)
{
    (void)printf("%-28s %-5lld ", str(c, "created"), num(c, "bits"));
    print_seconds(c, "period_s");
    print_seconds(c, "lead_s");
    (void)puts(str(c, "content_id"));
}

void print_key(const json_t *k)
{
    (void)printf("%-37s %-8lld %-8lld %-5lld %-28s %s\n", str(k, "key_id"), num(k, "period"),
                 num(k, "version"), num(k, "bits"), str(k, "created"),
                 yes(k, "destroyed") ? "destroyed" : "");
}

void print_key_id(const json_t *r)
{
    (void)puts(str(r, "key_id"));
}

void print_lines(const json_t *strings)
{
    size_t i;
    json_t *s;

    json_array_foreach (strings, i, s) {
        const char *shown = text_shown(s);

        (void)puts(shown ? shown : "-");
    }
}

/* Two units at most: 42s, 7m05s, 3h12m, 4d07h. */
static const char *age_text(long long s, char out[static 24])
{
    if (s < 60)
        (void)snprintf(out, 24, "%llds", s);
    else if (s < 3600)
        (void)snprintf(out, 24, "%lldm%02llds", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(out, 24, "%lldh%02lldm", s / 3600, s / 60 % 60);
    else
        (void)snprintf(out, 24, "%lldd%02lldh", s / 86400, s / 3600 % 24);
    return out;
}

/* Of a time, what the clock on the wall shows: 13:15:42; a dash for none. */
static const char *clock_text(const json_t *o, const char *key, char out[static 9])
{
    const char *s = json_string_value(json_object_get(o, key));

    if (s && strlen(s) > 19)
        (void)snprintf(out, 9, "%.8s", s + 11);
    else
        (void)snprintf(out, 9, "-");
    return out;
}

void print_delivery(const json_t *d)
{
    char age[24], next[9];

    (void)printf("%-36s %-16s %-11s %-7s %8lld %-9s %-40s %s\n", str(d, "message_id"),
                 str(d, "bsa"), str(d, "state"), age_text(num(d, "age_s"), age), num(d, "attempts"),
                 clock_text(d, "next", next), str(d, "last_error"), str(d, "content_id"));
}

void print_checkpoint(const json_t *r)
{
    /* tekd's own, octet by octet: its lines are what is signed. */
    const char *note = json_string_value(json_object_get(r, "checkpoint"));

    (void)fputs(note ? note : "-", stdout);
}
