/*
 * The life of the service, and its thread: what other threads have left, what time has brought,
 * then the transfers, which also wait.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

struct moment moment_now(void)
{
    return (struct moment){.mono_us = clock_mono_us(), .utc_us = clock_utc_us()};
}

/* ---- from other threads ---------------------------------------------------------------------- */

void push_wake(struct push *p)
{
    transfers_wake(p->transfers);
}

static void put_poke(struct push *p, struct poke poke)
{
    (void)pthread_mutex_lock(&p->lock);
    if (p->n_pokes < PUSH_POKES_MAX)
        p->poke[p->n_pokes++] = poke;
    else
        p->poke_all = true;
    (void)pthread_mutex_unlock(&p->lock);
    push_wake(p);
}

void push_poke(struct push *p, int64_t bsa)
{
    put_poke(p, (struct poke){.bsa = bsa});
}

void push_hurry(struct push *p, int64_t bsa)
{
    put_poke(p, (struct poke){.bsa = bsa, .hurry = true});
}

/* The key service has something new. */
static void on_delivery(void *arg, int64_t bsa)
{
    struct push *p = arg;

    if (bsa == 0)
        jobs_wake(p->jobs);
    else
        push_poke(p, bsa);
}

/* ---- errands --------------------------------------------------------------------------------- */

void errand_return(struct errand *e, int result)
{
    struct push *p = e->push;

    e->result = result;
    e->next = NULL;
    (void)pthread_mutex_lock(&p->lock);
    *p->last_returned = e;
    p->last_returned = &e->next;
    (void)pthread_mutex_unlock(&p->lock);
    push_wake(p);
}

static void on_done(struct store_item *self, int result)
{
    errand_return((struct errand *)self, result);
}

void errand_out(struct push *p, struct errand *e)
{
    e->push = p;
    p->errands++;
}

