/*
 * The admin socket over the whole key service, as tests/unit/keys_fixture.h has it, and a client.
 * Every failure ends the test.
 */
#ifndef TEST_ADMIN_FIXTURE_H
#define TEST_ADMIN_FIXTURE_H

#include <jansson.h>

#include "keys_fixture.h"
#include "tekd/admin.h"

#define ADMIN_TEST_ANSWER_MAX 4194304
#define ADMIN_TEST_DEADLINE_S 7200

struct admin_test {
    struct service *s;
    struct admin *admin;
    char path[100]; /* of the socket */
    char answer[ADMIN_TEST_ANSWER_MAX];
};

/* Why tekd is not ready: it never is here. */
extern const char *admin_test_reason;

/* What admin_start() takes here. */
struct admin_options admin_test_options(struct admin_test *t);
void admin_test_start(struct admin_test *t);
/* The BSA that was hurried last; 0: none was. */
int64_t admin_test_hurried(void);
/* Of cmocka: *state is an admin_test whose socket serves. */
int admin_test_set_up(void **state);
int admin_test_tear_down(void **state);
#define ADMIN_TEST(name)                                                                           \
    cmocka_unit_test_setup_teardown(name, admin_test_set_up, admin_test_tear_down)

/* ---- a client -------------------------------------------------------------------------------- */

/* A connection, -1 if nobody listens. */
int admin_test_dial(const char *path);
/* All that comes until the other side closes. */
const char *admin_test_read_all(struct admin_test *t, int fd);
/* Sends these octets; all that comes. */
const char *admin_test_talk(struct admin_test *t, const char *octets);
/* The answer, which is one line; owned by the caller. */
json_t *admin_test_ask(struct admin_test *t, const char *request);
/* Wants an error of this code that says so. */
void admin_test_error(struct admin_test *t, const char *request, const char *code,
                      const char *says);
/* Wants success; the result is the caller's. */
json_t *admin_test_result(struct admin_test *t, const char *request);

/* A member of an object: "" if there is no such string, 0 if there is no such integer. */
const char *admin_test_str(const json_t *o, const char *key);
json_int_t admin_test_int(const json_t *o, const char *key);

#endif
