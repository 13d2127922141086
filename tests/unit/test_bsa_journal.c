/* What a BSA remembers of the deliveries it took, and that it does so over a restart. */
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
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "tekd/enc.h"
#include "tekd/err.h"

/* The disk says no when the test wants it to. */
static bool no_sync;
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    if (!no_sync)
        return __real_fdatasync(fd);
    errno = EIO;
    return -1;
}

static char dir[] = "/tmp/tek-bsa-journal-XXXXXX";
static char path[sizeof(dir) + 16];

static int make_dir(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/journal", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static int remove_file(void **state)
{
    (void)state;
    (void)unlink(path);
    no_sync = false;
    return 0;
}

static struct cp3_message delivery(const char *message_id, const char *content_id, uint8_t octet)
{
    struct cp3_message m;

    cp3_message_init(&m, CP3_DELIVERY);
    (void)snprintf(m.message_id, sizeof(m.message_id), "%s", message_id);
    (void)snprintf(m.content_id, sizeof(m.content_id), "%s", content_id);
    m.data_len = CP3_DATA_MIN;
    memset(m.data, octet, m.data_len);
    return m;
}

static enum journal_known find(struct journal *j, const char *message_id, const char *content_id,
                               uint8_t octet)
{
    struct cp3_message m = delivery(message_id, content_id, octet);

    return journal_find(j, &m);
}

static int add(struct journal *j, const char *message_id, const char *content_id, uint8_t octet)
{
    struct cp3_message m = delivery(message_id, content_id, octet);

    return journal_add(j, &m);
}

static void write_file(const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(close(fd), 0);
}

static size_t read_file(char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, text, size - 1);

    assert_true(fd >= 0 && n >= 0);
    assert_int_equal(close(fd), 0);
    text[n] = '\0';
    return (size_t)n;
}

static void check_memory(struct journal *j)
{
    assert_int_equal(find(j, "m-1", "urn:x", 1), JOURNAL_NEW);
    assert_int_equal(add(j, "m-1", "urn:x", 1), 0);
    assert_int_equal(add(j, "m-2", "urn:y", 2), 0);
    assert_int_equal(find(j, "m-1", "urn:x", 1), JOURNAL_SAME);
    assert_int_equal(find(j, "m-2", "urn:y", 2), JOURNAL_SAME);
    assert_int_equal(find(j, "m-1", "urn:x", 2), JOURNAL_OTHER);
    assert_int_equal(find(j, "m-1", "urn:y", 1), JOURNAL_OTHER);
    assert_int_equal(find(j, "M-1", "urn:x", 1), JOURNAL_NEW);
}

static void journal_find__tells_same_from_other(void **state)
{
    AUTO(journal) struct journal *j = NULL;

    (void)state;
    assert_int_equal(journal_open(NULL, &j), 0);
    check_memory(j);
}

static void journal_open__remembers_what_the_file_has(void **state)
{
    (void)state;
    for (int turn = 0; turn < 3; turn++) {
        AUTO(journal) struct journal *j = NULL;

        assert_int_equal(journal_open(path, &j), 0);
        if (turn == 0)
            check_memory(j);
        assert_int_equal(find(j, "m-1", "urn:x", 1), JOURNAL_SAME);
        assert_int_equal(find(j, "m-1", "urn:x", 2), JOURNAL_OTHER);
        assert_int_equal(find(j, "m-2", "urn:y", 2), JOURNAL_SAME);
        if (turn == 1)
            assert_int_equal(add(j, "m \"\\\xc3\xa9", "urn:z", 3), 0);
        assert_int_equal(find(j, "m \"\\\xc3\xa9", "urn:z", 3),
                         turn == 0 ? JOURNAL_NEW : JOURNAL_SAME);
    }
}

