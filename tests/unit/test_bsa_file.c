/* Keys in files: whole or not there, for their owner only, under a name that nobody can lead
 * astray. */
#include "bsa.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tekd/enc.h"
#include "tekd/err.h"

static char dir[] = "/tmp/tek-bsa-file-XXXXXX";
static struct secret *tek;

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(secret_new(16, &tek), 0);
    memset(secret_get(tek), 0xa5, 16);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    secret_free(tek);
    return rmdir(dir);
}

#define PATH_MAX_HERE 512
static const char *in_dir(const char *name, char out[static PATH_MAX_HERE])
{
    (void)snprintf(out, PATH_MAX_HERE, "%s/%s", dir, name);
    return out;
}

static void touch(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void file_save_tek__replaces_what_was_there(void **state)
{
    char path[PATH_MAX_HERE], text[64] = "";
    struct stat st;
    int fd;

    (void)state;
    touch(in_dir("x.tek", path), 0644);
    assert_int_equal(file_save_tek(path, tek), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    assert_int_equal(close(fd), 0);
    assert_string_equal(text, "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\n");
    assert_int_equal(unlink(path), 0);
}

/* tear_down() finds the folder empty: nothing half written is left behind either. */
static void file_save_tek__leaves_the_old_one_when_it_fails(void **state)
{
    char path[PATH_MAX_HERE];
    struct rlimit before, small;
    struct stat st;

    (void)state;
    assert_int_equal(file_save_tek("/nowhere/x.tek", tek), -1);
    assert_int_equal(errno, ENOENT);
    touch(in_dir("x.tek", path), 0644);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){10, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(file_save_tek(path, tek), -1);
    assert_int_equal(errno, EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(unlink(path), 0);
}

/* The program is told to end while the key is written. */
static int ending_with; /* a signal, or 0 */
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    if (ending_with != 0)
        (void)raise(ending_with);
    return __real_fsync(fd);
}

/* tear_down() finds the folder empty: there is no other file. */
static void file_save_tek__is_not_ended_half_way(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    char path[PATH_MAX_HERE];

    (void)state;
    (void)in_dir("x.tek", path);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        int status = 0;
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            ending_with = signals[i];
            _exit(file_save_tek(path, tek) < 0 ? 2 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), signals[i]);
        assert_int_equal(unlink(path), 0); /* it came to its end first */
    }
}

static void name_of(const char *content_id, bool key_info, char out[static FILE_NAME_SIZE])
{
    struct cp3_message m;

    cp3_message_init(&m, CP3_DELIVERY);
    (void)snprintf(m.content_id, sizeof(m.content_id), "%s", content_id);
    m.has = key_info ? CP3_HAS_KEY_INFO : 0;
    memset(m.key_info.key_id, 0x11, sizeof(m.key_info.key_id));
    file_tek_name(&m, out);
}

#define UUID "11111111-1111-1111-1111-111111111111"

static void file_tek_name__shows_content_and_key(void **state)
{
    static const struct {
        const char *content_id;
        bool key_info;
        const char *name;
    } cases[] = {
        {"urn:x:news", false, "urn%3Ax%3Anews.tek"},
        {"urn:x:news", true, "urn%3Ax%3Anews." UUID ".tek"},
        {"../../etc/passwd", false, "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd.tek"},
        {".", false, "%2E.tek"},
        {"a b\xc3\xa9", false, "a%20b%C3%A9.tek"},
        {"A-z_0%", false, "A-z_0%25.tek"},
        /* no ContentID stands for a content and its key */
        {"a." UUID, false, "a%2E" UUID ".tek"},
    };
    char name[FILE_NAME_SIZE];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        name_of(cases[i].content_id, cases[i].key_info, name);
        assert_string_equal(name, cases[i].name);
    }
}

/* Long ones are names of files too, different where the ContentIDs are. */
static void file_tek_name__cuts_long_content_ids(void **state)
{
    char content_id[CP3_CONTENT_ID_MAX + 1], first[FILE_NAME_SIZE], second[FILE_NAME_SIZE];
    char path[PATH_MAX_HERE];

    (void)state;
    for (size_t len = 195; len <= CP3_CONTENT_ID_MAX; len++) {
        memset(content_id, 'c', len);
        content_id[len] = '\0';
        name_of(content_id, true, first);
        content_id[len - 1] = 'd';
        name_of(content_id, true, second);
        assert_string_not_equal(first, second);
        assert_true(strlen(first) + strlen(".XXXXXX") <= 255);
        assert_int_equal(strchr(first, '~') != NULL, len > 200);
    }
    memset(content_id, '/', CP3_CONTENT_ID_MAX);
    name_of(content_id, true, first);
    assert_int_equal(file_save_tek(in_dir(first, path), tek), 0);
    assert_int_equal(unlink(path), 0);
}

static void file_open_folder__makes_and_locks_it(void **state)
{
    char path[PATH_MAX_HERE];
    struct stat st;
    int first = -1, second = -7;

    (void)state;
    (void)in_dir("keys", path);
    assert_int_equal(file_open_folder(path, &first), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(file_open_folder(path, &second), TEKD_EIO);
    assert_int_equal(second, -7);
    assert_int_equal(close(first), 0);
    assert_int_equal(file_open_folder(path, &second), 0);
    assert_int_equal(close(second), 0);
    assert_int_equal(rmdir(path), 0);
}

static void file_open_folder__removes_what_was_half_written(void **state)
{
    static const struct {
        const char *name;
        bool stays;
    } files[] = {
        {"urn%3Ax.tek", true},         {"urn%3Ax.tek.aB3xYz", false}, {"urn%3Ax.tek.short", true},
        {"urn%3Ax.tek.toolong", true}, {"something.else", true},
    };
    char path[PATH_MAX_HERE];
    int fd = -1;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        touch(in_dir(files[i].name, path), 0600);
    assert_int_equal(file_open_folder(dir, &fd), 0);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        assert_int_equal(unlink(in_dir(files[i].name, path)), files[i].stays ? 0 : -1);
    assert_int_equal(close(fd), 0);
}

static void file_open_folder__refuses_what_is_none(void **state)
{
    char path[PATH_MAX_HERE];
    int fd = -7;

    (void)state;
    touch(in_dir("file", path), 0600);
    assert_int_equal(file_open_folder(path, &fd), TEKD_EIO);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_open_folder("/nowhere/keys", &fd), TEKD_EIO);
    assert_int_equal(fd, -7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_save_tek__replaces_what_was_there),
        cmocka_unit_test(file_save_tek__leaves_the_old_one_when_it_fails),
        cmocka_unit_test(file_save_tek__is_not_ended_half_way),
        cmocka_unit_test(file_tek_name__shows_content_and_key),
        cmocka_unit_test(file_tek_name__cuts_long_content_ids),
        cmocka_unit_test(file_open_folder__makes_and_locks_it),
        cmocka_unit_test(file_open_folder__removes_what_was_half_written),
        cmocka_unit_test(file_open_folder__refuses_what_is_none),
    };

    return cmocka_run_group_tests_name("bsa_file", tests, set_up, tear_down);
}
