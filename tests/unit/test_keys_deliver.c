/* The command "deliver": what is prepared, and for whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/sha.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_clock.h"
#include "internal.h"
#include "keys_delivery.h"
#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])
#define NEWS      "urn:x:news"
#define SECOND    INT64_C(1000000)
#define EPOCH     INT64_C(1767225600000000)

static int set_up(void **state)
{
    struct service *s;

    fake_clock_set_utc(EPOCH);
    s = service_started();
    assert_int_equal(service_add_content(s, NEWS, 128), 0);
    *state = s;
    return 0;
}

#define DELIVER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, service_tear_down)

static int set_bsa(struct service *s, const struct peer *p, int media, int form, int key_info)
{
    const struct keys_bsa_change c = {
        .id = p->id, .media = media, .form = form, .key_info = key_info};

    return keys_bsa_set(s->keys, &s->actor, &c, &s->error);
}

/* ---- what ------------------------------------------------------------------------------------ */

static void deliver__prepares_what_a_request_would_get(void **state)
{
    struct service *s = *state;
    struct store_delivery d;
    struct cp3_message m;
    char mid[STORE_MID_LEN + 1], key_id[ENC_UUID_LEN + 1];
    uint8_t tek[FAKE_TEK_MAX], pulled[FAKE_TEK_MAX];

    for (unsigned i = 1; i <= SERVICE_PEERS; i++) {
        struct cp3_message answer;

        deliver_one(s, NEWS, BSA(s, i), mid);
        assert_int_equal(delivery_message(s, mid, &m), 0);
        assert_string_equal(m.message_id, mid);
        assert_string_equal(m.content_id, NEWS);
        assert_string_equal(m.source, SERVICE_BSM);
        assert_string_equal(m.destination, BSA(s, i)->id);
        assert_int_equal(m.has, CP3_HAS_VERSION | CP3_HAS_TIME | CP3_HAS_KEY_INFO);
        assert_int_equal(m.version, 1);
        assert_int_equal(m.time.seconds, EPOCH / SECOND);
        assert_int_equal(delivery_tek(s, mid, BSA(s, i), tek), 16);
        answer = ask_key(s, BSA(s, i), "m", NEWS, pulled);
        assert_memory_equal(tek, pulled, 16);
        assert_int_equal(m.data_len, answer.data_len);
        assert_memory_equal(m.data, answer.data, m.data_len);
        assert_memory_equal(m.key_info.key_id, answer.key_info.key_id, CP3_KEY_ID_SIZE);
        assert_string_equal(m.key_info.kek_id, answer.key_info.kek_id);
        assert_int_equal(m.key_info.has, 0);
        d = delivery_row(s, mid);
        assert_int_equal(d.state, STORE_DELIVERY_PREPARED);
        assert_int_equal(d.attempts, 0);
        assert_int_equal(d.created_us, EPOCH);
        assert_int_equal(d.next_us, EPOCH);
        assert_int_equal(d.deadline_us, EPOCH + DELIVERY_DEADLINE_S * SECOND);
    }
    enc_uuid(m.key_info.key_id, key_id);
    assert_int_equal(service_count(s, "delivery.prepared", "keyid", key_id), SERVICE_PEERS);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 1);
}

static int hash_message(void *arg, struct store_tx *tx)
{
    AUTO(buf) struct buf *b = NULL;
    struct store_delivery *d = arg;
    uint8_t sha256[32];
    int r = buf_new(STORE_DELIVERY_MAX, &b);

    if (r == 0)
        r = store_tx_delivery_message(tx, d->row, b);
    if (r < 0)
        return r;
    SHA256(buf_data(b), buf_len(b), sha256);
    assert_memory_equal(sha256, d->out_sha256, 32);
    return 0;
}

