/* What the commands print: a document, as lines for people or as JSON; refusals on stderr. */
#include "bsa.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "tekd/enc.h"

/* An ID with every octet shown as \xNN, and more than a ContentID in practice. */
#define SHOWN_MAX 1200

void report_text(struct json_t *doc, const char *member, const char *text)
{
    (void)json_object_set_new(doc, member, json_string(text));
}

void report_number(struct json_t *doc, const char *member, int64_t number)
{
    (void)json_object_set_new(doc, member, json_integer(number));
}

void report_flag(json_t *doc, const char *member, bool flag)
{
    (void)json_object_set_new(doc, member, json_boolean(flag));
}

/* Of a content with crypto-periods. */
static void report_period(json_t *doc, const struct cp3_key_info *k)
{
    if (k->has & CP3_KEY_HAS_PERIOD)
        report_number(doc, "period", (int64_t)k->period);
    if (k->has & CP3_KEY_HAS_NOT_BEFORE)
        report_text(doc, "not_before", k->not_before.text);
    if (k->has & CP3_KEY_HAS_NOT_AFTER)
        report_text(doc, "not_after", k->not_after.text);
}

void report_key(struct json_t *doc, const struct check_result *result, enum cp3_wrap wrap)
{
    const struct cp3_message *m = &result->message;
    char uuid[ENC_UUID_LEN + 1];

    if (m->has & CP3_HAS_KEY_INFO) {
        enc_uuid(m->key_info.key_id, uuid);
        report_text(doc, "key_id", uuid);
        report_text(doc, "kek_id", m->key_info.kek_id);
        report_period(doc, &m->key_info);
    }
    report_text(doc, "wrap", cp3_wrap_name(wrap));
    report_number(doc, "bits", (int64_t)secret_len(result->tek) * 8);
    report_text(doc, "check_value", result->check_value);
    if (m->has & CP3_HAS_TIME)
        report_text(doc, "time", m->time.text);
}

void report_refusal(struct json_t *doc, const struct check_refusal *why)
{
    report_text(doc, "failed_check", why->check);
    report_text(doc, "expected", why->expected);
    report_text(doc, "found", why->found);
    if (*why->reason != '\0')
        report_text(doc, "reason", why->reason);
}

void report_complain(const struct check_refusal *why)
{
    complain("%s: expected %s, found %s%s%s", why->check, why->expected, why->found,
             *why->reason != '\0' ? "; CP3-Reason: " : "", why->reason);
}

/* A value for people, in shown. */
static const char *show_value(const json_t *value, char shown[static SHOWN_MAX])
{
    if (json_is_boolean(value))
        return json_is_true(value) ? "yes" : "no";
    if (json_is_integer(value))
        (void)snprintf(shown, SHOWN_MAX, "%lld", (long long)json_integer_value(value));
    else
        check_show(json_string_value(value), json_string_length(value), shown, SHOWN_MAX);
    return shown;
}

static void print_lines(const json_t *doc)
{
    const char *name;
    json_t *value;
    char shown[SHOWN_MAX];

    json_object_foreach ((json_t *)doc, name, value)
        (void)printf("%-12s %s\n", name, show_value(value, shown));
}

void report_print(const struct json_t *doc, bool json)
{
    if (!json) {
        print_lines(doc);
        return;
    }
    (void)json_dumpf(doc, stdout, JSON_INDENT(2));
    (void)putchar('\n');
}

/* name=value, and what it is about first; blanks of a value become \x20, so that it stays one. */
static void print_fields(const json_t *doc)
{
    const char *name;
    json_t *value;
    char shown[SHOWN_MAX];

    (void)fputs(json_string_value(json_object_get(doc, "event")), stdout);
    json_object_foreach ((json_t *)doc, name, value) {
        if (strcmp(name, "event") == 0)
            continue;
        (void)printf(" %s=", name);
        for (const char *p = show_value(value, shown); *p != '\0'; p++)
            (void)(*p == ' ' ? fputs("\\x20", stdout) : putchar(*p));
    }
}

void report_line(const json_t *doc, bool json)
{
    flockfile(stdout);
    if (json)
        (void)json_dumpf(doc, stdout, JSON_COMPACT);
    else
        print_fields(doc);
    (void)putchar('\n');
    (void)fflush(stdout);
    funlockfile(stdout);
}
