#include "push_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bsa_server.h"

#define WAIT_S 60

static void need_at(int ok, const char *what, int line)
{
    if (ok)
        return;
    (void)fprintf(stderr, "push_server.c:%d: %s\n", line, what);
    abort();
}
#define need(ok) need_at((ok) != 0, #ok, __LINE__)

/* ---- counting -------------------------------------------------------------------------------- */

static void count(struct push_server *s, unsigned *what)
{
    (void)pthread_mutex_lock(&s->lock);
    ++*what;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

static unsigned read_count(struct push_server *s, const unsigned *what)
{
    unsigned n;

    (void)pthread_mutex_lock(&s->lock);
    n = *what;
    (void)pthread_mutex_unlock(&s->lock);
    return n;
}

unsigned push_server_requests(struct push_server *s)
{
    return read_count(s, &s->requests);
}

unsigned push_server_connections(struct push_server *s)
{
    return read_count(s, &s->connections);
}

unsigned push_server_handshakes(struct push_server *s)
{
    return read_count(s, &s->handshakes);
}

static void wait_changed_locked(struct push_server *s)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    need(pthread_cond_timedwait(&s->changed, &s->lock, &until) != ETIMEDOUT);
}

void push_server_wait(struct push_server *s, unsigned requests)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->requests < requests)
        wait_changed_locked(s);
    (void)pthread_mutex_unlock(&s->lock);
}

/* Until released or stopped. */
static void hang(struct push_server *s)
{
    (void)pthread_mutex_lock(&s->lock);
    while (!s->released && !s->stopping)
        wait_changed_locked(s);
    (void)pthread_mutex_unlock(&s->lock);
}

void push_server_release(struct push_server *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->released = true;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Whether the head is there, and as many octets behind it as its Content-Length says. */
static bool is_whole(const char *seen, const char **ret_body, size_t *ret_len)
{
    const char *end = strstr(seen, "\r\n\r\n");
    const char *length = strstr(seen, "Content-Length: ");

    if (!end || !length)
        return false;
    *ret_body = end + 4;
    *ret_len = strtoul(length + strlen("Content-Length: "), NULL, 10);
    return strlen(*ret_body) >= *ret_len;
}

static bool read_request(SSL *ssl, char *seen, const char **ret_body, size_t *ret_len)
{
    size_t have = 0;

    seen[0] = '\0';
    while (!is_whole(seen, ret_body, ret_len)) {
        int n = SSL_read(ssl, seen + have, (int)(PUSH_SERVER_SEEN_MAX - 1 - have));
        if (n <= 0)
            return false;
        have += (size_t)n;
        seen[have] = '\0';
    }
    return true;
}

void push_server_say(struct push_exchange *x, int status, const char *type, const char *body)
{
    int n = snprintf(x->answer, sizeof(x->answer),
                     "HTTP/1.1 %d X\r\n%s%s%sContent-Length: %zu\r\n\r\n%s", status,
                     type ? "Content-Type: " : "", type ? type : "", type ? "\r\n" : "",
                     strlen(body), body);

    need(n > 0 && (size_t)n < sizeof(x->answer));
}

static void write_all(SSL *ssl, const char *octets, size_t len)
{
    while (len > 0) {
        int n = SSL_write(ssl, octets, len > 16384 ? 16384 : (int)len);
        if (n <= 0)
            return;
        octets += n;
        len -= (size_t)n;
    }
}

static void write_much(SSL *ssl, const char *head, const char *piece, unsigned times)
{
    write_all(ssl, head, strlen(head));
    for (unsigned i = 0; i < times; i++)
        if (SSL_write(ssl, piece, (int)strlen(piece)) <= 0)
            return;
}

static void ten_megabytes(SSL *ssl)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n";
    char piece[10241];

    memset(piece, 'x', sizeof(piece) - 1);
    piece[sizeof(piece) - 1] = '\0';
    write_much(ssl, head, piece, 1024);
}

static void reset(SSL *ssl)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(SSL_get_fd(ssl), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}

/* Whether there may be another request. */
static bool answer(SSL *ssl, struct push_exchange *x)
{
    static const char short_head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 100\r\n\r\n<";

    switch (x->way) {
    case WAY_ANSWER:
    case WAY_CLOSE:
        write_all(ssl, x->answer, strlen(x->answer));
        return x->way == WAY_ANSWER;
    case WAY_HANG:
        hang(x->server);
        return false;
    case WAY_RESET:
        reset(ssl);
        return false;
    case WAY_TEN_MB:
        ten_megabytes(ssl);
        return false;
    case WAY_TRICKLE:
        write_all(ssl, short_head, strlen(short_head));
        hang(x->server);
        return false;
    case WAY_HEADERS:
        write_much(ssl, "HTTP/1.1 200 OK\r\n", "X-More: and more and more\r\n", 4096);
        return false;
    }
    return false;
}

static void serve(struct push_server *s, SSL *ssl)
{
    char *seen = malloc(PUSH_SERVER_SEEN_MAX);
    struct push_exchange x = {.server = s};

    need(seen != NULL);
    do {
        if (!read_request(ssl, seen, &x.body, &x.body_len))
            break;
        x.head = seen;
        x.way = WAY_ANSWER;
        x.answer[0] = '\0';
        (void)pthread_mutex_lock(&s->lock);
        memcpy(s->seen, seen, strlen(seen) + 1);
        (void)pthread_mutex_unlock(&s->lock);
        s->handler(s->arg, &x);
        count(s, &s->requests);
    } while (answer(ssl, &x));
    free(seen);
}

