/*
 * Confirmations of pushed deliveries that were answered 202: POSTed afterwards, by a thread of
 * their own, so that a BSM that is slow to take them can push meanwhile.
 */
#include "bsa.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include <jansson.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/queue.h"

/* One Confirmation on its way. */
struct late_item {
    struct confirmation confirmation;
    int64_t due_us;
};

struct late {
    struct late_options o;
    struct queue *queue; /* of struct late_item */
    pthread_t thread;
    bool failed; /* of the thread, until it is joined */
};

static void wait_until_due(const struct late *l, int64_t due_us)
{
    int64_t left_us;

    while ((left_us = due_us - clock_mono_us()) > 0) {
        int64_t ms = left_us / 1000 + 1;

        if (stop_wait(l->o.link.stop, ms < INT_MAX ? (int)ms : INT_MAX))
            return;
    }
}

/* One that does not get through is not tried again: the BSM sends the delivery again. */
static void confirm_late(struct late *l, const struct late_item *item)
{
    struct check_refusal why;
    json_t *doc = json_object();
    long status;
    int r;

    wait_until_due(l, item->due_us);
    r = confirm_post(&l->o.link, &item->confirmation, &status, &why);
    report_text(doc, "event", "confirmation");
    report_text(doc, "message_id", item->confirmation.message_id);
    if (status != 0)
        report_number(doc, "accepted", status);
    if (r < 0) {
        l->failed = true;
        if (r != TEKD_ECLOSED)
            report_complain(&why);
        report_refusal(doc, &why);
    }
    report_line(doc, l->o.json);
    json_decref(doc);
}

static void *run(void *arg)
{
    struct late *l = arg;
    void *item;

    while (queue_pop(l->queue, INT64_MAX, &item) == 0) {
        confirm_late(l, item);
        free(item);
    }
    return NULL;
}

int late_start(const struct late_options *o, struct late **ret_late)
{
    struct late *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return TEKD_ENOMEM;
    l->o = *o;
    if (queue_new(LATE_MAX, &l->queue) < 0 || pthread_create(&l->thread, NULL, run, l) != 0) {
        queue_free(l->queue);
        free(l);
        return TEKD_ENOMEM;
    }
    *ret_late = l;
    return 0;
}

int late_push(struct late *l, const struct confirmation *c)
{
    struct late_item *item = malloc(sizeof(*item));
    int r;

    if (item == NULL)
        return TEKD_ENOMEM;
    item->confirmation = *c;
    item->due_us = clock_mono_us() + (int64_t)l->o.delay_ms * 1000;
    r = queue_push(l->queue, item);
    if (r < 0)
        free(item);
    return r;
}

bool late_end(struct late *l)
{
    bool failed;

    queue_close(l->queue);
    (void)pthread_join(l->thread, NULL);
    failed = l->failed;
    queue_free(l->queue);
    free(l);
    return !failed;
}
