#include "push_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <openssl/sha.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bsa_server.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

static void need_at(int ok, const char *what, int line)
{
    if (ok)
        return;
    (void)fprintf(stderr, "push_fixture.c:%d: %s\n", line, what);
    abort();
}
#define need(ok) need_at((ok) != 0, #ok, __LINE__)

/* ---- the log for operators ------------------------------------------------------------------- */

static int log_fd = -1;

int courier_make_pki(void **state)
{
    char path[] = "/tmp/tekd-push-log-XXXXXX";

    log_fd = mkstemp(path);
    need(log_fd >= 0 && unlink(path) == 0);
    log_open(log_fd, LOG_LOGFMT, LOG_DEBUG);
    return bsa_server_make_pki(state);
}

bool courier_logged(const char *a, const char *b)
{
    static char text[1 << 20];
    char *save = NULL;
    ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

    need(n >= 0);
    text[n] = '\0';
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strstr(line, a) && strstr(line, b))
            return true;
    }
    return false;
}

int64_t courier_real_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * S + ts.tv_nsec / 1000;
}

/* ---- BSAs ------------------------------------------------------------------------------------ */

static void read_delivery(const struct push_exchange *x, struct cp3_message *m)
{
    struct cp3_reader *reader = NULL;
    struct cp3_error err;

    need(cp3_reader_new(&reader) == 0);
    need(cp3_read(reader, CP3_XML, x->body, x->body_len, m, &err) == 0);
    need(m->tag == CP3_DELIVERY);
    cp3_reader_free(reader);
}

static void note(struct bsa_side *b, const struct push_exchange *x, const struct cp3_message *m)
{
    need(b->n < PUSH_SEEN);
    need(strlen(m->message_id) == STORE_MID_LEN);
    memcpy(b->mid[b->n], m->message_id, MID_SIZE);
    (void)SHA256((const uint8_t *)x->body, x->body_len, b->sha256[b->n]);
    b->n++;
}

static void confirm_with(struct push_exchange *x, const struct cp3_message *delivery,
                         enum cp3_status status, enum cp3_form form)
{
    char body[PUSH_SERVER_ANSWER_MAX];
    struct cp3_message m;
    size_t len;

    cp3_message_init(&m, CP3_CONFIRMATION);
    m.status = status;
    memcpy(m.message_id, delivery->message_id, sizeof(m.message_id));
    memcpy(m.content_id, delivery->content_id, sizeof(m.content_id));
    memcpy(m.source, delivery->destination, sizeof(m.source));
    memcpy(m.destination, delivery->source, sizeof(m.destination));
    need(cp3_write(CP3_XML, form, &m, body, sizeof(body) - 1, &len) == 0);
    body[len] = '\0';
    push_server_say(x, 200, "application/xml", body);
}

static void answer(struct bsa_side *b, struct push_exchange *x, struct cp3_message *m)
{
    static const enum push_server_way ways[] = {
        [BSA_HANGS] = WAY_HANG, [BSA_RESETS] = WAY_RESET, [BSA_FLOODS] = WAY_TEN_MB};

    switch (b->mode) {
    case BSA_CONFIRMS:
        confirm_with(x, m, CP3_STATUS_OK, CP3_FULL);
        break;
    case BSA_CONFIRMS_EFFICIENT:
        confirm_with(x, m, CP3_STATUS_OK, CP3_EFFICIENT);
        break;
    case BSA_REJECTS:
        confirm_with(x, m, CP3_STATUS_REFUSED, CP3_FULL);
        break;
    case BSA_CONFIRMS_ANOTHER:
        memcpy(m->message_id, b->another, MID_SIZE);
        confirm_with(x, m, CP3_STATUS_OK, CP3_FULL);
        break;
    case BSA_CONFIRMS_OTHER_CONTENT:
        (void)snprintf(m->content_id, sizeof(m->content_id), "urn:x:other");
        confirm_with(x, m, CP3_STATUS_OK, CP3_FULL);
        break;
    case BSA_TAKES:
        push_server_say(x, 202, NULL, "");
        break;
    case BSA_FAILS:
        push_server_say(x, 500, "application/xml", "<oops/>");
        break;
    case BSA_TALKS:
        push_server_say(x, 200, "text/html", "<html><p>Welcome!</html>");
        break;
    case BSA_REDIRECTS:
        push_server_say(x, 307, "text/plain\r\nLocation: https://127.0.0.1:9/", "");
        break;
    case BSA_HANGS:
    case BSA_RESETS:
    case BSA_FLOODS:
        x->way = ways[b->mode];
        break;
    }
}

static void on_exchange(void *arg, struct push_exchange *x)
{
    struct bsa_side *b = arg;
    struct cp3_message m;

    read_delivery(x, &m);
    (void)pthread_mutex_lock(&b->lock);
    note(b, x, &m);
    answer(b, x, &m);
    (void)pthread_mutex_unlock(&b->lock);
}

void bsa_set_mode(struct bsa_side *b, enum bsa_mode mode)
{
    (void)pthread_mutex_lock(&b->lock);
    b->mode = mode;
    (void)pthread_mutex_unlock(&b->lock);
}

unsigned bsa_seen(struct bsa_side *b)
{
    unsigned n;

    (void)pthread_mutex_lock(&b->lock);
    n = b->n;
    (void)pthread_mutex_unlock(&b->lock);
    return n;
}

bool bsa_saw_same(struct bsa_side *b, unsigned i, unsigned j)
{
    bool same;

    (void)pthread_mutex_lock(&b->lock);
    need(i < b->n && j < b->n);
    same = memcmp(b->sha256[i], b->sha256[j], 32) == 0 && strcmp(b->mid[i], b->mid[j]) == 0;
    (void)pthread_mutex_unlock(&b->lock);
    return same;
}

