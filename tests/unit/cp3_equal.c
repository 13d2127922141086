#include "cp3_equal.h"

#include <string.h>

static bool equal_time(const struct cp3_time *a, const struct cp3_time *b)
{
    return a->seconds == b->seconds && a->nanoseconds == b->nanoseconds;
}

static bool equal_key_info(const struct cp3_key_info *a, const struct cp3_key_info *b)
{
    if (a->has != b->has || memcmp(a->key_id, b->key_id, sizeof(a->key_id)) != 0 ||
        strcmp(a->kek_id, b->kek_id) != 0 || a->wrap != b->wrap || a->bits != b->bits)
        return false;
    if ((a->has & CP3_KEY_HAS_PERIOD) != 0 && a->period != b->period)
        return false;
    if ((a->has & CP3_KEY_HAS_NOT_BEFORE) != 0 && !equal_time(&a->not_before, &b->not_before))
        return false;
    return (a->has & CP3_KEY_HAS_NOT_AFTER) == 0 || equal_time(&a->not_after, &b->not_after);
}

static bool equal_core(const struct cp3_message *a, const struct cp3_message *b)
{
    bool has_status = a->tag == CP3_RESPONSE || a->tag == CP3_CONFIRMATION;

    return a->tag == b->tag && strcmp(a->message_id, b->message_id) == 0 &&
           (!has_status || a->status == b->status) && a->data_len == b->data_len &&
           memcmp(a->data, b->data, a->data_len) == 0;
}

bool cp3_equal(const struct cp3_message *a, const struct cp3_message *b, enum cp3_form form)
{
    if (!equal_core(a, b))
        return false;
    if (form == CP3_EFFICIENT)
        return true;
    if (a->has != b->has || a->version != b->version || strcmp(a->content_id, b->content_id) != 0 ||
        strcmp(a->destination, b->destination) != 0 || strcmp(a->source, b->source) != 0)
        return false;
    if ((a->has & CP3_HAS_TIME) != 0 && !equal_time(&a->time, &b->time))
        return false;
    if ((a->has & CP3_HAS_KEY_INFO) != 0 && !equal_key_info(&a->key_info, &b->key_info))
        return false;
    return (a->has & CP3_HAS_PERIOD) == 0 || a->period_index == b->period_index;
}
