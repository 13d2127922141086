/*
 * What one fdatasync costs on the disk of a directory: appends a few octets to a new file there,
 * syncs, and repeats; prints {"octets", "sync": {...}} with the durations of the syncs alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"
#include "opts.h"
#include "tekd/auto.h"

#define OCTETS_MAX 65536

struct settings {
    const char *dir;
    uint64_t count, octets, seconds;
    bool overwrite;
};

static int failed(const char *call)
{
    fprintf(stderr, "%s: %s\n", call, strerrorname_np(errno));
    return -1;
}

static int write_all(int fd, const char *data, size_t len)
{
    ssize_t n = write(fd, data, len);

    return n == (ssize_t)len ? 0 : failed("write");
}

/* Makes the blocks first, so that a sync has data to write and no new size. */
static int prepare(int fd, const struct settings *set, const char *data)
{
    for (uint64_t i = 0; i < set->count; i++) {
        if (write_all(fd, data, set->octets) < 0)
            return -1;
    }
    if (fsync(fd) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return failed("fsync, lseek");
    return 0;
}

static int probe(int fd, const struct settings *set, struct measure_hist *h)
{
    static char data[OCTETS_MAX];
    const int64_t end = measure_now_ns() + (int64_t)set->seconds * 1000000000;

    memset(data, 'x', sizeof(data));
    if (set->overwrite && prepare(fd, set, data) < 0)
        return -1;
    for (uint64_t i = 0; i < set->count && measure_now_ns() < end; i++) {
        int64_t before;

        if (write_all(fd, data, set->octets) < 0)
            return -1;
        before = measure_now_ns();
        if (fdatasync(fd) < 0)
            return failed("fdatasync");
        measure_hist_add(h, measure_now_ns() - before);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct measure_hist h;
    struct settings set = {.count = 400, .octets = 4096, .seconds = 10};
    const struct opts_option table[] = {
        OPTS_TEXT_REQ("dir", &set.dir, "a directory on the disk in question"),
        OPTS_NUMBER("count", &set.count, 1, 1000000, "syncs at most"),
        OPTS_NUMBER("octets", &set.octets, 1, OCTETS_MAX, "written before each sync"),
        OPTS_NUMBER("seconds", &set.seconds, 1, 600, "time at most"),
        OPTS_SWITCH("overwrite", &set.overwrite, "write over blocks the file already has"),
    };
    AUTO_FD int fd = -1;

    opts_parse(table, sizeof(table) / sizeof(table[0]), argc, argv);
    /* Without a name: nothing is left behind, however it ends. */
    fd = open(set.dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        (void)failed("open");
        return EXIT_FAILURE;
    }
    if (probe(fd, &set, &h) < 0)
        return EXIT_FAILURE;
    return measure_print(json_pack("{sI, sb, so}", "octets", (json_int_t)set.octets, "overwrite",
                                   set.overwrite, "sync", measure_hist_json(&h))) < 0
               ? EXIT_FAILURE
               : EXIT_SUCCESS;
}
