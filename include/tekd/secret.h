/*
 * Octets that must not leak: PINs and key octets of tools.  The memory is locked (no swap), left
 * out of core dumps, zero in a forked child, fenced by guard pages, and wiped when freed.
 *
 * Thread rule: as plain memory; one owner at a time.
 */
#ifndef TEKD_SECRET_H
#define TEKD_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tekd/auto.h"

/* A PIN or a key is far smaller; a page of payload bounds the locked memory a mistake can take. */
#define SECRET_MAX 4096

struct secret;

/* len octets, 1..SECRET_MAX, all zero.  Errors: TEKD_EINVAL, TEKD_ENOMEM. */
int secret_new(size_t len, struct secret **ret_secret);

/* Wipes, unlocks, frees; takes NULL. */
void secret_free(struct secret *s);
AUTO_DEFINE(secret)

/* A copy of its own.  Errors: TEKD_ENOMEM. */
int secret_dup(const struct secret *s, struct secret **ret_secret);

/* The octets, borrowed until secret_free(); secret_len() of them, and one zero octet behind. */
uint8_t *secret_get(struct secret *s);
const uint8_t *secret_peek(const struct secret *s);
size_t secret_len(const struct secret *s);

/* Shortens to len, wiping the rest.  len is at most the current length and at least 1. */
void secret_truncate(struct secret *s, size_t len);

/* Whether both have the same octets, in a time that depends on the lengths only. */
bool secret_equal(const struct secret *a, const struct secret *b);

/*
 * Reads at most SECRET_MAX octets from fd to its end and drops one final line end.  The file's
 * octets pass through no other memory of ours.  Errors: TEKD_EIO, TEKD_ETOOBIG, TEKD_EFORMAT
 * (empty), TEKD_ENOMEM.
 */
int secret_read_fd(int fd, struct secret **ret_secret);

/*
 * Reads a file that only its owner may read: a regular file, mode 0600 or stricter, owned by the
 * effective user or root.  Errors: as above, and TEKD_EDENIED (mode or owner), TEKD_ENOTFOUND.
 */
int secret_read_file(const char *path, struct secret **ret_secret);

/*
 * For OpenSSL's readers of PEM: gives no passphrase.  Any text may say that it is encrypted, and
 * without this OpenSSL would ask for the passphrase at the terminal that the program was started
 * from, and wait.
 */
int secret_no_passphrase(char *buf, int size, int writing, void *arg);

#endif
