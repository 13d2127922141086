#include "server_parts.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tekd/log.h"

struct parts parts;

void parts_reset(void)
{
    parts = (struct parts){.hsm = {.state = HSM_READY, .prevents_wrap_out = true},
                           .keys = {.bound = true},
                           .store_reason = "",
                           .log_fd = memfd_create("log", MFD_CLOEXEC)};
    (void)snprintf(parts.hsm.token_label, sizeof(parts.hsm.token_label), "tekd");
    log_open(parts.log_fd, LOG_LOGFMT, LOG_INFO);
}

void parts_end(void)
{
    for (size_t i = 0; i < parts.n_records; i++)
        record_free(parts.record[i]);
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_INFO);
    (void)close(parts.log_fd);
}

bool parts_logged(const char *text)
{
    char all[65536];
    ssize_t n = pread(parts.log_fd, all, sizeof(all) - 1, 0);

    all[n < 0 ? 0 : n] = '\0';
    return strstr(all, text) != NULL;
}

/* ---- setup.c --------------------------------------------------------------------------------- */

int setup_tls_key_fits(struct tekd *t, bool *ret_fits)
{
    (void)t;
    parts.tls_key_looks++;
    if (parts.tls_key_result == 0)
        *ret_fits = parts.tls_key_fits;
    return parts.tls_key_result;
}

/* ---- the parts ------------------------------------------------------------------------------- */

void hsm_status_get(struct hsm *h, struct hsm_status *ret_status)
{
    (void)h;
    *ret_status = parts.hsm;
}

int store_ready(struct store *s, char reason[static HSM_TEXT_MAX])
{
    (void)s;
    (void)snprintf(reason, HSM_TEXT_MAX, "%s", parts.store_reason);
    return parts.store_ready;
}

void keys_status_get(struct keys *k, struct keys_status *ret_status)
{
    (void)k;
    *ret_status = parts.keys;
}

int keys_bind(struct keys *k, int64_t deadline_us)
{
    (void)k;
    (void)deadline_us;
    parts.binds++;
    return parts.bind_result;
}

void keys_note(struct keys *k, struct record *take_r)
{
    (void)k;
    if (parts.n_records < PARTS_RECORDS_MAX)
        parts.record[parts.n_records++] = take_r;
    else
        record_free(take_r);
}

void keys_tick(struct keys *k)
{
    (void)k;
    parts.ticks++;
}

void http_status_get(struct http *h, struct http_status *ret_status)
{
    (void)h;
    *ret_status = parts.http;
}

int http_reload(struct http *h)
{
    (void)h;
    parts.http_reloads++;
    return parts.reload_result;
}

int push_read_files(struct push *p, struct trust **ret_files)
{
    (void)p;
    if (parts.read_result == 0)
        *ret_files = (struct trust *)&parts;
    return parts.read_result;
}

void push_use_files(struct push *p, struct trust *take_files)
{
    (void)p;
    parts.push_uses += (void *)take_files == &parts;
}

void push_drop_files(struct trust *files)
{
    parts.push_drops += (void *)files == &parts;
}
