#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"

struct question {
    uint64_t size; /* at least */
    struct publication *found;
};

static int take(void *arg, uint64_t size, const void *note, size_t len)
{
    struct publication *p = ((struct question *)arg)->found;

    (void)size;
    if (len > NOTE_MAX || note_read(note, len, &p->note) < 0)
        return TEKD_EINTERNAL; /* the store verified it */
    memcpy(p->text, note, len);
    p->text[len] = '\0';
    p->len = len;
    return 0;
}

static int read_note(void *arg, struct store_tx *tx)
{
    const struct question *q = arg;
    const struct store_walk w = {.after = (int64_t)q->size - 1, .limit = 1, .arg = arg};

    return store_tx_note_walk(tx, &w, take);
}

/* The origin ends with it (note_origin()). */
static uint64_t epoch_of(const struct note *n)
{
    const char *last = strrchr(n->origin, '/');

    return last ? strtoull(last + 1, NULL, 10) : 0;
}

int newest_read(struct store *s, struct publication *ret_publication)
{
    struct question q = {.found = ret_publication};
    struct store_status status;
    int r;

    store_status_get(s, &status);
    q.size = status.signed_size;
    ret_publication->len = 0;
    if (q.size == 0)
        return TEKD_ENOTFOUND;
    r = store_call(s, STORE_READ, read_note, &q);
    if (r == 0 && ret_publication->len == 0)
        r = TEKD_ENOTFOUND;
    ret_publication->epoch = r == 0 ? epoch_of(&ret_publication->note) : 0;
    return r;
}
