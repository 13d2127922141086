/*
 * The parts of tekd as server/watch.c, probe.c and reload.c see them: what each says is what a test
 * put here, and what was asked of it is kept.
 */
#ifndef TEST_SERVER_PARTS_H
#define TEST_SERVER_PARTS_H

#include "tekd.h"

#define PARTS_RECORDS_MAX 8

struct parts {
    struct hsm_status hsm;
    struct keys_status keys;
    struct http_status http;
    int store_ready;
    const char *store_reason;
    int bind_result;
    int reload_result;  /* of http_reload() */
    int read_result;    /* of push_read_files() */
    int tls_key_result; /* of setup_tls_key_fits() */
    bool tls_key_fits;
    unsigned tls_key_looks;
    unsigned binds, ticks, http_reloads, push_uses, push_drops;
    struct record *record[PARTS_RECORDS_MAX]; /* keys_note() */
    size_t n_records;
    int log_fd; /* what was logged */
};

extern struct parts parts;

/* All is well: HSM ready, KEKs bound, store ready, nothing expires. */
void parts_reset(void);
/* Frees the records, ends the log. */
void parts_end(void);
/* Whether the log so far has this text; each line has level, area and event. */
bool parts_logged(const char *text);

#endif
