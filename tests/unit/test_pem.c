/* Certificates and CRLs from PEM: all of a text or none of it, and nobody is asked anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/pem.h>
#include <string.h>

#include "http_pki.h"
#include "passphrase.h"
#include "tekd/pem.h"

static int set_up(void **state)
{
    *state = pki_new();
    return 0;
}

static int tear_down(void **state)
{
    pki_free(*state);
    return 0;
}

/* How many certificates are read from what stands in text; -1: none, because something is wrong. */
static int n_certs(BIO *text)
{
    STACK_OF(X509) *certs = pem_read_certs(text);
    int n = sk_X509_num(certs);

    sk_X509_pop_free(certs, X509_free);
    return n;
}

static int n_crls(BIO *text)
{
    STACK_OF(X509_CRL) *crls = pem_read_crls(text);
    int n = sk_X509_CRL_num(crls);

    sk_X509_CRL_pop_free(crls, X509_CRL_free);
    return n;
}

static void pem_read_certs__reads_all_of_them(void **state)
{
    const struct pki *p = *state;
    BIO *text = BIO_new(BIO_s_mem());

    assert_int_equal(PEM_write_bio_X509(text, p->server.cert), 1);
    assert_true(BIO_puts(text, "what stands between them is for people\r\n") > 0);
    assert_int_equal(PEM_write_bio_X509(text, p->ca.cert), 1);
    assert_int_equal(n_certs(text), 2);
    BIO_free(text);
}

static void pem_read_certs__refuses_a_text_without_any(void **state)
{
    static const char *const texts[] = {"", "-----BEGIN NOTHING-----\n", "no PEM\n"};

    (void)state;
    assert_int_equal(n_certs(NULL), -1);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        BIO *text = BIO_new_mem_buf(texts[i], -1);

        assert_int_equal(n_certs(text), -1);
        BIO_free(text);
    }
}

static void pem_read_certs__refuses_what_is_cut_short_behind_a_good_one(void **state)
{
    const struct pki *p = *state;
    BIO *text = BIO_new(BIO_s_mem()), *cut;
    char *octets;
    long one, both;

    assert_int_equal(PEM_write_bio_X509(text, p->server.cert), 1);
    one = BIO_get_mem_data(text, &octets);
    assert_int_equal(PEM_write_bio_X509(text, p->ca.cert), 1);
    both = BIO_get_mem_data(text, &octets);
    cut = BIO_new_mem_buf(octets, (int)(one + (both - one) / 2));
    assert_int_equal(n_certs(cut), -1);
    BIO_free(cut);
    BIO_free(text);
}

static void pem_read_crls__reads_all_of_them(void **state)
{
    struct pki *p = *state;
    BIO *text;

    pki_add_crl(p, &p->other_ca, 3600);
    text = BIO_new_file(pki_path(p, "ca.crl"), "r");
    assert_int_equal(n_crls(text), 2);
    BIO_free(text);
}

static BIO *encrypted(int (*to_der)(const void *object, unsigned char **out), const char *name,
                      void *object)
{
    BIO *text = BIO_new(BIO_s_mem());

    assert_int_equal(PEM_ASN1_write_bio(to_der, name, text, object, EVP_aes_128_cbc(),
                                        (const unsigned char *)"secret", 6, NULL, NULL),
                     1);
    return text;
}

static void pem__asks_nobody_for_a_passphrase(void **state)
{
    const struct pki *p = *state;
    BIO *file = BIO_new_file(pki_path(p, "ca.crl"), "r");
    X509_CRL *crl = PEM_read_bio_X509_CRL(file, NULL, NULL, NULL);
    BIO *cert = encrypted((i2d_of_void *)i2d_X509, PEM_STRING_X509, p->ca.cert);
    BIO *list = encrypted((i2d_of_void *)i2d_X509_CRL, PEM_STRING_X509_CRL, crl);

    assert_non_null(crl);
    passphrase_offer();
    assert_int_equal(n_certs(cert), -1);
    passphrase_offer();
    assert_int_equal(n_crls(list), -1);
    BIO_free(list);
    BIO_free(cert);
    X509_CRL_free(crl);
    BIO_free(file);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pem_read_certs__reads_all_of_them),
        TEST(pem_read_certs__refuses_a_text_without_any),
        TEST(pem_read_certs__refuses_what_is_cut_short_behind_a_good_one),
        TEST(pem_read_crls__reads_all_of_them),
        TEST(pem__asks_nobody_for_a_passphrase),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
