/*
 * audit checkpoint, audit close-epoch, and the stream of audit export and audit records, each of
 * one epoch.
 *
 * The stream follows the answer line {"ok":true,"result":{…}} and is text, line by line:
 *     R <record>          the octets of one record, in the order of seq
 *     N <length>          a note of that many octets follows, and a line end
 *     A <length> <name>   a file of anchors/ of that many octets follows, and a line end
 *     E                   the end: the stream is whole
 * A stream without its E was cut.  Records and notes are read a page at a time between the store's
 * batches, so that the server keeps serving.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define PAGE_ROWS     256
#define PAGE_OCTETS   ((size_t)PAGE_ROWS * (RECORD_MAX + 8))
#define EVENT_MAX     64       /* characters of an event's name */
#define CHECKPOINT_US 10000000 /* an operator's patience with the signer */
#define POLL_NS       10000000

/* ---- a checkpoint over everything so far ----------------------------------------------------- */

struct checkpoint {
    struct store_item item; /* first */
    const struct admin_call *call;
    const char *action, *detail;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool ended;
    int result;
    struct store_place at; /* of the record */
};

static int apply_checkpoint(struct store_item *item, struct store_tx *tx)
{
    struct checkpoint *c = (struct checkpoint *)item;
    struct record *rec = NULL;
    int r = record_new("admin.action", &rec);

    if (r < 0)
        return r;
    record_str(rec, "actor", c->call->actor.name);
    record_int(rec, "uid", c->call->actor.uid);
    record_str(rec, "action", c->action);
    record_str(rec, "detail", c->detail);
    c->at.epoch = store_tx_epoch(tx);
    return store_tx_record(tx, rec, &c->at.seq);
}

static void done_checkpoint(struct store_item *item, int result)
{
    struct checkpoint *c = (struct checkpoint *)item;

    (void)pthread_mutex_lock(&c->lock);
    c->result = result;
    c->ended = true;
    (void)pthread_cond_signal(&c->done);
    (void)pthread_mutex_unlock(&c->lock);
}

/* The first note of an epoch that has at least this size, or none. */
struct newest {
    uint64_t epoch, size;
    char note[NOTE_MAX + 1];
};

static int copy_note(void *arg, uint64_t place, const void *note, size_t len)
{
    const struct store_place at = store_place_unpack((int64_t)place);
    struct newest *n = arg;

    if (len > NOTE_MAX)
        return TEKD_EINTERNAL;
    if (at.epoch != n->epoch)
        return 0;
    n->size = at.seq;
    memcpy(n->note, note, len);
    n->note[len] = '\0';
    return 0;
}

static int read_newest(void *arg, struct store_tx *tx)
{
    struct newest *n = arg;
    const struct store_walk w = {
        .after = store_place_pack(n->epoch, n->size) - 1, .limit = 1, .arg = n};

    return store_tx_note_walk(tx, &w, copy_note);
}

/* What is signed by now. */
static int newest_note(struct admin_call *call, struct newest *ret)
{
    struct store_status s;

    store_status_get(call->admin->o.store, &s);
    ret->epoch = s.epoch;
    ret->size = s.signed_size;
    ret->note[0] = '\0';
    return store_call(call->admin->o.store, STORE_READ, read_newest, ret);
}

/* The note over a record; with release "durable" it comes some time after the record. */
static int note_over(struct admin_call *call, struct store_place at, struct newest *ret)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int64_t give_up = clock_mono_us() + CHECKPOINT_US;
    int r;

    for (;;) {
        ret->epoch = at.epoch;
        ret->size = at.seq + 1;
        ret->note[0] = '\0';
        r = store_call(call->admin->o.store, STORE_READ, read_newest, ret);
        if (r < 0 || ret->note[0])
            return r;
        if (clock_mono_us() > give_up)
            return TEKD_ETIMEDOUT;
        store_checkpoint_soon(call->admin->o.store);
        (void)nanosleep(&pause, NULL);
    }
}

static int submit_and_wait(struct admin_call *call, struct checkpoint *c)
{
    int r = store_submit(call->admin->o.store, &c->item);

    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&c->lock);
    while (!c->ended)
        (void)pthread_cond_wait(&c->done, &c->lock);
    (void)pthread_mutex_unlock(&c->lock);
    return c->result;
}

