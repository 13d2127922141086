#include "tekd/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "tekd/err.h"

int fds_hold_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        /* The lowest that is free, so this one. */
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return TEKD_EIO;
    }
    return 0;
}

bool fds_stdout_written(void)
{
    bool failed = ferror(stdout) != 0;

    return fflush(stdout) == 0 && !failed;
}

int fds_write(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno != EINTR)
            return TEKD_EIO;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}
