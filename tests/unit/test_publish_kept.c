/* The folder of what was got back: names, what is removed, what an export takes along. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_clock.h"
#include "internal.h"
#include "tekd/err.h"

#define DAY_US (INT64_C(86400) * SECOND_US)

struct place {
    char dir[64], folder[96];
    struct kept *kept;
    char list[65536]; /* of the last walk: "NAME=OCTETS\n" */
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    fake_clock_set_utc(INT64_C(1767225600) * SECOND_US); /* 2026-01-01 */
    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/tekd-kept-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    (void)snprintf(p->folder, sizeof(p->folder), "%s/published", p->dir);
    assert_int_equal(kept_new(p->folder, &p->kept), 0);
    *state = p;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    struct place *p = *state;

    kept_free(p->kept);
    (void)nftw(p->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(p);
    return 0;
}

/* A note and its stamp. */
static int put(struct place *p, uint64_t epoch, uint64_t size, char why[static PUBLISH_WHY_MAX])
{
    const struct publication n = {.epoch = epoch, .note.size = size};
    const struct kept_file files[] = {{"note", "n", 1}, {"tsr", "t", 1}};

    return kept_put(p->kept, &n, files, ARRAY_SIZE(files), why);
}

static void keep(struct place *p, uint64_t epoch, uint64_t size)
{
    char why[PUBLISH_WHY_MAX] = "";

    assert_int_equal(put(p, epoch, size, why), 0);
    assert_string_equal(why, "");
}

static int list_one(void *arg, const char *name, const void *octets, size_t len)
{
    char *list = ((struct place *)arg)->list;
    size_t have = strlen(list);

    (void)snprintf(list + have, sizeof(((struct place *)arg)->list) - have, "%s=%.*s\n", name,
                   (int)len, (const char *)octets);
    return 0;
}

static const char *walk(struct place *p, uint64_t epoch, uint64_t size)
{
    const struct kept_walk w = {.epoch = epoch, .size = size, .arg = p, .each = list_one};

    p->list[0] = '\0';
    assert_int_equal(kept_walk(p->kept, &w), 0);
    return p->list;
}

