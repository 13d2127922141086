/*
 * deliver, delivery list, show, retry and abandon.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

/* ---- what an operator does ------------------------------------------------------------------- */

static int add_message_id(void *arg, const char *mid, const char *bsa_id)
{
    json_t *list = arg;

    (void)bsa_id;
    return json_array_append_new(list, json_string(mid)) < 0 ? TEKD_ENOMEM : 0;
}

/* The strings of an array, borrowed; the array is the caller's. */
static int borrow_strings(const json_t *list, const char ***ret, size_t *ret_n)
{
    size_t n = json_array_size(list);
    const char **text = calloc(n + 1, sizeof(*text));

    if (!text)
        return TEKD_ENOMEM;
    for (size_t i = 0; i < n; i++)
        text[i] = json_string_value(json_array_get(list, i));
    *ret = text;
    *ret_n = n;
    return 0;
}

int admin_deliver(struct admin_call *call)
{
    AUTO_JSON json_t *list = json_array();
    AUTO_MEM const char **bsa_ids = NULL;
    struct keys_delivery_order o = {
        .deadline_s = call->admin->o.delivery_deadline_s, .arg = list, .each = add_message_id};
    int r = 0;

    o.content_id = admin_arg_str(call, "content", &r);
    if (r == 0)
        r = borrow_strings(json_object_get(call->args, "bsas"), &bsa_ids, &o.n);
    if (r < 0)
        return r;
    o.bsa_ids = bsa_ids;
    r = keys_deliver(call->admin->o.keys, &call->actor, &o, &call->err);
    if (r == 0 || json_array_size(list) > 0) /* what is prepared is said, too, if not all are */
        call->result = TAKE(list);
    return r;
}

struct owner {
    const char *mid;
    int64_t bsa;
};

static int find_owner(void *arg, struct store_tx *tx)
{
    struct owner *o = arg;
    struct store_delivery d;
    int r = store_tx_delivery_find(tx, o->mid, strlen(o->mid), &d);

    if (r == 0)
        o->bsa = d.bsa;
    return r;
}

/* At once: also when its BSA was away and is not tried for a while. */
int admin_delivery_retry(struct admin_call *call)
{
    struct owner o = {.bsa = 0};
    int r = 0;

    o.mid = admin_arg_str(call, "message", &r);
    if (r == 0)
        r = keys_delivery_retry(call->admin->o.keys, &call->actor, o.mid,
                                call->admin->o.delivery_deadline_s, &call->err);
    if (r == 0)
        r = store_call(call->admin->o.store, STORE_READ, find_owner, &o);
    if (r == 0)
        push_hurry(call->admin->o.push, o.bsa);
    return r;
}

int admin_delivery_abandon(struct admin_call *call)
{
    int r = 0;
    const char *mid = admin_arg_str(call, "message", &r);
    const char *reason = r < 0 ? NULL : admin_arg_str(call, "reason", &r);

    return r < 0
               ? r
               : keys_delivery_abandon(call->admin->o.keys, &call->actor, mid, reason, &call->err);
}

/* ---- one delivery as JSON -------------------------------------------------------------------- */

/* What the rows of a list have in common is looked up once: a rotation is one content and TEK. */
struct look {
    struct keys *keys;
    int64_t now_us;
    struct store_content content; /* row 0: none yet */
    struct store_tek tek;
    char bsa[STORE_ID_MAX + 1];
};

static int look_up(struct look *l, struct store_tx *tx, const struct store_delivery *d)
{
    int r = 0;

    if (l->content.row != d->content)
        r = store_tx_content_get(tx, d->content, &l->content);
    if (r == 0 && l->tek.row != d->tek)
        r = store_tx_tek_get(tx, d->tek, &l->tek);
    return r < 0 ? r : keys_bsa_id(l->keys, d->bsa, l->bsa);
}

