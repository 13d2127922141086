/*
 * The store thread: takes items, runs reads at once and batches when they are due, keeps the signer
 * busy, and when the queue was closed ends the log.
 */
#include "internal.h"

#include <stdio.h>
#include <time.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define POP_MAX 512

static int64_t min_us(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- state ----------------------------------------------------------------------------------- */

void loop_latch(struct store *s, int error, const char *why)
{
    if (s->latched < 0)
        return;
    s->latched = error;
    log_event(LOG_ERROR, "store", "latched", LOG_STR("error", tekd_errname(error)),
              LOG_STR("why", why));
    items_settle_all(s, &s->waiting, TEKD_EIO);
    loop_publish(s);
    if (s->started && s->o.fatal != NULL)
        s->o.fatal(s->o.fatal_arg, error);
}

/* Whose the lines of the newest note are: in the order of the keys, if it was made with them. */
static void tell_signers(const struct store *s, struct store_status *st)
{
    const struct note *n = &s->tree.note;

    st->n_signers = n->n_signatures;
    for (size_t i = 0; i < st->n_signers; i++) {
        memcpy(st->signer[i], n->signature[i].key_id, sizeof(st->signer[i]));
        st->signer_key[i] = STORE_KEYS;
    }
    for (enum store_key k = 0, i = 0; s->tree.note_made && k < STORE_KEYS; k++) {
        if (signkey_is_set(s, k) && i < st->n_signers)
            st->signer_key[i++] = k;
    }
}

/* What store_ready() says: the code, and the reason for people. */
static int readiness(const struct store *s, const char **ret_reason)
{
    static const struct {
        int code;
        const char *reason;
    } states[] = {
        {TEKD_EIO, "the store has failed and must be checked and started anew"},
        {TEKD_EFULL, "the database cannot be written: no space"},
        {TEKD_EFULL, "too little free space on the database's volume"},
        {TEKD_EHSM, "the HSM does not sign checkpoints"},
    };
    const bool is[] = {s->latched < 0, s->full, s->low, batch_signer_late(s)};

    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        if (is[i]) {
            *ret_reason = states[i].reason;
            return states[i].code;
        }
    }
    *ret_reason = "";
    return 0;
}

void loop_publish(struct store *s)
{
    struct public_state *p = &s->public;
    struct store_status *st = &p->status;
    const char *reason;

    pthread_mutex_lock(&p->lock);
    p->ready = readiness(s, &reason);
    (void)snprintf(st->reason, sizeof(st->reason), "%s", reason);
    st->epoch = s->tree.epoch;
    st->epoch_utc_us = s->tree.opened_utc_us;
    st->records = s->tree.size;
    st->closed_records = s->epoch.last.size;
    st->signed_size = s->tree.signed_size;
    st->checkpoint_utc_us = s->tree.checkpoint_utc_us;
    tell_signers(s, st);
    st->batches = s->batches;
    st->items = s->items;
    st->losers = s->losers;
    st->db_octets = s->db_octets;
    st->free_octets = s->free_octets;
    st->rehashed = s->idle.rehashed + s->idle.range.size;
    st->latched = s->latched < 0;
    st->full = s->full || s->low;
    pthread_mutex_unlock(&p->lock);
}

void loop_wake(struct store *s)
{
    if (!atomic_exchange(&s->wake_queued, true))
        (void)queue_push(s->queue, &s->wake);
}

/* ---- gathering ------------------------------------------------------------------------------- */

/* Items that wait for a signature which is not under way. */
static size_t gathered(const struct store *s)
{
    return s->pending_signed + (s->job_since_us == 0 ? s->waiting.n : 0);
}

static int64_t gather_end(const struct store *s)
{
    return s->gather_since_us + min_us(2 * (s->commit_us + s->sign_us), STORE_GATHER_US);
}

