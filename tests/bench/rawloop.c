/*
 * The yardstick of the HSM: as many processes as the server has key workers, each with a session
 * of its own, generate a TEK, wrap it under the storage KEK and under a BSA's KEK, destroy it, and
 * start over; no server, no messages, no store.  The KEKs are token objects found by label.
 * Bounded by count and by time.  Prints one JSON object.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "cryptoki.h"
#include "measure.h"
#include "opts.h"
#include "tekd/auto.h"

#define PROCESSES_MAX 64
/* Loading a module, logging in and finding two keys takes seconds on a slow token. */
#define READY_TIMEOUT_MS 60000
/* Cycles between two looks at the clock. */
#define STRIDE 16
/* Of a numbered KEK: 48 octets of the name given, and the number. */
#define LABEL_MAX 64

struct settings {
    const char *module, *token, *pin_file, *storage_kek, *bsa_kek;
    uint64_t processes, count, seconds, more_keks;
    bool make_keys;
};

/* What a process measured; in memory shared with the parent, written once at its end. */
struct result {
    uint64_t operations;
    int64_t start_ns, end_ns, cpu_us, max_rss_kb;
};

/* The children's ends: they write "ready" into one pipe and read "go" from the other. */
struct gate {
    int ready[2], go[2];
};

static int find_one(struct cryptoki *c, const char *label, CK_OBJECT_HANDLE *ret_key)
{
    CK_ULONG n;

    if (cryptoki_find(c, label, ret_key, &n) < 0)
        return -1;
    if (n == 1)
        return 0;
    fprintf(stderr, "%s keys with label %s, exactly one is needed\n", n == 0 ? "no" : "several",
            label);
    return -1;
}

static int wait_for_go(const struct gate *gate)
{
    char octet = 'r';

    if (write(gate->ready[1], &octet, 1) != 1)
        return -1;
    return read(gate->go[0], &octet, 1) == 1 ? 0 : -1;
}

static int loop(struct cryptoki *c, const struct settings *set, const CK_OBJECT_HANDLE kek[2],
                struct result *ret_result)
{
    struct result result = {.start_ns = measure_now_ns()};
    const int64_t end = result.start_ns + (int64_t)set->seconds * 1000000000;
    const int64_t cpu = measure_cpu_us(RUSAGE_SELF);
    struct rusage ru;

    while (result.operations < set->count) {
        if (result.operations % STRIDE == 0 && measure_now_ns() >= end)
            break;
        if (cryptoki_tek_cycle(c, kek[0], kek[1]) < 0)
            return -1;
        result.operations++;
    }
    result.end_ns = measure_now_ns();
    result.cpu_us = measure_cpu_us(RUSAGE_SELF) - cpu;
    if (getrusage(RUSAGE_SELF, &ru) == 0)
        result.max_rss_kb = ru.ru_maxrss;
    *ret_result = result;
    return 0;
}

static int child(const struct settings *set, const struct gate *gate, struct result *ret_result)
{
    struct cryptoki c = {.library = NULL};
    CK_OBJECT_HANDLE kek[2];
    int r;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    r = cryptoki_open(&c, set->module, set->token, set->pin_file, false);
    if (r == 0)
        r = find_one(&c, set->storage_kek, &kek[0]);
    if (r == 0)
        r = find_one(&c, set->bsa_kek, &kek[1]);
    if (r == 0)
        r = wait_for_go(gate);
    if (r == 0)
        r = loop(&c, set, kek, ret_result);
    cryptoki_close(&c);
    return r;
}

/* -1: the child failed or took too long. */
static int wait_until_ready(const struct gate *gate)
{
    struct pollfd pfd = {.fd = gate->ready[0], .events = POLLIN};
    char octet = 'f';

    if (poll(&pfd, 1, READY_TIMEOUT_MS) == 1 && read(gate->ready[0], &octet, 1) == 1 &&
        octet == 'r')
        return 0;
    fprintf(stderr, "a process did not get ready\n");
    return -1;
}

static _Noreturn void run_child(const struct settings *set, const struct gate *gate,
                                struct result *ret_result)
{
    const char failed = 'f';

    (void)close(gate->go[1]);
    if (child(set, gate, ret_result) == 0)
        _exit(EXIT_SUCCESS);
    /* The parent may already have gone, and then nobody asks. */
    if (write(gate->ready[1], &failed, 1) != 1)
        _exit(2);
    _exit(EXIT_FAILURE);
}

/*
 * Starts the processes one after the other: SoftHSM's C_Login empties the token's file, gives up
 * its lock, and only then writes the file again, so that a process which opens the token meanwhile
 * finds none.
 */
static int fork_all(const struct settings *set, const struct gate *gate, struct result *results,
                    pid_t *pids)
{
    for (uint64_t i = 0; i < set->processes; i++) {
        pids[i] = fork();
        if (pids[i] < 0) {
            fprintf(stderr, "fork: %s\n", strerrorname_np(errno));
            return -1;
        }
        if (pids[i] == 0)
            run_child(set, gate, &results[i]);
        if (wait_until_ready(gate) < 0)
            return -1;
    }
    return 0;
}

