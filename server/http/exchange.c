/*
 * A request and its answer.  An exchange has two holders: the loop, until h2o disposes of the
 * request, and whoever handles it, until http_reply(); it ends when both are through with it.
 * Everything here runs on the loop's thread but http_exchange_*() and http_reply().
 *
 * Deadlines are of the monotonic clock; h2o's own timers stand still when UTC is set back.
 */
#include "internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define PROBLEM_JSON "application/problem+json"
#define ALLOW_MAX    ((size_t)HTTP_ROUTES_MAX * (HTTP_METHOD_MAX + 2)) /* with ", " between two */

/* ---- sending --------------------------------------------------------------------------------- */

struct status_text {
    int status;
    const char *text;
};

static const struct status_text texts[] = {
    {200, "OK"},
    {204, "No Content"},
    {400, "Bad Request"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {409, "Conflict"},
    {410, "Gone"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {500, "Internal Server Error"},
    {503, "Service Unavailable"},
};

static const char *text_of(int status)
{
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Unknown";
}

static void add_header(h2o_req_t *req, const char *name, const char *value)
{
    h2o_iovec_t copy = h2o_strdup(&req->pool, value, SIZE_MAX);

    (void)h2o_add_header_by_str(&req->pool, &req->res.headers, name, strlen(name), 1, NULL,
                                copy.base, copy.len);
}

static void on_answer(h2o_filter_t *self, h2o_req_t *req, h2o_ostream_t **slot)
{
    (void)self;
    add_header(req, "cache-control", "no-store");
    h2o_setup_next_ostream(req, slot);
}

void exchange_filter(h2o_pathconf_t *path)
{
    h2o_create_filter(path, sizeof(h2o_filter_t))->on_setup_ostream = on_answer;
}

/* content_length has to be set before the response is started, or h2o adds chunked to it. */
static void fill_response(h2o_req_t *req, const struct http_reply *reply)
{
    char seconds[16];

    req->res.status = reply->status;
    req->res.reason = text_of(reply->status);
    if (reply->status != 204)
        req->res.content_length = reply->body ? buf_len(reply->body) : 0;
    if (reply->media && reply->body)
        add_header(req, "content-type", reply->media);
    if (reply->reason)
        add_header(req, "cp3-reason", reply->reason);
    if (reply->correlation[0])
        add_header(req, "cp3-correlation", reply->correlation);
    if (reply->allow)
        add_header(req, "allow", reply->allow);
    if (reply->retry_after_s) {
        (void)snprintf(seconds, sizeof(seconds), "%d", reply->retry_after_s);
        add_header(req, "retry-after", seconds);
    }
    if (reply->close)
        req->http1_is_persistent = 0;
}

static h2o_iovec_t body_of(const struct http_reply *reply)
{
    return reply->body ? h2o_iovec_init(buf_data(reply->body), buf_len(reply->body))
                       : h2o_iovec_init(NULL, 0);
}

/* Called once all octets given before went to the socket without an error. */
static void on_proceed(h2o_generator_t *generator, h2o_req_t *req)
{
    struct http_exchange *x = H2O_STRUCT_FROM_MEMBER(struct http_exchange, generator, generator);

    x->whole = true;
    h2o_send(req, NULL, 0, H2O_SEND_STATE_FINAL);
}

static void on_stop(h2o_generator_t *generator, h2o_req_t *req)
{
    (void)generator;
    (void)req;
}

static void link_deadline(struct http_exchange *x, unsigned class)
{
    struct deadlines *d = &x->loop->deadlines[class];

    x->deadline_us = clock_mono_us() + (int64_t)x->loop->http->deadline_ms[class] * 1000;
    x->deadlines = d;
    x->prev = d->newest;
    if (x->prev)
        x->prev->next = x;
    else
        d->oldest = x;
    d->newest = x;
}

static void unlink_deadline(struct http_exchange *x)
{
    struct deadlines *d = x->deadlines;

    if (!d)
        return;
    if (x->prev)
        x->prev->next = x->next;
    else
        d->oldest = x->next;
    if (x->next)
        x->next->prev = x->prev;
    else
        d->newest = x->prev;
    x->prev = x->next = NULL;
    x->deadlines = NULL;
}

static void send_answer(struct http_exchange *x, struct http_reply *reply)
{
    h2o_iovec_t body = body_of(reply);

    x->answered = true;
    unlink_deadline(x);
    gone_unwatch(x);
    atomic_fetch_add(&x->loop->http->replies, 1);
    if (atomic_load(&x->loop->stop))
        reply->close = true;
    fill_response(x->req, reply);
    x->generator = (h2o_generator_t){.proceed = on_proceed, .stop = on_stop};
    x->sending = TAKE(reply->body);
    h2o_start_response(x->req, &x->generator);
    h2o_send(x->req, &body, body.len > 0, H2O_SEND_STATE_IN_PROGRESS);
}

/* application/problem+json (RFC 9457); without memory there is no body. */
static void add_problem(struct http_reply *reply, const char *title)
{
    AUTO(buf) struct buf *body = NULL;

    if (buf_new(512, &body) < 0 ||
        buf_printf(body, "{\"title\":\"%s\",\"status\":%d}", title, reply->status) < 0)
        return;
    reply->media = PROBLEM_JSON;
    reply->body = TAKE(body);
}

void exchange_refuse(h2o_req_t *req, const struct http_reply *reply)
{
    static h2o_generator_t nothing_more;
    h2o_iovec_t body = body_of(reply);

    fill_response(req, reply);
    body = h2o_strdup(&req->pool, body.base ? body.base : "", body.len);
    h2o_start_response(req, &nothing_more);
    h2o_send(req, &body, body.len > 0, H2O_SEND_STATE_FINAL);
}

/* ---- who is not accepted any more ------------------------------------------------------------ */

static const struct http_reply unwelcome = {.status = 403, .close = true};
#define UNWELCOME_TITLE "this certificate is not accepted any more"

/* Whether a handshake of this peer would succeed now; if not the caller refuses it. */
static bool is_welcome(struct conn *c)
{
    const char *why = conn_recheck(c);

    if (!why)
        return true;
    log_event(LOG_INFO, "tls", "not-accepted-any-more", LOG_STR("cause", why),
              LOG_STR("addr", c->peer.addr));
    if (c->home->http->refused)
        c->home->http->refused(c->home->http->refused_arg, why, c->peer.addr);
    return false;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void exchange_free(struct http_exchange *x)
{
    void *note = atomic_load(&x->note);

    if (note && x->free_note)
        x->free_note(note);
    buf_free(x->sending);
    buf_free(x->reply.body);
    free(x->media);
    free(x->query);
    free(x->body);
    free(x);
}

static void end_if_both_are_through(struct http_exchange *x)
{
    if (x->req || !x->replied)
        return;
    x->loop->exchanges--;
    if (!x->whole || !x->real)
        atomic_fetch_add(&x->loop->http->dropped, 1);
    if (x->route->sent)
        x->route->sent(x->route->arg, x, x->whole && x->real);
    exchange_free(x);
}

/* h2o disposes of the request: answered, or its peer has gone. */
static void on_dispose(void *p)
{
    struct http_exchange *x = *(struct http_exchange **)p;

    unlink_deadline(x);
    gone_unwatch(x);
    x->req = NULL;
    end_if_both_are_through(x);
}

/* A peer that was revoked while it waited gets no key either. */
static void send_reply(struct http_exchange *x)
{
    struct http_reply refusal = unwelcome;

    x->real = is_welcome(conn_of(x->req));
    if (!x->real)
        add_problem(&refusal, UNWELCOME_TITLE);
    send_answer(x, x->real ? &x->reply : &refusal);
}

void exchange_replied(struct http_exchange *x)
{
    x->replied = true;
    if (x->req && !x->answered)
        send_reply(x); /* x may be gone */
    else
        end_if_both_are_through(x);
}

/* Nobody reads this answer; that it is the last of its connection is what ends that. */
void exchange_gone(struct http_exchange *x)
{
    struct http_reply nothing = {.status = 503, .close = true};

    x->route->gone(x->route->arg, x);
    send_answer(x, &nothing);
}

static void time_out(struct http_exchange *x)
{
    struct http_reply reply = {.status = 503, .retry_after_s = 1};

    atomic_fetch_add(&x->loop->http->timed_out, 1);
    x->route->timed_out(x->route->arg, x, &reply);
    send_answer(x, &reply);
}

bool exchange_expire(struct http_loop *l)
{
    bool any = false;

    for (size_t i = 0; i < l->http->n_classes; i++) {
        const struct deadlines *d = &l->deadlines[i];
        while (d->oldest && d->oldest->deadline_us <= clock_mono_us()) {
            time_out(d->oldest);
            any = true;
        }
    }
    return any;
}

/* Of all classes; INT64_MAX if nothing waits. */
static int64_t next_deadline_us(const struct http_loop *l)
{
    int64_t next = INT64_MAX;

    for (size_t i = 0; i < l->http->n_classes; i++) {
        const struct http_exchange *x = l->deadlines[i].oldest;
        if (x && x->deadline_us < next)
            next = x->deadline_us;
    }
    return next;
}

int exchange_wait_ms(const struct http_loop *l, int max)
{
    int64_t next = next_deadline_us(l), left_us;

    if (next == INT64_MAX)
        return max;
    left_us = next - clock_mono_us();
    if (left_us <= 0)
        return 0;
    return left_us / 1000 < max ? (int)(left_us / 1000) + 1 : max;
}

/* ---- a request ------------------------------------------------------------------------------- */

static void refuse(h2o_req_t *req, struct http_reply reply, const char *title)
{
    add_problem(&reply, title);
    exchange_refuse(req, &reply);
    buf_free(reply.body);
}

static char *content_type(h2o_req_t *req)
{
    ssize_t i = h2o_find_header(&req->headers, H2O_TOKEN_CONTENT_TYPE, -1);

    return i < 0 ? strdup("")
                 : strndup(req->headers.entries[i].value.base, req->headers.entries[i].value.len);
}

/* h2o gives the target as it was sent; query_at is where the "?" stands. */
static char *query_of(h2o_req_t *req)
{
    return req->query_at == SIZE_MAX
               ? strdup("")
               : strndup(req->path.base + req->query_at + 1, req->path.len - req->query_at - 1);
}

static struct http_exchange *exchange_new(struct http_loop *l, h2o_req_t *req, const struct conn *c)
{
    struct http_exchange *x = calloc(1, sizeof(*x));
    struct http_exchange **slot;

    if (!x)
        return NULL;
    x->media = content_type(req);
    x->query = query_of(req);
    x->body_len = req->entity.base ? req->entity.len : 0;
    x->body = malloc(x->body_len + 1);
    if (!x->media || !x->query || !x->body) {
        exchange_free(x);
        return NULL;
    }
    if (x->body_len)
        memcpy(x->body, req->entity.base, x->body_len);
    x->loop = l;
    x->watched_fd = -1;
    x->req = req;
    x->peer = c->peer;
    slot = h2o_mem_alloc_shared(&req->pool, sizeof(struct http_exchange *), on_dispose);
    *slot = x;
    l->exchanges++;
    return x;
}

/* The deadline runs from here: the last octet of the request was read. */
static void start(struct http_exchange *x, const struct http_route *route, const struct conn *c)
{
    const struct http *h = x->loop->http;

    x->route = route;
    link_deadline(x, h->route_class[route - h->route]);
    if (route->gone)
        gone_watch(x, h2o_socket_get_fd(c->sock));
    route->handle(route->arg, x);
}

static bool path_is(h2o_req_t *req, const char *path)
{
    size_t len = req->query_at == SIZE_MAX ? req->path.len : req->query_at;

    return len == strlen(path) && memcmp(req->path.base, path, len) == 0;
}

/* The route, or NULL; allow gets the methods that the path is known for, if any. */
static const struct http_route *route_of(const struct http *h, h2o_req_t *req,
                                         char allow[static ALLOW_MAX])
{
    size_t at = 0;

    allow[0] = '\0';
    for (size_t i = 0; i < h->n_routes; i++) {
        const struct http_route *route = &h->route[i];
        if (!path_is(req, route->path))
            continue;
        if (h2o_memis(req->method.base, req->method.len, route->method, strlen(route->method)))
            return route;
        at += (size_t)snprintf(allow + at, ALLOW_MAX - at, at > 0 ? ", %s" : "%s", route->method);
        assert(at < ALLOW_MAX);
    }
    return NULL;
}

/* Who the peer is comes first, as it does in the handlers of the routes. */
static void refuse_path(h2o_req_t *req, const struct conn *c, const char *allow)
{
    const struct http *h = c->home->http;
    struct http_reply stranger = {.status = 403};

    if (h->admits && !h->admits(h->admits_arg, &c->peer, &stranger)) {
        exchange_refuse(req, &stranger);
        buf_free(stranger.body);
    } else if (*allow) {
        refuse(req, (struct http_reply){.status = 405, .allow = allow},
               "this path takes another method");
    } else {
        refuse(req, (struct http_reply){.status = 404}, "no such path");
    }
}

int exchange_on_request(h2o_handler_t *self, h2o_req_t *req)
{
    struct conn *c = conn_of(req);
    struct http *h = c->home->http;
    const struct http_route *route;
    struct http_exchange *x;
    char allow[ALLOW_MAX];

    (void)self;
    atomic_fetch_add(&h->requests, 1);
    if (!is_welcome(c)) {
        refuse(req, unwelcome, UNWELCOME_TITLE);
        return 0;
    }
    route = route_of(h, req, allow);
    if (!route) {
        refuse_path(req, c, allow);
        return 0;
    }
    x = exchange_new(c->home, req, c);
    if (!x)
        refuse(req, (struct http_reply){.status = 503, .retry_after_s = 1}, "out of memory");
    else
        start(x, route, c);
    return 0;
}

/* ---- for the holder -------------------------------------------------------------------------- */

const struct http_peer *http_exchange_peer(const struct http_exchange *x)
{
    return &x->peer;
}

const char *http_exchange_media(const struct http_exchange *x)
{
    return x->media;
}

const char *http_exchange_query(const struct http_exchange *x)
{
    return x->query;
}

const uint8_t *http_exchange_body(const struct http_exchange *x)
{
    return x->body;
}

size_t http_exchange_body_len(const struct http_exchange *x)
{
    return x->body_len;
}

int64_t http_exchange_deadline_us(const struct http_exchange *x)
{
    return x->deadline_us;
}

void http_exchange_set_note(struct http_exchange *x, void *note, void (*free_note)(void *))
{
    x->free_note = free_note;
    atomic_store(&x->note, note);
}

void *http_exchange_note(struct http_exchange *x)
{
    return atomic_load(&x->note);
}

void http_reply(struct http_exchange *take_x, const struct http_reply *reply)
{
    take_x->reply = *reply;
    h2o_multithread_send_message(&take_x->loop->receiver[RECEIVE_REPLY], &take_x->message);
}
