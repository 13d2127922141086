/*
 * What the files of the key service share.
 *
 * Locks, none of them held while another is taken: the registry's rwlock, the cache's mutex, the
 * flights' mutex, the limiter's mutex.  None is held over a call to the HSM or the store.
 */
#ifndef TEKD_KEYS_INTERNAL_H
#define TEKD_KEYS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "tekd/keys.h"
#include "tekd/record.h"

/* ---- registry.c: the enrolled BSAs, in memory ------------------------------------------------ */

/*
 * One BSA for as long as tekd runs.  What is enrolled for it changes: each state is an immutable
 * struct bsa_state with a reference count, and a generation that rises with every change, so that
 * what was decided under an older one is noticed when it reaches the store thread.
 */
struct bsa {
    int64_t row;
    char id[STORE_ID_MAX + 1];
    _Atomic uint64_t generation;
    _Atomic uint32_t in_flight;     /* requests under way */
    _Atomic uint64_t auto_contents; /* contents that its requests made */
    struct bsa_state *state;        /* guarded by the registry's lock */
};

struct bsa_state {
    _Atomic uint32_t refs;
    uint64_t generation;
    struct bsa *bsa;
    struct store_bsa *row;
};

struct keys_work;

struct registry;
int registry_new(struct registry **ret_registry);
void registry_free(struct registry *r);

/* A reference to the state of the BSA that this certificate is enrolled for; NULL if none. */
struct bsa_state *registry_by_cert(struct registry *r, const uint8_t sha256[static 32]);
struct bsa_state *registry_by_id(struct registry *r, const char *id);
struct bsa_state *registry_by_row(struct registry *r, int64_t row);
/* Their rows, rising; the caller's to free().  Errors: TEKD_ENOMEM. */
int registry_rows(struct registry *r, int64_t **ret_rows, size_t *ret_n);
void bsa_state_unref(struct bsa_state *s);
static inline void bsa_state_freep(struct bsa_state **s)
{
    bsa_state_unref(*s);
}
#define AUTO_BSA __attribute__((cleanup(bsa_state_freep)))

/*
 * Puts a BSA's state in force, for requests from now on; takes row.  The first time makes the BSA.
 * Errors: TEKD_ENOMEM, TEKD_ETOOBIG (KEYS_BSAS_MAX); the old state stays then.
 */
int registry_put(struct registry *r, struct store_bsa *take_row);
size_t registry_count(struct registry *r);
/* Counts a content that requests of the BSA with this row made. */
void registry_count_content(struct registry *r, int64_t row);

/* Whether nothing has changed since this state was looked up. */
static inline bool bsa_state_current(const struct bsa_state *s)
{
    return atomic_load(&s->bsa->generation) == s->generation;
}

/* ---- period.c: crypto-periods ---------------------------------------------------------------- */

/* until_us 0: the content has no crypto-periods; its one period is 0 and always current. */
struct period {
    int64_t index;
    int64_t from_us, until_us; /* UTC; at until_us the next one begins */
};
/* The one of this time.  Before the epoch, where a clock that was set back may be, it is the
 * first. */
void period_at(const struct store_content *c, int64_t utc_us, struct period *ret_period);
/* The one of this index, which is current or has a TEK. */
void period_get(const struct store_content *c, int64_t index, struct period *ret_period);

static inline bool period_is_over(const struct period *p, int64_t utc_us)
{
    return p->until_us != 0 && utc_us >= p->until_us;
}
static inline bool period_is_current(const struct period *p, int64_t utc_us)
{
    return p->until_us == 0 || (utc_us >= p->from_us && utc_us < p->until_us);
}
/* "period" of a record, if the content has any. */
void period_record(struct record *rec, const struct period *p);

/* ---- tek.c: TEKs and their wraps on the way into the store ----------------------------------- */

/* A TEK that no request waits for. */
struct tek_order {
    struct keys *k;
    struct store_content content;
    struct period period;
    struct store_tek tek;
};
/* The half in the HSM.  Errors: those of hsm_issue(). */
int tek_make(struct tek_order *o, int64_t deadline_us);
/* The half in the store: the newest version of its period, with tek.generated. */
int tek_insert(struct tek_order *o, struct store_tx *tx);
/* A TEK of known version, with tek.generated.  Errors: TEKD_EEXIST (the version is taken). */
int tek_put(struct keys *k, struct store_tx *tx, const char *content_id, const struct period *p,
            struct store_tek *t);
