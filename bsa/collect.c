/* tek-bsa collect: asks the BSM for the Key Deliveries that wait for us, and confirms them. */
#include "bsa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tekd/clock.h"
#include "tekd/err.h"

#define HTTP_NO_CONTENT 204
#define URL_MAX         2048
#define PAUSE_MS        1000 /* after a question that brought nothing good sooner than that */

static const struct option_row rows[] = {
    SETTING("url", url, "URL", "where Key Requests go, https://HOST/cp3", .required = true),
    SETTING("ca", ca, "FILE", "PEM: the CA of the server's certificate", .required = true),
    SETTING("cert", cert, "FILE", "PEM: our certificate, as enrolled", .required = true),
    SETTING("key", key, "FILE", "PEM: its private key", .required = true),
    SETTING("kek", kek, "FILE", "our KEK in hexadecimal, mode 0600", .required = true),
    SETTING("source", bsa, "ID", "who we are: the BSA's ID", .required = true),
    SETTING("destination", bsm, "ID", "whom we ask: the BSM's ID", .required = true),
    SETTING("media", media, "xml|json", "take deliveries in this encoding only"),
    SETTING("wrap", wrap, "WRAP", "aes-kw or aes-kwp: how TEKs are wrapped for us",
            .standard = "aes-kw"),
    SETTING("form", form, "FORM", "full or efficient: of our Confirmations", .standard = "full"),
    SETTING("out", out, "DIR", "write the clear TEKs there, a file each, mode 0600"),
    SETTING("journal", journal, "FILE", "remember there which deliveries were taken"),
    SETTING("wait", wait, "SECONDS",
            "how long the server may wait for a delivery; 0: end with none", .standard = "30"),
    SETTING("timeout", timeout, "SECONDS", "for an exchange, besides the waiting",
            .standard = "10"),
    SETTING("count", count, "N", "end after N deliveries"),
    SWITCH("once", once, "the same as --count 1"),
    SWITCH("json", json, "print a JSON document a line"),
};
static const struct option_table table = {
    "collect", "Collects Key Deliveries, unwraps the TEKs and confirms them.", rows,
    ARRAY_SIZE(rows)};

/* One run. */
struct collect {
    struct settings settings;
    struct stop *stop;
    struct delivery_rules rules;
    char url[URL_MAX]; /* of deliveries */
    unsigned taken;
    bool failed; /* a delivery was refused, or its Confirmation */
    bool stuck;  /* the last one was not confirmed */
    bool ended;
    struct https_answer http;
    struct delivery delivery; /* under way */
};

static int exit_of(int r)
{
    if (r == TEKD_ECLOSED) /* told to stop */
        return BSA_DONE;
    return r == TEKD_EIO || r == TEKD_EAGAIN ? BSA_UNREACHABLE : BSA_REFUSED;
}

/* ---- one delivery ---------------------------------------------------------------------------- */

/* Its Confirmation, whatever its Status.  A 409 is between the server and this delivery. */
static int confirm(struct collect *c, json_t *doc)
{
    const struct https_request link = settings_link(&c->settings, c->settings.given.url, c->stop);
    struct check_refusal why;
    long status;
    int r = confirm_post(&link, &c->delivery.confirmation, &status, &why);

    if (status != 0)
        report_number(doc, "accepted", status);
    c->stuck = r < 0;
    if (r == 0)
        return BSA_DONE;
    c->failed = true;
    if (r != TEKD_ECLOSED)
        report_complain(&why);
    report_refusal(doc, &why);
    return r == TEKD_EDENIED ? BSA_DONE : exit_of(r);
}

