#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys_fixture.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])

/* ---- an answer ------------------------------------------------------------------------------- */

static void handle__answers_with_the_tek_wrapped_for_the_bsa(void **state)
{
    static const enum cp3_media media[] = {CP3_XML, CP3_JSON};
    struct service *s = *state;

    for (size_t i = 0; i < ARRAY_SIZE(media); i++) {
        char mid[16];
        struct cp3_message request, m;
        uint8_t tek[FAKE_TEK_MAX];
        struct ask *a;

        (void)snprintf(mid, sizeof(mid), "m-%zu", i);
        request = ask_message(BSA(s, 1), mid, "urn:x");
        a = ask_send(s, BSA(s, 1), &request, media[i]);
        assert_int_equal(ask_tek(a, tek), 16);
        m = ask_answer(a);
        assert_int_equal(m.form, CP3_FULL);
        assert_string_equal(m.message_id, mid);
        assert_string_equal(m.content_id, "urn:x");
        assert_string_equal(m.source, SERVICE_BSM);
        assert_string_equal(m.destination, "bsa-1");
        assert_int_equal(m.has, CP3_HAS_VERSION | CP3_HAS_TIME | CP3_HAS_KEY_INFO);
        assert_int_equal(m.version, 1);
        assert_int_equal(m.data_len, 24);
        assert_string_equal(m.key_info.kek_id, "bsa-1/1");
        assert_int_equal(m.key_info.wrap, CP3_WRAP_AES_KW);
        assert_int_equal(m.key_info.bits, 128);
        assert_int_equal(m.key_info.has, 0);
        assert_string_equal(a->known, mid);
        ask_end(a);
    }
    assert_int_equal(fake_hsm_worked(s->hsm, FAKE_ISSUE), 1); /* the second time it was known */
    assert_int_equal(fake_hsm_worked(s->hsm, FAKE_EXPORT), 0);
}

static void handle__every_wrap_unwraps_to_the_same_tek(void **state)
{
    struct service *s = *state;
    uint8_t first[FAKE_TEK_MAX], tek[FAKE_TEK_MAX];
    struct cp3_message m, n;

    m = ask_key(s, BSA(s, 1), "m", "urn:x", first);
    for (size_t i = 2; i <= SERVICE_PEERS; i++) {
        n = ask_key(s, BSA(s, i), "m", "urn:x", tek);
        assert_memory_equal(tek, first, 16);
        assert_memory_equal(n.key_info.key_id, m.key_info.key_id, CP3_KEY_ID_SIZE);
        assert_true(n.data_len != m.data_len || memcmp(n.data, m.data, m.data_len) != 0);
    }
    assert_int_equal(n.data_len, 256); /* of the RSA key */
    assert_int_equal(n.key_info.wrap, CP3_WRAP_RSA_OAEP_SHA256);
}

static void handle__contents_have_teks_of_their_own(void **state)
{
    struct service *s = *state;
    uint8_t one[FAKE_TEK_MAX], other[FAKE_TEK_MAX];

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", one);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:y", other);
    assert_memory_not_equal(one, other, 16);
}

static void handle__makes_teks_as_long_as_the_content_wants(void **state)
{
    static const unsigned bits[] = {128, 192, 256};
    struct service *s = *state;

    for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
        char content[16];
        struct cp3_message m;

        (void)snprintf(content, sizeof(content), "urn:%u", bits[i]);
        assert_int_equal(keys_content_add(s->keys, &s->actor, content, bits[i], &s->error), 0);
        m = ask_key(s, BSA(s, 1), content, content, NULL);
        assert_int_equal(m.data_len, bits[i] / 8 + 8);
        assert_int_equal(m.key_info.bits, bits[i]);
    }
}

static void hex_of(const uint8_t *octets, size_t len, char out[static 65])
{
    uint8_t sha256[32];

    SHA256(octets, len, sha256);
    enc_hex(sha256, sizeof(sha256), out);
}

