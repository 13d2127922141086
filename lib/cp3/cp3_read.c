/*
 * Reading: what is true of both media, then the reader of the one.
 */
#include "cp3_codec.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct cp3_reader {
    struct cp3_xml *xml;
    struct cp3_error ignored; /* for callers who want none */
};

int cp3_reader_new(struct cp3_reader **ret_reader)
{
    struct cp3_reader *reader = calloc(1, sizeof(*reader));
    int r;

    if (reader == NULL)
        return CP3_ENOMEM;
    r = cp3_xml_new(&reader->xml);
    if (r < 0) {
        free(reader);
        return r;
    }
    json_object_seed(0); /* jansson's hashes: a random seed, once a process */
    *ret_reader = reader;
    return 0;
}

void cp3_reader_free(struct cp3_reader *reader)
{
    if (reader == NULL)
        return;
    cp3_xml_free(reader->xml);
    free(reader);
}

/* The byte order mark, which may be there. */
static size_t mark_len(const char *text, size_t len)
{
    return len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

/*
 * What is no UTF-8 goes to no parser: libxml2 would guess another encoding.  That includes NUL,
 * and with it UTF-16 and UTF-32 in all their forms.
 */
static bool check_octets(const char *text, size_t len, struct cp3_fill *f)
{
    size_t good;

    if (len > CP3_BODY_MAX) {
        cp3_fill_fail(f, CP3_ETOOBIG, (struct cp3_place){0, 0}, "document", "longer than %d octets",
                      CP3_BODY_MAX);
        return false;
    }
    good = cp3_text_utf8(text, len);
    if (good == len)
        return true;
    cp3_fill_fail(f, CP3_ESYNTAX, cp3_text_place(text, good), "document",
                  text[good] == '\0' ? "NUL octet" : "not UTF-8");
    return false;
}

int cp3_read(struct cp3_reader *reader, enum cp3_media media, const void *octets, size_t len,
             struct cp3_message *ret_message, struct cp3_error *ret_err)
{
    const char *text = octets != NULL ? octets : ""; /* which jansson takes for an empty body */
    struct cp3_fill f;
    size_t skip;

    assert(media == CP3_XML || media == CP3_JSON);
    cp3_fill_begin(&f, ret_message, ret_err != NULL ? ret_err : &reader->ignored);
    if (check_octets(text, len, &f)) {
        skip = mark_len(text, len);
        if (media == CP3_XML)
            cp3_xml_read(reader->xml, text + skip, len - skip, &f);
        else
            cp3_json_read(text + skip, len - skip, &f);
    }
    if (f.code != 0)
        cp3_fill_salvage(&f);
    return f.code;
}
