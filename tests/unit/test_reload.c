/* SIGHUP: what is recorded of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server_parts.h"
#include "tekd/err.h"

#define SHA256_OF_A "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
#define NOBODY      4000000000U /* a uid that no system has */

struct files {
    struct tekd t;
    struct config config;
    char dir[32], certificate[64], ca[64], crl[64];
};

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    static struct files x;

    parts_reset();
    x = (struct files){.dir = "/tmp/test-reload-XXXXXX"};
    assert_non_null(mkdtemp(x.dir));
    (void)snprintf(x.certificate, sizeof(x.certificate), "%s/crt", x.dir);
    (void)snprintf(x.ca, sizeof(x.ca), "%s/ca", x.dir);
    (void)snprintf(x.crl, sizeof(x.crl), "%s/crl", x.dir);
    put(x.certificate, "1");
    put(x.ca, "2");
    put(x.crl, "3");
    x.config.tls =
        (struct config_tls){.certificate = x.certificate, .client_ca = x.ca, .crl = x.crl};
    x.t.config = &x.config;
    reload_begin(&x.t);
    *state = &x;
    return 0;
}

static int teardown(void **state)
{
    struct files *x = *state;

    (void)remove(x->certificate);
    (void)remove(x->ca);
    (void)remove(x->crl);
    (void)remove(x->dir);
    parts_end();
    return 0;
}

static void assert_detail(size_t i, const char *detail)
{
    assert_int_equal(parts.n_records, i + 1);
    assert_string_equal(record_event(parts.record[i]), "config.changed");
    assert_null(record_violation(parts.record[i]));
    assert_string_equal(record_get_str(parts.record[i], "detail"), detail);
}

static void reload_run__names_the_files_that_changed_once(void **state)
{
    struct files *x = *state;

    put(x->ca, "a");
    reload_run(&x->t, 0);
    assert_detail(0, "SIGHUP: tls.client_ca=" SHA256_OF_A);
    put(x->certificate, "a");
    put(x->crl, "a");
    reload_run(&x->t, 0);
    assert_detail(1, "SIGHUP: tls.certificate=" SHA256_OF_A " tls.crl=" SHA256_OF_A);
    reload_run(&x->t, 0);
    assert_detail(2, "SIGHUP: the same files");
    assert_int_equal(parts.http_reloads, 3);
    assert_int_equal(parts.push_uses, 3);
}

static void reload_run__says_who_sent_it(void **state)
{
    struct files *x = *state;
    uint64_t uid = 1;

    reload_run(&x->t, 0);
    assert_string_equal(record_get_str(parts.record[0], "actor"), "root");
    assert_true(record_get_int(parts.record[0], "uid", &uid));
    assert_int_equal(uid, 0);
    reload_run(&x->t, NOBODY);
    assert_string_equal(record_get_str(parts.record[1], "actor"), "4000000000");
    assert_true(record_get_int(parts.record[1], "uid", &uid));
    assert_int_equal(uid, NOBODY);
}

/* They are told when they are taken. */
static void reload_run__records_nothing_that_was_refused(void **state)
{
    struct files *x = *state;

    put(x->ca, "a");
    parts.reload_result = TEKD_EINVAL;
    reload_run(&x->t, 0);
    assert_int_equal(parts.n_records, 0);
    parts.reload_result = 0;
    reload_run(&x->t, 0);
    assert_detail(0, "SIGHUP: tls.client_ca=" SHA256_OF_A);
}

/* Whichever of the two refuses them: the other does not take them either. */
static void reload_run__takes_the_files_on_both_sides_or_on_none(void **state)
{
    struct files *x = *state;

    parts.reload_result = TEKD_EINVAL;
    reload_run(&x->t, 0);
    assert_int_equal(parts.http_reloads, 1);
    assert_int_equal(parts.push_uses, 0);
    assert_int_equal(parts.push_drops, 1);
    parts.reload_result = 0;
    parts.read_result = TEKD_EINVAL;
    reload_run(&x->t, 0);
    assert_int_equal(parts.http_reloads, 1);
    assert_int_equal(parts.push_uses, 0);
    assert_true(parts_logged("error tls event=reload-refused"));
    assert_int_equal(parts.n_records, 0);
    parts.read_result = 0;
    reload_run(&x->t, 0);
    assert_int_equal(parts.http_reloads, 2);
    assert_int_equal(parts.push_uses, 1);
    assert_int_equal(parts.n_records, 1);
}

static void reload_run__does_without_a_crl(void **state)
{
    struct files *x = *state;

    x->config.tls.crl = NULL;
    reload_begin(&x->t);
    reload_run(&x->t, 0);
    assert_detail(0, "SIGHUP: the same files");
}

static void reload_hash_file__reads_whole_files_only(void **state)
{
    struct files *x = *state;
    uint8_t digest[32], other[32];

    put(x->ca, "a");
    assert_int_equal(reload_hash_file(x->ca, digest), 0);
    assert_int_equal(digest[0], 0xca);
    assert_int_equal(digest[31], 0xbb);
    assert_int_equal(reload_hash_file("/dev/null", other), 0);
    assert_int_equal(reload_hash_file(x->dir, other), TEKD_EIO);
    assert_int_equal(reload_hash_file("/tmp/there/is/none", other), TEKD_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reload_run__names_the_files_that_changed_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(reload_run__says_who_sent_it, setup, teardown),
        cmocka_unit_test_setup_teardown(reload_run__records_nothing_that_was_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(reload_run__takes_the_files_on_both_sides_or_on_none, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(reload_run__does_without_a_crl, setup, teardown),
        cmocka_unit_test_setup_teardown(reload_hash_file__reads_whole_files_only, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
