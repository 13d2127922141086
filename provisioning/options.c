/* The options: one table of them all, and each command's bits of it. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "provision.h"
#include "tekd/auto.h"
#include "tekd/err.h"
#include "tekd/fds.h"

static const struct {
    const char *name;
    const char *argument; /* NULL: takes none */
    const char *meaning;
} table[OPT_N] = {
    [OPT_MODULE] = {"module", "FILE", "the PKCS#11 library"},
    [OPT_TOKEN] = {"token", "URI", "the token, RFC 7512: pkcs11:token=LABEL or pkcs11:serial=…"},
    [OPT_PIN_FILE] = {"pin-file", "FILE", "the user PIN, mode 0600"},
    [OPT_PROFILE] = {"profile", "NAME", "what HSM it is (generic): softhsm luna nshield …"},
    [OPT_ENV] = {"env", "NAME=VALUE", "for the module's environment; may be repeated"},
    [OPT_LABEL] = {"label", "TEXT", "CKA_LABEL, 1 to 64 octets (a token's: 1 to 32)"},
    [OPT_SO_PIN_FILE] = {"so-pin-file", "FILE", "the security officer's PIN, mode 0600"},
    [OPT_GENERATE_PINS] = {"generate-pins", NULL, "make random PINs into files that are missing"},
    [OPT_ID] = {"id", "HEX", "CKA_ID, 1 to 32 octets; without it 16 random ones"},
    [OPT_WRAP] = {"wrap", "NAME", "aes-kw (default), aes-kwp; rsa-oaep-sha1, rsa-oaep-sha256"},
    [OPT_TYPE] = {"type", "p256|ed25519", "p256 (default): the key itself; ed25519: a second one"},
    [OPT_USE] = {"use", "storage|bsa", "what the KEK is for"},
    [OPT_EXPORT_DEMO] = {"export-demo", "FILE",
                         "write the KEK's clear value in hex, mode 0600: for demonstrations only"},
    [OPT_RECEIVER] = {"receiver", "FILE",
                      "the BSA's RSA public key, PEM: the KEK is wrapped to it"},
    [OPT_OUT] = {"out", "FILE", "where to write the result"},
    [OPT_FROM] = {"from", "FILE",
                  "where the key is: hex, mode 0600 (kek import), PEM (kek public)"},
    [OPT_DIR] = {"dir", "DIR", "the folder of the development PKI"},
    [OPT_NAME] = {"name", "NAME", "common name and file name, of a-z A-Z 0-9 . _ -"},
    [OPT_HOST] = {"host", "NAME", "one more DNS name or IP address; may be repeated"},
    [OPT_TOKEN_KEY] = {"token-key", "LABEL", "certify this key of the token, make no key file"},
    [OPT_CSR] = {"csr", "FILE", "write a certificate request for --name and each --host"},
    [OPT_JSON] = {"json", NULL, "print one JSON document"},
    [OPT_HELP] = {"help", NULL, "print this"},
};

int options_fail(int r, const char *fmt, ...)
{
    va_list ap;

    fputs("tek-provision: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return r;
}

void options_help(const struct command *c, FILE *out)
{
    unsigned bits = c->required | c->allowed | OPT(OPT_JSON) | OPT(OPT_HELP);

    fprintf(out, "tek-provision %s%s%s: %s\n\n", c->words[0], c->words[1] ? " " : "",
            c->words[1] ? c->words[1] : "", c->summary);
    for (unsigned i = 0; i < OPT_N; i++) {
        char head[64];

        if (!(bits & OPT(i)))
            continue;
        snprintf(head, sizeof(head), "--%s %s", table[i].name,
                 table[i].argument ? table[i].argument : "");
        fprintf(out, "  %-24s %s%s\n", head, table[i].meaning,
                c->required & OPT(i) ? " (required)" : "");
    }
}

static int keep(struct options *o, unsigned which, const char *value)
{
    const char **list = which == OPT_ENV ? o->env : o->host;
    size_t *n = which == OPT_ENV ? &o->n_env : &o->n_host;

    if (which != OPT_ENV && which != OPT_HOST) {
        if (o->value[which])
            return options_fail(TEKD_EINVAL, "--%s is given twice", table[which].name);
        o->value[which] = value ? value : "";
        return 0;
    }
    if (*n == OPTIONS_REPEAT_MAX)
        return options_fail(TEKD_EINVAL, "--%s is given more than %d times", table[which].name,
                            OPTIONS_REPEAT_MAX);
    list[(*n)++] = value;
    return 0;
}

static int check_required(const struct command *c, const struct options *o)
{
    for (unsigned i = 0; i < OPT_N; i++) {
        if ((c->required & OPT(i)) && !o->value[i])
            return options_fail(TEKD_EINVAL, "--%s is missing; --help says what is taken",
                                table[i].name);
    }
    return 0;
}

int options_read(const struct command *c, int argc, char **argv, struct options *ret_options)
{
    struct option longs[OPT_N + 1];
    unsigned bits = c->required | c->allowed | OPT(OPT_JSON) | OPT(OPT_HELP);
    struct options o = {.n_env = 0};
    int n = 0, which, r;

    memset(longs, 0, sizeof(longs));
    for (unsigned i = 0; i < OPT_N; i++) {
        if (bits & OPT(i))
            longs[n++] = (struct option){
                table[i].name, table[i].argument ? required_argument : no_argument, NULL, (int)i};
    }
    opterr = 0;
    while ((which = getopt_long(argc, argv, "+:", longs, NULL)) != -1) {
        if (which == '?' || which == ':')
            return options_fail(TEKD_EINVAL, "%s: %s; --help says what is taken", argv[optind - 1],
                                which == '?' ? "no option of this command"
                                             : "its value is missing");
        r = keep(&o, (unsigned)which, optarg);
        if (r < 0)
            return r;
    }
    if (optind < argc)
        return options_fail(TEKD_EINVAL, "%s: only options are taken; --help lists them",
                            argv[optind]);
    r = o.value[OPT_HELP] ? 0 : check_required(c, &o);
    if (r == 0)
        *ret_options = o;
    return r;
}

int options_done(const struct options *o, json_t *doc, const char *fmt, ...)
{
    va_list ap;

    if (!doc)
        return options_fail(TEKD_ENOMEM, "out of memory");
    if (o->value[OPT_JSON]) {
        json_dumpf(doc, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
    } else {
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
    }
    putchar('\n');
    json_decref(doc);
    if (!fds_stdout_written())
        return options_fail(TEKD_EIO, "standard output cannot be written");
    return 0;
}
