#include "keys_fixture.h"

#include <assert.h>
#include <dirent.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/queue.h"

static void need_at(int ok, const char *what, int line)
{
    if (ok)
        return;
    (void)fprintf(stderr, "keys_fixture.c:%d: %s\n", line, what);
    abort();
}
#define need(ok) need_at((ok) != 0, #ok, __LINE__)

/* ---- the service ----------------------------------------------------------------------------- */

static void make_certificate(struct peer *p)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    BIO *bio = BIO_new(BIO_s_mem());
    unsigned len = sizeof(p->cert);
    char *text;
    long n;

    need(key && X509_gmtime_adj(X509_getm_notBefore(x), 0) &&
         X509_gmtime_adj(X509_getm_notAfter(x), 3600));
    need(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)p->id, -1, -1, 0));
    need(X509_set_issuer_name(x, name) && X509_set_pubkey(x, key));
    need(X509_sign(x, key, EVP_sha256()) > 0 && X509_digest(x, EVP_sha256(), p->cert, &len));
    need(PEM_write_bio_X509(bio, x));
    n = BIO_get_mem_data(bio, &text);
    need(n > 0);
    p->pem = calloc(1, (size_t)n + 1);
    need(p->pem != NULL);
    /* What the BIO holds does not end in a NUL. */
    memcpy(p->pem, text, (size_t)n);
    BIO_free(bio);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void make_peers(struct service *s)
{
    static const enum hsm_wrap wraps[SERVICE_PEERS] = {HSM_WRAP_AES_KW, HSM_WRAP_AES_KW,
                                                       HSM_WRAP_AES_KWP, HSM_WRAP_OAEP_SHA256};

    for (size_t i = 0; i < SERVICE_PEERS; i++) {
        struct peer *p = &s->peer[i];

        (void)snprintf(p->id, sizeof(p->id), "bsa-%zu", i + 1);
        (void)snprintf(p->kek, sizeof(p->kek), "bsa-%zu-kek", i + 1);
        p->wrap = wraps[i];
        fake_hsm_add(s->hsm, p->kek, p->wrap);
        make_certificate(p);
    }
    s->spare = (struct peer){.id = "bsa-9", .kek = "free-kek", .wrap = HSM_WRAP_AES_KW};
    make_certificate(&s->spare);
}

struct service *service_new(void)
{
    struct service *s = calloc(1, sizeof(*s));

    need(s != NULL);
    (void)snprintf(s->dir, sizeof(s->dir), "/tmp/tekd-keys-XXXXXX");
    need(mkdtemp(s->dir) != NULL);
    (void)snprintf(s->path, sizeof(s->path), "%s/tekd.db", s->dir);
    s->signer = store_signer_new();
    s->hsm = fake_hsm_new();
    fake_hsm_add(s->hsm, SERVICE_STORAGE, HSM_WRAP_AES_KW);
    make_peers(s);
    s->actor = (struct keys_actor){.uid = 1000, .name = "operator"};
    s->store_options = (struct store_options){.path = s->path,
                                              .bsm_id = SERVICE_BSM,
                                              .instance = "test",
                                              .version = "1",
                                              .release = STORE_RELEASE_SIGNED,
                                              .heartbeat_s = 300,
                                              .message_window_us = INT64_C(604800000000),
                                              .signer = store_signer_of(s->signer)};
    s->options = (struct keys_options){.bsm_id = SERVICE_BSM,
                                       .storage_kek = SERVICE_STORAGE,
                                       .auto_content = true,
                                       .auto_bits = 128,
                                       .per_bsa_concurrency = 64,
                                       .hsm_inside = 4,
                                       .hsm_waiting = 64,
                                       .per_bsa_auto_contents = 100000};
    return s;
}

static void *handle_requests(void *arg)
{
    struct service *s = arg;
    struct cp3_reader *reader = NULL;
    void *entry;

    need(cp3_reader_new(&reader) == 0);
    while (queue_pop(s->queue, INT64_MAX, &entry) == 0)
        keys_handle(s->keys, reader, entry);
    cp3_reader_free(reader);
    return NULL;
}

int service_start(struct service *s)
{
    int r = store_open(&s->store_options, &s->store);

    need(r == 0);
    s->options.store = s->store;
    s->options.hsm = s->hsm;
    r = keys_new(&s->options, clock_mono_us() + SERVICE_US, &s->keys);
    if (r < 0) {
        store_close(s->store);
        s->store = NULL;
        return r;
    }
    need(queue_new(65536, &s->queue) == 0);
    for (size_t i = 0; i < SERVICE_THREADS; i++)
        need(pthread_create(&s->thread[i], NULL, handle_requests, s) == 0);
    return 0;
}

