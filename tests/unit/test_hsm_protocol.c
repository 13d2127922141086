/* The datagrams between pool, supervisor and workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "protocol.h"
#include "tekd/auto.h"
#include "tekd/err.h"

/* ---------------------------------------------------------------- samples ---------- */

static const struct hsm_kek storage = {.label = "storage-1",
                                       .id = {1, 2, 3},
                                       .id_len = 3,
                                       .fingerprint = {9, 8, 7},
                                       .wrap = HSM_WRAP_AES_KW,
                                       .use = HSM_KEK_STORAGE};
static const struct hsm_kek bsa = {.label = "bsa-1",
                                   .id_len = HSM_ID_MAX,
                                   .fingerprint = {[31] = 5},
                                   .wrap = HSM_WRAP_OAEP_SHA1,
                                   .use = HSM_KEK_BSA};
static const struct hsm_blob blob = {.len = 24, .octets = {[0] = 0xaa, [23] = 0xbb}};
static struct merkle_hash leaves[HSM_LEAVES_MAX];

static void fill_note(struct note *n)
{
    *n = (struct note){.origin = "bsm.example.net/tekd/audit/1",
                       .size = 5,
                       .root = {.octets = {1}},
                       .n_signatures = 2};
    n->signature[0] = (struct note_signature){.key_id = {1, 2, 3, 4}, .octets = {7}, .len = 72};
    n->signature[1] = (struct note_signature){.key_id = {5, 6, 7, 8}, .octets = {9}, .len = 64};
}

/* One of each verb, and the forms with something left out. */
#define REQUESTS_MAX 16
static size_t requests(struct protocol_request r[static REQUESTS_MAX])
{
    size_t n = 0;

    memset(r, 0, REQUESTS_MAX * sizeof(*r));
    r[n++] = (struct protocol_request){.verb = PROTOCOL_ISSUE, .issue = {128, storage, bsa}};
    r[n++] = (struct protocol_request){.verb = PROTOCOL_ISSUE,
                                       .issue = {.bits = 256, .storage = storage}};
    r[n++] =
        (struct protocol_request){.verb = PROTOCOL_EXPORT, .export = {192, storage, bsa, blob}};
    r[n].verb = PROTOCOL_SIGN_CHECKPOINT;
    fill_note(&r[n].checkpoint.last);
    r[n].checkpoint.range = (struct merkle_range){.size = 5, .node = {{{1}}, {{2}}}};
    r[n].checkpoint.n = 3;
    r[n++].checkpoint.leaves = leaves;
    r[n].verb = PROTOCOL_SIGN_CHECKPOINT;
    r[n].checkpoint.last.origin[0] = 'x';
    r[n++].checkpoint.leaves = leaves;
    r[n++] = (struct protocol_request){.verb = PROTOCOL_SIGN_TLS, .digest = {48, {1, 2}}};
    r[n++] = (struct protocol_request){.verb = PROTOCOL_HEALTH, .health = storage};
    r[n++] = (struct protocol_request){.verb = PROTOCOL_HEALTH};
    r[n++] = (struct protocol_request){.verb = PROTOCOL_DESCRIBE,
                                       .describe = {"bsa-1", HSM_KEK_BSA, HSM_WRAP_AES_KWP}};
    r[n++] = (struct protocol_request){.verb = PROTOCOL_PUBLIC_KEY};
    for (enum protocol_key k = PROTOCOL_KEY_ED25519; k < PROTOCOL_KEYS; k++)
        r[n++] = (struct protocol_request){.verb = PROTOCOL_PUBLIC_KEY, .key = k};
    for (size_t i = 0; i < n; i++)
        r[i].id = UINT64_C(0x1122334455667788) + i;
    return n;
}

