/* The configuration file: what is taken, what is refused and where, the sample. */
#include "config_internal.h"

#include <limits.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tekd/buf.h"
#include "tekd/config.h"
#include "tekd/err.h"

/* A folder of its own for each test, with one file in it. */
struct place {
    char dir[PATH_MAX];
    char file[PATH_MAX + 16];
};

static int place_make(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    char name[] = "/tmp/tekd-config-XXXXXX";

    assert_non_null(p);
    assert_non_null(mkdtemp(name));
    assert_non_null(realpath(name, p->dir));
    (void)snprintf(p->file, sizeof(p->file), "%s/tekd.yaml", p->dir);
    *state = p;
    return 0;
}

static int place_remove(void **state)
{
    struct place *p = *state;
    char other[PATH_MAX + 16];

    (void)unlink(p->file);
    (void)snprintf(other, sizeof(other), "%s/softhsm2.conf", p->dir);
    (void)unlink(other);
    assert_int_equal(rmdir(p->dir), 0);
    free(p);
    return 0;
}

static void write_file(const char *path, const void *text, size_t len)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static int load(const struct place *p, const char *text, struct config **ret_config,
                struct config_error *ret_error)
{
    write_file(p->file, text, strlen(text));
    return config_load(p->file, ret_config, ret_error);
}

/* The least that is taken; the cases below change one part of it. */
static const char base[] = "bsm_id: bsm.example.net\n"        /* 1 */
                           "listen:\n"                        /* 2 */
                           "  - address: 127.0.0.1\n"         /* 3 */
                           "    port: 8443\n"                 /* 4 */
                           "tls:\n"                           /* 5 */
                           "  certificate: pki/tekd.crt\n"    /* 6 */
                           "  key: pki/tekd.key\n"            /* 7 */
                           "  client_ca: pki/ca.crt\n"        /* 8 */
                           "hsm:\n"                           /* 9 */
                           "  module: /usr/lib/libhsm.so\n"   /* 10 */
                           "  token: \"pkcs11:token=tekd\"\n" /* 11 */
                           "  pin_file: hsm.pin\n"            /* 12 */
                           "store:\n"                         /* 13 */
                           "  sqlite: tekd.db\n";             /* 14 */

/* base with the one place of find replaced; the caller frees it. */
static char *edit(const char *find, const char *replacement)
{
    const char *at = strstr(base, find);
    char *text;

    assert_non_null(at);
    assert_null(strstr(at + 1, find));
    assert_true(
        asprintf(&text, "%.*s%s%s", (int)(at - base), base, replacement, at + strlen(find)) >= 0);
    return text;
}

#define END_OF_BASE "  sqlite: tekd.db\n"
#define PIN_SOURCES "hsm.pin_file, hsm.pin_credential, hsm.pin_fd or hsm.pin_prompt"
#define OCTETS_50   "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee"
#define OCTETS_250  OCTETS_50 OCTETS_50 OCTETS_50 OCTETS_50 OCTETS_50

