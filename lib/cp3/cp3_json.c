/*
 * CP-3 in JSON, by jansson: one object, the names of the table, extensions as objects of the same
 * names.  Before jansson sees a body it is scanned: nesting that is too deep ends it (jansson
 * recurses), and legal JSON that jansson cannot read is made such that it can, see cp3_scan.c.
 */
#include "cp3_codec.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cp3_place nowhere = {0, 0};

struct json {
    const char *text; /* the body */
    size_t len;
    struct cp3_fill *f;
    bool placed; /* the error recorded has its place */
};

/*
 * Jansson's values do not know where they stood.  Only when an error was recorded is it looked up:
 * the i-th member of the root, or the j-th in it.
 */
static void place(struct json *js, unsigned i, int j)
{
    if (js->placed || js->f->code == 0)
        return;
    cp3_fill_set_place(js->f, cp3_scan_place(js->text, js->len, i, j));
    js->placed = true;
}

static struct cp3_value value_of(const json_t *value)
{
    struct cp3_value v = {CP3_OTHER, NULL, 0, 0};

    if (json_is_string(value)) {
        v.kind = CP3_STRING;
        v.text = json_string_value(value);
        v.len = json_string_length(value);
    } else if (json_is_integer(value)) {
        v.kind = CP3_INTEGER;
        v.number = json_integer_value(value);
    }
    return v;
}

static void read_group(struct json *js, int index, json_t *object, unsigned i)
{
    const struct cp3_field *member;
    const char *name;
    json_t *value;
    int j = 0;

    if (!json_is_object(object)) {
        cp3_fill_broken(js->f, index, nowhere, "not an object");
        return;
    }
    json_object_foreach (object, name, value) {
        struct cp3_value v = value_of(value);

        member = cp3_table_member(&cp3_table[index], name);
        if (member != NULL)
            cp3_fill_member(js->f, member, &v, nowhere);
        place(js, i, j++);
    }
    cp3_fill_group_end(js->f, nowhere);
}

static void read_members(struct json *js, json_t *root)
{
    const char *name;
    json_t *value;
    unsigned i = 0;

    json_object_foreach (root, name, value) {
        struct cp3_value v = value_of(value);
        int index = cp3_table_find(name, false);

        if (index < 0)
            index = cp3_table_find(name, true);
        if (index >= 0 && cp3_fill_open(js->f, index, nowhere)) {
            if (cp3_table[index].members != NULL)
                read_group(js, index, value, i);
            else
                cp3_fill_value(js->f, index, &v, nowhere);
        }
        place(js, i++, -1);
    }
}

/* Which message it is says Tag, wherever it stands. */
static int find_tag(json_t *root)
{
    json_int_t tag = json_integer_value(json_object_get(root, cp3_table[CP3_FIELD_TAG].name));

    return tag >= CP3_REQUEST && tag <= CP3_CONFIRMATION ? (int)tag : 0;
}

/* What is missing is missing where the object ends. */
static struct cp3_place end_place(const struct json *js)
{
    size_t end = js->len;

    while (end > 1 && cp3_text_is_space(js->text[end - 1]))
        end--;
    return cp3_text_place(js->text, end - 1);
}

static void read_root(struct json *js, json_t *root)
{
    struct cp3_place start = {1, 1};

    if (!json_is_object(root)) {
        cp3_fill_fail(js->f, CP3_EFORMAT, start, "document", "not an object");
        return;
    }
    cp3_fill_set_tag(js->f, find_tag(root));
    read_members(js, root);
    if (js->f->code != 0)
        return;
    if (js->f->tag == 0)
        cp3_fill_fail(js->f, CP3_EFORMAT, end_place(js), cp3_table[CP3_FIELD_TAG].name, "missing");
    else if (cp3_fill_end(js->f, nowhere) != 0)
        cp3_fill_set_place(js->f, end_place(js));
}

