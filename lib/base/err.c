#include "tekd/err.h"

#include <errno.h>
#include <stddef.h>

#include "tekd/auto.h"

#define ROW(code, what) [-(code)] = {#code, what}

static const struct {
    const char *name;
    const char *what;
} errors[] = {
    [0] = {"ok", "no error"},
    ROW(TEKD_EAGAIN, "busy, try again later"),
    ROW(TEKD_ETIMEDOUT, "the deadline passed"),
    ROW(TEKD_EHSM, "the HSM failed"),
    ROW(TEKD_EPIN, "the PIN was refused"),
    ROW(TEKD_EFORMAT, "malformed input"),
    ROW(TEKD_EINVAL, "not acceptable"),
    ROW(TEKD_ENOMEM, "out of memory, or of memory that can be locked"),
    ROW(TEKD_EIO, "reading or writing failed"),
    ROW(TEKD_EFULL, "no space left"),
    ROW(TEKD_ENOTFOUND, "not found"),
    ROW(TEKD_EEXIST, "exists already and differs"),
    ROW(TEKD_ESTALE, "decided under older rules"),
    ROW(TEKD_ETAMPER, "stored state contradicts what was signed"),
    ROW(TEKD_EDENIED, "not permitted"),
    ROW(TEKD_ETOOBIG, "larger than the limit"),
    ROW(TEKD_ECLOSED, "closed"),
    ROW(TEKD_ECRYPTO, "a cryptographic operation or check failed"),
    ROW(TEKD_EWEAK, "a key or token is weaker than required"),
    ROW(TEKD_EINTERNAL, "internal fault"),
};

static const struct {
    int errnum;
    int code;
} errnos[] = {
    {0, TEKD_EINTERNAL}, /* the caller asked although nothing had failed */
    {EAGAIN, TEKD_EAGAIN},      {EBUSY, TEKD_EAGAIN},         {EINTR, TEKD_EAGAIN},
    {EMFILE, TEKD_EAGAIN},      {ENFILE, TEKD_EAGAIN},        {ETIMEDOUT, TEKD_ETIMEDOUT},
    {EBADMSG, TEKD_EFORMAT},    {EILSEQ, TEKD_EFORMAT},       {EPROTO, TEKD_EFORMAT},
    {EINVAL, TEKD_EINVAL},      {EADDRINUSE, TEKD_EINVAL},    {EADDRNOTAVAIL, TEKD_EINVAL},
    {ENOTDIR, TEKD_EINVAL},     {EISDIR, TEKD_EINVAL},        {ELOOP, TEKD_EINVAL},
    {ENOMEM, TEKD_ENOMEM},      {ENOBUFS, TEKD_ENOMEM},       {ENOSPC, TEKD_EFULL},
    {EDQUOT, TEKD_EFULL},       {ENOENT, TEKD_ENOTFOUND},     {ENODEV, TEKD_ENOTFOUND},
    {ENXIO, TEKD_ENOTFOUND},    {ESRCH, TEKD_ENOTFOUND},      {EEXIST, TEKD_EEXIST},
    {ENOTEMPTY, TEKD_EEXIST},   {EACCES, TEKD_EDENIED},       {EPERM, TEKD_EDENIED},
    {EROFS, TEKD_EDENIED},      {E2BIG, TEKD_ETOOBIG},        {EFBIG, TEKD_ETOOBIG},
    {EMSGSIZE, TEKD_ETOOBIG},   {ENAMETOOLONG, TEKD_ETOOBIG}, {EPIPE, TEKD_ECLOSED},
    {ECONNRESET, TEKD_ECLOSED}, {ECONNREFUSED, TEKD_ECLOSED}, {ENOTCONN, TEKD_ECLOSED},
    {ESHUTDOWN, TEKD_ECLOSED},
};

/* Not -r: a stray INT_MIN must not overflow. */
static size_t row_of(int r)
{
    return 0u - (unsigned int)r;
}

const char *tekd_strerror(int r)
{
    return r <= 0 && row_of(r) < ARRAY_SIZE(errors) ? errors[row_of(r)].what : "unknown error";
}

const char *tekd_errname(int r)
{
    return r <= 0 && row_of(r) < ARRAY_SIZE(errors) ? errors[row_of(r)].name : "unknown";
}

int tekd_err_from_errno(int errnum)
{
    for (size_t i = 0; i < ARRAY_SIZE(errnos); i++) {
        if (errnos[i].errnum == errnum)
            return errnos[i].code;
    }
    return TEKD_EIO;
}
