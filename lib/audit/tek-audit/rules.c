/*
 * What the events say about keys and messages, and what they must not say.
 *
 * Of a log that begins (epoch 1) everything is known: a TEK was generated, a KEK added, a BSA
 * enrolled before it is used.  A later epoch may speak of what happened before it: what it names
 * for the first time is taken as it is.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define PERIOD_TEXT 32

static const char *str(const struct record *r, const char *key)
{
    return record_get_str(r, key);
}

/* The number of a string of the record in a pool; false when memory is short. */
static bool number(struct audit *a, struct pool *p, const char *s, uint32_t *ret_id, bool *ret_new)
{
    int r = pool_add(p, s, strlen(s), ret_id, ret_new);

    if (r < 0)
        a->error = r;
    return r == 0;
}

/* Whose Message ID it is: peer, a NUL (which no string of a record has), Message ID. */
static bool message_name(const struct record *r, char out[static RECORD_MAX], size_t *ret_len)
{
    const char *peer = str(r, "peer"), *mid = str(r, "mid");
    size_t peer_len = strlen(peer), mid_len = strlen(mid);

    if (peer_len + mid_len + 1 > RECORD_MAX)
        return false;
    memcpy(out, peer, peer_len);
    out[peer_len] = '\0';
    memcpy(out + peer_len + 1, mid, mid_len);
    *ret_len = peer_len + 1 + mid_len;
    return true;
}

static struct message *message_find(struct audit *a, const struct record *r)
{
    char name[RECORD_MAX];
    size_t len;
    uint32_t id;

    if (!message_name(r, name, &len) || pool_find(a->messages, name, len, &id) < 0)
        return NULL;
    return &a->message[id];
}

static struct message *message_add(struct audit *a, const struct record *r, bool *ret_new)
{
    char name[RECORD_MAX];
    size_t len;
    uint32_t id;
    int e;

    if (!message_name(r, name, &len))
        return NULL;
    e = pool_add(a->messages, name, len, &id, ret_new);
    if (e < 0)
        a->error = e;
    if (e < 0 || !audit_room(a, (void **)&a->message, &a->message_room, id, sizeof *a->message))
        return NULL;
    return &a->message[id];
}

/* A BSA or KEK, noted or looked at. */
static struct party *party(struct audit *a, struct pool *p, struct party **array, size_t *room,
                           const char *name)
{
    uint32_t id;
    bool is_new;

    if (!number(a, p, name, &id, &is_new) ||
        !audit_room(a, (void **)array, room, id, sizeof **array))
        return NULL;
    if (is_new)
        (*array)[id] = (struct party){.standing = STANDING_NONE};
    return &(*array)[id];
}

static struct party *bsa_of(struct audit *a, const char *name)
{
    return party(a, a->bsas, &a->bsa, &a->bsa_room, name);
}

static struct party *kek_of(struct audit *a, const char *name)
{
    return party(a, a->keks, &a->kek, &a->kek_room, name);
}

/* May be used: of an epoch that is not the first one may not have heard. */
static bool is_good(const struct audit *a, const struct party *p)
{
    return p->standing == STANDING_GOOD || (p->standing == STANDING_NONE && a->epoch > 1);
}

static struct tek *tek_of(struct audit *a, const char *keyid, uint32_t *ret_id, bool *ret_new)
{
    struct tek *t;

    if (!number(a, a->teks, keyid, ret_id, ret_new) ||
        !audit_room(a, (void **)&a->tek, &a->tek_room, *ret_id, sizeof *a->tek))
        return NULL;
    t = &a->tek[*ret_id];
    if (*ret_new)
        *t = (struct tek){.generated = BEFORE, .content = UINT32_MAX, .period = PERIOD_UNSAID};
    return t;
}

static int64_t period_of(const struct record *r)
{
    uint64_t period;

    return record_get_int(r, "period", &period) ? (int64_t)period : PERIOD_NONE;
}

