#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys_fixture.h"
#include "store_vfs.h"
#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])

static struct ask *send(struct service *s, const struct peer *p, const char *mid,
                        const char *content)
{
    struct cp3_message m = ask_message(p, mid, content);

    return ask_send(s, p, &m, CP3_XML);
}

/* A change that says nothing yet. */
static struct keys_bsa_change change_of(const char *id)
{
    return (struct keys_bsa_change){.id = id, .media = -1, .form = -1, .key_info = -1};
}

static int set(struct service *s, const struct keys_bsa_change *c)
{
    return keys_bsa_set(s->keys, &s->actor, c, &s->error);
}

static int add(struct service *s, const struct keys_bsa_change *c)
{
    return keys_bsa_add(s->keys, &s->actor, c, &s->error);
}

/* ---- enrolment ------------------------------------------------------------------------------- */

static void bsa_add__is_recorded_with_its_actor(void **state)
{
    struct service *s = *state;
    char found[256], hex[65];

    assert_int_equal(service_count(s, "bsa.enrolled", NULL, NULL), SERVICE_PEERS);
    assert_string_equal(service_last(s, "bsa.enrolled", "bsa", found), "bsa-4");
    assert_string_equal(service_last(s, "bsa.enrolled", "actor", found), "operator");
    assert_string_equal(service_last(s, "bsa.enrolled", "kekid", found), "bsa-4/1");
    assert_string_equal(service_last(s, "bsa.enrolled", "entitle", found), "*");
    enc_hex(BSA(s, 4)->cert, 32, hex);
    assert_string_equal(service_last(s, "bsa.enrolled", "cert", found), hex);
    assert_string_equal(service_last(s, "kek.added", "label", found), "bsa-4-kek");
    assert_int_equal(service_count(s, "kek.added", "actor", "operator"), SERVICE_PEERS);
    assert_int_equal(service_count(s, "kek.added", "actor", "tekd"), 1); /* for storage */
    assert_int_equal(service_count(s, "admin.action", "action", "bsa add"), SERVICE_PEERS);
}

/* A BSA that could be enrolled, but for one thing. */
static struct keys_bsa_change good(struct service *s, const char **ret_pem)
{
    struct keys_bsa_change c = change_of("bsa-9");

    *ret_pem = s->spare.pem;
    c.certs = ret_pem;
    c.n_certs = 1;
    c.kek_label = "free-kek";
    return c;
}

static void wants(struct service *s, const struct keys_bsa_change *c, int error, const char *says)
{
    assert_int_equal(add(s, c), error);
    if (!strstr(s->error.what, says))
        fail_msg("\"%s\" does not say \"%s\"", s->error.what, says);
}

static void bsa_add__refuses_what_is_not_complete(void **state)
{
    struct service *s = *state;
    char longest[STORE_ID_MAX + 2];
    const char *ids[] = {"", " x", "x ", "a\nb", longest, "storage"};
    const char *pem;
    struct keys_bsa_change c;

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    fake_hsm_add(s->hsm, "free-kek", HSM_WRAP_AES_KW);
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        c = good(s, &pem);
        c.id = ids[i];
        assert_int_equal(add(s, &c), TEKD_EINVAL);
        assert_string_not_equal(s->error.what, "");
    }
    c = good(s, &pem);
    c.n_certs = 0;
    wants(s, &c, TEKD_EINVAL, "certificate");
    c = good(s, &pem);
    c.kek_label = NULL;
    wants(s, &c, TEKD_EINVAL, "KEK");
    c = good(s, &pem);
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    wants(s, &c, TEKD_EINVAL, "certificate 1");
    assert_int_equal(service_count(s, "bsa.enrolled", NULL, NULL), SERVICE_PEERS);
}

