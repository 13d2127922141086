#include "bsa_output.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

void bsa_output_catch(struct bsa_output *o, FILE *stream)
{
    o->stream = stream;
    o->saved = dup(fileno(stream));
    o->file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(o->saved >= 0 && o->file >= 0);
    (void)fflush(stream);
    assert_int_equal(dup2(o->file, fileno(stream)), fileno(stream));
}

void bsa_output_end(struct bsa_output *o, char text[static BSA_OUTPUT_MAX])
{
    ssize_t n;

    (void)fflush(o->stream);
    assert_int_equal(dup2(o->saved, fileno(o->stream)), fileno(o->stream));
    n = pread(o->file, text, BSA_OUTPUT_MAX - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    assert_int_equal(close(o->saved) + close(o->file), 0);
}
