/*
 * An HSM in this process, by OpenSSL: what include/tekd/hsm.h says of issue, export and describe,
 * with KEKs that a test makes, loses, replaces; calls can be held, fail, or hang to their deadline.
 * It also tells the clear TEK of a wrap, which no HSM does.
 */
#ifndef TEST_FAKE_HSM_H
#define TEST_FAKE_HSM_H

#include "tekd/hsm.h"

#define FAKE_TEK_MAX 32

struct hsm *fake_hsm_new(void);
void fake_hsm_free(struct hsm *h);

/* Makes a KEK of this label: AES-256, or RSA-2048 where the wrap is OAEP. */
void fake_hsm_add(struct hsm *h, const char *label, enum hsm_wrap wrap);
/* Another key of the same label in its place, or none. */
void fake_hsm_replace(struct hsm *h, const char *label);
void fake_hsm_remove(struct hsm *h, const char *label);
/* Describing it says so: TEKD_EWEAK, TEKD_EEXIST …; 0: it is as it should be. */
void fake_hsm_blame(struct hsm *h, const char *label, int error);

/* Wrapping for a BSA under it gives this error: its KEK kills a worker; 0: it works. */
void fake_hsm_break(struct hsm *h, const char *label, int error);

/* The calls that can be told apart; FAKE_MAKE is hsm_issue() without a BSA. */
enum fake_call { FAKE_ISSUE, FAKE_MAKE, FAKE_EXPORT, FAKE_DESCRIBE, FAKE_CALLS };
/* Such calls fail with this error from now on; 0: they work. */
void fake_hsm_fail(struct hsm *h, enum fake_call call, int error);
/* Such calls wait, until they are released or their deadline has passed (TEKD_ETIMEDOUT). */
void fake_hsm_hold(struct hsm *h, enum fake_call call, bool held);
/* Waits until so many of them are held at the moment. */
void fake_hsm_wait_held(struct hsm *h, enum fake_call call, unsigned n);
/* How many were made in all, and of those how many worked. */
unsigned fake_hsm_made(struct hsm *h, enum fake_call call);
unsigned fake_hsm_worked(struct hsm *h, enum fake_call call);

/* The clear TEK that was wrapped under this KEK; its length, 0 if it does not unwrap. */
size_t fake_hsm_unwrap(struct hsm *h, const char *label, const uint8_t *data, size_t len,
                       uint8_t ret_tek[static FAKE_TEK_MAX]);

/* What hsm_status_get() says, and how often hsm_retry() was called. */
void fake_hsm_set_state(struct hsm *h, enum hsm_state state, const char *reason);
unsigned fake_hsm_retries(struct hsm *h);

#endif
