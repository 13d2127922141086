/*
 * CP-3 in XML, by libxml2's push parser with callbacks of ours (SAX2) in place of a tree.
 *
 *     depth 1   the root: says which message it is
 *     depth 2   a field: its text is collected and goes to cp3_fill; an extension: its attributes
 *     deeper    only under elements of other namespaces, which are skipped
 *
 * Why the parser cannot be made to do more than that: DOCTYPE and processing instructions end it
 * at once, so there are no entities but the five; it is told UTF-8 or nothing; it has no loader to
 * use and XML_PARSE_HUGE is never given.  XML_PARSE_NOENT is given, because without it libxml2
 * hands out "&amp;" in an attribute as "&#38;".
 *
 * A parser context is reused: making one costs more than reading a message.  Its dictionary keeps
 * each name it ever met, and names come from peers, so a context with a large one is thrown away.
 */
#include "cp3_codec.h"

#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Far more than the names of CP-3 need, far less than would matter. */
#define DICT_MAX (256u << 10)

#define ATTRIBUTE_WORDS 5 /* libxml2 gives name, prefix, URI, value, end of value */

struct cp3_xml {
    xmlParserCtxtPtr parser;
    struct cp3_fill *f;
    unsigned depth;
    unsigned skip;       /* the depth of the element that is skipped with all in it, or 0 */
    unsigned foreign;    /* elements of other namespaces met */
    int field;           /* the index of the open field, or -1 */
    struct cp3_place at; /* of the open field; after the last, of the end of the root */
    size_t text_len;
    bool too_long;
    const char *root; /* the name of the message, for errors */
    char text[CP3_TEXT_MAX];
};

static struct cp3_xml *xml_of(void *context)
{
    return ((xmlParserCtxtPtr)context)->_private;
}

static struct cp3_place here(const struct cp3_xml *xml)
{
    const xmlParserInput *in = xml->parser->input;

    if (in == NULL)
        return (struct cp3_place){0, 0};
    return (struct cp3_place){(unsigned)in->line, (unsigned)in->col};
}

/* The name of what is being read, for errors that libxml2 or the text gives. */
static const char *open_name(const struct cp3_xml *xml)
{
    if (xml->field >= 0)
        return cp3_table[xml->field].name;
    return xml->depth > 0 && xml->root != NULL ? xml->root : "document";
}

static void refuse(struct cp3_xml *xml, const char *what)
{
    cp3_fill_fail(xml->f, CP3_EREFUSED, here(xml), open_name(xml), "%s", what);
    xmlStopParser(xml->parser);
}

/* Attributes of a field or of the root: none but those of xsi. */
static void check_attributes(struct cp3_xml *xml, const char *name, const xmlChar **attributes,
                             int count)
{
    for (int i = 0; i < count; i++, attributes += ATTRIBUTE_WORDS) {
        if (attributes[2] == NULL || strcmp((const char *)attributes[2], CP3_XSI_NAMESPACE) != 0)
            cp3_fill_fail(xml->f, CP3_EFORMAT, here(xml), name, "unknown attribute %s",
                          (const char *)attributes[0]);
    }
}

static void start_root(struct cp3_xml *xml, const char *name, const char *ns,
                       const xmlChar **attributes, int count)
{
    int tag = ns != NULL && strcmp(ns, CP3_NAMESPACE) == 0 ? cp3_table_root(name) : 0;

    if (tag == 0) {
        cp3_fill_fail(xml->f, CP3_EFORMAT, here(xml), name, "not a message of namespace %s",
                      CP3_NAMESPACE);
        xml->skip = 1;
        return;
    }
    xml->root = cp3_tag_name((enum cp3_tag)tag);
    cp3_fill_set_tag(xml->f, tag);
    check_attributes(xml, name, attributes, count);
}

/* An extension of the message: its attributes are the members. */
static void start_group(struct cp3_xml *xml, const struct cp3_field *group,
                        const xmlChar **attributes, int count)
{
    for (int i = 0; i < count; i++, attributes += ATTRIBUTE_WORDS) {
        const char *text = (const char *)attributes[3];
        struct cp3_value v = {CP3_TEXT, text, (size_t)((const char *)attributes[4] - text), 0};
        const struct cp3_field *member = NULL;

        if (attributes[2] == NULL)
            member = cp3_table_member(group, (const char *)attributes[0]);
        if (member != NULL)
            cp3_fill_member(xml->f, member, &v, xml->at);
        else
            check_attributes(xml, group->name, attributes, 1);
    }
    cp3_fill_group_end(xml->f, xml->at);
}