/* What replaces what, and the whole message after the name of the file. */
static const struct bad {
    const char *find, *replacement, *message;
} bad_files[] = {
    /* unknown */
    {"bsm_id:", "bsmid:",
     "1:1: bsmid: unknown key; expected one of: bsm_id listen tls hsm store audit policy limits "
     "push admin log"},
    {"    port: 8443\n", "    prt: 8443\n",
     "4:5: listen[0].prt: unknown key; expected one of: address port"},
    {"  client_ca:", "  Key:",
     "8:3: tls.Key: unknown key; expected one of: certificate key client_ca crl"},
    {END_OF_BASE, END_OF_BASE "log: {format: json,\n  colour: true}\n",
     "16:3: log.colour: unknown key; expected one of: format level"},
    {"bsm_id:", "<<: {level: info}\nbsm_id:",
     "1:1: <<: unknown key; expected one of: bsm_id listen tls hsm store audit policy limits push "
     "admin log"},
    {"bsm_id:", "? [a]\n: b\nbsm_id:", "1:3: expected a key, found a list"},
    {"  sqlite:", "  {a: b}: c\n  sqlite:", "14:3: store: expected a key, found a mapping"},
    {"  sqlite:", "  \"\": c\n  sqlite:", "14:3: store.\"\": unknown key; expected one of: sqlite"},
    /* secrets */
    {"pin_file: hsm.pin", "pin: 123456",
     "12:3: hsm.pin: a secret never stands in this file; name the source of the PIN "
     "by " PIN_SOURCES},
    {"bsm_id:", "password: 123456\nbsm_id:",
     "1:1: password: a secret never stands in this file; name the source of the PIN "
     "by " PIN_SOURCES},
    {"token=tekd", "token=tekd?pin-value=123456",
     "11:10: hsm.token: expected a URI without pin-value: a PIN never stands in this file; name "
     "its "
     "source by " PIN_SOURCES},
    {"token=tekd", "token=tekd?module-name=x&pin-source=file:/x",
     "11:10: hsm.token: expected a URI without pin-source: the source of the PIN is hsm.pin_file, "
     "hsm.pin_credential, hsm.pin_fd or hsm.pin_prompt"},
    {"pki/tekd.key", "\"pkcs11:object=tls?pin-value=123456\"",
     "7:8: tls.key: expected a URI without pin-value: a PIN never stands in this file; name its "
     "source by " PIN_SOURCES},
    {"pin_file: hsm.pin", "pin_fd: 123456", "12:11: hsm.pin_fd: expected 3..1023"},
    /* repeated */
    {"listen:", "bsm_id: other\nlisten:",
     "2:1: bsm_id: repeated key; expected once, and it stands in line 1"},
    {"    port: 8443\n", "    port: 8443\n    address: \"::1\"\n",
     "5:5: listen[0].address: repeated key; expected once, and it stands in line 3"},
    {END_OF_BASE, END_OF_BASE "hsm:\n  module: x\n",
     "15:1: hsm: repeated key; expected once, and it stands in line 9"},
    {"  pin_file:", "  env: {A: b,\n    A: c}\n  pin_file:",
     "13:5: hsm.env: A is repeated; it stands in line 12"},
    /* missing */
    {"bsm_id: bsm.example.net\n", "", "1:1: bsm_id: missing, e.g. bsm_id: bsm.example.net"},
    {"  - address: 127.0.0.1\n    port: 8443\n", "  - port: 8443\n",
     "3:5: listen[0].address: missing, e.g. address: 127.0.0.1"},
    {"  key: pki/tekd.key\n", "", "6:3: tls.key: missing, e.g. key: pkcs11:object=tekd-tls"},
    {"store:\n  sqlite: tekd.db\n", "", "1:1: store: missing; expected with at least: sqlite"},
    {"  pin_file: hsm.pin\n", "",
     "9:1: hsm: expected one of pin_file, pin_credential, pin_fd and pin_prompt: true, found none"},
    {"pin_file: hsm.pin", "pin_prompt: false",
     "9:1: hsm: expected one of pin_file, pin_credential, pin_fd and pin_prompt: true, found none"},
    {"pin_file: hsm.pin", "pin_file: hsm.pin\n  pin_fd: 3",
     "13:11: hsm.pin_fd: expected one source of the PIN, found pin_file as well"},
    {"pin_file: hsm.pin", "pin_prompt: true\n  pin_credential: c",
     "12:15: hsm.pin_prompt: expected one source of the PIN, found pin_credential as well"},
    /* out of range */
    {"8443", "0", "4:11: listen[0].port: expected 1..65535, found 0"},
    {"8443", "65536", "4:11: listen[0].port: expected 1..65535, found 65536"},
    {"8443", "-1", "4:11: listen[0].port: expected 1..65535, found -1"},
    {"8443", "99999999999999999999999999",
     "4:11: listen[0].port: expected 1..65535, found 99999999999999999999999999"},
    {"8443", "18446744073709560059", /* 2^64 + 8443 */
     "4:11: listen[0].port: expected 1..65535, found 18446744073709560059"},
    {END_OF_BASE, END_OF_BASE "limits:\n  queue: 5\n\n  connections: 0\n",
     "18:16: limits.connections: expected 1..65536, found 0"},
    {END_OF_BASE, END_OF_BASE "limits: {request_threads: 1}\n",
     "15:27: limits.request_threads: expected 2..512, found 1"},
    {END_OF_BASE, END_OF_BASE "policy: {message_window_s: 59}\n",
     "15:28: policy.message_window_s: expected 60..315360000, found 59"},
    {"pin_file:", "workers: 33\n  pin_file:", "12:12: hsm.workers: expected 1..32, found 33"},
    {"bsm.example.net", OCTETS_250 "123456",
     "1:9: bsm_id: expected 1..255 octets, found "
     "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeaaaaaaaaaabbbbbbbbbbcccc..."},
    /* cut in front of the character that does not fit whole */
    {"127.0.0.1",
     "a"
     "\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac"
     "\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac",
     "3:14: listen[0].address: expected 1..45 octets, found a"
     "\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac"
     "\u20ac\u20ac"
     "\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac..."},
    {"bsm.example.net", "''", "1:9: bsm_id: expected 1..255 octets, found \"\""},
    {"listen:\n  - address: 127.0.0.1\n    port: 8443\n", "listen: []\n",
     "2:9: listen: expected a list of 1..16 entries, found 0"},
    {"listen:\n  - address: 127.0.0.1\n    port: 8443\n",
     "listen: [{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]\n",
     "2:9: listen: expected a list of 1..16 entries, found 17"},
    /* the wrong type */
    {"8443", "84x", "4:11: listen[0].port: expected 1..65535, found 84x"},
    {"8443", "84.5", "4:11: listen[0].port: expected 1..65535, found 84.5"},
    {"8443", "1e3", "4:11: listen[0].port: expected 1..65535, found 1e3"},
    {"8443", "0x20", "4:11: listen[0].port: expected 1..65535, found 0x20"},
    {"8443", "010", "4:11: listen[0].port: expected 1..65535, found 010"},
    {"8443", "8_443", "4:11: listen[0].port: expected 1..65535, found 8_443"},
    {"8443", "\"8443\"", "4:11: listen[0].port: expected 1..65535, found \"8443\""},
    {"8443", "", "4:10: listen[0].port: expected 1..65535, found nothing"},
    {"8443", "[8443]", "4:11: listen[0].port: expected 1..65535, found a list"},
    {"bsm.example.net", "", "1:8: bsm_id: expected a text, found nothing"},
    {"bsm.example.net", "null", "1:9: bsm_id: expected a text, found null"},
    {"bsm.example.net", "{a: b}", "1:9: bsm_id: expected a text, found a mapping"},
    {"bsm.example.net", "\"a\\0b\"",
     "1:9: bsm_id: expected a text without control characters, found \"a?b\""},
    {"bsm.example.net", "\"a\\nb\"",
     "1:9: bsm_id: expected a text without control characters, found \"a?b\""},
    {"listen:\n  - address: 127.0.0.1\n    port: 8443\n", "listen: {address: 127.0.0.1}\n",
     "2:9: listen: expected a list of 1..16 entries, found a mapping"},
    {"  - address: 127.0.0.1\n    port: 8443\n", "  - 127.0.0.1:8443\n",
     "3:5: listen[0]: expected a mapping of settings, found 127.0.0.1:8443"},
    {"store:\n  sqlite: tekd.db\n", "store: tekd.db\n",
     "13:8: store: expected a mapping of settings, found tekd.db"},
    {END_OF_BASE, END_OF_BASE "log:\n", "15:5: log: expected a mapping of settings, found nothing"},
    {END_OF_BASE, END_OF_BASE "policy: {auto_content: yes}\n",
     "15:24: policy.auto_content: expected false or true, found yes"},
    {END_OF_BASE, END_OF_BASE "policy: {auto_content: 1}\n",
     "15:24: policy.auto_content: expected false or true, found 1"},
    {END_OF_BASE, END_OF_BASE "policy: {auto_content: 'true'}\n",
     "15:24: policy.auto_content: expected false or true, found \"true\""},
    {END_OF_BASE, END_OF_BASE "policy: {refusal_http: 404}\n",
     "15:24: policy.refusal_http: expected 200 or mapped, found 404"},
    {END_OF_BASE, END_OF_BASE "audit: {release: 0}\n",
     "15:18: audit.release: expected signed or durable, found 0"},
    {END_OF_BASE, END_OF_BASE "log: {level: [info]}\n",
     "15:14: log.level: expected error or warn or info or debug, found a list"},
    {"  pin_file:", "  env: [A=b]\n  pin_file:",
     "12:8: hsm.env: expected a mapping NAME: value, found a list"},
    {"  pin_file:", "  env: {A: {B: c}}\n  pin_file:",
     "12:12: hsm.env.A: expected a text, found a mapping"},
    {"  pin_file:", "  env: {A=B: c}\n  pin_file:",
     "12:9: hsm.env: expected the name of a variable: letters, digits and '_'"},
    {"  pin_file:", "  env: {1A: c}\n  pin_file:",
     "12:9: hsm.env: expected the name of a variable: letters, digits and '_'"},
    {"  pin_file:", "  env: {\"A\\0B\": c}\n  pin_file:",
     "12:9: hsm.env: expected the name of a variable: letters, digits and '_'"},
    /* the wrong form */
    {"127.0.0.1", "localhost",
     "3:14: listen[0].address: expected a numeric IPv4 or IPv6 address, found localhost"},
    {"127.0.0.1", "127.0.0.256",
     "3:14: listen[0].address: expected a numeric IPv4 or IPv6 address, found 127.0.0.256"},
    {"bsm.example.net", "bsm example",
     "1:9: bsm_id: expected printable ASCII without space and '+', found bsm example"},
    {"bsm.example.net", "bsm+1",
     "1:9: bsm_id: expected printable ASCII without space and '+', found bsm+1"},
    {"pkcs11:token=tekd", "tekd",
     "11:10: hsm.token: expected a URI that names the token: pkcs11:token=LABEL or "
     "pkcs11:serial=NUMBER"},
    {"pkcs11:token=tekd", "pkcs11:model=x;slot-id=0",
     "11:10: hsm.token: expected a URI that names the token: pkcs11:token=LABEL or "
     "pkcs11:serial=NUMBER"},
    {"pkcs11:token=tekd", "pkcs11:token=",
     "11:10: hsm.token: expected a URI that names the token: pkcs11:token=LABEL or "
     "pkcs11:serial=NUMBER"},
    {"pkcs11:token=tekd", "pkcs11:token=tekd;slot-id=0",
     "11:10: hsm.token: expected a URI without slot-id, for slot numbers change: name the token by "
     "token= or serial="},
    {"pkcs11:token=tekd", "pkcs11:token=tekd?module-path=/x.so",
     "11:10: hsm.token: expected a URI without module-path: the module is hsm.module"},
    {"pki/tekd.key", "\"pkcs11:token=tekd\"",
     "7:8: tls.key: expected a path, or a URI that names the key: pkcs11:object=LABEL"},
    {END_OF_BASE, END_OF_BASE "admin: {http: \"localhost:9464\"}\n",
     "15:15: admin.http: expected ADDRESS:PORT, e.g. 127.0.0.1:9464 or [::1]:9464, found "
     "\"localhost:9464\""},
    {END_OF_BASE, END_OF_BASE "admin: {http: \"127.0.0.1:65536\"}\n",
     "15:15: admin.http: expected ADDRESS:PORT, e.g. 127.0.0.1:9464 or [::1]:9464, found "
     "\"127.0.0.1:65536\""},
    {END_OF_BASE, END_OF_BASE "admin: {http: \"::1:9464\"}\n",
     "15:15: admin.http: expected ADDRESS:PORT, e.g. 127.0.0.1:9464 or [::1]:9464, found "
     "\"::1:9464\""},
    {END_OF_BASE, END_OF_BASE "admin: {group: a/b}\n",
     "15:16: admin.group: expected letters, digits, '.', '_' and '-' only, found a/b"},
    /* settings that do not go together */
    {END_OF_BASE, END_OF_BASE "push:\n  retry_max_s: 5\n  retry_initial_s: 6\n",
     "17:20: push.retry_initial_s: expected no more than retry_max_s, which is 5, found 6"},
    {END_OF_BASE, END_OF_BASE "limits: {free_warn_mb: 100}\n",
     "15:1: limits.free_stop_mb: expected no more than free_warn_mb, which is 100, found "
     "512"},
    {END_OF_BASE, END_OF_BASE "limits: {free_stop_mb: 2049}\n",
     "15:24: limits.free_stop_mb: expected no more than 2048 where free_warn_mb is not given, "
     "found 2049"},
    {END_OF_BASE, END_OF_BASE "limits: {free_warn_mb: 0}\n",
     "15:24: limits.free_warn_mb: expected 1..100000000, found 0"},
    {END_OF_BASE, END_OF_BASE "audit: {heartbeat_s: 1, checkpoint_max_delay_ms: 1001}\n",
     "15:50: audit.checkpoint_max_delay_ms: expected no more than heartbeat_s, which is 1, "
     "found 1001"},
    {END_OF_BASE, END_OF_BASE "audit: {syslog: {facility: auth}}\n",
     "15:17: audit.syslog.socket: missing, e.g. socket: /dev/log"},
    {END_OF_BASE, END_OF_BASE "audit: {syslog: true}\n",
     "15:17: audit.syslog: expected a mapping of settings, found true"},
    {END_OF_BASE, END_OF_BASE "audit: {syslog: {socket: /dev/log, facility: mail}}\n",
     "15:46: audit.syslog.facility: expected authpriv or auth or daemon or local0 or local1 or "
     "local2 or local3 or local4 or local5 or local6 or local7, found mail"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'ftp://x/', tsa_ca: x}}\n",
     "15:26: audit.timestamp.url: expected a URL, http:// or https://"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'https:///x', tsa_ca: x}}\n",
     "15:26: audit.timestamp.url: expected a URL, http:// or https://"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'http://tsa:0/', tsa_ca: x}}\n",
     "15:26: audit.timestamp.url: expected a URL with a host, and a port of 1..65535 if any"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'http://tsa:65536', tsa_ca: x}}\n",
     "15:26: audit.timestamp.url: expected a URL with a host, and a port of 1..65535 if any"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'http://tsa:80x?y', tsa_ca: x}}\n",
     "15:26: audit.timestamp.url: expected a URL with a host, and a port of 1..65535 if any"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'http://:80/', tsa_ca: x}}\n",
     "15:26: audit.timestamp.url: expected a URL with a host, and a port of 1..65535 if any"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'http://[::1/', tsa_ca: x}}\n",
     "15:26: audit.timestamp.url: expected a URL with a host, and a port of 1..65535 if any"},
    {END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'https://w/a#b', key: x}}\n",
     "15:24: audit.witness.url: expected a URL without '#', behind which nothing is sent"},
    {END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'https://u:p@w/', key: x}}\n",
     "15:24: audit.witness.url: expected a URL without user and password: a secret never stands "
     "in this file"},
    {END_OF_BASE, END_OF_BASE "audit: {timestamp: {url: 'http://tsa/'}}\n",
     "15:20: audit.timestamp.tsa_ca: missing, e.g. tsa_ca: pki/tsa-ca.crt"},
    {END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'http://w/'}}\n",
     "15:18: audit.witness.key: missing, e.g. key: pki/witness.vkey"},
    {END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'ftp://w/', key: x}}\n",
     "15:24: audit.witness.url: expected a URL, http:// or https://"},
    {END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'http://w/', key: w+00+AA}}\n",
     "15:42: audit.witness.key: expected a verifier key for cosignatures, NAME+HASH+BASE64, or a "
     "path without '+', found w+00+AA"},
    {END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'http://w/', key: x, certificate: y}}\n",
     "15:9: audit.witness: expected certificate and private_key, found only certificate"},
    {END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'http://w/', key: x, private_key: y}}\n",
     "15:9: audit.witness: expected certificate and private_key, found only private_key"},
    /* keys that are replaced */
    {"pin_file: hsm.pin", "pin_file: hsm.pin\n  checkpoint_key_before: tekd-checkpoint",
     "13:26: hsm.checkpoint_key_before: expected another label than that of checkpoint_key"},
    {"pin_file: hsm.pin", "pin_file: hsm.pin\n  checkpoint_key: new\n  checkpoint_key_before: new",
     "14:26: hsm.checkpoint_key_before: expected another label than that of checkpoint_key"},
    {"pin_file: hsm.pin", "pin_file: hsm.pin\n  checkpoint_ed25519_key_before: old",
     "13:34: hsm.checkpoint_ed25519_key_before: expected checkpoint_ed25519_key as well, the key "
     "that replaces it"},
    {"pin_file: hsm.pin",
     "pin_file: hsm.pin\n  checkpoint_ed25519_key_before: a\n  checkpoint_ed25519_key: a",
     "13:34: hsm.checkpoint_ed25519_key_before: expected another label than that of "
     "checkpoint_ed25519_key"},
    {"    port: 8443\n", "  - {address: \"::1\"}\n  - {address: 127.0.0.1, port: 8443}\n",
     "5:5: listen[2]: expected another address or port than listen[0]"},
    /* files that tekd writes */
    {END_OF_BASE, END_OF_BASE "audit: {anchor_file: tekd.db}\n",
     "14:11: store.sqlite: expected another file than that of audit.anchor_file"},
    {END_OF_BASE, END_OF_BASE "audit: {anchor_file: .//tekd.sock}\n",
     "15:22: audit.anchor_file: expected another file than that of admin.socket"},
    {END_OF_BASE, END_OF_BASE "audit: {anchor_file: ./hsm.pin}\n",
     "15:22: audit.anchor_file: expected another file than that of hsm.pin_file"},
    {END_OF_BASE, END_OF_BASE "audit: {anchor_file: nowhere/a, published_dir: nowhere/a}\n",
     "15:22: audit.anchor_file: expected another file than that of audit.published_dir"},
    {END_OF_BASE, END_OF_BASE "audit: {syslog: {socket: s}}\nadmin: {socket: s}\n",
     "16:17: admin.socket: expected another file than that of audit.syslog.socket"},
    {END_OF_BASE, END_OF_BASE "audit: {anchor_file: w, witness: {url: 'http://w/', key: w}}\n",
     "15:22: audit.anchor_file: expected another file than that of audit.witness.key"},
    {"tekd.db", "hsm.pin", "14:11: store.sqlite: expected another file than that of hsm.pin_file"},
    {"tekd.db", "tekd.yaml", "14:11: store.sqlite: expected another file than this one"},
    /* keys of two uses */
    {"pki/tekd.key", "\"pkcs11:object=tekd-checkpoint\"",
     "7:8: tls.key: expected another key than hsm.checkpoint_key: what signs the audit log signs "
     "nothing else"},
    {"pki/tekd.key\n  client_ca: pki/ca.crt\nhsm:\n",
     "\"pkcs11:token=t;object=%6fl%64?a=b\"\n  client_ca: pki/ca.crt\nhsm:\n"
     "  checkpoint_key_before: old\n",
     "7:8: tls.key: expected another key than hsm.checkpoint_key_before: what signs the audit log "
     "signs nothing else"},
    /* parts of YAML that are not taken, and what is not YAML */
    {"bsm.example.net", "&id bsm", "1:9: anchors (&name) are not taken: write the value out"},
    {"tekd.db", "*id", "14:11: aliases (*name) are not taken: write the value out"},
    {"8443", "!!int 8443", "4:11: tags (!name) are not taken: write the value alone"},
    {"bsm_id:", "%YAML 1.1\n---\nbsm_id:", "1:1: directives (%YAML) are not taken"},
    {END_OF_BASE, END_OF_BASE "---\nbsm_id: other\n",
     "15:1: a second document starts here; one is taken"},
    {"  pin_file:", "\tpin_file:",
     "12:1: not YAML: while scanning for the next token, found character that cannot start any "
     "token"},
    {"    port:", "   port:",
     "4:4: not YAML: while parsing a block collection, did not find expected '-' indicator"},
    {"\"pkcs11:token=tekd\"", "\"pkcs11:token=tekd",
     "15:1: not YAML: while scanning a quoted scalar, found unexpected end of stream"},
    {"tekd.db", "t\xff.db", "14:12: not YAML: invalid leading UTF-8 octet"},
    {"tekd.db", "t\x01.db", "14:12: not YAML: control characters are not allowed"},
};