static void bsa_add__refuses_what_is_out_of_range(void **state)
{
    struct service *s = *state;
    const char *pem, *pems[3], *patterns[STORE_ENTITLE_MAX + 1];
    char url[STORE_URL_MAX + 2], pattern[STORE_CONTENT_MAX + 2];
    struct keys_bsa_change c;

    fake_hsm_add(s->hsm, "free-kek", HSM_WRAP_AES_KW);
    c = good(s, &pem);
    pems[0] = pems[1] = pems[2] = pem;
    c.certs = pems;
    c.n_certs = 3;
    wants(s, &c, TEKD_EINVAL, "2 certificates");
    c = good(s, &pem);
    for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
        patterns[i] = "x";
    c.entitle = patterns;
    c.n_entitle = ARRAY_SIZE(patterns);
    c.set_entitle = true;
    wants(s, &c, TEKD_EINVAL, "64 patterns");
    memset(pattern, 'x', sizeof(pattern) - 1);
    pattern[sizeof(pattern) - 1] = '\0';
    patterns[0] = pattern;
    c.n_entitle = 1;
    wants(s, &c, TEKD_EINVAL, "pattern 1");
    pattern[STORE_CONTENT_MAX] = '\0';
    for (size_t i = 0; i < 5; i++)
        patterns[i] = pattern;
    c.n_entitle = 5;
    wants(s, &c, TEKD_EINVAL, "together");
    c = good(s, &pem);
    memset(url, 'x', sizeof(url) - 1);
    url[sizeof(url) - 1] = '\0';
    memcpy(url, "https://", 8);
    c.url = url;
    wants(s, &c, TEKD_EINVAL, "URL");
    c.url = "http://example.net/";
    wants(s, &c, TEKD_EINVAL, "https");
    c = good(s, &pem);
    c.ca_pem = "no certificate";
    wants(s, &c, TEKD_EINVAL, "CA");
    assert_int_equal(service_count(s, "bsa.enrolled", NULL, NULL), SERVICE_PEERS);
}

/* Each connection reads all of it, so all of it has to be there. */
static void bsa_set__wants_every_certificate_of_a_ca(void **state)
{
    struct service *s = *state;
    char both[16384], broken[16384];
    struct keys_bsa_change c = {
        .id = "bsa-1", .media = -1, .form = -1, .key_info = -1, .ca_pem = broken};

    (void)snprintf(both, sizeof(both), "%s%s", BSA(s, 1)->pem, BSA(s, 2)->pem);
    for (size_t cut = 1; cut < strlen(BSA(s, 2)->pem) - 30; cut += 97) {
        (void)snprintf(broken, strlen(both) - cut, "%s", both);
        assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), TEKD_EINVAL);
        assert_non_null(strstr(s->error.what, "CA"));
    }
    c.ca_pem = both;
    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), 0);
}

static void bsa_add__refuses_what_is_taken(void **state)
{
    struct service *s = *state;
    const char *pem;
    struct keys_bsa_change c = good(s, &pem);

    fake_hsm_add(s->hsm, "free-kek", HSM_WRAP_AES_KW);
    c.id = "bsa-1";
    wants(s, &c, TEKD_EEXIST, "enrolled already");
    c = good(s, &pem);
    pem = BSA(s, 1)->pem;
    wants(s, &c, TEKD_EEXIST, "enrolled already");
    c = good(s, &pem);
    c.kek_label = "bsa-1-kek";
    wants(s, &c, TEKD_EEXIST, "enrolled already");
    assert_int_equal(service_count(s, "bsa.enrolled", NULL, NULL), SERVICE_PEERS);
    assert_int_equal(service_count(s, "kek.added", NULL, NULL), SERVICE_PEERS + 1);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL); /* nothing of it was harmed */
    c = good(s, &pem);
    assert_int_equal(add(s, &c), 0); /* and nothing of it is left */
    ask_no_key(s, &s->spare, "m-1", "urn:x", "not-entitled");
}

static void bsa_add__refuses_the_kek_of_another(void **state)
{
    struct service *s = *state;
    static const char *const labels[] = {"bsa-2-kek", SERVICE_STORAGE};

    assert_int_equal(service_enable(s, BSA(s, 1), true), 0);
    for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
        struct keys_bsa_change c = change_of("bsa-1");

        c.kek_label = labels[i];
        assert_int_equal(set(s, &c), TEKD_EEXIST);
        assert_non_null(strstr(s->error.what, "enrolled already"));
    }
    assert_string_equal(ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL).key_info.kek_id, "bsa-1/1");
}

static void bsa_add__refuses_a_kek_that_is_no_good(void **state)
{
    static const int wrong[] = {TEKD_EWEAK, TEKD_EEXIST, TEKD_EHSM};
    struct service *s = *state;
    const char *pem;
    struct keys_bsa_change c = good(s, &pem);

    wants(s, &c, TEKD_ENOTFOUND, "free-kek");
    fake_hsm_add(s->hsm, "free-kek", HSM_WRAP_AES_KW);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        fake_hsm_blame(s->hsm, "free-kek", wrong[i]);
        wants(s, &c, wrong[i], "what is wrong with it");
    }
    fake_hsm_blame(s->hsm, "free-kek", 0);
    c.wrap = HSM_WRAP_AES_KWP; /* it is for the other */
    wants(s, &c, TEKD_ENOTFOUND, "free-kek");
}