static void deliver__records_what_it_prepared(void **state)
{
    struct service *s = *state;
    char mid[STORE_MID_LEN + 1], found[256], wanted[256];
    struct store_delivery d;

    deliver_one(s, NEWS, BSA(s, 2), mid);
    d = delivery_row(s, mid);
    assert_int_equal(store_call(s->store, STORE_READ, hash_message, &d), 0);
    enc_hex(d.out_sha256, 32, wanted);
    assert_string_equal(service_last(s, "delivery.prepared", "out", found), wanted);
    assert_string_equal(service_last(s, "delivery.prepared", "mid", found), mid);
    assert_string_equal(service_last(s, "delivery.prepared", "peer", found), "bsa-2");
    assert_string_equal(service_last(s, "delivery.prepared", "dir", found), "push");
    assert_string_equal(service_last(s, "delivery.prepared", "content", found), NEWS);
    assert_string_equal(service_last(s, "delivery.prepared", "kekid", found), "bsa-2/1");
    assert_string_equal(service_last(s, "admin.action", "detail", found), NEWS);
    assert_int_equal(service_count(s, "admin.action", "action", "deliver"), 1);
}

/* The form is that of the BSA's answers; Tag 3 has the full one only. */
static void deliver__writes_as_the_bsa_wants_it(void **state)
{
    struct service *s = *state;
    struct cp3_message m;
    char mid[STORE_MID_LEN + 1];

    assert_int_equal(set_bsa(s, BSA(s, 1), STORE_MEDIA_JSON, STORE_FORM_EFFICIENT, -1), 0);
    deliver_one(s, NEWS, BSA(s, 1), mid);
    assert_int_equal(delivery_row(s, mid).media, STORE_MEDIA_JSON);
    assert_int_equal(delivery_message(s, mid, &m), 0);
    assert_string_equal(m.content_id, NEWS);
    assert_true(m.has & CP3_HAS_KEY_INFO);
    assert_int_equal(set_bsa(s, BSA(s, 1), STORE_MEDIA_XML, -1, 0), 0);
    deliver_one(s, NEWS, BSA(s, 1), mid);
    assert_int_equal(delivery_row(s, mid).media, STORE_MEDIA_XML);
    assert_int_equal(delivery_message(s, mid, &m), 0);
    assert_false(m.has & CP3_HAS_KEY_INFO);
}

/* Every octet of the ContentID at its longest escape. */
static void deliver__takes_the_longest_content(void **state)
{
    static const char quotes[] = {'"', '&'}; /* longest in XML, in JSON twice */
    struct service *s = *state;

    for (size_t i = 0; i < ARRAY_SIZE(quotes); i++) {
        char content[STORE_CONTENT_MAX + 1], mid[STORE_MID_LEN + 1];
        struct cp3_message m;

        memset(content, quotes[i], STORE_CONTENT_MAX);
        content[STORE_CONTENT_MAX] = '\0';
        assert_int_equal(service_add_content(s, content, 128), 0);
        assert_int_equal(set_bsa(s, BSA(s, 4), i == 0 ? STORE_MEDIA_JSON : STORE_MEDIA_XML, -1, -1),
                         0);
        deliver_one(s, content, BSA(s, 4), mid);
        assert_int_equal(delivery_message(s, mid, &m), 0);
        assert_string_equal(m.content_id, content);
    }
}

static void deliver__again_is_another_delivery_of_the_same_tek(void **state)
{
    struct service *s = *state;
    uint8_t first[FAKE_TEK_MAX], second[FAKE_TEK_MAX];
    char mid[2][STORE_MID_LEN + 1];

    for (size_t i = 0; i < 2; i++)
        deliver_one(s, NEWS, BSA(s, 1), mid[i]);
    assert_true(strcmp(mid[0], mid[1]) != 0);
    (void)delivery_tek(s, mid[0], BSA(s, 1), first);
    (void)delivery_tek(s, mid[1], BSA(s, 1), second);
    assert_memory_equal(first, second, 16);
    assert_int_equal(fake_hsm_made(s->hsm, FAKE_EXPORT), 1); /* the second finds the wrap */
    service_rotate(s, NEWS);
    deliver_one(s, NEWS, BSA(s, 1), mid[1]);
    (void)delivery_tek(s, mid[1], BSA(s, 1), second);
    assert_memory_not_equal(first, second, 16);
}

/* ---- crypto-periods -------------------------------------------------------------------------- */

