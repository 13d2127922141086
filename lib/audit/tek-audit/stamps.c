/*
 * Time stamps (RFC 3161) in anchors/: NAME.tsr is one over the note NAME.note.  Whose word counts
 * is the auditor's to say, by the CA of the authority; without one only what is stamped is
 * compared.
 */
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/err.h"
#include "tekd/secret.h"
#include "tekd/timestamp.h"

static const char suffix[] = ".tsr";

/* ---- the CA ---- */

static int add_all(X509_STORE *store, BIO *bio)
{
    X509 *x;
    int n = 0;

    while ((x = PEM_read_bio_X509(bio, NULL, secret_no_passphrase, NULL))) {
        int ok = X509_STORE_add_cert(store, x);

        X509_free(x);
        if (ok != 1)
            return TEKD_ENOMEM;
        n++;
    }
    return n > 0 ? 0 : TEKD_EFORMAT;
}

int stamps_read_ca(const char *path, X509_STORE **ret_store)
{
    BIO *bio = BIO_new_file(path, "r");
    X509_STORE *store = X509_STORE_new();
    int r = bio && store ? add_all(store, bio) : TEKD_EIO;

    BIO_free(bio);
    if (r < 0) {
        X509_STORE_free(store);
        return r;
    }
    *ret_store = store;
    return 0;
}

/* ---- the stamps ---- */

bool stamp_is_name(const char *name)
{
    size_t len = strlen(name);

    return len > sizeof suffix - 1 && strcmp(name + len - (sizeof suffix - 1), suffix) == 0;
}

/* The note that a time stamp is over; NULL: there is none, which is said. */
static struct buf *read_note(struct audit *a, const char *name)
{
    char note[FILE_NAME_MAX];
    struct buf *b = NULL;
    const char *why = NULL;
    int r;

    (void)snprintf(note, sizeof note, "%.*s.note", (int)(strlen(name) - (sizeof suffix - 1)), name);
    r = a->manifest && manifest_find(a->manifest, note)
            ? file_read(a->dirfd, note, NOTE_MAX, &b, &why)
            : TEKD_ENOTFOUND;
    if (r == TEKD_ENOMEM || r == TEKD_EIO)
        audit_unreadable(a, note, r, why);
    else if (r < 0)
        audit_fail_at(a, name, "timestamp", "expected the note that it stamps, %s, found none",
                      note);
    return b;
}

static void remember(struct audit *a, const char *name, const struct buf *note, int64_t utc_us)
{
    struct stamp *s;
    struct note n;

    /* A note that is none is told of where the notes are read. */
    if (note_read(buf_data(note), buf_len(note), &n) < 0 ||
        !audit_room(a, (void **)&a->stamp, &a->stamp_room, a->n_stamps, sizeof *a->stamp))
        return;
    s = &a->stamp[a->n_stamps++];
    s->size = n.size;
    s->utc_us = utc_us;
    (void)snprintf(s->where, sizeof s->where, "%s", name);
}

void stamp_check(struct audit *a, const char *name, const struct buf *answer)
{
    AUTO(buf) struct buf *note = read_note(a, name);
    struct timestamp_check c = {.ca = a->tsa, .at_its_time = true};
    char why[TIMESTAMP_WHY_MAX];
    int64_t utc_us = 0;
    int r;

    if (!note)
        return;
    c.octets = buf_data(note);
    c.len = buf_len(note);
    r = timestamp_verify(&c, buf_data(answer), buf_len(answer), &utc_us, why);
    if (r == TEKD_ENOMEM)
        a->error = r;
    else if (r < 0)
        audit_fail_at(a, name, "timestamp", "expected a time stamp over its note, found: %s", why);
    else
        remember(a, name, note, utc_us);
}