static void bsa_set__changes_what_it_says_only(void **state)
{
    struct service *s = *state;
    struct keys_bsa_change c = change_of("bsa-1");
    struct cp3_message m;

    c.key_info = 0;
    assert_int_equal(set(s, &c), 0);
    m = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    assert_int_equal(m.has & CP3_HAS_KEY_INFO, 0);
    assert_int_equal(m.form, CP3_FULL);
    c = change_of("bsa-1");
    c.form = STORE_FORM_EFFICIENT;
    assert_int_equal(set(s, &c), 0);
    m = ask_key(s, BSA(s, 1), "m-2", "urn:x", NULL);
    assert_int_equal(m.form, CP3_EFFICIENT);
    c = change_of("bsa-1");
    c.form = STORE_FORM_FULL;
    assert_int_equal(set(s, &c), 0);
    m = ask_key(s, BSA(s, 1), "m-3", "urn:x", NULL);
    assert_int_equal(m.has & CP3_HAS_KEY_INFO, 0);
    c = change_of("nobody");
    assert_int_equal(set(s, &c), TEKD_ENOTFOUND);
    assert_int_equal(keys_bsa_enable(s->keys, &s->actor, "nobody", true, &s->error),
                     TEKD_ENOTFOUND);
}

static _Atomic int64_t said;

static void on_delivery(void *arg, int64_t bsa)
{
    (void)arg;
    atomic_store(&said, bsa);
}

/* What waits for this BSA may be sent now. */
static void bsa_change__is_said_to_the_push_service(void **state)
{
    struct service *s = *state;
    struct keys_bsa_change c = change_of("bsa-2");

    int64_t row;

    keys_on_delivery(s->keys, on_delivery, NULL);
    assert_int_equal(service_enable(s, BSA(s, 2), false), 0);
    atomic_store(&said, 0);
    assert_int_equal(service_enable(s, BSA(s, 2), true), 0);
    row = atomic_load(&said);
    assert_true(row > 0);
    atomic_store(&said, 0);
    c.form = STORE_FORM_EFFICIENT;
    assert_int_equal(set(s, &c), 0);
    assert_int_equal(atomic_load(&said), row);
    c.id = "bsa-1";
    assert_int_equal(set(s, &c), 0);
    assert_int_not_equal(atomic_load(&said), row);
    atomic_store(&said, 0);
    c.id = "nobody";
    assert_int_equal(set(s, &c), TEKD_ENOTFOUND);
    assert_int_equal(atomic_load(&said), 0);
}

static void bsa_set__takes_the_next_certificate_beside_the_current(void **state)
{
    struct service *s = *state;
    struct keys_bsa_change c = change_of("bsa-1");
    const char *pems[2] = {BSA(s, 1)->pem, BSA(s, 2)->pem};
    struct peer next = *BSA(s, 1);
    struct ask *a;

    c.certs = pems;
    c.n_certs = 2;
    assert_int_equal(set(s, &c), TEKD_EEXIST); /* that of another BSA ... */
    assert_int_equal(service_enable(s, BSA(s, 2), false), 0);
    assert_int_equal(set(s, &c), TEKD_EEXIST); /* ... also of a disabled one */
    pems[1] = BSA(s, 1)->pem;
    assert_int_equal(set(s, &c), TEKD_EEXIST); /* twice the same */
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    pems[1] = s->spare.pem;
    assert_int_equal(set(s, &c), 0);
    memcpy(next.cert, s->spare.cert, sizeof(next.cert));
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", NULL);
    (void)ask_key(s, &next, "m-3", "urn:x", NULL);
    pems[0] = s->spare.pem;
    c.n_certs = 1;
    assert_int_equal(set(s, &c), 0);
    (void)ask_key(s, &next, "m-1", "urn:x", NULL);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    ask_wait(a);
    assert_int_equal(a->reply.status, 403);
    ask_end(a);
}

/* ---- two operators at once ------------------------------------------------------------------- */

struct setting {
    struct service *s;
    struct keys_bsa_change c;
    unsigned times;
    int result;
};

static void *set_thread(void *arg)
{
    struct setting *x = arg;

    for (unsigned i = 0; i < x->times && x->result == 0; i++) {
        struct keys_error err;
        x->result = keys_bsa_set(x->s->keys, &x->s->actor, &x->c, &err);
    }
    return NULL;
}

