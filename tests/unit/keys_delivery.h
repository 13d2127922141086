/*
 * Key Deliveries over the key service's fixture: made, handed out as the push service does it, and
 * confirmed.  Every failure ends the test.
 */
#ifndef TEST_KEYS_DELIVERY_H
#define TEST_KEYS_DELIVERY_H

#include "keys_fixture.h"

#define DELIVERY_DEADLINE_S 3600
#define DELIVERIES_MAX      128

/* What one "deliver" prepared, in its order. */
struct delivered {
    size_t n;
    char mid[DELIVERIES_MAX][STORE_MID_LEN + 1];
    char bsa[DELIVERIES_MAX][32];
};
/* To the BSAs named (NULL ends them), or to all; returns what keys_deliver() does. */
int deliver(struct service *s, const char *content, const char *const *bsas,
            struct delivered *ret_delivered);
/* One, to this peer; the whole must work. */
void deliver_one(struct service *s, const char *content, const struct peer *p,
                 char ret_mid[static STORE_MID_LEN + 1]);

/* The row as it is now. */
struct store_delivery delivery_row(struct service *s, const char *mid);
/* In this state, after at least one attempt; without a record. */
void delivery_force(struct service *s, const char *mid, enum store_delivery_state state);
/* Handed out: in flight, its first attempt. */
void delivery_claim(struct service *s, const char *mid);
/* Its message as it is stored.  Errors: TEKD_ENOTFOUND: it has none any more. */
int delivery_message(struct service *s, const char *mid, struct cp3_message *ret_message);
/* The same, read; and the clear TEK that this peer finds in it. */
size_t delivery_tek(struct service *s, const char *mid, const struct peer *p,
                    uint8_t ret_tek[static FAKE_TEK_MAX]);
/* How many are there in all, for this BSA (NULL: for all). */
size_t delivery_count(struct service *s, const struct peer *p);

/* The Confirmation of a delivery as this peer would write it. */
struct cp3_message confirm_message(const struct peer *p, const char *mid, const char *content,
                                   enum cp3_status status);
/* POSTs it; the form says which, in XML. */
struct ask *confirm_send(struct service *s, const struct peer *p, const struct cp3_message *m,
                         enum cp3_form form);
/* POSTs it, full, and returns the HTTP status; the reason, if any, has to be this one. */
int confirm(struct service *s, const struct peer *p, const struct cp3_message *m,
            const char *reason);

/* The rows of fan-outs. */
size_t fanout_count(struct service *s);
/* Steps of all fan-outs until none is left. */
void fanout_run(struct service *s);
/* The first one; the whole must work. */
struct store_fanout fanout_first(struct service *s);

#endif
