/*
 * The pool's thread.  It alone speaks to tekd-hsm, starts and ends workers and closes sockets; it
 * sleeps until there is a message, a caller wakes it, or something is due.
 *
 * A worker's life:   NONE -> STARTING -> READY -> DOOMED or RETIRED -> NONE
 * It is asked for at once when a slot is empty, then, as long as no start proves good, after a
 * back-off that doubles.  Good is a worker that answered a call or lived POOL_GOOD_LIFE_US.
 * After recycle_after calls a second worker is started beside the live one, for one slot of the
 * pool at a time, and takes over between two calls.
 *
 * The state that operators see:
 *     READY        each role has a worker
 *     PIN_REFUSED  not so, and the token refused the PIN
 *     DOWN         not so for longer than a call may take, or starts keep failing
 *     STARTING     neither, since the start or hsm_retry()
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "pool.h"
#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

/* A tekd-hsm that says nothing for so long is killed: it never waits for a module. */
#define PING_EVERY_US (2 * INT64_C(1000000))
#define PONG_US       (6 * INT64_C(1000000))

/* ---------------------------------------------------------------- back-off --------- */

/* 0 for the first restart, then restart_min_ms doubling to restart_max_ms, less up to a quarter. */
static int64_t back_off_us(struct hsm *h, unsigned tries)
{
    uint64_t us = (uint64_t)h->set.restart_min_ms * 1000;
    uint64_t max = (uint64_t)h->set.restart_max_ms * 1000;

    if (tries <= 1)
        return 0;
    for (unsigned i = 2; i < tries && us < max; i++)
        us *= 2;
    if (us > max)
        us = max;
    /* xorshift64: so that a rack of servers does not knock in step. */
    h->random ^= h->random << 13;
    h->random ^= h->random >> 7;
    h->random ^= h->random << 17;
    return (int64_t)(us - h->random % (us / 4 + 1));
}

static void set_reason_locked(struct hsm *h, int error, const char *text)
{
    h->error = error;
    (void)snprintf(h->reason, sizeof(h->reason), "%s", text);
}

/* What was wrong is mended; but for a PIN that the next start would need. */
static void clear_reason_locked(struct hsm *h)
{
    if (!h->pin_known || h->pin == CONTROL_PIN_HAVE)
        set_reason_locked(h, 0, "");
}

/* ---------------------------------------------------------------- workers ---------- */

static void send_locked(struct hsm *h, const struct control_message *m, int fd)
{
    int r = h->program.pid == 0 ? TEKD_ECLOSED
                                : control_send(h->program.control, h->control_out, m, fd);

    /* Its end is noticed by reading; its silence by the missing PONG. */
    if (r < 0 && r != TEKD_ECLOSED)
        log_event(LOG_WARN, "hsm", "program-not-listening", LOG_STR("error", tekd_errname(r)));
}

/* The socket is closed, and the process told or made to end. */
static void conn_end_locked(struct hsm *h, struct conn *c)
{
    struct control_message m = {.kind = CONTROL_KILL, .id = c->id};

    m.grace_ms = c->state == CONN_RETIRED ? POOL_GRACE_MS : 0;
    if (c->fd >= 0)
        (void)close(c->fd);
    send_locked(h, &m, -1);
    *c = (struct conn){.fd = -1};
}

static void schedule_locked(struct hsm *h, struct attempts *a, int64_t now)
{
    a->at = now + back_off_us(h, a->tries);
}

static bool set_timeout(int fd, unsigned ms)
{
    struct timeval t = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) == 0;
}

static struct attempts *attempts_of(struct slot *s, const struct conn *c)
{
    return c == &s->live ? &s->first : &s->second;
}

/* Asks tekd-hsm for a worker. */
static void conn_start_locked(struct hsm *h, struct slot *s, struct conn *c)
{
    struct control_message m = {.kind = CONTROL_SPAWN, .id = ++h->last_worker};
    AUTO_FD int theirs = -1;
    int pair[2];

    m.role = s->role;
    attempts_of(s, c)->tries++;
    s->starts++;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        log_event(LOG_ERROR, "hsm", "worker-not-started", LOG_STR("call", "socketpair"),
                  LOG_STR("error", strerrorname_np(errno)));
        s->failing = s->failing || c == &s->live;
        schedule_locked(h, attempts_of(s, c), clock_mono_us() + 1000000);
        return;
    }
    theirs = pair[1];
    *c = (struct conn){.state = CONN_STARTING, .fd = pair[0], .id = m.id};
    if (!set_timeout(c->fd, h->line[s->role].timeout_ms)) {
        c->state = CONN_DOOMED;
        return;
    }
    send_locked(h, &m, theirs);
}

