/* Files that are there whole or not at all, and stay after a power cut. */
#include "bsa.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/fds.h"

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
    return fds_write(fd, secret_peek(text), secret_len(text)) < 0 ? -1 : fsync(fd);
}

/* By way of a temporary file, which nothing is left of. */
static int replace(const char *path, const struct secret *text)
{
    AUTO_MEM char *temporary = NULL;
    AUTO_FD int fd = -1;
    int errnum;

    if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
        temporary = NULL;
        errno = ENOMEM;
        return -1;
    }
    fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd >= 0 && write_out(fd, text) == 0 && rename(temporary, path) == 0 &&
        file_sync_folder(path) == 0)
        return 0;
    errnum = errno;
    if (fd >= 0)
        (void)unlink(temporary); /* gone already if only the folder could not be synced */
    errno = errnum;
    return -1;
}

/* What ends the program by default waits meanwhile: a key in a file of no name would be left. */
int file_save_tek(const char *path, const struct secret *tek)
{
    AUTO(secret) struct secret *text = NULL;
    sigset_t ending, before;
    int errnum, r;

    if (secret_new(ENC_HEX_LEN(secret_len(tek)) + 1, &text) < 0) {
        errno = ENOMEM;
        return -1;
    }
    enc_hex(secret_peek(tek), secret_len(tek), (char *)secret_get(text));
    secret_get(text)[ENC_HEX_LEN(secret_len(tek))] = '\n';
    (void)sigemptyset(&ending);
    (void)sigaddset(&ending, SIGHUP);
    (void)sigaddset(&ending, SIGINT);
    (void)sigaddset(&ending, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &ending, &before);
    r = replace(path, text);
    errnum = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = errnum;
    return r;
}

/* ---- a folder of keys ------------------------------------------------------------------------ */

#define SUFFIX     ".tek"
#define UNFINISHED "*" SUFFIX ".??????" /* as file_save_tek() names what it has not finished */
/* What a ContentID may take of a name, with room for a key id, the suffix and six random letters.
 */
#define CONTENT_MAX 200
#define CUT         '~' /* stands in no encoded ContentID */

static bool is_plain(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static size_t encode(const char *text, char *out)
{
    char *p = out;

    for (; *text != '\0'; text++)
        p += snprintf(p, 4, is_plain(*text) ? "%c" : "%%%02X", (unsigned)(unsigned char)*text);
    return (size_t)(p - out);
}

void file_tek_name(const struct cp3_message *m, char out[static FILE_NAME_SIZE])
{
    char content[3 * CP3_CONTENT_ID_MAX + 1], uuid[ENC_UUID_LEN + 1] = "";
    uint8_t digest[SHA256_DIGEST_LENGTH];
    size_t len = encode(m->content_id, content),
           cut = CONTENT_MAX - 1 - ENC_HEX_LEN(sizeof(digest));
    bool has_id = m->has & CP3_HAS_KEY_INFO;

    if (len > CONTENT_MAX) {
        (void)SHA256((const uint8_t *)m->content_id, strlen(m->content_id), digest);
        content[cut] = CUT;
        enc_hex(digest, sizeof(digest), content + cut + 1);
    }
    if (has_id)
        enc_uuid(m->key_info.key_id, uuid);
    (void)snprintf(out, FILE_NAME_SIZE, "%.*s%s%s" SUFFIX, CONTENT_MAX, content, has_id ? "." : "",
                   uuid);
}

/* What a killed program left half written. */
static int sweep(int folder)
{
    AUTO_FD int fd = fcntl(folder, F_DUPFD_CLOEXEC, 0);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;
    int r = 0;

    if (d == NULL)
        return -1;
    (void)TAKE_FD(fd);
    while (r == 0 && (e = readdir(d)) != NULL)
        if (fnmatch(UNFINISHED, e->d_name, FNM_PERIOD) == 0)
            r = unlinkat(folder, e->d_name, 0);
    (void)closedir(d);
    return r;
}

/* What stands against it; NULL: nothing, and it is locked. */
static const char *lock_folder(const char *path, int *ret_fd)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return strerror(errno);
    *ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*ret_fd < 0)
        return strerror(errno);
    if (flock(*ret_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? "another tek-bsa writes there" : strerror(errno);
    return sweep(*ret_fd) < 0 ? strerror(errno) : NULL;
}

int file_open_folder(const char *path, int *ret_fd)
{
    AUTO_FD int fd = -1;
    const char *why = lock_folder(path, &fd);

    if (why != NULL) {
        complain("--out %s: %s", path, why);
        return TEKD_EIO;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}
