/*
 * Hash tables of the key service: uthash, with two rules.
 *
 * Out of memory in the middle of a change leaves nothing sensible to go on with: abort.  (Its
 * default is exit(), which takes the process apart under running threads.)
 *
 * The macros nest deeper than the house allows.  So each table has one function for each thing that
 * is done to it, between NOLINTBEGIN and NOLINTEND, and everything else calls those.  (The analyzer
 * besides does not see that an entry's neighbours in a table that has it are there.)
 */
#ifndef TEKD_KEYS_TABLE_H
#define TEKD_KEYS_TABLE_H

#include <stdlib.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>

#endif