static size_t replies(struct protocol_reply r[static 12])
{
    size_t n = 0;

    memset(r, 0, 12 * sizeof(*r));
    r[n++] = (struct protocol_reply){.verb = PROTOCOL_ISSUE, .issued = {blob, blob}};
    r[n++] = (struct protocol_reply){.verb = PROTOCOL_ISSUE, .issued = {.stored = blob}};
    r[n++] = (struct protocol_reply){.verb = PROTOCOL_ISSUE, .error = TEKD_EHSM, .leaving = true};
    r[n++] = (struct protocol_reply){.verb = PROTOCOL_EXPORT, .data = blob};
    r[n].verb = PROTOCOL_SIGN_CHECKPOINT;
    fill_note(&r[n++].note);
    r[n++] = (struct protocol_reply){.verb = PROTOCOL_SIGN_TLS, .signature = {72, {1}}};
    r[n++] = (struct protocol_reply){.verb = PROTOCOL_HEALTH};
    r[n++] = (struct protocol_reply){
        .verb = PROTOCOL_DESCRIBE,
        .report = {.kek = bsa, .imported = true, .check_value = "a1b2c3", .text = "good"}};
    r[n++] = (struct protocol_reply){
        .verb = PROTOCOL_DESCRIBE,
        .error = TEKD_EWEAK,
        .report = {.kek = {.use = HSM_KEK_BSA, .wrap = HSM_WRAP_AES_KW}, .text = "weak"}};
    r[n++] = (struct protocol_reply){.verb = PROTOCOL_PUBLIC_KEY, .spki = {91, {0x30}}};
    for (size_t i = 0; i < n; i++)
        r[i].id = i;
    return n;
}

static int make(void **state)
{
    struct buf *b = NULL;

    for (size_t i = 0; i < HSM_LEAVES_MAX; i++)
        leaves[i].octets[i % 32] = (uint8_t)i;
    assert_int_equal(buf_new(PROTOCOL_MAX, &b), 0);
    *state = b;
    return 0;
}

static int unmake(void **state)
{
    buf_free(*state);
    return 0;
}

/* A copy of exactly len octets, so that a reader's first octet too many is found by sanitizers. */
static uint8_t *exactly(const struct buf *b, size_t len)
{
    uint8_t *p = malloc(len == 0 ? 1 : len);

    assert_non_null(p);
    memcpy(p, buf_data(b), len);
    return p;
}

/* ---------------------------------------------------------------- round trips ------ */

static void protocol_request__reads_what_it_writes(void **state)
{
    struct protocol_request r[REQUESTS_MAX];
    struct buf *b = *state;
    AUTO(buf) struct buf *again = NULL;
    size_t n = requests(r);

    assert_int_equal(buf_new(PROTOCOL_MAX, &again), 0);
    for (size_t i = 0; i < n; i++) {
        struct protocol_request got;

        assert_int_equal(protocol_put_request(b, &r[i]), 0);
        assert_int_equal(protocol_get_request(buf_data(b), buf_len(b), &got), 0);
        assert_int_equal(got.verb, r[i].verb);
        assert_int_equal(got.id, r[i].id);
        assert_int_equal(protocol_put_request(again, &got), 0);
        assert_int_equal(buf_len(again), buf_len(b));
        assert_memory_equal(buf_data(again), buf_data(b), buf_len(b));
    }
}

static void protocol_request__keeps_every_field(void **state)
{
    struct protocol_request r[REQUESTS_MAX], got;
    struct buf *b = *state;

    (void)requests(r);
    assert_int_equal(protocol_put_request(b, &r[2]), 0);
    assert_int_equal(protocol_get_request(buf_data(b), buf_len(b), &got), 0);
    assert_int_equal(got.export.bits, 192);
    assert_string_equal(got.export.storage.label, "storage-1");
    assert_int_equal(got.export.storage.id_len, 3);
    assert_memory_equal(got.export.storage.id, storage.id, 3);
    assert_memory_equal(got.export.storage.fingerprint, storage.fingerprint, 32);
    assert_int_equal(got.export.bsa.wrap, HSM_WRAP_OAEP_SHA1);
    assert_int_equal(got.export.bsa.use, HSM_KEK_BSA);
    assert_int_equal(got.export.stored.len, 24);
    assert_memory_equal(got.export.stored.octets, blob.octets, 24);

    assert_int_equal(protocol_put_request(b, &r[3]), 0);
    assert_int_equal(protocol_get_request(buf_data(b), buf_len(b), &got), 0);
    assert_string_equal(got.checkpoint.last.origin, "bsm.example.net/tekd/audit/1");
    assert_int_equal(got.checkpoint.last.size, 5);
    assert_int_equal(got.checkpoint.last.signature[1].len, 64);
    assert_int_equal(got.checkpoint.range.size, 5);
    assert_int_equal(got.checkpoint.range.node[1].octets[0], 2);
    assert_int_equal(got.checkpoint.n, 3);
    assert_memory_equal(got.checkpoint.leaves, leaves, 3 * sizeof(leaves[0]));
}

