/* tek-bsa listen: takes the Key Deliveries that a BSM pushes. */
#include "bsa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tekd/err.h"

#define HTTP_OK          200
#define HTTP_ACCEPTED    202
#define HTTP_UNAVAILABLE 503

static const struct option_row rows[] = {
    SETTING("address", address, "ADDRESS", "where to listen: IPv4 or IPv6, in numbers",
            .required = true),
    SETTING("port", port, "PORT", "0: a free one, which is printed", .required = true),
    SETTING("ca", ca, "FILE", "PEM: the CA of the BSM's certificate", .required = true),
    SETTING("cert", cert, "FILE", "PEM: our certificate", .required = true),
    SETTING("key", key, "FILE", "PEM: its private key", .required = true),
    SETTING("bsm-cert", bsm_cert, "FILE", "PEM: the BSM's certificate; no other may deliver"),
    SETTING("kek", kek, "FILE", "our KEK in hexadecimal, mode 0600", .required = true),
    SETTING("id", bsa, "ID", "who we are: the BSA's ID", .required = true),
    SETTING("bsm", bsm, "ID", "who delivers: the BSM's ID", .required = true),
    SETTING("media", media, "xml|json", "take deliveries in this encoding only"),
    SETTING("wrap", wrap, "WRAP", "aes-kw or aes-kwp: how TEKs are wrapped for us",
            .standard = "aes-kw"),
    SETTING("form", form, "FORM", "full or efficient: of our Confirmations", .standard = "full"),
    SETTING("out", out, "DIR", "write the clear TEKs there, a file each, mode 0600"),
    SETTING("journal", journal, "FILE", "remember there which deliveries were taken"),
    SETTING("timeout", timeout, "SECONDS", "for a request to come in, and for a late Confirmation",
            .standard = "10"),
    SETTING("late", late, "URL", "answer 202, and send the Confirmation there"),
    SETTING("status", status, "0|1", "1: take nothing, and confirm with Status 1", .standard = "0"),
    SETTING("delay", delay, "MS", "wait so long before each answer", .standard = "0"),
    SETTING("drop", drop, "N|all", "take the first N deliveries and close without an answer",
            .standard = "0"),
    SETTING("count", count, "N", "end after N deliveries were answered"),
    SWITCH("once", once, "the same as --count 1"),
    SWITCH("json", json, "print a JSON document a line"),
};
static const struct option_table table = {
    "listen", "Takes Key Deliveries over HTTPS, unwraps the TEKs and confirms them.", rows,
    ARRAY_SIZE(rows)};

/* One run. */
struct listen {
    struct settings settings;
    struct stop *stop;
    struct delivery_rules rules;
    struct front *front;
    struct late *late;        /* NULL: confirmations are answers */
    unsigned dropped, taken;  /* deliveries so far */
    bool failed;              /* one of them was refused */
    struct delivery delivery; /* under way */
    char *problem;            /* the body of an answer that is no Confirmation */
};

/* ---- one delivery ---------------------------------------------------------------------------- */

/* What is no Key Delivery is told why in JSON (RFC 9457). */
static void answer_problem(struct listen *l, struct front_answer *a)
{
    const struct check_refusal *why = &l->delivery.why;
    json_t *doc = json_pack("{s:s, s:i, s:s, s:s, s:s}", "title", "not a Key Delivery", "status",
                            l->delivery.http, "check", why->check, "expected", why->expected,
                            "found", why->found);

    free(l->problem);
    l->problem = doc != NULL ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(doc);
    *a = (struct front_answer){.status = l->delivery.http};
    if (l->problem == NULL)
        return;
    a->content_type = FRONT_PROBLEM;
    a->body = l->problem;
    a->body_len = strlen(l->problem);
}

/* 202, and the rest is for the thread of late Confirmations. */
static void answer_late(struct listen *l, struct front_answer *a)
{
    bool full = late_push(l->late, &l->delivery.confirmation) < 0;

    if (full)
        complain("more than %d late Confirmations wait", LATE_MAX);
    *a = (struct front_answer){.status = full ? HTTP_UNAVAILABLE : HTTP_ACCEPTED};
}

