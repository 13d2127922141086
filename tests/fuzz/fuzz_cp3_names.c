/*
 * Fuzz target of what else libcp3 reads of a peer: Content-Type, times, and names.  What is read
 * is written again as what was read.
 */
#include <cp3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition, const char *what)
{
    if (condition)
        return;
    (void)fprintf(stderr, "violated: %s\n", what);
    abort();
}

static void check_time(const char *text, size_t len)
{
    struct cp3_time t, again;

    if (cp3_time_read(text, len, &t) < 0)
        return;
    require(cp3_time_set(&again, t.seconds, t.nanoseconds) == 0, "a time can be written");
    require(cp3_time_read(again.text, strlen(again.text), &t) == 0, "a written time can be read");
    require(t.seconds == again.seconds && t.nanoseconds == again.nanoseconds,
            "a written time reads as the same");
}

static void check_names(const char *name)
{
    enum cp3_reason reason;
    enum cp3_media media;
    enum cp3_form form;
    enum cp3_wrap wrap;

    if (cp3_media_from_name(name, &media) == 0)
        require(strcmp(cp3_media_name(media), name) == 0, "the medium has that name");
    if (cp3_form_from_name(name, &form) == 0)
        require(strcmp(cp3_form_name(form), name) == 0, "the form has that name");
    if (cp3_wrap_from_name(name, &wrap) == 0)
        require(strcmp(cp3_wrap_name(wrap), name) == 0, "the wrap has that name");
    if (cp3_reason_from_name(name, &reason) == 0)
        require(strcmp(cp3_reason_name(reason), name) == 0, "the reason has that name");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[NAME_MAX_LEN + 1] = "";
    enum cp3_media media;
    int r;

    r = cp3_media_from_content_type((const char *)data, size, &media);
    require(r == 0 || r == CP3_EMEDIA, "a media type is taken or not");
    require(strlen(cp3_errname(r)) > 0 && strlen(cp3_strerror(r)) > 0, "a code has a name");
    if (r == 0)
        require(cp3_media_content_type(media) != NULL, "a media type has a name");
    check_time((const char *)data, size);
    if (size > 0)
        memcpy(name, data, size < NAME_MAX_LEN ? size : NAME_MAX_LEN);
    check_names(name);
    return 0;
}