static void disable__is_not_undone_by_a_set_under_way(void **state)
{
    struct service *s = *state;
    struct setting x = {.s = s, .c = change_of("bsa-1"), .times = 1};
    struct keys_bsa_change none = change_of("bsa-1");
    pthread_t thread;
    struct ask *a;

    fake_hsm_add(s->hsm, "second", HSM_WRAP_AES_KW);
    x.c.kek_label = "second";
    fake_hsm_hold(s->hsm, FAKE_DESCRIBE, true);
    assert_int_equal(pthread_create(&thread, NULL, set_thread, &x), 0);
    fake_hsm_wait_held(s->hsm, FAKE_DESCRIBE, 1); /* it has read the BSA while it was enabled */
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    fake_hsm_hold(s->hsm, FAKE_DESCRIBE, false);
    (void)pthread_join(thread, NULL);
    assert_int_equal(x.result, 0);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    ask_wait(a);
    assert_int_equal(a->reply.status, 403);
    ask_end(a);
    assert_int_equal(set(s, &none), 0);
    assert_int_equal(service_enable(s, BSA(s, 1), true), 0);
    (void)snprintf(BSA(s, 1)->kek, sizeof(BSA(s, 1)->kek), "second");
    assert_string_equal(ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL).key_info.kek_id, "bsa-1/2");
}

static void set__of_two_operators_both_count(void **state)
{
    static const char *const all[] = {"urn:last"};
    struct service *s = *state;
    struct setting x[2];
    pthread_t thread[2];
    struct cp3_message m;

    for (size_t i = 0; i < 2; i++) {
        x[i] = (struct setting){.s = s, .c = change_of("bsa-1"), .times = 60};
    }
    x[0].c.form = STORE_FORM_EFFICIENT;
    x[1].c.entitle = all;
    x[1].c.n_entitle = 1;
    x[1].c.set_entitle = true;
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, set_thread, &x[i]), 0);
    for (size_t i = 0; i < 2; i++) {
        (void)pthread_join(thread[i], NULL);
        assert_int_equal(x[i].result, 0);
    }
    m = ask_key(s, BSA(s, 1), "m-1", "urn:last", NULL);
    assert_int_equal(m.form, CP3_EFFICIENT);
    ask_no_key(s, BSA(s, 1), "m-2", "urn:other", "not-entitled");
    assert_int_equal(service_count(s, "admin.action", "action", "bsa set"), 120);
}

/* ---- a change that cannot be recorded -------------------------------------------------------- */

static void change__that_was_not_recorded_is_not_in_force(void **state)
{
    struct service *s;
    struct keys_bsa_change c;
    const char *pem;
    int r;

    (void)state;
    store_vfs_register();
    s = service_started();
    fake_hsm_add(s->hsm, "free-kek", HSM_WRAP_AES_KW);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    store_vfs_arm(VFS_FULL, 1);
    assert_int_equal(service_enable(s, BSA(s, 1), false), TEKD_EFULL);
    assert_int_equal(service_set_entitle(s, BSA(s, 2), "urn:none"), TEKD_EFULL);
    c = good(s, &pem);
    assert_int_equal(add(s, &c), TEKD_EFULL);
    assert_true(store_vfs_disarm());
    do { /* the store finds out by itself */
        r = service_enable(s, BSA(s, 3), true);
    } while (r == TEKD_EFULL);
    assert_int_equal(r, 0);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", NULL);
    (void)ask_key(s, BSA(s, 2), "m-2", "urn:x", NULL);
    assert_int_equal(service_count(s, "bsa.disabled", NULL, NULL), 0);
    c = change_of("bsa-9");
    assert_int_equal(set(s, &c), TEKD_ENOTFOUND);
    c = good(s, &pem);
    assert_int_equal(add(s, &c), 0);
    c = change_of("bsa-9");
    assert_int_equal(set(s, &c), 0);
    service_free(s);
}

/* ---- contents and keys ----------------------------------------------------------------------- */

static void content_add__refuses_what_is_no_content(void **state)
{
    struct service *s = *state;
    char longest[STORE_CONTENT_MAX + 2];
    const char *ids[] = {"", " x", "x ", "a\x7f", "a\tb", longest};

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        assert_int_equal(service_add_content(s, ids[i], 128), TEKD_EINVAL);
    assert_int_equal(service_add_content(s, "urn:x", 64), TEKD_EINVAL);
    assert_non_null(strstr(s->error.what, "128, 192 or 256"));
    longest[STORE_CONTENT_MAX] = '\0';
    assert_int_equal(service_add_content(s, longest, 128), 0);
    assert_int_equal(service_add_content(s, longest, 128), TEKD_EEXIST);
    (void)ask_key(s, BSA(s, 1), "m-1", longest, NULL);
    assert_int_equal(service_count(s, "content.added", "actor", "operator"), 1);
}

