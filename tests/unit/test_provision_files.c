#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "provision.h"
#include "tekd/err.h"

static char dir[64];
static char path[80];
static char temp[90];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/test_provision.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(temp, sizeof(temp), "%s.new", path);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    (void)unlink(temp);
    return rmdir(dir);
}

/* As a run that took the name under which another one was writing. */
static void files_draft_write__names_nothing_but_what_it_wrote(void **state)
{
    struct files_draft *d = NULL;
    FILE *f;

    (void)state;
    assert_int_equal(files_draft_new(path, (struct file_rule){.mode = 0600}, &d), 0);
    assert_int_equal(unlink(temp), 0);
    f = fopen(temp, "wxe");
    assert_non_null(f);
    assert_int_equal(files_draft_write(d, "one", 3), TEKD_EIO);
    assert_false(files_exist(path));
    files_draft_free(d);
    assert_true(files_exist(temp));
    assert_int_equal(fclose(f), 0);
}

static void assert_file(const char *text, mode_t mode)
{
    char line[64] = "";
    struct stat st;
    FILE *f = fopen(path, "re");

    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    assert_int_equal(fstat(fileno(f), &st), 0);
    fclose(f);
    assert_string_equal(line, text);
    assert_int_equal(st.st_mode & 07777, mode);
    /* The name it was written under first is gone. */
    assert_false(files_exist(temp));
}

static void files_write__makes_the_file_with_its_mode(void **state)
{
    (void)state;
    assert_false(files_exist(path));
    assert_int_equal(files_write(path, (struct file_rule){.mode = 0600}, "one", 3), 0);
    assert_file("one", 0600);
}

static void files_write__never_replaces_unless_told(void **state)
{
    (void)state;
    assert_int_equal(files_write(path, (struct file_rule){.mode = 0600}, "one", 3), 0);
    assert_int_equal(files_write(path, (struct file_rule){.mode = 0600}, "two", 3), TEKD_EEXIST);
    assert_file("one", 0600);
    assert_int_equal(files_write(path, (struct file_rule){0600, true}, "two", 3), 0);
    assert_file("two", 0600);
}

static void files_write__takes_over_from_a_run_cut_short(void **state)
{
    FILE *f = fopen(temp, "we");

    (void)state;
    assert_non_null(f);
    fputs("half of something longer", f);
    fclose(f);
    assert_int_equal(files_write(path, (struct file_rule){.mode = 0600}, "one", 3), 0);
    assert_file("one", 0600);
}

static void files_write__says_when_there_is_no_folder(void **state)
{
    char nowhere[96];

    (void)state;
    snprintf(nowhere, sizeof(nowhere), "%s/none/file", dir);
    assert_int_equal(files_write(nowhere, (struct file_rule){.mode = 0600}, "one", 3), TEKD_EIO);
}

static void files_draft_write_hex__is_read_back(void **state)
{
    AUTO(files_draft) struct files_draft *draft = NULL;
    AUTO(secret) struct secret *octets = NULL;
    AUTO(secret) struct secret *back = NULL;

    (void)state;
    assert_int_equal(secret_new(3, &octets), 0);
    memcpy(secret_get(octets), "\x00\xa5\xff", 3);
    assert_int_equal(files_draft_new(path, (struct file_rule){.mode = 0600}, &draft), 0);
    assert_false(files_exist(path));
    assert_int_equal(files_draft_write_hex(draft, octets), 0);
    assert_file("00a5ff\n", 0600);
    assert_int_equal(files_read_hex(path, &back), 0);
    assert_true(secret_equal(octets, back));
}

static void files_draft_free__takes_away_what_was_not_written(void **state)
{
    struct files_draft *draft = NULL;

    (void)state;
    assert_int_equal(files_draft_new(path, (struct file_rule){.mode = 0600}, &draft), 0);
    assert_true(files_exist(temp));
    files_draft_free(draft);
    assert_false(files_exist(temp));
    assert_false(files_exist(path));
}

static void files_read_hex__refuses_what_is_no_line_of_hex(void **state)
{
    static const char *const bad[] = {"0", "0g", "00 11", "00\n11"};
    AUTO(secret) struct secret *octets = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(files_write(path, (struct file_rule){0600, true}, bad[i], strlen(bad[i])),
                         0);
        assert_int_equal(files_read_hex(path, &octets), TEKD_EFORMAT);
    }
    assert_int_equal(files_write(path, (struct file_rule){0600, true}, "00", 2), 0);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(files_read_hex(path, &octets), TEKD_EDENIED);
    assert_null(octets);
}

#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(files_draft_write__names_nothing_but_what_it_wrote),
        FILE_TEST(files_write__makes_the_file_with_its_mode),
        FILE_TEST(files_write__never_replaces_unless_told),
        FILE_TEST(files_write__takes_over_from_a_run_cut_short),
        FILE_TEST(files_write__says_when_there_is_no_folder),
        FILE_TEST(files_draft_write_hex__is_read_back),
        FILE_TEST(files_draft_free__takes_away_what_was_not_written),
        FILE_TEST(files_read_hex__refuses_what_is_no_line_of_hex),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
