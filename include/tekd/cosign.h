/*
 * Cosignatures of witnesses (C2SP tlog-cosignature, cosignature/v1, Ed25519).  A witness says of a
 * note that it has seen it at a time, and that it extends every note of this log that it has
 * cosigned before.  It is a signature line as a note has them, under the witness' name:
 *     "— " <name> " " base64(key id (4 octets) || time (u64, seconds) || signature (64 octets)) LF
 * The signature is over "cosignature/v1" LF "time " <decimal> LF and the text of the note.
 *
 * Thread rule: from any thread.
 */
#ifndef TEKD_COSIGN_H
#define TEKD_COSIGN_H

#include <stddef.h>
#include <stdint.h>

#include "tekd/note.h"

#define COSIGN_NAME_MAX NOTE_ORIGIN_MAX
#define COSIGN_LINE_MAX 512 /* a line, its end included */
#define COSIGN_NOTE_MAX (NOTE_MAX + COSIGN_LINE_MAX)
#define COSIGN_KEY_MAX  512 /* a verifier key as text */
#define COSIGN_KEY_LEN  32
#define COSIGN_SIG_LEN  64
/* What a time may be: until the end of the year 9999. */
#define COSIGN_TIME_MAX INT64_C(253402300799)

/* Of a witness. */
struct cosign_key {
    char name[COSIGN_NAME_MAX + 1];
    uint8_t key_id[4];
    uint8_t octets[COSIGN_KEY_LEN];
};
/*
 * Reads a verifier key: <name> "+" <key id, 8 hexadecimal digits> "+" base64(0x04 || key); the key
 * id is the first 4 octets of SHA-256(name LF 0x04 key).  Errors: TEKD_EFORMAT (no such text, or a
 * key id that is another's), TEKD_ECRYPTO.
 */
int cosign_key_read(const char *text, size_t len, struct cosign_key *ret_key);

struct cosignature {
    char name[COSIGN_NAME_MAX + 1];
    uint8_t key_id[4];
    int64_t time_s; /* 0 .. COSIGN_TIME_MAX */
    uint8_t octets[COSIGN_SIG_LEN];
};
/* Reads a line, without its end.  Errors: TEKD_EFORMAT. */
int cosign_line_read(const char *line, size_t len, struct cosignature *ret_cosignature);
/* Errors: TEKD_ENOTFOUND (it is of another key), TEKD_ECRYPTO (it does not verify), TEKD_ENOMEM. */
int cosign_verify(const struct cosignature *c, const struct cosign_key *key, const struct note *n);

/* Reads a note that has one cosignature line behind its own.  Errors: TEKD_EFORMAT. */
int cosign_note_read(const void *octets, size_t len, struct note *ret_note,
                     struct cosignature *ret_cosignature);

#endif