/* Records the command itself, and gives the first note that covers this record. */
static int make_checkpoint(struct admin_call *call, const char *action, struct newest *ret)
{
    struct checkpoint c = {.item = {.apply = apply_checkpoint,
                                    .done = done_checkpoint,
                                    .wait = STORE_SIGNED,
                                    .deadline_us = clock_mono_us() + CHECKPOINT_US},
                           .call = call,
                           .action = action,
                           .detail = "",
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .done = PTHREAD_COND_INITIALIZER};
    int r = submit_and_wait(call, &c);

    if (r == 0)
        r = note_over(call, c.at, ret);
    return r < 0 ? admin_fail_call(call, r, "no checkpoint: %s", tekd_strerror(r)) : 0;
}

int admin_audit_checkpoint(struct admin_call *call)
{
    struct newest n = {.size = 0};
    int r = make_checkpoint(call, "audit checkpoint", &n);

    if (r < 0)
        return r;
    call->result = json_pack("{s:I,s:I,s:s}", "epoch", (json_int_t)n.epoch, "size",
                             (json_int_t)n.size, "checkpoint", n.note);
    return call->result ? 0 : TEKD_ENOMEM;
}

/* ---- epochs ---------------------------------------------------------------------------------- */

/* Errors: TEKD_ETIMEDOUT: it goes on without us. */
static int wait_for_epoch(struct admin_call *call, uint64_t epoch)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int64_t give_up = clock_mono_us() + CHECKPOINT_US;
    struct store_status s;
    int r;

    for (;;) {
        store_status_get(call->admin->o.store, &s);
        if (s.epoch >= epoch)
            return 0;
        r = s.latched ? TEKD_EIO : admin_still_runs(call);
        if (r < 0 || clock_mono_us() > give_up)
            return r < 0 ? r : TEKD_ETIMEDOUT;
        (void)nanosleep(&pause, NULL);
    }
}

/* The last note of a closed epoch. */
static int read_last(void *arg, struct store_tx *tx)
{
    struct newest *n = arg;

    return store_tx_note_last(tx, n->epoch, n->note, &n->size);
}

static int last_note(struct admin_call *call, struct newest *n)
{
    int r = store_call(call->admin->o.store, STORE_READ, read_last, n);

    return r < 0 ? admin_fail_call(call, r, "no checkpoint: %s", tekd_strerror(r)) : 0;
}

/* The command is recorded in the epoch that it closes. */
int admin_audit_close_epoch(struct admin_call *call)
{
    struct newest n = {.size = 0};
    int r = make_checkpoint(call, "audit close-epoch", &n);

    if (r < 0)
        return r;
    store_close_epoch(call->admin->o.store, n.epoch);
    r = wait_for_epoch(call, n.epoch + 1);
    if (r == TEKD_ETIMEDOUT)
        return admin_fail_call(call, r, "epoch %llu is not closed yet: that goes on by itself",
                               (unsigned long long)n.epoch);
    if (r == 0)
        r = last_note(call, &n);
    if (r < 0)
        return r;
    call->result = json_pack("{s:I,s:I,s:s}", "epoch", (json_int_t)n.epoch, "size",
                             (json_int_t)n.size, "checkpoint", n.note);
    return call->result ? 0 : TEKD_ENOMEM;
}

/* ---- the stream ------------------------------------------------------------------------------ */

struct stream {
    struct admin_call *call;
    struct buf *page;
    int64_t after; /* place that was sent last */
    int64_t end;   /* records below, notes up to it */
    size_t n;
    char event[EVENT_MAX + 9]; /* octets that a record must have; empty: all are sent */
};

static int add_record(void *arg, uint64_t place, const void *octets, size_t len)
{
    struct stream *s = arg;

    if ((int64_t)place >= s->end)
        return 1; /* ends the walk */
    s->after = (int64_t)place;
    s->n++;
    if (s->event[0] && !memmem(octets, len, s->event, strlen(s->event)))
        return 0;
    (void)buf_puts(s->page, "R ");
    (void)buf_append(s->page, octets, len);
    return buf_putc(s->page, '\n');
}

