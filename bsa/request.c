/* tek-bsa request: one Key Request, one answer, one TEK. */
#include "bsa.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define TIMEOUT_MAX_S 300
#define US_PER_S      1000000
/* An ID with every octet shown as \xNN, and more than a ContentID in practice. */
#define SHOWN_MAX 1200

struct request_options {
    const char *url, *ca, *cert, *key, *kek;
    const char *source, *destination, *content, *message_id;
    const char *media, *wrap, *timeout, *out;
    bool json;
};

/* The rest by name: required or standard. */
#define TEXT(option, field, what, text, ...)                                                       \
    {                                                                                              \
        .name = option, .argument = (what), .meaning = (text),                                     \
        .offset = offsetof(struct request_options, field), ##__VA_ARGS__                           \
    }

static const struct option_row rows[] = {
    TEXT("url", url, "URL", "where Key Requests go, https://HOST/cp3", .required = true),
    TEXT("ca", ca, "FILE", "PEM: the CA of the server's certificate", .required = true),
    TEXT("cert", cert, "FILE", "PEM: our certificate, as enrolled", .required = true),
    TEXT("key", key, "FILE", "PEM: its private key", .required = true),
    TEXT("kek", kek, "FILE", "our KEK in hexadecimal, mode 0600", .required = true),
    TEXT("source", source, "ID", "who we are: the BSA's ID", .required = true),
    TEXT("destination", destination, "ID", "whom we ask: the BSM's ID", .required = true),
    TEXT("content", content, "ID", "the ContentID whose TEK is wanted", .required = true),
    TEXT("message-id", message_id, "ID", "MessageID; without it a new UUIDv7"),
    TEXT("media", media, "xml|json", "encoding of the messages", .standard = "xml"),
    TEXT("wrap", wrap, "WRAP", "aes-kw or aes-kwp: how TEKs are wrapped for us",
         .standard = "aes-kw"),
    TEXT("timeout", timeout, "SECONDS", "for the whole exchange", .standard = "10"),
    TEXT("out", out, "FILE", "write the clear TEK there in hexadecimal, mode 0600"),
    {.name = "json",
     .offset = offsetof(struct request_options, json),
     .meaning = "print one JSON document"},
};
static const struct option_table table = {
    "request", "Asks for the TEK of a content, checks the answer and unwraps the TEK.", rows,
    ARRAY_SIZE(rows)};

/* One run. */
struct request {
    struct request_options options;
    unsigned timeout_s;
    char own_id[ENC_UUID_LEN + 1];
    struct secret *kek;
    struct answer_asked asked;
    struct https_answer http;
    struct answer answer;
};

static int choose_message_id(struct request *q)
{
    uint8_t id[16];

    q->asked.message_id = q->options.message_id;
    if (q->asked.message_id != NULL)
        return BSA_DONE;
    if (enc_uuidv7(clock_utc_us(), id) < 0) {
        complain("no random numbers for a MessageID");
        return BSA_REFUSED;
    }
    enc_uuid(id, q->own_id);
    q->asked.message_id = q->own_id;
    return BSA_DONE;
}

static int check_options(struct request *q)
{
    const struct request_options *o = &q->options;

    if (cp3_media_from_name(o->media, &q->asked.media) < 0) {
        complain("--media: expected xml or json, found %s", o->media);
        return BSA_USAGE;
    }
    if (cp3_wrap_from_name(o->wrap, &q->asked.wrap) < 0 ||
        unwrap_data_len(q->asked.wrap, 16) == 0) {
        complain("--wrap: expected aes-kw or aes-kwp, found %s", o->wrap);
        return BSA_USAGE;
    }
    if (strncmp(o->url, "https://", strlen("https://")) != 0) {
        complain("--url: expected https://..., found %s", o->url);
        return BSA_USAGE;
    }
    if (options_number("timeout", o->timeout, 1, TIMEOUT_MAX_S, &q->timeout_s) < 0)
        return BSA_USAGE;
    q->asked.content_id = o->content;
    q->asked.source = o->source;
    q->asked.destination = o->destination;
    return choose_message_id(q);
}

