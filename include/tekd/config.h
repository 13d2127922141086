/*
 * The configuration: one YAML file, read once at the start into one struct.
 *
 * What is there is one table of settings (server/config/schema.c): key, type, range, default and
 * meaning.  The reader, its messages and the annotated sample (docs/tekd.yaml.sample) come from
 * it.  A file that has an unknown or repeated key, lacks one, or holds a value of the wrong type
 * or out of range is refused as a whole, with one message that names the place and what is
 * expected:
 *
 *     /etc/tekd/tekd.yaml:12:16: limits.connections: expected 1..65536, found 0
 *
 * Secrets never stand in the file, only where they are found.  Relative paths are relative to the
 * folder of the file and are absolute in the struct.  What is not in the file has its default in
 * the struct; a string without one is NULL.
 *
 * Thread rule: config_load() by one thread at a time; the struct never changes afterwards, so
 * everybody may read it.
 */
#ifndef TEKD_CONFIG_H
#define TEKD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tekd/auto.h"
#include "tekd/log.h"

/* Room for every setting with pages of comment; bounds what the YAML parser has to hold. */
#define CONFIG_FILE_MAX 262144
/* Sockets to accept on: a few addresses of one host. */
#define CONFIG_LISTEN_MAX 16
/* Variables a PKCS#11 module wants: vendors need one to five. */
#define CONFIG_ENV_MAX 32
/* A message: a path of PATH_MAX would drown it, so what was found is cut long before. */
#define CONFIG_ERROR_MAX 1024

struct config_listen {
    char *address; /* IPv4 or IPv6, numeric */
    uint32_t port;
};

struct config_tls {
    char *certificate; /* PEM: ours first, then the chain */
    char *key;         /* path of a PEM file, or an RFC 7512 URI "pkcs11:..." */
    bool key_in_hsm;   /* key is a URI */
    char *client_ca;   /* PEM: who may sign clients' certificates */
    char *crl;         /* PEM, or NULL: nothing is revoked by CRL */
};

/* Where the PIN comes from; exactly one. */
enum config_pin {
    CONFIG_PIN_FILE,       /* pin_file: mode 0600 */
    CONFIG_PIN_CREDENTIAL, /* pin_credential: a name in $CREDENTIALS_DIRECTORY (systemd) */
    CONFIG_PIN_FD,         /* pin_fd: an inherited descriptor, read to its end */
    CONFIG_PIN_PROMPT,     /* asked for on the terminal */
};

struct config_env {
    char *name;
    char *value; /* absolute, where the file has the relative path of something that exists */
};

struct config_hsm {
    char *program;          /* the tekd-hsm to start; NULL: the one installed with tekd */
    char *module;           /* the PKCS#11 library */
    struct config_env *env; /* what the module gets into its environment */
    size_t env_count;       /* 0..CONFIG_ENV_MAX */
    char *token;            /* RFC 7512 URI; carries no PIN and no slot number */
    enum config_pin pin;
    char *pin_file;
    char *pin_credential;
    uint32_t pin_fd;
    bool pin_prompt;
    char *profile; /* name of a vendor profile; the HSM side knows which there are */
    uint32_t workers;
    uint32_t timeout_ms;          /* of one call */
    uint32_t tls_timeout_ms;      /* of a handshake signature */
    uint32_t recycle_after;       /* operations of a worker before a fresh one; 0: never */
    uint32_t keepalive_s;         /* an idle worker is given something to do this often */
    char *storage_kek;            /* CKA_LABEL of the KEK of stored TEKs */
    char *checkpoint_key;         /* CKA_LABEL of the key that signs checkpoints */
    char *checkpoint_ed25519_key; /* ... and of one that signs them too; NULL: none */
    char *checkpoint_key_before; /* that these two have replaced, and that still sign; NULL: none */
    char *checkpoint_ed25519_key_before;
};

struct config_store {
    char *sqlite; /* path of the database */
};

enum config_release {
    CONFIG_RELEASE_SIGNED,  /* a key leaves when the checkpoint over its record is committed */
    CONFIG_RELEASE_DURABLE, /* ... when its record is; the signature follows */
};

/* Where checkpoints are published besides the anchor file; each only if its first text is there. */
struct config_syslog {
    char *socket;      /* path of the daemon's; NULL: not published there */
    uint32_t facility; /* code of RFC 5424 section 6.2.1 */
};

struct config_timestamp {
    char *url;    /* of a TSA (RFC 3161), http:// or https://; NULL: none is asked */
    char *tsa_ca; /* PEM: who signs the TSA's certificate */
    char *tls_ca; /* PEM: who signs the server's; NULL: those that the system trusts */
};

