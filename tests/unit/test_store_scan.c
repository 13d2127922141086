/* Every page of the tables that no hash covers is read in the background after a clean stop. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_fixture.h"
#include "tekd/auto.h"

/* The numbers from 1 on, as a table: of some pieces, and many pages. */
#define NUMBERS                                                                                    \
    " FROM (WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 2000)"        \
    " SELECT n FROM i)"

static const struct table {
    const char *name;
    const char *fill;
} tables[] = {
    {"content", "INSERT INTO content SELECT n, 'urn:' || n, 128, 0, 0, 0, 0, 0" NUMBERS},
    {"tek",
     "INSERT INTO tek SELECT n, CAST(n AS BLOB), n, 0, 1, 128, 1, zeroblob(40), 0, 0" NUMBERS},
    /* One TEK for many, as a fan-out leaves it; and many TEKs for one. */
    {"export", "INSERT INTO export SELECT 1, n, zeroblob(40)" NUMBERS},
    {"export", "INSERT INTO export SELECT n, 1, zeroblob(40)" NUMBERS},
    {"holder", "INSERT INTO holder SELECT 1, n, 1" NUMBERS},
    {"holder", "INSERT INTO holder SELECT n, 1, 1" NUMBERS},
    {"message", "INSERT INTO message SELECT 1, 'm-' || n, 1, 0, 1, 1, 1 << 60, 1" NUMBERS},
    {"delivery", "INSERT INTO delivery SELECT n, 'd-' || n, 1, 1, 1, 1, 0, 4, 1, 0, 0, 0, 1, 1, 1,"
                 " zeroblob(32), ''" NUMBERS},
    {"delivery_message", "INSERT INTO delivery_message SELECT n, zeroblob(400)" NUMBERS},
};

static void close_filled(struct fixture *f, const struct table *t)
{
    fixture_open(f);
    fixture_close(f);
    fixture_sql(f, t->fill);
}

static int64_t number(struct fixture *f, const char *sql)
{
    sqlite3 *db = fixture_sqlite(f);
    sqlite3_stmt *stmt = NULL;
    int64_t n;

    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    n = sqlite3_column_int64(stmt, 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return n;
}

static uint32_t big_endian(const uint8_t *at, unsigned octets)
{
    uint32_t n = 0;

    while (octets-- > 0)
        n = n << 8 | *at++;
    return n;
}

enum { KIND_KEYS = 2, KIND_ROWS = 5, CELLS = 3, CELL_AT = 12, PAGE_MAX = 65536 };

/*
 * Zeroes a page with some of the last rows of a table; not the last page, on which also ends who
 * looks for rows behind the last.  The page of an inner node begins with its kind; at CELLS stands
 * how many cells it has, two octets, and from CELL_AT on where, two octets each.  A cell begins
 * with the number, from 1, of the page under it.
 */
static void zero_page(struct fixture *f, const char *table)
{
    static uint8_t page[PAGE_MAX];
    size_t size = (size_t)number(f, "PRAGMA page_size");
    AUTO_FD int fd = open(f->path, O_RDWR | O_CLOEXEC);
    unsigned depth = 0;
    char sql[100];
    int64_t at;

    (void)snprintf(sql, sizeof(sql), "SELECT rootpage FROM sqlite_schema WHERE name = '%s'", table);
    at = number(f, sql);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, page, size, (at - 1) * (off_t)size), size);
    for (; page[0] == KIND_KEYS || page[0] == KIND_ROWS; depth++) {
        uint32_t last = big_endian(page + CELLS, 2) - 1;

        at = big_endian(page + big_endian(page + CELL_AT + 2 * (size_t)last, 2), 4);
        assert_int_equal(pread(fd, page, size, (at - 1) * (off_t)size), size);
    }
    assert_true(depth > 0);
    memset(page, 0, size);
    assert_int_equal(pwrite(fd, page, size, (at - 1) * (off_t)size), size);
}

static int fatal(struct fixture *f)
{
    int r;

    pthread_mutex_lock(&f->lock);
    r = f->fatal;
    pthread_mutex_unlock(&f->lock);
    return r;
}

static int nothing(void *arg, struct store_tx *tx)
{
    (void)arg;
    (void)tx;
    return 0;
}

/* Long enough for the background to be through with everything; what the store latched with. */
static int let_it_read(struct fixture *f)
{
    for (unsigned turns = 0; turns < 100 && fatal(f) == 0; turns++) {
        fake_clock_advance(300000);
        (void)store_call(f->store, STORE_READ, nothing, NULL); /* what latched answers no more */
    }
    return fatal(f);
}

static void idle__reads_every_page_of_the_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        struct fixture *f;
        void *made;

        assert_int_equal(fixture_setup(&made), 0);
        f = made;
        close_filled(f, &tables[i]);
        zero_page(f, tables[i].name);
        fixture_open(f);
        if (let_it_read(f) != TEKD_EIO || !fixture_logged("event=latched", "background check"))
            fail_msg("nothing of it with: %s", tables[i].fill);
        assert_int_equal(fixture_teardown(&made), 0);
    }
}

static void idle__takes_no_offence_at_whole_tables(void **state)
{
    struct fixture *f = *state;

    fixture_open(f);
    fixture_close(f);
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        if (i == 0 || strcmp(tables[i].name, tables[i - 1].name) != 0)
            fixture_sql(f, tables[i].fill);
    fixture_open(f);
    assert_int_equal(let_it_read(f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle__reads_every_page_of_the_tables),
        cmocka_unit_test_setup_teardown(idle__takes_no_offence_at_whole_tables, fixture_setup,
                                        fixture_teardown),
    };

    return cmocka_run_group_tests_name("store_scan", tests, NULL, NULL);
}
