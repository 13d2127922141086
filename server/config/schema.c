/* The settings: one table a section. */
#include "config_internal.h"

#include <stddef.h>
#include <string.h>

/* The longest text: a path. */
#define PATH_OCTETS 4095
/* CKA_LABEL has no limit of its own; a token's label has 32, and so have the tools. */
#define LABEL_OCTETS 64
#define URL_OCTETS   1024

#define NUMBER(section, name, least, most, standard, text)                                         \
    {                                                                                              \
        .key = #name, .kind = SETTING_NUMBER, .offset = offsetof(struct config_##section, name),   \
        .min = (least), .max = (most), .def = #standard, .meaning = (text)                         \
    }
#define CHOICE(section, name, names, standard, text)                                               \
    {                                                                                              \
        .key = #name, .kind = SETTING_CHOICE, .offset = offsetof(struct config_##section, name),   \
        .choices = (names), .choice_count = ARRAY_SIZE(names), .def = (standard),                  \
        .meaning = (text)                                                                          \
    }
#define BOOL(section, name, standard, text)                                                        \
    {                                                                                              \
        .key = #name, .kind = SETTING_BOOL, .offset = offsetof(struct config_##section, name),     \
        .def = (standard), .meaning = (text)                                                       \
    }
/* The rest by name: flags, form, max, def or sample. */
#define TEXT(section, name, ...)                                                                   \
    {                                                                                              \
        .key = #name, .kind = SETTING_TEXT, .offset = offsetof(struct config_##section, name),     \
        .min = 1, __VA_ARGS__                                                                      \
    }
