/*
 * The life of a BSA's KEK: added, replaced, kept, retired; alone, and while requests are under way.
 */
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
#include "tekd/err.h"

#define BSA(s, n) (&(s)->peer[(n)-1])

static struct ask *send(struct service *s, const struct peer *p, const char *mid,
                        const char *content)
{
    struct cp3_message m = ask_message(p, mid, content);

    return ask_send(s, p, &m, CP3_XML);
}

/* The same BSA, which opens what it gets with another KEK. */
static struct peer with_kek(const struct peer *p, const char *label)
{
    struct peer other = *p;

    (void)snprintf(other.kek, sizeof(other.kek), "%s", label);
    return other;
}

static struct keys_bsa_change change_of(const char *id)
{
    return (struct keys_bsa_change){.id = id, .media = -1, .form = -1, .key_info = -1};
}

static int set_kek(struct service *s, const char *label, bool keep)
{
    struct keys_bsa_change c = change_of("bsa-1");

    c.kek_label = label;
    c.keep_old_kek = keep;
    return keys_bsa_set(s->keys, &s->actor, &c, &s->error);
}

/* A new KEK for bsa-1. */
static void give_kek(struct service *s, const char *label, bool keep)
{
    fake_hsm_add(s->hsm, label, HSM_WRAP_AES_KW);
    assert_int_equal(set_kek(s, label, keep), 0);
}

static int retire(struct service *s, const char *name)
{
    return keys_bsa_retire_kek(s->keys, &s->actor, "bsa-1", name, &s->error);
}

static void restart(struct service *s)
{
    service_stop(s);
    assert_int_equal(service_start(s), 0);
}

static void says(const struct service *s, const char *what)
{
    if (!strstr(s->error.what, what))
        fail_msg("\"%s\" does not say \"%s\"", s->error.what, what);
}

static void same_answer(const struct cp3_message *a, const struct cp3_message *b)
{
    assert_int_equal(a->data_len, b->data_len);
    assert_memory_equal(a->data, b->data, a->data_len);
    assert_string_equal(a->time.text, b->time.text);
    assert_string_equal(a->key_info.kek_id, b->key_info.kek_id);
}

/* ---- replaced -------------------------------------------------------------------------------- */

static void set_kek__retires_the_old_one(void **state)
{
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "second");
    uint8_t tek[FAKE_TEK_MAX], same[FAKE_TEK_MAX];
    struct cp3_message m;
    char found[256];

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", tek);
    (void)ask_key(s, BSA(s, 2), "m-1", "urn:x", NULL);
    give_kek(s, "second", false);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
    m = ask_key(s, &next, "m-2", "urn:x", same);
    assert_string_equal(m.key_info.kek_id, "bsa-1/2");
    assert_memory_equal(tek, same, 16);
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 1);
    assert_string_equal(service_last(s, "kek.retired", "kekid", found), "bsa-1/1");
    assert_string_equal(service_last(s, "kek.retired", "actor", found), "operator");
    assert_string_equal(service_last(s, "kek.added", "kekid", found), "bsa-1/2");
    assert_string_equal(service_last(s, "kek.added", "actor", found), "operator");
    assert_string_equal(service_last(s, "bsa.enrolled", "kekid", found), "bsa-1/2");
    (void)ask_key(s, BSA(s, 2), "m-1", "urn:x", NULL); /* another BSA's stays */
}

static void set_kek__is_for_good(void **state)
{
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "second");
    struct cp3_message m, again;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    give_kek(s, "second", false);
    m = ask_key(s, &next, "m-2", "urn:x", NULL);
    for (int i = 0; i < 2; i++) {
        restart(s);
        ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
        ask_no_key(s, BSA(s, 1), "m-1", "urn:y", "duplicate-message-id");
        again = ask_key(s, &next, "m-2", "urn:x", NULL);
        same_answer(&m, &again);
    }
    assert_int_equal(set_kek(s, "bsa-1-kek", false), TEKD_EEXIST);
    says(s, "never taken again");
    assert_int_equal(set_kek(s, "second", false), 0); /* it has that one */
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 1);
    (void)ask_key(s, &next, "m-3", "urn:x", NULL);
}

