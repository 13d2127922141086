#include "http_fixture.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_clock.h"
#include "tekd/err.h"

#define FIXTURE_PATIENCE_S 10

static void need(int ok)
{
    assert(ok);
    if (!ok)
        abort();
}

struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof(*f));

    need(f != NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_cond_init(&f->changed, NULL);
    f->pki = pki_new();
    f->me = pki_client(f->pki, PKI_GOOD);
    return f;
}

void fixture_stop(struct fixture *f)
{
    http_stop(f->http);
    f->http = NULL;
}

void fixture_free(struct fixture *f)
{
    if (!f)
        return;
    fixture_stop(f);
    pki_free(f->pki);
    (void)pthread_cond_destroy(&f->changed);
    (void)pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ---- what the front calls -------------------------------------------------------------------- */

static void on_handle(void *arg, struct http_exchange *take_x)
{
    struct fixture *f = arg;

    (void)pthread_mutex_lock(&f->lock);
    need(f->n_waiting < FIXTURE_WAITING_MAX);
    f->waiting[f->n_waiting++] = take_x;
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
}

static void count(struct fixture *f, unsigned *what)
{
    (void)pthread_mutex_lock(&f->lock);
    (*what)++;
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
}

static void on_timed_out(void *arg, struct http_exchange *x, struct http_reply *ret_reply)
{
    struct fixture *f = arg;
    const char *note = http_exchange_note(x);

    count(f, &f->timed_out);
    *ret_reply = (struct http_reply){.status = 503,
                                     .media = "text/plain",
                                     .reason = "busy",
                                     .retry_after_s = 1,
                                     .body = fixture_buf(note ? note : "too late")};
}

static void on_sent(void *arg, struct http_exchange *x, bool whole)
{
    struct fixture *f = arg;

    (void)x;
    count(f, whole ? &f->whole : &f->not_whole);
}

static void on_gone(void *arg, struct http_exchange *x)
{
    struct fixture *f = arg;

    (void)x;
    count(f, &f->gone);
}

static void on_refused(void *arg, const char *cause, const char *addr)
{
    struct fixture *f = arg;

    need(strncmp(addr, "127.0.0.1:", 10) == 0);
    (void)pthread_mutex_lock(&f->lock);
    need(f->n_causes < FIXTURE_CAUSES_MAX);
    (void)snprintf(f->cause[f->n_causes++], sizeof(f->cause[0]), "%s", cause);
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
}

static int on_sign(void *arg, const uint8_t *digest, size_t len, uint8_t *out, size_t *inout_len)
{
    struct fixture *f = arg;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(f->pki->server.key, NULL);
    bool refuses;

    (void)pthread_mutex_lock(&f->lock);
    f->signing++;
    (void)pthread_cond_broadcast(&f->changed);
    while (f->held)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    refuses = f->refuses;
    (void)pthread_mutex_unlock(&f->lock);
    need(ctx && EVP_PKEY_sign_init(ctx) == 1);
    need(EVP_PKEY_sign(ctx, out, inout_len, digest, len) == 1);
    EVP_PKEY_CTX_free(ctx);
    return refuses ? TEKD_EHSM : 0;
}

/* ---- starting -------------------------------------------------------------------------------- */

void fixture_setup(struct fixture *f, struct fixture_setup *ret_setup)
{
    const struct pki *p = f->pki;
    struct fixture_setup *s = ret_setup;
    const struct http_route post = {.path = FIXTURE_PATH,
                                    .method = "POST",
                                    .handle = on_handle,
                                    .timed_out = on_timed_out,
                                    .sent = on_sent,
                                    .arg = f};

    *s = (struct fixture_setup){
        .listen = {.address = "127.0.0.1"},
        .route = {post, post, post},
        .o = {.n_listen = 1,
              .files = {.certificate = pki_path(p, "server.crt"),
                        .key_file = pki_path(p, "server.key"),
                        .client_ca = pki_path(p, "ca.crt"),
                        .crl = pki_path(p, "ca.crl")},
              .loops = 2,
              .connections = 64,
              .request_timeout_ms = 60000,
              .request_deadline_ms = 4000,
              .n_routes = 3,
              .refused = on_refused,
              .refused_arg = f},
    };
    s->route[1].path = s->route[2].path = FIXTURE_WAIT_PATH;
    s->route[1].method = "GET";
    s->route[1].deadline_ms = 65000;
    s->route[1].gone = on_gone;
    s->route[2].method = "PUT";
    s->route[2].deadline_ms = 1000;
}

void fixture_use_signer(struct fixture *f, struct fixture_setup *s)
{
    int len = i2d_PUBKEY(f->pki->server.key, &s->spki);

    need(len > 0);
    s->signer =
        (struct http_signer){.sign = on_sign, .arg = f, .spki = s->spki, .spki_len = (size_t)len};
    s->o.files.key_file = NULL;
    s->o.files.signer = &s->signer;
}

int fixture_start(struct fixture *f, struct fixture_setup *s)
{
    int r;

    s->o.listen = &s->listen;
    s->o.routes = s->route;
    r = http_start(&s->o, &f->http);
    OPENSSL_free(s->spki);
    s->spki = NULL;
    if (r == 0)
        f->port = http_port(f->http, 0);
    return r;
}

struct fixture *fixture_started(void)
{
    struct fixture *f = fixture_new();
    struct fixture_setup s;

    fixture_setup(f, &s);
    need(fixture_start(f, &s) == 0);
    return f;
}

struct fixture *fixture_with_signer(void)
{
    struct fixture *f = fixture_new();
    struct fixture_setup s;

    fixture_setup(f, &s);
    fixture_use_signer(f, &s);
    s.o.loops = 1; /* what blocks it shows */
    need(fixture_start(f, &s) == 0);
    return f;
}

void *fixture_stop_thread(void *fixture)
{
    fixture_stop(fixture);
    return NULL;
}

int fixture_set_up(void **state)
{
    *state = fixture_started();
    return 0;
}

/* A test that failed half-way may have left a request under way: its time passes then. */
int fixture_tear_down(void **state)
{
    struct timespec patience;
    pthread_t thread;

    need(pthread_create(&thread, NULL, fixture_stop_thread, *state) == 0);
    (void)clock_gettime(CLOCK_REALTIME, &patience);
    patience.tv_sec += FIXTURE_PATIENCE_S;
    if (pthread_timedjoin_np(thread, NULL, &patience) != 0) {
        fake_clock_advance(HTTP_STOP_US);
        (void)pthread_join(thread, NULL);
    }
    fixture_free(*state);
    return 0;
}

/* ---- waiting --------------------------------------------------------------------------------- */

struct http_exchange *fixture_take(struct fixture *f)
{
    struct http_exchange *x;

    (void)pthread_mutex_lock(&f->lock);
    while (f->n_waiting == 0)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    x = f->waiting[0];
    f->n_waiting--;
    for (size_t i = 0; i < f->n_waiting; i++)
        f->waiting[i] = f->waiting[i + 1];
    (void)pthread_mutex_unlock(&f->lock);
    return x;
}

struct buf *fixture_buf(const char *text)
{
    struct buf *b = NULL;

    need(buf_new(CLIENT_BODY_MAX, &b) == 0 && buf_puts(b, text) == 0);
    return b;
}

void fixture_reply(struct http_exchange *take_x, int status, const char *body)
{
    const struct http_reply reply = {.status = status,
                                     .media = body ? "application/xml" : NULL,
                                     .body = body ? fixture_buf(body) : NULL};

    http_reply(take_x, &reply);
}

void fixture_answer(struct fixture *f, const char *body)
{
    fixture_reply(fixture_take(f), 200, body);
}

void fixture_wait_sent(struct fixture *f, unsigned whole, unsigned not_whole)
{
    (void)pthread_mutex_lock(&f->lock);
    while (f->whole < whole || f->not_whole < not_whole)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    (void)pthread_mutex_unlock(&f->lock);
}

void fixture_wait_gone(struct fixture *f, unsigned n)
{
    (void)pthread_mutex_lock(&f->lock);
    while (f->gone < n)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    (void)pthread_mutex_unlock(&f->lock);
}

void fixture_wait_all(struct fixture *f, unsigned n)
{
    (void)pthread_mutex_lock(&f->lock);
    while (f->whole + f->not_whole < n)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    (void)pthread_mutex_unlock(&f->lock);
}

const char *fixture_wait_cause(struct fixture *f, size_t n)
{
    (void)pthread_mutex_lock(&f->lock);
    while (f->n_causes < n)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    (void)pthread_mutex_unlock(&f->lock);
    return f->cause[n - 1];
}

void fixture_hold_signer(struct fixture *f, bool held)
{
    (void)pthread_mutex_lock(&f->lock);
    f->held = held;
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
}

void fixture_wait_signing(struct fixture *f, unsigned n)
{
    (void)pthread_mutex_lock(&f->lock);
    while (f->signing < n)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    (void)pthread_mutex_unlock(&f->lock);
}

struct client *fixture_connect(struct fixture *f)
{
    return client_connect(f->port, f->pki, f->me, 0);
}

void *fixture_ask_thread(void *fixture)
{
    struct client *c = fixture_connect(fixture);
    struct answer *a = malloc(sizeof(*a));

    need(a && client_post(c, FIXTURE_PATH, "<hello/>", a) && a->status == 200);
    free(a);
    client_close(c);
    return NULL;
}