static void config_load__refuses_bad_files_by_place_and_reason(void **state)
{
    struct place *p = *state;
    struct config_error error;
    struct config *c = NULL;
    char expected[PATH_MAX + CONFIG_ERROR_MAX];
    unsigned line, column;

    for (size_t i = 0; i < ARRAY_SIZE(bad_files); i++) {
        AUTO_MEM char *text = edit(bad_files[i].find, bad_files[i].replacement);

        memset(&error, 0, sizeof(error));
        assert_int_equal(load(p, text, &c, &error), TEKD_EINVAL);
        (void)snprintf(expected, sizeof(expected), "%s:%s", p->file, bad_files[i].message);
        assert_string_equal(error.message, expected);
        assert_int_equal(sscanf(bad_files[i].message, "%u:%u", &line, &column), 2);
        assert_int_equal(error.line, line);
        assert_int_equal(error.column, column);
        assert_null(c);
    }
}

static void config_load__refuses_what_has_no_settings(void **state)
{
    static const char *const texts[] = {"", "# nothing\n", "\n\n"};
    struct place *p = *state;
    struct config_error error;
    struct config *c = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        assert_int_equal(load(p, texts[i], &c, &error), TEKD_EINVAL);
        assert_non_null(strstr(error.message, ": expected settings, found an empty file"));
        assert_int_equal(error.line, 0);
    }
    assert_int_equal(load(p, "a\n", &c, &error), TEKD_EINVAL);
    assert_non_null(strstr(error.message, ":1:1: expected a mapping of settings, found a"));
}