static void set_kek__may_be_of_another_wrap(void **state)
{
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "rsa");
    struct keys_bsa_change c = change_of("bsa-1");
    struct cp3_message m;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    fake_hsm_add(s->hsm, "rsa", HSM_WRAP_OAEP_SHA256);
    assert_int_equal(set_kek(s, "rsa", false), TEKD_ENOTFOUND); /* not one for the old wrap */
    c.kek_label = "rsa";
    c.wrap = HSM_WRAP_OAEP_SHA256;
    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), 0);
    m = ask_key(s, &next, "m-2", "urn:x", NULL);
    assert_int_equal(m.data_len, 256);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
}

static void set__of_something_else_leaves_the_kek(void **state)
{
    struct service *s = *state;
    struct keys_bsa_change c = change_of("bsa-1");

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    c.media = STORE_MEDIA_JSON;
    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), 0);
    c.wrap = HSM_WRAP_AES_KW;
    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    c = change_of("bsa-1");
    c.keep_old_kek = true;
    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), TEKD_EINVAL);
    says(s, "without a new one");
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 0);
    assert_int_equal(service_count(s, "kek.added", NULL, NULL), SERVICE_PEERS + 1);
}

/* Both or none of it. */
static void set_kek__that_was_not_recorded_changes_nothing(void **state)
{
    struct service *s;
    struct cp3_message m, again;
    int r;

    (void)state;
    store_vfs_register();
    s = service_started();
    fake_hsm_add(s->hsm, "second", HSM_WRAP_AES_KW);
    m = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    store_vfs_arm(VFS_FULL, 1);
    assert_int_equal(set_kek(s, "second", false), TEKD_EFULL);
    assert_true(store_vfs_disarm());
    do { /* the store finds out by itself */
        r = service_enable(s, BSA(s, 3), true);
    } while (r == TEKD_EFULL);
    assert_int_equal(r, 0);
    again = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    same_answer(&m, &again);
    assert_string_equal(ask_key(s, BSA(s, 1), "m-2", "urn:x", NULL).key_info.kek_id, "bsa-1/1");
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 0);
    assert_int_equal(set_kek(s, "second", false), 0);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
    service_free(s);
}

/* ---- kept ------------------------------------------------------------------------------------ */

/* What a request is given, without opening it. */
static struct cp3_message given(struct service *s, const char *mid)
{
    struct ask *a = send(s, BSA(s, 1), mid, "urn:x");
    struct cp3_message m = ask_answer(a);

    assert_int_equal(m.status, CP3_STATUS_OK);
    ask_end(a);
    return m;
}

static void keep_old_kek__repeats_what_was_answered_under_it(void **state)
{
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "second");
    struct cp3_message first = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL), again, other;

    give_kek(s, "second", true);
    again = ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    same_answer(&first, &again);
    other = ask_key(s, &next, "m-2", "urn:x", NULL);
    assert_string_equal(other.key_info.kek_id, "bsa-1/2");
    fake_hsm_remove(s->hsm, "bsa-1-kek"); /* what is repeated is stored */
    restart(s);
    again = given(s, "m-1");
    same_answer(&first, &again);
    again = given(s, "m-2");
    same_answer(&other, &again);
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 0);
}

static void retire_kek__ends_one_that_was_kept(void **state)
{
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "second");
    char found[256];

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    give_kek(s, "second", true);
    (void)ask_key(s, &next, "m-2", "urn:x", NULL);
    assert_int_equal(retire(s, "bsa-1/1"), 0);
    for (int i = 0; i < 2; i++) {
        ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
        (void)ask_key(s, &next, "m-2", "urn:x", NULL);
        restart(s);
    }
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 1);
    assert_string_equal(service_last(s, "kek.retired", "kekid", found), "bsa-1/1");
    assert_string_equal(service_last(s, "kek.retired", "actor", found), "operator");
}

/* Who was kept stays kept until somebody says otherwise. */
static void set_kek__retires_the_current_one_only(void **state)
{
    struct service *s = *state;
    struct peer second = with_kek(BSA(s, 1), "second"), third = with_kek(BSA(s, 1), "third");

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    give_kek(s, "second", true);
    (void)ask_key(s, &second, "m-2", "urn:x", NULL);
    give_kek(s, "third", false);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    ask_no_key(s, &second, "m-2", "urn:x", "key-gone");
    (void)ask_key(s, &third, "m-3", "urn:x", NULL);
    assert_int_equal(retire(s, "bsa-1/1"), 0);
    ask_no_key(s, BSA(s, 1), "m-1", "urn:x", "key-gone");
    (void)ask_key(s, &third, "m-3", "urn:x", NULL);
}