static void handle__records_what_was_asked_and_given(void **state)
{
    struct service *s = *state;
    struct cp3_message request = ask_message(BSA(s, 1), "m-1", "urn:x"), m;
    struct ask *a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    char hex[65], found[256], key_id[ENC_UUID_LEN + 1];
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_tek(a, tek);
    m = ask_answer(a);
    enc_uuid(m.key_info.key_id, key_id);
    assert_int_equal(service_count(s, "tek.generated", "keyid", key_id), 1);
    assert_string_equal(service_last(s, "tek.generated", "kekid", found), "storage/1");
    assert_string_equal(service_last(s, "tek.generated", "content", found), "urn:x");
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 1);
    assert_string_equal(service_last(s, "request.answered", "keyid", found), key_id);
    assert_string_equal(service_last(s, "request.answered", "mid", found), "m-1");
    assert_string_equal(service_last(s, "request.answered", "peer", found), "bsa-1");
    assert_string_equal(service_last(s, "request.answered", "kekid", found), "bsa-1/1");
    assert_string_equal(service_last(s, "request.answered", "dir", found), "pull");
    assert_string_equal(service_last(s, "request.answered", "addr", found), "192.0.2.1:1234");
    enc_hex(BSA(s, 1)->cert, 32, hex);
    assert_string_equal(service_last(s, "request.answered", "cert", found), hex);
    enc_hex(a->req, 32, hex);
    assert_string_equal(service_last(s, "request.answered", "req", found), hex);
    hex_of(buf_data(a->reply.body), buf_len(a->reply.body), hex);
    assert_string_equal(service_last(s, "request.answered", "out", found), hex);
    /* Only what left is said to have left. */
    assert_int_equal(service_count(s, "answer.sent", NULL, NULL), 0);
    ask_end(a);
    assert_int_equal(service_count(s, "answer.sent", "out", hex), 1);
    assert_string_equal(service_last(s, "answer.sent", "mid", found), "m-1");
}

static void keys_sent__of_an_answer_that_did_not_leave_says_nothing(void **state)
{
    struct service *s = *state;
    struct cp3_message request = ask_message(BSA(s, 1), "m-1", "urn:x");
    struct ask *a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_tek(a, tek);
    keys_sent(s->keys, &a->r, false);
    assert_int_equal(service_count(s, "answer.sent", NULL, NULL), 0);
    ask_end(a); /* its keys_sent() finds nothing any more */
    assert_int_equal(service_count(s, "answer.sent", NULL, NULL), 0);
}

/* More records than one item of the store may have. */
static void keys_sent__records_all_of_many(void **state)
{
    enum { MANY = 3 * STORE_RECORDS_MAX };
    struct service *s = *state;
    struct ask *a[MANY];
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_key(s, BSA(s, 1), "first", "urn:x", NULL);
    for (size_t from = 0; from < MANY; from += 32) {
        for (size_t i = from; i < from + 32; i++) {
            struct cp3_message request = ask_message(BSA(s, 1), "again", "urn:x");
            a[i] = ask_send(s, BSA(s, 1), &request, CP3_XML);
        }
        for (size_t i = from; i < from + 32; i++)
            (void)ask_tek(a[i], tek);
    }
    for (size_t i = 0; i < MANY; i++)
        ask_end(a[i]);
    assert_int_equal(service_count(s, "answer.sent", NULL, NULL), MANY + 1);
    assert_int_equal(service_count(s, "request.repeated", NULL, NULL), MANY - 1);
}

/* ---- the same Message ID again --------------------------------------------------------------- */

static void repeat__gets_the_same_octets(void **state)
{
    struct service *s = *state;

    for (size_t p = 1; p <= SERVICE_PEERS; p++) {
        struct cp3_message request = ask_message(BSA(s, p), "m-1", "urn:x");
        struct ask *first = ask_send(s, BSA(s, p), &request, CP3_XML), *again;
        uint8_t tek[FAKE_TEK_MAX];

        (void)ask_tek(first, tek);
        for (int i = 0; i < 3; i++) {
            again = ask_send(s, BSA(s, p), &request, CP3_XML);
            (void)ask_tek(again, tek);
            assert_string_equal(buf_str(again->reply.body), buf_str(first->reply.body));
            ask_end(again);
        }
        ask_end(first);
    }
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), SERVICE_PEERS);
    assert_int_equal(service_count(s, "request.repeated", NULL, NULL), 3 * SERVICE_PEERS);
}

/* With nothing on its way into the log: the newest record is what a repeat is decided after. */
static void repeats_after_the_newest(struct service *s)
{
    struct store_status st;
    char newest[32], found[256];

    assert_true(service_count(s, "answer.sent", NULL, NULL) > 0);
    store_status_get(s->store, &st);
    (void)snprintf(newest, sizeof(newest), "1/%llu", (unsigned long long)st.records - 1);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    assert_string_equal(service_last(s, "request.repeated", "after", found), newest);
}

