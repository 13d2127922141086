/*
 * The key service over a real store, a fake HSM and an in-process signer; request threads as the
 * server has them; BSAs that ask and take what they get apart.  Every failure ends the test.
 */
#ifndef TEST_KEYS_FIXTURE_H
#define TEST_KEYS_FIXTURE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fake_hsm.h"
#include "store_signer.h"
#include "tekd/keys.h"

#define SERVICE_BSM     "bsm.example.net"
#define SERVICE_STORAGE "storage-kek"
#define SERVICE_THREADS 8
#define SERVICE_PEERS   4
#define SERVICE_MORE    48       /* peers that a test may add */
#define SERVICE_US      20000000 /* of a request that says nothing else */

/* A BSA: its certificate is its own, its KEK is called ID-kek. */
struct peer {
    char id[32];
    char kek[40];
    enum hsm_wrap wrap;
    char *pem;
    uint8_t cert[32];
};

struct service {
    char dir[64], path[128];
    struct store_test_signer *signer;
    struct hsm *hsm;
    struct store_options store_options; /* to be changed before service_start() */
    struct keys_options options;
    struct store *store;
    struct keys *keys;
    struct queue *queue;
    _Atomic bool queue_is_full; /* for requests that begin anew */
    pthread_t thread[SERVICE_THREADS];
    struct peer peer[SERVICE_PEERS]; /* bsa-1 aes-kw, bsa-2 aes-kw, bsa-3 aes-kwp, bsa-4 RSA */
    struct peer spare; /* bsa-9, that nobody enrolled and whose KEK free-kek nobody made */
    struct peer more[SERVICE_MORE];
    size_t n_more;
    struct keys_actor actor;
    struct keys_error error; /* of the last command */
};

/* With auto_content; all peers may have everything, once they are enrolled. */
struct service *service_new(void);
int service_start(struct service *s);
void service_stop(struct service *s);
void service_free(struct service *s);
/* The three in one, with all peers enrolled. */
struct service *service_started(void);
/* Of cmocka. */
int service_set_up(void **state);
int service_tear_down(void **state);
#define SERVICE_TEST(name) cmocka_unit_test_setup_teardown(name, service_set_up, service_tear_down)

/* So many more, aes-kw, enrolled for everything: s->more; bsa-100 and so on. */
void service_add_peers(struct service *s, size_t n);

/* Enrols a peer for this pattern. */
int service_enrol(struct service *s, const struct peer *p, const char *entitle);
/* Changes the one thing that is given. */
int service_set_entitle(struct service *s, const struct peer *p, const char *entitle);
int service_enable(struct service *s, const struct peer *p, bool enable);
/* Adds a content without crypto-periods. */
int service_add_content(struct service *s, const char *content, unsigned bits);
/* And one with them, the first of which begins with the second that is now. */
void service_add_periods(struct service *s, const char *content, int64_t period_s, int64_t lead_s);
/* The key ID that is current; the whole must work. */
void service_rotate(struct service *s, const char *content);
void service_destroy(struct service *s, const uint8_t key_id[static 16]);

/* ---- asking ---------------------------------------------------------------------------------- */

struct ask {
    struct keys_request r; /* first */
    struct service *s;
    const struct peer *peer;
    enum cp3_media media;
    char *body;
    uint8_t req[32];      /* SHA-256 of it */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    char known[CP3_ID_MAX + 1];
    unsigned knew; /* how often known() was called */
    unsigned replies;
    struct keys_reply reply;
};

/* A Key Request as this peer sends it. */
struct cp3_message ask_message(const struct peer *p, const char *mid, const char *content);
/* Sends a message, or any octets; ask_end() has to follow. */
struct ask *ask_send(struct service *s, const struct peer *p, const struct cp3_message *m,
                     enum cp3_media media);
/* The same with another patience than the usual. */
struct ask *ask_send_for(struct service *s, const struct peer *p, const struct cp3_message *m,
                         int64_t patience_us);
struct ask *ask_send_octets(struct service *s, const struct peer *p, const char *content_type,
                            const char *octets, int64_t patience_us);
/* Waits for the reply; more may be asked of it until ask_end(). */
void ask_wait(struct ask *a);
bool ask_is_answered(struct ask *a);
/* Waits until known() was called. */
void ask_wait_known(struct ask *a);
/* keys_sent(), once ask_wait() was called. */
void ask_end(struct ask *a);

/* The message that the reply carries. */
struct cp3_message ask_answer(struct ask *a);
/* Waits for a reply of Status 0, and gives the clear TEK. */
size_t ask_tek(struct ask *a, uint8_t ret_tek[static FAKE_TEK_MAX]);
/* Waits for a refusal of this reason, with this HTTP status. */
void ask_refused(struct ask *a, int status, const char *reason);

/* Asks, wants a key, ends: the message and, unless NULL, the TEK. */
struct cp3_message ask_key(struct service *s, const struct peer *p, const char *mid,
                           const char *content, uint8_t *ret_tek);
/* Asks, wants a refusal, ends. */
void ask_no_key(struct service *s, const struct peer *p, const char *mid, const char *content,
                const char *reason);

/* ---- the log --------------------------------------------------------------------------------- */

/* All records there are, lazy ones included: each has to be whole; how many are of this event and,
 * unless key is NULL, have this text there. */
unsigned service_count(struct service *s, const char *event, const char *key, const char *value);
/* A field of the last one of them; copied. */
const char *service_last(struct service *s, const char *event, const char *field,
                         char out[static 256]);

#endif