static void set_kek__takes_no_kept_one_back(void **state)
{
    struct service *s = *state;

    give_kek(s, "second", true);
    assert_int_equal(set_kek(s, "bsa-1-kek", false), TEKD_EEXIST);
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 0);
}

/* ---- what cannot be retired ------------------------------------------------------------------ */

static void retire_kek__refuses_what_it_must_not(void **state)
{
    static const struct {
        const char *bsa, *kek;
        int error;
        const char *says;
    } rows[] = {
        {"nobody", "bsa-1/1", TEKD_ENOTFOUND, "no such BSA"},
        {"bsa-1", "bsa-1/3", TEKD_ENOTFOUND, "\"bsa-1\" has no KEK \"bsa-1/3\""},
        {"bsa-1", "bsa-1", TEKD_ENOTFOUND, "bsa show"},
        {"bsa-1", "", TEKD_ENOTFOUND, "bsa show"},
        {"bsa-1", "bsa-2/1", TEKD_ENOTFOUND, "bsa show"},
        {"bsa-1", "storage/1", TEKD_ENOTFOUND, "bsa show"},
        {"bsa-1", "bsa-1/2", TEKD_EINVAL, "bsa set bsa-1 --kek LABEL"},
        {"bsa-2", "bsa-2/1", TEKD_EINVAL, "current KEK of an enabled BSA"},
    };
    struct service *s = *state;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    give_kek(s, "second", true);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(
            keys_bsa_retire_kek(s->keys, &s->actor, rows[i].bsa, rows[i].kek, &s->error),
            rows[i].error);
        says(s, rows[i].says);
    }
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 0);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    assert_int_equal(retire(s, "bsa-1/1"), 0);
    assert_int_equal(retire(s, "bsa-1/1"), TEKD_EEXIST);
    says(s, "retired already");
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), 1);
}

/* Without a KEK it stays disabled; an older one is not current again. */
static void retire_kek__of_a_disabled_bsa_leaves_it_none(void **state)
{
    struct service *s = *state;
    struct peer third = with_kek(BSA(s, 1), "third");
    struct keys_bsa_change c = change_of("bsa-1");

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    give_kek(s, "second", true);
    assert_int_equal(service_enable(s, BSA(s, 1), false), 0);
    assert_int_equal(retire(s, "bsa-1/2"), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(service_enable(s, BSA(s, 1), true), TEKD_EINVAL);
        says(s, "bsa set bsa-1 --kek LABEL");
        restart(s);
    }
    c.wrap = HSM_WRAP_AES_KW;
    assert_int_equal(keys_bsa_set(s->keys, &s->actor, &c, &s->error), TEKD_EINVAL);
    says(s, "KEK label is needed");
    assert_int_equal(set_kek(s, "second", false), TEKD_EEXIST);
    give_kek(s, "third", false);
    assert_int_equal(service_enable(s, BSA(s, 1), true), 0);
    assert_string_equal(ask_key(s, &third, "m-2", "urn:x", NULL).key_info.kek_id, "bsa-1/3");
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL); /* kept all the time */
}

/* ---- while requests are under way ------------------------------------------------------------ */

static void change__while_the_hsm_works_wins(void **state)
{
    static const struct {
        enum fake_call call;
        const char *content;
    } rows[] = {{FAKE_EXPORT, "urn:x"}, {FAKE_ISSUE, "urn:new"}};
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "second");
    struct ask *a[ARRAY_SIZE(rows)];
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_key(s, BSA(s, 2), "m-1", "urn:x", NULL);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        fake_hsm_hold(s->hsm, rows[i].call, true);
        a[i] = send(s, &next, rows[i].content, rows[i].content);
        fake_hsm_wait_held(s->hsm, rows[i].call, 1); /* under the old KEK ... */
    }
    give_kek(s, "second", false); /* ... which is retired when it comes back */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        fake_hsm_hold(s->hsm, rows[i].call, false);
        (void)ask_tek(a[i], tek);
        assert_string_equal(ask_answer(a[i]).key_info.kek_id, "bsa-1/2");
        ask_end(a[i]);
    }
    assert_int_equal(service_count(s, "request.answered", "kekid", "bsa-1/1"), 0);
    assert_int_equal(service_count(s, "request.answered", "kekid", "bsa-1/2"), 2);
    assert_int_equal(service_count(s, "tek.generated", NULL, NULL), 2);
}

