#include "internal.h"

#include <fcntl.h>
#include <string.h>

#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/secret.h"

static const char *const states[] = {[HSM_STARTING] = "starting",
                                     [HSM_READY] = "ready",
                                     [HSM_DOWN] = "down",
                                     [HSM_PIN_REFUSED] = "pin-refused"};

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/*
 * What a module says, and a path, need not be UTF-8, and a reason that quotes them may have been
 * cut within a character.  JSON takes UTF-8 only: what is none is shown as far as it is ASCII.
 */
static json_t *any_text(const char *s)
{
    json_t *text = json_string(s);
    AUTO_MEM char *ascii = NULL;

    if (text)
        return text;
    ascii = strdup(s);
    for (char *c = ascii; c && *c; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    return json_string(ascii ? ascii : "?");
}

/* ---- status ---------------------------------------------------------------------------------- */

/* null: none is configured. */
static json_t *anchor_part(const struct store_status *s)
{
    int64_t age_s = (clock_utc_us() - s->anchor_utc_us) / 1000000;

    if (!s->anchor_file)
        return json_null();
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:b}", "file", any_text(s->anchor_file), "epoch",
                     number(s->anchor_epoch), "size", number(s->anchor_size), "written",
                     admin_time(s->anchor_utc_us), "age_s",
                     s->anchor_utc_us ? json_integer(age_s > 0 ? age_s : 0) : json_null(), "beyond",
                     number(s->anchor_beyond), "failing", s->anchor_failing);
}

/* Key ids of the newest checkpoint's lines. */
static json_t *signers_part(const struct store_status *s)
{
    json_t *ids = json_array();
    char hex[ENC_HEX_LEN(sizeof(s->signer[0])) + 1];

    for (size_t i = 0; i < s->n_signers; i++) {
        enc_hex(s->signer[i], sizeof(s->signer[i]), hex);
        (void)json_array_append_new(ids, json_string(hex));
    }
    return ids;
}

/* Those of them that sign only until a setting is taken out: key id and setting. */
static json_t *signers_before_part(const struct store_status *s)
{
    static const char *const settings[STORE_KEYS + 1] = {
        [STORE_KEY_BEFORE] = "hsm.checkpoint_key_before",
        [STORE_KEY_ED25519_BEFORE] = "hsm.checkpoint_ed25519_key_before",
    };
    json_t *keys = json_array();
    char hex[ENC_HEX_LEN(sizeof(s->signer[0])) + 1];

    for (size_t i = 0; i < s->n_signers; i++) {
        const char *setting = settings[s->signer_key[i]];

        if (!setting)
            continue;
        enc_hex(s->signer[i], sizeof(s->signer[i]), hex);
        (void)json_array_append_new(keys, json_pack("{s:s,s:s}", "key", hex, "setting", setting));
    }
    return keys;
}

static json_t *store_part(struct admin *a)
{
    struct store_status s;

    store_status_get(a->o.store, &s);
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "epoch",
                     number(s.epoch), "signers", signers_part(&s), "signers_before",
                     signers_before_part(&s), "epoch_began", admin_time(s.epoch_utc_us), "records",
                     number(s.records), "signed", number(s.signed_size), "checkpoint_time",
                     admin_time(s.checkpoint_utc_us), "anchor", anchor_part(&s), "batches",
                     number(s.batches), "losers", number(s.losers), "rehashed", number(s.rehashed),
                     "database_octets", number(s.db_octets), "free_octets", number(s.free_octets),
                     "reason", any_text(s.reason));
}

/* One of each publisher that is configured. */
static json_t *published_part(struct admin *a)
{
    struct publish_status s[PUBLISH_MAX];
    size_t n = publish_status_get(a->o.publish, s);
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(
            list,
            json_pack("{s:s,s:o,s:o,s:o,s:o,s:b,s:o,s:o,s:o}", "by", s[i].name, "to",
                      any_text(s[i].to), "epoch", number(s[i].epoch), "size", number(s[i].size),
                      "published", admin_time(s[i].published_utc_us), "failing", s[i].failures > 0,
                      "failures", number(s[i].failures), "failing_since",
                      admin_time(s[i].failing_utc_us), "reason", any_text(s[i].why)));
    return list;
}

static int count(void *arg, struct store_tx *tx)
{
    return store_tx_counts(tx, arg);
}

static json_t *counts_part(struct admin *a)
{
    struct store_counts c = {.bsas = 0};

    if (store_call(a->o.store, STORE_READ, count, &c) < 0)
        return json_null();
    return json_pack("{s:o,s:o,s:o,s:o}", "bsas", number(c.bsas), "contents", number(c.contents),
                     "teks", number(c.teks), "messages", number(c.messages));
}

static json_t *keys_part(struct admin *a)
{
    struct keys_status s;

    keys_status_get(a->o.keys, &s);
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:b,s:o}", "answered", number(s.answered),
                     "refused", number(s.refused), "repeated", number(s.repeated), "busy",
                     number(s.busy), "failed", number(s.failed), "tek_hits", number(s.tek_hits),
                     "tek_misses", number(s.tek_misses), "bound", s.bound, "reason",
                     any_text(s.reason));
}

