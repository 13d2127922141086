/* tek-provision list: every key of the token, and what is wrong with it. */
#include <stdio.h>

#include "provision.h"
#include "tekd/enc.h"
#include "tekd/err.h"

struct listing {
    struct token *token;
    bool json;
    json_t *keys;
    size_t n;
    size_t weak;
};

static void print_key(struct token *t, const struct token_key *k)
{
    char id[ENC_HEX_LEN(HSM_ID_MAX) + 1];
    char fingerprint[ENC_HEX_LEN(32) + 1];

    enc_hex(k->id, k->id_len, id);
    printf("%-12s %-4s %-28s id %s%s%s%s%s%s\n", token_key_kind_name(k->kind), k->type, k->label,
           id, k->wrap ? ", " : "", k->wrap ? hsm_wrap_name(k->wrap) : "",
           k->imported ? ", imported" : "", k->check_value[0] ? ", check value " : "",
           k->check_value);
    if (session_fingerprint(t, k, fingerprint))
        printf("             fingerprint %s\n", fingerprint);
    for (size_t i = 0; i < k->findings.n; i++)
        printf("             ! %s\n", k->findings.text[i]);
}

static int visit(void *arg, const struct token_key *k)
{
    struct listing *l = arg;

    l->n++;
    l->weak += k->findings.n > 0;
    if (l->json)
        return json_array_append_new(l->keys, session_key_json(l->token, k)) == 0 ? 0 : TEKD_ENOMEM;
    print_key(l->token, k);
    return 0;
}

int cmd_list(const struct options *o)
{
    AUTO(token) struct token *t = NULL;
    struct listing l = {.json = o->value[OPT_JSON], .keys = json_array()};
    int r = session_open(o, TOKEN_READ_ONLY, &t);

    if (r == 0) {
        l.token = t;
        r = token_key_each(t, visit, &l);
        if (r < 0)
            (void)session_fail(t, r);
    }
    if (r < 0) {
        json_decref(l.keys);
        return r;
    }
    return options_done(o, l.keys, "%zu keys, %zu of them weaker than tekd takes", l.n, l.weak);
}
