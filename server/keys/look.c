/*
 * A MessageID that the store may know: what was answered under it is answered again, octet for
 * octet, or the request is refused; it never gets another key.
 */
#include "internal.h"

#include <string.h>

#include "tekd/err.h"

struct stored_answer {
    const struct keys_work *w;
    struct store_message message;
    struct store_content content;
    struct store_tek tek;
    struct store_kek kek;
    struct hsm_blob data;
};

static int read_answer(void *arg, struct store_tx *tx)
{
    struct stored_answer *a = arg;
    const char *id = a->w->request.message_id;
    int r = store_tx_message_find(tx, a->w->bsa->row->row, id, strlen(id), &a->message);

    if (r == 0)
        r = store_tx_content_get(tx, a->message.content, &a->content);
    if (r == 0)
        r = store_tx_tek_get(tx, a->message.tek, &a->tek);
    if (r == 0)
        r = store_tx_kek_get(tx, a->message.kek, &a->kek);
    if (r == 0 && !a->tek.destroyed && !a->kek.retired)
        r = store_tx_export_find(tx, a->message.tek, a->message.kek, &a->data);
    return r;
}

/* The same request: same ContentID and same requested Period, or none. */
static bool is_same(const struct keys_work *w, const struct stored_answer *a)
{
    return strcmp(w->request.content_id, a->content.id) == 0 &&
           work_asked(w) == a->message.period_asked;
}

static void answer_again(struct keys_work *w, const struct stored_answer *a)
{
    struct key_material *m = &w->made;

    *m = (struct key_material){.kek = a->kek.row, .wrap = a->kek.kek.wrap, .data = a->data};
    m->key.content = a->content.row;
    m->key.tek = a->tek.row;
    m->key.bits = a->tek.bits;
    period_get(&a->content, a->tek.period, &m->key.period);
    memcpy(m->key.key_id, a->tek.key_id, sizeof(m->key.key_id));
    memcpy(m->kek_name, a->kek.name, sizeof(m->kek_name));
    w->time_us = a->message.time_us;
    w->answered_seq = a->message.seq;
    w->epoch = a->message.epoch;
    work_submit_stored(w);
}

int work_look(struct keys_work *w)
{
    struct stored_answer a = {.w = w};
    int r;

    keys_waits(w->k, true);
    r = store_call(w->k->store, STORE_READ, read_answer, &a);
    keys_waits(w->k, false);

    if (r == TEKD_ENOTFOUND && a.message.bsa == 0)
        return TEKD_ENOTFOUND;
    if (r < 0)
        work_error(w, "reading the stored answer", r == TEKD_ENOTFOUND ? TEKD_EINTERNAL : r);
    else if (!is_same(w, &a))
        work_refuse(w, CP3_REASON_DUPLICATE_MESSAGE_ID);
    else if (a.tek.destroyed || a.kek.retired)
        work_refuse(w, CP3_REASON_KEY_GONE);
    else
        answer_again(w, &a);
    return 0;
}
