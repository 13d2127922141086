/*
 * Many BSAs in one process and one thread: each has a port and a certificate of its own and answers
 * every Key Delivery at once with a full confirmation, Status 0.  Nothing is unwrapped: what is
 * measured is tekd.  Prints {"ports": [...]} when all listen; at SIGTERM what came:
 *
 *     {"connections": N, "deliveries": N, "broken": N, "cpu_seconds": S}
 *
 * Octets on its standard input hold the answers back and let them go, and each is answered by a
 * line when it is done:
 *
 *     h   deliveries are taken from now on, handshakes made, and nothing is answered
 *     g   all that was taken is answered, and what comes from now on, at once
 *
 * Ends with its parent as well, or after --seconds.
 */
#define H2O_USE_LIBUV 0

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <h2o.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "measure.h"
#include "opts.h"

#define BSAS_MAX    4096
#define BACKLOG     64
#define PATH_OCTETS 4096
#define ANSWER_MAX  4096 /* a confirmation: fields of 255, 1024, 255, 255 octets */
#define CONFIRMATION                                                                               \
    "<KeyDeliveryConfirmation xmlns=\"urn:x-bcast:spcp:cp3:1.0\"><Tag>4</Tag>"                     \
    "<MessageID>%.*s</MessageID><ContentID>%.*s</ContentID><Destination>%.*s</Destination>"        \
    "<Source>%.*s</Source><Status>0</Status></KeyDeliveryConfirmation>"

struct settings {
    const char *ca, *prefix;
    uint64_t count, seconds, first_port;
};

/* A delivery whose answer is held back; in its request's pool, and out of the list when that goes.
 */
struct held {
    h2o_linklist_t link;
    h2o_req_t *req;
};

struct bsas {
    h2o_globalconf_t config;
    h2o_context_t context;
    h2o_accept_ctx_t accept[BSAS_MAX];
    uint64_t first_port, connections, deliveries, broken;
    bool holds;
    h2o_linklist_t held;
};

/* The handler h2o calls knows the BSAs by standing in front of this pointer. */
struct bsas_handler {
    h2o_handler_t super;
    struct bsas *bsas;
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int signo)
{
    (void)signo;
    stop_asked = 1;
}

/* ---- deliveries ------------------------------------------------------------------------------ */

/* The text of the element; tekd writes no attributes and no white space into them. */
static h2o_iovec_t element(h2o_iovec_t body, const char *name)
{
    const h2o_iovec_t none = {.base = NULL, .len = 0};
    char begin[32], end[32];
    const char *from, *to;

    (void)snprintf(begin, sizeof(begin), "<%s>", name);
    (void)snprintf(end, sizeof(end), "</%s>", name);
    from = memmem(body.base, body.len, begin, strlen(begin));
    if (from == NULL)
        return none;
    from += strlen(begin);
    to = memmem(from, body.len - (size_t)(from - body.base), end, strlen(end));
    if (to == NULL)
        return none;
    return h2o_iovec_init(from, (size_t)(to - from));
}

/* The confirmation, in the request's pool; base NULL when it is no delivery. */
static h2o_iovec_t confirm(h2o_req_t *req)
{
    h2o_iovec_t mid = element(req->entity, "MessageID"),
                content = element(req->entity, "ContentID");
    h2o_iovec_t to = element(req->entity, "Source"), from = element(req->entity, "Destination");
    h2o_iovec_t answer = {.base = NULL, .len = 0};
    int len;

    if (mid.base == NULL || content.base == NULL || to.base == NULL || from.base == NULL ||
        element(req->entity, "Data").base == NULL)
        return answer;
    answer.base = h2o_mem_alloc_pool(&req->pool, ANSWER_MAX);
    len = snprintf(answer.base, ANSWER_MAX, CONFIRMATION, (int)mid.len, mid.base, (int)content.len,
                   content.base, (int)to.len, to.base, (int)from.len, from.base);
    assert(len > 0 && len < ANSWER_MAX);
    answer.len = (size_t)len;
    return answer;
}