/* An answer that is recorded and waits for its signature while the KEK is replaced. */
static struct ask *overtaken(struct service *s, bool keep)
{
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-0", "urn:x", NULL);
    store_signer_hold(s->signer);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    service_wait_record(s, "request.answered", "mid", "m-1");
    give_kek(s, "second", keep);
    assert_false(ask_is_answered(a));
    store_signer_release(s->signer);
    ask_wait(a);
    return a;
}

static void change__before_the_answer_left_wins(void **state)
{
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "second");
    struct ask *a = overtaken(s, false);

    ask_refused(a, 200, "key-gone");
    ask_end(a);
    /* What was recorded stands: the Message ID is used. */
    assert_int_equal(service_count(s, "request.answered", "mid", "m-1"), 1);
    assert_int_equal(service_count(s, "answer.sent", "mid", "m-1"), 0);
    ask_no_key(s, &next, "m-1", "urn:x", "key-gone");
    (void)ask_key(s, &next, "m-2", "urn:x", NULL);
}

static void change__that_keeps_the_old_kek_lets_the_answer_leave(void **state)
{
    struct service *s = *state;
    struct ask *a = overtaken(s, true);
    uint8_t tek[FAKE_TEK_MAX];

    (void)ask_tek(a, tek);
    assert_string_equal(ask_answer(a).key_info.kek_id, "bsa-1/1");
    ask_end(a);
    assert_int_equal(service_count(s, "request.answered", "mid", "m-1"), 1);
}

/* Holds a request thread where it comes back from a wait: what it read is not acted upon yet. */
struct gate {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool armed, held;
};

static void come_back(void *arg, bool begins)
{
    struct gate *g = arg;

    (void)pthread_mutex_lock(&g->lock);
    if (!begins && g->armed) {
        g->armed = false;
        g->held = true;
        (void)pthread_cond_broadcast(&g->changed);
        while (g->held)
            (void)pthread_cond_wait(&g->changed, &g->lock);
    }
    (void)pthread_mutex_unlock(&g->lock);
}

/* Sends m-1, and returns when it is held. */
static struct ask *send_to_gate(struct service *s, struct gate *g)
{
    struct ask *a;

    (void)pthread_mutex_lock(&g->lock);
    g->armed = true;
    (void)pthread_mutex_unlock(&g->lock);
    a = send(s, BSA(s, 1), "m-1", "urn:x");
    (void)pthread_mutex_lock(&g->lock);
    while (!g->held)
        (void)pthread_cond_wait(&g->changed, &g->lock);
    (void)pthread_mutex_unlock(&g->lock);
    return a;
}

static void open_gate(struct gate *g)
{
    (void)pthread_mutex_lock(&g->lock);
    g->held = false;
    (void)pthread_cond_broadcast(&g->changed);
    (void)pthread_mutex_unlock(&g->lock);
}

static void gate_init(struct gate *g, struct service *s)
{
    *g = (struct gate){.armed = false};
    (void)pthread_mutex_init(&g->lock, NULL);
    (void)pthread_cond_init(&g->changed, NULL);
    keys_on_wait(s->keys, come_back, g);
}

static void gate_end(struct gate *g, struct service *s)
{
    service_stop(s); /* its threads come by until then */
    (void)pthread_cond_destroy(&g->changed);
    (void)pthread_mutex_destroy(&g->lock);
}