static void deliver__of_a_period_ends_with_it(void **state)
{
    struct service *s = *state;
    char mid[STORE_MID_LEN + 1];
    struct cp3_message m;

    service_add_periods(s, "urn:x:hours", 600, 60);
    fake_clock_advance(1300 * SECOND);
    deliver_one(s, "urn:x:hours", BSA(s, 1), mid);
    assert_int_equal(delivery_row(s, mid).deadline_us, EPOCH + 1800 * SECOND);
    assert_int_equal(delivery_message(s, mid, &m), 0);
    assert_int_equal(m.key_info.period, 2);
    assert_int_equal(m.key_info.not_before.seconds, EPOCH / SECOND + 1200);
    assert_int_equal(m.key_info.not_after.seconds, EPOCH / SECOND + 1800);
    service_add_periods(s, "urn:x:years", KEYS_PERIOD_MAX_S, 0);
    deliver_one(s, "urn:x:years", BSA(s, 1), mid);
    assert_int_equal(delivery_row(s, mid).deadline_us,
                     clock_utc_us() + DELIVERY_DEADLINE_S * SECOND);
}

/* ---- for whom -------------------------------------------------------------------------------- */

static void deliver__to_all_means_enabled_and_entitled(void **state)
{
    struct service *s = *state;
    struct delivered d;

    assert_int_equal(deliver(s, NEWS, NULL, &d), 0);
    assert_int_equal(d.n, SERVICE_PEERS);
    for (size_t i = 0; i < d.n; i++)
        assert_string_equal(d.bsa[i], s->peer[i].id);
    assert_int_equal(service_enable(s, BSA(s, 2), false), 0);
    assert_int_equal(service_set_entitle(s, BSA(s, 3), "urn:y:*"), 0);
    assert_int_equal(deliver(s, NEWS, NULL, &d), 0);
    assert_int_equal(d.n, 2);
    assert_string_equal(d.bsa[0], "bsa-1");
    assert_string_equal(d.bsa[1], "bsa-4");
    assert_int_equal(delivery_count(s, NULL), SERVICE_PEERS + 2);
    assert_int_equal(service_count(s, "admin.action", "action", "deliver"), 2);
}

static void deliver__to_named_ones_keeps_their_order(void **state)
{
    static const char *const bsas[] = {"bsa-3", "bsa-1", "bsa-3", NULL};
    struct service *s = *state;
    struct delivered d;

    assert_int_equal(deliver(s, NEWS, bsas, &d), 0);
    assert_int_equal(d.n, 2); /* who is named twice is meant once */
    assert_string_equal(d.bsa[0], "bsa-3");
    assert_string_equal(d.bsa[1], "bsa-1");
}

static void deliver__to_many_goes_by_groups(void **state)
{
    enum { MANY = 2 * KEYS_FANOUT_GROUP + 3 };
    struct service *s = *state;
    struct delivered d;

    service_add_peers(s, MANY - SERVICE_PEERS);
    assert_int_equal(deliver(s, NEWS, NULL, &d), 0);
    assert_int_equal(d.n, MANY);
    for (size_t i = SERVICE_PEERS; i < MANY; i++) {
        uint8_t tek[FAKE_TEK_MAX];

        assert_string_equal(d.bsa[i], s->more[i - SERVICE_PEERS].id);
        assert_int_equal(delivery_tek(s, d.mid[i], &s->more[i - SERVICE_PEERS], tek), 16);
    }
    assert_int_equal(service_count(s, "delivery.prepared", NULL, NULL), MANY);
    assert_int_equal(service_count(s, "admin.action", "action", "deliver"), 1);
}

static void deliver__prepares_nothing_if_one_may_not_have_it(void **state)
{
    static const struct {
        const char *bsa;
        int error;
        const char *what;
    } cases[] = {{"bsa-9", TEKD_ENOTFOUND, "\"bsa-9\" is not enrolled"},
                 {"bsa-2", TEKD_EDENIED, "\"bsa-2\" is disabled"},
                 {"bsa-3", TEKD_EDENIED, "\"bsa-3\" is not entitled to this content"}};
    struct service *s = *state;
    struct delivered d;

    assert_int_equal(service_enable(s, BSA(s, 2), false), 0);
    assert_int_equal(service_set_entitle(s, BSA(s, 3), "urn:y:*"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const bsas[] = {"bsa-1", cases[i].bsa, "bsa-4", NULL};

        assert_int_equal(deliver(s, NEWS, bsas, &d), cases[i].error);
        assert_string_equal(s->error.what, cases[i].what);
        assert_int_equal(d.n, 0);
    }
    assert_int_equal(deliver(s, "urn:x:none", NULL, &d), TEKD_ENOTFOUND);
    assert_string_equal(s->error.what, "\"urn:x:none\": no such content");
    for (unsigned i = 1; i <= SERVICE_PEERS; i++)
        assert_int_equal(service_set_entitle(s, BSA(s, i), NULL), 0);
    assert_int_equal(deliver(s, NEWS, NULL, &d), TEKD_ENOTFOUND);
    assert_string_equal(s->error.what, "no enabled BSA is entitled to \"urn:x:news\"");
    assert_int_equal(delivery_count(s, NULL), 0);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 0);
}

