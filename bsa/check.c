/*
 * What a BSM sends, as a BSA has to treat it: the answer to a Key Request (Tag 2), and a Key
 * Delivery (Tag 3), pushed to us or collected by us.
 *
 * A TEK goes into use only when every line of the table at the end holds.  TLS has already shown
 * that a peer with a certificate of the right CA is speaking; the rest shows that this is the
 * answer to our request, or a delivery for this BSA that is new, under the KEK and the wrap that
 * were agreed.  The first line that does not hold is reported, with what was expected and what was
 * found.
 */
#include "bsa.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tekd/err.h"

#define HTTP_OK          200
#define HTTP_UNAVAILABLE 503
/* So much of an error page is worth showing. */
#define PAGE_SHOWN_MAX 160

/* One message on its way through the table. */
struct checking {
    const struct check_subject *subject;
    const struct check_terms *terms;
    struct check_result *result;
    struct check_refusal *refusal;
};

void check_show(const char *text, size_t len, char *out, size_t out_size)
{
    size_t used = 0;

    for (size_t i = 0; i < len; i++) {
        bool plain = text[i] >= ' ' && text[i] <= '~' && text[i] != '\\';
        size_t need = plain ? 1 : 4;

        if (used + need >= out_size)
            break;
        (void)snprintf(out + used, out_size - used, plain ? "%c" : "\\x%02x",
                       (unsigned)(unsigned char)text[i]);
        used += need;
    }
    out[used] = '\0';
}

/* Says what was expected and, in the same breath, fails. */
static int __attribute__((format(printf, 3, 4)))
reject(struct checking *c, const char *found, const char *expected, ...)
{
    va_list ap;

    va_start(ap, expected);
    (void)vsnprintf(c->refusal->expected, sizeof(c->refusal->expected), expected, ap);
    va_end(ap);
    check_show(found, strlen(found), c->refusal->found, sizeof(c->refusal->found));
    return TEKD_EFORMAT;
}

static int reject_number(struct checking *c, uint64_t found, const char *expected)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)found);
    return reject(c, text, "%s", expected);
}

/* A string that has to be repeated octet by octet. */
static int check_same(struct checking *c, const char *expected, const char *found)
{
    char shown[CHECK_TEXT_MAX];

    if (strcmp(expected, found) == 0)
        return 0;
    check_show(expected, strlen(expected), shown, sizeof(shown));
    return reject(c, found, "%s", shown);
}

int check_http(long expected, long status, const void *body, size_t len,
               struct check_refusal *ret_why)
{
    int n;

    if (status == expected)
        return 0;
    (void)snprintf(ret_why->expected, sizeof(ret_why->expected), "%ld", expected);
    n = snprintf(ret_why->found, sizeof(ret_why->found), "%ld%s", status, len > 0 ? " " : "");
    check_show(body, len < PAGE_SHOWN_MAX ? len : PAGE_SHOWN_MAX, ret_why->found + n,
               sizeof(ret_why->found) - (size_t)n);
    return status == HTTP_UNAVAILABLE ? TEKD_EAGAIN : TEKD_EDENIED;
}

void check_no_answer(struct check_refusal *why, const char *url, const char *text)
{
    (void)snprintf(why->expected, sizeof(why->expected), "an answer from %.200s", url);
    check_show(text, strlen(text), why->found, sizeof(why->found));
}

/*
 * 200 carries a message.  Any other status is a no; what the server wrote along with it is shown,
 * but nothing is taken from it, not even a key that should happen to be there.
 */
static int http_status_holds(struct checking *c)
{
    const struct check_subject *s = c->subject;

    return check_http(HTTP_OK, s->status, s->body, s->body_len, c->refusal);
}

/* An answer uses the media type of the request, a delivery one that CP-3 has, or the one agreed. */
static int media_type_holds(struct checking *c)
{
    const char *type = c->subject->content_type;
    const struct check_terms *t = c->terms;

    if (cp3_media_from_content_type(type, strlen(type), &c->result->media) == 0 &&
        (!t->one_media || c->result->media == t->media))
        return 0;
    return t->one_media ? reject(c, type, "%s", cp3_media_content_type(t->media))
                        : reject(c, type, "%s or %s", cp3_media_content_type(CP3_XML),
                                 cp3_media_content_type(CP3_JSON));
}