static void period_text(int64_t period, char out[static PERIOD_TEXT])
{
    if (period == PERIOD_NONE)
        (void)snprintf(out, PERIOD_TEXT, "no period");
    else
        (void)snprintf(out, PERIOD_TEXT, "period %" PRId64, period);
}

static void check_period(struct audit *a, const struct record *r, const struct tek *t,
                         int64_t period)
{
    char expected[PERIOD_TEXT], found[PERIOD_TEXT];

    if (t->period == PERIOD_UNSAID || period == PERIOD_UNSAID || t->period == period)
        return;
    period_text(t->period, expected);
    period_text(period, found);
    audit_fail(a, "period", "expected %s, as of %s, found %s", expected, str(r, "keyid"), found);
}

static void check_kek(struct audit *a, const char *kekid)
{
    const struct party *p = kek_of(a, kekid);

    if (!p || is_good(a, p))
        return;
    audit_fail(a, "kek", "expected a KEK in use, found %s, %s", kekid,
               p->standing == STANDING_GONE ? "retired before" : "never added");
}

static void check_bsa(struct audit *a, const char *bsa)
{
    const struct party *p = bsa_of(a, bsa);

    if (!p || is_good(a, p))
        return;
    audit_fail(a, "bsa", "expected an enrolled BSA, found %s, %s", bsa,
               p->standing == STANDING_GONE ? "disabled before" : "never enrolled");
}

/* A key is given: it exists, for this content and period.  *ret_tek: its number. */
static bool check_tek(struct audit *a, const struct record *r, int64_t period, uint32_t *ret_tek)
{
    const char *content = str(r, "content");
    uint32_t content_id;
    bool is_new;
    struct tek *t = tek_of(a, str(r, "keyid"), ret_tek, &is_new);

    if (!t || !number(a, a->contents, content, &content_id, &(bool){false}))
        return false;
    if (is_new && a->epoch == 1)
        audit_fail(a, "tek", "expected tek.generated before the key is given, found none of %s",
                   str(r, "keyid"));
    if (is_new || t->content == UINT32_MAX)
        t->content = content_id;
    if (t->destroyed)
        audit_fail(a, "tek", "expected a key that exists, found %s, destroyed before",
                   str(r, "keyid"));
    if (t->content != content_id)
        audit_fail(a, "content", "expected content %s, for which %s was generated, found %s",
                   pool_text(a->contents, t->content), str(r, "keyid"), content);
    if (t->period == PERIOD_UNSAID)
        t->period = period;
    check_period(a, r, t, period);
    return true;
}

static uint64_t first_octets(const char *hash)
{
    uint8_t octets[8] = {0};
    uint64_t v = 0;

    (void)enc_hex_read(hash, 2 * sizeof octets, octets, sizeof octets);
    for (size_t i = 0; i < sizeof octets; i++)
        v = v << 8 | octets[i];
    return v;
}

/* A Message ID stands for one key within its window. */
static void check_used(struct audit *a, const struct record *r, const struct message *m,
                       uint32_t tek, uint32_t kek)
{
    if (m->tek == tek && m->kek == kek)
        return;
    if (m->dir == DIR_PULL && a->t_us - m->t_us > a->window_us)
        return;
    audit_fail(a, "message",
               "expected Message ID %s of %s with key %s under %s, as in record %" PRIu64
               ", found key %s under %s",
               str(r, "mid"), str(r, "peer"), pool_text(a->teks, m->tek),
               pool_text(a->keks, m->kek), m->seq, str(r, "keyid"), str(r, "kekid"));
}