/* ---- the HSM --------------------------------------------------------------------------------- */

static void deliver__without_the_hsm_prepares_nothing(void **state)
{
    static const enum fake_call calls[] = {FAKE_MAKE, FAKE_EXPORT};
    struct service *s = *state;
    struct delivered d;

    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        fake_hsm_fail(s->hsm, calls[i], TEKD_EHSM);
        assert_int_equal(deliver(s, NEWS, NULL, &d), TEKD_EHSM);
        assert_int_equal(d.n, 0);
        fake_hsm_fail(s->hsm, calls[i], 0);
    }
    assert_int_equal(delivery_count(s, NULL), 0);
    assert_int_equal(deliver(s, NEWS, NULL, &d), 0);
}

static void deliver__to_one_whose_kek_is_gone_says_so(void **state)
{
    static const char *const bsas[] = {"bsa-1", "bsa-2", "bsa-3", NULL};
    struct service *s = *state;
    struct delivered d;

    fake_hsm_remove(s->hsm, BSA(s, 2)->kek);
    assert_int_equal(deliver(s, NEWS, bsas, &d), TEKD_ENOTFOUND);
    assert_non_null(strstr(s->error.what, "\"bsa-2\": the TEK cannot be wrapped"));
    assert_int_equal(delivery_count(s, NULL), 0);
}

/* Of more than a group, those before it are out: that is said. */
static void deliver__to_many_with_one_whose_kek_is_gone_says_how_many(void **state)
{
    const char *bsas[KEYS_FANOUT_GROUP + 3] = {NULL};
    struct service *s = *state;
    struct delivered d;

    service_add_peers(s, KEYS_FANOUT_GROUP + 2);
    for (size_t i = 0; i < KEYS_FANOUT_GROUP + 2; i++)
        bsas[i] = s->more[i].id;
    fake_hsm_remove(s->hsm, s->more[KEYS_FANOUT_GROUP].kek);
    assert_int_equal(deliver(s, NEWS, bsas, &d), TEKD_ENOTFOUND);
    assert_non_null(strstr(s->error.what, "\"bsa-116\": the TEK cannot be wrapped"));
    assert_non_null(strstr(s->error.what, "; 16 are prepared"));
    assert_int_equal(d.n, KEYS_FANOUT_GROUP);
    assert_int_equal(delivery_count(s, NULL), KEYS_FANOUT_GROUP);
}

/* Of all, the others have theirs, and the command has failed. */
static void deliver__to_all_but_one_whose_kek_is_gone(void **state)
{
    struct service *s = *state;
    struct delivered d;

    fake_hsm_remove(s->hsm, BSA(s, 2)->kek);
    assert_int_equal(deliver(s, NEWS, NULL, &d), TEKD_ENOTFOUND);
    assert_ptr_equal(strstr(s->error.what, "3 are prepared; for \"bsa-2\" (1 in all)"),
                     s->error.what);
    assert_int_equal(d.n, 3);
    assert_string_equal(d.bsa[0], "bsa-1");
    assert_string_equal(d.bsa[1], "bsa-3");
    assert_int_equal(delivery_count(s, BSA(s, 2)), 0);
    assert_int_equal(delivery_count(s, NULL), 3);
}

/* ---- at the same time ------------------------------------------------------------------------ */

struct deliverer {
    struct service *s;
    struct delivered d;
    int result;
    _Atomic bool done;
};

