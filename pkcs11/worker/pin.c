/*
 * Where the PIN comes from, and what happens after a token refused it.
 *
 * A source has an identity: for a file its device, inode, size, mtime and ctime, with the token
 * and the module that the PIN is for.  A PIN that the token refused is wiped, and the identity of
 * its source written to the latch file (mode 0600): neither this process nor a later one tries
 * what has the same identity again.  The latch opens when the file changes, when the operator says
 * so (pin_retry), or when a login succeeds.  Neither a PIN nor anything made of one is in it.
 *
 *   MISSING --the file is there--> HAVE --pin_refused()--> REFUSED --the file changed--> HAVE
 *                                                             `----pin_retry()---------> HAVE
 *
 * A pipe has no identity: after a refusal it stays latched until pin_retry().  A prompt is asked
 * anew at each start, which is the operator's word already.
 *
 * The latch file: one line "tekd PIN refused 1", then the identity (three lines, see identify()).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/err.h"
#include "tekd/fds.h"
#include "tekd/log.h"
#include "worker.h"

static const char latch_line[] = "tekd PIN refused 1\n";

struct pin {
    struct pin_source source;
    char *path; /* of a file or credential; else NULL */
    enum control_pin state;
    unsigned generation;
    char text[HSM_TEXT_MAX];
    struct secret *secret;          /* of HAVE */
    char loaded[PIN_IDENTITY_MAX];  /* identity of secret's source; "": it has none */
    char refused[PIN_IDENTITY_MAX]; /* identity in the latch; "": it is open */
    char seen[PIN_IDENTITY_MAX];    /* identity of a file at the last look ... */
    int64_t seen_us;                /* ... which it has had since then at least */
};

/* ---------------------------------------------------------------- identity --------- */

static int credential_path(const char *name, char **ret_path)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");

    /* The name is a setting, but it is to stay inside the folder that systemd made. */
    if (dir == NULL || name[0] == 0 || strchr(name, '/') != NULL)
        return TEKD_ENOTFOUND;
    return asprintf(ret_path, "%s/%s", dir, name) < 0 ? TEKD_ENOMEM : 0;
}

