/*
 * The signer thread: makes the blocking calls of store_signer, one at a time, checks what comes
 * back, and wakes the store thread.
 *
 *     IDLE  -- signer_begin() -->  BUSY  -- the thread -->  DONE  -- signer_collect() -->  IDLE
 *
 * The job belongs to the store thread in IDLE and to the signer thread otherwise.
 */
#include "internal.h"

#include <assert.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* ---- the thread ------------------------------------------------------------------------------ */

/* A line of each key that is set, and no other. */
static int check_lines(const struct store *s, const struct note *n)
{
    size_t wanted = 0;
    int r = 0;

    for (enum store_key k = 0; r == 0 && k < STORE_KEYS; k++) {
        if (!signkey_is_set(s, k))
            continue;
        wanted++;
        r = note_verify(n, s->keys.token[k].key);
    }
    return r == 0 && n->n_signatures != wanted ? TEKD_ECRYPTO : r;
}

/* The note has to say what we would say, with signatures that verify. */
static int check_note(struct store *s, struct sign_job *job)
{
    struct merkle_hash root;
    int r;

    job->new_range = job->range;
    for (size_t i = 0; i < job->n; i++)
        merkle_range_append(&job->new_range, &job->leaves[i]);
    merkle_range_root(&job->new_range, &root);
    r = check_lines(s, &job->note);
    if (r < 0) {
        log_event(LOG_ERROR, "store", "checkpoint-refused",
                  LOG_STR("why", "its signature does not verify"));
        return TEKD_EHSM;
    }
    if (strcmp(job->note.origin, job->last.origin) != 0 || job->note.size != job->new_range.size ||
        memcmp(&job->note.root, &root, sizeof(root)) != 0) {
        log_event(LOG_ERROR, "store", "checkpoint-refused", LOG_STR("why", "it signs another tree"),
                  LOG_INT("expected", job->new_range.size), LOG_INT("found", job->note.size));
        return TEKD_ETAMPER;
    }
    return 0;
}

static int do_job(struct store *s, struct sign_job *job)
{
    struct hsm_checkpoint in = {
        .last = &job->last, .range = &job->range, .leaves = job->leaves, .n = job->n};
    int r = signkey_learn(s, job->deadline_us, &job->learnt);

    if (r == 0)
        r = s->o.signer.sign(s->o.signer.arg, &in, job->deadline_us, &job->note);
    return r < 0 ? r : check_note(s, job);
}

static bool wait_for_job(struct signer *g)
{
    bool quit;

    pthread_mutex_lock(&g->lock);
    while (!g->quit && g->state != SIGNER_BUSY)
        pthread_cond_wait(&g->changed, &g->lock);
    quit = g->quit;
    pthread_mutex_unlock(&g->lock);
    return !quit;
}

static void *signer_thread(void *arg)
{
    struct store *s = arg;
    struct signer *g = &s->signer;

    (void)pthread_setname_np(pthread_self(), "signer");
    while (wait_for_job(g)) {
        int r = do_job(s, &g->job);

        pthread_mutex_lock(&g->lock);
        g->job.result = r;
        g->state = SIGNER_DONE;
        pthread_cond_broadcast(&g->changed);
        pthread_mutex_unlock(&g->lock);
        loop_wake(s);
    }
    return NULL;
}

/* ---- from the store thread ------------------------------------------------------------------- */

void signer_init(struct store *s)
{
    struct signer *g = &s->signer;
    pthread_condattr_t attr;
    int r = pthread_mutex_init(&g->lock, NULL);

    assert(r == 0);
    r = pthread_condattr_init(&attr);
    assert(r == 0);
    r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    assert(r == 0);
    r = pthread_cond_init(&g->changed, &attr);
    assert(r == 0);
    (void)pthread_condattr_destroy(&attr);
}

void signer_destroy(struct store *s)
{
    (void)pthread_cond_destroy(&s->signer.changed);
    (void)pthread_mutex_destroy(&s->signer.lock);
}

int signer_start(struct store *s)
{
    int error = pthread_create(&s->signer.thread, NULL, signer_thread, s);

    if (error != 0) {
        log_event(LOG_ERROR, "store", "thread", LOG_STR("call", "pthread_create"),
                  LOG_STR("errno", strerrorname_np(error)));
        return TEKD_ENOMEM;
    }
    s->signer.started = true;
    return 0;
}

void signer_stop(struct store *s)
{
    struct signer *g = &s->signer;

    if (!g->started)
        return;
    pthread_mutex_lock(&g->lock);
    g->quit = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
    (void)pthread_join(g->thread, NULL);
    g->started = false;
}

int signer_begin(struct store *s, int64_t now)
{
    struct signer *g = &s->signer;
    struct sign_job *job = &g->job;
    const struct tree *t = &s->tree;
    uint64_t n = t->size - t->note.size;
    int r;

    job->n = n < HSM_LEAVES_MAX ? (size_t)n : HSM_LEAVES_MAX;
    job->last = t->note;
    job->range = t->range;
    job->deadline_us = now + SIGN_US;
    if (s->stop_us != 0 && job->deadline_us > s->stop_us)
        job->deadline_us = s->stop_us;
    job->learnt = false;
    r = audit_leaves(s, t->note.size, job->leaves, job->n);
    if (r < 0)
        return r;
    pthread_mutex_lock(&g->lock);
    assert(g->state == SIGNER_IDLE);
    g->state = SIGNER_BUSY;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
    return 0;
}

bool signer_collect(struct store *s, const struct timespec *until)
{
    struct signer *g = &s->signer;
    bool have;

    pthread_mutex_lock(&g->lock);
    while (until != NULL && g->state == SIGNER_BUSY &&
           pthread_cond_timedwait(&g->changed, &g->lock, until) == 0)
        ;
    have = g->state == SIGNER_DONE;
    if (have)
        g->state = SIGNER_IDLE;
    pthread_mutex_unlock(&g->lock);
    return have;
}