/* The worker in c has gone or is to go, before or after it was ready. */
static void conn_lost_locked(struct hsm *h, struct slot *s, struct conn *c, int64_t now)
{
    struct attempts *a = attempts_of(s, c);
    bool was_ready = c->ready_us > 0;

    if (was_ready && now - c->ready_us > POOL_GOOD_LIFE_US)
        a->tries = 0;
    if (c->state != CONN_RETIRED)
        schedule_locked(h, a, now);
    if (c == &s->live)
        s->failing = !was_ready || a->tries > 1;
    conn_end_locked(h, c);
}

/* ---------------------------------------------------------------- tekd-hsm --------- */

static void program_lost_locked(struct hsm *h, int64_t now)
{
    struct program *p = &h->program;

    log_event(LOG_ERROR, "hsm", "program-lost", LOG_INT("pid", p->pid));
    program_kill(p);
    set_reason_locked(h, TEKD_EHSM, "tekd-hsm ended");
    h->pin_known = false;
    h->retry_open = h->retry_pending; /* what it was told is lost with it */
    if (now - p->started_us > POOL_GOOD_LIFE_US)
        p->starts.tries = 0;
    schedule_locked(h, &p->starts, now);
    for (size_t i = 0; i < h->n_slots; i++) {
        struct slot *s = &h->slot[i];

        /* Its workers die with it; who speaks to one notices by himself. */
        if (s->live.state != CONN_NONE)
            s->live.state = CONN_DOOMED;
        if (s->next.state != CONN_NONE)
            s->next.state = CONN_DOOMED;
        if (s->use == SLOT_OWING)
            s->use = SLOT_FREE;
    }
}

static int program_begin_locked(struct hsm *h, int64_t now)
{
    int r;

    h->program.starts.tries++;
    r = program_start(h);
    if (r < 0) {
        set_reason_locked(h, TEKD_EHSM, "tekd-hsm cannot be started");
        h->program.starts.tries++; /* at once it will not be there either */
        schedule_locked(h, &h->program.starts, now);
    }
    return r;
}

static void ping_locked(struct hsm *h, int64_t now)
{
    struct program *p = &h->program;
    const struct control_message m = {.kind = CONTROL_PING};

    if (p->pid == 0)
        return;
    if (p->pinged) {
        if (now - p->ping_us > PONG_US)
            program_lost_locked(h, now);
        return;
    }
    /* It may be asking a person for the PIN, who takes his time. */
    if (now - p->ping_us < PING_EVERY_US || (h->set.pin_source == HSM_PIN_PROMPT && !p->greeted))
        return;
    p->pinged = true;
    p->ping_us = now;
    send_locked(h, &m, -1);
}

static void retry_locked(struct hsm *h)
{
    struct control_message m = {.kind = CONTROL_RETRY, .id = h->retry};

    if (!h->retry_pending || h->program.pid == 0)
        return;
    m.pin_given = h->retry_fd >= 0;
    h->retry_pending = false;
    send_locked(h, &m, h->retry_fd);
    if (h->retry_fd >= 0)
        (void)close(h->retry_fd);
    h->retry_fd = -1;
}

/* ---------------------------------------------------------------- messages --------- */

struct found {
    struct slot *slot;
    struct conn *conn; /* live or next of it */
};

static bool find_locked(struct hsm *h, uint32_t id, struct found *ret_found)
{
    for (size_t i = 0; i < h->n_slots; i++) {
        struct slot *s = &h->slot[i];

        if (s->live.state != CONN_NONE && s->live.id == id) {
            *ret_found = (struct found){s, &s->live};
            return true;
        }
        if (s->next.state != CONN_NONE && s->next.id == id) {
            *ret_found = (struct found){s, &s->next};
            return true;
        }
    }
    return false;
}

/* Ends a worker that has not served yet; it may be in the middle of its login, which it finishes.
 */
static void give_up_locked(struct hsm *h, struct conn *c)
{
    c->state = CONN_RETIRED;
    conn_end_locked(h, c);
}

/* With a new PIN: starts under way had the old one, and what becomes of them says nothing. */
static void start_over_locked(struct hsm *h)
{
    for (size_t i = 0; i < h->n_slots; i++) {
        struct slot *s = &h->slot[i];

        if (s->live.state == CONN_STARTING || (s->live.state == CONN_DOOMED && s->use == SLOT_FREE))
            give_up_locked(h, &s->live);
        if (s->next.state == CONN_STARTING || s->next.state == CONN_DOOMED)
            give_up_locked(h, &s->next);
    }
    pool_forgive_locked(h);
}

