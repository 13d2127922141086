#include "bsa_server.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tekd/auto.h"

/* ---- a PKI in a folder: ca, other-ca; server, client by ca; stranger by other-ca ------------- */

static char dir[] = "/tmp/tek-bsa-server-XXXXXX";

struct party {
    const char *name;
    const char *issuer;
    const char *san; /* NULL: a CA */
    EVP_PKEY *key;
    X509 *cert;
};
static struct party parties[] = {
    {.name = "ca", .issuer = "ca"},
    {.name = "other-ca", .issuer = "other-ca"},
    {.name = "server", .issuer = "ca", .san = "IP:127.0.0.1"},
    {.name = "server-2", .issuer = "ca", .san = "IP:127.0.0.1"},
    {.name = "server-3", .issuer = "ca", .san = "IP:127.0.0.1"},
    {.name = "elsewhere", .issuer = "ca", .san = "DNS:elsewhere.example.net"},
    {.name = "imitation", .issuer = "other-ca", .san = "IP:127.0.0.1"},
    {.name = "client", .issuer = "ca", .san = "DNS:bsa-1"},
    {.name = "stranger", .issuer = "other-ca", .san = "DNS:bsa-1"},
};

static struct party *party(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(parties); i++)
        if (strcmp(parties[i].name, name) == 0)
            return &parties[i];
    fail_msg("no party %s", name);
    return NULL;
}

const char *bsa_server_path(const char *name, const char *suffix,
                            char out[static BSA_SERVER_PATH_MAX])
{
    (void)snprintf(out, BSA_SERVER_PATH_MAX, "%s/%s.%s", dir, name, suffix);
    return out;
}

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static void write_key(const char *name, EVP_PKEY *key, const char *passphrase)
{
    char path[BSA_SERVER_PATH_MAX];
    FILE *f = fopen(bsa_server_path(name, "key", path), "w");

    assert_true(f != NULL && chmod(path, 0600) == 0);
    assert_int_equal(PEM_write_PrivateKey(f, key, passphrase != NULL ? EVP_aes_128_cbc() : NULL,
                                          (const unsigned char *)passphrase,
                                          passphrase != NULL ? (int)strlen(passphrase) : 0, NULL,
                                          NULL),
                     1);
    assert_int_equal(fclose(f), 0);
}

static void make_party(struct party *p)
{
    struct party *issuer = party(p->issuer);
    X509_NAME *name = X509_NAME_new();
    char path[BSA_SERVER_PATH_MAX];
    FILE *f;

    p->key = EVP_EC_gen("P-256");
    p->cert = X509_new();
    assert_true(p->key != NULL && p->cert != NULL && name != NULL);
    X509_set_version(p->cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(p->cert), 1 + (p - parties));
    X509_gmtime_adj(X509_getm_notBefore(p->cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(p->cert), 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)p->name, -1, -1, 0);
    X509_set_subject_name(p->cert, name);
    X509_NAME_free(name);
    X509_set_issuer_name(p->cert, X509_get_subject_name(issuer->cert));
    X509_set_pubkey(p->cert, p->key);
    add_extension(p->cert, NID_basic_constraints, p->san == NULL ? "CA:TRUE" : "CA:FALSE");
    if (p->san != NULL)
        add_extension(p->cert, NID_subject_alt_name, p->san);
    assert_true(X509_sign(p->cert, issuer->key, EVP_sha256()) > 0);

    f = fopen(bsa_server_path(p->name, "crt", path), "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, p->cert), 1);
    assert_int_equal(fclose(f), 0);
    write_key(p->name, p->key, NULL);
}

static const char *const odd_keys[] = {"rsa", "locked", "locked-server"};

/* Keys that fit no certificate, or cannot be read. */
static void make_odd_keys(void)
{
    EVP_PKEY *rsa = EVP_RSA_gen(2048);

    assert_non_null(rsa);
    write_key("rsa", rsa, NULL);
    EVP_PKEY_free(rsa);
    write_key("locked", party("client")->key, "secret");
    write_key("locked-server", party("server")->key, "secret");
}

int bsa_server_make_pki(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN); /* the server's side of a cut connection */
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_SIZE(parties); i++)
        make_party(&parties[i]);
    make_odd_keys();
    return 0;
}