static void protocol_reply__reads_what_it_writes(void **state)
{
    struct protocol_reply r[12];
    struct buf *b = *state;
    AUTO(buf) struct buf *again = NULL;
    size_t n = replies(r);

    assert_int_equal(buf_new(PROTOCOL_MAX, &again), 0);
    for (size_t i = 0; i < n; i++) {
        struct protocol_reply got;

        assert_int_equal(protocol_put_reply(b, &r[i]), 0);
        assert_int_equal(protocol_get_reply(buf_data(b), buf_len(b), &got), 0);
        assert_int_equal(got.verb, r[i].verb);
        assert_int_equal(got.id, r[i].id);
        assert_int_equal(got.error, r[i].error);
        assert_int_equal(got.leaving, r[i].leaving);
        assert_int_equal(protocol_put_reply(again, &got), 0);
        assert_int_equal(buf_len(again), buf_len(b));
        assert_memory_equal(buf_data(again), buf_data(b), buf_len(b));
    }
}

/* ---------------------------------------------------------------- several ---------- */

static void protocol_next__reads_several_one_by_one(void **state)
{
    struct protocol_request rq[REQUESTS_MAX], got;
    struct protocol_reply reply[12], answer;
    struct buf *b = *state;
    size_t n_rq = requests(rq), n_reply = replies(reply);
    struct view v;

    for (size_t i = 0; i < n_rq; i++)
        assert_int_equal(protocol_add_request(b, &rq[i]), 0);
    v = view_of(buf_data(b), buf_len(b));
    for (size_t i = 0; i < n_rq; i++) {
        assert_true(v.left > 0);
        assert_int_equal(protocol_next_request(&v, &got), 0);
        assert_int_equal(got.verb, rq[i].verb);
    }
    assert_int_equal(view_end(&v), 0);
    assert_int_equal(protocol_get_request(buf_data(b), buf_len(b), &got), TEKD_EFORMAT);

    buf_reset(b);
    for (size_t i = 0; i < n_reply; i++)
        assert_int_equal(protocol_add_reply(b, &reply[i]), 0);
    v = view_of(buf_data(b), buf_len(b));
    for (size_t i = 0; i < n_reply; i++) {
        assert_int_equal(protocol_next_reply(&v, &answer), 0);
        assert_int_equal(answer.error, reply[i].error);
    }
    assert_int_equal(view_end(&v), 0);
}

/* The largest replies that there are, as many as a datagram may ask for. */
static void protocol_reply__fits_as_often_as_it_may_be_asked_for(void **state)
{
    struct protocol_request rq = {
        .verb = PROTOCOL_EXPORT,
        .export = {.bits = 256, .storage = storage, .bsa = storage, .stored.len = HSM_WRAPPED_MAX}};
    struct protocol_reply reply = {
        .verb = PROTOCOL_ISSUE,
        .issued = {.stored.len = HSM_WRAPPED_MAX, .data.len = HSM_WRAPPED_MAX}};
    struct buf *b = *state;

    memset(rq.export.storage.label, 'l', HSM_LABEL_MAX);
    rq.export.storage.id_len = HSM_ID_MAX;
    rq.export.bsa = rq.export.storage;
    rq.export.bsa.use = HSM_KEK_BSA;
    for (size_t i = 0; i < PROTOCOL_MANY_MAX; i++)
        assert_int_equal(protocol_add_request(b, &rq), 0);
    buf_reset(b);
    for (size_t i = 0; i < PROTOCOL_MANY_MAX; i++)
        assert_int_equal(protocol_add_reply(b, &reply), 0);
}

