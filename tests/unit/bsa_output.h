/* What a test's own process prints meanwhile. */
#ifndef TEST_BSA_OUTPUT_H
#define TEST_BSA_OUTPUT_H

#include <stdio.h>

#define BSA_OUTPUT_MAX 4096

struct bsa_output {
    FILE *stream; /* stdout or stderr */
    int file, saved;
};

/* From here on what is printed there is caught ... */
void bsa_output_catch(struct bsa_output *o, FILE *stream);
/* ... until here; text is what it was. */
void bsa_output_end(struct bsa_output *o, char text[static BSA_OUTPUT_MAX]);

/*
 * Runs a command of tek-bsa with pairs of options, closed by NULL: the usual ones, but for those
 * that more has too, and more.  Returns its exit status.
 */
#define BSA_OUTPUT_ARGS_MAX 60
int bsa_output_run(int (*command)(int argc, char **argv), const char *const *usual,
                   const char *const *more, char printed[static BSA_OUTPUT_MAX],
                   char complained[static BSA_OUTPUT_MAX]);

#endif