static void config_load__never_echoes_what_may_be_a_secret(void **state)
{
    static const struct {
        const char *find, *replacement;
    } cases[] = {
        {"pin_file: hsm.pin", "pin: 87654321"},
        {"pin_file: hsm.pin", "pin_fd: 87654321"},
        {"pin_file: hsm.pin", "pin_prompt: 87654321"},
        {"pin_file: hsm.pin", "pin_credential: \"/87654321\""},
        {"pin_file: hsm.pin", "password: 87654321"},
        {"token=tekd", "token=tekd?pin-value=87654321"},
        {"pkcs11:token=tekd", "87654321"},
        {"pki/tekd.key", "\"pkcs11:id=1?pin-value=87654321\""},
        {"  sqlite: tekd.db\n",
         "  sqlite: tekd.db\naudit: {timestamp: {url: 'https://me:87654321@tsa/', "
         "tsa_ca: x}}\n"},
    };
    struct place *p = *state;
    struct config_error error;
    struct config *c = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO_MEM char *text = edit(cases[i].find, cases[i].replacement);

        assert_int_equal(load(p, text, &c, &error), TEKD_EINVAL);
        assert_null(strstr(error.message, "87654321"));
    }
}

static void config_load__fills_in_what_is_not_there(void **state)
{
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    char host[HOST_NAME_MAX + 1], path[PATH_MAX + 64];

    assert_int_equal(load(p, base, &c, &error), 0);
    assert_string_equal(c->file, p->file);
    assert_string_equal(c->dir, p->dir);
    assert_string_equal(c->bsm_id, "bsm.example.net");
    assert_int_equal(c->listen_count, 1);
    assert_string_equal(c->listen[0].address, "127.0.0.1");
    assert_int_equal(c->listen[0].port, 8443);
    assert_false(c->tls.key_in_hsm);
    assert_null(c->tls.crl);
    assert_null(c->hsm.program);
    assert_string_equal(c->hsm.module, "/usr/lib/libhsm.so");
    assert_string_equal(c->hsm.token, "pkcs11:token=tekd");
    assert_int_equal(c->hsm.pin, CONFIG_PIN_FILE);
    assert_string_equal(c->hsm.profile, "softhsm");
    assert_int_equal(c->hsm.workers, 2);
    assert_int_equal(c->hsm.timeout_ms, 2000);
    assert_int_equal(c->hsm.recycle_after, 100000);
    assert_int_equal(c->hsm.env_count, 0);
    assert_string_equal(c->hsm.storage_kek, "tekd-storage");
    assert_string_equal(c->hsm.checkpoint_key, "tekd-checkpoint");
    assert_int_equal(c->audit.release, CONFIG_RELEASE_SIGNED);
    assert_null(c->audit.anchor_file);
    assert_null(c->audit.syslog.socket);
    assert_null(c->audit.timestamp.url);
    assert_null(c->audit.witness.url);
    (void)snprintf(path, sizeof(path), "%s/tekd.db.published", p->dir);
    assert_string_equal(c->audit.published_dir, path);
    assert_int_equal(c->audit.heartbeat_s, 300);
    assert_int_equal(gethostname(host, sizeof(host)), 0);
    assert_string_equal(c->audit.instance, host);
    assert_false(c->policy.auto_content);
    assert_int_equal(c->policy.message_window_s, 604800);
    assert_int_equal(c->policy.refusal_http, CONFIG_REFUSAL_200);
    assert_int_equal(c->limits.connections, 1024);
    assert_int_equal(c->limits.request_deadline_ms, 4000);
    assert_int_equal(c->limits.free_stop_mb, 512);
    assert_int_equal(c->limits.free_warn_mb, 0); /* by what the volume is */
    assert_int_equal(c->push.deadline_s, 3600);
    assert_null(c->admin.group);
    assert_null(c->admin.http);
    assert_int_equal(c->log.format, LOG_LOGFMT);
    assert_int_equal(c->log.level, LOG_INFO);
    (void)snprintf(path, sizeof(path), "%s/tekd.sock", p->dir);
    assert_string_equal(c->admin.socket, path);
}

