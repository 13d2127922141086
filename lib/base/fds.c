#include "tekd/fds.h"

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
