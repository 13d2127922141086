#include "internal.h"

#include <string.h>

#include "tekd/err.h"

/* Of the epoch that it is asked for. */
static int read_note(void *arg, struct store_tx *tx)
{
    struct publication *p = arg;
    uint64_t size;
    int r = store_tx_note_last(tx, p->epoch, p->text, &size);

    if (r < 0)
        return r;
    p->len = strlen(p->text);
    return note_read(p->text, p->len, &p->note) < 0 ? TEKD_EINTERNAL
                                                    : 0; /* the store verified it */
}

int newest_read(struct store *s, struct publication *ret_publication)
{
    struct store_status status;

    store_status_get(s, &status);
    *ret_publication = (struct publication){.epoch = status.epoch};
    return store_call(s, STORE_READ, read_note, ret_publication);
}
