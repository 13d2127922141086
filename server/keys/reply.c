#include "internal.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"

/* A problem's parts are bounded by the codec's error and by our own sentences. */
#define PROBLEM_MAX 4096

#define RETRY_AFTER_S 1

struct status_row {
    enum cp3_reason reason;
    int mapped;
};

/* policy.refusal_http: mapped; what is not in the table is 422. */
static const struct status_row statuses[] = {
    {CP3_REASON_UNKNOWN_CONTENT, 404},      {CP3_REASON_NOT_ENTITLED, 403},
    {CP3_REASON_WRONG_SOURCE, 403},         {CP3_REASON_WRONG_DESTINATION, 421},
    {CP3_REASON_DUPLICATE_MESSAGE_ID, 409}, {CP3_REASON_KEY_GONE, 410},
};

int reply_refusal_status(enum keys_refusal_http how, enum cp3_reason reason)
{
    if (how == KEYS_REFUSAL_200)
        return 200;
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        if (statuses[i].reason == reason)
            return statuses[i].mapped;
    }
    return 422;
}

/* By way of the stack: a body is some 700 octets, and waits for its signature in no more than that.
 */
int reply_write(enum cp3_media media, enum cp3_form form, const struct cp3_message *m,
                struct buf **ret_body)
{
    AUTO(buf) struct buf *body = NULL;
    char text[CP3_WRITTEN_MAX];
    size_t len = 0;
    int r;

    if (cp3_write(media, form, m, text, sizeof(text), &len) < 0)
        return TEKD_EINTERNAL;
    r = buf_new(len, &body);
    if (r == 0)
        r = buf_append(body, text, len);
    if (r == 0)
        *ret_body = TAKE(body);
    return r;
}

static void fill_refusal(const struct reply_refusal *what, struct cp3_message *m)
{
    int64_t now = clock_utc_us();

    cp3_message_init(m, CP3_RESPONSE);
    m->status = CP3_STATUS_REFUSED;
    (void)snprintf(m->message_id, sizeof(m->message_id), "%s", what->message_id);
    if (what->form != CP3_FULL)
        return;
    m->has = CP3_HAS_VERSION | CP3_HAS_TIME;
    m->version = 1;
    memcpy(m->content_id, what->request->content_id, sizeof(m->content_id));
    memcpy(m->destination, what->request->source, sizeof(m->destination));
    memcpy(m->source, what->request->destination, sizeof(m->source));
    (void)cp3_time_set(&m->time, now / 1000000, (uint32_t)(now % 1000000) * 1000);
}

/* A body that cannot be made is left out: the status and the reason say enough. */
void reply_refuse(const struct reply_refusal *what, struct keys_reply *ret_reply)
{
    struct cp3_message m;

    *ret_reply = (struct keys_reply){.status = what->status,
                                     .media = cp3_media_content_type(what->media),
                                     .reason = cp3_reason_name(what->reason)};
    if (what->status == 503)
        ret_reply->retry_after_s = RETRY_AFTER_S;
    fill_refusal(what, &m);
    (void)reply_write(what->media, what->form, &m, &ret_reply->body);
}

static void add(json_t *o, const char *key, json_t *value)
{
    if (value)
        (void)json_object_set_new(o, key, value);
}

static json_t *problem_json(const struct reply_problem *what)
{
    const char *reason = cp3_reason_name(what->reason);
    json_t *o = json_object();

    add(o, "title", json_string(what->title));
    add(o, "status", json_integer(what->status));
    if (what->detail)
        add(o, "detail", json_string(what->detail));
    if (what->reason != CP3_REASON_NONE)
        add(o, "reason", json_string(reason));
    if (what->correlation)
        add(o, "correlation", json_string(what->correlation));
    if (!what->where)
        return o;
    if (!what->detail)
        add(o, "detail",
            json_sprintf("line %u, %s: %s", what->where->line, what->where->element,
                         what->where->reason));
    add(o, "line", json_integer(what->where->line));
    add(o, "column", json_integer(what->where->column));
    add(o, "element", json_string(what->where->element));
    return o;
}

void reply_problem(const struct reply_problem *what, struct keys_reply *ret_reply)
{
    AUTO(buf) struct buf *body = NULL;
    json_t *o = problem_json(what);
    char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);

    json_decref(o);
    *ret_reply = (struct keys_reply){.status = what->status,
                                     .media = "application/problem+json",
                                     .retry_after_s = what->status == 503 ? RETRY_AFTER_S : 0};
    if (what->reason != CP3_REASON_NONE)
        ret_reply->reason = cp3_reason_name(what->reason);
    if (text && buf_new(PROBLEM_MAX, &body) == 0 && buf_puts(body, text) == 0)
        ret_reply->body = TAKE(body);
    free(text);
}

void keys_busy_reply(enum cp3_media media, const char *message_id, struct keys_reply *ret_reply)
{
    const struct reply_problem problem = {.status = 503,
                                          .reason = CP3_REASON_BUSY,
                                          .title = "the key manager is busy",
                                          .detail = "no key could be given in time; try again"};
    const struct reply_refusal refusal = {.media = media,
                                          .form = CP3_EFFICIENT,
                                          .reason = CP3_REASON_BUSY,
                                          .message_id = message_id,
                                          .status = 503};

    if (message_id && *message_id)
        reply_refuse(&refusal, ret_reply);
    else
        reply_problem(&problem, ret_reply);
}