static int read_records(void *arg, struct store_tx *tx)
{
    struct stream *s = arg;
    const struct store_walk w = {.after = s->after, .limit = PAGE_ROWS, .arg = s};
    int r;

    s->n = 0;
    r = store_tx_leaf_walk(tx, &w, add_record);
    return r > 0 ? 0 : r;
}

static int add_note(void *arg, uint64_t place, const void *note, size_t len)
{
    struct stream *s = arg;

    if ((int64_t)place > s->end)
        return 1;
    s->after = (int64_t)place;
    s->n++;
    (void)buf_printf(s->page, "N %zu\n", len);
    (void)buf_append(s->page, note, len);
    return buf_putc(s->page, '\n');
}

static int read_notes(void *arg, struct store_tx *tx)
{
    struct stream *s = arg;
    const struct store_walk w = {.after = s->after, .limit = PAGE_ROWS, .arg = s};
    int r;

    s->n = 0;
    r = store_tx_note_walk(tx, &w, add_note);
    return r > 0 ? 0 : r;
}

static int send_pages(struct stream *s, int (*read)(void *arg, struct store_tx *tx))
{
    do {
        int r;

        buf_reset(s->page);
        r = admin_still_runs(s->call);
        if (r == 0)
            r = store_call(s->call->admin->o.store, STORE_READ, read, s);
        if (r == 0)
            r = buf_error(s->page);
        if (r == 0)
            r = admin_send(s->call, buf_data(s->page), buf_len(s->page));
        if (r < 0)
            return r;
    } while (s->n == PAGE_ROWS);
    return 0;
}

/* Each once: one that was replaced and taken back is among the retired ones as well. */
static int add_key(json_t *keys, const struct hsm_spki *spki)
{
    char hex[ENC_HEX_LEN(HSM_SPKI_MAX) + 1];
    const json_t *key;
    size_t i;

    enc_hex(spki->der, spki->len, hex);
    json_array_foreach (keys, i, key) {
        if (strcmp(json_string_value(key), hex) == 0)
            return 0;
    }
    return json_array_append_new(keys, json_string(hex)) < 0 ? TEKD_ENOMEM : 0;
}

/* All that the log was ever signed with: SubjectPublicKeyInfo in hex. */
static int add_keys(struct admin_call *call, json_t **ret_keys)
{
    AUTO_JSON json_t *keys = json_array();
    struct store *store = call->admin->o.store;
    struct hsm_spki spki;
    int r = store_public_key(store, STORE_KEY_MAIN, &spki);

    if (r == 0)
        r = add_key(keys, &spki);
    if (r < 0)
        return r;
    r = store_public_key(store, STORE_KEY_ED25519, &spki);
    if (r == 0)
        r = add_key(keys, &spki);
    if (r == TEKD_ENOTFOUND) /* it never had one */
        r = 0;
    for (size_t n = 0; r == 0; n++) {
        r = store_retired_key(store, n, &spki);
        if (r == 0)
            r = add_key(keys, &spki);
    }
    if (r != TEKD_ENOTFOUND)
        return r;
    *ret_keys = TAKE(keys);
    return 0;
}

static int send_anchor(void *arg, const char *name, const void *octets, size_t len)
{
    struct stream *s = arg;

    buf_reset(s->page);
    (void)buf_printf(s->page, "A %zu %s\n", len, name);
    (void)buf_append(s->page, octets, len);
    if (buf_putc(s->page, '\n') < 0)
        return buf_error(s->page);
    return admin_send(s->call, buf_data(s->page), buf_len(s->page));
}

/* What was got back where notes of this epoch were published. */
static int send_anchors(struct stream *s, const struct newest *n)
{
    const struct publish_export e = {
        .epoch = n->epoch, .size = n->size, .arg = s, .each = send_anchor};

    return publish_export(s->call->admin->o.publish, &e);
}

static int send_header(struct admin_call *call, const struct newest *n)
{
    AUTO_MEM char *text = NULL;
    AUTO_JSON json_t *doc = NULL;
    json_t *keys = NULL;
    int r = add_keys(call, &keys);

    if (r < 0)
        return r;
    doc = json_pack("{s:b,s:{s:I,s:I,s:I,s:s,s:o}}", "ok", 1, "result", "epoch",
                    (json_int_t)n->epoch, "size", (json_int_t)n->size, "records",
                    (json_int_t)n->size, "checkpoint", n->note, "keys", keys);
    text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    if (!text)
        return TEKD_ENOMEM;
    call->streamed = true;
    r = admin_send(call, text, strlen(text));
    return r < 0 ? r : admin_send(call, "\n", 1);
}