/* How many more items are worth waiting for; 0: none. */
static size_t gather_more(const struct store *s, int64_t now)
{
    int64_t expected = atomic_load(&s->expected);
    int64_t here = (int64_t)gathered(s);

    if (here == 0 || expected <= here || s->gather_since_us == 0 || now >= gather_end(s) ||
        s->epoch.state != EPOCH_OPEN)
        return 0;
    /* Each that comes is one that waits more and one that is expected less. */
    return (size_t)((expected - here + 1) / 2);
}

/* ---- the signer ------------------------------------------------------------------------------ */

/* When the next signature is wanted, if there are leaves to sign. */
static int64_t sign_due(const struct store *s)
{
    int64_t due = 0;

    if (s->waiting.n == 0 && s->tree.note.size >= s->sign_until && s->epoch.state == EPOCH_OPEN)
        due = s->tree.unsigned_since_us + s->checkpoint_delay_us;
    return due > s->retry_us ? due : s->retry_us;
}

bool loop_sign_wanted(const struct store *s, int64_t now)
{
    const struct tree *t = &s->tree;

    return s->latched == 0 && s->job_since_us == 0 && t->note_committed && t->size > t->note.size &&
           now >= sign_due(s) && gather_more(s, now) == 0;
}

static void sign_failed(struct store *s, int64_t now, int error)
{
    if (s->failing_since_us == 0) {
        s->failing_since_us = s->job_since_us;
        s->retry_delay_us = SIGN_RETRY_MIN_US;
        log_event(LOG_WARN, "store", "checkpoint-failed", LOG_STR("error", tekd_errname(error)));
    }
    s->retry_us = now + s->retry_delay_us;
    s->retry_delay_us = min_us(2 * s->retry_delay_us, SIGN_RETRY_MAX_US);
}

void loop_signed(struct store *s, int64_t now)
{
    struct sign_job *job = &s->signer.job;
    struct tree *t = &s->tree;

    if (job->learnt)
        signkey_learnt(s);
    if (job->result == TEKD_ETAMPER) {
        loop_latch(s, TEKD_ETAMPER, "the signer contradicts the log");
    } else if (job->result < 0) {
        sign_failed(s, now, job->result);
    } else {
        s->sign_us = now - s->job_since_us;
        t->note = job->note;
        t->range = job->new_range;
        t->note_committed = false;
        t->note_made = true;
        /* What is left was committed while the job was under way. */
        t->unsigned_since_us = t->size > t->note.size ? s->job_since_us : 0;
        if (s->failing_since_us != 0)
            log_event(LOG_INFO, "store", "checkpoint-again", LOG_INT("size", t->note.size));
        s->failing_since_us = 0;
        s->retry_us = 0;
        s->signer_down = false;
    }
    s->job_since_us = 0;
}

/* A signer that hangs or fails for longer than one call may take: nobody is kept waiting for it. */
static void watch_signer(struct store *s, int64_t now)
{
    int64_t since = s->failing_since_us != 0 ? s->failing_since_us : s->job_since_us;

    if (since == 0 || now - since <= SIGN_US)
        return;
    if (!s->signer_down)
        log_event(LOG_ERROR, "store", "signer-down",
                  LOG_INT("unsigned", s->tree.size - s->tree.note.size));
    s->signer_down = true;
    items_settle_all(s, &s->waiting, TEKD_EHSM);
    s->waiting_deadline_us = INT64_MAX;
}

static void begin_signing(struct store *s, int64_t now)
{
    int r = signer_begin(s, now);

    if (r < 0) {
        loop_latch(s, r, "the leaves to sign cannot be read");
        return;
    }
    s->job_since_us = now;
    s->gather_since_us = s->pending_signed > 0 ? now : 0;
}

/* ---- batches --------------------------------------------------------------------------------- */