int bsa_server_remove_pki(void **state)
{
    char path[BSA_SERVER_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(parties); i++) {
        (void)unlink(bsa_server_path(parties[i].name, "crt", path));
        (void)unlink(bsa_server_path(parties[i].name, "key", path));
        EVP_PKEY_free(parties[i].key);
        X509_free(parties[i].cert);
    }
    for (size_t i = 0; i < ARRAY_SIZE(odd_keys); i++)
        (void)unlink(bsa_server_path(odd_keys[i], "key", path));
    return rmdir(dir);
}

void bsa_server_forget_signals(void)
{
    const struct timespec now = {.tv_sec = 0};
    sigset_t signals;

    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    while (sigtimedwait(&signals, NULL, &now) > 0)
        ;
    assert_int_equal(sigprocmask(SIG_UNBLOCK, &signals, NULL), 0);
}

/* ---- the server: a connection an answer ------------------------------------------------------ */

static SSL_CTX *make_ctx(const struct bsa_server *s)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    if (ctx == NULL || SSL_CTX_use_certificate(ctx, party(s->identity)->cert) != 1 ||
        SSL_CTX_use_PrivateKey(ctx, party(s->identity)->key) != 1 ||
        X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), party("ca")->cert) != 1)
        abort();
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return ctx;
}

/* Whether the head is there, and as many octets behind it as its Content-Length says. */
static bool is_whole(const char *seen)
{
    const char *end = strstr(seen, "\r\n\r\n");
    const char *length = strstr(seen, "Content-Length: ");

    if (end != NULL && length == NULL)
        return strncmp(seen, "GET ", strlen("GET ")) == 0;
    return end != NULL && strlen(end + 4) >= strtoul(length + strlen("Content-Length: "), NULL, 10);
}

static void read_request(SSL *ssl, char seen[static BSA_SERVER_SEEN_MAX])
{
    size_t have = 0;
    int n;

    while (have < BSA_SERVER_SEEN_MAX - 1 && !is_whole(seen)) {
        n = SSL_read(ssl, seen + have, (int)(BSA_SERVER_SEEN_MAX - 1 - have));
        if (n <= 0)
            return;
        have += (size_t)n;
    }
}

static void give_answer(const char *answer, SSL *ssl)
{
    char rest[64];

    if (answer != NULL)
        (void)SSL_write(ssl, answer, (int)strlen(answer));
    else
        while (SSL_read(ssl, rest, sizeof(rest)) > 0)
            ;
    (void)SSL_shutdown(ssl);
}

/* Waits for the client to go: closing on unread octets would be a reset, and lose our last words.
 */
static void close_politely(int fd)
{
    char rest[256];

    (void)shutdown(fd, SHUT_WR);
    while (recv(fd, rest, sizeof(rest), 0) > 0)
        ;
    (void)close(fd);
}

static void close_rudely(int fd)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    (void)close(fd);
}

static void serve_one(struct bsa_server *s, SSL_CTX *ctx, const char *answer)
{
    SSL *ssl = SSL_new(ctx);
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0 && ssl != NULL && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1) {
        memcpy(s->earlier, s->seen, sizeof(s->seen));
        memset(s->seen, 0, sizeof(s->seen));
        read_request(ssl, s->seen);
        if (!s->rude)
            give_answer(answer, ssl);
    }
    SSL_free(ssl);
    if (fd >= 0)
        (s->rude ? close_rudely : close_politely)(fd);
    ERR_clear_error();
}

static void *serve(void *arg)
{
    struct bsa_server *s = arg;
    SSL_CTX *ctx = make_ctx(s);

    for (size_t i = 0; i < s->n_answers; i++)
        serve_one(s, ctx, s->answer[i]);
    SSL_CTX_free(ctx);
    return NULL;
}

static void start(struct bsa_server *s)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);

    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->fd >= 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(s->fd, 1), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&at, &len), 0);
    s->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

void bsa_server_start(struct bsa_server *s, const char *identity, const char *answer)
{
    *s = (struct bsa_server){.identity = identity, .answer = {answer}, .n_answers = 1};
    start(s);
}

void bsa_server_start_two(struct bsa_server *s, const char *first, const char *second)
{
    *s = (struct bsa_server){.identity = "server", .answer = {first, second}, .n_answers = 2};
    start(s);
}

void bsa_server_start_rude(struct bsa_server *s, const char *identity)
{
    *s = (struct bsa_server){.identity = identity, .n_answers = 1, .rude = true};
    start(s);
}

void bsa_server_stop(struct bsa_server *s)
{
    (void)shutdown(s->fd, SHUT_RDWR); /* wakes an accept that nobody came to */
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    assert_int_equal(close(s->fd), 0);
}
