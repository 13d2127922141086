/*
 * Descriptors 0, 1 and 2 as a program was given them.
 *
 * One that is closed would be the number of the next file or socket: what is printed would go into
 * a connection or into a file of data, and count as printed.
 *
 * Thread rule: before the first thread, and before anything is opened.
 */
#ifndef TEKD_FDS_H
#define TEKD_FDS_H

/* In the place of each that is closed comes one that can neither be read (0) nor written (1, 2):
 * EBADF, as before.  Errors: TEKD_EIO. */
int fds_hold_standard(void);

#endif