/* Whether nobody can hold the content: it had no TEK before this one. */
bool tek_is_first(const struct period *p, uint32_t version);
/* Has it delivered to the BSAs that hold the content, if any can. */
int tek_fan_out(struct store_tx *tx, const struct period *p, const struct store_tek *t);
/* From here on the old TEK of the content is not current: what was decided on it is decided again.
 */
void tek_changed(struct keys *k, const char *content_id);
/*
 * Inserts the TEK as wrapped for a KEK.  Somebody else may have done so meanwhile: with AES key
 * wrap it is the same; RSA-OAEP gives others each time, and the stored one is what repeats will
 * give.  A BSA that holds the content from now on is sent the TEK of the next crypto-period too, if
 * that has gone to the others already.  Errors: TEKD_ESTALE (it is another one, which is in the
 * cache now).
 */
struct tek_given {
    int64_t bsa, content, tek, kek; /* rows */
    const struct period *period;    /* of the TEK */
    const struct hsm_blob *data;
};
int tek_put_export(struct keys *k, struct store_tx *tx, const struct tek_given *g);
/* KeyInfo of Tags 2 and 3. */
struct key_material;
void tek_set_key_info(const struct key_material *made, struct cp3_message *m);

/* ---- cache.c: current TEKs and wrapped exports ----------------------------------------------- */

/* What the cache knows of a content and its current TEK. */
struct key_entry {
    int64_t content;
    unsigned bits;
    int64_t tek; /* 0: the content has no current TEK */
    uint8_t key_id[16];
    struct period period; /* that it is of; the cache holds the current one */
    int64_t storage_kek;
    struct hsm_blob stored;
};

struct cache;
int cache_new(size_t contents, size_t exports, struct cache **ret_cache);
void cache_free(struct cache *c);

/* What is of a period that is not current by clock_utc_us() is forgotten, and not found. */
bool cache_get(struct cache *c, const char *content_id, struct key_entry *ret_entry);
/* Both forget what was longest not asked for; without memory nothing is kept. */
void cache_put(struct cache *c, const char *content_id, const struct key_entry *e);
bool cache_get_export(struct cache *c, int64_t tek, int64_t kek, struct hsm_blob *ret_data);
void cache_put_export(struct cache *c, int64_t tek, int64_t kek, const struct hsm_blob *data);
/* Forgets a content; its exports are unreachable then and fall out. */
void cache_drop(struct cache *c, const char *content_id);
/* Forgets what was wrapped under this KEK. */
void cache_drop_kek(struct cache *c, int64_t kek);

/* ---- bloom.c: which ContentIDs may exist ----------------------------------------------------- */

/*
 * Says "certainly new" without a look into the database, which a request for a new content would
 * otherwise wait for.  Never forgets; rebuilt at every start.
 */
struct bloom;
int bloom_new(struct bloom **ret_bloom);
void bloom_free(struct bloom *b);
void bloom_add(struct bloom *b, const char *s);
bool bloom_may_have(const struct bloom *b, const char *s);

/* ---- flight.c: one at a time ----------------------------------------------------------------- */

/*
 * Things under way by name: the first one to enter owns it, those that come while it does are
 * parked and start again when the owner leaves.
 */
struct flights;
struct flight;
int flights_new(struct flights **ret_flights);
void flights_free(struct flights *f);
/*
 * Errors: TEKD_EAGAIN: r is parked and is not the caller's any more; TEKD_ENOMEM.
 * On 0 the caller owns the flight until flights_leave().
 */
int flights_enter(struct flights *f, const void *name, size_t len, struct keys_request *r,
                  struct flight **ret_flight);
/* Starts those that were parked: calls again() of each.  Takes NULL. */
void flights_leave(struct flights *f, struct flight *take_flight);

/* ---- limit.c: how many records a peer can cause ---------------------------------------------- */

enum { LIMIT_REFUSED_PER_MINUTE = 10, LIMIT_TLS_PER_MINUTE = 1 };