static void config_load__reads_every_kind(void **state)
{
    static const char more[] = "audit: {release: durable, instance: tekd-b}\n"
                               "policy: {auto_content: true, refusal_http: mapped}\n"
                               "admin: {http: '[::1]:9464', group: ops}\n"
                               "limits: {free_stop_mb: 2049, free_warn_mb: 2049}\n"
                               "log: {format: json, level: debug}\n";
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    AUTO_MEM char *text = NULL;

    assert_true(asprintf(&text, "%s%s", base, more) > 0);
    assert_int_equal(load(p, text, &c, &error), 0);
    assert_int_equal(c->limits.free_warn_mb, 2049);
    assert_int_equal(c->audit.release, CONFIG_RELEASE_DURABLE);
    assert_string_equal(c->audit.instance, "tekd-b");
    assert_true(c->policy.auto_content);
    assert_int_equal(c->policy.refusal_http, CONFIG_REFUSAL_MAPPED);
    assert_string_equal(c->admin.http_address, "::1");
    assert_int_equal(c->admin.http_port, 9464);
    assert_string_equal(c->admin.group, "ops");
    assert_int_equal(c->log.format, LOG_JSON);
    assert_int_equal(c->log.level, LOG_DEBUG);
}

static void config_load__reads_where_checkpoints_go(void **state)
{
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    AUTO(config) struct config *d = NULL;
    AUTO_MEM char *text = edit(END_OF_BASE, END_OF_BASE "audit: {syslog: {socket: log}}\n");
    AUTO_MEM char *other =
        edit(END_OF_BASE, END_OF_BASE "audit: {syslog: {socket: /dev/log, facility: local7}}\n");
    AUTO_MEM char *path = NULL;

    assert_int_equal(load(p, text, &c, &error), 0);
    assert_true(asprintf(&path, "%s/log", p->dir) > 0);
    assert_string_equal(c->audit.syslog.socket, path);
    assert_int_equal(c->audit.syslog.facility, 10);
    assert_int_equal(load(p, other, &d, &error), 0);
    assert_string_equal(d->audit.syslog.socket, "/dev/log");
    assert_int_equal(d->audit.syslog.facility, 23);
}

