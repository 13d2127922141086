/*
 * A growing buffer of octets with a hard limit, for everything whose size a peer or a file can
 * choose.  A write that would pass the limit fails and changes nothing, and marks the buffer: a
 * builder may append many times and ask buf_error() once.
 *
 * Thread rule: one owner at a time.
 */
#ifndef TEKD_BUF_H
#define TEKD_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"

struct buf;

/* An empty buffer of at most max octets (max >= 1).  Errors: TEKD_ENOMEM. */
int buf_new(size_t max, struct buf **ret_buf);
void buf_free(struct buf *b);
AUTO_DEFINE(buf)

/* The octets, borrowed until the next change; buf_len() of them, and one zero octet behind. */
const uint8_t *buf_data(const struct buf *b);
const char *buf_str(const struct buf *b);
size_t buf_len(const struct buf *b);

/* Empties and clears the error; the memory is kept for the next use. */
void buf_reset(struct buf *b);

/* Cuts to len octets, at most the current length. */
void buf_truncate(struct buf *b, size_t len);

/* Appends.  Errors: TEKD_ETOOBIG (over the limit), TEKD_ENOMEM; the first one stays. */
int buf_append(struct buf *b, const void *data, size_t len);
int buf_puts(struct buf *b, const char *s);
int buf_putc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Big-endian integers, for the fixed layouts between processes. */
int buf_put_u8(struct buf *b, uint8_t v);
int buf_put_u16(struct buf *b, uint16_t v);
int buf_put_u32(struct buf *b, uint32_t v);
int buf_put_u64(struct buf *b, uint64_t v);

/*
 * Makes room for len octets behind the data and returns where to write them, NULL when that would
 * pass the limit; buf_commit() then says how many were written.
 */
uint8_t *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);

/* 0, or the first error of all appends since buf_new() or buf_reset(). */
int buf_error(const struct buf *b);

/*
 * A reader over octets that it does not own; big-endian.  After the first read past the end every
 * read gives zeros and view_end() says TEKD_EFORMAT.
 */
struct view {
    const uint8_t *p;
    size_t left;
    int error;
};
struct view view_of(const void *data, size_t len);
uint8_t view_u8(struct view *v);
uint16_t view_u16(struct view *v);
uint32_t view_u32(struct view *v);
uint64_t view_u64(struct view *v);
/* len octets, borrowed from the data; NULL past the end. */
const uint8_t *view_octets(struct view *v, size_t len);
/* 0 if nothing was read past the end and nothing is left, else TEKD_EFORMAT. */
int view_end(const struct view *v);

#endif