/* It has read the stored answer of a KEK that was kept. */
static void retirement__of_a_kept_kek_overtakes_a_repeat(void **state)
{
    struct service *s = *state;
    struct peer next = with_kek(BSA(s, 1), "second");
    struct gate gate;
    struct ask *a;

    gate_init(&gate, s);
    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    give_kek(s, "second", true);
    (void)ask_key(s, &next, "m-2", "urn:x", NULL);
    a = send_to_gate(s, &gate);
    assert_int_equal(retire(s, "bsa-1/1"), 0);
    open_gate(&gate);
    ask_refused(a, 200, "key-gone");
    ask_end(a);
    assert_int_equal(service_count(s, "request.repeated", NULL, NULL), 0);
    gate_end(&gate, s);
}

/* It has read what the TEK is under the KEK that was current. */
static void change__overtakes_a_repeat(void **state)
{
    struct service *s = *state;
    struct gate gate;
    struct ask *a;

    (void)ask_key(s, BSA(s, 1), "m-1", "urn:x", NULL);
    restart(s); /* nothing is in the cache */
    gate_init(&gate, s);
    a = send_to_gate(s, &gate);
    give_kek(s, "second", false);
    open_gate(&gate);
    ask_refused(a, 200, "key-gone");
    ask_end(a);
    assert_int_equal(service_count(s, "request.repeated", NULL, NULL), 0);
    gate_end(&gate, s);
}

enum { ASKERS = 8, CHANGES = 24, OLDER = 4 };

/* What the clients and the operator know of each other. */
struct changes {
    struct service *s;
    unsigned n;             /* of the client */
    _Atomic bool *gone;     /* by version, once the command that retired it has returned */
    _Atomic bool *finished; /* the last change was made */
    unsigned keys, gone_keys;
};

static unsigned version_of(const struct cp3_message *m)
{
    const char *slash = strchr(m->key_info.kek_id, '/');
    unsigned long v = slash ? strtoul(slash + 1, NULL, 10) : 0;

    if (v == 0 || v > CHANGES + 1)
        abort();
    return (unsigned)v;
}

static void look_at(struct changes *c, struct ask *a, const bool *was_gone)
{
    struct cp3_message m;

    ask_wait(a);
    if (a->reply.reason) {
        ask_refused(a, 200, "key-gone");
        c->gone_keys++;
        return;
    }
    m = ask_answer(a);
    if (m.status != CP3_STATUS_OK || was_gone[version_of(&m)])
        abort();
    c->keys++;
}

/* The n-th Message ID of this client, again or for the first time. */
static void ask_one(struct changes *c, unsigned n)
{
    bool was_gone[CHANGES + 2];
    char mid[32];
    struct ask *a;

    (void)snprintf(mid, sizeof(mid), "%u/%u", c->n, n);
    for (size_t v = 0; v < ARRAY_SIZE(was_gone); v++)
        was_gone[v] = atomic_load(&c->gone[v]);
    a = send(c->s, BSA(c->s, 1), mid, n % 2 ? "urn:x" : "urn:y");
    look_at(c, a, was_gone);
    ask_end(a);
}

static void *ask_on(void *arg)
{
    struct changes *c = arg;

    for (unsigned i = 0; !atomic_load(c->finished); i++) {
        ask_one(c, i);
        ask_one(c, i < OLDER ? i : i - OLDER);
    }
    return NULL;
}

/* Every third KEK is kept for a while. */
static void change_on(struct service *s, _Atomic bool *gone)
{
    for (unsigned v = 1; v <= CHANGES; v++) {
        char label[32], name[32];

        (void)snprintf(label, sizeof(label), "kek-%u", v + 1);
        give_kek(s, label, v % 3 == 0);
        if (v % 3 != 0) {
            atomic_store(&gone[v], true);
            continue;
        }
        (void)ask_key(s, BSA(s, 2), label, "urn:x", NULL); /* time for the others */
        (void)snprintf(name, sizeof(name), "bsa-1/%u", v);
        assert_int_equal(retire(s, name), 0);
        atomic_store(&gone[v], true);
    }
}

/* The log as an auditor reads it: under which KEK an answer was, and since when that is retired. */
struct reading {
    uint64_t retired[CHANGES + 2]; /* 0: not */
    unsigned *version;             /* of request.answered, by seq */
    size_t n;
    unsigned answers, repeats;
};

static unsigned kek_version(const struct record *r)
{
    const char *kekid = record_get_str(r, "kekid");

    return kekid && strncmp(kekid, "bsa-1/", 6) == 0 ? (unsigned)strtoul(kekid + 6, NULL, 10) : 0;
}

