#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/timestamp.h"

static const char middle[] = "/tekd/audit/";

int origin_epoch(const char *origin, size_t *ret_prefix_len, uint64_t *ret_epoch)
{
    const char *last = NULL;
    uint64_t epoch;

    for (const char *p = strstr(origin, middle); p; p = strstr(p + 1, middle))
        last = p;
    if (!last || last == origin)
        return TEKD_EFORMAT;
    last += sizeof middle - 1;
    if (decimal_read(last, strlen(last), &epoch) < 0 || epoch == 0)
        return TEKD_EFORMAT;
    *ret_prefix_len = (size_t)(last - origin);
    *ret_epoch = epoch;
    return 0;
}

/* A file that ought to be there; what is wrong with it is noted.  NULL: cannot go on with it. */
static struct buf *read_file(struct audit *a, const char *name, size_t max)
{
    struct buf *b = NULL;
    const char *why = NULL;
    int r = file_read(a->dirfd, name, max, &b, &why);

    if (r == TEKD_ENOTFOUND)
        audit_fail_at(a, name, "missing", "expected a file of the export, found none");
    else if (r == TEKD_ETOOBIG)
        audit_fail_at(a, name, "length", "expected at most %zu octets, found more", max);
    else if (r < 0)
        audit_unreadable(a, name, r, why);
    return b;
}

void export_check_sum(struct audit *a, const char *name, const struct merkle_hash *found)
{
    const struct manifest_entry *e = a->manifest ? manifest_find(a->manifest, name) : NULL;
    char expected_hex[ENC_HEX_LEN(MERKLE_HASH_LEN) + 1];
    char found_hex[ENC_HEX_LEN(MERKLE_HASH_LEN) + 1];

    if (!a->manifest)
        return;
    enc_hex(found->octets, MERKLE_HASH_LEN, found_hex);
    if (!e) {
        audit_fail_at(a, name, "sums", "expected a line in SHA256SUMS, found none");
        return;
    }
    if (memcmp(&e->sum, found, sizeof *found) == 0)
        return;
    enc_hex(e->sum.octets, MERKLE_HASH_LEN, expected_hex);
    audit_fail_at(a, name, "sums", "expected SHA-256 %s, found %s", expected_hex, found_hex);
}

static void check_sum_of(struct audit *a, const char *name, const struct buf *b)
{
    struct merkle_hash sum;

    if (EVP_Digest(buf_data(b), buf_len(b), sum.octets, NULL, EVP_sha256(), NULL) == 1)
        export_check_sum(a, name, &sum);
    else
        a->error = TEKD_ECRYPTO;
}

static void read_manifest(struct audit *a)
{
    AUTO(buf) struct buf *b = read_file(a, "SHA256SUMS", MANIFEST_MAX);
    size_t line = 0;
    int r;

    if (!b)
        return;
    r = manifest_read(buf_str(b), buf_len(b), &a->manifest, &line);
    if (r == TEKD_ENOMEM)
        a->error = r;
    else if (r < 0)
        audit_fail_at(a, "SHA256SUMS", "sums",
                      "line %zu: expected the SHA-256 and the name of a file of an export, once",
                      line);
}

static void mark_add(struct audit *a, const struct note *n, const char *where, const char *check)
{
    struct mark *m = &a->mark[a->n_marks++];

    m->note = *n;
    m->check = check;
    (void)snprintf(m->where, sizeof m->where, "%s", where);
}

static void read_key(struct audit *a, const char *name)
{
    AUTO(buf) struct buf *b = read_file(a, name, KEY_FILE_MAX);
    struct known_key *k = &a->candidate[a->n_candidates];
    char hex[ENC_HEX_LEN(4) + 1];
    uint8_t id[4];

    if (!b)
        return;
    check_sum_of(a, name, b);
    if (a->n_candidates == KEYS_MAX) {
        audit_fail_at(a, name, "keys", "expected at most %d keys, found more", KEYS_MAX);
        return;
    }
    if (key_parse(buf_data(b), buf_len(b), &k->key) < 0) {
        audit_fail_at(a, name, "keys",
                      "expected a public key (P-256 or Ed25519) in PEM, found none");
        return;
    }
    a->n_candidates++;
    if (key_fingerprint(k->key, &k->fingerprint) < 0 ||
        note_key_id(a->checkpoint.origin, k->key, id) < 0) {
        a->error = TEKD_ECRYPTO;
        return;
    }
    enc_hex(id, sizeof id, hex);
    if (strncmp(name + strlen("keys/"), hex, sizeof hex - 1) != 0)
        audit_fail_at(a, name, "keys", "expected it under its key id %s, found it here", hex);
}

