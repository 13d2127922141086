#include "tekd/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tekd/err.h"

/* The first allocation: a short message fits without growing. */
#define FIRST_CAP 256

struct buf {
    uint8_t *p; /* cap + 1 octets, NULL while nothing was written */
    size_t len;
    size_t cap;
    size_t max;
    int error;
};

int buf_new(size_t max, struct buf **ret_buf)
{
    struct buf *b;

    assert(max >= 1 && max < SIZE_MAX);
    b = calloc(1, sizeof(*b));
    if (b == NULL)
        return TEKD_ENOMEM;
    b->max = max;
    *ret_buf = b;
    return 0;
}

void buf_free(struct buf *b)
{
    if (b == NULL)
        return;
    free(b->p);
    free(b);
}

const uint8_t *buf_data(const struct buf *b)
{
    return (const uint8_t *)buf_str(b);
}

const char *buf_str(const struct buf *b)
{
    return b->p == NULL ? "" : (const char *)b->p;
}

size_t buf_len(const struct buf *b)
{
    return b->len;
}

void buf_reset(struct buf *b)
{
    buf_truncate(b, 0);
    b->error = 0;
}

static void set_len(struct buf *b, size_t len)
{
    b->len = len;
    if (b->p != NULL)
        b->p[len] = 0;
}

void buf_truncate(struct buf *b, size_t len)
{
    assert(len <= b->len);
    set_len(b, len);
}

static int fail(struct buf *b, int code)
{
    b->error = code;
    return code;
}

/* Doubles, bounded by max. */
static int grow(struct buf *b, size_t need)
{
    size_t cap = b->cap == 0 ? FIRST_CAP : b->cap;
    uint8_t *p;

    while (cap < need && cap <= b->max / 2)
        cap *= 2;
    if (cap < need || cap > b->max)
        cap = b->max;
    p = realloc(b->p, cap + 1);
    if (p == NULL)
        return fail(b, TEKD_ENOMEM);
    b->p = p;
    b->cap = cap;
    set_len(b, b->len);
    return 0;
}

/* Room for len octets more.  After an error nothing is taken any more: no text with holes. */
static int make_room(struct buf *b, size_t len)
{
    if (b->error < 0)
        return b->error;
    if (len > b->max - b->len)
        return fail(b, TEKD_ETOOBIG);
    if (b->p == NULL || len > b->cap - b->len)
        return grow(b, b->len + len);
    return 0;
}

int buf_append(struct buf *b, const void *data, size_t len)
{
    int r = make_room(b, len);

    if (r < 0)
        return r;
    if (len > 0)
        memcpy(b->p + b->len, data, len);
    set_len(b, b->len + len);
    return 0;
}

int buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_putc(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int n, r;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return b->error < 0 ? b->error : fail(b, TEKD_ETOOBIG); /* over INT_MAX octets */
    r = make_room(b, (size_t)n);
    if (r < 0)
        return r;
    va_start(ap, fmt);
    (void)vsnprintf((char *)b->p + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    set_len(b, b->len + (size_t)n);
    return 0;
}

static int put_be(struct buf *b, uint64_t v, size_t len)
{
    uint8_t octets[8];

    for (size_t i = 0; i < len; i++)
        octets[i] = (uint8_t)(v >> (8 * (len - 1 - i)));
    return buf_append(b, octets, len);
}

int buf_put_u8(struct buf *b, uint8_t v)
{
    return put_be(b, v, sizeof(v));
}

int buf_put_u16(struct buf *b, uint16_t v)
{
    return put_be(b, v, sizeof(v));
}

int buf_put_u32(struct buf *b, uint32_t v)
{
    return put_be(b, v, sizeof(v));
}

int buf_put_u64(struct buf *b, uint64_t v)
{
    return put_be(b, v, sizeof(v));
}

uint8_t *buf_reserve(struct buf *b, size_t len)
{
    return make_room(b, len) < 0 ? NULL : b->p + b->len;
}

void buf_commit(struct buf *b, size_t len)
{
    assert(len <= b->cap - b->len);
    set_len(b, b->len + len);
}

int buf_error(const struct buf *b)
{
    return b->error;
}

struct view view_of(const void *data, size_t len)
{
    return (struct view){.p = data, .left = len, .error = 0};
}

const uint8_t *view_octets(struct view *v, size_t len)
{
    const uint8_t *p = v->p;

    if (v->error < 0 || len > v->left) {
        v->error = TEKD_EFORMAT;
        return NULL;
    }
    v->p += len;
    v->left -= len;
    return p;
}

static uint64_t get_be(struct view *v, size_t len)
{
    const uint8_t *p = view_octets(v, len);
    uint64_t value = 0;

    if (p == NULL)
        return 0;
    for (size_t i = 0; i < len; i++)
        value = value << 8 | p[i];
    return value;
}

uint8_t view_u8(struct view *v)
{
    return (uint8_t)get_be(v, sizeof(uint8_t));
}

uint16_t view_u16(struct view *v)
{
    return (uint16_t)get_be(v, sizeof(uint16_t));
}

uint32_t view_u32(struct view *v)
{
    return (uint32_t)get_be(v, sizeof(uint32_t));
}

uint64_t view_u64(struct view *v)
{
    return get_be(v, sizeof(uint64_t));
}

int view_end(const struct view *v)
{
    return v->error < 0 || v->left > 0 ? TEKD_EFORMAT : 0;
}