/* A record is canonical, and no string in it has a quote without a backslash: its octets tell. */
static int read_filter(struct admin_call *call, struct stream *s)
{
    const char *event = admin_arg_str_or(call, "event", NULL);

    if (!event)
        return 0;
    if (!record_event_known(event))
        return admin_fail_call(call, TEKD_EINVAL, "\"event\": no event is called \"%.60s\"", event);
    (void)snprintf(s->event, sizeof(s->event), "\"ev\":\"%s\"", event);
    return 0;
}

static int stream(struct admin_call *call, const struct newest *n, bool notes)
{
    AUTO(buf) struct buf *page = NULL;
    int64_t from = admin_arg_int_or(call, "from", 0);
    struct stream s = {.call = call, .end = store_place_pack(n->epoch, n->size)};
    int r = read_filter(call, &s);

    if (from < 0)
        return admin_fail_call(call, TEKD_EINVAL, "\"from\": expected 0 or more");
    if (r < 0)
        return r;
    r = buf_new(PAGE_OCTETS, &page);
    from = (uint64_t)from < STORE_SEQ_MAX ? from : (int64_t)STORE_SEQ_MAX;
    s.after = store_place_pack(n->epoch, (uint64_t)from) - 1;
    s.page = page;
    if (r == 0)
        r = send_header(call, n);
    if (r == 0)
        r = send_pages(&s, read_records);
    s.after = store_place_pack(n->epoch, 0);
    if (r == 0 && notes)
        r = send_pages(&s, read_notes);
    if (r == 0 && notes)
        r = send_anchors(&s, n);
    return r < 0 ? r : admin_send(call, "E\n", 2);
}

/* The epoch that was asked for; 0: the current one, which may end any moment. */
static int read_epoch(struct admin_call *call, uint64_t *ret_epoch)
{
    struct store_status s;
    int64_t epoch = admin_arg_int_or(call, "epoch", 0);

    store_status_get(call->admin->o.store, &s);
    if (json_object_get(call->args, "epoch") && (epoch < 1 || (uint64_t)epoch > s.epoch))
        return admin_fail_call(call, TEKD_EINVAL, "\"epoch\": expected 1 to %llu, the current one",
                               (unsigned long long)s.epoch);
    *ret_epoch = (uint64_t)epoch < s.epoch ? (uint64_t)epoch : 0;
    return 0;
}

/* A closed epoch is exported as it ended; that it was is recorded in the current one. */
static int record_export(struct admin_call *call, uint64_t epoch)
{
    char detail[32];
    struct checkpoint c = {
        .item = {.apply = apply_checkpoint, .done = done_checkpoint, .wait = STORE_DURABLE},
        .call = call,
        .action = "audit export",
        .detail = detail,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .done = PTHREAD_COND_INITIALIZER};
    int r;

    (void)snprintf(detail, sizeof(detail), "epoch %llu", (unsigned long long)epoch);
    r = submit_and_wait(call, &c);
    return r < 0 ? admin_fail_call(call, r, "not recorded: %s", tekd_strerror(r)) : 0;
}

/* Makes a checkpoint first, if the epoch is not closed, and holds exactly the records under it. */
int admin_audit_export(struct admin_call *call)
{
    struct newest n = {.size = 0};
    int r = read_epoch(call, &n.epoch);

    if (r == 0 && n.epoch == 0)
        r = make_checkpoint(call, "audit export", &n);
    else if (r == 0)
        r = record_export(call, n.epoch);
    if (r == 0 && n.note[0] == '\0')
        r = last_note(call, &n);
    return r < 0 ? r : stream(call, &n, true);
}

/* What is signed by now; for the ledger. */
int admin_audit_records(struct admin_call *call)
{
    struct newest n = {.size = 0};
    int r = read_epoch(call, &n.epoch);

    if (r == 0)
        r = n.epoch == 0 ? newest_note(call, &n) : last_note(call, &n);
    return r < 0 ? r : stream(call, &n, false);
}
