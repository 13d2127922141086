/*
 * audit export DIR: the directory that tek-audit reads (docs/audit.md).  It is made under another
 * name and gets its own when it is whole.
 */
#include "tekctl.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/note.h"

#define PROGRESS_EVERY 20000 /* records between two progress lines */
#define SYNC_OCTETS    4194304
#define SIGNERS_MAX    16 /* keys of one epoch */

#define ANCHOR_OCTETS_MAX 65537 /* and a line end */
#define ANCHOR_NAME_MAX   54    /* with anchors/ before it 62 */
#define ANCHOR_LETTERS    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

/* A file of the export, hashed while it is written. */
struct out {
    FILE *f;
    EVP_MD_CTX *md;
    size_t unsynced; /* octets */
    bool failed;     /* a sync */
    char name[64];
};

struct export
{
    struct session *session;
    int dir;
    FILE *sums;
    uint64_t records, notes;
    uint64_t octets; /* of the records */
    size_t n_signers;
    uint8_t signer[SIGNERS_MAX][4]; /* key ids of the notes' lines */
    char anchor[ANCHOR_OCTETS_MAX]; /* a file of anchors/ on its way */
    struct deliveries deliveries;
};

static int out_open(struct export *x, const char *name, struct out *o)
{
    AUTO_FD int fd = openat(x->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

    *o = (struct out){.md = EVP_MD_CTX_new()};
    (void)snprintf(o->name, sizeof(o->name), "%s", name);
    if (fd >= 0)
        o->f = fdopen(fd, "w");
    if (!o->f || !o->md || EVP_DigestInit_ex(o->md, EVP_sha256(), NULL) != 1) {
        complain("%s: %s", name, strerror(errno));
        return TEKCTL_FAILED;
    }
    (void)TAKE_FD(fd);
    return TEKCTL_DONE;
}

/* What is written is synced now and then: at the end in one piece it would hold up the server's own
 * syncs, for which its keys wait. */
static void out_write(struct out *o, const void *data, size_t len)
{
    (void)fwrite(data, 1, len, o->f);
    (void)EVP_DigestUpdate(o->md, data, len);
    o->unsynced += len;
    if (o->unsynced < SYNC_OCTETS)
        return;
    o->unsynced = 0;
    if (fflush(o->f) != 0 || fdatasync(fileno(o->f)) < 0)
        o->failed = true;
}

/* Durable, and its line in SHA256SUMS. */
static int out_close(struct export *x, struct out *o)
{
    uint8_t digest[32];
    char hex[ENC_HEX_LEN(32) + 1];
    int ok = o->f && !o->failed && !ferror(o->f) && fflush(o->f) == 0 && fsync(fileno(o->f)) == 0;

    if (ok && EVP_DigestFinal_ex(o->md, digest, NULL) == 1) {
        enc_hex(digest, sizeof(digest), hex);
        (void)fprintf(x->sums, "%s  %s\n", hex, o->name);
    }
    if (o->f)
        ok = fclose(o->f) == 0 && ok;
    EVP_MD_CTX_free(o->md);
    if (!ok)
        complain("%s: %s", o->name, strerror(errno));
    return ok ? TEKCTL_DONE : TEKCTL_FAILED;
}

static int write_file(struct export *x, const char *name, const void *data, size_t len)
{
    struct out o;
    int r = out_open(x, name, &o);

    if (r != TEKCTL_DONE)
        return r;
    out_write(&o, data, len);
    return out_close(x, &o);
}

/* ---- the key --------------------------------------------------------------------------------- */

static int write_pem(struct export *x, EVP_PKEY *key, const char *name)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    long len = bio && PEM_write_bio_PUBKEY(bio, key) == 1 ? BIO_get_mem_data(bio, &data) : 0;
    int r = len > 0 ? write_file(x, name, data, (size_t)len) : TEKCTL_FAILED;

    BIO_free(bio);
    return r;
}

/* The keys that signed this epoch: one that is not set any more may not have. */
static bool has_signed(const struct export *x, const uint8_t id[static 4])
{
    for (size_t i = 0; i < x->n_signers; i++) {
        if (memcmp(x->signer[i], id, sizeof(x->signer[i])) == 0)
            return true;
    }
    return false;
}

