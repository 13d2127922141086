/*
 * Content-Type, RFC 9110 section 8.3:
 *
 *     media-type = type "/" subtype *( OWS ";" OWS [ token "=" ( token / quoted-string ) ] )
 *
 * Only charset is looked at; other parameters change nothing about our media types.
 */
#include "cp3_codec.h"

#include <string.h>
#include <strings.h>

static const struct {
    const char *type;
    enum cp3_media media;
} types[] = {
    {"application/xml", CP3_XML},
    {"text/xml", CP3_XML},
    {"application/json", CP3_JSON},
};

/* What is left of the value. */
struct rest {
    const char *at, *end;
};

static void skip_space(struct rest *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t'))
        r->at++;
}

static bool is_token(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* A token, of which at most cap - 1 octets are copied to out.  False if there is none. */
static bool get_token(struct rest *r, char *out, size_t cap)
{
    size_t n = 0;
    const char *start = r->at;

    for (; r->at < r->end && is_token(*r->at); r->at++) {
        if (n < cap - 1)
            out[n++] = *r->at;
    }
    out[n] = '\0';
    return r->at > start;
}

/* A quoted string (RFC 9110 section 5.6.4), copied likewise. */
static bool get_quoted(struct rest *r, char *out, size_t cap)
{
    size_t n = 0;

    for (r->at++; r->at < r->end && *r->at != '"'; r->at++) {
        if (*r->at == '\\' && ++r->at == r->end)
            return false;
        if (n < cap - 1)
            out[n++] = *r->at;
    }
    out[n] = '\0';
    if (r->at == r->end)
        return false;
    r->at++;
    return true;
}

/* One parameter, after its semicolon; an empty one is allowed. */
static bool parameter_is_fine(struct rest *r)
{
    char name[16], value[16]; /* longer ones are cut, and differ from ours all the same */
    bool ok;

    skip_space(r);
    if (r->at == r->end || *r->at == ';')
        return true;
    if (!get_token(r, name, sizeof(name)) || r->at == r->end || *r->at != '=')
        return false;
    r->at++;
    if (r->at < r->end && *r->at == '"')
        ok = get_quoted(r, value, sizeof(value));
    else
        ok = get_token(r, value, sizeof(value));
    return ok && (strcasecmp(name, "charset") != 0 || strcasecmp(value, "utf-8") == 0);
}

int cp3_media_from_content_type(const char *value, size_t len, enum cp3_media *ret_media)
{
    struct rest r = {value, value + len};
    size_t i, n;

    skip_space(&r);
    for (i = 0; i < CP3_COUNT(types); i++) {
        n = strlen(types[i].type);
        if ((size_t)(r.end - r.at) >= n && strncasecmp(r.at, types[i].type, n) == 0)
            break;
    }
    if (i == CP3_COUNT(types))
        return CP3_EMEDIA;
    r.at += n;
    for (skip_space(&r); r.at < r.end; skip_space(&r)) {
        if (*r.at++ != ';' || !parameter_is_fine(&r))
            return CP3_EMEDIA;
    }
    *ret_media = types[i].media;
    return 0;
}

const char *cp3_media_content_type(enum cp3_media media)
{
    switch (media) {
    case CP3_XML:
        return "application/xml";
    case CP3_JSON:
        return "application/json";
    }
    return NULL;
}
