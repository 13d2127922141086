/* Files that are there whole or not at all, and stay after a power cut. */
#include "bsa.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tekd/enc.h"

int file_write(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

int file_sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    AUTO_MEM char *folder = slash == NULL   ? strdup(".")
                            : slash == path ? strdup("/")
                                            : strndup(path, (size_t)(slash - path));
    AUTO_FD int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    return fd < 0 ? -1 : fsync(fd);
}

/* Writes all of it and makes it last. */
static int write_out(int fd, const struct secret *text)
{
    return file_write(fd, secret_peek(text), secret_len(text)) < 0 ? -1 : fsync(fd);
}

int file_save_tek(const char *path, const struct secret *tek)
{
    AUTO(secret) struct secret *text = NULL;
    AUTO_MEM char *temporary = NULL;
    AUTO_FD int fd = -1;
    int errnum;

    if (secret_new(ENC_HEX_LEN(secret_len(tek)) + 1, &text) < 0 ||
        asprintf(&temporary, "%s.XXXXXX", path) < 0) {
        complain("--out %s: out of memory", path);
        return BSA_REFUSED;
    }
    enc_hex(secret_peek(tek), secret_len(tek), (char *)secret_get(text));
    secret_get(text)[ENC_HEX_LEN(secret_len(tek))] = '\n';
    fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd >= 0 && write_out(fd, text) == 0 && rename(temporary, path) == 0 &&
        file_sync_folder(path) == 0)
        return BSA_DONE;
    errnum = errno;
    if (fd >= 0)
        (void)unlink(temporary); /* gone already if only the folder could not be synced */
    complain("--out %s: %s", path, strerror(errnum));
    return BSA_REFUSED;
}
