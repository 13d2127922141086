#include "front.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"
#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/queue.h"

struct front {
    struct keys *keys;
    struct queue *queue;
    unsigned queue_limit; /* of new requests; those that begin anew always find room */
    struct collect collect;
    struct http_route route[FRONT_ROUTES];
    _Atomic size_t under_way; /* between handle() and sent() */
    unsigned n_threads;
    pthread_t thread[FRONT_THREADS_MAX];
};

/* One request; lives from the route's handle() to its sent(). */
struct front_request {
    struct keys_request r; /* first */
    struct front *front;
    struct http_exchange *x;
    enum cp3_media media;
    char message_id[CP3_ID_MAX + 1];
    _Atomic bool known; /* media and message_id may be read by the loop */
};

/* ---- what the key service calls -------------------------------------------------------------- */

static void on_reply(struct keys_request *self, struct keys_reply *take_reply)
{
    reply_send(((struct front_request *)self)->x, take_reply);
}

static void on_known(struct keys_request *self, enum cp3_media media, const char *message_id)
{
    struct front_request *fr = (struct front_request *)self;

    fr->media = media;
    (void)snprintf(fr->message_id, sizeof(fr->message_id), "%s", message_id);
    atomic_store(&fr->known, true);
}

static void on_again(struct keys_request *self)
{
    struct front_request *fr = (struct front_request *)self;

    if (queue_push(fr->front->queue, fr) < 0)
        keys_abandon(fr->front->keys, self);
}

/* ---- what HTTP calls ------------------------------------------------------------------------- */

static void busy(struct http_exchange *x, const struct front_request *fr)
{
    struct keys_reply reply;

    keys_busy_reply(fr && atomic_load(&fr->known) ? fr->media : CP3_XML,
                    fr && atomic_load(&fr->known) ? fr->message_id : NULL, &reply);
    reply_send(x, &reply);
}

static struct front_request *request_new(struct front *f, struct http_exchange *x)
{
    struct front_request *fr = calloc(1, sizeof(*fr));
    const struct http_peer *peer = http_exchange_peer(x);

    if (!fr)
        return NULL;
    fr->front = f;
    fr->x = x;
    memcpy(fr->r.cert_sha256, peer->cert_sha256, sizeof(fr->r.cert_sha256));
    (void)snprintf(fr->r.addr, sizeof(fr->r.addr), "%s", peer->addr);
    fr->r.content_type = http_exchange_media(x);
    fr->r.body = http_exchange_body(x);
    fr->r.body_len = http_exchange_body_len(x);
    fr->r.deadline_us = http_exchange_deadline_us(x);
    fr->r.reply = on_reply;
    fr->r.known = on_known;
    fr->r.again = on_again;
    atomic_fetch_add(&f->under_way, 1);
    return fr;
}

static void on_handle(void *arg, struct http_exchange *take_x)
{
    struct front *f = arg;
    struct front_request *fr = request_new(f, take_x);

    http_exchange_set_note(take_x, fr, NULL);
    if (!fr || queue_len(f->queue) >= f->queue_limit || queue_push(f->queue, fr) < 0)
        busy(take_x, fr);
}

static void on_timed_out(void *arg, struct http_exchange *x, struct http_reply *ret_reply)
{
    const struct front_request *fr = http_exchange_note(x);
    bool known = fr && atomic_load(&fr->known);
    struct keys_reply k;

    (void)arg;
    keys_busy_reply(known ? fr->media : CP3_XML, known ? fr->message_id : NULL, &k);
    *ret_reply = reply_of(&k);
}

static void on_sent(void *arg, struct http_exchange *x, bool whole)
{
    struct front *f = arg;
    struct front_request *fr = http_exchange_note(x);

    if (!fr)
        return;
    keys_sent(f->keys, &fr->r, whole);
    free(fr);
    atomic_fetch_sub(&f->under_way, 1);
}

static void on_wait(void *arg, bool begins)
{
    struct front *f = arg;

    if (begins)
        queue_block(f->queue);
    else
        queue_unblock(f->queue);
}

/* ---- the threads ----------------------------------------------------------------------------- */

static void *run(void *arg)
{
    struct front *f = arg;
    struct cp3_reader *reader = NULL;
    void *entry;

    (void)pthread_setname_np(pthread_self(), "request");
    if (cp3_reader_new(&reader) < 0) {
        log_event(LOG_ERROR, "front", "no-memory-for-a-reader");
        return NULL;
    }
    while (queue_pop(f->queue, INT64_MAX, &entry) == 0) {
        keys_handle(f->keys, reader, entry);
        queue_leave(f->queue);
    }
    cp3_reader_free(reader);
    return NULL;
}

static int start_threads(struct front *f, unsigned threads)
{
    pthread_attr_t attr;
    int r = 0;

    if (pthread_attr_init(&attr) != 0)
        return TEKD_ENOMEM;
    (void)pthread_attr_setstacksize(&attr, FRONT_STACK);
    for (unsigned i = 0; i < threads && r == 0; i++) {
        r = pthread_create(&f->thread[i], &attr, run, f) == 0 ? 0 : TEKD_ENOMEM;
        f->n_threads += r == 0;
    }
    (void)pthread_attr_destroy(&attr);
    return r;
}

static void set_routes(struct front *f)
{
    f->route[0] = (struct http_route){.path = "/cp3",
                                      .method = "POST",
                                      .handle = on_handle,
                                      .timed_out = on_timed_out,
                                      .sent = on_sent,
                                      .arg = f};
    f->route[1] = collect_route(&f->collect);
}

int front_start(const struct front_options *o, struct front **ret_front)
{
    unsigned threads = o->threads;
    struct front *f;
    int r;

    if (threads == 0 || threads > FRONT_THREADS_MAX)
        return TEKD_EINVAL;
    f = calloc(1, sizeof(*f));
    if (!f)
        return TEKD_ENOMEM;
    f->keys = o->keys;
    f->collect = (struct collect){.keys = o->keys, .push = o->push};
    f->queue_limit = o->queue;
    set_routes(f);
    /* As many again as new ones: a request that begins anew was taken off the queue before. */
    r = queue_new((size_t)o->queue * 2 + FRONT_THREADS_MAX, &f->queue);
    if (r == 0) {
        queue_limit(f->queue, FRONT_RUNNING);
        keys_on_wait(o->keys, on_wait, f);
        r = start_threads(f, threads);
    }
    if (r < 0) {
        front_stop(f);
        return r;
    }
    *ret_front = f;
    return 0;
}

const struct http_route *front_routes(struct front *f)
{
    return f->route;
}

bool front_admits(void *front, const struct http_peer *peer, struct http_reply *ret_refusal)
{
    const struct front *f = front;
    struct keys_collector who;
    struct keys_asker asker;
    struct keys_reply refusal;

    memcpy(asker.cert_sha256, peer->cert_sha256, sizeof(asker.cert_sha256));
    (void)snprintf(asker.addr, sizeof(asker.addr), "%s", peer->addr);
    if (keys_collector(f->keys, &asker, &who, &refusal) == 0)
        return true;
    *ret_refusal = reply_of(&refusal);
    return false;
}

void front_stop(struct front *f)
{
    if (!f)
        return;
    if (f->queue)
        queue_close(f->queue);
    for (unsigned i = 0; i < f->n_threads; i++)
        (void)pthread_join(f->thread[i], NULL);
    /* The store may still end a request that HTTP has not waited for; it finds the queue closed. */
    if (atomic_load(&f->under_way) > 0 || atomic_load(&f->collect.under_way) > 0)
        return;
    queue_free(f->queue);
    free(f);
}
