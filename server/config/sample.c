/* The annotated sample, from the table. */
#include "config_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tekd/err.h"

#define INDENT  2
#define COLUMNS 96
/* A key, its meaning and its range. */
#define TEXT_MAX 1024

static const char intro[] =
    "Configuration of tekd: every setting with its meaning, what it may be and its default.\n"
    "Written by \"tekd --sample-config\"; a copy of it is a place to start from.\n"
    "\n"
    "Relative paths are relative to the folder of this file. Unknown or repeated keys, values of\n"
    "the wrong type or out of range, anchors, aliases, tags and second documents stop the start,\n"
    "and so does the name of a file that tekd writes where another setting has it as well.\n"
    "A PIN never stands here, only where it is found.\n";

static void print_indent(FILE *out, unsigned level)
{
    (void)fprintf(out, "%*s", (int)(level * INDENT), "");
}

/* One comment of lines as long as fit; a line break in the text stays one. */
static void print_comment(FILE *out, unsigned level, const char *text)
{
    size_t room = COLUMNS - level * INDENT - 2, len;

    while (*text != '\0') {
        len = strcspn(text, "\n");
        if (len > room) {
            for (len = room; text[len] != ' ';)
                len--;
        }
        print_indent(out, level);
        (void)fprintf(out, len > 0 ? "# %.*s\n" : "#\n", (int)len, text);
        text += len;
        text += *text != '\0';
    }
}

struct text {
    char at[TEXT_MAX];
    size_t len;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->at + t->len, sizeof(t->at) - t->len, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof(t->at) - t->len); /* the table's own text */
    t->len += (size_t)n;
}

static void add_choices(struct text *t, const cyaml_strval_t *choices, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        add(t, "%s%s", i > 0 ? " or " : "", choices[i].str);
}

/* "1..65536; default 1024" */
static void add_range(struct text *t, const struct setting *s)
{
    if (s->kind == SETTING_NUMBER)
        add(t, "%" PRIu32 "..%" PRIu32, s->min, s->max);
    if (s->kind == SETTING_LIST)
        add(t, "%" PRIu32 "..%" PRIu32 " entries", s->min, s->max);
    if (s->kind == SETTING_TEXT)
        add(t, "%" PRIu32 "..%" PRIu32 " octets", s->min, s->max);
    if (s->kind == SETTING_BOOL)
        add_choices(t, schema_bools, SCHEMA_BOOL_COUNT);
    if (s->kind == SETTING_CHOICE)
        add_choices(t, s->choices, s->choice_count);
    if (s->def != NULL)
        add(t, "; default %s", s->def);
    else
        add(t, "%s", s->flags & SETTING_REQUIRED ? "; required" : "; default none");
}

static void print_range(FILE *out, unsigned level, const struct setting *s)
{
    struct text t = {.len = 0};

    if (s->kind == SETTING_SECTION || s->kind == SETTING_ENV)
        return;
    add_range(&t, s);
    print_comment(out, level, t.at);
}

/* A section that is off: what it may have as comments, then an example on one line. */
static void print_part(FILE *out, unsigned level, const struct setting *s)
{
    for (const struct setting *f = s->fields; f->key != NULL; f++) {
        struct text t = {.len = 0};

        add(&t, "- %s: %s ", f->key, f->meaning);
        add_range(&t, f);
        print_comment(out, level, t.at);
    }
    print_indent(out, level);
    (void)fprintf(out, "#%s: %s\n", s->key, s->sample);
}

static void print_table(FILE *out, unsigned level, const struct setting *table, bool in_list);

static void print_setting(FILE *out, unsigned level, const struct setting *s, bool first_of_list)
{
    const char *value = s->flags & SETTING_OFF || s->def == NULL ? s->sample : s->def;
    bool quoted;

    print_comment(out, level, s->meaning);
    print_range(out, level, s);
    if (s->kind == SETTING_SECTION && s->flags & SETTING_OFF) {
        print_part(out, level, s);
        return;
    }
    /* The "- " of a list's entry stands in the indentation of its first key. */
    print_indent(out, first_of_list ? level - 1 : level);
    (void)fprintf(out, "%s%s%s:", first_of_list ? "- " : "", s->flags & SETTING_OFF ? "#" : "",
                  s->key);
    if (s->kind == SETTING_SECTION || s->kind == SETTING_LIST) {
        (void)fputc('\n', out);
        print_table(out, s->kind == SETTING_LIST ? level + 2 : level + 1, s->fields,
                    s->kind == SETTING_LIST);
        return;
    }
    /* A text with a colon could read as a mapping, in a flow list at least. */
    quoted = s->kind == SETTING_TEXT && strchr(value, ':') != NULL;
    (void)fprintf(out, quoted ? " \"%s\"\n" : " %s\n", value);
}

static void print_table(FILE *out, unsigned level, const struct setting *table, bool in_list)
{
    for (const struct setting *s = table; s->key != NULL; s++) {
        if (s != table || level == 0)
            (void)fputc('\n', out);
        print_setting(out, level, s, in_list && s == table);
    }
}

int sample_print(FILE *out)
{
    print_comment(out, 0, intro);
    print_table(out, 0, schema_settings, false);
    return fflush(out) == 0 && !ferror(out) ? 0 : TEKD_EIO;
}