#define WITNESS_KEY "w.example+e533421d+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

static void config_load__takes_the_key_of_a_witness_or_its_file(void **state)
{
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    AUTO(config) struct config *d = NULL;
    AUTO_MEM char *text = edit(END_OF_BASE, END_OF_BASE
                               "audit: {witness: {url: 'http://w/', key: " WITNESS_KEY "}}\n");
    AUTO_MEM char *other =
        edit(END_OF_BASE, END_OF_BASE "audit: {witness: {url: 'http://w/', key: w.vkey, "
                                      "certificate: w.crt, private_key: w.key}}\n");
    AUTO_MEM char *path = NULL;

    assert_int_equal(load(p, text, &c, &error), 0);
    assert_string_equal(c->audit.witness.key, WITNESS_KEY);
    assert_int_equal(load(p, other, &d, &error), 0);
    assert_true(asprintf(&path, "%s/w.vkey", p->dir) > 0);
    assert_string_equal(d->audit.witness.key, path);
    assert_non_null(strstr(d->audit.witness.private_key, "/w.key"));
}

static void config_load__takes_urls_with_a_host_and_a_port(void **state)
{
    static const char *const urls[] = {
        "http://tsa",       "https://tsa:1/",    "http://tsa:65535/a@b:c",
        "https://[::1]/w1", "https://[::1]:443", "http://tsa?a=b:0"};
    struct place *p = *state;
    struct config_error error;

    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        AUTO(config) struct config *c = NULL;
        AUTO_MEM char *audit = NULL;
        AUTO_MEM char *text = NULL;

        assert_true(asprintf(&audit, END_OF_BASE "audit: {timestamp: {url: '%s', tsa_ca: x}}\n",
                             urls[i]) > 0);
        text = edit(END_OF_BASE, audit);
        assert_int_equal(load(p, text, &c, &error), 0);
        assert_string_equal(c->audit.timestamp.url, urls[i]);
    }
}

static void config_load__takes_keys_that_are_replaced(void **state)
{
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    AUTO_MEM char *text = edit("pin_file: hsm.pin", "pin_file: hsm.pin\n"
                                                    "  checkpoint_key_before: tekd-checkpoint\n"
                                                    "  checkpoint_key: new\n"
                                                    "  checkpoint_ed25519_key: e-2\n"
                                                    "  checkpoint_ed25519_key_before: e-1");

    assert_int_equal(load(p, text, &c, &error), 0);
    assert_string_equal(c->hsm.checkpoint_key_before, "tekd-checkpoint");
    assert_string_equal(c->hsm.checkpoint_ed25519_key_before, "e-1");
}

static void config_load__takes_each_source_of_the_pin(void **state)
{
    struct place *p = *state;
    const struct {
        const char *line;
        enum config_pin pin;
    } cases[] = {
        {"pin_file: hsm.pin", CONFIG_PIN_FILE},
        {"pin_credential: hsm-pin", CONFIG_PIN_CREDENTIAL},
        {"pin_fd: 7", CONFIG_PIN_FD},
        {"pin_prompt: true", CONFIG_PIN_PROMPT},
        {"pin_prompt: false\n  pin_fd: 7", CONFIG_PIN_FD},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(config) struct config *c = NULL;
        AUTO_MEM char *text = edit("pin_file: hsm.pin", cases[i].line);
        struct config_error error;

        assert_int_equal(load(p, text, &c, &error), 0);
        assert_int_equal(c->hsm.pin, cases[i].pin);
    }
}

/* Relative to the folder of the file, not to the working directory; a URI is no path. */
static void config_load__makes_paths_absolute(void **state)
{
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    AUTO_MEM char *text = edit("pki/tekd.key", "\"pkcs11:object=tls\"\n  crl: /abs/ca.crl");
    AUTO_MEM char *cwd = getcwd(NULL, 0);
    char path[PATH_MAX + 64];

    write_file(p->file, text, strlen(text));
    assert_int_equal(chdir(p->dir), 0);
    assert_int_equal(config_load("tekd.yaml", &c, &error), 0);
    assert_int_equal(chdir(cwd), 0);
    assert_string_equal(c->file, p->file);
    (void)snprintf(path, sizeof(path), "%s/pki/tekd.crt", p->dir);
    assert_string_equal(c->tls.certificate, path);
    (void)snprintf(path, sizeof(path), "%s/hsm.pin", p->dir);
    assert_string_equal(c->hsm.pin_file, path);
    (void)snprintf(path, sizeof(path), "%s/tekd.db", p->dir);
    assert_string_equal(c->store.sqlite, path);
    assert_string_equal(c->tls.crl, "/abs/ca.crl");
    assert_string_equal(c->tls.key, "pkcs11:object=tls");
    assert_true(c->tls.key_in_hsm);
}