static bool batch_due(const struct store *s, int64_t now)
{
    if (s->latched < 0)
        return false;
    if (s->pending_durable > 0 && s->epoch.state == EPOCH_OPEN)
        return true;
    if (s->full)
        return now >= s->probe_us;
    if (s->epoch.state != EPOCH_OPEN)
        return !s->tree.note_committed || epoch_step_due(s);
    if (!s->tree.note_committed || s->own_urgent || signkey_due(s))
        return true;
    /* With the signature its checkpoint and these items share one sync. */
    if (s->pending_signed > 0 && gather_more(s, now) == 0)
        return s->job_since_us == 0 || s->o.release == STORE_RELEASE_DURABLE ||
               now - s->job_since_us >= SIGN_PATIENCE_US;
    return s->lazy_since_us != 0 && now - s->lazy_since_us >= STORE_LAZY_US;
}

/* When what is pending is due, a signature that comes aside. */
static int64_t pending_us(const struct store *s)
{
    int64_t due = INT64_MAX;

    if (s->epoch.state != EPOCH_OPEN)
        return s->epoch.pending_us;
    if (s->lazy_since_us != 0 && !s->full)
        due = s->lazy_since_us + STORE_LAZY_US;
    if (s->job_since_us != 0 && s->pending_signed > 0)
        due = min_us(due, s->job_since_us + SIGN_PATIENCE_US);
    return due;
}

/* When something is due if nobody comes. */
static int64_t next_us(const struct store *s, int64_t now)
{
    const struct tree *t = &s->tree;
    int64_t next = min_us(tick_next(s), s->waiting_deadline_us);

    if (s->latched < 0)
        return now + TICK_US;
    if (batch_due(s, now) || loop_sign_wanted(s, now))
        return 0;
    if (s->full)
        next = min_us(next, s->probe_us);
    next = min_us(next, pending_us(s));
    if (gather_more(s, now) > 0)
        next = min_us(next, gather_end(s));
    if (s->job_since_us != 0 && !s->signer_down)
        next = min_us(next, s->job_since_us + SIGN_US + 1);
    if (s->failing_since_us != 0 && !s->signer_down)
        next = min_us(next, s->failing_since_us + SIGN_US + 1);
    if (s->job_since_us == 0 && t->note_committed && t->size > t->note.size &&
        gather_more(s, now) == 0)
        next = min_us(next, sign_due(s));
    if (idle_has_work(s, now))
        next = min_us(next, now + IDLE_US);
    return next > now ? next : now + 1;
}

static void take(struct store *s, struct store_item *item)
{
    int refusal;

    if (item == &s->wake) {
        atomic_store(&s->wake_queued, false);
        return;
    }
    if (item->wait == STORE_READ) {
        batch_read(s, item);
        return;
    }
    refusal = batch_refusal(s, item);
    if (refusal < 0) {
        batch_refuse(s, item, refusal);
        return;
    }
    items_put(&s->pending, item);
    if (item->wait == STORE_DURABLE)
        s->pending_durable++;
    else if (item->wait == STORE_SIGNED)
        s->pending_signed++;
    if (s->lazy_since_us == 0)
        s->lazy_since_us = clock_mono_us();
    if (item->wait == STORE_SIGNED && s->gather_since_us == 0)
        s->gather_since_us = clock_mono_us();
}

static void tidy(struct store *s, enum db_moment moment)
{
    int r = s->latched == 0 ? db_driver(s->db)->tidy(s->db, moment) : 0;

    if (r == TEKD_EIO || r == TEKD_EINTERNAL)
        loop_latch(s, r, "the log of the database cannot be copied back");
}