static void *run_deliver(void *arg)
{
    static const char *const bsas[] = {"bsa-1", "bsa-2", NULL};
    struct deliverer *x = arg;

    x->result = deliver(x->s, NEWS, bsas, &x->d);
    atomic_store(&x->done, true);
    return NULL;
}

/* Wraps for bsa-1 and bsa-2 are held; change() happens; what becomes of the command. */
static void meanwhile(struct deliverer *x, struct service *s, void (*change)(struct service *s))
{
    pthread_t thread;

    *x = (struct deliverer){.s = s};
    fake_hsm_hold(s->hsm, FAKE_EXPORT, true);
    assert_int_equal(pthread_create(&thread, NULL, run_deliver, x), 0);
    fake_hsm_wait_held(s->hsm, FAKE_EXPORT, 1);
    change(s);
    fake_hsm_hold(s->hsm, FAKE_EXPORT, false);
    (void)pthread_join(thread, NULL);
}

static void disable(struct service *s)
{
    assert_int_equal(service_enable(s, BSA(s, 2), false), 0);
}

static void deliver__while_one_is_disabled_prepares_nothing(void **state)
{
    struct service *s = *state;
    struct deliverer x;

    meanwhile(&x, s, disable);
    assert_int_equal(x.result, TEKD_EDENIED);
    assert_string_equal(s->error.what, "\"bsa-2\" is disabled");
    assert_int_equal(delivery_count(s, NULL), 0);
    assert_int_equal(service_count(s, "delivery.prepared", NULL, NULL), 0);
}

static void rotate(struct service *s)
{
    service_rotate(s, NEWS);
}

static void deliver__while_the_tek_is_rotated_is_of_the_new_one(void **state)
{
    struct service *s = *state;
    struct deliverer x;
    uint8_t tek[FAKE_TEK_MAX], now[FAKE_TEK_MAX];

    meanwhile(&x, s, rotate);
    assert_int_equal(x.result, 0);
    assert_int_equal(x.d.n, 2);
    (void)delivery_tek(s, x.d.mid[0], BSA(s, 1), tek);
    (void)ask_key(s, BSA(s, 3), "m-1", NEWS, now);
    assert_memory_equal(tek, now, 16);
    assert_int_equal(service_count(s, "delivery.prepared", NULL, NULL), 2);
}

static int find_current(void *arg, struct store_tx *tx)
{
    return store_tx_tek_current(tx, 1, 0, arg);
}

static void destroy(struct service *s)
{
    struct store_tek t;

    assert_int_equal(store_call(s->store, STORE_READ, find_current, &t), 0);
    service_destroy(s, t.key_id);
}

static void deliver__while_the_tek_is_destroyed_is_of_a_new_one(void **state)
{
    struct service *s = *state;
    struct deliverer x;
    uint8_t tek[FAKE_TEK_MAX];

    meanwhile(&x, s, destroy);
    assert_int_equal(x.result, 0);
    assert_int_equal(delivery_tek(s, x.d.mid[1], BSA(s, 2), tek), 16);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 2);
    assert_int_equal(service_count(s, "delivery.prepared", NULL, NULL), 2);
}

static _Atomic unsigned prepared;

static void on_change(void *arg, int64_t bsa)
{
    (void)arg;
    if (bsa != 0)
        atomic_fetch_add(&prepared, 1);
}

/* Neither the operator nor the push service hears of it before its record is signed. */
static void deliver__waits_for_the_signature(void **state)
{
    struct service *s = *state;
    struct deliverer x = {.s = s};
    pthread_t thread;

    (void)ask_key(s, BSA(s, 1), "m-1", NEWS, NULL);
    atomic_store(&prepared, 0);
    keys_on_delivery(s->keys, on_change, NULL);
    store_signer_hold(s->signer);
    assert_int_equal(pthread_create(&thread, NULL, run_deliver, &x), 0);
    while (delivery_count(s, NULL) < 2) /* until it is committed */
        assert_false(atomic_load(&x.done));
    assert_int_equal(atomic_load(&prepared), 0);
    assert_false(atomic_load(&x.done));
    store_signer_release(s->signer);
    (void)pthread_join(thread, NULL);
    assert_int_equal(x.result, 0);
    assert_int_equal(atomic_load(&prepared), 2);
}

