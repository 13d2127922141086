/*
 * The pool from the inside; private to pkcs11/client.
 *
 * A slot is a place for one worker.  Its use says who may touch the worker's socket:
 *     FREE    nobody speaks to the worker; the supervision may close the socket
 *     BUSY    one caller, alone, without the lock; nobody else closes the socket
 *     OWING   the caller left at its own deadline; the supervision waits for the answer, so that
 *             no later caller reads it
 * A caller never closes a socket either: it marks the worker and wakes the supervision.
 *
 * Locks: hsm.lock guards everything but the socket and the two buffers of a BUSY slot.
 * Functions that want it held end in _locked.
 */
#ifndef TEKD_PKCS11_POOL_H
#define TEKD_PKCS11_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "control.h"
#include "protocol.h"
#include "tekd/buf.h"
#include "tekd/hsm.h"

/* Key workers, the audit worker, the TLS worker. */
#define POOL_SLOTS_MAX (HSM_WORKERS_MAX + 2)
/* Callers of one role that may wait: more than a server has threads. */
#define POOL_WAITING_MAX 4096
/* A worker that lived so long was a good start: its next end is not held against it. */
#define POOL_GOOD_LIFE_US (10 * INT64_C(1000000))
/* What a replaced worker has to log out and finalise its module. */
#define POOL_GRACE_MS 5000

enum conn_state {
    CONN_NONE,
    CONN_STARTING, /* asked for */
    CONN_READY,
    CONN_DOOMED,  /* to be killed */
    CONN_RETIRED, /* replaced: ends by itself when its socket is closed */
};

/* A worker process. */
struct conn {
    enum conn_state state;
    int fd;
    uint32_t id; /* in control messages */
    int pid;     /* 0: not known yet */
    int64_t ready_us;
    unsigned served; /* calls it answered */
};

/* Starts of something that may fail. */
struct attempts {
    unsigned tries; /* since the last one that was good */
    int64_t at;     /* not again before */
};

enum slot_use { SLOT_FREE, SLOT_BUSY, SLOT_OWING };

struct slot {
    enum protocol_role role;
    enum slot_use use;
    struct conn live;
    struct conn next;    /* takes the place of live when it is ready */
    uint64_t request_id; /* of the call under way: of the first request ... */
    size_t n_requests;   /* ... of so many */
    int64_t took_us;     /* until they were answered */
    int64_t owing_until; /* of OWING: when the worker counts as hung */
    int64_t idle_since;
    struct attempts first;  /* at a worker for live ... */
    struct attempts second; /* ... and at one for next */
    bool failing;           /* the last start led to nothing */
    uint64_t starts;
    uint64_t calls;
    uint64_t failures;
    struct buf *out;
    uint8_t *in; /* PROTOCOL_MAX octets */
};

/* A caller in the line of a role.  They are never freed before the pool, so that one may be
 * signalled after the lock is given up. */
struct waiter {
    struct waiter *next;
    pthread_cond_t cond;
    bool done;
    int error;
    struct slot *slot;
};

struct line {
    unsigned slots;
    unsigned timeout_ms;
    unsigned max_waiting;
    unsigned n_waiting;
    int64_t mean_us; /* that a request takes, of the last dozen or so; 0: not known */
    struct waiter *first;
    struct waiter **last;
    struct waiter *room;   /* max_waiting of them ... */
    struct waiter *unused; /* ... those that nobody waits in */
    bool down;             /* no worker, and no start under way that promises one: fail at once */
};

/* Strings of the options, and what is sent to tekd-hsm. */
struct settings {
    char *program;
    char *module;
    char *token;
    char *profile;
    char *checkpoint_key;
    char *ed25519_key;
    char *checkpoint_key_before;
    char *ed25519_key_before;
    char *tls_key;
    char *pin;
    char *latch_file;
    char **env; /* n_env of them */
    size_t n_env;
    enum hsm_pin_source pin_source;
    unsigned recycle_after;
    unsigned restart_min_ms;
    unsigned restart_max_ms;
    unsigned keepalive_s;
    unsigned start_timeout_ms;
    enum log_format log_format;
    enum log_level log_level;
};

/* The process tekd-hsm. */
struct program {
    pid_t pid;    /* 0: not running */
    int control;  /* our end of its socket */
    bool greeted; /* has said what it knows of the PIN: a person is not being asked any more */
    bool pinged;  /* a PING is out since ping_us */
    int64_t ping_us;
    int64_t started_us;
    struct attempts starts;
};