static int read_kek(struct request *q)
{
    static const struct {
        int error;
        const char *text;
    } texts[] = {
        {TEKD_ENOTFOUND, "there is no such file"},
        {TEKD_EDENIED, "expected a regular file of this user or root with mode 0600 or stricter"},
        {TEKD_EFORMAT, "expected 32, 48 or 64 hexadecimal digits and nothing else"},
        {TEKD_ETOOBIG, "expected 32, 48 or 64 hexadecimal digits and nothing else"},
    };
    const char *text = NULL;
    int r = unwrap_read_kek(q->options.kek, &q->kek);

    if (r == 0) {
        q->asked.kek = q->kek;
        return BSA_DONE;
    }
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i].error == r)
            text = texts[i].text;
    complain("--kek %s: %s", q->options.kek, text != NULL ? text : tekd_strerror(r));
    return BSA_REFUSED;
}

/* Copies an ID into a message; what is longer than the field is no ID. */
static bool put_id(char *field, size_t size, const char *option, const char *id)
{
    if (strlen(id) < size) {
        memcpy(field, id, strlen(id) + 1);
        return true;
    }
    complain("--%s: expected at most %zu octets, found %zu", option, size - 1, strlen(id));
    return false;
}

static int write_message(const struct request *q, char body[static CP3_WRITTEN_MAX],
                         size_t *ret_len)
{
    const struct answer_asked *a = &q->asked;
    int64_t now = clock_utc_us();
    struct cp3_message m;

    cp3_message_init(&m, CP3_REQUEST);
    if (!put_id(m.message_id, sizeof(m.message_id), "message-id", a->message_id) ||
        !put_id(m.content_id, sizeof(m.content_id), "content", a->content_id) ||
        !put_id(m.source, sizeof(m.source), "source", a->source) ||
        !put_id(m.destination, sizeof(m.destination), "destination", a->destination))
        return BSA_USAGE;
    m.has = CP3_HAS_VERSION;
    if (cp3_time_set(&m.time, now / US_PER_S, (uint32_t)(now % US_PER_S) * 1000) == 0)
        m.has |= CP3_HAS_TIME;
    if (cp3_write(a->media, CP3_FULL, &m, body, CP3_WRITTEN_MAX, ret_len) < 0) {
        complain("an ID is empty, is not UTF-8, or has control characters or blanks at an end");
        return BSA_USAGE;
    }
    return BSA_DONE;
}

/* What stands behind "member": of the document or of the lines. */
static void add(json_t *doc, const char *member, const char *text)
{
    (void)json_object_set_new(doc, member, json_string(text));
}

/* The document for both outcomes; the caller owns it. */
static json_t *start_document(const struct request *q)
{
    json_t *doc = json_object();

    add(doc, "message_id", q->asked.message_id);
    add(doc, "content_id", q->asked.content_id);
    if (q->http.status != 0)
        (void)json_object_set_new(doc, "http_status", json_integer(q->http.status));
    return doc;
}

static json_t *describe_key(const struct request *q)
{
    const struct cp3_message *m = &q->answer.message;
    json_t *doc = start_document(q);
    char uuid[ENC_UUID_LEN + 1];

    (void)json_object_set_new(doc, "status", json_integer(m->status));
    add(doc, "form", cp3_form_name(m->form));
    if (m->has & CP3_HAS_KEY_INFO) {
        enc_uuid(m->key_info.key_id, uuid);
        add(doc, "key_id", uuid);
        add(doc, "kek_id", m->key_info.kek_id);
    }
    add(doc, "wrap", cp3_wrap_name(q->asked.wrap));
    (void)json_object_set_new(doc, "bits", json_integer((json_int_t)secret_len(q->answer.tek) * 8));
    add(doc, "check_value", q->answer.check_value);
    if (m->has & CP3_HAS_TIME)
        add(doc, "time", m->time.text);
    if (q->options.out != NULL)
        add(doc, "out", q->options.out);
    return doc;
}

static void print_lines(const json_t *doc)
{
    const char *name;
    json_t *value;
    char shown[SHOWN_MAX];

    json_object_foreach ((json_t *)doc, name, value) {
        if (json_is_integer(value)) {
            (void)printf("%-12s %lld\n", name, (long long)json_integer_value(value));
            continue;
        }
        answer_show(json_string_value(value), json_string_length(value), shown, sizeof(shown));
        (void)printf("%-12s %s\n", name, shown);
    }
}

static void print_document(const json_t *doc)
{
    (void)json_dumpf(doc, stdout, JSON_INDENT(2));
    (void)putchar('\n');
}

/* One line for people on stderr, and the document if one is wanted. */
static void print_refusal(const struct request *q, const struct answer_refusal *why)
{
    json_t *doc;

    complain("%s: expected %s, found %s%s%s", why->check, why->expected, why->found,
             *why->reason != '\0' ? "; CP3-Reason: " : "", why->reason);
    if (!q->options.json)
        return;
    doc = start_document(q);
    add(doc, "failed_check", why->check);
    add(doc, "expected", why->expected);
    add(doc, "found", why->found);
    if (*why->reason != '\0')
        add(doc, "reason", why->reason);
    print_document(doc);
    json_decref(doc);
}