/* What is recorded of a refusal; text is borrowed for the call. */
struct refusal {
    const char *event;  /* request.refused, confirm.unmatched, tls.refused */
    const char *who;    /* what is counted by: a peer, a cause */
    const char *peer;   /* BSA ID; NULL if none */
    const char *reason; /* or cause */
    const char *mid;    /* NULL if none was readable */
    const char *content;
    const char *addr;
    const uint8_t *cert; /* 32 octets or NULL */
};

struct limiter;
int limiter_new(struct limiter **ret_limiter);
void limiter_free(struct limiter *l);
/* Whether this one is to be recorded; if not it is counted. */
bool limiter_pass(struct limiter *l, const struct refusal *what, unsigned per_minute);
/*
 * Gives the summaries of windows that have ended (all: also of those that have not) to each().
 */
struct refusal_summary {
    const char *event;
    const char *who;
    const char *peer;
    const char *mid; /* this and what follows: of the last one */
    const char *reason;
    const char *addr;
    uint64_t count; /* not recorded one by one */
};
void limiter_flush(struct limiter *l, bool all,
                   void (*each)(void *arg, const struct refusal_summary *s), void *arg);

/* ---- line.c: who may ask the HSM ------------------------------------------------------------- */

struct line;
int line_new(unsigned inside_max, unsigned waiting_max, struct line **ret_line);
void line_free(struct line *l);
/*
 * LINE_INSIDE: the caller's thread may ask the HSM, and then calls line_leave().  LINE_WAITS: w is
 * not the caller's any more.  LINE_FULL: too many wait already.
 */
enum line_place { LINE_INSIDE, LINE_WAITS, LINE_FULL };
enum line_place line_enter(struct line *l, struct keys_work *w);
/*
 * The next ones in the line, which the caller's thread, still inside, takes: its share of those
 * that wait, so that all inside are busy, and max (1..LINE_MANY_MAX) at most.  Returns how many; 0:
 * it has left.
 */
#define LINE_MANY_MAX HSM_MANY_MAX
size_t line_leave(struct line *l, size_t max, struct keys_work *ret_works[]);

/* ---- lazy.c: the records of every answer that nobody waits for ------------------------------- */

/* What such a record says, in as few octets as it takes: thousands may wait for the next batch. */
struct lazy {
    struct lazy *next;
    bool repeated;            /* request.repeated, else answer.sent */
    uint64_t epoch, seq;      /* of request.answered */
    struct store_place after; /* of request.repeated: what there was when it was decided */
    const struct bsa *bsa;
    uint8_t out_sha256[32];
    uint8_t cert_sha256[32];
    uint8_t key_id[16];
    char addr[KEYS_ADDR_MAX];
    char message_id[]; /* with its NUL */
};

struct lazies;
int lazies_new(struct store *store, struct lazies **ret_lazies);
/* When the store has ended: it is given every record at once. */
void lazies_free(struct lazies *l);
void lazies_add(struct lazies *l, const struct keys_work *w, bool repeated);

/* ---- keys.c ---------------------------------------------------------------------------------- */

struct keys {
    char bsm_id[STORE_ID_MAX + 1];
    char storage_label[HSM_LABEL_MAX + 1];
    bool auto_content;
    unsigned auto_bits;
    enum keys_refusal_http refusal_http;
    unsigned per_bsa_concurrency;
    uint64_t per_bsa_auto_contents;
    struct store *store;
    struct hsm *hsm;

    void (*wait)(void *arg, bool begins); /* NULL: nobody wants to know */
    void *wait_arg;
    void (*delivery)(void *arg, int64_t bsa); /* the same */
    void *delivery_arg;

    struct registry *registry;
    struct cache *cache;
    struct bloom *bloom;
    struct flights *flights;
    struct limiter *limiter;
    struct lazies *lazies;
    struct line *line;

    /* Rises when a TEK stops being current: what was made of the old one is decided again.  (A KEK
     * is its BSA's: the generation of that rises.) */
    _Atomic uint64_t tek_generation;
    /* Rises when a delivery that was given up becomes open again. */
    _Atomic uint64_t reopened;

    pthread_mutex_t lock;     /* guards what follows */
    struct store_kek storage; /* row 0 until bound */
    bool bound;
    char reason[HSM_TEXT_MAX]; /* why not bound */