static void answer_confirmation(struct listen *l, struct front_answer *a)
{
    const struct confirmation *c = &l->delivery.confirmation;

    *a = (struct front_answer){.status = HTTP_OK,
                               .content_type = cp3_media_content_type(c->media),
                               .body = c->octets,
                               .body_len = c->len};
}

/* A Key Delivery, right or wrong. */
static void answer_delivery(struct listen *l, struct front_answer *a)
{
    l->failed = l->failed || l->delivery.error < 0;
    if (l->dropped < l->settings.drop) {
        l->dropped++;
        *a = (struct front_answer){.cut = true};
        return;
    }
    if (++l->taken == l->settings.count)
        front_finish(l->front);
    if (l->late != NULL)
        answer_late(l, a);
    else
        answer_confirmation(l, a);
}

static void print_delivery(const struct listen *l, const struct front_answer *a)
{
    json_t *doc = delivery_describe(&l->delivery, &l->rules.terms);

    if (a->cut)
        report_flag(doc, "dropped", true);
    else
        report_number(doc, "answer", a->status);
    report_line(doc, l->settings.given.json);
    json_decref(doc);
}

static void handle(void *arg, const struct front_request *q, struct front_answer *ret_answer)
{
    struct listen *l = arg;
    const struct check_subject subject = {.kind = CHECK_PUSHED,
                                          .terms = &l->rules.terms,
                                          .journal = l->rules.journal,
                                          .content_type = q->content_type,
                                          .body = q->body,
                                          .body_len = q->body_len,
                                          .reason = ""};

    delivery_take(&l->rules, &subject, &l->delivery);
    if (l->delivery.error < 0)
        report_complain(&l->delivery.why);
    if (l->delivery.http == HTTP_OK)
        answer_delivery(l, ret_answer);
    else
        answer_problem(l, ret_answer);
    print_delivery(l, ret_answer);
    delivery_clear(&l->delivery);
}

/* ---- the run --------------------------------------------------------------------------------- */

static int open_front(struct listen *l)
{
    const struct settings *s = &l->settings;
    const struct front_options o = {
        .address = s->given.address,
        .port = (uint16_t)s->port,
        .files = {s->given.cert, s->given.key, s->given.ca, s->given.bsm_cert},
        .timeout_s = s->timeout_s,
        .delay_ms = s->given.late == NULL ? s->delay_ms : 0,
        .stop = l->stop,
        .handle = handle,
        .arg = l};

    return front_new(&o, &l->front);
}

static int open_late(struct listen *l)
{
    const struct settings *s = &l->settings;
    const struct late_options o = {.link = settings_link(s, s->given.late, l->stop),
                                   .delay_ms = s->delay_ms,
                                   .json = s->given.json};

    return s->given.late == NULL ? 0 : late_start(&o, &l->late);
}

static void announce(const struct listen *l)
{
    json_t *doc = json_object();

    report_text(doc, "event", "listening");
    report_text(doc, "address", l->settings.given.address);
    report_number(doc, "port", front_port(l->front));
    report_line(doc, l->settings.given.json);
    json_decref(doc);
}

static int run(struct listen *l)
{
    if (settings_read_kek(&l->settings) < 0 || stop_new(&l->stop) < 0 ||
        delivery_open(&l->settings, &l->rules) < 0 || open_front(l) < 0 || open_late(l) < 0)
        return BSA_REFUSED;
    announce(l);
    front_run(l->front);
    if (l->late != NULL && !late_end(l->late))
        l->failed = true;
    return l->failed && !stop_wait(l->stop, 0) ? BSA_REFUSED : BSA_DONE;
}

int listen_run(int argc, char **argv)
{
    struct listen *l = calloc(1, sizeof(*l));
    int e, r;

    if (l == NULL) {
        complain("out of memory");
        return BSA_REFUSED;
    }
    r = settings_read(&table, argc, argv, &l->settings);
    if (r < 0)
        e = r == TEKD_ECLOSED ? BSA_DONE : BSA_USAGE;
    else
        e = run(l);
    front_free(l->front);
    delivery_close(&l->rules);
    stop_free(l->stop);
    settings_clear(&l->settings);
    free(l->problem);
    free(l);
    return e;
}
