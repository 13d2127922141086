/* tek-bsa request: one Key Request, one answer, one TEK. */
#include "bsa.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define US_PER_S 1000000

static const struct option_row rows[] = {
    SETTING("url", url, "URL", "where Key Requests go, https://HOST/cp3", .required = true),
    SETTING("ca", ca, "FILE", "PEM: the CA of the server's certificate", .required = true),
    SETTING("cert", cert, "FILE", "PEM: our certificate, as enrolled", .required = true),
    SETTING("key", key, "FILE", "PEM: its private key", .required = true),
    SETTING("kek", kek, "FILE", "our KEK in hexadecimal, mode 0600", .required = true),
    SETTING("source", bsa, "ID", "who we are: the BSA's ID", .required = true),
    SETTING("destination", bsm, "ID", "whom we ask: the BSM's ID", .required = true),
    SETTING("content", content, "ID", "the ContentID whose TEK is wanted", .required = true),
    SETTING("message-id", message_id, "ID", "MessageID; without it a new UUIDv7"),
    SETTING("media", media, "xml|json", "encoding of the messages", .standard = "xml"),
    SETTING("wrap", wrap, "WRAP", "aes-kw or aes-kwp: how TEKs are wrapped for us",
            .standard = "aes-kw"),
    SETTING("timeout", timeout, "SECONDS", "for the whole exchange", .standard = "10"),
    SETTING("out", out, "FILE", "write the clear TEK there in hexadecimal, mode 0600"),
    SWITCH("json", json, "print one JSON document"),
};
static const struct option_table table = {
    "request", "Asks for the TEK of a content, checks the answer and unwraps the TEK.", rows,
    ARRAY_SIZE(rows)};

/* One run. */
struct request {
    struct settings settings;
    char own_id[ENC_UUID_LEN + 1];
    const char *message_id;
    struct https_answer http;
    struct check_result answer;
};

static int choose_message_id(struct request *q)
{
    uint8_t id[16];

    q->message_id = q->settings.given.message_id;
    if (q->message_id != NULL)
        return BSA_DONE;
    if (enc_uuidv7(clock_utc_us(), id) < 0) {
        complain("no random numbers for a MessageID");
        return BSA_REFUSED;
    }
    enc_uuid(id, q->own_id);
    q->message_id = q->own_id;
    return BSA_DONE;
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
    const struct settings *s = &q->settings;
    int64_t now = clock_utc_us();
    struct cp3_message m;

    cp3_message_init(&m, CP3_REQUEST);
    if (!put_id(m.message_id, sizeof(m.message_id), "message-id", q->message_id) ||
        !put_id(m.content_id, sizeof(m.content_id), "content", s->given.content) ||
        !put_id(m.source, sizeof(m.source), "source", s->given.bsa) ||
        !put_id(m.destination, sizeof(m.destination), "destination", s->given.bsm))
        return BSA_USAGE;
    m.has = CP3_HAS_VERSION;
    if (cp3_time_set(&m.time, now / US_PER_S, (uint32_t)(now % US_PER_S) * 1000) == 0)
        m.has |= CP3_HAS_TIME;
    if (cp3_write(s->terms.media, CP3_FULL, &m, body, CP3_WRITTEN_MAX, ret_len) < 0) {
        complain("an ID is empty, is not UTF-8, or has control characters or blanks at an end");
        return BSA_USAGE;
    }
    return BSA_DONE;
}

/* The document for both outcomes; the caller owns it. */
static json_t *start_document(const struct request *q)
{
    json_t *doc = json_object();

    report_text(doc, "message_id", q->message_id);
    report_text(doc, "content_id", q->settings.given.content);
    if (q->http.status != 0)
        report_number(doc, "http_status", q->http.status);
    return doc;
}

static void document_refusal(const struct request *q, const struct check_refusal *why)
{
    json_t *doc;

    if (!q->settings.given.json)
        return;
    doc = start_document(q);
    report_refusal(doc, why);
    report_print(doc, true);
    json_decref(doc);
}

static void refuse(const struct request *q, const struct check_refusal *why)
{
    report_complain(why);
    document_refusal(q, why);
}