static void identify(const struct pin *p, const struct stat *st, char out[static PIN_IDENTITY_MAX])
{
    (void)snprintf(out, PIN_IDENTITY_MAX,
                   "source %d dev %ju ino %ju size %jd mtime %jd.%09ld ctime %jd.%09ld\n"
                   "token %s\nmodule %s\n",
                   (int)p->source.kind, (uintmax_t)st->st_dev, (uintmax_t)st->st_ino,
                   (intmax_t)st->st_size, (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
                   (intmax_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec, p->source.token,
                   p->source.module);
}

/* Of the file as it is now; "" when there is none. */
static void identify_file(const struct pin *p, char out[static PIN_IDENTITY_MAX])
{
    struct stat st;

    out[0] = 0;
    if (p->path != NULL && stat(p->path, &st) == 0)
        identify(p, &st, out);
}

/* Of an inherited descriptor: a file may be told from another, all pipes are alike. */
static void identify_fd(const struct pin *p, int fd, char out[static PIN_IDENTITY_MAX])
{
    struct stat st = {0};

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        st = (struct stat){0};
    identify(p, &st, out);
}

/* ---------------------------------------------------------------- the latch -------- */

static void log_latch(const struct pin *p, const char *call)
{
    log_event(LOG_ERROR, "hsm", "latch-file", LOG_STR("file", p->source.latch_file),
              LOG_STR("call", call), LOG_STR("error", strerrorname_np(errno)));
}

/* What identify() writes: three lines, each with its end. */
static bool is_whole(const char *identity)
{
    size_t len = strlen(identity);
    size_t lines = 0;

    for (size_t i = 0; i < len; i++)
        lines += identity[i] == '\n';
    return lines >= 3 && identity[len - 1] == '\n';
}

/* The source as it is now; what is no file is told from nothing else of its kind. */
static void identify_source(const struct pin *p, char out[static PIN_IDENTITY_MAX])
{
    if (p->path != NULL)
        identify_file(p, out);
    else
        identify_fd(p, -1, out);
}

/*
 * What cannot be read, or was cut short when it was written, is taken for a latch on the source as
 * it is: better asked once too often.
 */
static void latch_read(struct pin *p)
{
    char text[sizeof(latch_line) - 1 + PIN_IDENTITY_MAX];
    AUTO_FD int fd = -1;
    ssize_t n;

    if (p->source.latch_file[0] == 0)
        return;
    fd = open(p->source.latch_file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return;
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n < 0)
        log_latch(p, fd < 0 ? "open" : "read");
    memset(text + (n < 0 ? 0 : n), 0, sizeof(text) - (size_t)(n < 0 ? 0 : n));
    if (strncmp(text, latch_line, sizeof(latch_line) - 1) == 0 &&
        is_whole(text + sizeof(latch_line) - 1))
        memcpy(p->refused, text + sizeof(latch_line) - 1, sizeof(p->refused));
    else
        identify_source(p, p->refused);
}

/* Written in place: a torn one still is a latch. */
static void latch_write(const struct pin *p)
{
    AUTO_FD int fd = -1;

    if (p->source.latch_file[0] == 0)
        return;
    fd = open(p->source.latch_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        log_latch(p, "open");
    else if (fds_write(fd, latch_line, strlen(latch_line)) < 0 ||
             fds_write(fd, p->refused, strlen(p->refused)) < 0)
        log_latch(p, "write");
    else if (fsync(fd) < 0)
        log_latch(p, "fsync");
}

static void latch_remove(struct pin *p)
{
    p->refused[0] = 0;
    if (p->source.latch_file[0] != 0 && unlink(p->source.latch_file) < 0 && errno != ENOENT)
        log_latch(p, "unlink");
}

/* ---------------------------------------------------------------- the prompt ------- */

static const char no_echo[] = "HSM PIN: ";

/* Without echo, and without signals: ^C must not leave a terminal that stays mute. */
static int quiet(int tty, struct termios *ret_before)
{
    struct termios t;

    if (tcgetattr(tty, ret_before) < 0)
        return TEKD_EIO;
    t = *ret_before;
    t.c_lflag &= (tcflag_t) ~(ECHO | ECHONL | ICANON | ISIG);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    return tcsetattr(tty, TCSAFLUSH, &t) < 0 ? TEKD_EIO : 0;
}

enum key { KEY_MORE, KEY_DONE, KEY_STOP };

/* The character just read at the end of the secret; *len is how many are kept. */
static enum key take_key(uint8_t *octets, size_t *len, const struct termios *t)
{
    uint8_t c = octets[*len];

    if (c == '\n' || c == '\r' || c == t->c_cc[VEOF])
        return KEY_DONE;
    if (c == t->c_cc[VINTR] || c == t->c_cc[VQUIT])
        return KEY_STOP;
    if (c == t->c_cc[VKILL])
        *len = 0;
    else if (c == t->c_cc[VERASE] || c == '\b')
        *len -= *len > 0 ? 1 : 0;
    else
        (*len)++;
    return KEY_MORE;
}

/* Every character goes straight into the secret. */
static int read_line(int tty, const struct termios *t, struct secret **ret_secret)
{
    AUTO(secret) struct secret *s = NULL;
    enum key key = KEY_MORE;
    size_t len = 0;
    int r = secret_new(SECRET_MAX, &s);

    if (r < 0)
        return r;
    while (key == KEY_MORE && len < SECRET_MAX - 1) {
        ssize_t n = read(tty, secret_get(s) + len, 1);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return TEKD_EIO;
        key = take_key(secret_get(s), &len, t);
    }
    if (key == KEY_STOP)
        return TEKD_ECLOSED;
    if (key != KEY_DONE || len == 0)
        return TEKD_EFORMAT;
    secret_truncate(s, len);
    *ret_secret = TAKE(s);
    return 0;
}

static int ask(struct secret **ret_secret)
{
    AUTO_FD int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    struct termios before;
    int r;

    if (tty < 0)
        return TEKD_ENOTFOUND;
    r = quiet(tty, &before);
    if (r < 0)
        return r;
    (void)fds_write(tty, no_echo, strlen(no_echo));
    r = read_line(tty, &before, ret_secret);
    (void)tcsetattr(tty, TCSAFLUSH, &before);
    (void)fds_write(tty, "\n", 1);
    if (r == TEKD_ECLOSED)
        (void)kill(getppid(), SIGINT); /* ^C was meant for the server */
    return r;
}

/* ---------------------------------------------------------------- loading ---------- */

static void set_text(struct pin *p, enum control_pin state, const char *text)
{
    p->state = state;
    (void)snprintf(p->text, sizeof(p->text), "%s", text);
}

/* From wherever the source says.  fd is of HSM_PIN_FD or the operator's. */
static int read_secret(struct pin *p, int fd, struct secret **ret_secret)
{
    identify_fd(p, -1, p->loaded);
    if (p->source.kind == HSM_PIN_PROMPT && fd < 0)
        return ask(ret_secret);
    if (p->source.kind == HSM_PIN_FD || p->source.kind == HSM_PIN_PROMPT) {
        if (fd < 0)
            return TEKD_ENOTFOUND;
        identify_fd(p, fd, p->loaded);
        return secret_read_fd(fd, ret_secret);
    }
    if (p->path == NULL)
        return TEKD_ENOTFOUND;
    /* Before it is read: a change in between makes it look newer than it is, and it is read anew.
     */
    identify_file(p, p->loaded);
    return secret_read_file(p->path, ret_secret);
}

static void missing(struct pin *p, int r)
{
    char text[HSM_TEXT_MAX];

    if (p->source.kind == HSM_PIN_FD || p->source.kind == HSM_PIN_PROMPT)
        (void)snprintf(text, sizeof(text), "PIN needed: tekctl hsm retry");
    else
        (void)snprintf(text, sizeof(text), "PIN source \"%.100s\": %s", p->source.name,
                       tekd_strerror(r));
    set_text(p, CONTROL_PIN_MISSING, text);
    log_event(LOG_ERROR, "hsm", "pin-missing", LOG_STR("reason", text));
}

static void latched(struct pin *p)
{
    static const char changed[] =
        "the PIN was refused before and its source has not changed since: mend it, or tekctl hsm "
        "retry";

    set_text(p, CONTROL_PIN_REFUSED, changed);
    log_event(LOG_ERROR, "hsm", "pin-latched", LOG_STR("reason", changed));
}

/* Whether what is to be read was refused before. */
static bool is_latched(const struct pin *p, int fd)
{
    char now[PIN_IDENTITY_MAX];

    if (p->refused[0] == 0 || p->source.kind == HSM_PIN_PROMPT)
        return false;
    if (p->source.kind == HSM_PIN_FD && fd >= 0)
        identify_fd(p, fd, now);
    else
        identify_file(p, now);
    return strcmp(now, p->refused) == 0;
}

static void load(struct pin *p, int fd)
{
    AUTO(secret) struct secret *s = NULL;
    int r = read_secret(p, fd, &s);

    secret_free(TAKE(p->secret));
    if (r < 0) {
        missing(p, r);
        return;
    }
    p->secret = TAKE(s);
    p->generation++;
    set_text(p, CONTROL_PIN_HAVE, "");
}

void pin_load(struct pin *p, int fd)
{
    if (is_latched(p, fd))
        latched(p);
    else
        load(p, fd);
}

void pin_retry(struct pin *p, int fd)
{
    latch_remove(p);
    if (p->path == NULL && fd < 0)
        missing(p, TEKD_ENOTFOUND); /* a prompt is for the start: nobody sits there now */
    else
        load(p, fd);
}

/* Who writes a file may not be done yet: half a PIN would cost a try. */
static bool has_settled(struct pin *p, const char now[static PIN_IDENTITY_MAX])
{
    if (strcmp(now, p->seen) == 0)
        return clock_mono_us() - p->seen_us >= (int64_t)PIN_POLL_MS * 1000;
    memcpy(p->seen, now, sizeof(p->seen));
    p->seen_us = clock_mono_us();
    return false;
}

bool pin_poll(struct pin *p)
{
    char now[PIN_IDENTITY_MAX];

    if (p->state == CONTROL_PIN_HAVE || p->path == NULL)
        return false;
    identify_file(p, now);
    if (!has_settled(p, now) || now[0] == 0 || strcmp(now, p->loaded) == 0 || is_latched(p, -1))
        return false;
    load(p, -1);
    return true;
}

bool pin_refresh(struct pin *p)
{
    char now[PIN_IDENTITY_MAX];

    if (p->state != CONTROL_PIN_HAVE || p->path == NULL)
        return true;
    identify_file(p, now);
    if (now[0] == 0 || strcmp(now, p->loaded) == 0)
        return true;
    if (!has_settled(p, now))
        return false;
    pin_load(p, -1);
    return true;
}

/* ---------------------------------------------------------------- outcome ---------- */

void pin_accepted(struct pin *p)
{
    if (p->refused[0] != 0)
        latch_remove(p);
}

void pin_refused(struct pin *p, const char *reason)
{
    secret_free(TAKE(p->secret));
    memcpy(p->refused, p->loaded, sizeof(p->refused));
    latch_write(p);
    set_text(p, CONTROL_PIN_REFUSED, reason);
    log_event(LOG_ERROR, "hsm", "pin-refused", LOG_STR("reason", reason));
}

enum control_pin pin_state(const struct pin *p)
{
    return p->state;
}

unsigned pin_generation(const struct pin *p)
{
    return p->generation;
}

const char *pin_text(const struct pin *p)
{
    return p->text;
}

const struct secret *pin_peek(const struct pin *p)
{
    return p->state == CONTROL_PIN_HAVE ? p->secret : NULL;
}

/* ---------------------------------------------------------------- life ------------- */

int pin_new(const struct pin_source *source, struct pin **ret_pin)
{
    AUTO(pin) struct pin *p = calloc(1, sizeof(*p));
    int r = 0;

    if (p == NULL)
        return TEKD_ENOMEM;
    p->source = *source;
    p->state = CONTROL_PIN_MISSING;
    if (source->kind == HSM_PIN_FILE) {
        p->path = strdup(source->name);
        r = p->path == NULL ? TEKD_ENOMEM : 0;
    } else if (source->kind == HSM_PIN_CREDENTIAL) {
        r = credential_path(source->name, &p->path);
    }
    if (r < 0 && r != TEKD_ENOTFOUND)
        return r;
    latch_read(p);
    *ret_pin = TAKE(p);
    return 0;
}

void pin_free(struct pin *p)
{
    if (p == NULL)
        return;
    secret_free(p->secret);
    free(p->path);
    free(p);
}
