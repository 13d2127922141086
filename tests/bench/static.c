/*
 * The yardstick of the server: h2o with the same TLS settings (TLS 1.2 at least, client
 * certificate required, no session resumption, HTTP/1.1 only) that answers every request of every
 * path with the same octets.  Prints {"port": N} when it listens; ends with SIGTERM, with its
 * parent, or after --seconds.
 */
#define H2O_USE_LIBUV 0

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <h2o.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "measure.h"
#include "opts.h"

/* The biggest body: the largest Tag 2 is far smaller. */
#define BODY_MAX 65536
#define BACKLOG  1024

struct settings {
    const char *address, *ca, *cert, *key, *body_file;
    uint64_t port, size, seconds;
    int media;
};

struct server {
    h2o_globalconf_t config;
    h2o_context_t context;
    h2o_accept_ctx_t accept;
    h2o_iovec_t body;
    h2o_iovec_t type;
};

/* The handler h2o calls knows its server by standing in front of this pointer. */
struct static_handler {
    h2o_handler_t super;
    struct server *server;
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int signo)
{
    (void)signo;
    stop_asked = 1;
}

static int answer(h2o_handler_t *self, h2o_req_t *req)
{
    struct server *s = ((struct static_handler *)self)->server;
    static h2o_generator_t generator = {NULL, NULL};

    req->res.status = 200;
    req->res.reason = "OK";
    /* Before h2o_start_response(): later, HTTP/1.1 answers would be chunked as well. */
    req->res.content_length = s->body.len;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, s->type.base,
                   s->type.len);
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CACHE_CONTROL, NULL,
                   H2O_STRLIT("no-store"));
    h2o_start_response(req, &generator);
    h2o_send(req, &s->body, 1, H2O_SEND_STATE_FINAL);
    return 0;
}

static void on_accept(h2o_socket_t *listener, const char *err)
{
    struct server *s = listener->data;
    h2o_socket_t *sock;

    if (err != NULL)
        return;
    sock = h2o_evloop_socket_accept(listener);
    if (sock != NULL)
        h2o_accept(&s->accept, sock);
}

static int ssl_failed(const char *call, const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", call, what, ERR_reason_error_string(ERR_peek_last_error()));
    ERR_clear_error();
    return -1;
}

static SSL_CTX *ssl_new(const struct settings *set)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    int r = 0;

    assert(ctx != NULL);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    if (SSL_CTX_set_num_tickets(ctx, 0) != 1 ||
        SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
        r = ssl_failed("SSL_CTX_set_min_proto_version", "TLS 1.2");
    else if (SSL_CTX_load_verify_locations(ctx, set->ca, NULL) != 1)
        r = ssl_failed("SSL_CTX_load_verify_locations", set->ca);
    else if (SSL_CTX_use_certificate_chain_file(ctx, set->cert) != 1)
        r = ssl_failed("SSL_CTX_use_certificate_chain_file", set->cert);
    else if (SSL_CTX_use_PrivateKey_file(ctx, set->key, SSL_FILETYPE_PEM) != 1)
        r = ssl_failed("SSL_CTX_use_PrivateKey_file", set->key);
    if (r == 0)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

/* -1 with a message; else the descriptor, and the port that was taken. */
static int listen_on(const struct settings *set, uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)set->port)};
    socklen_t len = sizeof(address);
    const int on = 1;
    int fd;

    if (inet_pton(AF_INET, set->address, &address.sin_addr) != 1) {
        fprintf(stderr, "not an IPv4 address: %s\n", set->address);
        return -1;
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        fprintf(stderr, "listening on %s:%u: %s\n", set->address, (unsigned)set->port,
                strerrorname_np(errno));
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    *ret_port = ntohs(address.sin_port);
    return fd;
}

