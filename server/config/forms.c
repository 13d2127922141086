/* What texts have to look like. */
#include "config_internal.h"

#include <arpa/inet.h>
#include <string.h>

#include "tekd/cosign.h"
#include "tekd/err.h"

#define URI_SCHEME "pkcs11:"

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("._-", c) != NULL);
}

static const char *any_complaint(const char *s)
{
    (void)s;
    return NULL;
}

static const char *name_complaint(const char *s)
{
    while (is_name_char(*s))
        s++;
    return *s == '\0' ? NULL : "letters, digits, '.', '_' and '-' only";
}

/* The origin of the audit log starts with it: a signed note's key name has no space and no '+'. */
static const char *bsm_id_complaint(const char *s)
{
    for (; *s != '\0'; s++)
        if (*s <= ' ' || *s > '~' || *s == '+')
            return "printable ASCII without space and '+'";
    return NULL;
}

static bool is_address(const char *s)
{
    unsigned char octets[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, s, octets) == 1 || inet_pton(AF_INET6, s, octets) == 1;
}

static const char *address_complaint(const char *s)
{
    return is_address(s) ? NULL : "a numeric IPv4 or IPv6 address";
}

/* len octets, and no others. */
static bool read_port(const char *p, size_t len, uint32_t *ret_port)
{
    uint32_t port = 0;

    if (len == 0 || len > 5 || *p == '0')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(p[i] - '0');
    }
    *ret_port = port;
    return port <= UINT16_MAX;
}

int form_split_endpoint(const char *s, char **ret_address, uint32_t *ret_port)
{
    bool six = *s == '[';
    const char *start = six ? s + 1 : s;
    const char *stop = six ? strchr(s, ']') : strchr(s, ':');
    AUTO_MEM char *address = NULL;
    const char *p;
    uint32_t port;

    if (stop == NULL || (six && stop[1] != ':'))
        return TEKD_EFORMAT;
    p = six ? stop + 2 : stop + 1;
    if (!read_port(p, strlen(p), &port))
        return TEKD_EFORMAT;
    address = strndup(start, (size_t)(stop - start));
    if (address == NULL)
        return TEKD_ENOMEM;
    if (!is_address(address) || (strchr(address, ':') != NULL) != six)
        return TEKD_EFORMAT;
    *ret_address = TAKE(address);
    *ret_port = port;
    return 0;
}

static const char *endpoint_complaint(const char *s)
{
    AUTO_MEM char *address = NULL;
    uint32_t port;

    return form_split_endpoint(s, &address, &port) == 0
               ? NULL
               : "ADDRESS:PORT, e.g. 127.0.0.1:9464 or [::1]:9464";
}

bool form_is_uri(const char *s)
{
    return strncmp(s, URI_SCHEME, strlen(URI_SCHEME)) == 0;
}

/* Whether the URI has an attribute of that name. */
static bool uri_has(const char *uri, const char *name)
{
    size_t len = strlen(name);
    const char *p = uri + strlen(URI_SCHEME);

    for (;;) {
        if (strncmp(p, name, len) == 0 && p[len] == '=' && p[len + 1] != '\0' &&
            strchr(";?&", p[len + 1]) == NULL)
            return true;
        p += strcspn(p, ";?&");
        if (*p == '\0')
            return false;
        p++;
    }
}

/* What percent-encoding (RFC 7512 section 2.3) stands for; TEKD_EFORMAT. */
static int decode(const char *s, size_t len, size_t *inout_at)
{
    char digits[3] = "", *end;
    long octet;

    if (s[*inout_at] != '%')
        return (unsigned char)s[(*inout_at)++];
    if (len - *inout_at < sizeof(digits))
        return TEKD_EFORMAT;
    memcpy(digits, s + *inout_at + 1, sizeof(digits) - 1);
    octet = strtol(digits, &end, 16);
    *inout_at += sizeof(digits);
    return *end == '\0' && *digits != '-' && *digits != '+' ? (int)octet : TEKD_EFORMAT;
}

bool form_uri_names(const char *uri, const char *label)
{
    static const char name[] = "object=";
    const char *p = uri + strlen(URI_SCHEME);
    size_t len, at = 0;

    while (strncmp(p, name, sizeof(name) - 1) != 0) {
        p += strcspn(p, ";?");
        if (*p != ';')
            return false;
        p++;
    }
    p += sizeof(name) - 1;
    len = strcspn(p, ";?");
    while (at < len && *label != '\0') {
        if (decode(p, len, &at) != (unsigned char)*label)
            return false;
        label++;
    }
    return at == len && *label == '\0';
}