static void answer(struct bsas *b, h2o_req_t *req)
{
    static h2o_generator_t generator = {NULL, NULL};
    h2o_iovec_t body = confirm(req);

    if (body.base == NULL)
        b->broken++;
    else
        b->deliveries++;
    req->res.status = body.base == NULL ? 400 : 200;
    req->res.reason = body.base == NULL ? "Bad Request" : "OK";
    /* Before h2o_start_response(): later, HTTP/1.1 answers would be chunked as well. */
    req->res.content_length = body.len;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
                   H2O_STRLIT("application/xml"));
    h2o_start_response(req, &generator);
    h2o_send(req, &body, 1, H2O_SEND_STATE_FINAL);
}

static void held_gone(void *arg)
{
    struct held *h = arg;

    if (h2o_linklist_is_linked(&h->link))
        h2o_linklist_unlink(&h->link);
}

static int take(h2o_handler_t *self, h2o_req_t *req)
{
    struct bsas *b = ((struct bsas_handler *)self)->bsas;
    struct held *h;

    if (!b->holds) {
        answer(b, req);
        return 0;
    }
    h = h2o_mem_alloc_shared(&req->pool, sizeof(*h), held_gone);
    *h = (struct held){.req = req};
    h2o_linklist_insert(&b->held, &h->link);
    return 0;
}

/* ---- holding them back ----------------------------------------------------------------------- */

static void release(struct bsas *b)
{
    b->holds = false;
    while (!h2o_linklist_is_empty(&b->held)) {
        struct held *h = H2O_STRUCT_FROM_MEMBER(struct held, link, b->held.next);

        assert(h2o_linklist_is_linked(&h->link));
        h2o_linklist_unlink(&h->link);
        answer(b, h->req);
    }
}

static void on_input(h2o_socket_t *sock, const char *err)
{
    struct bsas *b = sock->data;

    if (err != NULL) { /* whoever started this has no more to say */
        h2o_socket_read_stop(sock);
        return;
    }
    for (size_t i = 0; i < sock->input->size; i++) {
        bool hold = sock->input->bytes[i] == 'h';

        if (hold)
            b->holds = true;
        else
            release(b);
        (void)measure_print(json_pack("{sb}", "holds", hold));
    }
    h2o_buffer_consume(&sock->input, sock->input->size);
}

static void read_input(struct bsas *b)
{
    h2o_socket_t *sock = h2o_evloop_socket_create(b->context.loop, STDIN_FILENO, 0);

    sock->data = b;
    h2o_socket_read_start(sock, on_input);
}

/* ---- listening ------------------------------------------------------------------------------- */

static int ssl_failed(const char *call, const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", call, what, ERR_reason_error_string(ERR_peek_last_error()));
    ERR_clear_error();
    return -1;
}

/* One store of CAs for all contexts. */
static X509_STORE *load_ca(const char *ca)
{
    X509_STORE *store = X509_STORE_new();

    assert(store != NULL);
    if (X509_STORE_load_file(store, ca) == 1)
        return store;
    (void)ssl_failed("X509_STORE_load_file", ca);
    X509_STORE_free(store);
    return NULL;
}

static SSL_CTX *ssl_new(const struct settings *set, X509_STORE *store, uint64_t number)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    char cert[PATH_OCTETS], key[PATH_OCTETS];
    int r = 0;

    assert(ctx != NULL);
    (void)snprintf(cert, sizeof(cert), "%s%u.crt", set->prefix, (unsigned)number);
    (void)snprintf(key, sizeof(key), "%s%u.key", set->prefix, (unsigned)number);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set1_cert_store(ctx, store);
    if (SSL_CTX_set_num_tickets(ctx, 0) != 1)
        r = ssl_failed("SSL_CTX_set_num_tickets", "0");
    else if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
        r = ssl_failed("SSL_CTX_use_certificate_chain_file", cert);
    else if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        r = ssl_failed("SSL_CTX_use_PrivateKey_file", key);
    if (r == 0)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

/* On this port, or (0) on any; -1 with a message; else the descriptor, and the port. */
static int listen_on(uint16_t port, uint16_t *ret_port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        fprintf(stderr, "listening on 127.0.0.1: %s\n", strerrorname_np(errno));
        return -1; /* and the program ends */
    }
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static void on_accept(h2o_socket_t *listener, const char *err)
{
    h2o_accept_ctx_t *accept = listener->data;
    struct bsas *b = H2O_STRUCT_FROM_MEMBER(struct bsas, context, accept->ctx);
    h2o_socket_t *sock = err == NULL ? h2o_evloop_socket_accept(listener) : NULL;

    if (sock == NULL)
        return;
    b->connections++;
    h2o_accept(accept, sock);
}

