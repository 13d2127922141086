/*
 * From fields to a message, by the table: which are there, which are missing, what is wrong, and
 * what can be said of a message that is broken.
 */
#include "cp3_codec.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BIT(index) (1u << (index))

void cp3_message_init(struct cp3_message *m, enum cp3_tag tag)
{
    m->tag = tag;
    m->form = CP3_FULL;
    m->has = 0;
    m->version = 1;
    m->message_id[0] = '\0';
    m->content_id[0] = '\0';
    m->destination[0] = '\0';
    m->source[0] = '\0';
    m->status = CP3_STATUS_OK;
    m->data_len = 0;
    m->key_info.has = 0;
}

void cp3_fill_begin(struct cp3_fill *f, struct cp3_message *m, struct cp3_error *err)
{
    *f = (struct cp3_fill){.m = m, .err = err};
    cp3_message_init(m, CP3_REQUEST);
}

void cp3_fill_set_tag(struct cp3_fill *f, int tag)
{
    f->tag = tag;
    f->m->tag = (enum cp3_tag)tag;
}

void cp3_fill_set_place(struct cp3_fill *f, struct cp3_place at)
{
    f->err->line = at.line;
    f->err->column = at.column;
}

void cp3_fill_fail(struct cp3_fill *f, int code, struct cp3_place at, const char *element,
                   const char *format, ...)
{
    char reason[CP3_ERROR_REASON_MAX * 2];
    struct cp3_error *err = f->err;
    va_list ap;

    if (f->code != 0 && (f->code != CP3_EFORMAT || code == CP3_EFORMAT))
        return;
    f->code = code;
    err->code = code;
    cp3_fill_set_place(f, at);
    if (element[0] == '\0')
        element = "document";
    cp3_text_escape(element, strlen(element), err->element, sizeof(err->element));
    va_start(ap, format);
    (void)vsnprintf(reason, sizeof(reason), format, ap);
    va_end(ap);
    cp3_text_escape(reason, strlen(reason), err->reason, sizeof(err->reason));
}

/* An error in a field, or in the member of one: "KeyInfo.bits". */
static void fail_in(struct cp3_fill *f, const struct cp3_field *field, struct cp3_place at,
                    const char *why)
{
    char name[CP3_ERROR_ELEMENT_MAX + 1];

    if (f->group != NULL && f->group != field)
        (void)snprintf(name, sizeof(name), "%s.%s", f->group->name, field->name);
    else
        (void)snprintf(name, sizeof(name), "%s", field->name);
    cp3_fill_fail(f, CP3_EFORMAT, at, name, "%s", why);
}

bool cp3_fill_open(struct cp3_fill *f, int index, struct cp3_place at)
{
    const struct cp3_field *field = &cp3_table[index];
    bool again = (f->seen & BIT(index)) != 0;

    /* As long as the message is not known, Tag and MessageID are all that is wanted of it. */
    if (f->tag == 0 && index != CP3_FIELD_TAG && index != CP3_FIELD_MESSAGE_ID)
        return false;
    if (f->tag != 0 && field->in[f->tag] == CP3_ABSENT) {
        if (!field->extension)
            cp3_fill_broken(f, index, at, "not a field of this message");
        return false;
    }
    f->seen |= BIT(index);
    if (again) {
        cp3_fill_broken(f, index, at, "repeated");
        return false;
    }
    f->group = field->members != NULL ? field : NULL;
    f->members = 0;
    if (f->group != NULL)
        f->m->key_info.has = 0;
    return true;
}

static void set_present(const struct cp3_field *field, struct cp3_message *m)
{
    uint32_t has;

    if (field->has == 0)
        return;
    memcpy(&has, (char *)m + field->has_offset, sizeof(has));
    has |= field->has;
    memcpy((char *)m + field->has_offset, &has, sizeof(has));
}

void cp3_fill_broken(struct cp3_fill *f, int index, struct cp3_place at, const char *why)
{
    f->broken |= BIT(index);
    fail_in(f, &cp3_table[index], at, why);
}