/*
 * A message by the rules of the codec.  That Data is there if and only if Status is 0, and that
 * ContentID, Destination and Source are there together or not at all, is among them.
 */
static int message_holds(struct checking *c)
{
    AUTO(cp3_reader) struct cp3_reader *reader = NULL;
    struct cp3_error e;
    char found[CHECK_TEXT_MAX];
    int r;

    if (cp3_reader_new(&reader) < 0)
        return TEKD_ENOMEM;
    r = cp3_read(reader, c->result->media, c->subject->body, c->subject->body_len,
                 &c->result->message, &e);
    if (r == CP3_ENOMEM)
        return TEKD_ENOMEM;
    c->result->read = r == 0;
    if (r == 0)
        return 0;
    (void)snprintf(found, sizeof(found), "line %u, %s: %s", e.line, e.element, e.reason);
    return reject(c, found, "a CP-3 message");
}

static int tag_holds(struct checking *c)
{
    bool answer = c->subject->kind == CHECK_ANSWER;
    enum cp3_tag found = c->result->message.tag;

    if (found == (answer ? CP3_RESPONSE : CP3_DELIVERY))
        return 0;
    return reject_number(c, found, answer ? "2 (Response to Key Request)" : "3 (Key Delivery)");
}

static int version_holds(struct checking *c)
{
    return c->result->message.version == 1 ? 0 : reject_number(c, c->result->message.version, "1");
}

static int message_id_holds(struct checking *c)
{
    return check_same(c, c->subject->message_id, c->result->message.message_id);
}

/* The efficient form leaves the next three out: the MessageID alone ties it to the request. */
static int content_id_holds(struct checking *c)
{
    return c->result->message.form == CP3_FULL
               ? check_same(c, c->subject->content_id, c->result->message.content_id)
               : 0;
}

/* It comes from the BSM ... */
static int source_holds(struct checking *c)
{
    return c->result->message.form == CP3_FULL
               ? check_same(c, c->terms->bsm, c->result->message.source)
               : 0;
}

/* ... and is for us. */
static int destination_holds(struct checking *c)
{
    return c->result->message.form == CP3_FULL
               ? check_same(c, c->terms->bsa, c->result->message.destination)
               : 0;
}

static int status_holds(struct checking *c)
{
    if (c->result->message.status == CP3_STATUS_OK)
        return 0;
    (void)reject_number(c, c->result->message.status, "0");
    return TEKD_EDENIED;
}

/*
 * A MessageID stands for one delivery.  Its repetition holds although its key is not looked at any
 * more: our KEK may have changed since, and the key is not taken twice.
 */
static int repetition_holds(struct checking *c)
{
    enum journal_known known = journal_find(c->subject->journal, &c->result->message);

    c->result->repeated = known == JOURNAL_SAME;
    return known != JOURNAL_OTHER
               ? 0
               : reject(c, "another one", "the ContentID and Data that this MessageID had before");
}

/* What the extension KeyInfo says of the key, where it is there: the wrap as agreed ... */
static int wrap_holds(struct checking *c)
{
    const struct cp3_message *m = &c->result->message;

    return m->has & CP3_HAS_KEY_INFO
               ? check_same(c, cp3_wrap_name(c->terms->wrap), cp3_wrap_name(m->key_info.wrap))
               : 0;
}

/* ... and a length that AES has. */
static int bits_holds(struct checking *c)
{
    const struct cp3_message *m = &c->result->message;
    uint64_t bits = m->key_info.bits;

    if (!(m->has & CP3_HAS_KEY_INFO) || bits == 128 || bits == 192 || bits == 256)
        return 0;
    return reject_number(c, bits, "128, 192 or 256");
}

