/* What the options of the commands mean. */
#include "bsa.h"

#include <limits.h>
#include <string.h>

#include "tekd/err.h"

/* Numbers among the options.  What is not given and has no default stays as it is. */
#define NUMBER(option, field, value, min, max)                                                     \
    {                                                                                              \
        option, offsetof(struct settings, given.field), offsetof(struct settings, value), min, max \
    }
static const struct {
    const char *option;
    size_t given; /* offset of the text */
    size_t value; /* and of the number */
    unsigned min, max;
} numbers[] = {
    NUMBER("timeout", timeout, timeout_s, 1, 300),
    NUMBER("wait", wait, wait_s, 0, 60), /* as long as a BSM lets wait */
    NUMBER("port", port, port, 0, 65535),
    NUMBER("status", status, status, 0, 1),
    NUMBER("delay", delay, delay_ms, 0, 3600000),
    NUMBER("count", count, count, 1, 1000000),
};

static int read_numbers(struct settings *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        const char *text;
        unsigned n;

        memcpy(&text, (const char *)s + numbers[i].given, sizeof(text));
        if (text == NULL)
            continue;
        if (options_number(numbers[i].option, text, numbers[i].min, numbers[i].max, &n) < 0)
            return TEKD_EINVAL;
        memcpy((char *)s + numbers[i].value, &n, sizeof(n));
    }
    return 0;
}

/* How many deliveries, in two ways. */
static int read_counts(struct settings *s)
{
    if (s->given.once && s->given.count != NULL) {
        complain("--once and --count say the same thing");
        return TEKD_EINVAL;
    }
    if (s->given.once)
        s->count = 1;
    else if (s->given.count == NULL)
        s->count = UINT_MAX;
    if (s->given.drop == NULL)
        return 0;
    s->drop = UINT_MAX;
    return strcmp(s->given.drop, "all") == 0
               ? 0
               : options_number("drop", s->given.drop, 0, 1000000, &s->drop);
}

static int read_terms(struct settings *s)
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
    if (s->given.form != NULL && cp3_form_from_name(s->given.form, &s->form) < 0) {
        complain("--form: expected full or efficient, found %s", s->given.form);
        return TEKD_EINVAL;
    }
    return 0;
}

static int check_url(const char *option, const char *url)
{
    if (url == NULL || strncmp(url, "https://", strlen("https://")) == 0)
        return 0;
    complain("--%s: expected https://..., found %s", option, url);
    return TEKD_EINVAL;
}

int settings_read(const struct option_table *table, int argc, char **argv, struct settings *s)
{
    int r;

    r = options_parse(table, argc, argv, s);
    if (r == 0)
        r = read_terms(s);
    if (r == 0)
        r = check_url("url", s->given.url);
    if (r == 0)
        r = check_url("late", s->given.late);
    if (r == 0)
        r = read_numbers(s);
    return r < 0 ? r : read_counts(s);
}

struct https_request settings_link(const struct settings *s, const char *url,
                                   const struct stop *stop)
{
    return (struct https_request){.url = url,
                                  .ca = s->given.ca,
                                  .cert = s->given.cert,
                                  .key = s->given.key,
                                  .timeout_s = s->timeout_s,
                                  .stop = stop};
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
