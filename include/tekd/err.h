/*
 * The one list of errors.  A function that can fail returns 0 or one of these negative codes; the
 * code says what the caller can do about it, not what went wrong below: the module that owns the
 * failing library logs that once, by the names of the call and of the foreign code.
 */
#ifndef TEKD_ERR_H
#define TEKD_ERR_H

enum tekd_err {
    TEKD_EAGAIN = -1,     /* busy: try the same again later (full queue, no free worker) */
    TEKD_ETIMEDOUT = -2,  /* the deadline passed; the outcome may be unknown */
    TEKD_EHSM = -3,       /* the HSM or a worker of it failed; another try may succeed */
    TEKD_EPIN = -4,       /* the PIN was refused: nothing is tried until the source changes */
    TEKD_EFORMAT = -5,    /* the input is malformed; the same input will fail again */
    TEKD_EINVAL = -6,     /* the arguments or settings are not acceptable */
    TEKD_ENOMEM = -7,     /* out of memory, locked memory included */
    TEKD_EIO = -8,        /* reading or writing failed: the store latches */
    TEKD_EFULL = -9,      /* no space: keys are refused until there is */
    TEKD_ENOTFOUND = -10, /* there is no such thing */
    TEKD_EEXIST = -11,    /* there is one already, and it differs */
    TEKD_ESTALE = -12,    /* decided under older rules: decide again */
    TEKD_ETAMPER = -13,   /* stored state contradicts what was signed: refuse everything */
    TEKD_EDENIED = -14,   /* the caller may not do this */
    TEKD_ETOOBIG = -15,   /* larger than a named limit */
    TEKD_ECLOSED = -16,   /* shut down, or the other side has gone */
    TEKD_ECRYPTO = -17,   /* OpenSSL failed, or a signature does not verify */
    TEKD_EWEAK = -18,     /* a key or token is weaker than it has to be: do not start */
    TEKD_EINTERNAL = -19, /* a fault of ours */
};

/* One sentence fragment for people, e.g. "no space left"; never NULL; a static string. */
const char *tekd_strerror(int r);

/* The code's name, e.g. "TEKD_EFULL", for logs; never NULL; a static string. */
const char *tekd_errname(int r);

/* The code that says best what an errno value lets the caller do. */
int tekd_err_from_errno(int errnum);

#endif