    _Atomic uint64_t answered, refused, repeated, busy, failed, tek_hits, tek_misses;
    _Atomic uint64_t confirmed, rejected; /* deliveries */
};

/* Around a wait in keys_handle(). */
static inline void keys_waits(struct keys *k, bool begins)
{
    if (k->wait)
        k->wait(k->wait_arg, begins);
}

/* The storage KEK.  Errors: TEKD_EHSM (not bound yet). */
int keys_storage(struct keys *k, struct store_kek *ret_kek);

void keys_record_refusal(struct keys *k, const struct refusal *what, unsigned per_minute);

/* ---- kek.c ----------------------------------------------------------------------------------- */

/* What the storage KEKs are called in messages and records, with a slash and their version; BSAs'
 * KEKs have the BSA's ID in place of it. */
#define KEK_STORAGE_NAME "storage"

/* Describes the KEK of this label; err says what is wrong with it. */
struct kek_wanted {
    const char *label;
    enum hsm_kek_use use;
    enum hsm_wrap wrap;
    int64_t deadline_us;
};
int kek_describe(struct keys *k, const struct kek_wanted *what, struct store_kek *ret_kek,
                 struct keys_error *err);
/* Whether the token still has the key that was bound. */
int kek_check(struct keys *k, const struct store_kek *bound, int64_t deadline_us,
              struct keys_error *err);
/* kek.added; a NULL: tekd itself. */
int kek_record(struct store_tx *tx, const struct store_kek *kek, const struct keys_actor *a);
/* kek.retired */
int kek_record_retired(struct store_tx *tx, const struct store_kek *kek,
                       const struct keys_actor *a);

/* ---- policy.c -------------------------------------------------------------------------------- */

#define POLICY_VERSION 1 /* BCAST 1.x; an absent Version reads as this one */

/* The checks that need no look-up: Source, Destination, Version, entitlement, in this order. */
enum cp3_reason policy_check(const struct keys *k, const struct bsa_state *s,
                             const struct cp3_message *m);
/* Why no delivery of this content may be made to this BSA (NULL: there is none), in words that
 * follow its ID; NULL: one may. */
const char *policy_undeliverable(const struct bsa_state *s, const char *content_id);

/* ---- reply.c --------------------------------------------------------------------------------- */

/* The HTTP status of a refusal. */
int reply_refusal_status(enum keys_refusal_http how, enum cp3_reason reason);

/* A message as octets.  Errors: TEKD_EINTERNAL (it is none), TEKD_ENOMEM. */
int reply_write(enum cp3_media media, enum cp3_form form, const struct cp3_message *m,
                struct buf **ret_body);

/* Tag 2, Status 1. */
struct reply_refusal {
    enum cp3_media media;
    enum cp3_form form;
    enum cp3_reason reason;
    const char *message_id;
    const struct cp3_message *request; /* of the full form */
    int status;
};
void reply_refuse(const struct reply_refusal *what, struct keys_reply *ret_reply);

/* application/problem+json (RFC 9457).  detail may be NULL. */
struct reply_problem {
    int status;
    enum cp3_reason reason;
    const char *title;
    const char *detail;
    const struct cp3_error *where; /* line, element and reason; NULL if none */
    const char *correlation;       /* NULL if none */
};
void reply_problem(const struct reply_problem *what, struct keys_reply *ret_reply);

/* ---- collect_peer.c -------------------------------------------------------------------------- */

/* Records and answers one with a good certificate that is enrolled for no BSA (s NULL), or for one
 * that is disabled. */
void peer_refuse_stranger(struct keys *k, const struct keys_asker *a, const struct bsa_state *s,
                          struct keys_reply *ret_reply);

/* ---- request.c and settle.c: one Key Request ------------------------------------------------- */

/* What a look-up or the HSM gave: the TEK as this BSA gets it. */
struct key_material {
    struct key_entry key;
    int64_t kek; /* row of the BSA's KEK, and what messages say of it */
    char kek_name[STORE_ID_MAX + 16];
    enum hsm_wrap wrap;
    struct hsm_blob data;
    bool new_content, new_tek, new_export;
    uint32_t version;
};

