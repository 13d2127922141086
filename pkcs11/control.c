/*
 * The datagrams between the pool and the supervisor.  Integers are big-endian, nothing is padded.
 *   0  u8    CONTROL_VERSION
 *   1  u8    kind
 *   2  u32   id of the worker; of RETRY any number, which PIN repeats; else 0
 *   6  ...   body of the kind
 *
 *   CONFIGURE  text module, text token, text profile, text checkpoint key, text Ed25519 key,
 *              text checkpoint key before, text Ed25519 key before, text TLS key, u8 PIN source,
 *              u8 PIN given, text PIN's path or name, text latch file, u8 log format, u8 log level,
 *              u32 start timeout in ms, u8 n (0..CONTROL_ENV_MAX), n texts NAME=value
 *   SPAWN      u8 role; carries the worker's socket
 *   KILL       u32 what the worker has to end by itself, in ms
 *   RETRY      u8 PIN given; carries the pipe with the PIN if so
 *   PIN        u8 state, text
 *   FORKED     u32 pid
 *   READY      text label, text model, text serial, u8 prevents wrapping out
 *   FAILED     u8 error (code of err.h without its sign), text
 *   EXITED     as FAILED; error 0 when nothing was wrong
 *   PING, PONG nothing
 *
 *   text       u16 length with the NUL at its end (1..), octets without another NUL
 */
#include "control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tekd/auto.h"
#include "tekd/err.h"
#include "tekd/log.h"

#define CONTROL_VERSION 1

/* ---------------------------------------------------------------- parts ------------ */

static void put_text(struct buf *b, const char *s)
{
    size_t len = s == NULL ? 0 : strlen(s);

    if (len >= CONTROL_MAX) {
        (void)buf_reserve(b, CONTROL_MAX + 1); /* marks the buffer: too big */
        return;
    }
    (void)buf_put_u16(b, (uint16_t)(len + 1));
    (void)buf_append(b, s, len);
    (void)buf_put_u8(b, 0);
}

static int get_text(struct view *v, const char **ret_text)
{
    size_t len = view_u16(v);
    const uint8_t *p = view_octets(v, len);

    if (v->error < 0 || len == 0 || memchr(p, 0, len) != p + len - 1)
        return TEKD_EFORMAT;
    *ret_text = (const char *)p;
    return 0;
}

