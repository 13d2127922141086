#include "hsm_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tekd/auto.h"
#include "tekd/clock.h"
#include "tekd/secret.h"
#include "token/token.h"

/* 00 01 … 1f, as in the vectors of RFC 3394. */
const uint8_t fixture_bsa_kek[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                     11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                     22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

/* ---------------------------------------------------------------- the token -------- */

static int secret_of(const void *octets, size_t len, struct secret **ret_secret)
{
    int r = secret_new(len, ret_secret);

    if (r == 0)
        memcpy(secret_get(*ret_secret), octets, len);
    return r;
}

static int make_key(struct token *t, enum token_kind kind, const char *label)
{
    struct token_key_name name = {.kind = kind, .label = label, .wrap = HSM_WRAP_AES_KW};

    return token_make_key(t, &name);
}

static int make_keys(struct token *t)
{
    struct token_key_name bsa = {
        .kind = TOKEN_BSA_KEK, .label = FIXTURE_BSA, .wrap = HSM_WRAP_AES_KW};
    AUTO(secret) struct secret *value = NULL;
    int r = secret_of(fixture_bsa_kek, sizeof(fixture_bsa_kek), &value);

    if (r == 0)
        r = token_make_import(t, &bsa, value);
    if (r == 0)
        r = make_key(t, TOKEN_STORAGE_KEK, FIXTURE_STORAGE);
    if (r == 0)
        r = make_key(t, TOKEN_BSA_KEK, "bsa-2");
    if (r == 0)
        r = make_key(t, TOKEN_SIGNING_KEY, "checkpoint-1");
    if (r == 0)
        r = make_key(t, TOKEN_SIGNING_ED25519, FIXTURE_ED25519);
    if (r == 0)
        r = make_key(t, TOKEN_SIGNING_ED25519, FIXTURE_ED25519_2);
    if (r == 0)
        r = make_key(t, TOKEN_SIGNING_KEY, "tls-1");
    return r;
}

static int make_token(void)
{
    const struct token_options o = {.module = TEST_SOFTHSM,
                                    .uri = FIXTURE_TOKEN,
                                    .profile = "softhsm",
                                    .access = TOKEN_READ_WRITE};
    AUTO(token) struct token *t = NULL;
    AUTO(secret) struct secret *so = NULL;
    AUTO(secret) struct secret *user = NULL;
    struct token_pins pins;
    int r = token_new(&o, &t);

    if (r == 0)
        r = secret_of("fixture-so-pin", 14, &so);
    if (r == 0)
        r = secret_of(FIXTURE_PIN, strlen(FIXTURE_PIN), &user);
    pins = (struct token_pins){so, user};
    if (r == 0)
        r = token_make_token(t, "tekd-test", &pins);
    if (r == 0)
        r = token_open(t);
    if (r == 0)
        r = token_login(t, user);
    return r < 0 ? r : make_keys(t);
}

static void await_exit(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void provision(const struct fixture *f)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)putenv((char *)(uintptr_t)f->env_conf);
        _exit(make_token() < 0 ? 1 : 0);
    }
    await_exit(pid);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void write_conf(const struct fixture *f)
{
    char path[96];
    char text[256];

    (void)snprintf(path, sizeof(path), "%s/tokens", f->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(text, sizeof(text),
                   "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n",
                   path);
    (void)snprintf(path, sizeof(path), "%s/softhsm2.conf", f->dir);
    write_file(path, text, 0600);
}

void fixture_write_pin(const struct fixture *f, const char *pin)
{
    write_file(f->pin_file, pin, 0600);
}

/* ---------------------------------------------------------------- set-up ----------- */

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/tekd-hsm-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->pin_file, sizeof(f->pin_file), "%s/hsm.pin", f->dir);
    (void)snprintf(f->latch_file, sizeof(f->latch_file), "%s/latch", f->dir);
    (void)snprintf(f->spy_file, sizeof(f->spy_file), "%s/spy", f->dir);
    (void)snprintf(f->env_conf, sizeof(f->env_conf), "SOFTHSM2_CONF=%s/softhsm2.conf", f->dir);
    (void)snprintf(f->env_spy, sizeof(f->env_spy), "PKCS11SPY=%s", TEST_SOFTHSM);
    (void)snprintf(f->env_spy_file, sizeof(f->env_spy_file), "PKCS11SPY_OUTPUT=%s", f->spy_file);
    write_conf(f);
    fixture_write_pin(f, FIXTURE_PIN "\n");
    provision(f);
    f->env[0] = f->env_conf;
    f->options = (struct hsm_options){.program = TEST_TEKD_HSM,
                                      .module = TEST_SOFTHSM,
                                      .env = f->env,
                                      .token = FIXTURE_TOKEN,
                                      .profile = "softhsm",
                                      .pin_source = HSM_PIN_FILE,
                                      .pin = f->pin_file,
                                      .latch_file = f->latch_file,
                                      .workers = 2,
                                      .tls_worker = true,
                                      .checkpoint_key = "checkpoint-1",
                                      .tls_key = "pkcs11:object=tls-1",
                                      .timeout_ms = 2000,
                                      .max_waiting = 64,
                                      .log_level = LOG_ERROR};
    if (getenv("TEST_HSM_LOG") != NULL)
        f->options.log_level = LOG_DEBUG;
    *state = f;
    return 0;
}

