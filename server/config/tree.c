/* From text to nodes that know their line and column, and the messages about them. */
#include "config_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tekd/buf.h"
#include "tekd/err.h"

/*
 * Levels of mappings and lists.  The deepest setting stands in the third, audit.witness.url; and
 * libyaml takes minutes over a file of nothing but opening brackets.
 */
#define NESTING_MAX 8

void tree_put_path(struct buf *out, const struct where *where)
{
    if (where->up != NULL)
        tree_put_path(out, where->up);
    if (where->key == NULL)
        buf_printf(out, "[%zu]", where->index);
    else
        buf_printf(out, "%s%s", where->up != NULL ? "." : "", where->key);
}

/* The message so far is cut, not lost, when the end does not fit. */
static void add_text(struct config_error *e, const char *fmt, va_list ap)
{
    size_t have = strlen(e->message);

    (void)vsnprintf(e->message + have, sizeof(e->message) - have, fmt, ap);
}

static void __attribute__((format(printf, 2, 3))) add(struct config_error *e, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    add_text(e, fmt, ap);
    va_end(ap);
}

/* "FILE:LINE:COLUMN: PATH: " */
static void start_message(struct reader *r, const yaml_mark_t *mark, const struct where *where)
{
    AUTO(buf) struct buf *path = NULL;

    memset(r->error, 0, sizeof(*r->error));
    r->error->line = (unsigned)mark->line + 1;
    r->error->column = (unsigned)mark->column + 1;
    add(r->error, "%s:%u:%u: ", r->file, r->error->line, r->error->column);
    if (where != NULL && buf_new(TREE_PATH_MAX, &path) == 0) {
        tree_put_path(path, where);
        add(r->error, "%s: ", buf_str(path));
    }
}

int tree_refuse(struct reader *r, const yaml_mark_t *mark, const struct where *where,
                const char *fmt, ...)
{
    va_list ap;

    start_message(r, mark, where);
    va_start(ap, fmt);
    add_text(r->error, fmt, ap);
    va_end(ap);
    return TEKD_EINVAL;
}

int tree_fail(struct reader *r, int err, const char *fmt, ...)
{
    va_list ap;

    memset(r->error, 0, sizeof(*r->error));
    add(r->error, "%s: ", r->file);
    va_start(ap, fmt);
    add_text(r->error, fmt, ap);
    va_end(ap);
    return err;
}

void tree_show(const yaml_node_t *node, char out[static TREE_SHOWN_MAX])
{
    const size_t max = TREE_SHOWN_MAX - sizeof("\"...\"");
    const char *quote;
    char text[TREE_SHOWN_MAX - sizeof("\"...\"") + 1] = "";
    size_t len;

    if (node->type != YAML_SCALAR_NODE) {
        (void)snprintf(out, TREE_SHOWN_MAX, "%s",
                       node->type == YAML_MAPPING_NODE ? "a mapping" : "a list");
        return;
    }
    quote = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? "" : "\"";
    len = node->data.scalar.length;
    if (len == 0 && *quote == '\0') {
        (void)snprintf(out, TREE_SHOWN_MAX, "nothing");
        return;
    }
    if (len > max) {
        len = max;
        while (len > 0 && (node->data.scalar.value[len] & 0xC0) == 0x80)
            len--; /* in front of a character, not inside of it */
    }
    for (size_t i = 0; i < len; i++) {
        yaml_char_t c = node->data.scalar.value[i];

        text[i] = c < ' ' || c == 0x7F ? '?' : (char)c;
    }
    (void)snprintf(out, TREE_SHOWN_MAX, "%s%s%s%s", quote, text,
                   len < node->data.scalar.length ? "..." : "", quote);
}

/* What libyaml says, at the place where it says it. */
static int parser_refuse(struct reader *r, const yaml_parser_t *p)
{
    yaml_mark_t mark = p->problem_mark;

    if (p->error == YAML_MEMORY_ERROR)
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    if (p->error == YAML_READER_ERROR) {
        /* The reader knows the octet only: count lines and columns up to there. */
        memset(&mark, 0, sizeof(mark));
        for (size_t i = 0; i < p->problem_offset && i < r->len; i++) {
            mark.column = r->text[i] == '\n' ? 0 : mark.column + 1;
            mark.line += r->text[i] == '\n';
        }
    }
    return tree_refuse(r, &mark, NULL, "not YAML: %s%s%s", p->context != NULL ? p->context : "",
                       p->context != NULL ? ", " : "",
                       p->problem != NULL ? p->problem : "cannot be read");
}

/* Parts of YAML that a list of settings does not need, and that hide what a file says. */
static const struct {
    yaml_token_type_t type;
    const char *what;
} refused_tokens[] = {
    {YAML_ANCHOR_TOKEN, "anchors (&name) are not taken: write the value out"},
    {YAML_ALIAS_TOKEN, "aliases (*name) are not taken: write the value out"},
    {YAML_TAG_TOKEN, "tags (!name) are not taken: write the value alone"},
    {YAML_VERSION_DIRECTIVE_TOKEN, "directives (%YAML) are not taken"},
    {YAML_TAG_DIRECTIVE_TOKEN, "directives (%TAG) are not taken"},
};