static int take_signers(struct export *x, const char *note, size_t len)
{
    struct note n;

    if (note_read(note, len, &n) < 0) {
        complain("a note of the stream does not parse");
        return TEKCTL_FAILED;
    }
    for (size_t i = 0; i < n.n_signatures; i++) {
        const uint8_t *id = n.signature[i].key_id;

        if (!has_signed(x, id) && x->n_signers < SIGNERS_MAX)
            memcpy(x->signer[x->n_signers++], id, sizeof(x->signer[0]));
    }
    return TEKCTL_DONE;
}

/* keys/<key id>.pem: convenience; an auditor trusts only the key he brings. */
static int write_key(struct export *x, const char *origin, const char *spki_hex)
{
    uint8_t der[1024], id[4];
    size_t len = strlen(spki_hex) / 2;
    const unsigned char *p = der;
    char name[32], hex[ENC_HEX_LEN(4) + 1];
    EVP_PKEY *key;
    int r = TEKCTL_FAILED;

    if (len > sizeof(der) || enc_hex_read(spki_hex, len * 2, der, len) < 0)
        return TEKCTL_FAILED;
    key = d2i_PUBKEY(NULL, &p, (long)len);
    if (key && note_key_id(origin, key, id) == 0) {
        enc_hex(id, sizeof(id), hex);
        (void)snprintf(name, sizeof(name), "keys/%s.pem", hex);
        r = has_signed(x, id) ? write_pem(x, key, name) : TEKCTL_DONE;
    }
    EVP_PKEY_free(key);
    return r;
}

static int write_keys(struct export *x, const char *origin, const json_t *keys)
{
    const json_t *key;
    size_t i;
    int r = TEKCTL_DONE;

    json_array_foreach (keys, i, key) {
        if (r == TEKCTL_DONE)
            r = write_key(x, origin, json_is_string(key) ? json_string_value(key) : "");
    }
    return r;
}

/* ---- the stream ------------------------------------------------------------------------------ */

static void progress(const struct export *x, uint64_t of)
{
    if (isatty(STDERR_FILENO) && (x->records % PROGRESS_EVERY == 0 || x->records == of))
        (void)fprintf(stderr, "\r%llu of %llu records", (unsigned long long)x->records,
                      (unsigned long long)of);
}

/* A note of the stream: its octets and a line end; in the file an empty line ends it. */
static int take_note(struct export *x, const char *line, struct out *notes)
{
    char note[NOTE_MAX + 1], *end;
    unsigned long len = strtoul(line + 2, &end, 10);

    if (*end || len == 0 || len > NOTE_MAX ||
        fread(note, 1, len + 1, x->session->answer) != len + 1)
        return TEKCTL_FAILED;
    if (take_signers(x, note, len) != TEKCTL_DONE)
        return TEKCTL_FAILED;
    x->notes++;
    out_write(notes, note, len);
    out_write(notes, "\n", 1);
    return TEKCTL_DONE;
}

/* A name that leads nowhere else. */
static bool is_anchor_name(const char *name)
{
    size_t len = strlen(name);

    return len > 0 && len <= ANCHOR_NAME_MAX && name[0] != '.' &&
           strspn(name, ANCHOR_LETTERS) == len;
}

/* A file of anchors/: its octets and a line end. */
static int take_anchor(struct export *x, const char *line)
{
    char name[sizeof("anchors/") + ANCHOR_NAME_MAX], *end;
    unsigned long len = strtoul(line + 2, &end, 10);

    if (*end != ' ' || !is_anchor_name(end + 1) || len == 0 || len >= sizeof(x->anchor) ||
        fread(x->anchor, 1, len + 1, x->session->answer) != len + 1)
        return TEKCTL_FAILED;
    (void)snprintf(name, sizeof(name), "anchors/%s", end + 1);
    return write_file(x, name, x->anchor, len);
}

/* What is pending at the end has to be known by then: where each delivery's record stands. */
static int follow_delivery(struct export *x, const char *line, size_t len)
{
    AUTO(record) struct record *r = NULL;
    struct delivery *d = NULL;
    const char *what;
    uint64_t seq = 0;
    int result;

    if (!deliveries_concern(line, len))
        return TEKCTL_DONE;
    if (record_parse(line, len, &r, &what) < 0) {
        complain("a record of the stream does not parse: %s", what);
        return TEKCTL_FAILED;
    }
    result = deliveries_take(&x->deliveries, r, &d);
    if (d && record_get_int(r, "seq", &seq) && d->seq == seq)
        d->at = x->octets;
    return result;
}