/* request.answered, delivery.prepared, delivery.carried: a key under a Message ID. */
static struct message *key_given(struct audit *a, const struct record *r, enum direction dir,
                                 int64_t period)
{
    uint32_t tek, kek;
    bool is_new;
    struct message *m;

    check_bsa(a, str(r, "peer"));
    check_kek(a, str(r, "kekid"));
    if (!check_tek(a, r, period, &tek) || !number(a, a->keks, str(r, "kekid"), &kek, &is_new))
        return NULL;
    m = message_add(a, r, &is_new);
    if (!m)
        return NULL;
    if (!is_new)
        check_used(a, r, m, tek, kek);
    *m = (struct message){.seq = a->seq,
                          .t_us = a->t_us,
                          .out = first_octets(str(r, "out")),
                          .attempted = NONE,
                          .confirmed = NONE,
                          .tek = tek,
                          .kek = kek,
                          .dir = (uint8_t)dir};
    return m;
}

/*
 * The message that this record says it follows from: the record named by ref gave a key under the
 * same Message ID.  NULL when it did not, or did so in an earlier epoch.
 */
static struct message *follows(struct audit *a, const struct record *r, const char *check,
                               const char *from)
{
    struct message *m = message_find(a, r);
    uint64_t epoch = 0, seq = 0;

    (void)ref_read(str(r, "ref"), &epoch, &seq);
    if (epoch < a->epoch)
        return NULL;
    if (epoch == a->epoch && seq < a->seq && m && m->seq == seq)
        return m;
    audit_fail(a, check, "expected %s of Message ID %s of %s at %s, found %s", from, str(r, "mid"),
               str(r, "peer"), str(r, "ref"), m ? "it elsewhere" : "none");
    return NULL;
}

static void on_signkey(struct audit *a, const struct record *r)
{
    struct merkle_hash key;

    if (enc_hex_read(str(r, "key"), ENC_HEX_LEN(MERKLE_HASH_LEN), key.octets, MERKLE_HASH_LEN) < 0)
        return;
    for (size_t i = 0; i < a->n_trusted; i++)
        if (memcmp(&a->trusted[i].fingerprint, &key, sizeof key) == 0)
            return;
    for (size_t i = 0; i < a->n_candidates; i++) {
        if (memcmp(&a->candidate[i].fingerprint, &key, sizeof key) != 0)
            continue;
        a->candidate[i].announced = true;
        a->candidate[i].announced_seq = a->seq;
    }
}

/* The note that an epoch begins with. */
static void check_link(struct audit *a, const char *text)
{
    const char *origin = a->checkpoint.origin;
    size_t prefix = 0, note_prefix = 0;
    uint64_t epoch = 0;
    struct note n;

    if (note_read(text, strlen(text), &n) < 0) {
        audit_fail(a, "epoch", "expected a note in field note, found something else");
        return;
    }
    (void)origin_epoch(origin, &prefix, &epoch);
    if (origin_epoch(n.origin, &note_prefix, &epoch) < 0 || note_prefix != prefix ||
        memcmp(n.origin, origin, prefix) != 0 || epoch + 1 != a->epoch) {
        audit_fail(a, "epoch", "expected a note of the epoch before %s, found one of %s", origin,
                   n.origin);
        return;
    }
    (void)note_trusted(a, &n, "record 0, the note of the epoch before");
    if (!a->since || strcmp(a->since->origin, origin) == 0)
        return;
    if (a->since->size != n.size || memcmp(&a->since->root, &n.root, sizeof n.root) != 0)
        audit_fail(a, "since",
                   "expected the note of --since (size %" PRIu64 ") as the last one of its epoch, "
                   "found size %" PRIu64 "; verify the rest of that epoch first",
                   a->since->size, n.size);
}

static void on_opened(struct audit *a, const struct record *r)
{
    const char *note = str(r, "note");

    if (strcmp(str(r, "origin"), a->checkpoint.origin) != 0)
        audit_fail(a, "origin", "expected %s, found %s", a->checkpoint.origin, str(r, "origin"));
    if (a->epoch == 1 && note)
        audit_fail(a, "epoch", "expected no note in the first epoch, found one");
    else if (a->epoch > 1 && !note)
        audit_fail(a, "epoch", "expected the last note of the epoch before, found none");
    else if (note)
        check_link(a, note);
}

