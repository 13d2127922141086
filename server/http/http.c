#include "internal.h"

#include <errno.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/net.h"

/* ---- sockets --------------------------------------------------------------------------------- */

int http_listen_open(const struct http_listen *l, int *ret_fd, uint16_t *ret_port)
{
    int r = net_listen(l->address, l->port, ret_fd, ret_port);

    if (r == TEKD_EINVAL)
        log_event(LOG_ERROR, "http", "bad-address", LOG_STR("address", l->address));
    else if (r < 0)
        log_event(LOG_ERROR, "http", "cannot-listen", LOG_STR("address", l->address),
                  LOG_INT("port", l->port), LOG_STR("error", strerror(errno)));
    return r;
}

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)close(fds[i]);
}

static int open_all(struct http *h, const struct http_options *o, int *fds)
{
    for (size_t i = 0; i < o->n_listen; i++) {
        int r = http_listen_open(&o->listen[i], &fds[i], &h->port[i]);
        if (r < 0) {
            close_all(fds, i);
            return r;
        }
        log_event(LOG_INFO, "http", "listening", LOG_STR("address", o->listen[i].address),
                  LOG_INT("port", h->port[i]));
    }
    return 0;
}

/* ---- starting -------------------------------------------------------------------------------- */

static void free_http(struct http *h)
{
    tls_unref(h->tls);
    free(h->certificate);
    free(h->key_file);
    free(h->client_ca);
    free(h->crl);
    free(h->spki);
    if (h->configured)
        h2o_config_dispose(&h->conf);
    (void)pthread_mutex_destroy(&h->lock);
    free(h);
}

static int dup_if(const char *s, char **ret)
{
    if (s)
        *ret = strdup(s);
    return s && !*ret ? TEKD_ENOMEM : 0;
}

static int copy_paths(struct http *h, const struct http_files *f)
{
    int r = dup_if(f->certificate, &h->certificate);

    if (r == 0)
        r = dup_if(f->key_file, &h->key_file);
    if (r == 0)
        r = dup_if(f->client_ca, &h->client_ca);
    return r < 0 ? r : dup_if(f->crl, &h->crl);
}

static int copy_signer(struct http *h, const struct http_signer *signer)
{
    h->spki = malloc(signer->spki_len);
    if (!h->spki)
        return TEKD_ENOMEM;
    memcpy(h->spki, signer->spki, signer->spki_len);
    h->signer = *signer;
    h->signer.spki = h->spki;
    return 0;
}

/* What was copied. */
static int read_files(const struct http *h, uint64_t generation, struct tls **ret_tls)
{
    const struct http_files f = {.certificate = h->certificate,
                                 .key_file = h->key_file,
                                 .signer = h->spki ? &h->signer : NULL,
                                 .client_ca = h->client_ca,
                                 .crl = h->crl};

    return tls_new(&f, generation, ret_tls);
}

/* Routes with equally long deadlines are of one class: their exchanges stand in one list. */
static unsigned class_of(struct http *h, int deadline_ms)
{
    unsigned i = 0;

    while (i < h->n_classes && h->deadline_ms[i] != deadline_ms)
        i++;
    if (i == h->n_classes)
        h->deadline_ms[h->n_classes++] = deadline_ms;
    return i;
}

static void copy_routes(struct http *h, const struct http_options *o)
{
    h->n_routes = o->n_routes;
    memcpy(h->route, o->routes, o->n_routes * sizeof(o->routes[0]));
    for (size_t i = 0; i < h->n_routes; i++)
        h->route_class[i] = class_of(h, o->routes[i].deadline_ms ? o->routes[i].deadline_ms
                                                                 : o->request_deadline_ms);
}

static int copy_options(struct http *h, const struct http_options *o)
{
    int r = copy_paths(h, &o->files);

    if (r == 0 && o->files.signer)
        r = copy_signer(h, o->files.signer);
    if (r < 0)
        return r;
    h->connections_max = o->connections;
    h->request_timeout_ms = o->request_timeout_ms;
    h->admits = o->admits;
    h->admits_arg = o->admits_arg;
    h->refused = o->refused;
    h->refused_arg = o->refused_arg;
    copy_routes(h, o);
    h->n_loops = o->loops;
    return 0;
}

/* Ours are all paths; a body that is too big is answered by h2o before it has one: of the fallback.
 * What it says of a broken request it writes past all of that. */
static void configure_path(h2o_pathconf_t *path)
{
    h2o_create_handler(path, sizeof(h2o_handler_t))->on_req = exchange_on_request;
    exchange_filter(path);
}

