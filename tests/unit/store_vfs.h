/*
 * A file system for SQLite under which a test pulls the rug: the k-th write, truncation or sync
 * fails, once or for good, or the power is cut there: that operation and all later ones fail, and
 * what was not synced is undone.
 */
#ifndef TEST_STORE_VFS_H
#define TEST_STORE_VFS_H

#include <stdbool.h>

enum store_vfs_fault {
    VFS_NONE,
    VFS_IO_ERROR,  /* the k-th operation fails, later ones work */
    VFS_FULL,      /* writes fail from the k-th operation on: no space */
    VFS_FULL_ONCE, /* the k-th operation, if it is a write, finds no space; later ones work */
    VFS_POWER_CUT,
};

/* Makes it SQLite's default; once. */
void store_vfs_register(void);

/* Arms: the operation number k, from 1, counted from now on. */
void store_vfs_arm(enum store_vfs_fault fault, unsigned k);
/* No faults any more; whether one had happened.  After a power cut no file may be open. */
bool store_vfs_disarm(void);
/* Operations since it was armed. */
unsigned store_vfs_count(void);

/* How far apart the faults of a test that fails each operation in turn are: 1, unless
 * TEKD_FAULT_STEP says a number up to 100.  Slow builds look at a part of them. */
unsigned store_vfs_step(void);

#endif
