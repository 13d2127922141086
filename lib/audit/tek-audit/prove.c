/*
 * A proof that one record stands in the log, as C2SP tlog-proof says:
 *     c2sp.org/tlog-proof@v1 LF
 *     extra <base64 of the record's octets> LF
 *     index <decimal> LF
 *     <base64 of a hash> LF       the path, from the leaf's brother up; none in a log of one record
 *     LF
 *     the checkpoint, octet for octet
 * Whoever checks it takes the leaf's hash from the record, and trusts nothing but the signature.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define STATUS_REFUSED    1
#define STATUS_UNREADABLE 3

struct search {
    const struct prove *wanted;
    struct merkle_hash *leaf;
    size_t room;
    uint64_t n;
    bool found;
    bool several; /* peers that used this Message ID */
    uint64_t index;
    char *octets; /* the record */
    size_t len;
    char *peer;
};

static void search_clear(struct search *s)
{
    free(s->leaf);
    free(s->octets);
    free(s->peer);
}

/* The records that say what was given under a Message ID. */
static bool gives(const char *event)
{
    static const char *const events[] = {"request.answered", "delivery.prepared",
                                         "delivery.carried", "delivery.confirmed"};

    for (size_t i = 0; i < ARRAY_SIZE(events); i++)
        if (strcmp(event, events[i]) == 0)
            return true;
    return false;
}

/* The last such record of a message is the one that says most: a confirmation, if there is one. */
static int look_at(struct search *s, const struct record *r, const char *line, size_t len)
{
    const char *mid = record_get_str(r, "mid");
    const char *peer = record_get_str(r, "peer");

    if (!mid || !peer || strcmp(mid, s->wanted->message_id) != 0 || !gives(record_event(r)) ||
        (s->wanted->peer && strcmp(peer, s->wanted->peer) != 0))
        return 0;
    s->several = s->several || (s->found && strcmp(peer, s->peer) != 0);
    free(s->octets);
    free(s->peer);
    s->octets = malloc(len);
    s->peer = strdup(peer);
    if (!s->octets || !s->peer)
        return TEKD_ENOMEM;
    memcpy(s->octets, line, len);
    s->len = len;
    s->index = s->n;
    s->found = true;
    return 0;
}

static int take(struct search *s, const char *line, size_t len)
{
    AUTO(record) struct record *r = NULL;
    const char *what = NULL;
    int e = record_parse(line, len, &r, &what);

    if (e < 0) {
        (void)fprintf(stderr, "tek-audit: record %" PRIu64 ": %s\n", s->n, what);
        return e;
    }
    if (s->n == s->room) {
        size_t room = s->room + s->room / 2 + 1024;
        struct merkle_hash *leaf = realloc(s->leaf, room * sizeof *leaf);

        if (!leaf)
            return TEKD_ENOMEM;
        s->leaf = leaf;
        s->room = room;
    }
    merkle_leaf(line, len, &s->leaf[s->n]);
    e = look_at(s, r, line, len);
    s->n++;
    return e;
}

static int read_log(struct search *s, uint64_t size, const char **why)
{
    AUTO(lines) struct lines *l = NULL;
    const char *line;
    size_t len;
    int r = lines_open(s->wanted->dirfd, "audit.jsonl", &l, why);

    while (r == 0 && s->n < size) {
        r = lines_next(l, &line, &len);
        if (r == 0)
            r = take(s, line, len);
    }
    return r;
}

static int write_proof(const struct search *s, const struct note *n, const struct buf *checkpoint,
                       FILE *out)
{
    struct merkle_hash path[MERKLE_RANGE_MAX];
    char text[ENC_BASE64_LEN(RECORD_MAX) + 1];
    size_t len = merkle_inclusion_path(s->leaf, s->n, s->index, path);

    if (merkle_inclusion_check(&s->leaf[s->index], s->index, n->size, path, len, &n->root) < 0) {
        (void)fprintf(stderr, "tek-audit: root: the records are not what the checkpoint signs; "
                              "run tek-audit verify\n");
        return STATUS_REFUSED;
    }
    enc_base64((const uint8_t *)s->octets, s->len, text);
    (void)fprintf(out, "c2sp.org/tlog-proof@v1\nextra %s\nindex %" PRIu64 "\n", text, s->index);
    for (size_t i = 0; i < len; i++) {
        enc_base64(path[i].octets, MERKLE_HASH_LEN, text);
        (void)fprintf(out, "%s\n", text);
    }
    (void)fprintf(out, "\n%s", buf_str(checkpoint));
    return 0;
}

static int prove_found(struct search *s, const struct note *n, const struct buf *checkpoint,
                       FILE *out)
{
    const char *why = NULL;
    int r = read_log(s, n->size, &why);

    if (r == TEKD_ECLOSED)
        why = "fewer records than the checkpoint says";
    if (r < 0) {
        (void)fprintf(stderr, "tek-audit: audit.jsonl: %s\n", why ? why : tekd_strerror(r));
        return r == TEKD_ECLOSED || r == TEKD_EFORMAT ? STATUS_REFUSED : STATUS_UNREADABLE;
    }
    if (!s->found) {
        (void)fprintf(stderr, "tek-audit: no key was given under this Message ID\n");
        return STATUS_REFUSED;
    }
    if (s->several) {
        (void)fprintf(stderr, "tek-audit: several peers used this Message ID: name one (--peer)\n");
        return STATUS_REFUSED;
    }
    return write_proof(s, n, checkpoint, out);
}

int prove_run(const struct prove *p, FILE *out)
{
    AUTO(buf) struct buf *checkpoint = NULL;
    struct search s = {.wanted = p};
    const char *why = NULL;
    struct note n;
    int r = file_read(p->dirfd, "checkpoint", NOTE_MAX, &checkpoint, &why);

    if (r < 0 || note_read(buf_data(checkpoint), buf_len(checkpoint), &n) < 0) {
        if (r == 0)
            why = "not a note";
        (void)fprintf(stderr, "tek-audit: checkpoint: %s\n", why ? why : tekd_strerror(r));
        return r < 0 ? STATUS_UNREADABLE : STATUS_REFUSED;
    }
    r = prove_found(&s, &n, checkpoint, out);
    search_clear(&s);
    return r;
}
