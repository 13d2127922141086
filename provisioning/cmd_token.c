/* tek-provision token: a blank token gets its label and PINs; never one that has them. */
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#include "provision.h"
#include "tekd/err.h"

/* 16 characters of 32: 80 bits.  No character that is mistaken for another. */
#define PIN_LEN 16
static const char pin_alphabet[] = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

static int generate_pin(const char *path)
{
    AUTO(secret) struct secret *pin = NULL;
    int r = secret_new(PIN_LEN, &pin);

    if (r < 0)
        return r;
    if (RAND_priv_bytes(secret_get(pin), PIN_LEN) != 1)
        return options_fail(TEKD_ECRYPTO, "no random octets");
    for (size_t i = 0; i < PIN_LEN; i++)
        secret_get(pin)[i] = (uint8_t)pin_alphabet[secret_get(pin)[i] % 32];
    return files_write(path, (struct file_rule){.mode = 0600}, secret_peek(pin), PIN_LEN);
}

static int read_pin(const struct options *o, enum provision_option which, struct secret **ret_pin)
{
    const char *path = o->value[which];
    int r = 0;

    if (o->value[OPT_GENERATE_PINS] && !files_exist(path))
        r = generate_pin(path);
    if (r < 0)
        return r;
    r = secret_read_file(path, ret_pin);
    if (r < 0)
        return options_fail(r, "%s: %s (expected a PIN in one line, mode 0600)", path,
                            tekd_strerror(r));
    return 0;
}

/* pkcs11:token=LABEL, all but letters and digits as %XX. */
static int uri_of(const char *label, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "pkcs11:token=");

    if (strlen(label) == 0 || strlen(label) > 32)
        return options_fail(TEKD_EINVAL, "--label: a token's has 1 to 32 octets");
    for (const char *p = label; *p; p++)
        used += (size_t)snprintf(out + used, size - used, "%%%02x", (unsigned char)*p);
    return 0;
}

/* The token is open: it is ours if the PIN opens it. */
static int agree(const struct options *o, struct token *t)
{
    int r = session_login(o, t);

    return r < 0 ? options_fail(r, "the token \"%s\" exists and is left as it is",
                                o->value[OPT_LABEL])
                 : 0;
}

static int init(const struct options *o, struct token *t)
{
    AUTO(secret) struct secret *so = NULL;
    AUTO(secret) struct secret *user = NULL;
    struct token_pins pins;
    int r = token_may_be_made(t);

    if (r < 0)
        return session_fail(t, r);
    r = read_pin(o, OPT_SO_PIN_FILE, &so);
    if (r == 0)
        r = read_pin(o, OPT_PIN_FILE, &user);
    if (r < 0)
        return r;
    pins = (struct token_pins){.so = so, .user = user};
    r = token_make_token(t, o->value[OPT_LABEL], &pins);
    if (r == 0)
        r = token_open(t);
    return r < 0 ? session_fail(t, r) : 0;
}

int cmd_token(const struct options *o)
{
    AUTO(token) struct token *t = NULL;
    char uri[128];
    struct token_info info;
    bool made;
    int r = uri_of(o->value[OPT_LABEL], uri, sizeof(uri));

    if (r == 0)
        r = session_new(o, uri, &t);
    if (r < 0)
        return r;
    /* Looked for before a PIN is made: an existing token's PIN files are never guessed at.  That it
     * could not be opened does not say that it is not there: init() looks again. */
    r = token_open(t);
    made = r == TEKD_EHSM;
    if (r < 0 && !made)
        return session_fail(t, r);
    if (made)
        r = init(o, t);
    if (r == 0)
        r = agree(o, t);
    if (r < 0)
        return r;
    token_info_get(t, &info);
    return options_done(o,
                        json_pack("{s:s, s:s, s:s, s:b}", "label", info.label, "serial",
                                  info.serial, "model", info.model, "created", made),
                        "token \"%s\" (serial %s): %s", info.label, info.serial,
                        made ? "made" : "exists and the PIN opens it");
}