static void start_field(struct cp3_xml *xml, const char *name, const char *ns,
                        const xmlChar **attributes, int count)
{
    bool core = ns != NULL && strcmp(ns, CP3_NAMESPACE) == 0;
    bool extension = ns != NULL && strcmp(ns, CP3_EXT_NAMESPACE) == 0;
    int index = core || extension ? cp3_table_find(name, extension) : -1;

    xml->at = here(xml);
    if (ns != NULL && !core && ++xml->foreign > CP3_FOREIGN_MAX)
        cp3_fill_fail(xml->f, CP3_EFORMAT, xml->at, name,
                      "more than %d elements of other namespaces", CP3_FOREIGN_MAX);
    if (index < 0 && (core || ns == NULL))
        cp3_fill_fail(xml->f, CP3_EFORMAT, xml->at, name, "unknown element of %s",
                      core ? "the CP-3 namespace" : "no namespace");
    if (index < 0 || !cp3_fill_open(xml->f, index, xml->at)) {
        xml->skip = xml->depth;
        return;
    }
    xml->field = index;
    xml->text_len = 0;
    xml->too_long = false;
    if (cp3_table[index].members != NULL)
        start_group(xml, &cp3_table[index], attributes, count);
    else
        check_attributes(xml, name, attributes, count);
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are libxml2's */
static void on_start(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *ns,
                     int ns_count, const xmlChar **namespaces, int count, int defaulted,
                     const xmlChar **attributes)
{
    struct cp3_xml *xml = xml_of(context);

    (void)prefix, (void)ns_count, (void)namespaces, (void)defaulted;
    if (++xml->depth > CP3_DEPTH_MAX) {
        refuse(xml, "nested too deep");
        return;
    }
    if (xml->skip != 0)
        return;
    if (xml->depth == 1) {
        start_root(xml, (const char *)name, (const char *)ns, attributes, count);
    } else if (xml->depth == 2) {
        start_field(xml, (const char *)name, (const char *)ns, attributes, count);
    } else {
        cp3_fill_broken(xml->f, xml->field, here(xml), "holds an element");
        xml->skip = xml->depth;
    }
}

/* A field has ended: what it holds is known. */
static void end_field(struct cp3_xml *xml)
{
    struct cp3_value v = {CP3_TEXT, xml->text, xml->text_len, 0};
    const struct cp3_field *field = &cp3_table[xml->field];

    if (field->members == NULL && xml->too_long)
        cp3_fill_broken(xml->f, xml->field, xml->at, "far too long");
    else if (field->members == NULL)
        cp3_fill_value(xml->f, xml->field, &v, xml->at);
    xml->field = -1;
}

static void on_end(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *ns)
{
    struct cp3_xml *xml = xml_of(context);

    (void)name, (void)prefix, (void)ns;
    if (xml->skip == xml->depth)
        xml->skip = 0;
    else if (xml->depth == 2 && xml->skip == 0)
        end_field(xml);
    if (xml->depth == 1)
        xml->at = here(xml);
    xml->depth--;
}

/* Text, CDATA included, in as many pieces as libxml2 likes. */
static void on_text(void *context, const xmlChar *text, int len)
{
    struct cp3_xml *xml = xml_of(context);
    size_t n = (size_t)len;

    if (xml->skip != 0)
        return;
    if (xml->field >= 0 && cp3_table[xml->field].members == NULL) {
        if (n > sizeof(xml->text) - xml->text_len) {
            xml->too_long = true;
            return;
        }
        memcpy(xml->text + xml->text_len, text, n);
        xml->text_len += n;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!cp3_text_is_space((char)text[i]))
            cp3_fill_fail(xml->f, CP3_EFORMAT, here(xml), open_name(xml), "holds text");
    }
}

static void on_doctype(void *context, const xmlChar *name, const xmlChar *id, const xmlChar *uri)
{
    (void)name, (void)id, (void)uri;
    refuse(xml_of(context), "DOCTYPE is not read");
}

static void on_pi(void *context, const xmlChar *target, const xmlChar *data)
{
    (void)target, (void)data;
    refuse(xml_of(context), "processing instructions are not read");
}

