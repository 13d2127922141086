#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tekd/err.h"
#include "tekd/log.h"
#include "tekd/secret.h"

/* The linker sends the module's calls here; both still do what they are for. */
int __wrap_mlock(const void *p, size_t len);
int __wrap_munmap(void *p, size_t len);
int __real_munmap(void *p, size_t len);

static int mlock_errno; /* 0: lock */
static bool watching;
static size_t unmapped_octets;
static size_t unmapped_not_zero;

/* Straight to the kernel: under a sanitizer the library's mlock() does nothing. */
int __wrap_mlock(const void *p, size_t len)
{
    if (mlock_errno == 0)
        return (int)syscall(SYS_mlock, p, len);
    errno = mlock_errno;
    return -1;
}

/* The last moment at which the pages can be looked at; the guards cannot be read. */
int __wrap_munmap(void *p, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const uint8_t *octets = p;

    for (size_t i = page; watching && i < len - page; i++) {
        unmapped_octets++;
        unmapped_not_zero += octets[i] != 0;
    }
    return __real_munmap(p, len);
}

static char dir[] = "/tmp/test_secret.XXXXXX";
static char path[sizeof(dir) + 16];

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/test_secret.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(path, sizeof(path), "%s/pin", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

static void write_file(const char *text, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void secret_new__is_zero_and_ended_by_zero(void **state)
{
    static const size_t lens[] = {1, 16, 4095, SECRET_MAX};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
        AUTO(secret) struct secret *s = NULL;
        assert_int_equal(secret_new(lens[i], &s), 0);
        assert_int_equal(secret_len(s), lens[i]);
        assert_ptr_equal(secret_peek(s), secret_get(s));
        for (size_t j = 0; j <= lens[i]; j++)
            assert_int_equal(secret_peek(s)[j], 0);
        memset(secret_get(s), 0xa5, lens[i]);
        assert_int_equal(secret_peek(s)[lens[i]], 0);
    }
}

static void secret_new__refuses_length_zero(void **state)
{
    struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_new(0, &s), TEKD_EINVAL);
    assert_null(s);
}

static void secret_new__refuses_more_than_max(void **state)
{
    struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_new(SECRET_MAX + 1, &s), TEKD_EINVAL);
    assert_int_equal(secret_new(SIZE_MAX, &s), TEKD_EINVAL);
    assert_null(s);
}

/* The VmFlags line of /proc/self/smaps for the mapping that p is in. */
static void vm_flags_of(const void *p, char *out, size_t room)
{
    FILE *f = fopen("/proc/self/smaps", "re");
    bool inside = false;
    char line[512];

    assert_non_null(f);
    out[0] = '\0';
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            (void)snprintf(out, room, "%s", line);
    }
    (void)fclose(f);
}

static void secret_new__is_locked_not_dumped_and_not_inherited(void **state)
{
    static const size_t lens[] = {1, SECRET_MAX};
    char flags[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
        AUTO(secret) struct secret *s = NULL;
        assert_int_equal(secret_new(lens[i], &s), 0);
        vm_flags_of(secret_peek(s), flags, sizeof(flags));
        assert_non_null(strstr(flags, " lo")); /* locked */
        assert_non_null(strstr(flags, " dd")); /* do not dump */
        assert_non_null(strstr(flags, " wf")); /* wipe on fork */
        vm_flags_of(secret_peek(s) + lens[i], flags, sizeof(flags));
        assert_non_null(strstr(flags, " lo"));
    }
    /* The flags are the module's doing, not every page's. */
    vm_flags_of(flags, flags, sizeof(flags));
    assert_null(strstr(flags, " dd"));
}

static void secret_new__is_zero_in_a_forked_child(void **state)
{
    AUTO(secret) struct secret *s = NULL;
    int status;
    pid_t child;

    (void)state;
    assert_int_equal(secret_new(4, &s), 0);
    memcpy(secret_get(s), "1234", 4);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(memcmp(secret_peek(s), "\0\0\0\0", 4) == 0 ? 7 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_memory_equal(secret_peek(s), "1234", 4);
}

/* Writes one octet at p + at in a child and tells which signal ended it. */
static int signal_of_write(uint8_t *p, ptrdiff_t at)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGSEGV, SIG_DFL); /* not a sanitizer's, which would report */
        *(volatile uint8_t *)(p + at) = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void secret_get__is_fenced(void **state)
{
    ptrdiff_t page = sysconf(_SC_PAGESIZE);
    AUTO(secret) struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_new(16, &s), 0);
    assert_int_equal(signal_of_write(secret_get(s), 15), 0);
    assert_int_equal(signal_of_write(secret_get(s), 17), SIGSEGV);
    assert_int_equal(signal_of_write(secret_get(s), -page), SIGSEGV);
}