static void on_gap(struct audit *a, const struct record *r)
{
    uint64_t count = 0;

    (void)record_get_int(r, "count", &count);
    a->counts.gaps += count;
}

static void on_generated(struct audit *a, const struct record *r)
{
    uint32_t id, content;
    bool is_new;
    struct tek *t = tek_of(a, str(r, "keyid"), &id, &is_new);

    if (!t || !number(a, a->contents, str(r, "content"), &content, &(bool){false}))
        return;
    if (!is_new)
        audit_fail(a, "tek", "expected a new key, found %s, which was there before",
                   str(r, "keyid"));
    check_kek(a, str(r, "kekid"));
    *t = (struct tek){.generated = a->seq, .content = content, .period = period_of(r)};
    a->counts.teks++;
}

/* tek.rewrapped, tek.destroyed: of a key that exists. */
static struct tek *tek_known(struct audit *a, const struct record *r)
{
    uint32_t id;
    bool is_new;
    struct tek *t = tek_of(a, str(r, "keyid"), &id, &is_new);

    if (!t || !((is_new && a->epoch == 1) || t->destroyed))
        return t;
    audit_fail(a, "tek", "expected a key that exists, found %s, %s", str(r, "keyid"),
               t->destroyed ? "destroyed before" : "never generated");
    return t;
}

static void on_rewrapped(struct audit *a, const struct record *r)
{
    (void)tek_known(a, r);
    check_kek(a, str(r, "kekid"));
}

static void on_destroyed(struct audit *a, const struct record *r)
{
    struct tek *t = tek_known(a, r);

    if (!t)
        return;
    t->destroyed = true;
    t->destroyed_seq = a->seq;
}

static void on_kek_added(struct audit *a, const struct record *r)
{
    struct party *p = kek_of(a, str(r, "kekid"));

    if (p && p->standing != STANDING_NONE)
        audit_fail(a, "kek", "expected a new KEK, found %s, which was there before",
                   str(r, "kekid"));
    if (p)
        p->standing = STANDING_GOOD;
}

static void withdraw(const struct audit *a, struct party *p)
{
    if (p)
        *p = (struct party){.standing = STANDING_GONE, .gone_seq = a->seq};
}

static void on_kek_retired(struct audit *a, const struct record *r)
{
    check_kek(a, str(r, "kekid"));
    withdraw(a, kek_of(a, str(r, "kekid")));
}

static void on_bsa_enrolled(struct audit *a, const struct record *r)
{
    struct party *p = bsa_of(a, str(r, "bsa"));

    check_kek(a, str(r, "kekid"));
    if (p)
        p->standing = STANDING_GOOD;
}

static void on_bsa_disabled(struct audit *a, const struct record *r)
{
    struct party *p = bsa_of(a, str(r, "bsa"));

    if (p && p->standing == STANDING_NONE && a->epoch == 1)
        audit_fail(a, "bsa", "expected an enrolled BSA, found %s, never enrolled", str(r, "bsa"));
    withdraw(a, p);
}

static void on_answered(struct audit *a, const struct record *r)
{
    struct message *m = key_given(a, r, DIR_PULL, period_of(r));

    a->counts.answered++;
    if (strcmp(str(r, "dir"), "pull") != 0)
        audit_fail(a, "field", "expected dir pull, found %s", str(r, "dir"));
    if (m)
        m->state = STATE_ANSWERED;
}

static bool promised_signed(const struct audit *a)
{
    return a->writer && a->writer->release == RELEASE_SIGNED;
}

/*
 * This record says that a key had left.  Where that was promised (held), it left when a checkpoint
 * over record seq, which let it out, was on the disk, and the log was no longer then than it is
 * here: so the newest note so far covers it.
 */