static void run(char *const argv[])
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);

        (void)dup2(null, STDOUT_FILENO);
        (void)dup2(null, STDERR_FILENO);
        execvp(argv[0], argv);
        _exit(127);
    }
    await_exit(pid);
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    char *rm[] = {"rm", "-rf", f->dir, NULL};

    hsm_free(f->hsm);
    run(rm);
    free(f);
    return 0;
}

void fixture_pkcs11_tool(const struct fixture *f, ...)
{
    char *argv[32] = {"env",         (char *)(uintptr_t)f->env_conf,
                      "pkcs11-tool", "--module",
                      TEST_SOFTHSM,  "--token-label",
                      "tekd-test",   "--login",
                      "--pin",       FIXTURE_PIN};
    size_t n = 10;
    va_list ap;

    va_start(ap, f);
    do
        argv[n] = va_arg(ap, char *);
    while (argv[n++] != NULL && n < ARRAY_SIZE(argv));
    va_end(ap);
    run(argv);
}

/* ---------------------------------------------------------------- the pool --------- */

int64_t fixture_in(double seconds)
{
    return clock_mono_us() + (int64_t)(seconds * 1e6);
}

void fixture_pause(void)
{
    const struct timespec t = {.tv_nsec = 3000000};

    (void)nanosleep(&t, NULL);
}

enum hsm_state fixture_start_any(struct fixture *f)
{
    struct hsm_status st;

    assert_null(f->hsm);
    assert_int_equal(hsm_new(&f->options, &f->hsm), 0);
    assert_int_equal(hsm_wait(f->hsm, fixture_in(30)), 0);
    hsm_status_get(f->hsm, &st);
    return st.state;
}

static void describe(struct fixture *f, const char *label, enum hsm_kek_use use,
                     struct hsm_kek *ret_kek)
{
    struct hsm_kek_report report;

    assert_int_equal(hsm_describe_kek(f->hsm, label, use, HSM_WRAP_AES_KW, fixture_in(10), &report),
                     0);
    *ret_kek = report.kek;
}

void fixture_start(struct fixture *f)
{
    assert_int_equal(fixture_start_any(f), HSM_READY);
    describe(f, FIXTURE_STORAGE, HSM_KEK_STORAGE, &f->storage);
    describe(f, FIXTURE_BSA, HSM_KEK_BSA, &f->bsa);
}

void fixture_stop(struct fixture *f)
{
    hsm_free(f->hsm);
    f->hsm = NULL;
}

