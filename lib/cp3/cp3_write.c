/*
 * Writing: a walk over the table, in either medium.
 *
 *     <?xml version="1.0" encoding="UTF-8"?>
 *     <KeyRequest xmlns="urn:x-bcast:spcp:cp3:1.0" xmlns:x="…"><Tag>1</Tag>…
 *         <x:Period index="7"/></KeyRequest>          on one line, xmlns:x only with extensions
 *
 *     {"Tag":1,"MessageID":"m-1",…,"Period":{"index":7}}
 */
#include "cp3_codec.h"

#include <assert.h>
#include <string.h>

/* The declaration, the names of the longest message with its extensions, and the short values. */
#define OVERHEAD 1536
static_assert(CP3_WRITTEN_MAX >= OVERHEAD + 2 * CP3_DATA_MAX +
                                     6 * (3 * CP3_ID_MAX + CP3_CONTENT_ID_MAX + CP3_KEK_ID_MAX),
              "&quot; in place of each octet");

struct writer {
    char *at, *end;
    enum cp3_media media;
    enum cp3_form form;
    const struct cp3_message *m;
    int error; /* the first, or 0 */
};

static void put(struct writer *w, const char *text, size_t len)
{
    if ((size_t)(w->end - w->at) < len) {
        w->error = w->error ? w->error : CP3_ENOSPC;
        return;
    }
    memcpy(w->at, text, len);
    w->at += len;
}

static void puts_to(struct writer *w, const char *text)
{
    put(w, text, strlen(text));
}

/* The octets that stand for others, by medium; control characters never come here. */
static const char *escape_of(enum cp3_media media, char c)
{
    static const struct {
        char c;
        const char *by[2];
    } escapes[] = {
        {'&', {"&amp;", NULL}},    {'<', {"&lt;", NULL}},  {'>', {"&gt;", NULL}},
        {'"', {"&quot;", "\\\""}}, {'\\', {NULL, "\\\\"}},
    };

    for (size_t i = 0; i < CP3_COUNT(escapes); i++) {
        if (escapes[i].c == c)
            return escapes[i].by[media];
    }
    return NULL;
}

static void put_escaped(struct writer *w, const char *text, size_t len)
{
    size_t done = 0;

    for (size_t i = 0; i < len; i++) {
        const char *escape = escape_of(w->media, text[i]);

        if (escape == NULL)
            continue;
        put(w, text + done, i - done);
        puts_to(w, escape);
        done = i + 1;
    }
    put(w, text + done, len - done);
}

/* The value of a field, checked and escaped. */
static void put_value(struct writer *w, const struct cp3_field *field)
{
    char text[CP3_VALUE_MAX + 1];
    int len = field->type->format(field, w->m, text);
    uint64_t n;

    if (len < 0 || (w->media == CP3_XML && field->xml_max != 0 &&
                    (!cp3_text_number(text, (size_t)len, &n) || n > field->xml_max))) {
        w->error = CP3_EINVAL;
        return;
    }
    if (field->type == &cp3_type_string)
        put_escaped(w, text, (size_t)len);
    else
        put(w, text, (size_t)len);
}

static bool is_written(struct writer *w, const struct cp3_field *field, enum cp3_in in)
{
    bool present = cp3_type_present(field, w->m);

    switch (in) {
    case CP3_ABSENT:
        return false;
    case CP3_OPTIONAL:
        return w->form == CP3_FULL && present;
    case CP3_SESSION:
        return w->form == CP3_FULL;
    case CP3_GIVEN:
        if (present != (w->m->status == CP3_STATUS_OK))
            w->error = CP3_EINVAL;
        return present;
    case CP3_MANDATORY:
        break;
    }
    return true;
}

/* ---- XML ---- */

static void xml_members(struct writer *w, const struct cp3_field *group)
{
    puts_to(w, "<x:");
    puts_to(w, group->name);
    for (size_t i = 0; i < group->member_count; i++) {
        const struct cp3_field *member = &group->members[i];

        if (!is_written(w, member, member->in[0]))
            continue;
        puts_to(w, " ");
        puts_to(w, member->name);
        puts_to(w, "=\"");
        put_value(w, member);
        puts_to(w, "\"");
    }
    puts_to(w, "/>");
}

static void xml_field(struct writer *w, const struct cp3_field *field)
{
    if (field->members != NULL) {
        xml_members(w, field);
        return;
    }
    puts_to(w, "<");
    puts_to(w, field->name);
    puts_to(w, ">");
    put_value(w, field);
    puts_to(w, "</");
    puts_to(w, field->name);
    puts_to(w, ">");
}

static bool has_extension(struct writer *w)
{
    for (int i = 0; i < CP3_FIELD_COUNT; i++) {
        if (cp3_table[i].extension && is_written(w, &cp3_table[i], cp3_table[i].in[w->m->tag]))
            return true;
    }
    return false;
}

static void xml_begin(struct writer *w)
{
    puts_to(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<");
    puts_to(w, cp3_tag_name(w->m->tag));
    puts_to(w, " xmlns=\"" CP3_NAMESPACE "\"");
    if (has_extension(w))
        puts_to(w, " xmlns:x=\"" CP3_EXT_NAMESPACE "\"");
    puts_to(w, ">");
}

static void xml_end(struct writer *w)
{
    puts_to(w, "</");
    puts_to(w, cp3_tag_name(w->m->tag));
    puts_to(w, ">");
}

/* ---- JSON ---- */

static void json_name(struct writer *w, const char *name)
{
    if (w->at[-1] != '{')
        puts_to(w, ",");
    puts_to(w, "\"");
    puts_to(w, name);
    puts_to(w, "\":");
}

static void json_begin(struct writer *w)
{
    puts_to(w, "{");
}

static void json_end(struct writer *w)
{
    puts_to(w, "}");
}

static void json_field(struct writer *w, const struct cp3_field *field)
{
    json_name(w, field->name);
    if (field->members != NULL) {
        json_begin(w);
        for (size_t i = 0; i < field->member_count; i++) {
            if (is_written(w, &field->members[i], field->members[i].in[0]))
                json_field(w, &field->members[i]);
        }
        json_end(w);
        return;
    }
    if (!field->type->number)
        puts_to(w, "\"");
    put_value(w, field);
    if (!field->type->number)
        puts_to(w, "\"");
}

static const struct {
    void (*begin)(struct writer *w);
    void (*field)(struct writer *w, const struct cp3_field *field);
    void (*end)(struct writer *w);
} media_writers[] = {
    [CP3_XML] = {xml_begin, xml_field, xml_end},
    [CP3_JSON] = {json_begin, json_field, json_end},
};

int cp3_write(enum cp3_media media, enum cp3_form form, const struct cp3_message *m, char *buf,
              size_t cap, size_t *ret_len)
{
    struct writer w = {buf, buf + cap, media, form, m, 0};

    if (cp3_tag_name(m->tag) == NULL || cp3_form_name(form) == NULL ||
        cp3_media_name(media) == NULL ||
        (form == CP3_EFFICIENT && !cp3_table_has_efficient((int)m->tag)))
        return CP3_EINVAL;
    media_writers[media].begin(&w);
    for (int i = 0; i < CP3_FIELD_COUNT && w.error == 0; i++) {
        if (is_written(&w, &cp3_table[i], cp3_table[i].in[m->tag]))
            media_writers[media].field(&w, &cp3_table[i]);
    }
    media_writers[media].end(&w);
    if (w.error != 0)
        return w.error;
    *ret_len = (size_t)(w.at - buf);
    return 0;
}