static void config_load__gives_the_module_its_environment(void **state)
{
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    AUTO_MEM char *text = edit("  pin_file:", "  env:\n    SOFTHSM2_CONF: softhsm2.conf\n"
                                              "    OTHER: none.conf\n    EMPTY: ''\n"
                                              "    N: 1\n  pin_file:");
    char path[PATH_MAX + 64];

    (void)snprintf(path, sizeof(path), "%s/softhsm2.conf", p->dir);
    write_file(path, "", 0);
    assert_int_equal(load(p, text, &c, &error), 0);
    assert_int_equal(c->hsm.env_count, 4);
    assert_string_equal(c->hsm.env[0].name, "SOFTHSM2_CONF");
    assert_string_equal(c->hsm.env[0].value, path);
    assert_string_equal(c->hsm.env[1].value, "none.conf");
    assert_string_equal(c->hsm.env[2].value, "");
    assert_string_equal(c->hsm.env[3].value, "1");
}

static void config_load__refuses_too_many_variables(void **state)
{
    struct place *p = *state;
    AUTO(buf) struct buf *env = NULL;
    struct config_error error;

    assert_int_equal(buf_new(4096, &env), 0);
    buf_puts(env, "  env:\n");
    for (int i = 0; i < CONFIG_ENV_MAX; i++)
        buf_printf(env, "    A%d: b\n", i);
    for (int extra = 0; extra < 2; extra++) {
        AUTO(config) struct config *c = NULL;
        AUTO_MEM char *text = NULL;
        AUTO_MEM char *lines = NULL;

        assert_true(asprintf(&lines, "%s%s  pin_file:", buf_str(env), extra ? "    B: c\n" : "") >
                    0);
        text = edit("  pin_file:", lines);
        assert_int_equal(load(p, text, &c, &error), extra ? TEKD_EINVAL : 0);
    }
    assert_non_null(strstr(error.message, ":13:5: hsm.env: expected at most 32 variables"));
}

static void config_load__refuses_a_socket_path_that_no_socket_takes(void **state)
{
    struct place *p = *state;
    struct config_error error;
    size_t room = 107 - strlen(p->dir) - 1;

    for (size_t extra = 0; extra < 2; extra++) {
        AUTO(config) struct config *c = NULL;
        AUTO_MEM char *text = NULL;
        char name[128] = "";

        memset(name, 's', room + extra);
        assert_true(asprintf(&text, "%sadmin: {socket: %s}\n", base, name) > 0);
        assert_int_equal(load(p, text, &c, &error), extra ? TEKD_EINVAL : 0);
        if (extra == 0)
            assert_int_equal(strlen(c->admin.socket), 107);
    }
    assert_non_null(strstr(error.message, ":15:17: admin.socket: expected a path of at most 107 "
                                          "octets with the folder of this file, found 108"));
}

