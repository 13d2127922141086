/*
 * tekd --check: the parts that do not serve yet, a line each of what was found.
 */
#include "tekd.h"

#include <stdio.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define VALID_TEXT (sizeof("not before ") + ENC_TIME_LEN)

static void say(const char *what, bool good, const char *detail)
{
    (void)printf("%-10s %-4s %s\n", what, good ? "ok" : "BAD", detail);
}

/* Whether it is valid now, and in text until when, or from when on; no end: it never ends. */
static bool is_valid(int64_t from_s, int64_t until_s, char text[static VALID_TEXT])
{
    const int64_t now_s = clock_utc_us() / 1000000;
    const char *word = now_s < from_s ? "not before" : "until";
    char time[ENC_TIME_LEN + 1] = "replaced";

    if (now_s < from_s || until_s != 0)
        enc_time((now_s < from_s ? from_s : until_s) * 1000000, time);
    (void)snprintf(text, VALID_TEXT, "%s %s", word, time);
    return now_s >= from_s && (until_s == 0 || now_s < until_s);
}

/* With another certificate no BSA would talk to it, with another CRL it would to no BSA. */
static int check_tls(struct tekd *t)
{
    char text[HSM_TEXT_MAX], certificate[VALID_TEXT], crl[VALID_TEXT];
    struct http_ends e;
    bool good;

    if (setup_check_tls(t, &e) < 0) {
        say("tls", false, "see the log above");
        return EXIT_FAILED;
    }
    good = is_valid(e.certificate_not_before_s, e.certificate_not_after_s, certificate);
    good = is_valid(e.crl_this_update_s, e.crl_next_update_s, crl) && good;
    (void)snprintf(text, sizeof(text), "certificate %s, %s%s", certificate,
                   t->config->tls.crl ? "CRL " : "no CRL", t->config->tls.crl ? crl : "");
    say("tls", good, text);
    return good ? EXIT_OK : EXIT_FAILED;
}

static int check_hsm(struct tekd *t)
{
    char text[HSM_TEXT_MAX * 5] = "";
    struct hsm_status s;

    if (setup_hsm(t) < 0)
        return EXIT_FAILED;
    hsm_status_get(t->hsm, &s);
    (void)snprintf(text, sizeof(text), "%s (%s, serial %s) %s", s.token_label, s.token_model,
                   s.token_serial, s.reason);
    say("token", s.state == HSM_READY, text);
    if (s.state == HSM_READY && !s.prevents_wrap_out)
        say("token", true, "note: " TEKD_WRAP_OUT);
    if (s.state == HSM_READY)
        return EXIT_OK;
    return status_hsm_refused(&s) ? EXIT_FAILED : EXIT_NO_HSM;
}

/* The log has the details of the others. */
static void say_store_error(int r)
{
    char text[HSM_TEXT_MAX];

    (void)snprintf(text, sizeof(text), "%s; see the log above", tekd_strerror(r));
    say("store", false,
        r == TEKD_EEXIST ? "another tekd has the database open: stop that one first" : text);
}

/* The certificate was read before, the token answers now. */
static int check_tls_key(struct tekd *t)
{
    bool fits = false;
    int r;

    if (!t->tls_spki)
        return EXIT_OK;
    r = setup_tls_key_fits(t, &fits);
    if (r < 0 || !fits)
        say("tls", false, r < 0 ? tekd_strerror(r) : TEKD_TLS_KEY_WRONG);
    return r < 0 || !fits ? EXIT_FAILED : EXIT_OK;
}

static int check_store(struct tekd *t)
{
    char text[HSM_TEXT_MAX];
    struct store_status s;
    int r = setup_store(t);

    if (r < 0) {
        say_store_error(r);
        return status_of(r);
    }
    store_status_get(t->store, &s);
    (void)snprintf(text, sizeof(text), "%llu records, %llu under a signed checkpoint",
                   (unsigned long long)s.records, (unsigned long long)s.signed_size);
    say("store", true, text);
    return EXIT_OK;
}

static int check_keys(struct tekd *t)
{
    int r = setup_keys(t);

    say("keys", r == 0, r == 0 ? "the storage KEK and the BSAs' KEKs agree" : tekd_strerror(r));
    return r < 0 ? EXIT_FAILED : EXIT_OK;
}

/* The log is verified without the token, too. */
int check_all(struct tekd *t)
{
    int tls = check_tls(t), hsm = check_hsm(t), r;

    if (!t->hsm)
        return hsm;
    if (hsm == EXIT_OK && check_tls_key(t) != EXIT_OK)
        tls = EXIT_FAILED;
    r = check_store(t);
    if (r == EXIT_OK)
        r = hsm != EXIT_OK ? hsm : check_keys(t);
    return r == EXIT_OK ? tls : r;
}
