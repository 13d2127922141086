/*
 * Makes the log that a loaded server leaves, as a folder that tek-audit verifies: as many records
 * as are asked for, of a pull and a push load in about equal parts.
 *
 *     pull   batches of requests: of ten, three for a new content (its TEK is made), six for one
 *            that is known, one that is repeated; every 500th is refused.  A checkpoint covers the
 *            batch, then the answers are sent
 *     push   a TEK for a new content, prepared for as many BSAs as a batch has requests; a
 *            checkpoint, an attempt each, a checkpoint, a confirmation each
 *
 * The records are what tekd writes, as long as those it writes.  With --batch 1 it is the log of a
 * lone client: nearly every record is under a checkpoint of its own.  Prints one JSON object.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log_out.h"
#include "measure.h"
#include "opts.h"
#include "tekd/enc.h"

#define START_US     INT64_C(1795353342000000)
#define BATCH_US     5000000 /* between two batches */
#define HEARTBEAT_S  300
#define BSAS         64    /* each batch has at most one message for each */
#define CONTENTS     10000 /* that are known and asked for again */
#define REFUSE_EVERY 500
#define HASH_LEN     32

/* What an identifier is of: the same number gives others. */
enum space { OF_MESSAGE = 1, OF_DELIVERY, OF_CONTENT, OF_TEK, OF_OUT, OF_REQUEST, OF_CERT };

struct message {
    uint64_t number; /* of its Message ID */
    uint64_t content;
    uint64_t bsa;
    uint64_t seq; /* of the record that gave its key */
    bool repeat, refused;
};

struct load {
    struct log_out *out;
    uint64_t batch;
    int64_t t_us, beat_us;
    uint64_t n_messages, n_contents;
    struct message sent[BSAS]; /* what the last batch of requests was */
    size_t n_sent;
    struct message to_repeat;
};

/* ---- identifiers ---- */

/* Of SplitMix64: every number another one, and none in order. */
static uint64_t mix(uint64_t n, enum space space)
{
    n = (n + (uint64_t)space * UINT64_C(0x632BE59BD9B4E019)) * UINT64_C(0x9E3779B97F4A7C15);
    n = (n ^ n >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    n = (n ^ n >> 27) * UINT64_C(0x94D049BB133111EB);
    return n ^ n >> 31;
}

static void put_uuid(struct record *r, const char *key, enum space space, uint64_t n)
{
    uint64_t half[2] = {mix(n, space), mix(n, space) + n};
    uint8_t octets[16];
    char text[ENC_UUID_LEN + 1];

    memcpy(octets, half, sizeof(octets));
    enc_uuid(octets, text);
    record_str(r, key, text);
}

static void put_hash(struct record *r, const char *key, enum space space, uint64_t n)
{
    uint64_t words[HASH_LEN / sizeof(uint64_t)];
    uint8_t octets[HASH_LEN];

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        words[i] = mix(n + i * UINT64_C(0x100000001), space);
    memcpy(octets, words, sizeof(octets));
    record_hex(r, key, octets, sizeof(octets));
}

static void put_text(struct record *r, const char *key, const char *form, uint64_t n)
{
    char text[64];

    (void)snprintf(text, sizeof(text), form, (unsigned long long)n);
    record_str(r, key, text);
}

static void put_content(struct record *r, uint64_t n)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "urn:x-bench:%016llx",
                   (unsigned long long)mix(n, OF_CONTENT));
    record_str(r, "content", text);
}

static struct record *record(const char *event)
{
    struct record *r = NULL;

    if (record_new(event, &r) < 0)
        abort();
    return r;
}

static uint64_t write_record(struct load *l, struct record *take_r)
{
    return log_out_record(l->out, take_r, l->t_us);
}

/* ---- the start ---- */

static void kek_added(struct load *l, const char *name_form, const char *label_form, uint64_t n)
{
    struct record *r = record("kek.added");

    put_text(r, "kekid", name_form, n);
    put_text(r, "label", label_form, n);
    record_str(r, "wrap", "aes-kw");
    put_hash(r, "fp", OF_CERT, n + 1000000);
    record_bool(r, "imported", n > 0);
    record_str(r, "actor", n > 0 ? "root" : "tekd");
    (void)write_record(l, r);
}