/* A file of exactly the limit is taken, one octet more is not. */
/* The log says which file a start had: what was read, whatever is under its name by then. */
static void config_load__has_the_hash_of_what_it_read(void **state)
{
    struct place *p = *state;
    struct config_error error;
    AUTO(config) struct config *c = NULL;
    uint8_t sha256[32];

    assert_int_equal(load(p, base, &c, &error), 0);
    write_file(p->file, "other", 5);
    assert_int_equal(EVP_Digest(base, strlen(base), sha256, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(c->sha256, sha256, sizeof(sha256));
}

static void config_load__has_a_limit(void **state)
{
    struct place *p = *state;
    struct config_error error;

    for (size_t extra = 0; extra < 2; extra++) {
        AUTO(config) struct config *c = NULL;
        size_t len = CONFIG_FILE_MAX + extra;
        AUTO_MEM char *text = malloc(len);

        assert_non_null(text);
        memcpy(text, base, sizeof(base)); /* the NUL is overwritten */
        memset(text + sizeof(base) - 1, '#', len - sizeof(base) + 1);
        write_file(p->file, text, len);
        assert_int_equal(config_load(p->file, &c, &error), extra ? TEKD_ETOOBIG : 0);
    }
    assert_non_null(strstr(error.message, ": expected at most 262144 octets, found "));
}

/* Minutes would be spent on it; nobody waits for that to see that his file is none. */
static void config_load__refuses_what_nests_too_deep(void **state)
{
    static const struct {
        char octet;
        size_t n;
    } cases[] = {{'[', 9}, {'{', 9}, {'[', CONFIG_FILE_MAX}, {'{', CONFIG_FILE_MAX}};
    struct place *p = *state;
    struct config_error error;
    struct config *c = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO_MEM char *text = malloc(cases[i].n);

        assert_non_null(text);
        memset(text, cases[i].octet, cases[i].n);
        write_file(p->file, text, cases[i].n);
        assert_int_equal(config_load(p->file, &c, &error), TEKD_EINVAL);
        assert_non_null(strstr(error.message, ":1:9: expected at most 8 levels"));
    }
}

static void config_load__says_what_is_wrong_with_the_file_itself(void **state)
{
    struct place *p = *state;
    struct config_error error;
    struct config *c = NULL;
    char expected[PATH_MAX + 64];

    assert_int_equal(config_load(p->file, &c, &error), TEKD_ENOTFOUND);
    (void)snprintf(expected, sizeof(expected), "%s: open: No such file or directory", p->file);
    assert_string_equal(error.message, expected);
    assert_int_equal(error.line, 0);
    assert_int_equal(config_load(p->dir, &c, &error), TEKD_EINVAL);
    (void)snprintf(expected, sizeof(expected), "%s: expected a regular file", p->dir);
    assert_string_equal(error.message, expected);
    /* A pipe nobody writes to must not hold the start. */
    assert_int_equal(mkfifo(p->file, 0600), 0);
    assert_int_equal(config_load(p->file, &c, &error), TEKD_EINVAL);
    assert_null(c);
}

/* Cut at every octet: an answer each time, and never a place outside the file. */
static void config_load__survives_every_truncation(void **state)
{
    struct place *p = *state;
    struct config_error error;
    size_t whole = strlen(base);

    for (size_t len = 0; len < whole - strlen(": tekd.db\n"); len++) {
        struct config *c = NULL;

        write_file(p->file, base, len);
        assert_int_equal(config_load(p->file, &c, &error), TEKD_EINVAL);
        assert_true(error.line <= 15);
        assert_true(strlen(error.message) > strlen(p->file));
        assert_null(c);
    }
}

/* The stage behind the checks: what libcyaml logs becomes the message. */
static void values_load__tells_what_libcyaml_says(void **state)
{
    static const char text[] = "bsm_id: b\nlog:\n  colour: red\n";
    struct config_error error;
    struct config *c = NULL;
    struct reader r = {
        .file = "tekd.yaml", .text = (const uint8_t *)text, .len = strlen(text), .error = &error};

    (void)state;
    assert_int_equal(values_load(&r, &c), TEKD_EINVAL);
    assert_string_equal(error.message,
                        "tekd.yaml: libcyaml: Invalid key (Load: Unexpected key: colour; Load: "
                        "Backtrace:;   in mapping (line: 3, column: 3);   in mapping field 'log' "
                        "(line: 3, column: 3))");
    assert_null(c);
}

static char *sample_text(void)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    assert_int_equal(config_print_sample(out), 0);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void config_print_sample__is_what_the_documents_have(void **state)
{
    AUTO_MEM char *sample = sample_text();
    AUTO_MEM char *doc = calloc(1, CONFIG_FILE_MAX);
    FILE *f = fopen(TEST_DATA_DIR "/../../docs/tekd.yaml.sample", "r");

    (void)state;
    assert_non_null(f);
    assert_non_null(doc);
    assert_true(fread(doc, 1, CONFIG_FILE_MAX - 1, f) > 0);
    assert_int_equal(fclose(f), 0);
    /* After a change of the table: tekd --sample-config > docs/tekd.yaml.sample */
    assert_string_equal(sample, doc);
}

/* Compares two settings tables' worth of structs, texts by their contents. */
static void assert_same(const struct setting *table, const char *a, const char *b)
{
    for (const struct setting *s = table; s->key != NULL; s++) {
        const char *pa = a + s->offset, *pb = b + s->offset;

        if (s->kind == SETTING_SECTION)
            assert_same(s->fields, pa, pb);
        if (s->kind == SETTING_NUMBER || s->kind == SETTING_CHOICE)
            assert_memory_equal(pa, pb, sizeof(uint32_t));
        if (s->kind == SETTING_BOOL)
            assert_int_equal(*pa, *pb);
        if (s->kind == SETTING_TEXT && s->def != NULL)
            assert_string_equal(*(char *const *)(const void *)pa, *(char *const *)(const void *)pb);
    }
}

/* The values in the sample are the defaults: a file without them gives the same. */
static void config_print_sample__loads_and_shows_the_defaults(void **state)
{
    struct place *p = *state;
    AUTO_MEM char *sample = sample_text();
    AUTO(config) struct config *shown = NULL;
    AUTO(config) struct config *least = NULL;
    struct config_error error;

    assert_int_equal(load(p, sample, &shown, &error), 0);
    assert_int_equal(shown->hsm.env_count, 1);
    assert_int_equal(load(p, base, &least, &error), 0);
    assert_same(schema_settings, (const char *)shown, (const char *)least);
}

/* Every setting that the sample has as a comment is taken once the '#' is gone. */
static void config_print_sample__has_comments_that_load(void **state)
{
    struct place *p = *state;
    AUTO_MEM char *sample = sample_text();
    struct config_error error;
    unsigned seen = 0;

    for (char *at = sample; (at = strchr(at, '#')) != NULL; at++) {
        AUTO(config) struct config *c = NULL;
        AUTO_MEM char *text = NULL;
        /* A second source, or a key that replaces none: refused by name. */
        bool alone =
            strncmp(at, "#pin_", 5) == 0 || strncmp(at, "#checkpoint_ed25519_key_before:", 31) == 0;

        if (at[1] == ' ' || at[1] == '\n')
            continue;
        seen++;
        assert_true(asprintf(&text, "%.*s%s", (int)(at - sample), sample, at + 1) > 0);
        assert_int_equal(load(p, text, &c, &error), alone ? TEKD_EINVAL : 0);
    }
    assert_true(seen >= 9);
}

static void config_print_sample__says_when_it_cannot_write(void **state)
{
    FILE *full = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(full);
    assert_int_equal(config_print_sample(full), TEKD_EIO);
    (void)fclose(full);
}

/* Every default is in its own range and form: the sample's loading alone would not show all. */
static void schema_settings__have_defaults_in_range(void **state)
{
    (void)state;
    for (const struct setting *section = schema_settings; section->key != NULL; section++) {
        assert_true(strlen(section->meaning) > 0);
        for (const struct setting *s = section->fields; s != NULL && s->key != NULL; s++) {
            unsigned long n = s->def != NULL ? strtoul(s->def, NULL, 10) : 0;

            assert_true(strlen(s->meaning) > 0);
            assert_true((s->flags & SETTING_REQUIRED) == 0 || s->sample != NULL);
            assert_true(s->def != NULL || s->sample != NULL);
            if (s->kind == SETTING_NUMBER && s->def != NULL)
                assert_true(s->min <= n && n <= s->max && s->min < s->max);
            if (s->kind == SETTING_TEXT)
                assert_null(form_complaint(s->form, s->def != NULL ? s->def : s->sample));
        }
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, place_make, place_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(config_load__refuses_bad_files_by_place_and_reason),
        TEST(config_load__refuses_what_has_no_settings),
        TEST(config_load__never_echoes_what_may_be_a_secret),
        TEST(config_load__fills_in_what_is_not_there),
        TEST(config_load__reads_every_kind),
        TEST(config_load__reads_where_checkpoints_go),
        TEST(config_load__takes_the_key_of_a_witness_or_its_file),
        TEST(config_load__takes_urls_with_a_host_and_a_port),
        TEST(config_load__takes_keys_that_are_replaced),
        TEST(config_load__takes_each_source_of_the_pin),
        TEST(config_load__makes_paths_absolute),
        TEST(config_load__gives_the_module_its_environment),
        TEST(config_load__refuses_too_many_variables),
        TEST(config_load__refuses_a_socket_path_that_no_socket_takes),
        TEST(config_load__has_the_hash_of_what_it_read),
        TEST(config_load__has_a_limit),
        TEST(config_load__refuses_what_nests_too_deep),
        TEST(config_load__says_what_is_wrong_with_the_file_itself),
        TEST(config_load__survives_every_truncation),
        TEST(config_print_sample__loads_and_shows_the_defaults),
        TEST(config_print_sample__has_comments_that_load),
        cmocka_unit_test(values_load__tells_what_libcyaml_says),
        cmocka_unit_test(config_print_sample__is_what_the_documents_have),
        cmocka_unit_test(config_print_sample__says_when_it_cannot_write),
        cmocka_unit_test(schema_settings__have_defaults_in_range),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