/* ---------------------------------------------------------------- limits ----------- */

static void protocol_request__fits_the_largest_checkpoint(void **state)
{
    struct protocol_request rq = {.verb = PROTOCOL_SIGN_CHECKPOINT};
    struct buf *b = *state;

    memset(rq.checkpoint.last.origin, 'o', NOTE_ORIGIN_MAX);
    rq.checkpoint.last.n_signatures = NOTE_SIGS_MAX;
    for (size_t i = 0; i < NOTE_SIGS_MAX; i++)
        rq.checkpoint.last.signature[i].len = NOTE_SIG_MAX;
    rq.checkpoint.range.size = UINT64_MAX;
    rq.checkpoint.n = HSM_LEAVES_MAX;
    rq.checkpoint.leaves = leaves;
    assert_int_equal(protocol_put_request(b, &rq), 0);
    assert_true(buf_len(b) <= PROTOCOL_MAX);
    assert_int_equal(protocol_get_request(buf_data(b), buf_len(b), &rq), 0);
}

static void protocol_put_request__refuses_what_has_no_form(void **state)
{
    struct protocol_request r[REQUESTS_MAX], bad;
    struct buf *b = *state;

    (void)requests(r);
    bad = r[0];
    bad.issue.bits = 64;
    assert_int_equal(protocol_put_request(b, &bad), TEKD_EINVAL);
    bad = r[2];
    bad.export.stored.len = 0;
    assert_int_equal(protocol_put_request(b, &bad), TEKD_EINVAL);
    bad.export.stored.len = HSM_WRAPPED_MAX + 1;
    assert_int_equal(protocol_put_request(b, &bad), TEKD_EINVAL);
    bad = r[3];
    bad.checkpoint.n = HSM_LEAVES_MAX + 1;
    assert_int_equal(protocol_put_request(b, &bad), TEKD_EINVAL);
    bad = r[0];
    bad.verb = 0;
    assert_int_equal(protocol_put_request(b, &bad), TEKD_EINVAL);
    bad.verb = 200;
    assert_int_equal(protocol_put_request(b, &bad), TEKD_EINVAL);
}

/* ---------------------------------------------------------------- malformed -------- */

static void protocol_get_request__refuses_every_other_length(void **state)
{
    struct protocol_request r[REQUESTS_MAX], got;
    struct buf *b = *state;
    size_t n = requests(r);

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(protocol_put_request(b, &r[i]), 0);
        for (size_t len = 0; len < buf_len(b); len++) {
            AUTO_MEM uint8_t *p = exactly(b, len);

            assert_int_equal(protocol_get_request(p, len, &got), TEKD_EFORMAT);
        }
        assert_int_equal(buf_put_u8(b, 0), 0);
        assert_int_equal(protocol_get_request(buf_data(b), buf_len(b), &got), TEKD_EFORMAT);
    }
}

static void protocol_get_reply__refuses_every_other_length(void **state)
{
    struct protocol_reply r[12], got;
    struct buf *b = *state;
    size_t n = replies(r);

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(protocol_put_reply(b, &r[i]), 0);
        for (size_t len = 0; len < buf_len(b); len++) {
            AUTO_MEM uint8_t *p = exactly(b, len);

            assert_int_equal(protocol_get_reply(p, len, &got), TEKD_EFORMAT);
        }
        assert_int_equal(buf_put_u8(b, 0), 0);
        assert_int_equal(protocol_get_reply(buf_data(b), buf_len(b), &got), TEKD_EFORMAT);
    }
}