static void work(struct store *s, bool idle)
{
    int64_t now = clock_mono_us();

    if (signer_collect(s, NULL))
        loop_signed(s, now);
    watch_signer(s, now);
    items_expire(s, now);
    if (s->latched == 0) {
        tick_run(s, now);
        epoch_look(s);
    }
    if (batch_due(s, now)) {
        (void)batch_run(s);
        s->commit_us = clock_mono_us() - now;
    }
    if (atomic_exchange(&s->checkpoint_asked, false))
        s->sign_until = s->tree.size;
    now = clock_mono_us();
    if (loop_sign_wanted(s, now))
        begin_signing(s, now);
    tidy(s, idle ? DB_IDLE : DB_BUSY);
    if (idle_has_work(s, now) && (idle || now - s->idle.last_us >= IDLE_FORCED_US))
        idle_run(s, now);
    if (s->latched < 0)
        items_settle_all(s, &s->pending, TEKD_EIO);
    loop_publish(s);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* A checkpoint over everything, if the signer makes it in time. */
static void sign_all(struct store *s, const struct timespec *until)
{
    while (s->latched == 0) {
        if (!s->tree.note_committed && batch_run(s) < 0)
            return;
        if (s->tree.note.size == s->tree.size)
            return;
        if (s->job_since_us == 0)
            begin_signing(s, clock_mono_us());
        if (s->latched < 0 || !signer_collect(s, until))
            return;
        loop_signed(s, clock_mono_us());
        if (s->failing_since_us != 0) /* the next start adopts what is not signed */
            return;
    }
}

/* log.stopped, and a checkpoint over everything, committed together with the mark of a clean end.
 */
static void end_log(struct store *s, const struct timespec *until)
{
    tick_clock(s, clock_mono_us()); /* what explains the time of log.stopped stands before it */
    if (audit_own_event(s, "log.stopped", true) < 0 || batch_run(s) < 0)
        return;
    s->stopping = true;
    sign_all(s, until);
}

/* Nothing may follow log.closed: the end of this run stands in the next epoch, or, if that cannot
 * be opened now, nowhere, and the next start opens it. */
static void end_closing(struct store *s, const struct timespec *until)
{
    epoch_resume(s);
    if (s->epoch.state == EPOCH_OPEN)
        return;
    sign_all(s, until);
    if (epoch_step_due(s))
        (void)batch_run(s);
}

/* Why what is left was not written. */
static int unwritten(const struct store *s)
{
    if (s->latched < 0)
        return TEKD_EIO;
    return s->epoch.state != EPOCH_OPEN && !s->full ? TEKD_EHSM : TEKD_EFULL;
}

/* What was not written comes to nothing before log.stopped does: no record may follow that. */
static void give_up_pending(struct store *s)
{
    struct store_item *item;

    audit_gap(s, atomic_exchange(&s->queue_gap, 0));
    while ((item = items_take(&s->pending)) != NULL) {
        batch_count_taken(s, item);
        batch_refuse(s, item, unwritten(s));
    }
}

/* All signatures of a stop share its time. */
static struct timespec stop_time(struct store *s)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += STOP_SIGN_US / 1000000;
    until.tv_nsec += (long)(STOP_SIGN_US % 1000000) * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    s->stop_us = clock_mono_us() + STOP_SIGN_US;
    return until;
}

static void finish(struct store *s)
{
    const struct timespec until = stop_time(s);

    if (s->latched == 0)
        end_closing(s, &until);
    while (s->pending.n > 0 && s->latched == 0 && s->epoch.state == EPOCH_OPEN && batch_run(s) == 0)
        ;
    give_up_pending(s);
    if (s->latched == 0 && s->epoch.state == EPOCH_OPEN)
        end_log(s, &until);
    items_settle_all(s, &s->waiting, s->latched < 0 ? TEKD_EIO : TEKD_EHSM);
    if (s->latched == 0)
        anchor_write(s);
    tidy(s, DB_CLOSING);
    loop_publish(s);
}

void *loop_thread(void *arg)
{
    struct store *s = arg;
    void *entries[POP_MAX];
    int r;

    (void)pthread_setname_np(pthread_self(), "store");
    do {
        int64_t now = clock_mono_us();
        size_t n = 0;

        queue_patience(s->queue, gather_more(s, now));
        r = queue_pop_many(s->queue, next_us(s, now), entries, POP_MAX, &n);
        for (size_t i = 0; r == 0 && i < n; i++)
            take(s, entries[i]);
        if (r != TEKD_ECLOSED)
            work(s, r == TEKD_ETIMEDOUT && s->pending_durable + s->pending_signed == 0);
    } while (r != TEKD_ECLOSED);
    finish(s);
    return NULL;
}
