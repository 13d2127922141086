#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "tekd/err.h"

void keys_peer_clear(struct keys_peer *p)
{
    free(p->ca_pem);
    *p = (struct keys_peer){.row = 0};
}

static int copy(const struct bsa_state *s, struct keys_peer *ret_peer)
{
    char *ca_pem = NULL;

    if (!s || s->row->row == 0)
        return TEKD_ENOTFOUND;
    if (!s->row->enabled)
        return TEKD_EDENIED;
    if (s->row->ca_pem) {
        ca_pem = strdup(s->row->ca_pem);
        if (!ca_pem)
            return TEKD_ENOMEM;
    }
    *ret_peer =
        (struct keys_peer){.row = s->row->row, .ca_pem = ca_pem, .n_certs = s->row->n_certs};
    memcpy(ret_peer->id, s->row->id, sizeof(ret_peer->id));
    memcpy(ret_peer->url, s->row->url, sizeof(ret_peer->url));
    memcpy(ret_peer->cert, s->row->cert, sizeof(ret_peer->cert));
    return 0;
}

int keys_peer_by_cert(struct keys *k, const uint8_t sha256[static 32], struct keys_peer *ret_peer)
{
    AUTO_BSA struct bsa_state *s = registry_by_cert(k->registry, sha256);

    return copy(s, ret_peer);
}

int keys_peer_by_row(struct keys *k, int64_t row, struct keys_peer *ret_peer)
{
    AUTO_BSA struct bsa_state *s = registry_by_row(k->registry, row);

    return copy(s, ret_peer);
}
