/*
 * What the files of the admin socket share.
 */
#ifndef TEKD_ADMIN_INTERNAL_H
#define TEKD_ADMIN_INTERNAL_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tekd/admin.h"
#include "tekd/keys.h"

/* A JSON value that is given up with its scope. */
static inline void admin_json_decref(json_t **j)
{
    json_decref(*j);
}
#define AUTO_JSON __attribute__((cleanup(admin_json_decref)))

enum admin_right { ADMIN_NOBODY, ADMIN_READER, ADMIN_OPERATOR };

/* Who is served: places.c.  The threads are detached and counted here. */
struct admin_places {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t left;
    unsigned n_taken;
    unsigned n_readers;             /* of the taken ones: by who may only look */
    int waiting[ADMIN_WAITING_MAX]; /* connections of readers, in the order in which they came */
    size_t n_waiting;
};

struct admin {
    struct admin_options o;
    char *socket_path, *version, *bsm_id, *instance;
    int64_t started_utc_us;
    int64_t gid, readonly_gid; /* -1: none */
    int fd;
    int wake[2]; /* a pipe: closing its end wakes every poll */
    pthread_t thread;
    struct admin_places places;
};

/* One command under way. */
struct admin_call {
    struct admin *admin;
    int fd;
    int passed_fd; /* came with the request; -1: none */
    const json_t *args;
    struct keys_actor actor;
    struct keys_error err;
    json_t *result; /* of success, or of the part that worked; the command's to make, the caller's
                       to free */
    bool streamed;  /* the command has answered itself */
};

enum admin_arg_kind { ADMIN_STR, ADMIN_INT, ADMIN_BOOL, ADMIN_STRS };
struct admin_arg {
    const char *key;
    enum admin_arg_kind kind;
};

#define ADMIN_ARGS_MAX 12

struct admin_command {
    const char *name;
    enum admin_right right;
    int (*run)(struct admin_call *call);
    struct admin_arg arg[ADMIN_ARGS_MAX]; /* all that it knows; NULL ends them */
};

/* The table of all commands; NULL if there is none of this name. */
const struct admin_command *admin_command_find(const char *name);
/* Whether every argument is one of the command's and of its kind.  Errors: TEKD_EINVAL. */
int admin_check_args(struct admin_call *call, const struct admin_command *command);

/* ---- arguments: what is missing is said in err ----------------------------------------------- */

/* A string, or NULL with TEKD_EINVAL in *r. */
const char *admin_arg_str(struct admin_call *call, const char *key, int *r);
const char *admin_arg_str_or(const struct admin_call *call, const char *key, const char *other);
int64_t admin_arg_int_or(const struct admin_call *call, const char *key, int64_t other);
int admin_fail_call(struct admin_call *call, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* UTC as text; admin_time(): null for 0, which is not known or never was. */
json_t *admin_utc(int64_t utc_us);
json_t *admin_time(int64_t utc_us);

/* A part of a list is an array; "next" stands for the row to go on after, if there are more. */
#define ADMIN_PAGE_ROWS 500 /* so that neither the store's thread nor memory is held by a list */
struct admin_page {
    json_t *list; /* made by who reads the page, given up by admin_page_result() */
    int64_t last; /* row behind which it begins, then of its last */
    size_t n;
};
/* The answer {"list":[…],"next":…} with a page that was read.  Errors: TEKD_ENOMEM. */
int admin_page_result(struct admin_call *call, struct admin_page *page);

/* Whether tekd is not stopping.  Errors: TEKD_ECLOSED. */
int admin_still_runs(const struct admin_call *call);
/* A line of the stream or the answer, whole.  Errors: TEKD_ECLOSED, TEKD_ETIMEDOUT. */
int admin_send(struct admin_call *call, const void *data, size_t len);

/* ---- peer.c ---------------------------------------------------------------------------------- */

/*
 * The peer of fd, and what he may.  The name is for records and the log; a uid without one is its
 * number.  Errors: TEKD_EIO.
 */
int admin_identify(const struct admin *a, int fd, struct keys_actor *ret_actor,
                   enum admin_right *ret_right);

/* ---- places.c -------------------------------------------------------------------------------- */

void admin_places_init(struct admin_places *p);
void admin_places_clear(struct admin_places *p);
/* Waits for a place, at most ADMIN_CONNECTIONS_MAX of which are taken at once. */
void admin_places_take(struct admin_places *p);
void admin_places_leave(struct admin_places *p);
/*
 * Who has taken a place and turns out to be a reader, on fd.  ADMIN_STAYS: he keeps it, and
 * admin_places_next_reader() is called when he is done.  ADMIN_WAITS: ADMIN_READERS_MAX have one,
 * and fd is taken: it comes out of admin_places_next_reader() of another.  ADMIN_GOES: too many
 * wait already.  With the latter two the place is to be left.
 */
enum admin_turn { ADMIN_STAYS, ADMIN_WAITS, ADMIN_GOES };
enum admin_turn admin_places_reader(struct admin_places *p, int fd);
/*
 * A reader is done: the connection of the one who has waited longest, who gets his place; -1:
 * nobody waits, and the place is to be left.
 */
int admin_places_next_reader(struct admin_places *p);
/* Waits until all are left; nobody may take one any more. */
void admin_places_wait_empty(struct admin_places *p);

/* ---- history.c ------------------------------------------------------------------------------- */

/*
 * Appends what the log says of a delivery, oldest first, an object a record; *ret_whole: that is
 * all.  Errors: those of store_call(), TEKD_ECLOSED (nobody waits for it any more).
 */
int admin_history(struct admin_call *call, const struct store_delivery *d, json_t *list,
                  bool *ret_whole);

/* ---- the commands ---------------------------------------------------------------------------- */

int admin_status(struct admin_call *call);
int admin_hsm_status(struct admin_call *call);
int admin_hsm_retry(struct admin_call *call);
int admin_bsa_add(struct admin_call *call);
int admin_bsa_set(struct admin_call *call);
int admin_bsa_list(struct admin_call *call);
int admin_bsa_show(struct admin_call *call);
int admin_bsa_disable(struct admin_call *call);
int admin_bsa_enable(struct admin_call *call);
int admin_bsa_retire_kek(struct admin_call *call);
int admin_content_add(struct admin_call *call);
int admin_content_list(struct admin_call *call);
int admin_content_show(struct admin_call *call);
int admin_key_list(struct admin_call *call);
int admin_key_rotate(struct admin_call *call);
int admin_key_destroy(struct admin_call *call);
int admin_deliver(struct admin_call *call);
int admin_delivery_list(struct admin_call *call);
int admin_delivery_show(struct admin_call *call);
int admin_delivery_retry(struct admin_call *call);
int admin_delivery_abandon(struct admin_call *call);
int admin_audit_checkpoint(struct admin_call *call);
int admin_audit_close_epoch(struct admin_call *call);
int admin_audit_export(struct admin_call *call);
int admin_audit_records(struct admin_call *call);

#endif
