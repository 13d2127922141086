/*
 * SHA256SUMS, as sha256sum(1) writes and checks it: for each file one line
 *     64 lower-case hexadecimal digits, two spaces, name, LF
 * What may be listed is what an export has, so no name leads out of its folder.  The sums protect
 * nobody from an attacker, who can write new ones; they tell a damaged copy from a forged log.
 */
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"

#define DIGITS ((size_t)ENC_HEX_LEN(MERKLE_HASH_LEN))
#define LEFT   (DIGITS + 2) /* of the name */
#define HEX    "0123456789abcdef"
#define PLAIN  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

static bool key_name_ok(const char *name)
{
    return strspn(name, HEX) == 8 && strcmp(name + 8, ".pem") == 0;
}

static bool anchor_name_ok(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strspn(name, PLAIN) == strlen(name);
}

static bool name_ok(const char *name)
{
    static const char *const files[] = {"audit.jsonl", "checkpoint", "checkpoints.txt",
                                        "pending.jsonl"};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (strcmp(name, files[i]) == 0)
            return true;
    if (strncmp(name, "keys/", 5) == 0)
        return key_name_ok(name + 5);
    return strncmp(name, "anchors/", 8) == 0 && anchor_name_ok(name + 8);
}

static int read_line(const char *line, size_t len, struct manifest_entry *e)
{
    if (len <= LEFT || len - LEFT >= sizeof e->name || memchr(line, '\0', len) ||
        line[DIGITS] != ' ' || line[DIGITS + 1] != ' ')
        return TEKD_EFORMAT;
    for (size_t i = 0; i < DIGITS; i++)
        if (!strchr(HEX, line[i]))
            return TEKD_EFORMAT;
    if (enc_hex_read(line, DIGITS, e->sum.octets, MERKLE_HASH_LEN) < 0)
        return TEKD_EFORMAT;
    memcpy(e->name, line + LEFT, len - LEFT);
    e->name[len - LEFT] = '\0';
    return name_ok(e->name) ? 0 : TEKD_EFORMAT;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct manifest_entry *)a)->name,
                  ((const struct manifest_entry *)b)->name);
}

static size_t count_lines(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    return n;
}

int manifest_read(const char *text, size_t len, struct manifest **ret_manifest, size_t *ret_line)
{
    AUTO(manifest) struct manifest *m = calloc(1, sizeof *m);
    size_t n = count_lines(text, len);

    *ret_line = 1;
    if (!m)
        return TEKD_ENOMEM;
    m->entry = calloc(n + 1, sizeof *m->entry);
    if (!m->entry)
        return TEKD_ENOMEM;
    for (const char *p = text; p < text + len; m->n++) {
        const char *end = memchr(p, '\n', (size_t)(text + len - p));

        *ret_line = m->n + 1;
        if (!end || read_line(p, (size_t)(end - p), &m->entry[m->n]) < 0)
            return TEKD_EFORMAT;
        p = end + 1;
    }
    qsort(m->entry, m->n, sizeof *m->entry, by_name);
    for (size_t i = 1; i < m->n; i++)
        if (by_name(&m->entry[i - 1], &m->entry[i]) == 0)
            return TEKD_EFORMAT;
    *ret_manifest = TAKE(m);
    return 0;
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    free(m->entry);
    free(m);
}

const struct manifest_entry *manifest_find(const struct manifest *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->entry[i].name, name) == 0)
            return &m->entry[i];
    return NULL;
}