static uint64_t seq_of(const struct record *r, const char *key)
{
    return strtoull(strchr(record_get_str(r, key), '/') + 1, NULL, 10);
}

static void read_repeat(struct reading *x, const struct record *r)
{
    unsigned version = x->version[seq_of(r, "ref")];

    if (version == 0)
        return; /* another BSA's */
    assert_true(x->retired[version] == 0 || seq_of(r, "after") < x->retired[version]);
    x->repeats++;
}

static int read_record(void *arg, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *r = NULL;
    struct reading *x = arg;
    const char *what;

    assert_int_equal(record_parse(octets, len, &r, &what), 0);
    assert_true(seq < x->n);
    if (strcmp(record_event(r), "kek.retired") == 0)
        x->retired[kek_version(r)] = seq;
    if (strcmp(record_event(r), "request.repeated") == 0)
        read_repeat(x, r);
    if (strcmp(record_event(r), "request.answered") != 0 || kek_version(r) == 0)
        return 0;
    x->version[seq] = kek_version(r);
    assert_int_equal(x->retired[kek_version(r)], 0);
    x->answers++;
    return 0;
}

static int read_log(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.after = -1, .limit = SIZE_MAX, .arg = arg};

    return store_tx_leaf_walk(tx, &w, read_record);
}

static struct reading log_of(struct service *s)
{
    struct reading x = {.n = 0};
    struct store_status st;

    assert_true(service_count(s, "request.answered", NULL, NULL) > 0); /* lazy ones are in */
    store_status_get(s->store, &st);
    x.n = st.records;
    x.version = calloc(x.n, sizeof(*x.version));
    assert_non_null(x.version);
    assert_int_equal(store_call(s->store, STORE_READ, read_log, &x), 0);
    free(x.version);
    x.version = NULL;
    return x;
}

static void change__under_load_is_obeyed_by_every_answer(void **state)
{
    struct service *s = *state;
    _Atomic bool gone[CHANGES + 2] = {false};
    _Atomic bool finished = false;
    struct changes c[ASKERS];
    pthread_t thread[ASKERS];
    struct reading log;
    unsigned keys = 0, gone_keys = 0;

    for (unsigned i = 0; i < ASKERS; i++) {
        c[i] = (struct changes){.s = s, .n = i, .gone = gone, .finished = &finished};
        assert_int_equal(pthread_create(&thread[i], NULL, ask_on, &c[i]), 0);
    }
    change_on(s, gone);
    atomic_store(&finished, true);
    for (unsigned i = 0; i < ASKERS; i++) {
        (void)pthread_join(thread[i], NULL);
        keys += c[i].keys;
        gone_keys += c[i].gone_keys;
    }
    log = log_of(s);
    assert_true(log.answers + log.repeats >= keys);
    assert_true(keys > 0 && gone_keys > 0 && log.repeats > 0);
    assert_int_equal(service_count(s, "kek.retired", NULL, NULL), CHANGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(set_kek__retires_the_old_one),
        SERVICE_TEST(set_kek__is_for_good),
        SERVICE_TEST(set_kek__may_be_of_another_wrap),
        SERVICE_TEST(set__of_something_else_leaves_the_kek),
        cmocka_unit_test(set_kek__that_was_not_recorded_changes_nothing),
        SERVICE_TEST(keep_old_kek__repeats_what_was_answered_under_it),
        SERVICE_TEST(retire_kek__ends_one_that_was_kept),
        SERVICE_TEST(set_kek__retires_the_current_one_only),
        SERVICE_TEST(set_kek__takes_no_kept_one_back),
        SERVICE_TEST(retire_kek__refuses_what_it_must_not),
        SERVICE_TEST(retire_kek__of_a_disabled_bsa_leaves_it_none),
        SERVICE_TEST(change__while_the_hsm_works_wins),
        SERVICE_TEST(change__before_the_answer_left_wins),
        SERVICE_TEST(change__that_keeps_the_old_kek_lets_the_answer_leave),
        SERVICE_TEST(retirement__of_a_kept_kek_overtakes_a_repeat),
        SERVICE_TEST(change__overtakes_a_repeat),
        SERVICE_TEST(change__under_load_is_obeyed_by_every_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
