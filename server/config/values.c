/*
 * libcyaml fills the struct; its schema is made from the table of settings.  The file has passed
 * check.c, so a refusal by libcyaml means that the two disagree: what libcyaml logged becomes the
 * message.
 */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

#include "tekd/buf.h"
#include "tekd/err.h"

/* All tables together, ends included; config_load() of any file asserts that it is enough. */
#define FIELDS_MAX  128
#define ENTRIES_MAX 4
/* libcyaml's message and its backtrace, a line a level. */
#define TRACE_MAX 512

struct schema {
    cyaml_schema_field_t fields[FIELDS_MAX];
    size_t field_count;
    cyaml_schema_value_t entries[ENTRIES_MAX]; /* of lists */
    size_t entry_count;
};

static const cyaml_schema_field_t *make_fields(struct schema *schema, const struct setting *table);

static cyaml_schema_value_t make_value(struct schema *schema, const struct setting *s)
{
    cyaml_schema_value_t v = {0};
    cyaml_schema_value_t *entry;

    switch (s->kind) {
    case SETTING_NUMBER:
        v = (cyaml_schema_value_t){.type = CYAML_UINT, .data_size = sizeof(uint32_t)};
        break;
    case SETTING_BOOL:
        v = (cyaml_schema_value_t){.type = CYAML_ENUM,
                                   .flags = CYAML_FLAG_STRICT,
                                   .data_size = sizeof(bool),
                                   .enumeration = {schema_bools, SCHEMA_BOOL_COUNT}};
        break;
    case SETTING_CHOICE:
        v = (cyaml_schema_value_t){.type = CYAML_ENUM,
                                   .flags = CYAML_FLAG_STRICT,
                                   .data_size = sizeof(uint32_t),
                                   .enumeration = {s->choices, s->choice_count}};
        break;
    case SETTING_TEXT:
        v = (cyaml_schema_value_t){.type = CYAML_STRING,
                                   .flags = CYAML_FLAG_POINTER,
                                   .data_size = sizeof(char),
                                   .string = {s->min, s->max}};
        break;
    case SETTING_SECTION:
        v = (cyaml_schema_value_t){.type = CYAML_MAPPING, .data_size = (uint32_t)s->size};
        v.mapping.fields = make_fields(schema, s->fields);
        break;
    case SETTING_LIST:
        assert(schema->entry_count < ENTRIES_MAX);
        entry = &schema->entries[schema->entry_count++];
        *entry = (cyaml_schema_value_t){.type = CYAML_MAPPING, .data_size = (uint32_t)s->size};
        entry->mapping.fields = make_fields(schema, s->fields);
        v = (cyaml_schema_value_t){.type = CYAML_SEQUENCE,
                                   .flags = CYAML_FLAG_POINTER,
                                   .data_size = (uint32_t)s->size,
                                   .sequence = {entry, s->min, s->max}};
        break;
    case SETTING_ENV:
        v.type = CYAML_IGNORE; /* it has no mappings of free names: finish.c reads them */
        break;
    }
    if (!(s->flags & SETTING_REQUIRED))
        v.flags |= CYAML_FLAG_OPTIONAL;
    return v;
}

static const cyaml_schema_field_t *make_fields(struct schema *schema, const struct setting *table)
{
    cyaml_schema_field_t *fields = &schema->fields[schema->field_count];
    size_t n = 0;

    while (table[n].key != NULL)
        n++;
    assert(schema->field_count + n + 1 <= FIELDS_MAX);
    schema->field_count += n + 1;
    for (size_t i = 0; i < n; i++) {
        fields[i] = (cyaml_schema_field_t){
            .key = table[i].key,
            .data_offset = (uint32_t)table[i].offset,
            .count_offset = (uint32_t)table[i].count_offset,
            .count_size = table[i].kind == SETTING_LIST ? sizeof(size_t) : 0,
            .value = make_value(schema, &table[i]),
        };
    }
    return fields; /* the entry behind them is all zero: the end */
}

/* config_free() frees with free(), so libcyaml has to allocate with malloc's family. */
static void *allocate(void *ctx, void *p, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, size);
}

/* The lines of the log, one after the other with "; " between. */
static void __attribute__((format(printf, 3, 0)))
capture(cyaml_log_t level, void *ctx, const char *fmt, va_list ap)
{
    struct buf *trace = ctx;
    char line[TRACE_MAX];
    size_t len;

    (void)level;
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    len = strcspn(line, "\n");
    (void)buf_printf(trace, "%s%.*s", buf_len(trace) > 0 ? "; " : "", (int)len, line);
}

int values_load(struct reader *r, struct config **ret_config)
{
    AUTO(buf) struct buf *trace = NULL;
    AUTO_MEM struct schema *schema = calloc(1, sizeof(*schema));
    cyaml_schema_value_t top = {
        .type = CYAML_MAPPING, .flags = CYAML_FLAG_POINTER, .data_size = sizeof(struct config)};
    cyaml_config_t settings = {.log_fn = capture,
                               .mem_fn = allocate,
                               .log_level = CYAML_LOG_ERROR,
                               .flags = CYAML_CFG_NO_ALIAS};
    cyaml_data_t *data = NULL;
    cyaml_err_t e;

    if (schema == NULL || buf_new(TRACE_MAX, &trace) < 0)
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    top.mapping.fields = make_fields(schema, schema_settings);
    settings.log_ctx = trace;
    e = cyaml_load_data(r->text, r->len, &settings, &top, &data, NULL);
    if (e == CYAML_ERR_OOM)
        return tree_fail(r, TEKD_ENOMEM, "out of memory");
    if (e != CYAML_OK || data == NULL)
        return tree_fail(r, TEKD_EINVAL, "libcyaml: %s (%s)", cyaml_strerror(e), buf_str(trace));
    *ret_config = data;
    return 0;
}
