/*
 * What happens with time: heartbeat, steps of the clock, free space, anchor.
 */
#include "internal.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/log.h"

void tick_clock(struct store *s, int64_t now)
{
    int64_t base = clock_utc_us() - now;
    int64_t delta = base - s->clock_base_us;
    AUTO(record) struct record *rec = NULL;
    char text[24];

    if (delta <= CLOCK_STEP_US && delta >= -CLOCK_STEP_US)
        return;
    s->clock_base_us = base;
    idle_clock_was_set(s, now);
    (void)snprintf(text, sizeof(text), "%" PRId64, delta);
    log_event(LOG_WARN, "store", "clock-step", LOG_INT("delta_us", delta));
    if (record_new("clock.step", &rec) < 0) {
        audit_gap(s, 1);
        return;
    }
    record_str(rec, "delta_us", text);
    (void)audit_own(s, TAKE(rec), true);
}

static int look_at_volume(const char *path, struct statvfs *ret_volume)
{
    AUTO_MEM char *copy = strdup(path);

    if (copy == NULL)
        return TEKD_ENOMEM;
    if (statvfs(dirname(copy), ret_volume) == 0)
        return 0;
    log_event(LOG_WARN, "store", "free-space-unknown", LOG_STR("call", "statvfs"),
              LOG_STR("errno", strerrorname_np(errno)));
    return TEKD_EIO;
}

/* Below how many free octets there is an alarm; volumes are enlarged while they are in use. */
static uint64_t warn_below(const struct store_options *o, const struct statvfs *v)
{
    uint64_t part = (uint64_t)v->f_blocks * v->f_frsize / 100 * o->free_warn_percent;

    return part > o->free_warn ? part : o->free_warn;
}

static void look_at_space(struct store *s)
{
    struct statvfs v;
    uint64_t warn;
    bool low, warned;

    s->db_octets = db_driver(s->db)->octets(s->db);
    if (look_at_volume(s->o.path, &v) < 0)
        return;
    s->free_octets = (uint64_t)v.f_bavail * v.f_frsize;
    warn = warn_below(&s->o, &v);
    low = s->free_octets < s->o.free_stop;
    warned = s->free_octets < warn;
    if (low && !s->low)
        log_event(LOG_ERROR, "store", "free-space-low", LOG_INT("octets", s->free_octets),
                  LOG_INT("stop", s->o.free_stop));
    else if (warned && !s->warned)
        log_event(LOG_WARN, "store", "free-space-low", LOG_INT("octets", s->free_octets),
                  LOG_INT("warn", warn));
    s->low = low;
    s->warned = warned;
}

static void beat(struct store *s)
{
    if (s->full) { /* it would be written later, and say that the server wrote until then */
        audit_gap(s, 1);
        return;
    }
    /* It says that everything before it is signed: the signature follows at once. */
    if (audit_own_event(s, "log.heartbeat", true) == 0)
        s->sign_until = s->tree.size + s->n_own;
}

void tick_init(struct store *s)
{
    int64_t now = clock_mono_us();

    s->clock_base_us = clock_utc_us() - now;
    idle_clock_was_set(s, now);
    s->tick_us = now + TICK_US;
    s->free_us = now + FREE_SPACE_US;
    s->heartbeat_us = now + (int64_t)s->o.heartbeat_s * 1000000;
    s->anchor_us = now;
    look_at_space(s);
}

int64_t tick_next(const struct store *s)
{
    return s->tick_us;
}

void tick_run(struct store *s, int64_t now)
{
    if (now < s->tick_us)
        return;
    s->tick_us = now + TICK_US;
    tick_clock(s, now);
    audit_gap(s, atomic_exchange(&s->queue_gap, 0));
    if (now >= s->free_us) {
        s->free_us = now + FREE_SPACE_US;
        look_at_space(s);
    }
    if (now >= s->heartbeat_us) {
        s->heartbeat_us = now + (int64_t)s->o.heartbeat_s * 1000000;
        beat(s);
    }
    epoch_tick(s, clock_utc_us());
    if (now >= s->anchor_us && s->tree.note_committed) {
        s->anchor_us = now + (int64_t)s->o.anchor_interval_s * 1000000;
        anchor_write(s);
    }
}
