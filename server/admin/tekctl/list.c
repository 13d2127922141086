/*
 * The pages of a list, as one list; printed as they come, however long it is.
 */
#include "tekctl.h"

static void print_page(const struct session *s, const json_t *page, size_t *n)
{
    size_t i;
    json_t *element;

    json_array_foreach (json_object_get(page, "list"), i, element) {
        if (!s->json) {
            s->command->print(element);
            continue;
        }
        (void)fputs((*n)++ == 0 ? "[\n  " : ",\n  ", stdout);
        text_dump(element, JSON_COMPACT);
    }
}

int list_run(struct session *s)
{
    bool first = true;
    size_t n = 0;
    json_t *next;

    do {
        AUTO_JSON json_t *page = NULL;
        int r = session_call(s, &page);

        if (r != TEKCTL_DONE)
            return r;
        if (first && !s->json)
            (void)puts(s->command->header);
        first = false;
        print_page(s, page, &n);
        next = json_object_get(page, "next");
        if (next && json_object_set(s->request, "after", next) < 0)
            return TEKCTL_FAILED;
        session_end(s);
    } while (next);
    if (s->json)
        (void)puts(n == 0 ? "[]" : "\n]");
    return fflush(stdout) == 0 ? TEKCTL_DONE : TEKCTL_FAILED;
}