static int open_one(struct bsas *b, uint64_t number, SSL_CTX *ctx, json_t *ports)
{
    uint16_t port = b->first_port == 0 ? 0 : (uint16_t)(b->first_port + number);
    int fd = listen_on(port, &port);
    h2o_socket_t *listener;

    if (fd < 0)
        return -1;
    b->accept[number] =
        (h2o_accept_ctx_t){.ctx = &b->context, .hosts = b->config.hosts, .ssl_ctx = ctx};
    listener = h2o_evloop_socket_create(b->context.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    listener->data = &b->accept[number];
    h2o_socket_read_start(listener, on_accept);
    return json_array_append_new(ports, json_integer(port));
}

static int open_all(struct bsas *b, const struct settings *set, json_t *ports)
{
    X509_STORE *store = load_ca(set->ca);
    int r = store == NULL ? -1 : 0;

    b->first_port = set->first_port;
    for (uint64_t i = 0; r == 0 && i < set->count; i++) {
        SSL_CTX *ctx = ssl_new(set, store, i);

        r = ctx == NULL ? -1 : open_one(b, i, ctx, ports);
    }
    X509_STORE_free(store);
    return r;
}

/* ---- the program ----------------------------------------------------------------------------- */

static void bsas_init(struct bsas *b)
{
    h2o_hostconf_t *host;
    h2o_pathconf_t *path;
    struct bsas_handler *handler;

    h2o_config_init(&b->config);
    b->config.http1.req_timeout = UINT64_C(3600) * 1000; /* connections are kept between rounds */
    host = h2o_config_register_host(&b->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    path = h2o_config_register_path(host, "/", 0);
    handler = (struct bsas_handler *)h2o_create_handler(path, sizeof(*handler));
    handler->super.on_req = take;
    handler->bsas = b;
    h2o_context_init(&b->context, h2o_evloop_create(), &b->config);
    h2o_linklist_init_anchor(&b->held);
}

static int serve(struct bsas *b, const struct settings *set)
{
    const int64_t end = measure_now_ns() + (int64_t)set->seconds * 1000000000;

    while (!stop_asked && measure_now_ns() < end) {
        /* A signal that arrives before the wait is seen 100 ms later at the latest. */
        if (h2o_evloop_run(b->context.loop, 100) != 0 && errno != EINTR) {
            perror("h2o_evloop_run");
            return -1;
        }
    }
    return measure_print(json_pack("{sI, sI, sI, sf}", "connections", (json_int_t)b->connections,
                                   "deliveries", (json_int_t)b->deliveries, "broken",
                                   (json_int_t)b->broken, "cpu_seconds",
                                   (double)measure_cpu_us(RUSAGE_SELF) / 1e6));
}

/* A listener and some connections for each. */
static void raise_descriptors(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) < 0)
        return;
    l.rlim_cur = l.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &l);
}

int main(int argc, char **argv)
{
    struct settings set = {.count = 1, .seconds = 3600};
    const struct opts_option table[] = {
        OPTS_TEXT_REQ("ca", &set.ca, "PEM file that tekd's certificate is checked against"),
        OPTS_TEXT_REQ("prefix", &set.prefix, "of PREFIX0.crt, PREFIX0.key, PREFIX1.crt ..."),
        OPTS_NUMBER("count", &set.count, 1, BSAS_MAX, "BSAs"),
        OPTS_NUMBER("first-port", &set.first_port, 0, 60000,
                    "of those in a row; 0: any that is free"),
        OPTS_NUMBER("seconds", &set.seconds, 1, 86400, "ends after so long"),
    };
    struct sigaction sa = {.sa_handler = on_signal};
    struct bsas *b = calloc(1, sizeof(*b));
    json_t *ports = json_array();

    assert(b != NULL);
    opts_parse(table, sizeof(table) / sizeof(table[0]), argc, argv);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigaction(SIGTERM, &sa, NULL);
    (void)sigaction(SIGINT, &sa, NULL);
    raise_descriptors();
    bsas_init(b);
    if (open_all(b, &set, ports) < 0 || measure_print(json_pack("{so}", "ports", ports)) < 0)
        return EXIT_FAILURE;
    read_input(b);
    return serve(b, &set) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