static void bsa_enrolled(struct load *l, uint64_t n)
{
    struct record *r = record("bsa.enrolled");

    put_text(r, "bsa", "bsa-%llu", n);
    put_hash(r, "cert", OF_CERT, n);
    put_text(r, "kekid", "bsa-%llu/1", n);
    record_str(r, "entitle", "*");
    record_str(r, "actor", "root");
    record_int(r, "uid", 0);
    (void)write_record(l, r);
}

static void start(struct load *l)
{
    static const uint8_t config[HASH_LEN] = {0};
    struct record *r = record("log.opened");

    record_str(r, "origin", log_out_origin(l->out));
    (void)write_record(l, r);
    r = record("log.started");
    record_str(r, "version", "0.1.0");
    record_int(r, "heartbeat", HEARTBEAT_S);
    record_int(r, "window", 604800);
    record_str(r, "release", "signed");
    record_hex(r, "config", config, sizeof(config));
    (void)write_record(l, r);
    r = record("log.signkey");
    record_hex(r, "key", log_out_key(l->out), HASH_LEN);
    (void)write_record(l, r);
    kek_added(l, "storage/1", "tekd-storage", 0);
    for (uint64_t i = 1; i <= BSAS; i++) {
        kek_added(l, "bsa-%llu/1", "bsa-%llu-kek", i);
        bsa_enrolled(l, i);
    }
    log_out_checkpoint(l->out);
}

/* ---- what both have ---- */

static void tek_generated(struct load *l, uint64_t content)
{
    struct record *r = record("tek.generated");

    put_uuid(r, "keyid", OF_TEK, content);
    put_content(r, content);
    record_int(r, "bits", 128);
    record_str(r, "kekid", "storage/1");
    (void)write_record(l, r);
}

/* Of every record about one message. */
static void put_message(struct record *r, const struct message *m, enum space space)
{
    put_uuid(r, "mid", space, m->number);
    put_text(r, "peer", "bsa-%llu", m->bsa);
}

static void put_given(struct record *r, const struct message *m, const char *direction)
{
    record_str(r, "dir", direction);
    put_content(r, m->content);
    put_uuid(r, "keyid", OF_TEK, m->content);
    put_text(r, "kekid", "bsa-%llu/1", m->bsa);
    put_hash(r, "out", OF_OUT, m->number);
}

static void put_caller(struct record *r, const struct message *m)
{
    put_hash(r, "cert", OF_CERT, m->bsa);
    put_text(r, "addr", "192.0.2.%llu:40000", m->bsa);
}

/* ---- pull ---- */

static void answered(struct load *l, struct message *m)
{
    struct record *r = record("request.answered");

    put_message(r, m, OF_MESSAGE);
    put_caller(r, m);
    put_given(r, m, "pull");
    put_hash(r, "req", OF_REQUEST, m->number);
    m->seq = write_record(l, r);
}

static void repeated(struct load *l, const struct message *m)
{
    struct record *r = record("request.repeated");

    put_message(r, m, OF_MESSAGE);
    put_caller(r, m);
    put_uuid(r, "keyid", OF_TEK, m->content);
    put_hash(r, "out", OF_OUT, m->number);
    record_ref(r, "ref", 1, m->seq);
    record_ref(r, "after", 1, log_out_records(l->out) - 1);
    (void)write_record(l, r);
}

static void refused(struct load *l, const struct message *m)
{
    struct record *r = record("request.refused");

    put_message(r, m, OF_MESSAGE);
    put_caller(r, m);
    put_content(r, UINT64_MAX - m->number);
    record_str(r, "reason", "not-entitled");
    (void)write_record(l, r);
}

static void sent(struct load *l, const struct message *m)
{
    struct record *r = record("answer.sent");

    put_message(r, m, OF_MESSAGE);
    put_hash(r, "out", OF_OUT, m->number);
    record_ref(r, "ref", 1, m->seq);
    (void)write_record(l, r);
}

/* Answers that a checkpoint covers now, and repeats: nobody waits for their records. */
static void write_lazy(struct load *l)
{
    for (size_t i = 0; i < l->n_sent; i++) {
        if (!l->sent[i].repeat && !l->sent[i].refused)
            sent(l, &l->sent[i]);
    }
    if (l->n_sent > 0)
        l->to_repeat = l->sent[0];
    l->n_sent = 0;
}

