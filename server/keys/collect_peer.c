/*
 * Who asks for its deliveries.  Nothing here waits, so that the loop that read the question may
 * ask.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"

void peer_refuse_stranger(struct keys *k, const struct keys_asker *a, const struct bsa_state *s,
                          struct keys_reply *ret_reply)
{
    char fingerprint[ENC_HEX_LEN(32) + 1];
    const struct refusal what = {.event = "request.refused",
                                 .who = s ? s->row->id : fingerprint,
                                 .peer = s ? s->row->id : NULL,
                                 .reason = s ? "disabled" : "not-enrolled",
                                 .addr = a->addr,
                                 .cert = a->cert_sha256};
    const struct reply_problem problem = {.status = 403,
                                          .title = "this certificate is not enrolled",
                                          .detail = s ? "the BSA is disabled" : NULL};

    enc_hex(a->cert_sha256, 32, fingerprint);
    atomic_fetch_add(&k->refused, 1);
    keys_record_refusal(k, &what, LIMIT_REFUSED_PER_MINUTE);
    reply_problem(&problem, ret_reply);
    ret_reply->close = true;
}

int keys_collector(struct keys *k, const struct keys_asker *a, struct keys_collector *ret_collector,
                   struct keys_reply *ret_reply)
{
    AUTO_BSA struct bsa_state *s = registry_by_cert(k->registry, a->cert_sha256);

    if (!s || s->row->row == 0 || !s->row->enabled) {
        peer_refuse_stranger(k, a, s, ret_reply);
        return TEKD_EDENIED;
    }
    ret_collector->row = s->row->row;
    memcpy(ret_collector->id, s->row->id, sizeof(ret_collector->id));
    return 0;
}

void keys_collect_malformed(struct keys *k, const struct keys_asker *a,
                            const struct keys_collector *c, const char *detail,
                            struct keys_reply *ret_reply)
{
    const struct reply_problem problem = {
        .status = 400, .title = "not a question for deliveries", .detail = detail};
    const struct refusal what = {.event = "request.refused",
                                 .who = c->id,
                                 .peer = c->id,
                                 .reason = cp3_reason_name(CP3_REASON_MALFORMED),
                                 .addr = a->addr,
                                 .cert = a->cert_sha256};

    atomic_fetch_add(&k->refused, 1);
    keys_record_refusal(k, &what, LIMIT_REFUSED_PER_MINUTE);
    reply_problem(&problem, ret_reply);
}

int keys_bsa_id(struct keys *k, int64_t row, char ret_id[static STORE_ID_MAX + 1])
{
    AUTO_BSA struct bsa_state *s = registry_by_row(k->registry, row);

    if (!s)
        return TEKD_ENOTFOUND;
    memcpy(ret_id, s->row->id, sizeof(s->row->id));
    return 0;
}
