/* Questions for a TSA, and answers: good ones, and each that is not one for these octets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/sha.h>
#include <string.h>
#include <time.h>

#include "tekd/auto.h"
#include "tekd/err.h"
#include "tekd/timestamp.h"
#include "tsa.h"

#define DAY_S  INT64_C(86400)
#define OCTETS "bsm.example/tekd/audit/1\n7\n"

struct place {
    struct tsa *tsa;
    struct buf *question, *answer;
    struct timestamp_nonce nonce;
    int64_t now_s;
    int64_t utc_us;
    char why[TIMESTAMP_WHY_MAX];
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    p->now_s = (int64_t)time(NULL);
    p->tsa = tsa_new(p->now_s - DAY_S, p->now_s + DAY_S);
    p->tsa->utc_s = p->now_s;
    assert_int_equal(buf_new(1024, &p->question), 0);
    assert_int_equal(buf_new((size_t)2 * TIMESTAMP_MAX, &p->answer), 0);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;

    tsa_free(p->tsa);
    buf_free(p->question);
    buf_free(p->answer);
    free(p);
    return 0;
}

/* The answer to a question about these octets. */
static void ask(struct place *p, const char *octets)
{
    assert_int_equal(timestamp_ask(octets, strlen(octets), &p->nonce, p->question), 0);
    tsa_answer(p->tsa, p->question, p->answer);
}

static struct timestamp_check usual(const struct place *p)
{
    return (struct timestamp_check){
        .octets = OCTETS, .len = strlen(OCTETS), .nonce = &p->nonce, .ca = p->tsa->store};
}

static int verify(struct place *p, const struct timestamp_check *c)
{
    int r = timestamp_verify(c, buf_data(p->answer), buf_len(p->answer), &p->utc_us, p->why);

    assert_int_equal(ERR_peek_error(), 0);
    return r;
}

static void refuses(struct place *p, int error, const char *why)
{
    const struct timestamp_check c = usual(p);

    assert_int_equal(verify(p, &c), error);
    if (!strstr(p->why, why))
        fail_msg("expected \"%s\", found \"%s\"", why, p->why);
}

