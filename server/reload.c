/*
 * SIGHUP: certificate, key, CA and CRL are read again, and the log says who had that done and which
 * files are others than before.  The key is not hashed: the certificate says which one it is.
 */
#include "tekd.h"

#include <openssl/evp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define DETAIL_MAX 512
#define USER_MAX   64

/* EVP_MD_CTX is OpenSSL's typedef: no AUTO(), but the same. */
static void context_freep(EVP_MD_CTX **p)
{
    EVP_MD_CTX_free(*p);
}

static int hash_stream(FILE *f, uint8_t ret_sha256[static 32])
{
    __attribute__((cleanup(context_freep))) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t part[4096];
    size_t n;

    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        return TEKD_ENOMEM;
    while ((n = fread(part, 1, sizeof(part), f)) > 0) {
        if (EVP_DigestUpdate(ctx, part, n) != 1)
            return TEKD_ECRYPTO;
    }
    if (ferror(f))
        return TEKD_EIO;
    return EVP_DigestFinal_ex(ctx, ret_sha256, NULL) == 1 ? 0 : TEKD_ECRYPTO;
}

int reload_hash_file(const char *path, uint8_t ret_sha256[static 32])
{
    FILE *f = fopen(path, "re");
    int r = f ? hash_stream(f, ret_sha256) : TEKD_EIO;

    if (f)
        (void)fclose(f);
    return r;
}

/* ---- which files ----------------------------------------------------------------------------- */

static const char *const settings[TEKD_TLS_FILES] = {"tls.certificate", "tls.client_ca", "tls.crl"};

/* One that is not there, or not set, is all zeros: the next that is there is another one. */
static void hash_files(const struct config_tls *c, uint8_t ret_sha256[TEKD_TLS_FILES][32])
{
    const char *const paths[TEKD_TLS_FILES] = {c->certificate, c->client_ca, c->crl};

    for (size_t i = 0; i < TEKD_TLS_FILES; i++) {
        if (!paths[i] || reload_hash_file(paths[i], ret_sha256[i]) < 0)
            memset(ret_sha256[i], 0, sizeof(ret_sha256[i]));
    }
}

void reload_begin(struct tekd *t)
{
    hash_files(&t->config->tls, t->tls_sha256);
}

/* What is new becomes what is known. */
static void tell_changes(struct tekd *t, uint8_t now[TEKD_TLS_FILES][32], char *detail)
{
    size_t len = (size_t)snprintf(detail, DETAIL_MAX, "SIGHUP:");
    char hex[ENC_HEX_LEN(32) + 1];
    bool any = false;

    for (size_t i = 0; i < TEKD_TLS_FILES; i++) {
        if (memcmp(now[i], t->tls_sha256[i], sizeof(now[i])) == 0)
            continue;
        enc_hex(now[i], sizeof(now[i]), hex);
        len += (size_t)snprintf(detail + len, DETAIL_MAX - len, " %s=%s", settings[i], hex);
        memcpy(t->tls_sha256[i], now[i], sizeof(now[i]));
        any = true;
    }
    if (!any)
        (void)snprintf(detail + len, DETAIL_MAX - len, " the same files");
}

/* ---- the signal ------------------------------------------------------------------------------ */

static void put_sender(struct record *rec, uid_t uid)
{
    struct passwd pw, *found = NULL;
    char text[4096], number[USER_MAX];

    (void)getpwuid_r(uid, &pw, text, sizeof(text), &found);
    (void)snprintf(number, sizeof(number), "%u", (unsigned)uid);
    record_str(rec, "actor", found ? pw.pw_name : number);
    record_int(rec, "uid", uid);
}

static void record_reload(struct tekd *t, uid_t uid, uint8_t now[TEKD_TLS_FILES][32])
{
    struct record *rec = NULL;
    char detail[DETAIL_MAX];

    tell_changes(t, now, detail);
    if (record_new("config.changed", &rec) < 0)
        return;
    put_sender(rec, uid);
    record_str(rec, "detail", detail);
    keys_note(t->keys, rec);
}

/* Requests and pushes have the new files, or both keep the old ones; each says what is wrong. */
static int take_files(struct tekd *t)
{
    struct trust *files = NULL;
    int r = push_read_files(t->push, &files);

    if (r < 0) {
        log_event(LOG_ERROR, "tls", "reload-refused", LOG_STR("kept", "the old files"));
        return r;
    }
    r = http_reload(t->http);
    if (r < 0)
        push_drop_files(files);
    else
        push_use_files(t->push, files);
    return r;
}

/* Files that were refused changed nothing, and are no record. */
void reload_run(struct tekd *t, uid_t uid)
{
    uint8_t now[TEKD_TLS_FILES][32];

    hash_files(&t->config->tls, now);
    if (take_files(t) < 0)
        return;
    record_reload(t, uid, now);
    t->certificates_next_us = 0; /* what is wrong with the new ones is said at once */
}