static void repeat__tells_what_it_was_decided_after(void **state)
{
    struct service *s = *state;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    repeats_after_the_newest(s);
    service_rotate(s, "urn:x"); /* its key is in no cache now */
    repeats_after_the_newest(s);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 1);
}

/* Data, KeyInfo and Time are the stored ones; the rest is of the request and the enrolment. */
static void same_key(const struct cp3_message *a, const struct cp3_message *b)
{
    assert_int_equal(a->data_len, b->data_len);
    assert_memory_equal(a->data, b->data, a->data_len);
}

static void repeat__in_another_media_or_form_gets_the_same_key(void **state)
{
    struct service *s = *state;
    struct cp3_message request = ask_message(BSA(s, 1), "m-1", "urn:x"), first, other;
    struct keys_bsa_change c = {
        .id = "bsa-1", .media = -1, .form = STORE_FORM_EFFICIENT, .key_info = -1};
    uint8_t tek[FAKE_TEK_MAX];
    struct ask *a;

    first = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    a = ask_send(s, BSA(s, 1), &request, CP3_JSON);
    (void)ask_tek(a, tek);
    other = ask_answer(a);
    same_key(&first, &other);
    assert_string_equal(other.time.text, first.time.text);
    assert_memory_equal(other.key_info.key_id, first.key_info.key_id, CP3_KEY_ID_SIZE);
    assert_string_equal(other.key_info.kek_id, first.key_info.kek_id);
    ask_end(a);
    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), 0);
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    (void)ask_tek(a, tek);
    other = ask_answer(a);
    assert_int_equal(other.form, CP3_EFFICIENT);
    same_key(&first, &other);
    ask_end(a);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 1);
}

static void repeat__with_another_time_or_version_1_is_a_repeat(void **state)
{
    struct service *s = *state;
    struct cp3_message request = ask_message(BSA(s, 1), "m-1", "urn:x"), first, other;
    uint8_t tek[FAKE_TEK_MAX];
    struct ask *a;

    first = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    request.has = CP3_HAS_VERSION | CP3_HAS_TIME;
    request.version = 1;
    assert_int_equal(cp3_time_set(&request.time, 1000000000, 0), 0);
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    (void)ask_tek(a, tek);
    other = ask_answer(a);
    same_key(&first, &other);
    assert_string_equal(other.time.text, first.time.text);
    ask_end(a);
}

static void repeat__of_other_content_is_a_duplicate(void **state)
{
    struct service *s = *state;
    struct cp3_message first, again;

    first = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:known", NULL);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:known", "duplicate-message-id");
    ask_no_key(s, BSA(s, 1), "m-1", "urn:new", "duplicate-message-id");
    assert_int_equal(service_count(s, "content.added", NULL, NULL), 0);
    assert_int_equal(service_count(s, "tek.generated", "content", "urn:new"), 0);
    again = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    same_key(&first, &again);
}

static void repeat__belongs_to_its_source(void **state)
{
    struct service *s = *state;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    (void)ask_key(s, BSA(s, 2), "m-1", "urn:y", NULL);
    (void)ask_key(s, BSA(s, 1), "M-1", "urn:y", NULL); /* octet by octet */
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 3);
}

static void repeat__after_a_rotation_gets_the_old_key(void **state)
{
    struct service *s = *state;
    uint8_t old[FAKE_TEK_MAX], again[FAKE_TEK_MAX], fresh[FAKE_TEK_MAX];
    struct cp3_message first, m;

    first = ask_key(s, BSA(s, 1), "m-1", "urn:x", old);
    service_rotate(s, "urn:x");
    m = ask_key(s, BSA(s, 1), "m-1", "urn:x", again);
    same_key(&first, &m);
    assert_string_equal(m.time.text, first.time.text);
    m = ask_key(s, BSA(s, 1), "m-2", "urn:x", fresh);
    assert_memory_not_equal(fresh, old, 16);
    assert_memory_not_equal(m.key_info.key_id, first.key_info.key_id, CP3_KEY_ID_SIZE);
    (void)ask_key(s, BSA(s, 2), "m-1", "urn:x", again);
    assert_memory_equal(again, fresh, 16);
}