static char *read_pem(const char *identity)
{
    char path[BSA_SERVER_PATH_MAX];
    FILE *f = fopen(bsa_server_path(identity, "crt", path), "re");
    char *text = calloc(1, 8192);

    need(f && text && fread(text, 1, 8191, f) > 0);
    (void)fclose(f);
    return text;
}

static void change(struct courier *c, struct bsa_side *b, const char *identity, const char *url)
{
    AUTO_MEM char *pem = identity ? read_pem(identity) : NULL;
    const char *const certs[] = {b->peer->pem, pem};
    const struct keys_bsa_change x = {.id = b->peer->id,
                                      .certs = pem ? certs : NULL,
                                      .n_certs = pem ? 2 : 0,
                                      .url = url,
                                      .media = -1,
                                      .form = -1,
                                      .key_info = -1};

    need(keys_bsa_set(c->s->keys, &c->s->actor, &x, &c->s->error) == 0);
}

void bsa_set_url(struct courier *c, struct bsa_side *b, const char *url)
{
    change(c, b, NULL, url);
}

void bsa_set_identity(struct courier *c, struct bsa_side *b, const char *identity)
{
    change(c, b, identity, NULL);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void set_options(struct courier *c)
{
    static char paths[3][BSA_SERVER_PATH_MAX];

    c->o = (struct push_options){.certificate = bsa_server_path("client", "crt", paths[0]),
                                 .key_file = bsa_server_path("client", "key", paths[1]),
                                 .ca = bsa_server_path("ca", "crt", paths[2]),
                                 .retry_initial_s = 1,
                                 .retry_max_s = 60,
                                 .attempt_timeout_s = ATTEMPT_S,
                                 .deadline_s = DELIVERY_DEADLINE_S};
}

void courier_start(struct courier *c)
{
    c->o.keys = c->s->keys;
    c->o.store = c->s->store;
    need(push_start(&c->o, &c->push) == 0);
    c->stopped = false;
}

/* Time goes on, or what hangs would be waited for; but slowly enough for a thread that is kept
 * waiting to see the end of the stop before that of an attempt. */
static void *move_time(void *arg)
{
    _Atomic bool *stopped = arg;
    const struct timespec pause = {.tv_nsec = 100000000};

    while (!atomic_load(stopped)) {
        fake_clock_advance(S / 2);
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

void courier_stop(struct courier *c)
{
    _Atomic bool stopped = false;
    pthread_t thread;

    if (!c->push || c->stopped)
        return;
    c->stopped = true;
    need(pthread_create(&thread, NULL, move_time, &stopped) == 0);
    push_stop(c->push, clock_mono_us() + 5 * S);
    atomic_store(&stopped, true);
    need(pthread_join(thread, NULL) == 0);
}

void courier_restart(struct courier *c)
{
    courier_stop(c);
    service_stop(c->s);
    push_free(c->push);
    c->push = NULL;
    need(service_start(c->s) == 0);
    courier_start(c);
}

static void add_bsa(struct courier *c, unsigned i)
{
    static const char *const identities[PUSH_BSAS] = {"server", "server-2", "server-3"};
    struct bsa_side *b = &c->bsa[i];
    char url[64];

    (void)pthread_mutex_init(&b->lock, NULL);
    b->peer = &c->s->peer[i];
    push_server_start(&b->server, identities[i], on_exchange, b);
    b->serving = true;
    change(c, b, identities[i], push_server_url(&b->server, url));
}

int courier_set_up(void **state)
{
    struct courier *c = calloc(1, sizeof(*c));

    c->s = service_started();
    for (unsigned i = 0; i < PUSH_BSAS; i++)
        add_bsa(c, i);
    need(service_add_content(c->s, NEWS, 128) == 0);
    set_options(c);
    courier_start(c);
    *state = c;
    return 0;
}

int courier_tear_down(void **state)
{
    struct courier *c = *state;

    store_signer_release(c->s->signer); /* a test that failed may hold it */
    courier_stop(c);
    for (unsigned i = 0; i < PUSH_BSAS; i++) {
        push_server_stop(&c->bsa[i].server);
        (void)pthread_mutex_destroy(&c->bsa[i].lock);
    }
    service_stop(c->s);
    push_free(c->push);
    service_free(c->s);
    free(c);
    return 0;
}

/* ---- deliveries ------------------------------------------------------------------------------ */

void send_to(struct courier *c, struct bsa_side *b, char ret_mid[static MID_SIZE])
{
    deliver_one(c->s, NEWS, b->peer, ret_mid);
}

bool is_state(struct courier *c, const char *mid, enum store_delivery_state state)
{
    return delivery_row(c->s, mid).state == state;
}

void until_state(struct courier *c, const char *mid, enum store_delivery_state state)
{
    UNTIL(is_state(c, mid, state));
}

/* An earlier attempt may have failed by something else. */
static bool has_failed(struct courier *c, const char *mid, const char *why)
{
    struct store_delivery d = delivery_row(c->s, mid);

    return d.state == STORE_DELIVERY_PREPARED && strcmp(d.why, why) == 0;
}

void until_failed(struct courier *c, const char *mid, const char *why)
{
    UNTIL(has_failed(c, mid, why));
}

uint64_t confirmed(struct courier *c)
{
    struct push_status status;

    need(push_status_get(c->push, &status) == 0);
    return status.count[STORE_DELIVERY_CONFIRMED];
}

static bool is_quiet(struct courier *c)
{
    struct push_status status;

    need(push_status_get(c->push, &status) == 0);
    return status.under_way == 0;
}

void until_quiet(struct courier *c)
{
    UNTIL(is_quiet(c));
}
