/*
 * Descriptors: 0, 1 and 2 as a program was given them, and writing all that is to be written.
 *
 * Of the first three one that is closed would be the number of the next file or socket: what is
 * printed would go into a connection or into a file of data, and count as printed.
 *
 * Thread rule: fds_hold_standard() before the first thread, and before anything is opened.
 */
#ifndef TEKD_FDS_H
#define TEKD_FDS_H

#include <stdbool.h>
#include <stddef.h>

/* In the place of each that is closed comes one that can neither be read (0) nor written (1, 2):
 * EBADF, as before.  Errors: TEKD_EIO. */
int fds_hold_standard(void);

/* Whether all that was printed on stdout so far could be written; for the end of a program, as what
 * could not be written was not said.  errno tells why not, where that is known. */
bool fds_stdout_written(void);

/* All of it, however many writes it takes; of a descriptor that blocks.  Errors: TEKD_EIO with
 * errno, some of it perhaps written. */
int fds_write(int fd, const void *data, size_t len);

#endif
