#include "answer.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "request.h"
#include "tekd/auto.h"

/* The least a wrapped AES-128 key takes (RFC 3394: 24 octets), in hexadecimal digits. */
#define DATA_DIGITS_MIN 48

#define STATUS_LINE "HTTP/1.1 "

struct head {
    bool has_length, chunked;
    size_t length;
};

/* If the line is the field `name`, its value without white space around. */
static bool field_is(const char *line, size_t len, const char *name, const char **ret_value,
                     size_t *ret_len)
{
    size_t n = strlen(name);

    if (len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
        return false;
    line += n + 1;
    len -= n + 1;
    while (len > 0 && (*line == ' ' || *line == '\t')) {
        line++;
        len--;
    }
    *ret_value = line;
    *ret_len = len;
    return true;
}

static int read_length(const char *value, size_t len, struct head *head)
{
    if (head->has_length || len == 0 || len > 6)
        return -1;
    head->has_length = true;
    head->length = 0;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -1;
        head->length = head->length * 10 + (size_t)(value[i] - '0');
    }
    return 0;
}

static int read_field(const char *line, size_t len, struct head *head, struct answer *a)
{
    const char *value;
    size_t value_len;

    if (field_is(line, len, "content-length", &value, &value_len))
        return read_length(value, value_len, head);
    if (field_is(line, len, "transfer-encoding", &value, &value_len))
        head->chunked = true;
    else if (field_is(line, len, "content-type", &value, &value_len)) {
        a->type = value;
        a->type_len = value_len;
    } else if (field_is(line, len, "cp3-reason", &value, &value_len)) {
        a->reason = value;
        a->reason_len = value_len;
    } else if (field_is(line, len, "connection", &value, &value_len))
        a->close = value_len == 5 && strncasecmp(value, "close", 5) == 0;
    return 0;
}

static int read_status_line(const char *octets, size_t len, struct answer *a)
{
    const size_t prefix = sizeof(STATUS_LINE) - 1;

    if (len < prefix + 3 || memcmp(octets, STATUS_LINE, prefix) != 0)
        return -1;
    a->http = 0;
    for (size_t i = prefix; i < prefix + 3; i++) {
        if (octets[i] < '0' || octets[i] > '9')
            return -1;
        a->http = a->http * 10 + (octets[i] - '0');
    }
    return 0;
}

int answer_read(const char *octets, size_t len, struct answer *ret_answer)
{
    const char *end = memmem(octets, len, "\r\n\r\n", 4);
    struct head head = {.has_length = false};
    struct answer a = {.http = 0};
    const char *line;

    if (end == NULL)
        return len < ANSWER_MAX ? 0 : -1;
    if (read_status_line(octets, len, &a) < 0)
        return -1;
    line = (const char *)memchr(octets, '\n', len) + 1;
    while (line < end) {
        const char *eol = memchr(line, '\r', (size_t)(end + 1 - line));

        if (read_field(line, (size_t)(eol - line), &head, &a) < 0)
            return -1;
        line = eol + 2;
    }
    if (head.chunked || (!head.has_length && a.http != 204))
        return -1;
    a.body = end + 4;
    a.body_len = head.length;
    a.total = (size_t)(a.body - octets) + head.length;
    if (a.total > ANSWER_MAX)
        return -1;
    if (a.total > len)
        return 0;
    *ret_answer = a;
    return 1;
}

enum answer_verdict answer_check_static(const struct answer *a)
{
    return a->http == 200 ? ANSWER_OK : ANSWER_HTTP_STATUS;
}

static const struct {
    const char *type;
    const char *status_0;
} media_table[] = {
    [REQUEST_XML] = {"application/xml", "<Status>0</Status>"},
    [REQUEST_JSON] = {"application/json", "\"Status\":0"},
};

enum answer_verdict answer_check(const struct answer *a, int media)
{
    const char *status = media_table[media].status_0;

    if (a->http != 200)
        return ANSWER_HTTP_STATUS;
    if (memmem(a->body, a->body_len, status, strlen(status)) == NULL)
        return ANSWER_REFUSED;
    return ANSWER_OK;
}

/* FNV-1a over upper-case hexadecimal digits, whole octets, at least a wrapped AES-128 key. */
static bool hash_data(const char *data, size_t len, uint64_t *ret_hash)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    if (len < DATA_DIGITS_MIN || len % 2 != 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        bool digit = (data[i] >= '0' && data[i] <= '9') || (data[i] >= 'A' && data[i] <= 'F');

        if (!digit)
            return false;
        h = (h ^ (unsigned char)data[i]) * UINT64_C(0x100000001b3);
    }
    *ret_hash = h == 0 ? 1 : h;
    return true;
}

/* The text of the only element of this name; false if there is none or another one. */
static bool element_text(const struct answer *a, const char *name, const char **ret_text,
                         size_t *ret_len)
{
    char open[32], close[32];
    const char *from, *to;
    int open_len = snprintf(open, sizeof(open), "<%s>", name);
    int close_len = snprintf(close, sizeof(close), "</%s>", name);
    const char *end = a->body + a->body_len;

    from = memmem(a->body, a->body_len, open, (size_t)open_len);
    if (from == NULL)
        return false;
    from += open_len;
    to = memmem(from, (size_t)(end - from), close, (size_t)close_len);
    if (to == NULL || memmem(to, (size_t)(end - to), open, (size_t)open_len) != NULL)
        return false;
    *ret_text = from;
    *ret_len = (size_t)(to - from);
    return true;
}

static bool xml_is_as_asked(const struct answer *a, const char *message_id, uint64_t *ret_data)
{
    const char *text;
    size_t len;

    if (!element_text(a, "Tag", &text, &len) || len != 1 || text[0] != '2')
        return false;
    if (!element_text(a, "MessageID", &text, &len) || len != strlen(message_id) ||
        memcmp(text, message_id, len) != 0)
        return false;
    if (!element_text(a, "Status", &text, &len) || len != 1 || text[0] != '0')
        return false;
    return element_text(a, "Data", &text, &len) && hash_data(text, len, ret_data);
}

static void json_freep(json_t **j)
{
    json_decref(*j);
}

static bool json_is_as_asked(const struct answer *a, const char *message_id, uint64_t *ret_data)
{
    __attribute__((cleanup(json_freep))) json_t *body =
        json_loadb(a->body, a->body_len, JSON_REJECT_DUPLICATES, NULL);
    const char *id, *data;
    json_int_t tag, status;

    if (body == NULL || json_unpack(body, "{sI, ss, sI, ss}", "Tag", &tag, "MessageID", &id,
                                    "Status", &status, "Data", &data) < 0)
        return false;
    return tag == 2 && status == 0 && strcmp(id, message_id) == 0 &&
           hash_data(data, strlen(data), ret_data);
}

enum answer_verdict answer_check_strictly(const struct answer *a, int media, const char *message_id,
                                          uint64_t *ret_data)
{
    const char *type = media_table[media].type;
    enum answer_verdict cheap = answer_check(a, media);
    bool as_asked;

    if (cheap != ANSWER_OK)
        return cheap;
    if (a->type == NULL || a->type_len < strlen(type) ||
        strncasecmp(a->type, type, strlen(type)) != 0)
        return ANSWER_NOT_AS_ASKED;
    as_asked = media == REQUEST_XML ? xml_is_as_asked(a, message_id, ret_data)
                                    : json_is_as_asked(a, message_id, ret_data);
    return as_asked ? ANSWER_OK : ANSWER_NOT_AS_ASKED;
}
