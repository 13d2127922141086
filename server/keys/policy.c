#include "internal.h"

#include <fnmatch.h>
#include <string.h>

static bool entitled(const struct store_bsa *b, const char *content_id)
{
    for (size_t i = 0; i < b->n_entitle; i++) {
        if (fnmatch(b->entitle[i], content_id, 0) == 0)
            return true;
    }
    return false;
}

enum cp3_reason policy_check(const struct keys *k, const struct bsa_state *s,
                             const struct cp3_message *m)
{
    if (strcmp(m->source, s->row->id) != 0)
        return CP3_REASON_WRONG_SOURCE;
    if (strcmp(m->destination, k->bsm_id) != 0)
        return CP3_REASON_WRONG_DESTINATION;
    if (m->version > POLICY_VERSION)
        return CP3_REASON_UNSUPPORTED_VERSION;
    if (!entitled(s->row, m->content_id))
        return CP3_REASON_NOT_ENTITLED;
    return CP3_REASON_NONE;
}

const char *policy_undeliverable(const struct bsa_state *s, const char *content_id)
{
    if (!s || s->row->row == 0)
        return "is not enrolled";
    if (!s->row->enabled)
        return "is disabled";
    if (!entitled(s->row, content_id))
        return "is not entitled to this content";
    if (s->row->kek.row == 0)
        return "has no KEK in use";
    return NULL;
}