static void check_release(struct audit *a, uint64_t seq, bool held, const char *left)
{
    if (seq < a->covered || seq == BEFORE || a->root_differs)
        return;
    a->counts.early++;
    if (held)
        audit_fail(a, "release",
                   "expected a checkpoint over record %" PRIu64
                   " before %s, found the newest one of size %" PRIu64,
                   seq, left, a->covered);
}

static void on_sent(struct audit *a, const struct record *r)
{
    struct message *m = follows(a, r, "sent", "request.answered");

    a->counts.sent++;
    if (!m)
        return;
    /* A repeat may be written in another form, so only an answer that was never repeated tells. */
    if (m->repeats == 0 && m->out != first_octets(str(r, "out")))
        audit_fail(a, "sent", "expected out as in record %" PRIu64 ", found %s", m->seq,
                   str(r, "out"));
    check_release(a, m->seq, promised_signed(a), "its answer was sent");
    m->done_us = a->t_us;
    m->state = STATE_SENT;
}

static void check_repeat_of(struct audit *a, const char *check, const char *name, uint64_t gone_seq,
                            uint64_t after)
{
    if (after >= gone_seq)
        audit_fail(a, check,
                   "expected no repeat with %s since it was withdrawn in record %" PRIu64
                   ", found one decided after record %" PRIu64,
                   name, gone_seq, after);
}

/*
 * Repeats are recorded when they have been given, and nothing waits for that: the key may have been
 * destroyed, its KEK retired or the BSA disabled between the answer and its record.  What was
 * withdrawn when it was decided, field after tells.
 */
static void check_repeat(struct audit *a, const struct record *r, const struct message *m,
                         uint64_t after)
{
    const char *peer = str(r, "peer");
    const struct party *bsa = bsa_of(a, peer);
    const struct party *kek = &a->kek[m->kek];
    const struct tek *tek = &a->tek[m->tek];

    if (tek->destroyed)
        check_repeat_of(a, "tek", pool_text(a->teks, m->tek), tek->destroyed_seq, after);
    if (kek->standing == STANDING_GONE)
        check_repeat_of(a, "kek", pool_text(a->keks, m->kek), kek->gone_seq, after);
    if (bsa && bsa->standing == STANDING_GONE)
        check_repeat_of(a, "bsa", peer, bsa->gone_seq, after);
}

/* Whether field after names a record of this epoch; one before this record it has to be. */
static bool decided_after(struct audit *a, const struct record *r, uint64_t *ret_seq)
{
    const char *text = str(r, "after");
    uint64_t epoch = 0;

    if (!text)
        return false;
    (void)ref_read(text, &epoch, ret_seq);
    if (epoch < a->epoch || (epoch == a->epoch && *ret_seq < a->seq))
        return epoch == a->epoch;
    audit_fail(a, "repeated", "expected an earlier record in field after, found %s", text);
    return false;
}

static void on_repeated(struct audit *a, const struct record *r)
{
    struct message *m = follows(a, r, "repeated", "request.answered");
    const char *keyid = str(r, "keyid");
    uint64_t after = 0;
    bool decided_here = decided_after(a, r, &after);

    a->counts.repeated++;
    if (!m)
        return;
    m->repeats++;
    check_release(a, m->seq, promised_signed(a), "its answer was repeated");
    if (keyid && strcmp(keyid, pool_text(a->teks, m->tek)) != 0)
        audit_fail(a, "repeated", "expected key %s as in record %" PRIu64 ", found %s",
                   pool_text(a->teks, m->tek), m->seq, keyid);
    if (decided_here)
        check_repeat(a, r, m, after);
}

static void on_refused(struct audit *a, const struct record *r)
{
    uint64_t count = 1;

    if (!record_get_int(r, "count", &count) && !record_has(r, "cert"))
        audit_fail(a, "field", "expected cert or count, found neither");
    a->counts.refused += count;
}

