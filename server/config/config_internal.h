/*
 * What the files of this folder share.  A file goes through them in this order:
 *
 *     tree.c     text -> nodes with line and column (libyaml); what YAML allows and we do not
 *     check.c    nodes against the table of settings: keys, types, ranges, forms
 *     values.c   text -> struct config (libcyaml, its schema made from the same table)
 *     finish.c   defaults, absolute paths, rules between settings
 *     apart.c    what two settings must not share: files, keys
 *
 * check.c comes before libcyaml because libcyaml 1.3.1 reads 1.5 and 1x as 1 and 010 as 8, cuts a
 * text at NUL, passes over a second document, and gives a missing or unknown key the place of the
 * value before it.
 */
#ifndef TEKD_CONFIG_INTERNAL_H
#define TEKD_CONFIG_INTERNAL_H

#include <assert.h>
#include <cyaml/cyaml.h>
#include <yaml.h>

#include "tekd/buf.h"
#include "tekd/config.h"

enum setting_kind {
    SETTING_NUMBER,  /* uint32_t */
    SETTING_BOOL,    /* bool */
    SETTING_CHOICE,  /* an enum or uint32_t, by name */
    SETTING_TEXT,    /* char * */
    SETTING_SECTION, /* a struct inside the struct */
    SETTING_LIST,    /* pointer to structs, and a size_t that counts them */
    SETTING_ENV,     /* the mapping of free names: hsm.env */
};

enum setting_flags {
    SETTING_REQUIRED = 1 << 0,
    SETTING_QUIET = 1 << 1,   /* could be a secret put in the wrong place: never echoed */
    SETTING_OFF = 1 << 2,     /* stands in the sample as a comment */
    SETTING_WRITTEN = 1 << 3, /* a file or folder that tekd writes: no other setting's */
};

/* What a text has to look like; forms.c. */
enum form {
    FORM_ANY,
    FORM_NAME,     /* [A-Za-z0-9._-]+ */
    FORM_BSM_ID,   /* goes into messages and into the name of the audit log */
    FORM_ADDRESS,  /* numeric IP address */
    FORM_ENDPOINT, /* ADDRESS:PORT */
    FORM_PATH,
    FORM_SOCKET,  /* a path that fits into sockaddr_un */
    FORM_KEY,     /* a path or the URI of a key */
    FORM_TOKEN,   /* the URI of a token */
    FORM_WEB,     /* a URL of http or https: a host, no user, no fragment */
    FORM_WITNESS, /* the verifier key of a witness, or the path of a file that holds it */
};

struct setting {
    const char *key; /* NULL ends a table */
    enum setting_kind kind;
    unsigned flags;
    size_t offset;         /* in the struct of the section */
    uint32_t min, max;     /* a number; octets of a text; entries of a list */
    enum form form;        /* of a text */
    unsigned choice_count; /* of a choice */
    const cyaml_strval_t *choices;
    const struct setting *fields; /* of a section, and of an entry of a list */
    size_t size;                  /* of the struct these fill */
    size_t count_offset;          /* of a list: its count */
    const char *def;              /* default as it would stand in the file; NULL: none */
    const char *sample;           /* what the sample shows where there is no default */
    const char *meaning;          /* for the sample */
};

/* The top level. */
extern const struct setting schema_settings[];
/* "false" and "true". */
#define SCHEMA_BOOL_COUNT 2
extern const cyaml_strval_t schema_bools[SCHEMA_BOOL_COUNT];

/* The setting of that key (len octets), or NULL. */
const struct setting *schema_find(const struct setting *table, const char *key, size_t len);

/* NULL if s has the form, else what is expected: "a numeric IPv4 or IPv6 address". */
const char *form_complaint(enum form form, const char *s);
/* s, which has the form, is a path. */
bool form_is_path(enum form form, const char *s);
/* s is a URI of RFC 7512, not a path. */
bool form_is_uri(const char *s);
/* The URI of a key has this label as its object. */
bool form_uri_names(const char *uri, const char *label);
/* Splits "127.0.0.1:9464" or "[::1]:9464"; the caller frees *ret_address.  TEKD_EFORMAT, _ENOMEM */
int form_split_endpoint(const char *s, char **ret_address, uint32_t *ret_port);

/* A file on its way through. */
struct reader {
    const char *file; /* as the caller named it */
    const uint8_t *text;
    size_t len;
    struct config_error *error;
    yaml_document_t doc;
    bool has_doc;
};

/* The way to a setting, innermost first: {up: {up: NULL, key: "listen"}, index: 1}. */
struct where {
    const struct where *up;
    const char *key; /* NULL: an entry of a list */
    size_t index;
};

/* Refuses: fills r->error with "FILE:LINE:COLUMN: PATH: ..." and returns TEKD_EINVAL. */
int tree_refuse(struct reader *r, const yaml_mark_t *mark, const struct where *where,
                const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* The same at the place of the setting, or of what is around it where the file does not have it. */
int tree_refuse_at(struct reader *r, const struct where *where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Any failure that is not about a place in the file: "FILE: ..."; returns err. */
int tree_fail(struct reader *r, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Longest way to a setting in a message; the table's longest has 33 octets. */
#define TREE_PATH_MAX 256
/* Appends the way to a setting as messages have it: "listen[1].port". */
void tree_put_path(struct buf *out, const struct where *where);

int tree_parse(struct reader *r);
void tree_free(struct reader *r);
const yaml_node_t *tree_root(const struct reader *r);
const yaml_node_t *tree_node(const struct reader *r, int index);
/* The value of a key of a mapping and, unless NULL is given, the key's own node; or NULL. */
const yaml_node_t *tree_get(const struct reader *r, const yaml_node_t *mapping, const char *key,
                            const yaml_node_t **ret_key);
/* The node of a setting, or NULL; every list on the way has that entry. */
const yaml_node_t *tree_at(const struct reader *r, const struct where *where);
/* What a node is, for "found ...": its text, cut and in quotes if need be, or "a list". */
#define TREE_SHOWN_MAX 80
void tree_show(const yaml_node_t *node, char out[static TREE_SHOWN_MAX]);

int check_file(struct reader *r);
int values_load(struct reader *r, struct config **ret_config);
int finish_config(struct reader *r, struct config *c);
int apart_check(struct reader *r, const struct config *c);
int sample_print(FILE *out);

#endif