/* Unwrapping proves that Data is whole and made for who has this KEK. */
static int data_holds(struct checking *c)
{
    const struct cp3_message *m = &c->result->message;
    int r;

    r = unwrap_key(c->terms->wrap, c->terms->kek, m->data, m->data_len, &c->result->tek);
    if (r == TEKD_EDENIED)
        return reject(c, "Data wrapped under another key, or altered",
                      "Data that unwraps (%s) with our KEK", cp3_wrap_name(c->terms->wrap));
    if (r == TEKD_EFORMAT) {
        char found[64];

        (void)snprintf(found, sizeof(found), "%zu octets", m->data_len);
        return reject(c, found, "Data of a length that %s has", cp3_wrap_name(c->terms->wrap));
    }
    return r;
}

/* The key itself: of a length that AES has, and of the one that KeyInfo says. */
static int tek_holds(struct checking *c)
{
    const struct cp3_message *m = &c->result->message;
    size_t bits = secret_len(c->result->tek) * 8;

    if (bits != 128 && bits != 192 && bits != 256)
        return reject_number(c, bits, "a key of 128, 192 or 256 bits");
    if ((m->has & CP3_HAS_KEY_INFO) && bits != m->key_info.bits) {
        char found[24];

        (void)snprintf(found, sizeof(found), "%zu", bits);
        return reject(c, found, "a key of %u bits, as KeyInfo says", (unsigned)m->key_info.bits);
    }
    return unwrap_check_value(c->result->tek, c->result->check_value);
}

#define ANSWERED (CHECK_ANSWER | CHECK_COLLECTED)
#define DELIVERY (CHECK_PUSHED | CHECK_COLLECTED)
#define EVERY    (CHECK_ANSWER | DELIVERY)

/*
 * Who it is from, for whom and for what come before the key: a foreign message never gets to the
 * KEK.  http is what a push that fails there is answered; 0: it is a Key Delivery, and is answered
 * a Confirmation with Status 1.
 */
static const struct {
    const char *name;
    unsigned kinds; /* enum check_kind */
    int http;
    int (*holds)(struct checking *c);
} checks[] = {
    {"HTTP status", ANSWERED, 0, http_status_holds},
    {"media type", EVERY, 415, media_type_holds},
    {"message", EVERY, 400, message_holds},
    {"Tag", EVERY, 400, tag_holds},
    {"Version", EVERY, 0, version_holds},
    {"MessageID", CHECK_ANSWER, 0, message_id_holds},
    {"ContentID", CHECK_ANSWER, 0, content_id_holds},
    {"Source", EVERY, 0, source_holds},
    {"Destination", EVERY, 0, destination_holds},
    {"Status", CHECK_ANSWER, 0, status_holds},
    {"repetition", DELIVERY, 0, repetition_holds},
    {"KeyInfo.wrap", EVERY, 0, wrap_holds},
    {"KeyInfo.bits", EVERY, 0, bits_holds},
    {"Data", EVERY, 0, data_holds},
    {"TEK", EVERY, 0, tek_holds},
};

int check_message(const struct check_subject *subject, struct check_result *ret_result,
                  struct check_refusal *ret_refusal)
{
    struct checking c = {subject, subject->terms, ret_result, ret_refusal};
    int r = 0;

    ret_result->read = false;
    ret_result->repeated = false;
    ret_result->tek = NULL;
    memset(ret_refusal, 0, sizeof(*ret_refusal));
    check_show(subject->reason, strlen(subject->reason), ret_refusal->reason,
               sizeof(ret_refusal->reason));
    for (size_t i = 0; i < ARRAY_SIZE(checks) && r == 0 && !ret_result->repeated; i++) {
        if (!(checks[i].kinds & subject->kind))
            continue;
        ret_refusal->check = checks[i].name;
        ret_refusal->http = checks[i].http;
        r = checks[i].holds(&c);
    }
    if (r < 0)
        check_clear(ret_result);
    return r;
}

void check_clear(struct check_result *result)
{
    secret_free(result->tek);
    result->tek = NULL;
}