void errand_go(struct push *p, struct errand *e, enum store_wait wait)
{
    int r;

    errand_out(p, e);
    e->item.done = on_done;
    e->item.wait = wait;
    r = store_submit(p->store, &e->item);
    if (r < 0)
        errand_return(e, r);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* What was in the inbox. */
struct inbox {
    struct errand *returned;
    struct push_poll *polls;
    struct poke poke[PUSH_POKES_MAX];
    size_t n_pokes;
    bool poke_all;
};

static void take_inbox(struct push *p, struct inbox *ret_inbox)
{
    (void)pthread_mutex_lock(&p->lock);
    ret_inbox->returned = p->returned;
    ret_inbox->polls = p->polls;
    ret_inbox->n_pokes = p->n_pokes;
    ret_inbox->poke_all = p->poke_all;
    memcpy(ret_inbox->poke, p->poke, p->n_pokes * sizeof(p->poke[0]));
    p->returned = NULL;
    p->last_returned = &p->returned;
    p->polls = NULL;
    p->last_poll = &p->polls;
    p->n_pokes = 0;
    p->poke_all = false;
    (void)pthread_mutex_unlock(&p->lock);
}

static void bring_back(struct push *p, struct errand *list)
{
    while (list) {
        struct errand *next = list->next;
        p->errands--;
        list->back(list);
        list = next;
    }
}

/* Lanes are marked before errands come back, and worked on after it: one look does for both. */
static void drain(struct push *p)
{
    struct inbox in;
    struct moment now;

    take_inbox(p, &in);
    for (size_t i = 0; i < in.n_pokes; i++) {
        struct lane *l = lane_get(p, in.poke[i].bsa);
        if (!l)
            continue;
        l->look = true;
        if (in.poke[i].hurry)
            l->paused_until_us = l->again_us = 0;
    }
    p->look_all = p->look_all || in.poke_all;
    bring_back(p, in.returned);
    collect_take(p, in.polls);
    now = moment_now();
    for (size_t i = 0; i < in.n_pokes; i++) {
        struct lane *l = lane_get(p, in.poke[i].bsa);
        if (l)
            lane_work(p, l, &now);
    }
}

/* The first step of a stop. */
static void begin_to_stop(struct push *p)
{
    if (p->cut_us != 0 || !atomic_load(&p->stop))
        return;
    p->cut_us = p->stop_us;
    collect_end(p);
}

static bool is_over(struct push *p, const struct moment *now)
{
    if (p->cut_us == 0)
        return false;
    if (p->cut_us <= now->mono_us)
        transfers_cut(p->transfers);
    return p->errands == 0 && transfers_count(p->transfers) == 0;
}

static int64_t min_us(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void *run(void *arg)
{
    struct push *p = arg;
    struct moment now = moment_now();

    (void)pthread_setname_np(pthread_self(), "push");
    while (!is_over(p, &now)) {
        int64_t wait_us = PUSH_TICK_US;

        begin_to_stop(p);
        drain(p);
        now = moment_now();
        wait_us = min_us(wait_us, lanes_turn(p, &now));
        wait_us = min_us(wait_us, watch_turn(p, &now));
        transfers_turn(p, wait_us);
        now = moment_now();
    }
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int copy_options(struct push *p, const struct push_options *o)
{
    if (!o->key_file && !o->signer.sign)
        return TEKD_EINVAL;
    p->keys = o->keys;
    p->store = o->store;
    p->backoff = (struct backoff){.initial_s = o->retry_initial_s, .max_s = o->retry_max_s};
    p->attempt_us = o->attempt_timeout_s * SECOND_US;
    p->deadline_s = o->deadline_s;
    /* A lease, its pause, and a second for clocks that are slewed. */
    p->reach_us = p->attempt_us + o->retry_max_s * SECOND_US + SECOND_US;
    return trust_files_new(o, &p->files);
}

static void init(struct push *p)
{
    (void)pthread_mutex_init(&p->lock, NULL);
    p->last_returned = &p->returned;
    p->last_poll = &p->polls;
    p->earliest_deadline_us = INT64_MAX;
}

static int make_parts(struct push *p, const struct push_options *o)
{
    int r = copy_options(p, o);

    if (r == 0)
        r = trust_new(p->files, &p->trust);
    if (r == 0)
        r = transfers_new(p, &p->transfers);
    if (r == 0)
        r = cp3_reader_new(&p->reader) == 0 ? 0 : TEKD_ENOMEM;
    if (r == 0 && !o->key_file)
        r = signing_new(p, o, &p->signing);
    return r;
}

/* What the last run left is settled before anything new begins, and nothing new is missed. */
static int start_threads(struct push *p)
{
    int r = recover(p);

    if (r == 0)
        r = lanes_load(p);
    if (r == 0)
        r = jobs_new(p, &p->jobs);
    if (r < 0)
        return r;
    keys_on_delivery(p->keys, on_delivery, p);
    r = jobs_start(p->jobs);
    if (r == 0) {
        r = pthread_create(&p->thread, NULL, run, p) == 0 ? 0 : TEKD_ENOMEM;
        p->started = r == 0;
    }
    return r;
}

int push_start(const struct push_options *o, struct push **ret_push)
{
    AUTO(push) struct push *p = calloc(1, sizeof(*p));
    int r;

    if (!p)
        return TEKD_ENOMEM;
    init(p);
    r = make_parts(p, o);
    if (r == 0)
        r = start_threads(p);
    if (r < 0) {
        push_stop(p, clock_mono_us());
        keys_on_delivery(o->keys, NULL, NULL);
        return r;
    }
    *ret_push = TAKE(p);
    return 0;
}

int push_read_files(struct push *p, struct trust **ret_files)
{
    return trust_new(p->files, ret_files);
}

void push_use_files(struct push *p, struct trust *take_files)
{
    struct trust *old;

    (void)pthread_mutex_lock(&p->lock);
    old = p->trust;
    p->trust = take_files;
    (void)pthread_mutex_unlock(&p->lock);
    trust_unref(old);
    log_event(LOG_INFO, "push", "reloaded");
}

void push_drop_files(struct trust *files)
{
    trust_unref(files);
}

void push_stop(struct push *p, int64_t cut_us)
{
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->closed = true;
    (void)pthread_mutex_unlock(&p->lock);
    p->stop_us = cut_us;
    atomic_store(&p->stop, true);
    if (p->started)
        push_wake(p);
    jobs_stop(p->jobs);
    if (p->started) {
        (void)pthread_join(p->thread, NULL);
        p->started = false;
    }
    signing_free(p->signing);
    p->signing = NULL;
}

/* Connections go first: they have references of targets, and these of the trust. */
void push_free(struct push *p)
{
    if (!p)
        return;
    jobs_free(p->jobs);
    transfers_free(p->transfers);
    lanes_free(p);
    trust_unref(p->trust);
    trust_files_free(p->files);
    cp3_reader_free(p->reader);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}