static void secret_free__wipes_before_the_memory_goes(void **state)
{
    struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_new(SECRET_MAX, &s), 0);
    memset(secret_get(s), 0x5a, SECRET_MAX);
    unmapped_octets = unmapped_not_zero = 0;
    watching = true;
    secret_free(s);
    watching = false;
    assert_true(unmapped_octets > SECRET_MAX);
    assert_int_equal(unmapped_not_zero, 0);
}

static void secret_free__takes_null(void **state)
{
    (void)state;
    secret_free(NULL);
}

static void secret_new__says_what_to_raise_when_memory_cannot_be_locked(void **state)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    char line[LOG_LINE_MAX + 1] = "";
    struct secret *s = NULL;
    int r;

    (void)state;
    assert_true(fd >= 0);
    log_open(fd, LOG_LOGFMT, LOG_INFO);
    mlock_errno = ENOMEM;
    r = secret_new(16, &s);
    mlock_errno = 0;
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_INFO);
    assert_int_equal(r, TEKD_ENOMEM);
    assert_null(s);
    assert_true(pread(fd, line, LOG_LINE_MAX, 0) > 0);
    assert_non_null(strstr(line, " error secret event=memory-not-locked "));
    assert_non_null(strstr(line, "error=ENOMEM"));
    assert_non_null(strstr(line, "RLIMIT_MEMLOCK"));
    assert_int_equal(close(fd), 0);
}

static void secret_dup__is_a_copy_of_its_own(void **state)
{
    AUTO(secret) struct secret *s = NULL;
    AUTO(secret) struct secret *copy = NULL;

    (void)state;
    assert_int_equal(secret_new(3, &s), 0);
    memcpy(secret_get(s), "abc", 3);
    assert_int_equal(secret_dup(s, &copy), 0);
    assert_true(secret_equal(s, copy));
    secret_get(copy)[0] = 'x';
    assert_false(secret_equal(s, copy));
    assert_memory_equal(secret_peek(s), "abc", 3);
}

static void secret_equal__compares_lengths_too(void **state)
{
    AUTO(secret) struct secret *a = NULL;
    AUTO(secret) struct secret *b = NULL;

    (void)state;
    assert_int_equal(secret_new(3, &a), 0);
    assert_int_equal(secret_new(4, &b), 0);
    assert_false(secret_equal(a, b));
    secret_truncate(b, 3);
    assert_true(secret_equal(a, b));
    secret_get(b)[2] = 1;
    assert_false(secret_equal(a, b));
}

static void secret_truncate__wipes_the_rest(void **state)
{
    AUTO(secret) struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_new(8, &s), 0);
    memcpy(secret_get(s), "abcdefgh", 8);
    secret_truncate(s, 8);
    assert_memory_equal(secret_peek(s), "abcdefgh", 9);
    secret_truncate(s, 3);
    assert_int_equal(secret_len(s), 3);
    assert_memory_equal(secret_peek(s), "abc\0\0\0\0\0", 9);
}

static void secret_read_fd__drops_one_final_line_end(void **state)
{
    static const struct {
        const char *file, *secret;
    } rows[] = {
        {"1234", "1234"},     {"1234\n", "1234"},   {"1234\r\n", "1234"}, {"1234\n\n", "1234\n"},
        {"1 2\t\n", "1 2\t"}, {"1234\r", "1234\r"}, {"\n1\n", "\n1"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(secret) struct secret *s = NULL;
        write_file(rows[i].file, strlen(rows[i].file), 0600);
        assert_int_equal(secret_read_file(path, &s), 0);
        assert_int_equal(secret_len(s), strlen(rows[i].secret));
        assert_memory_equal(secret_peek(s), rows[i].secret, secret_len(s) + 1);
    }
}

static void secret_read_fd__refuses_an_empty_file(void **state)
{
    static const char *const empty[] = {"", "\n", "\r\n"};
    struct secret *s = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
        write_file(empty[i], strlen(empty[i]), 0600);
        assert_int_equal(secret_read_file(path, &s), TEKD_EFORMAT);
    }
    assert_null(s);
}