static void request(struct load *l, struct message *m)
{
    uint64_t number = l->n_messages++;

    *m = (struct message){.number = number, .bsa = 1 + number % BSAS};
    m->refused = number % REFUSE_EVERY == REFUSE_EVERY - 1;
    m->repeat = number % 10 == 9 && l->to_repeat.seq > 0;
    if (m->refused) {
        refused(l, m);
    } else if (m->repeat) {
        repeated(l, &l->to_repeat);
    } else if (number % 10 < 3 || l->n_contents == 0) {
        m->content = l->n_contents++;
        tek_generated(l, m->content);
        answered(l, m);
    } else {
        m->content =
            mix(number, OF_CONTENT) % (l->n_contents < CONTENTS ? l->n_contents : CONTENTS);
        answered(l, m);
    }
}

static void pull(struct load *l)
{
    struct message batch[BSAS];

    for (uint64_t i = 0; i < l->batch; i++)
        request(l, &batch[i]);
    log_out_checkpoint(l->out);
    write_lazy(l); /* the one before */
    memcpy(l->sent, batch, l->batch * sizeof(batch[0]));
    l->n_sent = l->batch;
    /* One that was refused or a repeat gave no key of its own to repeat. */
    while (l->n_sent > 0 && (l->sent[0].repeat || l->sent[0].refused))
        l->sent[0] = l->sent[--l->n_sent];
}

/* ---- push ---- */

static void prepared(struct load *l, struct message *m)
{
    struct record *r = record("delivery.prepared");

    put_message(r, m, OF_DELIVERY);
    put_given(r, m, "push");
    m->seq = write_record(l, r);
}

static void attempted(struct load *l, const struct message *m)
{
    struct record *r = record("delivery.attempt");

    put_message(r, m, OF_DELIVERY);
    put_text(r, "addr", "192.0.2.%llu:8443", m->bsa);
    record_ref(r, "ref", 1, m->seq);
    (void)write_record(l, r);
}

static void confirmed(struct load *l, const struct message *m)
{
    struct record *r = record("delivery.confirmed");

    put_message(r, m, OF_DELIVERY);
    put_hash(r, "cert", OF_CERT, m->bsa);
    put_hash(r, "out", OF_OUT, m->number);
    record_ref(r, "ref", 1, m->seq);
    (void)write_record(l, r);
}

static void push(struct load *l)
{
    struct message batch[BSAS];
    uint64_t content = l->n_contents++;

    tek_generated(l, content);
    for (uint64_t i = 0; i < l->batch; i++) {
        batch[i] =
            (struct message){.number = l->n_messages++, .content = content, .bsa = 1 + i % BSAS};
        prepared(l, &batch[i]);
    }
    log_out_checkpoint(l->out);
    for (uint64_t i = 0; i < l->batch; i++)
        attempted(l, &batch[i]);
    log_out_checkpoint(l->out);
    for (uint64_t i = 0; i < l->batch; i++)
        confirmed(l, &batch[i]);
}

/* ---- the whole ---- */

static void heartbeat(struct load *l)
{
    l->t_us += BATCH_US;
    if (l->t_us - l->beat_us < HEARTBEAT_S * INT64_C(1000000))
        return;
    l->beat_us = l->t_us;
    (void)write_record(l, record("log.heartbeat"));
    log_out_checkpoint(l->out);
}

static void make(struct load *l, uint64_t records)
{
    start(l);
    while (log_out_records(l->out) < records) {
        pull(l);
        heartbeat(l);
        push(l);
        heartbeat(l);
    }
    write_lazy(l);
    (void)write_record(l, record("log.stopped"));
    log_out_checkpoint(l->out);
}

int main(int argc, char **argv)
{
    struct load l = {.batch = 32, .t_us = START_US, .beat_us = START_US};
    uint64_t records = 100000;
    const char *dir = NULL;
    const struct opts_option table[] = {
        OPTS_TEXT_REQ("dir", &dir, "the folder to make"),
        OPTS_NUMBER("records", &records, 1, 100000000, "how many at least"),
        OPTS_NUMBER("batch", &l.batch, 1, BSAS, "requests, or deliveries, to a checkpoint"),
    };
    json_t *result;

    opts_parse(table, sizeof(table) / sizeof(table[0]), argc, argv);
    l.out = log_out_new(dir);
    make(&l, records);
    result = json_pack("{s:I,s:I,s:I,s:I}", "records", (json_int_t)log_out_records(l.out),
                       "checkpoints", (json_int_t)log_out_notes(l.out), "octets",
                       (json_int_t)log_out_octets(l.out), "messages", (json_int_t)l.n_messages);
    log_out_finish(l.out);
    return measure_print(result) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