void cp3_fill_value(struct cp3_fill *f, int index, const struct cp3_value *v, struct cp3_place at)
{
    const struct cp3_field *field = &cp3_table[index];
    char why[CP3_ERROR_REASON_MAX + 1];
    int root = f->tag;

    if (!field->type->read(field, v, f->m, why)) {
        cp3_fill_broken(f, index, at, why);
        return;
    }
    f->read |= BIT(index);
    set_present(field, f->m);
    if (index == CP3_FIELD_TAG && root != 0 && (int)f->m->tag != root) {
        (void)snprintf(why, sizeof(why), "%d, but %s has %d", (int)f->m->tag,
                       cp3_tag_name((enum cp3_tag)root), root);
        cp3_fill_broken(f, index, at, why);
    }
}

void cp3_fill_member(struct cp3_fill *f, const struct cp3_field *member, const struct cp3_value *v,
                     struct cp3_place at)
{
    char why[CP3_ERROR_REASON_MAX + 1];

    f->members |= BIT(member - f->group->members);
    if (member->type->read(member, v, f->m, why))
        set_present(member, f->m);
    else
        fail_in(f, member, at, why);
}

void cp3_fill_group_end(struct cp3_fill *f, struct cp3_place at)
{
    for (size_t i = 0; i < f->group->member_count; i++) {
        if (f->group->members[i].in[0] == CP3_MANDATORY && (f->members & BIT(i)) == 0)
            fail_in(f, &f->group->members[i], at, "missing");
    }
    set_present(f->group, f->m);
    f->group = NULL;
}

/* The form: a message has all fields of the session, or none where there is an efficient form. */
static void check_form(struct cp3_fill *f, struct cp3_place at)
{
    const struct cp3_field *missing = NULL;
    bool any = false;

    for (int i = 0; i < CP3_FIELD_COUNT; i++) {
        if (cp3_table[i].in[f->tag] != CP3_SESSION)
            continue;
        if ((f->seen & BIT(i)) != 0)
            any = true;
        else if (missing == NULL)
            missing = &cp3_table[i];
    }
    f->m->form = any || !cp3_table_has_efficient(f->tag) ? CP3_FULL : CP3_EFFICIENT;
    if (any && missing != NULL)
        fail_in(f, missing, at,
                "missing, though others of ContentID, Destination, Source are there");
}

/* Data is there if and only if Status is 0; a Status that is not legal is the error already. */
static void check_given(struct cp3_fill *f, int index, struct cp3_place at)
{
    bool seen = (f->seen & BIT(index)) != 0;

    if (f->m->status == CP3_STATUS_OK && !seen)
        fail_in(f, &cp3_table[index], at, "missing, though Status is 0");
    if (f->m->status != CP3_STATUS_OK && seen)
        fail_in(f, &cp3_table[index], at, "given, though Status is 1");
}

int cp3_fill_end(struct cp3_fill *f, struct cp3_place at)
{
    f->group = NULL;
    for (int i = 0; i < CP3_FIELD_COUNT && f->tag != 0; i++) {
        if (cp3_table[i].in[f->tag] == CP3_MANDATORY && (f->seen & BIT(i)) == 0)
            fail_in(f, &cp3_table[i], at, "missing");
        if (cp3_table[i].in[f->tag] == CP3_GIVEN)
            check_given(f, i, at);
    }
    if (f->tag != 0)
        check_form(f, at);
    return f->code;
}

void cp3_fill_salvage(struct cp3_fill *f)
{
    uint32_t usable = f->read & ~f->broken;

    f->err->tag = (usable & BIT(CP3_FIELD_TAG)) != 0 ? (int)f->m->tag : 0;
    f->err->message_id[0] = '\0';
    if ((usable & BIT(CP3_FIELD_MESSAGE_ID)) != 0)
        memcpy(f->err->message_id, f->m->message_id, strlen(f->m->message_id) + 1);
}
