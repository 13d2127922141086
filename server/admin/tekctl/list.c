/*
 * The pages of a list, as one list; printed as they come, however long it is.  In JSON it stands
 * alone, or is the last member of an object that came before it.
 */
#include "tekctl.h"

struct list {
    struct session *session;
    const json_t *owner; /* the object; NULL: the list is alone */
    bool json;
    int depth; /* of its elements, in JSON */
    size_t n;  /* printed */
};

/* Of the object everything but its end. */
static void begin(const struct list *l)
{
    const char *key;
    json_t *v;

    if (!l->json)
        (void)puts(l->session->command->header);
    if (!l->owner)
        return;
    (void)putchar('{');
    /* The macro of jansson 2.14 takes no const. */
    json_object_foreach ((json_t *)(uintptr_t)l->owner, key, v) {
        (void)printf("\n  \"%s\": ", key);
        text_dump(v, JSON_ENCODE_ANY);
        (void)putchar(',');
    }
    (void)printf("\n  \"%s\": ", l->session->command->member);
}

static void print_element(struct list *l, const json_t *element)
{
    const struct command *c = l->session->command;

    if (!l->json) {
        c->print(element);
        return;
    }
    (void)printf("%s\n%*s", l->n++ == 0 ? "[" : ",", 2 * l->depth, "");
    if (c->indented)
        text_dump_at(element, l->depth);
    else
        text_dump(element, JSON_COMPACT | JSON_ENCODE_ANY);
}

static void end(const struct list *l)
{
    if (!l->json)
        return;
    if (l->n > 0)
        (void)printf("\n%*s]", 2 * (l->depth - 1), "");
    else
        (void)fputs("[]", stdout);
    (void)fputs(l->owner ? "\n}\n" : "\n", stdout);
}

static int print_list(struct list *l)
{
    struct session *s = l->session;
    bool first = true;
    size_t i;
    json_t *next, *element;

    do {
        AUTO_JSON json_t *page = NULL;
        int r = session_call(s, &page);

        if (r != TEKCTL_DONE)
            return r;
        if (!json_is_array(json_object_get(page, "list")))
            return session_no_result();
        if (first)
            begin(l);
        first = false;
        json_array_foreach (json_object_get(page, "list"), i, element)
            print_element(l, element);
        next = json_object_get(page, "next");
        if (next && json_object_set(s->request, "after", next) < 0)
            return TEKCTL_FAILED;
        session_end(s);
    } while (next);
    end(l);
    return text_flush(TEKCTL_DONE);
}

int list_run(struct session *s)
{
    struct list l = {.session = s, .json = s->json, .depth = 1};

    return print_list(&l);
}

int content_run(struct session *s)
{
    AUTO_JSON json_t *content = NULL;
    struct list l = {.session = s, .json = true, .depth = 2};
    int r = session_call(s, &content);

    session_end(s);
    if (r != TEKCTL_DONE)
        return r;
    if (!json_is_object(content))
        return session_no_result();
    l.owner = content;
    if (json_object_set_new(s->request, "command", json_string("key list")) < 0)
        return TEKCTL_FAILED;
    return print_list(&l);
}
