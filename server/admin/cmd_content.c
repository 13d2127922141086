#include "internal.h"

#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"

/* ---- contents -------------------------------------------------------------------------------- */

/* Of a period for which nothing else is said: a tenth, at most ten minutes. */
static int64_t default_lead_s(int64_t period_s)
{
    return period_s / 10 < 600 ? period_s / 10 : 600;
}

static int read_epoch(struct admin_call *call, struct keys_content_add *c)
{
    const char *text = admin_arg_str_or(call, "epoch", NULL);
    struct cp3_time t;

    if (!text)
        return 0;
    /* Without a "T" it would be read as seconds of NTP. */
    if (!strchr(text, 'T') || cp3_time_read(text, strlen(text), &t) < 0)
        return admin_fail_call(call, TEKD_EINVAL,
                               "epoch: expected a time as 2026-01-01T00:00:00Z, found \"%.60s\"",
                               text);
    c->epoch_utc_us = t.seconds * 1000000 + t.nanoseconds / 1000;
    c->set_epoch = true;
    return 0;
}

int admin_content_add(struct admin_call *call)
{
    struct keys_content_add c = {.period_s = admin_arg_int_or(call, "period", 0)};
    int64_t bits = admin_arg_int_or(call, "bits", call->admin->o.default_bits);
    int r = 0;

    c.id = admin_arg_str(call, "content", &r);
    c.lead_s = admin_arg_int_or(call, "lead", default_lead_s(c.period_s));
    /* What is no number of bits is refused, with what is expected. */
    c.bits = bits < 0 || bits > 65535 ? 0 : (unsigned)bits;
    if (r == 0)
        r = read_epoch(call, &c);
    return r < 0 ? r : keys_content_add(call->admin->o.keys, &call->actor, &c, &call->err);
}

static json_t *content_json(const struct store_content *c)
{
    return json_pack("{s:s,s:i,s:I,s:I,s:o,s:o,s:b}", "content_id", c->id, "bits", (int)c->bits,
                     "period_s", (json_int_t)c->period_s, "lead_s", (json_int_t)c->lead_s, "epoch",
                     c->period_s ? admin_utc(c->epoch_utc_us) : json_null(), "created",
                     admin_time(c->created_us), "by_request", c->created_by != 0);
}

static int add_content(void *arg, const struct store_content *c)
{
    struct admin_page *p = arg;

    p->last = c->row;
    p->n++;
    return json_array_append_new(p->list, content_json(c)) < 0 ? TEKD_ENOMEM : 0;
}

static int read_contents(void *arg, struct store_tx *tx)
{
    struct admin_page *p = arg;
    const struct store_walk w = {.after = p->last, .limit = ADMIN_PAGE_ROWS, .arg = p};

    return store_tx_content_walk(tx, &w, add_content);
}

int admin_content_list(struct admin_call *call)
{
    struct admin_page p = {.list = json_array(), .last = admin_arg_int_or(call, "after", 0)};
    int r = store_call(call->admin->o.store, STORE_READ, read_contents, &p);

    if (r == 0)
        r = admin_page_result(call, &p);
    json_decref(p.list);
    return r;
}

/* ---- TEKs ------------------------------------------------------------------------------------ */

static json_t *tek_json(const struct store_tek *t)
{
    char id[ENC_UUID_LEN + 1];

    enc_uuid(t->key_id, id);
    return json_pack("{s:s,s:I,s:i,s:i,s:o,s:b}", "key_id", id, "period", (json_int_t)t->period,
                     "version", (int)t->version, "bits", (int)t->bits, "created",
                     admin_time(t->created_us), "destroyed", t->destroyed);
}

struct teks {
    struct admin_page page;
    int64_t content;
};

static int add_tek(void *arg, const struct store_tek *t)
{
    struct teks *x = arg;

    x->page.last = t->row;
    x->page.n++;
    return json_array_append_new(x->page.list, tek_json(t)) < 0 ? TEKD_ENOMEM : 0;
}

static int read_teks(void *arg, struct store_tx *tx)
{
    struct teks *x = arg;
    const struct store_walk w = {.after = x->page.last, .limit = ADMIN_PAGE_ROWS, .arg = x};

    return store_tx_tek_walk(tx, x->content, &w, add_tek);
}

struct lookup {
    const char *id;
    struct store_content content;
};

static int find(void *arg, struct store_tx *tx)
{
    struct lookup *l = arg;

    return store_tx_content_find(tx, l->id, strlen(l->id), &l->content);
}

/* The content that the call names. */
static int find_content(struct admin_call *call, struct lookup *l)
{
    int r = 0;

    l->id = admin_arg_str(call, "content", &r);
    if (r == 0)
        r = store_call(call->admin->o.store, STORE_READ, find, l);
    if (r == TEKD_ENOTFOUND)
        return admin_fail_call(call, r, "\"%.300s\": no such content", l->id);
    return r;
}

/* One content may have very many: one for each crypto-period that there was. */
int admin_key_list(struct admin_call *call)
{
    struct lookup l = {.id = NULL};
    struct teks x = {.page = {.last = admin_arg_int_or(call, "after", 0)}};
    int r = find_content(call, &l);

    if (r < 0)
        return r;
    x.content = l.content.row;
    x.page.list = json_array();
    r = store_call(call->admin->o.store, STORE_READ, read_teks, &x);
    if (r == TEKD_ENOTFOUND)
        r = admin_fail_call(call, TEKD_EINVAL, "\"after\": \"%.300s\" has no such TEK", l.id);
    if (r == 0)
        r = admin_page_result(call, &x.page);
    json_decref(x.page.list);
    return r;
}

/* Without its TEKs: those are what "key list" is for. */
int admin_content_show(struct admin_call *call)
{
    struct lookup l = {.id = NULL};
    int r = find_content(call, &l);

    if (r < 0)
        return r;
    call->result = content_json(&l.content);
    return call->result ? 0 : TEKD_ENOMEM;
}

int admin_key_rotate(struct admin_call *call)
{
    uint8_t key_id[16];
    char text[ENC_UUID_LEN + 1];
    int r = 0;
    const char *id = admin_arg_str(call, "content", &r);

    if (r == 0)
        r = keys_rotate(call->admin->o.keys, &call->actor, id, key_id, &call->err);
    if (r < 0)
        return r;
    enc_uuid(key_id, text);
    call->result = json_pack("{s:s}", "key_id", text);
    return call->result ? 0 : TEKD_ENOMEM;
}

int admin_key_destroy(struct admin_call *call)
{
    uint8_t key_id[16];
    int r = 0;
    const char *id = admin_arg_str(call, "key", &r);

    if (r < 0)
        return r;
    if (enc_uuid_read(id, strlen(id), key_id) < 0)
        return admin_fail_call(call, TEKD_EINVAL, "\"%.60s\" is no key ID (a UUID)", id);
    return keys_destroy(call->admin->o.keys, &call->actor, key_id, &call->err);
}