static void rotate__makes_a_version_that_is_current(void **state)
{
    struct service *s = *state;
    uint8_t id[16], tek[FAKE_TEK_MAX], other[FAKE_TEK_MAX];
    char text[ENC_UUID_LEN + 1], found[256];
    struct cp3_message m;

    assert_int_equal(keys_rotate(s->keys, &s->actor, "urn:x", id, &s->error), TEKD_ENOTFOUND);
    assert_int_equal(service_add_content(s, "urn:x", 192), 0);
    assert_int_equal(keys_rotate(s->keys, &s->actor, "urn:x", id, &s->error), 0);
    m = ask_key(s, BSA(s, 1), "m-1", "urn:x", tek);
    assert_memory_equal(m.key_info.key_id, id, 16);
    assert_int_equal(m.key_info.bits, 192);
    assert_int_equal(keys_rotate(s->keys, &s->actor, "urn:x", id, &s->error), 0);
    m = ask_key(s, BSA(s, 2), "m-1", "urn:x", other);
    assert_memory_equal(m.key_info.key_id, id, 16);
    assert_memory_not_equal(tek, other, 24);
    enc_uuid(id, text);
    assert_string_equal(service_last(s, "tek.generated", "keyid", found), text);
    assert_int_equal(service_count(s, "admin.action", "action", "key rotate"), 2);
    fake_hsm_fail(s->hsm, FAKE_MAKE, TEKD_EHSM);
    assert_int_equal(keys_rotate(s->keys, &s->actor, "urn:x", id, &s->error), TEKD_EHSM);
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", tek);
    assert_memory_equal(tek, other, 24);
}

static void destroy__is_for_good_and_once(void **state)
{
    struct service *s = *state;
    struct cp3_message m = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    uint8_t unknown[16] = {1};
    char text[ENC_UUID_LEN + 1], found[256];

    assert_int_equal(keys_destroy(s->keys, &s->actor, unknown, &s->error), TEKD_ENOTFOUND);
    assert_int_equal(keys_destroy(s->keys, &s->actor, m.key_info.key_id, &s->error), 0);
    assert_int_equal(keys_destroy(s->keys, &s->actor, m.key_info.key_id, &s->error), TEKD_EEXIST);
    enc_uuid(m.key_info.key_id, text);
    assert_int_equal(service_count(s, "tek.destroyed", "keyid", text), 1);
    assert_string_equal(service_last(s, "tek.destroyed", "actor", found), "operator");
    service_stop(s);
    assert_int_equal(service_start(s), 0);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
}

static void destroy__of_an_old_version_leaves_the_current(void **state)
{
    struct service *s = *state;
    uint8_t now[FAKE_TEK_MAX], after[FAKE_TEK_MAX];
    struct cp3_message old = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);

    service_rotate(s, "urn:x");
    (void)ask_key(s, BSA(s, 1), "m-2", "urn:x", now);
    service_destroy(s, old.key_info.key_id);
    (void)ask_key(s, BSA(s, 1), "m-3", "urn:x", after);
    assert_memory_equal(now, after, 16);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
}

static void keys_note__records_what_nobody_waits_for(void **state)
{
    struct service *s = *state;
    struct record *r = NULL;

    keys_note(s->keys, NULL);
    assert_int_equal(record_new("hsm.lost", &r), 0);
    record_str(r, "reason", "gone");
    keys_note(s->keys, r);
    assert_int_equal(service_count(s, "hsm.lost", "reason", "gone"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(bsa_add__is_recorded_with_its_actor),
        SERVICE_TEST(bsa_add__refuses_what_is_not_complete),
        SERVICE_TEST(bsa_add__refuses_what_is_out_of_range),
        SERVICE_TEST(bsa_set__wants_every_certificate_of_a_ca),
        SERVICE_TEST(bsa_add__refuses_what_is_taken),
        SERVICE_TEST(bsa_add__refuses_the_kek_of_another),
        SERVICE_TEST(bsa_add__refuses_a_kek_that_is_no_good),
        SERVICE_TEST(bsa_set__changes_what_it_says_only),
        SERVICE_TEST(bsa_change__is_said_to_the_push_service),
        SERVICE_TEST(bsa_set__takes_the_next_certificate_beside_the_current),
        SERVICE_TEST(disable__is_not_undone_by_a_set_under_way),
        SERVICE_TEST(set__of_two_operators_both_count),
        SERVICE_TEST(content_add__refuses_what_is_no_content),
        SERVICE_TEST(rotate__makes_a_version_that_is_current),
        SERVICE_TEST(destroy__is_for_good_and_once),
        SERVICE_TEST(destroy__of_an_old_version_leaves_the_current),
        SERVICE_TEST(keys_note__records_what_nobody_waits_for),
        cmocka_unit_test(change__that_was_not_recorded_is_not_in_force),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