struct hsm {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* the state, or n_calls became 0 */
    pthread_t thread;
    bool threaded;
    bool begun; /* the thread has tried to start tekd-hsm, with begin_error */
    int begin_error;
    int wake; /* eventfd: the supervision has something to look at */
    struct settings set;
    struct program program;
    int64_t end_us; /* of hsm_end_calls(); INT64_MAX: not asked for */
    bool ended;     /* that time has come: only checkpoints are signed any more */
    bool closing;
    unsigned n_calls; /* inside pool_call() */
    uint64_t last_request;
    uint32_t last_worker;
    uint64_t random; /* of the jitter */

    struct line line[PROTOCOL_ROLES];
    size_t n_slots;
    struct slot slot[POOL_SLOTS_MAX];

    bool pin_known;
    enum control_pin pin;
    int pin_fd;         /* of HSM_PIN_FD: given to the first tekd-hsm, -1 afterwards */
    uint32_t retry;     /* id of the last RETRY */
    bool retry_open;    /* it has no answer yet: what is said of the PIN before that is old */
    bool retry_pending; /* it is still to be sent, with retry_fd, -1 for none */
    int retry_fd;

    enum hsm_state state;
    int64_t lost_us; /* since when a role has no worker; 0: each has */
    struct control_ready token;
    char reason[HSM_TEXT_MAX];
    int error;
    void (*on_state)(void *arg, enum hsm_state state);
    void *on_state_arg;

    struct buf *control_out; /* of the supervision */
    uint8_t *control_in;     /* CONTROL_MAX octets */
};

/* ---------------------------------------------------------------- pool.c ----------- */

struct pool_call {
    struct protocol_request request; /* its id is set by the call */
    struct protocol_reply reply;
    int error; /* out: as pool_call() returns it */
    /* Of several: called when this one is through, which may be long before all are; or NULL. */
    void (*done)(struct pool_call *self);
    void *arg;
};

/*
 * One call, with its one repeat.  Errors: those of hsm.h, and what the worker replied; the reply
 * is filled then too.
 */
int pool_call(struct hsm *h, enum protocol_role role, struct pool_call *c, int64_t deadline_us);

/* 1..PROTOCOL_MANY_MAX of them in one datagram; what that does not answer is called alone, after
 * the others are done. */
void pool_call_many(struct hsm *h, enum protocol_role role, struct pool_call *calls, size_t n,
                    int64_t deadline_us);

/* How many a datagram may hold, so that it is answered soon by a worker of this role. */
size_t pool_many(struct hsm *h, enum protocol_role role);

/* Lines and buffers, before the thread starts.  Errors: TEKD_ENOMEM. */
int pool_init(struct hsm *h);
void pool_destroy(struct hsm *h);

/* The slot's worker is there for a caller: the first in line gets it. */
void pool_offer_locked(struct hsm *h, struct slot *s);

/* Waits for cond, with the lock, until deadline.  Errors: TEKD_ETIMEDOUT. */
int pool_wait_locked(struct hsm *h, pthread_cond_t *cond, int64_t deadline_us);

/* Whether calls of this role are turned away for good. */
bool pool_is_closed_locked(const struct hsm *h, enum protocol_role role);

/* Callers of roles that are closed: those in line are turned away, those that speak to a worker
 * lose it. */
void pool_close_calls_locked(struct hsm *h);

/* All that wait in this line fail with error. */
void pool_turn_away_locked(struct line *l, int error);

/* Reads the answer of an OWING slot, if it is there.  Returns TEKD_EAGAIN if not. */
int pool_collect_locked(struct hsm *h, struct slot *s);

/* Sends a health request that no caller waits for: the slot is OWING then. */
void pool_keepalive_locked(struct hsm *h, struct slot *s, int64_t now);

/* All that failed may be tried at once: the reason may be gone. */
void pool_forgive_locked(struct hsm *h);

/* Something for the supervision to look at. */
void pool_wake(struct hsm *h);

/* ---------------------------------------------------------------- supervise.c ------ */

/* The thread; arg is the pool. */
void *supervise_run(void *arg);

/* ---------------------------------------------------------------- program.c -------- */

/*
 * Starts tekd-hsm and configures it; must be called by the pool's thread, which tekd-hsm dies
 * with.  Errors: TEKD_EIO, TEKD_ETOOBIG.
 */
int program_start(struct hsm *h);

/* Ends it at once, and with it its workers; reaps it. */
void program_kill(struct program *p);

/* Lets it end its workers; kills it when that takes too long. */
void program_stop(struct program *p);

/* The path of tekd-hsm, which the caller frees.  Errors: TEKD_EIO, TEKD_ENOMEM. */
int program_path(const char *wanted, char **ret_path);

#endif
