/*
 * The answer to a Key Request, as a BSA has to treat it.
 *
 * A TEK goes into use only when every line of the table at the end holds.  TLS has already shown
 * that a server with a certificate of the right CA and name is speaking; the rest shows that this
 * is the answer to this request, for this BSA, under the KEK and the wrap that were agreed.  The
 * first line that does not hold is reported, with what was expected and what was found.
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

/* One answer on its way through the table. */
struct checking {
    const struct check_asked *asked;
    const struct https_answer *http;
    struct check_result *answer;
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

/*
 * 200 carries a Response.  Any other status is a no; what the server wrote along with it is shown,
 * but nothing is taken from it, not even a key that should happen to be there.
 */
static int http_status_holds(struct checking *c)
{
    char found[CHECK_TEXT_MAX];
    size_t len = buf_len(c->http->body);
    int n;

    if (c->http->status == HTTP_OK)
        return 0;
    n = snprintf(found, sizeof(found), "%ld%s", c->http->status, len > 0 ? " " : "");
    check_show(buf_str(c->http->body), len < PAGE_SHOWN_MAX ? len : PAGE_SHOWN_MAX, found + n,
               sizeof(found) - (size_t)n);
    (void)snprintf(c->refusal->expected, sizeof(c->refusal->expected), "%d", HTTP_OK);
    memcpy(c->refusal->found, found, sizeof(found));
    return c->http->status == HTTP_UNAVAILABLE ? TEKD_EAGAIN : TEKD_EDENIED;
}

/* The answer uses the media type of the request. */
static int media_type_holds(struct checking *c)
{
    const char *type = c->http->content_type;
    enum cp3_media media;

    if (cp3_media_from_content_type(type, strlen(type), &media) < 0 || media != c->asked->media)
        return reject(c, type, "%s", cp3_media_content_type(c->asked->media));
    return 0;
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
    r = cp3_read(reader, c->asked->media, buf_data(c->http->body), buf_len(c->http->body),
                 &c->answer->message, &e);
    if (r == CP3_ENOMEM)
        return TEKD_ENOMEM;
    if (r == 0)
        return 0;
    (void)snprintf(found, sizeof(found), "line %u, %s: %s", e.line, e.element, e.reason);
    return reject(c, found, "a CP-3 message");
}

static int tag_holds(struct checking *c)
{
    return c->answer->message.tag == CP3_RESPONSE
               ? 0
               : reject_number(c, c->answer->message.tag, "2 (Response to Key Request)");
}

static int version_holds(struct checking *c)
{
    return c->answer->message.version == 1 ? 0 : reject_number(c, c->answer->message.version, "1");
}

static int message_id_holds(struct checking *c)
{
    return check_same(c, c->asked->message_id, c->answer->message.message_id);
}

/* The efficient form leaves the next three out: the MessageID alone ties it to the request. */
static int content_id_holds(struct checking *c)
{
    return c->answer->message.form == CP3_FULL
               ? check_same(c, c->asked->content_id, c->answer->message.content_id)
               : 0;
}

/* Source and Destination change places. */
static int source_holds(struct checking *c)
{
    return c->answer->message.form == CP3_FULL
               ? check_same(c, c->asked->destination, c->answer->message.source)
               : 0;
}

static int destination_holds(struct checking *c)
{
    return c->answer->message.form == CP3_FULL
               ? check_same(c, c->asked->source, c->answer->message.destination)
               : 0;
}

static int status_holds(struct checking *c)
{
    if (c->answer->message.status == CP3_STATUS_OK)
        return 0;
    (void)reject_number(c, c->answer->message.status, "0");
    return TEKD_EDENIED;
}

/* What the extension KeyInfo says of the key, where it is there: the wrap as agreed ... */
static int wrap_holds(struct checking *c)
{
    const struct cp3_message *m = &c->answer->message;

    return m->has & CP3_HAS_KEY_INFO
               ? check_same(c, cp3_wrap_name(c->asked->wrap), cp3_wrap_name(m->key_info.wrap))
               : 0;
}

/* ... and a length that AES has. */
static int bits_holds(struct checking *c)
{
    const struct cp3_message *m = &c->answer->message;
    uint64_t bits = m->key_info.bits;

    if (!(m->has & CP3_HAS_KEY_INFO) || bits == 128 || bits == 192 || bits == 256)
        return 0;
    return reject_number(c, bits, "128, 192 or 256");
}

/* Unwrapping proves that Data is whole and made for who has this KEK. */
static int data_holds(struct checking *c)
{
    const struct cp3_message *m = &c->answer->message;
    int r;

    r = unwrap_key(c->asked->wrap, c->asked->kek, m->data, m->data_len, &c->answer->tek);
    if (r == TEKD_EDENIED)
        return reject(c, "Data wrapped under another key, or altered",
                      "Data that unwraps (%s) with our KEK", cp3_wrap_name(c->asked->wrap));
    if (r == TEKD_EFORMAT) {
        char found[64];

        (void)snprintf(found, sizeof(found), "%zu octets", m->data_len);
        return reject(c, found, "Data of a length that %s has", cp3_wrap_name(c->asked->wrap));
    }
    return r;
}

/* The key itself: of a length that AES has, and of the one that KeyInfo says. */
static int tek_holds(struct checking *c)
{
    const struct cp3_message *m = &c->answer->message;
    size_t bits = secret_len(c->answer->tek) * 8;

    if (bits != 128 && bits != 192 && bits != 256)
        return reject_number(c, bits, "a key of 128, 192 or 256 bits");
    if ((m->has & CP3_HAS_KEY_INFO) && bits != m->key_info.bits) {
        char found[24];

        (void)snprintf(found, sizeof(found), "%zu", bits);
        return reject(c, found, "a key of %u bits, as KeyInfo says", (unsigned)m->key_info.bits);
    }
    return unwrap_check_value(c->answer->tek, c->answer->check_value);
}

/* Who asked, for what, for whom come before the key: a foreign answer never gets to the KEK. */
static const struct {
    const char *name;
    int (*holds)(struct checking *c);
} checks[] = {
    {"HTTP status", http_status_holds},
    {"media type", media_type_holds},
    {"message", message_holds},
    {"Tag", tag_holds},
    {"Version", version_holds},
    {"MessageID", message_id_holds},
    {"ContentID", content_id_holds},
    {"Source", source_holds},
    {"Destination", destination_holds},
    {"Status", status_holds},
    {"KeyInfo.wrap", wrap_holds},
    {"KeyInfo.bits", bits_holds},
    {"Data", data_holds},
    {"TEK", tek_holds},
};

int check_message(const struct check_asked *asked, const struct https_answer *http,
                  struct check_result *ret_answer, struct check_refusal *ret_refusal)
{
    struct check_result answer = {.tek = NULL};
    struct checking c = {asked, http, &answer, ret_refusal};
    int r = 0;

    memset(ret_refusal, 0, sizeof(*ret_refusal));
    check_show(http->reason, strlen(http->reason), ret_refusal->reason,
               sizeof(ret_refusal->reason));
    for (size_t i = 0; i < ARRAY_SIZE(checks) && r == 0; i++) {
        ret_refusal->check = checks[i].name;
        r = checks[i].holds(&c);
    }
    if (r < 0) {
        check_clear(&answer);
        return r;
    }
    *ret_answer = answer;
    return 0;
}

void check_clear(struct check_result *a)
{
    secret_free(a->tek);
    a->tek = NULL;
}
