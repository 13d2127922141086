#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/x509_vfy.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/err.h"

int audit_new(struct audit **ret_audit)
{
    AUTO(audit) struct audit *a = calloc(1, sizeof *a);
    int r;

    if (!a)
        return TEKD_ENOMEM;
    a->dirfd = -1;
    a->window_us = WINDOW_DEFAULT * INT64_C(1000000);
    a->mark = calloc(MARKS_MAX, sizeof *a->mark);
    a->failure = calloc(FAILURES_MAX, sizeof *a->failure);
    if (!a->mark || !a->failure)
        return TEKD_ENOMEM;
    merkle_range_init(&a->range);

    struct pool **pools[] = {&a->instances, &a->messages, &a->teks,
                             &a->contents,  &a->bsas,     &a->keks};
    for (size_t i = 0; i < ARRAY_SIZE(pools); i++) {
        r = pool_new(pools[i]);
        if (r < 0)
            return r;
    }
    *ret_audit = TAKE(a);
    return 0;
}

void audit_free(struct audit *a)
{
    if (!a)
        return;
    if (a->dirfd >= 0)
        (void)close(a->dirfd);
    for (size_t i = 0; i < a->n_trusted; i++)
        EVP_PKEY_free(a->trusted[i].key);
    for (size_t i = 0; i < a->n_candidates; i++)
        EVP_PKEY_free(a->candidate[i].key);
    manifest_free(a->manifest);
    X509_STORE_free(a->tsa);
    free(a->stamp);
    free(a->cosigned);
    free(a->since);
    free(a->mark);
    free(a->failure);
    free(a->outages.span);
    free(a->recovered.span);
    pool_free(a->instances);
    pool_free(a->messages);
    pool_free(a->teks);
    pool_free(a->contents);
    pool_free(a->bsas);
    pool_free(a->keks);
    free(a->message);
    free(a->tek);
    free(a->bsa);
    free(a->kek);
    free(a);
}

/* Text that was cut ends with a whole character: one of several octets that is not, goes. */
static void cut_at_character(char *text)
{
    size_t end = strlen(text), at = end;
    uint32_t code;

    while (at > 0 && end - at < 3 && ((uint8_t)text[at - 1] & 0xc0) == 0x80)
        at--;
    if (at > 0 && (uint8_t)text[at - 1] >= 0xc0 &&
        utf8_read(text + at - 1, end - at + 1, &code) != end - at + 1)
        text[at - 1] = '\0';
}

static void fail(struct audit *a, const char *where, const char *check, const char *fmt, va_list ap)
{
    struct failure *f;

    if (a->n_failures == FAILURES_MAX) {
        a->more_failures++;
        return;
    }
    f = &a->failure[a->n_failures++];
    f->check = check;
    (void)snprintf(f->where, sizeof f->where, "%s", where);
    if (vsnprintf(f->text, sizeof f->text, fmt, ap) >= (int)sizeof f->text)
        cut_at_character(f->text);
}

void audit_fail(struct audit *a, const char *check, const char *fmt, ...)
{
    char where[32];
    va_list ap;

    (void)snprintf(where, sizeof where, "record %" PRIu64, a->seq);
    va_start(ap, fmt);
    fail(a, where, check, fmt, ap);
    va_end(ap);
}

void audit_fail_at(struct audit *a, const char *where, const char *check, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fail(a, where, check, fmt, ap);
    va_end(ap);
}

void audit_unreadable(struct audit *a, const char *name, int error, const char *why)
{
    a->error = error;
    a->why = why;
    (void)snprintf(a->unreadable, sizeof a->unreadable, "%s", name);
}

void spans_add(struct audit *a, struct spans *s, struct span span)
{
    if (audit_room(a, (void **)&s->span, &s->room, s->n, sizeof *s->span))
        s->span[s->n++] = span;
}

bool audit_room(struct audit *a, void **array, size_t *room, size_t n, size_t size)
{
    size_t wanted = *room;
    void *p;

    if (n < *room)
        return true;
    while (wanted <= n)
        wanted = wanted + wanted / 2 + 64;
    p = realloc(*array, wanted * size);
    if (!p) {
        a->error = TEKD_ENOMEM;
        return false;
    }
    *array = p;
    *room = wanted;
    return true;
}
