/*
 * What a BSA does with a Key Delivery, and in which order:
 *
 *     check -> write the key -> remember the MessageID -> confirm
 *
 * Each step is on the disk before the next begins.  A crash between two of them costs a repetition
 * by the BSM and nothing else: a key that was written and not remembered is written once more, one
 * that was remembered and not confirmed is confirmed when it comes again.  In any other order a
 * crash could leave a confirmed delivery without its key, which nobody would ever send again.
 */
#include "bsa.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "tekd/clock.h"
#include "tekd/err.h"

#define US_PER_S         1000000
#define HTTP_OK          200
#define HTTP_UNAVAILABLE 503

/* A step of ours that failed is told like a check. */
static int fail_step(struct delivery *d, const char *step, const char *expected)
{
    d->why.check = step;
    (void)snprintf(d->why.expected, sizeof(d->why.expected), "%.*s", CHECK_TEXT_MAX - 1, expected);
    (void)snprintf(d->why.found, sizeof(d->why.found), "%s", strerror(errno));
    return TEKD_EIO;
}

static int write_key(const struct delivery_rules *rules, struct delivery *d)
{
    char name[FILE_NAME_SIZE];

    if (rules->out == NULL)
        return 0;
    file_tek_name(&d->result.message, name);
    if (asprintf(&d->path, "%s/%s", rules->out, name) < 0) {
        d->path = NULL;
        return TEKD_ENOMEM;
    }
    return file_save_tek(d->path, d->result.tek) < 0 ? fail_step(d, "out", d->path) : 0;
}

static int keep(const struct delivery_rules *rules, struct delivery *d)
{
    int r = write_key(rules, d);

    if (r == 0 && journal_add(rules->journal, &d->result.message) < 0)
        r = fail_step(d, "journal", "a record on the disk");
    return r;
}

/* Source and Destination change places, whatever they were: it answers this delivery. */
static int write_confirmation(const struct delivery_rules *rules, struct delivery *d)
{
    const struct cp3_message *of = &d->result.message;
    int64_t now = clock_utc_us();
    struct cp3_message m;

    cp3_message_init(&m, CP3_CONFIRMATION);
    memcpy(m.message_id, of->message_id, sizeof(m.message_id));
    memcpy(m.content_id, of->content_id, sizeof(m.content_id));
    memcpy(m.source, of->destination, sizeof(m.source));
    memcpy(m.destination, of->source, sizeof(m.destination));
    m.status = d->status;
    m.has = CP3_HAS_VERSION;
    if (cp3_time_set(&m.time, now / US_PER_S, (uint32_t)(now % US_PER_S) * 1000) == 0)
        m.has |= CP3_HAS_TIME;
    memcpy(d->confirmation.message_id, of->message_id, sizeof(of->message_id));
    d->confirmation.media = d->result.media;
    return cp3_write(d->result.media, rules->form, &m, d->confirmation.octets,
                     sizeof(d->confirmation.octets), &d->confirmation.len);
}

void delivery_take(const struct delivery_rules *rules, const struct check_subject *subject,
                   struct delivery *ret_delivery)
{
    struct delivery *d = ret_delivery;

    d->path = NULL;
    d->confirmation.len = 0;
    d->form = rules->form;
    d->error = check_message(subject, &d->result, &d->why);
    if (d->error == 0 && rules->status == CP3_STATUS_OK && !d->result.repeated)
        d->error = keep(rules, d);
    d->status = d->error < 0 ? CP3_STATUS_REFUSED : rules->status;
    d->http = d->error < 0 ? d->why.http : 0;
    if (d->error == TEKD_ENOMEM && !d->result.read)
        d->http = HTTP_UNAVAILABLE;
    if (d->http == 0 && d->result.read)
        d->http = write_confirmation(rules, d) < 0 ? HTTP_UNAVAILABLE : HTTP_OK;
    if (d->error < 0 && *d->why.found == '\0')
        (void)snprintf(d->why.found, sizeof(d->why.found), "%s", tekd_strerror(d->error));
}

int delivery_open(const struct settings *s, struct delivery_rules *rules)
{
    int r = 0;

    rules->terms = s->terms;
    rules->out = s->given.out;
    rules->form = s->form;
    rules->status = s->status ? CP3_STATUS_REFUSED : CP3_STATUS_OK;
    rules->folder = -1;
    if (rules->out != NULL)
        r = file_open_folder(rules->out, &rules->folder);
    return r < 0 ? r : journal_open(s->given.journal, &rules->journal);
}

void delivery_close(struct delivery_rules *rules)
{
    journal_free(rules->journal);
    if (rules->out != NULL && rules->folder >= 0)
        (void)close(rules->folder);
}

void delivery_clear(struct delivery *d)
{
    check_clear(&d->result);
    free(d->path);
    d->path = NULL;
}

static void describe_message(json_t *doc, const struct delivery *d)
{
    report_text(doc, "message_id", d->result.message.message_id);
    report_text(doc, "content_id", d->result.message.content_id);
    if (d->confirmation.len == 0)
        return;
    report_number(doc, "status", d->status);
    report_text(doc, "form", cp3_form_name(d->form));
    report_flag(doc, "repeated", d->result.repeated);
}

json_t *delivery_describe(const struct delivery *d, const struct check_terms *terms)
{
    json_t *doc = json_object();

    report_text(doc, "event", "delivery");
    if (d->result.read)
        describe_message(doc, d);
    if (d->error < 0) {
        report_refusal(doc, &d->why);
        return doc;
    }
    if (d->result.tek != NULL)
        report_key(doc, &d->result, terms->wrap);
    if (d->path != NULL)
        report_text(doc, "out", d->path);
    return doc;
}
