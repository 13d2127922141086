/*
 * A witness (C2SP tlog-witness): it is sent the note, with the proof that it extends the one that
 * it has seen last, and cosigns it.  What it has seen it says itself where we are wrong: after a
 * start we do not know, and ask as if it had seen nothing.
 */
#include "internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/cosign.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define TRIES     3 /* a witness of several hosts may answer from one that lags behind */
#define BODY_MAX  (NOTE_MAX + 4096)
#define SIZE_TYPE "text/x.tlog.size"

struct witness {
    struct publisher base; /* first */
    struct https *https;
    char *url, *key;
    const char *path; /* behind the URL */
};

/* ---- the key --------------------------------------------------------------------------------- */

/* The text of a file without its line end.  Errors: TEKD_EIO. */
static int read_text(const char *path, char out[static COSIGN_KEY_MAX], size_t *ret_len)
{
    FILE *f = fopen(path, "re");
    size_t n;

    if (!f)
        return TEKD_EIO;
    n = fread(out, 1, COSIGN_KEY_MAX, f);
    (void)fclose(f);
    while (n > 0 && out[n - 1] == '\n')
        n--;
    *ret_len = n;
    return 0;
}

/* From the setting, or each time from the file that it names. */
static int read_key(const struct witness *w, struct cosign_key *ret_key,
                    char why[static PUBLISH_WHY_MAX])
{
    char text[COSIGN_KEY_MAX];
    size_t len = 0;
    int r = cosign_key_read(w->key, strlen(w->key), ret_key);

    /* The folder of the configuration, before it, may have a '+' as a key has. */
    if (r < 0 && *w->key == '/' && (r = read_text(w->key, text, &len)) == 0)
        r = cosign_key_read(text, len, ret_key);
    if (r < 0)
        (void)snprintf(why, PUBLISH_WHY_MAX, "no verifier key of a witness in %.180s", w->key);
    return r;
}

/* ---- the question ---------------------------------------------------------------------------- */

int witness_question(uint64_t old, const struct proof *proof, const struct publication *n,
                     struct buf *out)
{
    char text[ENC_BASE64_LEN(MERKLE_HASH_LEN) + 1];

    (void)buf_printf(out, "old %" PRIu64 "\n", old);
    for (size_t i = 0; i < proof->n; i++) {
        enc_base64(proof->hash[i].octets, MERKLE_HASH_LEN, text);
        (void)buf_printf(out, "%s\n", text);
    }
    (void)buf_putc(out, '\n');
    return buf_append(out, n->text, n->len);
}

static int ask(struct witness *w, const struct publication *n, uint64_t old,
               struct https_answer *ret_answer, char why[static PUBLISH_WHY_MAX])
{
    AUTO(buf) struct buf *body = NULL;
    struct https_request q = {.path = w->path, .type = "text/plain; charset=utf-8"};
    struct proof proof;
    int r = proof_read(&w->base, n, old, &proof, why);

    if (r < 0)
        return r;
    r = buf_new(BODY_MAX, &body);
    if (r == 0)
        r = witness_question(old, &proof, n, body);
    if (r < 0) {
        (void)snprintf(why, PUBLISH_WHY_MAX, "%s", tekd_strerror(r));
        return r;
    }
    q.body = buf_data(body);
    q.len = buf_len(body);
    r = https_post(w->https, &q, ret_answer);
    if (r < 0)
        (void)snprintf(why, PUBLISH_WHY_MAX, "%.200s", ret_answer->why);
    return r;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static const struct {
    int status;
    const char *why;
} refusals[] = {
    {400, "it cannot read what it is sent (HTTP 400)"},
    {403, "it does not know the key of our checkpoints (HTTP 403)"},
    {404, "it does not know this log (HTTP 404)"},
    {422, "it says that our checkpoint does not extend the one it has (HTTP 422)"},
};

static int refused(const struct https_answer *a, char why[static PUBLISH_WHY_MAX])
{
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        if (refusals[i].status == a->status) {
            (void)snprintf(why, PUBLISH_WHY_MAX, "%s", refusals[i].why);
            return TEKD_EDENIED;
        }
    }
    (void)snprintf(why, PUBLISH_WHY_MAX, "HTTP %d%s", a->status,
                   a->status / 100 == 3 ? ": redirects are not followed" : "");
    return TEKD_EIO;
}

/* A decimal number, one way to write it, and a line end. */
static bool read_size(const char *text, size_t len, uint64_t *ret_size)
{
    char again[24];

    *ret_size = strtoull(text, NULL, 10);
    return snprintf(again, sizeof(again), "%" PRIu64 "\n", *ret_size) == (int)len &&
           memcmp(again, text, len) == 0;
}

int witness_conflict(const struct https_answer *a, const struct publication *n, uint64_t *old,
                     char why[static PUBLISH_WHY_MAX])
{
    uint64_t size;

    if (strcmp(a->type, SIZE_TYPE) != 0 || !read_size(buf_str(a->body), buf_len(a->body), &size)) {
        (void)snprintf(why, PUBLISH_WHY_MAX, "HTTP 409 without the size that it has");
        return TEKD_EFORMAT;
    }
    if (size == *old) {
        (void)snprintf(why, PUBLISH_WHY_MAX,
                       "it has another checkpoint of %" PRIu64
                       " records: another copy of the database?",
                       size);
        return TEKD_ECRYPTO;
    }
    if (size > n->note.size) {
        (void)snprintf(why, PUBLISH_WHY_MAX,
                       "it has %" PRIu64 " records of this log, more than there are here: an older "
                       "copy of the database?",
                       size);
        return TEKD_ECRYPTO;
    }
    *old = size;
    return 0;
}

