/*
 * Alive and ready are two things: tekd is alive while it answers at all; it is ready while it could
 * give a key, and says in words why not.
 */
#include "tekd.h"

#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

static const char *const hsm_states[] = {[HSM_STARTING] = "the HSM workers are starting",
                                         [HSM_READY] = "ready",
                                         [HSM_DOWN] = "the HSM does not answer",
                                         [HSM_PIN_REFUSED] = "the HSM refused the PIN"};

static int hsm_ready(struct tekd *t, char reason[static HSM_TEXT_MAX])
{
    struct hsm_status s;

    hsm_status_get(t->hsm, &s);
    if (s.state == HSM_READY)
        return 0;
    (void)snprintf(reason, HSM_TEXT_MAX, "%s%s%.100s", hsm_states[s.state], s.reason[0] ? ": " : "",
                   s.reason);
    return TEKD_EHSM;
}

static int keys_ready(struct tekd *t, char reason[static HSM_TEXT_MAX])
{
    struct keys_status s;

    keys_status_get(t->keys, &s);
    if (s.bound)
        return 0;
    (void)snprintf(reason, HSM_TEXT_MAX, "the KEKs are not bound: %.150s", s.reason);
    return TEKD_EHSM;
}

static int tls_key_ready(struct tekd *t, char reason[static HSM_TEXT_MAX])
{
    if (!atomic_load(&t->tls_key_wrong))
        return 0;
    (void)snprintf(reason, HSM_TEXT_MAX, "%s", TEKD_TLS_KEY_WRONG);
    return TEKD_EINVAL;
}

/* OpenSSL refuses until and from the very second on, by the same clock. */
static int crl_ready(struct tekd *t, char reason[static HSM_TEXT_MAX])
{
    const int64_t now_s = clock_utc_us() / 1000000;
    char time[ENC_TIME_LEN + 1];
    const char *what;
    struct http_status s;

    http_status_get(t->http, &s);
    if (now_s < s.ends.crl_this_update_s) {
        what = "is not valid before";
        enc_time(s.ends.crl_this_update_s * 1000000, time);
    } else if (s.ends.crl_next_update_s != 0 && now_s >= s.ends.crl_next_update_s) {
        what = "expired at";
        enc_time(s.ends.crl_next_update_s * 1000000, time);
    } else {
        return 0;
    }
    (void)snprintf(reason, HSM_TEXT_MAX, "the CRL %s %s and BSAs are refused: %.100s", what, time,
                   t->config->tls.crl);
    return TEKD_EINVAL;
}

int probe_ready(void *tekd, char reason[static HSM_TEXT_MAX])
{
    struct tekd *t = tekd;
    int r = hsm_ready(t, reason);

    if (r == 0)
        r = store_ready(t->store, reason);
    if (r == 0)
        r = keys_ready(t, reason);
    if (r == 0)
        r = crl_ready(t, reason);
    if (r == 0)
        r = tls_key_ready(t, reason);
    return r;
}

int probe_get(void *tekd, const char *path, struct buf *body)
{
    char reason[HSM_TEXT_MAX] = "";

    if (strcmp(path, "/healthz") == 0)
        return buf_puts(body, "alive\n") < 0 ? 500 : 200;
    if (strcmp(path, "/readyz") != 0)
        return buf_puts(body, "paths: /healthz /readyz\n") < 0 ? 500 : 404;
    if (probe_ready(tekd, reason) == 0)
        return buf_puts(body, "ready\n") < 0 ? 500 : 200;
    (void)buf_printf(body, "not ready: %s\n", reason);
    return 503;
}