/* The state of a request between its two halves.  Owned by whoever runs a half. */
struct keys_work {
    struct store_item item; /* first: the store gives it back */
    struct keys *k;
    struct keys_request *r;
    struct bsa_state *bsa;
    uint64_t tek_generation;
    struct keys_work *line_next; /* of line.c */
    struct flight *message_flight;
    struct flight *content_flight;
    struct cp3_message request;
    enum cp3_media media;
    enum cp3_form form;
    uint8_t req_sha256[32];
    uint8_t out_sha256[32];
    struct key_material made;
    struct buf *body;
    int64_t time_us;          /* Time of the answer */
    unsigned attempts;        /* how often its decision was stale */
    bool look_first;          /* the store has something under this MessageID: read it */
    bool counted;             /* in_flight was raised */
    bool expected;            /* the store was told to expect its item */
    bool repeated;            /* the stored answer is given again */
    bool joined;              /* entered the flight of its MessageID, or waited for it */
    bool announced;           /* known() was called */
    bool gave_key;            /* replied with Status 0: answer.sent may follow */
    uint64_t answered_seq;    /* of request.answered ... */
    uint64_t epoch;           /* ... in this epoch */
    struct store_place after; /* of a repeat: the newest record when it was decided */
};

/* The Period that is asked for; -1: none. */
static inline int64_t work_asked(const struct keys_work *w)
{
    return w->request.has & CP3_HAS_PERIOD ? (int64_t)w->request.period_index : -1;
}

/* More than a few rounds mean that the rules change faster than we decide. */
#define KEYS_ATTEMPTS_MAX 16

/* make.c: has the HSM make what w->made lacks, then answers; w is not the caller's any more. */
void work_make(struct keys_work *w);
/* request.c: what is to be sent is there; written and submitted to the store. */
void work_answer(struct keys_work *w);

/* Answers and ends the first half: leaves flights, lowers counters, calls reply(). */
void work_reply(struct keys_work *w, struct keys_reply *take_reply);
void work_refuse(struct keys_work *w, enum cp3_reason reason);
void work_busy(struct keys_work *w);
/* A fault of ours: 500 with a correlation id that the log has too. */
void work_internal(struct keys_work *w, const char *what, int r);
/* Gives back what the work holds: flights, its place among the BSA's requests, the BSA. */
void work_let_go(struct keys_work *w);
/* Tells the store that an item of this request is on its way; that it is not any more. */
void work_expect(struct keys_work *w);
void work_unexpect(struct keys_work *w);
/* Begins anew on a request thread. */
void work_again(struct keys_work *w);
/* The answer for an error of the HSM or the store. */
void work_error(struct keys_work *w, const char *what, int r);

/* Writes answer and body of Status 0 from made and time_us.  Errors: TEKD_ENOMEM, TEKD_EINTERNAL.
 */
int work_encode(struct keys_work *w);
/* Hands the made answer to the store. */
void work_submit(struct keys_work *w);
/* Hands an answer that was stored before to the store, to leave when its record is signed. */
void work_submit_stored(struct keys_work *w);
/* What is known of the content without the HSM (find.c): made.data is there, or new_export is set,
 * or new_tek.  Errors: TEKD_ENOTFOUND: there is no such content; TEKD_EDENIED: the period that is
 * asked for is neither current nor announced; of store_call(). */
int work_find(struct keys_work *w);
/* Looks (look.c) whether this MessageID was answered before, and answers again or refuses; returns
 * TEKD_ENOTFOUND when it was not and the request goes on, 0 when it was settled. */
int work_look(struct keys_work *w);

/* ---- group.c: Key Deliveries of one TEK, prepared together ----------------------------------- */

struct draft {
    struct bsa_state *bsa; /* a reference */
    struct key_material made;
    bool asked; /* the HSM was, together with others */
    int error;  /* why the TEK cannot be wrapped for it; 0: it can */
    struct store_delivery row;
    struct buf *message;
};

