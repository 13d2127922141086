/*
 * What the tests of the store share: a database in a folder of its own, the signer, items whose end
 * can be waited for, and a check of the whole log.  For the fake clock.
 */
#ifndef TEST_STORE_FIXTURE_H
#define TEST_STORE_FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "fake_clock.h"
#include "store_check.h"
#include "store_signer.h"
#include "tekd/clock.h"
#include "tekd/err.h"

struct fixture {
    char dir[64];
    char path[128];
    char anchor[128];
    struct store_options o;
    struct store_test_signer *signer;
    struct store *store;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    int fatal; /* what the store latched with, or 0 */
};

/* cmocka's setup and teardown: *state is the fixture. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);
/* What store_open() says; a store that opened is closed again. */
int fixture_try_open(struct fixture *f);
/* The store has taken notice of the clock and of everything submitted before. */
void fixture_turn(struct fixture *f);
/* Waits until all that is committed is under a committed checkpoint. */
void fixture_wait_signed(struct fixture *f);
uint64_t fixture_epoch(struct fixture *f);
/* The signer is a thread of its own: the store takes notice when it is back. */
void fixture_wait_epoch(struct fixture *f, uint64_t epoch);
/* Has the current one closed, and waits for the next. */
void fixture_close_epoch(struct fixture *f);
/* Whether the log is signed with the signer's key of this kind, and how many were it before. */
bool fixture_key_is_taken(struct fixture *f, enum store_key kind);
bool fixture_spki_is_of(const struct hsm_spki *spki, EVP_PKEY *key);
size_t fixture_retired(struct fixture *f);
/* Waits for the store to latch. */
int fixture_wait_fatal(struct fixture *f);

/* Runs the child in a process of its own, which ends without closing anything. */
void fixture_crash(struct fixture *f, void (*child)(struct fixture *f));
/* The database of a closed store, on the disk itself even if store_vfs.h is registered. */
sqlite3 *fixture_sqlite(struct fixture *f);
/* Runs SQL on it. */
void fixture_sql(struct fixture *f, const char *sql);
/* Copies a file. */
void fixture_copy(const char *from, const char *to);

/* An item that makes a content of this name and adds as many records. */
struct probe {
    struct store_item item; /* first */
    const char *name;       /* of the content; NULL: none */
    int64_t wait_for;       /* packed place; -1: not */
    uint64_t seq;           /* of its first record */
    unsigned records;
    int fail;             /* what apply returns after it has written everything; 0: nothing */
    pthread_mutex_t lock; /* guards what follows, but applied */
    pthread_cond_t changed;
    int result;
    bool is_done;
    bool applied; /* apply ran */
};
void probe_init(struct probe *p, enum store_wait wait, const char *name, unsigned records);
void probe_submit(struct fixture *f, struct probe *p);
int probe_wait(struct probe *p);
bool probe_done(struct probe *p);
/* The three at once. */
int probe_run(struct fixture *f, enum store_wait wait, const char *name, unsigned records);

/* Whether there is a content of this name, as a read says. */
bool fixture_has(struct fixture *f, const char *name);

/* store_check.h, of this store. */
struct log_check fixture_check_log(struct fixture *f, const char *event);
struct log_check fixture_check_epoch(struct fixture *f, uint64_t epoch, const char *event);

/* The lines that the store has written for operators in this test; static. */
char *fixture_log(void);
/* Whether one of them has both of these. */
bool fixture_logged(const char *a, const char *b);

#endif