static void repeat__of_a_destroyed_key_is_key_gone(void **state)
{
    struct service *s = *state;
    uint8_t old[FAKE_TEK_MAX], fresh[FAKE_TEK_MAX];
    struct cp3_message first;

    first = ask_key(s, BSA(s, 1), "m-1", "urn:x", old);
    service_destroy(s, first.key_info.key_id);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
    ask_no_key(s, BSA(s, 1), "m-1", "urn:y", "duplicate-message-id");
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", fresh);
    assert_memory_not_equal(fresh, old, 16);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
    assert_int_equal(service_count(s, "tek.destroyed", NULL, NULL), 1);
}

static void repeat__passes_all_checks_again(void **state)
{
    struct service *s = *state;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    assert_int_equal(service_set_entitle(s, BSA(s, 1), "urn:other"), 0);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "not-entitled");
    assert_int_equal(service_set_entitle(s, BSA(s, 1), "*"), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

static void repeat__after_a_restart_gets_the_same_octets(void **state)
{
    struct service *s = *state;
    struct cp3_message request[SERVICE_PEERS];
    char *before[SERVICE_PEERS];
    uint8_t tek[FAKE_TEK_MAX];

    for (size_t p = 0; p < SERVICE_PEERS; p++) {
        struct ask *a;

        request[p] = ask_message(&s->peer[p], "m-1", "urn:x");
        a = ask_send(s, &s->peer[p], &request[p], CP3_XML);
        (void)ask_tek(a, tek);
        before[p] = strdup(buf_str(a->reply.body));
        ask_end(a);
    }
    service_stop(s);
    assert_int_equal(service_start(s), 0);
    for (size_t p = 0; p < SERVICE_PEERS; p++) {
        struct ask *a = ask_send(s, &s->peer[p], &request[p], CP3_XML);

        (void)ask_tek(a, tek);
        assert_string_equal(buf_str(a->reply.body), before[p]);
        free(before[p]);
        ask_end(a);
    }
    /* New requests get the stored TEK and the stored wrap: the HSM is not asked. */
    (void)ask_key(s, BSA(s, 4), "m-2", "urn:x", NULL);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_EXPORT), SERVICE_PEERS - 1);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_ISSUE), 1);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refusal__does_not_bind_the_message_id(void **state)
{
    struct service *s = *state;

    assert_int_equal(service_set_entitle(s, BSA(s, 1), "urn:a*"), 0);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:b", "not-entitled");
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:a1", NULL);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:b", "not-entitled"); /* before the Message ID */
    ask_no_key(s, BSA(s, 1), "m-1", "urn:a2", "duplicate-message-id");
}

static void refusal__of_a_content_that_is_not_there(void **state)
{
    struct service *s = *state;

    service_stop(s);
    s->options.auto_content = false;
    assert_int_equal(service_start(s), 0);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "unknown-content");
    assert_int_equal(keys_content_add(s->keys, &s->actor, "urn:x", 128, &s->error), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    /* A used Message ID is said before the content. */
    ask_no_key(s, BSA(s, 1), "m-1", "urn:none", "duplicate-message-id");
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_ISSUE), 1);
}

static void refusal__of_a_period(void **state)
{
    struct service *s = *state;
    struct cp3_message request = ask_message(BSA(s, 1), "m-1", "urn:x");
    struct ask *a;

    request.has = CP3_HAS_PERIOD;
    request.period_index = 0;
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    ask_refused(a, 200, "no-period");
    ask_end(a);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    ask_refused(a, 200, "duplicate-message-id");
    ask_end(a);
}

static void refusal__of_whoever_asks_for_another(void **state)
{
    struct service *s = *state;
    struct cp3_message request = ask_message(BSA(s, 2), "m-1", "urn:x");
    struct ask *a = ask_send(s, BSA(s, 1), &request, CP3_XML);

    ask_refused(a, 200, "wrong-source");
    ask_end(a);
    request = ask_message(BSA(s, 1), "m-1", "urn:x");
    (void)snprintf(request.destination, sizeof(request.destination), "another");
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    ask_refused(a, 200, "wrong-destination");
    ask_end(a);
    request = ask_message(BSA(s, 1), "m-1", "urn:x");
    request.has = CP3_HAS_VERSION;
    request.version = 2;
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    ask_refused(a, 200, "unsupported-version");
    ask_end(a);
    assert_int_equal(service_count(s, "request.refused", "peer", "bsa-1"), 3);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_ISSUE), 0);
}