struct config_witness {
    char *url;         /* of a witness (C2SP tlog-witness); NULL: none is asked */
    char *key;         /* its verifier key, or the path of a file that holds it */
    char *tls_ca;      /* PEM: who signs the server's; NULL: those that the system trusts */
    char *certificate; /* PEM: ours, where the server wants to know; NULL: none */
    char *private_key; /* PEM, of it */
};

struct config_audit {
    enum config_release release;
    char *anchor_file; /* newest checkpoint, on another volume; NULL: none */
    uint32_t anchor_interval_s;
    struct config_syslog syslog;
    struct config_timestamp timestamp;
    struct config_witness witness;
    char *published_dir; /* what was got back; default beside anchor file or database */
    uint32_t checkpoint_max_delay_ms;
    uint32_t heartbeat_s;
    uint32_t epoch_records; /* an epoch of the log is closed when it has so many */
    char *instance;         /* "inst" of the records; default: the host name */
};

enum config_refusal {
    CONFIG_REFUSAL_200,    /* a refused Key Request has HTTP status 200 */
    CONFIG_REFUSAL_MAPPED, /* ... 404, 403, 409 and so on */
};

struct config_policy {
    bool auto_content; /* an entitled BSA's first request makes the content */
    uint32_t message_window_s;
    enum config_refusal refusal_http;
};

/*
 * Without limits.free_warn_mb: this much, or this part of the volume if that is more.  Early is
 * right for an alarm: a tenth of a large volume takes longer to fill than anybody is away, and two
 * gigabytes of a small one still are four times what keys are refused at.
 */
#define CONFIG_FREE_WARN_MB      2048
#define CONFIG_FREE_WARN_PERCENT 10

struct config_limits {
    uint32_t connections;
    uint32_t http_threads;          /* event loops */
    uint32_t request_threads;       /* threads that may wait for the HSM */
    uint32_t queue;                 /* requests that may wait for a thread */
    uint32_t per_bsa_concurrency;   /* requests of one BSA under way */
    uint32_t per_bsa_auto_contents; /* contents one BSA may have made by policy.auto_content */
    uint32_t request_deadline_ms;   /* from the last octet of a request to its answer */
    uint32_t request_timeout_ms;    /* reading a request, idle between two, the answer */
    uint32_t free_warn_mb; /* alarm below this free space on the store's volume; 0: above */
    uint32_t free_stop_mb; /* keys are refused below this */
};

struct config_push {
    uint32_t retry_initial_s;
    uint32_t retry_max_s;
    uint32_t attempt_timeout_s;
    uint32_t deadline_s;
};

struct config_admin {
    char *socket;         /* path of the Unix socket */
    char *group;          /* group that may change things; NULL: only tekd's user and root */
    char *readonly_group; /* group that may look; NULL: none */
    char *http;           /* ADDRESS:PORT of /healthz and /readyz; NULL: none */
    char *http_address;   /* the same in its parts */
    uint32_t http_port;
};

struct config_log {
    enum log_format format;
    enum log_level level;
};

struct config {
    char *file;         /* absolute path of the file */
    char *dir;          /* its folder */
    uint8_t sha256[32]; /* of its octets, as they were read */
    char *bsm_id;
    struct config_listen *listen;
    size_t listen_count; /* 1..CONFIG_LISTEN_MAX */
    struct config_tls tls;
    struct config_hsm hsm;
    struct config_store store;
    struct config_audit audit;
    struct config_policy policy;
    struct config_limits limits;
    struct config_push push;
    struct config_admin admin;
    struct config_log log;
};

/* Why a file was refused. */
struct config_error {
    unsigned line;                  /* from 1; 0: not about a place in the file */
    unsigned column;                /* from 1, in characters */
    char message[CONFIG_ERROR_MAX]; /* the whole line for people, FILE:LINE:COLUMN included */
};

/*
 * Reads and checks the file.  The caller owns *ret_config: config_free().  On every failure
 * *ret_error holds one line that says what to change; it never holds the value of a key that
 * could be a secret.  Nothing is opened but the file itself: whether the paths in it lead
 * anywhere is checked by who opens them.
 * Errors: TEKD_EINVAL (contents), TEKD_ENOTFOUND, TEKD_EDENIED, TEKD_EIO (reading),
 * TEKD_ETOOBIG (over CONFIG_FILE_MAX), TEKD_ENOMEM.
 */
int config_load(const char *path, struct config **ret_config, struct config_error *ret_error);
void config_free(struct config *c);
AUTO_DEFINE(config)

/*
 * Writes the annotated sample: every setting with its meaning, type, range and default.  The text
 * is itself a file that config_load() takes.  Errors: TEKD_EIO.
 */
int config_print_sample(FILE *out);

#endif
