/* A time stamp of RFC 3161 over the note, by HTTP (section 3.4): asked for, verified, kept. */
#include "internal.h"

#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/pem.h"

#define QUERY_MAX 256

struct stamp {
    struct publisher base; /* first */
    struct https *https;
    char *url, *tsa_ca;
};

/* The answer as far as HTTP goes. */
static int check_http(const struct https_answer *a, char why[static PUBLISH_WHY_MAX])
{
    if (a->status != 200)
        (void)snprintf(why, PUBLISH_WHY_MAX, "HTTP %d%s", a->status,
                       a->status / 100 == 3 ? ": redirects are not followed" : "");
    else if (strcmp(a->type, "application/timestamp-reply") != 0)
        (void)snprintf(why, PUBLISH_WHY_MAX, "not a time stamp: Content-Type \"%s\"", a->type);
    else
        return 0;
    return TEKD_EIO;
}

static int ask(struct stamp *s, const struct buf *query, struct https_answer *ret_answer,
               char why[static PUBLISH_WHY_MAX])
{
    const struct https_request r = {.path = "",
                                    .type = "application/timestamp-query",
                                    .body = buf_data(query),
                                    .len = buf_len(query)};
    int e = https_post(s->https, &r, ret_answer);

    if (e < 0) {
        (void)snprintf(why, PUBLISH_WHY_MAX, "%.200s", ret_answer->why);
        return e;
    }
    return check_http(ret_answer, why);
}

static int verify(const struct stamp *s, const struct publication *n,
                  const struct timestamp_nonce *nonce, const struct buf *answer,
                  char why[static PUBLISH_WHY_MAX])
{
    struct timestamp_check c = {.octets = n->text, .len = n->len, .nonce = nonce};
    char detail[TIMESTAMP_WHY_MAX];
    int64_t utc_us;
    int r = pem_read_store(s->tsa_ca, &c.ca);

    if (r < 0) {
        (void)snprintf(why, PUBLISH_WHY_MAX, "the CA of the TSA cannot be read: see the log");
        return r;
    }
    r = timestamp_verify(&c, buf_data(answer), buf_len(answer), &utc_us, detail);
    if (r < 0)
        (void)snprintf(why, PUBLISH_WHY_MAX, "the time stamp is refused: %s", detail);
    X509_STORE_free(c.ca);
    return r;
}

static int keep(struct stamp *s, const struct publication *n, const struct buf *answer,
                char why[static PUBLISH_WHY_MAX])
{
    const struct kept_file files[] = {{"note", n->text, n->len},
                                      {"tsr", buf_data(answer), buf_len(answer)}};

    return kept_put(s->base.all->kept, n, files, ARRAY_SIZE(files), why);
}

static int publish(struct publisher *self, const struct publication *n,
                   char why[static PUBLISH_WHY_MAX])
{
    struct stamp *s = (struct stamp *)self;
    struct timestamp_nonce nonce;
    struct https_answer answer;
    AUTO(buf) struct buf *query = NULL;
    int r = buf_new(QUERY_MAX, &query);

    if (r == 0)
        r = timestamp_ask(n->text, n->len, &nonce, query);
    if (r < 0) {
        (void)snprintf(why, PUBLISH_WHY_MAX, "%s", tekd_strerror(r));
        return r;
    }
    r = ask(s, query, &answer, why);
    if (r == 0)
        r = verify(s, n, &nonce, answer.body, why);
    return r == 0 ? keep(s, n, answer.body, why) : r;
}

static void stop(struct publisher *self)
{
    https_stop(((struct stamp *)self)->https);
}

static void free_stamp(struct publisher *self)
{
    struct stamp *s = (struct stamp *)self;

    https_free(s->https);
    free(s->url);
    free(s->tsa_ca);
    free(s);
}

int stamp_new(const struct publish_options *o, struct publisher **ret_publisher)
{
    const struct https_options h = {
        .url = o->timestamp.url, .allow_http = true, .ca = o->timestamp.tls_ca};
    struct stamp *s;
    int r;

    if (!o->timestamp.url)
        return 0;
    s = calloc(1, sizeof(*s));
    if (!s)
        return TEKD_ENOMEM;
    s->base = (struct publisher){
        .name = "timestamp", .publish = publish, .stop = stop, .free = free_stamp};
    s->url = strdup(o->timestamp.url);
    s->tsa_ca = strdup(o->timestamp.tsa_ca);
    r = s->url && s->tsa_ca ? https_new(&h, &s->https) : TEKD_ENOMEM;
    if (r < 0) {
        free_stamp(&s->base);
        return r;
    }
    s->base.status.to = s->url;
    *ret_publisher = &s->base;
    return 0;
}