/* The octets of --body, else --size printable ones. */
static int make_body(const struct settings *set, h2o_iovec_t *ret_body)
{
    h2o_iovec_t body = {.base = malloc(BODY_MAX), .len = set->size};
    FILE *f;

    assert(body.base != NULL);
    memset(body.base, 'x', BODY_MAX);
    *ret_body = body;
    if (set->body_file == NULL)
        return 0;
    f = fopen(set->body_file, "re");
    if (f == NULL) {
        perror(set->body_file);
        return -1;
    }
    ret_body->len = fread(body.base, 1, BODY_MAX, f);
    (void)fclose(f);
    return 0;
}

static void server_open(struct server *s, SSL_CTX *ctx)
{
    h2o_hostconf_t *host;
    h2o_pathconf_t *path;
    struct static_handler *handler;

    h2o_config_init(&s->config);
    s->config.server_name = h2o_iovec_init(H2O_STRLIT("static"));
    host = h2o_config_register_host(&s->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    path = h2o_config_register_path(host, "/", 0);
    handler = (struct static_handler *)h2o_create_handler(path, sizeof(*handler));
    handler->super.on_req = answer;
    handler->server = s;
    h2o_context_init(&s->context, h2o_evloop_create(), &s->config);
    s->accept = (h2o_accept_ctx_t){.ctx = &s->context, .hosts = s->config.hosts, .ssl_ctx = ctx};
}

static int serve(struct server *s, int fd, const struct settings *set)
{
    const int64_t end = measure_now_ns() + (int64_t)set->seconds * 1000000000;
    h2o_socket_t *listener =
        h2o_evloop_socket_create(s->context.loop, fd, H2O_SOCKET_FLAG_DONT_READ);

    listener->data = s;
    h2o_socket_read_start(listener, on_accept);
    while (!stop_asked && measure_now_ns() < end) {
        /* A signal that arrives before the wait is seen 100 ms later at the latest. */
        if (h2o_evloop_run(s->context.loop, 100) != 0 && errno != EINTR) {
            perror("h2o_evloop_run");
            return -1;
        }
    }
    h2o_socket_close(listener);
    return 0;
}

static void parse(struct settings *set, int argc, char **argv)
{
    static const char *const media[] = {"application/xml", "application/json", NULL};
    const struct opts_option table[] = {
        OPTS_TEXT_REQ("ca", &set->ca, "PEM file that clients are checked against"),
        OPTS_TEXT_REQ("cert", &set->cert, "PEM file"),
        OPTS_TEXT_REQ("key", &set->key, "PEM file"),
        OPTS_TEXT("address", &set->address, "default 127.0.0.1"),
        OPTS_NUMBER("port", &set->port, 0, 65535, "0: any"),
        OPTS_NUMBER("size", &set->size, 0, BODY_MAX, "octets of each answer"),
        OPTS_TEXT("body", &set->body_file, "file with the octets of each answer"),
        OPTS_ONE_OF("type", &set->media, media, "media type"),
        OPTS_NUMBER("seconds", &set->seconds, 1, 86400, "ends after so long"),
    };

    opts_parse(table, sizeof(table) / sizeof(table[0]), argc, argv);
}

int main(int argc, char **argv)
{
    struct settings set = {.address = "127.0.0.1", .size = 512, .seconds = 3600};
    struct sigaction sa = {.sa_handler = on_signal};
    static struct server server;
    SSL_CTX *ctx;
    uint16_t port;
    int fd;

    parse(&set, argc, argv);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigaction(SIGTERM, &sa, NULL);
    (void)sigaction(SIGINT, &sa, NULL);
    ctx = ssl_new(&set);
    if (ctx == NULL || make_body(&set, &server.body) < 0)
        return EXIT_FAILURE;
    server.type = set.media == 0 ? h2o_iovec_init(H2O_STRLIT("application/xml"))
                                 : h2o_iovec_init(H2O_STRLIT("application/json"));
    fd = listen_on(&set, &port);
    if (fd < 0)
        return EXIT_FAILURE;
    server_open(&server, ctx);
    if (measure_print(json_pack("{si}", "port", (int)port)) < 0)
        return EXIT_FAILURE;
    return serve(&server, fd, &set) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