void service_stop(struct service *s)
{
    if (!s->keys)
        return;
    queue_close(s->queue);
    for (size_t i = 0; i < SERVICE_THREADS; i++)
        (void)pthread_join(s->thread[i], NULL);
    queue_free(s->queue);
    keys_flush(s->keys);
    store_close(s->store);
    keys_free(s->keys);
    s->keys = NULL;
    s->store = NULL;
}

static void remove_dir(const char *dir)
{
    char path[400];
    struct dirent *e;
    DIR *d = opendir(dir);

    need(d != NULL);
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        need(unlink(path) == 0);
    }
    (void)closedir(d);
    need(rmdir(dir) == 0);
}

void service_free(struct service *s)
{
    if (!s)
        return;
    store_signer_release(s->signer); /* a test that failed may hold it */
    service_stop(s);
    fake_hsm_free(s->hsm);
    store_signer_free(s->signer);
    for (size_t i = 0; i < SERVICE_PEERS; i++)
        free(s->peer[i].pem);
    for (size_t i = 0; i < s->n_more; i++)
        free(s->more[i].pem);
    free(s->spare.pem);
    remove_dir(s->dir);
    free(s);
}

struct service *service_started(void)
{
    struct service *s = service_new();

    need(service_start(s) == 0);
    for (size_t i = 0; i < SERVICE_PEERS; i++)
        need(service_enrol(s, &s->peer[i], "*") == 0);
    return s;
}

int service_set_up(void **state)
{
    *state = service_started();
    return 0;
}

int service_tear_down(void **state)
{
    service_free(*state);
    return 0;
}

void service_add_peers(struct service *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct peer *p = &s->more[s->n_more];

        need(s->n_more < SERVICE_MORE);
        (void)snprintf(p->id, sizeof(p->id), "bsa-%zu", 100 + s->n_more);
        (void)snprintf(p->kek, sizeof(p->kek), "bsa-%zu-kek", 100 + s->n_more);
        s->n_more++;
        p->wrap = HSM_WRAP_AES_KW;
        fake_hsm_add(s->hsm, p->kek, p->wrap);
        make_certificate(p);
        need(service_enrol(s, p, "*") == 0);
    }
}

int service_enrol(struct service *s, const struct peer *p, const char *entitle)
{
    const char *const certs[] = {p->pem};
    const struct keys_bsa_change c = {.id = p->id,
                                      .certs = certs,
                                      .n_certs = 1,
                                      .kek_label = p->kek,
                                      .wrap = p->wrap,
                                      .media = -1,
                                      .form = -1,
                                      .key_info = -1,
                                      .entitle = &entitle,
                                      .n_entitle = entitle ? 1 : 0,
                                      .set_entitle = true};

    return keys_bsa_add(s->keys, &s->actor, &c, &s->error);
}

int service_set_entitle(struct service *s, const struct peer *p, const char *entitle)
{
    const struct keys_bsa_change c = {.id = p->id,
                                      .media = -1,
                                      .form = -1,
                                      .key_info = -1,
                                      .entitle = &entitle,
                                      .n_entitle = entitle ? 1 : 0,
                                      .set_entitle = true};

    return keys_bsa_set(s->keys, &s->actor, &c, &s->error);
}

int service_enable(struct service *s, const struct peer *p, bool enable)
{
    return keys_bsa_enable(s->keys, &s->actor, p->id, enable, &s->error);
}

int service_add_content(struct service *s, const char *content, unsigned bits)
{
    const struct keys_content_add c = {.id = content, .bits = bits};

    return keys_content_add(s->keys, &s->actor, &c, &s->error);
}

void service_add_periods(struct service *s, const char *content, int64_t period_s, int64_t lead_s)
{
    const struct keys_content_add c = {
        .id = content, .bits = 128, .period_s = period_s, .lead_s = lead_s};

    need(keys_content_add(s->keys, &s->actor, &c, &s->error) == 0);
}

void service_rotate(struct service *s, const char *content)
{
    uint8_t id[16];

    need(keys_rotate(s->keys, &s->actor, content, id, &s->error) == 0);
}

