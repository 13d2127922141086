#include "bsa_output.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
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

static bool has(const char *const *list, const char *option)
{
    for (; *list != NULL; list++)
        if (strcmp(*list, option) == 0)
            return true;
    return false;
}

int bsa_output_run(int (*command)(int argc, char **argv), const char *const *usual,
                   const char *const *more, char printed[static BSA_OUTPUT_MAX],
                   char complained[static BSA_OUTPUT_MAX])
{
    char *argv[BSA_OUTPUT_ARGS_MAX] = {"command"};
    struct bsa_output out, err;
    int argc = 1, e;

    for (; usual[0] != NULL; usual += 2) {
        if (has(more, usual[0]))
            continue;
        argv[argc++] = (char *)(uintptr_t)usual[0];
        argv[argc++] = (char *)(uintptr_t)usual[1];
    }
    for (; *more != NULL; more++)
        argv[argc++] = (char *)(uintptr_t)*more;
    assert_true(argc < BSA_OUTPUT_ARGS_MAX);
    bsa_output_catch(&out, stdout);
    bsa_output_catch(&err, stderr);
    e = command(argc, argv);
    bsa_output_end(&out, printed);
    bsa_output_end(&err, complained);
    return e;
}