static void on_pin_locked(struct hsm *h, const struct control_message *m)
{
    h->program.greeted = true;
    if (h->retry_open && m->id != h->retry)
        return;
    h->retry_open = false;
    h->pin_known = true;
    h->pin = m->pin.state;
    if (h->pin == CONTROL_PIN_HAVE)
        start_over_locked(h);
    else
        set_reason_locked(h, TEKD_EPIN, m->pin.text);
}

static void on_forked_locked(struct hsm *h, const struct control_message *m)
{
    struct found f;

    if (find_locked(h, m->id, &f) && f.conn->state == CONN_STARTING)
        f.conn->pid = m->pid;
}

static void on_ready_locked(struct hsm *h, const struct control_message *m)
{
    struct found f;

    if (!find_locked(h, m->id, &f) || f.conn->state != CONN_STARTING)
        return;
    f.conn->state = CONN_READY;
    f.conn->ready_us = clock_mono_us();
    f.slot->failing = false;
    f.slot->second = (struct attempts){0};
    h->token = m->ready;
    if (h->state == HSM_READY)
        clear_reason_locked(h);
    if (f.slot->use == SLOT_FREE)
        pool_offer_locked(h, f.slot);
}

static void on_ended_locked(struct hsm *h, const struct control_message *m)
{
    struct found f;

    if (m->ended.error < 0)
        set_reason_locked(h, m->ended.error, m->ended.text);
    if (m->kind == CONTROL_FAILED || !find_locked(h, m->id, &f))
        return;
    /* Who speaks to it at this moment sees the socket's end. */
    if (f.conn == &f.slot->live && f.slot->use == SLOT_BUSY)
        return;
    if (f.conn == &f.slot->live)
        f.slot->use = SLOT_FREE;
    if (f.conn->state != CONN_RETIRED)
        f.conn->state = CONN_DOOMED;
}

static void on_pong_locked(struct hsm *h, const struct control_message *m)
{
    (void)m;
    h->program.pinged = false;
}

static const struct {
    enum control_kind kind;
    void (*handle)(struct hsm *h, const struct control_message *m);
} handlers[] = {
    {CONTROL_PIN, on_pin_locked},      {CONTROL_FORKED, on_forked_locked},
    {CONTROL_READY, on_ready_locked},  {CONTROL_FAILED, on_ended_locked},
    {CONTROL_EXITED, on_ended_locked}, {CONTROL_PONG, on_pong_locked},
};

static void handle_locked(struct hsm *h, const struct control_message *m)
{
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
        if (handlers[i].kind == m->kind)
            handlers[i].handle(h, m);
    }
}

/* Everything tekd-hsm has said. */
static void listen_locked(struct hsm *h)
{
    struct control_message m;
    int fd = -1;
    int r = 0;

    while (h->program.pid != 0 && r == 0) {
        r = control_receive(h->program.control, h->control_in, &m, &fd);
        if (r == 0)
            handle_locked(h, &m);
        if (fd >= 0)
            (void)close(fd); /* none is expected */
        fd = -1;
    }
    if (r < 0 && r != TEKD_EAGAIN)
        program_lost_locked(h, clock_mono_us());
}

/* ---------------------------------------------------------------- what is due ------ */

static bool recycling_locked(const struct hsm *h)
{
    for (size_t i = 0; i < h->n_slots; i++) {
        if (h->slot[i].next.state != CONN_NONE)
            return true;
    }
    return false;
}

static bool wants_recycling(const struct hsm *h, const struct slot *s)
{
    return h->set.recycle_after > 0 && s->live.state == CONN_READY &&
           s->live.served >= h->set.recycle_after;
}

/* Ends what is to end; nothing is done to a live worker that a caller speaks to. */
static void clear_slot_locked(struct hsm *h, struct slot *s, int64_t now)
{
    if (s->next.state == CONN_DOOMED || s->next.state == CONN_RETIRED)
        conn_lost_locked(h, s, &s->next, now);
    if (s->use == SLOT_BUSY || s->live.state != CONN_DOOMED)
        return;
    conn_lost_locked(h, s, &s->live, now);
    /* A replacement under way is the restart. */
    s->live = s->next;
    s->next = (struct conn){.fd = -1};
    if (s->live.state == CONN_READY)
        pool_offer_locked(h, s);
}