void fixture_spy(struct fixture *f)
{
    f->options.module = TEST_SPY;
    f->env[1] = f->env_spy;
    f->env[2] = f->env_spy_file;
}

void fixture_shim(struct fixture *f, const char *mode)
{
    (void)snprintf(f->env_shim, sizeof(f->env_shim), "SHIM_MODULE=%s", TEST_SOFTHSM);
    (void)snprintf(f->env_shim_mode, sizeof(f->env_shim_mode), "SHIM_MODE=%s", mode);
    f->options.module = TEST_SHIM;
    f->env[1] = f->env_shim;
    f->env[2] = f->env_shim_mode;
}

void fixture_spy_on_shim(struct fixture *f, const char *mode)
{
    fixture_shim(f, mode);
    (void)snprintf(f->env_spy, sizeof(f->env_spy), "PKCS11SPY=%s", TEST_SHIM);
    f->options.module = TEST_SPY;
    f->env[3] = f->env_spy;
    f->env[4] = f->env_spy_file;
}

static unsigned count_lines(const char *path, const char *text)
{
    FILE *file = fopen(path, "re");
    char line[512];
    unsigned n = 0;

    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        n += strstr(line, text) != NULL;
    if (file != NULL)
        (void)fclose(file);
    return n;
}

unsigned fixture_count(const struct fixture *f, const char *call)
{
    return count_lines(f->spy_file, call);
}

bool fixture_file_has(const char *path, const char *text)
{
    return count_lines(path, text) > 0;
}

void fixture_await(struct fixture *f, enum hsm_state state)
{
    int64_t until = fixture_in(30);
    struct hsm_status st;

    do {
        hsm_status_get(f->hsm, &st);
        if (st.state == state)
            return;
        fixture_pause();
    } while (clock_mono_us() < until);
    fail_msg("the state is %d (%s), not %d", st.state, st.reason, state);
}

int fixture_worker(struct fixture *f, size_t i)
{
    int64_t until = fixture_in(30);
    struct hsm_status st;

    do {
        hsm_status_get(f->hsm, &st);
        assert_true(i < st.n_workers);
        if (st.worker[i].pid != 0 && st.worker[i].ready)
            return st.worker[i].pid;
        fixture_pause();
    } while (clock_mono_us() < until);
    fail_msg("worker %zu does not start", i);
    return 0;
}

/* Field `which` (3: state, 4: parent) of /proc/PID/stat; the name in it may hold anything. */
static long stat_field(int pid, int which, char *ret_state)
{
    char path[64];
    char text[512];
    AUTO_FD int fd = -1;
    const char *p;
    ssize_t n;
    int parent = -1;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return -1;
    text[n] = 0;
    p = strrchr(text, ')');
    if (p == NULL || sscanf(p + 1, " %c %d", ret_state, &parent) != 2)
        return -1;
    return which == 4 ? parent : 0;
}

int fixture_parent(struct fixture *f)
{
    char state;
    long parent = stat_field(fixture_worker(f, 0), 4, &state);

    assert_true(parent > 1);
    return (int)parent;
}

bool fixture_alive(int pid)
{
    char state = 'X';

    return stat_field(pid, 3, &state) == 0 && state != 'Z' && state != 'X';
}

void fixture_await_gone(int pid)
{
    int64_t until = fixture_in(30);

    while (fixture_alive(pid)) {
        if (clock_mono_us() > until)
            fail_msg("process %d still runs", pid);
        fixture_pause();
    }
}

size_t fixture_unwrap(const uint8_t kek[static 32], const struct hsm_blob *blob, uint8_t out[64])
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int len = 0;

    assert_non_null(ctx);
    assert_in_range(blob->len, 24, 40);
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_wrap(), NULL, kek, NULL), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, out, &len, blob->octets, blob->len), 1);
    EVP_CIPHER_CTX_free(ctx);
    assert_int_equal(len, blob->len - 8);
    return (size_t)len;
}