static void set_error(struct json *js, int code, const json_error_t *e, const char *element,
                      const char *reason)
{
    struct cp3_place at = {(unsigned)(e->line > 0 ? e->line : 0),
                           (unsigned)(e->column > 0 ? e->column : 0)};

    cp3_fill_fail(js->f, code, at, element, "%s", reason);
    js->placed = true;
}

/* Tag and MessageID are of no use if they stand there twice; their names may hold escapes. */
static void break_repeated(struct json *js)
{
    struct cp3_scan s;
    char token, before = '\0';
    uint32_t seen = 0;

    cp3_scan_init(&s, js->text, js->len);
    for (; (token = cp3_scan_next(&s)) != '\0'; before = token) {
        json_t *name;
        int index = -1;

        if (token != '"' || s.depth != 1 || before == ':')
            continue;
        name = json_loadb(s.text + s.start, s.at - s.start, JSON_DECODE_ANY, NULL);
        if (name != NULL)
            index = cp3_table_find(json_string_value(name), false);
        json_decref(name);
        if (index < 0)
            continue;
        js->f->broken |= seen & 1u << index;
        seen |= 1u << index;
    }
}

/*
 * A member stands there twice: the message is malformed, and jansson stopped at the second.  It is
 * read once more, without that check, for its Tag and MessageID.
 */
static void read_repeated(struct json *js, const char *text, const json_error_t *e)
{
    char name[CP3_ERROR_ELEMENT_MAX * 2] = ""; /* enough to be cut when it is escaped */
    struct cp3_scan s;
    json_t *root;
    char token;

    cp3_scan_init(&s, text, js->len);
    while ((token = cp3_scan_next(&s)) != '\0' && s.at < (size_t)e->position)
        continue;
    if (token == '"' && s.at - s.start >= 2)
        (void)snprintf(name, sizeof(name), "%.*s", (int)(s.at - s.start - 2), text + s.start + 1);
    set_error(js, CP3_EFORMAT, e, name, "repeated");
    root = json_loadb(text, js->len, JSON_ALLOW_NUL, NULL);
    if (json_is_object(root))
        read_root(js, root);
    json_decref(root);
    break_repeated(js);
}

static void parse(struct json *js, const char *text)
{
    json_error_t e;
    json_t *root = json_loadb(text, js->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);

    if (root != NULL) {
        read_root(js, root);
        json_decref(root);
        return;
    }
    /* Of an allocation that failed jansson says nothing, at most a code. */
    if (json_error_code(&e) == json_error_out_of_memory || e.text[0] == '\0')
        set_error(js, CP3_ENOMEM, &e, "document", "out of memory");
    else if (json_error_code(&e) == json_error_duplicate_key)
        read_repeated(js, text, &e);
    else
        set_error(js, CP3_ESYNTAX, &e, "document", e.text);
}

/* A copy of the body that jansson can read. */
static void parse_defused(struct json *js)
{
    char *copy = malloc(js->len);
    struct cp3_scan s;
    char token;

    if (copy == NULL) {
        cp3_fill_fail(js->f, CP3_ENOMEM, nowhere, "document", "out of memory");
        return;
    }
    memcpy(copy, js->text, js->len);
    cp3_scan_init(&s, js->text, js->len);
    while ((token = cp3_scan_next(&s)) != '\0')
        (void)cp3_scan_defuse(&s, token, copy + s.start);
    parse(js, copy);
    free(copy);
}

void cp3_json_read(const char *text, size_t len, struct cp3_fill *f)
{
    struct json js = {.text = text, .len = len, .f = f};
    struct cp3_scan s;
    char token;
    bool defuse = false;

    cp3_scan_init(&s, text, len);
    while ((token = cp3_scan_next(&s)) != '\0') {
        if (s.depth > CP3_DEPTH_MAX) {
            cp3_fill_fail(f, CP3_EREFUSED, cp3_text_place(text, s.start), "document",
                          "nested too deep");
            return;
        }
        defuse = cp3_scan_defuse(&s, token, NULL) || defuse;
    }
    if (defuse)
        parse_defused(&js);
    else
        parse(&js, text);
}