static json_t *delivery_json(const struct look *l, const struct store_delivery *d)
{
    bool open = store_delivery_is_open(d->state);
    char key_id[ENC_UUID_LEN + 1];

    enc_uuid(l->tek.key_id, key_id);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:o,s:o,s:o,s:o}", "message_id", d->mid, "bsa",
                     l->bsa, "content_id", l->content.id, "key_id", key_id, "state",
                     store_delivery_state_name(d->state), "attempts", (json_int_t)d->attempts,
                     "age_s", (json_int_t)((l->now_us - d->created_us) / 1000000), "created",
                     admin_time(d->created_us), "next", open ? admin_time(d->next_us) : json_null(),
                     "deadline", admin_time(d->deadline_us), "last_error",
                     d->why[0] ? json_string(d->why) : json_null());
}

/* ---- a list ---------------------------------------------------------------------------------- */

struct deliveries {
    struct admin_page page;
    struct store_tx *tx; /* while a page is read */
    struct look look;
    bool pending;
};

static int add_delivery(void *arg, const struct store_delivery *d)
{
    struct deliveries *x = arg;
    int r = look_up(&x->look, x->tx, d);

    if (r < 0)
        return r;
    x->page.last = d->row;
    x->page.n++;
    return json_array_append_new(x->page.list, delivery_json(&x->look, d)) < 0 ? TEKD_ENOMEM : 0;
}

static int read_deliveries(void *arg, struct store_tx *tx)
{
    struct deliveries *x = arg;
    const struct store_walk w = {.after = x->page.last, .limit = ADMIN_PAGE_ROWS, .arg = x};

    x->tx = tx;
    return x->pending ? store_tx_delivery_walk_open(tx, &w, add_delivery)
                      : store_tx_delivery_walk(tx, &w, add_delivery);
}

int admin_delivery_list(struct admin_call *call)
{
    struct deliveries x = {
        .page = {.list = json_array(), .last = admin_arg_int_or(call, "after", 0)},
        .look = {.keys = call->admin->o.keys, .now_us = clock_utc_us()},
        .pending = json_is_true(json_object_get(call->args, "pending")),
    };
    int r = store_call(call->admin->o.store, STORE_READ, read_deliveries, &x);

    if (r == 0)
        r = admin_page_result(call, &x.page);
    json_decref(x.page.list);
    return r;
}

/* ---- one, with its history ------------------------------------------------------------------- */

struct lookup {
    const char *mid;
    struct look look;
    struct store_delivery row;
    struct store_kek kek;
};

static int find(void *arg, struct store_tx *tx)
{
    struct lookup *l = arg;
    int r = store_tx_delivery_find(tx, l->mid, strlen(l->mid), &l->row);

    if (r == 0)
        r = store_tx_kek_get(tx, l->row.kek, &l->kek);
    return r < 0 ? r : look_up(&l->look, tx, &l->row);
}

int admin_delivery_show(struct admin_call *call)
{
    struct lookup l = {.look = {.keys = call->admin->o.keys, .now_us = clock_utc_us()}};
    AUTO_JSON json_t *history = json_array(), *doc = NULL;
    bool whole = true;
    int r = 0;

    l.mid = admin_arg_str(call, "message", &r);
    if (r == 0)
        r = store_call(call->admin->o.store, STORE_READ, find, &l);
    if (r == TEKD_ENOTFOUND)
        return admin_fail_call(call, r, "\"%.60s\": no such delivery", l.mid);
    if (r == 0)
        r = admin_history(call, &l.row, history, &whole);
    if (r < 0)
        return r;
    doc = delivery_json(&l.look, &l.row);
    if (!doc || json_object_set_new(doc, "kek_id", json_string(l.kek.name)) < 0 ||
        json_object_set_new(doc, "history_whole", json_boolean(whole)) < 0 ||
        json_object_set(doc, "history", history) < 0)
        return TEKD_ENOMEM;
    call->result = TAKE(doc);
    return 0;
}