#define SECTION(name, is_required, text)                                                           \
    {                                                                                              \
        .key = #name, .kind = SETTING_SECTION, .flags = (is_required),                             \
        .offset = offsetof(struct config, name), .fields = name##_settings,                        \
        .size = sizeof(struct config_##name), .meaning = (text)                                    \
    }
/* A section in a section, which may be left out; what the sample shows of it is one line. */
#define PART(section, name, example, text)                                                         \
    {                                                                                              \
        .key = #name, .kind = SETTING_SECTION, .flags = SETTING_OFF,                               \
        .offset = offsetof(struct config_##section, name), .fields = name##_settings,              \
        .size = sizeof(struct config_##name), .sample = (example), .meaning = (text)               \
    }
#define END                                                                                        \
    {                                                                                              \
        .key = NULL                                                                                \
    }

const cyaml_strval_t schema_bools[SCHEMA_BOOL_COUNT] = {{"false", 0}, {"true", 1}};

/* Choices are written through a uint32_t, if they are no uint32_t. */
static_assert(sizeof(enum config_release) == sizeof(uint32_t), "choice");
static_assert(sizeof(enum config_refusal) == sizeof(uint32_t), "choice");
static_assert(sizeof(enum log_format) == sizeof(uint32_t), "choice");
static_assert(sizeof(enum log_level) == sizeof(uint32_t), "choice");

static const cyaml_strval_t releases[] = {
    {"signed", CONFIG_RELEASE_SIGNED},
    {"durable", CONFIG_RELEASE_DURABLE},
};
static const cyaml_strval_t refusals[] = {
    {"200", CONFIG_REFUSAL_200},
    {"mapped", CONFIG_REFUSAL_MAPPED},
};
static const cyaml_strval_t log_formats[] = {{"logfmt", LOG_LOGFMT}, {"json", LOG_JSON}};
static const cyaml_strval_t log_levels[] = {
    {"error", LOG_ERROR},
    {"warn", LOG_WARN},
    {"info", LOG_INFO},
    {"debug", LOG_DEBUG},
};

static const struct setting listen_settings[] = {
    TEXT(listen, address, .max = 45, .form = FORM_ADDRESS, .flags = SETTING_REQUIRED,
         .sample = "127.0.0.1",
         .meaning = "Numeric IPv4 or IPv6 address; 0.0.0.0 or \"::\" for all of the host."),
    NUMBER(listen, port, 1, 65535, 8443, "TCP port."),
    END,
};

static const struct setting tls_settings[] = {
    TEXT(tls, certificate, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_REQUIRED,
         .sample = "pki/tekd.crt",
         .meaning = "PEM file: tekd's certificate, then the chain up to the CA that BSAs trust."),
    TEXT(tls, key, .max = PATH_OCTETS, .form = FORM_KEY, .flags = SETTING_REQUIRED | SETTING_QUIET,
         .sample = "pkcs11:object=tekd-tls",
         .meaning = "Its private key: a URI (RFC 7512) of an EC P-256 or P-384 key in the HSM that "
                    "signs nothing else, or the path of a PEM file with mode 0600."),
    TEXT(tls, client_ca, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_REQUIRED,
         .sample = "pki/ca.crt",
         .meaning = "PEM file: the CAs whose client certificates are looked at. Which BSA a "
                    "certificate is, and whether any, is decided by enrolment."),
    TEXT(tls, crl, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_OFF,
         .sample = "pki/ca.crl",
         .meaning = "PEM file: revocation lists of these CAs. Once set, every CA needs one that "
                    "is not expired, else its clients are refused and /readyz says so."),
    END,
};

static const struct setting hsm_settings[] = {
    TEXT(hsm, program, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_OFF,
         .sample = "/usr/sbin/tekd-hsm",
         .meaning = "The tekd-hsm to start; without it the one installed with tekd."),
    TEXT(hsm, module, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_REQUIRED,
         .sample = "/usr/lib/softhsm/libsofthsm2.so",
         .meaning = "The PKCS#11 library of the HSM's vendor."),
    {.key = "env",
     .kind = SETTING_ENV,
     .offset = offsetof(struct config_hsm, env),
     .sample = "{SOFTHSM2_CONF: softhsm2.conf}",
     .meaning = "Variables for the module's environment, at most 32, NAME: value. A value that "
                "names something in the folder of this file is made an absolute path."},
    TEXT(hsm, token, .max = 1024, .form = FORM_TOKEN, .flags = SETTING_REQUIRED | SETTING_QUIET,
         .sample = "pkcs11:token=tekd",
         .meaning = "The token: a URI (RFC 7512) by label (token=) or serial number (serial=), "
                    "never by slot number, for these change."),
    TEXT(hsm, pin_file, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_QUIET,
         .sample = "hsm.pin",
         .meaning = "Where the PIN is found: exactly one of the next four. A file with mode 0600 "
                    "that holds the PIN and nothing else."),
    TEXT(hsm, pin_credential, .max = 255, .form = FORM_NAME, .flags = SETTING_QUIET | SETTING_OFF,
         .sample = "hsm-pin",
         .meaning = "... or the name of a systemd credential (LoadCredentialEncrypted=)."),
    {.key = "pin_fd",
     .kind = SETTING_NUMBER,
     .flags = SETTING_QUIET | SETTING_OFF,
     .offset = offsetof(struct config_hsm, pin_fd),
     .min = 3,
     .max = 1023,
     .sample = "3",
     .meaning = "... or the number of an inherited file descriptor, read to its end."},
    {.key = "pin_prompt",
     .kind = SETTING_BOOL,
     .flags = SETTING_QUIET | SETTING_OFF,
     .offset = offsetof(struct config_hsm, pin_prompt),
     .def = "false",
     .sample = "true",
     .meaning = "... or ask on the terminal at the start."},
    TEXT(hsm, profile, .max = 32, .form = FORM_NAME, .def = "softhsm",
         .meaning = "What the HSM is known to do and not to do: softhsm, luna, nshield, cloudhsm, "
                    "opencryptoki or generic; docs/provisioning.md describes them. Only softhsm "
                    "was ever run."),
    NUMBER(hsm, workers, 1, 32, 2,
           "Worker processes for keys, a session each. One more signs checkpoints, and one "
           "signs TLS handshakes if tls.key is in the HSM."),
    NUMBER(hsm, timeout_ms, 50, 60000, 2000,
           "A key worker that takes longer over a request is killed and started again."),
    NUMBER(hsm, tls_timeout_ms, 50, 60000, 2000,
           "A TLS worker that takes longer over a signature is killed and started again; the "
           "handshake is given as much time once more, for the new one, but 10 s in all at most: "
           "above 5000 less is left for that. Needed if tls.key is in the HSM."),
    NUMBER(hsm, recycle_after, 0, 10000000, 100000,
           "Operations after which a worker is replaced by a fresh one, for vendors' modules leak; "
           "0: never."),
    NUMBER(hsm, keepalive_s, 1, 3600, 30,
           "An idle worker makes a key and destroys it this often, to see that the HSM is well and "
           "to keep links alive that get cut when idle."),
    TEXT(hsm, storage_kek, .max = LABEL_OCTETS, .def = "tekd-storage",
         .meaning = "CKA_LABEL of the KEK under which TEKs are stored."),
    TEXT(hsm, checkpoint_key, .max = LABEL_OCTETS, .def = "tekd-checkpoint",
         .meaning = "CKA_LABEL of the EC P-256 key that signs the audit log's checkpoints."),
    TEXT(hsm, checkpoint_ed25519_key, .max = LABEL_OCTETS, .flags = SETTING_OFF,
         .sample = "tekd-checkpoint-ed25519",
         .meaning = "CKA_LABEL of an Ed25519 key that signs them too, a second signature line in "
                    "each. The HSM must have CKM_EDDSA."),
    TEXT(hsm, checkpoint_key_before, .max = LABEL_OCTETS, .flags = SETTING_OFF,
         .sample = "tekd-checkpoint-2026",
         .meaning = "CKA_LABEL of the key that signed until now, when checkpoint_key is its "
                    "successor. Both sign as long as this is set."),
    TEXT(hsm, checkpoint_ed25519_key_before, .max = LABEL_OCTETS, .flags = SETTING_OFF,
         .sample = "tekd-checkpoint-ed25519-2026",
         .meaning = "The same of checkpoint_ed25519_key."),
    END,
};

static const struct setting store_settings[] = {
    TEXT(store, sqlite, .max = PATH_OCTETS, .form = FORM_PATH,
         .flags = SETTING_REQUIRED | SETTING_WRITTEN, .sample = "tekd.db",
         .meaning = "The SQLite database, made at the first start. On a local file system; only "
                    "tekd opens it."),
    END,
};

/* Codes of RFC 5424 section 6.2.1. */
static const cyaml_strval_t facilities[] = {
    {"authpriv", 10}, {"auth", 4},    {"daemon", 3},  {"local0", 16},
    {"local1", 17},   {"local2", 18}, {"local3", 19}, {"local4", 20},
    {"local5", 21},   {"local6", 22}, {"local7", 23},
};

static const struct setting syslog_settings[] = {
    TEXT(syslog, socket, .max = PATH_OCTETS, .form = FORM_SOCKET, .flags = SETTING_REQUIRED,
         .sample = "/dev/log", .meaning = "The datagram socket of the syslog daemon."),
    CHOICE(syslog, facility, facilities, "authpriv", "Under which they are sent."),
    END,
};

static const struct setting timestamp_settings[] = {
    TEXT(timestamp, url, .max = URL_OCTETS, .form = FORM_WEB,
         .flags = SETTING_REQUIRED | SETTING_QUIET, .sample = "https://tsa.example.net/tsr",
         .meaning = "Of the authority; http:// will do, for its answers are signed."),
    TEXT(timestamp, tsa_ca, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_REQUIRED,
         .sample = "pki/tsa-ca.crt",
         .meaning = "PEM file: the CA of the authority's own certificate."),
    TEXT(timestamp, tls_ca, .max = PATH_OCTETS, .form = FORM_PATH, .sample = "pki/web-ca.crt",
         .meaning = "PEM file: the CA of the web server's certificate; without it those that the "
                    "system trusts."),
    END,
};

static const struct setting witness_settings[] = {
    TEXT(witness, url, .max = URL_OCTETS, .form = FORM_WEB,
         .flags = SETTING_REQUIRED | SETTING_QUIET, .sample = "https://witness.example.net/w1",
         .meaning = "Of the witness, without /add-checkpoint; http:// will do, for its answers are "
                    "signed."),
    TEXT(witness, key, .max = PATH_OCTETS, .form = FORM_WITNESS, .flags = SETTING_REQUIRED,
         .sample = "pki/witness.vkey",
         .meaning =
             "Its verifier key for cosignatures, NAME+HASH+BASE64, or the path, without '+', "
             "of a file that holds it."),
    TEXT(witness, tls_ca, .max = PATH_OCTETS, .form = FORM_PATH, .sample = "pki/web-ca.crt",
         .meaning = "PEM file: the CA of the web server's certificate; without it those that the "
                    "system trusts."),
    TEXT(witness, certificate, .max = PATH_OCTETS, .form = FORM_PATH,
         .sample = "pki/tekd-client.crt",
         .meaning = "PEM file: tekd's certificate and its chain, where the web server wants one."),
    TEXT(witness, private_key, .max = PATH_OCTETS, .form = FORM_PATH, .flags = SETTING_QUIET,
         .sample = "pki/tekd-client.key", .meaning = "PEM file with mode 0600: its private key."),
    END,
};

static const struct setting audit_settings[] = {
    CHOICE(audit, release, releases, "signed",
           "When a key may leave. signed: when the signed checkpoint over its audit record is "
           "committed. durable, for slow HSMs: when the record is; the signature follows."),
    TEXT(audit, anchor_file, .max = PATH_OCTETS, .form = FORM_PATH,
         .flags = SETTING_OFF | SETTING_WRITTEN, .sample = "anchor/checkpoint",
         .meaning = "The newest checkpoint is written here, best on another volume: a restored "
                    "or truncated database is found out by it at the next start."),
    NUMBER(audit, anchor_interval_s, 1, 3600, 60,
           "How often, in seconds; and how often to what follows."),
    PART(audit, syslog, "{socket: /dev/log, facility: authpriv}",
         "The newest checkpoint is sent to syslog, which may pass it on to another host."),
    PART(audit, timestamp, "{url: \"https://tsa.example.net/tsr\", tsa_ca: pki/tsa-ca.crt}",
         "A time-stamping authority (RFC 3161) signs when there was which checkpoint. What it "
         "answers is kept, and exported with the log."),
    PART(audit, witness, "{url: \"https://witness.example.net/w1\", key: pki/witness.vkey}",
         "A witness (C2SP tlog-witness) cosigns each checkpoint that extends all it has seen. "
         "What it answers is kept, and exported with the log."),
    TEXT(audit, published_dir, .max = PATH_OCTETS, .form = FORM_PATH,
         .flags = SETTING_OFF | SETTING_WRITTEN, .sample = "anchor/published",
         .meaning = "Where such answers are kept, best on the anchor file's volume; without it the "
                    "name of the anchor file, or of the database, with \".published\" behind."),
    NUMBER(audit, checkpoint_max_delay_ms, 10, 60000, 1000,
           "release: durable: a record is under a signed checkpoint after this time; keys are "
           "refused when the newest checkpoint is ten times older than that."),
    NUMBER(audit, heartbeat_s, 1, 3600, 300,
           "A quiet log gets a record and a checkpoint this often, so that silence shows."),
    NUMBER(audit, epoch_records, 1000, 4294967295, 10000000,
           "The log goes on in a new epoch, a tree of its own, when it has so many records, with "
           "every new calendar year (UTC), and by \"tekctl audit close-epoch\"."),
    TEXT(audit, instance, .max = 64, .form = FORM_NAME, .flags = SETTING_OFF, .sample = "tekd-a",
         .meaning = "Name of this server in its audit records; without it the host's name."),
    END,
};

static const struct setting policy_settings[] = {
    BOOL(policy, auto_content, "false",
         "true: the first request of a BSA that is entitled to a ContentID makes the content. "
         "false: contents are made by \"tekctl content add\"."),
    NUMBER(policy, message_window_s, 60, 315360000, 604800,
           "For this long a Message ID never gets a second key; an older one may be forgotten. "
           "Seconds, 7 days by default."),
    CHOICE(policy, refusal_http, refusals, "200",
           "HTTP status of a Key Request that is refused: 200, or mapped: 404, 403, 409, 410, "
           "421, 422 by reason. The CP-3 message in the body is the same."),
    END,
};

static const struct setting limits_settings[] = {
    NUMBER(limits, connections, 1, 65536, 1024, "Connections open at once."),
    NUMBER(limits, http_threads, 1, 16, 1, "Threads that read and write HTTP."),
    NUMBER(limits, request_threads, 2, 512, 128,
           "Threads that work on requests: two for each HSM worker, but at most half of them, wait "
           "for "
           "the HSM."),
    NUMBER(limits, queue, 1, 65536, 1024,
           "Requests that may wait for such a thread; more get 503 at once."),
    NUMBER(limits, per_bsa_concurrency, 1, 65536, 64, "Requests of one BSA under way at once."),
    NUMBER(limits, per_bsa_auto_contents, 1, 100000000, 100000,
           "Contents that one BSA may have made by policy.auto_content."),
    NUMBER(limits, request_deadline_ms, 100, 60000, 4000,
           "From the end of a request to its answer, queue, HSM and database included; then 503."),
    NUMBER(limits, request_timeout_ms, 100, 60000, 10000,
           "Reading one request, waiting for the next one, and the client's taking the answer."),
    {.key = "free_warn_mb",
     .kind = SETTING_NUMBER,
     .flags = SETTING_OFF,
     .offset = offsetof(struct config_limits, free_warn_mb),
     .min = 1,
     .max = 100000000,
     .sample = "2048",
     .meaning = "Alarm when the database's volume has less free megabytes. Without it: less than "
                "2048, or less than a tenth of the volume if that is more."},
    NUMBER(limits, free_stop_mb, 1, 100000000, 512,
           "Keys are refused below this; confirmations are still taken."),
    END,
};

static const struct setting push_settings[] = {
    NUMBER(push, retry_initial_s, 1, 3600, 1,
           "Pause before an unconfirmed delivery is sent again; it doubles each time."),
    NUMBER(push, retry_max_s, 1, 86400, 60, "The longest such pause."),
    NUMBER(push, attempt_timeout_s, 1, 300, 10, "One attempt, connection included."),
    NUMBER(push, deadline_s, 1, 31536000, 3600,
           "A delivery not confirmed by then is unconfirmed; a confirmation that comes later "
           "still counts. The end of the TEK's period may come first."),
    END,
};

static const struct setting admin_settings[] = {
    TEXT(admin, socket, .max = PATH_OCTETS, .form = FORM_SOCKET, .def = "tekd.sock",
         .flags = SETTING_WRITTEN,
         .meaning = "Unix socket of tekctl; at most 107 octets as an absolute path."),
    TEXT(admin, group, .max = 32, .form = FORM_NAME, .flags = SETTING_OFF, .sample = "tekd",
         .meaning = "Group that may do everything on it; without it only tekd's user and root."),
    TEXT(admin, readonly_group, .max = 32, .form = FORM_NAME, .flags = SETTING_OFF,
         .sample = "tekd-read", .meaning = "Group that may look but not change."),
    TEXT(admin, http, .max = 64, .form = FORM_ENDPOINT, .flags = SETTING_OFF,
         .sample = "127.0.0.1:9464",
         .meaning = "ADDRESS:PORT where /healthz and /readyz are served, without TLS and to "
                    "whoever can connect."),
    END,
};

static const struct setting log_settings[] = {
    CHOICE(log, format, log_formats, "logfmt", "Lines of key=value, or JSON objects."),
    CHOICE(log, level, log_levels, "info", "The least important lines that are written."),
    END,
};

const struct setting schema_settings[] = {
    {.key = "bsm_id",
     .kind = SETTING_TEXT,
     .flags = SETTING_REQUIRED,
     .offset = offsetof(struct config, bsm_id),
     .min = 1,
     .max = 255,
     .form = FORM_BSM_ID,
     .sample = "bsm.example.net",
     .meaning = "Who this server is in CP-3 messages: the Destination of requests and the Source "
                "of answers. Names the audit log too; changing it later starts another log."},
    {.key = "listen",
     .kind = SETTING_LIST,
     .flags = SETTING_REQUIRED,
     .offset = offsetof(struct config, listen),
     .count_offset = offsetof(struct config, listen_count),
     .min = 1,
     .max = CONFIG_LISTEN_MAX,
     .fields = listen_settings,
     .size = sizeof(struct config_listen),
     .meaning = "Where BSAs connect (HTTPS, client certificate required)."},
    SECTION(tls, SETTING_REQUIRED, "Certificates. SIGHUP reads the files again."),
    SECTION(hsm, SETTING_REQUIRED, "The HSM, where every key is made and used."),
    SECTION(store, SETTING_REQUIRED, "The database of messages, wrapped keys and audit records."),
    SECTION(audit, 0, "The signed audit log."),
    SECTION(policy, 0, "What is given to whom is operated with tekctl; this is for all."),
    SECTION(limits, 0, "Bounds on what peers can take; over them requests are refused."),
    SECTION(push, 0, "Key deliveries that tekd sends to BSAs."),
    SECTION(admin, 0, "For operators and monitoring."),
    SECTION(log, 0, "The log on standard error (not the audit log)."),
    END,
};

const struct setting *schema_find(const struct setting *table, const char *key, size_t len)
{
    for (const struct setting *s = table; s->key != NULL; s++)
        if (strlen(s->key) == len && memcmp(s->key, key, len) == 0)
            return s;
    return NULL;
}