void service_destroy(struct service *s, const uint8_t key_id[static 16])
{
    need(keys_destroy(s->keys, &s->actor, key_id, &s->error) == 0);
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void on_reply(struct keys_request *self, struct keys_reply *take_reply)
{
    struct ask *a = (struct ask *)self;

    (void)pthread_mutex_lock(&a->lock);
    a->replies++;
    a->reply = *take_reply;
    (void)pthread_cond_broadcast(&a->changed);
    (void)pthread_mutex_unlock(&a->lock);
}

static void on_known(struct keys_request *self, enum cp3_media media, const char *message_id)
{
    struct ask *a = (struct ask *)self;

    need(media == a->media);
    (void)pthread_mutex_lock(&a->lock);
    (void)snprintf(a->known, sizeof(a->known), "%s", message_id);
    a->knew++;
    (void)pthread_cond_broadcast(&a->changed);
    (void)pthread_mutex_unlock(&a->lock);
}

static void on_again(struct keys_request *self)
{
    struct ask *a = (struct ask *)self;

    if (atomic_load(&a->s->queue_is_full) || queue_push(a->s->queue, a) < 0)
        keys_abandon(a->s->keys, self);
}

struct cp3_message ask_message(const struct peer *p, const char *mid, const char *content)
{
    struct cp3_message m;

    cp3_message_init(&m, CP3_REQUEST);
    (void)snprintf(m.message_id, sizeof(m.message_id), "%s", mid);
    (void)snprintf(m.content_id, sizeof(m.content_id), "%s", content);
    (void)snprintf(m.source, sizeof(m.source), "%s", p->id);
    (void)snprintf(m.destination, sizeof(m.destination), "%s", SERVICE_BSM);
    return m;
}

struct ask *ask_send_octets(struct service *s, const struct peer *p, const char *content_type,
                            const char *octets, int64_t patience_us)
{
    struct ask *a = calloc(1, sizeof(*a));

    need(a != NULL);
    (void)pthread_mutex_init(&a->lock, NULL);
    (void)pthread_cond_init(&a->changed, NULL);
    a->s = s;
    a->peer = p;
    a->body = strdup(octets);
    need(a->body != NULL);
    (void)cp3_media_from_content_type(content_type, strlen(content_type), &a->media);
    SHA256((const uint8_t *)octets, strlen(octets), a->req);
    memcpy(a->r.cert_sha256, p->cert, sizeof(p->cert));
    (void)snprintf(a->r.addr, sizeof(a->r.addr), "192.0.2.1:1234");
    a->r.content_type = content_type;
    a->r.body = (const uint8_t *)a->body;
    a->r.body_len = strlen(a->body);
    a->r.deadline_us = clock_mono_us() + patience_us;
    a->r.reply = on_reply;
    a->r.known = on_known;
    a->r.again = on_again;
    need(queue_push(s->queue, a) == 0);
    return a;
}

struct ask *ask_send_for(struct service *s, const struct peer *p, const struct cp3_message *m,
                         int64_t patience_us)
{
    char body[CP3_WRITTEN_MAX + 1];
    size_t len;

    need(cp3_write(CP3_XML, CP3_FULL, m, body, CP3_WRITTEN_MAX, &len) == 0);
    body[len] = '\0';
    return ask_send_octets(s, p, "application/xml", body, patience_us);
}

struct ask *ask_send(struct service *s, const struct peer *p, const struct cp3_message *m,
                     enum cp3_media media)
{
    char body[CP3_WRITTEN_MAX + 1];
    size_t len;

    need(cp3_write(media, CP3_FULL, m, body, CP3_WRITTEN_MAX, &len) == 0);
    body[len] = '\0';
    return ask_send_octets(s, p, cp3_media_content_type(media), body, SERVICE_US);
}

void ask_wait(struct ask *a)
{
    (void)pthread_mutex_lock(&a->lock);
    while (a->replies == 0)
        (void)pthread_cond_wait(&a->changed, &a->lock);
    (void)pthread_mutex_unlock(&a->lock);
}

void ask_wait_known(struct ask *a)
{
    (void)pthread_mutex_lock(&a->lock);
    while (a->knew == 0)
        (void)pthread_cond_wait(&a->changed, &a->lock);
    (void)pthread_mutex_unlock(&a->lock);
}

bool ask_is_answered(struct ask *a)
{
    bool answered;

    (void)pthread_mutex_lock(&a->lock);
    answered = a->replies > 0;
    (void)pthread_mutex_unlock(&a->lock);
    return answered;
}

void ask_end(struct ask *a)
{
    ask_wait(a);
    keys_sent(a->s->keys, &a->r, true);
    need(a->replies == 1 && a->knew <= 1);
    buf_free(a->reply.body);
    free(a->body);
    (void)pthread_cond_destroy(&a->changed);
    (void)pthread_mutex_destroy(&a->lock);
    free(a);
}

struct cp3_message ask_answer(struct ask *a)
{
    struct cp3_reader *reader = NULL;
    struct cp3_error err = {.code = 0};
    struct cp3_message m;

    ask_wait(a);
    need(a->reply.body != NULL);
    need(strcmp(a->reply.media, cp3_media_content_type(a->media)) == 0);
    need(cp3_reader_new(&reader) == 0);
    need(cp3_read(reader, a->media, buf_data(a->reply.body), buf_len(a->reply.body), &m, &err) ==
         0);
    cp3_reader_free(reader);
    need(m.tag == CP3_RESPONSE);
    return m;
}

size_t ask_tek(struct ask *a, uint8_t ret_tek[static FAKE_TEK_MAX])
{
    struct cp3_message m;
    size_t n;

    ask_wait(a);
    need(a->reply.status == 200 && !a->reply.reason);
    m = ask_answer(a);
    need(m.status == CP3_STATUS_OK && strcmp(m.message_id, a->known) == 0);
    n = fake_hsm_unwrap(a->s->hsm, a->peer->kek, m.data, m.data_len, ret_tek);
    need(n > 0);
    return n;
}

void ask_refused(struct ask *a, int status, const char *reason)
{
    ask_wait(a);
    if (a->reply.status != status || !a->reply.reason || strcmp(a->reply.reason, reason) != 0) {
        (void)fprintf(stderr, "expected %d %s, found %d %s\n", status, reason, a->reply.status,
                      a->reply.reason ? a->reply.reason : "-");
        abort();
    }
    need((a->reply.retry_after_s > 0) == (status == 503));
}

struct cp3_message ask_key(struct service *s, const struct peer *p, const char *mid,
                           const char *content, uint8_t *ret_tek)
{
    struct cp3_message request = ask_message(p, mid, content), m;
    struct ask *a = ask_send(s, p, &request, CP3_XML);
    uint8_t tek[FAKE_TEK_MAX];
    size_t n = ask_tek(a, tek);

    m = ask_answer(a);
    if (ret_tek)
        memcpy(ret_tek, tek, n);
    ask_end(a);
    return m;
}

void ask_no_key(struct service *s, const struct peer *p, const char *mid, const char *content,
                const char *reason)
{
    struct cp3_message request = ask_message(p, mid, content);
    struct ask *a = ask_send(s, p, &request, CP3_XML);

    ask_refused(a, 200, reason);
    need(ask_answer(a).status == CP3_STATUS_REFUSED);
    ask_end(a);
}

/* ---- the log --------------------------------------------------------------------------------- */

struct count {
    const char *event, *key, *value, *field;
    unsigned n;
    char last[256];
};

static int nothing(void *arg, struct store_tx *tx)
{
    (void)arg;
    (void)tx;
    return 0;
}

static int count_record(void *arg, uint64_t seq, const void *octets, size_t len)
{
    AUTO(record) struct record *r = NULL;
    struct count *c = arg;
    const char *what, *value;

    need(record_parse(octets, len, &r, &what) == 0);
    if (record_violation(r)) {
        (void)fprintf(stderr, "record %llu lacks %s: %.*s\n", (unsigned long long)seq,
                      record_violation(r), (int)len, (const char *)octets);
        abort();
    }
    value = c->key ? record_get_str(r, c->key) : NULL;
    if (strcmp(record_event(r), c->event) != 0 ||
        (c->key && (!value || strcmp(value, c->value) != 0)))
        return 0;
    c->n++;
    value = c->field ? record_get_str(r, c->field) : NULL;
    (void)snprintf(c->last, sizeof(c->last), "%s", value ? value : "");
    return 0;
}

static int count_records(void *arg, struct store_tx *tx)
{
    const struct store_walk w = {.after = -1, .limit = SIZE_MAX, .arg = arg};

    return store_tx_leaf_walk(tx, &w, count_record);
}

static void count(struct service *s, struct count *c)
{
    /* What is lazy rides with this, if it fits; what does not, with the next. */
    for (int i = 0; i < 4; i++)
        need(store_call(s->store, STORE_DURABLE, nothing, NULL) == 0);
    need(store_call(s->store, STORE_READ, count_records, c) == 0);
}

unsigned service_count(struct service *s, const char *event, const char *key, const char *value)
{
    struct count c = {.event = event, .key = key, .value = value};

    count(s, &c);
    return c.n;
}

void service_wait_record(struct service *s, const char *event, const char *key, const char *value)
{
    while (service_count(s, event, key, value) == 0)
        ;
}

const char *service_last(struct service *s, const char *event, const char *field,
                         char out[static 256])
{
    struct count c = {.event = event, .field = field};

    count(s, &c);
    need(c.n > 0);
    memcpy(out, c.last, sizeof(c.last));
    return out;
}
