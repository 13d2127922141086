/*
 * A check of the whole log of an open store, by what it reads of it and the signer's keys.
 */
#ifndef TEST_STORE_CHECK_H
#define TEST_STORE_CHECK_H

#include <stdint.h>

#include "store_signer.h"

struct store_check {
    struct store *store;
    const struct store_test_signer *signer;
    const char *bsm_id;
};

/* The log as a read gives it. */
struct log_check {
    uint64_t leaves;
    uint64_t notes;
    uint64_t signed_size;
    unsigned count;            /* records of the event that was asked for */
    uint64_t from, to, number; /* fields of the last of them */
    char release[16];
    uint64_t seq; /* and its place */
};
/*
 * Fails the test unless every record is canonical and at its number, and every note verifies and
 * has the root of the leaves under it, in every epoch.  What is returned is of the current one.
 * event may be NULL.
 */
struct log_check store_check_log(const struct store_check *of, const char *event);
/* Of this epoch alone. */
struct log_check store_check_epoch(const struct store_check *of, uint64_t epoch, const char *event);

#endif
