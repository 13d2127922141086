/*
 * Cosigned checkpoints (C2SP tlog-cosignature) in anchors/: NAME.cosigned is a note with one
 * cosignature.  Whose word counts is the auditor's to say, by the keys of witnesses; without any
 * the note is looked at like every other one, and the cosignature only read.
 */
#include <fcntl.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/err.h"

static const char suffix[] = ".cosigned";

int witness_read_key(const char *text, struct cosign_key *ret_key)
{
    AUTO(buf) struct buf *b = NULL;
    size_t len;
    int r;

    if (strchr(text, '+'))
        return cosign_key_read(text, strlen(text), ret_key);
    r = file_read(AT_FDCWD, text, COSIGN_KEY_MAX, &b, NULL);
    if (r < 0)
        return r;
    len = buf_len(b);
    while (len > 0 && buf_str(b)[len - 1] == '\n')
        len--;
    return cosign_key_read(buf_str(b), len, ret_key);
}

bool cosigned_is_name(const char *name)
{
    size_t len = strlen(name);

    return len > sizeof suffix - 1 && strcmp(name + len - (sizeof suffix - 1), suffix) == 0;
}

/* By the first witness whose it is. */
static int verify(const struct audit *a, const struct cosignature *c, const struct note *n)
{
    int r = TEKD_ENOTFOUND;

    for (size_t i = 0; i < a->n_witnesses && r == TEKD_ENOTFOUND; i++)
        r = cosign_verify(c, &a->witness[i], n);
    return a->n_witnesses > 0 ? r : 0;
}

static void remember(struct audit *a, const char *name, const struct note *n, int64_t time_s)
{
    struct stamp *s;

    if (!audit_room(a, (void **)&a->cosigned, &a->cosigned_room, a->n_cosigned,
                    sizeof *a->cosigned))
        return;
    s = &a->cosigned[a->n_cosigned++];
    s->size = n->size;
    s->utc_us = time_s * 1000000;
    (void)snprintf(s->where, sizeof s->where, "%s", name);
}

bool cosigned_read(struct audit *a, const char *name, const struct buf *b, struct note *ret_note)
{
    struct cosignature c;
    int r;

    if (cosign_note_read(buf_data(b), buf_len(b), ret_note, &c) < 0) {
        audit_fail_at(a, name, "cosigned",
                      "expected a note and one cosignature, found something "
                      "else");
        return false;
    }
    r = verify(a, &c, ret_note);
    if (r == TEKD_ENOMEM)
        a->error = r;
    else if (r == TEKD_ENOTFOUND)
        audit_fail_at(a, name, "cosigned", "expected a cosignature of --witness, found one of %s",
                      c.name);
    else if (r < 0)
        audit_fail_at(a, name, "cosigned", "expected a cosignature over its note, found another");
    else
        remember(a, name, ret_note, c.time_s);
    return true;
}
