#include "cp3_fixture.h"

#include <glob.h>
#include <libxml/parser.h>
#include <libxml/xmlschemas.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

void fixture_samples_get(const char *pattern, struct fixture_samples *ret_samples)
{
    char full[512];
    glob_t *g = calloc(1, sizeof(*g));

    assert_non_null(g);
    (void)snprintf(full, sizeof(full), "%s/cp3/%s", TEST_DATA_DIR, pattern);
    assert_int_equal(glob(full, 0, NULL, g), 0);
    *ret_samples = (struct fixture_samples){g->gl_pathc, g->gl_pathv, g};
}

void fixture_samples_free(struct fixture_samples *samples)
{
    globfree(samples->opaque);
    free(samples->opaque);
}

char *fixture_file(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, CP3_BODY_MAX + 1);

    assert_non_null(f);
    assert_non_null(text);
    *ret_len = fread(text, 1, CP3_BODY_MAX, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

enum cp3_media fixture_media(const char *path)
{
    return strstr(path, ".json") != NULL ? CP3_JSON : CP3_XML;
}

/* ---- bodies ---- */

#define KEY_INFO_XML                                                                               \
    "keyID=\"" FIXTURE_KEY_ID "\" kekID=\"bsa-1/2\" wrap=\"aes-kw\" bits=\"128\" period=\"7\" "    \
    "notBefore=\"2026-01-01T00:00:00Z\" notAfter=\"2026-01-01T00:10:00Z\""
#define KEY_INFO_JSON                                                                              \
    "{\"keyID\":\"" FIXTURE_KEY_ID "\",\"kekID\":\"bsa-1/2\",\"wrap\":\"aes-kw\",\"bits\":128,"    \
    "\"period\":7,\"notBefore\":\"2026-01-01T00:00:00Z\",\"notAfter\":\"2026-01-01T00:10:00Z\"}"

/* By hand, not from the codec's table: in which messages a field is, and in which it must be. */
static const struct part {
    const char *name, *xml, *json;
    const char *in, *must; /* tags */
    bool extension;
} parts[] = {
    {"Tag", NULL, NULL, "1234", "1234", false},
    {"Version", "1", "1", "1234", "", false},
    {"MessageID", "m-1", "\"m-1\"", "1234", "1234", false},
    {"ContentID", "urn:x:content", "\"urn:x:content\"", "1234", "1234", false},
    {"Destination", "to.example", "\"to.example\"", "1234", "1234", false},
    {"Source", "from.example", "\"from.example\"", "1234", "1234", false},
    {"Status", "0", "0", "24", "24", false},
    {"Data", FIXTURE_DATA, "\"" FIXTURE_DATA "\"", "23", "23", false},
    {"Time", "2026-01-01T00:00:00Z", "\"2026-01-01T00:00:00Z\"", "1234", "", false},
    {"KeyInfo", KEY_INFO_XML, KEY_INFO_JSON, "23", "", true},
    {"Period", "index=\"7\"", "{\"index\":7}", "1", "", true},
};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

static const struct part *find(const char *field)
{
    for (size_t i = 0; i < PARTS; i++) {
        if (strcmp(parts[i].name, field) == 0)
            return &parts[i];
    }
    fail_msg("no field %s", field);
    return NULL;
}

bool fixture_has(int tag, const char *field)
{
    return strchr(find(field)->in, '0' + tag) != NULL;
}

bool fixture_must_have(int tag, const char *field)
{
    return strchr(find(field)->must, '0' + tag) != NULL;
}

unsigned fixture_line(int tag, const char *field)
{
    unsigned line = 2;

    for (const struct part *p = parts; strcmp(p->name, field) != 0; p++)
        line += strchr(p->in, '0' + tag) != NULL;
    return line;
}

struct text {
    char *out;
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *format, ...)
{
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(t->out + t->len, FIXTURE_BODY_MAX - t->len, format, ap);
    va_end(ap);
    assert_true(n >= 0 && (size_t)n < FIXTURE_BODY_MAX - t->len);
    t->len += (size_t)n;
}

static void add_part(struct text *t, const struct fixture_body *b, const struct part *p)
{
    char tag[2] = {(char)('0' + b->tag), '\0'};
    bool changed = b->change != FIXTURE_WHOLE && strcmp(p->name, b->field) == 0;
    const char *value = b->media == CP3_XML ? p->xml : p->json;
    int times = changed && b->change == FIXTURE_WITHOUT ? 0 : 1;

    if (value == NULL)
        value = tag;
    if (changed && b->change == FIXTURE_VALUE)
        value = b->text;
    if (changed && b->change == FIXTURE_TWICE)
        times = 2;
    if (changed && b->change == FIXTURE_BEFORE)
        add(t, "%s", b->text);
    for (; times > 0; times--) {
        if (b->media == CP3_JSON)
            add(t, "%s\"%s\":%s", t->len > 2 ? ",\n" : "", p->name, value);
        else if (p->extension)
            add(t, "<x:%s %s/>\n", p->name, value);
        else
            add(t, "<%s>%s</%s>\n", p->name, value, p->name);
    }
}

size_t fixture_build(const struct fixture_body *b, char out[FIXTURE_BODY_MAX])
{
    const char *root = cp3_tag_name((enum cp3_tag)b->tag);
    struct text t = {out, 0};

    if (b->media == CP3_JSON)
        add(&t, "{\n");
    else
        add(&t, "<%s xmlns=\"%s\" xmlns:x=\"%s\">\n", root, CP3_NAMESPACE, CP3_EXT_NAMESPACE);
    for (size_t i = 0; i < PARTS; i++) {
        if (fixture_has(b->tag, parts[i].name))
            add_part(&t, b, &parts[i]);
    }
    if (b->media == CP3_JSON)
        add(&t, "}");
    else
        add(&t, "</%s>", root);
    return t.len;
}

void fixture_message(enum cp3_tag tag, struct cp3_message *m)
{
    struct cp3_reader *reader;
    char body[FIXTURE_BODY_MAX];
    size_t len =
        fixture_build(&(struct fixture_body){CP3_JSON, (int)tag, FIXTURE_WHOLE, NULL, NULL}, body);

    assert_int_equal(cp3_reader_new(&reader), 0);
    assert_int_equal(cp3_read(reader, CP3_JSON, body, len, m, NULL), 0);
    cp3_reader_free(reader);
}

/* ---- schemas ---- */

/* The schemas do not import each other: a schema that does lets extensions be checked too. */
static const char both[] =
    "<xs:schema xmlns:xs=\"http://www.w3.org/2001/XMLSchema\">"
    "<xs:import namespace=\"" CP3_NAMESPACE "\" schemaLocation=\"" CP3_XSD_DIR "/cp3.xsd\"/>"
    "<xs:import namespace=\"" CP3_EXT_NAMESPACE "\" schemaLocation=\"" CP3_XSD_DIR
    "/cp3-ext.xsd\"/>"
    "</xs:schema>";

bool fixture_is_valid(const char *body, size_t len)
{
    xmlSchemaParserCtxtPtr parser = xmlSchemaNewMemParserCtxt(both, (int)strlen(both));
    xmlSchemaPtr schema = xmlSchemaParse(parser);
    xmlSchemaValidCtxtPtr valid;
    xmlDocPtr doc;
    int r;

    assert_non_null(schema);
    valid = xmlSchemaNewValidCtxt(schema);
    assert_non_null(valid);
    doc = xmlReadMemory(body, (int)len, "body", NULL, XML_PARSE_NONET);
    r = doc != NULL ? xmlSchemaValidateDoc(valid, doc) : -1;
    xmlFreeDoc(doc);
    xmlSchemaFreeValidCtxt(valid);
    xmlSchemaFree(schema);
    xmlSchemaFreeParserCtxt(parser);
    return r == 0;
}