/* ---- connections ----------------------------------------------------------------------------- */

struct conn_arg {
    struct push_server *s;
    unsigned slot;
};

static SSL_CTX *make_ctx(const struct push_server *s)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    char path[BSA_SERVER_PATH_MAX];

    need(SSL_CTX_use_certificate_file(ctx, bsa_server_path(s->identity, "crt", path),
                                      SSL_FILETYPE_PEM) == 1);
    need(SSL_CTX_use_PrivateKey_file(ctx, bsa_server_path(s->identity, "key", path),
                                     SSL_FILETYPE_PEM) == 1);
    need(SSL_CTX_load_verify_file(ctx, bsa_server_path("ca", "crt", path)) == 1);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return ctx;
}

static void *serve_conn(void *arg)
{
    struct conn_arg *c = arg;
    struct push_server *s = c->s;
    SSL_CTX *ctx = make_ctx(s);
    SSL *ssl = SSL_new(ctx);
    int fd = s->conn[c->slot];

    need(SSL_set_fd(ssl, fd) == 1);
    if (s->hang_in_handshake) {
        hang(s);
    } else if (SSL_accept(ssl) == 1) {
        count(s, &s->handshakes);
        serve(s, ssl);
    }
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    (void)pthread_mutex_lock(&s->lock);
    (void)close(fd);
    s->conn[c->slot] = -1;
    s->n_threads--;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    ERR_clear_error();
    free(c);
    return NULL;
}

static void start_conn(struct push_server *s, int fd)
{
    struct conn_arg *c = malloc(sizeof(*c));
    unsigned slot = 0;
    pthread_t thread;

    need(c != NULL);
    (void)pthread_mutex_lock(&s->lock);
    while (slot < PUSH_SERVER_CONNS_MAX && s->conn[slot] >= 0)
        slot++;
    need(slot < PUSH_SERVER_CONNS_MAX);
    s->conn[slot] = fd;
    s->n_threads++;
    s->connections++;
    (void)pthread_mutex_unlock(&s->lock);
    *c = (struct conn_arg){.s = s, .slot = slot};
    need(pthread_create(&thread, NULL, serve_conn, c) == 0);
    need(pthread_detach(thread) == 0);
}

static void *accept_all(void *arg)
{
    struct push_server *s = arg;
    int fd;

    while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        start_conn(s, fd);
    return NULL;
}

static void shut_conns_locked(struct push_server *s)
{
    for (unsigned i = 0; i < PUSH_SERVER_CONNS_MAX; i++)
        if (s->conn[i] >= 0)
            (void)shutdown(s->conn[i], SHUT_RDWR);
}

void push_server_cut(struct push_server *s)
{
    (void)pthread_mutex_lock(&s->lock);
    shut_conns_locked(s);
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void listen_at(struct push_server *s, uint16_t port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    const int on = 1;

    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(s->fd >= 0);
    need(setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
    need(bind(s->fd, (struct sockaddr *)&at, sizeof(at)) == 0);
    need(listen(s->fd, 64) == 0);
    need(getsockname(s->fd, (struct sockaddr *)&at, &len) == 0);
    s->port = ntohs(at.sin_port);
}

void push_server_start_at(struct push_server *s, uint16_t port)
{
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->changed, NULL);
    for (unsigned i = 0; i < PUSH_SERVER_CONNS_MAX; i++)
        s->conn[i] = -1;
    listen_at(s, port);
    need(pthread_create(&s->thread, NULL, accept_all, s) == 0);
}

void push_server_start(struct push_server *s, const char *identity, push_server_handler *handler,
                       void *arg)
{
    *s = (struct push_server){.identity = identity, .handler = handler, .arg = arg};
    push_server_start_at(s, 0);
}

void push_server_stop(struct push_server *s)
{
    (void)shutdown(s->fd, SHUT_RDWR); /* wakes an accept that nobody came to */
    need(pthread_join(s->thread, NULL) == 0);
    need(close(s->fd) == 0);
    (void)pthread_mutex_lock(&s->lock);
    s->stopping = true;
    (void)pthread_cond_broadcast(&s->changed);
    shut_conns_locked(s);
    while (s->n_threads > 0)
        wait_changed_locked(s);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
}

const char *push_server_url(const struct push_server *s, char out[static 64])
{
    (void)snprintf(out, 64, "https://127.0.0.1:%u/cp3", (unsigned)s->port);
    return out;
}

void push_server_sha256(const char *identity, uint8_t out[static 32])
{
    char path[BSA_SERVER_PATH_MAX];
    FILE *f = fopen(bsa_server_path(identity, "crt", path), "re");
    unsigned len = 32;
    X509 *x;

    need(f != NULL);
    x = PEM_read_X509(f, NULL, NULL, NULL);
    need(x && X509_digest(x, EVP_sha256(), out, &len) == 1);
    X509_free(x);
    (void)fclose(f);
}