/* Version 1, SHA-256 and the hash, a nonce, certReq: octet for octet but for the nonce. */
static void timestamp_ask__writes_what_rfc_3161_says(void **state)
{
    static const uint8_t head[] = {0x02, 0x01, 0x01, 0x30, 0x31, 0x30, 0x0d, 0x06,
                                   0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
                                   0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
    struct place *p = *state;
    const uint8_t *q;
    uint8_t hash[32];
    size_t len;

    assert_int_equal(timestamp_ask(OCTETS, strlen(OCTETS), &p->nonce, p->question), 0);
    q = buf_data(p->question);
    len = buf_len(p->question);
    SHA256((const uint8_t *)OCTETS, strlen(OCTETS), hash);
    assert_int_equal(q[0], 0x30);
    assert_int_equal(q[1], len - 2);
    assert_memory_equal(q + 2, head, sizeof(head));
    assert_memory_equal(q + 2 + sizeof(head), hash, sizeof(hash));
    assert_int_equal(q[2 + sizeof(head) + 32], 0x02);
    assert_memory_equal(q + len - 3, "\x01\x01\xff", 3);
}

static void timestamp_ask__never_has_the_same_nonce(void **state)
{
    struct place *p = *state;
    struct timestamp_nonce other;

    assert_int_equal(timestamp_ask(OCTETS, strlen(OCTETS), &p->nonce, p->question), 0);
    assert_int_equal(timestamp_ask(OCTETS, strlen(OCTETS), &other, p->question), 0);
    assert_memory_not_equal(&p->nonce, &other, sizeof(other));
}

static void timestamp_verify__takes_a_good_one(void **state)
{
    struct place *p = *state;
    struct timestamp_check c = usual(p);

    ask(p, OCTETS);
    assert_int_equal(verify(p, &c), 0);
    assert_int_equal(p->utc_us, p->now_s * 1000000);
    c.nonce = NULL;
    assert_int_equal(verify(p, &c), 0);
    c.ca = NULL;
    assert_int_equal(verify(p, &c), 0);
}

static void timestamp_verify__refuses_other_octets(void **state)
{
    struct place *p = *state;
    struct timestamp_check c = usual(p);

    ask(p, OCTETS "more");
    refuses(p, TEKD_ECRYPTO, "it stamps other octets");
    c.ca = NULL;
    assert_int_equal(verify(p, &c), TEKD_ECRYPTO);
}

static void timestamp_verify__refuses_another_nonce(void **state)
{
    struct place *p = *state;

    ask(p, OCTETS);
    p->nonce.octets[3] ^= 1;
    refuses(p, TEKD_ECRYPTO, "it answers another question (nonce)");
}

static void timestamp_verify__refuses_another_ca(void **state)
{
    struct place *p = *state;
    struct tsa *other = tsa_new(p->now_s - DAY_S, p->now_s + DAY_S);
    struct timestamp_check c = usual(p);

    ask(p, OCTETS);
    c.ca = other->store;
    assert_int_equal(verify(p, &c), TEKD_ECRYPTO);
    assert_non_null(strstr(p->why, "certificate refused: "));
    tsa_free(other);
}

/* By our time; an auditor asks whether it was good then. */
static void timestamp_verify__refuses_a_tsa_that_has_expired(void **state)
{
    struct place *p = *state;
    struct timestamp_check c;

    tsa_free(p->tsa);
    p->tsa = tsa_new(p->now_s - 3 * DAY_S, p->now_s - DAY_S);
    p->tsa->utc_s = p->now_s - 2 * DAY_S;
    ask(p, OCTETS);
    refuses(p, TEKD_ECRYPTO, "expired");
    c = usual(p);
    c.at_its_time = true;
    assert_int_equal(verify(p, &c), 0);
    assert_int_equal(p->utc_us, (p->now_s - 2 * DAY_S) * 1000000);
}

static void timestamp_verify__refuses_a_stamp_of_after_the_end_of_its_tsa(void **state)
{
    struct place *p = *state;
    struct timestamp_check c = usual(p);

    p->tsa->utc_s = p->now_s + 2 * DAY_S;
    ask(p, OCTETS);
    c.at_its_time = true;
    assert_int_equal(verify(p, &c), TEKD_ECRYPTO);
    assert_non_null(strstr(p->why, "expired"));
}

/* RFC 3161 section 2.3: that one purpose, and critical. */
static void timestamp_verify__refuses_a_certificate_for_something_else(void **state)
{
    static const char *const usages[] = {"critical,serverAuth", "timeStamping",
                                         "critical,timeStamping,serverAuth"};
    struct place *p = *state;

    for (size_t i = 0; i < ARRAY_SIZE(usages); i++) {
        tsa_free(p->tsa);
        p->tsa = tsa_new(p->now_s - DAY_S, p->now_s + DAY_S);
        p->tsa->utc_s = p->now_s;
        p->tsa->other_usage = usages[i];
        buf_reset(p->question);
        buf_reset(p->answer);
        ask(p, OCTETS);
        refuses(p, TEKD_ECRYPTO, "certificate refused: ");
        assert_non_null(strstr(p->why, "purpose"));
    }
}

static void timestamp_verify__says_that_the_tsa_refused(void **state)
{
    struct place *p = *state;

    p->tsa->refuses = true;
    ask(p, OCTETS);
    refuses(p, TEKD_EDENIED, "refused with status 2: Message digest algorithm is not supported.");
}

static void timestamp_verify__refuses_every_truncation_and_tail(void **state)
{
    struct place *p = *state;
    const struct timestamp_check c = usual(p);

    ask(p, OCTETS);
    for (size_t n = 0; n < buf_len(p->answer); n++)
        assert_int_not_equal(timestamp_verify(&c, buf_data(p->answer), n, &p->utc_us, p->why), 0);
    assert_int_equal(buf_putc(p->answer, '\0'), 0);
    refuses(p, TEKD_EFORMAT, "not a time stamp");
}

static void timestamp_verify__refuses_any_changed_octet(void **state)
{
    struct place *p = *state;
    const struct timestamp_check c = usual(p);
    AUTO(buf) struct buf *other = NULL;
    unsigned taken = 0;

    ask(p, OCTETS);
    for (size_t i = 0; i < buf_len(p->answer); i++) {
        buf_free(other);
        assert_int_equal(buf_new(TIMESTAMP_MAX, &other), 0);
        assert_int_equal(buf_append(other, buf_data(p->answer), i), 0);
        assert_int_equal(buf_putc(other, (char)(buf_data(p->answer)[i] ^ 1)), 0);
        assert_int_equal(buf_append(other, buf_data(p->answer) + i + 1, buf_len(p->answer) - i - 1),
                         0);
        if (timestamp_verify(&c, buf_data(other), buf_len(other), &p->utc_us, p->why) != 0)
            continue;
        assert_int_equal(p->utc_us, p->now_s * 1000000);
        taken++;
    }
    /* Granted with modifications instead of granted; of the envelope versions, names of algorithms
     * and their parameters: none of it is signed, and none changes what is. */
    assert_true(taken <= 16);
}

static void timestamp_verify__has_a_limit(void **state)
{
    struct place *p = *state;

    ask(p, OCTETS);
    while (buf_len(p->answer) <= TIMESTAMP_MAX)
        assert_int_equal(buf_putc(p->answer, 'x'), 0);
    refuses(p, TEKD_ETOOBIG, "");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(timestamp_ask__writes_what_rfc_3161_says),
        TEST(timestamp_ask__never_has_the_same_nonce),
        TEST(timestamp_verify__takes_a_good_one),
        TEST(timestamp_verify__refuses_other_octets),
        TEST(timestamp_verify__refuses_another_nonce),
        TEST(timestamp_verify__refuses_another_ca),
        TEST(timestamp_verify__refuses_a_tsa_that_has_expired),
        TEST(timestamp_verify__refuses_a_stamp_of_after_the_end_of_its_tsa),
        TEST(timestamp_verify__refuses_a_certificate_for_something_else),
        TEST(timestamp_verify__says_that_the_tsa_refused),
        TEST(timestamp_verify__refuses_every_truncation_and_tail),
        TEST(timestamp_verify__refuses_any_changed_octet),
        TEST(timestamp_verify__has_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