static json_t *http_part(struct admin *a)
{
    struct http_status s;

    http_status_get(a->o.http, &s);
    return json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "connections", number(s.connections), "accepted",
        number(s.accepted), "handshakes_failed", number(s.handshakes_failed), "requests",
        number(s.requests), "replies", number(s.replies), "dropped", number(s.dropped), "timed_out",
        number(s.timed_out), "crl_next_update", admin_time(s.ends.crl_next_update_s * 1000000),
        "certificate_not_after", admin_time(s.ends.certificate_not_after_s * 1000000));
}

static json_t *states_json(const uint64_t count[static STORE_DELIVERY_STATES])
{
    json_t *o = json_object();

    for (int i = 0; i < STORE_DELIVERY_STATES; i++)
        (void)json_object_set_new(o, store_delivery_state_name((enum store_delivery_state)i),
                                  number(count[i]));
    return o;
}

/* How many there are in each state; attempts and what came of them since the start. */
static json_t *deliveries_part(struct admin *a)
{
    struct push_status s;
    uint64_t open = 0;

    if (push_status_get(a->o.push, &s) < 0)
        return json_null();
    for (int i = 0; i < STORE_DELIVERY_STATES; i++)
        open += store_delivery_is_open((enum store_delivery_state)i) ? s.count[i] : 0;
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "open", number(open),
                     "oldest_open", admin_time(s.oldest_open_us), "states", states_json(s.count),
                     "under_way", number(s.under_way), "attempts", number(s.attempts), "confirmed",
                     number(s.confirmed), "rejected", number(s.rejected), "failed",
                     number(s.failed), "fanouts", number(s.fanouts), "late_periods",
                     number((uint64_t)s.late_periods));
}

static json_t *hsm_part(struct admin *a)
{
    struct hsm_status s;

    hsm_status_get(a->o.hsm, &s);
    return json_pack("{s:s,s:o,s:o,s:o,s:o,s:b}", "state", states[s.state], "token",
                     any_text(s.token_label), "model", any_text(s.token_model), "serial",
                     any_text(s.token_serial), "reason", any_text(s.reason), "prevents_wrap_out",
                     s.prevents_wrap_out);
}

int admin_status(struct admin_call *call)
{
    struct admin *a = call->admin;
    char reason[HSM_TEXT_MAX] = "";
    bool ready = a->o.ready(a->o.ready_arg, reason) == 0;

    call->result = json_pack("{s:s,s:s,s:s,s:o,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "version",
                             a->version, "bsm_id", a->bsm_id, "instance", a->instance, "started",
                             admin_time(a->started_utc_us), "ready", ready, "reason",
                             any_text(reason), "hsm", hsm_part(a), "store", store_part(a),
                             "published", published_part(a), "counts", counts_part(a), "keys",
                             keys_part(a), "deliveries", deliveries_part(a), "http", http_part(a));
    return call->result ? 0 : TEKD_ENOMEM;
}

/* ---- hsm ------------------------------------------------------------------------------------- */

int admin_hsm_status(struct admin_call *call)
{
    AUTO_JSON json_t *workers = json_array();
    AUTO_JSON json_t *doc = hsm_part(call->admin);
    struct hsm_status s;

    hsm_status_get(call->admin->o.hsm, &s);
    for (size_t i = 0; i < s.n_workers; i++) {
        const struct hsm_worker_status *w = &s.worker[i];
        (void)json_array_append_new(
            workers, json_pack("{s:s,s:i,s:b,s:o,s:o,s:o}", "role", w->role, "pid", w->pid, "ready",
                               w->ready, "calls", number(w->calls), "failures", number(w->failures),
                               "restarts", number(w->restarts)));
    }
    if (!doc || json_object_set(doc, "workers", workers) < 0)
        return TEKD_ENOMEM;
    call->result = TAKE(doc);
    return 0;
}

struct retried {
    struct record *record;
};

static int apply_retried(void *arg, struct store_tx *tx)
{
    struct retried *x = arg;

    return store_tx_record(tx, TAKE(x->record), NULL);
}

static int record_retry(struct admin_call *call)
{
    AUTO(record) struct record *rec = NULL;
    struct retried x;
    int r = record_new("admin.action", &rec);

    if (r < 0)
        return r;
    record_str(rec, "actor", call->actor.name);
    record_int(rec, "uid", call->actor.uid);
    record_str(rec, "action", "hsm retry");
    record_str(rec, "detail", "");
    x.record = TAKE(rec);
    r = store_call(call->admin->o.store, STORE_DURABLE, apply_retried, &x);
    record_free(x.record);
    return r;
}

/* A PIN comes only when its source was a prompt or a descriptor: by a pipe that tekctl passes. */
int admin_hsm_retry(struct admin_call *call)
{
    AUTO(secret) struct secret *pin = NULL;
    int r = 0;

    if (call->passed_fd >= 0) {
        /* All of it is in the pipe by now; one that somebody keeps open is not waited for. */
        (void)fcntl(call->passed_fd, F_SETFL, O_NONBLOCK);
        r = secret_read_fd(call->passed_fd, &pin);
    }
    if (r < 0)
        return admin_fail_call(call, r, "the PIN could not be read");
    r = record_retry(call);
    if (r < 0)
        return r;
    r = hsm_retry(call->admin->o.hsm, pin);
    return r < 0
               ? admin_fail_call(call, r, "the HSM workers were not started: %s", tekd_strerror(r))
               : 0;
}