/* The line of its key, in ret_line; others may be there and are not looked at. */
static int find_line(const struct buf *body, const struct cosign_key *key, const struct note *n,
                     struct buf *ret_line)
{
    const char *line = buf_str(body), *end;
    struct cosignature c;
    int r;

    for (; (end = strchr(line, '\n')); line = end + 1) {
        r = cosign_line_read(line, (size_t)(end - line), &c);
        if (r == 0)
            r = cosign_verify(&c, key, n);
        if (r == 0)
            return buf_append(ret_line, line, (size_t)(end + 1 - line));
        if (r != TEKD_EFORMAT && r != TEKD_ENOTFOUND)
            return r;
    }
    return TEKD_ENOTFOUND;
}

int witness_cosigned(const struct buf *body, const struct cosign_key *key,
                     const struct publication *n, struct buf *out, char why[static PUBLISH_WHY_MAX])
{
    int r = buf_append(out, n->text, n->len);

    if (r == 0)
        r = find_line(body, key, &n->note, out);
    if (r == TEKD_ENOTFOUND)
        (void)snprintf(why, PUBLISH_WHY_MAX, "no cosignature of %.180s in its answer", key->name);
    else if (r == TEKD_ECRYPTO)
        (void)snprintf(why, PUBLISH_WHY_MAX, "its cosignature is not one over this checkpoint");
    else if (r < 0)
        (void)snprintf(why, PUBLISH_WHY_MAX, "%s", tekd_strerror(r));
    return r;
}

/* ---- the publisher --------------------------------------------------------------------------- */

static int keep(struct witness *w, const struct publication *n, const struct cosign_key *key,
                const struct buf *body, char why[static PUBLISH_WHY_MAX])
{
    AUTO(buf) struct buf *cosigned = NULL;
    struct kept_file file = {.kind = "cosigned"};
    int r = buf_new(COSIGN_NOTE_MAX, &cosigned);

    if (r < 0) {
        (void)snprintf(why, PUBLISH_WHY_MAX, "%s", tekd_strerror(r));
        return r;
    }
    r = witness_cosigned(body, key, n, cosigned, why);
    if (r < 0)
        return r;
    file.octets = buf_data(cosigned);
    file.len = buf_len(cosigned);
    return kept_put(w->base.all->kept, n, &file, 1, why);
}

static int publish(struct publisher *self, const struct publication *n,
                   char why[static PUBLISH_WHY_MAX])
{
    struct witness *w = (struct witness *)self;
    const struct publish_status *s = &self->status; /* only this thread changes it */
    uint64_t old = s->epoch == n->epoch ? s->size : 0;
    struct https_answer answer;
    struct cosign_key key;
    int r = read_key(w, &key, why);

    for (unsigned i = 0; i < TRIES && r == 0; i++) {
        r = ask(w, n, old, &answer, why);
        if (r == 0 && answer.status == 200)
            return keep(w, n, &key, answer.body, why);
        if (r == 0)
            r = answer.status == 409 ? witness_conflict(&answer, n, &old, why)
                                     : refused(&answer, why);
    }
    if (r == 0)
        (void)snprintf(why, PUBLISH_WHY_MAX, "it names another size each time (HTTP 409)");
    return r == 0 ? TEKD_EIO : r;
}

static void stop(struct publisher *self)
{
    https_stop(((struct witness *)self)->https);
}

static void free_witness(struct publisher *self)
{
    struct witness *w = (struct witness *)self;

    https_free(w->https);
    free(w->url);
    free(w->key);
    free(w);
}

static int set_up(struct witness *w, const struct publish_options *o)
{
    const struct https_options h = {.url = o->witness.url,
                                    .allow_http = true,
                                    .ca = o->witness.tls_ca,
                                    .certificate = o->witness.certificate,
                                    .key = o->witness.private_key};
    size_t len = strlen(h.url);

    w->url = strdup(h.url);
    w->key = strdup(o->witness.key);
    w->path = len > 0 && h.url[len - 1] == '/' ? "add-checkpoint" : "/add-checkpoint";
    return w->url && w->key ? https_new(&h, &w->https) : TEKD_ENOMEM;
}

int witness_new(const struct publish_options *o, struct publisher **ret_publisher)
{
    struct witness *w;
    int r;

    if (!o->witness.url)
        return 0;
    w = calloc(1, sizeof(*w));
    if (!w)
        return TEKD_ENOMEM;
    w->base = (struct publisher){
        .name = "witness", .publish = publish, .stop = stop, .free = free_witness};
    r = set_up(w, o);
    if (r < 0) {
        free_witness(&w->base);
        return r;
    }
    w->base.status.to = w->url;
    *ret_publisher = &w->base;
    return 0;
}