/* Whatever libxml2 complains of, but for warnings, means that this is no XML with namespaces. */
static void on_error(void *context, xmlErrorPtr error)
{
    struct cp3_xml *xml = xml_of(context);
    struct cp3_place at = {(unsigned)error->line, (unsigned)error->int2};
    const char *message = error->message != NULL ? error->message : "";

    if (error->level < XML_ERR_ERROR)
        return;
    if (error->code == XML_ERR_NO_MEMORY) {
        cp3_fill_fail(xml->f, CP3_ENOMEM, at, open_name(xml), "out of memory");
        return;
    }
    cp3_fill_fail(xml->f, CP3_ESYNTAX, at, open_name(xml), "not well-formed: %.*s",
                  (int)strcspn(message, "\n"), message);
}

static const xmlSAXHandler handlers = {
    .initialized = XML_SAX2_MAGIC,
    .startElementNs = on_start,
    .endElementNs = on_end,
    .characters = on_text,
    .ignorableWhitespace = on_text,
    .cdataBlock = on_text,
    .internalSubset = on_doctype,
    .processingInstruction = on_pi,
    .serror = on_error,
};

/*
 * The encoding that an XML declaration names must be UTF-8: libxml2 would read many others.  What
 * else is in the declaration libxml2 checks.
 */
static bool encoding_is_utf8(const char *text, size_t len)
{
    static const char declaration[] = "<?xml", name[] = "encoding", utf8[] = "utf-8";
    const char *end, *at;

    if (len < strlen(declaration) || memcmp(text, declaration, strlen(declaration)) != 0)
        return true;
    end = memmem(text, len, "?>", 2);
    if (end == NULL)
        return true;
    at = memmem(text, (size_t)(end - text), name, strlen(name));
    if (at == NULL)
        return true;
    at += strlen(name);
    while (at < end && (cp3_text_is_space(*at) || *at == '='))
        at++;
    if ((size_t)(end - at) < strlen(utf8) + 2 || (*at != '"' && *at != '\''))
        return false;
    return strncasecmp(at + 1, utf8, strlen(utf8)) == 0 && at[1 + strlen(utf8)] == at[0];
}

static int make_parser(struct cp3_xml *xml)
{
    xmlSAXHandler sax = handlers;

    xml->parser = xmlCreatePushParserCtxt(&sax, NULL, NULL, 0, NULL);
    if (xml->parser == NULL)
        return CP3_ENOMEM;
    xml->parser->_private = xml;
    (void)xmlCtxtUseOptions(xml->parser, XML_PARSE_NONET | XML_PARSE_NOENT);
    return 0;
}

static void free_parser(struct cp3_xml *xml)
{
    if (xml->parser != NULL)
        xmlFreeParserCtxt(xml->parser);
    xml->parser = NULL;
}

int cp3_xml_new(struct cp3_xml **ret_xml)
{
    struct cp3_xml *xml = calloc(1, sizeof(*xml));

    if (xml == NULL)
        return CP3_ENOMEM;
    xmlInitParser();
    if (make_parser(xml) < 0) {
        free(xml);
        return CP3_ENOMEM;
    }
    *ret_xml = xml;
    return 0;
}

void cp3_xml_free(struct cp3_xml *xml)
{
    if (xml == NULL)
        return;
    free_parser(xml);
    free(xml);
}

/* A parser in its first state, whatever it was used for. */
static bool fresh_parser(struct cp3_xml *xml)
{
    if (xml->parser != NULL && xmlCtxtResetPush(xml->parser, NULL, 0, NULL, NULL) == 0)
        return true;
    free_parser(xml);
    return make_parser(xml) == 0;
}

void cp3_xml_read(struct cp3_xml *xml, const char *text, size_t len, struct cp3_fill *f)
{
    if (!encoding_is_utf8(text, len)) {
        cp3_fill_fail(f, CP3_ESYNTAX, (struct cp3_place){1, 1}, "document",
                      "declares an encoding that is not UTF-8");
        return;
    }
    if (!fresh_parser(xml)) {
        cp3_fill_fail(f, CP3_ENOMEM, (struct cp3_place){0, 0}, "document", "out of memory");
        return;
    }
    xml->f = f;
    xml->depth = xml->skip = xml->foreign = 0;
    xml->field = -1;
    xml->root = NULL;
    (void)xmlParseChunk(xml->parser, text, (int)len, 1);
    if (!xml->parser->wellFormed || !xml->parser->nsWellFormed)
        cp3_fill_fail(f, CP3_ESYNTAX, here(xml), open_name(xml), "not well-formed");
    else if (f->tag != 0)
        (void)cp3_fill_end(f, xml->at);
    if (xmlDictGetUsage(xml->parser->dict) > DICT_MAX)
        free_parser(xml);
}
