/*
 * The names and tokens of CP-3, as they stand in messages, headers and settings.
 */
#include "cp3_codec.h"

#include <string.h>
#include <strings.h>

static const char *const media_names[] = {[CP3_XML] = "xml", [CP3_JSON] = "json"};
static const char *const form_names[] = {[CP3_FULL] = "full", [CP3_EFFICIENT] = "efficient"};

static const char *const wrap_names[] = {
    [CP3_WRAP_AES_KW] = "aes-kw",
    [CP3_WRAP_AES_KWP] = "aes-kwp",
    [CP3_WRAP_RSA_OAEP_SHA256] = "rsa-oaep-sha256",
    [CP3_WRAP_RSA_OAEP_SHA1] = "rsa-oaep-sha1",
};

static const char *const reason_names[] = {
    [CP3_REASON_NONE] = "",
    [CP3_REASON_MALFORMED] = "malformed",
    [CP3_REASON_UNSUPPORTED_VERSION] = "unsupported-version",
    [CP3_REASON_WRONG_DESTINATION] = "wrong-destination",
    [CP3_REASON_WRONG_SOURCE] = "wrong-source",
    [CP3_REASON_UNKNOWN_CONTENT] = "unknown-content",
    [CP3_REASON_NOT_ENTITLED] = "not-entitled",
    [CP3_REASON_DUPLICATE_MESSAGE_ID] = "duplicate-message-id",
    [CP3_REASON_UNKNOWN_MESSAGE] = "unknown-message",
    [CP3_REASON_WRONG_CONTENT] = "wrong-content",
    [CP3_REASON_ALREADY_CONFIRMED] = "already-confirmed",
    [CP3_REASON_NO_PERIOD] = "no-period",
    [CP3_REASON_KEY_GONE] = "key-gone",
    [CP3_REASON_BUSY] = "busy",
    [CP3_REASON_INTERNAL] = "internal",
};

static const struct {
    int code;
    const char *name, *text;
} codes[] = {
    {0, "0", "no error"},
    {CP3_ESYNTAX, "CP3_ESYNTAX", "not XML or JSON in UTF-8"},
    {CP3_EREFUSED, "CP3_EREFUSED", "XML or JSON of a kind that is not read"},
    {CP3_EFORMAT, "CP3_EFORMAT", "not a CP-3 message"},
    {CP3_ETOOBIG, "CP3_ETOOBIG", "body too big"},
    {CP3_EMEDIA, "CP3_EMEDIA", "media type or charset not supported"},
    {CP3_EINVAL, "CP3_EINVAL", "not a value of that kind"},
    {CP3_ENOSPC, "CP3_ENOSPC", "buffer too small"},
    {CP3_ENOMEM, "CP3_ENOMEM", "out of memory"},
};

const char *cp3_errname(int code)
{
    for (size_t i = 0; i < CP3_COUNT(codes); i++) {
        if (codes[i].code == code)
            return codes[i].name;
    }
    return "unknown code";
}

const char *cp3_strerror(int code)
{
    for (size_t i = 0; i < CP3_COUNT(codes); i++) {
        if (codes[i].code == code)
            return codes[i].text;
    }
    return "unknown error";
}

/* The index of a name, or -1; the empty name is none. */
static int find(const char *const *names, size_t count, const char *name)
{
    if (*name == '\0')
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return (int)i;
    }
    return -1;
}

const char *cp3_media_name(enum cp3_media media)
{
    return (size_t)media < CP3_COUNT(media_names) ? media_names[media] : NULL;
}

const char *cp3_form_name(enum cp3_form form)
{
    return (size_t)form < CP3_COUNT(form_names) ? form_names[form] : NULL;
}

const char *cp3_wrap_name(enum cp3_wrap wrap)
{
    return (size_t)wrap < CP3_COUNT(wrap_names) ? wrap_names[wrap] : NULL;
}

const char *cp3_reason_name(enum cp3_reason reason)
{
    return (size_t)reason < CP3_COUNT(reason_names) ? reason_names[reason] : NULL;
}

int cp3_media_from_name(const char *name, enum cp3_media *ret_media)
{
    int i = find(media_names, CP3_COUNT(media_names), name);

    if (i < 0)
        return CP3_EINVAL;
    *ret_media = (enum cp3_media)i;
    return 0;
}

int cp3_form_from_name(const char *name, enum cp3_form *ret_form)
{
    int i = find(form_names, CP3_COUNT(form_names), name);

    if (i < 0)
        return CP3_EINVAL;
    *ret_form = (enum cp3_form)i;
    return 0;
}

int cp3_wrap_from_name(const char *name, enum cp3_wrap *ret_wrap)
{
    int i = find(wrap_names, CP3_COUNT(wrap_names), name);

    if (i < 0)
        return CP3_EINVAL;
    *ret_wrap = (enum cp3_wrap)i;
    return 0;
}

int cp3_reason_from_name(const char *name, enum cp3_reason *ret_reason)
{
    int i = find(reason_names, CP3_COUNT(reason_names), name);

    if (i < 0)
        return CP3_EINVAL;
    *ret_reason = (enum cp3_reason)i;
    return 0;
}