/* The note of an anchor, which may be cosigned; false: there is none, which is said. */
static bool anchor_note(struct audit *a, const char *name, const struct buf *b,
                        struct note *ret_note)
{
    if (cosigned_is_name(name))
        return cosigned_read(a, name, b, ret_note);
    if (note_read(buf_data(b), buf_len(b), ret_note) == 0)
        return true;
    audit_fail_at(a, name, "anchor", "expected a note, found something else");
    return false;
}

static size_t anchor_max(const char *name)
{
    if (stamp_is_name(name))
        return TIMESTAMP_MAX;
    return cosigned_is_name(name) ? COSIGN_NOTE_MAX : NOTE_MAX;
}

static void read_anchor(struct audit *a, const char *name)
{
    AUTO(buf) struct buf *b = read_file(a, name, anchor_max(name));
    struct note n;

    if (!b)
        return;
    check_sum_of(a, name, b);
    if (stamp_is_name(name))
        stamp_check(a, name, b);
    else if (!anchor_note(a, name, b, &n))
        return;
    else if (a->n_marks == MARKS_MAX)
        audit_fail_at(a, name, "anchor", "expected at most %d anchors, found more", ANCHORS_MAX);
    else
        mark_add(a, &n, name, "anchor");
}

/* Files of the manifest whose name starts so. */
static void read_listed(struct audit *a, const char *folder,
                        void (*read_one)(struct audit *a, const char *name))
{
    for (size_t i = 0; a->manifest && i < a->manifest->n && a->error == 0; i++)
        if (strncmp(a->manifest->entry[i].name, folder, strlen(folder)) == 0)
            read_one(a, a->manifest->entry[i].name);
}

static bool read_checkpoint(struct audit *a)
{
    AUTO(buf) struct buf *b = read_file(a, "checkpoint", NOTE_MAX);

    if (!b)
        return false;
    check_sum_of(a, "checkpoint", b);
    if (note_read(buf_data(b), buf_len(b), &a->checkpoint) < 0) {
        audit_fail_at(a, "checkpoint", "checkpoint", "expected a note, found something else");
        return false;
    }
    return true;
}

/* The log the checkpoint speaks of is the one that was asked for. */
static void check_origin(struct audit *a)
{
    const char *found = a->checkpoint.origin;
    const char *since = a->since ? a->since->origin : NULL;
    size_t prefix = 0, since_prefix = 0;
    uint64_t since_epoch = 0;

    if (origin_epoch(found, &prefix, &a->epoch) < 0) {
        audit_fail_at(a, "checkpoint", "origin", "expected <id>/tekd/audit/<epoch>, found %s",
                      found);
        return;
    }
    if (a->origin_wanted && strcmp(a->origin_wanted, found) != 0)
        audit_fail_at(a, "checkpoint", "origin", "expected %s, found %s", a->origin_wanted, found);
    if (!since || strcmp(since, found) == 0)
        return;
    if (origin_epoch(since, &since_prefix, &since_epoch) < 0 || since_prefix != prefix ||
        memcmp(since, found, prefix) != 0 || since_epoch + 1 != a->epoch)
        audit_fail_at(a, "checkpoint", "origin",
                      "expected %s (of --since) or the epoch after it, found %s", since, found);
}

static int by_size(const void *x, const void *y)
{
    const struct mark *a = x, *b = y;

    return (a->note.size > b->note.size) - (a->note.size < b->note.size);
}

bool export_read(struct audit *a)
{
    read_manifest(a);
    if (a->error < 0 || !read_checkpoint(a))
        return false;
    check_origin(a);
    read_listed(a, "keys/", read_key);
    mark_add(a, &a->checkpoint, "checkpoint", "root");
    if (a->since && strcmp(a->since->origin, a->checkpoint.origin) == 0)
        mark_add(a, a->since, "the note of --since", "since");
    read_listed(a, "anchors/", read_anchor);
    qsort(a->mark, a->n_marks, sizeof *a->mark, by_size);
    return a->error == 0;
}