static int refuse_token(struct reader *r, const yaml_token_t *token)
{
    for (size_t i = 0; i < ARRAY_SIZE(refused_tokens); i++)
        if (token->type == refused_tokens[i].type)
            return tree_refuse(r, &token->start_mark, NULL, "%s", refused_tokens[i].what);
    return 0;
}

/* How much deeper what follows is. */
static int nesting(const yaml_token_t *token)
{
    switch (token->type) {
    case YAML_BLOCK_SEQUENCE_START_TOKEN:
    case YAML_BLOCK_MAPPING_START_TOKEN:
    case YAML_FLOW_SEQUENCE_START_TOKEN:
    case YAML_FLOW_MAPPING_START_TOKEN:
        return 1;
    case YAML_BLOCK_END_TOKEN:
    case YAML_FLOW_SEQUENCE_END_TOKEN:
    case YAML_FLOW_MAPPING_END_TOKEN:
        return -1;
    default:
        return 0;
    }
}

static int check_token(struct reader *r, const yaml_token_t *token, int *inout_depth)
{
    *inout_depth += nesting(token);
    if (*inout_depth > NESTING_MAX)
        return tree_refuse(r, &token->start_mark, NULL, "expected at most %d levels", NESTING_MAX);
    return refuse_token(r, token);
}

/* Scanner's mistakes are left to tree_load(), which has the better words for them. */
static int scan_tokens(struct reader *r)
{
    yaml_parser_t parser;
    yaml_token_t token;
    bool more = true;
    int depth = 0, e = 0;

    if (!yaml_parser_initialize(&parser))
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    yaml_parser_set_input_string(&parser, r->text, r->len);
    while (e == 0 && more && yaml_parser_scan(&parser, &token)) {
        e = check_token(r, &token, &depth);
        more = token.type != YAML_STREAM_END_TOKEN;
        yaml_token_delete(&token);
    }
    yaml_parser_delete(&parser);
    return e;
}

static int load_documents(struct reader *r, yaml_parser_t *parser)
{
    yaml_document_t second;
    const yaml_node_t *root;
    int e = 0;

    if (!yaml_parser_load(parser, &r->doc))
        return parser_refuse(r, parser);
    r->has_doc = true;
    if (!yaml_parser_load(parser, &second))
        return parser_refuse(r, parser);
    root = yaml_document_get_root_node(&second);
    if (root != NULL)
        e = tree_refuse(r, &second.start_mark, NULL, "a second document starts here; one is taken");
    yaml_document_delete(&second);
    return e;
}

int tree_parse(struct reader *r)
{
    yaml_parser_t parser;
    int e;

    e = scan_tokens(r);
    if (e < 0)
        return e;
    if (!yaml_parser_initialize(&parser))
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    yaml_parser_set_input_string(&parser, r->text, r->len);
    e = load_documents(r, &parser);
    yaml_parser_delete(&parser);
    return e;
}

void tree_free(struct reader *r)
{
    if (r->has_doc)
        yaml_document_delete(&r->doc);
    r->has_doc = false;
}

/* libyaml's accessors take a document that they do not change, but do not say so. */
const yaml_node_t *tree_root(const struct reader *r)
{
    return yaml_document_get_root_node((yaml_document_t *)&r->doc);
}

const yaml_node_t *tree_node(const struct reader *r, int index)
{
    return yaml_document_get_node((yaml_document_t *)&r->doc, index);
}

const yaml_node_t *tree_get(const struct reader *r, const yaml_node_t *mapping, const char *key,
                            const yaml_node_t **ret_key)
{
    size_t len = strlen(key);

    if (mapping == NULL || mapping->type != YAML_MAPPING_NODE)
        return NULL;
    for (const yaml_node_pair_t *p = mapping->data.mapping.pairs.start;
         p < mapping->data.mapping.pairs.top; p++) {
        const yaml_node_t *k = tree_node(r, p->key);

        if (k->type != YAML_SCALAR_NODE || k->data.scalar.length != len ||
            memcmp(k->data.scalar.value, key, len) != 0)
            continue;
        if (ret_key != NULL)
            *ret_key = k;
        return tree_node(r, p->value);
    }
    return NULL;
}

/* The node of a setting; *ret_place: where it stands, or else the nearest key around it. */
static const yaml_node_t *walk(const struct reader *r, const struct where *where,
                               const yaml_mark_t **ret_place)
{
    const yaml_node_t *up, *node, *key = NULL;

    if (where == NULL) {
        node = tree_root(r);
        *ret_place = &node->start_mark;
        return node;
    }
    up = walk(r, where->up, ret_place);
    if (up == NULL)
        return NULL;
    if (where->key == NULL) {
        node = tree_node(r, up->data.sequence.items.start[where->index]);
        *ret_place = &node->start_mark;
        return node;
    }
    node = tree_get(r, up, where->key, &key);
    if (node != NULL)
        *ret_place = node->type == YAML_SCALAR_NODE ? &node->start_mark : &key->start_mark;
    return node;
}

const yaml_node_t *tree_at(const struct reader *r, const struct where *where)
{
    const yaml_mark_t *place;

    return walk(r, where, &place);
}

int tree_refuse_at(struct reader *r, const struct where *where, const char *fmt, ...)
{
    const yaml_mark_t *place;
    va_list ap;

    (void)walk(r, where, &place);
    start_message(r, place, where);
    va_start(ap, fmt);
    add_text(r->error, fmt, ap);
    va_end(ap);
    return TEKD_EINVAL;
}
