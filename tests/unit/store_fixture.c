#include "store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tekd/log.h"

/* ---- the store ------------------------------------------------------------------------------- */

static int log_fd = -1; /* what the store wrote, for fixture_logged() */

static void on_fatal(void *arg, int error)
{
    struct fixture *f = arg;

    pthread_mutex_lock(&f->lock);
    f->fatal = error;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/tekd-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/tekd.db", f->dir);
    (void)snprintf(f->anchor, sizeof(f->anchor), "%s/anchor", f->dir);
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_cond_init(&f->changed, NULL);
    f->signer = store_signer_new();
    f->o = (struct store_options){.path = f->path,
                                  .bsm_id = "bsm.example",
                                  .instance = "tekd-a",
                                  .version = "1.2.3",
                                  .checkpoint_max_delay_ms = 1000,
                                  .heartbeat_s = 300,
                                  .anchor_interval_s = 60,
                                  .message_window_us = INT64_C(604800) * 1000000,
                                  .signer = store_signer_of(f->signer),
                                  .fatal = on_fatal,
                                  .fatal_arg = f};
    log_fd = memfd_create("log", MFD_CLOEXEC);
    assert_true(log_fd >= 0);
    log_open(log_fd, LOG_LOGFMT, LOG_INFO);
    fake_clock_advance(2000000); /* or the log holds back what earlier tests had too much of */
    *state = f;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    store_signer_release(f->signer);
    store_close(f->store);
    store_signer_free(f->signer);
    (void)nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    (void)pthread_cond_destroy(&f->changed);
    (void)pthread_mutex_destroy(&f->lock);
    free(f);
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_INFO);
    (void)close(log_fd);
    return 0;
}

void fixture_open(struct fixture *f)
{
    assert_null(f->store);
    f->fatal = 0;
    assert_int_equal(store_open(&f->o, &f->store), 0);
}

void fixture_close(struct fixture *f)
{
    store_close(f->store);
    f->store = NULL;
}

int fixture_try_open(struct fixture *f)
{
    struct store *s = NULL;
    int r = store_open(&f->o, &s);

    if (r == 0)
        store_close(s);
    return r;
}

static int nothing(void *arg, struct store_tx *tx)
{
    (void)arg;
    (void)tx;
    return 0;
}

void fixture_turn(struct fixture *f)
{
    /* The first may be answered before the store looks at its timers, the second is not. */
    for (int i = 0; i < 2; i++)
        assert_int_equal(store_call(f->store, STORE_READ, nothing, NULL), 0);
}

void fixture_wait_signed(struct fixture *f)
{
    struct store_status st;

    do
        store_status_get(f->store, &st);
    while (st.signed_size < st.records);
}

uint64_t fixture_epoch(struct fixture *f)
{
    struct store_status st;

    store_status_get(f->store, &st);
    return st.epoch;
}

void fixture_wait_epoch(struct fixture *f, uint64_t epoch)
{
    while (fixture_epoch(f) < epoch)
        fixture_turn(f);
}

void fixture_close_epoch(struct fixture *f)
{
    uint64_t epoch = fixture_epoch(f);

    store_close_epoch(f->store, epoch);
    fixture_wait_epoch(f, epoch + 1);
}

bool fixture_spki_is_of(const struct hsm_spki *spki, EVP_PKEY *key)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    bool same = len == spki->len && memcmp(der, spki->der, spki->len) == 0;

    OPENSSL_free(der);
    return same;
}

bool fixture_key_is_taken(struct fixture *f, enum store_key kind)
{
    struct hsm_spki spki = {0};

    return store_public_key(f->store, kind, &spki) == 0 &&
           fixture_spki_is_of(&spki, store_signer_key(f->signer, kind));
}

size_t fixture_retired(struct fixture *f)
{
    struct hsm_spki spki = {0};
    size_t n = 0;

    while (store_retired_key(f->store, n, &spki) == 0)
        n++;
    return n;
}

int fixture_wait_fatal(struct fixture *f)
{
    int r;

    pthread_mutex_lock(&f->lock);
    while (f->fatal == 0)
        pthread_cond_wait(&f->changed, &f->lock);
    r = f->fatal;
    pthread_mutex_unlock(&f->lock);
    return r;
}

void fixture_crash(struct fixture *f, void (*child)(struct fixture *f))
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        child(f);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

sqlite3 *fixture_sqlite(struct fixture *f)
{
    sqlite3 *db = NULL;

    assert_int_equal(
        sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"),
        SQLITE_OK);
    return db;
}

