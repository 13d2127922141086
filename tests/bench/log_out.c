#include "log_out.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/merkle.h"
#include "tekd/note.h"

#define ORIGIN       "bsm.example.net/tekd/audit/1"
#define INSTANCE     "tekd-a"
#define NAME_MAX_LEN 32

/* A file of the export, hashed while it is written. */
struct file {
    FILE *f;
    EVP_MD_CTX *md;
    char name[NAME_MAX_LEN];
};

struct log_out {
    int dir;
    struct file records, notes, sums;
    EVP_PKEY *key;
    uint8_t key_id[4];
    struct merkle_hash fingerprint;
    struct merkle_range range;
    struct note last;
    struct buf *scratch;
    uint64_t n_notes, octets;
};

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, errno ? strerrorname_np(errno) : "failed");
    exit(EXIT_FAILURE);
}

/* ---- files ---- */

static void file_open(struct log_out *o, const char *name, struct file *file)
{
    int fd = openat(o->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);

    need(fd >= 0, name);
    file->f = fdopen(fd, "w");
    file->md = EVP_MD_CTX_new();
    need(file->f && file->md && EVP_DigestInit_ex(file->md, EVP_sha256(), NULL) == 1, name);
    (void)snprintf(file->name, sizeof(file->name), "%s", name);
}

static void file_write(struct file *file, const void *octets, size_t len)
{
    need(fwrite(octets, 1, len, file->f) == len, file->name);
    need(EVP_DigestUpdate(file->md, octets, len) == 1, file->name);
}

static void file_close(struct file *file, struct file *sums)
{
    uint8_t digest[MERKLE_HASH_LEN];
    char line[ENC_HEX_LEN(MERKLE_HASH_LEN) + NAME_MAX_LEN + 4];
    int len;

    need(EVP_DigestFinal_ex(file->md, digest, NULL) == 1 && fclose(file->f) == 0, file->name);
    EVP_MD_CTX_free(file->md);
    if (!sums)
        return;
    enc_hex(digest, sizeof(digest), line);
    len = (int)strlen(line);
    len += snprintf(line + len, sizeof(line) - (size_t)len, "  %s\n", file->name);
    file_write(sums, line, (size_t)len);
}

static void write_file(struct log_out *o, const char *name, const void *octets, size_t len)
{
    struct file file;

    file_open(o, name, &file);
    file_write(&file, octets, len);
    file_close(&file, &o->sums);
}

/* ---- the key ---- */

static void make_key(struct log_out *o)
{
    unsigned char *der = NULL;
    int len;

    o->key = EVP_EC_gen("P-256");
    len = o->key ? i2d_PUBKEY(o->key, &der) : -1;
    need(len > 0, "key");
    need(EVP_Digest(der, (size_t)len, o->fingerprint.octets, NULL, EVP_sha256(), NULL) == 1, "key");
    need(note_key_id(ORIGIN, o->key, o->key_id) == 0, "key");
    OPENSSL_free(der);
}

static void write_key(struct log_out *o)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char name[NAME_MAX_LEN], hex[ENC_HEX_LEN(4) + 1], *pem = NULL;
    long len = bio && PEM_write_bio_PUBKEY(bio, o->key) == 1 ? BIO_get_mem_data(bio, &pem) : 0;

    need(len > 0, "key");
    enc_hex(o->key_id, sizeof(o->key_id), hex);
    (void)snprintf(name, sizeof(name), "keys/%s.pem", hex);
    write_file(o, name, pem, (size_t)len);
    BIO_free(bio);
}

/* ---- records and checkpoints ---- */

uint64_t log_out_record(struct log_out *o, struct record *take_r, int64_t t_us)
{
    AUTO(record) struct record *r = take_r;
    uint64_t seq = o->range.size;
    struct merkle_hash leaf;

    need(record_violation(r) == NULL, record_event(r));
    buf_reset(o->scratch);
    need(record_encode(r, seq, t_us, INSTANCE, o->scratch) == 0, record_event(r));
    merkle_leaf(buf_data(o->scratch), buf_len(o->scratch), &leaf);
    merkle_range_append(&o->range, &leaf);
    need(buf_putc(o->scratch, '\n') == 0, "record");
    file_write(&o->records, buf_data(o->scratch), buf_len(o->scratch));
    o->octets += buf_len(o->scratch);
    return seq;
}

static void sign(struct log_out *o, struct note *n)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t sig[NOTE_SIG_MAX];
    size_t len = sizeof(sig);

    buf_reset(o->scratch);
    need(note_text(n->origin, n->size, &n->root, o->scratch) == 0, "note");
    need(ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, o->key) == 1, "note");
    need(EVP_DigestSign(ctx, sig, &len, buf_data(o->scratch), buf_len(o->scratch)) == 1, "note");
    EVP_MD_CTX_free(ctx);
    need(note_add(n, o->key_id, sig, len) == 0, "note");
}

void log_out_checkpoint(struct log_out *o)
{
    struct note n = {.size = o->range.size};

    (void)snprintf(n.origin, sizeof(n.origin), "%s", ORIGIN);
    merkle_range_root(&o->range, &n.root);
    sign(o, &n);
    buf_reset(o->scratch);
    need(note_write(&n, o->scratch) == 0 && buf_putc(o->scratch, '\n') == 0, "note");
    file_write(&o->notes, buf_data(o->scratch), buf_len(o->scratch));
    o->last = n;
    o->n_notes++;
}

/* ---- the whole ---- */

struct log_out *log_out_new(const char *dir)
{
    struct log_out *o = calloc(1, sizeof(*o));

    need(o && buf_new(RECORD_MAX + NOTE_MAX, &o->scratch) == 0, "memory");
    need(mkdir(dir, 0750) == 0, dir);
    o->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(o->dir >= 0 && mkdirat(o->dir, "keys", 0750) == 0 && mkdirat(o->dir, "anchors", 0750) == 0,
         dir);
    merkle_range_init(&o->range);
    make_key(o);
    file_open(o, "audit.jsonl", &o->records);
    file_open(o, "checkpoints.txt", &o->notes);
    file_open(o, "SHA256SUMS", &o->sums);
    return o;
}

void log_out_finish(struct log_out *take_o)
{
    need(take_o->last.size == take_o->range.size, "the last checkpoint");
    file_close(&take_o->records, &take_o->sums);
    file_close(&take_o->notes, &take_o->sums);
    buf_reset(take_o->scratch);
    need(note_write(&take_o->last, take_o->scratch) == 0, "checkpoint");
    write_file(take_o, "checkpoint", buf_data(take_o->scratch), buf_len(take_o->scratch));
    write_file(take_o, "pending.jsonl", "", 0);
    write_key(take_o);
    file_close(&take_o->sums, NULL);
    (void)close(take_o->dir);
    buf_free(take_o->scratch);
    EVP_PKEY_free(take_o->key);
    free(take_o);
}

const char *log_out_origin(const struct log_out *o)
{
    (void)o;
    return ORIGIN;
}

const uint8_t *log_out_key(const struct log_out *o)
{
    return o->fingerprint.octets;
}

uint64_t log_out_records(const struct log_out *o)
{
    return o->range.size;
}

uint64_t log_out_notes(const struct log_out *o)
{
    return o->n_notes;
}

uint64_t log_out_octets(const struct log_out *o)
{
    return o->octets;
}