/* What no URI of ours may carry, and why. */
static const struct {
    const char *name;
    const char *complaint;
} uri_refused[] = {
    {"pin-value", "a URI without pin-value: a PIN never stands in this file; name its source by "
                  "hsm.pin_file, hsm.pin_credential, hsm.pin_fd or hsm.pin_prompt"},
    {"pin-source", "a URI without pin-source: the source of the PIN is hsm.pin_file, "
                   "hsm.pin_credential, hsm.pin_fd or hsm.pin_prompt"},
    {"slot-id", "a URI without slot-id, for slot numbers change: name the token by token= or "
                "serial="},
    {"module-path", "a URI without module-path: the module is hsm.module"},
    {"module-name", "a URI without module-name: the module is hsm.module"},
};

static const char *uri_complaint(const char *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(uri_refused); i++)
        if (uri_has(s, uri_refused[i].name))
            return uri_refused[i].complaint;
    return NULL;
}

static const char *key_complaint(const char *s)
{
    if (!form_is_uri(s))
        return NULL;
    if (!uri_has(s, "object") && !uri_has(s, "id"))
        return "a path, or a URI that names the key: pkcs11:object=LABEL";
    return uri_complaint(s);
}

static const char *token_complaint(const char *s)
{
    if (!form_is_uri(s) || (!uri_has(s, "token") && !uri_has(s, "serial")))
        return "a URI that names the token: pkcs11:token=LABEL or pkcs11:serial=NUMBER";
    return uri_complaint(s);
}

static bool is_printable(const char *s)
{
    while (*s > ' ' && *s <= '~')
        s++;
    return *s == '\0';
}

/* NAME, NAME:PORT, [ADDRESS] or [ADDRESS]:PORT. */
static bool is_host(const char *s, size_t len)
{
    const char *end = s + len;
    const char *behind = *s == '[' ? memchr(s, ']', len) : memchr(s, ':', len);
    uint32_t port;

    if (*s == '[' && behind == NULL)
        return false;
    if (*s == '[')
        behind++;
    if (behind == NULL || behind == end)
        return true;
    return behind > s && *behind == ':' && read_port(behind + 1, (size_t)(end - behind) - 1, &port);
}

/* What the rest of a URL has in front of its path. */
static const char *authority_complaint(const char *s)
{
    size_t len = strcspn(s, "/?#");

    if (memchr(s, '@', len) != NULL)
        return "a URL without user and password: a secret never stands in this file";
    if (!is_host(s, len))
        return "a URL with a host, and a port of 1..65535 if any";
    return s[strcspn(s, "#")] != '\0' ? "a URL without '#', behind which nothing is sent" : NULL;
}

static const char *web_complaint(const char *s)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        const char *rest = s + strlen(schemes[i]);

        if (strncmp(s, schemes[i], strlen(schemes[i])) == 0 && *rest != '\0' && *rest != '/' &&
            is_printable(s))
            return authority_complaint(rest);
    }
    return "a URL, http:// or https://";
}

static bool is_verifier_key(const char *s)
{
    return strchr(s, '+') != NULL;
}

static const char *witness_complaint(const char *s)
{
    struct cosign_key key;

    return is_verifier_key(s) && cosign_key_read(s, strlen(s), &key) < 0
               ? "a verifier key for cosignatures, NAME+HASH+BASE64, or a path without '+'"
               : NULL;
}

static const struct {
    const char *(*complaint)(const char *s);
    bool path;
} forms[] = {
    [FORM_ANY] = {any_complaint, false},           [FORM_NAME] = {name_complaint, false},
    [FORM_BSM_ID] = {bsm_id_complaint, false},     [FORM_ADDRESS] = {address_complaint, false},
    [FORM_ENDPOINT] = {endpoint_complaint, false}, [FORM_PATH] = {any_complaint, true},
    [FORM_SOCKET] = {any_complaint, true},         [FORM_KEY] = {key_complaint, true},
    [FORM_TOKEN] = {token_complaint, false},       [FORM_WEB] = {web_complaint, false},
    [FORM_WITNESS] = {witness_complaint, true},
};

const char *form_complaint(enum form form, const char *s)
{
    return forms[form].complaint(s);
}

bool form_is_path(enum form form, const char *s)
{
    if ((form == FORM_KEY && form_is_uri(s)) || (form == FORM_WITNESS && is_verifier_key(s)))
        return false;
    return forms[form].path;
}