/* HTTP/1.1 only: rapid reset (CVE-2023-44487) is open in h2o 2.2's HTTP/2. */
static void configure(struct http *h, const struct http_options *o)
{
    h2o_hostconf_t *host;
    h2o_pathconf_t *path;

    h2o_config_init(&h->conf);
    h->configured = true;
    h->conf.server_name = h2o_iovec_init(H2O_STRLIT("tekd"));
    h->conf.http1.req_timeout = (uint64_t)o->request_timeout_ms;
    h->conf.http1.upgrade_to_http2 = 0;
    h->conf.max_request_entity_size = HTTP_BODY_MAX;
    host = h2o_config_register_host(&h->conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    path = h2o_config_register_path(host, "/", 0);
    configure_path(path);
    configure_path(&host->fallback_path);
}

static int start_loops(struct http *h, const int *fds, size_t n)
{
    bool apart = h->spki != NULL; /* a signature blocks: handshakes have their own loop */
    int r = 0;

    for (size_t i = 0; i < h->n_loops && r == 0; i++)
        r = loop_start(&h->loop[i], h, true, fds, apart ? 0 : n);
    if (r == 0 && apart) {
        h->handshaker = &h->handshake_loop;
        r = loop_start(h->handshaker, h, false, fds, n);
    }
    return r;
}

static bool is_sane(const struct http_options *o)
{
    for (size_t i = 0; i < o->n_routes && i < HTTP_ROUTES_MAX; i++) {
        if (strlen(o->routes[i].method) > HTTP_METHOD_MAX)
            return false;
    }
    return o->n_listen > 0 && o->n_listen <= HTTP_LISTEN_MAX && o->loops > 0 &&
           o->loops <= HTTP_LOOPS_MAX && o->n_routes <= HTTP_ROUTES_MAX;
}

int http_check(const struct http_files *f, struct http_ends *ret_ends)
{
    struct tls *t;
    int r = tls_new(f, 1, &t);

    if (r < 0)
        return r;
    *ret_ends = t->ends;
    tls_unref(t);
    return 0;
}

int http_start(const struct http_options *o, struct http **ret_http)
{
    int fds[HTTP_LISTEN_MAX] = {0};
    struct http *h;
    int r;

    if (!is_sane(o))
        return TEKD_EINVAL;
    h = calloc(1, sizeof(*h));
    if (!h)
        return TEKD_ENOMEM;
    (void)pthread_mutex_init(&h->lock, NULL);
    h->generation = 1;
    r = copy_options(h, o);
    if (r == 0)
        r = read_files(h, h->generation, &h->tls);
    if (r == 0)
        r = open_all(h, o, fds);
    if (r < 0) {
        free_http(h);
        return r;
    }
    configure(h, o);
    r = start_loops(h, fds, o->n_listen);
    close_all(fds, o->n_listen);
    if (r < 0) {
        http_stop(h);
        return r;
    }
    *ret_http = h;
    return 0;
}

uint16_t http_port(const struct http *h, size_t listen_index)
{
    return h->port[listen_index];
}

struct tls *http_tls(struct http *h)
{
    struct tls *t;

    (void)pthread_mutex_lock(&h->lock);
    t = tls_ref(h->tls);
    (void)pthread_mutex_unlock(&h->lock);
    return t;
}

struct http_loop *http_next_loop(struct http *h)
{
    return &h->loop[atomic_fetch_add(&h->next_loop, 1) % h->n_loops];
}

int http_reload(struct http *h)
{
    struct tls *fresh, *old;
    int r = read_files(h, atomic_load(&h->generation) + 1, &fresh);

    if (r < 0) {
        log_event(LOG_ERROR, "tls", "reload-refused", LOG_STR("kept", "the old files"));
        return TEKD_EINVAL;
    }
    (void)pthread_mutex_lock(&h->lock);
    old = h->tls;
    h->tls = fresh;
    atomic_store(&h->generation, fresh->generation);
    (void)pthread_mutex_unlock(&h->lock);
    tls_unref(old);
    log_event(LOG_INFO, "tls", "reloaded", LOG_INT("generation", fresh->generation));
    return 0;
}

/* The handshaker ends first: what it still hands over is served. */
void http_drain(struct http *h, int64_t cut_us)
{
    if (!h || h->draining)
        return;
    h->draining = true;
    h->cut_us = cut_us;
    if (h->handshaker) {
        loop_stop(h->handshaker);
        h->in_use = !loop_join(h->handshaker);
    }
    for (size_t i = 0; i < h->n_loops; i++)
        loop_stop(&h->loop[i]);
}

/* What an exchange still needs, whose answer did not come in time, is left to the end of the
 * process. */
void http_stop(struct http *h)
{
    if (!h)
        return;
    http_drain(h, clock_mono_us() + HTTP_STOP_US);
    for (size_t i = 0; i < h->n_loops; i++)
        h->in_use = !loop_join(&h->loop[i]) || h->in_use;
    if (!h->in_use)
        free_http(h);
}

void http_status_get(struct http *h, struct http_status *ret_status)
{
    struct tls *t = http_tls(h);

    *ret_status = (struct http_status){
        .connections = atomic_load(&h->connections),
        .accepted = atomic_load(&h->accepted),
        .handshakes_failed = atomic_load(&h->handshakes_failed),
        .requests = atomic_load(&h->requests),
        .replies = atomic_load(&h->replies),
        .dropped = atomic_load(&h->dropped),
        .timed_out = atomic_load(&h->timed_out),
        .ends = t->ends,
    };
    tls_unref(t);
}