static int take_record(struct export *x, const char *line, size_t len, struct out *records)
{
    int r = follow_delivery(x, line, len);

    out_write(records, line, len);
    out_write(records, "\n", 1);
    x->octets += len + 1;
    x->records++;
    return r;
}

static int take_other(struct export *x, const char *line, struct out *notes)
{
    if (strncmp(line, "N ", 2) == 0)
        return take_note(x, line, notes);
    return strncmp(line, "A ", 2) == 0 ? take_anchor(x, line) : TEKCTL_FAILED;
}

static int take_stream(struct export *x, struct out *records, struct out *notes, uint64_t of)
{
    for (;;) {
        size_t len = 0;
        AUTO_MEM char *line = stream_line(x->session->answer, &len);

        if (!line)
            return TEKCTL_UNREACHABLE;
        if (strcmp(line, "E") == 0)
            return TEKCTL_DONE;
        if (strncmp(line, "R ", 2) == 0) {
            if (take_record(x, line + 2, len - 2, records) != TEKCTL_DONE)
                return TEKCTL_FAILED;
            progress(x, of);
        } else if (take_other(x, line, notes) != TEKCTL_DONE) {
            return TEKCTL_FAILED;
        }
    }
}

static int write_stream(struct export *x, uint64_t of)
{
    struct out records, notes;
    int r = out_open(x, "audit.jsonl", &records), closed;

    if (r != TEKCTL_DONE)
        return r;
    r = out_open(x, "checkpoints.txt", &notes);
    if (r == TEKCTL_DONE) {
        r = take_stream(x, &records, &notes, of);
        closed = out_close(x, &notes);
        r = r == TEKCTL_DONE ? closed : r;
    }
    closed = out_close(x, &records);
    if (r == TEKCTL_UNREACHABLE)
        complain("the stream was cut after %llu records", (unsigned long long)x->records);
    return r == TEKCTL_DONE ? closed : r;
}

/* ---- what is pending ------------------------------------------------------------------------- */

/* The record that stands there in audit.jsonl, with its line end. */
static int copy_record(FILE *from, uint64_t at, struct out *to)
{
    AUTO_MEM char *line = NULL;
    size_t room = 0;
    ssize_t n;

    if (fseeko(from, (off_t)at, SEEK_SET) < 0 || (n = getline(&line, &room, from)) <= 0) {
        complain("audit.jsonl: %s", strerror(errno));
        return TEKCTL_FAILED;
    }
    out_write(to, line, (size_t)n);
    return TEKCTL_DONE;
}

static int copy_pending(struct export *x, struct out *to)
{
    AUTO_FD int fd = openat(x->dir, "audit.jsonl", O_RDONLY | O_CLOEXEC);
    FILE *from = fd >= 0 ? fdopen(fd, "r") : NULL;
    int r = TEKCTL_DONE;

    if (!from) {
        complain("audit.jsonl: %s", strerror(errno));
        return TEKCTL_FAILED;
    }
    (void)TAKE_FD(fd);
    for (size_t i = 0; i < x->deliveries.n && r == TEKCTL_DONE; i++) {
        if (x->deliveries.list[i].open)
            r = copy_record(from, x->deliveries.list[i].at, to);
    }
    (void)fclose(from);
    return r;
}

/* pending.jsonl: the records that prepared what is still open. */
static int write_pending(struct export *x)
{
    struct out o;
    int r = out_open(x, "pending.jsonl", &o), closed;

    if (r != TEKCTL_DONE)
        return r;
    r = copy_pending(x, &o);
    closed = out_close(x, &o);
    return r == TEKCTL_DONE ? closed : r;
}

/* ---- the directory --------------------------------------------------------------------------- */

