/*
 * Fuzz target of cp3_read(), built once for each medium (FUZZ_MEDIA).  What must hold of any body:
 *   - it is refused with an error that may be shown as it is, or
 *   - it is a message that can be written, in either medium, and reads back as the same; what was
 *     read back writes the same octets.
 */
#include <cp3.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cp3_equal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cp3_reader *reader;

/* Kept when assertions would not be: this is what the target is for. */
static void require(bool condition, const char *what)
{
    if (condition)
        return;
    (void)fprintf(stderr, "violated: %s\n", what);
    abort();
}

static bool is_printable(const char *text, size_t cap)
{
    size_t len = strnlen(text, cap);

    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7E)
            return false;
    }
    return len > 0 && len < cap;
}

static void check_error(const struct cp3_error *err, int code)
{
    require(err->code == code && code < 0, "the error has the code that was returned");
    require(err->line >= 1 || code == CP3_ETOOBIG, "the error has a line");
    require(is_printable(err->element, sizeof(err->element)), "element is printable");
    require(is_printable(err->reason, sizeof(err->reason)), "reason is printable");
    require(err->tag >= 0 && err->tag <= 4, "tag is a tag");
    require(strnlen(err->message_id, sizeof(err->message_id)) < sizeof(err->message_id),
            "message_id ends");
}

static void check_message(const struct cp3_message *m, enum cp3_media media, enum cp3_form form)
{
    static char first[CP3_WRITTEN_MAX], second[CP3_WRITTEN_MAX];
    struct cp3_message again;
    size_t n, n2;
    int r = cp3_write(media, form, m, first, sizeof(first), &n);

    if (media == CP3_XML && form == CP3_FULL && m->version > UINT32_MAX) {
        require(r == CP3_EINVAL, "a Version beyond XML Schema's type is not written");
        return;
    }
    require(r == 0, "what was read can be written");
    require(cp3_read(reader, media, first, n, &again, NULL) == 0, "what was written can be read");
    require(again.form == form, "the form is the one written");
    require(cp3_equal(m, &again, form), "what was written reads as the same");
    require(cp3_write(media, form, &again, second, sizeof(second), &n2) == 0 && n == n2 &&
                memcmp(first, second, n) == 0,
            "the same message gives the same octets");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cp3_message m;
    struct cp3_error err;
    int r;

    if (reader == NULL)
        require(cp3_reader_new(&reader) == 0, "there is memory for a reader");
    memset(&err, 0x7F, sizeof(err));
    r = cp3_read(reader, FUZZ_MEDIA, data, size, &m, &err);
    if (r < 0) {
        check_error(&err, r);
        return 0;
    }
    for (int media = CP3_XML; media <= CP3_JSON; media++) {
        check_message(&m, (enum cp3_media)media, m.form);
        if (m.tag == CP3_RESPONSE || m.tag == CP3_CONFIRMATION)
            check_message(&m, (enum cp3_media)media, CP3_EFFICIENT);
    }
    return 0;
}