/* No octet of a header may be another, and no single changed octet reads past the end. */
static void protocol_get_request__refuses_a_wrong_header(void **state)
{
    struct protocol_request r[REQUESTS_MAX], got;
    struct buf *b = *state;
    size_t n = requests(r);

    for (size_t i = 0; i < n; i++) {
        AUTO_MEM uint8_t *p = NULL;
        size_t len;

        assert_int_equal(protocol_put_request(b, &r[i]), 0);
        len = buf_len(b);
        p = exactly(b, len);
        p[0] ^= 1;
        assert_int_equal(protocol_get_request(p, len, &got), TEKD_EFORMAT);
        p[0] ^= 1;
        p[1] = 0;
        assert_int_equal(protocol_get_request(p, len, &got), TEKD_EFORMAT);
        p[1] = 0xff;
        assert_int_equal(protocol_get_request(p, len, &got), TEKD_EFORMAT);
        p[1] = r[i].verb;
        assert_int_equal(protocol_get_request(p, len, &got), 0);
        for (size_t at = 10; at < len && at < 400; at++) {
            uint8_t before = p[at];

            p[at] = 0xff;
            (void)protocol_get_request(p, len, &got);
            p[at] = before;
        }
    }
}

static void protocol_get_reply__refuses_a_wrong_header(void **state)
{
    struct protocol_reply reply = {.verb = PROTOCOL_HEALTH, .id = 3}, got;
    struct buf *b = *state;
    uint8_t p[12];

    assert_int_equal(protocol_put_reply(b, &reply), 0);
    assert_int_equal(buf_len(b), sizeof(p));
    memcpy(p, buf_data(b), sizeof(p));
    assert_int_equal(protocol_get_reply(p, sizeof(p), &got), 0);
    p[1] = PROTOCOL_HEALTH; /* a request is no reply */
    assert_int_equal(protocol_get_reply(p, sizeof(p), &got), TEKD_EFORMAT);
    p[1] = PROTOCOL_HEALTH | 0x80;
    p[10] = 20; /* no code of err.h */
    assert_int_equal(protocol_get_reply(p, sizeof(p), &got), TEKD_EFORMAT);
    p[10] = 0;
    p[11] = 2;
    assert_int_equal(protocol_get_reply(p, sizeof(p), &got), TEKD_EFORMAT);
}

static void protocol_get_request__refuses_values_out_of_range(void **state)
{
    struct protocol_request r[REQUESTS_MAX], got;
    struct buf *b = *state;
    uint8_t p[512];

    (void)requests(r);
    assert_int_equal(protocol_put_request(b, &r[0]), 0);
    memcpy(p, buf_data(b), buf_len(b));
    p[10] = 0; /* bits */
    p[11] = 127;
    assert_int_equal(protocol_get_request(p, buf_len(b), &got), TEKD_EFORMAT);
    p[11] = 128;
    p[12] = HSM_KEK_BSA; /* the first KEK is for storage */
    assert_int_equal(protocol_get_request(p, buf_len(b), &got), TEKD_EFORMAT);
    p[12] = HSM_KEK_STORAGE;
    p[13] = 0; /* wrap */
    assert_int_equal(protocol_get_request(p, buf_len(b), &got), TEKD_EFORMAT);
    p[13] = 5;
    assert_int_equal(protocol_get_request(p, buf_len(b), &got), TEKD_EFORMAT);
    p[13] = 1;
    assert_int_equal(protocol_get_request(p, buf_len(b), &got), 0);
    p[19] = 0; /* NUL inside the label */
    assert_int_equal(protocol_get_request(p, buf_len(b), &got), TEKD_EFORMAT);
}

/* ---------------------------------------------------------------- roles ------------ */