/* As it is described on top of journal.c. */
static void journal_add__writes_a_line(void **state)
{
    AUTO(journal) struct journal *j = NULL;
    char text[4096], hex[2 * 32 + 1];
    uint8_t octets[6 + CP3_DATA_MIN] = "urn:x", sha256[32];
    const char *message_id, *content_id, *digest, *time;
    struct stat st;
    json_t *doc;
    int64_t t;

    (void)state;
    assert_int_equal(journal_open(path, &j), 0);
    assert_int_equal(add(j, "m-1", "urn:x", 7), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(read_file(text, sizeof(text)), st.st_size);
    assert_ptr_equal(strchr(text, '\n'), text + st.st_size - 1);
    doc = json_loads(text, 0, NULL);
    assert_int_equal(json_unpack(doc, "{s:s, s:s, s:s, s:s}", "message_id", &message_id,
                                 "content_id", &content_id, "sha256", &digest, "time", &time),
                     0);
    assert_string_equal(message_id, "m-1");
    assert_string_equal(content_id, "urn:x");
    memset(octets + 6, 7, CP3_DATA_MIN);
    assert_int_equal(EVP_Digest(octets, sizeof(octets), sha256, NULL, EVP_sha256(), NULL), 1);
    enc_hex(sha256, sizeof(sha256), hex);
    assert_string_equal(digest, hex);
    assert_int_equal(enc_time_read(time, strlen(time), &t), 0);
    json_decref(doc);
}

#define HEX_0 "0000000000000000000000000000000000000000000000000000000000000000"
#define LINE  "{\"message_id\":\"m-1\",\"sha256\":\"" HEX_0 "\"}\n"

static void journal_open__cuts_off_what_was_cut_short(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } rests[] = {
        {"{\"message_id\":\"m-2\"", 18},
        {"{", 1},
        {"\0\0\0\0", 4}, /* a power cut left a hole */
        {"{\"message_id\":\"m-2\",\"sha256\":\"" HEX_0 "\"}",
         96}, /* only its line feed is missing */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rests); i++) {
        AUTO(journal) struct journal *j = NULL;
        char text[1024];

        (void)snprintf(text, sizeof(text), "%s", LINE);
        memcpy(text + strlen(LINE), rests[i].text, rests[i].len);
        write_file(text, strlen(LINE) + rests[i].len);
        assert_int_equal(journal_open(path, &j), 0);
        assert_int_equal(read_file(text, sizeof(text)), strlen(LINE));
        assert_string_equal(text, LINE);
        assert_int_equal(find(j, "m-1", "urn:x", 1), JOURNAL_OTHER);
        assert_int_equal(find(j, "m-2", "urn:x", 1), JOURNAL_NEW);
        /* and goes on behind it */
        assert_int_equal(add(j, "m-2", "urn:x", 1), 0);
        (void)read_file(text, sizeof(text));
        assert_memory_equal(text, LINE "{\"message_id\":\"m-2\",", strlen(LINE) + 20);
    }
}

static void journal_open__refuses_what_is_no_journal(void **state)
{
    static const char *const texts[] = {
        "\n",
        "hello\n",
        "{}\n",
        "{\"message_id\":\"m-1\"}\n",
        "{\"message_id\":\"m-1\",\"sha256\":\"00\"}\n",
        "{\"message_id\":7,\"sha256\":\"" HEX_0 "\"}\n",
        "{\"message_id\":\"m-1\",\"message_id\":\"m-1\",\"sha256\":\"" HEX_0 "\"}\n",
        LINE "\n" LINE,
    };
    char text[2 * JOURNAL_LINE_MAX];
    struct journal *j = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        write_file(texts[i], strlen(texts[i]));
        assert_int_equal(journal_open(path, &j), TEKD_EFORMAT);
        /* it is left as it is */
        assert_int_equal(read_file(text, sizeof(text)), strlen(texts[i]));
    }
    memset(text, 'x', sizeof(text));
    write_file(text, sizeof(text)); /* a line without end */
    assert_int_equal(journal_open(path, &j), TEKD_EFORMAT);
    assert_int_equal(journal_open("/dev/null", &j), TEKD_EIO);
    assert_int_equal(journal_open(dir, &j), TEKD_EIO);
    assert_int_equal(journal_open("/nowhere/journal", &j), TEKD_EIO);
    assert_null(j);
}

