/*
 * Which deliveries were taken.  The file is append-only text, a line a delivery, in the order they
 * were taken:
 *
 *     {"message_id":"...","content_id":"...","sha256":"<64 digits>","time":"<RFC 3339>"}
 *
 * sha256 is that of ContentID, a zero octet and Data (still wrapped); with message_id it is what is
 * read back.  A last line without its line feed is one whose writing was cut short: its delivery
 * was never confirmed, so the line is cut off at the next start.
 *
 * In memory stand the newest JOURNAL_MAX of them, in a ring, found by a hash table whose chains are
 * linked through the ring.  The table's hash is the start of a SHA-256: a peer cannot fill one
 * chain.
 */
#include "bsa.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/sha.h>

#include "tekd/clock.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/fds.h"

#define DIGEST SHA256_DIGEST_LENGTH
#define NONE   UINT32_MAX

struct entry {
    uint8_t id[DIGEST];   /* SHA-256 of the MessageID */
    uint8_t what[DIGEST]; /* the member sha256 */
    uint32_t next;        /* in its chain, or NONE */
};

struct journal {
    const char *path; /* borrowed; NULL: in memory only */
    int fd;
    off_t end;   /* of the last whole line */
    bool broken; /* what the disk has is not known any more: nothing is added */
    size_t n;    /* entries in use */
    size_t oldest;
    struct entry entry[JOURNAL_MAX];
    uint32_t chain[JOURNAL_MAX];
};

static_assert(JOURNAL_MAX < NONE, "indices have 32 bits");

/* ---- in memory ------------------------------------------------------------------------------- */

static uint32_t *chain_of(struct journal *j, const uint8_t id[static DIGEST])
{
    uint32_t hash;

    memcpy(&hash, id, sizeof(hash));
    return &j->chain[hash % JOURNAL_MAX];
}

/* The link that leads to this id; what it holds is NONE if there is none. */
static uint32_t *link_to(struct journal *j, const uint8_t id[static DIGEST])
{
    uint32_t *link = chain_of(j, id);

    while (*link != NONE && memcmp(j->entry[*link].id, id, DIGEST) != 0)
        link = &j->entry[*link].next;
    return link;
}

static void forget_oldest(struct journal *j)
{
    uint32_t *link = link_to(j, j->entry[j->oldest].id);

    *link = j->entry[*link].next;
    j->oldest = (j->oldest + 1) % JOURNAL_MAX;
    j->n--;
}

static void remember(struct journal *j, const uint8_t id[static DIGEST],
                     const uint8_t what[static DIGEST])
{
    uint32_t *link = link_to(j, id), at = *link;

    if (at == NONE) {
        if (j->n == JOURNAL_MAX)
            forget_oldest(j);
        at = (uint32_t)((j->oldest + j->n++) % JOURNAL_MAX);
        memcpy(j->entry[at].id, id, DIGEST);
        link = chain_of(j, id);
        j->entry[at].next = *link;
        *link = at;
    }
    memcpy(j->entry[at].what, what, DIGEST);
}

static void digest_of(const struct cp3_message *m, uint8_t what[static DIGEST])
{
    uint8_t octets[CP3_CONTENT_ID_MAX + 1 + CP3_DATA_MAX];
    size_t len = strlen(m->content_id) + 1;

    memcpy(octets, m->content_id, len);
    memcpy(octets + len, m->data, m->data_len);
    (void)SHA256(octets, len + m->data_len, what);
}

enum journal_known journal_find(struct journal *j, const struct cp3_message *m)
{
    uint8_t id[DIGEST], what[DIGEST];
    uint32_t at;

