/*
 * libcp3 as a shared library: readers in threads, memory that does not grow.
 */
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cp3_fixture.h"

#define THREADS 4
#define ROUNDS  500

/* Reads and writes with a reader of its own, good and bad bodies in turn; NULL if all was right. */
static void *use_reader(void *argument)
{
    int tag = *(int *)argument;
    char body[FIXTURE_BODY_MAX], out[CP3_WRITTEN_MAX];
    struct cp3_reader *reader = NULL;
    struct cp3_message m;
    struct cp3_error err;
    size_t len, n;

    if (cp3_reader_new(&reader) < 0)
        return "no reader";
    for (int i = 0; i < ROUNDS; i++) {
        enum cp3_media media = i % 2 ? CP3_XML : CP3_JSON;

        len = fixture_build(&(struct fixture_body){media, tag, FIXTURE_WHOLE, NULL, NULL}, body);
        if (cp3_read(reader, media, body, len, &m, &err) < 0 || (int)m.tag != tag ||
            cp3_write(media, CP3_FULL, &m, out, sizeof(out), &n) < 0)
            return "a good body was refused";
        if (cp3_read(reader, media, body, len - 1, &m, &err) != CP3_ESYNTAX)
            return "a bad body was taken";
    }
    cp3_reader_free(reader);
    return NULL;
}

static void cp3_reader_new__gives_each_thread_its_own(void **state)
{
    pthread_t threads[THREADS];
    int tags[THREADS];
    void *complaint;

    (void)state;
    for (int i = 0; i < THREADS; i++) {
        tags[i] = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, use_reader, &tags[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &complaint), 0);
        if (complaint != NULL)
            fail_msg("%s", (const char *)complaint);
    }
}

/* Elements of names that were never there before, as a peer may send them for ever. */
static void read_new_names(struct cp3_reader *reader, unsigned from, unsigned to)
{
    char inside[FIXTURE_BODY_MAX / 2], body[FIXTURE_BODY_MAX];
    struct fixture_body b = {CP3_XML, 1, FIXTURE_BEFORE, "Tag", inside};
    struct cp3_message m;

    for (unsigned i = from; i < to; i++) {
        (void)snprintf(inside, sizeof(inside), "<y:n%u xmlns:y='urn:n%u' a%0500u='1'/>", i, i, i);
        assert_int_equal(cp3_read(reader, CP3_XML, body, fixture_build(&b, body), &m, NULL), 0);
    }
}

static void cp3_read__keeps_no_name_of_a_peer_for_ever(void **state)
{
    struct cp3_reader *reader;
    size_t before, after;

    (void)state;
    assert_int_equal(cp3_reader_new(&reader), 0);
    read_new_names(reader, 0, 2000);
    before = mallinfo2().uordblks;
    read_new_names(reader, 2000, 12000); /* some 5 MB of names */
    after = mallinfo2().uordblks;
    assert_true(after < before + (1u << 20));
    cp3_reader_free(reader);
}

static void cp3_reader_free__takes_null(void **state)
{
    (void)state;
    cp3_reader_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cp3_reader_new__gives_each_thread_its_own),
        cmocka_unit_test(cp3_read__keeps_no_name_of_a_peer_for_ever),
        cmocka_unit_test(cp3_reader_free__takes_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