static void protocol_role_serves__its_verbs_only(void **state)
{
    static const struct {
        uint8_t verb;
        bool key, audit, tls;
    } expected[] = {
        {PROTOCOL_ISSUE, true, false, false},
        {PROTOCOL_EXPORT, true, false, false},
        {PROTOCOL_DESCRIBE, true, false, false},
        {PROTOCOL_SIGN_CHECKPOINT, false, true, false},
        {PROTOCOL_SIGN_TLS, false, false, true},
        {PROTOCOL_HEALTH, true, true, true},
        {PROTOCOL_PUBLIC_KEY, false, true, true},
        {0, false, false, false},
        {255, false, false, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        uint8_t v = expected[i].verb;

        assert_int_equal(protocol_role_serves(PROTOCOL_ROLE_KEY, v), expected[i].key);
        assert_int_equal(protocol_role_serves(PROTOCOL_ROLE_AUDIT, v), expected[i].audit);
        assert_int_equal(protocol_role_serves(PROTOCOL_ROLE_TLS, v), expected[i].tls);
    }
}

/* ---------------------------------------------------------------- control ---------- */

static const struct control_message messages[] = {
    {.kind = CONTROL_CONFIGURE,
     .configure = {.module = "/m.so",
                   .token = "pkcs11:token=t",
                   .checkpoint_key = "c",
                   .ed25519_key = "e",
                   .checkpoint_key_before = "c-0",
                   .ed25519_key_before = "e-0",
                   .pin_source = HSM_PIN_CREDENTIAL,
                   .pin = "pin",
                   .log_format = 1,
                   .log_level = 3,
                   .start_timeout_ms = 70000,
                   .n_env = 2,
                   .env = {"A=b", "C="}}},
    {.kind = CONTROL_SPAWN, .id = 3, .role = PROTOCOL_ROLE_TLS},
    {.kind = CONTROL_KILL, .id = 4, .grace_ms = 5000},
    {.kind = CONTROL_RETRY, .id = 5, .pin_given = true},
    {.kind = CONTROL_PING},
    {.kind = CONTROL_PIN, .pin = {CONTROL_PIN_REFUSED, "C_Login: CKR_PIN_INCORRECT"}},
    {.kind = CONTROL_FORKED, .id = 6, .pid = 4711},
    {.kind = CONTROL_READY, .id = 7, .ready = {"label", "model", "serial", true}},
    {.kind = CONTROL_FAILED, .id = 8, .ended = {TEKD_EWEAK, "weak"}},
    {.kind = CONTROL_EXITED, .id = 9, .ended = {0, ""}},
    {.kind = CONTROL_PONG},
};

static void control_get__reads_what_control_put_writes(void **state)
{
    struct buf *b = *state;
    AUTO(buf) struct buf *again = NULL;

    assert_int_equal(buf_new(CONTROL_MAX, &again), 0);
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        struct control_message got;

        assert_int_equal(control_put(b, &messages[i]), 0);
        assert_int_equal(control_get(buf_data(b), buf_len(b), &got), 0);
        assert_int_equal(got.kind, messages[i].kind);
        assert_int_equal(got.id, messages[i].id);
        assert_int_equal(control_put(again, &got), 0);
        assert_int_equal(buf_len(again), buf_len(b));
        assert_memory_equal(buf_data(again), buf_data(b), buf_len(b));
    }
}

static void control_get__refuses_every_other_length(void **state)
{
    struct buf *b = *state;
    struct control_message got;

    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        assert_int_equal(control_put(b, &messages[i]), 0);
        for (size_t len = 0; len < buf_len(b); len++) {
            AUTO_MEM uint8_t *p = exactly(b, len);

            assert_int_equal(control_get(p, len, &got), TEKD_EFORMAT);
        }
        assert_int_equal(buf_put_u8(b, 0), 0);
        assert_int_equal(control_get(buf_data(b), buf_len(b), &got), TEKD_EFORMAT);
    }
}

static void control_put__refuses_what_does_not_fit(void **state)
{
    struct control_message m = messages[0];
    AUTO_MEM char *text = malloc(CONTROL_MAX + 1);

    assert_non_null(text);
    memset(text, 'x', CONTROL_MAX);
    text[CONTROL_MAX] = 0;
    m.configure.module = text;
    assert_int_equal(control_put(*state, &m), TEKD_ETOOBIG);
    text[CONTROL_MAX - 10] = 0;
    assert_int_equal(control_put(*state, &m), TEKD_ETOOBIG);
    m = messages[0];
    m.configure.n_env = CONTROL_ENV_MAX + 1;
    assert_int_equal(control_put(*state, &m), TEKD_EINVAL);
}