/* ---- who a peer is --------------------------------------------------------------------------- */

static void peer__is_found_by_certificate_and_row(void **state)
{
    struct service *s = *state;
    const char *const certs[] = {BSA(s, 1)->pem, s->spare.pem};
    const struct keys_bsa_change c = {.id = "bsa-1",
                                      .certs = certs,
                                      .n_certs = 2,
                                      .url = "https://bsa.example.net/cp3",
                                      .ca_pem = BSA(s, 2)->pem,
                                      .media = -1,
                                      .form = -1,
                                      .key_info = -1};
    struct keys_peer one = {.row = 0}, other = {.row = 0};

    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), 0);
    assert_int_equal(keys_peer_by_cert(s->keys, s->spare.cert, &one), 0);
    assert_int_equal(keys_peer_by_row(s->keys, one.row, &other), 0);
    assert_int_equal(other.row, one.row);
    assert_string_equal(other.id, "bsa-1");
    assert_string_equal(other.url, "https://bsa.example.net/cp3");
    assert_string_equal(other.ca_pem, BSA(s, 2)->pem);
    assert_int_equal(other.n_certs, 2);
    assert_memory_equal(other.cert[0], BSA(s, 1)->cert, 32);
    assert_memory_equal(other.cert[1], s->spare.cert, 32);
    keys_peer_clear(&one);
    keys_peer_clear(&other);
    assert_null(other.ca_pem);
    assert_int_equal(keys_peer_by_cert(s->keys, BSA(s, 2)->cert, &one), 0);
    assert_null(one.ca_pem);
    assert_string_equal(one.url, "");
    keys_peer_clear(&one);
}

static void peer__that_is_none_is_not_found(void **state)
{
    struct service *s = *state;
    struct keys_peer p = {.row = 0};
    int64_t row;

    assert_int_equal(keys_peer_by_cert(s->keys, s->spare.cert, &p), TEKD_ENOTFOUND);
    assert_int_equal(keys_peer_by_row(s->keys, 4711, &p), TEKD_ENOTFOUND);
    assert_int_equal(keys_peer_by_row(s->keys, 0, &p), TEKD_ENOTFOUND);
    assert_int_equal(keys_peer_by_cert(s->keys, BSA(s, 1)->cert, &p), 0);
    row = p.row;
    keys_peer_clear(&p);
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    assert_int_equal(keys_peer_by_cert(s->keys, BSA(s, 1)->cert, &p), TEKD_EDENIED);
    assert_int_equal(keys_peer_by_row(s->keys, row, &p), TEKD_EDENIED);
    assert_int_equal(p.row, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DELIVER_TEST(deliver__prepares_what_a_request_would_get),
        DELIVER_TEST(deliver__records_what_it_prepared),
        DELIVER_TEST(deliver__writes_as_the_bsa_wants_it),
        DELIVER_TEST(deliver__takes_the_longest_content),
        DELIVER_TEST(deliver__again_is_another_delivery_of_the_same_tek),
        DELIVER_TEST(deliver__of_a_period_ends_with_it),
        DELIVER_TEST(deliver__to_all_means_enabled_and_entitled),
        DELIVER_TEST(deliver__to_named_ones_keeps_their_order),
        DELIVER_TEST(deliver__to_many_goes_by_groups),
        DELIVER_TEST(deliver__prepares_nothing_if_one_may_not_have_it),
        DELIVER_TEST(deliver__without_the_hsm_prepares_nothing),
        DELIVER_TEST(deliver__to_one_whose_kek_is_gone_says_so),
        DELIVER_TEST(deliver__to_many_with_one_whose_kek_is_gone_says_how_many),
        DELIVER_TEST(deliver__to_all_but_one_whose_kek_is_gone),
        DELIVER_TEST(deliver__while_one_is_disabled_prepares_nothing),
        DELIVER_TEST(deliver__while_the_tek_is_rotated_is_of_the_new_one),
        DELIVER_TEST(deliver__while_the_tek_is_destroyed_is_of_a_new_one),
        DELIVER_TEST(deliver__waits_for_the_signature),
        DELIVER_TEST(peer__is_found_by_certificate_and_row),
        DELIVER_TEST(peer__that_is_none_is_not_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