static void refusal__of_strangers_and_disabled_is_403_and_closes(void **state)
{
    struct service *s = *state;
    struct peer stranger = *BSA(s, 1);
    struct cp3_message request = ask_message(&stranger, "m-1", "urn:x");
    char found[256];
    struct ask *a;

    stranger.cert[0] ^= 1;
    a = ask_send(s, &stranger, &request, CP3_XML);
    ask_wait(a);
    assert_int_equal(a->reply.status, 403);
    assert_true(a->reply.close);
    assert_string_equal(a->reply.media, "application/problem+json");
    assert_string_equal(a->known, ""); /* nothing of it was read */
    ask_end(a);
    assert_string_equal(service_last(s, "request.refused", "reason", found), "not-enrolled");
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    ask_wait(a);
    assert_int_equal(a->reply.status, 403);
    assert_true(a->reply.close);
    ask_end(a);
    assert_string_equal(service_last(s, "request.refused", "reason", found), "disabled");
    assert_string_equal(service_last(s, "request.refused", "peer", found), "bsa-1");
    assert_int_equal(service_enable(s, BSA(s, 1), true), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
}

static void refusal__may_be_mapped_to_http(void **state)
{
    struct service *s = *state;
    struct cp3_message request = ask_message(BSA(s, 1), "m-1", "urn:x");
    struct ask *a;

    service_stop(s);
    s->options.refusal_http = KEYS_REFUSAL_MAPPED;
    assert_int_equal(service_start(s), 0);
    assert_int_equal(service_set_entitle(s, BSA(s, 1), "urn:none"), 0);
    a = ask_send(s, BSA(s, 1), &request, CP3_XML);
    ask_refused(a, 403, "not-entitled");
    assert_int_equal(ask_answer(a).status, CP3_STATUS_REFUSED);
    ask_end(a);
}

/* ---- what is no request ---------------------------------------------------------------------- */

struct broken {
    const char *type, *octets;
    int status;
    const char *reason; /* NULL: none */
    const char *mid;    /* of the efficient answer; NULL: a problem */
};

static void broken__is_answered_by_what_can_be_read(void **state)
{
    static const struct broken rows[] = {
        {"text/plain", "x", 415, NULL, NULL},
        {"", "x", 415, NULL, NULL},
        {"application/xml; charset=latin1", "x", 415, NULL, NULL},
        {"application/xml", "", 400, "malformed", NULL},
        {"application/xml", "<a/>", 400, "malformed", NULL},
        {"application/json", "[]", 400, "malformed", NULL},
        {"application/json", "{\"Tag\":1,\"MessageID\":\"m-1\"}", 400, "malformed", "m-1"},
        {"application/json", "{\"Tag\":1,\"MessageID\":\" m-1\"}", 400, "malformed", NULL},
        {"application/json", "{\"Tag\":4,\"MessageID\":\"m-1\"}", 400, "malformed", NULL},
        {"application/xml",
         "<KeyRequest xmlns='" CP3_NAMESPACE "'><Tag>1</Tag><MessageID>m-2</MessageID>"
         "<Unknown/></KeyRequest>",
         400, "malformed", "m-2"},
        /* Cut off: no XML at all, whatever was read before. */
        {"application/xml",
         "<KeyRequest xmlns='" CP3_NAMESPACE "'><Tag>1</Tag><MessageID>m-2</MessageID>", 400,
         "malformed", NULL},
        {"application/xml",
         "<KeyRequest xmlns='" CP3_NAMESPACE "'><Tag>1</Tag><MessageID>m-2</MessageID><?x y?>"
         "</KeyRequest>",
         400, "malformed", NULL},
        {"application/json", "{\"Tag\":1,\"MessageID\":\"m-1\"", 400, "malformed", NULL},
        {"application/json", "{\"Tag\":2,\"MessageID\":\"m\",\"Status\":1}", 400, "malformed",
         NULL},
        {"application/json", "{\"Tag\":4,\"MessageID\":\"m\",\"Status\":0}", 409, "unknown-message",
         NULL},
    };
    struct service *s = *state;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct broken *b = &rows[i];
        struct ask *a = ask_send_octets(s, BSA(s, 1), b->type, b->octets, SERVICE_US);

        ask_wait(a);
        assert_int_equal(a->reply.status, b->status);
        if (b->reason)
            assert_string_equal(a->reply.reason, b->reason);
        else
            assert_null(a->reply.reason);
        if (b->mid) {
            struct cp3_message m = ask_answer(a);
            assert_int_equal(m.form, CP3_EFFICIENT);
            assert_int_equal(m.status, CP3_STATUS_REFUSED);
            assert_string_equal(m.message_id, b->mid);
        } else {
            assert_string_equal(a->reply.media, "application/problem+json");
        }
        ask_end(a);
    }
    assert_int_equal(service_count(s, "confirm.unmatched", "mid", "m"), 1);
    assert_int_equal(service_count(s, "request.answered", NULL, NULL), 0);
}