static void control_send__carries_a_descriptor(void **state)
{
    static uint8_t in[CONTROL_MAX];
    struct control_message got;
    int pair[2], pipe_fd[2];
    char octet = 0;
    int fd = -1;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    assert_int_equal(pipe(pipe_fd), 0);
    assert_int_equal(control_receive(pair[1], in, &got, &fd), TEKD_EAGAIN);
    assert_int_equal(control_send(pair[0], *state, &messages[1], pipe_fd[0]), 0);
    assert_int_equal(control_send(pair[0], *state, &messages[4], -1), 0);
    assert_int_equal(control_receive(pair[1], in, &got, &fd), 0);
    assert_int_equal(got.role, PROTOCOL_ROLE_TLS);
    assert_true(fd >= 0);
    assert_int_equal(write(pipe_fd[1], "x", 1), 1);
    assert_int_equal(read(fd, &octet, 1), 1);
    assert_int_equal(octet, 'x');
    (void)close(fd);
    assert_int_equal(control_receive(pair[1], in, &got, &fd), 0);
    assert_int_equal(fd, -1);
    (void)close(pair[0]);
    assert_int_equal(control_receive(pair[1], in, &got, &fd), TEKD_ECLOSED);
    (void)close(pair[1]);
    (void)close(pipe_fd[0]);
    (void)close(pipe_fd[1]);
}

/* The lowest descriptor that is free: it rises with each one that is left open. */
static int lowest_free(void)
{
    int fd = dup(STDIN_FILENO);

    assert_true(fd >= 0);
    (void)close(fd);
    return fd;
}

static void control_receive__keeps_none_of_two_descriptors(void **state)
{
    static uint8_t in[CONTROL_MAX];
    struct control_message got;
    union {
        struct cmsghdr header;
        char octets[CMSG_SPACE(2 * sizeof(int))];
    } room = {.octets = {0}};
    const int two[2] = {STDIN_FILENO, STDOUT_FILENO};
    struct iovec part;
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = room.octets,
                         .msg_controllen = sizeof(room.octets)};
    int pair[2], before, fd = -1;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    assert_int_equal(control_put(*state, &messages[1]), 0);
    part = (struct iovec){(void *)(uintptr_t)buf_data(*state), buf_len(*state)};
    room.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(two)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&room.header), two, sizeof(two));
    before = lowest_free();
    assert_true(sendmsg(pair[0], &msg, 0) > 0);
    assert_int_equal(control_receive(pair[1], in, &got, &fd), TEKD_EFORMAT);
    assert_int_equal(fd, -1);
    assert_int_equal(lowest_free(), before);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)
    const struct CMUnitTest tests[] = {
        TEST(protocol_request__reads_what_it_writes),
        TEST(protocol_request__keeps_every_field),
        TEST(protocol_reply__reads_what_it_writes),
        TEST(protocol_request__fits_the_largest_checkpoint),
        TEST(protocol_next__reads_several_one_by_one),
        TEST(protocol_reply__fits_as_often_as_it_may_be_asked_for),
        TEST(protocol_put_request__refuses_what_has_no_form),
        TEST(protocol_get_request__refuses_every_other_length),
        TEST(protocol_get_reply__refuses_every_other_length),
        TEST(protocol_get_request__refuses_a_wrong_header),
        TEST(protocol_get_reply__refuses_a_wrong_header),
        TEST(protocol_get_request__refuses_values_out_of_range),
        TEST(protocol_role_serves__its_verbs_only),
        TEST(control_get__reads_what_control_put_writes),
        TEST(control_get__refuses_every_other_length),
        TEST(control_put__refuses_what_does_not_fit),
        TEST(control_send__carries_a_descriptor),
        TEST(control_receive__keeps_none_of_two_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
