/*
 * Checkpoints: a tree head as a C2SP signed note (tlog-checkpoint, signed-note).  The text is
 *     <origin> LF <size, decimal> LF <root, base64> LF
 * then an empty line, then signature lines
 *     "— " <key name> " " base64(key id (4 octets) || signature) LF
 * The key name is the origin.  ECDSA P-256 (type 0x02): key id = the first 4 octets of SHA-256 of
 * the SubjectPublicKeyInfo (DER); the signature is the DER SEQUENCE over SHA-256 of the text.
 * Ed25519 (type 0x01): key id = first 4 octets of SHA-256(name LF 0x01 public key).
 */
#ifndef TEKD_NOTE_H
#define TEKD_NOTE_H

#include <openssl/types.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/buf.h"
#include "tekd/merkle.h"

#define NOTE_ORIGIN_MAX 300  /* a bsm_id of 255 octets and the rest */
#define NOTE_TEXT_MAX   400  /* origin, 20 digits, 44 characters, line ends */
#define NOTE_MAX        2048 /* the text and its signatures */
#define NOTE_SIGS_MAX   4
#define NOTE_SIG_MAX    80 /* DER of an ECDSA P-256 signature: at most 72; Ed25519: 64 */

struct note_signature {
    uint8_t key_id[4];
    uint8_t octets[NOTE_SIG_MAX];
    size_t len;
};

struct note {
    char origin[NOTE_ORIGIN_MAX + 1];
    uint64_t size;
    struct merkle_hash root;
    size_t n_signatures;
    struct note_signature signature[NOTE_SIGS_MAX];
};

/*
 * The origin of a log: <bsm_id>/tekd/audit/<epoch>.  out has NOTE_ORIGIN_MAX + 1 characters.
 * Errors: TEKD_EINVAL (bsm_id empty, too long, not UTF-8, with white space, '+' or
 * control characters; epoch 0).
 */
int note_origin(const char *bsm_id, uint64_t epoch, char *out);

/* Appends the text: what is signed.  Errors: of buf_append(). */
int note_text(const char *origin, uint64_t size, const struct merkle_hash *root, struct buf *out);

/* Appends the whole note.  Errors: of buf_append(). */
int note_write(const struct note *n, struct buf *out);

/*
 * Reads a whole note, strictly: one written form, no extension lines, at least one signature, each
 * under the name of the origin.  Errors: TEKD_EFORMAT.
 */
int note_read(const void *octets, size_t len, struct note *ret_note);

/* The 4 octets that name a P-256 or Ed25519 key in notes of this origin.  Errors: TEKD_ECRYPTO. */
int note_key_id(const char *origin, EVP_PKEY *key, uint8_t ret_id[static 4]);

/* Adds a signature line.  Errors: TEKD_ETOOBIG (too many, empty, over NOTE_SIG_MAX). */
int note_add(struct note *n, const uint8_t key_id[static 4], const uint8_t *sig, size_t len);

/*
 * 0 when the note has a signature line of this key and it verifies.
 * Errors: TEKD_ENOTFOUND (no line of this key), TEKD_ECRYPTO (it does not verify).
 */
int note_verify(const struct note *n, EVP_PKEY *key);

#endif
