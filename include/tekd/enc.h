/*
 * Text encodings: hexadecimal (RFC 4648 section 8), base64 (RFC 4648 section 4, padded, no line
 * breaks), UUIDs (RFC 9562), RFC 3339 times.  Readers are strict: what they accept has one
 * written form, but for the case of hexadecimal digits.
 */
#ifndef TEKD_ENC_H
#define TEKD_ENC_H

#include <stddef.h>
#include <stdint.h>

/* Characters written, without the closing NUL, which every writer adds. */
#define ENC_HEX_LEN(n)    (2 * (size_t)(n))
#define ENC_BASE64_LEN(n) (((size_t)(n) + 2) / 3 * 4)
#define ENC_UUID_LEN      36
#define ENC_TIME_LEN      27 /* 2026-11-22T13:15:42.123456Z */

/* out has ENC_HEX_LEN(len) + 1 characters. */
void enc_hex(const uint8_t *data, size_t len, char *out);       /* lower case */
void enc_hex_upper(const uint8_t *data, size_t len, char *out); /* upper case, as hexBinary */

/* Reads exactly len * 2 digits into out.  Errors: TEKD_EFORMAT. */
int enc_hex_read(const char *s, size_t s_len, uint8_t *out, size_t len);

void enc_base64(const uint8_t *data, size_t len, char *out);

/* Reads at most max octets; the pad bits must be zero.  Errors: TEKD_EFORMAT, TEKD_ETOOBIG. */
int enc_base64_read(const char *s, size_t s_len, uint8_t *out, size_t max, size_t *ret_len);

/*
 * A UUIDv7 (RFC 9562 section 5.7): 48 bits of milliseconds, then 74 random bits, so that ids rise
 * with time and none repeats after a clock step or a restore.  Errors: TEKD_ECRYPTO.
 */
int enc_uuidv7(int64_t utc_us, uint8_t out[static 16]);

/* Lower case with hyphens; out has ENC_UUID_LEN + 1 characters. */
void enc_uuid(const uint8_t id[static 16], char *out);
int enc_uuid_read(const char *s, size_t s_len, uint8_t out[static 16]);

/* Text of somebody else as printable ASCII, '?' for the rest, cut where out ends. */
void enc_printable(const char *text, char *out, size_t out_size);

/* What four digits of year can say: 0000-01-01T00:00:00Z and the last microsecond of 9999. */
#define ENC_TIME_MIN INT64_C(-62167219200000000)
#define ENC_TIME_MAX INT64_C(253402300799999999)

/* RFC 3339, UTC, six decimals, "Z"; out has ENC_TIME_LEN + 1 characters; ENC_TIME_MIN to _MAX. */
void enc_time(int64_t utc_us, char *out);
/* Reads only what enc_time() writes.  Errors: TEKD_EFORMAT. */
int enc_time_read(const char *s, size_t s_len, int64_t *ret_utc_us);

#endif
