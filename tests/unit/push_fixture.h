/*
 * The push service over the key service's fixture, and BSAs with HTTPS servers that do with a
 * delivery what a test says.  Time stands still until a test moves it.  Every failure ends the
 * test.
 */
#ifndef TEST_PUSH_FIXTURE_H
#define TEST_PUSH_FIXTURE_H

#include <sched.h>

#include "fake_clock.h"
#include "keys_delivery.h"
#include "push_server.h"
#include "tekd/push.h"

#define NEWS      "urn:x:news"
#define PUSH_BSAS 3
#define PUSH_SEEN 256
#define S         INT64_C(1000000)
#define ATTEMPT_S 10
#define MID_SIZE  (STORE_MID_LEN + 1)

/* What a BSA does with a delivery. */
enum bsa_mode {
    BSA_CONFIRMS,
    BSA_CONFIRMS_EFFICIENT,
    BSA_TAKES, /* 202, and says no more */
    BSA_REJECTS,
    BSA_FAILS, /* 500 */
    BSA_TALKS, /* 200, and HTML */
    BSA_REDIRECTS,
    BSA_HANGS,
    BSA_RESETS,
    BSA_FLOODS,
    BSA_CONFIRMS_ANOTHER, /* MessageID, which it was told */
    BSA_CONFIRMS_OTHER_CONTENT,
};

struct bsa_side {
    const struct peer *peer;
    struct push_server server;
    bool serving;
    pthread_mutex_t lock; /* guards what follows */
    enum bsa_mode mode;
    char another[MID_SIZE];
    unsigned n; /* deliveries seen, and of each: */
    char mid[PUSH_SEEN][MID_SIZE];
    uint8_t sha256[PUSH_SEEN][32];
};

struct courier {
    struct service *s;
    struct push_options o; /* to be changed before courier_start() */
    struct push *push;
    bool stopped;
    struct bsa_side bsa[PUSH_BSAS]; /* bsa-1 to bsa-3 */
};

/* Of cmocka; between bsa_server_make_pki() and bsa_server_remove_pki().  *state is a courier that
 * works, with the content NEWS and BSAs that confirm. */
int courier_set_up(void **state);
int courier_tear_down(void **state);
#define COURIER_TEST(name) cmocka_unit_test_setup_teardown(name, courier_set_up, courier_tear_down)
/* The log for operators goes into a file from here on. */
int courier_make_pki(void **state);

void courier_start(struct courier *c);
void courier_stop(struct courier *c);
/* The key service and its store as well, and again. */
void courier_restart(struct courier *c);

void bsa_set_mode(struct bsa_side *b, enum bsa_mode mode);
unsigned bsa_seen(struct bsa_side *b);
/* Whether what it saw at these places is the same, octet by octet. */
bool bsa_saw_same(struct bsa_side *b, unsigned i, unsigned j);
/* Changes the URL, or takes it away (""). */
void bsa_set_url(struct courier *c, struct bsa_side *b, const char *url);
/* What is enrolled beside the peer's own certificate. */
void bsa_set_identity(struct courier *c, struct bsa_side *b, const char *identity);

/* One delivery of NEWS. */
void send_to(struct courier *c, struct bsa_side *b, char ret_mid[static MID_SIZE]);
/* Waits, for as long as it may take on a slow machine, until cond. */
#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        int64_t give_up_ = courier_real_us() + 60 * S;                                             \
        while (!(cond) && courier_real_us() < give_up_)                                            \
            (void)sched_yield();                                                                   \
        assert_true(cond);                                                                         \
    } while (0)
int64_t courier_real_us(void);
/* Whether it is, and waits until it is. */
bool is_state(struct courier *c, const char *mid, enum store_delivery_state state);
void until_state(struct courier *c, const char *mid, enum store_delivery_state state);
/* Until the row says so: prepared again, with this reason. */
void until_failed(struct courier *c, const char *mid, const char *why);

/* How many deliveries are. */
uint64_t confirmed(struct courier *c);
/* Until no attempt is under way: what a BSA answered has been read. */
void until_quiet(struct courier *c);

/* Whether a line of the log has both of these. */
bool courier_logged(const char *a, const char *b);

#endif