static void secret_read_fd__takes_max_and_not_one_more(void **state)
{
    AUTO(secret) struct secret *s = NULL;
    struct secret *none = NULL;
    char text[SECRET_MAX + 1];

    (void)state;
    memset(text, 'x', sizeof(text));
    write_file(text, SECRET_MAX, 0600);
    assert_int_equal(secret_read_file(path, &s), 0);
    assert_int_equal(secret_len(s), SECRET_MAX);
    write_file(text, SECRET_MAX + 1, 0600);
    assert_int_equal(secret_read_file(path, &none), TEKD_ETOOBIG);
    assert_null(none);
}

static void secret_read_fd__collects_what_a_pipe_gives_in_pieces(void **state)
{
    AUTO(secret) struct secret *s = NULL;
    int fds[2], status;
    pid_t child;

    (void)state;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool ok = write(fds[1], "12", 2) == 2 && write(fds[1], "34\n", 3) == 3;
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(close(fds[1]), 0);
    assert_int_equal(secret_read_fd(fds[0], &s), 0);
    assert_memory_equal(secret_peek(s), "1234", 5);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(close(fds[0]), 0);
}

static void secret_read_fd__tells_a_failed_read(void **state)
{
    struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_read_fd(-1, &s), TEKD_EIO);
    assert_null(s);
}

static void secret_read_file__takes_only_private_modes(void **state)
{
    static const struct {
        mode_t mode;
        int want;
    } rows[] = {
        {0600, 0},
        {0400, 0},
        {0640, TEKD_EDENIED},
        {0604, TEKD_EDENIED},
        {0620, TEKD_EDENIED},
        {0602, TEKD_EDENIED},
        {0610, TEKD_EDENIED},
        {0601, TEKD_EDENIED},
        {0700, TEKD_EDENIED},
        {04600, TEKD_EDENIED},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTO(secret) struct secret *s = NULL;
        write_file("1234", 4, rows[i].mode);
        assert_int_equal(secret_read_file(path, &s), rows[i].want);
        assert_int_equal(unlink(path), 0);
    }
}

static void secret_read_file__refuses_another_owner(void **state)
{
    struct secret *s = NULL;

    (void)state;
    if (geteuid() != 0)
        skip(); /* only root can give a file away */
    write_file("1234", 4, 0600);
    assert_int_equal(chown(path, 65534, 65534), 0);
    assert_int_equal(secret_read_file(path, &s), TEKD_EDENIED);
    assert_null(s);
}

static void secret_read_file__refuses_what_is_no_regular_file(void **state)
{
    struct secret *s = NULL;

    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(secret_read_file(path, &s), TEKD_EDENIED); /* and does not hang */
    assert_int_equal(secret_read_file(dir, &s), TEKD_EDENIED);
    assert_null(s);
}

static void secret_read_file__tells_a_missing_file(void **state)
{
    struct secret *s = NULL;

    (void)state;
    assert_int_equal(secret_read_file(path, &s), TEKD_ENOTFOUND);
    assert_null(s);
}

#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secret_new__is_zero_and_ended_by_zero),
        cmocka_unit_test(secret_new__refuses_length_zero),
        cmocka_unit_test(secret_new__refuses_more_than_max),
        cmocka_unit_test(secret_new__is_locked_not_dumped_and_not_inherited),
        cmocka_unit_test(secret_new__is_zero_in_a_forked_child),
        cmocka_unit_test(secret_get__is_fenced),
        cmocka_unit_test(secret_free__wipes_before_the_memory_goes),
        cmocka_unit_test(secret_free__takes_null),
        cmocka_unit_test(secret_new__says_what_to_raise_when_memory_cannot_be_locked),
        cmocka_unit_test(secret_dup__is_a_copy_of_its_own),
        cmocka_unit_test(secret_equal__compares_lengths_too),
        cmocka_unit_test(secret_truncate__wipes_the_rest),
        FILE_TEST(secret_read_fd__drops_one_final_line_end),
        FILE_TEST(secret_read_fd__refuses_an_empty_file),
        FILE_TEST(secret_read_fd__takes_max_and_not_one_more),
        cmocka_unit_test(secret_read_fd__collects_what_a_pipe_gives_in_pieces),
        cmocka_unit_test(secret_read_fd__tells_a_failed_read),
        FILE_TEST(secret_read_file__takes_only_private_modes),
        FILE_TEST(secret_read_file__refuses_another_owner),
        FILE_TEST(secret_read_file__refuses_what_is_no_regular_file),
        FILE_TEST(secret_read_file__tells_a_missing_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
