#include "tekd.h"

#include <time.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define DAY_S     86400
#define WARN_DAYS 7 /* time to have a CRL or a certificate issued */

/* ---- the HSM went or came back --------------------------------------------------------------- */

static void record_hsm(struct tekd *t, const struct hsm_status *s)
{
    struct record *rec = NULL;
    bool back = s->state == HSM_READY;

    log_event(back ? LOG_INFO : LOG_WARN, "hsm", back ? "back" : "lost",
              LOG_STR("reason", s->reason));
    if (record_new(back ? "hsm.back" : "hsm.lost", &rec) < 0)
        return;
    record_str(rec, "reason", back ? "the workers are ready" : s->reason);
    keys_note(t->keys, rec);
}

/* A key that is wrong or weak on a token that came back ends tekd, as at the start. */
static void bind_again(struct tekd *t)
{
    struct keys_status s;
    int r;

    keys_status_get(t->keys, &s);
    if (s.bound && !t->check_keks)
        return;
    r = keys_bind(t->keys, clock_mono_us() + KEYS_HSM_US);
    if (r == 0)
        t->check_keks = false;
    if (r == TEKD_EWEAK || r == TEKD_ENOTFOUND || r == TEKD_EEXIST || r == TEKD_ETAMPER)
        t->unsafe = true;
}

/* A token that lets a PIN holder wrap TEKs for himself is used, and the log says so. */
static void record_weakness(struct tekd *t, const struct hsm_status *s)
{
    struct record *rec = NULL;

    t->weakness_said = true;
    if (s->prevents_wrap_out || record_new("hsm.weakness", &rec) < 0)
        return;
    log_event(LOG_WARN, "hsm", "weakness", LOG_STR("token", s->token_label),
              LOG_STR("detail", TEKD_WRAP_OUT));
    record_str(rec, "token", s->token_label);
    record_str(rec, "detail", TEKD_WRAP_OUT);
    keys_note(t->keys, rec);
}

/* The certificate is a file that may name any key; with the wrong one every handshake fails. */
static void watch_tls_key(struct tekd *t)
{
    bool fits = false;

    if (!t->tls_spki || t->tls_key_seen || setup_tls_key_fits(t, &fits) < 0)
        return; /* next time */
    t->tls_key_seen = true;
    atomic_store(&t->tls_key_wrong, !fits);
    if (!fits)
        log_event(LOG_ERROR, "tls", "key-in-hsm-of-another-certificate",
                  LOG_STR("certificate", t->config->tls.certificate),
                  LOG_STR("key", t->config->tls.key));
}

static void watch_hsm(struct tekd *t)
{
    struct hsm_status s;

    /* Also a token that went and came back between two looks. */
    if (atomic_exchange(&t->hsm_changed, false)) {
        t->check_keks = true;
        t->tls_key_seen = false;
    }
    hsm_status_get(t->hsm, &s);
    if (s.state != t->hsm_state && s.state != HSM_STARTING) {
        if (t->hsm_state != HSM_STARTING || s.state != HSM_READY)
            record_hsm(t, &s);
        t->hsm_state = s.state;
    }
    if (s.state == HSM_READY && !t->weakness_said)
        record_weakness(t, &s);
    if (s.state == HSM_READY) {
        bind_again(t);
        watch_tls_key(t);
    }
    /* The workers' part of the attacks succeeded, or a signing key is weak. */
    if (s.state == HSM_DOWN && s.error == TEKD_EWEAK)
        t->unsafe = true;
}

/* ---- what runs out --------------------------------------------------------------------------- */

static void warn_of_end(const char *event, int64_t end_s, int64_t within_s)
{
    int64_t left = end_s - clock_utc_us() / 1000000;

    if (end_s != 0 && left < within_s)
        log_event(left < 0 ? LOG_ERROR : LOG_WARN, "tls", event, LOG_INT("seconds_left", left));
}

/* A clock that is behind, most often. */
static void warn_of_start(const char *event, int64_t start_s)
{
    int64_t left = start_s - clock_utc_us() / 1000000;

    if (left > 0)
        log_event(LOG_ERROR, "tls", event, LOG_INT("seconds_left", left));
}

/* Once an hour, and in the first second. */
static void watch_certificates(struct tekd *t)
{
    const int64_t within_s = (int64_t)WARN_DAYS * DAY_S;
    struct http_status s;

    if (clock_mono_us() < t->certificates_next_us)
        return;
    t->certificates_next_us = clock_mono_us() + (int64_t)3600 * 1000000;
    http_status_get(t->http, &s);
    warn_of_start("crl-not-yet-valid", s.ends.crl_this_update_s);
    warn_of_start("certificate-not-yet-valid", s.ends.certificate_not_before_s);
    warn_of_end("crl-expires", s.ends.crl_next_update_s, within_s);
    warn_of_end("certificate-expires", s.ends.certificate_not_after_s, within_s);
}

void watch_tick(struct tekd *t)
{
    watch_hsm(t);
    keys_tick(t->keys);
    watch_certificates(t);
}