static int take(struct collect *c)
{
    const struct check_subject subject = {.kind = CHECK_COLLECTED,
                                          .terms = &c->rules.terms,
                                          .journal = c->rules.journal,
                                          .status = c->http.status,
                                          .content_type = c->http.content_type,
                                          .body = buf_data(c->http.body),
                                          .body_len = buf_len(c->http.body),
                                          .reason = c->http.reason};
    struct delivery *d = &c->delivery;
    int e = BSA_DONE;
    json_t *doc;

    delivery_take(&c->rules, &subject, d);
    c->stuck = true;
    if (d->error < 0) {
        c->failed = true;
        report_complain(&d->why);
    }
    doc = delivery_describe(d, &c->rules.terms);
    if (d->confirmation.len > 0)
        e = confirm(c, doc);
    else if (d->error == TEKD_EAGAIN || d->error == TEKD_EDENIED)
        e = exit_of(d->error); /* the server did not give one */
    report_line(doc, c->settings.given.json);
    json_decref(doc);
    delivery_clear(d);
    c->taken++;
    return e;
}

/* ---- the run --------------------------------------------------------------------------------- */

/*
 * A server that does not wait is not asked all the time, neither one that gives what cannot be
 * confirmed: it may have nothing else.
 */
static void pause_since(struct collect *c, int64_t begin_us)
{
    if (clock_mono_us() - begin_us < (int64_t)PAUSE_MS * 1000)
        c->ended = stop_wait(c->stop, PAUSE_MS);
}

static int ask(struct collect *c)
{
    struct https_request request = settings_link(&c->settings, c->url, c->stop);
    struct check_refusal why = {.check = "HTTPS"};
    char text[HTTPS_WHY_MAX] = "out of memory";
    int64_t begin_us = clock_mono_us();
    int e = BSA_DONE, r;

    request.timeout_s += c->settings.wait_s;
    buf_reset(c->http.body);
    r = https_get(&request, &c->http, text);
    if (r < 0) {
        check_no_answer(&why, request.url, text);
        if (r != TEKD_ECLOSED)
            report_complain(&why);
        c->ended = true;
        return exit_of(r);
    }
    if (c->http.status != HTTP_NO_CONTENT)
        e = take(c);
    c->ended = c->taken == c->settings.count ||
               (c->http.status == HTTP_NO_CONTENT && c->settings.wait_s == 0);
    if (e == BSA_DONE && !c->ended && (c->stuck || c->http.status == HTTP_NO_CONTENT))
        pause_since(c, begin_us);
    return e;
}

static int make_url(struct collect *c)
{
    int n = snprintf(c->url, sizeof(c->url), "%s/deliveries?wait=%u", c->settings.given.url,
                     c->settings.wait_s);

    if (n < (int)sizeof(c->url))
        return 0;
    complain("--url: expected at most %d octets, found %zu", URL_MAX - 32,
             strlen(c->settings.given.url));
    return TEKD_EINVAL;
}

static int run(struct collect *c)
{
    int e = BSA_DONE;

    if (settings_read_kek(&c->settings) < 0 || stop_new(&c->stop) < 0 ||
        delivery_open(&c->settings, &c->rules) < 0)
        return BSA_REFUSED;
    if (buf_new(HTTPS_BODY_MAX, &c->http.body) < 0) {
        complain("out of memory");
        return BSA_REFUSED;
    }
    while (e == BSA_DONE && !c->ended && !stop_wait(c->stop, 0))
        e = ask(c);
    if (stop_wait(c->stop, 0))
        return BSA_DONE;
    return e == BSA_DONE && c->failed ? BSA_REFUSED : e;
}

int collect_run(int argc, char **argv)
{
    struct collect *c = calloc(1, sizeof(*c));
    int e, r;

    if (c == NULL) {
        complain("out of memory");
        return BSA_REFUSED;
    }
    r = settings_read(&table, argc, argv, &c->settings);
    if (r == 0)
        r = make_url(c);
    if (r < 0)
        e = r == TEKD_ECLOSED ? BSA_DONE : BSA_USAGE;
    else
        e = run(c);
    delivery_close(&c->rules);
    buf_free(c->http.body);
    stop_free(c->stop);
    settings_clear(&c->settings);
    free(c);
    return e;
}