static int reap_all(const struct settings *set, const pid_t *pids)
{
    int r = 0;

    for (uint64_t i = 0; i < set->processes; i++) {
        int status = 0;

        if (pids[i] > 0 && (waitpid(pids[i], &status, 0) != pids[i] || status != 0))
            r = -1;
    }
    return r;
}

static int report(const struct settings *set, const struct result *results)
{
    int64_t start = INT64_MAX, end = 0, cpu = 0, rss = 0;
    json_t *each = json_array();
    uint64_t operations = 0;
    double elapsed;

    for (uint64_t i = 0; i < set->processes; i++) {
        const struct result *r = &results[i];

        start = r->start_ns < start ? r->start_ns : start;
        end = r->end_ns > end ? r->end_ns : end;
        rss = r->max_rss_kb > rss ? r->max_rss_kb : rss;
        cpu += r->cpu_us;
        operations += r->operations;
        (void)json_array_append_new(each, json_integer((json_int_t)r->operations));
    }
    elapsed = (double)(end - start) / 1e9;
    return measure_print(json_pack(
        "{sI, sI, so, sf, sf, sf, sI}", "processes", (json_int_t)set->processes, "operations",
        (json_int_t)operations, "each", each, "seconds", elapsed, "rate",
        elapsed > 0 ? (double)operations / elapsed : 0.0, "cpu_us_per_operation",
        operations > 0 ? (double)cpu / (double)operations : 0.0, "max_rss_kb", (json_int_t)rss));
}

static int measure(const struct settings *set)
{
    const char go[PROCESSES_MAX] = {0};
    pid_t pids[PROCESSES_MAX] = {0};
    struct result *results = mmap(NULL, sizeof(*results) * PROCESSES_MAX, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct gate gate;
    int r;

    if (results == MAP_FAILED || pipe(gate.ready) < 0 || pipe(gate.go) < 0) {
        fprintf(stderr, "mmap, pipe: %s\n", strerrorname_np(errno));
        return -1;
    }
    r = fork_all(set, &gate, results, pids);
    if (r == 0 && write(gate.go[1], go, set->processes) != (ssize_t)set->processes)
        r = -1;
    /* Whoever still waits reads the end of the pipe and ends; none is killed within C_Login. */
    (void)close(gate.go[1]);
    if (reap_all(set, pids) < 0)
        r = -1;
    return r < 0 ? -1 : report(set, results);
}

static int make_missing(struct cryptoki *c, const char *label, bool storage)
{
    CK_OBJECT_HANDLE key;
    CK_ULONG n;

    if (cryptoki_find(c, label, &key, &n) < 0)
        return -1;
    return n > 0 ? 0 : cryptoki_make_kek(c, label, storage);
}

/* KEKs of many BSAs, which must not be there yet: looking for each would take longer. */
static int make_numbered(struct cryptoki *c, const struct settings *set)
{
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < set->more_keks; i++) {
        char label[LABEL_MAX];

        (void)snprintf(label, sizeof(label), "%.48s-%u", set->bsa_kek, (unsigned)i);
        r = cryptoki_make_kek(c, label, false);
    }
    return r;
}

static int make_keys(const struct settings *set)
{
    struct cryptoki c = {.library = NULL};
    int r = cryptoki_open(&c, set->module, set->token, set->pin_file, true);

    if (r == 0)
        r = make_missing(&c, set->storage_kek, true);
    if (r == 0)
        r = make_missing(&c, set->bsa_kek, false);
    if (r == 0)
        r = make_numbered(&c, set);
    cryptoki_close(&c);
    return r;
}

int main(int argc, char **argv)
{
    struct settings set = {.processes = 2, .count = UINT64_C(1) << 32, .seconds = 5};
    const struct opts_option table[] = {
        OPTS_TEXT_REQ("module", &set.module, "PKCS#11 module"),
        OPTS_TEXT_REQ("token", &set.token, "label of the token"),
        OPTS_TEXT_REQ("pin-file", &set.pin_file, "mode 0600"),
        OPTS_TEXT_REQ("storage-kek", &set.storage_kek, "label of the KEK for the store"),
        OPTS_TEXT_REQ("bsa-kek", &set.bsa_kek, "label of the KEK of a BSA"),
        OPTS_NUMBER("processes", &set.processes, 1, PROCESSES_MAX, "as many as key workers"),
        OPTS_NUMBER("count", &set.count, 1, UINT64_C(1) << 32, "operations of each at most"),
        OPTS_NUMBER("seconds", &set.seconds, 1, 3600, "time at most"),
        OPTS_NUMBER("more-keks", &set.more_keks, 0, 100000,
                    "make-keys: so many new ones besides, BSA-KEK-0, BSA-KEK-1 ..."),
        OPTS_SWITCH("make-keys", &set.make_keys, "makes the KEKs that are not there, and ends"),
    };

    opts_parse(table, ARRAY_SIZE(table), argc, argv);
    if (set.make_keys)
        return make_keys(&set) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    return measure(&set) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