/* Into a field of HSM_TEXT_MAX characters. */
static int get_text_into(struct view *v, char out[static HSM_TEXT_MAX])
{
    const char *text;

    if (get_text(v, &text) < 0 || strlen(text) >= HSM_TEXT_MAX)
        return TEKD_EFORMAT;
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int get_bool(struct view *v, bool *ret_bool)
{
    uint8_t value = view_u8(v);

    if (value > 1)
        return TEKD_EFORMAT;
    *ret_bool = value == 1;
    return 0;
}

/* ---------------------------------------------------------------- kinds ------------ */

static void put_configure(struct buf *b, const struct control_message *m)
{
    const struct control_configure *c = &m->configure;

    put_text(b, c->module);
    put_text(b, c->token);
    put_text(b, c->profile);
    put_text(b, c->checkpoint_key);
    put_text(b, c->ed25519_key);
    put_text(b, c->checkpoint_key_before);
    put_text(b, c->ed25519_key_before);
    put_text(b, c->tls_key);
    (void)buf_put_u8(b, (uint8_t)c->pin_source);
    (void)buf_put_u8(b, c->pin_given ? 1 : 0);
    put_text(b, c->pin);
    put_text(b, c->latch_file);
    (void)buf_put_u8(b, c->log_format);
    (void)buf_put_u8(b, c->log_level);
    (void)buf_put_u32(b, c->start_timeout_ms);
    (void)buf_put_u8(b, (uint8_t)c->n_env);
    for (size_t i = 0; i < c->n_env; i++)
        put_text(b, c->env[i]);
}

static int get_configure(struct view *v, struct control_message *m)
{
    struct control_configure *c = &m->configure;
    uint8_t source;

    if (get_text(v, &c->module) < 0 || get_text(v, &c->token) < 0 || get_text(v, &c->profile) < 0 ||
        get_text(v, &c->checkpoint_key) < 0 || get_text(v, &c->ed25519_key) < 0 ||
        get_text(v, &c->checkpoint_key_before) < 0 || get_text(v, &c->ed25519_key_before) < 0 ||
        get_text(v, &c->tls_key) < 0)
        return TEKD_EFORMAT;
    source = view_u8(v);
    if (source > HSM_PIN_PROMPT || get_bool(v, &c->pin_given) < 0)
        return TEKD_EFORMAT;
    c->pin_source = (enum hsm_pin_source)source;
    if (get_text(v, &c->pin) < 0 || get_text(v, &c->latch_file) < 0)
        return TEKD_EFORMAT;
    c->log_format = view_u8(v);
    c->log_level = view_u8(v);
    c->start_timeout_ms = view_u32(v);
    c->n_env = view_u8(v);
    if (c->log_format > LOG_JSON || c->log_level > LOG_DEBUG || c->n_env > CONTROL_ENV_MAX)
        return TEKD_EFORMAT;
    for (size_t i = 0; i < c->n_env; i++) {
        if (get_text(v, &c->env[i]) < 0 || strchr(c->env[i], '=') == NULL)
            return TEKD_EFORMAT;
    }
    return 0;
}

static void put_role(struct buf *b, const struct control_message *m)
{
    (void)buf_put_u8(b, (uint8_t)m->role);
}

static int get_role(struct view *v, struct control_message *m)
{
    uint8_t role = view_u8(v);

    if (role >= PROTOCOL_ROLES)
        return TEKD_EFORMAT;
    m->role = (enum protocol_role)role;
    return 0;
}

static void put_grace(struct buf *b, const struct control_message *m)
{
    (void)buf_put_u32(b, m->grace_ms);
}

static int get_grace(struct view *v, struct control_message *m)
{
    m->grace_ms = view_u32(v);
    return v->error;
}

static void put_retry(struct buf *b, const struct control_message *m)
{
    (void)buf_put_u8(b, m->pin_given ? 1 : 0);
}

static int get_retry(struct view *v, struct control_message *m)
{
    return get_bool(v, &m->pin_given);
}

static void put_pin(struct buf *b, const struct control_message *m)
{
    (void)buf_put_u8(b, (uint8_t)m->pin.state);
    put_text(b, m->pin.text);
}

static int get_pin(struct view *v, struct control_message *m)
{
    uint8_t state = view_u8(v);

    if (state < CONTROL_PIN_HAVE || state > CONTROL_PIN_REFUSED)
        return TEKD_EFORMAT;
    m->pin.state = (enum control_pin)state;
    return get_text_into(v, m->pin.text);
}

static void put_forked(struct buf *b, const struct control_message *m)
{
    (void)buf_put_u32(b, (uint32_t)m->pid);
}

static int get_forked(struct view *v, struct control_message *m)
{
    uint32_t pid = view_u32(v);

    if (pid == 0 || pid > INT32_MAX)
        return TEKD_EFORMAT;
    m->pid = (int)pid;
    return 0;
}

static void put_ready(struct buf *b, const struct control_message *m)
{
    put_text(b, m->ready.label);
    put_text(b, m->ready.model);
    put_text(b, m->ready.serial);
    (void)buf_put_u8(b, m->ready.prevents_wrap_out ? 1 : 0);
}

static int get_ready(struct view *v, struct control_message *m)
{
    if (get_text_into(v, m->ready.label) < 0 || get_text_into(v, m->ready.model) < 0 ||
        get_text_into(v, m->ready.serial) < 0)
        return TEKD_EFORMAT;
    return get_bool(v, &m->ready.prevents_wrap_out);
}

static void put_ended(struct buf *b, const struct control_message *m)
{
    (void)buf_put_u8(b, (uint8_t)-m->ended.error);
    put_text(b, m->ended.text);
}

static int get_ended(struct view *v, struct control_message *m)
{
    m->ended.error = -(int)view_u8(v);
    if (m->ended.error < TEKD_EINTERNAL)
        return TEKD_EFORMAT;
    return get_text_into(v, m->ended.text);
}

static void put_nothing(struct buf *b, const struct control_message *m)
{
    (void)b;
    (void)m;
}

static int get_nothing(struct view *v, struct control_message *m)
{
    (void)v;
    (void)m;
    return 0;
}

static const struct kind {
    enum control_kind kind;
    void (*put)(struct buf *b, const struct control_message *m);
    int (*get)(struct view *v, struct control_message *m);
} kinds[] = {
    {CONTROL_CONFIGURE, put_configure, get_configure},
    {CONTROL_SPAWN, put_role, get_role},
    {CONTROL_KILL, put_grace, get_grace},
    {CONTROL_RETRY, put_retry, get_retry},
    {CONTROL_PING, put_nothing, get_nothing},
    {CONTROL_PIN, put_pin, get_pin},
    {CONTROL_FORKED, put_forked, get_forked},
    {CONTROL_READY, put_ready, get_ready},
    {CONTROL_FAILED, put_ended, get_ended},
    {CONTROL_EXITED, put_ended, get_ended},
    {CONTROL_PONG, put_nothing, get_nothing},
};

static const struct kind *kind_find(unsigned kind)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (kinds[i].kind == kind)
            return &kinds[i];
    }
    return NULL;
}