static void fill_slot_locked(struct hsm *h, struct slot *s, int64_t now)
{
    if (!h->pin_known || h->pin != CONTROL_PIN_HAVE || pool_is_closed_locked(h, s->role))
        return;
    if (s->live.state == CONN_NONE && now >= s->first.at)
        conn_start_locked(h, s, &s->live);
    else if (wants_recycling(h, s) && now >= s->second.at && !recycling_locked(h))
        conn_start_locked(h, s, &s->next);
}

static bool keepalive_due(const struct hsm *h, const struct slot *s, int64_t now)
{
    return h->set.keepalive_s > 0 && s->use == SLOT_FREE && s->live.state == CONN_READY &&
           now - s->idle_since >= (int64_t)h->set.keepalive_s * 1000000;
}

static void tend_slot_locked(struct hsm *h, struct slot *s, int64_t now)
{
    if (s->use == SLOT_OWING)
        (void)pool_collect_locked(h, s);
    clear_slot_locked(h, s, now);
    fill_slot_locked(h, s, now);
    if (keepalive_due(h, s, now))
        pool_keepalive_locked(h, s, now);
}

static void earliest(int64_t *at, int64_t other)
{
    if (other < *at)
        *at = other;
}

/* When the thread has to look again if nothing wakes it. */
static int64_t next_due_locked(const struct hsm *h, int64_t now)
{
    int64_t at = now + PING_EVERY_US;

    if (!h->ended)
        earliest(&at, h->end_us);
    if (h->program.pid == 0)
        earliest(&at, h->program.starts.at);
    if (h->lost_us > 0 && h->state == HSM_READY)
        earliest(&at, h->lost_us + (int64_t)h->line[PROTOCOL_ROLE_KEY].timeout_ms * 1000 + 1000);
    for (size_t i = 0; i < h->n_slots; i++) {
        const struct slot *s = &h->slot[i];

        if (s->use == SLOT_OWING)
            earliest(&at, s->owing_until);
        if (s->first.at > now)
            earliest(&at, s->first.at);
        if (s->second.at > now)
            earliest(&at, s->second.at);
        if (h->set.keepalive_s > 0 && s->use == SLOT_FREE && s->live.state == CONN_READY)
            earliest(&at, s->idle_since + (int64_t)h->set.keepalive_s * 1000000);
    }
    return at;
}

/* ---------------------------------------------------------------- the state -------- */

static bool role_ready_locked(const struct hsm *h, enum protocol_role role, bool *ret_failing)
{
    bool failing = true;

    for (size_t i = 0; i < h->n_slots; i++) {
        const struct slot *s = &h->slot[i];

        if (s->role != role)
            continue;
        if (s->live.state == CONN_READY)
            return true;
        failing = failing && s->failing;
    }
    *ret_failing = failing;
    return false;
}

/* Whether nothing can become of the workers that are missing. */
static bool hopeless_locked(const struct hsm *h)
{
    return (h->pin_known && h->pin != CONTROL_PIN_HAVE) ||
           (h->program.pid == 0 && h->program.starts.tries > 1);
}

static enum hsm_state state_locked(struct hsm *h, int64_t now)
{
    int64_t grace_us = (int64_t)h->line[PROTOCOL_ROLE_KEY].timeout_ms * 1000;
    bool hopeless = hopeless_locked(h);
    bool ready = true;
    bool down = false;

    for (size_t i = 0; i < PROTOCOL_ROLES; i++) {
        struct line *l = &h->line[i];
        bool failing = false;
        bool has;

        if (l->slots == 0 || pool_is_closed_locked(h, (enum protocol_role)i))
            continue;
        has = role_ready_locked(h, (enum protocol_role)i, &failing);
        l->down = !has && !h->retry_open && (failing || hopeless);
        ready = ready && has;
        down = down || l->down;
        if (l->down)
            pool_turn_away_locked(l, TEKD_EHSM);
    }
    if (ready) {
        h->lost_us = 0;
        return HSM_READY;
    }
    if (h->pin_known && h->pin == CONTROL_PIN_REFUSED)
        return HSM_PIN_REFUSED;
    if (h->lost_us == 0)
        h->lost_us = now;
    if (down || (h->state == HSM_READY && now - h->lost_us > grace_us))
        return HSM_DOWN;
    return h->state;
}

static const char *state_name(enum hsm_state state)
{
    static const char *const names[] = {[HSM_STARTING] = "starting",
                                        [HSM_READY] = "ready",
                                        [HSM_DOWN] = "down",
                                        [HSM_PIN_REFUSED] = "pin-refused"};

    return names[state];
}