/* ---- records of refusals are limited --------------------------------------------------------- */

static void records__a_peer_cannot_fill_the_log(void **state)
{
    enum { MANY = 200 };
    struct service *s = *state;
    char found[256];

    for (int i = 0; i < MANY; i++) {
        struct ask *a = ask_send_octets(s, BSA(s, 1), "application/json",
                                        "{\"Tag\":4,\"MessageID\":\"m\",\"Status\":0}", SERVICE_US);
        ask_refused(a, 409, "unknown-message");
        ask_end(a);
        a = ask_send_octets(s, BSA(s, 2), "application/xml", "<", SERVICE_US);
        ask_refused(a, 400, "malformed");
        ask_end(a);
        keys_tls_refused(s->keys, "unknown-ca", i % 2 ? "192.0.2.7:1" : "");
    }
    assert_int_equal(service_count(s, "confirm.unmatched", NULL, NULL), 10);
    assert_int_equal(service_count(s, "request.refused", NULL, NULL), 10);
    assert_int_equal(service_count(s, "tls.refused", NULL, NULL), 1);
    keys_tick(s->keys); /* the minute has not passed */
    assert_int_equal(service_count(s, "request.refused", NULL, NULL), 10);
    keys_flush(s->keys);
    assert_int_equal(service_count(s, "confirm.unmatched", "mid", "m"), 11);
    assert_int_equal(service_count(s, "request.refused", NULL, NULL), 11);
    assert_string_equal(service_last(s, "request.refused", "peer", found), "bsa-2");
    assert_int_equal(service_count(s, "tls.refused", "cause", "unknown-ca"), 2);
}

static void keys_status__counts(void **state)
{
    struct service *s = *state;
    struct keys_status st;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", NULL);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:y", "duplicate-message-id");
    keys_status_get(s->keys, &st);
    assert_int_equal(st.answered, 2);
    assert_int_equal(st.repeated, 1);
    assert_int_equal(st.refused, 1);
    assert_int_equal(st.busy, 0);
    assert_int_equal(st.failed, 0);
    assert_int_equal(st.bsas, SERVICE_PEERS);
    assert_true(st.bound);
    assert_string_equal(st.reason, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(handle__answers_with_the_tek_wrapped_for_the_bsa),
        SERVICE_TEST(handle__every_wrap_unwraps_to_the_same_tek),
        SERVICE_TEST(handle__contents_have_teks_of_their_own),
        SERVICE_TEST(handle__makes_teks_as_long_as_the_content_wants),
        SERVICE_TEST(handle__records_what_was_asked_and_given),
        SERVICE_TEST(keys_sent__of_an_answer_that_did_not_leave_says_nothing),
        SERVICE_TEST(keys_sent__records_all_of_many),
        SERVICE_TEST(repeat__gets_the_same_octets),
        SERVICE_TEST(repeat__tells_what_it_was_decided_after),
        SERVICE_TEST(repeat__in_another_media_or_form_gets_the_same_key),
        SERVICE_TEST(repeat__with_another_time_or_version_1_is_a_repeat),
        SERVICE_TEST(repeat__of_other_content_is_a_duplicate),
        SERVICE_TEST(repeat__belongs_to_its_source),
        SERVICE_TEST(repeat__after_a_rotation_gets_the_old_key),
        SERVICE_TEST(repeat__of_a_destroyed_key_is_key_gone),
        SERVICE_TEST(repeat__passes_all_checks_again),
        SERVICE_TEST(repeat__after_a_restart_gets_the_same_octets),
        SERVICE_TEST(refusal__does_not_bind_the_message_id),
        SERVICE_TEST(refusal__of_a_content_that_is_not_there),
        SERVICE_TEST(refusal__of_a_period),
        SERVICE_TEST(refusal__of_whoever_asks_for_another),
        SERVICE_TEST(refusal__of_strangers_and_disabled_is_403_and_closes),
        SERVICE_TEST(refusal__may_be_mapped_to_http),
        SERVICE_TEST(broken__is_answered_by_what_can_be_read),
        SERVICE_TEST(records__a_peer_cannot_fill_the_log),
        SERVICE_TEST(keys_status__counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
