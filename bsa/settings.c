/* What the options of the commands mean. */
#include "bsa.h"

#include <string.h>

#include "tekd/err.h"

#define TIMEOUT_MAX_S 300

static int take_terms(struct settings *s)
{
    s->terms.bsa = s->given.bsa;
    s->terms.bsm = s->given.bsm;
    s->terms.one_media = s->given.media != NULL;
    if (s->terms.one_media && cp3_media_from_name(s->given.media, &s->terms.media) < 0) {
        complain("--media: expected xml or json, found %s", s->given.media);
        return TEKD_EINVAL;
    }
    if (cp3_wrap_from_name(s->given.wrap, &s->terms.wrap) < 0 ||
        unwrap_data_len(s->terms.wrap, 16) == 0) {
        complain("--wrap: expected aes-kw or aes-kwp, found %s", s->given.wrap);
        return TEKD_EINVAL;
    }
    return 0;
}

static int check_url(const char *option, const char *url)
{
    if (strncmp(url, "https://", strlen("https://")) == 0)
        return 0;
    complain("--%s: expected https://..., found %s", option, url);
    return TEKD_EINVAL;
}

int settings_read(const struct option_table *table, int argc, char **argv, struct settings *s)
{
    int r;

    r = options_parse(table, argc, argv, s);
    if (r == 0)
        r = take_terms(s);
    if (r == 0)
        r = check_url("url", s->given.url);
    return r < 0 ? r : options_number("timeout", s->given.timeout, 1, TIMEOUT_MAX_S, &s->timeout_s);
}

int settings_read_kek(struct settings *s)
{
    static const struct {
        int error;
        const char *text;
    } texts[] = {
        {TEKD_ENOTFOUND, "there is no such file"},
        {TEKD_EDENIED, "expected a regular file of this user or root with mode 0600 or stricter"},
        {TEKD_EFORMAT, "expected 32, 48 or 64 hexadecimal digits and nothing else"},
        {TEKD_ETOOBIG, "expected 32, 48 or 64 hexadecimal digits and nothing else"},
    };
    const char *text = NULL;
    int r = unwrap_read_kek(s->given.kek, &s->kek);

    s->terms.kek = s->kek;
    if (r == 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i].error == r)
            text = texts[i].text;
    complain("--kek %s: %s", s->given.kek, text != NULL ? text : tekd_strerror(r));
    return r;
}

void settings_clear(struct settings *s)
{
    secret_free(s->kek);
    s->kek = NULL;
}
