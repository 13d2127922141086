/* Who collects, over the whole key service: what is recorded and answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "keys_fixture.h"
#include "tekd/enc.h"
#include "tekd/err.h"

static struct keys_asker asker(const struct peer *p)
{
    struct keys_asker a = {.addr = "192.0.2.7:4000"};

    memcpy(a.cert_sha256, p->cert, sizeof(a.cert_sha256));
    return a;
}

static void assert_record(struct service *s, const char *reason, const struct peer *p,
                          bool is_enrolled)
{
    char text[256], hex[ENC_HEX_LEN(32) + 1];

    enc_hex(p->cert, 32, hex);
    assert_int_equal(service_count(s, "request.refused", "reason", reason), 1);
    assert_string_equal(service_last(s, "request.refused", "cert", text), hex);
    assert_string_equal(service_last(s, "request.refused", "addr", text), "192.0.2.7:4000");
    assert_int_equal(service_count(s, "request.refused", "peer", p->id), is_enrolled);
}

static void keys_collector__is_the_enrolled_bsa(void **state)
{
    struct service *s = *state;
    struct keys_collector c[2];
    struct keys_reply reply;

    for (size_t i = 0; i < 2; i++) {
        const struct keys_asker a = asker(&s->peer[i]);

        assert_int_equal(keys_collector(s->keys, &a, &c[i], &reply), 0);
        assert_string_equal(c[i].id, s->peer[i].id);
    }
    assert_true(c[0].row > 0 && c[1].row > 0 && c[0].row != c[1].row);
    assert_int_equal(service_count(s, "request.refused", NULL, NULL), 0);
}

static void keys_collector__refuses_a_stranger(void **state)
{
    struct service *s = *state;
    const struct keys_asker a = asker(&s->spare);
    struct keys_collector c = {.row = -1};
    struct keys_reply reply;

    assert_int_equal(keys_collector(s->keys, &a, &c, &reply), TEKD_EDENIED);
    assert_int_equal(reply.status, 403);
    assert_true(reply.close);
    assert_string_equal(reply.media, "application/problem+json");
    assert_non_null(strstr(buf_str(reply.body), "not enrolled"));
    buf_free(reply.body);
    assert_int_equal(c.row, -1);
    assert_record(s, "not-enrolled", &s->spare, false);
}

static void keys_collector__refuses_who_is_disabled(void **state)
{
    struct service *s = *state;
    const struct keys_asker a = asker(&s->peer[0]);
    struct keys_collector c;
    struct keys_reply reply;

    assert_int_equal(service_enable(s, &s->peer[0], false), 0);
    assert_int_equal(keys_collector(s->keys, &a, &c, &reply), TEKD_EDENIED);
    assert_int_equal(reply.status, 403);
    assert_non_null(strstr(buf_str(reply.body), "disabled"));
    buf_free(reply.body);
    assert_record(s, "disabled", &s->peer[0], true);
    assert_int_equal(service_enable(s, &s->peer[0], true), 0);
    assert_int_equal(keys_collector(s->keys, &a, &c, &reply), 0);
}

/* No more records than refused requests get. */
static void keys_collector__records_no_more_than_ten_a_minute(void **state)
{
    struct service *s = *state;
    const struct keys_asker a = asker(&s->spare);
    struct keys_collector c;
    struct keys_status status;

    for (int i = 0; i < 30; i++) {
        struct keys_reply reply;

        assert_int_equal(keys_collector(s->keys, &a, &c, &reply), TEKD_EDENIED);
        buf_free(reply.body);
    }
    assert_int_equal(service_count(s, "request.refused", NULL, NULL), 10);
    keys_status_get(s->keys, &status);
    assert_int_equal(status.refused, 30);
}

static void keys_collect_malformed__says_what_is_wrong(void **state)
{
    struct service *s = *state;
    const struct keys_asker a = asker(&s->peer[1]);
    const struct keys_collector c = {.row = 2, .id = "bsa-2"};
    struct keys_reply reply;

    keys_collect_malformed(s->keys, &a, &c, "too \"long\"", &reply);
    assert_int_equal(reply.status, 400);
    assert_false(reply.close);
    assert_null(reply.reason); /* it is no message of CP-3 */
    assert_string_equal(reply.media, "application/problem+json");
    assert_non_null(strstr(buf_str(reply.body), "\"detail\":\"too \\\"long\\\"\""));
    buf_free(reply.body);
    assert_record(s, "malformed", &s->peer[1], true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(keys_collector__is_the_enrolled_bsa),
        SERVICE_TEST(keys_collector__refuses_a_stranger),
        SERVICE_TEST(keys_collector__refuses_who_is_disabled),
        SERVICE_TEST(keys_collector__records_no_more_than_ten_a_minute),
        SERVICE_TEST(keys_collect_malformed__says_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