static int exchange(struct request *q)
{
    static char body[CP3_WRITTEN_MAX];
    struct https_request request = settings_link(&q->settings, q->settings.given.url, NULL);
    struct check_refusal why = {.check = "HTTPS"};
    char text[HTTPS_WHY_MAX] = "out of memory";
    int e, r;

    e = write_message(q, body, &request.body_len);
    if (e != BSA_DONE)
        return e;
    request.content_type = cp3_media_content_type(q->settings.terms.media);
    request.body = (const uint8_t *)body;
    r = https_post(&request, &q->http, text);
    if (r == 0)
        return BSA_DONE;
    q->http.status = 0;
    check_no_answer(&why, request.url, text);
    refuse(q, &why);
    return r == TEKD_EIO ? BSA_UNREACHABLE : BSA_REFUSED;
}

static int judge(struct request *q)
{
    const struct check_subject subject = {.kind = CHECK_ANSWER,
                                          .terms = &q->settings.terms,
                                          .message_id = q->message_id,
                                          .content_id = q->settings.given.content,
                                          .status = q->http.status,
                                          .content_type = q->http.content_type,
                                          .body = buf_data(q->http.body),
                                          .body_len = buf_len(q->http.body),
                                          .reason = q->http.reason};
    struct check_refusal why;
    int r = check_message(&subject, &q->answer, &why);

    if (r == 0)
        return BSA_DONE;
    if (r != TEKD_EDENIED && r != TEKD_EFORMAT && r != TEKD_EAGAIN)
        (void)snprintf(why.found, sizeof(why.found), "%s", tekd_strerror(r));
    refuse(q, &why);
    return r == TEKD_EAGAIN ? BSA_UNREACHABLE : BSA_REFUSED;
}

static void report(const struct request *q)
{
    const struct cp3_message *m = &q->answer.message;
    json_t *doc = start_document(q);

    report_number(doc, "status", m->status);
    report_text(doc, "form", cp3_form_name(m->form));
    report_key(doc, &q->answer, q->settings.terms.wrap);
    if (q->settings.given.out != NULL)
        report_text(doc, "out", q->settings.given.out);
    report_print(doc, q->settings.given.json);
    json_decref(doc);
}

static int save(const struct request *q)
{
    const char *path = q->settings.given.out;
    struct check_refusal why = {.check = "out"};

    if (path == NULL || file_save_tek(path, q->answer.tek) == 0)
        return BSA_DONE;
    (void)snprintf(why.found, sizeof(why.found), "%s", strerror(errno));
    check_show(path, strlen(path), why.expected, sizeof(why.expected));
    complain("--out %s: %s", path, why.found);
    document_refusal(q, &why);
    return BSA_REFUSED;
}

/* The server may have given the key: who asks under another MessageID has to know this one. */
static void tell_message_id(const struct request *q)
{
    if (q->settings.given.message_id == NULL)
        complain("to ask for the same answer again: --message-id %s", q->message_id);
}

static int run(struct request *q)
{
    int e;

    if (settings_read_kek(&q->settings) < 0)
        return BSA_REFUSED;
    if (buf_new(HTTPS_BODY_MAX, &q->http.body) < 0) {
        complain("out of memory");
        return BSA_REFUSED;
    }
    e = exchange(q);
    if (e == BSA_DONE)
        e = judge(q);
    if (e == BSA_DONE)
        e = save(q);
    if (e == BSA_DONE)
        report(q);
    else if (e == BSA_UNREACHABLE || q->answer.tek != NULL)
        tell_message_id(q);
    return e;
}

int request_run(int argc, char **argv)
{
    struct request q = {.http = {.status = 0}};
    int e, r = settings_read(&table, argc, argv, &q.settings);

    if (r < 0)
        return r == TEKD_ECLOSED ? BSA_DONE : BSA_USAGE;
    e = choose_message_id(&q);
    if (e == BSA_DONE)
        e = run(&q);
    check_clear(&q.answer);
    buf_free(q.http.body);
    settings_clear(&q.settings);
    return e;
}