/* Returns whether it changed. */
static bool update_state_locked(struct hsm *h)
{
    enum hsm_state state = state_locked(h, clock_mono_us());

    if (state == h->state)
        return false;
    h->state = state;
    if (state == HSM_READY)
        clear_reason_locked(h);
    else if (h->reason[0] == 0)
        set_reason_locked(h, TEKD_EHSM, "no worker answers");
    log_event(state == HSM_READY ? LOG_INFO : LOG_ERROR, "hsm", "state",
              LOG_STR("state", state_name(state)), LOG_STR("reason", h->reason));
    (void)pthread_cond_broadcast(&h->changed);
    return true;
}

/* The callback may ask for the status: it runs without the lock. */
static void tell_state_locked(struct hsm *h)
{
    void (*on_state)(void *arg, enum hsm_state state) = h->on_state;
    enum hsm_state state = h->state;
    void *arg = h->on_state_arg;

    if (on_state == NULL)
        return;
    (void)pthread_mutex_unlock(&h->lock);
    on_state(arg, state);
    (void)pthread_mutex_lock(&h->lock);
}

/* ---------------------------------------------------------------- the thread ------- */

/* What hsm_end_calls() asked for; workers that lose their callers are not started anew. */
static void end_calls_locked(struct hsm *h, int64_t now)
{
    if (h->ended || now < h->end_us)
        return;
    h->ended = true;
    pool_close_calls_locked(h);
}

static void tend_locked(struct hsm *h)
{
    int64_t now = clock_mono_us();

    end_calls_locked(h, now);
    listen_locked(h);
    if (h->program.pid == 0 && now >= h->program.starts.at)
        (void)program_begin_locked(h, now);
    retry_locked(h);
    for (size_t i = 0; i < h->n_slots; i++)
        tend_slot_locked(h, &h->slot[i], now);
    ping_locked(h, now);
    if (update_state_locked(h))
        tell_state_locked(h);
}

/* What is waited for: tekd-hsm, callers, answers that are owed. */
static nfds_t watch_locked(const struct hsm *h, struct pollfd set[static POOL_SLOTS_MAX + 2])
{
    nfds_t n = 0;

    set[n++] = (struct pollfd){.fd = h->wake, .events = POLLIN};
    if (h->program.pid != 0)
        set[n++] = (struct pollfd){.fd = h->program.control, .events = POLLIN};
    for (size_t i = 0; i < h->n_slots; i++) {
        if (h->slot[i].use == SLOT_OWING)
            set[n++] = (struct pollfd){.fd = h->slot[i].live.fd, .events = POLLIN};
    }
    return n;
}

static void sleep_locked(struct hsm *h)
{
    struct pollfd set[POOL_SLOTS_MAX + 2];
    nfds_t n = watch_locked(h, set);
    int64_t now = clock_mono_us();
    int64_t left = next_due_locked(h, now) - now;
    uint64_t count;

    (void)pthread_mutex_unlock(&h->lock);
    (void)poll(set, n, left <= 0 ? 0 : (int)(left / 1000 + 1));
    if (read(h->wake, &count, sizeof(count)) < 0)
        count = 0; /* nobody woke us */
    (void)pthread_mutex_lock(&h->lock);
}

static void end_workers_locked(struct hsm *h)
{
    for (size_t i = 0; i < h->n_slots; i++) {
        struct conn *both[] = {&h->slot[i].live, &h->slot[i].next};

        for (size_t k = 0; k < ARRAY_SIZE(both); k++) {
            if (both[k]->state != CONN_NONE && both[k]->state != CONN_DOOMED)
                both[k]->state = CONN_RETIRED;
            if (both[k]->state != CONN_NONE)
                conn_end_locked(h, both[k]);
        }
    }
}

void *supervise_run(void *arg)
{
    struct hsm *h = arg;

    (void)pthread_setname_np(pthread_self(), "hsm-pool");
    (void)pthread_mutex_lock(&h->lock);
    h->begin_error = program_begin_locked(h, clock_mono_us());
    h->begun = true;
    (void)pthread_cond_broadcast(&h->changed);
    while (!h->closing && h->begin_error == 0) {
        tend_locked(h);
        sleep_locked(h);
    }
    /* hsm_free() wakes us once no call is under way. */
    while (h->n_calls > 0)
        (void)pthread_cond_wait(&h->changed, &h->lock);
    end_workers_locked(h);
    program_stop(&h->program);
    (void)pthread_mutex_unlock(&h->lock);
    return NULL;
}
