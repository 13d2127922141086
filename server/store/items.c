/*
 * Lists of items, and those that are committed and wait for a signature.
 */
#include "internal.h"

#include "tekd/err.h"

void items_put(struct item_list *l, struct store_item *item)
{
    item->next = NULL;
    if (l->last != NULL)
        l->last->next = item;
    else
        l->first = item;
    l->last = item;
    l->n++;
}

struct store_item *items_take(struct item_list *l)
{
    struct store_item *item = l->first;

    if (item == NULL)
        return NULL;
    l->first = item->next;
    if (l->first == NULL)
        l->last = NULL;
    l->n--;
    item->next = NULL;
    return item;
}

void items_settle(struct store *s, struct store_item *item, int result)
{
    atomic_fetch_sub(&s->open_items, 1);
    if (item->done != NULL)
        item->done(item, result);
}

void items_settle_all(struct store *s, struct item_list *l, int result)
{
    struct item_list taken = *l;
    struct store_item *item;

    *l = (struct item_list){0};
    while ((item = items_take(&taken)) != NULL)
        items_settle(s, item, result);
}

void items_wait(struct store *s, struct store_item *item)
{
    items_put(&s->waiting, item);
    if (item->deadline_us != 0 && item->deadline_us < s->waiting_deadline_us)
        s->waiting_deadline_us = item->deadline_us;
}

/*
 * All are looked at each time: a repeat may wait for less than what came before it, and there are
 * never more than the requests under way.
 */
void items_release(struct store *s)
{
    struct item_list taken = s->waiting;
    struct store_item *item;

    s->waiting = (struct item_list){0};
    s->waiting_deadline_us = INT64_MAX;
    while ((item = items_take(&taken)) != NULL) {
        if (item->release_size <= s->tree.signed_size)
            items_settle(s, item, 0);
        else
            items_wait(s, item);
    }
}

void items_expire(struct store *s, int64_t now)
{
    struct item_list taken = s->waiting;
    struct store_item *item;

    if (now < s->waiting_deadline_us)
        return;
    s->waiting = (struct item_list){0};
    s->waiting_deadline_us = INT64_MAX;
    while ((item = items_take(&taken)) != NULL) {
        if (item->deadline_us != 0 && item->deadline_us <= now)
            items_settle(s, item, TEKD_ETIMEDOUT);
        else
            items_wait(s, item);
    }
}
