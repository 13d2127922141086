/*
 * tekd --check: the parts that do not serve yet, a line each of what was found.
 */
#include "tekd.h"

#include <stdio.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

static void say(const char *what, bool good, const char *detail)
{
    (void)printf("%-10s %-4s %s\n", what, good ? "ok" : "BAD", detail);
}

/* One that ends before it is used: no BSA takes the certificate, or none is let in by the CRL. */
static bool is_over(int64_t end_s)
{
    return end_s != 0 && end_s <= clock_utc_us() / 1000000;
}

static int check_tls(struct tekd *t)
{
    char text[HSM_TEXT_MAX], end[2][ENC_TIME_LEN + 1] = {"", ""};
    struct http_ends e;
    int r = setup_check_tls(t, &e);
    bool good;

    if (r < 0) {
        say("tls", false, "see the log above");
        return EXIT_FAILED;
    }
    enc_time(e.certificate_not_after_s * 1000000, end[0]);
    if (e.crl_next_update_s != 0)
        enc_time(e.crl_next_update_s * 1000000, end[1]);
    good = !is_over(e.certificate_not_after_s) && !is_over(e.crl_next_update_s);
    (void)snprintf(text, sizeof(text), "certificate until %s, %s%s", end[0],
                   t->config->tls.crl ? "CRL until " : "no CRL",
                   t->config->tls.crl && end[1][0] == 0 ? "replaced" : end[1]);
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

static int check_store(struct tekd *t)
{
    char text[HSM_TEXT_MAX];
    struct store_status s;
    int r = setup_store(t);

    if (r < 0) {
        say("store", false, tekd_strerror(r));
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
    r = check_store(t);
    if (r == EXIT_OK)
        r = hsm != EXIT_OK ? hsm : check_keys(t);
    return r == EXIT_OK ? tls : r;
}
