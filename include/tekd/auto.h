/*
 * Clean-up by scope: an AUTO(type) local is freed with type_free() when its scope is left, and
 * TAKE() gives it away instead.  An AUTO local is always initialised, to NULL if nothing else.
 */
#ifndef TEKD_AUTO_H
#define TEKD_AUTO_H

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

/* Declares the type of a local that owns a struct: AUTO(buf) struct buf *b = NULL; */
#define AUTO(type) __attribute__((cleanup(type##_freep)))

/* Written once after the prototype of type_free(), in the header that has it. */
#define AUTO_DEFINE(type)                                                                          \
    static inline void type##_freep(struct type **p)                                               \
    {                                                                                              \
        type##_free(*p);                                                                           \
    }

/* Ownership leaves the variable: its value is returned and NULL stays behind. */
#define TAKE(p)                                                                                    \
    __extension__({                                                                                \
        __typeof__(p) take_ = (p);                                                                 \
        (p) = NULL;                                                                                \
        take_;                                                                                     \
    })

/* A string or other plain memory of malloc(): AUTO_MEM char *s = NULL; */
#define AUTO_MEM __attribute__((cleanup(auto_mem_freep)))
static inline void auto_mem_freep(void *p)
{
    free(*(void **)p);
}

/* A file descriptor, closed if not negative: AUTO_FD int fd = -1; given away with TAKE_FD(). */
#define AUTO_FD __attribute__((cleanup(auto_fd_closep)))
static inline void auto_fd_closep(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}
#define TAKE_FD(fd)                                                                                \
    __extension__({                                                                                \
        int take_ = (fd);                                                                          \
        (fd) = -1;                                                                                 \
        take_;                                                                                     \
    })

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