void fixture_sql(struct fixture *f, const char *sql)
{
    sqlite3 *db;
    char *what = NULL;

    db = fixture_sqlite(f);
    if (sqlite3_exec(db, sql, NULL, NULL, &what) != SQLITE_OK)
        fail_msg("%s: %s", sql, what);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

void fixture_copy(const char *from, const char *to)
{
    char octets[4096];
    AUTO_FD int in = open(from, O_RDONLY | O_CLOEXEC);
    AUTO_FD int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n;

    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, octets, sizeof(octets))) > 0)
        assert_int_equal(write(out, octets, (size_t)n), n);
    assert_int_equal(n, 0);
}

char *fixture_log(void)
{
    static char text[1 << 20];
    ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

    assert_true(n >= 0);
    text[n] = '\0';
    return text;
}

bool fixture_logged(const char *a, const char *b)
{
    char *text = fixture_log();
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (strstr(line, a) != NULL && strstr(line, b) != NULL)
            return true;
    }
    return false;
}

/* ---- items ----------------------------------------------------------------------------------- */

static int add_record(struct probe *p, struct store_tx *tx, unsigned i)
{
    struct record *r = NULL;
    char detail[32];
    int error = record_new("config.changed", &r);

    if (error < 0)
        return error;
    (void)snprintf(detail, sizeof(detail), "%.20s %u", p->name != NULL ? p->name : "", i);
    record_str(r, "actor", "test");
    record_str(r, "detail", detail);
    return store_tx_record(tx, r, i == 0 ? &p->seq : NULL);
}

static int probe_apply(struct store_item *item, struct store_tx *tx)
{
    struct probe *p = (struct probe *)item;
    int r = 0;

    p->applied = true;
    if (p->name != NULL) {
        struct store_content c = {.bits = 128};

        (void)snprintf(c.id, sizeof(c.id), "%s", p->name);
        r = store_tx_content_insert(tx, &c);
    }
    for (unsigned i = 0; i < p->records && r == 0; i++)
        r = add_record(p, tx, i);
    if (p->wait_for >= 0)
        store_tx_wait_for(tx, store_place_unpack(p->wait_for));
    return r < 0 ? r : p->fail;
}

static void probe_finish(struct store_item *item, int result)
{
    struct probe *p = (struct probe *)item;

    pthread_mutex_lock(&p->lock);
    assert_false(p->is_done);
    p->is_done = true;
    p->result = result;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

void probe_init(struct probe *p, enum store_wait wait, const char *name, unsigned records)
{
    *p = (struct probe){.item = {.apply = probe_apply, .done = probe_finish, .wait = wait},
                        .name = name,
                        .records = records,
                        .wait_for = -1};
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->changed, NULL);
}

void probe_submit(struct fixture *f, struct probe *p)
{
    assert_int_equal(store_submit(f->store, &p->item), 0);
}

int probe_wait(struct probe *p)
{
    int r;

    pthread_mutex_lock(&p->lock);
    while (!p->is_done)
        pthread_cond_wait(&p->changed, &p->lock);
    r = p->result;
    pthread_mutex_unlock(&p->lock);
    return r;
}

bool probe_done(struct probe *p)
{
    bool is_done;

    pthread_mutex_lock(&p->lock);
    is_done = p->is_done;
    pthread_mutex_unlock(&p->lock);
    return is_done;
}

int probe_run(struct fixture *f, enum store_wait wait, const char *name, unsigned records)
{
    struct probe p;

    probe_init(&p, wait, name, records);
    probe_submit(f, &p);
    return probe_wait(&p);
}

/* ---- reading --------------------------------------------------------------------------------- */

static int find_content(void *arg, struct store_tx *tx)
{
    struct store_content c;

    return store_tx_content_find(tx, arg, strlen(arg), &c);
}

bool fixture_has(struct fixture *f, const char *name)
{
    int r = store_call(f->store, STORE_READ, find_content, (void *)(uintptr_t)name);

    assert_true(r == 0 || r == TEKD_ENOTFOUND);
    return r == 0;
}

struct log_check fixture_check_log(struct fixture *f, const char *event)
{
    return store_check_log(&(struct store_check){f->store, f->signer, f->o.bsm_id}, event);
}

struct log_check fixture_check_epoch(struct fixture *f, uint64_t epoch, const char *event)
{
    return store_check_epoch(&(struct store_check){f->store, f->signer, f->o.bsm_id}, epoch, event);
}