/* ---------------------------------------------------------------- datagrams -------- */

int control_put(struct buf *b, const struct control_message *m)
{
    const struct kind *k = kind_find(m->kind);

    buf_reset(b);
    if (k == NULL || (m->kind == CONTROL_CONFIGURE && m->configure.n_env > CONTROL_ENV_MAX))
        return TEKD_EINVAL;
    (void)buf_put_u8(b, CONTROL_VERSION);
    (void)buf_put_u8(b, (uint8_t)m->kind);
    (void)buf_put_u32(b, m->id);
    k->put(b, m);
    return buf_error(b);
}

int control_get(const void *octets, size_t len, struct control_message *ret_message)
{
    struct view v = view_of(octets, len);
    uint8_t version = view_u8(&v);
    const struct kind *k = kind_find(view_u8(&v));

    ret_message->id = view_u32(&v);
    if (v.error < 0 || version != CONTROL_VERSION || k == NULL)
        return TEKD_EFORMAT;
    ret_message->kind = k->kind;
    if (k->get(&v, ret_message) < 0)
        return TEKD_EFORMAT;
    return view_end(&v);
}

/* Room for the one descriptor a message may carry. */
union descriptor_room {
    struct cmsghdr header;
    char octets[CMSG_SPACE(sizeof(int))];
};

int control_send(int socket, struct buf *b, const struct control_message *m, int fd)
{
    union descriptor_room room = {.octets = {0}};
    struct iovec part;
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;
    int r = control_put(b, m);

    if (r < 0)
        return r;
    part = (struct iovec){.iov_base = (void *)(uintptr_t)buf_data(b), .iov_len = buf_len(b)};
    if (fd >= 0) {
        room.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&room.header), &fd, sizeof(fd));
        msg.msg_control = room.octets;
        msg.msg_controllen = sizeof(room.octets);
    }
    do
        n = sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN || errno == ENOBUFS ? TEKD_EAGAIN : TEKD_ECLOSED;
    return 0;
}

/* The descriptor a datagram carried, or -1. */
static int take_descriptor(struct msghdr *msg)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    int fd = -1;

    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

int control_receive(int socket, uint8_t in[static CONTROL_MAX], struct control_message *ret_message,
                    int *ret_fd)
{
    union descriptor_room room;
    struct iovec part = {.iov_base = in, .iov_len = CONTROL_MAX};
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = room.octets,
                         /* Not the padding behind the one: a second would fit in it, open and
                          * known to nobody. */
                         .msg_controllen = CMSG_LEN(sizeof(int))};
    AUTO_FD int fd = -1;
    ssize_t n;

    do
        n = recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return TEKD_EAGAIN;
    if (n <= 0)
        return TEKD_ECLOSED;
    fd = take_descriptor(&msg);
    if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
        control_get(in, (size_t)n, ret_message) < 0)
        return TEKD_EFORMAT;
    *ret_fd = TAKE_FD(fd);
    return 0;
}
