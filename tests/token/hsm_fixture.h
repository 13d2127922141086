/*
 * A SoftHSM token of its own for each test, in a folder that goes with it, and a pool over it.
 * The module is never loaded into the test: the token is made by a child process.
 */
#ifndef TEST_HSM_FIXTURE_H
#define TEST_HSM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tekd/hsm.h"

#define FIXTURE_PIN   "4711-fixture-user"
#define FIXTURE_TOKEN "pkcs11:token=tekd-test"

/* Its clear value is FIXTURE_BSA_KEK, so that a test can unwrap what is wrapped for it. */
#define FIXTURE_BSA       "bsa-1"
#define FIXTURE_ED25519   "checkpoint-ed25519"   /* signs beside checkpoint-1 */
#define FIXTURE_ED25519_2 "checkpoint-ed25519-2" /* replaces that one */
#define FIXTURE_STORAGE   "storage-1"
extern const uint8_t fixture_bsa_kek[32];

struct fixture {
    char dir[64];
    char pin_file[96];
    char latch_file[96];
    char spy_file[96];
    char env_conf[128];
    char env_spy[128];
    char env_spy_file[128];
    char env_shim[128];
    char env_shim_mode[64];
    const char *env[6];
    struct hsm_options options;
    struct hsm *hsm;
    struct hsm_kek storage;
    struct hsm_kek bsa;
};

/* cmocka's set-up and tear-down: a token with storage-1, bsa-1, bsa-2, checkpoint-1 and tls-1. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Starts the pool with f->options and waits until it is ready; then f->storage and f->bsa hold. */
void fixture_start(struct fixture *f);
/* Starts it and returns the state it came to. */
enum hsm_state fixture_start_any(struct fixture *f);
void fixture_stop(struct fixture *f);

/* The workers load pkcs11-spy instead, which logs into f->spy_file. */
void fixture_spy(struct fixture *f);
/* Lines of it that hold this. */
unsigned fixture_count(const struct fixture *f, const char *call);

/* The workers load the shim of shim.c in this mode. */
void fixture_shim(struct fixture *f, const char *mode);
/* The workers load the spy, which loads the shim. */
void fixture_spy_on_shim(struct fixture *f, const char *mode);

bool fixture_file_has(const char *path, const char *text);

void fixture_write_pin(const struct fixture *f, const char *pin);

/* Runs pkcs11-tool on the token: arguments up to NULL. */
void fixture_pkcs11_tool(const struct fixture *f, ...);

/* Until deadline in seconds from now, for the calls. */
int64_t fixture_in(double seconds);

/* Some milliseconds, inside a loop that waits for something. */
void fixture_pause(void);

/* Waits until the state is this one; fails the test after some seconds. */
void fixture_await(struct fixture *f, enum hsm_state state);

/* The process of worker i, whose number it waits for; that of tekd-hsm. */
int fixture_worker(struct fixture *f, size_t i);
int fixture_parent(struct fixture *f);
/* Waits until no process of this number runs any more. */
void fixture_await_gone(int pid);
bool fixture_alive(int pid);

/* Unwraps (RFC 3394) with OpenSSL; returns the length. */
size_t fixture_unwrap(const uint8_t kek[static 32], const struct hsm_blob *blob, uint8_t out[64]);

#endif
