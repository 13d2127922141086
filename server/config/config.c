/* Reading the file as a whole, and freeing what came of it. */
#include "config_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

#include "tekd/buf.h"
#include "tekd/err.h"

#define READ_BLOCK 4096

static int read_all(struct reader *r, int fd, struct buf *text)
{
    ssize_t n;
    int e;

    do {
        uint8_t *room = buf_reserve(text, READ_BLOCK);

        if (room == NULL)
            return buf_error(text) == TEKD_ENOMEM
                       ? tree_fail(r, TEKD_ENOMEM, "out of memory")
                       : tree_fail(r, TEKD_ETOOBIG, "expected at most %d octets, found more",
                                   CONFIG_FILE_MAX);
        n = read(fd, room, READ_BLOCK);
        if (n < 0 && errno != EINTR) {
            e = errno;
            return tree_fail(r, TEKD_EIO, "read: %s", strerror(e));
        }
        if (n > 0)
            buf_commit(text, (size_t)n);
    } while (n != 0);
    return 0;
}

static int read_file(struct reader *r, struct buf *text)
{
    AUTO_FD int fd = open(r->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    int errnum = errno;

    if (fd < 0)
        return tree_fail(r, tekd_err_from_errno(errnum), "open: %s", strerror(errnum));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return tree_fail(r, TEKD_EINVAL, "expected a regular file");
    return read_all(r, fd, text);
}

static int load_text(struct reader *r, struct config **ret_config)
{
    AUTO(config) struct config *c = NULL;
    int e;

    e = tree_parse(r);
    if (e < 0)
        return e;
    e = check_file(r);
    if (e < 0)
        return e;
    e = values_load(r, &c);
    if (e < 0)
        return e;
    e = finish_config(r, c);
    if (e < 0)
        return e;
    if (EVP_Digest(r->text, r->len, c->sha256, NULL, EVP_sha256(), NULL) != 1)
        return tree_fail(r, TEKD_ENOMEM, "SHA-256 failed");
    *ret_config = TAKE(c);
    return 0;
}

int config_load(const char *path, struct config **ret_config, struct config_error *ret_error)
{
    AUTO(buf) struct buf *text = NULL;
    struct reader r = {.file = path, .error = ret_error};
    int e;

    /* A block more than the limit: a file of exactly the limit is read to its end, and one octet
     * more leaves no room for the next block. */
    e = buf_new(CONFIG_FILE_MAX + READ_BLOCK, &text);
    if (e < 0)
        return tree_fail(&r, e, "out of memory");
    e = read_file(&r, text);
    if (e < 0)
        return e;
    r.text = buf_data(text);
    r.len = buf_len(text);
    e = load_text(&r, ret_config);
    tree_free(&r);
    return e;
}

static void free_table(const struct setting *table, void *base)
{
    for (const struct setting *s = table; s->key != NULL; s++) {
        char *at = (char *)base + s->offset;

        if (s->kind == SETTING_SECTION)
            free_table(s->fields, at);
        if (s->kind == SETTING_LIST) {
            size_t n = *(size_t *)(void *)((char *)base + s->count_offset);

            for (size_t i = 0; i < n; i++)
                free_table(s->fields, *(char **)(void *)at + i * s->size);
        }
        if (s->kind == SETTING_TEXT || s->kind == SETTING_LIST)
            free(*(char **)(void *)at);
    }
}

void config_free(struct config *c)
{
    if (c == NULL)
        return;
    free_table(schema_settings, c);
    for (size_t i = 0; i < c->hsm.env_count; i++) {
        free(c->hsm.env[i].name);
        free(c->hsm.env[i].value);
    }
    free(c->hsm.env);
    free(c->admin.http_address);
    free(c->file);
    free(c->dir);
    free(c);
}

int config_print_sample(FILE *out)
{
    return sample_print(out);
}
