/*
 * The log for operators (the audit log is another thing): one line an event,
 *     2026-11-22T13:15:42.123456Z info hsm event=worker-restarted worker=2 call=C_WrapKey
 * or the same as one JSON object.  Values are escaped, so that text a peer chose cannot start a
 * line or a field.  Of one (area, event) at most LOG_BURST lines a second are written; what was
 * held back is counted in the field "suppressed" of the next line that is.
 *
 * Thread rule: log_open() once before other threads start; the rest from any thread.
 */
#ifndef TEKD_LOG_H
#define TEKD_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"

/* A line is cut at this length: one write(2) of at most PIPE_BUF octets stays whole. */
#define LOG_LINE_MAX 4096
/* A value is cut at this length, escapes included: one long text leaves room for other fields. */
#define LOG_VALUE_MAX 1024
/* Lines a second of one event: enough to see what happens, too few to fill a disk. */
#define LOG_BURST 20

enum log_format { LOG_LOGFMT, LOG_JSON };
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_field {
    const char *key; /* [a-z_]+ */
    enum { LOG_FIELD_STR, LOG_FIELD_INT } type;
    const char *str; /* NULL is written as an empty value */
    int64_t num;
};

#define LOG_STR(k, v)                                                                              \
    (struct log_field)                                                                             \
    {                                                                                              \
        .key = (k), .type = LOG_FIELD_STR, .str = (v)                                              \
    }
#define LOG_INT(k, v)                                                                              \
    (struct log_field)                                                                             \
    {                                                                                              \
        .key = (k), .type = LOG_FIELD_INT, .num = (int64_t)(v)                                     \
    }

/* Lines go to fd (not owned), e.g. STDERR_FILENO.  Before this call: logfmt, info, stderr. */
void log_open(int fd, enum log_format format, enum log_level level);

void log_write(enum log_level level, const char *area, const char *event,
               const struct log_field *fields, size_t n);

/* log_event(LOG_WARN, "hsm", "worker-restarted", LOG_INT("worker", n), LOG_STR("call", name)); */
#define log_event(level, area, event, ...)                                                         \
    log_write(level, area, event, (const struct log_field[]){{.key = NULL}, ##__VA_ARGS__} + 1,    \
              ARRAY_SIZE(((const struct log_field[]){{.key = NULL}, ##__VA_ARGS__})) - 1)

#endif