static int exchange(struct request *q)
{
    static char body[CP3_WRITTEN_MAX];
    struct https_request request = {.url = q->options.url,
                                    .ca = q->options.ca,
                                    .cert = q->options.cert,
                                    .key = q->options.key,
                                    .timeout_s = q->timeout_s,
                                    .content_type = cp3_media_content_type(q->asked.media),
                                    .body = (const uint8_t *)body};
    struct answer_refusal why = {.check = "HTTPS"};
    char text[HTTPS_WHY_MAX] = "out of memory";
    int e, r;

    e = write_message(q, body, &request.body_len);
    if (e != BSA_DONE)
        return e;
    r = https_post(&request, &q->http, text);
    if (r == 0)
        return BSA_DONE;
    q->http.status = 0;
    (void)snprintf(why.expected, sizeof(why.expected), "an answer from %.200s", request.url);
    answer_show(text, strlen(text), why.found, sizeof(why.found));
    print_refusal(q, &why);
    return r == TEKD_EIO ? BSA_UNREACHABLE : BSA_REFUSED;
}

static int judge(struct request *q)
{
    struct answer_refusal why;
    int r = answer_check(&q->asked, &q->http, &q->answer, &why);

    if (r == 0)
        return BSA_DONE;
    if (r != TEKD_EDENIED && r != TEKD_EFORMAT && r != TEKD_EAGAIN)
        (void)snprintf(why.found, sizeof(why.found), "%s", tekd_strerror(r));
    print_refusal(q, &why);
    return r == TEKD_EAGAIN ? BSA_UNREACHABLE : BSA_REFUSED;
}

/* Writes all of it and makes it last. */
static int write_out(int fd, const struct secret *text)
{
    const uint8_t *p = secret_peek(text);
    size_t left = secret_len(text);

    while (left > 0) {
        ssize_t n = write(fd, p, left);

        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            p += n;
            left -= (size_t)n;
        }
    }
    return fsync(fd);
}

/* The clear TEK, in a file of mode 0600 that is there whole or not at all. */
static int save_tek(const char *path, const struct secret *tek)
{
    AUTO(secret) struct secret *text = NULL;
    AUTO_MEM char *temporary = NULL;
    AUTO_FD int fd = -1;
    int errnum;

    if (secret_new(ENC_HEX_LEN(secret_len(tek)) + 1, &text) < 0 ||
        asprintf(&temporary, "%s.XXXXXX", path) < 0) {
        complain("--out %s: out of memory", path);
        return BSA_REFUSED;
    }
    enc_hex(secret_peek(tek), secret_len(tek), (char *)secret_get(text));
    secret_get(text)[ENC_HEX_LEN(secret_len(tek))] = '\n';
    fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd >= 0 && write_out(fd, text) == 0 && rename(temporary, path) == 0)
        return BSA_DONE;
    errnum = errno;
    if (fd >= 0)
        (void)unlink(temporary);
    complain("--out %s: %s", path, strerror(errnum));
    return BSA_REFUSED;
}

static void report(const struct request *q)
{
    json_t *doc = describe_key(q);

    if (q->options.json)
        print_document(doc);
    else
        print_lines(doc);
    json_decref(doc);
}

static int run(struct request *q)
{
    int e;

    e = read_kek(q);
    if (e != BSA_DONE)
        return e;
    if (buf_new(HTTPS_BODY_MAX, &q->http.body) < 0) {
        complain("out of memory");
        return BSA_REFUSED;
    }
    e = exchange(q);
    if (e != BSA_DONE)
        return e;
    e = judge(q);
    if (e != BSA_DONE)
        return e;
    if (q->options.out != NULL)
        e = save_tek(q->options.out, q->answer.tek);
    if (e == BSA_DONE)
        report(q);
    return e;
}

int request_run(int argc, char **argv)
{
    struct request q = {.timeout_s = 0};
    int e, r = options_parse(&table, argc, argv, &q.options);

    if (r < 0)
        return r == TEKD_ECLOSED ? BSA_DONE : BSA_USAGE;
    e = check_options(&q);
    if (e == BSA_DONE)
        e = run(&q);
    answer_clear(&q.answer);
    buf_free(q.http.body);
    secret_free(q.kek);
    return e;
}