/* The caller sets content, tek and deadline_s, and adds BSAs; the rest is group.c's. */
struct group {
    struct keys *k;
    struct store_content content;
    struct store_tek tek;
    struct period period;
    int64_t deadline_s;
    bool current;  /* not if the TEK is not the content's current one any more */
    bool new_only; /* not to whom the TEK was given before, by whatever way */
    size_t n;
    struct draft draft[KEYS_FANOUT_GROUP];
    size_t n_failed; /* BSAs for which the TEK could not be wrapped; they are no drafts any more */
    char failed[STORE_ID_MAX + 1]; /* the last of them, and why */
    int error;
};
int group_new(struct keys *k, int64_t deadline_s, struct group **ret_group);
void group_free(struct group *g);
AUTO_DEFINE(group)
/* Without members, for another group or to begin this one anew. */
void group_clear(struct group *g);
void group_add(struct group *g, struct bsa_state *take_bsa);
/* Finds wraps that are in the store; the last thing of a read that chose members and TEK. */
int group_read(struct group *g, struct store_tx *tx);
/*
 * Wraps what was not found, and writes the messages.  A BSA whose own KEK is what fails is dropped
 * (n_failed), so that it is in nobody's way.  Errors: TEKD_EHSM and the like: the HSM fails, for
 * whomever.
 */
int group_prepare(struct group *g);
/* Rows and records.  Errors: TEKD_ESTALE: TEK, period or an enrolment is not what it was. */
int group_apply(struct group *g, struct store_tx *tx);
/* Tells the push service, also after an error: what was not signed in time may be there. */
void group_done(const struct group *g, int result);

/* ---- delivery.c: one Key Delivery ------------------------------------------------------------ */

/* Says that deliveries of this BSA have changed; 0: that there are new things to do. */
void delivery_changed(struct keys *k, int64_t bsa);
/* A record of a delivery, with ref, mid and peer. */
int delivery_record_new(struct keys *k, const char *event, const struct store_delivery *d,
                        struct record **ret_record);

/*
 * What goes for good, a TEK or a KEK.  Its open deliveries are abandoned in the transaction in
 * which it goes, by delivery_gone().  One transaction has room for a few of them only, so
 * delivery_gone_ahead() takes most of them first; both are called again when delivery_gone() says
 * TEKD_EAGAIN: too many were left, or came meanwhile.
 */
#define DELIVERY_GONE_MAX 48 /* records that delivery_gone() adds at most */
struct key_gone {
    struct keys *k;
    const struct keys_actor *actor;
    int64_t tek, kek; /* the row of what goes; 0 of the other */
    int64_t seen;     /* 0 at first: deliveries up to this row were looked at */
    uint64_t reopened;
};
int delivery_gone_ahead(struct key_gone *g);
int delivery_gone(struct key_gone *g, struct store_tx *tx);

/* ---- confirm.c ------------------------------------------------------------------------------- */

/* Judges and answers the Tag 4 that a work has read. */
void confirm_work(struct keys_work *w);

/* ---- enrolment.c: a change of what is enrolled for a BSA ------------------------------------- */

/* Of all patterns of a BSA: one record lists them, and with the rest they fit into RECORD_MAX. */
#define ENTITLE_TOTAL_MAX 4096

struct enrolment {
    struct keys *k;
    const struct keys_actor *actor;
    const char *action; /* NULL: the record of the KEK says it all */
    struct store_bsa *row;
    struct bsa_state *seen;  /* what row was made of; NULL: the BSA is new */
    bool new_kek;            /* row.kek is to be added */
    struct store_kek retire; /* row 0: none */
    struct key_gone gone;    /* of retire */
    bool in_force;           /* the registry has the new state */
};

/* What is in force, and a copy to be changed.  Errors: TEKD_ENOTFOUND. */
int enrolment_begin(struct keys *k, const char *id, struct bsa_state **ret_seen,
                    struct store_bsa **ret_row, struct keys_error *err);
/* Errors: TEKD_ESTALE: another change came first, begin anew; TEKD_EEXIST; those of the store. */
int enrolment_commit(struct enrolment *e, struct keys_error *err);

/* ---- admin: shared by admin_bsa.c, admin_content.c, enrolment.c ------------------------------ */

int admin_fail(struct keys_error *err, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* An ID as messages carry it: 1..max octets, no control characters, no blanks at its ends. */
bool admin_is_text(const char *s, size_t max);
/* admin.action */
int admin_record(struct store_tx *tx, const struct keys_actor *a, const char *action,
                 const char *detail);
void admin_actor(struct record *rec, const struct keys_actor *a);

#endif
