/*
 * Runs a fuzz target once on each file of the directories and on each file named, without
 * libFuzzer: for compilers that do not have it, and to measure coverage.
 *   replay PATH...
 * Exit: 0 all were run (a fault aborts), 1 a path cannot be read, or there was no file at all.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* More than any body that is read. */
#define INPUT_MAX (128u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long count;

static bool run_file(const char *path)
{
    static uint8_t input[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    uint8_t *exact;
    size_t size;

    if (f == NULL) {
        perror(path);
        return false;
    }
    size = fread(input, 1, sizeof(input), f);
    (void)fclose(f);
    exact = malloc(size > 0 ? size : 1); /* no octet behind: sanitizers see a read too far */
    if (exact == NULL)
        return false;
    memcpy(exact, input, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    count++;
    return true;
}

static bool run_directory(const char *path)
{
    char full[4096];
    struct dirent *entry;
    bool ok = true;
    DIR *dir = opendir(path);

    if (dir == NULL) {
        perror(path);
        return false;
    }
    while (ok && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(full, sizeof(full), "%s/%s", path, entry->d_name);
        ok = run_file(full);
    }
    (void)closedir(dir);
    return ok;
}

int main(int argc, char **argv)
{
    struct stat st;
    bool ok = true;

    for (int i = 1; i < argc && ok; i++)
        ok = stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode) ? run_directory(argv[i])
                                                            : run_file(argv[i]);
    printf("%lu inputs\n", count);
    return ok && count > 0 ? 0 : 1;
}