static void on_tls_refused(struct audit *a, const struct record *r)
{
    uint64_t count = 0;

    (void)record_get_int(r, "count", &count);
    a->counts.strangers += count;
}

bool is_attested(const struct audit *a, uint64_t seq)
{
    size_t low = 0, high = a->recovered.n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (a->recovered.span[middle].to < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low == a->recovered.n || a->recovered.span[low].from > seq;
}

enum delivery_state state_of(const struct audit *a, const struct message *m)
{
    if (m->state == STATE_CONFIRMED && !is_attested(a, m->confirmed))
        return STATE_UNKNOWN;
    return (enum delivery_state)m->state;
}

static void on_prepared(struct audit *a, const struct record *r)
{
    struct message *m = key_given(a, r, DIR_PUSH, period_of(r));

    a->counts.prepared++;
    if (!m)
        return;
    m->state = STATE_PREPARED;
    m->held = promised_signed(a);
}

/* It may have been pushed before its epoch began, under a checkpoint of the one before. */
static void on_carried(struct audit *a, const struct record *r)
{
    struct message *m = key_given(a, r, DIR_PUSH, period_of(r));
    uint64_t epoch = 0, seq = 0;

    a->counts.prepared++;
    (void)ref_read(str(r, "ref"), &epoch, &seq);
    if (epoch >= a->epoch)
        audit_fail(a, "delivery", "expected a record of an earlier epoch to be carried, found %s",
                   str(r, "ref"));
    if (!m)
        return;
    m->state = STATE_PREPARED;
    m->attempted = BEFORE;
}

/* The delivery that this is about.  One that was confirmed stays so; no other event comes after. */
static struct message *delivery(struct audit *a, const struct record *r)
{
    struct message *m = follows(a, r, "delivery", "delivery.prepared");

    if (!m)
        return NULL;
    if (state_of(a, m) == STATE_CONFIRMED || m->dir != DIR_PUSH) {
        audit_fail(a, "delivery",
                   "expected no %s of a message that was %s in record %" PRIu64 ", found it",
                   record_event(r), m->dir != DIR_PUSH ? "an answer" : "confirmed; prepared",
                   m->seq);
        return NULL;
    }
    return m;
}

/* An answer of the BSA's follows from something that it was sent. */
static void check_attempted(struct audit *a, const struct record *r, const struct message *m,
                            const char *what)
{
    if (m->attempted == NONE)
        audit_fail(a, "delivery",
                   "expected delivery.attempt before %s of record %" PRIu64 ", found none",
                   record_event(r), m->seq);
    else
        check_release(a, m->attempted, m->held, what);
}

/* What is under way is of this epoch, so that none that was open at the end of the one before can
 * be left out: only one that had been given up is still confirmed under its old place. */
static void check_carried(struct audit *a, const struct record *r)
{
    uint64_t epoch = 0, seq = 0;

    (void)ref_read(str(r, "ref"), &epoch, &seq);
    if (epoch < a->epoch)
        audit_fail(a, "delivery",
                   "expected %s of what was prepared in this epoch or carried into it, found it of "
                   "%s",
                   record_event(r), str(r, "ref"));
}

static void on_attempt(struct audit *a, const struct record *r)
{
    struct message *m = delivery(a, r);

    check_carried(a, r);
    if (!m)
        return;
    m->state = STATE_IN_FLIGHT;
    m->repeats++;
    if (m->attempted == NONE)
        m->attempted = a->seq;
    m->held = m->held && promised_signed(a);
}

static void on_confirmed(struct audit *a, const struct record *r)
{
    struct message *m = delivery(a, r);
    bool late = false;

    (void)record_get_bool(r, "late", &late);
    if (!late)
        check_carried(a, r);
    if (!m)
        return;
    check_attempted(a, r, m, "it was confirmed");
    if (m->out != first_octets(str(r, "out")))
        audit_fail(a, "delivery", "expected out as in record %" PRIu64 ", found %s", m->seq,
                   str(r, "out"));
    m->state = STATE_CONFIRMED;
    m->confirmed = a->seq;
    m->done_us = a->t_us;
}

/* Of what was given up it is recorded, and changes nothing. */
static void on_rejected(struct audit *a, const struct record *r)
{
    struct message *m = delivery(a, r);

    if (!m)
        return;
    check_attempted(a, r, m, "it was rejected");
    if (m->state != STATE_UNCONFIRMED && m->state != STATE_ABANDONED)
        m->state = STATE_REJECTED;
}

static void delivery_becomes(struct audit *a, const struct record *r, enum delivery_state state)
{
    struct message *m = delivery(a, r);

    if (m)
        m->state = (uint8_t)state;
}

static void on_unconfirmed(struct audit *a, const struct record *r)
{
    delivery_becomes(a, r, STATE_UNCONFIRMED);
}

static void on_abandoned(struct audit *a, const struct record *r)
{
    delivery_becomes(a, r, STATE_ABANDONED);
}

static void on_unknown(struct audit *a, const struct record *r)
{
    delivery_becomes(a, r, STATE_UNKNOWN);
}

static void on_confirm_duplicate(struct audit *a, const struct record *r)
{
    (void)follows(a, r, "delivery", "delivery.prepared");
}

static void (*const handlers[EVENT_COUNT])(struct audit *a, const struct record *r) = {
    [EVENT_LOG_OPENED] = on_opened,
    [EVENT_LOG_SIGNKEY] = on_signkey,
    [EVENT_AUDIT_GAP] = on_gap,
    [EVENT_TEK_GENERATED] = on_generated,
    [EVENT_TEK_REWRAPPED] = on_rewrapped,
    [EVENT_TEK_DESTROYED] = on_destroyed,
    [EVENT_KEK_ADDED] = on_kek_added,
    [EVENT_KEK_RETIRED] = on_kek_retired,
    [EVENT_BSA_ENROLLED] = on_bsa_enrolled,
    [EVENT_BSA_DISABLED] = on_bsa_disabled,
    [EVENT_REQUEST_ANSWERED] = on_answered,
    [EVENT_ANSWER_SENT] = on_sent,
    [EVENT_REQUEST_REPEATED] = on_repeated,
    [EVENT_REQUEST_REFUSED] = on_refused,
    [EVENT_DELIVERY_PREPARED] = on_prepared,
    [EVENT_DELIVERY_CARRIED] = on_carried,
    [EVENT_DELIVERY_ATTEMPT] = on_attempt,
    [EVENT_DELIVERY_CONFIRMED] = on_confirmed,
    [EVENT_DELIVERY_REJECTED] = on_rejected,
    [EVENT_DELIVERY_UNCONFIRMED] = on_unconfirmed,
    [EVENT_DELIVERY_ABANDONED] = on_abandoned,
    [EVENT_DELIVERY_UNKNOWN] = on_unknown,
    [EVENT_CONFIRM_DUPLICATE] = on_confirm_duplicate,
    [EVENT_TLS_REFUSED] = on_tls_refused,
};

void rules_apply(struct audit *a, const struct record *r, enum event_id ev)
{
    if (handlers[ev])
        handlers[ev](a, r);
}

bool is_pending(enum delivery_state state)
{
    return state == STATE_PREPARED || state == STATE_IN_FLIGHT || state == STATE_REJECTED ||
           state == STATE_UNKNOWN;
}

void rules_finish(struct audit *a)
{
    size_t n = pool_count(a->messages);

    for (size_t id = 0; id < n; id++) {
        const struct message *m = &a->message[id];
        enum delivery_state state = state_of(a, m);

        if (m->dir != DIR_PUSH)
            continue;
        a->counts.confirmed += state == STATE_CONFIRMED;
        a->counts.pending += is_pending(state);
        a->counts.doubtful += is_pending(state) && m->confirmed != NONE;
    }
}