static void journal_open__is_for_one_program_at_a_time(void **state)
{
    struct journal *first = NULL, *second = NULL;

    (void)state;
    assert_int_equal(journal_open(path, &first), 0);
    assert_int_equal(journal_open(path, &second), TEKD_EIO);
    assert_null(second);
    journal_free(first);
    assert_int_equal(journal_open(path, &second), 0);
    journal_free(second);
}

static void journal_add__forgets_the_oldest(void **state)
{
    AUTO(journal) struct journal *j = NULL;
    char id[16];

    (void)state;
    assert_int_equal(journal_open(NULL, &j), 0);
    for (int i = 0; i < 2 * JOURNAL_MAX + 2; i++) {
        (void)snprintf(id, sizeof(id), "m-%d", i);
        assert_int_equal(add(j, id, "urn:x", 1), 0);
        if (i < JOURNAL_MAX || (i % 997 != 0 && i > JOURNAL_MAX + 2))
            continue; /* at first each, then some */
        (void)snprintf(id, sizeof(id), "m-%d", i - JOURNAL_MAX);
        assert_int_equal(find(j, id, "urn:x", 1), JOURNAL_NEW);
        (void)snprintf(id, sizeof(id), "m-%d", i - JOURNAL_MAX + 1);
        assert_int_equal(find(j, id, "urn:x", 1), JOURNAL_SAME);
    }
}

/* No room in the middle of a line: it is cut off, and the journal goes on once there is. */
static void journal_add__leaves_no_half_lines(void **state)
{
    AUTO(journal) struct journal *j = NULL;
    struct rlimit before, small;
    char text[4096];

    (void)state;
    write_file(LINE, strlen(LINE));
    assert_int_equal(journal_open(path, &j), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){strlen(LINE) + 10, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(add(j, "m-2", "urn:x", 1), TEKD_EIO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(find(j, "m-2", "urn:x", 1), JOURNAL_NEW);
    assert_int_equal(read_file(text, sizeof(text)), strlen(LINE));
    assert_int_equal(add(j, "m-2", "urn:x", 1), 0);
    assert_int_equal(find(j, "m-2", "urn:x", 1), JOURNAL_SAME);
}

static void journal_add__takes_nothing_after_a_sync_that_failed(void **state)
{
    AUTO(journal) struct journal *j = NULL;

    (void)state;
    assert_int_equal(journal_open(path, &j), 0);
    assert_int_equal(add(j, "m-1", "urn:x", 1), 0);
    no_sync = true;
    assert_int_equal(add(j, "m-2", "urn:x", 1), TEKD_EIO);
    no_sync = false;
    assert_int_equal(add(j, "m-2", "urn:x", 1), TEKD_EIO);
    assert_int_equal(find(j, "m-2", "urn:x", 1), JOURNAL_NEW);
    /* what it knew it still knows */
    assert_int_equal(find(j, "m-1", "urn:x", 1), JOURNAL_SAME);
}

#define TEST(f) cmocka_unit_test_teardown(f, remove_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(journal_find__tells_same_from_other),
        TEST(journal_open__remembers_what_the_file_has),
        TEST(journal_add__writes_a_line),
        TEST(journal_open__cuts_off_what_was_cut_short),
        TEST(journal_open__refuses_what_is_no_journal),
        TEST(journal_open__is_for_one_program_at_a_time),
        TEST(journal_add__forgets_the_oldest),
        TEST(journal_add__leaves_no_half_lines),
        TEST(journal_add__takes_nothing_after_a_sync_that_failed),
    };

    return cmocka_run_group_tests_name("bsa_journal", tests, make_dir, remove_dir);
}