static void write_file(const struct place *p, const char *name, const char *text)
{
    char path[200];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s", p->folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static bool has(const struct place *p, const char *name)
{
    char path[200];

    (void)snprintf(path, sizeof(path), "%s/%s", p->folder, name);
    return access(path, F_OK) == 0;
}

static void kept_put__keeps_the_newest_of_a_day(void **state)
{
    struct place *p = *state;

    keep(p, 1, 5);
    keep(p, 1, 12);
    assert_string_equal(walk(p, 1, 100), "1-12-20260101.note=n\n1-12-20260101.tsr=t\n");
    fake_clock_advance(DAY_US);
    keep(p, 1, 20);
    keep(p, 1, 30);
    assert_string_equal(walk(p, 1, 100), "1-12-20260101.note=n\n1-12-20260101.tsr=t\n"
                                         "1-30-20260102.note=n\n1-30-20260102.tsr=t\n");
}

static void kept_put__keeps_each_epoch_of_a_day(void **state)
{
    struct place *p = *state;

    keep(p, 1, 50);
    keep(p, 2, 3);
    assert_string_equal(walk(p, 1, 100), "1-50-20260101.note=n\n1-50-20260101.tsr=t\n");
    assert_string_equal(walk(p, 2, 100), "2-3-20260101.note=n\n2-3-20260101.tsr=t\n");
}

static void kept_put__has_a_limit(void **state)
{
    struct place *p = *state;

    keep(p, 1, 1);
    for (unsigned i = 1; i < KEPT_MAX + 2; i++) { /* each of another day */
        char name[64];

        (void)snprintf(name, sizeof(name), "1-%u-%08u.note", i + 1, 20260101 + i);
        write_file(p, name, "n");
        (void)snprintf(name, sizeof(name), "1-%u-%08u.tsr", i + 1, 20260101 + i);
        write_file(p, name, "t");
    }
    fake_clock_advance(3650 * DAY_US);
    keep(p, 1, KEPT_MAX + 3);
    assert_false(has(p, "1-3-20260103.note"));
    assert_false(has(p, "1-3-20260103.tsr"));
    assert_true(has(p, "1-4-20260104.note"));
    assert_true(has(p, "1-4-20260104.tsr"));
}

static void kept_put__leaves_other_files_alone(void **state)
{
    static const char *const others[] = {"README",
                                         "1-5-20260101.txt",
                                         "01-5-20260101.tsr",
                                         "1-5-1.tsr",
                                         "1-5-20260101.tsrx",
                                         "1--5-20260101.tsr",
                                         "x.note",
                                         "18446744073709551616-1-20260101.note"};
    struct place *p = *state;

    keep(p, 1, 5);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        write_file(p, others[i], "mine");
    keep(p, 1, 6);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        assert_true(has(p, others[i]));
    assert_string_equal(walk(p, 1, 100), "1-6-20260101.note=n\n1-6-20260101.tsr=t\n");
}

static void kept_put__says_why_it_cannot(void **state)
{
    struct place *p = *state;
    char why[PUBLISH_WHY_MAX] = "";
    FILE *f = fopen(p->folder, "w");

    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(put(p, 1, 5, why), TEKD_EIO);
    assert_memory_equal(why, "what was got could not be kept: open ", 37);
    assert_non_null(strstr(why, "Not a directory"));
}

/* As on a full volume: no file gets more octets. */
static void limit_files(rlim_t octets)
{
    struct rlimit l;

    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
    l.rlim_cur = octets == RLIM_INFINITY ? l.rlim_max : octets;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static size_t count_entries(const struct place *p)
{
    DIR *dir = opendir(p->folder);
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n - 2; /* . and .. */
}

/* The note has room and its stamp has none: the day's pair stays, and no half of another one. */
static void kept_put__keeps_all_files_of_a_note_or_none(void **state)
{
    struct place *p = *state;
    const struct kept_file files[] = {{"note", "n", 1}, {"tsr", "stamp", 5}};
    char why[PUBLISH_WHY_MAX] = "";

    keep(p, 1, 5);
    for (uint64_t size = 6; size < 9; size++) {
        const struct publication n = {.epoch = 1, .note.size = size};

        limit_files(3);
        assert_int_equal(kept_put(p->kept, &n, files, ARRAY_SIZE(files), why), TEKD_EIO);
        limit_files(RLIM_INFINITY);
        assert_non_null(strstr(why, "write"));
        assert_non_null(strstr(why, "File too large"));
        assert_int_equal(count_entries(p), 2);
    }
    fake_clock_advance(DAY_US);
    keep(p, 1, 9);
    assert_string_equal(walk(p, 1, 100), "1-5-20260101.note=n\n1-5-20260101.tsr=t\n"
                                         "1-9-20260102.note=n\n1-9-20260102.tsr=t\n");
}

static void kept_walk__takes_what_is_within_the_export(void **state)
{
    struct place *p = *state;

    assert_string_equal(walk(p, 1, 100), ""); /* there is no folder yet */
    keep(p, 1, 5);
    fake_clock_advance(DAY_US);
    keep(p, 1, 12);
    assert_string_equal(walk(p, 1, 11), "1-5-20260101.note=n\n1-5-20260101.tsr=t\n");
    assert_string_equal(walk(p, 2, 100), "");
}

/* A time stamp is worth nothing without its note; a note is worth something alone. */
static void kept_walk__gives_no_stamp_without_its_note(void **state)
{
    char large[KEPT_FILE_MAX + 8192];
    struct place *p = *state;

    keep(p, 1, 5);
    write_file(p, "1-3-20251231.tsr", "alone");
    write_file(p, "1-4-20251231.note", "alone");
    write_file(p, "1-2-20251230.note", "");
    write_file(p, "1-2-20251230.tsr", "t");
    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    write_file(p, "1-1-20251229.note", "n");
    write_file(p, "1-1-20251229.tsr", large);
    assert_string_equal(walk(p, 1, 100), "1-1-20251229.note=n\n1-4-20251231.note=alone\n"
                                         "1-5-20260101.note=n\n1-5-20260101.tsr=t\n");
}

/* Cosigned notes are a kind of their own: neither removes the other's. */
static void kept_put__keeps_cosigned_notes_beside_stamps(void **state)
{
    struct place *p = *state;
    const struct publication n = {.epoch = 1, .note.size = 6}, later = {.epoch = 1, .note.size = 9};
    const struct kept_file cosigned = {"cosigned", "c", 1};
    char why[PUBLISH_WHY_MAX] = "";

    keep(p, 1, 5);
    assert_int_equal(kept_put(p->kept, &n, &cosigned, 1, why), 0);
    assert_string_equal(walk(p, 1, 9), "1-5-20260101.note=n\n1-5-20260101.tsr=t\n"
                                       "1-6-20260101.cosigned=c\n");
    assert_int_equal(kept_put(p->kept, &later, &cosigned, 1, why), 0);
    assert_string_equal(walk(p, 1, 9), "1-5-20260101.note=n\n1-5-20260101.tsr=t\n"
                                       "1-9-20260101.cosigned=c\n");
    assert_string_equal(walk(p, 1, 8), "1-5-20260101.note=n\n1-5-20260101.tsr=t\n");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kept_put__keeps_the_newest_of_a_day),
        TEST(kept_put__keeps_each_epoch_of_a_day),
        TEST(kept_put__has_a_limit),
        TEST(kept_put__keeps_cosigned_notes_beside_stamps),
        TEST(kept_put__leaves_other_files_alone),
        TEST(kept_put__says_why_it_cannot),
        TEST(kept_put__keeps_all_files_of_a_note_or_none),
        TEST(kept_walk__takes_what_is_within_the_export),
        TEST(kept_walk__gives_no_stamp_without_its_note),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