    (void)SHA256((const uint8_t *)m->message_id, strlen(m->message_id), id);
    at = *link_to(j, id);
    if (at == NONE)
        return JOURNAL_NEW;
    digest_of(m, what);
    return memcmp(j->entry[at].what, what, DIGEST) == 0 ? JOURNAL_SAME : JOURNAL_OTHER;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool take_record(struct journal *j, const char *line)
{
    json_t *doc = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    const char *message_id, *hex;
    uint8_t id[DIGEST], what[DIGEST];
    bool good = doc != NULL &&
                json_unpack(doc, "{s:s, s:s}", "message_id", &message_id, "sha256", &hex) == 0 &&
                enc_hex_read(hex, strlen(hex), what, sizeof(what)) == 0;

    if (good) {
        (void)SHA256((const uint8_t *)message_id, strlen(message_id), id);
        remember(j, id, what);
    }
    json_decref(doc);
    return good;
}

static int read_lines(struct journal *j, FILE *f)
{
    char line[JOURNAL_LINE_MAX + 1];

    for (unsigned number = 1; fgets(line, sizeof(line), f) != NULL; number++) {
        size_t len = strlen(line);
        bool whole = len > 0 && line[len - 1] == '\n';

        if (!whole && feof(f))
            return 0; /* cut short */
        if (!whole || !take_record(j, line)) {
            complain("--journal %s: line %u: expected a record of a delivery", j->path, number);
            return TEKD_EFORMAT;
        }
        j->end += (off_t)len;
    }
    return ferror(f) ? TEKD_EIO : 0;
}

/* The last line, if its writing was cut short. */
static int cut_rest(struct journal *j)
{
    struct stat st;

    if (fstat(j->fd, &st) < 0)
        return TEKD_EIO;
    if (st.st_size == j->end)
        return 0;
    complain("--journal %s: the last line is not whole: %lld octets are cut off", j->path,
             (long long)(st.st_size - j->end));
    return ftruncate(j->fd, j->end) < 0 || fdatasync(j->fd) < 0 ? TEKD_EIO : 0;
}

static int load(struct journal *j)
{
    AUTO_FD int fd = fcntl(j->fd, F_DUPFD_CLOEXEC, 0);
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    int r;

    if (f == NULL)
        return TEKD_EIO;
    (void)TAKE_FD(fd);
    r = read_lines(j, f);
    (void)fclose(f);
    return r < 0 ? r : cut_rest(j);
}

/* ---- the file -------------------------------------------------------------------------------- */

static int failed(const struct journal *j, const char *what)
{
    complain("--journal %s: %s", j->path, what);
    return TEKD_EIO;
}

/* Two programs with one journal would not know of each other's deliveries. */
static int open_file(struct journal *j)
{
    struct stat st;
    int r;

    j->fd = open(j->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (j->fd < 0 || fstat(j->fd, &st) < 0)
        return failed(j, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return failed(j, "expected a regular file");
    if (flock(j->fd, LOCK_EX | LOCK_NB) < 0)
        return failed(j, errno == EWOULDBLOCK ? "another tek-bsa has it" : strerror(errno));
    r = load(j);
    if (r == TEKD_EIO || (r == 0 && file_sync_folder(j->path) < 0))
        return failed(j, strerror(errno));
    return r;
}

int journal_open(const char *path, struct journal **ret_journal)
{
    AUTO(journal) struct journal *j = calloc(1, sizeof(*j));
    int r;

    if (j == NULL) {
        complain("out of memory for the journal");
        return TEKD_ENOMEM;
    }
    j->path = path;
    j->fd = -1;
    memset(j->chain, 0xff, sizeof(j->chain)); /* NONE */
    r = path != NULL ? open_file(j) : 0;
    if (r < 0)
        return r;
    *ret_journal = TAKE(j);
    return 0;
}

void journal_free(struct journal *j)
{
    if (j == NULL)
        return;
    if (j->fd >= 0)
        (void)close(j->fd);
    free(j);
}

/*
 * After a write that failed the file is cut back, so that the next line does not begin inside this
 * one.  After a sync that failed nobody knows what the disk has, and a second sync would not tell.
 */
static int append(struct journal *j, const char *line, size_t len)
{
    int errnum;

    if (j->broken) {
        errno = EIO;
        return TEKD_EIO;
    }
    if (fds_write(j->fd, line, len) < 0) {
        errnum = errno;
        j->broken = ftruncate(j->fd, j->end) < 0;
        errno = errnum;
        return TEKD_EIO;
    }
    if (fdatasync(j->fd) < 0) {
        j->broken = true;
        return TEKD_EIO;
    }
    j->end += (off_t)len;
    return 0;
}

static int append_record(struct journal *j, const struct cp3_message *m,
                         const uint8_t what[static DIGEST])
{
    char hex[ENC_HEX_LEN(DIGEST) + 1], time[ENC_TIME_LEN + 1];
    AUTO_MEM char *text = NULL;
    AUTO_MEM char *line = NULL;
    json_t *doc;
    int len;

    enc_hex(what, DIGEST, hex);
    enc_time(clock_utc_us(), time);
    doc = json_pack("{s:s, s:s, s:s, s:s}", "message_id", m->message_id, "content_id",
                    m->content_id, "sha256", hex, "time", time);
    text = doc != NULL ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(doc);
    len = text != NULL ? asprintf(&line, "%s\n", text) : -1;
    if (len < 0) {
        line = NULL; /* asprintf() may leave anything */
        errno = ENOMEM;
        return TEKD_EIO;
    }
    return append(j, line, (size_t)len);
}

int journal_add(struct journal *j, const struct cp3_message *m)
{
    uint8_t id[DIGEST], what[DIGEST];
    int r;

    digest_of(m, what);
    r = j->path != NULL ? append_record(j, m, what) : 0;
    if (r < 0)
        return r;
    (void)SHA256((const uint8_t *)m->message_id, strlen(m->message_id), id);
    remember(j, id, what);
    return 0;
}