static int write_all(struct export *x, const json_t *header)
{
    const char *note = json_string_value(json_object_get(header, "checkpoint"));
    const json_t *keys = json_object_get(header, "keys");
    uint64_t of = (uint64_t)json_integer_value(json_object_get(header, "records"));
    struct note parsed;
    int r;

    if (!note || !json_is_array(keys) || note_read(note, strlen(note), &parsed) < 0) {
        complain("the server has no checkpoint to export");
        return TEKCTL_FAILED;
    }
    x->deliveries.epoch = (uint64_t)json_integer_value(json_object_get(header, "epoch"));
    r = write_stream(x, of);
    if (r == TEKCTL_DONE)
        r = write_file(x, "checkpoint", note, strlen(note));
    if (r == TEKCTL_DONE)
        r = write_keys(x, parsed.origin, keys);
    if (r == TEKCTL_DONE)
        r = write_pending(x);
    if (r == TEKCTL_DONE && x->records != of) {
        complain("%llu records came, %llu were announced", (unsigned long long)x->records,
                 (unsigned long long)of);
        r = TEKCTL_FAILED;
    }
    return r;
}

static int make_dir(const char *path, int *ret_fd)
{
    AUTO_FD int fd = -1;

    if (mkdir(path, 0750) < 0) {
        complain("%s: %s", path, strerror(errno));
        return TEKCTL_FAILED;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || mkdirat(fd, "keys", 0750) < 0 || mkdirat(fd, "anchors", 0750) < 0) {
        complain("%s: %s", path, strerror(errno));
        return TEKCTL_FAILED;
    }
    *ret_fd = TAKE_FD(fd);
    return TEKCTL_DONE;
}

static int fill_dir(struct export *x, const json_t *header)
{
    AUTO_FD int fd = openat(x->dir, "SHA256SUMS", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    int r;

    x->sums = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!x->sums) {
        complain("SHA256SUMS: %s", strerror(errno));
        return TEKCTL_FAILED;
    }
    (void)TAKE_FD(fd);
    r = write_all(x, header);
    if ((ferror(x->sums) || fflush(x->sums) != 0 || fsync(fileno(x->sums)) != 0) &&
        r == TEKCTL_DONE) {
        complain("SHA256SUMS: %s", strerror(errno));
        r = TEKCTL_FAILED;
    }
    (void)fclose(x->sums);
    return r;
}

static int print_done(const struct export *x, const char *dir)
{
    AUTO_JSON json_t *doc = NULL;

    if (x->session->json) {
        doc = json_pack("{s:I,s:I,s:s}", "records", (json_int_t)x->records, "checkpoints",
                        (json_int_t)x->notes, "directory", dir);
        text_dump(doc, JSON_INDENT(2));
        (void)putchar('\n');
    } else {
        (void)printf("%llu records, %llu checkpoints in %s\n", (unsigned long long)x->records,
                     (unsigned long long)x->notes, dir);
    }
    return text_flush(TEKCTL_DONE);
}

static int export_to(struct export *x, const char *dir, const char *part, const json_t *header)
{
    AUTO_FD int fd = -1;
    int r = make_dir(part, &fd);

    if (r != TEKCTL_DONE)
        return r;
    x->dir = fd;
    r = fill_dir(x, header);
    if (r == TEKCTL_DONE && rename(part, dir) < 0) {
        complain("%s: %s", dir, strerror(errno));
        r = TEKCTL_FAILED;
    }
    if (isatty(STDERR_FILENO))
        (void)fputs("\r", stderr);
    if (r == TEKCTL_DONE)
        return print_done(x, dir);
    complain("what was written so far is in %s", part);
    return r;
}

int export_run(struct session *s)
{
    AUTO_JSON json_t *name = json_incref(json_object_get(s->request, "dir"));
    const char *dir = json_string_value(name);
    static struct export x; /* too large for a stack */
    AUTO_JSON json_t *header = NULL;
    AUTO_MEM char *part = NULL;
    int r;

    x.session = s;
    if (access(dir, F_OK) == 0) {
        complain("%s: is there already; an export is a new directory", dir);
        return TEKCTL_FAILED;
    }
    if (asprintf(&part, "%s.part", dir) < 0)
        return TEKCTL_FAILED;
    (void)json_object_del(s->request, "dir"); /* tekd writes no files for others */
    r = session_call(s, &header);
    if (r == TEKCTL_DONE)
        r = export_to(&x, dir, part, header);
    deliveries_clear(&x.deliveries);
    return r;
}
