/*
 * What the tests of libcp3 share: samples, bodies with one thing changed, the schemas.
 */
#ifndef CP3_FIXTURE_H
#define CP3_FIXTURE_H

#include <cp3.h>
#include <stdbool.h>
#include <stddef.h>

#define FIXTURE_BODY_MAX 8192
#define FIXTURE_DATA     "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"
#define FIXTURE_KEY_ID   "8ef7f1a0-0000-4000-8000-000000000001"

/* The samples tests/data/cp3/<pattern>, sorted; fails the test if there are none. */
struct fixture_samples {
    size_t count;
    char **paths;
    void *opaque;
};
void fixture_samples_get(const char *pattern, struct fixture_samples *ret_samples);
void fixture_samples_free(struct fixture_samples *samples);

/* A file, with a NUL after it that does not count; the caller frees it. */
char *fixture_file(const char *path, size_t *ret_len);
enum cp3_media fixture_media(const char *path);

enum fixture_change {
    FIXTURE_WHOLE,   /* nothing is changed */
    FIXTURE_WITHOUT, /* the field is not there */
    FIXTURE_TWICE,   /* the field is there twice */
    FIXTURE_VALUE,   /* it has this value, as it stands in the body: JSON with its quotes */
    FIXTURE_BEFORE,  /* this text stands before the field */
};

/*
 * A full message of that tag with all fields it can have, one a line: the field of index i stands
 * on line i + 2 of the fields that message has.  One of them is changed.
 */
struct fixture_body {
    enum cp3_media media;
    int tag;
    enum fixture_change change;
    const char *field; /* "Data", or "KeyInfo": the extension with all in it */
    const char *text;
};
size_t fixture_build(const struct fixture_body *b, char out[FIXTURE_BODY_MAX]);
/* On which line of such a body the field stands; it must have it. */
unsigned fixture_line(int tag, const char *field);
/* Whether a message of that tag has the field in its full form, and whether it must. */
bool fixture_has(int tag, const char *field);
bool fixture_must_have(int tag, const char *field);

/* A legal message of that tag with all it can have, as fixture_build() has it. */
void fixture_message(enum cp3_tag tag, struct cp3_message *m);

/* Whether a body is valid by both schemas; says on stderr why not. */
bool fixture_is_valid(const char *body, size_t len);

#endif
