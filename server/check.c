/*
 * tekd --check: the parts that do not serve yet, a line each of what was found.
 */
#include "tekd.h"

#include <stdio.h>

#include "tekd/err.h"

static void say(const char *what, bool good, const char *detail)
{
    (void)printf("%-10s %-4s %s\n", what, good ? "ok" : "BAD", detail);
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

int check_all(struct tekd *t)
{
    int hsm = check_hsm(t), store;

    if (!t->hsm)
        return hsm;
    store = check_store(t); /* verifies without the token, too */
    if (store != EXIT_OK)
        return store;
    return hsm != EXIT_OK ? hsm : check_keys(t);
}
