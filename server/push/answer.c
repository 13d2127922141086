#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"

static bool has_body(const struct outcome *o)
{
    return o->body && buf_len(o->body) > 0;
}

static void none(struct answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void none(struct answer *a, const char *fmt, ...)
{
    va_list args;

    a->kind = ANSWER_NONE;
    va_start(args, fmt);
    (void)vsnprintf(a->why, sizeof(a->why), fmt, args);
    va_end(args);
}

/* A Tag 4 of this delivery, or why it is none. */
static void read_confirmation(struct cp3_reader *reader, const struct outcome *o, const char *mid,
                              struct answer *a)
{
    struct cp3_error err;
    enum cp3_media media;
    char type[64];

    enc_printable(o->media, type, sizeof(type));
    if (cp3_media_from_content_type(o->media, strlen(o->media), &media) < 0)
        none(a, "not a confirmation: its media type is \"%s\"", type);
    else if (cp3_read(reader, media, buf_data(o->body), buf_len(o->body), &a->message, &err) < 0)
        none(a, "not a confirmation: line %u, %s: %.150s", err.line, err.element, err.reason);
    else if (a->message.tag != CP3_CONFIRMATION)
        none(a, "not a confirmation: a %s", cp3_tag_name(a->message.tag));
    else
        a->kind = strcmp(a->message.message_id, mid) == 0 ? ANSWER_CONFIRMATION : ANSWER_OTHER;
    if (a->kind == ANSWER_OTHER)
        (void)snprintf(a->why, sizeof(a->why), "not a confirmation: another MessageID");
}

void answer_read(struct cp3_reader *reader, const struct outcome *o, const char *mid,
                 struct answer *ret_answer)
{
    struct answer *a = ret_answer;

    a->kind = ANSWER_NONE;
    a->why[0] = '\0';
    if (o->status == 0)
        none(a, "%s", o->why);
    else if (o->status == 200 && has_body(o))
        read_confirmation(reader, o, mid, a);
    else if ((o->status == 202 || o->status == 204) && !has_body(o))
        a->kind = ANSWER_TAKEN;
    else if (o->status >= 300 && o->status < 400)
        none(a, "HTTP %d: redirects are not followed", o->status);
    else if (o->status >= 200 && o->status < 300)
        none(a, "HTTP %d %s", o->status, has_body(o) ? "with a body" : "without a confirmation");
    else
        none(a, "HTTP %d", o->status);
}
